//! The Markdown as a flat list of the pieces that matter, with their places: headings, checklist lines, marked blocks.

use comrak::nodes::{Node, NodeValue, Sourcepos};
use comrak::{Arena, Options, parse_document};

/// A heading, a checklist line or a marked block, in the order of the file.
#[derive(Debug)]
pub(super) enum Piece {
    Heading {
        level: u8,
        title: String,
        start: usize,
        end: usize,
    },
    Item(MarkedItem),
    Block(MarkedBlock),
    /// A piece of raw HTML that opens or closes nothing this parser follows, but may hide a step.
    Html {
        start: usize,
        end: usize,
    },
}

/// A line of a task list with the blocks nested under it.
#[derive(Debug)]
pub(super) struct MarkedItem {
    pub(super) text: String,
    pub(super) checked: bool,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) blocks: Vec<MarkedBlock>,
}

/// A fenced block whose info string has more than a language.
#[derive(Debug)]
pub(super) struct MarkedBlock {
    pub(super) info: String,
    /// The content, without the indentation of its container.
    pub(super) text: String,
    pub(super) line_starts: Vec<(usize, usize)>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether it has a closing fence.
    pub(super) closed: bool,
    /// Whether it stands inside `<details>`.
    pub(super) collapsed: bool,
    /// The table led by `Expected:` right after it.
    pub(super) expected: Option<ExpectedTable>,
}

/// The exact result that a table shows.
#[derive(Debug)]
pub(super) struct ExpectedTable {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// First bytes of the lines of a text: CommonMark's line endings are LF, CR LF and CR.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (at, byte) in bytes.iter().enumerate() {
            let ends = *byte == b'\n' || (*byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
            if ends {
                starts.push(at + 1);
            }
        }
        Self { text, starts }
    }

    /// The line (from 0), without its ending.
    fn line(&self, number: usize) -> &'a str {
        let start = self.start(number);
        let end = self.starts.get(number + 1).copied().unwrap_or(self.text.len());
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }

    fn start(&self, number: usize) -> usize {
        self.starts.get(number).copied().unwrap_or(self.text.len())
    }

    /// The byte of a position that comrak gives: line and column from 1, column in bytes.
    fn byte(&self, line: usize, column: usize) -> usize {
        let start = self.start(line.saturating_sub(1));
        let end = start + self.line(line.saturating_sub(1)).len();
        let mut byte = (start + column.saturating_sub(1)).min(end);
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }

    fn range(&self, place: Sourcepos) -> (usize, usize) {
        let start = self.byte(place.start.line, place.start.column);
        // comrak names the last column, or 0 where a node ends with an empty line.
        let mut end = self.byte(place.end.line, place.end.column + 1);
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        (start, end.max(start))
    }
}

fn options() -> Options<'static> {
    let mut options = Options::default();
    options.extension.table = true;
    options.extension.tasklist = true;
    options.extension.strikethrough = true;
    options
}

/// Reads a text into its pieces.
pub(super) fn pieces(text: &str) -> Vec<Piece> {
    let arena = Arena::new();
    let root = parse_document(&arena, text, &options());
    let mut walk = Walk { lines: Lines::of(text), pieces: Vec::new(), details: 0 };
    walk.children(root, None);
    walk.pieces
}

struct Walk<'a> {
    lines: Lines<'a>,
    pieces: Vec<Piece>,
    /// How many `<details>` are open.
    details: usize,
}

