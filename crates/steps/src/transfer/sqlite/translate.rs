//! SQLite's expressions as PostgreSQL's: only where both mean the same for every value, or PostgreSQL raises an error.
//!
//! Never another value without a word: what cannot be said faithfully is an [`Untranslated`], which the preflight shows and
//! leaves to consent. PostgreSQL raises an error where SQLite would go on in floating point (integers that overflow).
//! A differential test runs random expressions on both.

use std::fmt;

use pgrunbook_postgres::quote;

use super::catalog::Collation;
use super::expression::{Expression, parse};
use super::kind::{Kind, Truth};

/// Why an expression has no faithful translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslated(pub String);

impl fmt::Display for Untranslated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn no<T>(why: impl Into<String>) -> Result<T, Untranslated> {
    Err(Untranslated(why.into()))
}

/// What a column's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub kind: Kind,
    pub collation: Collation,
}

/// Finds a column by its name in SQLite.
pub type Scope<'a> = &'a dyn Fn(&str) -> Option<Named>;

/// What SQLite calls upper case is ASCII's.
const UPPER: &str = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ'";
const LOWER: &str = "'abcdefghijklmnopqrstuvwxyz'";

/// Folds a text as NOCASE compares it.
pub fn folded(sql: &str) -> String {
    format!("pg_catalog.translate({sql}, {UPPER}, {LOWER})")
}

/// A condition: of a CHECK, or of a partial index.
///
/// # Errors
/// [`Untranslated`], with the part that has no equal.
pub fn condition(sql: &str, scope: Scope<'_>) -> Result<String, Untranslated> {
    let expression = parse(sql).map_err(Untranslated)?;
    truth(&typed(&expression, scope)?)
}

/// An expression of an index: any type that can be indexed.
///
/// # Errors
/// As [`condition`].
pub fn indexed(sql: &str, scope: Scope<'_>) -> Result<String, Untranslated> {
    let expression = parse(sql).map_err(Untranslated)?;
    let typed = typed(&expression, scope)?;
    match typed.is {
        Type::Text => Ok(format!("{} COLLATE \"C\"", typed.sql)),
        Type::Null => no("NULL alone"),
        _ => Ok(typed.sql),
    }
}

