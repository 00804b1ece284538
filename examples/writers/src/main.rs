//! `writers http ADDRESS SOURCE ITEMS COUNT SEED`: clients of the items service.
//! `writers sql URL SCHEMA COUNT SEED FINAL_URL FINAL_SCHEMA`: clients of a database; `-` is no schema, `pooled:URL` a pooler,
//! `file:PATH` an env file with `POSTGRES_HOST`, `_PORT`, `_USER`, `_PASSWORD` and `_DB`, read again on SIGHUP.
//!
//! They write until standard input ends; then what was accepted is held against the final side, and the status says whether it is
//! whole.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::NoTls;
use writers::{History, Verdict, http, sql};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match work(&words) {
        Ok((history, verdict)) => {
            println!("{verdict}");
            println!("attempts that were not accepted: {:?}", history.failures);
            for freeze in history.freezes() {
                println!("from {} to {}: {:.3} s", freeze.from, freeze.to, freeze.duration().as_secs_f64());
            }
            let (longest, begun) = history.longest_gap();
            println!(
                "longest time without an accepted write: {:.3} s, from {:.3} s on",
                longest.as_secs_f64(),
                begun.as_secs_f64()
            );
            if verdict.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("writers: {error}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn work(words: &[&str]) -> Result<(History, Verdict), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let count = |text: &str| number(text).map(|number| usize::try_from(number).unwrap_or(1).clamp(1, 1000));
    match *words {
        ["http", address, source, items, writers, seed] => {
            let items = i64::try_from(number(items)?).map_err(|error| error.to_string())?;
            let service = http::Service { address: address.to_owned(), source: source.to_owned(), items };
            let writers = http::Writers::start(service.clone(), count(writers)?, number(seed)?);
            end_of_input().await;
            let history = writers.stop().await;
            let verdict = history.verify_service(&service).await.map_err(|error| error.to_string())?;
            Ok((history, verdict))
        }
        ["sql", url, schema, writers, seed, final_url, final_schema] => {
            let named = |schema: &str| (schema != "-").then(|| schema.to_owned());
            let (pooled, url) = url.strip_prefix("pooled:").map_or((false, url), |url| (true, url));
            let file = url.strip_prefix("file:");
            let url = file.map_or_else(|| Ok(url.to_owned()), url_of)?;
            let place = sql::Place { url, schema: named(schema), pooled };
            let writers = sql::Writers::start(place.clone(), count(writers)?, number(seed)?);
            let mut hangups = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
            let end = end_of_input();
            tokio::pin!(end);
            loop {
                tokio::select! {
                    () = &mut end => break,
                    _ = hangups.recv() => if let Some(file) = file {
                        writers.switch_to(sql::Place { url: url_of(file)?, ..place.clone() });
                    },
                }
            }
            let history = writers.stop().await;
            let (client, connection) =
                tokio_postgres::connect(final_url, NoTls).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let verdict =
                history.verify(&client, named(final_schema).as_deref()).await.map_err(|error| error.to_string())?;
            Ok((history, verdict))
        }
        _ => Err("usage: see the beginning of its source".to_owned()),
    }
}

/// Where an env file leads; `${NAME}` in it is the environment's.
fn url_of(file: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let value = |name: &str| {
        let line = text.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = line.unwrap_or_default().trim().trim_matches(['"', '\'']);
        match value.strip_prefix("${").and_then(|name| name.strip_suffix('}')) {
            Some(name) => std::env::var(name).map_err(|_| format!("{file}: {name} is not set")),
            None => Ok(value.to_owned()),
        }
    };
    let (host, port, user) = (value("POSTGRES_HOST")?, value("POSTGRES_PORT")?, value("POSTGRES_USER")?);
    Ok(format!("postgres://{user}:{}@{host}:{port}/{}", value("POSTGRES_PASSWORD")?, value("POSTGRES_DB")?))
}

async fn end_of_input() {
    let read = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    // An error ends it too.
    let _ = tokio::task::spawn_blocking(read).await;
}
