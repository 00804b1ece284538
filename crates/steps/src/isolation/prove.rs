//! The whole of it: survey, every role in turn (a few at once), controls, verdicts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use jiff::civil::Date;
use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::append_only;
use super::examine::Inside;
use super::matrix::{About, Coverage, Matrix, Method};
use super::objects::{literal, survey};
use super::pooler;
use super::role::Settings;
use super::rows;
use super::tally::Tally;
use crate::secret::Reference;
use crate::topology::{Role, RoleKind, Topology, completed};

/// Roles that are examined at once: while one logs in, others are answered.
const AT_ONCE: usize = 4;

/// How long one statement may take: nothing that is tried reads more than a row, so what is slower waits for a lock.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How it is tried.
pub struct How<'a> {
    /// Every object, and not one for each kind and pattern of privileges.
    pub all_objects: bool,
    /// Only these roles.
    pub roles: Option<BTreeSet<String>>,
    /// Only these schemas, and those that each role may use, as the controls.
    pub schemas: Option<BTreeSet<String>>,
    /// Which exceptions still hold.
    pub today: Date,
    /// The value of a password's reference, where it has one here.
    pub password: &'a (dyn Fn(&Reference) -> Option<String> + Send + Sync),
    /// Where a target is that the declaration names as a pooler.
    pub pooler: &'a (dyn Fn(&str) -> Option<ConnectOptions> + Send + Sync),
    /// Of each statement; no lock is waited for longer either.
    pub statement_timeout: Duration,
    pub application_name: &'a str,
    pub cancel: &'a Cancel,
    /// Told of every role that is done: how many, of how many.
    pub tell: &'a (dyn Fn(u64, u64) + Send + Sync),
}

/// Tries what every bounded role of a topology can really do, and sets it against the declaration.
///
/// `options` is a privileged connection: it reads the catalog, looks whether tables are empty, and becomes the roles that
/// have no password here. Nothing stays behind; sequences may have advanced.
///
/// # Errors
/// If the server cannot be reached, a filter names nothing, or there was nothing to examine.
pub async fn prove(options: &ConnectOptions, topology: &Topology, how: &How<'_>) -> Result<Matrix, StepError> {
    let begun = Instant::now();
    let session = Session::connect(options, how.application_name).await.map_err(PgError::into_step_error)?;
    let topology = &*completed(&session, topology).await?;
    let prepare = format!(
        "SET search_path = pg_catalog; SET statement_timeout = {0}; SET lock_timeout = {0}; SET row_security = on",
        how.statement_timeout.as_millis()
    );
    session.execute(&prepare).await.map_err(PgError::into_step_error)?;
    let settings = Settings::read(&session).await?;
    let known = known_roles(&session).await?;
    let roles = chosen(topology, how, &known)?;
    let landscape = survey(&session, topology, how.all_objects).await?;
    let databases = legacy(&session, topology).await?;
    let tried: usize = landscape.places.iter().map(|place| place.objects.len()).sum();
    if roles.is_empty() || tried == 0 {
        let what = if roles.is_empty() { "role" } else { "object" };
        return Err(StepError::failed(
            "nothing-examined",
            format!("there is no {what} to examine: nothing is proven, and nothing was changed"),
        )
        .help("apply the topology and the migrations first, or look at the filters"));
    }

    let inside = Inside {
        topology,
        landscape: &landscape,
        databases: &databases,
        settings: &settings,
        options,
        how,
        known: &known,
    };
    let mut tally = Tally::new(topology, &landscape, &known, how.today);
    let mut done = 0;
    let total = roles.len() as u64;
    let examined: Vec<_> = roles.iter().map(|role| inside.examine(role)).collect();
    let mut running = stream::iter(examined).buffered(AT_ONCE);
    while let Some(trial) = running.next().await {
        tally.take(trial?);
        done += 1;
        (how.tell)(done, total);
        if how.cancel.is_stopping() {
            return Err(StepError::interrupted("stopped before every role was examined; nothing was changed"));
        }
    }
    drop(running);

    tally.ask_the_owner(&inside).await?;
    let (mut matrix, statements) = tally.finish();
    matrix.checks.extend(rows::prove(&session, options, topology, how, &roles).await?);
    matrix.checks.extend(append_only::prove(&session, topology, how, &roles).await?);
    matrix.checks.extend(pooler::prove(&session, topology, how, &roles).await?);
    matrix.database = options.database.clone();
    matrix.coverage = Coverage {
        roles: matrix.roles.iter().filter(|role| !matches!(role.method, Method::Not(_))).count(),
        schemas: landscape.places.len(),
        objects: landscape.object_count,
        tried,
        statements: statements + matrix.checks.iter().filter(|check| check.about >= About::RowSecurity).count(),
        took: begun.elapsed(),
    };
    if matrix.coverage.roles == 0 {
        let why = matrix.roles.iter().find_map(|role| match &role.method {
            Method::Not(why) => Some(format!("{}: {why}", role.name)),
            _ => None,
        });
        return Err(StepError::failed(
            "nothing-examined",
            format!("no role could be examined, and nothing is proven: {}", why.unwrap_or_default()),
        )
        .help("connect as a superuser, or give the roles' passwords by reference"));
    }
    Ok(matrix)
}

/// The roles that there are on the server.
async fn known_roles(session: &Session) -> Result<BTreeSet<String>, StepError> {
    let found = session.simple("SELECT rolname FROM pg_catalog.pg_roles").await.map_err(PgError::into_step_error)?;
    Ok(found.into_iter().flat_map(|answer| answer.rows).filter_map(|row| row.into_iter().next().flatten()).collect())
}

fn chosen<'a>(topology: &'a Topology, how: &How<'_>, known: &BTreeSet<String>) -> Result<Vec<&'a Role>, StepError> {
    let missing = |names: &Option<BTreeSet<String>>, there: &dyn Fn(&str) -> bool| {
        names.iter().flatten().find(|name| !there(name)).cloned()
    };
    let bounded: Vec<&Role> = topology.bounded_roles().collect();
    if let Some(name) = missing(&how.roles, &|name| bounded.iter().any(|role| role.name == name)) {
        return Err(StepError::unusable(
            "no-role",
            format!("`{name}` is no role of {} whose access has bounds", topology.source),
        ));
    }
    if let Some(name) = missing(&how.schemas, &|name| topology.schemas.contains_key(name)) {
        return Err(StepError::unusable("no-schema", format!("{} declares no schema `{name}`", topology.source)));
    }
    // A retired role that is gone is where it was to go.
    let gone = |role: &Role| role.kind == RoleKind::Retired && !known.contains(&role.name);
    let wanted = |role: &Role| how.roles.as_ref().is_none_or(|roles| roles.contains(&role.name));
    Ok(bounded.into_iter().filter(|role| wanted(role) && !gone(role)).collect())
}

/// Databases that no runtime role may connect to.
async fn legacy(session: &Session, topology: &Topology) -> Result<Vec<String>, StepError> {
    let mut conditions = Vec::new();
    for pattern in &topology.legacy {
        let like = pattern.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_").replace('*', "%");
        conditions.push(format!("datname LIKE {}", literal(&like)?));
    }
    if conditions.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datname <> pg_catalog.current_database() \
         AND ({}) ORDER BY datname",
        conditions.join(" OR ")
    );
    let found = session.simple(&sql).await.map_err(PgError::into_step_error)?;
    Ok(found.into_iter().flat_map(|answer| answer.rows).filter_map(|row| row.into_iter().next().flatten()).collect())
}
