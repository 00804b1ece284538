//! SQL to what it reads and writes.
//!
//! No grammar either: what a statement writes stands behind its verb, and the tokens around tell a statement from
//! prose. So fragments, placeholders and bodies of routines are read as well as whole statements, which a parser of
//! PostgreSQL's grammar would refuse. The tokens are those of `pgrunbook_document::sql`.

use std::collections::BTreeSet;
use std::ops::Range;

use pgrunbook_document::sql::TokenKind;

use self::token::{behind_parentheses, is_placeholder, is_string, tokens};
use super::text::{HOLE, Text};

mod data;
mod definition;
mod name;
mod routine;
mod setting;
mod token;

pub(super) use self::setting::path;

/// What a text is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A file of statements, or the body of a routine: each counts.
    File,
    /// The body of a routine in PL/pgSQL: `INTO` names a variable there.
    Procedure,
    /// A string that begins as a statement does.
    Statement,
    /// A string that goes on where another one ended, or words of a source: only what is clearly a statement counts.
    Fragment,
}

/// One part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// What is known of it: all, or its beginning.
    pub(super) text: String,
    pub(super) whole: bool,
}

/// What a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Relation { schema: Option<Part>, name: Part },
    Schema(Part),
}

/// An entry of a search path; `None`: known only to the running program.
pub(super) type PathEntry = Option<String>;

/// What a text does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    /// In the text: the name, or what stands for it.
    pub(super) range: Range<usize>,
    /// Where its verb begins.
    pub(super) verb_at: usize,
    pub(super) act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// `sure`: false where the text may be no statement, or goes on elsewhere.
    Write {
        verb: &'static str,
        named: Named,
        sure: bool,
    },
    Read {
        named: Named,
    },
    /// A temporary table: its name means nobody else's.
    Temporary(String),
    /// The search path of what follows; `None`: as the connection began.
    Path {
        entries: Option<Vec<PathEntry>>,
        local: bool,
    },
    /// What a transaction set ends.
    TransactionEnd,
    /// Statements in a statement: the body of a routine, a text that is executed.
    Inner {
        text: Text,
        mode: Option<Mode>,
        path: Option<Vec<PathEntry>>,
    },
    /// A body in another language.
    Foreign {
        text: Text,
        language: String,
    },
    /// A text that is executed and built elsewhere.
    Opaque,
}

/// What a text is taken for; `None`: it is no SQL.
pub(super) fn mode(text: &str) -> Option<Mode> {
    let mut first = text.trim_start_matches(|c: char| c.is_whitespace() || c == HOLE || c == '(' || c == '\u{FEFF}');
    // Comments before a statement, such as sqlc's names.
    while let Some(rest) = first
        .strip_prefix("--")
        .and_then(|rest| rest.split_once('\n'))
        .map(|(_, rest)| rest)
        .or_else(|| first.strip_prefix("/*").and_then(|rest| rest.split_once("*/")).map(|(_, rest)| rest))
    {
        first = rest.trim_start_matches(|c: char| c.is_whitespace() || c == HOLE || c == '(');
    }
    if first.starts_with("\\copy") {
        return Some(Mode::File);
    }
    let word_length = first.bytes().take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'_').count();
    let (word, behind) = first.split_at(word_length);
    let known = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    let ends = behind.chars().next().is_none_or(|c| c.is_whitespace() || c == HOLE || "(;/-\"%{$".contains(c));
    if known(HEADS) && ends {
        return Some(Mode::Statement);
    }
    let fragment = first.starts_with([')', ',', ';']) || (known(CLAUSES) && ends) || {
        let behind = behind.trim_start();
        let named = behind.get(..2).is_some_and(|two| two.eq_ignore_ascii_case("as"));
        named && word_length > 0 && behind[2..].trim_start().starts_with('(')
    };
    fragment.then_some(Mode::Fragment)
}

