//! From the answers of one role after the other to the matrix.
//!
//! A role's own success is the control of most of its denials, so most verdicts are known as soon as the role is done, and
//! are kept in short. Those for which somebody else must be seen to succeed wait until everybody was asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::civil::Date;
use pgrunbook_engine::StepError;

use super::attempt::{Attempt, control};
use super::examine::{Inside, Trial};
use super::judge::{Controls, DENIED, crossings, judge, names_it};
use super::matrix::{About, Action, Answer, Cell, Check, Examined, Matrix, Method, Try, Verdict};
use super::objects::Landscape;
use super::send::{Reply, send};
use crate::topology::{Role, Topology};

/// Tries of a cell that are kept though they are as declared; the others are counted. Two thousand tables that are all
/// denied alike are no more evidence than these, and a hundred roles have a hundred such cells each.
const KEPT: usize = 100;

/// The verdicts so far.
pub struct Tally<'a> {
    topology: &'a Topology,
    landscape: &'a Landscape,
    known: &'a BTreeSet<String>,
    today: Date,
    schemas: Vec<String>,
    roles: Vec<Examined>,
    checks: Vec<Check>,
    cells: BTreeMap<(usize, usize, Action), Cell>,
    controls: Controls,
    /// Denials that wait for a control: whose, and what.
    open: Vec<(usize, Attempt<'a>, Reply)>,
    statements: usize,
}

impl<'a> Tally<'a> {
    pub fn new(topology: &'a Topology, landscape: &'a Landscape, known: &'a BTreeSet<String>, today: Date) -> Self {
        let there = landscape.places.iter().map(|place| place.name.clone());
        Self {
            topology,
            landscape,
            known,
            today,
            schemas: there.chain(landscape.missing.clone()).collect(),
            roles: Vec::new(),
            checks: Vec::new(),
            cells: BTreeMap::new(),
            controls: Controls::default(),
            open: Vec::new(),
            statements: 0,
        }
    }

    /// Takes what the next role answered.
    pub fn take(&mut self, trial: Trial<'a>) {
        let Trial { role, method, entered, tried, checks } = trial;
        let number = self.roles.len();
        self.statements += tried.len() + checks.len();
        self.checks.extend(checks);
        self.roles.push(Examined { name: role.name.clone(), kind: role.kind, method: method.clone() });
        if let Method::Not(why) = &method {
            self.checks.push(not_tried(role, why, self.known.contains(&role.name)));
            return;
        }
        for (attempt, reply) in &tried {
            self.controls.note(number, &role.name, attempt, reply);
        }
        let at: HashMap<&str, usize> = self.landscape.places.iter().map(|place| place.name.as_str()).zip(0..).collect();
        for (attempt, reply) in tried {
            if attempt.is_impossible(reply.answer.sqlstate.as_deref()) {
                continue;
            }
            let schema = at[attempt.place.name.as_str()];
            for (object, privilege, tried) in
                crossings(&role.name, &attempt, &reply, self.topology, self.landscape, self.today)
            {
                // What is reached in no schema that is looked at stands where it was reached from.
                let schema = at.get(object.schema.as_str()).copied().unwrap_or(schema);
                self.put(number, schema, Action::of(privilege), tried);
            }
            let denied = !attempt.expected && reply.answer.sqlstate.as_deref() == Some(DENIED);
            if denied
                && attempt.needs_control()
                && names_it(&attempt, &reply.answer)
                && self.controls.of(number, &attempt).is_none()
            {
                self.open.push((number, attempt, reply));
                continue;
            }
            let entered = entered.contains(attempt.place.name.as_str());
            let tried = judge(number, &attempt, &reply, entered, &self.controls);
            self.put(number, schema, attempt.action, tried);
        }
        for (missing, schema) in self.landscape.missing.iter().zip(self.landscape.places.len()..) {
            if self.topology.uses_schema(&role.name, missing, self.today) {
                self.put(number, schema, Action::Usage, no_schema(missing));
            }
        }
    }

    fn put(&mut self, role: usize, schema: usize, action: Action, tried: Try) {
        let new = || Cell { role, schema, action, verdict: Verdict::Denied, tries: Vec::new(), more: 0 };
        let cell = self.cells.entry((role, schema, action)).or_insert_with(new);
        cell.verdict = if cell.tries.is_empty() { tried.verdict } else { cell.verdict.max(tried.verdict) };
        if tried.verdict.fits() && cell.tries.len() >= KEPT {
            cell.more += 1;
        } else {
            cell.tries.push(tried);
        }
    }

    /// For denials that nobody was seen to succeed with: whoever owns the schemas makes the same statement.
    ///
    /// # Errors
    /// If the privileged connection fails.
    pub async fn ask_the_owner(&mut self, inside: &Inside<'a>) -> Result<(), StepError> {
        let mut wanted: BTreeMap<(u32, Action), &Attempt<'a>> = BTreeMap::new();
        for (role, attempt, _) in &self.open {
            if self.controls.of(*role, attempt).is_none() {
                wanted.entry(attempt.key()).or_insert(attempt);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut attempts = Vec::new();
        for attempt in wanted.into_values() {
            if let Some(ask) = control(attempt)? {
                attempts.push(Attempt { ask, expected: true, reaches: false, ..attempt.clone() });
            }
        }
        let Some(session) = inside.owner().await? else { return Ok(()) };
        let replies = send(&session, &attempts).await;
        for (attempt, reply) in attempts.iter().zip(replies) {
            if reply.answer.sqlstate.is_none() {
                self.controls.note_owner(&self.topology.owner, attempt.key());
            }
        }
        Ok(())
    }

    /// The matrix, and how many statements it took.
    pub fn finish(mut self) -> (Matrix, usize) {
        let at: HashMap<&str, usize> = self.landscape.places.iter().map(|place| place.name.as_str()).zip(0..).collect();
        for (role, attempt, reply) in std::mem::take(&mut self.open) {
            let tried = judge(role, &attempt, &reply, true, &self.controls);
            self.put(role, at[attempt.place.name.as_str()], attempt.action, tried);
        }
        let matrix = Matrix {
            database: String::new(),
            roles: self.roles,
            schemas: self.schemas,
            cells: self.cells.into_values().collect(),
            checks: self.checks,
            coverage: Default::default(),
        };
        (matrix, self.statements)
    }
}

fn no_schema(name: &str) -> Try {
    Try {
        object: name.to_owned(),
        statement: String::new(),
        answer: Answer::none("there is no such schema"),
        verdict: Verdict::Broken,
        control: None,
        why: Some("it is declared".to_owned()),
        took: Duration::ZERO,
    }
}

/// A declared role that could not be tried: that it does not exist is a fault, anything else is not known.
fn not_tried(role: &Role, why: &str, exists: bool) -> Check {
    let tried = Try {
        object: role.name.clone(),
        statement: "SET SESSION AUTHORIZATION".to_owned(),
        answer: Answer::none(why),
        verdict: if exists { Verdict::Inconclusive } else { Verdict::Broken },
        control: None,
        why: Some(
            if exists { "it could not be tried" } else { "it is declared, and there is no such role" }.to_owned(),
        ),
        took: Duration::ZERO,
    };
    Check { role: role.name.clone(), about: About::Login, what: "the role".to_owned(), tried }
}
