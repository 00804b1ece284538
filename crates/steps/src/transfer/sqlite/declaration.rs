//! What only the text of a CREATE statement tells: checks, collations, generation, deferrability.
//!
//! SQLite's PRAGMAs know columns, keys and indexes; the rest stands in `sqlite_master.sql`, which SQLite itself has parsed
//! before, so that only its shape has to be followed here.

use super::lex::{Token, What, tokens};

/// What a CREATE TABLE says beyond the PRAGMAs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declaration {
    pub columns: Vec<ColumnDeclaration>,
    /// With their names, where they have one; of columns and of the table.
    pub checks: Vec<(Option<String>, String)>,
    /// In the order of their appearance, as deferrable and initially deferred or not.
    pub deferrable: Vec<bool>,
    pub autoincrement: bool,
    pub without_rowid: bool,
    pub strict: bool,
    /// `ON CONFLICT REPLACE` and the like, on some constraint.
    pub conflict_clauses: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnDeclaration {
    pub name: String,
    pub collation: Option<String>,
    pub generated: Option<String>,
}

/// The parts of a CREATE INDEX.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexDeclaration {
    /// The texts of its columns and expressions, without collation and direction.
    pub terms: Vec<String>,
    /// The text behind WHERE.
    pub condition: Option<String>,
}

/// Reads a CREATE TABLE.
pub fn table(sql: &str) -> Declaration {
    let tokens = tokens(sql);
    let mut declaration = Declaration::default();
    let Some(open) = tokens.iter().position(|token| token.is_sign("(")) else { return declaration };
    let close = closing(&tokens, open);
    for part in split(&tokens[open + 1..close]) {
        let begins = |word: &str| part.first().is_some_and(|token| token.is(word));
        let of_table = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].iter().any(|word| begins(word));
        let mut column = ColumnDeclaration::default();
        let body = if of_table {
            part
        } else {
            column.name = part.first().and_then(Token::name).unwrap_or_default().to_owned();
            part.get(1..).unwrap_or_default()
        };
        clauses(sql, body, &mut column, &mut declaration);
        if !of_table {
            declaration.columns.push(column);
        }
    }
    for pair in tokens.get(close + 1..).unwrap_or_default().windows(2) {
        declaration.without_rowid |= pair[0].is("WITHOUT") && pair[1].is("ROWID");
    }
    declaration.strict = tokens.get(close + 1..).unwrap_or_default().iter().any(|token| token.is("STRICT"));
    declaration
}

/// Follows the constraints of one column or of the table.
fn clauses(sql: &str, body: &[Token], column: &mut ColumnDeclaration, declaration: &mut Declaration) {
    let mut name = None;
    let mut at = 0;
    while at < body.len() {
        let token = &body[at];
        let next = body.get(at + 1);
        if token.is_sign("(") {
            at = closing(body, at);
        } else if token.is("CONSTRAINT") {
            name = next.and_then(Token::name).map(str::to_owned);
            at += 1;
        } else if token.is("CHECK") && next.is_some_and(|next| next.is_sign("(")) {
            let close = closing(body, at + 1);
            declaration.checks.push((name.take(), inside(sql, body, at + 1, close)));
            at = close;
        } else if token.is("AS") && next.is_some_and(|next| next.is_sign("(")) {
            let close = closing(body, at + 1);
            column.generated = Some(inside(sql, body, at + 1, close));
            at = close;
        } else if token.is("COLLATE") {
            column.collation = next.and_then(Token::name).map(str::to_owned);
            at += 1;
        } else if token.is("REFERENCES") {
            declaration.deferrable.push(false);
            at += 1;
        } else if token.is("INITIALLY") && next.is_some_and(|next| next.is("DEFERRED")) {
            // NOT DEFERRABLE INITIALLY DEFERRED is immediate: lang_createtable and foreignkeys.html, section 4.2.
            let negated = at >= 2 && body[at - 1].is("DEFERRABLE") && body[at - 2].is("NOT");
            if let Some(last) = declaration.deferrable.last_mut() {
                *last = !negated;
            }
        } else if token.is("AUTOINCREMENT") {
            declaration.autoincrement = true;
        } else if token.is("CONFLICT")
            && let Some(action) = next.and_then(Token::name).filter(|action| !action.eq_ignore_ascii_case("ABORT"))
        {
            declaration.conflict_clauses.push(action.to_uppercase());
        }
        at += 1;
    }
}

