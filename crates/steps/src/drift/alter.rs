//! How one that is different is changed where it stands, if PostgreSQL can.

use pgrunbook_postgres::quote;

use super::model::Item;

/// How one that is different is changed where it stands.
pub(super) enum Alter {
    /// Before the transaction.
    Before(Vec<String>),
    Now(String),
    Replace,
}

/// How the target's becomes the shadow's.
pub(super) fn alter(live: &Item, shadow: &Item) -> Alter {
    match live.kind.as_str() {
        "enum" => {
            return match (labels(live, shadow), renamed(live, shadow)) {
                (Some(statements), _) => Alter::Before(statements),
                (None, Some(sql)) => Alter::Now(sql),
                (None, None) => Alter::Replace,
            };
        }
        "type" if !live.alter.is_empty() && !shadow.alter.is_empty() => {
            return attributes(live, shadow).map_or(Alter::Replace, Alter::Now);
        }
        "constraint" if live.text.strip_suffix(" NOT VALID") == Some(&shadow.text) => {
            if let Some((on, name)) = live.drop.rsplit_once(" DROP CONSTRAINT ") {
                return Alter::Now(format!("{on} VALIDATE CONSTRAINT {name}"));
            }
        }
        "sequence" if narrows(live, shadow) => return Alter::Now(within_bounds(&shadow.alter)),
        "identity" => return Alter::Now(identity(live, shadow)),
        "column" if shadow.frame.is_empty() && live.text.starts_with(&format!("{} GENERATED ", shadow.text)) => {
            if let Some((table, name)) = live.drop.rsplit_once(" DROP COLUMN ") {
                return Alter::Now(format!("{table} ALTER COLUMN {name} DROP EXPRESSION"));
            }
        }
        _ => {}
    }
    if shadow.flags.set {
        Alter::Now(shadow.make.clone())
    } else if !shadow.alter.is_empty() && live.frame == shadow.frame {
        Alter::Now(shadow.alter.clone())
    } else {
        Alter::Replace
    }
}

/// How an identity column's sequence becomes the shadow's, its name included.
fn identity(live: &Item, shadow: &Item) -> String {
    let parts = |item: &'_ Item| item.text.rsplit_once(" named ").map(|(of, name)| (of.to_owned(), name.to_owned()));
    let (Some((ours, name)), Some((theirs, wanted))) = (parts(live), parts(shadow)) else {
        return shadow.alter.clone();
    };
    let renamed = (name != wanted).then(|| format!("ALTER {} RENAME TO {wanted}", live.phrase));
    let altered = if narrows(live, shadow) { within_bounds(&shadow.alter) } else { shadow.alter.clone() };
    let altered = (ours != theirs).then_some(altered);
    renamed.into_iter().chain(altered).collect::<Vec<_>>().join("; ")
}

/// Whether a sequence's position may be beyond its new bounds.
pub(super) fn narrows(live: &Item, shadow: &Item) -> bool {
    let bound = |item: &Item, word: &str| -> Option<i64> {
        item.text.split_once(word)?.1.split(' ').next().and_then(|number| number.parse().ok())
    };
    let bounds = |item: &Item| bound(item, "MINVALUE ").zip(bound(item, "MAXVALUE "));
    matches!(live.kind.as_str(), "sequence" | "identity")
        && matches!((bounds(live), bounds(shadow)), (Some((low, high)), Some((least, most))) if least > low || most < high)
}

/// A sequence whose position is beyond its new bounds begins anew.
fn within_bounds(sql: &str) -> String {
    let body = format!("BEGIN {sql}; EXCEPTION WHEN invalid_parameter_value THEN {sql} RESTART; END");
    if body.contains("$do$") {
        return format!("DO {}", quote::literal(&body).unwrap_or_default());
    }
    format!("DO $do$ {body} $do$")
}

/// An enum's labels, in their order.
fn labels_of(item: &Item) -> Vec<&str> {
    item.alter.split('\u{1f}').filter(|label| !label.is_empty()).collect()
}

/// The statements that give an enum's labels the names of those in their places, if only names differ: rows keep their values. `None`
/// where some must come, go or move.
fn renamed(live: &Item, shadow: &Item) -> Option<String> {
    let (there, wanted) = (labels_of(live), labels_of(shadow));
    let mut statements = Vec::new();
    for (from, to) in there.iter().zip(&wanted).filter(|(from, to)| from != to) {
        if wanted.contains(from) || there.contains(to) {
            return None;
        }
        let (from, to) = (quote::literal(from).ok()?, quote::literal(to).ok()?);
        statements.push(format!("ALTER {} RENAME VALUE {from} TO {to}", live.phrase));
    }
    (there.len() == wanted.len() && !statements.is_empty()).then(|| statements.join(";\n"))
}

/// The statements that add an enum's missing labels; `None` where some must go or move.
fn labels(live: &Item, shadow: &Item) -> Option<Vec<String>> {
    let (there, wanted) = (labels_of(live), labels_of(shadow));
    let kept: Vec<&str> = wanted.iter().filter(|label| there.contains(label)).copied().collect();
    if kept != there {
        return None;
    }
    let mut statements = Vec::new();
    for (at, label) in wanted.iter().enumerate().filter(|(_, label)| !there.contains(label)) {
        let place = match at.checked_sub(1) {
            Some(before) => format!(" AFTER {}", quote::literal(wanted[before]).ok()?),
            None if there.is_empty() => String::new(),
            None => format!(" BEFORE {}", quote::literal(there[0]).ok()?),
        };
        statements.push(format!("ALTER {} ADD VALUE {}{place}", live.phrase, quote::literal(label).ok()?));
    }
    Some(statements)
}

