//! Strings that a program puts together, as one text: `"INSERT INTO " + table + " VALUES"`.

use super::language::{Adjacent, Language, Syntax};
use super::mapping::brackets;
use super::scan::{Piece, PieceSort};
use super::text::Text;

/// A text of a source, and where it begins there.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) at: usize,
    pub(super) text: Text,
}

/// What became of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    No,
    /// It went on with another one.
    Joined,
    /// It stands in what another one is joined with.
    Alone,
}

/// The texts of a stream.
pub(super) fn texts(source: &str, stream: &[Piece], language: &'static Language) -> Vec<Joined> {
    let (opener, behind) = brackets(stream);
    let joiner = Joiner { source, stream, language, opener, behind };
    let mut taken = vec![Taken::No; stream.len()];
    let mut all = Vec::new();
    for at in 0..stream.len() {
        let PieceSort::Literal(text) = &stream[at].sort else { continue };
        if taken[at] == Taken::Joined || joiner.is_documentation(at) || joiner.is_searched_for(at) {
            continue;
        }
        let text = if taken[at] == Taken::Alone { text.clone() } else { joiner.join(at, text, &mut taken) };
        all.push(Joined { at: stream[at].range.start, text });
    }
    all
}

struct Joiner<'a> {
    source: &'a str,
    stream: &'a [Piece],
    language: &'static Language,
    opener: Vec<Option<usize>>,
    behind: Vec<usize>,
}

