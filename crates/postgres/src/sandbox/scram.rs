//! A password as the server keeps it, hashed once instead of 4,096 times.
//!
//! The iterations make a guess of a person's password dear (RFC 5802, section 5.1). A sandbox's is 128 random bits that nobody
//! guesses, and tests connect by the ten thousand: both sides hash at each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// What `CREATE ROLE ... PASSWORD` and `initdb --pwfile` take for the password, in the form of `pg_authid.rolpassword`
/// (<https://www.postgresql.org/docs/current/catalog-pg-authid.html>). The password is plain ASCII.
pub(super) fn verifier(password: &str, salt: &[u8]) -> String {
    // `Hi` of RFC 5802 with one iteration.
    let salted = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let stored = Sha256::digest(hmac(&salted, b"Client Key"));
    let server = hmac(&salted, b"Server Key");
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("SCRAM-SHA-256$1:{}${}:{}", text(salt), text(&stored), text(&server))
}

/// RFC 2104, with SHA-256 and a key of at most one block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new_with_prefix(padded(0x36)).chain_update(message).finalize();
    Sha256::new_with_prefix(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::hmac;

    #[test]
    fn hmac_is_that_of_the_rfc() {
        // RFC 4231, test case 2.
        let hex: String =
            hmac(b"Jefe", b"what do ya want for nothing?").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
