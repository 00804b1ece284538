//! When an application fits a schema.
//!
//! Versions are semantic versions (<https://semver.org>), compared by precedence (section 11):
//!
//! - A pre-release stands before its release, and is compared like any other version: an application of `1.1.0` does not
//!   run on a schema of `1.1.0-rc.1`, one of `1.1.0-rc.1` runs on `1.1.0` and on `1.1.0-rc.2`.
//! - Build metadata does not count: `1.1.0+linux` and `1.1.0` are the same schema.
//! - The major number is compared as it is, `0` too: `0.2.0` fits an application of `0.1.0`. Who breaks the schema in a
//!   `0.x` says so by going to `1.0.0`.
//!
//! A chain of migrations has numbers, and no majors: see [`ChainVersion`].

use std::cmp::Ordering;
use std::fmt;

use semver::Version;

/// How an application stands to a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Fits(Fit),
    /// The application needs what the schema does not have yet: migrations must run.
    ApplicationNewer,
    /// The first numbers differ: one was not written for the other.
    MajorsDiffer,
}

/// Why it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The same version.
    Equal,
    /// The database is ahead within the same major: what was there before still is.
    DatabaseNewer,
}

/// Compares the version that an application was written for with the one that a database is at.
pub fn compare(app: &Version, database: &Version) -> Verdict {
    if app.major != database.major {
        return Verdict::MajorsDiffer;
    }
    match database.cmp_precedence(app) {
        Ordering::Equal => Verdict::Fits(Fit::Equal),
        Ordering::Greater => Verdict::Fits(Fit::DatabaseNewer),
        Ordering::Less => Verdict::ApplicationNewer,
    }
}

/// A migration's version: the number that its file begins with. Compared by its numbers, so that `0008` is `8`.
#[derive(Debug, Clone)]
pub struct ChainVersion {
    text: String,
    numbers: Vec<u128>,
}

impl ChainVersion {
    /// Reads `0008`, `1.2`, `1_2`, `20240102030405`, `2024-01-02-030405`, as `pgrunbook migrate` does.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text.split(['.', '_', '-']).map(|part| {
            let digits = !part.is_empty() && part.len() <= 30 && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        });
        let mut numbers: Vec<u128> = parts.collect::<Option<_>>()?;
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self { text: text.to_owned(), numbers })
    }
}

impl fmt::Display for ChainVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for ChainVersion {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for ChainVersion {}

impl PartialOrd for ChainVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ChainVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}
