//! Everything that stands in the way of a transfer, found before anything is changed.
//!
//! Read only, and every finding at once: a person mends ten things in one maintenance window, not one in each of ten. What
//! only the catalogues of one side say is a [`Rule`], a query that writes its findings itself; what takes both sides is in
//! `sides`. Tried on PostgreSQL 14 to 18.

mod objects;
mod rights;
mod rule;
mod server;
mod sides;
mod tables;
mod waiting;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use pgrunbook_postgres::Session;
use pgrunbook_postgres::receiver::Limits;

use super::disk::{self, Need};
use super::error::TransferError;
use super::finding::{Finding, Severity, accept};
use super::spec::limits;
use super::structure::existing;

pub use rule::Rule;

/// Where the tables of the target come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// The transfer makes them from the source's.
    #[default]
    Create,
    /// They are there, made by migrations.
    Existing,
}

/// The transfer that is to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The schema that moves: `public`.
    pub source_schema: String,
    /// The schema that it becomes.
    pub schema: String,
    /// These tables only, by name without schema; all, if none is named.
    pub tables: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    pub structure: Origin,
    /// As whom the application will read and write.
    pub runtime_role: Option<String>,
    /// Whether the source's writers will be stopped by triggers.
    pub fence: bool,
    /// Whether writes after the switch shall flow back.
    pub reverse: bool,
    /// A transaction that is open for longer than this is taken for forgotten.
    pub long_transaction: Duration,
    /// Over how long the source's WAL is measured; zero: not at all.
    pub measure: Duration,
    /// How much a stream may take of the disk here, and its slot of its server's.
    pub limits: Limits,
    /// The folder here for what is received; none: nothing will be received here.
    pub spool: Option<PathBuf>,
}

impl Wanted {
    /// The whole of `public`, made anew, with fence and reverse stream.
    pub fn new(schema: impl Into<String>) -> Self {
        Self {
            source_schema: "public".to_owned(),
            schema: schema.into(),
            tables: Vec::new(),
            exclude: Vec::new(),
            structure: Origin::Create,
            runtime_role: None,
            fence: true,
            reverse: true,
            // Longer than an application's transaction should take, shorter than a person's patience.
            long_transaction: Duration::from_secs(60),
            measure: Duration::from_millis(300),
            limits: limits(None),
            spool: None,
        }
    }

    /// Whether a table of the source takes part.
    pub fn takes(&self, table: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|one| one == table);
        (self.tables.is_empty() || named(&self.tables)) && !named(&self.exclude)
    }
}

/// Looks at both sides. The findings come with the worst first; none of them is accepted yet.
///
/// # Errors
/// [`TransferError::NoSchema`], or if a server cannot be asked at all. What only a privilege keeps hidden is a finding.
pub async fn preflight(source: &Session, target: &Session, wanted: &Wanted) -> Result<Vec<Finding>, TransferError> {
    if source.client().query_opt(SCHEMA, &[&wanted.source_schema]).await.map_err(|e| source.error(&e))?.is_none() {
        return Err(TransferError::NoSchema { schema: wanted.source_schema.clone(), at: source.options().to_string() });
    }
    let mut findings = Vec::new();
    let begun = server::WalMark::now(source).await?;
    let (from, to) = (server::Facts::read(source).await?, server::Facts::read(target).await?);
    server::settings(&from, &to, wanted, &mut findings);
    for rules in [waiting::SOURCE, tables::RULES, objects::RULES] {
        rule::run(source, from.version, rules, wanted, &mut findings).await?;
    }
    rule::run(target, to.version, objects::TARGET, wanted, &mut findings).await?;
    if wanted.reverse {
        rule::run(target, to.version, waiting::TARGET, wanted, &mut findings).await?;
    }
    rights::of_source(source, &from, wanted, &mut findings).await?;
    rights::of_target(target, &to, wanted, &mut findings).await?;
    sides::compare(source, target, wanted, &mut findings).await?;
    if wanted.structure == Origin::Existing {
        findings.extend(existing::check(source, target, wanted).await?.findings);
    }
    if !wanted.fence {
        // They are writers that a fence does not hold; without one nobody is held.
        findings.retain(|one| !matches!(one.code, "subscription" | "cron-job"));
    }
    if let Some(folder) = &wanted.spool {
        findings.extend(disk::of_spool(folder, wanted.limits));
    }
    let need = Need::of_schema(source, &wanted.source_schema, |table| wanted.takes(table)).await;
    let need = need.map_err(|error| error.to_string());
    findings.extend(disk::of_rows(server::server("target", &to), &to.disk, need));
    server::wal_rate(source, &from, begun, wanted, &mut findings).await?;
    accept(&mut findings, &[]);
    findings.dedup();
    Ok(findings)
}

/// Looks at the target alone, for a source whose rows come as UTF-8 and that has no server: what stands there already, what the
/// role may do, and what the slot of the way back would wait for. `comes` are the names of the tables and indexes that will be
/// made. The findings are in no order, and neither accepted nor about disks, which who knows the source's size asks for.
///
/// # Errors
/// If the server cannot be asked at all. What only a privilege keeps hidden is a finding.
pub async fn of_target(
    target: &Session,
    wanted: &Wanted,
    comes: &BTreeSet<String>,
) -> Result<Vec<Finding>, TransferError> {
    let mut findings = Vec::new();
    let facts = server::Facts::read(target).await?;
    server::settings_alone(&facts, wanted, &mut findings);
    rule::run(target, facts.version, objects::TARGET, wanted, &mut findings).await?;
    if wanted.reverse {
        rule::run(target, facts.version, waiting::TARGET, wanted, &mut findings).await?;
    }
    rights::of_target(target, &facts, wanted, &mut findings).await?;
    if wanted.structure == Origin::Create {
        let comes = comes.iter().map(|name| (false, name.clone())).collect();
        sides::collisions(target, wanted, &comes, &mut findings).await?;
    }
    findings.dedup();
    Ok(findings)
}

const SCHEMA: &str = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1::text";
