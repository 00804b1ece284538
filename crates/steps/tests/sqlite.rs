//! SQLite files of every kind, carried into a real PostgreSQL.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::Session;
use pgrunbook_steps::transfer::Severity;
use pgrunbook_steps::transfer::sqlite::translate::{self, Named};
use pgrunbook_steps::transfer::sqlite::{
    Choices, Collation, How, Kind, Loaded, Preflight, SqliteError, Width, check_existing, image, load, preflight,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use rusqlite::Connection;
use rusqlite::types::Value;
use tokio_postgres::types::{FromSql, Type};

use crate::bench::cluster;

/// A file made by SQL, and where it lies.
pub struct File {
    folder: tempfile::TempDir,
}

impl File {
    pub fn new(sql: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        file.open().execute_batch(sql).unwrap();
        file
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("source.db")
    }

    pub fn open(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    pub fn look(&self, map: &[(&str, &str)]) -> Result<Preflight, SqliteError> {
        preflight(&self.path(), &Choices::parse(map.iter().copied())?, "tenant", 2)
    }

    /// `severity code object` of all findings, sorted.
    pub fn findings(&self, map: &[(&str, &str)]) -> Vec<String> {
        let looked = self.look(map).unwrap();
        let mut lines: Vec<String> =
            looked.findings.iter().map(|one| format!("{} {} {}", one.severity.word(), one.code, one.object)).collect();
        lines.sort();
        lines
    }

    pub async fn load(&self, session: &Session, looked: &Preflight) -> Result<Loaded, SqliteError> {
        let image = image::take(&self.path(), self.folder.path(), 3, Duration::from_secs(5)).unwrap();
        let plan = Arc::new(looked.plan());
        load(session.options(), "tenant", Arc::new(image), plan, &How::default(), &Cancel::default()).await
    }
}

pub async fn database() -> Session {
    let options = cluster().await.fresh_database("sqlite").await.unwrap();
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute("SET search_path = tenant; SET TimeZone = 'UTC'").await.unwrap();
    session
}

pub async fn rows(session: &Session, sql: &str) -> Vec<String> {
    let answers = session.simple(sql).await.unwrap();
    let shown = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
    answers.last().unwrap().rows.iter().map(|row| row.iter().map(shown).collect::<Vec<_>>().join("|")).collect()
}

#[tokio::test]
async fn every_declared_type_arrives_as_its_own() {
    let file = File::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, i MEDIUMINT, r REAL, s VARCHAR(5) COLLATE NOCASE, b BLOB,
            truth BOOLEAN, word BOOL, day DATE, at DATETIME, zoned TIMESTAMP, n DECIMAL(10, 2), j JSON, found,
            secs INTEGER, ms INTEGER, julian REAL, u TEXT);
         INSERT INTO t VALUES (7, 9223372036854775807, 0.1, 'Éa', x'00ff', 1, 'true', '2024-02-29',
            '2024-01-01T00:00:00.5', '2024-01-01 02:00:00+02:00', 0.1, '{\"a\":  1}', 5, 1700000000, 1700000000123,
            2460310.5, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
         INSERT INTO t VALUES (8, -9223372036854775808, 9e999, '', x'', 0, 'false', '0000-01-01',
            '1999-12-31T23:59:59', '2024-01-01 00:00:00Z', 123456789012, '[]', 6, 0, -1, 2440587.5, NULL);
         UPDATE sqlite_sequence SET seq = 100;
         CREATE UNIQUE INDEX s_key ON t (s);",
    );
    let map = [
        ("t.secs", "timestamptz from unix seconds"),
        ("t.ms", "timestamp from unix milliseconds"),
        ("t.julian", "timestamptz from julian day"),
        ("t.u", "uuid"),
    ];
    let looked = file.look(&map).unwrap();
    let refused: Vec<_> = looked.findings.iter().filter(|one| one.severity != Severity::Warn).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let session = database().await;
    let loaded = file.load(&session, &looked).await.unwrap();
    assert_eq!(loaded.tables[0].sum.rows, 2);
    assert_eq!(loaded.tables[0].respelled.keys().collect::<Vec<_>>(), ["zoned"]);
    assert_eq!(
        rows(&session, "SELECT * FROM t ORDER BY id").await,
        [
            "7|9223372036854775807|0.1|Éa|\\x00ff|t|t|2024-02-29|2024-01-01 00:00:00.5|2024-01-01 00:00:00+00|0.1|{\"a\":  1}|5\
             |2023-11-14 22:13:20+00|2023-11-14 22:13:20.123|2024-01-01 00:00:00+00|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "8|-9223372036854775808|Infinity||\\x|f|f|0001-01-01 BC|1999-12-31 23:59:59|2024-01-01 00:00:00+00|123456789012|[]\
             |6|1970-01-01 00:00:00+00|1969-12-31 23:59:59.999|1970-01-01 00:00:00+00|NULL",
        ]
    );
    let next = rows(&session, "INSERT INTO t (s, truth) VALUES ('new', true) RETURNING id").await;
    assert_eq!(next, ["101"], "it continues behind what AUTOINCREMENT ever gave");
    let error = session.execute("INSERT INTO t (s) VALUES ('éA'), ('ÉA')").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23505"), "NOCASE folds ASCII, and only that: {error}");
    session.execute("INSERT INTO t (s) VALUES ('éA')").await.unwrap();
}

#[test]
fn values_that_do_not_fit_are_all_named() {
    let file = File::new(
        "CREATE TABLE t (id TEXT PRIMARY KEY, i INT, r REAL, s TEXT, b BLOB, found, truth BOOLEAN, day DATE, at DATETIME,
            mixed DATETIME, fine DATETIME, n NUMERIC, j JSON, empty DATE);
         INSERT INTO t VALUES ('a', 'x', 'y', CAST(x'ff41' AS TEXT), 'text', 1, 2, '2024-02-30', 1700000000,
            '2024-01-01 00:00:00', '2024-01-01 00:00:00.1234567', 'abc', '{', '');
         INSERT INTO t VALUES ('b' || char(0), 1.5, x'00', 'a' || char(0), 1, 'one', 1, '2024-02-28', '2024-01-01 00:00:00',
            '2024-01-01 00:00:00Z', '2024-01-01 00:00:00.123', 1, '{}', '2024-01-01');
         INSERT INTO t VALUES (NULL, 5, 1, x'41', x'00', NULL, NULL, NULL, '-0044-03-15 00:00:00', '2024-01-01 00:00:00',
            NULL, NULL, NULL, NULL);",
    );
    assert_eq!(
        file.findings(&[]),
        [
            "consent null-in-key table t",
            "refuse impossible-date column t.day",
            "refuse invalid-utf8 column t.s",
            "refuse not-a-date column t.at",
            "refuse not-a-date column t.empty",
            "refuse not-boolean column t.truth",
            "refuse not-json column t.j",
            "refuse nul column t.id",
            "refuse nul column t.s",
            "refuse storage-class column t.at",
            "refuse storage-class column t.b",
            "refuse storage-class column t.found",
            "refuse storage-class column t.i",
            "refuse storage-class column t.n",
            "refuse storage-class column t.r",
            "refuse storage-class column t.s",
            "refuse too-fine column t.fine",
            "refuse zones-mixed column t.mixed",
        ]
    );
    let looked = file.look(&[]).unwrap();
    let said = looked.findings.iter().find(|one| one.code == "invalid-utf8").unwrap();
    assert!(said.what.contains("1 of 3") && !said.what.contains("'a'"), "{}", said.what);
    assert!(said.excerpt.contains("id = 'a': text of 2 bytes"), "{}", said.excerpt);
}

