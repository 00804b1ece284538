//! Two sides compared: every sort of difference is found, and nothing else.

use std::collections::BTreeMap;

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::sandbox::shared_of;
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::parity::{
    Ask, Finding, Parity, ParityError, Place, Samples, TableParity, What, Which, compare, repair, sample,
};
use pgrunbook_steps::transfer::sqlite::Choices;

use crate::bench::cluster;

/// Types of every sort that a binary form depends on, in both schemas.
const TABLES: &str = "
CREATE TYPE {s}.mood AS ENUM ('sad', 'ok');
CREATE TYPE {s}.pair AS (one int, two {s}.mood);
CREATE DOMAIN {s}.short AS varchar(10);
CREATE TABLE {s}.things (
    id bigint PRIMARY KEY, small smallint, f4 real, f8 double precision, n numeric, t text, v {s}.short, b bytea, u uuid,
    d date, ts timestamp, tz timestamptz, i interval, j json, jb jsonb, m {s}.mood, ms {s}.mood[], p {s}.pair, ps {s}.pair[],
    a int[], ip inet, r int4range, bits bit(5), reg regclass, twice bigint GENERATED ALWAYS AS (id * 2) STORED
);
CREATE TABLE {s}.moods (mood {s}.mood, day date, note text, PRIMARY KEY (day, mood));
CREATE TABLE {s}.words (word text COLLATE \"C\" PRIMARY KEY, said int);
CREATE TABLE {s}.heap (one int, two text);
CREATE TABLE {s}.cut (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE {s}.empty (id int PRIMARY KEY);
";

const ROWS: &str = "
INSERT INTO {s}.things (id, small, f4, f8, n, t, v, b, u, d, ts, tz, i, j, jb, m, ms, p, ps, a, ip, r, bits, reg)
SELECT g, g % 7, g / 3.0, g * 0.37, g / 7.0, 'thing ' || g, 'v' || g, '\\x00ff'::bytea,
    ('00000000-0000-0000-0000-' || lpad(g::text, 12, '0'))::uuid, date '2024-01-01' + g % 365,
    timestamp '2024-01-01' + g * interval '1 minute', timestamptz '2024-01-01Z' + g * interval '1 s', g * interval '1 day',
    '{\"a\":  1}', '{\"b\": 1.0}', 'sad', ARRAY['ok', 'sad']::{s}.mood[], (g, 'ok')::{s}.pair, ARRAY[(g, 'sad')::{s}.pair],
    ARRAY[g, NULL], '10.0.0.1', int4range(g, g + 5), B'10101', '{s}.words'
FROM pg_catalog.generate_series(1, 3000) AS g;
INSERT INTO {s}.moods SELECT 'ok', date '2024-01-01' + g, 'n' FROM pg_catalog.generate_series(1, 300) AS g;
INSERT INTO {s}.moods SELECT 'sad', date '2024-01-01' + g, NULL FROM pg_catalog.generate_series(1, 300) AS g;
INSERT INTO {s}.words SELECT pg_catalog.md5(g::text), g FROM pg_catalog.generate_series(1, 2000) AS g;
INSERT INTO {s}.heap SELECT g % 50, 'same' FROM pg_catalog.generate_series(1, 500) AS g;
INSERT INTO {s}.cut SELECT g, date '2024-01-01' + g % 360 FROM pg_catalog.generate_series(1, 1000) AS g;
";

/// Two databases with the same rows: `public` of one, `health` of the other, whose enumerations have other OIDs, and whose
/// partitions are others.
struct Two {
    a: Place,
    b: Place,
    left: Session,
    right: Session,
}

impl Two {
    async fn new() -> Self {
        let cluster = cluster().await;
        Self::on(cluster.fresh_database("parity_a").await.unwrap(), cluster.fresh_database("parity_b").await.unwrap())
            .await
    }

    async fn on(a: ConnectOptions, b: ConnectOptions) -> Self {
        let left = Session::connect(&a, "test").await.unwrap();
        let right = Session::connect(&b, "test").await.unwrap();
        for (session, schema) in [(&left, "public"), (&right, "health")] {
            // Other OIDs on one side.
            let before =
                if schema == "health" { "CREATE SCHEMA health; CREATE TYPE health.before AS ENUM ('x');" } else { "" };
            let parts = if schema == "health" {
                "CREATE TABLE health.cut_all PARTITION OF health.cut DEFAULT;"
            } else {
                "CREATE TABLE public.cut_1 PARTITION OF public.cut FOR VALUES FROM ('2024-01-01') TO ('2024-06-01');
                 CREATE TABLE public.cut_2 PARTITION OF public.cut FOR VALUES FROM ('2024-06-01') TO ('2026-01-01');"
            };
            let sql = format!("{before}{TABLES}{parts}{ROWS}").replace("{s}", schema);
            session.execute(&sql).await.unwrap();
        }
        let place = |options: ConnectOptions, schema: &str| Place::Postgres {
            options: Box::new(options),
            schema: schema.to_owned(),
        };
        Self { a: place(a, "public"), b: place(b, "health"), left, right }
    }

    async fn compare(&self, jobs: usize) -> Parity {
        run(&self.a, &self.b, &[], &[], jobs).await.unwrap()
    }
}

async fn run(a: &Place, b: &Place, tables: &[&str], exclude: &[&str], jobs: usize) -> Result<Parity, ParityError> {
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (tables, exclude) = (named(tables), named(exclude));
    let cancel = Cancel::default();
    compare([a, b], &ask(&tables, &exclude, jobs, &cancel)).await
}

fn ask<'a>(tables: &'a [String], exclude: &'a [String], jobs: usize, cancel: &'a Cancel) -> Ask<'a> {
    Ask { tables, exclude, jobs, shown: 10, application_name: "test", cancel, tell: &|_, _| {} }
}

