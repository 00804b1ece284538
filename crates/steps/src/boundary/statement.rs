//! SQL to what it reads and writes.
//!
//! No grammar either: what a statement writes stands behind its verb, and the tokens around tell a statement from
//! prose. So fragments, placeholders and bodies of routines are read as well as whole statements, which a parser of
//! PostgreSQL's grammar would refuse. The tokens are those of `pgrunbook_document::sql`.

use std::collections::BTreeSet;
use std::ops::Range;

use pgrunbook_document::sql::{ProblemKind, TokenKind, lex, statements};

use super::text::{HOLE, Text};

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

    fn insert(&mut self, at: usize) -> Option<usize> {
        const NEXT: &[&str] = &["default", "overriding", "values", "value", "select", "with", "table"];
        let from = at + 2;
        let (named, behind) = self.target(from)?;
        let next = if self.is(behind, "as") { behind + 2 } else { behind };
        let fits = self.mark(next, "(") || self.any(next, NEXT) || (self.ends(next) && self.mode != Mode::Fragment);
        if self.is_strict() && !fits {
            return None;
        }
        self.write(at, from, behind, "INSERT", named);
        Some(next.max(behind))
    }

    fn delete(&mut self, at: usize) -> Option<usize> {
        let from = at + 2 + usize::from(self.is(at + 2, "only"));
        let (named, behind) = self.target(from)?;
        let next = self.alias(behind, &["where", "using", "returning"]);
        let fits = self.any(next, &["where", "using", "returning"])
            || (self.ends(next) && (self.mode != Mode::Fragment || self.mark(next, ")")));
        if self.is_strict() && !fits {
            return None;
        }
        self.write(at, from, behind, "DELETE", named);
        Some(next)
    }

    fn update(&mut self, at: usize, frame: &mut Frame) -> Option<usize> {
        let from = at + 1 + usize::from(self.is(at + 1, "only"));
        let (named, behind) = self.name(from)?;
        let next = self.alias(behind, &["set"]);
        let elsewhere = ["for", "on", "or", "before", "after", "of", "key", "grant", "revoke"];
        if self.is(next, "set") || (self.is_hole(next) && !self.before(at, &elsewhere)) {
            frame.verb = Verb::Other;
            self.write(at, from, behind, "UPDATE", named);
            return Some(next);
        }
        // What follows is added elsewhere, or this is a label.
        let alone = behind >= self.tokens.len() && self.mode == Mode::Statement && self.begins(at);
        if alone {
            self.push(at, from, behind, Act::Write { verb: "UPDATE", named, sure: false });
            return Some(next);
        }
        None
    }

    fn merge(&mut self, at: usize) -> Option<usize> {
        let from = at + 2 + usize::from(self.is(at + 2, "only"));
        let (named, behind) = self.target(from)?;
        let next = self.alias(behind, &["using"]);
        if self.is_strict() && !self.is(next, "using") && !(self.ends(next) && self.mode != Mode::Fragment) {
            return None;
        }
        self.write(at, from, behind, "MERGE", named);
        Some(next)
    }

    fn truncate(&mut self, at: usize) -> Option<usize> {
        let with_table = self.is(at + 1, "table");
        let mut from = at + 1 + usize::from(with_table);
        from += usize::from(self.is(from, "only"));
        if self.any(from, &["on"]) || self.mark(from, "(") {
            return None;
        }
        let mut targets = Vec::new();
        while let Some((named, behind)) = if with_table { self.target(from) } else { self.name(from) } {
            let next = behind + usize::from(self.mark(behind, "*"));
            targets.push((from, behind, named));
            from = next;
            if !self.mark(next, ",") {
                break;
            }
            from = next + 1 + usize::from(self.is(next + 1, "only"));
        }
        let fits = self.ends(from) || self.any(from, &["restart", "continue", "cascade", "restrict"]);
        if targets.is_empty() || (self.is_strict() && !fits) {
            return None;
        }
        for (from, behind, named) in targets {
            self.write(at, from, behind, "TRUNCATE", named);
        }
        Some(from)
    }

    fn copy(&mut self, at: usize) -> Option<usize> {
        let from = at + 1 + usize::from(self.is(at + 1, "binary"));
        let (named, behind) = self.name(from)?;
        let mut next = behind;
        if self.mark(next, "(") {
            next = self.behind_parentheses(next);
        }
        if self.is(next, "to") {
            self.read_of(named, from, behind);
            return Some(next + 1);
        }
        if self.is(next, "from") {
            let source = self.tokens.get(next + 1);
            let fits = self.any(next + 1, &["stdin", "program", "pstdin"])
                || source.is_some_and(|token| is_string(token.kind) || token.kind == TokenKind::Parameter)
                || self.tokens[at].text.starts_with('\\');
            if self.is_strict() && !fits && !self.is_hole(next + 1) {
                return None;
            }
            // `Copy {a} from {b}` is more often a message than a statement.
            let message = self.is_strict() && self.is_hole(from) && !fits;
            if !message {
                self.write(at, from, behind, "COPY FROM", named);
            }
            return Some(next + 2);
        }
        if self.mode == Mode::Statement && (next >= self.tokens.len() || self.is_hole(next)) && !self.is_hole(from) {
            self.push(at, from, behind, Act::Write { verb: "COPY", named, sure: false });
        }
        None
    }

    /// `SELECT ... INTO t`, `IMPORT FOREIGN SCHEMA ... INTO s`, and `{verb} INTO t`.
    fn into(&mut self, at: usize, head: usize, frame: Frame) -> Option<usize> {
        if self.is(head, "import") {
            let part = self.part(at + 1)?;
            self.write(at, at + 1, at + 2, "IMPORT FOREIGN SCHEMA", Named::Schema(part));
            return Some(at + 2);
        }
        let behind_hole = at.checked_sub(1).is_some_and(|at| self.tokens[at].text.ends_with(HOLE));
        let first = behind_hole && at == head + 1;
        if self.mode == Mode::Procedure || (frame.verb != Verb::Select && !first) {
            return None;
        }
        let mut from = at + 1;
        let temporary = self.any(from, &["temp", "temporary"]);
        while self.any(from, &["temp", "temporary", "unlogged", "table"]) {
            from += 1;
        }
        // `INTO :x` and `INTO @x` are variables of a host language.
        let is_name = self
            .tokens
            .get(from)
            .is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName) || is_brace(token));
        let (named, behind) = self.name(from).filter(|_| is_name)?;
        if temporary {
            self.temporary(&named, from, behind);
        } else if first {
            self.push(at, from, behind, Act::Write { verb: "INTO", named, sure: false });
        } else {
            self.write(at, from, behind, "SELECT INTO", named);
        }
        Some(behind)
    }

    fn temporary(&mut self, named: &Named, from: usize, behind: usize) {
        if let Named::Relation { schema: None, name } = named {
            self.push(from, from, behind, Act::Temporary(name.text.clone()));
        }
    }

    /// The kind of object behind ALTER, DROP or CREATE, and the token behind it.
    fn object(&self, at: usize) -> Option<(&'static str, usize)> {
        const OBJECTS: &[(&str, &[&str])] = &[
            ("TABLE", &["foreign", "table"]),
            ("TABLE", &["table"]),
            ("VIEW", &["materialized", "view"]),
            ("VIEW", &["view"]),
            ("INDEX", &["index"]),
            ("SEQUENCE", &["sequence"]),
            ("FUNCTION", &["function"]),
            ("FUNCTION", &["procedure"]),
            ("FUNCTION", &["routine"]),
            ("FUNCTION", &["aggregate"]),
            ("TYPE", &["type"]),
            ("TYPE", &["domain"]),
            ("STATISTICS", &["statistics"]),
            ("SCHEMA", &["schema"]),
            ("TRIGGER", &["trigger"]),
            ("POLICY", &["policy"]),
            ("RULE", &["rule"]),
        ];
        OBJECTS.iter().find_map(|(object, words)| {
            let there = words.iter().enumerate().all(|(ahead, word)| self.is(at + ahead, word));
            there.then_some((*object, at + words.len()))
        })
    }

    /// Steps over IF [NOT] EXISTS, ONLY and CONCURRENTLY.
    fn noise(&self, mut at: usize) -> usize {
        while self.any(at, &["if", "not", "exists", "only", "concurrently"]) {
            at += 1;
        }
        at
    }

    fn alter(&mut self, at: usize) -> Option<usize> {
        // `ALTER ... SET SCHEMA eng` and ATTACH PARTITION name a second one.
        let end =
            (at..self.tokens.len()).take(400).find(|at| self.mark(*at, ";")).unwrap_or(self.tokens.len().min(at + 400));
        for other in at + 2..end {
            if self.is(other, "schema") && self.before(other, &["set"]) {
                if let Some(part) = self.part(other + 1) {
                    self.write(at, other + 1, other + 2, "ALTER", Named::Schema(part));
                }
            } else if self.is(other, "partition")
                && self.before(other, &["attach", "detach"])
                && let Some((named, behind)) = self.name(other + 1)
            {
                self.write(at, other + 1, behind, "ALTER", named);
            }
        }
        if self.is(at + 1, "default") && self.is(at + 2, "privileges") {
            let schema = (at..end).find(|at| self.is(*at, "schema"))?;
            let part = self.part(schema + 1)?;
            self.write(at, schema + 1, schema + 2, "ALTER DEFAULT PRIVILEGES", Named::Schema(part));
            return Some(schema + 2);
        }
        let (object, from) = self.object(at + 1)?;
        let from = self.noise(from);
        match object {
            "SCHEMA" => self.schema(at, from, "ALTER"),
            "TRIGGER" | "POLICY" | "RULE" => self.on(at, from, "ALTER"),
            _ if self.is(from, "all") => None,
            _ => self.simple(at, from, "ALTER"),
        }
    }

    fn drop(&mut self, at: usize) -> Option<usize> {
        let (object, from) = self.object(at + 1)?;
        let mut from = self.noise(from);
        if matches!(object, "TRIGGER" | "POLICY" | "RULE") {
            return self.on(at, from, "DROP");
        }
        let mut targets = Vec::new();
        loop {
            let (named, behind) =
                if object == "SCHEMA" { (Named::Schema(self.part(from)?), from + 1) } else { self.target(from)? };
            targets.push((from, behind, named));
            from = if self.mark(behind, "(") { self.behind_parentheses(behind) } else { behind };
            if !self.mark(from, ",") {
                break;
            }
            from += 1;
        }
        if self.is_strict() && !self.ends(from) && !self.any(from, &["cascade", "restrict"]) {
            return None;
        }
        for (from, behind, named) in targets {
            self.write(at, from, behind, "DROP", named);
        }
        Some(from)
    }

    fn create(&mut self, at: usize) -> Option<usize> {
        let mut from = at + 1;
        let mut temporary = false;
        while self.any(
            from,
            &["or", "replace", "temp", "temporary", "unlogged", "global", "local", "recursive", "unique", "constraint"],
        ) {
            temporary |= self.any(from, &["temp", "temporary"]);
            from += 1;
        }
        let (object, from) = self.object(from)?;
        let from = self.noise(from);
        match object {
            "TRIGGER" | "POLICY" => return self.on(at, from, "CREATE"),
            "RULE" => {
                let to = (from..self.tokens.len().min(from + 12)).find(|at| self.is(*at, "to"))?;
                return self.simple(at, to + 1, "CREATE");
            }
            "INDEX" => return self.on(at, from, "CREATE"),
            "SCHEMA" if self.is(from, "authorization") => return None,
            "SCHEMA" => return self.schema(at, from, "CREATE"),
            "FUNCTION" => {
                let (named, behind) = self.name(from)?;
                if self.is_strict() && !self.mark(behind, "(") {
                    return None;
                }
                self.write(at, from, behind, "CREATE", named);
                self.bodies(at, Some(behind));
                return Some(behind);
            }
            _ => {}
        }
        let (named, behind) = self.name(from)?;
        let fits = match object {
            "TABLE" => self.mark(behind, "(") || self.any(behind, &["as", "partition", "of", "using", "with"]),
            "VIEW" => self.mark(behind, "(") || self.any(behind, &["as", "with"]),
            "TYPE" => self.is(behind, "as"),
            _ => !self.is_hole(from),
        };
        let cut = self.ends(behind) && !self.is_hole(from) && self.mode != Mode::Fragment;
        if self.is_strict() && !fits && !cut {
            return None;
        }
        if self.is(behind, "partition")
            && self.is(behind + 1, "of")
            && let Some((parent, behind)) = self.name(behind + 2)
        {
            self.write(at, behind - 1, behind, "CREATE", parent);
        }
        if temporary {
            self.temporary(&named, from, behind);
        } else {
            self.write(at, from, behind, "CREATE", named);
        }
        Some(behind)
    }

    fn schema(&mut self, at: usize, from: usize, verb: &'static str) -> Option<usize> {
        let part = self.part(from)?;
        let next = from + 1;
        let fits = self.ends(next) || self.any(next, &["authorization", "rename", "owner", "create", "grant"]);
        if self.is_strict() && (!fits || self.is_hole(from)) && !(fits && self.mark(next, ";")) {
            return None;
        }
        self.write(at, from, next, verb, Named::Schema(part));
        Some(next)
    }

    /// `... ON name`, a few words ahead: triggers, policies, rules, indexes.
    fn on(&mut self, at: usize, from: usize, verb: &'static str) -> Option<usize> {
        // `AFTER INSERT OR UPDATE OF a, b ON t`: as long as the list of columns is.
        let end = self.tokens.len().min(from + 60);
        let on = (from..end).take_while(|at| !self.mark(*at, ";")).find(|at| self.is(*at, "on"))?;
        self.simple(at, on + 1 + usize::from(self.is(on + 1, "only")), verb)
    }

    fn simple(&mut self, at: usize, from: usize, verb: &'static str) -> Option<usize> {
        let (named, behind) = self.name(from)?;
        self.write(at, from, behind, verb, named);
        Some(behind)
    }

    fn rebuild(&mut self, at: usize) -> Option<usize> {
        let verb = if self.is(at, "reindex") { "REINDEX" } else { "CLUSTER" };
        let mut from = at + 1;
        if self.mark(from, "(") {
            from = self.behind_parentheses(from);
        }
        if verb == "REINDEX" {
            if self.is(from, "schema") {
                let from = self.noise(from + 1);
                return self.schema(at, from, verb);
            }
            if !self.any(from, &["table", "index"]) {
                return None;
            }
            from += 1;
        }
        from = self.noise(from);
        let (named, behind) = self.name(from)?;
        if self.is_strict() && !self.ends(behind) && !self.is(behind, "using") {
            return None;
        }
        self.write(at, from, behind, verb, named);
        Some(behind)
    }

    fn grant(&mut self, at: usize) -> Option<usize> {
        let verb = if self.is(at, "grant") { "GRANT" } else { "REVOKE" };
        let end = self.tokens.len().min(at + 80);
        let on = (at + 1..end).take_while(|at| !self.mark(*at, ";")).find(|at| self.is(*at, "on"))?;
        let mut from = on + 1;
        let mut schemas = self.is(from, "schema");
        if self.is(from, "all") && self.is(from + 2, "in") {
            schemas = true;
            from += 3;
        }
        if self.any(from, &["database", "language", "foreign", "large", "parameter", "tablespace"]) {
            return None;
        }
        if self.any(from, &["schema", "table", "sequence", "function", "procedure", "routine", "type", "domain"]) {
            from += 1;
        }
        loop {
            let (named, behind) = if schemas { (Named::Schema(self.part(from)?), from + 1) } else { self.name(from)? };
            self.write(at, from, behind, verb, named);
            from = if self.mark(behind, "(") { self.behind_parentheses(behind) } else { behind };
            if !self.mark(from, ",") {
                return Some(from);
            }
            from += 1;
        }
    }

    fn comment(&mut self, at: usize) -> Option<usize> {
        if self.is(at + 2, "column") {
            let (named, behind) = self.column(at + 3)?;
            self.write(at, at + 3, behind, "COMMENT", named);
            return Some(behind);
        }
        if self.is(at + 2, "constraint") {
            return self.on(at, at + 3, "COMMENT");
        }
        let (object, from) = self.object(at + 2)?;
        match object {
            "SCHEMA" => self.schema(at, from, "COMMENT"),
            "TRIGGER" | "POLICY" | "RULE" => self.on(at, from, "COMMENT"),
            _ => self.simple(at, from, "COMMENT"),
        }
    }

    /// `SET search_path`, `SET SCHEMA`, `RESET`, `DISCARD ALL`, `set_config('search_path', ...)`.
    fn settings(&mut self, at: usize, head: usize) -> Option<usize> {
        // A setting of a role, database or routine is none of the session.
        if self.any(head, &["alter", "create", "update"]) && head != at {
            return None;
        }
        if self.is(at, "set_config") {
            let setting = self.tokens.get(at + 2).filter(|token| is_string(token.kind))?;
            if !string(self.source, setting).value.trim().eq_ignore_ascii_case("search_path") {
                return None;
            }
            let value = self.tokens.get(at + 4)?;
            let entries = if is_string(value.kind) { path(&string(self.source, value).value) } else { vec![None] };
            self.push(at, at + 4, at + 5, Act::Path { entries: Some(entries), local: self.is(at + 6, "true") });
            return Some(at + 5);
        }
        if self.is(at, "reset") || self.is(at, "discard") {
            if self.any(at + 1, &["search_path", "all"]) {
                self.push(at, at + 1, at + 2, Act::Path { entries: None, local: false });
            }
            return None;
        }
        let local = self.is(at + 1, "local");
        let from = at + 1 + usize::from(local || self.is(at + 1, "session"));
        if self.is(from, "schema") {
            let value = self.tokens.get(from + 1)?;
            let entries =
                if is_string(value.kind) { vec![entry(&string(self.source, value).value)] } else { vec![None] };
            self.push(at, from + 1, from + 2, Act::Path { entries: Some(entries), local });
            return Some(from + 2);
        }
        if !self.is(from, "search_path") || !(self.is(from + 1, "to") || self.mark(from + 1, "=")) {
            return None;
        }
        let (entries, behind) = self.path(from + 2);
        self.push(at, from + 2, behind, Act::Path { entries, local });
        Some(behind)
    }

    /// The list behind `search_path TO`.
    fn path(&self, mut at: usize) -> (Option<Vec<PathEntry>>, usize) {
        if self.is(at, "default") {
            return (None, at + 1);
        }
        let mut entries = Vec::new();
        loop {
            match self.tokens.get(at) {
                Some(token) if is_string(token.kind) => {
                    // As one name it would be one schema; drivers and people mean a list.
                    entries.extend(path(&string(self.source, token).value));
                    at += 1;
                }
                Some(token) if token.text.eq_ignore_ascii_case("\"$user\"") => {
                    entries.push(Some("$user".to_owned()));
                    at += 1;
                }
                _ => match self.name(at) {
                    Some((Named::Relation { schema: None, name }, behind)) => {
                        entries.push(name.whole.then_some(name.text));
                        at = behind;
                    }
                    _ => {
                        entries.push(None);
                        at += 1;
                    }
                },
            }
            if !self.mark(at, ",") {
                return (Some(entries), at.min(self.tokens.len()));
            }
            at += 1;
        }
    }

    /// `nextval('eng.t_id_seq')` moves the sequence.
    fn sequence(&mut self, at: usize) {
        let Some(token) = self.tokens.get(at + 2).filter(|token| is_string(token.kind)) else { return };
        let inner = string(self.source, token);
        let named = Reader::new(&inner, self.mode).name(0);
        if let Some((named, _)) = named {
            self.write(at, at + 2, at + 3, if self.is(at, "nextval") { "nextval" } else { "setval" }, named);
        }
    }

    /// Texts that a function executes.
    fn arguments(&mut self, open: usize) {
        let behind = self.behind_parentheses(open);
        for at in (open..behind).take(64) {
            let token = self.tokens[at];
            if is_string(token.kind) {
                let text = string(self.source, &token);
                self.push(at, at, at + 1, Act::Inner { text, mode: None, path: None });
            }
        }
    }

    /// The bodies of a routine, behind `DO` or `CREATE FUNCTION`.
    fn bodies(&mut self, at: usize, from: Option<usize>) {
        // As far as lists of arguments go.
        let most = self.tokens.len().min(at + 800);
        let end = (at..most).find(|at| self.mark(*at, ";")).unwrap_or(most);
        let language = (at..end)
            .find(|at| self.is(*at, "language"))
            .and_then(|at| self.tokens.get(at + 1))
            .map_or_else(|| "plpgsql".to_owned(), |token| token.text.trim_matches(['"', '\'']).to_ascii_lowercase());
        let path = (at..end).find(|at| self.is(*at, "search_path") && self.before(*at, &["set"]));
        let path = path.and_then(|at| self.path(at + 2).0);
        for at in from.unwrap_or(at)..end {
            let token = self.tokens[at];
            // Of strings only the one behind AS or DO: others are defaults and settings.
            let single = token.kind == TokenKind::String && self.before(at, &["as", "do"]);
            if token.kind != TokenKind::DollarString && !single {
                continue;
            }
            let text = string(self.source, &token);
            let act = match language.as_str() {
                "sql" => Act::Inner { text, mode: Some(Mode::File), path: path.clone() },
                "plpgsql" => Act::Inner { text, mode: Some(Mode::Procedure), path: path.clone() },
                "c" | "internal" => continue,
                _ => Act::Foreign { text, language: language.clone() },
            };
            self.push(at, at, at + 1, act);
        }
    }

    /// `EXECUTE 'INSERT INTO ' || name || ...` in a procedure.
    fn execute(&mut self, at: usize) -> Option<usize> {
        if self.mode != Mode::Procedure || self.any(at + 1, &["function", "procedure", "on"]) {
            return None;
        }
        Some(self.assembled(at + 1))
    }

    /// A text that is put together of strings and values.
    fn assembled(&mut self, from: usize) -> usize {
        let mut text = Text::default();
        let mut at = from;
        while at < self.tokens.len() && !self.mark(at, ";") && !self.any(at, &["into", "using", "loop"]) {
            let token = self.tokens[at];
            if is_string(token.kind) {
                text.append(&string(self.source, &token));
            } else if !matches!(token.text, "||" | "(" | ")") && !self.any(at, &["format", "concat"]) {
                text.push_hole(self.source.at(token.start));
            }
            at += 1;
        }
        let known = text.value.chars().any(|c| c != HOLE && !c.is_whitespace());
        let act = if known { Act::Inner { text, mode: None, path: None } } else { Act::Opaque };
        self.push(from, from, at, act);
        at
    }

    fn behind_parentheses(&self, open: usize) -> usize {
        self.behind.get(open).copied().unwrap_or(self.tokens.len())
    }

    fn is_reserved(&self, at: usize) -> bool {
        const RESERVED: &[&str] = &[
            "select",
            "set",
            "where",
            "values",
            "from",
            "using",
            "and",
            "or",
            "not",
            "null",
            "default",
            "with",
            "as",
            "case",
            "when",
            "then",
            "else",
            "end",
            "on",
            "returning",
            "order",
            "group",
            "having",
            "limit",
            "union",
            "into",
            "table",
            "to",
            "for",
            "in",
            "is",
            "if",
            "the",
            "only",
            "lateral",
            "unnest",
            "insert",
            "update",
            "delete",
        ];
        self.any(at, RESERVED) && !self.mark(at + 1, ".")
    }

    /// `name`, `schema.name`, `database.schema.name`, with holes. The name, and the token behind it.
    fn name(&self, at: usize) -> Option<(Named, usize)> {
        let (mut parts, behind) = self.parts(at)?;
        let name = parts.pop()?;
        Some((Named::Relation { schema: parts.pop(), name }, behind))
    }

    /// `schema.table.column`: the table.
    fn column(&self, at: usize) -> Option<(Named, usize)> {
        let (mut parts, behind) = self.parts(at)?;
        parts.pop();
        let name = parts.pop()?;
        Some((Named::Relation { schema: parts.pop(), name }, behind))
    }

    fn parts(&self, at: usize) -> Option<(Vec<Part>, usize)> {
        if self.is_reserved(at) {
            return None;
        }
        let (first, mut behind) = self.partial(at)?;
        let mut parts = vec![first];
        while self.mark(behind, ".") {
            match self.partial(behind + 1) {
                Some((part, next)) => {
                    parts.push(part);
                    behind = next;
                }
                None => {
                    parts.push(Part { text: String::new(), whole: false });
                    behind += 1;
                }
            }
        }
        Some((parts, behind))
    }

    /// One part of a name, with what touches it: `t_{x}`, `{schema}`, `%s`, `:name`.
    fn partial(&self, at: usize) -> Option<(Part, usize)> {
        let token = self.tokens.get(at)?;
        let (mut part, mut behind) = match self.part(at) {
            Some(part) => (part, at + 1),
            None if is_placeholder(token) => (Part { text: String::new(), whole: false }, self.behind_placeholder(at)),
            None => return None,
        };
        // What touches a name belongs to it.
        while let Some(next) = self.tokens.get(behind) {
            let touches = next.start == self.tokens[behind - 1].end;
            let goes_on = (is_placeholder(next) && !next.text.starts_with('?'))
                || (!part.whole && matches!(next.kind, TokenKind::Word));
            if !touches || !goes_on {
                break;
            }
            part.whole = false;
            behind = if is_placeholder(next) { self.behind_placeholder(behind) } else { behind + 1 };
        }
        Some((part, behind))
    }

    fn behind_placeholder(&self, at: usize) -> usize {
        let token = &self.tokens[at];
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text);
        let open = if is_brace(token) { at } else { at + 1 };
        // `{x}`, `{{ x }}`, `${x}`, `#{x}`.
        if text(open) == "{" && (open == at || self.tokens[open].start == token.end) {
            let mut depth = 0usize;
            for at in open..self.tokens.len().min(open + 24) {
                match text(at) {
                    "{" => depth += 1,
                    "}" => {
                        depth -= 1;
                        if depth == 0 {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
            }
            return open + 1;
        }
        if token.text.ends_with('%') || matches!(token.text, "$" | "@" | "#") {
            // `%s`, `%(name)s`, `%1$s`, `$x`, `@x`.
            let mut next = at + 1;
            if text(next) == "(" && token.text.ends_with('%') {
                next = (self.behind_parentheses(next)).min(next + 4);
            }
            let touches = self.tokens.get(next).is_some_and(|word| {
                matches!(word.kind, TokenKind::Word | TokenKind::Number) && word.start == self.tokens[next - 1].end
            });
            return next + usize::from(touches);
        }
        at + 1
    }

    /// A word or quoted name as the server folds it, up to its first hole.
    fn part(&self, at: usize) -> Option<Part> {
        let token = self.tokens.get(at)?;
        let full = match token.kind {
            TokenKind::Word => token.text.to_ascii_lowercase(),
            TokenKind::QuotedName => {
                let inner = token.text.trim_start_matches(['u', 'U', '&']);
                let inner = inner.strip_prefix('"').unwrap_or(inner);
                inner.strip_suffix('"').unwrap_or(inner).replace("\"\"", "\"")
            }
            _ => return None,
        };
        // A placeholder in quotes: `"{schema}"`, `"%s"`.
        let quoted = token.kind == TokenKind::QuotedName;
        let hole = full.find(|c| c == HOLE || (quoted && "{%$".contains(c)));
        Some(match hole {
            Some(hole) => Part { text: full[..hole].to_owned(), whole: false },
            None => Part { text: full, whole: true },
        })
    }
}

fn is_string(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::String | TokenKind::DollarString)
}

