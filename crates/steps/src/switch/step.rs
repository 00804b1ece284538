//! The block: `switch = "to-health"` with one of `file`, `registry`, `command`, `pooler`.

mod command;
mod config;
mod registry;

use std::collections::BTreeMap;

use async_trait::async_trait;
use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::step::Failure;
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::pgbouncer::Door;
use serde::Deserialize;

use super::error::SwitchError;
use super::file::{Format, plain};
use crate::fence::{NoSwitch, RESUME_BUDGET, freeze, resume_all};
use crate::registry::{Kind, Skipped, bound_fields, fields, required_target};
use crate::secret::Reference;
use crate::workplace::Workplace;

/// The kind `switch`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "switch",
        language: Language::Toml,
        summary: "Leads the application elsewhere: by a file, a registry's row, a command, or PgBouncer; exactly one of them.",
        fields: &[
            FieldSpec { name: "file", about: "A TOML or env file, relative to the project.", required: false },
            FieldSpec {
                name: "format",
                about: "`toml` or `env`, where the file's name does not say.",
                required: false,
            },
            FieldSpec {
                name: "set",
                about: "What shall be set: `{ \"database.url\" = \"env:HEALTH_URL\" }`. Texts may be `env:`, `file:`, `cmd:`.",
                required: false,
            },
            FieldSpec {
                name: "target",
                about: "The database of the `registry`; without one there is none to name.",
                required: false,
            },
            FieldSpec {
                name: "registry",
                about: "`schema.table` in the `target`, of which the row with `key` gets what is `set`.",
                required: false,
            },
            FieldSpec { name: "key", about: "Which row of the registry: `{ tenant = \"health\" }`.", required: false },
            FieldSpec { name: "command", about: "Program and arguments, without a shell.", required: false },
            FieldSpec {
                name: "check",
                about: "A program that ends with 0 when the command's effect is there; without it a crash asks the operator.",
                required: false,
            },
            FieldSpec { name: "undo_command", about: "What takes the command back.", required: false },
            FieldSpec {
                name: "pooler",
                about: "A target that leads through a PgBouncer; `ini` and `set` say where its database leads from now on.",
                required: false,
            },
            FieldSpec {
                name: "ini",
                about: "PgBouncer's configuration file, or the one it includes, as this machine sees it.",
                required: false,
            },
            FieldSpec {
                name: "schema",
                about: "The schema whose freeze this switch ends, where several are under way in one run.",
                required: false,
            },
            FieldSpec {
                name: "resume",
                about: "Targets that lead through a PgBouncer that was paused: resumed when the switch is made.",
                required: false,
            },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal does it too, outside of its server; else it is skipped there.",
                required: false,
            },
        ],
        needs_target: false,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Leads the application elsewhere.
///
/// Effect: resolvable by digest for files and poolers, transactional for a registry's row, opaque for a command unless
/// it has a `check`. Undo: auto.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "switch")]
    id: String,
    file: Option<String>,
    format: Option<FileFormat>,
    #[serde(default)]
    set: BTreeMap<String, toml::Value>,
    registry: Option<String>,
    #[serde(default)]
    key: BTreeMap<String, toml::Value>,
    command: Option<Vec<String>>,
    check: Option<Vec<String>>,
    undo_command: Option<Vec<String>>,
    pooler: Option<String>,
    ini: Option<String>,
    schema: Option<String>,
    #[serde(default)]
    resume: Vec<String>,
    #[serde(default)]
    rehearse: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileFormat {
    Toml,
    Env,
}

