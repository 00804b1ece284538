//! `pgrunbook`: arguments in, capability called, result rendered.

mod app;
mod args;
mod commands;
mod console;
mod exit;
mod failure;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde_json::json;

use crate::app::App;
use crate::args::{Cli, Command, Output};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Nothing of a runtime is needed for these.
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pgrunbook", &mut script);
            // Whoever reads it may have gone.
            let _ = std::io::stdout().write_all(&script);
            return ExitCode::SUCCESS;
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command());
            let mut text = Vec::new();
            let rendered = page.render(&mut text).map(|()| exit::DONE).map_err(Failure::from);
            let _ = std::io::stdout().write_all(&text);
            return ended(rendered, cli.global.format);
        }
        _ => {}
    }
    let format = cli.global.format;
    let app = App::new(cli.global);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::from(error)), format),
    };
    let result = runtime.block_on(commands::run(&app, cli.command));
    // A prompt that nobody answered still reads in its thread.
    runtime.shutdown_background();
    ended(result, format)
}

/// Prints a failure; the exit code.
fn ended(result: Result<u8, Failure>, format: Output) -> ExitCode {
    let failure = match result {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure,
    };
    let mut text = failure.report.clone();
    if format == Output::Json {
        let value = json!({
            "type": "error",
            "code": failure.code,
            "message": failure.message,
            "help": failure.help,
            "exit": failure.exit,
        });
        text = value.to_string();
    } else {
        text.push_str(&format!("error: {}", failure.message));
        if let Some(help) = &failure.help {
            text.push_str(&format!("\n  help: {help}"));
        }
    }
    let _ = match format {
        Output::Json => writeln!(std::io::stdout(), "{text}"),
        _ => writeln!(std::io::stderr(), "{text}"),
    };
    ExitCode::from(failure.exit)
}
