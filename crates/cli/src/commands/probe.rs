//! `probe`: what every role can really do, found out by trying.

use pgrunbook_engine::SystemClock;
use pgrunbook_steps::isolation::{How, STATEMENT_TIMEOUT, Undecided, passes, prove};
use pgrunbook_steps::topology::today;

use crate::app::App;
use crate::args::Output;
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Findings of each kind that a terminal shows in full; `--format json` has them all.
const SHOWN: usize = 20;

pub async fn probe(
    app: &App,
    target: &str,
    all_objects: bool,
    roles: Vec<String>,
    schemas: Vec<String>,
    allow_inconclusive: bool,
) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let topology = workplace.topology()?;
    let options = workplace.postgres(target)?;
    let cancel = app.cancel_on_signals();
    let some = |names: Vec<String>| (!names.is_empty()).then(|| names.into_iter().collect());
    let how = How {
        all_objects,
        roles: some(roles),
        schemas: some(schemas),
        today: today(&SystemClock),
        password: &|reference| workplace.role_password(reference).ok(),
        pooler: &|target| workplace.postgres(target).ok().cloned(),
        statement_timeout: STATEMENT_TIMEOUT,
        application_name: "pgrunbook:probe",
        cancel: &cancel,
        tell: &|_, _| {},
    };
    let matrix = prove(options, topology, &how).await?;
    match app.global.format {
        Output::Json => put(&matrix.json().to_string()),
        _ => put(matrix.terminal(SHOWN).trim_end()),
    }
    let undecided = if allow_inconclusive { Undecided::Allow } else { Undecided::Deny };
    Ok(if passes(&matrix, undecided) { exit::DONE } else { exit::FAILED })
}
