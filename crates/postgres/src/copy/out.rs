//! Reads what `COPY ... TO STDOUT (FORMAT binary)` sends, row by row where it lies in the read buffer.
//!
//! The one idea to know: the server sends each row in a message of its own, and what a driver does for a message (a part of a
//! shared buffer, a channel, a waking) costs more than to hash the row. Here nothing is done for a message but to look at it, on
//! a thread that reads much at once; measured in `docs/decisions/0016-rows-without-a-driver.md`.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::{CopyError, Row, RowSplitter};
use crate::error::PgError;
use crate::options::ConnectOptions;
use crate::wire::{self, Connection, Malformed, Purpose, Wire};

/// When less than this had come before there was no more, more is let come together: to be woken for every 8 kB, as the server sends them,
/// costs both sides a tenth of the time. Only when so much has come that it is no small table, whose rows would wait for nothing.
const LITTLE: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(1);
const SOON: usize = 1 << 20;

/// An idle connection for COPY. While it works it belongs to a thread of its own; an operation that fails or is dropped ends it.
///
/// When it is dropped it takes leave of the server; where a COPY was still under way, the server is asked to cancel it first.
pub struct CopyOut {
    open: Option<Open>,
}

/// A connection, and the runtime that its socket belongs to: it is never used by two threads at once.
struct Open {
    connection: Connection,
    runtime: Own,
    /// The server has something to do, or to send.
    busy: bool,
}

/// A runtime that may be dropped inside of another, which tokio's own may not.
struct Own(Option<Runtime>);

impl Own {
    fn new() -> Result<Self, PgError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self(Some(runtime.map_err(|error| no_thread(&error))?)))
    }

    fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.0.as_ref().expect("it is taken out when it is dropped").block_on(work)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whoever waits for a thread's result; when it is dropped, nobody does.
type Tell<T> = oneshot::Sender<T>;

impl CopyOut {
    /// Connects under a name that `pg_stat_activity` shows, to the first host that takes us. Beyond UTF-8 nothing is set: how values
    /// are written is the caller's to say, by [`CopyOut::execute`].
    ///
    /// # Errors
    /// [`PgError::Unreachable`], [`PgError::Refused`] or [`PgError::Tls`], of the last host that was tried.
    pub async fn connect(options: &ConnectOptions, application_name: &str) -> Result<Self, PgError> {
        let (options, name) = (options.clone(), application_name.to_owned());
        on_thread(move |_: &mut Tell<_>| {
            let runtime = Own::new()?;
            let connection = runtime.block_on(wire::connect(&options, &name, Purpose::Rows))?;
            Ok(Self { open: Some(Open { connection, runtime, busy: false }) })
        })
        .await
    }

    /// The server process behind this connection.
    pub fn backend_pid(&self) -> i32 {
        self.open.as_ref().map_or(0, |open| open.connection.key.pid)
    }

    /// Runs statements whose results do not matter: settings, the beginning of a transaction, its snapshot.
    ///
    /// Cancellation: a statement that runs is not cancelled, and the connection ends when it is done.
    ///
    /// # Errors
    /// What the server says; [`PgError::Lost`].
    pub async fn execute(mut self, sql: &str) -> Result<Self, PgError> {
        let (open, sql) = (self.taken()?, sql.to_owned());
        on_thread(move |_: &mut Tell<_>| {
            let mut open = Ending(Some(open));
            let inner = open.inner();
            inner.runtime.block_on(inner.connection.wire.query(&sql))?;
            Ok(open.keep())
        })
        .await
    }

    /// Runs a COPY in the binary format of so many columns, and folds its rows into `state`: `each` sees every row once, in the order in
    /// which they come. It runs on the thread that reads, and may block it; no more is kept than one row and a read buffer.
    ///
    /// Cancellation: when dropped, the server is asked to cancel, and no further row is seen.
    ///
    /// # Errors
    /// What the server says, [`PgError::Lost`], [`CopyError`] if it is not what COPY writes, or what `each` returns.
    pub async fn rows<S, E>(
        mut self,
        sql: &str,
        columns: u16,
        mut state: S,
        mut each: impl FnMut(&mut S, Row<'_>) -> Result<(), E> + Send + 'static,
    ) -> Result<(Self, S), E>
    where
        S: Send + 'static,
        E: From<PgError> + From<CopyError> + Send + 'static,
    {
        let (open, sql) = (self.taken()?, sql.to_owned());
        on_thread(move |tell: &mut Tell<_>| {
            let mut open = Ending(Some(open));
            open.inner().rows(&sql, columns, tell, |row| each(&mut state, row))?;
            Ok((open.keep(), state))
        })
        .await
    }

    fn taken(&mut self) -> Result<Open, PgError> {
        self.open.take().ok_or_else(|| PgError::Client("a connection for COPY was used after it had ended".to_owned()))
    }
}

impl Drop for CopyOut {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            // Not here: a runtime cannot be used inside of another. Without a thread the server sees it closed, and no more.
            let _ = thread().spawn(move || drop(Ending(Some(open))));
        }
    }
}

