//! `redis-health`, `redis-keys`, `redis-delete`.

use std::path::Path;
use std::task::Poll;

use pgrunbook_engine::{Cancel, Purpose, RunEnd};
use pgrunbook_steps::redis::keys::{How, count};
use pgrunbook_steps::redis::{Keep, Prefix, RedisFault, RedisOptions, TIMEOUT, connect, delete};

use super::server::{Server, ask, until};
use super::{bench, on, one};
use crate::bench::failure;

const HEALTH: &str = "redis-health = \"up\"\ntarget = \"cache\"";

#[tokio::test]
async fn health_is_told_and_held_against_limits() {
    let server = Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let bench = on(&server);
    let good = one(&format!(
        "{HEALTH}\npings = 20\nmax_p99 = \"5s\"\nmax_memory = \"90%\"\nmax_evicted = 0\nrole = \"primary\""
    ));
    let (run, end) = bench.run(&good).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "up").await;
    let told = &evidence.facts["servers"][0];
    assert_eq!((told["role"].as_str(), told["pings"].as_u64()), (Some("primary"), Some(20)));
    assert_eq!(told["maxmemory"], 100 * 1024 * 1024);
    assert_eq!(told["maxmemory_policy"], "allkeys-lru");
    assert!(told["p50_us"].as_u64() <= told["p99_us"].as_u64(), "{told}");

    let bad = one(&format!("{HEALTH}\nmin_replicas = 1\npersistent = true\nmax_memory = \"0%\""));
    let (_, code, message) = failure(&bench.run(&bad).await.1);
    assert_eq!(code, "gate");
    for said in ["0 replicas are online, fewer than 1", "memory used, above 0 %", "no RDB file was saved"] {
        assert!(message.contains(said), "{message}");
    }
}

#[tokio::test]
async fn evictions_break_their_limit() {
    let server = Server::start(&["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"]);
    // A server begins with about 1 MB; 100,000 keys have ten times as much.
    server.fill("stg:", 100_000);
    let bench = on(&server);
    let (_, code, message) = failure(&bench.run(&one(&format!("{HEALTH}\nmax_evicted = 0"))).await.1);
    assert_eq!(code, "gate");
    assert!(message.contains("keys were evicted, more than 0"), "{message}");
    let (run, end) = bench.run(&one(&format!("{HEALTH}\nmax_evicted = 1000000"))).await;
    assert_eq!(end, RunEnd::Completed);
    let evicted = bench.evidence(&run, "up").await.facts["servers"][0]["evicted_keys"].as_u64().unwrap();
    assert!(evicted > 0, "what a limit allows is told all the same");
}

#[tokio::test]
async fn replica_that_has_lost_its_primary_is_behind_every_limit() {
    let mut primary = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    until("the replica follows", || replica.tells(&["INFO", "replication"]).contains("master_link_status:up"));
    let bench = on(&replica);
    let block = one(&format!("{HEALTH}\nrole = \"replica\"\nmax_lag = \"10m\""));
    let (run, end) = bench.run(&block).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&run, "up").await.facts["servers"][0]["master_link_status"], "up");
    primary.stop();
    until("the replica notices", || replica.tells(&["INFO", "replication"]).contains("master_link_status:down"));
    let (_, code, message) = failure(&bench.run(&block).await.1);
    assert_eq!(code, "gate");
    assert!(message.contains("its replication link is down"), "{message}");
}

#[tokio::test]
async fn redis_that_is_down_stops_the_run_only_where_it_is_not_optional() {
    let mut server = Server::start(&[]);
    let bench = on(&server);
    server.stop();
    let (_, code, message) = failure(&bench.run(&one(HEALTH)).await.1);
    assert_eq!(code, "redis-unreachable");
    assert!(message.contains(&format!("127.0.0.1:{}", server.port)), "{message}");
    for block in [HEALTH, "redis-keys = \"up\"\ntarget = \"cache\"\nprefix = \"stg:\""] {
        let (run, end) = bench.run(&one(&format!("{block}\noptional = true"))).await;
        assert_eq!(end, RunEnd::Completed);
        let evidence = bench.evidence(&run, "up").await;
        assert_eq!(evidence.facts["degraded"], true);
        assert!(evidence.summary.starts_with("DEGRADED"), "{}", evidence.summary);
    }
}

