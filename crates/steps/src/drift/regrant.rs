//! Privileges that other roles than the owner gave.
//!
//! They go with what they rest on, and nobody revokes them but who gave them. Where there are any, all that was granted on the object is taken
//! back in one statement, and granted anew: first what others rest on.

use std::collections::{BTreeMap, BTreeSet};

use super::mend::Plan;
use super::model::{Item, Snapshot};

/// The object of a grant as `GRANT` calls it, and whom it is to. A table's columns are the table's.
fn object(item: &Item) -> Option<(&str, &str)> {
    let (place, role) = item.identity.rsplit_once(" to ")?;
    match item.kind.as_str() {
        "grant" => Some((place, role)),
        "column grant" => Some((place.rsplit_once(" (")?.0, role)),
        _ => None,
    }
}

/// Whether something of a grant was given by a role, or by any that is not the owner.
fn given_by(item: &Item, role: Option<&str>) -> bool {
    item.text.split(", ").filter_map(|word| word.split_once(" by ")).any(|(_, by)| role.is_none_or(|role| role == by))
}

/// The objects on which somebody holds what was not given by the owner.
fn chained(snapshot: &Snapshot) -> BTreeSet<&str> {
    snapshot.items.iter().filter(|item| given_by(item, None)).filter_map(|item| Some(object(item)?.0)).collect()
}

impl Plan<'_> {
    /// Takes all privileges on an object away and gives them anew, where some of those that change were given by others than the owner.
    pub(super) fn grants_of_others(&mut self) {
        let (live, shadow) = (self.live, self.shadow);
        let touched = self.dropped.iter().map(|(at, lossy)| (&live.items[*at], *lossy));
        let touched = touched.chain(self.made.iter().map(|(at, (_, lossy))| (&shadow.items[*at], *lossy)));
        let mut places: BTreeMap<String, bool> = BTreeMap::new();
        for (place, lossy) in touched.filter_map(|(item, lossy)| Some((object(item)?.0, lossy))) {
            *places.entry(place.to_owned()).or_insert(true) &= lossy;
        }
        let (there, wanted) = (chained(live), chained(shadow));
        for (place, lossy) in places {
            if there.contains(place.as_str()) || wanted.contains(place.as_str()) {
                self.grant_anew(&place, lossy);
            }
        }
    }

    fn grant_anew(&mut self, place: &str, lossy: bool) {
        let of = |snapshot: &Snapshot| -> Vec<usize> {
            let on = |item: &Item| object(item).is_some_and(|(on, _)| on == place);
            snapshot.items.iter().enumerate().filter(|(_, item)| on(item)).map(|(at, _)| at).collect()
        };
        let (there, wanted) = (of(self.live), of(self.shadow));
        // What stands on an object that goes needs no statement.
        let stays = !there.iter().any(|at| self.live.parent(*at).is_some_and(|on| self.dropped.contains_key(&on)));
        if let Some(first) = there.first().filter(|_| stays) {
            for at in &there {
                self.dropped.remove(at);
            }
            let sql = self.reset(place, &there);
            self.dropped.insert(*first, lossy);
            self.resets.insert(*first, sql);
        }
        for at in &wanted {
            self.made.insert(*at, (None, lossy));
        }
        for (first, then) in wanted.iter().flat_map(|first| wanted.iter().map(move |then| (*first, *then))) {
            let (from, to) = (&self.shadow.items[first], &self.shadow.items[then]);
            let Some(((_, role), (_, other))) = object(from).zip(object(to)) else { continue };
            // What is revoked on a table is revoked on its columns.
            let column = role == other && from.kind == "grant" && to.kind == "column grant";
            if first != then && (given_by(to, Some(role)) || column) {
                self.by_whom.push((first, then));
            }
        }
    }

    /// What leaves an object with the privileges that a new one has.
    fn reset(&self, place: &str, there: &[usize]) -> String {
        let items = || there.iter().map(|at| &self.live.items[*at]);
        let roles: BTreeSet<&str> =
            items().filter_map(|item| Some(object(item)?.1)).filter(|role| *role != "its owner").collect();
        let mut sql = Vec::new();
        if !roles.is_empty() {
            let roles: Vec<&str> = roles.into_iter().collect();
            // A database's name is not in its identity.
            let place = if place.starts_with("DATABASE ") { "DATABASE @DATABASE@" } else { place };
            sql.push(format!("REVOKE ALL ON {place} FROM {} CASCADE", roles.join(", ")));
        }
        // What everybody, or the owner, has from the beginning.
        sql.extend(items().filter(|item| item.drop.contains("GRANT ")).map(|item| item.drop.clone()));
        sql.join("; ")
    }
}
