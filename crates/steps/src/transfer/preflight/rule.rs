//! A question to the catalogues of one side that writes its findings itself.

use pgrunbook_postgres::Session;

use super::{Finding, Severity, TransferError, Wanted};

/// One thing that is looked for on one side.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub code: &'static str,
    pub severity: Severity,
    /// The first major version that has what the query names.
    pub since: u32,
    /// Takes the schema of that side as `$1`. A row is a finding, of four texts: the table that it hangs on (null where it
    /// hangs on none), the object, what, and the remedy.
    pub sql: &'static str,
}

impl Rule {
    pub(super) const fn new(code: &'static str, severity: Severity, sql: &'static str) -> Self {
        Self { code, severity, since: 14, sql }
    }
}

/// Asks all of them. What a privilege keeps from us is a finding of its own: a rule that saw nothing proves nothing.
pub(super) async fn run(
    session: &Session,
    major: u32,
    rules: &[Rule],
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    for rule in rules.iter().filter(|rule| rule.since <= major) {
        let limit = wanted.long_transaction.as_secs_f64();
        let schema = &wanted.source_schema;
        let rows = match rule.sql.contains("$2") {
            true => session.client().query(rule.sql, &[schema, &limit]).await,
            false => session.client().query(rule.sql, &[schema]).await,
        };
        let rows = match rows.map_err(|error| session.error(&error)) {
            Ok(rows) => rows,
            Err(error) if error.sqlstate() == Some("42501") => {
                findings.push(not_examined(rule.code, &error));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for row in rows {
            let text = |at: usize| row.try_get::<_, Option<String>>(at).ok().flatten();
            if text(0).is_some_and(|table| !wanted.takes(&table)) {
                continue;
            }
            let one = Finding::new(rule.severity, rule.code, text(1).unwrap_or_default(), text(2).unwrap_or_default());
            findings.push(one.remedy(text(3).unwrap_or_default()));
        }
    }
    Ok(())
}

pub(super) fn not_examined(code: &str, error: &pgrunbook_postgres::PgError) -> Finding {
    Finding::new(
        Severity::Warn,
        "not-examined",
        format!("rule {code}"),
        format!("This could not be looked at: {error}."),
    )
    .remedy("connect as a role that may read it, or look yourself")
}
