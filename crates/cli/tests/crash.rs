//! SIGKILL at every point between two writes of a run, forward and back, over steps of every effect class.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrunbook_postgres::Session;

use crate::place::{Place, Said, cluster};

const RUNBOOK: &str = "# Crash

## Transactional

```sql step
-- apply: make    target: main    undo: unmake
CREATE TABLE effects (what text);
INSERT INTO effects VALUES ('apply');
```

```sql undo
-- apply: unmake    target: main
DROP TABLE effects;
```

```toml step
migrate = \"chain\"
target = \"main\"
chain = \"db\"
undo = \"down\"
```

## Resolvable

```sql step
-- apply: index    target: main    undo: drop-index
CREATE INDEX CONCURRENTLY effects_what ON effects (what);
```

```sql undo
-- apply: drop-index    target: main
DROP INDEX CONCURRENTLY effects_what;
```

## Idempotent

```sql step
-- check: all-are-there    target: main
-- expect: 3 rows
SELECT what FROM effects;
```

## Opaque

```toml step
sh = \"mark\"
run = \"echo done >> marker\"
undo = \"auto\"
undo_run = \"echo undone >> marker\"
```
";

fn prepared(database: pgrunbook_postgres::ConnectOptions) -> Place {
    let place = Place::on(database);
    place.write("RUNBOOK.md", RUNBOOK);
    place.write("db/1_one.sql", "INSERT INTO effects VALUES ('one');\n");
    place.write("db/1_one.down.sql", "DELETE FROM effects WHERE what = 'one';\n");
    place.write(
        "db/2_two.sql",
        "INSERT INTO effects VALUES ('two');\nCREATE INDEX CONCURRENTLY two ON effects (what);\n",
    );
    place.write("db/2_two.down.sql", "DROP INDEX CONCURRENTLY two;\nDELETE FROM effects WHERE what = 'two';\n");
    place
}

/// What the world looks like: schema and rows, and the marks of the command.
fn state(place: &Place) -> String {
    let output = Command::new("pg_dump")
        .args(["--inserts", "--exclude-schema=pgrunbook"])
        .envs(place.database.libpq_env())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    let dump: Vec<&str> = dump.lines().filter(|line| !line.starts_with('\\')).collect();
    format!("{}\nmarks: {}", dump.join("\n"), place.read("marker").replace('\n', " "))
}

/// Resumes until nothing is left to do, answering truthfully where only a person can know.
fn to_the_end(place: &Place, forward: bool) -> Said {
    for _ in 0..6 {
        let said = place.call(&["resume"]);
        match said.code {
            Some(0) => return said,
            Some(4) => {
                // The command has left a mark, or it has not.
                let word = if forward { "done" } else { "undone" };
                let happened = place.read("marker").lines().any(|line| line == word);
                let decision = format!("mark={}", if happened { "done" } else { "again" });
                let said = place.call(&["resume", "--decide", &decision, "--reason", "looked at the marker"]);
                if said.code == Some(0) {
                    return said;
                }
            }
            _ => panic!("{}\n{}", said.out, said.err),
        }
    }
    panic!("it does not come to its end");
}

/// Where a run dies: at a point of the way there, or of the way back.
#[derive(Debug, Clone, Copy)]
enum Death {
    Forward(usize),
    Back(usize),
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forward(at) => write!(f, "there_{at}"),
            Self::Back(at) => write!(f, "back_{at}"),
        }
    }
}

/// Runs `one` for each, a few at a time.
pub fn each<T: Copy + Sync>(all: &[T], one: impl Fn(T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(one_of_them) = all.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
                    one(*one_of_them);
                }
            });
        }
    });
}

fn fresh() -> Place {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    prepared(runtime.block_on(async { cluster().await.fresh_database("crash").await.unwrap() }))
}

#[test]
fn run_that_is_killed_at_any_point_ends_as_if_undisturbed() {
    let undisturbed = fresh();
    let (said, points) = undisturbed.points(&["run", "RUNBOOK.md"]);
    said.done();
    let wanted = state(&undisturbed);
    assert!(wanted.contains("marks: done "), "{wanted}");
    assert!(points > 30, "{points} points: the runbook has shrunk");
    each(&(1..=points).collect::<Vec<_>>(), |at| {
        let place = fresh();
        let died = place.call_and_die(&["run", "RUNBOOK.md"], at);
        assert_eq!(died.code, None, "point {at} was not reached: {}\n{}", died.out, died.err);
        if place.call(&["status"]).out.is_empty() {
            // It died before anything was recorded: nothing was touched either.
            assert!(!state(&place).contains("effects"), "point {at}");
            place.call(&["run", "RUNBOOK.md"]).done();
        } else if !place.call(&["status"]).out.contains("  completed  ") {
            to_the_end(&place, true);
        }
        assert_eq!(state(&place), wanted, "killed at point {at}");
    });
}

