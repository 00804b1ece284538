//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit;

mod access;
mod change;
mod cutover;
mod service;

pub use access::*;
pub use change::*;
pub use cutover::*;
pub use service::*;

/// Executable PostgreSQL runbooks: planned, gated, proven, reversible.
#[derive(Debug, Parser)]
#[command(name = "pgrunbook", version, about, after_help = exit::HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The project's folder; else the nearest one above that holds pgrunbook.toml.
    #[arg(long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// The environment of pgrunbook.toml.
    #[arg(short, long, global = true, value_name = "NAME", env = "PGRUNBOOK_ENVIRONMENT")]
    pub environment: Option<String>,
    /// Who acts, as pgrunbook.toml and allowed_signers name them; else user@host.
    #[arg(long = "as", global = true, value_name = "PRINCIPAL", env = "PGRUNBOOK_AS")]
    pub principal: Option<String>,
    /// How to print. `json`: one line for each result or event.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    pub format: Output,
    /// No colours; NO_COLOR does the same.
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For a terminal.
    Human,
    /// Plain lines, without colours and progress bars.
    Plain,
    /// JSON, one value a line.
    Json,
    /// Workflow commands of GitHub (lint, audit, review).
    Github,
    /// SARIF 2.1.0 (lint, audit, review).
    Sarif,
    /// JUnit's XML (review).
    Junit,
    /// A comment for a pull request (review).
    Markdown,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write pgrunbook.toml and a first runbook into this folder.
    #[command(after_help = "Examples:\n  pgrunbook init\n  pgrunbook init --project deploy")]
    Init,
    /// Find what is wrong with runbooks, without touching a database.
    #[command(after_help = "Examples:\n  pgrunbook lint RUNBOOK.md\n  \
                      pgrunbook lint release.md restore.md --format sarif > lint.sarif")]
    Lint {
        /// The runbooks.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Lay a runbook out in the usual form.
    #[command(after_help = "Examples:\n  pgrunbook fmt RUNBOOK.md\n  pgrunbook fmt --check RUNBOOK.md")]
    Fmt {
        /// The runbooks.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Change nothing; exit 1 if something would change.
        #[arg(long)]
        check: bool,
    },
    /// Read a prose runbook, and write a proposal with steps beside it.
    #[command(after_help = "Example:\n  pgrunbook adopt MIGRATION.md --out RUNBOOK.md")]
    Adopt {
        /// The prose runbook; it stays as it is.
        file: PathBuf,
        /// Where the proposal goes; else FILE.proposal.md.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Say what a runbook would do, by reading only.
    #[command(
        after_help = "Examples:\n  pgrunbook plan RUNBOOK.md --environment staging --var max_age='5 minutes'\n  \
                      pgrunbook plan RUNBOOK.md --environment production --out plan.json"
    )]
    Plan {
        /// The runbook.
        file: PathBuf,
        #[command(flatten)]
        vars: Vars,
        /// Save the plan, to be approved and run.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run a runbook.
    #[command(after_help = "Examples:\n  pgrunbook run RUNBOOK.md --environment staging\n  \
                      pgrunbook run RUNBOOK.md --environment production --plan plan.json --confirm 'CONFIRM PRODUCTION DEPLOYMENT'")]
    Run {
        /// The runbook.
        file: PathBuf,
        /// The saved plan that was approved; refused if anything moved since.
        #[arg(long)]
        plan: Option<PathBuf>,
        #[command(flatten)]
        vars: Vars,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Promote a runbook to an environment: say how each of its demands stands, run, and write the deployment summary.
    ///
    /// All demands are listed at once, held or missing with what to do about it: rehearsals, a window, no open incident, approvals, the
    /// confirmation text. Nothing is begun while one is missing (exit 3). Whoever may can override one, loudly: that is recorded and stays
    /// open to be reviewed. At the end stand the deployment summary and the post-deployment checklist, and the evidence bundle is written.
    #[command(after_help = "Examples:\n  pgrunbook promote RUNBOOK.md --to production --check\n  \
                      pgrunbook promote RUNBOOK.md --to production --confirm 'CONFIRM PRODUCTION DEPLOYMENT' --summary summary.md\n  \
                      pgrunbook promote RUNBOOK.md --to production --override window --reason 'the payment fix cannot wait: Olga decided'")]
    Promote(PromoteArgs),
    /// Go on with a run after a stop, a failure or a crash.
    #[command(after_help = "Examples:\n  pgrunbook resume\n  \
                      pgrunbook resume 20261121-041502-3fa9 --decide create-notes=done --reason 'Olga saw the table'")]
    Resume {
        /// The run; else the newest that has not ended.
        run: Option<String>,
        /// STEP=done or STEP=again: what became of an effect that nobody can know.
        #[arg(long, value_name = "STEP=ANSWER", requires = "reason")]
        decide: Option<String>,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        overrides: Overrides,
        /// Also write the deployment summary to this file, behind what stands there.
        #[arg(long, value_name = "FILE")]
        summary: Option<PathBuf>,
    },
    /// Go back on a rollback path.
    #[command(
        after_help = "Example:\n  pgrunbook rollback 20261121-041502-3fa9 --path undo --reason 'the error rate doubled'"
    )]
    Rollback {
        /// The run; else the newest.
        run: Option<String>,
        /// `undo`, or the slug of a rollback section; asked for if several are open.
        #[arg(long)]
        path: Option<String>,
        /// Why, for the journal.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Run a runbook forward and back on a throwaway server, and record it as a rehearsal.
    #[command(after_help = "Examples:\n  pgrunbook rehearse RUNBOOK.md --from staging.dump\n  \
                      pgrunbook rehearse RUNBOOK.md --break")]
    Rehearse {
        /// The runbook.
        file: PathBuf,
        #[command(flatten)]
        vars: Vars,
        /// A dump (pg_dump -Fc) that is the starting point; else the files of `[rehearsal] setup`.
        #[arg(long, value_name = "DUMP")]
        from: Option<PathBuf>,
        /// Also try the runbook's own gates: plant each violation that the topology makes possible, and name the gates
        /// that stay green.
        #[arg(long = "break")]
        break_in: bool,
    },
    /// List the runs, or say where one stands and which ways back are open.
    #[command(after_help = "Examples:\n  pgrunbook status\n  pgrunbook status 20261121-041502-3fa9 --format json")]
    Status {
        /// The run; else all are listed.
        run: Option<String>,
    },
    /// Print a run's journal: every event, with its evidence.
    #[command(after_help = "Examples:\n  pgrunbook show\n  pgrunbook show 20261121-041502-3fa9 --format json")]
    Show {
        /// The run; else the newest.
        run: Option<String>,
    },
    /// Follow a run that another process is at work on.
    #[command(after_help = "Examples:\n  pgrunbook watch 20261121-041502-3fa9\n  \
                            pgrunbook watch 20261121-041502-3fa9 --remind")]
    Watch {
        /// The run; else the newest.
        run: Option<String>,
        /// Stay while nobody is at work on it, until it ends: say when a promised update is due, and tell the channel when it is overdue.
        #[arg(long)]
        remind: bool,
    },
    /// Approve a plan with an SSH signature.
    #[command(after_help = "Examples:\n  pgrunbook approve plan.json --as olga --key ~/.ssh/id_ed25519\n  \
                      pgrunbook approve 20261121-041502-3fa9 --as olga --signature approval.txt.sig")]
    Approve {
        /// A run that waits, or a plan that was saved with `plan --out`.
        what: String,
        /// A private key without a passphrase.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// A signature that `ssh-keygen -Y sign` made; without it and --key the text to sign is printed.
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        signature: Option<PathBuf>,
    },
    /// Sign off what a run did, in a role, with an SSH signature: for a run that waits at a `sign-off` step.
    #[command(after_help = "Examples:\n  pgrunbook sign-off 20261121-041502-3fa9\n  \
                      pgrunbook sign-off 20261121-041502-3fa9 --role dba --as olga --key ~/.ssh/id_ed25519")]
    SignOff {
        /// The run; else the newest that has not ended.
        run: Option<String>,
        /// The role in which you sign; else the one of those missing that you hold.
        #[arg(long)]
        role: Option<String>,
        /// A private key without a passphrase.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// A signature that `ssh-keygen -Y sign` made; without it and --key the text to sign is printed.
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        signature: Option<PathBuf>,
    },
    /// Close a review item of a run: somebody else than who overrode a demand says what they found.
    ///
    /// Each override leaves an item that is open to be reviewed. Without --reason they are listed (exit 3 while one is open). Where the
    /// project names signers, a closing is an SSH signature; without --key and --signature the text to sign is printed. It stands in the
    /// run's journal from then on, also when the run has ended.
    #[command(after_help = "Examples:\n  pgrunbook close-review 20261121-041502-3fa9\n  \
                      pgrunbook close-review 20261121-041502-3fa9 --as bert --key ~/.ssh/id_ed25519 --reason 'the fix was right, payments went on'")]
    CloseReview(CloseReviewArgs),
    /// Say something in a channel of pgrunbook.toml; about a run it is recorded in its journal.
    Notify(NotifyArgs),
    /// Write the evidence bundle of a run.
    #[command(
        after_help = "Example:\n  pgrunbook report 20261121-041502-3fa9 --out evidence/release-1.4 --key ~/.ssh/id_ed25519"
    )]
    Report {
        /// The run; else the newest.
        run: Option<String>,
        /// Where it goes; else evidence/RUN.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// The SSH key that signs it.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Check an evidence bundle, without network or database.
    #[command(after_help = "Example:\n  pgrunbook verify evidence/20261121-041502-3fa9 --signers allowed_signers")]
    Verify {
        /// The bundle's folder, as `report` wrote it.
        folder: PathBuf,
        /// An allowed_signers file: the bundle must be signed by somebody it allows.
        #[arg(long, value_name = "FILE")]
        signers: Option<PathBuf>,
    },
    /// Review a change before it is merged: read its migrations, try them on a throwaway server or one that is given, and say what they do.
    ///
    /// The changed migrations are linted, searched for secrets, applied with the locks they really take, verified, taken back and
    /// applied again. With --target a live database is compared too; it is only read. Exit 1 where an error is found, else 4 where
    /// something is unknown.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Example:\n  pgrunbook review --chain supabase/migrations --since origin/main --smoke scripts/smoke.sql --format markdown"
    )]
    Review {
        #[command(subcommand)]
        action: Option<ReviewAction>,
        #[command(flatten)]
        gate: GateArgs,
    },
    /// Compare a target with what its migrations make, and print the SQL that mends it. Exit 1 where they differ.
    ///
    /// A throwaway server of the target's version is built from the files: with --chain from these, with the target's roles and up to
    /// what its history has applied; without, from the whole project, topology included. Everything that PostgreSQL has DDL for is
    /// compared, by its own definitions. What would lose data stands in comments in the SQL.
    #[command(
        after_help = "Example:\n  pgrunbook drift main --chain db/migrations --ignore 'schema:cron' --sql mend.sql"
    )]
    Drift(DriftArgs),
    /// Run the migrations of a chain without a runbook.
    #[command(after_help = "Examples:\n  pgrunbook migrate status db/migrations\n  \
                      pgrunbook migrate up db/migrations --schema-version 1.4.0")]
    Migrate {
        #[command(subcommand)]
        action: MigrateAction,
    },
    /// Roles, schemas and access as topology.toml declares them.
    #[command(
        after_help = "Examples:\n  pgrunbook topology plan --target main\n  pgrunbook topology verify --ephemeral"
    )]
    Topology {
        #[command(subcommand)]
        action: TopologyAction,
    },
    /// Make the database, its roles, schemas and grants, and apply every tenant's migrations. Safe to run again.
    #[command(after_help = "Examples:\n  pgrunbook provision --target main\n  pgrunbook provision --only health")]
    Provision {
        /// The target of pgrunbook.toml; its database is made if it is not there.
        #[arg(long, default_value = "main")]
        target: String,
        /// This tenant, and what all share (repeatable).
        #[arg(long, value_name = "TENANT")]
        only: Vec<String>,
    },
    /// Try as every declared role what it can really do, and set it against the declaration. Exit 1 if it differs.
    #[command(after_help = "Examples:\n  pgrunbook probe --target main\n  \
                      pgrunbook probe --role health_app --schema health --format json")]
    Probe {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// Each object, and not one for each kind and pattern of privileges.
        #[arg(long)]
        all_objects: bool,
        /// This role (repeatable).
        #[arg(long = "role", value_name = "NAME")]
        roles: Vec<String>,
        /// This schema, and those that each role may use, as controls (repeatable).
        #[arg(long = "schema", value_name = "NAME")]
        schemas: Vec<String>,
        /// Do not fail on what could not be decided.
        #[arg(long)]
        allow_inconclusive: bool,
    },
    /// Sources: one schema for each, found by the mapping table that topology.toml names.
    #[command(after_help = "Examples:\n  pgrunbook source list --check\n  pgrunbook source add acme")]
    Source {
        #[command(subcommand)]
        action: SourceAction,
    },
    /// Live data of a legacy source into a schema: look, copy, follow, status, end.
    #[command(
        after_help = "Examples:\n  pgrunbook transfer preflight --from legacy --schema health\n  pgrunbook transfer status\n  \
                      pgrunbook transfer follow"
    )]
    Transfer {
        #[command(subcommand)]
        action: TransferAction,
    },
    /// A Redis: how it is, the keys of a prefix, and whether a prefix is kept from a credential.
    #[command(
        after_help = "Examples:\n  pgrunbook redis health --max-p99 5ms\n  pgrunbook redis keys stg: --show 5\n  \
                            pgrunbook redis delete stg:cache: --confirm 'staging: delete stg:cache: in cache'\n  \
                            pgrunbook redis prove --prefix stg: --other prod:"
    )]
    Redis {
        #[command(subcommand)]
        action: RedisAction,
    },
    /// Which schemas refuse writes, and letting writers go on: the way out when no run can.
    #[command(
        after_help = "Example:\n  pgrunbook fence status --target legacy\n  pgrunbook fence drop 3fa90c21 --target legacy --yes"
    )]
    Fence {
        #[command(subcommand)]
        action: FenceAction,
    },
    /// Copy a database into a file, and prove that it can be restored.
    #[command(after_help = "Example:\n  pgrunbook backup before.dump --verify restore")]
    Backup {
        /// The target of pgrunbook.toml; else `main`.
        #[arg(long, default_value = "main")]
        target: String,
        /// Where the file goes.
        out: PathBuf,
        /// How it is proven.
        #[arg(long, value_enum, default_value_t = VerifyHow::List)]
        verify: VerifyHow,
    },
    /// Put a backup in place of a database; what was there is kept under another name.
    #[command(after_help = "Example:\n  pgrunbook restore before.dump --target main --yes")]
    Restore {
        /// The target of pgrunbook.toml.
        #[arg(long, default_value = "main")]
        target: String,
        /// A file that `backup` or `pg_dump -Fc` made.
        file: PathBuf,
        /// Needed, since the sessions of the database are ended.
        #[arg(long)]
        yes: bool,
    },
    /// Find what roles really reach in a database and is not declared in the topology. Exit 1 with findings.
    #[command(
        after_help = "Example:\n  pgrunbook audit --target main --level error\n  pgrunbook --format sarif audit > audit.sarif"
    )]
    Audit {
        /// The target of pgrunbook.toml; else `main`.
        #[arg(long, default_value = "main")]
        target: String,
        /// The least that fails.
        #[arg(long, value_enum, default_value_t = AuditLevel::Warning)]
        level: AuditLevel,
    },
    /// Compare every row of two sides. Exit 1 if they differ.
    ///
    /// A side is a target of pgrunbook.toml, a reference to a URL (env:NAME, file:PATH), a URL, or a SQLite file. Tables are
    /// matched by name, rows by their key. Each side is read in one snapshot: nobody may write between the two.
    #[command(
        after_help = "Example:\n  pgrunbook parity legacy main --schema-b health\n  pgrunbook parity env:LEGACY_URL main --schema-b health --table person --show 100\n  pgrunbook parity legacy main --schema-b health --samples 20 --role health_app"
    )]
    Parity(ParityArgs),
    /// Ask at an application's start whether it fits the database's schema.
    #[command(after_help = "Examples:\n  pgrunbook guard check --app-version 1.4.0 --target main\n  \
                      pgrunbook guard exec --app-version 1.4.0 --database env:DATABASE_URL -- node server.js")]
    Guard {
        #[command(subcommand)]
        action: GuardAction,
    },
    /// Answer over HTTP whether an application fits a schema, until it is ended.
    ///
    /// GET /guard?app_version=1.4.0[&target=NAME][&environment=NAME] answers 200 if the application fits, 409 if it does not, 503 if nobody
    /// can tell (no server, no version, one that cannot be read), 400 to what is no question; always in JSON, with what to do. GET /health says
    /// that the process is there, GET /metrics what was answered. Nothing is changed, and no password is asked for: it listens on this
    /// machine alone, unless told otherwise. SIGTERM and Ctrl-C let it answer what was asked, and end it.
    #[command(after_help = "Examples:\n  pgrunbook serve\n  \
                      pgrunbook serve --listen 127.0.0.1:9000 --database env:DATABASE_URL --answer-within 2s\n\n\
                      Then:\n  curl -f 'http://127.0.0.1:8088/guard?app_version=1.4.0&target=main'")]
    Serve(ServeArgs),
    /// Throwaway PostgreSQL servers.
    #[command(after_help = "Examples:\n  pgrunbook sandbox up --name first --detach\n  pgrunbook sandbox down first")]
    Sandbox {
        #[command(subcommand)]
        action: SandboxAction,
    },
    /// Print a completion script.
    #[command(
        after_help = "Examples:\n  pgrunbook completions bash > ~/.local/share/bash-completion/completions/pgrunbook\n  \
                      pgrunbook completions zsh > ~/.zfunc/_pgrunbook"
    )]
    Completions {
        /// Whose script.
        shell: clap_complete::Shell,
    },
    /// Print a command's manual page, or write those of all commands.
    #[command(after_help = "Examples:\n  pgrunbook man | man -l -\n  pgrunbook man guard check | man -l -\n  \
                      pgrunbook man --out ~/.local/share/man/man1")]
    Man {
        /// The command; else pgrunbook itself.
        command: Vec<String>,
        /// Write a page for each command into this folder.
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        out: Option<PathBuf>,
    },
}

