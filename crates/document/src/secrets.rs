//! Literal secrets in a text: found by their place or their shape, told by their kind, never by their value.
//!
//! A false alarm costs trust, so placeholders (`<redacted>`, `***`, `$VAR`, `env:NAME`, `...`) are none, and a value is
//! only suspected for its randomness where a name beside it says that it is secret.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// A literal secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The value itself, without quotes. Not to be printed.
    pub range: Range<usize>,
    /// What it is: `a password in a URL`.
    pub what: &'static str,
}

/// Every literal secret of a text, in order, none inside another.
pub fn find(text: &str) -> Vec<Secret> {
    let mut found: Vec<Secret> = PATTERNS
        .iter()
        .flat_map(|pattern| {
            pattern.regex.captures_iter(text).filter_map(|captures| {
                let value = captures.iter().skip(1).flatten().next().or_else(|| captures.get(0))?;
                let value = unquoted(value.as_str(), value.start());
                (!is_placeholder(&text[value.clone()]) && (pattern.suspects)(&text[value.clone()]))
                    .then_some(Secret { range: value, what: pattern.what })
            })
        })
        .collect();
    found.sort_by_key(|secret| (secret.range.start, std::cmp::Reverse(secret.range.end)));
    let mut end = 0;
    found.retain(|secret| {
        let outside = secret.range.start >= end;
        end = end.max(secret.range.end);
        outside
    });
    found
}

/// A kind of secret. The first group that took part in the match is the value, else the whole match.
struct Pattern {
    what: &'static str,
    regex: Regex,
    /// Whether a value that stands there is one, given that it is no placeholder.
    suspects: fn(&str) -> bool,
}

/// A value after a name: quoted, or bare up to what may end one in a shell, a connection string or a URL.
const VALUE: &str = r#"("[^"\n]+"|'[^'\n]+'|[^\s'"`,;&|)}\]]+)"#;

