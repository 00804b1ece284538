//! Exit codes: documented, stable, and chosen in one place.

use pgrunbook_engine::RunEnd;

/// Everything that was asked for is done.
pub const DONE: u8 = 0;
/// A step or gate failed, or the operator stopped it; what is done stays done, and the run can be resumed.
pub const FAILED: u8 = 1;
/// Bad input, or a target that cannot be used; nothing was touched.
pub const UNUSABLE: u8 = 2;
/// A person must act: approve, confirm, answer.
pub const WAITING: u8 = 3;
/// Nobody can tell whether an effect happened; a decision is needed.
pub const UNKNOWN: u8 = 4;

/// For `--help`.
pub const HELP: &str = "\
Example:
  pgrunbook plan RUNBOOK.md
  pgrunbook run RUNBOOK.md

Exit codes:
  0  done
  1  a step or gate failed, or the operator stopped it; what is done stays done
  2  bad input, or a target that cannot be used; nothing was touched
  3  waiting for a person
  4  an effect is unknown and needs a decision";

/// The exit code of a run's end.
pub fn of_end(end: &RunEnd) -> u8 {
    match end {
        RunEnd::Completed | RunEnd::RolledBack => DONE,
        RunEnd::Failed { .. } | RunEnd::RollbackBlocked { .. } | RunEnd::Refused { .. } | RunEnd::Stopped { .. } => {
            FAILED
        }
        RunEnd::Waiting { .. } => WAITING,
        RunEnd::Unknown { .. } => UNKNOWN,
    }
}
