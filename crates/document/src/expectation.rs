//! What a check must answer.

/// One expectation of a SQL step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// `0 rows`, `rows >= 1`.
    Rows(Comparison, u64),
    /// `value = 't'`: exactly one row with one column, compared as text, or as a number where both are numbers.
    Value(Comparison, String),
    /// `each row has_usage = true`: every row, and at least one row.
    EachRow { column: String, comparison: Comparison, value: String },
    /// `error 42501`, `error P0001 ~ 'community_id is not set'`.
    Error { sqlstate: String, message_contains: Option<String> },
    /// A GFM table led by `Expected:`: the exact result, in any order of rows unless the query has an ORDER BY.
    Table { columns: Vec<String>, rows: Vec<Vec<String>> },
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}
