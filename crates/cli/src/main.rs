//! `pgrunbook`: arguments in, capability called, result rendered.

mod app;
mod args;
mod commands;
mod console;
mod exit;
mod failure;
mod signals;
#[cfg(test)]
mod surface;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use crate::app::App;
use crate::args::{Cli, Command, Output};
use crate::commands::pages;
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return mistyped(&error),
    };
    let format = cli.global.format;
    // Nothing of a runtime is needed for these.
    match &cli.command {
        Command::Completions { shell } => return ended(Ok(pages::completions(format, *shell)), format),
        Command::Man { command, out } => return ended(pages::man(format, command, out.as_deref()), format),
        _ => {}
    }
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

/// What clap says of arguments that it does not understand, or of a wish for help.
///
/// They were not parsed, so that `--format json` is looked for in them as they are: a script that reads JSON reads this too.
fn mistyped(error: &clap::Error) -> ExitCode {
    let typed: Vec<_> = std::env::args_os().take_while(|word| word != "--").collect();
    let json = typed.iter().any(|word| word == "--format=json")
        || typed.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    if !json || !error.use_stderr() {
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::UNUSABLE));
    }
    let text = error.render().to_string();
    let (message, help) = text.split_once("\n\n").unwrap_or((text.as_str(), ""));
    let failure = Failure::unusable("usage", message.trim_start_matches("error: ").trim_end());
    let help = help.trim_end();
    ended(Err(if help.is_empty() { failure } else { failure.help(help) }), Output::Json)
}

/// Prints a failure; the exit code.
fn ended(result: Result<u8, Failure>, format: Output) -> ExitCode {
    let failure = match result {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure,
    };
    let mut text = failure.report.clone();
    if format == Output::Json {
        let mut value = json!({
            "type": "error",
            "code": failure.code,
            "message": failure.message,
            "help": failure.help,
            "exit": failure.exit,
        });
        if !failure.report.is_empty() {
            value["report"] = failure.report.into();
        }
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
