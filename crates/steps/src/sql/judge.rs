//! Compares what a statement answered with what was expected of it, in one sentence.
//!
//! Rows are judged as they stream by; only a few are kept, for the message and the evidence.

use pgrunbook_document::expectation::{Comparison, Expectation};
use pgrunbook_document::sql::{TokenKind, lex};

/// Rows kept of a result that nobody wants exactly.
const SAMPLE: usize = 20;

/// An error that the server raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    pub sqlstate: String,
    pub message: String,
}

/// The last result of a text, as far as it must be known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// `None`: the last statement returned no rows by its nature (`UPDATE` without `RETURNING`).
    pub columns: Option<Vec<String>>,
    /// The first rows, in order.
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows returned, or rows changed where none were returned.
    pub row_count: u64,
    /// For each `each row` expectation, in their order: how many rows do not meet it, and the first such value.
    offending: Vec<(u64, Option<String>)>,
}

/// Takes results in and says whether they are as expected.
#[derive(Debug)]
pub struct Judge<'a> {
    expectations: Vec<&'a Expectation>,
    /// Whether the order of rows counts.
    ordered: bool,
    keep: usize,
    pub seen: Seen,
}

impl<'a> Judge<'a> {
    /// A judge of what `statement`, the last of its text, answers.
    pub fn new(expectations: impl IntoIterator<Item = &'a Expectation>, statement: &str) -> Self {
        let expectations: Vec<_> = expectations.into_iter().collect();
        let tables = expectations.iter().filter_map(|expectation| match expectation {
            Expectation::Table { rows, .. } => Some(rows.len() + 1),
            _ => None,
        });
        let keep = tables.max().unwrap_or(0).max(SAMPLE);
        Self { expectations, ordered: orders_rows(statement), keep, seen: Seen::default() }
    }

    /// Whether an error is expected.
    pub fn expects_error(&self) -> bool {
        self.expectations.iter().any(|expectation| matches!(expectation, Expectation::Error { .. }))
    }

    /// A result begins; what was seen before is not the last one.
    pub fn result(&mut self, columns: Vec<String>) {
        let each = self.expectations.iter().filter(|e| matches!(e, Expectation::EachRow { .. })).count();
        self.seen = Seen { columns: Some(columns), offending: vec![(0, None); each], ..Seen::default() };
    }

    /// A row of it. `value` gives the value of a column by its place.
    pub fn row(&mut self, value: impl Fn(usize) -> Option<String>) {
        let columns = self.seen.columns.as_deref().unwrap_or_default();
        let each = self.expectations.iter().filter_map(|expectation| match expectation {
            Expectation::EachRow { column, comparison, value } => Some((column, *comparison, value)),
            _ => None,
        });
        for ((column, comparison, wanted), offending) in each.zip(&mut self.seen.offending) {
            let Some(at) = columns.iter().position(|name| name == column) else { continue };
            let found = value(at);
            if !holds(found.as_deref(), comparison, wanted) {
                offending.0 += 1;
                offending.1.get_or_insert_with(|| shown(found.as_deref()));
            }
        }
        if self.seen.rows.len() < self.keep {
            let row = (0..columns.len()).map(&value).collect();
            self.seen.rows.push(row);
        }
        self.seen.row_count += 1;
    }

    /// A statement is complete that returned no rows and changed `row_count`.
    pub fn changed(&mut self, row_count: u64) {
        self.seen = Seen { row_count, ..Seen::default() };
    }

    /// The first rows, with only the columns that may be shown; `None` if none may.
    pub fn sample(&self, show: &[String]) -> Option<serde_json::Value> {
        let columns = self.seen.columns.as_deref().unwrap_or_default();
        let shown: Vec<_> = show
            .iter()
            .filter_map(|name| Some((name.as_str(), columns.iter().position(|column| column == name)?)))
            .collect();
        if shown.is_empty() {
            return None;
        }
        let rows = self.seen.rows.iter().take(SAMPLE).map(|row| {
            let values = shown.iter().map(|(name, at)| ((*name).to_owned(), row.get(*at).cloned().flatten().into()));
            serde_json::Value::Object(values.collect())
        });
        Some(rows.collect())
    }

    /// Whether all expectations hold; `Ok` and `Err` are the sentence for people.
    pub fn verdict(&self, raised: Option<&Raised>) -> Result<String, String> {
        if self.expectations.is_empty() {
            return match raised {
                None => Ok(match &self.seen.columns {
                    Some(_) => rows(self.seen.row_count),
                    None if self.seen.row_count == 0 => "done".to_owned(),
                    None => format!("{} changed", rows(self.seen.row_count)),
                }),
                Some(raised) => Err(format!("expected no error, got {}", shown_error(raised))),
            };
        }
        let mut held = Vec::new();
        let mut each = 0;
        for expectation in &self.expectations {
            let offending = match expectation {
                Expectation::EachRow { .. } => {
                    each += 1;
                    self.seen.offending.get(each - 1)
                }
                _ => None,
            };
            held.push(self.one(expectation, offending, raised)?);
        }
        Ok(format!("{}, as expected", held.join("; ")))
    }

