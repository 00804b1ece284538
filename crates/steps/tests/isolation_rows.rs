//! Isolation within a table: row security, append-only tables and status columns, tried with rows that are made for it.

use pgrunbook_postgres::sandbox::PoolMode;
use pgrunbook_steps::isolation::{About, Matrix, Verdict};
use pgrunbook_steps::topology::load;

use crate::bench::cluster;
use crate::isolation::{TOPOLOGY, World, is_healthy, set};

const ROWS: &str = r#"
[rls.tenant]
tables = ["shared.ledger"]
column = "community"
setting = "app.community"
type = "uuid"
guard = "shared.community"
without = "{without}"
roles = ["app_{tenant}{suffix}"]
pooler = "pool"
"#;

pub const ROWS_SQL: &str = r#"
SET ROLE owner{x};
CREATE FUNCTION shared.community() RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF coalesce(current_setting('app.community', true), '') = '' THEN {missing} END IF;
    RETURN current_setting('app.community', true)::uuid;
END $$;
CREATE TABLE shared.ledger (id int GENERATED ALWAYS AS IDENTITY, community uuid NOT NULL, amount numeric(8, 2) NOT NULL,
                            kind text NOT NULL CHECK (kind <> ''), at timestamptz DEFAULT now());
ALTER TABLE shared.ledger ENABLE ROW LEVEL SECURITY;
ALTER TABLE shared.ledger FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shared.ledger TO app_health{x}, app_general{x} USING (community = shared.community())
    WITH CHECK (community = shared.community());
GRANT SELECT, INSERT, UPDATE, DELETE ON shared.ledger TO app_health{x}, app_general{x};
GRANT EXECUTE ON FUNCTION shared.community() TO app_health{x}, app_general{x};
RESET ROLE;
"#;

/// As it is declared where there is no pooler.
pub fn without_pooler() -> String {
    ROWS.replace("{without}", "error").replace("pooler = \"pool\"\n", "")
}

async fn with_rows(without: &str, missing: &str, more: &str) -> World {
    let declared = ROWS.replace("{without}", without);
    let sql = format!("{}{more}", ROWS_SQL.replace("{missing}", missing));
    World::with(&declared, &sql).await
}

pub const RAISE: &str = "RAISE 'no community';";

pub fn about(matrix: &Matrix, about: About) -> Vec<String> {
    let checks = matrix.checks.iter().filter(|check| check.about == about);
    checks
        .map(|check| {
            let tried = &check.tried;
            format!(
                "{} {}{}",
                tried.verdict.word(),
                check.what,
                tried.why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
            )
        })
        .collect()
}

#[tokio::test]
async fn row_security_is_tried_with_rows_made_for_it() {
    let world = with_rows("error", RAISE, "").await;
    let matrix = world.prove().await;
    let found = about(&matrix, About::RowSecurity);
    let wanted = [
        "denied no context was ever set (shared.ledger)",
        "denied the context is empty (shared.ledger)",
        "denied rows of other tenants are hidden (shared.ledger)",
        "denied rows of other tenants are hidden (shared.ledger)",
        "denied no row of another tenant is inserted (shared.ledger)",
        "denied no row is given to another tenant (shared.ledger)",
        "denied no row of another tenant is changed (shared.ledger)",
        "denied no row of another tenant is deleted (shared.ledger)",
    ];
    assert_eq!(found, [wanted, wanted].concat());
    let check = matrix.checks.iter().find(|check| check.about == About::RowSecurity).unwrap();
    assert_eq!(check.tried.answer.sqlstate.as_deref(), Some("P0001"));
    let how = check.tried.control.as_deref().unwrap();
    assert!(how.contains("inserted for it") && how.contains("by session authorization"), "{how}");
    assert_eq!(world.value("SELECT count(*) FROM shared.ledger").await, "0");
}

