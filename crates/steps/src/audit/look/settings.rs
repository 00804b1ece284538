//! Settings that apply at login: of a role, of a role in this database, of the database; and `search_path` of functions.

use super::Look;
use crate::audit::catalog::Setting;
use crate::audit::finding::{Finding, Severity};
use crate::audit::sql::{ident, names_of_path, path};

pub fn look(look: &mut Look<'_>) {
    look.search_paths();
    look.dangerous();
    look.functions();
}

impl<'a> Look<'a> {
    /// What a role's session begins with; see <https://www.postgresql.org/docs/current/sql-alterrole.html>: a role's own
    /// setting for this database, else its own, else the database's.
    fn at_login(&self, role: u32, name: &str) -> Option<&'a Setting> {
        let here = |one: &Setting| self.is_current(one.database);
        let of = |one: &&Setting| one.name.eq_ignore_ascii_case(name);
        let all = self.catalog.settings.iter().filter(of);
        let rank = |one: &&Setting| match (one.role == role, here(one), one.role == 0, one.database == 0) {
            (true, true, _, _) => Some(3),
            (true, _, _, true) => Some(2),
            (_, true, true, _) => Some(1),
            (_, _, true, true) => Some(0),
            _ => None,
        };
        all.filter(|one| rank(one).is_some()).max_by_key(|one| rank(one))
    }

    /// `role x in this database`
    fn place(&self, one: &Setting) -> String {
        match (one.role, one.database) {
            (0, 0) => "every role".to_owned(),
            (0, _) => format!("the database {}", self.catalog.database),
            (role, 0) => format!("the role {}", self.catalog.role_name(role)),
            (role, _) => format!("the role {} in the database {}", self.catalog.role_name(role), self.catalog.database),
        }
    }

    /// `ALTER ROLE a IN DATABASE b`, which takes a setting away or gives it.
    fn alter(&self, one: &Setting) -> String {
        let database = ident(&self.catalog.database);
        match (one.role, one.database) {
            (0, 0) => "ALTER ROLE ALL".to_owned(),
            (0, _) => format!("ALTER DATABASE {database}"),
            (role, 0) => format!("ALTER ROLE {}", self.catalog.grantee_sql(role)),
            (role, _) => format!("ALTER ROLE {} IN DATABASE {database}", self.catalog.grantee_sql(role)),
        }
    }

    fn search_paths(&mut self) {
        for declared in self.topology.roles.values() {
            let Some(role) = self.catalog.role(&declared.name) else { continue };
            let found = self.at_login(role.oid, "search_path");
            let is = found.map(|one| names_of_path(&one.value));
            let wanted = &declared.search_path;
            let name = ident(&role.name);
            let own = |one: &Setting| one.role == role.oid && self.is_current(one.database);
            let (message, mend) = match (&is, found) {
                (Some(is), _) if is == wanted => continue,
                (None, _) if wanted.is_empty() => continue,
                (Some(_), Some(one)) if wanted.is_empty() => (
                    format!(
                        "the search_path at login is `{}`, set for {}, and none is declared",
                        one.value,
                        self.place(one)
                    ),
                    format!("{} RESET search_path;", self.alter(one)),
                ),
                (is, _) => {
                    let message = match (is, found) {
                        (Some(_), Some(one)) => format!(
                            "the search_path at login is `{}`, set for {}, and `{}` is declared",
                            one.value,
                            self.place(one),
                            wanted.join(", ")
                        ),
                        _ => format!("the search_path `{}` is declared, and none is set", wanted.join(", ")),
                    };
                    let reset = match found.filter(|one| own(one)) {
                        Some(one) => format!("{} RESET search_path; ", self.alter(one)),
                        None => String::new(),
                    };
                    (message, format!("{reset}ALTER ROLE {name} SET search_path = {};", path(wanted)))
                }
            };
            let shown = is.map_or_else(|| "the server's".to_owned(), |is| is.join(", "));
            self.put(Finding {
                rule: "search-path",
                severity: Severity::Warning,
                role: role.name.clone(),
                object: format!("role {}", role.name),
                path: format!("`{}` -> login -> search_path = {shown}", role.name),
                message,
                mend: Some(mend),
            });
        }
    }

    fn dangerous(&mut self) {
        for one in &self.catalog.settings {
            let role = self.catalog.role_name(one.role);
            let bounded = one.role == 0 || self.topology.bounded_roles().any(|known| known.name == role);
            let here = one.database == 0 || self.is_current(one.database);
            if !bounded || !here {
                continue;
            }
            let tenant = self.topology.row_security.iter().find(|rls| rls.setting.eq_ignore_ascii_case(&one.name));
            let why = match (one.name.as_str(), tenant) {
                ("session_replication_role", _) if one.value != "origin" => {
                    "triggers and foreign keys do not fire".to_owned()
                }
                (_, Some(rls)) => {
                    format!("a session that sets no tenant has one: the row security `{}` is open to it", rls.name)
                }
                ("role", _) => "the session acts as another role from its beginning".to_owned(),
                ("local_preload_libraries" | "session_preload_libraries", _) => "it loads code".to_owned(),
                _ => continue,
            };
            let place = self.place(one);
            self.put(Finding {
                rule: "role-setting",
                severity: Severity::Error,
                role: role.clone(),
                object: format!("setting {}", one.name),
                path: format!("`{role}` -> login -> {} set for {place}", one.name),
                message: format!("{} is set for {place}: {why}", one.name),
                mend: Some(format!(
                    "{} RESET {};",
                    self.alter(one),
                    one.name.split('.').map(ident).collect::<Vec<_>>().join(".")
                )),
            });
        }
    }

    /// A function that looks its names up in another tenant's schema.
    fn functions(&mut self) {
        for routine in self.declared_routines() {
            let Some(names) = routine.search_path() else { continue };
            let home = self.topology.schemas.get(&routine.object.schema);
            let strange: Vec<String> = names
                .iter()
                .filter(|name| **name != routine.object.schema)
                .filter(|name| {
                    let other = self.topology.schemas.get(*name).and_then(|schema| schema.tenant.as_ref());
                    other.is_some() && other != home.and_then(|schema| schema.tenant.as_ref())
                })
                .cloned()
                .collect();
            if strange.is_empty() {
                continue;
            }
            let kept: Vec<String> = names.iter().filter(|name| !strange.contains(name)).cloned().collect();
            let shown = strange.join("`, `");
            self.put(Finding {
                rule: "search-path",
                severity: Severity::Warning,
                role: self.catalog.role_name(routine.owner),
                object: routine.object.to_string(),
                path: format!("`{}` -> search_path -> `{shown}`", routine.object),
                message: format!("`{}` looks its names up in `{shown}`, the schema of another tenant", routine.object),
                mend: Some(format!(
                    "ALTER {} {} SET search_path = {};",
                    routine.object.kind.grant_word(),
                    routine.sql(),
                    path(&kept)
                )),
            });
        }
    }
}
