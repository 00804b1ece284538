//! Sessions that are a role's: by its own login, else as near to it as the server lets anybody come.

use std::collections::BTreeMap;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::matrix::Method;
use super::objects::{ident, literal};

/// Settings of roles and databases, strongest first to be found: what a login would begin with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// By role; the empty name stands for every role.
    by_role: BTreeMap<String, BTreeMap<String, String>>,
    /// What a setting is where nobody sets it.
    boot: BTreeMap<String, String>,
}

/// <https://www.postgresql.org/docs/current/catalog-pg-db-role-setting.html>. The order is that of the server: for a role in
/// a database over for a role over for a database over for all.
const SETTINGS: &str = "\
SELECT coalesce(pg_catalog.pg_get_userbyid(nullif(s.setrole, 0))::text, ''),
       pg_catalog.split_part(c.line, '=', 1),
       pg_catalog.substr(c.line, pg_catalog.strpos(c.line, '=') + 1)
FROM pg_catalog.pg_db_role_setting AS s
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (line)
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database AS d
                            WHERE d.datname = pg_catalog.current_database()))
ORDER BY s.setrole, s.setdatabase";

impl Settings {
    /// Reads them all.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub async fn read(session: &Session) -> Result<Self, StepError> {
        let fail = |error: tokio_postgres::Error| session.error(&error).into_step_error();
        let mut settings = Self::default();
        for row in session.client().query(SETTINGS, &[]).await.map_err(fail)? {
            // In this order, so that what is for the database replaces what is for all of them.
            settings.by_role.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
        }
        let boot = "SELECT s.name, coalesce(s.boot_val, '') FROM pg_catalog.pg_settings AS s";
        let rows = session.client().query(boot, &[]).await.map_err(fail)?;
        settings.boot = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(settings)
    }

    /// What a session of `from` must be set to, to begin as one of `role` would.
    fn replay(&self, from: &str, role: &str) -> BTreeMap<&str, &str> {
        let of = |name: &str| {
            self.by_role.get(name).into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
        };
        let mut wanted: BTreeMap<&str, &str> = of("").chain(of(role)).collect();
        for (name, _) in of(from) {
            let boot = self.boot.get(name).map_or("", String::as_str);
            wanted.entry(name).or_insert(boot);
        }
        wanted
    }
}

/// A session of a role, or why there is none.
pub struct Being {
    pub session: Option<Session>,
    pub method: Method,
    /// The role's own login was tried, and refused.
    pub refused: Option<PgError>,
}

/// Whether a role can be become at all.
pub struct Become<'a> {
    /// Who connects where there is no password.
    pub privileged: &'a ConnectOptions,
    pub settings: &'a Settings,
    pub application_name: &'a str,
}

impl Become<'_> {
    /// Becomes a role: by login with its password, else by `SET SESSION AUTHORIZATION`, else by `SET ROLE`.
    ///
    /// # Errors
    /// If the privileged connection fails. That a role cannot be become is no error.
    pub async fn role(&self, name: &str, password: Option<&str>) -> Result<Being, StepError> {
        let mut refused = None;
        if let Some(password) = password {
            let options = ConnectOptions {
                user: name.to_owned(),
                password: Some(password.to_owned()),
                // Settings of the privileged connection are not the role's.
                options: None,
                ..self.privileged.clone()
            };
            match Session::connect(&options, self.application_name).await {
                Ok(session) => return Ok(Being { session: Some(session), method: Method::Login, refused: None }),
                Err(error @ PgError::Refused { .. }) => refused = Some(error),
                Err(error) => return Err(error.into_step_error()),
            }
        }
        let session = Session::connect(self.privileged, self.application_name).await;
        let session = session.map_err(PgError::into_step_error)?;
        let quoted = ident(name)?;
        // As the privileged one, since some settings are for superusers only.
        let replay = self.settings.replay(&self.privileged.user, name);
        for (setting, value) in
            replay.iter().filter(|(setting, _)| !matches!(**setting, "role" | "session_authorization"))
        {
            let sql = format!("SELECT pg_catalog.set_config({}, {}, false)", literal(setting)?, literal(value)?);
            // A setting that an extension brings may be refused here; the role's own login would only warn.
            let _ = session.execute(&sql).await;
        }
        let method = match session.execute(&format!("SET SESSION AUTHORIZATION {quoted}")).await {
            Ok(()) => {
                if let Some(role) = replay.get("role").filter(|role| **role != "none" && !role.is_empty()) {
                    let _ = session.execute(&format!("SET ROLE {}", ident(role)?)).await;
                }
                Method::SessionAuthorization
            }
            Err(error) if error.sqlstate() == Some("42501") => {
                match session.execute(&format!("SET ROLE {quoted}")).await {
                    Ok(()) => Method::SetRole,
                    Err(error) => Method::Not(error.to_string()),
                }
            }
            Err(error) => Method::Not(error.to_string()),
        };
        let session = (!matches!(method, Method::Not(_))).then_some(session);
        Ok(Being { session, method, refused })
    }
}
