//! Users and their rules: declared, made so, tried, taken back.

use std::collections::BTreeSet;

use pgrunbook_engine::RunEnd;
use pgrunbook_steps::redis::access::{load, plan};
use pgrunbook_steps::redis::prove::{Verdict, prove};
use pgrunbook_steps::redis::{Prefix, RedisOptions, TIMEOUT, subjects};
use pgrunbook_steps::secret::Reference;

use super::server::{Older, Server};
use super::{bench, on, one};
use crate::bench::{Bench, failure};

const DECLARED: &str = r#"
[redis]
default_user = "off"
[redis.users.app_stg]
password = "env:STG"
prefixes = ["stg:"]
reads = ["shared:"]
[redis.users.app_prod]
password = "env:PROD"
prefixes = ["prod:"]
"#;

const APPLY: &str = "topology = \"users\"\ntarget = \"cache\"\nundo = \"auto\"";
const PROVE: &str = "isolation = \"apart\"\ntarget = \"cache\"";

/// A server with an administrator of its own, and a project that declares two users.
fn declared(more: &[&str]) -> (Server, Bench) {
    let mut args = vec!["--user", "admin", "on", ">admin-w0rd", "~*", "&*", "+@all"];
    args.extend(more);
    let server = Server::start(&args);
    let bench = as_admin(&server);
    (server, bench)
}

fn as_admin(server: &Server) -> Bench {
    let mut bench = bench(&format!("redis://admin:admin-w0rd@127.0.0.1:{}/0", server.port));
    bench.env.push(("STG".to_owned(), "stg-w0rd-of-this-test".to_owned()));
    bench.env.push(("PROD".to_owned(), "prod-w0rd-of-this-test".to_owned()));
    bench.write("topology.toml", DECLARED);
    bench
}

fn admin(server: &Server) -> RedisOptions {
    RedisOptions::parse(&format!("redis://admin:admin-w0rd@127.0.0.1:{}/0", server.port), std::path::Path::new("/"))
        .unwrap()
}

fn rules(server: &Server) -> Vec<String> {
    let client = redis::Client::open(format!("redis://admin:admin-w0rd@127.0.0.1:{}/0", server.port)).unwrap();
    redis::cmd("ACL").arg("LIST").query(&mut client.get_connection().unwrap()).unwrap()
}

async fn orders(bench: &Bench, server: &Server) -> Vec<String> {
    let workplace = bench.workplace().await;
    let password = |reference: &Reference| workplace.secret(reference);
    let plan = plan(&admin(server), &load(bench.folder.path()).unwrap(), &password, TIMEOUT).await.unwrap();
    plan.orders.iter().map(|order| format!("{}: {}", order.user, order.why)).collect()
}

#[tokio::test]
async fn declared_users_are_made_proved_and_taken_back() {
    let (server, bench) = declared(&[]);
    let before = rules(&server);
    let size = || {
        let client = redis::Client::open(format!("redis://admin:admin-w0rd@127.0.0.1:{}/0", server.port)).unwrap();
        redis::cmd("DBSIZE").query::<i64>(&mut client.get_connection().unwrap()).unwrap()
    };
    let text = format!("{}\n```toml step\n{PROVE}\n```\n", one(APPLY));
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed, "{:?}", bench.evidence(&run, "apart").await);
    let proof = bench.evidence(&run, "apart").await;
    assert_eq!(proof.facts["proved"], true, "{:?}", proof.facts["findings"]);
    assert!(proof.facts["matrix"]["rows"].as_array().unwrap().len() == 3, "two users, and whoever does not log in");
    assert_eq!(size(), 0, "no key is left of what was tried");
    assert_eq!(orders(&bench, &server).await, [] as [&str; 0], "a second plan is empty");

    let journal = std::fs::read(bench.path(".pgrunbook/journal.db")).unwrap();
    let text = String::from_utf8_lossy(&journal);
    assert!(!text.contains("w0rd-of-this-test"), "no password is recorded");
    assert!(!text.contains("d677925dbfc1f352") && text.contains("#<env:STG>"), "nor its hash");
    let end = bench.rollback(&run, pgrunbook_engine::UNDO).await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(rules(&server), before);
}

#[tokio::test]
async fn rules_are_saved_where_there_is_a_file_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    std::fs::write(&file, "user default off\nuser admin on >admin-w0rd ~* &* +@all\n").unwrap();
    let mut server = Server::start(&["--aclfile", file.to_str().unwrap()]);
    let bench = as_admin(&server);
    let (run, end) = bench.run(&one(APPLY)).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "users").await;
    assert!(evidence.summary.contains("saved on 1 servers"), "{}", evidence.summary);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("user app_stg") && !text.contains("stg-w0rd"), "{text}");
    server.restart();
    assert_eq!(orders(&bench, &server).await, [] as [&str; 0]);
}

