//! A connection of the replication protocol: it makes a slot with its snapshot, and streams what the slot decodes.
//!
//! The one idea to know: [`Replication`] takes commands, one at a time; [`Replication::start`] turns it into a
//! [`Stream`], which takes no more commands and sends its feedback by itself, however slow its reader is.
//!
//! Why it is our own and not a crate's: `docs/decisions/0006-own-replication-connection.md`. Source: "Streaming
//! Replication Protocol" and "Logical Streaming Replication Protocol" of PostgreSQL's documentation. Tried on 14 to 18.

mod stream;

use std::time::Duration;

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::options::{ConnectOptions, HostPort};
use crate::quote;
use crate::wire::{self, BackendKey, Connection, Purpose, Wire};

pub use crate::wire::TextRow;
pub use stream::{Frame, Incoming, Keepalive, Stream};

/// How often the server hears from us where it sets no `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// From here on a transaction is sent before it ends, in kB, unless the server was told less. So the first of a large one comes while
/// the server still decodes the rest; measured in `docs/decisions/0007-batch-applier.md`.
const STREAMED_FROM: u32 = 4096;

/// A connection that takes replication commands, and simple queries too.
pub struct Replication {
    wire: Wire,
    options: ConnectOptions,
    place: HostPort,
    key: BackendKey,
    server_version: u32,
    status_interval: Duration,
}

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The same for every copy of a cluster that was made by other means than `initdb`.
    pub identifier: u64,
    /// Another after each promotion.
    pub timeline: u32,
    /// The end of what the server has flushed.
    pub flushed: Lsn,
    pub database: String,
}

/// How a slot is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateSlot {
    /// It goes away with the connection.
    pub temporary: bool,
    /// A snapshot that other sessions can import, which shows exactly what the slot will not send.
    pub export_snapshot: bool,
    /// Standbys keep a copy of it (17 and newer).
    pub failover: bool,
}

