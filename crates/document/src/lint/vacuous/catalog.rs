//! Rules about catalogs that show less than they seem to.

use crate::diagnostic::Diagnostic;
use crate::expectation::Expectation;

use super::words::{Asked, Word, truth};

/// Finds views of grants that are asked for what must not be there.
///
/// They list direct grants only, and of these only such as the one who asks has a part in:
/// <https://www.postgresql.org/docs/current/infoschema-role-table-grants.html>, tried on 15.
pub(super) fn grants_view(asked: &Asked<'_>, found: &mut Vec<Diagnostic>) {
    if !asked.expects_nothing() {
        return;
    }
    let judged = asked.judged();
    let view = judged.iter().enumerate().find(|(at, word)| {
        word.names(&["role_table_grants"])
            || (word.names(&["table_privileges"]) && in_information_schema(&judged[..*at]))
    });
    if let Some((_, view)) = view {
        found.push(
            Diagnostic::warning(
                "grants-view",
                asked.place(*view),
                "this view shows direct grants only: what a role may do through PUBLIC, another role's membership, a single \
                 column or a materialized view is not there, and nothing proves its absence",
            )
            .help(
                "let `pgrunbook audit` follow every path, or ask `has_table_privilege(role, table, privilege)` and \
                 `has_any_column_privilege` for each role and table",
            ),
        );
    }
}

/// Finds a role's settings read from the role alone.
///
/// What `ALTER ROLE ... IN DATABASE` sets goes before them and is only in `pg_db_role_setting`:
/// <https://www.postgresql.org/docs/current/sql-alterrole.html>, tried on 15.
pub(super) fn role_settings(asked: &Asked<'_>, found: &mut Vec<Diagnostic>) {
    if asked.expects_error() || asked.mentions(&["pg_db_role_setting", "current_setting"]) {
        return;
    }
    if let Some(column) = asked.judged().iter().find(|word| word.names(&["rolconfig", "useconfig"])) {
        found.push(
            Diagnostic::warning(
                "role-settings",
                asked.place(*column),
                format!(
                    "`{}` is not what a session gets: `ALTER ROLE ... IN DATABASE ... SET search_path` overrides it and is not \
                     shown here",
                    column.text.to_lowercase()
                ),
            )
            .help(
                "name a target that logs in as the role, and expect `value = '...'` of `SELECT current_setting('search_path')`; \
                 or read `pg_db_role_setting`, where a row with `setdatabase` goes before one with 0",
            ),
        );
    }
}

/// Finds triggers that are listed, and may be disabled.
pub(super) fn trigger_state(asked: &Asked<'_>, found: &mut Vec<Diagnostic>) {
    if asked.expects_error()
        || asked.expects_nothing()
        || asked.mentions(&["tgenabled"])
        || asked.expects_column("tgenabled")
    {
        return;
    }
    let judged = asked.judged();
    let catalog = judged.iter().enumerate().find(|(at, word)| {
        word.names(&["pg_trigger"]) || (word.names(&["triggers"]) && in_information_schema(&judged[..*at]))
    });
    if let Some((_, catalog)) = catalog {
        let column = judged.iter().find(|word| word.names(&["tgname", "trigger_name"])).unwrap_or(catalog);
        found.push(
            Diagnostic::warning(
                "trigger-state",
                asked.place(*column),
                "a trigger that is disabled is listed as well: this passes where it does nothing",
            )
            .help(
                "read `tgenabled` from `pg_trigger` too (`A`: always, `O`: not in replica mode, `D`: disabled), and `tgtype`, \
                 which says whether TRUNCATE is stopped; better, probe it: `DELETE FROM ...` with `-- expect: error P0001`",
            ),
        );
    }
}

/// Finds the flag of row security where nothing else is looked at.
pub(super) fn row_security_flag(all: &[&Asked<'_>], found: &mut Vec<Diagnostic>) {
    const MORE: &[&str] = &["relforcerowsecurity", "pg_policy", "pg_policies", "row_security_active"];
    let proves = |asked: &&&Asked<'_>| asked.mentions(MORE) || (asked.is_gate && is_refused_or_hidden(asked));
    if all.iter().any(|asked| proves(&asked)) {
        return;
    }
    for asked in all.iter().filter(|asked| asked.is_gate && !asked.expects_error()) {
        let flag = asked.judged().iter().find(|word| is_flag(**word));
        let Some(flag) = flag.filter(|_| expects_flag(asked)) else { continue };
        found.push(
            Diagnostic::warning(
                "row-security-flag",
                asked.place(*flag),
                "this flag does not say which rows are hidden: the owner sees all without FORCE, and whom the policies let through is not \
                 looked at",
            )
            .help(
                "expect `relrowsecurity AND relforcerowsecurity` of `pg_class`, read `pg_policies`, and probe it: `as:` the \
                 runtime role, insert a row, and expect `0 rows` as another tenant",
            ),
        );
    }
}

/// Whether row security itself is seen at work: as some role, rows do not come, or are refused by a policy.
fn is_refused_or_hidden(asked: &Asked<'_>) -> bool {
    let by_policy = |one: &Expectation| matches!(one, Expectation::Error { message_contains: Some(part), .. } if part.contains("row-level security"));
    asked.body.role.is_some() && (asked.expects_nothing() || asked.expectations().any(by_policy))
}

/// Whether a check holds where the flag is on, and not where it is off.
fn expects_flag(asked: &Asked<'_>) -> bool {
    let judged = asked.judged();
    let asks_for_off = (0..judged.len()).any(|at| is_flag(judged[at]) && is_negated(judged, at));
    let expects_false = asked.expectations().any(|one| match one {
        Expectation::Value(_, value) | Expectation::EachRow { value, .. } => truth(value) == Some(false),
        Expectation::Table { rows, .. } => rows.iter().flatten().any(|cell| truth(cell) == Some(false)),
        _ => false,
    });
    asks_for_off == (asked.expects_nothing() || expects_false)
}

fn is_flag(word: Word<'_>) -> bool {
    word.names(&["rowsecurity", "relrowsecurity"])
}

/// Whether the column at a place is asked to be false: `NOT c.relrowsecurity`, `relrowsecurity = false`.
fn is_negated(words: &[Word<'_>], at: usize) -> bool {
    let before = match &words[..at] {
        [before @ .., _, dot] if dot.is_sign(".") => before,
        before => before,
    };
    let not = before.last().is_some_and(|word| word.is("not"));
    let is_false = |word: &Word<'_>| truth(word.text.trim_matches('\'')) == Some(false);
    let compared_with_false = match &words[at + 1..] {
        [is, not, truth, ..] if is.is("is") && not.is("not") => truth.is("true"),
        [sign, value, ..] if sign.is_sign("=") || sign.is("is") => is_false(value),
        [sign, value, ..] if sign.is_sign("<>") || sign.is_sign("!=") => !is_false(value),
        _ => false,
    };
    not != compared_with_false
}

/// Whether words end in `information_schema.`.
fn in_information_schema(words: &[Word<'_>]) -> bool {
    matches!(words, [.., schema, dot] if dot.is_sign(".") && schema.names(&["information_schema"]))
}
