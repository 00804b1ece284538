//! The block: `sign-off = "release"`, `roles = ["engineering-lead", "dba"]`.

use std::collections::BTreeSet;

use pgrunbook_document::{Block, Diagnostic, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, SignOff, Step, StepError};
use serde::Deserialize;

use crate::registry::{Kind, bound_fields, fields};
use crate::workplace::Workplace;

/// The kind `sign-off`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "sign-off",
        language: Language::Toml,
        summary: "Waits until each role has signed what happened.",
        fields: &[
            FieldSpec { name: "roles", about: "The roles, as `[people]` names them; each signs once.", required: true },
            FieldSpec {
                name: "distinct",
                about: "Whether each role needs a person of its own; true if nothing is said.",
                required: false,
            },
        ],
        needs_target: false,
        changes: false,
        undo_words: &[],
        check,
    },
    build,
    undo_by: None,
};

/// Waits until each role has signed what happened.
///
/// Effect: idempotent (it only counts). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "sign-off")]
    _id: String,
    roles: Vec<String>,
    #[serde(default = "yes")]
    distinct: bool,
}

fn yes() -> bool {
    true
}

/// The roles that must sign, each once.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub roles: Vec<String>,
    pub distinct: bool,
}

fn check(block: &Block) -> Result<(), Diagnostic> {
    Wanted::of(fields(block)?).map(drop).map_err(|why| Diagnostic::error("bad-value", block.id_span, why))
}

struct Gate {
    wanted: Wanted,
    rehearsal: bool,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let unusable = |why| StepError::unusable("bad-value", format!("step `{}`: {why}", block.id));
    let wanted = Wanted::of(bound_fields(block)?).map_err(unusable)?;
    Ok(Box::new(Gate { wanted, rehearsal: workplace.is_rehearsal() }))
}

impl Wanted {
    fn of(fields: Fields) -> Result<Self, String> {
        let Fields { roles, distinct, .. } = fields;
        // They stand in the text that is signed.
        let plain =
            |role: &&String| !role.is_empty() && role.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if let Some(odd) = roles.iter().find(|role| !plain(role)) {
            return Err(format!("`{odd}` is no name of a role: letters, digits, `-`, `_` and `.`"));
        }
        if roles.is_empty() {
            return Err("a sign-off by nobody is none".to_owned());
        }
        let mut seen = BTreeSet::new();
        match roles.iter().find(|role| !seen.insert(*role)) {
            Some(twice) => Err(format!("the role `{twice}` is named twice")),
            None => Ok(Self { roles, distinct }),
        }
    }

    /// Reads the text of a planned step. Fields that every kind has stand in it too.
    pub fn read(text: &str) -> Result<Self, StepError> {
        let unreadable =
            |why: String| StepError::unusable("bad-value", format!("the plan's step cannot be read: {why}"));
        let mut table: toml::Table = toml::from_str(text).map_err(|error| unreadable(error.message().to_owned()))?;
        table.retain(|name, _| ["sign-off", "roles", "distinct"].contains(&name));
        let fields = table.try_into().map_err(|error| unreadable(error.message().to_owned()))?;
        Self::of(fields).map_err(unreadable)
    }

    /// The sign-offs that count: one for each role, and by one person only one where people must be distinct. First come,
    /// first counted.
    fn counted<'s>(&self, signed: &'s [SignOff]) -> Vec<&'s SignOff> {
        let mut counted: Vec<&SignOff> = Vec::new();
        for one in signed.iter().filter(|one| self.roles.contains(&one.role)) {
            let taken =
                |other: &&SignOff| other.role == one.role || (self.distinct && other.principal == one.principal);
            if !counted.iter().any(taken) {
                counted.push(one);
            }
        }
        counted
    }

    /// Roles for which no sign-off counts, in order.
    pub fn missing(&self, signed: &[SignOff]) -> Vec<&str> {
        let counted = self.counted(signed);
        let missing = self.roles.iter().filter(|role| !counted.iter().any(|one| one.role == **role));
        missing.map(String::as_str).collect()
    }
}

impl Step for Gate {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            if self.rehearsal {
                return Ok(Change { summary: "nothing is signed off in a rehearsal".to_owned(), ..Change::default() });
            }
            let roles = &self.wanted.roles;
            let people = if self.wanted.distinct { ", each another person" } else { "" };
            let summary = format!("wait until {} have signed what happened{people}", roles.join(", "));
            let holders = |role: &String| cx.people.roles.iter().filter(|(_, held)| held.contains(role)).count();
            // Said before the first effect: what is found here only at the end of a long run is found too late.
            let blocked = match roles.iter().find(|role| holders(role) == 0) {
                Some(role) => {
                    Some(format!("nobody holds the role `{role}`: [people] in pgrunbook.toml names who does"))
                }
                None if cx.people.allowed_signers.is_none() => {
                    Some("the project names nobody who may sign: `allowed_signers` under [project]".to_owned())
                }
                None => None,
            };
            Ok(Change { summary, blocked, ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            if self.rehearsal {
                return Ok(Evidence::of("nothing is signed off in a rehearsal").fact("skipped", true));
            }
            let counted = self.wanted.counted(cx.sign_offs);
            let names: Vec<String> = counted.iter().map(|one| format!("{} ({})", one.principal, one.role)).collect();
            let missing = self.wanted.missing(cx.sign_offs);
            if missing.is_empty() {
                return Ok(Evidence::of(format!("signed off by {}", names.join(", "))).signed(&counted));
            }
            let so_far = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            let message = format!("signed off by {so_far}; missing: {}", missing.join(", "));
            Err(StepError::waiting("sign-off-missing", message)
                .help(format!("each of them runs `pgrunbook sign-off {}`; then `pgrunbook resume {}`", cx.run, cx.run)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(role: &str, principal: &str) -> SignOff {
        let text = String::new;
        SignOff {
            step: "release".parse().unwrap(),
            role: role.to_owned(),
            principal: principal.to_owned(),
            head: text(),
            signature: text(),
            key: text(),
        }
    }

    #[test]
    fn one_person_counts_for_one_role_unless_the_step_says_otherwise() {
        let given = [signed("dba", "olga"), signed("security", "olga"), signed("nobody-asked", "sam")];
        let wanted = |more: &str| {
            Wanted::read(&format!("sign-off = \"release\"\nroles = [\"security\", \"dba\"]\ntimeout = \"1h\"\n{more}"))
                .unwrap()
        };
        assert_eq!(wanted("").missing(&given), ["security"]);
        assert!(wanted("distinct = false").missing(&given).is_empty());
        assert!(wanted("").missing(&[signed("security", "sam"), signed("dba", "olga")]).is_empty());
        assert_eq!(wanted("").missing(&[]), ["security", "dba"]);
    }

    #[test]
    fn roles_that_could_change_the_text_that_is_signed_are_refused() {
        let read =
            |roles: &str| Wanted::read(&format!("sign-off = \"x\"\nroles = {roles}")).map_err(|error| error.message);
        for (roles, why) in [
            ("[]", "by nobody"),
            ("[\"dba\", \"dba\"]", "named twice"),
            ("[\"dba: plan 0\"]", "no name of a role"),
            ("[\"a\\nb\"]", "no name of a role"),
            ("[\"\"]", "no name of a role"),
        ] {
            let message = read(roles).unwrap_err();
            assert!(message.contains(why), "{roles}: {message}");
        }
    }
}