const HEADS: &[&str] = &[
    "select",
    "insert",
    "update",
    "delete",
    "merge",
    "with",
    "truncate",
    "copy",
    "alter",
    "drop",
    "create",
    "set",
    "reset",
    "do",
    "explain",
    "prepare",
    "begin",
    "start",
    "commit",
    "rollback",
    "lock",
    "grant",
    "revoke",
    "comment",
    "reindex",
    "refresh",
    "cluster",
    "vacuum",
    "analyze",
    "call",
    "execute",
    "declare",
    "values",
    "table",
    "import",
    "savepoint",
    "discard",
    "end",
    "abort",
];

const CLAUSES: &[&str] = &[
    "from",
    "where",
    "and",
    "or",
    "on",
    "as",
    "into",
    "values",
    "returning",
    "using",
    "union",
    "join",
    "inner",
    "left",
    "right",
    "full",
    "cross",
    "having",
    "group",
    "order",
    "limit",
    "then",
    "else",
    "when",
    "intersect",
    "except",
];

/// Reads a text.
pub(super) fn uses(text: &Text, mode: Mode) -> Vec<Use> {
    let mut reader = Reader::new(text, mode);
    reader.read();
    reader.uses
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: TokenKind,
    text: &'a str,
    start: usize,
    end: usize,
}

/// What one pair of parentheses is about.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    /// A list of relations goes on: a comma begins the next.
    from: bool,
    /// A relation comes next.
    expect: bool,
    /// The arguments of `extract` and the like, where FROM is a separator.
    arguments: bool,
    verb: Verb,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Verb {
    #[default]
    None,
    Select,
    /// DELETE and MERGE have USING for what others have FROM for.
    Using,
    Other,
}

