//! A text cut into statements where `psql` cuts it.
//!
//! A semicolon ends a statement unless it stands in parentheses or in the `BEGIN ATOMIC ... END` body of a routine; the
//! latter is told by the heuristic that `psql` uses (its `identifier_count` and `begin_depth`), errors included, since
//! agreeing with it is the point. The data of a `COPY ... FROM stdin` begins on the next line, as `psql` reads it.

use std::ops::Range;

use super::lex::{Lexer, Token, TokenKind, Unclosed, lex};
use super::meta;

/// A whole text, cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    pub statements: Vec<Statement>,
    /// What cannot be sent to a server as it stands. Empty for every file that `psql -f` could run without backslash
    /// commands.
    pub problems: Vec<Problem>,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// From its first token to its last: no blanks or comments around it, and not the semicolon.
    pub range: Range<usize>,
    /// Line of its first token, counted from 1.
    pub line: usize,
    /// Its first words in upper case, at most four, up to the first token that is not a word: `CREATE UNIQUE INDEX I`.
    pub head: String,
    /// The data that follows a `COPY ... FROM stdin`, without the line `\.` that ends it.
    pub copy_data: Option<Range<usize>>,
}

impl Statement {
    /// The statement itself, out of the text that was split.
    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.range.clone()]
    }
}

/// Something in a text that keeps it from being run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub range: Range<usize>,
    /// Counted from 1.
    pub line: usize,
    pub kind: ProblemKind,
}

/// What kind of problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    #[error("{} is not closed", unclosed(*.0))]
    Unclosed(Unclosed),
    #[error("`\\{name}` is a command of psql, not SQL")]
    Meta { name: String },
    #[error("a statement begins on the line of a COPY whose data follows, and goes on behind the data")]
    AroundCopyData,
}

impl ProblemKind {
    /// What to do instead.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unclosed(_) => "close it; everything up to the end of the file belongs to it",
            Self::Meta { name } => meta::advice(name),
            Self::AroundCopyData => "put the statement on a line of its own, after the line `\\.`",
        }
    }
}

fn unclosed(what: Unclosed) -> &'static str {
    match what {
        Unclosed::String => "this string",
        Unclosed::QuotedName => "this quoted name",
        Unclosed::DollarString => "this dollar-quoted string",
        Unclosed::Comment => "this comment",
    }
}

/// Cuts a text into its statements, with all problems.
pub fn split(text: &str) -> Split {
    let mut all = Split::default();
    for piece in statements(text) {
        match piece {
            Ok(statement) => all.statements.push(statement),
            Err(problem) => all.problems.push(problem),
        }
    }
    all
}

/// The statements and problems of a text, one after the other in order of their end: for texts too long to keep more
/// than one statement of.
pub fn statements(text: &str) -> Statements<'_> {
    Statements {
        text,
        lexer: lex(text),
        lines: Lines { at: 0, line: 1 },
        open: Open::default(),
        data: None,
        queued: None,
    }
}

/// Iterator over the statements of a text.
#[derive(Debug, Clone)]
pub struct Statements<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    lines: Lines,
    open: Open,
    /// Data of the `COPY` statements that ended on this line: it begins with the next line and is stepped over there.
    data: Option<Range<usize>>,
    /// A problem that is told after the statement it was found in.
    queued: Option<Problem>,
}

impl Iterator for Statements<'_> {
    type Item = Result<Statement, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(problem) = self.queued.take() {
            return Some(Err(problem));
        }
        loop {
            if let Some(problem) = self.step_over_data() {
                return Some(Err(problem));
            }
            let Some(token) = self.lexer.next() else {
                return self.close().map(Ok);
            };
            if let Some(piece) = self.read(token) {
                return Some(piece);
            }
        }
    }
}