#[test]
fn run_whose_journal_is_in_postgres_survives_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let elsewhere = runtime
        .block_on(pgrunbook_postgres::sandbox::Sandbox::start(pgrunbook_postgres::sandbox::SandboxOptions::default()))
        .unwrap();
    // A journal of its own for each run: the newest run is the one that is meant.
    let fresh = |number: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let journal = runtime.block_on(elsewhere.database(&format!("journal_{number}"))).unwrap();
        let mut place = fresh();
        place.env.push(("JOURNAL_URL".to_owned(), pgrunbook_postgres::sandbox::url(&journal)));
        place.write(
            "pgrunbook.toml",
            "[targets.main]\nurl = \"env:DATABASE_URL\"\n[journal]\nurl = \"env:JOURNAL_URL\"\n",
        );
        place
    };
    let undisturbed = fresh(0);
    undisturbed.points(&["run", "RUNBOOK.md"]).0.done();
    let wanted = state(&undisturbed);
    each(&undisturbed.deaths(), |at| {
        let place = fresh(at);
        let died = place.call_and_die(&["run", "RUNBOOK.md"], at);
        assert_eq!(died.code, None, "point {at} was not reached: {}\n{}", died.out, died.err);
        let status = place.call(&["status"]).done().out;
        if status.is_empty() {
            place.call(&["run", "RUNBOOK.md"]).done();
        } else if !status.contains("  completed  ") {
            to_the_end(&place, true);
        }
        assert_eq!(state(&place), wanted, "killed at point {at}");
    });
}

#[test]
fn rollback_that_is_killed_at_any_point_ends_as_if_undisturbed() {
    let undisturbed = fresh();
    undisturbed.call(&["run", "RUNBOOK.md"]).done();
    let (said, points) = undisturbed.points(&["rollback", "--path", "undo"]);
    said.done();
    let wanted = state(&undisturbed);
    assert!(wanted.contains("marks: done undone ") && !wanted.contains("CREATE TABLE"), "{wanted}");
    assert!(points > 25, "{points} points: the way back has shrunk");
    each(&undisturbed.deaths(), |at| {
        let place = fresh();
        place.call(&["run", "RUNBOOK.md"]).done();
        let died = place.call_and_die(&["rollback", "--path", "undo"], at);
        assert_eq!(died.code, None, "point {at} was not reached: {}\n{}", died.out, died.err);
        let status = place.call(&["status", &place.run_id()]).out;
        if status.contains("completed in environment") {
            // It died before it had turned back.
            place.call(&["rollback", "--path", "undo"]).done();
        } else if !status.contains("rolled back in environment") {
            if place.call(&["show"]).out.contains("Going back on") {
                to_the_end(&place, false);
            } else {
                place.call(&["rollback", "--path", "undo"]).done();
            }
        }
        assert_eq!(state(&place), wanted, "killed at point {at}");
    });
}

const BACKUP: &str = "# Back up

## Backup

```toml step
backup = \"before\"
target = \"main\"
```

## Change

```sql step
-- apply: change    target: main    undo: before
INSERT INTO kept VALUES (2);
```
";

