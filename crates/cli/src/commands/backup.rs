//! `backup` and `restore` without a runbook.

use std::path::Path;

use pgrunbook_document::StepId;
use pgrunbook_engine::Cancel;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_steps::backup::programs::Audience;
use pgrunbook_steps::backup::{DumpOptions, Verify, dump};
use pgrunbook_steps::restore::put_back;

use crate::app::App;
use crate::args::{Output, VerifyHow};
use crate::console::{aside, put};
use crate::exit;
use crate::failure::Failure;
use crate::signals;

/// Says what a long command does, line by line.
struct Lines {
    quiet: bool,
}

impl Watcher for Lines {
    fn progress(&self, _step: &StepId, progress: Progress) {
        if let (Progress::Line { text }, false) = (progress, self.quiet) {
            aside(&format!("  {text}"));
        }
    }
}

/// The first Ctrl-C cancels: there is no step after this one.
fn cancel() -> Cancel {
    let cancel = Cancel::default();
    let asked = cancel.clone();
    signals::heed(&cancel, move |_| asked.ask());
    cancel
}

pub async fn backup(app: &App, target: &str, out: &Path, verify: VerifyHow) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let source = opened.workplace.postgres(target)?;
    let options = DumpOptions {
        verify: match verify {
            VerifyHow::List => Verify::List,
            VerifyHow::Restore => Verify::Restore,
        },
        ..DumpOptions::default()
    };
    let path = app.surroundings.cwd.join(out);
    if path.exists() {
        return Err(Failure::unusable("file", format!("{} is there already and is not overwritten", out.display())));
    }
    let (step, cancel) = (name("backup"), cancel());
    let audience =
        Audience { step: &step, watcher: &Lines { quiet: app.global.format == Output::Json }, cancel: &cancel };
    let dump = dump(source, &path, &options, "pgrunbook:backup", audience).await?;
    match app.global.format {
        Output::Json => put(&serde_json::to_string(&dump.evidence).unwrap_or_default()),
        _ => put(&format!("{}\nsha256 {}", dump.evidence.summary, dump.sha256)),
    }
    Ok(exit::DONE)
}

pub async fn restore(app: &App, target: &str, file: &Path, yes: bool) -> Result<u8, Failure> {
    app.refuse_if_protected("restore", "restore = \"...\"")?;
    let opened = app.open().await?;
    let options = opened.workplace.postgres(target)?;
    if !yes {
        return Err(Failure::unusable(
            "confirm",
            format!(
                "this ends every session of {options} and puts {} in its place; nothing was touched",
                file.display()
            ),
        )
        .help("say --yes; the database as it was is kept under another name"));
    }
    let (step, cancel) = (name("restore"), cancel());
    let audience =
        Audience { step: &step, watcher: &Lines { quiet: app.global.format == Output::Json }, cancel: &cancel };
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let evidence = put_back(&opened.workplace, target, &app.surroundings.cwd.join(file), &stamp, audience).await?;
    match app.global.format {
        Output::Json => put(&serde_json::to_string(&evidence).unwrap_or_default()),
        _ => put(&evidence.summary),
    }
    Ok(exit::DONE)
}

fn name(text: &str) -> StepId {
    text.parse().expect("a constant that is a step's id")
}
