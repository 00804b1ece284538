//! What a comparison found: for a terminal, as JSON, and as evidence.
//!
//! Keys and values of rows may be personal data. A terminal shows them, shortened, to who asked. Evidence is kept and handed
//! round: it names rows by [`Naming`], which tells nothing of their keys, unless columns were allowed by name.

use std::collections::BTreeSet;
use std::fmt::Write;

use pgrunbook_engine::Evidence;
use serde_json::{Value, json};

use super::compare::{Difference, Parity, TableParity, What};
use super::naming::Naming;
use super::sample::Sampled;

/// Characters of a value that are shown.
const LENGTH: usize = 80;

/// Version of the JSON.
pub const VERSION: u32 = 1;

/// Which values evidence may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Values {
    /// Key hashes only.
    #[default]
    Hidden,
    /// Those of these columns.
    Of(BTreeSet<String>),
    /// All: for the terminal.
    All,
}

impl Values {
    fn allows(&self, column: &str) -> bool {
        match self {
            Self::Hidden => false,
            Self::Of(columns) => columns.contains(column),
            Self::All => true,
        }
    }
}

impl Parity {
    /// One line.
    pub fn summary(&self) -> String {
        let [a, b] = &self.sides;
        let tables = self.tables.len();
        let rows = self.tables.iter().map(|table| table.sums[1].rows).sum::<u64>();
        let structural = self.findings.iter().filter(|finding| finding.is_difference()).count();
        if self.holds() {
            return format!("{tables} tables with {rows} rows are the same in {} and {}", a.label, b.label);
        }
        let mut text = format!(
            "{} of {tables} tables differ, in {} rows",
            self.tables.iter().filter(|t| !t.holds()).count(),
            self.differences()
        );
        if structural > 0 {
            let _ = write!(text, "; {structural} things cannot be compared");
        }
        text
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let mut text = String::new();
        for (letter, side) in ["A", "B"].iter().zip(&self.sides) {
            let position = side.lsn.map_or_else(String::new, |lsn| format!(", at {lsn}"));
            let label = side.label.strip_prefix(letter).unwrap_or(&side.label).trim_start();
            let _ = writeln!(text, "{letter}: {label}{position}");
        }
        for finding in &self.findings {
            let _ = writeln!(text, "{} {finding}", if finding.is_difference() { "differs" } else { "note   " });
        }
        for table in &self.tables {
            let [a, b] = table.sums;
            if table.holds() {
                let _ = writeln!(text, "same    {}: {} rows", table.name, a.rows);
                continue;
            }
            let totals = table.totals;
            let _ = writeln!(
                text,
                "differs {}: {} rows in A, {} in B; missing in A {}, missing in B {}, differing {}",
                table.name, a.rows, b.rows, totals.missing_in_a, totals.missing_in_b, totals.differ
            );
            for difference in &table.listed {
                let key =
                    difference.key.iter().map(|(column, value)| format!("{column} = {}", shown(value.as_deref())));
                let key = key.collect::<Vec<_>>().join(", ");
                match &difference.what {
                    What::MissingInA => drop(writeln!(text, "    {key}: missing in A")),
                    What::MissingInB => drop(writeln!(text, "    {key}: missing in B")),
                    What::Differs(cells) => {
                        let _ = writeln!(text, "    {key}:");
                        for cell in cells {
                            let [a, b] = &cell.values;
                            let _ = writeln!(text, "        {}: A {}", cell.column, shown(a.as_deref()));
                            let _ = writeln!(
                                text,
                                "        {}  B {}",
                                " ".repeat(cell.column.chars().count()),
                                shown(b.as_deref())
                            );
                        }
                    }
                }
            }
            let more = totals.all().saturating_sub(table.listed.len() as u64);
            if more > 0 {
                let _ = writeln!(text, "    and {more} more");
            }
        }
        let _ = writeln!(text, "{}; {} ms", self.summary(), self.took.as_millis());
        text
    }