/// The expression of a generated column of this kind.
///
/// # Errors
/// As [`condition`], or if it is of another type than the column.
pub fn generated(sql: &str, kind: Kind, scope: Scope<'_>) -> Result<String, Untranslated> {
    let expression = parse(sql).map_err(Untranslated)?;
    let typed = typed(&expression, scope)?;
    match (kind, typed.is) {
        (Kind::Integer(_), Type::Integer)
        | (Kind::Double, Type::Double)
        | (Kind::Text, Type::Text)
        | (Kind::Bytea, Type::Blob)
        | (Kind::Boolean(Truth::Number), Type::Bool) => Ok(typed.sql),
        (Kind::Integer(_), Type::Bool) => Ok(integer(&typed)?),
        (Kind::Double, Type::Integer) => Ok(format!("({})::double precision", typed.sql)),
        (kind, _) => no(format!("its type is not {}", kind.sql_type())),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Null,
    Bool,
    Integer,
    Double,
    Numeric,
    Text,
    Blob,
    /// It can be compared with NULL and nothing else: a date that is a text in SQLite.
    Opaque(Kind),
}

#[derive(Debug, Clone)]
struct Typed {
    sql: String,
    is: Type,
    collation: Option<Collation>,
    /// Set where the collation was written, not the column's.
    explicit: bool,
    literal: Option<Expression>,
    is_column: bool,
}

fn plain(sql: impl Into<String>, is: Type) -> Typed {
    Typed { sql: sql.into(), is, collation: None, explicit: false, literal: None, is_column: false }
}

fn literal(expression: &Expression, sql: String, is: Type) -> Typed {
    Typed { literal: Some(expression.clone()), ..plain(sql, is) }
}

fn typed(expression: &Expression, scope: Scope<'_>) -> Result<Typed, Untranslated> {
    Ok(match expression {
        Expression::Null => plain("NULL", Type::Null),
        Expression::Integer(number) => {
            // The least bigint cannot be written as a positive number with a sign.
            let sql = if *number < 0 { format!("'{number}'::bigint") } else { format!("{number}::bigint") };
            literal(expression, sql, Type::Integer)
        }
        Expression::Real(number) if number.is_finite() => {
            literal(expression, format!("'{number:e}'::double precision"), Type::Double)
        }
        Expression::Real(_) => return no("an infinite number"),
        Expression::Text(text) => text_literal(text)?,
        Expression::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            literal(expression, format!("'\\x{hex}'::bytea"), Type::Blob)
        }
        Expression::Column { name, quoted } => match scope(name) {
            Some(named) => column(&named)?,
            None if *quoted => text_literal(name)?,
            None => return no(format!("there is no column {name}")),
        },
        Expression::Current(name) => return no(format!("{name}, which is a text there")),
        Expression::Unary(operator, operand) => unary(operator, &typed(operand, scope)?)?,
        Expression::Binary("AND" | "OR", ..) => {
            let Expression::Binary(operator, left, right) = expression else { return no("an operator") };
            let (left, right) = (truth(&typed(left, scope)?)?, truth(&typed(right, scope)?)?);
            plain(format!("({left} {operator} {right})"), Type::Bool)
        }
        Expression::Binary(operator, left, right) => {
            let (left, right) = (typed(left, scope)?, typed(right, scope)?);
            match *operator {
                "=" | "<>" | "<" | "<=" | ">" | ">=" => plain(compare(&left, operator, &right)?, Type::Bool),
                "||" => concatenate(&left, &right)?,
                _ => arithmetic(&left, operator, &right)?,
            }
        }
        Expression::Is { left, right, negated } => is(left, right, *negated, scope)?,
        Expression::Between { value, low, high, negated } => {
            let value = typed(value, scope)?;
            let low = compare(&value, ">=", &typed(low, scope)?)?;
            let high = compare(&value, "<=", &typed(high, scope)?)?;
            plain(negate(format!("({low} AND {high})"), *negated), Type::Bool)
        }
        Expression::In { value, list, negated } => {
            if list.is_empty() {
                return no("an empty IN");
            }
            let value = typed(value, scope)?;
            let equal = |one| {
                // Only the left side's collation counts.
                let one = Typed { collation: None, explicit: false, ..typed(one, scope)? };
                compare(&value, "=", &one)
            };
            let all: Vec<String> = list.iter().map(equal).collect::<Result<_, _>>()?;
            plain(negate(format!("({})", all.join(" OR ")), *negated), Type::Bool)
        }
        Expression::Like { value, pattern, negated } => {
            let (value, pattern) = (typed(value, scope)?, typed(pattern, scope)?);
            if value.is != Type::Text || pattern.is != Type::Text {
                return no("LIKE on what is no text");
            }
            let sql = format!("({} LIKE {} ESCAPE '')", folded(&value.sql), folded(&pattern.sql));
            plain(negate(sql, *negated), Type::Bool)
        }
        Expression::Case { subject, branches, otherwise } => {
            case(subject.as_deref(), branches, otherwise.as_deref(), scope)?
        }
        Expression::Cast(inner, name) => cast(&typed(inner, scope)?, name)?,
        Expression::Call { name, arguments } => {
            let arguments: Vec<Typed> = arguments.iter().map(|one| typed(one, scope)).collect::<Result<_, _>>()?;
            call(name, &arguments)?
        }
        Expression::Collate(inner, name) => {
            let inner = typed(inner, scope)?;
            if let Collation::Other(name) = Collation::of(name) {
                return no(format!("the collation {name}"));
            }
            Typed { collation: Some(Collation::of(name)), explicit: true, ..inner }
        }
    })
}

fn text_literal(text: &str) -> Result<Typed, Untranslated> {
    let sql = quote::literal(text).map_err(|_| Untranslated("a NUL character".to_owned()))?;
    Ok(literal(&Expression::Text(text.to_owned()), format!("{sql}::text"), Type::Text))
}

