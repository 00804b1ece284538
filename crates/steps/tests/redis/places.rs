//! Where a Redis can be: a cluster, behind Sentinels, behind TLS, and its replicas.

use std::path::Path;
use std::process::Command;

use pgrunbook_engine::{Cancel, RunEnd};
use pgrunbook_steps::redis::access::{load, plan};
use pgrunbook_steps::redis::keys::{How, count};
use pgrunbook_steps::redis::{Prefix, RedisFault, RedisOptions, Role, TIMEOUT, connect, delete};

use super::server::{Server, ask, until};
use super::{bench, one};
use crate::bench::failure;

fn options(url: &str) -> RedisOptions {
    RedisOptions::parse(url, Path::new("/")).unwrap()
}

/// Three primaries that serve all slots.
fn cluster() -> Vec<Server> {
    let start = |_| Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]);
    let nodes: Vec<Server> = (0..3).map(start).collect();
    let ends = [(0, 5460), (5461, 10922), (10923, 16383)];
    for (node, (first, last)) in nodes.iter().zip(ends) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        node.ask(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
    }
    for node in &nodes {
        until("the cluster is whole", || {
            let info = format!("{:?}", node.ask(&["CLUSTER", "INFO"]));
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    nodes
}

/// Sets keys wherever their slot is.
fn spread(nodes: &[Server], prefix: &str, number: usize) {
    let mut connections: Vec<_> = nodes.iter().map(Server::connection).collect();
    for number in 0..number {
        let key = format!("{prefix}{number}");
        let done = connections.iter_mut().map(|one| ask(one, &["SET", &key, "x"])).filter(Result::is_ok).count();
        assert_eq!(done, 1, "{key} has one place");
    }
}

#[tokio::test]
async fn all_primaries_of_a_cluster_are_counted_and_deleted_from() {
    let mut nodes = cluster();
    spread(&nodes, "stg:", 300);
    spread(&nodes, "prod:", 30);
    // The first host does not answer; any other tells of all.
    let url = format!("redis://127.0.0.1:1,127.0.0.1:{}", nodes[2].port);
    let mut found = connect(&options(&url), TIMEOUT).await.unwrap();
    assert_eq!((found.primaries.len(), found.is_cluster), (3, true));
    let (cancel, prefix) = (Cancel::default(), Prefix::parse("stg:").unwrap());
    let how = || How { batch: 100, sample: 10, show: 0, keep: None, cancel: &cancel, tell: &|_| {} };
    let counted = count(&mut found, &prefix, how()).await.unwrap();
    assert_eq!((counted.keys, counted.held, counted.nodes), (300, Some(330), 3));
    let how = delete::How { batch: 100, keep: None, counted: None, cancel: &cancel, tell: &|_| {} };
    let deleted = delete::delete(&mut found, &prefix, how).await.unwrap();
    assert_eq!((deleted.keys, deleted.is_written), (300, false));
    let left: i64 = nodes.iter().map(|node| node.number(&["DBSIZE"])).sum();
    assert_eq!(left, 30);

    nodes[0].stop();
    until("the others see that it is gone", || {
        format!("{:?}", nodes[2].ask(&["CLUSTER", "INFO"])).contains("cluster_state:fail")
    });
    let fault = connect(&options(&url), TIMEOUT).await.err().unwrap();
    assert!(matches!(fault, RedisFault::NotWhole { .. }), "a part is not counted as the whole: {fault}");
}

#[tokio::test]
async fn rules_are_planned_for_every_server_of_a_cluster() {
    let nodes = cluster();
    let bench = bench(&format!("redis://127.0.0.1:{}", nodes[0].port));
    bench.write("topology.toml", "[redis.users.app]\npassword = \"env:CACHE_URL\"\nprefixes = [\"stg:\"]\n");
    let text = one("topology = \"users\"\ntarget = \"cache\"\nundo = \"auto\"");
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&run, "users").await.facts["rules"].as_array().unwrap().len(), 3);
    for node in &nodes {
        assert!(format!("{:?}", node.ask(&["ACL", "LIST"])).contains("app"));
    }
}

