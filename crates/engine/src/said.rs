//! What is told of a run by a process that is not at work on it: a person's words, and what was still owed at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Event, JournalError};
use crate::notice::Said;
use crate::tell::inbox;

/// How long the process at work is given to record what was left for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where a person's words were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// In the journal.
    InJournal,
    /// Left for the process that is at work on the run, or whichever takes it next.
    Left,
}

impl Engine {
    /// Records what a person had delivered: in the journal, or by the process that is at work on the run.
    ///
    /// # Errors
    /// If there is no such run, or what was said can be neither recorded nor left for the process at work.
    pub async fn record_said(&self, run: &str, said: &[Said]) -> Result<Recorded, EngineError> {
        let folder = self.artifacts.join(run);
        let mut left: Vec<PathBuf> = Vec::new();
        let began = self.clock.instant();
        let recorded = loop {
            let status = self.status(run).await?;
            let mut state = status.state;
            let is_new = |said: &&Said| !state.notices.iter().any(|told| told.notice.key == said.notice.key);
            let new: Vec<Said> = said.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                break Recorded::InJournal;
            }
            if status.holder.is_none() {
                let events = new.into_iter().flat_map(Said::events).collect();
                match self.append_to(run, &mut state, events).await {
                    Err(JournalError::Behind) => continue,
                    appended => appended?,
                }
                break Recorded::InJournal;
            }
            if left.is_empty() {
                left = leave(&folder, said).map_err(|error| EngineError::Artifacts {
                    folder: folder.display().to_string(),
                    why: error.to_string(),
                })?;
            }
            if self.clock.instant().duration_since(began) > PATIENCE {
                return Ok(Recorded::Left);
            }
            self.clock.sleep(LOOK_EVERY).await;
        };
        for path in left {
            // Whoever recorded it may have removed it.
            let _ = std::fs::remove_file(path);
        }
        Ok(recorded)
    }

    /// Delivers what a process that died at the end of a run still owed.
    pub(crate) async fn tell_the_rest(&self, run: &str) -> Result<(), EngineError> {
        let owed = self.fold(run).await?.notices.into_iter().filter(|owed| owed.delivered.is_none());
        let owed: Vec<_> = owed.map(|owed| owed.notice).collect();
        if owed.is_empty() || self.messenger.is_silent() || self.status(run).await?.holder.is_some() {
            return Ok(());
        }
        for notice in owed {
            let (delivered, said) = match self.messenger.deliver(&notice).await {
                Ok(said) => (true, said),
                Err(said) => (false, said),
            };
            let said = self.redactor.redact(&said).into_owned();
            let mut state = self.fold(run).await?;
            match self.append_to(run, &mut state, vec![Event::NoticeSent { key: notice.key, delivered, said }]).await {
                // Somebody else is at it: they have told it, or will.
                Err(JournalError::Behind | JournalError::Broken { .. }) => return Ok(()),
                appended => appended?,
            }
        }
        Ok(())
    }
}

/// Puts what was said where the process at work looks: each file whole, or not at all.
fn leave(artifacts: &Path, said: &[Said]) -> std::io::Result<Vec<PathBuf>> {
    let folder = inbox(artifacts);
    std::fs::create_dir_all(&folder)?;
    let mut paths = Vec::new();
    for one in said {
        let name: String = one.notice.key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let (partial, path) = (folder.join(format!(".{name}.partial")), folder.join(format!("{name}.json")));
        std::fs::write(&partial, serde_json::to_string(one).expect("texts"))?;
        std::fs::rename(&partial, &path)?;
        paths.push(path);
    }
    Ok(paths)
}
