//! PgBouncer's admin console: PAUSE, RESUME, RELOAD and SHOW.
//!
//! The console is the virtual database `pgbouncer`; it speaks only the simple protocol and knows no SELECT, so it is no
//! [`crate::Session`]. A PAUSE waits until no server connection of the database is in a transaction, and queues clients: they
//! see latency, no error. It outlives the console that asked for it: only a RESUME ends it.
//! See <https://www.pgbouncer.org/usage.html#admin-console>. Tried with 1.18.

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::poll_fn;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::PgError;
use crate::options::ConnectOptions;
use crate::quote;
use crate::session::config;
use crate::tls;

/// The console's name among the databases.
const DATABASE: &str = "pgbouncer";

/// Between two tries to reach a console that was lost.
const PAUSE_BETWEEN: Duration = Duration::from_millis(100);

/// A pooler of a database: where its console is, and which of its databases clients ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// What people call it: the target's name.
    pub name: String,
    /// As the administrator: a user of `admin_users`.
    pub console: ConnectOptions,
    /// As clients name it: the left side in `[databases]`.
    pub database: String,
}

impl Door {
    /// The pooler through which these options go, administered by the same user.
    pub fn through(name: impl Into<String>, options: &ConnectOptions) -> Self {
        Self { name: name.into(), console: options.with_database(DATABASE), database: options.database.clone() }
    }

    /// What a person types to let its clients go on.
    pub fn resume_command(&self) -> String {
        let (host, port) = self.console.hosts.first().map_or(("localhost", 6432), |place| (&place.host, place.port));
        let name = self.sql().replace('\'', "'\\''");
        format!("psql -h {host} -p {port} -U {} -d {DATABASE} -c 'RESUME {name};'", self.console.user)
    }

    /// The database as the console's commands name it. Its scanner takes quoted names as SQL does.
    fn sql(&self) -> String {
        quote::ident(&self.database.replace('\0', "")).expect("NUL was taken out")
    }
}

/// What can go wrong at a pooler.
#[derive(Debug, thiserror::Error)]
pub enum PoolerError {
    #[error("pooler `{name}` could not be asked: {source}")]
    Console { name: String, source: PgError },
    #[error("pooler `{name}` has no database `{database}`")]
    NoDatabase { name: String, database: String },
    /// PAUSE waits for transactions to end.
    #[error("pooler `{name}` was not paused in {} ms: transactions of {} client(s) of `{database}` did not end. \
         All were resumed; clients go on", waited.as_millis(), active)]
    NotPaused { name: String, database: String, waited: Duration, active: u64 },
    /// Loud, since clients hang.
    #[error("CLIENTS STILL WAIT: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Stuck(Vec<Stuck>),
}

/// A pooler that could not be told to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub name: String,
    pub why: String,
    /// What a person types.
    pub command: String,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pooler `{}` could not be resumed ({}): type `{}`", self.name, self.why, self.command)
    }
}

/// A row of `SHOW DATABASES`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub host: String,
    pub port: String,
    /// The real one, on the server.
    pub database: String,
    pub paused: bool,
    pub current_connections: u64,
}

/// A row of `SHOW POOLS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    pub database: String,
    pub user: String,
    /// Clients with a server, or with none and nothing to say.
    pub clients_active: u64,
    pub clients_waiting: u64,
    pub servers_active: u64,
    pub servers_idle: u64,
}

/// A row of `SHOW CLIENTS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRow {
    pub user: String,
    pub database: String,
    pub state: String,
    pub address: String,
    pub application: String,
}

/// An open admin console.
pub struct Console {
    client: Client,
    address: String,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Console({})", self.address)
    }
}

/// Rows of a SHOW, with the columns' names: they differ between versions, so that nothing goes by position.
struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    fn text(&self, row: &[Option<String>], column: &str) -> String {
        let at = self.columns.iter().position(|name| name == column);
        at.and_then(|at| row.get(at).cloned().flatten()).unwrap_or_default()
    }

    fn number(&self, row: &[Option<String>], column: &str) -> u64 {
        self.text(row, column).parse().unwrap_or_default()
    }
}

