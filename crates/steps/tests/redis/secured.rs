//! TLS and passwords: of a server alone, of a cluster, of Sentinels and those whom they watch.

use std::path::Path;

use pgrunbook_engine::{Cancel, RunEnd};
use pgrunbook_steps::redis::keys::{How, count};
use pgrunbook_steps::redis::{Nodes, Prefix, RedisFault, RedisOptions, TIMEOUT, connect, delete};

use super::places::{joined, spread};
use super::server::{Certificates, Server, port, until};
use super::{bench, one};
use crate::bench::failure;

async fn reached(url: &str) -> Result<Nodes, RedisFault> {
    connect(&RedisOptions::parse(url, Path::new("/")).unwrap(), TIMEOUT).await
}

/// Why nobody is reached.
async fn refused(url: &str) -> RedisFault {
    let fault = reached(url).await.err().expect("nobody should be reached");
    let text = fault.to_string();
    assert!(!text.contains("w0rd"), "{text}");
    fault
}

const HEALTH: &str = "redis-health = \"up\"\ntarget = \"cache\"\nrole = \"primary\"";

#[tokio::test]
async fn tls_is_spoken_and_its_certificate_checked() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let (ca, other_ca) = (certificates.file("ca.pem"), others.file("ca.pem"));
    // Once with any client, once only with one that shows a certificate.
    for clients in ["no", "yes"] {
        let server = Server::tls(&certificates, &["--tls-auth-clients", clients]);
        let port = server.tls_port.unwrap();
        let shown = |by: &Certificates| format!("&cert={}&key={}", by.file("cert.pem"), by.file("key.pem"));
        let own = if clients == "yes" { shown(&certificates) } else { String::new() };
        for host in ["localhost", "127.0.0.1"] {
            let trusting = bench(&format!("rediss://{host}:{port}/0?ca={ca}{own}"));
            let (run, end) = trusting.run(&one(HEALTH)).await;
            assert_eq!(end, RunEnd::Completed, "{clients}: {run}");
        }
        // Nobody vouches for that certificate; another authority does not. That is no server that is down, which a step may go without.
        for ca in [String::new(), format!("ca={other_ca}")] {
            let doubting = bench(&format!("rediss://localhost:{port}/0?{ca}{own}"));
            let (_, code, message) = failure(&doubting.run(&one(&format!("{HEALTH}\noptional = true"))).await.1);
            assert_eq!(code, "redis-tls", "{ca}: {message}");
        }
        if clients == "yes" {
            // What the server says of it may be lost with the connection.
            for strange in [String::new(), shown(&others)] {
                let fault = refused(&format!("rediss://localhost:{port}/0?ca={ca}{strange}")).await;
                assert!(matches!(fault, RedisFault::Tls { .. } | RedisFault::Unreachable { .. }), "{fault}");
            }
        }
    }
}

#[tokio::test]
async fn certificate_of_another_host_is_refused() {
    let certificates = Certificates::of("DNS:elsewhere.example");
    let server = Server::tls(&certificates, &["--tls-auth-clients", "no"]);
    let port = server.tls_port.unwrap();
    for host in ["localhost", "127.0.0.1"] {
        let fault = refused(&format!("rediss://{host}:{port}/0?ca={}", certificates.file("ca.pem"))).await;
        assert!(matches!(fault, RedisFault::Tls { .. }), "{fault}");
    }
}

#[tokio::test]
async fn cluster_behind_tls_and_a_password_is_counted_and_deleted_from() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let args = [
        "--tls-auth-clients",
        "no",
        "--tls-cluster",
        "yes",
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--requirepass",
        "cluster-w0rd",
    ];
    let nodes = joined((0..3).map(|_| Server::tls(&certificates, &args)).collect());
    spread(&nodes, "stg:", 150);
    spread(&nodes, "prod:", 30);
    let seed = nodes[1].tls_port.unwrap();
    let url =
        |password: &str, by: &Certificates| format!("rediss://:{password}@127.0.0.1:{seed}/0?ca={}", by.file("ca.pem"));
    let mut found = reached(&url("cluster-w0rd", &certificates)).await.unwrap();
    assert_eq!((found.primaries.len(), found.is_cluster), (3, true));
    // The ports that answer with TLS, and no others.
    let mut at: Vec<String> = found.primaries.iter().map(|node| node.address.clone()).collect();
    let mut wanted: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.tls_port.unwrap())).collect();
    at.sort();
    wanted.sort();
    assert_eq!(at, wanted);
    let (cancel, prefix) = (Cancel::default(), Prefix::parse("stg:").unwrap());
    let how = How { batch: 100, sample: 10, show: 0, keep: None, cancel: &cancel, tell: &|_| {} };
    let counted = count(&mut found, &prefix, how).await.unwrap();
    assert_eq!((counted.keys, counted.held, counted.nodes), (150, Some(180), 3));
    let how = delete::How { batch: 100, keep: None, counted: None, cancel: &cancel, tell: &|_| {} };
    let deleted = delete::delete(&mut found, &prefix, how).await.unwrap();
    assert_eq!((deleted.keys, deleted.is_written), (150, false));
    assert_eq!(nodes.iter().map(|node| node.number(&["DBSIZE"])).sum::<i64>(), 30);

    let fault = refused(&url("wr0ng-w0rd", &certificates)).await;
    assert!(matches!(fault, RedisFault::LogIn { .. }), "{fault}");
    let fault = refused(&url("cluster-w0rd", &others)).await;
    assert!(matches!(fault, RedisFault::Tls { .. }), "{fault}");
    let fault = refused(&format!("rediss://127.0.0.1:{seed}/0?ca={}", certificates.file("ca.pem"))).await;
    assert!(matches!(fault, RedisFault::LogIn { .. }), "{fault}");
}

