//! A target that lives in memory, and one kind of step for each effect class that acts on it.
//!
//! The steps are doubles of steps, not of servers: they do what their class promises and nothing else, and pass a fuse
//! before and after each effect, at which a test lets the "process" die.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]
#![expect(dead_code, reason = "what the tests of refusals need")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pgrunbook_document::{Block, Diagnostic, KindSpec, Language, StepId, Vocabulary, parse};
use pgrunbook_engine::journal::sqlite::SqliteJournal;
use pgrunbook_engine::journal::{Direction, Event, Journal, JournalError, Sealed};
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::*;

/// What the steps act on.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Mutex<Things>>);

#[derive(Debug, Default)]
struct Things {
    /// What is there now.
    there: BTreeSet<String>,
    /// Every effect that cannot be repeated, in order: `+id`, `-id`.
    effects: Vec<String>,
    /// Ledger rows: run, step, direction, attempt.
    ledger: BTreeSet<(String, String, Direction, u32)>,
    /// Steps that fail, by id, and how.
    faults: BTreeMap<String, StepError>,
    /// Epochs as the target knows them, by run.
    epoch: u64,
    /// Who the target is.
    key: String,
    timeline: u32,
    /// What plan() says.
    fact: Option<String>,
    claims: Vec<String>,
    /// Steps that hang until they are told to abort, or until the notification, by id.
    hanging: BTreeMap<String, Arc<tokio::sync::Notify>>,
    taken_by: Option<Claim>,
}

/// The number of the point between two writes at which the process dies; 0: never.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Arc<FuseState>);

#[derive(Debug, Default)]
struct FuseState {
    passed: AtomicU64,
    fatal: AtomicU64,
    blown: tokio::sync::Notify,
}

impl Fuse {
    pub fn at(fatal: u64) -> Self {
        let fuse = Self::default();
        fuse.0.fatal.store(fatal, Ordering::SeqCst);
        fuse
    }

    pub fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::SeqCst)
    }

    /// Never returns at the fatal point: whoever awaits it is dropped there.
    pub async fn pass(&self) {
        let number = self.0.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.0.fatal.load(Ordering::SeqCst) {
            self.0.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Runs a future until its end (`Some`) or its death (`None`).
    pub async fn kill<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.0.blown.notified() => None,
            value = future => Some(value),
        }
    }
}

impl World {
    pub fn new() -> Self {
        let world = Self::default();
        world.with(|things| {
            things.key = "7001/5".to_owned();
            things.timeline = 1;
        });
        world
    }

    fn with<T>(&self, work: impl FnOnce(&mut Things) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    pub fn there(&self) -> Vec<String> {
        self.with(|things| things.there.iter().cloned().collect())
    }

    pub fn effects(&self) -> Vec<String> {
        self.with(|things| things.effects.clone())
    }

    pub fn claims(&self) -> Vec<String> {
        self.with(|things| things.claims.clone())
    }

    /// Lets a step fail from now on, or no longer.
    pub fn fail(&self, step: &str, error: Option<StepError>) {
        self.with(|things| match error {
            Some(error) => drop(things.faults.insert(step.to_owned(), error)),
            None => drop(things.faults.remove(step)),
        });
    }

    /// Lets a step hang in its next attempt, before its effect, until it is cancelled or woken.
    pub fn hang(&self, step: &str) -> Arc<tokio::sync::Notify> {
        let wake = Arc::new(tokio::sync::Notify::new());
        self.with(|things| things.hanging.insert(step.to_owned(), Arc::clone(&wake)));
        wake
    }

    /// Whether a step that was to hang has come to where it does.
    pub fn hangs(&self, step: &str) -> bool {
        self.with(|things| !things.hanging.contains_key(step))
    }

    /// A thing that came into the world by other ways.
    pub fn put(&self, thing: &str) {
        self.with(|things| things.there.insert(thing.to_owned()));
    }

    pub fn become_another(&self, key: &str) {
        self.with(|things| key.clone_into(&mut things.key));
    }

    pub fn fail_over(&self) {
        self.with(|things| things.timeline += 1);
    }

    pub fn drift(&self, fact: &str) {
        self.with(|things| things.fact = Some(fact.to_owned()));
    }

    pub fn is_taken_by(&self, claim: Option<Claim>) {
        self.with(|things| things.taken_by = claim);
    }
}

#[async_trait]
impl Target for World {
    fn name(&self) -> &str {
        "main"
    }

