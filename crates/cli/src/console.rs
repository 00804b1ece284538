//! The person at the terminal: sees what happens, and is asked.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use pgrunbook_document::StepId;
use pgrunbook_engine::journal::{Decision, Direction, EndState, ItemOutcome, Outcome, Sealed};
use pgrunbook_engine::plan::PlannedEntry;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::{Cancel, Doubt, DoubtAnswer, Event, ItemAnswer, ItemQuestion, Operator, Plan};
use serde_json::json;

use crate::app::App;
use crate::args::Output;

/// Prints events as they become durable, and asks where a person is needed.
pub struct Console {
    output: Output,
    colour: bool,
    /// Whether anybody can be asked.
    interactive: bool,
    /// Ends a question too.
    cancel: Cancel,
    shown: Mutex<Shown>,
    /// Answers every item by itself: a rehearsal.
    rehearsal: bool,
}

/// What was printed, and what is under way.
#[derive(Default)]
struct Shown {
    /// Titles of the sections by step and item.
    sections: BTreeMap<String, String>,
    /// Checklist lines by item.
    items: BTreeMap<String, String>,
    /// The section whose title was printed last.
    section: Option<String>,
    bar: Option<ProgressBar>,
    begun: Option<(StepId, Timestamp)>,
    /// When an amount was told last, where there is no bar.
    told: Option<Instant>,
}

/// How often a long step says how far it is, where there is no bar.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Console {
    pub fn new(app: &App, plan: &Plan, cancel: Cancel, no_input: bool, rehearsal: bool) -> Self {
        let (mut sections, mut items) = (BTreeMap::new(), BTreeMap::new());
        for phase in plan.phases.iter().chain(&plan.rollback_paths) {
            for entry in &phase.entries {
                let id = match entry {
                    PlannedEntry::Item { id, text, .. } => {
                        items.insert(id.to_string(), text.clone());
                        id.to_string()
                    }
                    PlannedEntry::Step(step) => step.id.to_string(),
                };
                sections.insert(id, phase.title.clone());
            }
        }
        Self {
            output: app.global.format,
            colour: app.colour(),
            interactive: app.is_interactive() && !no_input && !rehearsal,
            cancel,
            shown: Mutex::new(Shown { sections, items, ..Shown::default() }),
            rehearsal,
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Prints a line, past the progress bar.
    fn print(&self, shown: &Shown, line: &str) {
        match &shown.bar {
            Some(bar) => bar.suspend(|| put(line)),
            None => put(line),
        }
    }

    fn section(&self, shown: &mut Shown, id: &str) {
        let title = shown.sections.get(id).cloned();
        if title.is_some() && shown.section != title {
            let title_text = title.clone().unwrap_or_default();
            self.print(shown, &format!("\n{}", self.paint("1", &title_text)));
            shown.section = title;
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        paint(self.colour, code, text)
    }

    /// Asks for one line. `None`: nobody answers, or the operator wants to stop.
    async fn ask(&self, question: &str) -> Option<String> {
        if !self.interactive {
            return None;
        }
        {
            let shown = self.shown();
            let show = || {
                let _ = write!(std::io::stderr(), "{question} ");
                let _ = std::io::stderr().flush();
            };
            match &shown.bar {
                Some(bar) => bar.suspend(show),
                None => show(),
            }
        }
        let read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            match std::io::stdin().read_line(&mut line) {
                Ok(0) | Err(_) => None,
                Ok(_) => Some(line.trim().to_owned()),
            }
        });
        tokio::select! {
            line = read => line.ok().flatten(),
            () = self.cancel.stopping() => None,
        }
    }
}

