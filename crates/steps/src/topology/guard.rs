//! What stands guard inside the database: the function that reads a tenant's context, policies by it, and the triggers of
//! append-only tables.
//!
//! A context is a setting that the runtime role itself can set: it keeps tenants apart against mistakes of the
//! application, not against SQL that somebody injects into it.

use super::model::{AppendOnly, RowSecurity, Table, WithoutContext};
use super::state::PolicyState;
use super::write::{self, ident, literal};

/// The function that reads the context.
pub fn create_guard(one: &RowSecurity) -> String {
    let (name, type_name) = (write::table(&one.guard), &one.type_name);
    let setting = literal(&one.setting);
    match one.without {
        WithoutContext::Error => format!(
            "CREATE FUNCTION {name}() RETURNS {type_name} LANGUAGE plpgsql STABLE PARALLEL SAFE AS $guard$
DECLARE
    tenant text := pg_catalog.current_setting({setting}, true);
BEGIN
    -- Empty: what is left of SET LOCAL when its transaction has ended.
    IF tenant IS NULL OR tenant = '' THEN
        RAISE EXCEPTION {} USING ERRCODE = 'P0001';
    END IF;
    RETURN tenant;
END
$guard$",
            literal(&format!("{} is not set", one.setting))
        ),
        WithoutContext::Hidden => format!(
            "CREATE FUNCTION {name}() RETURNS {type_name} LANGUAGE sql STABLE PARALLEL SAFE AS $guard$
SELECT nullif(pg_catalog.current_setting({setting}, true), '')::{type_name}
$guard$"
        ),
    }
}

/// The statements that make the policy, and that alter it.
pub fn policy(one: &RowSecurity, table: &Table) -> (String, String) {
    let name = format!("{} ON {}", ident(&one.policy()), write::table(table));
    let condition = format!("{} = {}()", ident(&one.column), write::table(&one.guard));
    let roles: Vec<String> = one.roles.iter().map(|role| ident(role)).collect();
    let rest = format!("TO {} USING ({condition}) WITH CHECK ({condition})", roles.join(", "));
    (format!("CREATE POLICY {name} FOR ALL {rest}"), format!("ALTER POLICY {name} {rest}"))
}

/// Whether a policy is as declared. The server writes expressions in its own way: parentheses and casts do not count.
pub fn is_as_declared(one: &RowSecurity, is: &PolicyState) -> bool {
    let condition = bare(&format!("{} = {}()", ident(&one.column), write::table(&one.guard)));
    let same = |text: &Option<String>| text.as_deref().is_some_and(|text| bare(text) == condition);
    same(&is.using)
        && same(&is.check)
        && is.roles.iter().eq(one.roles.iter().collect::<std::collections::BTreeSet<_>>())
}

/// An expression without blanks, parentheses and casts.
fn bare(text: &str) -> String {
    let mut bare = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("::") {
            let end = behind.find(|one: char| !(one.is_alphanumeric() || matches!(one, '_' | '.' | '"')));
            rest = &behind[end.unwrap_or(behind.len())..];
            continue;
        }
        if !first.is_whitespace() && !matches!(first, '(' | ')') {
            bare.push(first);
        }
        rest = &rest[first.len_utf8()..];
    }
    bare
}

/// The statement that makes a policy again what it was.
pub fn alter_back(table: &Table, is: &PolicyState) -> String {
    let mut sql = format!("ALTER POLICY {} ON {} TO ", ident(&is.name), write::table(table));
    sql.push_str(&is.roles.iter().map(|role| write::grantee(role)).collect::<Vec<_>>().join(", "));
    if let Some(using) = &is.using {
        sql.push_str(&format!(" USING ({using})"));
    }
    if let Some(check) = &is.check {
        sql.push_str(&format!(" WITH CHECK ({check})"));
    }
    sql
}

/// The word of `ALTER TABLE` for a value of `pg_trigger.tgenabled`.
pub fn enabled_word(enabled: char) -> &'static str {
    match enabled {
        'A' => "ENABLE ALWAYS TRIGGER",
        'R' => "ENABLE REPLICA TRIGGER",
        'D' => "DISABLE TRIGGER",
        _ => "ENABLE TRIGGER",
    }
}