static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let password = r"(?i)(?:password|passwd|passphrase|pwd)";
    let named = r"(?i)(?:secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|credentials?)";
    [
        ("a private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----".to_owned(), always as fn(&str) -> bool),
        ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{22,}\b".to_owned(), always),
        ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}".to_owned(), always),
        ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b".to_owned(), always),
        (
            "a Slack token",
            r"\bxox[abeprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]{16,}"
                .to_owned(),
            always,
        ),
        ("a Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}\b".to_owned(), always),
        ("a Supabase token", r"\bsbp_[A-Za-z0-9]{32,}\b|\bsb_secret_[A-Za-z0-9_-]{20,}".to_owned(), always),
        ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}".to_owned(), always),
        ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b".to_owned(), always),
        ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}".to_owned(), always),
        ("a password in a URL", r#"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@"'`<>]*:([^\s/@"'`]+)@"#.to_owned(), always),
        ("a password in SQL", r"(?i)\bpassword\s+e?'((?:[^'\n]|'')+)'".to_owned(), always),
        ("a password", format!("{password}={VALUE}"), always),
        ("a password", format!(r#"{password}["']?\s*[:=]\s*("[^"\n]+"|'[^'\n]+')"#), always),
        ("a password", format!(r"{password}\s*:\s+([^\s'`,]+)\s*$").replace("(?i)", "(?im)"), looks_random),
        ("a secret", format!(r#"{named}["']?\s*[:=]\s*{VALUE}"#), looks_random),
    ]
    .into_iter()
    .map(|(what, regex, suspects)| Pattern {
        what,
        regex: Regex::new(&regex).expect("the patterns are constants, and a test compiles them"),
        suspects,
    })
    .collect()
});

fn always(_: &str) -> bool {
    true
}

/// Whether a value has more variety than words have: at least 16 characters with letters and digits, and as many bits
/// a character as random hexadecimal digits (3.0) or random letters (3.5) of that length rarely fall below.
fn looks_random(value: &str) -> bool {
    const LEAST_CHARS: usize = 16;
    let mixed = value.bytes().any(|b| b.is_ascii_digit()) && value.bytes().any(|b| b.is_ascii_alphabetic());
    let one_word = !value.contains(char::is_whitespace) && !value.contains(['/', '(']) || value.ends_with('=');
    let hex = value.bytes().all(|b| b.is_ascii_hexdigit());
    value.len() >= LEAST_CHARS && mixed && one_word && entropy(value) >= if hex { 3.0 } else { 3.5 }
}

/// Shannon's entropy of a text's bytes, in bits a byte.
fn entropy(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let length = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|share| -share * share.log2())
        .sum()
}

/// The range of a value without the quotes around it.
fn unquoted(value: &str, start: usize) -> Range<usize> {
    let quoted = value.len() >= 2 && value.starts_with(['"', '\'']) && value.ends_with(&value[..1]);
    let edge = usize::from(quoted);
    start + edge..start + value.len() - edge
}

/// Whether a value only stands for one: a reference, a mark, or the name of its own place.
fn is_placeholder(value: &str) -> bool {
    static MARKS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(?i)^(?:",
            r"[^a-z0-9]*",             // ***, ..., ____
            r"|(.?)[x]+",              // xxxx
            r"|.*[<>{}\[\]…].*",       // <redacted>, ${VAR}, {{ pw }}, [TOKEN]
            r"|.*\*{3,}.*|.*\.{3,}.*", // sk-***, abc...
            r"|[$%:@].*",              // $VAR, %s, :'pw', @file
            r"|(?:env|file|cmd|vault|op|ref|secretref)(?::.*)",
            r"|(?:your|my|the|some|new|old)?[-_ ]?",
            r"(?:db|pg|postgres|database|admin|app|user|root)?[-_ ]?",
            r"(?:password|passwd|pass|pwd|pw|passphrase|secret|token|api[-_]?key|key)(?:[-_ ]?here)?",
            r"|redacted|hidden|masked|placeholder|dummy|todo|fixme|none|null|nil|true|false|unset|empty",
            r")$|redacted|example|placeholder",
        ))
        .expect("a constant, and a test compiles it")
    });
    let upper_case_name = value.len() > 1 && value.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    upper_case_name || MARKS.is_match(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, and the value that the range points at.
    fn check(text: &str, expected: &[(&str, &str)]) {
        let found: Vec<_> = find(text).into_iter().map(|secret| (secret.what, &text[secret.range])).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn passwords_are_found_where_they_stand() {
        check("postgres://app:hunter2@db/x", &[("a password in a URL", "hunter2")]);
        check("redis://:p4ss@cache:6379", &[("a password in a URL", "p4ss")]);
        check("ALTER ROLE a PASSWORD 'it''s'", &[("a password in SQL", "it''s")]);
        check("create role a encrypted password E'changeme'", &[("a password in SQL", "changeme")]);
        check("PGPASSWORD=hunter2 psql", &[("a password", "hunter2")]);
        check("PGPASSWORD='hunter2' psql", &[("a password", "hunter2")]);
        check("host=db password=hunter2 user=a", &[("a password", "hunter2")]);
        check("https://x/?password=hunter2&a=b", &[("a password", "hunter2")]);
        check("password = \"hunter2\"", &[("a password", "hunter2")]);
        check("\"password\": \"hunter2\"", &[("a password", "hunter2")]);
        check("POSTGRES_PASSWORD=changeme", &[("a password", "changeme")]);
    }

    #[test]
    fn tokens_are_found_by_their_shape() {
        // Put together here, so that no scanner of repositories takes them for real ones.
        for (what, parts) in [
            ("a GitHub token", ["ghp_", "0123456789abcdefghijABCDEFGHIJ012345"]),
            ("a GitHub token", ["github_pat_", "11AAAAAAA0abcdefghijklmnop"]),
            ("a GitLab token", ["glpat-", "abcdefghij0123456789"]),
            ("an AWS access key", ["AKIA", "ABCDEFGHIJKLMN23"]),
            ("a Slack token", ["xoxb-", "123456789012-abcdefghij"]),
            ("a Stripe key", ["sk_live_", "abcdefghijklmnop1234"]),
            ("a Supabase token", ["sbp_", "0123456789abcdef0123456789abcdef01234567"]),
            ("a Google API key", ["AIza", "SyA1234567890abcdefghijklmnopqrstuv"]),
            ("a JSON web token", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIi", "OiIxMjM0NTY3ODkwIn0.abcdefghijklm"]),
            ("a private key", ["-----BEGIN OPENSSH ", "PRIVATE KEY-----"]),
        ] {
            let token = parts.concat();
            check(&format!("use {token} here"), &[(what, &token)]);
            check(&format!("TOKEN={token}"), &[(what, &token)]);
        }
    }

    #[test]
    fn random_values_are_found_beside_a_name() {
        check("API_KEY=9f86d081884c7d659a2feaa0c55ad015", &[("a secret", "9f86d081884c7d659a2feaa0c55ad015")]);
        check("client_secret: \"Zk9v2Qw7LpX4mT8rBn3c\"", &[("a secret", "Zk9v2Qw7LpX4mT8rBn3c")]);
        check("digest = \"9f86d081884c7d659a2feaa0c55ad015\"", &[]);
        check("token = \"schema-version-of-the-app\"", &[]);
    }

    #[test]
    fn placeholders_are_no_secrets() {
        for text in [
            "postgres://user:***@db/x",
            "postgres://user:$PASSWORD@db/x",
            "postgres://user:${PASSWORD}@db/x",
            "postgres://user:<password>@db/x",
            "postgres://user:password@db/x",
            "PGPASSWORD='<redacted-password>' psql",
            "PGPASSWORD='PASSWORD' psql",
            "PGPASSWORD=\"$PW\" psql",
            "SUPABASE_ACCESS_TOKEN=<redacted-token>",
            "password = \"env:PGPASSWORD\"",
            "password=... and PASSWORD '...'",
            "ALTER ROLE a PASSWORD :'pw'",
            "ALTER ROLE a PASSWORD NULL",
            "password_encryption = 'scram-sha-256'",
            "password=xxxxxxxx",
            "API_KEY=AKIAIOSFODNN7EXAMPLE",
            "the password: ask the owner",
            "passwords from `~/.pgpass`",
            "`PGPASSWORD=`",
            "secret = \"file:/run/secrets/9f86d081884c7d659a2feaa0c55ad015\"",
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn one_secret_is_told_once() {
        let found = find("password=postgres://app:hunter2@db/x");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn long_texts_are_read_in_linear_time() {
        let text = "password password= a://b:".repeat(20_000);
        let before = std::time::Instant::now();
        find(&text);
        assert!(before.elapsed().as_secs() < 20, "took {:?}", before.elapsed());
    }
}