impl Console {
    /// Connects to the console, whatever database the options name.
    ///
    /// # Errors
    /// As [`crate::Session::connect`].
    pub async fn connect(options: &ConnectOptions) -> Result<Self, PgError> {
        let options = options.with_database(DATABASE);
        let address = options.address();
        let connector = tls::connector(&options.ssl)?;
        let attempt =
            tokio::time::timeout(options.connect_timeout, config(&options, "pgrunbook:console").connect(connector))
                .await;
        let (client, mut connection) = match attempt {
            Ok(result) => result.map_err(|error| PgError::of_connection(&error, &address))?,
            Err(_) => {
                let why = format!("no answer within {:?}", options.connect_timeout);
                return Err(PgError::Unreachable { address, why });
            }
        };
        tokio::spawn(async move { while let Some(Ok(_)) = poll_fn(|cx| connection.poll_message(cx)).await {} });
        Ok(Self { client, address })
    }

    /// One command of the console.
    async fn command(&self, text: &str) -> Result<Rows, PgError> {
        let messages =
            self.client.simple_query(text).await.map_err(|error| PgError::of_statement(&error, &self.address))?;
        let mut rows = Rows { columns: Vec::new(), rows: Vec::new() };
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    rows.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    rows.rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
                }
                _ => {}
            }
        }
        Ok(rows)
    }

    /// `SHOW DATABASES`.
    pub async fn databases(&self) -> Result<Vec<Database>, PgError> {
        let found = self.command("SHOW DATABASES").await?;
        let read = |row: &Vec<Option<String>>| Database {
            name: found.text(row, "name"),
            host: found.text(row, "host"),
            port: found.text(row, "port"),
            database: found.text(row, "database"),
            paused: found.text(row, "paused") == "1",
            current_connections: found.number(row, "current_connections"),
        };
        Ok(found.rows.iter().map(read).collect())
    }

    /// `SHOW POOLS`.
    pub async fn pools(&self) -> Result<Vec<Pool>, PgError> {
        let found = self.command("SHOW POOLS").await?;
        let read = |row: &Vec<Option<String>>| Pool {
            database: found.text(row, "database"),
            user: found.text(row, "user"),
            clients_active: found.number(row, "cl_active"),
            clients_waiting: found.number(row, "cl_waiting"),
            servers_active: found.number(row, "sv_active"),
            servers_idle: found.number(row, "sv_idle"),
        };
        Ok(found.rows.iter().map(read).collect())
    }

    /// `SHOW CLIENTS`.
    pub async fn clients(&self) -> Result<Vec<ClientRow>, PgError> {
        let found = self.command("SHOW CLIENTS").await?;
        let read = |row: &Vec<Option<String>>| ClientRow {
            user: found.text(row, "user"),
            database: found.text(row, "database"),
            state: found.text(row, "state"),
            address: found.text(row, "addr"),
            application: found.text(row, "application_name"),
        };
        Ok(found.rows.iter().map(read).collect())
    }

    /// `RELOAD`: reads the configuration again. Server connections whose settings changed are closed when they are free.
    pub async fn reload(&self) -> Result<(), PgError> {
        self.command("RELOAD").await.map(drop)
    }

    /// Whether a database is paused; `None`: there is none of this name.
    async fn is_paused(&self, database: &str) -> Result<Option<bool>, PgError> {
        Ok(self.databases().await?.into_iter().find(|one| one.name == database).map(|one| one.paused))
    }
}

