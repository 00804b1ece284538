//! Writers that are clients of the items service.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::history::{Accepted, History, Verdict, key, value};

const PAUSE: Duration = Duration::from_millis(2);
const SETTLE: Duration = Duration::from_secs(60);

/// Which source of which service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `host:port`.
    pub address: String,
    pub source: String,
    /// Items 1 to this are there; each writer has its own among them.
    pub items: i64,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// By name, in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// A connection that asks one thing after the other.
pub struct Client {
    address: String,
    stream: Option<TcpStream>,
}

impl Client {
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), stream: None }
    }

    /// Asks, and reads the whole answer. One connection serves many requests; after an error the next gets a new one.
    ///
    /// # Errors
    /// If there is no connection, or no answer comes back whole.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        // Taken out: where this is given up in the middle, what is left of the answer is nobody's.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(&self.address).await?,
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.address, body.len());
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        stream.write_all(request.as_bytes()).await?;
        let mut read = Vec::new();
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(wrong)?;
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(Ok(0), |text| text.parse()).map_err(|_| wrong())?;
        let mut body = read.split_off(end + 4);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if headers.get("connection").is_none_or(|word| word != "close") {
            self.stream = Some(stream);
        }
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
        Ok(Answer { status, headers, body })
    }
}

/// What the write of a number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Meta,
    NoteNew,
    NoteEdit,
    NoteDelete,
}

/// In fours, on one item: its meta, a note, an edit of that note, and every second note goes.
fn op(seq: u64) -> Op {
    match (seq - 1) % 4 {
        0 => Op::Meta,
        1 => Op::NoteNew,
        2 => Op::NoteEdit,
        _ if (seq / 4).is_multiple_of(2) => Op::NoteDelete,
        _ => Op::Meta,
    }
}

/// The writer's own item for a number: no two write to one.
fn item(service: &Service, writers: usize, writer: usize, seq: u64) -> i64 {
    let (items, writers) = (u64::try_from(service.items).unwrap_or(1), writers as u64);
    let own = (items / writers).max(1);
    i64::try_from(writer as u64 + 1 + ((seq - 1) / 4 % own) * writers).unwrap_or(1)
}

fn meta(seed: u64, writer: usize, seq: u64) -> Value {
    json!({ "key": key(seed, writer, seq), "value": value(seed, writer, seq) })
}

/// A note's text, by which its write is found again.
fn body(seed: u64, writer: usize, seq: u64) -> String {
    format!("{} {}", key(seed, writer, seq), value(seed, writer, seq))
}

/// Writers at work.
pub struct Writers {
    seed: u64,
    service: watch::Sender<Service>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Writer>>,
}

struct Writer {
    number: usize,
    of: usize,
    seed: u64,
    think: Duration,
    began: Instant,
    accepted: Vec<Accepted>,
    failures: BTreeMap<String, u64>,
    unsettled: Option<u64>,
    /// The note of the present four.
    note: i64,
}

impl Writers {
    /// Starts so many; there must be at least as many items.
    ///
    /// # Panics
    /// If there are fewer items than writers.
    pub fn start(service: Service, count: usize, seed: u64) -> Self {
        Self::thinking(service, count, seed, Duration::ZERO)
    }

