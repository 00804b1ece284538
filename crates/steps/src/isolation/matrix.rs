//! What was tried, and what came of it: roles by schemas by actions, and what belongs to no one schema.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::topology::{Privilege, RoleKind};

/// What a role is tried to do in a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Entering the schema.
    Usage,
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
    Execute,
    Sequence,
    /// Making objects in the schema.
    Create,
}

impl Action {
    /// Every one, in the order in which people read them.
    pub const ALL: [Self; 11] = [
        Self::Usage,
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::References,
        Self::Trigger,
        Self::Execute,
        Self::Sequence,
        Self::Create,
    ];

    /// The letter that `psql`'s `\dp` has for it
    /// (<https://www.postgresql.org/docs/current/ddl-priv.html>); sequences, which have none of their own, are `s`.
    pub fn letter(self) -> char {
        match self {
            Self::Usage => 'U',
            Self::Select => 'r',
            Self::Insert => 'a',
            Self::Update => 'w',
            Self::Delete => 'd',
            Self::Truncate => 'D',
            Self::References => 'x',
            Self::Trigger => 't',
            Self::Execute => 'X',
            Self::Sequence => 's',
            Self::Create => 'C',
        }
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usage => "USAGE",
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::References => "REFERENCES",
            Self::Trigger => "TRIGGER",
            Self::Execute => "EXECUTE",
            Self::Sequence => "sequences",
            Self::Create => "CREATE",
        }
    }

    /// The action that a privilege on a relation is tried by.
    pub(super) fn of(privilege: Privilege) -> Self {
        match privilege {
            Privilege::Insert => Self::Insert,
            Privilege::Update => Self::Update,
            Privilege::Delete => Self::Delete,
            _ => Self::Select,
        }
    }
}

/// What came of it, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Not declared, and denied.
    Denied,
    /// Declared, and it works.
    Works,
    /// The answer proves nothing.
    Inconclusive,
    /// Declared, and denied.
    Broken,
    /// Not declared, and it works.
    Leaked,
}

impl Verdict {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Works => "works",
            Self::Inconclusive => "inconclusive",
            Self::Broken => "broken",
            Self::Leaked => "leaked",
        }
    }

    /// What stands for it where there is room for one character; `letter` where it works.
    pub fn mark(self, letter: char) -> char {
        match self {
            Self::Denied => '·',
            Self::Works => letter,
            Self::Inconclusive => '?',
            Self::Broken => '✗',
            Self::Leaked => '!',
        }
    }

    /// Whether it is as declared.
    pub fn fits(self) -> bool {
        matches!(self, Self::Denied | Self::Works)
    }
}

/// How a session was made the role's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// With its own password.
    Login,
    /// `SET SESSION AUTHORIZATION`, with the role's settings replayed.
    SessionAuthorization,
    /// `SET ROLE`: neither the role's settings nor its own rights to other roles. Proves nothing.
    SetRole,
    /// Not at all, and why.
    Not(String),
}

impl Method {
    /// As people read it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::SessionAuthorization => "session authorization",
            Self::SetRole => "set role",
            Self::Not(_) => "not tried",
        }
    }

    /// Whether what is seen this way is what the role itself would see.
    pub fn proves(&self) -> bool {
        matches!(self, Self::Login | Self::SessionAuthorization)
    }
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `None`: no error.
    pub sqlstate: Option<String>,
    pub message: String,
}

impl Answer {
    /// No error.
    pub fn fine(message: impl Into<String>) -> Self {
        Self { sqlstate: None, message: message.into() }
    }

