//! Prints how long reading and linting a runbook of 5,000 lines takes: `cargo run --release -p pgrunbook-document --example
//! lint_speed`.

use std::fmt::Write as _;
use std::time::Instant;

use pgrunbook_document::{KindSpec, Language, Vocabulary, lint, parse};

const CHECK: KindSpec = KindSpec {
    name: "check",
    language: Language::Sql,
    summary: "",
    fields: &[],
    needs_target: true,
    changes: false,
    undo_words: &[],
    check: |_| Ok(()),
};

fn main() {
    let mut text = String::from("# Long\n\n```toml runbook\ntargets = [\"main\"]\nvars.age = \"5 minutes\"\n```\n");
    let mut number = 0;
    while text.lines().count() < 5_000 {
        number += 1;
        let _ = write!(
            text,
            "\n## Phase {number}\n\nSome prose that tells a person why this is done, and what to look at.\n\n\
             - [ ] Somebody has looked at {number}\n- [ ] The check holds\n\n  ```sql step\n  -- check: check-{number}    target: main\n  \
             -- expect: 0 rows\n  SELECT pid FROM pg_stat_activity\n  WHERE xact_start < now() - :'age'::interval;\n  ```\n"
        );
    }
    let lines = text.lines().count();
    let mut best = f64::MAX;
    for _ in 0..10 {
        let begun = Instant::now();
        let parsed = parse("RUNBOOK.md", &text, &|_| Err("there is no include".to_owned()), Vocabulary(&[CHECK]));
        let found = lint(&parsed, Vocabulary(&[CHECK]));
        let took = begun.elapsed().as_secs_f64() * 1_000.0;
        assert!(found.is_empty(), "{:?}", found.first());
        best = best.min(took);
    }
    println!("{lines} lines, {number} phases: read and linted in {best:.1} ms (best of 10)");
}
