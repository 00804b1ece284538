//! Bytes to SQL text, refused with a line where they are not.

/// Why a file is not SQL text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct NotSql {
    /// Counted from 1.
    pub line: usize,
    /// `a NUL byte`, `a byte that is not UTF-8`, ...
    pub what: &'static str,
}

/// Reads a file's bytes as SQL text, without a leading byte order mark (`psql` skips it as well).
///
/// # Errors
///
/// Names the first line with a NUL byte or with bytes that are not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, NotSql> {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(NotSql { line: 1, what: "the file is UTF-16; save it as UTF-8" });
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let line_of = |byte: usize| 1 + bytes[..byte].iter().filter(|b| **b == b'\n').count();
    let nul = bytes.iter().position(|b| *b == 0);
    let (text, broken) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => ("", Some(error.valid_up_to())),
    };
    match (nul, broken) {
        (None, None) => Ok(text),
        (Some(nul), broken) if broken.is_none_or(|broken| nul < broken) => {
            Err(NotSql { line: line_of(nul), what: "a NUL byte" })
        }
        (_, Some(broken)) => Err(NotSql { line: line_of(broken), what: "a byte that is not UTF-8" }),
        (Some(nul), None) => Err(NotSql { line: line_of(nul), what: "a NUL byte" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(decode(b"\xEF\xBB\xBFSELECT 1"), Ok("SELECT 1"));
    }

    #[test]
    fn what_is_not_text_is_named_with_its_line() {
        for (bytes, line, what) in [
            (&b"a\nb\0"[..], 2, "a NUL byte"),
            (b"a\n\n\xC3(", 3, "a byte that is not UTF-8"),
            (b"\0\n\xFF", 1, "a NUL byte"),
            (b"\xFF\n\0", 1, "a byte that is not UTF-8"),
            (b"\xFF\xFES\0", 1, "the file is UTF-16; save it as UTF-8"),
        ] {
            assert_eq!(decode(bytes), Err(NotSql { line, what }));
        }
    }
}