fn is_brace(token: &Token<'_>) -> bool {
    token.text == "{"
}

/// What stands for a value or name that is filled in.
fn is_placeholder(token: &Token<'_>) -> bool {
    match token.kind {
        TokenKind::Parameter | TokenKind::Variable(_) => true,
        TokenKind::Other => matches!(token.text, "{" | "$"),
        TokenKind::Operator => {
            token.text.starts_with('%') || token.text.starts_with('?') || matches!(token.text, "@" | "#" | "<")
        }
        _ => false,
    }
}

/// The tokens of a text that count, a semicolon between its statements. The data of a COPY is left out, and `\copy` is
/// the statement it stands for.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    for piece in statements(text) {
        match piece {
            Ok(statement) => take(text, statement.range, &mut all),
            Err(problem) if matches!(&problem.kind, ProblemKind::Meta { name } if name == "copy") => {
                let end = problem.range.end;
                take(text, problem.range.start + 1..end, &mut all);
                if let Some(end) = all.last().map(|token: &Token<'_>| token.end) {
                    all.push(Token { kind: TokenKind::Punctuation, text: ";", start: end, end });
                }
                continue;
            }
            Err(_) => continue,
        }
        if let Some(end) = all.last().map(|token| token.end) {
            all.push(Token { kind: TokenKind::Punctuation, text: ";", start: end, end });
        }
    }
    // A last statement that nobody ended goes on elsewhere.
    let ended = text.trim_end().ends_with(';');
    if !ended && all.last().is_some_and(|token| token.text == ";") {
        all.pop();
    }
    all
}