fn of<'a>(parity: &'a Parity, table: &str) -> &'a TableParity {
    parity.tables.iter().find(|one| one.name == table).unwrap()
}

/// The differences of a table as lines: key, and the columns with both values.
fn lines(table: &TableParity) -> Vec<String> {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    table
        .listed
        .iter()
        .map(|one| {
            let key: Vec<String> = one.key.iter().map(|(_, text)| value(text)).collect();
            let what = match &one.what {
                What::MissingInA => "missing in A".to_owned(),
                What::MissingInB => "missing in B".to_owned(),
                What::Differs(cells) => {
                    let cells = cells
                        .iter()
                        .map(|cell| format!("{} {} / {}", cell.column, value(&cell.values[0]), value(&cell.values[1])));
                    cells.collect::<Vec<_>>().join("; ")
                }
            };
            format!("{}: {what}", key.join(","))
        })
        .collect()
}

#[tokio::test]
async fn equal_sides_are_equal_whatever_their_types_and_partitions() {
    let two = Two::new().await;
    for jobs in [1, 3] {
        let parity = two.compare(jobs).await;
        assert!(parity.holds(), "{}", parity.terminal());
        assert!(parity.findings.is_empty(), "{:?}", parity.findings);
        let rows: BTreeMap<&str, u64> =
            parity.tables.iter().map(|table| (table.name.as_str(), table.sums[0].rows)).collect();
        let expected = [("cut", 1000), ("empty", 0), ("heap", 500), ("moods", 600), ("things", 3000), ("words", 2000)];
        assert_eq!(rows, expected.into());
        assert!(parity.sides.iter().all(|side| side.lsn.is_some() && side.snapshot.is_some()));
    }
}