#[tokio::test]
async fn row_security_that_fails_open_is_found() {
    // The guard answers NULL, and a policy beside it lets everybody read.
    let more = "CREATE POLICY open ON shared.ledger FOR SELECT USING (true);
                INSERT INTO shared.ledger (community, amount, kind) SELECT gen_random_uuid(), 1, 'k' FROM generate_series(1, 2);";
    let world = with_rows("hidden", "RETURN NULL;", more).await;
    let matrix = world.prove().await;
    let found = about(&matrix, About::RowSecurity);
    assert_eq!(found[0], "leaked no context was ever set (shared.ledger): rows are seen without a context");
    assert!(found[2].starts_with("leaked rows of other tenants are hidden"), "{found:#?}");
    assert!(found[4].starts_with("denied no row of another tenant is inserted"), "{found:#?}");
}

#[tokio::test]
async fn forged_rows_are_found() {
    let more = "DROP POLICY tenant ON shared.ledger;
                CREATE POLICY tenant ON shared.ledger USING (community = shared.community()) WITH CHECK (true);";
    let world = with_rows("error", RAISE, more).await;
    let matrix = world.prove().await;
    let leaked = world.with_verdict(&matrix, Verdict::Leaked);
    let of = |role: &str| {
        ["no row is given to another tenant", "no row of another tenant is inserted"]
            .map(|what| format!("{role} row security: {what} (shared.ledger)"))
    };
    assert_eq!(leaked, of("app_general").into_iter().chain(of("app_health")).collect());
}

