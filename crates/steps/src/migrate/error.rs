//! What can go wrong with a chain of migrations.

use std::path::PathBuf;

/// Why a chain cannot be read or run. Nothing was touched in any of these.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("version {version} is there twice: {} and {}", .files[0], .files[1])]
    Duplicate { version: String, files: [String; 2] },
    #[error("{file} belongs to no migration of this chain")]
    Orphan { file: String },
    #[error("{file} depends on `{name}`, and there is no such repeatable file")]
    UnknownDependency { file: String, name: String },
    #[error("these repeatable files depend on each other in a circle: {}", .names.join(", "))]
    Circle { names: Vec<String> },
    #[error("{file}, line {line}: {what}")]
    Refused { file: String, line: usize, what: String, help: String, sqlstate: Option<&'static str> },
    #[error("the chain has no version {version}")]
    NoSuchVersion { version: String },
    #[error("`{text}` is not a version")]
    NotAVersion { text: String },
}

impl ChainError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Duplicate { .. } => "duplicate-version",
            Self::Orphan { .. } => "orphan",
            Self::UnknownDependency { .. } => "unknown-dependency",
            Self::Circle { .. } => "circle",
            Self::Refused { .. } => "refused",
            Self::NoSuchVersion { .. } | Self::NotAVersion { .. } => "no-such-version",
        }
    }

    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::Unreadable { .. } => "check the path and its permissions".to_owned(),
            Self::Duplicate { .. } => {
                "give one of them the next free version; if one is applied already, the other".to_owned()
            }
            Self::Orphan { .. } => "bring the migration's own file back, or delete this one".to_owned(),
            Self::UnknownDependency { .. } => "name a repeatable file without `R__` and `.sql`".to_owned(),
            Self::Circle { .. } => "remove one of their `-- depends:` lines".to_owned(),
            Self::Refused { help, .. } => help.clone(),
            Self::NoSuchVersion { .. } | Self::NotAVersion { .. } => {
                "`pgrunbook migrate status` lists the versions".to_owned()
            }
        }
    }
}
