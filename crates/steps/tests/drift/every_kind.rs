//! One change of every kind that a migration may make, found, and mended by the SQL that is offered.
//!
//! Reading a database takes longest, so that cases which name no object in common are tried together: what must be found is found for each
//! by its name, and nothing may be left of any.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pgrunbook_postgres::sandbox::Sandbox;
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::drift::{self, Drift, Ignore, State, between};

use super::{BASE, cluster, session};

/// What is created, altered and dropped; what has a form of `ALTER` of its own: renaming, moving, giving away, extensions; and what else
/// PostgreSQL's own synopses name.
pub const CHANGES: [&str; 3] = [include_str!("changes.sql"), include_str!("forms.sql"), include_str!("synopses.sql")];

/// A change: what must be found, and its statements.
struct Case {
    found: Vec<&'static str>,
    sql: String,
}

/// Lines that begin with `-- ` name what must be found; the lines behind them make it so.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in CHANGES.iter().flat_map(|text| text.lines()) {
        let Some(name) = line.strip_prefix("-- ") else {
            let case = cases.last_mut().expect("what makes a change stands behind its name");
            case.sql.push_str(line);
            case.sql.push('\n');
            continue;
        };
        match cases.last_mut() {
            Some(case) if case.sql.is_empty() => case.found.push(name),
            _ => cases.push(Case { found: vec![name], sql: String::new() }),
        }
    }
    cases
}

impl Case {
    /// Not every change can be made in both directions: an extension goes up only (`<`), and nobody asks for an invalid index (`>`).
    fn ways(&self) -> &'static [Way] {
        match self.found[0].split_once(' ') {
            Some(("<", _)) => &[Way::Forth],
            Some((">", _)) => &[Way::Back],
            _ => &[Way::Forth, Way::Back],
        }
    }

    /// The words of its text that stand in the base too, or that another case could make: objects, mostly.
    fn words(&self, known: &BTreeSet<&str>) -> BTreeSet<String> {
        let text = format!("{} {}", self.found.join(" "), self.sql);
        let named = words(&text).filter(|word| known.contains(word)).map(str::to_owned);
        let made = text.split(['\n', ' ', ',', ';', '(', ')']).filter_map(|word| {
            let (schema, rest) = word.split_once('.')?;
            ["app", "spare"].contains(&schema).then(|| rest.split('.').next().unwrap_or(rest).to_owned())
        });
        let own: BTreeSet<String> = named.chain(made).collect();
        let under = STANDS.iter().filter(|(on, _)| own.contains(*on)).flat_map(|(_, under)| under.iter());
        let under: Vec<String> = under.map(|word| (*word).to_owned()).collect();
        own.into_iter().chain(under).collect()
    }

    /// What it takes along is not named, or it goes one way.
    fn is_alone(&self) -> bool {
        let takes = ["ALTER SCHEMA ", "DROP SCHEMA ", " CASCADE;", " CASCADE\n", "ALL IN ", "OWNED BY drift"];
        self.ways().len() == 1 || takes.iter().any(|words| self.sql.contains(words))
    }
}

/// What stands on an object and goes with it, where a case need not name it.
const STANDS: &[(&str, &[&str])] = &[("hollow", &["afar", "remote"]), ("afar", &["remote"])];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| word.len() > 1)
}

/// The names of the base's objects: what stands behind a schema or behind what makes or names an object without one.
fn known() -> BTreeSet<&'static str> {
    let before = ["EXTENSION", "LANGUAGE", "METHOD", "WRAPPER", "SERVER", "PUBLICATION", "SUBSCRIPTION", "TRIGGER"];
    let mut known = BTreeSet::new();
    for text in CHANGES.iter().chain([&BASE]) {
        let mut last = "";
        for word in words(text) {
            if before.contains(&last) && word.chars().all(|c| c.is_lowercase() || c.is_numeric() || c == '_') {
                known.insert(word);
            }
            last = word;
        }
    }
    known
}

/// Cases that have no word in common, together; those that go one way are alone.
fn batches(cases: Vec<Case>) -> Vec<Vec<Case>> {
    let known = known();
    let mut batches: Vec<(BTreeSet<String>, Vec<Case>)> = Vec::new();
    for case in cases {
        let alone = case.is_alone();
        let words = case.words(&known);
        let room = batches.iter().position(|(taken, others)| {
            !alone && !others[0].is_alone() && others.len() < MOST && taken.is_disjoint(&words)
        });
        match room {
            Some(at) => {
                batches[at].0.extend(words);
                batches[at].1.push(case);
            }
            None => batches.push((words, vec![case])),
        }
    }
    batches.into_iter().map(|(_, cases)| cases).collect()
}

/// With more, what is offered for one would hardly be read in a failure.
const MOST: usize = 8;