#[test]
fn what_is_not_carried_over_is_named() {
    let file = File::new(
        "CREATE VIRTUAL TABLE search USING fts5(body); INSERT INTO search VALUES ('words');
         CREATE VIRTUAL TABLE boxes USING rtree(id, a, b);
         CREATE TABLE search_log (id INTEGER PRIMARY KEY);
         CREATE TABLE p (id INTEGER PRIMARY KEY, g TEXT CHECK (g GLOB 'a*'), z TEXT DEFAULT (random()));
         CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE CASCADE, q REFERENCES gone);
         CREATE INDEX odd ON c (p) WHERE p IN (SELECT 1);
         PRAGMA foreign_keys = off; INSERT INTO c VALUES (1, 99, NULL);
         CREATE VIEW v AS SELECT 1; CREATE TRIGGER tr AFTER INSERT ON p BEGIN SELECT 1; END;"
            .replace("CREATE INDEX odd ON c (p) WHERE p IN (SELECT 1);", "CREATE INDEX odd ON c (p) WHERE p GLOB '1*';")
            .as_str(),
    );
    let found = file.findings(&[]);
    for line in [
        "consent virtual-table virtual table search",
        "consent virtual-table virtual table boxes",
        "consent check table p",
        "consent default column p.z",
        "consent foreign-key table c",
        "consent index index odd",
        "consent orphans table c",
        "warn view view v",
        "warn trigger trigger tr",
    ] {
        assert!(found.iter().any(|one| one == line), "{line} is not in {found:#?}");
    }
    let looked = file.look(&[]).unwrap();
    let tables: Vec<&str> = looked.mapping.tables.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(tables, ["c", "p", "search_log"], "no shadow, and what only looks like one stays");
}

