//! The catalogs in one snapshot, as text in two round trips, taken apart into values.

mod query;

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::{PgError, Session};

use super::sql::{ident, literal, qualified};
use crate::topology::{Kind, Object, Privilege, Topology};

/// What the server tells objects by; 0 as a grantee is PUBLIC.
pub type Oid = u32;

/// The grantee that is everybody.
pub const PUBLIC: Oid = 0;

/// The superuser that `initdb` made.
pub const BOOTSTRAP: Oid = 10;

#[derive(Debug)]
pub struct Role {
    pub oid: Oid,
    pub name: String,
    pub superuser: bool,
    pub create_role: bool,
    pub create_db: bool,
    pub login: bool,
    pub replication: bool,
    pub bypass_rls: bool,
}

/// One entry of `pg_auth_members`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub member: Oid,
    pub of: Oid,
    pub grantor: Oid,
    pub admin: bool,
    pub inherit: bool,
    pub set: bool,
}

#[derive(Debug)]
pub struct Database {
    pub oid: Oid,
    pub name: String,
    pub owner: Oid,
    pub connectable: bool,
    pub current: bool,
}

#[derive(Debug)]
pub struct Schema {
    pub oid: Oid,
    pub name: String,
    pub owner: Oid,
    pub extension: bool,
}

#[derive(Debug)]
pub struct Relation {
    pub oid: Oid,
    pub schema: Oid,
    pub object: Object,
    pub owner: Oid,
    pub row_security: bool,
    pub force: bool,
    /// A view that checks its reader's rights.
    pub invoker: bool,
    pub extension: bool,
    /// `pg_relation_is_updatable` of a view.
    pub updatable: i32,
    /// A view's text.
    pub definition: Option<String>,
    /// A sequence that belongs to a column.
    pub follows: bool,
}

impl Relation {
    /// As SQL names it.
    pub fn sql(&self) -> String {
        qualified(&self.object.schema, &self.object.name)
    }

    /// The keyword of `ALTER`.
    pub fn word(&self) -> &'static str {
        match self.object.kind {
            Kind::View => "VIEW",
            Kind::MaterializedView => "MATERIALIZED VIEW",
            Kind::ForeignTable => "FOREIGN TABLE",
            Kind::Sequence => "SEQUENCE",
            _ => "TABLE",
        }
    }
}

#[derive(Debug)]
pub struct Routine {
    pub oid: Oid,
    pub schema: Oid,
    /// Its name goes with its argument types.
    pub object: Object,
    pub name: String,
    pub arguments: String,
    pub owner: Oid,
    pub definer: bool,
    pub language: String,
    /// `name=value`
    pub settings: Vec<String>,
    pub extension: Option<String>,
    pub body: Option<String>,
    pub trigger: bool,
}

impl Routine {
    /// As SQL names it.
    pub fn sql(&self) -> String {
        format!("{}({})", qualified(&self.object.schema, &self.name), self.arguments)
    }

    /// Its own `search_path`.
    pub fn search_path(&self) -> Option<Vec<String>> {
        let value = self.settings.iter().find_map(|setting| setting.strip_prefix("search_path="))?;
        Some(super::sql::names_of_path(value))
    }
}

#[derive(Debug)]
pub struct Type {
    pub oid: Oid,
    pub schema: Oid,
    pub object: Object,
    pub owner: Oid,
    pub extension: bool,
}

/// What kind of object an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Relation,
    Routine,
    Type,
    Schema,
    Database,
}

impl Class {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "relation" => Some(Self::Relation),
            "routine" => Some(Self::Routine),
            "type" => Some(Self::Type),
            "schema" => Some(Self::Schema),
            "database" => Some(Self::Database),
            _ => None,
        }
    }
}

/// One privilege of one grantee that is not the owner.
#[derive(Debug, Clone)]
pub struct Entry {
    pub class: Class,
    pub object: Oid,
    pub column: Option<String>,
    pub grantor: Oid,
    pub grantee: Oid,
    pub privilege: Privilege,
    pub grantable: bool,
}

/// The same of what is in no declared kind of place: a language, a large object, a function of the system.
#[derive(Debug)]
pub struct NamedEntry {
    /// The keyword of `GRANT ... ON`.
    pub word: String,
    pub schema: Option<String>,
    pub name: String,
    pub arguments: Option<String>,
    pub column: Option<String>,
    pub grantor: Oid,
    pub grantee: Oid,
    pub privilege: Privilege,
    pub owner: Oid,
}

