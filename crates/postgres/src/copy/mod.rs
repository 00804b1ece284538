//! Rows in the binary format of COPY: read from a server ([`CopyOut`]), cut out of a stream ([`RowSplitter`]), written
//! ([`RowWriter`]), and made the same in every database ([`canonical`]).
//!
//! A stream is a header, rows, and a trailer. A row is the number of its fields (16 bits), and of each field its length
//! (32 bits; -1 for NULL) and its bytes. Source: "COPY", "Binary Format", in PostgreSQL's documentation.

mod canonical;
mod numeric;
mod out;
mod split;
mod write;

pub use canonical::{canonical, is_canonical};
pub use numeric::{NotANumber, numeric};
pub use out::CopyOut;
pub use split::{Fields, Row, RowSplitter};
pub use write::RowWriter;

/// The signature, no flags, no extension.
pub const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// In place of a number of fields: the end.
pub const TRAILER: &[u8; 2] = b"\xff\xff";

/// No row is longer: the server builds a row in memory that it never allocates more of (`MaxAllocSize`).
pub const ROW_LIMIT: usize = 0x3fff_ffff;

/// Bytes that are not what COPY writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    #[error("the stream does not begin as binary COPY does")]
    Signature,
    #[error("the header has flags that mean something unknown: {0:#x}")]
    Flags(u32),
    #[error("the header's extension is {0} bytes long")]
    Extension(i32),
    #[error("a row has {found} fields where {expected} were asked for")]
    FieldCount { expected: u16, found: i16 },
    #[error("a field is {0} bytes long")]
    FieldLength(i32),
    #[error("a row is longer than the {ROW_LIMIT} bytes that a server can build")]
    RowLength,
    #[error("data follow the end")]
    AfterEnd,
    #[error("the stream ends in the middle")]
    Unfinished,
    #[error("the bytes of a field are not those of its type")]
    Malformed,
}
