//! The forms in which a secret leaves a program, as regular expressions.
//!
//! One expression takes each character in any of its encodings, so that a text that is encoded only in part, in other
//! hexadecimal digits, or twice (`%2525`, `\\\"`) is found too. Base64 mixes neighbouring bytes, so it has an
//! expression for each of the three places at which a secret may begin in a group of three bytes.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use regex::{Regex, RegexBuilder};

use super::SHORTEST;

/// A longer secret is looked for in pieces: expressions stay small, and a torn-off part is found as well.
const PIECE: usize = 192;

/// Lines of a secret of several lines that are at least this long are secrets of their own: logs cut at line ends.
const LINE: usize = 8;

/// Every form of a secret that is not empty.
pub(super) fn all(secret: &str) -> Vec<Regex> {
    if secret.len() < SHORTEST {
        return vec![compiled(&whole_word(secret))];
    }
    let mut texts = pieces(secret);
    if secret.contains('\n') {
        texts.extend(secret.lines().filter(|line| line.len() >= LINE).flat_map(pieces));
    }
    texts.iter().map(|piece| compiled(&every_form(piece))).collect()
}

/// Parts of nearly equal length, none longer than [`PIECE`] but for a character cut in two.
fn pieces(text: &str) -> Vec<&str> {
    let count = text.len().div_ceil(PIECE).max(1);
    let length = text.len().div_ceil(count);
    let (mut parts, mut rest) = (Vec::new(), text);
    while rest.len() > length {
        let cut = (length..rest.len()).find(|byte| rest.is_char_boundary(*byte)).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(cut);
        parts.push(part);
        rest = behind;
    }
    // What is left is too short to be looked for alone only if the text was.
    match parts.last_mut() {
        Some(last) if rest.len() < SHORTEST => *last = &text[text.len() - rest.len() - last.len()..],
        _ => parts.push(rest),
    }
    parts
}

fn compiled(pattern: &str) -> Regex {
    RegexBuilder::new(pattern)
        .size_limit(1 << 26)
        .build()
        .expect("pieces are bounded and every character is escaped; a property test compiles any text")
}

fn whole_word(secret: &str) -> String {
    // An edge that is no letter or digit is an edge of the word by itself.
    let edge = |c: Option<char>| if c.is_some_and(char::is_alphanumeric) { r"\b" } else { "" };
    format!("{}{}{}", edge(secret.chars().next()), regex::escape(secret), edge(secret.chars().last()))
}

fn every_form(text: &str) -> String {
    let mut pattern: String = text.chars().map(character).collect();
    let _ = write!(pattern, "|(?i:{})", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    for before in 0..3 {
        let _ = write!(pattern, "|{}", base64(text, before));
    }
    pattern
}

/// A character in any of its encodings, the longer ones first.
fn character(c: char) -> String {
    let mut pattern = String::from("(?:");
    let mut buffer = [0; 4];
    for byte in c.encode_utf8(&mut buffer).bytes() {
        let _ = write!(pattern, "%(?:25)*(?i:{byte:02x})");
    }
    pattern.push('|');
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(pattern, r"\\+u(?i:{unit:04x})");
    }
    let special = match c {
        // An escaped one may stand in a text that is escaped again.
        '"' => r#"\\+"|""|&quot;|"#,
        '\'' => r"'\\+''|\\+'|''|&#39;|&#x27;|",
        '\\' => r"\\+|",
        '/' => r"\\+/|",
        '\n' => r"\\+n|\r\n|",
        '\r' => r"\\+r|",
        '\t' => r"\\+t|",
        '\u{8}' => r"\\+b|",
        '\u{c}' => r"\\+f|",
        ' ' => r"\+|",
        '&' => "&amp;|",
        '<' => "&lt;|",
        '>' => "&gt;|",
        _ => "",
    };
    let _ = write!(pattern, "|{special}{})", regex::escape(c.encode_utf8(&mut buffer)));
    pattern
}

/// What is the same in the base64 of any text in which this one stands `before` bytes (modulo three) from the start,
/// and one character to each side, in which bits of it are.
fn base64(text: &str, before: usize) -> String {
    const ANY: &str = "[A-Za-z0-9+/_-]?";
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(text.as_bytes());
    let encoded = STANDARD_NO_PAD.encode(&bytes);
    let stable = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
    let mut pattern = String::from(if before == 0 { "" } else { ANY });
    for c in encoded[stable].chars() {
        match c {
            '+' => pattern.push_str("(?:[+-]|%2[Bb])"),
            '/' => pattern.push_str(r"(?:\\*[/_]|%2[Ff])"),
            c => pattern.push(c),
        }
    }
    pattern + ANY + "(?:=|%3[Dd]){0,2}"
}
