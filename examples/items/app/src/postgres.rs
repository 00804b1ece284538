//! The mode `POSTGRES_PRIMARY`: a schema for each source, found by the mapping.
//!
//! Each request is one transaction that begins with the source's `search_path`, set `LOCAL`: it ends with the transaction, so
//! that a connection which a pooler shares does not carry it to the next source. Statements are not prepared by name, since a
//! pooler in transaction mode gives the next transaction another server. The path holds the source's schema alone: what is
//! missing there is missing, and never somebody else's.

use serde_json::{Map, Value, json};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, error::SqlState};

use crate::answer::{Failure, moment};
use crate::config::Config;
use crate::pool::{Lease, Pool, connect, gone};
use crate::profile::{What, Write, json_of, no_item, no_note, schema_of, unknown_source};

/// The chain of `db/migrations/source`, in order.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../db/migrations/source/0001_items.sql"),
    include_str!("../../db/migrations/source/0002_search.sql"),
];

const ITEM: &str = "
SELECT i.id, i.title, i.body, i.score, i.pinned, i.meta::pg_catalog.text, i.note_count,
       pg_catalog.to_char(i.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
       pg_catalog.to_char(i.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
       ARRAY(SELECT t.tag FROM item_tags AS t WHERE t.item_id = i.id ORDER BY t.tag COLLATE \"C\"),
       ARRAY(SELECT t.weight FROM item_tags AS t WHERE t.item_id = i.id ORDER BY t.tag COLLATE \"C\")
FROM items AS i";

const NOTE: &str = "
SELECT n.id, n.item_id, n.author, n.body,
       pg_catalog.to_char(n.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
       pg_catalog.to_char(n.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
FROM notes AS n";

/// The index of migration 0002 answers it.
const FOUND: &str = "
WHERE to_tsvector('simple', regexp_replace(lower((i.title || ' ' || i.body) COLLATE \"und-x-icu\"), '[^[:alnum:]]+', ' ', 'g'))
      @@ to_tsquery('simple', $2)";

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub struct Postgres {
    pool: Pool,
    /// `schema.table`, quoted.
    registry: String,
    registry_schema: String,
    /// Who must have access to a new source.
    role: Option<String>,
    admin: Option<String>,
    owner: String,
}

/// One transaction on one source's rows.
struct Tenant(Lease);

impl Postgres {
    pub fn new(dsn: &str, config: &Config) -> Self {
        let (schema, table) = &config.registry;
        let role = dsn.parse::<tokio_postgres::Config>().ok().and_then(|one| one.get_user().map(str::to_owned));
        Self {
            pool: Pool::new(dsn.to_owned(), config.pool),
            registry: format!("{}.{}", ident(schema), ident(table)),
            registry_schema: schema.clone(),
            role,
            admin: config.admin_dsn.clone(),
            owner: config.owner.clone(),
        }
    }

    /// Whether the database answers, and knows the source.
    pub async fn health(&self, source: Option<&str>) -> Result<(), Failure> {
        match source {
            Some(source) => self.reading(source).await?.end(Ok(())).await,
            None => {
                let lease = self.pool.begin("BEGIN READ ONLY; COMMIT").await.map_err(failure)?;
                lease.back();
                Ok(())
            }
        }
    }

    /// The sources that are registered.
    pub async fn sources(&self) -> Result<Vec<String>, Failure> {
        let lease = self.pool.begin("BEGIN READ ONLY").await.map_err(failure)?;
        let tenant = Tenant(lease);
        let sql = format!(
            "SELECT s.source_id::pg_catalog.text FROM {} AS s ORDER BY s.source_id::pg_catalog.text COLLATE \"C\"",
            self.registry
        );
        let rows = tenant.rows(&sql, &[]).await;
        let rows = tenant.end(rows).await?;
        rows.iter().map(|row| cell(row, 0)).collect()
    }

    pub async fn counts(&self, source: &str) -> Result<(i64, i64), Failure> {
        let tenant = self.reading(source).await?;
        let rows = tenant
            .rows("SELECT (SELECT pg_catalog.count(*) FROM items), (SELECT pg_catalog.count(*) FROM notes)", &[])
            .await;
        let rows = tenant.end(rows).await?;
        let row = rows.first().ok_or_else(|| Failure::Internal("no count came back".to_owned()))?;
        Ok((cell(row, 0)?, cell(row, 1)?))
    }

    pub async fn items(&self, source: &str, limit: i64, words: &[String]) -> Result<Vec<Value>, Failure> {
        let tenant = self.reading(source).await?;
        let rows = if words.is_empty() {
            tenant.rows(&format!("{ITEM} ORDER BY i.id LIMIT $1"), &[(&limit, Type::INT8)]).await
        } else {
            let query = words.iter().map(|word| format!("'{word}':*")).collect::<Vec<_>>().join(" & ");
            tenant
                .rows(&format!("{ITEM} {FOUND} ORDER BY i.id LIMIT $1"), &[(&limit, Type::INT8), (&query, Type::TEXT)])
                .await
        };
        tenant.end(rows).await?.iter().map(item).collect()
    }

    pub async fn item(&self, source: &str, id: i64) -> Result<Value, Failure> {
        let tenant = self.reading(source).await?;
        let rows = tenant.rows(&format!("{ITEM} WHERE i.id = $1"), &[(&id, Type::INT8)]).await;
        tenant.end(rows).await?.first().map_or_else(|| Err(no_item(id)), item)
    }

    pub async fn notes(&self, source: &str, id: i64) -> Result<Vec<Value>, Failure> {
        let tenant = self.reading(source).await?;
        let outcome = async {
            let there = tenant.rows("SELECT 1 FROM items AS i WHERE i.id = $1", &[(&id, Type::INT8)]).await?;
            if there.is_empty() {
                return Err(no_item(id));
            }
            tenant.rows(&format!("{NOTE} WHERE n.item_id = $1 ORDER BY n.id"), &[(&id, Type::INT8)]).await
        };
        let rows = outcome.await;
        tenant.end(rows).await?.iter().map(note).collect()
    }

    /// What a key did; none if nothing was done under it.
    pub async fn edit(&self, source: &str, key: &str) -> Result<Option<Value>, Failure> {
        let tenant = self.reading(source).await?;
        let sql = "SELECT e.kind, e.item_id, e.note_id, e.value FROM edits AS e WHERE e.key = $1";
        let rows = tenant.rows(sql, &[(&key, Type::TEXT)]).await;
        let rows = tenant.end(rows).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (kind, item, note, value): (String, i64, Option<i64>, String) =
            (cell(row, 0)?, cell(row, 1)?, cell(row, 2)?, cell(row, 3)?);
        Ok(Some(json!({ "key": key, "kind": kind, "item_id": item, "note_id": note, "value": value })))
    }

    pub async fn write(&self, source: &str, write: &Write) -> Result<Value, Failure> {
        let tenant = self.enter(source, "BEGIN").await?;
        let outcome = written(&tenant, write).await;
        tenant.end(outcome).await
    }

    async fn reading(&self, source: &str) -> Result<Tenant, Failure> {
        self.enter(source, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    /// A transaction that sees the rows of this source, and of no other.
    async fn enter(&self, source: &str, begin: &str) -> Result<Tenant, Failure> {
        let tenant = Tenant(self.pool.begin(begin).await.map_err(failure)?);
        let entered = async {
            let sql = format!(
                "SELECT s.schema_name::pg_catalog.text,
                        pg_catalog.to_regnamespace(pg_catalog.quote_ident(s.schema_name::pg_catalog.text)) IS NOT NULL
                 FROM {} AS s WHERE s.source_id::pg_catalog.text = $1",
                self.registry
            );
            let rows = tenant.rows(&sql, &[(&source, Type::TEXT)]).await?;
            let row = rows.first().ok_or_else(|| unknown_source(source))?;
            let (schema, there): (String, bool) = (cell(row, 0)?, cell(row, 1)?);
            if !there {
                return Err(Failure::unavailable(format!("the schema {schema} of the source {source:?} is not there")));
            }
            tenant.0.batch_execute(&format!("SET LOCAL search_path = {}", ident(&schema))).await.map_err(failure)
        };
        match entered.await {
            Ok(()) => Ok(tenant),
            Err(error) => Err(tenant.end(Err::<(), _>(error)).await.err().unwrap_or_else(|| unknown_source(source))),
        }
    }

    /// Registers a source and makes its schema, as far as they are not there.
    ///
    /// # Errors
    /// [`Failure::Forbidden`] without an administrative connection; [`Failure::Conflict`] where the name is another's.
    pub async fn bootstrap(&self, source: &str) -> Result<Value, Failure> {
        let Some(admin) = &self.admin else {
            return Err(Failure::Forbidden("set ITEMS_POSTGRES_ADMIN_DSN to make sources here".to_owned()));
        };
        let client = connect(admin).await.map_err(failure)?;
        // The connection ends with this request, and whatever is open on it.
        let (owner, registry) = (ident(&self.owner), &self.registry);
        // One bootstrap at a time; as the owner, so that everything is the owner's.
        client
            .batch_execute(&format!(
                "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('items bootstrap')); SET LOCAL ROLE {owner};
                 CREATE TABLE IF NOT EXISTS {registry} (
                     source_id   text        NOT NULL PRIMARY KEY CHECK (source_id <> ''),
                     schema_name text        NOT NULL UNIQUE
                         CHECK (schema_name COLLATE \"C\" ~ '^[a-z_][a-z0-9_]*$' AND pg_catalog.octet_length(schema_name) <= 63
                                AND NOT pg_catalog.starts_with(schema_name, 'pg_')),
                     created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
                 )"
            ))
            .await
            .map_err(failure)?;
        let text = [(&source as &(dyn ToSql + Sync), Type::TEXT)];
        let known = format!(
            "SELECT s.schema_name::pg_catalog.text FROM {registry} AS s WHERE s.source_id::pg_catalog.text = $1"
        );
        let known = client.query_typed(&known, &text).await.map_err(failure)?;
        let (schema, made_row) = match known.first() {
            Some(row) => (cell(row, 0)?, false),
            None => {
                let schema = schema_of(source)?;
                let insert = format!("INSERT INTO {registry} (source_id, schema_name) VALUES ($1, $2)");
                let row: [Parameter<'_>; 2] = [(&source, Type::TEXT), (&schema, Type::TEXT)];
                if let Err(error) = client.query_typed(&insert, &row).await {
                    return Err(match error.code() {
                        Some(code) if *code == SqlState::UNIQUE_VIOLATION => Failure::Conflict(format!(
                            "the schema {schema} is another source's: two sources never share one"
                        )),
                        _ => failure(error),
                    });
                }
                (schema, true)
            }
        };
        let found = "SELECT pg_catalog.pg_get_userbyid(n.nspowner)::pg_catalog.text FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1";
        let found = client.query_typed(found, &[(&schema, Type::TEXT)]).await.map_err(failure)?;
        let holder: Option<String> = found.first().map(|row| cell(row, 0)).transpose()?;
        if let Some(holder) = holder.as_ref().filter(|holder| **holder != self.owner) {
            return Err(Failure::Conflict(format!("the schema {schema} is there, and belongs to {holder}")));
        }
        let name = ident(&schema);
        let mut script = format!("CREATE SCHEMA IF NOT EXISTS {name}; SET LOCAL search_path = {name};\n");
        // Notices of what is there already would be the only news.
        script.push_str("SET LOCAL client_min_messages = warning;\n");
        script.extend(MIGRATIONS);
        if let Some(role) = &self.role {
            let (role, home) = (ident(role), ident(&self.registry_schema));
            script.push_str(&format!(
                "GRANT USAGE ON SCHEMA {home} TO {role}; GRANT SELECT ON TABLE {registry} TO {role};
                 GRANT USAGE ON SCHEMA {name} TO {role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {role};
                 GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {name} TO {role};
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {name} TO {role};\n"
            ));
        }
        script.push_str("COMMIT");
        client.batch_execute(&script).await.map_err(failure)?;
        Ok(
            json!({ "ok": true, "source": source, "schema": schema, "made_row": made_row, "made_schema": holder.is_none() }),
        )
    }
}

impl Tenant {
    async fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Failure> {
        self.0.query_typed(sql, parameters).await.map_err(failure)
    }

    /// Commits what went well, takes back what did not, and gives the connection to the next request.
    async fn end<T>(self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let word = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        match (self.0.batch_execute(word).await, outcome) {
            (Ok(()), outcome) => {
                self.0.back();
                outcome
            }
            (Err(error), Ok(_)) => {
                // Where the server says no, nothing happened; where it goes away, nobody has said anything.
                let unsaid = gone(&error);
                Err(match failure(error) {
                    Failure::Unavailable { why, sqlstate, .. } => {
                        Failure::Unavailable { why, sqlstate, outcome_unknown: unsaid }
                    }
                    other => other,
                })
            }
            (Err(_), Err(first)) => Err(first),
        }
    }
}

async fn written(tenant: &Tenant, write: &Write) -> Result<Value, Failure> {
    let (id, at) = (write.item, write.at.as_str());
    if let Some(key) = &write.key {
        // Reserves the key, or waits for whoever has it: the same write, sent a second time.
        let reserve = "
            INSERT INTO edits (key, kind, item_id, value, at) VALUES ($1, $2, $3, $4, $5::pg_catalog.text::pg_catalog.timestamptz)
            ON CONFLICT (key) DO NOTHING RETURNING 1";
        let row: [Parameter<'_>; 5] = [
            (key, Type::TEXT),
            (&write.kind(), Type::TEXT),
            (&id, Type::INT8),
            (&write.value(), Type::TEXT),
            (&at, Type::TEXT),
        ];
        if tenant.rows(reserve, &row).await?.is_empty() {
            let before = "SELECT e.kind, e.item_id, e.note_id FROM edits AS e WHERE e.key = $1";
            let rows = tenant.rows(before, &[(key, Type::TEXT)]).await?;
            let row = rows.first().ok_or_else(|| Failure::unavailable("the key was just given back"))?;
            return write.replayed(cell::<&str>(row, 0)?, cell(row, 1)?, cell(row, 2)?);
        }
    }
    let (sql, parameters): (&str, Vec<Parameter<'_>>) = match &write.what {
        What::Meta(text) => (
            "UPDATE items SET meta = $2::pg_catalog.text::pg_catalog.json, updated_at = $3::pg_catalog.text::pg_catalog.timestamptz
             WHERE id = $1 RETURNING NULL::bigint",
            vec![(&id, Type::INT8), (text, Type::TEXT), (&at, Type::TEXT)],
        ),
        What::NoteNew { author, body } => (
            "INSERT INTO notes (item_id, author, body, created_at, updated_at)
             SELECT i.id, $2, $3, $4::pg_catalog.text::pg_catalog.timestamptz, $4::pg_catalog.text::pg_catalog.timestamptz
             FROM items AS i WHERE i.id = $1 RETURNING id",
            vec![(&id, Type::INT8), (author, Type::TEXT), (body, Type::TEXT), (&at, Type::TEXT)],
        ),
        What::NoteEdit { note, body } => (
            "UPDATE notes SET body = $3, updated_at = $4::pg_catalog.text::pg_catalog.timestamptz
             WHERE item_id = $1 AND id = $2 RETURNING id",
            vec![(&id, Type::INT8), (note, Type::INT8), (body, Type::TEXT), (&at, Type::TEXT)],
        ),
        What::NoteDelete { note } => (
            "DELETE FROM notes WHERE item_id = $1 AND id = $2 RETURNING id",
            vec![(&id, Type::INT8), (note, Type::INT8)],
        ),
    };
    let rows = tenant.rows(sql, &parameters).await?;
    let Some(row) = rows.first() else {
        return Err(match write.what {
            What::Meta(_) | What::NoteNew { .. } => no_item(id),
            What::NoteEdit { note, .. } | What::NoteDelete { note } => no_note(id, note),
        });
    };
    let note: Option<i64> = cell(row, 0)?;
    if let (Some(key), Some(note)) = (&write.key, note) {
        tenant.rows("UPDATE edits SET note_id = $2 WHERE key = $1", &[(key, Type::TEXT), (&note, Type::INT8)]).await?;
    }
    Ok(write.done(note))
}

fn item(row: &Row) -> Result<Value, Failure> {
    let tags: Vec<String> = cell(row, 9)?;
    let weights: Vec<f64> = cell(row, 10)?;
    let tags: Map<String, Value> = tags.into_iter().zip(weights).map(|(tag, weight)| (tag, json!(weight))).collect();
    Ok(json!({
        "id": cell::<i64>(row, 0)?, "title": cell::<&str>(row, 1)?, "body": cell::<&str>(row, 2)?,
        "score": cell::<Option<f64>>(row, 3)?, "pinned": cell::<bool>(row, 4)?, "meta": json_of(cell(row, 5)?),
        "note_count": cell::<i64>(row, 6)?, "created_at": moment(cell(row, 7)?), "updated_at": moment(cell(row, 8)?),
        "tags": tags,
    }))
}

fn note(row: &Row) -> Result<Value, Failure> {
    Ok(json!({
        "id": cell::<i64>(row, 0)?, "item_id": cell::<i64>(row, 1)?, "author": cell::<&str>(row, 2)?,
        "body": cell::<&str>(row, 3)?, "created_at": moment(cell(row, 4)?), "updated_at": moment(cell(row, 5)?),
    }))
}

fn cell<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Failure> {
    row.try_get(at).map_err(failure)
}

/// What an error of the database means to a client.
///
/// read_only_sql_transaction is the fence of a cutover; the others in its line come and go with servers, poolers and locks. A
/// table that is missing is a source in the middle of its bootstrap.
fn failure(error: tokio_postgres::Error) -> Failure {
    let Some(code) = error.code().cloned() else {
        if error.is_closed() || gone(&error) {
            return Failure::unavailable("the database cannot be reached");
        }
        return Failure::Internal(error.to_string());
    };
    let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    let state = code.code();
    match state {
        "25006" | "55P03" | "40001" | "40P01" | "57014" | "42P01" | "3D000" => {
            Failure::Unavailable { why: said, sqlstate: Some(state.to_owned()), outcome_unknown: false }
        }
        _ if gone(&error) => {
            Failure::Unavailable { why: said, sqlstate: Some(state.to_owned()), outcome_unknown: false }
        }
        "22021" | "22P05" => Failure::BadRequest("a text holds a character that the database cannot keep".to_owned()),
        _ => Failure::Internal(format!("the database refused: {state}")),
    }
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
