//! Prose in, proposal out; the proposal is read by the real parser.

use super::*;
use crate::model::{Language, Runbook};
use crate::vocabulary::{FieldSpec, KindSpec};

const fn kind(name: &'static str, language: Language, fields: &'static [FieldSpec]) -> KindSpec {
    KindSpec {
        name,
        language,
        summary: "",
        fields,
        needs_target: true,
        changes: true,
        undo_words: &[],
        check: |_| Ok(()),
    }
}

const fn field(name: &'static str) -> FieldSpec {
    FieldSpec { name, about: "", required: false }
}

const KINDS: &[KindSpec] = &[
    kind("check", Language::Sql, &[]),
    kind("probe", Language::Sql, &[]),
    kind("apply", Language::Sql, &[]),
    kind("migrate", Language::Toml, &[field("chain"), field("to")]),
    kind("backup", Language::Toml, &[field("verify")]),
    kind("restore", Language::Toml, &[field("from")]),
    kind("http", Language::Toml, &[field("get"), field("expect_status")]),
    kind("sh", Language::Toml, &[field("run")]),
];

/// The proposal for a text, which the parser must read without a complaint, and what it holds.
fn propose(text: &str) -> (Proposal, Runbook) {
    let proposal = adopt("RUNBOOK.md", text, Vocabulary(KINDS));
    let loader = |path: &str| Err(format!("there is no file {path}"));
    let parsed = crate::parse("RUNBOOK.md", &proposal.markdown, &loader, Vocabulary(KINDS));
    let errors: Vec<_> = parsed
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| (&found.message, &proposal.markdown[found.span.range()]))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{}", proposal.markdown);
    for found in &proposal.diagnostics {
        assert!(text.get(found.span.range()).is_some(), "{found:?}");
    }
    let ids: HashSet<_> = parsed.runbook.blocks().map(|block| block.id.as_str()).collect();
    assert_eq!(ids.len(), parsed.runbook.blocks().count(), "an id is there twice:\n{}", proposal.markdown);
    assert!(!proposal.markdown.contains("[x]"), "{}", proposal.markdown);
    (proposal, parsed.runbook)
}

/// The proposal without its settings, then the decisions that are left.
fn check(text: &str) -> String {
    let (proposal, _) = propose(text);
    let mut shown = proposal.markdown.replacen("```toml runbook\ntargets = [\"main\"]\n```\n\n", "", 1);
    shown.push_str("\n----\n");
    for found in &proposal.diagnostics {
        let line = 1 + text[..found.span.start].matches('\n').count();
        shown.push_str(&format!("{line}: {:?}: {}\n", found.severity, found.message));
    }
    shown
}

macro_rules! snapshot {
    ($name:ident, $text:expr) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(check($text));
        }
    };
}

snapshot!(
    psql_commands_become_checks,
    "# R\n\n## Verify\n\n```bash\n# 1. Table is there\npsql \"$URL\" -c \"\\d app.lots\"\n# Verify: RLS is on\npsql \"$URL\" \\\n  -c \"SELECT relrowsecurity FROM pg_class\"\n# Expected: relrowsecurity = t\n\n# Reader sees nothing\nPGPASSWORD='<redacted>' psql -c \"SET ROLE reader; SELECT * FROM lots\" 2>&1 | grep -q \"permission denied\" && echo ok\n\n# Guard raises\npsql -c \"SELECT guard();\"\n# Expected: ERROR: no context (P0001)\n\n# Append only\npsql -c \"INSERT INTO lots VALUES (1)\"\n# Expected: ERROR\n```\n"
);

snapshot!(
    files_and_loops_become_migrations,
    "# R\n\n## Apply\n\n```bash\n# Schema\nfor f in $(ls db/migrations/*.sql | sort); do\n  psql -f \"$f\"\ndone\n\n# One file\npsql -f db/migrations/0008_guard.sql\npsql -f db/migrations/[name].sql\npsql -f scripts/smoke.sql\n```\n"
);

snapshot!(
    backups_and_restores_are_paired,
    "# R\n\n## Backup\n\n```bash\npg_dump -Fc -f /tmp/a.dump\n\n# Verify backup\npg_restore --list /tmp/a.dump | head\nls -lh /tmp/a.dump\n```\n\n## Rollback\n\n### Rollback all\n\n```bash\nsystemctl stop app\npg_restore -d x /tmp/a-*.dump\n```\n\n### Rollback one\n\n```bash\n# Drop it\nDROP TABLE a;\nDROP TABLE b;\n```\n"
);

snapshot!(
    lists_become_checklists_where_they_are_to_be_done,
    "# R\n\n## Cutover checklist\n\nBefore:\n\n1. Freeze approved.\n2. No long transactions: `SELECT pid FROM pg_stat_activity`\n   - a detail\n\n- [x] `app_user` role exists with LOGIN\n\n## Overview\n\n1. A fact.\n2. Another.\n"
);

