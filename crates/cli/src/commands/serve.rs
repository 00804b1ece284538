//! `serve`: answers over HTTP.

use std::collections::BTreeMap;

use pgrunbook_server::{Database, Databases, Guarding, PATHS, Server, ServerError};
use pgrunbook_steps::open::places;
use pgrunbook_steps::workplace::Place;
use pgrunbook_steps::{Project, ProjectError};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::App;
use crate::args::{Output, ServeArgs};
use crate::commands::guard::{given, source};
use crate::console::{aside, put};
use crate::exit;
use crate::failure::Failure;

pub async fn serve(app: &App, args: &ServeArgs) -> Result<u8, Failure> {
    let source = source(&args.source)?;
    let skip = app.surroundings.env.get("SKIP_SCHEMA_GUARD").map(String::as_str);
    let guarding = Guarding::new(source, databases(app, args)?, args.answer_within, skip)?;
    // Before the port is open: whoever waits for that may send one at once.
    let mut ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let server = Server::bind(args.listen, guarding).await?;
    let address = server.address();
    if skip == Some("true") {
        aside(
            "WARNING: SCHEMA GUARD BYPASSED. SKIP_SCHEMA_GUARD=true: every check is answered with 200, and NOTHING is checked.",
        );
    }
    if !address.ip().is_loopback() {
        aside(&format!(
            "WARNING: listening on {address}, which others than this machine may reach. /guard asks for no password and \
             has no TLS: it tells which schema versions there are. Put a proxy before it, or listen on 127.0.0.1."
        ));
    }
    // Printed once it listens: whoever started it can wait for the line, and learn a port that was chosen.
    put(&match app.global.format {
        Output::Json => json!({ "type": "listening", "address": address.to_string() }).to_string(),
        _ => format!("listening on http://{address}: {PATHS}"),
    });
    let cut = server.serve(asked_to_end(&mut ends)).await;
    put(&match app.global.format {
        Output::Json => json!({ "type": "ended", "connections_cut": cut }).to_string(),
        _ if cut == 0 => "ended; everything that was asked is answered".to_owned(),
        _ => format!("ended; {cut} connections were cut, whose requests were not complete"),
    });
    Ok(exit::DONE)
}

async fn asked_to_end([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What can be asked: the one database that was named, or every PostgreSQL target in every environment of the project. What
/// has no value here is told to whoever asks for it, and keeps nobody else from an answer.
fn databases(app: &App, args: &ServeArgs) -> Result<Databases, Failure> {
    let database = |place| Database::new(place, args.connections);
    if let Some(text) = &args.database {
        let name =
            app.global.environment.clone().unwrap_or_else(|| pgrunbook_steps::project::DEFAULT_ENVIRONMENT.to_owned());
        let targets = BTreeMap::from([("main".to_owned(), database(Ok(given(app, text)?)))]);
        return Ok(Databases { default: Some(name.clone()), environments: BTreeMap::from([(name, targets)]) });
    }
    let root = app.root();
    let (default, names) = match Project::load(&root, app.global.environment.as_deref()) {
        Ok(project) => {
            let own = project.environment.name;
            let names = if project.environments.is_empty() { vec![own.clone()] } else { project.environments };
            (Some(own), names)
        }
        // Then each request names one.
        Err(ProjectError::ChooseEnvironment { known, .. }) => (None, known),
        Err(error) => return Err(error.into()),
    };
    let mut environments = BTreeMap::new();
    for name in names {
        let project = Project::load(&root, Some(&name))?;
        let targets = places(&project, &app.surroundings).into_iter().filter_map(|(target, place)| match place {
            Place::Postgres(options) => Some((target, database(Ok(options)))),
            Place::Unusable(why) => Some((target, database(Err(why)))),
            Place::Http { .. } | Place::Sqlite { .. } | Place::Redis(_) => None,
        });
        environments.insert(name, targets.collect());
    }
    Ok(Databases { default, environments })
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let ServerError::Listen { address, source } = &error;
        let help = match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("another program listens on {address}: end it, or choose --listen")
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need rights; choose a higher one with --listen".to_owned()
            }
            _ => "choose an address of this machine with --listen".to_owned(),
        };
        Self::unusable("listen", format!("{error}: {source}")).help(help)
    }
}