#[tokio::test]
async fn names_keys_and_shapes_of_all_kinds_arrive() {
    let file = File::new(
        "CREATE TABLE \"Select \"\"x\"\" é\" (\"A b\" INTEGER, \"user\" TEXT, PRIMARY KEY (\"user\", \"A b\")) WITHOUT ROWID;
         INSERT INTO \"Select \"\"x\"\" é\" VALUES (1, 'u'), (2, 'u');
         CREATE TABLE one (only_column); CREATE TABLE empty (a INT NOT NULL, b TEXT UNIQUE);
         CREATE TABLE g (a INT, b INT AS (a * 2) STORED, c TEXT DEFAULT 'x''y', d DEFAULT 5, e REAL DEFAULT -1.5,
            made TEXT DEFAULT CURRENT_TIMESTAMP, CHECK (a > 0), UNIQUE (a, c));
         INSERT INTO g (a) VALUES (1), (NULL);
         CREATE TABLE parent (id INTEGER PRIMARY KEY, up INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO parent VALUES (1, 2), (2, 1);",
    );
    let looked = file.look(&[]).unwrap();
    let blocking: Vec<_> =
        looked.findings.iter().filter(|one| matches!(one.severity, Severity::Refuse | Severity::Consent(_))).collect();
    assert!(blocking.is_empty(), "{blocking:?}");
    let session = database().await;
    file.load(&session, &looked).await.unwrap();
    assert_eq!(rows(&session, "SELECT \"A b\", \"user\" FROM \"Select \"\"x\"\" é\" ORDER BY 1").await, ["1|u", "2|u"]);
    assert_eq!(rows(&session, "SELECT a, b, c FROM g ORDER BY a").await, ["1|2|x'y", "NULL|NULL|x'y"]);
    assert_eq!(rows(&session, "INSERT INTO g (a) VALUES (3) RETURNING b, c, d, e").await, ["6|x'y|5|-1.5"]);
    assert_eq!(session.execute("INSERT INTO g (a) VALUES (0)").await.unwrap_err().sqlstate(), Some("23514"));
    let keys = "SELECT contype, convalidated, condeferred FROM pg_constraint WHERE connamespace = 'tenant'::regnamespace \
                AND contype IN ('p', 'f', 'u') ORDER BY 1, 2, 3";
    assert_eq!(rows(&session, keys).await, ["f|t|t", "p|t|f", "p|t|f", "u|t|f", "u|t|f"]);
}

#[tokio::test]
async fn what_fails_leaves_nothing_and_touches_nothing_else() {
    let file = File::new("CREATE TABLE a (v INT); INSERT INTO a VALUES (1); CREATE TABLE b (v INT)");
    let looked = file.look(&[]).unwrap();
    // Written after the profile: the load must see it by itself.
    file.open().execute_batch("INSERT INTO b VALUES ('late')").unwrap();
    let session = database().await;
    let error = file.load(&session, &looked).await.unwrap_err();
    assert!(
        matches!(&error, SqliteError::Misfit(bad) if bad.table == "b" && bad.what == "text of 4 bytes" && !error.to_string().contains("late")),
        "{error}"
    );
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant'";
    assert_eq!(rows(&session, schemas).await, ["0"]);
    session
        .execute("CREATE SCHEMA tenant; CREATE TABLE tenant.b (mine int); INSERT INTO tenant.b VALUES (1)")
        .await
        .unwrap();
    let error = file.load(&session, &looked).await.unwrap_err();
    assert!(matches!(&error, SqliteError::Exists(what) if what == "tenant.b"), "{error}");
    assert_eq!(rows(&session, "SELECT mine FROM tenant.b").await, ["1"]);
}

#[tokio::test]
async fn tables_made_by_migrations_are_checked() {
    let file = File::new(
        "CREATE TABLE t (a INT, b TEXT, c REAL, d INT); INSERT INTO t VALUES (70000, 'long text', 1.5, NULL)",
    );
    let session = database().await;
    session
        .execute(
            "CREATE SCHEMA tenant; CREATE TABLE tenant.t (a smallint, b varchar(3), c real, d int NOT NULL, e int NOT NULL); \
             INSERT INTO tenant.t VALUES (1, '', 1, 1, 1)",
        )
        .await
        .unwrap();
    let looked = file.look(&[]).unwrap();
    let found = check_existing(&session, "tenant", &looked).await.unwrap();
    let codes: Vec<String> = found.iter().map(|one| format!("{} {}", one.code, one.object)).collect();
    assert_eq!(
        codes,
        [
            "other-type column t.a",
            "other-type column t.b",
            "other-type column t.c",
            "null column t.d",
            "new-column column t.e",
            "not-empty table tenant.t",
        ]
    );
    session
        .execute("DROP TABLE tenant.t; CREATE TABLE tenant.t (a int, b varchar(9), c float8, d int, e int DEFAULT 1 NOT NULL)")
        .await
        .unwrap();
    assert_eq!(check_existing(&session, "tenant", &looked).await.unwrap(), []);
}

#[test]
fn files_that_cannot_be_trusted_are_refused_by_name() {
    let missing = preflight(Path::new("/nowhere/a.db"), &Choices::default(), "tenant", 1).unwrap_err();
    assert!(matches!(missing, SqliteError::CannotOpen { .. }), "{missing}");

    let file = File::new("CREATE TABLE t (v TEXT)");
    std::fs::write(file.path(), "no database at all, however long this text may be".repeat(40)).unwrap();
    let error = file.look(&[]).unwrap_err();
    assert!(matches!(error, SqliteError::Damaged { .. }), "{error}");

    let file = File::new("CREATE TABLE t (v TEXT)");
    file.open()
        .execute_batch("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT i || hex(zeroblob(20)) FROM n")
        .unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    bytes[4096 * 3..4096 * 3 + 2048].fill(0xA5);
    std::fs::write(file.path(), bytes).unwrap();
    let error = file.look(&[]).unwrap_err();
    assert!(matches!(error, SqliteError::Damaged { .. }), "{error}");

    let file = File::new("CREATE TABLE t (a INT)");
    let error = file.look(&[("t.b", "text")]).unwrap_err().to_string();
    assert!(error.contains("no such column; table t has a"), "{error}");
    let error = file.look(&[("t.a", "varchar")]).unwrap_err().to_string();
    assert!(error.contains("unknown; there is skip, bigint"), "{error}");
}

#[test]
fn a_writer_that_does_not_let_go_is_named() {
    let file = File::new("CREATE TABLE t (a INT)");
    let writer = file.open();
    writer.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)").unwrap();
    let error = image::take(&file.path(), file.folder.path(), 1, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, SqliteError::Busy { .. }), "{error}");
    writer.execute_batch("COMMIT").unwrap();
    let image = image::take(&file.path(), file.folder.path(), 1, Duration::from_secs(5)).unwrap();
    assert!(!image.source_changed().unwrap());
    writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    assert!(image.source_changed().unwrap());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(image.copy().unwrap()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let rows: i64 = image.open().unwrap().query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, 1);
    let copy = image.copy().unwrap().to_owned();
    drop(image);
    assert!(!copy.exists());
}

