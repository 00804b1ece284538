//! Several tenants, each from a database of its own: all behind one cutover, or each behind one of its own.

use std::time::{Duration, Instant};

use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::sandbox::url;
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::transfer::{keep_following, status, table};

use crate::bench::{Bench, failure};
use crate::transfer::{LEGACY, logical};

const TENANTS: [&str; 3] = ["health", "shop", "post"];

const HEAD: &str = "```toml runbook\ntargets = [\"main\", \"old_health\", \"old_shop\", \"old_post\"]\n\
    vars.tenants = [\"health\", \"shop\", \"post\"]\n```\n\n";

const LOAD: &str = "## Load\n\n```toml step\ntransfer = \"load\"\nfrom = \"old_${tenant}\"\ntarget = \"main\"\nschema = \"${tenant}\"\n\
    for_each = { tenant = \"${tenants}\" }\nundo = \"auto\"\n```\n\n";

fn cutover(to: &str) -> String {
    format!(
        "## Cut over\n\n```toml step\ncutover = \"all\"\ntarget = \"main\"\nschemas = [\"health\", \"shop\", \"post\"]\nto = \"{to}\"\n\
         budget = \"20s\"\nundo = \"auto\"\n```\n\n"
    )
}

/// A cutover for each tenant, in their order. After one try to lock there is no room in the budget for another.
const EACH: &str = "## Cut over\n\n```toml step\ncutover = \"each\"\ntarget = \"main\"\nschemas = [\"${tenant}\"]\n\
    for_each = { tenant = \"${tenants}\" }\nbudget = \"20s\"\nlock_timeout = \"7s\"\nundo = \"auto\"\n```\n\n";

/// Writers wait for this, and no slot does: it has no transaction id, and keeps nobody from reading.
const HELD: &str = "BEGIN; LOCK TABLE note IN SHARE MODE";

struct Tenants {
    bench: Bench,
    legacy: Vec<ConnectOptions>,
}

impl Tenants {
    async fn new() -> Self {
        let cluster = logical().await;
        let mut bench = Bench::on(cluster.fresh_database("many").await.unwrap());
        let (mut legacy, mut targets) = (Vec::new(), String::new());
        for tenant in TENANTS {
            let database = cluster.fresh_database("tenant").await.unwrap();
            targets += &format!("[targets.old_{tenant}]\nurl = \"{}\"\n", url(&database));
            Session::connect(&database, "test").await.unwrap().execute(LEGACY).await.unwrap();
            legacy.push(database);
        }
        bench.config(&targets);
        Self { bench, legacy }
    }

    async fn old(&self, tenant: usize) -> Session {
        Session::connect(&self.legacy[tenant], "test").await.unwrap()
    }

    /// One write on the old side of a tenant, and one on its new side: the SQLSTATE of a refusal.
    async fn takes(&self, tenant: usize) -> [Option<String>; 2] {
        let write = |schema: &str| format!("INSERT INTO {schema}.visit (what) VALUES ('of {}')", TENANTS[tenant]);
        let state = |done: Result<_, pgrunbook_postgres::PgError>| {
            done.err().map(|error| error.sqlstate().unwrap_or_default().to_owned())
        };
        let old = self.old(tenant).await.execute(&write("public")).await;
        let new = self.bench.session().await.execute(&write(TENANTS[tenant])).await;
        [state(old), state(new)]
    }

    /// Which side takes the writes of all.
    async fn all_take(&self, target: bool) {
        let fenced = Some("25006".to_owned());
        for (tenant, name) in TENANTS.iter().enumerate() {
            let wanted = if target { [fenced.clone(), None] } else { [None, fenced.clone()] };
            assert_eq!(self.takes(tenant).await, wanted, "{name}");
        }
    }

