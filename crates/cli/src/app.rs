//! What every command begins with: the surroundings, the project, the runbook.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use pgrunbook_document::{Format, Runbook, Severity, VarValue, lint, parse, render};
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::{ConnectOptions, ConnectSpec};
use pgrunbook_steps::open::connect_options;
use pgrunbook_steps::secret::Reference;
use pgrunbook_steps::typed::quoted;
use pgrunbook_steps::{Opened, Project, Surroundings, Workplace, open, registry};
use serde_json::json;

use crate::args::{Global, Output};
use crate::console::{self, put};
use crate::failure::Failure;
use crate::signals;

/// A call of the program.
pub struct App {
    pub global: Global,
    pub surroundings: Surroundings,
}

impl App {
    /// Reads the environment, once.
    pub fn new(global: Global) -> Self {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let var = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        let surroundings = Surroundings {
            home: var("HOME").map(PathBuf::from),
            user: var("USER").or_else(|| var("LOGNAME")).or_else(own_name),
            host: host.or_else(|| var("HOSTNAME")).unwrap_or_else(|| "localhost".to_owned()),
            pid: std::process::id(),
            cwd: std::env::current_dir().unwrap_or_default(),
            env,
        };
        Self { global, surroundings }
    }

    /// The project's folder.
    pub fn root(&self) -> PathBuf {
        match &self.global.project {
            Some(folder) => self.surroundings.cwd.join(folder),
            None => Project::find(&self.surroundings.cwd).unwrap_or_else(|| self.surroundings.cwd.clone()),
        }
    }

    pub fn project(&self) -> Result<Project, Failure> {
        Ok(Project::load(&self.root(), self.global.environment.as_deref())?)
    }

    pub async fn open(&self) -> Result<Opened, Failure> {
        Ok(open(self.project()?, &self.surroundings, self.global.principal.as_deref()).await?)
    }

    /// A workplace without a journal: what is compared with the target itself needs none.
    pub fn workplace(&self) -> Result<Workplace, Failure> {
        let project = self.project()?;
        let places = pgrunbook_steps::open::places(&project, &self.surroundings);
        Ok(Workplace::new(
            project.root.clone(),
            self.surroundings.clone(),
            Default::default(),
            places,
            &project.environment.name,
            false,
        )
        .with_notices(project.notices))
    }

    /// Who acts.
    pub fn operator(&self) -> String {
        let user = self.surroundings.user.as_deref().unwrap_or("unknown");
        self.global.principal.clone().unwrap_or_else(|| format!("{user}@{}", self.surroundings.host))
    }

    /// A result: a text for people, or one JSON object.
    pub fn say(&self, text: &str, value: &serde_json::Value) {
        match self.global.format {
            Output::Json => put(&value.to_string()),
            _ => put(text),
        }
    }

    /// A report that was rendered in the form that was asked for. As JSON it is one line, like all the rest.
    pub fn report(&self, text: &str) {
        let line = match self.global.format {
            Output::Json => serde_json::from_str::<serde_json::Value>(text).ok(),
            _ => None,
        };
        match line {
            Some(value) => put(&value.to_string()),
            // A closed pipe is no error.
            None => drop(std::io::stdout().write_all(text.as_bytes())),
        }
    }

    /// A line of a long command.
    pub fn tell(&self, line: &str) {
        match self.global.format {
            Output::Json => put(&json!({ "type": "line", "text": line }).to_string()),
            _ => put(&format!("  {line}")),
        }
    }

    /// A line that is not the command's result.
    pub fn aside(&self, line: &str) {
        if self.global.format != Output::Json {
            console::aside(&format!("  {line}"));
        }
    }

    /// Asked by the signals that [`signals::heed`] names.
    pub fn cancel_on_signals(&self) -> Cancel {
        let cancel = Cancel::default();
        signals::heed(&cancel, |_| {});
        cancel
    }

