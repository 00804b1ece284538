//! The structure of a nasty legacy schema, made under another name, and proven to be the same.

use std::time::{Duration, Instant, SystemTime};

use pgrunbook_document::StepId;
use pgrunbook_engine::Cancel;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared_of};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::backup::programs::Audience;
use pgrunbook_steps::transfer::preflight::Wanted;
use pgrunbook_steps::transfer::structure::{Structure, create_before, derive, drop_marked, run};
use pgrunbook_steps::transfer::{Severity, TransferError, to_table};

use crate::preflight::{cluster, connect};

struct Deaf;

impl Watcher for Deaf {
    fn progress(&self, _: &StepId, _: Progress) {}
}

/// Extensions that only the system's servers have.
const EXTENSIONS: &str = "CREATE EXTENSION citext; CREATE EXTENSION pg_trgm;
CREATE TABLE public.words (id int PRIMARY KEY, w public.citext NOT NULL UNIQUE, body text);
CREATE INDEX words_trgm ON public.words USING gin (body public.gin_trgm_ops);
CREATE VIEW public.alike AS SELECT a.id FROM public.words a WHERE a.w = 'X' AND public.similarity(a.body, 'y') > 0.5;
CREATE FUNCTION public.fold(w text) RETURNS public.citext LANGUAGE plpgsql SET search_path TO 'public', 'pg_temp'
    AS $$ DECLARE c public.citext := w; BEGIN RETURN c; END $$;
";

const NASTY: &str = r#"
CREATE TYPE public.mood AS ENUM ('sad', 'public.ok', 'it''s');
CREATE DOMAIN public.short AS text CONSTRAINT few CHECK (length(VALUE) < 9);
CREATE TYPE public.point3 AS (x int, "y Z" public.short);
CREATE TYPE public.span AS RANGE (subtype = float8);
CREATE SEQUENCE public.free_seq START 7 INCREMENT 3 MAXVALUE 999 CACHE 5 CYCLE;
CREATE FUNCTION public.twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2 -- public.twice';
CREATE TABLE public.acct (
    id bigint GENERATED ALWAYS AS IDENTITY (START 100) PRIMARY KEY,
    n int NOT NULL DEFAULT nextval('public.free_seq'),
    doubled int GENERATED ALWAYS AS (public.twice(n)) STORED,
    feeling public.mood DEFAULT 'public.ok',
    spot public.point3,
    reach public.span,
    visibility text DEFAULT 'public' CHECK (visibility IN ('public', 'private')),
    tags text[] DEFAULT '{}', body text COLLATE "C", gone int,
    CONSTRAINT "n >= 0" CHECK (n >= 0));
