//! The example's folder, copied, with a server of its own, and the program called in it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, url};

use crate::bench::TOKEN;

pub struct Project {
    folder: tempfile::TempDir,
    pub database: ConnectOptions,
    /// Where the service listens, and where the second one: the runbook asks them there.
    pub app: String,
    pub canary: String,
    _sandbox: Sandbox,
}

impl Drop for Project {
    fn drop(&mut self) {
        for name in ["items", "canary"] {
            let _ = self.service("stop", name);
        }
    }
}

impl Project {
    /// With an empty database, and no profile.
    pub async fn new() -> Self {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let database = sandbox.database("items").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        copy(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), folder.path());
        // Both at once, so that they differ; whoever restarts a service finds its port in the file.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [app, canary] = free.map(|listener| listener.local_addr().unwrap().to_string());
        let project = Self { folder, database, app, canary, _sandbox: sandbox };
        for (name, address) in [("items", &project.app), ("canary", &project.canary)] {
            let file = project.env_file(name);
            let text = std::fs::read_to_string(&file).unwrap();
            let lines = text.lines().map(|line| match line.starts_with("ITEMS_LISTEN=") {
                true => format!("ITEMS_LISTEN={address}\n"),
                false => format!("{line}\n"),
            });
            std::fs::write(&file, lines.collect::<String>()).unwrap();
        }
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn env_file(&self, name: &str) -> PathBuf {
        self.path(&format!("deploy/{name}.env"))
    }

    /// The database as one of the runbook's roles logs in to it.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let (user, password) = (user.to_owned(), Some(password.to_owned()));
        url(&ConnectOptions { user, password, ..self.database.clone() })
    }

    fn run(&self, program: &Path, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .current_dir(self.folder.path())
            .envs([
                ("ITEMS_DATABASE_URL", url(&self.database)),
                ("ITEMS_APP_URL", format!("http://{}", self.app)),
                ("ITEMS_CANARY_URL", format!("http://{}", self.canary)),
                ("ITEMS_APP", env!("CARGO_BIN_EXE_items-app").to_owned()),
                ("ITEMS_APP_PASSWORD", "app".to_owned()),
                ("ITEMS_ADMIN_PASSWORD", "admin".to_owned()),
                ("ITEMS_ADMIN_TOKEN", TOKEN.to_owned()),
                ("ITEMS_POSTGRES_DSN", self.url_of("items_app", "app")),
                ("ITEMS_POSTGRES_ADMIN_DSN", self.url_of("items_admin", "admin")),
                ("PGRUNBOOK_ENVIRONMENT", "local".to_owned()),
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts a service as the runbook does; it ends with this.
    #[track_caller]
    pub fn start(&self, name: &str) {
        let output = self.service("start", name);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn service(&self, command: &str, name: &str) -> Output {
        self.run(Path::new("./service"), &[command, &format!("deploy/{name}.env")])
    }

    /// Calls the program, which stands beside this test's own; what it said, and its status.
    pub fn call(&self, args: &[&str]) -> (Option<i32>, String) {
        let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("pgrunbook");
        let output = self.run(&program, args);
        let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    }

    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        let (code, said) = self.call(args);
        assert_eq!(code, Some(0), "{args:?}\n{said}");
        said
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.file_name() != "app") {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}
