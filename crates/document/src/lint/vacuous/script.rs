//! Rules about commands whose exit status says the same whatever they found.
//!
//! A script is read as far as lists, pipelines, `if`, `for` and groups go, and then played through: once with a command that
//! succeeds, once with the same command failing. Where the script ends alike but prints other words, it is no gate; where it
//! passes because `grep` could read nothing (status 2) as it would because nothing matched (1), it proves no absence. A script
//! with anything else in it is left alone.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::model::{Block, Language};
use crate::shell;
use crate::vocabulary::KindSpec;

/// How many commands of a script are looked at beside those of the shell itself, so that no script takes long.
const COMMANDS: usize = 24;

/// How deep groups and conditions may stand in each other.
const DEPTH: usize = 16;

/// Looks at the command line of a step that has one, in a field `run` or as `argv` of a shell.
pub(super) fn look(block: &Block, kind: &KindSpec, found: &mut Vec<Diagnostic>) {
    if kind.language != Language::Toml || !kind.fields.iter().any(|field| field.name == "run") {
        return;
    }
    let Ok(table) = DeTable::parse(&block.text) else { return };
    let Some(line) = line(table.get_ref()) else { return };
    let Some(script) = Script::read(&line.text, line.errexit) else { return };
    let asked = |command: &Command| matches!(command.does, Does::SearchesFolder(_) | Does::Searches | Does::Other);
    for (index, command) in script.commands.iter().enumerate().filter(|(_, one)| asked(one)).take(COMMANDS) {
        let place = || block.locate(narrow(&block.text, line.range.clone(), &command.words));
        match script.verdict(index, line.success) {
            Verdict::PassesUnread(folder) => found.push(
                Diagnostic::warning(
                    "absence-by-grep",
                    place(),
                    format!(
                        "this passes too where `{folder}` is missing or cannot be read, or holds no file: `grep` then finds nothing \
                         either"
                    ),
                )
                .help(format!(
                    "show first that there is something to read, and let only status 1 pass: `find {folder} -type f | grep -q . || \
                     exit 3`, then the `grep` alone, with `expect_exit = 1`"
                )),
            ),
            Verdict::PassesAlways => found.push(
                Diagnostic::warning(
                    "swallowed-status",
                    place(),
                    format!(
                        "`{}` decides which words are printed, and the step succeeds with either: its status is swallowed",
                        command.words.first().map_or("", String::as_str)
                    ),
                )
                .help(
                    "let the command's own status end the step, without `&& echo ... || echo ...`; a statement that must be denied is \
                     a probe with `as:` and `-- expect: error 42501`",
                ),
            ),
            Verdict::MayFail => {}
        }
    }
}

/// The command line of a step.
struct Line {
    text: String,
    /// Where the value stands in the block's text, with its quotes.
    range: Range<usize>,
    /// Whether the shell is told to stop at the first command that fails.
    errexit: bool,
    /// The exit status that means success.
    success: i32,
}

fn line(table: &DeTable<'_>) -> Option<Line> {
    let success = match table.get("expect_exit").map(|value| value.get_ref()) {
        Some(DeValue::Integer(status)) => status.to_string().parse().ok()?,
        _ => 0,
    };
    if let Some(value) = table.get("run") {
        let DeValue::String(text) = value.get_ref() else { return None };
        return Some(Line { text: text.to_string(), range: value.span(), errexit: false, success });
    }
    let DeValue::Array(argv) = table.get("argv")?.get_ref() else { return None };
    let words: Vec<(&str, Range<usize>)> = argv
        .iter()
        .filter_map(|word| match word.get_ref() {
            DeValue::String(text) => Some((text.as_ref(), word.span())),
            _ => None,
        })
        .collect();
    let ((program, _), rest) = words.split_first()?;
    if !["sh", "bash", "dash", "ksh", "zsh"].contains(&base_name(program)) {
        return None;
    }
    let options = rest.iter().position(|(word, _)| word.starts_with('-') && word.ends_with('c'))?;
    let (text, range) = rest.get(options + 1)?;
    let errexit = rest[..=options].iter().any(|(word, _)| is_errexit(word));
    Some(Line { text: (*text).to_owned(), range: range.clone(), errexit, success })
}

