//! Through a pooler in transaction mode: what one client sets for its transaction holds in it, and the next client on the
//! same server connection finds nothing of it, neither in the setting nor in a prepared statement.

use std::time::{Duration, Instant};

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{Answer as Rows, ConnectOptions, PgError, Session};

use super::matrix::{About, Answer, Check, Try, Verdict};
use super::objects::{ident, literal};
use super::prove::How;
use super::sample::{self, name_of};
use super::send::answer_of;
use crate::topology::{Role, RowSecurity, Table, Topology, WithoutContext};

/// How often two clients are tried to be led to one server connection: a pooler takes the one that was given back last,
/// unless other clients are faster.
const LOOKS: usize = 20;

/// Tries every declared pooler as one role of its row security whose password is known.
pub async fn prove(
    session: &Session,
    topology: &Topology,
    how: &How<'_>,
    roles: &[&Role],
) -> Result<Vec<Check>, StepError> {
    let mut checks = Vec::new();
    for row_security in &topology.row_security {
        let Some(target) = &row_security.pooler else { continue };
        let those: Vec<&Role> = roles.iter().copied().filter(|role| row_security.roles.contains(&role.name)).collect();
        let Some(first) = those.first().map(|role| role.name.clone()) else { continue };
        let found = those.iter().find_map(|role| Some((*role, (how.password)(role.password.as_ref()?)?)));
        let Some((role, password)) = found else {
            checks.push(not_tried(&first, target, "no role's password is known here: it needs a login"));
            continue;
        };
        let Some(options) = (how.pooler)(target) else {
            checks.push(not_tried(&role.name, target, "the project has no such PostgreSQL target"));
            continue;
        };
        let options = ConnectOptions { user: role.name.clone(), password: Some(password), options: None, ..options };
        let Some(table) = row_security.tables.first() else {
            checks.push(not_tried(&role.name, target, "the row security has no table"));
            continue;
        };
        let (name, column) = (name_of(table)?, ident(&row_security.column)?);
        let tenant =
            session.value(&format!("SELECT {column}::text FROM {name} WHERE {column} IS NOT NULL LIMIT 1")).await;
        let tenant = tenant.ok().filter(|tenant| !tenant.is_empty());
        let one = One { row_security, table, role, target, tenant };
        match one.prove(&options, how).await {
            Ok(found) => checks.extend(found),
            Err(error) => checks.push(not_tried(&role.name, target, &error.to_string())),
        }
    }
    Ok(checks)
}

fn not_tried(role: &str, target: &str, why: &str) -> Check {
    let tried = Try {
        object: target.to_owned(),
        statement: String::new(),
        answer: Answer::none("not tried"),
        verdict: Verdict::Inconclusive,
        control: None,
        why: Some(why.to_owned()),
        took: Duration::ZERO,
    };
    Check { role: role.to_owned(), about: About::Pooler, what: format!("pooler {target}"), tried }
}

struct One<'a> {
    row_security: &'a RowSecurity,
    table: &'a Table,
    role: &'a Role,
    target: &'a str,
    /// A tenant that has rows: without one, that none are seen says nothing.
    tenant: Option<String>,
}

/// The first value of one of several results.
fn value(answers: &[Rows], at: usize) -> &str {
    let row = answers.get(at).and_then(|answer| answer.rows.first());
    row.and_then(|row| row.first()).and_then(|value| value.as_deref()).unwrap_or_default()
}

