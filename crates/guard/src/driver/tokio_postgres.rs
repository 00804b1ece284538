//! `tokio-postgres`: its client, and a connection that is made when it is needed.

use std::error::Error as _;

use ::tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use ::tokio_postgres::{Client, Config, Error, SimpleQueryMessage, Socket};

use crate::connection::{Connecting, Connection, Refusal, Row};

impl Connection for &Client {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        let messages = self.simple_query(sql).await.map_err(|error| refused(&error))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }
}

impl Connection for Client {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        (&*self).rows(sql).await
    }
}

/// Connects when it is needed, with the TLS that the caller has (`NoTls` for none). The connection's task ends with it.
pub fn connecting<T>(config: Config, tls: T) -> impl Connection
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    Connecting::new(move || {
        let (config, tls) = (config.clone(), tls.clone());
        async move {
            let (client, connection) = config.connect(tls).await.map_err(|error| refused(&error))?;
            // Its errors reach whoever asks the client.
            tokio::spawn(async move { connection.await.ok() });
            Ok(client)
        }
    })
}

/// What an error means to the guard: for those who connect themselves.
pub fn refused(error: &Error) -> Refusal {
    if let Some(db) = error.as_db_error() {
        return Refusal::Server { sqlstate: db.code().code().to_owned(), message: db.message().to_owned() };
    }
    // The driver says what it tried ("error connecting to server"), its cause says why.
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        cause = error.source();
    }
    Refusal::Unreachable(why)
}
