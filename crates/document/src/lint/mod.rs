//! Everything that is wrong with a runbook, beyond what keeps it from being read.
//!
//! Errors keep a runbook from being planned. Warnings say what a careful reviewer would.

mod prose;
mod second;
mod steps;
mod vacuous;

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::model::{Block, Runbook, Span};
use crate::parse::Parsed;
use crate::secrets;
use crate::vocabulary::Vocabulary;

/// Every rule, with what it finds. The guide's page is compared with this list by a test.
pub const RULES: &[(&str, &str)] = &[
    ("absence-by-grep", "A `grep` over a folder that passes as \"not found\" where the folder is missing or empty."),
    ("bad-duration", "A time that is none, such as `5x`."),
    ("bad-expectation", "An `expect:` that cannot be understood."),
    ("bad-for-each", "A `for_each` that names no list."),
    ("bad-id", "A step id with other characters than lower-case letters, digits and hyphens."),
    ("bad-toml", "A TOML block that is not TOML."),
    ("bad-undo", "An `undo` that does not say how."),
    ("bad-valid", "A `valid` that does not say when."),
    ("bad-value", "A field of the wrong type, or a field that is missing."),
    ("bad-variable", "A variable of the wrong type."),
    ("checked-item", "A ticked line: the file never carries state."),
    ("copy", "`COPY` in a step, which has no client that sends or takes data."),
    (
        "denial-as-operator",
        "An expected denial without `as:`: it is asked of whoever connects, who is likely the owner.",
    ),
    ("denial-without-control", "An expected denial of a role that no step shows to be allowed anything."),
    ("doubled-backslash", "`\\\\_` or `\\\\%` in a pattern: it matches a backslash, and so no name."),
    ("duplicate-id", "Two blocks of one id."),
    ("empty-directive", "A directive without a value."),
    ("empty-for-each", "A `for_each` over nothing."),
    ("grants-view", "A view of direct grants that is to prove that nobody may do something."),
    ("hidden-characters", "Bidirectional or zero-width characters: what is read is not what runs."),
    ("info-string", "Words after `step` in the info string, which nobody sees."),
    ("list-variable", "A list where a text is needed."),
    ("literal-secret", "A secret in the file. Named by line, never shown."),
    ("literal-string", "A variable in a TOML text in single quotes, where none is replaced."),
    ("matches-no-role", "A pattern of roles that matches none of those that the topology declares."),
    ("missing-include", "An include that cannot be read."),
    ("missing-target", "A step that needs a target and names none."),
    ("missing-undo", "A step that changes something and does not say how that is undone."),
    ("needs-no-transaction", "A statement that cannot run in a transaction, where there is one."),
    ("nested-include", "An include inside an included file or under a checklist line."),
    ("no-expectation", "A check or probe that is satisfied with any answer."),
    ("no-kind", "A block that names no kind of step."),
    ("no-statement", "A SQL step without a statement."),
    (
        "nobody-examined",
        "A check that no role like a pattern has something, where no step shows that there are such roles.",
    ),
    ("not-a-list", "A text where `for_each` needs a list."),
    ("not-sql", "A `psql` command or an open quote in a SQL step."),
    ("open-fence", "A block without a closing fence."),
    ("parsers-disagree", "A block that another Markdown parser reads differently: its reader may see something else."),
    ("prose-expectation", "Prose that reads like an expectation and gates nothing."),
    ("role-settings", "A role's settings read from `rolconfig`, which `ALTER ROLE ... IN DATABASE` overrides."),
    ("rollback-glob", "A way back that may match several files."),
    ("rollback-placeholder", "A way back with a placeholder, which cannot run as written."),
    ("row-security-flag", "`rowsecurity` as the only proof that rows are hidden."),
    ("step-in-details", "A step inside `<details>`."),
    ("step-in-html", "A step inside an HTML comment or element."),
    ("swallowed-status", "A command whose exit status only chooses which words are printed."),
    ("transaction-control", "`BEGIN` or `COMMIT` inside a step that is one transaction already."),
    ("trigger-state", "Triggers that are listed without `tgenabled`: a disabled one is listed too."),
    ("two-kinds", "A block that names two kinds of step."),
    ("two-settings", "A second `toml runbook` block."),
    ("undo-names-nothing", "An `undo` that names no undo block and no backup."),
    ("undo-without-why", "`none` or `one-way` without a reason."),
    ("unknown-directive", "A comment at the top of a SQL step that is no directive."),
    ("unknown-key", "A key that the kind does not have."),
    ("unknown-kind", "A kind that does not exist."),
    ("unknown-language", "A step in a language that is not run."),
    ("unknown-step", "A `valid` that names no step."),
    ("unknown-target", "A target that the `toml runbook` block does not list."),
    ("unmarked-block", "An info string that is nearly `step`."),
    ("unset-variable", "A variable that the runbook does not declare."),
    ("unused-undo", "An undo block that no step names."),
    ("valid-outside-rollback", "A `valid` outside of a rollback path."),
];

