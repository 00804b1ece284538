//! What every command must have: an example that can be typed, a manual page, completion.

use clap::{CommandFactory, FromArgMatches};
use clap_complete::Shell;

use crate::args::Cli;
use crate::commands::pages::all;

fn root() -> clap::Command {
    let mut root = Cli::command();
    root.build();
    root
}

/// `guard check`, of a command that was built; empty for the program itself.
fn path(command: &clap::Command) -> String {
    let name = command.get_bin_name().unwrap_or("pgrunbook");
    name.strip_prefix("pgrunbook").unwrap_or_else(|| panic!("{name}")).trim().to_owned()
}

/// The lines of a help's end that call the program.
fn examples(command: &clap::Command) -> Vec<String> {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    assert!(text.contains("Example:\n") || text.contains("Examples:\n"), "`{}` has no example", path(command));
    let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
    lines.filter(|line| line.split(' ').any(|word| word == "pgrunbook")).map(str::to_owned).collect()
}

/// The words of a line as a shell has them: quotes are taken off, what comes behind `>` or `|` goes elsewhere, and variables
/// stand before the program.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '>' | '|') => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "{line}");
    words.extend(word);
    let at = words.iter().position(|word| word == "pgrunbook").unwrap();
    let typed = words.split_off(at);
    // The one variable that an option may come from; set here it would be set for every test.
    let version = words.iter().find_map(|word| word.strip_prefix("APP_SCHEMA_VERSION="));
    let (command, options) = typed.split_at(typed.len().min(3));
    let version = version.into_iter().flat_map(|version| ["--app-version".to_owned(), version.to_owned()]);
    command.iter().cloned().chain(version).chain(options.iter().cloned()).collect()
}

#[test]
fn every_command_has_an_example_that_parses_and_is_its_own() {
    let root = root();
    for command in all(&root) {
        let (own, lines) = (path(command), examples(command));
        assert!(!lines.is_empty(), "`{own}` has no example");
        for line in lines {
            let matches =
                Cli::command().try_get_matches_from(words(&line)).unwrap_or_else(|error| panic!("{line}\n{error}"));
            Cli::from_arg_matches(&matches).unwrap();
            let (mut typed, mut inner) = (String::new(), &matches);
            while let Some((name, next)) = inner.subcommand() {
                typed = format!("{typed} {name}");
                inner = next;
            }
            assert!(format!("{typed} ").trim_start().starts_with(own.as_str()), "`{own}` has the example `{line}`");
        }
    }
}

#[test]
fn every_command_says_what_it_does_and_so_does_each_argument() {
    let root = root();
    for command in all(&root) {
        assert!(command.get_about().is_some(), "`{}` has no text", path(command));
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "`{}`: {} has no text", path(command), argument.get_id());
        }
    }
}

#[test]
fn completion_of_every_shell_knows_every_command() {
    let root = root();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "pgrunbook", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in all(&root) {
            let own = path(command);
            let parts = own.split([' ', '-']).filter(|part| !part.is_empty());
            let last = own.split(' ').next_back().unwrap_or_default();
            let wanted = match shell {
                _ if own.is_empty() => "pgrunbook".to_owned(),
                Shell::Bash => {
                    format!("\n        pgrunbook{})", parts.map(|part| format!("__subcmd__{part}")).collect::<String>())
                }
                Shell::PowerShell => format!("'pgrunbook;{}'", own.replace(' ', ";")),
                Shell::Fish => format!("-a \"{last}\""),
                _ => format!("\n'{last}:"),
            };
            let found = script.contains(&wanted);
            assert!(found, "{shell} does not complete `{own}`");
        }
    }
}
