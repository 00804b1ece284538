//! A command in a process group of its own, so that stopping it stops what it started.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pgrunbook_engine::Cancel;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

/// Lines of output that are kept as evidence: the last ones say how it ended.
const KEPT_LINES: usize = 50;

/// Bytes of a line that are kept.
const KEPT_BYTES: usize = 1_000;

/// Between asking a command to end and ending it.
const GRACE: Duration = Duration::from_secs(5);

/// How a command ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It was stopped, and may have done a part of its work.
    Stopped,
}

/// A command that has ended, with its last lines of output.
#[derive(Debug)]
pub struct Finished {
    pub ended: Ended,
    pub tail: Vec<String>,
}

/// Runs a program to its end, telling its output line by line; stops it when the operator aborts.
pub async fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    folder: &Path,
    cancel: &Cancel,
    say: impl Fn(String),
) -> std::io::Result<Finished> {
    let (program, arguments) = argv.split_first().ok_or_else(|| std::io::Error::other("there is no command"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (sender, mut lines) = mpsc::channel(64);
    tokio::spawn(read_lines(child.stdout.take(), sender.clone()));
    tokio::spawn(read_lines(child.stderr.take(), sender));
    let mut tail = VecDeque::new();
    let mut keep = |line: String| {
        say(line.clone());
        if tail.len() == KEPT_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    };
    let mut stopped = false;
    let status = loop {
        tokio::select! {
            Some(line) = lines.recv() => keep(line),
            status = child.wait() => break status?,
            () = cancel.aborting(), if !stopped => {
                stopped = true;
                signal(group, Signal::TERM);
                tokio::spawn(async move {
                    tokio::time::sleep(GRACE).await;
                    signal(group, Signal::KILL);
                });
            }
        }
    };
    // What it wrote last. A child of its own that lives on keeps the pipe open: that is not waited for.
    while let Ok(Some(line)) = tokio::time::timeout(Duration::from_millis(100), lines.recv()).await {
        keep(line);
    }
    let ended = if stopped { Ended::Stopped } else { Ended::Exited(status) };
    Ok(Finished { ended, tail: tail.into() })
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Gone already: nothing to stop.
        let _ = kill_process_group(group, signal);
    }
}

async fn read_lines(stream: Option<impl AsyncRead + Unpin>, lines: mpsc::Sender<String>) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut bytes).await {
        let line = &bytes[..bytes.len().min(KEPT_BYTES)];
        let line = String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned();
        if lines.send(line).await.is_err() {
            return;
        }
        bytes.clear();
    }
}
