//! Data in, text out: a runbook, and what was read of it.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::model::VarValue;
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
    kind("http", Language::Toml, &[field("get")]),
];

fn read(text: &str) -> Parsed {
    let loader = |path: &str| match path {
        "common.md" => Ok("## Before\n\n- [ ] Included line\n\n## After\n\n- [ ] Not this one\n".to_owned()),
        "nested.md" => Ok("## Before\n\n```toml step\ninclude = \"common.md#before\"\n```\n".to_owned()),
        path => Err(format!("there is no file {path}")),
    };
    parse("RUNBOOK.md", text, &loader, Vocabulary(KINDS))
}

/// The runbook in a few lines, then each finding with the text that it marks.
fn check(text: &str, expected: &str) {
    let parsed = read(text);
    let runbook = &parsed.runbook;
    let mut out = String::new();
    for phase in &runbook.phases {
        let _ = writeln!(out, "phase {}", phase.slug);
        show(&mut out, &phase.entries);
    }
    for path in &runbook.rollback_paths {
        let valid: Vec<_> = path.valid.iter().map(|valid| format!(" {:?}", valid.value)).collect();
        let _ = writeln!(out, "rollback {}{}", path.slug, valid.concat());
        show(&mut out, &path.entries);
    }
    for block in &runbook.undo_blocks {
        let _ = writeln!(out, "undo {} {}", block.kind, block.id);
    }
    for found in &parsed.diagnostics {
        let marked = &runbook.sources[found.span.file].text[found.span.range()];
        let _ = writeln!(out, "{} at {marked:?}", found.code);
    }
    assert_eq!(out.trim_end(), expected.trim(), "\n{out}\n{:#?}", parsed.diagnostics);
}

fn show(out: &mut String, entries: &[Entry]) {
    for entry in entries {
        match entry {
            Entry::Item(item) => {
                let _ = writeln!(out, "  item {:?} {:?}", item.text, item.roles);
                item.proofs.iter().for_each(|block| show_block(out, block, "    "));
            }
            Entry::Step(block) => show_block(out, block, "  "),
        }
    }
}

fn show_block(out: &mut String, block: &Block, indent: &str) {
    let target = block.target.as_ref().map_or("-", |target| &target.value);
    let undo = block.undo.as_ref().map_or_else(String::new, |undo| format!(" {:?}", undo.value));
    let expectations = block.sql.iter().flat_map(|sql| &sql.expectations);
    let expectations: Vec<_> = expectations.map(|expected| format!(" {:?}", expected.value)).collect();
    let _ = writeln!(out, "{indent}{} {} on {target}{undo}{}", block.kind, block.id, expectations.concat());
}

#[test]
fn the_example_of_the_design_is_read() {
    check(
        r#"# Promote

```toml runbook
targets = ["main"]
vars.max_age = "5 minutes"
```

## Preflight

- [ ] Maintenance window approved — @release-manager
- [ ] No transaction is older than `max_age`

  ```sql step
  -- check: no-long-transactions    target: main
  -- expect: 0 rows
  SELECT 1;
  ```

## Apply

```toml step
migrate = "eng"
target  = "main"
chain   = "db"
undo    = "down"
```

```sql step
-- check: denied    target: main    as: analyst_ro
-- expect: error 42501
SELECT 1;
```

## Rollback: restore the backup

```toml step
restore = "put-back"
from    = "pre"
valid   = "until step switch-traffic"
```
"#,
        r#"
phase preflight
  item "Maintenance window approved" ["release-manager"]
  item "No transaction is older than max_age" []
    check no-long-transactions on main Rows(Eq, 0)
phase apply
  migrate eng on main Named("down")
  check denied on main Error { sqlstate: "42501", message_contains: None }
rollback rollback-restore-the-backup Until(StepId("switch-traffic"))
  restore put-back on -
"#,
    );
}