impl NamedEntry {
    /// As SQL names it, behind the keyword.
    pub fn sql(&self) -> String {
        match (&self.schema, &self.arguments) {
            (Some(schema), Some(arguments)) => format!("{}({arguments})", qualified(schema, &self.name)),
            (Some(schema), None) => qualified(schema, &self.name),
            (None, _) if self.word == "LARGE OBJECT" => self.name.clone(),
            // A parameter's name has a dot of its own.
            (None, _) if self.word == "PARAMETER" => self.name.split('.').map(ident).collect::<Vec<_>>().join("."),
            (None, _) => ident(&self.name),
        }
    }
}

#[derive(Debug)]
pub struct Default {
    pub creator: Oid,
    /// 0: in every schema.
    pub schema: Oid,
    /// `r`, `S`, `f`, `T` or `n`.
    pub class: char,
    /// None where the list is empty.
    pub given: Option<(Oid, Privilege)>,
}

#[derive(Debug)]
pub struct Rewrite {
    pub relation: Oid,
    pub name: String,
    /// 1 SELECT, 2 UPDATE, 3 INSERT, 4 DELETE.
    pub event: char,
    pub refers: Oid,
}

#[derive(Debug)]
pub struct Policy {
    pub relation: Oid,
    pub name: String,
    /// `r`, `a`, `w`, `d` or `*`.
    pub command: char,
    pub permissive: bool,
    pub roles: Vec<Oid>,
    pub using: Option<String>,
    pub check: Option<String>,
}

#[derive(Debug)]
pub struct Trigger {
    pub relation: Oid,
    pub name: String,
    pub function: Oid,
    pub bits: i32,
    /// `O`, `D`, `R` or `A`.
    pub enabled: char,
    /// Only for some rows.
    pub conditional: bool,
    /// An UPDATE only of some columns.
    pub columns: bool,
}

#[derive(Debug)]
pub struct ForeignKey {
    pub name: String,
    pub from: Oid,
    pub to: Oid,
    pub on_delete: char,
    pub on_update: char,
    pub definition: String,
}

#[derive(Debug)]
pub struct Setting {
    /// 0: every one.
    pub database: Oid,
    /// 0: every one.
    pub role: Oid,
    pub name: String,
    pub value: String,
}

#[derive(Debug)]
pub struct Server {
    pub oid: Oid,
    pub name: String,
    pub wrapper: String,
    pub options: String,
}

#[derive(Debug)]
pub struct UserMapping {
    pub server: Oid,
    pub user: Oid,
    /// None where they may not be read.
    pub options: Option<String>,
}

#[derive(Debug)]
pub struct ForeignTable {
    pub relation: Oid,
    pub server: Oid,
    pub options: String,
}

/// How a publication comes to hold something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Published {
    Everything,
    Schema(Oid),
    Table(Oid),
}

#[derive(Debug)]
pub struct Publication {
    pub name: String,
    pub owner: Oid,
    pub what: Published,
}

#[derive(Debug)]
pub struct Subscription {
    pub name: String,
    pub owner: Oid,
    pub connection: Option<String>,
    pub relation: Option<Oid>,
}

#[derive(Debug)]
pub struct EventTrigger {
    pub name: String,
    pub owner: Oid,
    /// `schema.name`
    pub function: String,
    pub function_owner: Oid,
}

#[derive(Debug)]
pub struct Comment {
    pub kind: String,
    pub identity: String,
    pub text: String,
}

#[derive(Debug)]
pub struct Owned {
    pub owner: Oid,
    pub database: Oid,
    /// Kind and identity; none for what is in another database.
    pub what: Option<(String, String)>,
    pub count: usize,
}

