//! A text taken out of a source, each byte of which still knows where it stood.

use std::ops::Range;

/// Stands in a text for what only the running program knows: `{name}`, `" + name + "`. A letter for the SQL lexer, so
/// that a name with a hole stays one name; of the private use area, so that nobody's text has it.
pub(super) const HOLE: char = '\u{F8F0}';

/// What a literal means once its escapes are read, and where in the source each byte of it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) value: String,
    /// From this byte of `value` on, bytes follow each other in the source from that place on. Ascending.
    runs: Vec<(usize, usize)>,
}

impl Text {
    /// A piece of the source as it stands.
    pub(super) fn verbatim(piece: &str, at: usize) -> Self {
        Self { value: piece.to_owned(), runs: vec![(0, at)] }
    }

    /// Adds a piece of the source as it stands.
    pub(super) fn push_str(&mut self, piece: &str, at: usize) {
        self.place(at);
        self.value.push_str(piece);
    }

    /// Adds what an escape stands for.
    pub(super) fn push(&mut self, character: char, at: usize) {
        self.place(at);
        self.value.push(character);
    }

    /// Adds what only the running program knows; several in a row are one.
    pub(super) fn push_hole(&mut self, at: usize) {
        if !self.value.ends_with(HOLE) {
            self.push(HOLE, at);
        }
    }

    pub(super) fn append(&mut self, other: &Self) {
        let before = self.value.len();
        self.runs.extend(other.runs.iter().map(|(byte, at)| (before + byte, *at)));
        self.value.push_str(&other.value);
    }

    fn place(&mut self, at: usize) {
        let byte = self.value.len();
        match self.runs.last() {
            Some((from, start)) if start + (byte - from) == at => {}
            _ => self.runs.push((byte, at)),
        }
    }

    /// Where a byte stood in the source.
    pub(super) fn at(&self, byte: usize) -> usize {
        let run = self.runs.partition_point(|(from, _)| *from <= byte);
        run.checked_sub(1).map_or(0, |run| self.runs[run].1 + (byte - self.runs[run].0))
    }

    /// Where a range stood in the source.
    pub(super) fn range(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.at(range.start);
        start..range.end.checked_sub(1).map_or(start, |last| self.at(last) + 1).max(start)
    }

    /// Another value of the same length, each byte where it stood.
    pub(super) fn with(&self, value: String) -> Self {
        Self { value, runs: self.runs.clone() }
    }

    /// A part of it.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let runs = self.runs.iter().filter(|(byte, _)| *byte > range.start && *byte < range.end);
        let runs = runs.map(|(byte, at)| (byte - range.start, *at));
        Self {
            runs: std::iter::once((0, self.at(range.start))).chain(runs).collect(),
            value: self.value[range].to_owned(),
        }
    }

    /// A text that was taken out of this one's value, placed where this one stands.
    pub(super) fn within(mut self, outer: &Self) -> Self {
        for (_, at) in &mut self.runs {
            *at = outer.at(*at);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_know_where_they_stood() {
        let mut text = Text::verbatim("ab", 10);
        text.push('\n', 12);
        text.push_str("cd", 14);
        text.push_hole(20);
        text.push_hole(25);
        text.append(&Text::verbatim("e", 40));
        assert_eq!(text.value, format!("ab\ncd{HOLE}e"));
        let places: Vec<_> = [0, 1, 2, 3, 4, 5, 8].iter().map(|byte| text.at(*byte)).collect();
        assert_eq!(places, [10, 11, 12, 14, 15, 20, 40]);
        assert_eq!(text.slice(1..5).at(2), 14);
        assert_eq!(text.range(&(3..5)), 14..16);
    }
}
