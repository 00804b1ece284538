//! A fence with what stands around it: poolers that are paused before, a budget that undoes all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrunbook_engine::{RunCx, StepError, SystemClock};
use pgrunbook_postgres::pgbouncer::Door;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::doors::{self, pooler_error};
use super::error::FenceError;
use super::freeze::{self, Freeze, Whose};
use super::guard::{Fence, Fenced, fence};
use super::lift::{Lift, unfence};
use super::standing;

/// How long a resume is tried: clients wait.
pub(crate) const RESUME_BUDGET: Duration = Duration::from_secs(30);

/// Between two tries to lift a fence on a server that may answer soon.
const AGAIN: Duration = Duration::from_millis(200);

/// A fence with what stands around it: poolers before, a budget behind.
#[derive(Debug, Clone)]
pub struct Freezing {
    /// As the project calls it.
    pub target: String,
    pub options: ConnectOptions,
    pub wish: Fence,
    pub doors: Vec<Door>,
    pub budget: Option<Duration>,
    /// The project's folder.
    pub root: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Frozen {
    pub fenced: Fenced,
    /// Undoes all when the budget is over, unless a switch disarms it.
    pub freeze: Option<Freeze>,
}

impl Freezing {
    /// Pauses the poolers and sets the fence. On any failure all is undone, and clients go on.
    ///
    /// # Errors
    /// Of the poolers and of the fence.
    pub async fn begin(&self, cx: &RunCx<'_>) -> Result<Frozen, StepError> {
        let name = crate::sql::application_name(cx.run, cx.step);
        let session = Session::connect(&self.options, &name).await.map_err(PgError::into_step_error)?;
        // Made before the first client waits.
        standing::install(&session).await?;
        let whose = Whose {
            run: cx.run.to_owned(),
            step: cx.step.to_string(),
            direction: cx.direction,
            schemas: vec![self.wish.schema.clone()],
            folder: Some(cx.artifacts.to_owned()),
        };
        freeze::forget(&whose);
        let guard = self.budget.map(|budget| {
            let (this, operator) = (self.clone(), cx.operator.to_owned());
            let undo: freeze::Undo = Box::new(move || Box::pin(async move { this.thaw(&operator).await }));
            Freeze::begin(whose, budget, Arc::new(SystemClock), undo)
        });
        let outcome = async {
            if !self.doors.is_empty() {
                cx.say(format!("pausing {} pooler(s)", self.doors.len()));
                let limit = self.budget.unwrap_or(self.wish.patience.budget);
                let who = [cx.run, cx.step.as_str()];
                doors::pause_all(&self.root, who, &self.doors, limit).await.map_err(pooler_error)?;
            }
            fence(&session, &self.wish, cx.cancel).await.map_err(|error| error.at(&self.target))
        };
        let error = match outcome.await {
            Ok(fenced) => match guard.as_ref().and_then(Freeze::ended) {
                None => return Ok(Frozen { fenced, freeze: guard }),
                // The budget was over while the fence was being set.
                Some(thaw) => StepError::failed("freeze-budget", format!("{thaw}")),
            },
            Err(error) => error,
        };
        // The fence may have been committed after the undo looked for it.
        let thawed = match guard.map(|guard| async move { guard.give_up().await }) {
            Some(giving_up) => {
                let _ = giving_up.await;
                self.thaw(cx.operator).await
            }
            None => self.thaw(cx.operator).await,
        };
        match thawed {
            Ok(()) => Err(error),
            Err(stuck) => Err(StepError::in_doubt("thaw", format!("{error} Then the way back failed: {stuck}"))),
        }
    }

    /// Lifts the fence, if it is there, and resumes the poolers; also where the first fails.
    async fn thaw(&self, operator: &str) -> Result<(), String> {
        let mut retries = Retries::within(RESUME_BUDGET);
        let lifted = loop {
            match self.lifted(operator).await {
                Err(FenceError::Server(error)) if retries.again(error.may_pass()).await => {}
                done => break done.map_err(|error| error.to_string()),
            }
        };
        let resumed =
            doors::resume_all(&self.root, &self.doors, RESUME_BUDGET).await.map_err(|error| error.to_string());
        way_back(lifted, resumed)
    }

    async fn lifted(&self, operator: &str) -> Result<(), FenceError> {
        let session = Session::connect(&self.options, "pgrunbook:thaw").await?;
        // Another's fence is left alone.
        if !standing::is_committed(&session, &self.wish.id).await? {
            return Ok(());
        }
        let lift = Lift { schema: &self.wish.schema, id: Some(&self.wish.id), by: operator, ..Lift::default() };
        unfence(&session, &lift, &pgrunbook_engine::Cancel::default()).await.map(drop)
    }
}

/// The tries of what lets writers go on: a server that starts again, or has no connection to spare, must not keep them out for longer
/// than that.
pub(crate) struct Retries {
    begun: Instant,
    budget: Duration,
    /// Of the try that is under way, from 1.
    pub number: u32,
}

impl Retries {
    pub fn within(budget: Duration) -> Self {
        Self { begun: Instant::now(), budget, number: 1 }
    }

    /// After a failure: waits for the next try, if what failed may pass by itself and the budget is not over. `false`: that was the last.
    pub async fn again(&mut self, may_pass: bool) -> bool {
        if !may_pass || self.begun.elapsed() >= self.budget {
            return false;
        }
        tokio::time::sleep(AGAIN).await;
        self.number += 1;
        true
    }
}

/// How a way back ended: what is certainly safe, then what a person must do.
fn way_back(lifted: Result<(), String>, resumed: Result<(), String>) -> Result<(), String> {
    match (lifted, resumed) {
        (Ok(()), Ok(())) => Ok(()),
        (Ok(()), Err(why)) => Err(format!("no fence stands any more, and nothing was switched; {why}")),
        (Err(why), Ok(())) => Err(format!("no pooler is paused any more; the fence may still stand: {why}")),
        (Err(one), Err(other)) => Err(format!("nothing was switched; the fence may still stand: {one}; {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_back_that_fails_in_part_says_what_is_safe() {
        let failed = |why: &str| Err(why.to_owned());
        assert_eq!(way_back(Ok(()), Ok(())), Ok(()));
        let stuck = way_back(Ok(()), failed("CLIENTS STILL WAIT: type it")).unwrap_err();
        assert_eq!(stuck, "no fence stands any more, and nothing was switched; CLIENTS STILL WAIT: type it");
        let fenced = way_back(failed("db1 is gone"), Ok(())).unwrap_err();
        assert_eq!(fenced, "no pooler is paused any more; the fence may still stand: db1 is gone");
        let both = way_back(failed("db1 is gone"), failed("CLIENTS STILL WAIT: type it")).unwrap_err();
        assert!(both.contains("may still stand: db1 is gone") && both.ends_with("type it"), "{both}");
    }
}
