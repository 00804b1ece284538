//! What people are told: owed once, delivered at least once, and in nobody's way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pgrunbook_engine::notice::{Messenger, Notice, Promise, Said};
use pgrunbook_engine::said::Recorded;
use pgrunbook_engine::*;
use tokio::sync::{mpsc, watch};

use crate::running::FOUR;
use crate::world::{Fuse, Hand, Project, shown};

const OPS: &str = "ops";

/// A channel in memory. Clones are the same channel, each with the fuse of its own process.
#[derive(Clone, Default)]
struct Memory {
    /// Keys of what arrived, in order; also a second time.
    arrived: Arc<Mutex<Vec<Notice>>>,
    /// Why nothing arrives.
    down: Arc<Mutex<Option<String>>>,
    /// Updates while it goes back.
    promised: bool,
    fuse: Fuse,
}

impl Memory {
    /// What arrived, without the run: `rollback/ops`.
    fn keys(&self) -> Vec<String> {
        let arrived = self.arrived.lock().unwrap();
        arrived.iter().map(|notice| notice.key.split_once('/').unwrap().1.to_owned()).collect()
    }

    fn go_down(&self, why: Option<&str>) {
        *self.down.lock().unwrap() = why.map(str::to_owned);
    }
}

#[async_trait]
impl Messenger for Memory {
    fn is_silent(&self) -> bool {
        false
    }

    fn check(&self, plan: &Plan) -> Result<(), String> {
        if plan.variables.contains_key("unsayable") { Err("there are no words for it".to_owned()) } else { Ok(()) }
    }

    fn compose(&self, occasion: Occasion, more: Option<&str>, scene: &Scene) -> Vec<Notice> {
        let more = more.map_or_else(String::new, |more| format!("/{more}"));
        vec![Notice {
            key: format!("{}/{}{more}/{OPS}", scene.run, occasion.word()),
            occasion,
            channel: OPS.to_owned(),
            address: "memory".to_owned(),
            subject: format!("{}: {}", occasion.word(), scene.title),
            text: scene.reason.clone().unwrap_or_default(),
        }]
    }

    fn promise(&self, direction: Direction) -> Option<Promise> {
        let (every, grace) = (15 * MINUTE, 5 * MINUTE);
        (self.promised && direction == Direction::Back).then(|| Promise { channel: OPS.to_owned(), every, grace })
    }

    async fn deliver(&self, notice: &Notice) -> Result<String, String> {
        self.fuse.pass().await;
        if let Some(why) = self.down.lock().unwrap().clone() {
            return Err(why);
        }
        self.arrived.lock().unwrap().push(notice.clone());
        self.fuse.pass().await;
        Ok("it answered 200".to_owned())
    }
}

pub const MINUTE: Duration = Duration::from_secs(60);

/// Time that goes on when a test says so.
#[derive(Clone)]
pub struct HandClock(Arc<ClockState>);

pub struct ClockState {
    begun: Instant,
    moved: watch::Sender<Duration>,
    /// When those who sleep wake up, each with its number.
    asleep: watch::Sender<BTreeMap<u64, Duration>>,
}

/// What the lease sleeps between two heartbeats: nobody waits for it.
const HEARTBEAT: Duration = Duration::from_secs(5);

impl HandClock {
    pub fn new() -> Self {
        Self(Arc::new(ClockState {
            begun: Instant::now(),
            moved: watch::Sender::new(Duration::ZERO),
            asleep: watch::Sender::new(BTreeMap::new()),
        }))
    }

    /// So long after noon, at once: where nobody sleeps.
    pub fn set(&self, length: Duration) {
        self.0.moved.send_replace(length);
    }

    /// Lets time pass from one sleeper's waking to the next, until so much is over and everybody sleeps.
    async fn pass(&self, length: Duration) {
        let end = *self.0.moved.borrow() + length;
        loop {
            let mut asleep = self.0.asleep.subscribe();
            let asleep = tokio::time::timeout(MINUTE, asleep.wait_for(|asleep| !asleep.is_empty())).await;
            let first = *asleep.expect("somebody sleeps").unwrap().values().min().unwrap();
            self.0.moved.send_replace(first.min(end));
            if first > end {
                return;
            }
            let mut asleep = self.0.asleep.subscribe();
            let awake = asleep.wait_for(|asleep| asleep.values().all(|until| *until > first));
            tokio::time::timeout(MINUTE, awake).await.expect("they wake up").unwrap();
        }
    }
}

