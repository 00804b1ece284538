//! Who may reach which keys: the table `redis` of the declaration, the rules it means, and making them so.
//!
//! A rule is one `ACL SETUSER` with `reset` first, since the command adds to what is there otherwise; the server takes it
//! whole or not at all. Replicas do not take over rules: each server gets them, or a failover would open every prefix.

mod apply;
mod commands;
mod declare;

pub use apply::{Applied, Before, Kept, Order, Password, Plan, apply, is_undone, plan, undo};
pub use declare::{Access, DefaultUser, User, load};