    /// A server: a target's name, a reference to a URL, or a URL.
    pub fn server(&self, workplace: &Workplace, text: &str) -> Result<ConnectOptions, Failure> {
        let reference = Reference::parse(text);
        let is_name = !reference.is_secret() && !text.contains("://") && !text.contains('=');
        // The project says which targets there are.
        if is_name || workplace.places().contains_key(text) {
            return Ok(workplace.postgres(text)?.clone());
        }
        let value = workplace.secret(&reference)?;
        // A URL may hold a password.
        let origin = if reference.is_secret() { reference.shown() } else { "the command line".to_owned() };
        Ok(connect_options(&ConnectSpec::Given { text: value, origin }, &self.surroundings)?)
    }

    /// In a protected environment changes go through a runbook, with its gates, approvals and evidence.
    pub fn refuse_if_protected(&self, command: &str, step: &str) -> Result<(), Failure> {
        let environment = self.project()?.environment;
        if !environment.protected {
            return Ok(());
        }
        let message =
            format!("`{command}` is refused in {}, which is protected; nothing was touched", environment.name);
        Err(Failure::unusable("protected", message)
            .help(format!("run it as a step of a runbook: {step}; there it is approved, recorded and can go back")))
    }

    /// The options that a command must be given again to mean the same: a shell reads them as they were meant.
    pub fn again(&self) -> String {
        let project = self.global.project.as_ref().map(|path| path.display().to_string());
        let options = [
            ("--project", project.as_ref()),
            ("--environment", self.global.environment.as_ref()),
            ("--as", self.global.principal.as_ref()),
        ];
        options.iter().filter_map(|(name, value)| Some(format!(" {name} {}", quoted((*value)?)))).collect()
    }

    /// Whether somebody sits at a terminal and can be asked.
    pub fn is_interactive(&self) -> bool {
        self.global.format == Output::Human && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Whether colours may be printed to standard output.
    pub fn colour(&self) -> bool {
        self.global.format == Output::Human
            && !self.global.no_color
            && self.surroundings.var("NO_COLOR").is_none()
            && std::io::stdout().is_terminal()
    }

    pub fn lint_format(&self) -> Format {
        match self.global.format {
            Output::Human | Output::Plain | Output::Junit | Output::Markdown => Format::Human { colour: self.colour() },
            Output::Json => Format::Json,
            Output::Github => Format::Github,
            Output::Sarif => Format::Sarif,
        }
    }

    /// Reads a runbook, and refuses one with errors.
    ///
    /// Its path is kept relative to the project, so that the plan is the same on every machine.
    pub fn runbook(&self, path: &Path) -> Result<Runbook, Failure> {
        let full = self.surroundings.cwd.join(path);
        let text = std::fs::read_to_string(&full)
            .map_err(|error| Failure::unusable("file", format!("{} cannot be read: {error}", path.display())))?;
        let root = self.root();
        let shown = full.strip_prefix(&root).unwrap_or(path).display().to_string();
        let parsed = parse(&shown, &text, &loader(&full), registry::vocabulary());
        let found = lint(&parsed, registry::vocabulary());
        let errors: Vec<_> = found.into_iter().filter(|one| one.severity == Severity::Error).collect();
        if errors.is_empty() {
            return Ok(parsed.runbook);
        }
        let count = if errors.len() == 1 { "an error".to_owned() } else { format!("{} errors", errors.len()) };
        let mut failure = Failure::unusable("document", format!("{shown} has {count}; nothing was touched"));
        failure.report = render(&errors, &parsed.runbook.sources, Format::Human { colour: self.colour() });
        Err(failure)
    }
}

/// Reads included files, relative to the runbook.
pub fn loader(runbook: &Path) -> impl Fn(&str) -> Result<String, String> {
    let folder = runbook.parent().map(Path::to_path_buf).unwrap_or_default();
    move |path| std::fs::read_to_string(folder.join(path)).map_err(|error| format!("{path} cannot be read: {error}"))
}

/// `--var name=value`.
pub fn variables(given: &[String]) -> Result<BTreeMap<String, VarValue>, Failure> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), VarValue::Text(value.to_owned()))),
            None => Err(Failure::unusable("variable", format!("`{text}` is not NAME=VALUE"))),
        })
        .collect()
}

/// The operating system's name of the user, where the environment has none.
fn own_name() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}