#[test]
fn backup_and_restore_that_are_killed_at_any_point_end_as_if_undisturbed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A cluster of its own: databases are counted.
    let sandbox = runtime
        .block_on(pgrunbook_postgres::sandbox::Sandbox::start(pgrunbook_postgres::sandbox::SandboxOptions::default()))
        .unwrap();
    let value = |place: &Place, sql: &str| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(place.value(sql))
    };
    let fresh = |name: String| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = Place::on(runtime.block_on(sandbox.database(&name)).unwrap());
        place.write("RUNBOOK.md", BACKUP);
        runtime.block_on(place.execute("CREATE TABLE kept AS SELECT 1 AS n"));
        place
    };
    let check = |place: &Place, at: &str| {
        assert_eq!(value(place, "SELECT count(*) FROM kept"), "1", "killed at point {at}");
        let name = &place.database.database;
        let others = format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{name}\\_%'");
        assert_eq!(value(place, &others), "1", "killed at point {at}: one database is kept, and nothing is left over");
        let files = std::fs::read_dir(place.path(&format!(".pgrunbook/runs/{}", place.run_id()))).unwrap().flatten();
        let names: Vec<_> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        assert!(names.len() == 1 && names[0].ends_with(".dump"), "killed at point {at}: {names:?}");
    };
    let undisturbed = fresh("whole".to_owned());
    undisturbed.points(&["run", "RUNBOOK.md"]).0.done();
    let mut deaths: Vec<Death> = undisturbed.deaths().into_iter().map(Death::Forward).collect();
    std::fs::remove_file(undisturbed.path("trace")).unwrap();
    undisturbed.points(&["rollback", "--path", "undo"]).0.done();
    deaths.extend(undisturbed.deaths().into_iter().map(Death::Back));
    check(&undisturbed, "none");
    each(&deaths, |death| {
        let place = fresh(format!("killed_{death}x"));
        if let Death::Forward(at) = death {
            let died = place.call_and_die(&["run", "RUNBOOK.md"], at);
            assert_eq!(died.code, None, "point {death} was not reached");
            let status = place.call(&["status"]).out;
            if status.is_empty() {
                place.call(&["run", "RUNBOOK.md"]).done();
            } else if !status.contains("  completed  ") {
                to_the_end(&place, true);
            }
            place.call(&["rollback", "--path", "undo"]).done();
        } else if let Death::Back(at) = death {
            place.call(&["run", "RUNBOOK.md"]).done();
            let died = place.call_and_die(&["rollback", "--path", "undo"], at);
            assert_eq!(died.code, None, "point {death} was not reached");
            let status = place.call(&["status"]).out;
            if !status.contains("  rolled back  ") {
                if place.call(&["show"]).out.contains("Going back on") {
                    to_the_end(&place, false);
                } else {
                    place.call(&["rollback", "--path", "undo"]).done();
                }
            }
        }
        check(&place, &death.to_string());
    });
}

const TOPOLOGY: &str = "# Roles

## Apply

```toml step
topology = \"roles\"
target = \"main\"
undo = \"auto\"
```
";

/// Roles are the whole cluster's: their names hold the database's, and what is compared does not.
#[test]
fn topology_that_is_killed_at_any_point_ends_as_if_undisturbed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fresh = || {
        let place = Place::on(runtime().block_on(async { cluster().await.fresh_database("roles").await.unwrap() }));
        let name = &place.database.database;
        place.write("RUNBOOK.md", TOPOLOGY);
        place.write(
            "topology.toml",
            &format!(
                "[database]\nowner = \"{name}_owner\"\n[schemas]\na = {{}}\nb = {{}}\n[roles.{name}_app]\n\
                 kind = \"runtime\"\naccess = {{ a = \"all\" }}\nsearch_path = [\"a\"]\n"
            ),
        );
        let stale = "CREATE SCHEMA b; CREATE TABLE b.kept (); GRANT USAGE ON SCHEMA b TO PUBLIC;
                     GRANT SELECT ON b.kept TO PUBLIC";
        runtime().block_on(place.execute(stale));
        place
    };
    let state = |place: &Place| {
        let name = &place.database.database;
        let asked = format!(
            "SELECT json_build_array(
                (SELECT json_agg(json_build_array(rolname, rolcanlogin, rolconfig) ORDER BY rolname) FROM pg_roles
                 WHERE starts_with(rolname, '{name}')),
                (SELECT json_agg(json_build_array(nspname, nspowner::regrole, nspacl::text) ORDER BY nspname)
                 FROM pg_namespace WHERE nspname IN ('a', 'b')),
                (SELECT json_agg(json_build_array(relowner::regrole, relacl::text)) FROM pg_class
                 WHERE oid = 'b.kept'::regclass),
                (SELECT json_agg(json_build_array(defaclrole::regrole, defaclobjtype, defaclacl::text)
                    ORDER BY defaclobjtype, defaclacl::text) FROM pg_default_acl))"
        );
        runtime().block_on(place.value(&asked)).replace(name.as_str(), "NAME")
    };
    let (before, after, back_again) = killed_everywhere(&fresh, &state);
    assert!(after.contains("NAME_app") && !before.contains("NAME_app"), "{after}");
    assert!(!back_again.contains("NAME_app") && back_again.contains("=U/postgres"), "{back_again}");
}

