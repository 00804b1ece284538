//! What is answered to what, by databases that really are so.

use std::time::Duration;

use pgrunbook_guard::{Guard, Source, VersionRow};
use pgrunbook_postgres::ConnectOptions;
use pgrunbook_server::Guarding;
use serde_json::json;

use crate::place::{Answer, LONG, Served, at, execute, one, session, several};

#[tokio::test]
async fn what_fits_is_200_with_what_the_database_says() {
    let served = Served::of(&at("1.1.0").await).await;
    let answer = served.guard("app_version=1.0.0").await;
    let wanted = json!({
        "type": "guard", "outcome": "database-newer", "app": "1.0.0", "database": "1.1.0", "migration": "0001_baseline",
        "timestamp": null, "waited_ms": 0, "environment": "default", "target": "main",
    });
    assert_eq!((answer.status, answer.json()), (200, wanted));
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    served.guard("app_version=1.1.0&target=main&environment=default").await.fits();
    served.guard("app_version=1.1.0%2Blinux").await.fits();
}

#[tokio::test]
async fn what_does_not_fit_is_409_in_the_words_of_the_guard() {
    let database = at("1.1.0").await;
    let served = Served::of(&database).await;
    for (app, code) in [("1.2.0", "application-newer"), ("2.0.0", "majors-differ"), ("0.9.0", "majors-differ")] {
        let answer = served.guard(&format!("app_version={app}")).await;
        let guard = Guard::new(app, Source::bot_config()).unwrap().wait(Duration::ZERO);
        let error = guard.check(&mut pgrunbook_server::Asking(session(&database).await)).await.unwrap_err();
        let wanted = json!({
            "type": "error", "code": code, "message": error.what(), "help": error.remedy(),
            "environment": "default", "target": "main",
        });
        assert_eq!((answer.status, answer.json()), (409, wanted));
    }
}

#[tokio::test]
async fn history_decides_where_a_chain_is_named() {
    let database = at("1.0.0").await;
    execute(
        &database,
        "CREATE SCHEMA pgrunbook
         CREATE TABLE migration (chain text, seq int, version text, state text, origin text, name text, repeatable bool);
         INSERT INTO pgrunbook.migration VALUES ('db', 1, '0001', 'applied', 'run', 'a', false),
             ('db', 2, '0002', 'running', 'run', 'b', false), ('db', 4, '0004', 'applied', 'run', 'd', false)",
    )
    .await;
    let served = Served::new(Source::history("db"), one(&database, 2), LONG, None).await;
    assert_eq!(served.guard("app_version=0001").await.status, 200);
    served.guard("app_version=0002").await.says(
        409,
        "unfinished",
        "migration 0002 of db is half done",
        "let the migration end",
    );
    execute(&database, "DELETE FROM pgrunbook.migration WHERE version = '0002'").await;
    served.guard("app_version=0003").await.says(409, "missing", "0004 is applied, and 0003 is not", "out of order");
    served.guard("app_version=1.2.x").await.says(400, "app-version", "\"1.2.x\" cannot be read", "");
}

#[tokio::test]
async fn database_that_does_not_say_its_version_is_503_and_says_why() {
    let database = at("1.0.0").await;
    let served = Served::of(&database).await;
    let ask = async || served.guard("app_version=1.0.0").await;
    execute(&database, "UPDATE bot_config SET config_value = '{\"version\": \"one\"}'").await;
    ask().await.says(503, "malformed", "`version` is \"one\", no semantic version", "write {\"version\":");
    execute(&database, "DELETE FROM bot_config").await;
    ask().await.says(503, "no-version", "bot_config (schema_version) says nothing of a version", "run the migrations");
    execute(&database, "DROP TABLE bot_config").await;
    ask().await.says(503, "no-table", "there is no table bot_config", "run the migrations");
}

