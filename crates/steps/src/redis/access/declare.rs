//! The table `redis` of `topology.toml`, or of the table `topology` of `pgrunbook.toml`.
//!
//! ```toml
//! [redis]
//! default_user = "off"              # or "leave", which is meant where nothing is said
//!
//! [redis.users.app_stg]
//! password = "env:REDIS_STG_PASSWORD"
//! prefixes = ["stg:"]               # keys and channels it may use
//! reads    = ["shared:"]            # keys it may only read
//! may      = ["scan"]               # commands beyond the usual, knowingly
//! why      = "the session list; it sees the names of all keys"
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use pgrunbook_engine::StepError;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::project;
use crate::redis::prefix::Prefix;
use crate::secret::Reference;
use crate::topology::FILE;

/// What the declaration says of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub users: BTreeMap<String, User>,
    pub default_user: DefaultUser,
    /// The file, with its SHA-256 in hex.
    pub files: BTreeMap<String, String>,
}

/// What becomes of the user that every connection begins as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultUser {
    #[default]
    Leave,
    Off,
}

/// A declared user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password: Reference,
    /// Keys and channels it may use; at least one.
    pub prefixes: Vec<Prefix>,
    /// Keys it may read.
    pub reads: Vec<Prefix>,
    /// Commands and categories (`@scripting`) beyond the usual.
    pub may: Vec<String>,
    pub why: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    default_user: DefaultUser,
    #[serde(default = "colon")]
    separator: char,
    #[serde(default)]
    users: BTreeMap<String, UserTable>,
}

fn colon() -> char {
    ':'
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    password: String,
    prefixes: Vec<String>,
    #[serde(default)]
    reads: Vec<String>,
    #[serde(default)]
    may: Vec<String>,
    why: Option<String>,
}

/// `topology.toml`, of which only one table matters here.
#[derive(Deserialize)]
struct Own {
    redis: Option<Table>,
}

/// `pgrunbook.toml`, likewise.
#[derive(Deserialize)]
struct Holder {
    topology: Option<Own>,
}

/// Reads the declaration of a project's folder.
///
/// # Errors
/// If there is none, or it is wrong.
pub fn load(root: &Path) -> Result<Access, StepError> {
    let missing = || {
        StepError::unusable("topology", format!("this project declares no Redis users: {FILE} has no table `redis`"))
            .help("declare them: [redis.users.NAME] with `password` and `prefixes`")
    };
    let text = |name: &str| match std::fs::read_to_string(root.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StepError::unusable("topology", format!("{name} cannot be read: {error}"))),
    };
    let malformed = |path: &str, text: &str, error: &toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
        StepError::unusable("topology", format!("{path}:{line}: {}", error.message()))
    };
    let (path, text, table) = match text(FILE)? {
        Some(text) => {
            let own: Own = toml::from_str(&text).map_err(|error| malformed(FILE, &text, &error))?;
            (FILE, text, own.redis)
        }
        None => {
            let text = text(project::FILE)?.ok_or_else(missing)?;
            let holder: Holder = toml::from_str(&text).map_err(|error| malformed(project::FILE, &text, &error))?;
            (project::FILE, text, holder.topology.and_then(|own| own.redis))
        }
    };
    let digest = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let files = [(path.to_owned(), digest)].into();
    let access = expand(table.ok_or_else(missing)?, files);
    access.map_err(|why| StepError::unusable("topology", format!("{path}: {why}")))
}

fn expand(table: Table, files: BTreeMap<String, String>) -> Result<Access, String> {
    let separator = table.separator;
    let mut users: BTreeMap<String, User> = BTreeMap::new();
    for (name, one) in table.users {
        let user = user(&name, one, separator).map_err(|why| format!("Redis user `{name}`: {why}"))?;
        for other in users.values() {
            let pairs = user.prefixes.iter().flat_map(|a| other.prefixes.iter().map(move |b| (a, b)));
            let within =
                |a: &Prefix, b: &Prefix| a != b && (a.covers(b.as_str().as_bytes()) || b.covers(a.as_str().as_bytes()));
            if let Some((a, b)) = pairs.into_iter().find(|(a, b)| within(a, b)) {
                return Err(format!(
                    "Redis users `{name}` and `{}`: `{a}` and `{b}` lie within one another",
                    other.name
                ));
            }
        }
        users.insert(name, user);
    }
    if users.is_empty() {
        return Err("the table `redis` declares no user".to_owned());
    }
    Ok(Access { users, default_user: table.default_user, files })
}

