//! SQL text of names and values: every statement of the plan is put together by these.

use pgrunbook_postgres::quote;

use super::model::{Kind, Object, Table};

/// A name. A declaration's names hold no NUL, and the catalog's cannot.
pub fn ident(name: &str) -> String {
    quote::ident(&name.replace('\0', "")).expect("NUL was taken out")
}

/// A value.
pub fn literal(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}

/// A role where one may be PUBLIC.
pub fn grantee(name: &str) -> String {
    if name == super::state::PUBLIC { "PUBLIC".to_owned() } else { ident(name) }
}

/// `schema.name`
pub fn table(table: &Table) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

/// An object as `GRANT` and `ALTER` name it. A function's argument types come from the server, and are written as they are.
pub fn object(object: &Object) -> String {
    match (object.kind, object.name.split_once('(')) {
        (Kind::Function | Kind::Procedure, Some((name, arguments))) => {
            format!("{}.{}({arguments}", ident(&object.schema), ident(name))
        }
        _ => format!("{}.{}", ident(&object.schema), ident(&object.name)),
    }
}

/// The names of a `search_path`.
pub fn path(names: &[String]) -> String {
    names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")
}

/// The names of a `search_path` as the catalog keeps it.
pub fn names_of_path(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut name, mut quoted) = (String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, quoted) {
            ('"', true) if characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', false) => names.push(std::mem::take(&mut name)),
            (character, false) if character.is_whitespace() => {}
            (character, _) => name.push(character),
        }
    }
    if !name.is_empty() {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_keep_their_argument_types() {
        let function =
            Object { schema: "App".to_owned(), name: "do It(text, app.kind)".to_owned(), kind: Kind::Function };
        assert_eq!(object(&function), "\"App\".\"do It\"(text, app.kind)");
        let odd = Object { schema: "a".to_owned(), name: "x(y".to_owned(), kind: Kind::Table };
        assert_eq!(object(&odd), "a.\"x(y\"");
    }

    #[test]
    fn a_search_path_is_read_back() {
        let names = vec!["health".to_owned(), "Odd, \"one\"".to_owned(), "public".to_owned()];
        assert_eq!(names_of_path(&path(&names)), names);
        assert_eq!(names_of_path("\"$user\", public"), ["$user", "public"]);
    }
}
