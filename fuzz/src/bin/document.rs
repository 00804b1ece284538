//! Any text is read, linted and laid out without a panic; every place is in the text; laying out twice is laying out once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrunbook_document::{
    Block, Diagnostic, FieldSpec, Format, KindSpec, Language, Values, Vocabulary, adopt, format, lint, parse, render,
};

const fn kind(name: &'static str, language: Language, changes: bool) -> KindSpec {
    KindSpec {
        name,
        language,
        summary: "",
        fields: &[FieldSpec { name: "chain", about: "", required: false }],
        needs_target: true,
        changes,
        undo_words: &["down"],
        check: ok,
    }
}

fn ok(_block: &Block) -> Result<(), Diagnostic> {
    Ok(())
}

const KINDS: &[KindSpec] = &[
    kind("check", Language::Sql, false),
    kind("apply", Language::Sql, true),
    kind("migrate", Language::Toml, true),
    kind("backup", Language::Toml, false),
];

fuzz_target!(|text: &str| {
    let vocabulary = Vocabulary(KINDS);
    let parsed = parse("RUNBOOK.md", text, &|_| Ok("## Included\n\n- [ ] x\n".to_owned()), vocabulary);
    let found = lint(&parsed, vocabulary);
    for one in &found {
        let source = &parsed.runbook.sources[one.span.file];
        assert!(source.text.get(one.span.range()).is_some(), "{one:?}");
    }
    for block in parsed.runbook.blocks() {
        let _ = block.own_text();
        let _ = block.expand(&Values::new());
    }
    for form in [Format::Json, Format::Github, Format::Sarif, Format::Human { colour: false }] {
        let _ = render(&found, &parsed.runbook.sources, form);
    }
    let once = format(text);
    assert_eq!(format(&once), once);
    let proposal = adopt("RUNBOOK.md", text, vocabulary);
    let _ = parse("RUNBOOK.md", &proposal.markdown, &|_| Err("no".to_owned()), vocabulary);
});
