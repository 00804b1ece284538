//! A cutover behind a PgBouncer: whatever becomes of it, its clients go on, and no write is lost.

use pgrunbook_engine::{Event, RunEnd, RunOptions};
use pgrunbook_postgres::Session;
use pgrunbook_postgres::pgbouncer::Console;
use pgrunbook_postgres::sandbox::url;
use pgrunbook_steps::fence::freeze::current;
use pgrunbook_steps::fence::{self, Standing};

use super::front::{Writers, until};
use super::pooler::Front;
use crate::bench::{Bench, failure};

const LOAD: &str = "# Move\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n## Load\n\n```toml step\ntransfer = \"load\"\n\
    from = \"old\"\ntarget = \"main\"\nschema = \"tenant\"\nundo = \"auto\"\n```\n\n";

const HEAD: &str = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n## Go\n\n";

/// Holds as soon as somebody makes the table `ready`.
const GATE: &str = "```sql step\n-- check: ready    target: main\n-- expect: 0 rows\n\
    SELECT 1 WHERE pg_catalog.to_regclass('public.ready') IS NULL;\n```\n\n";

fn cutover(budget: &str, within: &str) -> String {
    format!(
        "```toml step\ncutover = \"go\"\ntarget = \"main\"\nschemas = [\"tenant\"]\nbudget = \"{budget}\"\nswitch_within = \"{within}\"\n\
         poolers = [\"front\"]\nundo = \"auto\"\n```\n\n"
    )
}

/// A step that takes as long as the test likes.
fn waits(world: &World) -> String {
    let file = world.bench.path("go").display().to_string();
    format!(
        "```toml step\nsh = \"wait\"\nrun = \"while [ ! -e '{file}' ]; do sleep 0.02; done\"\nundo = \"none: it waits\"\n```\n\n"
    )
}

/// The legacy database behind a pooler, the one that it moves into, and four writers at the pooler.
struct World {
    front: Front,
    bench: Bench,
    writers: Writers,
    ini: Vec<u8>,
}

impl World {
    async fn new() -> Self {
        let front = Front::moving().await;
        let mut bench = Bench::on(front.server.options().with_database("health"));
        let legacy = url(&front.server.options().with_database("legacy"));
        bench.config(&format!("[targets.old]\nurl = \"{legacy}\"\n[targets.front]\nurl = \"{}\"\n", url(&front.app())));
        let writers = Writers::start(&front.app());
        writers.accepted_more(0, 50).await;
        let ini = std::fs::read(front.pooler.ini()).unwrap();
        Self { front, bench, writers, ini }
    }

    /// The same, loaded and followed: what comes is another run.
    async fn loaded() -> Self {
        let world = Self::new().await;
        let (_, end) = world.bench.run(LOAD).await;
        assert!(matches!(end, RunEnd::Completed), "{end:?}");
        world
    }

    /// Leads the pooler to the new database. It names no schema: its run's freeze is meant.
    fn switch(&self) -> String {
        format!(
            "```toml step\nswitch = \"lead\"\npooler = \"front\"\nini = \"{}\"\n\
             set = {{ dbname = \"health\", connect_query = \"SET search_path TO 'tenant'\" }}\nundo = \"auto\"\n```\n",
            self.front.pooler.ini().display()
        )
    }

    async fn phase(&self) -> String {
        self.bench.value("SELECT phase FROM pgrunbook.transfer WHERE schema = 'tenant'").await
    }

    async fn until_phase(&self, wanted: &str) {
        until(wanted, async || self.phase().await == wanted).await;
    }

    async fn is_paused(&self) -> bool {
        let databases = Console::connect(&self.front.app()).await.unwrap().databases().await.unwrap();
        databases.iter().any(|one| one.paused)
    }

