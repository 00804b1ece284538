//! One role: become it, and try everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::attempt::{Attempt, Subject, of_databases};
use super::judge::DENIED;
use super::matrix::{About, Answer, Check, Method, Try, Verdict};
use super::objects::{Landscape, PUBLIC, Place, ident, literal};
use super::prove::How;
use super::role::{Become, Being, Settings};
use super::sample;
use super::send::{IN_FLIGHT, Reply, answer_of, ask, send};
use crate::secret::Reference;
use crate::topology::{Role, Topology};

/// What one role answered.
pub struct Trial<'a> {
    pub role: &'a Role,
    pub method: Method,
    /// Schemas that it got into.
    pub entered: BTreeSet<&'a str>,
    pub tried: Vec<(Attempt<'a>, Reply)>,
    pub checks: Vec<Check>,
}

/// What all roles are examined with.
pub struct Inside<'a> {
    pub topology: &'a Topology,
    pub landscape: &'a Landscape,
    pub databases: &'a [String],
    pub settings: &'a Settings,
    pub options: &'a ConnectOptions,
    pub how: &'a How<'a>,
    pub known: &'a BTreeSet<String>,
}

impl<'a> Inside<'a> {
    fn places(&self, role: &Role) -> Vec<&'a Place> {
        let wanted = |place: &&Place| {
            self.how.schemas.as_ref().is_none_or(|schemas| {
                schemas.contains(&place.name) || self.topology.uses_schema(&role.name, &place.name, self.how.today)
            })
        };
        self.landscape.places.iter().filter(wanted).collect()
    }

    /// Tries everything as one role.
    pub async fn examine(&self, role: &'a Role) -> Result<Trial<'a>, StepError> {
        let password = role.password.as_ref().and_then(self.how.password);
        let way =
            Become { privileged: self.options, settings: self.settings, application_name: self.how.application_name };
        let Being { session, method, refused } = way.role(&role.name, password.as_deref()).await?;
        let mut trial = Trial { role, method, entered: BTreeSet::new(), tried: Vec::new(), checks: Vec::new() };
        if password.is_some() {
            trial.checks.push(login(role, refused));
        }
        let Some(session) = session else { return Ok(trial) };
        let subject = Subject { role, topology: self.topology, today: self.how.today };
        trial.checks.extend(self.search_path(role, &trial.method, &session).await);
        self.prepare(&session).await?;
        let places = self.places(role);

        let entering = subject.entering(&places)?;
        let replies = send(&session, &entering).await;
        trial.entered.insert(PUBLIC);
        for (attempt, reply) in entering.iter().zip(&replies) {
            if reply.answer.sqlstate.is_none() {
                trial.entered.insert(&attempt.place.name);
            }
        }
        trial.tried.extend(entering.into_iter().zip(replies));

        let mut attempts = Vec::new();
        for place in &places {
            attempts.extend(subject.inside(place, trial.entered.contains(place.name.as_str()))?);
        }
        let replies = send(&session, &attempts).await;
        trial.tried.extend(attempts.into_iter().zip(replies));

        trial.checks.extend(self.other_roles(role, &trial.method, &session).await?);
        trial.checks.extend(self.of_databases(role, &session).await?);

        Ok(trial)
    }

    /// A session of whoever owns the schemas, if it can be had.
    pub async fn owner(&self) -> Result<Option<Session>, StepError> {
        let way =
            Become { privileged: self.options, settings: self.settings, application_name: self.how.application_name };
        let session = way.role(&self.topology.owner, None).await?.session;
        if let Some(session) = &session {
            self.prepare(session).await?;
        }
        Ok(session)
    }

    /// Nothing is written, nothing is waited for, and a tenant's guard finds a context: it is asked while a statement is
    /// planned, before its privileges are.
    async fn prepare(&self, session: &Session) -> Result<(), StepError> {
        let mut sql = format!(
            "SET default_transaction_read_only = on; SET statement_timeout = {0}; SET lock_timeout = {0};",
            self.how.statement_timeout.as_millis()
        );
        for row_security in &self.topology.row_security {
            let context = sample::context(&row_security.type_name);
            sql.push_str(&format!(
                " SELECT pg_catalog.set_config({}, {}, false);",
                literal(&row_security.setting)?,
                literal(&context)?
            ));
        }
        session.execute(&sql).await.map_err(PgError::into_step_error)
    }

    /// Whether a session of the role begins with the `search_path` that is declared.
    async fn search_path(&self, role: &Role, method: &Method, session: &Session) -> Option<Check> {
        if role.search_path.is_empty() {
            return None;
        }
        let statement = "SHOW search_path";
        let begun = Instant::now();
        let found = session.value(statement).await;
        let took = begun.elapsed();
        let wanted = role.search_path.join(", ");
        let (answer, verdict, why) = match found {
            Ok(found) if !method.proves() => {
                let why = "SET ROLE takes over none of the role's settings";
                (Answer::fine(found), Verdict::Inconclusive, Some(why.to_owned()))
            }
            Ok(found) if names(&found) == role.search_path => (Answer::fine(found), Verdict::Works, None),
            Ok(found) => (Answer::fine(found), Verdict::Broken, Some(format!("declared is {wanted}"))),
            Err(error) => (answer_of(Err(error), ""), Verdict::Inconclusive, None),
        };
        let tried = Try { object: wanted, statement: statement.to_owned(), answer, verdict, control: None, why, took };
        Some(Check {
            role: role.name.clone(),
            about: About::SearchPath,
            what: "search_path at login".to_owned(),
            tried,
        })
    }

    /// Becoming another declared role must fail, but for those it is declared to be a member of.
    async fn other_roles(&self, role: &Role, method: &Method, session: &Session) -> Result<Vec<Check>, StepError> {
        let closure = self.topology.closure(&role.name);
        let others: Vec<&str> = self
            .topology
            .roles
            .keys()
            .map(String::as_str)
            .filter(|name| !closure.contains(name) && self.known.contains(*name))
            .collect();
        // LOCAL: it is checked like any other, and holds no longer than the statement.
        let statement = |name: &str| Ok::<_, StepError>(format!("SET LOCAL ROLE {}", ident(name)?));
        let itself = statement(&role.name)?;
        let control = session.execute(&itself).await.is_ok();
        let mut statements = Vec::new();
        for name in &others {
            statements.push(((*name).to_owned(), statement(name)?));
        }
        let mut begun = Instant::now();
        let mut checks = Vec::new();
        let made: Vec<_> = statements.into_iter().map(|(name, sql)| become_one(session, name, sql)).collect();
        let mut answers = stream::iter(made).buffered(IN_FLIGHT);
        while let Some((name, statement, result)) = answers.next().await {
            let took = begun.elapsed();
            begun = Instant::now();
            let answer = answer_of(result, "it works");
            let (verdict, why) = match answer.sqlstate.as_deref() {
                _ if !method.proves() => (Verdict::Inconclusive, Some("the session is not the role's own")),
                None => (Verdict::Leaked, None),
                Some(DENIED) if control => (Verdict::Denied, None),
                Some(DENIED) => (Verdict::Inconclusive, Some("no positive control: it cannot become itself either")),
                Some(_) => (Verdict::Inconclusive, Some("an error that is no denial")),
            };
            let control = (verdict == Verdict::Denied).then(|| format!("the same role: {itself}"));
            checks.push(Check {
                role: role.name.clone(),
                about: About::SetRole,
                what: format!("becoming {name}"),
                tried: Try { object: name, statement, answer, verdict, control, why: why.map(str::to_owned), took },
            });
        }
        Ok(checks)
    }

    async fn of_databases(&self, role: &Role, session: &Session) -> Result<Vec<Check>, StepError> {
        let asked = of_databases(role, &self.options.database, self.databases)?;
        let expressions: Vec<&str> = asked.iter().map(|(_, _, expression, _)| expression.as_str()).collect();
        let replies = ask(session, &expressions).await;
        let check = |((what, object, expression, expected), reply): ((String, String, String, bool), Reply)| {
            let verdict = match (reply.yes, expected) {
                (None, _) => Verdict::Inconclusive,
                (Some(true), true) => Verdict::Works,
                (Some(true), false) => Verdict::Leaked,
                (Some(false), true) => Verdict::Broken,
                (Some(false), false) => Verdict::Denied,
            };
            let about = if object == self.options.database { About::Database } else { About::OtherDatabase };
            let tried = Try {
                object,
                statement: format!("SELECT {expression}"),
                answer: reply.answer,
                verdict,
                control: None,
                why: None,
                took: reply.took,
            };
            Check { role: role.name.clone(), about, what, tried }
        };
        Ok(asked.into_iter().zip(replies).map(check).collect())
    }
}