/// What one way of switching does; the freeze around it is the same for all.
#[async_trait]
trait Way: Send + Sync {
    fn effect(&self) -> Effect;
    async fn plan(&self) -> Result<Change, StepError>;
    async fn apply(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError>;
    async fn resolve(&self, cx: &RunCx<'_>) -> Result<Happened, StepError>;
    async fn undo(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError>;
    async fn resolve_undo(&self, cx: &RunCx<'_>) -> Result<Happened, StepError>;
}

struct Switch {
    way: Box<dyn Way>,
    schema: Option<String>,
    resume: Vec<Door>,
    workplace: Workplace,
}

/// A value as the runbook has it: a text may be a reference.
#[derive(Debug, Clone)]
struct Wanted {
    value: toml::Value,
    /// Of a text.
    reference: Option<Reference>,
}

impl Wanted {
    fn of(value: &toml::Value) -> Self {
        Self { value: value.clone(), reference: value.as_str().map(Reference::parse) }
    }

    fn is_secret(&self) -> bool {
        self.reference.as_ref().is_some_and(Reference::is_secret)
    }

    /// What people read.
    fn shown(&self) -> String {
        match &self.reference {
            Some(reference) => masked(&reference.shown()),
            None => self.value.to_string(),
        }
    }

    fn resolved(&self, workplace: &Workplace) -> Result<toml::Value, StepError> {
        match &self.reference {
            Some(reference) => Ok(toml::Value::String(workplace.secret(reference)?)),
            None => Ok(self.value.clone()),
        }
    }
}

type WantedMap = BTreeMap<String, Wanted>;

fn resolved(set: &WantedMap, workplace: &Workplace) -> Result<BTreeMap<String, toml::Value>, StepError> {
    set.iter().map(|(key, wanted)| Ok((key.clone(), wanted.resolved(workplace)?))).collect()
}

fn texts(set: &WantedMap, workplace: &Workplace) -> Result<BTreeMap<String, String>, StepError> {
    Ok(resolved(set, workplace)?.into_iter().map(|(key, value)| (key, plain(&value))).collect())
}

/// A line of a plan: what a key holds and shall hold. What is, or may be, secret is not shown.
fn line(key: &str, old: Option<&str>, wanted: &Wanted) -> String {
    let secret = wanted.is_secret() || is_secret_name(key);
    let old = match old {
        None => "not there".to_owned(),
        Some(_) if secret => "(not shown)".to_owned(),
        Some(old) => masked(old),
    };
    let new = if is_secret_name(key) && !wanted.is_secret() { "(not shown)".to_owned() } else { wanted.shown() };
    format!("{key}: {old} -> {new}")
}

fn is_secret_name(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "apikey", "api_key", "private"].iter().any(|word| key.contains(word))
}

/// A URL, or a connection string, without its password.
fn masked(text: &str) -> String {
    let mut shown = text.to_owned();
    if let Some(scheme) = text.find("://")
        && let Some(at) = text.rfind('@')
        && let Some(colon) = text.get(scheme + 3..at).and_then(|user| user.find(':'))
    {
        shown = format!("{}:***{}", &text[..scheme + 3 + colon], &text[at..]);
    }
    match shown.find("password=") {
        None => shown,
        Some(at) => {
            let begin = at + "password=".len();
            let end = shown[begin..].find([' ', '&']).map_or(shown.len(), |length| begin + length);
            format!("{}***{}", &shown[..begin], &shown[end..])
        }
    }
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let refuse = |why: &str| StepError::unusable("bad-value", format!("step `{}`: {why}", fields.id));
    let ways = [fields.file.is_some(), fields.registry.is_some(), fields.command.is_some(), fields.pooler.is_some()];
    if ways.iter().filter(|way| **way).count() != 1 {
        return Err(refuse("write exactly one of `file`, `registry`, `command`, `pooler`"));
    }
    let set: WantedMap = fields.set.iter().map(|(key, value)| (key.clone(), Wanted::of(value))).collect();
    if fields.command.is_none() && set.is_empty() {
        return Err(refuse("`set` says nothing that shall be set"));
    }
    let resume: Vec<Door> = fields
        .resume
        .iter()
        .map(|name| Ok(Door::through(name, workplace.postgres(name)?)))
        .collect::<Result<_, StepError>>()?;
    let outside = fields.registry.is_none();
    let way: Box<dyn Way> = if let Some(path) = &fields.file {
        let path = workplace.root().join(path);
        let format = match fields.format {
            Some(FileFormat::Toml) => Format::Toml,
            Some(FileFormat::Env) => Format::Env,
            None => {
                Format::of(&path).ok_or_else(|| refuse("its file's name does not say: `format` is `toml` or `env`"))?
            }
        };
        Box::new(config::Config {
            path,
            edit: config::Edit::Keys(format),
            set,
            door: None,
            workplace: workplace.clone(),
        })
    } else if let Some(table) = &fields.registry {
        let target = required_target(block)?;
        workplace.postgres(&target)?;
        let key = fields.key.iter().map(|(key, value)| (key.clone(), Wanted::of(value))).collect();
        Box::new(registry::Registered { target, table: table.clone(), key, set, workplace: workplace.clone() })
    } else if let Some(command) = &fields.command {
        if [Some(command), fields.check.as_ref(), fields.undo_command.as_ref()].into_iter().flatten().any(Vec::is_empty)
        {
            return Err(refuse("a command has at least a program"));
        }
        Box::new(command::Act {
            command: command.clone(),
            check: fields.check.clone(),
            undo: fields.undo_command.clone(),
            workplace: workplace.clone(),
        })
    } else {
        let name = fields.pooler.as_deref().unwrap_or_default();
        let ini =
            fields.ini.as_ref().ok_or_else(|| refuse("`pooler` needs `ini`: the file that says where it leads"))?;
        let door = Door::through(name, workplace.postgres(name)?);
        let path = workplace.root().join(ini);
        let edit = config::Edit::Ini(door.database.clone());
        Box::new(config::Config { path, edit, set, door: Some(door), workplace: workplace.clone() })
    };
    if outside && workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(way.effect())));
    }
    Ok(Box::new(Switch { way, schema: fields.schema, resume, workplace: workplace.clone() }))
}