/// A connection on its thread: unless it is kept, it ends there in good order.
struct Ending(Option<Open>);

impl Ending {
    fn inner(&mut self) -> &mut Open {
        self.0.as_mut().expect("it is taken out by `keep` only, which consumes this")
    }

    /// Back to whoever waits, in the form that may be dropped anywhere.
    fn keep(mut self) -> CopyOut {
        CopyOut { open: self.0.take() }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(Open { mut connection, runtime, busy }) = self.0.take() else { return };
        runtime.block_on(async {
            if busy {
                wire::cancel(&connection.options, &connection.place, connection.key).await;
            }
            // Terminate. A server that is gone needs no leave.
            let _ = connection.wire.send(b"X\0\0\0\x04").await;
        });
        // Its socket belongs to the runtime.
        drop(connection);
    }
}

impl Open {
    fn rows<T, E: From<PgError> + From<CopyError>>(
        &mut self,
        sql: &str,
        columns: u16,
        tell: &mut Tell<T>,
        mut each: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let wire = &mut self.connection.wire;
        let mut splitter = RowSplitter::new(columns);
        let mut failure = None;
        // Bytes of all of it, and since it was waited for more.
        let (mut read, mut gathered) = (0, 0);
        self.busy = true;
        self.runtime.block_on(wire.send_query(sql))?;
        loop {
            let mut at = 0;
            loop {
                let message = match wire.inbox.look(at) {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(Malformed) => return Err(wire.unexpected("a message's length cannot be").into()),
                };
                at = message.end;
                match message.tag {
                    b'd' => splitter.push(message.body, &mut each)?,
                    b'E' => failure = Some(wire.server_error(message.body)),
                    b'Z' => {
                        wire.inbox.skip(at);
                        self.busy = false;
                        return match failure {
                            Some(error) => Err(error.into()),
                            None => Ok(splitter.finish()?),
                        };
                    }
                    // CopyOutResponse, CopyDone, command complete; parameter status, notice, notification.
                    b'H' | b'c' | b'C' | b'S' | b'N' | b'A' => {}
                    tag => return Err(wire.unexpected_tag(tag, "COPY").into()),
                }
            }
            wire.inbox.skip(at);
            let came = match at_hand(wire, read) {
                Some(came) => came,
                None => {
                    if read >= SOON && gathered < LITTLE {
                        // Not by a timer of the runtime, which would be woken by the socket meanwhile.
                        std::thread::sleep(PAUSE);
                    }
                    gathered = 0;
                    let came = self.runtime.block_on(async {
                        tokio::select! {
                            biased;
                            () = tell.closed() => None,
                            came = wire.inbox.fill(&mut wire.reader) => Some(came),
                        }
                    });
                    came.unwrap_or(Err(ErrorKind::Interrupted.into()))
                }
            };
            if tell.is_closed() {
                return Err(PgError::Client("nobody waits for the rows any more".to_owned()).into());
            }
            let why = match came {
                Ok(0) => "the server closed it".to_owned(),
                Ok(bytes) => {
                    (read, gathered) = (read + bytes, gathered + bytes);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            self.busy = false;
            // Where the server has said why, that is why.
            return Err(failure.unwrap_or_else(|| wire::lost(&wire.address, &why)).into());
        }
    }
}

/// What has come, without waiting. Not asked at first: where little comes there is nothing to gain.
fn at_hand(wire: &mut Wire, read: usize) -> Option<std::io::Result<usize>> {
    if read < SOON { None } else { wire.inbox.fill(&mut wire.reader).now_or_never() }
}

fn thread() -> std::thread::Builder {
    std::thread::Builder::new().name("copy out".to_owned())
}

/// Runs work on a thread of its own. It is let run to its end when this is dropped, and can see that nobody waits.
async fn on_thread<T, E>(work: impl FnOnce(&mut Tell<Result<T, E>>) -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<PgError> + Send + 'static,
{
    let (mut tell, told) = oneshot::channel();
    let started = thread().spawn(move || {
        let result = work(&mut tell);
        // What nobody waits for is dropped here.
        let _ = tell.send(result);
    });
    started.map_err(|error| no_thread(&error))?;
    told.await.map_err(|_| PgError::Client("the thread that reads rows has ended early".to_owned()))?
}

fn no_thread(error: &std::io::Error) -> PgError {
    PgError::Client(format!("no thread could be started: {error}"))
}
