//! Of the commands beside a service: its guard, its flags, its Redis.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SourceArgs;

/// `pgrunbook guard ...`
#[derive(Debug, Subcommand)]
pub enum GuardAction {
    /// Say whether an application fits. Exit 1 if it does not, 2 if nobody can tell.
    ///
    /// SKIP_SCHEMA_GUARD=true skips the check, loudly; any other value than `true` and `false` is refused.
    #[command(
        after_help = "Example:\n  APP_SCHEMA_VERSION=1.4.0 pgrunbook guard check --target main --format json\n  \
                      pgrunbook guard check --app-version 0011 --chain db/migrations --database env:DATABASE_URL"
    )]
    Check(GuardArgs),
    /// Become the application if it fits; else exit like `check`, and start nothing.
    ///
    /// The process is replaced: signals, standard input and the exit code are the application's. It finds the outcome in
    /// PGRUNBOOK_GUARD_OUTCOME: equal, database-newer or bypassed.
    #[command(
        after_help = "Example:\n  pgrunbook guard exec --app-version 1.4.0 --database env:DATABASE_URL -- node server.js"
    )]
    Exec {
        #[command(flatten)]
        guard: GuardArgs,
        /// The application and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
}

/// Which application, and where the schema says its version.
#[derive(Debug, Clone, Args)]
pub struct GuardArgs {
    /// The schema version that the application was written for; with --chain the last migration that it needs.
    #[arg(long, value_name = "VERSION", env = "APP_SCHEMA_VERSION")]
    pub app_version: String,
    /// A reference to a URL (env:NAME, file:PATH) or a URL; no pgrunbook.toml is needed.
    #[arg(long, value_name = "URL", conflicts_with = "target")]
    pub database: Option<String>,
    /// The target of pgrunbook.toml; else `main`.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// How long migrations that are under way are waited for; `0s`: not at all.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub wait: String,
    /// Also write the outcome as Prometheus metrics into this file (a textfile collector's).
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

/// What is answered over HTTP, and where.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address and port; port 0 takes a free one, which is printed. Others than this machine reach it only if you say so.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8088")]
    pub listen: std::net::SocketAddr,
    /// A reference to a URL (env:NAME, file:PATH) or a URL, as the one target `main`; no pgrunbook.toml is needed.
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// How long a request may take, connecting included; then the answer is 503, and the query is cancelled.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = deadline)]
    pub answer_within: std::time::Duration,
    /// Connections to each target at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub connections: usize,
}

/// `pgrunbook redis ...`
#[derive(Debug, Subcommand)]
pub enum RedisAction {
    /// Round trips, memory, evictions, role, replication, persistence. Exit 1 if a limit does not hold.
    #[command(
        after_help = "Example:\n  pgrunbook redis health --target cache --pings 1000 --max-p99 5ms --max-memory 80"
    )]
    Health {
        /// The target of pgrunbook.toml; else its only Redis.
        #[arg(long)]
        target: Option<String>,
        /// Round trips that are measured.
        #[arg(long, default_value_t = pgrunbook_steps::redis::PINGS, value_name = "COUNT")]
        pings: u32,
        /// 99 in 100 round trips take at most this.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        max_p99: Option<std::time::Duration>,
        /// Share of its memory that may be used.
        #[arg(long, value_name = "PERCENT")]
        max_memory: Option<f64>,
        /// Since the other side of the replication was heard.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        max_lag: Option<std::time::Duration>,
        /// It writes to disk, and the last writing went well.
        #[arg(long)]
        persistent: bool,
    },
    /// Count the keys of a prefix by SCAN, and look closer at some. Others hardly notice.
    #[command(after_help = "Example:\n  pgrunbook redis keys stg: --target cache --sample 1000 --show 5 --format json")]
    Keys {
        /// What the keys begin with, literally: `*` is a star.
        prefix: String,
        /// The target of pgrunbook.toml; else its only Redis.
        #[arg(long)]
        target: Option<String>,
        /// Keys whose type, expiry and size are looked at.
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        sample: usize,
        /// Names of sampled keys that are printed.
        #[arg(long, default_value_t = 0, value_name = "COUNT")]
        show: usize,
        /// Keys that one SCAN looks at: more is faster, and keeps others waiting longer.
        #[arg(long, default_value_t = pgrunbook_steps::redis::BATCH, value_name = "COUNT")]
        batch: u32,
    },
    /// Delete the keys of a prefix, in batches by UNLINK. Nothing brings them back.
    #[command(
        after_help = "Example:\n  pgrunbook redis delete stg:cache: --target cache --confirm 'staging: delete stg:cache: in cache'"
    )]
    Delete {
        /// What the keys begin with, literally; it ends with the separator.
        prefix: String,
        /// The target of pgrunbook.toml; else its only Redis.
        #[arg(long)]
        target: Option<String>,
        /// Exactly what is asked for; without it the keys are counted, and the text is told.
        #[arg(long, value_name = "TEXT")]
        confirm: Option<String>,
        /// With more keys nothing is deleted.
        #[arg(long, value_name = "COUNT")]
        at_most: Option<u64>,
        /// What a prefix ends with.
        #[arg(long, default_value_t = ':', value_name = "CHARACTER")]
        separator: char,
    },
    /// Log in and try whether prefixes are kept: as every user that topology.toml declares, or as the target's own. Exit 1 if not.
    #[command(
        after_help = "Examples:\n  pgrunbook redis prove --target cache\n  pgrunbook redis prove --target cache --prefix stg: --other prod:"
    )]
    Prove {
        /// The target of pgrunbook.toml; else its only Redis.
        #[arg(long)]
        target: Option<String>,
        /// Try the target's own credential: this prefix is its own (repeatable).
        #[arg(long = "prefix", value_name = "PREFIX")]
        prefixes: Vec<String>,
        /// A prefix that must be kept from it (repeatable).
        #[arg(long = "other", value_name = "PREFIX", requires = "prefixes")]
        others: Vec<String>,
        /// Do not fail on what could not be decided.
        #[arg(long)]
        allow_inconclusive: bool,
    },
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    pgrunbook_document::parse_duration(text).ok_or_else(|| "write a time such as 5ms or 10s".to_owned())
}

fn deadline(text: &str) -> Result<std::time::Duration, String> {
    duration(text)
        .and_then(|time| if time.is_zero() { Err("nothing is answered in no time".to_owned()) } else { Ok(time) })
}