    /// Nothing came back.
    pub fn none(message: impl Into<String>) -> Self {
        Self { sqlstate: Some("-".to_owned()), message: message.into() }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sqlstate {
            Some(sqlstate) => write!(f, "{sqlstate} {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// One statement that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// `general.notes`, or `general.notes(body)` for one column.
    pub object: String,
    pub statement: String,
    pub answer: Answer,
    pub verdict: Verdict,
    /// For a denial: by what it is known that the statement would work for whoever may.
    pub control: Option<String>,
    /// Why it is inconclusive, or by which path it leaked.
    pub why: Option<String>,
    pub took: Duration,
}

/// All tries of one role, schema and action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Index into [`Matrix::roles`].
    pub role: usize,
    /// Index into [`Matrix::schemas`].
    pub schema: usize,
    pub action: Action,
    /// The worst of its tries.
    pub verdict: Verdict,
    pub tries: Vec<Try>,
    /// Further tries, all of them as declared, that are not kept.
    pub more: usize,
}

/// What else is tried, of a role or of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Login,
    SetRole,
    SearchPath,
    Database,
    OtherDatabase,
    RowSecurity,
    AppendOnly,
    Pooler,
}

impl About {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::SetRole => "SET ROLE",
            Self::SearchPath => "search_path",
            Self::Database => "database",
            Self::OtherDatabase => "other database",
            Self::RowSecurity => "row security",
            Self::AppendOnly => "append-only",
            Self::Pooler => "pooler",
        }
    }
}

/// A try that belongs to no one schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub role: String,
    pub about: About,
    /// What is shown: `rows of other tenants are hidden`.
    pub what: String,
    pub tried: Try,
}

/// A role that was examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    pub name: String,
    pub kind: RoleKind,
    pub method: Method,
}

/// How much was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    pub roles: usize,
    pub schemas: usize,
    /// Objects that there are in the schemas.
    pub objects: usize,
    /// Those that were tried: all, or one for each kind and pattern of privileges.
    pub tried: usize,
    /// Statements sent as the roles.
    pub statements: usize,
    pub took: Duration,
}

/// What every role can really do in every schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    pub database: String,
    pub roles: Vec<Examined>,
    pub schemas: Vec<String>,
    /// By role, schema and action; where there was nothing to try there is none.
    pub cells: Vec<Cell>,
    pub checks: Vec<Check>,
    pub coverage: Coverage,
}

/// A try that is not as declared, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding<'a> {
    pub role: &'a str,
    /// `SELECT`, `row security`.
    pub what: &'a str,
    pub tried: &'a Try,
}

impl Matrix {
    /// The cell of a role, schema and action, if anything was tried there.
    pub fn cell(&self, role: &str, schema: &str, action: Action) -> Option<&Cell> {
        let role = self.roles.iter().position(|one| one.name == role)?;
        let schema = self.schemas.iter().position(|one| one == schema)?;
        self.cells.iter().find(|cell| (cell.role, cell.schema, cell.action) == (role, schema, action))
    }

    /// The tries with a verdict.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = Finding<'_>> {
        self.findings().filter(move |found| found.tried.verdict == verdict)
    }

    /// Every try that is not as declared, in the order of the matrix.
    pub fn findings(&self) -> impl Iterator<Item = Finding<'_>> {
        let cells = self.cells.iter().filter(|cell| !cell.verdict.fits()).flat_map(|cell| {
            let role = self.roles[cell.role].name.as_str();
            cell.tries.iter().map(move |tried| Finding { role, what: cell.action.word(), tried })
        });
        let checks = self.checks.iter().map(|check| Finding {
            role: &check.role,
            what: check.about.word(),
            tried: &check.tried,
        });
        cells.chain(checks).filter(|found| !found.tried.verdict.fits())
    }

    /// How many tries have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let cells = self.cells.iter().flat_map(|cell| &cell.tries);
        let checks = self.checks.iter().map(|check| &check.tried);
        cells.chain(checks).filter(|tried| tried.verdict == verdict).count()
    }

    /// Roles by how they were examined.
    pub fn methods(&self) -> BTreeMap<&'static str, usize> {
        let mut methods = BTreeMap::new();
        for role in &self.roles {
            *methods.entry(role.method.word()).or_default() += 1;
        }
        methods
    }

    /// Whether every role was examined in a way that proves something.
    pub fn by_real_roles(&self) -> bool {
        self.roles.iter().all(|role| role.method.proves())
    }

    /// Whether everything is as declared, and that is certain.
    pub fn is_proved(&self) -> bool {
        self.by_real_roles() && self.findings().next().is_none()
    }
}
