//! Files in flagd's format (<https://flagd.dev/reference/flag-definitions/>).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Flag, FlagSet, Rule};

/// Reads a file's text. One flag that cannot be read is kept with its reason.
///
/// # Errors
/// If the text is no JSON, or has no `flags`.
pub fn parse(text: &str) -> Result<FlagSet, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let flags = file.get("flags").and_then(Value::as_object).ok_or("it has no `flags`")?;
    let none = Map::new();
    let evaluators = file.get("$evaluators").and_then(Value::as_object).unwrap_or(&none);
    let read = flags.iter().map(|(name, flag)| (name.clone(), flag_of(name, flag, evaluators)));
    Ok(read.collect::<BTreeMap<_, _>>())
}

fn flag_of(name: &str, flag: &Value, evaluators: &Map<String, Value>) -> Result<Flag, String> {
    let enabled = match flag.get("state").and_then(Value::as_str) {
        Some("ENABLED") => true,
        Some("DISABLED") => false,
        _ => return Err("`state` is neither ENABLED nor DISABLED".to_owned()),
    };
    let variants = flag.get("variants").and_then(Value::as_object).ok_or("it has no `variants`")?;
    let default = match flag.get("defaultVariant") {
        None | Some(Value::Null) => None,
        Some(Value::String(default)) if variants.contains_key(default) => Some(default.clone()),
        Some(other) => return Err(format!("its `defaultVariant` {other} is none of its variants")),
    };
    let expression = match flag.get("targeting") {
        None | Some(Value::Null) => None,
        Some(Value::Object(map)) if map.is_empty() => None,
        Some(expression) => Some(resolved(expression, evaluators)?),
    };
    let rule = Rule::Targeting { default, expression };
    Ok(Flag { name: name.to_owned(), variants: variants.clone(), enabled, rule, changed: None })
}

/// With each `{"$ref": name}` replaced by the evaluator of that name. An evaluator is complete in itself: it refers to
/// none.
fn resolved(expression: &Value, evaluators: &Map<String, Value>) -> Result<Value, String> {
    match expression {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref")
                && map.len() == 1
            {
                let found = evaluators.get(name).cloned();
                return found.ok_or_else(|| format!("it refers to {name:?}, and there is no such evaluator"));
            }
            let all = map.iter().map(|(key, value)| Ok((key.clone(), resolved(value, evaluators)?)));
            all.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Array(all) => {
            all.iter().map(|one| resolved(one, evaluators)).collect::<Result<_, _>>().map(Value::Array)
        }
        literal => Ok(literal.clone()),
    }
}