#[tokio::test]
async fn sentinels_behind_tls_have_a_password_of_their_own() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let common = [
        "--tls-auth-clients",
        "no",
        "--tls-replication",
        "yes",
        "--requirepass",
        "main-w0rd",
        "--masterauth",
        "main-w0rd",
    ];
    let mut primary = Server::tls(&certificates, &common);
    let primary_port = primary.tls_port.unwrap();
    let behind = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary_port.to_string()];
    let replica_args: Vec<&str> = common.into_iter().chain(behind.iter().map(String::as_str)).collect();
    let replica = Server::tls(&certificates, &replica_args);
    let replica_port = replica.tls_port.unwrap();
    until("the replica follows", || format!("{:?}", primary.ask(&["INFO", "replication"])).contains("state=online"));

    let (plain, at) = (port(), port());
    let files: String = certificates.options().iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    let _sentinel = Server::sentinel_at(
        plain,
        &format!(
            "tls-port {at}\ntls-auth-clients no\ntls-replication yes\n{files}requirepass sentinel-w0rd\n\
             sentinel monitor main 127.0.0.1 {primary_port} 1\nsentinel auth-pass main main-w0rd\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        ),
    );
    let url = |main: &str, own: &str, by: &Certificates| {
        format!("rediss-sentinel://:{main}@127.0.0.1:{at}/main/0?ca={}{own}", by.file("ca.pem"))
    };
    let own = "&sentinel_password=sentinel-w0rd";
    let found = reached(&url("main-w0rd", own, &certificates)).await.unwrap();
    assert_eq!(found.primaries[0].address, format!("127.0.0.1:{primary_port}"));

    // Each by its own password: neither stands for the other, and a Sentinel that lets nobody in is none that is down.
    for (main, own, who) in [
        ("wr0ng-w0rd", own, primary_port),
        ("sentinel-w0rd", own, primary_port),
        ("main-w0rd", "&sentinel_password=main-w0rd", at),
        ("main-w0rd", "", at),
    ] {
        match refused(&url(main, own, &certificates)).await {
            RedisFault::LogIn { at, .. } => assert_eq!(at, format!("127.0.0.1:{who}")),
            other => panic!("{main} {own}: {other}"),
        }
    }
    let optional = one(&format!("{HEALTH}\noptional = true"));
    let (_, code, message) = failure(&bench(&url("main-w0rd", "", &certificates)).run(&optional).await.1);
    assert_eq!(code, "redis-log-in", "{message}");
    let fault = refused(&url("main-w0rd", own, &others)).await;
    assert!(matches!(&fault, RedisFault::Tls { at: told, .. } if *told == format!("127.0.0.1:{at}")), "{fault}");

    // After a failover the new primary is reached, by its TLS port.
    let sentinel = redis::Client::open(format!("redis://:sentinel-w0rd@127.0.0.1:{plain}/0")).unwrap();
    until("the Sentinel knows the replica", || {
        let mut connection = sentinel.get_connection().unwrap();
        let known = super::server::ask(&mut connection, &["SENTINEL", "REPLICAS", "main"]).unwrap();
        format!("{known:?}").contains(&replica_port.to_string())
    });
    primary.stop();
    until("the replica is the primary", || replica.tells(&["ROLE"]).contains("master"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let now = loop {
        match reached(&url("main-w0rd", own, &certificates)).await {
            Ok(found) => break found,
            Err(fault) => assert!(std::time::Instant::now() < deadline, "the Sentinel names the new primary: {fault}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(now.primaries[0].address, format!("127.0.0.1:{replica_port}"));
}
