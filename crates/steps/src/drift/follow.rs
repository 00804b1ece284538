//! What a table has from a parent, a partitioned table or its type comes and goes with that: it *follows*, and has no statement of its own.

use std::collections::HashSet;

use super::model::Snapshot;

/// What ties a table to what it follows.
const TIES: &[&str] = &["inheritance", "partition", "type of table"];

/// What a table keeps when it leaves what it follows, and must have before it joins: then each is the table's own. Triggers are made and
/// dropped by joining and leaving.
const KEPT: &[&str] = &["column", "constraint", "index"];

/// The tables that follow something on one side alone.
#[derive(Debug, Default)]
pub struct Moved(HashSet<String>);

impl Moved {
    pub fn of(live: &Snapshot, shadow: &Snapshot) -> Self {
        let mut moved = HashSet::new();
        for (one, other) in [(live, shadow), (shadow, live)] {
            for (at, item) in one.items.iter().enumerate().filter(|(_, item)| TIES.contains(&item.kind.as_str())) {
                if other.find(&item.kind, &item.identity).is_some() {
                    continue;
                }
                let Some(table) = one.parent(at).map(|table| &one.items[table]) else { continue };
                let same =
                    other.find(&table.kind, &table.identity).filter(|same| other.items[*same].text == table.text);
                if same.is_some() {
                    moved.insert(table.identity.clone());
                }
            }
        }
        Self(moved)
    }

    /// Whether an item comes and goes with what its table follows, on both sides.
    pub fn follows(&self, snapshot: &Snapshot, at: usize) -> bool {
        let item = &snapshot.items[at];
        let is_own = || {
            let table = snapshot.parent(at).map(|table| &snapshot.items[table].identity);
            KEPT.contains(&item.kind.as_str()) && table.is_some_and(|table| self.0.contains(table))
        };
        item.flags.follows && (self.0.is_empty() || !is_own())
    }

    /// The order that a tie needs among what is made or dropped: the tie, and what stands on the same table or on its columns.
    pub fn ties<'a>(snapshot: &'a Snapshot, nodes: impl Iterator<Item = usize> + Clone + 'a) -> Vec<(usize, usize)> {
        let ties = nodes.clone().filter(|at| TIES.contains(&snapshot.items[*at].kind.as_str()));
        let mut found = Vec::new();
        for tie in ties {
            let Some(table) = snapshot.parent(tie) else { continue };
            let of_table = |at: usize| {
                let item = &snapshot.items[at];
                let on = snapshot.parent(at);
                KEPT.contains(&item.kind.as_str()) && on == Some(table)
                    || item.kind == "not null" && on.and_then(|column| snapshot.parent(column)) == Some(table)
            };
            found.extend(nodes.clone().filter(|at| of_table(*at)).map(|at| (tie, at)));
        }
        found
    }
}
