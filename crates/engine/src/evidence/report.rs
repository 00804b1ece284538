//! The report for people: the runbook with its results in place. The page is made of the same text.

use std::fmt::Write as _;

use comrak::{Options, markdown_to_html};
use pgrunbook_document::StepId;

use super::chart::{self, Charts};
use super::matrix::{self, Matrix};
use super::{demands, last_outcome, picture, word};
use crate::journal::{Decision, Direction, Event, ItemOutcome, Outcome, Sealed};
use crate::plan::{PlannedEntry, PlannedPhase, PlannedUndo};
use crate::state::RunState;
use crate::step::Evidence;
use crate::way_back::WayBack;

/// The report as Markdown. Pictures are left to the page.
pub(super) fn markdown(run: &str, state: &RunState, events: &[Sealed], rehearsals: &[String]) -> String {
    let text = told(run, state, events, rehearsals);
    text.split_inclusive('\n').filter(|line| !line.starts_with(picture::MARK)).collect()
}

/// The report, with a line at the place of each picture.
fn told(run: &str, state: &RunState, events: &[Sealed], rehearsals: &[String]) -> String {
    let plan = &state.plan;
    let mut text = format!("# {}\n\n", inline(&plan.title));
    let kind = if state.rehearsal { "Rehearsal" } else { "Run" };
    let _ = writeln!(text, "{kind} {} in environment {}: **{}**.\n", code(run), code(&plan.environment), word(state));

    heading(&mut text, "Request");
    let first = events.first().map(|event| when(event.at)).unwrap_or_default();
    let last = events.last().map(|event| when(event.at)).unwrap_or_default();
    table(
        &mut text,
        &["", ""],
        &[
            vec!["runbook".to_owned(), code(&plan.runbook)],
            vec!["begun".to_owned(), first],
            vec!["last event".to_owned(), last],
            vec!["operator".to_owned(), inline(&state.operator)],
            vec!["planned".to_owned(), format!("{} by pgrunbook {}", when(plan.made_at), inline(&plan.engine))],
            vec!["content digest".to_owned(), code(&plan.content_digest)],
            vec!["plan digest".to_owned(), code(&plan.plan_digest)],
        ],
    );
    let targets =
        plan.targets.iter().map(|target| vec![inline(&target.name), inline(&target.shown), code(&target.key)]);
    table(&mut text, &["target", "what it is", "identity"], &targets.collect::<Vec<_>>());

    heading(&mut text, "Authorisation");
    let mut rows = Vec::new();
    for sealed in events {
        let row = match &sealed.event {
            Event::Approved { approval } => {
                let roles =
                    if approval.roles.is_empty() { String::new() } else { format!(" ({})", approval.roles.join(", ")) };
                vec![
                    when(sealed.at),
                    "approved".to_owned(),
                    format!("{}{}", inline(&approval.principal), inline(&roles)),
                    code(&approval.key),
                ]
            }
            Event::Confirmed { by, text } => {
                vec![when(sealed.at), "confirmation text".to_owned(), inline(by), code(text)]
            }
            Event::Accepted { what, by } => {
                vec![when(sealed.at), "accepted".to_owned(), inline(by), inline(what)]
            }
            _ => continue,
        };
        rows.push(row);
    }
    if rows.is_empty() {
        text.push_str("No approval and no confirmation is in the journal.\n\n");
    } else {
        table(&mut text, &["when", "what", "who", "by"], &rows);
    }
    demands::section(&mut text, state);

    heading(&mut text, "Test");
    match rehearsals {
        [] => text.push_str("No rehearsal of this content stood in the journal.\n\n"),
        runs => {
            let runs = runs.iter().map(|run| code(run)).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "The same content went forward and back before: {runs}.\n");
        }
    }

    heading(&mut text, "Implementation and verification");
    for phase in &plan.phases {
        section(&mut text, phase, state, events, Direction::Forward);
    }

    signed_off(&mut text, events);
    notices(&mut text, state);
    if let Some(path) = &state.turned_back {
        heading(&mut text, "Way back");
        let turned = events.iter().find_map(|sealed| match &sealed.event {
            Event::TurnedBack { by, reason, .. } => Some((sealed.at, by, reason)),
            _ => None,
        });
        if let Some((at, by, reason)) = turned {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {}", inline(reason)));
            let _ = writeln!(text, "Turned back on {} at {} by {}{reason}.\n", code(path), when(at), inline(by));
        }
        if let Some(way_back) = events.last().and_then(|last| WayBack::of(state, last.at)) {
            let _ = writeln!(text, "{way_back}\n");
        }
        let rows: Vec<_> = plan
            .all_steps()
            .filter_map(|step| Some((&step.id, last_outcome(events, &step.id, Direction::Back)?)))
            .map(|(step, found)| outcome_row(step, found))
            .collect();
        if !rows.is_empty() {
            table(&mut text, &["", "step", "what was seen", "when", "took"], &rows);
        }
    }

    heading(&mut text, "Rollback readiness");
    let coverage = plan.undo_coverage();
    let _ = writeln!(text, "{} of {} changing steps can be taken back.\n", coverage.undoable, coverage.changing);
    let rows: Vec<_> = plan
        .steps()
        .filter_map(|step| {
            let how = match &step.undo {
                PlannedUndo::NotNeeded => return None,
                PlannedUndo::Own { word } => format!("by itself ({word})"),
                PlannedUndo::Block { id, .. } => format!("by {}", code(id.as_str())),
                PlannedUndo::Nothing { why } => format!("nothing to take back: {}", inline(why)),
                PlannedUndo::OneWay { why } => format!("**cannot be taken back**: {}", inline(why)),
            };
            Some(vec![code(step.id.as_str()), how])
        })
        .collect();
    if !rows.is_empty() {
        table(&mut text, &["step", "is taken back"], &rows);
    }
    interruptions(&mut text, events);
    let _ = writeln!(
        text,
        "---\n\nJournal: {} events, head {}. Verify this bundle offline: `pgrunbook verify FOLDER`.",
        state.head.seq,
        code(&state.head.hash)
    );
    text
}

