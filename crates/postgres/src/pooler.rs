//! Whether a pooler in front gives one session's backend to another: then nothing that belongs to a session holds.

use crate::error::PgError;
use crate::session::Session;

/// How often is looked: each look finds a pooler unless other clients happen to take the backends in between.
const LOOKS: usize = 3;

/// Whether `session` shares its backend with other clients: a pooler in transaction or statement mode.
///
/// A second session is opened beside it. A backend that serves both, or that changes under the first, is a shared one;
/// directly, or through a pooler in session mode, neither can happen.
///
/// # Errors
/// If the second session cannot be opened.
pub async fn shares_its_backend(session: &Session) -> Result<bool, PgError> {
    let other = Session::connect(session.options(), "pgrunbook:pooler").await?;
    let pid = "SELECT pg_catalog.pg_backend_pid()";
    let mut first = session.backend_pid().to_string();
    for _ in 0..LOOKS {
        let theirs = other.value(pid).await?;
        let ours = session.value(pid).await?;
        if ours == theirs || ours != first {
            return Ok(true);
        }
        first = ours;
    }
    Ok(false)
}