/// Runs and rolls back once for each point, killed there; every end must be as if undisturbed. The states before, after the
/// run, and after the rollback.
fn killed_everywhere(
    fresh: &(impl Fn() -> Place + Sync),
    state: &(impl Fn(&Place) -> String + Sync),
) -> (String, String, String) {
    let undisturbed = fresh();
    let before = state(&undisturbed);
    undisturbed.points(&["run", "RUNBOOK.md"]).0.done();
    let mut deaths: Vec<Death> = undisturbed.deaths().into_iter().map(Death::Forward).collect();
    let after = state(&undisturbed);
    std::fs::remove_file(undisturbed.path("trace")).unwrap();
    undisturbed.points(&["rollback", "--path", "undo"]).0.done();
    deaths.extend(undisturbed.deaths().into_iter().map(Death::Back));
    let back_again = state(&undisturbed);
    each(&deaths, |death| {
        let place = fresh();
        if let Death::Forward(at) = death {
            assert_eq!(place.call_and_die(&["run", "RUNBOOK.md"], at).code, None, "point {death} was not reached");
            let status = place.call(&["status"]).out;
            if status.is_empty() {
                place.call(&["run", "RUNBOOK.md"]).done();
            } else if !status.contains("  completed  ") {
                to_the_end(&place, true);
            }
            assert_eq!(state(&place), after, "killed at point {death}");
            place.call(&["rollback", "--path", "undo"]).done();
        } else if let Death::Back(at) = death {
            place.call(&["run", "RUNBOOK.md"]).done();
            let died = place.call_and_die(&["rollback", "--path", "undo"], at);
            assert_eq!(died.code, None, "point {death} was not reached");
            if !place.call(&["status"]).out.contains("  rolled back  ") {
                if place.call(&["show"]).out.contains("Going back on") {
                    to_the_end(&place, false);
                } else {
                    place.call(&["rollback", "--path", "undo"]).done();
                }
            }
        }
        assert_eq!(state(&place), back_again, "killed at point {death}");
    });
    (before, after, back_again)
}

const RAMP: &str = "# A ramp

## Flags

```toml step
flag = \"posting-off\"
name = \"posting\"
enabled = false
target = \"main\"
table = \"settings\"
undo = \"auto\"
```

```toml step
ramp = \"ingest\"
target = \"main\"
stages = [10, 100]
hold = \"20ms\"
interval = \"10ms\"
deadline = \"60s\"
undo = \"auto\"

[metric.errors]
sql = \"SELECT 0 AS value\"
max = 0
```

```toml step
observe = \"steady\"
target = \"main\"
interval = \"10ms\"
count = 2
deadline = \"60s\"

[metric.errors]
sql = \"SELECT 0 AS value\"
max = 0
```
";

/// In the middle of a hold too: between the note of a stage and the flag, between two samples.
#[test]
fn ramp_that_is_killed_at_any_point_ends_as_if_undisturbed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fresh = || {
        let place = Place::on(runtime().block_on(async { cluster().await.fresh_database("ramp").await.unwrap() }));
        place.write("RUNBOOK.md", RAMP);
        let settings = "CREATE TABLE settings (config_key text, config_value jsonb);
                        INSERT INTO settings VALUES ('feature_flags', '{\"posting\": true, \"other\": 1}')";
        runtime().block_on(place.execute(settings));
        place
    };
    let state = |place: &Place| {
        runtime().block_on(async {
            let session = Session::connect(&place.database, "test").await.unwrap();
            let value = async |sql: &str| session.value(sql).await.unwrap();
            let flags = match value("SELECT to_regclass('pgrunbook.flag') IS NOT NULL").await.as_str() {
                "t" => {
                    let all =
                        "SELECT string_agg(name || ' ' || percentage || ' ' || enabled, ', ') FROM pgrunbook.flag";
                    value(all).await
                }
                _ => String::new(),
            };
            format!("{} {flags}", value("SELECT config_value FROM settings").await)
        })
    };
    let (before, after, back_again) = killed_everywhere(&fresh, &state);
    assert_eq!(before, "{\"other\": 1, \"posting\": true} ");
    assert_eq!(after, "{\"other\": 1, \"posting\": false} ingest 100.000 true");
    assert_eq!(back_again, before);
}

const SOURCE: &str = "# A source

## Bootstrap

```toml step
source = \"bootstrap\"
source_id = \"Profile-7\"
target = \"main\"
undo = \"auto\"
```
";

