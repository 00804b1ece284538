//! squawk's rules (<https://squawkhq.com/docs/rules>), through its crate.
//!
//! They read text by a whole grammar, and know what others learnt from migrations that went wrong. Three kinds of them are silent
//! here: what a rule of our own has said of the same statement, what the trial *sees* (locks, tables that are written anew), and what
//! `migrate` does by itself. Matters of style, and what squawk itself tells only when asked, a project asks for by name:
//! `squawk = ["prefer-text-field"]` in `[review]`.
//!
//! The grammar is walked by recursion, and a tree costs the square of its depth. What is nested deeper than people write is not given to it, and
//! it runs on a thread of its own, whose end, should it come by a panic, is a warning and nothing more.

use std::collections::BTreeSet;
use std::ops::Range;

use pgrunbook_document::sql::{TokenKind, lex, split};
use pgrunbook_document::{Severity, near};
use squawk_linter::{Linter, Rule, Version};
use squawk_syntax::SourceFile;
use toml::Spanned;

use super::lint::{Found, Reading};

/// When a rule is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Always.
    Always,
    /// Where none of these rules of our own, which know what the file itself made, has a finding.
    Unless(&'static [&'static str]),
    /// As above, and only where the trial does not watch: it sees what the rule guesses.
    Blind(&'static [&'static str]),
    /// When asked for: `migrate` sets the time limits and the transaction.
    Ours,
    /// When asked for: a matter of style.
    Style,
    /// When asked for: squawk itself is silent otherwise.
    Asked,
}
use Heard::{Always, Asked, Blind, Ours, Style, Unless};

/// A rule of squawk.
struct Known {
    name: &'static str,
    /// The same behind `squawk/`.
    code: &'static str,
    heard: Heard,
}

macro_rules! rules {
    ($($name:literal: $heard:expr,)*) => {
        &[$(Known { name: $name, code: concat!("squawk/", $name), heard: $heard }),*]
    };
}

const ADDITIVE: &[&str] = &["not-additive"];

const RULES: &[Known] = rules![
    "adding-field-with-default": Blind(&[]),
    "adding-foreign-key-constraint": Blind(&["constraint-validates"]),
    "adding-not-nullable-field": Blind(ADDITIVE),
    "adding-required-field": Unless(&["not-null-without-default"]),
    "adding-serial-primary-key-field": Blind(&["not-null-without-default"]),
    "ban-add-column": Asked,
    "ban-add-composite-attribute": Asked,
    "ban-add-enum-value": Asked,
    "ban-alter-database-options": Asked,
    "ban-alter-domain-with-add-constraint": Always,
    "ban-alter-extension": Asked,
    "ban-alter-function-options": Asked,
    "ban-alter-generated-expression": Asked,
    "ban-alter-identity": Unless(ADDITIVE),
    "ban-alter-policy-condition": Asked,
    "ban-alter-policy-roles": Asked,
    "ban-alter-role-options": Asked,
    "ban-alter-row-level-security": Asked,
    "ban-alter-sequence-values": Asked,
    "ban-alter-system-options": Asked,
    "ban-alter-view-options": Asked,
    "ban-char-field": Style,
    "ban-concurrent-index-creation-in-transaction": Ours,
    "ban-create-domain-with-constraint": Style,
    "ban-create-policy": Asked,
    "ban-detach-inheritance": Asked,
    "ban-disable-trigger": Asked,
    "ban-drop-column": Unless(ADDITIVE),
    "ban-drop-constraint": Unless(ADDITIVE),
    "ban-drop-database": Unless(ADDITIVE),
    "ban-drop-default": Unless(ADDITIVE),
    "ban-drop-domain": Unless(ADDITIVE),
    "ban-drop-extension": Unless(ADDITIVE),
    "ban-drop-function": Unless(ADDITIVE),
    "ban-drop-generated-expression": Unless(ADDITIVE),
    "ban-drop-index": Asked,
    "ban-drop-not-null": Always,
    "ban-drop-policy": Asked,
    "ban-drop-schema": Unless(ADDITIVE),
    "ban-drop-sequence": Unless(ADDITIVE),
    "ban-drop-table": Unless(ADDITIVE),
    "ban-drop-trigger": Asked,
    "ban-drop-type": Unless(ADDITIVE),
    "ban-drop-view": Unless(ADDITIVE),
    "ban-duplicate-column-assignments": Always,
    "ban-new-write-restriction": Asked,
    "ban-replace-view-function": Asked,
    "ban-replica-identity": Asked,
    "ban-revoke": Asked,
    "ban-set-default": Asked,
    "ban-set-schema": Unless(ADDITIVE),
    "ban-truncate-cascade": Unless(ADDITIVE),
    "ban-uncommitted-transaction": Ours,
    "changing-column-type": Blind(ADDITIVE),
    "constraint-missing-not-valid": Blind(&["constraint-validates"]),
    "disallowed-unique-constraint": Blind(&[]),
    "identifier-too-long": Always,
    "prefer-bigint-over-int": Style,
    "prefer-bigint-over-smallint": Style,
    "prefer-identity": Style,
    "prefer-repack": Style,
    "prefer-robust-stmts": Style,
    "prefer-text-field": Style,
    "prefer-timestamp-tz": Style,
    "renaming-column": Unless(ADDITIVE),
    "renaming-object": Unless(ADDITIVE),
    "renaming-table": Unless(ADDITIVE),
    "require-concurrent-index-creation": Unless(&["index-blocks-writers"]),
    "require-concurrent-index-deletion": Always,
    "require-concurrent-partition-detach": Always,
    "require-concurrent-reindex": Always,
    "require-enum-value-ordering": Style,
    "require-lock-timeout": Ours,
    "require-statement-timeout": Ours,
    "require-table-schema": Asked,
    "transaction-nesting": Ours,
];

