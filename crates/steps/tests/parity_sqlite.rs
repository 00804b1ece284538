//! A SQLite file beside the schema it was loaded into: what a transfer loads, parity understands, kind by kind.

use std::collections::BTreeMap;

use pgrunbook_engine::{Cancel, EngineError, RunEnd};
use pgrunbook_postgres::Session;

use pgrunbook_steps::parity::{Ask, Parity, ParityError, Place, What, choices, compare, repair};
use serde_json::json;

use crate::bench::Bench;
use crate::sqlite::{File, database, rows};

/// A column for each kind and each way of storing it.
const KINDS: &str = "
    CREATE TABLE kinds (id INTEGER PRIMARY KEY, two INTEGER, four INTEGER, eight INTEGER, float REAL, words TEXT, bytes BLOB,
        truth BOOLEAN, word BOOL, letter BOOL, day DATE, plain DATETIME, zoned TIMESTAMP, secs INTEGER, ms INTEGER, us INTEGER,
        halves REAL, julian REAL, whole DECIMAL, part DECIMAL, digits TEXT, doc JSON, docb TEXT, uid TEXT);
    INSERT INTO kinds VALUES
        (1, 7, 70000, 9223372036854775807, 0.1, 'Éa', x'00ff', 1, 'true', 't', '2024-02-29', '2024-01-01T00:00:00.5',
         '2024-01-01 02:00:00+02:00', 1700000000, 1700000000123, 1700000000123456, 1700000000.5, 2460310.5, 12, 0.37, '1.50',
         '{\"a\":  1}', '{\"b\": [1.0, 2e2], \"a\": \"\\u00e9\"}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
        (2, -7, -70000, -9223372036854775808, 9e999, '', x'', 0, 'false', 'f', '0000-01-01', '1999-12-31T23:59:59',
         '2024-01-01 00:00:00Z', 0, -1, 1, -0.25, 2440587.5, 123456789012, 1e-9, '0.00', '[]', 'null',
         '00000000-0000-0000-0000-000000000000'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         NULL, NULL, NULL);";

const MAP: &[(&str, &str)] = &[
    ("kinds.two", "smallint"),
    ("kinds.four", "integer"),
    ("kinds.secs", "timestamptz from unix seconds"),
    ("kinds.ms", "timestamp from unix milliseconds"),
    ("kinds.us", "timestamptz from unix microseconds"),
    ("kinds.halves", "timestamptz from unix seconds"),
    ("kinds.julian", "timestamptz from julian day"),
    ("kinds.digits", "numeric"),
    ("kinds.docb", "jsonb"),
    ("kinds.uid", "uuid"),
];

/// For each column another value of its kind, as near to that of row 1 as the kind can tell.
const OTHERS: &[(&str, &str)] = &[
    ("two", "8"),
    ("four", "70001"),
    ("eight", "9223372036854775806"),
    ("float", "0.10000000000000002"),
    ("words", "'Ea'"),
    ("bytes", "x'00fe'"),
    ("truth", "0"),
    ("word", "'false'"),
    ("letter", "'f'"),
    ("day", "'2024-03-01'"),
    ("plain", "'2024-01-01T00:00:00.500001'"),
    ("zoned", "'2024-01-01 02:00:00+02:30'"),
    ("secs", "1700000001"),
    ("ms", "1700000000124"),
    ("us", "1700000000123457"),
    ("halves", "1700000000.25"),
    ("julian", "2460310.75"),
    ("whole", "13"),
    ("part", "0.38"),
    ("digits", "'1.5'"),
    ("doc", "'{\"a\": 1}'"),
    ("docb", "'{\"b\": [1.0, 2e3], \"a\": \"é\"}'"),
    ("uid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12'"),
];

struct Sides {
    file: File,
    session: Session,
}

impl Sides {
    /// A file, and a schema that it was loaded into.
    async fn new(sql: &str, map: &[(&str, &str)]) -> Self {
        let (file, session) = (File::new(sql), database().await);
        let looked = file.look(map).unwrap();
        file.load(&session, &looked).await.unwrap();
        Self { file, session }
    }

    fn places(&self, map: &[(&str, &str)]) -> [Place; 2] {
        let map: BTreeMap<_, _> = map.iter().map(|(key, word)| ((*key).to_owned(), (*word).to_owned())).collect();
        let file = Place::Sqlite { path: self.file.path(), choices: choices(&map).unwrap() };
        let options = Box::new(self.session.options().clone());
        [file, Place::Postgres { options, schema: "tenant".to_owned() }]
    }

    async fn compare(&self, map: &[(&str, &str)]) -> Result<Parity, ParityError> {
        let [a, b] = &self.places(map);
        compare([a, b], &ask(&Cancel::default())).await
    }
}

fn ask(cancel: &Cancel) -> Ask<'_> {
    Ask { tables: &[], exclude: &[], jobs: 1, shown: 20, application_name: "test", cancel, tell: &|_, _| {} }
}

