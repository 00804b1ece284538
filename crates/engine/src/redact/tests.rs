use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn knowing(secrets: &[&str]) -> Redactor {
    let redactor = Redactor::new();
    for secret in secrets {
        redactor.learn(secret);
    }
    redactor
}

fn check(secrets: &[&str], text: &str, expected: &str) {
    assert_eq!(knowing(secrets).redact(text), expected, "{text}");
}

fn percent(text: &str, upper: bool) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if upper => format!("%{byte:02X}"),
        _ => format!("%{byte:02x}"),
    });
    encoded.collect()
}

/// The forms that are promised, each in surroundings that make it one.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
        percent(secret, true),
        percent(secret, false),
        percent(&percent(secret, true), true),
        json!(secret).to_string(),
        json!(json!(secret).to_string()).to_string(),
        pgrunbook_document::sql::quote::literal(secret).unwrap_or_default(),
        pgrunbook_document::sql::quote::ident(secret).unwrap_or_default(),
        format!("'{}'", secret.replace('\'', r"'\''")),
        secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
    ];
    for before in ["", "u", "us", "usr:", "é"] {
        for after in ["", "@", "@h", "@ho"] {
            forms.push(STANDARD.encode(format!("{before}{secret}{after}")));
            forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{secret}{after}")));
        }
    }
    // SQL has no form for a NUL byte.
    forms.retain(|form| !form.is_empty());
    forms
}

/// Whether something that was a secret can still be read in the text, as far as a reader would decode it.
fn survives(secret: &str, text: &str) -> bool {
    let unquoted = text.replace(r"\\", r"\").replace("\\\"", "\"");
    text.contains(secret) || unquoted.contains(secret) || text.contains(&percent(secret, true))
}

#[test]
fn known_secrets_are_found_in_every_form() {
    let secret = "p@ss'w\"ö\\rd/+ &1";
    let redactor = knowing(&[secret]);
    for form in forms(secret) {
        let clean = redactor.redact(&form).into_owned();
        assert!(clean.contains(MARK), "{form} -> {clean}");
        // At most the quotes, and what stood beside it in the base64.
        assert!(clean.len() <= MARK.len() + 8, "{form} -> {clean}");
    }
}

#[test]
fn text_without_a_secret_is_borrowed() {
    let redactor = knowing(&["hunter2"]);
    assert!(matches!(redactor.redact("nothing here"), Cow::Borrowed(_)));
}

#[test]
fn shapes_are_found_without_being_told() {
    check(&[], "postgres://app:hunter2@db/x", "postgres://app:***@db/x");
    check(&[], "host=db password=hunter2 user=a", "host=db password=*** user=a");
    check(&[], "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nb", "a\n***\nb");
    check(&[], "cut off: -----BEGIN PRIVATE KEY-----\nMIIE\n", "cut off: ***");
}

#[test]
fn a_short_secret_is_replaced_as_a_whole_word_only() {
    let redactor = Redactor::new();
    assert_eq!(redactor.learn("abc"), Learned::WholeWordsOnly);
    assert_eq!(redactor.learn(""), Learned::Nothing);
    assert_eq!(redactor.learn("\n"), Learned::Nothing);
    assert_eq!(redactor.learn("abcd\n"), Learned::Fully);
    assert_eq!(redactor.redact("pw abc, not abcx"), "pw ***, not abcx");
    assert_eq!(redactor.redact("xabcdx"), "x***x");
}

#[test]
fn overlapping_secrets_leave_nothing_of_either() {
    check(&["abcdef", "efghij"], "-abcdefghij-", "-***-");
    check(&["hunter2", "hunter2hunter2"], "hunter2hunter2", "***");
}

#[test]
fn a_long_secret_is_found_in_parts_too() {
    let secret: String = (0..600).map(|n| char::from(b'a' + u8::try_from(n * 7 % 26).unwrap())).collect();
    check(&[&secret], &format!("<{secret}>"), "<***>");
    let torn = knowing(&[&secret]).redact(&secret[..400]).into_owned();
    assert!(torn.len() < 200 && torn.contains(MARK), "{torn}");
}

#[test]
fn lines_of_a_secret_of_several_lines_are_secrets() {
    let redactor = knowing(&["first line of it\nsecond line\nx"]);
    assert_eq!(redactor.redact("1: first line of it\n2: second line"), "1: ***\n2: ***");
    assert_eq!(redactor.redact("first line of it\r\nsecond line\r\nx"), "***");
}

