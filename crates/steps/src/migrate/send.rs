//! Sends a script: whole stretches at once where nobody could see the difference to `psql`, the data of a `COPY` as such.

use std::ops::Range;
use std::pin::pin;

use futures_util::SinkExt;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::{PgError, ServerError, Session};

use super::text::Text;
use crate::sql::Streamed;

/// An error of the server, and where in the file it was raised.
#[derive(Debug)]
pub struct Raised {
    pub error: ServerError,
    /// From 1, in the file.
    pub line: usize,
}

/// Why a script did not come to its end.
#[derive(Debug)]
pub enum Broken {
    /// The server said so; the session is as the statement left it.
    Raised(Box<Raised>),
    /// The connection is gone, or the driver failed.
    Lost(PgError),
}

impl From<PgError> for Broken {
    fn from(error: PgError) -> Self {
        Self::Lost(error)
    }
}

/// Runs statements `from..` of a script; `before` goes in front of the first stretch and `after` behind the last, each as
/// SQL of so many statements.
///
/// Error positions are those of the script: `before` is not counted.
pub async fn run(
    session: &Session,
    text: &Text,
    which: Range<usize>,
    before: &str,
    after: &str,
    cancel: &Cancel,
) -> Result<(), Broken> {
    let mut prefix = before.to_owned();
    for piece in pieces(text, which) {
        match piece {
            Piece::Stretch { range, last } => {
                let suffix = if last { after } else { "" };
                // The statement's own end is not in its range, and a comment may follow it.
                let body = &text.text[range.clone()];
                let sent = format!("{prefix}{body}\n;{suffix}");
                stretch(session, text, &range, &sent, prefix.len(), cancel).await?;
            }
            Piece::Copy { statement, last } => {
                if !prefix.is_empty() {
                    session.execute(&prefix).await.map_err(|error| raised_before(error, text))?;
                }
                copy(session, text, statement, cancel).await?;
                if last && !after.is_empty() {
                    session.execute(after).await.map_err(|error| raised_before(error, text))?;
                }
            }
            Piece::Nothing => {
                session.execute(&format!("{prefix}{after}")).await.map_err(|error| raised_before(error, text))?;
            }
        }
        prefix.clear();
    }
    Ok(())
}

/// What is sent in one go.
enum Piece {
    Stretch {
        range: Range<usize>,
        last: bool,
    },
    Copy {
        statement: usize,
        last: bool,
    },
    /// A script without statements.
    Nothing,
}

fn pieces(text: &Text, which: Range<usize>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let end = which.end;
    let mut at = which.start;
    while at < end {
        if text.statements[at].copy_data.is_some() {
            pieces.push(Piece::Copy { statement: at, last: at + 1 == end });
            at += 1;
            continue;
        }
        let mut to = at + 1;
        while to < end
            && text.one_by_one.is_none()
            && text.statements[to].copy_data.is_none()
            // What pg_dump writes for psql alone (`\restrict`) is left out.
            && !text.text[text.statements[to - 1].range.end..text.statements[to].range.start].contains('\\')
        {
            to += 1;
        }
        let range = text.statements[at].range.start..text.statements[to - 1].range.end;
        pieces.push(Piece::Stretch { range, last: to == end });
        at = to;
    }
    if pieces.is_empty() {
        pieces.push(Piece::Nothing);
    }
    pieces
}

async fn stretch(
    session: &Session,
    text: &Text,
    range: &Range<usize>,
    sent: &str,
    prefix: usize,
    cancel: &Cancel,
) -> Result<(), Broken> {
    let answered = Streamed::send(session, sent).await?.read(session, 0, None, cancel).await?;
    let Some(error) = answered.raised else { return Ok(()) };
    let prefix_characters = sent[..prefix].chars().count();
    let line = match error.position {
        // A position in the preamble is of no use to anybody.
        Some(position) => {
            text.line_at(range.start, (position as usize).saturating_sub(1).saturating_sub(prefix_characters))
        }
        None => {
            // No position: the statement after those that were done, not counting the preamble's.
            let preamble = pgrunbook_document::sql::split(&sent[..prefix]).statements.len();
            let first = text.statements.iter().position(|one| one.range.start == range.start).unwrap_or(0);
            let at = first + answered.done.saturating_sub(preamble);
            text.statements.get(at).map_or(1, |statement| statement.line + text.lines_before)
        }
    };
    Err(Broken::Raised(Box::new(Raised { error, line })))
}

async fn copy(session: &Session, text: &Text, at: usize, cancel: &Cancel) -> Result<(), Broken> {
    let statement = &text.statements[at];
    let line = statement.line + text.lines_before;
    let raised = |error: &tokio_postgres::Error| match session.error(error) {
        PgError::Server(error) => Broken::Raised(Box::new(Raised { error: *error, line })),
        lost => Broken::Lost(lost),
    };
    let sink = session.client().copy_in(text.statement(at)).await.map_err(|error| raised(&error))?;
    let mut sink = pin!(sink);
    let data = statement.copy_data.clone().map_or(&b""[..], |range| &text.text.as_bytes()[range]);
    let mut aborting = pin!(cancel.aborting());
    for chunk in data.chunks(1 << 16) {
        let chunk = Bytes::copy_from_slice(chunk);
        tokio::select! {
            sent = sink.send(chunk) => sent.map_err(|error| raised(&error))?,
            () = &mut aborting => {
                session.cancel().await?;
                break;
            }
        }
    }
    sink.finish().await.map_err(|error| raised(&error))?;
    Ok(())
}

/// An error of what goes around a script.
fn raised_before(error: PgError, text: &Text) -> Broken {
    match error {
        PgError::Server(error) => Broken::Raised(Box::new(Raised { error: *error, line: 1 + text.lines_before })),
        lost => Broken::Lost(lost),
    }
}

type Bytes = bytes::Bytes;
