//! How the files of a chain are named, as the tools that people come from name them.
//!
//! Recognised: `0008_name.sql` with `.down.sql` and `.verify.sql` beside it (or in `down/` and `verify/`), golang-migrate
//! and sqlx (`1_name.up.sql`), Flyway (`V1.2__name.sql`, `U1.2__name.sql`, `R__name.sql`), Supabase, Drizzle and dbmate
//! (`20240102030405_name.sql`; beside `supabase/migrations` stand `supabase/down` and `supabase/verify`), and a folder for each
//! migration (Diesel, Prisma).

use std::cmp::Ordering;
use std::fmt;

/// A migration's version. Compared by its numbers: `0008` is `8`, `1.0` is `1`.
#[derive(Debug, Clone)]
pub struct Version {
    text: String,
    numbers: Vec<u128>,
}

impl Version {
    /// Reads `0008`, `1.2`, `1_2`, `20240102030405`, `2024-01-02-030405`. `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text.split(['.', '_', '-']).map(|part| {
            let digits = !part.is_empty() && part.len() <= 30 && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        });
        let mut numbers: Vec<u128> = parts.collect::<Option<_>>()?;
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self { text: text.to_owned(), numbers })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

/// What a file of a chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Up,
    Down,
    Verify,
}

/// What a file's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Versioned { part: Part, version: Version, name: String },
    Repeatable { name: String },
}

/// Reads the name of a `.sql` file that stands in the chain's folder itself.
pub fn read_name(file_name: &str) -> Option<Named> {
    let stem = file_name.strip_suffix(".sql")?;
    if let Some(name) = stem.strip_prefix("R__") {
        return (!name.is_empty()).then(|| Named::Repeatable { name: name.to_owned() });
    }
    let flyway = [("V", Part::Up), ("U", Part::Down)].into_iter().find_map(|(prefix, part)| {
        let (version, name) = stem.strip_prefix(prefix)?.split_once("__")?;
        Some(Named::Versioned { part, version: Version::parse(version)?, name: name.to_owned() })
    });
    if flyway.is_some() {
        return flyway;
    }
    let suffixes = [(".up", Part::Up), (".down", Part::Down), (".verify", Part::Verify)];
    let (stem, part) = suffixes
        .into_iter()
        .find_map(|(suffix, part)| Some((stem.strip_suffix(suffix)?, part)))
        .unwrap_or((stem, Part::Up));
    let (version, name) = read_stem(stem)?;
    Some(Named::Versioned { part, version, name })
}

/// Reads `0008_name`, `0008-name`, `0008`, `2024-01-02-030405_name`.
pub fn read_stem(stem: &str) -> Option<(Version, String)> {
    let end = stem.find('_').or_else(|| stem.find(|c: char| !c.is_ascii_digit())).unwrap_or(stem.len());
    let (version, rest) = match Version::parse(&stem[..end]) {
        Some(version) => (version, &stem[end..]),
        // `0008-name_of_it`: the first hyphen ends the version.
        None => {
            let end = stem.find(|c: char| !c.is_ascii_digit())?;
            (Version::parse(&stem[..end])?, &stem[end..])
        }
    };
    Some((version, rest.trim_start_matches(['_', '-', '.']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file_name: &str, expected: Option<(Part, &str, &str)>) {
        let expected = expected.map(|(part, version, name)| Named::Versioned {
            part,
            version: Version::parse(version).unwrap(),
            name: name.to_owned(),
        });
        assert_eq!(read_name(file_name), expected, "{file_name}");
    }

    #[test]
    fn names_of_every_tool_are_read() {
        check("0008_tenant_guard.sql", Some((Part::Up, "8", "tenant_guard")));
        check("0008_tenant_guard.down.sql", Some((Part::Down, "8", "tenant_guard")));
        check("0008_tenant_guard.verify.sql", Some((Part::Verify, "8", "tenant_guard")));
        check("1_init.up.sql", Some((Part::Up, "1", "init")));
        check("V1.2.0__add_users.sql", Some((Part::Up, "1.2", "add_users")));
        check("V1_2__x.sql", Some((Part::Up, "1.2", "x")));
        check("U1.2__add_users.sql", Some((Part::Down, "1.2", "add_users")));
        check("20240102030405_users.sql", Some((Part::Up, "20240102030405", "users")));
        check("0001-with-hyphens_too.sql", Some((Part::Up, "1", "with-hyphens_too")));
        check("7.sql", Some((Part::Up, "7", "")));
        assert_eq!(read_name("R__views.sql"), Some(Named::Repeatable { name: "views".into() }));
        for other in ["README.md", "seed.sql", "V__x.sql", "R__.sql", "schema.sql"] {
            assert_eq!(read_name(other), None, "{other}");
        }
        let (version, name) = read_stem("2024-01-02-030405_users").unwrap();
        assert_eq!((version.as_str(), name.as_str()), ("2024-01-02-030405", "users"));
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("9") < version("0010"));
        assert!(version("1.2") < version("1.10"));
        assert!(version("1") < version("1.0.1"));
        assert_eq!(version("0008"), version("8"));
        assert_eq!(version("1.0"), version("1"));
        assert_ne!(version("0"), version("1"));
    }
}
