//! Each rule: what it finds, where, and what it advises.

use super::*;
use crate::diagnostic::Severity;
use crate::model::Language;
use crate::parse::parse;
use crate::vocabulary::{FieldSpec, KindSpec};

mod vacuous;

const fn kind(name: &'static str, language: Language, changes: bool) -> KindSpec {
    KindSpec {
        name,
        language,
        summary: "",
        fields: &[FieldSpec { name: "from", about: "", required: false }],
        needs_target: true,
        changes,
        undo_words: &[],
        check: |_| Ok(()),
    }
}

const KINDS: &[KindSpec] = &[
    kind("check", Language::Sql, false),
    kind("probe", Language::Sql, false),
    kind("apply", Language::Sql, true),
    kind("backup", Language::Toml, false),
    kind("restore", Language::Toml, true),
    KindSpec { needs_target: false, fields: SH, ..kind("sh", Language::Toml, true) },
];

const SH: &[FieldSpec] = &[
    FieldSpec { name: "run", about: "", required: false },
    FieldSpec { name: "argv", about: "", required: false },
    FieldSpec { name: "expect_exit", about: "", required: false },
];

/// Code, the text that is marked, and whether it is an error.
fn found(text: &str) -> Vec<(&'static str, String, bool)> {
    let parsed = parse("RUNBOOK.md", text, &|_| Err("no".to_owned()), Vocabulary(KINDS));
    lint(&parsed, Vocabulary(KINDS))
        .into_iter()
        .map(|one| (one.code, text[one.span.range()].to_owned(), one.severity == Severity::Error))
        .collect()
}

fn step(body: &str) -> String {
    format!("## P\n\n```sql step\n{body}\n```\n")
}

fn error(code: &'static str, marked: &str) -> (&'static str, String, bool) {
    (code, marked.to_owned(), true)
}

fn warning(code: &'static str, marked: &str) -> (&'static str, String, bool) {
    (code, marked.to_owned(), false)
}

const GOOD: &str = "-- check: a    target: main\n-- expect: 0 rows\nSELECT 1;";

#[test]
fn good_runbook_raises_nothing() {
    assert_eq!(found(&step(GOOD)), []);
}

#[test]
fn changing_step_says_how_it_is_undone() {
    assert_eq!(found(&step("-- apply: a    target: main\nSELECT 1;")), [error("missing-undo", "a")]);
    assert_eq!(
        found(&step("-- apply: a    target: main    undo: dropp\nSELECT 1;")),
        [error("undo-names-nothing", "dropp")]
    );
    let paired = step("-- apply: a    target: main    undo: drop\nSELECT 1;");
    assert_eq!(found(&format!("{paired}\n```sql undo\n-- apply: drop    target: main\nSELECT 1;\n```\n")), []);
    assert_eq!(
        found(&format!("{}\n```sql undo\n-- apply: drop    target: main\nSELECT 1;\n```\n", step(GOOD))),
        [warning("unused-undo", "drop")]
    );
}

#[test]
fn ids_are_there_once() {
    let text = format!("{}\n{}", step(GOOD), step(GOOD).replace("## P", "## Q"));
    assert_eq!(found(&text), [error("duplicate-id", "a")]);
}

#[test]
fn targets_are_named_and_listed() {
    assert_eq!(found(&step("-- check: a\n-- expect: 0 rows\nSELECT 1;")), [error("missing-target", "a")]);
    let text = format!("```toml runbook\ntargets = [\"main\"]\n```\n\n{}", step(&GOOD.replace("main", "mian")));
    assert_eq!(found(&text), [error("unknown-target", "mian")]);
}

#[test]
fn check_of_nothing_is_worth_a_warning() {
    assert_eq!(found(&step("-- check: a    target: main\nSELECT 1;")), [warning("no-expectation", "a")]);
}

#[test]
fn invisible_characters_are_errors_in_a_step_and_warnings_in_prose() {
    assert_eq!(found(&step(&GOOD.replace("1;", "1\u{202E};"))), [error("hidden-characters", "\u{202E}")]);
    assert_eq!(found(&format!("a\u{200B}b\n\n{}", step(GOOD))), [warning("hidden-characters", "\u{200B}")]);
    assert_eq!(found(&format!("\u{FEFF}# T\n\n👩\u{200D}💻\n\n{}", step(GOOD))), []);
}

#[test]
fn literal_secret_is_found_wherever_it_stands() {
    for text in ["postgres://app:s3cr3t@db/x", "ALTER ROLE a PASSWORD 's3cr3t'"] {
        assert_eq!(found(&format!("`{text}`\n")), [error("literal-secret", "s3cr3t")], "{text}");
    }
}