/// What was there, in one snapshot.
#[derive(Debug)]
pub struct Catalog {
    pub version: u32,
    pub database: String,
    pub session_user: String,
    /// Whether everything could be read.
    pub reads_connections: bool,
    pub roles: BTreeMap<Oid, Role>,
    pub members: Vec<Member>,
    pub databases: Vec<Database>,
    pub schemas: BTreeMap<Oid, Schema>,
    pub relations: BTreeMap<Oid, Relation>,
    pub routines: BTreeMap<Oid, Routine>,
    pub types: BTreeMap<Oid, Type>,
    /// Without what extensions' objects had from the beginning.
    pub acl: Vec<Entry>,
    pub acl_read: usize,
    /// Functions of extensions that everybody may execute, because nobody took it away.
    pub default_execute: BTreeSet<Oid>,
    pub named_acl: Vec<NamedEntry>,
    pub defaults: Vec<Default>,
    /// Parent and child.
    pub partitions: Vec<(Oid, Oid)>,
    pub rewrites: Vec<Rewrite>,
    /// Relation, name and text.
    pub rules: Vec<(Oid, String, String)>,
    pub policies: Vec<Policy>,
    pub triggers: Vec<Trigger>,
    pub foreign_keys: Vec<ForeignKey>,
    pub settings: Vec<Setting>,
    pub servers: Vec<Server>,
    pub user_mappings: Vec<UserMapping>,
    pub foreign_tables: Vec<ForeignTable>,
    pub publications: Vec<Publication>,
    /// Publications that a transfer keeps for its way back, and the schema of each.
    pub kept_publications: BTreeMap<String, String>,
    pub subscriptions: Vec<Subscription>,
    pub event_triggers: Vec<EventTrigger>,
    pub comments: Vec<Comment>,
    pub owned: Vec<Owned>,
}

impl Catalog {
    /// A role's name; `PUBLIC` for nobody in particular, its number where it was dropped meanwhile.
    pub fn role_name(&self, oid: Oid) -> String {
        match self.roles.get(&oid) {
            Some(role) => role.name.clone(),
            None if oid == PUBLIC => "PUBLIC".to_owned(),
            None => format!("role {oid}"),
        }
    }

    /// A grantee as SQL names it.
    pub fn grantee_sql(&self, oid: Oid) -> String {
        if oid == PUBLIC { "PUBLIC".to_owned() } else { ident(&self.role_name(oid)) }
    }

    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.values().find(|role| role.name == name)
    }

    pub fn schema_name(&self, oid: Oid) -> &str {
        self.schemas.get(&oid).map_or("", |schema| schema.name.as_str())
    }

    /// A table by its names.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.values().find(|one| one.object.schema == schema && one.object.name == name)
    }
}

/// One row, read from left to right.
struct Row(std::vec::IntoIter<Option<String>>);

impl Row {
    fn option(&mut self) -> Option<String> {
        self.0.next().flatten()
    }

    fn text(&mut self) -> String {
        self.option().unwrap_or_default()
    }

    fn number<T: std::str::FromStr + std::default::Default>(&mut self) -> T {
        self.text().parse().unwrap_or_default()
    }

    fn is(&mut self) -> bool {
        self.text() == "t"
    }

    fn char(&mut self) -> char {
        self.text().chars().next().unwrap_or(' ')
    }
}

/// The answers of a text of many queries, in their order.
struct Answers(std::vec::IntoIter<pgrunbook_postgres::Answer>);

impl Answers {
    fn rows(&mut self) -> impl Iterator<Item = Row> + use<> {
        let answer = self.0.next().unwrap_or_default();
        answer.rows.into_iter().map(|row| Row(row.into_iter()))
    }

    fn each<T>(&mut self, read: impl FnMut(Row) -> T) -> Vec<T> {
        self.rows().map(read).collect()
    }
}

