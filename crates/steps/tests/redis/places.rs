//! Where a Redis can be: a cluster, behind Sentinels, and its replicas.

use std::path::Path;

use pgrunbook_engine::{Cancel, RunEnd};
use pgrunbook_steps::redis::access::{load, plan};
use pgrunbook_steps::redis::keys::{How, count};
use pgrunbook_steps::redis::{Prefix, RedisFault, RedisOptions, Role, TIMEOUT, connect, delete};

use super::server::{Server, ask, until};
use super::{bench, one};

fn options(url: &str) -> RedisOptions {
    RedisOptions::parse(url, Path::new("/")).unwrap()
}

/// Three primaries that serve all slots.
fn cluster() -> Vec<Server> {
    let start = |_| Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]);
    joined((0..3).map(start).collect())
}

/// Three servers that become a cluster.
pub fn joined(nodes: Vec<Server>) -> Vec<Server> {
    let ends = [(0, 5460), (5461, 10922), (10923, 16383)];
    let first_port = nodes[0].tls_port.unwrap_or(nodes[0].port).to_string();
    for (node, (first, last)) in nodes.iter().zip(ends) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        node.ask(&["CLUSTER", "MEET", "127.0.0.1", &first_port]);
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
pub fn spread(nodes: &[Server], prefix: &str, number: usize) {
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
    until("the replica is the primary", || replica.tells(&["ROLE"]).contains("master"));
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
