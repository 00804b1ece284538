//! What can go wrong with a Redis.

use pgrunbook_engine::StepError;

/// Why something was not done, or not found out. No variant holds a key's value or a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    #[error("Redis at {at} cannot be reached: {why}")]
    Unreachable { at: String, why: String },
    #[error("TLS with Redis at {at} fails: {why}")]
    Tls { at: String, why: String },
    #[error("Redis at {at} does not let {who} in: {why}")]
    LogIn { at: String, who: String, why: String },
    #[error("the Sentinels {asked} know no primary `{master}` that answers as one: {why}")]
    NoPrimary { asked: String, master: String, why: String },
    #[error("the cluster at {at} is not whole: {why}. Nothing was touched.")]
    NotWhole { at: String, why: String },
    #[error("`{command}` is refused at {at}: {why}")]
    Refused { command: String, at: String, why: String },
    #[error("`{command}` failed at {at}: {why}")]
    Failed { command: String, at: String, why: String },
    #[error("`{command}` was answered by {at} in a form that is not understood")]
    Answer { command: String, at: String },
    #[error("{at} is Redis {found}, and {what} needs {needed} or newer. Nothing was touched.")]
    TooOld { at: String, found: String, what: &'static str, needed: &'static str },
    #[error("a file of the address cannot be read: {path}: {why}")]
    File { path: String, why: String },
    #[error("stopped by the operator{after}")]
    Stopped { after: String },
}

impl RedisFault {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "redis-unreachable",
            Self::Tls { .. } => "redis-tls",
            Self::LogIn { .. } => "redis-log-in",
            Self::NoPrimary { .. } => "redis-no-primary",
            Self::NotWhole { .. } => "redis-cluster",
            Self::Refused { .. } => "redis-refused",
            Self::Failed { .. } | Self::Answer { .. } => "redis-failed",
            Self::TooOld { .. } => "redis-too-old",
            Self::File { .. } => "redis-file",
            Self::Stopped { .. } => "interrupted",
        }
    }

    /// Whether nobody answered, so that nothing is known of what there is.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoPrimary { .. } | Self::NotWhole { .. })
    }

    /// Whether somebody answered, and did not get on with who asks: that is a mistake to mend, whoever else is down.
    pub fn is_distrust(&self) -> bool {
        matches!(self, Self::Tls { .. } | Self::LogIn { .. })
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } => "check the address, and whether it wants TLS (rediss://)",
            Self::Tls { .. } => "check `ca` in the address, and `cert` with `key` where the server wants them",
            Self::LogIn { .. } => "check the user and the reference of its password",
            Self::NoPrimary { .. } => "check the name that the Sentinels watch, and `SENTINEL MASTERS`",
            Self::NotWhole { .. } => "see `CLUSTER INFO` and `CLUSTER NODES`, and try again when every slot is served",
            Self::Refused { .. } => "give the target a credential that may run it",
            Self::TooOld { .. } => "the prefix is a convention there; use a server with ACLs, or one server for each",
            Self::Failed { .. } | Self::Answer { .. } | Self::File { .. } | Self::Stopped { .. } => return None,
        })
    }
}

impl From<RedisFault> for StepError {
    fn from(fault: RedisFault) -> Self {
        let (code, text) = (fault.code(), fault.to_string());
        let error = match &fault {
            RedisFault::Stopped { .. } => Self::interrupted(text),
            RedisFault::Refused { .. } | RedisFault::Failed { .. } | RedisFault::Answer { .. } => {
                Self::failed(code, text)
            }
            _ => Self::unusable(code, text),
        };
        match fault.help() {
            Some(help) => error.help(help),
            None => error,
        }
        .source(fault)
    }
}
