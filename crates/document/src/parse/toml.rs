//! Reads the blocks that are TOML: steps, whose one key that is a kind names them, and the runbook's settings.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::model::{ForEach, ForEachValues, Language, Settings, Spanned, VarValue, Variable};
use crate::parse::{Common, Draft, duration, nearest};
use crate::vocabulary::Vocabulary;

/// Keys that every kind of step knows.
pub(super) const COMMON_KEYS: &[&str] = &["target", "undo", "timeout", "for_each", "valid", "at"];

/// The top-level keys of a table with the ranges of key and value, in the order of the text.
struct Entry<'t, 'i> {
    key: &'t str,
    key_range: Range<usize>,
    value: &'t DeValue<'i>,
    value_range: Range<usize>,
}

fn entries<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Entry<'t, 'i>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref(),
            key_range: key.span(),
            value: value.get_ref(),
            value_range: whole_range(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_range.start);
    entries
}

/// The range of a value; of a table written with dotted keys or a header, up to its last leaf.
fn whole_range(value: &toml::Spanned<DeValue<'_>>) -> Range<usize> {
    let mut range = value.span();
    if let DeValue::Table(table) = value.get_ref() {
        for (key, inner) in table {
            let inner = whole_range(inner);
            range = range.start.min(key.span().start)..range.end.max(inner.end);
        }
    }
    range
}

fn parse_table<'i>(draft: &Draft<'i>, found: &mut Vec<Diagnostic>) -> Option<DeTable<'i>> {
    match DeTable::parse(draft.text) {
        Ok(table) => Some(table.into_inner()),
        Err(error) => {
            let place = error.span().map_or(draft.span, |range| draft.locate(range));
            found.push(Diagnostic::error("bad-toml", place, format!("this is not TOML: {}", error.message())));
            None
        }
    }
}

/// What the block of a step says. `None` for an `include`, which is returned through `include`.
pub(super) fn read(
    draft: &Draft<'_>,
    vocabulary: Vocabulary<'_>,
    include: &mut Option<Spanned<String>>,
    found: &mut Vec<Diagnostic>,
) -> Option<Common> {
    let table = parse_table(draft, found)?;
    let entries = entries(&table);
    if let Some(entry) = entries.iter().find(|entry| entry.key == "include") {
        *include = text(draft, entry, found);
        if let Some(other) = entries.iter().find(|entry| entry.key != "include") {
            found.push(Diagnostic::error(
                "unknown-key",
                draft.locate(other.key_range.clone()),
                format!("an include has no key `{}`", other.key),
            ));
        }
        return None;
    }
    let kinds: Vec<&str> =
        vocabulary.0.iter().filter(|kind| kind.language == Language::Toml).map(|kind| kind.name).collect();
    let naming: Vec<&Entry<'_, '_>> = entries.iter().filter(|entry| kinds.contains(&entry.key)).collect();
    let Some(first) = naming.first() else {
        let mut wrong = entries.iter().filter(|entry| !COMMON_KEYS.contains(&entry.key));
        let place = wrong.next();
        let span = place.map_or(draft.span, |entry| draft.locate(entry.key_range.clone()));
        let sql = place.and_then(|entry| vocabulary.find(entry.key));
        let help = match place.and_then(|entry| nearest(entry.key, &kinds)) {
            _ if sql.is_some() => {
                format!("`{}` is a SQL step: write it in a `sql step` block", place.map_or("", |entry| entry.key))
            }
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("one key names the kind and its value the id; kinds are {}", kinds.join(", ")),
        };
        let message = place.map_or_else(
            || "this step does not say what it is".to_owned(),
            |entry| format!("`{}` is not a kind of step", entry.key),
        );
        found.push(Diagnostic::error("unknown-kind", span, message).label("not a kind").help(help));
        return None;
    };
    let spec = vocabulary.find(first.key)?;
    let mut common = Common { kind: spec.name.to_owned(), ..Common::default() };
    common.id = text(draft, first, found).and_then(|id| super::step_id(&id.value, id.span, found));
    for entry in &entries {
        if entry.key_range.start == first.key_range.start {
            continue;
        }
        match entry.key {
            "target" => common.target = text(draft, entry, found),
            "undo" => {
                common.undo = text(draft, entry, found).and_then(|it| super::undo(&it.value, it.span, found));
            }
            "timeout" => {
                common.timeout = text(draft, entry, found).and_then(|it| duration(&it.value, it.span, found));
            }
            "valid" => {
                common.valid = text(draft, entry, found).and_then(|it| super::validity(&it.value, it.span, found));
            }
            "at" => common.at = text(draft, entry, found).map(|it| it.value),
            "for_each" => common.for_each = for_each(draft, entry, found),
            key if spec.fields.iter().any(|field| field.name == key) => {}
            key => {
                let known: Vec<&str> =
                    spec.fields.iter().map(|field| field.name).chain(COMMON_KEYS.iter().copied()).collect();
                let mut diagnostic = Diagnostic::error(
                    "unknown-key",
                    draft.locate(entry.key_range.clone()),
                    format!("a `{}` step has no key `{key}`", spec.name),
                )
                .label("not a key");
                diagnostic = match nearest(key, &known) {
                    Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
                    None => diagnostic.help(format!("its keys are {}", known.join(", "))),
                };
                found.push(diagnostic);
            }
        }
        let is_header = draft.text[..entry.key_range.start].trim_end_matches(' ').ends_with('[');
        if COMMON_KEYS.contains(&entry.key) && is_header {
            found.push(
                Diagnostic::error(
                    "bad-value",
                    draft.locate(entry.key_range.clone()),
                    format!("`{}` is written as a table of its own", entry.key),
                )
                .help(format!("write `{} = {{ ... }}`", entry.key)),
            );
        }
    }
    Some(common)
}

