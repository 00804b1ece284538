//! Cuts a stream of chunks into rows. Nothing is trusted, and nothing is copied that arrives whole.

use super::{CopyError, HEADER, ROW_LIMIT};

/// The first eleven bytes of a stream.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// No version has written an extension; this is what one might reasonably be.
const EXTENSION_LIMIT: i32 = 1 << 16;

/// Flags that change what follows; those below only inform.
const CRITICAL: u32 = 0xffff_0000;

/// Cuts a stream into rows of so many fields. Chunks may end anywhere.
///
/// It keeps what has arrived of a row that is not complete, and so never more than [`ROW_LIMIT`] and a chunk.
#[derive(Debug)]
pub struct RowSplitter {
    columns: u16,
    stage: Stage,
    /// What came of a row (or the header) that is not complete.
    rest: Vec<u8>,
    /// How much of `rest` was looked at: it is not looked at again for each chunk.
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Rows,
    Ended,
}

/// How far into a row the scan has got.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Bytes, up to the next field's length.
    bytes: usize,
    /// Fields.
    fields: u16,
}

/// What the front of the data is.
enum Front {
    Row(usize),
    End(usize),
    More,
}

impl RowSplitter {
    /// For rows of so many fields, at most 1,664 in PostgreSQL.
    pub fn new(columns: u16) -> Self {
        Self { columns, stage: Stage::Header, rest: Vec::new(), seen: Seen::default() }
    }

    /// Takes a chunk, and gives each row that it completes to `each`.
    ///
    /// # Errors
    /// [`CopyError`] if it is not what COPY writes, or what `each` returns. The splitter is of no use afterwards.
    pub fn push<E: From<CopyError>>(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest.is_empty() {
            // The server sends each row in a message of its own: this is how it nearly always goes.
            let used = self.rows(chunk, &mut each)?;
            self.rest.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(chunk);
        let used = self.rows(&rest, &mut each)?;
        rest.drain(..used);
        self.rest = rest;
        Ok(())
    }

    /// To be called at the stream's end.
    ///
    /// # Errors
    /// [`CopyError::Unfinished`] if the trailer has not come.
    pub fn finish(self) -> Result<(), CopyError> {
        if self.stage == Stage::Ended { Ok(()) } else { Err(CopyError::Unfinished) }
    }

    /// How much of the data was used up.
    fn rows<E: From<CopyError>>(
        &mut self,
        data: &[u8],
        each: &mut impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        if self.stage == Stage::Header {
            let Some(end) = header(data)? else { return Ok(0) };
            at = end;
            self.stage = Stage::Rows;
        }
        loop {
            let front = &data[at..];
            if self.stage == Stage::Ended {
                return if front.is_empty() { Ok(at) } else { Err(CopyError::AfterEnd.into()) };
            }
            match self.front(front)? {
                Front::Row(length) => {
                    each(Row { bytes: &front[..length] })?;
                    at += length;
                    self.seen = Seen::default();
                }
                Front::End(length) => {
                    at += length;
                    self.stage = Stage::Ended;
                }
                Front::More => return Ok(at),
            }
        }
    }

    fn front(&mut self, data: &[u8]) -> Result<Front, CopyError> {
        if self.seen.bytes == 0 {
            let Some(count) = data.first_chunk() else { return Ok(Front::More) };
            let found = i16::from_be_bytes(*count);
            if found == -1 {
                return Ok(Front::End(2));
            }
            let expected = self.columns;
            if u16::try_from(found) != Ok(expected) {
                return Err(CopyError::FieldCount { expected, found });
            }
            self.seen.bytes = 2;
        }
        while self.seen.fields < self.columns {
            let Some(length) = data.get(self.seen.bytes..).and_then(|rest| rest.first_chunk()) else {
                return Ok(Front::More);
            };
            let length = match i32::from_be_bytes(*length) {
                -1 => 0,
                length => usize::try_from(length).map_err(|_| CopyError::FieldLength(length))?,
            };
            // Both are below 2^31: no overflow.
            let end = self.seen.bytes + 4 + length;
            if end > ROW_LIMIT {
                return Err(CopyError::RowLength);
            }
            if end > data.len() {
                return Ok(Front::More);
            }
            self.seen = Seen { bytes: end, fields: self.seen.fields + 1 };
        }
        Ok(Front::Row(self.seen.bytes))
    }
}

/// Where the header ends; none if it has not all come.
fn header(data: &[u8]) -> Result<Option<usize>, CopyError> {
    let known = data.len().min(SIGNATURE.len());
    if data[..known] != SIGNATURE[..known] {
        return Err(CopyError::Signature);
    }
    let word = |at: usize| data.get(at..).and_then(|rest| rest.first_chunk()).copied();
    let (Some(flags), Some(extension)) = (word(11), word(15)) else { return Ok(None) };
    let flags = u32::from_be_bytes(flags);
    if flags & CRITICAL != 0 {
        return Err(CopyError::Flags(flags));
    }
    let extension = i32::from_be_bytes(extension);
    if !(0..=EXTENSION_LIMIT).contains(&extension) {
        return Err(CopyError::Extension(extension));
    }
    let end = HEADER.len() + extension.unsigned_abs() as usize;
    Ok((data.len() >= end).then_some(end))
}

/// A row whose fields are known to lie in it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
}

