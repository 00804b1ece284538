//! Two applications in one database, brought there in phases.

use crate::project::Project;
use crate::workflows::said;

const PASSWORDS: &[&str] = &[
    "PROMOTION_MIGRATOR_PASSWORD",
    "PROMOTION_ENG_APP_PASSWORD",
    "PROMOTION_VH_APP_PASSWORD",
    "PROMOTION_ANALYST_PASSWORD",
];

/// Up to the ramp, which needs a service at work; its own test has one, and the people who sign.
fn promotion(test: &str) -> Project {
    let project = whole(test);
    let path = project.folder.join("RUNBOOK.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (ramp, back) = (text.find("## Feature flag ramping").unwrap(), text.find("## Rollback:").unwrap());
    std::fs::write(&path, format!("{}{}", &text[..ramp], &text[back..])).unwrap();
    project
}

fn whole(test: &str) -> Project {
    let project = Project::new("promotion", test, "staging", "PROMOTION_DATABASE_URL", PASSWORDS);
    let (receiver, address) = project.receiver();
    let project = project.with("PROMOTION_OPS_HOOK", &address).until_the_end(receiver);
    // That a backup can be restored has its own tests; here it would cost a server each time.
    let path = project.folder.join("RUNBOOK.md");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("verify = \"restore\""));
    std::fs::write(&path, text.replace("verify = \"restore\"", "verify = \"list\"")).unwrap();
    project
}

/// Up to the ramp, and on with the success criteria that are asked of the database behind it.
fn criteria(test: &str) -> Project {
    let project = whole(test);
    let path = project.folder.join("RUNBOOK.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let part = |from: &str, to: &str| &text[text.find(from).unwrap()..text.find(to).unwrap()];
    let (before, criteria) =
        (part("# ", "## Feature flag ramping"), part("- [ ] Analysts read what runs now", "## Sign-off"));
    std::fs::write(&path, format!("{before}## Success criteria\n\n{criteria}")).unwrap();
    project
}

/// Policies and views, as far as the partial ways back take them.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_policy WHERE polrelid = to_regclass('eng.strategic_directives_v2'))
    || ' policies, ' || (SELECT count(*) FROM pg_views WHERE schemaname = 'views') || ' views'";

#[test]
fn parts_are_taken_back_and_brought_again() {
    let project = promotion("parts");
    project.done(&["lint", "RUNBOOK.md"]);
    project.run();
    assert_eq!(project.sql(LEFT), "4 policies, 4 views");

    let back = project.back("rollback-only-the-policies-of-engineering");
    assert!(back.contains("The way back took ") && back.contains(": held, within 5 min."), "{back}");
    assert_eq!(project.sql(LEFT), "0 policies, 4 views");
    let messages = std::fs::read_to_string(project.folder.join("messages.jsonl")).unwrap();
    let told: Vec<&str> = messages.lines().collect();
    assert_eq!(told.len(), 2, "{messages}");
    for words in [
        "[ROLLBACK INITIATED] Promote the database housekeeping",
        "Status: Rolling back due to the test goes back\\nImpact: ingest and the dashboards",
        " UTC, 5 min after the run turned back\\nAction Required: none",
        "Will update in 15 minutes, by ",
    ] {
        assert!(told[0].contains(words), "{words}: {messages}");
    }
    assert!(told[1].contains("[ROLLED BACK] Promote the database housekeeping"), "{messages}");

    let said = project.run();
    assert!(said.contains("✓ eng-policies  0004 applied"), "{said}");

    project.back("rollback-only-the-views-of-the-venture-hub");
    assert_eq!(project.sql(LEFT), "4 policies, 2 views");
    project.run();
    assert_eq!(
        project.sql(LEFT),
        "4 policies, 4 views",
        "the grants on the views are back too, says the runbook's probe"
    );

    let newest =
        "SELECT string_agg(version || ' ' || direction, ', ' ORDER BY id) FROM audit.migration_log WHERE chain = 'vh'";
    assert_eq!(project.sql(newest), "0001 up, 0002 up, 0003 up, 0003 down, 0003 up");

    project.back("rollback-switch-the-features-off");
    let flags = std::fs::read_to_string(project.folder.join("deploy/flags.env")).unwrap();
    assert!(flags.contains("VH_INGEST_ENABLED=false") && flags.contains("ENG_GOVERNANCE_SYNC=false"), "{flags}");
    assert!(flag(&project).contains("\"state\": \"DISABLED\""), "{}", flag(&project));
}

/// The file with the flag of the ramp.
fn flag(project: &Project) -> String {
    std::fs::read_to_string(project.folder.join("deploy/flags.json")).unwrap()
}

#[test]
fn ramp_comes_out_as_declared_whatever_meets_it() {
    let project = whole("ramp");
    // Minutes would be waited for the metrics that are away.
    let path = project.folder.join("pgrunbook.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("give_up_after = \"90s\""));
    std::fs::write(&path, text.replace("give_up_after = \"90s\"", "give_up_after = \"15s\"")).unwrap();
    let before = flag(&project);
    let traffic = project.start("./traffic");
    // One error, as soon as half of the ventures have the feature.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
            while !flag(&project).contains("[\"on\", 50]")
                && !stop.load(std::sync::atomic::Ordering::SeqCst)
                && std::time::Instant::now() < deadline
            {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            project.sql("INSERT INTO audit.service_logs (service, level, message) VALUES ('ingest', 'ERROR', 'no')");
        });
        project.stops_at("ingest-rollout", "an error was logged");
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(flag(&project).contains("[\"on\", 10], [\"off\", 90]"), "{}", flag(&project));

    project.sql("DELETE FROM audit.service_logs WHERE level = 'ERROR'");
    project.done_by("./people", &["keys"]);
    let status = project.done(&["status"]);
    let run = status.split_whitespace().next().unwrap();
    // What it waits for, and that another outcome is an error, stands in the script: the demonstration calls it, too.
    let said = project.done_by("./trouble", &[run]);
    let told: Vec<&str> = said.lines().filter_map(|line| line.split_once(": ")).map(|(what, _)| what).collect();
    assert_eq!(
        told,
        ["latency step", "metrics source down", "gap of time", "killed in a hold", "clock jump"],
        "{said}"
    );
    assert!(flag(&project).contains("[\"on\", 100]"), "{}", flag(&project));
    let shown = project.done(&["show", run]);
    assert!(shown.contains("ingest is 100 % after stages 10, 50, 100"), "{shown}");
    assert!(shown.contains("pass over"), "{shown}");
    drop(traffic);

    project.done_by("./people", &["sign-off", run]);
    let said = project.done(&["resume", run]);
    assert!(said.contains("✓ release  signed off by "), "{said}");
    project.done(&["report", run]);
    let verified = project.done(&["verify", &format!("evidence/{run}")]);
    for role in ["engineering-lead: eng@", "dba: dba@", "security: security@", "product-owner: product@"] {
        assert!(verified.contains(role), "{verified}");
    }
    project.back("rollback-switch-the-features-off");
    let off = before.replace("\"state\": \"ENABLED\"", "\"state\": \"DISABLED\"");
    assert_eq!(
        flag(&project),
        off.replace("0], [\"off\", 100]", "100], [\"off\", 0]"),
        "nothing else of the file is changed"
    );
}

