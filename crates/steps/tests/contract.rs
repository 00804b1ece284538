//! What every kind of step must be, whatever it does: one loop over the registry.

use std::path::Path;

use pgrunbook_document::{Language, Severity, lint, parse};
use pgrunbook_steps::{KINDS, registry};

fn page(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/steps/{name}.md"))
}

/// Whether a kind takes `undo = "none: why"`: its page's example with that.
fn takes_none(kind: &pgrunbook_steps::Kind, page: &str) -> bool {
    let Some(start) = page.find("```") else { return true };
    let with_none = |line: &str| match line.starts_with("undo = ") {
        true => "undo = \"none: a test\"\n".to_owned(),
        false => format!("{line}\n"),
    };
    let runbook = format!("## Phase\n\n{}", page[start..].lines().map(with_none).collect::<String>());
    let parsed = parse("page.md", &runbook, &|_| Err("no include".to_owned()), registry::vocabulary());
    let block = parsed.runbook.forward_steps().find(|block| block.kind == kind.spec.name);
    block.is_none_or(|block| (kind.spec.check)(block).is_ok())
}

/// The part of a page that is made of the registry.
fn table(kind: &pgrunbook_steps::Kind, page: &str) -> String {
    let spec = &kind.spec;
    let mut text = format!(
        "<!-- made of the registry: PGRUNBOOK_BLESS=1 cargo nextest run -p pgrunbook-steps contract -->\n\n{}\n\n",
        spec.summary
    );
    // What may have one says in its table which.
    let target = match spec.fields.iter().any(|field| field.name == "target") {
        true => "",
        false if spec.needs_target => "Needs a `target`. ",
        false => "Takes no `target`. ",
    };
    let undo = match (spec.changes, spec.undo_words) {
        (false, _) => "Changes nothing, and needs no `undo`.".to_owned(),
        (true, words) => {
            let words = words.iter().map(|word| format!("`{word}`, ")).collect::<String>();
            let none = if takes_none(kind, page) { "`none: why`, " } else { "" };
            let rest = format!("the id of an `undo` block or of a backup, {none}or `one-way: why`");
            format!("Needs an `undo`: {words}{rest}.")
        }
    };
    text.push_str(&format!("{target}{undo}\n"));
    if !spec.fields.is_empty() {
        text.push_str("\n| field | meaning |\n| --- | --- |\n");
        for field in spec.fields {
            let required = if field.required { " Required." } else { "" };
            text.push_str(&format!("| `{}` | {}{required} |\n", field.name, field.about));
        }
    }
    text.push_str("\n<!-- end -->\n");
    text
}

