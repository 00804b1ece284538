//! From a source id to the name of its schema.

use std::fmt;

use super::error::SourceError;
use crate::topology::{Sources, Topology, ident};

/// The name of a source's schema: a strict identifier, so that it means itself with quotes and without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaName(String);

impl SchemaName {
    /// A name that the mapping has.
    ///
    /// # Errors
    /// If it is none that a source may have, as the end of a sentence.
    pub(super) fn parse(topology: &Topology, name: &str) -> Result<Self, String> {
        topology.may_be_sources(name)?;
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a topology says of sources.
pub(super) fn declared(topology: &Topology) -> Result<&Sources, SourceError> {
    topology.sources.as_ref().ok_or_else(|| SourceError::Undeclared { declaration: topology.source.clone() })
}

/// The schema that a source id gives: ASCII letters in lower case, digits as they are, and `_` for every other character,
/// inside the declared pattern.
///
/// Two ids may give one name; that is for the mapping to refuse. Nothing is cut off: a name that is too long is refused.
///
/// # Errors
/// [`SourceError::Id`]: an id that is empty, holds a control character, has no letter or digit, is too long, or gives a
/// name that is reserved or declared for something else.
pub fn sanitise(topology: &Topology, id: &str) -> Result<SchemaName, SourceError> {
    let sources = declared(topology)?;
    let wrong = |why: String| SourceError::Id { id: id.to_owned(), why };
    check_id(id)?;
    if !id.contains(|one: char| one.is_ascii_alphanumeric()) {
        return Err(wrong("has no letter from a to z and no digit that its schema could be told by".to_owned()));
    }
    let part: String =
        id.chars().map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_lowercase() } else { '_' }).collect();
    let name = format!("{}{part}{}", sources.before, sources.after);
    SchemaName::parse(topology, &name).map_err(|why| wrong(format!("gives the schema name {name}, which {why}")))
}

/// Whether a text can be a source id at all.
pub(super) fn check_id(id: &str) -> Result<(), SourceError> {
    let wrong = |why: &str| Err(SourceError::Id { id: id.to_owned(), why: why.to_owned() });
    if id.is_empty() {
        return wrong("is empty");
    }
    if id.chars().any(char::is_control) {
        return wrong("holds a control character");
    }
    Ok(())
}

/// The statement that a transaction on a source's rows begins with. `LOCAL`: it ends with the transaction, so that a pooled
/// connection does not carry it to the next source.
pub fn search_path_of(schema: &SchemaName) -> String {
    format!("SET LOCAL search_path = {}, public", ident(schema.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topology(pattern: &str) -> Topology {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[database]\nowner = \"sx_owner\"\n[schemas]\nshared = {{}}\n[roles.sx_app]\nkind = \"runtime\"\n\
             [sources]\nregistry = \"shared.sources\"\nroles = [\"sx_app\"]\nschema = \"{pattern}\"\n"
        );
        std::fs::write(folder.path().join("topology.toml"), text).unwrap();
        crate::topology::load(folder.path(), "default").unwrap()
    }

    #[test]
    fn ids_as_people_have_them_give_strict_names() {
        let topology = topology("src_{source}");
        for (id, wanted) in [
            ("assets_1", "src_assets_1"),
            ("Profile-7", "src_profile_7"),
            ("ünïcode", "src__n_code"),
            ("a b", "src_a_b"),
            ("7up", "src_7up"),
            ("\"; drop schema x", "src____drop_schema_x"),
            ("x'); SELECT 1; --", "src_x____select_1____"),
            ("../../etc", "src_______etc"),
            // KELVIN SIGN is no k, though it is one in lower case.
            ("\u{212a}1", "src__1"),
        ] {
            assert_eq!(sanitise(&topology, id).unwrap().as_str(), wanted, "{id}");
        }
    }

    #[test]
    fn ids_that_give_no_name_of_their_own_are_refused_with_one_sentence() {
        let long = "x".repeat(60);
        let plain = topology("{source}");
        let topology = topology("src_{source}");
        for (topology, id, wanted) in [
            (&topology, "", "the source id \"\" is empty. Nothing was changed."),
            (&topology, "a\0b", "holds a control character"),
            (&topology, "a\nb", "holds a control character"),
            (&topology, "日本", "has no letter from a to z and no digit"),
            (&topology, "--", "has no letter from a to z and no digit"),
            (&topology, &long, "has 64 bytes, and PostgreSQL keeps 63"),
            (&plain, "7up", "gives the schema name 7up, which is not lower-case letters"),
            (&plain, "PG-catalog", "gives the schema name pg_catalog, which is reserved"),
            (&plain, "public", "is reserved"),
            (&plain, "pgrunbook", "is reserved"),
            (&plain, "information schema", "is reserved"),
            (&plain, "Shared", "gives the schema name shared, which is declared in topology.toml for something else"),
        ] {
            let error = sanitise(topology, id).unwrap_err().to_string();
            assert!(error.contains(wanted), "{id}: {error}");
        }
        assert_eq!(sanitise(&topology, &long[1..]).unwrap().as_str().len(), 63);
    }

    proptest! {
        #[test]
        fn whatever_the_id_the_name_is_strict(id in "\\PC*") {
            let topology = topology("src_{source}");
            if let Ok(name) = sanitise(&topology, &id) {
                prop_assert!(name.as_str().len() <= 63);
                prop_assert_eq!(ident(name.as_str()), name.as_str());
                prop_assert!(name.as_str().starts_with("src_"));
            }
        }
    }
}
