//! Rules about what stands between the blocks that run, and about ways back.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::diagnostic::Diagnostic;
use crate::model::{Block, Span};

/// Prose that states a result.
static EXPECTATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)\bexpected(?:\s+(?:result|output|answer))?\s*:\s*\S|\b(?:should|must)\s+(?:return|show|be|fail|raise|print|contain)\b.{0,40}\b(?:\d+|no|zero|one|error|rows?|empty|true|false)\b|\bexpects?\s+(?:\d+|no|zero)\s+rows?\b",
    )
    .expect("a constant, and the tests compile it")
});

/// What stands for something that nobody will have filled in at night.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"\[[A-Z][A-Z0-9_ -]{2,}\]|\[(?:specific|your|the|insert|name|timestamp|date|file|version)[A-Za-z0-9_ -]*\]|<[a-z][A-Za-z0-9_-]*(?:[ _-][A-Za-z0-9_-]+)*>|\{\{[^}\n]+\}\}|\bYYYY-?MM-?DD\b|\bX{3,}\b|\bTODO\b",
    )
    .expect("a constant, and the tests compile it")
});

/// A file name with a star or question mark, as a shell expands it.
static GLOB: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[A-Za-z0-9_./-]*[*?][A-Za-z0-9_*-]*\.(?:sql|dump|sqlc|gz|bak|backup|tar|zst|db|custom)\b|[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]*\*[A-Za-z0-9_.-]*")
        .expect("a constant, and the tests compile it")
});

pub(super) fn look(file: usize, text: &str, blocks: &[&Block], found: &mut Vec<Diagnostic>) {
    let in_block = |at: usize| blocks.iter().find(|block| block.span.range().contains(&at));
    let mut rollback = false;
    let mut fence: Option<String> = None;
    let mut sql = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let trimmed = line.trim();
        let marker: String = trimmed.chars().take_while(|c| matches!(c, '`' | '~')).collect();
        if marker.len() >= 3 {
            match &fence {
                None => {
                    sql = trimmed[marker.len()..].trim_start().starts_with("sql");
                    fence = Some(marker);
                }
                Some(open) if marker.starts_with(open.as_str()) && trimmed.len() == marker.len() => fence = None,
                Some(_) => {}
            }
            continue;
        }
        let span = |range: Range<usize>| Span { file, start: start + range.start, end: start + range.end };
        if fence.is_none() && trimmed.starts_with("## ") {
            rollback = trimmed.to_lowercase().contains("rollback");
        }
        let block = in_block(start);
        if rollback && fence.is_some() {
            way_back(line, block.is_some(), sql, &span, found);
        }
        let comment = trimmed.starts_with("--") && !trimmed.starts_with("-- expect:");
        let says = (fence.is_none() && !trimmed.starts_with('|')) || (block.is_some() && comment);
        if says && let Some(matched) = EXPECTATION.find(line) {
            found.push(
                Diagnostic::warning(
                    "prose-expectation",
                    span(matched.range()),
                    "this reads like an expectation, and gates nothing",
                )
                .help("write it as `-- expect: ...` in a check, or as a table after a line `Expected:`"),
            );
        }
    }
}

/// A command of a way back that cannot run as it is written.
fn way_back(line: &str, runs: bool, sql: bool, span: &dyn Fn(Range<usize>) -> Span, found: &mut Vec<Diagnostic>) {
    let of = |code, span, message: &str| match runs {
        true => Diagnostic::error(code, span, message),
        false => Diagnostic::warning(code, span, message),
    };
    // In SQL, angle brackets compare and a star counts.
    let placeholder = PLACEHOLDER.find_iter(line).find(|matched| !(sql && matched.as_str().starts_with('<')));
    if let Some(matched) = placeholder {
        found.push(
            of("rollback-placeholder", span(matched.range()), "a placeholder: this way back cannot run as written").help(
                "name the thing itself, or make it a step: `restore = \"...\"` with `from` the backup's id, `migrate` with `down_to`",
            ),
        );
    } else if let Some(matched) = GLOB.find(line).filter(|_| !sql) {
        found.push(
            of("rollback-glob", span(matched.range()), "a pattern that may match several files, or none")
                .help("name one file, or refer to the backup step by its id: `from = \"...\"`"),
        );
    }
}