    /// Nobody waits, no word of a pause is left, the legacy database takes writes, and the pooler leads there as before.
    async fn is_as_before(&self) {
        assert!(!self.is_paused().await, "clients wait");
        assert_eq!(fence::paused(self.bench.folder.path()), []);
        let legacy = self.front.direct("legacy").await;
        assert_eq!(fence::state(&legacy, "public").await.unwrap(), Standing::Unfenced);
        assert_eq!(std::fs::read(self.front.pooler.ini()).unwrap(), self.ini, "nothing was switched");
        self.writers.accepted_more(0, 50).await;
    }

    /// Ends the writers: everything that was accepted anywhere is in this table. What failed.
    async fn whole_in(self, database: &str, schema: &str) -> Vec<Option<String>> {
        let (accepted, failed) = self.writers.stopped().await;
        let sum = format!("SELECT sum(n) FROM {schema}.acct");
        assert_eq!(self.front.direct(database).await.value(&sum).await.unwrap(), accepted.to_string());
        failed.into_iter().map(|(_, state)| state).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutover_is_ended_by_its_runs_switch_and_its_way_back_lets_everybody_go_on() {
    let world = World::new().await;
    let text = format!("{LOAD}## Go\n\n{}{}", cutover("20s", "20s"), world.switch());
    let (run, end) = world.bench.run(&text).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert_eq!(world.writers.states(), [], "they waited, and nothing failed");
    world.writers.accepted_more(1, 50).await;
    assert!(!world.is_paused().await && fence::paused(world.bench.folder.path()).is_empty());
    let evidence = world.bench.evidence(&run, "lead").await;
    assert!(
        evidence.facts.contains_key("freeze_ms"),
        "it has ended the freeze, though it names no schema: {evidence:?}"
    );

    let end = world.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    world.is_as_before().await;
    let undone = world.bench.path(&format!(".pgrunbook/runs/{run}/go.undone"));
    assert!(
        current("tenant").is_none() && !undone.exists(),
        "the way back armed nothing that would cross forward again"
    );
    let failed = world.whole_in("legacy", "public").await;
    // Traffic is led back before the fence there is lifted.
    assert!(failed.iter().all(|state| state.as_deref() == Some("25006")), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_that_fails_between_cutover_and_switch_undoes_the_cutover_before_the_run_is_left() {
    let world = World::new().await;
    // Long enough that the budget cannot be what undoes it.
    let text = format!("{LOAD}## Go\n\n{}{GATE}{}", cutover("60s", "600s"), world.switch());
    let (run, end) = world.bench.run(&text).await;
    assert_eq!(failure(&end).0, "ready");
    world.is_as_before().await;
    assert_eq!(world.phase().await, "following");
    let events = world.bench.engine().await.journal.read(&run).await.unwrap();
    let told = events.iter().any(|sealed| match &sealed.event {
        Event::Stopped { why } => why.contains("step `go`: the freeze was undone") && why.contains("writers go on"),
        _ => false,
    });
    assert!(told, "the journal says what became of it");

    // What was undone is not switched to by a later process.
    world.bench.execute("CREATE TABLE public.ready ()").await;
    let end = world.bench.resume(&run).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str()), ("lead", "freeze-undone"), "{message}");
    assert!(message.contains("Nothing was switched"), "{message}");
    world.is_as_before().await;
    assert!(matches!(world.bench.rollback(&run, "undo").await, RunEnd::RolledBack));
    world.is_as_before().await;
    assert_eq!(world.whole_in("legacy", "public").await, [], "they waited, and nothing failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutover_that_no_switch_follows_is_undone_and_its_run_does_not_complete() {
    let world = World::loaded().await;
    let (run, end) = world.bench.run(&format!("{HEAD}{}", cutover("60s", "600s"))).await;
    let RunEnd::Stopped { why } = &end else { panic!("{end:?}") };
    assert!(why.contains("what step `go` froze was undone"), "{why}");
    world.is_as_before().await;
    assert!(matches!(world.bench.resume(&run).await, RunEnd::Stopped { .. }), "it is not done the second time either");
    assert!(matches!(world.bench.rollback(&run, "undo").await, RunEnd::RolledBack));
    world.is_as_before().await;
    assert_eq!(world.whole_in("legacy", "public").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budget_that_ends_while_the_pooler_stands_still_opens_the_source_and_resumes_when_it_answers() {
    let world = World::loaded().await;
    let run = world.bench.begin(&format!("{HEAD}{}{}{}", cutover("20s", "8s"), waits(&world), world.switch())).await;
    let (engine, options) = (world.bench.engine().await, RunOptions::default());
    let beside = async {
        world.until_phase("switched").await;
        world.front.pooler.stand_still();
        world.until_phase("following").await;
        assert_eq!(current("tenant").unwrap().ended(), None, "its clients are not resumed yet");
        world.front.pooler.go_on();
        until("it is undone", async || current("tenant").unwrap().ended().is_some()).await;
        let thaw = current("tenant").unwrap().ended().unwrap();
        assert!(thaw.expired && thaw.undone == Ok(()), "{thaw}");
        world.bench.write("go", "");
    };
    let (end, ()) = tokio::join!(engine.run(&run, &options, &world.bench.hand), beside);
    let (step, code, message) = failure(&end.unwrap());
    assert_eq!((step.as_str(), code.as_str()), ("lead", "freeze-budget"), "{message}");
    world.is_as_before().await;
    assert_eq!(world.whole_in("legacy", "public").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutover_that_gives_up_while_the_pooler_stands_still_resumes_it_when_it_answers() {
    let world = World::loaded().await;
    let writer = world.front.direct("legacy").await;
    let run = world.bench.begin(&format!("{HEAD}{}{}", cutover("10s", "20s"), world.switch())).await;
    let (engine, options) = (world.bench.engine().await, RunOptions::default());
    // Past the pooler, so that the pause does not wait for it, and the fence does. It writes nothing, or the slot of the way back
    // would wait for it before.
    writer.execute("BEGIN; LOCK TABLE public.acct IN ROW EXCLUSIVE MODE").await.unwrap();
    let beside = async {
        until("it is paused", async || world.is_paused().await).await;
        let word = fence::paused(world.bench.folder.path());
        assert_eq!((word.len(), word[0].pooler.as_str(), &word[0].run), (1, "front", &run), "{word:?}");
        assert!(word[0].command.contains("RESUME app"), "{word:?}");
        world.until_phase("forth").await;
        world.front.pooler.stand_still();
        // The fence was given up, and the pooler is still to be resumed.
        world.until_phase("following").await;
        world.front.pooler.go_on();
    };
    let (end, ()) = tokio::join!(engine.run(&run, &options, &world.bench.hand), beside);
    let (step, _, message) = failure(&end.unwrap());
    assert_eq!(step, "go");
    assert!(message.contains("go on where they were"), "{message}");
    writer.execute("ROLLBACK").await.unwrap();
    world.is_as_before().await;
    assert_eq!(world.whole_in("legacy", "public").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_that_is_in_doubt_leaves_nobody_paused() {
    let world = World::loaded().await;
    // The connection is lost in the COMMIT that would open the target, once.
    world
        .bench
        .execute(
            "CREATE SEQUENCE public.once;
             CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('public.once') = 1 THEN
                     PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10);
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON pgrunbook.transfer DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN (NEW.phase = 'switched') EXECUTE FUNCTION public.die()",
        )
        .await;
    let (run, end) = world.bench.run(&format!("{HEAD}{}{}", cutover("20s", "20s"), world.switch())).await;
    assert_eq!(failure(&end).0, "go", "{end:?}");
    world.is_as_before().await;
    assert_eq!(world.phase().await, "following");
    let end = world.bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    world.writers.accepted_more(1, 50).await;
    let health = Session::connect(&world.bench.database, "test").await.unwrap();
    assert_eq!(fence::state(&health, "tenant").await.unwrap(), Standing::Unfenced);
    let failed = world.whole_in("health", "tenant").await;
    assert!(failed.iter().all(|state| state.as_deref() == Some("25006")), "{failed:?}");
}
