//! Switches and fences as steps of a run: made, taken back, and refused where somebody else was at work.

use std::os::unix::fs::PermissionsExt;

use pgrunbook_engine::RunEnd;

use crate::bench::{Bench, failure};

fn runbook(steps: &str) -> String {
    format!("# Cutover\n\n## Switch\n\n{steps}")
}

fn toml(step: &str) -> String {
    format!("```toml step\n{step}\nundo = \"auto\"\n```\n\n")
}

#[tokio::test]
async fn files_are_switched_and_put_back_byte_for_byte() {
    let mut bench = Bench::new().await;
    bench.env.push(("NEW_URL".to_owned(), "postgres://app:hunter2@db1/health".to_owned()));
    let (app, env) = ("# ours\r\n[database]\r\nurl = \"old\" # why\r\n", "A=1\nexport URL='old' # why\n");
    bench.write("app.toml", app);
    bench.write("prod.env", env);
    std::fs::set_permissions(bench.path("prod.env"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let text = runbook(&format!(
        "{}{}",
        toml("switch = \"one\"\nfile = \"app.toml\"\nset = { \"database.url\" = \"env:NEW_URL\" }"),
        toml("switch = \"two\"\nfile = \"prod.env\"\nset = { URL = \"env:NEW_URL\", B = \"2\" }")
    ));
    let (run, end) = bench.run(&text).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let read = |path: &str| std::fs::read_to_string(bench.path(path)).unwrap();
    assert_eq!(read("app.toml"), app.replace("old", "postgres://app:hunter2@db1/health"));
    assert_eq!(read("prod.env"), format!("{}B=2\n", env.replace("old", "postgres://app:hunter2@db1/health")));
    let evidence = bench.evidence(&run, "two").await;
    assert!(!format!("{evidence:?}").contains("hunter2"), "{evidence:?}");
    let kept = evidence.facts["kept"].as_str().unwrap();
    assert_eq!(std::fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600);

    // Somebody changes one of them: it is left alone, and what was before is named.
    bench.write("prod.env", "A=9\n");
    let (_, code, message) = failure(&bench.rollback(&run, "undo").await);
    assert!(code == "switch-changed" && message.contains(kept), "{code}: {message}");
    assert_eq!(read("prod.env"), "A=9\n");
    let switched = format!("{}B=2\n", env.replace("old", "postgres://app:hunter2@db1/health"));
    bench.write("prod.env", &switched);
    let end = bench.resume(&run).await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!((read("app.toml").as_str(), read("prod.env").as_str()), (app, env));
}

#[tokio::test]
async fn rows_are_switched_with_the_ledger_and_put_back() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE tenants (name text PRIMARY KEY, state text, at int[])").await;
    bench.execute("INSERT INTO tenants VALUES ('old', NULL, '{1,2}'), ('other', 'x', NULL)").await;
    let step = |id: &str, name: &str| {
        toml(&format!(
            "switch = \"{id}\"\ntarget = \"main\"\nregistry = \"public.tenants\"\nkey = {{ name = \"{name}\" }}\n\
             set = {{ state = \"live\", at = \"{{3}}\" }}"
        ))
    };
    let all = "SELECT string_agg(t::text, ' ' ORDER BY name) FROM tenants AS t";
    let before = bench.value(all).await;
    let (run, end) = bench.run(&runbook(&(step("one", "old") + &step("two", "new")))).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert_eq!(bench.value(all).await, "(new,live,{3}) (old,live,{3}) (other,x,)");
    bench.execute("UPDATE tenants SET state = 'theirs' WHERE name = 'new'").await;
    let (_, code, message) = failure(&bench.rollback(&run, "undo").await);
    assert!(code == "switch-row" && message.contains("somebody changed state"), "{code}: {message}");
    bench.execute("UPDATE tenants SET state = 'live' WHERE name = 'new'").await;
    let end = bench.resume(&run).await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(bench.value(all).await, before);
}

#[tokio::test]
async fn command_is_asked_by_its_check() {
    let bench = Bench::new().await;
    let step = "switch = \"flag\"\ncommand = [\"touch\", \"flag\"]\ncheck = [\"test\", \"-e\", \"flag\"]\n\
                undo_command = [\"rm\", \"flag\"]";
    let (run, end) = bench.run(&runbook(&toml(step))).await;
    assert!(matches!(end, RunEnd::Completed) && bench.path("flag").exists(), "{end:?}");
    let end = bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack) && !bench.path("flag").exists(), "{end:?}");
    // What was there before is not taken away.
    bench.write("flag", "");
    let (run, _) = bench.run(&runbook(&toml(step))).await;
    bench.rollback(&run, "undo").await;
    assert!(bench.path("flag").exists());
    let idle = step.replace("\"touch\", \"flag\"", "\"true\"").replace("\"test\", \"-e\", \"flag\"", "\"false\"");
    let (_, code, _) = failure(&bench.run(&runbook(&toml(&idle))).await.1);
    assert_eq!(code, "switch-check");
}

#[tokio::test]
async fn switch_ends_the_freeze_and_one_that_fails_thaws_it() {
    let bench = Bench::new().await;
    bench.execute("CREATE SCHEMA frozen_here; CREATE TABLE frozen_here.notes (id int)").await;
    bench.write("app.env", "URL=old\n");
    let fence =
        toml("fence = \"stop\"\ntarget = \"main\"\nschema = \"frozen_here\"\nmessage = \"moved\"\nbudget = \"60s\"");
    let switch = |file: &str| {
        toml(&format!("switch = \"lead\"\nfile = \"{file}\"\nset = {{ URL = \"new\" }}\nschema = \"frozen_here\""))
    };
    let fenced = "SELECT count(*) FROM pgrunbook.fence WHERE state = 'fenced'";
    let (_, code, message) = failure(&bench.run(&runbook(&(fence.clone() + &switch("missing.env")))).await.1);
    assert!(code == "switch-file" && message.contains("writers go on where they were"), "{code}: {message}");
    assert_eq!(bench.value(fenced).await, "0");
    bench.execute("INSERT INTO frozen_here.notes VALUES (1)").await;

    let (run, end) = bench.run(&runbook(&(fence + &switch("app.env")))).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let (stop, lead) = (bench.evidence(&run, "stop").await, bench.evidence(&run, "lead").await);
    assert!(lead.facts.contains_key("freeze_ms") && lead.summary.contains("the freeze took"), "{lead:?}");
    assert_eq!(stop.facts["proof"]["holds"], serde_json::json!(true));
    assert_eq!(bench.value(fenced).await, "1");
    let end = bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    bench.execute("INSERT INTO frozen_here.notes VALUES (2)").await;
    assert_eq!(std::fs::read_to_string(bench.path("app.env")).unwrap(), "URL=old\n");
}
