//! SIGKILL at every point between two writes of a cutover, forth and back, of a database and of a file: the side that takes
//! writes is one or none, never two; one call settles it; no accepted write is lost; and nothing is left behind.
//!
//! One transfer serves all points: after each it has crossed back. `make test` takes a spread of them, `CUTOVER_SEEDS` all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgrunbook_postgres::pgbouncer::Console;
use pgrunbook_postgres::sandbox::{PoolMode, Pooler, Sandbox, SandboxOptions, url};
use pgrunbook_postgres::{ConnectOptions, Session};
use rusqlite::Connection;
use tokio::task::JoinHandle;

use crate::place::{Place, Said, is_soak};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the application does between two writes.
const THINK: Duration = Duration::from_millis(5);

/// Transfers at a time, each of databases of its own.
const WORLDS: usize = 4;

const HEAD: &str = "```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

const TABLES: &str = "CREATE TABLE visit (n integer PRIMARY KEY, what text NOT NULL); INSERT INTO visit VALUES (-1, 'first'), (-2, 'second')";

/// What only a database has, and a crossing brings along.
const MORE: &str = "CREATE SEQUENCE tick; CREATE MATERIALIZED VIEW said AS SELECT DISTINCT what FROM visit";

fn transfer(more: &str) -> String {
    format!(
        "# Load\n\n{HEAD}## Load\n\n```toml step\ntransfer = \"load\"\nfrom = \"old\"\ntarget = \"main\"\nschema = \"tenant\"\n\
         {more}undo = \"auto\"\n```\n"
    )
}

/// Crosses, and leads the application, which reads `app.toml`.
fn cutover(to: &str) -> String {
    format!(
        "# To the {to}\n\n{HEAD}## Go\n\n```toml step\ncutover = \"go\"\ntarget = \"main\"\nschemas = [\"tenant\"]\nto = \"{to}\"\n\
         budget = \"20s\"\nundo = \"auto\"\n```\n\n```toml step\nswitch = \"app\"\nfile = \"app.toml\"\nset = {{ side = \"{to}\" }}\n\
         undo = \"auto\"\n```\n"
    )
}

/// Behind a pooler, which is paused, and then led there.
fn cutover_behind(pooler: &Pooler, to: &str, database: &str, schema: &str) -> String {
    format!(
        "# To the {to}\n\n{HEAD}## Go\n\n```toml step\ncutover = \"go\"\ntarget = \"main\"\nschemas = [\"tenant\"]\nto = \"{to}\"\n\
         budget = \"20s\"\nswitch_within = \"20s\"\npoolers = [\"front\"]\nundo = \"auto\"\n```\n\n```toml step\nswitch = \"lead\"\n\
         pooler = \"front\"\nini = \"{}\"\nset = {{ dbname = \"{database}\", connect_query = \"SET search_path TO '{schema}'\" }}\n\
         undo = \"auto\"\n```\n",
        pooler.ini().display()
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

impl Side {
    fn other(self) -> Self {
        if self == Self::Source { Self::Target } else { Self::Source }
    }

    fn word(self) -> &'static str {
        if self == Self::Source { "source" } else { "target" }
    }
}

/// Where the application writes.
#[expect(clippy::large_enum_variant, reason = "a test has a handful of them")]
#[derive(Debug, Clone)]
enum Source {
    Database(ConnectOptions),
    File(std::path::PathBuf),
    /// A database that is written through a pooler, and so is the target: who leads where is the pooler's.
    Pooled(ConnectOptions, ConnectOptions),
}

/// One side as the application has it open.
#[expect(clippy::large_enum_variant, reason = "a test has a handful of them")]
enum Link {
    Server(Session, &'static str),
    File(Arc<std::sync::Mutex<Connection>>),
}

impl Link {
    async fn open(source: &Source, target: &ConnectOptions, side: Side) -> Self {
        match (side, source) {
            (Side::Target, _) => Self::Server(Session::connect(target, "app").await.unwrap(), "tenant.visit"),
            (Side::Source, Source::Database(options) | Source::Pooled(options, _)) => {
                Self::Server(Session::connect(options, "app").await.unwrap(), "public.visit")
            }
            (Side::Source, Source::File(path)) => {
                let connection = Connection::open(path).unwrap();
                connection.busy_timeout(PATIENCE).unwrap();
                Self::File(Arc::new(std::sync::Mutex::new(connection)))
            }
        }
    }

    /// Writes: whether that was accepted. What is no refusal by a fence is a failure of the test.
    async fn write(&self, sql: impl Fn(&str) -> String) -> bool {
        match self {
            Self::Server(session, table) => match session.execute(&sql(table)).await {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.sqlstate(), Some("25006"), "{error}");
                    if !session.is_closed() {
                        session.execute("ROLLBACK").await.unwrap();
                    }
                    false
                }
            },
            Self::File(connection) => {
                let (connection, sql) = (connection.clone(), sql("visit"));
                tokio::task::spawn_blocking(move || {
                    let connection = connection.lock().unwrap();
                    let done = connection.execute_batch(&sql);
                    let Err(error) = done else { return true };
                    assert!(error.to_string().contains("was cut over"), "{error}");
                    if !connection.is_autocommit() {
                        connection.execute_batch("ROLLBACK").unwrap();
                    }
                    false
                })
                .await
                .unwrap()
            }
        }
    }
}