/// One more database like the base.
async fn copy(sandbox: &Sandbox, base: &ConnectOptions, name: &str) -> ConnectOptions {
    let admin = Session::connect(&sandbox.options(), "test").await.unwrap();
    gone(sandbox, name).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    // Sessions that were closed may still be on their way out.
    while let Err(error) =
        admin.execute(&format!("CREATE DATABASE {name} TEMPLATE {} STRATEGY FILE_COPY", base.database)).await
    {
        assert!(error.sqlstate() == Some("55006") && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = sandbox.options().with_database(name);
    // A copy of a database has no subscriptions.
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute(SUBSCRIPTION).await.unwrap();
    options
}

/// Drops a database, and the subscriptions that would keep it.
async fn gone(sandbox: &Sandbox, name: &str) {
    if let Ok(session) = Session::connect(&sandbox.options().with_database(name), "test").await {
        for subscription in ["from_afar", "second", "renamed"] {
            let sql = format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)");
            if session.execute(&sql).await.is_ok() {
                session.execute(&format!("DROP SUBSCRIPTION {subscription}")).await.unwrap();
            }
        }
    }
    let admin = session(&sandbox.options()).await;
    admin.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
}

const SUBSCRIPTION: &str = "CREATE SUBSCRIPTION from_afar CONNECTION 'host=nowhere' PUBLICATION theirs WITH (connect = false, slot_name = NONE)";

/// A database, a session in it, and what it has: read again only when it was changed.
struct Side {
    session: Session,
    state: State,
}

impl Side {
    async fn of(options: &ConnectOptions) -> Self {
        let session = session(options).await;
        // For a case that connects from within.
        let password = options.password.clone().unwrap_or_default();
        session.execute(&format!("SET drift.password = '{password}'")).await.unwrap();
        let state = drift::state(&session).await.unwrap();
        Self { session, state }
    }

    async fn read(&mut self) -> Result<(), String> {
        self.state = drift::state(&self.session).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Applies what is offered, what loses data included.
    async fn mend(&self, found: &Drift) -> Result<(), String> {
        let execute = async |sql: &str| self.session.execute(sql).await.map_err(|error| error.to_string());
        for one in &found.mend.before {
            execute(&one.sql).await?;
        }
        let script = found.mend.script(true);
        let rest = script.split_once("BEGIN;\n").map_or("", |(_, rest)| rest);
        execute(&format!("BEGIN;\n{rest}")).await.map_err(|error| format!("{error} of\n{script}"))
    }
}

/// What all changes begin with, and two copies of it.
struct Three {
    base: State,
    changed: Side,
    other: Side,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The other is made what the changed one is.
    Forth,
    /// The changed one is made what it was.
    Back,
    /// And so is the other.
    OtherBack,
}

impl Three {
    /// What differs on a way, of what is made alike.
    fn drift(&self, way: Way) -> Drift {
        let (live, shadow) = match way {
            Way::Forth => (&self.other.state, &self.changed.state),
            Way::Back => (&self.changed.state, &self.base),
            Way::OtherBack => (&self.other.state, &self.base),
        };
        between(live, shadow, &Ignore::standard()).unwrap()
    }

    /// Mends one side, and reads that nothing is left. What was offered.
    async fn mended(&mut self, way: Way, cases: &[Case]) -> Result<Drift, String> {
        let found = self.drift(way);
        let told: Vec<String> = found.differences.iter().map(|one| format!("{} {}", one.kind, one.identity)).collect();
        for what in cases.iter().flat_map(|case| &case.found).map(|what| what.trim_start_matches(['<', '>', ' '])) {
            if !told.iter().any(|one| one == what) {
                return Err(format!("`{what}` is not found, but {told:#?}"));
            }
        }
        let live = if way == Way::Back { &mut self.changed } else { &mut self.other };
        live.mend(&found).await?;
        live.read().await?;
        let left = self.drift(way).differences;
        if left.is_empty() {
            return Ok(found);
        }
        Err(format!("left: {left:#?} after\n{}", found.mend.script(true)))
    }

    /// Changes in one direction, then in the other, then back to where both were.
    async fn tried(&mut self, cases: &[Case]) -> Result<(), String> {
        for case in cases {
            let changed = self.changed.session.execute(&case.sql).await;
            changed.map_err(|error| format!("the change itself, {}: {error}", case.found[0]))?;
        }
        self.changed.read().await?;
        let ways = cases[0].ways();
        for way in ways {
            self.mended(*way, cases).await?;
        }
        if ways.len() > 1 {
            self.mended(Way::OtherBack, cases).await?;
        }
        Ok(())
    }
}

/// Tests that share the changes between them, so that two cores have something to do.
const SHARES: usize = 4;

async fn share(number: usize) {
    let sandbox = cluster().await;
    let base = sandbox.fresh_database("drift").await.unwrap();
    session(&base).await.execute(BASE).await.unwrap();
    let state = Side::of(&base).await.state;
    let names = ["a", "b"].map(|end| format!("{}_{end}", base.database));
    let fresh = async |base_state: State| Three {
        base: base_state,
        changed: Side::of(&copy(&sandbox, &base, &names[0]).await).await,
        other: Side::of(&copy(&sandbox, &base, &names[1]).await).await,
    };
    let mut three = fresh(state).await;
    let mut failed = Vec::new();
    let batches: Vec<Vec<Case>> = batches(cases()).into_iter().skip(number).step_by(SHARES).collect();
    for batch in &batches {
        let name = |cases: &[Case]| cases.iter().map(|case| case.found.join(", ")).collect::<Vec<_>>().join(" + ");
        let tried = three.tried(batch).await;
        if tried.is_err() || batch[0].ways().len() == 1 {
            three = fresh(three.base).await;
        }
        let Err(why) = tried else { continue };
        let before = failed.len();
        // Whose fault it is.
        for case in batch.iter().filter(|_| batch.len() > 1) {
            if let Err(why) = three.tried(std::slice::from_ref(case)).await {
                failed.push(format!("== {}\n{why}", case.found.join(", ")));
                three = fresh(three.base).await;
            }
        }
        if failed.len() == before {
            failed.push(format!("== {}\n{why}", name(batch)));
        }
    }
    drop(three);
    for name in names.iter().chain([&base.database]) {
        gone(&sandbox, name).await;
    }
    assert!(batches.len() > 10);
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn of_change_is_found_and_mended_1() {
    share(0).await;
}

#[tokio::test]
async fn of_change_is_found_and_mended_2() {
    share(1).await;
}

#[tokio::test]
async fn of_change_is_found_and_mended_3() {
    share(2).await;
}

#[tokio::test]
async fn of_change_is_found_and_mended_4() {
    share(3).await;
}