#[tokio::test]
async fn rules_are_planned_for_replicas_too() {
    let primary = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    until("the replica follows", || format!("{:?}", primary.ask(&["INFO", "replication"])).contains("state=online"));
    let bench = bench(&primary.url());
    bench.write("topology.toml", "[redis.users.app]\npassword = \"env:CACHE_URL\"\nprefixes = [\"stg:\"]\n");
    let workplace = bench.workplace().await;
    let password = |reference: &pgrunbook_steps::secret::Reference| workplace.secret(reference);
    let access = load(bench.folder.path()).unwrap();
    let plan = plan(&options(&primary.url()), &access, &password, TIMEOUT).await.unwrap();
    let at: Vec<&str> = plan.orders.iter().map(|order| order.at.as_str()).collect();
    assert_eq!(at, [format!("127.0.0.1:{}", primary.port), format!("127.0.0.1:{}", replica.port)]);

    let health = "redis-health = \"up\"\ntarget = \"cache\"\nmin_replicas = 1\nmax_lag = \"60s\"";
    assert_eq!(bench.run(&one(health)).await.1, RunEnd::Completed);
}

#[tokio::test]
async fn sentinels_lead_to_the_primary_of_the_moment() {
    let mut primary = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    until("the replica follows", || format!("{:?}", primary.ask(&["INFO", "replication"])).contains("state=online"));
    let sentinel = Server::sentinel(&format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n",
        primary.port
    ));
    let url = format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{}/main/0", sentinel.port);
    let found = connect(&options(&url), TIMEOUT).await.unwrap();
    assert_eq!(found.primaries[0].address, format!("127.0.0.1:{}", primary.port));
    until("the Sentinel knows the replica", || {
        format!("{:?}", sentinel.ask(&["SENTINEL", "REPLICAS", "main"])).contains(&replica.port.to_string())
    });
    primary.stop();
    until("the replica is the primary", || format!("{:?}", replica.ask(&["ROLE"])).contains("master"));
    let mut now = None;
    for _ in 0..600 {
        match connect(&options(&url), TIMEOUT).await {
            Ok(found) => {
                now = Some(found);
                break;
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
    let now = now.expect("the Sentinel names the new primary");
    assert_eq!(now.primaries[0].address, format!("127.0.0.1:{}", replica.port));
    assert_eq!(now.primaries[0].info.role(), Some(Role::Primary));

    let wrong = url.replace("/main/", "/other/");
    let fault = connect(&options(&wrong), TIMEOUT).await.err().unwrap();
    assert!(matches!(fault, RedisFault::NoPrimary { .. }), "{fault}");
}

/// A certificate of `localhost` and 127.0.0.1, signed by an authority of its own.
fn certificates(folder: &Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=test-ca &&
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out csr.pem -subj /CN=localhost &&
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext &&
        openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem";
    let made = Command::new("sh").arg("-c").arg(script).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn tls_is_spoken_and_its_certificate_checked() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let port = super::server::port();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (port_text, cert, key, ca) = (port.to_string(), file("cert.pem"), file("key.pem"), file("ca.pem"));
    let ports = [
        "--port",
        "0",
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
    ];
    let health = one("redis-health = \"up\"\ntarget = \"cache\"\nrole = \"primary\"");
    // Once with any client, once only with one that shows a certificate.
    for clients in ["no", "yes"] {
        let _server = Server::with(port, &ports, &["--tls-auth-clients", clients]);
        let shown = if clients == "yes" { format!("&cert={cert}&key={key}") } else { String::new() };
        let trusting = bench(&format!("rediss://localhost:{port}/0?ca={ca}{shown}"));
        let (run, end) = trusting.run(&health).await;
        assert_eq!(end, RunEnd::Completed, "{clients}: {run}");
        let doubting = bench(&format!("rediss://localhost:{port}/0"));
        let (_, code, _) = failure(&doubting.run(&health).await.1);
        assert_eq!(code, "redis-unreachable", "nobody vouches for that certificate");
    }
}
