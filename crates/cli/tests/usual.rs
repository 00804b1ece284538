//! What people do on most days.

use crate::place::Place;

#[tokio::test]
async fn empty_folder_to_a_first_run_and_back() {
    let place = Place::new().await;
    place.call(&["init"]).done();
    place.call(&["lint", "RUNBOOK.md"]).done();
    assert_eq!(place.call(&["fmt", "--check", "RUNBOOK.md"]).code, Some(0), "the template is in the usual form");
    let plan = place.call(&["plan", "RUNBOOK.md"]).done();
    assert!(plan.out.contains("Undo: 1 of 1 changing steps can be taken back."), "{}", plan.out);
    let run = place.call(&["run", "RUNBOOK.md"]).done();
    assert!(run.out.contains("✓ create-notes  done") && run.out.contains("Completed."), "{}", run.out);
    assert_eq!(place.value("SELECT count(*) FROM notes").await, "0");
    place.call(&["rollback"]).done();
    assert_eq!(place.value("SELECT to_regclass('notes') IS NULL").await, "t");
    let again = place.call(&["init"]);
    assert_eq!(
        (again.code, again.err.as_str()),
        (
            Some(2),
            "error: pgrunbook.toml is there already; nothing was written\n  help: run it in an empty folder, or name one with --project\n"
        )
    );
}

#[tokio::test]
async fn items_are_answered_in_advance_or_waited_for() {
    let place = Place::new().await;
    place.write("RUNBOOK.md", "# T\n\n## P\n\n- [ ] The window is open — @release-manager\n- [ ] Nobody is in\n");
    let waits = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(waits.code, Some(3));
    assert!(
        waits.out.contains("Waiting for @release-manager: \"The window is open\"\n  pgrunbook resume "),
        "{}",
        waits.out
    );
    place.write(
        "answers.toml",
        "\"The window is open\" = \"confirmed\"\n\"Nobody is in\" = { outcome = \"not-applicable\" }\n",
    );
    let bad = place.call(&["resume", "--answers", "answers.toml"]);
    assert_eq!(bad.code, Some(2));
    assert!(bad.err.contains("say in `note` why it is not applicable"), "{}", bad.err);
    place.write(
        "answers.toml",
        "\"The window is open\" = \"confirmed\"\n\"Nobody is in\" = { outcome = \"not-applicable\", note = \"at night\" }\n",
    );
    let done = place.call(&["resume", "--answers", "answers.toml"]).done();
    let shown = done.out.find("  □ Nobody is in\n      not applicable by anna@");
    assert!(shown.is_some() && done.out.contains("(answered in advance): at night"), "{}", done.out);
}

#[tokio::test]
async fn json_is_one_object_a_line() {
    let place = Place::new().await;
    place.call(&["init"]).done();
    let run = place.call(&["run", "RUNBOOK.md", "--format", "json"]).done();
    let lines: Vec<serde_json::Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!((types.first(), types.last()), (Some(&"event"), Some(&"end")));
    assert_eq!(lines.last().unwrap()["end"], "completed");
    assert!(run.err.is_empty(), "{}", run.err);
    let status = place.call(&["status", &place.run_id(), "--format", "json"]).done();
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["state"], "completed");
}

