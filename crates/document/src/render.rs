//! Findings as people and programs read them.
//!
//! A line that holds a literal secret is never shown, only named: the finding would otherwise spread what it warns of.

use std::fmt::Write as _;
use std::str::FromStr;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};
use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::Source;

/// The forms of a lint report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// With the place in the Markdown.
    Human { colour: bool },
    /// An array of objects.
    Json,
    /// Workflow commands: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
    Github,
    /// SARIF 2.1.0: <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.
    Sarif,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" | "plain" => Ok(Self::Human { colour: false }),
            "json" => Ok(Self::Json),
            "github" => Ok(Self::Github),
            "sarif" => Ok(Self::Sarif),
            other => Err(format!("`{other}` is not a format: human, json, github or sarif")),
        }
    }
}

/// Rules whose finding is a secret.
const SECRET: &str = "literal-secret";

/// The report. `sources` are the runbook's own file and its includes ([`crate::Runbook::sources`]).
pub fn render(found: &[Diagnostic], sources: &[Source], format: Format) -> String {
    match format {
        Format::Human { colour } => found.iter().map(|one| human(one, sources, colour)).collect(),
        Format::Json => {
            let all: Vec<Value> = found.iter().map(|one| object(one, sources)).collect();
            pretty(&Value::Array(all))
        }
        Format::Github => found.iter().map(|one| github(one, sources)).collect(),
        Format::Sarif => sarif(found, sources),
    }
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Where a finding stands: path, line and column from 1, and those of its end.
struct Place<'a> {
    path: &'a str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

/// The place of a finding; none if it is about no source.
fn placed<'a>(one: &Diagnostic, sources: &'a [Source]) -> Option<Place<'a>> {
    let source = sources.get(one.span.file)?;
    let (line, column) = position(&source.text, one.span.start);
    let (end_line, end_column) = position(&source.text, one.span.end);
    Some(Place { path: &source.path, line, column, end_line, end_column })
}

/// Line and column (in characters) of a byte, from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn human(one: &Diagnostic, sources: &[Source], colour: bool) -> String {
    let severity = match one.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning | Severity::Unknown => miette::Severity::Warning,
        Severity::Note => miette::Severity::Advice,
    };
    let mut shown = MietteDiagnostic::new(one.message.clone()).with_code(one.code).with_severity(severity);
    if let Some(help) = &one.help {
        shown = shown.with_help(help.clone());
    }
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_links(false);
    let mut out = String::new();
    let source = sources.get(one.span.file).filter(|_| one.code != SECRET);
    let written = match source {
        Some(source) => {
            let label = LabeledSpan::new(one.label.clone(), one.span.start, one.span.end - one.span.start);
            let report = miette::Report::new(shown.with_label(label))
                .with_source_code(NamedSource::new(&source.path, source.text.clone()));
            handler.render_report(&mut out, report.as_ref())
        }
        None => {
            let message = match placed(one, sources) {
                Some(Place { path, line, .. }) => format!("{path}, line {line}: {}", one.message),
                None => one.message.clone(),
            };
            handler.render_report(&mut out, &MietteDiagnostic { message, ..shown })
        }
    };
    if written.is_err() {
        // The handler gives up on places that it cannot show; the finding must not get lost.
        if let Some(Place { path, line, column, .. }) = placed(one, sources) {
            let _ = write!(out, "{path}:{line}:{column}: ");
        }
        let _ = writeln!(out, "{}", one.message);
    }
    out.push('\n');
    out
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Unknown => "unknown",
        Severity::Note => "note",
    }
}

fn object(one: &Diagnostic, sources: &[Source]) -> Value {
    let place = placed(one, sources);
    let place = place.as_ref();
    json!({
        "code": one.code,
        "severity": word(one.severity),
        "message": one.message,
        "help": one.help,
        "path": place.map(|place| place.path),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "end_line": place.map(|place| place.end_line),
        "end_column": place.map(|place| place.end_column),
    })
}

fn github(one: &Diagnostic, sources: &[Source]) -> String {
    let command = match one.severity {
        Severity::Note => "notice",
        Severity::Unknown => "warning",
        Severity::Warning | Severity::Error => word(one.severity),
    };
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let help = one.help.as_ref().map_or_else(String::new, |help| format!("\n{help}"));
    let place = placed(one, sources).map_or_else(String::new, |Place { path, line, column, end_line, .. }| {
        format!("file={},line={line},col={column},endLine={end_line},", property(path))
    });
    format!("::{command} {place}title={}::{}\n", property(one.code), data(&format!("{}{help}", one.message)),)
}

