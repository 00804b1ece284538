//! How a server begins and ends.

use std::io::ErrorKind;
use std::time::Duration;

use pgrunbook_guard::Source;
use pgrunbook_server::{Guarding, Server, ServerError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::place::{Answer, LONG, Served, at, one, session, several, until, within};

#[tokio::test]
async fn port_that_is_taken_is_an_error() {
    let served = Served::of(&at("1.0.0").await).await;
    let guarding = Guarding::new(Source::bot_config(), several(None, [], 1), LONG, None).unwrap();
    let Err(ServerError::Listen { address, source }) = Server::bind(served.address, guarding).await else {
        panic!("two servers on one port");
    };
    assert_eq!((address, source.kind()), (served.address, ErrorKind::AddrInUse));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_before_the_end_is_answered_and_nothing_new_is_taken() {
    let database = at("1.0.0").await;
    let mut served = Served::of(&database).await;
    let address = served.address;
    // A connection that is kept open, between two requests.
    let mut quiet = TcpStream::connect(address).await.unwrap();
    quiet.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    quiet.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let holder = session(&database).await;
    holder.execute("BEGIN; LOCK bot_config IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asked = tokio::spawn(Answer::to(address, "GET /guard?app_version=1.0.0 HTTP/1.1\r\nHost: x\r\n\r\n"));
    until(&database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'bot_config'::regclass", "1")
        .await;
    served.end();
    // The quiet one is closed, which tells that the end has begun.
    within("the quiet connection ends", quiet.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(!asked.is_finished());
    holder.execute("ROLLBACK").await.unwrap();
    within("the answer", asked).await.unwrap().fits();
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn request_that_never_becomes_whole_does_not_keep_the_server_from_its_end() {
    let database = at("1.0.0").await;
    let mut served = Served::new(Source::bot_config(), one(&database, 1), Duration::from_millis(100), None).await;
    let mut half = TcpStream::connect(served.address).await.unwrap();
    half.write_all(b"GET /guard?app_ver").await.unwrap();
    // The server has taken the connections that came before this one's answer.
    assert_eq!(served.get("/health").await.status, 200);
    served.end();
    assert_eq!(served.ended().await, 1);
    let mut rest = Vec::new();
    let read = within("the half request's end", half.read_to_end(&mut rest)).await;
    assert!(read.is_err() || rest.is_empty(), "{rest:?}");
}
