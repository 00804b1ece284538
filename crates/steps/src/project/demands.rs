//! What an environment of `pgrunbook.toml` demands before the first change of a run there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgrunbook_document::{VarValue, parse_duration};
use pgrunbook_engine::Environment;
use pgrunbook_engine::demand::window::Window;
use serde::Deserialize;
use toml::Spanned;

use super::{ProjectError, TargetTable, find, malformed, var_value};
use crate::incidents::{IncidentSource, Where};
use crate::notify::NotifyTable;
use crate::secret::Reference;

/// `[environments.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentTable {
    #[serde(default)]
    protected: bool,
    confirm: Option<String>,
    rehearsal: Option<Required>,
    rehearsed_in: Option<Spanned<String>>,
    rehearsed_back: Option<Spanned<bool>>,
    deployment_log: Option<Required>,
    #[serde(default)]
    windows: Vec<Spanned<String>>,
    incidents: Option<Spanned<IncidentsTable>>,
    #[serde(default)]
    approvals: u32,
    #[serde(default)]
    approver_roles: BTreeSet<String>,
    #[serde(default)]
    override_roles: BTreeSet<String>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    vars: BTreeMap<String, toml::Value>,
    #[serde(default)]
    pub(super) notify: NotifyTable,
    #[serde(default)]
    pub(super) targets: BTreeMap<String, TargetTable>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Required {
    Required,
    Optional,
}

/// `{ target = "main", sql = "SELECT ..." }` or `{ url = "env:STATUS_URL", json = "/open" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IncidentsTable {
    target: Option<String>,
    sql: Option<String>,
    url: Option<String>,
    json: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    timeout: Option<String>,
}

/// Makes an environment of its table, and says where its incidents are asked for.
///
/// `environments` and `targets` are those of the project.
pub(super) fn environment(
    text: &str,
    name: String,
    table: Option<&EnvironmentTable>,
    environments: &[String],
    targets: &BTreeMap<String, TargetTable>,
) -> Result<(Environment, Option<IncidentSource>), ProjectError> {
    let Some(table) = table else { return Ok((Environment { name, ..Environment::default() }, None)) };
    if let Some(other) = &table.rehearsed_in
        && (*other.get_ref() == name || !environments.contains(other.get_ref()))
    {
        let message =
            format!("`rehearsed_in` names another environment of this file, and `{}` is none", other.get_ref());
        return Err(malformed(text, Some(other.span()), message));
    }
    let rehearsed_back = table.rehearsed_back.as_ref().is_some_and(|back| *back.get_ref());
    if let Some(back) = table.rehearsed_back.as_ref().filter(|_| rehearsed_back && table.rehearsed_in.is_none()) {
        let message = "`rehearsed_back` needs `rehearsed_in`: where it must have gone back".to_owned();
        return Err(malformed(text, Some(back.span()), message));
    }
    let windows = table.windows.iter().map(|window| {
        window.get_ref().parse::<Window>().map_err(|why| malformed(text, Some(window.span()), why.to_string()))
    });
    let windows = windows.collect::<Result<_, _>>()?;
    let incidents = match &table.incidents {
        None => None,
        Some(incidents) => Some(
            source(incidents.get_ref(), targets).map_err(|message| malformed(text, Some(incidents.span()), message))?,
        ),
    };
    let environment = Environment {
        name,
        protected: table.protected,
        confirm: table.confirm.clone(),
        rehearsal_required: table.rehearsal == Some(Required::Required),
        rehearsed_in: table.rehearsed_in.as_ref().map(|other| other.get_ref().clone()),
        rehearsed_back,
        deployment_log_required: table.deployment_log == Some(Required::Required),
        windows,
        approvals: table.approvals,
        approver_roles: table.approver_roles.clone(),
        override_roles: table.override_roles.clone(),
        after: table.after.clone(),
        vars: vars(text, &table.vars)?,
    };
    Ok((environment, incidents))
}

fn vars(text: &str, vars: &BTreeMap<String, toml::Value>) -> Result<BTreeMap<String, VarValue>, ProjectError> {
    vars.iter()
        .map(|(name, value)| match var_value(value) {
            Some(value) => Ok((name.clone(), value)),
            None => {
                let message = format!("the variable `{name}` must be a text, a number or a list of texts");
                Err(malformed(text, find(text, name), message))
            }
        })
        .collect()
}

