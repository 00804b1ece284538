//! What is encoded is decoded again, and nothing else does harm.

use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// The message as the server would send it; in a block when it carries an id.
pub(in crate::pgoutput) fn encode(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    let text = |out: &mut BytesMut, text: &str| {
        out.put_slice(text.as_bytes());
        out.put_u8(0);
    };
    let tag = |out: &mut BytesMut, tag: u8, xid: Option<u32>| {
        out.put_u8(tag);
        if let Some(xid) = xid {
            out.put_u32(xid);
        }
    };
    let commit = |out: &mut BytesMut, at: &CommitAt| {
        out.put_u64(at.commit_lsn.0);
        out.put_u64(at.end_lsn.0);
        out.put_i64(at.committed_at);
    };
    let prepared = |out: &mut BytesMut, tag: u8, flags: bool, prepared: &Prepared| {
        out.put_u8(tag);
        if flags {
            out.put_u8(0);
        }
        out.put_u64(prepared.lsn.0);
        out.put_u64(prepared.end_lsn.0);
        out.put_i64(prepared.at);
        out.put_u32(prepared.xid);
        text(out, &prepared.gid);
    };
    match message {
        Message::Begin { commit_lsn, committed_at, xid } => {
            out.put_u8(b'B');
            out.put_u64(commit_lsn.0);
            out.put_i64(*committed_at);
            out.put_u32(*xid);
        }
        Message::Commit(at) => {
            out.put_slice(b"C\0");
            commit(&mut out, at);
        }
        Message::Origin { commit_lsn, name } => {
            out.put_u8(b'O');
            out.put_u64(commit_lsn.0);
            text(&mut out, name);
        }
        Message::Logical { xid, transactional, lsn, prefix, content } => {
            tag(&mut out, b'M', *xid);
            out.put_u8(u8::from(*transactional));
            out.put_u64(lsn.0);
            text(&mut out, prefix);
            out.put_u32(content.len() as u32);
            out.put_slice(content);
        }
        Message::Relation { xid, relation } => {
            tag(&mut out, b'R', *xid);
            out.put_u32(relation.oid);
            text(&mut out, if relation.schema == "pg_catalog" { "" } else { &relation.schema });
            text(&mut out, &relation.name);
            out.put_u8(match relation.identity {
                ReplicaIdentity::Default => b'd',
                ReplicaIdentity::Nothing => b'n',
                ReplicaIdentity::Full => b'f',
                ReplicaIdentity::Index => b'i',
            });
            out.put_u16(relation.columns.len() as u16);
            for column in &relation.columns {
                out.put_u8(u8::from(column.is_key));
                text(&mut out, &column.name);
                out.put_u32(column.type_oid);
                out.put_i32(column.type_modifier);
            }
        }
        Message::Type { xid, oid, schema, name } => {
            tag(&mut out, b'Y', *xid);
            out.put_u32(*oid);
            text(&mut out, schema);
            text(&mut out, name);
        }
        Message::Insert { xid, relation, new } => {
            tag(&mut out, b'I', *xid);
            out.put_u32(*relation);
            encode_row(&mut out, b'N', new);
        }
        Message::Update { xid, relation, old, new } => {
            tag(&mut out, b'U', *xid);
            out.put_u32(*relation);
            if let Some(old) = old {
                encode_old(&mut out, old);
            }
            encode_row(&mut out, b'N', new);
        }
        Message::Delete { xid, relation, old } => {
            tag(&mut out, b'D', *xid);
            out.put_u32(*relation);
            encode_old(&mut out, old);
        }
        Message::Truncate { xid, relations, cascade, restart_identity } => {
            tag(&mut out, b'T', *xid);
            out.put_u32(relations.len() as u32);
            out.put_u8(u8::from(*cascade) | u8::from(*restart_identity) << 1);
            relations.iter().for_each(|oid| out.put_u32(*oid));
        }
        Message::StreamStart { xid, first } => {
            tag(&mut out, b'S', Some(*xid));
            out.put_u8(u8::from(*first));
        }
        Message::StreamStop => out.put_u8(b'E'),
        Message::StreamCommit { xid, at } => {
            tag(&mut out, b'c', Some(*xid));
            out.put_u8(0);
            commit(&mut out, at);
        }
        Message::StreamAbort { xid, subxid, at } => {
            tag(&mut out, b'A', Some(*xid));
            out.put_u32(*subxid);
            if let Some((lsn, time)) = at {
                out.put_u64(lsn.0);
                out.put_i64(*time);
            }
        }
        Message::BeginPrepare(what) => prepared(&mut out, b'b', false, what),
        Message::Prepare(what) => prepared(&mut out, b'P', true, what),
        Message::CommitPrepared(what) => prepared(&mut out, b'K', true, what),
        Message::StreamPrepare(what) => prepared(&mut out, b'p', true, what),
        Message::RollbackPrepared { prepared_end_lsn, end_lsn, prepared_at, rolled_back_at, xid, gid } => {
            out.put_slice(b"r\0");
            out.put_u64(prepared_end_lsn.0);
            out.put_u64(end_lsn.0);
            out.put_i64(*prepared_at);
            out.put_i64(*rolled_back_at);
            out.put_u32(*xid);
            text(&mut out, gid);
        }
    }
    out.freeze()
}

