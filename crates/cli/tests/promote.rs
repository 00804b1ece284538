//! `promote`: the demands of an environment, all at once, held, overridden, gone around; and what stands at the end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::place::{Place, Said};

const RUNBOOK: &str = "# Notes

## Apply

```toml step
migrate = \"notes\"
target = \"main\"
chain = \"db\"
undo = \"down\"
version_row = { version = \"1.1.0\" }
```

## Afterwards

- [ ] The team is told — @lead
";

/// A project with a staging and a production on one database each, and a chain of two migrations.
pub async fn project(production: &str) -> Place {
    let place = Place::new().await;
    let other = Place::new().await;
    let staging = other.env[0].1.clone();
    let mut place = place;
    place.env.push(("STAGING_URL".to_owned(), staging));
    place.write("RUNBOOK.md", RUNBOOK);
    place.write("db/0001_settings.sql", "CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb);\n");
    place.write("db/0001_settings.down.sql", "DROP TABLE bot_config;\n");
    place.write("db/0002_notes.sql", "CREATE TABLE notes (id int);\n");
    place.write("db/0002_notes.down.sql", "DROP TABLE notes;\n");
    place.write("answers.toml", "\"The team is told\" = \"confirmed\"\n");
    configure(&place, production);
    place
}

fn configure(place: &Place, production: &str) {
    place.write(
        "pgrunbook.toml",
        &format!(
            "[project]\nallowed_signers = \"allowed_signers\"\n[targets.main]\nurl = \"env:STAGING_URL\"\n[environments.staging]\n\
             [environments.production]\ntargets.main.url = \"env:DATABASE_URL\"\n{production}\n\
             [people]\nrelease-manager = [\"olga\"]\ndba = [\"bert\"]\n"
        ),
    );
    if place.read("allowed_signers").is_empty() {
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "bert", "-f"])
            .arg(place.path("bert"))
            .status();
        assert!(made.unwrap().success());
        place.write("allowed_signers", &format!("bert {}", place.read("bert.pub")));
    }
}

pub fn promote(place: &Place, more: &[&str]) -> Said {
    let args = ["promote", "RUNBOOK.md", "--to", "production", "--answers", "answers.toml"];
    place.call(&[&args, more].concat())
}

/// A page that says what a test puts there: status and body.
struct Page {
    url: String,
    says: Arc<Mutex<(u16, String)>>,
}

fn page() -> Page {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/api", listener.local_addr().unwrap());
    let says = Arc::new(Mutex::new((200, "{\"open\": []}".to_owned())));
    let answers = Arc::clone(&says);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0u8; 4096];
            let _ = stream.read(&mut request);
            let (status, body) = answers.lock().unwrap().clone();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    Page { url, says }
}

const ALWAYS: &str = "Mon-Sun 00:00-24:00 UTC";
/// Long gone.
pub const NEVER: &str = "2020-01-06 09:00-16:00 Europe/Berlin";

