//! Checks that cannot fail: each is found, and what is near it and can fail is not.

use super::*;

/// What is found in a runbook of these steps: directives and expectation, then the statement.
fn steps(steps: &[(&str, &str)]) -> Vec<(&'static str, String, bool)> {
    let mut text = "## P\n".to_owned();
    for (number, (directives, statement)) in steps.iter().enumerate() {
        let (kind, rest) = directives.split_once(' ').unwrap_or((directives, ""));
        text += &format!("\n```sql step\n-- {kind}: s{number}    target: main{rest}\n{statement}\n```\n");
    }
    found(&text)
}

/// What is found in one check: its expectation and its statement.
fn check(expect: &str, statement: &str) -> Vec<(&'static str, String, bool)> {
    steps(&[(&format!("check \n-- expect: {expect}"), statement)])
}

/// What is found in a command.
fn sh(fields: &str) -> Vec<(&'static str, String, bool)> {
    found(&format!("## P\n\n```toml step\nsh = \"a\"\n{fields}\nundo = \"none: it looks\"\n```\n"))
}

fn run(script: &str) -> Vec<(&'static str, String, bool)> {
    sh(&format!("run = '''{script}'''"))
}

fn codes(found: &[(&'static str, String, bool)]) -> Vec<&'static str> {
    found.iter().map(|one| one.0).collect()
}

#[test]
fn doubled_backslash_matches_no_name() {
    let rows = "rows >= 1";
    for (statement, marked) in [
        (r"SELECT FROM t WHERE a LIKE 'butler\\_%\\_app';", r"'butler\\_%\\_app'"),
        (r"SELECT FROM t WHERE a NOT ILIKE N'x\\%';", r"N'x\\%'"),
        (r"SELECT FROM t WHERE a SIMILAR TO 'x\\_(a|b)';", r"'x\\_(a|b)'"),
        (r"SELECT FROM t WHERE a ~~ 'x\\_';", r"'x\\_'"),
        (r"SELECT FROM t WHERE a LIKE ANY (ARRAY['a', 'x\\_%']);", r"'x\\_%'"),
        (r"SELECT FROM t WHERE a LIKE 'x\\_' ESCAPE '\';", r"'x\\_'"),
    ] {
        assert_eq!(check(rows, statement), [warning("doubled-backslash", marked)], "{statement}");
    }
    for statement in [
        r"SELECT FROM t WHERE a LIKE 'butler\_%\_app';",
        r"SELECT FROM t WHERE a LIKE E'butler\\_%\\_app';",
        r"SELECT FROM t WHERE a LIKE U&'x\\_';",
        r"SELECT FROM t WHERE a LIKE 'C:\\Users\\%';",
        r"SELECT FROM t WHERE a LIKE 'x\\_' ESCAPE '!';",
        r"SELECT FROM t WHERE a LIKE 'C:\%' ESCAPE '';",
        r"SELECT FROM t WHERE a = 'x\\_';",
        r"SELECT 'LIKE ''x\\_''' FROM t; -- LIKE 'x\\_'",
    ] {
        assert_eq!(check(rows, statement), [], "{statement}");
    }
    let apply = step("-- apply: a    target: main    undo: none: no\nDELETE FROM t WHERE a LIKE 'x\\\\_%';");
    assert_eq!(found(&apply), [warning("doubled-backslash", r"'x\\_%'")]);
}

#[test]
fn absence_over_a_role_pattern_needs_a_role() {
    let audit = r"SELECT object FROM audit.grants AS g WHERE g.grantee LIKE 'vh\_%' AND g.kind = 'write';";
    let unseen = [warning("nobody-examined", r"'vh\_%'")];
    for expect in ["0 rows", "rows < 1"] {
        assert_eq!(check(expect, audit), unseen);
    }
    for statement in [
        r"SELECT count(*) FROM audit.grants WHERE grantee::text ILIKE 'vh\_%';",
        r"SELECT count(*) FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE pg_get_userbyid(a.grantee) LIKE 'vh\_%';",
        r"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'vh\_%' AND rolsuper;",
        r"SELECT count(*) FROM pg_roles AS r JOIN pg_class AS c ON true WHERE r.rolname LIKE 'vh\_%';",
    ] {
        assert_eq!(check("value = 0", statement), unseen, "{statement}");
    }
    assert_eq!(check("value = 'f'", r"SELECT EXISTS (SELECT FROM g WHERE grantee LIKE 'vh\_%');"), unseen);
    assert_eq!(check("value = 't'", r"SELECT NOT EXISTS (SELECT FROM g WHERE grantee LIKE 'vh\_%');"), unseen);
    assert_eq!(
        check("value = 't'", r"SELECT count(*) = 0 FROM g WHERE grantee ~ '^vh_';"),
        [warning("nobody-examined", "'^vh_'")]
    );

    // Something shows that there are such roles: another check, or the statement itself.
    let roles = r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'vh\_%';";
    for expect in ["rows >= 1", "3 rows", "rows > 2"] {
        assert_eq!(
            steps(&[("check \n-- expect: 0 rows", audit), (&format!("check \n-- expect: {expect}"), roles)]),
            []
        );
    }
    let count = r"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'vh\_%';";
    assert_eq!(steps(&[("check \n-- expect: 0 rows", audit), ("check \n-- expect: value >= 3", count)]), []);
    let itself = r"SELECT object FROM audit.grants WHERE grantee LIKE 'vh\_%'
        UNION ALL SELECT 'nobody' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname LIKE 'vh\_%');";
    assert_eq!(check("0 rows", itself), []);

    // Another pattern shows nothing, nor does a check that asks for nothing.
    let others = r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'eng\_%';";
    assert_eq!(steps(&[("check \n-- expect: 0 rows", audit), ("check \n-- expect: rows >= 1", others)]), unseen);
    assert_eq!(steps(&[("check \n-- expect: 0 rows", audit), ("check \n-- expect: rows >= 0", roles)]), unseen);

    // That there are no such roles is a question of its own; and others may be found outside of a pattern.
    assert_eq!(check("0 rows", roles), []);
    assert_eq!(
        check("0 rows", r"SELECT FROM pg_roles WHERE rolname LIKE 'tmp\_%' AND rolname NOT LIKE 'tmp\_a%';"),
        []
    );
    assert_eq!(check("0 rows", r"SELECT FROM audit.grants WHERE grantee NOT LIKE 'vh\_%';"), []);
    assert_eq!(check("0 rows", "SELECT FROM audit.grants WHERE grantee = 'vh_app';"), []);
    assert_eq!(check("rows >= 1", audit), []);
}

#[test]
fn denial_needs_a_step_that_the_role_may_do() {
    let denied = ("probe     as: app\n-- expect: error 42501", "DELETE FROM entries;");
    let allowed = ("probe     as: app\n-- expect: rows >= 1", "SELECT id FROM entries;");
    assert_eq!(steps(&[denied]), [warning("denial-without-control", "error 42501")]);
    assert_eq!(codes(&steps(&[denied, denied])), ["denial-without-control"; 2]);
    assert_eq!(steps(&[denied, allowed]), []);
    assert_eq!(steps(&[allowed, denied]), []);
    let other = ("probe     as: reader\n-- expect: rows >= 1", "SELECT id FROM entries;");
    assert_eq!(steps(&[denied, other]), [warning("denial-without-control", "error 42501")]);
    // What raises shows no privilege either.
    let raises = ("probe     as: app\n-- expect: error P0001", "SELECT guard();");
    assert_eq!(steps(&[denied, raises]), [warning("denial-without-control", "error 42501")]);
    assert_eq!(steps(&[raises]), []);
    // The message that goes with it makes no difference, and `SET ROLE` is as good as `as:`.
    let set = ("probe \n-- expect: error 42501 ~ 'lot_entries'", "SET LOCAL ROLE \"app\"; DELETE FROM entries;");
    assert_eq!(steps(&[set]), [warning("denial-without-control", "error 42501 ~ 'lot_entries'")]);
    assert_eq!(steps(&[set, allowed]), []);
}

#[test]
fn control_of_a_role_with_a_variable_is_known_by_its_beginning() {
    let each = "    for_each: t in a, b";
    let denied = (format!("probe     as: app_${{t}}{each}\n-- expect: error 42501"), "DELETE FROM entries;");
    let allowed = |role: &str| (format!("probe     as: {role}\n-- expect: rows >= 1"), "SELECT id FROM entries;");
    let both = |one: &(String, &str), other: &(String, &str)| codes(&steps(&[(&one.0, one.1), (&other.0, other.1)]));
    assert_eq!(both(&denied, &allowed("app_a")), [""; 0]);
    assert_eq!(both(&denied, &allowed(&format!("app_${{t}}{each}"))), [""; 0]);
    assert_eq!(both(&denied, &allowed("reader")), ["denial-without-control"]);
    let one = ("probe     as: app_a\n-- expect: error 42501".to_owned(), "DELETE FROM entries;");
    assert_eq!(both(&one, &allowed(&format!("app_${{t}}{each}"))), [""; 0]);
    assert_eq!(both(&one, &allowed(&format!("web_${{t}}{each}"))), ["denial-without-control"]);
}

#[test]
fn control_stands_where_the_denial_does() {
    let step = |id: &str, expect: &str| {
        format!("```sql step\n-- probe: {id}    target: main    as: app\n-- expect: {expect}\nSELECT 1;\n```\n\n")
    };
    let (denied, allowed) = (step("no", "error 42501"), step("yes", "1 row"));
    assert_eq!(
        found(&format!("## P\n\n{denied}## Rollback\n\n{allowed}")),
        [warning("denial-without-control", "error 42501")]
    );
    assert_eq!(
        found(&format!("## P\n\n{allowed}## Rollback\n\n{denied}")),
        [warning("denial-without-control", "error 42501")]
    );
    assert_eq!(found(&format!("## Rollback\n\n{allowed}{denied}")), []);
    assert_eq!(found(&format!("## P\n\n{denied}## Q\n\n{allowed}")), []);
}

#[test]
fn denial_is_not_asked_of_the_operator() {
    let operator = [warning("denial-as-operator", "error 42501")];
    assert_eq!(steps(&[("probe \n-- expect: error 42501", "INSERT INTO lots VALUES (1);")]), operator);
    assert_eq!(steps(&[("probe \n-- expect: error 42501", "SET ROLE app; RESET ROLE; SELECT 1;")]), operator);
    assert_eq!(steps(&[("probe \n-- expect: error 42501", "SET ROLE app; SET ROLE none; SELECT 1;")]), operator);
    for set in ["SET ROLE app", "SET LOCAL ROLE TO app", "SET SESSION AUTHORIZATION 'app'", "SET SESSION ROLE app"] {
        let found = steps(&[("probe \n-- expect: error 42501", &format!("{set}; SELECT 1;"))]);
        assert_eq!(codes(&found), ["denial-without-control"], "{set}");
    }
    // The role that nobody may become is asked of whoever connects.
    assert_eq!(steps(&[("probe \n-- expect: error 42501", "SET ROLE app;")]), operator);
    for error in ["P0001", "23505"] {
        assert_eq!(steps(&[(&format!("probe \n-- expect: error {error}"), "INSERT INTO lots VALUES (1);")]), []);
    }
}

#[test]
fn views_of_grants_prove_no_absence() {
    let view = "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'app';";
    let other = "SELECT table_name FROM INFORMATION_SCHEMA.\"table_privileges\" WHERE grantee = 'app';";
    assert_eq!(check("0 rows", view), [warning("grants-view", "role_table_grants")]);
    assert_eq!(check("0 rows", other), [warning("grants-view", "\"table_privileges\"")]);
    let count = "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'app';";
    assert_eq!(check("value = 0", count), [warning("grants-view", "role_table_grants")]);
    // That somebody was granted something is there to see.
    assert_eq!(check("1 row", view), []);
    assert_eq!(check("value >= 1", count), []);
    assert_eq!(check("0 rows", "SELECT FROM audit.table_privileges WHERE grantee = 'app';"), []);
    assert_eq!(check("0 rows", "SELECT 'role_table_grants' FROM t;"), []);
}

#[test]
fn settings_of_a_role_are_not_those_of_its_sessions() {
    let role = "SELECT rolname, rolconfig FROM pg_roles WHERE rolname = 'app';";
    assert_eq!(check("1 row", role), [warning("role-settings", "rolconfig")]);
    let any = "SELECT 'search_path=app' = ANY (r.rolconfig) FROM pg_roles AS r WHERE rolname = 'app';";
    assert_eq!(check("value = 't'", any), [warning("role-settings", "rolconfig")]);
    assert_eq!(check("1 row", "SELECT useconfig FROM pg_user;"), [warning("role-settings", "useconfig")]);
    let both = "SELECT r.rolconfig, s.setconfig FROM pg_roles r LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid;";
    assert_eq!(check("1 row", both), []);
    assert_eq!(check("value = 'app'", "SELECT current_setting('search_path');"), []);
    assert_eq!(check("1 row", "SELECT 'rolconfig' FROM t; -- rolconfig"), []);
}

#[test]
fn trigger_that_is_listed_may_be_disabled() {
    let listed = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'usage_events'::regclass;";
    assert_eq!(check("rows >= 1", listed), [warning("trigger-state", "tgname")]);
    assert_eq!(check("value = 'append_only'", listed), [warning("trigger-state", "tgname")]);
    let count = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'usage_events'::regclass;";
    assert_eq!(check("value >= 1", count), [warning("trigger-state", "pg_trigger")]);
    let schema = "SELECT trigger_name FROM information_schema.triggers;";
    assert_eq!(check("1 row", schema), [warning("trigger-state", "trigger_name")]);
    let state = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'a'::regclass AND tgenabled = 'A';";
    assert_eq!(check("1 row", state), []);
    assert_eq!(check("each row tgenabled = 'A'", "SELECT * FROM pg_trigger WHERE tgrelid = 'a'::regclass;"), []);
    // That it is gone can be seen so.
    assert_eq!(check("0 rows", listed), []);
    assert_eq!(check("1 row", "SELECT tgname FROM app.triggers;"), []);
}

#[test]
fn flag_of_row_security_is_no_proof_alone() {
    let flag = "SELECT c.relrowsecurity FROM pg_class AS c WHERE relname = 'lots';";
    let tables = "SELECT tablename, rowsecurity FROM pg_tables WHERE schemaname = 'eng' AND rowsecurity = true;";
    assert_eq!(check("value = 't'", flag), [warning("row-security-flag", "relrowsecurity")]);
    assert_eq!(check("each row relrowsecurity = 't'", flag), [warning("row-security-flag", "relrowsecurity")]);
    assert_eq!(check("rows >= 1", tables), [warning("row-security-flag", "rowsecurity")]);
    for lacks in ["NOT t.rowsecurity", "rowsecurity = false", "rowsecurity IS NOT TRUE", "rowsecurity <> 't'"] {
        let statement = format!("SELECT FROM pg_tables AS t WHERE {lacks};");
        assert_eq!(codes(&check("0 rows", &statement)), ["row-security-flag"], "{lacks}");
        assert_eq!(check("rows >= 1", &statement), [], "{lacks}");
    }
    // That it is off is what the flag says.
    assert_eq!(check("value = 'f'", flag), []);
    assert_eq!(check("0 rows", tables), []);

    let forced = "SELECT relrowsecurity AND relforcerowsecurity AS forced FROM pg_class WHERE relname = 'lots';";
    assert_eq!(check("each row forced = 't'", forced), []);
    for more in [
        ("check \n-- expect: 2 rows", "SELECT policyname FROM pg_policies WHERE tablename = 'lots';"),
        ("check \n-- expect: each row forced = 't'", forced),
        ("probe     as: app\n-- expect: 0 rows", "SELECT id FROM lots;"),
    ] {
        assert_eq!(steps(&[("check \n-- expect: value = 't'", flag), more]), [], "{more:?}");
    }
    let operator = ("probe \n-- expect: 0 rows", "SELECT id FROM lots;");
    assert_eq!(codes(&steps(&[("check \n-- expect: value = 't'", flag), operator])), ["row-security-flag"]);
}

#[test]
fn grep_that_could_read_nothing_proves_no_absence() {
    for script in [
        "! grep -r 'INSERT INTO eng' apps/vh/",
        "! grep -rn --include='*.ts' 'INSERT INTO eng' apps/vh || exit 1",
        "! LC_ALL=C /usr/bin/grep --recursive x apps/vh 2>/dev/null",
        "! rg x apps/vh",
        "grep -rq x apps/vh && exit 1 || true",
        "if grep -r x apps/vh; then echo found; exit 1; fi",
        "if ! grep -r x apps/vh\nthen\n  echo clean\nelse\n  exit 1\nfi",
        "set -e\ngrep -r x apps/vh && { echo found >&2; exit 1; }\necho clean",
        "psql -c 'SELECT 1' | grep -q 1 || exit 1\n! grep -r x apps/vh",
        "for what in INSERT UPDATE; do\n  ! grep -r \"$what\" apps/vh || exit 1\ndone",
    ] {
        assert_eq!(codes(&run(script)), ["absence-by-grep"], "{script}");
    }
    let lines = "\n  ! grep -r INSERT apps/vh || exit 1\n! grep -r \"UPDATE eng\" apps/vh || exit 1\n";
    assert_eq!(
        run(lines),
        [
            warning("absence-by-grep", "! grep -r INSERT apps/vh || exit 1"),
            warning("absence-by-grep", "! grep -r \"UPDATE eng\" apps/vh || exit 1"),
        ]
    );
    assert_eq!(codes(&sh(r#"argv = ["bash", "-ec", "! grep -r x apps/vh"]"#)), ["absence-by-grep"]);

    for script in [
        "find apps/vh -type f | grep -q . || exit 3; ! grep -r x apps/vh",
        "test -d apps/vh && ! grep -r x apps/vh/",
        "cd apps/vh && ! grep -r x .",
        "! grep -r x",
        "! grep -q x README.md",
        "grep -rq x apps/vh",
        "if ! grep -r x apps/vh; then exit 1; fi",
        "if grep -r x apps/vh; then echo found; fi",
        "echo '! grep -r x apps/vh'",
        "# ! grep -r x apps/vh",
        "case $1 in a) ! grep -r x apps/vh;; esac",
        "cat <<EOF\n! grep -r x apps/vh\nEOF",
        "if if if",
        "",
    ] {
        assert_eq!(run(script), [], "{script}");
    }
    assert_eq!(sh("run = \"find d -type f | grep -q . || exit 3; grep -r x d\"\nexpect_exit = 1"), []);
    assert_eq!(sh("run = \"grep -r x d\"\nexpect_exit = 1"), []);
    assert_eq!(sh(r#"argv = ["grep", "-r", "x", "d"]"#), []);
}

#[test]
fn words_for_a_person_are_no_gate() {
    for script in [
        r#"psql -c "SELECT 1" 2>&1 | grep -q "permission denied" && echo "ok" || echo "failed""#,
        "psql -f check.sql && echo ok || echo failed",
        "if psql -f check.sql | grep -q t; then echo ok; else printf 'failed\\n' >&2; fi",
        "test -f a.dump && { echo ok; } || { echo failed; true; }",
        "a | grep -q x \\\n  && echo ok \\\n  || echo failed\necho done",
    ] {
        assert_eq!(codes(&run(script)), ["swallowed-status"], "{script}");
    }
    for script in [
        "a | grep -q x && echo ok || { echo failed; exit 1; }",
        "if a | grep -q x; then echo ok; else echo failed; false; fi",
        "a | grep -q x || echo failed",
        "a | grep -q x || true",
        "grep -q '^x' conf && echo 'x=2' >> conf || echo 'x=1' >> conf",
        "a | grep -q x && echo ok || b",
        "a; b | grep -q x",
    ] {
        assert_eq!(run(script), [], "{script}");
    }
}

#[test]
fn script_of_any_depth_is_read_in_bounds() {
    for script in ["{ ".repeat(50_000), "if ".repeat(50_000), "! ".repeat(50_000), "! grep -r x d | ".repeat(5_000)] {
        assert_eq!(run(&script), []);
    }
    let many: Vec<String> = (0..1_000).map(|number| format!("! grep -r 'x{number};' d || exit 1")).collect();
    assert_eq!(codes(&run(&many.join("\n"))), ["absence-by-grep"; 24]);
}
