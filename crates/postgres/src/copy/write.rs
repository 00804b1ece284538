//! Writes rows for `COPY ... FROM STDIN (FORMAT binary)`.

use bytes::Bytes;

use super::{CopyError, HEADER, TRAILER};

/// Writes a stream of rows into a buffer that is taken away from time to time.
///
/// The form of each value is that of the column's type: the server checks lengths, and what fits by chance it believes.
#[derive(Debug)]
pub struct RowWriter {
    buffer: Vec<u8>,
    columns: u16,
    fields: u16,
}

impl RowWriter {
    /// For rows of so many fields; the header is written.
    pub fn new(columns: u16) -> Self {
        Self { buffer: HEADER.to_vec(), columns, fields: 0 }
    }

    /// Begins a row. Then one call for each field, then [`RowWriter::end_row`].
    pub fn begin_row(&mut self) {
        self.fields = 0;
        self.buffer.extend_from_slice(&self.columns.to_be_bytes());
    }

    /// Ends a row.
    ///
    /// # Errors
    /// [`CopyError::FieldCount`] if it has not as many fields as columns were announced. The stream is spoilt then.
    pub fn end_row(&mut self) -> Result<(), CopyError> {
        if self.fields == self.columns {
            return Ok(());
        }
        let found = i16::try_from(self.fields).unwrap_or(i16::MAX);
        Err(CopyError::FieldCount { expected: self.columns, found })
    }

    /// Bytes that wait to be taken.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes what was written so far; it may end anywhere.
    pub fn take(&mut self) -> Bytes {
        let capacity = self.buffer.capacity();
        std::mem::replace(&mut self.buffer, Vec::with_capacity(capacity)).into()
    }

    /// Writes the trailer, and gives what was not taken yet.
    pub fn finish(mut self) -> Bytes {
        self.buffer.extend_from_slice(TRAILER);
        self.buffer.into()
    }

    /// NULL of any type.
    pub fn null(&mut self) {
        self.fields = self.fields.saturating_add(1);
        self.buffer.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// A value in its type's binary form. Longer than a gigabyte it is more than the server takes, and becomes a length
    /// that the server refuses.
    pub fn field(&mut self, value: &[u8]) {
        self.fields = self.fields.saturating_add(1);
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(value);
    }

    /// `smallint`.
    pub fn i16(&mut self, value: i16) {
        self.field(&value.to_be_bytes());
    }

    /// `integer`.
    pub fn i32(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    /// `bigint`.
    pub fn i64(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    /// `double precision`, by its bits.
    pub fn f64(&mut self, value: f64) {
        self.field(&value.to_be_bytes());
    }

    /// `boolean`.
    pub fn bool(&mut self, value: bool) {
        self.field(&[u8::from(value)]);
    }

    /// `text`, `varchar`, `json`, `xml` and enumerations: the text in the client's encoding. The server refuses NUL.
    pub fn text(&mut self, value: &str) {
        self.field(value.as_bytes());
    }

    /// `bytea`.
    pub fn bytea(&mut self, value: &[u8]) {
        self.field(value);
    }

    /// `date`: days since 2000-01-01.
    pub fn date(&mut self, days: i32) {
        self.i32(days);
    }

    /// `timestamp` and `timestamptz`: microseconds since 2000-01-01 (in UTC).
    pub fn timestamp(&mut self, micros: i64) {
        self.i64(micros);
    }

    /// `json`, as it is written.
    pub fn json(&mut self, text: &str) {
        self.text(text);
    }

    /// `jsonb`: a version, and the text, which the server parses.
    pub fn jsonb(&mut self, text: &str) {
        self.fields = self.fields.saturating_add(1);
        let length = i32::try_from(text.len().saturating_add(1)).unwrap_or(i32::MAX);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.push(1);
        self.buffer.extend_from_slice(text.as_bytes());
    }

    /// `uuid`.
    pub fn uuid(&mut self, value: [u8; 16]) {
        self.field(&value);
    }
}
