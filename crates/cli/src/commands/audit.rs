//! `audit`: what every role really reaches, against the topology.

use pgrunbook_engine::SystemClock;
use pgrunbook_postgres::Session;
use pgrunbook_steps::audit as capability;
use pgrunbook_steps::topology::{completed, today};

use crate::app::App;
use crate::args::AuditLevel;
use crate::exit;
use crate::failure::Failure;

/// Exit 1 with findings at a level or above.
pub async fn audit(app: &App, target: &str, level: AuditLevel) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let session = Session::connect(workplace.postgres(target)?, "pgrunbook:audit").await?;
    let topology = completed(&session, workplace.topology()?).await?;
    let audited = capability::audit(&session, &topology, today(&SystemClock)).await?;
    app.report(&capability::render(&audited, &topology.source, app.lint_format()));
    Ok(if audited.at_least(level.into()).next().is_none() { exit::DONE } else { exit::FAILED })
}
