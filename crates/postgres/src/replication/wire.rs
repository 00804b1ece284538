//! Messages of the frontend/backend protocol, cut from one large read buffer without copying.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::socket::Socket;
use crate::error::{PgError, ServerError};

/// How much is read at once. A buffer is let go when the last message cut from it is.
const CHUNK: usize = 256 * 1024;

/// No message is longer: PostgreSQL's own limit of an allocation, in which it builds them.
const LONGEST: usize = 1 << 30;

/// One message: its type byte and what follows the length.
pub(super) struct Message {
    pub tag: u8,
    pub body: Bytes,
}

/// The incoming side: bytes that were read and not yet cut.
#[derive(Default)]
pub(super) struct Inbox {
    buffer: BytesMut,
}

/// The length of a message cannot be.
pub(super) struct Malformed;

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
pub(super) struct Wire {
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

    /// Reads to the end, for nothing.
    pub async fn drain(&mut self) {
        while matches!(self.inbox.fill(&mut self.reader).await, Ok(1..)) {
            self.inbox.buffer.clear();
        }
    }

    pub fn server_error(&self, body: &Bytes) -> PgError {
        server_error(&self.address, body)
    }

    pub fn unexpected(&self, what: &str) -> PgError {
        PgError::Client(format!("{} does not speak the replication protocol: {what}", self.address))
    }

    pub fn unexpected_tag(&self, tag: u8, during: &str) -> PgError {
        self.unexpected(&format!("message `{}` in answer to {during}", tag.escape_ascii()))
    }
}

pub(super) fn lost(address: &str, why: &str) -> PgError {
    PgError::Lost { address: address.to_owned(), why: why.to_owned() }
}

/// An ErrorResponse as an error of a statement.
pub(super) fn server_error(address: &str, body: &Bytes) -> PgError {
    let error = fields(body);
    // As everywhere: the server ended the session.
    if matches!(error.sqlstate.as_str(), "57P01" | "57P02" | "57P03") {
        return lost(address, &error.message);
    }
    PgError::Server(Box::new(error))
}

/// <https://www.postgresql.org/docs/current/protocol-error-fields.html>
pub(super) fn fields(body: &Bytes) -> ServerError {
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