fn column(named: &Named) -> Result<Typed, Untranslated> {
    let sql = quote::ident(&named.name).map_err(|_| Untranslated("a NUL character".to_owned()))?;
    let is = match named.kind {
        Kind::Integer(super::kind::Width::Eight) => Type::Integer,
        Kind::Double => Type::Double,
        Kind::Text => Type::Text,
        Kind::Bytea => Type::Blob,
        Kind::Boolean(Truth::Number) => Type::Bool,
        Kind::Numeric(super::kind::Digits::Number) => Type::Numeric,
        // Narrow ones would overflow sooner than SQLite's.
        Kind::Integer(_) => return Ok(Typed { is_column: true, ..plain(format!("{sql}::bigint"), Type::Integer) }),
        kind => Type::Opaque(kind),
    };
    let collation = match &named.collation {
        Collation::Other(name) => return no(format!("the collation {name}")),
        collation => Some(collation.clone()),
    };
    Ok(Typed { collation, is_column: true, ..plain(sql, is) })
}

fn negate(sql: String, negated: bool) -> String {
    if negated { format!("(NOT {sql})") } else { sql }
}

/// As a condition.
fn truth(value: &Typed) -> Result<String, Untranslated> {
    match value.is {
        Type::Bool => Ok(value.sql.clone()),
        Type::Integer | Type::Double | Type::Numeric => Ok(format!("({} <> 0)", value.sql)),
        Type::Null => Ok("NULL::boolean".to_owned()),
        Type::Text | Type::Blob | Type::Opaque(_) => no("a text as a condition"),
    }
}

/// As a number: SQLite's truth is 0 and 1.
fn integer(value: &Typed) -> Result<String, Untranslated> {
    match value.is {
        Type::Integer => Ok(value.sql.clone()),
        Type::Bool => Ok(format!("({})::integer::bigint", value.sql)),
        _ => no("a value that is no integer"),
    }
}

fn as_number(value: &Typed) -> Result<Typed, Untranslated> {
    Ok(match value.is {
        Type::Bool => plain(integer(value)?, Type::Integer),
        _ => value.clone(),
    })
}

fn unary(operator: &str, operand: &Typed) -> Result<Typed, Untranslated> {
    if operator == "NOT" {
        return Ok(plain(format!("(NOT {})", truth(operand)?), Type::Bool));
    }
    let operand = as_number(operand)?;
    match (operator, operand.is) {
        ("+", _) => Ok(operand),
        ("-", Type::Integer | Type::Double) => {
            let mut negative = plain(format!("(- {})", operand.sql), operand.is);
            negative.literal = match operand.literal {
                Some(Expression::Integer(number)) => number.checked_neg().map(Expression::Integer),
                Some(Expression::Real(number)) => Some(Expression::Real(-number)),
                _ => None,
            };
            Ok(negative)
        }
        ("~", Type::Integer) => Ok(plain(format!("(~ {})", operand.sql), Type::Integer)),
        _ => no(format!("`{operator}` on what is no number")),
    }
}

/// Integers up to here are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// An integer against a double: the same as in SQLite where one of them is a literal below 2^53.
fn small_literal(value: &Typed) -> bool {
    match value.literal {
        Some(Expression::Integer(number)) => (number as f64).abs() < EXACT,
        Some(Expression::Real(number)) => number.abs() < EXACT,
        _ => false,
    }
}

fn as_decimal(value: &Typed) -> Option<String> {
    match value.literal {
        Some(Expression::Integer(number)) => Some(format!("'{number}'::numeric")),
        Some(Expression::Real(number)) if number.abs() < EXACT => Some(format!("'{number:e}'::numeric")),
        _ => None,
    }
}

/// Both sides, made comparable.
fn comparable(left: &Typed, right: &Typed, ordered: bool) -> Result<(String, String), Untranslated> {
    if left.is == Type::Bool && right.is == Type::Bool && !ordered {
        return Ok((left.sql.clone(), right.sql.clone()));
    }
    let (left, right) = (as_number(left)?, as_number(right)?);
    let both = || (left.sql.clone(), right.sql.clone());
    match (left.is, right.is) {
        (Type::Integer, Type::Integer)
        | (Type::Double, Type::Double)
        | (Type::Numeric, Type::Numeric)
        | (Type::Blob, Type::Blob) => Ok(both()),
        (Type::Integer, Type::Double) | (Type::Double, Type::Integer) => {
            if small_literal(&left) || small_literal(&right) {
                return Ok((format!("{}::double precision", left.sql), format!("{}::double precision", right.sql)));
            }
            no("an integer against a floating-point number, which PostgreSQL rounds first")
        }
        (Type::Numeric, Type::Integer | Type::Double) => match as_decimal(&right) {
            Some(right) => Ok((left.sql, right)),
            None => no("a numeric against another type"),
        },
        (Type::Integer | Type::Double, Type::Numeric) => match as_decimal(&left) {
            Some(left) => Ok((left, right.sql)),
            None => no("a numeric against another type"),
        },
        (Type::Text, Type::Text) => Ok(texts(&left, &right, ordered)),
        (Type::Null, _) | (_, Type::Null) => no("a comparison with NULL"),
        (Type::Opaque(kind), _) | (_, Type::Opaque(kind)) => {
            no(format!("a comparison with a column that becomes {}", kind.sql_type()))
        }
        _ => no("a comparison of two types, which SQLite orders by type"),
    }
}

