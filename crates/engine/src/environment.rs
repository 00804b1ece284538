//! Where a run takes place, how well that is protected, and who may do what there.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_document::VarValue;

use crate::demand::window::Window;

/// An environment of the project, as far as the engine must know it.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub name: String,
    /// No answers in advance; the demands below are made before the first effect.
    pub protected: bool,
    /// The text that the operator must give exactly before the run begins.
    pub confirm: Option<String>,
    /// Whether a successful rehearsal of the same content digest must be in the journal.
    pub rehearsal_required: bool,
    /// The environment in which a run of the same content digest must have gone to its end.
    pub rehearsed_in: Option<String>,
    /// Whether such a run must also have gone wholly back there.
    pub rehearsed_back: bool,
    /// Whether what is deployed must leave a row in a log of its target, in the transaction of the change.
    pub deployment_log_required: bool,
    /// Times at which a run may begin to change something; none: at any time.
    pub windows: Vec<Window>,
    /// How many approvals, by different people, none of them the operator, are needed before the first effect.
    pub approvals: u32,
    /// Roles of which each must be held by one of the approvers.
    pub approver_roles: BTreeSet<String>,
    /// Roles that may override a demand; none: nobody may.
    pub override_roles: BTreeSet<String>,
    /// What is to be looked at after a deployment, a line each.
    pub after: Vec<String>,
    /// Values for the runbook's variables: below options, above the runbook's defaults.
    pub vars: BTreeMap<String, VarValue>,
}

/// The people of a project.
#[derive(Debug, Clone, Default)]
pub struct People {
    /// Text of the `allowed_signers` file (`ssh-keygen(1)`), if there is one.
    pub allowed_signers: Option<String>,
    /// Roles by principal. Empty: roles are shown and not checked.
    pub roles: BTreeMap<String, BTreeSet<String>>,
}

impl People {
    /// The roles of a person.
    pub fn roles_of(&self, principal: &str) -> impl Iterator<Item = &str> {
        self.roles.get(principal).into_iter().flatten().map(String::as_str)
    }

    /// Whether a person may act for one of `roles`. Anybody may where no role is asked for or the project names none.
    pub fn may_act(&self, principal: &str, roles: &[String]) -> bool {
        roles.is_empty()
            || self.roles.is_empty()
            || self.roles_of(principal).any(|role| roles.iter().any(|r| r == role))
    }
}

/// The person at the keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As `People` and `allowed_signers` name them (`--as`); else `user@host`.
    pub principal: String,
    pub host: String,
    pub pid: u32,
}