fn encode_row(out: &mut BytesMut, tag: u8, row: &Row) {
    out.put_u8(tag);
    out.put_u16(row.len() as u16);
    for cell in row {
        let (kind, value) = match cell {
            Cell::Null => (b'n', None),
            Cell::Unchanged => (b'u', None),
            Cell::Text(value) => (b't', Some(value)),
            Cell::Binary(value) => (b'b', Some(value)),
        };
        out.put_u8(kind);
        if let Some(value) = value {
            out.put_u32(value.len() as u32);
            out.put_slice(value);
        }
    }
}

fn encode_old(out: &mut BytesMut, old: &Old) {
    match old {
        Old::Key(row) => encode_row(out, b'K', row),
        Old::Full(row) => encode_row(out, b'O', row),
    }
}

fn lsns() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn names() -> impl Strategy<Value = String> {
    "[a-zäß_ ]{1,12}"
}

fn values() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn rows() -> impl Strategy<Value = Row> {
    let cell = prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        values().prop_map(Cell::Text),
        values().prop_map(Cell::Binary)
    ];
    vec(cell, 0..6)
}

fn olds() -> impl Strategy<Value = Old> {
    prop_oneof![rows().prop_map(Old::Key), rows().prop_map(Old::Full)]
}

fn relations() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index)
    ];
    let column = (names(), any::<bool>(), any::<u32>(), any::<i32>())
        .prop_map(|(name, is_key, type_oid, type_modifier)| Column { name, is_key, type_oid, type_modifier });
    let schema = prop_oneof![names(), Just("pg_catalog".to_owned())];
    (any::<u32>(), schema, names(), identity, vec(column, 0..6))
        .prop_map(|(oid, schema, name, identity, columns)| Relation { oid, schema, name, identity, columns })
}

