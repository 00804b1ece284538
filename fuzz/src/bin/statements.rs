//! Any text is cut into statements that lie in it, in order, with nothing but blanks, comments and semicolons between them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrunbook_document::sql::{classify, enum_values_used, lex, meta_commands, split, substitute, variables};
use pgrunbook_document::secrets;

fuzz_target!(|text: &str| {
    let mut at = 0;
    for token in lex(text) {
        let range = token.range();
        assert_eq!(range.start, at, "tokens cover the text");
        assert!(text.get(range.clone()).is_some());
        at = range.end;
    }
    assert_eq!(at, text.len());
    let cut = split(text);
    let mut end = 0;
    for statement in &cut.statements {
        assert!(statement.range.start >= end && text.get(statement.range.clone()).is_some());
        end = statement.range.end;
        if let Some(data) = &statement.copy_data {
            assert!(data.start >= end && text.get(data.clone()).is_some());
            end = data.end;
        }
        let _ = classify(statement.text(text));
    }
    for problem in &cut.problems {
        assert!(text.get(problem.range.clone()).is_some());
    }
    let _ = enum_values_used(cut.statements.iter().map(|statement| statement.text(text)));
    let _ = (meta_commands(text), variables(text), substitute(text, |_| Some("it's")));
    for secret in secrets::find(text) {
        assert!(text.get(secret.range).is_some());
    }
});
