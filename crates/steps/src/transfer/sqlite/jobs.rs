//! What is left to do, for several connections: copies first, and a table's indexes as soon as all of it is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::Notify;

use super::piece::Piece;

/// One thing for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Rows; `frozen` in the transaction that makes the table.
    Copy { piece: Piece, frozen: bool },
    /// An object of the structure's `after`.
    Make(usize),
    /// Statistics of a table of the mapping.
    Analyze(usize),
}

/// The jobs, shared by the workers.
pub struct Jobs {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    ready: VecDeque<Job>,
    /// Pieces of a table that are not done.
    pieces: BTreeMap<usize, usize>,
    /// What can begin when a table is complete.
    behind: BTreeMap<usize, Vec<Job>>,
    running: usize,
    given_up: bool,
    copied_at: Option<Instant>,
}

impl Jobs {
    /// Copies in their order, and what comes behind each table.
    pub fn new(copies: Vec<(usize, Job)>, behind: BTreeMap<usize, Vec<Job>>) -> Self {
        let mut pieces = BTreeMap::new();
        for (table, _) in &copies {
            *pieces.entry(*table).or_insert(0) += 1;
        }
        let ready = copies.into_iter().map(|(_, job)| job).collect();
        let state = State { ready, pieces, behind, running: 0, given_up: false, copied_at: None };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Jobs that wait for nothing.
    pub fn all(jobs: Vec<Job>) -> Self {
        let state = State {
            ready: jobs.into(),
            pieces: BTreeMap::new(),
            behind: BTreeMap::new(),
            running: 0,
            given_up: false,
            copied_at: None,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it is held")
    }

    /// The next job; none when all are done, or somebody gave up.
    pub async fn next(&self) -> Option<Job> {
        loop {
            // Registered before looking: a change in between is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.given_up {
                    return None;
                }
                if let Some(job) = state.ready.pop_front() {
                    state.running += 1;
                    return Some(job);
                }
                if state.running == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A job is done; what waited for it can begin.
    pub fn done(&self, job: Job) {
        let mut state = self.state();
        state.running = state.running.saturating_sub(1);
        if let Job::Copy { piece, .. } = job {
            let left = state.pieces.get_mut(&piece.table).map_or(0, |left| {
                *left -= 1;
                *left
            });
            if left == 0 {
                state.pieces.remove(&piece.table);
                let behind = state.behind.remove(&piece.table).unwrap_or_default();
                state.ready.extend(behind);
                if state.pieces.is_empty() {
                    state.copied_at = Some(Instant::now());
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A job failed: nobody begins another.
    pub fn give_up(&self) {
        self.state().given_up = true;
        self.changed.notify_waiters();
    }

    /// When the last row was in.
    pub fn copied_at(&self) -> Option<Instant> {
        self.state().copied_at
    }
}
