//! How the engine gets from a block to a step: the kinds, as whoever opens a project puts them together.

use async_trait::async_trait;
use pgrunbook_document::{Block, Vocabulary};

use crate::step::{Step, StepError};

/// What became of what a run held only as long as a process was in charge of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetGo {
    /// What was done about it now, a line each.
    pub done: Vec<String>,
    /// Steps whose effect was taken back behind their outcome, a line each: forward, the run cannot end with them.
    pub undone: Vec<String>,
}

/// All kinds of step, and how each is built. Implemented by the registry.
#[async_trait]
pub trait Kinds: Send + Sync {
    /// The kinds as data, for the parser.
    fn vocabulary(&self) -> Vocabulary<'_>;

    /// Builds the step of a block whose `for_each` and variables are bound. Touches nothing.
    ///
    /// # Errors
    /// If the block's fields are wrong or its target is not one of the project.
    fn build(&self, block: &Block) -> Result<Box<dyn Step>, StepError>;

    /// Builds the step that undoes `step`, whose `undo` names the forward step `by`: a restore of that backup.
    /// `None` if a step of that kind cannot undo another.
    ///
    /// The step is applied under the undone step's id, with the direction back; what the backup recorded is in
    /// [`crate::RunCx::recorded`] under the id of `by`.
    fn undo_by(&self, by: &Block, step: &Block) -> Option<Result<Box<dyn Step>, StepError>>;

    /// Lets go what steps of this run hold only as long as a process is in charge of it (a pooler's clients that wait, a freeze
    /// that no switch has ended). Called when a process takes the run, for what one before it left, and before one leaves it.
    /// Doing it again does nothing.
    async fn let_go(&self, _run: &str) -> LetGo {
        LetGo::default()
    }
}