#[tokio::test]
async fn what_differs_is_named() {
    let (server, bench) = declared(&[]);
    assert_eq!(bench.run(&one(APPLY)).await.1, RunEnd::Completed);
    let client = redis::Client::open(format!("redis://admin:admin-w0rd@127.0.0.1:{}/0", server.port)).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut change = |words: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("app_stg").arg(words);
        command.query::<()>(&mut connection).unwrap();
    };
    for (words, said) in [
        (&["+scan", "-get"][..], "it may also scan; it may not get"),
        (&["~prod:x*"], "its keys are %R~shared:* ~prod:x* ~stg:*"),
        (&["allchannels"], "its channels are &*"),
        (&["nopass"], "it needs no password"),
        (&["off"], "it is off"),
        (&[">another"], "its password is another"),
    ] {
        change(words);
        let found = orders(&bench, &server).await.join("\n");
        assert!(found.contains(said), "{words:?}: {found}");
        assert_eq!(bench.run(&one(APPLY)).await.1, RunEnd::Completed);
    }
    assert_eq!(orders(&bench, &server).await, [] as [&str; 0]);
}

#[tokio::test]
async fn own_rule_and_the_own_default_user_are_not_changed() {
    let server = Server::start(&[]);
    let mut bench = on(&server);
    bench.env.push(("STG".to_owned(), "stg-w0rd-of-this-test".to_owned()));
    bench.env.push(("PROD".to_owned(), "prod-w0rd-of-this-test".to_owned()));
    bench.write("topology.toml", DECLARED);
    let engine = bench.engine().await;
    let error = engine.plan(&bench.parse(&one(APPLY)), &Default::default()).await.unwrap_err().to_string();
    assert!(error.contains("connects to") && error.contains("default user"), "{error}");
}

/// What leaks when a user may more than was declared: verdicts by what was tried.
async fn leaks(widened: &[&str]) -> Vec<String> {
    let (server, bench) = declared(&[]);
    assert_eq!(bench.run(&one(APPLY)).await.1, RunEnd::Completed);
    let client = redis::Client::open(format!("redis://admin:admin-w0rd@127.0.0.1:{}/0", server.port)).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd("ACL").arg("SETUSER").arg("app_stg").arg(widened).query::<()>(&mut connection).unwrap();
    redis::cmd("SET").arg("prod:secret").arg("x").query::<()>(&mut connection).unwrap();
    let subjects = subjects(&load(bench.folder.path()).unwrap(), &bench.workplace().await);
    let proof = prove(&admin(&server), &subjects, &[], "nobodys-key", TIMEOUT).await.unwrap();
    assert!(proof.of(Verdict::Leaked).all(|leak| leak.user == "app_stg"), "{:?}", proof.findings());
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(keys, ["prod:secret"], "what was tried did no harm, and left nothing");
    proof.of(Verdict::Leaked).map(|leak| format!("{} on {}", leak.what, leak.on)).collect()
}

#[tokio::test]
async fn key_pattern_that_is_too_wide_leaks() {
    let leaks = leaks(&["~*"]).await;
    for what in ["GET", "SET", "DEL", "MGET, second key", "RENAME into", "XREAD", "COPY from"] {
        assert!(leaks.contains(&format!("{what} on prod:")), "{what}: {leaks:?}");
    }
    assert!(!leaks.iter().any(|leak| leak.starts_with("SCAN") || leak.starts_with("SUBSCRIBE")), "{leaks:?}");
}

#[tokio::test]
async fn commands_that_name_no_key_leak_past_every_pattern() {
    assert_eq!(leaks(&["+scan"]).await, ["SCAN on names of all keys"]);
    assert_eq!(leaks(&["+keys", "+randomkey"]).await, ["RANDOMKEY on names of all keys", "KEYS on names of all keys"]);
    assert_eq!(leaks(&["+client|tracking"]).await, ["CLIENT TRACKING ON BCAST on names of all keys"]);
    let flush = leaks(&["+flushall", "+monitor"]).await;
    assert_eq!(flush, ["MONITOR on commands of all", "FLUSHALL on every key"], "and nothing was flushed");
}

#[tokio::test]
async fn channel_that_is_too_wide_leaks() {
    let leaks = leaks(&["allchannels"]).await;
    for what in ["PUBLISH", "SUBSCRIBE", "PSUBSCRIBE"] {
        assert!(leaks.contains(&format!("{what} on prod:")), "{what}: {leaks:?}");
    }
    assert!(!leaks.iter().any(|leak| leak.starts_with("GET")), "{leaks:?}");
}

#[tokio::test]
async fn scripts_do_not_widen_what_a_user_reaches() {
    assert_eq!(leaks(&["+@scripting"]).await, [] as [&str; 0]);
}

