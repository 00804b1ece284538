//! Fence and switch as steps of a run, with a PgBouncer that clients wait at, and that is lost and comes back meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgrunbook_engine::{RunEnd, RunOptions};
use pgrunbook_postgres::pgbouncer::Console;
use pgrunbook_postgres::sandbox::url;
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::fence::freeze::current;
use pgrunbook_steps::fence::{self, Standing, Thaw};

use super::pooler::Front;
use crate::bench::{Bench, failure};

/// When a failed statement began, and its SQLSTATE; none of a lost connection.
pub type Failed = Vec<(Instant, Option<String>)>;

/// Writers at the pooler, who connect again when they must, and note what was accepted where and what failed.
pub struct Writers {
    accepted: Arc<[AtomicU64; 2]>,
    failed: Arc<Mutex<Failed>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    pub fn start(options: &ConnectOptions) -> Self {
        let (accepted, failed, stop) = (Arc::default(), Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut writers = Self { accepted, failed, stop, tasks: Vec::new() };
        for id in 1..=4 {
            let (options, accepted, failed, stop) =
                (options.clone(), writers.accepted.clone(), writers.failed.clone(), writers.stop.clone());
            writers.tasks.push(tokio::spawn(async move {
                let mut session = None;
                while !stop.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    let fail = |state: Option<&str>| failed.lock().unwrap().push((begun, state.map(str::to_owned)));
                    let connected = match session.take() {
                        Some(session) => session,
                        None => match Session::connect(&options, "writer").await {
                            Ok(session) => session,
                            Err(error) => {
                                fail(error.sqlstate());
                                // As every driver's pool does before it tries again.
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                continue;
                            }
                        },
                    };
                    let sql = format!("UPDATE acct SET n = n + 1 WHERE id = {id}; SELECT current_database()");
                    match connected.value(&sql).await {
                        Ok(there) => {
                            accepted[usize::from(there == "health")].fetch_add(1, Ordering::SeqCst);
                            session = Some(connected);
                        }
                        Err(error) => {
                            fail(error.sqlstate());
                            // The fence's refusal leaves the connection as it was.
                            session = (error.sqlstate() == Some("25006")).then_some(connected);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            }));
        }
        writers
    }

    /// Until so many more are accepted: 0 at the legacy database, 1 at the new one.
    pub async fn accepted_more(&self, side: usize, more: u64) {
        let wanted = self.accepted[side].load(Ordering::SeqCst) + more;
        until("writers go on", async || self.accepted[side].load(Ordering::SeqCst) >= wanted).await;
    }

    pub fn states(&self) -> Vec<Option<String>> {
        self.failed.lock().unwrap().iter().map(|(_, state)| state.clone()).collect()
    }

    /// Ends them: how many writes were accepted on either side, and what failed.
    pub async fn stopped(self) -> (u64, Failed) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let accepted = self.accepted.iter().map(|side| side.load(Ordering::SeqCst)).sum();
        (accepted, self.failed.lock().unwrap().clone())
    }

    /// Ends them; what was accepted is what is there, on both sides.
    async fn end(self, front: &Front, legacy_schema: &str) -> Failed {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        for (at, (database, schema)) in [("legacy", legacy_schema), ("health", "tenant")].into_iter().enumerate() {
            let sum = front.direct(database).await.value(&format!("SELECT sum(n) FROM {schema}.acct")).await.unwrap();
            assert_eq!(sum, self.accepted[at].load(Ordering::SeqCst).to_string(), "{database}");
        }
        self.failed.lock().unwrap().clone()
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_fenced(front: &Front, schema: &str, wanted: bool) {
    let legacy = front.direct("legacy").await;
    let what = format!("{schema} is fenced: {wanted}");
    until(&what, async || matches!(fence::state(&legacy, schema).await.unwrap(), Standing::Fenced(_)) == wanted).await;
}

async fn until_thawed(schema: &str) -> Thaw {
    until("the freeze is undone", async || current(schema).is_some_and(|freeze| freeze.ended().is_some())).await;
    current(schema).unwrap().ended().unwrap()
}

/// A project that has the legacy database and the pooler before it as targets.
fn bench(front: &Front) -> Bench {
    let mut bench = Bench::on(front.server.options().with_database("legacy"));
    bench.config(&format!("[targets.front]\nurl = \"{}\"\n", url(&front.app())));
    bench
}

fn fenced(schema: &str, budget: &str) -> String {
    format!(
        "# Switch\n\n## Go\n\n```toml step\nfence = \"stop\"\ntarget = \"main\"\nschema = \"{schema}\"\nmessage = \"moved\"\n\
         budget = \"{budget}\"\npoolers = [\"front\"]\nundo = \"auto\"\n```\n\n"
    )
}

fn switched(schema: &str, ini: &str) -> String {
    format!(
        "```toml step\nswitch = \"lead\"\npooler = \"front\"\nini = \"{ini}\"\nschema = \"{schema}\"\n\
         set = {{ dbname = \"health\", connect_query = \"SET search_path TO 'tenant'\" }}\nundo = \"auto\"\n```\n"
    )
}

/// A step that takes as long as the test likes.
fn waits(bench: &Bench) -> String {
    let file = bench.path("go").display().to_string();
    format!(
        "```toml step\nsh = \"wait\"\nrun = \"while [ ! -e '{file}' ]; do sleep 0.02; done\"\nundo = \"none: it waits\"\n```\n\n"
    )
}

fn says_what_is_safe(end: &RunEnd) {
    let (step, code, message) = failure(end);
    assert_eq!((step.as_str(), code.as_str()), ("lead", "freeze-budget"), "{message}");
    for words in ["since its budget was over", "writers go on where they were", "Nothing was switched"] {
        assert!(message.contains(words), "{words}: {message}");
    }
}

async fn nobody_is_paused(front: &Front) {
    let databases = Console::connect(&front.app()).await.unwrap().databases().await.unwrap();
    assert!(databases.iter().all(|one| !one.paused), "{databases:?}");
    let app = databases.iter().find(|one| one.name == "app").unwrap();
    assert_eq!(app.database, "legacy", "nothing was switched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_stands_still_in_the_freeze_is_resumed_after_the_budget_and_no_statement_fails() {
    let schema = "stalled";
    let front = Front::of(schema).await;
    let (bench, writers) = (bench(&front), Writers::start(&front.app()));
    let ini = front.pooler.ini().display().to_string();
    let before = std::fs::read(&ini).unwrap();
    writers.accepted_more(0, 100).await;
    let run = bench.begin(&(fenced(schema, "1500ms") + &waits(&bench) + &switched(schema, &ini))).await;
    let (engine, options) = (bench.engine().await, RunOptions::default());
    let beside = async {
        until_fenced(&front, schema, true).await;
        front.pooler.stand_still();
        // The budget is over: the fence goes, though the pooler does not answer.
        until_fenced(&front, schema, false).await;
        assert_eq!(current(schema).unwrap().ended(), None, "its clients are not resumed yet");
        front.pooler.go_on();
        let thaw = until_thawed(schema).await;
        assert!(thaw.expired && thaw.undone == Ok(()), "{thaw}");
        bench.write("go", "");
    };
    let (end, ()) = tokio::join!(engine.run(&run, &options, &bench.hand), beside);
    says_what_is_safe(&end.unwrap());
    writers.accepted_more(0, 100).await;
    nobody_is_paused(&front).await;
    assert_eq!(std::fs::read(&ini).unwrap(), before);
    assert_eq!(writers.end(&front, schema).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_dies_in_the_freeze_and_starts_again_leaves_nobody_out_after_the_budget() {
    let schema = "killed";
    let front = Front::of(schema).await;
    let (bench, writers) = (bench(&front), Writers::start(&front.app()));
    let ini = front.pooler.ini().display().to_string();
    writers.accepted_more(0, 100).await;
    let run = bench.begin(&(fenced(schema, "3s") + &waits(&bench) + &switched(schema, &ini))).await;
    let (engine, options) = (bench.engine().await, RunOptions::default());
    let beside = async {
        until_fenced(&front, schema, true).await;
        assert_eq!(writers.states(), [], "until then they only waited");
        front.pooler.stop();
        until("writers lose their connections", async || writers.states().contains(&None)).await;
        // It knows nothing of the pause: from now on the fence alone keeps them out.
        front.pooler.start_again().unwrap();
        until("the fence refuses", async || writers.states().contains(&Some("25006".to_owned()))).await;
        let thaw = until_thawed(schema).await;
        assert!(thaw.expired && thaw.undone == Ok(()), "{thaw}");
        let thawed = Instant::now();
        bench.write("go", "");
        thawed
    };
    let (end, thawed) = tokio::join!(engine.run(&run, &options, &bench.hand), beside);
    says_what_is_safe(&end.unwrap());
    writers.accepted_more(0, 100).await;
    nobody_is_paused(&front).await;
    let failed = writers.end(&front, schema).await;
    assert!(failed.iter().all(|(begun, _)| *begun < thawed), "nothing fails after the budget: {failed:?}");
    let is_known = |state: &Option<String>| matches!(state.as_deref(), None | Some("25006"));
    assert!(failed.iter().all(|(_, state)| is_known(state)), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_led_elsewhere_by_a_run_and_back_by_its_undo() {
    let schema = "led";
    let front = Front::of(schema).await;
    let (bench, writers) = (bench(&front), Writers::start(&front.app()));
    let ini = front.pooler.ini().display().to_string();
    let before = std::fs::read(&ini).unwrap();
    writers.accepted_more(0, 100).await;
    let (run, end) = bench.run(&(fenced(schema, "20s") + &switched(schema, &ini))).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    writers.accepted_more(1, 100).await;
    assert_eq!(writers.states(), [], "they waited, and nothing failed");
    let evidence = bench.evidence(&run, "lead").await;
    assert!(evidence.summary.starts_with("pooler `front` leads `app` elsewhere"), "{}", evidence.summary);
    assert!(evidence.facts.contains_key("freeze_ms"), "{evidence:?}");
    assert!(std::fs::read_to_string(&ini).unwrap().contains("connect_query='SET search_path TO ''tenant'''"));

    let end = bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(std::fs::read(&ini).unwrap(), before, "byte for byte");
    writers.accepted_more(0, 100).await;
    nobody_is_paused(&front).await;
    let failed = writers.end(&front, schema).await;
    // Back is not under a pause: for a moment the fence, which is lifted last, refuses.
    assert!(failed.iter().all(|(_, state)| state.as_deref() == Some("25006")), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_reads_another_file_is_noticed_and_clients_go_on_where_they_were() {
    let schema = "elsewhere";
    let front = Front::of(schema).await;
    let (bench, writers) = (bench(&front), Writers::start(&front.app()));
    let conf = std::fs::read_to_string(front.pooler.ini()).unwrap();
    bench.write("copy.ini", &conf);
    writers.accepted_more(0, 100).await;
    let (_, end) = bench.run(&(fenced(schema, "20s") + &switched(schema, "copy.ini"))).await;
    let (step, _, message) = failure(&end);
    assert_eq!(step, "lead", "{message}");
    for words in ["does not follow it after RELOAD: its dbname is `legacy`", "writers go on where they were"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    writers.accepted_more(0, 100).await;
    nobody_is_paused(&front).await;
    assert_eq!(std::fs::read_to_string(bench.path("copy.ini")).unwrap(), conf);
    assert_eq!(writers.end(&front, schema).await, []);
}
