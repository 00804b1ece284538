//! A prefix of keys: what it matches, and which are too wide to be deleted.

use std::fmt;

/// The shortest prefix that is deleted by, in characters: `qa:`.
pub const SHORTEST: usize = 3;

/// A prefix, taken literally: `*` in it is a star.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(String);

impl Prefix {
    /// A prefix to look by.
    ///
    /// # Errors
    /// If it is empty: that is every key.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty prefix is every key".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// A prefix to delete by, or to bound a user by: one that says where it ends.
    ///
    /// # Errors
    /// If it is shorter than [`SHORTEST`], or does not end with `separator`.
    pub fn bounded(text: &str, separator: char) -> Result<Self, String> {
        let prefix = Self::parse(text)?;
        if text.ends_with('*') {
            return Err(format!(
                "a prefix is taken literally, and `{text}` would mean a star: write it without, ending with `{separator}`"
            ));
        }
        if !text.ends_with(separator) {
            return Err(format!("`{text}` does not end with `{separator}`: `{text}2` and the like would be meant too"));
        }
        if text.chars().count() < SHORTEST {
            return Err(format!("`{text}` is too wide: a prefix has at least {SHORTEST} characters"));
        }
        if text.chars().all(|one| one == separator) {
            return Err(format!("`{text}` names nothing: it is separators alone"));
        }
        Ok(prefix)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pattern of every key that begins with it, as `SCAN MATCH` and `ACL SETUSER` read it (`stringmatchlen` in
    /// <https://github.com/redis/redis/blob/7.0/src/util.c>): what would have a meaning there is escaped.
    pub fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.0.len() + 1);
        for one in self.0.chars() {
            if matches!(one, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(one);
        }
        pattern.push('*');
        pattern
    }

    /// Whether a key begins with it.
    pub fn covers(&self, key: &[u8]) -> bool {
        key.starts_with(self.0.as_bytes())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_would_read_is_escaped() {
        assert_eq!(Prefix::parse("stg:").unwrap().pattern(), "stg:*");
        assert_eq!(Prefix::parse("a*b?[c]\\:").unwrap().pattern(), "a\\*b\\?\\[c\\]\\\\:*");
    }

    #[test]
    fn a_prefix_that_is_too_wide_is_refused() {
        for text in ["", "*", "stg:*", "stg", "s:", ":::", "prod"] {
            assert!(Prefix::bounded(text, ':').is_err(), "{text}");
        }
        for text in ["qa:", "stg:", "a*b:"] {
            assert_eq!(Prefix::bounded(text, ':').unwrap().as_str(), text);
        }
    }
}
