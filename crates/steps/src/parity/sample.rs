//! Rows read as the application reads them: through its role, its `search_path`, and tables' bare names.
//!
//! The operator's own comparison sees every row of the tables it names. What the application gets depends on more: privileges,
//! row security, and which schema its `search_path` finds first. So some rows of each table are read that way too, and are
//! compared with what the source gives.

use std::num::NonZeroU32;
use std::sync::Arc;

use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};
use serde_json::{Value, json};

use super::bucket::{Buckets, Looked};
use super::compare::Place;
use super::error::ParityError;
use super::keys::{Keys, read_keys};
use super::pair::{Pair, Which, fields, ident};
use super::report::{Values, shortened};
use super::side::Side;

/// What is read as which role.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    /// Rows of each table.
    pub count: NonZeroU32,
    pub role: &'a str,
    pub tables: &'a [String],
    pub exclude: &'a [String],
    pub application_name: &'a str,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    pub role: String,
    /// As the role gets it in this database.
    pub search_path: String,
    pub tables: usize,
    pub rows: u64,
    pub wrong: Vec<Wrong>,
}

/// What the role does not get as the source gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub table: String,
    /// Empty where it is the whole table.
    pub key: Vec<(String, Option<String>)>,
    pub what: String,
}

/// A role's own settings, as a login to this database would get them; the database's come before the cluster's.
const SEARCH_PATH: &str = "SELECT pg_catalog.substr(setting, 13)
FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS setting
WHERE setting LIKE 'search_path=%'
  AND (s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) OR s.setrole = 0)
  AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1";

/// What no setting names.
const DEFAULT_PATH: &str = "SELECT boot_val FROM pg_catalog.pg_settings WHERE name = 'search_path'";

impl Sampled {
    pub fn summary(&self) -> String {
        let Self { role, rows, tables, wrong, .. } = self;
        match wrong.len() {
            0 => format!("{rows} rows of {tables} tables read as {role} are those of A"),
            count => format!("{count} of {rows} rows of {tables} tables read as {role} are not those of A"),
        }
    }

    pub fn holds(&self) -> bool {
        self.wrong.is_empty()
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let mut text = format!("{} (search_path {})\n", self.summary(), self.search_path);
        for wrong in &self.wrong {
            let key: Vec<String> = wrong
                .key
                .iter()
                .map(|(column, value)| format!("{column} = {}", value.as_deref().map_or("NULL".to_owned(), shortened)))
                .collect();
            let key = if key.is_empty() { String::new() } else { format!(" {}", key.join(", ")) };
            text.push_str(&format!("    {}{key}: {}\n", wrong.table, wrong.what));
        }
        text
    }

    /// As JSON, with the keys that `values` allows.
    pub fn json(&self, values: &Values) -> Value {
        let wrong = self.wrong.iter().map(|wrong| {
            let key = match values {
                Values::Hidden => Vec::new(),
                Values::Of(columns) => {
                    wrong.key.iter().filter(|(column, _)| columns.contains(column)).cloned().collect()
                }
                Values::All => wrong.key.clone(),
            };
            json!({ "table": wrong.table, "key": key, "what": wrong.what })
        });
        json!({
            "role": self.role,
            "search_path": self.search_path,
            "tables": self.tables,
            "rows": self.rows,
            "wrong": wrong.collect::<Vec<_>>(),
        })
    }
}

/// Reads rows of side A by key, and the same rows of B's database as the role.
///
/// # Errors
/// If a side cannot be read as the operator; what the role cannot do is a finding, no error.
pub async fn sample(a: &Place, b: &Place, how: &Samples<'_>) -> Result<Sampled, ParityError> {
    let Place::Postgres { options, schema } = b else {
        return Err(ParityError::Samples("a SQLite file has no roles to read as".to_owned()));
    };
    let open = |which, place| Side::open(which, place, 1, how.application_name);
    let (left, right) = tokio::try_join!(open(Which::A, a), open(Which::B, b))?;
    let sides = [left, right];
    let (pairs, _) = super::compare::matched(&sides, how.tables, how.exclude).await?;
    let reader = Reader::connect(options, how).await?;
    let mut sampled = Sampled {
        role: how.role.to_owned(),
        search_path: reader.search_path.clone(),
        tables: 0,
        rows: 0,
        wrong: Vec::new(),
    };
    for pair in pairs.iter().filter(|pair| pair.key_len > 0) {
        let rows = some(&sides[0], pair, how.count.get()).await?;
        sampled.tables += 1;
        sampled.rows += rows.len() as u64;
        reader.look(&sides, pair, schema, &rows, &mut sampled.wrong).await?;
    }
    if sampled.tables == 0 {
        return Err(ParityError::Samples(format!("no table has a key by which {} could be asked for rows", how.role)));
    }
    Ok(sampled)
}