fn take<'a>(text: &'a str, range: Range<usize>, all: &mut Vec<Token<'a>>) {
    for token in lex(&text[range.clone()]).filter(|token| !token.is_blank() && token.kind != TokenKind::Meta) {
        let (start, end) = (range.start + token.start, range.start + token.end);
        let word = &text[start..end];
        // `{prefix}INSERT`: the hole is one token, the word another.
        let behind = word.trim_start_matches(HOLE);
        let joined = behind.len() < word.len() && HEADS.iter().any(|head| behind.eq_ignore_ascii_case(head));
        if token.kind == TokenKind::Word && joined {
            let middle = end - behind.len();
            all.push(Token { kind: token.kind, text: &text[start..middle], start, end: middle });
            all.push(Token { kind: token.kind, text: behind, start: middle, end });
        } else {
            all.push(Token { kind: token.kind, text: word, start, end });
        }
    }
}

fn behind_parentheses(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut behind = vec![tokens.len(); tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => open.push(at),
            ")" => {
                if let Some(open) = open.pop() {
                    behind[open] = at + 1;
                }
            }
            ";" => open.drain(..).for_each(|open| behind[open] = at),
            _ => {}
        }
    }
    behind
}

/// What a string means.
fn string(source: &Text, token: &Token<'_>) -> Text {
    if token.kind == TokenKind::DollarString {
        let tag = token.text[1..].find('$').map_or(1, |at| at + 2);
        let end = token.text.len().saturating_sub(tag).max(tag);
        return source.slice(token.start + tag..token.start + end.min(token.text.len()));
    }
    let open = token.text.find('\'').map_or(0, |at| at + 1);
    let end =
        if token.text.len() > open && token.text.ends_with('\'') { token.text.len() - 1 } else { token.text.len() };
    let escaped = token.text.starts_with(['e', 'E']);
    let mut text = Text::default();
    let mut characters = token.text[open..end].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let place = source.at(token.start + open + at);
        let doubled = character == '\'' || (escaped && character == '\\');
        match characters.peek() {
            Some((_, next)) if doubled && (*next == '\'' || character == '\\') => {
                text.push(if *next == 'n' { '\n' } else { *next }, place);
                characters.next();
            }
            _ => text.push(character, place),
        }
    }
    text
}

/// The entries of a search path that is written as one text.
pub(super) fn path(text: &str) -> Vec<PathEntry> {
    text.split(',').filter(|one| !one.trim().is_empty()).map(entry).collect()
}

fn entry(text: &str) -> PathEntry {
    let text = text.trim();
    let name = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').unwrap_or(quoted).replace("\"\"", "\""),
        None => text.to_ascii_lowercase(),
    };
    let known = !name.contains([HOLE, '{', '}', '%', '?', ':']) && (name == "$user" || !name.contains('$'));
    known.then_some(name)
}
