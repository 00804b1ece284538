//! A connection that is lost at COMMIT: the commit arrives, and its answer does not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::ConnectOptions;

use crate::bench::Bench;

/// A way to the server that cuts the first connection on which `COMMIT` follows `marker`, once the server has had time to
/// commit. Later connections go through.
fn cutting(server: &ConnectOptions, marker: &'static str) -> (ConnectOptions, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = (server.hosts[0].host.clone(), server.hosts[0].port);
    let cut = Arc::new(AtomicBool::new(false));
    let is_cut = Arc::clone(&cut);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, cut) = (client.unwrap(), Arc::clone(&cut));
            let server = TcpStream::connect(&address).unwrap();
            let held = Arc::new(AtomicBool::new(false));
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let silent = Arc::clone(&held);
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 14];
                while let Ok(length @ 1..) = from_server.read(&mut buffer) {
                    // The answer to the COMMIT is swallowed, and with it the connection.
                    if silent.load(Ordering::SeqCst) || to_client.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let (mut buffer, mut seen) = ([0; 1 << 14], Vec::new());
                while let Ok(length @ 1..) = client.read(&mut buffer) {
                    seen.extend_from_slice(&buffer[..length]);
                    let text = String::from_utf8_lossy(&seen);
                    let commits = text.find(marker).is_some_and(|at| text[at..].contains("COMMIT"));
                    if commits && !cut.swap(true, Ordering::SeqCst) {
                        held.store(true, Ordering::SeqCst);
                    }
                    if server.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    let mut options = server.clone();
    options.hosts[0].port = port;
    (options, is_cut)
}

#[tokio::test]
async fn commit_whose_answer_is_lost_is_settled_by_the_ledger() {
    let direct = Bench::new().await;
    let (through, cut) = cutting(&direct.database, "CREATE TABLE once");
    let bench = Bench::on(through);
    let text = "# Lost\n\n## Phase\n\n```sql step\n-- apply: once    target: main\n-- undo: none: a test\nCREATE TABLE once AS SELECT 1 AS n;\n```\n";
    let (run, end) = bench.run(text).await;
    assert!(cut.load(Ordering::SeqCst), "the connection was cut");
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&run, "once").await.summary, "committed, as the ledger says");
    assert_eq!(direct.value("SELECT count(*) FROM once").await, "1");
}

#[tokio::test]
async fn migration_whose_answer_is_lost_is_settled_by_the_history() {
    let direct = Bench::new().await;
    let (through, cut) = cutting(&direct.database, "CREATE TABLE once");
    let bench = Bench::on(through);
    bench.write("db/1_once.sql", "CREATE TABLE once AS SELECT 1 AS n;\n");
    let text = "# Lost\n\n## Phase\n\n```toml step\nmigrate = \"load\"\ntarget = \"main\"\nchain = \"db\"\nundo = \"none: a test\"\n```\n";
    let (_, end) = bench.run(text).await;
    assert!(cut.load(Ordering::SeqCst), "the connection was cut");
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(
        direct.value("SELECT string_agg(version || ' ' || state, ',') FROM pgrunbook.migration").await,
        "1 applied"
    );
}
