//! Reads a database into a [`Snapshot`].

use std::collections::{BTreeMap, HashMap};

use pgrunbook_postgres::{Session, quote};

use super::catalog::{self, WIDTH, access};
use super::error::DriftError;
use super::model::{Address, DefaultPrivileges, Flags, Item, MEMBER, Snapshot};

/// The oldest server whose catalogs the statements fit.
const OLDEST: u32 = 150_000;

/// Catalogs of a fresh database have no statistics: without `enable_nestloop` 1,000 tables took 17 s in place of 3. What that setting does to
/// costs looks to the planner as if workers would pay, whose start took a third of the time of reading a small database. Of the rest a third went into
/// planning, and a quarter of that into merge joins, which are never taken.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL search_path = ''; SET LOCAL statement_timeout = 0;
    SET LOCAL quote_all_identifiers = off; SET LOCAL jit = off; SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off;
    SET LOCAL max_parallel_workers_per_gather = 0";

const WHERE: &str = "SELECT current_database(), current_user, current_setting('server_version_num')";

/// Reads every item. The transaction stays open, so that [`dependencies`] sees the same.
pub async fn items(session: &Session) -> Result<Snapshot, DriftError> {
    let mut snapshot = Snapshot::default();
    let answers = session.simple(&format!("{BEGIN};\n{WHERE}")).await?;
    let cells = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
    let cell = |at: usize| cells.get(at).cloned().flatten().unwrap_or_default();
    (snapshot.database, snapshot.user, snapshot.version) = (cell(0), cell(1), cell(2).parse().unwrap_or(0));
    if snapshot.version < OLDEST {
        return Err(DriftError::TooOld { version: snapshot.version / 10_000 });
    }
    // All at once: a target is often far away.
    let answers = session.simple(&catalog::all()).await?;
    let mut answers = answers.into_iter().map(|answer| answer.rows);
    let mut next = || answers.next().unwrap_or_default();
    let mut members = HashMap::new();
    for row in next() {
        let [class, object, extension, name, later] = &row[..] else { continue };
        let key = (number(class.as_deref()), number(object.as_deref()));
        let later = later.as_deref() == Some("t");
        members.insert(key, (number(extension.as_deref()), name.clone().unwrap_or_default(), later));
    }
    for row in next() {
        let cell = |at: usize| number(row.get(at).and_then(|cell| cell.as_deref()));
        snapshot.part((cell(0), cell(1), 0), (cell(2), cell(3), 0));
    }
    let of_extension =
        |address: Option<Address>| address.is_some_and(|(class, object, _)| members.contains_key(&(class, object)));
    let remarked = [(next(), "comment"), (next(), "security label")];
    let (on_extension, granted, by_default) = (next(), next(), next());
    for row in answers.flatten() {
        let (item, owner) = item(row);
        let extension = item.address.and_then(|(class, object, _)| members.get(&(class, object)));
        // Not the columns of a table that belongs to one.
        let is_whole = !item.phrase.is_empty() && item.address.is_some_and(|(_, _, number)| number == 0);
        if let Some((extension, name, later)) = extension.filter(|_| is_whole) {
            snapshot.members.insert(item.phrase.clone());
            snapshot.push(membership(item, *extension, name, *later));
            continue;
        }
        // What others made in an extension's schema, or with its foreign-data wrapper, is theirs.
        let own = item.address.is_some() && item.parent.is_some_and(|(class, _, _)| HOLDERS.contains(&class));
        if extension.is_some() || (of_extension(item.parent) && !own) {
            continue;
        }
        if let Some(owner) = owner {
            snapshot.push(ownership(&item, &owner));
        }
        snapshot.push(item);
    }
    for (rows, kind) in remarked {
        remarks(rows, kind, &mut snapshot, &of_extension);
    }
    on_extensions(on_extension, &mut snapshot);
    grants(granted, &mut snapshot);
    default_privileges(by_default, &mut snapshot);
    Ok(snapshot)
}

/// Reads what rests on what.
pub async fn dependencies(session: &Session, snapshot: &mut Snapshot) -> Result<(), DriftError> {
    let mut found = Vec::new();
    let answers = session.simple(access::DEPENDENCIES).await?;
    for row in answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default() {
        let address = |at: usize| {
            let cell = |at: usize| row.get(at).and_then(|cell| cell.as_deref());
            (number(cell(at)), number(cell(at + 1)), cell(at + 2).and_then(|text| text.parse().ok()).unwrap_or(0))
        };
        let kind = row.get(6).and_then(|cell| cell.as_deref()).and_then(|text| text.chars().next()).unwrap_or('n');
        found.push((address(0), address(3), kind));
    }
    snapshot.rest(&found);
    Ok(())
}

