//! `redis` on a throwaway server.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgrunbook_postgres::{ConnectOptions, ConnectSpec, Surroundings};
use serde_json::Value;

use crate::crash::each;
use crate::place::Place;

pub struct Server {
    port: u16,
    child: Child,
}

impl Server {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            // Whoever walked all keys at once would find no such command.
            .args(["--rename-command", "KEYS", "NOBODYS_KEYS"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: scripts/need redis-server");
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the server takes connections");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Self { port, child }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A project with it; its PostgreSQL is never reached.
    fn project(&self, more: &str) -> Place {
        let env = |_: &str| None;
        let spec = ConnectSpec::Given { text: "postgres://anna@127.0.0.1:1/x".to_owned(), origin: "a test".to_owned() };
        let around = Surroundings { env: &env, home: None, user: None };
        let place = Place::on(ConnectOptions::resolve(&spec, &around).unwrap());
        let url = format!("[targets.cache]\nurl = \"redis://127.0.0.1:{}\"\n{more}", self.port);
        place.write("pgrunbook.toml", &url);
        place
    }

    /// `SET` of keys, in the server's inline form.
    fn fill(&self, prefix: &str, count: usize) {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let text: String = (0..count).map(|number| format!("SET {prefix}{number} x\r\n")).collect();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answers = BufReader::new(stream).lines().take(count).map(Result::unwrap);
        assert!(answers.all(|answer| answer == "+OK"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn keys_are_counted_and_deleted_only_by_the_exact_text() {
    let server = Server::start();
    let place = server.project("");
    server.fill("stg:cache:", 250);
    server.fill("prod:", 10);
    let said = place.call(&["redis", "keys", "stg:", "--show", "2", "--format", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let value = json(&said.out);
    assert_eq!((value["keys"].as_u64(), value["held"].as_u64()), (Some(250), Some(260)));
    assert_eq!(value["sample"]["names"].as_array().unwrap().len(), 2);

    let refused = place.call(&["redis", "delete", "stg:cache:"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.err.contains("deletes 250 keys")
            && refused.err.contains("--confirm 'default: delete stg:cache: in cache'"),
        "{refused:?}"
    );
    let wide = place.call(&["redis", "delete", "stg"]);
    assert!(wide.err.contains("does not end with `:`"), "{wide:?}");
    let done = place.call(&["redis", "delete", "stg:cache:", "--confirm", "default: delete stg:cache: in cache"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("250 keys"), "{done:?}");
    assert_eq!(json(&place.call(&["redis", "keys", "stg:", "--format", "json"]).out)["keys"], 0);
    assert_eq!(json(&place.call(&["redis", "keys", "prod:", "--format", "json"]).out)["keys"], 10);
}

const CLEAR: &str = "# Clear

## Phase

```toml step
redis-delete = \"clear\"
target = \"cache\"
prefix = \"stg:cache:\"
confirm = \"default: delete stg:cache: in cache\"
batch = 10
undo = \"refill\"
```

```toml undo
sh = \"refill\"
run = \"true\"
```
";

/// A server with 400 keys to delete and 70 to leave, and a project that deletes them.
fn to_clear() -> (Server, Place) {
    let server = Server::start();
    for (prefix, count) in [("stg:cache:", 400), ("stg:cache2:", 10), ("stg:session:", 30), ("prod:cache:", 30)] {
        server.fill(prefix, count);
    }
    let place = server.project("");
    place.write("RUNBOOK.md", CLEAR);
    (server, place)
}

#[test]
fn delete_that_is_killed_at_any_batch_deletes_the_rest_and_counts_every_key_once() {
    let (_server, undisturbed) = to_clear();
    undisturbed.points(&["run", "RUNBOOK.md"]).0.done();
    let trace = undisturbed.read("trace");
    let effects: Vec<usize> =
        (1..).zip(trace.lines()).filter(|(_, name)| name.ends_with("Effect")).map(|at| at.0).collect();
    assert!(effects.len() > 40, "before and after each batch: {trace}");
    // Before the first batch is sent and after its answer; so in the middle; and at the end, where the walk is noted as done.
    let middle = effects.len() / 2;
    let chosen = [&effects[..2], &effects[middle..middle + 2], &effects[effects.len() - 5..]].concat();
    each(&chosen, |at| {
        let (_server, place) = to_clear();
        let died = place.call_and_die(&["run", "RUNBOOK.md"], at);
        assert_eq!(died.code, None, "point {at} was not reached: {died:?}");
        // The last points are those of the evidence, when the run is over.
        if !place.call(&["status"]).out.contains("  completed  ") {
            place.call(&["resume"]).done();
        }
        let left = json(&place.call(&["redis", "keys", "stg:cache:", "--format", "json"]).out);
        assert_eq!((left["keys"].as_u64(), left["held"].as_u64()), (Some(0), Some(70)), "killed at point {at}");
        let run = place.run_id();
        place.call(&["report", &run]).done();
        let report = place.read(&format!("evidence/{run}/report.md"));
        assert!(report.contains("400 keys that begin with"), "killed at point {at}: {report}");
        let counted = (1..=2).filter_map(|attempt| {
            let text = place.read(&format!("evidence/{run}/checks/clear.{attempt}.json"));
            let value: Value = serde_json::from_str(&text).ok()?;
            Some(value["outcome"].to_string())
        });
        let counted: String = counted.collect();
        assert!(counted.contains("\"counted_before\":400") && counted.contains("\"deleted\":400"), "{at}: {counted}");
    });
}

#[test]
fn protected_environment_deletes_by_a_runbook_only() {
    let server = Server::start();
    let place = server.project("[environments.production]\nprotected = true\n");
    let said = place.call(&["redis", "delete", "stg:cache:", "--confirm", "production: delete stg:cache: in cache"]);
    assert!(said.code != Some(0) && said.err.contains("redis-delete = "), "{said:?}");
}

#[test]
fn health_and_proof_have_an_exit_code_and_json() {
    let server = Server::start();
    let place = server.project("");
    let said = place.call(&["redis", "health", "--pings", "10", "--format", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(json(&said.out)["servers"][0]["role"], "primary");
    let said = place.call(&["redis", "health", "--max-memory", "0"]);
    assert!(said.code == Some(1) && said.out.contains("! 127.0.0.1"), "{said:?}");

    let said = place.call(&["redis", "prove", "--prefix", "stg:", "--other", "prod:"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("leaked: anybody, GET without logging in on prod:"), "{said:?}");
}

#[test]
fn declared_users_are_planned_applied_and_proved() {
    let server = Server::start();
    let mut place = server.project("");
    place.write("topology.toml", "[redis.users.app_stg]\npassword = \"env:STG\"\nprefixes = [\"stg:\"]\n");
    place.env.push(("STG".to_owned(), "s3cr3t-of-the-cache".to_owned()));
    let plan = place.call(&["topology", "plan", "--target", "cache", "--check"]);
    assert_eq!(plan.code, Some(1), "{plan:?}");
    assert!(
        plan.out.contains("ACL SETUSER app_stg reset on #<env:STG> ~stg:*") && !plan.out.contains("s3cr3t"),
        "{plan:?}"
    );
    let done = place.call(&["topology", "apply", "--target", "cache"]);
    assert!(done.code == Some(0) && done.out.contains("in memory alone"), "{done:?}");
    assert_eq!(place.call(&["topology", "plan", "--target", "cache", "--check"]).code, Some(0));
    let value = json(&place.call(&["redis", "prove", "--format", "json"]).out);
    // The default user was left on: whoever does not log in reaches everything, and nothing else leaks.
    let leaks = value["trials"].as_array().unwrap().iter().filter(|one| one["verdict"] == "leaked");
    let who: std::collections::BTreeSet<&str> = leaks.map(|one| one["user"].as_str().unwrap()).collect();
    assert_eq!(who, [""].into());
}
