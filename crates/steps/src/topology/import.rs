//! The declaration of what is there: adoption of a database begins with a file that changes little, and goes on by
//! shortening it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use pgrunbook_postgres::{PgError, Session};

use super::expand::built_in;
use super::model::{AccessSet, Kind, Object, Privilege};
use super::state::{Held, PUBLIC, State};

/// Schemas that people have made.
const SCHEMAS: &str = "SELECT nspname FROM pg_catalog.pg_namespace
WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'public', 'pgrunbook', 'pgrunbook_journal')
  AND NOT pg_catalog.starts_with(nspname, 'pg_') ORDER BY 1";

/// Reads a database and writes its declaration, as TOML. Changes nothing.
///
/// # Errors
/// If the server cannot be asked.
pub async fn import(session: &Session) -> Result<String, PgError> {
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let read = async {
        let found = session.simple(SCHEMAS).await?;
        let names: Vec<String> =
            found.iter().flat_map(|answer| &answer.rows).filter_map(|row| row.first().cloned().flatten()).collect();
        State::read(session, &names.iter().map(String::as_str).collect()).await
    };
    let state = read.await;
    session.execute("ROLLBACK").await?;
    Ok(written(&state?))
}

/// A privilege on an object, or on one of its columns.
type Right = (Object, Option<String>, Privilege);

fn written(state: &State) -> String {
    let owners = owners(state);
    let owner = owners.first().cloned().unwrap_or_else(|| state.database_owned.owner.clone());
    let rights = rights(state);
    let mut text = format!(
        "# What {} on PostgreSQL {} has, read from its catalogs. Shorten it until it says what should be.\n\n[database]\n\
         owner = {}\n",
        state.database,
        state.version / 10_000,
        string(&owner)
    );
    if owners.len() > 1 {
        put(&mut text, format_args!("creators = [{}]\n", strings(&owners[1..])));
    }
    text.push_str("\n[schemas]\n");
    for schema in state.schemas.keys() {
        put(&mut text, format_args!("{} = {{}}\n", key(schema)));
    }
    let mut sets: BTreeMap<String, BTreeMap<&'static str, Vec<String>>> = BTreeMap::new();
    let mut roles = String::new();
    let involved = involved(state, &rights);
    for name in involved.iter().filter(|name| !owners.contains(name)) {
        let Some(role) = state.roles.get(name) else { continue };
        let mut access = Vec::new();
        for schema in state.schemas.keys() {
            let uses = state.schemas[schema].acl.iter().any(|entry| entry.grantee == *name);
            let held: BTreeSet<&Right> =
                rights.get(name).into_iter().flatten().filter(|(object, _, _)| object.schema == *schema).collect();
            if !uses && held.is_empty() {
                continue;
            }
            let set = match like_built_in(state, &owner, name, schema, &held) {
                Some(set) => set.to_owned(),
                None => {
                    let set = custom(state, schema, &held);
                    let same = sets.iter().find(|(_, known)| **known == set).map(|(name, _)| name.clone());
                    same.unwrap_or_else(|| {
                        let name = format!("in_{schema}_{}", sets.len() + 1);
                        sets.insert(name.clone(), set);
                        name
                    })
                }
            };
            access.push(format!("{} = {}", key(schema), string(&set)));
        }
        let member_of: Vec<String> =
            state.memberships.iter().filter(|one| one.member == *name).map(|one| one.role.clone()).collect();
        let migrates = role.login && member_of.contains(&owner);
        let now = rights.get(name).into_iter().flatten().map(|(_, _, privilege)| *privilege);
        let later = state.defaults.iter().filter(|one| one.grantee == *name).map(|one| one.privilege);
        let writes = now.chain(later).any(|privilege| privilege != Privilege::Select);
        let kind = match (role.login, migrates, writes) {
            (false, _, _) => "group",
            (true, true, _) => "migration",
            (true, false, true) => "runtime",
            (true, false, false) => "read-only",
        };
        put(&mut roles, format_args!("\n[roles.{}]\nkind = {}\n", key(name), string(kind)));
        let known: Vec<String> =
            member_of.iter().filter(|of| involved.contains(*of) && (**of != owner || !migrates)).cloned().collect();
        if !known.is_empty() {
            put(&mut roles, format_args!("member_of = [{}]\n", strings(&known)));
        }
        if let Some(path) = role.settings.get("search_path") {
            put(&mut roles, format_args!("search_path = [{}]\n", strings(&super::write::names_of_path(path))));
        }
        if !access.is_empty() {
            put(&mut roles, format_args!("access = {{ {} }}\n", access.join(", ")));
        }
        for of in member_of.iter().filter(|of| !involved.contains(*of)) {
            put(
                &mut roles,
                format_args!("# It is a member of {of}, which cannot be declared: the plan takes that away.\n"),
            );
        }
        if !role.attributes.is_empty() {
            let attributes: Vec<&str> = role.attributes.iter().copied().collect();
            put(&mut roles, format_args!("# It has {}: the plan takes that away.\n", attributes.join(", ")));
        }
    }
    for (name, set) in &sets {
        put(&mut text, format_args!("\n[access.{name}]\n"));
        for (privilege, objects) in set {
            put(&mut text, format_args!("{privilege} = [{}]\n", strings(objects)));
        }
    }
    text.push_str(&roles);
    remarks(&mut text, state, &rights);
    text
}

