//! Bad input and bad nights: one clear sentence, the right exit code, nothing lost.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, url};

use crate::place::{Place, Said, cluster};

/// The template's project and runbook.
async fn place() -> Place {
    let place = Place::new().await;
    place.call(&["init"]).done();
    place
}

fn pointed_at(place: &mut Place, options: &ConnectOptions) {
    place.env = vec![("DATABASE_URL".to_owned(), url(options))];
}

/// What it said on standard error, with what differs from call to call left out.
fn plain(said: &Said, options: &ConnectOptions) -> String {
    said.err.replace(&options.to_string(), "ADDRESS")
}

#[tokio::test]
async fn server_that_does_not_answer() {
    let mut place = place().await;
    let mut options = place.database.clone();
    options.hosts[0].port = 1;
    pointed_at(&mut place, &options);
    let said = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!(plain(&said, &options), @r"
    error: target `main`: no PostgreSQL server answers at ADDRESS: Connection refused (os error 111). Nothing was changed.
      help: check host and port, that the server runs, and that its pg_hba.conf and firewall let you in
    ");
}

#[tokio::test]
async fn wrong_password_and_missing_role() {
    let mut place = place().await;
    let wrong = ConnectOptions { password: Some("s3cr3t-and-wrong".to_owned()), ..place.database.clone() };
    pointed_at(&mut place, &wrong);
    let said = place.call(&["plan", "RUNBOOK.md"]);
    assert_eq!(said.code, Some(2));
    assert!(!format!("{}{}", said.out, said.err).contains("s3cr3t"), "{}", said.err);
    insta::assert_snapshot!(plain(&said, &wrong), @r#"
    error: target `main`: ADDRESS refused the connection: password authentication failed for user "postgres". Nothing was changed.
      help: check the password: PGPASSWORD, ~/.pgpass, or the reference in pgrunbook.toml
    "#);
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- check: c    target: main    as: nobody_here\n-- expect: 1 row\nSELECT 1;\n```\n",
    );
    let right = place.database.clone();
    pointed_at(&mut place, &right);
    let said = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("the connection's role cannot become `nobody_here`: role \"nobody_here\" does not exist"),
        "{}",
        said.out
    );
    assert!(said.out.contains("help: GRANT nobody_here TO the role that connects"), "{}", said.out);
}

#[tokio::test]
async fn read_only_replica() {
    let primary = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let standby = primary.standby().await.unwrap();
    let mut place = place().await;
    pointed_at(&mut place, &standby.options());
    // The template's own check would stop it earlier.
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: a    target: main\n-- undo: none: a test\nCREATE TABLE a ();\n```\n",
    );
    let said = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(said.err.contains("is a standby and takes no writes. Nothing was changed."), "{}", said.err);
    assert!(said.err.contains("target_session_attrs=read-write"), "{}", said.err);
}

/// A way to the server on which a connection is cut as soon as it asks something after it was let in.
fn cut_off(options: &ConnectOptions) -> ConnectOptions {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, server) = (listener.local_addr().unwrap().port(), options.hosts[0].port);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)) else { return };
            let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let mut message = [0; 8192];
            // The startup message begins with its length, and `p` is the password's: the next is a question.
            while let Ok(length @ 1..) = client.read(&mut message) {
                if !matches!(message[0], 0 | b'p') || server.write_all(&message[..length]).is_err() {
                    break;
                }
            }
            for stream in [&client, &server] {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    });
    let mut way = options.clone();
    way.hosts[0].port = port;
    way
}

#[tokio::test]
async fn connection_that_is_lost_while_planning_is_no_doubt() {
    let mut place = place().await;
    let way = cut_off(&place.database);
    pointed_at(&mut place, &way);
    for command in ["plan", "run"] {
        let said = place.call(&[command, "RUNBOOK.md"]);
        assert_eq!(said.code, Some(2), "{command}: {}{}", said.out, said.err);
        assert!(said.err.contains("was lost: ") && said.err.contains(". Nothing was changed."), "{}", said.err);
        assert!(said.err.contains("help: say it again once the server answers"), "{}", said.err);
    }
    assert_eq!(place.call(&["status"]).out, "", "no run was begun");
}

#[tokio::test]
async fn environment_that_does_not_exist() {
    let place = place().await;
    let said = place.call(&["plan", "RUNBOOK.md", "-e", "prod"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(2), "error: there is no environment `prod` in pgrunbook.toml: it declares none\n")
    );
}