/// Each of these is equal to a server's own `=` or hash, or cancels out in a sum of them.
#[tokio::test]
async fn what_servers_call_equal_is_found_where_its_bytes_differ() {
    let two = Two::new().await;
    two.right
        .execute(
            "UPDATE health.things SET f8 = 0.0 WHERE id = 1; UPDATE health.things SET f8 = 0.0 WHERE id = 2;
             UPDATE health.things SET n = 1.0 WHERE id = 3; UPDATE health.things SET i = interval '30 days' WHERE id = 4;
             UPDATE health.things SET jb = '{\"b\": 1.00}' WHERE id = 5; UPDATE health.things SET j = '{\"a\": 1}' WHERE id = 6;
             UPDATE health.things SET m = 'ok' WHERE id = 7; UPDATE health.things SET ps = ps || ps WHERE id = 8;
             UPDATE health.things SET reg = 'health.heap' WHERE id = 9; UPDATE health.things SET b = NULL WHERE id = 10",
        )
        .await
        .unwrap();
    two.left
        .execute(
            "UPDATE things SET f8 = '-0.0' WHERE id = 1; UPDATE things SET f8 = 0.0 WHERE id = 2;
             UPDATE things SET n = 1.00 WHERE id = 3; UPDATE things SET i = interval '1 month' WHERE id = 4",
        )
        .await
        .unwrap();
    let parity = two.compare(1).await;
    assert_eq!(
        lines(of(&parity, "things")),
        [
            "1: f8 -0 / 0",
            "3: n 1.00 / 1.0",
            "4: i 1 mon / 30 days",
            "5: jb {\"b\": 1.0} / {\"b\": 1.00}",
            "6: j {\"a\":  1} / {\"a\": 1}",
            "7: m sad / ok",
            "8: ps {\"(8,sad)\"} / {\"(8,sad)\",\"(8,sad)\"}",
            "9: reg words / heap",
            "10: b \\x00ff / NULL",
        ]
    );
    assert_eq!(parity.differences(), 9);
}

/// The server's hash of a record is a sum over its columns, so sums of it over rows do not see an exchange; and it folds a
/// bigint to 32 bits. Both are asserted of the server here: they are why it is not used.
#[tokio::test]
async fn values_exchanged_between_rows_are_found() {
    let two = Two::new().await;
    let sum = "SELECT sum(pg_catalog.hash_record_extended(ROW(word, said), 7)) FROM {s}.words";
    two.right
        .execute(
            "UPDATE health.words SET said = 3 - said WHERE said IN (1, 2);
             UPDATE health.things SET small = 0, f8 = 0 WHERE id = 1",
        )
        .await
        .unwrap();
    let sums = [
        two.left.value(&sum.replace("{s}", "public")).await.unwrap(),
        two.right.value(&sum.replace("{s}", "health")).await.unwrap(),
    ];
    assert_eq!(sums[0], sums[1], "the server's sum saw it");
    let fold =
        "SELECT pg_catalog.hash_record_extended(ROW(0::int8), 1) = pg_catalog.hash_record_extended(ROW(4294967297), 1)";
    assert_eq!(two.left.value(fold).await.unwrap(), "t");

    let parity = two.compare(1).await;
    assert_eq!(of(&parity, "words").totals.differ, 2, "{}", parity.terminal());
}

#[tokio::test]
async fn rows_too_many_and_too_few_are_named_by_their_keys() {
    let two = Two::new().await;
    two.right
        .execute(
            "DELETE FROM health.moods WHERE day = '2024-02-01' AND mood = 'sad';
             INSERT INTO health.moods VALUES ('ok', '2030-01-01', 'late'); INSERT INTO health.empty VALUES (-2147483648);
             INSERT INTO health.heap VALUES (7, 'same'); DELETE FROM health.cut WHERE id = 77;
             UPDATE health.words SET word = 'zz' WHERE said = 5",
        )
        .await
        .unwrap();
    two.left.execute("INSERT INTO heap VALUES (NULL, 'only here')").await.unwrap();
    let parity = two.compare(2).await;
    assert_eq!(lines(of(&parity, "moods")), ["2024-02-01,sad: missing in B", "2030-01-01,ok: missing in A"]);
    assert_eq!(lines(of(&parity, "empty")), ["-2147483648: missing in A"]);
    assert_eq!(lines(of(&parity, "cut")), ["77,2024-03-18: missing in B"]);
    // Without a key rows are counted: ten of them are the same, and the eleventh is one too many.
    let mut heap = lines(of(&parity, "heap"));
    heap.sort();
    assert_eq!(heap, ["7,same: missing in A", "NULL,only here: missing in B"]);
    assert_eq!(of(&parity, "words").totals.all(), 2);
    assert!(!parity.holds());
}