    /// As JSON. `values` says which keys and values are in it, `naming` what rows are called.
    pub fn json(&self, values: &Values, naming: &Naming) -> Value {
        let sides = self.sides.iter().map(|side| {
            json!({ "label": side.label, "snapshot": side.snapshot, "lsn": side.lsn.map(|lsn| lsn.to_string()) })
        });
        let findings = self
            .findings
            .iter()
            .map(|finding| json!({ "is_difference": finding.is_difference(), "text": finding.to_string() }));
        json!({
            "type": "parity",
            "version": VERSION,
            "holds": self.holds(),
            "summary": self.summary(),
            "sides": sides.collect::<Vec<_>>(),
            "differences": self.differences(),
            "findings": findings.collect::<Vec<_>>(),
            "tables": self.tables.iter().map(|table| table.json(values, naming)).collect::<Vec<_>>(),
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl TableParity {
    /// Whether both sides hold the same rows.
    pub fn holds(&self) -> bool {
        self.totals.all() == 0 && self.sums[0] == self.sums[1]
    }

    fn json(&self, values: &Values, naming: &Naming) -> Value {
        let sums = self.sums.map(|sum| {
            // Numbers of 64 bits are no numbers of JSON everywhere.
            json!({ "rows": sum.rows, "sums": sum.sums.map(|part| format!("{part:016x}")) })
        });
        json!({
            "table": self.name,
            "key": self.key,
            "same": self.holds(),
            "sides": sums,
            "missing_in_a": self.totals.missing_in_a,
            "missing_in_b": self.totals.missing_in_b,
            "differ": self.totals.differ,
            "listed": self.listed.iter().map(|difference| listed(difference, values, naming)).collect::<Vec<_>>(),
        })
    }
}

fn listed(difference: &Difference, values: &Values, naming: &Naming) -> Value {
    let key =
        difference.key.iter().filter(|(column, _)| values.allows(column)).map(|(column, value)| {
            (column.clone(), value.as_deref().map_or(Value::Null, |value| shortened(value).into()))
        });
    let mut object =
        json!({ "key_hash": naming.name(&difference.bytes), "key": key.collect::<serde_json::Map<_, _>>() });
    let what = match &difference.what {
        What::MissingInA => "missing in A",
        What::MissingInB => "missing in B",
        What::Differs(cells) => {
            let columns = cells.iter().map(|cell| {
                let value = |one: &Option<String>| match one {
                    _ if !values.allows(&cell.column) => Value::String("hidden".to_owned()),
                    None => Value::Null,
                    Some(text) => shortened(text).into(),
                };
                json!({ "column": cell.column, "a": value(&cell.values[0]), "b": value(&cell.values[1]) })
            });
            object["columns"] = columns.collect::<Vec<_>>().into();
            "differs"
        }
    };
    object["what"] = what.into();
    object
}

/// What a comparison is in the evidence.
pub fn evidence(parity: &Parity, sampled: Option<&Sampled>, values: &Values, naming: &Naming) -> Evidence {
    let summary = match sampled {
        Some(sampled) => format!("{}; {}", parity.summary(), sampled.summary()),
        None => parity.summary(),
    };
    let mut evidence = Evidence::of(summary).fact("parity", parity.json(values, naming));
    if let Some(sampled) = sampled {
        evidence = evidence.fact("samples", sampled.json(values));
    }
    evidence
}

/// A value as a person reads it.
fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), shortened)
}

/// The beginning of a long one, without line ends and what a terminal would obey.
pub(super) fn shortened(value: &str) -> String {
    let mut text: String =
        value.chars().take(LENGTH).map(|sign| if sign.is_control() { '\u{fffd}' } else { sign }).collect();
    let all = value.chars().count();
    if all > LENGTH {
        let _ = write!(text, "... ({all} characters)");
    }
    text
}
