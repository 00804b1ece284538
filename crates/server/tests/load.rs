//! Many requests, databases that hang, and databases that come back.

use std::time::Duration;

use pgrunbook_guard::Source;
use pgrunbook_postgres::ConnectOptions;
use pgrunbook_server::Databases;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::counter::Counter;
use crate::place::{Answer, LONG, Served, alone, at, execute, one, session, until, within};

const REQUEST: &str = "GET /guard?app_version=1.0.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// So many requests at once.
async fn crowd(served: &Served, count: usize) -> Vec<Answer> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        requests.spawn(Answer::to(served.address, REQUEST));
    }
    requests.join_all().await
}

async fn impatient(databases: Databases) -> Served {
    Served::new(Source::bot_config(), databases, Duration::from_millis(300), None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_share_four_connections_and_cost_one_query_each() {
    let counter = Counter::before(&at("1.0.0").await).await;
    let served = Served::new(Source::bot_config(), one(&counter.through, 4), LONG, None).await;
    for answer in crowd(&served, 200).await {
        answer.fits();
    }
    let (connections, queries, others) = counter.seen();
    assert!((1..=4).contains(&connections), "{connections} connections");
    // A connection asks for its backend's pid when it is made.
    assert_eq!((queries, others), (200 + connections, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_goes_down_is_503_and_comes_back_without_a_restart() {
    let (sandbox, database) = alone("1.0.0").await;
    let served = Served::of(&database).await;
    served.guard("app_version=1.0.0").await.fits();
    sandbox.stop().unwrap();
    let down = served.guard("app_version=1.0.0").await;
    down.says(503, "unreachable", "the database does not answer", "start the server");
    assert_eq!(served.get("/health").await.status, 200);
    sandbox.restart().unwrap();
    served.guard("app_version=1.0.0").await.fits();
    // Between two requests: the connection that was kept has died, and nobody is told.
    sandbox.stop().unwrap();
    sandbox.restart().unwrap();
    served.guard("app_version=1.0.0").await.fits();
    sandbox.kill().unwrap();
    served.guard("app_version=1.0.0").await.says(503, "unreachable", "does not answer", "");
}

#[tokio::test]
async fn connection_that_was_ended_between_two_requests_is_made_anew() {
    let database = at("1.0.0").await;
    let served = Served::of(&database).await;
    for answer in crowd(&served, 8).await {
        answer.fits();
    }
    execute(
        &database,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'pgrunbook:serve'",
    )
    .await;
    for answer in crowd(&served, 8).await {
        answer.fits();
    }
}

const SERVES: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pgrunbook:serve'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_that_is_locked_makes_503_and_leaves_no_backend_behind() {
    let database = at("1.0.0").await;
    let served = impatient(one(&database, 2)).await;
    let holder = session(&database).await;
    holder.execute("BEGIN; LOCK bot_config IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for answer in crowd(&served, 20).await {
        answer.says(503, "unanswered", "did not say within 300ms what bot_config holds", "pg_locks");
    }
    until(&database, SERVES, "0").await;
    holder.execute("ROLLBACK").await.unwrap();
    // On a busy machine a new connection alone may take longer than so short a deadline.
    let answered = async { while served.guard("app_version=1.0.0").await.status != 200 {} };
    within("an answer once nothing is locked", answered).await;
}

#[tokio::test]
async fn server_that_accepts_and_says_nothing_holds_nobody_longer_than_the_deadline() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut hangs = at("1.0.0").await;
    hangs.hosts[0].port = silent.local_addr().unwrap().port();
    // Connections are taken, kept, and not answered.
    let kept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            kept.push(stream);
        }
    });
    let served = impatient(one(&hangs, 2)).await;
    for answer in crowd(&served, 20).await {
        answer.says(503, "unanswered", "did not say within 300ms", "overloaded");
    }
    assert!(!kept.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_that_hangs_keeps_no_other_from_its_answer() {
    let (stuck, well) = (at("1.0.0").await, at("1.0.0").await);
    let holder = session(&stuck).await;
    holder.execute("BEGIN; LOCK bot_config IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let place = |database: &ConnectOptions| Ok(database.clone());
    let targets = [("default", "main", place(&well)), ("default", "stuck", place(&stuck))];
    let databases = crate::place::several(Some("default"), targets, 1);
    let served = Served::new(Source::bot_config(), databases, LONG, None).await;
    let address = served.address;
    let waits = tokio::spawn(Answer::to(address, "GET /guard?app_version=1.0.0&target=stuck HTTP/1.0\r\n\r\n"));
    until(&stuck, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'bot_config'::regclass", "1").await;
    served.guard("app_version=1.0.0").await.fits();
    assert!(!waits.is_finished());
    holder.execute("ROLLBACK").await.unwrap();
    within("the other's answer", waits).await.unwrap().fits();
}