ALTER TABLE public.acct DROP COLUMN gone, ALTER COLUMN n SET STATISTICS 500, ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE public."My ""odd"" Täble
second line" ("A b" serial PRIMARY KEY, acct bigint, "select" text UNIQUE DEFERRABLE INITIALLY DEFERRED) WITH (fillfactor = 70);
ALTER TABLE public."My ""odd"" Täble
second line" ADD CONSTRAINT "to acct" FOREIGN KEY (acct) REFERENCES public.acct ON DELETE CASCADE NOT VALID;
CREATE TABLE public.log (at date NOT NULL, id int NOT NULL, what text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
CREATE TABLE public.log_old PARTITION OF public.log FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
CREATE TABLE public.log_rest PARTITION OF public.log DEFAULT PARTITION BY LIST (id);
CREATE TABLE public.log_rest_1 PARTITION OF public.log_rest DEFAULT;
CREATE INDEX log_what ON public.log (what) INCLUDE (id);
CREATE TABLE public.child (more int) INHERITS (public.acct);
CREATE UNLOGGED TABLE public.cache (k text NOT NULL, v jsonb);
CREATE UNIQUE INDEX cache_k ON public.cache (k); ALTER TABLE public.cache REPLICA IDENTITY USING INDEX cache_k;
CREATE INDEX acct_lower ON public.acct (lower(body)) WHERE n > 3;
CREATE STATISTICS public.acct_stat (dependencies) ON n, visibility FROM public.acct;
ALTER TABLE public.acct ADD CONSTRAINT later CHECK (n < 1000000) NOT VALID;
CREATE VIEW public.rich AS SELECT a.id, a.n, a.spot FROM public.acct a WHERE a.feeling = 'sad' WITH LOCAL CHECK OPTION;
CREATE VIEW public."Rich ER" AS SELECT r.*, to_regclass('public.acct'::text) AS oid FROM public.rich r;
CREATE MATERIALIZED VIEW public.sums AS SELECT a.visibility, sum(a.n) FROM public.acct a GROUP BY 1;
CREATE MATERIALIZED VIEW public.a_sums AS SELECT count(*) FROM public.sums;
CREATE MATERIALIZED VIEW public.never AS SELECT 1 AS one WITH NO DATA;
CREATE UNIQUE INDEX sums_key ON public.sums (visibility);
CREATE VIEW public.grouped AS SELECT a.id, a.n FROM public.acct a GROUP BY a.id;
CREATE FUNCTION public.atomic(i int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM public.acct a WHERE a.n > i; END;
CREATE FUNCTION public.texty(i bigint) RETURNS public.acct LANGUAGE sql AS $_$ SELECT * FROM public.acct WHERE id = $1 $_$;
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path TO 'public', 'pg_temp' AS $f$
DECLARE r public.acct%ROWTYPE; -- public.acct
BEGIN
    SELECT * INTO r FROM public.acct WHERE id = new.id;
    PERFORM nextval('free_seq');
    IF new.visibility = 'public' THEN RAISE NOTICE 'it''s public, see www.public.acct'; END IF;
    RETURN new;
END $f$;
CREATE TRIGGER stamp BEFORE UPDATE OF n ON public.acct FOR EACH ROW WHEN (old.n IS DISTINCT FROM new.n) EXECUTE FUNCTION public.stamp();
ALTER TABLE public.acct DISABLE TRIGGER stamp;
CREATE PROCEDURE public.sweep(t text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'TRUNCATE ' || quote_ident(t); END $$;
CREATE AGGREGATE public.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
ALTER TABLE public.acct ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON public.acct AS RESTRICTIVE FOR SELECT USING (n = public.twice(1) OR EXISTS (SELECT FROM public.log l WHERE l.id = acct.n));
CREATE RULE keep AS ON DELETE TO public.log_old DO INSTEAD NOTHING;
COMMENT ON TABLE public.acct IS 'rows of public.acct; it''s data';
COMMENT ON COLUMN public.acct.n IS 'a number';
COMMENT ON FUNCTION public.twice(int) IS 'doubles';
COMMENT ON CONSTRAINT "to acct" ON public."My ""odd"" Täble
second line" IS 'late';
INSERT INTO public.acct (n, body) VALUES (1, 'see public.acct');
REFRESH MATERIALIZED VIEW public.sums; REFRESH MATERIALIZED VIEW public.a_sums;
"#;

const SCHEMA: &str = "Tenant 1";

pub async fn derived(
    from: &ConnectOptions,
    to: &ConnectOptions,
    wanted: &Wanted,
    accept: &[&str],
) -> Result<Structure, TransferError> {
    let step: StepId = "schema".parse().unwrap();
    let accept: Vec<String> = accept.iter().map(|word| (*word).to_owned()).collect();
    derive(from, to, wanted, &accept, Audience { step: &step, watcher: &Deaf, cancel: &Cancel::default() }).await
}

pub async fn databases(from: &Sandbox, to: &Sandbox, source: &str, target: &str) -> (ConnectOptions, ConnectOptions) {
    let (from, to) = (from.fresh_database("str_from").await.unwrap(), to.fresh_database("str_to").await.unwrap());
    connect(&from).await.execute(source).await.unwrap();
    connect(&to).await.execute(target).await.unwrap();
    (from, to)
}

async fn make(to: &ConnectOptions, structure: &Structure, schema: &str) -> Session {
    let mut session = connect(to).await;
    create_before(&mut session, structure, schema, "t1").await.unwrap();
    session.execute(pgrunbook_steps::transfer::structure::PREAMBLE).await.unwrap();
    run(&session, &structure.after, schema, "").await.unwrap();
    session
}

fn text_of<'a>(structure: &'a Structure, kind: &str, name: &str) -> &'a str {
    let mut all = structure.before.iter().chain(&structure.after);
    let found = all.find(|one| one.kind == kind && one.name == name);
    &found.unwrap_or_else(|| panic!("no {kind} {name}")).sql
}

/// Whole, on one pair of versions; `extensions` where both have their files.
async fn whole(from: &Sandbox, to: &Sandbox, source: &str, target: &str) -> Structure {
    let (from, to) = databases(from, to, source, target).await;
    let wanted = Wanted::new(SCHEMA);
    let structure = derived(&from, &to, &wanted, &["dynamic-sql"]).await.unwrap();
    assert!(structure.refused.is_empty(), "{}", to_table(&structure.refused));
    let session = make(&to, &structure, SCHEMA).await;
    structure.verify(&session).await.unwrap();
    // Not one text but comments and rows names the old schema.
    for object in structure.before.iter().chain(&structure.after).filter(|one| one.kind != "COMMENT") {
        let bare = object.sql.replace("-- public.", "").replace("'public.ok'", "").replace("www.public.", "");
        // An extension that the target has in its public stays there.
        let bare = bare.replace("public.similarity(", "").replace("public.gin_trgm_ops", "");
        assert!(!bare.contains("public."), "{}", object.sql);
    }
    let kinds: Vec<&str> = structure.before.iter().map(|one| one.kind.as_str()).collect();
    assert!(kinds.contains(&"TABLE") && kinds.contains(&"VIEW") && !kinds.contains(&"FK CONSTRAINT"), "{kinds:?}");
    assert!(text_of(&structure, "FUNCTION", "stamp()").contains("SET search_path TO 'Tenant 1'"));
    let foreign = structure.after.iter().find(|one| one.kind == "FK CONSTRAINT").unwrap();
    assert!(foreign.sql.contains("NOT VALID"), "{}", foreign.sql);
    assert_eq!(foreign.table.as_deref(), Some("My \"odd\" Täble\nsecond line"));
    let refreshed: Vec<_> = structure
        .after
        .iter()
        .filter(|one| one.kind == "MATERIALIZED VIEW DATA")
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(refreshed, ["sums", "a_sums"]);
    // Nobody leaves a scratch database behind.
    let left = session.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'pgrunbook_scratch_%' AND datname LIKE '%' || pg_backend_pid()").await;
    assert_eq!(left.unwrap(), "0");
    structure
}

#[tokio::test]
async fn a_nasty_schema_is_made_under_another_name() {
    let cluster = cluster().await;
    let target = "CREATE SCHEMA shared; CREATE EXTENSION citext SCHEMA shared; CREATE EXTENSION pg_trgm SCHEMA public";
    let structure = whole(&cluster, &cluster, &format!("{EXTENSIONS}{NASTY}"), target).await;
    let fold = text_of(&structure, "FUNCTION", "fold(text)");
    assert!(fold.contains("RETURNS shared.citext") && fold.contains("DECLARE c shared.citext"), "{fold}");
    assert!(fold.contains("SET search_path TO 'Tenant 1', 'public', 'shared', 'pg_temp'"), "{fold}");
    assert!(
        structure.notes.iter().any(|one| one.code == "dynamic-sql-unseen" && one.object.starts_with("PROCEDURE sweep"))
    );
    assert!(structure.notes.iter().any(|one| one.code == "comment"), "{}", to_table(&structure.notes));
    assert!(structure.rewritten.iter().any(|one| one.object == "FUNCTION stamp()" && !one.dynamic));
    assert!(structure.rewritten.iter().any(|one| one.object == "VIEW Rich ER" && one.dynamic));
}

#[tokio::test]
async fn from_14_to_18() {
    let (from, to) = (shared_of(14, "structure-tests").await.unwrap(), shared_of(18, "structure-tests").await.unwrap());
    whole(&from, &to, NASTY, "").await;
}

#[tokio::test]
async fn from_15_to_17() {
    let to = shared_of(17, "structure-tests").await.unwrap();
    whole(&cluster().await, &to, NASTY, "").await;
}

const SMALL: &str = "CREATE TABLE public.a (id int PRIMARY KEY, b int); CREATE TABLE public.b (id int PRIMARY KEY);
CREATE INDEX a_b ON public.a (b);
CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';";

fn codes(structure: &Structure) -> Vec<(&'static str, Severity, String)> {
    structure.refused.iter().map(|one| (one.code, one.severity, one.object.clone())).collect()
}

#[tokio::test]
async fn what_becomes_sql_later_takes_consent() {
    let cluster = cluster().await;
    let source = format!(
        "{SMALL} CREATE FUNCTION public.g(t text) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN EXECUTE format('DELETE FROM public.%I', t); END $$;"
    );
    let (from, to) = databases(&cluster, &cluster, &source, "").await;
    let wanted = Wanted::new("tenant");
    let without = derived(&from, &to, &wanted, &[]).await.unwrap();
    assert_eq!(codes(&without), [("dynamic-sql", Severity::Consent("dynamic-sql"), "FUNCTION g(text)".to_owned())]);
    let shown = &without.refused[0].what;
    assert!(shown.contains("-         BEGIN EXECUTE format('DELETE FROM public.%I'"), "{shown}");
    assert!(shown.contains("+         BEGIN EXECUTE format('DELETE FROM tenant.%I'"), "{shown}");
    assert!(matches!(without.ready(), Err(TransferError::Findings { findings }) if findings.len() == 1));
    let with = derived(&from, &to, &wanted, &["dynamic-sql"]).await.unwrap();
    let session = make(&to, with.ready().unwrap(), "tenant").await;
    with.verify(&session).await.unwrap();
    session
        .execute("CREATE TABLE public.a (id int); INSERT INTO public.a VALUES (1); INSERT INTO tenant.a VALUES (1)")
        .await
        .unwrap();
    session.execute("SELECT tenant.g('a')").await.unwrap();
    let left = session.value("SELECT (SELECT count(*) FROM public.a) || ' ' || (SELECT count(*) FROM tenant.a)").await;
    assert_eq!(left.unwrap(), "1 0");
}

#[tokio::test]
async fn a_difference_is_told() {
    let cluster = cluster().await;
    let (from, to) = databases(&cluster, &cluster, SMALL, "").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    let session = make(&to, &structure, "tenant").await;
    structure.verify(&session).await.unwrap();
    session
        .execute(
            "DROP INDEX tenant.a_b; ALTER TABLE tenant.a ALTER b SET DEFAULT 1; CREATE INDEX more ON tenant.b (id);
             CREATE OR REPLACE FUNCTION tenant.f() RETURNS int LANGUAGE sql AS 'SELECT 1 / 0 FROM nowhere';",
        )
        .await
        .unwrap();
    let Err(TransferError::Differs { differences }) = structure.verify(&session).await else { panic!("the same") };
    let text = differences.join("\n");
    for part in [
        "index a_b is missing",
        "column a.b is `2 integer",
        "function f() is `",
        "index more is there and was not wanted",
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    assert!(text.contains("function f() does not compile: relation \"nowhere\" does not exist"), "{text}");
    assert_eq!(differences.len(), 5, "{text}");
}

#[tokio::test]
async fn only_what_is_marked_is_dropped() {
    let cluster = cluster().await;
    let (from, to) =
        databases(&cluster, &cluster, SMALL, "CREATE SCHEMA theirs; CREATE TABLE theirs.kept (id int)").await;
    let mut session = connect(&to).await;
    // Made for the transfer: gone again with all that is in it.
    let structure = derived(&from, &to, &Wanted::new("made"), &[]).await.unwrap();
    create_before(&mut session, &structure, "made", "t1").await.unwrap();
    let comment = "SELECT obj_description('made'::regnamespace, 'pg_namespace')";
    assert_eq!(session.value(comment).await.unwrap(), "pgrunbook: transfer t1");
    let twice = create_before(&mut session, &structure, "made", "t2").await.unwrap_err();
    assert!(matches!(twice, TransferError::Stranger { .. }), "{twice}");
    for wrong in [("made", "t2"), ("theirs", "t1"), ("public", "t1")] {
        let refused = drop_marked(&mut session, wrong.0, wrong.1).await.unwrap_err();
        assert!(matches!(refused, TransferError::Stranger { .. }), "{refused}");
    }
    session.execute("CREATE VIEW public.outside AS SELECT id FROM made.a").await.unwrap();
    let rested = drop_marked(&mut session, "made", "t1").await.unwrap_err();
    assert!(rested.to_string().contains("view outside"), "{rested}");
    session.execute("DROP VIEW public.outside").await.unwrap();
    assert!(drop_marked(&mut session, "made", "t1").await.unwrap());
    assert!(!drop_marked(&mut session, "made", "t1").await.unwrap());
    assert_eq!(session.value("SELECT to_regnamespace('made') IS NULL").await.unwrap(), "t");
    // There before: it stays, with what else is in it.
    let structure = derived(&from, &to, &Wanted::new("theirs"), &[]).await.unwrap();
    create_before(&mut session, &structure, "theirs", "t1").await.unwrap();
    assert_eq!(session.value("SELECT count(*) FROM theirs.a").await.unwrap(), "0");
    assert!(drop_marked(&mut session, "theirs", "t1").await.unwrap());
    let left = session
        .value("SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'theirs'::regnamespace")
        .await;
    assert_eq!(left.unwrap(), "kept");
    assert_eq!(
        session.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'theirs'::regnamespace").await.unwrap(),
        "0"
    );
}

#[tokio::test]
async fn it_belongs_to_the_owner_that_is_named() {
    let cluster = cluster().await;
    let (from, to) = databases(&cluster, &cluster, SMALL, "").await;
    let owner = format!("owner_{}", to.database);
    let mut session = connect(&to).await;
    session.execute(&format!("CREATE ROLE {owner} NOLOGIN")).await.unwrap();
    let mut structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    structure.owner = Some(owner.clone());
    create_before(&mut session, &structure, "tenant", "t1").await.unwrap();
    let owners = "SELECT string_agg(DISTINCT o::regrole::text, ',') FROM (
        SELECT relowner AS o FROM pg_class WHERE relnamespace = 'tenant'::regnamespace
        UNION ALL SELECT nspowner FROM pg_namespace WHERE nspname = 'tenant'
        UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'tenant'::regnamespace) AS all_of";
    assert_eq!(session.value(owners).await.unwrap(), owner);
    assert_eq!(session.value("SELECT current_user").await.unwrap(), "postgres");
    assert!(drop_marked(&mut session, "tenant", "t1").await.unwrap());
    session.execute(&format!("DROP ROLE {owner}")).await.unwrap();
}

#[tokio::test]
async fn a_schema_made_anew_by_somebody_is_a_stranger() {
    let cluster = cluster().await;
    let (from, to) = databases(&cluster, &cluster, SMALL, "").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    let mut session = connect(&to).await;
    create_before(&mut session, &structure, "tenant", "t1").await.unwrap();
    session
        .execute("DROP SCHEMA tenant CASCADE; CREATE SCHEMA tenant; CREATE TABLE tenant.a (theirs int)")
        .await
        .unwrap();
    let refused = drop_marked(&mut session, "tenant", "t1").await.unwrap_err();
    assert!(refused.to_string().contains("made again by somebody else"), "{refused}");
    assert_eq!(session.value("SELECT count(*) FROM tenant.a").await.unwrap(), "0");
}

#[tokio::test]
async fn what_cannot_be_made_changes_nothing() {
    let cluster = cluster().await;
    let (from, to) =
        databases(&cluster, &cluster, SMALL, "CREATE SCHEMA tenant; CREATE VIEW tenant.b AS SELECT 1").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    let mut session = connect(&to).await;
    let error = create_before(&mut session, &structure, "tenant", "t1").await.unwrap_err();
    assert!(matches!(&error, TransferError::Object { kind, name, .. } if kind == "TABLE" && name == "b"), "{error}");
    let there = session
        .value("SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'tenant'::regnamespace")
        .await;
    assert_eq!(there.unwrap(), "b");
    let refused = drop_marked(&mut session, "tenant", "t1").await.unwrap_err();
    assert!(refused.to_string().contains("it is not marked"), "{refused}");
}

#[tokio::test]
async fn tables_are_left_out_unless_something_rests_on_them() {
    let cluster = cluster().await;
    let (from, to) = databases(
        &cluster,
        &cluster,
        &format!("{SMALL} ALTER TABLE public.a ADD CONSTRAINT ab FOREIGN KEY (b) REFERENCES public.b"),
        "",
    )
    .await;
    let left = |name: &str| Wanted { exclude: vec![name.to_owned()], ..Wanted::new("tenant") };
    let structure = derived(&from, &to, &left("a"), &[]).await.unwrap();
    let tables: Vec<_> =
        structure.before.iter().filter(|one| one.kind == "TABLE").map(|one| one.name.as_str()).collect();
    assert_eq!((tables, structure.refused.len()), (vec!["b"], 0));
    assert!(structure.after.iter().all(|one| one.kind != "INDEX"));
    let structure = derived(&from, &to, &left("b"), &[]).await.unwrap();
    assert_eq!(codes(&structure), [("left-out", Severity::Refuse, "public.b".to_owned())]);
    assert!(structure.refused[0].what.contains("constraint ab on table public.a"), "{}", structure.refused[0].what);
}

#[tokio::test]
async fn what_rests_on_another_schema_is_refused() {
    let cluster = cluster().await;
    let source = format!(
        "{SMALL} CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY);
         CREATE VIEW public.v AS SELECT id FROM other.t; ALTER TABLE public.a ADD CONSTRAINT o FOREIGN KEY (b) REFERENCES other.t;"
    );
    let (from, to) = databases(&cluster, &cluster, &source, "").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    let told = to_table(&structure.refused);
    assert!(structure.refused.iter().all(|one| one.code == "other-schema"), "{told}");
    assert!(told.contains("view tenant.v") && told.contains("constraint o on table tenant.a"), "{told}");
}

#[tokio::test]
async fn a_foreign_table_is_left_out_by_consent() {
    let cluster = cluster().await;
    let source = format!(
        "{SMALL} CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE public.far (id int) SERVER s;"
    );
    let (from, to) = databases(&cluster, &cluster, &source, "").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    assert_eq!(
        codes(&structure),
        [("foreign-table", Severity::Consent("foreign-table"), "foreign table public.far".to_owned())]
    );
    let structure = derived(&from, &to, &Wanted::new("tenant"), &["foreign-table"]).await.unwrap();
    assert!(structure.refused.is_empty() && structure.before.iter().all(|one| one.name != "far"));
}

#[tokio::test]
async fn without_createdb_a_throwaway_cluster_does_and_policies_keep_their_roles() {
    let cluster = cluster().await;
    let (from, to) = databases(&cluster, &cluster, SMALL, "").await;
    let role = format!("plain_{}", to.database);
    connect(&from)
        .await
        .execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE POLICY p ON a TO {role} USING (true);
             CREATE FUNCTION public.broken() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; SET check_function_bodies = off;
             CREATE OR REPLACE FUNCTION public.broken() RETURNS int LANGUAGE sql AS $$ SELECT x FROM gone $$"
        ))
        .await
        .unwrap();
    connect(&to).await.execute(&format!("GRANT CREATE ON DATABASE {} TO {role}", to.database)).await.unwrap();
    let lesser = ConnectOptions { user: role.clone(), password: Some("x".to_owned()), ..to };
    let structure = derived(&from, &lesser, &Wanted::new("tenant"), &[]).await.unwrap();
    let session = make(&lesser, structure.ready().unwrap(), "tenant").await;
    structure.verify(&session).await.unwrap();
    assert!(text_of(&structure, "POLICY", "a p").contains(&format!(" TO {role} ")));
    // What never worked is told, and is no difference.
    assert!(structure.notes.iter().any(|one| one.code == "broken-function"), "{}", to_table(&structure.notes));
}

