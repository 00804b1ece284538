//! Walking the keys of a prefix with SCAN, so that others hardly notice, and going on where a walk was cut short.
//!
//! What SCAN promises (<https://redis.io/docs/latest/commands/scan/>): a key that is there from the beginning to the end is
//! returned; one that comes or goes meanwhile may be or not; one may be returned several times. The cursor holds the
//! whole state, so that a walk may pause for as long as it wants. It means nothing to another process of the server, whose
//! hash seed differs: a walk that is taken up after the server started anew begins anew.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::redis::{Value, cmd};
use serde::{Deserialize, Serialize};

use super::error::RedisFault;
use super::node::{Node, text};
use super::prefix::Prefix;

/// Keys that one SCAN looks at where nobody says otherwise: about 45 µs of the server's time, in which others wait
/// (`bench/redis`).
pub const BATCH: u32 = 64;

/// How often a walk notes where it is: what a crash costs at most.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// The version of [`Mark`]. A reader that finds another begins anew. 2: what a deletion counts beside its cursor.
const VERSION: u32 = 2;

/// Where a walk stands, in a file of the run's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    version: u32,
    /// What is walked: the target, the prefix, and the processes of its servers.
    subject: String,
    /// Which of the servers, and its cursor.
    node: usize,
    cursor: u64,
    /// Hashes in the file beside this one.
    hashes: u64,
    /// What had been returned, and deleted, by then.
    pub returned: u64,
    pub deleted: u64,
    pub calls: u64,
    /// Keys that a deletion counted before its first batch.
    pub counted: Option<u64>,
    /// Hashes of keys of which nobody knows whether they are deleted: the batch that was sent when this was written.
    pub doubtful: Vec<u64>,
    /// The walk came to its end.
    done: bool,
}

impl Mark {
    /// Where it stands: server, and cursor.
    pub fn place(&self) -> (usize, u64) {
        (self.node, self.cursor)
    }

    /// The same, standing elsewhere.
    #[must_use]
    pub fn standing(self, (node, cursor): (usize, u64)) -> Self {
        Self { node, cursor, ..self }
    }

    /// The mark to go on from on servers that are `subject`: at its cursor if they are the processes that it was of, else from the
    /// beginning; what was deleted and what is in doubt stays either way.
    #[must_use]
    pub fn taken_up(self, subject: Option<&str>) -> Self {
        if subject == Some(self.subject.as_str()) {
            return self;
        }
        let subject = subject.map_or_else(|| self.subject.clone(), str::to_owned);
        Self { subject, ..self }.standing((0, 0))
    }

    /// A mark of nothing yet.
    pub fn of(subject: &str) -> Self {
        Self { version: VERSION, subject: subject.to_owned(), ..Self::default() }
    }
}

/// Where marks are kept.
pub struct Keep {
    path: PathBuf,
    last: Instant,
    /// What was written since the mark, a line each; opened with the first.
    ahead: Option<File>,
}

/// The last line of what was written since a mark stands within so many bytes of its end: that of a batch of 10,000 keys has 210 kB.
const LAST_LINE: u64 = 4 << 20;

impl Keep {
    /// In a folder, under the step's name.
    pub fn at(folder: &Path, step: &str) -> Self {
        Self { path: folder.join(format!("{step}.scan.json")), last: Instant::now(), ahead: None }
    }

    fn ahead(&self) -> PathBuf {
        self.path.with_extension("ahead")
    }

    fn hashes(&self) -> PathBuf {
        self.path.with_extension("hashes")
    }

    /// The mark of an earlier attempt at the same thing, with the hashes it had seen.
    pub fn found(&self, subject: &str) -> Option<(Mark, Vec<u64>)> {
        let mark: Mark = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        if mark.version != VERSION || mark.subject != subject || mark.done {
            return None;
        }
        let wanted = usize::try_from(mark.hashes).ok()?;
        let mut bytes = vec![0; wanted.checked_mul(8)?];
        if wanted > 0 {
            File::open(self.hashes()).ok()?.read_exact(&mut bytes).ok()?;
        }
        let hashes = bytes.as_chunks::<8>().0.iter().map(|one| u64::from_le_bytes(*one)).collect();
        Some((mark, hashes))
    }

    /// The mark of a walk that came to its end, whatever process of the server it was.
    pub fn finished(&self, place: &str, prefix: &Prefix) -> Option<Mark> {
        self.of_any(place, prefix).filter(|mark| mark.done)
    }

