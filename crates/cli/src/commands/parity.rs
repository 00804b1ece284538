//! `parity`: whether two sides hold the same rows.

use std::io::{IsTerminal, Write};
use std::path::Path;

use pgrunbook_steps::parity::{
    Ask, Naming, Place, ROWS, Samples, Values, can_repair, choices, compare, place, plan, repair, sample,
};
use pgrunbook_steps::transfer::sqlite::Choices;
use pgrunbook_steps::workplace::Workplace;

use crate::app::App;
use crate::args::{Output, ParityArgs};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Exit 1 where they differ.
pub async fn parity(app: &App, args: &ParityArgs) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let choices = choices(&super::transfer::map(&args.map)?)?;
    let a = side(app, &workplace, &args.a, &args.schema_a, &choices)?;
    let b = side(app, &workplace, &args.b, &args.schema_b, &choices)?;
    if args.repair {
        app.refuse_if_protected("parity --repair", "`parity = \"...\"` with `repair = true`")?;
        can_repair(&b)?;
    }
    let cancel = app.cancel_on_signals();
    let human = app.global.format == Output::Human && std::io::stderr().is_terminal();
    let ask = Ask {
        tables: &args.tables,
        exclude: &args.exclude,
        jobs: args.jobs.into(),
        shown: if args.repair { ROWS } else { args.show },
        application_name: "pgrunbook:parity",
        cancel: &cancel,
        tell: &|done, total| {
            if human && total > 1 {
                let end = if done == total { "\n" } else { "" };
                let _ = write!(std::io::stderr(), "\r  {done} of {total} tables{end}");
            }
        },
    };
    let json = app.global.format == Output::Json;
    let naming = Naming::of(workplace.root())?;
    let mut found = compare([&a, &b], &ask).await?;
    let print = |found: &pgrunbook_steps::parity::Parity| {
        if json {
            put(&found.json(&Values::All, &naming).to_string());
        } else {
            put(found.terminal().trim_end());
        }
    };
    print(&found);
    if args.repair && found.differences() > 0 {
        let planned = plan(&found)?;
        for one in &planned {
            app.tell(&format!("repair {one}"));
        }
        if !args.yes {
            return Err(Failure::unusable("not-confirmed", "B would be changed as said above; nothing was changed")
                .help("call it again with --yes"));
        }
        let repaired = repair([&a, &b], &found, &ask).await?;
        if !repaired.as_replica {
            app.aside("triggers of B fired: this role may not set session_replication_role");
        }
        found = compare([&a, &b], &Ask { shown: args.show, ..ask }).await?;
        print(&found);
    }
    let mut holds = found.holds();
    if let (Some(count), Some(role)) = (args.samples, &args.role) {
        let how =
            Samples { count, role, tables: &args.tables, exclude: &args.exclude, application_name: "pgrunbook:parity" };
        let sampled = sample(&a, &b, &how).await?;
        if json {
            put(&sampled.json(&Values::All).to_string());
        } else {
            put(sampled.terminal().trim_end());
        }
        holds &= sampled.holds();
    }
    Ok(if holds { exit::DONE } else { exit::FAILED })
}

/// A target's name, a reference to a URL, a URL, or a SQLite file.
fn side(app: &App, workplace: &Workplace, text: &str, schema: &str, choices: &Choices) -> Result<Place, Failure> {
    if workplace.places().contains_key(text) {
        return Ok(place(workplace, text, schema, choices)?);
    }
    let path = app.surroundings.cwd.join(Path::new(text));
    if path.is_file() {
        return Ok(Place::Sqlite { path, choices: choices.clone() });
    }
    let options = app.server(workplace, text)?;
    Ok(Place::Postgres { options: Box::new(options), schema: schema.to_owned() })
}
