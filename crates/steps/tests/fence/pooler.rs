//! PgBouncer around a fence: eight writers are led to another schema, and none of them sees an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::pgbouncer::{self, Console, Door, PoolerError};
use pgrunbook_postgres::sandbox::{PoolMode, Pooler, Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::fence;
use pgrunbook_steps::switch::pooler::{Ini, repoint};

use super::MESSAGE;

/// A server of its own with a pooler before it: what is paused here is nobody else's.
pub struct Front {
    pub server: Sandbox,
    pub pooler: Pooler,
}

impl Front {
    /// `app` leads to the database `legacy`, whose `public.acct` is written.
    async fn new() -> Self {
        Self::of("public").await
    }

    /// The same with another schema. Freezes of one process are told apart by it.
    pub async fn of(legacy_schema: &str) -> Self {
        Self::with(legacy_schema, true).await
    }

    /// The same with nothing in `health` yet: `public.acct` is to be brought there.
    pub async fn moving() -> Self {
        Self::with("public", false).await
    }

    async fn with(legacy_schema: &str, there: bool) -> Self {
        let server = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let legacy = server.database("legacy").await.unwrap();
        let health = server.database("health").await.unwrap();
        let table = "acct (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO";
        let rows = "acct SELECT g, 0 FROM generate_series(1, 8) AS g";
        for (options, schema) in
            [(&legacy, legacy_schema), (&health, "tenant")].into_iter().take(1 + usize::from(there))
        {
            let session = Session::connect(options, "test").await.unwrap();
            let made = format!("CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.{table} {schema}.{rows}");
            session.execute(&made).await.unwrap();
        }
        let session = Session::connect(&legacy, "test").await.unwrap();
        session.execute(&format!("ALTER DATABASE legacy SET search_path = {legacy_schema}")).await.unwrap();
        let pooler = server.pooler(PoolMode::Transaction, &[]).await.unwrap();
        let front = Self { server, pooler };
        let port = front.server.options().hosts[0].port;
        front
            .lead(&[("host", "127.0.0.1"), ("port", &port.to_string()), ("dbname", "legacy"), ("pool_size", "8")])
            .await;
        front
    }

    /// Changes where `app` leads, in the file and in the pooler.
    async fn lead(&self, set: &[(&str, &str)]) {
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let text = std::fs::read(self.pooler.ini()).unwrap();
        let mut ini = Ini::parse(&text).unwrap();
        ini.set("app", &set).unwrap();
        repoint(&self.pooler.ini(), &text, ini.bytes()).unwrap();
        Console::connect(&self.pooler.options()).await.unwrap().reload().await.unwrap();
    }

    pub fn app(&self) -> ConnectOptions {
        self.pooler.options().with_database("app")
    }

    fn door(&self) -> Door {
        Door::through("front", &self.app())
    }

    pub async fn direct(&self, database: &str) -> Session {
        Session::connect(&self.server.options().with_database(database), "direct").await.unwrap()
    }
}

/// How the tenant's schema is found behind the pooler.
enum SearchPath {
    /// `connect_query` of the database's line.
    ConnectQuery,
    /// `ALTER ROLE ... IN DATABASE ... SET search_path`.
    Role,
}

async fn switched_without_an_error(way: SearchPath) {
    let front = Front::new().await;
    let accepted: Arc<Vec<AtomicU64>> = Arc::new((0..2).map(|_| AtomicU64::new(0)).collect());
    let (stop, longest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (1..=8)
        .map(|id| {
            let (options, accepted, stop, longest) = (front.app(), accepted.clone(), stop.clone(), longest.clone());
            tokio::spawn(async move {
                let session = Session::connect(&options, "writer").await.unwrap();
                while stop.load(Ordering::SeqCst) == 0 {
                    let begun = Instant::now();
                    // In a transaction, as applications do: PAUSE must wait for its end.
                    let sql = format!("UPDATE acct SET n = n + 1 WHERE id = {id}; SELECT current_database()");
                    let there = session.value(&sql).await.expect("no writer sees an error");
                    accepted[usize::from(there == "health")].fetch_add(1, Ordering::SeqCst);
                    longest.fetch_max(u64::try_from(begun.elapsed().as_millis()).unwrap(), Ordering::SeqCst);
                }
            })
        })
        .collect();
    while accepted[0].load(Ordering::SeqCst) < 500 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let (legacy, doors) = (front.direct("legacy").await, [front.door()]);
    fence::install(&legacy).await.unwrap();
    let begun = Instant::now();
    pgbouncer::pause_all(&doors, Duration::from_secs(10)).await.unwrap();
    let wish = fence::Fence {
        id: "front".to_owned(),
        schema: "public".to_owned(),
        message: MESSAGE.to_owned(),
        operator: "anna".to_owned(),
        ..fence::Fence::default()
    };
    let fenced = fence::fence(&legacy, &wish, &Cancel::default()).await.unwrap();
    match way {
        SearchPath::ConnectQuery => {
            front.lead(&[("dbname", "health"), ("connect_query", "SET search_path TO 'tenant'")]).await;
        }
        SearchPath::Role => {
            let health = front.direct("health").await;
            health.execute("ALTER ROLE postgres IN DATABASE health SET search_path = tenant").await.unwrap();
            front.lead(&[("dbname", "health")]).await;
        }
    }
    pgbouncer::resume_all(&doors, Duration::from_secs(10)).await.unwrap();
    let freeze = begun.elapsed();
    while accepted[1].load(Ordering::SeqCst) < 500 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.store(1, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    println!("freeze {freeze:?}, fence {:?}, longest statement {longest:?} ms", fenced.locked_for);
    for (at, (database, table)) in [("legacy", "public.acct"), ("health", "tenant.acct")].into_iter().enumerate() {
        let sum = front.direct(database).await.value(&format!("SELECT sum(n) FROM {table}")).await.unwrap();
        assert_eq!(sum, accepted[at].load(Ordering::SeqCst).to_string(), "{database}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_led_elsewhere_by_connect_query_without_an_error() {
    switched_without_an_error(SearchPath::ConnectQuery).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_led_elsewhere_by_a_roles_setting_without_an_error() {
    switched_without_an_error(SearchPath::Role).await;
}

#[tokio::test]
async fn pause_that_takes_too_long_is_taken_back() {
    let front = Front::new().await;
    let door = front.door();
    let long = Session::connect(&front.app(), "long").await.unwrap();
    long.execute("BEGIN; SELECT 1").await.unwrap();
    let error = pgbouncer::pause(&door, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&error, PoolerError::NotPaused { active: 1, .. }), "{error}");
    // Another client is served again, beside the one in its transaction.
    let other = Session::connect(&front.app(), "other").await.unwrap();
    assert_eq!(other.value("SELECT 2").await.unwrap(), "2");
    long.execute("COMMIT").await.unwrap();

    assert!(pgbouncer::pause(&door, Duration::from_secs(5)).await.unwrap());
    assert!(!pgbouncer::pause(&door, Duration::from_secs(5)).await.unwrap(), "it is paused already");
    let console = Console::connect(&front.app()).await.unwrap();
    let app = console.databases().await.unwrap().into_iter().find(|one| one.name == "app").unwrap();
    assert!(app.paused && app.database == "legacy", "{app:?}");
    assert!(console.clients().await.unwrap().iter().any(|one| one.database == "app" && one.user == "postgres"));
    assert!(pgbouncer::resume(&door, Duration::from_secs(5)).await.unwrap());
    assert!(!pgbouncer::resume(&door, Duration::from_secs(5)).await.unwrap());
    assert_eq!(other.value("SELECT 3").await.unwrap(), "3");
}

#[tokio::test]
async fn pooler_that_is_lost_while_paused_is_named_with_the_command_and_the_others_go_on() {
    let front = Front::new().await;
    let second = front.server.pooler(PoolMode::Transaction, &[]).await.unwrap();
    let mut lost = Door::through("second", &second.options());
    lost.database = "it's".to_owned();
    let doors = [front.door(), lost.clone()];
    // A database that one of them does not know: all are resumed.
    let error = pgbouncer::pause_all(&doors, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, PoolerError::NoDatabase { .. }), "{error}");
    let console = Console::connect(&front.app()).await.unwrap();
    assert!(console.databases().await.unwrap().iter().all(|one| !one.paused));

    pgbouncer::pause(&doors[0], Duration::from_secs(5)).await.unwrap();
    second.stop();
    let error = pgbouncer::resume_all(&doors, Duration::from_millis(500)).await.unwrap_err();
    let PoolerError::Stuck(stuck) = &error else { panic!("{error}") };
    assert_eq!(stuck.len(), 1);
    let port = lost.console.hosts[0].port;
    assert_eq!(
        stuck[0].command,
        format!("psql -h 127.0.0.1 -p {port} -U postgres -d pgbouncer -c 'RESUME \"it'\\''s\";'")
    );
    assert!(error.to_string().starts_with("CLIENTS STILL WAIT: pooler `second`"), "{error}");
    assert!(console.databases().await.unwrap().iter().all(|one| !one.paused), "the first was resumed");
}