/// What the file cannot say, and somebody must look at.
fn remarks(text: &mut String, state: &State, rights: &BTreeMap<String, BTreeSet<Right>>) {
    let mut remarks = BTreeSet::new();
    for (object, _, privilege) in rights.get(PUBLIC).into_iter().flatten() {
        if !matches!(object.kind, Kind::Function | Kind::Procedure | Kind::Type) {
            remarks.insert(format!("everybody has {privilege} on {object}: the plan takes that away"));
        }
    }
    for held in state.objects.iter().filter(|held| held.row_security) {
        remarks.insert(format!("{} has row security: declare it under [rls]", held.object));
    }
    for trigger in &state.triggers {
        remarks.insert(format!(
            "{} has the trigger {}: if it keeps rows as they are, declare append_only",
            trigger.table, trigger.name
        ));
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    for remark in remarks {
        put(text, format_args!("# {remark}\n"));
    }
}

/// Roles that own schemas or what is in them, the one with most schemas first. Superusers too: they made it so.
fn owners(state: &State) -> Vec<String> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for schema in state.schemas.values() {
        counts.entry(&schema.owner).or_default().0 += 1;
    }
    for held in &state.objects {
        counts.entry(&held.owned.owner).or_default().1 += 1;
    }
    let mut found: Vec<(&str, (usize, usize))> = counts.into_iter().collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    found.into_iter().map(|(name, _)| name.to_owned()).collect()
}

fn rights(state: &State) -> BTreeMap<String, BTreeSet<Right>> {
    let mut rights: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
    for held in &state.objects {
        for entry in &held.owned.acl {
            let right = (held.object.clone(), None, entry.privilege);
            rights.entry(entry.grantee.clone()).or_default().insert(right);
        }
        for (column, entries) in &held.columns {
            for entry in entries {
                let right = (held.object.clone(), Some(column.clone()), entry.privilege);
                rights.entry(entry.grantee.clone()).or_default().insert(right);
            }
        }
    }
    rights
}

