//! `drift`: a target beside what its files make.

use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::Workplace;
use pgrunbook_steps::drift::{Change, Drift, DriftError, Ignore, Shadow, ShadowOf, compare};
use pgrunbook_steps::migrate::Around;
use pgrunbook_steps::migrate::chain::Chain;
use pgrunbook_steps::verify::{EphemeralError, ephemeral};
use serde_json::json;

use crate::app::App;
use crate::args::{DriftArgs, Output};
use crate::console::{count, put};
use crate::exit;
use crate::failure::Failure;

pub async fn drift(app: &App, args: &DriftArgs) -> Result<u8, Failure> {
    let mut ignore = Ignore::standard();
    for pattern in &args.ignore {
        ignore.add(pattern)?;
    }
    let workplace = app.workplace()?;
    let live = Session::connect(workplace.postgres(&args.target)?, "pgrunbook:drift").await?;
    let found = if let Some(other) = &args.against {
        compared(&live, workplace.postgres(other)?, &ignore).await?
    } else if args.chain.is_empty() {
        of_project(app, args, &live, &ignore).await?
    } else {
        of_chains(app, &workplace, args, &live, &ignore).await?
    };
    show(app, args, &found)?;
    Ok(if found.differences.is_empty() { exit::DONE } else { exit::FAILED })
}

async fn compared(live: &Session, shadow: &ConnectOptions, ignore: &Ignore) -> Result<Drift, Failure> {
    let shadow = Session::connect(shadow, "pgrunbook:drift").await?;
    Ok(compare(live, &shadow, ignore).await?)
}

async fn of_chains(
    app: &App,
    workplace: &Workplace,
    args: &DriftArgs,
    live: &Session,
    ignore: &Ignore,
) -> Result<Drift, Failure> {
    let read = |name: &String| {
        Chain::read(name, &workplace.root().join(name))
            .map_err(|error| Failure::unusable(error.code(), error.to_string()).help(error.help()))
    };
    let chains = args.chain.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (cancel, operator) = (app.cancel_on_signals(), app.operator());
    let around = Around::by_hand(&cancel, &operator, &|_| {});
    app.aside("starting a throwaway server, made of the chain's files");
    let shadow = Shadow::build(ShadowOf { chains, live, pending: args.pending, on: None }, &around).await?;
    app.aside(&format!("{} applied there", count(shadow.migration_count, "migration")));
    compared(live, &shadow.options, ignore).await
}

async fn of_project(app: &App, args: &DriftArgs, live: &Session, ignore: &Ignore) -> Result<Drift, Failure> {
    let project = app.project()?;
    let (cancel, operator) = (app.cancel_on_signals(), app.operator());
    let around = Around::by_hand(&cancel, &operator, &|_| {});
    let major = live.value("SELECT pg_catalog.current_setting('server_version_num')::int / 10000").await?.parse().ok();
    app.aside("starting a throwaway server, made of the project's files");
    let made =
        ephemeral(&project, &app.surroundings, &args.target, major, around).await.map_err(|error| match error {
            EphemeralError::Sandbox(error) => Failure::from(error),
            EphemeralError::Step(error) => Failure::from(error),
        })?;
    compared(live, &made.options, ignore).await
}

fn show(app: &App, args: &DriftArgs, found: &Drift) -> Result<(), Failure> {
    let script = found.mend.script(args.lossy);
    if let Some(path) = &args.sql {
        std::fs::write(app.surroundings.cwd.join(path), &script)
            .map_err(|error| Failure::unusable("file", format!("{} cannot be written: {error}", path.display())))?;
    }
    if app.global.format == Output::Json {
        let differences: Vec<_> = found
            .differences
            .iter()
            .map(|one| json!({ "change": one.change.as_str(), "kind": one.kind, "identity": one.identity, "target": one.live, "shadow": one.shadow }))
            .collect();
        let statements = |all: &[pgrunbook_steps::drift::Statement]| -> Vec<_> {
            all.iter().map(|one| json!({ "sql": one.sql, "loses_data": one.lossy })).collect()
        };
        put(&json!({
            "type": "drift", "target": args.target, "compared": found.item_count, "differences": differences,
            "before": statements(&found.mend.before), "mend": statements(&found.mend.statements)
        })
        .to_string());
        return Ok(());
    }
    for one in &found.differences {
        let sign = match one.change {
            Change::Missing => '-',
            Change::Extra => '+',
            Change::Different => '~',
        };
        put(&format!("{sign} {} {}", one.kind, one.identity));
        if one.change == Change::Different {
            for (name, text) in [("target", &one.live), ("shadow", &one.shadow)] {
                let text = text.as_deref().unwrap_or_default().trim().replace('\n', "\n            ");
                put(&format!("    {name}: {text}"));
            }
        }
    }
    let compared = format!("{} objects and qualities of objects", found.item_count);
    put(&match found.differences.len() {
        0 => format!("No drift: {compared} compared."),
        some => format!("{} (- missing, + extra, ~ different); {compared} compared.", count(some, "difference")),
    });
    if args.sql.is_none() && !found.mend.is_empty() {
        put(&format!("\n-- What would mend it:\n{}", script.trim_end()));
    }
    Ok(())
}

impl From<DriftError> for Failure {
    fn from(error: DriftError) -> Self {
        match error {
            DriftError::Sandbox(error) => error.into(),
            DriftError::Postgres(error) => error.into(),
            other => pgrunbook_engine::StepError::from(other).into(),
        }
    }
}
