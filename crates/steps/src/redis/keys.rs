//! Counting the keys of a prefix, and looking closer at some of them. Names are kept only where they are asked for.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use ::redis::{cmd, pipe};
use pgrunbook_engine::Cancel;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::error::RedisFault;
use super::health::{bytes, percentile, shown};
use super::node::{Node, Nodes, number, text};
use super::prefix::Prefix;
use super::scan::{Keep, Mark, Walk, subject};

/// So many keys are told apart: 150 MB of hashes. Beyond, what SCAN repeats is counted again, and the answer says so.
const REMEMBERED: usize = 14_000_000;

/// A longer name is counted, and not looked at.
const LONGEST_NAME: usize = 4096;

/// What counting may do, and tells.
pub struct How<'a> {
    /// Keys that one SCAN looks at.
    pub batch: u32,
    /// How many keys are looked at closer.
    pub sample: usize,
    /// Names of sampled keys that are kept.
    pub show: usize,
    /// What the walk is about, and where it is noted.
    pub keep: Option<(&'a str, Keep)>,
    pub cancel: &'a Cancel,
    /// Keys so far.
    pub tell: &'a (dyn Fn(u64) + Send + Sync),
}

/// The keys of a prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Different keys; where not [`Counted::is_exact`], at most so many.
    pub keys: u64,
    pub is_exact: bool,
    /// What SCAN returned, repeats included.
    pub returned: u64,
    pub calls: u64,
    pub slowest_call: Duration,
    pub took: Duration,
    /// All keys of the servers, whatever their prefix.
    pub held: Option<u64>,
    pub nodes: usize,
    /// It went on where an earlier attempt had been cut short.
    pub resumed: bool,
    pub sample: Sample,
}

/// What was found in keys that were looked at closer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    pub keys: usize,
    pub types: BTreeMap<String, u64>,
    /// Keys that never expire.
    pub without_ttl: u64,
    /// Of those that expire, shortest first.
    pub ttls: Vec<Duration>,
    /// Bytes, of those whose size the server told.
    pub sizes: Vec<u64>,
    /// As many as were asked for; what is not UTF-8 is replaced.
    pub names: Vec<String>,
}

/// Hashes are their own hash.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Tells keys apart by 64 bits: of 14 million different ones, two are taken for one with a chance of 5 in a million.
struct Seen {
    hashes: HashSet<u64, BuildHasherDefault<Itself>>,
    /// Counted without being remembered.
    beyond: u64,
}

impl Seen {
    /// Whether it is new, as far as that is remembered.
    fn is_new(&mut self, hash: u64) -> bool {
        if self.hashes.len() < REMEMBERED {
            return self.hashes.insert(hash);
        }
        let new = !self.hashes.contains(&hash);
        self.beyond += u64::from(new);
        new
    }

    fn count(&self) -> u64 {
        self.hashes.len() as u64 + self.beyond
    }
}

/// Counts the keys of a prefix, and looks closer at some.
///
/// `place` is what the walk's mark is bound to.
///
/// # Errors
/// [`RedisFault`]; of an interruption where it stands is noted first.
pub async fn count(nodes: &mut Nodes, prefix: &Prefix, mut how: How<'_>) -> Result<Counted, RedisFault> {
    let begin = Instant::now();
    let about = how.keep.as_ref().and_then(|(place, _)| subject(place, prefix, &nodes.primaries));
    let found = about.as_ref().and_then(|about| how.keep.as_ref()?.1.found(about));
    let resumed = found.is_some();
    let (mark, hashes) = found.unzip();
    let mut seen = Seen { hashes: hashes.into_iter().flatten().collect(), beyond: 0 };
    let mut keep = how.keep.take().map(|(_, keep)| keep).filter(|_| about.is_some());
    if let Some(keep) = keep.as_ref().filter(|_| !resumed) {
        keep.forget();
    }
    let node_count = nodes.primaries.len();
    let mut walk = Walk::new(&mut nodes.primaries, prefix, how.batch, about.as_deref().unwrap_or_default(), mark);
    // Those with the smallest hashes: each key has the same chance, however often it is returned.
    let mut chosen: BinaryHeap<(u64, usize, Vec<u8>)> = BinaryHeap::new();
    let mut fresh = Vec::new();
    let mut told = Instant::now();
    while let Some((at, keys)) = walk.next().await? {
        for key in keys {
            let hash = xxh3_64(&key);
            if !seen.is_new(hash) {
                continue;
            }
            if keep.is_some() {
                fresh.push(hash);
            }
            let wanted = key.len() <= LONGEST_NAME
                && (chosen.len() < how.sample || chosen.peek().is_some_and(|(largest, ..)| hash < *largest));
            if how.sample > 0 && wanted {
                chosen.push((hash, at, key));
                if chosen.len() > how.sample {
                    chosen.pop();
                }
            }
        }
        let stopping = how.cancel.is_stopping();
        if let Some(keep) = keep.as_mut().filter(|keep| stopping || keep.is_due()) {
            note(keep, &mut walk.mark, &mut fresh)?;
        }
        if stopping {
            return Err(RedisFault::Stopped { after: format!(" after {} keys; nothing was changed", seen.count()) });
        }
        if told.elapsed() >= Duration::from_millis(200) {
            told = Instant::now();
            (how.tell)(seen.count());
        }
    }
    let (returned, calls, slowest_call) = (walk.mark.returned, walk.mark.calls, walk.slowest);
    let sample = look(&mut nodes.primaries, chosen.into_sorted_vec(), how.show).await?;
    let mut held = Some(0);
    for node in &mut nodes.primaries {
        let size = node.ask(&cmd("DBSIZE")).await.ok().as_ref().and_then(number);
        held = held.zip(size).map(|(held, size)| held + size.unsigned_abs());
    }
    if let Some(keep) = keep {
        keep.forget();
    }
    Ok(Counted {
        keys: seen.count(),
        is_exact: seen.beyond == 0,
        returned,
        calls,
        slowest_call,
        took: begin.elapsed(),
        held,
        nodes: node_count,
        resumed,
        sample,
    })
}

