//! What mappers and query builders name: `__table_args__ = {"schema": "eng"}`, `.schema('eng').from('t').insert(...)`.
//!
//! A literal counts by what stands around it: the key or call it is the value of, the call that holds that, and the
//! methods that follow. A class or model that maps a table is taken for one that writes it.

use std::ops::Range;

use super::scan::{Piece, PieceSort};
use super::statement::{Named, Part};
use super::text::HOLE;

/// A name that a mapper or builder uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) range: Range<usize>,
    pub(super) named: Named,
    pub(super) act: MappingAct,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MappingAct {
    /// A model, table or client that stands for it.
    Mapped,
    /// A method that writes: its name.
    Write(String),
    Read,
    /// A handle that may be used for both.
    Handle,
}

/// Everything that is mapped in a stream.
pub(super) fn mappings(source: &str, stream: &[Piece]) -> Vec<Mapping> {
    let around = Around::new(source, stream);
    (0..stream.len()).filter_map(|at| around.mapping(at)).collect()
}

struct Around<'a> {
    source: &'a str,
    stream: &'a [Piece],
    /// For each piece the bracket that it stands in.
    opener: Vec<Option<usize>>,
    /// For each opening bracket the piece behind the one that closes it.
    behind: Vec<usize>,
}

/// For each piece the bracket that it stands in, and for each opening bracket the piece behind the one that closes it.
pub(super) fn brackets(stream: &[Piece]) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut opener = vec![None; stream.len()];
    let mut behind = vec![stream.len(); stream.len()];
    let mut open: Vec<usize> = Vec::new();
    for (at, piece) in stream.iter().enumerate() {
        opener[at] = open.last().copied();
        match piece.sort {
            PieceSort::Mark(b'(' | b'[' | b'{') => open.push(at),
            PieceSort::Mark(b')' | b']' | b'}') => {
                if let Some(open) = open.pop() {
                    opener[at] = opener[open];
                    behind[open] = at + 1;
                }
            }
            _ => {}
        }
    }
    (opener, behind)
}

const MAPPERS: &[&str] = &[
    "__table_args__",
    "table_args",
    "table",
    "metadata",
    "declarative_base",
    "entity",
    "viewentity",
    "define",
    "init",
    "createclient",
    "create_client",
    "createserverclient",
    "createbrowserclient",
    "mappedentity",
    "sea_orm",
    "totable",
    "toview",
    "model",
    "sequelize",
];
const SCHEMA_KEYS: &[&str] = &["schema", "schema_name", "schemaname", "default_schema"];
const NAME_KEYS: &[&str] = &["__tablename__", "db_table", "table_name", "tablename", "dbtable"];
const NAME_CALLS: &[&str] = &["pgtable", "table", "entity", "totable", "mappedentity"];
const DIRECT_WRITES: &[&str] = &["insertinto", "updatetable", "deletefrom", "mergeinto", "insert_into"];
const SOURCES: &[&str] = &["from", "from_", "table", "into"];
/// Calls that change a table which they are given by name, or with its schema beside it.
const CHANGES: &[&str] = &[
    "create_table",
    "drop_table",
    "rename_table",
    "add_column",
    "drop_column",
    "alter_column",
    "remove_column",
    "rename_column",
    "change_column",
    "change_table",
    "create_index",
    "drop_index",
    "add_index",
    "remove_index",
    "batch_alter_table",
    "bulk_insert",
    "to_sql",
    "copy_records_to_table",
    "copy_to_table",
    "createtable",
    "altertable",
    "droptable",
];
/// Methods that follow `update("t")` in a builder, and no other update.
const BUILDS: &[&str] = &["set", "columns", "values", "where", "setmap", "returning"];
const WRITES: &[&str] = &[
    "createtable",
    "altertable",
    "droptable",
    "droptableifexists",
    "insert",
    "upsert",
    "update",
    "delete",
    "del",
    "truncate",
    "increment",
    "decrement",
    "insertmany",
    "updatemany",
    "deletemany",
    "insert_all",
    "update_all",
    "delete_all",
    "destroy",
];

impl<'a> Around<'a> {
    fn new(source: &'a str, stream: &'a [Piece]) -> Self {
        let (opener, behind) = brackets(stream);
        Self { source, stream, opener, behind }
    }

