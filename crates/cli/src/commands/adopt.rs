//! `adopt`: a proposal beside a prose runbook.

use std::io::Write;
use std::path::Path;

use pgrunbook_document::{Source, adopt as propose, render};
use pgrunbook_steps::registry;

use super::lint::{read, write_whole};
use crate::app::App;
use crate::args::Output;
use crate::exit;
use crate::failure::Failure;

/// Prints what became of the prose, and writes the proposal.
pub fn adopt(app: &App, file: &Path, out: Option<&Path>) -> Result<u8, Failure> {
    let text = read(app, file)?;
    let shown = file.display().to_string();
    let proposal = propose(&shown, &text, registry::vocabulary());
    let sources = [Source { path: shown, text }];
    let _ = write!(std::io::stdout(), "{}", render(&proposal.diagnostics, &sources, app.lint_format()));
    let out = out.map_or_else(|| file.with_extension("proposal.md"), Path::to_path_buf);
    let path = app.surroundings.cwd.join(&out);
    if path.exists() {
        return Err(Failure::unusable("file", format!("{} is there already and is not overwritten", out.display()))
            .help("name another file: --out FILE"));
    }
    write_whole(&path, &proposal.markdown)?;
    if matches!(app.global.format, Output::Human | Output::Plain) {
        let steps = proposal.markdown.matches(" step\n").count();
        println!("{}: {steps} steps proposed. Read it, then: pgrunbook lint {}", out.display(), out.display());
    }
    Ok(exit::DONE)
}
