//! The words of both backends: what is read and written of a source.

use serde_json::{Value, json};

use crate::answer::{Failure, now};

/// Rows of a list, if nothing is said, and at the most.
pub const LIMIT: (i64, i64) = (50, 500);

/// A write as its client asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The client's name for it (`Idempotency-Key`): sent twice, it happens once.
    pub key: Option<String>,
    pub item: i64,
    pub what: What,
    /// The moment that is stored.
    pub at: String,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The whole of an item's meta, as JSON.
    Meta(String),
    NoteNew {
        author: String,
        body: String,
    },
    NoteEdit {
        note: i64,
        body: String,
    },
    NoteDelete {
        note: i64,
    },
}

impl Write {
    pub fn new(key: Option<String>, item: i64, what: What) -> Self {
        Self { key, item, what, at: now() }
    }

    /// Its name in `edits`.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Meta(_) => "meta",
            What::NoteNew { .. } => "note",
            What::NoteEdit { .. } => "note-edit",
            What::NoteDelete { .. } => "note-delete",
        }
    }

    /// What `edits` keeps of it.
    pub fn value(&self) -> &str {
        match &self.what {
            What::Meta(text) => text,
            What::NoteNew { body, .. } | What::NoteEdit { body, .. } => body,
            What::NoteDelete { .. } => "",
        }
    }

    /// The answer to one that was done before, with what it did then; a failure if its key was another write's.
    ///
    /// # Errors
    /// [`Failure::Conflict`].
    pub fn replayed(&self, kind: &str, item: i64, note: Option<i64>) -> Result<Value, Failure> {
        if kind != self.kind() || item != self.item {
            return Err(Failure::Conflict("this Idempotency-Key was another write's".to_owned()));
        }
        Ok(json!({ "ok": true, "replayed": true, "item_id": item, "note_id": note }))
    }

    /// The answer to one that was done now.
    pub fn done(&self, note: Option<i64>) -> Value {
        json!({ "ok": true, "replayed": false, "item_id": self.item, "note_id": note })
    }
}

/// The words of a search: each must begin a word of the item.
pub fn words(query: &str) -> Vec<String> {
    query.split(|one: char| !one.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// JSON that the database keeps as text.
pub fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

pub fn no_item(id: i64) -> Failure {
    Failure::NotFound(format!("there is no item {id}"))
}

pub fn no_note(item: i64, note: i64) -> Failure {
    Failure::NotFound(format!("item {item} has no note {note}"))
}

pub fn unknown_source(id: &str) -> Failure {
    Failure::BadRequest(format!("there is no source {id:?}"))
}

/// The schema of a source: the rule of `pgrunbook source`, with its pattern `src_{source}`.
///
/// # Errors
/// [`Failure::BadRequest`] where the id gives no name of its own.
pub fn schema_of(id: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Err(Failure::BadRequest(format!("the source id {id:?} {why}")));
    if id.chars().any(char::is_control) || !id.contains(|one: char| one.is_ascii_alphanumeric()) {
        return wrong("has no letter from a to z and no digit");
    }
    let part = id.chars().map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_lowercase() } else { '_' });
    let name: String = "src_".chars().chain(part).collect();
    if name.len() > 63 {
        return wrong("is too long");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_give_the_schemas_that_pgrunbook_gives_them() {
        for (id, wanted) in [("assets_1", "src_assets_1"), ("Profile-7", "src_profile_7"), ("\"; DROP", "src____drop")]
        {
            assert_eq!(schema_of(id).unwrap(), wanted, "{id}");
        }
        for id in ["", "--", "日本", "a\nb", &"x".repeat(60)] {
            assert!(schema_of(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_key_belongs_to_one_write() {
        let write = Write::new(Some("k".to_owned()), 3, What::Meta("{}".to_owned()));
        assert_eq!(write.replayed("meta", 3, None).unwrap()["replayed"], true);
        assert!(write.replayed("meta", 4, None).is_err());
        assert!(write.replayed("note", 3, Some(1)).is_err());
    }

    #[test]
    fn whatever_is_searched_for_is_words() {
        assert_eq!(words("  Zoë's *\"new\"* plan-B "), ["zoë", "s", "new", "plan", "b"]);
        assert!(words("-- '\"").is_empty());
    }
}
