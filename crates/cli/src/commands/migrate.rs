//! `migrate`: a chain without a runbook.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::Session;
use pgrunbook_steps::migrate::adopt::{adopt, find};
use pgrunbook_steps::migrate::chain::Chain;
use pgrunbook_steps::migrate::layout::Version;
use pgrunbook_steps::migrate::standing::Finding;
use pgrunbook_steps::migrate::{Applied, Around, Correction, Goal, Options, Runner, VersionRow, VersionWrite, dry_run};
use serde_json::json;

use crate::app::App;
use crate::args::{ChainArgs, MigrateAction, Output, VersionArgs};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

pub async fn migrate(app: &App, action: MigrateAction) -> Result<u8, Failure> {
    let args = match &action {
        MigrateAction::Status(chain) | MigrateAction::Adopt(chain) => chain,
        MigrateAction::Up { chain, .. } | MigrateAction::Down { chain, .. } | MigrateAction::Baseline { chain, .. } => {
            chain
        }
    };
    let ChainArgs { chain, target } = args.clone();
    // No journal: a chain keeps its history in the target.
    let workplace = app.workplace()?;
    let options = workplace.postgres(&target)?;
    let chain = Chain::read(&chain, &workplace.root().join(&chain))
        .map_err(|error| Failure::unusable(error.code(), error.to_string()).help(error.help()))?;
    if !matches!(action, MigrateAction::Status(_) | MigrateAction::Up { dry_run: true, .. }) {
        app.refuse_if_protected("migrate", "migrate = \"...\"")?;
    }
    let json = app.global.format == Output::Json;
    let cancel = app.cancel_on_signals();
    let tell = |line: String| app.tell(&line);
    let operator = app.operator();
    let around = Around::by_hand(&cancel, &operator, &tell);
    let mut runner = Runner { chain: &chain, target: options, options: Options::default(), around };
    match action {
        MigrateAction::Status(_) => {
            return status(app, &chain, &Session::connect(options, "pgrunbook:status").await?).await;
        }
        MigrateAction::Up { dry_run: true, .. } => {
            let seen = dry_run(&runner).await?;
            if json {
                put(&json!({ "type": "dry-run", "ran": seen.ran, "not_tried": seen.not_tried, "locks": seen.locks })
                    .to_string());
                return Ok(exit::DONE);
            }
            for file in &seen.ran {
                put(&format!("  {file}: ran, and was rolled back"));
            }
            for file in &seen.not_tried {
                put(&format!("  {file}"));
            }
            for (relation, mode) in &seen.locks {
                put(&format!("  locks {relation}: {mode}"));
            }
            put("Nothing was changed.");
        }
        MigrateAction::Up { to, out_of_order, no_verify, version: row, .. } => {
            let row = version_row(row)?;
            runner.options = Options { out_of_order, verify: !no_verify, version: row, ..Options::default() };
            let to = to.as_deref().map(version).transpose()?;
            done(app, &runner, &Goal::Up(to), "applied").await?;
        }
        MigrateAction::Down { to, version: row, .. } => {
            runner.options.version = version_row(row)?;
            let to = if to == "0" { None } else { Some(version(&to)?) };
            done(app, &runner, &Goal::Down(to), "taken back").await?;
        }
        MigrateAction::Baseline { at, accept, forget, .. } => {
            let correction = match (at, accept, forget) {
                (Some(at), None, None) => Correction::Baseline(version(&at)?),
                (None, Some(accept), None) => Correction::Accept(version(&accept)?),
                (None, None, Some(forget)) => Correction::Forget(version(&forget)?),
                _ => return Err(Failure::unusable("baseline", "name one of --at, --accept and --forget")),
            };
            runner.correct(&correction).await?;
            app.say("The history was changed, and nothing else.", &json!({ "type": "history-changed" }));
        }
        MigrateAction::Adopt(_) => {
            let session = Session::connect(options, "pgrunbook:adopt").await?;
            let tool = find(&session).await?.ok_or_else(|| {
                Failure::unusable("adopt", "no history of another tool is in this database; nothing was changed")
                    .help("known are those of Flyway, sqlx, Supabase, dbmate, golang-migrate, Alembic and Drizzle; else `migrate baseline`")
            })?;
            let versions = adopt(&session, &chain, tool, &runner.around).await?;
            app.say(
                &format!("{} versions taken over from {}; its table stays as it is", versions.len(), tool.name()),
                &json!({ "type": "history-adopted", "from": tool.name(), "count": versions.len() }),
            );
        }
    }
    Ok(exit::DONE)
}

fn version(text: &str) -> Result<Version, Failure> {
    Version::parse(text).ok_or_else(|| Failure::unusable("version", format!("`{text}` is not a version")))
}

fn version_row(args: VersionArgs) -> Result<Option<VersionWrite>, Failure> {
    let Some(version) = args.schema_version else { return Ok(None) };
    let row = VersionRow { table: args.version_table, key: args.version_key, ..VersionRow::usual(&version) };
    row.check().map_err(|why| Failure::unusable("bad-value", why))?;
    Ok(Some(VersionWrite::Set(row)))
}

async fn done(app: &App, runner: &Runner<'_>, goal: &Goal, what: &str) -> Result<(), Failure> {
    let mut applied = Applied::default();
    let result: Result<(), StepError> = runner.go(goal, &mut applied).await;
    if app.global.format == Output::Json {
        put(&json!({ "type": "migrated", "versions": applied.versions, "repeatable": applied.repeatable, "verified": applied.verified }).to_string());
    } else if result.is_ok() && applied == Applied::default() {
        put("Nothing to do.");
    } else {
        put(&format!("{} {what}", applied.versions.len() + applied.repeatable.len()));
    }
    Ok(result?)
}

async fn status(app: &App, chain: &Chain, session: &Session) -> Result<u8, Failure> {
    let (standing, _) = Runner::standing(chain, session).await?;
    let blocked = standing.blocking().count();
    if app.global.format == Output::Json {
        let findings: Vec<_> = standing
            .findings
            .iter()
            .map(|found| json!({ "code": found.code(), "message": found.to_string(), "help": found.remedy(), "blocks": found.blocks() }))
            .collect();
        put(&json!({
            "type": "standing",
            "chain": chain.name,
            "applied": standing.applied.iter().map(|row| &row.version).collect::<Vec<_>>(),
            "pending": standing.pending.iter().map(|one| one.version.to_string()).collect::<Vec<_>>(),
            "repeatable": standing.repeatable.iter().map(|file| &file.name).collect::<Vec<_>>(),
            "findings": findings,
        })
        .to_string());
        return Ok(if blocked == 0 { exit::DONE } else { exit::FAILED });
    }
    for row in &standing.applied {
        let took = row.duration_ms.map_or_else(String::new, |ms| format!(", {ms} ms"));
        put(&format!(
            "  ✓ {} {}  {} by {}{took}",
            row.version,
            row.name,
            row.applied_at.strftime("%Y-%m-%d %H:%M:%S"),
            row.applied_by
        ));
    }
    for migration in &standing.pending {
        put(&format!("  · {}  pending", migration.title()));
    }
    for file in &standing.repeatable {
        put(&format!("  · {}  is applied again", file.script.shown));
    }
    for found in &standing.findings {
        put(&format!("  ! {found}\n    help: {}", found.remedy()));
        if let Finding::Edited { diff: Some(diff), .. } = found {
            put(diff.trim_end());
        }
    }
    for stranger in &chain.strangers {
        put(&format!("  ? {stranger} belongs to no migration, and is left alone"));
    }
    Ok(if blocked == 0 { exit::DONE } else { exit::FAILED })
}