/// `1 file`, `2 files`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Prints a line to standard output. Whoever reads it may have gone: that is no reason to stop a run.
pub fn put(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to standard error, for people. The terminal may have gone: that is no reason to stop, either.
pub fn aside(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A text in a colour of the terminal.
pub fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// An event as one line for people; `None` where it says nothing to them.
pub fn line(event: &Event, took: Option<Duration>, colour: bool) -> Option<String> {
    let took = took.map_or_else(String::new, |took| paint(colour, "2", &format!("  {}", shown_duration(took))));
    let way = |direction: &Direction| if *direction == Direction::Back { "undo " } else { "" };
    Some(match event {
        Event::Begun { .. } | Event::Intent { .. } => return None,
        Event::Claimed { epoch: 1, .. } => return None,
        Event::Claimed { operator, host, .. } => format!("  taken up by {operator} on {host}"),
        Event::Item { outcome, by, note, in_advance, .. } => {
            let what = match outcome {
                ItemOutcome::Confirmed => "confirmed",
                ItemOutcome::NotApplicable => "not applicable",
                ItemOutcome::Refused => "refused",
            };
            let advance = if *in_advance { " (answered in advance)" } else { "" };
            let note = note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            format!("      {what} by {by}{advance}{note}")
        }
        Event::Approved { approval } => format!("  approved by {} ({})", approval.principal, approval.key),
        Event::SignedOff { sign_off } => {
            format!("  signed off by {} as {} ({})", sign_off.principal, sign_off.role, sign_off.key)
        }
        Event::Confirmed { by, .. } => format!("  confirmation text given by {by}"),
        Event::Overridden { demand, found, by, reason } => {
            let loud = paint(colour, "1;31", &format!("!! OVERRIDDEN: {}", demand.word()));
            format!("  {loud} by {by}: {reason}\n     found: {found}\n     recorded, and open to be reviewed")
        }
        Event::ReviewClosed { closing } => format!("  review of event {} {closing}", closing.item),
        Event::Demands { demands } => {
            let met = demands.iter().map(|demand| {
                let overridden = if demand.held.is_none() { " (overridden)" } else { "" };
                format!("{}{overridden}", demand.name.word())
            });
            format!("  demands held: {}", met.collect::<Vec<_>>().join(", "))
        }
        Event::Outcome { step, direction, outcome, .. } => match outcome {
            Outcome::Done { evidence, recovered } => {
                let recovered = if *recovered { " (found done after an interruption)" } else { "" };
                let mark = paint(colour, "32", "✓");
                format!("  {mark} {}{step}  {}{recovered}{took}", way(direction), evidence.summary)
            }
            Outcome::Failed { message, .. } => {
                format!("  {} {}{step}  {message}{took}", paint(colour, "31", "✗"), way(direction))
            }
            Outcome::DidNotHappen => format!("  · {}{step}  had not happened; it is run again", way(direction)),
            Outcome::Partial { evidence } => {
                format!("  · {}{step}  in parts: {}", way(direction), evidence.summary)
            }
            Outcome::Unknown { why } => {
                format!(
                    "  {} {}{step}  nobody can tell whether it happened: {why}",
                    paint(colour, "33", "?"),
                    way(direction)
                )
            }
        },
        // The step has told it in its own words.
        Event::Noted { .. } => return None,
        Event::Decided { step, direction, decision, by, note } => {
            let what = match decision {
                Decision::Done => "it happened",
                Decision::Again => "it is run again",
            };
            format!("  · {}{step}  {what}, says {by}: {note}", way(direction))
        }
        Event::TurnedBack { path, by, reason } => {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("\n{}", paint(colour, "1", &format!("Going back on `{path}` ({by}){reason}")))
        }
        Event::NoticeDue { .. } => return None,
        Event::NoticeSent { key, delivered, said } => {
            let what = key.split_once('/').map_or(key.as_str(), |(_, what)| what);
            match delivered {
                true => format!("  · told {what}: {said}"),
                false => {
                    let mark = paint(colour, "31", "✗");
                    format!("  {mark} {what} was not delivered: {said}; it stays owed and is tried again")
                }
            }
        }
        Event::UpdateDue { channel } => {
            let mark = paint(colour, "33", "!");
            format!(
                "  {mark} an update is due in channel `{channel}`: pgrunbook notify RUN --channel {channel} --text \"...\""
            )
        }
        Event::Accepted { what, by } => format!("  accepted by {by}: {what}"),
        Event::Stopped { why } => format!("  stopped: {why}"),
        Event::Ended { state } => match state {
            EndState::Completed => "\nCompleted.".to_owned(),
            EndState::RolledBack => "\nRolled back.".to_owned(),
            EndState::Aborted => "\nAborted.".to_owned(),
        },
    })
}

/// `12 ms`, `3.4 s`, `2 min 5 s`.
pub fn shown_duration(took: Duration) -> String {
    match took.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", took.as_secs_f64()),
        _ => format!("{} min {} s", took.as_secs() / 60, took.as_secs() % 60),
    }
}

impl Watcher for Console {
    fn progress(&self, step: &StepId, progress: Progress) {
        let mut shown = self.shown();
        if self.output == Output::Json {
            put(&json!({ "type": "progress", "step": step, "progress": progress }).to_string());
            return;
        }
        match (progress, &shown.bar) {
            (Progress::Line { text }, _) => self.print(&shown, &format!("      {}", paint(self.colour, "2", &text))),
            (Progress::Amount { done, total, unit }, Some(bar)) => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(done);
                let style = match (unit, total) {
                    ("bytes", Some(_)) => "      {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                    ("bytes", None) => "      {spinner} {bytes} {bytes_per_sec}",
                    (_, Some(_)) => "      {bar:30} {human_pos}/{human_len} {per_sec} {eta}",
                    (_, None) => "      {spinner} {human_pos} {per_sec}",
                };
                if let Ok(style) = ProgressStyle::with_template(style) {
                    bar.set_style(style);
                }
            }
            // Nobody watches a bar: a line now and then.
            (Progress::Amount { done, total, unit }, None) => {
                if shown.told.is_some_and(|told| told.elapsed() >= TELL_EVERY) {
                    let amount = |amount: u64| match unit {
                        "bytes" => indicatif::HumanBytes(amount).to_string(),
                        unit => format!("{} {unit}", indicatif::HumanCount(amount)),
                    };
                    let of = total.map_or_else(String::new, |total| format!(" of about {}", amount(total)));
                    self.print(&shown, &format!("      {}{of}", amount(done)));
                    shown.told = Some(Instant::now());
                }
            }
        }
    }
}