snapshot!(
    sql_blocks_take_the_expectation_behind_them,
    "# R\n\n## Layout\n\n```sql\nSELECT nspname\nFROM pg_namespace;\n```\n\nExpected: six rows.\n\n```sql\nUPDATE a SET b = 1;\nSELECT b FROM a;\n```\n"
);

snapshot!(
    what_is_not_clear_stays,
    "# R\n\n## Ops\n\n```bash\nredis-cli PING\n```\n\n```bash\n- Not a script, it's prose\n```\n\n```bash\n# Close idle ones\npsql -c \"SELECT pg_terminate_backend(pid) FROM pg_stat_activity\"\ncurl -X POST https://x.example/deploy\n```\n\n<details>\n\n```sql\nSELECT 1;\n```\n\n</details>\n\n```js\nconst a = 1;\n```\n"
);

#[test]
fn steps_that_are_there_keep_their_ids() {
    let text = "# R\n\n```toml runbook\ntargets = [\"main\"]\n```\n\n## A\n\n```sql step\n-- check: layout    target: main\n-- expect: 1 row\nSELECT 1;\n```\n\n### Layout\n\n```sql\nSELECT 2;\n```\n";
    let (proposal, runbook) = propose(text);
    assert_eq!(runbook.blocks().map(|block| block.id.as_str()).collect::<Vec<_>>(), ["layout", "layout-2"]);
    assert_eq!(proposal.markdown.matches("toml runbook").count(), 1);
}

#[test]
fn adopting_a_proposal_again_changes_nothing() {
    for (name, text) in RUNBOOKS {
        let (once, _) = propose(text);
        let (twice, _) = propose(&once.markdown);
        assert_eq!(once.markdown, twice.markdown, "{name}");
    }
}

const RUNBOOKS: [(&str, &str); 5] = [
    ("one-db", include_str!("../../tests/adopt/one-db.md")),
    ("promotion", include_str!("../../tests/adopt/promotion.md")),
    ("primary-cutover", include_str!("../../tests/adopt/primary-cutover.md")),
    ("pipeline", include_str!("../../tests/adopt/pipeline.md")),
    ("ledger", include_str!("../../tests/adopt/ledger.md")),
];

/// What a proposal must hold at the least: steps of each kind, checklist items, rollback paths.
fn holds(name: &str, kinds: &[(&str, usize)], items: usize, paths: usize) {
    let (_, text) = RUNBOOKS.iter().find(|(known, _)| *known == name).expect("one of the five");
    let (proposal, runbook) = propose(text);
    for (kind, least) in kinds {
        let count = runbook.blocks().filter(|block| block.kind == *kind).count();
        assert!(count >= *least, "{name}: {count} steps of kind {kind}\n{}", proposal.markdown);
    }
    let entries = runbook.phases.iter().map(|phase| &phase.entries);
    let entries = entries.chain(runbook.rollback_paths.iter().map(|path| &path.entries));
    let found = entries.flatten().filter(|entry| matches!(entry, crate::model::Entry::Item(_))).count();
    assert!(found >= items, "{name}: {found} items\n{}", proposal.markdown);
    assert!(runbook.rollback_paths.len() >= paths, "{name}\n{}", proposal.markdown);
}

#[test]
fn one_db_runbook() {
    holds("one-db", &[("check", 4)], 24, 1);
}

#[test]
fn promotion_runbook() {
    holds("promotion", &[("check", 11), ("migrate", 5), ("backup", 1), ("restore", 1), ("sh", 1)], 24, 2);
}

#[test]
fn primary_cutover_runbook() {
    holds("primary-cutover", &[], 26, 2);
}

#[test]
fn pipeline_runbook() {
    holds("pipeline", &[("check", 2), ("apply", 2), ("http", 2)], 0, 2);
}

#[test]
fn ledger_runbook() {
    let kinds = [("check", 10), ("probe", 1), ("migrate", 4), ("backup", 1), ("restore", 1), ("apply", 4)];
    holds("ledger", &kinds, 14, 2);
}

proptest::proptest! {
    #[test]
    fn any_text_gives_a_proposal(
        text in "(```bash\n|```sql\n|```\n|# a\n|## Rollback\n|### rollback x\n|- \\[x\\] a `select 1`\n|1\\. a\n|psql -c \"select 1\"\n|psql -f a/1_b\\.sql\n|# Expected: 0 rows\n|Expected: 1 row\n|pg_dump\n|pg_restore x\n|DROP TABLE a;\n|select 1;\n|  |\n|'|\"|<details>|é|\r\n){0,25}"
    ) {
        let proposal = adopt("a.md", &text, Vocabulary(KINDS));
        for found in &proposal.diagnostics {
            proptest::prop_assert!(text.get(found.span.range()).is_some());
        }
    }
}
