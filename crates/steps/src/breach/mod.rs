//! Tries a runbook's own gates: plants, one at a time, the violations that the declared topology makes possible, and says
//! which gate notices which. A gate that stays green whatever is planted is a check that cannot fail.
//!
//! Only ever on a throwaway server, after the runbook has run forward there.

mod plant;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pgrunbook_document::StepId;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::{Clock, Engine, EngineError, Plan, StepError};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use crate::topology::Topology;

pub use plant::{Breach, breaches};

/// Kinds of gate that look at a database.
const GATES: &[&str] = &["check", "probe", "audit", "isolation"];

/// What the gates said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many violations were planted.
    pub planted: usize,
    /// Gates with the violations that they noticed, in the order of the runbook.
    pub noticed: Vec<(StepId, Vec<String>)>,
    /// Gates about access that stayed green all the time: they cannot fail.
    pub green: Vec<StepId>,
    /// Gates that stayed green and speak of no role, schema or privilege that is declared.
    pub about_other_things: Vec<StepId>,
    /// Gates that do not hold at the end of the runbook anyway, and why: these could not be judged.
    pub not_judged: Vec<(StepId, String)>,
    /// Violations that no gate noticed.
    pub unnoticed: Vec<String>,
    /// Violations that could not be planted, and why.
    pub not_planted: Vec<(String, String)>,
}

/// Why the gates could not be tried.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum BreachError {
    Engine(#[from] EngineError),
    Step(#[from] StepError),
    Server(#[from] PgError),
}

/// Plants each violation, asks every gate, and takes it away again.
///
/// `superuser` reaches the throwaway database that the runbook has made.
///
/// # Errors
/// If the gates cannot be built, or a violation cannot be taken away again.
pub async fn break_in(
    engine: &Engine,
    run: &str,
    plan: &Plan,
    superuser: &ConnectOptions,
    topology: &Topology,
    tell: &(dyn Fn(String) + Send + Sync),
) -> Result<Report, BreachError> {
    let session = Session::connect(superuser, "pgrunbook:break").await?;
    let clock = FastClock::default();
    let mut report = Report::default();
    let before = engine.try_gates(run, plan, GATES, &clock, &Silent).await?;
    let mut judged: BTreeMap<StepId, Vec<String>> = BTreeMap::new();
    let mut order = Vec::new();
    for (gate, said) in before {
        match said {
            Ok(_) => {
                order.push(gate.clone());
                judged.insert(gate, Vec::new());
            }
            Err(error) => report.not_judged.push((gate, error.message)),
        }
    }
    for breach in breaches(&session, topology).await? {
        if let Err(error) = session.execute(&breach.plant).await {
            let _ = session.execute("ROLLBACK").await;
            report.not_planted.push((breach.name, error.to_string()));
            continue;
        }
        report.planted += 1;
        let answers = engine.try_gates(run, plan, GATES, &clock, &Silent).await;
        // First of all the world is made right again.
        session.execute(&breach.remove).await?;
        let mut seen = 0;
        for (gate, said) in answers? {
            if let (Some(noticed), Err(_)) = (judged.get_mut(&gate), said) {
                noticed.push(breach.name.clone());
                seen += 1;
            }
        }
        tell(format!("{}: noticed by {seen} gate(s)", breach.name));
        if seen == 0 {
            report.unnoticed.push(breach.name);
        }
    }
    for gate in order {
        let noticed = judged.remove(&gate).unwrap_or_default();
        if !noticed.is_empty() {
            report.noticed.push((gate, noticed));
        } else if is_about_access(plan, &gate, topology) {
            report.green.push(gate);
        } else {
            report.about_other_things.push(gate);
        }
    }
    Ok(report)
}

/// Whether a gate's text speaks of what a topology declares.
fn is_about_access(plan: &Plan, gate: &StepId, topology: &Topology) -> bool {
    let Some(step) = plan.steps().find(|step| step.id == *gate) else { return false };
    if matches!(step.kind.as_str(), "audit" | "isolation") {
        return true;
    }
    let text = step.text.to_lowercase();
    let words: BTreeSet<&str> =
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let catalogs = ["rolname", "grantee", "privilege_type", "rolconfig", "relrowsecurity", "rowsecurity", "tgname"];
    let privileges = words.iter().any(|word| word.starts_with("has_") && word.ends_with("_privilege"));
    privileges
        || catalogs.iter().any(|word| words.contains(word))
        || topology.roles.keys().any(|role| words.contains(role.to_lowercase().as_str()))
        || step.text.contains("as: ")
        || topology.schemas.keys().any(|schema| text.contains(&format!("{schema}.")))
}

/// A gate that waits for something to become true need not wait here: its time passes at once.
#[derive(Default)]
struct FastClock(Mutex<Duration>);

#[async_trait]
impl Clock for FastClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn instant(&self) -> Instant {
        let passed = self.0.lock().map(|passed| *passed).unwrap_or_default();
        Instant::now() + passed
    }

    async fn sleep(&self, duration: Duration) {
        if let Ok(mut passed) = self.0.lock() {
            *passed += duration;
        }
    }
}

struct Silent;

impl Watcher for Silent {
    fn progress(&self, _step: &StepId, _progress: Progress) {}
}
