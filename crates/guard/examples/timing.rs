//! What `bench/guard` measures: a check beside the bare query, and two hundred starts at once. The database is that of
//! `DATABASE_URL`, and has the row.

use std::time::{Duration, Instant};

use pgrunbook_guard::driver::tokio_postgres::connecting;
use pgrunbook_guard::{Guard, Source};
use tokio_postgres::{Config, NoTls};

/// The statement of a check, as it is sent.
const BARE: &str = r#"SELECT "config_value"::text FROM "bot_config" WHERE "config_key" = 'schema_version' LIMIT 2"#;

const PAIRS: usize = 3000;
const STARTS: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move { connection.await.ok() });
    let guard = Guard::new("1.0.0", Source::bot_config())?;
    let (mut checks, mut bare, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let begun = Instant::now();
        client.simple_query(BARE).await?;
        let b = begun.elapsed();
        let begun = Instant::now();
        guard.check(&mut &client).await?;
        let a = begun.elapsed();
        checks.push(micros(a));
        bare.push(micros(b));
        differences.push(micros(a) - micros(b));
    }
    println!("one check: {}", spread(&mut checks));
    println!("bare query: {}", spread(&mut bare));
    println!("check over the bare query: {}", spread(&mut differences));

    // A start is a connection and a check; beside it a start without.
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        with.push(starts(&config, Some(&guard)).await?);
        without.push(starts(&config, None).await?);
    }
    println!("{STARTS} starts at once with a check: {}", spread(&mut with));
    println!("{STARTS} starts at once with the bare query: {}", spread(&mut without));
    Ok(())
}

async fn starts(config: &Config, guard: Option<&Guard>) -> Result<f64, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..STARTS {
        let (config, guard) = (config.clone(), guard.cloned());
        starts.spawn(async move {
            match guard {
                Some(guard) => {
                    guard.check(&mut connecting(config, NoTls)).await.map(drop).map_err(|error| error.to_string())
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await.map_err(|error| error.to_string())?;
                    tokio::spawn(async move { connection.await.ok() });
                    client.simple_query(BARE).await.map(drop).map_err(|error| error.to_string())
                }
            }
        });
    }
    while let Some(start) = starts.join_next().await {
        start??;
    }
    Ok(micros(begun.elapsed()))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Median, and what lies between the tenth and the ninetieth percentile, in microseconds.
fn spread(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("{:.1} us ({:.1} to {:.1})", at(0.5), at(0.1), at(0.9))
}
