//! Lays a runbook out in the usual form, without touching a word of its prose.
//!
//! What changes: trailing blanks, runs of empty lines, empty lines around headings and fences, the marker of task lists,
//! the blanks between directives, and the order of the common keys of a TOML step. Everything else stays byte for byte;
//! code blocks that are not marked are not looked into.

/// The text in the usual form. Formatting it again changes nothing.
pub fn format(text: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut fence: Option<Fence> = None;
    // However many carriage returns an editor has left before a line feed.
    for raw in text.split('\n').map(|line| line.trim_end_matches('\r')) {
        if let Some(open) = &fence {
            let closes = open.is_closed_by(raw);
            let line = match (closes, open.marked) {
                (true, _) => raw.trim_end().to_owned(),
                (false, true) => directive(raw),
                // What is shown as it is stays as it is.
                (false, false) => raw.to_owned(),
            };
            out.push(line);
            if closes {
                fence = None;
            }
            continue;
        }
        fence = Fence::opened_by(raw);
        let line = match &fence {
            Some(_) => raw.trim_end().to_owned(),
            None => prose(raw),
        };
        let heading = is_heading(&line);
        let after_heading = out.last().is_some_and(|last| is_heading(last));
        let blank = line.is_empty();
        let last_blank = out.last().is_none_or(String::is_empty);
        if (blank && last_blank) || (heading && !last_blank) || (!blank && after_heading) {
            if blank {
                continue;
            }
            if !last_blank {
                out.push(String::new());
            }
        }
        out.push(line);
    }
    while out.last().is_some_and(String::is_empty) && out.len() > 1 {
        out.pop();
    }
    let mut formatted = out.join("\n");
    if !formatted.is_empty() {
        formatted.push('\n');
    }
    formatted
}

/// An open fence: what closes it, and whether the block runs.
struct Fence {
    mark: char,
    length: usize,
    marked: bool,
}

impl Fence {
    fn opened_by(line: &str) -> Option<Self> {
        let line = line.trim_start_matches([' ', '>']);
        let line = line.strip_prefix("- ").map_or(line, str::trim_start);
        let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let length = line.chars().take_while(|c| *c == mark).count();
        let info = &line[length..];
        if length < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        let mut words = info.split_whitespace();
        let marked = matches!(words.next(), Some("sql")) && matches!(words.next(), Some("step" | "undo"));
        Some(Self { mark, length, marked })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim_start_matches([' ', '>']).trim_end();
        line.chars().count() >= self.length && line.chars().all(|c| c == self.mark) && !line.is_empty()
    }
}

fn is_heading(line: &str) -> bool {
    let level = line.chars().take_while(|c| *c == '#').count();
    (1..=6).contains(&level) && line[level..].starts_with(' ')
}

/// A line of prose: a hard break (two blanks at the end) is kept.
fn prose(line: &str) -> String {
    let trimmed = line.trim_end();
    let hard_break = !trimmed.is_empty() && line.ends_with("  ") && !is_heading(trimmed);
    let indent = trimmed.len() - trimmed.trim_start().len();
    let (blanks, rest) = trimmed.split_at(indent);
    let rest = match rest.strip_prefix("* [ ]").or_else(|| rest.strip_prefix("+ [ ]")) {
        Some(text) => format!("- [ ]{text}"),
        None => rest.to_owned(),
    };
    format!("{blanks}{rest}{}", if hard_break { "  " } else { "" })
}

/// A line of a SQL step: directives have four blanks between them.
fn directive(line: &str) -> String {
    let trimmed = line.trim_end();
    let indent = trimmed.len() - trimmed.trim_start().len();
    let (blanks, rest) = trimmed.split_at(indent);
    let Some(comment) = rest.strip_prefix("-- ") else { return trimmed.to_owned() };
    let leads = ["check:", "probe:", "apply:"].iter().any(|word| comment.trim_start().starts_with(word));
    if !leads {
        return trimmed.to_owned();
    }
    // Directives on one line are separated by two blanks or more; a single blank is part of a value.
    let parts: Vec<&str> = comment.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect();
    format!("{blanks}-- {}", parts.join("    "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layout_is_evened_and_words_stay() {
        let text = "# A   \nProse  with   blanks.  \nmore\n\n\n\n* [ ] line\n\n  ```sql step\n  -- check: a  target: main   \n  SELECT  1;\n  ```\n```bash\n  keep   \n\n\n```\n\n";
        let wanted = "# A\n\nProse  with   blanks.  \nmore\n\n- [ ] line\n\n  ```sql step\n  -- check: a    target: main\n  SELECT  1;\n  ```\n```bash\n  keep   \n\n\n```\n";
        assert_eq!(format(text), wanted);
    }

    proptest! {
        #[test]
        fn formatting_twice_is_formatting_once(
            text in "(# A|## B|\\* \\[ \\] x|- \\[ \\] y|  ```sql step\n|```\n|```sql step\n|~~~\n|-- check: a   target: b|\n|\r\n|  |> |\\PC| `){0,40}",
        ) {
            let once = format(&text);
            prop_assert_eq!(format(&once), once);
        }
    }
}
