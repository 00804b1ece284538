//! What was altered on one side of a transfer, as statements that would alter the other in the same way.
//!
//! The stream says that a table became another, and not by which statement. So the catalogs of both sides are compared:
//! columns that came, went, or are of another type. A column that was renamed looks like one that went and one that came,
//! which would lose its values: that is said, and nothing is offered for it. What differed before the transfer began is none
//! of the stream's: it stays as it is.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::relation::{Column, Filter, Generated, Table, describe};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session};

use super::ends::Ends;
use super::since;
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
    let mut found = describe(here, to, Filter::All).await?;
    for table in wanted.iter_mut().chain(&mut found) {
        let Table { name, columns, .. } = table;
        columns.retain(|column| is_asked(&format!("{name}.{}", column.name)));
    }
    let mut statements = Vec::new();
    for table in wanted.iter().filter(|table| table.holds_rows()) {
        let Some(same) = found.iter().find(|same| same.name == table.name) else { continue };
        let name = format!("{}.{}", ident(to), ident(&table.name));
        statements.extend(of_table(&name, table, same, from, to));
    }
    Ok(statements)
}

fn of_table(name: &str, wanted: &Table, found: &Table, from: &str, to: &str) -> Vec<String> {
    let column = |table: &'_ Table, name: &str| table.columns.iter().find(|column| column.name == name).cloned();
    let came: Vec<&Column> = wanted.columns.iter().filter(|one| column(found, &one.name).is_none()).collect();
    let went: Vec<&Column> = found.columns.iter().filter(|one| column(wanted, &one.name).is_none()).collect();
    let mut statements = Vec::new();
    if !came.is_empty() && !went.is_empty() {
        let list =
            |columns: &[&Column]| columns.iter().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ");
        return vec![one_line(&format!(
            "-- {name}: {} went and {} came: if that was a renaming, write ALTER TABLE {name} RENAME COLUMN yourself",
            list(&went),
            list(&came)
        ))];
    }
    for column in came {
        if column.generated != Generated::No {
            let what = format!("-- {name}: the generated column {} came: write it yourself", ident(&column.name));
            statements.push(one_line(&what));
            continue;
        }
        let required = if column.not_null {
            let what = format!(
                "-- {name}: {} is NOT NULL there: its rows come with the stream, set it afterwards",
                ident(&column.name)
            );
            one_line(&what) + "\n"
        } else {
            String::new()
        };
        let type_name = renamed(&column.type_name, from, to);
        statements.push(format!("{required}ALTER TABLE {name} ADD COLUMN {} {type_name}", ident(&column.name)));
    }
    for column in went {
        statements.push(format!("ALTER TABLE {name} DROP COLUMN {}", ident(&column.name)));
    }
    for wanted in &wanted.columns {
        let Some(found) = column(found, &wanted.name) else { continue };
        let type_name = renamed(&wanted.type_name, from, to);
        if type_name != found.type_name {
            statements.push(format!(
                "ALTER TABLE {name} ALTER COLUMN {column} TYPE {type_name} USING {column}::{type_name}",
                column = ident(&wanted.name)
            ));
        }
    }
    statements
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
