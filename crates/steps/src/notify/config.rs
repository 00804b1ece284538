//! `[channels]`, `[templates]` and `[environments.NAME.notify]` of `pgrunbook.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::Mailbox;
use pgrunbook_document::parse_duration;
use pgrunbook_engine::{Direction, Occasion};
use serde::Deserialize;

use super::template::Template;
use crate::secret::Reference;

/// Where a project's people are told, what, and of which occasions: of one environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notices {
    pub(super) channels: BTreeMap<String, Channel>,
    pub(super) templates: BTreeMap<String, Template>,
    pub(super) wishes: BTreeMap<Occasion, Wish>,
}

/// Where people listen: one or several addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Channel {
    pub webhook: Option<Reference>,
    pub slack: Option<Reference>,
    pub mail: Option<Mail>,
}

/// A mail server, and who writes to whom.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mail {
    pub server: Reference,
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
}

/// What is told of itself on an occasion.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wish {
    pub channel: String,
    pub template: Template,
    /// Updates are promised that often, and are overdue that much later.
    pub updates: Option<(Duration, Duration)>,
}

/// `[channels.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelTable {
    webhook: Option<String>,
    slack: Option<String>,
    smtp: Option<String>,
    from: Option<String>,
    #[serde(default)]
    to: Vec<String>,
}

/// `[templates.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateTable {
    subject: Option<String>,
    text: Option<String>,
    /// Relative to the project.
    file: Option<PathBuf>,
}

/// `[environments.NAME.notify]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotifyTable {
    started: Option<WishTable>,
    waiting: Option<WishTable>,
    failed: Option<WishTable>,
    rollback: Option<WishTable>,
    rolled_back: Option<WishTable>,
    completed: Option<WishTable>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WishTable {
    channel: String,
    template: Option<String>,
    update_every: Option<String>,
    overdue_after: Option<String>,
}

/// What is wrong, and the word in the file at which it is wrong.
pub(crate) struct Mistake {
    pub word: String,
    pub message: String,
}

fn mistake(word: &str, message: impl Into<String>) -> Mistake {
    Mistake { word: word.to_owned(), message: message.into() }
}

impl Notices {
    /// Puts together what the file says.
    pub(crate) fn of(
        root: &Path,
        channels: BTreeMap<String, ChannelTable>,
        templates: BTreeMap<String, TemplateTable>,
        notify: NotifyTable,
    ) -> Result<Self, Mistake> {
        let mut notices = Self::default();
        for (name, table) in channels {
            let read = channel(&name, table)
                .map_err(|why| mistake(&format!("channels.{name}"), format!("channel `{name}`: {why}")))?;
            notices.channels.insert(name, read);
        }
        for (name, table) in templates {
            let read = template(root, table)
                .map_err(|why| mistake(&format!("templates.{name}"), format!("template `{name}`: {why}")))?;
            notices.templates.insert(name, read);
        }
        let NotifyTable { started, waiting, failed, rollback, rolled_back, completed } = notify;
        let wishes = [
            (Occasion::Started, started),
            (Occasion::Waiting, waiting),
            (Occasion::Failed, failed),
            (Occasion::Rollback, rollback),
            (Occasion::RolledBack, rolled_back),
            (Occasion::Completed, completed),
        ];
        for (occasion, table) in wishes {
            if let Some(table) = table {
                let wish = notices.wish(occasion, table)?;
                notices.wishes.insert(occasion, wish);
            }
        }
        Ok(notices)
    }

    fn wish(&self, occasion: Occasion, table: WishTable) -> Result<Wish, Mistake> {
        let WishTable { channel, template, update_every, overdue_after } = table;
        self.channel(&channel).map_err(|why| mistake(&channel, why))?;
        let template = match template {
            Some(name) => self.template(&name).map_err(|why| mistake(&name, why))?.clone(),
            None => usual(occasion),
        };
        let duration = |text: &str| match parse_duration(text).filter(|duration| !duration.is_zero()) {
            Some(duration) => Ok(duration),
            None => Err(mistake(text, format!("`{text}` is no duration, such as `15m`"))),
        };
        let every = update_every.as_deref().map(duration).transpose()?;
        let grace = overdue_after.as_deref().map(duration).transpose()?;
        let updates = match every {
            Some(_) if !matches!(occasion, Occasion::Started | Occasion::Rollback) => {
                let why = "`update_every` goes with `started` and `rollback`: nothing else lasts";
                return Err(mistake("update_every", why));
            }
            // A third more than was promised, if nothing is said: five minutes to the usual fifteen.
            Some(every) => Some((every, grace.unwrap_or(every / 3))),
            None if grace.is_some() => {
                return Err(mistake("overdue_after", "`overdue_after` goes with `update_every`"));
            }
            None => None,
        };
        Ok(Wish { channel, template, updates })
    }

