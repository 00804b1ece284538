//! A folder of profiles, a database with the same, and services on either.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use items_app::legacy;
use pgrunbook_postgres::sandbox::{self, Sandbox, SandboxOptions, url};
use pgrunbook_postgres::{ConnectOptions, Session};
use rusqlite::Connection;
use serde_json::Value;
use writers::http::{Answer, Client, Service};

pub const TOKEN: &str = "the administrator";

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub sandbox: Sandbox,
    pub database: ConnectOptions,
    /// Of the roles of this test.
    name: String,
}

/// A service that runs until it is dropped.
pub struct Serving {
    child: Child,
    pub address: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::on(sandbox::shared("items-app", SandboxOptions::default()).await.unwrap()).await
    }

    pub async fn on(sandbox: Sandbox) -> Self {
        let database = sandbox.fresh_database("items").await.unwrap();
        let name = database.database.clone();
        let bench = Self { folder: tempfile::tempdir().unwrap(), sandbox, database, name };
        let n = &bench.name;
        bench
            .execute(&format!(
                "CREATE ROLE {n}_owner; CREATE ROLE {n}_app LOGIN PASSWORD 'app'; CREATE ROLE {n}_admin LOGIN PASSWORD 'admin';
                 GRANT {n}_owner TO {n}_admin; CREATE SCHEMA shared AUTHORIZATION {n}_owner; REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 GRANT CREATE ON DATABASE {n} TO {n}_owner"
            ))
            .await;
        bench
    }

    pub async fn execute(&self, sql: &str) {
        Session::connect(&self.database, "test").await.unwrap().execute(sql).await.unwrap();
    }

    pub async fn value(&self, sql: &str) -> String {
        Session::connect(&self.database, "test").await.unwrap().value(sql).await.unwrap()
    }

    pub fn role(&self) -> String {
        format!("{}_app", self.name)
    }

    /// The runtime role's connection.
    pub fn runtime(&self) -> ConnectOptions {
        ConnectOptions { user: self.role(), password: Some("app".to_owned()), ..self.database.clone() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn profile(&self, source: &str, items: u32) -> PathBuf {
        profile(&self.path("profiles"), source, items)
    }

    /// The variables of a service.
    pub fn env(&self, mode: &str, dsn: &ConnectOptions) -> BTreeMap<&'static str, String> {
        let admin = ConnectOptions {
            user: format!("{}_admin", self.name),
            password: Some("admin".to_owned()),
            ..self.database.clone()
        };
        [
            ("ITEMS_DB_BACKEND_MODE", mode.to_owned()),
            ("ITEMS_LISTEN", "127.0.0.1:0".to_owned()),
            ("ITEMS_SQLITE_DIR", self.path("profiles").display().to_string()),
            ("ITEMS_POSTGRES_DSN", url(dsn)),
            ("ITEMS_POSTGRES_ADMIN_DSN", url(&admin)),
            ("ITEMS_POSTGRES_OWNER", format!("{}_owner", self.name)),
            ("ITEMS_ADMIN_TOKEN", TOKEN.to_owned()),
            ("ITEMS_LOG", self.path("items.log").display().to_string()),
        ]
        .into()
    }

    pub fn sqlite(&self) -> Serving {
        self.serve(&self.env("SQLITE", &self.runtime()))
    }

    pub fn postgres(&self) -> Serving {
        self.serve(&self.env("POSTGRES_PRIMARY", &self.runtime()))
    }

    pub fn serve(&self, env: &BTreeMap<&'static str, String>) -> Serving {
        let text: String = env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let file = self.path(&format!("{}.env", env["ITEMS_DB_BACKEND_MODE"]));
        std::fs::write(&file, text).unwrap();
        Serving::start(&file)
    }

    /// Makes a source by the service, and fills it with what the profile's file has.
    pub async fn load(&self, serving: &Serving, source: &str) {
        let made = serving.admin(source, TOKEN).await;
        assert_eq!(made.status, 200, "{}", made.body);
        fill(&self.database, &self.path(&format!("profiles/{source}.db")), made.body["schema"].as_str().unwrap()).await;
    }
}

/// A profile with items that carry its name, so that a row which strays is known by it.
pub fn profile(folder: &Path, source: &str, items: u32) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{source}.db"));
    let seed = source.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    legacy::make(&path, items, seed).unwrap();
    let db = Connection::open(&path).unwrap();
    let mark = "UPDATE items SET title = ?1 || ' ' || title; ";
    db.execute(mark, [source]).unwrap();
    db.execute("UPDATE notes SET author = ?1 || ' ' || author", [source]).unwrap();
    path
}

/// Fills a source's tables with what a profile's file has.
pub async fn fill(database: &ConnectOptions, file: &Path, schema: &str) {
    let db = Connection::open(file).unwrap();
    let session = Session::connect(database, "test").await.unwrap();
    // The notes are counted already.
    session.execute(&format!("SET session_replication_role = replica; SET search_path = {schema}")).await.unwrap();
    for (table, columns) in [
        ("items", "id, title, body, score, pinned, meta, note_count, created_at, updated_at"),
        ("notes", "id, item_id, author, body, created_at, updated_at"),
        ("item_tags", "item_id, tag, weight"),
    ] {
        let mut rows = db.prepare(&format!("SELECT {columns} FROM {table}")).unwrap();
        let width = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        let mut values: Vec<String> = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<String> =
                (0..width).map(|at| literal(row.get_ref_unwrap(at), columns.split(", ").nth(at).unwrap())).collect();
            values.push(format!("({})", cells.join(", ")));
        }
        session.execute(&format!("INSERT INTO {table} ({columns}) VALUES {}", values.join(", "))).await.unwrap();
    }
    session.execute("SELECT setval('items_id_seq', (SELECT max(id) FROM items)), setval('notes_id_seq', (SELECT max(id) FROM notes))").await.unwrap();
}

fn literal(value: rusqlite::types::ValueRef<'_>, column: &str) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) if column == "pinned" => (number == 1).to_string(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => format!("'{}'", std::str::from_utf8(text).unwrap().replace('\'', "''")),
        ValueRef::Blob(_) => panic!("a profile has no blobs"),
    }
}

impl Serving {
    /// Starts a service by its file of variables.
    pub fn start(file: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_items-app")).arg(file).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address }
    }

    /// Asks it to end, and waits until it has.
    pub fn end(mut self) -> std::process::ExitStatus {
        Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        self.child.wait().unwrap()
    }

    pub fn service(&self, source: &str, items: i64) -> Service {
        Service { address: self.address.clone(), source: source.to_owned(), items }
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        Client::new(self.address.clone()).ask(method, path, headers, body.as_ref()).await.unwrap()
    }

    pub async fn get(&self, source: &str, path: &str) -> Answer {
        self.ask("GET", path, &[("X-Source-ID", source)], None).await
    }

    pub async fn admin(&self, source: &str, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.ask("POST", "/admin/bootstrap/schema", &[("X-Source-ID", source), ("Authorization", &bearer)], None).await
    }
}
