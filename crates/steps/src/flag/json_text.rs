//! Where the parts of a JSON text stand, so that one can be replaced and every other byte stays. Pure.
//!
//! The text was read by a real parser before: what is here only finds places, and never panics on anything.

use std::ops::Range;

/// A member of an object: its name, and where its value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub value: Range<usize>,
}

/// The members of the object that begins at `begin`, in order. Empty if there is none.
pub fn members(text: &str, begin: usize) -> Vec<Member> {
    let mut all = Vec::new();
    let mut at = blank(text, begin);
    if byte(text, at) != Some(b'{') {
        return all;
    }
    at = blank(text, at + 1);
    while byte(text, at) == Some(b'"') {
        let end = value_end(text, at);
        let name = text.get(at..end).and_then(|name| serde_json::from_str(name).ok()).unwrap_or_default();
        let colon = blank(text, end);
        if byte(text, colon) != Some(b':') {
            break;
        }
        let value = blank(text, colon + 1);
        let end = value_end(text, value);
        all.push(Member { name, value: value..end });
        at = blank(text, end);
        if byte(text, at) != Some(b',') {
            break;
        }
        at = blank(text, at + 1);
    }
    all
}

/// The elements of the array that begins at `begin`, in order. Empty if there is none.
pub fn elements(text: &str, begin: usize) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut at = blank(text, begin);
    if byte(text, at) != Some(b'[') {
        return all;
    }
    at = blank(text, at + 1);
    while at < text.len() && byte(text, at) != Some(b']') {
        let end = value_end(text, at);
        if end == at {
            break;
        }
        all.push(at..end);
        at = blank(text, end);
        if byte(text, at) != Some(b',') {
            break;
        }
        at = blank(text, at + 1);
    }
    all
}

/// The one member of this name of the object that begins at `begin`.
///
/// # Errors
/// If it is there several times: readers disagree on which counts.
pub fn member(text: &str, begin: usize, name: &str) -> Result<Option<Range<usize>>, String> {
    let mut found = members(text, begin).into_iter().filter(|member| member.name == name);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Ok(Some(one.value)),
        (Some(_), Some(_)) => Err(format!("`{name}` is there twice")),
    }
}

/// The text with these places replaced. They do not overlap.
pub fn replaced(text: &str, mut places: Vec<(Range<usize>, String)>) -> String {
    places.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut text = text.to_owned();
    for (range, new) in places {
        text.replace_range(range, &new);
    }
    text
}

/// The text with one more member behind the last of the object that begins at `begin`, on a line of its own where the
/// others have one.
pub fn with_member(text: &str, begin: usize, name: &str, value: &str) -> String {
    let all = members(text, begin);
    let name = serde_json::Value::from(name).to_string();
    let Some(last) = all.last() else {
        // After the bracket.
        let at = blank(text, begin) + 1;
        return replaced(text, vec![(at..at, format!("{name}: {value}"))]);
    };
    // What stands between two members, or between the bracket and the first.
    let first = all[0].value.start;
    let open = blank(text, begin) + 1;
    let gap: String = text[open..first].chars().take_while(|c| c.is_whitespace()).collect();
    let gap = if gap.is_empty() { " ".to_owned() } else { gap };
    replaced(text, vec![(last.value.end..last.value.end, format!(",{gap}{name}: {value}"))])
}

fn byte(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

fn blank(text: &str, mut at: usize) -> usize {
    while byte(text, at).is_some_and(|byte| byte.is_ascii_whitespace()) {
        at += 1;
    }
    at
}

/// The end of the value that begins at `at`.
fn value_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut in_string, mut end) = (0usize, false, at);
    while end < bytes.len() {
        let byte = bytes[end];
        if in_string {
            match byte {
                b'\\' => end += 1,
                b'"' => {
                    in_string = false;
                    if depth == 0 {
                        return end + 1;
                    }
                }
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return end,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return end + 1;
                    }
                }
                b',' if depth == 0 => return end,
                byte if depth == 0 && byte.is_ascii_whitespace() => return end,
                _ => {}
            }
        }
        end += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],:]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[\\PC\"\\\\{},:]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn places_are_those_that_a_parser_sees(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            match &value {
                Value::Object(map) => {
                    let found = members(&text, 0);
                    prop_assert_eq!(found.len(), map.len());
                    for member in found {
                        let part: Value = serde_json::from_str(&text[member.value.clone()]).unwrap();
                        prop_assert_eq!(Some(&part), map.get(&member.name));
                    }
                }
                Value::Array(all) => {
                    let found = elements(&text, 0);
                    let parts: Vec<Value> =
                        found.iter().map(|range| serde_json::from_str(&text[range.clone()]).unwrap()).collect();
                    prop_assert_eq!(&parts, all);
                }
                _ => prop_assert!(members(&text, 0).is_empty() && elements(&text, 0).is_empty()),
            }
        }

        #[test]
        fn member_more_is_a_member_more(value in json(), pretty in any::<bool>()) {
            if let Value::Object(mut map) = value {
                map.remove("new");
                let value = Value::Object(map.clone());
                let text =
                    if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
                map.insert("new".to_owned(), Value::from(1));
                let read: Value = serde_json::from_str(&with_member(&text, 0, "new", "1")).unwrap();
                prop_assert_eq!(read, Value::Object(map));
            }
        }

        #[test]
        fn any_text_is_looked_through(text in "\\PC{0,40}") {
            let _ = (members(&text, 0), elements(&text, 0));
        }
    }
}
