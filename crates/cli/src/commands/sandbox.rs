//! `sandbox`: throwaway servers.

use pgrunbook_postgres::sandbox::{self, PoolMode, Sandbox, SandboxOptions, url};
use serde_json::json;

use crate::app::App;
use crate::args::{Output, SandboxAction};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

pub async fn sandbox(app: &App, action: SandboxAction) -> Result<u8, Failure> {
    match action {
        SandboxAction::Up { name, detach, version, durable, pooler, settings, database } => {
            if let Some(user) = pooler.iter().find(|user| !user.contains(':')) {
                return Err(Failure::unusable("pooler", format!("`--pooler {user}`: it is not USER:PASSWORD")));
            }
            let settings = settings
                .iter()
                .map(|line| match line.split_once('=') {
                    Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
                    None => Err(Failure::unusable("set", format!("`--set {line}`: it is not NAME=VALUE"))),
                })
                .collect::<Result<Vec<_>, _>>()?;
            let options =
                SandboxOptions { name, detach, major: version, durable, settings, ..SandboxOptions::default() };
            let sandbox = Sandbox::start(options).await?;
            let mut connection = sandbox.options();
            if let Some(database) = database {
                connection = sandbox.database(&database).await?;
            }
            let users: Vec<(&str, &str)> = pooler.iter().filter_map(|user| user.split_once(':')).collect();
            let pooled = match pooler.is_empty() {
                true => None,
                false => Some(sandbox.pooler(PoolMode::Transaction, &users).await?.through(&connection)),
            };
            match app.global.format {
                Output::Json => put(
                    &json!({ "type": "sandbox", "name": sandbox.name(), "url": url(&connection), "pooled_url": pooled.as_ref().map(url), "major": sandbox.major() })
                        .to_string(),
                ),
                // For scripts: the URLs alone, one a line.
                Output::Plain => {
                    put(&url(&connection));
                    if let Some(pooled) = &pooled {
                        put(&url(pooled));
                    }
                }
                _ => {
                    put(&format!("PostgreSQL {} runs as sandbox `{}`", sandbox.major(), sandbox.name()));
                    put(&format!("  export DATABASE_URL='{}'", url(&connection)));
                    if let Some(pooled) = &pooled {
                        put(&format!("  through PgBouncer: '{}'", url(pooled)));
                    }
                    put(&if detach {
                        format!("End it: pgrunbook sandbox down {}", sandbox.name())
                    } else {
                        "Ctrl-C ends it.".to_owned()
                    });
                }
            }
            if !detach {
                app.cancel_on_signals().stopping().await;
            }
        }
        SandboxAction::Down { all: true, .. } => {
            for name in sandbox::down_all()? {
                ended(app, &name);
            }
        }
        SandboxAction::Down { name, .. } => {
            let name = name.unwrap_or_default();
            sandbox::down(&name)?;
            ended(app, &name);
        }
        SandboxAction::List => {
            for name in sandbox::list()? {
                app.say(&name, &json!({ "type": "sandbox", "name": name }));
            }
        }
    }
    Ok(exit::DONE)
}

fn ended(app: &App, name: &str) {
    app.say(&format!("{name} ended"), &json!({ "type": "sandbox-ended", "name": name }));
}