    async fn identify(&self) -> Result<Identity, StepError> {
        Ok(self.with(|things| Identity {
            name: "main".to_owned(),
            kind: "memory".to_owned(),
            key: things.key.clone(),
            shown: format!("memory {}", things.key),
            timeline: Some(things.timeline),
        }))
    }

    async fn claim(&self, claim: &Claim) -> Result<(), StepError> {
        self.with(|things| {
            if let Some(holder) = &things.taken_by {
                return Err(StepError::taken(holder));
            }
            things.claims.push(format!("claim {}", claim.epoch));
            things.epoch = claim.epoch;
            Ok(())
        })
    }

    async fn release(&self, claim: &Claim) -> Result<(), StepError> {
        self.with(|things| things.claims.push(format!("release {}", claim.epoch)));
        Ok(())
    }
}

/// The kinds: `gate` changes nothing; the others are named for their effect class.
pub const KINDS: &[KindSpec] = &[
    kind("gate", false),
    kind("transactional", true),
    kind("resolvable", true),
    kind("idempotent", true),
    kind("opaque", true),
    kind("parts", true),
    kind("backup", true),
];

const fn kind(name: &'static str, changes: bool) -> KindSpec {
    KindSpec {
        name,
        language: Language::Toml,
        summary: "A double of a step.",
        fields: &[],
        needs_target: true,
        changes,
        undo_words: &["auto", "down"],
        check: no_check,
    }
}

fn no_check(_: &Block) -> Result<(), Diagnostic> {
    Ok(())
}

/// Builds the doubles.
#[derive(Clone)]
pub struct WorldKinds {
    pub world: World,
    pub fuse: Fuse,
}

impl Kinds for WorldKinds {
    fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary(KINDS)
    }

    fn build(&self, block: &Block) -> Result<Box<dyn Step>, StepError> {
        let effect = match block.kind.as_str() {
            "transactional" => Effect::Transactional,
            "resolvable" | "parts" | "backup" => Effect::Resolvable,
            "opaque" => Effect::Opaque,
            _ => Effect::Idempotent,
        };
        let (world, fuse) = (self.world.clone(), self.fuse.clone());
        let (kind, thing) = (block.kind.clone(), block.id.to_string());
        Ok(Box::new(Double { world, fuse, effect, kind, thing, takes_away: None }))
    }

    fn undo_by(&self, by: &Block, step: &Block) -> Option<Result<Box<dyn Step>, StepError>> {
        (by.kind == "backup").then(|| {
            let (world, fuse) = (self.world.clone(), self.fuse.clone());
            let (kind, thing) = ("restore".to_owned(), by.id.to_string());
            let takes_away = Some(step.id.to_string());
            Ok(Box::new(Double { world, fuse, effect: Effect::Resolvable, kind, thing, takes_away }) as Box<dyn Step>)
        })
    }
}

/// Puts a thing named as its block into the world; undone, takes it away.
struct Double {
    world: World,
    fuse: Fuse,
    effect: Effect,
    kind: String,
    thing: String,
    /// A restore: takes away this thing and needs what the backup recorded.
    takes_away: Option<String>,
}

impl Double {
    /// What an attempt does: a sign and a thing. An undo block is named `drop-<thing>`.
    fn deed(&self, undo: bool) -> (char, String) {
        match (&self.takes_away, self.thing.strip_prefix("drop-")) {
            (Some(thing), _) => ('-', thing.clone()),
            (None, Some(thing)) => ('-', thing.to_owned()),
            (None, None) => (if undo { '-' } else { '+' }, self.thing.clone()),
        }
    }

