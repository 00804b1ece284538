//! From answers to verdicts. Pure.
//!
//! A denial is SQLSTATE 42501 and nothing else: a relation that is not there denies nothing. And it counts only where the
//! same action is known to work for whoever may, and where there was something to be kept from.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;
use serde_json::Value;

use super::attempt::{Ask, Attempt};
use super::matrix::{Action, Answer, Try, Verdict};
use super::objects::{Filled, Landscape};
use super::send::Reply;
use crate::topology::{Kind, Object, Privilege, Topology};

/// `insufficient_privilege`.
pub const DENIED: &str = "42501";

/// By what it is known that a statement works for whoever may: what succeeded, as whom.
#[derive(Debug, Default)]
pub struct Controls {
    /// The first success of each role and action, as it was declared.
    own: HashMap<(usize, Action), String>,
    /// The first role that succeeded on an object, as it was declared.
    other: HashMap<(u32, Action), String>,
}

impl Controls {
    /// Notes a success that was declared.
    pub fn note(&mut self, role: usize, name: &str, attempt: &Attempt<'_>, reply: &Reply) {
        if !attempt.expected || !attempt.needs_control() || reply.answer.sqlstate.is_some() {
            return;
        }
        self.own.entry((role, attempt.action)).or_insert_with(|| attempt.ask.statement());
        self.other.entry(attempt.key()).or_insert_with(|| name.to_owned());
    }

    /// Notes that the owner's try worked.
    pub fn note_owner(&mut self, owner: &str, key: (u32, Action)) {
        self.other.entry(key).or_insert_with(|| owner.to_owned());
    }

    /// What shows that a denied attempt would work for whoever may.
    pub fn of(&self, role: usize, attempt: &Attempt<'_>) -> Option<String> {
        if let Some(statement) = self.own.get(&(role, attempt.action)) {
            return Some(format!("the same role: {statement}"));
        }
        self.other.get(&attempt.key()).map(|name| format!("{name} on the same object"))
    }
}

/// Whether a denial was about the object or its schema: the server's message names what it refused, in every language.
pub fn names_it(attempt: &Attempt<'_>, answer: &Answer) -> bool {
    let object = attempt.found.map(|found| found.object.name.split('(').next().unwrap_or_default());
    answer.message.contains(&attempt.place.name) || object.is_some_and(|name| answer.message.contains(name))
}

/// Judges one attempt of a role.
pub fn judge(role: usize, attempt: &Attempt<'_>, reply: &Reply, entered: bool, controls: &Controls) -> Try {
    let mut tried = Try {
        object: attempt.object(),
        statement: attempt.ask.statement(),
        answer: reply.answer.clone(),
        verdict: Verdict::Inconclusive,
        control: None,
        why: None,
        took: reply.took,
    };
    if matches!(attempt.ask, Ask::Catalog(_)) {
        of_catalog(attempt, reply, entered, &mut tried);
        return tried;
    }
    match (reply.answer.sqlstate.as_deref(), attempt.expected) {
        (None, true) => tried.verdict = Verdict::Works,
        (None, false) => tried.verdict = Verdict::Leaked,
        (Some(DENIED), true) => tried.verdict = Verdict::Broken,
        (Some(DENIED), false) => denied(role, attempt, controls, &mut tried),
        (Some(_), _) => tried.why = Some("an error that is no denial".to_owned()),
    }
    tried
}

/// A privilege inside a schema that cannot be entered is of no use.
fn of_catalog(attempt: &Attempt<'_>, reply: &Reply, entered: bool, tried: &mut Try) {
    tried.verdict = match (reply.yes, attempt.expected) {
        (None, _) => {
            tried.why = Some("the catalog gives no answer".to_owned());
            Verdict::Inconclusive
        }
        (Some(true), _) if !entered => {
            tried.why = Some("the privilege is there, and the schema cannot be entered".to_owned());
            if attempt.expected { Verdict::Broken } else { Verdict::Denied }
        }
        (Some(true), true) => Verdict::Works,
        (Some(true), false) => Verdict::Leaked,
        (Some(false), true) => Verdict::Broken,
        (Some(false), false) => Verdict::Denied,
    };
}

fn denied(role: usize, attempt: &Attempt<'_>, controls: &Controls, tried: &mut Try) {
    if !names_it(attempt, &tried.answer) {
        tried.why = Some("something else was denied, and not this object".to_owned());
        return;
    }
    tried.control = controls.of(role, attempt);
    if tried.control.is_none() {
        tried.why = Some("no positive control: nobody was seen to succeed with it".to_owned());
        return;
    }
    match attempt.filled() {
        Filled::Yes | Filled::Irrelevant => tried.verdict = Verdict::Denied,
        Filled::No => tried.why = Some("the table is empty: there was nothing to be kept from".to_owned()),
        Filled::Unknown(why) => tried.why = Some(format!("whether the table is empty is not known: {why}")),
    }
}

