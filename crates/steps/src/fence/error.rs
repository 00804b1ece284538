//! What can go wrong with fences.

use std::time::Duration;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;

use super::holder::Holder;
use crate::typed::typed;

/// Why a fence was not set, not lifted or not proven.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("fence `{id}`: {why}. Nothing was changed.")]
    Wish { id: String, why: String },
    #[error("schema `{schema}` has no table to fence{}. Nothing was changed.", named(.missing))]
    NoTable { schema: String, missing: Vec<String> },
    #[error("schema `{schema}` is fenced already: `{id}`, since {since} by {operator}. Nothing was changed.")]
    Held { schema: String, id: String, since: String, operator: String },
    #[error("the id `{id}` was used for a fence of schema `{schema}` before. Nothing was changed.")]
    Used { id: String, schema: String },
    #[error(
        "role `{role}` cannot set and lift triggers on {}: they belong to others. Nothing was changed; writers go on.",
        tables.join(", ")
    )]
    NotOwner { role: String, tables: Vec<String> },
    #[error("role `{role}` may not keep the fence's record in this database: {source}. Nothing was changed.")]
    NoRecord { role: String, source: PgError },
    #[error(
        "fence on schema `{schema}` not {done}: held up in {} within {}{}. Nothing was changed{}.",
        tries(*attempts), shown(*waited), by(.holders), if *.done == "set" { "; writers go on" } else { "" }
    )]
    Blocked { schema: String, done: &'static str, attempts: u32, waited: Duration, holders: Vec<Holder> },
    #[error("fence on schema `{schema}` not set: the operator stopped it. Nothing was changed; writers go on.")]
    Stopped { schema: String },
    #[error(
        "schema `{schema}` cannot be fenced: the subscription {} is enabled, and applies to its tables past every trigger. \
         Nothing was changed; writers go on.", names.join(", ")
    )]
    Subscribed { schema: String, names: Vec<String> },
    #[error("the fence on schema `{schema}` does not hold: {}", why.join("; "))]
    Broken { schema: String, why: Vec<String> },
    #[error("schema `{schema}` is fenced by `{found}`, not by `{id}`. Nothing was changed.")]
    Other { schema: String, id: String, found: String },
    #[error(transparent)]
    Server(#[from] PgError),
}

fn named(missing: &[String]) -> String {
    if missing.is_empty() { String::new() } else { format!(" by the name {}", missing.join(", ")) }
}

fn tries(attempts: u32) -> String {
    if attempts == 1 { "1 try".to_owned() } else { format!("{attempts} tries") }
}

fn shown(waited: Duration) -> String {
    if waited < Duration::from_secs(10) {
        format!("{} ms", waited.as_millis())
    } else {
        format!("{} s", waited.as_secs())
    }
}

fn by(holders: &[Holder]) -> String {
    match holders {
        [] => String::new(),
        holders => {
            let all: Vec<String> = holders.iter().map(ToString::to_string).collect();
            format!(" by {}", all.join(" and by "))
        }
    }
}

impl FenceError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Wish { .. } => "bad-value",
            Self::NoTable { .. } => "fence-no-table",
            Self::Held { .. } => "fence-held",
            Self::Used { .. } => "fence-used",
            Self::NotOwner { .. } => "fence-owner",
            Self::NoRecord { .. } => "fence-record",
            Self::Blocked { .. } => "fence-timeout",
            Self::Stopped { .. } => "interrupted",
            Self::Subscribed { .. } => "fence-subscription",
            Self::Broken { .. } => "fence-broken",
            Self::Other { .. } => "fence-other",
            Self::Server(_) => "server",
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Wish { .. } | Self::Server(_) | Self::Stopped { .. } => return None,
            Self::NoTable { .. } => {
                "check the schema's name, and that the connection goes to the right database".to_owned()
            }
            Self::Held { id, .. } => held(id, "TARGET"),
            Self::Used { .. } => "give the fence another id".to_owned(),
            Self::NotOwner { .. } => {
                "connect as their owner, be granted its role, or say `by = \"privileges\"`, which is weaker".to_owned()
            }
            Self::NoRecord { role, .. } => {
                format!("let an owner of the database run: GRANT CREATE ON DATABASE ... TO {role} (once)")
            }
            Self::Blocked { holders, .. } => match holders.iter().find_map(Holder::remedy) {
                Some(remedy) => format!("{remedy}, or raise `lock_timeout`, then resume"),
                None => "raise `lock_timeout` or `budget`, then resume".to_owned(),
            },
            Self::Subscribed { names, .. } => {
                let all: Vec<String> = names.iter().map(|name| format!("ALTER SUBSCRIPTION {name} DISABLE")).collect();
                format!("{}; then run again", all.join("; "))
            }
            Self::Broken { .. } => "lift the fence and set it anew; look for who changed its triggers".to_owned(),
            Self::Other { .. } => stands("TARGET"),
        })
    }
}

fn held(id: &str, target: &str) -> String {
    format!("go on with the run that set it, or lift it: {}", lifting(id, target))
}

fn stands(target: &str) -> String {
    format!("`{}` shows the fences that stand", typed(&["fence", "status", "--target", target]))
}

/// How a person lifts a fence by hand. A protected environment wants a text as well, and says which.
fn lifting(id: &str, target: &str) -> String {
    let command = typed(&["fence", "drop", id, "--target", target, "--yes"]);
    format!("`{command}` (a protected environment asks for `--confirm TEXT` and names the text)")
}

/// How a person lifts the fences of a schema by hand, with its target's name in the project.
pub(crate) fn by_hand(target: &str) -> String {
    format!("{}; {}", stands(target), lifting("ID", target))
}

impl FenceError {
    /// The engine's error, for a fence in the target that the project calls so: with commands that can be pasted.
    pub(crate) fn at(self, target: &str) -> StepError {
        let help = match &self {
            Self::Held { id, .. } => Some(held(id, target)),
            Self::Other { .. } => Some(stands(target)),
            _ => None,
        };
        let step = StepError::from(self);
        match help {
            Some(help) => step.help(help),
            None => step,
        }
    }
}

impl From<FenceError> for StepError {
    fn from(error: FenceError) -> Self {
        let (code, text, help) = (error.code(), error.to_string(), error.help());
        let step = match error {
            FenceError::Server(error) => return error.into_step_error(),
            FenceError::Stopped { .. } => Self::interrupted(text),
            FenceError::Blocked { .. } | FenceError::Broken { .. } => Self::failed(code, text),
            _ => Self::unusable(code, text),
        };
        match help {
            Some(help) => step.help(help),
            None => step,
        }
        .source(error)
    }
}
