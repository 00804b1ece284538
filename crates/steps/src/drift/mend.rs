//! The statements that make a target what its shadow is.
//!
//! What PostgreSQL can alter is altered. The rest is dropped and made again, and with it what rests on it; a column whose type is made
//! again becomes `text` for that while. First everything is dropped that must go, what rests on others before the others; then everything
//! is made, in the opposite order. Both orders are the servers' own, from `pg_depend`: of the target for what goes, of the shadow for
//! what comes.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::quote;

use super::alter::{Alter, alter, narrows, widens};
use super::compare::Pair;
use super::follow::Moved;
use super::model::{Item, MEMBER, Snapshot};

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
pub(super) const HOLDERS: &[&str] = &["schema", "foreign-data wrapper", "server", "extension"];

/// Kinds that PostgreSQL makes again by itself when a column's type changes.
const REBUILT: &[&str] = &["index", "constraint", "statistics"];

pub(super) struct Plan<'a> {
    pub(super) live: &'a Snapshot,
    pub(super) shadow: &'a Snapshot,
    live_children: BTreeMap<usize, Vec<usize>>,
    live_dependents: BTreeMap<usize, Vec<usize>>,
    /// What goes, and whether for one that loses data.
    pub(super) dropped: BTreeMap<usize, bool>,
    /// Columns that become `text` until their type is back.
    pub(super) retyped: BTreeMap<usize, bool>,
    /// What comes, or is changed, with the statement where it is not `make`.
    pub(super) made: BTreeMap<usize, (Option<String>, bool)>,
    before: Vec<Statement>,
    pub(super) moved: Moved,
    /// What has to be done before anything can go, by what it is done to.
    first: BTreeMap<usize, Statement>,
    /// What takes all privileges on an object away, in place of what drops one of them.
    pub(super) resets: BTreeMap<usize, String>,
    /// Grants, and those that rest on them: the first before the second.
    pub(super) by_whom: Vec<(usize, usize)>,
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
        moved: Moved::of(live, shadow),
        first: BTreeMap::new(),
        resets: BTreeMap::new(),
        by_whom: Vec::new(),
    };
    // What is pulled along by one that loses nothing runs; the rest only for one that does.
    for lossy in [false, true] {
        for pair in pairs {
            plan.take(pair, lossy);
        }
    }
    plan.come_back();
    plan.columns_come_back();
    plan.grants_of_others();
    let first = plan.first.iter().filter(|(at, _)| !plan.dropped.contains_key(at)).map(|(_, one)| one.clone());
    let mut statements: Vec<Statement> = first.collect();
    statements.extend(plan.going());
    statements.extend(plan.coming());
    let database = quote::ident(&live.database).unwrap_or_default();
    let named = |one: Statement| Statement { sql: one.sql.replace("@DATABASE@", &database), ..one };
    Mend { before: plan.before, statements: statements.into_iter().map(named).collect() }
}

pub(super) fn grouped(pairs: impl Iterator<Item = (usize, usize)>) -> BTreeMap<usize, Vec<usize>> {
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
                    let sql = self.member(shadow);
                    self.made.entry(shadow).or_insert((sql, false));
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
                            || narrows(live, shadow)
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

    /// Whether data goes with an item, or with what goes with it.
    fn loses(&self, live: usize) -> bool {
        let (mut left, mut seen) = (vec![live], BTreeSet::new());
        while let Some(at) = left.pop() {
            let item = &self.live.items[at];
            if !seen.insert(at) {
                continue;
            }
            if item.flags.lossy && !self.stays(item) {
                return true;
            }
            left.extend(self.live_children.get(&at).into_iter().flatten());
            left.extend(self.live_dependents.get(&at).into_iter().flatten().filter(|dependent| {
                let kept = &self.live.items[**dependent];
                let is_wanted = self.shadow.find(&kept.kind, &kept.identity).is_some();
                !(is_wanted && self.is_retyped(at, **dependent) || self.is_let_go(at, **dependent))
            }));
        }
        false
    }

    /// Whether a column outlives its type, as `text`.
    fn is_retyped(&self, base: usize, dependent: usize) -> bool {
        let (base, dependent) = (&self.live.items[base], &self.live.items[dependent]);
        TYPES.contains(&base.kind.as_str()) && dependent.kind == "column" && dependent.frame.is_empty()
    }

    /// Whether a foreign-data wrapper outlives its functions: what stands on it has passwords that nobody can give again.
    fn is_let_go(&self, base: usize, dependent: usize) -> bool {
        self.live.items[base].kind == "function" && self.live.items[dependent].kind == "foreign-data wrapper"
    }

    /// Whether an item belongs to an extension, and should be there without belonging to it.
    pub(super) fn stays(&self, live: &Item) -> bool {
        live.kind == MEMBER && self.shadow.has_own(&live.text)
    }

    /// What makes a thing belong to an extension; `None` for what its script makes, and for anything else.
    fn member(&self, shadow: usize) -> Option<String> {
        let item = &self.shadow.items[shadow];
        if item.kind != MEMBER || !(item.flags.later || self.has_parent(item)) {
            return None;
        }
        let is_there = self.live.has_own(&item.text);
        Some(if is_there { item.make.clone() } else { format!("{};\n{}", item.alter, item.make) })
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
        for dependent in self.live_dependents.get(&at).cloned().unwrap_or_default() {
            if self.is_retyped(at, dependent) {
                self.retype(dependent, lossy);
            } else if self.is_let_go(at, dependent) {
                self.let_go(dependent, lossy);
            } else {
                self.drop(dependent, lossy);
            }
        }
    }

    fn let_go(&mut self, wrapper: usize, lossy: bool) {
        let item = &self.live.items[wrapper];
        let sql = format!("ALTER {} NO HANDLER NO VALIDATOR", item.phrase);
        self.first.insert(wrapper, Statement { sql, lossy });
        if let Some(wanted) = self.shadow.find(&item.kind, &item.identity) {
            let sql = self.shadow.items[wanted].alter.clone();
            self.made.entry(wanted).or_insert((Some(sql), lossy));
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
                let sql = Some(wanted).filter(|at| self.shadow.items[*at].flags.later).and_then(|at| self.member(at));
                let entry = self.made.entry(wanted).or_insert((None, *lossy));
                entry.0 = sql;
            }
        }
        // A type that has a shell was dropped with it: its functions need one before the type is there.
        let filled = self.made.iter().filter(|(_, (sql, _))| sql.is_none());
        let shells: Vec<(usize, bool)> =
            filled.filter_map(|(at, (_, lossy))| Some((shell(self.shadow, *at)?, *lossy))).collect();
        for (shell, lossy) in shells {
            self.made.entry(shell).or_insert((None, lossy));
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
}

/// The shell that a type begins as.
fn shell(snapshot: &Snapshot, at: usize) -> Option<usize> {
    let item = &snapshot.items[at];
    let is_type = matches!(item.kind.as_str(), "type" | "base type");
    snapshot.find("shell type", &item.identity).filter(|_| is_type)
}

/// The kind as which an item stands in an order: between a shell and what fills it are functions.
pub(super) fn kind(snapshot: &Snapshot, at: usize) -> &str {
    if shell(snapshot, at).is_some() { "base type" } else { &snapshot.items[at].kind }
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
