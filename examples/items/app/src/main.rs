//! `items-app [ENV_FILE]` serves; `items-app profile FILE ITEMS SEED` makes a profile as the years have left it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use items_app::config::Config;
use items_app::http::{App, router};
use items_app::legacy;
use items_app::log::Log;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["profile", file, items, seed] => match (items.parse(), seed.parse()) {
            (Ok(items), Ok(seed)) => {
                legacy::make(Path::new(file), items, seed).map_err(|error| format!("{file}: {error}"))
            }
            _ => Err("ITEMS and SEED are numbers".to_owned()),
        },
        [] => serve(None),
        [file] if !file.starts_with('-') => serve(Some(PathBuf::from(file))),
        _ => Err("usage: items-app [ENV_FILE] | items-app profile FILE ITEMS SEED".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("items-app: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(file: Option<PathBuf>) -> Result<(), String> {
    let file = file.or_else(|| std::env::var_os("ITEMS_ENV_FILE").map(PathBuf::from));
    let config = Config::read(std::env::vars(), file.as_deref())?;
    let log = Log::open(config.log.as_deref()).map_err(|error| format!("the log cannot be opened: {error}"))?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt()].map(|kind| signal(kind).ok());
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    if let Some(path) = &config.pid_file {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    // Printed once it listens, so that whoever started it can wait for the line and learn a port that was chosen (":0").
    println!("listening on http://{address}");
    let app = Arc::new(App::new(&config, log));
    // What was asked before the signal is answered.
    let ended = async move {
        let [terminate, interrupt] = &mut ends;
        let wait = async |signal: &mut Option<tokio::signal::unix::Signal>| match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        };
        tokio::select! {
            () = wait(terminate) => {}
            () = wait(interrupt) => {}
        }
    };
    axum::serve(listener, router(app)).with_graceful_shutdown(ended).await.map_err(|error| error.to_string())?;
    if let Some(path) = &config.pid_file {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
