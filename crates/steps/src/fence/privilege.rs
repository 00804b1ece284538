//! The weaker fence: privileges to write are taken away, and remembered one by one.
//!
//! All grants on a table hang from its owner's, so that revoking those with CASCADE takes all. The role that sets the fence
//! keeps its own, or nothing could flow back; superusers are held by no privilege.

use pgrunbook_postgres::{PgError, Session};

use super::table::Found;
use crate::topology::{ident, literal};

/// A privilege to write, as an ACL has it.
struct Grant {
    table: String,
    owner: String,
    grantor: String,
    /// `None`: PUBLIC.
    grantee: Option<String>,
    privilege: String,
    grantable: bool,
    column: Option<String>,
}

impl Grant {
    fn to(&self) -> String {
        self.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident)
    }

    /// The statement that gives it again.
    fn sql(&self) -> String {
        let column = self.column.as_ref().map_or_else(String::new, |column| format!(" ({})", ident(column)));
        let option =
            if self.grantable && self.grantee.as_ref() != Some(&self.owner) { " WITH GRANT OPTION" } else { "" };
        let grant = format!("GRANT {}{column} ON {} TO {}{option}", self.privilege, self.table, self.to());
        if self.grantor == self.owner {
            return grant;
        }
        format!("SET LOCAL ROLE {}; {grant}; RESET ROLE", ident(&self.grantor))
    }
}

fn sql(found: &[u32]) -> String {
    let ids: Vec<String> = found.iter().map(u32::to_string).collect();
    format!(
        "WITH entry AS (
             SELECT c.oid, NULL::name AS attname, a.*
             FROM pg_catalog.pg_class AS c,
                  pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS a
             WHERE c.oid IN ({ids})
             UNION ALL
             SELECT t.attrelid, t.attname, a.*
             FROM pg_catalog.pg_attribute AS t, pg_catalog.aclexplode(t.attacl) AS a
             WHERE t.attrelid IN ({ids}) AND NOT t.attisdropped
         )
         SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner), pg_catalog.pg_get_userbyid(e.grantor),
                CASE WHEN e.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(e.grantee) END,
                e.privilege_type, e.is_grantable, e.attname
         FROM entry AS e JOIN pg_catalog.pg_class AS c ON c.oid = e.oid
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE e.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
           AND e.grantee IS DISTINCT FROM
               (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER)
         ORDER BY e.grantor <> c.relowner, n.nspname, c.relname, e.attname NULLS FIRST, 5 NULLS FIRST, 6",
        ids = ids.join(", ")
    )
}

async fn grants(session: &Session, tables: &[u32]) -> Result<Vec<Grant>, PgError> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let answers = session.simple(&sql(tables)).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| {
            let maybe = |at: usize| row.get(at).cloned().flatten();
            let text = |at: usize| maybe(at).unwrap_or_default();
            Grant {
                table: format!("{}.{}", ident(&text(0)), ident(&text(1))),
                owner: text(2),
                grantor: text(3),
                grantee: maybe(4),
                privilege: text(5),
                grantable: text(6) == "t",
                column: maybe(7),
            }
        })
        .collect())
}

/// The statements that take the privileges away, and those that give them back, in their order.
pub(super) async fn taken(session: &Session, found: &Found) -> Result<(String, Vec<String>), PgError> {
    let ids: Vec<u32> = found.tables.iter().map(|table| table.oid).collect();
    let grants = grants(session, &ids).await?;
    let mut text = String::new();
    for table in &found.tables {
        let name = table.sql();
        let mut grantees: Vec<String> = grants.iter().filter(|one| one.table == name).map(Grant::to).collect();
        grantees.sort();
        grantees.dedup();
        if !grantees.is_empty() {
            text.push_str(&format!(
                "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {name} FROM {} CASCADE;\n",
                grantees.join(", ")
            ));
        }
    }
    text.push_str("SELECT 1");
    Ok((text, grants.iter().map(Grant::sql).collect()))
}

/// Gives back what a fence took; inside its transaction. What cannot be given (a role is gone) is told.
pub(super) async fn given_back(session: &Session, id: &str) -> Result<Vec<String>, PgError> {
    let answers = session
        .simple(&format!(
            "SELECT u.one FROM pgrunbook.fence AS f, pg_catalog.unnest(f.undo) WITH ORDINALITY AS u(one, at)
             WHERE f.id = {} ORDER BY u.at",
            literal(id)
        ))
        .await?;
    let mut failed = Vec::new();
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    for grant in rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
        match session.execute(&format!("SAVEPOINT grant_back; {grant}; RELEASE SAVEPOINT grant_back")).await {
            Ok(()) => {}
            Err(error @ PgError::Lost { .. }) => return Err(error),
            Err(error) => {
                session.execute("ROLLBACK TO SAVEPOINT grant_back").await?;
                failed.push(format!("{grant}: {error}"));
            }
        }
    }
    Ok(failed)
}

/// Who may still write there, of those whom privileges can hold.
pub(super) async fn left(session: &Session, tables: &[u32]) -> Result<Vec<String>, PgError> {
    let grants = grants(session, tables).await?;
    Ok(grants.iter().map(|one| format!("{} may still {} {}", one.to(), one.privilege, one.table)).collect())
}