/// Whoever sleeps, until they wake up or are dropped.
struct Sleeper<'a>(&'a ClockState, u64);

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.asleep.send_modify(|asleep| _ = asleep.remove(&self.1));
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        noon + SignedDuration::try_from(*self.0.moved.borrow()).unwrap()
    }

    fn instant(&self) -> Instant {
        self.0.begun + *self.0.moved.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let end = *self.0.moved.borrow() + duration;
        let mut moved = self.0.moved.subscribe();
        let _sleeper = (duration != HEARTBEAT).then(|| {
            let mut number = 0;
            self.0.asleep.send_modify(|asleep| {
                number = asleep.keys().last().map_or(0, |last| last + 1);
                asleep.insert(number, end);
            });
            Sleeper(&self.0, number)
        });
        moved.wait_for(|moved| *moved >= end).await.unwrap();
    }
}

fn project(memory: &Memory) -> Project {
    let mut project = Project::new();
    project.messenger = Arc::new(memory.clone());
    project
}

#[tokio::test]
async fn each_occasion_is_told_once_and_owed_with_what_it_tells_of() {
    let memory = Memory::default();
    let project = project(&memory);
    let run = project.begin(FOUR).await;
    let no = StepError::failed("no", "the disk is full");
    project.world.fail("g", Some(StepError::waiting("wait", "nobody has looked")));
    assert!(matches!(project.run(&run).await, RunEnd::Waiting { .. }));
    assert!(matches!(project.run(&run).await, RunEnd::Waiting { .. }));
    project.world.fail("g", Some(no));
    assert!(matches!(project.run(&run).await, RunEnd::Failed { .. }));
    assert!(matches!(project.run(&run).await, RunEnd::Failed { .. }));
    project.world.fail("g", None);
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(project.run(&run).await, RunEnd::RolledBack, "it has ended, and nothing is owed");
    let told = ["started", "waiting/g", "failed/g.3", "failed/g.4", "completed", "rollback", "rolled-back"];
    assert_eq!(memory.keys(), told.map(|what| format!("{what}/ops")), "one pause is told once, each failure by itself");
    assert_eq!(memory.arrived.lock().unwrap()[2].text, "the disk is full");

    let lines: Vec<String> =
        shown(&project.events(&run).await).into_iter().map(|line| line.replace(&run, "RUN")).collect();
    for (event, due) in [
        ("turned back: undo", "due RUN/rollback/ops"),
        ("ended Completed", "due RUN/completed/ops"),
        ("ended RolledBack", "due RUN/rolled-back/ops"),
        ("> g #3 failed no", "due RUN/failed/g.3/ops"),
    ] {
        let at = lines.iter().position(|line| line == event).unwrap();
        assert_eq!(lines[at + 1], due, "{lines:#?}");
    }
}

#[tokio::test]
async fn channel_that_is_down_stops_nothing_and_hears_of_it_later() {
    let memory = Memory::default();
    let mut project = project(&memory);
    project.redactor.learn("s3cr3t-t0ken");
    memory.go_down(Some("https://hooks/s3cr3t-t0ken did not answer"));
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert!(project.world.there().is_empty(), "it went back");
    let state = project.engine().status(&run).await.unwrap().state;
    assert!(state.notices.len() == 4 && state.notices.iter().all(|told| told.delivered.is_none()));
    let why = state.notices[2].failed.as_deref();
    assert_eq!(why, Some("https://hooks/*** did not answer"), "recorded, and without the secret");

    memory.go_down(None);
    assert_eq!(project.run(&run).await, RunEnd::RolledBack);
    assert_eq!(memory.keys(), ["started/ops", "completed/ops", "rollback/ops", "rolled-back/ops"]);
    let state = project.engine().status(&run).await.unwrap().state;
    assert!(state.notices.iter().all(|told| told.delivered.is_some()));
    let folder = project.folder.path().join("evidence");
    project.engine().report(&run, &folder, None).await.unwrap();
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(report.contains("| rollback | ops (memory) | rollback: Four | delivered: it answered 200 |"), "{report}");
    project.messenger = Arc::new(pgrunbook_engine::notice::Silent);
    assert!(evidence::verify::verify(&folder, None).is_ok());
}