#[tokio::test]
async fn role_that_may_not_and_log_in_that_is_refused_are_503_and_tell_no_password() {
    let database = at("1.0.0").await;
    let role = format!("app_{}", database.database);
    execute(&database, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'hunter2hunter2'")).await;
    let reader = ConnectOptions { user: role, password: Some("hunter2hunter2".to_owned()), ..database.clone() };
    let wrong = ConnectOptions { password: Some("correct-horse".to_owned()), ..reader.clone() };
    let nowhere = ConnectOptions { database: "nowhere".to_owned(), ..reader.clone() };
    let targets = [
        ("default", "main", Ok(reader)),
        ("default", "wrong", Ok(wrong)),
        ("default", "nowhere", Ok(nowhere)),
        ("default", "unset", Err("LEGACY_URL is not set".to_owned())),
    ];
    let served = Served::new(Source::bot_config(), several(Some("default"), targets, 2), LONG, None).await;
    let cases = [
        ("main", "denied", "may not read bot_config", "GRANT SELECT"),
        ("wrong", "login", "password authentication failed", "check user, password"),
        ("nowhere", "login", "database \"nowhere\" does not exist", "check user, password"),
        ("unset", "no-value", "target `unset`: LEGACY_URL is not set", "set it"),
    ];
    for (target, code, message, help) in cases {
        let answer = served.guard(&format!("app_version=1.0.0&target={target}")).await;
        answer.says(503, code, message, help);
        assert_eq!(answer.json()["target"], target);
        assert!(!answer.body.contains("hunter2") && !answer.body.contains("horse"), "{}", answer.body);
    }
}

#[tokio::test]
async fn what_is_no_question_is_400_and_says_how_to_ask() {
    let database = at("1.0.0").await;
    let targets = [("staging", "main", Ok(database.clone())), ("production", "main", Ok(database.clone()))];
    let served = Served::new(Source::bot_config(), several(None, targets, 2), LONG, None).await;
    let cases = [
        ("", "query", "app_version", "/guard?app_version=1.4.0"),
        ("app_version=1.0.0&app_version=1.1.0", "query", "duplicate field", "/guard?"),
        ("app_version=1.0.0&table=users", "query", "unknown field `table`", "/guard?"),
        ("app_version=1.0.0", "environment", "several environments", "production, staging"),
        ("app_version=1.0.0&environment=dev", "environment", "no environment `dev`", "production, staging"),
        ("app_version=1.0.0&environment=staging&target=x", "no-target", "no PostgreSQL target `x`", "it has main"),
        ("app_version=latest&environment=staging", "app-version", "\"latest\" cannot be read", "MAJOR.MINOR.PATCH"),
        ("app_version=1.0.0+linux&environment=staging", "app-version", "cannot be read", "%2B"),
        ("app_version=%FF&environment=staging", "query", "", ""),
    ];
    for (query, code, message, help) in cases {
        if code == "query" && message.is_empty() {
            assert_eq!(served.guard(query).await.status, 400, "{query}");
        } else {
            served.guard(query).await.says(400, code, message, help);
        }
    }
    let answer = served.guard("app_version=1.0.0&environment=production").await;
    answer.fits();
    assert_eq!(answer.json()["environment"], "production");
    served.get("/").await.says(404, "path", "nothing here", "/guard?app_version=VERSION");
    let post = "POST /guard?app_version=1.0.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    Answer::to(served.address, post).await.says(405, "method", "only GET", "GET /guard");
}

#[tokio::test]
async fn another_table_is_the_servers_choice_and_not_the_requests() {
    let database = at("1.0.0").await;
    execute(&database, "CREATE TABLE settings (config_key text, config_value json)").await;
    execute(&database, "INSERT INTO settings VALUES ('schema_version', '{\"version\": \"3.0.0\"}')").await;
    let source = Source::Row(VersionRow::of("settings").unwrap());
    let served = Served::new(source, one(&database, 2), LONG, None).await;
    served.guard("app_version=3.0.0").await.fits();
}

#[tokio::test]
async fn health_is_the_processs_and_metrics_count_what_was_answered() {
    let database = at("1.0.0").await;
    let targets = [("default", "main", Ok(database.clone())), ("default", "unset", Err("X is not set".to_owned()))];
    let served = Served::new(Source::bot_config(), several(Some("default"), targets, 2), LONG, None).await;
    let health = served.get("/health").await;
    assert_eq!((health.status, health.json()), (200, json!({ "type": "health", "status": "up" })));
    for query in [
        "app_version=1.0.0",
        "app_version=1.0.0",
        "app_version=1.1.0",
        "app_version=1.0.0&target=unset",
        "",
        "app_version=x",
    ] {
        served.guard(query).await;
    }
    let metrics = served.get("/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let wanted = [
        "pgrunbook_guard_checks_total{environment=\"default\",target=\"main\",outcome=\"application-newer\"} 1",
        "pgrunbook_guard_checks_total{environment=\"default\",target=\"main\",outcome=\"equal\"} 2",
        "pgrunbook_guard_checks_total{environment=\"default\",target=\"unset\",outcome=\"no-value\"} 1",
        "pgrunbook_guard_bad_requests_total 2",
        "pgrunbook_guard_bypassed 0",
    ];
    let found: Vec<_> = metrics.body.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn bypass_answers_200_without_a_database_and_is_counted() {
    let targets = [("default", "main", Err("DATABASE_URL is not set".to_owned()))];
    let served = Served::new(Source::bot_config(), several(Some("default"), targets, 2), LONG, Some("true")).await;
    let answer = served.guard("app_version=1.0.0").await;
    assert_eq!((answer.status, answer.json()["outcome"].as_str()), (200, Some("bypassed")), "{}", answer.body);
    let metrics = served.get("/metrics").await.body;
    assert!(
        metrics.contains("outcome=\"bypassed\"} 1\n") && metrics.contains("pgrunbook_guard_bypassed 1\n"),
        "{metrics}"
    );
    let refused = Guarding::new(Source::bot_config(), several(None, [], 1), LONG, Some("yes")).unwrap_err();
    assert_eq!(refused.code(), "skip");
}

#[tokio::test]
async fn request_that_is_too_long_is_refused_and_a_body_is_not_read() {
    let served = Served::of(&at("1.0.0").await).await;
    let long = served.guard(&format!("app_version={}", "1".repeat(60_000))).await;
    assert!(matches!(long.status, 400 | 414 | 431), "{}", long.head);
    let many = "X-Header: y\r\n".repeat(200);
    let many = format!("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{many}\r\n");
    assert_eq!(Answer::to(served.address, &many).await.status, 431);
    // A gigabyte is promised and never sent: the answer does not wait for it.
    let body = "GET /guard?app_version=1.0.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000000\r\n\r\nbegins";
    Answer::to(served.address, body).await.fits();
}