async fn become_one(session: &Session, name: String, sql: String) -> (String, String, Result<(), PgError>) {
    let result = session.execute(&sql).await;
    (name, sql, result)
}

fn login(role: &Role, refused: Option<PgError>) -> Check {
    let (answer, verdict, why) = match refused {
        None => (Answer::fine("it works"), Verdict::Works, None),
        Some(PgError::Refused { error, .. }) => {
            let answer = Answer { sqlstate: Some(error.sqlstate), message: error.message };
            (answer, Verdict::Broken, Some("its password is given, and the server refuses it".to_owned()))
        }
        Some(error) => (Answer::none(error.to_string()), Verdict::Inconclusive, None),
    };
    let shown = role.password.as_ref().map(Reference::shown).unwrap_or_default();
    let tried = Try {
        object: role.name.clone(),
        statement: format!("login with {shown}"),
        answer,
        verdict,
        control: None,
        why,
        took: Duration::ZERO,
    };
    Check { role: role.name.clone(), about: About::Login, what: "login".to_owned(), tried }
}

/// The names of a `search_path` as the server shows it.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            c if c.is_whitespace() && !quoted => {}
            c => name.push(c),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_search_path() {
        assert_eq!(names("\"$user\", public"), ["$user", "public"]);
        assert_eq!(names("health,shared , \"a, \"\"b\""), ["health", "shared", "a, \"b"]);
        assert_eq!(names("\"health, shared\""), ["health, shared"]);
    }
}
