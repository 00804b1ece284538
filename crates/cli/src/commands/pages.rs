//! `man` and `completions`: what is made of the definition of the arguments, without a runtime.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::args::{Cli, Output};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Prints a shell's completion script.
pub fn completions(format: Output, shell: clap_complete::Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgrunbook", &mut script);
    print(format, "completions", &shell.to_string(), &script);
    exit::DONE
}

/// Prints the manual page of a command, or writes those of all into a folder: `pgrunbook-guard-check.1`.
pub fn man(format: Output, command: &[String], out: Option<&Path>) -> Result<u8, Failure> {
    let mut root = Cli::command();
    // Gives each command its full name, and the options of all.
    root.build();
    if let Some(folder) = out {
        std::fs::create_dir_all(folder)?;
        let mut count = 0;
        for command in all(&root) {
            let name = command.get_display_name().unwrap_or_else(|| command.get_name());
            std::fs::write(folder.join(format!("{name}.1")), page(command)?)?;
            count += 1;
        }
        put(&match format {
            Output::Json => json!({ "type": "man", "folder": folder, "count": count }).to_string(),
            _ => format!("{count} pages in {}", folder.display()),
        });
        return Ok(exit::DONE);
    }
    let mut found = &root;
    for name in command {
        let inner = found.find_subcommand(name).filter(|inner| inner.get_name() != "help");
        found = inner.ok_or_else(|| {
            Failure::unusable("command", format!("there is no command `pgrunbook {}`", command.join(" ")))
                .help("`pgrunbook --help` lists them")
        })?;
    }
    print(format, "man", &command.join(" "), &page(found)?);
    Ok(exit::DONE)
}

/// A command and those below it.
pub fn all(command: &clap::Command) -> Vec<&clap::Command> {
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help");
    std::iter::once(command).chain(inner.flat_map(all)).collect()
}

/// A page in roff.
fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let source = concat!("pgrunbook ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).source(source).render(&mut text)?;
    // What stands at the end of a help is called so whatever it is.
    Ok(String::from_utf8_lossy(&text).replace("\n.SH EXTRA\n", "\n.SH EXAMPLES\n").into_bytes())
}

fn print(format: Output, kind: &str, of: &str, text: &[u8]) {
    match format {
        Output::Json => put(&json!({ "type": kind, "of": of, "text": String::from_utf8_lossy(text) }).to_string()),
        // Whoever reads it may have gone.
        _ => drop(std::io::stdout().write_all(text)),
    }
}