#[tokio::test]
async fn demands_are_listed_with_their_remedies_and_run_goes_no_way_around_them() {
    let page = page();
    let demands = |window: &str| {
        format!(
            "confirm = \"CONFIRM PRODUCTION DEPLOYMENT\"\nrehearsal = \"required\"\nrehearsed_in = \"staging\"\nrehearsed_back = true\n\
             windows = [\"{window}\"]\nincidents = {{ url = \"{}\", json = \"/open\" }}\napprovals = 1\napprover_roles = [\"dba\"]\n\
             after = [\"Application health: curl https://app/health\"]",
            page.url
        )
    };
    let place = project(&demands(NEVER)).await;
    *page.says.lock().unwrap() = (200, "{\"open\": [{\"name\": \"payments are slow\"}]}".to_owned());
    let refused = promote(&place, &["--check"]);
    assert_eq!(refused.code, Some(3), "{}\n{}", refused.out, refused.err);
    for part in [
        "✗ a rehearsal of this content (digest ",
        "`pgrunbook rehearse RUNBOOK.md` runs it forward and back",
        "in `staging` to its end and wholly back: the journal has no run of RUNBOOK.md there",
        "`pgrunbook run RUNBOOK.md --environment staging`",
        "✗ a window (`2020-01-06 09:00-16:00 Europe/Berlin`): closed, and none opens within two weeks",
        "✗ no open incident: 1 open: payments are slow",
        "✗ 1 approval(s) of this plan by dba: 1 missing, by dba",
        "✗ the text \"CONFIRM PRODUCTION DEPLOYMENT\": not given\n      --confirm 'CONFIRM PRODUCTION DEPLOYMENT'",
        "6 of 6 demands are missing. Nothing was begun.",
    ] {
        assert!(refused.out.contains(part), "{part}\n{}", refused.out);
    }
    // Who does not say `promote` meets the same.
    let run = place.call(&["run", "RUNBOOK.md", "-e", "production", "--confirm", "CONFIRM PRODUCTION DEPLOYMENT"]);
    assert_eq!(run.code, Some(3), "{}\n{}", run.out, run.err);
    for part in
        ["a rehearsal of this content", "in `staging` to its end", "closed, and none opens", "payments are slow"]
    {
        assert!(run.err.contains(part), "{part}\n{}", run.err);
    }
    assert_eq!(place.call(&["status", "-e", "production"]).out, "", "no run was begun");
    assert_eq!(place.value("SELECT to_regclass('bot_config') IS NULL").await, "t");

    // A page that does not answer is not a page that says that nothing is open.
    for (answer, why) in [((503, String::new()), "status 503"), ((200, "busy".to_owned()), "the answer is not JSON")] {
        *page.says.lock().unwrap() = answer;
        let said = promote(&place, &["--check"]).out;
        let wanted = format!("no open incident: it cannot be known whether one is open: /open of {}: {why}", page.url);
        assert!(said.contains(&wanted), "{wanted}\n{said}");
    }

    // Each in turn.
    *page.says.lock().unwrap() = (200, "{\"open\": []}".to_owned());
    configure(&place, &demands(ALWAYS));
    place.call(&["rehearse", "RUNBOOK.md", "-e", "staging"]).done();
    place.call(&["run", "RUNBOOK.md", "-e", "staging", "--answers", "answers.toml"]).done();
    let said = promote(&place, &["--check"]);
    assert!(said.out.contains("completed there and never went back"), "{}", said.out);
    place.call(&["rollback", "-e", "staging", "--path", "undo"]).done();
    place.call(&["plan", "RUNBOOK.md", "-e", "production", "--out", "plan.json"]).done();
    place.call(&["approve", "plan.json", "-e", "production", "--as", "bert", "--key", "bert"]).done();
    let confirm = ["--confirm", "CONFIRM PRODUCTION DEPLOYMENT"];
    let checked = promote(&place, &[&confirm[..], &["--check"]].concat()).done();
    assert!(!checked.out.contains('✗') && checked.out.contains("✓ no open incident: none is open"), "{}", checked.out);
    assert!(checked.out.contains("✓ 1 approval(s) of this plan by dba: by bert"), "{}", checked.out);
    let wrong = promote(&place, &["--confirm", "confirm production deployment"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    assert_eq!(place.value("SELECT to_regclass('bot_config') IS NULL").await, "t");

    let done = promote(&place, &[&confirm[..], &["--summary", "summary.md"]].concat()).done();
    assert!(
        done.out.contains("demands held: rehearsal, rehearsed in, window, incident, approvals, confirmation"),
        "{}",
        done.out
    );
    let summary = place.read("summary.md");
    assert!(done.out.contains(&summary), "what is printed is what is written");
    for part in [
        "# Deployment: Notes\n\n**completed** in environment `production`, in ",
        "| run by | anna@",
        "| approved by | bert (dba) |",
        "| ✓ | no open incident | none is open, says ",
        "Schema version in `bot_config (schema_version)`: none before, `1.1.0` now.",
        "| `0001` | `notes` | ",
        "| `0002` | `notes` | ",
        "- [ ] Application health: curl https://app/health\n",
    ] {
        assert!(summary.contains(part), "{part}\n{summary}");
    }
    assert!(!summary.contains("The team is told"), "it is settled: {summary}");
    let evidence = summary.lines().find_map(|line| line.strip_prefix("| evidence | ")).unwrap();
    place.call(&["verify", evidence.trim_end_matches(" |")]).done();

    // A run in staging of another text is named for what it is.
    place.write("RUNBOOK.md", &RUNBOOK.replace("# Notes", "# Notes, again"));
    let said = promote(&place, &[&confirm[..], &["--check"]].concat());
    assert_eq!(said.code, Some(3));
    assert!(
        said.out.contains("there was of other content (digest ") && said.out.contains("something was edited since"),
        "{}",
        said.out
    );
}

#[tokio::test]
async fn override_is_refused_or_loud_and_stays_to_be_reviewed() {
    let closed = format!("windows = [\"{NEVER}\"]");
    let place = project(&closed).await;
    let why = ["--override", "window", "--reason", "the payment fix cannot wait, Olga decided"];
    let nobody = promote(&place, &why);
    assert_eq!(nobody.code, Some(2));
    assert!(nobody.err.contains("it allows nobody to"), "{}", nobody.err);
    configure(&place, &format!("{closed}\noverride_roles = [\"release-manager\"]"));
    let listed = promote(&place, &["--check"]);
    assert!(listed.out.contains("or, with a role that may: --override window --reason"), "{}", listed.out);
    let anna = promote(&place, &why);
    assert_eq!(anna.code, Some(2));
    assert!(anna.err.contains("holds none of the roles that may (release-manager)"), "{}", anna.err);
    let olga = |more: &[&str]| promote(&place, &[&["--as", "olga"], more].concat());
    let empty = olga(&["--override", "window", "--reason", "urgent"]);
    assert_eq!(empty.code, Some(2));
    assert!(empty.err.contains("\"urgent\" is no reason"), "{}", empty.err);
    let silent = olga(&["--override", "window"]);
    assert_eq!(silent.code, Some(2), "a reason is asked for: {}", silent.err);
    let confirm = olga(&["--override", "confirm", "--reason", "it is much too long to type"]);
    assert_eq!(confirm.code, Some(2));
    assert!(confirm.err.contains("invalid value 'confirm'"), "{}", confirm.err);
    assert_eq!(place.call(&["status", "-e", "production"]).out, "", "no run was begun");

    let done = olga(&why).done();
    assert!(
        done.out.contains("!! OVERRIDDEN: window by olga: the payment fix cannot wait, Olga decided"),
        "{}",
        done.out
    );
    assert!(done.out.contains("## To be reviewed\n\n- [ ] window overridden by olga at "), "{}", done.out);
    let production = |args: &[&str]| place.call(&[args, &["-e", "production"]].concat()).done();
    let listed = production(&["status"]).out;
    assert!(listed.contains("! to be reviewed"), "{listed}");
    let run = listed.split_whitespace().next().unwrap().to_owned();
    let shown = production(&["status", &run]).out;
    assert!(
        shown.contains("! to be reviewed: window overridden by olga: the payment fix cannot wait, Olga decided ("),
        "{shown}"
    );
    let status: Value = serde_json::from_str(&production(&["status", &run, "--format", "json"]).out).unwrap();
    assert_eq!(status["reviews"][0]["demand"], "window");
    let verified = production(&["verify", &format!("evidence/{run}")]).out;
    assert!(verified.contains("1 to be reviewed:\n  window overridden by olga: "), "{verified}");
}

#[tokio::test]
async fn rows_of_a_query_are_open_incidents_and_json_is_one_object_a_line() {
    let incidents =
        "incidents = { target = \"main\", sql = \"SELECT title FROM incident WHERE closed_at IS NULL -- open\" }";
    let place = project(incidents).await;
    let missing = promote(&place, &["--check"]);
    assert_eq!(missing.code, Some(3));
    assert!(
        missing
            .out
            .contains("it cannot be known whether one is open: SQL on `main`: relation \"incident\" does not exist"),
        "{}",
        missing.out
    );
    place
        .execute(
            "CREATE TABLE incident (title text, closed_at timestamptz); INSERT INTO incident VALUES ('search is down')",
        )
        .await;
    let open = promote(&place, &["--check", "--format", "json"]);
    assert_eq!(open.code, Some(3));
    let lines: Vec<Value> = open.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["type"].as_str(), lines[0]["missing"].as_i64()), (Some("demands"), Some(1)));
    let demand = &lines[0]["demands"][0];
    assert_eq!((demand["demand"].as_str(), demand["standing"].as_str()), (Some("incident"), Some("missing")));
    assert_eq!(demand["found"], "1 open: search is down");
    assert_eq!((lines[1]["end"].as_str(), lines[1]["exit"].as_i64()), (Some("waiting"), Some(3)));

    place.execute("UPDATE incident SET closed_at = now()").await;
    let done = promote(&place, &["--format", "json"]).done();
    let lines: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = &lines.iter().find(|line| line["type"] == "summary").unwrap()["summary"];
    assert_eq!((summary["ended"].as_str(), summary["environment"].as_str()), (Some("completed"), Some("production")));
    assert_eq!(summary["migrations"].as_array().unwrap().len(), 2);
    assert!(summary["migrations"][1]["duration_ms"].is_u64(), "{summary}");
    assert_eq!(summary["versions"][0]["after"], "1.1.0");
    assert_eq!(lines.last().unwrap()["end"], "completed");
}