#[tokio::test]
async fn limit_that_an_optional_step_breaks_is_recorded_as_degraded() {
    let server = Server::start(&[]);
    let bench = on(&server);
    let (run, end) = bench.run(&one(&format!("{HEALTH}\nrole = \"replica\"\noptional = true"))).await;
    assert_eq!(end, RunEnd::Completed);
    let facts = bench.evidence(&run, "up").await.facts;
    assert_eq!(facts["degraded"], true);
    assert!(facts["faults"][0].as_str().unwrap().contains("it is primary, not replica"), "{facts:?}");
}

#[tokio::test]
async fn password_that_is_wrong_is_no_degradation_and_is_never_told() {
    let server = Server::start(&["--requirepass", "right-w0rd"]);
    let bench = bench(&format!("redis://:wr0ng-w0rd@127.0.0.1:{}", server.port));
    let (_, code, message) = failure(&bench.run(&one(&format!("{HEALTH}\noptional = true"))).await.1);
    assert_eq!(code, "redis-log-in");
    assert!(!message.contains("wr0ng"), "{message}");
}

#[tokio::test]
async fn keys_are_counted_by_a_prefix_taken_literally() {
    let server = Server::start(&[]);
    server.fill("s*g:", 1234);
    server.fill("stg:", 500);
    server.ask(&["SADD", "s*g:set", "a"]);
    server.ask(&["EXPIRE", "s*g:0", "1000"]);
    let bench = on(&server);
    let block = "redis-keys = \"count\"\ntarget = \"cache\"\nprefix = \"s*g:\"\nsample = 5000";
    let (run, end) = bench.run(&one(block)).await;
    assert_eq!(end, RunEnd::Completed);
    let facts = bench.evidence(&run, "count").await.facts;
    assert_eq!((facts["keys"].as_u64(), facts["held"].as_u64()), (Some(1235), Some(1735)));
    assert_eq!(facts["exact"], true);
    assert_eq!(facts["sample"]["types"], serde_json::json!({ "set": 1, "string": 1234 }));
    assert_eq!(facts["sample"]["without_ttl"], 1234);
    assert!(facts["sample"]["bytes_estimated"].as_u64().unwrap() > 1235 * 20);
    assert_eq!(facts["sample"]["names"], serde_json::json!([]), "names are kept only where they are asked for");

    let (_, code, message) = failure(&bench.run(&one(&format!("{block}\nat_most = 1000"))).await.1);
    assert_eq!(code, "gate");
    assert!(message.contains("1235 keys begin with `s*g:`, more than 1000"), "{message}");
}

/// Counts, and is stopped after its first SCAN where that is wanted.
async fn count_and_stop(server: &Server, keep: Keep, stop: bool) -> Result<(u64, u64, bool), RedisFault> {
    let options = RedisOptions::parse(&server.url(), Path::new("/")).unwrap();
    let mut nodes = connect(&options, TIMEOUT).await.unwrap();
    let cancel = Cancel::default();
    if stop {
        cancel.ask();
    }
    let prefix = Prefix::parse("stg:").unwrap();
    let how = How { batch: 10, sample: 0, show: 0, keep: Some(("here", keep)), cancel: &cancel, tell: &|_| {} };
    count(&mut nodes, &prefix, how).await.map(|counted| (counted.keys, counted.calls, counted.resumed))
}

#[tokio::test]
async fn count_that_was_cut_short_goes_on_at_its_cursor_and_anew_after_a_restart() {
    let mut server = Server::start(&[]);
    server.fill("stg:", 5_000);
    let folder = tempfile::tempdir().unwrap();
    let keep = || Keep::at(folder.path(), "count");
    // Each attempt is stopped after its first SCAN.
    for _ in 0..3 {
        let stopped = count_and_stop(&server, keep(), true).await;
        assert!(matches!(stopped, Err(RedisFault::Stopped { .. })), "{stopped:?}");
    }
    let (keys, calls, resumed) = count_and_stop(&server, keep(), false).await.unwrap();
    assert!(resumed && calls > 3, "{calls}");
    assert_eq!(keys, 5_000, "nothing is missed and nothing counted twice");
    let (keys, _, resumed) = count_and_stop(&server, keep(), false).await.unwrap();
    assert_eq!((keys, resumed), (5_000, false), "a walk that is over is forgotten");

    count_and_stop(&server, keep(), true).await.unwrap_err();
    server.restart();
    server.fill("stg:", 5_000);
    let (keys, _, resumed) = count_and_stop(&server, keep(), false).await.unwrap();
    assert_eq!((keys, resumed), (5_000, false), "a cursor means nothing to another process");
}