#[test]
fn an_exact_table_follows_its_block() {
    check(
        "## P\n\n```sql step\n-- check: t    target: main\nSELECT 1;\n```\n\nExpected:\n\n| a | b |\n| --- | --- |\n| 1 | `x` |\n",
        r#"
phase p
  check t on main Table { columns: ["a", "b"], rows: [["1", "x"]] }
"#,
    );
}

#[test]
fn undo_blocks_are_kept_apart() {
    check(
        "## P\n\n```sql step\n-- apply: make    target: main    undo: drop\nCREATE TABLE t ();\n```\n\n```sql undo\n-- apply: drop    target: main\nDROP TABLE t;\n```\n",
        r#"
phase p
  apply make on main Named("drop")
undo apply drop
"#,
    );
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        ("## P\n\n- [x] Done\n", "phase p\n  item \"Done\" []\nchecked-item at \"- [x] Done\""),
        ("## P\n\n```toml step\nmigrat = \"a\"\n```\n", "phase p\nunknown-kind at \"migrat\""),
        (
            "## P\n\n```toml step\nmigrate = \"a\"\nchian = \"b\"\n```\n",
            "phase p\n  migrate a on -\nunknown-key at \"chian\"",
        ),
        ("## P\n\n```toml step\nmigrate = 5\n```\n", "phase p\nbad-value at \"5\""),
        ("## P\n\n```toml step\nmigrate = \"A b\"\n```\n", "phase p\nbad-id at \"\\\"A b\\\"\""),
        ("## P\n\n```toml step\nmigrate =\n```\n", "phase p\nbad-toml at \"\""),
        (
            "## P\n\n```sql step\n-- check: a\n-- expects: 0 rows\nSELECT 1\n```\n",
            "phase p\n  check a on -\nunknown-directive at \"expects\"",
        ),
        (
            "## P\n\n```sql step\n-- check: a\n-- expect: nothing\nSELECT 1\n```\n",
            "phase p\n  check a on -\nbad-expectation at \"nothing\"",
        ),
        (
            "## P\n\n> ```sql step\n> -- check: a    expect: no\n> SELECT 1\n> ```\n",
            "phase p\n  check a on -\nbad-expectation at \"no\"",
        ),
        (
            "## P\n\n- [ ] x\n\n  ```sql step\n  -- check: a    expect: no\n  SELECT 1\n  ```\n",
            "phase p\n  item \"x\" []\n    check a on -\nbad-expectation at \"no\"",
        ),
        ("## P\n\n```toml step\ninclude = \"gone.md\"\n```\n", "phase p\nmissing-include at \"\\\"gone.md\\\"\""),
        (
            "## P\n\n```toml step\ninclude = \"common.md#bfore\"\n```\n",
            "phase p\nmissing-include at \"\\\"common.md#bfore\\\"\"",
        ),
        (
            "## P\n\n<details>\n\n```sql step\n-- check: a\nSELECT 1\n```\n\n</details>\n",
            "phase p\n  check a on -\nstep-in-details at \"```sql step\\n-- check: a\\nSELECT 1\\n```\"",
        ),
        ("## P\n\n<!--\n```sql step\n-- check: a\n```\n-->\n", "phase p\nstep-in-html at \"sql step\""),
        ("## P\n\n```bash step\nls\n```\n", "phase p\nunknown-language at \"```bash step\\nls\\n```\""),
    ];
    for (text, expected) in cases {
        check(text, expected);
    }
}

#[test]
fn includes_are_spliced_and_one_level_deep() {
    check(
        "## P\n\n- [ ] First\n\n```toml step\ninclude = \"common.md#before\"\n```\n\n- [ ] Last\n",
        "phase p\n  item \"First\" []\n  item \"Included line\" []\n  item \"Last\" []",
    );
    check(
        "## P\n\n```toml step\ninclude = \"nested.md#before\"\n```\n",
        "phase p\nnested-include at \"\\\"common.md#before\\\"\"",
    );
}