impl Statements<'_> {
    /// Where the data of a `COPY` begins, goes on behind it. A statement that is open there would be torn apart.
    fn step_over_data(&mut self) -> Option<Problem> {
        let data = self.data.take_if(|data| self.lexer.at() >= data.start)?;
        self.lexer.seek(self.after_data(data.end));
        let open = std::mem::take(&mut self.open);
        open.start.map(|start| self.problem(start..data.start, ProblemKind::AroundCopyData))
    }

    /// The first byte behind the data and the line `\.` that ends it.
    fn after_data(&self, end: usize) -> usize {
        let rest = &self.text[end..];
        if is_end_of_data(first_line(rest)) { end + first_line(rest).len() } else { end }
    }

    /// Takes a token in; gives what is complete with it.
    fn read(&mut self, token: Token) -> Option<Result<Statement, Problem>> {
        if let Some(data) = &self.data
            && token.end > data.start
        {
            // A blank ends where the data begins; of anything else it is told when the data is stepped over.
            self.lexer.seek(data.start);
            if !token.is_blank() || token.kind == TokenKind::BlockComment {
                self.open.take(token, "");
            }
            return None;
        }
        match token.kind {
            TokenKind::Space | TokenKind::LineComment | TokenKind::BlockComment => None,
            TokenKind::Unclosed(what) => {
                if what != Unclosed::Comment {
                    self.open.take(token, &self.text[token.range()]);
                }
                self.close_with(token, ProblemKind::Unclosed(what))
            }
            TokenKind::Meta => self.read_meta(token),
            TokenKind::Punctuation if &self.text[token.range()] == ";" && self.open.at_top() => self.close().map(Ok),
            _ => {
                self.open.take(token, &self.text[token.range()]);
                None
            }
        }
    }

    fn read_meta(&mut self, token: Token) -> Option<Result<Statement, Problem>> {
        let name = meta::name_of(&self.text[token.range()]);
        if meta::is_accepted(name) {
            return None;
        }
        let kind = ProblemKind::Meta { name: name.to_owned() };
        if meta::sends(name) { self.close_with(token, kind) } else { Some(Err(self.problem(token.range(), kind))) }
    }

    fn problem(&mut self, range: Range<usize>, kind: ProblemKind) -> Problem {
        Problem { line: self.lines.line_of(self.text, range.start), range, kind }
    }

    /// Ends the open statement, and tells the problem after it.
    fn close_with(&mut self, token: Token, kind: ProblemKind) -> Option<Result<Statement, Problem>> {
        let closed = self.close();
        let problem = self.problem(token.range(), kind);
        match closed {
            Some(statement) => {
                self.queued = Some(problem);
                Some(Ok(statement))
            }
            None => Some(Err(problem)),
        }
    }

    fn close(&mut self) -> Option<Statement> {
        let open = std::mem::take(&mut self.open);
        let start = open.start?;
        let copy_data = open.copy.reads_stdin().then(|| self.data_of_copy());
        let line = self.lines.line_of(self.text, start);
        Some(Statement { range: start..open.end, line, head: open.head, copy_data })
    }

    /// Finds the data of a `COPY` that ends here, and remembers to step over it.
    fn data_of_copy(&mut self) -> Range<usize> {
        // A second COPY on the same line reads on behind the data of the first.
        let (jump_from, start) = match &self.data {
            Some(data) => (data.start, self.after_data(data.end)),
            None => {
                let here = self.lexer.at();
                let start = here + first_line(&self.text[here..]).len();
                (start, start)
            }
        };
        let mut end = start;
        while end < self.text.len() {
            let line = first_line(&self.text[end..]);
            if is_end_of_data(line) {
                break;
            }
            end += line.len();
        }
        self.data = Some(jump_from..end);
        start..end
    }
}

/// Up to and with the line break.
fn first_line(text: &str) -> &str {
    text.find('\n').map_or(text, |at| &text[..=at])
}

fn is_end_of_data(line: &str) -> bool {
    matches!(line, "\\.\n" | "\\.\r\n" | "\\." | "\\.\r")
}