/// Reads everything. `search_path` is `pg_catalog`, in a transaction of one snapshot.
///
/// # Errors
/// If the server refuses a query.
pub async fn read(session: &Session, topology: &Topology) -> Result<Catalog, PgError> {
    let mut who = Answers(session.simple(query::WHO).await?.into_iter());
    let mut row = who.rows().next().unwrap_or(Row(Vec::new().into_iter()));
    let version: u32 = row.number();
    let (database, session_user) = (row.text(), row.text());
    let reads_connections = row.is() | row.is();
    let bounded: Vec<String> = topology.bounded_roles().map(|role| literal(&role.name)).collect();
    // `IN ()` is no SQL.
    let bounded = if bounded.is_empty() { "NULL".to_owned() } else { bounded.join(", ") };
    let owned = query::OWNED.replace("{roles}", &bounded);
    let none = "SELECT WHERE false";
    let queries = [
        query::ROLES,
        if version >= 160_000 { query::MEMBERS_16 } else { query::MEMBERS_14 },
        query::DATABASES,
        query::SCHEMAS,
        query::RELATIONS,
        query::ROUTINES,
        query::TYPES,
        query::ACL,
        query::INITIAL,
        query::NAMED_ACL,
        if version >= 150_000 { query::PARAMETERS_15 } else { none },
        query::DEFAULTS,
        query::PARTITIONS,
        query::REWRITES,
        query::RULES,
        query::POLICIES,
        query::TRIGGERS,
        query::FOREIGN_KEYS,
        query::SETTINGS,
        query::SERVERS,
        query::USER_MAPPINGS,
        query::FOREIGN_TABLES,
        if version >= 150_000 { query::PUBLICATIONS_15 } else { query::PUBLICATIONS_14 },
        if reads_connections { query::SUBSCRIPTIONS } else { query::SUBSCRIPTIONS_UNREAD },
        query::EVENT_TRIGGERS,
        query::COMMENTS,
        &owned,
    ];
    let kept_publications = crate::transfer::kept_publications(session).await?;
    let mut answers = Answers(session.simple(&queries.join(";\n")).await?.into_iter());
    let roles = answers.each(role);
    let members = answers.each(|mut row| Member {
        member: row.number(),
        of: row.number(),
        grantor: row.number(),
        admin: row.is(),
        inherit: row.is(),
        set: row.is(),
    });
    let databases = answers.each(|mut row| Database {
        oid: row.number(),
        name: row.text(),
        owner: row.number(),
        connectable: row.is(),
        current: row.is(),
    });
    let schemas: BTreeMap<Oid, Schema> = answers
        .each(|mut row| Schema { oid: row.number(), name: row.text(), owner: row.number(), extension: row.is() })
        .into_iter()
        .map(|schema| (schema.oid, schema))
        .collect();
    let name_of = |oid: Oid| schemas.get(&oid).map(|schema| schema.name.clone()).unwrap_or_default();
    let relations = answers.each(|row| relation(row, &name_of));
    let routines = answers.each(|row| routine(row, &name_of));
    let types = answers.each(|mut row| {
        let (oid, schema) = (row.number(), row.number());
        let object = Object { schema: name_of(schema), name: row.text(), kind: Kind::Type };
        Type { oid, schema, object, owner: row.number(), extension: row.is() }
    });
    let acl: Vec<Entry> = answers.rows().filter_map(entry).collect();
    let initial: BTreeSet<(Class, Oid, Oid, Privilege)> = answers
        .rows()
        .filter_map(|mut row| {
            let class = Class::parse(&row.text())?;
            let (object, grantee) = (row.number(), row.number());
            Some((class, object, grantee, Privilege::parse(&row.text())?))
        })
        .collect();
    let mut named_acl: Vec<NamedEntry> = answers.rows().filter_map(named_entry).collect();
    named_acl.extend(answers.rows().filter_map(named_entry));
    Ok(Catalog {
        version,
        database,
        session_user,
        reads_connections,
        roles: roles.into_iter().map(|role| (role.oid, role)).collect(),
        members,
        databases,
        relations: relations.into_iter().map(|one| (one.oid, one)).collect(),
        routines: routines.into_iter().map(|one| (one.oid, one)).collect(),
        types: types.into_iter().map(|one| (one.oid, one)).collect(),
        acl_read: acl.len() + named_acl.len(),
        default_execute: acl
            .iter()
            .filter(|one| {
                one.grantee == PUBLIC
                    && one.class == Class::Routine
                    && initial.contains(&(one.class, one.object, one.grantee, one.privilege))
            })
            .map(|one| one.object)
            .collect(),
        acl: acl
            .into_iter()
            .filter(|one| {
                one.column.is_some() || !initial.contains(&(one.class, one.object, one.grantee, one.privilege))
            })
            .collect(),
        named_acl,
        defaults: answers.each(|mut row| {
            let (creator, schema, class) = (row.number(), row.number(), row.char());
            let (grantee, privilege) = (row.option(), row.text());
            let given = grantee.and_then(|grantee| Some((grantee.parse().ok()?, Privilege::parse(&privilege)?)));
            Default { creator, schema, class, given }
        }),
        partitions: answers.each(|mut row| (row.number(), row.number())),
        rewrites: answers.each(|mut row| Rewrite {
            relation: row.number(),
            name: row.text(),
            event: row.char(),
            refers: row.number(),
        }),
        rules: answers.each(|mut row| (row.number(), row.text(), row.text())),
        policies: answers.each(|mut row| Policy {
            relation: row.number(),
            name: row.text(),
            command: row.char(),
            permissive: row.is(),
            roles: row.text().split(' ').filter_map(|oid| oid.parse().ok()).collect(),
            using: row.option(),
            check: row.option(),
        }),
        triggers: answers.each(|mut row| Trigger {
            relation: row.number(),
            name: row.text(),
            function: row.number(),
            bits: row.number(),
            enabled: row.char(),
            conditional: row.is(),
            columns: row.is(),
        }),
        foreign_keys: answers.each(|mut row| ForeignKey {
            name: row.text(),
            from: row.number(),
            to: row.number(),
            on_delete: row.char(),
            on_update: row.char(),
            definition: row.text(),
        }),
        settings: answers.each(|mut row| {
            let (database, role, setting) = (row.number(), row.number(), row.text());
            let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
            Setting { database, role, name: name.to_owned(), value: value.to_owned() }
        }),
        servers: answers.each(|mut row| Server {
            oid: row.number(),
            name: row.text(),
            wrapper: row.text(),
            options: row.text(),
        }),
        user_mappings: answers.each(|mut row| UserMapping {
            server: row.number(),
            user: row.number(),
            options: row.option(),
        }),
        foreign_tables: answers.each(|mut row| ForeignTable {
            relation: row.number(),
            server: row.number(),
            options: row.text(),
        }),
        publications: answers.each(|mut row| {
            let (name, owner, how, oid) = (row.text(), row.number(), row.text(), row.number());
            let what = match how.as_str() {
                "all" => Published::Everything,
                "schema" => Published::Schema(oid),
                _ => Published::Table(oid),
            };
            Publication { name, owner, what }
        }),
        kept_publications,
        subscriptions: answers.each(|mut row| Subscription {
            name: row.text(),
            owner: row.number(),
            connection: row.option(),
            relation: row.option().and_then(|oid| oid.parse().ok()),
        }),
        event_triggers: answers.each(|mut row| {
            let (name, owner, _function) = (row.text(), row.number(), row.option());
            let (schema, function) = (row.text(), row.text());
            EventTrigger { name, owner, function: format!("{schema}.{function}"), function_owner: row.number() }
        }),
        comments: answers.each(|mut row| Comment { kind: row.text(), identity: row.text(), text: row.text() }),
        owned: answers.each(|mut row| {
            let (owner, database) = (row.number(), row.number());
            let (kind, identity) = (row.option(), row.option());
            Owned { owner, database, what: kind.zip(identity), count: row.number() }
        }),
        schemas,
    })
}

