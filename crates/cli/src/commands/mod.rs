//! One file for each command, or for commands that are one thing from two sides.

mod adopt;
mod after;
mod audit;
mod backup;
mod close_review;
mod demands;
mod drift;
mod fence;
mod guard;
mod init;
mod lint;
mod migrate;
mod notify;
pub mod pages;
mod parity;
mod plan;
mod probe;
mod promote;
mod proof;
mod redis;
mod review;
mod run;
mod sandbox;
mod serve;
mod sign_off;
mod source;
mod status;
mod topology;
mod transfer;

pub use demands::remedy;

use crate::app::App;
use crate::args::{Command, ReviewAction};
use crate::failure::Failure;

/// Runs a command; the exit code.
pub async fn run(app: &App, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init => init::init(app),
        Command::Lint { files } => lint::lint(app, &files),
        Command::Fmt { files, check } => lint::fmt(app, &files, check),
        Command::Adopt { file, out } => adopt::adopt(app, &file, out.as_deref()),
        Command::Plan { file, vars, out } => plan::plan(app, &file, &vars, out.as_deref()).await,
        Command::Run { file, plan, vars, consent, overrides } => {
            run::run(app, &file, plan.as_deref(), &vars, &consent, &overrides).await
        }
        Command::Promote(args) => promote::promote(app, &args).await,
        Command::Resume { run, decide, consent, overrides, summary } => {
            run::resume(app, run.as_deref(), decide.as_deref(), &consent, &overrides, summary.as_deref()).await
        }
        Command::Rollback { run, path, reason, consent } => {
            run::rollback(app, run.as_deref(), path.as_deref(), reason, &consent).await
        }
        Command::Rehearse { file, vars, from, break_in } => {
            run::rehearse(app, &file, &vars, from.as_deref(), break_in).await
        }
        Command::Status { run } => status::status(app, run.as_deref()).await,
        Command::Show { run } => status::show(app, run.as_deref()).await,
        Command::Watch { run, remind } => status::watch(app, run.as_deref(), remind).await,
        Command::Approve { what, key, signature } => {
            proof::approve(app, &what, key.as_deref(), signature.as_deref()).await
        }
        Command::SignOff { run, role, key, signature } => {
            sign_off::sign_off(app, run.as_deref(), role.as_deref(), key.as_deref(), signature.as_deref()).await
        }
        Command::CloseReview(args) => close_review::close_review(app, &args).await,
        Command::Notify(args) => notify::notify(app, &args).await,
        Command::Report { run, out, key } => proof::report(app, run.as_deref(), out.as_deref(), key.as_deref()).await,
        Command::Verify { folder, signers } => proof::verify(app, &folder, signers.as_deref()),
        Command::Review { action: Some(ReviewAction::Boundary), .. } => review::boundary(app),
        Command::Review { action: None, gate } => review::review(app, &gate).await,
        Command::Drift(args) => drift::drift(app, &args).await,
        Command::Migrate { action } => migrate::migrate(app, action).await,
        Command::Topology { action } => topology::topology(app, action).await,
        Command::Provision { target, only } => topology::provision(app, &target, &only).await,
        Command::Probe { target, all_objects, roles, schemas, allow_inconclusive } => {
            probe::probe(app, &target, all_objects, roles, schemas, allow_inconclusive).await
        }
        Command::Source { action } => source::source(app, action).await,
        Command::Transfer { action } => transfer::transfer(app, action).await,
        Command::Redis { action } => redis::redis(app, action).await,
        Command::Fence { action } => fence::fence(app, action).await,
        Command::Backup { target, out, verify } => backup::backup(app, &target, &out, verify).await,
        Command::Restore { target, file, yes } => backup::restore(app, &target, &file, yes).await,
        Command::Audit { target, level } => audit::audit(app, &target, level).await,
        Command::Parity(args) => parity::parity(app, &args).await,
        Command::Guard { action } => guard::guard(app, action).await,
        Command::Serve(args) => serve::serve(app, &args).await,
        Command::Sandbox { action } => sandbox::sandbox(app, action).await,
        Command::Completions { .. } | Command::Man { .. } => unreachable!("answered before the runtime was started"),
    }
}
