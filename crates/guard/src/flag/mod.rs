//! Feature flags, as an application reads them: from a table, from a row of JSON, or from a file in flagd's format.
//!
//! A percentage is of keys (users, tenants, requests), by a hash of the flag's name and the key. Who is in at 10 % is in
//! at 50 %, on every machine and after every restart; see [`bucket`]. What is read is kept for a bounded time, and every
//! [`Evaluation`] says how old it is and why it came out as it did.
//!
//! Nothing here writes a flag.

pub mod bucket;
mod flagd;
mod logic;
#[cfg(feature = "open-feature")]
pub mod open_feature;
mod origin;
mod overrides;
mod reader;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

pub use bucket::Percent;
pub use flagd::parse as parse_flagd;
pub use origin::{BotConfig, File, Origin, OriginError, Table};
pub use overrides::{Overrides, PREFIX};
pub use reader::{Flags, MAX_AGE};
pub use table::{TABLE_SQL, parse_json};

/// A flag as it stands in its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    pub name: String,
    /// What it can be, by the names of its variants.
    pub variants: Map<String, Value>,
    /// The kill switch: `false` takes the flag from everybody at once.
    pub enabled: bool,
    pub rule: Rule,
    /// Who set it, and when, where the origin knows.
    pub changed: Option<String>,
}

/// Who gets which variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// A share of the keys gets `on`, the others `off`.
    Split { on: String, off: String, percent: Percent },
    /// flagd's: an expression that names the variant, and the variant where it names none.
    Targeting { default: Option<String>, expression: Option<Value> },
}

/// All flags of an origin. One that cannot be read does not take the others with it: it is there with its reason.
pub type FlagSet = BTreeMap<String, Result<Flag, String>>;

/// Whom a flag is evaluated for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// The user, tenant or request. OpenFeature's targeting key.
    pub key: Option<String>,
    /// What expressions of a flagd file may look at.
    pub fields: Map<String, Value>,
}

impl Context {
    /// A key and nothing else.
    pub fn of(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), fields: Map::new() }
    }
}

/// Why a flag came out as it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is the same for everybody.
    Static,
    /// By the hash of the key.
    Split,
    /// An expression named it.
    TargetingMatch,
    /// No expression named one.
    Default,
    /// The kill switch is thrown.
    Disabled,
    /// An environment variable of this process says so.
    Override { variable: String },
    /// There is no such flag.
    NotFound,
    /// It is given to a share of the keys, and there is no key.
    NoKey,
    /// The flag cannot be read.
    Malformed(String),
    /// Flags could not be read, ever or for too long.
    Unavailable(String),
}

/// How old the flag is that was evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// Read, and kept for no longer than was asked for.
    Current { age: Duration },
    /// Read before, and could not be read again: the last that is known.
    Stale { age: Duration, why: String },
    /// Never read, or given up.
    Unknown,
}

/// A flag's value for somebody, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    pub flag: String,
    /// The caller's default where the flag has none to give.
    pub value: Value,
    pub variant: Option<String>,
    pub reason: Reason,
    pub freshness: Freshness,
    /// What else somebody should know who wonders: an override that was ignored, and why.
    pub note: Option<String>,
    /// Who set the flag, and when.
    pub changed: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("the same for everybody"),
            Self::Split => f.write_str("by the hash of the key"),
            Self::TargetingMatch => f.write_str("by its targeting"),
            Self::Default => f.write_str("its default"),
            Self::Disabled => f.write_str("the kill switch is thrown"),
            Self::Override { variable } => write!(f, "the variable {variable} says so"),
            Self::NotFound => f.write_str("there is no such flag; the caller's default"),
            Self::NoKey => f.write_str("it is for a share of the keys, and there is no key; the caller's default"),
            Self::Malformed(why) => write!(f, "it cannot be read ({why}); the caller's default"),
            Self::Unavailable(why) => write!(f, "flags cannot be read ({why}); the caller's default"),
        }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.flag, self.value, self.reason)?;
        if let Freshness::Stale { age, why } = &self.freshness {
            write!(f, "; as it was {age:.1?} ago, since then: {why}")?;
        }
        if let Some(changed) = &self.changed {
            write!(f, "; set {changed}")?;
        }
        if let Some(note) = &self.note {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

/// What a flag says by itself: variant and value, or none (the caller's default).
pub(crate) struct Decision {
    pub variant: Option<String>,
    pub value: Option<Value>,
    pub reason: Reason,
}

impl Flag {
    /// Decides for somebody. The same input gives the same answer, everywhere.
    pub(crate) fn decide(&self, context: &Context) -> Decision {
        if !self.enabled {
            let off = match &self.rule {
                Rule::Split { off, .. } => Some(off.clone()),
                // flagd leaves a disabled flag to the caller.
                Rule::Targeting { .. } => None,
            };
            return self.of(off, Reason::Disabled);
        }
        match &self.rule {
            Rule::Split { on, percent, .. } if *percent == Percent::ALL => self.of(Some(on.clone()), Reason::Static),
            Rule::Split { off, percent, .. } if *percent == Percent::NONE => self.of(Some(off.clone()), Reason::Static),
            Rule::Split { on, off, percent } => match &context.key {
                Some(key) if bucket::is_in(&self.name, key, *percent) => self.of(Some(on.clone()), Reason::Split),
                Some(_) => self.of(Some(off.clone()), Reason::Split),
                None => self.of(None, Reason::NoKey),
            },
            Rule::Targeting { default, expression: None } => self.of(default.clone(), Reason::Static),
            Rule::Targeting { default, expression: Some(expression) } => {
                match logic::evaluate(expression, &self.name, context) {
                    Ok(Value::Null) => self.of(default.clone(), Reason::Default),
                    Ok(Value::String(variant)) => self.of(Some(variant), Reason::TargetingMatch),
                    Ok(named @ (Value::Bool(_) | Value::Number(_))) => {
                        self.of(Some(named.to_string()), Reason::TargetingMatch)
                    }
                    Ok(other) => self.of(None, Reason::Malformed(format!("its targeting gives {other}"))),
                    Err(why) => self.of(None, why),
                }
            }
        }
    }

    fn of(&self, variant: Option<String>, reason: Reason) -> Decision {
        let Some(name) = variant else { return Decision { variant: None, value: None, reason } };
        match self.variants.get(&name) {
            Some(value) => Decision { variant: Some(name), value: Some(value.clone()), reason },
            None => Decision {
                variant: None,
                value: None,
                reason: Reason::Malformed(format!("it has no variant {name:?}")),
            },
        }
    }
}
