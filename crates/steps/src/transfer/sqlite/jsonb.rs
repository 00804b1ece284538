//! What two texts of one `jsonb` value have in common: PostgreSQL sorts keys, drops double ones, and spells anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How deep values may be nested.
const DEEPEST: usize = 200;

/// One text, valid JSON, for all texts of the same `jsonb` value; `None` for what is no JSON.
///
/// Objects by key, the last of double ones; strings without escapes that need none; numbers as digits and an exponent.
/// `1.0` and `1.00` count as one number, as `jsonb` compares them.
pub fn common(text: &str) -> Option<String> {
    let mut reader = Reader { rest: text };
    let mut out = String::with_capacity(text.len());
    reader.value(&mut out, 0)?;
    reader.blank();
    reader.rest.is_empty().then_some(out)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn takes(&mut self, what: char) -> bool {
        self.blank();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        self.blank();
        match self.rest.chars().next()? {
            '{' => self.object(out, depth),
            '[' => self.array(out, depth),
            '"' => {
                let text = self.string()?;
                out.push_str(&serde_json::to_string(&text).ok()?);
                Some(())
            }
            't' | 'f' | 'n' => {
                let word = ["true", "false", "null"].into_iter().find(|word| self.rest.starts_with(word))?;
                self.rest = &self.rest[word.len()..];
                out.push_str(word);
                Some(())
            }
            _ => self.number(out),
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Option<()> {
        self.takes('{');
        let mut members = BTreeMap::new();
        if !self.takes('}') {
            loop {
                self.blank();
                let key = self.string()?;
                if !self.takes(':') {
                    return None;
                }
                let mut value = String::new();
                self.value(&mut value, depth + 1)?;
                members.insert(key, value);
                if self.takes('}') {
                    break;
                }
                if !self.takes(',') {
                    return None;
                }
            }
        }
        out.push('{');
        for (at, (key, value)) in members.into_iter().enumerate() {
            out.push_str(if at > 0 { "," } else { "" });
            out.push_str(&serde_json::to_string(&key).ok()?);
            let _ = write!(out, ":{value}");
        }
        out.push('}');
        Some(())
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Option<()> {
        self.takes('[');
        out.push('[');
        if !self.takes(']') {
            loop {
                self.value(out, depth + 1)?;
                if self.takes(']') {
                    break;
                }
                if !self.takes(',') {
                    return None;
                }
                out.push(',');
            }
        }
        out.push(']');
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let mut escaped = false;
        let inside = self.rest.strip_prefix('"')?;
        let end = inside.char_indices().find_map(|(at, c)| match c {
            _ if escaped => {
                escaped = false;
                None
            }
            '\\' => {
                escaped = true;
                None
            }
            '"' => Some(at),
            _ => None,
        })?;
        let (text, rest) = self.rest.split_at(end + 2);
        self.rest = rest;
        serde_json::from_str(text).ok()
    }

    fn number(&mut self, out: &mut String) -> Option<()> {
        let end = self.rest.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let short = all.trim_end_matches('0');
        let dropped = i64::try_from(all.len() - short.len()).ok()?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
        match short.trim_start_matches('0') {
            "" => out.push('0'),
            digits => {
                let _ = write!(out, "{sign}{digits}e{exponent}");
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::common;

    #[test]
    fn texts_of_one_value_have_one_form() {
        for (one, other) in [
            (r#"{"b": 1, "a": [1.0, 2e2]}"#, r#"{"a":[1,200],"b":1.00}"#),
            (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#),
            (r#""\u00e9\n""#, "\"é\\n\""),
            ("-0", "0.00"),
            ("1000", "1e3"),
        ] {
            assert!(common(one).is_some(), "{one}");
            assert_eq!(common(one), common(other), "{one} and {other}");
        }
        assert_eq!(common(r#"{"b": [1, []], "a": {}}"#).unwrap(), r#"{"a":{},"b":[1e0,[]]}"#);
        assert_ne!(common("10"), common("1"));
        assert_ne!(common(r#""1""#), common("1"));
        assert_ne!(common("[[1],2]"), common("[[1,2]]"));
        for wrong in ["", "{", "[1", "\"a", "1 2", "{1:2}", "tru"] {
            assert_eq!(common(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,60}") {
            let _ = common(&text);
        }
    }
}
