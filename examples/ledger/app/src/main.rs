//! The application behind the ledger: small, but a real client of its database.
//!
//! It connects as the runtime role, through a pooler in transaction mode where there is one, and names the tenant with
//! `SET LOCAL` semantics in each transaction.
//!
//! Environment: `LEDGER_APP_DATABASE_URL` (required), `LEDGER_APP_LISTEN` (default `127.0.0.1:8080`).

use std::process::ExitCode;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_postgres::{Client, NoTls};

type Answer = (StatusCode, Json<Value>);

struct App {
    database_url: String,
}

impl App {
    /// A connection of its own for each request: the pooler in front makes that cheap.
    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.database_url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Ready if the schema of migration 0011 is there and the runtime role may read it.
async fn health(State(app): State<Arc<App>>) -> Answer {
    let ready = async {
        let client = app.connect().await?;
        client.simple_query("SELECT position FROM reconciliation_cursor LIMIT 1").await
    };
    match ready.await {
        Ok(_) => (StatusCode::OK, Json(json!({ "ok": true }))),
        Err(error) => {
            let sqlstate = error.code().map(|code| code.code().to_owned());
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": false, "sqlstate": sqlstate })))
        }
    }
}

/// The public keys that are valid now, as a JSON Web Key Set (RFC 7517, section 5).
async fn jwks(State(app): State<Arc<App>>) -> Answer {
    const KEYS: &str = "
        SELECT COALESCE(jsonb_agg(jwk || jsonb_build_object('kid', kid) ORDER BY kid), '[]')::text
        FROM s2s_jwks_public_keys
        WHERE valid_from <= now() AND (valid_until IS NULL OR valid_until > now())";
    match single_text(&app, &[KEYS]).await {
        Ok(Some(keys)) => (StatusCode::OK, Json(json!({ "keys": serde_json::from_str(&keys).unwrap_or(Value::Null) }))),
        Ok(None) => (StatusCode::OK, Json(json!({ "keys": [] }))),
        Err(error) => failed(&error),
    }
}

/// What a community has left, in millionths of a credit.
async fn balance(State(app): State<Arc<App>>, Path(community): Path<String>) -> Answer {
    let is_uuid = community.len() == 36 && community.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if !is_uuid {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "a community is a UUID" })));
    }
    // The check above leaves nothing in it that could end the literal.
    let context = format!("SELECT app.set_community_context('{community}')");
    let sum = "SELECT COALESCE(sum(balance_micro), 0)::text FROM lot_balances WHERE status = 'active'";
    match single_text(&app, &["BEGIN", &context, sum, "COMMIT"]).await {
        Ok(balance) => (StatusCode::OK, Json(json!({ "community": community, "balance_micro": balance }))),
        Err(error) => failed(&error),
    }
}

/// Runs statements on one connection; the last value of the last row that came back.
async fn single_text(app: &App, statements: &[&str]) -> Result<Option<String>, tokio_postgres::Error> {
    let client = app.connect().await?;
    let mut value = None;
    for message in client.simple_query(&statements.join(";\n")).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            value = row.get(0).map(str::to_owned);
        }
    }
    Ok(value)
}

fn failed(error: &tokio_postgres::Error) -> Answer {
    let sqlstate = error.code().map(|code| code.code().to_owned());
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "the database refused", "sqlstate": sqlstate })))
}

#[tokio::main]
async fn main() -> ExitCode {
    let Ok(database_url) = std::env::var("LEDGER_APP_DATABASE_URL") else {
        eprintln!("ledger-app: set LEDGER_APP_DATABASE_URL");
        return ExitCode::from(2);
    };
    let listen = std::env::var("LEDGER_APP_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let router = Router::new()
        .route("/health", get(health))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/communities/{community}/balance", get(balance))
        .with_state(Arc::new(App { database_url }));
    let listener = match TcpListener::bind(&listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("ledger-app: cannot listen on {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Printed once it listens, so that whoever started it can wait for the line and learn a port that was chosen (":0").
    match listener.local_addr() {
        Ok(address) => println!("listening on http://{address}"),
        Err(error) => eprintln!("ledger-app: {error}"),
    }
    match axum::serve(listener, router).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ledger-app: {error}");
            ExitCode::FAILURE
        }
    }
}
