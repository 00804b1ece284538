//! What is found and what is not, construct by construct and language by language.

use pgrunbook_document::{Severity, Source};
use proptest::prelude::*;

use super::*;
use crate::project::Code;

const PROJECT: &str = r#"
[code.vh]
files = ["apps/vh/**"]
may_write = ["vh", "vh_*"]

[code.eng]
files = ["apps/eng/**"]
may_write = ["eng", "eng_*"]
"#;

/// A project in a folder of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("apps/eng/ours.sql", "INSERT INTO eng.t VALUES (1);\n");
        place.write("apps/vh/ours.sql", "SELECT 1;\n");
        place
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn review(&self, project: &str) -> Review {
        review(self.0.path(), &Code::read(project).unwrap()).unwrap()
    }
}

fn line(source: &Source, byte: usize) -> usize {
    source.text[..byte].matches('\n').count() + 1
}

/// Each finding as `path:line rule what`.
fn told(review: &Review) -> Vec<String> {
    let one = |found: &pgrunbook_document::Diagnostic| {
        let source = &review.sources[found.span.file];
        let line = line(source, found.span.start);
        let rule = found.code.trim_start_matches("boundary-");
        let what = found.message.split_once("` ").map_or("", |(_, rest)| rest);
        let what = what.split_once(' ').map_or("", |(_, rest)| rest).split(", w").next().unwrap_or_default();
        let what = if rule == "unknown" || rule == "no-files" { "" } else { what };
        format!("{}:{line} {rule} {what}", source.path).trim_end().to_owned()
    };
    review.found.iter().map(one).collect()
}

/// Reviews one file of the tree `vh`.
fn one(name: &str, text: &str) -> Vec<String> {
    with(PROJECT, name, text)
}

fn with(project: &str, name: &str, text: &str) -> Vec<String> {
    let place = Place::new();
    place.write(&format!("apps/vh/{name}"), text);
    told(&place.review(project))
}

