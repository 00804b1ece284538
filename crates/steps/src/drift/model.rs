//! What a database is made of, as rows that can be compared.

use std::collections::{HashMap, HashSet};

/// Catalogue, object, and number of a column: as `pg_depend` names things.
pub type Address = (u32, u32, i32);

/// The kinds, in the order in which they are made where nothing else orders them.
pub const KINDS: &[&str] = &[
    "schema",
    "extension",
    "extension schema",
    "extension version",
    "language",
    "collation",
    "conversion",
    "shell type",
    "enum",
    "domain",
    "type",
    "sequence",
    "function",
    "procedure",
    // Its functions come between it and its shell.
    "base type",
    "aggregate",
    "transform",
    "cast",
    "operator family",
    "operator",
    "operator class",
    "family member",
    "access method",
    "text search parser",
    "text search template",
    "text search dictionary",
    "text search configuration",
    "text search mapping",
    "foreign-data wrapper",
    "server",
    "server version",
    "user mapping",
    "table",
    "foreign table",
    "type of table",
    "unlogged",
    "access method of a table",
    "tablespace",
    "inheritance",
    "partition",
    "column",
    "not null",
    "identity",
    "default",
    "owned by",
    "storage",
    "compression",
    "view",
    "materialized view",
    "constraint",
    "index",
    "enforcement",
    "replica identity",
    "clustered on",
    "statistics",
    "statistics target",
    "option",
    "rule",
    "trigger",
    "policy",
    "row security",
    "forced row security",
    "publication",
    "publication parameters",
    "published table",
    "published schema",
    "subscription",
    "subscribed publications",
    "subscription parameters",
    "comment",
    "security label",
    "extension member",
    "goes with extension",
    "owner",
    "default privileges",
    "grant",
    "column grant",
    "setting",
    "firing",
    "event trigger",
];

/// Where a kind stands in [`KINDS`]; a kind without a place comes last.
pub fn rank(kind: &str) -> usize {
    KINDS.iter().position(|one| *one == kind).unwrap_or(KINDS.len())
}

/// The kind of what belongs to an extension: its phrase is the text. What it is made of is the extension's version's business.
pub const MEMBER: &str = "extension member";

/// How an item comes and goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Made by the statement that makes what it stands on.
    pub with_parent: bool,
    /// Also by the one that makes what that stands on.
    pub with_grandparent: bool,
    /// Comes and goes with the same of another table: no statement of its own.
    pub follows: bool,
    /// Dropping it loses rows, or a sequence's position.
    pub lossy: bool,
    /// Making it again changes it.
    pub set: bool,
    /// Belongs to an extension whose script does not make it.
    pub later: bool,
}

impl Flags {
    pub fn parse(text: &str) -> Self {
        let has = |c: char| text.contains(c);
        Self {
            with_parent: has('w') || has('W'),
            with_grandparent: has('W'),
            follows: has('f'),
            lossy: has('l'),
            set: has('s'),
            later: false,
        }
    }
}

/// One thing that a database has: an object, or one quality of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    pub kind: String,
    /// Tells it from others of its kind.
    pub identity: String,
    pub address: Option<Address>,
    /// What it stands on, and goes away with.
    pub parent: Option<Address>,
    /// What it needs beside.
    pub needs: Option<Address>,
    /// What `COMMENT ON` calls it; empty where there is no comment.
    pub phrase: String,
    /// What is compared.
    pub text: String,
    /// What no `ALTER` changes; of an extension's member what drops it.
    pub frame: String,
    pub make: String,
    /// Changes one that is there; of an enum its labels, of a composite type its attributes, of an extension's member what makes it.
    pub alter: String,
    pub drop: String,
    pub flags: Flags,
}