#[test]
fn prose_that_states_a_result_is_no_gate() {
    assert_eq!(found("The query should return 0 rows.\n"), [warning("prose-expectation", "should return 0 rows")]);
    assert_eq!(
        found(&step("-- check: a    target: main\n-- expect: 0 rows\nSELECT 1;\n-- Expected: nothing")),
        [warning("prose-expectation", "Expected: n")]
    );
    let table =
        "## P\n\n```sql step\n-- check: a    target: main\nSELECT 1 AS n;\n```\n\nExpected:\n\n| n |\n| --- |\n| 1 |\n";
    assert_eq!(found(table), []);
    assert_eq!(found("We expect the window to be short, and people should be told.\n"), []);
}

#[test]
fn way_back_must_run_as_written() {
    let text = "## Rollback\n\n```bash\npg_restore -d app backups/prod_[TIMESTAMP].dump\nls backups/pre_*.dump\n```\n";
    assert_eq!(
        found(text),
        [warning("rollback-placeholder", "[TIMESTAMP]"), warning("rollback-glob", "backups/pre_*.dump")]
    );
    let step = "## Rollback\n\n```toml step\nrestore = \"r\"\ntarget = \"main\"\nfrom = \"b/[DATE].dump\"\n```\n";
    assert_eq!(found(step), [error("rollback-placeholder", "[DATE]")]);
    assert_eq!(found(&text.replace("## Rollback", "## Backup")), []);
    assert_eq!(found("## Rollback\n\n```sql\nSELECT a[1], count(*), 1 <b> c FROM t; -- LIKE '%<row>%'\n```\n"), []);
}

#[test]
fn validity_names_steps_that_are_there() {
    let text = format!(
        "{}\n## Rollback\n\n```toml step\nrestore = \"r\"\ntarget = \"main\"\nvalid = \"until step aa\"\n```\n",
        step(GOOD)
    );
    assert_eq!(found(&text), [error("unknown-step", "\"until step aa\"")]);
    let text = text.replace("until step aa", "while check a");
    assert_eq!(found(&text), [error("unknown-step", "\"while check a\"")]);
    assert_eq!(found(&text.replace("while check a", "after step a")), []);
}

#[test]
fn variable_that_is_not_declared_is_marked() {
    assert_eq!(found(&step(&GOOD.replace("SELECT 1", "SELECT :'v'"))), [error("unset-variable", ":'v'")]);
}

#[test]
fn steps_where_readers_do_not_see_them_are_errors() {
    let hidden = format!("<!--\n{}-->\n", step(GOOD).replace("## P\n\n", ""));
    assert_eq!(found(&hidden).first().map(|one| one.0), Some("step-in-html"));
    let folded = format!("## P\n\n<details>\n\n{}\n</details>\n", step(GOOD).replace("## P\n\n", ""));
    assert_eq!(found(&folded).first().map(|one| one.0), Some("step-in-details"));
    assert_eq!(found("- [x] done\n").first().map(|one| one.0), Some("checked-item"));
}

#[test]
fn block_that_two_parsers_read_differently_is_an_error() {
    let parsed = parse("RUNBOOK.md", &step(GOOD), &|_| Err("no".to_owned()), Vocabulary(KINDS));
    let block = parsed.runbook.blocks().next().unwrap();
    let mut found = Vec::new();
    second::look(0, &step(GOOD), &[block], &mut found);
    assert_eq!(found, []);
    // The same block, where the second parser finds another text or nothing.
    second::look(0, &step(&GOOD.replace('1', "2")), &[block], &mut found);
    second::look(0, &"x".repeat(100), &[block], &mut found);
    let messages: Vec<_> = found.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "another Markdown parser reads other lines in this block",
            "another Markdown parser does not see this block at all"
        ]
    );
}

#[test]
fn guide_tells_of_every_rule() {
    let page = include_str!("../../../../docs/guide/lint.md");
    let told: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code)).collect();
    let rules: Vec<&str> = RULES.iter().map(|(code, _)| *code).collect();
    assert_eq!(told, rules);
    // And the list has every code that the sources use.
    let sources = [
        include_str!("mod.rs"),
        include_str!("prose.rs"),
        include_str!("second.rs"),
        include_str!("steps.rs"),
        include_str!("vacuous/catalog.rs"),
        include_str!("vacuous/denial.rs"),
        include_str!("vacuous/pattern.rs"),
        include_str!("vacuous/script.rs"),
        include_str!("../parse/mod.rs"),
        include_str!("../parse/sql.rs"),
        include_str!("../parse/toml.rs"),
        include_str!("../parse/expand.rs"),
    ];
    let code = regex::Regex::new(r#"(?:error|warning|of)\(\s*"([a-z]+(?:-[a-z]+)+)""#).unwrap();
    for source in sources {
        for captures in code.captures_iter(source) {
            assert!(rules.contains(&&captures[1]), "{} is not in RULES", &captures[1]);
        }
    }
}
