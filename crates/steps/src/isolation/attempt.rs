//! What is tried as a role, and what the declaration expects of it. Pure: nothing here asks a server.
//!
//! Plain `EXPLAIN` checks privileges when the executor starts, and changes nothing
//! (<https://www.postgresql.org/docs/current/sql-explain.html>). What a statement names decides what is checked: one that
//! names no column is allowed by a privilege on any of them, so that a grant on a single column is found too.

use std::collections::BTreeSet;

use jiff::civil::Date;
use pgrunbook_engine::StepError;

use super::matrix::Action;
use super::objects::{Column, Filled, Found, PUBLIC, Place, ident, literal, qualified};
use crate::topology::{Kind, Privilege, Role, Topology};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A statement of its own; success is success.
    Try(String),
    /// A name that is certainly not there, in a schema: 42P01 says that the schema was entered.
    Enter(String),
    /// A `has_..._privilege` expression, asked in the role's own session together with others.
    Catalog(String),
}

impl Ask {
    /// As people read it.
    pub fn statement(&self) -> String {
        match self {
            Self::Try(sql) | Self::Enter(sql) => sql.clone(),
            Self::Catalog(expression) => format!("SELECT {expression}"),
        }
    }
}

/// One try before it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt<'a> {
    pub place: &'a Place,
    pub action: Action,
    /// `None`: the schema itself.
    pub found: Option<&'a Found>,
    pub column: Option<&'a str>,
    pub privilege: Privilege,
    pub ask: Ask,
    /// Whether the declaration allows it.
    pub expected: bool,
    /// Whether the plan says which relations are really reached.
    pub reaches: bool,
}

impl Attempt<'_> {
    /// What people read: `general.notes(body)`.
    pub fn object(&self) -> String {
        match (self.found, self.column) {
            (None, _) => self.place.name.clone(),
            (Some(found), None) => found.object.to_string(),
            (Some(found), Some(column)) => format!("{}({column})", found.object),
        }
    }

    /// What the same try of another role is known by.
    pub fn key(&self) -> (u32, Action) {
        (self.found.map_or(self.place.oid, |found| found.oid), self.action)
    }

    /// Whether a denial must be shown to be one: the catalog's answer needs no second one.
    pub fn needs_control(&self) -> bool {
        !matches!(self.ask, Ask::Catalog(_))
    }

    /// Whether nobody can do it, whatever the privileges: a view's column that is generated below it. The server says so
    /// before it looks at privileges.
    pub fn is_impossible(&self, sqlstate: Option<&str>) -> bool {
        sqlstate == Some(GENERATED_ALWAYS) && self.found.is_some_and(|found| found.rewritten)
    }

    pub fn filled(&self) -> &Filled {
        self.found.map_or(&Filled::Irrelevant, |found| &found.filled)
    }
}

/// What a role is, while it is tried.
pub struct Subject<'a> {
    pub role: &'a Role,
    pub topology: &'a Topology,
    pub today: Date,
}

/// `generated_always`
const GENERATED_ALWAYS: &str = "428C9";

/// A name that nobody gives to a relation. If somebody did, entering the schema would still be told from not entering it.
const NOWHERE: &str = "pgrunbook: no such relation";

impl<'a> Subject<'a> {
    fn allows(&self, found: &Found, column: Option<&str>, privilege: Privilege) -> bool {
        self.topology.allows(&self.role.name, &found.object, column, privilege, self.today)
    }