#[tokio::test]
async fn row_security_without_two_tenants_is_inconclusive() {
    // No row can be made: nothing is known of the type.
    let more = "CREATE TYPE shared.pair AS (a int, b int); ALTER TABLE shared.ledger ADD pair shared.pair NOT NULL;";
    let world = with_rows("error", RAISE, more).await;
    let found = about(&world.prove().await, About::RowSecurity);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("no value is known for the column pair of type shared.pair"), "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("inconclusive")), "{found:#?}");
    // With rows of two tenants it is tried all the same, but for what would need another row.
    world
        .execute(
            "INSERT INTO shared.ledger (community, amount, kind, pair)
             SELECT gen_random_uuid(), 1, 'k', '(1,2)'::shared.pair FROM generate_series(1, 2)",
        )
        .await;
    let matrix = world.prove().await;
    let found = about(&matrix, About::RowSecurity);
    assert_eq!(found.iter().filter(|line| line.starts_with("denied")).count(), 14, "{found:#?}");
    let check = matrix.checks.iter().find(|check| check.about == About::RowSecurity).unwrap();
    assert!(check.tried.control.as_ref().unwrap().contains("that were there"), "{check:?}");
}

#[tokio::test]
async fn pooler_in_transaction_mode_gives_the_next_client_nothing() {
    for (without, missing) in [("error", RAISE), ("hidden", "RETURN NULL;")] {
        let more = "INSERT INTO shared.ledger (community, amount, kind) SELECT gen_random_uuid(), 1, 'k' FROM generate_series(1, 2);";
        let mut world = with_rows(without, missing, more).await;
        let (one, two) = (world.role("app_general"), world.role("app_health"));
        let cluster = cluster().await;
        let pooler = cluster.pooler(PoolMode::Transaction, &[(&one, "app"), (&two, "app")]).await.unwrap();
        world.poolers.insert("pool".to_owned(), pooler.through(&world.options));
        world.pooler = Some(pooler);
        let matrix = world.prove().await;
        let wanted = [
            "works a context holds in its transaction (pool)",
            "denied the next client finds no context (pool)",
            "denied the next client finds no context in a prepared statement (pool)",
        ];
        assert_eq!(about(&matrix, About::Pooler), wanted);
        is_healthy(&matrix);
        world.pooler.take().unwrap().stop();
    }
    let world = with_rows("error", RAISE, "").await;
    let found = about(&world.prove().await, About::Pooler);
    assert_eq!(found, ["inconclusive pooler pool: the project has no such PostgreSQL target"]);
}

const APPEND_ONLY: &str = "append_only = [\"{tenant}.events\"]\n";

const REJECT: &str = r#"
CREATE FUNCTION shared.reject() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'append-only'; END$$;
REVOKE EXECUTE ON FUNCTION shared.reject() FROM PUBLIC;
ALTER FUNCTION shared.reject() OWNER TO owner{x};
CREATE TRIGGER stay BEFORE UPDATE OR DELETE OR TRUNCATE ON health.events EXECUTE FUNCTION shared.reject();
CREATE TRIGGER stay BEFORE UPDATE OR DELETE OR TRUNCATE ON general.events EXECUTE FUNCTION shared.reject();
"#;

async fn append_only(sql: &str) -> World {
    let mut world = World::with("", &format!("{REJECT}{sql}")).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{APPEND_ONLY}{TOPOLOGY}").replace("{x}", &world.suffix);
    std::fs::write(folder.path().join("topology.toml"), text).unwrap();
    world.topology = load(folder.path(), "default").unwrap();
    world
}

#[tokio::test]
async fn append_only_tables_reject_what_they_must() {
    let world = append_only("DELETE FROM ONLY health.notes").await;
    let matrix = world.prove().await;
    let found = about(&matrix, About::AppendOnly);
    // As the privileged session and as the tenant's own role, for each of the two tables.
    assert_eq!(found.len(), 12, "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("denied")), "{found:#?}");
    assert_eq!(world.value("SELECT count(*) FROM health.events").await, "1");
}

#[tokio::test]
async fn append_only_tables_with_gaps_are_found() {
    let world = append_only(
        "ALTER TABLE health.events DISABLE TRIGGER stay; DROP TRIGGER stay ON general.events;
         CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON general.events FOR EACH ROW EXECUTE FUNCTION shared.reject();
         TRUNCATE general.events",
    )
    .await;
    let matrix = world.prove().await;
    let wanted = [
        "app_health append-only: DELETE is rejected (health.events)",
        "app_health append-only: UPDATE is rejected (health.events)",
        "postgres append-only: DELETE is rejected (health.events)",
        "postgres append-only: TRUNCATE is rejected (general.events)",
        "postgres append-only: TRUNCATE is rejected (health.events)",
        "postgres append-only: UPDATE is rejected (health.events)",
    ];
    assert_eq!(world.with_verdict(&matrix, Verdict::Leaked), set(&wanted));
    assert_eq!(world.value("SELECT count(*) FROM health.events").await, "1");
}

#[tokio::test]
async fn status_moves_one_way() {
    let sql = r#"
CREATE TABLE health.lots (id int PRIMARY KEY, status text NOT NULL, amount int NOT NULL);
ALTER TABLE health.lots OWNER TO owner{x};
INSERT INTO health.lots VALUES (1, 'active', 5);
GRANT SELECT, INSERT, UPDATE, DELETE ON health.lots TO app_health{x};
CREATE FUNCTION shared.one_way() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.amount) IS DISTINCT FROM (NEW.id, NEW.amount) OR OLD.status <> 'active' THEN RAISE 'one way'; END IF;
    RETURN NEW;
END$$;
ALTER FUNCTION shared.one_way() OWNER TO owner{x};
REVOKE EXECUTE ON FUNCTION shared.one_way() FROM PUBLIC;
CREATE TRIGGER one_way BEFORE UPDATE ON health.lots FOR EACH ROW EXECUTE FUNCTION shared.one_way();
CREATE TRIGGER stay BEFORE DELETE OR TRUNCATE ON health.lots EXECUTE FUNCTION shared.reject();
"#;
    let declared = "[[status]]\ntable = \"health.lots\"\ncolumn = \"status\"\nfrom = \"active\"\nto = [\"expired\"]\n";
    let world = World::with(declared, &format!("{REJECT}{sql}")).await;
    let matrix = world.prove().await;
    let found = about(&matrix, About::AppendOnly);
    assert!(found.contains(&"works the declared way is open (health.lots)".to_owned()), "{found:#?}");
    assert!(found.contains(&"denied the way back is rejected (health.lots)".to_owned()), "{found:#?}");
    is_healthy(&matrix);
    world.execute("DROP TRIGGER one_way ON health.lots").await;
    let leaked = world.with_verdict(&world.prove().await, Verdict::Leaked);
    assert!(leaked.contains("postgres append-only: the way back is rejected (health.lots)"), "{leaked:#?}");
}