/// Relations that a plan reaches, with what is done to each.
pub fn reached(plan: &str) -> Vec<(String, String, Privilege)> {
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str::<Value>(plan) {
        walk(&value, &mut found);
    }
    // The scan that finds a statement's own target is no reading of another table.
    let targets: Vec<(String, String)> = found
        .iter()
        .filter(|(.., privilege)| *privilege != Privilege::Select)
        .map(|(schema, name, _)| (schema.clone(), name.clone()))
        .collect();
    found.retain(|(schema, name, privilege)| {
        *privilege != Privilege::Select || !targets.iter().any(|target| (&target.0, &target.1) == (schema, name))
    });
    found.sort();
    found.dedup();
    found
}

fn walk(value: &Value, found: &mut Vec<(String, String, Privilege)>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            if let (Some(schema), Some(relation)) = (text("Schema"), text("Relation Name")) {
                let privilege = match text("Operation") {
                    Some("Insert") => Privilege::Insert,
                    Some("Update") => Privilege::Update,
                    Some("Delete") => Privilege::Delete,
                    _ => Privilege::Select,
                };
                found.push((schema.to_owned(), relation.to_owned(), privilege));
            }
            fields.values().for_each(|value| walk(value, found));
        }
        _ => {}
    }
}

/// What a view or rule reached that the role may not: each is a leak of the relation that was reached.
pub fn crossings(
    role: &str,
    attempt: &Attempt<'_>,
    reply: &Reply,
    topology: &Topology,
    landscape: &Landscape,
    today: Date,
) -> Vec<(Object, Privilege, Try)> {
    let (Some(plan), Some(through)) = (&reply.plan, attempt.found) else { return Vec::new() };
    // Declared to run with their owner's rights: somebody wanted that.
    let on_purpose = topology.schemas.get(&through.object.schema);
    if on_purpose.is_some_and(|schema| schema.owner_rights.contains(&through.object.name)) {
        return Vec::new();
    }
    let kinds = kinds(landscape);
    let may = |schema: &str, name: &str, privilege| {
        let kind = kinds.get(&(schema, name)).copied().unwrap_or(Kind::Table);
        let object = Object { schema: schema.to_owned(), name: name.to_owned(), kind };
        // A view may show single columns of a table: which, is the audit's question.
        let columns = landscape.columns(schema, name);
        topology.allows(role, &object, None, privilege, today)
            || columns.iter().any(|column| topology.allows(role, &object, Some(&column.name), privilege, today))
    };
    reached(plan)
        .into_iter()
        .filter(|(schema, ..)| !schema.starts_with("pg_") && schema != "information_schema")
        .filter(|(schema, name, _)| (schema, name) != (&through.object.schema, &through.object.name))
        .filter(|(schema, name, privilege)| {
            let parents = landscape.parents.get(&(schema.clone(), name.clone()));
            let by_parent = || parents.into_iter().flatten().any(|(schema, name)| may(schema, name, *privilege));
            !may(schema, name, *privilege) && !by_parent()
        })
        .map(|(schema, name, privilege)| {
            let object = Object { schema, name, kind: Kind::Table };
            let tried = Try {
                object: format!("{object} through {}", through.object),
                statement: attempt.ask.statement(),
                answer: Answer::fine(format!("it works, and reaches {object}")),
                verdict: Verdict::Leaked,
                control: None,
                why: Some(format!("{} acts with its owner's rights", through.object)),
                took: reply.took,
            };
            (object, privilege, tried)
        })
        .collect()
}

fn kinds(landscape: &Landscape) -> BTreeMap<(&str, &str), Kind> {
    let objects = landscape.places.iter().flat_map(|place| &place.objects);
    objects.map(|found| ((found.object.schema.as_str(), found.object.name.as_str()), found.object.kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_names_what_it_reaches_and_how() {
        let plan = r#"[{"Plan": {"Node Type": "ModifyTable", "Operation": "Update", "Schema": "general",
            "Relation Name": "notes", "Plans": [
              {"Node Type": "Seq Scan", "Schema": "general", "Relation Name": "notes"},
              {"Node Type": "Seq Scan", "Schema": "health", "Relation Name": "own"}]}}]"#;
        let found = reached(plan);
        let short: Vec<_> =
            found.iter().map(|(schema, name, privilege)| format!("{privilege} {schema}.{name}")).collect();
        assert_eq!(short, ["UPDATE general.notes", "SELECT health.own"]);
        assert!(reached("no plan").is_empty());
    }
}
