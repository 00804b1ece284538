//! Flags that are read now and then, and evaluated all the time.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use super::overrides::{self, Override, Overrides};
use super::{Context, Evaluation, FlagSet, Freshness, Origin, OriginError, Reason};

/// How long what was read is used, if nothing else is said: a kill switch works within that time everywhere.
pub const MAX_AGE: Duration = Duration::from_secs(10);

/// How long one reading may take: nobody waits longer for a flag, whatever the database does.
const READ: Duration = Duration::from_secs(2);

/// The shortest pause between two attempts where the first failed.
const RETRY: Duration = Duration::from_secs(1);

/// An application's flags: read when they are older than `max_age`, at most one reading at a time. While one is under way
/// the others take what is known.
#[derive(Debug)]
pub struct Flags<O> {
    origin: Mutex<O>,
    known: RwLock<Known>,
    max_age: Duration,
    last_known_for: Option<Duration>,
    overrides: Overrides,
}

#[derive(Debug, Clone, Default)]
struct Known {
    set: Option<(Arc<FlagSet>, Instant)>,
    /// The last attempt that failed since, and why.
    trouble: Option<(Instant, String)>,
}

impl<O: Origin> Flags<O> {
    /// Reads from `origin`, when it is first asked.
    pub fn new(origin: O) -> Self {
        Self {
            origin: Mutex::new(origin),
            known: RwLock::default(),
            max_age: MAX_AGE,
            last_known_for: None,
            overrides: Overrides::default(),
        }
    }

    /// How old a flag may be before it is read again; zero: it is read each time.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// For how long the last that is known counts when it cannot be read any more; else for as long as it takes.
    #[must_use]
    pub fn last_known_for(self, limit: Duration) -> Self {
        Self { last_known_for: Some(limit), ..self }
    }

    /// What the environment decides.
    #[must_use]
    pub fn overrides(self, overrides: Overrides) -> Self {
        Self { overrides, ..self }
    }

    /// Whether a flag is on for a key; off where nobody knows.
    pub async fn is_on(&self, flag: &str, key: &str) -> bool {
        self.evaluate(flag, &Context::of(key), Value::Bool(false)).await.value == Value::Bool(true)
    }

    /// A flag's value for somebody, and why. Never fails: where there is none, it is `default`, with the reason.
    pub async fn evaluate(&self, flag: &str, context: &Context, default: Value) -> Evaluation {
        let (set, freshness, trouble) = self.known().await;
        let found = set.as_deref().and_then(|set| set.get(flag));
        let known = found.and_then(|found| found.as_ref().ok());
        let (mut variant, mut value, mut reason) = match found {
            Some(Ok(known)) => {
                let decision = known.decide(context);
                (decision.variant, decision.value, decision.reason)
            }
            Some(Err(why)) => (None, None, Reason::Malformed(why.clone())),
            None if set.is_some() => (None, None, Reason::NotFound),
            None => (None, None, Reason::Unavailable(trouble.unwrap_or_default())),
        };
        let mut note = None;
        if let Some((variable, text)) = self.overrides.find(flag) {
            match overrides::read(text, known, &default) {
                // Whoever throws the kill switch does not know of every process' variables.
                _ if reason == Reason::Disabled => {
                    note = Some(format!("{variable} is set and does not count against the kill switch"));
                }
                Override::Variant(name, chosen) => {
                    (variant, value, reason) = (Some(name), Some(chosen), Reason::Override { variable });
                }
                Override::Value(chosen) => {
                    (variant, value, reason) = (None, Some(chosen), Reason::Override { variable });
                }
                Override::Senseless(why) => note = Some(format!("{variable} is set and does not count: {why}")),
            }
        }
        let changed = known.and_then(|known| known.changed.clone());
        Evaluation { flag: flag.to_owned(), value: value.unwrap_or(default), variant, reason, freshness, note, changed }
    }

    /// What is known, after it was read again where it is too old; and why not, where nothing is.
    async fn known(&self) -> (Option<Arc<FlagSet>>, Freshness, Option<String>) {
        let known = self.snapshot();
        if let Some((set, read)) = &known.set
            && known.trouble.is_none()
            && read.elapsed() <= self.max_age
        {
            return (Some(set.clone()), Freshness::Current { age: read.elapsed() }, None);
        }
        let lately = |(tried, _): &(Instant, String)| tried.elapsed() < RETRY.min(self.max_age);
        if !known.trouble.as_ref().is_some_and(lately) {
            // With something in hand nobody waits for somebody else's reading.
            let origin = if known.set.is_some() { self.origin.try_lock().ok() } else { Some(self.origin.lock().await) };
            if let Some(mut origin) = origin {
                // While we waited it may have been read.
                let since = self.snapshot();
                let is_new =
                    |(_, read): &(Arc<FlagSet>, Instant)| Some(*read) != known.set.as_ref().map(|(_, read)| *read);
                if !since.set.as_ref().is_some_and(is_new)
                    && since.trouble.as_ref().map(|(at, _)| *at) == known.trouble.as_ref().map(|(at, _)| *at)
                {
                    let read = tokio::time::timeout(READ, origin.read()).await;
                    let read = read.unwrap_or_else(|_| Err(OriginError(format!("no answer within {READ:.0?}"))));
                    let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                    match read {
                        Ok(set) => *known = Known { set: Some((Arc::new(set), Instant::now())), trouble: None },
                        Err(OriginError(why)) => known.trouble = Some((Instant::now(), why)),
                    }
                }
            }
        }
        let known = self.snapshot();
        let trouble = known.trouble.map(|(_, why)| why);
        match (known.set, trouble) {
            (Some((set, read)), None) => (Some(set), Freshness::Current { age: read.elapsed() }, None),
            (Some((_, read)), Some(why)) if self.last_known_for.is_some_and(|limit| read.elapsed() > limit) => {
                (None, Freshness::Unknown, Some(why))
            }
            (Some((set, read)), Some(why)) => (Some(set), Freshness::Stale { age: read.elapsed(), why }, None),
            (None, why) => (None, Freshness::Unknown, why),
        }
    }

    fn snapshot(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