/// The ranges, in a block's text, of the keys that every kind knows, together with their values.
pub(super) fn common_ranges(text: &str) -> Vec<Range<usize>> {
    let Ok(table) = DeTable::parse(text) else { return Vec::new() };
    let table = table.into_inner();
    let entries = entries(&table);
    let common = entries.iter().filter(|entry| COMMON_KEYS.contains(&entry.key));
    common.map(|entry| entry.key_range.start.min(entry.value_range.start)..entry.value_range.end).collect()
}

fn text(draft: &Draft<'_>, entry: &Entry<'_, '_>, found: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
    let span = draft.locate(entry.value_range.clone());
    if let DeValue::String(value) = entry.value {
        return Some(Spanned { value: value.to_string(), span });
    }
    found.push(
        Diagnostic::error("bad-value", span, format!("`{}` takes a text", entry.key)).help("put it in double quotes"),
    );
    None
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    let DeValue::Array(array) = value else { return None };
    array
        .iter()
        .map(|one| match one.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            _ => None,
        })
        .collect()
}

fn for_each(draft: &Draft<'_>, entry: &Entry<'_, '_>, found: &mut Vec<Diagnostic>) -> Option<Spanned<ForEach>> {
    let span = draft.locate(entry.value_range.clone());
    let one = match entry.value {
        DeValue::Table(table) if table.len() == 1 => table.iter().next(),
        _ => None,
    };
    let parsed = one.and_then(|(variable, values)| {
        let values = match values.get_ref() {
            DeValue::String(text) => {
                let name = text.strip_prefix("${")?.strip_suffix('}')?;
                ForEachValues::Variable(name.to_owned())
            }
            other => ForEachValues::Listed(texts(other)?),
        };
        super::is_name(variable.get_ref()).then(|| ForEach { variable: variable.get_ref().to_string(), values })
    });
    if parsed.is_none() {
        found.push(
            Diagnostic::error("bad-for-each", span, "`for_each` binds one variable to a list of texts")
                .help("write `for_each = { tenant = [\"health\", \"general\"] }` or `{ tenant = \"${tenants}\" }`"),
        );
    }
    parsed.map(|value| Spanned { value, span })
}

