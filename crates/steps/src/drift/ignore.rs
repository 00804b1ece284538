//! What is not compared.

use super::error::DriftError;

/// Patterns of kinds and names: `grant:*`, `table:audit.*`, `schema:cron`. What stands on a thing that is ignored is ignored with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore(Vec<(String, String)>);

impl Ignore {
    /// What is ignored always: this program's own schema.
    pub fn standard() -> Self {
        Self(vec![("schema".to_owned(), "pgrunbook".to_owned())])
    }

    /// Adds a pattern; `*` stands for any text.
    ///
    /// # Errors
    /// Without a colon, or of a kind that there is not.
    pub fn add(&mut self, pattern: &str) -> Result<(), DriftError> {
        let refuse = |why: String| DriftError::Pattern { pattern: pattern.to_owned(), why };
        let (kind, name) = pattern.split_once(':').ok_or_else(|| refuse("it has no colon".to_owned()))?;
        if !kind.contains('*') && !super::KINDS.contains(&kind) {
            return Err(refuse(format!("there is no kind `{kind}`")));
        }
        self.0.push((kind.to_owned(), name.to_owned()));
        Ok(())
    }

    pub(super) fn matches(&self, kind: &str, identity: &str) -> bool {
        self.0.iter().any(|(kinds, names)| like(kinds, kind) && like(names, identity))
    }
}

/// Whether a text is as a pattern with `*` says.
fn like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, is) in [
            ("a.*", "a.b", true),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("a", "ab", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(like(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn kind_that_there_is_not_is_refused() {
        let mut ignore = Ignore::default();
        assert!(ignore.add("tabel:x").unwrap_err().to_string().contains("there is no kind `tabel`"));
        assert!(ignore.add("x").is_err());
        ignore.add("table:audit.*").unwrap();
        assert!(ignore.matches("table", "audit.log") && !ignore.matches("view", "audit.log"));
    }
}
