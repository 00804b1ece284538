//! That no command of PostgreSQL is forgotten: each is in a case, or in a table that says why it is in none.

use std::collections::BTreeSet;
use std::process::Command;

use pgrunbook_postgres::sandbox::Binaries;

use super::every_kind::CHANGES;
use super::{BASE, cluster};

/// Commands of which nothing stays in a database's catalogs that a drift could tell, and why.
const LEFT_OUT: &[(&str, &[&str])] = &[
    (
        "begins, ends or divides a transaction",
        &[
            "ABORT",
            "BEGIN",
            "COMMIT",
            "COMMIT PREPARED",
            "END",
            "LOCK",
            "PREPARE TRANSACTION",
            "RELEASE SAVEPOINT",
            "ROLLBACK",
            "ROLLBACK PREPARED",
            "ROLLBACK TO SAVEPOINT",
            "SAVEPOINT",
            "SET CONSTRAINTS",
            "SET TRANSACTION",
            "START TRANSACTION",
        ],
    ),
    (
        "is forgotten with the session",
        &[
            "CLOSE",
            "DEALLOCATE",
            "DECLARE",
            "DISCARD",
            "FETCH",
            "LISTEN",
            "LOAD",
            "MOVE",
            "NOTIFY",
            "PREPARE",
            "RESET",
            "SET",
            "SET ROLE",
            "SET SESSION AUTHORIZATION",
            "SHOW",
            "UNLISTEN",
        ],
    ),
    ("runs statements, which are found as themselves", &["CALL", "DO", "EXECUTE", "EXPLAIN"]),
    (
        "reads or changes rows",
        &["COPY", "DELETE", "INSERT", "MERGE", "SELECT", "TABLE", "TRUNCATE", "UPDATE", "VALUES", "WITH"],
    ),
    ("large objects are rows", &["ALTER LARGE OBJECT"]),
    ("how rows lie on the disk, and what the planner thinks of them", &["ANALYZE", "CHECKPOINT", "VACUUM"]),
    (
        "roles are the cluster's: topology declares, compares and makes them",
        &["ALTER GROUP", "CREATE GROUP", "CREATE ROLE", "CREATE USER", "DROP GROUP", "DROP ROLE", "DROP USER"],
    ),
    (
        "the cluster's, made with the server and by nobody here; what a database's settings and grants say of it is compared",
        &[
            "ALTER SYSTEM",
            "ALTER TABLESPACE",
            "CREATE DATABASE",
            "CREATE TABLESPACE",
            "DROP DATABASE",
            "DROP TABLESPACE",
        ],
    ),
    (
        "no provider can be loaded: sepgsql wants SELinux, and dummy_seclabel is in no package; what is offered is tried up to the \
         provider's answer, in `security_labels_are_told_with_what_sets_them`",
        &["SECURITY LABEL"],
    ),
];

/// The statements of the base and of all cases, in capitals, without words that name no other command.
fn statements() -> Vec<String> {
    let text: String = CHANGES
        .iter()
        .chain([&BASE])
        .flat_map(|text| text.lines())
        .filter(|line| !line.starts_with("--"))
        .collect::<Vec<_>>()
        .join(" ")
        .to_uppercase();
    // A database's name is in no statement that is written beforehand.
    let text = text.replace("EXECUTE FORMAT('", ";");
    let noise = ["OR", "REPLACE", "TRUSTED", "PROCEDURAL", "UNIQUE", "DEFAULT", "CONSTRAINT", "RECURSIVE", "UNLOGGED"];
    let bare = |statement: &str| {
        let mut words = statement.split_whitespace();
        let first = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.skip_while(|word| first == "CREATE" && noise.contains(word)).collect();
        format!("{first} {}", rest.join(" "))
    };
    text.split(';').map(bare).collect()
}

/// The command that a statement is: of several that it begins with, the longest.
fn command<'a>(statement: &str, all: &'a [String]) -> Option<&'a str> {
    let is = |name: &str| all.iter().find(|one| *one == name).map(String::as_str);
    if statement.starts_with("CREATE TABLE ") && statement.contains(" AS SELECT ") {
        return is("CREATE TABLE AS");
    }
    if statement.starts_with("SELECT ") && statement.contains(" INTO ") {
        return is("SELECT INTO");
    }
    let begins = |name: &&String| statement.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(' '));
    all.iter().filter(begins).max_by_key(|name| name.len()).map(String::as_str)
}

#[tokio::test]
async fn every_command_is_in_a_case_or_left_out_with_a_reason() {
    let sandbox = cluster().await;
    let psql = Binaries::of(sandbox.major()).unwrap().client("psql").unwrap();
    let asked =
        Command::new(psql).args(["-X", "-c", "\\h *"]).envs(sandbox.options().libpq_env()).env("LC_ALL", "C").output();
    let output = asked.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: Vec<String> =
        said.lines().filter_map(|line| line.strip_prefix("Command:")).map(|name| name.trim().to_owned()).collect();
    assert!(all.len() >= 185, "{all:?}");

    let statements = statements();
    let tried: BTreeSet<&str> = statements.iter().filter_map(|one| command(one, &all)).collect();
    let left_out: Vec<&str> = LEFT_OUT.iter().flat_map(|(_, commands)| commands.iter().copied()).collect();
    let forgotten: Vec<_> =
        all.iter().filter(|one| !tried.contains(one.as_str()) && !left_out.contains(&one.as_str())).collect();
    assert!(forgotten.is_empty(), "in no case, and no reason is given: {forgotten:?}");
    let unknown: Vec<_> = left_out.iter().filter(|one| !all.iter().any(|name| name == *one)).collect();
    assert!(unknown.is_empty(), "no command of PostgreSQL {}: {unknown:?}", sandbox.major());
    // What the cases do with rows and roles on their way is not what they are about.
    let about = |one: &&&str| {
        ["ALTER", "CREATE", "DROP", "COMMENT", "GRANT", "REVOKE"].iter().any(|verb| one.starts_with(verb))
    };
    let both: Vec<_> = left_out.iter().filter(about).filter(|one| tried.contains(**one)).collect();
    assert!(both.is_empty(), "left out, and in a case: {both:?}");
}
