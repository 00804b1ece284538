//! The application behind the items: small, but a real client of its database, on either side of a cutover.
//!
//! It serves profiles, each a *source*. In the mode `SQLITE` a source is a file of its own; in the mode `POSTGRES_PRIMARY` it is
//! a schema of one database, found by the mapping table `shared.sources`. What it answers is the same.

pub mod answer;
pub mod backend;
pub mod config;
pub mod http;
pub mod legacy;
pub mod log;
pub mod pool;
pub mod postgres;
pub mod profile;
pub mod sqlite;