/// A slot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    /// The stream holds every transaction that commits after this.
    pub consistent_point: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`; gone with the next command on the connection that made it.
    pub snapshot: Option<String>,
}

/// Whether transactions are sent before they end, once they are large (`logical_decoding_work_mem`, and at most 4 MB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    Off,
    /// 14 and newer.
    On,
    /// 16 and newer: an abort says where it was.
    Parallel,
}

/// What `START_REPLICATION` asks of pgoutput.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    pub publications: Vec<String>,
    /// 1 (10), 2 (14), 3 (15) or 4 (16).
    pub protocol: u8,
    pub streaming: Streaming,
    /// Logical messages too (14).
    pub messages: bool,
    /// Values by their types' send functions (14).
    pub binary: bool,
    /// Only what was changed on that server itself (16).
    pub origin_none: bool,
}

impl StreamOptions {
    /// What a server of this major version can do: the newest protocol, streamed transactions, messages, binary values.
    pub fn best(major: u32, publications: Vec<String>) -> Self {
        let protocol = match major {
            ..14 => 1,
            14 => 2,
            15 => 3,
            16.. => 4,
        };
        let streaming = if major >= 14 { Streaming::On } else { Streaming::Off };
        Self { publications, protocol, streaming, messages: major >= 14, binary: major >= 14, origin_none: false }
    }

    fn sql(&self) -> Result<String, PgError> {
        let nul = |_| PgError::Options("a publication's name holds a NUL byte".to_owned());
        let names = self.publications.iter().map(|name| quote::ident(name));
        let names: Vec<_> = names.collect::<Result<_, _>>().map_err(nul)?;
        // The grammar of replication commands knows doubled quotes and no escapes.
        let names = names.join(",").replace('\'', "''");
        let mut sql = format!("proto_version '{}', publication_names '{names}'", self.protocol);
        match self.streaming {
            Streaming::Off => {}
            Streaming::On => sql.push_str(", streaming 'on'"),
            Streaming::Parallel => sql.push_str(", streaming 'parallel'"),
        }
        for (asked, option) in [
            (self.messages, ", messages 'true'"),
            (self.binary, ", binary 'true'"),
            (self.origin_none, ", origin 'none'"),
        ] {
            if asked {
                sql.push_str(option);
            }
        }
        Ok(sql)
    }
}

impl Replication {
    /// Connects under a name that `pg_stat_activity` shows, to the first host that takes us. Values will come as text in
    /// one form whatever the server's settings are: ISO dates, `postgres` intervals, all digits of floats, UTF-8.
    ///
    /// # Errors
    /// [`PgError::Unreachable`], [`PgError::Refused`] or [`PgError::Tls`], of the last host that was tried.
    pub async fn connect(options: &ConnectOptions, application_name: &str) -> Result<Self, PgError> {
        let Connection { wire, options, place, key, server_version } =
            wire::connect(options, application_name, Purpose::Replication).await?;
        let mut connection = Self { wire, options, place, key, server_version, status_interval: STATUS_INTERVAL };
        const TIMEOUT: &str = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
        let timeout: u64 = connection.value(TIMEOUT).await?.parse().unwrap_or(0);
        if timeout > 0 {
            connection.status_interval = STATUS_INTERVAL.min(Duration::from_millis(timeout) / 3);
        }
        Ok(connection)
    }

    /// The server process behind this connection: what a watcher asks about.
    pub fn backend_pid(&self) -> i32 {
        self.key.pid
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.server_version
    }

    /// Where it goes.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Which cluster this is, and where its log ends.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn identify_system(&mut self) -> Result<System, PgError> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let mut values = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || values.next().unwrap_or_default();
        let (identifier, timeline, flushed, database) = (next(), next(), next(), next());
        let parsed = (identifier.parse(), timeline.parse(), flushed.parse());
        let (Ok(identifier), Ok(timeline), Ok(flushed)) = parsed else {
            return Err(self.wire.unexpected("IDENTIFY_SYSTEM has another form than documented"));
        };
        Ok(System { identifier, timeline, flushed, database })
    }

    /// Makes a logical slot of pgoutput.
    ///
    /// It waits for every transaction that is open now and has written; for a forgotten prepared one it waits for ever.
    /// [`crate::slots::create_slot`] bounds the wait and names who holds it up.
    ///
    /// Cancellation: when dropped, the server is asked to cancel, and it removes the slot that it was making.
    ///
    /// # Errors
    /// What the server says: 42710 where there is one of that name, 55000 without `wal_level=logical`.
    pub async fn create_slot(&mut self, name: &str, how: CreateSlot) -> Result<Slot, PgError> {
        let quoted = slot_ident(name)?;
        let temporary = if how.temporary { " TEMPORARY" } else { "" };
        let mut sql = format!("CREATE_REPLICATION_SLOT {quoted}{temporary} LOGICAL pgoutput ");
        let (old, new) = match how.export_snapshot {
            true => ("EXPORT_SNAPSHOT", "export"),
            false => ("NOEXPORT_SNAPSHOT", "nothing"),
        };
        if self.server_version >= 15 {
            let failover = if how.failover && self.server_version >= 17 { ", FAILOVER true" } else { "" };
            sql.push_str(&format!("(SNAPSHOT '{new}'{failover})"));
        } else {
            sql.push_str(old);
        }
        let mut guard = CancelOnDrop(Some((self.options.clone(), self.place.clone(), self.key)));
        let answer = self.query(&sql).await;
        guard.0 = None;
        let row = answer?.into_iter().next().unwrap_or_default();
        let mut values = row.into_iter();
        let name = values.next().flatten().unwrap_or_else(|| name.to_owned());
        let point = values.next().flatten().and_then(|text| text.parse().ok());
        let Some(consistent_point) = point else {
            return Err(self.wire.unexpected("CREATE_REPLICATION_SLOT has another form than documented"));
        };
        let snapshot = values.next().flatten().filter(|snapshot| !snapshot.is_empty());
        Ok(Slot { name, consistent_point, snapshot })
    }

    /// Begins to stream at `from`, or at what the slot was confirmed to have sent where that is further.
    ///
    /// # Errors
    /// What the server says: 42704 without the slot, 55006 while another uses it, 55000 when it was invalidated.
    pub async fn start(mut self, slot: &str, from: Lsn, how: &StreamOptions) -> Result<Stream, PgError> {
        let quoted = slot_ident(slot)?;
        if how.streaming != Streaming::Off {
            self.query(&format!(
                "SELECT pg_catalog.set_config(s.name, least(s.setting::bigint, {STREAMED_FROM})::text, false)
                 FROM pg_catalog.pg_settings AS s WHERE s.name = 'logical_decoding_work_mem'"
            ))
            .await?;
        }
        let sql = format!("START_REPLICATION SLOT {quoted} LOGICAL {from} ({})", how.sql()?);
        self.wire.send_query(&sql).await?;
        loop {
            let message = self.wire.next().await?;
            match message.tag {
                // CopyBothResponse.
                b'W' => break,
                b'E' => return Err(self.wire.server_error(&message.body)),
                b'S' | b'N' => {}
                tag => return Err(self.wire.unexpected_tag(tag, "START_REPLICATION")),
            }
        }
        Ok(Stream::new(self.wire, self.status_interval, self.key.pid))
    }

    /// Runs statements by the simple query protocol; rows of all results, one after another.
    ///
    /// # Errors
    /// What the server says.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, PgError> {
        self.wire.query(sql).await
    }

    async fn value(&mut self, sql: &str) -> Result<String, PgError> {
        let rows = self.query(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
    }
}

/// A slot's name for a replication command, whose grammar has keywords of its own: always in quotes.
fn slot_ident(name: &str) -> Result<String, PgError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(format!("\"{name}\""));
    }
    Err(PgError::Options(format!("`{name}` is no name for a slot: lower-case letters, digits and `_`, at most 63")))
}

/// Asks the server to cancel, unless it was disarmed: the walsender does not notice a closed connection while it waits.
struct CancelOnDrop(Option<(ConnectOptions, HostPort, BackendKey)>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some((options, place, key)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { wire::cancel(&options, &place, key).await });
        }
    }
}
