//! The statements that make a target what its shadow is.
//!
//! What PostgreSQL can alter is altered. The rest is dropped and made again, and with it what rests on it; a column whose type is made
//! again becomes `text` for that while. First everything is dropped that must go, what rests on others before the others; then everything
//! is made, in the opposite order. Both orders are the servers' own, from `pg_depend`: of the target for what goes, of the shadow for
//! what comes.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::quote;

use super::alter::{Alter, alter, widens};
use super::compare::Pair;
use super::model::{Item, MEMBER, Snapshot, rank};
use super::order::ordered;
use super::read::granting;

/// One or more statements that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Without the last semicolon.
    pub sql: String,
    /// Whether rows, or a sequence's position, go with it; or it is only there because of one with which they do.
    pub lossy: bool,
}

/// What mends a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mend {
    /// What cannot be used in the transaction that does it: values of enums.
    pub before: Vec<Statement>,
    /// In one transaction, in this order.
    pub statements: Vec<Statement>,
}

impl Mend {
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.statements.is_empty()
    }

    /// A script. What loses data stands in comments, unless `lossy`.
    pub fn script(&self, lossy: bool) -> String {
        let mut out = String::new();
        let write = |out: &mut String, one: &Statement| {
            if one.lossy {
                out.push_str("-- Loses data, or is there for one that does:\n");
            }
            for line in format!("{};", one.sql).lines() {
                if one.lossy && !lossy {
                    out.push_str("-- ");
                }
                out.push_str(line);
                out.push('\n');
            }
        };
        for one in &self.before {
            write(&mut out, one);
        }
        if !self.statements.is_empty() {
            out.push_str("BEGIN;\nSET LOCAL search_path = '';\nSET LOCAL check_function_bodies = off;\n");
            for one in &self.statements {
                write(&mut out, one);
            }
            out.push_str("COMMIT;\n");
        }
        out
    }
}

/// Kinds on which a column rests by its type.
const TYPES: &[&str] = &["enum", "domain", "type", "base type", "collation"];

/// Kinds that are not dropped while an object stands on them.
const HOLDERS: &[&str] = &["schema", "foreign-data wrapper", "server"];

/// Kinds that PostgreSQL makes again by itself when a column's type changes.
const REBUILT: &[&str] = &["index", "constraint", "statistics"];

struct Plan<'a> {
    live: &'a Snapshot,
    shadow: &'a Snapshot,
    live_children: BTreeMap<usize, Vec<usize>>,
    live_dependents: BTreeMap<usize, Vec<usize>>,
    /// What goes, and whether for one that loses data.
    dropped: BTreeMap<usize, bool>,
    /// Columns that become `text` until their type is back.
    retyped: BTreeMap<usize, bool>,
    /// What comes, or is changed, with the statement where it is not `make`.
    made: BTreeMap<usize, (Option<String>, bool)>,
    before: Vec<Statement>,
}

/// What makes the target of the pairs what the shadow is.
pub(super) fn mend(live: &Snapshot, shadow: &Snapshot, pairs: &[Pair]) -> Mend {
    let mut plan = Plan {
        live,
        shadow,
        live_children: grouped((0..live.items.len()).filter_map(|at| Some((live.parent(at)?, at)))),
        live_dependents: grouped(live.rests.iter().map(|(dependent, base)| (*base, *dependent))),
        dropped: BTreeMap::new(),
        retyped: BTreeMap::new(),
        made: BTreeMap::new(),
        before: Vec::new(),
    };
    // What is pulled along by one that loses nothing runs; the rest only for one that does.
    for lossy in [false, true] {
        for pair in pairs {
            plan.take(pair, lossy);
        }
    }
    plan.come_back();
    plan.columns_come_back();
    let mut statements = plan.going();
    statements.extend(plan.coming());
    let database = quote::ident(&live.database).unwrap_or_default();
    let named = |one: Statement| Statement { sql: one.sql.replace("@DATABASE@", &database), ..one };
    Mend { before: plan.before, statements: statements.into_iter().map(named).collect() }
}

fn grouped(pairs: impl Iterator<Item = (usize, usize)>) -> BTreeMap<usize, Vec<usize>> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}

