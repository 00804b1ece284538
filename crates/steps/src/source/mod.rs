//! Sources: one schema for each source id, found by a mapping table of the database.
//!
//! [`sanitise`] makes a schema's name of an id as people have them; the mapping decides, and two ids never share a schema.
//! [`lookup`] answers with the schema or refuses, and has no default: a service that falls back to another source's schema
//! mixes their rows. All sources share their roles, so what keeps them apart is the `search_path` of each transaction
//! ([`search_path_of`]): that is a guard against mistakes, not against SQL that somebody injects.

mod bootstrap;
mod check;
mod error;
mod name;
mod registry;
mod snapshot;
mod step;
mod undo;

pub use bootstrap::{Bootstrapped, Made, bootstrap};
pub use check::{KIND as CHECK, findings};
pub use error::SourceError;
pub use name::{SchemaName, sanitise, search_path_of};
pub use registry::{Listed, Listing, list, lookup};
pub use snapshot::{Exchange, Exchanged, Snapshot, after, before, exchanged, take_back};
pub use step::KIND;
pub use undo::rested_on;