/// Values for variables.
#[derive(Debug, Clone, Args)]
pub struct Vars {
    /// A variable's value.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
}

/// What is promoted, and where to.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// The runbook.
    pub file: PathBuf,
    /// The environment of pgrunbook.toml to promote to.
    #[arg(long, value_name = "ENVIRONMENT")]
    pub to: String,
    /// Say how the demands stand, and stop: exit 0 if all are held, else 3.
    #[arg(long)]
    pub check: bool,
    /// The saved plan that was approved; refused if anything moved since.
    #[arg(long)]
    pub plan: Option<PathBuf>,
    #[command(flatten)]
    pub vars: Vars,
    #[command(flatten)]
    pub consent: Consent,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Also write the deployment summary to this file, behind what stands there ($GITHUB_STEP_SUMMARY).
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
}

/// Which review item, and what was found.
#[derive(Debug, Clone, Args)]
pub struct CloseReviewArgs {
    /// The run; else the newest that has an open item.
    pub run: Option<String>,
    /// The item's number, as the list shows it; needed where several are open.
    #[arg(long, value_name = "NUMBER")]
    pub item: Option<u64>,
    /// What was found, in a sentence.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// A private key without a passphrase.
    #[arg(long, value_name = "FILE", requires = "reason")]
    pub key: Option<PathBuf>,
    /// A signature that `ssh-keygen -Y sign` made over the text that is printed without it.
    #[arg(long, value_name = "FILE", conflicts_with = "key", requires = "reason")]
    pub signature: Option<PathBuf>,
}

