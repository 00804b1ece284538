//! Makes the schema in the target, marks it, and takes away what is marked.

use pgrunbook_postgres::{PgError, Session, ledger, quote};

use super::super::error::TransferError;
use super::super::state;
use super::{Object, PREAMBLE, Structure};

/// What a comment on a schema of ours begins with.
const MARK: &str = "pgrunbook: transfer ";

const INSTALL: &str = "CREATE TABLE IF NOT EXISTS pgrunbook.transfer_schema (
    schema text PRIMARY KEY,
    transfer text NOT NULL,
    -- The schema as it was when it was marked: another of the same name is a stranger.
    oid oid NOT NULL,
    -- Whether the schema was made for the transfer; else only the objects were.
    made boolean NOT NULL,
    -- What was made in it, as type and identity.
    objects text[] NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.now()
)";

/// Makes the table of marks, unless it is there.
///
/// # Errors
/// If the role may not create schemas in this database.
pub async fn install(session: &Session) -> Result<(), PgError> {
    ledger::install(session).await?;
    session.execute(INSTALL).await
}

/// Makes what must be there before rows are copied, in one transaction: all of it or nothing.
///
/// A schema that is there already, made by the topology or by `provision`, is used and stays when the transfer is undone; what
/// else is in it stays, too. Objects belong to [`Structure::owner`], of which the session's role must be a member; grants are the
/// topology's, applied after.
///
/// # Errors
/// [`TransferError::Stranger`] where another transfer has marked the schema; [`TransferError::Object`] for the first
/// object that cannot be made.
pub async fn create_before(
    target: &mut Session,
    structure: &Structure,
    schema: &str,
    transfer: &str,
) -> Result<(), TransferError> {
    install(target).await?;
    target.execute("BEGIN").await?;
    let made = create(target, structure, schema, transfer).await;
    match made {
        Ok(()) => Ok(state::write(target, "COMMIT").await?),
        Err(error) => {
            target.execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

async fn create(target: &Session, structure: &Structure, schema: &str, transfer: &str) -> Result<(), TransferError> {
    let (name, literal) = (ident(schema)?, literal(schema)?);
    if let Some(mark) = mark(target, schema).await? {
        return Err(stranger(schema, format!("it is marked for the transfer {}", mark.transfer)));
    }
    let there = target.value(&format!("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {literal}")).await?;
    let owner = structure.owner.as_deref().map(ident).transpose()?;
    if there.is_empty() {
        let whose = owner.as_ref().map_or_else(String::new, |owner| format!(" AUTHORIZATION {owner}"));
        let comment = self::literal(&format!("{MARK}{transfer}"))?;
        target.execute(&format!("CREATE SCHEMA {name}{whose}; COMMENT ON SCHEMA {name} IS {comment}")).await?;
    }
    let before = members(target, schema).await?;
    target.execute(&PREAMBLE.replace("SET ", "SET LOCAL ")).await?;
    if let Some(owner) = &owner {
        target.execute(&format!("SET LOCAL ROLE {owner}")).await?;
    }
    run(target, &structure.before, schema, "Nothing was changed.").await?;
    target.execute("SET LOCAL ROLE NONE").await?;
    let objects: Vec<String> = members(target, schema).await?.into_iter().filter(|one| !before.contains(one)).collect();
    target
        .client()
        .execute(
            "INSERT INTO pgrunbook.transfer_schema (schema, transfer, oid, made, objects)
             SELECT $1, $2, oid, $3, $4 FROM pg_catalog.pg_namespace WHERE nspname = $1::text",
            &[&schema, &transfer, &there.is_empty(), &objects],
        )
        .await
        .map_err(|error| target.error(&error))?;
    Ok(())
}

/// Makes objects one after the other, in the transaction or session of the caller, under the settings of
/// [`PREAMBLE`].
///
/// # Errors
/// [`TransferError::Object`] for the first that cannot be made.
pub async fn run(session: &Session, objects: &[Object], schema: &str, safe: &'static str) -> Result<(), TransferError> {
    for object in objects {
        session.execute(&object.sql).await.map_err(|error| TransferError::Object {
            kind: object.kind.clone(),
            name: object.name.clone(),
            place: format!("the schema {schema}"),
            safe,
            error: Box::new(error),
        })?;
    }
    Ok(())
}

/// Whether the schema is marked for this transfer.
///
/// # Errors
/// If the target cannot be asked.
pub async fn is_marked(target: &Session, schema: &str, transfer: &str) -> Result<bool, TransferError> {
    install(target).await?;
    Ok(mark(target, schema).await?.is_some_and(|mark| mark.transfer == transfer))
}

struct Mark {
    transfer: String,
    oid: String,
    made: bool,
    objects: Vec<String>,
}

async fn mark(session: &Session, schema: &str) -> Result<Option<Mark>, TransferError> {
    let row = session
        .client()
        .query_opt(
            "SELECT transfer, oid::text, made, objects FROM pgrunbook.transfer_schema WHERE schema = $1",
            &[&schema],
        )
        .await
        .map_err(|error| session.error(&error))?;
    Ok(row.map(|row| Mark { transfer: row.get(0), oid: row.get(1), made: row.get(2), objects: row.get(3) }))
}

/// What is in a schema by itself, as `type identity`; what hangs on something else in it goes with that.
async fn members(session: &Session, schema: &str) -> Result<Vec<String>, TransferError> {
    const MEMBERS: &str = "SELECT pg_catalog.upper(i.type) || ' ' || i.identity
        FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_namespace AS n ON n.oid = d.refobjid,
             LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS i
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = $1::text AND d.deptype = 'n'
          AND i.type <> 'default acl' ORDER BY d.objid";
    let rows = session.client().query(MEMBERS, &[&schema]).await.map_err(|error| session.error(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Objects outside of the schema that rest on something in it.
const RESTED_ON: &str = "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_catalog.pg_depend AS d,
     LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS i,
     LATERAL pg_catalog.pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) AS r
WHERE d.objid >= 16384 AND r.schema = pg_catalog.quote_ident($1::text) AND d.deptype = 'n'
  AND coalesce(i.schema, '') <> pg_catalog.quote_ident($1::text)
  AND i.identity NOT LIKE '% on ' || pg_catalog.quote_ident($1::text) || '.%'
  AND i.identity NOT LIKE 'for ' || pg_catalog.quote_ident($1::text) || '.%'
  AND i.type NOT IN ('publication relation', 'default acl')
ORDER BY 1";

/// Takes away a schema that was made and marked for this transfer, or only what was made in one that was there. Returns
/// whether there was anything to take away.
///
/// # Errors
/// [`TransferError::Stranger`] for any other schema, and where something outside rests on this one.
pub async fn drop_marked(target: &mut Session, schema: &str, transfer: &str) -> Result<bool, TransferError> {
    install(target).await?;
    target.execute("BEGIN").await?;
    let dropped = take_away(target, schema, transfer).await;
    match dropped {
        Ok(any) => {
            state::write(target, "COMMIT").await?;
            Ok(any)
        }
        Err(error) => {
            target.execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

async fn take_away(target: &Session, schema: &str, transfer: &str) -> Result<bool, TransferError> {
    let (name, quoted) = (ident(schema)?, literal(schema)?);
    let oid = target.value(&format!("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {quoted}")).await?;
    let Some(mark) = mark(target, schema).await? else {
        return if oid.is_empty() { Ok(false) } else { Err(stranger(schema, "it is not marked".to_owned())) };
    };
    if mark.transfer != transfer {
        return Err(stranger(schema, format!("it is marked for the transfer {}", mark.transfer)));
    }
    if !oid.is_empty() {
        if oid != mark.oid {
            return Err(stranger(schema, "it was dropped and made again by somebody else".to_owned()));
        }
        let rows = target.client().query(RESTED_ON, &[&schema]).await.map_err(|error| target.error(&error))?;
        let outside: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if !outside.is_empty() {
            return Err(stranger(schema, format!("outside of it something rests on it: {}", outside.join(", "))));
        }
        if mark.made {
            target.execute(&format!("DROP SCHEMA {name} CASCADE")).await?;
        } else {
            for object in mark.objects.iter().rev() {
                let (kind, identity) = droppable(object);
                target.execute(&format!("DROP {kind} IF EXISTS {identity} CASCADE")).await?;
            }
        }
    }
    target
        .client()
        .execute("DELETE FROM pgrunbook.transfer_schema WHERE schema = $1", &[&schema])
        .await
        .map_err(|error| target.error(&error))?;
    Ok(true)
}

/// `COMPOSITE TYPE t.x` is dropped as a type; the other words of the catalogue are those of DROP.
fn droppable(object: &str) -> (String, &str) {
    const WORDS: &[&str] = &[
        "MATERIALIZED VIEW",
        "FOREIGN TABLE",
        "COMPOSITE TYPE",
        "STATISTICS OBJECT",
        "OPERATOR CLASS",
        "OPERATOR FAMILY",
        "TEXT SEARCH CONFIGURATION",
        "TEXT SEARCH DICTIONARY",
        "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE",
    ];
    let longer = WORDS.iter().find(|word| object.starts_with(**word));
    let end = longer.map_or_else(|| object.find(' ').unwrap_or(object.len()), |word| word.len());
    let kind = match &object[..end] {
        "COMPOSITE TYPE" => "TYPE",
        "STATISTICS OBJECT" => "STATISTICS",
        kind => kind,
    };
    (kind.to_owned(), object[end..].trim_start())
}

fn stranger(schema: &str, why: String) -> TransferError {
    TransferError::Stranger { schema: schema.to_owned(), why }
}

fn ident(name: &str) -> Result<String, TransferError> {
    quote::ident(name).map_err(|error| stranger(name, error.to_string()))
}

fn literal(value: &str) -> Result<String, TransferError> {
    quote::literal(value).map_err(|error| stranger(value, error.to_string()))
}