#[test]
fn image_of_a_file_with_a_write_ahead_log_is_no_copy_and_hinders_nobody() {
    let file = File::new("PRAGMA journal_mode = wal; CREATE TABLE t (a INT); INSERT INTO t VALUES (1)");
    let path = file.path();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    // It commits all the while, and never waits for a reader.
    let writer = file.open();
    let writing = std::thread::spawn(move || {
        let mut written = 0_u64;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
            written += 1;
        }
        written
    });
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    };
    for _ in 0..20 {
        let image = image::take(&path, file.folder.path(), 3, Duration::from_secs(30)).unwrap();
        assert_eq!(image.copy(), None);
        let first = count(&image.open().unwrap());
        let later = file.open();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while count(&later) == first {
            assert!(std::time::Instant::now() < deadline, "the writer stands still");
        }
        let seen = [image.open().unwrap(), image.open().unwrap(), image.open().unwrap()];
        assert_eq!(seen.each_ref().map(|one| count(one)), [first; 3]);
        assert!(image.source_changed().unwrap());
    }
    stop.send(()).unwrap();
    assert!(writing.join().unwrap() > 20);
    assert_eq!(
        std::fs::read_dir(file.folder.path())
            .unwrap()
            .filter(|one| one.as_ref().is_ok_and(|one| one.file_name() == "base.sqlite"))
            .count(),
        0
    );
}