const DELETE: &str = "redis-delete = \"clear\"\ntarget = \"cache\"\nprefix = \"stg:cache:\"\n\
                      confirm = \"default: delete stg:cache: in cache\"\nundo = \"refill\"";

/// The step, with a block that stands for filling the keys anew.
fn refilled(block: &str) -> String {
    format!("{}\n```toml undo\nsh = \"refill\"\nrun = \"true\"\n```\n", one(block))
}

#[tokio::test]
async fn keys_of_a_prefix_are_deleted_and_no_others() {
    let server = Server::start(&[]);
    server.fill("stg:cache:", 2_500);
    server.fill("stg:session:", 40);
    server.fill("prod:cache:", 30);
    let bench = on(&server);
    let (run, end) = bench.run(&refilled(DELETE)).await;
    assert_eq!(end, RunEnd::Completed);
    let facts = bench.evidence(&run, "clear").await.facts;
    assert_eq!((facts["deleted"].as_u64(), facts["counted_before"].as_u64()), (Some(2_500), Some(2_500)));
    assert_eq!(facts["left_none"], true);
    assert_eq!(server.number(&["DBSIZE"]), 70);
}

#[tokio::test]
async fn nothing_is_deleted_without_the_exact_text_or_above_the_limit() {
    let server = Server::start(&[]);
    server.fill("stg:cache:", 10);
    let bench = on(&server);
    for (block, why) in [
        (DELETE.replace("default: delete", "DELETE"), "default: delete stg:cache: in cache"),
        (format!("{DELETE}\nat_most = 9"), "`at_most` allows"),
    ] {
        let engine = bench.engine().await;
        let plan = engine.plan(&bench.parse(&refilled(&block)), &Default::default()).await.unwrap();
        let error = engine.begin(plan, Purpose::Real).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(server.number(&["DBSIZE"]), 10);
}

#[tokio::test]
async fn redis_that_is_down_stops_a_delete_and_no_runbook_that_has_one_on_a_way_back() {
    let mut server = Server::start(&[]);
    let bench = on(&server);
    server.stop();
    let engine = bench.engine().await;
    let plan = engine.plan(&bench.parse(&refilled(DELETE)), &Default::default()).await.unwrap();
    let error = engine.begin(plan, Purpose::Real).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");

    let block = DELETE.replace("\"refill\"", "\"one-way: it is filled anew\"");
    let text =
        format!("{}\n## Rollback: clear\n\n```toml step\n{block}\n```\n", one(&format!("{HEALTH}\noptional = true")));
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    let end = bench.rollback(&run, "rollback-clear").await;
    assert!(end != RunEnd::RolledBack && format!("{end:?}").contains("cannot be reached"), "{end:?}");
}

#[tokio::test]
async fn prefix_that_is_too_wide_is_refused() {
    let server = Server::start(&[]);
    let bench = on(&server);
    for prefix in ["", "*", "stg:*", "stg", "s:"] {
        let block = DELETE.replace("\"stg:cache:\"", &format!("\"{prefix}\""));
        let engine = bench.engine().await;
        let error = engine.plan(&bench.parse(&refilled(&block)), &Default::default()).await.unwrap_err().to_string();
        assert!(error.contains("Nothing was touched"), "{prefix}: {error}");
    }
}

#[tokio::test]
async fn delete_that_was_refused_half_way_says_how_much_is_gone() {
    let server = Server::start(&["--user", "half", "on", ">half-w0rd", "%R~stg:*", "~stg:cache:1*", "+@all"]);
    server.fill("stg:cache:", 20);
    let bench = bench(&format!("redis://half:half-w0rd@127.0.0.1:{}", server.port));
    let (run, end) = bench.run(&refilled(&format!("{DELETE}\nbatch = 1"))).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "redis-refused");
    assert!(message.contains("`UNLINK` is refused"), "{message}");
    let left = server.number(&["DBSIZE"]);
    assert!((9..=20).contains(&left), "{left}");
    let gone = 20 - left;
    assert!(gone == 0 || message.contains(&format!("{gone} keys are deleted, and stay so")), "{message}");

    // Once it may, a second attempt deletes the rest.
    server.ask(&["ACL", "SETUSER", "half", "~stg:cache:*"]);
    assert_eq!(bench.resume(&run).await, RunEnd::Completed);
    assert_eq!(server.number(&["DBSIZE"]), 0);
    let facts = bench.evidence(&run, "clear").await.facts;
    assert_eq!((facts["deleted"].as_i64(), facts["left_none"].as_bool()), (Some(20), Some(true)));
    assert_eq!((facts["counted_before"].as_i64(), facts["resumed"].as_bool()), (Some(20), Some(true)));
}

