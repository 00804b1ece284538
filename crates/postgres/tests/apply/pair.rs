//! A source and a destination in one cluster, and the stream between them, read through SQL.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use pgrunbook_postgres::apply::{Applier, ApplyError, Options, Rename};
use pgrunbook_postgres::pgoutput::decode::{Decoder, Message};
use pgrunbook_postgres::pgoutput::{Begin, Change, Commit, Event, Relation};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, Session};

pub async fn cluster() -> Sandbox {
    let settings = [("max_replication_slots", "60"), ("max_wal_senders", "60"), ("max_connections", "200")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    shared("apply", SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

/// The source's `public` becomes the destination's `tenant`.
pub struct Pair {
    pub source: Session,
    pub target: Session,
    pub to: ConnectOptions,
    pub binary: bool,
    relations: HashMap<u32, Arc<Relation>>,
    decoder: Decoder,
}

impl Pair {
    /// The same tables on both sides, and a slot from here on.
    pub async fn new(tables: &str) -> Self {
        let cluster = cluster().await;
        let (from, to) =
            (cluster.fresh_database("source").await.unwrap(), cluster.fresh_database("target").await.unwrap());
        let source = Session::connect(&from, "test").await.unwrap();
        let target = Session::connect(&to, "test").await.unwrap();
        source.execute(tables).await.unwrap();
        target.execute("CREATE SCHEMA tenant; SET search_path = tenant, public").await.unwrap();
        target.execute(tables).await.unwrap();
        source.execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
        // A temporary one, which goes with the session.
        let slot = "SELECT pg_create_logical_replication_slot(current_database()::text, 'pgoutput', true)";
        source.execute(slot).await.unwrap();
        Self { source, target, to, binary: true, relations: HashMap::new(), decoder: Decoder::default() }
    }

    pub fn options(&self) -> Options {
        Options::new("tenant:forward", Rename::one("public", "tenant"))
    }

    pub async fn open(&self) -> Applier {
        Applier::open(&self.to, self.options()).await.unwrap()
    }

    /// What happened at the source since this was asked last.
    pub async fn events(&mut self) -> Vec<Event> {
        let rows = self
            .source
            .client()
            .query(
                "SELECT data FROM pg_logical_slot_get_binary_changes(current_database(), NULL, NULL,
                     'proto_version', '1', 'publication_names', 'everything', 'messages', 'true', 'binary', $1)",
                &[&self.binary.to_string()],
            )
            .await
            .unwrap();
        rows.iter().filter_map(|row| self.event(&Bytes::from(row.get::<_, Vec<u8>>(0)))).collect()
    }

    fn event(&mut self, data: &Bytes) -> Option<Event> {
        let relation = |oid: &u32| Arc::clone(&self.relations[oid]);
        let change = match self.decoder.decode(data).unwrap() {
            Message::Begin { commit_lsn, committed_at, xid } => {
                return Some(Event::Begin(Begin { xid, commit_lsn, committed_at, origin: None }));
            }
            Message::Commit(at) => {
                return Some(Event::Commit(Commit { commit_lsn: at.commit_lsn, end_lsn: at.end_lsn }));
            }
            Message::Relation { relation, .. } => {
                self.relations.insert(relation.oid, Arc::new(relation));
                return None;
            }
            Message::Logical { prefix, content, .. } => Change::Message { prefix, content },
            Message::Insert { relation: oid, new, .. } => Change::Insert { relation: relation(&oid), new },
            Message::Update { relation: oid, old, new, .. } => Change::Update { relation: relation(&oid), old, new },
            Message::Delete { relation: oid, old, .. } => Change::Delete { relation: relation(&oid), old },
            Message::Truncate { relations, cascade, restart_identity, .. } => {
                Change::Truncate { relations: relations.iter().map(relation).collect(), cascade, restart_identity }
            }
            _ => return None,
        };
        Some(Event::Change(change))
    }

    /// Applies everything that happened since.
    pub async fn follow(&mut self, applier: &mut Applier) -> Result<(), ApplyError> {
        for event in self.events().await {
            applier.push(event).await?;
        }
        applier.flush().await.map(drop)
    }

    /// The statements run at the source are found at the destination.
    pub async fn carries(&mut self, applier: &mut Applier, statements: &[&str]) {
        for statement in statements {
            self.source.execute(statement).await.unwrap();
        }
        self.follow(applier).await.unwrap();
        self.same().await;
    }

    /// Both sides hold the same rows in all tables.
    pub async fn same(&self) {
        let tables = self
            .source
            .simple("SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
            .await
            .unwrap();
        for table in &tables[0].rows {
            let table = table[0].as_deref().unwrap();
            let source = rows(&self.source, &format!("public.{table}")).await;
            let target = rows(&self.target, &format!("tenant.{table}")).await;
            let different: Vec<_> = source.iter().zip(&target).filter(|(one, other)| one != other).take(3).collect();
            assert!(
                different.is_empty() && source.len() == target.len(),
                "{table}: {} rows and {}; {different:?}",
                source.len(),
                target.len()
            );
        }
    }
}

pub async fn rows(session: &Session, table: &str) -> Vec<Option<String>> {
    let sql = format!("SELECT r::text FROM {table} AS r ORDER BY r::text COLLATE \"C\"");
    session.simple(&sql).await.unwrap().remove(0).rows.into_iter().map(|mut row| row.remove(0)).collect()
}
