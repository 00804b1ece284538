//! A script's text, looked at before it is run: what keeps it from running, and how it must be sent.
//!
//! The measure is `psql --single-transaction -v ON_ERROR_STOP=1 -f`: the same state, the same SQLSTATE. psql sends
//! statement by statement; a whole stretch is sent at once here where nobody could see the difference.

use std::ops::Range;

use pgrunbook_document::sql::{
    Class, Control, Outside, Split, Statement, VariableForm, classify, decode, enum_values_used, split, variables,
};

use super::chain::Script;
use super::error::ChainError;

/// A script that can be run.
#[derive(Debug)]
pub struct Text {
    /// For people: the path.
    pub shown: String,
    pub text: String,
    pub statements: Vec<Statement>,
    pub mode: Mode,
    /// Why it is sent statement by statement although it is one transaction.
    pub one_by_one: Option<&'static str>,
    /// The row of the history must come after its statements: its first one sets the transaction's characteristics.
    pub sets_transaction: bool,
    /// Lines of the file before the text.
    pub lines_before: usize,
}

/// How a script stands to transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// In one transaction, with its row in the history.
    Transaction,
    /// Statement by statement without a transaction around them; each is recorded.
    Statements { why: String },
    /// Its own `BEGIN` and `COMMIT` decide.
    Own { line: usize },
}

impl Mode {
    /// For the plan; nothing to say of the usual one.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Transaction => None,
            Self::Statements { why } => Some(format!("runs without a transaction, statement by statement: {why}")),
            Self::Own { line } => Some(format!(
                "controls its own transactions (line {line}): after a crash in the middle a person must look"
            )),
        }
    }

    /// As the history keeps it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Statements { .. } => "statements",
            Self::Own { .. } => "own",
        }
    }
}

impl Text {
    /// Reads a script and looks at it.
    ///
    /// # Errors
    /// If it cannot be read, is no text, holds commands or variables of psql, or uses an enum value in the transaction
    /// that adds it.
    pub fn read(script: &Script) -> Result<Self, ChainError> {
        let content = script.read()?;
        Self::of(&script.shown, content, script.lines_before, script.without_transaction)
    }

    /// The same of bytes.
    pub fn of(
        shown: &str,
        content: Vec<u8>,
        lines_before: usize,
        without_transaction: bool,
    ) -> Result<Self, ChainError> {
        let refused = |line: usize, what: String, help: &str, sqlstate| ChainError::Refused {
            file: shown.to_owned(),
            line: line + lines_before,
            what,
            help: help.to_owned(),
            sqlstate,
        };
        let text = text_of(content).map_err(|error| {
            refused(error.line, error.what.to_owned(), "save the file as UTF-8 text", Some("22021"))
        })?;
        let Split { mut statements, problems } = split(&text);
        let mut one_by_one = None;
        for problem in problems {
            if let pgrunbook_document::sql::ProblemKind::Unclosed(_) = problem.kind {
                // psql sends what it has at the end of the file, and the server says what is wrong with it.
                one_by_one = Some("a quote or comment is not closed");
                match statements.last_mut() {
                    // A string belongs to its statement already.
                    Some(last) if last.range.end >= problem.range.end => {}
                    Some(last) if !text[last.range.end..problem.range.start].contains(';') => {
                        last.range.end = problem.range.end;
                    }
                    _ => statements.push(Statement {
                        range: problem.range,
                        line: problem.line,
                        head: String::new(),
                        copy_data: None,
                    }),
                }
            } else {
                return Err(refused(problem.line, problem.kind.to_string(), problem.kind.help(), None));
            }
        }
        let mut seen = Looked { mode: Mode::Transaction, one_by_one, sets_transaction: false };
        for statement in &statements {
            let body = statement.text(&text);
            refuse_variables(&text, statement, &refused)?;
            seen.look(body, statement);
        }
        if without_transaction && seen.mode == Mode::Transaction {
            seen.mode = Mode::Statements { why: "the file says so".to_owned() };
        }
        if seen.mode == Mode::Transaction {
            let used = enum_values_used(statements.iter().map(|statement| statement.text(&text)));
            if let Some((value, place)) = used.into_iter().next() {
                return Err(refused(
                    statements[place].line,
                    format!(
                        "the value '{}' is used in the transaction that adds it to {}: the server refuses that (55P04)",
                        value.value, value.type_name.name
                    ),
                    "end this file with ALTER TYPE ... ADD VALUE, and put what uses the value into the next one",
                    Some("55P04"),
                ));
            }
        }
        Ok(Self {
            shown: shown.to_owned(),
            statements,
            mode: seen.mode,
            one_by_one: seen.one_by_one,
            sets_transaction: seen.sets_transaction,
            lines_before,
            text,
        })
    }

