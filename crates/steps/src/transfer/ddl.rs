//! What was altered on one side of a transfer, as statements that would alter the other in the same way.
//!
//! The stream says that a table became another, and not by which statement. So the catalogs of both sides are compared:
//! columns that came, went, or are of another type. A column that was renamed looks like one that went and one that came,
//! which would lose its values: that is said, and nothing is offered for it. A column comes with what the rows of before hold in
//! it, where that is known ([`Came`]). What differed before the transfer began is none of the stream's: it stays as it is.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::relation::{Column, Filter, Generated, Identity, Table, TableKind, Travels, describe};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session};

use super::came::{Came, Columns};
use super::ends::Ends;
use super::since;
use super::state::text as literal;
use crate::topology::ident;

/// Statements for the way's destination; a line that begins with `--` is for people.
///
/// # Errors
/// If one side cannot be asked.
pub async fn derive(ends: &Ends, schema: &str, way: Way) -> Result<Vec<String>, StepError> {
    let (origin, destination) = (ends.origin(way), ends.destination(way));
    let altered = since::altered_columns(ends, schema, way).await?;
    let is_ours = |column: &str| altered.as_ref().is_none_or(|altered| altered.contains(column));
    let there = origin.session("pgrunbook:ddl").await?;
    let here = destination.session("pgrunbook:ddl").await?;
    compare(&there, &origin.schema, &here, &destination.schema, &is_ours).await.map_err(PgError::into_step_error)
}

/// What of the columns that are asked for (`notes.body`) the one side has and the other has not.
///
/// # Errors
/// If one side cannot be asked.
pub async fn compare(
    there: &Session,
    from: &str,
    here: &Session,
    to: &str,
    is_asked: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<String>, PgError> {
    let mut wanted = describe(there, from, Filter::All).await?;
    let whole = wanted.clone();
    let mut found = describe(here, to, Filter::All).await?;
    for table in wanted.iter_mut().chain(&mut found) {
        let Table { name, columns, .. } = table;
        columns.retain(|column| is_asked(&format!("{name}.{}", column.name)));
    }
    let came = Columns::read(there, from).await?;
    let mut statements = Vec::new();
    // What is done to a table is done to its partitions with it.
    let is_whole = |table: &Table| table.kind != TableKind::Foreign && !came.is_partition(&table.name);
    for (table, whole) in wanted.iter().zip(&whole).filter(|(table, _)| is_whole(table)) {
        let Some(same) = found.iter().find(|same| same.name == table.name) else { continue };
        let pair = Pair { wanted: table, found: same, whole, from, to };
        pair.statements(&came, &mut statements);
    }
    Ok(statements)
}

/// A table that was altered, and the one that was not.
struct Pair<'a> {
    wanted: &'a Table,
    found: &'a Table,
    /// The first, with the columns that are not asked for.
    whole: &'a Table,
    /// Their schemas.
    from: &'a str,
    to: &'a str,
}