/// Pauses a database on one pooler. `Ok(false)`: it was paused before.
///
/// When it takes longer than `timeout`, or fails, the pooler is resumed before this returns.
///
/// # Errors
/// [`PoolerError::NotPaused`] with how many clients were in a transaction; [`PoolerError::Stuck`] if it was also impossible to
/// resume it within `timeout`.
pub async fn pause(door: &Door, timeout: Duration) -> Result<bool, PoolerError> {
    let failed = |source| PoolerError::Console { name: door.name.clone(), source };
    let begun = Instant::now();
    let console = Console::connect(&door.console).await.map_err(failed)?;
    match console.is_paused(&door.database).await.map_err(failed)? {
        Some(true) => return Ok(false),
        Some(false) => {}
        None => return Err(PoolerError::NoDatabase { name: door.name.clone(), database: door.database.clone() }),
    }
    let left = timeout.saturating_sub(begun.elapsed());
    let error = match tokio::time::timeout(left, console.command(&format!("PAUSE {}", door.sql()))).await {
        Ok(Ok(_)) => return Ok(true),
        Ok(Err(error)) => failed(error),
        Err(_) => {
            let asked = async { Console::connect(&door.console).await?.pools().await };
            let pools = asked.await.unwrap_or_default();
            let active =
                pools.iter().filter(|pool| pool.database == door.database).map(|pool| pool.servers_active).sum();
            PoolerError::NotPaused {
                name: door.name.clone(),
                database: door.database.clone(),
                waited: begun.elapsed(),
                active,
            }
        }
    };
    // The pause may hold although its answer did not come.
    resume(door, timeout.max(Duration::from_secs(1))).await.map_err(|stuck| PoolerError::Stuck(vec![stuck]))?;
    Err(error)
}

/// Pauses a database on every pooler; on failure all are resumed, also those that were paused before.
///
/// # Errors
/// As [`pause`].
pub async fn pause_all(doors: &[Door], timeout: Duration) -> Result<(), PoolerError> {
    let begun = Instant::now();
    for door in doors {
        let left = timeout.saturating_sub(begun.elapsed());
        if let Err(error) = pause(door, left).await {
            resume_all(doors, timeout.max(Duration::from_secs(1))).await?;
            return Err(error);
        }
    }
    Ok(())
}

/// Lets a database's clients go on. A console that is lost is tried again until the budget is over. `Ok(false)`: it was
/// not paused.
///
/// # Errors
/// [`Stuck`] with the command for a person.
pub async fn resume(door: &Door, budget: Duration) -> Result<bool, Stuck> {
    let begun = Instant::now();
    loop {
        let error = match tokio::time::timeout(budget.max(PAUSE_BETWEEN), resumed_once(door)).await {
            Ok(Ok(was_paused)) => return Ok(was_paused),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        if begun.elapsed() + PAUSE_BETWEEN > budget {
            return Err(Stuck { name: door.name.clone(), why: error, command: door.resume_command() });
        }
        tokio::time::sleep(PAUSE_BETWEEN).await;
    }
}

async fn resumed_once(door: &Door) -> Result<bool, PgError> {
    let console = Console::connect(&door.console).await?;
    if console.is_paused(&door.database).await? != Some(true) {
        return Ok(false);
    }
    match console.command(&format!("RESUME {}", door.sql())).await {
        Ok(_) => Ok(true),
        // Somebody was faster.
        Err(PgError::Server(_)) if console.is_paused(&door.database).await? != Some(true) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Resumes every pooler, each for itself: one that is lost keeps no other waiting.
///
/// # Errors
/// [`PoolerError::Stuck`] with those that could not be resumed.
pub async fn resume_all(doors: &[Door], budget: Duration) -> Result<(), PoolerError> {
    let mut tasks = tokio::task::JoinSet::new();
    for door in doors {
        let door = door.clone();
        tasks.spawn(async move { resume(&door, budget).await });
    }
    let mut stuck: Vec<Stuck> = tasks.join_all().await.into_iter().filter_map(Result::err).collect();
    stuck.sort_by(|one, other| one.name.cmp(&other.name));
    if stuck.is_empty() { Ok(()) } else { Err(PoolerError::Stuck(stuck)) }
}

/// Has every pooler read its configuration again.
///
/// # Errors
/// [`PoolerError::Console`] of the first that could not be told.
pub async fn reload_all(doors: &[Door]) -> Result<(), PoolerError> {
    for door in doors {
        let told = async { Console::connect(&door.console).await?.reload().await };
        told.await.map_err(|source| PoolerError::Console { name: door.name.clone(), source })?;
    }
    Ok(())
}
