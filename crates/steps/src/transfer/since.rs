//! What became of both sides' definitions since a transfer began.
//!
//! A stream carries rows, and of a changed table it tells only when the next row comes. So what both schemas were is
//! recorded when the transfer begins, everything that PostgreSQL knows of them, and compared before writers are fenced and
//! again behind the fence. It is the *changes* that must be alike, not the schemas: tables that migrations made may differ
//! from the source's from the start, and what the preflight admitted stays admitted.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_document::sql::{TokenKind, lex};
use pgrunbook_engine::StepError;
use pgrunbook_postgres::relation::{Filter, Table, describe};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session, ledger};
use serde::{Deserialize, Serialize};

use super::ends::Ends;
use super::spec::Side;
use super::state::{Phase, Transfer, text};
use super::streams::Names;
use super::structure::{self, without_decoration};
use super::{TransferError, ddl};
use crate::topology::ident;
use crate::typed::on_transfer;

const INSTALL: &str = r"
CREATE TABLE IF NOT EXISTS pgrunbook.transfer_structure (
    schema text NOT NULL,
    side text NOT NULL,
    parts jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (schema, side)
);
COMMENT ON TABLE pgrunbook.transfer_structure IS 'What both schemas of a transfer were when it began, to find what changed since.'";

const INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgrunbook.transfer_structure') IS NOT NULL";

/// What a schema is: each part by a word and its name (`column notes.body`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Print(BTreeMap<String, Part>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// Where it is a part of a relation: that relation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    /// As PostgreSQL prints it, every name with its schema.
    text: String,
}

/// A column's number tells one that was dropped and made anew from one that stayed: their values are not the same.
const NUMBERS: &str = "SELECT pg_catalog.format('%s.%s', c.relname, a.attname), c.relname, a.attnum
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p')";

/// The word before a column's number.
const NUMBER: &str = "number of ";

impl Print {
    /// Reads a schema. What belongs to a table that stays behind is left out, and so are comments.
    ///
    /// # Errors
    /// If the catalogs cannot be read.
    pub async fn read(session: &Session, schema: &str, exclude: &BTreeSet<String>) -> Result<Self, TransferError> {
        let mut parts = BTreeMap::new();
        for (key, (relation, text)) in structure::parts(session, schema).await? {
            let is_out = relation.as_ref().is_some_and(|relation| exclude.contains(relation));
            // Of relations, types and functions the other entries say more; one of its own have operators and the like.
            let is_said = text == structure::IS_THERE && SAID.iter().any(|kind| key.starts_with(kind));
            if is_out || is_said || key.starts_with("comment on ") {
                continue;
            }
            // The place among the columns: see `NUMBERS`.
            let text = match key.starts_with("column ") {
                true => text.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned()),
                false => text,
            };
            parts.insert(key, Part { relation, text });
        }
        for row in session.client().query(NUMBERS, &[&schema]).await.map_err(|error| session.error(&error))? {
            let (name, relation, number): (String, String, i16) = (row.get(0), row.get(1), row.get(2));
            if !exclude.contains(&relation) {
                parts.insert(format!("{NUMBER}{name}"), Part { relation: Some(relation), text: number.to_string() });
            }
        }
        Ok(Self(parts))
    }

    /// The keys of what came, went or became another.
    fn changed<'a>(&'a self, now: &'a Self) -> BTreeSet<&'a str> {
        let keys = self.0.keys().chain(now.0.keys());
        keys.filter(|key| self.0.get(*key) != now.0.get(*key)).map(String::as_str).collect()
    }

    /// The columns, by table and name, that came, went or became another.
    fn columns(&self, now: &Self) -> BTreeSet<String> {
        self.changed(now).into_iter().filter_map(|key| key.strip_prefix("column ")).map(str::to_owned).collect()
    }
}

/// Kinds of which a schema's list of members says nothing that is not said better.
const SAID: [&str; 11] = [
    "table ",
    "foreign table ",
    "view ",
    "materialized view ",
    "sequence ",
    "index ",
    "composite type ",
    "type ",
    "function ",
    "procedure ",
    "aggregate ",
];

