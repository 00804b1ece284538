//! The wanted databases, schemas, roles, grants, defaults and policies; what is missing of them; and how they are made so
//! with the least change.
//!
//! [`load`] reads the declaration, and absence from it means absence of access. What there is effectively is the audit's
//! answer, and what can really be done is the probes': neither shares code with this folder.

mod declare;
mod expand;
mod model;

pub use declare::{DeclarationError, FILE};
pub use expand::{BUILT_IN, load};
pub use model::{
    AccessSet, AppendOnly, ChainUse, Covers, Exception, Kind, Object, Objects, Privilege, Role, RoleKind, RowSecurity,
    Rule, Schema, Status, Table, Topology, WithoutContext,
};
