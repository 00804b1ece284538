//! Verify files: groups of statements, each led by what it is expected to answer, each rolled back.
//!
//! A group begins at a `-- expect:` or `-- as:` line that follows a statement, and ends before the next.

use pgrunbook_document::expectation::Expectation;
use pgrunbook_document::parse_expectation;
use pgrunbook_document::sql::split;
use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::{PgError, Session};

use super::chain::Script;
use super::runner::chain_error;
use crate::sql::{Judge, Question, ask};

/// Statements with what their last one must answer.
#[derive(Debug, PartialEq)]
struct Group {
    /// From 1.
    line: usize,
    role: Option<String>,
    expectations: Vec<Expectation>,
    text: String,
}

/// Runs a verify file.
///
/// # Errors
/// If a group does not answer as expected; nothing it did stays.
pub async fn run(session: &Session, script: &Script, cancel: &Cancel) -> Result<(), StepError> {
    let content = String::from_utf8(script.read().map_err(chain_error)?)
        .map_err(|_| StepError::unusable("not-text", format!("{} is not UTF-8", script.shown)))?;
    for group in groups(content.trim_start_matches('\u{feff}')).map_err(|(line, why)| {
        StepError::unusable("bad-expectation", format!("{}, line {line}: {why}", script.shown))
    })? {
        let statements = split(&group.text).statements;
        let last = statements.last().map_or("", |last| last.text(&group.text));
        let mut judge = Judge::new(&group.expectations, last);
        let question = Question {
            read_only: false,
            role: group.role.as_deref(),
            timeout: None,
            text: &group.text,
            constraints: true,
        };
        let answered = ask(session, &question, &mut judge, cancel).await.map_err(PgError::into_step_error)?;
        let place = format!("{}, line {}", script.shown, group.line);
        if answered.before {
            let why = answered.raised.map_or_else(String::new, |raised| raised.message);
            return Err(StepError::failed("verification", format!("{place}: {why}")));
        }
        if let Err(sentence) = judge.verdict(answered.raised().as_ref()) {
            return Err(StepError::failed("verification", format!("{place}: {sentence}"))
                .help("the migration stays applied: mend what is wrong with a new one, or take it back"));
        }
    }
    Ok(())
}

/// A statement of a verify file.
pub(crate) struct Asked {
    /// From 1, in the file.
    pub line: usize,
    pub role: Option<String>,
    pub text: String,
}

/// Every statement of a verify file by itself; none of a file that is none.
pub(crate) fn asked(text: &str) -> Vec<Asked> {
    let of = |group: &Group| -> Vec<Asked> {
        let one = |statement: &pgrunbook_document::sql::Statement| Asked {
            line: group.line + statement.line - 1,
            role: group.role.clone(),
            text: statement.text(&group.text).to_owned(),
        };
        split(&group.text).statements.iter().map(one).collect()
    };
    groups(text.trim_start_matches('\u{feff}')).unwrap_or_default().iter().flat_map(of).collect()
}

fn groups(text: &str) -> Result<Vec<Group>, (usize, String)> {
    let mut groups: Vec<Group> = Vec::new();
    // Directives before the first statement of a group.
    let mut leading = true;
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let directive = line.trim().strip_prefix("--").map(str::trim).and_then(|comment| comment.split_once(':'));
        let directive = directive.filter(|(word, _)| matches!(*word, "expect" | "as"));
        if let Some((word, value)) = directive {
            if !leading || groups.is_empty() {
                groups.push(Group { line: line_number, role: None, expectations: Vec::new(), text: String::new() });
                leading = true;
            }
            let group = groups.last_mut().expect("one was pushed");
            if word == "as" {
                group.role = Some(value.trim().to_owned());
            } else {
                let expectation = parse_expectation(value.trim()).map_err(|why| (line_number, why.to_owned()))?;
                group.expectations.push(expectation);
            }
            // Its lines are the file's.
            group.text.push('\n');
            continue;
        }
        let trimmed = line.trim();
        let says_nothing = trimmed.is_empty() || trimmed.starts_with("--");
        if groups.is_empty() && !says_nothing {
            groups.push(Group { line: line_number, role: None, expectations: Vec::new(), text: String::new() });
        }
        if let Some(group) = groups.last_mut() {
            group.text.push_str(line);
            group.text.push('\n');
            leading &= says_nothing;
        }
    }
    groups.retain(|group| !split(&group.text).statements.is_empty());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_begin_at_directives_and_hold_several_statements() {
        let text = "-- Words.\n-- expect: error 42501\n-- as: app\nSELECT 1;\nSELECT 2;\n\n-- More words.\n-- expect: 0 rows\nSELECT 3;\n";
        let groups = groups(text).unwrap();
        let shown: Vec<_> = groups
            .iter()
            .map(|group| {
                (group.line, group.role.as_deref(), group.expectations.len(), split(&group.text).statements.len())
            })
            .collect();
        assert_eq!(shown, [(2, Some("app"), 1, 2), (8, None, 1, 1)]);
    }

    #[test]
    fn statements_are_told_at_their_lines() {
        let text =
            "-- Words.\n\n-- expect: 1 row\n-- as: app\nSELECT 1;\nSELECT\n  2;\n-- expect: 0 rows\n\nSELECT 3;\n";
        let told: Vec<_> = asked(text).into_iter().map(|one| (one.line, one.role, one.text)).collect();
        let app = Some("app".to_owned());
        let wanted = [(5, app.clone(), "SELECT 1"), (6, app, "SELECT\n  2"), (10, None, "SELECT 3")];
        assert_eq!(told, wanted.map(|(line, role, text)| (line, role, text.to_owned())));
    }

    #[test]
    fn statements_without_directives_must_only_run() {
        assert_eq!(groups("SELECT 1;\n").unwrap().len(), 1);
        assert_eq!(groups("-- nothing\n").unwrap(), []);
        assert_eq!(groups("-- expect: perhaps\nSELECT 1;").unwrap_err().0, 1);
    }
}