fn source(table: &IncidentsTable, targets: &BTreeMap<String, TargetTable>) -> Result<IncidentSource, String> {
    let limit = match &table.timeout {
        None => IncidentSource::LIMIT,
        Some(given) => parse_duration(given)
            .filter(|limit| *limit > Duration::ZERO)
            .ok_or_else(|| format!("`timeout = \"{given}\"` is no time such as 5s"))?,
    };
    let place = match table {
        IncidentsTable { target: Some(target), sql: Some(sql), url: None, json: None, headers, .. }
            if headers.is_empty() =>
        {
            if !targets.contains_key(target) {
                return Err(format!("the project has no target `{target}`"));
            }
            Where::Sql { target: target.clone(), sql: sql.clone() }
        }
        IncidentsTable { target: None, sql: None, url: Some(url), json: Some(json), headers, .. } => {
            if !json.is_empty() && !json.starts_with('/') {
                return Err(format!("`json = \"{json}\"` is no JSON pointer: it begins with a slash"));
            }
            let headers = headers.iter().map(|(name, value)| (name.clone(), Reference::parse(value))).collect();
            Where::Http { url: Reference::parse(url), headers, json: json.clone() }
        }
        _ => {
            return Err(
                "incidents are asked for by `target` and `sql`, or by `url` and `json` (with `headers`)".to_owned()
            );
        }
    };
    Ok(IncidentSource { place, limit })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Project;
    use super::*;

    #[test]
    fn demands_are_read_and_mistakes_in_them_point_into_the_file() {
        let with = |demand: &str| {
            let text =
                format!("[targets.main]\nurl = \"x\"\n[environments.staging]\n[environments.production]\n{demand}\n");
            Project::read(Path::new("/srv/ledger"), &text, Some("production"))
        };
        let project = with(
            "rehearsed_in = \"staging\"\nrehearsed_back = true\nwindows = [\"Mon 09:00-16:00 UTC\"]\noverride_roles = [\"boss\"]\n\
             after = [\"look\"]\nincidents = { url = \"env:STATUS_URL\", json = \"/open\", timeout = \"2s\" }",
        );
        let project = project.unwrap();
        let environment = project.environment;
        assert_eq!((environment.rehearsed_in.as_deref(), environment.rehearsed_back), (Some("staging"), true));
        assert_eq!(environment.windows[0].text(), "Mon 09:00-16:00 UTC");
        assert_eq!(
            (environment.override_roles.len(), environment.after.as_slice()),
            (1, ["look".to_owned()].as_slice())
        );
        assert_eq!(project.incidents.unwrap().limit, std::time::Duration::from_secs(2));
        for (demand, place, what) in [
            ("rehearsed_in = \"stagin\"", "\"stagin\"", "`stagin` is none"),
            ("rehearsed_in = \"production\"", "\"production\"", "names another environment"),
            ("rehearsed_back = true", "true", "needs `rehearsed_in`"),
            ("windows = [\"Mon 09:00-16:00 UTC\", \"Mo 1-2 UTC\"]", "\"Mo 1-2 UTC\"", "no time between"),
            (
                "incidents = { target = \"mian\", sql = \"SELECT 1\" }",
                "{ target = \"mian\", sql = \"SELECT 1\" }",
                "no target `mian`",
            ),
            ("incidents = { url = \"x\", json = \"open\" }", "{ url = \"x\", json = \"open\" }", "no JSON pointer"),
            (
                "incidents = { target = \"main\" }",
                "{ target = \"main\" }",
                "`target` and `sql`, or by `url` and `json`",
            ),
        ] {
            let Err(ProjectError::Malformed { span: Some(span), message, text, .. }) = with(demand) else {
                panic!("{demand}")
            };
            assert_eq!(&text[span], place, "{demand}: {message}");
            assert!(message.contains(what), "{demand}: {message}");
        }
    }

    #[test]
    fn what_the_guide_shows_is_read() {
        let guide = include_str!("../../../../docs/guide/promotion.md");
        let block = guide.split("```toml\n").find(|block| block.starts_with("[environments.production]")).unwrap();
        let block = block.split("```").next().unwrap();
        let text = format!("[targets.main]\nurl = \"x\"\n[environments.staging]\n{block}");
        let project = Project::read(Path::new("/srv/ledger"), &text, Some("production")).unwrap();
        assert_eq!((project.environment.windows.len(), project.environment.after.len()), (2, 2));
        assert!(project.environment.rehearsed_back && project.incidents.is_some());
        assert!(project.environment.deployment_log_required);
    }
}