/// Notes where a walk is.
///
/// # Errors
/// If the run's folder takes no file.
pub fn note(keep: &mut Keep, mark: &mut Mark, fresh: &mut Vec<u64>) -> Result<(), RedisFault> {
    keep.note(mark, fresh)
        .map_err(|error| RedisFault::File { path: "the run's folder".to_owned(), why: error.to_string() })
}

async fn look(nodes: &mut [Node], chosen: Vec<(u64, usize, Vec<u8>)>, show: usize) -> Result<Sample, RedisFault> {
    let mut sample = Sample { keys: chosen.len(), ..Sample::default() };
    for (_, at, key) in &chosen {
        let Some(node) = nodes.get_mut(*at) else { continue };
        if sample.names.len() < show {
            sample.names.push(String::from_utf8_lossy(key).into_owned());
        }
        let mut both = pipe();
        both.cmd("TYPE").arg(key).cmd("PTTL").arg(key);
        let answers = node.ask_all("TYPE", &both).await?;
        let [kind, ttl] = answers.as_slice() else { continue };
        match number(ttl) {
            // It went meanwhile.
            None | Some(-2) => continue,
            Some(-1) => sample.without_ttl += 1,
            Some(ttl) => sample.ttls.push(Duration::from_millis(ttl.unsigned_abs())),
        }
        *sample.types.entry(text(kind).unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
        // Five elements of a large value are looked at, not all of it. A narrow credential may not ask.
        let usage = node.try_it(cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(5)).await;
        sample.sizes.extend(usage.ok().as_ref().and_then(number).map(i64::unsigned_abs));
    }
    sample.ttls.sort_unstable();
    Ok(sample)
}

impl Sample {
    /// What all keys take up, as far as some tell: bytes.
    fn estimate(&self, keys: u64) -> Option<u64> {
        let mean = self.sizes.iter().sum::<u64>().checked_div(self.sizes.len() as u64)?;
        Some(mean.saturating_mul(keys))
    }

    fn middle_ttl(&self) -> Option<Duration> {
        (!self.ttls.is_empty()).then(|| percentile(&self.ttls, 50))
    }
}

impl Counted {
    /// One line for people.
    pub fn summary(&self, prefix: &Prefix) -> String {
        let about = if self.is_exact { "" } else { "at most " };
        let held = self.held.map_or_else(String::new, |held| format!(" of {held}"));
        let nodes = if self.nodes == 1 { String::new() } else { format!(" on {} primaries", self.nodes) };
        format!("{about}{}{held} keys begin with `{prefix}`{nodes}, counted in {}", self.keys, shown(self.took))
    }

    /// Further lines for people.
    pub fn details(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} SCAN, the longest took {}; {} returned twice",
            self.calls,
            shown(self.slowest_call),
            self.returned.saturating_sub(self.keys)
        )];
        let sample = &self.sample;
        if sample.keys > 0 {
            let types: Vec<String> = sample.types.iter().map(|(name, count)| format!("{count} {name}")).collect();
            lines.push(format!("of {} looked at: {}", sample.keys, types.join(", ")));
            let middle = sample
                .middle_ttl()
                .map_or_else(String::new, |ttl| format!("; half of the others within {}", shown(ttl)));
            lines.push(format!("{} never expire{middle}", sample.without_ttl));
            if let Some(size) = sample.estimate(self.keys) {
                lines.push(format!("about {} in all, by the mean of {}", bytes(size), sample.sizes.len()));
            }
        }
        lines.extend(sample.names.iter().map(|name| format!("{name:?}")));
        lines
    }

    /// For programs. Times are microseconds, sizes bytes.
    pub fn json(&self) -> Value {
        let sample = &self.sample;
        json!({
            "keys": self.keys,
            "exact": self.is_exact,
            "held": self.held,
            "returned": self.returned,
            "calls": self.calls,
            "slowest_call_us": self.slowest_call.as_micros() as u64,
            "took_us": self.took.as_micros() as u64,
            "primaries": self.nodes,
            "resumed": self.resumed,
            "sample": {
                "keys": sample.keys,
                "types": sample.types,
                "without_ttl": sample.without_ttl,
                "ttl_p50_s": sample.middle_ttl().map(|ttl| ttl.as_secs()),
                "bytes_estimated": sample.estimate(self.keys),
                "names": sample.names,
            },
        })
    }
}
