//! A connection with what a long-running tool needs of it: its name, its backend's pid, notices, and a way to cancel.

use std::sync::Mutex;

use futures_util::future::poll_fn;
use tokio::sync::mpsc;
use tokio_postgres::config::SslMode as DriverSslMode;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, SimpleQueryMessage};

use crate::error::{PgError, ServerError};
use crate::options::{ConnectOptions, SslMode};
use crate::tls;

/// Notices that wait to be taken; more are dropped, as only people read them.
const NOTICES: usize = 256;

/// PostgreSQL keeps 63 bytes of a name.
const NAME_LIMIT: usize = 63;

/// A NOTICE, WARNING or the like that the server sent beside a result.
pub type Notice = ServerError;

/// One result of a simple query: rows as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Empty for a statement that returns no rows.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows returned or changed, as the command tag says.
    pub affected: u64,
}

/// An open connection.
pub struct Session {
    client: Client,
    notices: Mutex<mpsc::Receiver<Notice>>,
    cancel: CancelToken,
    options: ConnectOptions,
    backend_pid: i32,
}

impl Session {
    /// Connects under a name that `pg_stat_activity` shows; it is cut to 63 bytes.
    ///
    /// # Errors
    /// [`PgError::Unreachable`], [`PgError::Refused`] or [`PgError::Tls`], of the last host that was tried.
    pub async fn connect(options: &ConnectOptions, application_name: &str) -> Result<Self, PgError> {
        let address = options.address();
        let config = config(options, application_name);
        let connector = tls::connector(&options.ssl)?;
        // The driver's own limit is for each address; a name may have several.
        let attempt = tokio::time::timeout(options.connect_timeout, config.connect(connector)).await;
        let (client, mut connection) = match attempt {
            Ok(result) => result.map_err(|error| PgError::of_connection(&error, &address))?,
            Err(_) => {
                let why = format!("no answer within {:?}", options.connect_timeout);
                return Err(PgError::Unreachable { address, why });
            }
        };
        let (sender, notices) = mpsc::channel(NOTICES);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message {
                    // Full: nobody reads them now.
                    let _ = sender.try_send(Notice::from(&notice));
                }
            }
        });
        let cancel = client.cancel_token();
        let mut session =
            Self { client, notices: Mutex::new(notices), cancel, options: options.clone(), backend_pid: 0 };
        session.backend_pid = session.value("SELECT pg_catalog.pg_backend_pid()").await?.parse().unwrap_or(0);
        Ok(session)
    }

    /// The driver's client, for binary results, COPY and transactions.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same, for what needs it alone.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// The server process behind this connection. Behind a transaction pooler it may be another each time.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a text of one or more statements by the simple query protocol, and returns each statement's result.
    ///
    /// Several statements without transaction control run in one implicit transaction.
    pub async fn simple(&self, sql: &str) -> Result<Vec<Answer>, PgError> {
        let messages = self.client.simple_query(sql).await.map_err(|error| self.error(&error))?;
        let mut answers = Vec::new();
        let mut answer = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    answer.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    answer.rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
                }
                SimpleQueryMessage::CommandComplete(affected) => {
                    answer.affected = affected;
                    answers.push(std::mem::take(&mut answer));
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    /// Runs statements whose results do not matter.
    pub async fn execute(&self, sql: &str) -> Result<(), PgError> {
        self.client.batch_execute(sql).await.map_err(|error| self.error(&error))
    }

    /// The first column of the last result's first row; the empty text where there is none.
    pub async fn value(&self, sql: &str) -> Result<String, PgError> {
        let answers = self.simple(sql).await?;
        let value = answers.last().and_then(|answer| answer.rows.first()).and_then(|row| row.first());
        Ok(value.cloned().flatten().unwrap_or_default())
    }

    /// Notices that came since this was asked last.
    pub fn notices(&self) -> Vec<Notice> {
        let Ok(mut receiver) = self.notices.lock() else { return Vec::new() };
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    /// Asks the server to cancel what runs on this connection (SQLSTATE 57014).
    pub async fn cancel(&self) -> Result<(), PgError> {
        let connector = tls::connector(&self.options.ssl)?;
        self.cancel.cancel_query(connector).await.map_err(|error| self.error(&error))
    }

    /// Names the connection anew, for a session that is used by one step after another.
    pub async fn rename(&self, application_name: &str) -> Result<(), PgError> {
        let name = crate::quote::literal(shortened(application_name))
            .map_err(|_| PgError::Options("an application name holds a NUL byte".to_owned()))?;
        self.execute(&format!("SET application_name = {name}")).await
    }

    /// What an error of the driver on this connection was.
    pub fn error(&self, error: &tokio_postgres::Error) -> PgError {
        PgError::of_statement(error, &self.options.address())
    }
}

pub(crate) fn config(options: &ConnectOptions, application_name: &str) -> Config {
    let mut config = Config::new();
    for host in &options.hosts {
        config.host(&host.host).port(host.port);
    }
    config
        .user(&options.user)
        .dbname(&options.database)
        .application_name(shortened(application_name))
        .connect_timeout(options.connect_timeout)
        // A statement may run for hours behind a firewall that forgets quiet connections.
        .keepalives_idle(std::time::Duration::from_secs(30))
        .ssl_mode(match options.ssl.mode {
            SslMode::Disable => DriverSslMode::Disable,
            SslMode::Prefer => DriverSslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverSslMode::Require,
        });
    if let Some(password) = &options.password {
        config.password(password);
    }
    if let Some(settings) = &options.options {
        config.options(settings);
    }
    if options.read_write {
        config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    }
    config
}

pub(crate) fn shortened(name: &str) -> &str {
    let mut end = name.len().min(NAME_LIMIT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
