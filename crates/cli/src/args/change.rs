//! Of the commands that change a schema, or judge a change.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `pgrunbook review ...`
#[derive(Debug, Subcommand)]
pub enum ReviewAction {
    /// Find where one application's code writes what belongs to another's.
    ///
    /// The trees of code and what each may write stand in pgrunbook.toml:
    ///
    ///   [code.vh]
    ///   files = ["apps/vh/**"]
    ///   may_write = ["vh"]
    ///
    /// Exit 2 where something crosses, 4 where nothing does and something is unknown:
    /// a name that only the running program knows, a file that cannot be read.
    #[command(
        verbatim_doc_comment,
        after_help = "Example:\n  pgrunbook review boundary --format sarif > boundary.sarif"
    )]
    Boundary,
}

/// `pgrunbook migrate ...`
#[derive(Debug, Subcommand)]
pub enum MigrateAction {
    /// Say how a chain stands to its history in the target. Exit 1 if something does not fit.
    #[command(after_help = "Example:\n  pgrunbook migrate status db/migrations --format json")]
    Status(ChainArgs),
    /// Apply what is pending.
    #[command(after_help = "Examples:\n  pgrunbook migrate up db/migrations --to 0012 --dry-run\n  \
                      pgrunbook migrate up db/migrations --schema-version 1.4.0")]
    Up {
        #[command(flatten)]
        chain: ChainArgs,
        /// Up to and with this version.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        /// Also apply files that stand before applied ones.
        #[arg(long)]
        out_of_order: bool,
        /// Leave the verify files out.
        #[arg(long)]
        no_verify: bool,
        #[command(flatten)]
        version: VersionArgs,
        /// Run everything in one transaction, report the locks, and roll back.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take migrations back by their down files.
    #[command(after_help = "Example:\n  pgrunbook migrate down db/migrations --to 0011 --schema-version 1.3.0")]
    Down {
        #[command(flatten)]
        chain: ChainArgs,
        /// The version that stays; `0` takes everything back.
        #[arg(long, value_name = "VERSION")]
        to: String,
        #[command(flatten)]
        version: VersionArgs,
    },
    /// Set the history right by hand, without running anything.
    #[command(after_help = "Example:\n  pgrunbook migrate baseline db/migrations --at 0008")]
    Baseline {
        #[command(flatten)]
        chain: ChainArgs,
        /// Everything up to this version counts as applied.
        #[arg(long, value_name = "VERSION")]
        at: Option<String>,
        /// Take this file's content as the one that was applied.
        #[arg(long, value_name = "VERSION")]
        accept: Option<String>,
        /// Drop this version's row.
        #[arg(long, value_name = "VERSION")]
        forget: Option<String>,
    },
    /// Take over the history of Flyway, sqlx, Supabase, dbmate, golang-migrate, Alembic or Drizzle.
    #[command(after_help = "Example:\n  pgrunbook migrate adopt supabase/migrations")]
    Adopt(ChainArgs),
}

/// The row that applications' guards read.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// The schema version that the version row says afterwards; without it the row stays as it is.
    #[arg(long, value_name = "VERSION")]
    pub schema_version: Option<String>,
    /// The table of the version row.
    #[arg(long, value_name = "TABLE", default_value = "bot_config", requires = "schema_version")]
    pub version_table: String,
    /// The key of the version row.
    #[arg(long, value_name = "KEY", default_value = "schema_version", requires = "schema_version")]
    pub version_key: String,
}

/// What of a change is reviewed.
#[derive(Debug, Clone, Args)]
pub struct GateArgs {
    /// A folder of migrations, relative to the project (repeatable, in the order in which they are applied).
    #[arg(long, value_name = "FOLDER")]
    pub chain: Vec<String>,
    /// The branch or commit that the change leaves; without it every migration counts as changed.
    #[arg(long, value_name = "REF")]
    pub since: Option<String>,
    /// A live target: its history, its drift, and the rows of what is locked.
    #[arg(long)]
    pub target: Option<String>,
    /// KIND:NAME that is not compared with the target (repeatable).
    #[arg(long, value_name = "PATTERN", requires = "target")]
    pub ignore: Vec<String>,
    /// A file with `-- expect:` lines that must hold when everything is applied (repeatable).
    #[arg(long, value_name = "FILE")]
    pub smoke: Vec<PathBuf>,
    /// A role that the files name and do not make (repeatable).
    #[arg(long, value_name = "NAME")]
    pub role: Vec<String>,
    /// A schema whose new tables must have row security (repeatable); in place of what the project's topology says of tenants.
    #[arg(long, value_name = "SCHEMA")]
    pub tenant_schema: Vec<String>,
    /// A role that must be granted something on them (repeatable).
    #[arg(long, value_name = "NAME", requires = "tenant_schema")]
    pub tenant_role: Vec<String>,
    /// Rows at the target from which on writing a table anew, or reading it under a lock, is no small matter.
    #[arg(long, value_name = "ROWS", default_value_t = pgrunbook_steps::gate::LARGE, requires = "target", value_parser = clap::value_parser!(i64).range(1..))]
    pub large: i64,
    /// Copy no values of the target's statistics to the throwaway server, only numbers of rows and pages.
    #[arg(long, requires = "target")]
    pub no_column_statistics: bool,
    /// A server on which temporary databases are made, where no server's programs are installed (a job's service container): a
    /// target of pgrunbook.toml, a reference to a URL (env:NAME, file:PATH), or a URL. They are dropped at the end.
    #[arg(long, value_name = "SERVER")]
    pub shadow_on: Option<String>,
    /// PostgreSQL's major version; else the target's, or the first that is installed.
    #[arg(long = "postgres", value_name = "MAJOR", conflicts_with_all = ["target", "shadow_on"])]
    pub major: Option<u32>,
    /// Also write the review to this file, in the form that its end says: .json, .sarif, .xml (JUnit), .md (repeatable).
    #[arg(long, value_name = "FILE")]
    pub out: Vec<PathBuf>,
}

/// What is compared with what.
#[derive(Debug, Clone, Args)]
pub struct DriftArgs {
    /// The target of pgrunbook.toml.
    #[arg(default_value = "main")]
    pub target: String,
    /// A folder of migrations, relative to the project (repeatable, in the order in which they are applied).
    #[arg(long, value_name = "FOLDER")]
    pub chain: Vec<String>,
    /// Also what the target's history does not have yet.
    #[arg(long, requires = "chain")]
    pub pending: bool,
    /// Compare with this target instead of a throwaway server.
    #[arg(long, value_name = "TARGET", conflicts_with = "chain")]
    pub against: Option<String>,
    /// KIND:NAME that is not compared; `*` stands for any text (repeatable). `pgrunbook` is never compared.
    #[arg(long, value_name = "PATTERN")]
    pub ignore: Vec<String>,
    /// Write the SQL that mends the target to this file.
    #[arg(long, value_name = "FILE")]
    pub sql: Option<PathBuf>,
    /// In the SQL, do not put into comments what loses data.
    #[arg(long)]
    pub lossy: bool,
}

/// Which chain, and where.
#[derive(Debug, Clone, Args)]
pub struct ChainArgs {
    /// The chain's folder, relative to the project.
    pub chain: String,
    /// The target of pgrunbook.toml.
    #[arg(long, default_value = "main")]
    pub target: String,
}
