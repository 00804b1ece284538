//! References to secrets: `env:NAME`, `file:path`, `cmd:program args`. Values are resolved late, and the redactor learns
//! each before it is used.

use std::path::Path;

use crate::surroundings::Surroundings;

/// A value as the project file has it: a reference, or a text that is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `env:NAME`
    Env(String),
    /// `file:path`, relative to the project; the last line break is cut off.
    File(String),
    /// `cmd:program arg arg`: split at blanks, no shell; its first line is the value.
    Command(Vec<String>),
    /// Anything else.
    Plain(String),
}

/// Why a reference has no value. Never holds one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error("the file {path} cannot be read: {why}")]
    File { path: String, why: String },
    #[error("the command `{program}` gave no value: {why}")]
    Command { program: String, why: String },
}

impl Reference {
    /// Reads a value of the project file.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some(("env", name)) => Self::Env(name.trim().to_owned()),
            Some(("file", path)) => Self::File(path.trim().to_owned()),
            Some(("cmd", command)) => Self::Command(command.split_whitespace().map(str::to_owned).collect()),
            _ => Self::Plain(text.to_owned()),
        }
    }

    /// Whether its value must be kept from every sink.
    pub fn is_secret(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// What people read instead of the value.
    pub fn shown(&self) -> String {
        match self {
            Self::Env(name) => format!("env:{name}"),
            Self::File(path) => format!("file:{path}"),
            Self::Command(command) => format!("cmd:{}", command.join(" ")),
            Self::Plain(text) => text.clone(),
        }
    }

    /// The value.
    ///
    /// # Errors
    /// [`SecretError`], which names the reference and never a value.
    pub fn resolve(&self, root: &Path, surroundings: &Surroundings) -> Result<String, SecretError> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Env(name) => surroundings.var(name).ok_or_else(|| SecretError::Unset(name.clone())),
            Self::File(path) => std::fs::read_to_string(root.join(path))
                .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
                .map_err(|error| SecretError::File { path: path.clone(), why: error.to_string() }),
            Self::Command(command) => run(command, root),
        }
    }
}

fn run(command: &[String], root: &Path) -> Result<String, SecretError> {
    let program = command.first().cloned().unwrap_or_default();
    let failed = |why: String| SecretError::Command { program: program.clone(), why };
    let output = std::process::Command::new(&program)
        .args(command.get(1..).unwrap_or_default())
        .current_dir(root)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(failed("it printed nothing".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_texts() {
        let cases = [
            ("env:NAME", Reference::Env("NAME".to_owned())),
            ("file:secrets/url", Reference::File("secrets/url".to_owned())),
            ("cmd:pass show db", Reference::Command(vec!["pass".into(), "show".into(), "db".into()])),
            ("postgres://db/x", Reference::Plain("postgres://db/x".to_owned())),
        ];
        for (text, expected) in cases {
            assert_eq!(Reference::parse(text), expected);
        }
    }

    #[test]
    fn a_command_gives_its_first_line_and_no_shell_sees_it() {
        let value = Reference::parse("cmd:echo a;b $HOME").resolve(Path::new("."), &Surroundings::default());
        assert_eq!(value.as_deref(), Ok("a;b $HOME"));
        let missing = Reference::parse("env:NO_SUCH").resolve(Path::new("."), &Surroundings::default());
        assert_eq!(missing, Err(SecretError::Unset("NO_SUCH".to_owned())));
    }
}