#[test]
fn production_wants_a_run_in_staging_and_a_signature() {
    let project = promotion("approval");
    project.done_by("./people", &["keys"]);
    project.sql("CREATE DATABASE production");
    let production = project.url.replacen("/promotion", "/production", 1);
    let in_production = |program: std::path::PathBuf, args: &[&str], code: i32| {
        said(&project.program(&program, args, &[("PROMOTION_DATABASE_URL", &production)]), code)
    };
    let pgrunbook = || project.folder_of_programs().join("pgrunbook");
    let promote = |who: &str, more: &[&str], code: i32| {
        let how =
            ["promote", "RUNBOOK.md", "--to", "production", "--confirm", "PROMOTE THE HOUSEKEEPING", "--no-input"];
        in_production(pgrunbook(), &[&["--as", who], &how[..], more].concat(), code)
    };
    let approved = "1 approval(s) of this plan by dba: ";
    let listed = promote("release@example.com", &["--check"], 3);
    assert!(listed.contains("2 of 3 demands are missing") && listed.contains("--environment staging"), "{listed}");

    project.run();
    let listed = promote("release@example.com", &["--check"], 3);
    assert!(listed.contains("✓ a run of this content ") && listed.contains(&format!("✗ {approved}")), "{listed}");

    // Whoever has a key signs; the role decides, and that it is somebody else.
    in_production(pgrunbook(), &["plan", "RUNBOOK.md", "-e", "production", "--out", "plan.json"], 0);
    let security =
        ["approve", "plan.json", "-e", "production", "--as", "security@example.com", "--key", "keys/security"];
    in_production(pgrunbook(), &security, 0);
    let listed = promote("release@example.com", &["--check"], 3);
    assert!(listed.contains(&format!("✗ {approved}")), "{listed}");
    in_production(project.folder.join("people"), &["approve", "plan.json"], 0);
    let listed = promote("dba@example.com", &[], 3);
    assert!(listed.contains(&format!("✗ {approved}")) && listed.contains("Nothing was begun."), "{listed}");

    let begun = promote("release@example.com", &[], 3);
    assert!(begun.contains("demands held: rehearsed in, approvals, confirmation"), "{begun}");
    assert!(begun.contains("Waiting for @release-manager: \"All scripts ran on staging"), "{begun}");
}