/// Makes the records, unless they are there.
///
/// # Errors
/// If the role may not create in this database.
pub async fn install(session: &Session) -> Result<(), PgError> {
    ledger::install_beside(session, INSTALLED, INSTALL).await
}

/// The statement that records what a side is.
pub fn record_sql(schema: &str, side: Side, print: &Print) -> String {
    let parts = serde_json::to_string(print).expect("texts");
    format!(
        "INSERT INTO pgrunbook.transfer_structure (schema, side, parts) VALUES ({}, '{}', {})
         ON CONFLICT (schema, side) DO UPDATE SET parts = excluded.parts, at = pg_catalog.clock_timestamp()",
        text(schema),
        side.word(),
        text(&parts)
    )
}

/// The statement that forgets what both sides were.
pub fn forget_sql(schema: &str) -> String {
    let schema = text(schema);
    format!(
        "DO $$ BEGIN IF pg_catalog.to_regclass('pgrunbook.transfer_structure') IS NOT NULL THEN
             DELETE FROM pgrunbook.transfer_structure WHERE schema = {schema};
         END IF; END $$"
    )
}

/// What a side was when the transfer began, or when a person accepted what it had become.
///
/// # Errors
/// If the target cannot be asked, or another version wrote it.
pub async fn recorded(records: &Session, schema: &str, side: Side) -> Result<Option<Print>, PgError> {
    if records.value(INSTALLED).await? != "t" {
        return Ok(None);
    }
    let sql = format!(
        "SELECT parts::text FROM pgrunbook.transfer_structure WHERE schema = {} AND side = '{}'",
        text(schema),
        side.word()
    );
    let answers = records.simple(&sql).await?;
    let parts = answers.last().and_then(|answer| answer.rows.first()).and_then(|row| row.first().cloned().flatten());
    let unreadable = |error| PgError::Client(format!("what a transfer's schema was cannot be read: {error}"));
    parts.map(|parts| serde_json::from_str(&parts).map_err(unreadable)).transpose()
}

/// Both sides of a way, its origin first: what they were, and what they are.
pub struct Since {
    before: Option<[Print; 2]>,
    pub now: [Print; 2],
    /// What changed on one side and not on the other, in words.
    pub differences: Vec<String>,
    /// Columns came, went or became others on both sides alike: rows may differ that nobody wrote.
    pub moved: bool,
}

/// The side that a way begins at, and the one that it leads to.
fn sides(way: Way) -> [Side; 2] {
    match way {
        Way::Forward => [Side::Source, Side::Target],
        Way::Reverse => [Side::Target, Side::Source],
    }
}

/// Looks at both sides as they are now.
///
/// # Errors
/// If one cannot be asked.
pub async fn look(ends: &Ends, transfer: &Transfer, way: Way) -> Result<Since, StepError> {
    let (origin, destination) = (ends.origin(way), ends.destination(way));
    let there = origin.session("pgrunbook:since").await?;
    let here = destination.session("pgrunbook:since").await?;
    let records = ends.target.session("pgrunbook:since").await?;
    let exclude = &transfer.spec.exclude;
    let now =
        [Print::read(&there, &origin.schema, exclude).await?, Print::read(&here, &destination.schema, exclude).await?];
    let mut before = Vec::new();
    for side in sides(way) {
        before.extend(recorded(&records, &transfer.schema, side).await.map_err(PgError::into_step_error)?);
    }
    let before: Option<[Print; 2]> = before.try_into().ok();
    let mut differences = left_out(&there, ends, transfer, way).await?;
    let mut moved = false;
    match &before {
        Some(before) => {
            let other_major = major(&there).await? != major(&here).await?;
            let schemas = [origin.schema.as_str(), destination.schema.as_str()];
            differences.extend(unlike(before, &now, schemas, other_major));
            let is_moved = |side: usize| !before[side].columns(&now[side]).is_empty();
            moved = is_moved(0) || is_moved(1);
        }
        // An older version began it, and did not record what was there.
        None => differences.extend(
            ddl::compare(&there, &origin.schema, &here, &destination.schema, &|_| true)
                .await
                .map_err(PgError::into_step_error)?,
        ),
    }
    Ok(Since { before, now, differences, moved })
}