impl Plan<'_> {
    /// Takes a difference up, if it is of the sort of this round.
    fn take(&mut self, pair: &Pair, round: bool) {
        match (pair.live, pair.shadow) {
            (Some(live), None) => {
                if self.loses(live) == round {
                    self.drop(live, round);
                }
            }
            (None, Some(shadow)) => {
                if !round {
                    let item = &self.shadow.items[shadow];
                    // What is to belong to an extension, and is not there at all.
                    let whole = (item.kind == MEMBER && !self.live.has_own(&item.text) && self.has_parent(item))
                        .then(|| format!("{};\n{}", item.alter, item.make));
                    self.made.entry(shadow).or_insert((whole, false));
                }
            }
            (Some(there), Some(wanted)) => {
                let (live, shadow) = (&self.live.items[there], &self.shadow.items[wanted]);
                let alter = alter(live, shadow);
                let lossy = match &alter {
                    Alter::Replace => self.loses(there),
                    Alter::Now(sql) if live.kind == "type" => sql.contains(" DROP ATTRIBUTE "),
                    Alter::Now(_) => {
                        live.kind == "column" && live.frame == shadow.frame && !widens(&live.text, &shadow.text)
                    }
                    Alter::Before(_) => false,
                };
                if lossy != round {
                    return;
                }
                match alter {
                    Alter::Before(statements) => {
                        self.before.extend(statements.into_iter().map(|sql| Statement { sql, lossy: false }));
                    }
                    Alter::Now(sql) => {
                        if live.kind == "column" && live.frame == shadow.frame {
                            self.free(there, lossy, REBUILT);
                        }
                        self.made.insert(wanted, (Some(sql), lossy));
                    }
                    Alter::Replace => {
                        self.drop(there, lossy);
                        self.made.insert(wanted, (None, lossy));
                    }
                }
            }
            (None, None) => {}
        }
    }

    fn loses(&self, live: usize) -> bool {
        let item = &self.live.items[live];
        item.flags.lossy && !self.stays(item)
    }

    /// Whether an item belongs to an extension, and should be there without belonging to it.
    fn stays(&self, live: &Item) -> bool {
        live.kind == MEMBER && self.shadow.has_own(&live.text)
    }

    /// Whether the extension that a missing member belongs to is there: else it comes with it.
    fn has_parent(&self, shadow: &Item) -> bool {
        let extension = shadow.parent.and_then(|address| self.shadow.exactly(address));
        extension.is_some_and(|at| self.live.find("extension", &self.shadow.items[at].identity).is_some())
    }

    /// Drops an item, what stands on it, and what rests on it.
    fn drop(&mut self, at: usize, lossy: bool) {
        if self.dropped.contains_key(&at) {
            return;
        }
        self.dropped.insert(at, lossy);
        self.retyped.remove(&at);
        for child in self.live_children.get(&at).cloned().unwrap_or_default() {
            self.drop(child, lossy);
        }
        let is_type = TYPES.contains(&self.live.items[at].kind.as_str());
        for dependent in self.live_dependents.get(&at).cloned().unwrap_or_default() {
            if is_type && self.live.items[dependent].kind == "column" && self.live.items[dependent].frame.is_empty() {
                self.retype(dependent, lossy);
            } else {
                self.drop(dependent, lossy);
            }
        }
    }

    fn retype(&mut self, column: usize, lossy: bool) {
        if self.dropped.contains_key(&column) || self.retyped.contains_key(&column) {
            return;
        }
        self.retyped.insert(column, lossy);
        self.free(column, lossy, &[]);
    }

    /// Takes away what keeps a column's type from being changed.
    fn free(&mut self, column: usize, lossy: bool, but: &[&str]) {
        for child in self.live_children.get(&column).cloned().unwrap_or_default() {
            if self.live.items[child].kind == "default" {
                self.drop(child, lossy);
            }
        }
        for dependent in self.live_dependents.get(&column).cloned().unwrap_or_default() {
            if !but.contains(&self.live.items[dependent].kind.as_str()) {
                self.drop(dependent, lossy);
            }
        }
    }

    /// What goes and should be there is made again.
    fn come_back(&mut self) {
        for (at, lossy) in &self.dropped {
            let item = &self.live.items[*at];
            if let Some(wanted) = self.shadow.find(&item.kind, &item.identity) {
                // One that is made anyway needs no other statement, as the old one is gone.
                let entry = self.made.entry(wanted).or_insert((None, *lossy));
                entry.0 = None;
            }
        }
        for (at, lossy) in &self.retyped {
            let item = &self.live.items[*at];
            if let Some(wanted) = self.shadow.find(&item.kind, &item.identity) {
                let sql = self.shadow.items[wanted].alter.clone();
                self.made.entry(wanted).or_insert((Some(sql), *lossy));
            }
        }
    }

    /// What is revoked from a role on a table goes from its columns too.
    fn columns_come_back(&mut self) {
        let gone = self.dropped.iter().map(|(at, lossy)| (&self.live.items[*at], *lossy));
        let changed = self.made.iter().map(|(at, (_, lossy))| (&self.shadow.items[*at], *lossy));
        let tables: Vec<(String, String, bool)> = gone
            .chain(changed)
            .filter(|(item, _)| item.kind == "grant")
            .filter_map(|(item, lossy)| {
                let (place, role) = item.identity.rsplit_once(" to ")?;
                Some((format!("{place} ("), format!(" to {role}"), lossy))
            })
            .collect();
        for (at, item) in self.shadow.items.iter().enumerate().filter(|(_, item)| item.kind == "column grant") {
            let table = tables
                .iter()
                .find(|(place, role, _)| item.identity.starts_with(place) && item.identity.ends_with(role.as_str()));
            if let Some((_, _, lossy)) = table {
                self.made.entry(at).or_insert((None, *lossy));
            }
        }
    }

    /// The dropped item whose statement takes this one along.
    fn taker(&self, at: usize) -> usize {
        let mut at = at;
        while let Some(parent) = self.live.parent(at).filter(|parent| self.dropped.contains_key(parent)) {
            // Two tables with foreign keys to each other: the keys first.
            let item = &self.live.items[at];
            let apart = item.kind == "constraint" && item.text.starts_with("FOREIGN KEY") && !item.flags.follows
                || matches!(item.kind.as_str(), "partition" | "inheritance" | "owned by")
                || (item.address.is_some() && HOLDERS.contains(&self.live.items[parent].kind.as_str()));
            if apart {
                break;
            }
            at = parent;
        }
        at
    }

    fn going(&self) -> Vec<Statement> {
        let nodes: BTreeSet<usize> =
            self.dropped.keys().map(|at| self.taker(*at)).chain(self.retyped.keys().copied()).collect();
        let node = |at: usize| if self.dropped.contains_key(&at) { self.taker(at) } else { at };
        let rests = self.live.rests.iter().map(|(dependent, base)| (node(*dependent), node(*base)));
        let stands = nodes.iter().filter_map(|at| Some((*at, node(self.live.parent(*at)?))));
        let edges: Vec<_> = rests.chain(stands).collect();
        let order = ordered(&nodes, &edges, |at| std::cmp::Reverse(rank(&self.live.items[at].kind)));
        order
            .into_iter()
            .filter_map(|at| {
                let item = &self.live.items[at];
                let partition = matches!(item.kind.as_str(), "partition" | "inheritance")
                    && self.live.parent(at).is_some_and(|table| self.dropped.contains_key(&table));
                if item.flags.follows || partition {
                    return None;
                }
                let (sql, lossy) = match self.retyped.get(&at) {
                    Some(lossy) => (as_text(item), *lossy),
                    None if item.kind == MEMBER && !self.stays(item) => {
                        (format!("{};\n{}", item.drop, item.frame), *self.dropped.get(&at)?)
                    }
                    None => (item.drop.clone(), *self.dropped.get(&at)?),
                };
                (!sql.is_empty()).then_some(Statement { sql, lossy })
            })
            .collect()
    }

    /// Whether an item is made by the statement of what it stands on: that one's position.
    fn maker(&self, at: usize) -> usize {
        let mut at = at;
        let makes = |at: usize| matches!(self.made.get(&at), Some((None, _))) && !self.shadow.items[at].flags.follows;
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

    fn coming(&self) -> Vec<Statement> {
        let makers: BTreeMap<usize, usize> = self.made.keys().map(|at| (*at, self.maker(*at))).collect();
        let nodes: BTreeSet<usize> = makers.values().copied().collect();
        let node = |at: usize| makers.get(&at).copied().unwrap_or(at);
        let rests = self.shadow.rests.iter().map(|(dependent, base)| (node(*base), node(*dependent)));
        let stands = self.made.keys().filter_map(|at| Some((node(self.shadow.parent(*at)?), node(*at))));
        let edges: Vec<_> = rests.chain(stands).collect();
        let order = ordered(&nodes, &edges, |at| {
            let item = &self.shadow.items[at];
            (rank(&item.kind), item.identity.clone())
        });
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
                (!item.flags.follows && !sql.is_empty() && !own).then(|| Statement { sql: whole(), lossy: *lossy })
            })
            .collect()
    }

    /// The statements that give a new object the privileges that it has where nobody spoke of default privileges: the shadow's own come
    /// behind, and whether those are of defaults there is not known.
    fn as_granted_by_none(&self, at: usize) -> Vec<String> {
        let item = &self.shadow.items[at];
        let is_new = matches!(self.made.get(&at), Some((None, _))) && !item.flags.follows;
        let Some((class, place)) = granted(item).filter(|_| is_new) else { return Vec::new() };
        let creator = quote::ident(&self.live.user).unwrap_or_default();
        let schema = self.schema_of(at);
        let said = self.live.defaults.iter().filter(|one| {
            one.creator == creator
                && one.class == class
                && (one.schema.is_empty() || Some(one.schema.as_str()) == schema)
        });
        said.map(|one| granting("", &one.base, &place, "", &one.grantee)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_data_stands_in_comments() {
        let mend = Mend {
            before: Vec::new(),
            statements: vec![
                Statement { sql: "DROP VIEW v".into(), lossy: false },
                Statement { sql: "DROP TABLE t".into(), lossy: true },
            ],
        };
        let script = mend.script(false);
        assert!(script.contains("\nDROP VIEW v;\n") && script.contains("\n-- DROP TABLE t;\n"), "{script}");
        assert!(mend.script(true).contains("\nDROP TABLE t;\n"));
    }
}
