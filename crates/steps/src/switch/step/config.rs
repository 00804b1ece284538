//! The ways that change a file: the application's own, or PgBouncer's, which is then reloaded.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Effect, Evidence, Happened, RunCx, StepError};
use pgrunbook_postgres::pgbouncer::{self, Console, Door};

use super::{RESUME_BUDGET, WantedMap, Way, line, resolved, texts};
use crate::fence::resume_all;
use crate::switch::error::SwitchError;
use crate::switch::file::{self, Format};
use crate::switch::pooler::Ini;
use crate::workplace::Workplace;

/// What is changed in the file.
pub(super) enum Edit {
    Keys(Format),
    /// The line of this database.
    Ini(String),
}

pub(super) struct Config {
    pub path: PathBuf,
    pub edit: Edit,
    pub set: WantedMap,
    /// The pooler that reads it.
    pub door: Option<Door>,
    pub workplace: Workplace,
}

/// How the file stands to what this step kept and would write.
enum Stands {
    /// Nothing was kept: the step had not begun.
    Unbegun,
    Before,
    After,
    /// Somebody wrote it since.
    Foreign,
}

impl Config {
    fn shown(&self) -> String {
        self.path.strip_prefix(self.workplace.root()).unwrap_or(&self.path).display().to_string()
    }

    /// Where the previous content is kept: in the run's folder, readable by this user alone.
    fn kept(&self, cx: &RunCx<'_>) -> PathBuf {
        cx.artifacts.join(format!("{}.before", cx.step))
    }

    fn edited(&self, before: &[u8]) -> Result<Vec<u8>, StepError> {
        match &self.edit {
            Edit::Keys(format) => {
                Ok(file::edited(&self.path, *format, before, &resolved(&self.set, &self.workplace)?)?.into_bytes())
            }
            Edit::Ini(database) => {
                let refuse = |why| SwitchError::Content { path: self.shown(), why };
                let mut ini = Ini::parse(before).map_err(refuse)?;
                ini.set(database, &texts(&self.set, &self.workplace)?).map_err(refuse)?;
                Ok(ini.bytes().to_vec())
            }
        }
    }

    fn old(&self, text: &[u8], key: &str) -> Result<Option<String>, SwitchError> {
        let refuse = |why| SwitchError::Content { path: self.shown(), why };
        match &self.edit {
            Edit::Keys(format) => {
                let text = std::str::from_utf8(text).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
                format.value(text, key).map_err(refuse)
            }
            Edit::Ini(database) => {
                Ok(Ini::parse(text).map_err(refuse)?.get(database).and_then(|pairs| pairs.get(key).cloned()))
            }
        }
    }

    fn stands(&self, kept: &Path) -> Result<Stands, StepError> {
        if !kept.exists() {
            return Ok(Stands::Unbegun);
        }
        let (before, now) = (file::read(kept)?, file::read(&self.path)?);
        if now == before {
            return Ok(Stands::Before);
        }
        Ok(if now == self.edited(&before)? { Stands::After } else { Stands::Foreign })
    }

    /// Has the pooler read the file, and looks whether it did: it may read another one.
    async fn reloaded(&self) -> Result<(), StepError> {
        let Some(door) = &self.door else { return Ok(()) };
        let doors = std::slice::from_ref(door);
        pgbouncer::reload_all(doors).await.map_err(SwitchError::from)?;
        let ini = Ini::parse(&file::read(&self.path)?).ok();
        let Some(wanted) = ini.and_then(|ini| ini.get(&door.database)) else { return Ok(()) };
        let seen = async { Console::connect(&door.console).await?.databases().await };
        let seen = seen.await.map_err(SwitchError::from)?.into_iter().find(|one| one.name == door.database);
        let wrong = match &seen {
            None => Some("it knows no such database".to_owned()),
            Some(seen) => [("dbname", &seen.database), ("host", &seen.host), ("port", &seen.port)]
                .into_iter()
                .find(|(key, found)| wanted.get(*key).is_some_and(|wanted| wanted != *found))
                .map(|(key, found)| format!("its {key} is `{found}`")),
        };
        match wrong {
            None => Ok(()),
            Some(why) => Err(SwitchError::Content {
                path: self.shown(),
                why: format!("pooler `{}` does not follow it after RELOAD: {why}", door.name),
            }
            .into()),
        }
    }

    async fn resumed(&self) -> Result<(), StepError> {
        let Some(door) = &self.door else { return Ok(()) };
        let resumed = resume_all(self.workplace.root(), std::slice::from_ref(door), RESUME_BUDGET).await;
        resumed.map_err(|error| SwitchError::from(error).into())
    }

    fn evidence(&self, kept: &Path, before: &[u8], after: &[u8]) -> Evidence {
        let keys: Vec<String> = self.set.keys().cloned().collect();
        let lead = match &self.door {
            Some(door) => format!("pooler `{}` leads `{}` elsewhere: ", door.name, door.database),
            None => String::new(),
        };
        Evidence::of(format!("{lead}{} of {} set", keys.join(", "), self.shown()))
            .fact("file", self.shown())
            .fact("keys", keys)
            .fact("before_sha256", file::digest(before))
            .fact("after_sha256", file::digest(after))
            .fact("kept", kept.display().to_string())
    }
}