impl Switch {
    async fn resumed(&self) -> Result<(), StepError> {
        let resumed = resume_all(self.workplace.root(), &self.resume, RESUME_BUDGET).await;
        resumed.map_err(|error| SwitchError::from(error).into())
    }
}

impl Step for Switch {
    fn effect(&self) -> Effect {
        self.way.effect()
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let mut change = self.way.plan().await?;
            change
                .details
                .extend(self.resume.iter().map(|door| format!("RESUME {} on pooler `{}`", door.database, door.name)));
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let claimed = freeze::claim(cx.run, cx.direction, self.schema.as_deref(), cx.artifacts).await;
            let claim = claimed.map_err(|why| match why {
                NoSwitch::Thawed(thaw) => StepError::failed("freeze-budget", format!("{thaw}. Nothing was switched."))
                    .help("make the step faster or the budget longer; roll this run back and begin a new one"),
                NoSwitch::Undone(why) => StepError::failed("freeze-undone", format!("{why}. Nothing was switched."))
                    .help("roll this run back and begin a new one"),
                NoSwitch::Several(_) => StepError::unusable("freeze-several", format!("{why}. Nothing was switched."))
                    .help("give the switch the `schema` whose freeze it ends"),
            })?;
            let outcome = self.way.apply(cx).await;
            let evidence = match (outcome, claim) {
                (Ok(evidence), None) => evidence,
                (Ok(evidence), Some(claim)) => {
                    let length = u64::try_from(claim.switched().as_millis()).unwrap_or(u64::MAX);
                    Evidence { summary: format!("{}; the freeze took {length} ms", evidence.summary), ..evidence }
                        .fact("freeze_ms", length)
                }
                // Where it may have been switched, writers are let go on neither side: a person decides.
                (Err(error), Some(claim)) if error.failure == Failure::InDoubt || error.partial => {
                    claim.switched();
                    return Err(error);
                }
                (Err(mut error), Some(claim)) => {
                    if let Ok(thaw) = claim.give_up().await {
                        error.message.push_str(&format!(" And {thaw}."));
                    }
                    return Err(error);
                }
                (Err(error), None) => return Err(error),
            };
            match self.resumed().await {
                Ok(()) => Ok(evidence),
                Err(error) => Err(error.partly(evidence)),
            }
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let happened = self.way.resolve(cx).await?;
            if let Happened::Yes(_) = &happened {
                self.resumed().await?;
            }
            Ok(happened)
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let evidence = self.way.undo(cx).await?;
            self.resumed().await?;
            Ok(evidence)
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { self.way.resolve_undo(cx).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_show_no_secret() {
        let shown =
            |key: &str, old: &str, new: &str| line(key, Some(old), &Wanted::of(&toml::Value::String(new.to_owned())));
        assert_eq!(
            shown("url", "postgres://a:b@c@old/x", "postgres://new/y"),
            "url: postgres://a:***@old/x -> postgres://new/y"
        );
        assert_eq!(shown("url", "postgres://a:b@old/x", "env:NEW"), "url: (not shown) -> env:NEW");
        assert_eq!(shown("db_password", "old", "new"), "db_password: (not shown) -> (not shown)");
        assert_eq!(shown("dsn", "host=h password=x dbname=y", "plain"), "dsn: host=h password=*** dbname=y -> plain");
        assert_eq!(line("port", None, &Wanted::of(&toml::Value::Integer(5))), "port: not there -> 5");
    }
}