/// Demands of the environment to go on without.
#[derive(Debug, Clone, Default, Args)]
pub struct Overrides {
    /// Go on without this demand of the environment, if your role may (repeatable); recorded, and open to be reviewed.
    #[arg(long = "override", value_name = "DEMAND", value_enum, requires = "reason")]
    pub overrides: Vec<OverrideDemand>,
    /// Who decided it and why, in a sentence, for the journal: one for all, or one for each.
    #[arg(long, value_name = "TEXT")]
    pub reason: Vec<String>,
}

/// What can be overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverrideDemand {
    /// That it is a time at which the environment may be changed.
    Window,
    /// That no incident is open.
    Incident,
    /// That the content was rehearsed, or went through another environment.
    Rehearsal,
    /// That enough people approved the plan; a step that cannot be taken back still waits for one.
    Approvals,
}

/// What a person says in advance.
#[derive(Debug, Clone, Args)]
pub struct Consent {
    /// A TOML file with answers to checklist items; refused in protected environments.
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// The confirmation text of a protected environment.
    #[arg(long, value_name = "TEXT")]
    pub confirm: Option<String>,
    /// Accept a target's new timeline (failover).
    #[arg(long)]
    pub accept_timeline: bool,
    /// Ask nothing: stop where a person is needed.
    #[arg(long)]
    pub no_input: bool,
}