impl<'a> Row<'a> {
    /// All of it, as COPY takes it.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Its fields with their lengths, without the number that leads them: what is hashed, where no column's
    /// [`Shape`](crate::relation::Shape) forbids it.
    pub fn body(self) -> &'a [u8] {
        &self.bytes[2..]
    }

    /// Its fields in order.
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self.body() }
    }
}

/// The fields of a row; [`None`] within is NULL.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Some(None);
        };
        let (field, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fields = Vec<Option<Vec<u8>>>;

    fn stream(rows: &[Fields]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for row in rows {
            bytes.extend((row.len() as i16).to_be_bytes());
            for field in row {
                bytes.extend(field.as_ref().map_or(-1, |field| field.len() as i32).to_be_bytes());
                bytes.extend(field.iter().flatten());
            }
        }
        bytes.extend(super::super::TRAILER);
        bytes
    }

    fn read(columns: u16, chunks: &[&[u8]]) -> Result<Vec<Fields>, CopyError> {
        let mut splitter = RowSplitter::new(columns);
        let mut rows = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |row| {
                rows.push(row.fields().map(|field| field.map(<[u8]>::to_vec)).collect());
                Ok::<_, CopyError>(())
            })?;
        }
        splitter.finish().map(|()| rows)
    }

    proptest! {
        #[test]
        fn rows_come_out_however_the_stream_is_cut(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 3), 0..9),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = stream(&rows);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            places.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for place in places {
                chunks.push(&bytes[from..place]);
                from = place;
            }
            chunks.push(&bytes[from..]);
            prop_assert_eq!(read(3, &chunks), Ok(rows));
        }

        #[test]
        fn any_bytes_are_rows_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64), columns in 0u16..4) {
            let whole = [HEADER.as_slice(), &bytes].concat();
            let at_once = read(columns, &[&whole]);
            let single: Vec<&[u8]> = whole.chunks(1).collect();
            prop_assert_eq!(at_once, read(columns, &single));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |at: usize, byte: u8| {
            let mut bytes = stream(&[vec![Some(b"x".to_vec())]]);
            bytes[at] = byte;
            read(1, &[&bytes])
        };
        assert_eq!(with(3, b'x'), Err(CopyError::Signature));
        assert_eq!(with(12, 1), Err(CopyError::Flags(0x1_0000)));
        assert_eq!(with(15, 0xff), Err(CopyError::Extension(-0x0100_0000)));
        assert_eq!(with(20, 2), Err(CopyError::FieldCount { expected: 1, found: 2 }));
        assert_eq!(with(21, 0x40), Err(CopyError::RowLength));
        assert_eq!(with(21, 0x80), Err(CopyError::FieldLength(i32::MIN + 1)));
        let mut bytes = stream(&[]);
        assert_eq!(read(1, &[&bytes[..20]]), Err(CopyError::Unfinished));
        bytes.push(0);
        assert_eq!(read(1, &[&bytes]), Err(CopyError::AfterEnd));
        // Flags that only inform, and an extension to be skipped.
        let mut bytes = stream(&[vec![None]]);
        (bytes[14], bytes[18]) = (7, 2);
        bytes.splice(19..19, *b"xy");
        assert_eq!(read(1, &[&bytes]), Ok(vec![vec![None]]));
    }
}
