//! Row security, tried with rows of two tenants present: each sees its own, forges nothing, and sees nothing without a
//! context.
//!
//! Two sessions do not see each other's uncommitted rows: so it all happens in one transaction of the privileged session,
//! which becomes the role by `SET LOCAL SESSION AUTHORIZATION` and is rolled back. The session is a new one each time, since
//! a setting that was set once is never unset again.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::judge::DENIED;
use super::matrix::{About, Answer, Check, Method, Try, Verdict};
use super::objects::{ident, literal};
use super::prove::How;
use super::sample::{self, Column, name_of, typed};
use super::trial::{Came, Trial};
use crate::topology::{Kind, Object, Privilege, Role, RowSecurity, Table, Topology, WithoutContext};

/// `raise_exception`: what a guard raises.
const RAISED: &str = "P0001";

/// Tries every table with row security as every role it is for.
pub async fn prove(
    session: &Session,
    options: &ConnectOptions,
    topology: &Topology,
    how: &How<'_>,
    roles: &[&Role],
) -> Result<Vec<Check>, StepError> {
    let mut checks = Vec::new();
    for row_security in &topology.row_security {
        for table in &row_security.tables {
            let columns = sample::columns(session, table).await?;
            for role in roles {
                if !row_security.roles.contains(&role.name) {
                    continue;
                }
                let one = One { row_security, table, columns: &columns, role, topology, how };
                checks.extend(one.prove(options).await?);
            }
        }
    }
    Ok(checks)
}

struct One<'a> {
    row_security: &'a RowSecurity,
    table: &'a Table,
    columns: &'a [Column],
    role: &'a Role,
    topology: &'a Topology,
    how: &'a How<'a>,
}

/// Two tenants that have rows.
struct Tenants {
    a: String,
    b: String,
    /// The rows were made here, and are one of each; else they were there.
    made: bool,
}

