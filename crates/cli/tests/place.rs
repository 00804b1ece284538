//! A folder and a database for one test, and the program called in it.

use std::path::PathBuf;
use std::process::{Command, Output};

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared, url};
use pgrunbook_postgres::{ConnectOptions, Session};

pub async fn cluster() -> Sandbox {
    shared("cli-tests", SandboxOptions::default()).await.unwrap()
}

pub struct Place {
    pub folder: tempfile::TempDir,
    pub database: ConnectOptions,
    pub env: Vec<(String, String)>,
}

/// What a call left: exit code (`None`: killed), and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    pub async fn new() -> Self {
        Self::on(cluster().await.fresh_database("cli").await.unwrap())
    }

    pub fn on(database: ConnectOptions) -> Self {
        let env = vec![("DATABASE_URL".to_owned(), url(&database))];
        Self { folder: tempfile::tempdir().unwrap(), database, env }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrunbook"));
        command.args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        // Sandboxes of the program are those that the test sees.
        command.env("TMPDIR", std::env::temp_dir());
        command.env("USER", "anna").envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(std::process::Stdio::null());
        command
    }

    pub fn call(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// The same, killed at the N-th fault point.
    pub fn call_and_die(&self, args: &[&str], at: usize) -> Said {
        Said::of(self.command(args).env("PGRUNBOOK_FAULT", at.to_string()).output().unwrap())
    }

    /// Where calls are to be killed, of the points that `points` has just passed: all of them in `make soak`. `make test` leaves out
    /// those before a write that is no commit, but the first: outside all is as it was behind the write before.
    pub fn deaths(&self) -> Vec<usize> {
        let trace = std::fs::read_to_string(self.path("trace")).unwrap();
        let named = trace.lines().zip(1..);
        let tell =
            |(name, at): &(&str, usize)| is_soak() || *at == 1 || *name == "BeforeCommit" || name.starts_with("After");
        named.filter(tell).map(|(_, at)| at).collect()
    }

    /// How many fault points a call passes.
    pub fn points(&self, args: &[&str]) -> (Said, usize) {
        let trace = self.path("trace");
        let said = Said::of(self.command(args).env("PGRUNBOOK_FAULT_TRACE", &trace).output().unwrap());
        (said, std::fs::read_to_string(trace).unwrap().lines().count())
    }

    pub async fn value(&self, sql: &str) -> String {
        Session::connect(&self.database, "test").await.unwrap().value(sql).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        Session::connect(&self.database, "test").await.unwrap().execute(sql).await.unwrap();
    }

    /// The id of the newest run.
    pub fn run_id(&self) -> String {
        self.call(&["status"]).out.split_whitespace().next().unwrap().to_owned()
    }
}

/// Whether everything is killed everywhere, which takes long.
pub fn is_soak() -> bool {
    std::env::var_os("CUTOVER_SEEDS").is_some()
}

impl Said {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Exit 0, or the whole story.
    #[track_caller]
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }
}
