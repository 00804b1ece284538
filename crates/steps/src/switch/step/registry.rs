//! The way of a row: where the application looks its tenants up.

use async_trait::async_trait;
use pgrunbook_engine::{Change, Effect, Evidence, Happened, RunCx, StepError};
use pgrunbook_postgres::ledger::Entry;
use pgrunbook_postgres::{PgError, Session};

use super::{WantedMap, Way, line, texts};
use crate::switch::error::SwitchError;
use crate::switch::row::Row;
use crate::workplace::Workplace;

pub(super) struct Registered {
    pub target: String,
    pub table: String,
    pub key: WantedMap,
    pub set: WantedMap,
    pub workplace: Workplace,
}

impl Registered {
    async fn session(&self, name: &str) -> Result<Session, StepError> {
        Session::connect(self.workplace.postgres(&self.target)?, name).await.map_err(PgError::into_step_error)
    }

    fn row(&self) -> Result<Row, StepError> {
        let (key, set) = (texts(&self.key, &self.workplace)?, texts(&self.set, &self.workplace)?);
        Row::new(&self.table, key, set).map_err(|why| SwitchError::Row { table: self.table.clone(), why }.into())
    }

    fn which(&self) -> String {
        let all: Vec<String> = self.key.iter().map(|(column, value)| format!("{column} {}", value.shown())).collect();
        format!("{} with {}", self.table, all.join(", "))
    }
}

#[async_trait]
impl Way for Registered {
    fn effect(&self) -> Effect {
        Effect::Transactional
    }

    async fn plan(&self) -> Result<Change, StepError> {
        let session = self.session("pgrunbook:plan").await?;
        let now = self.row()?.read(&session, false).await?;
        let verb = if now.is_some() { "update" } else { "insert" };
        let mut change = Change { summary: format!("{verb} the row of {}", self.which()), ..Change::default() };
        for (column, wanted) in &self.set {
            let old = now
                .as_ref()
                .and_then(|now| now.get(column))
                .map(|old| old.clone().unwrap_or_else(|| "NULL".to_owned()));
            change.details.push(line(column, old.as_deref(), wanted));
        }
        Ok(change)
    }

    async fn apply(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let session = self.session(&crate::sql::application_name(cx.run, cx.step)).await?;
        let previous = self.row()?.write(&session, &Entry::of(cx)).await?;
        let columns: Vec<String> = self.set.keys().cloned().collect();
        let verb = if previous.is_some() { "updated" } else { "inserted" };
        Ok(Evidence::of(format!("the row of {} was {verb}: {}", self.which(), columns.join(", ")))
            .fact("table", self.table.clone())
            .fact("columns", columns)
            .fact("inserted", previous.is_none()))
    }

    async fn resolve(&self, cx: &RunCx<'_>) -> Result<Happened, StepError> {
        let session = self.session("pgrunbook:resolve").await?;
        Ok(match Entry::of(cx).is_recorded(&session).await.map_err(PgError::into_step_error)? {
            true => Happened::Yes(Evidence::of(format!("the row of {} is written", self.which()))),
            false => Happened::No,
        })
    }

    async fn undo(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let session = self.session(&crate::sql::application_name(cx.run, cx.step)).await?;
        let back = self.row()?.put_back(&session, &Entry::of(cx)).await?;
        Ok(Evidence::of(match back {
            true => format!("the row of {} is as it was", self.which()),
            false => "nothing to take back: this step wrote no row".to_owned(),
        }))
    }

    async fn resolve_undo(&self, cx: &RunCx<'_>) -> Result<Happened, StepError> {
        let session = self.session("pgrunbook:resolve").await?;
        Ok(match Entry::of(cx).is_recorded(&session).await.map_err(PgError::into_step_error)? {
            true => Happened::Yes(Evidence::of(format!("the row of {} is as it was", self.which()))),
            false => Happened::No,
        })
    }
}
