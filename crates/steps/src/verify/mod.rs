//! The three oracles side by side: what is declared, what the catalogs say, and what can be done; and where they disagree.
//!
//! No one of them sees everything. A probe cannot know what a write, a second session or a later moment would show; the
//! catalogs do not say what a statement meets; and the declaration is what people believe. A disagreement is a finding of
//! its own: one of the two is blind there.

mod ephemeral;
mod fill;

use pgrunbook_document::Severity;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use crate::audit::{self, Audit};
use crate::isolation::{self, Action, Matrix, Verdict};
use crate::topology::{self, Plan, Topology, Wish};

pub use ephemeral::{Ephemeral, EphemeralError, ephemeral};
pub use fill::{Filled, fill};

/// What the three say.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Declared schemas that do not exist.
    pub missing_schemas: Vec<String>,
    /// What would have to change: nothing, if all is as declared.
    pub plan: Plan,
    pub audit: Audit,
    pub matrix: Matrix,
    pub disagreements: Vec<Disagreement>,
}

/// A place where one oracle says what another denies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    pub role: String,
    pub object: String,
    /// One sentence.
    pub what: String,
}

impl Verification {
    /// Whether everything is as declared, as far as anybody can tell: findings of the audit below `level` are allowed.
    pub fn holds(&self, level: Severity) -> bool {
        self.missing_schemas.is_empty()
            && self.plan.is_empty()
            && self.plan.waiting.is_empty()
            && self.audit.at_least(level).next().is_none()
            && self.matrix.is_proved()
            && self.disagreements.is_empty()
    }
}

/// Asks all three. `options` is the privileged connection.
///
/// # Errors
/// If the server cannot be asked.
pub async fn verify(
    options: &ConnectOptions,
    topology: &Topology,
    how: &isolation::How<'_>,
) -> Result<Verification, StepError> {
    let session = Session::connect(options, how.application_name).await.map_err(PgError::into_step_error)?;
    let topology = &*topology::completed(&session, topology).await?;
    let wish = Wish { today: how.today, prune: false, set_passwords: false };
    let plan = topology::plan(&session, topology, &wish).await?;
    let missing_schemas = missing(&session, topology).await.map_err(PgError::into_step_error)?;
    let audit = audit::audit(&session, topology, how.today).await.map_err(PgError::into_step_error)?;
    drop(session);
    let matrix = isolation::prove(options, topology, how).await?;
    let disagreements = disagreements(&audit, &matrix);
    Ok(Verification { missing_schemas, plan, audit, matrix, disagreements })
}

async fn missing(session: &Session, topology: &Topology) -> Result<Vec<String>, PgError> {
    let answers = session.simple("SELECT nspname FROM pg_catalog.pg_namespace").await?;
    let there: Vec<&str> = answers.iter().flat_map(|one| &one.rows).filter_map(|row| row.first()?.as_deref()).collect();
    Ok(topology.schemas.keys().filter(|name| !there.contains(&name.as_str())).cloned().collect())
}

/// Leaks that the audit has no finding for, and grants it calls a crossing where the very statement was denied.
fn disagreements(audit: &Audit, matrix: &Matrix) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for leak in matrix.of(Verdict::Leaked) {
        let object = bare(&leak.tried.object);
        let known = audit.findings.iter().any(|one| speaks_of(&one.role, leak.role) && touches(one, object));
        if !known {
            found.push(Disagreement {
                role: leak.role.to_owned(),
                object: object.to_owned(),
                what: format!("{} could {} {object}, and the audit does not see by which way", leak.role, leak.what),
            });
        }
    }
    for one in audit.findings.iter().filter(|one| one.rule == "table-grant" && one.severity == Severity::Error) {
        let (object, words) = (bare(&one.object), one.path.to_uppercase());
        for action in [Action::Select, Action::Insert, Action::Update, Action::Delete] {
            if !words.contains(&format!("-> {} ON", action.word().to_uppercase())) {
                continue;
            }
            let denied = object.split_once('.').and_then(|(schema, _)| matrix.cell(&one.role, schema, action));
            let denied = denied.into_iter().flat_map(|cell| &cell.tries);
            for tried in denied.filter(|tried| tried.object == object && tried.verdict == Verdict::Denied) {
                found.push(Disagreement {
                    role: one.role.clone(),
                    object: object.to_owned(),
                    what: format!(
                        "the audit says that {} may {}: it was denied: {}",
                        one.path,
                        action.word(),
                        tried.answer
                    ),
                });
            }
        }
    }
    found
}

