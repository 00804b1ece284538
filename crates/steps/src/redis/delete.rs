//! Deleting the keys of a prefix: UNLINK in batches, so that memory is given back beside the server's work and not in it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ::redis::{cmd, pipe};
use pgrunbook_engine::Cancel;
use pgrunbook_engine::fault::{self, Point};
use xxhash_rust::xxh3::xxh3_64;

use super::error::RedisFault;
use super::keys::note;
use super::node::{Node, Nodes, number};
use super::prefix::Prefix;
use super::scan::{Keep, Mark, Walk, anybody, subject};

/// How often all is walked: keys that are written meanwhile, or move between the servers of a cluster, are found by the
/// next walk. Whoever still writes after the third goes on writing.
const WALKS: u32 = 3;

/// What deleting may do, and tells.
pub struct How<'a> {
    pub batch: u32,
    /// What the walk is about, and where it is noted before each batch.
    pub keep: Option<(&'a str, Keep)>,
    /// Keys counted beforehand, which are noted with it: an attempt that goes on has fewer before it.
    pub counted: Option<u64>,
    pub cancel: &'a Cancel,
    /// Keys deleted so far, by earlier attempts too.
    pub tell: &'a (dyn Fn(u64) + Send + Sync),
}

/// What was deleted, by this attempt and those that it goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub keys: u64,
    /// Keys that the first attempt counted.
    pub counted: Option<u64>,
    pub walks: u32,
    /// The last walk still found keys: they are written while they are deleted.
    pub is_written: bool,
    pub resumed: bool,
    pub took: Duration,
}

/// A deletion that did not come to its end, with how many keys are gone for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub deleted: u64,
    pub fault: RedisFault,
}

/// Deletes every key of a prefix.
///
/// # Errors
/// [`Cut`]: what is deleted stays so, and the next attempt goes on.
///
/// Cancellation: what is sent to a server happens or not, whoever waits for the answer. So the batch is noted before it is sent, and
/// the next attempt counts those of its keys that it does not find again.
pub async fn delete(nodes: &mut Nodes, prefix: &Prefix, mut how: How<'_>) -> Result<Deleted, Cut> {
    let begin = Instant::now();
    let is_cluster = nodes.is_cluster;
    let subject = how.keep.as_ref().and_then(|(place, _)| subject(place, prefix, &nodes.primaries));
    let about = how.keep.as_ref().map_or_else(String::new, |(place, _)| anybody(place, prefix));
    let left = how.keep.as_ref().and_then(|(place, keep)| keep.cut_short(place, prefix));
    let mut keep = how.keep.take().map(|(_, keep)| keep);
    let resumed = left.is_some();
    let mut mark = match left {
        Some(left) => left.taken_up(subject.as_deref()),
        None => Mark::of(subject.as_deref().unwrap_or(&about)),
    };
    mark.counted = mark.counted.or(how.counted);
    if let Some(keep) = keep.as_mut() {
        // In the place of whatever an earlier walk left.
        note(keep, &mut mark, &mut Vec::new()).map_err(|fault| Cut { deleted: mark.deleted, fault })?;
    }
    let mut doubtful: HashSet<u64> = mark.doubtful.iter().copied().collect();
    let mut walks = 0;
    let mut is_written = true;
    let mut told = Instant::now();
    while is_written && walks < WALKS {
        walks += 1;
        is_written = false;
        let mut walk = Walk::new(&mut nodes.primaries, prefix, how.batch, "", Some(mark));
        loop {
            let before = walk.mark.place();
            let deleted = walk.mark.deleted;
            let cut = |fault: RedisFault| Cut { deleted, fault };
            let Some((at, keys)) = walk.next().await.map_err(cut)? else { break };
            let hashes: Vec<u64> = keys.iter().map(|key| xxh3_64(key)).collect();
            if let Some(keep) = keep.as_mut().filter(|keep| !keys.is_empty() || keep.is_due()) {
                let mut ahead = walk.mark.clone().standing(before);
                ahead.doubtful = doubtful.iter().chain(&hashes).copied().collect();
                jotted(keep, &mut ahead).map_err(cut)?;
            }
            if !keys.is_empty() {
                is_written = true;
                fault::pass(Point::BeforeEffect);
                let gone = unlink(&mut walk.nodes[at], &keys, is_cluster).await.map_err(cut)?;
                fault::pass(Point::AfterEffect);
                // An attempt that was dropped may have deleted them since they were found here.
                let unsure = hashes.iter().filter(|hash| doubtful.remove(hash)).count() as u64;
                walk.mark.deleted += gone + unsure.min((keys.len() as u64).saturating_sub(gone));
            }
            let deleted = walk.mark.deleted;
            if how.cancel.is_stopping() {
                let cut = |fault: RedisFault| Cut { deleted, fault };
                if let Some(keep) = keep.as_mut() {
                    walk.mark.doubtful = doubtful.into_iter().collect();
                    note(keep, &mut walk.mark, &mut Vec::new()).map_err(cut)?;
                }
                let after = format!(" after {deleted} keys, which stay deleted");
                return Err(cut(RedisFault::Stopped { after }));
            }
            if told.elapsed() >= Duration::from_millis(200) {
                told = Instant::now();
                (how.tell)(deleted);
            }
        }
        mark = walk.mark.standing((0, 0));
    }
    // What an attempt that was cut short had sent, and no walk found again, it had deleted.
    mark.deleted += doubtful.len() as u64;
    mark.doubtful.clear();
    let (deleted, counted) = (mark.deleted, mark.counted);
    if let Some(keep) = keep.as_mut() {
        // Between this and the journal's outcome a crash loses nothing: the mark tells how many were deleted.
        keep.finish(&mut mark).map_err(|error| Cut {
            deleted,
            fault: RedisFault::File { path: "the run's folder".to_owned(), why: error.to_string() },
        })?;
    }
    Ok(Deleted { keys: deleted, counted, walks, is_written, resumed, took: begin.elapsed() })
}

/// Notes a batch before it is sent; on disk once in a while, which is what a crash of the machine costs at most.
fn jotted(keep: &mut Keep, mark: &mut Mark) -> Result<(), RedisFault> {
    if keep.is_due() {
        return note(keep, mark, &mut Vec::new());
    }
    keep.jot(mark).map_err(|error| RedisFault::File { path: "the run's folder".to_owned(), why: error.to_string() })
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