/// `pgrunbook sandbox ...`
#[derive(Debug, Subcommand)]
pub enum SandboxAction {
    /// Start one; it ends with Ctrl-C, or stays with --detach.
    #[command(after_help = "Examples:\n  pgrunbook sandbox up --name first --detach --set wal_level=logical\n  \
                      pgrunbook sandbox up --version 16 --database shop")]
    Up {
        /// A name for it.
        #[arg(long)]
        name: Option<String>,
        /// Leave it running until `sandbox down`.
        #[arg(long)]
        detach: bool,
        /// The major version, one of those that are installed.
        #[arg(long, visible_alias = "major", value_name = "MAJOR")]
        version: Option<u32>,
        /// Commits survive a crash of the machine: slower.
        #[arg(long)]
        durable: bool,
        /// PgBouncer in transaction mode in front of it, for this user and password too (repeatable).
        #[arg(long, value_name = "USER:PASSWORD")]
        pooler: Vec<String>,
        /// A line of postgresql.conf, such as wal_level=logical (repeatable).
        #[arg(long = "set", value_name = "NAME=VALUE")]
        settings: Vec<String>,
        /// Make this database.
        #[arg(long)]
        database: Option<String>,
    },
    /// End one, or all.
    #[command(after_help = "Examples:\n  pgrunbook sandbox down first\n  pgrunbook sandbox down --all")]
    Down {
        /// The server's name, as `sandbox list` shows it.
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every one that was left running.
        #[arg(long)]
        all: bool,
    },
    /// Names of those that run.
    #[command(after_help = "Example:\n  pgrunbook sandbox list")]
    List,
}

/// What is said, and where.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pgrunbook notify 20261121-041502-3fa9 --channel ops --text \"Half of the views are back.\""
)]
pub struct NotifyArgs {
    /// The run that it is about; `-`: none.
    pub run: String,
    /// A `[channels.NAME]` of pgrunbook.toml.
    #[arg(long)]
    pub channel: String,
    /// In your own words.
    #[arg(long, required_unless_present = "template", conflicts_with = "template")]
    pub text: Option<String>,
    /// One line above the text.
    #[arg(long, conflicts_with = "template")]
    pub subject: Option<String>,
    /// A `[templates.NAME]` of pgrunbook.toml.
    #[arg(long)]
    pub template: Option<String>,
}
