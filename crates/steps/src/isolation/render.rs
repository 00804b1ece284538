//! The matrix for people and programs: terminal, JSON, and the picture in the evidence.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use pgrunbook_engine::evidence::matrix::{self as picture, Line, Row, Tone};
use serde_json::{Value, json};

use super::matrix::{Action, Check, Matrix, Method, Try, Verdict};

/// The version of the JSON.
pub const VERSION: u32 = 1;

/// Columns of a terminal that are certainly there.
const WIDTH: usize = 100;

impl Matrix {
    /// The characters of a role in a schema, one for each action; blank where there was nothing to try.
    pub fn pattern(&self, marks: &Marks, role: usize, schema: usize) -> String {
        let mark = |action: Action| match marks.0.get(&(role, schema, action)) {
            Some(verdict) => verdict.mark(action.letter()),
            None => ' ',
        };
        Action::ALL.into_iter().map(mark).collect()
    }

    /// All verdicts by their place.
    pub fn marks(&self) -> Marks {
        Marks(self.cells.iter().map(|cell| ((cell.role, cell.schema, cell.action), cell.verdict)).collect())
    }

    /// One line: what came out, and how much was looked at.
    pub fn summary(&self) -> String {
        let coverage = &self.coverage;
        let counts = [Verdict::Leaked, Verdict::Broken, Verdict::Inconclusive].map(|verdict| self.count(verdict));
        let outcome = match counts {
            _ if self.is_proved() => "everything is as declared".to_owned(),
            [0, 0, 0] => "everything is as declared, and nothing is proved: SET ROLE is not the role".to_owned(),
            [leaked, broken, unsure] => format!("{leaked} leaked, {broken} broken, {unsure} inconclusive"),
        };
        let methods: Vec<String> =
            self.methods().into_iter().map(|(method, count)| format!("{count} by {method}")).collect();
        format!(
            "{outcome}: {} roles ({}), {} schemas, {} of {} objects, {} statements in {:.1} s",
            coverage.roles,
            methods.join(", "),
            coverage.schemas,
            coverage.tried,
            coverage.objects,
            coverage.statements,
            coverage.took.as_secs_f64()
        )
    }

    /// For a terminal. `details`: at most so many lines of what is not as declared of each kind.
    pub fn terminal(&self, details: usize) -> String {
        let mut text = String::new();
        let marks = self.marks();
        let head = self.roles.iter().map(|role| role.name.chars().count()).max().unwrap_or(0).max(4);
        let by = self.roles.iter().map(|role| role.method.word().len()).max().unwrap_or(0);
        let cell = Action::ALL.len();
        let width = |schema: &String| schema.chars().count().max(cell) + 2;
        if head + by + 4 + self.schemas.iter().map(width).sum::<usize>() <= WIDTH {
            let _ = write!(text, "{:head$}  {:by$}", "role", "");
            for schema in &self.schemas {
                let _ = write!(text, "  {schema:cell$}");
            }
            text.push('\n');
            for (at, role) in self.roles.iter().enumerate() {
                let _ = write!(text, "{:head$}  {:by$}", role.name, role.method.word());
                for (schema, name) in self.schemas.iter().enumerate() {
                    let width = name.chars().count().max(cell);
                    let _ = write!(text, "  {:width$}", self.pattern(&marks, at, schema));
                }
                end_line(&mut text);
            }
        } else {
            self.grouped(&marks, &mut text, head, by);
        }
        let letters: Vec<String> =
            Action::ALL.iter().map(|action| format!("{} {}", action.letter(), action.word())).collect();
        let _ = writeln!(text, "\n{}", letters.join(", "));
        text.push_str(
            "letter: works, as declared   · denied, as declared   ! leaked   ✗ does not work   ? inconclusive\n",
        );
        self.checks_of(&mut text);
        for verdict in [Verdict::Leaked, Verdict::Broken, Verdict::Inconclusive] {
            self.details(verdict, details, &mut text);
        }
        let _ = writeln!(text, "\n{}", self.summary());
        text
    }

