//! Copies `public` of one database into a schema of another, for `bench/copy`:
//! `copy SOURCE TARGET SCHEMA POST_DATA.sql JOBS`. The target's tables are there and empty.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::collections::BTreeSet;
use std::time::Instant;

use pgrunbook_document::sql::split;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::relation::{Filter, describe};
use pgrunbook_postgres::{ConnectOptions, ConnectSpec, Session, Surroundings};
use pgrunbook_steps::transfer::build::{Building, Kind, Object, build};
use pgrunbook_steps::transfer::copy::{How, copy, pair};
use tokio::sync::watch;

fn options(url: &str) -> ConnectOptions {
    let spec = ConnectSpec::Given { text: url.to_owned(), origin: "argument".to_owned() };
    ConnectOptions::resolve(&spec, &Surroundings { env: &|_| None, home: None, user: None }).unwrap()
}

/// What `pg_dump --section=post-data` writes, as objects; only the kinds that the benchmark's database has.
fn objects(text: &str) -> Vec<Object> {
    let statements: Vec<&str> = split(text).statements.iter().map(|one| one.text(text).trim()).collect();
    let after = |sql: &str, word: &str| {
        let name = sql.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap();
        name.rsplit('.').next().unwrap().trim_matches('"').to_owned()
    };
    let mut objects = Vec::new();
    for sql in statements {
        let (kind, name, table) = if sql.starts_with("ALTER TABLE ONLY") && sql.contains(" ADD CONSTRAINT ") {
            let kind = if sql.contains(" FOREIGN KEY ") { Kind::ForeignKey } else { Kind::Key };
            (kind, after(sql, " ADD CONSTRAINT "), after(sql, "ALTER TABLE ONLY "))
        } else if sql.starts_with("CREATE INDEX") || sql.starts_with("CREATE UNIQUE INDEX") {
            (Kind::Index, after(sql, " INDEX "), after(sql, " ON "))
        } else {
            continue;
        };
        objects.push(Object { kind, name, table: Some(table), sql: sql.to_owned() });
    }
    objects
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, schema, file, jobs] = arguments.as_slice() else { panic!("five arguments") };
    let (source, target, jobs) = (options(source), options(target), jobs.parse().unwrap());
    let objects = objects(&std::fs::read_to_string(file).unwrap());
    let keeper = Session::connect(&source, "keeper").await.unwrap();
    keeper.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let snapshot = keeper.value("SELECT pg_export_snapshot()").await.unwrap();
    let there = Session::connect(&target, "describe").await.unwrap();
    let pairs = pair(
        describe(&keeper, "public", Filter::All).await.unwrap(),
        &describe(&there, schema, Filter::All).await.unwrap(),
    )
    .unwrap();
    let begun = Instant::now();
    let cancel = Cancel::default();
    let (sender, ready) = watch::channel(BTreeSet::new());
    let range_mb: u64 = std::env::var("RANGE_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(64);
    let rows = async {
        // Dropped at the end: then no table is waited for.
        let sender = sender;
        let tell = |told: &pgrunbook_steps::transfer::copy::Told| {
            if told.is_complete {
                eprintln!(
                    "{:7.2} s  {}: {} rows, {} bytes",
                    begun.elapsed().as_secs_f64(),
                    told.table,
                    told.rows,
                    told.bytes
                );
            }
        };
        let how =
            How { schema, jobs, range_bytes: range_mb << 20, cancel: &cancel, tell: &tell, finished: Some(&sender) };
        copy(&source, &snapshot, &target, &pairs, &how).await.unwrap()
    };
    let after = async {
        let tell = |built: &pgrunbook_steps::transfer::build::Built| {
            eprintln!("{:7.2} s  {} in {:.2} s", begun.elapsed().as_secs_f64(), built.name, built.took.as_secs_f64());
        };
        let how = Building { schema, jobs, cancel: &cancel, tell: &tell, ready: Some(ready) };
        build(&target, &objects, how).await.unwrap();
    };
    tokio::join!(rows, after);
}
