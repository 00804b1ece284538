//! A history that a person sets right by hand: nothing is run.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};

use super::chain::normalise;
use super::error::ChainError;
use super::history::{self, Entry};
use super::layout::Version;
use super::lease::Lease;
use super::runner::{Runner, chain_error, nothing_touched};
use super::standing::RowState;

/// Sets a history right by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// Everything up to this version counts as applied.
    Baseline(Version),
    /// The file's content is taken for the one that was applied.
    Accept(Version),
    /// The version's row goes.
    Forget(Version),
}

impl Runner<'_> {
    /// Changes the history and nothing else.
    ///
    /// # Errors
    /// If the version is not there, or there is a history already where a baseline begins one.
    pub async fn correct(&self, correction: &Correction) -> Result<(), StepError> {
        let session =
            Session::connect(self.target, &self.application_name()).await.map_err(PgError::into_step_error)?;
        let kept = history::read(&session, &self.chain.name).await.map_err(nothing_touched)?;
        let row_of = |wanted: &Version| {
            kept.iter().find(|kept| !kept.row.repeatable && Version::parse(&kept.row.version).as_ref() == Some(wanted))
        };
        let unknown = |version: &Version| chain_error(ChainError::NoSuchVersion { version: version.to_string() });
        history::create(&session).await?;
        let lease = Lease::take(&session, &self.chain.name, None, self.options.wait, &self.around).await?;
        let token = &lease.token;
        let statement = match correction {
            Correction::Baseline(version) if kept.is_empty() => {
                let entry = Entry {
                    chain: &self.chain.name,
                    version: version.as_str(),
                    repeatable: false,
                    name: "baseline",
                    sha256: None,
                    content: None,
                    mode: "adopted",
                    origin: "baseline",
                    operator: self.around.operator,
                    run: None,
                };
                Ok(history::insert(&entry, token, RowState::Applied))
            }
            Correction::Baseline(_) => Err(StepError::unusable(
                "adopted",
                format!("chain `{}` has a history already. Nothing was changed.", self.chain.name),
            )),
            Correction::Accept(version) => match (self.chain.find(version), row_of(version)) {
                (Some(migration), Some(kept)) => {
                    let content = String::from_utf8(migration.up.read().map_err(chain_error)?).unwrap_or_default();
                    let set = format!(
                        "sha256 = {}, content = {}, name = {}, state = 'applied'",
                        history::literal(&migration.up.sha256),
                        history::literal(&normalise(&content)),
                        history::literal(&migration.name)
                    );
                    Ok(history::update(&self.chain.name, &kept.row.version, token, &set))
                }
                _ => Err(unknown(version)),
            },
            Correction::Forget(version) => match row_of(version) {
                Some(kept) => Ok(history::delete(&self.chain.name, &kept.row.version, token)),
                None => Err(unknown(version)),
            },
        };
        let done = match statement {
            Ok(statement) => session.execute(&statement).await.map_err(nothing_touched),
            Err(error) => Err(error),
        };
        let _ = lease.release(&session, &[]).await;
        done
    }
}
