//! The source's tables as the stream last knew them, kept beside its position: a change that was made while nobody
//! looked is found as well.

use pgrunbook_document::sql::quote;
use serde_json::{Value, json};

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::pgoutput::{Column, Relation, ReplicaIdentity};
use crate::session::Session;

/// Makes the tables of a stream's position, unless they are there.
const INSTALL: &str = "
    CREATE TABLE IF NOT EXISTS pgrunbook.stream (
        name text PRIMARY KEY,
        lsn pg_lsn NOT NULL,
        marker text,
        transactions bigint NOT NULL DEFAULT 0,
        changes bigint NOT NULL DEFAULT 0,
        at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
    );
    CREATE TABLE IF NOT EXISTS pgrunbook.stream_relation (
        stream text NOT NULL,
        oid bigint NOT NULL,
        relation text NOT NULL,
        PRIMARY KEY (stream, oid)
    )";

const INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgrunbook.stream') IS NOT NULL
    AND pg_catalog.to_regclass('pgrunbook.stream_relation') IS NOT NULL";

/// Makes what is missing.
///
/// # Errors
/// If the role may not create schemas in this database.
pub(super) async fn install(session: &Session) -> Result<(), PgError> {
    crate::ledger::install_beside(session, INSTALLED, INSTALL).await
}

/// What is known in a stream.
pub(super) async fn load(session: &Session, stream: &str) -> Result<Vec<Relation>, PgError> {
    let answers = session
        .simple(&format!("SELECT r.relation FROM pgrunbook.stream_relation AS r WHERE r.stream = {}", text(stream)))
        .await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    // What another version wrote and this one cannot read is as if it were not known.
    Ok(rows.iter().filter_map(|row| read(row.first()?.as_deref()?)).collect())
}

/// The statement that remembers a relation in the place of what was known under its OID or its name.
pub(super) fn remember_sql(stream: &str, known: &[Relation], relation: &Relation) -> String {
    let former: Vec<String> =
        known.iter().filter(|known| same(known, relation)).map(|known| known.oid.to_string()).collect();
    let forget = match former.as_slice() {
        [] => String::new(),
        oids => format!(
            "DELETE FROM pgrunbook.stream_relation AS r WHERE r.stream = {} AND r.oid IN ({});",
            text(stream),
            oids.join(", ")
        ),
    };
    format!(
        "{forget} INSERT INTO pgrunbook.stream_relation (stream, oid, relation) VALUES ({}, {}, {})",
        text(stream),
        relation.oid,
        text(&write(relation))
    )
}

/// Whether two descriptions are of one table: a renamed one keeps its OID, a replaced one its name.
pub(super) fn same(one: &Relation, other: &Relation) -> bool {
    one.oid == other.oid || (one.schema == other.schema && one.name == other.name)
}

/// What a person is told of how a table changed.
pub(super) fn difference(before: &Relation, after: &Relation) -> String {
    let mut told = Vec::new();
    if (&before.schema, &before.name) != (&after.schema, &after.name) {
        told.push(format!("renamed from {}.{}", before.schema, before.name));
    } else if before.oid != after.oid {
        told.push("dropped and made anew".to_owned());
    }
    if before.identity != after.identity {
        told.push(format!("replica identity {} instead of {}", word(after.identity), word(before.identity)));
    }
    let find = |relation: &Relation, name: &str| relation.columns.iter().find(|column| column.name == name).cloned();
    for column in &after.columns {
        match find(before, &column.name) {
            None => told.push(format!("column `{}` added", column.name)),
            Some(old) if (old.type_oid, old.type_modifier) != (column.type_oid, column.type_modifier) => {
                told.push(format!(
                    "column `{}` has another type (OID {}, modifier {}; before: {}, {})",
                    column.name, column.type_oid, column.type_modifier, old.type_oid, old.type_modifier
                ));
            }
            Some(old) if old.is_key != column.is_key => {
                let what = if column.is_key { "entered" } else { "left" };
                told.push(format!("column `{}` {what} the replica identity", column.name));
            }
            Some(_) => {}
        }
    }
    for column in before.columns.iter().filter(|column| find(after, &column.name).is_none()) {
        told.push(format!("column `{}` dropped or renamed", column.name));
    }
    if told.is_empty() { "its columns are in another order".to_owned() } else { told.join("; ") }
}

/// Version 1. A reader of another version takes the relation as not known.
fn write(relation: &Relation) -> String {
    let columns: Vec<Value> = relation
        .columns
        .iter()
        .map(|column| json!([column.name, column.is_key, column.type_oid, column.type_modifier]))
        .collect();
    json!({
        "version": 1, "oid": relation.oid, "schema": relation.schema, "name": relation.name,
        "identity": word(relation.identity), "columns": columns,
    })
    .to_string()
}

fn read(text: &str) -> Option<Relation> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value.get("version")? != 1 {
        return None;
    }
    let string = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let columns = value.get("columns")?.as_array()?.iter().map(|column| {
        Some(Column {
            name: column.get(0)?.as_str()?.to_owned(),
            is_key: column.get(1)?.as_bool()?,
            type_oid: u32::try_from(column.get(2)?.as_u64()?).ok()?,
            type_modifier: i32::try_from(column.get(3)?.as_i64()?).ok()?,
        })
    });
    Some(Relation {
        oid: u32::try_from(value.get("oid")?.as_u64()?).ok()?,
        schema: string("schema")?,
        name: string("name")?,
        identity: match string("identity")?.as_str() {
            "default" => ReplicaIdentity::Default,
            "nothing" => ReplicaIdentity::Nothing,
            "full" => ReplicaIdentity::Full,
            "index" => ReplicaIdentity::Index,
            _ => return None,
        },
        columns: columns.collect::<Option<_>>()?,
    })
}

fn word(identity: ReplicaIdentity) -> &'static str {
    match identity {
        ReplicaIdentity::Default => "default",
        ReplicaIdentity::Nothing => "nothing",
        ReplicaIdentity::Full => "full",
        ReplicaIdentity::Index => "index",
    }
}

/// Names of streams and positions hold no NUL byte, which no server takes; one is left out.
pub(super) fn text(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}

/// A position, as SQL.
pub(super) fn position(lsn: Lsn) -> String {
    format!("'{lsn}'::pg_catalog.pg_lsn")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation() -> Relation {
        let column = |name: &str, is_key| Column { name: name.to_owned(), is_key, type_oid: 23, type_modifier: -1 };
        Relation {
            oid: 70_000,
            schema: "public".to_owned(),
            name: "it's \"a\"".to_owned(),
            identity: ReplicaIdentity::Index,
            columns: vec![column("id", true), column("é", false)],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(read(&write(&relation())), Some(relation()));
        assert_eq!(read(&write(&relation()).replace("\"version\":1", "\"version\":2")), None);
    }

    #[test]
    fn difference_names_what_changed() {
        let mut after = relation();
        after.columns[1].type_oid = 20;
        after.columns[0].name = "key".to_owned();
        after.identity = ReplicaIdentity::Full;
        insta::assert_snapshot!(difference(&relation(), &after), @"replica identity full instead of index; column `key` added; column `é` has another type (OID 20, modifier -1; before: 23, -1); column `id` dropped or renamed");
    }
}
