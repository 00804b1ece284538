//! What stands in the way of a transfer, or a person should know before it: one value for every kind of source.

use std::fmt::Write as _;

/// What a finding means for the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The transfer is refused until it is mended.
    Refuse,
    /// The same, unless the step names this word under `accept`.
    Consent(&'static str),
    /// The transfer goes on; somebody may be sorry later.
    Warn,
    /// How it is, and stays.
    Note,
}

impl Severity {
    /// The word that people read and JSON holds: `refuse`, `consent`, `warn`, `note`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Consent(_) => "consent",
            Self::Warn => "warn",
            Self::Note => "note",
        }
    }

    /// The word that the step has to name, where one is needed.
    pub fn consent(self) -> Option<&'static str> {
        match self {
            Self::Consent(name) => Some(name),
            Self::Refuse | Self::Warn | Self::Note => None,
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Stable name of what it is: `no-identity`.
    pub code: &'static str,
    /// A table, role, setting, ... with the word before it where the name alone does not say: `table public.notes`.
    pub object: String,
    /// What was found, in a sentence. Never holds a value of a row or a secret.
    pub what: String,
    /// What to do, where something can be done: SQL, a setting, a field of the step.
    pub remedy: String,
    /// The first few places, by their keys, with what stands there but not its value, for the person who has to correct
    /// them: shown in the table, and left out of what is kept.
    pub excerpt: String,
}

impl Finding {
    /// A finding without a remedy.
    pub fn new(severity: Severity, code: &'static str, object: impl Into<String>, what: impl Into<String>) -> Self {
        Self { severity, code, object: object.into(), what: what.into(), remedy: String::new(), excerpt: String::new() }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The same, with excerpts of rows.
    #[must_use]
    pub fn excerpt(mut self, excerpt: impl Into<String>) -> Self {
        self.excerpt = excerpt.into();
        self
    }
}

/// Turns the findings that the step consents to into notes, and puts the worst first. Returns the words that no finding
/// asked for: a misspelt consent must not pass unseen.
pub fn accept(findings: &mut [Finding], accepted: &[String]) -> Vec<String> {
    let asked: Vec<&str> = findings.iter().filter_map(|one| one.severity.consent()).collect();
    let unused = accepted.iter().filter(|word| !asked.contains(&word.as_str())).cloned().collect();
    for finding in findings.iter_mut() {
        if let Severity::Consent(name) = finding.severity
            && accepted.iter().any(|word| word == name)
        {
            finding.severity = Severity::Note;
            let _ = write!(finding.what, " (accepted: {name})");
        }
    }
    findings.sort_by(|a, b| (a.severity, a.code, &a.object).cmp(&(b.severity, b.code, &b.object)));
    unused
}

/// The findings that stop the transfer: refusals, and consents that were not given.
pub fn blocking(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|one| matches!(one.severity, Severity::Refuse | Severity::Consent(_)))
}

/// The findings for a terminal: a line each with severity, code and object, then what, excerpts and the remedy, set in.
pub fn to_table(findings: &[Finding]) -> String {
    let word = |one: &Finding| match one.severity.consent() {
        Some(name) => format!("consent {name}"),
        None => one.severity.word().to_owned(),
    };
    let width = |cell: &dyn Fn(&Finding) -> usize| findings.iter().map(cell).max().unwrap_or(0);
    let (first, second) = (width(&|one| word(one).chars().count()), width(&|one| one.code.chars().count()));
    let mut text = String::new();
    for one in findings {
        let _ = writeln!(text, "{:first$}  {:second$}  {}", word(one), one.code, one_line(&one.object));
        let _ = writeln!(text, "    {}", set_in(&one.what));
        if !one.excerpt.is_empty() {
            let _ = writeln!(text, "    {}", set_in(&one.excerpt));
        }
        if !one.remedy.is_empty() {
            let _ = writeln!(text, "    -> {}", set_in(&one.remedy));
        }
    }
    text
}

/// The findings as a JSON array of objects with `severity`, `consent` (or null), `code`, `object`, `what`, `remedy`: what
/// a journal keeps, so without the excerpts.
pub fn to_json(findings: &[Finding]) -> serde_json::Value {
    findings
        .iter()
        .map(|one| {
            serde_json::json!({
                "severity": one.severity.word(),
                "consent": one.severity.consent(),
                "code": one.code,
                "object": one.object,
                "what": one.what,
                "remedy": one.remedy,
            })
        })
        .collect()
}

/// Names may hold line breaks; a line of the table may not.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
}

fn set_in(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<Finding> {
        vec![
            Finding::new(Severity::Note, "view", "view v", "It is made anew."),
            Finding::new(Severity::Consent("unlogged"), "unlogged", "table \"a\nb\"", "No WAL.").remedy("SET LOGGED"),
            Finding::new(Severity::Refuse, "no-identity", "table t", "No key."),
        ]
    }

    #[test]
    fn a_consent_makes_a_note_and_the_worst_comes_first() {
        let mut findings = three();
        let unused = accept(&mut findings, &["unlogged".to_owned(), "unloged".to_owned()]);
        assert_eq!(unused, ["unloged"]);
        let order: Vec<_> = findings.iter().map(|one| (one.severity, one.code)).collect();
        assert_eq!(order, [(Severity::Refuse, "no-identity"), (Severity::Note, "unlogged"), (Severity::Note, "view")]);
        assert_eq!(findings[1].what, "No WAL. (accepted: unlogged)");
        assert_eq!(blocking(&findings).count(), 1);
    }

    #[test]
    fn without_consent_it_blocks() {
        let mut findings = three();
        accept(&mut findings, &[]);
        assert_eq!(blocking(&findings).count(), 2);
    }

    #[test]
    fn the_table_has_a_line_for_each_and_names_keep_to_their_line() {
        assert_eq!(
            to_table(&three()[1..]),
            "consent unlogged  unlogged     table \"a\\nb\"\n    No WAL.\n    -> SET LOGGED\n\
             refuse            no-identity  table t\n    No key.\n"
        );
    }

    #[test]
    fn excerpts_are_shown_and_not_kept() {
        let one = Finding::new(Severity::Refuse, "nul", "column t.a", "1 of 2.").excerpt("id = 5: text 'x'");
        assert_eq!(
            to_table(std::slice::from_ref(&one)),
            "refuse  nul  column t.a\n    1 of 2.\n    id = 5: text 'x'\n"
        );
        assert!(!to_json(&[one]).to_string().contains("id = 5"));
    }

    #[test]
    fn json_holds_every_field() {
        let json = to_json(&three()[1..2]);
        let expected = serde_json::json!([{"severity": "consent", "consent": "unlogged", "code": "unlogged",
            "object": "table \"a\nb\"", "what": "No WAL.", "remedy": "SET LOGGED"}]);
        assert_eq!(json, expected);
    }
}
