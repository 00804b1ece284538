//! Follows a slot until a fence, and ends: what `bench/follow` measures.
//!
//! ```text
//! follow SOURCE_URL TARGET_URL SLOT PUBLICATION FROM_SCHEMA TO_SCHEMA SPOOL_FOLDER FENCE
//! ```
#![expect(clippy::unwrap_used, reason = "it measures, and may fail by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use pgrunbook_postgres::apply::{Applier, Options, Rename};
use pgrunbook_postgres::receiver::{Limits, Receive, Receiver};
use pgrunbook_postgres::replication::{Replication, StreamOptions, Streaming};
use pgrunbook_postgres::slots::slot_state;
use pgrunbook_postgres::spool::{Follow, Source, Spool};
use pgrunbook_postgres::{ConnectOptions, ConnectSpec, Session, Surroundings};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, slot, publication, from, to, folder, fence] = arguments.as_slice() else {
        panic!("SOURCE_URL TARGET_URL SLOT PUBLICATION FROM_SCHEMA TO_SCHEMA SPOOL_FOLDER FENCE");
    };
    let connect = |text: &str| {
        let spec = ConnectSpec::Given { text: text.to_owned(), origin: "the command line".to_owned() };
        let env = |name: &str| std::env::var(name).ok();
        ConnectOptions::resolve(&spec, &Surroundings { env: &env, home: None, user: None }).unwrap()
    };
    let (source, target) = (connect(source), connect(target));
    let begun = Instant::now();
    let mut options = Options::new(format!("{to}:forward"), Rename::one(from, to));
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    options.batch_rows = number("BATCH_ROWS").unwrap_or(options.batch_rows);
    options.batch_bytes = number("BATCH_BYTES").unwrap_or(options.batch_bytes);
    options.batch_delay = number("BATCH_MS").map_or(options.batch_delay, |ms| Duration::from_millis(ms as u64));
    let mut applier = Applier::open(&target, options).await.unwrap();
    let mut connection = Replication::connect(&source, "follow").await.unwrap();
    let system = connection.identify_system().await.unwrap();
    let major = connection.major();
    drop(connection);
    let identity = Source { system: system.identifier, timeline: system.timeline };
    let session = Session::connect(&source, "follow").await.unwrap();
    let start = slot_state(&session, slot).await.unwrap().unwrap().confirmed.unwrap_or_default();
    drop(session);
    // A new slot begins where everything before was applied.
    if applier.position().lsn < start {
        applier.reached(start);
        applier.settle().await.unwrap();
    }
    let (spool, writer) = Spool::open(Path::new(folder), identity, start).await.unwrap();
    let mut stream = StreamOptions::best(major, vec![publication.clone()]);
    if std::env::var_os("WHOLE").is_some() {
        stream.streaming = Streaming::Off;
    }
    let what = Receive {
        connect: source,
        application_name: "follow".to_owned(),
        slot: slot.clone(),
        stream,
        limits: Limits { spool_soft: u64::MAX, spool_hard: u64::MAX, disk_free_min: 0 },
    };
    let mut receiver = Receiver::start(spool.clone(), writer, what);
    let from = applier.position().lsn;
    let late = std::env::var_os("LATE").is_some();
    let mut follow = if late { Follow::start(&spool, from) } else { Follow::start_early(&spool, from, from) }.unwrap();
    let (mut waited, mut applied) = (Duration::ZERO, Duration::ZERO);
    while applier.position().marker.as_deref() != Some(fence) {
        let before = Instant::now();
        let batch = match follow.next().await {
            Ok(batch) => batch.unwrap(),
            Err(error) => panic!("{error}; {:?}", receiver.ended().await),
        };
        waited += before.elapsed();
        let before = Instant::now();
        for event in batch.events {
            applier.push(event).await.unwrap();
        }
        applied += before.elapsed();
    }
    let position = applier.position();
    eprintln!(
        "{} transactions, {} changes in {:?}; waited {waited:?}, applied {applied:?}; CPU {:?}, destination {:?}; {} MB spooled",
        position.transactions,
        position.changes,
        begun.elapsed(),
        cpu("self"),
        cpu(&applier.backend_pid().to_string()),
        spool.bytes() >> 20
    );
    drop(follow);
    receiver.stop().await;
}

/// What a process of this machine took: `utime` and `stime` of `proc(5)`, in ticks of 10 ms.
fn cpu(pid: &str) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
