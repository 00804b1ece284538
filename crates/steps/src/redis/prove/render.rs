//! A proof for people and programs.

use std::collections::BTreeMap;

use pgrunbook_engine::evidence::matrix::{self as picture, Cell, Line, Row, Tone};
use serde_json::{Value, json};

use super::Proof;
use super::trial::{Trial, Verdict};

impl Proof {
    /// One line.
    pub fn summary(&self) -> String {
        if let Some(why) = &self.convention {
            return format!("nothing is proved: {why}");
        }
        let counts = [Verdict::Leaked, Verdict::Broken, Verdict::Inconclusive].map(|verdict| self.count(verdict));
        let outcome = match counts {
            _ if self.is_proved() => "every prefix is kept".to_owned(),
            [leaked, broken, unsure] => format!("{leaked} leaked, {broken} broken, {unsure} inconclusive"),
        };
        let declared = match self.count(Verdict::Declared) {
            0 => String::new(),
            count => format!(", {count} open as declared"),
        };
        let silent = match self.silent.len() {
            0 => String::new(),
            count => format!(", {count} servers do not answer"),
        };
        let nodes = if self.nodes.len() == 1 { "1 server".to_owned() } else { format!("{} servers", self.nodes.len()) };
        format!(
            "{outcome}: {} trials on {nodes}, {} refused{declared}{silent}, in {:.1} s",
            self.trials.len(),
            self.count(Verdict::Refused),
            self.took.as_secs_f64()
        )
    }

    /// What is not as declared, worst first, in lines.
    pub fn findings(&self) -> Vec<String> {
        let mut found: Vec<&Trial> = self.trials.iter().filter(|trial| trial.verdict > Verdict::Works).collect();
        found.sort_by_key(|trial| std::cmp::Reverse(trial.verdict));
        let lines = found.into_iter().map(|one| {
            let who = if one.user.is_empty() { "anybody" } else { &one.user };
            format!("{}: {who}, {} on {} at {}: {}", one.verdict.word(), one.what, one.on, one.at, one.answer)
        });
        let silent = self.silent.iter().map(|(at, why)| format!("inconclusive: {at} was not tried: {why}"));
        lines.chain(silent).collect()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let trials: Vec<Value> = self
            .trials
            .iter()
            .map(|one| {
                json!({
                    "at": one.at, "user": one.user, "what": one.what, "on": one.on, "way": one.way.word(),
                    "answer": one.answer, "verdict": one.verdict.word()
                })
            })
            .collect();
        json!({
            "proved": self.is_proved(),
            "summary": self.summary(),
            "convention": self.convention,
            "servers": self.nodes,
            "silent": self.silent.iter().map(|(at, why)| json!({ "at": at, "why": why })).collect::<Vec<_>>(),
            "trials": trials,
        })
    }

    /// Users by what they were kept from, for the report.
    pub fn picture(&self) -> picture::Matrix {
        let mut texts: Vec<String> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut text = |said: &str| {
            *known.entry(said.to_owned()).or_insert_with(|| {
                texts.push(said.to_owned());
                texts.len() - 1
            })
        };
        let mut rows: Vec<&str> = Vec::new();
        let mut columns: Vec<&str> = Vec::new();
        for one in &self.trials {
            for (all, name) in [(&mut rows, one.user.as_str()), (&mut columns, one.on.as_str())] {
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
        let empty = Cell { text: " ".to_owned(), tone: Tone::Empty, lines: Vec::new() };
        let mut cells = vec![vec![empty; columns.len()]; rows.len()];
        for one in &self.trials {
            let row = rows.iter().position(|name| *name == one.user).expect("every user has its row");
            let column = columns.iter().position(|name| *name == one.on).expect("every object has its column");
            let tone = tone(one.verdict);
            let cell = &mut cells[row][column];
            cell.tone = cell.tone.max(tone);
            cell.lines.push(Line(tone, text(&one.at), text(&one.what), text(&one.answer), text(one.way.word()), 0));
        }
        for cell in cells.iter_mut().flatten() {
            cell.lines.sort_by_key(|line| std::cmp::Reverse(line.0));
            cell.text = mark(cell.tone).to_owned();
        }
        let name = |name: &&str| if name.is_empty() { "(not logged in)".to_owned() } else { (*name).to_owned() };
        picture::Matrix {
            version: picture::VERSION,
            row_word: "user".to_owned(),
            rows: rows.iter().map(|row| Row { name: name(row), note: String::new() }).collect(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            marks: vec![('r', "reached".to_owned())],
            cells,
            texts,
        }
    }
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Refused => Tone::Closed,
        Verdict::Works | Verdict::Declared => Tone::Open,
        Verdict::Inconclusive => Tone::Unsure,
        Verdict::Broken => Tone::Broken,
        Verdict::Leaked => Tone::Leaked,
    }
}

fn mark(tone: Tone) -> &'static str {
    match tone {
        Tone::Empty => " ",
        Tone::Closed => "·",
        Tone::Open => "r",
        Tone::Unsure => "?",
        Tone::Broken => "-",
        Tone::Leaked => "!",
    }
}
