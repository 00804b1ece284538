//! What goes: the statements that drop, and their order.

use std::collections::BTreeSet;

use super::follow::Moved;
use super::mend::{HOLDERS, Plan, Statement, kind};
use super::model::{Address, Item, MEMBER, rank};
use super::order::ordered;

impl Plan<'_> {
    /// The dropped item whose statement takes this one along.
    fn taker(&self, at: usize) -> usize {
        let mut at = at;
        while let Some(parent) = self.live.parent(at).filter(|parent| self.dropped.contains_key(parent)) {
            // Two tables with foreign keys to each other: the keys first.
            let item = &self.live.items[at];
            let apart =
                item.kind == "constraint" && item.text.starts_with("FOREIGN KEY") && !self.moved.follows(self.live, at)
                    || matches!(item.kind.as_str(), "partition" | "inheritance" | "owned by")
                    || (item.address.is_some() && HOLDERS.contains(&self.live.items[parent].kind.as_str()));
            if apart {
                break;
            }
            at = parent;
        }
        at
    }

    pub(super) fn going(&self) -> Vec<Statement> {
        let nodes: BTreeSet<usize> =
            self.dropped.keys().map(|at| self.taker(*at)).chain(self.retyped.keys().copied()).collect();
        let node = |at: usize| if self.dropped.contains_key(&at) { self.taker(at) } else { at };
        let rests = self.live.rests.iter().map(|(dependent, base)| (node(*dependent), node(*base)));
        let stands = nodes.iter().filter_map(|at| Some((*at, node(self.live.parent(*at)?))));
        let edges: Vec<_> = rests
            .chain(stands)
            .chain(self.parting(&nodes))
            .chain(Moved::ties(self.live, nodes.iter().copied()))
            .collect();
        let order = ordered(&nodes, &edges, |at| std::cmp::Reverse(rank(kind(self.live, at))));
        order
            .into_iter()
            .filter_map(|at| {
                let item = &self.live.items[at];
                let partition = matches!(item.kind.as_str(), "partition" | "inheritance")
                    && self.live.parent(at).is_some_and(|table| self.dropped.contains_key(&table));
                if self.moved.follows(self.live, at) || partition {
                    return None;
                }
                let (sql, lossy) = match self.retyped.get(&at) {
                    Some(lossy) => (as_text(item), *lossy),
                    None if item.kind == MEMBER && !self.stays(item) => {
                        (format!("{};\n{}", item.drop, item.frame), *self.dropped.get(&at)?)
                    }
                    None => (self.drop_of(at), *self.dropped.get(&at)?),
                };
                (!sql.is_empty()).then_some(Statement { sql, lossy })
            })
            .collect()
    }

    /// The statement that drops an item.
    fn drop_of(&self, at: usize) -> String {
        self.resets.get(&at).cloned().or_else(|| self.alone(at)).unwrap_or_else(|| self.live.items[at].drop.clone())
    }

    /// The statement that drops a table's column or constraint, and leaves it to children that should keep it as their own.
    fn alone(&self, at: usize) -> Option<String> {
        let item = &self.live.items[at];
        let (table, name) = match item.kind.as_str() {
            "column" => item.drop.split_once(" DROP COLUMN ")?,
            "constraint" => item.drop.split_once(" DROP CONSTRAINT ")?,
            _ => return None,
        };
        let children = self.children(item.parent?).into_iter().map(|child| &self.live.items[child].identity);
        let theirs: Vec<usize> = children
            .filter_map(|child| {
                let identity = match item.kind.as_str() {
                    "column" => format!("{child}.{name}"),
                    _ => format!("{name} on {child}"),
                };
                self.live.find(&item.kind, &identity)
            })
            .collect();
        let kept = |at: &usize| {
            let item = &self.live.items[*at];
            self.shadow.find(&item.kind, &item.identity).is_some_and(|own| !self.moved.follows(self.shadow, own))
        };
        if !theirs.iter().any(kept) {
            return None;
        }
        let rest = theirs.iter().filter(|at| !kept(at)).map(|at| format!("; {}", self.live.items[*at].drop));
        let only = table.replacen("ALTER TABLE ", "ALTER TABLE ONLY ", 1);
        Some(format!("{only}{}{}", &item.drop[table.len()..], rest.collect::<String>()))
    }

    /// The tables of the target that inherit from one.
    fn children(&self, parent: Address) -> Vec<usize> {
        let inherits = self.live.items.iter().filter(|item| item.kind == "inheritance" && item.needs == Some(parent));
        inherits.filter_map(|item| self.live.exactly(item.parent?)).collect()
    }

    /// What a child keeps when it leaves its parent must not go with the parent's before: what leaves, and what goes.
    fn parting(&self, nodes: &BTreeSet<usize>) -> Vec<(usize, usize)> {
        let mut edges = Vec::new();
        let leaving = |at: &&usize| matches!(self.live.items[**at].kind.as_str(), "inheritance" | "partition");
        for leaves in nodes.iter().filter(leaving) {
            let parent = self.live.items[*leaves].needs;
            let goes = |at: &&usize| {
                let item = &self.live.items[**at];
                matches!(item.kind.as_str(), "column" | "constraint") && item.parent == parent
            };
            edges.extend(nodes.iter().filter(goes).map(|at| (*leaves, *at)));
        }
        // A partition's column may be null when its parent's may.
        for own in nodes.iter().filter(|at| self.live.items[**at].kind == "not null") {
            let Some(table) = self.live.parent(*own).and_then(|column| self.live.parent(column)) else { continue };
            let table = &self.live.items[table];
            let name = &self.live.items[*own].identity[table.identity.len()..];
            let ties = self.live.items.iter().filter(|item| item.kind == "partition" && item.parent == table.address);
            let above = ties.filter_map(|item| Some(&self.live.items[self.live.exactly(item.needs?)?].identity));
            let theirs = above.filter_map(|above| self.live.find("not null", &format!("{above}{name}")));
            edges.extend(theirs.map(|above| (above, *own)));
        }
        edges
    }
}

/// A column's statement while its type is away.
fn as_text(column: &Item) -> String {
    // `ALTER TABLE s.t DROP COLUMN c`, printed by us.
    let (table, name) = column.drop.rsplit_once(" DROP COLUMN ").unwrap_or((&column.drop, ""));
    // As its output function writes it: somebody may have made a cast to text that says something else.
    format!(
        "{table} ALTER COLUMN {name} TYPE text \
         USING CASE WHEN {name} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {name}) END"
    )
}