    fn one(
        &self,
        expectation: &Expectation,
        offending: Option<&(u64, Option<String>)>,
        raised: Option<&Raised>,
    ) -> Result<String, String> {
        let seen = &self.seen;
        if let Expectation::Error { sqlstate, message_contains } = expectation {
            return error(sqlstate, message_contains.as_deref(), raised, seen);
        }
        if let Some(raised) = raised {
            return Err(format!("expected {}, got {}", described(expectation), shown_error(raised)));
        }
        let wrong = |got: String| Err(format!("expected {}, got {got}", described(expectation)));
        match expectation {
            Expectation::Rows(comparison, wanted) => {
                if compares(seen.row_count.cmp(wanted), *comparison) {
                    Ok(rows(seen.row_count))
                } else {
                    wrong(rows(seen.row_count))
                }
            }
            Expectation::Value(comparison, wanted) => match (&seen.columns, seen.rows.as_slice()) {
                (Some(columns), [row]) if columns.len() == 1 && seen.row_count == 1 => {
                    let found = row.first().and_then(Option::as_deref);
                    if holds(found, *comparison, wanted) { Ok(shown(found)) } else { wrong(shown(found)) }
                }
                (Some(columns), _) => wrong(format!("{} of {}", rows(seen.row_count), many(columns.len(), "column"))),
                (None, _) => wrong("a statement that returns no rows".to_owned()),
            },
            Expectation::EachRow { column, .. } => {
                let columns = seen.columns.as_deref().unwrap_or_default();
                if !columns.contains(column) {
                    return wrong(format!("columns {}", columns.join(", ")));
                }
                match offending {
                    Some((0, _)) if seen.row_count > 0 => Ok(format!("each of {} holds", rows(seen.row_count))),
                    Some((count, first)) if *count > 0 => wrong(format!(
                        "{count} of {} where it is not so, the first with {}",
                        rows(seen.row_count),
                        first.as_deref().unwrap_or("null")
                    )),
                    _ => wrong("0 rows".to_owned()),
                }
            }
            Expectation::Table { columns, rows } => self.table(columns, rows),
            Expectation::Error { .. } => unreachable!("answered above"),
        }
    }

    fn table(&self, columns: &[String], wanted: &[Vec<String>]) -> Result<String, String> {
        let seen = &self.seen;
        let found_columns = seen.columns.as_deref().unwrap_or_default();
        if found_columns != columns {
            return Err(format!("expected columns {}, got {}", columns.join(", "), found_columns.join(", ")));
        }
        if seen.row_count != wanted.len() as u64 {
            return Err(format!("expected the table's {}, got {}", many(wanted.len(), "row"), rows(seen.row_count)));
        }
        let same = |row: &[Option<String>], wanted: &[String]| {
            row.len() == wanted.len() && row.iter().zip(wanted).all(|(found, cell)| is_cell(found.as_deref(), cell))
        };
        if self.ordered {
            for (number, (row, wanted)) in seen.rows.iter().zip(wanted).enumerate() {
                if !same(row, wanted) {
                    return Err(format!(
                        "expected row {} to be | {} |, got | {} |",
                        number + 1,
                        wanted.join(" | "),
                        cells(row)
                    ));
                }
            }
        } else {
            let mut left: Vec<_> = seen.rows.iter().collect();
            for wanted in wanted {
                match left.iter().position(|row| same(row, wanted)) {
                    Some(at) => drop(left.swap_remove(at)),
                    None => {
                        let instead = left.first().map_or_else(String::new, |row| format!(", got | {} |", cells(row)));
                        return Err(format!("expected a row | {} |{instead}", wanted.join(" | ")));
                    }
                }
            }
        }
        Ok(format!("the table's {}", many(wanted.len(), "row")))
    }
}

fn error(sqlstate: &str, contains: Option<&str>, raised: Option<&Raised>, seen: &Seen) -> Result<String, String> {
    let wanted = match contains {
        Some(part) => format!("error {sqlstate} with \"{part}\""),
        None => format!("error {sqlstate}"),
    };
    match raised {
        Some(raised) if raised.sqlstate == sqlstate && contains.is_none_or(|part| raised.message.contains(part)) => {
            Ok(format!("error {sqlstate}"))
        }
        Some(raised) => Err(format!("expected {wanted}, got {}", shown_error(raised))),
        None => Err(format!("expected {wanted}, got no error and {}", rows(seen.row_count))),
    }
}