/// Cases: a file of the tree `vh`, and what is found, as `line rule what`.
#[track_caller]
fn check(project: &str, cases: &[(&str, &str, &[&str])]) {
    let mut wrong = Vec::new();
    for (name, text, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|one| format!("apps/vh/{name}:{one}")).collect();
        let found = with(project, name, text);
        if found != expected {
            wrong.push(format!("--- {name}\n{text}\n  expected {expected:?}\n  found    {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn statements_that_write_are_found() {
    check(
        PROJECT,
        &[
            ("a.sql", "INSERT INTO eng.t VALUES (1);", &["1 write `eng.t` (INSERT)"]),
            ("a.sql", "\n\ninsert into\n  ENG . T\n(a) select 1", &["4 write `eng.t` (INSERT)"]),
            ("a.sql", "INSERT INTO \"eng\".\"T\" AS x VALUES (1)", &["1 write `eng.T` (INSERT)"]),
            ("a.sql", "insert into app.eng.t default values", &["1 write `eng.t` (INSERT)"]),
            ("a.sql", "UPDATE eng.t SET a = 1", &["1 write `eng.t` (UPDATE)"]),
            ("a.sql", "UPDATE ONLY eng.t * AS x\nSET a = 1 FROM vh.t", &["1 write `eng.t` (UPDATE)"]),
            ("a.sql", "SELECT 1;\nUPDATE eng.t x SET a = 1;", &["2 write `eng.t` (UPDATE)"]),
            ("a.sql", "DELETE FROM eng.t", &["1 write `eng.t` (DELETE)"]),
            ("a.sql", "DELETE FROM ONLY eng.t AS x USING vh.t WHERE true", &["1 write `eng.t` (DELETE)"]),
            (
                "a.sql",
                "MERGE INTO eng.t x USING vh.s y ON x.a = y.a WHEN MATCHED THEN DELETE",
                &["1 write `eng.t` (MERGE)"],
            ),
            ("a.sql", "TRUNCATE eng.t", &["1 write `eng.t` (TRUNCATE)"]),
            (
                "a.sql",
                "TRUNCATE TABLE ONLY vh.t, eng.t,\n eng.s CASCADE",
                &["1 write `eng.t` (TRUNCATE)", "2 write `eng.s` (TRUNCATE)"],
            ),
            ("a.sql", "COPY eng.t (a, b) FROM STDIN;\nDELETE FROM eng.x\n\\.\n", &["1 write `eng.t` (COPY FROM)"]),
            ("a.sql", "\\copy eng.t from 'x.csv' csv\nSELECT 1;", &["1 write `eng.t` (COPY FROM)"]),
            ("a.sql", "SELECT a, b\nINTO eng.t\nFROM vh.t", &["2 write `eng.t` (SELECT INTO)"]),
            ("a.sql", "SELECT 1 INTO UNLOGGED TABLE eng.t", &["1 write `eng.t` (SELECT INTO)"]),
            (
                "a.sql",
                "WITH gone AS (\n  DELETE FROM eng.t RETURNING *\n)\nINSERT INTO vh.t SELECT * FROM gone",
                &["2 write `eng.t` (DELETE)"],
            ),
            ("a.sql", "WITH x AS (SELECT 1) UPDATE eng.t SET a = 1", &["1 write `eng.t` (UPDATE)"]),
            ("a.sql", "EXPLAIN ANALYZE DELETE FROM eng.t", &["1 write `eng.t` (DELETE)"]),
            ("a.sql", "PREPARE p AS INSERT INTO eng.t VALUES ($1)", &["1 write `eng.t` (INSERT)"]),
            ("a.sql", "ALTER TABLE IF EXISTS ONLY eng.t ADD a int", &["1 write `eng.t` (ALTER)"]),
            ("a.sql", "ALTER TABLE vh.t SET SCHEMA eng", &["1 write schema `eng` (ALTER)"]),
            ("a.sql", "ALTER TABLE vh.t ATTACH PARTITION eng.p DEFAULT", &["1 write `eng.p` (ALTER)"]),
            (
                "a.sql",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA eng GRANT SELECT ON TABLES TO x",
                &["1 write schema `eng` (ALTER DEFAULT PRIVILEGES)"],
            ),
            ("a.sql", "DROP TABLE IF EXISTS vh.t, eng.t", &["1 write `eng.t` (DROP)"]),
            ("a.sql", "DROP FUNCTION vh.f(int), eng.g(text) CASCADE", &["1 write `eng.g` (DROP)"]),
            ("a.sql", "DROP MATERIALIZED VIEW eng.v", &["1 write `eng.v` (DROP)"]),
            ("a.sql", "DROP SCHEMA eng CASCADE", &["1 write schema `eng` (DROP)"]),
            ("a.sql", "DROP TRIGGER x ON eng.t", &["1 write `eng.t` (DROP)"]),
            (
                "a.sql",
                "CREATE TRIGGER x AFTER INSERT OR UPDATE OF a, b\nON eng.t FOR EACH ROW EXECUTE FUNCTION vh.f()",
                &["2 write `eng.t` (CREATE)"],
            ),
            ("a.sql", "CREATE TABLE eng.t (a int)", &["1 write `eng.t` (CREATE)"]),
            ("a.sql", "CREATE TABLE vh.p PARTITION OF eng.t DEFAULT", &["1 write `eng.t` (CREATE)"]),
            (
                "a.sql",
                "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY eng.t (a)",
                &["1 write `eng.t` (CREATE)"],
            ),
            ("a.sql", "CREATE OR REPLACE VIEW eng.v AS SELECT 1", &["1 write `eng.v` (CREATE)"]),
            ("a.sql", "CREATE POLICY p ON eng.t USING (true)", &["1 write `eng.t` (CREATE)"]),
            ("a.sql", "CREATE RULE r AS ON INSERT TO eng.t DO INSTEAD NOTHING", &["1 write `eng.t` (CREATE)"]),
            ("a.sql", "GRANT SELECT, UPDATE ON eng.t TO x", &["1 write `eng.t` (GRANT)"]),
            ("a.sql", "REVOKE ALL ON ALL TABLES IN SCHEMA vh, eng FROM x", &["1 write schema `eng` (REVOKE)"]),
            ("a.sql", "COMMENT ON COLUMN eng.t.a IS 'x'", &["1 write `eng.t` (COMMENT)"]),
            ("a.sql", "REFRESH MATERIALIZED VIEW CONCURRENTLY eng.v", &["1 write `eng.v` (REFRESH)"]),
            (
                "a.sql",
                "IMPORT FOREIGN SCHEMA x FROM SERVER s INTO eng",
                &["1 write schema `eng` (IMPORT FOREIGN SCHEMA)"],
            ),
            ("a.sql", "SELECT setval('eng.t_id_seq', 1)", &["1 write `eng.t_id_seq` (setval)"]),
            ("a.sql", "SELECT dblink_exec('c', 'DELETE FROM eng.t')", &["1 write `eng.t` (DELETE)"]),
            (
                "a.sql",
                "INSERT INTO eng_t VALUES (1); UPDATE public.eng_t SET a = 1",
                &["1 write `eng_t` (INSERT)", "1 write `public.eng_t` (UPDATE)"],
            ),
        ],
    );
}

#[test]
fn bodies_of_routines_are_read() {
    check(
        PROJECT,
        &[
            ("a.sql", "DO $$\nBEGIN\n  INSERT INTO eng.t VALUES (1);\nEND\n$$;", &["3 write `eng.t` (INSERT)"]),
            (
                "a.sql",
                "CREATE FUNCTION vh.f() RETURNS void LANGUAGE plpgsql AS $f$\nDECLARE n int;\nBEGIN\n  IF true THEN\n    TRUNCATE eng.t;\n  END IF;\nEND $f$;",
                &["5 write `eng.t` (TRUNCATE)"],
            ),
            (
                "a.sql",
                "CREATE FUNCTION vh.f() RETURNS void AS 'BEGIN DELETE FROM eng.t WHERE a = ''x''; END' LANGUAGE plpgsql",
                &["1 write `eng.t` (DELETE)"],
            ),
            (
                "a.sql",
                "CREATE FUNCTION vh.f() RETURNS void LANGUAGE sql SET search_path = eng AS $$\nINSERT INTO t VALUES (1) $$;\nINSERT INTO t VALUES (1);",
                &["2 write `t` in `eng` of the search path (INSERT)"],
            ),
            (
                "a.sql",
                "CREATE FUNCTION vh.f() RETURNS void LANGUAGE sql BEGIN ATOMIC\nDELETE FROM vh.t;\nDELETE FROM eng.t;\nEND;",
                &["3 write `eng.t` (DELETE)"],
            ),
            // INTO names a variable there.
            ("a.sql", "DO $$DECLARE eng record; BEGIN SELECT 1 AS a INTO eng; SELECT 2 INTO eng.a; END$$", &[]),
            ("a.sql", "DO $$BEGIN EXECUTE 'DELETE FROM eng.t'; END$$", &["1 write `eng.t` (DELETE)"]),
            (
                "a.sql",
                "DO $$BEGIN\nEXECUTE format('INSERT INTO eng.%I VALUES (%L)', a, b);\nEND$$",
                &["2 write `eng.…` (INSERT)"],
            ),
            ("a.sql", "DO $$BEGIN\nEXECUTE format('INSERT INTO %I.t VALUES (1)', a);\nEND$$", &["2 unknown"]),
            ("a.sql", "DO $$BEGIN\nEXECUTE 'UPDATE ' || quote_ident(a) || ' SET x = 1';\nEND$$", &["2 unknown"]),
            ("a.sql", "DO $$BEGIN\nEXECUTE statement;\nEND$$", &["2 unknown"]),
            ("a.sql", "DO $$BEGIN\nRAISE NOTICE 'DELETE FROM eng.t';\nEND$$", &[]),
            (
                "a.sql",
                "DO LANGUAGE plpython3u $$\nplpy.execute(\"DELETE FROM eng.t\")\n$$",
                &["2 write `eng.t` (DELETE)"],
            ),
        ],
    );
}

#[test]
fn search_path_is_followed() {
    check(
        PROJECT,
        &[
            (
                "a.sql",
                "SET search_path TO eng;\nINSERT INTO t VALUES (1);",
                &["2 write `t` in `eng` of the search path (INSERT)"],
            ),
            (
                "a.sql",
                "SET LOCAL search_path = \"$user\", 'eng', public;\nDELETE FROM t;",
                &["2 write `t` in `eng` of the search path (DELETE)"],
            ),
            ("a.sql", "SET search_path TO eng;\nRESET search_path;\nDELETE FROM t;", &[]),
            ("a.sql", "BEGIN;\nSET LOCAL search_path TO eng;\nCOMMIT;\nDELETE FROM t;", &[]),
            ("a.sql", "SET search_path TO eng;\nSET search_path TO vh;\nDELETE FROM t;", &[]),
            ("a.sql", "SET search_path TO eng;\nDELETE FROM vh.t;\nSELECT * FROM t", &[]),
            ("a.sql", "SET SCHEMA 'eng';\nTRUNCATE t;", &["2 write `t` in `eng` of the search path (TRUNCATE)"]),
            (
                "a.sql",
                "SELECT set_config('search_path', 'eng, public', false);\nDROP TABLE t;",
                &["2 write `t` in `eng` of the search path (DROP)"],
            ),
            // Which of them has `t`, only the server knows.
            ("a.sql", "SET search_path TO vh, eng;\nUPDATE t SET a = 1;", &["2 unknown"]),
            (
                "a.py",
                "cur.execute('SET search_path TO eng')\ncur.execute('UPDATE t SET a = 1')",
                &["2 write `t` in `eng` of the search path (UPDATE)"],
            ),
            ("a.py", "cur.execute(f'SET search_path TO {schema}')\ncur.execute('UPDATE t SET a = 1')", &["1 unknown"]),
            (
                "a.py",
                "connect(dsn, options='-c search_path=eng')\nx('DELETE FROM t')",
                &["2 write `t` in `eng` of the search path (DELETE)"],
            ),
            (
                "a.java",
                "String url = \"jdbc:postgresql://h/d?currentSchema=eng&x=1\";\nString q = \"DELETE FROM t\";",
                &["2 write `t` in `eng` of the search path (DELETE)"],
            ),
            ("a.sql", "ALTER ROLE x SET search_path = eng;\nDELETE FROM t;", &[]),
        ],
    );
}

#[test]
fn strings_are_read_in_each_language() {
    check(
        PROJECT,
        &[
            (
                "a.rs",
                "fn f<'a>(x: &'a str) {\n    sqlx::query(\"INSERT INTO eng.t \\\n        VALUES ('x', \\\"y\\\")\");\n}",
                &["2 write `eng.t` (INSERT)"],
            ),
            ("a.rs", "const Q: &str = r#\"\n  UPDATE \"eng\".\"t\"\n  SET a = 1\"#;", &["2 write `eng.t` (UPDATE)"]),
            ("a.rs", "let c = '\"'; let q = \"DELETE FROM eng.t\";", &["1 write `eng.t` (DELETE)"]),
            ("a.rs", "concat!(\"DELETE \",\n \"FROM eng\", \".t\")", &["2 write `eng.t` (DELETE)"]),
            ("a.py", "q = '''\n  DELETE\n  FROM eng.t\n'''", &["3 write `eng.t` (DELETE)"]),
            ("a.py", "q = (\"INSERT INTO eng.t \"\n     \"(a) VALUES (1)\")", &["1 write `eng.t` (INSERT)"]),
            ("a.py", "q = f\"UPDATE eng.{table} SET a = 1\"", &["1 write `eng.…` (UPDATE)"]),
            (
                "a.py",
                "q = rf'DELETE FROM {\"eng\"}.t' if x else 'DELETE FROM eng.s'",
                &["1 unknown", "1 write `eng.s` (DELETE)"],
            ),
            ("a.js", "const q = 'DELETE FROM eng.t';", &["1 write `eng.t` (DELETE)"]),
            ("a.ts", "await sql`\n  INSERT INTO eng.t ${sql(rows)}\n`;", &["2 write `eng.t` (INSERT)"]),
            ("a.ts", "sql`SELECT ${cond ? sql`1` : q(\"DELETE FROM eng.t\")}`", &["1 write `eng.t` (DELETE)"]),
            (
                "a.tsx",
                "const r = /[\"'`]/g, s = x / y;\nreturn <p>Don't</p>;\nconst q = \"TRUNCATE eng.t\";",
                &["3 write `eng.t` (TRUNCATE)"],
            ),
            ("a.go", "db.Exec(`\n\tUPDATE eng.t\n\tSET a = $1`, a)", &["2 write `eng.t` (UPDATE)"]),
            (
                "a.go",
                "r := '\"'\ndb.Exec(\"DELETE FROM \\\"eng\\\".\\\"t\\\" WHERE a = $1\")",
                &["2 write `eng.t` (DELETE)"],
            ),
            (
                "a.java",
                "String q = \"\"\"\n    MERGE INTO eng.t x\n    USING vh.s ON true\n    WHEN MATCHED THEN DELETE\n    \"\"\";",
                &["2 write `eng.t` (MERGE)"],
            ),
            (
                "a.java",
                "char c = '\"';\nString q = \"INSERT INTO \"\n    + \"eng.t\"\n    + \" VALUES (?)\";",
                &["3 write `eng.t` (INSERT)"],
            ),
            (
                "a.kt",
                "val q = \"\"\"\n  DELETE FROM eng.t WHERE a = $a\n\"\"\".trimIndent()",
                &["2 write `eng.t` (DELETE)"],
            ),
            ("a.kt", "val q = \"UPDATE eng.${table} SET a = 1\"", &["1 write `eng.…` (UPDATE)"]),
            ("a.rb", "execute <<~SQL\n  DELETE FROM eng.t\n  WHERE a = #{id}\nSQL\n", &["2 write `eng.t` (DELETE)"]),
            ("a.rb", "run(<<-'A', <<~B)\n  SELECT 1\n  A\n  TRUNCATE eng.t\nB\n", &["4 write `eng.t` (TRUNCATE)"]),
            ("a.rb", "execute %q(UPDATE eng.t SET a = (1))", &["1 write `eng.t` (UPDATE)"]),
            (
                "a.php",
                "<p>It's</p>\n<?php\n$q = \"DELETE FROM eng.t WHERE a = {$this->a}\"; ?>\n",
                &["3 write `eng.t` (DELETE)"],
            ),
            (
                "a.php",
                "<?php\n$q = <<<SQL\n  INSERT INTO eng.t VALUES ($a)\n  SQL . 'x';\n$r = 'UPDATE ' . 'eng.t SET a = 1';",
                &["3 write `eng.t` (INSERT)", "5 write `eng.t` (UPDATE)"],
            ),
            ("a.cs", "var q = @\"\n  DELETE FROM \"\"eng\"\".\"\"t\"\"\";", &["2 write `eng.t` (DELETE)"]),
            (
                "a.cs",
                "var q = $\"UPDATE eng.t SET a = {a[\"x\"]}\"; var r = \"\"\"\n  TRUNCATE eng.t\n  \"\"\";",
                &["1 write `eng.t` (UPDATE)", "2 write `eng.t` (TRUNCATE)"],
            ),
            ("a.sh", "psql \"$URL\" -c \"INSERT INTO eng.t VALUES ('$x')\"", &["1 write `eng.t` (INSERT)"]),
            ("a.sh", "psql <<EOF\nDELETE FROM vh.t;\nDELETE FROM eng.t;\nEOF\n", &["3 write `eng.t` (DELETE)"]),
            (
                "a.sh",
                "x=$(psql -c 'TRUNCATE eng.t') # it's\npsql <<-'SQL'\n\tUPDATE eng.t SET a = 1;\n\tSQL\n",
                &["1 write `eng.t` (TRUNCATE)", "3 write `eng.t` (UPDATE)"],
            ),
            ("deploy", "#!/bin/sh\npsql -c 'DROP TABLE eng.t'\n", &["2 write `eng.t` (DROP)"]),
            ("a.ex", "Repo.query(\"\"\"\n  DELETE FROM eng.t\n\"\"\")", &["2 write `eng.t` (DELETE)"]),
            ("a.swift", "let q = \"UPDATE eng.t SET a = \\(a)\"", &["1 write `eng.t` (UPDATE)"]),
            ("a.c", "exec(\"DELETE FROM \"\n     \"eng.t\");", &["2 write `eng.t` (DELETE)"]),
            ("a.lua", "q = [[\nDELETE FROM eng.t]]", &["2 write `eng.t` (DELETE)"]),
            // No language that is known.
            ("a.zig", "// \"DELETE FROM eng.s\"\nq = \"DELETE FROM eng.t\";", &["2 write `eng.t` (DELETE)"]),
            ("package.json", "{\n  \"reset\": \"psql -c \\\"TRUNCATE eng.t\\\"\"\n}", &["2 write `eng.t` (TRUNCATE)"]),
            (
                "ci.yml",
                "run: |\n  # it's\n  psql -c \"DELETE FROM eng.t\"\nsql: |\n  UPDATE eng.t\n  SET a = 1\n",
                &["3 write `eng.t` (DELETE)", "5 write `eng.t` (UPDATE)"],
            ),
            (
                "Mapper.xml",
                "<mapper>\n  <insert id=\"x\">\n    INSERT INTO eng.t (a) VALUES (#{a})\n  </insert>\n</mapper>",
                &["3 write `eng.t` (INSERT)"],
            ),
        ],
    );
}

#[test]
fn what_is_no_write_is_not_found() {
    check(
        PROJECT,
        &[
            ("a.sql", "-- DELETE FROM eng.t\n/* UPDATE eng.t SET a = 1 */ SELECT 1;", &[]),
            ("a.sql", "INSERT INTO vh.t SELECT * FROM eng.t", &[]),
            ("a.sql", "SELECT * FROM eng.t FOR UPDATE", &[]),
            ("a.sql", "COPY eng.t TO STDOUT", &[]),
            ("a.sql", "INSERT INTO vh.t VALUES ('DELETE FROM eng.t'), ($$UPDATE eng.t SET a = 1$$)", &[]),
            ("a.sql", "CREATE TABLE vh.t (a int REFERENCES eng.t ON DELETE CASCADE ON UPDATE SET NULL)", &[]),
            ("a.sql", "INSERT INTO vh.t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1", &[]),
            ("a.sql", "UPDATE vh.t eng SET a = eng.a WHERE eng.b", &[]),
            ("a.sql", "CREATE TEMP TABLE eng_x (a int);\nINSERT INTO eng_x VALUES (1);", &[]),
            ("a.sql", "CREATE TRIGGER x AFTER INSERT ON vh.t EXECUTE FUNCTION eng.f()", &[]),
            ("a.sql", "GRANT eng TO vh_app", &[]),
            ("a.rs", "// sqlx::query(\"DELETE FROM eng.t\")\n/* \"DELETE /* x */ FROM eng.t\" */", &[]),
            (
                "a.py",
                "# \"DELETE FROM eng.t\"\ndef f():\n    \"\"\"DELETE FROM eng.t\"\"\"\n    eng = 1\n    eng.update(x=1)",
                &[],
            ),
            ("a.py", "log.info('Failed to INSERT INTO eng.t (a) VALUES')", &[]),
            ("a.py", "raise X('Update eng.t settings'), 'Insert into eng.t failed'", &[]),
            ("a.ts", "// `DELETE FROM eng.t`\nconst s = `Please delete from eng.t where needed`; // don't", &[]),
            ("a.ts", "const eng = 1; eng.delete(); import { x } from 'eng_tools';", &[]),
            ("a.go", "// `DELETE FROM eng.t`\n/* \"DELETE FROM eng.t\" */", &[]),
            ("a.java", "/** DELETE FROM eng.t */ String s = \"eng_ is a prefix, eng.t a table\";", &[]),
            ("a.rb", "# execute 'DELETE FROM eng.t'\n=begin\nexecute 'DELETE FROM eng.t'\n=end\n", &[]),
            ("a.php", "<?php // 'DELETE FROM eng.t'\n# 'DELETE FROM eng.t'\n", &[]),
            ("a.sh", "# psql -c 'DELETE FROM eng.t'\n! grep -r \"INSERT INTO eng_\" apps/vh/ || exit 1\n", &[]),
            ("a.ts", "const q = 'SELECT * FROM eng.t WHERE a = $1'", &[]),
            ("README.md", "```sql\nDELETE FROM eng.t;\n```\n", &[]),
            ("notes.txt", "DELETE FROM eng.t;\n", &[]),
        ],
    );
}

#[test]
fn what_only_the_running_program_knows_is_unknown() {
    check(
        PROJECT,
        &[
            ("a.py", "x = 1\nq = f\"INSERT INTO {schema}.t VALUES (1)\"", &["2 unknown"]),
            ("a.py", "q = 'INSERT INTO %s VALUES (1)' % t", &["1 unknown"]),
            ("a.py", "q = 'DELETE FROM {}.{}'.format(s, t)", &["1 unknown"]),
            ("a.py", "q = sql.SQL('UPDATE {table} SET a = 1')", &["1 unknown"]),
            ("a.js", "q(`DELETE FROM ${t}`)", &["1 unknown"]),
            ("a.js", "q('INSERT INTO ' + t + ' VALUES (1)')", &["1 unknown"]),
            ("a.rs", "format!(\"TRUNCATE TABLE {schema}.t\")", &["1 unknown"]),
            ("a.go", "fmt.Sprintf(\"DELETE FROM %s.t WHERE a\", s)", &["1 unknown"]),
            ("a.java", "b.append(\"INSERT INTO \").append(t);", &["1 unknown"]),
            ("a.kt", "\"DELETE FROM $schema.t\"", &["1 unknown"]),
            ("a.rb", "execute \"DROP TABLE #{t}\"", &["1 unknown"]),
            (
                "a.php",
                "<?php q(\"UPDATE {$t} SET a = 1\"); q('DELETE FROM ' . $this->t . ' WHERE a');",
                &["1 unknown", "1 unknown"],
            ),
            ("a.cs", "q($\"UPDATE {t} SET a = 1\")", &["1 unknown"]),
            (
                "a.sh",
                "psql -c \"INSERT INTO $SCHEMA.t VALUES (1)\"\npsql -c 'DELETE FROM '\"$T\"",
                &["1 unknown", "2 unknown"],
            ),
            ("a.sql", "INSERT INTO :schema.t VALUES (1);\nDELETE FROM :\"schema\".t;", &["1 unknown", "2 unknown"]),
            ("a.sql", "INSERT INTO {{ schema }}.t VALUES (1)", &["1 unknown"]),
            // What is known is enough.
            ("a.py", "f'INSERT INTO vh.{t} VALUES (1)', f'DELETE FROM vh_{t}', f'UPDATE vh.t SET {a} = 1'", &[]),
            ("a.py", "f'DELETE FROM eng_{t}'", &["1 write `eng_…` (DELETE)"]),
            ("a.py", "f'{verb} INTO eng.t VALUES (1)'", &["1 unknown"]),
        ],
    );
}

#[test]
fn mappings_are_found() {
    check(
        PROJECT,
        &[
            (
                "a.py",
                "class T(Base):\n    __tablename__ = 't'\n    __table_args__ = {'schema': 'eng'}",
                &["3 mapping schema `eng`"],
            ),
            (
                "a.py",
                "class T(Base):\n    __table_args__ = (\n        UniqueConstraint('a'),\n        {\"schema\": \"eng\"},\n    )",
                &["4 mapping schema `eng`"],
            ),
            ("a.py", "t = Table('t', metadata, schema='eng')", &["1 mapping schema `eng`"]),
            ("a.py", "class Meta:\n    db_table = '\"eng\".\"t\"'", &["2 mapping `eng.t`"]),
            ("a.py", "class T(Base):\n    __tablename__ = 'eng_t'", &["2 mapping `eng_t`"]),
            (
                "a.ts",
                "export const eng = pgSchema('eng');\nexport const t = eng.table('t', {});",
                &["1 mapping schema `eng`"],
            ),
            ("a.ts", "@Entity({ name: 't', schema: 'eng' })", &["1 mapping schema `eng`"]),
            (
                "schema.prisma",
                "// @@schema(\"eng\")\nmodel T {\n  id Int @id\n  @@schema(\"eng\")\n}",
                &["4 mapping schema `eng`"],
            ),
            ("schema.prisma", "model T {\n  @@map(\"eng_t\")\n}", &["2 mapping `eng_t`"]),
            (
                "a.ts",
                "await supabase\n  .schema('eng')\n  .from('t')\n  .insert({ a: 1 })",
                &["2 write `eng.t` (insert)"],
            ),
            ("a.ts", "await supabase.schema('eng').from('t').select('*').eq('a', 1)", &[]),
            ("a.ts", "const eng = supabase.schema('eng');", &["1 unknown"]),
            ("a.ts", "await supabase.schema(name).from('t').insert({})", &["1 unknown"]),
            ("a.ts", "await supabase.from('eng_t').update({ a: 1 }).eq('id', 1)", &["1 write `eng_t` (update)"]),
            ("a.ts", "createClient(url, key, { db: { schema: 'eng' } })", &["1 unknown"]),
            ("a.py", "client.schema(\"eng\").table(\"t\").upsert({}).execute()", &["1 write `eng.t` (upsert)"]),
            ("a.ts", "await knex('eng.t').where({ a: 1 }).del()", &["1 write `eng.t` (del)"]),
            ("a.ts", "await db.insertInto('eng.t').values({}).execute()", &["1 write `eng.t` (insertinto)"]),
            ("a.java", "@Entity\n@Table(name = \"t\", schema = \"eng\")\nclass T {}", &["2 mapping schema `eng`"]),
            ("a.kt", "object T : Table(\"eng.t\")", &["1 mapping `eng.t`"]),
            (
                "a.cs",
                "[Table(\"t\", Schema = \"eng\")]\nb.ToTable(\"t\", \"eng\");",
                &["1 mapping schema `eng`", "2 mapping schema `eng`"],
            ),
            ("a.rb", "class T < ApplicationRecord\n  self.table_name = 'eng.t'\nend", &["2 mapping `eng.t`"]),
            ("a.php", "<?php class T extends Model { protected $table = 'eng.t'; }", &["1 mapping `eng.t`"]),
            ("a.go", "func (T) TableName() string {\n\treturn \"eng.t\"\n}", &["2 mapping `eng.t`"]),
            ("a.rs", "diesel::table! {\n    eng.t (id) {\n        id -> Int4,\n    }\n}", &["2 mapping `eng.t`"]),
            ("a.ex", "@schema_prefix \"eng\"\nschema \"t\" do\nend", &["1 mapping schema `eng`"]),
            ("a.py", "log.info('x', schema='eng'); d = {'schema': 'eng'}", &[]),
            ("a.ts", "const t = pgSchema('vh').table('t', {});", &[]),
        ],
    );
}

#[test]
fn builders_and_migrations_are_found() {
    check(
        PROJECT,
        &[
            ("a.py", "op.add_column('t', Column('a'), schema='eng')", &["1 write schema `eng` (add_column)"]),
            ("a.py", "frame.to_sql('t', engine, schema='eng')", &["1 write schema `eng` (to_sql)"]),
            ("a.rb", "create_table 'eng.t' do |t|\nend", &["1 write `eng.t` (create_table)"]),
            (
                "a.ts",
                "await knex.schema.withSchema('eng').createTable('t', (t) => {})",
                &["1 write schema `eng` (createtable)"],
            ),
            ("a.ts", "q.update('eng.t').set({ a: 1 })", &["1 write `eng.t` (update)"]),
            ("a.go", "sq.Insert(\"eng.t\").Columns(\"a\")", &["1 write `eng.t` (insert)"]),
            ("a.go", "c.CopyFrom(ctx, pgx.Identifier{\"eng\", \"t\"}, rows)", &["1 write schema `eng` (CopyFrom)"]),
            ("a.ts", "hash.update('eng.t').digest()", &[]),
        ],
    );
}

#[test]
fn strings_put_together_are_one() {
    check(
        PROJECT,
        &[
            ("a.py", "q = 'INSERT INTO eng.' + 't VALUES (1)'", &["1 write `eng.t` (INSERT)"]),
            ("a.py", "q = with_clause + 'DELETE FROM eng.t'", &["1 write `eng.t` (DELETE)"]),
            ("a.js", "q = 'SELECT 1;' +\n  // more\n  'TRUNCATE eng.t'", &["3 write `eng.t` (TRUNCATE)"]),
            ("a.py", "x(\"BEGIN; UPDATE eng.t SET a = 1; COMMIT;\")", &["1 write `eng.t` (UPDATE)"]),
            ("a.py", "x('''\n  -- why\n  /* how */ DELETE FROM eng.t''')", &["3 write `eng.t` (DELETE)"]),
            ("a.kt", "q = \"\"\"\n  |DELETE\n  |FROM eng.t\n  \"\"\".trimMargin()", &["3 write `eng.t` (DELETE)"]),
            (
                "a.js",
                "q = 'DELETE FROM ' + t\nr = 1 + 'x'\ns = 'TRUNCATE eng.t'",
                &["1 unknown", "3 write `eng.t` (TRUNCATE)"],
            ),
        ],
    );
}

/// The texts of docs/decisions/0005.
#[test]
fn texts_that_no_grammar_accepts_are_understood() {
    check(
        PROJECT,
        &[
            ("a.py", "q = 'INSERT INTO eng.t ('", &["1 write `eng.t` (INSERT)"]),
            ("a.py", "q = 'INSERT INTO {schema}.t VALUES (1)'", &["1 unknown"]),
            ("a.py", "q = 'INSERT INTO %s VALUES (%s)'", &["1 unknown"]),
            ("a.py", "q = 'UPDATE eng.t '", &["1 unknown"]),
            ("a.py", "q = ', x AS (DELETE FROM eng.t RETURNING *)'", &["1 write `eng.t` (DELETE)"]),
            ("a.py", "q = 'BEGIN UPDATE eng.t SET a = 1; END'", &["1 write `eng.t` (UPDATE)"]),
            ("a.py", "q = \"\\\\copy eng.t from 'x.csv'\"", &["1 write `eng.t` (COPY FROM)"]),
            ("a.py", "q = 'DELETE FROM :schema.t'", &["1 unknown"]),
            (
                "a.py",
                "q = 'MERGE INTO eng.t x USING vh.s ON true WHEN MATCHED THEN DELETE'",
                &["1 write `eng.t` (MERGE)"],
            ),
            ("a.py", "q = 'CREATE RULE r AS ON INSERT TO eng.t DO INSTEAD NOTHING'", &["1 write `eng.t` (CREATE)"]),
            (
                "a.py",
                "q = 'IMPORT FOREIGN SCHEMA x FROM SERVER s INTO eng'",
                &["1 write schema `eng` (IMPORT FOREIGN SCHEMA)"],
            ),
            ("a.py", "q = 'REFRESH MATERIALIZED VIEW eng.v'", &["1 write `eng.v` (REFRESH)"]),
        ],
    );
}

#[test]
fn misread_strings_are_a_suspicion() {
    // The quote that opens nothing turns the string inside out.
    assert_eq!(one("a.go", "x := ` `\" `\ny := `DELETE FROM eng.t WHERE a`"), ["apps/vh/a.go:2 unknown"]);
}

#[test]
fn reads_are_judged_where_they_are_listed() {
    let project =
        PROJECT.replace("may_write = [\"vh\", \"vh_*\"]", "may_write = [\"vh\", \"vh_*\"]\nmay_read = [\"views\"]");
    check(
        &project,
        &[
            ("a.sql", "INSERT INTO vh.t\nSELECT * FROM eng.t", &["2 read `eng.t`"]),
            ("a.sql", "SELECT * FROM vh.a, eng.t x JOIN eng.s ON true", &["1 read `eng.t`", "1 read `eng.s`"]),
            ("a.sql", "SELECT * FROM views.a, vh.b, pg_catalog.pg_class, generate_series(1, 2) AS eng_x", &[]),
            ("a.sql", "SELECT * FROM eng_t", &["1 read `eng_t`"]),
            ("a.sql", "WITH eng_t AS (SELECT 1) SELECT * FROM eng_t", &[]),
            ("a.sql", "SELECT extract(year FROM eng.a) FROM vh.t eng WHERE a IS DISTINCT FROM eng.b", &[]),
            ("a.sql", "DELETE FROM vh.t USING eng.t", &["1 read `eng.t`"]),
            ("a.sql", "COPY eng.t TO STDOUT", &["1 read `eng.t`"]),
            ("a.sql", "CREATE TABLE vh.t (a int REFERENCES eng.t)", &["1 read `eng.t`"]),
            ("a.sql", "SELECT * FROM other.t", &["1 undeclared `other.t`"]),
            ("a.sql", "MERGE INTO vh.t USING vh.s ON true WHEN MATCHED THEN UPDATE SET a = 1, eng_b = 2", &[]),
            ("a.py", "f'SELECT * FROM {t}'", &["1 unknown"]),
            ("a.ts", "supabase.schema('eng').from('t').select()", &["1 read `eng.t`"]),
        ],
    );
}

#[test]
fn what_no_tree_declares_is_a_note() {
    let found = one(
        "a.sql",
        "INSERT INTO audit.log VALUES (1);\nINSERT INTO log VALUES (1);\nINSERT INTO pg_temp.x VALUES (1);",
    );
    assert_eq!(found, ["apps/vh/a.sql:1 undeclared `audit.log` (INSERT)"]);
}

#[test]
fn longer_prefix_says_more() {
    let project = "[code.vh]\nfiles = [\"apps/vh/**\"]\nmay_write = [\"public\", \"vh_*\"]\n[code.eng]\nfiles = [\"apps/eng/**\"]\nmay_write = [\"eng\", \"vh_eng_*\"]\n";
    let text = "UPDATE vh_eng_t SET a = 1;\nUPDATE vh_t SET a = 1;\nUPDATE public.x SET a = 1;\n";
    assert_eq!(with(project, "a.sql", text), ["apps/vh/a.sql:1 write `vh_eng_t` (UPDATE)"]);
    assert_eq!(with(project, "a.py", "f'UPDATE vh_{x} SET a = 1'"), ["apps/vh/a.py:1 unknown"]);
}

#[test]
fn file_of_two_trees_obeys_both() {
    let project = PROJECT.replace("apps/eng/**\"", "apps/eng/**\", \"apps/vh/both.sql\"");
    let found = with(&project, "both.sql", "DELETE FROM eng.t;\nDELETE FROM vh.t;\n");
    assert_eq!(found, ["apps/vh/both.sql:1 write `eng.t` (DELETE)", "apps/vh/both.sql:2 write `vh.t` (DELETE)"]);
}

#[test]
fn ignored_files_and_those_taken_out_are_not_read() {
    let place = Place::new();
    place.write(".gitignore", "dist/\n");
    for path in ["a.sql", "dist/a.sql", "vendor/a.sql", ".hidden/a.sql"] {
        place.write(&format!("apps/vh/{path}"), "DELETE FROM eng.t;");
    }
    let project = PROJECT.replace("\"apps/vh/**\"", "\"apps/vh/**\", \"!apps/vh/vendor/**\"");
    let found = told(&place.review(&project));
    assert_eq!(found, ["apps/vh/.hidden/a.sql:1 write `eng.t` (DELETE)", "apps/vh/a.sql:1 write `eng.t` (DELETE)"]);
}

#[test]
fn tree_without_files_is_an_error() {
    let place = Place::new();
    place.write("apps/vh/README.md", "Nothing that runs.");
    std::fs::remove_file(place.0.path().join("apps/vh/ours.sql")).unwrap();
    let review = place.review(PROJECT);
    assert_eq!(told(&review), ["pgrunbook.toml:3 no-files"]);
    assert_eq!(review.found[0].severity, Severity::Error);
}

#[test]
fn files_that_cannot_be_read_are_unknown() {
    let place = Place::new();
    place.write("apps/vh/binary.bin", b"a\0b");
    place.write("apps/vh/latin.py", b"x = '\xE9'");
    place.write("apps/vh/logo.png", b"\x89PNG\0");
    std::fs::File::create(place.0.path().join("apps/vh/long.sql")).unwrap().set_len(LONGEST + 1).unwrap();
    std::os::unix::fs::symlink("nowhere", place.0.path().join("apps/vh/broken.sql")).unwrap();
    std::os::unix::fs::symlink("../eng", place.0.path().join("apps/vh/folder")).unwrap();
    std::os::unix::fs::symlink("../eng/ours.sql", place.0.path().join("apps/vh/linked.sql")).unwrap();
    let review = place.review(PROJECT);
    let messages: Vec<_> = review.found.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "unknown: apps/vh/binary.bin was not reviewed, it is no text (line 1: a NUL byte)",
            "unknown: apps/vh/broken.sql was not reviewed, it cannot be read: No such file or directory (os error 2)",
            "unknown: apps/vh/folder was not reviewed, it cannot be read: a link to a folder is not followed",
            "unknown: apps/vh/latin.py was not reviewed, it is no text (line 1: a byte that is not UTF-8)",
            "`vh` writes `eng.t` (INSERT), where only `eng` may",
            "unknown: apps/vh/long.sql was not reviewed, it is longer than 4 MiB",
        ]
    );
    assert_eq!((review.count(Severity::Unknown), review.file_count), (5, 8));
}

#[test]
fn secrets_beside_a_finding_are_blotted_out() {
    let place = Place::new();
    place.write("apps/vh/a.sql", "ALTER ROLE x PASSWORD 'hunter2-and-more';\nDELETE FROM eng.t;\n");
    let review = place.review(PROJECT);
    assert_eq!(told(&review), ["apps/vh/a.sql:2 write `eng.t` (DELETE)"]);
    assert!(!review.sources[0].text.contains("hunter2"), "{}", review.sources[0].text);
}

#[test]
fn mistakes_in_the_project_have_their_place() {
    let refused = |text: &str| match Code::read(text).map(|code| review(std::path::Path::new("/nonexistent"), &code)) {
        Err(crate::ProjectError::Malformed { text, span: Some(span), message, .. })
        | Ok(Err(ReviewError::Project(crate::ProjectError::Malformed { text, span: Some(span), message, .. }))) => {
            format!("{}: {message}", &text[span])
        }
        other => format!("{other:?}"),
    };
    assert_eq!(
        refused("[code.vh]\nfiles = [\"a\"]\nmay_write = [\"vh\", \"eng.t\"]\n"),
        "\"eng.t\": `eng.t` is neither a schema, such as `vh`, nor a prefix of tables, such as `vh_*`"
    );
    assert_eq!(
        refused("[code.vh]\nfiles = [\"../x/**\"]\nmay_write = []\n"),
        "[\"../x/**\"]: `../x/**` leads out of the project; only files below it are read"
    );
    assert!(refused("[code.vh]\nfiles = [\"a\"]\nmay_wrtie = []\n").starts_with("may_wrtie: unknown field"));
    let none = review(std::path::Path::new("/nonexistent"), &Code::read("").unwrap()).unwrap_err();
    assert_eq!(none.to_string(), "pgrunbook.toml declares no trees of code");
}

#[test]
fn guide_tells_of_every_rule() {
    let page = include_str!("../../../../docs/guide/boundary.md");
    let told: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .filter(|(code, _)| code.starts_with("boundary-"))
        .collect();
    assert_eq!(told, RULES);
}

const NAMES: &[&str] = &[
    "a.sql", "a.rs", "a.py", "a.ts", "a.go", "a.java", "a.kt", "a.rb", "a.php", "a.cs", "a.sh", "a.c", "a.ex", "a.yml",
];

/// Pieces that mean something to a scanner, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let known = [
        "'",
        "\"",
        "`",
        "\"\"\"",
        "'''",
        "${",
        "#{",
        "{",
        "}",
        "{{",
        "$(",
        "(",
        ")",
        "<<EOF\n",
        "\nEOF\n",
        "<<~SQL\n",
        "\nSQL\n",
        "<<<SQL\n",
        "r#\"",
        "\"#",
        "f\"",
        "$\"",
        "@\"",
        "%q(",
        "/",
        "//",
        "#",
        "--",
        "/*",
        "*/",
        "\\",
        "\\u{",
        "\n",
        " ",
        "+",
        ".",
        ",",
        ";",
        "=",
        "INSERT INTO ",
        "DELETE FROM ",
        "UPDATE ",
        " SET ",
        "COPY ",
        " FROM ",
        "SELECT ",
        " INTO ",
        "MERGE INTO ",
        "CREATE FUNCTION ",
        "DO $$",
        "$$",
        "EXECUTE ",
        "BEGIN ",
        "eng",
        "eng.t",
        "vh.t",
        "\"eng\"",
        "%s",
        ":x",
        "$1",
        "?",
        "é",
        "\u{F8F0}",
        "search_path",
        "SET ",
        "schema",
        "from",
        "insert",
        "table!",
        "psql -c ",
        "<?php ",
        "?>",
        "\r\n",
        "\0",
        "ALTER TABLE ",
        "GRANT ",
        " ON ",
        "TRUNCATE ",
    ];
    prop::collection::vec(prop::sample::select(known.to_vec()), 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), pieces()], name in prop::sample::select(NAMES.to_vec())) {
        let project = PROJECT.replace("may_write = [\"vh\"", "may_read = [\"views\"]\nmay_write = [\"vh\"");
        for tree in 0..2 {
            for one in crossings::judged_text(&Code::read(&project).unwrap().trees, tree, name, &text) {
                prop_assert!(one.start <= text.len());
            }
        }
    }

    #[test]
    fn statement_is_found_wherever_it_stands(before in "[a-z ]{0,12}", after in "[a-z ]{0,12}", blank in "[ \n\t]{1,4}") {
        let text = format!("x = \"{before}\"\ny = '''DELETE{blank}FROM{blank}eng.t'''\nz = \"{after}\"\n");
        let found = crossings::judged_text(&Code::read(PROJECT).unwrap().trees, 1, "a.py", &text);
        prop_assert!(found.iter().any(|range| &text[range.clone()] == "eng.t"), "{text}: {found:?}");
    }
}

