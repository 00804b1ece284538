//! Five tenants in one database.

use std::path::Path;

use crate::project::Project;

const PASSWORDS: &[&str] = &[
    "BUTLER_MIGRATOR_PASSWORD",
    "BUTLER_SWITCHBOARD_PASSWORD",
    "BUTLER_GENERAL_PASSWORD",
    "BUTLER_RELATIONSHIP_PASSWORD",
    "BUTLER_HEALTH_PASSWORD",
    "BUTLER_MESSENGER_PASSWORD",
];

fn butlers(test: &str) -> Project {
    Project::new("butlers", test, "local", "BUTLERS_DATABASE_URL", PASSWORDS).of("TOPOLOGY.md")
}

#[test]
fn what_is_there_already_is_left_as_it_is_and_what_nobody_declared_is_taken_back() {
    let project = butlers("twice");
    project.done(&["lint", "TOPOLOGY.md", "RUNBOOK.md"]);
    project.run();
    let said = project.run();
    assert!(said.contains("✓ roles  nothing was to be changed"), "{said}");
    assert!(said.contains("✓ tenants  everything was there"), "{said}");

    project.sql(
        "CREATE ROLE reporting; GRANT USAGE ON SCHEMA general TO reporting; GRANT SELECT ON general.state TO reporting;
         GRANT reporting TO butler_health_app",
    );
    let health = project.url_of("butler_health_app", "BUTLER_HEALTH_PASSWORD");
    let read = "SELECT key FROM general.state";
    assert!(project.psql(&health, read).status.success(), "the leak that is planted is one");
    // The butler is no member any more; the stranger himself is named, and is for a person to judge.
    project.stops_at("effective-access", "a stranger reads general.state");
    let refused = project.psql(&health, read);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("permission denied for schema general"), "{error}");
    project.sql("DROP OWNED BY reporting; DROP ROLE reporting");
    project.run();

    // Going back leaves the tenants: what they have kept is theirs.
    project.back("undo");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname IN (SELECT schema_name FROM shared.registry)";
    assert_eq!(project.sql(schemas), "5");
}

#[test]
fn every_gate_that_is_not_mended_by_the_run_itself_can_fail() {
    let project = butlers("gates");
    project.run();
    let owner = "SET ROLE butler_owner;";
    for (step, plant, mend) in [
        // The audit sees it before the query of the section does.
        ("effective-access", "CREATE DATABASE butler_general", "DROP DATABASE butler_general"),
        (
            "store",
            "ALTER TABLE shared.butler_secrets NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE shared.butler_secrets FORCE ROW LEVEL SECURITY",
        ),
        (
            "approved-keys-are-read",
            "CREATE POLICY oops ON shared.butler_secrets FOR SELECT USING (true)",
            "DROP POLICY oops ON shared.butler_secrets",
        ),
        ("roles-by-name", "CREATE ROLE butler_stranger_app", "DROP ROLE butler_stranger_app"),
        (
            "roles-by-name",
            "INSERT INTO shared.registry (butler, schema_name, runtime_role) VALUES ('ghost', 'ghost', 'butler_ghost_app')",
            "DELETE FROM shared.registry WHERE butler = 'ghost'",
        ),
        (
            "approvals",
            "INSERT INTO shared.secret_approvals (butler, secret_key) VALUES ('general', 'scale.token')",
            "DELETE FROM shared.secret_approvals WHERE butler = 'general' AND secret_key = 'scale.token'",
        ),
    ] {
        let role = if plant.starts_with("INSERT") { owner } else { "" };
        let command = |sql: &str| if role.is_empty() { sql.to_owned() } else { format!("{role} {sql}") };
        project.sql(&command(plant));
        project.stops_at(step, plant);
        project.sql(&command(mend));
    }
    project.run();
}