/// An expectation as its author would say it.
fn described(expectation: &Expectation) -> String {
    match expectation {
        Expectation::Rows(Comparison::Eq, count) => rows(*count),
        Expectation::Rows(comparison, count) => format!("rows {} {count}", sign(*comparison)),
        Expectation::Value(comparison, value) => format!("value {} '{value}'", sign(*comparison)),
        Expectation::EachRow { column, comparison, value } => {
            format!("each row with {column} {} '{value}'", sign(*comparison))
        }
        Expectation::Error { sqlstate, .. } => format!("error {sqlstate}"),
        Expectation::Table { rows, .. } => format!("a table of {}", many(rows.len(), "row")),
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "=",
        Comparison::Ne => "<>",
        Comparison::Lt => "<",
        Comparison::Le => "<=",
        Comparison::Gt => ">",
        Comparison::Ge => ">=",
    }
}

fn compares(order: std::cmp::Ordering, comparison: Comparison) -> bool {
    match comparison {
        Comparison::Eq => order.is_eq(),
        Comparison::Ne => order.is_ne(),
        Comparison::Lt => order.is_lt(),
        Comparison::Le => order.is_le(),
        Comparison::Gt => order.is_gt(),
        Comparison::Ge => order.is_ge(),
    }
}

/// Whether a value stands as wanted: as numbers where both are, as booleans where both are, else as text. Null never.
fn holds(found: Option<&str>, comparison: Comparison, wanted: &str) -> bool {
    let Some(found) = found else { return false };
    compares(ordering(found, wanted), comparison)
}

fn ordering(found: &str, wanted: &str) -> std::cmp::Ordering {
    if let (Ok(found), Ok(wanted)) = (found.parse::<i128>(), wanted.parse::<i128>()) {
        return found.cmp(&wanted);
    }
    // Spelled-out forms (`infinity`, `NaN`) are left to the comparison as text.
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    if let (Some(found), Some(wanted)) = (number(found), number(wanted)) {
        return found.total_cmp(&wanted);
    }
    if let (Some(found), Some(wanted)) = (truth(found), truth(wanted)) {
        return found.cmp(&wanted);
    }
    found.cmp(wanted)
}

/// The server writes booleans as `t` and `f`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "t" | "true" => Some(true),
        "f" | "false" => Some(false),
        _ => None,
    }
}

/// A cell of a Markdown table can only show null as nothing, or by its name.
fn is_cell(found: Option<&str>, cell: &str) -> bool {
    match found {
        None => cell.is_empty() || cell.eq_ignore_ascii_case("null"),
        Some(found) => found == cell || ordering(found, cell).is_eq(),
    }
}

fn cells(row: &[Option<String>]) -> String {
    row.iter().map(|value| value.as_deref().unwrap_or("null")).collect::<Vec<_>>().join(" | ")
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("'{value}'"))
}

fn shown_error(raised: &Raised) -> String {
    format!("error {}: {}", raised.sqlstate, raised.message)
}

fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Whether a statement has an `ORDER BY` of its own, outside of all parentheses.
fn orders_rows(statement: &str) -> bool {
    let mut depth = 0usize;
    let mut after_order = false;
    for token in lex(statement).filter(|token| !token.is_blank()) {
        let text = &statement[token.range()];
        match text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let word = token.kind == TokenKind::Word && depth == 0;
        if word && after_order && text.eq_ignore_ascii_case("by") {
            return true;
        }
        after_order = word && text.eq_ignore_ascii_case("order");
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on a result of these columns and rows.
    fn check(expectations: &[Expectation], columns: &[&str], rows: &[&[Option<&str>]]) -> Result<String, String> {
        let mut judge = Judge::new(expectations, "SELECT 1");
        judge.result(columns.iter().map(ToString::to_string).collect());
        for row in rows {
            judge.row(|at| row[at].map(ToOwned::to_owned));
        }
        judge.verdict(None)
    }

    fn refused(expectation: Expectation, columns: &[&str], rows: &[&[Option<&str>]]) -> String {
        check(&[expectation], columns, rows).expect_err("must not hold")
    }

    #[test]
    fn rows_are_counted() {
        let two: &[&[Option<&str>]] = &[&[Some("1")], &[Some("2")]];
        assert_eq!(refused(Expectation::Rows(Comparison::Eq, 0), &["a"], two), "expected 0 rows, got 2 rows");
        assert_eq!(check(&[Expectation::Rows(Comparison::Ge, 2)], &["a"], two).unwrap(), "2 rows, as expected");
        assert_eq!(refused(Expectation::Rows(Comparison::Lt, 2), &["a"], two), "expected rows < 2, got 2 rows");
    }

    #[test]
    fn a_value_is_one_row_of_one_column() {
        let value = |comparison, text: &str| Expectation::Value(comparison, text.to_owned());
        let one: &[&[Option<&str>]] = &[&[Some("10")]];
        assert!(check(&[value(Comparison::Gt, "9")], &["n"], one).is_ok(), "as numbers, not as text");
        assert!(check(&[value(Comparison::Eq, "10.0")], &["n"], one).is_ok());
        assert!(check(&[value(Comparison::Eq, "true")], &["n"], &[&[Some("t")]]).is_ok());
        assert_eq!(refused(value(Comparison::Eq, "t"), &["n"], &[&[None]]), "expected value = 't', got null");
        assert_eq!(refused(value(Comparison::Ne, "t"), &["n"], &[&[None]]), "expected value <> 't', got null");
        assert_eq!(refused(value(Comparison::Eq, "1"), &["n"], &[]), "expected value = '1', got 0 rows of 1 column");
        assert_eq!(
            refused(value(Comparison::Eq, "1"), &["a", "b"], &[&[Some("1"), None]]),
            "expected value = '1', got 1 row of 2 columns"
        );
    }

    #[test]
    fn each_row_looks_at_all_of_them_and_wants_one() {
        let each = || Expectation::EachRow { column: "ok".into(), comparison: Comparison::Eq, value: "true".into() };
        assert!(check(&[each()], &["ok"], &[&[Some("t")], &[Some("t")]]).is_ok());
        assert_eq!(refused(each(), &["ok"], &[]), "expected each row with ok = 'true', got 0 rows");
        assert_eq!(
            refused(each(), &["a", "ok"], &[&[None, Some("t")], &[None, Some("f")], &[None, None]]),
            "expected each row with ok = 'true', got 2 of 3 rows where it is not so, the first with 'f'"
        );
        assert_eq!(refused(each(), &["a"], &[&[None]]), "expected each row with ok = 'true', got columns a");
        // More rows than are kept are judged all the same.
        let mut many: Vec<&[Option<&str>]> = vec![&[Some("t")]; 100];
        many.push(&[Some("f")]);
        assert!(refused(each(), &["ok"], &many).contains("1 of 101 rows"));
    }

    #[test]
    fn a_table_is_compared_in_any_order_unless_the_query_orders() {
        let table = Expectation::Table {
            columns: vec!["a".into(), "b".into()],
            rows: vec![vec!["1".into(), "t".into()], vec!["2".into(), String::new()]],
        };
        let rows: &[&[Option<&str>]] = &[&[Some("2"), None], &[Some("1"), Some("t")]];
        assert!(check(std::slice::from_ref(&table), &["a", "b"], rows).is_ok());
        let mut judge = Judge::new([&table], "SELECT a, b FROM t ORDER BY a DESC");
        judge.result(vec!["a".into(), "b".into()]);
        rows.iter().for_each(|row| judge.row(|at| row[at].map(ToOwned::to_owned)));
        assert_eq!(judge.verdict(None).unwrap_err(), "expected row 1 to be | 1 | t |, got | 2 | null |");
        assert_eq!(refused(table.clone(), &["a"], &[&[None]]), "expected columns a, b, got a");
        assert_eq!(
            refused(table, &["a", "b"], &[&[Some("1"), Some("t")], &[Some("3"), None]]),
            "expected a row | 2 |  |, got | 3 | null |"
        );
    }

    #[test]
    fn errors_are_expected_by_sqlstate_and_part_of_the_message() {
        let wanted = Expectation::Error { sqlstate: "P0001".into(), message_contains: Some("not set".into()) };
        let verdict = |sqlstate: &str, message: &str| {
            let raised = Raised { sqlstate: sqlstate.into(), message: message.into() };
            Judge::new([&wanted], "").verdict(Some(&raised))
        };
        assert!(verdict("P0001", "the tenant is not set").is_ok());
        assert_eq!(
            verdict("42501", "denied").unwrap_err(),
            "expected error P0001 with \"not set\", got error 42501: denied"
        );
        assert!(verdict("P0001", "other").is_err());
        assert_eq!(
            Judge::new([&wanted], "").verdict(None).unwrap_err(),
            "expected error P0001 with \"not set\", got no error and 0 rows"
        );
        let rows = Expectation::Rows(Comparison::Eq, 0);
        let raised = Raised { sqlstate: "42P01".into(), message: "relation \"x\" does not exist".into() };
        assert_eq!(
            Judge::new([&rows], "").verdict(Some(&raised)).unwrap_err(),
            "expected 0 rows, got error 42P01: relation \"x\" does not exist"
        );
    }

    #[test]
    fn order_by_counts_only_at_the_top() {
        assert!(orders_rows("SELECT a FROM t ORDER BY a"));
        assert!(!orders_rows("SELECT (SELECT a FROM t ORDER BY a LIMIT 1), 'order by'"));
        assert!(!orders_rows("SELECT row_number() OVER (ORDER BY a)"));
    }
}
