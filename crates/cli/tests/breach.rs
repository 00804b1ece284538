//! `rehearse --break`: a runbook's own gates are tried.

use crate::place::Place;

const RUNBOOK: &str = r#"# Isolation

## Apply

```toml step
topology = "roles"
target = "main"
undo = "auto"
```

```sql step
-- apply: tables    target: main    as: NAME_owner    undo: no-tables
CREATE TABLE a.notes (id int);
CREATE TABLE b.notes (id int);
```

```sql undo
-- apply: no-tables    target: main
DROP TABLE a.notes, b.notes;
```

## Prove

```sql step
-- check: no-foreign-grants    target: main
-- expect: 0 rows
SELECT grantee, table_name FROM information_schema.role_table_grants
WHERE grantee LIKE 'NAME\\_%\\_app' AND table_schema <> 'a';
```

```sql step
-- check: a-reads-only-a    target: main
-- expect: value = 'f'
SELECT has_table_privilege('NAME_a_app', 'b.notes', 'SELECT') AND has_schema_privilege('NAME_a_app', 'b', 'USAGE');
```

```sql step
-- check: a-is-a-member-of-nothing    target: main
-- expect: 0 rows
SELECT m.roleid::regrole FROM pg_auth_members AS m WHERE m.member = 'NAME_a_app'::regrole;
```

```sql step
-- check: server-is-new-enough    target: main
-- expect: value = 't'
SELECT current_setting('server_version_num')::int >= 140000;
```
"#;

#[tokio::test]
async fn gates_that_cannot_fail_are_named() {
    let place = Place::new().await;
    let name = place.database.database.clone();
    place.write("RUNBOOK.md", &RUNBOOK.replace("NAME", &name));
    place.write(
        "topology.toml",
        &format!(
            "suffix = \"_app\"\n[database]\nowner = \"{name}_owner\"\n[tenants]\nlist = [\"a\", \"b\"]\n[schemas]\n\
             \"{{tenant}}\" = {{}}\n[roles.\"{name}_{{tenant}}{{suffix}}\"]\nkind = \"runtime\"\n\
             password = \"env:NOBODY_HAS_SET_IT\"\naccess = {{ \"{{tenant}}\" = \"all\" }}\n"
        ),
    );
    let said = place.call(&["rehearse", "RUNBOOK.md", "--break", "--format", "plain"]);
    assert_eq!(said.code, Some(1), "{}\n{}", said.out, said.err);
    for wanted in [
        "✗ no-foreign-grants stayed green whatever was planted: a check that cannot fail",
        "· server-is-new-enough speaks of nothing that is declared, and stayed green",
        "✓ a-is-a-member-of-nothing noticed 2",
        "✓ a-reads-only-a noticed",
        "✗ no gate noticed: everybody may SELECT from a.notes",
    ] {
        assert!(said.out.contains(wanted), "{wanted}\n{}\n{}", said.out, said.err);
    }
    assert!(!said.out.contains("could not be planted"), "{}", said.out);
    // Nothing of it was on the real target.
    assert_eq!(place.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'a'").await, "0");
}
