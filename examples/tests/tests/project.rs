//! An example's folder, copied, so that a test leaves nothing in it, and a throwaway server of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub struct Project {
    pub folder: PathBuf,
    /// Of the database that the runbook is about, as superuser.
    pub url: String,
    sandbox: String,
    /// The file that is run.
    runbook: &'static str,
    env: Vec<(String, String)>,
    going: Vec<Going>,
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.call(&["sandbox", "down", &self.sandbox]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program that is at work, with all that it started.
pub struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

/// The program stands beside this test's own: both are built by one `cargo test --workspace`.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("pgrunbook");
    assert!(program.is_file(), "build it first: cargo build --package pgrunbook");
    program
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

impl Project {
    /// The example `name` in an environment; the server has an empty database of the same name. `url` is the variable that
    /// its `pgrunbook.toml` takes the connection from; `passwords` are variables too.
    pub fn new(name: &str, test: &str, environment: &str, url: &str, passwords: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("pgrunbook-{name}-{}-{test}", std::process::id()));
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name), &folder);
        let sandbox = format!("{name}-{}-{test}", std::process::id());
        let up = Command::new(program())
            .args(["sandbox", "up", "--detach", "--name", &sandbox, "--database", name, "--format", "plain"])
            .output()
            .unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let direct = String::from_utf8(up.stdout).unwrap().trim().to_owned();
        // A step may call the program by its name.
        let path = format!("{}:{}", program().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut env = vec![
            (url.to_owned(), direct.clone()),
            ("PGRUNBOOK_ENVIRONMENT".to_owned(), environment.to_owned()),
            ("PATH".to_owned(), path),
        ];
        env.extend(passwords.iter().map(|name| ((*name).to_owned(), password(name))));
        Self { folder, url: direct, sandbox, runbook: "RUNBOOK.md", env, going: Vec::new() }
    }

    /// The same, of another of the example's files.
    pub fn of(mut self, runbook: &'static str) -> Self {
        self.runbook = runbook;
        self
    }

    /// With one more variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with a program that goes on until the test has ended.
    pub fn until_the_end(mut self, going: Going) -> Self {
        self.going.push(going);
        self
    }

    /// Where the workspace's programs are.
    pub fn folder_of_programs(&self) -> PathBuf {
        program().parent().unwrap().to_owned()
    }

    pub fn call(&self, args: &[&str]) -> Output {
        self.program(&program(), args, &[])
    }

    /// Any program, in the example's folder; `more` are variables.
    pub fn program(&self, program: &Path, args: &[&str], more: &[(&str, &str)]) -> Output {
        Command::new(program)
            .args(args)
            .current_dir(&self.folder)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What the example's project has in a variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Any program, in the example's folder, with these variables and nothing else but where programs are and where a user has files.
    pub fn bare(&self, program: &Path, args: &[&str], env: &[(String, String)]) -> Output {
        let usual =
            ["HOME", "USER", "TMPDIR", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
        Command::new(program)
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .envs(usual)
            .env("PATH", self.variable("PATH").unwrap())
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Calls a program of the example's folder.
    #[track_caller]
    pub fn done_by(&self, program: &str, args: &[&str]) -> String {
        let output = self.program(&self.folder.join(program), args, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {args:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Starts the receiver of a channel's webhook, which keeps what it is told in `messages.jsonl`; and its address.
    pub fn receiver(&self) -> (Going, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_receiver"));
        command.arg("messages.jsonl").current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut receiver = command.process_group(0).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(receiver.stdout.take().unwrap()).read_line(&mut address).unwrap();
        (Going(receiver), address.trim().to_owned())
    }

    /// Starts a program of the example's folder that goes on until the test has ended.
    pub fn start(&self, program: &str) -> Going {
        let mut command = Command::new(self.folder.join(program));
        command.current_dir(&self.folder).envs(self.env.iter().map(|(name, value)| (name, value)));
        Going(command.stdin(Stdio::null()).process_group(0).spawn().unwrap())
    }

    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs the runbook to its end.
    #[track_caller]
    pub fn run(&self) -> String {
        self.done(&["run", self.runbook, "--answers", "answers.toml"])
    }

    /// Runs the runbook, which must stop at this step.
    #[track_caller]
    pub fn stops_at(&self, step: &str, because: &str) {
        let output = self.call(&["run", self.runbook, "--answers", "answers.toml"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{because}\n{text}");
        assert!(text.contains(&format!("✗ {step} ")), "{because}\n{text}");
    }

    #[track_caller]
    pub fn back(&self, path: &str) -> String {
        self.done(&["rollback", "--path", path, "--reason", "the test goes back"])
    }

    /// As superuser.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        let output = self.psql(&self.url, statements);
        assert!(output.status.success(), "{statements}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn psql(&self, url: &str, statements: &str) -> Output {
        let args = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statements];
        self.program(Path::new("psql"), &args, &[])
    }

    /// The database as a role logs in to it, whose password is in this variable.
    pub fn url_of(&self, role: &str, variable: &str) -> String {
        let at = self.url.find('@').unwrap();
        format!("postgres://{role}:{}{}", password(variable), &self.url[at..])
    }
}

fn password(variable: &str) -> String {
    format!("pw-{variable}")
}