#[tokio::test]
async fn rehearsal_opens_the_way_into_a_protected_environment() {
    let place = Place::new().await;
    place.call(&["init"]).done();
    place.write(
        "pgrunbook.toml",
        "[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.production]\nprotected = true\nconfirm = \"YES, NOW\"\nrehearsal = \"required\"\n",
    );
    let refused = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(refused.code, Some(3), "{}", refused.err);
    assert!(
        refused.err.contains("demands a rehearsal of this content") && refused.err.contains("pgrunbook rehearse"),
        "{}",
        refused.err
    );
    let rehearsed = place.call(&["rehearse", "RUNBOOK.md"]).done();
    assert!(rehearsed.out.contains("Rehearsed forward and back."), "{}", rehearsed.out);
    assert_eq!(place.value("SELECT to_regclass('notes') IS NULL").await, "t", "the real target was not touched");

    let unconfirmed = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(unconfirmed.code, Some(3));
    assert!(unconfirmed.out.contains("Waiting for the confirmation text \"YES, NOW\""), "{}", unconfirmed.out);
    let wrong = place.call(&["resume", "--confirm", "yes, now"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    place.write("answers.toml", "");
    place.call(&["resume", "--confirm", "YES, NOW"]).done();
    // An edit voids the rehearsal.
    let text = place.read("RUNBOOK.md");
    place.write("RUNBOOK.md", &format!("{text}\nOne more word.\n"));
    assert_eq!(place.call(&["run", "RUNBOOK.md", "--confirm", "YES, NOW"]).code, Some(3));
}

#[tokio::test]
async fn chain_is_run_without_a_runbook() {
    let place = Place::new().await;
    place.write("db/1_a.sql", "CREATE TABLE a (n int);\n");
    place.write("db/1_a.down.sql", "DROP TABLE a;\n");
    place.write("db/2_b.sql", "ALTER TABLE a ADD m int;\n");
    let dry = place.call(&["migrate", "up", "db", "--dry-run"]).done();
    assert!(
        dry.out.contains("1_a.sql: ran, and was rolled back") && dry.out.ends_with("Nothing was changed.\n"),
        "{}",
        dry.out
    );
    assert!(place.call(&["migrate", "up", "db"]).done().out.ends_with("2 applied\n"));
    assert_eq!(place.call(&["migrate", "up", "db"]).done().out, "Nothing to do.\n");
    let status = place.call(&["migrate", "status", "db"]).done();
    assert!(status.out.contains("✓ 1 a ") && status.out.contains("✓ 2 b "), "{}", status.out);
    let down = place.call(&["migrate", "down", "db", "--to", "0"]);
    assert_eq!(down.code, Some(2));
    assert!(down.err.contains("2 b has no down file"), "{}", down.err);
    place.call(&["migrate", "baseline", "db", "--forget", "2"]).done();
    place.write("db/1_a.sql", "CREATE TABLE a (n int, more int);\n");
    let edited = place.call(&["migrate", "status", "db"]);
    assert_eq!(edited.code, Some(1));
    assert!(edited.out.contains("+CREATE TABLE a (n int, more int);"), "{}", edited.out);
    place.call(&["migrate", "baseline", "db", "--accept", "1"]).done();
    place.call(&["migrate", "status", "db"]).done();
}

#[tokio::test]
async fn backup_is_made_and_put_back() {
    let place = Place::new().await;
    place.execute("CREATE TABLE t AS SELECT 1 AS n").await;
    place.call(&["backup", "before.dump", "--verify", "restore"]).done();
    assert_eq!(place.call(&["backup", "before.dump"]).code, Some(2), "a backup is never overwritten");
    place.execute("DELETE FROM t").await;
    let asked = place.call(&["restore", "before.dump"]);
    assert_eq!(asked.code, Some(2));
    assert!(asked.err.contains("--yes"), "{}", asked.err);
    place.call(&["restore", "before.dump", "--yes"]).done();
    assert_eq!(place.value("SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn signals_stop_after_the_step_or_cancel_it() {
    let place = Place::new().await;
    let text = "# T\n\n## P\n\n```sql step\n-- check: slow    target: main\n-- expect: 1 row\nSELECT pg_sleep(SECONDS);\n```\n\n```sql step\n-- check: next    target: main\n-- expect: 1 row\nSELECT 1;\n```\n";
    let told = |signal: &str, process: u32| {
        std::process::Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
    };
    let under_way = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(%' AND pid <> pg_backend_pid() \
        AND datname = current_database()";
    for (seconds, signal, times) in [("2.5", "-INT", 1), ("60", "-INT", 2), ("60", "-TERM", 1), ("60", "-HUP", 1)] {
        place.write("RUNBOOK.md", &text.replace("SECONDS", seconds));
        let mut command = place.command(&["run", "RUNBOOK.md"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        while place.value(under_way).await == "0" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        // The second until it is heard: a machine that is busy may take two for one.
        let mut sent = 0;
        while sent < times || (times > 1 && child.try_wait().unwrap().is_none()) {
            told(signal, child.id());
            sent += 1;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        let said = crate::place::Said::of(child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(1), "{signal}: {}\n{}", said.out, said.err);
        assert!(said.out.contains("Stopped: ") && said.out.contains("pgrunbook resume "), "{signal}: {}", said.out);
        assert_eq!(said.out.contains("✓ slow"), seconds != "60", "{signal}: {}", said.out);
        assert!(!said.out.contains("✓ next"), "{signal}: {}", said.out);
    }
}

#[tokio::test]
async fn terminal_that_is_gone_is_none_of_the_business_of_a_run_under_nohup() {
    let place = Place::new().await;
    let text =
        "# T\n\n## P\n\n```sql step\n-- check: slow    target: main\n-- expect: 1 row\nSELECT pg_sleep(1.5);\n```\n";
    place.write("RUNBOOK.md", text);
    let mut command = std::process::Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_pgrunbook")).args(["run", "RUNBOOK.md"]).current_dir(place.path(""));
    command.envs(place.env.clone()).env("HOME", place.path(""));
    command.stdin(std::process::Stdio::null());
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while place.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(%' AND pid <> pg_backend_pid() AND datname = current_database()").await == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    let said = crate::place::Said::of(child.wait_with_output().unwrap()).done();
    assert!(said.out.contains("✓ slow"), "{}", said.out);
}

#[tokio::test]
async fn journal_lives_in_another_cluster_and_not_in_the_target() {
    let elsewhere = pgrunbook_postgres::sandbox::Sandbox::start(Default::default()).await.unwrap();
    let mut place = Place::new().await;
    place.call(&["init"]).done();
    place.write("pgrunbook.toml", "[targets.main]\nurl = \"env:DATABASE_URL\"\n[journal]\nurl = \"env:JOURNAL_URL\"\n");
    place.env.push(("JOURNAL_URL".to_owned(), elsewhere.url()));
    place.call(&["run", "RUNBOOK.md"]).done();
    assert!(place.call(&["status"]).done().out.contains("  completed  "));
    place.call(&["rollback"]).done();
    assert!(!place.path(".pgrunbook/journal.db").exists());
    place.env.retain(|(name, _)| name != "JOURNAL_URL");
    let url = pgrunbook_postgres::sandbox::url(&place.database);
    place.env.push(("JOURNAL_URL".to_owned(), url));
    let refused = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("the journal lives in the cluster of target `main`"), "{}", refused.err);
}

#[tokio::test]
async fn prose_becomes_a_proposal_that_is_read_without_errors() {
    let place = Place::new().await;
    place.write(
        "PROSE.md",
        "# Move it\n\n## Before\n\nBefore any switch:\n\n1. Tell the team\n2. Stop the workers\n\n## Check\n\n```sql\nSELECT count(*) FROM t;\n```\n\nExpected: 0 rows\n\n## Rollback\n\n```bash\npg_restore -d app backups/[TIMESTAMP].dump\n```\n",
    );
    let said = place.call(&["adopt", "PROSE.md"]).done();
    assert!(
        said.out.contains("rollback-placeholder") && said.out.contains("these 2 lines become checklist items"),
        "{}",
        said.out
    );
    assert!(said.out.contains("PROSE.proposal.md: 1 steps and 2 checklist lines."), "{}", said.out);
    assert!(place.read("PROSE.proposal.md").contains("- [ ] Stop the workers"));
    place.call(&["lint", "PROSE.proposal.md"]).done();
    assert_eq!(place.call(&["adopt", "PROSE.md"]).code, Some(2), "a proposal that was edited is not overwritten");
}

#[tokio::test]
async fn second_operator_is_told_who_is_at_work_and_watches() {
    let place = Place::new().await;
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: slow    target: main\n-- undo: none: a test\nSELECT pg_sleep(5);\n```\n",
    );
    let first = place.command(&["run", "RUNBOOK.md"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    while place
        .value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
        .await
        == "0"
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let second = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(second.code, Some(2), "{}", second.out);
    assert!(
        second.err.contains("is already under way: anna@") && second.err.contains("It stands at step `slow`."),
        "{}",
        second.err
    );
    assert!(second.err.contains("help: `pgrunbook watch "), "{}", second.err);
    let run =
        second.err.split_whitespace().find(|word| word.starts_with("2") && word.contains('-')).unwrap().to_owned();
    let watched = place.call(&["watch", &run]).done();
    assert!(watched.out.contains("✓ slow") && watched.out.contains("Completed."), "{}", watched.out);
    assert!(first.wait_with_output().unwrap().status.success());
}

#[tokio::test]
async fn protected_environment_takes_no_answers_in_advance() {
    let place = Place::new().await;
    place.write("RUNBOOK.md", "# T\n\n## P\n\n- [ ] The window is open\n");
    place.write(
        "pgrunbook.toml",
        "[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.production]\nprotected = true\n",
    );
    place.write("answers.toml", "\"The window is open\" = \"confirmed\"\n");
    let said = place.call(&["run", "RUNBOOK.md", "--answers", "answers.toml"]);
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(
        said.err.contains("environment `production` is protected: checklist items cannot be answered in advance there"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn sandbox_that_a_crash_left_is_swept_up() {
    let place = Place::new().await;
    let name = format!("swept-{}", std::process::id());
    let mut owner = place
        .command(&["sandbox", "up", "--name", &name, "--format", "plain"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(owner.stdout.take().unwrap()), &mut url).unwrap();
    assert!(url.starts_with("postgres://"), "{url}");
    assert!(place.call(&["sandbox", "list"]).done().out.lines().any(|line| line == name));
    owner.kill().unwrap();
    owner.wait().unwrap();
    // Whoever starts another one, sweeps; also another test that runs beside this one.
    let other = pgrunbook_postgres::sandbox::Sandbox::start(Default::default()).await.unwrap();
    // Who sweeps it may be another, who is still at it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while place.call(&["sandbox", "list"]).done().out.lines().any(|line| line == name) {
        assert!(std::time::Instant::now() < deadline, "{name} is still there");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    drop(other);
}

#[tokio::test]
async fn rehearsal_begins_with_a_dump() {
    let place = Place::new().await;
    place.execute("CREATE TABLE there AS SELECT 7 AS n").await;
    place.call(&["backup", "start.dump"]).done();
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- check: there    target: main\n-- expect: value = 7\nSELECT n FROM there;\n```\n",
    );
    assert_eq!(place.call(&["rehearse", "RUNBOOK.md"]).code, Some(1), "without it the table is not there");
    let said = place.call(&["rehearse", "RUNBOOK.md", "--from", "start.dump"]).done();
    assert!(said.out.contains("Rehearsed forward and back."), "{}", said.out);
}

#[tokio::test]
async fn chain_begins_at_a_baseline() {
    let place = Place::new().await;
    place.write("db/1_a.sql", "CREATE TABLE a (n int);\n");
    place.write("db/2_b.sql", "CREATE TABLE b (n int);\n");
    place.execute("CREATE TABLE a (n int)").await;
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(1), "it was made by hand");
    place.call(&["migrate", "baseline", "db", "--at", "1"]).done();
    assert!(place.call(&["migrate", "up", "db"]).done().out.ends_with("1 applied\n"));
    assert_eq!(place.call(&["migrate", "baseline", "db", "--at", "2"]).code, Some(2), "it has a history now");
}

#[tokio::test]
async fn command_that_is_printed_goes_on_as_it_is() {
    let place = Place::new().await;
    place.write("here/RUNBOOK.md", "# T\n\n## P\n\n- [ ] Somebody looked\n");
    place.write(
        "here/pgrunbook.toml",
        "[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.staging]\n[environments.production]\n",
    );
    place.write("answers.toml", "\"Somebody looked\" = \"confirmed\"\n");
    let waits = place.call(&["run", "here/RUNBOOK.md", "--project", "here", "-e", "staging", "--as", "anna o'hara"]);
    assert_eq!(waits.code, Some(3), "{}", waits.err);
    let command = waits.out.lines().find_map(|line| line.trim().strip_suffix(" --answers FILE")).unwrap();
    assert!(command.ends_with(r" --project here --environment staging --as 'anna o'\''hara'"), "{command}");
    // A shell reads it as it was meant.
    let words = command.strip_prefix("pgrunbook ").unwrap();
    let script = format!("exec \"$0\" {words} --answers answers.toml");
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_pgrunbook")]).current_dir(place.folder.path()).env_clear();
    shell.env("USER", "somebody").envs(place.env.iter().map(|(name, value)| (name, value)));
    let said = crate::place::Said::of(shell.stdin(std::process::Stdio::null()).output().unwrap()).done();
    assert!(said.out.contains("confirmed by anna o'hara (answered in advance)"), "{}", said.out);
}

#[tokio::test]
async fn resume_without_a_name_never_guesses_between_two_runs() {
    let place = Place::new().await;
    place.execute("CREATE TABLE effects (n int)").await;
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: once    target: main\n-- undo: none: a test\nINSERT INTO effects VALUES (1);\n```\n\n- [ ] Somebody looked\n",
    );
    assert_eq!(place.call(&["run", "RUNBOOK.md"]).code, Some(3));
    let first = place.run_id();
    assert_eq!(place.call(&["run", "RUNBOOK.md"]).code, Some(3));
    let said = place.call(&["resume"]);
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(said.err.contains("error: 2 runs are open; nothing was touched\n  help: say which"), "{}", said.err);
    assert!(said.err.contains(&format!("  {first}  T\n")), "{}", said.err);
    assert_eq!(place.call(&["resume", &first]).code, Some(3));
    assert_eq!(place.value("SELECT count(*) FROM effects").await, "2");
}

/// Whoever kills a run that has just begun, and takes it back, does not mean the one that completed before it.
#[tokio::test]
async fn rollback_without_a_name_takes_back_no_run_before_the_newest() {
    let place = Place::new().await;
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: once    target: main    undo: away\nCREATE TABLE effects (n int);\n```\n\n\
         ```sql undo\n-- apply: away    target: main\nDROP TABLE effects;\n```\n",
    );
    place.write(
        "NEXT.md",
        "# Next\n\n## P\n\n```sql step\n-- check: it-is-there    target: main\nSELECT n FROM effects;\n```\n",
    );
    place.call(&["run", "RUNBOOK.md"]).done();
    let first = place.run_id();
    assert_eq!(place.call_and_die(&["run", "NEXT.md"], 2).code, None);
    let killed = place.run_id();
    assert_ne!(killed, first);
    let said = place.call(&["rollback", "--path", "undo"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let wanted = format!(
        "error: the newest run, {killed} (Next), was never taken up and changed nothing; nothing was touched\n  \
        help: to take back the one before it, T: pgrunbook rollback {first}\n"
    );
    assert_eq!(said.err, wanted);
    assert_eq!(place.value("SELECT to_regclass('effects') IS NULL").await, "f");
    place.call(&["rollback", &first, "--path", "undo"]).done();
    assert_eq!(place.value("SELECT to_regclass('effects') IS NULL").await, "t");
}

#[tokio::test]
async fn run_that_is_meant_without_a_name_is_one_of_the_environment() {
    let mut place = Place::new().await;
    place.env.push(("PGRUNBOOK_ENVIRONMENT".to_owned(), "production".to_owned()));
    place.write("pgrunbook.toml", "[targets.main]\n[environments.staging]\n[environments.production]\n");
    place.write("RUNBOOK.md", "# T\n\n## P\n\n- [ ] Somebody looked\n");
    assert_eq!(place.call(&["run", "RUNBOOK.md"]).code, Some(3));
    let first = place.run_id();
    assert_eq!(place.call(&["--environment", "staging", "run", "RUNBOOK.md"]).code, Some(3));
    let said = place.call(&["resume"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.contains(&format!("Run {first}: T")), "{said:?}");
}

#[tokio::test]
async fn run_that_was_refused_at_the_door_is_not_the_one_to_resume() {
    let place = Place::new().await;
    place.execute("CREATE TABLE effects (n int); CREATE TABLE patience AS SELECT 60 AS seconds").await;
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: slow    target: main\n-- undo: none: a test\nINSERT INTO effects VALUES (1);\nSELECT pg_sleep(seconds) FROM patience;\n```\n",
    );
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    let mut first = place.command(&["run", "RUNBOOK.md"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    while place.value(asleep).await == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let run = place.run_id();
    let second = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(second.code, Some(2), "{}", second.out);
    first.kill().unwrap();
    first.wait().unwrap();
    place.execute("UPDATE patience SET seconds = 0").await;
    place
        .value(
            "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        )
        .await;
    let resumed = place.call(&["resume"]).done();
    assert!(resumed.out.contains(&format!("Run {run}: T")), "{}", resumed.out);
    assert_eq!(place.value("SELECT count(*) FROM effects").await, "1");
}

#[test]
fn reader_that_has_gone_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    for (args, code) in [("init", 0), ("completions bash", 0), ("man", 0), ("lint RUNBOOK.md", 0)] {
        // The reader closes its end before the program writes.
        let script = format!(
            "{{ while [ ! -e gone ]; do sleep 0.01; done; \"$0\" {args} 2>err; echo $? >code; }} | {{ exec <&-; : >gone; }}"
        );
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_pgrunbook")]).current_dir(folder.path());
        shell.status().unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("code").trim(), read("err").as_str()), (code.to_string().as_str(), ""), "{args}");
        std::fs::remove_file(folder.path().join("gone")).unwrap();
    }
}

#[tokio::test]
async fn json_stays_json_beside_a_broken_run() {
    let place = Place::new().await;
    place.call(&["init"]).done();
    place.call(&["run", "RUNBOOK.md"]).done();
    let journal = rusqlite::Connection::open(place.path(".pgrunbook/journal.db")).unwrap();
    journal
        .execute_batch("DROP TRIGGER event_is_never_updated; UPDATE event SET event = replace(event, 'anna', 'olga') WHERE seq = 2;")
        .unwrap();
    drop(journal);
    let said = place.call(&["status", "--format", "json"]).done();
    let line: serde_json::Value = serde_json::from_str(said.out.trim()).unwrap();
    assert!(line["error"].as_str().unwrap().contains("is broken at event 2"), "{line}");
}

#[tokio::test]
async fn sandbox_is_of_the_version_that_was_asked_for() {
    let place = Place::new().await;
    let major = crate::place::cluster().await.major();
    let (name, asked) = (format!("asked-{}", std::process::id()), major.to_string());
    let said =
        place.call(&["sandbox", "up", "--version", &asked, "--detach", "--name", &name, "--format", "json"]).done();
    let line: serde_json::Value = serde_json::from_str(said.out.trim()).unwrap();
    assert_eq!(line["major"], major);
    place.call(&["sandbox", "down", &name]).done();

    let said = place.call(&["sandbox", "up", "--version", "9"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.starts_with("error: PostgreSQL 9 is not installed; there is "), "{}", said.err);
    assert!(said.err.contains(&format!("{major} (/")), "{}", said.err);
    assert!(
        said.err.contains("\n  help: take one that is there, or install it: apt install postgresql-9 "),
        "{}",
        said.err
    );
}

#[test]
fn pooler_user_without_a_password_is_refused() {
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_pgrunbook"))
        .args(["sandbox", "up", "--pooler", "app"])
        .output()
        .unwrap();
    let said = crate::place::Said::of(said);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("it is not USER:PASSWORD"), "{}", said.err);
}
