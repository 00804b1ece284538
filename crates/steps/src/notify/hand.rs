//! What a person says, outside of any step.

use jiff::Timestamp;
use pgrunbook_engine::notice::Notice;
use pgrunbook_engine::{Occasion, Scene, StepError};

use super::config::usual;
use super::messenger::Channels;
use super::template::Template;
use crate::workplace::Workplace;

/// What is to be said.
#[derive(Debug, Clone)]
pub enum Words {
    /// A person's own; without a subject, the usual one of an update.
    Own { subject: Option<String>, text: String },
    /// Those of a template of `pgrunbook.toml`, by its name.
    Template(String),
}

impl Words {
    /// Subject and text of a scene.
    ///
    /// # Errors
    /// If there is no such template, or it speaks of what the scene does not have.
    pub fn said(&self, workplace: &Workplace, scene: &Scene) -> Result<(String, String), StepError> {
        let unusable = |why: String| StepError::unusable("template", why);
        match self {
            Self::Own { subject, text } => {
                let usual = || usual(Occasion::Update).render(scene).map(|(subject, _)| subject).unwrap_or_default();
                let subject = subject.clone().unwrap_or_else(usual);
                // As a template's: one line.
                let subject = subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                Ok((subject, text.clone()))
            }
            Self::Template(name) => {
                let template: &Template = workplace.notices().template(name).map_err(unusable)?;
                template.render(scene).map_err(|error| unusable(format!("template `{name}`: {error}")))
            }
        }
    }
}

/// Composes a person's notices: one for each address of the channel.
///
/// # Errors
/// If there is no such channel or template, or the template does not fit.
pub fn by_hand(
    workplace: &Workplace,
    scene: &Scene,
    channel: &str,
    words: &Words,
    now: Timestamp,
) -> Result<Vec<Notice>, StepError> {
    let (subject, text) = words.said(workplace, scene)?;
    let key = format!("{}/update/{}", scene.run, now.as_nanosecond());
    Channels::new(workplace.clone())
        .notices(channel, Occasion::Update, &key, &subject, &text)
        .map_err(|why| StepError::unusable("channel", why))
}
