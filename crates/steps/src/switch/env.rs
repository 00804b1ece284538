//! Env files: `KEY=value` lines, of which one value is replaced and every other byte stays.

use std::ops::Range;

/// One assignment of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assignment<'t> {
    name: &'t str,
    /// With its quotes.
    value: Range<usize>,
    /// From 1.
    line: usize,
}

/// Replaces the value of `name`, or adds a line at the end. Quotes, `export`, comments and line endings stay as they are.
///
/// # Errors
/// If the value cannot be written on one line, or the file's assignment cannot be read without doubt.
pub(super) fn set(text: &str, name: &str, value: &str) -> Result<String, String> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(format!("the value of {name} has a line break or a NUL byte, which no line of an env file holds"));
    }
    if !is_name(name) {
        return Err(format!("{name:?} is no name of a variable"));
    }
    let found: Vec<Assignment<'_>> = assignments(text)?.into_iter().filter(|one| one.name == name).collect();
    match found.as_slice() {
        [] => {
            let ending = if text.contains("\r\n") { "\r\n" } else { "\n" };
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { ending };
            Ok(format!("{text}{gap}{name}={}{ending}", written(value, "")))
        }
        [one] => {
            let written = written(value, &text[one.value.clone()]);
            Ok(format!("{}{written}{}", &text[..one.value.start], &text[one.value.end..]))
        }
        [first, second, ..] => Err(format!(
            "{name} is set twice, in lines {} and {}: which of them counts depends on the reader",
            first.line, second.line
        )),
    }
}

/// What a variable is set to, without quotes.
pub(super) fn value(text: &str, name: &str) -> Result<Option<String>, String> {
    let found = assignments(text)?.into_iter().rfind(|one| one.name == name);
    Ok(found.map(|one| unquoted(&text[one.value])))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn assignments(text: &str) -> Result<Vec<Assignment<'_>>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line = text[..at].matches('\n').count() + 1;
        let end = text[at..].find('\n').map_or(text.len(), |length| at + length + 1);
        let Some((name, start)) = name_in(text, at, end) else {
            at = end;
            continue;
        };
        let (value, next) = value_at(text, start).map_err(|why| format!("line {line}: {why}"))?;
        found.push(Assignment { name, value, line });
        at = next;
    }
    Ok(found)
}

/// The name that a line assigns to, and where its value begins.
fn name_in(text: &str, at: usize, end: usize) -> Option<(&str, usize)> {
    let (left, _) = text[at..end].split_once('=')?;
    let name = left.trim();
    let name = name.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(name).trim();
    if !is_name(name) {
        return None;
    }
    let start = at + left.len() + 1;
    let blanks = text[start..end].len() - text[start..end].trim_start_matches([' ', '\t']).len();
    Some((name, start + blanks))
}

/// The value that begins at `start`, and where the next line begins. A quoted one may go over several lines.
fn value_at(text: &str, start: usize) -> Result<(Range<usize>, usize), &'static str> {
    let rest = &text[start..];
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
    let Some(quote) = quote else {
        let line = rest.split('\n').next().unwrap_or_default();
        let mut end = line.len();
        let comment = line.char_indices().find(|(at, c)| *c == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])));
        if let Some((at, _)) = comment {
            end = at;
        }
        let end = line[..end].trim_end().len();
        let next = rest.find('\n').map_or(text.len(), |length| start + length + 1);
        return Ok((start..start + end, next));
    };
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => {
                let end = start + at + 1;
                let tail = text[end..].split('\n').next().unwrap_or_default();
                let after = tail.trim();
                if !(after.is_empty() || after.starts_with('#')) {
                    return Err("the value is written in several parts, which cannot be replaced without doubt");
                }
                return Ok((start..end, (end + tail.len() + 1).min(text.len())));
            }
            _ => {}
        }
    }
    Err("a quote is opened and never closed")
}

