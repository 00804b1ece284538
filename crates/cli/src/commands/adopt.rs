//! `adopt`: a proposal beside a prose runbook.

use std::path::Path;

use pgrunbook_document::{Source, adopt as propose, lint, parse, render};
use pgrunbook_steps::registry;
use serde_json::json;

use super::lint::{read, write_whole};
use crate::app::{App, loader};
use crate::args::Output;
use crate::exit;
use crate::failure::Failure;

/// Prints what became of the prose, and writes the proposal.
pub fn adopt(app: &App, file: &Path, out: Option<&Path>) -> Result<u8, Failure> {
    let text = read(app, file)?;
    let shown = file.display().to_string();
    let proposal = propose(&shown, &text, registry::vocabulary());
    // What is wrong with the prose itself stands beside what became of it.
    let parsed = parse(&shown, &text, &loader(&app.surroundings.cwd.join(file)), registry::vocabulary());
    let mut found = lint(&parsed, registry::vocabulary());
    found.retain(|one| one.span.file == 0);
    found.extend(proposal.diagnostics);
    found.sort_by_key(|one| (one.span.start, one.code));
    let sources = [Source { path: shown, text }];
    app.report(&render(&found, &sources, app.lint_format()));
    let out = out.map_or_else(|| file.with_extension("proposal.md"), Path::to_path_buf);
    let path = app.surroundings.cwd.join(&out);
    if path.exists() {
        return Err(Failure::unusable("file", format!("{} is there already and is not overwritten", out.display()))
            .help("name another file: --out FILE"));
    }
    write_whole(&path, &proposal.markdown)?;
    if matches!(app.global.format, Output::Human | Output::Plain | Output::Json) {
        let steps = proposal.markdown.matches(" step\n").count();
        let items = proposal.markdown.matches("- [ ] ").count();
        app.say(
            &format!(
                "{0}: {steps} steps and {items} checklist lines. Read it, then: pgrunbook lint {0}",
                out.display()
            ),
            &json!({ "type": "adopted", "file": out.display().to_string(), "steps": steps, "items": items }),
        );
    }
    Ok(exit::DONE)
}