#[tokio::test]
async fn what_waits_or_fails_behind_the_change_is_on_the_checklist_and_resume_sums_up_too() {
    let place = project("after = [\"Look at the logs\"]").await;
    let waits = place.call(&["promote", "RUNBOOK.md", "--to", "production"]);
    assert_eq!(waits.code, Some(3), "{}\n{}", waits.out, waits.err);
    assert!(waits.out.contains("demands nothing"), "{}", waits.out);
    assert!(
        waits.out.contains("- [ ] The team is told (@lead) — Afterwards\n- [ ] Look at the logs\n"),
        "{}",
        waits.out
    );
    assert!(waits.out.contains("**not ended** in environment `production`"), "{}", waits.out);
    place.write("summary.md", "Before.\n");
    place.call(&["resume", "-e", "production", "--answers", "answers.toml", "--summary", "summary.md"]).done();
    let summary = place.read("summary.md");
    assert!(summary.starts_with("Before.\n# Deployment: Notes\n\n**completed**"), "{summary}");
    assert!(!summary.contains("The team is told") && summary.ends_with("- [ ] Look at the logs\n"), "{summary}");
}

#[tokio::test]
async fn resume_meets_the_demands_again_and_overrides_them_as_well() {
    let demands = |window: &str| {
        format!("confirm = \"YES\"\napprovals = 1\nwindows = [\"{window}\"]\noverride_roles = [\"release-manager\"]")
    };
    let place = project(&demands(ALWAYS)).await;
    let in_production =
        |args: &[&str]| place.call(&[args, &["-e", "production", "--answers", "answers.toml"]].concat());
    let waits = in_production(&["run", "RUNBOOK.md"]);
    assert_eq!(waits.code, Some(3), "{}", waits.err);
    assert!(waits.out.contains("Waiting for 1 approval(s)"), "{}", waits.out);
    // Meanwhile the window closes.
    configure(&place, &demands(NEVER));
    let closed = in_production(&["resume", "--confirm", "YES"]);
    assert_eq!(closed.code, Some(3), "{}", closed.err);
    let said = "Waiting: environment `production` demands, before the first change:\n  ✗ a window (`2020-01-06";
    assert!(closed.out.contains(said) && closed.out.contains("\n  pgrunbook resume "), "{}", closed.out);
    let both = ["resume", "--as", "olga", "--confirm", "YES", "--override", "window", "--override", "approvals"];
    let uneven = in_production(&[&both[..], &["--reason", "a", "--reason", "b", "--reason", "c"]].concat());
    assert_eq!(uneven.code, Some(2));
    assert!(uneven.err.contains("2 demands are overridden, and 3 reasons are given"), "{}", uneven.err);
    assert_eq!(place.value("SELECT to_regclass('bot_config') IS NULL").await, "t");
    let done = in_production(&[&both[..], &["--reason", "nobody else is awake, and it burns"]].concat()).done();
    assert!(
        done.out.contains("!! OVERRIDDEN: window by olga") && done.out.contains("!! OVERRIDDEN: approvals by olga"),
        "{}",
        done.out
    );
    assert!(
        done.out.contains("demands held: window (overridden), approvals (overridden), confirmation"),
        "{}",
        done.out
    );
}