#[test]
fn success_is_rows_in_every_view_and_nobody_denied() {
    let project = criteria("criteria");
    project.stops_at("views-return-data", "nobody has written");
    project.sql(
        "SET ROLE vh_app; WITH venture AS (INSERT INTO vh.ventures (name) VALUES ('first') RETURNING id)
         SELECT set_config('vh.venture_id', id::text, false) FROM venture;
         INSERT INTO vh.ingest_runs (venture_id, status) SELECT id, 'success' FROM vh.ventures",
    );
    let again = || project.call(&["resume", "--answers", "answers.toml"]);
    let stopped = said(&again(), 1);
    assert!(stopped.contains("✗ views-return-data ") && stopped.contains("got 2 of 4 rows"), "{stopped}");
    project.sql("SET ROLE eng_app; INSERT INTO eng.strategic_directives_v2 (code, title) VALUES ('SD-1', 'first')");
    let stopped = said(&again(), 1);
    for probe in ["analyst-still-cannot-read-eng", "analyst-still-cannot-read-vh"] {
        assert!(stopped.contains(&format!("✓ {probe}  error 42501, as expected")), "{probe}: {stopped}");
    }
    assert!(stopped.contains("✗ nobody-was-denied "), "no service logs: {stopped}");

    // What a service meets and tells: before this run, and in it.
    project.sql("INSERT INTO audit.service_logs (logged_at, service, level, message, sqlstate) VALUES (now() - interval '1 day', 'ingest', 'ERROR', 'old', '42501')");
    let crossing = "UPDATE eng.strategic_directives_v2 SET status = 'archived'";
    let denied = project.psql(&project.url_of("vh_app", "PROMOTION_VH_APP_PASSWORD"), crossing);
    let message = said(&denied, 1);
    assert!(message.contains("permission denied for schema eng"), "{message}");
    let log = "INSERT INTO audit.service_logs (service, level, message, sqlstate) VALUES ";
    project.sql(&format!("SET ROLE vh_app; {log} ('ingest', 'ERROR', 'permission denied for schema eng', '42501')"));
    let stopped = said(&again(), 1);
    assert!(stopped.contains("✗ nobody-was-denied ") && stopped.contains("ingest: permission denied"), "{stopped}");
    project.sql("DELETE FROM audit.service_logs WHERE message = 'permission denied for schema eng'");
    project.sql(&format!("SET ROLE vh_app; {log} ('ingest', 'INFO', 'took in 10 rows', NULL)"));
    let done = said(&again(), 0);
    assert!(done.contains("✓ denied-attempt-is-seen "), "{done}");
}

#[test]
fn everything_is_undone_and_nothing_is_left() {
    let project = promotion("undone");
    project.run();
    project.back("undo");
    let left = "SELECT coalesce(string_agg(nspname, ' '), '') FROM pg_namespace WHERE nspname IN ('eng', 'vh', 'views', 'audit')";
    assert_eq!(project.sql(left), "");
    assert_eq!(project.sql("SELECT count(*) FROM pg_roles WHERE rolname IN ('eng_app', 'vh_app', 'analyst_ro')"), "0");
}

#[test]
fn backup_is_put_back_only_while_the_trail_is_empty() {
    let project = promotion("restore");
    project.run();
    project.sql("SET ROLE vh_app; INSERT INTO vh.ventures (name) VALUES ('first')");
    let refused = project.call(&["rollback", "--path", "rollback-restore-the-backup", "--reason", "too late"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("check `nothing-written-yet` does not hold"), "{said}");
    assert_eq!(project.sql("SELECT name FROM vh.ventures"), "first");

    let fresh = promotion("restored");
    fresh.run();
    let back = fresh.back("rollback-restore-the-backup");
    let order = ["stop-ingest", "stop-ingest-service", "nothing-written-yet", "back-to-before", "log-is-as-before"];
    let places: Vec<_> = order
        .iter()
        .map(|step| back.find(&format!("✓ undo {step}  ")).unwrap_or_else(|| panic!("{step}: {back}")))
        .collect();
    assert!(places.is_sorted(), "{back}");
    assert!(back.contains(": held, within 5 min."), "{back}");
    assert!(flag(&fresh).contains("\"state\": \"DISABLED\""), "{}", flag(&fresh));
    assert_eq!(fresh.sql("SELECT count(*) FROM pg_namespace WHERE nspname IN ('eng', 'vh')"), "0");
}

#[test]
fn write_across_the_boundary_stops_the_run() {
    let project = promotion("boundary");
    let code =
        "export const sql = `\n  UPDATE \"eng\".\"strategic_directives_v2\" AS d\n  SET status = 'completed'\n`;\n";
    std::fs::write(project.folder.join("apps/vh/shortcut.ts"), code).unwrap();
    project.stops_at("boundary-in-code", "apps/vh writes to eng");
    std::fs::remove_file(project.folder.join("apps/vh/shortcut.ts")).unwrap();
    project.run();
}
