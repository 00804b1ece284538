//! Why a review cannot be made.

use crate::project::ProjectError;

/// Why a review cannot be made. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("{} declares no trees of code", .path)]
    NoTrees { path: String },
    #[error(transparent)]
    Project(#[from] ProjectError),
}