struct Reader<'a> {
    source: &'a Text,
    mode: Mode,
    tokens: Vec<Token<'a>>,
    uses: Vec<Use>,
    /// Names of WITH.
    common: BTreeSet<String>,
    /// For each `(` the token behind the `)` that closes it.
    behind: Vec<usize>,
}
impl<'a> Reader<'a> {
    fn new(source: &'a Text, mode: Mode) -> Self {
        let tokens = tokens(&source.value);
        let behind = behind_parentheses(&tokens);
        let mut reader = Self { source, mode, tokens, uses: Vec::new(), common: BTreeSet::new(), behind };
        for at in 1..reader.tokens.len() {
            let materialized = usize::from(reader.is(at + 1, "not"))
                + usize::from(reader.is(at + 1, "materialized") || reader.is(at + 2, "materialized"));
            if reader.is(at, "as")
                && reader.mark(at + 1 + materialized, "(")
                && let Some(part) = reader.part(at - 1)
            {
                reader.common.insert(part.text);
            }
        }
        reader
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Word && token.text.eq_ignore_ascii_case(word))
    }

    fn any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    fn mark(&self, at: usize, mark: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == mark)
    }

    fn before(&self, at: usize, words: &[&str]) -> bool {
        at.checked_sub(1).is_some_and(|at| self.any(at, words))
    }

    /// Whether a statement may begin here.
    fn begins(&self, at: usize) -> bool {
        let Some(previous) = at.checked_sub(1) else { return true };
        let token = self.tokens[previous];
        self.any(previous, &["begin", "then", "else", "loop", "also", "instead", "do", "atomic", "analyze", "verbose"])
            || matches!(token.text, ";" | "(" | ")" | ">>")
            || token.kind == TokenKind::Meta
            || token.text.ends_with(HOLE)
    }

    /// Whether the text ends here, the statement ends, or only the running program knows how it goes on.
    fn ends(&self, at: usize) -> bool {
        self.tokens.get(at).is_none_or(|token| matches!(token.text, ";" | ")")) || self.is_hole(at)
    }

    fn is_hole(&self, at: usize) -> bool {
        let stands_for = |token: &Token<'_>| is_placeholder(token) && !token.text.starts_with('?');
        self.tokens.get(at).is_some_and(|token| token.text.starts_with(HOLE) || stands_for(token))
    }

    fn read(&mut self) {
        let mut frames = vec![Frame::default()];
        let mut head = 0;
        let mut at = 0;
        while at < self.tokens.len() {
            let token = self.tokens[at];
            match token.text {
                ";" => {
                    frames = vec![Frame::default()];
                    head = at + 1;
                }
                "(" => self.open(at, &mut frames),
                ")" => {
                    if frames.len() > 1 {
                        frames.pop();
                    }
                }
                "," => {
                    let frame = frames.last_mut().expect("one frame stays");
                    frame.expect = frame.from;
                }
                _ => {
                    let next = self.word(at, head, frames.last_mut().expect("one frame stays"));
                    if let Some(next) = next {
                        at = next;
                        continue;
                    }
                    if self.mode == Mode::Procedure && self.begins(at) {
                        head = at;
                    }
                    self.relation(&mut at, frames.last_mut().expect("one frame stays"));
                }
            }
            at += 1;
        }
    }

    fn open(&mut self, at: usize, frames: &mut Vec<Frame>) {
        const SEPARATED_BY_FROM: &[&str] = &["extract", "substring", "trim", "overlay", "btrim", "ltrim", "rtrim"];
        let outer = frames.last_mut().expect("one frame stays");
        let inner = Frame {
            from: outer.expect,
            expect: outer.expect,
            arguments: self.before(at, SEPARATED_BY_FROM),
            verb: Verb::None,
        };
        outer.expect = false;
        frames.push(inner);
    }

    /// A relation where one is expected. Stays on the last token of its name.
    fn relation(&mut self, at: &mut usize, frame: &mut Frame) {
        if !frame.expect || self.any(*at, &["only", "lateral"]) {
            return;
        }
        frame.expect = false;
        let Some((named, behind)) = self.name(*at) else { return };
        if self.mark(behind, "(") && !self.is_hole(*at) {
            // A function.
            *at = behind - 1;
            return;
        }
        self.read_of(named, *at, behind);
        *at = behind - 1;
    }

    fn read_of(&mut self, named: Named, from: usize, behind: usize) {
        if let Named::Relation { schema: None, name } = &named
            && self.common.contains(&name.text)
        {
            return;
        }
        self.push(from, from, behind, Act::Read { named });
    }

    fn push(&mut self, verb: usize, from: usize, behind: usize, act: Act) {
        let end = self.source.value.len();
        let place = |at: usize| self.tokens.get(at).map_or(end, |token| token.start);
        let start = place(from);
        let last = behind.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(end, |token| token.end);
        let range = start..last.max(start);
        self.uses.push(Use { range, verb_at: place(verb), act });
    }

    fn write(&mut self, verb_at: usize, from: usize, behind: usize, verb: &'static str, named: Named) {
        self.push(verb_at, from, behind, Act::Write { verb, named, sure: true });
    }

    /// What a word begins. The next token to be read, if some were taken.
    fn word(&mut self, at: usize, head: usize, frame: &mut Frame) -> Option<usize> {
        let token = self.tokens[at];
        if token.kind != TokenKind::Word {
            return None;
        }
        let lower = token.text.to_ascii_lowercase();
        match lower.as_str() {
            "select" => *frame = Frame { verb: Verb::Select, from: false, expect: false, ..*frame },
            "insert" if self.is(at + 1, "into") => {
                frame.verb = Verb::Other;
                return self.insert(at);
            }
            "delete" if self.is(at + 1, "from") => {
                frame.verb = Verb::Using;
                return self.delete(at);
            }
            "update" => return self.update(at, frame),
            "merge" if self.is(at + 1, "into") => {
                frame.verb = Verb::Using;
                return self.merge(at);
            }
            "truncate" if self.begins(at) => return self.truncate(at),
            "copy" if self.begins(at) => return self.copy(at),
            "into" => return self.into(at, head, *frame),
            "alter" if self.begins(at) => return self.alter(at),
            "drop" if self.begins(at) => return self.drop(at),
            "create" if self.begins(at) => return self.create(at),
            "grant" | "revoke" if self.begins(at) => return self.grant(at),
            "comment" if self.begins(at) && self.is(at + 1, "on") => return self.comment(at),
            "refresh" if self.is(at + 1, "materialized") => {
                let from = at + 3 + usize::from(self.is(at + 3, "concurrently"));
                return self.simple(at, from, "REFRESH");
            }
            "reindex" | "cluster" if self.begins(at) => return self.rebuild(at),
            "set" | "reset" | "discard" | "set_config" => return self.settings(at, head),
            "commit" | "rollback" if self.begins(at) && !self.is(at + 1, "to") => {
                self.push(at, at, at + 1, Act::TransactionEnd);
            }
            "nextval" | "setval" if self.mark(at + 1, "(") => self.sequence(at),
            "dblink" | "dblink_exec" | "dblink_send_query" | "schedule" | "schedule_in_database" | "query_to_xml"
                if self.mark(at + 1, "(") =>
            {
                self.arguments(at + 1);
            }
            "execute" => return self.execute(at),
            "do" if self.is(at + 1, "language") || self.tokens.get(at + 1).is_some_and(|next| is_string(next.kind)) => {
                self.bodies(at, None);
            }
            "from"
                if !frame.arguments
                    && !self.before(at, &["distinct"])
                    && !self.any(head, &["revoke", "fetch", "move"]) =>
            {
                (frame.from, frame.expect) = (true, true);
                return Some(at + 1);
            }
            "join" => {
                (frame.from, frame.expect) = (true, true);
                return Some(at + 1);
            }
            "using" if frame.verb == Verb::Using && !self.mark(at.wrapping_sub(1), ")") => {
                (frame.from, frame.expect) = (true, true);
                return Some(at + 1);
            }
            "table" if self.begins(at) && self.name(at + 1).is_some() => {
                frame.expect = true;
                return Some(at + 1);
            }
            "references" if !self.any(head, &["grant", "revoke"]) && !self.before(at, &[","]) => {
                if let Some((named, behind)) = self.name(at + 1) {
                    self.read_of(named, at + 1, behind);
                    return Some(behind);
                }
            }
            "like" if self.is(head, "create") && self.mark(at.wrapping_sub(1), "(") => {
                if let Some((named, behind)) = self.name(at + 1) {
                    self.read_of(named, at + 1, behind);
                    return Some(behind);
                }
            }
            "where" | "group" | "having" | "window" | "order" | "limit" | "offset" | "fetch" | "for" | "union"
            | "intersect" | "except" | "returning" | "values" | "when" | "conflict" => {
                (frame.from, frame.expect) = (false, false);
            }
            _ if self.mode == Mode::Procedure
                && self.mark(at + 1, ":=")
                && self.tokens.get(at + 2).is_some_and(|token| is_string(token.kind)) =>
            {
                return Some(self.assembled(at + 2));
            }
            _ => {}
        }
        None
    }

    /// Whether only clear statements count.
    fn is_strict(&self) -> bool {
        matches!(self.mode, Mode::Statement | Mode::Fragment)
    }

    /// Steps over `*` and an alias.
    fn alias(&self, mut at: usize, clauses: &[&str]) -> usize {
        at += usize::from(self.mark(at, "*"));
        if self.is(at, "as") {
            return at + 2;
        }
        let is_name =
            self.tokens.get(at).is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName));
        at + usize::from(is_name && !self.is_hole(at) && !self.any(at, clauses) && !self.is_reserved(at))
    }

    /// A name where a statement demands one: a hole where the text ends.
    fn target(&self, at: usize) -> Option<(Named, usize)> {
        if at >= self.tokens.len() && self.mode != Mode::Fragment {
            let name = Part { text: String::new(), whole: false };
            return Some((Named::Relation { schema: None, name }, at));
        }
        self.name(at)
    }
}
