//! How the engine gets from a block to a step: the kinds, as whoever opens a project puts them together.

use pgrunbook_document::{Block, Vocabulary};

use crate::step::{Step, StepError};

/// All kinds of step, and how each is built. Implemented by the registry.
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
}
