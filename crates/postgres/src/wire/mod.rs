//! The frontend/backend protocol without a driver: where bulk passes through, and the driver's way of a message would cost most.
//!
//! Messages are cut from one large read buffer without copying. Two things speak it: the replication connection
//! ([`crate::replication`]), and the reader of rows ([`crate::copy::CopyOut`]). What either means by the messages is theirs;
//! sockets, TLS, log-in, simple queries and cancelling are here. Source: "Frontend/Backend Protocol" of PostgreSQL's documentation.

mod connect;
mod login;
mod socket;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::error::{PgError, ServerError};

pub(crate) use connect::{BackendKey, Connection, Purpose, cancel, connect};
pub(crate) use socket::Socket;

/// How much is read at once. A buffer is let go when the last message cut from it is.
const CHUNK: usize = 256 * 1024;

/// No message is longer: PostgreSQL's own limit of an allocation, in which it builds them.
const LONGEST: usize = 1 << 30;

/// One message: its type byte and what follows the length.
pub(crate) struct Message {
    pub tag: u8,
    pub body: Bytes,
}

/// A message where it lies in the buffer, and where the next one begins.
pub(crate) struct Seen<'a> {
    pub tag: u8,
    pub body: &'a [u8],
    pub end: usize,
}

/// A row of a simple query's result, as text.
pub type TextRow = Vec<Option<String>>;

/// The incoming side: bytes that were read and not yet cut.
#[derive(Default)]
pub(crate) struct Inbox {
    buffer: BytesMut,
}

/// The length of a message cannot be.
pub(crate) struct Malformed;

impl Inbox {
    /// The next whole message, if it is there.
    pub fn take(&mut self) -> Result<Option<Message>, Malformed> {
        let Some(head) = self.buffer.first_chunk::<5>() else { return Ok(None) };
        let [tag, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=LONGEST).contains(&length) {
            return Err(Malformed);
        }
        if self.buffer.len() <= length {
            return Ok(None);
        }
        let mut body = self.buffer.split_to(length + 1);
        body.advance(5);
        Ok(Some(Message { tag, body: body.freeze() }))
    }

    /// The whole message that begins `at` so many bytes into what was read, where it lies; none if it has not all come. With
    /// [`Inbox::skip`] this is [`Inbox::take`] for those who need no message of their own.
    pub fn look(&self, at: usize) -> Result<Option<Seen<'_>>, Malformed> {
        let Some(head) = self.buffer.get(at..).and_then(|rest| rest.first_chunk::<5>()) else { return Ok(None) };
        let [tag, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=LONGEST).contains(&length) {
            return Err(Malformed);
        }
        let end = at + 1 + length;
        Ok(self.buffer.get(at + 5..end).map(|body| Seen { tag, body, end }))
    }

    /// Lets go of so many bytes that were looked at.
    pub fn skip(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
    }

    /// Reads what there is; 0 at the end. Cancellation: nothing that was read is lost.
    pub async fn fill(&mut self, reader: &mut ReadHalf<Socket>) -> std::io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < CHUNK / 8 {
            // Grows with what has come, not with what a length claims.
            self.buffer.reserve(CHUNK.max(self.buffer.len()));
        }
        reader.read_buf(&mut self.buffer).await
    }
}

/// Both sides of a connection, and its name in errors.
pub(crate) struct Wire {
    pub address: String,
    pub inbox: Inbox,
    pub reader: ReadHalf<Socket>,
    pub writer: WriteHalf<Socket>,
}

