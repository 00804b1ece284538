//! `topology` and `provision`, as they are typed.

use crate::place::Place;

async fn declared() -> (Place, String) {
    let mut place = Place::new().await;
    place.env.push(("PASSWORD".to_owned(), "hunter2".to_owned()));
    let name = place.database.database.clone();
    place.write(
        "pgrunbook.toml",
        "[project]\nenvironment = \"local\"\n[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.local]\n\
         [environments.production]\nprotected = true\n",
    );
    place.write(
        "topology.toml",
        &format!(
            "[database]\nowner = \"{name}_owner\"\n[tenants]\nlist = [\"a\", \"b\"]\n[schemas]\n\"{{tenant}}\" = {{}}\n\
             [roles.\"{name}_{{tenant}}\"]\nkind = \"runtime\"\npassword = \"env:PASSWORD\"\n\
             access = {{ \"{{tenant}}\" = \"all\" }}\n[[chain]]\nfolder = \"db/core\"\nschema = \"{{tenant}}\"\n\
             [[chain]]\nfolder = \"db/{{tenant}}\"\nschema = \"{{tenant}}\"\noptional = true\n"
        ),
    );
    place.write("db/core/1_notes.sql", "CREATE TABLE notes (id int);\n");
    place.write("db/core/1_notes.verify.sql", "-- expect: 0 rows\nSELECT * FROM notes;\n");
    place.write("db/b/1_more.sql", "CREATE TABLE more (id int);\n");
    (place, name)
}