#[tokio::test]
async fn promotion_that_leaves_no_row_in_a_log_is_warned_of_or_refused() {
    let place = project("").await;
    let warned = promote(&place, &["--check"]).done().out;
    let warning =
        "! No step leaves a row of this deployment in a log on `main`: a `migrate` step does, with deployment_log = ";
    assert!(warned.contains(warning), "{warned}");
    let json = promote(&place, &["--check", "--format", "json"]).done().out;
    let demands: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(demands["warnings"][0].as_str().unwrap().contains("on `main`"), "{demands}");

    configure(&place, "deployment_log = \"required\"\noverride_roles = [\"release-manager\"]");
    let refused = promote(&place, &["--check"]);
    assert_eq!(refused.code, Some(3), "{}\n{}", refused.out, refused.err);
    let missing = "✗ a row in the target's deployment log, committed with the change: no step leaves one on `main`\n      \
                   name the log in a `migrate` step of that target: deployment_log = \"schema.table\"\n";
    assert!(refused.out.contains(missing), "{}", refused.out);
    assert!(!refused.out.contains("--override") && !refused.out.contains("! No step"), "{}", refused.out);
    let run = place.call(&["run", "RUNBOOK.md", "-e", "production"]);
    assert_eq!(run.code, Some(3), "{}\n{}", run.out, run.err);
    assert!(run.err.contains("no step leaves one on `main`"), "{}", run.err);
    assert_eq!(place.call(&["status", "-e", "production"]).out, "", "no run was begun");

    // One that brings nothing has nothing to log; who promotes it is told all the same.
    let looks = "# Look\n\n## Look\n\n```sql step\n-- check: one    target: main\n-- expect: 1 row\nSELECT 1;\n```\n";
    place.write("LOOK.md", looks);
    let looked = place.call(&["promote", "LOOK.md", "--to", "production", "--check"]).done().out;
    assert!(looked.contains("committed with the change: no step deploys"), "{looked}");
    configure(&place, "");
    let looked = place.call(&["promote", "LOOK.md", "--to", "production", "--check"]).done().out;
    assert!(looked.contains("! No step of this runbook leaves a row in a deployment log."), "{looked}");

    configure(&place, "deployment_log = \"required\"");
    place.execute(LOG).await;
    // A saved plan cannot be made to say that it logs.
    place.call(&["plan", "RUNBOOK.md", "-e", "production", "--out", "plan.json"]).done();
    let plan = place.read("plan.json");
    let edited = plan.replace("\"log\": null", "\"log\": \"audit.deployment_log\"");
    assert_ne!(edited, plan);
    place.write("plan.json", &edited);
    let edited = promote(&place, &["--plan", "plan.json"]);
    assert_eq!(edited.code, Some(2), "{}\n{}", edited.out, edited.err);
    assert!(edited.err.contains("step `notes` is not what it was"), "{}", edited.err);
    assert_eq!(place.value("SELECT count(*) FROM audit.deployment_log").await, "0");

    let logs = RUNBOOK.replace("version_row", "deployment_log = \"audit.deployment_log\"\nversion_row");
    place.write("RUNBOOK.md", &logs);
    let done = promote(&place, &[]).done().out;
    assert!(done.contains("✓ a row in the target's deployment log, committed with the change: "), "{done}");
    assert!(done.contains("demands held: deployment log") && !done.contains("! No step"), "{done}");
    assert_eq!(place.value(BOTH).await, "1.1.0 deployed 1.1.0 notes");
}

