//! `http`, `notify`, `sh` and `approve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use pgrunbook_engine::{RunEnd, UNDO, Waiting};

use crate::bench::{Bench, failure};

/// An HTTP server that gives prepared answers in turn, the last one again and again, and keeps what it was asked.
struct Server {
    base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn server(answers: &'static [(u16, &'static str)]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            kept.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
            let (status, text) = answers[number.min(answers.len() - 1)];
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Server { base, asked }
}

fn one(block: &str) -> String {
    format!("# One\n\n## Phase\n\n```toml step\n{block}\n```\n")
}

#[tokio::test]
async fn endpoint_is_asked_until_it_answers_as_expected() {
    let server = server(&[(503, "starting"), (200, r#"{"ok": true, "version": {"schema": 11}}"#)]);
    let mut bench = Bench::new().await;
    bench.config(&format!("[targets.app]\nbase = \"{}\"\n", server.base));
    bench.env.push(("TOKEN".to_owned(), "s3cr3t-t0ken".to_owned()));
    let text = one(
        "http = \"healthy\"\ntarget = \"app\"\nget = \"/health\"\nheaders = { Authorization = \"env:TOKEN\" }\nexpect_json = { \"/version/schema\" = 11 }\nwithin = \"20s every 50ms\"",
    );
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&run, "healthy").await.facts["tries"], 2);
    assert!(server.asked.lock().unwrap()[0].contains("authorization: s3cr3t-t0ken"));
    let journal = std::fs::read(bench.path(".pgrunbook/journal.db")).unwrap();
    assert!(!String::from_utf8_lossy(&journal).contains("s3cr3t"), "a header's secret is not recorded");

    let (_, end) = bench.run(&text.replace("= 11 }", "= 12 }").replace("within = \"20s every 50ms\"", "")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "gate");
    assert!(message.contains("/version/schema") && message.contains("12") && message.contains("11"), "{message}");
}

#[tokio::test]
async fn message_is_sent_with_a_key_that_tells_a_second_delivery() {
    let server = server(&[(500, "no"), (204, "")]);
    let mut bench = Bench::new().await;
    bench.env.push(("HOOK".to_owned(), format!("{}/hook/s3cr3t-path", server.base)));
    let (run, end) = bench.run(&one("notify = \"tell\"\nurl = \"env:HOOK\"\ntext = \"done\"")).await;
    assert_eq!(end, RunEnd::Completed);
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "it tried again");
    for request in &asked {
        assert!(request.contains(&format!("idempotency-key: {run}/tell")), "{request}");
    }
    assert!(!bench.hand.said().contains("s3cr3t"), "{}", bench.hand.said());
}

#[tokio::test]
async fn command_sees_only_what_it_names_and_its_output_is_shown_without_secrets() {
    let mut bench = Bench::new().await;
    bench.env.push(("SHOWN".to_owned(), "visible".to_owned()));
    bench.env.push(("HIDDEN".to_owned(), "invisible".to_owned()));
    bench.env.push(("PASSWORD".to_owned(), "s3cr3t-w0rd".to_owned()));
    let text = one(
        "sh = \"look\"\nrun = \"echo $SHOWN $HIDDEN $P; pwd\"\nenv = [\"SHOWN\"]\nset_env = { P = \"env:PASSWORD\" }\nundo = \"none: it only looks\"",
    );
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    let output = bench.evidence(&run, "look").await.facts["output"].to_string();
    assert!(output.contains("visible ***") && !output.contains("invisible"), "{output}");
    assert!(
        output.contains(bench.folder.path().file_name().unwrap().to_str().unwrap()),
        "it runs in the project: {output}"
    );
}

#[tokio::test]
async fn command_that_fails_has_failed_and_one_that_succeeds_is_undone() {
    let bench = Bench::new().await;
    let text =
        one("sh = \"make\"\nrun = \"touch made; exit 3\"\nexpect_exit = 0\nundo = \"auto\"\nundo_run = \"rm made\"");
    let (run, end) = bench.run(&text).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "exit-status");
    assert!(message.contains("exit status: 3"), "{message}");
    drop(run);
    let (run, end) = bench.run(&text.replace("exit 3", "true")).await;
    assert_eq!(end, RunEnd::Completed);
    assert!(bench.path("made").exists());
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert!(!bench.path("made").exists());
}

#[tokio::test]
async fn command_that_takes_too_long_is_stopped_with_all_that_it_started() {
    let bench = Bench::new().await;
    let text = one("sh = \"slow\"\nrun = \"sleep 61 & sleep 62; true\"\ntimeout = \"500ms\"\nundo = \"none: a test\"");
    let (_, end) = bench.run(&text).await;
    // Nobody can know how far it came: the operator is asked, and nobody is here.
    assert!(matches!(end, RunEnd::Unknown { .. }), "{end:?}");
    let runs = |command: &str| {
        std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            line.replace('\0', " ").trim_end() == command
        })
    };
    assert!(!runs("sleep 61") && !runs("sleep 62"), "it left something running");
}

#[tokio::test]
async fn step_that_waits_for_an_approval_waits() {
    let bench = Bench::new().await;
    let (_, end) = bench.run(&one("approve = \"release\"\ncount = 1")).await;
    let RunEnd::Waiting { on: Waiting::Step { message, .. } } = end else { panic!("{end:?}") };
    assert!(message.contains("approv"), "{message}");
}