    async fn act(&self, cx: &mut RunCx<'_>, undo: bool) -> Result<Evidence, StepError> {
        if let Some(error) = self.world.with(|things| things.faults.get(cx.step.as_str()).cloned()) {
            return Err(error);
        }
        if let Some(wake) = self.world.with(|things| things.hanging.remove(cx.step.as_str())) {
            tokio::select! {
                () = cx.cancel.aborting() => return Err(StepError::interrupted("cancelled, and rolled back")),
                () = wake.notified() => {}
            }
        }
        if self.kind != "gate" && cx.epoch != self.world.with(|things| things.epoch) {
            return Err(StepError::failed("fenced", "another process took over this run"));
        }
        if self.takes_away.is_some() {
            let backup: StepId = self.thing.parse().unwrap();
            cx.recorded(&backup).ok_or_else(|| StepError::failed("no-backup", "the backup recorded nothing"))?;
        }
        self.fuse.pass().await;
        let (sign, thing) = self.deed(undo);
        self.world.with(|things| {
            if self.kind == "gate" {
                return;
            }
            let row = (cx.run.to_owned(), cx.step.to_string(), cx.direction, cx.attempt);
            if self.effect == Effect::Transactional {
                things.ledger.insert(row);
            }
            let news = match sign {
                '+' => things.there.insert(thing.clone()),
                _ => things.there.remove(&thing),
            };
            if news || self.effect != Effect::Idempotent {
                things.effects.push(format!("{sign}{thing}"));
            }
        });
        self.fuse.pass().await;
        Ok(Evidence::of(format!("{sign}{thing}")))
    }

    fn happened(&self, cx: &RunCx<'_>, undo: bool) -> Happened {
        let (sign, thing) = self.deed(undo);
        self.world.with(|things| {
            let did = match self.effect {
                Effect::Transactional => {
                    things.ledger.contains(&(cx.run.to_owned(), cx.step.to_string(), cx.direction, cx.attempt))
                }
                Effect::Resolvable => things.there.contains(&thing) == (sign == '+'),
                // The default: such a step cannot tell.
                Effect::Idempotent | Effect::Opaque => return Happened::Unknown("it cannot tell".to_owned()),
            };
            if did { Happened::Yes(Evidence::of(format!("{sign}{thing}, found"))) } else { Happened::No }
        })
    }
}

impl Step for Double {
    fn effect(&self) -> Effect {
        self.effect
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let mut change = Change { summary: format!("put {}", self.thing), ..Change::default() };
            if let Some(fact) = self.world.with(|things| things.fact.clone()) {
                change.preconditions.insert("size of main".to_owned(), fact);
            }
            change.files.insert("db/0001.sql".to_owned(), "f00d".to_owned());
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { self.act(cx, false).await })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { Ok(self.happened(cx, false)) })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { self.act(cx, true).await })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { Ok(self.happened(cx, true)) })
    }
}

/// A journal that passes the fuse before and after each durable write.
pub struct FusedJournal {
    inner: SqliteJournal,
    fuse: Fuse,
}

#[async_trait]
impl Journal for FusedJournal {
    async fn append(&self, run: &str, epoch: u64, events: &[Sealed]) -> Result<(), JournalError> {
        self.fuse.pass().await;
        self.inner.append(run, epoch, events).await?;
        self.fuse.pass().await;
        Ok(())
    }

    async fn read(&self, run: &str) -> Result<Vec<Sealed>, JournalError> {
        self.inner.read(run).await
    }

    async fn runs(&self) -> Result<Vec<String>, JournalError> {
        self.inner.runs().await
    }

    async fn claim(&self, name: &str, claim: &Claim) -> Result<u64, JournalError> {
        self.fuse.pass().await;
        let epoch = self.inner.claim(name, claim).await?;
        self.fuse.pass().await;
        Ok(epoch)
    }

