//! The temporary tables that changes are brought in, and the statements that join them.

use crate::pgoutput::{Cell, Row};

use super::super::copy::Format;
use super::super::destination::Destination;

/// What a temporary table holds. Its first column is `n`, a number for each row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub table: String,
    pub format: Format,
    pub columns: Vec<Staged>,
    /// How many of the columns find the row.
    pub key: usize,
    /// Whether it has all columns of the destination's table, for [`super::Writer::rewrite`].
    pub whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Staged {
    pub column: usize,
    /// It comes as text among binary columns, and is cast when it is used.
    pub cast: bool,
}

impl Layout {
    pub(super) fn new(destination: &Destination, forms: &[Option<Format>], columns: &[usize], key: usize) -> Self {
        let form = |column: usize| forms.get(column).copied().flatten();
        let binary = columns.iter().any(|column| form(*column) == Some(Format::Binary));
        let format = if binary { Format::Binary } else { Format::Text };
        let columns = columns
            .iter()
            .map(|column| Staged { column: *column, cast: binary && form(*column) == Some(Format::Text) })
            .collect();
        Self { table: destination.name.clone(), format, columns, key, whole: false }
    }

    /// The value of the column at this place, with the destination's type.
    pub(super) fn value(&self, destination: &Destination, at: usize) -> String {
        match self.columns.get(at) {
            Some(Staged { column, cast: true }) => format!("s.c{at}::{}", destination.columns[*column].type_name),
            _ => format!("s.c{at}"),
        }
    }

    /// That a row `t` is the staged row `s`.
    pub(super) fn found(&self, destination: &Destination) -> String {
        let parts: Vec<String> = destination
            .key
            .iter()
            .enumerate()
            .map(|(at, key)| {
                format!("t.{} {} {}", destination.columns[key.column].name, key.equals, self.value(destination, at))
            })
            .collect();
        parts.join(" AND ")
    }

    pub(super) fn update(&self, destination: &Destination, name: &str) -> String {
        let set: Vec<String> = (self.key..self.columns.len())
            .map(|at| {
                format!("{} = {}", destination.columns[self.columns[at].column].name, self.value(destination, at))
            })
            .collect();
        let found = self.found(destination);
        if set.is_empty() {
            // Nothing but the key, or nothing that was sent: the row must be there all the same.
            return format!("SELECT FROM {} AS t JOIN {name} AS s ON {found}", destination.name);
        }
        format!("UPDATE {} AS t SET {} FROM {name} AS s WHERE {found}", destination.name, set.join(", "))
    }
}

impl Destination {
    /// The columns that an update sets: what was sent and is not the key, which stays.
    pub(super) fn sets(&self, row: &Row) -> Vec<usize> {
        let is_key = |at: usize| self.key.iter().any(|key| key.column == at);
        self.written.iter().copied().filter(|at| !is_key(*at) && row.get(*at) != Some(&Cell::Unchanged)).collect()
    }

    pub(super) fn written_names(&self) -> String {
        self.written.iter().map(|at| self.columns[*at].name.as_str()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn all_names(&self) -> String {
        let written = self.written.iter().map(|at| self.columns[*at].name.as_str());
        written.chain(self.extra.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
    }
}
