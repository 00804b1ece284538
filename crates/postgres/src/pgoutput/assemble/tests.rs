//! Orders of messages that a server seldom sends, or never should.

use super::super::decode::tests::encode;
use std::sync::Arc;

use super::super::{Cell, Change, Column, ReplicaIdentity};
use super::*;

fn relation(columns: usize) -> Relation {
    let column = |at| Column { name: format!("c{at}"), is_key: at == 0, type_oid: 25, type_modifier: -1 };
    Relation {
        oid: 7,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        identity: ReplicaIdentity::Default,
        columns: (0..columns).map(column).collect(),
    }
}

fn describe(xid: Option<u32>) -> Message {
    Message::Relation { xid, relation: relation(1) }
}

fn insert(xid: Option<u32>, value: &str) -> Message {
    Message::Insert { xid, relation: 7, new: vec![Cell::Text(Bytes::copy_from_slice(value.as_bytes()))] }
}

fn begin(xid: u32, lsn: u64) -> Message {
    Message::Begin { commit_lsn: Lsn(lsn), committed_at: 0, xid }
}

/// A commit record of ten bytes.
fn at(lsn: u64) -> CommitAt {
    CommitAt { commit_lsn: Lsn(lsn), end_lsn: Lsn(lsn + 10), committed_at: 0 }
}

fn start(xid: u32, first: bool) -> Message {
    Message::StreamStart { xid, first }
}

fn abort(xid: u32, subxid: u32) -> Message {
    Message::StreamAbort { xid, subxid, at: None }
}

fn short(event: &Event) -> String {
    match event {
        Event::Begin(begin) => format!("begin {}", begin.xid),
        Event::Commit(commit) => format!("commit {}", commit.end_lsn.0),
        Event::Change(Change::Insert { new, .. }) => match &new[0] {
            Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        },
        Event::Change(other) => format!("{other:?}"),
        Event::Early(Early::Begin { xid, .. }) => format!("early {xid}"),
        Event::Early(Early::Change(change)) => short(&Event::Change(change.clone())),
        Event::Early(Early::Undo) => "undo".to_owned(),
        Event::Early(Early::Commit { begin, .. }) => format!("early commit {}", begin.xid),
    }
}

/// Everything that is told, with the position behind it; or the error.
fn tell(assembler: &mut Assembler, messages: &[Message]) -> String {
    let mut told = Vec::new();
    for message in messages {
        let pushed = assembler.push(Lsn(1), &encode(message)).and_then(|()| {
            while let Some(event) = assembler.next_event()? {
                told.push(short(&event));
            }
            Ok(())
        });
        if let Err(error) = pushed {
            told.push(error.to_string());
            return told.join(", ");
        }
    }
    told.push(format!("at {}", assembler.position().0));
    told.join(", ")
}

fn check(after: u64, messages: &[Message], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(tell(&mut Assembler::new(folder.path(), Lsn(after)), messages), expected);
}

#[test]
fn order_is_by_commit() {
    let messages = [
        start(1, true),
        describe(Some(1)),
        insert(Some(1), "a"),
        Message::StreamStop,
        begin(2, 100),
        describe(None),
        insert(None, "b"),
        Message::Commit(at(100)),
        start(1, false),
        insert(Some(1), "c"),
        Message::StreamStop,
        Message::StreamCommit { xid: 1, at: at(200) },
    ];
    check(0, &messages, "begin 2, b, commit 110, begin 1, a, c, commit 210, at 210");
    // Of which the first is behind us, or both.
    check(110, &messages, "begin 1, a, c, commit 210, at 210");
    check(210, &messages, "at 210");
}

#[test]
fn aborted_parts_are_left_out_and_what_is_empty_then() {
    let block = |xid, first, value| [start(1, first), insert(Some(xid), value), Message::StreamStop];
    let mut messages = vec![start(1, true), describe(Some(1)), Message::StreamStop];
    messages.extend([block(1, false, "a"), block(2, false, "b"), block(3, false, "c")].concat());
    messages.push(abort(1, 2));
    let committed = Message::StreamCommit { xid: 1, at: at(100) };
    check(0, &[messages.clone(), vec![committed.clone()]].concat(), "begin 1, a, c, commit 110, at 110");
    check(0, &[messages.clone(), vec![abort(1, 3), abort(1, 1)]].concat(), "at 0");
    let none = [
        vec![start(1, true), describe(Some(1)), insert(Some(2), "b"), Message::StreamStop, abort(1, 2)],
        vec![committed],
    ];
    check(0, &none.concat(), "at 110");
    check(0, &[begin(5, 100), describe(None), Message::Commit(at(100))], "at 110");
}

