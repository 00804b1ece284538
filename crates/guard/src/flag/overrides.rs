//! Environment variables that decide for one process: `PGRUNBOOK_FLAG_NEW_CHECKOUT=off`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Flag;

/// What the names of the variables begin with. The flag's name follows in capitals, with `_` for everything else than
/// letters and digits.
pub const PREFIX: &str = "PGRUNBOOK_FLAG_";

/// What the environment says of flags. It is read once and passed in, so that a test or a request can have its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// By the variable's name.
    values: BTreeMap<String, String>,
    /// Variables that are named otherwise, by flag.
    names: BTreeMap<String, String>,
}

/// What an override comes to.
pub(super) enum Override {
    Variant(String, Value),
    Value(Value),
    /// It names nothing that the flag can be.
    Senseless(String),
}

impl Overrides {
    /// Of an environment, mostly `std::env::vars()`.
    pub fn of(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { values: vars.into_iter().collect(), names: BTreeMap::new() }
    }

    /// Has `variable` decide about `flag`, as well: `LIVE_POSTS` about `autonomous_posting`.
    #[must_use]
    pub fn named(mut self, flag: &str, variable: &str) -> Self {
        self.names.insert(flag.to_owned(), variable.to_owned());
        self
    }

    /// The variable that decides about a flag, and its value. An empty one is none.
    pub(super) fn find(&self, flag: &str) -> Option<(String, &str)> {
        let spelt = flag.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        let usual = format!("{PREFIX}{}", spelt.collect::<String>());
        let named = self.names.get(flag).cloned();
        let mut candidates = [Some(usual), named].into_iter().flatten();
        candidates.find_map(|name| {
            let value = self.values.get(&name).filter(|value| !value.is_empty())?;
            Some((name, value.as_str()))
        })
    }
}

/// Reads an override's value: the name of a variant, or JSON (else text) of the type that the flag has.
pub(super) fn read(text: &str, flag: Option<&Flag>, default: &Value) -> Override {
    let json = || serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let Some(flag) = flag else {
        let value = json();
        // A caller that gave no default takes any type.
        return if default.is_null() || same_type(&value, default) {
            Override::Value(value)
        } else {
            Override::Senseless(format!("`{text}` is no value of its type"))
        };
    };
    if let Some(value) = flag.variants.get(text) {
        return Override::Variant(text.to_owned(), value.clone());
    }
    let value = json();
    if let Some((name, value)) = flag.variants.iter().find(|(_, one)| **one == value) {
        return Override::Variant(name.clone(), value.clone());
    }
    if flag.variants.values().any(|one| same_type(one, &value) && !value.is_boolean()) {
        return Override::Value(value);
    }
    Override::Senseless(format!("`{text}` is neither a variant nor a value of its type"))
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
