//! Redis: steps on throwaway servers, one alone, a cluster, behind a Sentinel, and behind TLS.

mod access;
mod places;
mod secured;
mod server;
mod steps;

use pgrunbook_postgres::{ConnectOptions, ConnectSpec};

use crate::bench::Bench;
use server::Server;

/// A project with a Redis target `cache`; its PostgreSQL is never reached.
fn bench(url: &str) -> Bench {
    let env = |_: &str| None;
    let around = pgrunbook_postgres::Surroundings { env: &env, home: None, user: None };
    let text = "postgres://anna@127.0.0.1:1/none".to_owned();
    let spec = ConnectSpec::Given { text, origin: "a test".to_owned() };
    let mut bench = Bench::on(ConnectOptions::resolve(&spec, &around).unwrap());
    bench.config("[targets.cache]\nredis = \"env:CACHE_URL\"\n");
    bench.env.push(("CACHE_URL".to_owned(), url.to_owned()));
    bench
}

fn on(server: &Server) -> Bench {
    bench(&server.url())
}

fn one(block: &str) -> String {
    format!("# One\n\n## Phase\n\n```toml step\n{block}\n```\n")
}
