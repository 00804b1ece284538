//! One COPY of the source into one of the target, each row hashed on the way.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use pgrunbook_postgres::copy::{CopyError, RowSplitter, canonical, is_canonical};
use pgrunbook_postgres::relation::Shape;
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{PgError, Session};

/// What is sent to the target at a time.
const BUFFER: usize = 256 * 1024;

/// What ended a pipe.
#[derive(Debug)]
pub(super) enum Broken {
    Source(PgError),
    Target(PgError),
    Format(CopyError),
}

impl From<CopyError> for Broken {
    fn from(error: CopyError) -> Self {
        Self::Format(error)
    }
}

/// Rows that went through, and the bytes of the stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    pub sum: RowSum,
    pub bytes: u64,
}

/// Copies what `read` says into what `write` says, both in the binary format: the stream goes through as it is.
///
/// `shapes` has one for each column. `each` hears of the rows and bytes since it was called last.
pub(super) async fn pipe(
    (source, read): (&Session, &str),
    (target, write): (&Session, &str),
    shapes: &[Shape],
    mut each: impl FnMut(u64, u64),
) -> Result<Flow, Broken> {
    let of_source = |error: tokio_postgres::Error| Broken::Source(source.error(&error));
    let of_target = |error: tokio_postgres::Error| Broken::Target(target.error(&error));
    let mut stream = pin!(source.client().copy_out(read).await.map_err(of_source)?);
    let mut sink = pin!(target.client().copy_in::<_, Bytes>(write).await.map_err(of_target)?);
    let mut splitter = RowSplitter::new(u16::try_from(shapes.len()).unwrap_or(u16::MAX));
    let is_canonical = is_canonical(shapes);
    let mut scratch = Vec::new();
    let mut flow = Flow::default();
    let mut buffer = BytesMut::with_capacity(BUFFER * 2);
    let mut told = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(of_source)?;
        splitter.push(&chunk, |row| {
            let bytes = if is_canonical { row.body() } else { canonical(row, shapes, &mut scratch)? };
            flow.sum.add(bytes);
            Ok::<_, CopyError>(())
        })?;
        flow.bytes += chunk.len() as u64;
        buffer.extend_from_slice(&chunk);
        if buffer.len() >= BUFFER {
            each(flow.sum.rows - told, buffer.len() as u64);
            told = flow.sum.rows;
            sink.send(buffer.split().freeze()).await.map_err(of_target)?;
            buffer.reserve(BUFFER * 2);
        }
    }
    splitter.finish()?;
    each(flow.sum.rows - told, buffer.len() as u64);
    if !buffer.is_empty() {
        sink.send(buffer.freeze()).await.map_err(of_target)?;
    }
    sink.finish().await.map_err(of_target)?;
    Ok(flow)
}
