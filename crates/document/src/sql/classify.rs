//! What decides how a statement must be sent: whether it controls the transaction, or cannot run inside one.
//!
//! The list is that of `PreventInTransactionBlock` in PostgreSQL 14 to 18. What depends on the catalog is not here
//! (`REINDEX` or `CLUSTER` of a partitioned table, a procedure that commits): there the server answers 25001 or 2D000.

use super::lex::{Token, TokenKind, lex};

/// How a statement stands to transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Runs inside a transaction block or outside of one.
    Plain,
    /// Begins, ends or divides a transaction.
    Control(Control),
    /// Cannot run inside a transaction block.
    Outside(Outside),
}

/// What a statement does to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`: stays inside the transaction.
    Savepoint,
    /// `PREPARE TRANSACTION`.
    Prepare,
    /// `COMMIT PREPARED`, `ROLLBACK PREPARED`: outside of any transaction.
    Prepared,
}

/// A statement that cannot run inside a transaction block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// `CREATE INDEX CONCURRENTLY`: leaves an invalid index behind where it fails.
    CreateIndex {
        /// `None` where the server chooses the name. Its schema is always that of the table.
        index: Option<String>,
        table: Name,
        if_not_exists: bool,
    },
    /// `DROP INDEX CONCURRENTLY`.
    DropIndex { index: Name },
    /// `REINDEX ... CONCURRENTLY`: leaves an invalid index with the suffix `_ccnew` or `_ccold` where it fails.
    Reindex {
        /// `INDEX`, `TABLE`, `SCHEMA`, `DATABASE` or `SYSTEM`.
        what: &'static str,
        name: Option<Name>,
    },
    /// `ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY`: leaves the detachment pending where it fails.
    DetachPartition { table: Name, partition: Name },
    /// Anything else, named as a person would: `VACUUM`.
    Other(&'static str),
}

/// The name of a relation or type, folded as the server folds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub schema: Option<String>,
    pub name: String,
}

/// A value that `ALTER TYPE ... ADD VALUE` adds: it can be used only after that transaction has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumValue {
    pub type_name: Name,
    pub value: String,
    pub if_not_exists: bool,
}

/// How a statement stands to transactions.
pub fn classify(statement: &str) -> Class {
    let mut words = Words::new(statement);
    if let Some(control) = control(words.clone()) {
        return Class::Control(control);
    }
    match outside(&mut words) {
        Some(outside) => Class::Outside(outside),
        None => Class::Plain,
    }
}

fn control(mut words: Words<'_>) -> Option<Control> {
    if words.eat("begin") || words.eat_all(&["start", "transaction"]) {
        Some(Control::Begin)
    } else if words.eat("commit") || words.eat("end") {
        Some(if words.eat("prepared") { Control::Prepared } else { Control::Commit })
    } else if words.eat("rollback") || words.eat("abort") {
        if words.eat("prepared") {
            return Some(Control::Prepared);
        }
        let _noise = words.eat("work") || words.eat("transaction");
        Some(if words.eat("to") { Control::Savepoint } else { Control::Rollback })
    } else if words.eat("savepoint") || words.eat("release") {
        Some(Control::Savepoint)
    } else if words.eat_all(&["prepare", "transaction"]) && words.next_is(TokenKind::String) {
        Some(Control::Prepare)
    } else {
        None
    }
}

fn outside(words: &mut Words<'_>) -> Option<Outside> {
    let other = |what| Some(Outside::Other(what));
    if words.eat("vacuum") {
        other("VACUUM")
    } else if words.eat("reindex") {
        reindex(words)
    } else if words.eat("cluster") {
        words.options();
        words.eat("verbose");
        words.name().is_none().then_some(Outside::Other("CLUSTER without a table"))
    } else if words.eat_all(&["discard", "all"]) {
        other("DISCARD ALL")
    } else if words.eat("create") {
        create(words)
    } else if words.eat("drop") {
        drop(words)
    } else if words.eat("alter") {
        alter(words)
    } else {
        None
    }
}