fn unquoted(raw: &str) -> String {
    match raw.as_bytes() {
        [b'\'', .., b'\''] => raw[1..raw.len() - 1].to_owned(),
        [b'"', .., b'"'] => {
            let mut text = String::new();
            let mut chars = raw[1..raw.len() - 1].chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => text.extend(chars.next()),
                    c => text.push(c),
                }
            }
            text
        }
        _ => raw.to_owned(),
    }
}

/// As the old value was quoted, where the new one can be; else in the quotes that every reader takes literally.
fn written(value: &str, old: &str) -> String {
    // What a shell, `docker --env-file` and the dotenv libraries all read as itself.
    let plain = !value.is_empty()
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:@%+,=?~".contains(c))
        && !value.starts_with('~');
    let single = !value.contains('\'');
    let double = !value.contains(['"', '\\', '$', '`']);
    match old.chars().next() {
        Some('\'') if single => format!("'{value}'"),
        Some('"') if double => format!("\"{value}\""),
        Some('\'' | '"') => quoted(value, single, double),
        _ if plain || value.is_empty() => value.to_owned(),
        _ => quoted(value, single, double),
    }
}

fn quoted(value: &str, single: bool, double: bool) -> String {
    match (single, double) {
        (true, _) => format!("'{value}'"),
        (false, true) => format!("\"{value}\""),
        (false, false) => {
            let mut text = String::from("\"");
            for c in value.chars() {
                if matches!(c, '"' | '\\' | '$' | '`') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('"');
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_value_changes_and_every_other_byte_stays() {
        let cases = [
            ("A=1\nB=2 # two\n", "B", "3", "A=1\nB=3 # two\n"),
            ("export URL=\"a b\"\r\nX='1'\r\n", "URL", "c", "export URL=\"c\"\r\nX='1'\r\n"),
            ("URL='old' # why\n", "URL", "p$q", "URL='p$q' # why\n"),
            ("URL='old'\n", "URL", "it's", "URL=\"it's\"\n"),
            ("URL=old\n", "URL", "a b", "URL='a b'\n"),
            ("URL=\"a\nb\" # two lines\nX=1\n", "URL", "c", "URL=\"c\" # two lines\nX=1\n"),
            ("  KEY = v \n", "KEY", "w", "  KEY = w \n"),
            ("#KEY=1\nKEYS=2", "KEY", "3", "#KEY=1\nKEYS=2\nKEY=3\n"),
            ("A=1\r\n", "B", "x y", "A=1\r\nB='x y'\r\n"),
            ("", "B", "", "B=\n"),
            ("B=\n", "B", "1", "B=1\n"),
            ("B=a#b\n", "B", "1", "B=1\n"),
            ("Ä=ü\nB=ü # ö\n", "B", "é", "Ä=ü\nB='é' # ö\n"),
        ];
        for (text, name, value, wanted) in cases {
            assert_eq!(set(text, name, value).as_deref(), Ok(wanted), "{text:?}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_refused() {
        for (text, name, value, why) in [
            ("A=1\nA=2\n", "A", "3", "lines 1 and 2"),
            ("A='x'\"y\"\n", "A", "3", "several parts"),
            ("A='x\n", "A", "3", "never closed"),
            ("A=1\n", "A", "3\n4", "line break"),
            ("A=1\n", "A B", "3", "no name"),
        ] {
            let error = set(text, name, value).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_again(old in "[^\n\r\0]{0,20}", value in "[^\n\r\0]{0,20}", name in "[A-Z]{1,4}") {
            let text = format!("# first\nOTHER_ONE=1\n{name}={old}\nLAST_ONE='2'\n");
            if let Ok(changed) = set(&text, &name, &value) {
                prop_assert_eq!(super::value(&changed, &name).unwrap(), Some(value));
                prop_assert!(changed.starts_with("# first\nOTHER_ONE=1\n"));
                prop_assert!(changed.ends_with("LAST_ONE='2'\n"));
            }
        }

        #[test]
        fn no_text_is_a_panic(text in any::<String>(), value in any::<String>()) {
            let _ = set(&text, "KEY", &value);
        }
    }
}