    async fn heartbeat(&self, name: &str, claim: &Claim) -> Result<(), JournalError> {
        self.inner.heartbeat(name, claim).await
    }

    async fn release(&self, name: &str, claim: &Claim) -> Result<(), JournalError> {
        self.inner.release(name, claim).await
    }

    async fn leases(&self, host: &str) -> Result<Vec<(String, Claim)>, JournalError> {
        self.inner.leases(host).await
    }

    async fn cluster(&self) -> Result<Option<String>, JournalError> {
        self.inner.cluster().await
    }
}

type Decide = Box<dyn Fn(&Doubt) -> Option<DoubtAnswer> + Send + Sync>;
type OnEvent = Box<dyn Fn(&Event) + Send + Sync>;

/// A person who answers as a test says, and remembers what was asked and told.
#[derive(Default)]
pub struct Hand {
    /// Answers to items whose text holds the key; anything else: nobody is here.
    pub items: Vec<(&'static str, ItemAnswer)>,
    pub decision: Option<Decide>,
    pub confirmation: Option<&'static str>,
    pub accepts: Option<bool>,
    pub told: Mutex<Vec<Sealed>>,
    pub on_event: Option<OnEvent>,
}

impl Watcher for Hand {
    fn progress(&self, _step: &StepId, _progress: Progress) {}
}

#[async_trait]
impl Operator for Hand {
    fn event(&self, _run: &str, event: &Sealed) {
        self.told.lock().unwrap().push(event.clone());
        if let Some(on_event) = &self.on_event {
            on_event(&event.event);
        }
    }

    async fn item(&self, question: ItemQuestion<'_>) -> Option<ItemAnswer> {
        self.items.iter().find(|(text, _)| question.text.contains(text)).map(|(_, answer)| answer.clone())
    }

    async fn decide(&self, doubt: &Doubt) -> Option<DoubtAnswer> {
        self.decision.as_ref()?(doubt)
    }

    async fn confirmation(&self, _wanted: &str) -> Option<String> {
        self.confirmation.map(str::to_owned)
    }

    async fn accept(&self, _what: &str) -> Option<bool> {
        self.accepts
    }
}

/// A project in a folder of its own.
pub struct Project {
    pub folder: tempfile::TempDir,
    pub world: World,
    pub environment: Environment,
    pub incidents: Option<Arc<dyn Incidents>>,
    pub clock: Arc<dyn Clock>,
    pub people: People,
    pub operator: Person,
    pub redactor: Redactor,
    pub messenger: Arc<dyn Messenger>,
}

impl Project {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            world: World::new(),
            environment: Environment { name: "test".to_owned(), ..Environment::default() },
            incidents: None,
            clock: Arc::new(SystemClock),
            people: People::default(),
            operator: Person { principal: "anna".to_owned(), host: "desk".to_owned(), pid: dead_pid() },
            redactor: Redactor::new(),
            messenger: Arc::new(pgrunbook_engine::notice::Silent),
        }
    }

    pub fn engine(&self) -> Engine {
        self.engine_with(Fuse::default())
    }

    pub fn engine_with(&self, fuse: Fuse) -> Engine {
        let inner = SqliteJournal::open(&self.folder.path().join("journal.db")).unwrap();
        let target: Arc<dyn Target> = Arc::new(self.world.clone());
        Engine {
            journal: Arc::new(FusedJournal { inner, fuse: fuse.clone() }),
            clock: Arc::clone(&self.clock),
            kinds: Arc::new(WorldKinds { world: self.world.clone(), fuse }),
            targets: BTreeMap::from([("main".to_owned(), target)]),
            environment: self.environment.clone(),
            incidents: self.incidents.clone(),
            people: self.people.clone(),
            operator: self.operator.clone(),
            redactor: self.redactor.clone(),
            messenger: Arc::clone(&self.messenger),
            root: self.folder.path().to_owned(),
            artifacts: self.folder.path().join("runs"),
        }
    }

    pub async fn plan(&self, text: &str) -> Result<Plan, EngineError> {
        self.engine().plan(&runbook(text), &BTreeMap::new()).await
    }

    /// Plans and begins.
    pub async fn begin(&self, text: &str) -> String {
        let plan = self.plan(text).await.unwrap();
        self.engine().begin(plan, Purpose::Real).await.unwrap()
    }

    pub async fn run(&self, run: &str) -> RunEnd {
        self.engine().run(run, &RunOptions::default(), &Hand::default()).await.unwrap()
    }

    pub async fn rollback(&self, run: &str, path: &str) -> RunEnd {
        self.engine().rollback(run, path, None, &RunOptions::default(), &Hand::default()).await.unwrap()
    }

    pub async fn events(&self, run: &str) -> Vec<Sealed> {
        self.engine().journal.read(run).await.unwrap()
    }
}