    /// The same, each of which does nothing for so long after a write was accepted: at full speed they take all processors,
    /// and what a test is about has to wait for them.
    ///
    /// # Panics
    /// If there are fewer items than writers.
    pub fn thinking(service: Service, count: usize, seed: u64, think: Duration) -> Self {
        assert!(
            usize::try_from(service.items).is_ok_and(|items| items >= count),
            "each writer needs an item of its own"
        );
        let (service, seen) = watch::channel(service);
        let (stop, accepted, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let began = Instant::now();
        let tasks = (0..count)
            .map(|number| {
                let (accepted_here, failures) = (Vec::new(), BTreeMap::new());
                let writer = Writer {
                    number,
                    of: count,
                    seed,
                    think,
                    began,
                    accepted: accepted_here,
                    failures,
                    unsettled: None,
                    note: 0,
                };
                tokio::spawn(writer.work(seen.clone(), Arc::clone(&stop), Arc::clone(&accepted), Arc::clone(&failed)))
            })
            .collect();
        Self { seed, service, stop, accepted, failed, tasks }
    }

    /// Leads them to a service at another address. Not needed where it comes back at the same one.
    pub fn switch_to(&self, service: Service) {
        self.service.send_replace(service);
    }

    /// Writes that were accepted until now.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Attempts that failed until now.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until so many more are accepted.
    ///
    /// # Panics
    /// If that has not come about within the time.
    pub async fn wait_for(&self, more: u64, within: Duration) {
        let (wanted, began) = (self.accepted() + more, Instant::now());
        while self.accepted() < wanted {
            assert!(began.elapsed() < within, "{more} writes more were to be accepted within {within:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets each finish what it is at, and tells what was accepted.
    ///
    /// # Panics
    /// If a writer has.
    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History { seed: self.seed, ..History::default() };
        for task in self.tasks {
            let writer = task.await.expect("a writer does not panic");
            for (status, count) in writer.failures {
                *history.failures.entry(status).or_default() += count;
            }
            history.unsettled.extend(writer.unsettled.map(|seq| (writer.number, seq)));
            history.accepted.push(writer.accepted);
        }
        history
    }
}

impl Writer {
    async fn work(
        mut self,
        mut service: watch::Receiver<Service>,
        stop: Arc<AtomicBool>,
        accepted: Arc<AtomicU64>,
        failed: Arc<AtomicU64>,
    ) -> Self {
        let mut now = service.borrow_and_update().clone();
        let mut client = Client::new(now.address.clone());
        let mut told: Option<Instant> = None;
        let (mut seq, mut tried) = (1, false);
        loop {
            if stop.load(Ordering::Relaxed) {
                let since = *told.get_or_insert_with(Instant::now);
                if !tried {
                    break;
                }
                if since.elapsed() > SETTLE {
                    self.unsettled = Some(seq);
                    break;
                }
            }
            if service.has_changed().unwrap_or(false) {
                now = service.borrow_and_update().clone();
                client = Client::new(now.address.clone());
            }
            let sent = self.began.elapsed();
            tried = true;
            let failure = match self.attempt(&mut client, &now, seq).await {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    let answered = self.began.elapsed();
                    let before = answer.body["replayed"] == true;
                    let side = answer.headers.get("x-backend").filter(|_| !before).cloned().unwrap_or_default();
                    if op(seq) == Op::NoteNew {
                        self.note = answer.body["note_id"].as_i64().unwrap_or_default();
                    }
                    self.accepted.push(Accepted { writer: self.number, seq, sent, answered, side });
                    accepted.fetch_add(1, Ordering::Relaxed);
                    (seq, tried) = (seq + 1, false);
                    if !self.think.is_zero() {
                        tokio::time::sleep(self.think).await;
                    }
                    continue;
                }
                Ok(answer) => answer.status.to_string(),
                Err(_) => "connection".to_owned(),
            };
            *self.failures.entry(failure).or_default() += 1;
            failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    async fn attempt(&self, client: &mut Client, service: &Service, seq: u64) -> io::Result<Answer> {
        let (seed, number) = (self.seed, self.number);
        let (item, key) = (item(service, self.of, number, seq), key(seed, number, seq));
        let headers = [("X-Source-ID", service.source.as_str()), ("Idempotency-Key", key.as_str())];
        let (notes, note) = (format!("/items/{item}/notes"), self.note);
        match op(seq) {
            Op::Meta => {
                client.ask("PUT", &format!("/items/{item}/meta"), &headers, Some(&meta(seed, number, seq))).await
            }
            Op::NoteNew => {
                let sent = json!({ "author": format!("writer {number}"), "body": body(seed, number, seq) });
                client.ask("POST", &notes, &headers, Some(&sent)).await
            }
            Op::NoteEdit => {
                client
                    .ask("PUT", &format!("{notes}/{note}"), &headers, Some(&json!({ "body": body(seed, number, seq) })))
                    .await
            }
            Op::NoteDelete => client.ask("DELETE", &format!("{notes}/{note}"), &headers, None).await,
        }
    }
}

impl History {
    /// Holds a service, whatever its backend, against the history: each accepted write is there once and with its value, and
    /// metas and notes of the writers' items are as the writes leave them one after the other.
    ///
    /// # Errors
    /// If the service does not answer.
    pub async fn verify_service(&self, service: &Service) -> io::Result<Verdict> {
        let mut verdict = Verdict { writes: self.writes(), ..Verdict::default() };
        let mut client = Client::new(service.address.clone());
        let source = [("X-Source-ID", service.source.as_str())];
        let writers = self.accepted.len();
        let (mut metas, mut notes) = (BTreeMap::<i64, Value>::new(), BTreeMap::<i64, Vec<String>>::new());
        for writer in 0..writers {
            let (mut last, one_more) = self.bounds(writer);
            if one_more {
                let next = format!("/edits/{}", key(self.seed, writer, last + 1));
                last += u64::from(client.ask("GET", &next, &source, None).await?.status == 200);
            }
            for seq in 1..=last {
                let (key, item) = (key(self.seed, writer, seq), item(service, writers, writer, seq));
                let answer = client.ask("GET", &format!("/edits/{key}"), &source, None).await?;
                let (kind, wanted) = match op(seq) {
                    Op::Meta => ("meta", meta(self.seed, writer, seq).to_string()),
                    Op::NoteNew => ("note", body(self.seed, writer, seq)),
                    Op::NoteEdit => ("note-edit", body(self.seed, writer, seq)),
                    Op::NoteDelete => ("note-delete", String::new()),
                };
                match answer.status {
                    404 => verdict.lost.push(key),
                    200 if answer.body["kind"] == kind
                        && answer.body["value"] == wanted
                        && answer.body["item_id"] == item => {}
                    200 => verdict.altered.push(key),
                    status => return Err(io::Error::other(format!("/edits/{key}: {status} {}", answer.body))),
                }
                let of_item = notes.entry(item).or_default();
                match op(seq) {
                    Op::Meta => drop(metas.insert(item, meta(self.seed, writer, seq))),
                    Op::NoteNew => of_item.push(wanted),
                    Op::NoteEdit => {
                        of_item.pop();
                        of_item.push(wanted);
                    }
                    Op::NoteDelete => drop(of_item.pop()),
                }
            }
        }
        for (item, wanted) in &metas {
            let answer = client.ask("GET", &format!("/items/{item}"), &source, None).await?;
            if answer.body["item"]["meta"] != *wanted {
                verdict.altered.push(format!("meta of item {item}"));
            }
        }
        for (item, wanted) in &notes {
            let answer = client.ask("GET", &format!("/items/{item}/notes"), &source, None).await?;
            let there = answer.body["notes"].as_array().cloned().unwrap_or_default();
            let mark = format!("{:x}-", self.seed);
            let mut found: Vec<String> = there
                .iter()
                .filter(|note| note["author"].as_str().is_some_and(|author| author.starts_with("writer ")))
                .filter_map(|note| note["body"].as_str().filter(|body| body.starts_with(&mark)).map(str::to_owned))
                .collect();
            for body in wanted {
                let count = found.iter().filter(|one| *one == body).count();
                let shown = || format!("note {:?} of item {item}", body.split(' ').next().unwrap_or_default());
                match count {
                    0 => verdict.lost.push(shown()),
                    1 => {}
                    _ => verdict.doubled.push(shown()),
                }
                found.retain(|one| one != body);
            }
            let shown = |body: &String| format!("note {:?} of item {item}", body.split(' ').next().unwrap_or_default());
            verdict.strange.extend(found.iter().map(shown));
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_writers_write_to_one_item() {
        let service = Service { address: String::new(), source: String::new(), items: 100 };
        for writers in [1, 3, 8, 100] {
            let of = |writer| {
                (1..5000).map(|seq| item(&service, writers, writer, seq)).collect::<std::collections::BTreeSet<_>>()
            };
            let sets: Vec<_> = (0..writers).map(of).collect();
            let all: std::collections::BTreeSet<i64> = sets.iter().flatten().copied().collect();
            assert_eq!(all.len(), sets.iter().map(std::collections::BTreeSet::len).sum::<usize>(), "{writers}");
            assert!(all.iter().all(|item| (1..=100).contains(item)));
        }
    }

    #[test]
    fn a_note_is_edited_and_deleted_only_after_it_came() {
        let ops: Vec<Op> = (1..=8).map(op).collect();
        assert_eq!(
            ops,
            [Op::Meta, Op::NoteNew, Op::NoteEdit, Op::Meta, Op::Meta, Op::NoteNew, Op::NoteEdit, Op::NoteDelete]
        );
    }
}