    /// Where the schemas do not fit side by side: for each role, those with the same characters together.
    fn grouped(&self, marks: &Marks, text: &mut String, head: usize, by: usize) {
        for (at, role) in self.roles.iter().enumerate() {
            let mut patterns: Vec<(String, Vec<&str>)> = Vec::new();
            for (schema, name) in self.schemas.iter().enumerate() {
                let pattern = self.pattern(marks, at, schema);
                match patterns.iter_mut().find(|(known, _)| *known == pattern) {
                    Some((_, names)) => names.push(name),
                    None => patterns.push((pattern, vec![name])),
                }
            }
            patterns.sort_by_key(|(_, names)| names.len());
            for (line, (pattern, names)) in patterns.iter().enumerate() {
                let (name, method) = if line == 0 { (role.name.as_str(), role.method.word()) } else { ("", "") };
                let shown = match names.as_slice() {
                    few if few.len() <= 3 => few.join(", "),
                    [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
                    _ => String::new(),
                };
                let _ = write!(text, "{name:head$}  {method:by$}  {pattern}  {shown}");
                end_line(text);
            }
        }
    }

    /// What belongs to no one schema, counted.
    fn checks_of(&self, text: &mut String) {
        let mut counts: BTreeMap<_, BTreeMap<Verdict, usize>> = BTreeMap::new();
        for check in &self.checks {
            *counts.entry(check.about).or_default().entry(check.tried.verdict).or_default() += 1;
        }
        if !counts.is_empty() {
            text.push('\n');
        }
        for (about, verdicts) in counts {
            let shown: Vec<String> =
                verdicts.iter().rev().map(|(verdict, count)| format!("{count} {}", verdict.word())).collect();
            let _ = writeln!(text, "{:15} {}", about.word(), shown.join(", "));
        }
    }

    fn details(&self, verdict: Verdict, most: usize, text: &mut String) {
        let found: Vec<_> = self.of(verdict).collect();
        for (at, found) in found.iter().enumerate() {
            if at == 0 {
                text.push('\n');
            }
            if at == most {
                let _ = writeln!(text, "{} more {}", self.of(verdict).count() - most, verdict.word());
                return;
            }
            let tried = found.tried;
            let _ = writeln!(text, "{} {}  {}  {}", verdict.word(), found.role, found.what, tried.object);
            let _ = writeln!(text, "    {}\n    -> {}", tried.statement, tried.answer);
            if let Some(why) = &tried.why {
                let _ = writeln!(text, "    {why}");
            }
        }
    }

    /// For programs: what is not as declared with everything that is known of it, the rest by its characters.
    pub fn json(&self) -> Value {
        let marks = self.marks();
        let patterns: BTreeMap<&str, BTreeMap<&str, String>> = self
            .roles
            .iter()
            .enumerate()
            .map(|(at, role)| {
                let row = self.schemas.iter().enumerate();
                (
                    role.name.as_str(),
                    row.map(|(schema, name)| (name.as_str(), self.pattern(&marks, at, schema))).collect(),
                )
            })
            .collect();
        let findings: Vec<Value> = self.findings().map(|found| finding(found.role, found.what, found.tried)).collect();

        let roles: Vec<Value> = self
            .roles
            .iter()
            .map(|role| {
                let why = match &role.method {
                    Method::Not(why) => Some(why),
                    _ => None,
                };
                json!({ "name": role.name, "kind": role.kind.word(), "method": role.method.word(), "why": why })
            })
            .collect();
        json!({
            "type": "isolation",
            "version": VERSION,
            "database": self.database,
            "proved": self.is_proved(),
            "leaked": self.count(Verdict::Leaked),
            "broken": self.count(Verdict::Broken),
            "inconclusive": self.count(Verdict::Inconclusive),
            "actions": Action::ALL.map(|action| json!([action.letter(), action.word()])),
            "roles": roles,
            "matrix": patterns,
            "findings": findings,
            "checks": self.checks_json(),
            "coverage": self.coverage_json(),
        })
    }

    /// How much was looked at.
    pub fn coverage_json(&self) -> Value {
        let coverage = &self.coverage;
        json!({
            "roles": coverage.roles,
            "schemas": coverage.schemas,
            "objects": coverage.objects,
            "tried": coverage.tried,
            "statements": coverage.statements,
            "methods": self.methods(),
            "millis": u64::try_from(coverage.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// For the evidence: every try, in a form that the report draws.
    pub fn picture(&self) -> picture::Matrix {
        let mut texts = Texts::default();
        let marks = self.marks();
        let mut cells: Vec<Vec<picture::Cell>> = (0..self.roles.len())
            .map(|role| {
                let cell = |schema| picture::Cell {
                    text: self.pattern(&marks, role, schema),
                    tone: Tone::Empty,
                    lines: Vec::new(),
                };
                (0..self.schemas.len()).map(cell).collect()
            })
            .collect();
        for cell in &self.cells {
            let place = &mut cells[cell.role][cell.schema];
            place.lines.extend(cell.tries.iter().map(|tried| texts.line(cell.action.word(), tried)));
            if cell.more > 0 {
                let said = texts.number(format!("{} {} more", cell.action.word(), cell.more));
                let fine = texts.number("as declared".to_owned());
                let none = texts.number(String::new());
                place.lines.push(Line(tone(cell.tries[0].verdict.min(Verdict::Works)), said, none, fine, none, 0));
            }
            place.tone = place.tone.max(tone(cell.verdict));
        }
        // The worst first, since that is what a cell is opened for.
        cells.iter_mut().flatten().for_each(|cell| cell.lines.sort_by_key(|line| std::cmp::Reverse(line.0)));
        picture::Matrix {
            version: picture::VERSION,
            row_word: "role".to_owned(),
            rows: self
                .roles
                .iter()
                .map(|role| Row { name: role.name.clone(), note: role.method.word().to_owned() })
                .collect(),
            columns: self.schemas.clone(),
            marks: Action::ALL.iter().map(|action| (action.letter(), action.word().to_owned())).collect(),
            cells,
            texts: texts.all,
        }
    }

    /// The checks for the evidence: those that are not as declared in full, the others counted by what they are about.
    pub fn checks_json(&self) -> Value {
        let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for check in &self.checks {
            *counts.entry(check.about.word()).or_default().entry(check.tried.verdict.word()).or_default() += 1;
        }
        let shown = |check: &&Check| {
            use super::matrix::About::{AppendOnly, Pooler, RowSecurity};
            !check.tried.verdict.fits() || matches!(check.about, AppendOnly | Pooler | RowSecurity)
        };
        let tried: Vec<Value> = self
            .checks
            .iter()
            .filter(shown)
            .map(|check| {
                let mut value = finding(&check.role, check.about.word(), &check.tried);
                value["check"] = json!(check.what);
                value
            })
            .collect();
        json!({ "counts": counts, "tried": tried })
    }
}

/// The verdict of each role, schema and action.
pub struct Marks(HashMap<(usize, usize, Action), Verdict>);

fn end_line(text: &mut String) {
    let end = text.trim_end_matches(' ').len();
    text.truncate(end);
    text.push('\n');
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Denied => Tone::Closed,
        Verdict::Works => Tone::Open,
        Verdict::Inconclusive => Tone::Unsure,
        Verdict::Broken => Tone::Broken,
        Verdict::Leaked => Tone::Leaked,
    }
}

fn finding(role: &str, what: &str, tried: &Try) -> Value {
    json!({
        "verdict": tried.verdict.word(),
        "role": role,
        "what": what,
        "object": tried.object,
        "statement": tried.statement,
        "sqlstate": tried.answer.sqlstate,
        "answer": tried.answer.message,
        "control": tried.control,
        "why": tried.why,
        "micros": u64::try_from(tried.took.as_micros()).unwrap_or(u64::MAX),
    })
}

/// Texts that are kept once.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    at: HashMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: String) -> usize {
        if let Some(number) = self.at.get(&text) {
            return *number;
        }
        self.all.push(text.clone());
        self.at.insert(text, self.all.len() - 1);
        self.all.len() - 1
    }

    fn line(&mut self, action: &str, tried: &Try) -> Line {
        let remark = match (&tried.why, &tried.control) {
            (Some(why), _) => why.clone(),
            (None, Some(control)) => format!("control: {control}"),
            (None, None) => String::new(),
        };
        Line(
            tone(tried.verdict),
            self.number(format!("{action} {}", tried.object)),
            self.number(tried.statement.clone()),
            self.number(tried.answer.to_string()),
            self.number(remark),
            u64::try_from(tried.took.as_micros()).unwrap_or(u64::MAX),
        )
    }
}
