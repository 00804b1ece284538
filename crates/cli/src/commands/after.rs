//! What is said of a run beyond its steps: how long its way back took, and what people were promised and still wait for.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgrunbook_engine::way_back::shown;
use pgrunbook_engine::{Engine, Promised, Status, WayBack};
use serde_json::json;

/// Of a run as it stands.
#[derive(Debug, Default)]
pub struct After {
    pub way_back: Option<WayBack>,
    /// The promised update, if nobody is at work on the run: whoever is reminds by themselves.
    pub promised: Option<Promised>,
}

impl After {
    pub fn of(engine: &Engine, status: &Status) -> Self {
        let promised = engine.promised(&status.state).filter(|_| status.holder.is_none());
        Self { way_back: WayBack::of(&status.state, engine.clock.now()), promised }
    }

    /// As fields of an object that leaves the process.
    pub fn add_to(&self, value: &mut serde_json::Value, run: &str, again: &str) {
        if let Some(way_back) = &self.way_back {
            value["way_back"] = way_back.json();
        }
        if let Some(promised) = &self.promised {
            let [notify, remind] = commands(promised, run, again);
            value["update"] = json!({
                "channel": promised.channel, "due": promised.at, "overdue": promised.overdue_at, "notify": notify,
                "remind": remind,
            });
        }
    }

    /// When the next word is due, by which command it is said, and by which one is reminded.
    pub fn update(&self, run: &str, again: &str, now: Timestamp) -> Option<String> {
        let promised = self.promised.as_ref()?;
        let [notify, remind] = commands(promised, run, again);
        let at = clock_time(promised.at);
        let mut text = format!("\nAn update was promised in channel `{}`: ", promised.channel);
        let _ = match std::time::Duration::try_from(promised.at.duration_since(now)) {
            Ok(left) => writeln!(text, "it is due by {at}, in {}.", shown(left)),
            Err(_) => writeln!(text, "it was due by {at}."),
        };
        let _ = writeln!(text, "  {notify}");
        let _ =
            writeln!(text, "Nobody is at work on the run, so nobody is reminded, and the channel is not told, but by");
        let _ = write!(text, "  {remind}");
        Some(text)
    }
}

fn commands(promised: &Promised, run: &str, again: &str) -> [String; 2] {
    let channel = &promised.channel;
    [
        format!("pgrunbook notify {run} --channel {channel} --text \"...\"{again}"),
        format!("pgrunbook watch {run} --remind{again}"),
    ]
}

/// `12:15:04 UTC`.
pub fn clock_time(at: Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}