/// `-e`, `-eu`, `-euo`, and `errexit` after an `-o`.
fn is_errexit(word: &str) -> bool {
    word == "errexit" || (word.starts_with('-') && !word.starts_with("--") && word.contains('e'))
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The line of a value on which all of a command's words stand, else the whole value.
fn narrow(text: &str, value: Range<usize>, words: &[String]) -> Range<usize> {
    let Some(raw) = text.get(value.clone()) else { return value };
    let mut at = value.start;
    for line in raw.split_inclusive('\n') {
        let start = at;
        at += line.len();
        if raw.len() > line.len() && words.iter().all(|word| line.contains(word.as_str())) {
            let blank = line.len() - line.trim_start().len();
            return start + blank..start + line.trim_end().len().max(blank);
        }
    }
    value
}

/// What can be said of a command in its script.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    MayFail,
    /// The script passes where this folder could not be read, and fails where something in it matches.
    PassesUnread(String),
    /// The script passes in either case, and prints other words.
    PassesAlways,
}

/// A script that was understood.
struct Script {
    list: List,
    /// Every simple command, in the order of the text.
    commands: Vec<Command>,
    errexit: bool,
}

/// A command without others in it.
struct Command {
    /// Its name and arguments, without assignments and redirections before, between and behind them.
    words: Vec<String>,
    does: Does,
}

/// What a command does, as far as it is known without running it.
enum Does {
    /// Part of the shell, and ends so.
    Ends(i32),
    /// Prints words for a person.
    Says,
    /// `exit`; `None`: with the status of the command before.
    Exit(Option<i32>),
    /// `set`, and whether it is `set -e`.
    Set(bool),
    /// `grep` and its like over this folder.
    SearchesFolder(String),
    /// `grep` and its like over anything else.
    Searches,
    Other,
}

type List = Vec<AndOr>;

/// Pipelines, each but the first with what joins it to those before.
type AndOr = Vec<(Join, Pipeline)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    And,
    Or,
}

struct Pipeline {
    negated: bool,
    parts: Vec<Node>,
}

enum Node {
    /// Its place in [`Script::commands`].
    Command(usize),
    /// `{ ...; }`, or the body of a `for`, of which one round is played.
    Group(List),
    /// Conditions with what follows them, and what follows if none holds.
    If(Vec<(List, List)>, List),
}

impl Script {
    fn read(text: &str, errexit: bool) -> Option<Self> {
        let mut reader = Reader { tokens: shell::tokens(text), at: 0, depth: 0, commands: Vec::new() };
        let list = reader.list()?;
        (reader.at == reader.tokens.len()).then_some(Self { list, commands: reader.commands, errexit })
    }

    /// What becomes of the script where one command ends well or badly and the others do as they should.
    fn verdict(&self, index: usize, success: i32) -> Verdict {
        let folder = match &self.commands[index].does {
            Does::SearchesFolder(folder) if !self.is_shown_before(index, folder) => Some(folder),
            Does::SearchesFolder(_) | Does::Searches | Does::Other => None,
            Does::Ends(_) | Does::Says | Does::Exit(_) | Does::Set(_) => return Verdict::MayFail,
        };
        if folder.is_none() && self.commands.iter().filter(|command| matches!(command.does, Does::Says)).count() < 2 {
            return Verdict::MayFail;
        }
        // Whether the other searches are to find something is not known: any may be how the script passes.
        for (folders, others) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
            let played = |status: i32| {
                play(self, &|other| match self.commands[other].does {
                    _ if other == index => status,
                    Does::SearchesFolder(_) => folders,
                    Does::Searches => others,
                    _ => 0,
                })
            };
            let (well, badly) = (played(0), played(1));
            if let Some(folder) = folder
                && well.status != success
                && played(2).status == success
            {
                return Verdict::PassesUnread(folder.clone());
            }
            let says_other = |one: &End, other: &End| one.said.iter().any(|said| !other.said.contains(said));
            if well.status == success
                && badly.status == success
                && says_other(&well, &badly)
                && says_other(&badly, &well)
            {
                return Verdict::PassesAlways;
            }
        }
        Verdict::MayFail
    }

    /// Whether a command before looks at a folder itself.
    fn is_shown_before(&self, index: usize, folder: &str) -> bool {
        self.commands[..index].iter().any(|command| {
            matches!(command.name(), "test" | "[" | "ls" | "find" | "stat" | "cd")
                && command.words.iter().any(|word| word.trim_end_matches('/') == folder.trim_end_matches('/'))
        })
    }
}

impl Command {
    /// A command of these words. `to_file`: whether what it prints goes to a file.
    fn new(words: Vec<String>, to_file: bool) -> Self {
        let argument = words.get(1);
        let does = match name(&words) {
            "exit" | "return" => Does::Exit(argument.and_then(|status| status.parse().ok())),
            "false" => Does::Ends(1),
            "true" | ":" | "" => Does::Ends(0),
            "echo" | "printf" if !to_file => Does::Says,
            "echo" | "printf" => Does::Ends(0),
            "set" => Does::Set(words.iter().skip(1).any(|word| is_errexit(word))),
            "grep" | "egrep" | "fgrep" | "zgrep" | "rg" => match searched_folder(&words) {
                Some(folder) => Does::SearchesFolder(folder.to_owned()),
                None => Does::Searches,
            },
            _ => Does::Other,
        };
        Self { words, does }
    }

