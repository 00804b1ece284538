//! The wanted databases, schemas, roles, grants, defaults and policies; what is missing of them; and how they are made so
//! with the least change.
//!
//! [`load`] reads the declaration, and absence from it means absence of access. What there is effectively is the audit's
//! answer, and what can really be done is the probes': neither shares code with this folder.

mod apply;
mod declare;
mod diff;
mod expand;
mod guard;
mod import;
mod model;
mod sources;
mod state;
mod step;
mod write;

pub use apply::{Applied, How, apply, plan, today, undo};
pub use declare::{DeclarationError, FILE};
pub use diff::{Order, Plan, Statement, Wish};
pub use expand::{BUILT_IN, load};
pub use import::import;
pub use model::{
    AccessSet, AppendOnly, ChainUse, Covers, Exception, Kind, Object, Objects, Privilege, Role, RoleKind, RowSecurity,
    Rule, Schema, Status, Table, Topology, WithoutContext,
};
pub use sources::{Sources, completed};
pub use step::KIND;

pub(crate) use apply::LOCK;
pub(crate) use step::{declaration_error, details};
pub(crate) use write::{ident, literal, table};
