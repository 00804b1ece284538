//! A command or a statement of the prose as a step.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::shell;
use crate::sql::{self, Class};
use crate::vocabulary::Vocabulary;

use super::expected::{self, Expected};
use super::{Part, pattern};

/// What a text says and what to do about it.
type Why = (&'static str, &'static str);

const UNDO: &str = "one-way: decide how this is undone";
const UNDO_DOUBT: Why = (
    "the text does not say how it is undone",
    "replace `one-way: ...` by the id of an undo block or of a backup, `down`, or `none: why`",
);
const ROWS_DOUBT: Why =
    ("the text does not say what the result must be", "replace `rows >= 0` by what must hold, such as `0 rows`");
const CODE_DOUBT: Why = ("the SQLSTATE is a guess", "run it once and write the code that the server answers");
const RESTORE_DOUBT: Why = (
    "it restores the backup that this run made",
    "say in `valid` until when that loses nothing, as in `valid = \"until step switch-traffic\"`",
);
const VAGUE_DOUBT: Why = ("the file that the text names may match none or several", RESTORE_DOUBT.1);

/// A step of the proposal, before it has its id.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) kind: &'static str,
    /// Words for its id.
    pub(super) name: String,
    /// What the person has to decide about it.
    pub(super) doubt: Option<Why>,
    /// Where its command stands in the block, where that is known.
    pub(super) place: Option<Range<usize>>,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Sql {
        role: Option<String>,
        expected: Option<Expected>,
        statement: String,
    },
    /// Keys with their values as TOML, beside the id.
    Toml(Vec<(&'static str, String)>),
}

/// What a piece of text is.
#[derive(Debug)]
pub(super) enum Found {
    Steps(Vec<Step>),
    /// Nothing that can be a step. An empty reason: nothing needs to be said.
    Not(Why),
}

const NOTHING: Found = Found::Not(("", ""));

impl Step {
    /// The same, from this place in the block.
    pub(super) fn at(self, place: Range<usize>) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Sets what the query must answer; a statement that must fail becomes a probe.
    pub(super) fn expect(&mut self, wanted: Expected) {
        let Body::Sql { expected, statement, .. } = &mut self.body else { return };
        self.doubt = wanted.guessed.map(|_| CODE_DOUBT);
        if !is_read_only(statement) {
            self.kind = "probe";
        } else if !wanted.is_error() {
            self.kind = "check";
        }
        *expected = Some(wanted);
    }

    /// The fenced block.
    pub(super) fn block(&self, id: &str, vocabulary: Vocabulary<'_>) -> String {
        let mut block = String::new();
        match &self.body {
            Body::Sql { role, expected, statement } => {
                let role = role.as_ref().map(|role| format!("    as: {role}")).unwrap_or_default();
                let _ = writeln!(block, "```sql step\n-- {}: {id}    target: main{role}", self.kind);
                match expected {
                    Some(expected) => {
                        let _ = writeln!(block, "-- expect: {}", expected.text);
                    }
                    None if self.kind == "apply" => {
                        let _ = writeln!(block, "-- undo: {UNDO}");
                    }
                    None => block.push_str("-- expect: rows >= 0\n"),
                }
                let _ = writeln!(block, "{statement};\n```");
            }
            Body::Toml(fields) => {
                let _ = writeln!(block, "```toml step\n{} = \"{id}\"", self.kind);
                let spec = vocabulary.find(self.kind);
                let known = |key: &str| {
                    ["target", "undo"].contains(&key)
                        || spec.is_some_and(|spec| spec.fields.iter().any(|field| field.name == key))
                };
                for (key, value) in fields.iter().filter(|(key, _)| known(key)) {
                    let _ = writeln!(block, "{key} = {value}");
                }
                block.push_str("```\n");
            }
        }
        block
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A check that a role exists.
pub(super) fn role_exists(role: &str, login: bool) -> Step {
    let login = if login { " AND rolcanlogin" } else { "" };
    Step {
        kind: "check",
        name: format!("role {role} exists"),
        doubt: None,
        place: None,
        body: Body::Sql {
            role: None,
            expected: Some(Expected { text: "1 row".to_owned(), guessed: None }),
            statement: format!("SELECT rolname FROM pg_roles WHERE rolname = '{role}'{login}"),
        },
    }
}

/// The steps of a query that stands in a sentence.
pub(super) fn query(text: &str, about: &str, expected: Option<Expected>) -> Vec<Step> {
    let about = about.split('`').next().unwrap_or(about);
    match statements(text, about, expected) {
        Found::Steps(steps) if steps.iter().all(|step| step.kind == "check") => steps,
        _ => Vec::new(),
    }
}

/// Whether a line begins with a word that only SQL begins with in capitals.
pub(super) fn begins_like_sql(line: &str) -> bool {
    [
        "SELECT ",
        "INSERT INTO ",
        "UPDATE ",
        "DELETE FROM ",
        "DROP ",
        "CREATE ",
        "ALTER ",
        "GRANT ",
        "REVOKE ",
        "TRUNCATE ",
    ]
    .iter()
    .any(|word| line.starts_with(word))
}

/// The steps of a text of SQL: each query a check, all changes together one apply.
pub(super) fn statements(text: &str, about: &str, expected: Option<Expected>) -> Found {
    if let Some(meta) = text.trim_start().strip_prefix('\\') {
        return describe(meta, about);
    }
    let split = sql::split(text);
    if let Some(problem) = split.problems.first() {
        return Found::Not(match &problem.kind {
            sql::ProblemKind::Meta { .. } => {
                ("this SQL uses a command of psql", "replace it by SQL; `pgrunbook lint` names what to use")
            }
            _ => ("this SQL is not complete", "close its strings and comments"),
        });
    }
    let mut role: Option<String> = None;
    let mut steps: Vec<Step> = Vec::new();
    for statement in &split.statements {
        let text = statement.text(text);
        if statement.copy_data.is_some() || has_placeholder(text) {
            return Found::Not((
                "this SQL cannot run as it is written",
                "fill in its placeholders, or keep them as variables of the runbook",
            ));
        }
        if let Some(set) = set_role(text) {
            role = set;
            continue;
        }
        if matches!(sql::classify(text), Class::Control(_)) {
            continue;
        }
        if is_read_only(text) {
            if calls_effect(text) {
                return Found::Not((
                    "this query acts: it is not run",
                    "write an `apply` step with its undo if it belongs to the runbook",
                ));
            }
            steps.push(sql_step("check", about, role.clone(), text));
        } else {
            match steps.last_mut() {
                Some(Step { kind: "apply", body: Body::Sql { statement, role: before, .. }, .. })
                    if *before == role =>
                {
                    statement.push_str(";\n");
                    statement.push_str(text);
                }
                _ => steps.push(sql_step("apply", about, role.clone(), text)),
            }
        }
    }
    if let (Some(last), Some(expected)) = (steps.last_mut(), expected) {
        last.expect(expected);
    }
    if steps.is_empty() { NOTHING } else { Found::Steps(steps) }
}

fn sql_step(kind: &'static str, about: &str, role: Option<String>, statement: &str) -> Step {
    Step {
        kind,
        name: about.to_owned(),
        doubt: Some(if kind == "apply" { UNDO_DOUBT } else { ROWS_DOUBT }),
        place: None,
        body: Body::Sql { role, expected: None, statement: undented(statement) },
    }
}

/// A statement without the indentation that all lines behind its first have in common.
fn undented(statement: &str) -> String {
    let indent = statement
        .lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start_matches(' ').len())
        .min()
        .unwrap_or(0);
    let mut lines = statement.lines();
    let first = lines.next().unwrap_or("").to_owned();
    lines.fold(first, |text, line| text + "\n" + line.get(indent..).unwrap_or("").trim_end())
}

/// The role of a `SET ROLE`; `Some(None)` for `RESET ROLE`.
fn set_role(statement: &str) -> Option<Option<String>> {
    static SET: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"(?is)^set\s+(?:local\s+|session\s+)?role\s+(?:to\s+)?"?([a-z_][a-z0-9_]*)"?$"#));
    static RESET: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?is)^reset\s+role$|^set\s+role\s+none$"));
    if RESET.is_match(statement) {
        return Some(None);
    }
    SET.captures(statement).map(|found| Some(found[1].to_owned()))
}

fn is_read_only(statement: &str) -> bool {
    static WRITES: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:insert|update|delete|merge)\b|\binto\b"));
    let first = statement.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty()).unwrap_or("");
    match first.to_ascii_lowercase().as_str() {
        "select" | "show" | "table" | "values" => true,
        "with" => !WRITES.is_match(statement),
        _ => false,
    }
}

