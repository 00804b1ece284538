//! `topology` and `provision`: what is declared, made so without a runbook.

use pgrunbook_document::{Format, Severity};
use pgrunbook_engine::{Cancel, Clock, SystemClock};
use pgrunbook_postgres::retry::LockPolicy;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use pgrunbook_steps::migrate::Around;
use pgrunbook_steps::secret::Reference;
use pgrunbook_steps::topology::{self, How, Plan, Wish};
use pgrunbook_steps::verify::{self, EphemeralError, ephemeral};
use pgrunbook_steps::{Workplace, audit, isolation, provision};
use serde_json::json;

use crate::app::App;
use crate::args::{Output, TopologyAction};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

pub async fn topology(app: &App, action: TopologyAction) -> Result<u8, Failure> {
    match action {
        TopologyAction::Plan { target, prune, check } => {
            let workplace = app.workplace()?;
            if let Ok(options) = workplace.redis(&target) {
                return super::redis::plan(app, &workplace, options, check).await;
            }
            let session = connect(workplace.postgres(&target)?).await?;
            let wish = Wish { prune, ..wish() };
            let plan = topology::plan(&session, workplace.topology()?, &wish).await?;
            show(app, &plan);
            Ok(if check && !plan.is_empty() { exit::FAILED } else { exit::DONE })
        }
        TopologyAction::Apply { target, expect_revokes, set_passwords, dry_run } => {
            let workplace = app.workplace()?;
            if let Ok(options) = workplace.redis(&target) {
                return super::redis::apply(app, &workplace, options, dry_run).await;
            }
            let options = workplace.postgres(&target)?;
            let session = connect(options).await?;
            let wish = Wish { set_passwords, ..wish() };
            if dry_run {
                show(app, &topology::plan(&session, workplace.topology()?, &wish).await?);
                return Ok(exit::DONE);
            }
            app.refuse_if_protected("topology apply", "topology = \"roles\"")?;
            let cancel = app.cancel_on_signals();
            let tell = |line: String| app.tell(&line);
            let how = How {
                wish,
                expect_revokes,
                password: &|reference: &Reference| workplace.secret(reference),
                assert: None,
                record: None,
                locks: LockPolicy::default(),
                clock: &SystemClock,
                cancel: &cancel,
                tell: &tell,
            };
            let applied = topology::apply(&session, workplace.topology()?, &how).await?;
            show(app, &applied.plan);
            if app.global.format != Output::Json {
                put(match applied.plan.statements.len() {
                    0 => "Nothing was changed.",
                    _ => "Applied, in one transaction.",
                });
            }
            Ok(exit::DONE)
        }
        TopologyAction::Verify { target, ephemeral: false, all_objects, level, .. } => {
            let workplace = app.workplace()?;
            let options = workplace.postgres(&target)?;
            let pooler = |target: &str| workplace.postgres(target).ok().cloned();
            verify(app, &workplace, options, &pooler, all_objects, level.into()).await
        }
        TopologyAction::Verify { target, version, all_objects, level, .. } => {
            let project = app.project()?;
            let (cancel, operator) = (app.cancel_on_signals(), app.operator());
            // The statements of a server that goes away are nobody's concern.
            let tell = |_: String| {};
            let around = Around::by_hand(&cancel, &operator, &tell);
            app.aside("starting a throwaway server, made of the project's files");
            let made =
                ephemeral(&project, &app.surroundings, &target, version, around).await.map_err(
                    |error| match error {
                        EphemeralError::Sandbox(error) => Failure::from(error),
                        EphemeralError::Step(error) => Failure::from(error),
                    },
                )?;
            let files: usize = made.provisioned.chains.iter().map(|(_, files)| files.len()).sum();
            app.aside(&format!(
                "{} statement(s) of the topology, {files} migration(s)",
                made.provisioned.statements.len()
            ));
            for (table, why) in &made.filled.empty {
                app.aside(&format!("{table} stays empty, so that nothing can be kept from anybody there: {why}"));
            }
            let pooler = |target: &str| made.pooler(target);
            verify(app, &made.workplace, &made.options, &pooler, all_objects, level.into()).await
        }
        TopologyAction::Import { target } => {
            let workplace = app.workplace()?;
            let text = topology::import(&connect(workplace.postgres(&target)?).await?).await?;
            app.say(text.trim_end(), &json!({ "type": "declaration", "toml": text }));
            Ok(exit::DONE)
        }
    }
}

pub async fn provision(app: &App, target: &str, only: &[String]) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let options = workplace.postgres(target)?;
    app.refuse_if_protected("provision", "provision = \"all\"")?;
    let topology = workplace.topology()?;
    let made = provision::database(options, topology).await?;
    if let Some(name) = &made {
        app.tell(&format!("CREATE DATABASE {name}"));
    }
    let cancel: Cancel = app.cancel_on_signals();
    let operator = app.operator();
    let tell = |line: String| app.tell(&line);
    let around = Around::by_hand(&cancel, &operator, &tell);
    let mut done = provision::provision(&workplace, options, topology, only, around).await?;
    done.database = made;
    if app.global.format == Output::Json {
        let chains: serde_json::Map<_, _> =
            done.chains.iter().map(|(name, files)| (name.clone(), json!(files))).collect();
        put(&json!({
            "type": "provisioned", "database": done.database, "statements": done.statements, "chains": chains,
            "notes": done.notes
        })
        .to_string());
        return Ok(exit::DONE);
    }
    for (chain, files) in &done.chains {
        put(&format!("  {chain}: {}", files.join(", ")));
    }
    for note in &done.notes {
        put(&format!("  ! {note}"));
    }
    put(&match done.is_empty() {
        true => "Everything was there.".to_owned(),
        false => format!(
            "{} statement(s) of the topology, {} migration(s).",
            done.statements.len(),
            done.chains.iter().map(|(_, files)| files.len()).sum::<usize>()
        ),
    });
    Ok(exit::DONE)
}