/// The statement that adds attributes to the end of a composite type, or takes them from there; `None` for any other change, for which the
/// values must be written anew.
fn attributes(live: &Item, shadow: &Item) -> Option<String> {
    let parts = |item: &Item| -> Vec<(String, String)> {
        let pairs = item.alter.split('\u{1f}').filter_map(|part| part.split_once('\u{1e}'));
        pairs.map(|(name, definition)| (name.to_owned(), definition.to_owned())).collect()
    };
    let (there, wanted) = (parts(live), parts(shadow));
    let actions: Vec<String> = if wanted.starts_with(&there) {
        wanted[there.len()..].iter().map(|(name, of)| format!("ADD ATTRIBUTE {name} {of} CASCADE")).collect()
    } else if there.starts_with(&wanted) {
        there[wanted.len()..].iter().map(|(name, _)| format!("DROP ATTRIBUTE {name} CASCADE")).collect()
    } else {
        return None;
    };
    Some(format!("ALTER {} {}", live.phrase, actions.join(", ")))
}

/// Whether every value of a column survives a change of its definition unchanged.
pub(super) fn widens(live: &str, shadow: &str) -> bool {
    const WIDER: &[&[&str]] = &[&["smallint", "integer", "bigint", "numeric"], &["real", "double precision"]];
    let type_of = |text: &str| {
        text.split_once(' ').map_or("", |(_, rest)| rest).split(" COLLATE ").next().unwrap_or_default().to_owned()
    };
    let (from, to) = (type_of(live), type_of(shadow));
    let place = |chain: &[&str], name: &str| chain.iter().position(|one| *one == name);
    from == to
        || matches!(to.as_str(), "text" | "character varying")
        || WIDER.iter().any(|chain| matches!((place(chain, &from), place(chain, &to)), (Some(a), Some(b)) if a < b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(labels: &str) -> Item {
        Item { kind: "enum".into(), phrase: "TYPE s.e".into(), alter: labels.replace(' ', "\u{1f}"), ..Item::default() }
    }

    #[test]
    fn labels_are_added_where_they_belong_or_not_at_all() {
        let added = |live: &str, shadow: &str| labels(&item(live), &item(shadow));
        assert_eq!(
            added("a c", "a b c d").unwrap().join("; "),
            "ALTER TYPE s.e ADD VALUE 'b' AFTER 'a'; ALTER TYPE s.e ADD VALUE 'd' AFTER 'c'"
        );
        assert_eq!(added("b", "a b").unwrap(), ["ALTER TYPE s.e ADD VALUE 'a' BEFORE 'b'"]);
        assert_eq!(added("a b", "b a"), None);
        assert_eq!(added("a b", "a"), None);
    }

    #[test]
    fn labels_are_renamed_where_only_names_differ() {
        let renamed = |live: &str, shadow: &str| renamed(&item(live), &item(shadow));
        assert_eq!(
            renamed("a b c", "a x y").unwrap(),
            "ALTER TYPE s.e RENAME VALUE 'b' TO 'x';\nALTER TYPE s.e RENAME VALUE 'c' TO 'y'"
        );
        assert_eq!(renamed("a b", "b a"), None);
        assert_eq!(renamed("a b", "a"), None);
        assert_eq!(renamed("a b c", "c x y"), None);
    }

    #[test]
    fn sequence_begins_anew_only_where_its_position_is_beyond_its_bounds() {
        let sequence = |text: &str| Item { kind: "sequence".into(), text: text.into(), ..Item::default() };
        let narrower = |live: &str, shadow: &str| narrows(&sequence(live), &sequence(shadow));
        assert!(narrower("MINVALUE 1 MAXVALUE 9 START", "MINVALUE 1 MAXVALUE 8 START"));
        assert!(narrower("MINVALUE 1 MAXVALUE 9 START", "MINVALUE 2 MAXVALUE 10 START"));
        assert!(!narrower("MINVALUE 1 MAXVALUE 9 START", "MINVALUE -5 MAXVALUE 10 START"));
        assert_eq!(
            within_bounds("ALTER SEQUENCE s MAXVALUE 3"),
            "DO $do$ BEGIN ALTER SEQUENCE s MAXVALUE 3; EXCEPTION WHEN invalid_parameter_value THEN \
             ALTER SEQUENCE s MAXVALUE 3 RESTART; END $do$"
        );
        assert_eq!(
            within_bounds("ALTER SEQUENCE \"$do$'\""),
            "DO 'BEGIN ALTER SEQUENCE \"$do$''\"; EXCEPTION WHEN invalid_parameter_value THEN ALTER SEQUENCE \"$do$''\" RESTART; END'"
        );
    }

    #[test]
    fn only_widening_keeps_every_value() {
        for (from, to, is) in [
            ("n integer", "n bigint", true),
            ("n bigint", "n integer", false),
            ("n character varying(3)", "n text", true),
            ("n text", "n character varying(3)", false),
            ("n text", "n text COLLATE \"C\"", true),
            ("n numeric(10,2)", "n numeric(8,1)", false),
        ] {
            assert_eq!(widens(from, to), is, "{from} to {to}");
        }
    }
}
