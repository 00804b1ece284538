//! Whether a prefix is kept from a credential: by logging in with it and trying, on every server.
//!
//! No rule is read for a verdict. The server checks permissions before it runs a command
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>), so that a command that can do no harm
//! answers the same question as one that could: `SET ... XX` on a key that nobody has, `FLUSHALL` with an option that does
//! not exist. What is costly even so (`KEYS` walks everything, `MONITOR` listens) is put into a transaction that is
//! discarded: permission is checked when it is queued.
//!
//! Key patterns bind commands that name keys, and no others: `SCAN`, `KEYS`, `RANDOMKEY` and `CLIENT TRACKING` in broadcast
//! mode tell the names of all keys to a user that has one prefix. They are tried as such.
//!
//! A refusal proves something only beside a positive control: the same credential writes, reads and deletes a key of its
//! own, which expires by itself should this process die. What stays are entries in `ACL LOG`, which is what that log is for.

mod render;
mod trial;

use std::time::{Duration, Instant};

use super::address::RedisOptions;
use super::error::RedisFault;
use super::node::{Info, dial, everywhere};
use super::prefix::Prefix;

pub use trial::{Answer, Trial, Verdict, Way};

/// A credential, and what it is declared to reach.
#[derive(Clone)]
pub struct Subject {
    /// None: a connection that does not log in.
    pub user: String,
    /// None where it has no value here: nothing can be tried.
    pub password: Option<String>,
    pub prefixes: Vec<Prefix>,
    /// Keys it may read.
    pub reads: Vec<Prefix>,
    /// Commands it may run knowingly, in lower case.
    pub may: Vec<String>,
}

/// What was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    pub trials: Vec<Trial>,
    pub nodes: Vec<String>,
    /// Servers that could not be tried, and why.
    pub silent: Vec<(String, String)>,
    /// The server knows no access rules: a prefix is only a convention there.
    pub convention: Option<String>,
    pub took: Duration,
}

/// Stands for every prefix that nobody declared.
const OUTSIDE: &str = "pgrunbook-nobodys:";

/// Tries what each credential reaches: its own prefixes must be open to it, and `others` closed.
///
/// `nonce` makes the names of keys that nobody has.
///
/// # Errors
/// If no server answers. That one is not as declared is no error: see [`Proof`].
pub async fn prove(
    options: &RedisOptions,
    subjects: &[Subject],
    others: &[Prefix],
    nonce: &str,
    timeout: Duration,
) -> Result<Proof, RedisFault> {
    let begin = Instant::now();
    let mut nodes = everywhere(options, timeout).await?;
    let mut proof = Proof {
        trials: Vec::new(),
        nodes: nodes.all().map(|node| node.address.clone()).collect(),
        silent: nodes.silent.clone(),
        convention: nodes
            .primaries
            .iter()
            .chain(&nodes.replicas)
            .find_map(|node| without_rules(&node.address, &node.info)),
        took: Duration::ZERO,
    };
    if proof.convention.is_none() {
        let outside = Prefix::parse(OUTSIDE).expect("it is not empty");
        let everyone: Vec<&Prefix> =
            subjects.iter().flat_map(|one| &one.prefixes).chain(others).chain([&outside]).collect();
        for address in proof.nodes.clone() {
            trial::nobody(options, &address, &everyone, nonce, timeout, &mut proof.trials).await;
            for subject in subjects {
                let mut foreign: Vec<&Prefix> =
                    everyone.iter().copied().filter(|prefix| !subject.prefixes.contains(prefix)).collect();
                foreign.dedup();
                let place = trial::Place { options, address: &address, nonce, timeout };
                trial::subject(&place, subject, &foreign, &mut proof.trials).await;
            }
        }
    }
    proof.took = begin.elapsed();
    Ok(proof)
}

/// Why a server cannot keep a prefix from anybody.
fn without_rules(address: &str, info: &Info) -> Option<String> {
    let version = info.version().filter(|_| info.is_at_least(6, 0) == Some(false))?;
    Some(format!(
        "{address} is Redis {version}, which knows no access rules (6.0): a prefix is only a convention there"
    ))
}

/// A connection of its own for one trial: its state is spoilt afterwards.
async fn fresh(
    place: &trial::Place<'_>,
    who: &RedisOptions,
) -> Result<::redis::aio::MultiplexedConnection, RedisFault> {
    dial(who, place.address, place.timeout).await
}

impl Proof {
    pub fn count(&self, verdict: Verdict) -> usize {
        self.trials.iter().filter(|trial| trial.verdict == verdict).count()
    }

    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| trial.verdict == verdict)
    }

    /// Nothing leaked, nothing broken, nothing left open, and something was refused with a control beside it.
    pub fn is_proved(&self) -> bool {
        self.is_kept() && self.count(Verdict::Inconclusive) == 0 && self.silent.is_empty()
    }

    /// The same, but for what could not be decided.
    pub fn is_kept(&self) -> bool {
        self.convention.is_none()
            && self.count(Verdict::Leaked) == 0
            && self.count(Verdict::Broken) == 0
            && self.count(Verdict::Refused) > 0
            && self.count(Verdict::Works) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::Undecided;
    use crate::redis::gate;

    #[test]
    fn server_without_access_rules_is_said_to_keep_nothing_apart() {
        let why = |info: &str| without_rules("cache:6379", &Info::read(info));
        let convention = why("redis_version:5.0.14\nrole:master");
        let said = "cache:6379 is Redis 5.0.14, which knows no access rules (6.0): a prefix is only a convention there";
        assert_eq!(convention.as_deref(), Some(said));
        assert_eq!((why("redis_version:6.0.0"), why("redis_version:7.0.15"), why("")), (None, None, None));

        let nodes = vec!["cache:6379".to_owned()];
        let proof = Proof { trials: Vec::new(), nodes, silent: Vec::new(), convention, took: Duration::ZERO };
        let refused = gate(&proof, Undecided::Allow).unwrap_err();
        assert_eq!(refused.message, said);
        assert!(proof.summary().contains("only a convention"), "{}", proof.summary());
    }
}