#[tokio::test]
async fn plan_says_the_sql_and_apply_does_it() {
    let (place, name) = declared().await;
    let said = place.call(&["topology", "plan", "--check"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    for wanted in [
        format!("CREATE ROLE {name}_a LOGIN PASSWORD 'SCRAM of env:PASSWORD';"),
        "CREATE SCHEMA a AUTHORIZATION".to_owned(),
    ] {
        assert!(said.out.contains(&wanted), "{wanted}: {}", said.out);
    }
    assert_eq!(place.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'a'").await, "0");
    let said = place.call(&["topology", "apply"]).done();
    assert!(said.out.ends_with("Applied, in one transaction.\n"), "{}", said.out);
    assert!(!said.out.contains("hunter2") && !said.out.contains("SCRAM-SHA-256$"), "{}", said.out);
    let said = place.call(&["topology", "plan", "--check"]).done();
    assert_eq!(said.out, "Nothing to change: everything is as declared.\n");
    let said = place.call(&["topology", "plan", "--format", "json"]).done();
    let plan: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((plan["type"].as_str(), plan["statements"].as_array().map(Vec::len)), (Some("topology"), Some(0)));
    let said = place.call(&["topology", "import"]).done();
    assert!(said.out.contains(&format!("[roles.{name}_a]\nkind = \"runtime\"")), "{}", said.out);
}

#[tokio::test]
async fn provision_makes_everything_and_is_safe_to_run_again() {
    let (mut place, name) = declared().await;
    // A database that is not there yet.
    place.database = place.database.with_database(&format!("{name}_new"));
    place.env[0].1 = pgrunbook_postgres::sandbox::url(&place.database);
    let said = place.call(&["provision", "--only", "a"]).done();
    assert!(said.out.contains(&format!("CREATE DATABASE {name}_new")), "{}", said.out);
    assert!(said.out.contains("  db/core@a: 1"), "{}", said.out);
    let tables =
        "SELECT string_agg(schemaname || '.' || tablename || ' of ' || tableowner, ', ' ORDER BY schemaname, tablename)
        FROM pg_tables WHERE schemaname IN ('a', 'b')";
    assert_eq!(place.value(tables).await, format!("a.notes of {name}_owner"));
    place.call(&["provision"]).done();
    assert_eq!(
        place.value(tables).await,
        format!("a.notes of {name}_owner, b.more of {name}_owner, b.notes of {name}_owner")
    );
    assert_eq!(place.call(&["provision"]).done().out, "Everything was there.\n");
    place.call(&["topology", "plan", "--check"]).done();
    let said = place.call(&["provision", "--only", "c"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("`c` is not a tenant: there are a, b"), "{}", said.err);
}

#[tokio::test]
async fn protected_environments_are_changed_by_runbooks_alone() {
    let (place, _) = declared().await;
    for command in [
        &["topology", "apply"][..],
        &["provision"],
        &["migrate", "up", "db/core"],
        &["migrate", "down", "db/core", "--to", "0"],
        &["restore", "x.dump", "--yes"],
    ] {
        let said = place.call(&[command, &["--environment", "production"]].concat());
        assert_eq!(said.code, Some(2), "{command:?}: {}{}", said.out, said.err);
        assert!(said.err.contains("is refused in production, which is protected; nothing was touched"), "{}", said.err);
    }
    place.call(&["topology", "plan", "--environment", "production"]).done();
    place.call(&["migrate", "status", "db/core", "--environment", "production"]).done();
    assert_eq!(place.value("SELECT count(*) FROM pg_namespace WHERE nspname IN ('a', 'pgrunbook')").await, "0");
}

#[tokio::test]
async fn mistakes_in_the_declaration_name_their_line() {
    let (place, _) = declared().await;
    let text = place.read("topology.toml");
    place.write("topology.toml", &text.replace("kind = \"runtime\"", "kind = \"runtme\""));
    let said = place.call(&["topology", "plan"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("topology.toml:8: unknown variant `runtme`"), "{said:?}");
    place.write("topology.toml", &text.replace("\"a\", \"b\"", "\"a\\\"; drop schema x; --\""));
    let said = place.call(&["topology", "plan"]);
    assert!(said.err.contains("must be lower-case letters, digits and underscores"), "{}", said.err);
    std::fs::remove_file(place.path("topology.toml")).unwrap();
    let said = place.call(&["topology", "plan"]);
    assert!(said.err.contains("this project declares no topology"), "{}", said.err);
}

/// What continuous integration runs: nothing but the files.
#[tokio::test]
async fn verify_on_a_throwaway_server_compares_declared_read_and_tried() {
    let (place, name) = declared().await;
    let said = place.call(&["topology", "verify", "--ephemeral", "--format", "plain"]).done();
    for wanted in [
        "Nothing to change",
        "no errors, no warnings",
        "everything is as declared: 2 roles (2 by login)",
        "the three agree",
    ] {
        assert!(said.out.contains(wanted), "{wanted}: {}", said.out);
    }
    // The target was not touched.
    assert_eq!(place.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'a'").await, "0");
    // A migration opens a way that no grant shows: a function with its owner's rights.
    place.write(
        "db/b/2_peek.sql",
        "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n         AS 'SELECT count(*) FROM a.notes';\n",
    );
    let said = place.call(&["topology", "verify", "--ephemeral", "--format", "plain"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    for wanted in [
        "error[definer-reach]".to_owned(),
        format!("`{name}_b` -> EXECUTE `b.peek()` (rights of `{name}_owner`)"),
        "It is not as declared, or nobody can tell".to_owned(),
    ] {
        assert!(said.out.contains(&wanted), "{wanted}: {}", said.out);
    }
    let said = place.call(&["topology", "verify", "--ephemeral", "--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(found["holds"], false);
    assert_eq!(found["disagreements"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn lint_knows_the_roles_that_are_declared() {
    let (place, name) = declared().await;
    let step = |pattern: &str| {
        format!(
            "## Check\n\n```sql step\n-- check: roles    target: main\n-- expect: rows >= 1\n\
             SELECT rolname FROM pg_roles WHERE rolname LIKE '{pattern}';\n```\n"
        )
    };
    place.write("RUNBOOK.md", &step(&format!("{}\\_rw", name.replace('_', "\\_"))));
    let said = place.call(&["lint", "RUNBOOK.md"]).done();
    assert!(said.out.contains("none of the roles that the topology declares matches this pattern"), "{}", said.out);
    place.write("RUNBOOK.md", &step(&format!("{}\\__", name.replace('_', "\\_"))));
    let said = place.call(&["lint", "RUNBOOK.md"]).done();
    assert!(!said.out.contains("matches this pattern"), "{}", said.out);
}

/// The declaration names a pooler: PgBouncer stands before the throwaway server, and the next client finds no tenant.
#[tokio::test]
async fn verify_on_a_throwaway_server_tries_the_pooler_too() {
    let (place, name) = declared().await;
    let text = place.read("topology.toml");
    let guarded = format!(
        "{text}[rls.community]\ntables = [\"a.lots\"]\ncolumn = \"community\"\nsetting = \"app.community\"\ntype = \"uuid\"\n\
         guard = \"a.current_community\"\nwithout = \"error\"\nroles = [\"{name}_a\"]\npooler = \"pooled\"\n"
    );
    place.write("topology.toml", &guarded);
    place.write(
        "db/a/1_lots.sql",
        "CREATE TABLE lots (id int GENERATED ALWAYS AS IDENTITY, community uuid NOT NULL);\n",
    );
    let said = place.call(&["topology", "verify", "--ephemeral", "--format", "json"]).done();
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(found["holds"], true);
    assert!(found["matrix"].to_string().contains("pooler"), "{}", found["matrix"]);
}