/// A value's bytes as the server sends them.
struct Raw(Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Some(raw.to_vec())))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The declared type of a column, and values that fit it.
fn column() -> impl Strategy<Value = (&'static str, Vec<Value>)> {
    use proptest::prelude::*;
    let text = || "\\PC{0,12}".prop_map(Value::Text);
    let real = || any::<f64>().prop_filter("SQLite has no NaN", |number| !number.is_nan()).prop_map(Value::Real);
    let at = || (0_i64..4_000_000_000, 0_u32..1_000).prop_map(|(seconds, ms)| (seconds, ms));
    let cell = |values: BoxedStrategy<Value>| {
        proptest::collection::vec(prop_oneof![1 => Just(Value::Null), 6 => values], 12..=12)
    };
    let stamp = move |tail: &'static str| {
        at().prop_map(move |(seconds, ms)| {
            let time = jiff_like(seconds);
            Value::Text(format!("{time}.{ms:03}{tail}"))
        })
    };
    prop_oneof![
        (Just("INTEGER"), cell(any::<i64>().prop_map(Value::Integer).boxed())),
        (Just("REAL"), cell(real().boxed())),
        (Just("TEXT"), cell(text().boxed())),
        (Just("BLOB"), cell(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob).boxed())),
        (Just("BOOLEAN"), cell((0_i64..2).prop_map(Value::Integer).boxed())),
        (Just("NUMERIC"), cell(prop_oneof![real(), any::<i64>().prop_map(Value::Integer)].boxed())),
        (Just("DATETIME"), cell(stamp("").boxed())),
        (Just("TIMESTAMP"), cell(stamp("Z").boxed())),
        (Just("JSON"), cell(any::<i32>().prop_map(|n| Value::Text(format!("{{\"a\" : [{n}, \"x\"]}}"))).boxed())),
        (Just(""), cell(text().boxed())),
    ]
}

