//! The two databases of a PostgreSQL transfer, and which of them a way leads from and to.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use pgrunbook_postgres::slots::Direction as Way;

use super::spec::{Side, Spec};
use super::standing::Which;
use super::state::Transfer;
use super::streams::other;
use crate::workplace::Workplace;

/// One side: where it is, and the schema there.
#[derive(Debug, Clone)]
pub struct End {
    /// The project's name of it.
    pub name: String,
    pub options: ConnectOptions,
    pub schema: String,
}

/// Both sides of a transfer.
#[derive(Debug, Clone)]
pub struct Ends {
    pub source: End,
    pub target: End,
}

impl Ends {
    /// The ends of a recorded transfer.
    ///
    /// # Errors
    /// If the project has no such targets, or the source is no PostgreSQL database.
    pub fn of(workplace: &Workplace, target: &str, transfer: &Transfer) -> Result<Self, StepError> {
        Self::named(workplace, target, &transfer.schema, &transfer.spec)
    }

    /// The ends of a transfer that is asked for.
    ///
    /// # Errors
    /// As [`Ends::of`].
    pub fn named(workplace: &Workplace, target: &str, schema: &str, spec: &Spec) -> Result<Self, StepError> {
        let end = |name: &str, schema: &str| {
            let options = workplace.postgres(name)?.clone();
            Ok::<_, StepError>(End { name: name.to_owned(), options, schema: schema.to_owned() })
        };
        Ok(Self { source: end(&spec.from, &spec.source_schema)?, target: end(target, schema)? })
    }

    /// Of which transfer they are.
    pub fn which(&self) -> Which<'_> {
        Which { schema: &self.target.schema, target: &self.target.name }
    }

    /// One side.
    pub fn at(&self, side: Side) -> &End {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// Where changes that flow this way are made.
    pub fn origin(&self, way: Way) -> &End {
        match way {
            Way::Forward => &self.source,
            Way::Reverse => &self.target,
        }
    }

    /// Where changes that flow this way are applied.
    pub fn destination(&self, way: Way) -> &End {
        self.origin(other(way))
    }
}

impl End {
    /// A session there.
    ///
    /// # Errors
    /// As the engine reports it.
    pub async fn session(&self, application_name: &str) -> Result<Session, StepError> {
        Session::connect(&self.options, application_name).await.map_err(PgError::into_step_error)
    }
}