/// Roles that have a part in it: by a grant, a default privilege, or membership in one that has.
fn involved(state: &State, rights: &BTreeMap<String, BTreeSet<Right>>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = rights.keys().cloned().collect();
    found.extend(state.schemas.values().flat_map(|schema| schema.acl.iter().map(|entry| entry.grantee.clone())));
    found.extend(state.defaults.iter().map(|one| one.grantee.clone()));
    found.extend(owners(state));
    loop {
        let more: Vec<String> = state
            .memberships
            .iter()
            .filter(|one| found.contains(&one.role) && !found.contains(&one.member))
            .map(|one| one.member.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.retain(|name| {
        name != PUBLIC && state.roles.get(name).is_some_and(|role| !role.attributes.contains("SUPERUSER"))
    });
    found
}

/// The built-in access set that gives exactly this.
fn like_built_in(
    state: &State,
    owner: &str,
    role: &str,
    schema: &str,
    held: &BTreeSet<&Right>,
) -> Option<&'static str> {
    let objects: Vec<&Held> = state.objects.iter().filter(|held| held.object.schema == schema).collect();
    let later = state.defaults.iter().filter(|one| {
        one.creator == owner && one.grantee == role && one.schema.as_deref() == Some(schema) && one.class == 'r'
    });
    let later: BTreeSet<Privilege> = later.map(|one| one.privilege).collect();
    ["all", "select", "views", "usage"].into_iter().find(|name| {
        let set = AccessSet { name: (*name).to_owned(), rules: built_in(name).unwrap_or_default() };
        let mut gives = BTreeSet::new();
        for held in &objects {
            for privilege in held.object.kind.privileges() {
                if set.gives(&held.object, *privilege) {
                    gives.insert((held.object.clone(), None, *privilege));
                }
            }
        }
        // Of an empty schema only the default privileges tell.
        let tells = !gives.is_empty() || *name == "usage" || !later.is_empty();
        let later_too = later.is_empty() || set.rules.iter().any(|rule| later.contains(&rule.privilege));
        tells && later_too && gives.iter().collect::<BTreeSet<_>>() == *held
    })
}

/// An access set by name, where none of the built-in ones is meant.
fn custom(state: &State, schema: &str, held: &BTreeSet<&Right>) -> BTreeMap<&'static str, Vec<String>> {
    let mut set: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let relations = state.objects.iter().filter(|one| one.object.schema == schema && one.object.kind.is_relation());
    let relations: BTreeSet<&Object> = relations.map(|one| &one.object).collect();
    for privilege in Privilege::ALL {
        let of: Vec<&&Right> = held.iter().filter(|(_, _, held)| *held == privilege).collect();
        let whole: BTreeSet<&Object> = of.iter().filter(|right| right.1.is_none()).map(|right| &right.0).collect();
        let word = word(privilege);
        if !relations.is_empty() && relations.is_subset(&whole) {
            set.entry(word).or_default().push("*".to_owned());
        }
        for object in &whole {
            // Types are everybody's, and are not given by name.
            let covered = object.kind.is_relation() && relations.is_subset(&whole);
            if !covered && object.kind != Kind::Type {
                set.entry(word).or_default().push(object.name.clone());
            }
        }
        let mut columns: BTreeMap<&Object, Vec<&str>> = BTreeMap::new();
        for (object, column, _) in of.iter().map(|right| &***right) {
            if let Some(column) = column {
                columns.entry(object).or_default().push(column);
            }
        }
        for (object, columns) in columns {
            set.entry(word).or_default().push(format!("{}({})", object.name, columns.join(", ")));
        }
    }
    set
}

fn word(privilege: Privilege) -> &'static str {
    match privilege {
        Privilege::Select => "select",
        Privilege::Insert => "insert",
        Privilege::Update => "update",
        Privilege::Delete => "delete",
        Privilege::Truncate => "truncate",
        Privilege::References => "references",
        Privilege::Trigger => "trigger",
        Privilege::Execute => "execute",
        _ => "usage",
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes every text");
}

/// A key of TOML: bare where it may be.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { name.to_owned() } else { string(name) }
}

/// A text of TOML.
fn string(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn strings(values: &[String]) -> String {
    values.iter().map(|value| string(value)).collect::<Vec<_>>().join(", ")
}