/// `YYYY-MM-DD HH:MM:SS` of seconds since 1970, by SQLite itself.
fn jiff_like(seconds: i64) -> String {
    let memory = Connection::open_in_memory().unwrap();
    memory.query_row("SELECT datetime(?1, 'unixepoch')", [seconds], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn random_tables_come_back_as_they_were() {
    let session = database().await;
    let mut runner = TestRunner::new(Config { cases: 1, ..Config::default() });
    for case in 0..24 {
        let columns = proptest::collection::vec(column(), 1..6).new_tree(&mut runner).unwrap().current();
        let declared: Vec<String> = columns.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name}")).collect();
        let file = File::new(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {})", declared.join(", ")));
        let connection = file.open();
        for row in 0..12 {
            let marks = vec!["?"; columns.len() + 1].join(", ");
            let id = Value::Integer(i64::try_from(row).unwrap());
            let values = std::iter::once(&id).chain(columns.iter().map(|(_, values)| &values[row]));
            connection.execute(&format!("INSERT INTO t VALUES ({marks})"), rusqlite::params_from_iter(values)).unwrap();
        }
        let looked = file.look(&[]).unwrap();
        let refused: Vec<_> = looked.findings.iter().filter(|one| one.severity == Severity::Refuse).collect();
        assert!(refused.is_empty(), "case {case}: {declared:?}: {refused:?}");
        session.execute("DROP SCHEMA IF EXISTS tenant CASCADE").await.unwrap();
        file.load(&session, &looked).await.unwrap();
        let there = session.client().query("SELECT * FROM tenant.t ORDER BY id", &[]).await.unwrap();
        let map = &looked.mapping.tables[0];
        let mut statement = connection.prepare("SELECT * FROM t ORDER BY id").unwrap();
        let mut here = statement.query([]).unwrap();
        for there in &there {
            let here = here.next().unwrap().unwrap();
            for (at, column) in map.columns.iter().enumerate() {
                let Raw(bytes) = there.get(at);
                let back = column.kind.inverse(bytes.as_deref()).unwrap();
                let expected: Value = here.get(at).unwrap();
                let same = match (&back, &expected) {
                    (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits() || (*a == 0.0 && *b == 0.0),
                    // What a column of affinity NUMERIC makes of it.
                    (Value::Integer(a), Value::Real(b)) => *a as f64 == *b,
                    _ => back == expected,
                };
                assert!(same, "case {case}, {declared:?}, column {}: {back:?} for {expected:?}", column.name);
            }
        }
        assert!(here.next().unwrap().is_none());
    }
}

/// Random expressions over a fixed table, as text.
fn expressions() -> impl Strategy<Value = String> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just("i".to_owned()),
        Just("k".to_owned()),
        Just("r".to_owned()),
        Just("s".to_owned()),
        Just("n".to_owned()),
        Just("b".to_owned()),
        Just("y".to_owned()),
        (-3_i64..40).prop_map(|number| number.to_string()),
        Just("2.5".to_owned()),
        Just("'aB'".to_owned()),
        Just("'%b_'".to_owned()),
        Just("''".to_owned()),
        Just("x'00ff'".to_owned()),
        Just("NULL".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        let operator = proptest::sample::select(vec![
            "=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "AND", "OR", "IS", "IS NOT", "LIKE", "&",
            "|", "<<", ">>",
        ]);
        let function = proptest::sample::select(vec![
            "length", "lower", "upper", "abs", "round", "trim", "rtrim", "hex", "typeof", "-", "~", "NOT ",
        ]);
        prop_oneof![
            4 => (two.clone(), operator).prop_map(|((a, b), operator)| format!("({a} {operator} {b})")),
            2 => (inner.clone(), function).prop_map(|(a, function)| format!("({function}({a}))")),
            1 => inner.clone().prop_map(|a| format!("({a} IS NULL)")),
            1 => (inner.clone(), two.clone()).prop_map(|(a, (b, c))| format!("({a} BETWEEN {b} AND {c})")),
            1 => (inner.clone(), two.clone()).prop_map(|(a, (b, c))| format!("({a} NOT IN ({b}, {c}))")),
            1 => (inner.clone(), two.clone()).prop_map(|(a, (b, c))| format!("CASE WHEN {a} THEN {b} ELSE {c} END")),
            1 => two.clone().prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            1 => two.clone().prop_map(|(a, b)| format!("nullif({a}, {b})")),
            1 => inner.clone().prop_map(|a| format!("CAST({a} AS INTEGER)")),
            1 => inner.clone().prop_map(|a| format!("substr({a}, 2, 1)")),
            1 => two.prop_map(|(a, b)| format!("instr({a}, {b})")),
        ]
    })
}

