//! From what is there to what is declared, by the least change: missing is granted, extra is revoked, foreign is told.
//!
//! *Extra* is what a declared role or PUBLIC has and should not. *Foreign* is what somebody has of whom the declaration
//! does not speak: it is named and left alone, until the role is declared or retired.

mod acl;
mod guards;
mod roles;
mod scope;

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::model::{Object, Privilege, Topology};
use super::state::State;
use super::write::ident;

/// When a statement comes, among the others: nothing that stays is missing for a moment, and revokes come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    Role,
    Membership,
    Schema,
    Owner,
    DefaultPrivilege,
    Guard,
    Policy,
    Trigger,
    Grant,
    /// After its policies: without them it would hide every row.
    RowSecurity,
    /// Those of other grantors than the owner first: privileges may depend on them.
    RevokeOfOthers,
    Revoke,
    Prune,
}

/// One statement of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub order: Order,
    /// As it is run; a password stands in it only as its reference.
    pub sql: String,
    /// The role whose password it sets.
    pub password_of: Option<String>,
    /// Why, in a few words.
    pub why: String,
    /// What takes it back; none where nothing can.
    pub undo: Option<String>,
    /// The role that it must run as, where that is not the operator: the grantor of what it revokes.
    pub run_as: Option<String>,
    /// How many privileges that somebody granted it takes away; defaults of PostgreSQL do not count.
    pub revokes: usize,
    /// The relation that it locks, with the mode.
    pub lock: Option<(String, &'static str)>,
}

/// A privilege that must be gone after the plan, by whatever path: for the look after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gone {
    pub role: String,
    pub object: Object,
    pub privilege: Privilege,
}

/// The way from what is there to what is declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they run.
    pub statements: Vec<Statement>,
    /// Declared objects that do not exist (yet): their grants come with the next plan.
    pub waiting: Vec<String>,
    /// What others have of whom the declaration does not speak.
    pub foreign: Vec<String>,
    /// What this operator cannot do here, and why.
    pub cannot: Vec<String>,
    /// What deserves a look before it is applied.
    pub warnings: Vec<String>,
    /// Privileges that somebody granted, in the declared schemas, before the plan.
    pub granted: usize,
    pub gone: BTreeSet<Gone>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// How many privileges that somebody granted are taken away.
    pub fn revokes(&self) -> usize {
        self.statements.iter().map(|one| one.revokes).sum()
    }

    /// The whole as a script, for people and `psql`.
    pub fn script(&self) -> String {
        let mut text = String::new();
        for one in &self.statements {
            text.push_str(&format!("-- {}\n", one.why));
            match &one.run_as {
                Some(role) => {
                    text.push_str(&format!("SET LOCAL ROLE {}; {}; RESET ROLE;\n", ident(role), one.sql));
                }
                None => text.push_str(&format!("{};\n", one.sql)),
            }
        }
        text
    }
}

/// How the difference is taken.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Exceptions end.
    pub today: Date,
    /// Drop what is retired.
    pub prune: bool,
    /// Set the passwords of roles that have one already.
    pub set_passwords: bool,
}

/// The difference.
pub fn diff(topology: &Topology, state: &State, wish: &Wish) -> Plan {
    let mut diff = Diff { topology, state, wish, plan: Plan::default() };
    diff.roles();
    diff.memberships();
    diff.database();
    diff.schemas();
    diff.ownership();
    diff.default_privileges();
    diff.row_security();
    diff.append_only();
    diff.privileges();
    diff.warn();
    if wish.prune {
        diff.prune();
    }
    let mut plan = diff.plan;
    plan.statements.sort_by_key(|one| one.order);
    plan
}

struct Diff<'a> {
    topology: &'a Topology,
    state: &'a State,
    wish: &'a Wish,
    plan: Plan,
}

fn statement(order: Order, sql: impl Into<String>, why: impl Into<String>, undo: Option<String>) -> Statement {
    Statement { order, sql: sql.into(), password_of: None, why: why.into(), undo, run_as: None, revokes: 0, lock: None }
}

impl Diff<'_> {
    fn put(&mut self, statement: Statement) {
        self.plan.statements.push(statement);
    }

    fn cannot(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.plan.cannot.contains(&what) {
            self.plan.cannot.push(what);
        }
    }

    /// Whether a role is one of those that are managed.
    fn is_declared(&self, role: &str) -> bool {
        self.topology.roles.contains_key(role)
    }
}