#[tokio::test]
async fn all_differences_are_counted_and_some_are_listed() {
    let two = Two::new().await;
    two.right.execute("UPDATE health.things SET t = t || '!'; UPDATE health.words SET said = -said").await.unwrap();
    let parity = two.compare(1).await;
    for (table, count) in [("things", 3000), ("words", 2000)] {
        let found = of(&parity, table);
        assert_eq!((found.totals.differ, found.totals.all(), found.listed.len()), (count, count, 10));
    }
    assert!(parity.terminal().contains("and 2990 more"), "{}", parity.terminal());
}

#[tokio::test]
async fn tables_and_columns_that_one_side_lacks_are_named() {
    let two = Two::new().await;
    two.left.execute("ALTER TABLE heap ADD three int; CREATE TABLE only_a (id int)").await.unwrap();
    two.right.execute("ALTER TABLE health.words ALTER said TYPE bigint; DROP TABLE health.empty").await.unwrap();
    let parity = two.compare(1).await;
    let texts: Vec<String> = parity.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "empty: there is no such table in B",
            "heap: B has no column three",
            "only_a: there is no such table in B",
            "words.said: integer in A and bigint in B, compared as text",
        ]
    );
    assert_eq!(parity.differences(), 0, "{}", parity.terminal());
    assert!(!parity.holds());
    let without = run(&two.a, &two.b, &[], &["heap", "empty", "only_a"], 1).await.unwrap();
    assert!(without.holds(), "{}", without.terminal());
    assert!(
        matches!(run(&two.a, &two.b, &["nowhere"], &[], 1).await, Err(ParityError::NoTable(name)) if name == "nowhere")
    );
}

#[tokio::test]
async fn rows_that_row_security_hides_stop_the_comparison() {
    let two = Two::new().await;
    let role = format!("parity_reader_{}", std::process::id());
    two.right
        .execute(&format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT USAGE ON SCHEMA health TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA health TO {role};
             ALTER TABLE health.words ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON health.words USING (said % 2 = 0)"
        ))
        .await
        .unwrap();
    let Place::Postgres { options, schema } = two.b.clone() else { unreachable!() };
    let options = ConnectOptions { user: role, password: Some("x".to_owned()), ..*options };
    let b = Place::Postgres { options: Box::new(options), schema };
    let error = run(&two.a, &b, &["words"], &[], 1).await.unwrap_err();
    assert!(error.to_string().contains("row-level security policy for table \"words\""), "{error}");
}

#[tokio::test]
async fn repair_writes_just_the_rows_that_differ() {
    let two = Two::new().await;
    two.right
        .execute(
            "DELETE FROM health.things WHERE id IN (5, 6); UPDATE health.things SET m = 'ok', t = NULL WHERE id = 7;
             INSERT INTO health.things (id) VALUES (9000); DELETE FROM health.moods WHERE day = '2024-02-01';
             UPDATE health.moods SET note = 'other' WHERE day = '2024-02-02'; UPDATE health.cut SET at = at + 1 WHERE id = 3",
        )
        .await
        .unwrap();
    let found = two.compare(1).await;
    let cancel = Cancel::default();
    let done = repair([&two.a, &two.b], &found, &ask(&[], &[], 1, &cancel)).await.unwrap();
    let planned: Vec<String> = done.planned.iter().map(ToString::to_string).collect();
    assert_eq!(
        planned,
        [
            "cut: insert 1, update 0, delete 1",
            "moods: insert 2, update 2, delete 0",
            "things: insert 2, update 1, delete 1",
        ]
    );
    assert!(done.as_replica && done.holds());
    let parity = two.compare(1).await;
    assert!(parity.holds(), "{}", parity.terminal());
}

