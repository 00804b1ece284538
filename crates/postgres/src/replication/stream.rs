//! What a slot decodes, as it comes, and the feedback that keeps the server patient.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::wire::{Inbox, Malformed, Socket, Wire, lost, server_error};

/// Seconds from 1970 to 2000, which PostgreSQL counts from.
const EPOCH: u64 = 946_684_800;

/// A server that decodes a large transaction of which nothing is for us answers late: before it is taken for gone.
const SILENCE: Duration = Duration::from_secs(120);

/// One message of the output plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where in the log it comes from. Not rising: transactions come in the order of their commits.
    pub wal_start: Lsn,
    /// The same for logical replication.
    pub wal_end: Lsn,
    /// Microseconds since 2000-01-01, by the server's clock.
    pub sent_at: i64,
    pub data: Bytes,
}

/// The server says how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Every transaction that committed before this was sent.
    pub wal_end: Lsn,
    /// It is answered by the stream itself.
    pub reply_requested: bool,
}

/// What comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Frame(Frame),
    Keepalive(Keepalive),
}

/// What the feedback says, and why it is sent.
#[derive(Debug, Clone, Copy, Default)]
struct Feedback {
    flushed: u64,
    applied: u64,
    /// Counts what the server asked for.
    asked: u64,
}

/// A slot's changes. Feedback is sent by a task of its own: when something is confirmed, when the server asks, and at
/// least three times within `wal_sender_timeout`, also while nobody reads.
pub struct Stream {
    inbox: Inbox,
    reader: ReadHalf<Socket>,
    address: String,
    backend_pid: i32,
    received: Arc<AtomicU64>,
    feedback: watch::Sender<Feedback>,
    speaker: JoinHandle<()>,
    /// The server answers each of our messages; when it is silent for so long, it is gone.
    silence: Duration,
    ended: bool,
}

impl Stream {
    pub(super) fn new(wire: Wire, interval: Duration, backend_pid: i32) -> Self {
        let (feedback, asked) = watch::channel(Feedback::default());
        let received = Arc::new(AtomicU64::new(0));
        let speaker = tokio::spawn(speak(wire.writer, asked, received.clone(), interval));
        Self {
            inbox: wire.inbox,
            reader: wire.reader,
            address: wire.address,
            backend_pid,
            received,
            feedback,
            speaker,
            silence: SILENCE.max(interval * 12),
            ended: false,
        }
    }

    /// The walsender's pid.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// The next message; `None` when the server ended the stream in good order.
    ///
    /// Cancellation: nothing is lost.
    ///
    /// # Errors
    /// What the server says, with its SQLSTATE; [`PgError::Lost`] when it closed, or was silent for two minutes.
    pub async fn next(&mut self) -> Result<Option<Incoming>, PgError> {
        loop {
            if let Some(incoming) = self.try_next()? {
                return Ok(Some(incoming));
            }
            if self.ended {
                return Ok(None);
            }
            let read = tokio::time::timeout(self.silence, self.inbox.fill(&mut self.reader)).await;
            match read {
                Ok(Ok(0)) => return Err(lost(&self.address, "the server closed it")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(lost(&self.address, &error.to_string())),
                Err(_) => return Err(lost(&self.address, &format!("nothing was heard for {:?}", self.silence))),
            }
        }
    }

    /// The next message that was read already.
    ///
    /// # Errors
    /// As [`Stream::next`].
    pub fn try_next(&mut self) -> Result<Option<Incoming>, PgError> {
        loop {
            let message = match self.inbox.take() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(Malformed) => return Err(self.malformed("a message's length cannot be")),
            };
            match message.tag {
                b'd' => match incoming(&message.body) {
                    Some(incoming) => {
                        self.note(&incoming);
                        return Ok(Some(incoming));
                    }
                    None => return Err(self.malformed("a message of the stream is malformed")),
                },
                b'E' => return Err(server_error(&self.address, &message.body)),
                // CopyDone, and what follows it.
                b'c' | b'C' | b'Z' => self.ended = true,
                b'N' | b'S' => {}
                tag => return Err(self.malformed(&format!("message `{}` in the stream", tag.escape_ascii()))),
            }
        }
    }