/// Class 23, integrity constraint violation: `restrict_violation`.
const REFUSE: &str = "
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP USING ERRCODE = '23001';
END
";

/// Arguments: the column, the value it may move from, the values it may move to.
const MOVE: &str = "
DECLARE
    before jsonb := pg_catalog.to_jsonb(OLD);
    after jsonb := pg_catalog.to_jsonb(NEW);
BEGIN
    IF before - TG_ARGV[0] IS DISTINCT FROM after - TG_ARGV[0] THEN
        RAISE EXCEPTION '%.% is append-only: only % may change', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
            USING ERRCODE = '23001';
    END IF;
    IF before ->> TG_ARGV[0] IS DISTINCT FROM after ->> TG_ARGV[0]
        AND (before ->> TG_ARGV[0] IS DISTINCT FROM TG_ARGV[1]
            OR NOT coalesce(after ->> TG_ARGV[0] = ANY (TG_ARGV[2:]), false)) THEN
        RAISE EXCEPTION '%.%: % cannot move from % to %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0],
            before ->> TG_ARGV[0], after ->> TG_ARGV[0] USING ERRCODE = '23001';
    END IF;
    RETURN NEW;
END
";

/// `pg_trigger.tgtype`, as <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_trigger.h> has it.
const ROW: i16 = 1;
const BEFORE: i16 = 2;
const DELETE: i16 = 8;
const UPDATE: i16 = 16;
const TRUNCATE: i16 = 32;

/// A trigger as it shall be.
pub struct Wanted {
    pub name: &'static str,
    pub function: Table,
    pub body: &'static str,
    /// `UPDATE OR DELETE`
    events: &'static str,
    bits: i16,
    arguments: Vec<String>,
}

impl Wanted {
    /// `TG_ARGV` counts from 0, and a slice of it from its lower bound.
    pub fn create_function(&self) -> String {
        format!(
            "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS $guard${}$guard$",
            write::table(&self.function),
            self.body
        )
    }

    pub fn create(&self, table: &Table) -> String {
        let level = if self.bits & ROW != 0 { "ROW" } else { "STATEMENT" };
        let arguments: Vec<String> = self.arguments.iter().map(|one| literal(one)).collect();
        format!(
            "CREATE TRIGGER {} BEFORE {} ON {} FOR EACH {level} EXECUTE FUNCTION {}({})",
            ident(self.name),
            self.events,
            write::table(table),
            write::table(&self.function),
            arguments.join(", ")
        )
    }

    /// Whether the trigger that is there is this one, enabled or not.
    pub fn is(&self, is: &super::state::TriggerState) -> bool {
        is.bits == self.bits && is.function == self.function && is.arguments == self.arguments
    }
}

/// The triggers of an append-only table.
pub fn triggers(one: &AppendOnly) -> Vec<Wanted> {
    let function = |name: &str| Table { schema: one.table.schema.clone(), name: name.to_owned() };
    let refuse = |events, bits| Wanted {
        name: "append_only",
        function: function("append_only_refuse"),
        body: REFUSE,
        events,
        bits: BEFORE | bits,
        arguments: Vec::new(),
    };
    match &one.status {
        None => vec![refuse("UPDATE OR DELETE OR TRUNCATE", UPDATE | DELETE | TRUNCATE)],
        Some(status) => {
            let arguments = [&status.column, &status.from].into_iter().chain(&status.to).cloned().collect();
            vec![
                refuse("DELETE OR TRUNCATE", DELETE | TRUNCATE),
                Wanted {
                    name: "append_only_status",
                    function: function("append_only_status"),
                    body: MOVE,
                    events: "UPDATE",
                    bits: BEFORE | ROW | UPDATE,
                    arguments,
                },
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_and_parentheses_do_not_count() {
        assert_eq!(
            bare("((community_id)::text = app.current_community_id())"),
            "community_id=app.current_community_id"
        );
        assert_eq!(bare("(a = (app.f())::app.kind)"), "a=app.f");
    }
}