fn create(words: &mut Words<'_>) -> Option<Outside> {
    if words.eat("database") {
        return Some(Outside::Other("CREATE DATABASE"));
    }
    if words.eat("tablespace") {
        return Some(Outside::Other("CREATE TABLESPACE"));
    }
    if words.eat("subscription") {
        let without_slot = words.option_is_false("create_slot") || words.option_is_false("connect");
        return (!without_slot).then_some(Outside::Other("CREATE SUBSCRIPTION that creates its slot"));
    }
    words.eat("unique");
    if !words.eat_all(&["index", "concurrently"]) {
        return None;
    }
    let if_not_exists = words.eat_all(&["if", "not", "exists"]);
    let index = if words.eat("on") {
        None
    } else {
        let index = words.name()?.name;
        words.eat("on");
        Some(index)
    };
    words.eat("only");
    Some(Outside::CreateIndex { index, table: words.name()?, if_not_exists })
}

fn drop(words: &mut Words<'_>) -> Option<Outside> {
    for (word, what) in [
        ("database", "DROP DATABASE"),
        ("tablespace", "DROP TABLESPACE"),
        ("subscription", "DROP SUBSCRIPTION that drops its slot"),
    ] {
        if words.eat(word) {
            return Some(Outside::Other(what));
        }
    }
    if !words.eat_all(&["index", "concurrently"]) {
        return None;
    }
    words.eat_all(&["if", "exists"]);
    Some(Outside::DropIndex { index: words.name()? })
}

fn reindex(words: &mut Words<'_>) -> Option<Outside> {
    let mut concurrently = words.clone().option_is_true("concurrently");
    words.options();
    let what = ["index", "table", "schema", "database", "system"].into_iter().find(|what| words.eat(what))?;
    concurrently |= words.eat("concurrently");
    let what = match what {
        "index" => "INDEX",
        "table" => "TABLE",
        "schema" => "SCHEMA",
        "database" => "DATABASE",
        _ => "SYSTEM",
    };
    match (concurrently, what) {
        (true, _) => Some(Outside::Reindex { what, name: words.name() }),
        (false, "SCHEMA") => Some(Outside::Other("REINDEX SCHEMA")),
        (false, "DATABASE") => Some(Outside::Other("REINDEX DATABASE")),
        (false, "SYSTEM") => Some(Outside::Other("REINDEX SYSTEM")),
        (false, _) => None,
    }
}

fn alter(words: &mut Words<'_>) -> Option<Outside> {
    if words.eat("system") {
        return Some(Outside::Other("ALTER SYSTEM"));
    }
    if words.eat("database") {
        words.name()?;
        return words.eat_all(&["set", "tablespace"]).then_some(Outside::Other("ALTER DATABASE SET TABLESPACE"));
    }
    if words.eat("subscription") {
        words.name()?;
        return alter_subscription(words);
    }
    if !words.eat("table") {
        return None;
    }
    words.eat_all(&["if", "exists"]);
    words.eat("only");
    let table = words.name()?;
    if !words.eat_all(&["detach", "partition"]) {
        return None;
    }
    let partition = words.name()?;
    words.eat("concurrently").then_some(Outside::DetachPartition { table, partition })
}

fn alter_subscription(words: &mut Words<'_>) -> Option<Outside> {
    if words.eat_all(&["refresh", "publication"]) {
        return Some(Outside::Other("ALTER SUBSCRIPTION REFRESH PUBLICATION"));
    }
    let publication = ["set", "add", "drop"].into_iter().any(|verb| words.eat_all(&[verb, "publication"]));
    if publication {
        let refreshes = !words.option_is_false("refresh");
        return refreshes.then_some(Outside::Other("ALTER SUBSCRIPTION that refreshes its publications"));
    }
    // Since 17 and 18 these two change the slot on the publisher.
    let slot = words.eat("set") && words.clone().any(|word| word.is("failover") || word.is("two_phase"));
    slot.then_some(Outside::Other("ALTER SUBSCRIPTION SET (failover or two_phase)"))
}

/// The value that a statement adds to an enum.
pub fn added_enum_value(statement: &str) -> Option<EnumValue> {
    let mut words = Words::new(statement);
    if !words.eat_all(&["alter", "type"]) {
        return None;
    }
    let type_name = words.name()?;
    if !words.eat_all(&["add", "value"]) {
        return None;
    }
    let if_not_exists = words.eat_all(&["if", "not", "exists"]);
    let value = string_value(words.next().filter(|word| word.token.kind == TokenKind::String)?.text);
    Some(EnumValue { type_name, value, if_not_exists })
}