impl One<'_> {
    fn check(&self, what: &str, tried: Try) -> Check {
        let what = format!("{what} ({})", self.table);
        Check { role: self.role.name.clone(), about: About::RowSecurity, what, tried }
    }

    fn inconclusive(&self, what: &str, why: String) -> Check {
        let tried = Try {
            object: self.table.to_string(),
            statement: String::new(),
            answer: Answer::none("not tried"),
            verdict: Verdict::Inconclusive,
            control: None,
            why: Some(why),
            took: std::time::Duration::ZERO,
        };
        self.check(what, tried)
    }

    fn may(&self, privilege: Privilege) -> bool {
        let object = Object { schema: self.table.schema.clone(), name: self.table.name.clone(), kind: Kind::Table };
        let column = Some(self.row_security.column.as_str());
        self.topology.allows(&self.role.name, &object, column, privilege, self.how.today)
    }

    async fn prove(&self, options: &ConnectOptions) -> Result<Vec<Check>, StepError> {
        if self.columns.is_empty() {
            return Ok(vec![self.inconclusive("row security", "there is no such table".to_owned())]);
        }
        let session = Session::connect(options, self.how.application_name).await.map_err(PgError::into_step_error)?;
        let trial = Trial::begin(&session, self.how.statement_timeout, &self.role.search_path).await?;
        let checks = self.tried(&trial).await;
        trial.end().await?;
        checks
    }

    async fn tried(&self, trial: &Trial<'_>) -> Result<Vec<Check>, StepError> {
        let tenants = match self.tenants(trial).await? {
            Ok(tenants) => tenants,
            Err(why) => return Ok(vec![self.inconclusive("row security", why)]),
        };
        let method = trial.go_on_as(self.role).await?;
        if let Method::Not(why) = &method {
            return Ok(vec![self.inconclusive("row security", why.clone())]);
        }
        let mut checks = Vec::new();
        if self.may(Privilege::Select) {
            checks.push(self.without(trial, "no context was ever set").await?);
            self.context(trial, "").await?;
            checks.push(self.without(trial, "the context is empty").await?);
            for (own, other) in [(&tenants.a, &tenants.b), (&tenants.b, &tenants.a)] {
                self.context(trial, own).await?;
                checks.push(self.reads(trial, own, other).await?);
            }
        }
        self.context(trial, &tenants.a).await?;
        if self.may(Privilege::Insert) {
            checks.push(self.forged_insert(trial, &tenants).await?);
        }
        let append_only = self.topology.append_only.iter().any(|one| one.table == *self.table);
        if self.may(Privilege::Update) && !append_only {
            checks.push(self.forged_update(trial, &tenants).await?);
            checks.push(self.reaches(trial, Privilege::Update, &tenants).await?);
        }
        if self.may(Privilege::Delete) && !append_only {
            checks.push(self.reaches(trial, Privilege::Delete, &tenants).await?);
        }
        if checks.is_empty() {
            checks.push(self.inconclusive("row security", "the role is declared to do nothing here".to_owned()));
        }
        let source = if tenants.made {
            "with one row of each of two random tenants, inserted for it"
        } else {
            "with rows of two tenants that were there"
        };
        for check in &mut checks {
            self.say_how(check, &method, source);
        }
        Ok(checks)
    }

    /// How it was seen is part of the evidence; what `SET ROLE` shows proves nothing.
    fn say_how(&self, check: &mut Check, method: &Method, source: &str) {
        let tried = &mut check.tried;
        if !method.proves() && tried.verdict.fits() {
            tried.verdict = Verdict::Inconclusive;
            tried.why = Some("seen by SET ROLE only".to_owned());
        }
        let how = format!("{source}, in one transaction that was rolled back, by {}", method.word());
        tried.control = Some(match tried.control.take() {
            Some(control) => format!("{control}; {how}"),
            None => how,
        });
    }

    /// Two tenants that have rows: two that are made, with one row each; where that cannot be, two that are there.
    async fn tenants(&self, trial: &Trial<'_>) -> Result<Result<Tenants, String>, StepError> {
        let why = match self.made(trial).await? {
            Ok(tenants) => return Ok(Ok(tenants)),
            Err(why) => why,
        };
        let (name, column) = (name_of(self.table)?, ident(&self.row_security.column)?);
        let type_name = &self.row_security.type_name;
        let first = trial.keep(&format!("SELECT {column}::text FROM {name} WHERE {column} IS NOT NULL LIMIT 1")).await;
        if let Some(a) = first.value(0) {
            let sql = format!("SELECT {column}::text FROM {name} WHERE {column} <> {} LIMIT 1", typed(a, type_name)?);
            if let Some(b) = trial.keep(&sql).await.value(0) {
                return Ok(Ok(Tenants { a: a.to_owned(), b: b.to_owned(), made: false }));
            }
        }
        Ok(Err(format!("no rows of two tenants can be made, and there are none: {why}")))
    }

    /// One row of each of two random tenants; or why there can be none.
    async fn made(&self, trial: &Trial<'_>) -> Result<Result<Tenants, String>, StepError> {
        let tenant = sample::tenant(&self.row_security.type_name);
        let made = trial.keep(&format!("SELECT {tenant}, {tenant}")).await;
        let (Some(a), Some(b)) = (made.value(0), made.value(1)) else { return Ok(Err(made.answer.to_string())) };
        for tenant in [a, b] {
            let sql = match self.row_of(tenant)? {
                Ok(sql) => sql,
                Err(why) => return Ok(Err(why)),
            };
            let came = trial.plant(&sql).await;
            if came.sqlstate().is_some() {
                return Ok(Err(came.answer.to_string()));
            }
        }
        Ok(Ok(Tenants { a: a.to_owned(), b: b.to_owned(), made: true }))
    }

    fn row_of(&self, tenant: &str) -> Result<Result<String, String>, StepError> {
        let value = typed(tenant, &self.row_security.type_name)?;
        Ok(sample::insert(self.table, self.columns, &[(&self.row_security.column, value)]))
    }

    async fn context(&self, trial: &Trial<'_>, tenant: &str) -> Result<(), StepError> {
        let setting = literal(&self.row_security.setting)?;
        trial.keep(&format!("SELECT pg_catalog.set_config({setting}, {}, true)", literal(tenant)?)).await;
        Ok(())
    }

    async fn without(&self, trial: &Trial<'_>, what: &str) -> Result<Check, StepError> {
        let came = trial.take_back(&format!("SELECT EXISTS (SELECT FROM {})", name_of(self.table)?)).await;
        let (verdict, why) = match (came.sqlstate(), self.row_security.without) {
            (None, _) if came.value(0) == Some("t") => (Verdict::Leaked, Some("rows are seen without a context")),
            (None, WithoutContext::Hidden) | (Some(RAISED), WithoutContext::Error) => (Verdict::Denied, None),
            (None, WithoutContext::Error) => (Verdict::Broken, Some("declared to raise P0001, and it hides")),
            (Some(RAISED), WithoutContext::Hidden) => (Verdict::Broken, Some("declared to hide, and it raises")),
            (Some(_), _) => (Verdict::Inconclusive, Some("another error than the guard's P0001")),
        };
        Ok(self.check(what, came.judged(&self.table.to_string(), verdict, Some("rows are there"), why)))
    }

    async fn reads(&self, trial: &Trial<'_>, own: &str, other: &str) -> Result<Check, StepError> {
        let (name, column) = (name_of(self.table)?, ident(&self.row_security.column)?);
        let value = typed(own, &self.row_security.type_name)?;
        let came = trial
            .take_back(&format!(
                "SELECT EXISTS (SELECT FROM {name} WHERE {column} = {value}), \
                 EXISTS (SELECT FROM {name} WHERE {column} IS DISTINCT FROM {value})"
            ))
            .await;
        let (verdict, why) = match (came.sqlstate(), came.value(0), came.value(1)) {
            (Some(_), ..) => (Verdict::Broken, Some("a tenant's own rows cannot be read".to_owned())),
            (None, _, Some("t")) => (Verdict::Leaked, Some(format!("rows of others are seen, {other} among them"))),
            (None, Some("t"), _) => (Verdict::Denied, None),
            _ => (Verdict::Broken, Some("a tenant's own rows are hidden from it".to_owned())),
        };
        let tried = came.judged(&self.table.to_string(), verdict, Some("its own rows are seen"), why.as_deref());
        Ok(self.check("rows of other tenants are hidden", tried))
    }

    async fn forged_insert(&self, trial: &Trial<'_>, tenants: &Tenants) -> Result<Check, StepError> {
        const WHAT: &str = "no row of another tenant is inserted";
        let (own, forged) = match (self.row_of(&tenants.a)?, self.row_of(&tenants.b)?) {
            (Ok(own), Ok(forged)) => (own, forged),
            (Err(why), _) | (_, Err(why)) => return Ok(self.inconclusive(WHAT, why)),
        };
        let control = trial.take_back(&own).await;
        let came = trial.take_back(&forged).await;
        Ok(self.check(WHAT, self.forged(came, &control, &own)))
    }

    async fn forged_update(&self, trial: &Trial<'_>, tenants: &Tenants) -> Result<Check, StepError> {
        let (name, column) = (name_of(self.table)?, ident(&self.row_security.column)?);
        let [a, b] = [&tenants.a, &tenants.b].map(|one| typed(one, &self.row_security.type_name));
        let (a, b) = (a?, b?);
        // Without WHERE: a statement that reads no column is not held to the policies for SELECT, and what those would
        // catch is not caught. Where a tenant may have many rows, one is enough.
        let row = if tenants.made {
            String::new()
        } else {
            format!(" WHERE ctid = (SELECT ctid FROM {name} WHERE {column} = {a} LIMIT 1) AND {column} = {a}")
        };
        let own = format!("UPDATE {name} SET {column} = {a}{row}");
        let control = trial.take_back(&own).await;
        let came = trial.take_back(&format!("UPDATE {name} SET {column} = {b}{row}")).await;
        Ok(self.check("no row is given to another tenant", self.forged(came, &control, &own)))
    }

    fn forged(&self, came: Came, control: &Came, own: &str) -> Try {
        let object = self.table.to_string();
        let works = control.sqlstate().is_none() && control.affected() > 0;
        let (verdict, why) = match came.sqlstate() {
            None if came.affected() > 0 => (Verdict::Leaked, None),
            Some(DENIED) if works => (Verdict::Denied, None),
            Some(DENIED) => {
                let why = format!("no positive control: the same for the own tenant fails too: {}", control.answer);
                (Verdict::Inconclusive, Some(why))
            }
            None => (Verdict::Inconclusive, Some("it changed no row".to_owned())),
            Some(_) => (Verdict::Inconclusive, Some("an error that is no denial".to_owned())),
        };
        let shown = works.then(|| format!("the own tenant's: {own}"));
        came.judged(&object, verdict, shown.as_deref(), why.as_deref())
    }

    /// A statement that names the other tenant's rows must find none.
    async fn reaches(&self, trial: &Trial<'_>, privilege: Privilege, tenants: &Tenants) -> Result<Check, StepError> {
        let (name, column) = (name_of(self.table)?, ident(&self.row_security.column)?);
        let statement = |tenant: &str| {
            let value = typed(tenant, &self.row_security.type_name)?;
            Ok::<_, StepError>(match privilege {
                Privilege::Update => format!("UPDATE {name} SET {column} = {column} WHERE {column} = {value}"),
                _ => format!("DELETE FROM {name} WHERE {column} = {value}"),
            })
        };
        let came = trial.take_back(&statement(&tenants.b)?).await;
        let (verdict, why) = match came.sqlstate() {
            None if came.affected() > 0 => (Verdict::Leaked, None),
            None | Some(DENIED) => (Verdict::Denied, None),
            Some(_) => (Verdict::Inconclusive, Some("an error that is no denial")),
        };
        let what = match privilege {
            Privilege::Update => "no row of another tenant is changed",
            _ => "no row of another tenant is deleted",
        };
        Ok(self.check(what, came.judged(&self.table.to_string(), verdict, Some("such rows are there"), why)))
    }
}
