//! Rules about statements that must be denied.
//!
//! A denial proves something only if the role is the one that is meant, and is not denied everything.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::expectation::Expectation;
use crate::model::Span;

use super::words::Asked;

/// `insufficient_privilege`.
const DENIED: &str = "42501";

/// Finds denials among steps that run together.
pub(super) fn look(steps: &[Asked<'_>], found: &mut Vec<Diagnostic>) {
    let controls = Controls::of(steps);
    for asked in steps {
        let Some(place) = denial(asked) else { continue };
        let id = &asked.block.id;
        match role(asked) {
            None => found.push(
                Diagnostic::warning(
                    "denial-as-operator",
                    place,
                    format!(
                        "`{id}` asks this of the role that connects, likely the owner: whether it is denied says nothing of the role \
                         that the application runs under"
                    ),
                )
                .help("write `as: role` beside the target"),
            ),
            Some(role) if !controls.has(role) => found.push(
                Diagnostic::warning(
                    "denial-without-control",
                    place,
                    format!(
                        "no step shows that `{role}` may do anything: a role that is denied everything, such as the schema itself, \
                         passes too"
                    ),
                )
                .help(format!(
                    "add a step `as: {role}` that must succeed, such as a read of its own table with `-- expect: rows >= 1`"
                )),
            ),
            Some(_) => {}
        }
    }
}

/// The roles as which some step must succeed. A role that is written with a variable stands for all that begin like it.
#[derive(Default)]
struct Controls<'a> {
    roles: BTreeSet<&'a str>,
    /// What stands before the variable.
    beginnings: BTreeSet<&'a str>,
}

impl<'a> Controls<'a> {
    fn of(steps: &[Asked<'a>]) -> Self {
        let mut controls = Self::default();
        for role in steps.iter().filter(|asked| !asked.expects_error()).filter_map(role) {
            controls.roles.insert(role);
            controls.beginnings.extend(beginning(role));
        }
        controls
    }

    fn has(&self, role: &str) -> bool {
        if let Some(beginning) = beginning(role) {
            return self.roles.range(beginning..).next().is_some_and(|next| next.starts_with(beginning));
        }
        self.roles.contains(role)
            || (!self.beginnings.is_empty() && role.char_indices().any(|(at, _)| self.beginnings.contains(&role[..at])))
    }
}

/// What stands before the variable of a role's name.
fn beginning(role: &str) -> Option<&str> {
    role.split_once("${").map(|(beginning, _)| beginning)
}

/// Where a step expects to be denied.
fn denial(asked: &Asked<'_>) -> Option<Span> {
    let denied = |one: &Expectation| matches!(one, Expectation::Error { sqlstate, .. } if sqlstate == DENIED);
    asked.body.expectations.iter().find(|one| denied(&one.value)).map(|one| one.span)
}

/// The role under which the last statement runs: that of `as:`, or of a `SET ROLE` before it.
fn role<'a>(asked: &Asked<'a>) -> Option<&'a str> {
    let mut role = asked.body.role.as_ref().map(|role| role.value.as_str());
    let before = asked.before();
    for statement in before.split(|word| word.is_sign(";")) {
        let mut words = statement.iter().copied().peekable();
        let Some(verb) = words.next().filter(|word| word.is("set") || word.is("reset")) else { continue };
        words.next_if(|word| word.is("local"));
        let session = words.next_if(|word| word.is("session")).is_some();
        let names_role = words.next_if(|word| word.is("role") || (session && word.is("authorization"))).is_some();
        if !names_role {
            continue;
        }
        words.next_if(|word| word.is("to") || word.is_sign("="));
        let to_none = |text: &&str| verb.is("set") && !["none", "default"].contains(&text.to_lowercase().as_str());
        role = words.next().map(|word| word.name().unwrap_or(word.text).trim_matches('\'')).filter(to_none);
    }
    role
}
