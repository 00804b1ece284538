//! What a check came to, for people and for Prometheus.

use std::fmt;
use std::time::Duration;

use crate::source::Stored;
use crate::version::Fit;

/// What a check came to, if the application may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It fits.
    Compatible(Compatible),
    /// Nobody looked, because `SKIP_SCHEMA_GUARD` says so.
    Bypassed(Bypassed),
}

/// An application that fits its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compatible {
    /// The version that the application was written for.
    pub app: String,
    /// What the database says of itself.
    pub stored: Stored,
    pub fit: Fit,
    /// How long migrations that were under way were waited for.
    pub waited: Duration,
}

impl Compatible {
    pub(crate) fn new(app: String, stored: Stored, fit: Fit) -> Self {
        Self { app, stored, fit, waited: Duration::ZERO }
    }
}

/// A start without a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypassed {
    /// The version that the application was written for.
    pub app: String,
}

/// What a guard says while it is at work. Written to standard error, unless it is told where else: see
/// [`Guard::tell`](crate::Guard::tell).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The check is skipped.
    Bypassed(Bypassed),
    /// Migrations by `who` are waited for; told once for each of them.
    Waiting { who: String, until: Duration },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bypassed(bypassed) => write!(f, "{bypassed}"),
            Self::Waiting { who, until } => {
                write!(f, "schema guard: migrations by {who} are under way; waiting for up to {until:.0?}")
            }
        }
    }
}

impl fmt::Display for Bypassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WARNING: SCHEMA GUARD BYPASSED. SKIP_SCHEMA_GUARD=true: whether the database fits schema {} was NOT checked. \
             Unset it when the emergency is over.",
            self.app
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bypassed(bypassed) => write!(f, "{bypassed}"),
            Self::Compatible(Compatible { app, stored, fit, .. }) => match fit {
                Fit::Equal => write!(f, "schema guard: the database is at {}, as the application", stored.version),
                Fit::DatabaseNewer => {
                    write!(f, "schema guard: the database is at {}, newer than the application's {app}", stored.version)
                }
            },
        }
    }
}

impl Outcome {
    /// Stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bypassed(_) => "bypassed",
            Self::Compatible(Compatible { fit: Fit::Equal, .. }) => "equal",
            Self::Compatible(Compatible { fit: Fit::DatabaseNewer, .. }) => "database-newer",
        }
    }

    /// Lines for an application's `/metrics`, in Prometheus' text format
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>). An alert on `pgrunbook_guard_bypassed == 1` ends an
    /// emergency that everybody forgot.
    pub fn prometheus(&self) -> String {
        let (bypassed, app, database) = match self {
            Self::Bypassed(bypassed) => (1, &bypassed.app, ""),
            Self::Compatible(one) => (0, &one.app, one.stored.version.as_str()),
        };
        format!(
            "# HELP pgrunbook_guard_bypassed 1 if the application started without a check of the schema.\n\
             # TYPE pgrunbook_guard_bypassed gauge\n\
             pgrunbook_guard_bypassed {bypassed}\n\
             # HELP pgrunbook_guard_schema_info The schema that the application was written for, and the database's at its start.\n\
             # TYPE pgrunbook_guard_schema_info gauge\n\
             pgrunbook_guard_schema_info{{app=\"{}\",database=\"{}\"}} 1\n",
            label(app),
            label(database)
        )
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