#[test]
fn every_kind_has_a_page_that_says_what_the_registry_says() {
    for kind in KINDS {
        let path = page(kind.spec.name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| format!("# {}\n\n", kind.spec.name));
        let wanted = table(kind, &text);
        let found = text.find("<!-- made of").zip(text.find("<!-- end -->\n"));
        let made = match found {
            Some((start, end)) => format!("{}{wanted}{}", &text[..start], &text[end + "<!-- end -->\n".len()..]),
            None => {
                let (title, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
                format!("{title}\n\n{wanted}\n{rest}")
            }
        };
        if std::env::var_os("PGRUNBOOK_BLESS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(&wanted), "{} is not what the registry says", path.display());
        assert!(text.contains("```"), "{} shows no example", path.display());
    }
}

#[test]
fn example_of_every_page_is_read_and_built() {
    let bench = pgrunbook_steps::Workplace::new(
        std::env::temp_dir(),
        pgrunbook_steps::Surroundings::default(),
        pgrunbook_engine::Redactor::new(),
        [
            ("main".to_owned(), pgrunbook_steps::workplace::Place::Postgres(options())),
            (
                "cache".to_owned(),
                pgrunbook_steps::workplace::Place::Redis(
                    pgrunbook_steps::redis::RedisOptions::parse("redis://cache", Path::new("/")).unwrap(),
                ),
            ),
            ("app".to_owned(), pgrunbook_steps::workplace::Place::Http { base: "http://127.0.0.1:1".to_owned() }),
        ]
        .into(),
        "default",
        false,
    );
    for kind in KINDS {
        let text = std::fs::read_to_string(page(kind.spec.name)).unwrap();
        let runbook = format!("## Phase\n\n{}", &text[text.find("```").unwrap()..]);
        let parsed = parse("page.md", &runbook, &|_| Err("no include".to_owned()), registry::vocabulary());
        let errors: Vec<_> =
            lint(&parsed, registry::vocabulary()).into_iter().filter(|one| one.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", kind.spec.name);
        let block = parsed.runbook.forward_steps().find(|block| block.kind == kind.spec.name);
        let block = block.unwrap_or_else(|| panic!("{}: its page shows no such step", kind.spec.name));
        assert_eq!(block.language, kind.spec.language);
        let block = &block.expand(&Default::default()).unwrap()[0];
        let step = (kind.build)(block, &bench).unwrap_or_else(|error| panic!("{}: {error}", kind.spec.name));
        // A step that changes something and cannot know whether it did must say so by its class.
        let _ = step.effect();
    }
}

#[test]
fn delete_of_keys_refuses_none_and_says_what_to_write() {
    let of = |undo: &str| {
        let text = format!(
            "## P\n\n```toml step\nredis-delete = \"clear\"\ntarget = \"cache\"\nprefix = \"stg:cache:\"\nconfirm = \"x\"\n{undo}\n```\n"
        );
        let parsed = parse("page.md", &text, &|_| Err("no include".to_owned()), registry::vocabulary());
        let found = lint(&parsed, registry::vocabulary());
        found.into_iter().filter(|one| one.severity == Severity::Error).collect::<Vec<_>>()
    };
    let refused = of("undo = \"none: a test\"");
    assert_eq!(refused.iter().map(|one| one.code).collect::<Vec<_>>(), ["redis-delete"], "{refused:#?}");
    assert!(refused[0].help.as_ref().is_some_and(|help| help.contains("one-way: why")), "{refused:#?}");
    assert!(of("undo = \"one-way: a test\"").is_empty());
}

#[test]
fn fields_that_a_kind_lists_are_those_that_it_reads() {
    for kind in KINDS.iter().filter(|kind| kind.spec.language == Language::Toml) {
        let name = kind.spec.name;
        let target = if kind.spec.needs_target { "target = \"main\"\n" } else { "" };
        let undo = if kind.spec.changes { "undo = \"none: a test\"\n" } else { "" };
        let required: String = kind
            .spec
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| format!("{} = \"x\"\n", field.name))
            .collect();
        let text = format!("## P\n\n```toml step\n{name} = \"a\"\n{target}{undo}{required}surely_unknown = 1\n```\n");
        let parsed = parse("page.md", &text, &|_| Err("no include".to_owned()), registry::vocabulary());
        let found = lint(&parsed, registry::vocabulary());
        assert!(
            found
                .iter()
                .any(|one| matches!(one.code, "unknown-key" | "bad-value") && one.message.contains("surely_unknown")),
            "{name} takes a field that it does not know: {found:#?}"
        );
    }
}

fn options() -> pgrunbook_postgres::ConnectOptions {
    let env = |name: &str| (name == "PGUSER").then(|| "anna".to_owned());
    let around = pgrunbook_postgres::Surroundings { env: &env, home: None, user: None };
    pgrunbook_postgres::ConnectOptions::resolve(&pgrunbook_postgres::ConnectSpec::Environment, &around).unwrap()
}

/// What is shown to people as a good runbook: no check in it may be one that cannot fail.
#[test]
fn what_is_shown_raises_no_warning() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("crates/cli/templates/RUNBOOK.md")];
    let mut folders = vec![root.join("docs"), root.join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let mut steps = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let parsed = parse("page.md", &text, &|_| Err("no include".to_owned()), registry::vocabulary());
        steps += parsed.runbook.blocks().count();
        let mut warnings = lint(&parsed, registry::vocabulary());
        // A page of the guide may speak of expectations; it is no runbook.
        warnings.retain(|one| one.severity == Severity::Warning && one.code != "prose-expectation");
        assert!(warnings.is_empty(), "{}: {warnings:#?}", page.display());
    }
    assert!(steps > 40, "only {steps} steps were read");
}
