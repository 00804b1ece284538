//! Secrets in texts that every role may read, or that every dump carries. They are named by what they are and never shown.

use pgrunbook_document::secrets::find;

use super::Look;
use crate::audit::finding::{Finding, Severity};
use crate::audit::sql::ident;

pub fn look(look: &mut Look<'_>) {
    look.bodies();
    look.comments();
    look.settings();
    look.outside();
}

impl Look<'_> {
    /// What a text holds; it is counted as searched.
    fn search(&mut self, text: &str) -> Option<&'static str> {
        self.texts += 1;
        find(text).first().map(|secret| secret.what)
    }

    fn put_secret(&mut self, what: &str, role: &str, object: String, place: &str, mend: Option<String>) {
        self.put(Finding {
            rule: "secret",
            severity: Severity::Error,
            role: role.to_owned(),
            path: format!("`{role}` -> {place}"),
            message: format!("{what} stands in {place}: take it out, and make it worthless by a new one"),
            object,
            mend,
        });
    }

    fn bodies(&mut self) {
        for one in self.catalog.routines.values() {
            let Some(text) = &one.body else { continue };
            if let Some(what) = self.search(text) {
                let shown = one.object.to_string();
                self.put_secret(what, "PUBLIC", shown.clone(), &format!("the body of `{shown}`"), None);
            }
        }
        for one in self.catalog.relations.values() {
            let Some(text) = &one.definition else { continue };
            if let Some(what) = self.search(text) {
                let shown = one.object.to_string();
                self.put_secret(what, "PUBLIC", shown.clone(), &format!("the definition of `{shown}`"), None);
            }
        }
    }

    fn comments(&mut self) {
        for one in &self.catalog.comments {
            let Some(what) = self.search(&one.text) else { continue };
            let word = match one.kind.as_str() {
                "table column" | "view column" | "materialized view column" | "foreign table column" => Some("COLUMN"),
                "table" => Some("TABLE"),
                "view" => Some("VIEW"),
                "materialized view" => Some("MATERIALIZED VIEW"),
                "function" => Some("FUNCTION"),
                "procedure" => Some("PROCEDURE"),
                "schema" => Some("SCHEMA"),
                "sequence" => Some("SEQUENCE"),
                "type" => Some("TYPE"),
                "role" => Some("ROLE"),
                "database" => Some("DATABASE"),
                _ => None,
            };
            let mend = word.map(|word| format!("COMMENT ON {word} {} IS NULL;", one.identity));
            let shown = one.identity.replace('"', "");
            self.put_secret(what, "PUBLIC", shown.clone(), &format!("the comment on {} `{shown}`", one.kind), mend);
        }
    }

    fn settings(&mut self) {
        for one in &self.catalog.settings {
            // By its name and value, as they would stand in a file.
            let Some(what) = self.search(&format!("{}={}", one.name, one.value)) else { continue };
            let role = self.catalog.role_name(one.role);
            let (place, alter) = match (one.role, one.database) {
                (0, _) => {
                    let found = self.catalog.databases.iter().find(|database| database.oid == one.database);
                    let name = found.map_or_else(String::new, |database| database.name.clone());
                    (
                        format!("the setting {} of the database `{name}`", one.name),
                        format!("ALTER DATABASE {}", ident(&name)),
                    )
                }
                (_, 0) => {
                    (format!("the setting {} of the role `{role}`", one.name), format!("ALTER ROLE {}", ident(&role)))
                }
                (_, database) => {
                    let found = self.catalog.databases.iter().find(|known| known.oid == database);
                    let name = found.map_or_else(String::new, |database| database.name.clone());
                    let alter = format!("ALTER ROLE {} IN DATABASE {}", ident(&role), ident(&name));
                    (format!("the setting {} of the role `{role}`", one.name), alter)
                }
            };
            let quoted: Vec<String> = one.name.split('.').map(ident).collect();
            let mend = Some(format!("{alter} RESET {};", quoted.join(".")));
            self.put_secret(what, &role, format!("setting {}", one.name), &place, mend);
        }
    }

    fn outside(&mut self) {
        let mut unread = Vec::new();
        for one in &self.catalog.servers {
            if let Some(what) = self.search(&one.options) {
                let place = format!("the options of the foreign server `{}`", one.name);
                self.put_secret(what, "PUBLIC", format!("foreign server {}", one.name), &place, None);
            }
        }
        for one in &self.catalog.user_mappings {
            let server = self.catalog.servers.iter().find(|server| server.oid == one.server);
            let server = server.map_or("", |server| server.name.as_str());
            let role = self.catalog.role_name(one.user);
            let Some(options) = &one.options else {
                // An empty list is shown as none too, to whom it may be shown.
                if !self.reads_mappings() {
                    unread.push(format!("the options of the user mapping of {role} for `{server}`"));
                }
                continue;
            };
            if let Some(what) = self.search(options) {
                let place = format!("the user mapping of {role} for `{server}`");
                let mend = options.lines().find(|option| option.starts_with("password=")).map(|_| {
                    format!(
                        "ALTER USER MAPPING FOR {} SERVER {} OPTIONS (DROP password);",
                        self.catalog.grantee_sql(one.user),
                        ident(server)
                    )
                });
                self.put_secret(what, &role, format!("foreign server {server}"), &place, mend);
            }
        }
        for one in &self.catalog.foreign_tables {
            let Some(table) = self.catalog.relations.get(&one.relation) else { continue };
            if let Some(what) = self.search(&one.options) {
                let shown = table.object.to_string();
                self.put_secret(what, "PUBLIC", shown.clone(), &format!("the options of `{shown}`"), None);
            }
        }
        for one in &self.catalog.subscriptions {
            let Some(connection) = &one.connection else { continue };
            if let Some(what) = self.search(connection) {
                let owner = self.catalog.role_name(one.owner);
                let place = format!("the connection of the subscription `{}`", one.name);
                self.put_secret(what, &owner, format!("subscription {}", one.name), &place, None);
            }
        }
        if !self.catalog.reads_connections && !self.catalog.subscriptions.is_empty() {
            unread.push("the connections of the subscriptions".to_owned());
        }
        for what in unread {
            self.put(Finding {
                rule: "not-examined",
                severity: Severity::Note,
                role: self.catalog.session_user.clone(),
                object: what.clone(),
                path: format!("`{}` -> {what}", self.catalog.session_user),
                message: format!("{what} may only be read by a superuser: no secret was looked for there"),
                mend: None,
            });
        }
    }

    fn reads_mappings(&self) -> bool {
        self.catalog.role(&self.catalog.session_user).is_some_and(|role| role.superuser)
    }
}