fn speaks_of(role: &str, tried: &str) -> bool {
    role == tried || role == "PUBLIC"
}

/// Whether a finding is about an object, or about what reaches all objects.
fn touches(one: &audit::Finding, object: &str) -> bool {
    let wide = [
        "membership",
        "predefined-role",
        "role-attribute",
        "ownership",
        "schema-grant",
        "database-grant",
        "other-database",
        "search-path",
        "role-setting",
        "default-privilege",
    ];
    bare(&one.object) == object
        || one.path.contains(object)
        || one.message.contains(object)
        || wide.contains(&one.rule)
        || object.split_once('.').is_some_and(|(schema, _)| bare(&one.object) == schema)
}

/// The object's name, without a column or a word before it.
fn bare(object: &str) -> &str {
    let name = object.rsplit(' ').next().unwrap_or(object);
    let end = name.find('(').unwrap_or(name.len());
    name[..end].trim_matches('`')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audit::Finding;
    use crate::isolation::{Answer, Cell, Coverage, Examined, Method, Try};
    use crate::topology::RoleKind;

    fn matrix(verdict: Verdict) -> Matrix {
        let tried = Try {
            object: "general.notes".to_owned(),
            statement: "EXPLAIN SELECT * FROM general.notes".to_owned(),
            answer: Answer { sqlstate: Some("42501".to_owned()), message: "permission denied".to_owned() },
            verdict,
            control: None,
            why: None,
            took: Duration::ZERO,
        };
        Matrix {
            database: "x".to_owned(),
            roles: vec![Examined { name: "health_app".to_owned(), kind: RoleKind::Runtime, method: Method::Login }],
            schemas: vec!["general".to_owned()],
            cells: vec![Cell { role: 0, schema: 0, action: Action::Select, verdict, tries: vec![tried], more: 0 }],
            checks: Vec::new(),
            coverage: Coverage::default(),
        }
    }

    fn audit(rule: &'static str, role: &str, object: &str) -> Audit {
        let finding = Finding {
            rule,
            severity: Severity::Error,
            role: role.to_owned(),
            object: object.to_owned(),
            path: format!("`{role}` -> SELECT on `{object}`"),
            message: "m".to_owned(),
            mend: None,
        };
        Audit { findings: vec![finding], ..Audit::default() }
    }

    #[test]
    fn a_leak_that_the_audit_does_not_see_is_a_finding() {
        let found = disagreements(&Audit::default(), &matrix(Verdict::Leaked));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "health_app could SELECT general.notes, and the audit does not see by which way");
        for seen in [
            audit("table-grant", "health_app", "general.notes"),
            audit("table-grant", "PUBLIC", "general.notes"),
            audit("predefined-role", "health_app", "pg_read_all_data"),
        ] {
            assert_eq!(disagreements(&seen, &matrix(Verdict::Leaked)), []);
        }
        let of_another = audit("table-grant", "general_app", "general.notes");
        assert_eq!(disagreements(&of_another, &matrix(Verdict::Leaked)).len(), 1);
    }

    #[test]
    fn a_crossing_that_is_denied_is_a_finding() {
        let read = audit("table-grant", "health_app", "general.notes");
        let found = disagreements(&read, &matrix(Verdict::Denied));
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("may SELECT: it was denied: 42501 permission denied"), "{}", found[0].what);
        assert_eq!(disagreements(&read, &matrix(Verdict::Leaked)), []);
        assert_eq!(disagreements(&audit("table-grant", "health_app", "general.tasks"), &matrix(Verdict::Denied)), []);
    }
}
