//! SSH signatures (SSHSIG), and who may make them (`allowed_signers`): what `ssh-keygen -Y sign` and `-Y verify` do, offline.
//!
//! See <https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig> and ssh-keygen(1), ALLOWED SIGNERS.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the key cannot be read: {0}")]
    Key(String),
    #[error("the key is encrypted: sign with `ssh-keygen -Y sign`, which asks for its passphrase")]
    Encrypted,
    #[error("the signature cannot be read: {0}")]
    Unreadable(String),
    #[error("the signature was made for `{0}`, not for this")]
    Namespace(String),
    #[error("the signature is not one over this text")]
    Wrong,
    #[error("{principal} is not allowed to sign with this key ({key})")]
    NotAllowed { principal: String, key: String },
    #[error("{principal} may not sign with this key at this time ({key})")]
    NotNow { principal: String, key: String },
    #[error("line {line} of allowed_signers cannot be read: {why}")]
    Signers { line: usize, why: String },
}

/// Signs a text with a private key in OpenSSH's format. Returns the armored signature.
///
/// # Errors
/// If the key is none, is encrypted, or of a kind that cannot sign here (hardware keys).
pub fn sign(namespace: &str, text: &[u8], private_key: &str) -> Result<String, SignatureError> {
    let key = PrivateKey::from_openssh(private_key).map_err(|error| SignatureError::Key(error.to_string()))?;
    if key.is_encrypted() {
        return Err(SignatureError::Encrypted);
    }
    let signature =
        key.sign(namespace, HashAlg::Sha512, text).map_err(|error| SignatureError::Key(error.to_string()))?;
    signature.to_pem(LineEnding::LF).map_err(|error| SignatureError::Key(error.to_string()))
}

/// Checks a signature by the key that it carries. Returns that key's fingerprint: whose it is, is another question.
///
/// # Errors
/// If it is none, for another purpose, or not over this text.
pub fn check(namespace: &str, text: &[u8], signature: &str) -> Result<String, SignatureError> {
    let (key, _) = checked(namespace, text, signature)?;
    Ok(fingerprint(&key))
}

/// Checks a signature, and that `principal` may make it at that time. Returns the key's fingerprint.
///
/// # Errors
/// As [`check`]; and if no line of `allowed_signers` lets the principal sign with this key, for this purpose, at this time.
pub fn verify(
    namespace: &str,
    text: &[u8],
    signature: &str,
    principal: &str,
    allowed_signers: &str,
    at: Timestamp,
) -> Result<String, SignatureError> {
    let (key, shown) = checked(namespace, text, signature)?;
    let mut out_of_time = false;
    for (number, line) in allowed_signers.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = Signer::read(line).map_err(|why| SignatureError::Signers { line: number + 1, why })?;
        let Some(signer) = read else { continue };
        let for_this = signer.namespaces.as_ref().is_none_or(|patterns| matches_list(patterns, namespace));
        if signer.key.key_data() != key.key_data() || !matches_list(&signer.principals, principal) || !for_this {
            continue;
        }
        if signer.after.is_none_or(|after| after <= at) && signer.before.is_none_or(|before| at < before) {
            return Ok(shown);
        }
        out_of_time = true;
    }
    let (principal, key) = (principal.to_owned(), shown);
    Err(if out_of_time {
        SignatureError::NotNow { principal, key }
    } else {
        SignatureError::NotAllowed { principal, key }
    })
}