async fn major(session: &Session) -> Result<String, StepError> {
    session
        .value("SELECT pg_catalog.current_setting('server_version_num')::int / 10000")
        .await
        .map_err(PgError::into_step_error)
}

/// The same, as an error where there are differences.
///
/// # Errors
/// With what changed since the transfer began.
pub async fn refuse_altered(ends: &Ends, transfer: &Transfer, way: Way) -> Result<Since, StepError> {
    let since = look(ends, transfer, way).await?;
    match since.differences.is_empty() {
        true => Ok(since),
        false => Err(altered(ends, way, &since.differences)),
    }
}

impl Since {
    /// Behind the fence: what changed on the origin while both sides were compared.
    ///
    /// # Errors
    /// With what did.
    pub async fn refuse_changed(
        &self,
        from: &Session,
        ends: &Ends,
        transfer: &Transfer,
        way: Way,
    ) -> Result<(), StepError> {
        let now = Print::read(from, &ends.origin(way).schema, &transfer.spec.exclude).await?;
        let mut changed: Vec<String> =
            self.now[0].changed(&now).into_iter().map(|key| said(key, &self.now[0], &now)).collect();
        changed.extend(left_out(from, ends, transfer, way).await?);
        if changed.is_empty() { Ok(()) } else { Err(altered(ends, way, &changed)) }
    }

    /// The statements that record what both sides are as what they were; none where nothing changed.
    pub fn renew_sql(&self, schema: &str, way: Way) -> Option<String> {
        let before = self.before.as_ref()?;
        (*before != self.now).then(|| {
            let record = |at: usize| record_sql(schema, sides(way)[at], &self.now[at]);
            format!("{}; {}", record(0), record(1))
        })
    }
}

fn altered(ends: &Ends, way: Way, differences: &[String]) -> StepError {
    const SHOWN: usize = 20;
    let (origin, destination) = (ends.origin(way), ends.destination(way));
    let more = differences.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    StepError::failed(
        "altered",
        format!(
            "{} was altered since the transfer began, and {} was not alike: {}{more}. No row was lost, and nothing was changed.",
            origin.name,
            destination.name,
            differences[..differences.len().min(SHOWN)].join("; ")
        ),
    )
    .help(format!(
        "make the same change on {}, or take it back on {}, and run again; {} says what it would make, and with `--yes` makes \
         it and leaves the rest as it is",
        destination.name,
        origin.name,
        on_transfer("accept", &ends.target.schema, &ends.target.name, &[])
    ))
    .evidence(pgrunbook_engine::Evidence::of("the structure changed").fact("differences", differences))
}

/// Tables with rows that are in no stream, and large objects that a column can name by now.
async fn left_out(there: &Session, ends: &Ends, transfer: &Transfer, way: Way) -> Result<Vec<String>, StepError> {
    let origin = ends.origin(way);
    let mut found = Vec::new();
    let publication = Names::of(&transfer.schema, &transfer.target).slot(way);
    if let Some(published) = published(there, &publication, &origin.schema).await.map_err(PgError::into_step_error)? {
        let tables = describe(there, &origin.schema, Filter::All).await.map_err(PgError::into_step_error)?;
        let tables = tables.into_iter().filter(Table::holds_rows).map(|table| table.name);
        for table in tables.filter(|table| !published.contains(table) && !transfer.spec.exclude.contains(table)) {
            found.push(format!(
                "table {}.{} came and is in no stream: its rows would stay behind",
                ident(&origin.schema),
                ident(&table)
            ));
        }
    }
    let rows = there
        .client()
        .query(LARGE_OBJECTS, &[&origin.schema])
        .await
        .map_err(|error| there.error(&error).into_step_error())?;
    found.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    Ok(found)
}

const LARGE_OBJECTS: &str =
    "SELECT pg_catalog.format('column %I.%I.%I may name large objects, which are in no stream and would stay behind',
    n.nspname, c.relname, a.attname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (t.oid = 'pg_catalog.oid'::pg_catalog.regtype OR t.typname = 'lo')
  AND EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
