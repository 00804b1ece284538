//! The readers' side: an HTTP service that embeds the schema guard, and asks a flag who sees scheduled posts.
//!
//! Environment: `PORT`, `APP_ENV`, `APP_SCHEMA_VERSION`, `DATABASE_URL`, and `PGSSLROOTCERT` where the database's certificate is not one that the
//! system knows; `SKIP_SCHEMA_GUARD` in an emergency.

mod tls;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use pgrunbook_guard::driver::tokio_postgres::connecting;
use pgrunbook_guard::flag::{BotConfig, Context, Flags, Overrides};
use pgrunbook_guard::{Connection, Guard, Outcome, Refusal, Row, Source, VersionRow};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_postgres::Config;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = (StatusCode, Json<Value>);

/// How old a flag may be.
const MAX_AGE: Duration = Duration::from_secs(1);

struct App<C> {
    environment: String,
    outcome: Outcome,
    version: String,
    flags: Flags<BotConfig<C>>,
    connection: Mutex<C>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not started: {error}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| format!("{name} is not set").into())
}

async fn serve() -> Result<(), Failure> {
    let config: Config = variable("DATABASE_URL")?.parse().map_err(|_| "DATABASE_URL is no connection string")?;
    let (environment, version) = (variable("APP_ENV")?, variable("APP_SCHEMA_VERSION")?);
    let root = std::env::var_os("PGSSLROOTCERT").filter(|path| !path.is_empty()).map(PathBuf::from);
    let tls = tls::connector(root.as_deref())?;
    let connect = || connecting(config.clone(), tls.clone());

    // Before anything else: not a request is answered on a schema that this does not fit.
    let row = VersionRow { environment: Some(environment.clone()), ..VersionRow::of("public.bot_config")? };
    let guard = Guard::new(&version, Source::Row(row))?.wait(Duration::from_secs(5));
    let skip = std::env::var("SKIP_SCHEMA_GUARD").ok();
    let outcome = guard.skip(skip.as_deref())?.check(&mut connect()).await?;

    let origin = BotConfig { environment: Some(environment.clone()), ..BotConfig::of(connect(), "public.bot_config")? };
    let flags = Flags::new(origin).max_age(MAX_AGE).overrides(Overrides::of(std::env::vars()));
    let app = Arc::new(App { environment, outcome, version, flags, connection: Mutex::new(connect()) });
    let listener = TcpListener::bind(("127.0.0.1", variable("PORT")?.parse()?)).await?;
    println!("listening on {}, guard: {}", listener.local_addr()?, app.outcome.code());
    axum::serve(listener, router(app)).await?;
    Ok(())
}

fn router<C: Connection + 'static>(app: Arc<App<C>>) -> Router {
    Router::new()
        .route("/health", get(health::<C>))
        .route("/posts/{reader}", get(posts::<C>))
        .route("/metrics", get(metrics::<C>))
        .with_state(app)
}

impl<C: Connection> App<C> {
    async fn rows(&self, sql: &str) -> Result<Vec<Row>, Refusal> {
        self.connection.lock().await.rows(sql).await
    }
}

async fn health<C: Connection>(State(app): State<Arc<App<C>>>) -> Answer {
    let (status, database) = match app.rows("SELECT id::text FROM public.posts LIMIT 1").await {
        Ok(_) => (StatusCode::OK, "up".to_owned()),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("down: {refusal}")),
    };
    let body = json!({
        "app": "api", "environment": app.environment, "version": app.version, "guard": app.outcome.code(),
        "guarded": matches!(app.outcome, Outcome::Compatible(_)), "database": database,
        "status": if status.is_success() { "ok" } else { "down" },
    });
    (status, Json(body))
}

/// What a reader sees: `/posts/anna`. When a post is scheduled for is shown to whom the flag `scheduling` is on for.
async fn posts<C: Connection>(State(app): State<Arc<App<C>>>, Path(reader): Path<String>) -> Answer {
    const SHOWN: &str = "SELECT id::text, body, NULL FROM public.posts ORDER BY id DESC LIMIT 20";
    const WITH_SCHEDULED: &str =
        "SELECT id::text, body, scheduled_for::text FROM public.posts ORDER BY id DESC LIMIT 20";
    let scheduling = app.flags.evaluate("scheduling", &Context::of(reader), Value::Bool(false)).await;
    let sees = scheduling.value == Value::Bool(true);
    match app.rows(if sees { WITH_SCHEDULED } else { SHOWN }).await {
        Ok(rows) => {
            let posts: Vec<Value> =
                rows.iter().map(|row| json!({ "id": row[0], "body": row[1], "scheduled_for": row[2] })).collect();
            let why = scheduling.reason.to_string();
            (StatusCode::OK, Json(json!({ "scheduling": sees, "why": why, "posts": posts })))
        }
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": refusal.to_string() }))),
    }
}

/// Whether the guard was bypassed, for Prometheus: what an alert looks at.
async fn metrics<C: Connection>(State(app): State<Arc<App<C>>>) -> String {
    app.outcome.prometheus()
}