pub(super) fn heading(text: &mut String, title: &str) {
    let _ = writeln!(text, "## {title}\n");
}

/// A phase with the outcome of each of its lines.
fn section(text: &mut String, phase: &PlannedPhase, state: &RunState, events: &[Sealed], direction: Direction) {
    if phase.entries.is_empty() {
        return;
    }
    let _ = writeln!(text, "### {}\n", inline(&phase.title));
    let mut rows = Vec::new();
    for entry in &phase.entries {
        match entry {
            PlannedEntry::Item { id, text: line, proofs, .. } if proofs.is_empty() => {
                let (mark, said, at) = match state.items.get(id) {
                    None => ("·", "open".to_owned(), String::new()),
                    Some(item) => {
                        let at = events.iter().rev().find_map(|sealed| match &sealed.event {
                            Event::Item { item, .. } if item == id => Some(when(sealed.at)),
                            _ => None,
                        });
                        let (mark, word) = match item.outcome {
                            ItemOutcome::Confirmed => ("✓", "confirmed"),
                            ItemOutcome::NotApplicable => ("–", "not applicable"),
                            ItemOutcome::Refused => ("✗", "refused"),
                        };
                        let advance = if item.in_advance { ", answered in advance" } else { "" };
                        let note = item.note.as_ref().map_or_else(String::new, |note| format!(": {}", inline(note)));
                        (mark, format!("{word} by {}{advance}{note}", inline(&item.by)), at.unwrap_or_default())
                    }
                };
                rows.push(vec![mark.to_owned(), inline(line), said, at, String::new()]);
            }
            PlannedEntry::Item { text: line, proofs, .. } => {
                let done = |id| matches!(last_outcome(events, id, direction), Some((_, Outcome::Done { .. }, _)));
                let (mark, said) = if proofs.iter().all(done) {
                    ("✓", "proven by the steps below")
                } else {
                    ("·", "not proven by the steps below")
                };
                rows.push(vec![mark.to_owned(), inline(line), said.to_owned(), String::new(), String::new()]);
            }
            PlannedEntry::Step(step) => rows.push(match last_outcome(events, &step.id, direction) {
                Some(found) => outcome_row(&step.id, found),
                None => {
                    vec!["·".to_owned(), code(step.id.as_str()), "not run".to_owned(), String::new(), String::new()]
                }
            }),
        }
    }
    table(text, &["", "step or line", "what was seen", "when", "took"], &rows);
    for step in phase.steps() {
        match last_outcome(events, &step.id, direction) {
            Some((_, Outcome::Done { evidence, .. }, _)) => {
                facts(text, &step.id, evidence);
                draw(text, state, &step.id, evidence);
            }
            // Only what can be seen at a glance: the message stands above.
            Some((_, Outcome::Failed { evidence: Some(evidence), .. }, _)) => {
                draw(text, state, &step.id, evidence);
            }
            _ => {}
        }
    }
}