/// What `ALTER DEFAULT PRIVILEGES` said of one role. Names are quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultPrivileges {
    pub creator: String,
    /// Empty: all.
    pub schema: String,
    /// `TABLES`, `SEQUENCES`, `FUNCTIONS`, `TYPES` or `SCHEMAS`.
    pub class: String,
    pub grantee: String,
    /// What that role has without it, as [`super::read::granting`] takes it.
    pub base: String,
}

/// All items of a database, under one snapshot.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub items: Vec<Item>,
    by_name: HashMap<(String, String), usize>,
    by_address: HashMap<Address, usize>,
    /// What an address that is no item's belongs to.
    whole: HashMap<Address, Address>,
    /// What new objects are granted beyond, or beneath, what PostgreSQL grants.
    pub defaults: Vec<DefaultPrivileges>,
    /// What belongs to extensions, by phrase.
    pub members: HashSet<String>,
    /// What rests on what, by position; `None` until it was read.
    pub rests: Vec<(usize, usize)>,
    pub database: String,
    /// The role that reads, and will mend.
    pub user: String,
    /// `server_version_num`.
    pub version: u32,
}

impl Snapshot {
    /// Takes an item up; of two of one name (an overloaded identity), the first stays.
    pub fn push(&mut self, item: Item) {
        let at = self.items.len();
        if let Some(address) = item.address {
            self.by_address.insert(address, at);
        }
        self.by_name.entry((item.kind.clone(), item.identity.clone())).or_insert(at);
        self.items.push(item);
    }

    pub fn find(&self, kind: &str, identity: &str) -> Option<usize> {
        self.by_name.get(&(kind.to_owned(), identity.to_owned())).copied()
    }

    /// The item at an address, or the one that the address is a part of.
    pub fn at(&self, address: Address) -> Option<usize> {
        let mut address = address;
        // A part of a part of a part is as deep as catalogs go.
        for _ in 0..4 {
            let found = self.by_address.get(&address).or_else(|| self.by_address.get(&(address.0, address.1, 0)));
            if let Some(at) = found {
                return Some(*at);
            }
            address = *self.whole.get(&address).or_else(|| self.whole.get(&(address.0, address.1, 0)))?;
        }
        None
    }

    /// Says that an address that is no item's belongs to another.
    pub fn part(&mut self, part: Address, whole: Address) {
        self.whole.insert(part, whole);
    }

    /// Whether there is something that `COMMENT ON` calls so, which belongs to no extension.
    pub fn has_own(&self, phrase: &str) -> bool {
        self.items.iter().any(|item| item.phrase == phrase)
    }

    /// Only an exact hit.
    pub fn exactly(&self, address: Address) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    pub fn parent(&self, at: usize) -> Option<usize> {
        self.items[at].parent.and_then(|address| self.at(address)).filter(|parent| *parent != at)
    }

    /// Takes up the rows of `pg_depend`: what is a part of a whole, and what rests on what.
    pub fn rest(&mut self, rows: &[(Address, Address, char)]) {
        for (part, whole, kind) in rows {
            // A generated column's expression is `a` on its column; a member of an extension is `e`.
            let part_of = matches!(kind, 'i' | 'e') || (part.0 == ATTRDEF && *kind == 'a');
            if part_of && self.exactly(*part).is_none() {
                self.whole.entry(*part).or_insert(*whole);
            }
        }
        let mut rests = Vec::new();
        for (from, to, kind) in rows {
            let (Some(dependent), Some(base)) = (self.at(*from), self.at(*to)) else { continue };
            // A sequence's owner is an item of its own.
            let owned = *kind == 'a' && self.items[dependent].kind == "sequence";
            if dependent != base && !owned {
                rests.push((dependent, base));
            }
        }
        for (at, item) in self.items.iter().enumerate() {
            if let Some(base) = item.needs.and_then(|address| self.at(address)).filter(|base| *base != at) {
                rests.push((at, base));
            }
        }
        rests.sort_unstable();
        rests.dedup();
        self.rests = rests;
    }
}

/// `pg_attrdef`.
const ATTRDEF: u32 = 2604;
