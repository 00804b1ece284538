//! `serve`, as a service manager starts and ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::place::{Place, Said};

const PROJECT: &str = "[targets.main]\nurl = \"env:DATABASE_URL\"\n[targets.site]\nbase = \"http://127.0.0.1:1\"\n
[environments.staging]\n[environments.production.targets.main]\nurl = \"env:PRODUCTION_URL\"\n";

async fn place() -> Place {
    let place = Place::new().await;
    place.write("pgrunbook.toml", PROJECT);
    place.execute("CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb)").await;
    place.execute("INSERT INTO bot_config VALUES ('schema_version', '{\"version\": \"1.1.0\"}')").await;
    place
}

/// The program once it listens; killed if the test ends before it.
struct Serving {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    /// The line that says where it listens.
    line: String,
}

impl Serving {
    fn new(place: &Place, args: &[&str]) -> Self {
        let mut command = place.command(&[&["serve", "--listen", "127.0.0.1:0"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        Self { child, out, line }
    }

    /// Where it listens, by either form of the line.
    fn address(&self) -> String {
        let from = self.line.find("127.0.0.1:").unwrap_or_else(|| panic!("{:?}", self.line));
        self.line[from..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect::<String>()
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address().trim_end_matches(':')).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    /// Sends a signal, and waits for the end.
    fn end(mut self, signal: Signal) -> Said {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let (mut out, mut err) = (self.line.clone(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Said { code: self.child.wait().unwrap().code(), out, err }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_environment_of_the_project_is_answered_for_until_sigterm() {
    let place = place().await;
    let serving = Serving::new(&place, &["--environment", "staging"]);
    let (status, answer) = serving.get("/guard?app_version=1.0.0");
    assert_eq!((status, answer["environment"].as_str()), (200, Some("staging")), "{answer}");
    assert_eq!(serving.get("/guard?app_version=1.2.0").0, 409);
    let (status, answer) = serving.get("/guard?app_version=1.0.0&environment=production");
    assert_eq!(status, 503);
    assert_eq!(answer["message"], "target `main`: the environment variable PRODUCTION_URL is not set");
    let (status, answer) = serving.get("/guard?app_version=1.0.0&target=site");
    assert_eq!((status, answer["help"].as_str()), (400, Some("it has main")), "{answer}");
    let said = serving.end(Signal::TERM).done();
    assert!(said.out.starts_with("listening on http://127.0.0.1:"), "{}", said.out);
    assert!(said.out.ends_with("ended; everything that was asked is answered\n"), "{}", said.out);
    assert_eq!(said.err, "");
}

#[tokio::test]
async fn without_a_choice_each_request_names_its_environment() {
    let place = place().await;
    let serving = Serving::new(&place, &["--format", "json"]);
    let line: Value = serde_json::from_str(&serving.line).unwrap();
    assert_eq!(line["type"], "listening", "{line}");
    let (status, answer) = serving.get("/guard?app_version=1.0.0");
    assert_eq!((status, answer["code"].as_str()), (400, Some("environment")), "{answer}");
    assert_eq!(serving.get("/guard?app_version=1.0.0&environment=staging").0, 200);
    let said = serving.end(Signal::INT).done();
    let last: Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    assert_eq!(last, serde_json::json!({ "type": "ended", "connections_cut": 0 }));
}

#[tokio::test]
async fn database_by_its_url_needs_no_project_and_a_taken_port_is_exit_2() {
    let place = place().await;
    std::fs::remove_file(place.path("pgrunbook.toml")).unwrap();
    let serving = Serving::new(&place, &["--database", "env:DATABASE_URL"]);
    assert_eq!(serving.get("/guard?app_version=1.1.0").0, 200);
    let address = serving.address();
    let address = address.trim_end_matches(':');
    let said = place.call(&["serve", "--listen", address, "--database", "env:DATABASE_URL"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.contains(&format!("cannot listen on {address}: Address already in use")), "{}", said.err);
    assert!(said.err.contains("choose --listen"), "{}", said.err);
    serving.end(Signal::TERM).done();
}

#[tokio::test]
async fn listening_for_others_and_bypass_are_said_loudly() {
    let mut place = place().await;
    let said = Serving::new(&place, &["--environment", "staging"]).end(Signal::TERM).done();
    assert_eq!(said.err, "");
    place.env.push(("SKIP_SCHEMA_GUARD".to_owned(), "true".to_owned()));
    let mut command = place.command(&["serve", "--environment", "staging", "--listen", "0.0.0.0:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let serving = Serving { child, out, line: line.replace("0.0.0.0:", "127.0.0.1:") };
    let (status, answer) = serving.get("/guard?app_version=9.0.0");
    assert_eq!((status, answer["outcome"].as_str()), (200, Some("bypassed")), "{answer}");
    let said = serving.end(Signal::TERM).done();
    assert!(said.err.contains("WARNING: listening on 0.0.0.0:"), "{}", said.err);
    assert!(said.err.contains("WARNING: SCHEMA GUARD BYPASSED. SKIP_SCHEMA_GUARD=true: every check"), "{}", said.err);
    place.env.pop();
    place.env.push(("SKIP_SCHEMA_GUARD".to_owned(), "yes".to_owned()));
    let said = place.call(&["serve", "--environment", "staging", "--listen", "127.0.0.1:0"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("SKIP_SCHEMA_GUARD is \"yes\""), "{}", said.err);
}