    async fn count(&self, tenant: usize) -> [String; 2] {
        let count = |schema: &str| format!("SELECT count(*) || ':' || sum(id) FROM {schema}.visit");
        [self.old(tenant).await.value(&count("public")).await.unwrap(), self.bench.value(&count(TENANTS[tenant])).await]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_cross_at_one_moment_and_go_back_together() {
    let this = Tenants::new().await;
    let (run, end) = this.bench.run(&format!("# Move\n\n{HEAD}{LOAD}{}", cutover("target"))).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.all_take(true).await;
    let facts = this.bench.evidence(&run, "all").await.facts;
    for tenant in TENANTS {
        assert_eq!(facts[tenant]["parity"]["differences"], 0, "{tenant}: {facts:?}");
        let proof = &facts[tenant]["no_writer_left"];
        assert_eq!((&proof["holds"], &proof["holes"]), (&true.into(), &serde_json::json!([])), "{tenant}: {facts:?}");
    }
    let workplace = this.bench.workplace().await;
    let all = status(&workplace, "main", None).await.unwrap();
    let told: Vec<String> = all.iter().map(|one| format!("{}: {}", one.schema, one.rollback.line())).collect();
    assert_eq!(told, ["health", "post", "shop"].map(|tenant| format!("{tenant}: rollback is lossless: yes")));
    let shown = table(&all);
    assert!(TENANTS.iter().all(|tenant| shown.contains(tenant)), "{shown}");

    let (_, end) = this.bench.run(&format!("# Back\n\n{HEAD}{}", cutover("source"))).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    for (tenant, name) in TENANTS.iter().enumerate() {
        let [old, new] = this.count(tenant).await;
        assert_eq!((old.split(':').next(), &old), (Some("501"), &new), "{name}");
    }
    this.all_take(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_ready_keeps_all_where_they_are() {
    let this = Tenants::new().await;
    let (_, end) = this.bench.run(&format!("# Move\n\n{HEAD}{LOAD}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    // Past the guard of one: its sides are not equal, and the others' are.
    let forged = "SET session_replication_role = replica; UPDATE shop.visit SET what = 'forged' WHERE id = 5";
    this.bench.execute(forged).await;
    let (run, end) = this.bench.run(&format!("# Go\n\n{HEAD}{}", cutover("target"))).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "parity", "{message}");
    assert!(message.contains("both sides of shop are not equal: visit"), "{message}");
    this.all_take(false).await;

    // Held up by a reader that has locked a table of one: all go on, and he is named.
    let mended = "SET session_replication_role = replica; UPDATE shop.visit SET what = 'visit 5' WHERE id = 5";
    this.bench.execute(mended).await;
    let reader = this.old(2).await;
    reader.execute(HELD).await.unwrap();
    let short = cutover("target").replace("\"20s\"", "\"20s\"\nlock_timeout = \"7s\"");
    let (_, end) = this.bench.run(&format!("# Go again\n\n{HEAD}{short}")).await;
    let (_, _, message) = failure(&end);
    assert!(message.contains(&format!("pid {} ", reader.backend_pid())), "{message}");
    reader.execute("ROLLBACK").await.unwrap();
    this.all_take(false).await;

    // The first run, once nothing is in the way.
    assert!(matches!(this.bench.resume(&run).await, RunEnd::Completed));
    this.all_take(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_behind_a_fence_of_its_own_crosses_or_stays_by_itself() {
    let this = Tenants::new().await;
    let (_, end) = this.bench.run(&format!("# Move\n\n{HEAD}{LOAD}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let writer = this.old(1).await;
    writer.execute(HELD).await.unwrap();
    let (run, end) = this.bench.run(&format!("# Go\n\n{HEAD}{EACH}")).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str()), ("each[shop]", "fence-timeout"), "{message}");
    let pid = format!("pid {} ", writer.backend_pid());
    assert!(message.contains(&pid) && message.contains("Writers go on where they were"), "{message}");
    writer.execute("ROLLBACK").await.unwrap();
    // The first is over, and what stopped the second did not touch it; nobody has begun with the third.
    let fenced = Some("25006".to_owned());
    assert_eq!(this.takes(0).await, [fenced.clone(), None]);
    for tenant in [1, 2] {
        assert_eq!(this.takes(tenant).await, [None, fenced.clone()], "{}", TENANTS[tenant]);
    }
    let phases = "SELECT string_agg(schema || ' ' || phase, ', ' ORDER BY schema) FROM pgrunbook.transfer";
    assert_eq!(this.bench.value(phases).await, "health switched, post following, shop following");

    assert!(matches!(this.bench.resume(&run).await, RunEnd::Completed));
    this.all_take(true).await;
    for (tenant, name) in TENANTS.iter().enumerate() {
        let facts = this.bench.evidence(&run, &format!("each[{name}]")).await.facts;
        assert_eq!(facts[*name]["no_writer_left"]["holds"], true, "{name}: {facts:?}");
        // What was written on either side while the run stood still, and once more just now.
        let [_, new] = this.count(tenant).await;
        assert_eq!(new.split(':').next(), Some("502"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_table_is_locked_keeps_no_other_from_catching_up() {
    let this = Tenants::new().await;
    let (_, end) = this.bench.run(&format!("# Move\n\n{HEAD}{LOAD}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE shop.visit IN SHARE MODE").await.unwrap();
    for tenant in 0..TENANTS.len() {
        this.old(tenant).await.execute("INSERT INTO visit (what) VALUES ('late')").await.unwrap();
    }
    let workplace = this.bench.workplace().await;
    for tenant in TENANTS {
        keep_following(&workplace, "main", tenant).await.unwrap();
    }
    let until = async |wanted: &str, sql: &str| {
        let begun = Instant::now();
        while this.bench.value(sql).await != wanted {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {sql}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let late = |tenant: &str| format!("SELECT count(*) FROM {tenant}.visit WHERE what = 'late'");
    until("1", &late("health")).await;
    until("1", &late("post")).await;
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'shop.visit'::regclass";
    until("t", waits).await;
    assert_eq!(this.bench.value(&late("shop")).await, "0");
    // They go on, and not only with what was on its way.
    for tenant in [0, 2] {
        this.old(tenant).await.execute("INSERT INTO visit (what) VALUES ('late')").await.unwrap();
        until("2", &late(TENANTS[tenant])).await;
    }
    assert_eq!(this.bench.value(waits).await, "t", "the third still stands");
    holder.execute("ROLLBACK").await.unwrap();
    until("1", &late("shop")).await;
}

/// Keeps fences of these tables from being lifted, as the trigger that raises, by the text of the statement.
fn shut(tables: &str) -> String {
    format!(
        "CREATE SCHEMA apart; CREATE FUNCTION apart.not_now() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_query() ~ '({tables}) DISABLE TRIGGER' THEN RAISE EXCEPTION 'not now'; END IF;
         END $$;
         CREATE EVENT TRIGGER not_now ON ddl_command_start EXECUTE FUNCTION apart.not_now()"
    )
}

const OPENED: &str = "DROP EVENT TRIGGER not_now; DROP SCHEMA apart CASCADE";

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_opened_goes_on_where_it_was_and_the_others_have_crossed() {
    let this = Tenants::new().await;
    let (_, end) = this.bench.run(&format!("# Move\n\n{HEAD}{LOAD}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.bench.execute(&shut("shop.note")).await;
    let (run, end) = this.bench.run(&format!("# Go\n\n{HEAD}{}", cutover("target"))).await;
    let (step, _, message) = failure(&end);
    assert_eq!(step, "all");
    assert!(message.contains("schema shop: ") && message.contains("not now"), "{message}");
    assert!(message.contains("The target takes the writes of health, post."), "{message}");
    assert!(message.contains("Writers of shop go on where they were; nothing was lost."), "{message}");
    let fenced = Some("25006".to_owned());
    for tenant in [0, 2] {
        assert_eq!(this.takes(tenant).await, [fenced.clone(), None], "{}", TENANTS[tenant]);
    }
    assert_eq!(this.takes(1).await, [None, fenced.clone()]);
    let phases = "SELECT string_agg(schema || ' ' || phase, ', ' ORDER BY schema) FROM pgrunbook.transfer";
    assert_eq!(this.bench.value(phases).await, "health switched, post switched, shop following");

    this.bench.execute(OPENED).await;
    assert!(matches!(this.bench.resume(&run).await, RunEnd::Completed));
    this.all_take(true).await;
    // What each took meanwhile, wherever that was, and once more just now.
    for (tenant, name) in TENANTS.iter().enumerate() {
        assert_eq!(this.count(tenant).await[1].split(':').next(), Some("502"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_neither_be_opened_nor_undone_says_how_a_person_lets_writers_go_on() {
    let this = Tenants::new().await;
    let (_, end) = this.bench.run(&format!("# Move\n\n{HEAD}{LOAD}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.bench.execute(&shut("(health|shop|post).note")).await;
    this.old(1).await.execute(&shut("public.note")).await.unwrap();
    let (run, end) = this.bench.run(&format!("# Go\n\n{HEAD}{}", cutover("target"))).await;
    let (_, _, message) = failure(&end);
    assert!(message.contains("And schema shop is still fenced: ") && !message.contains("post is still"), "{message}");
    let RunEnd::Failed { help: Some(help), .. } = &end else { panic!("{end:?}") };
    assert!(help.contains("`pgrunbook fence status --target old_shop`"), "{help}");
    assert!(help.contains("`pgrunbook fence drop ID --target old_shop --yes`"), "{help}");
    let fenced = Some("25006".to_owned());
    assert_eq!(this.takes(0).await, [None, fenced.clone()]);
    assert_eq!(this.takes(1).await, [fenced.clone(), fenced]);

    this.bench.execute(OPENED).await;
    this.old(1).await.execute(OPENED).await.unwrap();
    assert!(matches!(this.bench.resume(&run).await, RunEnd::Completed));
    this.all_take(true).await;
}