#[tokio::test]
async fn repair_that_would_write_another_number_of_rows_writes_none() {
    let two = Two::new().await;
    two.right
        .execute("DELETE FROM health.words WHERE said = 5; UPDATE health.things SET t = 'x' WHERE id = 1")
        .await
        .unwrap();
    let found = two.compare(1).await;
    // Somebody else repairs one of them in between.
    two.right
        .execute("INSERT INTO health.words SELECT pg_catalog.md5('5'), 5; DELETE FROM health.things WHERE id = 1")
        .await
        .unwrap();
    let cancel = Cancel::default();
    let error = repair([&two.a, &two.b], &found, &ask(&[], &[], 1, &cancel)).await.unwrap_err();
    assert!(error.to_string().contains("0 rows of table things would have been updated, and not 1"), "{error}");
    let parity = two.compare(1).await;
    assert_eq!(parity.differences(), 1, "{}", parity.terminal());
}

#[tokio::test]
async fn samples_are_read_as_the_role_reads_them() {
    let two = Two::new().await;
    let Place::Postgres { options, .. } = &two.b else { unreachable!() };
    let role = format!("parity_app_{}", options.database);
    two.right
        .execute(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA health TO {role};
             GRANT SELECT ON health.things, health.moods, health.words, health.cut TO {role};
             ALTER ROLE {role} IN DATABASE \"{}\" SET search_path = health, public;",
            options.database
        ))
        .await
        .unwrap();
    let tables: Vec<String> = ["things", "moods", "words", "cut"].map(str::to_owned).into();
    let count = std::num::NonZeroU32::new(20).unwrap();
    let how = Samples { count, role: &role, tables: &tables, exclude: &[], application_name: "test" };
    let sampled = sample(&two.a, &two.b, &how).await.unwrap();
    assert!(sampled.holds(), "{}", sampled.terminal());
    assert_eq!(sampled.search_path, "health, public");
    let mut rows = 0;
    for table in &tables {
        let count = two.left.value(&format!("SELECT least(count(*), 20) FROM public.{table}")).await.unwrap();
        rows += count.parse::<u64>().unwrap();
    }
    assert_eq!(
        (sampled.rows, sampled.tables),
        (rows, 4),
        "as many as asked for, though nobody ever counted these tables"
    );
    two.left.execute("CREATE TABLE public.loose (a int)").await.unwrap();
    two.right.execute("CREATE TABLE health.loose (a int)").await.unwrap();
    let loose = ["loose".to_owned()];
    let error = sample(&two.a, &two.b, &Samples { tables: &loose, ..how.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("no table has a key"), "{error}");

    // Hidden by a policy, not allowed, and another table of the same name that is found first.
    two.right
        .execute(&format!(
            "ALTER TABLE health.words ENABLE ROW LEVEL SECURITY; REVOKE SELECT ON health.cut FROM {role};
             CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO {role}; CREATE TABLE other.moods (LIKE health.moods);
             GRANT SELECT ON other.moods TO {role};
             ALTER ROLE {role} IN DATABASE \"{}\" SET search_path = other, health",
            options.database
        ))
        .await
        .unwrap();
    let sampled = sample(&two.a, &two.b, &how).await.unwrap();
    let whole = |table: &str| sampled.wrong.iter().filter(|wrong| wrong.table == table).count();
    assert_eq!(whole("things"), 0, "{}", sampled.terminal());
    assert!(whole("words") >= 3 && whole("moods") >= 3, "{}", sampled.terminal());
    assert!(sampled.terminal().contains("cut: permission denied for table cut"), "{}", sampled.terminal());
    assert_eq!(whole("cut"), 1);
    two.right.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn sqlite_file_is_compared_with_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, score REAL, flag BOOLEAN, body BLOB, price DECIMAL(8,2),
             day DATE, at DATETIME, doc JSON);
         WITH RECURSIVE n(i) AS (SELECT -5 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO items SELECT i, 'item ' || i, i / 3.0, i % 2 <> 0, x'00ff', i + 0.5, '2024-01-31', '1999-12-31T23:59:59.5', '{ }'
         FROM n;
         CREATE TABLE pairs (a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
         INSERT INTO pairs VALUES ('x', 1), ('x', 2), ('é', 3);",
    )
    .unwrap();
    let database = cluster().await.fresh_database("parity").await.unwrap();
    let session = Session::connect(&database, "test").await.unwrap();
    session
        .execute(
            "CREATE TABLE items (id bigint PRIMARY KEY, name text, score float8, flag boolean, body bytea, price numeric(8,2),
                 day date, at timestamp, doc json);
             INSERT INTO items SELECT i, 'item ' || i, i / 3.0::float8, i % 2 <> 0, '\\x00ff', i + 0.5, '2024-01-31',
                 '1999-12-31 23:59:59.5', '{ }' FROM pg_catalog.generate_series(-5, 2000) AS i;
             CREATE TABLE pairs (a text, b bigint, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES ('x', 1), ('x', 2), ('é', 3)",
        )
        .await
        .unwrap();
    let a = Place::Sqlite { path: path.clone(), choices: Choices::default() };
    let b = Place::Postgres { options: Box::new(database), schema: "public".to_owned() };
    let equal = run(&a, &b, &[], &[], 1).await.unwrap();
    assert!(equal.holds(), "{}", equal.terminal());
    assert_eq!(equal.rows(Which::A), 2009);
    assert!(run(&a, &a, &[], &[], 1).await.unwrap().holds());

    file.execute_batch(
        "UPDATE items SET score = 0.1 WHERE id = 0; DELETE FROM items WHERE id = -5; UPDATE pairs SET b = 4 WHERE b = 3;
         UPDATE items SET at = '1999-12-31 23:59:59.500001' WHERE id = 7",
    )
    .unwrap();
    for (a, b) in [(&a, &b), (&b, &a)] {
        let parity = run(a, b, &[], &[], 1).await.unwrap();
        let found = of(&parity, "items");
        assert_eq!((found.totals.differ, found.totals.all()), (2, 3), "{}", parity.terminal());
        let text = lines(found).join("\n");
        assert!(text.contains("0: score") && text.contains("0.1") && text.contains(".500001"), "{text}");
        assert_eq!(of(&parity, "pairs").totals.all(), 2);
    }

    file.execute_batch("UPDATE items SET score = 'much' WHERE id = 12").unwrap();
    let error = run(&a, &b, &["items"], &[], 1).await.unwrap_err();
    assert!(
        error.to_string().contains(
            "items.score holds a value of the storage class text that is no double precision in the row id = 12"
        ),
        "{error}"
    );
    let virtual_table = "CREATE VIRTUAL TABLE search USING fts5(name)";
    file.execute_batch(&format!("UPDATE items SET score = 4.0 WHERE id = 12; {virtual_table}")).unwrap();
    let parity = run(&a, &b, &[], &[], 1).await.unwrap();
    let left_out = Finding::NotCompared { table: "search".to_owned(), why: "it is a virtual table".to_owned() };
    assert_eq!(parity.findings, [left_out]);
}

/// The hash that both ends cut tables by, on each major version; and the sums of one version's rows beside another's.
pub async fn holds_between(major: u32, other: u32) {
    let one = shared_of(major, "steps-tests").await.unwrap().fresh_database("parity").await.unwrap();
    let two = shared_of(other, "steps-tests").await.unwrap().fresh_database("parity").await.unwrap();
    let two = Two::on(one, two).await;
    let parity = two.compare(2).await;
    assert!(parity.holds(), "{}", parity.terminal());
    two.right
        .execute("UPDATE health.words SET said = 0 WHERE said = 9; DELETE FROM health.moods WHERE day = '2024-03-03'")
        .await
        .unwrap();
    let parity = two.compare(1).await;
    assert_eq!((of(&parity, "words").totals.differ, of(&parity, "moods").totals.missing_in_b), (1, 2));
    assert_eq!(parity.differences(), 3, "{}", parity.terminal());
}
