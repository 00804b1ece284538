//! A project in a folder of its own, with a database of its own on the cluster that all tests share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use pgrunbook_document::{ItemId, Runbook, Severity, StepId};
use pgrunbook_engine::journal::{ItemOutcome, Outcome, Sealed};
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::{
    Doubt, DoubtAnswer, Engine, Event, Evidence, ItemAnswer, ItemQuestion, Operator, Purpose, RunEnd, RunOptions,
};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared, url};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::{Project, Surroundings, open, registry};

/// The cluster of this binary's tests.
pub async fn cluster() -> Sandbox {
    shared("steps-tests", SandboxOptions::default()).await.unwrap()
}

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub database: ConnectOptions,
    pub hand: Hand,
    /// Variables that the project's references may name.
    pub env: Vec<(String, String)>,
    config: String,
}

impl Bench {
    pub async fn new() -> Self {
        let database = cluster().await.fresh_database("steps").await.unwrap();
        Self::on(database)
    }

    pub fn on(database: ConnectOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("[targets.main]\nurl = \"{}\"\n", url(&database));
        Self { folder, database, hand: Hand::default(), env: Vec::new(), config }
    }

    /// More of `pgrunbook.toml`.
    pub fn config(&mut self, text: &str) {
        self.config.push_str(text);
    }

    /// Has every target that was at one place be at another: after a failover.
    pub fn moved(&mut self, from: &ConnectOptions, to: &ConnectOptions) {
        self.config = self.config.replace(&url(from), &url(to));
        if url(&self.database) == url(from) {
            self.database = to.clone();
        }
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub async fn workplace(&self) -> pgrunbook_steps::Workplace {
        self.opened().await.workplace
    }

    pub async fn engine(&self) -> Engine {
        self.opened().await.engine
    }

    pub async fn opened(&self) -> pgrunbook_steps::Opened {
        let (project, surroundings) = self.project();
        open(project, &surroundings, None).await.unwrap()
    }

    pub fn project(&self) -> (Project, Surroundings) {
        let project = Project::read(self.folder.path(), &self.config, None).unwrap();
        let surroundings = Surroundings {
            env: std::iter::once(("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()))
                .chain(self.env.iter().cloned())
                .collect(),
            user: Some("anna".to_owned()),
            host: "desk".to_owned(),
            pid: std::process::id(),
            cwd: self.folder.path().to_owned(),
            home: None,
        };
        (project, surroundings)
    }

    pub fn parse(&self, text: &str) -> Runbook {
        let loader = |path: &str| std::fs::read_to_string(self.path(path)).map_err(|error| error.to_string());
        let parsed = pgrunbook_document::parse("RUNBOOK.md", text, &loader, registry::vocabulary());
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|found| found.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        parsed.runbook
    }

    // Boxed, here and below: a test that runs a dozen runbooks would have all their futures in one frame of its thread's stack.
    pub async fn begin(&self, text: &str) -> String {
        let engine = self.engine().await;
        let plan = Box::pin(engine.plan(&self.parse(text), &BTreeMap::new())).await.unwrap();
        Box::pin(engine.begin(plan, Purpose::Real)).await.unwrap()
    }

    /// Plans, begins and runs.
    pub async fn run(&self, text: &str) -> (String, RunEnd) {
        let run = self.begin(text).await;
        let end = self.resume(&run).await;
        (run, end)
    }

    pub async fn resume(&self, run: &str) -> RunEnd {
        Box::pin(self.engine().await.run(run, &RunOptions::default(), &self.hand)).await.unwrap()
    }

    pub async fn rollback(&self, run: &str, path: &str) -> RunEnd {
        Box::pin(self.engine().await.rollback(run, path, None, &RunOptions::default(), &self.hand)).await.unwrap()
    }

    /// What a step recorded in its last outcome.
    pub async fn evidence(&self, run: &str, step: &str) -> Evidence {
        let events = self.engine().await.journal.read(run).await.unwrap();
        let found = events.into_iter().rev().find_map(|sealed| match sealed.event {
            Event::Outcome { step: id, outcome: Outcome::Done { evidence, .. }, .. } if id.as_str() == step => {
                Some(evidence)
            }
            Event::Outcome { step: id, outcome: Outcome::Failed { evidence, .. }, .. } if id.as_str() == step => {
                evidence
            }
            _ => None,
        });
        found.unwrap_or_else(|| panic!("step {step} recorded nothing"))
    }

    pub async fn session(&self) -> Session {
        Session::connect(&self.database, "test").await.unwrap()
    }

    pub async fn value(&self, sql: &str) -> String {
        self.session().await.value(sql).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.session().await.execute(sql).await.unwrap();
    }
}

/// Why a run failed: step, code, message.
pub fn failure(end: &RunEnd) -> (String, String, String) {
    match end {
        RunEnd::Failed { step, code, message, .. } | RunEnd::RollbackBlocked { step, code, message, .. } => {
            (step.to_string(), code.clone(), message.clone())
        }
        other => panic!("it did not fail: {other:?}"),
    }
}

/// Confirms every item, and keeps what was said.
#[derive(Default)]
pub struct Hand {
    pub said: Mutex<Vec<String>>,
    /// How far steps said they were: done, of how many, of what.
    pub amounts: Mutex<Vec<(u64, Option<u64>, &'static str)>>,
}

impl Hand {
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }
}

impl Watcher for Hand {
    fn progress(&self, _step: &StepId, progress: Progress) {
        match progress {
            Progress::Line { text } => self.said.lock().unwrap().push(text),
            Progress::Amount { done, total, unit } => self.amounts.lock().unwrap().push((done, total, unit)),
        }
    }
}

#[async_trait]
impl Operator for Hand {
    fn event(&self, _run: &str, _event: &Sealed) {}

    async fn item(&self, question: ItemQuestion<'_>) -> Option<ItemAnswer> {
        let _id: &ItemId = question.id;
        Some(ItemAnswer { outcome: ItemOutcome::Confirmed, note: None })
    }

    async fn decide(&self, _doubt: &Doubt) -> Option<DoubtAnswer> {
        None
    }

    async fn confirmation(&self, _wanted: &str) -> Option<String> {
        None
    }

    async fn accept(&self, _what: &str) -> Option<bool> {
        None
    }
}