    fn word(&self, at: Option<usize>) -> Option<String> {
        let piece = self.stream.get(at?)?;
        matches!(piece.sort, PieceSort::Word).then(|| self.source[piece.range.clone()].to_ascii_lowercase())
    }

    fn word_in(&self, at: Option<usize>, words: &[&str]) -> bool {
        self.word(at).is_some_and(|word| words.contains(&word.as_str()))
    }

    fn mark(&self, at: Option<usize>, mark: u8) -> bool {
        at.and_then(|at| self.stream.get(at))
            .is_some_and(|piece| matches!(piece.sort, PieceSort::Mark(found) if found == mark))
    }

    fn literal(&self, at: Option<usize>) -> Option<&'a str> {
        match &self.stream.get(at?)?.sort {
            PieceSort::Literal(text) => Some(&text.value),
            _ => None,
        }
    }

    fn before(&self, at: usize) -> Option<usize> {
        (0..at).rev().take(8).find(|at| !matches!(self.stream[*at].sort, PieceSort::Line))
    }

    fn after(&self, at: usize) -> Option<usize> {
        (at + 1..self.stream.len()).take(8).find(|at| !matches!(self.stream[*at].sort, PieceSort::Line))
    }

    /// The word that a key is, bare or in quotes.
    fn key(&self, at: Option<usize>) -> Option<String> {
        self.word(at).or_else(|| self.literal(at).map(str::to_ascii_lowercase))
    }

    /// The calls and assignments that a place stands in, from the inside.
    fn heads(&self, at: usize) -> Vec<String> {
        let mut heads = Vec::new();
        let mut place = at;
        for _ in 0..4 {
            let Some(opener) = self.opener[place] else { break };
            let mut before = self.before(opener);
            if let Some(word) = self.word(before) {
                heads.push(word);
                before = before.and_then(|at| self.before(at));
            }
            if self.mark(before, b'=') || self.mark(before, b':') {
                heads.extend(self.key(before.and_then(|at| self.before(at))));
            }
            place = opener;
        }
        heads
    }

    fn is_mapped(&self, at: usize) -> bool {
        self.heads(at).iter().any(|head| MAPPERS.contains(&head.as_str()))
    }

    fn mapping(&self, at: usize) -> Option<Mapping> {
        if self.word(Some(at)).as_deref() == Some("table") && self.mark(self.after(at), b'!') {
            return self.diesel(at);
        }
        if self.word_in(Some(at), &["schema", "withschema"]) {
            return self.computed(at);
        }
        let value = self.literal(Some(at))?;
        let range = self.stream[at].range.clone();
        let mapped =
            |named: Option<Named>| named.map(|named| Mapping { range: range.clone(), named, act: MappingAct::Mapped });
        let before = self.before(at)?;
        let key = match self.stream[before].sort {
            PieceSort::Mark(b'=' | b':') => self.before(before),
            PieceSort::Mark(b'>') if self.mark(self.before(before), b'=') => {
                self.before(before).and_then(|at| self.before(at))
            }
            PieceSort::Mark(b'(') => return self.argument(at, before, value),
            // `CopyFrom(ctx, pgx.Identifier{"eng", "t"}, ...)`
            PieceSort::Mark(b'{') if self.word_in(self.before(before), &["identifier"]) => {
                let copies = self.heads(at).iter().any(|head| head == "copyfrom");
                let act = if copies { MappingAct::Write("CopyFrom".to_owned()) } else { MappingAct::Handle };
                return schema(value).map(|named| Mapping { range, named, act });
            }
            PieceSort::Mark(b',') => {
                // `ToTable("t", "eng")`
                let call = self.opener[at].and_then(|open| self.before(open));
                let second = self.opener[at]
                    .and_then(|open| self.after(open))
                    .is_some_and(|first| self.literal(Some(first)).is_some() && self.after(first) == Some(before));
                return mapped(schema(value).filter(|_| second && self.word_in(call, &["totable", "toview"])));
            }
            PieceSort::Word if self.word_in(Some(before), &["schema_prefix"]) => return mapped(schema(value)),
            PieceSort::Word if self.word_in(Some(before), &["schema"]) => return mapped(relation(value)),
            PieceSort::Word if self.word_in(Some(before), CHANGES) => {
                let act = MappingAct::Write(self.word(Some(before))?);
                return relation(value).map(|named| Mapping { range, named, act });
            }
            PieceSort::Word if self.word_in(Some(before), &["return"]) => {
                // `func (T) TableName() string { return "eng.t" }`
                let open = self.before(before).filter(|at| self.mark(Some(*at), b'{'));
                let typed = open.and_then(|at| self.before(at)).filter(|at| self.word_in(Some(*at), &["string"]));
                let close = typed.and_then(|at| self.before(at)).filter(|at| self.mark(Some(*at), b')'));
                let name = close.and_then(|at| self.before(at)).and_then(|at| self.before(at));
                return mapped(relation(value).filter(|_| self.word_in(name, &["tablename"])));
            }
            _ => return None,
        };
        let name = self.key(key)?;
        if SCHEMA_KEYS.contains(&name.as_str())
            && let Some(call) = self.heads(at).first().filter(|head| CHANGES.contains(&head.as_str()))
        {
            let act = MappingAct::Write(call.clone());
            return schema(value).map(|named| Mapping { range, named, act });
        }
        if SCHEMA_KEYS.contains(&name.as_str()) && self.is_mapped(at) {
            let heads = self.heads(at);
            let client = heads.iter().any(|head| head.contains("client"));
            let act = if client { MappingAct::Handle } else { MappingAct::Mapped };
            return schema(value).map(|named| Mapping { range, named, act });
        }
        let eloquent = name == "table" && self.mark(key.and_then(|at| self.before(at)), b'$');
        let named = NAME_KEYS.contains(&name.as_str())
            || eloquent
            || (name == "name"
                && self.heads(at).first().is_some_and(|head| matches!(head.as_str(), "table" | "entity")));
        mapped(relation(value).filter(|_| named))
    }

    /// The first argument of a call.
    fn argument(&self, at: usize, open: usize, value: &str) -> Option<Mapping> {
        let call = self.before(open)?;
        let name = self.word(Some(call))?;
        let range = self.stream[at].range.clone();
        let method = self.mark(self.before(call), b'.');
        let attribute = self.mark(self.before(call), b'@');
        let behind = self.behind[open];
        let result = |named: Option<Named>, act: MappingAct| named.map(|named| Mapping { range, named, act });
        match name.as_str() {
            "pgschema" | "hasdefaultschema" => result(schema(value), MappingAct::Mapped),
            "schema" if attribute => result(schema(value), MappingAct::Mapped),
            "map" if attribute => result(relation(value), MappingAct::Mapped),
            "schema" | "withschema" if method => {
                let (first, write) = self.chain(behind);
                let (table, act) = match (first, write) {
                    (Some((_, table)), Some(write)) => (table, MappingAct::Write(write)),
                    (Some((_, table)), None) => (table, MappingAct::Read),
                    (None, Some(write)) => return result(schema(value), MappingAct::Write(write)),
                    (None, None) => return result(schema(value), MappingAct::Handle),
                };
                let part = whole(value)?;
                let name = table.and_then(whole).unwrap_or(Part { text: String::new(), whole: false });
                result(Some(Named::Relation { schema: Some(part), name }), act)
            }
            "insert" | "update" | "delete" if method => {
                let next = self.after(behind.checked_sub(1)?).filter(|dot| self.mark(Some(*dot), b'.'));
                let builds = self.word_in(next.and_then(|dot| self.after(dot)), BUILDS);
                result(relation(value).filter(|_| builds), MappingAct::Write(name))
            }
            _ if DIRECT_WRITES.contains(&name.as_str()) || CHANGES.contains(&name.as_str()) => {
                result(relation(value), MappingAct::Write(name))
            }
            _ if (SOURCES.contains(&name.as_str()) && method) || name == "knex" => {
                if self.follows_schema(call) {
                    return None;
                }
                let (_, write) = self.chain(behind);
                let act = match write {
                    _ if name == "into" => MappingAct::Write("insert".to_owned()),
                    Some(write) => MappingAct::Write(write),
                    None => self.write_before(call).map_or(MappingAct::Read, MappingAct::Write),
                };
                result(relation(value), act)
            }
            _ if NAME_CALLS.contains(&name.as_str()) => result(relation(value), MappingAct::Mapped),
            _ => None,
        }
    }

    /// `.schema(name).from('t').insert(...)`: what is written, only the running program knows.
    fn computed(&self, at: usize) -> Option<Mapping> {
        let open = self.after(at).filter(|open| self.mark(Some(*open), b'('))?;
        let method = self.mark(self.before(at), b'.');
        let computed = self.word(self.after(open)).is_some();
        let (Some(_), Some(write)) = self.chain(self.behind[open]) else { return None };
        let named = Named::Schema(Part { text: String::new(), whole: false });
        let range = self.stream[at].range.start..self.stream[self.behind[open].checked_sub(1)?].range.end;
        (method && computed).then_some(Mapping { range, named, act: MappingAct::Write(write) })
    }

    /// Whether `.schema(...)` stands before a method.
    fn follows_schema(&self, call: usize) -> bool {
        let close = self.before(call).and_then(|dot| self.before(dot)).filter(|at| self.mark(Some(*at), b')'));
        let Some(close) = close else { return false };
        // What closes here was opened where the pieces between stand in it.
        let open = (0..close).rev().take(24).find(|at| self.behind[*at] == close + 1);
        self.word_in(open.and_then(|at| self.before(at)), &["schema", "withschema"])
    }

    /// `db.delete().from("t")`: the method before.
    fn write_before(&self, call: usize) -> Option<String> {
        let close = self.before(call).and_then(|dot| self.before(dot)).filter(|at| self.mark(Some(*at), b')'))?;
        let open = (0..close).rev().take(24).find(|at| self.behind[*at] == close + 1)?;
        self.word(self.before(open)).filter(|word| WRITES.contains(&word.as_str()))
    }

    /// The methods that follow: the first one that names a table, with it, and the first that writes.
    fn chain(&self, behind: usize) -> (Option<(usize, Option<&'a str>)>, Option<String>) {
        let (mut source, mut write) = (None, None);
        let mut at = behind.checked_sub(1).and_then(|at| self.after(at));
        // As long as anybody chains.
        for _ in 0..40 {
            let dot = if self.mark(at, b'?') { at.and_then(|at| self.after(at)) } else { at };
            if !self.mark(dot, b'.') {
                break;
            }
            let name_at = dot.and_then(|at| self.after(at));
            let Some(name) = self.word(name_at) else { break };
            let open = name_at.and_then(|at| self.after(at));
            if !self.mark(open, b'(') {
                at = open;
                continue;
            }
            let open = open.unwrap_or_default();
            if source.is_none() && SOURCES.contains(&name.as_str()) {
                source = Some((open, self.literal(self.after(open))));
            }
            if (WRITES.contains(&name.as_str()) || DIRECT_WRITES.contains(&name.as_str())) && write.is_none() {
                write = Some(name);
            }
            at = self.behind[open].checked_sub(1).and_then(|at| self.after(at));
        }
        (source, write)
    }

    /// `table! { eng.t (id) { ... } }`
    fn diesel(&self, at: usize) -> Option<Mapping> {
        let open = self.after(at).and_then(|at| self.after(at))?;
        for at in (open..self.stream.len()).take(60) {
            let dot = self.after(at);
            let name_at = dot.and_then(|at| self.after(at));
            if let (Some(first), Some(name)) = (self.word(Some(at)), self.word(name_at))
                && self.mark(dot, b'.')
                && self.mark(name_at.and_then(|at| self.after(at)), b'(')
            {
                let part = |text| Part { text, whole: true };
                let named = Named::Relation { schema: Some(part(first)), name: part(name) };
                let range = self.stream[at].range.start..self.stream[name_at?].range.end;
                return Some(Mapping { range, named, act: MappingAct::Mapped });
            }
        }
        None
    }
}

fn whole(value: &str) -> Option<Part> {
    let value = value.trim();
    let name = value.trim_matches(['"', '`']);
    if let Some(hole) = name.find(HOLE) {
        return Some(Part { text: name[..hole].to_owned(), whole: false });
    }
    let plain = |c: char| c.is_alphanumeric() || "_$-".contains(c);
    (!name.is_empty() && name.chars().all(plain)).then(|| Part { text: name.to_owned(), whole: true })
}

fn schema(value: &str) -> Option<Named> {
    whole(value).map(Named::Schema)
}

fn relation(value: &str) -> Option<Named> {
    let mut parts: Vec<Part> = value.split('.').take(4).map(whole).collect::<Option<_>>()?;
    let name = parts.pop()?;
    (parts.len() <= 2).then(|| Named::Relation { schema: parts.pop(), name })
}