impl Joiner<'_> {
    fn word(&self, at: usize) -> &str {
        match self.stream.get(at) {
            Some(Piece { sort: PieceSort::Word, range }) => &self.source[range.clone()],
            _ => "",
        }
    }

    fn mark(&self, at: usize) -> u8 {
        match self.stream.get(at).map(|piece| &piece.sort) {
            Some(PieceSort::Mark(mark)) => *mark,
            _ => 0,
        }
    }

    fn is_line(&self, at: usize) -> bool {
        matches!(self.stream.get(at).map(|piece| &piece.sort), Some(PieceSort::Line))
    }

    fn is_literal(&self, at: usize) -> bool {
        matches!(self.stream.get(at).map(|piece| &piece.sort), Some(PieceSort::Literal(_)))
    }

    /// A string that stands alone as a statement of Python documents what it stands in.
    fn is_documentation(&self, at: usize) -> bool {
        let before = &self.source.as_bytes()[..self.stream[at].range.start];
        let prefix = before.iter().rev().take_while(|byte| byte.is_ascii_alphabetic());
        self.language.syntax == Syntax::Python
            && prefix.clone().all(|byte| b"rRuU".contains(byte))
            && self.opener[at].is_none()
            && at.checked_sub(1).is_none_or(|before| self.is_line(before))
            && (at + 1 >= self.stream.len() || self.is_line(at + 1))
            // A line that a backslash goes on with has no piece between.
            && !self.source[..self.stream[at].range.start].trim_end_matches([' ', '\t']).ends_with("\\\n")
    }

    /// What `grep` looks for is mentioned, not run.
    fn is_searched_for(&self, at: usize) -> bool {
        if self.language.syntax != Syntax::Shell {
            return false;
        }
        const SEARCH: &[&str] = &["grep", "egrep", "fgrep", "zgrep", "rg", "ag", "ack", "sed", "awk"];
        let mut first = "";
        for before in (0..at).rev().take(200) {
            if self.is_line(before) || b";|&({`".contains(&self.mark(before).max(1)) {
                break;
            }
            let word = self.word(before);
            if SEARCH.contains(&word) {
                first = word;
            }
        }
        !first.is_empty()
    }

    /// How many pieces the joining operator takes here; 0: it is none.
    fn operator(&self, at: usize) -> usize {
        let join = self.language.join.as_bytes();
        let there = !join.is_empty() && join.iter().enumerate().all(|(ahead, mark)| self.mark(at + ahead) == *mark);
        let more = self.mark(at + join.len());
        // `+=`, `++`, `..` and `...` are others.
        let other = there && (more == b'=' || more == join[0]) && self.touches(at + join.len());
        if there && !other { join.len() } else { 0 }
    }

    fn touches(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| self.stream.get(before));
        matches!((before, self.stream.get(at)), (Some(before), Some(piece)) if before.range.end == piece.range.start)
    }

    fn skip_lines(&self, mut at: usize) -> usize {
        while self.is_line(at) {
            at += 1;
        }
        at
    }

    fn join(&self, at: usize, first: &Text, taken: &mut [Taken]) -> Text {
        let mut text = Text::default();
        let before = (0..at).rev().take(8).find(|before| !self.is_line(*before));
        let is_operand = before.is_some_and(|before| {
            let length = self.language.join.len();
            length > 0 && before + 1 >= length && self.operator(before + 1 - length) == length
        });
        if is_operand {
            text.push_hole(self.stream[at].range.start);
        }
        text.append(first);
        let mut next = at + 1;
        loop {
            let operator_at = self.skip_lines(next);
            let length = self.operator(operator_at);
            if length > 0 {
                next = self.operand(self.skip_lines(operator_at + length), &mut text, taken);
            } else if self.is_concat(at) && self.mark(operator_at) == b',' {
                let operand = self.skip_lines(operator_at + 1);
                if self.mark(operand) == b')' {
                    return text;
                }
                next = self.operand(operand, &mut text, taken);
            } else if let Some(adjacent) = self.adjacent(next) {
                next = self.operand(adjacent, &mut text, taken);
            } else {
                return text;
            }
        }
    }

    /// Rust's `concat!("a", "b")`.
    fn is_concat(&self, at: usize) -> bool {
        self.language.syntax == Syntax::Rust
            && self.opener[at]
                .is_some_and(|open| open >= 2 && self.mark(open - 1) == b'!' && self.word(open - 2) == "concat")
    }

    /// The string, or in a shell the word, that goes on with the one that ended here.
    fn adjacent(&self, at: usize) -> Option<usize> {
        match self.language.adjacent {
            Adjacent::No => None,
            Adjacent::Blank => {
                let next = if at.checked_sub(1).is_some_and(|at| self.opener[at].is_some()) {
                    self.skip_lines(at)
                } else {
                    at
                };
                // A prefix such as C's `L` is a word of its own: nobody writes SQL with it.
                self.is_literal(next).then_some(next)
            }
            Adjacent::Touching => (self.touches(at) && !self.ends_word(at)).then_some(at),
        }
    }

    /// Adds what is joined: a string, or a hole for anything else. The piece behind it.
    fn operand(&self, from: usize, text: &mut Text, taken: &mut [Taken]) -> usize {
        let Some(piece) = self.stream.get(from) else { return from };
        let mut at = from + 1;
        let plain = match &piece.sort {
            PieceSort::Literal(literal) => {
                text.append(literal);
                taken[from] = Taken::Joined;
                true
            }
            _ => {
                text.push_hole(piece.range.start);
                at = from;
                false
            }
        };
        if self.language.adjacent == Adjacent::Touching {
            // `$x`, `${x}`: to the end of the word, or to the next string in it.
            at = from + 1;
            while self.touches(at) && !self.is_literal(at) && !self.ends_word(at) {
                at += 1;
            }
            return at;
        }
        loop {
            if at >= self.stream.len() || self.operator(at) > 0 || (plain && self.is_literal(at)) {
                return at;
            }
            match self.mark(at) {
                b'(' | b'[' | b'{' => {
                    at = self.behind[at];
                    continue;
                }
                // `A::B`
                b':' if self.mark(at + 1) == b':' => at += 2,
                b',' | b';' | b')' | b']' | b'}' | b'=' | b'?' | b':' => return at,
                _ if self.is_line(at) => {
                    let next = self.skip_lines(at);
                    let goes_on = self.operator(next) > 0 || self.mark(next) == b'.';
                    if !goes_on {
                        return at;
                    }
                    at = next;
                }
                _ => {
                    // It is looked at again, and begins nothing then: a long chain would be read for each of its parts.
                    if self.is_literal(at) {
                        taken[at] = Taken::Alone;
                    }
                    at += 1;
                }
            }
        }
    }

    fn ends_word(&self, at: usize) -> bool {
        self.is_line(at) || b";|&()<>".contains(&self.mark(at).max(1))
    }
}