    /// A channel by its name, or why there is none.
    pub(super) fn channel(&self, name: &str) -> Result<&Channel, String> {
        let known = self.channels.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.channels.get(name).ok_or_else(|| match known.as_str() {
            "" => format!("there is no channel `{name}`: pgrunbook.toml declares none"),
            known => format!("there is no channel `{name}`: pgrunbook.toml has {known}"),
        })
    }

    /// A template by its name, or why there is none.
    pub(super) fn template(&self, name: &str) -> Result<&Template, String> {
        let known = self.templates.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.templates.get(name).ok_or_else(|| match known.as_str() {
            "" => format!("there is no template `{name}`: pgrunbook.toml declares none"),
            known => format!("there is no template `{name}`: pgrunbook.toml has {known}"),
        })
    }

    /// The occasion that promises updates while a run goes this way.
    pub(super) fn promising(&self, direction: Direction) -> Option<&Wish> {
        let occasion = match direction {
            Direction::Forward => Occasion::Started,
            Direction::Back => Occasion::Rollback,
        };
        self.wishes.get(&occasion).filter(|wish| wish.updates.is_some())
    }

    /// Whether nothing is ever told of itself.
    pub fn is_silent(&self) -> bool {
        self.channels.is_empty()
    }
}

fn channel(name: &str, table: ChannelTable) -> Result<Channel, String> {
    // It stands in headers.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        return Err("its name must be of letters, digits, `-` and `_`".to_owned());
    }
    let ChannelTable { webhook, slack, smtp, from, to } = table;
    let [webhook, slack, smtp] = [webhook, slack, smtp].map(|text| text.map(|text| Reference::parse(&text)));
    if slack.as_ref().is_some_and(|slack| !slack.is_secret()) {
        return Err("the address of a Slack webhook is a secret: name it by `env:`, `file:` or `cmd:`".to_owned());
    }
    if let Some(Reference::Plain(url)) = &smtp
        && url.contains('@')
    {
        return Err("a password stands in the file: name the URL by `env:`, `file:` or `cmd:`".to_owned());
    }
    let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|_| format!("`{text}` is no mail address"));
    let mail = match (smtp, from, to.as_slice()) {
        (Some(server), Some(from), [_, ..]) => {
            Some(Mail { server, from: mailbox(&from)?, to: to.iter().map(mailbox).collect::<Result<_, _>>()? })
        }
        (None, None, []) => None,
        _ => return Err("mail needs all of `smtp`, `from` and `to`".to_owned()),
    };
    if webhook.is_none() && slack.is_none() && mail.is_none() {
        return Err("it needs an address: `webhook`, `slack` or `smtp`".to_owned());
    }
    Ok(Channel { webhook, slack, mail })
}

fn template(root: &Path, table: TemplateTable) -> Result<Template, String> {
    match table {
        TemplateTable { subject: Some(subject), text: Some(text), file: None } => {
            Template::parse(&subject, &text).map_err(|error| error.to_string())
        }
        TemplateTable { subject: None, text: None, file: Some(file) } => {
            let shown = file.display();
            let text = std::fs::read_to_string(root.join(&file))
                .map_err(|error| format!("{shown} cannot be read: {error}"))?;
            Template::of_file(&text).map_err(|error| format!("{shown}: {error}"))
        }
        _ => Err("it needs `subject` and `text`, or a `file`".to_owned()),
    }
}

