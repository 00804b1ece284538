//! `parity` as a step of a run: a gate that lets pass what is the same, and says of what is not as much as it may.

use pgrunbook_engine::RunEnd;
use serde_json::{Value, json};

use crate::bench::{Bench, failure};

const SIDES: &str = "
    CREATE SCHEMA health;
    CREATE TABLE public.patient (id int PRIMARY KEY, name text, born date);
    INSERT INTO public.patient SELECT g, 'patient ' || g, date '1980-01-01' + g FROM pg_catalog.generate_series(1, 500) AS g;
    CREATE TABLE health.patient (LIKE public.patient INCLUDING ALL);
    INSERT INTO health.patient SELECT * FROM public.patient;";

const DIFFER: &str = "
    UPDATE health.patient SET name = 'somebody else' WHERE id = 7;
    DELETE FROM health.patient WHERE id = 8;
    INSERT INTO health.patient VALUES (901, 'too many', NULL);";

async fn bench() -> Bench {
    let bench = Bench::new().await;
    bench.execute(SIDES).await;
    bench
}

/// A gate, and behind it what must not happen before it passes.
fn gated(more: &str) -> String {
    format!(
        "# Gate\n\n## Go\n\n```toml step\nparity = \"same\"\ntarget = \"main\"\nfrom = \"main\"\nschema = \"health\"\n{more}\n```\n\n\
         ```sql step\n-- apply: behind    target: main\n-- undo: none: a test\nCREATE TABLE behind ();\n```\n"
    )
}

async fn is_behind(bench: &Bench) -> bool {
    bench.value("SELECT to_regclass('public.behind') IS NOT NULL").await == "t"
}

/// The differing rows in the evidence of the step.
async fn listed(bench: &Bench, run: &str) -> Vec<Value> {
    let evidence = bench.evidence(run, "same").await;
    evidence.facts["parity"]["tables"][0]["listed"].as_array().unwrap().clone()
}

#[tokio::test]
async fn equal_sides_pass_and_the_run_goes_on() {
    let bench = bench().await;
    let (run, end) = bench.run(&gated("")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let evidence = bench.evidence(&run, "same").await;
    assert!(evidence.summary.starts_with("1 tables with 500 rows are the same"), "{}", evidence.summary);
    assert_eq!(evidence.facts["parity"]["holds"], json!(true));
    assert!(is_behind(&bench).await);
}

#[tokio::test]
async fn differing_rows_stop_the_run_with_counts_and_no_personal_data() {
    let bench = bench().await;
    bench.execute(DIFFER).await;
    let (run, end) = bench.run(&gated("")).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str()), ("same", "parity"), "{message}");
    for words in ["in 3 rows", "1 rows missing in A, 1 missing in B, 1 differ", "Nothing was changed"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!is_behind(&bench).await, "nothing behind the gate was done");
    let rows = listed(&bench, &run).await;
    let mut whats: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    whats.sort_unstable();
    assert_eq!(whats, ["differs", "missing in A", "missing in B"]);
    assert!(rows.iter().all(|row| row["key"] == json!({})), "{rows:?}");
    let evidence = format!("{:?}", bench.evidence(&run, "same").await);
    assert!(!evidence.contains("somebody") && !evidence.contains("too many"), "{evidence}");

    // The same gate passes when the sides are the same.
    bench.execute("DELETE FROM health.patient; INSERT INTO health.patient SELECT * FROM public.patient").await;
    let end = bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert!(is_behind(&bench).await);
}

#[tokio::test]
async fn columns_that_are_named_may_stand_in_the_evidence_and_no_others() {
    let bench = bench().await;
    bench.execute("UPDATE health.patient SET name = 'somebody else', born = NULL WHERE id = 7").await;
    let (run, _) = bench.run(&gated("show_values = [\"id\", \"born\"]")).await;
    let rows = listed(&bench, &run).await;
    assert_eq!(rows[0]["key"], json!({ "id": "7" }));
    let born = json!({ "column": "born", "a": "1980-01-08", "b": null });
    let name = json!({ "column": "name", "a": "hidden", "b": "hidden" });
    assert_eq!(rows[0]["columns"], json!([born, name]));
}

#[tokio::test]
async fn step_that_repairs_writes_the_rows_that_differ_and_leaves_the_others() {
    let bench = bench().await;
    bench.execute(DIFFER).await;
    let untouched =
        "SELECT string_agg(id || ':' || xmin, ',' ORDER BY id) FROM health.patient WHERE id NOT IN (7, 8, 901)";
    let before = bench.value(untouched).await;
    let (run, end) = bench.run(&gated("repair = true")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let evidence = bench.evidence(&run, "same").await;
    assert_eq!(evidence.facts["repaired"], json!(["patient: insert 1, update 1, delete 1"]));
    assert_eq!(bench.value(untouched).await, before);
    let unlike = "SELECT count(*) FROM ((TABLE public.patient EXCEPT TABLE health.patient)
                  UNION ALL (TABLE health.patient EXCEPT TABLE public.patient)) AS unlike";
    assert_eq!(bench.value(unlike).await, "0");
    assert!(is_behind(&bench).await);
}

#[tokio::test]
async fn samples_are_read_as_the_application_and_what_it_does_not_get_stops_the_run() {
    let bench = bench().await;
    let (database, role) = (&bench.database.database, format!("{}_app", bench.database.database));
    // Equal rows, which an operator sees and the application does not.
    bench
        .execute(&format!(
            "CREATE ROLE {role}; ALTER ROLE {role} IN DATABASE {database} SET search_path = health;
             GRANT USAGE ON SCHEMA health TO {role}; GRANT SELECT ON health.patient TO {role};
             ALTER TABLE health.patient ENABLE ROW LEVEL SECURITY"
        ))
        .await;
    let (run, end) = bench.run(&gated(&format!("samples = 20\nas = \"{role}\""))).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "parity", "{message}");
    for words in ["1 tables with 500 rows are the same", &format!("as {role}, table patient: not to be seen")] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!is_behind(&bench).await, "nothing behind the gate was done");
    let samples = bench.evidence(&run, "same").await.facts["samples"].clone();
    assert_eq!((&samples["role"], &samples["search_path"]), (&json!(role), &json!("health")), "{samples}");
    let rows = samples["rows"].as_u64().unwrap();
    assert!((1..500).contains(&rows), "some of all: {samples}");
    let wrong = samples["wrong"].as_array().unwrap();
    assert_eq!(wrong.len() as u64, rows, "{samples}");
    assert!(wrong.iter().all(|one| one["key"] == json!([])), "keys are nobody's business: {samples}");

    // It sees them, but another schema's table is found first, where one value is another.
    bench
        .execute(&format!(
            "CREATE POLICY all_of_them ON health.patient USING (true); CREATE SCHEMA shadow;
             CREATE TABLE shadow.patient AS SELECT id, name, born + 1 AS born FROM health.patient;
             GRANT USAGE ON SCHEMA shadow TO {role}; GRANT SELECT ON shadow.patient TO {role};
             ALTER ROLE {role} IN DATABASE {database} SET search_path = shadow, health"
        ))
        .await;
    let (_, _, message) = failure(&bench.resume(&run).await);
    assert!(message.contains(&format!("as {role}, table patient: other values in born than A has")), "{message}");

    bench.execute(&format!("ALTER ROLE {role} IN DATABASE {database} SET search_path = health")).await;
    let end = bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let evidence = bench.evidence(&run, "same").await;
    assert!(evidence.summary.ends_with(&format!("tables read as {role} are those of A")), "{}", evidence.summary);
    assert_eq!(evidence.facts["samples"]["wrong"], json!([]));
    bench.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