impl Walk<'_> {
    /// Reads the children of a container; blocks go to the item they are nested under, if there is one.
    fn children<'n>(&mut self, parent: Node<'n>, item: Option<usize>) {
        let mut next = parent.first_child();
        while let Some(node) = next {
            self.node(node, item);
            next = node.next_sibling();
        }
    }

    fn node<'n>(&mut self, node: Node<'n>, item: Option<usize>) {
        let place = node.data().sourcepos;
        let (start, end) = self.lines.range(place);
        // Copied out, so that no borrow of the node is held while its children are read.
        enum What {
            Heading(u8),
            Task(bool),
            Fence(String, String, bool),
            Html(String),
            Container,
            Other,
        }
        let what = match &node.data().value {
            NodeValue::Heading(heading) => What::Heading(heading.level),
            NodeValue::TaskItem(task) => What::Task(task.symbol.is_some()),
            NodeValue::CodeBlock(code) if code.fenced => {
                What::Fence(code.info.clone(), code.literal.clone(), code.closed)
            }
            NodeValue::HtmlBlock(html) => What::Html(html.literal.clone()),
            NodeValue::List(_) | NodeValue::Item(_) | NodeValue::BlockQuote => What::Container,
            _ => What::Other,
        };
        match what {
            What::Heading(level) => {
                self.pieces.push(Piece::Heading { level, title: plain_text(node), start, end });
            }
            What::Task(checked) => {
                let line = node.first_child().filter(|child| matches!(child.data().value, NodeValue::Paragraph));
                let end = line.map_or(end, |line| self.lines.range(line.data().sourcepos).1);
                let text = line.map(plain_text).unwrap_or_default();
                self.pieces.push(Piece::Item(MarkedItem { text, checked, start, end, blocks: Vec::new() }));
                let this = self.pieces.len() - 1;
                self.children(node, Some(this));
            }
            What::Fence(info, literal, closed) => {
                if info.split_whitespace().nth(1).is_some() {
                    let block = self.block(node, info, &literal, closed, (start, end));
                    match item.and_then(|item| self.pieces.get_mut(item)) {
                        Some(Piece::Item(item)) => item.blocks.push(block),
                        _ => self.pieces.push(Piece::Block(block)),
                    }
                }
            }
            What::Html(literal) => {
                let lower = literal.to_ascii_lowercase();
                self.details += lower.matches("<details").count();
                self.details = self.details.saturating_sub(lower.matches("</details").count());
                self.pieces.push(Piece::Html { start, end });
            }
            What::Container => self.children(node, item),
            What::Other => {}
        }
    }

    fn block<'n>(
        &self,
        node: Node<'n>,
        info: String,
        literal: &str,
        closed: bool,
        (start, end): (usize, usize),
    ) -> MarkedBlock {
        let first_line = node.data().sourcepos.start.line;
        let mut text = String::with_capacity(literal.len());
        let mut line_starts = Vec::new();
        let all = Lines::of(literal);
        for number in 0..all.starts.len() {
            let line = all.line(number);
            if number + 1 == all.starts.len() && line.is_empty() {
                break;
            }
            // The line's end in the file is the line's end in the block, whatever container stands before it.
            let in_file = self.lines.line(first_line + number);
            let at = self.lines.start(first_line + number) + in_file.len().saturating_sub(line.len());
            line_starts.push((text.len(), at));
            text.push_str(line);
            text.push('\n');
        }
        let expected = self.expected_table(node);
        MarkedBlock { info, text, line_starts, start, end, closed, collapsed: self.details > 0, expected }
    }

    /// The table after the paragraph `Expected:` right after a block.
    fn expected_table<'n>(&self, block: Node<'n>) -> Option<ExpectedTable> {
        let lead = block.next_sibling()?;
        if !matches!(lead.data().value, NodeValue::Paragraph) || plain_text(lead).trim() != "Expected:" {
            return None;
        }
        let table = lead.next_sibling()?;
        if !matches!(table.data().value, NodeValue::Table(_)) {
            return None;
        }
        let mut lines = table.children().map(|row| row.children().map(|cell| plain_text(cell)).collect::<Vec<_>>());
        let columns = lines.next()?;
        let (start, end) = self.lines.range(table.data().sourcepos);
        Some(ExpectedTable { columns, rows: lines.collect(), start, end })
    }
}

/// The text of a node without its markup; line breaks become blanks.
fn plain_text(node: Node<'_>) -> String {
    let mut text = String::new();
    for inner in node.descendants() {
        match &inner.data().value {
            NodeValue::Text(part) => text.push_str(part),
            NodeValue::Code(code) => text.push_str(&code.literal),
            NodeValue::SoftBreak | NodeValue::LineBreak => text.push(' '),
            _ => {}
        }
    }
    text.trim().to_owned()
}
