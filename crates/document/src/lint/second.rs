//! The opinion of a second Markdown parser.
//!
//! A reader sees what their renderer makes of the text. Where two parsers that follow the same specification disagree about
//! a block that runs, its reader may have approved something else.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::diagnostic::Diagnostic;
use crate::model::{Block, Span};

/// A marked block, as the second parser reads it.
struct Other {
    start: usize,
    end: usize,
    text: String,
}

pub(super) fn look(file: usize, text: &str, blocks: &[&Block], found: &mut Vec<Diagnostic>) {
    let others = others(text);
    let mut disagree = |span: Span, message: &str| {
        found.push(
            Diagnostic::error("parsers-disagree", span, message)
                .help("write it plainly: a fence at the start of its line, indented only as its list item asks for"),
        );
    };
    for block in blocks {
        let same = |other: &&Other| other.start < block.span.end && block.span.start < other.end;
        match others.iter().find(same) {
            None => disagree(block.span, "another Markdown parser does not see this block at all"),
            Some(other) if lines(&other.text) != lines(&block.text) => {
                disagree(block.span, "another Markdown parser reads other lines in this block");
            }
            Some(_) => {}
        }
    }
    // The other way round: settings and includes are blocks too, but no steps; they are compared by their kind's word.
    for other in &others {
        let seen = blocks.iter().any(|block| other.start < block.span.end && block.span.start < other.end);
        let is_step = |word: &str| other.text.trim_start().starts_with(word);
        if !seen && (is_step("-- check:") || is_step("-- probe:") || is_step("-- apply:")) {
            let span = Span { file, start: other.start, end: other.end };
            // What could not be read is reported by the reading.
            if !found
                .iter()
                .any(|one| one.span.file == file && other.start <= one.span.start && one.span.start < other.end)
            {
                found.push(
                    Diagnostic::error("parsers-disagree", span, "another Markdown parser sees a step here")
                        .help("write it plainly: a fence at the start of its line"),
                );
            }
        }
    }
}

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim_end).collect();
    lines.retain(|line| !line.is_empty());
    lines
}

fn others(text: &str) -> Vec<Other> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS | Options::ENABLE_STRIKETHROUGH;
    let mut others = Vec::new();
    let mut open: Option<Other> = None;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let mut words = info.split_whitespace();
                let marked = matches!(words.next(), Some("sql" | "toml"))
                    && matches!(words.next(), Some("step" | "undo" | "runbook"));
                open = marked.then_some(Other { start: range.start, end: range.end, text: String::new() });
            }
            Event::Text(part) => {
                if let Some(other) = &mut open {
                    other.text.push_str(&part);
                }
            }
            Event::End(TagEnd::CodeBlock) => others.extend(open.take()),
            _ => {}
        }
    }
    others
}
