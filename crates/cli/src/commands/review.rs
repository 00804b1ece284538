//! `review`: what a change does to the database; and what sources do to databases, without one.

use std::io::Write;
use std::path::Path;

use pgrunbook_document::{Format, Severity, render};
use pgrunbook_engine::StepError;
use pgrunbook_steps::drift::Ignore;
use pgrunbook_steps::gate::{self, Columns, Form, Wish};
use pgrunbook_steps::migrate::Around;
use pgrunbook_steps::migrate::chain::Chain;
use pgrunbook_steps::project::Code;

use crate::app::App;
use crate::args::{GateArgs, Output};
use crate::console::count;
use crate::exit;
use crate::failure::Failure;

/// Prints where an application's sources write what belongs to another. Exit 2 with crossings, 4 where something is unknown.
pub fn boundary(app: &App) -> Result<u8, Failure> {
    let root = app.root();
    let reviewed = pgrunbook_steps::boundary::review(&root, &Code::load(&root)?)?;
    let report_format = app.lint_format();
    app.report(&render(&reviewed.found, &reviewed.sources, report_format));
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

/// Reviews a change. Exit 1 with errors, 4 where something is unknown.
pub async fn review(app: &App, args: &GateArgs) -> Result<u8, Failure> {
    let project = app.project()?;
    let workplace = app.workplace()?;
    let chains = args.chain.iter().map(|name| {
        Chain::read(name, &project.root.join(name))
            .map_err(|error| Failure::unusable(error.code(), error.to_string()).help(error.help()))
    });
    let mut ignore = Ignore::standard();
    for pattern in &args.ignore {
        ignore.add(pattern)?;
    }
    let forms = args.out.iter().map(|path| Ok((path, form_of(path)?))).collect::<Result<Vec<_>, Failure>>()?;
    let on = args.shadow_on.as_ref().map(|text| app.server(&workplace, text)).transpose()?;
    let wish = Wish {
        project: &project,
        chains: chains.collect::<Result<_, _>>()?,
        since: args.since.clone(),
        target: args.target.as_ref().map(|name| workplace.postgres(name)).transpose()?,
        ignore,
        smoke: args.smoke.iter().map(|path| project.root.join(path)).collect(),
        roles: args.role.clone(),
        tenant_schemas: args.tenant_schema.clone(),
        tenant_roles: args.tenant_role.clone(),
        code: Some(Code::load(&project.root)?),
        major: args.major,
        on: on.as_ref(),
        large: args.large,
        columns: if args.no_column_statistics { Columns::LeftOut } else { Columns::Copied },
    };
    let (cancel, operator) = (app.cancel_on_signals(), app.operator());
    let tell = |line: String| app.aside(&line);
    let around = Around::by_hand(&cancel, &operator, &tell);
    app.aside(match &on {
        Some(_) => "trying the migrations in a temporary database",
        None => "trying the migrations on a throwaway server",
    });
    let made = gate::review(&wish, &around).await.map_err(|error| Failure::from(StepError::from(error)))?;
    let form = match app.global.format {
        Output::Human | Output::Plain => Form::Human { colour: app.colour() },
        Output::Json => Form::Json,
        Output::Github => Form::Github,
        Output::Sarif => Form::Sarif,
        Output::Junit => Form::Junit,
        Output::Markdown => Form::Markdown,
    };
    app.report(&gate::render(&made, form));
    for (path, form) in forms {
        std::fs::write(app.surroundings.cwd.join(path), gate::render(&made, form))
            .map_err(|error| Failure::unusable("file", format!("{} cannot be written: {error}", path.display())))?;
    }
    Ok(match (made.passes(), made.count(Severity::Unknown)) {
        (false, _) => exit::FAILED,
        (true, 0) => exit::DONE,
        (true, _) => exit::UNKNOWN,
    })
}

fn form_of(path: &Path) -> Result<Form, Failure> {
    match path.extension().and_then(|end| end.to_str()) {
        Some("json") => Ok(Form::Json),
        Some("sarif") => Ok(Form::Sarif),
        Some("xml") => Ok(Form::Junit),
        Some("md") => Ok(Form::Markdown),
        _ => Err(Failure::unusable("out", format!("{} says no form by its end", path.display()))
            .help(".json, .sarif, .xml (JUnit) and .md are known")),
    }
}