#[test]
fn table_is_known_that_was_described_in_what_does_not_count() {
    // The server does not say it again, although it was a part that is rolled back.
    let mut part = vec![start(1, true), describe(Some(2)), insert(Some(2), "b"), Message::StreamStop, abort(1, 2)];
    let rest = [start(1, false), insert(Some(1), "a"), Message::StreamStop];
    part.extend(rest.into_iter().chain([Message::StreamCommit { xid: 1, at: at(100) }]));
    check(0, &part, "begin 1, a, commit 110, at 110");
    // Or the whole lies behind us.
    let after = [begin(5, 200), insert(None, "c"), Message::Commit(at(200))];
    check(110, &[&part[..], &after].concat(), "begin 5, c, commit 210, at 210");
}

#[test]
fn large_transaction_is_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = Assembler::new(folder.path(), Lsn(0));
    let values: Vec<_> = (0..100).map(|n| format!("{n:05}{}", "x".repeat(10_000))).collect();
    let mut messages = vec![start(1, true), describe(Some(1))];
    messages.extend(values.iter().map(|value| insert(Some(1), value)));
    messages.extend([Message::StreamStop, Message::StreamCommit { xid: 1, at: at(100) }]);
    assert_eq!(tell(&mut assembler, &messages), format!("begin 1, {}, commit 110, at 110", values.join(", ")));
    // Its file had no name, and nothing is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// As [`tell`], with transactions told early, each of which is kept or not.
fn tell_early(from: u64, kept: bool, messages: &[Message]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = Assembler::new(folder.path(), Lsn(0)).telling_early(Lsn(from));
    let (mut told, mut verdict) = (Vec::new(), None);
    for (at, message) in messages.iter().enumerate() {
        assembler.push(Lsn(at as u64), &encode(message)).unwrap();
        while let Some(event) = assembler.next_event().unwrap() {
            match &event {
                Event::Early(Early::Begin { verdict: given, .. }) => verdict = Some(given.clone()),
                Event::Early(Early::Commit { .. }) => verdict.take().unwrap().say(kept),
                _ => {}
            }
            told.push(short(&event));
        }
    }
    told.push(format!("at {}", assembler.position().0));
    told.join(", ")
}

