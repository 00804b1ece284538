//! The block: `topology = "roles"`, `target = "main"`, `undo = "auto"`.

use pgrunbook_document::{Block, Diagnostic, FieldSpec, KindSpec, Language, Undo};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::ledger::Entry;
use pgrunbook_postgres::retry::LockPolicy;
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;

use super::apply::{Applied, How, apply, plan, today, undo};
use super::declare::DeclarationError;
use super::diff::{Plan, Wish};
use super::model::Topology;
use super::write::literal;
use crate::redis;
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::secret::Reference;
use crate::workplace::{Place, Workplace};

/// The kind `topology`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "topology",
        language: Language::Toml,
        summary: "Makes schemas, roles, grants, defaults and policies what the declaration says, by the least change.",
        fields: &[
            FieldSpec {
                name: "expect_revokes",
                about: "How many granted privileges go, exactly; needed where more than a tenth of them goes.",
                required: false,
            },
            FieldSpec {
                name: "prune",
                about: "Whether what the declaration lists as retired is dropped; asks for `undo = \"one-way: why\"`.",
                required: false,
            },
            FieldSpec {
                name: "set_passwords",
                about: "Whether roles that have a password get the declared one; those without one always do.",
                required: false,
            },
        ],
        needs_target: true,
        changes: true,
        undo_words: &["auto"],
        check,
    },
    build,
    undo_by: None,
};

/// Makes the topology so.
///
/// Effect: transactional. Undo: `auto`, the inverse of what it did, which is kept in the target with the effect.
/// On a Redis target it is `redis/step/access.rs`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "topology")]
    _id: String,
    expect_revokes: Option<usize>,
    #[serde(default)]
    prune: bool,
    #[serde(default)]
    set_passwords: bool,
}

fn check(block: &Block) -> Result<(), Diagnostic> {
    let fields: Fields = fields(block)?;
    let one_way = block.undo.as_ref().is_some_and(|undo| matches!(undo.value, Undo::OneWay(_)));
    if fields.prune && !one_way {
        let message = "`prune` drops roles and schemas, and nothing brings them back".to_owned();
        return Err(Diagnostic::error("prune", block.span, message)
            .help("say so, and an approval is asked for: undo = \"one-way: why\""));
    }
    Ok(())
}

struct Roles {
    target: String,
    expect_revokes: Option<usize>,
    prune: bool,
    set_passwords: bool,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    if let Place::Redis(_) = workplace.place(&target)? {
        if fields.prune || fields.set_passwords || fields.expect_revokes.is_some() {
            let message =
                format!("step `{}`: `prune`, `set_passwords` and `expect_revokes` are for PostgreSQL", block.id);
            return Err(StepError::unusable("bad-value", message));
        }
        return redis::build_access(block, workplace);
    }
    workplace.postgres(&target)?;
    Ok(Box::new(Roles {
        target,
        expect_revokes: fields.expect_revokes,
        prune: fields.prune,
        set_passwords: fields.set_passwords,
        workplace: workplace.clone(),
    }))
}

/// A declaration's error, as the engine reports it.
pub(crate) fn declaration_error(error: DeclarationError) -> StepError {
    let text = match &error {
        DeclarationError::Malformed { path, text, span: Some(span), message } => {
            let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
            format!("{path}:{line}: {message}")
        }
        other => other.to_string(),
    };
    StepError::unusable("topology", text).source(error)
}

/// What a run keeps in the target to go back: made with the effect, in its transaction.
const KEPT: &str = "CREATE TABLE IF NOT EXISTS pgrunbook.topology_undo (
    run text NOT NULL, step text NOT NULL, attempt bigint NOT NULL, statements jsonb NOT NULL,
    PRIMARY KEY (run, step, attempt))";

impl Roles {
    async fn session(&self, name: &str) -> Result<Session, StepError> {
        Session::connect(self.workplace.postgres(&self.target)?, name).await.map_err(PgError::into_step_error)
    }

    fn topology(&self) -> Result<&Topology, StepError> {
        self.workplace.topology()
    }

    fn wish(&self, clock: &dyn pgrunbook_engine::Clock) -> Wish {
        Wish { today: today(clock), prune: self.prune, set_passwords: self.set_passwords }
    }

    fn evidence(applied: &Applied) -> Evidence {
        let count = applied.plan.statements.len();
        let summary = match (count, applied.plan.revokes()) {
            (0, _) => "nothing was to be changed".to_owned(),
            (_, 0) => format!("{count} statement(s)"),
            (_, revokes) => format!("{count} statement(s), which took away {revokes} granted privilege(s)"),
        };
        let statements: Vec<&str> = applied.plan.statements.iter().map(|one| one.sql.as_str()).collect();
        let undo: Vec<&str> = applied.undo.iter().map(|(_, sql)| sql.as_str()).collect();
        let facts = [
            ("statements", statements),
            ("undo", undo),
            ("waiting", applied.plan.waiting.iter().map(String::as_str).collect()),
            ("foreign", applied.plan.foreign.iter().map(String::as_str).collect()),
            ("cannot", applied.plan.cannot.iter().map(String::as_str).collect()),
        ];
        let told = facts.into_iter().filter(|(_, lines)| !lines.is_empty());
        told.fold(Evidence::of(summary), |evidence, (name, lines)| evidence.fact(name, lines))
    }
}

