//! Append-only tables, tried for real: `EXPLAIN` fires no trigger, so each statement runs in a transaction that is rolled
//! back, on a row that is there. As the privileged session, whom no privilege stops, and as every role that is declared to
//! write there.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::Session;

use super::matrix::{About, Answer, Check, Method, Try, Verdict};
use super::objects::{ident, literal};
use super::prove::How;
use super::sample::{self, Column, name_of};
use super::trial::{Came, Trial};
use crate::topology::{AppendOnly, Kind, Object, Privilege, Role, Status, Table, Topology};

/// Tries every append-only table.
pub async fn prove(
    session: &Session,
    topology: &Topology,
    how: &How<'_>,
    roles: &[&Role],
) -> Result<Vec<Check>, StepError> {
    let mut checks = Vec::new();
    for one in &topology.append_only {
        let table = &one.table;
        let columns = sample::columns(session, table).await?;
        if columns.is_empty() {
            checks.push(inconclusive(&session.options().user, table, "there is no such table".to_owned()));
            continue;
        }
        let object = Object { schema: table.schema.clone(), name: table.name.clone(), kind: Kind::Table };
        let writing = [Privilege::Update, Privilege::Delete, Privilege::Truncate];
        let writes =
            |role: &Role| writing.iter().any(|one| topology.allows(&role.name, &object, None, *one, how.today));
        let mut actors = vec![None];
        actors.extend(roles.iter().copied().filter(|role| writes(role)).map(Some));
        for actor in actors {
            let path = match actor {
                Some(role) if !role.search_path.is_empty() => role.search_path.clone(),
                _ => vec![table.schema.clone()],
            };
            let trial = Trial::begin(session, how.statement_timeout, &path).await?;
            let found = One { one, columns: &columns, actor, user: &session.options().user }.tried(&trial).await;
            trial.end().await?;
            checks.extend(found?);
        }
    }
    Ok(checks)
}

fn inconclusive(role: &str, table: &Table, why: String) -> Check {
    let tried = Try {
        object: table.to_string(),
        statement: String::new(),
        answer: Answer::none("not tried"),
        verdict: Verdict::Inconclusive,
        control: None,
        why: Some(why),
        took: std::time::Duration::ZERO,
    };
    Check { role: role.to_owned(), about: About::AppendOnly, what: format!("rows stay ({table})"), tried }
}

struct One<'a> {
    one: &'a AppendOnly,
    columns: &'a [Column],
    /// `None`: the privileged session.
    actor: Option<&'a Role>,
    user: &'a str,
}