#[async_trait]
impl Way for Config {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    async fn plan(&self) -> Result<Change, StepError> {
        let mut change =
            Change { summary: format!("set {} key(s) of {}", self.set.len(), self.shown()), ..Change::default() };
        let before = match file::read(&self.path) {
            Ok(before) => before,
            Err(error) => {
                change.warnings.push(format!("{error} A step before this one may make it."));
                return Ok(change);
            }
        };
        for (key, wanted) in &self.set {
            change.details.push(line(key, self.old(&before, key)?.as_deref(), wanted));
        }
        if let Some(door) = &self.door {
            change.details.push(format!("RELOAD, then RESUME {} on pooler `{}`", door.database, door.name));
        }
        // Also finds what cannot be set.
        let after = self.edited(&before)?;
        if after == before {
            change.warnings.push("it holds this already".to_owned());
        }
        change.preconditions.insert(format!("file {}", self.shown()), file::digest(&before));
        Ok(change)
    }

    async fn apply(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let kept = self.kept(cx);
        // An attempt before this one may have come so far and not to the reload: what it kept is what was before.
        let before = match self.stands(&kept)? {
            Stands::After => file::read(&kept)?,
            Stands::Foreign => {
                let (path, kept) = (self.shown(), kept.display().to_string());
                return Err(SwitchError::Changed { path, kept }.into());
            }
            Stands::Unbegun | Stands::Before => {
                let before = file::read(&self.path)?;
                file::keep(&kept, &before)?;
                before
            }
        };
        let after = self.edited(&before)?;
        fault::pass(Point::BeforeEffect);
        if file::read(&self.path)? != after {
            file::replace(&self.path, &before, &after)?;
        }
        fault::pass(Point::AfterEffect);
        let evidence = self.evidence(&kept, &before, &after);
        if let Err(error) = self.reloaded().await {
            // Clients still wait, and go on where they were.
            file::replace(&self.path, &after, &before)?;
            if let Some(door) = &self.door {
                let _ = pgbouncer::reload_all(std::slice::from_ref(door)).await;
            }
            return Err(error);
        }
        match self.resumed().await {
            Ok(()) => Ok(evidence),
            Err(error) => Err(error.partly(evidence)),
        }
    }

    async fn resolve(&self, cx: &RunCx<'_>) -> Result<Happened, StepError> {
        let kept = self.kept(cx);
        Ok(match self.stands(&kept)? {
            Stands::Unbegun | Stands::Before => Happened::No,
            Stands::After => {
                let before = file::read(&kept)?;
                let evidence = self.evidence(&kept, &before, &file::read(&self.path)?);
                // Whether the pooler was told nobody knows; telling it again does no harm.
                if self.door.is_some() { Happened::Partly(evidence) } else { Happened::Yes(evidence) }
            }
            Stands::Foreign => Happened::Unknown(format!(
                "{} is neither as it was nor as the switch writes it: somebody changed it; {} holds what was before",
                self.shown(),
                kept.display()
            )),
        })
    }

    async fn undo(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let facts = cx.recorded(cx.step).map(|evidence| evidence.facts.clone()).unwrap_or_default();
        let fact = |name: &str| facts.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let kept = PathBuf::from(fact("kept"));
        let now = file::read(&self.path)?;
        let back = if file::digest(&now) == fact("before_sha256") {
            format!("{} is as it was", self.shown())
        } else if file::digest(&now) == fact("after_sha256") {
            let before = file::read(&kept)?;
            if file::digest(&before) != fact("before_sha256") {
                let why = format!("what was kept of it in {} is damaged", kept.display());
                return Err(SwitchError::Content { path: self.shown(), why }.into());
            }
            fault::pass(Point::BeforeEffect);
            file::replace(&self.path, &now, &before)?;
            fault::pass(Point::AfterEffect);
            format!("{} is as it was, byte for byte", self.shown())
        } else {
            return Err(SwitchError::Changed { path: self.shown(), kept: kept.display().to_string() }.into());
        };
        self.reloaded().await?;
        self.resumed().await?;
        Ok(Evidence::of(back).fact("sha256", fact("before_sha256")))
    }

    async fn resolve_undo(&self, cx: &RunCx<'_>) -> Result<Happened, StepError> {
        let recorded =
            cx.recorded(cx.step).and_then(|evidence| evidence.facts.get("before_sha256")?.as_str().map(str::to_owned));
        let now = file::digest(&file::read(&self.path)?);
        let back = recorded.is_some_and(|digest| digest == now);
        // A pooler may not have been told.
        Ok(if back && self.door.is_none() {
            Happened::Yes(Evidence::of(format!("{} is as it was", self.shown())))
        } else {
            Happened::No
        })
    }
}