/// Another process's database is known by its second, its owner, and that somebody is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scratch_of_a_killed_process_is_swept_and_nobody_elses() {
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let (from, to) = databases(&cluster, &cluster, SMALL, "").await;
    let (session, wanted) = (connect(&to).await, Wanted::new("tenant"));
    let scratches = async || {
        let all = "SELECT coalesce(string_agg(datname, ' ' ORDER BY datname), '') FROM pg_database WHERE datname LIKE 'pgrunbook%'";
        session.value(all).await.unwrap()
    };
    // It dies in the middle: its connections are lost, and nobody drops what it made.
    let dies = tokio::spawn({
        let (from, to, wanted) = (from.clone(), to.clone(), wanted.clone());
        async move { derived(&from, &to, &wanted, &[]).await.map(drop) }
    });
    let begun = Instant::now();
    let left = loop {
        let left = scratches().await;
        if !left.is_empty() {
            break left;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no scratch database was made");
    };
    dies.abort();
    assert!(dies.await.unwrap_err().is_cancelled(), "it was still at work");
    let in_it = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{left}'");
    while session.value(&in_it).await.unwrap() != "0" {
        assert!(begun.elapsed() < Duration::from_secs(60), "its sessions stay");
    }
    // Within the hour it may be at work, for all that others know.
    derived(&from, &to, &wanted, &[]).await.unwrap();
    assert_eq!(scratches().await, left);

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (pid, long_ago) = (left.rsplit('_').next().unwrap().to_owned(), now - 2 * 3600);
    let old = format!("pgrunbook_scratch_{long_ago}_{pid}");
    session.execute(&format!("ALTER DATABASE {left} RENAME TO {old}")).await.unwrap();
    let used = format!("pgrunbook_scratch_{long_ago}_1");
    for name in [used.as_str(), "pgrunbook_scratch_1_mine", "pgrunbook_scratch_notes", "pgrunbook_scratchy_1_1"] {
        session.execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    }
    let user = connect(&to.with_database(&used)).await;
    // One who may drop only their own leaves it to its owner.
    session.execute("CREATE ROLE maker LOGIN CREATEDB PASSWORD 'maker'").await.unwrap();
    let maker = ConnectOptions { user: "maker".to_owned(), password: Some("maker".to_owned()), ..to.clone() };
    derived(&from, &maker, &wanted, &[]).await.unwrap();
    assert!(scratches().await.contains(&old), "{}", scratches().await);

    derived(&from, &to, &wanted, &[]).await.unwrap();
    let rest = format!("{used} pgrunbook_scratch_1_mine pgrunbook_scratch_notes pgrunbook_scratchy_1_1");
    assert_eq!(scratches().await, rest);
    assert_eq!(user.value("SELECT 1").await.unwrap(), "1", "nobody was thrown out");
}