#[tokio::test]
async fn every_help_has_an_example() {
    let place = Place::new().await;
    let help = place.call(&["promote", "--help"]).done().out;
    assert!(help.contains("Examples:") && help.contains("--check") && help.contains("--override <DEMAND>"), "{help}");
    assert!(place.call(&["man"]).done().out.contains("promote"));
}

/// The version row and the log say the same, or neither says anything.
const BOTH: &str = "SELECT concat_ws(' ', (SELECT max(config_value ->> 'version') FROM bot_config),
    (SELECT string_agg(action || ' ' || version, ', ') FROM audit.deployment_log), to_regclass('notes'))";

/// The log that the runbook writes to.
const LOG: &str =
    "CREATE SCHEMA audit; CREATE TABLE audit.deployment_log (deployed_at timestamptz, action text, environment text,
    run text, step text, content_digest text, operator text, version text, migration text)";

async fn logging() -> Place {
    let place = Place::new().await;
    place
        .write("RUNBOOK.md", &RUNBOOK.replace("version_row", "deployment_log = \"audit.deployment_log\"\nversion_row"));
    place.write(
        "pgrunbook.toml",
        &format!("[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.production]\nwindows = [\"{ALWAYS}\"]\n"),
    );
    place.write("db/0002_notes.sql", "CREATE TABLE notes (id int);\n");
    place.write("answers.toml", "\"The team is told\" = \"confirmed\"\n");
    place.execute(&format!("CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb); {LOG}")).await;
    place
}

#[tokio::test]
async fn deployment_log_and_version_row_are_both_there_or_neither_after_a_kill_at_any_point() {
    let args = ["promote", "RUNBOOK.md", "--to", "production", "--answers", "answers.toml"];
    let undisturbed = logging().await;
    let (said, points) = undisturbed.points(&args);
    said.done();
    assert_eq!(undisturbed.value(BOTH).await, "1.1.0 deployed 1.1.0 notes");
    assert!(points > 8, "{points} points: the run has shrunk");
    let mut seen = std::collections::BTreeSet::new();
    for point in undisturbed.deaths() {
        let place = logging().await;
        assert_eq!(place.call_and_die(&args, point).code, None, "point {point}");
        let found = place.value(BOTH).await;
        assert!(found.is_empty() || found == "1.1.0 deployed 1.1.0 notes", "killed at point {point}: {found}");
        seen.insert(found);
        let status = place.call(&["status"]).out;
        if status.is_empty() {
            place.call(&args).done();
        } else if !status.contains("  completed  ") {
            place.call(&["resume", "--answers", "answers.toml"]).done();
        }
        assert_eq!(place.value(BOTH).await, "1.1.0 deployed 1.1.0 notes", "killed at point {point}");
    }
    assert_eq!(seen.len(), 2, "some died before, some after: {seen:?}");
}
