//! What a process holds while it is at work on a run: the lease in the journal and the claims on the targets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrunbook_document::StepId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::fault::{self, Point};
use crate::journal::JournalError;
use crate::plan::Plan;
use crate::redact::Redactor;
use crate::target::{Claim, Target};
use crate::workshop::Workshop;

/// Six heartbeats may be lost before [`crate::journal::LEASE_EXPIRY`].
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The lease of a run, its heart beating until it is released or dropped.
pub(crate) struct Lease {
    name: String,
    claim: Claim,
    targets: Vec<Arc<dyn Target>>,
    step: watch::Sender<Option<StepId>>,
    lost: watch::Receiver<bool>,
    heart: JoinHandle<()>,
    claimed: AtomicBool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

impl Lease {
    /// Takes the lease in the journal, and raises the run's epoch.
    ///
    /// # Errors
    /// [`JournalError::Taken`], with the step at which the holder stands.
    pub async fn claim(engine: &Engine, run: &str, plan: &Plan, workshop: &Workshop) -> Result<Self, EngineError> {
        let name = lease_name(plan);
        let mut claim = Claim {
            run: run.to_owned(),
            runbook: plan.title.clone(),
            epoch: 0,
            operator: engine.operator.principal.clone(),
            host: engine.operator.host.clone(),
            pid: engine.operator.pid,
            since: engine.clock.now(),
            step: None,
        };
        fault::pass(Point::BeforeClaim);
        claim.epoch = match engine.journal.claim(&name, &claim).await {
            Ok(epoch) => epoch,
            Err(JournalError::Taken(mut holder)) => {
                // The lease knows the step of the last heartbeat, the journal that of now.
                if let Ok(state) = engine.fold(&holder.run).await
                    && let Some((step, _)) = state.in_doubt()
                {
                    holder.step = Some(step.clone());
                }
                return Err(JournalError::Taken(holder).into());
            }
            Err(error) => return Err(error.into()),
        };
        fault::pass(Point::AfterClaim);

        let targets = workshop.claimed.iter().filter_map(|name| engine.targets.get(name).cloned()).collect();
        let (step, stands_at) = watch::channel(None);
        let (loser, lost) = watch::channel(false);
        let (journal, clock) = (Arc::clone(&engine.journal), Arc::clone(&engine.clock));
        let (beat_name, mut beat_claim) = (name.clone(), claim.clone());
        let heart = tokio::spawn(async move {
            loop {
                clock.sleep(HEARTBEAT).await;
                beat_claim.step.clone_from(&stands_at.borrow());
                // A storage that fails once is no lost lease: the next append tells for certain.
                if let Err(JournalError::Behind) = journal.heartbeat(&beat_name, &beat_claim).await {
                    let _ = loser.send(true);
                    return;
                }
            }
        });
        Ok(Self { name, claim, targets, step, lost, heart, claimed: AtomicBool::new(false) })
    }

    pub fn epoch(&self) -> u64 {
        self.claim.epoch
    }

    /// Remembers at which step the run stands, for the next heartbeat.
    pub fn stand_at(&self, step: &StepId) {
        self.step.send_replace(Some(step.clone()));
    }

    /// Waits until another process has taken over.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Raises the epoch on every target of which something may be changed: whoever held an earlier one can no longer
    /// act there.
    pub async fn claim_targets(&self, redactor: &Redactor) -> Result<(), EngineError> {
        self.claimed.store(true, Ordering::SeqCst);
        let claim = self.claim_now();
        for target in &self.targets {
            fault::pass(Point::BeforeClaim);
            let claimed = target.claim(&claim).await;
            claimed.map_err(|source| EngineError::of_target(target.name(), redactor.redact_error(source)))?;
            fault::pass(Point::AfterClaim);
        }
        Ok(())
    }

    fn claim_now(&self) -> Claim {
        Claim { step: self.step.borrow().clone(), ..self.claim.clone() }
    }

    /// Gives everything back. What cannot be given back is taken over by the next process, as after a crash.
    pub async fn release(self, engine: &Engine) -> Result<(), JournalError> {
        self.heart.abort();
        let claim = self.claim_now();
        if self.claimed.load(Ordering::SeqCst) {
            for target in &self.targets {
                // A target that cannot be reached now: its claim names a process that will be gone.
                let _ = target.release(&claim).await;
            }
        }
        engine.journal.release(&self.name, &claim).await
    }
}

/// The same work on the same things: two runs of it at once are refused.
fn lease_name(plan: &Plan) -> String {
    let targets: Vec<_> = plan.targets.iter().map(|target| target.key.as_str()).collect();
    format!("{} in {} on {}", plan.runbook, plan.environment, targets.join(", "))
}