/// A number that no process has: leases taken under it can always be taken over, as after a crash.
fn dead_pid() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

pub fn runbook(text: &str) -> pgrunbook_document::Runbook {
    let parsed = parse("RUNBOOK.md", text, &|path| Err(format!("no {path}")), Vocabulary(KINDS));
    let errors: Vec<_> =
        parsed.diagnostics.iter().filter(|found| found.severity == pgrunbook_document::Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    parsed.runbook
}

/// A journal as one line an event, for people.
pub fn shown(events: &[Sealed]) -> Vec<String> {
    use pgrunbook_engine::journal::Outcome;
    let way = |direction: &Direction| match direction {
        Direction::Forward => '>',
        Direction::Back => '<',
    };
    let line = |event: &Event| match event {
        Event::Begun { .. } => "begun".to_owned(),
        Event::Claimed { epoch, .. } => format!("claimed {epoch}"),
        Event::Item { outcome, by, note, .. } => format!("item {outcome:?} by {by} {}", note.as_deref().unwrap_or("")),
        Event::Approved { approval } => format!("approved by {}", approval.principal),
        Event::SignedOff { sign_off } => format!("signed off by {} as {}", sign_off.principal, sign_off.role),
        Event::Confirmed { text, .. } => format!("confirmed {text}"),
        Event::Overridden { demand, by, .. } => format!("overridden by {by}: {}", demand.word()),
        Event::ReviewClosed { closing } => format!("review of {} closed by {}", closing.item, closing.by),
        Event::Demands { demands } => format!("demands held: {}", demands.len()),
        Event::Intent { step, direction, attempt } => format!("{} {step} #{attempt} intent", way(direction)),
        Event::Outcome { step, direction, attempt, outcome } => {
            let outcome = match outcome {
                Outcome::Done { recovered: false, .. } => "done".to_owned(),
                Outcome::Done { recovered: true, .. } => "done, recovered".to_owned(),
                Outcome::Failed { code, partial, .. } => {
                    format!("failed {code}{}", if *partial { ", in parts" } else { "" })
                }
                Outcome::DidNotHappen => "did not happen".to_owned(),
                Outcome::Partial { .. } => "happened in parts".to_owned(),
                Outcome::Unknown { .. } => "unknown".to_owned(),
            };
            format!("{} {step} #{attempt} {outcome}", way(direction))
        }
        Event::Noted { step, direction, attempt, note } => format!("{} {step} #{attempt} noted {note}", way(direction)),
        Event::Decided { step, decision, .. } => format!("decided {step} {decision:?}"),
        Event::TurnedBack { path, .. } => format!("turned back: {path}"),
        Event::Accepted { what, .. } => format!("accepted {what}"),
        Event::NoticeDue { notice, .. } => format!("due {}", notice.key),
        Event::NoticeSent { key, delivered, .. } => format!("sent {key} {delivered}"),
        Event::UpdateDue { channel } => format!("update due in {channel}"),
        Event::Stopped { .. } => "stopped".to_owned(),
        Event::Ended { state } => format!("ended {state:?}"),
    };
    events.iter().map(|sealed| line(&sealed.event)).collect()
}