    fn note(&self, incoming: &Incoming) {
        let end = match incoming {
            Incoming::Frame(frame) => frame.wal_end,
            Incoming::Keepalive(keepalive) => {
                if keepalive.reply_requested {
                    self.feedback.send_modify(|feedback| feedback.asked += 1);
                }
                keepalive.wal_end
            }
        };
        self.received.fetch_max(end.0, Ordering::Relaxed);
    }

    /// Tells the server that everything before `flushed` need never be sent again, and how far it was applied. Never
    /// goes back.
    pub fn confirm(&self, flushed: Lsn, applied: Lsn) {
        self.feedback.send_if_modified(|feedback| {
            let further = flushed.0 > feedback.flushed || applied.0 > feedback.applied;
            feedback.flushed = feedback.flushed.max(flushed.0);
            feedback.applied = feedback.applied.max(applied.0);
            further
        });
    }

    /// Ends the stream: the last feedback is sent, then the connection is closed, and the slot is free a moment later.
    pub async fn close(self) {
        let Self { reader, feedback, speaker, .. } = self;
        drop(feedback);
        // A server that no longer reads is left to notice the closed connection.
        let _ = tokio::time::timeout(Duration::from_secs(2), speaker).await;
        drop(reader);
    }

    fn malformed(&self, what: &str) -> PgError {
        PgError::Client(format!("{} does not speak the replication protocol: {what}", self.address))
    }
}

/// Sends feedback until the stream is dropped, then the end.
async fn speak(
    mut writer: WriteHalf<Socket>,
    mut asked: watch::Receiver<Feedback>,
    received: Arc<AtomicU64>,
    interval: Duration,
) {
    let mut goes_on = true;
    while goes_on {
        // On the interval the server is asked for an answer, by which we know that it lives.
        let (changed, want_answer) = match tokio::time::timeout(interval, asked.changed()).await {
            Ok(changed) => (changed, false),
            Err(_) => (Ok(()), true),
        };
        goes_on = changed.is_ok();
        let feedback = *asked.borrow_and_update();
        let mut message = status(&feedback, received.load(Ordering::Relaxed), want_answer);
        if !goes_on {
            // CopyDone and Terminate.
            message.put_slice(b"c\0\0\0\x04X\0\0\0\x04");
        }
        // A lost connection shows on the reading side, where it has a reader.
        if writer.write_all(&message).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// Standby status update, in CopyData.
fn status(feedback: &Feedback, received: u64, want_answer: bool) -> BytesMut {
    let mut message = BytesMut::with_capacity(64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = now.saturating_sub(Duration::from_secs(EPOCH)).as_micros();
    message.put_u8(b'd');
    message.put_i32(4 + 34);
    message.put_u8(b'r');
    message.put_u64(received.max(feedback.flushed));
    message.put_u64(feedback.flushed);
    message.put_u64(feedback.applied);
    message.put_i64(i64::try_from(micros).unwrap_or(0));
    message.put_u8(u8::from(want_answer));
    message
}

fn incoming(body: &Bytes) -> Option<Incoming> {
    let (kind, rest) = body.split_first()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (second, rest) = rest.split_first_chunk::<8>()?;
    let first = Lsn(u64::from_be_bytes(*first));
    match kind {
        b'w' => {
            let (sent_at, _) = rest.split_first_chunk::<8>()?;
            Some(Incoming::Frame(Frame {
                wal_start: first,
                wal_end: Lsn(u64::from_be_bytes(*second)),
                sent_at: i64::from_be_bytes(*sent_at),
                data: body.slice(25..),
            }))
        }
        b'k' => Some(Incoming::Keepalive(Keepalive { wal_end: first, reply_requested: *rest.first()? == 1 })),
        _ => None,
    }
}