#[test]
fn open_transaction_is_told_early_while_it_can_be_the_next() {
    let block = |xid, of, first, value| [start(of, first), insert(Some(xid), value), Message::StreamStop];
    let mut open = vec![start(1, true), describe(Some(1)), Message::StreamStop];
    open.extend([block(1, 1, false, "a"), block(2, 1, false, "b")].concat());
    let commit = |xid, lsn| Message::StreamCommit { xid, at: at(lsn) };
    let with = |more: &[Message]| [&open[..], more].concat();
    let told = "early 1, a, b";
    assert_eq!(tell_early(0, true, &with(&[commit(1, 100)])), format!("{told}, early commit 1, at 110"));
    let again = format!("{told}, early commit 1, begin 1, a, b, commit 110, at 110");
    assert_eq!(tell_early(0, false, &with(&[commit(1, 100)])), again);
    // It may have been applied.
    assert_eq!(tell_early(1, true, &with(&[commit(1, 100)])), "begin 1, a, b, commit 110, at 110");
    // A part of it, or all, is rolled back.
    let undone = format!("{told}, undo, begin 1, a, commit 110, at 110");
    assert_eq!(tell_early(0, true, &with(&[abort(1, 2), commit(1, 100)])), undone);
    assert_eq!(tell_early(0, true, &with(&[abort(1, 1)])), format!("{told}, undo, at 0"));
    // Another commits first, whole or streamed itself; once undone it is not told early again.
    let whole = [begin(5, 50), describe(None), insert(None, "x"), Message::Commit(at(50))];
    let more = [&whole[..], &block(1, 1, false, "c"), &[commit(1, 100)]].concat();
    let other = format!("{told}, undo, begin 5, x, commit 60, begin 1, a, b, c, commit 110, at 110");
    assert_eq!(tell_early(0, true, &with(&more)), other);
    let described = [start(7, true), describe(Some(7)), Message::StreamStop];
    let streamed = [&described[..], &block(7, 7, false, "x"), &[commit(7, 50), commit(1, 100)]].concat();
    let other = format!("{told}, undo, begin 7, x, commit 60, begin 1, a, b, commit 110, at 110");
    assert_eq!(tell_early(0, true, &with(&streamed)), other);
    // What changed nothing, or was rolled back, is no other.
    let empty = [&block(7, 7, true, "x")[..], &[abort(7, 7), begin(5, 50), Message::Commit(at(50))]].concat();
    let more = [&empty[..], &block(1, 1, false, "c"), &[commit(1, 100)]].concat();
    assert_eq!(tell_early(0, true, &with(&more)), format!("{told}, c, early commit 1, at 110"));
    // One of another database, in which nothing is for us, may be open for longer.
    let beside = [&[start(9, true), Message::StreamStop][..], &with(&[commit(1, 100)])].concat();
    assert_eq!(tell_early(0, true, &beside), format!("{told}, early commit 1, at 110"));
    // The next one is told early again.
    let next = [vec![commit(1, 100)], block(8, 8, true, "d").to_vec(), vec![commit(8, 200)]].concat();
    let both = format!("{told}, early commit 1, early 8, d, early commit 8, at 210");
    assert_eq!(tell_early(0, true, &with(&next)), both);
}

#[test]
fn refused_transaction_is_told_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = Assembler::new(folder.path(), Lsn(0)).telling_early(Lsn(0));
    let block = |first, value| [start(1, first), describe(Some(1)), insert(Some(1), value), Message::StreamStop];
    // Told without anybody who keeps the verdict, or with one who refuses.
    assert_eq!(tell(&mut assembler, &block(true, "a")), "early 1, a, at 0");
    for message in &block(true, "b") {
        assembler.push(Lsn(1), &encode(message)).unwrap();
        while let Some(event) = assembler.next_event().unwrap() {
            if let Event::Early(Early::Begin { verdict, .. }) = event {
                verdict.say(false);
                verdict.say(true);
                assert!(!verdict.is_kept(), "what was said first counts");
            }
        }
    }
    assert_eq!(tell(&mut assembler, &block(false, "c")), "undo, at 0");
    let committed = Message::StreamCommit { xid: 1, at: at(100) };
    assert_eq!(tell(&mut assembler, &[committed]), "begin 1, b, c, commit 110, at 110");
}

#[test]
fn table_described_in_an_open_transaction_is_so_when_it_commits() {
    let wide = Message::Relation { xid: Some(1), relation: relation(2) };
    let open = [describe(None), start(1, true), wide];
    let two = Message::Insert { xid: Some(1), relation: 7, new: vec![Cell::Null, Cell::Null] };
    let messages = |end: Message| {
        let other = [begin(5, 200), insert(None, "one"), Message::Commit(at(200))];
        let inside = [begin(4, 10), describe(None), insert(None, "z"), Message::Commit(at(10))];
        [&inside[..], &open[1..], &[two.clone(), Message::StreamStop, end], &other].concat()
    };
    let before = "begin 4, z, commit 20, early 1, Null";
    let told = tell_early(0, true, &messages(abort(1, 1)));
    assert_eq!(told, format!("{before}, undo, begin 5, one, commit 210, at 210"));
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = Assembler::new(folder.path(), Lsn(0));
    let told = tell(&mut assembler, &messages(Message::StreamCommit { xid: 1, at: at(100) }));
    assert!(told.ends_with("a row of public.t has 1 values, and the table 2 columns"), "{told}");
}