/// The collation is the left side's, unless only the right side has one written.
fn texts(left: &Typed, right: &Typed, ordered: bool) -> (String, String) {
    let collation = match (left, right) {
        (Typed { explicit: true, collation, .. }, _) | (_, Typed { explicit: true, collation, .. }) => collation,
        (Typed { is_column: true, collation, .. }, _) => collation,
        (_, Typed { collation, .. }) => collation,
    };
    let wrap = |sql: &str| match collation {
        Some(Collation::NoCase) => folded(sql),
        Some(Collation::Rtrim) => format!("pg_catalog.rtrim({sql}, ' ')"),
        _ => sql.to_owned(),
    };
    // Two columns may have two collations; and order is by bytes.
    let needs_collation = ordered || (left.literal.is_none() && right.literal.is_none());
    let left = if needs_collation { format!("({} COLLATE \"C\")", wrap(&left.sql)) } else { wrap(&left.sql) };
    (left, wrap(&right.sql))
}

fn compare(left: &Typed, operator: &str, right: &Typed) -> Result<String, Untranslated> {
    // A column that became boolean, against the 0 or 1 that it was.
    if left.is == Type::Bool
        && let Some(Expression::Integer(number @ (0 | 1))) = right.literal
        && matches!(operator, "=" | "<>")
    {
        let wants_true = (number == 1) == (operator == "=");
        return Ok(if wants_true { left.sql.clone() } else { format!("(NOT {})", left.sql) });
    }
    let (left, right) = comparable(left, right, !matches!(operator, "=" | "<>"))?;
    Ok(format!("({left} {operator} {right})"))
}

fn is(left: &Expression, right: &Expression, negated: bool, scope: Scope<'_>) -> Result<Typed, Untranslated> {
    let left = typed(left, scope)?;
    let not = if negated { "NOT " } else { "" };
    if *right == Expression::Null {
        if left.is == Type::Null {
            return no("NULL IS NULL");
        }
        return Ok(plain(format!("({} IS {not}NULL)", left.sql), Type::Bool));
    }
    let (left, right) = comparable(&left, &typed(right, scope)?, false)?;
    let distinct = if negated { "IS DISTINCT FROM" } else { "IS NOT DISTINCT FROM" };
    Ok(plain(format!("({left} {distinct} {right})"), Type::Bool))
}

fn concatenate(left: &Typed, right: &Typed) -> Result<Typed, Untranslated> {
    let text = |value: &Typed| match value.is {
        Type::Text => Ok(value.sql.clone()),
        Type::Integer | Type::Bool => Ok(format!("({})::text", integer(value)?)),
        _ => no("|| on what is neither text nor integer"),
    };
    Ok(plain(format!("({} || {})", text(left)?, text(right)?), Type::Text))
}