    fn name(&self) -> &str {
        name(&self.words)
    }
}

/// The program's name, without its folder.
fn name(words: &[String]) -> &str {
    words.first().map_or("", |word| base_name(word))
}

/// The last folder that a search goes through, where it goes through folders and not only the one it stands in.
fn searched_folder(words: &[String]) -> Option<&str> {
    let arguments = words.get(1..)?;
    let is_option = |word: &&String| word.starts_with('-') && word.len() > 1;
    let recursive = |word: &String| match word.strip_prefix("--") {
        Some(long) => matches!(long, "recursive" | "dereference-recursive"),
        None => word.contains(['r', 'R']),
    };
    if name(words) != "rg" && !arguments.iter().filter(is_option).any(recursive) {
        return None;
    }
    // The pattern is the first; behind an `-e` it looks the same.
    let operands: Vec<&String> = arguments.iter().filter(|word| !is_option(word)).collect();
    let folder = operands.last().filter(|_| operands.len() > 1)?;
    (!matches!(folder.trim_end_matches('/'), "." | "")).then_some(folder)
}

/// How a script ended.
struct End {
    status: i32,
    /// Which commands have printed words.
    said: Vec<usize>,
}

/// Plays a script whose commands end with the statuses that `answer` gives.
fn play(script: &Script, answer: &dyn Fn(usize) -> i32) -> End {
    let mut play = Play { script, answer, errexit: script.errexit, end: End { status: 0, said: Vec::new() } };
    let _ended = play.list(&script.list, false);
    play.end
}

/// A script, as far as it has come.
struct Play<'s> {
    script: &'s Script,
    answer: &'s dyn Fn(usize) -> i32,
    errexit: bool,
    end: End,
}

/// The script has ended before its last command.
struct Ended;

