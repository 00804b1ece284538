//! PgBouncer's configuration: where a database of `[databases]` leads.
//!
//! The tenant's `search_path` behind a pooler in transaction mode comes by `connect_query` (run on each new server
//! connection) or by `ALTER ROLE ... IN DATABASE ... SET search_path`; both are tried in the tests. A client's own `SET`
//! would leak into other clients' transactions. See <https://www.pgbouncer.org/config.html#section-databases>.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::error::SwitchError;
use super::file;

/// A PgBouncer configuration, or a file that one includes: `%include databases.ini`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ini {
    text: String,
}

impl Ini {
    /// # Errors
    /// If it is not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        Ok(Self { text: text.to_owned() })
    }

    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Sets keys of a database's connection string; keys that are not named, and all other lines, stay. A database that has no
    /// line of its own gets one at the end of `[databases]`.
    ///
    /// # Errors
    /// If it is there twice, or a line cannot be read.
    pub fn set(&mut self, database: &str, set: &BTreeMap<String, String>) -> Result<(), String> {
        if database == "pgbouncer" || database == "*" {
            return Err(format!("`{database}` is no database that can be led elsewhere"));
        }
        for (key, value) in set {
            let named = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !named || value.contains(['\n', '\r', '\0']) {
                return Err(format!("`{key}` cannot be set to what is given: a line break, or no name of a key"));
            }
        }
        let lines = self.databases();
        let mut found = lines.lines.iter().filter(|line| line.name == database);
        let (place, old) = match (found.next(), found.next()) {
            (Some(_), Some(_)) => return Err(format!("`{database}` is there twice")),
            (Some(line), None) => (line.value.clone(), self.text[line.value.clone()].to_owned()),
            (None, _) => {
                let Some(end) = lines.end else { return Err("it has no section [databases]".to_owned()) };
                let ending = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
                let gap = if end == 0 || self.text[..end].ends_with('\n') { "" } else { ending };
                let line = format!("{gap}{} = {ending}", name(database));
                self.text.insert_str(end, &line);
                let at = end + line.len() - ending.len();
                (at..at, String::new())
            }
        };
        let mut pairs = pairs(&old)?;
        for (key, value) in set {
            match pairs.iter_mut().find(|(name, _)| name == key) {
                Some(pair) => pair.1.clone_from(value),
                None => pairs.push((key.clone(), value.clone())),
            }
        }
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
        self.text.replace_range(place, &text.join(" "));
        Ok(())
    }

    /// A database's connection string, by key.
    pub fn get(&self, database: &str) -> Option<BTreeMap<String, String>> {
        let lines = self.databases();
        let line = lines.lines.iter().find(|line| line.name == database)?;
        Some(pairs(&self.text[line.value.clone()]).ok()?.into_iter().collect())
    }

    fn databases(&self) -> Lines {
        // A file without any section is one that is included into [databases].
        let mut inside = !self.text.lines().any(|line| line.trim_start().starts_with('['));
        let mut lines = Lines { lines: Vec::new(), end: inside.then_some(self.text.len()) };
        let mut at = 0;
        for line in self.text.split_inclusive('\n') {
            let (start, plain) = (at, line.trim());
            at += line.len();
            if plain.starts_with('[') {
                inside = plain.starts_with("[databases]");
                if inside {
                    lines.end = Some(at);
                }
                continue;
            }
            if !inside || plain.is_empty() || plain.starts_with([';', '#', '%']) {
                continue;
            }
            lines.end = Some(at);
            let Some((left, right)) = line.split_once('=') else { continue };
            let plain = right.trim_start_matches([' ', '\t']);
            let begin = start + left.len() + 1 + right.len() - plain.len();
            let value = begin..begin + plain.trim_end().len();
            let name = left.trim();
            let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
            lines.lines.push(Line { name: name.replace("\"\"", "\""), value });
        }
        lines
    }
}

struct Line {
    name: String,
    value: Range<usize>,
}

