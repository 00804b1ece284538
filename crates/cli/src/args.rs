//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pgrunbook_document::Severity;

use crate::exit;

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
        /// The target of pgrunbook.toml.
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
        /// The target of pgrunbook.toml.
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
    /// A schema whose new tables must have row security (repeatable).
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
    pub samples: Option<u32>,
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