impl One<'_> {
    async fn prove(&self, options: &ConnectOptions, how: &How<'_>) -> Result<Vec<Check>, PgError> {
        let wrong = |error: StepError| PgError::Options(error.message);
        let one = Session::connect(options, how.application_name).await?;
        let two = Session::connect(options, how.application_name).await?;
        let setting = literal(&self.row_security.setting).map_err(wrong)?;
        let context = self.tenant.clone().unwrap_or_else(|| sample::context(&self.row_security.type_name));
        let guarded = format!("SELECT EXISTS (SELECT FROM {})", name_of(self.table).map_err(wrong)?);
        let set = format!("SELECT pg_catalog.set_config({setting}, {}, true)", literal(&context).map_err(wrong)?);
        let read = format!("SELECT coalesce(pg_catalog.current_setting({setting}, true), '')");
        let mut checks = Vec::new();

        // Each text is one transaction, so that one server connection serves all of it.
        let sql = format!("BEGIN; SELECT pg_catalog.pg_backend_pid(); {set}; {read}; {guarded}; COMMIT");
        let begun = Instant::now();
        let answers = one.simple(&sql).await;
        let (found, pid) = match &answers {
            Ok(answers) => (value(answers, 3).to_owned(), value(answers, 1).to_owned()),
            Err(_) => (String::new(), String::new()),
        };
        let (verdict, why) = match &answers {
            Ok(_) if found == context => (Verdict::Works, None),
            Ok(_) => (Verdict::Broken, Some(format!("it is `{found}` within the transaction"))),
            Err(_) => (Verdict::Broken, Some("a transaction with a context does not work".to_owned())),
        };
        let failed = answers.is_err();
        let tried = self.tried(&sql, answer_of(answers.map(drop), "it holds"), verdict, why, begun);
        checks.push(self.check("a context holds in its transaction", tried));
        if failed {
            let _ = one.execute("ROLLBACK").await;
            return Ok(checks);
        }

        let (mut pid, mut met) = (pid, false);
        for _ in 0..LOOKS {
            met = two.value("SELECT pg_catalog.pg_backend_pid()").await? == pid;
            if met {
                break;
            }
            let answers = one.simple(&format!("BEGIN; SELECT pg_catalog.pg_backend_pid(); {set}; COMMIT")).await?;
            pid = value(&answers, 1).to_owned();
        }
        if !met {
            let why = "the two clients were never led to one server connection: is it in transaction mode?";
            checks.push(not_tried(&self.role.name, self.target, why));
            return Ok(checks);
        }
        checks.push(self.next_client(&two, &pid, &read, &guarded).await?);

        // A prepared statement lives as long as the server connection: whoever comes next may run it.
        let prepare = format!(
            "BEGIN; SELECT pg_catalog.pg_backend_pid(); {set}; PREPARE pgrunbook_probe AS {guarded}; \
             EXECUTE pgrunbook_probe; COMMIT"
        );
        let answers = one.simple(&prepare).await?;
        let pid = value(&answers, 1).to_owned();
        checks.push(self.next_client(&two, &pid, &read, "EXECUTE pgrunbook_probe").await?);
        for session in [&one, &two] {
            // On whichever connection it is; a failure says that it is not there.
            let _ = session.execute("DEALLOCATE pgrunbook_probe").await;
        }
        Ok(checks)
    }

    /// What the next client finds on the server connection `pid`.
    async fn next_client(&self, two: &Session, pid: &str, read: &str, guarded: &str) -> Result<Check, PgError> {
        let what = if guarded.starts_with("EXECUTE") {
            "the next client finds no context in a prepared statement"
        } else {
            "the next client finds no context"
        };
        let begun = Instant::now();
        let sql = format!("BEGIN; SELECT pg_catalog.pg_backend_pid(); {read}");
        let answers = two.simple(&sql).await?;
        let (theirs, left) = (value(&answers, 1).to_owned(), value(&answers, 2).to_owned());
        let result = two.simple(guarded).await;
        two.execute("ROLLBACK").await?;
        let seen = result.as_ref().ok().map(|answers| value(answers, 0).to_owned());
        let answer = answer_of(result.map(drop), if seen.as_deref() == Some("t") { "rows" } else { "no rows" });
        let (verdict, why) = match (answer.sqlstate.as_deref(), self.row_security.without) {
            _ if theirs != pid => (Verdict::Inconclusive, Some("another server connection".to_owned())),
            _ if !left.is_empty() => (Verdict::Leaked, Some(format!("the setting is still `{left}`"))),
            (Some("P0001"), WithoutContext::Error) => (Verdict::Denied, None),
            (None, WithoutContext::Hidden) if seen.as_deref() == Some("f") => match &self.tenant {
                Some(_) => (Verdict::Denied, None),
                None => (Verdict::Inconclusive, Some("there is no row that could be seen".to_owned())),
            },
            (None, _) => (Verdict::Leaked, Some("it was answered without a context".to_owned())),
            (Some(_), _) => (Verdict::Inconclusive, Some("another error than the guard's P0001".to_owned())),
        };
        let mut tried = self.tried(&format!("{sql}; {guarded}; ROLLBACK"), answer, verdict, why, begun);
        tried.control = Some(format!("both clients on backend {pid}"));
        Ok(self.check(what, tried))
    }

    fn check(&self, what: &str, tried: Try) -> Check {
        let what = format!("{what} ({})", self.target);
        Check { role: self.role.name.clone(), about: About::Pooler, what, tried }
    }

    fn tried(&self, sql: &str, answer: Answer, verdict: Verdict, why: Option<String>, begun: Instant) -> Try {
        Try {
            object: self.target.to_owned(),
            statement: sql.to_owned(),
            answer,
            verdict,
            control: None,
            why,
            took: begun.elapsed(),
        }
    }
}
