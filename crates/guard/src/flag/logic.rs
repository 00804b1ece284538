//! The expressions of flagd's `targeting`: JsonLogic (<https://jsonlogic.com/operations.html>) with `fractional`,
//! `starts_with`, `ends_with` and `sem_ver` (<https://flagd.dev/reference/flag-definitions/#targeting-rules>).
//!
//! What stands here is what decides about strings, numbers and versions; operators over lists (`map`, `reduce`, ...) and
//! arithmetic are not. An operator that is not here makes the flag malformed: it is never read as something else.

use serde_json::{Map, Number, Value, json};

use super::bucket::place;
use super::{Context, Reason};

/// The largest sum of weights: flagd's, so that every language can multiply it.
const TOTAL: i64 = i32::MAX as i64;

/// Evaluates an expression of a flag for somebody.
pub(super) fn evaluate(expression: &Value, flag: &str, context: &Context) -> Result<Value, Reason> {
    let mut data = context.fields.clone();
    if let Some(key) = &context.key {
        data.insert("targetingKey".to_owned(), Value::String(key.clone()));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    data.insert("$flagd".to_owned(), json!({ "flagKey": flag, "timestamp": now }));
    Scope { flag, data: Value::Object(data) }.value(expression)
}

struct Scope<'a> {
    flag: &'a str,
    data: Value,
}

fn malformed(why: impl Into<String>) -> Reason {
    Reason::Malformed(why.into())
}

impl Scope<'_> {
    fn value(&self, expression: &Value) -> Result<Value, Reason> {
        match expression {
            Value::Object(map) if map.len() == 1 => self.operation(map),
            Value::Object(map) if map.is_empty() => Ok(Value::Null),
            Value::Object(_) => Err(malformed("its targeting has an object with several operators")),
            Value::Array(all) => all.iter().map(|one| self.value(one)).collect::<Result<_, _>>().map(Value::Array),
            literal => Ok(literal.clone()),
        }
    }

    fn operation(&self, map: &Map<String, Value>) -> Result<Value, Reason> {
        let Some((name, operands)) = map.iter().next() else { return Ok(Value::Null) };
        let one;
        let operands = match operands {
            Value::Array(all) => all.as_slice(),
            other => {
                one = [other.clone()];
                &one
            }
        };
        match name.as_str() {
            // Only what is needed is evaluated.
            "if" | "?:" => return self.branch(operands),
            "and" | "or" => {
                let mut last = Value::Null;
                for operand in operands {
                    last = self.value(operand)?;
                    if truthy(&last) == (name == "or") {
                        break;
                    }
                }
                return Ok(last);
            }
            _ => {}
        }
        let all = operands.iter().map(|one| self.value(one)).collect::<Result<Vec<_>, _>>()?;
        let at = |place: usize| all.get(place).unwrap_or(&Value::Null);
        Ok(match name.as_str() {
            "var" => self.variable(at(0), at(1)),
            "missing" => {
                let names = all.iter().flat_map(|one| one.as_array().cloned().unwrap_or_else(|| vec![one.clone()]));
                Value::Array(names.filter(|name| self.variable(name, &Value::Null).is_null()).collect())
            }
            "cat" => Value::String(all.iter().map(text).collect()),
            "==" => loosely_equal(at(0), at(1)).into(),
            "!=" => (!loosely_equal(at(0), at(1))).into(),
            "===" => strictly_equal(at(0), at(1)).into(),
            "!==" => (!strictly_equal(at(0), at(1))).into(),
            "!" => (!truthy(at(0))).into(),
            "!!" => truthy(at(0)).into(),
            "<" | "<=" | ">" | ">=" => {
                // With three operands: between.
                all.windows(2).all(|pair| ordered(name, &pair[0], &pair[1])).into()
            }
            "in" => match at(1) {
                Value::String(whole) => at(0).as_str().is_some_and(|part| whole.contains(part)).into(),
                Value::Array(items) => items.iter().any(|item| strictly_equal(item, at(0))).into(),
                _ => false.into(),
            },
            "starts_with" | "ends_with" => match (at(0).as_str(), at(1).as_str(), all.len()) {
                (Some(whole), Some(part), 2) if name == "starts_with" => whole.starts_with(part).into(),
                (Some(whole), Some(part), 2) => whole.ends_with(part).into(),
                _ => false.into(),
            },
            "sem_ver" => sem_ver(at(0), at(1), at(2)),
            "fractional" => self.fractional(&all)?,
            other => return Err(malformed(format!("its targeting uses `{other}`, which is not known here"))),
        })
    }

    fn branch(&self, operands: &[Value]) -> Result<Value, Reason> {
        let mut rest = operands;
        while let [condition, then, more @ ..] = rest {
            if truthy(&self.value(condition)?) {
                return self.value(then);
            }
            rest = more;
        }
        rest.first().map_or(Ok(Value::Null), |otherwise| self.value(otherwise))
    }

    fn variable(&self, name: &Value, default: &Value) -> Value {
        let name = text(name);
        if name.is_empty() {
            return self.data.clone();
        }
        let found = name.split('.').try_fold(&self.data, |at, part| match at {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            other => other.get(part),
        });
        match found {
            None | Some(Value::Null) => default.clone(),
            Some(value) => value.clone(),
        }
    }

    /// `[text, [variant, weight], ...]`; without a text the flag's name and the key.
    fn fractional(&self, all: &[Value]) -> Result<Value, Reason> {
        let (by, shares) = match all {
            [Value::String(by), shares @ ..] => (by.clone(), shares),
            [Value::Null, shares @ ..] | shares => {
                let key = self.data.get("targetingKey").and_then(Value::as_str).ok_or(Reason::NoKey)?;
                (format!("{}{key}", self.flag), shares)
            }
        };
        let mut total = 0_i64;
        let mut ends = Vec::with_capacity(shares.len());
        for share in shares {
            let (variant, weight) = match share.as_array().map(Vec::as_slice) {
                Some([variant] | [variant, Value::Null]) => (variant, 1),
                Some([variant, Value::Number(weight)]) => {
                    let whole =
                        |number: f64| (number.fract() == 0.0 && number.abs() <= TOTAL as f64).then_some(number as i64);
                    let weight = weight.as_i64().or_else(|| weight.as_f64().and_then(whole));
                    (variant, weight.ok_or_else(|| malformed("a weight of `fractional` is no whole number"))?)
                }
                _ => return Err(malformed("`fractional` wants [variant, weight]")),
            };
            if matches!(variant, Value::Array(_) | Value::Object(_)) {
                return Err(malformed("a variant of `fractional` is no name"));
            }
            total = total.saturating_add(weight.max(0));
            ends.push((variant, total));
        }
        let total = u32::try_from(total).ok().filter(|total| i64::from(*total) <= TOTAL);
        let total = total.ok_or_else(|| malformed(format!("the weights of `fractional` are above {TOTAL}")))?;
        let place = place(&by, total);
        // Weights of zero alone give nobody anything.
        Ok(ends
            .into_iter()
            .find(|(_, end)| place < end.unsigned_abs())
            .map_or(Value::Null, |(variant, _)| variant.clone()))
    }
}