/// Every finding about a runbook that was read: those of the reading, and those of the rules. In order of place.
pub fn lint(parsed: &Parsed, vocabulary: Vocabulary<'_>) -> Vec<Diagnostic> {
    lint_knowing(parsed, vocabulary, None)
}

/// The same, knowing the roles that the project declares: a check whose pattern matches none of them asks of nobody.
pub fn lint_knowing(parsed: &Parsed, vocabulary: Vocabulary<'_>, roles: Option<&BTreeSet<String>>) -> Vec<Diagnostic> {
    let mut found = parsed.diagnostics.clone();
    let runbook = &parsed.runbook;
    steps::look(runbook, vocabulary, &mut found);
    vacuous::look(runbook, vocabulary, roles, &mut found);
    for (file, source) in runbook.sources.iter().enumerate() {
        let blocks: Vec<&Block> = runbook.blocks().filter(|block| block.span.file == file).collect();
        prose::look(file, &source.text, &blocks, &mut found);
        second::look(file, &source.text, &blocks, &mut found);
        hidden_characters(file, &source.text, &blocks, &mut found);
        literal_secrets(file, &source.text, &mut found);
    }
    found.sort_by_key(|one| (one.span.file, one.span.start, one.code));
    found.dedup();
    found
}

/// Bidirectional controls (Unicode TR 9) and characters without width: <https://trojansource.codes>.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}'
        | '\u{FEFF}' | '\u{00AD}' | '\u{061C}' | '\u{180E}')
}

fn hidden_characters(file: usize, text: &str, blocks: &[&Block], found: &mut Vec<Diagnostic>) {
    for (start, c) in text.char_indices().filter(|(at, c)| is_hidden(*c) && !(*at == 0 && *c == '\u{FEFF}')) {
        let span = Span { file, start, end: start + c.len_utf8() };
        let in_block = blocks.iter().any(|block| block.span.range().contains(&start));
        // Zero-width joiners make emoji; in prose they hide nothing that runs.
        if !in_block && matches!(c, '\u{200D}' | '\u{00AD}') {
            continue;
        }
        let message = format!("an invisible character (U+{:04X}): what is read is not what is there", u32::from(c));
        let one = if in_block {
            Diagnostic::error("hidden-characters", span, message)
        } else {
            Diagnostic::warning("hidden-characters", span, message)
        };
        found.push(one.help("delete it"));
    }
}

fn literal_secrets(file: usize, text: &str, found: &mut Vec<Diagnostic>) {
    for secret in secrets::find(text) {
        let span = Span { file, start: secret.range.start, end: secret.range.end };
        found.push(
            Diagnostic::error("literal-secret", span, format!("{} stands in the file", secret.what))
                .help("change it now, since the file's history keeps it; then refer to it: `env:NAME`, `file:path` or `cmd:program`"),
        );
    }
}

/// Whether a runbook has a block of this id, or instances of it.
fn has_step(runbook: &Runbook, id: &str) -> bool {
    runbook.blocks().any(|block| block.id.as_str() == id)
}

#[cfg(test)]
mod tests;