#[tokio::test]
async fn target_that_is_not_the_one_planned_for() {
    let mut place = place().await;
    place.call(&["plan", "RUNBOOK.md", "--out", "plan.json"]).done();
    let other = cluster().await.fresh_database("other").await.unwrap();
    pointed_at(&mut place, &other);
    let said = place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("the plan does not fit any more: target `main` was postgres://"), "{}", said.err);
    assert!(said.err.contains("nothing was touched"), "{}", said.err);
    assert_eq!(place.call(&["status"]).out, "", "no run was begun");
}

#[tokio::test]
async fn plan_that_was_edited() {
    let place = place().await;
    place.call(&["plan", "RUNBOOK.md", "--out", "plan.json"]).done();
    let plan = place.read("plan.json");
    place.write("plan.json", &plan.replace("body text NOT NULL", "body text"));
    let said = place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("plan.json was edited: its digest is not that of its content. Nothing was touched"),
        "{}",
        said.err
    );
    place.write("plan.json", "{");
    assert_eq!(place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]).code, Some(2));
}

#[tokio::test]
async fn chain_that_was_broken() {
    let place = place().await;
    place.call(&["run", "RUNBOOK.md"]).done();
    let run = place.run_id();
    let journal = rusqlite::Connection::open(place.path(".pgrunbook/journal.db")).unwrap();
    journal
        .execute_batch(
            "DROP TRIGGER event_is_never_updated; UPDATE event SET event = replace(event, 'anna', 'olga') WHERE seq = 2;",
        )
        .unwrap();
    drop(journal);
    for args in [vec!["rollback", "--path", "undo"], vec!["status", &run], vec!["report", &run]] {
        let said = place.call(&args);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.out);
        assert!(
            said.err.contains("is broken at event 2") && said.err.contains("nothing was touched"),
            "{args:?}: {}",
            said.err
        );
    }
    assert_eq!(place.value("SELECT count(*) FROM notes").await, "0");
}

#[tokio::test]
async fn disk_that_is_full_under_the_journal() {
    let place = place().await;
    place.call(&["plan", "RUNBOOK.md"]).done();
    // The limit of a file's size stands for the disk: the write fails in the same place, with EFBIG for ENOSPC.
    for blocks in [60, 100, 140] {
        let program = env!("CARGO_BIN_EXE_pgrunbook");
        let mut command = place.command(&[]);
        let mut shell = std::process::Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"",
                "sh",
                &blocks.to_string(),
                program,
                "run",
                "RUNBOOK.md",
            ])
            .current_dir(place.folder.path())
            .env_clear()
            .envs(command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))))
            .stdin(std::process::Stdio::null());
        command.args(["--version"]);
        let said = Said::of(shell.output().unwrap());
        if said.code == Some(0) {
            // Enough after all; back for the next round.
            place.call(&["rollback", "--path", "undo"]).done();
            continue;
        }
        assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
        assert!(said.err.contains("journal.db cannot be"), "{}", said.err);
        assert!(said.err.contains("free space"), "{}", said.err);
        // With space again, nothing is lost: what was begun goes on.
        let open = place.call(&["status"]).out;
        if open.contains("open") || open.contains("unfinished") {
            place.call(&["resume"]).done();
            place.call(&["rollback", "--path", "undo"]).done();
        }
    }
}

