//! A source to its words and literals, comments left out.
//!
//! No grammar: what decides is where strings and comments begin and end. Where that is misread (a regular expression
//! taken for a division), the rest of a string turns up among the words, and `boundary` looks there too.
//!
//! Every byte is looked at a bounded number of times: an attempt that fails is not made again before it can succeed.

use std::collections::HashMap;
use std::ops::Range;

use super::language::{Language, SHELL, Syntax};
use super::text::Text;

/// One form of string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quote<'a> {
    pub(super) open: &'a str,
    pub(super) close: &'a str,
    pub(super) escape: Escape,
    /// Whether it may hold a line break.
    pub(super) lines: bool,
    pub(super) holes: Holes<'a>,
}

/// What a string knows of escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    None,
    Backslash,
    /// A backslash before the quote and before itself.
    Only,
    /// A backslash before `$`, `"`, `` ` ``, itself and a line break.
    Shell,
    /// The quote twice.
    Doubled,
}

/// How a string takes in what the program computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes<'a> {
    None,
    /// `{x}`, and `{{` for a brace.
    Brace,
    /// `{{x}}` with as many braces as this text has.
    Braces(&'a str),
    /// `${x}`.
    DollarBrace,
    /// `${x}`, `$x`.
    Dollar,
    /// `{$x}`, `${x}`, `$x->y`, `$x[0]`.
    Php,
    /// `$x`, `${x}`, `$(x)`, `` `x` ``.
    Shell,
    /// `#{x}`.
    HashBrace,
    /// `\(x)`.
    BackslashParen,
}

/// What a source consists of.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) sort: PieceSort,
}

#[derive(Debug, Clone)]
pub(super) enum PieceSort {
    Word,
    Mark(u8),
    Literal(Text),
    Line,
}

/// Pieces of one level: the source itself, or the code in a hole of one of its strings.
pub(super) type Stream = Vec<Piece>;

/// How deep strings may stand in holes of strings: deeper ones are read as text.
const DEPTH: usize = 24;

/// Reads a source.
pub(super) fn scan(source: &str, language: &'static Language) -> Vec<Stream> {
    let mut scanner = Scanner {
        source,
        bytes: source.as_bytes(),
        at: 0,
        language,
        streams: Vec::new(),
        heredocs: Vec::new(),
        lines: None,
        depth: 0,
        bound: 0,
        hopeless: [0; 256],
    };
    if language.syntax == Syntax::Php {
        scanner.skip_to_php();
    }
    let stream = scanner.code(None);
    scanner.streams.push(stream);
    scanner.streams
}

struct Scanner<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    language: &'static Language,
    streams: Vec<Stream>,
    /// Heredocs that were named on this line, and begin on the next: the place in the stream, and how they are written.
    heredocs: Vec<(usize, Heredoc<'a>)>,
    /// Where each line that is one word begins: whether a heredoc ends, and where, must not be searched each time.
    lines: Option<HashMap<&'a str, Vec<usize>>>,
    depth: usize,
    /// Holes of strings that end with their line: so does what stands in them.
    bound: usize,
    /// Up to here a string with this first byte, or a regular expression (`/`), does not end on its line.
    hopeless: [usize; 256],
}

