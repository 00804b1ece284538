//! `lint` and `fmt`.

use std::io::Write;
use std::path::PathBuf;

use pgrunbook_document::{Format, Severity, format, lint_knowing as look, parse, render};
use pgrunbook_steps::registry;
use serde_json::json;

use crate::app::{App, loader};
use crate::console::count;
use crate::exit;
use crate::failure::Failure;

/// Prints what is wrong with runbooks. Exit 2 with errors.
pub fn lint(app: &App, files: &[PathBuf]) -> Result<u8, Failure> {
    let (mut found, mut sources) = (Vec::new(), Vec::new());
    // Without a topology, or with one that is wrong, its roles are simply not known.
    let workplace = app.workplace().ok();
    let declared = workplace.as_ref().and_then(|workplace| workplace.topology().ok());
    let roles = declared.map(|topology| topology.roles.keys().cloned().collect());
    for file in files {
        let text = read(app, file)?;
        let full = app.surroundings.cwd.join(file);
        let parsed = parse(&file.display().to_string(), &text, &loader(&full), registry::vocabulary());
        // One report over all files: their sources stand one after the other.
        let before = sources.len();
        for mut one in look(&parsed, registry::vocabulary(), roles.as_ref()) {
            one.span.file += before;
            found.push(one);
        }
        sources.extend(parsed.runbook.sources);
    }
    let report_format = app.lint_format();
    app.report(&render(&found, &sources, report_format));
    let errors = found.iter().filter(|one| one.severity == Severity::Error).count();
    if let Format::Human { .. } = report_format {
        let warnings = found.iter().filter(|one| one.severity == Severity::Warning).count();
        let _ = writeln!(
            std::io::stdout(),
            "{}: {}, {}",
            count(files.len(), "file"),
            count(errors, "error"),
            count(warnings, "warning")
        );
    }
    Ok(if errors == 0 { exit::DONE } else { exit::UNUSABLE })
}

/// Lays files out in the usual form.
pub fn fmt(app: &App, files: &[PathBuf], check: bool) -> Result<u8, Failure> {
    let mut changed = 0;
    for file in files {
        let text = read(app, file)?;
        let formatted = format(&text);
        if formatted == text {
            continue;
        }
        changed += 1;
        let said = |what: &str, written: bool| {
            app.say(
                &format!("{} {what}", file.display()),
                &json!({ "type": "formatted", "file": file.display().to_string(), "written": written }),
            );
        };
        if check {
            said("would change", false);
        } else {
            write_whole(&app.surroundings.cwd.join(file), &formatted)?;
            said("changed", true);
        }
    }
    Ok(if check && changed > 0 { exit::FAILED } else { exit::DONE })
}

pub(super) fn read(app: &App, file: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(app.surroundings.cwd.join(file))
        .map_err(|error| Failure::unusable("file", format!("{} cannot be read: {error}", file.display())))
}

/// Writes beside and renames: a crash leaves the old file or the new one.
pub(super) fn write_whole(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("pgrunbook-new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| Failure::unusable("file", format!("{} cannot be written: {error}", path.display())))
}
