//! What is said where an application must not start: each by a server that really says it.

use std::time::Duration;

use pgrunbook_guard::{
    Bypassed, Compatible, Connecting, Fit, Guard, GuardError, Name, Notice, Outcome, Refusal, Source, Stored,
    VersionRow, check,
};
use pgrunbook_postgres::sandbox::url;
use tokio_postgres::NoTls;

use crate::place::{Place, connect};

/// As an application connects, with what the guard makes of a failure.
async fn start(url: &str) -> Result<Outcome, GuardError> {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let mut connection = pgrunbook_guard::driver::tokio_postgres::connecting(config, NoTls);
    check("1.0.0", Source::bot_config(), &mut connection).await
}

/// The message says what is wrong, and what to do.
#[track_caller]
fn says(error: &GuardError, code: &str, what: &str, remedy: &str) {
    assert_eq!(error.code(), code, "{error}");
    let text = error.to_string();
    assert!(text.contains(what) && text.contains(". Remedy: ") && text.contains(remedy), "{text}");
}

#[tokio::test]
async fn what_fits_is_shown_with_what_the_database_says() {
    let place = Place::at("1.1.0").await;
    let outcome = place.check("1.0.0", Source::bot_config()).await.unwrap();
    let stored = Stored {
        version: "1.1.0".to_owned(),
        migration: Some("0001_baseline".to_owned()),
        timestamp: Some("2025-08-11T00:00:00Z".to_owned()),
    };
    let fits = Compatible { app: "1.0.0".to_owned(), stored, fit: Fit::DatabaseNewer, waited: Duration::ZERO };
    assert_eq!(outcome, Outcome::Compatible(fits));
    assert!(outcome.prometheus().contains("pgrunbook_guard_bypassed 0\n"), "{}", outcome.prometheus());
    let line = "pgrunbook_guard_schema_info{app=\"1.0.0\",database=\"1.1.0\"} 1\n";
    assert!(outcome.prometheus().ends_with(line), "{}", outcome.prometheus());
}

#[tokio::test]
async fn wrong_password_and_wrong_database_are_refused_log_ins() {
    let place = Place::at("1.0.0").await;
    let right = url(&place.database);
    let password = place.database.password.clone().unwrap();
    let error = start(&right.replace(&password, "wrong-horse")).await.unwrap_err();
    says(&error, "login", "password authentication failed", "check user, password, database");
    assert!(!error.is_verdict() && !error.to_string().contains("wrong-horse"), "{error}");
    let error = start(&right.replace(&place.database.database, "nowhere")).await.unwrap_err();
    says(&error, "login", "database \"nowhere\" does not exist", "check user, password, database");
}