/// Which of squawk's rules a project wants otherwise than they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    asked: BTreeSet<&'static str>,
    without: BTreeSet<&'static str>,
}

impl Rules {
    /// Reads names of rules: `prefer-text-field` is asked for, `-ban-drop-not-null` left out.
    ///
    /// # Errors
    /// The place of a name that no rule has, and what to write.
    pub fn parse(names: &[Spanned<String>]) -> Result<Self, (Range<usize>, String)> {
        let mut rules = Self::default();
        for entry in names {
            let (name, without) = match entry.get_ref().strip_prefix('-') {
                Some(name) => (name, true),
                None => (entry.get_ref().as_str(), false),
            };
            let Some(known) = RULES.iter().find(|one| one.name == name) else {
                let names: Vec<&str> = RULES.iter().map(|one| one.name).collect();
                let meant =
                    near(name, &names).first().map_or_else(String::new, |meant| format!("; is `{meant}` meant?"));
                return Err((entry.span(), format!("squawk has no rule `{name}`{meant}")));
            };
            let set = if without { &mut rules.without } else { &mut rules.asked };
            set.insert(known.name);
        }
        Ok(rules)
    }

    fn has(&self, known: &Known, watched: bool) -> bool {
        let usual = match known.heard {
            Always | Unless(_) => true,
            Blind(_) => !watched,
            Ours | Style | Asked => false,
        };
        !self.without.contains(known.name) && (usual || self.asked.contains(known.name))
    }
}

/// Whether a finding of squawk's says what a rule of our own says, by the two codes.
pub(super) fn says(code: &str, own: &str) -> bool {
    let known = RULES.iter().find(|one| one.code == code);
    known.is_some_and(|known| matches!(known.heard, Unless(rules) | Blind(rules) if rules.contains(&own)))
}

/// How a file is read.
pub(super) struct Manner<'a> {
    pub rules: &'a Rules,
    /// Whether it runs in one transaction, so that the trial watches it.
    pub watched: bool,
    pub major: Option<u32>,
}

/// Deepest nesting of parentheses that is read; a tree of 16,000 took 12 s, one of 100 is more than people write.
const DEEPEST: usize = 100;

/// Bytes of a statement that is read, without its strings and comments. Chains without parentheses nest too (`1+1+...`, `- - ...`,
/// `CASE WHEN CASE WHEN ...`): of twice as many bytes they took 1 to 7 s on a busy machine.
const HEAVIEST: usize = 8 * 1024;

/// Room for that, also in a build without optimisation, whose frames are some ten times as large.
const STACK: usize = 64 * 1024 * 1024;