#[test]
fn json_is_redacted_in_strings_keys_numbers_and_by_the_name_of_the_field() {
    let redactor = knowing(&["hunter2", "12345678"]);
    let mut value = json!({
        "note": ["is hunter2"], "hunter2": null, "pin": 12345678, "rows": 1234, "password": "opensesame",
    });
    redactor.redact_value(&mut value);
    assert_eq!(value, json!({ "note": ["is ***"], "***": null, "pin": "***", "rows": 1234, "password": "***" }));
}

#[test]
fn clones_share_what_they_know() {
    let redactor = Redactor::new();
    let sink = redactor.clone();
    redactor.learn("hunter2");
    assert_eq!(sink.redact("hunter2"), MARK);
    assert_eq!(format!("{sink:?}"), "Redactor(1 secrets)");
}

#[test]
fn a_private_key_in_chunks_is_dropped() {
    let mut writer = RedactingWriter::new(Redactor::new(), Vec::new());
    for line in ["before\n", "-----BEGIN OPENSSH PRIV", "ATE KEY-----\n", "b3BlbnNz\n", "aC1rZXk\n", "-----END OPENSSH"]
    {
        writer.write_all(line.as_bytes()).unwrap();
    }
    writer.write_all(b" PRIVATE KEY-----\nafter\n").unwrap();
    assert_eq!(String::from_utf8(writer.finish().unwrap()).unwrap(), "before\n***\nafter\n");
}

#[test]
fn lines_are_passed_on_as_they_come() {
    let mut seen = Vec::new();
    let mut writer = RedactingWriter::new(knowing(&["hunter2"]), &mut seen);
    writer.write_all(b"one hunter2\ntwo hun").unwrap();
    writer.flush().unwrap();
    let sink = writer.sink.as_ref().unwrap();
    assert_eq!(sink.as_slice(), b"one ***\n");
    writer.write_all(b"ter2").unwrap();
    drop(writer);
    assert_eq!(String::from_utf8(seen).unwrap(), "one ***\ntwo ***");
}

#[test]
fn a_line_without_end_is_passed_on_in_parts() {
    let mut writer = RedactingWriter::new(knowing(&["hunter2"]), Vec::new());
    let chunk = "é".repeat(5_000) + "hunter2";
    for _ in 0..40 {
        writer.write_all(chunk.as_bytes()).unwrap();
        assert!(writer.held.len() < 300_000);
    }
    let clean = String::from_utf8(writer.finish().unwrap()).unwrap();
    assert_eq!(clean, ("é".repeat(5_000) + MARK).repeat(40));
}

fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{4,40}",
        "[a-z'\"\\\\/%+&<> \n\t]{4,20}",
        proptest::collection::vec(any::<char>(), 4..12).prop_map(|chars| chars.into_iter().collect()),
    ]
    // The mark itself, and what the surroundings of the tests hold, cannot be told from a secret.
    .prop_filter("no line end behind it", |secret: &String| {
        secret.trim_end_matches(['\r', '\n']).len() == secret.len() && !secret.contains("***")
    })
}

proptest! {
    #[test]
    fn no_known_secret_survives_in_any_form(secret in secret(), before in "[ -~]{0,12}", after in "[ -~]{0,12}") {
        let redactor = knowing(&[&secret]);
        for form in forms(&secret) {
            let text = format!("{before} {form} {after}");
            let clean = redactor.redact(&text);
            prop_assert!(clean.contains(MARK), "{} -> {}", text, clean);
            prop_assert!(!survives(&secret, &clean), "{} -> {}", text, clean);
            prop_assert!(!clean.contains(&form), "{} -> {}", text, clean);
        }
    }

    #[test]
    fn no_known_secret_survives_any_split(
        secret in secret(),
        form in any::<prop::sample::Index>(),
        lines in proptest::collection::vec("[ -~]{0,20}", 1..6),
        cuts in proptest::collection::vec(1_usize..9, 1..40),
    ) {
        let forms = forms(&secret);
        let form = form.get(&forms);
        let text = lines.join(&format!("{form}\n"));
        let mut writer = RedactingWriter::new(knowing(&[&secret]), Vec::new());
        let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            writer.write_all(chunk).unwrap();
            rest = behind;
        }
        let clean = String::from_utf8(writer.finish().unwrap()).unwrap();
        prop_assert!(!survives(&secret, &clean), "{} -> {}", text, clean);
        prop_assert_eq!(clean, knowing(&[&secret]).redact(&text));
    }
}