    /// Entering each schema, which everything else in it presupposes.
    ///
    /// # Errors
    /// If a name holds a NUL byte, which no catalog does.
    pub fn entering(&self, places: &[&'a Place]) -> Result<Vec<Attempt<'a>>, StepError> {
        let places = places.iter().filter(|place| place.name != PUBLIC);
        places
            .map(|place| {
                Ok(Attempt {
                    place,
                    action: Action::Usage,
                    found: None,
                    column: None,
                    privilege: Privilege::Usage,
                    ask: Ask::Enter(enter(place)?),
                    expected: self.topology.uses_schema(&self.role.name, &place.name, self.today),
                    reaches: false,
                })
            })
            .collect()
    }

    /// Everything in one schema. `entered`: whether the role got into it; where it did not, one column stands for all.
    ///
    /// # Errors
    /// As [`Subject::entering`].
    pub fn inside(&self, place: &'a Place, entered: bool) -> Result<Vec<Attempt<'a>>, StepError> {
        let mut attempts = vec![Attempt {
            place,
            action: Action::Create,
            found: None,
            column: None,
            privilege: Privilege::Create,
            ask: Ask::Catalog(format!("pg_catalog.has_schema_privilege({}::oid, 'CREATE')", place.oid)),
            expected: self.topology.is_owner(&self.role.name),
            reaches: false,
        }];
        for found in &place.objects {
            match found.object.kind {
                kind if kind.is_relation() => self.relation(place, found, entered, &mut attempts)?,
                Kind::Sequence => self.sequence(place, found, &mut attempts),
                Kind::Function | Kind::Procedure => self.routine(place, found, &mut attempts),
                // Using a type gives nothing that is not given by something else: the audit lists it.
                _ => {}
            }
        }
        Ok(attempts)
    }

    fn relation(
        &self,
        place: &'a Place,
        found: &'a Found,
        entered: bool,
        attempts: &mut Vec<Attempt<'a>>,
    ) -> Result<(), StepError> {
        let [insert, update, delete] = found.writes;
        let possible = [
            (Privilege::Select, true),
            (Privilege::Insert, insert),
            (Privilege::Update, update),
            (Privilege::Delete, delete),
        ];
        for (privilege, _) in possible.into_iter().filter(|(_, possible)| *possible) {
            self.table_action(place, found, privilege, entered, attempts)?;
        }
        let mut asked = Vec::new();
        if matches!(found.object.kind, Kind::Table | Kind::ForeignTable) {
            asked.push((Action::Truncate, Privilege::Truncate, "has_table_privilege"));
        }
        if found.object.kind == Kind::Table {
            asked.push((Action::References, Privilege::References, "has_any_column_privilege"));
        }
        if matches!(found.object.kind, Kind::Table | Kind::View | Kind::ForeignTable) {
            asked.push((Action::Trigger, Privilege::Trigger, "has_table_privilege"));
        }
        for (action, privilege, function) in asked {
            let ask = format!("pg_catalog.{function}({}::oid, '{privilege}')", found.oid);
            attempts.push(self.asked(place, found, action, privilege, ask));
        }
        Ok(())
    }

    /// The whole, or the columns that are declared and each of the others, or any of them.
    fn table_action(
        &self,
        place: &'a Place,
        found: &'a Found,
        privilege: Privilege,
        entered: bool,
        attempts: &mut Vec<Attempt<'a>>,
    ) -> Result<(), StepError> {
        let reaches = found.rewritten;
        let attempt = |column, expected, statement: String| Attempt {
            place,
            action: Action::of(privilege),
            found: Some(found),
            column,
            privilege,
            ask: Ask::Try(explain(&statement, expected && reaches)),
            expected,
            reaches: expected && reaches,
        };
        let columns = concerned(found, privilege);
        if self.allows(found, None, privilege) {
            // Each by itself: through a view, one column that cannot be set would hide all others.
            if found.rewritten && privilege == Privilege::Update {
                for column in &columns {
                    let statement = of_columns(found, privilege, &[column])?;
                    attempts.push(attempt(Some(&column.name), true, statement));
                }
                return Ok(());
            }
            if let Some(statement) = whole(found, privilege)? {
                attempts.push(attempt(None, true, statement));
            }
            return Ok(());
        }
        let declared: Vec<&Column> =
            columns.iter().filter(|column| self.allows(found, Some(&column.name), privilege)).copied().collect();
        if !declared.is_empty() {
            attempts.push(attempt(None, true, of_columns(found, privilege, &declared)?));
            let names: BTreeSet<&str> = declared.iter().map(|column| column.name.as_str()).collect();
            for column in columns.iter().filter(|column| !names.contains(column.name.as_str())) {
                let statement = of_columns(found, privilege, &[column])?;
                attempts.push(attempt(Some(&column.name), false, statement));
            }
            return Ok(());
        }
        match privilege {
            // No UPDATE names no column: each is tried, once it can be reached at all.
            Privilege::Update => {
                let tried = if entered { columns.len() } else { 1 };
                for column in columns.iter().take(tried) {
                    let statement = of_columns(found, privilege, &[column])?;
                    attempts.push(attempt(Some(&column.name), false, statement));
                }
            }
            _ => {
                if let Some(statement) = any(found, privilege)? {
                    attempts.push(attempt(None, false, statement));
                }
            }
        }
        Ok(())
    }

    fn sequence(&self, place: &'a Place, found: &'a Found, attempts: &mut Vec<Attempt<'a>>) {
        for privilege in [Privilege::Usage, Privilege::Select, Privilege::Update] {
            let ask = format!("pg_catalog.has_sequence_privilege({}::oid, '{privilege}')", found.oid);
            let attempt = self.asked(place, found, Action::Sequence, privilege, ask);
            // An identity column's sequence is used without a privilege on it.
            if !(found.identity && attempt.expected) {
                attempts.push(attempt);
            }
        }
    }

    fn routine(&self, place: &'a Place, found: &'a Found, attempts: &mut Vec<Attempt<'a>>) {
        let catalog = format!("pg_catalog.has_function_privilege({}::oid, 'EXECUTE')", found.oid);
        let mut attempt = self.asked(place, found, Action::Execute, Privilege::Execute, catalog);
        if let Some(call) = &found.call {
            attempt.ask = Ask::Try(call.clone());
        }
        attempts.push(attempt);
    }

    fn asked(
        &self,
        place: &'a Place,
        found: &'a Found,
        action: Action,
        privilege: Privilege,
        expression: String,
    ) -> Attempt<'a> {
        let expected = self.allows(found, None, privilege);
        Attempt {
            place,
            action,
            found: Some(found),
            column: None,
            privilege,
            ask: Ask::Catalog(expression),
            expected,
            reaches: false,
        }
    }
}

/// The statement of an attempt as somebody who may do everything makes it: the positive control of last resort.
///
/// # Errors
/// As [`Subject::entering`].
pub fn control(attempt: &Attempt<'_>) -> Result<Option<Ask>, StepError> {
    Ok(match (&attempt.ask, attempt.found) {
        (Ask::Catalog(_), _) => None,
        (Ask::Enter(_), _) | (Ask::Try(_), None) => Some(attempt.ask.clone()),
        (Ask::Try(_), Some(found)) if found.call.is_some() => Some(attempt.ask.clone()),
        (Ask::Try(_), Some(found)) if found.rewritten && attempt.privilege == Privilege::Update => {
            Some(attempt.ask.clone())
        }
        (Ask::Try(_), Some(found)) => {
            whole(found, attempt.privilege)?.map(|statement| Ask::Try(explain(&statement, false)))
        }
    })
}

fn enter(place: &Place) -> Result<String, StepError> {
    Ok(format!("EXPLAIN SELECT FROM {}.{}", ident(&place.name)?, ident(NOWHERE)?))
}

fn explain(statement: &str, reaches: bool) -> String {
    // VERBOSE names the schema of every relation, JSON its name unquoted.
    if reaches { format!("EXPLAIN (VERBOSE, FORMAT JSON) {statement}") } else { format!("EXPLAIN {statement}") }
}

/// The columns that a privilege is about: a view may have some that cannot be written.
fn concerned(found: &Found, privilege: Privilege) -> Vec<&Column> {
    match privilege {
        Privilege::Select => found.columns.iter().collect(),
        Privilege::Insert | Privilege::Update => found.columns.iter().filter(|column| column.writable).collect(),
        _ => Vec::new(),
    }
}

/// A statement that needs the privilege on the whole relation.
fn whole(found: &Found, privilege: Privilege) -> Result<Option<String>, StepError> {
    let columns = concerned(found, privilege);
    match privilege {
        Privilege::Select => Ok(Some(format!("SELECT * FROM {}", qualified(&found.object)?))),
        Privilege::Update if columns.is_empty() => Ok(None),
        Privilege::Insert | Privilege::Update if !columns.is_empty() => {
            of_columns(found, privilege, &columns).map(Some)
        }
        _ => any(found, privilege),
    }
}

/// A statement for which the privilege on any column is enough; `None` where there is none.
fn any(found: &Found, privilege: Privilege) -> Result<Option<String>, StepError> {
    let name = qualified(&found.object)?;
    Ok(match privilege {
        Privilege::Select => Some(format!("SELECT FROM {name}")),
        Privilege::Insert => Some(format!("INSERT INTO {name} DEFAULT VALUES")),
        Privilege::Delete => Some(format!("DELETE FROM {name}")),
        _ => None,
    })
}

fn of_columns(found: &Found, privilege: Privilege, columns: &[&Column]) -> Result<String, StepError> {
    let name = qualified(&found.object)?;
    let names = columns.iter().map(|column| ident(&column.name)).collect::<Result<Vec<_>, _>>()?;
    Ok(match privilege {
        Privilege::Insert => {
            let values = vec!["DEFAULT"; names.len()];
            format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), values.join(", "))
        }
        Privilege::Update => {
            let sets: Vec<String> = names.iter().map(|column| format!("{column} = DEFAULT")).collect();
            format!("UPDATE {name} SET {}", sets.join(", "))
        }
        _ => format!("SELECT {} FROM {name}", names.join(", ")),
    })
}

/// What is asked of a role about the database and other ones, beside the schemas: (what, object, expression, expected).
///
/// # Errors
/// As [`Subject::entering`].
pub fn of_databases(
    role: &Role,
    database: &str,
    others: &[String],
) -> Result<Vec<(String, String, String, bool)>, StepError> {
    let mut asked = Vec::new();
    let privileges =
        [(Privilege::Connect, role.kind.logs_in()), (Privilege::Create, false), (Privilege::Temporary, false)];
    for (privilege, expected) in privileges {
        let expression = format!("pg_catalog.has_database_privilege({}, '{privilege}')", literal(database)?);
        asked.push((format!("{privilege} on the database"), database.to_owned(), expression, expected));
    }
    for other in others {
        let expression = format!("pg_catalog.has_database_privilege({}, 'CONNECT')", literal(other)?);
        asked.push((format!("CONNECT to {other}"), other.clone(), expression, false));
    }
    Ok(asked)
}