/// A message, all of whose kinds occur, and whether it stands in a block.
fn messages() -> impl Strategy<Value = (Message, bool)> {
    let at = || {
        (lsns(), lsns(), any::<i64>()).prop_map(|(commit_lsn, end_lsn, committed_at)| CommitAt {
            commit_lsn,
            end_lsn,
            committed_at,
        })
    };
    let prepared = || {
        (lsns(), lsns(), any::<i64>(), any::<u32>(), names()).prop_map(|(lsn, end_lsn, at, xid, gid)| Prepared {
            lsn,
            end_lsn,
            at,
            xid,
            gid,
        })
    };
    let outside = prop_oneof![
        (lsns(), any::<i64>(), any::<u32>()).prop_map(|(commit_lsn, committed_at, xid)| Message::Begin {
            commit_lsn,
            committed_at,
            xid
        }),
        at().prop_map(Message::Commit),
        (lsns(), names()).prop_map(|(commit_lsn, name)| Message::Origin { commit_lsn, name }),
        (any::<u32>(), any::<bool>()).prop_map(|(xid, first)| Message::StreamStart { xid, first }),
        Just(Message::StreamStop),
        (any::<u32>(), at()).prop_map(|(xid, at)| Message::StreamCommit { xid, at }),
        (any::<u32>(), any::<u32>(), option::of((lsns(), any::<i64>())))
            .prop_map(|(xid, subxid, at)| Message::StreamAbort { xid, subxid, at }),
        prepared().prop_map(Message::BeginPrepare),
        prepared().prop_map(Message::Prepare),
        prepared().prop_map(Message::CommitPrepared),
        prepared().prop_map(Message::StreamPrepare),
        (prepared(), any::<i64>()).prop_map(|(what, rolled_back_at)| Message::RollbackPrepared {
            prepared_end_lsn: what.lsn,
            end_lsn: what.end_lsn,
            prepared_at: what.at,
            rolled_back_at,
            xid: what.xid,
            gid: what.gid,
        }),
    ];
    let xid = || option::of(any::<u32>());
    let either = prop_oneof![
        (xid(), any::<bool>(), lsns(), names(), values()).prop_map(|(xid, transactional, lsn, prefix, content)| {
            Message::Logical { xid, transactional, lsn, prefix, content }
        }),
        (xid(), relations()).prop_map(|(xid, relation)| Message::Relation { xid, relation }),
        (xid(), any::<u32>(), names(), names()).prop_map(|(xid, oid, schema, name)| Message::Type {
            xid,
            oid,
            schema,
            name
        }),
        (xid(), any::<u32>(), rows()).prop_map(|(xid, relation, new)| Message::Insert { xid, relation, new }),
        (xid(), any::<u32>(), option::of(olds()), rows()).prop_map(|(xid, relation, old, new)| Message::Update {
            xid,
            relation,
            old,
            new
        }),
        (xid(), any::<u32>(), olds()).prop_map(|(xid, relation, old)| Message::Delete { xid, relation, old }),
        (xid(), vec(any::<u32>(), 0..5), any::<bool>(), any::<bool>()).prop_map(
            |(xid, relations, cascade, restart_identity)| {
                Message::Truncate { xid, relations, cascade, restart_identity }
            }
        ),
    ];
    prop_oneof![
        outside.prop_map(|message| (message, false)),
        either.prop_map(|message| {
            let in_block = match &message {
                Message::Logical { xid, .. }
                | Message::Relation { xid, .. }
                | Message::Type { xid, .. }
                | Message::Insert { xid, .. }
                | Message::Update { xid, .. }
                | Message::Delete { xid, .. }
                | Message::Truncate { xid, .. } => xid.is_some(),
                _ => false,
            };
            (message, in_block)
        })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_encoded_is_decoded((message, in_block) in messages()) {
        prop_assert_eq!(decode(&encode(&message), in_block), Ok(message));
    }

    #[test]
    fn message_that_ends_early_is_refused_with_its_kind((message, in_block) in messages(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&message);
        let short = bytes.slice(..cut.index(bytes.len()));
        // Only the optional end of an abort may be missing.
        match decode(&short, in_block) {
            Ok(Message::StreamAbort { at, .. }) => prop_assert_eq!(at, None),
            Ok(other) => prop_assert!(false, "{:?}", other),
            Err(error) => prop_assert!(error.offset <= short.len()),
        }
    }

    #[test]
    fn changed_bytes_do_no_harm(
        (message, in_block) in messages(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        other in any::<bool>(),
    ) {
        let mut bytes = encode(&message).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Err(error) = decode(&Bytes::from(bytes.clone()), in_block ^ other) {
            prop_assert!(error.offset <= bytes.len());
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200), in_block in any::<bool>()) {
        if let Err(error) = decode(&Bytes::from(bytes.clone()), in_block) {
            prop_assert!(error.offset <= bytes.len());
        }
    }
}

#[test]
fn error_names_kind_and_place() {
    let error = decode(&Bytes::from_static(b"I\0\0\0\x01N\xff\xff"), false).unwrap_err();
    let text = "Insert of pgoutput is malformed at byte 6: more columns are announced than there are bytes for";
    assert_eq!(error.to_string(), text);
}