fn arithmetic(left: &Typed, operator: &str, right: &Typed) -> Result<Typed, Untranslated> {
    let (left, right) = (as_number(left)?, as_number(right)?);
    let (a, b) = (&left.sql, &right.sql);
    match (left.is, right.is, operator) {
        (Type::Integer, Type::Integer, "+" | "-" | "*" | "&" | "|") => {
            Ok(plain(format!("({a} {operator} {b})"), Type::Integer))
        }
        // SQLite gives NULL on a division by zero.
        (Type::Integer, Type::Integer, "/" | "%") => {
            Ok(plain(format!("({a} {operator} nullif({b}, 0))"), Type::Integer))
        }
        (Type::Integer, Type::Integer, "<<" | ">>") => match right.literal {
            Some(Expression::Integer(count @ 0..=63)) => Ok(plain(format!("({a} {operator} {count})"), Type::Integer)),
            _ => no("a shift by what is no number from 0 to 63"),
        },
        // SQLite has no NaN: it is NULL.
        (Type::Integer | Type::Double, Type::Integer | Type::Double, "+" | "-" | "*") => {
            Ok(plain(format!("nullif({a}::double precision {operator} {b}::double precision, 'NaN')"), Type::Double))
        }
        (Type::Integer | Type::Double, Type::Integer | Type::Double, "/") => {
            Ok(plain(format!("nullif({a}::double precision / nullif({b}::double precision, 0), 'NaN')"), Type::Double))
        }
        (Type::Numeric, ..) | (_, Type::Numeric, _) => no("arithmetic on a numeric, which is exact here and not there"),
        _ => no(format!("`{operator}` on these types")),
    }
}

/// One type for several results; NULLs take any.
fn one_type(values: &[&Typed]) -> Result<Type, Untranslated> {
    let mut types = values.iter().map(|value| value.is).filter(|is| *is != Type::Null);
    let Some(first) = types.next() else { return no("nothing but NULL") };
    if matches!(first, Type::Opaque(_)) {
        return no("a choice of what is a text there and another type here");
    }
    if types.all(|is| is == first) { Ok(first) } else { no("a choice of several types") }
}

/// A choice of texts takes the collation of none of them.
fn case(
    subject: Option<&Expression>,
    branches: &[(Expression, Expression)],
    otherwise: Option<&Expression>,
    scope: Scope<'_>,
) -> Result<Typed, Untranslated> {
    let subject = subject.map(|subject| typed(subject, scope)).transpose()?;
    let mut sql = "(CASE".to_owned();
    let mut results = Vec::new();
    for (when, then) in branches {
        let when = typed(when, scope)?;
        let when = match &subject {
            Some(subject) => compare(subject, "=", &when)?,
            None => truth(&when)?,
        };
        let then = typed(then, scope)?;
        sql.push_str(&format!(" WHEN {when} THEN {}", then.sql));
        results.push(then);
    }
    if let Some(otherwise) = otherwise {
        let otherwise = typed(otherwise, scope)?;
        sql.push_str(&format!(" ELSE {}", otherwise.sql));
        results.push(otherwise);
    }
    sql.push_str(" END)");
    let is = one_type(&results.iter().collect::<Vec<_>>())?;
    Ok(plain(sql, is))
}

fn cast(value: &Typed, name: &str) -> Result<Typed, Untranslated> {
    use super::map::{Affinity, affinity};
    let sql = &value.sql;
    match (affinity(name), value.is) {
        (Affinity::Integer, Type::Integer) | (Affinity::Real, Type::Double) | (Affinity::Text, Type::Text) => {
            Ok(Typed { literal: None, ..value.clone() })
        }
        (Affinity::Integer, Type::Bool) => Ok(plain(integer(value)?, Type::Integer)),
        // Towards zero, as there; out of range it is an error.
        (Affinity::Integer, Type::Double) => Ok(plain(format!("pg_catalog.trunc({sql})::bigint"), Type::Integer)),
        (Affinity::Real, Type::Integer | Type::Bool) => {
            Ok(plain(format!("({})::double precision", integer(value)?), Type::Double))
        }
        (Affinity::Text, Type::Integer | Type::Bool) => Ok(plain(format!("({})::text", integer(value)?), Type::Text)),
        _ => no(format!("CAST AS {name}")),
    }
}

