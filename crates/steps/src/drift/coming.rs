//! What comes: the statements that make or alter, and their order.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::quote;

use super::follow::Moved;
use super::mend::{Plan, Statement, grouped, kind};
use super::model::{Item, MEMBER, rank};
use super::order::ordered;
use super::read::granting;

impl Plan<'_> {
    /// Whether an item is made by the statement of what it stands on: that one's position.
    fn maker(&self, at: usize) -> usize {
        let mut at = at;
        if self.shadow.items[at].kind == MEMBER && matches!(self.made.get(&at), Some((Some(_), _))) {
            return at;
        }
        let makes = |at: usize| matches!(self.made.get(&at), Some((None, _))) && !self.moved.follows(self.shadow, at);
        loop {
            let flags = self.shadow.items[at].flags;
            let Some(parent) = self.shadow.parent(at).filter(|parent| flags.with_parent && makes(*parent)) else {
                return at;
            };
            let above =
                self.shadow.parent(parent).filter(|above| self.shadow.items[parent].flags.with_parent && makes(*above));
            match above {
                Some(above) if flags.with_grandparent => at = above,
                // The parent does not speak for itself, and the grandparent does not speak of this one.
                Some(_) => return at,
                None => at = parent,
            }
        }
    }

    pub(super) fn coming(&self) -> Vec<Statement> {
        let makers: BTreeMap<usize, usize> = self.made.keys().map(|at| (*at, self.maker(*at))).collect();
        let nodes: BTreeSet<usize> = makers.values().copied().collect();
        let node = |at: usize| makers.get(&at).copied().unwrap_or(at);
        let rests = self.shadow.rests.iter().map(|(dependent, base)| (node(*base), node(*dependent)));
        let stands = self.made.keys().filter_map(|at| Some((node(self.shadow.parent(*at)?), node(*at))));
        let edges = rests.chain(stands).chain(self.by_whom.iter().copied());
        // A table must have what it joins with.
        let joins = Moved::ties(self.shadow, nodes.iter().copied()).into_iter().map(|(tie, own)| (own, tie));
        let edges: Vec<_> = edges.chain(joins).collect();
        let order = ordered(&nodes, &edges, |at| (rank(kind(self.shadow, at)), self.shadow.items[at].identity.clone()));
        let resets = grouped(makers.iter().map(|(at, maker)| (*maker, *at)));
        order
            .into_iter()
            .filter_map(|at| {
                let item = &self.shadow.items[at];
                let (sql, lossy) = self.made.get(&at)?;
                let sql = sql.as_ref().unwrap_or(&item.make);
                let own = item.kind == "owner" && item.text == self.live.user && self.is_new(at);
                let made = resets.get(&at).into_iter().flatten().flat_map(|made| self.as_granted_by_none(*made));
                let whole = || [sql.clone()].into_iter().chain(made).collect::<Vec<_>>().join("; ");
                (!self.moved.follows(self.shadow, at) && !sql.is_empty() && !own)
                    .then(|| Statement { sql: whole(), lossy: *lossy })
            })
            .collect()
    }

    /// The statements that give a new object the privileges that it has where nobody spoke of default privileges: the shadow's own come
    /// behind, and whether those are of defaults there is not known.
    fn as_granted_by_none(&self, at: usize) -> Vec<String> {
        let item = &self.shadow.items[at];
        let is_new = matches!(self.made.get(&at), Some((None, _))) && !self.moved.follows(self.shadow, at);
        let Some((class, place)) = granted(item).filter(|_| is_new) else { return Vec::new() };
        let creator = quote::ident(&self.live.user).unwrap_or_default();
        let schema = self.schema_of(at);
        let said = self.live.defaults.iter().filter(|one| {
            one.creator == creator
                && one.class == class
                && (one.schema.is_empty() || Some(one.schema.as_str()) == schema)
        });
        said.map(|one| granting("", &one.base, &place, "", &one.grantee, &self.live.user)).collect()
    }

    fn schema_of(&self, at: usize) -> Option<&str> {
        let mut at = at;
        // Table, column, sequence.
        for _ in 0..4 {
            let item = &self.shadow.items[at];
            if item.kind == "schema" {
                return Some(&item.identity);
            }
            at = self.shadow.parent(at)?;
        }
        None
    }

    /// Whether what an item stands on is made here, by the role that mends.
    fn is_new(&self, at: usize) -> bool {
        self.shadow.parent(at).is_some_and(|parent| matches!(self.made.get(&self.maker(parent)), Some((None, _))))
    }
}

/// The class of default privileges that a new object falls under, and what `GRANT` calls it.
fn granted(item: &Item) -> Option<(&'static str, String)> {
    Some(match item.kind.as_str() {
        "table" | "foreign table" | "view" | "materialized view" => ("TABLES", format!("TABLE {}", item.identity)),
        "sequence" | "identity" => ("SEQUENCES", item.phrase.clone()),
        "function" | "procedure" => ("FUNCTIONS", item.phrase.clone()),
        // An ordered-set aggregate has no name that GRANT takes.
        "aggregate" if !item.identity.contains("ORDER BY") => {
            ("FUNCTIONS", format!("FUNCTION {}", item.identity.replace("(*)", "()")))
        }
        "enum" | "domain" | "type" | "base type" => ("TYPES", format!("TYPE {}", item.identity)),
        "schema" => ("SCHEMAS", item.phrase.clone()),
        _ => return None,
    })
}
