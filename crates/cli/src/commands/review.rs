//! `review`: what sources do to databases, without a database.

use std::io::Write;

use pgrunbook_document::{Format, Severity, render};
use pgrunbook_steps::project::Code;
use pgrunbook_steps::review;

use crate::app::App;
use crate::console::count;
use crate::exit;
use crate::failure::Failure;

/// Prints where an application's sources write what belongs to another. Exit 2 with crossings, 4 where something is unknown.
pub fn boundary(app: &App) -> Result<u8, Failure> {
    let root = app.root();
    let reviewed = review::boundary(&root, &Code::load(&root)?)?;
    let report_format = app.lint_format();
    let _ = write!(std::io::stdout(), "{}", render(&reviewed.found, &reviewed.sources, report_format));
    let (errors, unknown) = (reviewed.count(Severity::Error), reviewed.count(Severity::Unknown));
    if let Format::Human { .. } = report_format {
        let _ = writeln!(
            std::io::stdout(),
            "{}, {}: {}, {unknown} unknown, {}",
            count(reviewed.tree_count, "tree"),
            count(reviewed.file_count, "file"),
            count(errors, "error"),
            count(reviewed.count(Severity::Note), "note"),
        );
    }
    Ok(match (errors, unknown) {
        (0, 0) => exit::DONE,
        (0, _) => exit::UNKNOWN,
        _ => exit::UNUSABLE,
    })
}
