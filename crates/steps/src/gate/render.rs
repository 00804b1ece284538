//! A review as people and programs read it.

use std::fmt::Write as _;

use pgrunbook_document::{Diagnostic, Format, Severity, Source, Span};
use serde_json::{Value, json};

use super::trial::{is_heavy, rank};
use super::{Outcome, Planned, Review, Size, Tried};

/// The forms of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Human {
        colour: bool,
    },
    /// One object: version 1.
    Json,
    /// Workflow commands of GitHub.
    Github,
    /// SARIF 2.1.0.
    Sarif,
    /// JUnit's XML, as GitLab and others read it: <https://docs.gitlab.com/ci/testing/unit_test_reports/>.
    Junit,
    /// A comment for a pull request, with the plan folded in.
    Markdown,
}

/// The review in a form.
pub fn render(review: &Review, form: Form) -> String {
    let listed = |format| pgrunbook_document::render(&review.found, &review.sources, format);
    match form {
        Form::Human { colour } => format!("{}{}", listed(Format::Human { colour }), summary(review)),
        Form::Json => object(review),
        Form::Github => listed(Format::Github),
        Form::Sarif => sarif(review),
        Form::Junit => junit(review),
        Form::Markdown => markdown(review),
    }
}

/// Path and line of a finding, if it is about a file.
fn place<'a>(one: &Diagnostic, sources: &'a [Source]) -> Option<(&'a str, usize)> {
    let source = sources.get(one.span.file)?;
    let before = source.text.get(..one.span.start.min(source.text.len())).unwrap_or_default();
    Some((&source.path, before.matches('\n').count() + 1))
}

/// GitHub refuses a file in which one result has no place ("expected at least one location"), so that those have the project's file.
fn sarif(review: &Review) -> String {
    let mut sources = review.sources.clone();
    let mut found = review.found.clone();
    for one in found.iter_mut().filter(|one| one.span.file >= review.sources.len()) {
        one.span = Span { file: review.sources.len(), start: 0, end: 0 };
    }
    sources.push(Source { path: review.anchor.clone(), text: String::new() });
    pgrunbook_document::render(&found, &sources, Format::Sarif)
}

/// Of the whole review.
fn verdict(review: &Review) -> Outcome {
    match (review.passes(), review.is_unknown()) {
        (false, _) => Outcome::Failed,
        (true, true) => Outcome::Unknown,
        (true, false) => Outcome::Held,
    }
}

/// For programs.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "held",
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
        Outcome::Skipped => "skipped",
    }
}

fn counted(review: &Review) -> String {
    let number = |severity, word: &str| {
        let count = review.count(severity);
        format!("{count} {word}{}", if count == 1 { "" } else { "s" })
    };
    format!(
        "{}, {}, {} unknown",
        number(Severity::Error, "error"),
        number(Severity::Warning, "warning"),
        review.count(Severity::Unknown)
    )
}

/// What a migration does to what was there, a line each: a statement, and what it did below it.
fn effects(tried: &Tried) -> Vec<String> {
    let mut lines: Vec<String> = tried.unseen.iter().map(|why| format!("not seen: {why}")).collect();
    for act in &tried.acts {
        lines.push(format!("line {}: {}", act.line, act.statement));
        let size = |relation: &String| tried.sizes.get(relation);
        // Beside a stronger one a lock says nothing.
        let is_beside = |(relation, mode): &&(String, String)| {
            act.locks.iter().any(|(other, stronger)| other == relation && rank(stronger) > rank(mode))
        };
        for (relation, mode) in act.locks.iter().filter(|lock| !is_beside(lock)) {
            let there = size(relation).map_or_else(String::new, |size| format!(", {}", size.shown()));
            let used =
                size(relation).filter(|_| is_heavy(mode)).map_or_else(String::new, |size| format!("; {}", size.used()));
            lines.push(format!("  locks {relation}: {mode}{there}{used}"));
        }
        for (relations, what, after) in [(&act.rewrites, "writes", "anew"), (&act.scans, "reads", "from end to end")] {
            for relation in relations {
                let there = size(relation).map_or_else(String::new, |size| format!(": {}", size.shown()));
                lines.push(format!("  {what} {relation} {after}{there}"));
            }
        }
    }
    lines
}