#[test]
fn leftover_of_many_databases_is_found_in_what_a_butler_is_started_with() {
    let project = butlers("leftover");
    let path = project.folder.join("deploy/health.env");
    let whole = std::fs::read_to_string(&path).unwrap();
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = project.program(Path::new("./config-check"), &["butlers", "_app"], &[]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&whole).0, Some(0));
    for (line, wanted) in [
        ("POSTGRES_DB=butler_health", "POSTGRES_DB names another database"),
        ("PGDATABASE='butler_health'", "PGDATABASE names another database"),
        ("export BUTLER_HEALTH_DATABASE_URL=hidden", "BUTLER_HEALTH_DATABASE_URL is a legacy fallback"),
        ("BUTLER_SHARED_DB_NAME=butler_shared", "BUTLER_SHARED_DB_NAME is a legacy fallback"),
        ("BUTLER_LEGACY_SHARED_DB_NAME=", "BUTLER_LEGACY_SHARED_DB_NAME is a legacy fallback"),
        ("DATABASE_URL=postgres://butler_health_app:hidden@db/butler_health", "leads to another database"),
        ("DATABASE_URL=postgres://postgres:hidden@db/butlers", "the user must be the butler's own role"),
        ("DATABASE_URL=postgres://butler_health_app:hidden@db/butlers?sslmode=disable", "disagree about sslmode"),
        ("POSTGRES_USER=butler_general_app", "the user must be the butler's own role"),
        ("POSTGRES_PASSWORD=", "neither DATABASE_URL nor POSTGRES_PASSWORD is set"),
    ] {
        let (code, said) = check(&format!("{whole}{line}\n"));
        assert_eq!(code, Some(1), "{line}");
        assert!(said.contains(wanted) && !said.contains("hidden"), "{line}: {said}");
    }
    std::fs::remove_file(&path).unwrap();
    let (code, said) = (project.program(Path::new("./config-check"), &["butlers", "_app"], &[]), "no file");
    assert_eq!(code.status.code(), Some(1), "{said}");
    std::fs::remove_dir_all(project.folder.join("roster")).unwrap();
    let nothing = project.program(Path::new("./config-check"), &["butlers", "_app"], &[]);
    assert_eq!(nothing.status.code(), Some(1), "nothing examined is no pass");
}

#[test]
fn secret_is_read_by_the_butlers_that_are_approved_and_by_no_other() {
    let project = butlers("secret");
    project.run();
    for butler in ["health", "switchboard", "general", "relationship"] {
        let made = project.program(Path::new("age-keygen"), &["-o", &format!("{butler}.key")], &[]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let public = project.program(Path::new("age-keygen"), &["-y", &format!("{butler}.key")], &[]);
        let public = String::from_utf8(public.stdout).unwrap();
        let update =
            format!("UPDATE shared.registry SET age_recipient = '{}' WHERE butler = '{butler}'", public.trim());
        project.sql(&format!("SET ROLE butler_owner; {update}"));
    }
    let secret = |butler: &str, command: &str| {
        let upper = butler.to_uppercase();
        let url = project.url_of(&format!("butler_{butler}_app"), &format!("BUTLER_{upper}_PASSWORD"));
        let identity = format!("{butler}.key");
        let more = [("BUTLER_DATABASE_URL", url.as_str()), ("BUTLER_AGE_IDENTITY", identity.as_str())];
        let output = project.program(Path::new("/bin/sh"), &["-c", command], &more);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let put = "printf 'a refresh token' | ./secret put oauth.google";
    let (stored, _, said) = secret("switchboard", put);
    assert!(stored, "{said}");
    let kept = project.sql("SELECT value FROM shared.butler_secrets");
    assert!(kept.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !kept.contains("a refresh token"), "{kept}");
    for reader in ["switchboard", "general", "relationship"] {
        let (read, value, said) = secret(reader, "./secret get oauth.google");
        assert!(read && value == "a refresh token", "{reader}: {value} {said}");
    }
    let (read, value, said) = secret("health", "./secret get oauth.google");
    assert!(!read && value.is_empty() && said.contains("no oauth.google here that this butler may read"), "{said}");
    let (stored, _, said) = secret("general", put);
    assert!(!stored && said.contains("row-level security"), "{said}");
    // The row alone is worth nothing to whoever gets hold of it.
    std::fs::write(project.folder.join("stolen"), format!("{kept}\n")).unwrap();
    let opened = project.program(Path::new("age"), &["-d", "-i", "health.key", "stolen"], &[]);
    assert!(!opened.status.success(), "{}", String::from_utf8_lossy(&opened.stdout));
}