fn user(name: &str, table: UserTable, separator: char) -> Result<User, String> {
    let plain = |text: &str| !text.is_empty() && !text.contains(|one: char| one.is_whitespace() || one.is_control());
    if !plain(name) || name == "default" {
        return Err("a name has no blanks, and is not `default`: see `default_user`".to_owned());
    }
    let prefixes = |texts: Vec<String>| {
        let read = texts.iter().map(|text| match Prefix::bounded(text, separator) {
            Ok(prefix) if plain(text) => Ok(prefix),
            Ok(_) => Err(format!("`{text}` has a blank, which no rule can hold")),
            Err(why) => Err(why),
        });
        read.collect::<Result<Vec<_>, _>>()
    };
    let password = Reference::parse(&table.password);
    if !password.is_secret() {
        return Err("its password is a reference: `env:NAME`, `file:path` or `cmd:program`".to_owned());
    }
    let (prefixes, reads) = (prefixes(table.prefixes)?, prefixes(table.reads)?);
    if prefixes.is_empty() {
        return Err("it has no prefix".to_owned());
    }
    let is_word = |word: &String| {
        let word = word.strip_prefix('@').unwrap_or(word);
        !word.is_empty() && word.chars().all(|one| one.is_ascii_alphanumeric() || "-_.|".contains(one))
    };
    if let Some(word) = table.may.iter().find(|word| !is_word(word)) {
        return Err(format!("`{word}` is neither a command nor a category such as `@scripting`"));
    }
    if !table.may.is_empty() && table.why.is_none() {
        return Err("what it may beyond the usual has a reason: `why = \"...\"`".to_owned());
    }
    let may = table.may.iter().map(|word| word.to_lowercase()).collect();
    Ok(User { name: name.to_owned(), password, prefixes, reads, may, why: table.why })
}

impl User {
    /// The rule, without the password. Only what is listed is allowed, of which is taken away again
    ///
    /// - `SCAN`, `KEYS` and `RANDOMKEY`: they name no key, so that no pattern binds them, and tell the names of all;
    /// - `CLIENT` but for its own name: `CLIENT TRACKING ON BCAST PREFIX prod:` tells every name that changes there;
    /// - `PUBSUB`: it lists the channels of others;
    /// - what is `@dangerous` or `@admin`: `FLUSHALL`, `SWAPDB`, `SORT ... GET`, `MIGRATE`, `INFO`.
    pub fn rule(&self) -> Vec<String> {
        let mut rule: Vec<String> = self.prefixes.iter().map(|prefix| format!("~{}", prefix.pattern())).collect();
        rule.extend(self.reads.iter().map(|prefix| format!("%R~{}", prefix.pattern())));
        rule.push("resetchannels".to_owned());
        rule.extend(self.prefixes.iter().map(|prefix| format!("&{}", prefix.pattern())));
        rule.extend(USUAL.iter().map(|word| (*word).to_owned()));
        rule.extend(self.may.iter().map(|word| format!("+{word}")));
        rule
    }
}

/// The commands of every declared user, as `ACL SETUSER` reads them from left to right.
const USUAL: &[&str] = &[
    "-@all",
    "+@read",
    "+@write",
    "+@connection",
    "+@transaction",
    "+@pubsub",
    "-@admin",
    "-@dangerous",
    "-@scripting",
    "-pubsub",
    "-scan",
    "-keys",
    "-randomkey",
    "-client",
    "+client|id",
    "+client|getname",
    "+client|setname",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Access, String> {
        let own: Own = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        expand(own.redis.unwrap(), BTreeMap::new())
    }

    #[test]
    fn a_rule_allows_its_prefixes_and_takes_away_what_names_no_key() {
        let text = "[redis.users.app]\npassword = \"env:X\"\nprefixes = [\"s*g:\"]\nreads = [\"shared:\"]\n\
                    may = [\"SCAN\"]\nwhy = \"lists sessions\"\n";
        let rule = read(text).unwrap().users["app"].rule();
        assert_eq!(rule[..4], ["~s\\*g:*", "%R~shared:*", "resetchannels", "&s\\*g:*"]);
        let place = |word: &str| rule.iter().position(|one| one == word).unwrap();
        assert!(place("-scan") < place("+scan"), "{rule:?}");
    }

    #[test]
    fn a_declaration_that_would_not_keep_apart_is_refused() {
        let user = |name: &str, rest: &str| format!("[redis.users.{name}]\npassword = \"env:X\"\n{rest}\n");
        let cases = [
            (user("a", "prefixes = [\"stg\"]"), "does not end with"),
            (user("a", "prefixes = [\"*\"]"), "star"),
            (user("a", "prefixes = []"), "no prefix"),
            (user("a", "prefixes = [\"a b:\"]"), "blank"),
            (user("default", "prefixes = [\"stg:\"]"), "default_user"),
            (user("a", "prefixes = [\"stg:\"]\nmay = [\"scan\"]"), "reason"),
            (user("a", "prefixes = [\"stg:\"]\nmay = [\"scan ~*\"]\nwhy = \"x\""), "neither a command"),
            ("[redis.users.a]\npassword = \"hunter2\"\nprefixes = [\"stg:\"]\n".to_owned(), "reference"),
            (user("a", "prefixes = [\"prod:\"]") + &user("b", "prefixes = [\"prod:eu:\"]"), "within one another"),
            ("[redis]\n".to_owned(), "no user"),
        ];
        for (text, wanted) in cases {
            let why = read(&text).unwrap_err();
            assert!(why.contains(wanted), "{text}: {why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
