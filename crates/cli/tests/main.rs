//! The program, as a person or a script calls it, on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod breach;
mod close_review;
mod crash;
mod crash_cutover;
mod cutover;
mod fence;
mod gate;
mod gate_alone;
mod gate_sight;
mod gate_tenants;
mod given;
mod guard;
mod notify;
mod parity;
mod place;
mod progress;
mod promote;
mod proof;
mod receiver;
mod redis;
mod review;
mod serve;
mod sign_off;
mod source;
mod surface;
mod topology;
mod transfer;
mod unhappy;
mod usual;