fn summary(review: &Review) -> String {
    let mut out = String::new();
    for tried in &review.tried {
        let _ = writeln!(out, "  {} ({} ms)", tried.title, tried.took.as_millis());
        for line in effects(tried) {
            let _ = writeln!(out, "      {line}");
        }
    }
    for one in &review.plans {
        let _ = writeln!(out, "  plan of {}:{}, cost {:.0}", one.path, one.line, one.cost);
        for node in &one.nodes {
            let _ = writeln!(out, "      {node}");
        }
    }
    for check in &review.checks {
        let sign = match check.outcome {
            Outcome::Held => '✓',
            Outcome::Failed => '✗',
            Outcome::Unknown => '?',
            Outcome::Skipped => '·',
        };
        let _ = writeln!(out, "  {sign} {}: {}", check.name, check.said);
    }
    let verdict = match verdict(review) {
        Outcome::Failed => "Does not pass",
        Outcome::Unknown => "Nobody can tell",
        _ => "Passes",
    };
    let _ = writeln!(out, "{verdict}: {}; {:.1} s", counted(review), review.took.as_secs_f64());
    out
}

/// Version 1. A reader ignores members that it does not know.
fn object(review: &Review) -> String {
    let findings: Value =
        serde_json::from_str(&pgrunbook_document::render(&review.found, &review.sources, Format::Json))
            .unwrap_or_default();
    let tried: Vec<Value> = review
        .tried
        .iter()
        .map(|one| {
            let locks: Vec<Value> = one
                .locks
                .iter()
                .map(|(relation, mode)| {
                    let size = one.sizes.get(relation).map_or_else(|| json!({ "rows": null, "bytes": null }), Size::json);
                    let mut lock = json!({ "relation": relation, "mode": mode });
                    if let (Some(lock), Value::Object(size)) = (lock.as_object_mut(), size) {
                        lock.extend(size);
                    }
                    lock
                })
                .collect();
            let acts: Vec<Value> = one
                .acts
                .iter()
                .map(|act| {
                    let locks = act.locks.iter().map(|(relation, mode)| json!({ "relation": relation, "mode": mode }));
                    json!({
                        "line": act.line, "statement": act.statement, "locks": locks.collect::<Vec<_>>(),
                        "rewrites": act.rewrites, "scans": act.scans,
                    })
                })
                .collect();
            json!({
                "path": one.path, "title": one.title, "statements": acts, "locks": locks, "rewrites": one.rewrites, "scans": one.scans,
                "unseen": one.unseen, "ms": u64::try_from(one.took.as_millis()).unwrap_or(u64::MAX),
            })
        })
        .collect();
    let checks: Vec<Value> = review
        .checks
        .iter()
        .map(|check| {
            let made = matches!(check.outcome, Outcome::Held | Outcome::Failed);
            json!({ "name": check.name, "made": made, "outcome": word(check.outcome), "said": check.said })
        })
        .collect();
    let mut text = json!({
        "type": "review", "version": 1, "passes": review.passes(), "outcome": word(verdict(review)), "findings": findings, "plan": tried, "checks": checks,
        "server": review.server.as_ref().map(|server| json!({
            "version": server.version, "given": server.given.as_ref().map(ToString::to_string),
        })),
        "plans": review.plans.iter().map(plan).collect::<Vec<_>>(),
        "mend": review.drift.as_ref().map(|drift| drift.mend.script(false)).filter(|script| !script.is_empty()),
        "ms": u64::try_from(review.took.as_millis()).unwrap_or(u64::MAX),
    })
    .to_string();
    text.push('\n');
    text
}

fn plan(one: &Planned) -> Value {
    let scans = one.scans.iter().map(|(relation, rows)| json!({ "relation": relation, "rows": rows }));
    json!({ "path": one.path, "line": one.line, "cost": one.cost, "nodes": one.nodes, "scans": scans.collect::<Vec<_>>() })
}

/// For XML; what XML cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

fn junit(review: &Review) -> String {
    let mut cases = String::new();
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    for check in &review.checks {
        tests += 1;
        let said = escaped(&check.said);
        let inner = match check.outcome {
            Outcome::Held => String::new(),
            Outcome::Failed => {
                failures += 1;
                format!("<failure type=\"check\" message=\"{said}\"/>")
            }
            Outcome::Unknown => {
                errors += 1;
                format!("<error type=\"unknown\" message=\"{said}\"/>")
            }
            Outcome::Skipped => {
                skipped += 1;
                format!("<skipped message=\"{said}\"/>")
            }
        };
        let name = escaped(check.name);
        let _ = writeln!(cases, "    <testcase classname=\"review\" name=\"{name}\">{inner}</testcase>");
    }
    for tried in &review.tried {
        tests += 1;
        let _ = writeln!(
            cases,
            "    <testcase classname=\"migration\" name=\"{}\" time=\"{:.3}\"/>",
            escaped(&tried.title),
            tried.took.as_secs_f64()
        );
    }
    for one in &review.found {
        // What nobody can tell is, in JUnit's words, not a failure but an error of the test.
        let (element, count) = match one.severity {
            Severity::Error => ("failure", &mut failures),
            Severity::Unknown => ("error", &mut errors),
            Severity::Note | Severity::Warning => continue,
        };
        tests += 1;
        *count += 1;
        let named = match place(one, &review.sources) {
            Some((path, line)) => format!("name=\"{path}:{line}\" file=\"{path}\"", path = escaped(path)),
            None => format!("name=\"{}\"", escaped(&one.message)),
        };
        let _ = writeln!(
            cases,
            "    <testcase classname=\"{code}\" {named}><{element} type=\"{code}\" message=\"{message}\">{help}</{element}></testcase>",
            code = one.code,
            message = escaped(&one.message),
            help = escaped(one.help.as_deref().unwrap_or_default()),
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"pgrunbook review\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{:.3}\">\n{cases}  </testsuite>\n</testsuites>\n",
        review.took.as_secs_f64()
    )
}

/// For a cell of a table, or a line: nothing in it is markup.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            // A name behind it would be told.
            '@' => out.push_str("@\u{200b}"),
            c => out.push(c),
        }
    }
    out
}

