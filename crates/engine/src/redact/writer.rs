//! Redaction of output that comes in chunks.

use std::io::{self, Write};
use std::sync::LazyLock;

use regex::Regex;

use super::{MARK, PRIVATE_KEY_BEGINS, PRIVATE_KEY_ENDS, Redactor, replaced};

/// A line is passed on in parts once it is longer than this.
const LONGEST_LINE: usize = 1 << 18;

/// So many bytes stay back where output is cut elsewhere than at a line end: more than the longest form of a piece of
/// a secret (192 bytes, of which each may become twelve).
const HELD: usize = 1 << 12;

/// The end of a private key is shorter than this.
const KEY_END_LENGTH: usize = 64;

/// Passes text on without secrets, wherever chunks are cut.
///
/// Whole lines are passed on as they come, since shapes do not go over lines; with a known secret of several lines,
/// and in very long lines, the last [`HELD`] bytes stay back. A private key is dropped to its end. What is not UTF-8 is
/// replaced. [`RedactingWriter::finish`] passes on what is held; `flush` does not.
#[derive(Debug)]
pub struct RedactingWriter<W: Write> {
    redactor: Redactor,
    pub(super) sink: Option<W>,
    pub(super) held: Vec<u8>,
    /// Inside a private key: everything up to its end is dropped.
    in_key: bool,
}

impl<W: Write> RedactingWriter<W> {
    /// Redacts what is written before it reaches `sink`.
    pub fn new(redactor: Redactor, sink: W) -> Self {
        Self { redactor, sink: Some(sink), held: Vec::new(), in_key: false }
    }

    /// Passes on what was held back, and gives the sink back.
    ///
    /// # Errors
    /// If the sink cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.pass_on(Until::End)?;
        let mut sink = self.sink.take().expect("taken only here, which consumes the writer");
        sink.flush()?;
        Ok(sink)
    }

    /// Passes on what is sure: never a part of a secret whose rest is still held or still to come.
    fn pass_on(&mut self, until: Until) -> io::Result<()> {
        let whole = match until {
            Until::Sure => whole_characters(&self.held),
            Until::End => self.held.len(),
        };
        let begun_character = self.held.split_off(whole);
        let mut text = String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
        if self.in_key {
            match KEY_ENDS.find(&text) {
                Some(end) => {
                    text.drain(..end.end());
                    self.in_key = false;
                }
                None => {
                    // Only what may be the beginning of its end is of use.
                    let dropped = (0..=text.len().saturating_sub(KEY_END_LENGTH)).rev();
                    let dropped = dropped.into_iter().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                    text.drain(..dropped);
                }
            }
        }
        let passed = if self.in_key { 0 } else { self.pass_on_text(&text, until)? };
        self.held = text.into_bytes();
        self.held.drain(..passed);
        self.held.extend(begun_character);
        Ok(())
    }

    /// Returns how many bytes need not be held any more.
    fn pass_on_text(&mut self, text: &str, until: Until) -> io::Result<usize> {
        let sure = match until {
            Until::Sure => self.sure(text.as_bytes()),
            Until::End => text.len(),
        };
        let sure = (0..=sure).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let mut found = self.redactor.find(text);
        let mut keys = KEY_BEGINS.find_iter(&text[..sure]);
        let open_key = keys.find(|key| !KEY_ENDS.is_match(&text[key.end()..]));
        let begin = open_key.as_ref().map_or(sure, regex::Match::start);
        let cut =
            found.iter().find(|range| range.start < begin && range.end > begin).map_or(begin, |range| range.start);
        found.retain(|range| range.end <= cut);
        let sink = self.sink.as_mut().expect("taken only by finish, which consumes the writer");
        sink.write_all(replaced(&text[..cut], &found).as_bytes())?;
        let Some(key) = open_key else { return Ok(cut) };
        sink.write_all(MARK.as_bytes())?;
        self.in_key = true;
        Ok(key.end())
    }

    /// So many bytes hold no beginning of a secret that goes on behind them, but for what is found there.
    fn sure(&self, held: &[u8]) -> usize {
        let free = if self.redactor.is_multiline() { held.len().saturating_sub(HELD) } else { held.len() };
        match held[..free].iter().rposition(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(line_end) => line_end + 1,
            None if held.len() > LONGEST_LINE => held.len() - HELD,
            None => 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Until {
    /// More may come.
    Sure,
    /// Nothing more comes.
    End,
}

/// The bytes without a character at the end of which only a part is there.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let begun = tail.iter().rposition(|byte| *byte >= 0b1100_0000).filter(|at| {
        let length = if tail[*at] >= 0b1111_0000 {
            4
        } else if tail[*at] >= 0b1110_0000 {
            3
        } else {
            2
        };
        tail.len() - at < length
    });
    begun.map_or(bytes.len(), |at| bytes.len() - tail.len() + at)
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.in_key || self.sure(&self.held) > 0 {
            self.pass_on(Until::Sure)?;
        }
        Ok(bytes.len())
    }

    /// Flushes the sink. What is held back stays so: it may be the first half of a secret.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.as_mut().expect("taken only by finish, which consumes the writer").flush()
    }
}

impl<W: Write> Drop for RedactingWriter<W> {
    fn drop(&mut self) {
        if self.sink.is_some() {
            // Whoever wants to know of errors calls `finish`.
            let _ = self.pass_on(Until::End);
        }
    }
}

static KEY_BEGINS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(PRIVATE_KEY_BEGINS).expect("a constant, and a test compiles it"));
static KEY_ENDS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(PRIVATE_KEY_ENDS).expect("a constant, and a test compiles it"));