#[tokio::test]
async fn what_a_transfer_loads_is_the_same_and_another_value_of_each_kind_is_found() {
    let sides = Sides::new(KINDS, MAP).await;
    let equal = sides.compare(MAP).await.unwrap();
    assert!(equal.holds() && equal.tables[0].sums[0].rows == 3, "{}", equal.terminal());
    let columns =
        rows(&sides.session, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attnum > 1")
            .await;
    assert_eq!(columns, [OTHERS.len().to_string()], "every column has another value");
    for (column, other) in OTHERS {
        let file = sides.file.open();
        file.execute_batch(&format!(
            "CREATE TABLE kept AS SELECT {column} AS v FROM kinds WHERE id = 1; UPDATE kinds SET {column} = {other} WHERE id = 1"
        ))
        .unwrap();
        let found = sides.compare(&[MAP, &[("kept", "skip")]].concat()).await.unwrap();
        assert_eq!(found.differences(), 1, "{column}: {}", found.terminal());
        let What::Differs(cells) = &found.tables[0].listed[0].what else { panic!("{}", found.terminal()) };
        assert_eq!(cells.iter().map(|cell| cell.column.as_str()).collect::<Vec<_>>(), [*column]);
        assert_ne!(cells[0].values[0], cells[0].values[1], "{column}: a person sees the difference");
        file.execute_batch(&format!("UPDATE kinds SET {column} = (SELECT v FROM kept) WHERE id = 1; DROP TABLE kept"))
            .unwrap();
    }
    assert!(sides.compare(MAP).await.unwrap().holds(), "and all is as it was");
}

#[tokio::test]
async fn spellings_of_one_value_are_the_same_and_what_nobody_said_is_asked_for() {
    let sides = Sides::new(KINDS, MAP).await;
    sides
        .file
        .open()
        .execute_batch(
            "UPDATE kinds SET zoned = '2024-01-01T00:00:00Z', docb = '{\"a\":\"é\",\"b\":[1,200]}', plain = '2024-01-01 00:00:00.500'
             WHERE id = 1",
        )
        .unwrap();
    let equal = sides.compare(MAP).await.unwrap();
    assert!(equal.holds(), "{}", equal.terminal());

    let error = sides.compare(&[]).await.unwrap_err().to_string();
    for words in
        ["a value of the storage class", "that is no timestamp with", "in the row id = 1", "is of a storage class that"]
    {
        assert!(error.contains(words), "{words}: {error}");
    }
    let error = sides.compare(&[MAP, &[("kinds.gone", "skip")]].concat()).await.unwrap_err().to_string();
    assert!(error.contains("`map` names kinds.gone, and there is no such table or column"), "{error}");
}

#[tokio::test]
async fn repair_writes_jsonb_as_the_file_has_it() {
    let sides = Sides::new(
        "CREATE TABLE d (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO d VALUES (1, '{}'), (2, '[1.00]')",
        &[("d.v", "jsonb")],
    )
    .await;
    sides.session.execute("UPDATE tenant.d SET v = '3' WHERE id = 2; DELETE FROM tenant.d WHERE id = 1").await.unwrap();
    let ([a, b], cancel) = (&sides.places(&[]), Cancel::default());
    let found = compare([a, b], &ask(&cancel)).await.unwrap();
    assert_eq!(found.differences(), 2, "{}", found.terminal());
    let repaired = repair([a, b], &found, &ask(&cancel)).await.unwrap();
    assert!(repaired.holds());
    assert_eq!(rows(&sides.session, "SELECT id, v FROM d ORDER BY id").await, ["1|{}", "2|[1.00]"]);
}

#[tokio::test]
async fn step_is_told_how_a_file_counts() {
    let sides = Sides::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at INTEGER, junk TEXT); INSERT INTO t VALUES (1, 1700000000, 'x')",
        &[("t.at", "timestamptz from unix seconds"), ("t.junk", "skip")],
    )
    .await;
    let mut bench = Bench::on(sides.session.options().clone());
    bench.config(&format!("[targets.file]\nsqlite = \"{}\"\n", sides.file.path().display()));
    let text = "# Gate\n\n## Go\n\n```toml step\nparity = \"same\"\ntarget = \"main\"\nfrom = \"file\"\nschema = \"tenant\"\n\
                map = { \"t.at\" = \"timestamptz from unix seconds\", \"t.junk\" = \"skip\" }\n```\n";
    let (run, end) = bench.run(text).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let evidence = bench.evidence(&run, "same").await;
    let noted = json!([{ "is_difference": false, "text": "t.junk: not compared, as was asked" }]);
    assert_eq!(evidence.facts["parity"]["findings"], noted);

    // A repair of the file is refused when the run is planned.
    let swapped = text.replace(
        "target = \"main\"\nfrom = \"file\"\nschema",
        "target = \"file\"\nfrom = \"main\"\nrepair = true\nfrom_schema",
    );
    let error = bench.engine().await.plan(&bench.parse(&swapped), &BTreeMap::new()).await.unwrap_err();
    let EngineError::Step { source, .. } = &error else { panic!("{error}") };
    assert!(source.message.contains("a repair writes to a database only"), "{source}");
}