/// The findings of squawk's rules beside our own.
pub(super) fn lint(text: &str, reading: &Reading, manner: &Manner<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    let given = given(text, &mut found);
    let heard: Vec<&Known> = RULES.iter().filter(|one| manner.rules.has(one, manner.watched)).collect();
    let rules: Vec<Rule> = heard.iter().filter_map(|one| one.name.parse().ok()).collect();
    let (watched, version) = (manner.watched, manner.major.and_then(|major| major.to_string().parse::<Version>().ok()));
    let linted = std::thread::Builder::new().name("squawk".to_owned()).stack_size(STACK).spawn(move || {
        let mut linter = Linter::from(rules);
        linter.settings.assume_in_transaction = watched;
        linter.settings.pg_version = version.unwrap_or_default();
        // What its grammar does not know is the server's to judge: its errors are left aside.
        linter.lint(&SourceFile::parse(&given), &given)
    });
    let Ok(Ok(violations)) = linted.map(std::thread::JoinHandle::join) else {
        found.push(unread(0..0, "squawk's rules gave up on the file"));
        return found;
    };
    for violation in violations {
        let range = usize::from(violation.text_range.start())..usize::from(violation.text_range.end());
        let name = violation.code.to_string();
        let Some(known) = heard.iter().find(|one| one.name == name) else { continue };
        if text.get(range.clone()).is_none() {
            continue;
        }
        let meets = |other: &Range<usize>| other.start < range.end && range.start < other.end;
        if let Unless(own) | Blind(own) = known.heard {
            let said = reading.found.iter().any(|one| own.contains(&one.rule) && meets(&one.range));
            if said || reading.fresh.iter().any(meets) {
                continue;
            }
        }
        let help = violation.help.unwrap_or_else(|| format!("see https://squawkhq.com/docs/{name}"));
        let severity = Severity::Warning;
        found.push(Found { rule: known.code, severity, range, message: violation.message, help: help.into() });
    }
    found
}

fn unread(range: Range<usize>, message: &str) -> Found {
    Found {
        rule: "squawk-unread",
        severity: Severity::Warning,
        range,
        message: message.to_owned(),
        help: "the rules of the gate itself have read it".into(),
    }
}