/// Counts lines from the place it was asked for last.
#[derive(Debug, Clone)]
struct Lines {
    at: usize,
    line: usize,
}

impl Lines {
    fn line_of(&mut self, text: &str, byte: usize) -> usize {
        let breaks = |range: Range<usize>| text.as_bytes()[range].iter().filter(|byte| **byte == b'\n').count();
        if byte >= self.at {
            self.line += breaks(self.at..byte);
        } else {
            self.line -= breaks(byte..self.at);
        }
        self.at = byte;
        self.line
    }
}

/// The statement that is being read.
#[derive(Debug, Clone, Default)]
struct Open {
    start: Option<usize>,
    end: usize,
    head: String,
    head_words: usize,
    head_closed: bool,
    copy: Copy,
    parens: usize,
    /// How many words were seen, and the first letters of those that make up `CREATE [OR REPLACE] FUNCTION`: what
    /// `psql` calls `identifier_count` and `identifiers`.
    words: usize,
    letters: [u8; 4],
    /// Depth of `BEGIN ... END` and `CASE ... END` in the body of a routine: `psql`'s `begin_depth`.
    begins: usize,
}

impl Open {
    fn at_top(&self) -> bool {
        self.parens == 0 && self.begins == 0
    }

    fn take(&mut self, token: Token, text: &str) {
        self.start.get_or_insert(token.start);
        self.end = token.end;
        self.copy.take(token.kind, text, self.parens);
        if token.kind == TokenKind::Word {
            self.word(text);
        } else {
            self.head_closed = true;
            match text {
                "(" => self.parens += 1,
                ")" => self.parens = self.parens.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn word(&mut self, word: &str) {
        if !self.head_closed && self.head_words < 4 {
            if self.head_words > 0 {
                self.head.push(' ');
            }
            self.head.push_str(&word.to_ascii_uppercase());
            self.head_words += 1;
        }
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        if self.words < 4 && ["create", "function", "procedure", "or", "replace"].into_iter().any(is) {
            self.letters[self.words] = word.as_bytes()[0].to_ascii_lowercase();
        }
        self.words = self.words.saturating_add(1);
        if self.parens > 0 || !self.creates_routine() {
            return;
        }
        if is("begin") || (is("case") && self.begins > 0) {
            self.begins += 1;
        } else if is("end") {
            self.begins = self.begins.saturating_sub(1);
        }
    }

    fn creates_routine(&self) -> bool {
        matches!(self.letters, [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p'])
    }
}

/// Whether a statement is a `COPY name [(columns)] FROM stdin`, read token by token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Copy {
    /// Nothing read yet.
    #[default]
    Begin,
    /// `COPY`: the name or the columns follow.
    Named,
    /// `COPY name FROM`.
    From,
    /// Reads from the client. `stdout` counts as well: the grammar takes either word for the client's end.
    Stdin,
    /// Anything else.
    Other,
}

impl Copy {
    fn reads_stdin(self) -> bool {
        self == Self::Stdin
    }

    fn take(&mut self, kind: TokenKind, text: &str, parens: usize) {
        let is = |keyword: &str| kind == TokenKind::Word && text.eq_ignore_ascii_case(keyword);
        *self = match self {
            Self::Begin if is("copy") => Self::Named,
            Self::Named if parens > 0 => Self::Named,
            Self::Named if is("from") => Self::From,
            Self::Named if is("to") => Self::Other,
            Self::Named => Self::Named,
            Self::From if is("stdin") || is("stdout") => Self::Stdin,
            Self::Stdin => Self::Stdin,
            _ => Self::Other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements of a text.
    fn check(text: &str, expected: &[&str]) {
        let all = split(text);
        assert_eq!(all.problems, [], "{text:?}");
        let found: Vec<_> = all.statements.iter().map(|statement| statement.text(text)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    /// The statements with their data, and the problems as `line: message`.
    fn check_all(text: &str, expected: &[(&str, Option<&str>)], problems: &[&str]) {
        let all = split(text);
        let found: Vec<_> =
            all.statements.iter().map(|s| (s.text(text), s.copy_data.clone().map(|data| &text[data]))).collect();
        assert_eq!(found, expected, "{text:?}");
        let found: Vec<_> = all.problems.iter().map(|problem| format!("{}: {}", problem.line, problem.kind)).collect();
        assert_eq!(found, problems, "{text:?}");
    }

    #[test]
    fn semicolons_end_statements() {
        check("SELECT 1; SELECT 2 ;;\n;SELECT 3", &["SELECT 1", "SELECT 2", "SELECT 3"]);
        check("", &[]);
        check(" -- nothing\n/* ; */ ;", &[]);
        check("\u{feff}SELECT 1;", &["SELECT 1"]);
        check("SELECT 1;\r\nSELECT 2;\r\n", &["SELECT 1", "SELECT 2"]);
        check("SELECT 1 -- why;\n;/* a */ SELECT /* b; */ 2 /* c */;", &["SELECT 1", "SELECT /* b; */ 2"]);
    }

    #[test]
    fn semicolons_inside_do_not() {
        check("SELECT ';', \";\", $$;$$, E'\\';', $a$;$a$;", &["SELECT ';', \";\", $$;$$, E'\\';', $a$;$a$"]);
        check(
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b); SELECT 1",
            &["CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)", "SELECT 1"],
        );
        check("SELECT 1); SELECT 2", &["SELECT 1)", "SELECT 2"]);
        check("SELECT (1; SELECT 2;", &["SELECT (1; SELECT 2;"]);
    }

    #[test]
    fn bodies_of_routines_stay_whole() {
        for body in [
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
            "create or replace procedure p() begin atomic insert into t values (1); end",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN CASE WHEN true THEN 1 END END; END",
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN 1; END;$$",
            "CREATE FUNCTION \"begin\"() RETURNS int BEGIN ATOMIC SELECT (CASE WHEN true THEN 1 END); END",
        ] {
            check(&format!("{body}; SELECT 1;"), &[body, "SELECT 1"]);
        }
        check("BEGIN; SELECT CASE WHEN true THEN 1 END; END;", &["BEGIN", "SELECT CASE WHEN true THEN 1 END", "END"]);
    }

    #[test]
    fn heads_are_the_first_words() {
        let heads = |text: &str| split(text).statements.into_iter().map(|s| s.head).collect::<Vec<_>>();
        assert_eq!(
            heads("create unique index i on t(a); select 1; copy \"t\" to stdout; (select 1)"),
            ["CREATE UNIQUE INDEX I", "SELECT", "COPY", ""]
        );
    }

    #[test]
    fn lines_are_those_of_the_first_token() {
        let lines: Vec<_> =
            split("-- x\nSELECT\n1;\n\n  SELECT 2;SELECT 3").statements.into_iter().map(|s| s.line).collect();
        assert_eq!(lines, [2, 5, 5]);
    }

    #[test]
    fn copy_data_is_not_sql() {
        check_all(
            "COPY t FROM stdin;\n1\tit's; x\n\\.\nSELECT 1;",
            &[("COPY t FROM stdin", Some("1\tit's; x\n")), ("SELECT 1", None)],
            &[],
        );
        check_all(
            "COPY public.\"from stdin\" (a, \"to\")\r\n  FROM STDIN\r\nWITH (FORMAT csv, HEADER);\r\na\r\n\\.\r\nSELECT 1;\r\n",
            &[
                ("COPY public.\"from stdin\" (a, \"to\")\r\n  FROM STDIN\r\nWITH (FORMAT csv, HEADER)", Some("a\r\n")),
                ("SELECT 1", None),
            ],
            &[],
        );
        check_all("COPY t FROM stdin; -- data\n\\.\n", &[("COPY t FROM stdin", Some(""))], &[]);
        check_all("COPY t FROM stdin;\n1\n2", &[("COPY t FROM stdin", Some("1\n2"))], &[]);
        check_all("COPY t FROM stdin;\n1\n\\.", &[("COPY t FROM stdin", Some("1\n"))], &[]);
        check_all("COPY t FROM stdin", &[("COPY t FROM stdin", Some(""))], &[]);
    }

    #[test]
    fn data_begins_on_the_next_line() {
        check_all(
            "COPY t FROM stdin; SELECT 1; COPY u FROM stdin;\n1\n\\.\n2\n\\.\nSELECT 2;",
            &[
                ("COPY t FROM stdin", Some("1\n")),
                ("SELECT 1", None),
                ("COPY u FROM stdin", Some("2\n")),
                ("SELECT 2", None),
            ],
            &[],
        );
        check_all(
            "COPY t FROM stdin; SELECT\n1\n\\.\n2;",
            &[("COPY t FROM stdin", Some("1\n")), ("2", None)],
            &["1: a statement begins on the line of a COPY whose data follows, and goes on behind the data"],
        );
    }

    #[test]
    fn other_copies_have_no_data() {
        for text in [
            "COPY t TO stdout",
            "COPY (SELECT 1 FROM stdin) TO STDOUT",
            "COPY t FROM '/tmp/stdin'",
            "COPY t FROM PROGRAM 'cat stdin'",
            "SELECT copy FROM stdin",
        ] {
            check_all(&format!("{text};\nSELECT 1;"), &[(text, None), ("SELECT 1", None)], &[]);
        }
    }

    #[test]
    fn what_is_not_closed_is_reported_where_it_begins() {
        check_all(
            "SELECT 1;\nSELECT 'a;\n",
            &[("SELECT 1", None), ("SELECT 'a;\n", None)],
            &["2: this string is not closed"],
        );
        check_all("SELECT 1\n/* ; ", &[("SELECT 1", None)], &["2: this comment is not closed"]);
        check_all("DO $x$ ;", &[("DO $x$ ;", None)], &["1: this dollar-quoted string is not closed"]);
        check_all("SELECT \"a", &[("SELECT \"a", None)], &["1: this quoted name is not closed"]);
    }

    #[test]
    fn backslash_commands_are_problems() {
        check_all(
            "\\set x 1\nSELECT 1 \\gexec\nSELECT 2;\n\\d t\n",
            &[("SELECT 1", None), ("SELECT 2", None)],
            &[
                "1: `\\set` is a command of psql, not SQL",
                "2: `\\gexec` is a command of psql, not SQL",
                "4: `\\d` is a command of psql, not SQL",
            ],
        );
    }

    #[test]
    fn marks_of_pg_dump_are_skipped() {
        check("\\restrict abc\nSELECT 1;\n\\unrestrict abc\n", &["SELECT 1"]);
    }

    #[test]
    fn ten_thousand_statements_on_one_line_stay_linear() {
        let text = "SELECT 1;".repeat(50_000);
        assert_eq!(split(&text).statements.len(), 50_000);
        let text = "COPY t FROM stdin;".repeat(2_000);
        assert_eq!(split(&text).statements.len(), 2_000);
    }

    proptest::proptest! {
        #[test]
        fn ranges_ascend_and_hold_all_that_is_not_blank(
            text in "(SELECT |copy t from stdin|;|\n|'|\\$\\$|/\\*|\\*/|--|\\(|\\)|\\\\|begin|end|case|create function|\\\\\\.\n| |é|1){0,40}"
        ) {
            let all = split(&text);
            let mut at = 0;
            for statement in &all.statements {
                proptest::prop_assert!(at <= statement.range.start && statement.range.start < statement.range.end);
                at = statement.range.end;
                proptest::prop_assert!(text.is_char_boundary(at) && at <= text.len());
                if let Some(data) = &statement.copy_data {
                    proptest::prop_assert!(data.start <= data.end && data.end <= text.len());
                }
            }
        }
    }
}