impl Play<'_> {
    /// `tested`: whether the status is a condition, so that `set -e` looks away.
    fn list(&mut self, list: &List, tested: bool) -> Result<(), Ended> {
        if list.is_empty() {
            self.end.status = 0;
        }
        list.iter().try_for_each(|and_or| self.and_or(and_or, tested))
    }

    fn and_or(&mut self, and_or: &AndOr, tested: bool) -> Result<(), Ended> {
        for (place, (join, pipeline)) in and_or.iter().enumerate() {
            if place > 0 && (*join == Join::And) != (self.end.status == 0) {
                continue;
            }
            let tested = tested || place + 1 < and_or.len();
            self.pipeline(pipeline, tested)?;
            if self.errexit && !tested && !pipeline.negated && self.end.status != 0 {
                return Err(Ended);
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, tested: bool) -> Result<(), Ended> {
        let Some(last) = pipeline.parts.last() else { return Ok(()) };
        // What comes before is for the last one to read; a pipeline that ends ends only itself.
        let ended = self.node(last, tested || pipeline.negated);
        if pipeline.parts.len() == 1 {
            ended?;
        }
        if pipeline.negated {
            self.end.status = i32::from(self.end.status == 0);
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, tested: bool) -> Result<(), Ended> {
        match node {
            Node::Command(index) => self.command(*index),
            Node::Group(list) => self.list(list, tested),
            Node::If(branches, otherwise) => {
                for (condition, then) in branches {
                    self.list(condition, true)?;
                    if self.end.status == 0 {
                        return self.list(then, tested);
                    }
                }
                self.list(otherwise, tested)
            }
        }
    }

    fn command(&mut self, index: usize) -> Result<(), Ended> {
        self.end.status = match self.script.commands[index].does {
            Does::Ends(status) => status,
            Does::Says => {
                self.end.said.push(index);
                0
            }
            Does::Set(errexit) => {
                self.errexit |= errexit;
                0
            }
            Does::Exit(status) => {
                self.end.status = status.unwrap_or(self.end.status);
                return Err(Ended);
            }
            Does::SearchesFolder(_) | Does::Searches | Does::Other => (self.answer)(index),
        };
        Ok(())
    }
}

/// Tokens to a list. `None` where something is not understood.
struct Reader {
    tokens: Vec<shell::Word>,
    at: usize,
    depth: usize,
    commands: Vec<Command>,
}

impl Reader {
    /// A list, up to the word that ends it or the end of the script.
    fn list(&mut self) -> Option<List> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let mut list = List::new();
        loop {
            while self.eat_operator(&["\n", ";", "&"]) {}
            match self.word() {
                None if self.at == self.tokens.len() => break,
                None => return None,
                Some("then" | "do" | "else" | "elif" | "fi" | "done" | "}") => break,
                Some(_) => list.push(self.and_or()?),
            }
        }
        self.depth -= 1;
        Some(list)
    }

    fn and_or(&mut self) -> Option<AndOr> {
        let mut and_or = vec![(Join::And, self.pipeline()?)];
        loop {
            let join = match () {
                () if self.eat_operator(&["&&"]) => Join::And,
                () if self.eat_operator(&["||"]) => Join::Or,
                () => return Some(and_or),
            };
            while self.eat_operator(&["\n"]) {}
            and_or.push((join, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Option<Pipeline> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let mut parts = vec![self.node()?];
        while self.eat_operator(&["|", "|&"]) {
            while self.eat_operator(&["\n"]) {}
            parts.push(self.node()?);
        }
        Some(Pipeline { negated, parts })
    }

    fn node(&mut self) -> Option<Node> {
        let node = match self.word()? {
            "if" => self.condition()?,
            "{" => {
                self.at += 1;
                let list = self.list()?;
                self.eat("}").then_some(Node::Group(list))?
            }
            "for" => {
                while self.word().is_some_and(|word| word != "do") {
                    self.at += 1;
                }
                while self.eat_operator(&["\n", ";"]) {}
                let body = self.eat("do").then(|| self.list())??;
                self.eat("done").then_some(Node::Group(body))?
            }
            "while" | "until" | "case" | "select" | "function" | "[[" | "((" => return None,
            word if word.starts_with('(') || word.contains("()") => return None,
            _ => return self.command(),
        };
        while self.is_redirection() {
            self.redirection()?;
        }
        Some(node)
    }

    fn condition(&mut self) -> Option<Node> {
        let mut branches = Vec::new();
        while self.eat("if") || self.eat("elif") {
            let condition = self.list()?;
            let then = self.eat("then").then(|| self.list())??;
            branches.push((condition, then));
        }
        let otherwise = if self.eat("else") { self.list()? } else { List::new() };
        self.eat("fi").then_some(Node::If(branches, otherwise))
    }

    fn command(&mut self) -> Option<Node> {
        let mut words: Vec<String> = Vec::new();
        let mut to_file = false;
        loop {
            if let Some(word) = self.word() {
                if !(words.is_empty() && is_before_command(word)) {
                    words.push(word.to_owned());
                }
                self.at += 1;
            } else if self.is_redirection() {
                to_file |= self.redirection()?;
                // The 2 of `2>&1` was read as a word.
                words.pop_if(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            } else {
                break;
            }
        }
        if matches!(words.as_slice(), [sudo, program, ..] if sudo == "sudo" && !program.starts_with('-')) {
            words.remove(0);
        }
        self.commands.push(Command::new(words, to_file));
        Some(Node::Command(self.commands.len() - 1))
    }

    fn is_redirection(&self) -> bool {
        self.operator().is_some_and(|operator| operator.contains(['<', '>']))
    }

    /// A redirection, and whether it takes what is printed to a file. `None` for a here-document.
    fn redirection(&mut self) -> Option<bool> {
        let (is_output, is_descriptor) = match self.operator()? {
            "<" | "<&" | "<<<" => (false, false),
            ">" | ">>" | ">|" | "&>" | "&>>" => (true, false),
            ">&" => (true, true),
            _ => return None,
        };
        self.at += 1;
        let to = self.word()?;
        let stays =
            to.starts_with("/dev/") || (is_descriptor && to.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
        self.at += 1;
        Some(is_output && !stays)
    }

    fn word(&self) -> Option<&str> {
        self.tokens.get(self.at).filter(|token| !token.operator).map(|token| token.text.as_str())
    }

    fn operator(&self) -> Option<&str> {
        self.tokens.get(self.at).filter(|token| token.operator).map(|token| token.text.as_str())
    }

    fn eat(&mut self, word: &str) -> bool {
        let there = self.word() == Some(word);
        self.at += usize::from(there);
        there
    }

    fn eat_operator(&mut self, operators: &[&str]) -> bool {
        let there = self.operator().is_some_and(|operator| operators.contains(&operator));
        self.at += usize::from(there);
        there
    }
}

/// Whether a word before a command's name is no part of it: an assignment, or a program that runs another.
fn is_before_command(word: &str) -> bool {
    let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    is_assignment || matches!(word, "command" | "exec" | "time" | "env" | "nice")
}