    /// The mark of a walk that was cut short, whatever process of the server it was: [`Mark::taken_up`] says where to go on.
    pub fn cut_short(&self, place: &str, prefix: &Prefix) -> Option<Mark> {
        self.of_any(place, prefix).filter(|mark| !mark.done)
    }

    fn of_any(&self, place: &str, prefix: &Prefix) -> Option<Mark> {
        let mark: Mark = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        let wanted = |mark: &Mark| mark.version == VERSION && mark.subject.starts_with(&anybody(place, prefix));
        let newer = |ahead: &Mark| !mark.done && ahead.subject == mark.subject && ahead.calls > mark.calls;
        let ahead = self.last_line().filter(newer);
        ahead.or(Some(mark)).filter(wanted)
    }

    /// What was written last since the mark. A line that a crash tore is of no account: nothing was done after it.
    fn last_line(&self) -> Option<Mark> {
        let mut file = File::open(self.ahead()).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE))).ok()?;
        let mut bytes = Vec::new();
        file.take(LAST_LINE).read_to_end(&mut bytes).ok()?;
        bytes.rsplit(|byte| *byte == b'\n').find_map(|line| serde_json::from_slice(line).ok())
    }

    /// Notes that the walk came to its end.
    ///
    /// # Errors
    /// Of the file system.
    pub fn finish(&mut self, mark: &mut Mark) -> std::io::Result<()> {
        mark.done = true;
        self.note(mark, &mut Vec::new())
    }

    /// Whether it is time to note where the walk is.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= NOTED_EVERY
    }

    /// Notes where the walk is. `fresh`: the hashes seen since the last time; the mark names them only once they are on disk.
    ///
    /// # Errors
    /// Of the file system.
    pub fn note(&mut self, mark: &mut Mark, fresh: &mut Vec<u64>) -> std::io::Result<()> {
        if !fresh.is_empty() {
            let mut file = File::options().create(true).truncate(false).write(true).open(self.hashes())?;
            // What an attempt wrote behind its last mark is of no account.
            file.set_len(mark.hashes * 8)?;
            file.seek(SeekFrom::End(0))?;
            let bytes: Vec<u8> = fresh.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            file.write_all(&bytes)?;
            file.sync_data()?;
            mark.hashes += fresh.len() as u64;
            fresh.clear();
        }
        let next = self.path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec(mark).map_err(std::io::Error::other)?)?;
        file.sync_data()?;
        std::fs::rename(&next, &self.path)?;
        match &self.ahead {
            Some(file) => file.set_len(0)?,
            // Of an earlier attempt, if there is one.
            None => drop(std::fs::remove_file(self.ahead())),
        }
        self.last = Instant::now();
        Ok(())
    }

    /// Writes where the walk is so that this process may die, and does not wait for the disk: 10 µs, where a file that takes another's
    /// place is 1 ms on ext4. [`Keep::note`] comes before; what a crash of the machine takes is what came since it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn jot(&mut self, mark: &Mark) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(mark).map_err(std::io::Error::other)?;
        line.push(b'\n');
        let mut file = match self.ahead.take() {
            Some(file) => file,
            None => File::options().create(true).append(true).open(self.ahead())?,
        };
        let written = file.write_all(&line);
        self.ahead = Some(file);
        written
    }

    /// Forgets the walk: it is over, or begins anew.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.ahead());
        let _ = std::fs::remove_file(self.hashes());
    }
}

/// What a walk is about, as [`Mark`] compares it; `None` where a server does not say which process it is.
pub fn subject(place: &str, prefix: &Prefix, nodes: &[Node]) -> Option<String> {
    let mut subject = anybody(place, prefix);
    for node in nodes {
        subject.push_str(&format!("{}={} ", node.address, node.info.run_id()?));
    }
    Some(subject)
}

/// What every subject of a place and a prefix begins with, whatever the processes.
pub fn anybody(place: &str, prefix: &Prefix) -> String {
    format!("{place} {prefix} ")
}

/// A walk over all keys of a prefix, server by server.
pub struct Walk<'a> {
    pub nodes: &'a mut [Node],
    prefix: &'a Prefix,
    pattern: String,
    batch: u32,
    pub mark: Mark,
    /// The longest that one SCAN took, there and back.
    pub slowest: Duration,
}

impl<'a> Walk<'a> {
    /// From the beginning, or from a mark.
    pub fn new(nodes: &'a mut [Node], prefix: &'a Prefix, batch: u32, subject: &str, mark: Option<Mark>) -> Self {
        let mark = mark.unwrap_or_else(|| Mark::of(subject));
        Self { nodes, prefix, pattern: prefix.pattern(), batch: batch.clamp(1, 10_000), mark, slowest: Duration::ZERO }
    }