ORDER BY 1";

const PUBLISHED: &str = "SELECT c.relname::text
FROM pg_catalog.pg_publication AS p
LEFT JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid AND c.relnamespace = (
    SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $2::text)
WHERE p.pubname = $1::text";

/// The tables of a schema that a publication names; `None` where it is not there (yet).
async fn published(session: &Session, publication: &str, schema: &str) -> Result<Option<BTreeSet<String>>, PgError> {
    let rows =
        session.client().query(PUBLISHED, &[&publication, &schema]).await.map_err(|error| session.error(&error))?;
    Ok((!rows.is_empty()).then(|| rows.iter().filter_map(|row| row.get(0)).collect()))
}

/// What changed on the origin and not alike on the destination; of relations and columns also the other way round, since rows
/// would not fit.
fn unlike(before: &[Print; 2], now: &[Print; 2], [from, to]: [&str; 2], other_major: bool) -> Vec<String> {
    let changed = [before[0].changed(&now[0]), before[1].changed(&now[1])];
    let plain = |text: &str| if other_major { without_decoration(text) } else { text.to_owned() };
    let agree = |key: &str| {
        let (there, here) = (now[0].0.get(key), now[1].0.get(&renamed(key, from, to)));
        match (there, here) {
            (None, None) => true,
            (Some(there), Some(here)) => {
                let wanted = plain(&here.text);
                // Bodies of functions are texts: what stands in them is not renamed by its tokens.
                plain(&renamed(&there.text, from, to)) == wanted
                    || plain(&there.text.replace(&format!("{from}."), &format!("{to}."))) == wanted
            }
            _ => false,
        }
    };
    // Of a relation that came or went, itself is told and not all of its parts.
    let is_of_another = |key: &str| {
        let part = now[0].0.get(key).or_else(|| before[0].0.get(key));
        let Some(relation) = part.and_then(|part| part.relation.as_ref()) else { return false };
        let whole = format!("relation {relation}");
        whole != key && before[0].0.contains_key(&whole) != now[0].0.contains_key(&whole) && !agree(&whole)
    };
    let mut found = Vec::new();
    for key in &changed[0] {
        match key.strip_prefix(NUMBER) {
            Some(column) => {
                let was_there = before[0].0.contains_key(*key) && now[0].0.contains_key(*key);
                if was_there && !changed[1].contains(key) {
                    found
                        .push(format!("column {column} was dropped and made anew: its values are not those of before"));
                }
            }
            None if agree(key) || is_of_another(key) => {}
            None => found.push(said(key, &before[0], &now[0])),
        }
    }
    let is_rows = |key: &&&str| key.starts_with("column ") || key.starts_with("relation ");
    for key in changed[1].iter().filter(is_rows).filter(|key| !changed[0].contains(**key) && !agree(key)) {
        found.push(format!("on the other side {}", said(key, &before[1], &now[1])));
    }
    found
}

/// How a part changed. Bodies and definitions of queries are long, and may hold what is nobody else's: they are named only.
fn said(key: &str, before: &Print, now: &Print) -> String {
    let is_short = ["column ", "constraint ", "index ", "type ", "sequence "].iter().any(|kind| key.starts_with(kind));
    match (before.0.get(key), now.0.get(key)) {
        (None, Some(part)) if is_short => format!("{key} came: `{}`", part.text),
        (None, _) => format!("{key} came"),
        (Some(_), None) => format!("{key} went"),
        (Some(before), Some(now)) if is_short => format!("{key} is `{}` and was `{}`", now.text, before.text),
        _ => format!("{key} became another"),
    }
}

/// The text with the one schema's name, where it stands before a dot, as the other's.
pub fn renamed(text: &str, from: &str, to: &str) -> String {
    let (from, to) = (ident(from), ident(to));
    let tokens: Vec<_> = lex(text).collect();
    let mut out = String::with_capacity(text.len());
    for (at, token) in tokens.iter().enumerate() {
        let word = &text[token.range()];
        let is_name = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName) && word == from;
        let qualifies = is_name && tokens.get(at + 1).is_some_and(|next| &text[next.range()] == ".");
        out.push_str(if qualifies { &to } else { word });
    }
    out
}