#[derive(Clone, Copy)]
struct Heredoc<'a> {
    word: &'a str,
    escape: Escape,
    holes: Holes<'static>,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn looking_at(&self, text: &str) -> bool {
        self.rest().starts_with(text.as_bytes())
    }

    /// Code up to a bracket that closes it, or to the end.
    fn code(&mut self, end: Option<u8>) -> Stream {
        let mut stream = Stream::new();
        let outer = std::mem::take(&mut self.heredocs);
        let opening = match end {
            Some(b'}') => b'{',
            Some(b')') => b'(',
            _ => 0,
        };
        let mut open = 0usize;
        while self.at < self.bytes.len() {
            let start = self.at;
            let byte = self.bytes[start];
            if Some(byte) == end {
                if open == 0 {
                    break;
                }
                open -= 1;
            } else if byte == opening {
                open += 1;
            }
            if byte == b'\n' && self.bound > 0 {
                break;
            }
            if self.comment() || self.special(&mut stream) || self.quoted(&mut stream) {
                continue;
            }
            match byte {
                b'\n' => {
                    self.at += 1;
                    stream.push(Piece { range: start..self.at, sort: PieceSort::Line });
                    self.read_heredocs(&mut stream);
                }
                b' ' | b'\t' | b'\r' | b'\x0C' => self.at += 1,
                b'\\' if self.peek(1) == b'\n' => self.at += 2,
                _ if is_word(byte) => {
                    while is_word(self.peek(0)) {
                        self.at += 1;
                    }
                    if !self.prefixed(start, &mut stream) {
                        stream.push(Piece { range: start..self.at, sort: PieceSort::Word });
                    }
                }
                _ => {
                    self.at += 1;
                    stream.push(Piece { range: start..self.at, sort: PieceSort::Mark(byte) });
                }
            }
        }
        self.heredocs = outer;
        stream
    }

    /// Steps over a comment.
    fn comment(&mut self) -> bool {
        for (open, close) in self.language.block_comments {
            let at_line = open.strip_prefix('\n');
            let open = at_line.unwrap_or(open);
            if self.looking_at(open) && (at_line.is_none() || self.is_line_start()) {
                self.block_comment(open, close);
                return true;
            }
        }
        let begins = self.language.line_comments.iter().any(|open| self.looking_at(open));
        let attribute = self.language.syntax == Syntax::Php && self.looking_at("#[");
        // `{x:#x}` is a format.
        let in_hole = self.bound > 0 || (self.depth > 0 && self.language.syntax == Syntax::Python);
        if !begins || attribute || in_hole || (self.language.comment_after_blank && !self.is_behind_blank()) {
            return false;
        }
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            if self.language.syntax == Syntax::Php && self.looking_at("?>") {
                break;
            }
            self.at += 1;
        }
        true
    }

    fn block_comment(&mut self, open: &str, close: &str) {
        self.at += open.len();
        let mut depth = 1usize;
        while self.at < self.bytes.len() && !(self.bound > 0 && self.peek(0) == b'\n') {
            if self.looking_at(close) {
                self.at += close.len();
                depth -= 1;
                if depth == 0 {
                    return;
                }
            } else if self.language.nested_comments && self.looking_at(open) {
                self.at += open.len();
                depth += 1;
            } else {
                self.at += 1;
            }
        }
    }

    fn is_line_start(&self) -> bool {
        self.at == 0 || self.bytes[self.at - 1] == b'\n'
    }

    fn is_behind_blank(&self) -> bool {
        self.at == 0 || matches!(self.bytes[self.at - 1], b' ' | b'\t' | b'\n' | b'\r' | b';' | b'(')
    }

    /// What the table of a language cannot say.
    fn special(&mut self, stream: &mut Stream) -> bool {
        let byte = self.peek(0);
        match (self.language.syntax, byte) {
            (Syntax::Rust | Syntax::Character | Syntax::CSharp, b'\'') => {
                self.character();
                true
            }
            (Syntax::Script | Syntax::Ruby, b'/') => self.regular_expression(stream),
            (Syntax::Ruby, b'%') => self.percent(stream),
            (Syntax::Ruby | Syntax::Shell | Syntax::Php, b'<') if self.looking_at("<<") => self.heredoc(stream),
            (Syntax::CSharp, b'$' | b'@' | b'"') => self.c_sharp(stream),
            (Syntax::Php, b'?') if self.looking_at("?>") => {
                self.skip_to_php();
                true
            }
            (Syntax::Shell, b'$') if self.looking_at("$(") && self.depth < DEPTH => {
                let start = self.at;
                self.at += 2;
                self.hole(b')');
                // It stands for a word.
                stream.push(Piece { range: start..self.at, sort: PieceSort::Word });
                true
            }
            (Syntax::Shell, b'$') if self.looking_at("$'") => {
                self.at += 1;
                let quote = Quote { open: "'", close: "'", escape: Escape::Backslash, lines: true, holes: Holes::None };
                self.literal(&quote, stream)
            }
            _ => false,
        }
    }

    /// `'x'`, `'\n'`; else the quote alone, which begins a lifetime or is prose.
    fn character(&mut self) {
        let text = self.source.get(self.at + 1..).unwrap_or_default();
        let length = match text.chars().next() {
            Some('\\') => {
                let escape: usize = text.chars().skip(1).take(1).map(char::len_utf8).sum();
                let behind = text.get(1 + escape..).unwrap_or_default().bytes().take(10);
                behind.clone().position(|byte| byte == b'\'').map(|close| 1 + escape + close)
            }
            Some(one) if one != '\'' && one != '\n' => {
                (text.as_bytes().get(one.len_utf8()) == Some(&b'\'')).then(|| one.len_utf8())
            }
            _ => None,
        };
        self.at += length.map_or(1, |length| length + 2);
    }

    /// Steps over a regular expression where one may begin.
    fn regular_expression(&mut self, stream: &Stream) -> bool {
        let may = match stream.iter().rev().find(|piece| !matches!(piece.sort, PieceSort::Line)) {
            None => true,
            Some(Piece { sort: PieceSort::Mark(mark), .. }) => !b")]}<.".contains(mark),
            Some(Piece { sort: PieceSort::Word, range }) => BEFORE_EXPRESSION.contains(&&self.source[range.clone()]),
            _ => false,
        };
        if !may || self.at < self.hopeless[usize::from(b'/')] {
            return false;
        }
        let (mut at, mut class) = (self.at + 1, false);
        loop {
            match self.bytes.get(at) {
                None | Some(b'\n') => {
                    self.hopeless[usize::from(b'/')] = at;
                    return false;
                }
                Some(b'\\') if self.bytes.get(at + 1).is_some_and(|byte| *byte != b'\n') => at += 1,
                Some(b'[') => class = true,
                Some(b']') => class = false,
                Some(b'/') if !class => break,
                _ => {}
            }
            at += 1;
        }
        self.at = at + 1;
        true
    }

    /// Ruby's `%q(...)`, `%Q{...}`, `%(...)`.
    fn percent(&mut self, stream: &mut Stream) -> bool {
        let letter = self.peek(1);
        let (length, open) = if b"qQwWiIrsx".contains(&letter) { (3, self.peek(2)) } else { (2, letter) };
        let close = match open {
            b'(' => ")",
            b'[' => "]",
            b'{' => "}",
            b'<' => ">",
            b'|' => "|",
            b'!' => "!",
            _ => return false,
        };
        let behind_value = match stream.last() {
            Some(Piece { sort: PieceSort::Literal(_), .. }) => true,
            Some(Piece { sort: PieceSort::Word, range }) => {
                range.end == self.at || !BEFORE_EXPRESSION.contains(&&self.source[range.clone()]) && length == 2
            }
            Some(Piece { sort: PieceSort::Mark(mark), .. }) => b")]}".contains(mark),
            _ => false,
        };
        if behind_value {
            return false;
        }
        let raw = matches!(letter, b'q' | b'w' | b'i');
        let holes = if raw { Holes::None } else { Holes::HashBrace };
        let escape = if raw { Escape::Only } else { Escape::Backslash };
        let opening = &self.source[self.at..self.at + length];
        self.literal(&Quote { open: opening, close, escape, lines: true, holes }, stream)
    }

    /// C#'s `@"..."`, `$"..."`, `$@"..."`, `"""..."""`, `$$"""..."""`.
    fn c_sharp(&mut self, stream: &mut Stream) -> bool {
        let prefix = self.rest().iter().take(16).take_while(|byte| b"$@".contains(byte)).count();
        let quotes = self.rest()[prefix..].iter().take_while(|byte| **byte == b'"').count();
        if quotes == 0 {
            return false;
        }
        let dollars = self.rest()[..prefix].iter().filter(|byte| **byte == b'$').count();
        if quotes >= 3 {
            let open = &self.source[self.at..self.at + prefix + quotes];
            let holes = if dollars == 0 { Holes::None } else { Holes::Braces(&open[..dollars.min(prefix)]) };
            let close = &open[prefix..];
            return self.literal(&Quote { open, close, escape: Escape::None, lines: true, holes }, stream);
        }
        let verbatim = self.rest()[..prefix].contains(&b'@');
        let open = &self.source[self.at..=self.at + prefix];
        let escape = if verbatim { Escape::Doubled } else { Escape::Backslash };
        let holes = if dollars == 0 { Holes::None } else { Holes::Brace };
        self.literal(&Quote { open, close: "\"", escape, lines: verbatim, holes }, stream)
    }

    /// A string whose prefix was read as a word: `r#"..."#`, `f"..."`.
    fn prefixed(&mut self, start: usize, stream: &mut Stream) -> bool {
        let word = &self.source[start..self.at];
        match self.language.syntax {
            Syntax::Rust if matches!(word, "r" | "br" | "cr") => {
                let hashes = self.rest().iter().take_while(|byte| **byte == b'#').count();
                if self.peek(hashes) != b'"' {
                    return false;
                }
                let close = format!("\"{}", "#".repeat(hashes));
                let open = &self.source[self.at..=self.at + hashes];
                self.literal(
                    &Quote { open, close: &close, escape: Escape::None, lines: true, holes: Holes::None },
                    stream,
                )
            }
            Syntax::Python if word.len() <= 2 && word.bytes().all(|byte| b"rRbBfFuUtT".contains(&byte)) => {
                let Some(quote) = self.language.quotes.iter().find(|quote| self.looking_at(quote.open)) else {
                    return false;
                };
                let has = |letter: u8| word.bytes().any(|byte| byte.eq_ignore_ascii_case(&letter));
                let holes = if has(b'f') || has(b't') { Holes::Brace } else { Holes::None };
                let escape = if has(b'r') { Escape::None } else { Escape::Backslash };
                self.literal(&Quote { holes, escape, ..*quote }, stream)
            }
            _ => false,
        }
    }

    fn quoted(&mut self, stream: &mut Stream) -> bool {
        let Some(quote) = self.language.quotes.iter().find(|quote| self.looking_at(quote.open)) else { return false };
        // An apostrophe in a word is prose.
        let in_word = self.at > 0 && is_word(self.bytes[self.at - 1]);
        if self.language.syntax == Syntax::Unknown && quote.open == "'" && in_word {
            return false;
        }
        self.literal(quote, stream)
    }

    /// Reads a string that begins here. One that does not end on its line, and must, is none.
    fn literal(&mut self, quote: &Quote<'_>, stream: &mut Stream) -> bool {
        let first = usize::from(quote.close.as_bytes().first().copied().unwrap_or(0));
        let lines = quote.lines && self.bound == 0;
        if !lines && self.at < self.hopeless[first] {
            return false;
        }
        let start = self.at;
        let streams = self.streams.len();
        self.at += quote.open.len();
        let pairs = paired(quote.open, quote.close);
        let mut nested = 0usize;
        let mut text = Text::default();
        loop {
            let at = self.at;
            let Some(byte) = self.bytes.get(at).copied() else {
                if lines {
                    break;
                }
                return self.give_up(start, first, streams);
            };
            if self.looking_at(quote.close) {
                let length = quote.close.len();
                if quote.escape == Escape::Doubled && self.rest()[length..].starts_with(quote.close.as_bytes()) {
                    text.push_str(quote.close, at);
                    self.at += 2 * length;
                    continue;
                }
                if nested == 0 {
                    // `""""` ends with the last three.
                    while length == 3 && self.rest().get(3) == Some(&quote.close.as_bytes()[0]) {
                        text.push(char::from(quote.close.as_bytes()[0]), self.at);
                        self.at += 1;
                    }
                    self.at += length;
                    break;
                }
                nested -= 1;
            } else if pairs == Some(byte) {
                nested += 1;
            }
            if byte == b'\n' && !lines {
                return self.give_up(start, first, streams);
            }
            self.bound += usize::from(!lines);
            let taken = self.take_hole(quote.holes, &mut text);
            self.bound -= usize::from(!lines);
            if !taken && !self.take_escape(quote, &mut text) {
                self.take_character(&mut text);
            }
        }
        stream.push(Piece { range: start..self.at, sort: PieceSort::Literal(text) });
        true
    }

    fn give_up(&mut self, start: usize, first: usize, streams: usize) -> bool {
        self.hopeless[first] = self.at;
        self.streams.truncate(streams);
        self.at = start;
        false
    }

    fn take_character(&mut self, text: &mut Text) {
        let length = self.source[self.at..].chars().next().map_or(1, char::len_utf8);
        text.push_str(&self.source[self.at..self.at + length], self.at);
        self.at += length;
    }

    fn take_escape(&mut self, quote: &Quote<'_>, text: &mut Text) -> bool {
        if self.peek(0) != b'\\' || matches!(quote.escape, Escape::None | Escape::Doubled) {
            return false;
        }
        let (at, next) = (self.at, self.peek(1));
        let known = match quote.escape {
            Escape::Only => next == b'\\' || quote.close.as_bytes().first() == Some(&next),
            Escape::Shell => b"$\"`\\\n".contains(&next),
            _ => at + 1 < self.bytes.len(),
        };
        if !known {
            return false;
        }
        self.at += 1;
        if quote.escape != Escape::Backslash {
            if next == b'\n' {
                self.at += 1;
            } else {
                self.take_character(text);
            }
            return true;
        }
        let plain = match next {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'0' => ' ',
            b'\r' | b'\n' => {
                self.at += 1 + usize::from(next == b'\r' && self.peek(1) == b'\n');
                return true;
            }
            b'x' | b'u' | b'U' => {
                let (value, length) = hexadecimal(&self.bytes[at + 1..]);
                if let Some(character) = value.filter(|character| *character != '\0') {
                    text.push(character, at);
                    self.at += length;
                    return true;
                }
                char::from(next)
            }
            _ => {
                self.take_character(text);
                return true;
            }
        };
        text.push(plain, at);
        self.at += 1;
        true
    }

    fn take_hole(&mut self, holes: Holes<'_>, text: &mut Text) -> bool {
        let (at, byte, next) = (self.at, self.peek(0), self.peek(1));
        let deep = self.depth >= DEPTH;
        let (open, close) = match (holes, byte) {
            (Holes::None, _) => return false,
            (Holes::Brace, b'{') if next == b'{' => {
                text.push('{', at);
                self.at += 2;
                return true;
            }
            (Holes::Brace, b'}') if next == b'}' => {
                text.push('}', at);
                self.at += 2;
                return true;
            }
            (Holes::Brace, b'{') => (1, b'}'),
            (Holes::Braces(dollars), b'{') => {
                let braces = self.rest().iter().take_while(|byte| **byte == b'{').take(dollars.len()).count();
                if braces < dollars.len() {
                    return false;
                }
                (braces, b'}')
            }
            (Holes::DollarBrace | Holes::Dollar | Holes::Php | Holes::Shell, b'$') if next == b'{' => (2, b'}'),
            (Holes::Php, b'{') if next == b'$' => (1, b'}'),
            (Holes::Shell, b'$') if next == b'(' => (2, b')'),
            (Holes::HashBrace, b'#') if next == b'{' => (2, b'}'),
            (Holes::BackslashParen, b'\\') if next == b'(' => (2, b')'),
            (Holes::Shell, b'`') => {
                self.at += 1;
                while self.at < self.bytes.len() && !matches!(self.peek(0), b'`' | b'"') {
                    self.at += 1;
                }
                self.at += usize::from(self.peek(0) == b'`');
                text.push_hole(at);
                return true;
            }
            (Holes::Dollar | Holes::Php | Holes::Shell, b'$')
                if next.is_ascii_alphabetic()
                    || next == b'_'
                    || (holes == Holes::Shell && (next.is_ascii_digit() || b"@*#?!".contains(&next))) =>
            {
                self.at += 2;
                while next.is_ascii_alphanumeric() | (next == b'_') && is_name(self.peek(0)) {
                    self.at += 1;
                }
                if holes == Holes::Php && self.looking_at("->") && is_name(self.peek(2)) {
                    self.at += 2;
                    while is_name(self.peek(0)) {
                        self.at += 1;
                    }
                }
                text.push_hole(at);
                return true;
            }
            _ => return false,
        };
        if deep {
            return false;
        }
        self.at += open;
        self.hole(close);
        if let Holes::Braces(dollars) = holes {
            // The first closed it; its fellows follow.
            for _ in 1..dollars.len() {
                self.at += usize::from(self.peek(0) == b'}');
            }
        }
        text.push_hole(at);
        true
    }

    /// Reads the code in a hole, and steps behind what closes it.
    fn hole(&mut self, close: u8) {
        self.depth += 1;
        let stream = self.code(Some(close));
        self.depth -= 1;
        self.streams.push(stream);
        self.at += usize::from(self.peek(0) == close);
    }

    fn skip_to_php(&mut self) {
        while self.at < self.bytes.len() && !self.looking_at("<?") {
            self.at += 1;
        }
        self.at = (self.at + 2).min(self.bytes.len());
    }

    /// `<<~SQL`, `<<-'SQL'`, `<<"SQL"`, `<<<SQL`: its text begins on the next line.
    fn heredoc(&mut self, stream: &mut Stream) -> bool {
        let php = self.language.syntax == Syntax::Php;
        let shell = self.language.syntax == Syntax::Shell;
        let mut at = self.at + 2;
        let byte = |at: usize| self.bytes.get(at).copied().unwrap_or(0);
        if php != (byte(at) == b'<') {
            if shell && byte(at) == b'<' {
                // A here-string: what follows is read as any other string.
                self.at += 3;
                return true;
            }
            return false;
        }
        at += usize::from(php);
        let squiggle = !php && (byte(at) == b'-' || (byte(at) == b'~' && !shell));
        at += usize::from(squiggle);
        while (php || shell) && matches!(byte(at), b' ' | b'\t') {
            at += 1;
        }
        let quote = match byte(at) {
            quote @ (b'\'' | b'"') => quote,
            b'`' if !shell && !php => b'`',
            b'\\' if shell => b'\\',
            _ => 0,
        };
        let from = at + usize::from(quote != 0);
        let mut to = from;
        while is_name(byte(to)) {
            to += 1;
        }
        let closed = quote == 0 || quote == b'\\' || byte(to) == quote;
        let constant =
            squiggle || quote != 0 || !(byte(from).is_ascii_lowercase() && self.language.syntax == Syntax::Ruby);
        if from == to || byte(from).is_ascii_digit() || !closed || !constant {
            return false;
        }
        let word = &self.source[from..to];
        if self.end_of_heredoc(word, to).is_none() {
            return false;
        }
        let raw = matches!(quote, b'\'' | b'\\');
        let (escape, holes) = match self.language.syntax {
            _ if raw => (Escape::None, Holes::None),
            Syntax::Shell => (Escape::Shell, Holes::Shell),
            Syntax::Php => (Escape::Backslash, Holes::Php),
            _ => (Escape::Backslash, Holes::HashBrace),
        };
        let start = self.at;
        self.at = to + usize::from(quote != 0 && quote != b'\\');
        self.heredocs.push((stream.len(), Heredoc { word, escape, holes }));
        let sort = PieceSort::Literal(Text::default());
        stream.push(Piece { range: start..self.at, sort });
        true
    }

    /// Where the line begins that ends a heredoc which stands behind a place.
    fn end_of_heredoc(&mut self, word: &str, behind: usize) -> Option<usize> {
        let source = self.source;
        let lines = self.lines.get_or_insert_with(|| {
            let mut lines: HashMap<&str, Vec<usize>> = HashMap::new();
            let mut at = 0;
            for line in source.split_inclusive('\n') {
                let text = line.trim();
                let length = text.bytes().take_while(|byte| is_name(*byte)).count();
                if length > 0 {
                    lines.entry(&text[..length]).or_default().push(at);
                }
                at += line.len();
            }
            lines
        });
        let places = lines.get(word)?;
        // PHP lets code follow the word; elsewhere it stands alone.
        let php = self.language.syntax == Syntax::Php;
        let from = places.partition_point(|at| *at <= behind);
        places[from..]
            .iter()
            .copied()
            .take(if php { 1 } else { 64 })
            .find(|at| php || source[*at..].lines().next().is_some_and(|line| line.trim() == word))
    }

    fn read_heredocs(&mut self, stream: &mut Stream) {
        for (index, heredoc) in std::mem::take(&mut self.heredocs) {
            let Some(end) = self.end_of_heredoc(heredoc.word, self.at.saturating_sub(1)) else { continue };
            let quote = Quote { open: "", close: "", escape: heredoc.escape, lines: true, holes: heredoc.holes };
            let mut text = Text::default();
            while self.at < end {
                if !self.take_hole(quote.holes, &mut text) && !self.take_escape(&quote, &mut text) {
                    self.take_character(&mut text);
                }
            }
            let blanks = self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            if self.at == end {
                self.at += blanks + heredoc.word.len();
            }
            if let Some(piece) = stream.get_mut(index) {
                piece.sort = PieceSort::Literal(text);
            }
        }
    }
}

