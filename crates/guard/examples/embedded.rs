//! An application that asks before it serves, and evaluates a flag: `DATABASE_URL=... cargo run -p pgrunbook-guard
//! --features tokio-postgres --example embedded -- 1.4.0`.

use std::process::ExitCode;

use pgrunbook_guard::driver::tokio_postgres::connecting;
use pgrunbook_guard::flag::{Context, Flags, Overrides, Table};
use pgrunbook_guard::{Guard, Source};
use tokio_postgres::{Config, NoTls};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not started: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), Box<dyn std::error::Error>> {
    let version = std::env::args().nth(1).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    let skip = std::env::var("SKIP_SCHEMA_GUARD").ok();
    let guard = Guard::new(&version, Source::bot_config())?.skip(skip.as_deref())?;
    let outcome = guard.check(&mut connecting(config.clone(), NoTls)).await?;
    println!("{outcome}");
    // For /metrics.
    print!("{}", outcome.prometheus());
    let flags = Flags::new(Table(connecting(config, NoTls))).overrides(Overrides::of(std::env::vars()));
    println!("{}", flags.evaluate("new-checkout", &Context::of("anna"), false.into()).await);
    Ok(())
}