/// A fence that nothing in the text ends.
fn fenced(language: &str, text: &str) -> String {
    let longest =
        text.lines().map(|line| line.trim_start().chars().take_while(|c| *c == '`').count()).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

/// Findings that a comment shows; a forge refuses one that is too long.
const SHOWN: usize = 50;

fn markdown(review: &Review) -> String {
    let sign = match verdict(review) {
        Outcome::Failed => "❌",
        Outcome::Unknown => "❓",
        _ => "✅",
    };
    let mut out = format!("<!-- pgrunbook review -->\n### {sign} Migrations: {}\n\n", counted(review));
    let told: Vec<&Diagnostic> = review.found.iter().filter(|one| one.severity != Severity::Note).collect();
    if !told.is_empty() {
        out.push_str("| | rule | where | what |\n| --- | --- | --- | --- |\n");
        for one in told.iter().take(SHOWN) {
            let place =
                place(one, &review.sources).map_or_else(String::new, |(path, line)| format!("{}:{line}", plain(path)));
            let sign = match one.severity {
                Severity::Error => "❌",
                Severity::Unknown => "❓",
                _ => "⚠️",
            };
            let _ = writeln!(out, "| {sign} | {} | {place} | {} |", one.code, plain(&one.message));
        }
        if told.len() > SHOWN {
            let _ = writeln!(out, "\nand {} more.", told.len() - SHOWN);
        }
        out.push('\n');
    }
    if !review.tried.is_empty() {
        let _ = writeln!(
            out,
            "<details><summary>Plan: {} migration(s), tried on {}</summary>\n",
            review.tried.len(),
            review.server.as_ref().map_or_else(|| "a throwaway server".to_owned(), |server| plain(&server.to_string()))
        );
        for tried in &review.tried {
            let _ = writeln!(out, "- **{}** ({} ms)", plain(&tried.title), tried.took.as_millis());
            for line in effects(tried) {
                let _ = writeln!(out, "  - {}", plain(&line));
            }
        }
        out.push_str("\n</details>\n\n");
    }
    if !review.plans.is_empty() {
        out.push_str("<details><summary>How the target would plan the smoke files</summary>\n\n");
        for one in &review.plans {
            let _ = writeln!(out, "{}:{}, cost {:.0}\n", plain(&one.path), one.line, one.cost);
            out.push_str(&fenced("", &one.nodes.join("\n")));
            out.push('\n');
        }
        out.push_str("</details>\n\n");
    }
    if let Some(drift) = review.drift.as_ref().filter(|drift| !drift.mend.is_empty()) {
        out.push_str("<details><summary>What would mend the target's drift</summary>\n\n");
        out.push_str(&fenced("sql", &drift.mend.script(false)));
        out.push_str("\n</details>\n\n");
    }
    out.push_str("<details><summary>Checks</summary>\n\n");
    for check in &review.checks {
        let sign = match check.outcome {
            Outcome::Held => "☑",
            Outcome::Failed => "❌",
            Outcome::Unknown => "❓",
            Outcome::Skipped => "☐",
        };
        let _ = writeln!(out, "- {sign} {}: {}", check.name, plain(&check.said));
    }
    out.push_str("\n</details>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_is_shown_and_not_done() {
        assert_eq!(plain("a|b <script> `x` @anna\nc"), "a\\|b &lt;script> \\`x\\` @\u{200b}anna c");
        assert_eq!(escaped("a<b>&\"\u{1}"), "a&lt;b&gt;&amp;&quot;");
        assert!(fenced("sql", "```\nx").starts_with("````sql\n"));
    }
}