/// The text with blanks in place of what its grammar is not given: the data of COPY, and statements that are too long or too deep.
fn given(text: &str, found: &mut Vec<Found>) -> String {
    let mut given = text.to_owned();
    let mut blank = |range: Range<usize>| {
        let blanks: String = text[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        given.replace_range(range, &blanks);
    };
    for statement in split(text).statements {
        let body = statement.text(text);
        let (mut depth, mut deepest, mut weight, mut head) = (0usize, 0usize, 0usize, None);
        for token in lex(body).filter(|token| !token.is_blank()) {
            let word = &body[token.range()];
            head.get_or_insert(word);
            match token.kind {
                TokenKind::String | TokenKind::DollarString => continue,
                _ if matches!(word, "(" | "[") => depth += 1,
                _ if matches!(word, ")" | "]") => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
            weight += word.len();
        }
        if deepest > DEEPEST || weight > HEAVIEST {
            blank(statement.range.clone());
            // Rows are no matter of its rules.
            if !head.is_some_and(|word| word.eq_ignore_ascii_case("INSERT")) {
                found.push(unread(
                    statement.range.clone(),
                    "the statement is longer or deeper than what squawk's rules are given",
                ));
            }
        }
        if let Some(data) = statement.copy_data {
            blank(data);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lint::read;
    use super::*;

    /// The findings that squawk's rules have beside our own.
    fn check(text: &str, asked: &[&str], watched: bool, rules: &[&str]) {
        let names: Vec<Spanned<String>> = asked.iter().map(|name| Spanned::new(0..1, (*name).to_owned())).collect();
        let asked = Rules::parse(&names).unwrap();
        let found = lint(text, &read(text), &Manner { rules: &asked, watched, major: None });
        let found: Vec<&str> = found.iter().map(|one| one.rule).collect();
        assert_eq!(found, rules, "{text}");
    }

    #[test]
    fn every_rule_is_known_by_its_name() {
        for one in RULES {
            assert_eq!(one.name.parse::<Rule>().unwrap().to_string(), one.name);
            let asked = one.name.parse::<Rule>().unwrap().is_opt_in();
            assert_eq!(one.heard == Asked, asked, "{}", one.name);
        }
        let mut missing: Vec<String> = Linter::with_default_rules().rules.iter().map(Rule::to_string).collect();
        missing.retain(|name| !RULES.iter().any(|one| one.name == name));
        // It is told of nothing by the linter itself.
        assert_eq!(missing, ["unused-ignore"]);
    }

    #[test]
    fn what_an_own_rule_says_is_said_once() {
        check("ALTER TABLE a DROP COLUMN b;", &[], true, &[]);
        check("DROP TABLE a;", &["ban-drop-table"], true, &[]);
        check("ALTER TABLE a ALTER COLUMN b DROP NOT NULL;", &[], true, &["squawk/ban-drop-not-null"]);
        check("ALTER TABLE a ALTER COLUMN b DROP DEFAULT;", &[], true, &["squawk/ban-drop-default"]);
        // The file itself made it.
        check("CREATE TABLE a (b int); ALTER TABLE a ALTER COLUMN b DROP DEFAULT; DROP TABLE a;", &[], true, &[]);
    }

    #[test]
    fn what_the_trial_sees_is_guessed_only_where_it_does_not_look() {
        let unique = "ALTER TABLE a ADD CONSTRAINT u UNIQUE (b);";
        check(unique, &[], true, &[]);
        check(unique, &[], false, &["squawk/constraint-missing-not-valid", "squawk/disallowed-unique-constraint"]);
    }

    #[test]
    fn style_is_told_when_asked_for_and_a_rule_can_be_left_out() {
        let text = "CREATE TABLE s.a (id int, b varchar(20));";
        check(text, &[], true, &[]);
        check(text, &["prefer-bigint-over-int"], true, &["squawk/prefer-bigint-over-int"]);
        check("ALTER TABLE a ALTER COLUMN b DROP NOT NULL;", &["-ban-drop-not-null"], true, &[]);
        let unknown = Rules::parse(&[Spanned::new(3..9, "prefer-text-fields".to_owned())]).unwrap_err();
        assert_eq!(
            unknown,
            (3..9, "squawk has no rule `prefer-text-fields`; is `prefer-text-field` meant?".to_owned())
        );
    }

    #[test]
    fn what_its_grammar_does_not_know_is_no_finding() {
        check(
            "FROBNICATE THE TABLE a;\nALTER TABLE a ALTER COLUMN b DROP NOT NULL;",
            &[],
            true,
            &["squawk/ban-drop-not-null"],
        );
    }

    #[test]
    fn nested_texts_end_and_are_named() {
        check(&format!("SELECT {}1{};", "(".repeat(5000), ")".repeat(5000)), &[], true, &["squawk-unread"]);
        check(&format!("SELECT {}1;", "NOT ".repeat(60_000)), &[], true, &["squawk-unread"]);
        check(&format!("INSERT INTO a VALUES {}(1);", "(1), ".repeat(60_000)), &[], true, &[]);
        // So long a chain is read, and comes back.
        let chains =
            [("SELECT ", "NOT "), ("SELECT ", "- "), ("SELECT ", "1+"), ("SELECT ", "CASE WHEN "), ("SELECT ", "a.")];
        for (start, chain) in
            chains.into_iter().chain([("", "SELECT 1 UNION "), ("", "EXPLAIN "), ("", "PREPARE x AS ")])
        {
            check(&format!("{start}{};", chain.repeat(600)), &[], true, &[]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        /// Any mixture of words comes back, and findings are places of the text.
        #[test]
        fn any_text_is_read(words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60)) {
            let text = words.join(" ");
            for one in lint(&text, &read(&text), &Manner { rules: &Rules::default(), watched: false, major: None }) {
                prop_assert!(one.rule != "squawk-unread" && text.get(one.range.clone()).is_some(), "{text}");
            }
        }
    }

    const WORDS: &[&str] = &[
        "CREATE",
        "ALTER",
        "DROP",
        "TABLE",
        "INDEX",
        "ON",
        "a",
        "b.c",
        "(",
        ")",
        ",",
        ";",
        "ADD",
        "COLUMN",
        "int",
        "NOT",
        "NULL",
        "DEFAULT",
        "CONSTRAINT",
        "FOREIGN KEY",
        "REFERENCES",
        "UNIQUE",
        "CHECK",
        "BEGIN",
        "COMMIT",
        "$$",
        "'x'",
        "'",
        "\"q\"",
        "SELECT",
        "FROM",
        "WHERE",
        "::",
        "[",
        "]",
        "CASE",
        "WHEN",
        "END",
        "-- x\n",
        "/*",
        "*/",
        "é",
        "1.5",
        "-",
        "||",
        "TYPE",
        "USING",
        "FUNCTION",
        "AS",
        "LANGUAGE",
        "POLICY",
        "TRIGGER",
        "PARTITION",
        "OF",
        "SET",
        "RENAME",
        "TO",
        "=",
        "\\",
        "\0",
        "E'\\",
        "U&\"",
    ];
}