#[tokio::test]
async fn server_that_is_down_is_unreachable() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let error = start(&format!("postgres://anna:secret@127.0.0.1:{port}/db")).await.unwrap_err();
    says(&error, "unreachable", "refused", "start the server");
    assert!(!error.is_verdict() && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn connection_that_breaks_is_unreachable_and_made_anew() {
    let place = Place::at("1.0.0").await;
    let config: tokio_postgres::Config = url(&place.database).parse().unwrap();
    let mut connection = pgrunbook_guard::driver::tokio_postgres::connecting(config, NoTls);
    check("1.0.0", Source::bot_config(), &mut connection).await.unwrap();
    place
        .execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    let error = check("1.0.0", Source::bot_config(), &mut connection).await.unwrap_err();
    says(&error, "unreachable", "does not answer", "start the server");
    check("1.0.0", Source::bot_config(), &mut connection).await.unwrap();
}

#[tokio::test]
async fn no_table_no_row_and_no_right_are_told_apart() {
    let place = Place::new().await;
    let error = place.check("1.0.0", Source::bot_config()).await.unwrap_err();
    says(&error, "no-table", "no table bot_config", "run the migrations");
    let source = Source::Row(VersionRow::of("nowhere.bot_config").unwrap());
    let error = place.check("1.0.0", source).await.unwrap_err();
    says(&error, "no-table", "no table nowhere.bot_config", "run the migrations");
    let error = place.check("0001", Source::history("db")).await.unwrap_err();
    says(&error, "no-table", "no table pgrunbook.migration", "run the migrations");
    place.execute("CREATE TABLE bot_config (config_key text, config_value jsonb)").await;
    let error = place.check("1.0.0", Source::bot_config()).await.unwrap_err();
    says(&error, "no-version", "bot_config (schema_version) says nothing", "run the migrations");
    let role = place.role("").await;
    let mut client = connect(&url(&role)).await;
    let error = check("1.0.0", Source::bot_config(), &mut client).await.unwrap_err();
    says(&error, "denied", "may not read bot_config", "GRANT SELECT ON \"bot_config\"");
    assert!(!error.is_verdict());
}

#[tokio::test]
async fn row_that_cannot_be_read_says_what_is_wrong_with_it() {
    let place = Place::new().await;
    place.execute("CREATE TABLE bot_config (config_key text, config_value text, environment text)").await;
    let cases = [
        ("NULL", "it is null"),
        ("''", "no JSON"),
        ("'{\"version\": '", "no JSON"),
        ("'\"1.0.0\"'", "`version` is not there"),
        ("'[]'", "`version` is not there"),
        ("'{}'", "`version` is not there"),
        ("'{\"version\": 1}'", "`version` is not there, or no text"),
        ("'{\"version\": \"1.0\"}'", "no semantic version"),
        ("'{\"version\": \"\"}'", "no semantic version"),
    ];
    for (value, what) in cases {
        place.execute("TRUNCATE bot_config").await;
        place.execute(&format!("INSERT INTO bot_config VALUES ('schema_version', {value})")).await;
        let error = place.check("1.0.0", Source::bot_config()).await.unwrap_err();
        says(&error, "malformed", what, "write {\"version\": ");
    }
    // One row for each environment.
    place.execute("TRUNCATE bot_config").await;
    for (environment, version) in [("staging", "1.1.0"), ("production", "1.0.0")] {
        let json = format!("{{\"version\": \"{version}\"}}");
        place.execute(&format!("INSERT INTO bot_config VALUES ('schema_version', '{json}', '{environment}')")).await;
    }
    let error = place.check("1.0.0", Source::bot_config()).await.unwrap_err();
    says(&error, "malformed", "there are several rows", "");
    let row = VersionRow { environment: Some("production".to_owned()), ..VersionRow::of("bot_config").unwrap() };
    let error = place.check("1.1.0", Source::Row(row.clone())).await.unwrap_err();
    says(&error, "application-newer", "needs schema 1.1.0, and the database is at 1.0.0", "run the migrations");
    place.check("1.0.0", Source::Row(row.clone())).await.unwrap();
    let other = VersionRow { value_column: "value".to_owned(), ..row };
    let error = place.check("1.0.0", Source::Row(other)).await.unwrap_err();
    says(&error, "malformed", "column \"value\" does not exist", "");
}

#[tokio::test]
async fn names_and_keys_are_quoted() {
    let place = Place::new().await;
    place.execute(r#"CREATE SCHEMA "a""b"; CREATE TABLE "a""b"."Odd table" ("the key" text, "VALUE" json)"#).await;
    place.execute(r#"INSERT INTO "a""b"."Odd table" VALUES (E'it''s \\ here', '{"version": "1.0.0"}')"#).await;
    let row = VersionRow {
        table: Name::parse("a\"b.Odd table").unwrap(),
        key: "it's \\ here".to_owned(),
        environment: None,
        key_column: "the key".to_owned(),
        value_column: "VALUE".to_owned(),
    };
    place.check("1.0.0", Source::Row(row)).await.unwrap();
}

#[tokio::test]
async fn majors_that_differ_say_who_is_behind() {
    let place = Place::at("2.0.0").await;
    let error = place.check("1.0.0", Source::bot_config()).await.unwrap_err();
    says(&error, "majors-differ", "written for schema 1.0.0, and the database is at 2.0.0", "deploy the application");
    let error = place.check("3.0.0", Source::bot_config()).await.unwrap_err();
    says(&error, "majors-differ", "database is at 2.0.0 (0001_baseline, 2025", "run the migrations up to");
}

#[tokio::test]
async fn table_that_is_locked_gives_no_answer_in_time() {
    let place = Place::at("1.0.0").await;
    let holder = place.session().await;
    holder.execute("BEGIN; LOCK bot_config IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let guard = Guard::new("1.0.0", Source::bot_config()).unwrap();
    let guard = guard.wait(Duration::ZERO).answer_within(Duration::from_millis(200));
    let error = guard.check(&mut place.client().await).await.unwrap_err();
    says(&error, "unanswered", "did not say within 200ms what bot_config holds", "pg_locks");
}

#[tokio::test]
async fn bypass_starts_loudly_and_asks_nobody() {
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = told.clone();
    let guard = Guard::new("1.0.0", Source::bot_config()).unwrap().skip(Some("true")).unwrap();
    let guard = guard.tell(move |notice| hears.lock().unwrap().push(notice.clone()));
    let mut nobody = Connecting::new(|| async {
        Err::<tokio_postgres::Client, _>(Refusal::Unreachable("somebody asked".to_owned()))
    });
    let outcome = guard.check(&mut nobody).await.unwrap();
    let bypassed = Bypassed { app: "1.0.0".to_owned() };
    assert_eq!(outcome, Outcome::Bypassed(bypassed.clone()));
    assert_eq!(*told.lock().unwrap(), [Notice::Bypassed(bypassed)]);
    assert!(told.lock().unwrap()[0].to_string().starts_with("WARNING: SCHEMA GUARD BYPASSED"));
    assert!(outcome.prometheus().contains("\npgrunbook_guard_bypassed 1\n"), "{}", outcome.prometheus());
}

#[tokio::test]
async fn only_true_bypasses_and_what_is_unclear_is_refused() {
    let place = Place::at("0.1.0").await;
    for value in [None, Some(""), Some("false")] {
        let guard = Guard::new("1.0.0", Source::bot_config()).unwrap().skip(value).unwrap();
        let error = guard.check(&mut place.client().await).await.unwrap_err();
        assert_eq!(error.code(), "majors-differ", "{value:?}");
    }
    for value in ["1", "TRUE", "True", "yes", "on", " true", "0", "no", "ture"] {
        let error = Guard::new("1.0.0", Source::bot_config()).unwrap().skip(Some(value)).unwrap_err();
        says(&error, "skip", &format!("SKIP_SCHEMA_GUARD is {value:?}"), "set it to `true`");
    }
}
