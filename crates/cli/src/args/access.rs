//! Of the commands about who may reach what.

use clap::{Args, Subcommand, ValueEnum};
use pgrunbook_document::Severity;

/// How bad a finding of an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLevel {
    /// A real crossing.
    Error,
    /// One that something else still prevents.
    Warning,
    /// For people to judge.
    Note,
}

impl From<AuditLevel> for Severity {
    fn from(level: AuditLevel) -> Self {
        match level {
            AuditLevel::Error => Self::Error,
            AuditLevel::Warning => Self::Warning,
            AuditLevel::Note => Self::Note,
        }
    }
}

/// How a backup is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyHow {
    /// By its table of contents.
    List,
    /// By restoring it into a throwaway server and comparing every table.
    Restore,
}

/// `pgrunbook topology ...`
#[derive(Debug, Subcommand)]
pub enum TopologyAction {
    /// Say the exact SQL that would make it so. Changes nothing.
    #[command(after_help = "Example:\n  pgrunbook topology plan --target main --check")]
    Plan {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Also what would drop the retired; only a runbook's step does it.
        #[arg(long)]
        prune: bool,
        /// Exit 1 if something would change.
        #[arg(long)]
        check: bool,
    },
    /// Make it so, in one transaction.
    #[command(
        after_help = "Examples:\n  pgrunbook topology apply --dry-run\n  pgrunbook topology apply --expect-revokes 12"
    )]
    Apply {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// How many granted privileges go, exactly; needed where more than a tenth of them goes.
        #[arg(long, value_name = "COUNT")]
        expect_revokes: Option<usize>,
        /// Give the declared password to roles that have one already, too.
        #[arg(long)]
        set_passwords: bool,
        /// Only say the SQL.
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare what is declared, what the catalogs say and what can really be done. Exit 1 if they differ.
    #[command(
        after_help = "Example:\n  pgrunbook topology verify --ephemeral\n  pgrunbook topology verify --target main --all-objects"
    )]
    Verify {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// On a throwaway server that is made of the project's files alone; the target is not touched.
        #[arg(long)]
        ephemeral: bool,
        /// The throwaway server's major version.
        #[arg(long, value_name = "MAJOR", requires = "ephemeral")]
        version: Option<u32>,
        /// Try every object, and not one for each kind and pattern of privileges.
        #[arg(long)]
        all_objects: bool,
        /// The least finding of the audit that fails.
        #[arg(long, value_enum, default_value_t = AuditLevel::Warning)]
        level: AuditLevel,
    },
    /// Write the declaration of what a database has.
    #[command(after_help = "Example:\n  pgrunbook topology import --target legacy > topology.toml")]
    Import {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
    },
}

/// `pgrunbook source ...`
#[derive(Debug, Subcommand)]
pub enum SourceAction {
    /// The registered sources with their schemas, and what does not fit.
    #[command(after_help = "Example:\n  pgrunbook source list --check")]
    List {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Exit 1 if a source has no schema, or a schema no source.
        #[arg(long)]
        check: bool,
    },
    /// The schema of a source; an unknown one is an error.
    #[command(after_help = "Example:\n  pgrunbook source resolve acme")]
    Resolve {
        /// The source's id, as the application knows it.
        #[arg(value_name = "ID")]
        source_id: String,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
    },
    /// Register a source, and make its schema with what its chains bring. Safe to run again.
    #[command(after_help = "Example:\n  pgrunbook source add acme --target main")]
    Add {
        /// The source's id, as the application knows it.
        #[arg(value_name = "ID")]
        source_id: String,
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
    },
}

/// Where a database says its schema's version.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// The table of the version row.
    #[arg(long, value_name = "TABLE", default_value = "bot_config")]
    pub table: String,
    /// The key of the version row.
    #[arg(long, value_name = "KEY", default_value = "schema_version")]
    pub key: String,
    /// The row's environment, where the table has several.
    #[arg(long, value_name = "NAME")]
    pub row_environment: Option<String>,
    /// The columns of key and value.
    #[arg(long, value_name = "KEY,VALUE", default_value = "config_key,config_value")]
    pub columns: String,
    /// Go by the history of this chain instead, as `migrate` keeps it.
    #[arg(long, value_name = "CHAIN", conflicts_with_all = ["table", "key", "row_environment", "columns"])]
    pub chain: Option<String>,
}