/// What the `toml runbook` block says.
pub(super) fn settings(draft: &Draft<'_>, found: &mut Vec<Diagnostic>) -> Settings {
    const KEYS: &[&str] = &["targets", "vars", "owner", "environments", "rollback_within"];
    let mut settings = Settings { span: Some(draft.span), ..Settings::default() };
    let Some(table) = parse_table(draft, found) else { return settings };
    for entry in entries(&table) {
        let span = draft.locate(entry.value_range.clone());
        match (entry.key, entry.value) {
            ("targets", DeValue::Array(array)) => {
                for one in array.iter() {
                    let span = draft.locate(one.span());
                    match one.get_ref() {
                        DeValue::String(name) => settings.targets.push(Spanned { value: name.to_string(), span }),
                        _ => found.push(Diagnostic::error("bad-value", span, "a target is named by a text")),
                    }
                }
            }
            ("environments", value) if texts(value).is_some() => {
                settings.environments = texts(value).unwrap_or_default();
            }
            ("owner", _) => settings.owner = text(draft, &entry, found).map(|it| it.value),
            ("rollback_within", DeValue::String(limit)) => {
                settings.rollback_within = super::duration(limit, span, found);
            }
            ("vars", DeValue::Table(vars)) => settings.vars = variables(draft, vars, found),
            (key, _) if KEYS.contains(&key) => {
                found.push(Diagnostic::error("bad-value", span, format!("`{key}` has a value of the wrong type")));
            }
            (key, _) => {
                let place = draft.locate(entry.key_range.clone());
                let diagnostic = Diagnostic::error("unknown-key", place, format!("a runbook has no setting `{key}`"))
                    .label("not a setting");
                found.push(match nearest(key, KEYS) {
                    Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
                    None => diagnostic.help(format!("settings are {}", KEYS.join(", "))),
                });
            }
        }
    }
    settings
}

fn variables(draft: &Draft<'_>, table: &DeTable<'_>, found: &mut Vec<Diagnostic>) -> BTreeMap<String, Variable> {
    let mut variables = BTreeMap::new();
    for (name, value) in table {
        let span = draft.locate(name.span());
        if !super::is_name(name.get_ref()) {
            found.push(
                Diagnostic::error("bad-variable", span, format!("`{}` is not a variable's name", name.get_ref()))
                    .help("use letters, digits and underscores, beginning with a letter"),
            );
            continue;
        }
        let (default, about) = match value.get_ref() {
            DeValue::Table(parts) => {
                let known = |key: &str| key == "default" || key == "about";
                if let Some((key, _)) = parts.iter().find(|(key, _)| !known(key.get_ref())) {
                    found.push(
                        Diagnostic::error(
                            "unknown-key",
                            draft.locate(key.span()),
                            format!("a variable has no key `{}`", key.get_ref()),
                        )
                        .help("its keys are default, about"),
                    );
                }
                let about = parts.get("about").and_then(|it| match it.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                });
                (parts.get("default").map(|it| it.get_ref()), about)
            }
            other => (Some(other), None),
        };
        let default = match default.map(var_value) {
            Some(None) => {
                found.push(Diagnostic::error(
                    "bad-value",
                    span,
                    "a variable is a text, a number, true or false, or a list of texts",
                ));
                None
            }
            other => other.flatten(),
        };
        variables.insert(name.get_ref().to_string(), Variable { span, default, about });
    }
    variables
}

fn var_value(value: &DeValue<'_>) -> Option<VarValue> {
    match value {
        DeValue::String(text) => Some(VarValue::Text(text.to_string())),
        DeValue::Integer(number) => Some(VarValue::Text(number.to_string())),
        DeValue::Float(number) => Some(VarValue::Text(number.to_string())),
        DeValue::Boolean(truth) => Some(VarValue::Text(truth.to_string())),
        DeValue::Array(_) => texts(value).map(VarValue::List),
        _ => None,
    }
}