/// The enum values that one statement of a list adds and a later one writes as a string, with the later one's place in
/// the list. In one transaction such a use fails (55P04); a type that the list itself creates is free of that.
///
/// A string equal to the value may mean something else: reason to look, no proof.
pub fn enum_values_used<'a>(statements: impl IntoIterator<Item = &'a str>) -> Vec<(EnumValue, usize)> {
    let mut created: Vec<Name> = Vec::new();
    let mut added: Vec<EnumValue> = Vec::new();
    let mut used = Vec::new();
    for (place, statement) in statements.into_iter().enumerate() {
        let mut words = Words::new(statement);
        if words.eat_all(&["create", "type"]) {
            created.extend(words.name());
        } else if let Some(value) = added_enum_value(statement) {
            if !created.contains(&value.type_name) {
                added.push(value);
            }
        } else if !added.is_empty() {
            let strings: Vec<_> = Words::new(statement)
                .filter(|word| word.token.kind == TokenKind::String)
                .map(|word| string_value(word.text))
                .collect();
            let (hit, rest) = added.into_iter().partition(|value: &EnumValue| strings.contains(&value.value));
            added = rest;
            used.extend(Vec::into_iter(hit).map(|value| (value, place)));
        }
    }
    used
}

/// The tokens of a statement that are not blank.
#[derive(Clone)]
struct Words<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<super::lex::Lexer<'a>>,
}

#[derive(Clone, Copy)]
struct Word<'a> {
    token: Token,
    text: &'a str,
}

impl Word<'_> {
    fn is(self, keyword: &str) -> bool {
        self.token.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let token = self.tokens.find(|token| !token.is_blank())?;
        Some(Word { token, text: &self.text[token.range()] })
    }
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, tokens: lex(text).peekable() }
    }

    fn peek(&mut self) -> Option<Word<'a>> {
        while self.tokens.next_if(|token| token.is_blank()).is_some() {}
        let token = *self.tokens.peek()?;
        Some(Word { token, text: &self.text[token.range()] })
    }

    fn next_is(&mut self, kind: TokenKind) -> bool {
        self.peek().is_some_and(|word| word.token.kind == kind)
    }

    /// Takes a keyword if it comes next.
    fn eat(&mut self, keyword: &str) -> bool {
        let there = self.peek().is_some_and(|word| word.is(keyword));
        if there {
            self.tokens.next();
        }
        there
    }

    /// Takes keywords if all of them come next, else none.
    fn eat_all(&mut self, keywords: &[&str]) -> bool {
        let mut ahead = self.clone();
        let there = keywords.iter().all(|keyword| ahead.eat(keyword));
        if there {
            *self = ahead;
        }
        there
    }

    /// Takes `name` or `schema.name` or `database.schema.name`.
    fn name(&mut self) -> Option<Name> {
        let mut parts = vec![self.name_part()?];
        while self.peek().is_some_and(|word| word.text == ".") {
            self.next();
            parts.push(self.name_part()?);
        }
        let name = parts.pop()?;
        Some(Name { schema: parts.pop(), name })
    }

    fn name_part(&mut self) -> Option<String> {
        let word = self.peek()?;
        let name = match word.token.kind {
            TokenKind::Word => word.text.to_ascii_lowercase(),
            TokenKind::QuotedName => {
                word.text.trim_start_matches(['u', 'U', '&']).trim_matches('"').replace("\"\"", "\"")
            }
            _ => return None,
        };
        self.next();
        Some(truncate(name))
    }

    /// Takes a list of options in parentheses.
    fn options(&mut self) {
        if self.peek().is_some_and(|word| word.text == "(") {
            self.find(|word| word.text == ")");
        }
    }

    /// Whether an option is written here or later with a value that means no.
    fn option_is_false(&self, option: &str) -> bool {
        self.option(option).is_some_and(|value| ["false", "off", "0", "no"].contains(&value.as_str()))
    }

    /// Whether a list in parentheses comes next that switches an option on.
    fn option_is_true(&mut self, option: &str) -> bool {
        self.peek().is_some_and(|word| word.text == "(")
            && self.option(option).is_some_and(|value| !["false", "off", "0", "no"].contains(&value.as_str()))
    }

    /// The value of the first option of this name, in lower case; empty where it stands alone.
    fn option(&self, option: &str) -> Option<String> {
        let mut ahead = self.clone();
        ahead.find(|word| word.is(option))?;
        let mut value = ahead.next()?;
        if value.text == "=" {
            value = ahead.next()?;
        }
        Some(value.text.trim_matches('\'').to_ascii_lowercase())
    }
}