/// An application that inserts one number after another, where it is led, and knows which were accepted.
struct App {
    at_target: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl App {
    fn start(source: Source, target: ConnectOptions) -> Self {
        let (at_target, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (accepted, waits) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let held = waits.clone();
        let (led, ends, count) = (at_target.clone(), stop.clone(), accepted.clone());
        let task = tokio::spawn(async move {
            let mut links: [Option<Link>; 2] = [None, None];
            let mut next = 0;
            while !ends.load(Ordering::SeqCst) {
                if held.load(Ordering::SeqCst) {
                    tokio::time::sleep(THINK).await;
                    continue;
                }
                let side = if led.load(Ordering::SeqCst) { Side::Target } else { Side::Source };
                let link = &mut links[usize::from(side == Side::Target)];
                let link = match link {
                    Some(link) => link,
                    None => link.insert(match &source {
                        Source::Pooled(_, front) => {
                            Link::Server(Session::connect(front, "app").await.unwrap(), "visit")
                        }
                        _ => Link::open(&source, &target, side).await,
                    }),
                };
                // Each number is inserted once, changed once, and every third goes again.
                let ends = if next % 3 == 0 { format!("DELETE FROM TABLE WHERE n = {next}") } else { String::new() };
                let sql = format!(
                    "BEGIN; INSERT INTO TABLE VALUES ({next}, 'new'); UPDATE TABLE SET what = 'known' WHERE n = {next}; {ends}; COMMIT"
                );
                if link.write(|table| sql.replace("TABLE", table)).await {
                    next += 1;
                    count.store(next, Ordering::SeqCst);
                }
                tokio::time::sleep(THINK).await;
            }
            next
        });
        Self { at_target, waits, accepted, stop, task }
    }

    fn lead(&self, side: Side) {
        self.at_target.store(side == Side::Target, Ordering::SeqCst);
    }

    async fn writes(&self, more: usize) {
        let (wanted, begun) = (self.accepted.load(Ordering::SeqCst) + more, Instant::now());
        while self.accepted.load(Ordering::SeqCst) < wanted {
            assert!(begun.elapsed() < PATIENCE && !self.task.is_finished(), "the application cannot write");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The rows that must be there.
    async fn ended(self) -> String {
        self.stop.store(true, Ordering::SeqCst);
        let count = self.task.await.unwrap();
        let known = (0..count).filter(|n| n % 3 != 0).map(|n| format!("{n} known"));
        ["-2 second".to_owned(), "-1 first".to_owned()].into_iter().chain(known).collect::<Vec<_>>().join(",")
    }
}

/// A transfer that was loaded, and everything around it.
struct World {
    place: Place,
    source: Source,
    app: Option<App>,
    /// Ends with its cluster.
    pooler: Option<Pooler>,
}

impl World {
    fn place(target: ConnectOptions, old: &str) -> Place {
        let place = Place::on(target);
        place.write("pgrunbook.toml", &format!("[targets.main]\nurl = \"env:DATABASE_URL\"\n[targets.old]\n{old}\n"));
        place.write("TARGET.md", &cutover("target"));
        place.write("SOURCE.md", &cutover("source"));
        place.write("app.toml", "side = \"source\"\n");
        place
    }

    async fn database(cluster: &Sandbox) -> Self {
        let old = cluster.fresh_database("old").await.unwrap();
        Session::connect(&old, "test").await.unwrap().execute(&format!("{TABLES}; {MORE}")).await.unwrap();
        let target = cluster.fresh_database("one").await.unwrap();
        let place = Self::place(target, &format!("url = \"{}\"", url(&old)));
        place.write("LOAD.md", &transfer(""));
        Self { place, source: Source::Database(old), app: None, pooler: None }
    }

    async fn pooled(cluster: &Sandbox) -> Self {
        let mut world = Self::database(cluster).await;
        let Source::Database(old) = &world.source else { unreachable!("made so") };
        let pooler = cluster.pooler(PoolMode::Transaction, &[]).await.unwrap();
        let line = format!("app = host=127.0.0.1 port={} dbname={} pool_size=4", old.hosts[0].port, old.database);
        let text = std::fs::read_to_string(pooler.ini()).unwrap();
        std::fs::write(pooler.ini(), text.replace("[databases]\n", &format!("[databases]\n{line}\n"))).unwrap();
        Console::connect(&pooler.options()).await.unwrap().reload().await.unwrap();
        let front = pooler.options().with_database("app");
        let config = format!("{}[targets.front]\nurl = \"{}\"\n", world.place.read("pgrunbook.toml"), url(&front));
        world.place.write("pgrunbook.toml", &config);
        let (there, here) = (&world.place.database.database, &old.database);
        world.place.write("TARGET.md", &cutover_behind(&pooler, "target", there, "tenant"));
        world.place.write("SOURCE.md", &cutover_behind(&pooler, "source", here, "public"));
        (world.source, world.pooler) = (Source::Pooled(old.clone(), front), Some(pooler));
        world
    }

    async fn file(cluster: &Sandbox, journal: &str, more: &str) -> Self {
        let place = Self::place(cluster.fresh_database("file").await.unwrap(), "sqlite = \"old.db\"");
        let path = place.path("old.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", journal).unwrap();
        connection.execute_batch(TABLES).unwrap();
        place.write("LOAD.md", &transfer(more));
        Self { place, source: Source::File(path), app: None, pooler: None }
    }

    /// Loads, with an application at work from then on.
    async fn loaded(mut self) -> Self {
        self.call(&["run", "LOAD.md"], None).await.done();
        let app = App::start(self.source.clone(), self.place.database.clone());
        app.writes(3).await;
        self.app = Some(app);
        self
    }

    /// Calls the program; with a number, it is killed at that point.
    async fn call(&self, args: &[&str], at: Option<usize>) -> Said {
        let mut command = tokio::process::Command::from(self.place.command(args));
        if let Some(at) = at {
            command.env("PGRUNBOOK_FAULT", at.to_string());
        }
        command.kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        Said::of(output.unwrap_or_else(|_| panic!("{args:?} killed at {at:?} hangs")).unwrap())
    }

    /// Each write that flows back into a file is a commit there, at a point of its own: while points are counted the application waits.
    fn counts(&self, counts: bool) {
        if let (Source::File(_), Some(app)) = (&self.source, &self.app) {
            app.waits.store(counts, Ordering::SeqCst);
        }
    }

    /// The points that a call passes, by name.
    async fn points(&self, args: &[&str]) -> Vec<String> {
        self.counts(true);
        let trace = self.place.path("trace");
        let mut command = tokio::process::Command::from(self.place.command(args));
        Said::of(command.env("PGRUNBOOK_FAULT_TRACE", &trace).output().await.unwrap()).done();
        let points = std::fs::read_to_string(&trace).unwrap().lines().map(str::to_owned).collect();
        std::fs::remove_file(trace).unwrap();
        self.counts(false);
        points
    }

    /// Id and standing of the newest run.
    async fn newest(&self) -> (String, String) {
        let line = self.call(&["status"], None).await.done().out.lines().next().unwrap_or_default().to_owned();
        (line.split_whitespace().next().unwrap_or_default().to_owned(), line)
    }

    /// Runs a runbook, killed at a point; what one call more makes of it must be the end. `what`: for whoever reads of a failure.
    async fn killed(&self, file: &str, at: usize, what: &str) {
        let (before, _) = self.newest().await;
        self.dies(&["run", file], at, what).await;
        let (now, line) = self.newest().await;
        let args: &[&str] = if now == before { &["run", file] } else { &["resume"] };
        if now == before || !line.contains("  completed  ") {
            let said = self.call(args, None).await;
            assert_eq!(said.code, Some(0), "{what}: {said:?}");
        }
    }

    /// The same; but it goes back from there.
    async fn killed_and_rolled_back(&self, file: &str, at: usize, what: &str) {
        let (before, _) = self.newest().await;
        self.dies(&["run", file], at, what).await;
        let (now, _) = self.newest().await;
        if now != before {
            let said = self.call(&["rollback", "--path", "undo"], None).await;
            // If it was killed before it was at work, the run before it is not taken back in its place.
            if said.err.contains("was never taken up and changed nothing") {
                let said = self.call(&["rollback", &now, "--path", "undo"], None).await;
                assert_eq!(said.code, Some(0), "{what}: {said:?}");
            } else {
                assert_eq!(said.code, Some(0), "{what}: {said:?}");
            }
        }
    }

    /// Goes back, killed at a point on the way.
    async fn killed_on_the_way_back(&self, at: usize, what: &str) {
        self.dies(&["rollback", "--path", "undo"], at, what).await;
        let (_, line) = self.newest().await;
        if line.contains("  rolled back  ") {
            return;
        }
        if self.call(&["show"], None).await.out.contains("Going back on") {
            let said = self.call(&["resume"], None).await;
            assert_eq!(said.code, Some(0), "{what}: {said:?}");
        } else {
            self.rolled_back(what).await;
        }
    }

    async fn rolled_back(&self, what: &str) {
        let said = self.call(&["rollback", "--path", "undo"], None).await;
        assert_eq!(said.code, Some(0), "{what}: {said:?}");
    }

    async fn takes(&self, side: Side) -> bool {
        let link = Link::open(&self.source, &self.place.database, side).await;
        link.write(|table| format!("BEGIN; INSERT INTO {table} VALUES (-3, 'tried'); ROLLBACK")).await
    }

    /// Calls the program, which dies at that point, unless it does not come to so many. Then at most one side takes writes.
    async fn dies(&self, args: &[&str], at: usize, what: &str) {
        self.counts(true);
        let said = self.call(args, Some(at)).await;
        self.counts(false);
        assert!(matches!(said.code, None | Some(0)), "{what}: {said:?}");
        // While rows are loaded the target has no guard yet: what anybody writes there is found when it is compared.
        let both = self.app.is_some() && self.takes(Side::Source).await && self.takes(Side::Target).await;
        assert!(!both, "{what}: both sides take writes");
    }

    /// Exactly this side takes writes, everything says so, and nothing else is there than there has to be.
    async fn is_at(&self, side: Side, what: &str) {
        let phase = if side == Side::Target { "switched" } else { "following" };
        let recorded = "SELECT concat_ws(' ', phase, crossing, lossy, stopped) FROM pgrunbook.transfer";
        assert_eq!(self.place.value(recorded).await, phase, "{what}");
        assert!(self.takes(side).await, "{what}: the {} takes no writes", side.word());
        assert!(!self.takes(side.other()).await, "{what}: the {} takes writes, too", side.other().word());
        match &self.source {
            Source::Pooled(_, front) => {
                let databases = Console::connect(front).await.unwrap().databases().await.unwrap();
                assert!(databases.iter().all(|one| !one.paused), "{what}: clients wait");
            }
            _ => {
                assert_eq!(self.place.read("app.toml"), format!("side = \"{}\"\n", side.word()), "{what}");
            }
        }
        let mut sides = vec![(Side::Target, &self.place.database, 1)];
        match &self.source {
            Source::Database(options) | Source::Pooled(options, _) => sides.push((Side::Source, options, 1)),
            Source::File(path) => {
                let fences = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%fence%'";
                let count: i64 = Connection::open(path).unwrap().query_row(fences, [], |row| row.get(0)).unwrap();
                assert_eq!(count, if side == Side::Source { 0 } else { 3 }, "{what}: triggers of the file's fence");
            }
        }
        for (one, options, streams) in sides {
            let fence = i32::from(one != side);
            let wanted = format!("fences {fence} triggers {fence} slots {streams} publications {streams} prepared 0");
            let session = Session::connect(options, "test").await.unwrap();
            // The sessions of a process that was killed last as long as their statements.
            let begun = Instant::now();
            while session.value(SESSIONS).await.unwrap() != "0" {
                assert!(begun.elapsed() < PATIENCE, "{what}: sessions stay on the {}", one.word());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(left_on(options).await, wanted, "{what}: on the {}", one.word());
        }
        let paused = std::fs::read_dir(self.place.path(".pgrunbook/paused"));
        assert_eq!(paused.into_iter().flatten().count(), 0, "{what}: words of a pause");
    }

    /// The same, and the application goes on there.
    async fn goes_on_at(&self, side: Side, what: &str) {
        self.is_at(side, what).await;
        let app = self.app.as_ref().unwrap();
        app.lead(side);
        app.writes(2).await;
    }

    /// Calls the program until it lives: it is killed at its first point, the next call at its second, and so on.
    async fn killed_again_and_again(&self, args: &[&str]) {
        for at in 1.. {
            let said = self.call(args, Some(at)).await;
            match said.code {
                None => {}
                Some(0) => return,
                // The last was killed behind everything that it had to do.
                Some(_) => {
                    assert_eq!(self.place.value("SELECT count(*) FROM pgrunbook.transfer").await, "0", "{said:?}");
                    return;
                }
            }
        }
    }

    async fn rows(&self, side: Side) -> String {
        let rows = |table: &str| format!("SELECT string_agg(n || ' ' || what, ',' ORDER BY n) FROM {table}");
        match (&self.source, side) {
            (_, Side::Target) => self.place.value(&rows("tenant.visit")).await,
            (Source::Database(options) | Source::Pooled(options, _), Side::Source) => {
                Session::connect(options, "test").await.unwrap().value(&rows("public.visit")).await.unwrap()
            }
            (Source::File(path), Side::Source) => Connection::open(path)
                .unwrap()
                .query_row("SELECT group_concat(n || ' ' || what) FROM (SELECT * FROM visit ORDER BY n)", [], |row| {
                    row.get(0)
                })
                .unwrap(),
        }
    }

    /// Everything that was accepted is where the application is now, the source. Then the transfer is given up, which leaves nothing;
    /// or it crosses once more and is completed: the source has everything, is fenced, and nobody's log is kept.
    async fn ends(mut self, complete: bool) {
        let app = self.app.take().unwrap();
        if !complete {
            let wanted = app.ended().await;
            assert_eq!(self.rows(Side::Source).await, wanted);
            self.killed_again_and_again(&["transfer", "abandon", "tenant", "--yes"]).await;
            self.nothing_is_left("given up").await;
            return;
        }
        self.call(&["run", "TARGET.md"], None).await.done();
        app.lead(Side::Target);
        app.writes(2).await;
        let wanted = app.ended().await;
        self.killed_again_and_again(&["transfer", "complete", "tenant", "--yes"]).await;
        assert_eq!(self.rows(Side::Target).await, wanted);
        assert_eq!(self.rows(Side::Source).await, wanted, "what flowed back");
        assert_eq!(self.place.value("SELECT phase FROM pgrunbook.transfer").await, "complete");
        self.takes_at(Side::Target, "completed").await;
        let mut sides = vec![(&self.place.database, 0)];
        if let Source::Database(options) | Source::Pooled(options, _) = &self.source {
            sides.push((options, 1));
        }
        for (options, fences) in sides {
            let left = left_on(options).await;
            assert_eq!(
                left,
                format!("fences {fences} triggers {fences} slots 0 publications 0 prepared 0"),
                "completed"
            );
        }
    }

    async fn nothing_is_left(&self, what: &str) {
        let mut sides = vec![&self.place.database];
        match &self.source {
            Source::Database(options) | Source::Pooled(options, _) => sides.push(options),
            Source::File(path) => {
                let ours = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%pgrunbook%'";
                let count: i64 = Connection::open(path).unwrap().query_row(ours, [], |row| row.get(0)).unwrap();
                assert_eq!(count, 0, "{what}: in the file");
            }
        }
        for options in sides {
            let left = left_on(options).await;
            assert_eq!(left, "fences 0 triggers 0 slots 0 publications 0 prepared 0", "{what}");
        }
        assert_eq!(self.place.value("SELECT to_regnamespace('tenant') IS NULL").await, "t", "{what}");
        assert_eq!(self.place.value("SELECT count(*) FROM pgrunbook.transfer").await, "0", "{what}");
        let spooled = std::fs::read_dir(self.place.path(".pgrunbook/spool/main")).into_iter().flatten();
        assert_eq!(spooled.count(), 0, "{what}: spools and images");
        assert!(self.takes(Side::Source).await, "{what}");
    }
}

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, 'pgrunbook')";

/// What of ours is on a server. One that was never fenced has no table of fences.
async fn left_on(options: &ConnectOptions) -> String {
    let session = Session::connect(options, "test").await.unwrap();
    let fenced = session.value("SELECT to_regclass('pgrunbook.fence') IS NOT NULL").await.unwrap() == "t";
    let fences = if fenced { "SELECT count(*) FROM pgrunbook.fence WHERE state = 'fenced'" } else { "SELECT 0" };
    session.value(&LEFT.replace("FENCES", fences)).await.unwrap()
}

const LEFT: &str = "SELECT concat_ws(' ',
    'fences', (FENCES),
    'triggers', (SELECT count(*) FROM pg_trigger WHERE starts_with(tgname, 'pgrunbook') AND tgenabled <> 'D'),
    'slots', (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()),
    'publications', (SELECT count(*) FROM pg_publication),
    'prepared', (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()))";

/// One way to be killed.
#[derive(Debug, Clone, Copy)]
enum Case {
    /// On the way there, and on the way back, each taken up.
    ThereAndBack(Option<usize>, Option<usize>),
    /// On the way there, and rolled back from there.
    ThereUndone(usize),
    /// On the rollback of a crossing.
    Undoing(usize),
}

impl World {
    async fn one(&self, case: Case) {
        let what = format!("{case:?}");
        match case {
            Case::ThereAndBack(there, back) => {
                for (file, at, side) in [("TARGET.md", there, Side::Target), ("SOURCE.md", back, Side::Source)] {
                    // A point that there is not: nobody is killed.
                    self.killed(file, at.unwrap_or(usize::MAX), &what).await;
                    self.goes_on_at(side, &what).await;
                }
            }
            Case::ThereUndone(at) => {
                self.killed_and_rolled_back("TARGET.md", at, &what).await;
                self.goes_on_at(Side::Source, &what).await;
            }
            Case::Undoing(at) => {
                self.call(&["run", "TARGET.md"], None).await.done();
                self.goes_on_at(Side::Target, &what).await;
                self.killed_on_the_way_back(at, &what).await;
                self.goes_on_at(Side::Source, &what).await;
            }
        }
    }
}

/// The points to be killed at: all, or those behind each write and before each commit, of which a part in `make test`. What is between
/// "behind one write" and "before the next" changes nothing outside.
fn chosen(points: &[String], part: usize) -> Vec<usize> {
    let all = points.iter().zip(1..);
    if is_soak() {
        return all.map(|(_, at)| at).collect();
    }
    let matters = all.filter(|(name, _)| ["AfterCommit", "AfterEffect", "BeforeCommit"].contains(&name.as_str()));
    matters.map(|(_, at)| at).step_by(part).collect()
}

async fn cluster() -> Sandbox {
    let settings = [("wal_level", "logical"), ("max_connections", "200"), ("max_wal_senders", "50")];
    let mut settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    settings.push(("max_replication_slots".to_owned(), "50".to_owned()));
    Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

async fn worlds<W: Future<Output = World>>(make: impl Fn(usize) -> W) -> Vec<World> {
    let mut worlds = Vec::new();
    for number in 0..WORLDS {
        worlds.push(make(number).await);
    }
    worlds
}

/// Kills a crossing everywhere: the first world shows which points there are, and all share the work.
async fn killed_everywhere(mut worlds: Vec<World>, part: usize) {
    let first = worlds.pop().unwrap().loaded().await;
    // The first crossing of a transfer makes the way back.
    let making = first.points(&["run", "TARGET.md"]).await;
    first.goes_on_at(Side::Target, "undisturbed").await;
    let back = first.points(&["run", "SOURCE.md"]).await;
    first.goes_on_at(Side::Source, "undisturbed").await;
    let there = first.points(&["run", "TARGET.md"]).await;
    first.goes_on_at(Side::Target, "undisturbed").await;
    let undo = first.points(&["rollback", "--path", "undo"]).await;
    first.goes_on_at(Side::Source, "undisturbed").await;
    println!("{} points there, {} back, {} on the rollback", there.len(), back.len(), undo.len());
    for (points, least) in [(&there, 8), (&back, 10), (&undo, 10)] {
        let outside = points.iter().filter(|name| name.ends_with("Commit") || name.ends_with("Effect")).count();
        assert!(outside >= least, "{outside} points at which something outside changes: {points:?}");
    }
    let slot = making.iter().position(|name| name == "BeforeEffect").unwrap() + 1;

    let (there_at, back_at) = (chosen(&there, part), chosen(&back, part));
    let mut cases: Vec<Case> = (0..there_at.len().max(back_at.len()))
        .map(|at| Case::ThereAndBack(there_at.get(at).copied(), back_at.get(at).copied()))
        .collect();
    cases.extend(chosen(&there, part * 2).into_iter().map(Case::ThereUndone));
    cases.extend(chosen(&undo, part * 2).into_iter().map(Case::Undoing));
    let (cases, next) = (Arc::new(cases), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    let worlds = std::iter::once(first).chain(worlds);
    for (number, world) in worlds.enumerate() {
        let (cases, next) = (cases.clone(), next.clone());
        tasks.spawn(async move {
            let world = match number {
                0 => world,
                // Before the slot, behind its publication; as it is made; behind it.
                _ => {
                    let world = world.loaded().await;
                    world.one(Case::ThereAndBack(Some(slot + number - 2), None)).await;
                    world
                }
            };
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                world.one(*case).await;
            }
            world.ends(number % 2 == 1).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_of_databases_that_is_killed_at_any_point_is_settled_by_one_call() {
    let cluster = cluster().await;
    killed_everywhere(worlds(|_| World::database(&cluster)).await, 9).await;
}

/// Clients wait while it is paused, and nobody is left waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_behind_a_pooler_that_is_killed_at_any_point_leaves_no_client_waiting() {
    let cluster = cluster().await;
    killed_everywhere(worlds(|_| World::pooled(&cluster)).await, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_of_a_file_that_is_killed_at_any_point_is_settled_by_one_call() {
    let cluster = cluster().await;
    let journal = |number| if number % 2 == 0 { "wal" } else { "delete" };
    killed_everywhere(worlds(|number| World::file(&cluster, journal(number), "")).await, 9).await;
}

/// Each load is killed, taken up and undone; or undone at once. The source serves them all.
async fn loads_killed_everywhere(worlds: Vec<World>, part: usize) {
    let (mut points, mut undo) = (Vec::new(), 0);
    for world in &worlds {
        let passed = world.points(&["run", "LOAD.md"]).await;
        world.is_loaded("undisturbed").await;
        undo = undo.max(world.points(&["rollback", "--path", "undo"]).await.len());
        world.nothing_is_left("undisturbed").await;
        points.push(passed);
    }
    assert!(points[0].len() > 30, "{points:?}");
    println!("{} and {} points of a load, {undo} of its undo", points[0].len(), points[1].len());
    let mut tasks = tokio::task::JoinSet::new();
    for (number, world) in worlds.into_iter().enumerate() {
        let points = chosen(&points[number % 2], part);
        // Of two worlds of a kind each takes the half.
        let points: BTreeSet<usize> = points.into_iter().skip(number / 2).step_by(2).collect();
        tasks.spawn(async move {
            for at in points {
                let what = format!("killed at {at} of world {number}");
                world.killed("LOAD.md", at, &what).await;
                world.is_loaded(&what).await;
                world.killed_on_the_way_back(at % undo + 1, &what).await;
                world.nothing_is_left(&what).await;
                if at % 3 == 0 || is_soak() {
                    world.killed_and_rolled_back("LOAD.md", at, &what).await;
                    world.nothing_is_left(&what).await;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn load_of_a_file_that_is_killed_at_any_point_is_taken_up_or_leaves_nothing() {
    let cluster = cluster().await;
    // In the first journal's mode the image is a copy on disk.
    let way = |number| if number % 2 == 0 { ("delete", "") } else { ("wal", KEYS) };
    loads_killed_everywhere(worlds(|number| World::file(&cluster, way(number).0, way(number).1)).await, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn load_of_a_database_that_is_killed_at_any_point_is_taken_up_or_leaves_nothing() {
    let cluster = cluster().await;
    let mut worlds = worlds(|_| World::database(&cluster)).await;
    if !is_soak() {
        // Each begins with two loads that nobody disturbs.
        worlds.truncate(2);
    }
    loads_killed_everywhere(worlds, 8).await;
}

const KEYS: &str = "sync = \"dirty-keys\"\naccept = [\"dirty-keys\"]\n";

impl World {
    /// The rows are in the target, which refuses writes, and its record is that of a load that was not disturbed.
    async fn is_loaded(&self, what: &str) {
        self.takes_at(Side::Source, what).await;
        let rows = "SELECT string_agg(n || ' ' || what, ',' ORDER BY n) FROM tenant.visit";
        assert_eq!(self.place.value(rows).await, "-2 second,-1 first", "{what}");
        if let Source::Database(options) = &self.source {
            let recorded = "SELECT concat_ws(' ', phase, crossing, lossy, stopped) FROM pgrunbook.transfer";
            assert_eq!(self.place.value(recorded).await, "following", "{what}");
            for (options, flows) in [(options, 1), (&self.place.database, 0)] {
                let left = left_on(options).await;
                let fence = 1 - flows;
                let wanted = format!("fences {fence} triggers {fence} slots {flows} publications {flows} prepared 0");
                assert_eq!(left, wanted, "{what}");
            }
            return;
        }
        let recorded = "SELECT concat_ws(' ', phase, f.rows, f.bytes > 0, stopped, lossy)
            FROM pgrunbook.transfer JOIN pgrunbook.transfer_file AS f USING (schema)";
        assert_eq!(self.place.value(recorded).await, "following 2 t", "{what}");
        assert!(!self.place.path(".pgrunbook/spool/main/tenant_image").exists(), "{what}: an image is left");
    }

    async fn takes_at(&self, side: Side, what: &str) {
        assert!(self.takes(side).await && !self.takes(side.other()).await, "{what}: not the {}", side.word());
    }
}