#[async_trait]
impl Operator for Console {
    fn event(&self, run: &str, sealed: &Sealed) {
        let mut shown = self.shown();
        if self.output == Output::Json {
            let mut value = serde_json::to_value(sealed).unwrap_or_default();
            value["type"] = "event".into();
            value["run"] = run.into();
            // The whole plan is in the journal and in `pgrunbook plan --format json`.
            if let Some(event) = value.get_mut("event").and_then(|event| event.as_object_mut()) {
                event.remove("plan");
            }
            put(&value.to_string());
            return;
        }
        let mut took = None;
        match &sealed.event {
            // Nobody was asked it: an answer says nothing without its question.
            Event::Item { item, in_advance: true, .. } => {
                let id = item.to_string();
                self.section(&mut shown, &id);
                if let Some(text) = shown.items.get(&id) {
                    self.print(&shown, &format!("  □ {text}"));
                }
            }
            Event::Intent { step, .. } => {
                self.section(&mut shown, step.as_str());
                shown.begun = Some((step.clone(), sealed.at));
                // The first line comes after a while: most steps are done by then.
                shown.told = Some(Instant::now());
                if self.interactive && std::io::stderr().is_terminal() {
                    let bar = ProgressBar::new_spinner().with_message(step.to_string());
                    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed}") {
                        bar.set_style(style);
                    }
                    bar.enable_steady_tick(Duration::from_millis(120));
                    shown.bar = Some(bar);
                }
            }
            Event::Outcome { step, .. } => {
                if let Some(bar) = shown.bar.take() {
                    bar.finish_and_clear();
                }
                if let Some((begun, at)) = &shown.begun
                    && begun == step
                {
                    took = Duration::try_from(sealed.at.duration_since(*at)).ok();
                }
            }
            _ => {}
        }
        if let Some(text) = line(&sealed.event, took, self.colour) {
            self.print(&shown, &text);
        }
    }

    async fn item(&self, question: ItemQuestion<'_>) -> Option<ItemAnswer> {
        {
            let mut shown = self.shown();
            if self.output != Output::Json {
                self.section(&mut shown, &question.id.to_string());
                let roles = if question.roles.is_empty() {
                    String::new()
                } else {
                    format!(" (@{})", question.roles.join(", @"))
                };
                self.print(&shown, &format!("  □ {}{roles}", question.text));
            }
        }
        if self.rehearsal {
            let note = Some("taken as confirmed in a rehearsal".to_owned());
            return Some(ItemAnswer { outcome: ItemOutcome::Confirmed, note });
        }
        loop {
            let answer = self.ask("      [y] confirmed  [n] not applicable  [r] refused  [q] stop here >").await?;
            let outcome = match answer.to_lowercase().as_str() {
                "y" | "yes" => return Some(ItemAnswer { outcome: ItemOutcome::Confirmed, note: None }),
                "n" | "not applicable" => ItemOutcome::NotApplicable,
                "r" | "refused" => ItemOutcome::Refused,
                "q" | "quit" => return None,
                _ => continue,
            };
            let reason = self.ask("      why? >").await?;
            if !reason.is_empty() {
                return Some(ItemAnswer { outcome, note: Some(reason) });
            }
        }
    }

    async fn decide(&self, doubt: &Doubt) -> Option<DoubtAnswer> {
        if self.interactive {
            aside(&format!("\n  ? step `{}`, attempt {}: {}", doubt.step, doubt.attempt, doubt.why));
            aside("    Look at the target. There is no default answer.");
        }
        loop {
            let answer = self.ask("      [done] it happened  [again] run it again  [q] stop here >").await?;
            let decision = match answer.to_lowercase().as_str() {
                "done" => Decision::Done,
                "again" => Decision::Again,
                "q" | "quit" => return None,
                _ => continue,
            };
            let note = self.ask("      how do you know? >").await?;
            if !note.is_empty() {
                return Some(DoubtAnswer { decision, note });
            }
        }
    }

    async fn confirmation(&self, wanted: &str) -> Option<String> {
        self.ask(&format!("  This environment is protected. Type exactly: {wanted}\n  >")).await
    }

    async fn accept(&self, what: &str) -> Option<bool> {
        loop {
            let answer = self.ask(&format!("  {what}. Accept this? [yes] [no] >")).await?;
            match answer.to_lowercase().as_str() {
                "yes" => return Some(true),
                "no" => return Some(false),
                _ => {}
            }
        }
    }
}