/// What people read of a plan, line by line.
pub(crate) fn details(plan: &Plan) -> Vec<String> {
    plan.statements
        .iter()
        .map(|one| format!("{}  -- {}", one.sql.lines().next().unwrap_or_default(), one.why))
        .collect()
}

impl Step for Roles {
    fn effect(&self) -> Effect {
        Effect::Transactional
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let session = self.session("pgrunbook:plan").await?;
            let plan = plan(&session, self.topology()?, &self.wish(cx.clock)).await?;
            let mut change =
                Change { files: self.topology()?.files.clone(), details: details(&plan), ..Change::default() };
            change.summary = match plan.statements.len() {
                0 => "nothing to change".to_owned(),
                count => format!("{count} statement(s), {} granted privilege(s) go", plan.revokes()),
            };
            change.locks = plan
                .statements
                .iter()
                .filter_map(|one| one.lock.clone())
                .map(|(relation, mode)| (relation, mode.to_owned()))
                .collect();
            change.warnings = plan.warnings.clone();
            change.warnings.extend(plan.cannot.iter().cloned());
            change.warnings.extend(plan.waiting.iter().map(|one| format!("{one}: declared, and not there yet")));
            change.warnings.extend(plan.foreign.iter().cloned());
            change.warnings.extend(
                plan.statements.iter().filter(|one| one.undo.is_none()).map(|one| format!("no way back: {}", one.sql)),
            );
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let session = self.session(&crate::sql::application_name(cx.run, cx.step)).await?;
            let entry = Entry::of(cx);
            let tell = |line: String| cx.say(line);
            let password = |reference: &Reference| self.workplace.role_password(reference);
            let keep = |applied: &Applied| {
                let statements = serde_json::to_string(&applied.undo).expect("texts are JSON");
                format!(
                "{KEPT}; INSERT INTO pgrunbook.topology_undo (run, step, attempt, statements) VALUES ({}, {}, {}, {});
                 {}",
                literal(cx.run),
                literal(cx.step.as_str()),
                cx.attempt,
                literal(&statements),
                entry.record_sql()
            )
            };
            let how = How {
                wish: self.wish(cx.clock),
                expect_revokes: self.expect_revokes,
                password: &password,
                assert: Some(entry.assert_sql()),
                record: Some(&keep),
                locks: LockPolicy::default(),
                clock: cx.clock,
                cancel: cx.cancel,
                tell: &tell,
            };
            Ok(Self::evidence(&apply(&session, self.topology()?, &how).await?))
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { recorded(&self.session("pgrunbook:resolve").await?, cx).await })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let session = self.session(&crate::sql::application_name(cx.run, cx.step)).await?;
            let kept = session
                .value(&format!(
                    "SELECT statements FROM pgrunbook.topology_undo WHERE run = {} AND step = {}
                 ORDER BY attempt DESC LIMIT 1",
                    literal(cx.run),
                    literal(cx.step.as_str())
                ))
                .await
                .map_err(PgError::into_step_error)?;
            let statements: Vec<(Option<String>, String)> = serde_json::from_str(&kept).map_err(|error| {
                StepError::failed("no-undo", format!("what this step did is not recorded in the target: {error}"))
            })?;
            let entry = Entry::of(cx);
            let tell = |line: String| cx.say(line);
            let password = |reference: &Reference| self.workplace.role_password(reference);
            let record = |_: &Applied| entry.record_sql();
            let how = How {
                wish: self.wish(cx.clock),
                expect_revokes: None,
                password: &password,
                assert: Some(entry.assert_sql()),
                record: Some(&record),
                locks: LockPolicy::default(),
                clock: cx.clock,
                cancel: cx.cancel,
                tell: &tell,
            };
            undo(&session, &statements, &how).await?;
            let shown: Vec<&str> = statements.iter().map(|(_, sql)| sql.as_str()).collect();
            Ok(Evidence::of(format!("{} statement(s) taken back", statements.len())).fact("statements", shown))
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { recorded(&self.session("pgrunbook:resolve").await?, cx).await })
    }
}

async fn recorded(session: &Session, cx: &RunCx<'_>) -> Result<Happened, StepError> {
    let recorded = Entry::of(cx).is_recorded(session).await.map_err(PgError::into_step_error)?;
    Ok(if recorded { Happened::Yes(Evidence::of("committed, as the ledger says")) } else { Happened::No })
}
