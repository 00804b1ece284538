//! The form of segment files. Integers are little-endian.
//!
//! A segment: `PGRSPL01`, system identifier (8 bytes), timeline (4), four zero bytes, the LSN where it begins (8), a
//! checksum of these (8). Then records: kind and length (4: the kind in the two top bits), checksum (4), LSN (8), data. The
//! checksum is XXH3 over LSN and data, seeded with kind and length; of 64 bits, the lower 32 in a record.
//!
//! An older program refuses a newer form by its first eight bytes.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Source;
use crate::lsn::Lsn;

pub(super) const MAGIC: [u8; 8] = *b"PGRSPL01";
/// Length of a segment's head.
pub(super) const HEAD: usize = 40;
/// Length of a record without its data.
pub(super) const RECORD: usize = 16;

const LENGTH: u32 = (1 << 30) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message of pgoutput.
    Message = 0,
    /// The description of a table that came in an earlier segment.
    Relation = 1,
    /// Between transactions: everything before this LSN was sent.
    Position = 2,
    /// The connection began anew.
    Restart = 3,
}

pub(super) fn head(source: Source, begins: Lsn) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..16].copy_from_slice(&source.system.to_le_bytes());
    head[16..20].copy_from_slice(&source.timeline.to_le_bytes());
    head[24..32].copy_from_slice(&begins.0.to_le_bytes());
    let check = xxh3_64_with_seed(&head[..32], 0);
    head[32..].copy_from_slice(&check.to_le_bytes());
    head
}

/// What a segment's head says; `None` if it is none.
pub(super) fn read_head(bytes: &[u8]) -> Option<(Source, Lsn)> {
    let head: &[u8; HEAD] = bytes.first_chunk()?;
    let u64_at = |at: usize| Some(u64::from_le_bytes(*head[at..].first_chunk()?));
    if head[..8] != MAGIC || u64_at(32)? != xxh3_64_with_seed(&head[..32], 0) {
        return None;
    }
    let timeline = u32::from_le_bytes(*head[16..].first_chunk()?);
    Some((Source { system: u64_at(8)?, timeline }, Lsn(u64_at(24)?)))
}

/// Appends a record. PostgreSQL's messages are below 1 GB, which is what the length can say.
pub(super) fn put(buffer: &mut Vec<u8>, kind: Kind, lsn: Lsn, data: &[u8]) {
    let word = (kind as u32) << 30 | (data.len() as u32 & LENGTH);
    let at = buffer.len();
    buffer.extend_from_slice(&word.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&lsn.0.to_le_bytes());
    buffer.extend_from_slice(data);
    let check = xxh3_64_with_seed(&buffer[at + 8..], u64::from(word)) as u32;
    buffer[at + 4..at + 8].copy_from_slice(&check.to_le_bytes());
}

/// What stands at the beginning of some bytes.
#[derive(Debug)]
pub(super) enum Found {
    /// More bytes are needed.
    Partly,
    Whole(Kind, Lsn),
    Damaged,
}

/// Looks at the first record, and checks it. Its data stand at `RECORD..length_of(bytes)`.
pub(super) fn look(bytes: &[u8]) -> Found {
    let Some(head) = bytes.first_chunk::<RECORD>() else { return Found::Partly };
    let length = length_of(head);
    if bytes.len() < length {
        return Found::Partly;
    }
    let [w0, w1, w2, w3, c0, c1, c2, c3, lsn @ ..] = *head;
    let word = u32::from_le_bytes([w0, w1, w2, w3]);
    let check = u32::from_le_bytes([c0, c1, c2, c3]);
    // Zeros, as a file system leaves them behind a crash, are no record: the hash of zeros is not zero.
    if xxh3_64_with_seed(&bytes[8..length], u64::from(word)) as u32 != check {
        return Found::Damaged;
    }
    let kind = match word >> 30 {
        0 => Kind::Message,
        1 => Kind::Relation,
        2 => Kind::Position,
        _ => Kind::Restart,
    };
    Found::Whole(kind, Lsn(u64::from_le_bytes(lsn)))
}

/// The length of a whole record, from its first bytes.
pub(super) fn length_of(head: &[u8; RECORD]) -> usize {
    let [w0, w1, w2, w3, ..] = *head;
    RECORD + (u32::from_le_bytes([w0, w1, w2, w3]) & LENGTH) as usize
}

/// The data of a whole record.
pub(super) fn data(record: &Bytes) -> Bytes {
    record.slice(RECORD..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_record_is_checked() {
        let mut bytes = Vec::new();
        put(&mut bytes, Kind::Message, Lsn(7), b"some data");
        assert!(matches!(look(&bytes), Found::Whole(Kind::Message, Lsn(7))));
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(look(&other), Found::Whole(..)), "bit {bit}");
        }
        assert!(matches!(look(&[0; 64]), Found::Damaged));
    }

    #[test]
    fn head_says_whose_changes_follow() {
        let source = Source { system: 7_123_456_789, timeline: 3 };
        let mut bytes = head(source, Lsn(9));
        assert_eq!(read_head(&bytes), Some((source, Lsn(9))));
        bytes[12] ^= 1;
        assert_eq!(read_head(&bytes), None);
    }
}