/// Cuts a name to the 63 bytes that the server keeps of it.
fn truncate(mut name: String) -> String {
    const NAME_BYTES: usize = 63; // NAMEDATALEN - 1
    if name.len() > NAME_BYTES {
        name.truncate(name.floor_char_boundary(NAME_BYTES));
    }
    name
}

/// The value of a string token; escapes other than a doubled quote and a backslash before a character stay as they are.
fn string_value(text: &str) -> String {
    let escaped = text.starts_with(['e', 'E']);
    let inner = text.trim_start_matches(|c| c != '\'').strip_prefix('\'').unwrap_or(text);
    let value = inner.strip_suffix('\'').unwrap_or(inner).replace("''", "'");
    if escaped { value.replace("\\'", "'").replace("\\\\", "\\") } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        match text.split_once('.') {
            Some((schema, name)) => Name { schema: Some(schema.into()), name: name.into() },
            None => Name { schema: None, name: text.into() },
        }
    }

    #[test]
    fn transaction_control() {
        use Control::*;
        for (text, control) in [
            ("BEGIN", Begin),
            ("begin isolation level serializable", Begin),
            ("START TRANSACTION READ ONLY", Begin),
            ("COMMIT AND CHAIN", Commit),
            ("/* x */ END", Commit),
            ("COMMIT PREPARED 'a'", Prepared),
            ("ROLLBACK", Rollback),
            ("ROLLBACK WORK", Rollback),
            ("ROLLBACK WORK TO SAVEPOINT a", Savepoint),
            ("ROLLBACK TO a", Savepoint),
            ("ROLLBACK PREPARED 'a'", Prepared),
            ("ABORT", Rollback),
            ("SAVEPOINT a", Savepoint),
            ("RELEASE SAVEPOINT a", Savepoint),
            ("PREPARE TRANSACTION 'a'", Prepare),
        ] {
            assert_eq!(classify(text), Class::Control(control), "{text}");
        }
    }

    #[test]
    fn statements_outside_of_transactions() {
        for (text, what) in [
            ("VACUUM (ANALYZE) t", "VACUUM"),
            ("CREATE DATABASE d", "CREATE DATABASE"),
            ("DROP DATABASE IF EXISTS d", "DROP DATABASE"),
            ("CREATE TABLESPACE s LOCATION '/x'", "CREATE TABLESPACE"),
            ("DROP TABLESPACE s", "DROP TABLESPACE"),
            ("ALTER SYSTEM SET work_mem = '1GB'", "ALTER SYSTEM"),
            ("ALTER DATABASE \"D\" SET TABLESPACE s", "ALTER DATABASE SET TABLESPACE"),
            ("CLUSTER", "CLUSTER without a table"),
            ("CLUSTER (VERBOSE)", "CLUSTER without a table"),
            ("CLUSTER VERBOSE", "CLUSTER without a table"),
            ("REINDEX SYSTEM d", "REINDEX SYSTEM"),
            ("REINDEX (VERBOSE) DATABASE", "REINDEX DATABASE"),
            ("REINDEX SCHEMA s", "REINDEX SCHEMA"),
            ("DISCARD ALL", "DISCARD ALL"),
            ("CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p", "CREATE SUBSCRIPTION that creates its slot"),
            ("DROP SUBSCRIPTION s", "DROP SUBSCRIPTION that drops its slot"),
            ("ALTER SUBSCRIPTION s REFRESH PUBLICATION", "ALTER SUBSCRIPTION REFRESH PUBLICATION"),
            ("ALTER SUBSCRIPTION s SET PUBLICATION p, q", "ALTER SUBSCRIPTION that refreshes its publications"),
            ("ALTER SUBSCRIPTION s SET (failover = true)", "ALTER SUBSCRIPTION SET (failover or two_phase)"),
        ] {
            assert_eq!(classify(text), Class::Outside(Outside::Other(what)), "{text}");
        }
    }

    #[test]
    fn plain_statements() {
        for text in [
            "SELECT 1",
            "",
            "CREATE INDEX i ON t (a)",
            "CREATE INDEX \"concurrently\" ON t (a)",
            "DROP INDEX i",
            "CREATE TABLE vacuum (a int)",
            "CLUSTER t USING i",
            "CLUSTER (VERBOSE) t",
            "REINDEX TABLE t",
            "REINDEX (CONCURRENTLY false) TABLE t",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
            "ALTER TYPE mood ADD VALUE 'x'",
            "ALTER DATABASE d SET work_mem = '1MB'",
            "ALTER TABLE t DETACH PARTITION p",
            "ALTER TABLE t SET TABLESPACE s",
            "CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p WITH (create_slot = false)",
            "CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p WITH (enabled, connect = 'off')",
            "ALTER SUBSCRIPTION s SET PUBLICATION p WITH (refresh = false)",
            "ALTER SUBSCRIPTION s DISABLE",
            "PREPARE transaction AS SELECT 1",
            "DISCARD TEMP",
        ] {
            assert_eq!(classify(text), Class::Plain, "{text}");
        }
    }

    #[test]
    fn concurrent_indexes_are_named() {
        let create = |index: Option<&str>, table: &str, if_not_exists| {
            Class::Outside(Outside::CreateIndex { index: index.map(Into::into), table: name(table), if_not_exists })
        };
        for (text, class) in [
            ("CREATE INDEX CONCURRENTLY I_a ON Public.T (a)", create(Some("i_a"), "public.t", false)),
            ("create unique index concurrently if not exists \"I\" on only t(a)", create(Some("I"), "t", true)),
            ("CREATE INDEX CONCURRENTLY ON s.\"T \"\"x\"", create(None, "s.T \"x", false)),
        ] {
            assert_eq!(classify(text), class, "{text}");
        }
        assert_eq!(
            classify("DROP INDEX CONCURRENTLY IF EXISTS s.i CASCADE"),
            Class::Outside(Outside::DropIndex { index: name("s.i") })
        );
        for text in ["REINDEX INDEX CONCURRENTLY s.i", "REINDEX (VERBOSE, CONCURRENTLY) INDEX s.i"] {
            let class = Outside::Reindex { what: "INDEX", name: Some(name("s.i")) };
            assert_eq!(classify(text), Class::Outside(class), "{text}");
        }
        assert_eq!(
            classify("ALTER TABLE IF EXISTS ONLY s.t DETACH PARTITION s.p CONCURRENTLY"),
            Class::Outside(Outside::DetachPartition { table: name("s.t"), partition: name("s.p") })
        );
    }

    #[test]
    fn names_are_cut_as_the_server_cuts_them() {
        let long = "é".repeat(40);
        let Class::Outside(Outside::CreateIndex { index, .. }) =
            classify(&format!("CREATE INDEX CONCURRENTLY {long} ON t (a)"))
        else {
            panic!("not an index");
        };
        assert_eq!(index, Some("é".repeat(31)));
    }

    #[test]
    fn added_enum_values_are_found() {
        let value = |text: &str| added_enum_value(text).map(|v| (v.type_name, v.value, v.if_not_exists));
        assert_eq!(
            value("ALTER TYPE s.mood ADD VALUE 'it''s' AFTER 'x'"),
            Some((name("s.mood"), "it's".into(), false))
        );
        assert_eq!(value("alter type mood add value if not exists 'x'"), Some((name("mood"), "x".into(), true)));
        assert_eq!(value("ALTER TYPE mood RENAME VALUE 'a' TO 'b'"), None);
    }

    #[test]
    fn use_of_an_added_value_is_found() {
        let used = |statements: &[&str]| {
            enum_values_used(statements.iter().copied()).into_iter().map(|(v, at)| (v.value, at)).collect::<Vec<_>>()
        };
        assert_eq!(used(&["ALTER TYPE m ADD VALUE 'x'", "SELECT 1", "INSERT INTO t VALUES ('x')"]), [("x".into(), 2)]);
        assert_eq!(used(&["ALTER TYPE m ADD VALUE 'x'", "SELECT 'y', $$x$$"]), []);
        assert_eq!(used(&["CREATE TYPE m AS ENUM ('a')", "ALTER TYPE m ADD VALUE 'x'", "SELECT 'x'::m"]), []);
    }
}
