//! Rows as `COPY ... FROM STDIN` takes them.
//!
//! Source: "COPY", sections "Text Format" and "Binary Format" of PostgreSQL's documentation.

use bytes::{BufMut, BytesMut};

use crate::pgoutput::Cell;

/// In which of COPY's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    Text,
    Binary,
}

impl Format {
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Text => "(FORMAT text)",
            Self::Binary => "(FORMAT binary)",
        }
    }

    /// What comes before the first row.
    pub(super) fn begin(self, into: &mut BytesMut) {
        if self == Self::Binary {
            into.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        }
    }

    /// What comes after the last row.
    pub(super) fn end(self, into: &mut BytesMut) {
        if self == Self::Binary {
            into.put_i16(-1);
        }
    }

    /// One row. A cell that was not sent goes as NULL: callers leave such columns out.
    pub(super) fn row<'a>(
        self,
        into: &mut BytesMut,
        cells: impl ExactSizeIterator<Item = &'a Cell>,
        count: Option<i32>,
    ) {
        match self {
            Self::Binary => binary(into, cells, count),
            Self::Text => text(into, cells, count),
        }
    }
}

fn binary<'a>(into: &mut BytesMut, cells: impl ExactSizeIterator<Item = &'a Cell>, count: Option<i32>) {
    let fields = cells.len() + usize::from(count.is_some());
    into.put_i16(i16::try_from(fields).expect("a table has at most 1,600 columns"));
    if let Some(count) = count {
        into.put_i32(4);
        into.put_i32(count);
    }
    for cell in cells {
        match cell {
            Cell::Null | Cell::Unchanged => into.put_i32(-1),
            Cell::Text(bytes) | Cell::Binary(bytes) => {
                into.put_i32(i32::try_from(bytes.len()).expect("a field has at most 1 GB"));
                into.put_slice(bytes);
            }
        }
    }
}

fn text<'a>(into: &mut BytesMut, cells: impl ExactSizeIterator<Item = &'a Cell>, count: Option<i32>) {
    if let Some(count) = count {
        into.put_slice(count.to_string().as_bytes());
        into.put_u8(b'\t');
    }
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            into.put_u8(b'\t');
        }
        match cell {
            Cell::Null | Cell::Unchanged => into.put_slice(b"\\N"),
            Cell::Text(bytes) | Cell::Binary(bytes) => escaped(into, bytes),
        }
    }
    into.put_u8(b'\n');
}

fn escaped(into: &mut BytesMut, mut bytes: &[u8]) {
    let special = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
    while let Some(at) = bytes.iter().position(special) {
        into.put_slice(&bytes[..at]);
        into.put_u8(b'\\');
        into.put_u8(match bytes[at] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        });
        bytes = &bytes[at + 1..];
    }
    into.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut into = BytesMut::new();
        let cells = [Cell::Text(Bytes::from_static(b"a\\\t\n\rb")), Cell::Null, Cell::Text(Bytes::new())];
        Format::Text.row(&mut into, cells.iter(), Some(7));
        assert_eq!(&into[..], b"7\ta\\\\\\t\\n\\rb\t\\N\t\n");
    }

    #[test]
    fn binary_fields_carry_their_length() {
        let mut into = BytesMut::new();
        let cells = [Cell::Binary(Bytes::from_static(b"ab")), Cell::Null];
        Format::Binary.row(&mut into, cells.iter(), None);
        assert_eq!(&into[..], b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff");
    }
}