fn checked(namespace: &str, text: &[u8], signature: &str) -> Result<(PublicKey, String), SignatureError> {
    let signature =
        SshSig::from_pem(signature.trim()).map_err(|error| SignatureError::Unreadable(error.to_string()))?;
    if signature.namespace() != namespace {
        return Err(SignatureError::Namespace(signature.namespace().to_owned()));
    }
    let key = PublicKey::from(signature.public_key().clone());
    key.verify(namespace, text, &signature).map_err(|_| SignatureError::Wrong)?;
    let shown = fingerprint(&key);
    Ok((key, shown))
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A line of `allowed_signers`.
struct Signer {
    principals: String,
    namespaces: Option<String>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    key: PublicKey,
}

impl Signer {
    /// `None`: it is about certificates, which are not supported and so never match.
    fn read(line: &str) -> Result<Option<Self>, String> {
        let (principals, mut rest) = first_word(line);
        let (mut namespaces, mut after, mut before) = (None, None, None);
        loop {
            let (word, behind) = first_word(rest);
            if word.is_empty() {
                return Err("it has no key".to_owned());
            }
            // Key types have no `=`, and are not among the options without a value.
            if !word.contains('=') && !word.eq_ignore_ascii_case("cert-authority") {
                break;
            }
            for option in options(&word) {
                let (name, value) = option.split_once('=').unwrap_or((option, ""));
                let value = value.trim_matches('"');
                match name.to_ascii_lowercase().as_str() {
                    "namespaces" => namespaces = Some(value.to_owned()),
                    "valid-after" => after = Some(time(value)?),
                    "valid-before" => before = Some(time(value)?),
                    "cert-authority" => return Ok(None),
                    other => return Err(format!("`{other}` is not an option")),
                }
            }
            rest = behind;
        }
        let key = PublicKey::from_openssh(rest.trim()).map_err(|error| error.to_string())?;
        Ok(Some(Self { principals, namespaces, after, before, key }))
    }
}

/// The first word, in which quotes may hold blanks, and the rest.
fn first_word(text: &str) -> (String, &str) {
    let text = text.trim_start();
    let mut quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        !quoted && c.is_whitespace()
    });
    let end = end.map_or(text.len(), |(at, _)| at);
    let word = &text[..end];
    let bare = if word.contains('=') { word.to_owned() } else { word.trim_matches('"').to_owned() };
    (bare, &text[end..])
}

/// Options of one word, separated by commas outside of quotes.
fn options(word: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    word.split(move |c| {
        quoted ^= c == '"';
        !quoted && c == ','
    })
}

/// `20261121`, `202611211530`, `20261121153000`, with `Z` for UTC; else this machine's time zone.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is no time: YYYYMMDD[HHMM[SS]][Z]");
    let (digits, zone) = match text.strip_suffix('Z') {
        Some(digits) => (digits, TimeZone::UTC),
        None => (text, TimeZone::system()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let padded = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return Err(wrong()),
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &padded).map_err(|_| wrong())?;
    civil.to_zoned(zone).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

/// A comma-separated list of patterns with `*` and `?`; one that begins with `!` excludes.
fn matches_list(patterns: &str, name: &str) -> bool {
    let mut matched = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, name) => return false,
            None if matches(pattern, name) => matched = true,
            _ => {}
        }
    }
    matched
}

fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` stood, and how much of the name it has taken.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NAMESPACE: &str = "pgrunbook-approval";

    /// A key made by `ssh-keygen`, its public line, and its folder.
    fn key(kind: &str) -> (String, String, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-C", "bert", "-f"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        let public = read(&path.with_extension("pub")).trim().to_owned();
        (read(&path), public, folder)
    }

    #[test]
    fn signatures_go_both_ways_with_ssh_keygen() {
        for kind in ["ed25519", "ecdsa"] {
            let (private, public, folder) = key(kind);
            let at = |name: &str| folder.path().join(name);
            std::fs::write(at("text"), "approved").unwrap();
            let allowed = format!("*@example.org {public}\n");
            std::fs::write(at("allowed"), &allowed).unwrap();

            // Theirs, read here.
            let signed = Command::new("ssh-keygen")
                .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
                .arg(at("key"))
                .arg(at("text"))
                .output()
                .unwrap();
            assert!(signed.status.success());
            let theirs = std::fs::read_to_string(at("text.sig")).unwrap();
            let now = Timestamp::now();
            assert!(verify(NAMESPACE, b"approved", &theirs, "bert@example.org", &allowed, now).is_ok(), "{kind}");

            // Ours, read there.
            let ours = sign(NAMESPACE, b"approved", &private).unwrap();
            std::fs::write(at("ours.sig"), ours).unwrap();
            let verified = Command::new("ssh-keygen")
                .args(["-q", "-Y", "verify", "-n", NAMESPACE, "-I", "bert@example.org", "-f"])
                .arg(at("allowed"))
                .arg("-s")
                .arg(at("ours.sig"))
                .stdin(std::fs::File::open(at("text")).unwrap())
                .output()
                .unwrap();
            assert!(verified.status.success(), "{kind}: {}", String::from_utf8_lossy(&verified.stderr));
        }
    }

    #[test]
    fn signature_counts_only_for_its_text_purpose_person_and_time() {
        let (private, public, _folder) = key("ed25519");
        let signature = sign(NAMESPACE, b"approved", &private).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let verified = |allowed: &str, principal: &str, text: &[u8], now: &str| {
            verify(NAMESPACE, text, &signature, principal, &allowed.replace("KEY", &public), at(now)).map(drop)
        };
        let noon = "2026-11-21T12:00:00Z";
        assert_eq!(verified("bert KEY", "bert", b"approved", noon), Ok(()));
        assert_eq!(verified("bert KEY", "bert", b"other", noon), Err(SignatureError::Wrong));
        assert!(matches!(verified("anna KEY", "bert", b"approved", noon), Err(SignatureError::NotAllowed { .. })));
        assert!(matches!(verified("*,!bert KEY", "bert", b"approved", noon), Err(SignatureError::NotAllowed { .. })));
        let purpose = "bert namespaces=\"git,file\" KEY";
        assert!(matches!(verified(purpose, "bert", b"approved", noon), Err(SignatureError::NotAllowed { .. })));
        let window = "# people\n\nbert valid-after=\"20261101Z\",valid-before=\"20261201Z\" KEY";
        assert_eq!(verified(window, "bert", b"approved", noon), Ok(()));
        assert!(matches!(
            verified(window, "bert", b"approved", "2026-12-02T00:00:00Z"),
            Err(SignatureError::NotNow { .. })
        ));
        assert!(matches!(check("other", b"approved", &signature), Err(SignatureError::Namespace(_))));
        assert!(matches!(check(NAMESPACE, b"approved", "nonsense"), Err(SignatureError::Unreadable(_))));
        assert_eq!(
            verified("bert nonsense", "bert", b"approved", noon).unwrap_err().to_string().split(':').next(),
            Some("line 1 of allowed_signers cannot be read")
        );
    }

    #[test]
    fn lines_of_other_kinds_keep_nobody_from_signing() {
        let (private, public, _folder) = key("ed25519");
        let (_, rsa, _folder) = key("rsa");
        let signature = sign(NAMESPACE, b"approved", &private).unwrap();
        let allowed = format!("bert cert-authority {rsa}\nbert {rsa}\nbert {public}\n");
        assert!(verify(NAMESPACE, b"approved", &signature, "bert", &allowed, Timestamp::now()).is_ok());
    }

    #[test]
    fn rsa_does_not_sign() {
        let (_, public, folder) = key("rsa");
        let text = folder.path().join("text");
        std::fs::write(&text, "approved").unwrap();
        let signed = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
            .arg(folder.path().join("key"))
            .arg(&text)
            .output();
        assert!(signed.unwrap().status.success());
        let signature = std::fs::read_to_string(text.with_extension("sig")).unwrap();
        let verified = verify(NAMESPACE, b"approved", &signature, "bert", &format!("bert {public}"), Timestamp::now());
        assert!(matches!(verified, Err(SignatureError::Wrong | SignatureError::Unreadable(_))), "{verified:?}");
    }

    #[test]
    fn patterns_match_as_in_ssh() {
        for (patterns, name, wanted) in [
            ("bert@x", "bert@x", true),
            ("*@x", "bert@x", true),
            ("b?rt@*", "bert@y", true),
            ("*@x,anna", "anna", true),
            ("*@x,!bert@x", "bert@x", false),
            ("bert", "bertha", false),
            ("**t", "bert", true),
            ("", "bert", false),
        ] {
            assert_eq!(matches_list(patterns, name), wanted, "{patterns} {name}");
        }
    }
}