#[test]
fn roles_stand_at_the_end() {
    let cases = [
        ("Window approved — @release-manager", "Window approved", vec!["release-manager"]),
        ("Window approved @a or @b", "Window approved", vec!["a", "b"]),
        ("Mail bob@example.com", "Mail bob@example.com", vec![]),
        ("Ask @dba first", "Ask @dba first", vec![]),
    ];
    for (text, rest, roles) in cases {
        assert_eq!(roles_of(text), (rest.to_owned(), roles.into_iter().map(str::to_owned).collect()));
    }
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), VarValue::Text((*value).to_owned()))).collect()
}

fn first_block(text: &str) -> Block {
    read(text).runbook.forward_steps().next().cloned().unwrap()
}

#[test]
fn sql_variables_are_quoted_and_nothing_else_is_touched() {
    let block = first_block(
        "## P\n\n```sql step\n-- check: a    as: app_${t}\nSELECT :'v', :\"v\", ':v', $$:'v'$$, 1::int;\n```\n",
    );
    let bound = &block.expand(&values(&[("v", "it's"), ("t", "x")])).unwrap()[0];
    assert_eq!(bound.statements(), "SELECT 'it''s', \"it's\", ':v', $$:'v'$$, 1::int;\n");
    assert_eq!(bound.sql.as_ref().unwrap().role.as_ref().unwrap().value, "app_x");
    assert!(bound.text.starts_with("-- check: a"));
}

#[test]
fn toml_values_cannot_leave_their_string() {
    let block = first_block("## P\n\n```toml step\nhttp = \"a\"\nget = \"/x/${v}\" # ${v}\n```\n");
    let bound = &block.expand(&values(&[("v", "\" \nundo = \"auto")])).unwrap()[0];
    assert_eq!(bound.text, "http = \"a\"\nget = \"/x/\\\" \\u000Aundo = \\\"auto\" # ${v}\n");
    let table: ::toml::Table = bound.text.parse().unwrap();
    assert_eq!(table["get"].as_str(), Some("/x/\" \nundo = \"auto"));
}

#[test]
fn for_each_makes_one_block_for_each_value() {
    let block = first_block(
        "## P\n\n```toml step\nmigrate = \"load\"\nchain = \"db/${tenant}\"\nfor_each = { tenant = \"${tenants}\" }\nundo = \"down\"\n```\n",
    );
    let mut all = Values::new();
    all.insert("tenants".to_owned(), VarValue::List(vec!["health".to_owned(), "general".to_owned()]));
    let bound = block.expand(&all).unwrap();
    let ids: Vec<&str> = bound.iter().map(|block| block.id.as_str()).collect();
    assert_eq!(ids, ["load[health]", "load[general]"]);
    assert_eq!(bound[1].own_text().trim_end(), "migrate = \"load\"\nchain = \"db/general\"");
}

#[test]
fn an_unset_variable_is_named_where_it_stands() {
    let text = "## P\n\n```sql step\n-- check: a\nSELECT :'vv';\n```\n";
    let problem = first_block(text).expand(&values(&[("v", "x")])).unwrap_err();
    assert_eq!((problem.code, &text[problem.span.range()]), ("unset-variable", ":'vv'"));
}

#[test]
fn letters_of_several_bytes_before_a_directive_are_no_trouble() {
    let found =
        read("## P\n\n```sql step\n-- é\u{a0}\u{2028} check: a\n--\u{3000}\u{3000}target: main\nSELECT 1;\n```\n");
    assert!(found.diagnostics.iter().all(|one| !one.message.is_empty()));
}

proptest! {
    #[test]
    fn any_text_is_read_and_every_place_is_in_it(text in "(## |- \\[ \\] |```sql step\n|```toml step\n|```\n|-- check: a|\n|  |> |\\PC|\r|\t|é|<details>|= \"|\\[x\\]){0,60}") {
        let parsed = read(&text);
        for found in &parsed.diagnostics {
            prop_assert!(text.get(found.span.range()).is_some());
        }
        for block in parsed.runbook.blocks() {
            prop_assert!(text.get(block.span.range()).is_some());
            let _ = block.own_text();
            let _ = block.expand(&Values::new());
        }
    }
}