type Row = Vec<Option<String>>;

fn number(text: Option<&str>) -> u32 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The row of a statement of [`catalog`], and the owner.
fn item(row: Row) -> (Item, Option<String>) {
    debug_assert_eq!(row.len(), WIDTH);
    let mut cells = row.into_iter().map(Option::unwrap_or_default);
    let mut next = || cells.next().unwrap_or_default();
    let kind = next();
    let address = address(&next(), &next(), &next());
    let parent = super::read::address(&next(), &next(), &next());
    let needs = next();
    let mut words = needs.split(' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let needs = super::read::address(&word(), &word(), &word());
    let (identity, phrase, owner, text, frame) = (next(), next(), next(), next(), next());
    let (make, alter, drop, flags) = (next(), next(), next(), Flags::parse(&next()));
    let kind = if kind == "access method" && address.is_none() { "access method of a table".to_owned() } else { kind };
    let item = Item { kind, identity, address, parent, needs, phrase, text, frame, make, alter, drop, flags };
    (item, Some(owner).filter(|owner| !owner.is_empty()))
}

fn address(class: &str, object: &str, number: &str) -> Option<Address> {
    Some((class.parse().ok()?, object.parse().ok()?, number.parse().unwrap_or(0)))
}

fn ident(name: &str) -> String {
    quote::ident(name).unwrap_or_default()
}

fn literal(text: &str) -> String {
    quote::literal(text).unwrap_or_default()
}

fn ownership(of: &Item, owner: &str) -> Item {
    Item {
        kind: "owner".to_owned(),
        identity: of.phrase.clone(),
        parent: of.address,
        text: owner.to_owned(),
        make: format!("ALTER {} OWNER TO {}", of.phrase, ident(owner)),
        flags: Flags { set: true, ..Flags::default() },
        ..Item::default()
    }
}

/// What is kept of what belongs to an extension.
fn membership(of: Item, extension: u32, name: &str, later: bool) -> Item {
    Item {
        kind: MEMBER.to_owned(),
        identity: format!("{name}: {}", of.phrase),
        parent: Some((EXTENSION, extension, 0)),
        make: format!("ALTER EXTENSION {} ADD {}", ident(name), of.phrase),
        drop: format!("ALTER EXTENSION {} DROP {}", ident(name), of.phrase),
        alter: of.make,
        frame: of.drop,
        text: of.phrase,
        flags: Flags { with_parent: true, lossy: of.flags.lossy, later, ..Flags::default() },
        ..Item::default()
    }
}

/// `pg_extension`.
const EXTENSION: u32 = 3079;

/// `pg_namespace`, `pg_foreign_data_wrapper` and `pg_foreign_server`: where what is not the extension's can stand on what is.
const HOLDERS: [u32; 3] = [2615, 2328, 1417];

/// What `ALTER ... DEPENDS ON EXTENSION` was said of.
fn on_extensions(rows: Vec<Row>, snapshot: &mut Snapshot) {
    for row in rows {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let Some(place) = address(&cell(0), &cell(1), "0") else { continue };
        let phrase = match snapshot.exactly(place) {
            Some(at) => snapshot.items[at].phrase.clone(),
            // A constraint's.
            None if place.0 == 1259 => format!("INDEX {}", cell(2)),
            None => continue,
        };
        let name = ident(&cell(4));
        snapshot.push(Item {
            kind: "goes with extension".to_owned(),
            identity: format!("{phrase} with {name}"),
            parent: Some(place),
            needs: Some((EXTENSION, number(Some(&cell(3))), 0)),
            text: name.clone(),
            make: format!("ALTER {phrase} DEPENDS ON EXTENSION {name}"),
            drop: format!("ALTER {phrase} NO DEPENDS ON EXTENSION {name}"),
            ..Item::default()
        });
    }
}

/// Comments and security labels.
fn remarks(rows: Vec<Row>, kind: &str, snapshot: &mut Snapshot, of_extension: &impl Fn(Option<Address>) -> bool) {
    for row in rows {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let Some(place) = address(&cell(0), &cell(1), &cell(2)) else { continue };
        let (identity, text) = (cell(3), cell(4));
        let phrase = match snapshot.exactly(place).map(|at| snapshot.items[at].phrase.clone()) {
            Some(phrase) if !phrase.is_empty() => phrase,
            // A column of what is no table; or a constraint's index, which is not an item.
            None if place.2 > 0 => format!("COLUMN {identity}"),
            None if place.0 == 1259 => format!("INDEX {identity}"),
            // A table's row.
            None if place.0 == 1247 => format!("TYPE {identity}"),
            // An operator class brings its family with it, and the like.
            _ => continue,
        };
        if of_extension(Some(place)) {
            continue;
        }
        let (verb, provider) = match kind {
            "comment" => ("COMMENT ON".to_owned(), String::new()),
            _ => (format!("SECURITY LABEL FOR {} ON", ident(&cell(5))), format!(" for {}", cell(5))),
        };
        snapshot.push(Item {
            kind: kind.to_owned(),
            identity: format!("{phrase}{provider}"),
            parent: Some(place),
            make: format!("{verb} {phrase} IS {}", literal(&text)),
            drop: format!("{verb} {phrase} IS NULL"),
            text,
            flags: Flags { set: true, ..Flags::default() },
            ..Item::default()
        });
    }
}

/// Between the privileges of a row of [`access::GRANTS`].
const BETWEEN: char = '\u{1f}';

/// The statements that make privileges what `now` says, whatever they are: with a star, they can be granted on. Those that another role than
/// the owner gave are given by that role, and `user` goes on behind it.
pub fn granting(prefix: &str, now: &str, place: &str, columns: &str, grantee: &str, user: &str) -> String {
    let mut sql = vec![format!("{prefix}REVOKE ALL{columns} ON {place} FROM {grantee}")];
    let mut given: BTreeMap<(Option<&str>, bool), Vec<String>> = BTreeMap::new();
    for word in now.split(BETWEEN).filter(|word| !word.is_empty()) {
        let (word, by) = word.split_once(" by ").map_or((word, None), |(word, by)| (word, Some(by)));
        let privilege = word.trim_end_matches('*');
        given.entry((by, privilege != word)).or_default().push(format!("{privilege}{columns}"));
    }
    for ((by, starred), words) in given {
        let option = if starred { " WITH GRANT OPTION" } else { "" };
        let grant = format!("{prefix}GRANT {} ON {place} TO {grantee}{option}", words.join(", "));
        sql.push(match by {
            None => grant,
            Some(by) => format!("SET LOCAL ROLE {by}; {grant}; SET LOCAL ROLE {}", ident(user)),
        });
    }
    sql.join("; ")
}

/// What is compared of privileges.
fn words(now: &str) -> String {
    if now.is_empty() { "nothing".to_owned() } else { now.replace(BETWEEN, ", ") }
}

fn grants(rows: Vec<Row>, snapshot: &mut Snapshot) {
    for row in rows {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let parent = address(&cell(0), &cell(1), &cell(2));
        let (place, columns, owns, grantee, now, base) = (cell(3), cell(4), cell(5) == "t", cell(6), cell(7), cell(8));
        let whom = if owns { "its owner" } else { &grantee };
        snapshot.push(Item {
            kind: if columns.is_empty() { "grant" } else { "column grant" }.to_owned(),
            identity: format!("{}{columns} to {whom}", place.replace("@DATABASE@", "of this name")),
            parent,
            text: words(&now),
            make: granting("", &now, &place, &columns, &grantee, &snapshot.user),
            drop: granting("", &base, &place, &columns, &grantee, &snapshot.user),
            flags: Flags { set: true, ..Flags::default() },
            ..Item::default()
        });
    }
}

fn default_privileges(rows: Vec<Row>, snapshot: &mut Snapshot) {
    for row in rows {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (creator, schema, class, grantee, now, base) = (cell(0), cell(1), cell(2), cell(3), cell(4), cell(5));
        let within = if schema.is_empty() { String::new() } else { format!(" IN SCHEMA {}", ident(&schema)) };
        let prefix = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {creator}{within} ");
        snapshot.defaults.push(DefaultPrivileges {
            creator: creator.clone(),
            schema: if schema.is_empty() { String::new() } else { ident(&schema) },
            class: class.clone(),
            grantee: grantee.clone(),
            base: base.clone(),
        });
        snapshot.push(Item {
            kind: "default privileges".to_owned(),
            identity: format!("{class} of {creator}{within} to {grantee}"),
            parent: Some((2615, number(Some(&cell(6))), 0)).filter(|(_, schema, _)| *schema > 0),
            text: words(&now),
            make: granting(&prefix, &now, &class, "", &grantee, &snapshot.user),
            drop: granting(&prefix, &base, &class, "", &grantee, &snapshot.user),
            flags: Flags { set: true, ..Flags::default() },
            ..Item::default()
        });
    }
}
