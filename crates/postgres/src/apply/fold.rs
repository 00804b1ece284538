//! What happened to one row in a batch, as one change: pure.
//!
//! | so far | then inserted | then updated | then deleted |
//! | --- | --- | --- | --- |
//! | nothing | insert | update | delete |
//! | insert | *clash* | insert, merged | nothing |
//! | update | *clash* | update, merged | delete |
//! | delete | replace | *clash* | *clash* |
//! | replace | *clash* | replace, merged | delete |
//!
//! *Merged*: a cell that the later update did not send keeps what an earlier one set. *Replace* is an update of all columns: the
//! row was there before the batch and is there after it.

use crate::pgoutput::{Cell, Row};

/// One change of a row whose key stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Insert(Row),
    /// May hold [`Cell::Unchanged`].
    Update(Row),
    /// The columns of the identity have values.
    Delete(Row),
}

/// What a batch does to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Insert(Row),
    Update(Row),
    Replace(Row),
    Delete(Row),
}

impl Op {
    pub(super) fn row(&self) -> &Row {
        match self {
            Self::Insert(row) | Self::Update(row) | Self::Replace(row) | Self::Delete(row) => row,
        }
    }
}

/// A change that cannot follow what came before it, with its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Clash {
    /// Inserted where there is a row.
    There(Row),
    /// Updated or deleted where there is none.
    Gone(Row),
}

/// The next change of a row whose changes so far come to `so_far`; `None` is nothing.
pub(super) fn next(so_far: Option<Op>, step: Step) -> Result<Option<Op>, Clash> {
    use Op::{Delete, Insert, Replace, Update};
    let folded = match (so_far, step) {
        (None, Step::Insert(row)) => Insert(row),
        (None, Step::Update(row)) => Update(row),
        (None, Step::Delete(key)) => Delete(key),
        (Some(Insert(mut row)), Step::Update(new)) => {
            merge(&mut row, new);
            Insert(row)
        }
        (Some(Update(mut row)), Step::Update(new)) => {
            merge(&mut row, new);
            Update(row)
        }
        (Some(Replace(mut row)), Step::Update(new)) => {
            merge(&mut row, new);
            Replace(row)
        }
        (Some(Insert(_)), Step::Delete(_)) => return Ok(None),
        (Some(Update(_) | Replace(_)), Step::Delete(key)) => Delete(key),
        (Some(Delete(_)), Step::Insert(row)) => Replace(row),
        (Some(_), Step::Insert(row)) => return Err(Clash::There(row)),
        (Some(Delete(_)), Step::Update(row) | Step::Delete(row)) => return Err(Clash::Gone(row)),
    };
    Ok(Some(folded))
}

/// Puts what was sent over what was there.
pub(super) fn merge(row: &mut Row, new: Row) {
    for (cell, new) in row.iter_mut().zip(new) {
        if new != Cell::Unchanged {
            *cell = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    type Table = BTreeMap<u8, Row>;

    fn cell(value: u8) -> Cell {
        match value {
            0 => Cell::Unchanged,
            1 => Cell::Null,
            value => Cell::Text(Bytes::from(vec![value])),
        }
    }

    fn keyed(key: u8, values: (u8, u8)) -> Row {
        vec![cell(key + 10), cell(values.0), cell(values.1)]
    }

    /// One change at a time, as the source did it.
    fn one_by_one(table: &mut Table, key: u8, step: Step) -> Result<(), Clash> {
        match step {
            Step::Insert(row) if table.contains_key(&key) => return Err(Clash::There(row)),
            Step::Insert(row) => {
                table.insert(key, row);
            }
            Step::Update(new) => match table.get_mut(&key) {
                Some(row) => merge(row, new),
                None => return Err(Clash::Gone(new)),
            },
            Step::Delete(row) => {
                if table.remove(&key).is_none() {
                    return Err(Clash::Gone(row));
                }
            }
        }
        Ok(())
    }

    /// The folded changes, deletions first, as the applier does it. Panics where a row is not as it must be.
    fn at_once(table: &mut Table, batch: BTreeMap<u8, Op>) {
        for (key, op) in batch {
            let there = table.contains_key(&key);
            match op {
                Op::Insert(row) => {
                    assert!(!there, "inserted twice");
                    assert!(!row.contains(&Cell::Unchanged));
                    table.insert(key, row);
                }
                Op::Update(new) | Op::Replace(new) => match table.get_mut(&key) {
                    Some(row) => merge(row, new),
                    None => panic!("updated nothing"),
                },
                Op::Delete(_) => {
                    assert!(table.remove(&key).is_some(), "deleted nothing");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn folded_changes_come_to_the_same(
            there in proptest::collection::btree_set(0u8..4, 0..4),
            steps in proptest::collection::vec((0u8..4, 0u8..3, (0u8..6, 0u8..6)), 0..40),
        ) {
            let mut table: Table = there.into_iter().map(|key| (key, keyed(key, (7, 8)))).collect();
            let mut model = table.clone();
            let mut batch: BTreeMap<u8, Op> = BTreeMap::new();
            for (key, kind, values) in steps {
                let full = (values.0.max(1), values.1.max(1));
                let step = match kind {
                    0 => Step::Insert(keyed(key, full)),
                    1 => Step::Update(keyed(key, values)),
                    _ => Step::Delete(keyed(key, (1, 1))),
                };
                // A source sends only what can be.
                if one_by_one(&mut model, key, step.clone()).is_err() {
                    continue;
                }
                let folded = next(batch.remove(&key), step).expect("what the source did can follow");
                batch.extend(folded.map(|op| (key, op)));
            }
            at_once(&mut table, batch);
            prop_assert_eq!(table, model);
        }
    }

    #[test]
    fn what_cannot_follow_clashes() {
        let row = || keyed(1, (2, 3));
        let clash = |so_far, step| next(Some(so_far), step).expect_err("it cannot follow");
        for so_far in [Op::Insert(row()), Op::Update(row()), Op::Replace(row())] {
            assert_eq!(clash(so_far, Step::Insert(row())), Clash::There(row()));
        }
        for step in [Step::Update(row()), Step::Delete(row())] {
            assert_eq!(clash(Op::Delete(row()), step), Clash::Gone(row()));
        }
    }
}
