//! Of the commands that move live data.

use clap::{Args, Subcommand};

/// `pgrunbook transfer ...`
#[derive(Debug, Subcommand)]
pub enum TransferAction {
    /// Everything that stands in the way of a transfer, at once; changes nothing. Exit 1 if something does.
    #[command(after_help = "Example:\n  pgrunbook transfer preflight --from legacy --schema health")]
    Preflight {
        #[command(flatten)]
        wish: TransferWish,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
    },
    /// Copy the rows under one snapshot, and follow until it has caught up. Run again, it goes on.
    #[command(after_help = "Example:\n  pgrunbook transfer start --from legacy --schema health --jobs 4")]
    Start {
        #[command(flatten)]
        wish: TransferWish,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
    },
    /// Apply what is changed, both ways, until stopped: as a service, between two runs.
    #[command(after_help = "Example:\n  pgrunbook transfer follow --schema health")]
    Follow {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Only this transfer.
        #[arg(long)]
        schema: Option<String>,
    },
    /// How far each transfer is, and whether going back would lose a write.
    #[command(after_help = "Example:\n  pgrunbook transfer status --check --format json")]
    Status {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Only the transfer into this schema.
        #[arg(long)]
        schema: Option<String>,
        /// Exit 1 if a stream stands still, or a rollback would lose writes.
        #[arg(long)]
        check: bool,
    },
    /// Make the change that stopped a stream on the other side too, and let it go on.
    #[command(after_help = "Example:\n  pgrunbook transfer accept health --yes")]
    Accept {
        /// The schema that the transfer leads into.
        schema: String,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Do it; without it nothing is changed.
        #[arg(long)]
        yes: bool,
        /// Another statement than those that are offered; may be given again.
        #[arg(long, value_name = "SQL")]
        instead: Vec<String>,
    },
    /// End a transfer that is switched: nothing flows back any more.
    #[command(after_help = "Example:\n  pgrunbook transfer complete health --yes")]
    Complete {
        /// The schema that the transfer leads into.
        schema: String,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// The source's server is gone for good: do not ask it any more.
        #[arg(long)]
        without_source: bool,
        /// Do it; without it nothing is changed.
        #[arg(long)]
        yes: bool,
    },
    /// Give up a transfer that is not switched: nothing of it stays on either side.
    #[command(after_help = "Example:\n  pgrunbook transfer abandon health --yes")]
    Abandon {
        /// The schema that the transfer leads into.
        schema: String,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Do it; without it nothing is changed.
        #[arg(long)]
        yes: bool,
    },
}

/// The transfer that is wanted.
#[derive(Debug, clap::Args)]
pub struct TransferWish {
    /// The source, as pgrunbook.toml calls it.
    #[arg(long)]
    pub from: String,
    /// The schema of the target that it becomes.
    #[arg(long)]
    pub schema: String,
    /// PostgreSQL: the schema that moves.
    #[arg(long, default_value = "public")]
    pub source_schema: String,
    /// The tables are there, made by migrations: they are checked.
    #[arg(long)]
    pub existing: bool,
    /// A table that stays behind.
    #[arg(long, value_name = "TABLE")]
    pub exclude: Vec<String>,
    /// A finding that is consented to.
    #[arg(long, value_name = "NAME")]
    pub accept: Vec<String>,
    /// SQLite: what a column becomes, as TABLE.COLUMN=KIND.
    #[arg(long, value_name = "COLUMN=KIND")]
    pub map: Vec<String>,
    /// SQLite: triggers on the source note which rows change.
    #[arg(long)]
    pub dirty_keys: bool,
    /// Writes after the switch do not flow back.
    #[arg(long)]
    pub no_reverse: bool,
    /// Bytes of local disk that a stream may take.
    #[arg(long, value_name = "BYTES")]
    pub spool_limit: Option<u64>,
    /// Connections at a time on each side.
    #[arg(long, default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub jobs: usize,
}

/// `pgrunbook fence ...`
#[derive(Debug, Subcommand)]
pub enum FenceAction {
    /// The fences that stand: schema, tables, since when, by whom, and what is wrong with them.
    #[command(after_help = "Example:\n  pgrunbook fence status --target legacy --check")]
    Status {
        /// The target of pgrunbook.toml: a database or a SQLite file.
        #[arg(long, default_value = "main")]
        target: String,
        /// Exit 1 if one of them has a hole.
        #[arg(long)]
        check: bool,
    },
    /// Lift a fence, whole or half: writers go on where they were.
    #[command(after_help = "Example:\n  pgrunbook fence drop 3fa90c21 --target legacy --yes")]
    Drop {
        /// The fence's id, as `fence status` shows it.
        #[arg(value_name = "ID")]
        id: String,
        /// The target of pgrunbook.toml: a database or a SQLite file.
        #[arg(long, default_value = "main")]
        target: String,
        /// A target that leads through a PgBouncer, to be resumed too; may be given again.
        #[arg(long = "pooler", value_name = "TARGET")]
        poolers: Vec<String>,
        /// Needed, since writers go on.
        #[arg(long)]
        yes: bool,
        /// The exact text, in a protected environment.
        #[arg(long, value_name = "TEXT")]
        confirm: Option<String>,
    },
}

/// What is compared.
#[derive(Debug, Clone, Args)]
pub struct ParityArgs {
    /// The side that is right.
    pub a: String,
    /// The side that is compared with it.
    pub b: String,
    /// The schema of A, if it is PostgreSQL.
    #[arg(long, value_name = "SCHEMA", default_value = "public")]
    pub schema_a: String,
    /// The schema of B, if it is PostgreSQL.
    #[arg(long, value_name = "SCHEMA", default_value = "public")]
    pub schema_b: String,
    /// This table (repeatable); else all.
    #[arg(long = "table", value_name = "NAME")]
    pub tables: Vec<String>,
    /// Not this table (repeatable).
    #[arg(long, value_name = "NAME")]
    pub exclude: Vec<String>,
    /// Of a SQLite side, as a transfer has it (repeatable): `items.at=timestamptz from unix seconds`, or `skip`.
    #[arg(long, value_name = "TABLE.COLUMN=KIND")]
    pub map: Vec<String>,
    /// Connections on each side.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub jobs: u8,
    /// Differing rows of each table that are listed with both values.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub show: usize,
    /// Also read so many rows of each table of B as an application's role.
    #[arg(long, value_name = "COUNT", requires = "role")]
    pub samples: Option<std::num::NonZeroU32>,
    /// The role that samples are read as, through its search_path.
    #[arg(long, value_name = "ROLE", requires = "samples")]
    pub role: Option<String>,
    /// Make the rows that differ in B what they are in A. Says what it would do; does it with --yes.
    #[arg(long)]
    pub repair: bool,
    /// Do what --repair says.
    #[arg(long, requires = "repair")]
    pub yes: bool,
}