/// What is said where the project has no words of its own.
pub(super) fn usual(occasion: Occasion) -> Template {
    let (subject, text) = match occasion {
        Occasion::Started => ("[STARTED] ${run.title}", "${operator} has begun it in ${environment}."),
        Occasion::Waiting => ("[WAITING] ${run.title}", "It waits in ${environment}: ${reason}"),
        Occasion::Failed => (
            "[FAILED] ${run.title}",
            "It stopped in ${environment}: ${reason}\nThe step that failed last: ${failed_step}. What was done before stays.",
        ),
        Occasion::Rollback => ("[ROLLBACK INITIATED] ${run.title}", "It is rolled back in ${environment}: ${reason}"),
        Occasion::RolledBack => ("[ROLLED BACK] ${run.title}", "It is rolled back to the end in ${environment}."),
        Occasion::Completed => ("[COMPLETED] ${run.title}", "It is done in ${environment}."),
        Occasion::Overdue => (
            "[UPDATE OVERDUE] ${run.title}",
            "An update was promised and has not come. It is still under way in ${environment}; next word by ${update_due}.",
        ),
        Occasion::Update => ("[UPDATE] ${run.title}", "It is under way in ${environment}."),
    };
    let text = format!("{text}\n\nRun ${{run.id}}, by ${{operator}}");
    Template::parse(subject, &text).expect("written above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrunbook_engine::Scene;

    fn read(text: &str) -> Result<Notices, String> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            channels: BTreeMap<String, ChannelTable>,
            #[serde(default)]
            templates: BTreeMap<String, TemplateTable>,
            #[serde(default)]
            notify: NotifyTable,
        }
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        Notices::of(Path::new("/"), file.channels, file.templates, file.notify).map_err(|mistake| mistake.message)
    }

    const OPS: &str = "[channels.ops]\nwebhook = \"env:HOOK\"\n";

    #[test]
    fn mistakes_are_said_in_words() {
        for (text, why) in [
            ("[channels.ops]\n", "needs an address"),
            ("[channels.ops]\nslack = \"https://hooks.slack.com/services/T0/B0/x\"\n", "is a secret"),
            ("[channels.ops]\nsmtp = \"smtp://u:hunter2@mail\"\nfrom = \"a@b\"\nto = [\"c@d\"]\n", "a password stands"),
            ("[channels.ops]\nsmtp = \"env:SMTP\"\nfrom = \"a@b.c\"\n", "all of `smtp`, `from` and `to`"),
            ("[channels.ops]\nsmtp = \"env:S\"\nfrom = \"a@b\\r\\nBcc: x@y\"\nto = [\"c@d\"]\n", "is no mail address"),
            ("[channels.\"a b\"]\nwebhook = \"env:HOOK\"\n", "its name"),
            ("[templates.x]\nsubject = \"a\\nb\"\ntext = \"\"\n", "more than one line"),
            ("[templates.x]\nsubject = \"a\"\n", "needs `subject` and `text`"),
            ("[templates.x]\nfile = \"no/such\"\n", "no/such cannot be read"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(why) && !message.contains("hunter2"), "{text}: {message}");
        }
        for (wish, why) in [
            ("rollback = { channel = \"oops\" }", "there is no channel `oops`: pgrunbook.toml has ops"),
            ("rollback = { channel = \"ops\", template = \"x\" }", "there is no template `x`"),
            ("rollback = { channel = \"ops\", update_every = \"soon\" }", "`soon` is no duration"),
            ("completed = { channel = \"ops\", update_every = \"15m\" }", "goes with `started` and `rollback`"),
            ("rollback = { channel = \"ops\", overdue_after = \"5m\" }", "goes with `update_every`"),
            ("rolledback = { channel = \"ops\" }", "unknown field"),
        ] {
            let message = read(&format!("{OPS}[notify]\n{wish}\n")).unwrap_err();
            assert!(message.contains(why), "{wish}: {message}");
        }
    }

    #[test]
    fn updates_are_promised_while_it_lasts() {
        let notices =
            read(&format!("{OPS}[notify]\nrollback = {{ channel = \"ops\", update_every = \"15m\" }}\n")).unwrap();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(notices.promising(Direction::Back).unwrap().updates, Some((minutes(15), minutes(5))));
        assert_eq!(notices.promising(Direction::Forward), None);
    }

    #[test]
    fn every_occasion_has_words() {
        let scene = Scene {
            title: "Housekeeping".to_owned(),
            update_due: Some(jiff::Timestamp::UNIX_EPOCH),
            ..Scene::default()
        };
        for occasion in [
            Occasion::Started,
            Occasion::Waiting,
            Occasion::Failed,
            Occasion::Rollback,
            Occasion::RolledBack,
            Occasion::Completed,
            Occasion::Overdue,
            Occasion::Update,
        ] {
            let (subject, text) = usual(occasion).render(&scene).unwrap();
            assert!(subject.contains("Housekeeping") && text.contains("Run "), "{subject}: {text}");
        }
    }
}