fn sarif(found: &[Diagnostic], sources: &[Source]) -> String {
    let mut codes: Vec<&str> = found.iter().map(|one| one.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| json!({ "id": code })).collect();
    let results: Vec<Value> = found
        .iter()
        .map(|one| {
            let text = match &one.help {
                Some(help) => format!("{}. {help}", one.message),
                None => one.message.clone(),
            };
            // What was looked at and could not be decided is "open", and has no level (SARIF 2.1.0, 3.27.9 and 3.27.10).
            let (kind, level) = match one.severity {
                Severity::Unknown => ("open", "none"),
                severity => ("fail", word(severity)),
            };
            let mut result = json!({
                "ruleId": one.code,
                "kind": kind,
                "level": level,
                "message": { "text": text },
            });
            if let Some(place) = placed(one, sources) {
                result["locations"] = json!([{
                    "physicalLocation": {
                        "artifactLocation": { "uri": place.path },
                        "region": {
                            "startLine": place.line,
                            "startColumn": place.column,
                            "endLine": place.end_line,
                            "endColumn": place.end_column,
                        },
                    },
                }]);
            }
            result
        })
        .collect();
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "pgrunbook", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    fn sources() -> Vec<Source> {
        vec![Source { path: "RUNBOOK.md".to_owned(), text: "# A\n\n- [x] é done\nPASSWORD 'hunter2'\n".to_owned() }]
    }

    fn ticked() -> Diagnostic {
        Diagnostic::error("ticked-item", Span { file: 0, start: 7, end: 10 }, "the file never carries state")
            .label("ticked")
            .help("write `[ ]`")
    }

    fn secret() -> Diagnostic {
        Diagnostic::error(SECRET, Span { file: 0, start: 31, end: 38 }, "a literal password")
    }

    #[test]
    fn people_see_the_place() {
        insta::assert_snapshot!(render(&[ticked()], &sources(), Format::Human { colour: false }), @r"
        ticked-item

          × the file never carries state
           ╭─[RUNBOOK.md:3:3]
         2 │ 
         3 │ - [x] é done
           ·   ─┬─
           ·    ╰── ticked
         4 │ PASSWORD 'hunter2'
           ╰────
          help: write `[ ]`
        ");
    }

    #[test]
    fn secrets_are_named_and_never_shown() {
        for format in [Format::Human { colour: false }, Format::Json, Format::Github, Format::Sarif] {
            let report = render(&[secret()], &sources(), format);
            assert!(!report.contains("hunter2"), "{report}");
            assert!(report.contains("RUNBOOK.md"), "{report}");
        }
    }

    #[test]
    fn programs_get_lines_and_columns_in_characters() {
        let json: Value = serde_json::from_str(&render(&[ticked()], &sources(), Format::Json)).unwrap();
        assert_eq!((json[0]["line"].as_u64(), json[0]["column"].as_u64()), (Some(3), Some(3)));
        assert_eq!(
            render(&[ticked()], &sources(), Format::Github),
            "::error file=RUNBOOK.md,line=3,col=3,endLine=3,title=ticked-item::the file never carries state%0Awrite `[ ]`\n"
        );
        let sarif: Value = serde_json::from_str(&render(&[ticked()], &sources(), Format::Sarif)).unwrap();
        assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "ticked-item");
        assert_eq!(sarif["runs"][0]["tool"]["driver"]["rules"][0]["id"], "ticked-item");
    }

    #[test]
    fn what_is_about_no_file_names_none() {
        let one = [Diagnostic { span: Span { file: usize::MAX, start: 0, end: 0 }, ..ticked() }];
        assert_eq!(
            render(&one, &sources(), Format::Github),
            "::error title=ticked-item::the file never carries state%0Awrite `[ ]`\n"
        );
        let json: Value = serde_json::from_str(&render(&one, &sources(), Format::Json)).unwrap();
        assert_eq!((&json[0]["path"], &json[0]["line"]), (&Value::Null, &Value::Null));
        let sarif: Value = serde_json::from_str(&render(&one, &sources(), Format::Sarif)).unwrap();
        assert!(sarif["runs"][0]["results"][0].get("locations").is_none(), "{sarif}");
        let human = render(&one, &sources(), Format::Human { colour: false });
        assert!(human.contains("× the file never carries state") && !human.contains("line"), "{human}");
    }

    #[test]
    fn what_is_unknown_has_a_level_of_its_own() {
        let unknown = [Diagnostic { severity: Severity::Unknown, ..ticked() }];
        let json: Value = serde_json::from_str(&render(&unknown, &sources(), Format::Json)).unwrap();
        assert_eq!(json[0]["severity"], "unknown");
        assert!(render(&unknown, &sources(), Format::Github).starts_with("::warning file=RUNBOOK.md,"));
        let sarif: Value = serde_json::from_str(&render(&unknown, &sources(), Format::Sarif)).unwrap();
        let result = &sarif["runs"][0]["results"][0];
        assert_eq!((result["kind"].as_str(), result["level"].as_str()), (Some("open"), Some("none")));
    }
}
