//! A temporary table between the stream and the target's table: for columns that travel as text, which COPY cannot cast,
//! and for rows that replace others.

use pgrunbook_postgres::relation::{Travels, column_list};

use super::Pair;
use super::session::ident;

/// What is made, filled and emptied within one transaction.
pub(super) struct Stage {
    /// What makes a column of it from the target's.
    kinds: Vec<String>,
    /// What makes the target's from a column of it.
    values: Vec<String>,
    columns: String,
    target: String,
}

impl Stage {
    /// Where some column needs it.
    pub fn of(pair: &Pair) -> Option<Self> {
        pair.source.travelling().any(|column| column.travels == Travels::Text).then(|| Self::new(pair))
    }

    pub fn new(pair: &Pair) -> Self {
        let (mut kinds, mut values) = (Vec::new(), Vec::new());
        for column in pair.source.travelling() {
            let name = ident(&column.name);
            if column.travels == Travels::Text {
                let there = pair.target.columns.iter().find(|there| there.name == column.name);
                let type_name = there.map_or(column.type_name.as_str(), |there| there.type_name.as_str());
                kinds.push(format!("{name}::pg_catalog.text AS {name}"));
                values.push(format!("{name}::{type_name}"));
            } else {
                kinds.push(name.clone());
                values.push(name);
            }
        }
        Self { kinds, values, columns: column_list(&pair.source.columns), target: pair.target.sql() }
    }

    /// Its columns are of the target's types: a binary stream of the source's fits.
    pub fn make(&self) -> String {
        format!(
            "CREATE TEMP TABLE pgrunbook_stage ON COMMIT DROP AS SELECT {} FROM ONLY {} WITH NO DATA",
            self.kinds.join(", "),
            self.target
        )
    }

    pub fn fill(&self) -> String {
        format!("COPY pg_temp.pgrunbook_stage ({}) FROM STDIN (FORMAT binary)", self.columns)
    }

    pub fn empty_into(&self, table: &str) -> String {
        format!(
            "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.pgrunbook_stage",
            self.columns,
            self.values.join(", ")
        )
    }
}
