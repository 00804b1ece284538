//! What the service is started with: variables, and a file of variables that an operator or a runbook rewrites.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sqlite,
    PostgresPrimary,
}

impl Mode {
    /// As answers name it.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::PostgresPrimary => "postgres_primary",
        }
    }
}

/// The service's configuration. `README.md` of the example has the variables.
#[derive(Debug, Clone)]
pub struct Config {
    pub mode: Mode,
    pub listen: String,
    /// The folder of the profiles' files.
    pub sqlite_dir: PathBuf,
    /// As the runtime role, directly or through a pooler in transaction mode.
    pub postgres_dsn: Option<String>,
    /// As a role that may act as `owner`, directly.
    pub admin_dsn: Option<String>,
    /// Whose the schemas are.
    pub owner: String,
    /// What `POST /admin/...` must bring; without it nobody may.
    pub admin_token: Option<String>,
    /// Schema and name of the mapping table.
    pub registry: (String, String),
    /// Connections to PostgreSQL at the most.
    pub pool: usize,
    pub log: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
}

impl Config {
    /// Reads the variables; those of the file win, since it is what a switch rewrites.
    ///
    /// # Errors
    /// One sentence that names the variable.
    pub fn read(environment: impl Iterator<Item = (String, String)>, file: Option<&Path>) -> Result<Self, String> {
        let mut values: BTreeMap<String, String> = environment.filter(|(name, _)| name.starts_with("ITEMS_")).collect();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            values.extend(variables(&text).map_err(|line| format!("{}, line {line}: not NAME=value", path.display()))?);
        }
        let mut take = |name: &str| values.remove(name).filter(|value| !value.is_empty());
        let mode = match take("ITEMS_DB_BACKEND_MODE").as_deref() {
            Some("SQLITE") => Mode::Sqlite,
            Some("POSTGRES_PRIMARY") => Mode::PostgresPrimary,
            Some(other) => {
                return Err(format!("ITEMS_DB_BACKEND_MODE is {other:?}, and neither SQLITE nor POSTGRES_PRIMARY"));
            }
            None => return Err("set ITEMS_DB_BACKEND_MODE to SQLITE or POSTGRES_PRIMARY".to_owned()),
        };
        let postgres_dsn = take("ITEMS_POSTGRES_DSN");
        if mode == Mode::PostgresPrimary && postgres_dsn.is_none() {
            return Err("ITEMS_DB_BACKEND_MODE=POSTGRES_PRIMARY needs ITEMS_POSTGRES_DSN".to_owned());
        }
        let registry = take("ITEMS_REGISTRY").unwrap_or_else(|| "shared.sources".to_owned());
        let Some((schema, table)) = registry.split_once('.') else {
            return Err(format!("ITEMS_REGISTRY is {registry:?}, and not schema.table"));
        };
        let pool = match take("ITEMS_POOL") {
            None => 8,
            Some(text) => match text.parse() {
                Ok(size @ 1..=1000) => size,
                _ => return Err(format!("ITEMS_POOL is {text:?}, and not a number from 1 to 1000")),
            },
        };
        Ok(Self {
            mode,
            listen: take("ITEMS_LISTEN").unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            sqlite_dir: take("ITEMS_SQLITE_DIR").unwrap_or_else(|| "profiles".to_owned()).into(),
            postgres_dsn,
            admin_dsn: take("ITEMS_POSTGRES_ADMIN_DSN"),
            owner: take("ITEMS_POSTGRES_OWNER").unwrap_or_else(|| "items_owner".to_owned()),
            admin_token: take("ITEMS_ADMIN_TOKEN"),
            registry: (schema.to_owned(), table.to_owned()),
            pool,
            log: take("ITEMS_LOG").map(PathBuf::from),
            pid_file: take("ITEMS_PID_FILE").map(PathBuf::from),
        })
    }
}

/// The variables of a file, as systemd's `EnvironmentFile` has them; the number of the line that is none.
fn variables(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=').ok_or(number + 1)?;
        let value = value.trim();
        let bare =
            ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(value);
        found.push((name.trim().to_owned(), bare.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.env");
        std::fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::read(environment, Some(&path))
    }

    #[test]
    fn what_the_file_says_wins() {
        let file = "# the mode\nexport ITEMS_DB_BACKEND_MODE=\"SQLITE\"\n\nITEMS_POOL='3'\n";
        let config = read(file, &[("ITEMS_DB_BACKEND_MODE", "POSTGRES_PRIMARY"), ("ITEMS_LISTEN", "[::1]:1")]).unwrap();
        assert_eq!((config.mode, config.pool, config.listen.as_str()), (Mode::Sqlite, 3, "[::1]:1"));
    }

    #[test]
    fn a_mistake_is_named_with_its_variable() {
        for (file, wanted) in [
            ("", "set ITEMS_DB_BACKEND_MODE"),
            ("ITEMS_DB_BACKEND_MODE=postgres", "neither SQLITE nor POSTGRES_PRIMARY"),
            ("ITEMS_DB_BACKEND_MODE=POSTGRES_PRIMARY", "needs ITEMS_POSTGRES_DSN"),
            ("ITEMS_DB_BACKEND_MODE=SQLITE\nITEMS_POOL=0", "ITEMS_POOL"),
            ("ITEMS_DB_BACKEND_MODE=SQLITE\nITEMS_REGISTRY=sources", "not schema.table"),
            ("ITEMS_DB_BACKEND_MODE=SQLITE\noops", "line 2"),
        ] {
            let error = read(file, &[]).unwrap_err();
            assert!(error.contains(wanted), "{file}: {error}");
        }
    }
}
