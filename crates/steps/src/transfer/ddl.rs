//! What was altered on one side of a transfer, as statements that would alter the other in the same way.
//!
//! The stream says that a table became another, and not by which statement. So the catalogs of both sides are compared:
//! columns that came, went, or are of another type. A column that was renamed looks like one that went and one that came,
//! which would lose its values: that is said, and nothing is offered for it.

use std::collections::BTreeSet;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::relation::{Column, Filter, Generated, Table, describe};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session};

use super::ends::Ends;
use crate::topology::ident;

/// Statements for the way's destination; a line that begins with `--` is for people.
///
/// # Errors
/// If one side cannot be asked.
pub async fn derive(ends: &Ends, way: Way) -> Result<Vec<String>, StepError> {
    let (origin, destination) = (ends.origin(way), ends.destination(way));
    let there = origin.session("pgrunbook:ddl").await?;
    let here = destination.session("pgrunbook:ddl").await?;
    compare(&there, &origin.schema, &here, &destination.schema).await.map_err(PgError::into_step_error)
}

/// Refuses a way whose origin was altered since: what no change of a row has told yet, and tables that came.
///
/// # Errors
/// With what is different.
pub async fn refuse_altered(ends: &Ends, exclude: &BTreeSet<String>, way: Way) -> Result<(), StepError> {
    let (origin, destination) = (ends.origin(way), ends.destination(way));
    let there = origin.session("pgrunbook:ddl").await?;
    let here = destination.session("pgrunbook:ddl").await?;
    let mut altered =
        compare(&there, &origin.schema, &here, &destination.schema).await.map_err(PgError::into_step_error)?;
    let tables = |tables: Vec<Table>| tables.into_iter().filter(Table::holds_rows).map(|table| table.name);
    let known: BTreeSet<String> =
        tables(describe(&here, &destination.schema, Filter::All).await.map_err(PgError::into_step_error)?).collect();
    let now = describe(&there, &origin.schema, Filter::All).await.map_err(PgError::into_step_error)?;
    for table in tables(now).filter(|table| !known.contains(table) && !exclude.contains(table)) {
        altered.push(format!("-- table {}.{} came, and does not take part", ident(&origin.schema), ident(&table)));
    }
    if altered.is_empty() {
        return Ok(());
    }
    Err(StepError::failed(
        "altered",
        format!(
            "the tables of {} are no longer those of {}: {}. Nothing was changed.",
            origin.name,
            destination.name,
            altered.join("; ")
        ),
    )
    .help("make the same change on the other side, or drop what came; then run again"))
}

async fn compare(there: &Session, from: &str, here: &Session, to: &str) -> Result<Vec<String>, PgError> {
    let wanted = describe(there, from, Filter::All).await?;
    let found = describe(here, to, Filter::All).await?;
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
        return vec![format!(
            "-- {name}: {} went and {} came: if that was a renaming, write ALTER TABLE {name} RENAME COLUMN yourself",
            list(&went),
            list(&came)
        )];
    }
    for column in came {
        if column.generated != Generated::No {
            statements.push(format!("-- {name}: the generated column {} came: write it yourself", ident(&column.name)));
            continue;
        }
        let required = if column.not_null {
            format!(
                "-- {name}: {} is NOT NULL there: its rows come with the stream, set it afterwards\n",
                ident(&column.name)
            )
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

/// A user's type of the one schema is that of the other.
fn renamed(type_name: &str, from: &str, to: &str) -> String {
    match type_name.strip_prefix(&format!("{}.", ident(from))) {
        Some(rest) => format!("{}.{rest}", ident(to)),
        None => type_name.to_owned(),
    }
}