/// Whether a query calls a function of PostgreSQL that changes something.
fn calls_effect(statement: &str) -> bool {
    static EFFECTS: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)\b(?:pg_terminate_backend|pg_cancel_backend|pg_reload_conf|pg_rotate_logfile|pg_switch_wal|pg_promote|pg_wal_replay_\w+|pg_create_\w+|pg_drop_\w+|pg_replication_\w+|pg_logical_slot_\w+|pg_advisory_\w+|nextval|setval|set_config|dblink\w*|lo_\w+|pg_notify)\s*\(",
        )
    });
    EFFECTS.is_match(statement)
}

/// A `\d name` as the query of the catalog that answers the same.
fn describe(meta: &str, about: &str) -> Found {
    let mut words = meta.split_whitespace();
    let command = words.next().unwrap_or("");
    match (command.trim_end_matches('+'), words.next()) {
        ("d", Some(name)) if name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) => {
            let statement = format!(
                "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute\nWHERE attrelid = \
                 '{name}'::regclass AND attnum > 0 AND NOT attisdropped"
            );
            let mut step = sql_step("check", about, None, &statement);
            step.expect(Expected { text: "rows >= 1".to_owned(), guessed: None });
            Found::Steps(vec![step])
        }
        _ => Found::Not(("a backslash command runs only in psql", sql::advice(command))),
    }
}