impl Pair<'_> {
    /// As SQL has it, of the one that would be altered.
    fn name(&self) -> String {
        format!("{}.{}", ident(self.to), ident(&self.wanted.name))
    }

    fn statements(&self, known: &Columns, statements: &mut Vec<String>) {
        let (name, from, to) = (self.name(), self.from, self.to);
        let column = |table: &Table, name: &str| table.columns.iter().find(|column| column.name == name).cloned();
        let came: Vec<&Column> =
            self.wanted.columns.iter().filter(|one| column(self.found, &one.name).is_none()).collect();
        let went: Vec<&Column> =
            self.found.columns.iter().filter(|one| column(self.wanted, &one.name).is_none()).collect();
        if !came.is_empty() && !went.is_empty() {
            let list =
                |columns: &[&Column]| columns.iter().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ");
            statements.push(one_line(&format!(
                "-- {name}: {} went and {} came: if that was a renaming, write ALTER TABLE {name} RENAME COLUMN yourself",
                list(&went),
                list(&came)
            )));
            return;
        }
        for column in came {
            self.added(column, &known.of(&self.wanted.name, &column.name), statements);
        }
        for column in went {
            statements.push(format!("ALTER TABLE {name} DROP COLUMN {}", ident(&column.name)));
        }
        for wanted in &self.wanted.columns {
            let Some(found) = column(self.found, &wanted.name) else { continue };
            let type_name = renamed(&wanted.type_name, from, to);
            if type_name != found.type_name {
                statements.push(format!(
                    "ALTER TABLE {name} ALTER COLUMN {column} TYPE {type_name} USING {column}::{type_name}",
                    column = ident(&wanted.name)
                ));
            }
        }
    }

    /// A column that came: with what the rows of before hold in it, as far as the catalog knows that.
    fn added(&self, column: &Column, came: &Came, statements: &mut Vec<String>) {
        let (name, c) = (self.name(), ident(&column.name));
        let mut tell = |what: String| statements.push(one_line(&format!("-- {name}: {what}")));
        if column.generated != Generated::No {
            tell(format!("the generated column {c} came: write it yourself"));
            return;
        }
        let type_name = renamed(&column.type_name, self.from, self.to);
        let default = came.default.as_deref().map(|default| since::renamed(default, self.from, self.to));
        let set = |default: &str| format!("ALTER TABLE {name} ALTER COLUMN {c} SET DEFAULT {default}");
        // What travels as text means another object there.
        let kept = came.kept.as_deref().filter(|_| column.travels == Travels::Binary).map(literal);
        let Some(kept) = kept else {
            let is_identity = column.identity != Identity::No;
            if default.is_some() || is_identity {
                let table = format!("{}.{}", ident(self.from), ident(&self.wanted.name));
                // One that is always generated takes no value of an UPDATE.
                let takes = |one: &&Column| one.generated == Generated::No && one.identity != Identity::Always;
                let any = std::iter::once(column).chain(&self.whole.columns).find(takes);
                let touch = any.map_or_else(
                    || "change each of them there".to_owned(),
                    |any| format!("UPDATE {table} SET {any} = {any}", any = ident(&any.name)),
                );
                tell(format!(
                    "what the rows of before hold in {c} no catalog tells: where it is not NULL, send them once the stream goes on: {touch}"
                ));
            }
            if is_identity {
                let how = if column.identity == Identity::Always { "ALWAYS" } else { "BY DEFAULT" };
                tell(format!(
                    "{c} is an identity column: afterwards, ALTER TABLE {name} ALTER COLUMN {c} SET NOT NULL, \
                     ALTER COLUMN {c} ADD GENERATED {how} AS IDENTITY"
                ));
            } else if column.not_null {
                tell(format!(
                    "{c} is NOT NULL there: its rows come with the stream; afterwards, ALTER TABLE {name} ALTER COLUMN {c} SET NOT NULL"
                ));
            }
            if let (Some(default), true) = (&default, came.is_bound) {
                tell(format!("its default names what may not be there: afterwards, {}", set(default)));
            }
            statements.push(format!("ALTER TABLE {name} ADD COLUMN {c} {type_name}"));
            statements.extend(default.filter(|_| !came.is_bound).map(|default| set(&default)));
            return;
        };
        let required = if column.not_null { "NOT NULL " } else { "" };
        let add = |value: &str| format!("ALTER TABLE {name} ADD COLUMN {c} {type_name} {required}DEFAULT {value}");
        match default {
            Some(default) if came.is_constant(&kept, &column.type_name) => statements.push(add(&default)),
            // The default became another since, or it was no constant: the rows of before have what it gave then.
            Some(default) if !came.is_bound => {
                statements.extend([add(&format!("{kept}::{type_name}")), set(&default)]);
            }
            default => {
                if let Some(default) = default {
                    tell(format!("its default names what may not be there: afterwards, {}", set(&default)));
                }
                statements.push(add(&format!("{kept}::{type_name}")));
                statements.push(format!("ALTER TABLE {name} ALTER COLUMN {c} DROP DEFAULT"));
            }
        }
    }
}

/// A name may hold a line break, and what stands behind it would be no comment any more.
pub fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// A user's type of the one schema is that of the other.
fn renamed(type_name: &str, from: &str, to: &str) -> String {
    match type_name.strip_prefix(&format!("{}.", ident(from))) {
        Some(rest) => format!("{}.{rest}", ident(to)),
        None => type_name.to_owned(),
    }
}