/// What comes after a statement does not take it back, however deep or long it is.
#[test]
fn deep_and_long_texts_are_read_to_their_end() {
    let trees = Code::read(PROJECT).unwrap().trees;
    for unit in [
        "'",
        "\\'",
        "\"",
        "`${",
        "f\"{",
        "f\"{\n",
        "=/[",
        "x = /",
        "<<EOF\n",
        "<<~SQL ",
        "%q(",
        "do ",
        "from(",
        "table!",
        "schema('a').",
        "'a'+f 'b'+",
        "dblink(",
        "(",
        "create function f ",
        "update ",
        "{",
        "/*",
        "$(",
        "\"${",
        "execute ",
        "$$",
        "insert into ",
        "| ",
    ] {
        for name in NAMES {
            let statement = match *name {
                "a.sql" => "DELETE FROM eng.t;",
                "a.php" => "<?php $q = \"DELETE FROM eng.t\";",
                _ => "q = \"DELETE FROM eng.t\";",
            };
            let text = format!("{statement}\n{}", unit.repeat(5_000 / unit.len()));
            let found = crossings::judged_text(&trees, 1, name, &text);
            assert_eq!(found.first().map(|range| &text[range.clone()]), Some("eng.t"), "{name}: {unit:?}");
        }
    }
}