#[tokio::test]
async fn scan_that_is_declared_is_told_as_such_and_does_not_fail() {
    let (_server, bench) = declared(&[]);
    bench.write(
        "topology.toml",
        &DECLARED.replace("reads = [\"shared:\"]", "may = [\"scan\"]\nwhy = \"it lists sessions\""),
    );
    let text = format!("{}\n```toml step\n{PROVE}\n```\n", one(APPLY));
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "apart").await;
    assert!(evidence.summary.contains("1 open as declared"), "{}", evidence.summary);
}

#[tokio::test]
async fn without_rules_the_prefix_is_kept_from_nobody_and_the_step_says_so() {
    let (_server, bench) = declared(&[]);
    bench.write("topology.toml", &DECLARED.replace("default_user = \"off\"\n", ""));
    let (_, code, message) = failure(&bench.run(&format!("{}\n```toml step\n{PROVE}\n```\n", one(APPLY))).await.1);
    assert_eq!(code, "isolation");
    assert!(message.contains("leaked: anybody, GET without logging in on prod:"), "{message}");
}

#[tokio::test]
async fn server_that_is_too_old_for_rules_is_told_so_and_asked_for_nothing_else() {
    let older = Older::start("5.0.14");
    let mut bench = bench(&format!("redis://127.0.0.1:{}", older.port));
    bench.env.push(("STG".to_owned(), "stg-w0rd-of-this-test".to_owned()));
    bench.env.push(("PROD".to_owned(), "prod-w0rd-of-this-test".to_owned()));
    bench.write("topology.toml", DECLARED);
    let at = format!("127.0.0.1:{}", older.port);
    let (run, end) = bench.run(&one(PROVE)).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "isolation");
    let convention = "is Redis 5.0.14, which knows no access rules (6.0): a prefix is only a convention there";
    assert_eq!(message, format!("{at} {convention}"));
    let proof = bench.evidence(&run, "apart").await;
    assert_eq!(proof.facts["proved"], false);
    assert_eq!(proof.summary, format!("nothing is proved: {at} {convention}"));

    let refused = async |bench: &Bench| {
        let engine = bench.engine().await;
        let error = engine.plan(&bench.parse(&one(APPLY)), &Default::default()).await.unwrap_err();
        format!("{error} {error:?}")
    };
    let why = format!(
        "{at} is Redis 5.0.14, and keeping prefixes apart by access rules needs 6.2 or newer. Nothing was touched."
    );
    let told = refused(&bench).await;
    assert!(told.contains(&why) && told.contains("redis-too-old"), "{told}");
    assert_eq!(*older.asked.lock().unwrap(), BTreeSet::from(["INFO".to_owned()]), "no user logs in, and none is made");

    // Keys that may only be read came later.
    let newer = Older::start("6.2.14");
    bench.env.retain(|(name, _)| name != "CACHE_URL");
    bench.env.push(("CACHE_URL".to_owned(), format!("redis://127.0.0.1:{}", newer.port)));
    let told = refused(&bench).await;
    assert!(told.contains("is Redis 6.2.14, and `reads` needs 7.0 or newer"), "{told}");
    assert_eq!(*newer.asked.lock().unwrap(), BTreeSet::from(["INFO".to_owned()]));
}

#[tokio::test]
async fn user_that_is_not_there_is_broken_and_one_without_a_password_inconclusive() {
    let (server, mut bench) = declared(&[]);
    server.ask(&["ACL", "SETUSER", "default", "off"]);
    let (_, code, message) = failure(&bench.run(&one(PROVE)).await.1);
    assert_eq!(code, "isolation");
    assert!(message.contains("broken: app_prod, log in"), "{message}");
    bench.env.retain(|(name, _)| name != "STG");
    let (_, _, message) = failure(&bench.run(&one(PROVE)).await.1);
    assert!(message.contains("inconclusive: app_stg, log in"), "{message}");
}

#[tokio::test]
async fn credential_of_the_target_itself_is_tried_against_another_prefix() {
    let server = Server::start(&[]);
    let subject = pgrunbook_steps::redis::prove::Subject {
        user: "default".to_owned(),
        password: Some("any".to_owned()),
        prefixes: vec![Prefix::parse("stg:").unwrap()],
        reads: Vec::new(),
        may: Vec::new(),
    };
    let options = RedisOptions::parse(&server.url(), std::path::Path::new("/")).unwrap();
    let other = [Prefix::parse("prod:").unwrap()];
    let proof = prove(&options, &[subject], &other, "nobodys-key", TIMEOUT).await.unwrap();
    assert!(!proof.is_kept());
    let leaked: Vec<_> =
        proof.of(Verdict::Leaked).filter(|one| one.on == "prod:").map(|one| one.what.as_str()).collect();
    assert!(leaked.contains(&"GET") && leaked.contains(&"GET without logging in"), "{leaked:?}");
}