#[test]
fn restart_forgets_what_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = Assembler::new(folder.path(), Lsn(0));
    let half = [start(1, true), describe(Some(1)), insert(Some(1), "a"), Message::StreamStop];
    assert_eq!(tell(&mut assembler, &half), "at 0");
    assembler.restart();
    // Now it comes whole, and is told once.
    let whole = [begin(1, 100), describe(None), insert(None, "a"), insert(None, "b"), Message::Commit(at(100))];
    assert_eq!(tell(&mut assembler, &whole), "begin 1, a, b, commit 110, at 110");
    // Streamed again from its first block, without a restart between.
    let again = [&half[..], &half[..], &[Message::StreamCommit { xid: 1, at: at(200) }]].concat();
    assert_eq!(tell(&mut assembler, &again), "begin 1, a, commit 210, at 210");
}

#[test]
fn what_began_before_the_reading_began_is_no_error_if_it_is_behind_us() {
    let messages =
        [start(1, false), insert(Some(1), "z"), Message::StreamStop, Message::StreamCommit { xid: 1, at: at(100) }];
    check(110, &messages, "at 110");
    let missing = "messages in an order that cannot be: a streamed transaction commits whose first block is missing";
    check(50, &messages, missing);
}

#[test]
fn origin_stands_at_the_begin() {
    let origin = Message::Origin { commit_lsn: Lsn(1), name: "elsewhere".to_owned() };
    let folder = tempfile::tempdir().unwrap();
    let streamed = [start(1, true), origin.clone(), describe(Some(1)), insert(Some(1), "a"), Message::StreamStop];
    let ways = [
        vec![begin(1, 100), origin, describe(None), insert(None, "a"), Message::Commit(at(100))],
        [&streamed[..], &[Message::StreamCommit { xid: 1, at: at(100) }]].concat(),
    ];
    for messages in ways {
        let mut assembler = Assembler::new(folder.path(), Lsn(0));
        let mut begins = Vec::new();
        for message in &messages {
            assembler.push(Lsn(1), &encode(message)).unwrap();
            while let Some(event) = assembler.next_event().unwrap() {
                if let Event::Begin(begin) = event {
                    begins.push(begin.origin);
                }
            }
        }
        assert_eq!(begins, [Some("elsewhere".to_owned())]);
    }
}

#[test]
fn relation_that_did_not_change_stays_the_same_value() {
    let folder = tempfile::tempdir().unwrap();
    let mut assembler = Assembler::new(folder.path(), Lsn(0));
    let other = Message::Relation { xid: None, relation: relation(2) };
    let two = Message::Insert { xid: None, relation: 7, new: vec![Cell::Null, Cell::Null] };
    let messages = [begin(1, 100), describe(None), insert(None, "a"), describe(None), insert(None, "b"), other, two];
    let mut relations = Vec::new();
    for message in &messages {
        assembler.push(Lsn(1), &encode(message)).unwrap();
        while let Some(event) = assembler.next_event().unwrap() {
            if let Event::Change(Change::Insert { relation, .. }) = event {
                relations.push(relation);
            }
        }
    }
    assert!(Arc::ptr_eq(&relations[0], &relations[1]) && !Arc::ptr_eq(&relations[1], &relations[2]));
}

#[test]
fn what_cannot_be_is_refused() {
    check(0, &[begin(1, 1), insert(None, "a")], "a change is to the table with OID 7, which was not described");
    let wide = Message::Relation { xid: None, relation: relation(2) };
    let text = "a row of public.t has 1 values, and the table 2 columns";
    check(0, &[begin(1, 1), wide, insert(None, "a")], text);
    let order = "messages in an order that cannot be: ";
    check(0, &[describe(None), insert(None, "a")], &format!("{order}a change outside of a transaction"));
    check(0, &[Message::Commit(at(1))], &format!("{order}a commit without a begin"));
    check(0, &[begin(1, 1), begin(2, 2)], &format!("{order}a transaction begins inside another"));
    check(0, &[begin(1, 1), start(2, true)], &format!("{order}a block begins inside a transaction"));
    check(0, &[start(2, true), begin(1, 1)], &format!("{order}a message that cannot stand in a block"));
    let what = super::super::decode::Prepared { lsn: Lsn(1), end_lsn: Lsn(2), at: 0, xid: 1, gid: "g".to_owned() };
    let text = "the slot sends prepared transactions (`g`), which is not supported: make it without two_phase";
    check(0, &[Message::BeginPrepare(what)], text);
}