#[test]
fn bootstrap_that_is_killed_at_any_point_ends_as_if_undisturbed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fresh = || {
        let place = Place::on(runtime().block_on(async { cluster().await.fresh_database("source").await.unwrap() }));
        let name = &place.database.database;
        place.write("RUNBOOK.md", SOURCE);
        place.write(
            "topology.toml",
            &format!(
                "[database]\nowner = \"{name}_owner\"\n[schemas]\nshared = {{}}\n[roles.{name}_app]\nkind = \"runtime\"\n\
                 [sources]\nregistry = \"shared.sources\"\nroles = [\"{name}_app\"]\nchain = [\"db/source\"]\n"
            ),
        );
        place.write("db/source/1_items.sql", "CREATE TABLE items (id int);\n");
        place.write("db/source/2_kinds.sql", "CREATE TABLE kinds (name text);\nINSERT INTO kinds VALUES ('note');\n");
        place.call(&["provision"]).done();
        place
    };
    let parts = async |place: &Place| {
        let session = Session::connect(&place.database, "test").await.unwrap();
        let value = async |sql: &str| session.value(sql).await.unwrap();
        let optional = async |table: &str, sql: &str| match value(&format!("SELECT to_regclass('{table}') IS NULL"))
            .await
            .as_str()
        {
            "t" => format!("no {table}"),
            _ => value(sql).await,
        };
        [
            value(
                "SELECT json_agg(json_build_array(nspname, nspowner::regrole, nspacl::text) ORDER BY nspname)
                 FROM pg_namespace WHERE nspname IN ('shared', 'src_profile_7')",
            )
            .await,
            value(
                "SELECT json_agg(json_build_array(oid::regclass, relowner::regrole, relacl::text) ORDER BY relname)
                 FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('shared', 'src_profile_7')",
            )
            .await,
            value("SELECT json_agg(defaclacl::text ORDER BY defaclobjtype, defaclacl::text) FROM pg_default_acl").await,
            optional("shared.sources", "SELECT json_agg(json_build_array(source_id, schema_name)) FROM shared.sources")
                .await,
            optional("src_profile_7.kinds", "SELECT json_agg(name) FROM src_profile_7.kinds").await,
            optional(
                "pgrunbook.migration",
                "SELECT json_agg(json_build_array(chain, version, state) ORDER BY version) FROM pgrunbook.migration",
            )
            .await,
        ]
    };
    let state = |place: &Place| {
        let parts = runtime().block_on(parts(place));
        parts.join("\n").replace(place.database.database.as_str(), "NAME")
    };
    let (_, after, back_again) = killed_everywhere(&fresh, &state);
    assert!(after.contains("[\"Profile-7\", \"src_profile_7\"]") && after.contains("[\"note\"]"), "{after}");
    assert!(!back_again.contains("src_profile_7\"") && back_again.contains("no shared.sources"), "{back_again}");
}

const FENCED: &str = "# Stop and lead

## Stop

```toml step
fence = \"stop\"
target = \"main\"
message = \"moved: {table}\"
budget = \"60s\"
undo = \"auto\"
```

## Lead

```toml step
switch = \"app\"
file = \"app.toml\"
set = { \"database.name\" = \"new\" }
undo = \"auto\"
```

```toml step
switch = \"register\"
target = \"main\"
registry = \"shared.tenants\"
key = { tenant = \"health\" }
set = { state = \"live\" }
undo = \"auto\"
```
";

#[test]
fn fence_and_switch_that_are_killed_at_any_point_end_as_if_undisturbed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fresh = || {
        let place = Place::on(runtime().block_on(async { cluster().await.fresh_database("fenced").await.unwrap() }));
        place.write("RUNBOOK.md", FENCED);
        place.write("app.toml", "[database]\nname = \"old\" # where it is\n");
        let tables = "CREATE TABLE notes (id int); CREATE SCHEMA shared;
                      CREATE TABLE shared.tenants (tenant text PRIMARY KEY, state text);
                      INSERT INTO shared.tenants VALUES ('health', 'old')";
        runtime().block_on(place.execute(tables));
        place
    };
    let state = |place: &Place| {
        let fenced =
            "SELECT string_agg(tgrelid::regclass || ' ' || tgenabled::text, ', ' ORDER BY tgrelid::regclass::text)
                      FROM pg_trigger WHERE starts_with(tgname, 'pgrunbook_fence')";
        runtime().block_on(async {
            let session = Session::connect(&place.database, "test").await.unwrap();
            let (fenced, row) = (
                session.value(fenced).await.unwrap(),
                session.value("SELECT state FROM shared.tenants").await.unwrap(),
            );
            let writes = match session.execute("INSERT INTO notes VALUES (1)").await {
                Ok(()) => "taken".to_owned(),
                Err(error) => error.sqlstate().unwrap_or_default().to_owned(),
            };
            format!("{} {row}; writes: {writes}; triggers: {fenced}", place.read("app.toml").trim())
        })
    };
    let (before, after, back_again) = killed_everywhere(&fresh, &state);
    assert!(before.contains("\"old\"") && before.ends_with("old; writes: taken; triggers: "), "{before}");
    assert!(after.contains("\"new\" # where it is live; writes: 25006; triggers: notes O"), "{after}");
    assert_eq!(back_again, before);
}
