//! Deleting the keys of a prefix: UNLINK in batches, so that memory is given back beside the server's work and not in it.

use std::time::{Duration, Instant};

use ::redis::{cmd, pipe};
use pgrunbook_engine::Cancel;

use super::error::RedisFault;
use super::keys::note;
use super::node::{Node, Nodes, number};
use super::prefix::Prefix;
use super::scan::{Keep, Walk, subject};

/// How often all is walked: keys that are written meanwhile, or move between the servers of a cluster, are found by the
/// next walk. Whoever still writes after the third goes on writing.
const WALKS: u32 = 3;

/// What deleting may do, and tells.
pub struct How<'a> {
    pub batch: u32,
    pub keep: Option<(&'a str, Keep)>,
    pub cancel: &'a Cancel,
    /// Keys deleted so far.
    pub tell: &'a (dyn Fn(u64) + Send + Sync),
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub keys: u64,
    pub walks: u32,
    /// The last walk still found keys: they are written while they are deleted.
    pub is_written: bool,
    pub resumed: bool,
    pub took: Duration,
}

/// A deletion that did not come to its end, with how many keys are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub deleted: u64,
    pub fault: RedisFault,
}

/// Deletes every key of a prefix.
///
/// # Errors
/// [`Cut`]: what is deleted stays so, and the next attempt goes on.
pub async fn delete(nodes: &mut Nodes, prefix: &Prefix, mut how: How<'_>) -> Result<Deleted, Cut> {
    let begin = Instant::now();
    let is_cluster = nodes.is_cluster;
    let about = how.keep.as_ref().and_then(|(place, _)| subject(place, prefix, &nodes.primaries));
    let mut keep = how.keep.take().map(|(_, keep)| keep).filter(|_| about.is_some());
    let about = about.unwrap_or_default();
    let mut mark = keep.as_ref().and_then(|keep| keep.found(&about)).map(|(mark, _)| mark);
    let resumed = mark.is_some();
    let (mut deleted, mut walks) = (mark.as_ref().map_or(0, |mark| mark.deleted), 0);
    let mut is_written = true;
    let mut told = Instant::now();
    while is_written && walks < WALKS {
        walks += 1;
        is_written = false;
        let mut walk = Walk::new(&mut nodes.primaries, prefix, how.batch, &about, mark.take());
        walk.mark.deleted = deleted;
        loop {
            let cut = |fault: RedisFault, deleted: u64| Cut { deleted, fault };
            let Some((at, keys)) = walk.next().await.map_err(|fault| cut(fault, deleted))? else { break };
            if !keys.is_empty() {
                is_written = true;
                let gone = unlink(&mut walk.nodes[at], &keys, is_cluster).await;
                deleted += gone.map_err(|fault| cut(fault, deleted))?;
                walk.mark.deleted = deleted;
            }
            let stopping = how.cancel.is_stopping();
            if let Some(keep) = keep.as_mut().filter(|keep| stopping || keep.is_due()) {
                note(keep, &mut walk.mark, &mut Vec::new()).map_err(|fault| cut(fault, deleted))?;
            }
            if stopping {
                let after = format!(" after {deleted} keys, which stay deleted");
                return Err(cut(RedisFault::Stopped { after }, deleted));
            }
            if told.elapsed() >= Duration::from_millis(200) {
                told = Instant::now();
                (how.tell)(deleted);
            }
        }
    }
    if let Some(keep) = keep.as_mut() {
        // Between this and the journal's outcome a crash loses nothing: the mark tells how many were deleted.
        let mut mark = Walk::new(&mut [], prefix, 1, &about, None).mark;
        mark.deleted = deleted;
        keep.finish(&mut mark).map_err(|error| Cut {
            deleted,
            fault: RedisFault::File { path: "the run's folder".to_owned(), why: error.to_string() },
        })?;
    }
    Ok(Deleted { keys: deleted, walks, is_written, resumed, took: begin.elapsed() })
}

/// How many of these were there. In a cluster one command may name keys of one slot only.
async fn unlink(node: &mut Node, keys: &[Vec<u8>], is_cluster: bool) -> Result<u64, RedisFault> {
    let unlink = cmd("UNLINK");
    if !is_cluster {
        let answer = node.ask(unlink.clone().arg(keys)).await?;
        return number(&answer).map(i64::unsigned_abs).ok_or_else(|| node.not_understood(&unlink));
    }
    let mut all = pipe();
    for key in keys {
        all.cmd("UNLINK").arg(key);
    }
    // A key whose slot is on its way to another server is not answered for here; the next walk finds it there.
    all.ignore_errors();
    let answers = node.ask_all("UNLINK", &all).await?;
    let mut gone = 0;
    for answer in &answers {
        match answer {
            ::redis::Value::ServerError(error) if !matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN") => {
                let why = format!("{} {}", error.code(), error.details().unwrap_or_default());
                return Err(RedisFault::Failed { command: "UNLINK".to_owned(), at: node.address.clone(), why });
            }
            other => gone += number(other).map_or(0, i64::unsigned_abs),
        }
    }
    Ok(gone)
}
