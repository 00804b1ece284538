//! Commands in texts, as a person pastes them into a shell.

/// A command of this program with these words, each quoted where a shell would read it otherwise.
pub(crate) fn typed(words: &[&str]) -> String {
    let mut line = "pgrunbook".to_owned();
    for word in words {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    line
}

/// A command on the transfer into a schema, between backticks; `more` are its options behind the target.
pub(crate) fn on_transfer(command: &str, schema: &str, target: &str, more: &[&str]) -> String {
    let words = [&["transfer", command, schema, "--target", target][..], more].concat();
    format!("`{}`", typed(&words))
}

/// A word as a POSIX shell reads it: as it is where nothing in it is special, else between single quotes.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:+,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_every_word_as_it_was_meant() {
        assert_eq!(
            on_transfer("accept", "health", "main", &["--yes"]),
            "`pgrunbook transfer accept health --target main --yes`"
        );
        assert_eq!(typed(&["fence", "drop", "a b", "it's", ""]), r"pgrunbook fence drop 'a b' 'it'\''s' ''");
    }
}