impl One<'_> {
    fn name(&self) -> &str {
        self.actor.map_or(self.user, |role| &role.name)
    }

    fn check(&self, what: &str, tried: Try) -> Check {
        let what = format!("{what} ({})", self.one.table);
        Check { role: self.name().to_owned(), about: About::AppendOnly, what, tried }
    }

    async fn tried(&self, trial: &Trial<'_>) -> Result<Vec<Check>, StepError> {
        let table = &self.one.table;
        let name = name_of(table)?;
        let mut source = "on a row that was there";
        if trial.keep(&format!("SELECT FROM {name} LIMIT 1")).await.affected() == 0 {
            let sql = match sample::insert(table, self.columns, &[]) {
                Ok(sql) => sql,
                Err(why) => return Ok(vec![inconclusive(self.name(), table, format!("it is empty: {why}"))]),
            };
            let came = trial.plant(&sql).await;
            if came.sqlstate().is_some() {
                let why = format!("it is empty, and no row can be made: {}", came.answer);
                return Ok(vec![inconclusive(self.name(), table, why)]);
            }
            source = "on a row that was inserted for it";
        }
        // Found by whoever sees every row, so that a hidden one is not taken for one that stays.
        let found = trial.keep(&format!("SELECT ctid::text, tableoid::text FROM {name} LIMIT 1")).await;
        let (Some(ctid), Some(tableoid)) = (found.value(0), found.value(1)) else {
            return Ok(vec![inconclusive(self.name(), table, format!("no row is found: {}", found.answer))]);
        };
        let row = format!("ctid = {}::tid AND tableoid = {tableoid}::oid", literal(ctid)?);
        let mut method = None;
        if let Some(role) = self.actor {
            let by = trial.go_on_as(role).await?;
            if let Method::Not(why) = &by {
                return Ok(vec![inconclusive(self.name(), table, why.clone())]);
            }
            method = Some(by);
        }
        let mut checks = Vec::new();
        let status = self.one.status.as_ref();
        match sample::changeable(self.columns, status.map(|status| status.column.as_str())) {
            Some(column) => {
                let value = sample::value(column).unwrap_or_else(|| "DEFAULT".to_owned());
                let sql = format!("UPDATE {name} SET {} = {value} WHERE {row}", ident(&column.name)?);
                checks.push(self.rejected("UPDATE is rejected", trial.take_back(&sql).await));
            }
            None => checks.push(inconclusive(self.name(), table, "no column can be given another value".to_owned())),
        }
        let came = trial.take_back(&format!("DELETE FROM {name} WHERE {row}")).await;
        checks.push(self.rejected("DELETE is rejected", came));
        let came = trial.take_back(&format!("TRUNCATE {name}")).await;
        checks.push(self.rejected("TRUNCATE is rejected", came));
        // Only once, as whom nothing but the trigger stops.
        if let (Some(status), None) = (status, self.actor) {
            checks.extend(self.moves(trial, status).await?);
        }
        for check in &mut checks {
            let tried = &mut check.tried;
            if method.as_ref().is_some_and(|method| !method.proves()) && tried.verdict.fits() {
                tried.verdict = Verdict::Inconclusive;
                tried.why = Some("seen by SET ROLE only".to_owned());
            }
            let by = method.as_ref().map_or("as the privileged session", Method::word);
            tried.control = Some(format!("{source}, in a transaction that was rolled back, {by}"));
        }
        Ok(checks)
    }

    fn rejected(&self, what: &str, came: Came) -> Check {
        let truncate = came.statement.starts_with("TRUNCATE");
        let (verdict, why) = match came.sqlstate() {
            None if truncate || came.affected() > 0 => (Verdict::Leaked, None),
            None => (Verdict::Inconclusive, Some("it changed no row, and was not rejected")),
            // A privilege, or what triggers raise: restrict_violation, check_violation,
            // object_not_in_prerequisite_state, and class P0, PL/pgSQL's own. A foreign key's 23503 is none of them.
            Some(code) if matches!(code, "42501" | "23001" | "23514" | "55000") || code.starts_with("P0") => {
                (Verdict::Denied, None)
            }
            Some("0A000") if truncate => (
                Verdict::Inconclusive,
                Some("a foreign key stands in the way: whether the table rejects it is not seen"),
            ),
            Some(_) => (Verdict::Inconclusive, Some("an error that is no rejection")),
        };
        self.check(what, came.judged(&self.one.table.to_string(), verdict, None, why))
    }

    /// The one column whose value may move: along its way and not back.
    async fn moves(&self, trial: &Trial<'_>, status: &Status) -> Result<Vec<Check>, StepError> {
        let table = &self.one.table;
        let (name, column) = (name_of(table)?, ident(&status.column)?);
        let from = literal(&status.from)?;
        let Some(to) = status.to.first() else { return Ok(Vec::new()) };
        let to = literal(to)?;
        let at = format!("SELECT ctid::text, tableoid::text FROM {name} WHERE {column} = {from} LIMIT 1");
        let mut found = trial.keep(&at).await;
        if found.value(0).is_none() {
            if let Ok(sql) = sample::insert(table, self.columns, &[(&status.column, from.clone())]) {
                trial.plant(&sql).await;
            }
            found = trial.keep(&at).await;
        }
        let (Some(ctid), Some(tableoid)) = (found.value(0), found.value(1)) else {
            let why = format!("there is no row whose {column} is {from}, and none can be made");
            return Ok(vec![inconclusive(self.name(), table, why)]);
        };
        let row = format!("ctid = {}::tid AND tableoid = {tableoid}::oid", literal(ctid)?);
        let sql = format!("UPDATE {name} SET {column} = {to} WHERE {row} RETURNING ctid::text, tableoid::text");
        let moved = trial.keep(&sql).await;
        let place = moved.value(0).zip(moved.value(1)).map(|(ctid, oid)| (ctid.to_owned(), oid.to_owned()));
        let (verdict, why) = match (&place, moved.sqlstate()) {
            (Some(_), _) => (Verdict::Works, None),
            (None, Some(_)) => (Verdict::Broken, Some("the declared way is closed")),
            (None, None) => (Verdict::Inconclusive, Some("it changed no row")),
        };
        let forward = self.check("the declared way is open", moved.judged(&table.to_string(), verdict, None, why));
        let mut checks = vec![forward];
        if let Some((ctid, oid)) = place {
            let row = format!("ctid = {}::tid AND tableoid = {oid}::oid", literal(&ctid)?);
            let came = trial.take_back(&format!("UPDATE {name} SET {column} = {from} WHERE {row}")).await;
            checks.push(self.rejected("the way back is rejected", came));
        }
        Ok(checks)
    }
}