    /// The keys of the next step, with their server; empty steps are told too. `None`: all servers are walked.
    ///
    /// # Errors
    /// [`RedisFault`]
    pub async fn next(&mut self) -> Result<Option<(usize, Vec<Vec<u8>>)>, RedisFault> {
        let at = self.mark.node;
        let Some(node) = self.nodes.get_mut(at) else { return Ok(None) };
        let mut scan = cmd("SCAN");
        scan.arg(self.mark.cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(self.batch);
        let begin = Instant::now();
        let answer = node.ask(&scan).await?;
        self.slowest = self.slowest.max(begin.elapsed());
        let not_understood = || node.not_understood(&scan);
        let Value::Array(mut parts) = answer else { return Err(not_understood()) };
        let (Some(Value::Array(found)), Some(cursor)) = (parts.pop(), parts.pop()) else {
            return Err(not_understood());
        };
        let cursor: u64 = text(&cursor).and_then(|text| text.parse().ok()).ok_or_else(not_understood)?;
        let keys = found.into_iter().filter_map(|key| match key {
            // Whatever the server's pattern meant, nothing else is counted, and nothing else deleted.
            Value::BulkString(key) if self.prefix.covers(&key) => Some(key),
            _ => None,
        });
        let keys: Vec<Vec<u8>> = keys.collect();
        self.mark.calls += 1;
        self.mark.returned += keys.len() as u64;
        self.mark.cursor = cursor;
        if cursor == 0 {
            self.mark.node += 1;
        }
        Ok(Some((at, keys)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again_with_its_hashes_and_only_by_its_subject() {
        let folder = tempfile::tempdir().unwrap();
        let mut keep = Keep::at(folder.path(), "count");
        let mut mark = Mark { version: VERSION, subject: "a".to_owned(), cursor: 7, ..Mark::default() };
        keep.note(&mut mark, &mut vec![1, 2]).unwrap();
        keep.note(&mut mark, &mut vec![3]).unwrap();
        let (found, hashes) = keep.found("a").unwrap();
        assert_eq!((found.cursor, hashes), (7, vec![1, 2, 3]));
        assert_eq!(keep.found("another process"), None);
        keep.forget();
        assert_eq!(keep.found("a"), None);
    }

    #[test]
    fn what_was_written_since_the_mark_counts_up_to_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = Prefix::parse("a:").unwrap();
        let at =
            |calls| Mark { calls, deleted: calls * 10, doubtful: vec![calls, u64::MAX], ..Mark::of("here a: x=1 ") };
        let found = || Keep::at(folder.path(), "clear").cut_short("here", &prefix);
        let mut keep = Keep::at(folder.path(), "clear");
        assert_eq!(found(), None);
        keep.note(&mut at(1), &mut Vec::new()).unwrap();
        assert_eq!(found(), Some(at(1)));
        keep.jot(&at(2)).unwrap();
        keep.jot(&at(3)).unwrap();
        assert_eq!(found(), Some(at(3)));
        let mut file = File::options().append(true).open(keep.ahead()).unwrap();
        file.write_all(b"{\"version\":2,\"subject\":\"here").unwrap();
        assert_eq!(found(), Some(at(3)));
        // What stands there from before the mark was renamed into its place is older than it.
        keep.note(&mut at(4), &mut Vec::new()).unwrap();
        assert_eq!(found(), Some(at(4)));
        keep.jot(&at(3)).unwrap();
        assert_eq!(found(), Some(at(4)));
        keep.jot(&at(5)).unwrap();
        assert_eq!(found(), Some(at(5)));
        keep.finish(&mut at(6)).unwrap();
        assert_eq!((found(), keep.finished("here", &prefix).unwrap().deleted), (None, 60));
    }

    #[test]
    fn hashes_behind_the_last_mark_are_of_no_account() {
        let folder = tempfile::tempdir().unwrap();
        let mut keep = Keep::at(folder.path(), "count");
        let mut mark = Mark { version: VERSION, subject: "a".to_owned(), ..Mark::default() };
        keep.note(&mut mark, &mut vec![1]).unwrap();
        let earlier = mark.clone();
        keep.note(&mut mark, &mut vec![8, 9]).unwrap();
        let mut again = earlier;
        keep.note(&mut again, &mut vec![2]).unwrap();
        assert_eq!(keep.found("a").unwrap().1, [1, 2]);
    }
}
