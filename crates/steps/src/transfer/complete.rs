//! Ends a transfer: what it keeps on both servers goes, and with it the way back.

use std::time::Duration;

use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::{PgError, Session};

use super::ends::Ends;
use super::follow::Turn;
use super::state::{self, Phase};
use super::streams::{self, Names};
use crate::typed::on_transfer;
use crate::workplace::Workplace;

/// What a person does where it never answers again.
fn gone(schema: &str, target: &str) -> String {
    let by_hand = on_transfer("complete", schema, target, &["--without-source", "--yes"]);
    format!("if the source's server is gone for good: `without_source = true`, or {by_hand}")
}

/// How long the last writes may take to flow back.
const LAST: Duration = Duration::from_secs(60);

/// Why there is no way back any more, while one is taken down: the source has everything, or what it lacks.
const ENDING: &str = "`complete` has begun to take the way back down";
const SLOT_GONE: &str = "the reverse slot is gone: what was written last did not flow back";
const WITHOUT_SOURCE: &str = "it was being completed without its source";

/// Whether the source can be asked when its transfer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is asked, and has everything that was written up to now.
    There,
    /// Its server is gone for good: it is not asked, and what flowed back last is not waited for. Were it there after all, its slot would
    /// keep its WAL, and its fence would stand.
    Gone,
}

/// Ends the transfer into a schema, on which writers are at work in the target. The source stays as it is: fenced, and
/// with everything that was written up to now.
///
/// # Errors
/// If the target does not take the writes, a side cannot be asked, or a file is said to be gone; it may be called again.
pub async fn complete(
    workplace: &Workplace,
    target: &str,
    schema: &str,
    application_name: &str,
    cancel: &Cancel,
    source: Source,
) -> Result<Evidence, StepError> {
    let session =
        Session::connect(workplace.postgres(target)?, application_name).await.map_err(PgError::into_step_error)?;
    let transfer = state::find(&session, schema).await.map_err(PgError::into_step_error)?.ok_or_else(|| {
        StepError::unusable(
            "no-transfer",
            format!("nothing was transferred into the schema {schema}. Nothing was changed."),
        )
    })?;
    match transfer.phase {
        Phase::Complete => return Ok(Evidence::of(format!("the transfer into {schema} was complete already"))),
        Phase::Switched => {}
        phase => {
            return Err(StepError::unusable(
                "phase",
                format!(
                    "the transfer into {schema} is {} and not switched: the source takes the writes. Nothing was changed.",
                    phase.word()
                ),
            )
            .help("undo the `transfer` step to give it up, or cut over first"));
        }
    }
    if source == Source::Gone && super::sqlite::is_file(workplace, &transfer.spec.from) {
        return Err(StepError::unusable(
            "bad-value",
            format!(
                "the source of {schema} is a file, and only a server's end can be passed over. Nothing was changed."
            ),
        ));
    }
    if super::sqlite::is_file(workplace, &transfer.spec.from) {
        let facts = super::sqlite::complete(workplace, target, &transfer, cancel).await?;
        state::write(&session, &state::phase_sql(schema, Phase::Complete, None))
            .await
            .map_err(PgError::into_step_error)?;
        let evidence = Evidence::of(format!(
            "the transfer into {schema} is complete: there is no way back any more, and the file stays fenced"
        ));
        return Ok(facts.into_iter().fold(evidence, |evidence, (name, fact)| evidence.fact(&name, fact)));
    }
    let ends = Ends::of(workplace, target, &transfer)?;
    let names = Names::of(schema, &transfer.target);
    let mut evidence = Evidence::of(format!("the transfer into {schema} is complete: there is no way back any more"));
    // Why the source may lack what was written last; nothing where it has everything.
    let lacks = match &transfer.lossy {
        Some(why) if why != ENDING => Some(why.as_str()),
        None if source == Source::There && transfer.spec.reverse && !is_sent(&session, &names).await? => {
            Some(SLOT_GONE)
        }
        _ => None,
    };
    if source == Source::Gone {
        evidence = evidence.fact("source", "not asked: it is gone");
    } else if let Some(why) = lacks {
        evidence = evidence.fact("source_has_not_everything", why);
    } else if transfer.spec.reverse && transfer.lossy.is_none() {
        let caught_up = async {
            let follower = workplace.followers().follow(workplace, target, &transfer, Turn::Take).await?;
            follower.caught_up(Way::Reverse, LAST, cancel).await
        };
        let last = caught_up.await.map_err(|mut error| {
            error.help = Some(match error.help.take() {
                None => gone(schema, target),
                Some(help) => format!("{help}; or, {}", gone(schema, target)),
            });
            error
        })?;
        evidence = evidence.fact("source_has_everything_up_to", last.to_string());
    }
    // Killed from here on, it is called again, and then there may be nothing left to wait for.
    let ending = lacks.unwrap_or(if source == Source::Gone { WITHOUT_SOURCE } else { ENDING });
    state::write(&session, &state::lossy_sql(schema, ending)).await.map_err(PgError::into_step_error)?;
    workplace.followers().end(target, schema).await;
    for way in [Way::Forward, Way::Reverse] {
        if !(source == Source::Gone && way == Way::Forward) {
            streams::unmake(&ends, &names, way).await?;
        }
        // Its spools hold nothing that is needed.
        let folder = streams::spool_folder(workplace, target, &names, way);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StepError::failed("spool", format!("{} cannot be removed: {error}", folder.display())));
            }
            _ => {}
        }
    }
    state::write(&session, &super::since::forget_sql(schema)).await.map_err(PgError::into_step_error)?;
    state::write(&session, &state::phase_sql(schema, Phase::Complete, None)).await.map_err(PgError::into_step_error)?;
    Ok(evidence)
}

/// Whether the target still keeps what has to flow back.
async fn is_sent(session: &Session, names: &Names) -> Result<bool, StepError> {
    let slot = slots::slot_state(session, &names.slot(Way::Reverse)).await.map_err(PgError::into_step_error)?;
    Ok(slot.is_some_and(|slot| slot.invalidation.is_none()))
}