#[tokio::test]
async fn accepted_expressions_mean_the_same_on_both_sides() {
    let rows_sql = "(1, 2, 1.5, 'ab', 'Ab', x'00ff', 1), (-3, 0, -0.5, 'AB ', 'aB', x'', 0), (0, NULL, 2.5, '', '', NULL, NULL),
        (7, -1, NULL, NULL, 'zé', x'41', 1), (NULL, 3, 1e300, 'É', NULL, x'00', 0), (9007199254740993, 5, 0.0, 'a%b_', 'AB', NULL, 1)";
    let memory = Connection::open_in_memory().unwrap();
    memory
        .execute_batch(&format!(
            "CREATE TABLE t (i INTEGER, k INTEGER, r REAL, s TEXT, n TEXT COLLATE NOCASE, b BLOB, y BOOLEAN);
             INSERT INTO t VALUES {rows_sql}"
        ))
        .unwrap();
    let session = database().await;
    session
        .execute(&format!(
            "CREATE SCHEMA tenant; CREATE TABLE tenant.t (i bigint, k bigint, r float8, s text COLLATE \"C\", n text COLLATE \"C\", b bytea, y boolean,
                at int GENERATED ALWAYS AS IDENTITY);
             INSERT INTO tenant.t (i, k, r, s, n, b, y) VALUES {}",
            rows_sql
                .replace("x'00ff'", "'\\x00ff'")
                .replace("x''", "'\\x'")
                .replace("x'41'", "'\\x41'")
                .replace("x'00'", "'\\x00'")
                .replace(", 1)", ", true)")
                .replace(", 0)", ", false)")
        ))
        .await
        .unwrap();
    let scope = |name: &str| {
        let (kind, collation) = match name {
            "i" | "k" => (Kind::Integer(Width::Eight), Collation::Binary),
            "r" => (Kind::Double, Collation::Binary),
            "s" => (Kind::Text, Collation::Binary),
            "n" => (Kind::Text, Collation::NoCase),
            "b" => (Kind::Bytea, Collation::Binary),
            "y" => (Kind::Boolean(pgrunbook_steps::transfer::sqlite::Truth::Number), Collation::Binary),
            _ => return None,
        };
        Some(Named { name: name.to_owned(), kind, collation })
    };
    let mut runner = TestRunner::new(Config::default());
    let (mut accepted, mut compared) = (0, 0);
    for _ in 0..6_000 {
        let sql = expressions().new_tree(&mut runner).unwrap().current();
        let Ok(translated) = translate::condition(&sql, &scope) else { continue };
        accepted += 1;
        let mut statement =
            memory.prepare(&format!("SELECT CASE WHEN {sql} THEN 't' WHEN NOT ({sql}) THEN 'f' END FROM t")).unwrap();
        let here: Result<Vec<Option<String>>, _> = statement.query_map([], |row| row.get(0)).unwrap().collect();
        for (at, here) in here.unwrap().into_iter().enumerate() {
            let there = session.simple(&format!("SELECT {translated} FROM tenant.t WHERE at = {}", at + 1)).await;
            match there {
                Ok(there) => {
                    compared += 1;
                    assert_eq!(there[0].rows[0][0], here, "row {at}: {sql}\n{translated}");
                }
                // Out of range: PostgreSQL says so, where SQLite goes on in floating point.
                Err(error) => assert_eq!(error.sqlstate(), Some("22003"), "{sql}\n{translated}\n{error}"),
            }
        }
    }
    assert!(accepted > 300 && compared > 1_500, "too few to say anything: {accepted} accepted, {compared} compared");
}