/// Reads a CREATE INDEX.
pub fn index(sql: &str) -> IndexDeclaration {
    let tokens = tokens(sql);
    let mut declaration = IndexDeclaration::default();
    let Some(open) = tokens.iter().position(|token| token.is_sign("(")) else { return declaration };
    let close = closing(&tokens, open);
    for part in split(&tokens[open + 1..close]) {
        let mut end = part.len();
        if part.last().is_some_and(|token| token.is("ASC") || token.is("DESC")) {
            end -= 1;
        }
        if end >= 2 && part[end - 2].is("COLLATE") {
            end -= 2;
        }
        declaration.terms.push(span(sql, &part[..end]));
    }
    if let Some(condition) = tokens.get(close + 2..)
        && tokens[close + 1].is("WHERE")
    {
        declaration.condition = Some(span(sql, condition));
    }
    declaration
}

fn span(sql: &str, tokens: &[Token]) -> String {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => sql[first.from..last.to].to_owned(),
        _ => String::new(),
    }
}

fn inside(sql: &str, tokens: &[Token], open: usize, close: usize) -> String {
    span(sql, tokens.get(open + 1..close).unwrap_or_default())
}

/// Where the bracket closes; the end if it does not.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.what {
            What::Sign("(") => depth += 1,
            What::Sign(")") => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The parts between commas that stand in no bracket.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < tokens.len() {
        if tokens[at].is_sign("(") {
            at = closing(tokens, at);
        } else if tokens[at].is_sign(",") {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
        at += 1;
    }
    parts.push(&tokens[from.min(tokens.len())..]);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_is_read() {
        let found = table(
            "CREATE TABLE \"a (b\" (id INTEGER PRIMARY KEY AUTOINCREMENT, -- comment, with (\n\
             [n ame] VARCHAR(10, 2) COLLATE nocase DEFAULT (1 + (2)) CHECK (length([n ame]) > 0),\n\
             c GENERATED ALWAYS AS (id * 2) STORED, p REFERENCES q(x) DEFERRABLE INITIALLY DEFERRED,\n\
             r REFERENCES s NOT DEFERRABLE INITIALLY DEFERRED UNIQUE ON CONFLICT REPLACE,\n\
             CONSTRAINT big CHECK (id < 10), FOREIGN KEY (c) REFERENCES q) STRICT, WITHOUT ROWID",
        );
        assert_eq!(
            found.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(),
            ["id", "n ame", "c", "p", "r"]
        );
        assert_eq!(found.columns[1].collation.as_deref(), Some("nocase"));
        assert_eq!(found.columns[2].generated.as_deref(), Some("id * 2"));
        assert_eq!(
            found.checks,
            [(None, "length([n ame]) > 0".to_owned()), (Some("big".to_owned()), "id < 10".to_owned())]
        );
        assert_eq!(found.deferrable, [true, false, false]);
        assert_eq!(found.conflict_clauses, ["REPLACE"]);
        assert!(found.autoincrement && found.without_rowid && found.strict);
    }

    #[test]
    fn index_is_read() {
        let found =
            index("CREATE UNIQUE INDEX i ON t (lower(a), \"b c\" COLLATE NOCASE DESC) WHERE a IS NOT NULL AND b > 1");
        assert_eq!(found.terms, ["lower(a)", "\"b c\""]);
        assert_eq!(found.condition.as_deref(), Some("a IS NOT NULL AND b > 1"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(sql in "[a-z(),\"' ]{0,60}|CREATE TABLE t \\(\\PC{0,40}") {
            let _ = (table(&sql), index(&sql));
        }
    }
}
