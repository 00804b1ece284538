//! The ledger's runbook on a real PostgreSQL behind a real PgBouncer, with the application running.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The example's folder, copied, so that a test leaves nothing in it.
struct Ledger {
    folder: PathBuf,
    name: String,
    env: Vec<(String, String)>,
    app: Child,
    program: PathBuf,
    database: String,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = self.app.kill();
        let _ = self.app.wait();
        let _ = self.call(&["sandbox", "down", &self.name]);
        let _ = std::fs::remove_dir_all(&self.folder);
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
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "app" {
                copy(&path, &to.join(name));
            }
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

impl Ledger {
    fn new(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = std::env::temp_dir().join(format!("pgrunbook-ledger-{}-{name}", std::process::id()));
        copy(source, &folder);
        let program = program();
        let sandbox = format!("ledger-{}-{name}", std::process::id());
        let up = Command::new(&program)
            .args(["sandbox", "up", "--detach", "--name", &sandbox, "--database", "ledger"])
            .args(["--pooler", "arrakis_app:spice", "--format", "plain"])
            .output()
            .unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let urls = String::from_utf8(up.stdout).unwrap();
        let [direct, pooled] = urls.lines().collect::<Vec<_>>()[..] else { panic!("{urls}") };
        let at = pooled.find('@').unwrap();
        let pooled = format!("postgres://arrakis_app:spice{}", &pooled[at..]);
        psql(
            direct,
            &["-f", "setup/01_roles.sql", "-f", "setup/02_base.sql", "-c", "ALTER ROLE arrakis_app PASSWORD 'spice'"],
            &folder,
        );
        let mut app = Command::new(env!("CARGO_BIN_EXE_ledger-app"))
            .env("LEDGER_APP_DATABASE_URL", &pooled)
            .env("LEDGER_APP_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(app.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        let env = [
            ("LEDGER_DATABASE_URL", direct.to_owned()),
            ("LEDGER_POOLED_URL", pooled),
            ("LEDGER_APP_URL", address),
            ("PGRUNBOOK_ENVIRONMENT", "staging".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { folder, name: sandbox, env, app, program, database: direct.to_owned() }
    }

    fn call(&self, args: &[&str]) -> Output {
        Command::new(&self.program)
            .args(args)
            .current_dir(&self.folder)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn value(&self, sql: &str) -> String {
        psql(&self.database, &["-A", "-t", "-c", sql], &self.folder)
    }

    fn run(&self) -> String {
        self.done(&["run", "RUNBOOK.md", "--answers", "answers.toml"])
    }

    /// Tables of the ledger, by name.
    fn tables(&self) -> String {
        self.value(
            "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
             WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        )
    }
}

fn psql(url: &str, args: &[&str], folder: &Path) -> String {
    let output = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const ALL: &str = "communities credit_lots crypto_payments lot_entries reconciliation_cursor s2s_jwks_public_keys usage_events webhook_events";

#[test]
fn runbook_goes_forward_and_every_way_back_is_taken() {
    let ledger = Ledger::new("ways");
    ledger.done(&["lint", "RUNBOOK.md", "CONNECTIONS.md"]);
    let said = ledger.run();
    assert!(said.contains("the second client saw the first one's community"), "{said}");
    assert_eq!(ledger.tables(), ALL);

    // Undone, last in first out.
    ledger.done(&["rollback", "--path", "undo"]);
    assert_eq!(ledger.tables(), "communities");

    // Only the newest migration: its table of keys must be empty, says its own down file.
    ledger.run();
    psql(&ledger.database, &["-c", "DELETE FROM s2s_jwks_public_keys"], &ledger.folder);
    ledger.done(&["rollback", "--path", "rollback-only-migration-0011"]);
    assert!(
        !ledger.tables().contains("usage_events") && ledger.tables().contains("webhook_events"),
        "{}",
        ledger.tables()
    );

    // Forward again: what is done stays done. Then the backup is put back.
    let said = ledger.run();
    assert!(said.contains("usage-events  0011 applied") && said.contains("credit-lots  nothing was pending"), "{said}");
    ledger.done(&["rollback", "--path", "rollback-restore-the-backup"]);
    assert!(ledger.value("SELECT string_agg(datname, ' ') FROM pg_database").contains("ledger_before_"));
    ledger.done(&["run", "CONNECTIONS.md", "--var", "idle_for=1 hour", "--answers", "empty.toml"].map(
        |arg| match arg {
            "empty.toml" => {
                std::fs::write(
                    ledger.folder.join("connections.toml"),
                    "\"The owners of the idle connections know\" = \"confirmed\"\n",
                )
                .unwrap();
                "connections.toml"
            }
            arg => arg,
        },
    ));
}

#[test]
fn restore_is_closed_once_somebody_has_written() {
    let ledger = Ledger::new("closed");
    ledger.run();
    psql(
        &ledger.database,
        &[
            "-c",
            "INSERT INTO webhook_events (community_id, provider, event_id, payload) VALUES ('00000000-0000-4000-8000-00000000000a', 'p', 'e', '{}')",
        ],
        &ledger.folder,
    );
    let refused = ledger.call(&["rollback", "--path", "rollback-restore-the-backup"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("check `nothing-written-yet` does not hold: expected 0 rows, got 1 row"), "{said}");
    assert_eq!(ledger.tables(), ALL, "nothing was touched");
}

#[test]
fn migration_that_fails_in_the_middle_leaves_nothing_and_goes_on_when_mended() {
    let ledger = Ledger::new("middle");
    let path = ledger.folder.join("migrations/0010_webhook_events_crypto_payments.sql");
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}\nCREATE TABLE webhook_events (again int);\n")).unwrap();
    let failed = ledger.call(&["run", "RUNBOOK.md", "--answers", "answers.toml"]);
    let said = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("already exists (SQLSTATE 42P07); rolled back"), "{said}");
    assert!(!ledger.tables().contains("webhook_events"), "{}", ledger.tables());
    std::fs::write(&path, whole).unwrap();
    // The file is another one now, so it is another plan: a new run, in which what is done stays done.
    let said = ledger.run();
    assert!(
        said.contains("credit-lots  nothing was pending") && said.contains("webhooks-and-payments  0010 applied"),
        "{said}"
    );
    assert_eq!(ledger.tables(), ALL);
}

#[test]
fn runbook_is_rehearsed_on_a_throwaway_server() {
    let ledger = Ledger::new("rehearsed");
    let said = ledger.done(&["rehearse", "RUNBOOK.md"]);
    assert!(said.contains("Rehearsed forward and back."), "{said}");
    assert_eq!(ledger.tables(), "communities", "the real database was not touched");
}