fn call(name: &str, arguments: &[Typed]) -> Result<Typed, Untranslated> {
    let types: Vec<Type> = arguments.iter().map(|one| one.is).collect();
    let sql = |at: usize| arguments[at].sql.as_str();
    let literal_integer = |at: usize| match arguments.get(at).and_then(|one| one.literal.as_ref()) {
        Some(Expression::Integer(number)) => Some(*number),
        _ => None,
    };
    Ok(match (name, &types[..]) {
        ("length" | "char_length", [Type::Text]) => {
            plain(format!("pg_catalog.length({})::bigint", sql(0)), Type::Integer)
        }
        ("length" | "octet_length", [Type::Blob]) => {
            plain(format!("pg_catalog.octet_length({})::bigint", sql(0)), Type::Integer)
        }
        ("length", [Type::Integer]) => plain(format!("pg_catalog.length(({})::text)::bigint", sql(0)), Type::Integer),
        ("lower", [Type::Text]) => plain(folded(sql(0)), Type::Text),
        ("upper", [Type::Text]) => plain(format!("pg_catalog.translate({}, {LOWER}, {UPPER})", sql(0)), Type::Text),
        ("trim", [Type::Text]) => plain(format!("pg_catalog.btrim({}, ' ')", sql(0)), Type::Text),
        ("ltrim" | "rtrim", [Type::Text]) => plain(format!("pg_catalog.{name}({}, ' ')", sql(0)), Type::Text),
        ("replace", [Type::Text, Type::Text, Type::Text]) => {
            plain(format!("pg_catalog.replace({}, {}, {})", sql(0), sql(1), sql(2)), Type::Text)
        }
        ("instr", [Type::Text, Type::Text]) => {
            plain(format!("pg_catalog.strpos({}, {})::bigint", sql(0), sql(1)), Type::Integer)
        }
        ("substr" | "substring", [Type::Text, Type::Integer, rest @ ..]) if rest.len() <= 1 => {
            let (from, count) = (literal_integer(1), literal_integer(2));
            match (from, rest, count) {
                (Some(from @ 1..=1_000_000_000), [], _) => {
                    plain(format!("pg_catalog.substr({}, {from})", sql(0)), Type::Text)
                }
                (Some(from @ 1..=1_000_000_000), [Type::Integer], Some(count @ 0..=1_000_000_000)) => {
                    plain(format!("pg_catalog.substr({}, {from}, {count})", sql(0)), Type::Text)
                }
                _ => return no("substr that does not begin and end at fixed places from the left"),
            }
        }
        ("abs", [is @ (Type::Integer | Type::Double)]) => plain(format!("pg_catalog.abs({})", sql(0)), *is),
        ("round", [Type::Double]) => plain(
            // Halves away from zero, as there; PostgreSQL's goes to the even one.
            format!(
                "(CASE WHEN pg_catalog.abs({x}) > 4503599627370496 THEN {x} WHEN {x} < 0 THEN pg_catalog.trunc({x} - 0.5) + 0 \
                 ELSE pg_catalog.trunc({x} + 0.5) END)",
                x = sql(0)
            ),
            Type::Double,
        ),
        ("coalesce" | "ifnull", [_, _, ..]) if name == "coalesce" || arguments.len() == 2 => {
            let is = one_type(&arguments.iter().collect::<Vec<_>>())?;
            let all: Vec<&str> = arguments.iter().map(|one| one.sql.as_str()).collect();
            plain(format!("coalesce({})", all.join(", ")), is)
        }
        ("nullif", [a, _]) => {
            let equal = compare(&arguments[0], "=", &arguments[1])?;
            plain(format!("(CASE WHEN {equal} THEN NULL ELSE {} END)", sql(0)), *a)
        }
        ("iif" | "if", [_, _, _]) => {
            let is = one_type(&[&arguments[1], &arguments[2]])?;
            plain(format!("(CASE WHEN {} THEN {} ELSE {} END)", truth(&arguments[0])?, sql(1), sql(2)), is)
        }
        // Of NULL it is the empty text.
        ("hex", [Type::Blob]) => {
            plain(format!("coalesce(pg_catalog.upper(pg_catalog.encode({}, 'hex')), '')", sql(0)), Type::Text)
        }
        ("typeof", [is]) if arguments[0].is_column => {
            let class = match is {
                Type::Integer | Type::Bool => "integer",
                Type::Double => "real",
                Type::Text => "text",
                Type::Blob => "blob",
                _ => return no("typeof a column that is of another type here"),
            };
            plain(format!("(CASE WHEN {} IS NULL THEN 'null' ELSE '{class}' END)", sql(0)), Type::Text)
        }
        ("json_valid", [Type::Opaque(Kind::Json | Kind::Jsonb)]) => {
            plain(format!("(CASE WHEN {} IS NOT NULL THEN true END)", sql(0)), Type::Bool)
        }
        _ => return no(format!("the function {name} with these arguments")),
    })
}