fn outcome_row(step: &StepId, (sealed, outcome, begun): (&Sealed, &Outcome, Option<jiff::Timestamp>)) -> Vec<String> {
    let (mark, said) = match outcome {
        Outcome::Done { evidence, recovered: false } => ("✓", inline(&evidence.summary)),
        Outcome::Done { evidence, recovered: true } => {
            ("✓", format!("{} (found done after an interruption)", inline(&evidence.summary)))
        }
        Outcome::Failed { message, .. } => ("✗", inline(message)),
        Outcome::DidNotHappen => ("·", "had not happened".to_owned()),
        Outcome::Partial { evidence } => ("·", format!("in parts: {}", inline(&evidence.summary))),
        Outcome::Unknown { why } => ("?", format!("unknown: {}", inline(why))),
    };
    let took = begun.map(|begun| sealed.at.duration_since(begun)).map_or_else(String::new, |took| {
        let millis = took.as_millis();
        if millis < 1_000 { format!("{millis} ms") } else { format!("{:.1} s", took.as_secs_f64()) }
    });
    vec![mark.to_owned(), code(step.as_str()), said, when(sealed.at), took]
}

/// Facts that say nothing to a reader: they stand in `checks/`.
const PLAIN_FACTS: [&str; 7] = ["micros", "migrations", "query_sha256", "row_count", "samples", "signed", "target"];

/// Characters of a fact that the report shows.
const SHOWN_CHARS: usize = 200;

/// A time for people; the journal has it to the nanosecond.
pub(super) fn when(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What a step recorded, beyond its one line.
fn facts(text: &mut String, step: &StepId, evidence: &Evidence) {
    let drawn = |name: &str, value: &serde_json::Value| {
        (name == matrix::FACT && Matrix::read(value).is_some())
            || (name == chart::FACT && Charts::read(value).is_some())
    };
    let shown: Vec<_> = evidence
        .facts
        .iter()
        .filter(|(name, value)| !PLAIN_FACTS.contains(&name.as_str()) && !drawn(name, value))
        .collect();
    if shown.is_empty() {
        return;
    }
    let _ = write!(text, "{}: ", code(step.as_str()));
    let facts = shown.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut short: String = value.chars().take(SHOWN_CHARS).collect();
        if short.len() < value.len() {
            // The whole of it is in `checks/`.
            short.push('…');
        }
        format!("{} {}", inline(name), code(&short))
    });
    let _ = writeln!(text, "{}\n", facts.collect::<Vec<_>>().join(", "));
}

/// The place of a step's picture: the page has it there, the text names what it shows.
fn draw(text: &mut String, state: &RunState, step: &StepId, evidence: &Evidence) {
    let matrix = evidence.facts.get(matrix::FACT).and_then(Matrix::read);
    let charts = evidence.facts.get(chart::FACT).and_then(Charts::read);
    let said = matrix.as_ref().map(picture::summary).or_else(|| charts.as_ref().map(chart::summary));
    let Some(said) = said else { return };
    let Some(number) = state.plan.steps().position(|planned| planned.id == *step) else { return };
    let _ = writeln!(text, "{0}{number}{0}", picture::MARK);
    let _ = writeln!(text, "{}\n", inline(&said));
}