/// Runs and rolls back, dying at a point (0: nowhere), and taken up again.
async fn killed(at: u64, back: bool) -> (Memory, Project, String, u64) {
    let memory = Memory::default();
    let mut project = project(&memory);
    let text = FOUR.replace("opaque", "resolvable");
    let run = project.begin(&text).await;
    let fuse = Fuse::at(at);
    let dying = Memory { fuse: fuse.clone(), ..memory.clone() };
    if back {
        assert_eq!(project.run(&run).await, RunEnd::Completed);
    }
    project.messenger = Arc::new(dying);
    let engine = project.engine_with(fuse.clone());
    let (options, hand) = (RunOptions::default(), Hand::default());
    let died = if back {
        fuse.kill(engine.rollback(&run, UNDO, None, &options, &hand)).await.is_none()
    } else {
        fuse.kill(engine.run(&run, &options, &hand)).await.is_none()
    };
    assert_eq!(died, at > 0, "point {at}");
    project.messenger = Arc::new(memory.clone());
    if died {
        let turned = project.engine().status(&run).await.unwrap().state.turned_back.is_some();
        let end = if back && !turned { project.rollback(&run, UNDO).await } else { project.run(&run).await };
        assert_eq!(end, if back { RunEnd::RolledBack } else { RunEnd::Completed }, "point {at}");
    }
    (memory, project, run, fuse.passed())
}

#[tokio::test]
async fn what_dies_at_any_point_is_told_nothing_twice_that_cannot_be_told_apart() {
    for back in [false, true] {
        let (memory, _, _, points) = killed(0, back).await;
        let wanted: BTreeSet<String> = memory.keys().into_iter().collect();
        assert!(points > 20, "{points} points");
        for at in 1..=points {
            let (memory, project, run, _) = killed(at, back).await;
            let keys = memory.keys();
            let told: BTreeSet<String> = keys.iter().cloned().collect();
            assert_eq!(told, wanted, "killed at point {at}");
            let due = shown(&project.events(&run).await).into_iter().filter(|line| line.starts_with("due ")).count();
            assert_eq!(due, wanted.len(), "killed at point {at}: each is owed once");
            // Twice only what arrived when the process died before it could record that.
            assert!(keys.len() <= wanted.len() + 2, "killed at point {at}: {keys:?}");
        }
    }
}

#[tokio::test]
async fn plan_of_which_nobody_could_be_told_is_refused() {
    let project = project(&Memory::default());
    let text = FOUR.replace("# Four\n", "# Four\n\n```toml runbook\nvars.unsayable = \"x\"\n```\n");
    let refused = project.plan(&text).await.unwrap_err();
    assert_eq!(refused.to_string(), "people could not be told of its runs: there are no words for it");
}

/// A rollback that hangs at its first step, with the clock in the test's hand.
struct Going {
    project: Arc<Project>,
    memory: Memory,
    clock: HandClock,
    run: String,
    wake: Arc<tokio::sync::Notify>,
    events: mpsc::UnboundedReceiver<String>,
    work: tokio::task::JoinHandle<RunEnd>,
}

async fn going() -> Going {
    let memory = Memory { promised: true, ..Memory::default() };
    let mut project = project(&memory);
    // Alive, so that nobody else may take the run.
    project.operator.pid = std::process::id();
    let project = Arc::new(project);
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    let wake = project.world.hang("o");
    let clock = HandClock::new();
    let (tell, events) = mpsc::unbounded_channel();
    let engine = Engine { clock: Arc::new(clock.clone()), ..project.engine() };
    let of_run = run.clone();
    let work = tokio::spawn(async move {
        let on_event = move |event: &Event| {
            let word = serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned();
            // Whoever listened may have heard enough.
            let _ = tell.send(word);
        };
        let hand = Hand { on_event: Some(Box::new(on_event)), ..Hand::default() };
        engine.rollback(&of_run, UNDO, Some("p95 doubled".to_owned()), &RunOptions::default(), &hand).await.unwrap()
    });
    let mut going = Going { project, memory, clock, run, wake, events, work };
    going.until("notice_sent").await;
    going
}

impl Going {
    /// Waits for an event of this name.
    async fn until(&mut self, word: &str) {
        let waits = async { while self.events.recv().await.expect("it goes on") != word {} };
        tokio::time::timeout(MINUTE, waits).await.unwrap_or_else(|_| panic!("no {word}"));
    }