/// The byte that opens a pair which the closing one ends: `%q(a (b) c)`.
fn paired(open: &str, close: &str) -> Option<u8> {
    let last = open.bytes().last().filter(|_| open.starts_with('%'))?;
    (close.len() == 1 && last != close.as_bytes()[0]).then_some(last)
}

/// The character that `xHH`, `uHHHH`, `UHHHHHHHH` or `u{H...}` names, and how long that is.
fn hexadecimal(bytes: &[u8]) -> (Option<char>, usize) {
    let braced = bytes.get(1) == Some(&b'{');
    let most = match bytes.first() {
        _ if braced => 8,
        Some(b'x') => 2,
        Some(b'u') => 4,
        _ => 8,
    };
    let from = 1 + usize::from(braced);
    let digits = bytes.iter().skip(from).take(most).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let value = bytes[from..]
        .iter()
        .take(digits)
        .fold(0u32, |value, byte| value.wrapping_mul(16).wrapping_add(char::from(*byte).to_digit(16).unwrap_or(0)));
    let closed = braced && bytes.get(from + digits) == Some(&b'}');
    let whole = digits > 0 && braced == closed;
    (whole.then(|| char::from_u32(value)).flatten(), from + digits + usize::from(closed))
}

/// Words behind which an expression begins, and so a slash a regular expression.
const BEFORE_EXPRESSION: &[&str] = &[
    "return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else", "do", "and", "or", "not", "if",
    "unless", "when", "while", "until", "yield", "await", "then", "puts", "execute",
];

fn is_word(byte: u8) -> bool {
    is_name(byte) || byte >= 0x80
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Reads a text as a shell would: `psql -c "..."` in a program's string.
pub(super) fn shell(text: &str) -> Vec<Stream> {
    scan(text, &SHELL)
}
