//! A fence under eight writers at full speed, and connections that are cut at every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::options::HostPort;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use pgrunbook_steps::fence;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Legacy, MESSAGE};

/// Sums up by `UPDATE ... + 1` until it is refused; how often it was accepted, and what refused it.
pub async fn write_until_refused(options: ConnectOptions, id: u64, accepted: Arc<AtomicU64>) -> (String, String) {
    let session = Session::connect(&options, "writer").await.unwrap();
    for round in id.. {
        let sql = format!("UPDATE s.acct SET n = n + 1 WHERE id = {}", round % 64 + 1);
        match session.execute(&sql).await {
            Ok(()) => accepted.fetch_add(1, Ordering::SeqCst),
            Err(PgError::Server(error)) => return (error.sqlstate.clone(), error.message.clone()),
            Err(error) => panic!("{error}"),
        };
    }
    unreachable!("it counts up without end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_eight_writers_nothing_follows_the_marker_and_nothing_is_missing_before_it() {
    let legacy = Legacy::new().await;
    let slot = format!("s_{}", legacy.options.database);
    legacy.session.execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    let made = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    legacy.session.execute(&made).await.unwrap();
    let accepted = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> =
        (0..8).map(|at| tokio::spawn(write_until_refused(legacy.as_app(), at * 8, accepted.clone()))).collect();
    while accepted.load(Ordering::SeqCst) < 2_000 {
        tokio::task::yield_now().await;
    }
    let fenced = legacy.set("under-load").await.unwrap();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), ("25006".to_owned(), MESSAGE.replace("{table}", "acct")));
    }
    println!("locked for {:?}, {} tries, waited {:?}", fenced.locked_for, fenced.tries, fenced.waited);
    let accepted = accepted.load(Ordering::SeqCst);
    assert_eq!(legacy.session.value("SELECT sum(n) FROM s.acct").await.unwrap(), accepted.to_string());

    // What flows back passes, in a transaction of its own, after the marker.
    let changes = legacy
        .session
        .client()
        .query(
            "SELECT lsn::text, data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
                 'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')",
            &[&slot],
        )
        .await
        .unwrap();
    let messages: Vec<(String, Vec<u8>)> = changes.iter().map(|row| (row.get(0), row.get(1))).collect();
    let marker = messages
        .iter()
        .position(|(_, data)| data[0] == b'M' && data.windows(16).any(|bytes| bytes == b"fence:under-load"));
    let marker = marker.expect("the marker is in the stream");
    assert_eq!(messages[marker].0, fenced.marker.to_string());
    let updates = messages[..marker].iter().filter(|(_, data)| data[0] == b'U').count();
    assert_eq!(updates as u64, accepted, "updates before the marker");
    let after: Vec<u8> = messages[marker + 1..].iter().map(|(_, data)| data[0]).collect();
    // The rest of the fence's own transaction: its record, of which the publication also knows, and its commit.
    let end = after.iter().position(|kind| *kind == b'C').unwrap();
    let record = after[..end].iter().all(|kind| matches!(kind, b'R' | b'I' | b'Y'));
    assert!(record && after.len() == end + 1, "{}", String::from_utf8_lossy(&after));

    let back = legacy.connect("applier").await;
    back.execute("SET session_replication_role = replica; UPDATE s.acct SET n = n WHERE id = 1").await.unwrap();
    legacy.session.execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_writers_that_hold_their_rows_it_gives_way_and_comes_through() {
    let legacy = Legacy::new().await;
    let longest = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicU64::new(0));
    // One transaction is always open for longer than a try: none comes through while it goes on.
    let holder = legacy.connect("holder").await;
    holder.execute("BEGIN; UPDATE s.acct SET n = 1 WHERE id = 64").await.unwrap();
    let writer = {
        let (options, longest, stop) = (legacy.as_app(), longest.clone(), stop.clone());
        tokio::spawn(async move {
            let session = Session::connect(&options, "writer").await.unwrap();
            let mut written = 0;
            while stop.load(Ordering::SeqCst) == 0 {
                let begun = Instant::now();
                match session.execute("UPDATE s.acct SET n = n + 1 WHERE id = 1").await {
                    Ok(()) => written += 1,
                    Err(PgError::Server(error)) => assert_eq!(error.sqlstate, "25006"),
                    Err(error) => panic!("{error}"),
                }
                longest.fetch_max(u64::try_from(begun.elapsed().as_millis()).unwrap(), Ordering::SeqCst);
            }
            written
        })
    };
    let error = fence::fence(&legacy.session, &legacy.hasty("gives-way"), &Cancel::default()).await.unwrap_err();
    stop.store(1, Ordering::SeqCst);
    assert!(writer.await.unwrap() > 10, "the writer went on between the tries");
    assert!(error.to_string().contains("holder"), "{error}");
    println!("longest wait of a writer: {} ms", longest.load(Ordering::SeqCst));
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(legacy.set("gives-way").await.unwrap().tries, 1);
}

/// A way to a server that ends, for good, just before the answer after the first `answers` is passed on.
pub struct Cut {
    pub options: ConnectOptions,
}

impl Cut {
    pub async fn before(server: &ConnectOptions, answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = (server.hosts[0].host.clone(), server.hosts[0].port);
        let (passed, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let up = TcpStream::connect(&address).await.unwrap();
                up.set_nodelay(true).unwrap();
                client.set_nodelay(true).unwrap();
                let (passed, over) = (passed.clone(), over.clone());
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = up.into_split();
                    let there = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    });
                    let back = async {
                        loop {
                            let mut head = [0; 5];
                            from_server.read_exact(&mut head).await?;
                            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                            let mut body = vec![0; length - 4];
                            from_server.read_exact(&mut body).await?;
                            // ReadyForQuery ends an answer.
                            if head[0] == b'Z' && passed.fetch_add(1, Ordering::SeqCst) >= answers {
                                over.notify_waiters();
                                return std::io::Result::Ok(());
                            }
                            to_client.write_all(&head).await?;
                            to_client.write_all(&body).await?;
                        }
                    };
                    let end = over.notified();
                    tokio::select! {
                        _ = back => {}
                        () = end => {}
                    }
                    there.abort();
                });
            }
        });
        let hosts = vec![HostPort { host: "127.0.0.1".to_owned(), port }];
        Self { options: ConnectOptions { hosts, ..server.clone() } }
    }

    /// Waits until the server has ended what was cut off.
    pub async fn settled(&self, session: &Session) {
        let begun = Instant::now();
        let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name IN ('cut', 'pgrunbook:fence:observer')";
        while session.value(left).await.unwrap() != "0" {
            assert!(begun.elapsed() < Duration::from_secs(20), "the backends that were cut off stay");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