    /// Waits until another process has left what a person said.
    async fn until_left(&self) {
        let left = self.project.folder.path().join("runs").join(&self.run).join("said");
        let deadline = Instant::now() + MINUTE;
        let is_whole =
            |file: std::io::Result<std::fs::DirEntry>| file.unwrap().path().extension() == Some("json".as_ref());
        while !std::fs::read_dir(&left).is_ok_and(|mut files| files.any(is_whole)) {
            assert!(Instant::now() < deadline, "nothing was left in {}", left.display());
            tokio::task::yield_now().await;
        }
    }

    /// The events that came since.
    fn came(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

#[tokio::test]
async fn promised_update_is_reminded_of_and_told_when_it_is_overdue() {
    let mut going = going().await;
    let none: Vec<String> = Vec::new();
    going.clock.pass(14 * MINUTE).await;
    assert_eq!(
        going.came().iter().filter(|word| *word != "intent").collect::<Vec<_>>(),
        none.iter().collect::<Vec<_>>()
    );
    going.clock.pass(MINUTE).await;
    assert_eq!(going.came(), ["update_due"], "the operator, when it is due");
    going.clock.pass(4 * MINUTE).await;
    assert_eq!(going.came(), none, "once");
    assert_eq!(going.memory.keys().last().unwrap(), "rollback/ops");
    going.clock.pass(MINUTE).await;
    assert_eq!(going.came()[0], "notice_due", "the channel, when it is overdue");
    going.clock.pass(LOOK).await;
    assert_eq!(going.memory.keys().last().unwrap(), "overdue/1/ops");
    going.clock.pass(21 * MINUTE).await;
    assert_eq!(going.memory.keys().last().unwrap(), "overdue/2/ops", "and again");
    going.wake.notify_one();
    assert_eq!(going.work.await.unwrap(), RunEnd::RolledBack);
}

/// How often the process at work looks for what others said.
const LOOK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn word_of_a_person_is_recorded_by_the_process_at_work_and_is_the_update() {
    let mut going = going().await;
    going.clock.pass(14 * MINUTE).await;
    going.came();
    let said = [said(&going.run, 1, true)];
    let (engine, run, words) = (going.project.engine(), going.run.clone(), said.clone());
    let record = tokio::spawn(async move { engine.record_said(&run, &words).await });
    // It leaves its words, and waits for the other process.
    going.until_left().await;
    going.clock.pass(2 * LOOK).await;
    let recorded = record.await.unwrap().unwrap();
    assert_eq!(recorded, Recorded::InJournal);
    assert_eq!(going.came(), ["notice_due", "notice_sent"]);
    going.clock.pass(14 * MINUTE).await;
    assert!(going.came().is_empty(), "what was said was the update");
    going.clock.pass(2 * MINUTE).await;
    assert_eq!(going.came(), ["update_due"]);
    going.wake.notify_one();
    assert_eq!(going.work.await.unwrap(), RunEnd::RolledBack);

    // Nobody is at work now: it is written at once, also of a run that has ended.
    let mut after = said.clone();
    after[0].notice.key = format!("{}/update/2/ops", going.run);
    assert_eq!(going.project.engine().record_said(&going.run, &after).await.unwrap(), Recorded::InJournal);
    let state = going.project.engine().status(&going.run).await.unwrap().state;
    assert_eq!(state.notices.iter().filter(|told| told.by.as_deref() == Some("olga")).count(), 2);
}

/// What a person said of a run, and whether it arrived.
fn said(run: &str, number: u32, delivered: bool) -> Said {
    let notice = Notice {
        key: format!("{run}/update/{number}/ops"),
        occasion: Occasion::Update,
        channel: OPS.to_owned(),
        address: "memory".to_owned(),
        subject: "[UPDATE] Four".to_owned(),
        text: "half of it is back".to_owned(),
    };
    Said { notice, by: "olga".to_owned(), delivered, said: "it answered".to_owned() }
}

/// The names of a run's events of these kinds, in order.
async fn named(project: &Project, run: &str, names: &[&str]) -> Vec<String> {
    let events = project.events(run).await;
    let name =
        |sealed: &journal::Sealed| serde_json::to_value(&sealed.event).unwrap()["event"].as_str().unwrap().to_owned();
    events.iter().map(name).filter(|name| names.contains(&name.as_str())).collect()
}

#[tokio::test]
async fn word_that_did_not_arrive_is_no_update() {
    let mut going = going().await;
    going.clock.pass(14 * MINUTE).await;
    going.came();
    let (engine, run, words) = (going.project.engine(), going.run.clone(), [said(&going.run, 1, false)]);
    let record = tokio::spawn(async move { engine.record_said(&run, &words).await });
    going.until_left().await;
    going.clock.pass(2 * LOOK).await;
    assert_eq!(record.await.unwrap().unwrap(), Recorded::InJournal);
    assert_eq!(going.came(), ["notice_due", "notice_sent"]);
    going.clock.pass(MINUTE).await;
    assert_eq!(going.came(), ["update_due"], "the channel has heard nothing");
    going.wake.notify_one();
    assert_eq!(going.work.await.unwrap(), RunEnd::RolledBack);
}

#[tokio::test]
async fn overdue_update_is_owed_once_while_the_channel_is_down() {
    let mut going = going().await;
    going.memory.go_down(Some("nobody answers"));
    going.clock.pass(25 * MINUTE).await;
    assert_eq!(
        named(&going.project, &going.run, &["notice_due"]).await.len(),
        4,
        "started, completed, rollback, one overdue"
    );
    assert!(going.came().iter().filter(|word| *word == "notice_sent").count() > 1, "it is tried again");
    going.memory.go_down(None);
    going.clock.pass(MINUTE).await;
    assert_eq!(going.memory.keys().last().unwrap(), "overdue/1/ops");
    going.wake.notify_one();
    assert_eq!(going.work.await.unwrap(), RunEnd::RolledBack);
}

#[tokio::test]
async fn run_that_nobody_is_at_work_on_is_reminded_of_by_whoever_asks() {
    let memory = Memory { promised: true, ..Memory::default() };
    let mut project = project(&memory);
    let clock = HandClock::new();
    project.clock = Arc::new(clock.clone());
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.engine().remind(&run).await.unwrap(), Reminded::Nothing, "it has ended");
    project.world.fail("o", Some(StepError::failed("no", "the disk is full")));
    assert!(matches!(project.rollback(&run, UNDO).await, RunEnd::RollbackBlocked { .. }));

    let engine = project.engine();
    let promised = engine.promised(&engine.status(&run).await.unwrap().state).unwrap();
    assert_eq!((promised.channel.as_str(), promised.at), (OPS, "2026-11-21T12:15:00Z".parse().unwrap()));
    let look = async |seconds: u64| {
        clock.set(Duration::from_secs(seconds));
        assert!(matches!(project.engine().remind(&run).await.unwrap(), Reminded::Looked(_)));
    };
    look(14 * 60).await;
    assert!(named(&project, &run, &["update_due"]).await.is_empty(), "not yet");
    look(15 * 60).await;
    look(15 * 60 + 1).await;
    assert_eq!(named(&project, &run, &["update_due"]).await.len(), 1, "the operator, once");
    look(20 * 60).await;
    look(20 * 60 + 1).await;
    assert_eq!(memory.keys().last().unwrap(), "overdue/1/ops", "the channel, once");
    assert_eq!(memory.keys().iter().filter(|key| key.starts_with("overdue")).count(), 1);

    // A channel that is down is not asked all the time, and nothing is owed twice.
    memory.go_down(Some("nobody answers"));
    look(40 * 60).await;
    look(40 * 60 + 1).await;
    let sent = named(&project, &run, &["notice_sent"]).await.len();
    look(40 * 60 + 29).await;
    assert_eq!(named(&project, &run, &["notice_sent"]).await.len(), sent);
    memory.go_down(None);
    look(40 * 60 + 31).await;
    assert_eq!(memory.keys().last().unwrap(), "overdue/2/ops");

    // A word that arrived is the update; then the way back goes on, and nothing is promised of it any more.
    project.engine().record_said(&run, &[said(&run, 1, true)]).await.unwrap();
    clock.set(55 * MINUTE);
    let Reminded::Looked(promised) = project.engine().remind(&run).await.unwrap() else { panic!("it is promised") };
    assert_eq!(promised.at, "2026-11-21T12:55:31Z".parse().unwrap());
    project.world.fail("o", None);
    assert_eq!(project.run(&run).await, RunEnd::RolledBack);
    assert_eq!(project.engine().remind(&run).await.unwrap(), Reminded::Nothing);
}