struct Lines {
    lines: Vec<Line>,
    /// Where a further line goes.
    end: Option<usize>,
}

fn name(database: &str) -> String {
    let plain = database.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain { database.to_owned() } else { format!("\"{}\"", database.replace('"', "\"\"")) }
}

/// `key=value` pairs, blank between them; a value may stand in single quotes, doubled inside.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| format!("`{rest}` is no key=value"))?;
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('\'') {
            None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
            Some(quoted) => {
                let mut at = 0;
                loop {
                    let end = quoted[at..].find('\'').ok_or("a quote is opened and never closed")? + at;
                    if !quoted[end + 1..].starts_with('\'') {
                        break (&quoted[..end], &quoted[end + 1..]);
                    }
                    at = end + 2;
                }
            }
        };
        found.push((key.trim().to_owned(), value.replace("''", "'")));
        rest = next.trim_start();
    }
    Ok(found)
}

fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '\'' || c == '=');
    if plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "''")) }
}

/// Writes a changed configuration in place of `before`.
///
/// # Errors
/// If somebody changed it meanwhile, or it cannot be written.
pub fn repoint(path: &Path, before: &[u8], after: &[u8]) -> Result<(), SwitchError> {
    file::replace(path, before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = "; where to\n[databases]\n* = host=127.0.0.1 port=5432\napp = host=old  dbname='a b' ; no comment\n\
                        \"o\"\"dd\" = dbname=x\n\n[pgbouncer]\napp = 1\n";

    fn set(text: &str, database: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        let mut ini = Ini::parse(text.as_bytes()).unwrap();
        ini.set(database, &pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())?;
        Ok(ini.text)
    }

    #[test]
    fn one_line_changes() {
        let text = CONF.replace(" ; no comment", "");
        let changed = set(&text, "app", &[("host", "new"), ("connect_query", "SET search_path TO 'a'")]).unwrap();
        let line = "app = host=new dbname='a b' connect_query='SET search_path TO ''a'''";
        assert_eq!(changed, text.replace("app = host=old  dbname='a b'", line));
        assert_eq!(
            Ini::parse(changed.as_bytes()).unwrap().get("app").unwrap()["connect_query"],
            "SET search_path TO 'a'"
        );
        assert_eq!(set(&text, "o\"dd", &[("dbname", "y")]).unwrap(), text.replace("dbname=x", "dbname=y"));
    }

    #[test]
    fn database_without_a_line_gets_one_in_its_section() {
        let text = CONF.replace(" ; no comment", "");
        let changed = set(&text, "new", &[("host", "h")]).unwrap();
        assert_eq!(changed, text.replace("dbname=x\n", "dbname=x\nnew = host=h\n"));
        assert_eq!(set("a = host=b\r\n", "c", &[("host", "d")]).unwrap(), "a = host=b\r\nc = host=d\r\n");
        assert_eq!(set("[databases]\n", "c", &[("host", "d")]).unwrap(), "[databases]\nc = host=d\n");
    }

    #[test]
    fn what_is_in_doubt_is_refused() {
        assert!(set(CONF, "app", &[("host", "x")]).unwrap_err().contains("no key=value"));
        assert!(set("[pgbouncer]\n", "app", &[("host", "x")]).unwrap_err().contains("no section"));
        assert!(set("app = a=1\napp = a=2\n", "app", &[("a", "3")]).unwrap_err().contains("twice"));
        assert!(set("app = a='1\n", "app", &[("a", "3")]).unwrap_err().contains("never closed"));
        assert!(set("app = a=1\n", "app", &[("a", "3\n[pgbouncer]")]).unwrap_err().contains("line break"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_panic(text in proptest::prelude::any::<String>(), value in "[^\n\r\0]{0,12}") {
            if let Ok(changed) = set(&text, "app", &[("host", &value)]) {
                proptest::prop_assert_eq!(&Ini::parse(changed.as_bytes()).unwrap().get("app").unwrap()["host"], &value);
            }
        }
    }
}