/// The steps of a shell command.
pub(super) fn command(command: &str, about: &str, backup: Option<&str>) -> Found {
    let words = shell::words(command);
    let Some(program) = words.iter().position(|word| !is_assignment(&word.text)) else { return NOTHING };
    match words[program].text.rsplit('/').next().unwrap_or("") {
        "psql" => psql(&words, about),
        "watch" => watched(&words, about),
        "for" => migrations_in_loop(command, about),
        "pg_dump" => Found::Steps(vec![Step {
            kind: "backup",
            name: "backup".to_owned(),
            doubt: None,
            place: None,
            body: Body::Toml(vec![("target", toml_text("main")), ("verify", toml_text("list"))]),
        }]),
        "pg_restore" => restore(&words, about, backup),
        "curl" => http(&words, about),
        "systemctl" | "service" | "supervisorctl" | "docker" | "kubectl" | "helm" => shell_step(command, about),
        program if program.ends_with(".sh") => shell_step(command, about),
        _ => NOTHING,
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        || word == "sudo"
}

/// `psql ... -c "SQL"`, `psql ... -f FILE`.
fn psql(words: &[shell::Word], about: &str) -> Found {
    let mut steps = Vec::new();
    for pair in words.windows(2) {
        match (pair[0].text.as_str(), pair[1].text.as_str()) {
            ("-c" | "--command", sql) => match statements(sql, about, grepped(words)) {
                Found::Steps(found) => steps.extend(found),
                Found::Not(why) => return Found::Not(why),
            },
            ("-f" | "--file", file) => match file_step(file, about) {
                Found::Steps(found) => steps.extend(found),
                Found::Not(why) => return Found::Not(why),
            },
            _ => {}
        }
    }
    if steps.is_empty() { NOTHING } else { Found::Steps(steps) }
}

/// `... 2>&1 | grep -q "permission denied"`: the error that is waited for.
fn grepped(words: &[shell::Word]) -> Option<Expected> {
    let grep = words.iter().position(|word| word.text == "grep")?;
    let wanted = words[grep + 1..].iter().take_while(|word| !word.operator).find(|word| !word.text.starts_with('-'))?;
    let lower = wanted.text.to_lowercase();
    (lower.contains("denied") || lower.contains("error") || lower.contains("violates"))
        .then(|| expected::error(&wanted.text))
        .map(|found| if lower.contains("permission denied") { Expected { guessed: None, ..found } } else { found })
}

/// `watch -n 10 "psql ... -c ..."`: the command that is repeated, once.
fn watched(words: &[shell::Word], about: &str) -> Found {
    match words.iter().find(|word| word.text.contains("psql ")) {
        Some(inner) => command(&inner.text, about, None),
        None => NOTHING,
    }
}

/// A file that psql runs: a migration if it looks like one.
fn file_step(file: &str, about: &str) -> Found {
    if has_placeholder(file) || file.contains(['$', '*', '?', '[', '<', '{']) {
        return Found::Not((
            "the file that is run here is not named",
            "a rollback must be able to run as it is written: name the file, or use the chain's own down files",
        ));
    }
    let (folder, name) = file.rsplit_once('/').unwrap_or((".", file));
    let version = name.split(['_', '-', '.']).next().filter(|first| first.bytes().all(|byte| byte.is_ascii_digit()));
    let repeatable = ["view", "polic", "function", "trigger"].iter().any(|word| folder.contains(word));
    if version.is_none_or(str::is_empty) && !folder.contains("migrat") && !repeatable {
        return Found::Not((
            "what this file does is not known here",
            "put its statements into `sql step` blocks, or make it a migration of a chain",
        ));
    }
    Found::Steps(vec![migrate(about, folder, version)])
}

fn migrate(about: &str, chain: &str, to: Option<&str>) -> Step {
    let mut fields = vec![("target", toml_text("main")), ("chain", toml_text(chain))];
    fields.extend(to.map(|to| ("to", toml_text(to))));
    fields.push(("undo", toml_text(UNDO)));
    Step { kind: "migrate", name: about.to_owned(), doubt: Some(UNDO_DOUBT), place: None, body: Body::Toml(fields) }
}

/// `for file in $(ls FOLDER/*.sql | sort); do psql ... -f "$file"; done`.
fn migrations_in_loop(command: &str, about: &str) -> Found {
    static FOLDER: LazyLock<Regex> = LazyLock::new(|| pattern(r"([A-Za-z0-9_./-]+)/\*\.sql"));
    match FOLDER.captures(command).filter(|_| command.contains("psql")) {
        Some(found) => Found::Steps(vec![migrate(about, &found[1], None)]),
        None => NOTHING,
    }
}

/// `pg_restore --list` verifies the backup before it; anything else restores.
fn restore(words: &[shell::Word], about: &str, backup: Option<&str>) -> Found {
    if words.iter().any(|word| word.text == "--list" || word.text == "-l") {
        return Found::Steps(Vec::new());
    }
    let Some(backup) = backup else {
        return Found::Not((
            "no step of this runbook makes the backup that is restored here",
            "add a `backup` step, then `restore = \"...\"` with `from` naming it",
        ));
    };
    let vague = words.iter().any(|word| word.text.contains(['*', '?', '[', '<']));
    Found::Steps(vec![Step {
        kind: "restore",
        name: about.to_owned(),
        doubt: Some(if vague { VAGUE_DOUBT } else { RESTORE_DOUBT }),
        place: None,
        body: Body::Toml(vec![
            ("target", toml_text("main")),
            ("from", toml_text(backup)),
            ("undo", toml_text("one-way: a restore replaces what is there")),
        ]),
    }])
}

fn http(words: &[shell::Word], about: &str) -> Found {
    let writes = words.iter().any(|word| ["-d", "--data", "-X", "--request", "-F", "-T"].contains(&word.text.as_str()));
    let url = words.iter().map(|word| word.text.as_str()).find(|word| word.starts_with("http"));
    match url.filter(|url| !writes && !has_placeholder(url) && !url.contains('$')) {
        Some(url) => Found::Steps(vec![Step {
            kind: "http",
            name: about.to_owned(),
            doubt: None,
            place: None,
            body: Body::Toml(vec![("get", toml_text(url)), ("expect_status", "200".to_owned())]),
        }]),
        None => Found::Not((
            "this request is not only read, or its address is not complete",
            "write an `http` step with the whole URL, or a `sh` step",
        )),
    }
}

fn shell_step(command: &str, about: &str) -> Found {
    if has_placeholder(command) {
        return Found::Not(("this command cannot run as it is written", "fill in its placeholders"));
    }
    Found::Steps(vec![Step {
        kind: "sh",
        name: about.to_owned(),
        doubt: Some(UNDO_DOUBT),
        place: None,
        body: Body::Toml(vec![("run", toml_text(command.trim())), ("undo", toml_text(UNDO))]),
    }])
}

/// Whether a text has a hole that a person must fill: `[TIMESTAMP]`, `<source_id>`.
fn has_placeholder(text: &str) -> bool {
    static HOLE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\[[A-Z][A-Z_ ]+\]|\[[a-z]+_[a-z_]+\]|<[a-z][a-z_ -]*>|\{\{|YOUR_"));
    HOLE.is_match(text)
}

/// A `pg_restore --list` right behind a `pg_dump` leaves nothing: its comment stays as text only where it says more.
pub(super) fn settle_backups(parts: &mut Vec<Part>) {
    let mut after_backup = false;
    parts.retain(|part| match part {
        Part::Step(step) => {
            after_backup = step.kind == "backup";
            true
        }
        Part::Prose(text) => !(after_backup && text.to_lowercase().starts_with("verify backup")),
        Part::Left { .. } => true,
    });
}