impl Wire {
    pub fn new(socket: Socket, address: String) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self { address, inbox: Inbox::default(), reader, writer }
    }

    pub async fn next(&mut self) -> Result<Message, PgError> {
        loop {
            match self.inbox.take() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(Malformed) => return Err(self.unexpected("a message's length cannot be")),
            }
            match self.inbox.fill(&mut self.reader).await {
                Ok(0) => return Err(lost(&self.address, "the server closed it")),
                Ok(_) => {}
                Err(error) => return Err(lost(&self.address, &error.to_string())),
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        let sent = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        sent.await.map_err(|error| lost(&self.address, &error.to_string()))
    }

    /// Runs statements by the simple query protocol; rows of all results, one after another.
    ///
    /// # Errors
    /// What the server says.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, PgError> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let message = self.next().await?;
            match message.tag {
                b'D' => rows.push(text_row(&message.body).ok_or_else(|| self.unexpected("a row is malformed"))?),
                b'E' => failure = Some(self.server_error(&message.body)),
                b'Z' => return failure.map_or(Ok(rows), Err),
                // Row description, command complete, empty query, parameter status, notice.
                b'T' | b'C' | b'I' | b'S' | b'N' => {}
                tag => return Err(self.unexpected_tag(tag, "a query")),
            }
        }
    }

    /// Sends statements, and leaves what comes to be read.
    pub async fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        let mut buffer = BytesMut::new();
        frontend::query(sql, &mut buffer).map_err(|_| PgError::Options("a command holds a NUL byte".to_owned()))?;
        self.send(&buffer).await
    }

    /// Reads to the end, for nothing.
    pub async fn drain(&mut self) {
        while matches!(self.inbox.fill(&mut self.reader).await, Ok(1..)) {
            self.inbox.buffer.clear();
        }
    }

    pub fn server_error(&self, body: &[u8]) -> PgError {
        server_error(&self.address, body)
    }

    pub fn unexpected(&self, what: &str) -> PgError {
        PgError::Client(format!("{} does not speak PostgreSQL's protocol as documented: {what}", self.address))
    }

    pub fn unexpected_tag(&self, tag: u8, during: &str) -> PgError {
        self.unexpected(&format!("message `{}` in answer to {during}", tag.escape_ascii()))
    }
}

pub(crate) fn lost(address: &str, why: &str) -> PgError {
    PgError::Lost { address: address.to_owned(), why: why.to_owned() }
}

/// An ErrorResponse as an error of a statement.
pub(crate) fn server_error(address: &str, body: &[u8]) -> PgError {
    let error = fields(body);
    // As everywhere: the server ended the session.
    if matches!(error.sqlstate.as_str(), "57P01" | "57P02" | "57P03") {
        return lost(address, &error.message);
    }
    PgError::Server(Box::new(error))
}

/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
pub(crate) fn fields(body: &[u8]) -> ServerError {
    let mut error = ServerError {
        sqlstate: String::new(),
        severity: String::new(),
        message: String::new(),
        detail: None,
        hint: None,
        position: None,
        context: None,
        object: None,
    };
    let (mut schema, mut table, mut constraint) = (None, None, None);
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => error.sqlstate = text,
            b'V' => error.severity = text,
            b'S' if error.severity.is_empty() => error.severity = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            b'P' => error.position = text.parse().ok(),
            b'W' => error.context = Some(text),
            b's' => schema = Some(text),
            b't' => table = Some(text),
            b'n' => constraint = Some(text),
            _ => {}
        }
    }
    let qualified = table.map(|table| schema.map_or(table.clone(), |schema| format!("{schema}.{table}")));
    error.object = constraint.or(qualified);
    error
}

fn text_row(body: &Bytes) -> Option<TextRow> {
    let mut rest = &body[..];
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at_checked(count)?;
        rest = tail;
        Some(head)
    };
    let columns = u16::from_be_bytes(take(2)?.try_into().ok()?);
    (0..columns)
        .map(|_| {
            let length = i32::from_be_bytes(take(4)?.try_into().ok()?);
            match usize::try_from(length) {
                Err(_) => Some(None),
                Ok(length) => Some(Some(String::from_utf8_lossy(take(length)?).into_owned())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bytes: &[u8]) -> Inbox {
        Inbox { buffer: bytes.into() }
    }

    #[test]
    fn messages_are_seen_where_they_lie() {
        let mut inbox = with(b"d\0\0\0\x05xZ\0\0\0\x04d\0\0\0\x06y");
        let (mut at, mut seen) = (0, Vec::new());
        while let Ok(Some(message)) = inbox.look(at) {
            seen.push((message.tag, message.body.to_vec()));
            at = message.end;
        }
        assert_eq!(seen, [(b'd', b"x".to_vec()), (b'Z', Vec::new())]);
        inbox.skip(at);
        assert!(matches!(inbox.take(), Ok(None)), "the last one has not all come");
        inbox.buffer.extend_from_slice(b"z");
        assert_eq!(inbox.take().ok().flatten().map(|message| message.body), Some(Bytes::from_static(b"yz")));
    }

    #[test]
    fn length_that_cannot_be_is_malformed() {
        for length in [0_u32, 3, (1 << 30) + 1, u32::MAX] {
            let inbox = with(&[b"d".as_slice(), &length.to_be_bytes()].concat());
            assert!(matches!(inbox.look(0), Err(Malformed)), "{length}");
        }
        // As long as PostgreSQL makes them: waited for, and no room is made beforehand.
        let inbox = with(&[b"d".as_slice(), &(1_u32 << 30).to_be_bytes()].concat());
        assert!(matches!(inbox.look(0), Ok(None)));
        assert_eq!(inbox.buffer.capacity(), 5);
    }
}
