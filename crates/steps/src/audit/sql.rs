//! SQL text of what mends a finding. Every name goes through [`quote`].

use pgrunbook_postgres::quote;

/// A name; the catalog's hold no NUL.
pub fn ident(name: &str) -> String {
    quote::ident(&name.replace('\0', "")).expect("NUL was taken out")
}

/// A value.
pub fn literal(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}

/// `schema.name`
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// The names of a `search_path` as settings keep it: `"$user", public`.
pub fn names_of_path(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut end = 0;
                loop {
                    match quoted[end..].find('"') {
                        Some(at) if quoted[end + at + 1..].starts_with('"') => end += at + 2,
                        Some(at) => break end += at,
                        None => break end = quoted.len(),
                    }
                }
                (quoted[..end].replace("\"\"", "\""), quoted.get(end + 1..).unwrap_or_default())
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_lowercase(), &rest[end..])
            }
        };
        names.push(name);
        rest = after.trim_start().strip_prefix(',').unwrap_or_default().trim_start();
    }
    names
}

/// The names of a `search_path`, as `SET` takes it.
pub fn path(names: &[String]) -> String {
    // `SET search_path = ` needs something: an empty text is the empty path.
    if names.is_empty() {
        return "''".to_owned();
    }
    names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")
}

/// Whether a name is one of a pattern with `*`.
pub fn is_like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| is_like(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_taken_apart() {
        for (text, names) in [
            ("", vec![]),
            ("\"\"", vec![""]),
            ("health, shared,public", vec!["health", "shared", "public"]),
            ("\"$user\", \"a, \"\"b\"\"\", Public", vec!["$user", "a, \"b\"", "public"]),
        ] {
            assert_eq!(names_of_path(text), names, "{text}");
        }
    }

    #[test]
    fn a_pattern_stands_for_names() {
        assert!(is_like("butler_*", "butler_health") && is_like("*", "x") && is_like("a*c*", "abcd"));
        assert!(!is_like("butler_*", "butlers") && !is_like("a", "ab") && !is_like("*b", "abc"));
    }
}
