//! The server's own hash of a string of bytes, so that both ends can say which bucket a key is in.
//!
//! Bob Jenkins' lookup3 as `hash_bytes_extended` in PostgreSQL's `src/common/hashfn.c` has it on a little-endian machine.
//! Hash partitions on disk rest on it, so it does not change between major versions. On a big-endian server it gives
//! other numbers: a second look there does not find the rows of the first, and says so.

const fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

const fn finish([mut a, mut b, mut c]: [u32; 3]) -> u64 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    ((b as u64) << 32) | c as u64
}

/// The hash of bytes with the seed 0: what `hash_record_extended(ROW(bytes), 0)` gives.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    // Only the low half of the length counts, as there.
    let start = 0x9e37_79b9_u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let mut state = [start; 3];
    let mut parts = bytes.chunks_exact(12);
    for part in &mut parts {
        for (word, four) in state.iter_mut().zip(part.chunks_exact(4)) {
            *word = word.wrapping_add(u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        }
        state = mix(state);
    }
    let mut last = [0_u8; 12];
    let rest = parts.remainder();
    // The lowest byte of the third word was taken by the length.
    let (first, third) = rest.split_at(rest.len().min(8));
    last[..first.len()].copy_from_slice(first);
    last[9..9 + third.len()].copy_from_slice(third);
    for (word, four) in state.iter_mut().zip(last.chunks_exact(4)) {
        *word = word.wrapping_add(u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    }
    finish(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SELECT hash_record_extended(ROW(convert_to('...', 'UTF8')), 0)` on PostgreSQL 15.
    #[test]
    fn hashes_are_the_servers() {
        for (text, server) in SERVER {
            assert_eq!(hash(text.as_bytes()) as i64, *server, "{text:?}");
        }
    }

    const SERVER: &[(&str, i64)] = &[
        ("", -6939563903564495251),
        ("a", 3591986179850072241),
        ("abc", -6747756470228489321),
        ("abcd", -1038429303365892052),
        ("abcdefg", -6158032784613548338),
        ("abcdefgh", -8882191227074733005),
        ("abcdefghi", -3278210106038014113),
        ("abcdefghijk", 3112909444737856467),
        ("abcdefghijkl", -7556637188122330412),
        ("abcdefghijklm", 8871624171452417744),
        ("the quick brown fox jumps over", 3328224497627452227),
    ];
}
