//! Texts with placeholders: `[ROLLBACK INITIATED] ${run.title}`.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgrunbook_document::VarValue;
use pgrunbook_engine::Scene;
use pgrunbook_engine::way_back::shown;

/// A subject and a text, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    subject: Vec<Part>,
    text: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `${name}`
    Value(String),
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("its subject is more than one line")]
    Subject,
    #[error("it begins with no line `Subject: ...` and an empty one")]
    NoSubject,
    #[error("a `${{` in it has no `}}` in its line")]
    Open,
    #[error("it speaks of `{name}`, which is neither a variable of the runbook nor one of {NAMES}")]
    Unknown { name: String },
    #[error("it speaks of `update_due`, and no update is promised: `update_every` with the occasion promises one")]
    NoPromise,
    #[error(
        "it speaks of `{name}`, and the runbook declares no time in which a way back is to end: `rollback_within` in its `toml runbook`"
    )]
    NoLimit { name: String },
}

/// What every run has.
const NAMES: &str =
    "run.id, run.title, environment, operator, reason, failed_step, update_due, rollback_within, rollback_due";

impl Template {
    /// Reads a subject and a text.
    ///
    /// # Errors
    /// A subject of several lines, which could become headers of a mail; a placeholder that does not end.
    pub fn parse(subject: &str, text: &str) -> Result<Self, TemplateError> {
        if subject.chars().any(char::is_control) {
            return Err(TemplateError::Subject);
        }
        Ok(Self { subject: parts(subject)?, text: parts(text.trim_end())? })
    }

    /// Reads a file as mails are written down: `Subject: ...`, an empty line, the text.
    ///
    /// # Errors
    /// As [`Template::parse`]; and if there is no subject.
    pub fn of_file(file: &str) -> Result<Self, TemplateError> {
        let (head, text) = file.split_once("\n\n").ok_or(TemplateError::NoSubject)?;
        let subject = head.strip_prefix("Subject:").ok_or(TemplateError::NoSubject)?;
        Self::parse(subject.trim(), text)
    }

    /// Subject and text of a scene. The subject is one line, whatever the values hold.
    ///
    /// # Errors
    /// If it speaks of what the scene does not have.
    pub fn render(&self, scene: &Scene) -> Result<(String, String), TemplateError> {
        let subject = render(&self.subject, scene)?;
        let subject = subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Ok((subject, render(&self.text, scene)?))
    }
}

fn parts(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            // `$${` stands for itself.
            plain.push_str(before);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find(['}', '\n']).filter(|end| inside[*end..].starts_with('}')).ok_or(TemplateError::Open)?;
        parts.push(Part::Text(std::mem::take(&mut plain)));
        parts.push(Part::Value(inside[..end].trim().to_owned()));
        rest = &inside[end + 1..];
    }
    plain.push_str(rest);
    parts.push(Part::Text(plain));
    Ok(parts)
}

fn render(parts: &[Part], scene: &Scene) -> Result<String, TemplateError> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Value(name) => text.push_str(&value(name, scene)?),
        }
    }
    Ok(text)
}

fn value(name: &str, scene: &Scene) -> Result<String, TemplateError> {
    let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    Ok(match name {
        "run.id" => scene.run.clone(),
        "run.title" => scene.title.clone(),
        "environment" => scene.environment.clone(),
        "operator" => scene.operator.clone(),
        "reason" => scene.reason.clone().unwrap_or_else(|| "no reason was given".to_owned()),
        "failed_step" => said(&scene.failed_step),
        "update_due" => clock_time(scene.update_due.ok_or(TemplateError::NoPromise)?),
        "rollback_within" => shown(scene.rollback_within.ok_or_else(|| no_limit(name))?),
        "rollback_due" => clock_time(scene.rollback_due.ok_or_else(|| no_limit(name))?),
        name => match scene.variables.get(name) {
            Some(VarValue::Text(text)) => text.clone(),
            Some(VarValue::List(values)) => values.join(", "),
            None => return Err(TemplateError::Unknown { name: name.to_owned() }),
        },
    })
}

fn no_limit(name: &str) -> TemplateError {
    TemplateError::NoLimit { name: name.to_owned() }
}

/// `12:15 UTC`: what is promised is minutes away.
fn clock_time(at: Timestamp) -> String {
    let mut text = String::new();
    let _ = write!(text, "{}", at.strftime("%H:%M UTC"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        Scene {
            run: "20261121-120000-abcd".to_owned(),
            title: "Housekeeping".to_owned(),
            reason: Some("p95 doubled\nBcc: eve@example.com".to_owned()),
            rollback_within: Some(std::time::Duration::from_secs(300)),
            rollback_due: Some("2026-11-21T12:05:00Z".parse().unwrap()),
            update_due: Some("2026-11-21T12:15:00Z".parse().unwrap()),
            variables: [("impact".to_owned(), VarValue::Text("ingest stands still".to_owned()))].into(),
            ..Scene::default()
        }
    }

    fn rendered(subject: &str, text: &str) -> Result<(String, String), TemplateError> {
        Template::parse(subject, text)?.render(&scene())
    }

    #[test]
    fn placeholders_are_replaced_and_unknown_ones_named() {
        let (subject, text) =
            rendered("[ROLLBACK] ${run.title}", "${ impact }, step ${failed_step}; next at ${update_due}; $${kept}\n")
                .unwrap();
        assert_eq!(subject, "[ROLLBACK] Housekeeping");
        assert_eq!(text, "ingest stands still, step none; next at 12:15 UTC; ${kept}");
        let why = rendered("x", "${impcat}").unwrap_err().to_string();
        assert!(
            why.starts_with("it speaks of `impcat`, which is neither a variable of the runbook nor one of run.id"),
            "{why}"
        );
        assert_eq!(rendered("x", "${impact"), Err(TemplateError::Open));
        assert_eq!(rendered("x", "${\nimpact}"), Err(TemplateError::Open));
        let (_, eta) = rendered("x", "ETA: ${rollback_due}, ${rollback_within} after it turned back").unwrap();
        assert_eq!(eta, "ETA: 12:05 UTC, 5 min after it turned back");
        let unlimited = Scene { rollback_within: None, rollback_due: None, ..scene() };
        let why = Template::parse("x", "${rollback_due}").unwrap().render(&unlimited).unwrap_err().to_string();
        assert!(why.starts_with("it speaks of `rollback_due`, and the runbook declares no time"), "{why}");
        let unpromised = Scene { update_due: None, ..scene() };
        assert_eq!(Template::parse("x", "${update_due}").unwrap().render(&unpromised), Err(TemplateError::NoPromise));
    }

    #[test]
    fn subject_is_one_line_whatever_it_is_made_of() {
        assert_eq!(rendered("hello\r\nBcc: eve@example.com", ""), Err(TemplateError::Subject));
        let (subject, _) = rendered("failed: ${reason}", "").unwrap();
        assert_eq!(subject, "failed: p95 doubled Bcc: eve@example.com");
    }

    #[test]
    fn file_begins_with_its_subject() {
        let template = Template::of_file("Subject: [X] ${run.title}\n\nStatus: ${reason}\n").unwrap();
        assert_eq!(template, Template::parse("[X] ${run.title}", "Status: ${reason}").unwrap());
        assert_eq!(Template::of_file("Status\n\nSubject: x"), Err(TemplateError::NoSubject));
    }
}