#[tokio::test]
async fn server_that_dies_in_a_step() {
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let mut place = place().await;
    pointed_at(&mut place, &cluster.options());
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: a    target: main    undo: b\nCREATE TABLE a ();\nSELECT pg_sleep(30);\n```\n\n```sql undo\n-- apply: b    target: main\nDROP TABLE a;\n```\n",
    );
    let child = place
        .command(&["run", "RUNBOOK.md"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let session = pgrunbook_postgres::Session::connect(&cluster.options(), "test").await.unwrap();
    while session.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await.unwrap() == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.kill().unwrap();
    let said = Said::of(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.out.contains("✗ a  ") && said.out.contains("pgrunbook resume"), "{}", said.out);
    let down = place.call(&["resume"]);
    assert_eq!(down.code, Some(2), "{}{}", down.out, down.err);
    cluster.restart().unwrap();
    place.write("RUNBOOK.md", "# another\n");
    // The frozen text goes on, whatever became of the file; and this time it is left alone.
    let session = pgrunbook_postgres::Session::connect(&cluster.options(), "test").await.unwrap();
    assert_eq!(session.value("SELECT to_regclass('a') IS NULL").await.unwrap(), "t");
    place.call(&["rollback", "--path", "undo"]).done();
}

#[tokio::test]
async fn runbook_with_errors_is_shown_with_its_place() {
    let place = place().await;
    place.write("RUNBOOK.md", "# T\n\n## P\n\n```sql step\n-- chek: a    target: main\nSELECT 1;\n```\n");
    let said = place.call(&["run", "RUNBOOK.md"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("RUNBOOK.md:6:4") && said.err.contains("did you mean `check:`?"), "{}", said.err);
    assert!(said.err.ends_with("error: RUNBOOK.md has an error; nothing was touched\n"), "{}", said.err);
    for (format, mark) in
        [("json", "[{\"code\":"), ("github", "::error file=RUNBOOK.md,line=6"), ("sarif", "\"version\": \"2.1.0\"")]
    {
        let said = place.call(&["lint", "RUNBOOK.md", "--format", format]);
        assert_eq!(said.code, Some(2));
        assert!(said.out.contains(mark), "{}", said.out);
    }
}

#[tokio::test]
async fn variable_that_is_not_set_is_named_and_the_others_are_not_needed() {
    let place = place().await;
    place.write(
        "pgrunbook.toml",
        "[targets.main]\nurl = \"env:DATABASE_URL\"\n[targets.other]\nurl = \"env:NOT_SET\"\n",
    );
    place.call(&["run", "RUNBOOK.md"]).done();
    let text = place.read("RUNBOOK.md").replace("target: main", "target: other").replace("[\"main\"]", "[\"other\"]");
    place.write("RUNBOOK.md", &text);
    let said = place.call(&["plan", "RUNBOOK.md"]);
    assert_eq!(said.code, Some(2));
    assert_eq!(
        said.err,
        "error: target `other`: the environment variable NOT_SET is not set\n  help: set it, or write another reference in pgrunbook.toml\n"
    );
}

#[tokio::test]
async fn target_that_drifted_since_the_plan() {
    let place = place().await;
    place.write("db/1_a.sql", "CREATE TABLE a (n int);\n");
    place.write("db/2_b.sql", "CREATE TABLE b (n int);\n");
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```toml step\nmigrate = \"load\"\ntarget = \"main\"\nchain = \"db\"\nundo = \"none: a test\"\n```\n",
    );
    place.call(&["plan", "RUNBOOK.md", "--out", "plan.json"]).done();
    place.call(&["migrate", "up", "db", "--to", "1"]).done();
    let said = place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("step `load`: chain db was nothing and is 1"), "{}", said.err);
    // A file of the chain that was edited is content that moved.
    place.call(&["plan", "RUNBOOK.md", "--out", "plan.json"]).done();
    place.write("db/2_b.sql", "CREATE TABLE b (n bigint);\n");
    let said = place.call(&["run", "RUNBOOK.md", "--plan", "plan.json"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("db/2_b.sql was edited"), "{}", said.err);
}

#[tokio::test]
async fn way_back_that_is_blocked_says_what_is_left_and_goes_on_when_mended() {
    let place = place().await;
    place.write(
        "RUNBOOK.md",
        "# T\n\n## P\n\n```sql step\n-- apply: one    target: main    undo: no-one\nCREATE TABLE one ();\n```\n\n```sql undo\n-- apply: no-one    target: main\nDROP TABLE one;\n```\n\n```sql step\n-- apply: two    target: main    undo: no-two\nCREATE TABLE two ();\n```\n\n```sql undo\n-- apply: no-two    target: main\nDROP TABLE two;\n```\n",
    );
    place.call(&["run", "RUNBOOK.md"]).done();
    place.execute("CREATE VIEW on_one AS SELECT FROM one").await;
    let blocked = place.call(&["rollback", "--path", "undo"]);
    assert_eq!(blocked.code, Some(1));
    assert!(blocked.out.contains("The way back is blocked at `one`. Undone: two. Left: one."), "{}", blocked.out);
    assert!(blocked.out.contains("other objects depend on it"), "{}", blocked.out);
    // There is no way forward any more; the way back goes on.
    place.execute("DROP VIEW on_one").await;
    let resumed = place.call(&["resume"]).done();
    assert!(resumed.out.contains("✓ undo one") && resumed.out.contains("Rolled back."), "{}", resumed.out);
}