/// As JsonLogic counts: an empty list is false too.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) if text.trim().is_empty() => Some(0.0),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null => Some(0.0),
        _ => None,
    }
}

fn strictly_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Number::as_f64(a) == Number::as_f64(b),
        _ => a == b,
    }
}

fn loosely_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, other) | (other, Value::Null) => other.is_null(),
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => a == b,
        _ => number(a).is_some_and(|a| number(b) == Some(a)),
    }
}

fn ordered(operator: &str, a: &Value, b: &Value) -> bool {
    let order = match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => number(a).zip(number(b)).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    order.is_some_and(|order| match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// `[version, operator, version]`; null if one cannot be read, as in flagd.
fn sem_ver(a: &Value, operator: &Value, b: &Value) -> Value {
    let parse = |value: &Value| {
        let text = text(value);
        let text = text.strip_prefix(['v', 'V']).unwrap_or(&text);
        semver::Version::parse(text).ok()
    };
    let (Some(a), Some(operator), Some(b)) = (parse(a), operator.as_str(), parse(b)) else { return Value::Null };
    let order = a.cmp_precedence(&b);
    match operator {
        "=" => order.is_eq().into(),
        "!=" => order.is_ne().into(),
        "<" => order.is_lt().into(),
        "<=" => order.is_le().into(),
        ">" => order.is_gt().into(),
        ">=" => order.is_ge().into(),
        "^" => (a.major == b.major).into(),
        "~" => (a.major == b.major && a.minor == b.minor).into(),
        _ => Value::Null,
    }
}
