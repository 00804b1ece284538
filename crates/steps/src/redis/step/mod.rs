//! The blocks: `redis-health`, `redis-keys`, `redis-delete`; and what `topology` and `isolation` are on a Redis target.

mod access;
mod delete;
mod health;
mod isolation;
mod keys;

use std::path::Path;
use std::time::Duration;

use pgrunbook_document::Block;
use pgrunbook_engine::{Evidence, RunCx, StepError};

use super::address::RedisOptions;
use super::error::RedisFault;
use super::node::TIMEOUT;
use super::scan::Keep;
use crate::registry::required_target;
use crate::workplace::Workplace;

pub use access::topology_details;
pub use delete::{KIND as DELETE, bounded_by, confirmation};
pub use health::KIND as HEALTH;
pub use isolation::{gate, subjects};
pub use keys::KIND as KEYS;

pub(crate) use access::build as build_access;
pub(crate) use isolation::build as build_isolation;

/// What every step on a Redis knows.
struct Where {
    target: String,
    timeout: Duration,
    workplace: Workplace,
}

impl Where {
    fn of(block: &Block, workplace: &Workplace) -> Result<Self, StepError> {
        let target = required_target(block)?;
        workplace.redis(&target)?;
        Ok(Self { target, timeout: block.timeout.unwrap_or(TIMEOUT), workplace: workplace.clone() })
    }

    fn options(&self) -> Result<&RedisOptions, StepError> {
        self.workplace.redis(&self.target)
    }
}

/// Where a walk of this run's step is noted.
fn keep(cx: &RunCx<'_>) -> Keep {
    Keep::at(cx.artifacts, cx.step.as_str())
}

fn artifact(folder: &Path, step: &str) -> std::path::PathBuf {
    folder.join(format!("{step}.users.json"))
}

/// What becomes of a step that may go without: done, and degraded.
fn degraded(why: &str) -> Evidence {
    Evidence::of(format!("DEGRADED: {why}; the step is optional, and the run goes on"))
        .fact("degraded", true)
        .fact("why", why)
}

/// Nobody answered, and the step may go without.
fn without(optional: bool, fault: RedisFault) -> Result<Evidence, StepError> {
    if optional && fault.is_down() { Ok(degraded(&fault.to_string())) } else { Err(fault.into()) }
}
