//! The legacy schema's definitions, under another name.
//!
//! PostgreSQL itself does the renaming: the source's definitions go into a scratch database, extensions go where the target
//! has them, `ALTER SCHEMA public RENAME TO tenant`, and what `pg_dump` prints then is right in views, defaults, foreign
//! keys, policies, `BEGIN ATOMIC` bodies. Only texts that become SQL when they run are left: see `rewrite`. That nothing was
//! lost is not believed but compared, catalogue by catalogue ([`Structure::verify`]).
//!
//! Owners and privileges do not move: whom the objects belong to and who may use them is what the project's topology
//! declares.

mod catalogue;
mod create;
mod derive;
mod dump;
pub mod existing;
mod rewrite;
mod scratch;

use std::collections::BTreeMap;

use pgrunbook_postgres::{ConnectOptions, Session};

use super::error::TransferError;
use super::finding::{Finding, accept, blocking};
use super::preflight::Wanted;
use crate::backup::programs::Audience;
use catalogue::Catalogue;
use scratch::Scratch;

pub(in crate::transfer) use self::derive::POPULATED;
pub(in crate::transfer) use catalogue::without_decoration;
pub use create::{create_before, drop_marked, install, is_marked, run};
pub use existing::{Definition, Existing};

/// Under what objects are made: nothing is found by luck, and bodies are checked when all is there.
pub const PREAMBLE: &str = "SET search_path = ''; SET check_function_bodies = false; SET standard_conforming_strings = on; \
    SET client_min_messages = warning; SET row_security = off; SET xmloption = content; SET default_tablespace = ''; \
    SET default_table_access_method = heap";

/// One object, as SQL with every name qualified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// A word of a dump's table of contents: `TABLE`, `FK CONSTRAINT`, `MATERIALIZED VIEW DATA`, ...
    pub kind: String,
    /// As the dump's table of contents has it: a constraint's with its table before it; line breaks are blanks.
    pub name: String,
    /// The table that it is made on.
    pub table: Option<String>,
    /// One or more statements.
    pub sql: String,
}

/// A text that names the legacy schema and was changed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// `FUNCTION f(integer)`.
    pub object: String,
    /// As of `diff -u`.
    pub diff: String,
    /// Whether it takes the consent `dynamic-sql`.
    pub dynamic: bool,
}

/// What a schema is made of, in the order in which it is made.
#[derive(Debug, Clone, Default)]
pub struct Structure {
    /// What must exist before rows are copied: types, functions, tables, sequences, defaults, views.
    pub before: Vec<Object>,
    /// What comes after them: keys, indexes, foreign keys (`NOT VALID` ones stay so), statistics, triggers, rules, policies,
    /// refreshes, comments.
    pub after: Vec<Object>,
    /// Texts that were changed beyond what PostgreSQL renames.
    pub rewritten: Vec<Rewrite>,
    /// What stands in the way: [`Structure::ready`] is an error while there is any.
    pub refused: Vec<Finding>,
    /// What a person should know.
    pub notes: Vec<Finding>,
    /// As whom [`create_before`] makes it: the topology's owner. The session's own role, if none is set.
    pub owner: Option<String>,
    schema: String,
    shared: Vec<String>,
    scratch_major: u32,
    catalogue: Catalogue,
    /// Functions that did not compile at the source either.
    broken: BTreeMap<String, String>,
}

/// Derives the structure that the source's schema will have under its new name. The source is only read.
///
/// The scratch database is made on the target's server; where the role may not make one, or no installed `pg_dump` reads that
/// server, in a throwaway cluster of this machine. `accepted` are the words of the step's `accept`.
///
/// # Errors
/// If the source cannot be dumped, no scratch database can be had, or an object of the schema cannot be made in it.
pub async fn derive(
    source: &ConnectOptions,
    target: &ConnectOptions,
    wanted: &Wanted,
    accepted: &[String],
    audience: Audience<'_>,
) -> Result<Structure, TransferError> {
    let from = Session::connect(source, "pgrunbook:structure").await?;
    let to = Session::connect(target, "pgrunbook:structure").await?;
    let (from_major, to_major) = (major(&from).await?, major(&to).await?);
    let dumped = dump::definitions(source, from_major, None, audience).await?;
    let homes = derive::extension_homes(&to).await?;
    let scratch = Scratch::make(&to, from_major, to_major).await?;
    let derived = derive::within(&scratch, dumped, &from, homes, wanted, accepted, audience).await;
    let dropped = scratch.drop().await;
    let mut structure = derived?;
    dropped?;
    accept(&mut structure.refused, accepted);
    let (refused, notes) =
        structure.refused.drain(..).partition(|one| blocking(std::slice::from_ref(one)).next().is_some());
    structure.refused = refused;
    structure.notes.extend::<Vec<Finding>>(notes);
    Ok(structure)
}

impl Structure {
    /// The structure, if nothing stands in its way.
    ///
    /// # Errors
    /// [`TransferError::Findings`] with all that does.
    pub fn ready(&self) -> Result<&Self, TransferError> {
        match self.refused.is_empty() {
            true => Ok(self),
            false => Err(TransferError::Findings { findings: self.refused.clone() }),
        }
    }

    /// Compares the schema in the target, `before` and `after` made, with what was derived: everything that PostgreSQL knows
    /// of it, that nothing in it rests on another schema, and that functions with texts for bodies compile.
    ///
    /// Where the scratch server was of another major version, parentheses and qualifiers in expressions are not compared: the
    /// versions print them differently.
    ///
    /// # Errors
    /// [`TransferError::Differs`] with every difference.
    pub async fn verify(&self, target: &Session) -> Result<(), TransferError> {
        let there = catalogue::read(target, &self.schema).await?;
        let other_major = major(target).await? != self.scratch_major;
        let mut differences = catalogue::differences(&self.catalogue, &there, other_major);
        for (what, on) in catalogue::rest_on_others(target, &self.schema).await? {
            differences.push(format!("{what} rests on {on}"));
        }
        for (function, why) in catalogue::compile(target, &self.schema, &self.shared).await? {
            if !self.broken.contains_key(&function) {
                differences.push(format!("function {function} does not compile: {why}"));
            }
        }
        if differences.is_empty() { Ok(()) } else { Err(TransferError::Differs { differences }) }
    }
}

/// What says of a member of a schema no more than that there is one.
pub(in crate::transfer) const IS_THERE: &str = "is there";

/// All parts of a schema, by a word and their name: the relation that each is a part of, and its text.
///
/// # Errors
/// If the catalogs cannot be read.
pub(in crate::transfer) async fn parts(
    session: &Session,
    schema: &str,
) -> Result<BTreeMap<String, (Option<String>, String)>, TransferError> {
    let parts = catalogue::read(session, schema).await?;
    Ok(parts.into_iter().map(|(key, entry)| (key, (entry.relation, entry.text))).collect())
}

async fn major(session: &Session) -> Result<u32, TransferError> {
    const MAJOR: &str = "SELECT pg_catalog.current_setting('server_version_num')::int / 10000";
    Ok(session.value(MAJOR).await?.parse().unwrap_or(0))
}