/// Findings of the probes that a terminal shows in full.
const SHOWN: usize = 20;

async fn verify(
    app: &App,
    workplace: &Workplace,
    options: &ConnectOptions,
    pooler: &(dyn Fn(&str) -> Option<ConnectOptions> + Send + Sync),
    all_objects: bool,
    level: Severity,
) -> Result<u8, Failure> {
    let topology = workplace.topology()?;
    let how = isolation::How {
        all_objects,
        roles: None,
        schemas: None,
        today: topology::today(&SystemClock),
        password: &|reference| workplace.role_password(reference).ok(),
        pooler,
        statement_timeout: isolation::STATEMENT_TIMEOUT,
        application_name: "pgrunbook:verify",
        cancel: &app.cancel_on_signals(),
        tell: &|_, _| {},
    };
    let found = verify::verify(options, topology, &how).await?;
    let holds = found.holds(level);
    match app.global.format {
        Output::Json => {
            let audit = audit::render(&found.audit, &topology.source, Format::Json);
            let disagreements: Vec<_> = found
                .disagreements
                .iter()
                .map(|one| json!({ "role": one.role, "object": one.object, "message": one.what }))
                .collect();
            put(&json!({
                "type": "verification", "holds": holds, "missing_schemas": found.missing_schemas,
                "plan": found.plan.statements.iter().map(|one| &one.sql).collect::<Vec<_>>(),
                "waiting": found.plan.waiting,
                "audit": serde_json::from_str::<serde_json::Value>(&audit).unwrap_or_default(),
                "matrix": found.matrix.json(), "disagreements": disagreements,
            })
            .to_string());
        }
        Output::Sarif | Output::Github => {
            put(audit::render(&found.audit, &topology.source, app.lint_format()).trim_end());
        }
        Output::Human | Output::Plain | Output::Junit | Output::Markdown => {
            put("Schemas");
            for schema in topology.schemas.keys() {
                let mark = if found.missing_schemas.contains(schema) { "✗" } else { "✓" };
                put(&format!("  {mark} {schema}"));
            }
            put("\nPlan");
            show(app, &found.plan);
            put("\nAudit");
            put(audit::render(&found.audit, &topology.source, app.lint_format()).trim_end());
            put("\nProbes");
            put(found.matrix.terminal(SHOWN).trim_end());
            for one in &found.disagreements {
                put(&format!("\n✗ they disagree: {}", one.what));
            }
            put(if holds {
                "\nDeclared, read and tried: the three agree."
            } else {
                "\nIt is not as declared, or nobody can tell; see above."
            });
        }
    }
    Ok(if holds { exit::DONE } else { exit::FAILED })
}

async fn connect(options: &ConnectOptions) -> Result<Session, PgError> {
    Session::connect(options, "pgrunbook:topology").await
}

fn wish() -> Wish {
    Wish { today: topology::today(&SystemClock as &dyn Clock), prune: false, set_passwords: false }
}

/// The statements as they paste into `psql`, and beside them what nobody can read off them.
fn show(app: &App, plan: &Plan) {
    if app.global.format == Output::Json {
        let statements: Vec<_> = plan
            .statements
            .iter()
            .map(|one| {
                json!({
                    "sql": one.sql, "why": one.why, "undo": one.undo, "run_as": one.run_as, "revokes": one.revokes,
                    "lock": one.lock.as_ref().map(|(relation, mode)| json!({ "relation": relation, "mode": mode }))
                })
            })
            .collect();
        put(&json!({
            "type": "topology", "statements": statements, "waiting": plan.waiting, "foreign": plan.foreign,
            "cannot": plan.cannot, "warnings": plan.warnings, "revokes": plan.revokes(), "granted": plan.granted
        })
        .to_string());
        return;
    }
    if plan.is_empty() {
        put("Nothing to change: everything is as declared.");
    } else {
        put(plan.script().trim_end());
        let mut summary = format!("-- {} statement(s)", plan.statements.len());
        if plan.revokes() > 0 {
            summary.push_str(&format!("; {} of {} granted privileges go", plan.revokes(), plan.granted));
        }
        put(&summary);
    }
    for (relation, mode) in plan.statements.iter().filter_map(|one| one.lock.as_ref()) {
        put(&format!("-- locks {relation}: {mode}"));
    }
    for (what, lines) in [
        ("look", &plan.warnings),
        ("cannot", &plan.cannot),
        ("declared, and not there yet", &plan.waiting),
        ("not declared, and left alone", &plan.foreign),
    ] {
        for line in lines {
            put(&format!("-- {what}: {line}"));
        }
    }
}