/// The columns (`notes.body`) that were altered on a way's origin since the transfer began; `None` where nobody knows.
///
/// # Errors
/// If a side cannot be asked.
pub async fn altered_columns(ends: &Ends, schema: &str, way: Way) -> Result<Option<BTreeSet<String>>, StepError> {
    let records = ends.target.session("pgrunbook:since").await?;
    let [side, _] = sides(way);
    let Some(before) = recorded(&records, schema, side).await.map_err(PgError::into_step_error)? else {
        return Ok(None);
    };
    let origin = ends.origin(way);
    let there = origin.session("pgrunbook:since").await?;
    Ok(Some(before.columns(&Print::read(&there, &origin.schema, &BTreeSet::new()).await?)))
}

/// Records what both sides are as what they were, by a person's word: but a column that the destination lacks stays
/// unknown, since its values would be lost.
///
/// # Errors
/// If a side cannot be asked.
pub async fn admit(ends: &Ends, transfer: &Transfer, way: Way) -> Result<Vec<String>, StepError> {
    let since = look(ends, transfer, way).await?;
    let [mut origin, destination] = since.now;
    if let Some([before, _]) = &since.before {
        let lost: Vec<String> = origin
            .0
            .keys()
            .filter(|key| {
                key.starts_with("column ") && !before.0.contains_key(*key) && !destination.0.contains_key(*key)
            })
            .cloned()
            .collect();
        origin.0.retain(|key, _| !lost.contains(key));
    }
    let [first, second] = sides(way);
    Ok(vec![record_sql(&transfer.schema, first, &origin), record_sql(&transfer.schema, second, &destination)])
}

/// The way that a transfer's rows flow now.
pub fn live_way(phase: Phase) -> Way {
    match phase {
        Phase::Switched | Phase::Back => Way::Reverse,
        _ => Way::Forward,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(parts: &[(&str, &str)]) -> Print {
        let part = |text: &str| Part { relation: None, text: text.to_owned() };
        Print(parts.iter().map(|(key, text)| ((*key).to_owned(), part(text))).collect())
    }

    fn check(before: [&[(&str, &str)]; 2], now: [&[(&str, &str)]; 2]) -> Vec<String> {
        unlike(&before.map(print), &now.map(print), ["public", "health"], false)
    }

    #[test]
    fn what_differed_from_the_start_is_no_difference() {
        let (there, here) = ([("column t.n", "integer")], [("column t.n", "bigint"), ("column t.extra", "text")]);
        assert_eq!(check([&there, &here], [&there, &here]), Vec::<String>::new());
    }

    #[test]
    fn a_change_that_both_sides_made_is_no_difference() {
        let now: [&[_]; 2] = [&[("index i", "ON public.t (a)")], &[("index i", "ON health.t (a)")]];
        assert_eq!(check([&[], &[]], now), Vec::<String>::new());
        assert_eq!(check([&[], &[]], [now[0], &[]]), ["index i came: `ON public.t (a)`"]);
    }

    #[test]
    fn a_column_that_was_made_anew_is_another() {
        let before = [("column t.a", "text"), ("number of t.a", "2")];
        let now = [("column t.a", "text"), ("number of t.a", "3")];
        assert_eq!(
            check([&before, &before], [&now, &before]),
            ["column t.a was dropped and made anew: its values are not those of before"]
        );
        assert_eq!(check([&before, &before], [&now, &now]), Vec::<String>::new());
    }

    #[test]
    fn the_destination_may_have_another_index_and_no_other_column() {
        let here = [("index own", "x"), ("column t.new", "text")];
        assert_eq!(check([&[], &[]], [&[], &here]), ["on the other side column t.new came: `text`"]);
    }

    #[test]
    fn only_names_before_a_dot_are_renamed() {
        assert_eq!(renamed("public.t is 'public.t' public", "public", "health"), "health.t is 'public.t' public");
    }
}
