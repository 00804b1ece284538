//! What is different between a target and what it should be.

use super::follow::Moved;
use super::ignore::Ignore;
use super::model::{MEMBER, Snapshot};

/// What the target is to its shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The shadow has it, the target has not.
    Missing,
    /// The target has it, the shadow has not.
    Extra,
    /// Both have it, and it is not the same.
    Different,
}

impl Change {
    /// A word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
        }
    }
}

/// One difference, as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub change: Change,
    /// One of [`super::KINDS`].
    pub kind: String,
    pub identity: String,
    /// What the target has.
    pub live: Option<String>,
    /// What it should have.
    pub shadow: Option<String>,
}

/// Positions in the two snapshots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub live: Option<usize>,
    pub shadow: Option<usize>,
}

/// Every difference, parts of missing and extra wholes included.
pub(super) fn pairs(live: &Snapshot, shadow: &Snapshot, ignore: &Ignore) -> Vec<Pair> {
    let (ours, theirs) = (ignored(live, shadow, ignore), ignored(shadow, live, ignore));
    let moved = Moved::of(live, shadow);
    let mut found = Vec::new();
    for (at, item) in shadow.items.iter().enumerate().filter(|(at, _)| !theirs[*at]) {
        match live.find(&item.kind, &item.identity) {
            None if !moved.follows(shadow, at) && !other_version(shadow, at, live) => {
                found.push(Pair { live: None, shadow: Some(at) });
            }
            Some(there) if !ours[there] && live.items[there].text != item.text && !moved.follows(shadow, at) => {
                found.push(Pair { live: Some(there), shadow: Some(at) });
            }
            _ => {}
        }
    }
    for (at, item) in live.items.iter().enumerate().filter(|(at, _)| !ours[*at]) {
        let is_there = shadow.find(&item.kind, &item.identity).is_some();
        if !is_there && !moved.follows(live, at) && !other_version(live, at, shadow) {
            found.push(Pair { live: Some(at), shadow: None });
        }
    }
    found
}

/// Whether an item belongs to an extension of which the other has another version, or has it in another schema: then what belongs to it
/// is other, or called otherwise.
fn other_version(snapshot: &Snapshot, at: usize, other: &Snapshot) -> bool {
    let Some(extension) = snapshot.parent(at).filter(|_| snapshot.items[at].kind == MEMBER) else { return false };
    let name = &snapshot.items[extension].identity;
    let quality = |of: &Snapshot, kind: &str| Some(of.items[of.find(kind, name)?].text.clone());
    ["extension version", "extension schema"].iter().any(|kind| {
        quality(other, kind).is_some_and(|theirs| quality(snapshot, kind).is_some_and(|ours| ours != theirs))
    })
}

/// What a pattern names, and what stands on it; and what belongs to an extension on the other side: that it does is told, and what it is
/// made of then no more.
fn ignored(snapshot: &Snapshot, other: &Snapshot, ignore: &Ignore) -> Vec<bool> {
    (0..snapshot.items.len())
        .map(|at| {
            let mut next = Some(at);
            // Schema, table, column, default, and room for more.
            for _ in 0..8 {
                let Some(at) = next else { return false };
                let item = &snapshot.items[at];
                let is_member = !item.phrase.is_empty() && other.members.contains(&item.phrase);
                if is_member || ignore.matches(&item.kind, &item.identity) {
                    return true;
                }
                next = snapshot.parent(at);
            }
            false
        })
        .collect()
}

/// For people: a part of what is missing or extra as a whole is not told again.
pub(super) fn told(live: &Snapshot, shadow: &Snapshot, pairs: &[Pair]) -> Vec<Difference> {
    let missing: std::collections::HashSet<usize> =
        pairs.iter().filter(|pair| pair.live.is_none()).filter_map(|pair| pair.shadow).collect();
    let extra: std::collections::HashSet<usize> =
        pairs.iter().filter(|pair| pair.shadow.is_none()).filter_map(|pair| pair.live).collect();
    let mut found: Vec<Difference> = pairs
        .iter()
        .filter(|pair| match (pair.live, pair.shadow) {
            (None, Some(at)) => shadow.parent(at).is_none_or(|parent| !missing.contains(&parent)),
            (Some(at), None) => live.parent(at).is_none_or(|parent| !extra.contains(&parent)),
            _ => true,
        })
        .filter_map(|pair| {
            let item = pair.shadow.map(|at| &shadow.items[at]).or_else(|| pair.live.map(|at| &live.items[at]))?;
            Some(Difference {
                change: match (pair.live, pair.shadow) {
                    (None, _) => Change::Missing,
                    (_, None) => Change::Extra,
                    _ => Change::Different,
                },
                kind: item.kind.clone(),
                identity: item.identity.clone(),
                live: pair.live.map(|at| live.items[at].text.clone()),
                shadow: pair.shadow.map(|at| shadow.items[at].text.clone()),
            })
        })
        .collect();
    found.sort_by(|a, b| (super::model::rank(&a.kind), &a.identity).cmp(&(super::model::rank(&b.kind), &b.identity)));
    found
}