    /// Whether it may leave something in the session that the next file would meet: a setting, a role, a temporary table,
    /// a cursor, a lock.
    pub fn leaves_traces(&self) -> bool {
        let words =
            ["set", "temp", "role", "authorization", "prepare", "declare", "listen", "advisory", "nextval", "load"];
        words.iter().any(|word| has_word(&self.text, word))
    }

    /// The statements before this one that choose a role, each with its end.
    pub fn roles(&self, before: usize) -> String {
        let heads = ["SET ROLE", "RESET ROLE", "SET SESSION AUTHORIZATION", "RESET SESSION AUTHORIZATION"];
        let chooses = |at: &usize| {
            let head = &self.statements[*at].head;
            heads.iter().any(|one| head.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
        };
        // A comment may end the statement's line.
        (0..before).filter(chooses).map(|at| format!("{}\n;", self.statement(at))).collect()
    }

    /// A statement's text.
    pub fn statement(&self, at: usize) -> &str {
        self.statements[at].text(&self.text)
    }

    /// The line of the file at a place of the text given as a count of characters behind `start`.
    pub fn line_at(&self, start: usize, characters: usize) -> usize {
        let rest = &self.text[start..];
        let end = rest.char_indices().nth(characters).map_or(self.text.len(), |(at, _)| start + at);
        1 + self.lines_before + count_lines(&self.text, 0..end)
    }
}

/// Lines that end in a range.
fn count_lines(text: &str, range: Range<usize>) -> usize {
    text.as_bytes()[range].iter().filter(|byte| **byte == b'\n').count()
}

/// Bytes to text without a copy where there is no byte order mark.
fn text_of(content: Vec<u8>) -> Result<String, pgrunbook_document::sql::NotSql> {
    let length = decode(&content)?.len();
    let mut text = String::from_utf8(content).expect("decode has looked at every byte");
    let mark = text.len() - length;
    text.drain(..mark);
    Ok(text)
}

fn refuse_variables(
    text: &str,
    statement: &Statement,
    refused: &impl Fn(usize, String, &str, Option<&'static str>) -> ChainError,
) -> Result<(), ChainError> {
    let body = statement.text(text);
    if !body.contains(':') {
        return Ok(());
    }
    let Some(variable) = variables(body).into_iter().next() else { return Ok(()) };
    let line = statement.line + count_lines(body, 0..variable.range.start);
    let what = format!("`{}` is a variable of psql", &body[variable.range]);
    let help = match variable.form {
        VariableForm::Raw => "a migration is the same everywhere: write the value itself (a cast is `::`)",
        _ => "a migration is the same everywhere: write the value itself",
    };
    Err(refused(line, what, help, Some("42601")))
}

/// What the statements looked at so far have shown.
struct Looked {
    mode: Mode,
    one_by_one: Option<&'static str>,
    sets_transaction: bool,
}

impl Looked {
    fn look(&mut self, body: &str, statement: &Statement) {
        match classify(body) {
            Class::Plain | Class::Control(Control::Savepoint) => {}
            // Before a file's own BEGIN, a statement outside of transactions decides: psql could not run it either.
            Class::Control(_) if self.mode == Mode::Transaction => self.mode = Mode::Own { line: statement.line },
            Class::Control(_) => {}
            Class::Outside(outside) => {
                if !matches!(self.mode, Mode::Statements { .. }) {
                    self.mode = Mode::Statements { why: format!("{} (line {})", shown(&outside), statement.line) };
                }
            }
        }
        let head = statement.head.as_str();
        self.sets_transaction |= head.starts_with("SET TRANSACTION") || head.starts_with("SET LOCAL TRANSACTION");
        if head == "COPY" || head.starts_with("COPY ") {
            let to_client = statement.copy_data.is_none() && has_word(body, "stdout");
            if to_client {
                self.one_by_one.get_or_insert("it sends data to the client");
            }
        }
        for (word, harmless, why) in [
            ("current_query", None, "it reads the text of the statement"),
            ("statement_timestamp", None, "it reads the time of the statement"),
            ("standard_conforming_strings", Some("on"), "it changes how strings are read"),
            ("client_encoding", Some("utf8"), "it changes the encoding"),
            ("backslash_quote", None, "it changes how strings are read"),
        ] {
            if has_word(body, word) && !harmless.is_some_and(|value| is_set_to(body, head, word, value)) {
                self.one_by_one.get_or_insert(why);
            }
        }
    }
}

/// Whether a word stands in a text, in any case and in any place (also in a string: it may be run from there).
fn has_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let first = word[0].to_ascii_lowercase();
    text.len() >= word.len()
        && (0..=text.len() - word.len())
            .any(|at| text[at].to_ascii_lowercase() == first && text[at..at + word.len()].eq_ignore_ascii_case(word))
}

/// Whether a statement is `SET word = value`.
fn is_set_to(body: &str, head: &str, word: &str, value: &str) -> bool {
    let sets = head.strip_prefix("SET ").is_some_and(|rest| rest.eq_ignore_ascii_case(word));
    let given = body.rsplit(['=', ' ']).next().unwrap_or_default().trim().trim_matches('\'');
    sets && given.replace('-', "").eq_ignore_ascii_case(value)
}

/// A statement that cannot run in a transaction, as people call it.
pub fn shown(outside: &Outside) -> String {
    match outside {
        Outside::CreateIndex { index: Some(index), .. } => format!("CREATE INDEX CONCURRENTLY {index}"),
        Outside::CreateIndex { index: None, table, .. } => format!("CREATE INDEX CONCURRENTLY on {}", table.name),
        Outside::DropIndex { index } => format!("DROP INDEX CONCURRENTLY {}", index.name),
        Outside::Reindex { what, .. } => format!("REINDEX {what}"),
        Outside::DetachPartition { partition, .. } => format!("DETACH PARTITION {} CONCURRENTLY", partition.name),
        Outside::Other(what) => (*what).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Text, ChainError> {
        Text::of("0001_a.sql", text.as_bytes().to_vec(), 0, false)
    }

    fn mode(text: &str) -> Mode {
        read(text).unwrap().mode
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn the_mode_follows_from_the_statements() {
        assert_eq!(mode("CREATE TABLE a(); SAVEPOINT s; DROP TABLE a; ROLLBACK TO s;"), Mode::Transaction);
        assert_eq!(mode("CREATE TABLE a();\nBEGIN; COMMIT;"), Mode::Own { line: 2 });
        assert_eq!(mode("CREATE INDEX CONCURRENTLY i ON t (a);").name(), "statements");
        assert_eq!(mode("-- VACUUM\nSELECT 'VACUUM'"), Mode::Transaction);
        assert_eq!(
            mode("SET lock_timeout = '1s';\nVACUUM t;").note().unwrap(),
            "runs without a transaction, statement by statement: VACUUM (line 2)"
        );
    }

    #[test]
    fn what_shows_how_it_was_sent_is_sent_one_by_one() {
        for (text, whole) in [
            ("SELECT 1; SELECT 2;", true),
            ("SET client_encoding = 'UTF8'; SET standard_conforming_strings = on;", true),
            ("SET client_encoding = 'LATIN1'", false),
            ("SET standard_conforming_strings = off", false),
            ("INSERT INTO log VALUES (CURRENT_QUERY())", false),
            ("COPY t TO stdout", false),
            ("COPY t FROM stdin;\n1\n\\.\n", true),
            ("SELECT 'open", false),
        ] {
            assert_eq!(read(text).unwrap().one_by_one.is_none(), whole, "{text}");
        }
    }

    #[test]
    fn an_unclosed_comment_is_sent_as_it_stands() {
        for text in ["SELECT 1;\n/* open", "SELECT 'open", "SELECT 1;\nSELECT 2 /* open"] {
            let read = read(text).unwrap();
            let last = read.statements.len() - 1;
            assert!(read.statement(last).ends_with("open"), "{text}: {:?}", read.statement(last));
        }
    }

    #[test]
    fn what_is_not_for_a_server_is_refused_with_its_line() {
        assert_eq!(refusal("SELECT 1;\n\\i other.sql\n"), "0001_a.sql, line 2: `\\i` is a command of psql, not SQL");
        assert_eq!(refusal("SELECT\n:'name';"), "0001_a.sql, line 2: `:'name'` is a variable of psql");
        assert_eq!(refusal("SELECT 1;\n\0"), "0001_a.sql, line 2: a NUL byte");
        let adds = "ALTER TYPE mood ADD VALUE 'calm';\nINSERT INTO t VALUES ('calm');";
        assert!(refusal(adds).starts_with("0001_a.sql, line 2: the value 'calm' is used"), "{}", refusal(adds));
        assert!(read("\\restrict abc\nSELECT a[1:2], b::text;\n\\unrestrict abc\n").is_ok());
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let text = Text::of("a.sql", "ä\nb\nc".as_bytes().to_vec(), 10, false).unwrap();
        assert_eq!([text.line_at(0, 0), text.line_at(0, 2), text.line_at(3, 2)], [11, 12, 13]);
    }
}