fn role(mut row: Row) -> Role {
    Role {
        oid: row.number(),
        name: row.text(),
        superuser: row.is(),
        create_role: row.is(),
        create_db: row.is(),
        login: row.is(),
        replication: row.is(),
        bypass_rls: row.is(),
    }
}

fn relation(mut row: Row, name_of: &impl Fn(Oid) -> String) -> Relation {
    let (oid, schema, name) = (row.number(), row.number(), row.text());
    let kind = match row.char() {
        'v' => Kind::View,
        'm' => Kind::MaterializedView,
        'f' => Kind::ForeignTable,
        'S' => Kind::Sequence,
        _ => Kind::Table,
    };
    Relation {
        oid,
        schema,
        object: Object { schema: name_of(schema), name, kind },
        owner: row.number(),
        row_security: row.is(),
        force: row.is(),
        invoker: row.is(),
        extension: row.is(),
        updatable: row.number(),
        definition: row.option(),
        follows: row.is(),
    }
}

fn routine(mut row: Row, name_of: &impl Fn(Oid) -> String) -> Routine {
    let (oid, schema, name, arguments) = (row.number(), row.number(), row.text(), row.text());
    let kind = if row.char() == 'p' { Kind::Procedure } else { Kind::Function };
    Routine {
        oid,
        schema,
        object: Object { schema: name_of(schema), name: format!("{name}({arguments})"), kind },
        name,
        arguments,
        owner: row.number(),
        definer: row.is(),
        language: row.text(),
        settings: row.text().lines().map(str::to_owned).collect(),
        extension: row.option(),
        body: row.option(),
        trigger: row.is(),
    }
}

fn entry(mut row: Row) -> Option<Entry> {
    let class = Class::parse(&row.text())?;
    let (object, column, grantor, grantee) = (row.number(), row.option(), row.number(), row.number());
    let privilege = Privilege::parse(&row.text())?;
    Some(Entry { class, object, column, grantor, grantee, privilege, grantable: row.is() })
}

fn named_entry(mut row: Row) -> Option<NamedEntry> {
    let (word, schema, name, arguments, column) = (row.text(), row.option(), row.text(), row.option(), row.option());
    let (grantor, grantee) = (row.number(), row.number());
    let privilege = Privilege::parse(&row.text())?;
    Some(NamedEntry { word, schema, name, arguments, column, grantor, grantee, privilege, owner: row.number() })
}