/// Rows from all over a table: every so-manieth key hash, not the first ones on disk. All of a table that has fewer.
async fn some(side: &Side, pair: &Arc<Pair>, count: u32) -> Result<Vec<Vec<u8>>, ParityError> {
    let buckets = Arc::new(Buckets::spread(pair, u64::from(count)));
    let mut found = Vec::new();
    // Nobody may have counted the rows for years: where one part has too few, as many parts again are read, and so on.
    let mut read = 0..1;
    while !read.is_empty() && found.len() < count as usize {
        let parts: Vec<usize> = read.clone().collect();
        for looked in buckets.conditions(pair, &parts) {
            take(side, pair, &buckets, &looked, count, &mut found).await?;
        }
        read = read.end..(read.end * 2).min(buckets.count());
    }
    Ok(found)
}

async fn take(
    side: &Side,
    pair: &Arc<Pair>,
    buckets: &Arc<Buckets>,
    looked: &Looked,
    count: u32,
    found: &mut Vec<Vec<u8>>,
) -> Result<(), ParityError> {
    let mut rows = side.ordered(pair, buckets, looked);
    while found.len() < count as usize {
        rows.fill().await?;
        let Some(row) = rows.front() else { break };
        found.push(row.to_vec());
        rows.advance();
    }
    // Not cut off in the middle: the next statement on this connection would wait for it to be sent.
    while {
        rows.fill().await?;
        rows.front().is_some()
    } {
        rows.advance();
    }
    Ok(())
}

/// A connection of the operator that becomes the role.
struct Reader {
    session: Session,
    search_path: String,
    label: String,
}

impl Reader {
    async fn connect(options: &ConnectOptions, how: &Samples<'_>) -> Result<Self, ParityError> {
        let label = format!("{} as {}", options.database, how.role);
        let session = Session::connect(options, how.application_name).await.map_err(ParityError::server(&label))?;
        let failed = |error: tokio_postgres::Error| ParityError::server(&label)(session.error(&error));
        let set = session.client().query_opt(SEARCH_PATH, &[&how.role]).await.map_err(failed)?;
        let search_path: String = match set {
            Some(row) => row.get(0),
            None => session.client().query_one(DEFAULT_PATH, &[]).await.map_err(failed)?.get(0),
        };
        // The setting is a list in SQL's own quoting, so it is no literal; `"$user"` is the role, as after a login.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL jit = off;
             SELECT pg_catalog.set_config('search_path', {}, true); SET LOCAL ROLE {}",
            quote::literal(&search_path).map_err(|_| ParityError::Samples("a search_path holds NUL".to_owned()))?,
            ident(how.role)
        );
        session.execute(&begin).await.map_err(ParityError::server(&label))?;
        Ok(Self { session, search_path, label })
    }

    async fn look(
        &self,
        sides: &[Side; 2],
        pair: &Arc<Pair>,
        schema: &str,
        rows: &[Vec<u8>],
        wrong: &mut Vec<Wrong>,
    ) -> Result<(), ParityError> {
        let mut keys = Keys::default();
        rows.iter().for_each(|row| keys.push(&row[..pair.key_end(row)]));
        let whole = |what: String| Wrong { table: pair.name.clone(), key: Vec::new(), what };
        // A failed statement ends the transaction, and the next table must still be read.
        self.session.execute("SAVEPOINT one").await.map_err(ParityError::server(&self.label))?;
        let found = read_keys(&self.session, &self.label, Which::B, pair, &ident(&pair.name), &keys).await;
        let found = match found {
            Ok(found) => found,
            Err(ParityError::Server { error: PgError::Server(error), .. }) => {
                self.session.execute("ROLLBACK TO one").await.map_err(ParityError::server(&self.label))?;
                wrong.push(whole(format!("{} (SQLSTATE {})", error.message, error.sqlstate)));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut spelled = Vec::new();
        for row in rows {
            let key = &row[..pair.key_end(row)];
            let what = match found.get(key).map(|other| pair.common(other, &mut spelled)) {
                Some(other) if other == row => continue,
                Some(other) => {
                    let columns = pair.columns.iter().zip(fields(row).into_iter().zip(fields(other)));
                    let unlike: Vec<&str> =
                        columns.filter(|(_, (a, b))| a != b).map(|(column, _)| column.name.as_str()).collect();
                    format!("other values in {} than A has", unlike.join(", "))
                }
                None => format!("not to be seen (row security, or another table than {schema}.{} is found)", pair.name),
            };
            let mut words = Vec::new();
            for (column, value) in pair.identifying().iter().zip(fields(key)) {
                words.push((column.name.clone(), Side::text(sides, column, value).await?));
            }
            wrong.push(Wrong { table: pair.name.clone(), key: words, what });
        }
        Ok(())
    }
}
