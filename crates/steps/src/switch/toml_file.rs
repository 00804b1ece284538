//! TOML files: the value at a path is replaced, and comments, order and spelling stay.

use toml_edit::{Document, DocumentMut, Item, Key, Table, Value};

/// Sets a dotted path (`database.url`) to a value, in TOML's own spelling.
///
/// # Errors
/// If the file is no TOML, or the path leads through or to something else than tables and a value.
pub(super) fn set(text: &str, path: &str, value: &toml::Value) -> Result<String, String> {
    let keys = Key::parse(path).map_err(|_| format!("`{path}` is no dotted path of keys"))?;
    let new = scalar(value).ok_or_else(|| format!("`{path}`: only texts, numbers and booleans can be set"))?;
    let document = Document::parse(text).map_err(|error| format!("it is no TOML: {}", error.message()))?;
    let changed = match item(document.as_item(), &keys)? {
        Some(found) => {
            let place = found.as_value().and_then(Value::span);
            let place = place.ok_or_else(|| format!("`{path}` is a table, not a value"))?;
            if found.is_array() || found.is_inline_table() {
                return Err(format!("`{path}` is not a single value"));
            }
            format!("{}{}{}", &text[..place.start], new.to_string().trim(), &text[place.end..])
        }
        None => added(text, &keys, new)?,
    };
    // Whatever the way, it must be what was wanted.
    let again =
        Document::parse(changed.as_str()).map_err(|error| format!("the result is no TOML: {}", error.message()))?;
    let found = item(again.as_item(), &keys)?.and_then(Item::as_value).map(|value| value.to_string());
    let wanted = scalar(value).map(|value| value.to_string());
    if found.as_deref().map(str::trim) != wanted.as_deref().map(str::trim) {
        return Err(format!("`{path}` cannot be set in this file"));
    }
    Ok(changed)
}

/// What a path leads to, as TOML spells it.
pub(super) fn value(text: &str, path: &str) -> Result<Option<String>, String> {
    let keys = Key::parse(path).map_err(|_| format!("`{path}` is no dotted path of keys"))?;
    let document = Document::parse(text).map_err(|error| format!("it is no TOML: {}", error.message()))?;
    let found = item(document.as_item(), &keys)?;
    Ok(found.and_then(Item::as_value).map(|value| match value {
        Value::String(text) => text.value().clone(),
        other => other.to_string().trim().to_owned(),
    }))
}

fn item<'d>(root: &'d Item, keys: &[Key]) -> Result<Option<&'d Item>, String> {
    let mut item = root;
    for key in keys {
        let Some(table) = item.as_table_like() else {
            return Err(format!("`{}` does not stand in a table", key.get()));
        };
        match table.get(key.get()) {
            Some(next) => item = next,
            None => return Ok(None),
        }
    }
    Ok(Some(item))
}

/// A key that is not there yet goes to the end of its table, which is made if need be.
fn added(text: &str, keys: &[Key], value: Value) -> Result<String, String> {
    let crlf = text.contains("\r\n");
    if crlf && text.replace("\r\n", "").contains('\n') {
        return Err("its lines end in two ways, so that no line can be added without touching others".to_owned());
    }
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| format!("it is no TOML: {}", error.message()))?;
    let Some((last, above)) = keys.split_last() else { return Err("the path is empty".to_owned()) };
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for key in above {
        let missing = || Item::Table(Table::new());
        table = table
            .entry(key.get())
            .or_insert_with(missing)
            .as_table_like_mut()
            .ok_or_else(|| format!("`{}` is no table", key.get()))?;
    }
    table.insert(last.get(), Item::Value(value));
    let changed = document.to_string();
    Ok(if crlf { changed.replace("\r\n", "\n").replace('\n', "\r\n") } else { changed })
}

fn scalar(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Where we are.\nname = 'x'   # odd spelling\n\n[database]\n# the url\nurl = \"old\" # why\npool.size = 0x10\n\
                        \n[[list]]\na = 1\n";

    fn text(value: &str) -> toml::Value {
        toml::Value::String(value.to_owned())
    }

    #[test]
    fn one_value_changes_and_every_other_byte_stays() {
        for file in [FILE.to_owned(), FILE.replace('\n', "\r\n")] {
            let changed = set(&file, "database.url", &text("new \"one\"\\")).unwrap();
            let spelled = changed.lines().find(|line| line.starts_with("url")).unwrap();
            assert_eq!(
                file.replace("\"old\"", spelled.trim_start_matches("url = ").trim_end_matches(" # why")),
                changed
            );
            assert_eq!(value(&changed, "database.url").unwrap().as_deref(), Some("new \"one\"\\"));
            let changed = set(&file, "database.pool.size", &toml::Value::Integer(4)).unwrap();
            assert_eq!(changed, file.replace("0x10", "4"));
        }
    }

    #[test]
    fn what_is_missing_is_added() {
        let changed = set(FILE, "database.tenant", &text("health")).unwrap();
        assert!(
            changed.contains("url = \"old\" # why\npool.size = 0x10\ntenant = \"health\"\n\n[[list]]"),
            "{changed}"
        );
        let crlf = set(&FILE.replace('\n', "\r\n"), "database.tenant", &text("health")).unwrap();
        assert_eq!(crlf, changed.replace('\n', "\r\n"));
        let changed = set(FILE, "new.deep.flag", &toml::Value::Boolean(true)).unwrap();
        assert_eq!(value(&changed, "new.deep.flag").unwrap().as_deref(), Some("true"));
        assert!(changed.starts_with(FILE), "{changed}");
    }

    #[test]
    fn anything_else_than_a_value_is_refused() {
        for path in ["database", "list", "list.a", "name.x", "", "a..b"] {
            assert!(set(FILE, path, &text("x")).is_err(), "{path}");
        }
        assert!(set("a = [", "a", &text("x")).is_err());
        assert!(set(FILE, "name", &toml::Value::Array(Vec::new())).is_err());
    }
}