/// Deletes `stg:cache:`, and drops the future after so many polls.
async fn delete_and_drop(server: &Server, folder: &Path, counted: u64, polls: u32) -> Option<(u64, Option<u64>, bool)> {
    let options = RedisOptions::parse(&server.url(), Path::new("/")).unwrap();
    let mut nodes = connect(&options, TIMEOUT).await.unwrap();
    let (cancel, prefix) = (Cancel::default(), Prefix::parse("stg:cache:").unwrap());
    let keep = Some(("here", Keep::at(folder, "clear")));
    let how = delete::How { batch: 10, keep, counted: Some(counted), cancel: &cancel, tell: &|_| {} };
    let mut future = std::pin::pin!(delete::delete(&mut nodes, &prefix, how));
    let mut polled = 0;
    let end = std::future::poll_fn(|cx| {
        polled += 1;
        if polled > polls { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }
    });
    end.await.map(|done| {
        let done = done.unwrap();
        (done.keys, done.counted, done.resumed)
    })
}

#[tokio::test]
async fn delete_that_is_dropped_anywhere_goes_on_and_counts_every_key_once() {
    let mut server = Server::start(&[]);
    server.fill("stg:cache:", 1_000);
    server.fill("stg:session:", 40);
    let folder = tempfile::tempdir().unwrap();
    let mut dropped = 0;
    let done = loop {
        // A different number each time: before a batch is sent, while it is on its way, after its answer.
        match delete_and_drop(&server, folder.path(), 1_000, 2 + dropped % 11).await {
            Some(done) => break done,
            None => dropped += 1,
        }
        assert!(dropped < 2_000, "it comes to its end");
    };
    assert!(dropped > 10, "it was dropped {dropped} times only");
    assert_eq!(done, (1_000, Some(1_000), true), "dropped {dropped} times");
    assert_eq!(server.number(&["DBSIZE"]), 40);

    // Another process of the server: the cursor is of no use, and what was deleted before still counts.
    server.fill("stg:cache:", 1_000);
    assert_eq!(delete_and_drop(&server, folder.path(), 1_000, 40).await, None);
    let left = server.number(&["DBSIZE"]) - 40;
    assert!((1..1_000).contains(&left), "{left}");
    server.restart();
    server.fill("stg:cache:", 300);
    let (deleted, counted, resumed) = delete_and_drop(&server, folder.path(), 300, u32::MAX).await.unwrap();
    assert_eq!((counted, resumed), (Some(1_000), true));
    // Of the batch that was under way nobody knows: the server took its keys along.
    assert!(deleted.abs_diff(1_000 - left as u64 + 300) <= 20, "{deleted} deleted, {left} were left");
    assert_eq!(server.number(&["DBSIZE"]), 0);
}

#[tokio::test]
async fn keys_command_is_never_used() {
    let server =
        Server::start(&["--rename-command", "KEYS", "NOBODYS_KEYS", "--rename-command", "FLUSHDB", "NOBODYS_FLUSH"]);
    server.fill("stg:cache:", 100);
    let bench = on(&server);
    let count = "redis-keys = \"count\"\ntarget = \"cache\"\nprefix = \"stg:\"\nsample = 100\nshow = 3";
    let (run, end) = bench.run(&one(count)).await;
    assert_eq!(end, RunEnd::Completed);
    let facts = bench.evidence(&run, "count").await.facts;
    assert_eq!((facts["keys"].as_u64(), facts["sample"]["types"]["string"].as_u64()), (Some(100), Some(100)));
    let (_, end) = bench.run(&refilled(DELETE)).await;
    assert_eq!(end, RunEnd::Completed);
    let mut connection = server.connection();
    let Ok(redis::Value::BulkString(stats)) = ask(&mut connection, &["INFO", "commandstats"]) else { panic!() };
    let stats = String::from_utf8(stats).unwrap();
    assert!(stats.contains("cmdstat_scan") && stats.contains("cmdstat_unlink"), "{stats}");
    assert!(!stats.contains("cmdstat_del:") && !stats.contains("cmdstat_keys:"), "{stats}");
}
