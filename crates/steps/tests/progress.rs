//! What is told of a transfer under way: rows, bytes, rate and what is left of a copy that is held, and how far a stream is behind.

use std::time::{Duration, Instant};

use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_steps::Workplace;
use pgrunbook_steps::transfer::{Status, keep_following, status, table};

use crate::matrix::held;
use crate::transfer::{MOVE, Move, logical};
use crate::transfer_sqlite::{File, load};

/// The one transfer, as soon as this holds of it.
async fn told(workplace: &Workplace, wanted: impl Fn(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let mut all = status(workplace, "main", None).await.unwrap();
        if all.first().is_some_and(&wanted) {
            return all.remove(0);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {all:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The cells of the transfer's line.
fn cells(one: &Status) -> Vec<String> {
    let shown = table(std::slice::from_ref(one));
    let line = shown.lines().nth(1).unwrap();
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

async fn own() -> Sandbox {
    Sandbox::start(SandboxOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_is_held_tells_its_rows_its_rate_and_what_is_left() {
    let target = own().await;
    let this = Move::at(&logical().await, &target).await;
    let more = "CREATE TABLE more (id int PRIMARY KEY, what text)";
    this.at_legacy(&format!("{more}; INSERT INTO more SELECT i, 'more' FROM generate_series(1, 3000) AS i")).await;
    let holder = held(&this).await;
    this.bench.execute(&format!("SET search_path = health; {more}")).await;
    let run = this.bench.begin(&MOVE.replace("undo =", "structure = \"existing\"\nundo =")).await;
    let workplace = this.bench.workplace().await;
    let looked = async {
        // One range for each table: two are done, and the third is held.
        let one = told(&workplace, |one| one.copied.ranges_done == 2 && one.copied.eta() > Some(0)).await;
        holder.execute("ROLLBACK").await.unwrap();
        one
    };
    let (end, one) = tokio::join!(this.bench.resume(&run), looked);
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert_eq!((one.phase.word(), one.copied.rows, one.copied.ranges), ("copying", 3500, 3), "{one:?}");
    let (rate, eta) = (one.copied.rate().unwrap(), one.copied.eta().unwrap());
    let json = one.to_json();
    let copied = &json["copied"];
    assert_eq!((copied["rows"].as_u64(), copied["bytes"].as_u64()), (Some(3500), Some(one.copied.bytes)), "{json}");
    assert_eq!((copied["ranges_done"].as_u64(), copied["ranges"].as_u64()), (Some(2), Some(3)), "{json}");
    assert_eq!((copied["rows_per_second"].as_u64(), copied["eta_seconds"].as_u64()), (Some(rate), Some(eta)), "{json}");
    assert!(one.copied.bytes > 3500 * 10, "{one:?}");
    let shown = cells(&one);
    assert_eq!(shown[..4], ["health", "old", "copying", "3500"], "{shown:?}");
    assert_eq!(shown[5..7], [rate.to_string(), format!("{eta} s")], "{shown:?}");

    // Once all is there nothing is left, and the rate stays what it was.
    let one = told(&workplace, |one| one.phase.follows()).await;
    assert_eq!((one.copied.rows, one.copied.ranges_done, one.copied.eta()), (5000, 3, Some(0)), "{one:?}");
    assert_eq!(cells(&one)[6], "-", "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn load_of_a_file_that_is_held_tells_its_rows() {
    let this = File::new(
        "CREATE TABLE held (id INTEGER PRIMARY KEY, what TEXT); CREATE TABLE more (id INTEGER PRIMARY KEY, what TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO held SELECT i, 'held' FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO more SELECT i, 'more' FROM n;",
    )
    .await;
    let tables = "CREATE SCHEMA health; CREATE TABLE health.held (id bigint PRIMARY KEY, what text);
        CREATE TABLE health.more (id bigint PRIMARY KEY, what text)";
    this.bench.execute(tables).await;
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE health.held IN SHARE MODE").await.unwrap();
    let steps = load("structure = \"existing\"\n");
    let run =
        this.bench.begin(&format!("# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{steps}")).await;
    let workplace = this.bench.workplace().await;
    let looked = async {
        let one = told(&workplace, |one| one.copied.rows == 3000).await;
        holder.execute("ROLLBACK").await.unwrap();
        one
    };
    let (end, one) = tokio::join!(this.bench.resume(&run), looked);
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let size = std::fs::metadata(this.path()).unwrap().len();
    assert_eq!((one.phase.word(), one.copied.bytes), ("copying", size * 3000 / 3500), "{one:?}");
    let shown = cells(&one);
    assert_eq!(shown[..4], ["health", "old", "copying", "3000"], "{shown:?}");
    let amounts = this.bench.hand.amounts.lock().unwrap().clone();
    assert_eq!(amounts.first(), Some(&(0, Some(3500), "rows")));
    assert!(amounts.contains(&(3000, Some(3500), "rows")), "{amounts:?}");
    assert_eq!(amounts.last(), Some(&(3500, Some(3500), "rows")));
    let one = told(&workplace, |one| one.phase.follows()).await;
    assert_eq!((one.copied.rows, one.copied.bytes), (3500, size), "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_is_behind_tells_its_lag_and_one_that_has_caught_up_has_none() {
    // What others write in a shared cluster would count.
    let settings = [("wal_level", "logical"), ("checkpoint_timeout", "1d"), ("autovacuum", "off")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let source = Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let target = own().await;
    let this = Move::at(&source, &target).await;
    let (_, end) = this.bench.run(&MOVE.replace("undo =", "reverse = false\nundo =")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let workplace = this.bench.workplace().await;

    // Nobody follows between two runs.
    this.at_legacy("UPDATE note SET text = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 60) AS i)")
        .await;
    let one = told(&workplace, |one| one.streams[0].is_followed == Some(false)).await;
    let lag = one.streams[0].lag_bytes.unwrap();
    assert!((1_000_000..100_000_000).contains(&lag), "1,500 rows of 1,920 bytes were written: {one:?}");
    assert_eq!(one.to_json()["streams"][0]["lag_bytes"], lag);
    let shown = table(std::slice::from_ref(&one));
    let size = if lag < 10_000_000 { format!("{} kB", lag / 1_000) } else { format!("{} MB", lag / 1_000_000) };
    assert!(shown.lines().nth(1).unwrap().ends_with(&size), "{size}: {shown}");
    assert!(shown.contains("nobody follows the forward stream; its server keeps"), "{shown}");
    assert!(shown.contains(": pgrunbook transfer follow --target main --schema health\n"), "{shown}");

    keep_following(&workplace, "main", "health").await.unwrap();
    let one = told(&workplace, |one| one.streams[0].lag_bytes.unwrap() < 10_000).await;
    assert_eq!(one.streams[0].is_followed, Some(true), "{one:?}");
    let shown = table(std::slice::from_ref(&one));
    assert!(!shown.contains("nobody follows"), "{shown}");

    // What came and cannot be applied is lag, though the source need not keep it any longer.
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE health.note IN SHARE MODE").await.unwrap();
    this.at_legacy(
        "UPDATE note SET text = (SELECT string_agg(md5((i + 60)::text), '') FROM generate_series(1, 60) AS i)",
    )
    .await;
    let end = this.legacy_value("SELECT pg_current_wal_lsn()").await;
    let received = "SELECT confirmed_flush_lsn >= '{END}' FROM pg_replication_slots WHERE slot_name LIKE '%forward'";
    let begun = Instant::now();
    while this.legacy_value(&received.replace("{END}", &end)).await != "t" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not received");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let one = told(&workplace, |_| true).await;
        assert!((1_000_000..100_000_000).contains(&one.streams[0].lag_bytes.unwrap()), "{one:?}");
    }
    holder.execute("ROLLBACK").await.unwrap();
    told(&workplace, |one| one.streams[0].lag_bytes.unwrap() < 10_000).await;
    let texts = "SELECT md5(string_agg(text, ';' ORDER BY visit, n)) FROM";
    let (there, here) = (format!("{texts} public.note"), format!("{texts} health.note"));
    assert_eq!(this.legacy_value(&there).await, this.bench.value(&here).await);
}