/// Who signed what had happened, in which role.
fn signed_off(text: &mut String, events: &[Sealed]) {
    let rows = events.iter().filter_map(|sealed| match &sealed.event {
        Event::SignedOff { sign_off } => Some(vec![
            when(sealed.at),
            inline(&sign_off.role),
            inline(&sign_off.principal),
            code(sign_off.step.as_str()),
            code(&sign_off.key),
        ]),
        _ => None,
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        heading(text, "Sign-off");
        table(text, &["when", "role", "who", "of", "by"], &rows);
    }
}

/// What people were told, and what became of it.
fn notices(text: &mut String, state: &RunState) {
    let rows = state.notices.iter().map(|told| {
        let to = format!("{} ({})", inline(&told.notice.channel), inline(&told.notice.address));
        let by = told.by.as_ref().map_or_else(String::new, |by| format!(", by {}", inline(by)));
        let became = match (&told.delivered, &told.failed) {
            (Some(answer), _) => format!("delivered: {}", inline(answer)),
            (None, Some(why)) => format!("**not delivered**: {}", inline(why)),
            (None, None) => "**not delivered**".to_owned(),
        };
        vec![when(told.at), format!("{}{by}", told.notice.occasion.word()), to, inline(&told.notice.subject), became]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        heading(text, "Notifications");
        table(text, &["when", "occasion", "to", "subject", ""], &rows);
    }
}

/// What was not as planned: failures, stops, takeovers, decisions.
fn interruptions(text: &mut String, events: &[Sealed]) {
    let mut rows = Vec::new();
    for sealed in events {
        let (what, said) = match &sealed.event {
            Event::Claimed { epoch, operator, host, .. } if *epoch > 1 => {
                ("taken up again".to_owned(), format!("by {} on {}", inline(operator), inline(host)))
            }
            Event::Outcome { step, outcome: Outcome::Failed { message, .. }, .. } => {
                (format!("{} failed", code(step.as_str())), inline(message))
            }
            Event::Outcome { step, outcome: Outcome::Unknown { why }, .. } => {
                (format!("{} unknown", code(step.as_str())), inline(why))
            }
            Event::Decided { step, decision, by, note, .. } => {
                let what = match decision {
                    Decision::Done => "it happened",
                    Decision::Again => "run again",
                };
                (format!("{} decided", code(step.as_str())), format!("{what}, by {}: {}", inline(by), inline(note)))
            }
            Event::Stopped { why } => ("stopped".to_owned(), inline(why)),
            _ => continue,
        };
        rows.push(vec![when(sealed.at), what, said]);
    }
    heading(text, "Interruptions");
    if rows.is_empty() {
        text.push_str("None: it went through in one go.\n\n");
    } else {
        table(text, &["when", "what", ""], &rows);
    }
}

pub(super) fn table(text: &mut String, columns: &[&str], rows: &[Vec<String>]) {
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(columns.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text.push('\n');
}

/// A text that is only text in Markdown, also in a table.
pub(super) fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '#' | '!' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() || c == picture::MARK => {}
            c => out.push(c),
        }
    }
    out
}

/// A text as code, also in a table.
pub(super) fn code(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let clean: String = text.chars().map(|c| if c.is_control() || c == picture::MARK { ' ' } else { c }).collect();
    // A table splits at a bar even inside code.
    let clean = clean.replace('|', "\\|");
    let longest = clean.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if clean.starts_with('`') || clean.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{clean}{pad}{fence}")
}

/// The report as a page that needs nothing but itself.
pub(super) fn html(run: &str, state: &RunState, events: &[Sealed], rehearsals: &[String]) -> String {
    let mut options = Options::default();
    options.extension.table = true;
    // Raw HTML stays text: what a database answered must not become a part of the page.
    options.render.r#unsafe = false;
    let body = markdown_to_html(&told(run, state, events, rehearsals), &options);
    let body = body.replace("<table>", "<div class=\"wide\"><table>").replace("</table>", "</table></div>");
    let body = picture::place(&body, &pictures(state, events));
    let title = escaped(&format!("{}: {}", state.plan.title, word(state)));
    let runbook =
        state.plan.sources.first().map_or_else(String::new, |source| markdown_to_html(&source.text, &options));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main class=\"{}\">\n{body}\n\
         <details><summary>The runbook, as it was frozen</summary>\n{runbook}</details>\n</main>\n</body>\n</html>\n",
        word(state).replace(' ', "-")
    )
}

/// Every step's picture, in the order of the steps.
fn pictures(state: &RunState, events: &[Sealed]) -> Vec<Option<String>> {
    let of = |id: &StepId| {
        let (_, outcome, _) = last_outcome(events, id, Direction::Forward)?;
        let (Outcome::Done { evidence, .. } | Outcome::Failed { evidence: Some(evidence), .. }) = outcome else {
            return None;
        };
        let matrix = evidence.facts.get(matrix::FACT).and_then(Matrix::read).map(|matrix| picture::html(&matrix));
        let charts = evidence.facts.get(chart::FACT).and_then(Charts::read).map(|charts| chart::html(&charts));
        matrix.or(charts)
    };
    state.plan.steps().map(|step| of(&step.id)).collect()
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = include_str!("report.css");
