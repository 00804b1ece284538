//! What the process finds around it, read once at the edge and passed down.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Environment, home, user and working directory. Below the CLI nothing else reads them.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub env: BTreeMap<String, String>,
    pub home: Option<PathBuf>,
    /// The operating system's user.
    pub user: Option<String>,
    pub host: String,
    pub pid: u32,
    pub cwd: PathBuf,
}

impl Surroundings {
    /// A variable of the environment; an empty one is none.
    pub fn var(&self, name: &str) -> Option<String> {
        self.env.get(name).filter(|value| !value.is_empty()).cloned()
    }
}
