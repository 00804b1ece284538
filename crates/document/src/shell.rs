//! As much of a shell as a runbook's code blocks need: where a command ends, and what its words are.

use std::ops::Range;

/// A piece of a shell block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A comment on a line of its own, without the `#`.
    Comment(String),
    /// A whole command, loop or pipeline with its continuation lines: its place in the block.
    Command(Range<usize>),
    Blank,
}

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Without its quotes.
    pub(crate) text: String,
    /// `|`, `&&`, `;`, `>` and the like, outside of quotes; of [`tokens`] also a line break.
    pub(crate) operator: bool,
}

/// Cuts a block into its pieces. `None` where it is not a script: a quote or a loop is never closed.
pub(crate) fn pieces(block: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut open: Option<(usize, State)> = None;
    let mut at = 0;
    for line in block.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let content = line.trim_end_matches(['\n', '\r']);
        let (from, mut state) = match open.take() {
            Some(open) => open,
            None if content.trim().is_empty() => {
                pieces.push(Piece::Blank);
                continue;
            }
            None if content.trim_start().starts_with('#') => {
                pieces.push(Piece::Comment(content.trim_start().trim_start_matches('#').trim().to_owned()));
                continue;
            }
            None => (start, State::default()),
        };
        state.line(content);
        if state.is_open() {
            open = Some((from, state));
        } else {
            pieces.push(Piece::Command(from..start + content.len()));
        }
    }
    open.is_none().then_some(pieces)
}

/// What is still open at the end of a line.
#[derive(Debug, Default)]
struct State {
    quote: Option<char>,
    /// Loops, conditions and cases.
    depth: usize,
    continued: bool,
    /// The line that ends the here-document, and whether its text has begun.
    here: Option<String>,
}

impl State {
    fn is_open(&self) -> bool {
        self.quote.is_some() || self.depth > 0 || self.continued || self.here.is_some()
    }

    fn line(&mut self, line: &str) {
        if let Some(end) = &self.here {
            if line.trim() == end {
                self.here = None;
            }
            return;
        }
        self.continued = false;
        let mut word = String::new();
        let mut command_follows = self.quote.is_none();
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match (self.quote, c) {
                (Some('\''), '\'') | (Some('"'), '"') => self.quote = None,
                (Some('"') | None, '\\') => {
                    if chars.next().is_none() && self.quote.is_none() {
                        self.continued = true;
                    }
                }
                (Some(_), _) => {}
                (None, '\'' | '"') => {
                    self.quote = Some(c);
                    word.push(c);
                }
                (None, '#') if word.is_empty() => break,
                (None, '<') if chars.peek() == Some(&'<') => {
                    let rest: String = chars.by_ref().collect();
                    self.here = here_document(&rest);
                    break;
                }
                (None, c) if c.is_whitespace() || c == ';' || c == '|' || c == '&' => {
                    self.keyword(&word, command_follows);
                    command_follows = c == ';'
                        || c == '|'
                        || c == '&'
                        || (command_follows && (word.is_empty() || matches!(word.as_str(), "do" | "then" | "else")));
                    word.clear();
                }
                (None, c) => word.push(c),
            }
        }
        self.keyword(&word, command_follows);
    }

    fn keyword(&mut self, word: &str, command_follows: bool) {
        match word {
            "for" | "while" | "until" | "if" | "case" if command_follows => self.depth += 1,
            "done" | "fi" | "esac" if command_follows => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// The word that ends a here-document, from what follows its first `<`.
fn here_document(rest: &str) -> Option<String> {
    let word = rest.strip_prefix('<')?.trim_start_matches('-').trim_start();
    let word: String = word.chars().take_while(|c| !c.is_whitespace() && !matches!(c, '>' | '|' | ';' | ')')).collect();
    let word = word.trim_matches(['\'', '"']).to_owned();
    (!word.is_empty()).then_some(word)
}

/// The words of one command, whose line breaks part words like any blank.
pub(crate) fn words(command: &str) -> Vec<Word> {
    tokens(command).into_iter().filter(|word| !(word.operator && word.text == "\n")).collect()
}

/// The words of a script. A line break that may end a command is an operator.
pub(crate) fn tokens(script: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = script.chars().peekable();
    let close = |word: &mut Option<String>, words: &mut Vec<Word>| {
        words.extend(word.take().map(|text| Word { text, operator: false }));
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some('"') | None, '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(next) => {
                    let word = word.get_or_insert_default();
                    if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                        word.push('\\');
                    }
                    word.push(next);
                }
            },
            (None, '#') if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, c) if c.is_whitespace() => {
                close(&mut word, &mut words);
                if c == '\n' {
                    words.push(Word { text: c.to_string(), operator: true });
                }
            }
            (None, '|' | '&' | ';' | '<' | '>') => {
                close(&mut word, &mut words);
                let mut text = c.to_string();
                while let Some(more) = chars.next_if(|c| matches!(c, '|' | '&' | ';' | '<' | '>')) {
                    text.push(more);
                }
                words.push(Word { text, operator: true });
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    close(&mut word, &mut words);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a block as text.
    fn check(block: &str, expected: &[&str]) {
        let found: Vec<_> = pieces(block)
            .expect("a script")
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Comment(text) => Some(format!("# {text}")),
                Piece::Command(range) => Some(block[range].to_owned()),
                Piece::Blank => None,
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn commands_end_with_their_last_line() {
        check(
            "# One\na b \\\n  c\n\nd \"x\ny\"\ne 'it # is' # but '\n",
            &["# One", "a b \\\n  c", "d \"x\ny\"", "e 'it # is' # but '"],
        );
        check(
            "for f in $(ls a | sort); do\n  psql -f \"$f\"\ndone\nls",
            &["for f in $(ls a | sort); do\n  psql -f \"$f\"\ndone", "ls"],
        );
        check("for f in *; do x; done\nb\n", &["for f in *; do x; done", "b"]);
        check("cat <<EOF > f\nit's\nEOF\nb\n", &["cat <<EOF > f\nit's\nEOF", "b"]);
        check("if a; then\n b\nfi\n", &["if a; then\n b\nfi"]);
        check("echo done\n", &["echo done"]);
    }

    #[test]
    fn prose_is_no_script() {
        assert_eq!(pieces("it's here\n"), None);
        assert_eq!(pieces("for everyone\n"), None);
    }

    #[test]
    fn words_lose_their_quotes() {
        let texts: Vec<_> = words("A='b c' psql \"$U\" -c \"SELECT \\\"a\\\" || '\\d'\" 2>&1 | grep -q 'x y'&&z")
            .into_iter()
            .map(|word| word.text)
            .collect();
        assert_eq!(
            texts,
            ["A=b c", "psql", "$U", "-c", "SELECT \"a\" || '\\d'", "2", ">&", "1", "|", "grep", "-q", "x y", "&&", "z"]
        );
    }
    #[test]
    fn line_breaks_end_the_commands_of_a_script() {
        let script = "a 'b\nc' \\\n d # e\n\nf\n";
        let texts = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect::<Vec<_>>();
        assert_eq!(texts(tokens(script)), ["a", "b\nc", "d", "\n", "\n", "f", "\n"]);
        assert_eq!(texts(words(script)), ["a", "b\nc", "d", "f"]);
    }
}
