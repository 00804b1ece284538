//! How the languages write strings and comments, as a table; what does not fit a table has its function in `scan.rs`.

use super::scan::{Escape, Holes, Quote};

/// How a language writes strings and comments.
#[derive(Debug)]
pub(super) struct Language {
    pub(super) syntax: Syntax,
    pub(super) line_comments: &'static [&'static str],
    pub(super) block_comments: &'static [(&'static str, &'static str)],
    /// A line comment begins only at a line's beginning or behind a blank: `https://` and `$#` are none.
    pub(super) comment_after_blank: bool,
    pub(super) nested_comments: bool,
    pub(super) quotes: &'static [Quote<'static>],
    /// The operator between strings that makes one of them.
    pub(super) join: &'static str,
    pub(super) adjacent: Adjacent,
}

/// What a language has that the table cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Nothing.
    Plain,
    /// `'x'` is a character, and a lone quote none.
    Character,
    /// Raw strings, lifetimes.
    Rust,
    /// Prefixes, docstrings.
    Python,
    /// Regular expressions.
    Script,
    /// Heredocs, `%q()`, regular expressions.
    Ruby,
    /// Text around the code, heredocs.
    Php,
    /// `@`, `$` and raw strings.
    CSharp,
    /// Heredocs, words.
    Shell,
    /// No language that is known: statements may also stand bare.
    Unknown,
}

/// Whether strings that follow each other are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adjacent {
    No,
    /// In parentheses, or on one line.
    Blank,
    /// With nothing between them.
    Touching,
}

/// What a file is to the review.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sort {
    Sql,
    Code(&'static Language),
    /// Text for people, or data that no one runs: never read.
    Prose,
}

const fn quote(open: &'static str, escape: Escape) -> Quote<'static> {
    Quote { open, close: open, escape, lines: false, holes: Holes::None }
}

impl Quote<'static> {
    const fn lines(self) -> Self {
        Self { lines: true, ..self }
    }

    const fn holes(self, holes: Holes<'static>) -> Self {
        Self { holes, ..self }
    }
}

const C_COMMENTS: &[(&str, &str)] = &[("/*", "*/")];

const PLAIN: Language = Language {
    syntax: Syntax::Plain,
    line_comments: &["//"],
    block_comments: C_COMMENTS,
    comment_after_blank: false,
    nested_comments: false,
    quotes: &[],
    join: "+",
    adjacent: Adjacent::No,
};

static RUST: Language = Language {
    syntax: Syntax::Rust,
    nested_comments: true,
    quotes: &[quote("\"", Escape::Backslash).lines()],
    ..PLAIN
};

pub(super) static PYTHON: Language = Language {
    syntax: Syntax::Python,
    line_comments: &["#"],
    block_comments: &[],
    quotes: &[
        quote("\"\"\"", Escape::Backslash).lines(),
        quote("'''", Escape::Backslash).lines(),
        quote("\"", Escape::Backslash),
        quote("'", Escape::Backslash),
    ],
    adjacent: Adjacent::Blank,
    ..PLAIN
};

pub(super) static SCRIPT: Language = Language {
    syntax: Syntax::Script,
    quotes: &[
        quote("`", Escape::Backslash).lines().holes(Holes::DollarBrace),
        quote("\"", Escape::Backslash),
        quote("'", Escape::Backslash),
    ],
    ..PLAIN
};

static GO: Language = Language {
    syntax: Syntax::Character,
    quotes: &[quote("`", Escape::None).lines(), quote("\"", Escape::Backslash)],
    ..PLAIN
};

static JAVA: Language = Language {
    syntax: Syntax::Character,
    quotes: &[quote("\"\"\"", Escape::Backslash).lines(), quote("\"", Escape::Backslash)],
    ..PLAIN
};

static KOTLIN: Language = Language {
    syntax: Syntax::Character,
    nested_comments: true,
    quotes: &[
        quote("\"\"\"", Escape::None).lines().holes(Holes::Dollar),
        quote("\"", Escape::Backslash).holes(Holes::Dollar),
    ],
    ..PLAIN
};

/// Groovy has strings in single quotes as well.
static GROOVY: Language = Language {
    quotes: &[
        quote("\"\"\"", Escape::Backslash).lines().holes(Holes::Dollar),
        quote("'''", Escape::Backslash).lines(),
        quote("\"", Escape::Backslash).holes(Holes::Dollar),
        quote("'", Escape::Backslash),
    ],
    ..PLAIN
};

static DART: Language = Language {
    quotes: &[
        quote("\"\"\"", Escape::Backslash).lines().holes(Holes::Dollar),
        quote("'''", Escape::Backslash).lines().holes(Holes::Dollar),
        quote("\"", Escape::Backslash).holes(Holes::Dollar),
        quote("'", Escape::Backslash).holes(Holes::Dollar),
    ],
    adjacent: Adjacent::Blank,
    ..PLAIN
};

static SWIFT: Language = Language {
    nested_comments: true,
    quotes: &[
        quote("\"\"\"", Escape::Backslash).lines().holes(Holes::BackslashParen),
        quote("\"", Escape::Backslash).holes(Holes::BackslashParen),
    ],
    ..PLAIN
};

static RUBY: Language = Language {
    syntax: Syntax::Ruby,
    line_comments: &["#"],
    block_comments: &[("\n=begin", "\n=end")],
    quotes: &[
        quote("\"", Escape::Backslash).lines().holes(Holes::HashBrace),
        quote("'", Escape::Only).lines(),
        quote("`", Escape::Backslash).lines().holes(Holes::HashBrace),
    ],
    adjacent: Adjacent::Blank,
    ..PLAIN
};

static ELIXIR: Language = Language {
    line_comments: &["#"],
    block_comments: &[],
    quotes: &[
        quote("\"\"\"", Escape::Backslash).lines().holes(Holes::HashBrace),
        quote("\"", Escape::Backslash).lines().holes(Holes::HashBrace),
    ],
    join: "<>",
    ..PLAIN
};

static PHP: Language = Language {
    syntax: Syntax::Php,
    line_comments: &["//", "#"],
    quotes: &[
        quote("\"", Escape::Backslash).lines().holes(Holes::Php),
        quote("'", Escape::Only).lines(),
        quote("`", Escape::Backslash).lines().holes(Holes::Php),
    ],
    join: ".",
    ..PLAIN
};

static C_SHARP: Language = Language { syntax: Syntax::CSharp, quotes: &[quote("\"", Escape::Backslash)], ..PLAIN };

static C: Language = Language {
    syntax: Syntax::Character,
    quotes: &[quote("\"", Escape::Backslash)],
    adjacent: Adjacent::Blank,
    ..PLAIN
};

pub(super) static SHELL: Language = Language {
    syntax: Syntax::Shell,
    line_comments: &["#"],
    block_comments: &[],
    comment_after_blank: true,
    quotes: &[quote("\"", Escape::Shell).lines().holes(Holes::Shell), quote("'", Escape::None).lines()],
    join: "",
    adjacent: Adjacent::Touching,
    ..PLAIN
};

static PERL: Language = Language {
    line_comments: &["#"],
    block_comments: &[("\n=pod", "\n=cut")],
    comment_after_blank: true,
    quotes: &[quote("\"", Escape::Backslash).lines().holes(Holes::Dollar), quote("'", Escape::Only).lines()],
    join: ".",
    ..PLAIN
};

static LUA: Language = Language {
    line_comments: &["--"],
    block_comments: &[("--[[", "]]")],
    quotes: &[
        Quote { open: "[[", close: "]]", escape: Escape::None, lines: true, holes: Holes::None },
        quote("\"", Escape::Backslash),
        quote("'", Escape::Backslash),
    ],
    join: "..",
    ..PLAIN
};

static PRISMA: Language = Language { quotes: &[quote("\"", Escape::Backslash)], ..PLAIN };

/// Quotes of every kind, comments of every kind.
pub(super) static UNKNOWN: Language = Language {
    syntax: Syntax::Unknown,
    line_comments: &["//", "#", "--"],
    block_comments: &[("/*", "*/"), ("<!--", "-->")],
    comment_after_blank: true,
    quotes: &[
        quote("\"\"\"", Escape::Backslash).lines(),
        quote("'''", Escape::Backslash).lines(),
        quote("\"", Escape::Backslash),
        quote("'", Escape::Backslash),
        quote("`", Escape::Backslash),
    ],
    ..PLAIN
};

/// What a file is, by its name and its first line.
pub(super) fn sort(path: &str, text: &str) -> Sort {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if is_unread(&name) {
        return Sort::Prose;
    }
    match extension {
        "sql" | "psql" | "pgsql" | "ddl" | "dml" | "plpgsql" => Sort::Sql,
        "rs" => Sort::Code(&RUST),
        "py" | "pyi" | "pyw" => Sort::Code(&PYTHON),
        "js" | "jsx" | "mjs" | "cjs" | "ts" | "tsx" | "mts" | "cts" | "vue" | "svelte" | "astro" => Sort::Code(&SCRIPT),
        "go" => Sort::Code(&GO),
        "java" | "scala" => Sort::Code(&JAVA),
        "kt" | "kts" => Sort::Code(&KOTLIN),
        "groovy" | "gradle" => Sort::Code(&GROOVY),
        "dart" => Sort::Code(&DART),
        "swift" => Sort::Code(&SWIFT),
        "rb" | "rake" | "gemspec" | "ru" => Sort::Code(&RUBY),
        "ex" | "exs" => Sort::Code(&ELIXIR),
        "php" | "phtml" => Sort::Code(&PHP),
        "cs" => Sort::Code(&C_SHARP),
        "c" | "h" | "cc" | "cpp" | "cxx" | "hpp" | "hh" | "m" | "mm" => Sort::Code(&C),
        "sh" | "bash" | "zsh" | "ksh" | "bats" => Sort::Code(&SHELL),
        "pl" | "pm" => Sort::Code(&PERL),
        "lua" => Sort::Code(&LUA),
        "prisma" => Sort::Code(&PRISMA),
        _ => Sort::Code(by_first_line(&name, text)),
    }
}

fn by_first_line(name: &str, text: &str) -> &'static Language {
    let first = text.lines().next().unwrap_or_default();
    let shebang = first.strip_prefix("#!").unwrap_or_default();
    match () {
        () if shebang.contains("python") => &PYTHON,
        () if shebang.contains("node") || shebang.contains("deno") || shebang.contains("bun") => &SCRIPT,
        () if shebang.contains("ruby") => &RUBY,
        () if shebang.contains("perl") => &PERL,
        () if shebang.contains("php") => &PHP,
        () if shebang.contains("sh") => &SHELL,
        () if matches!(name, "rakefile" | "gemfile" | "capfile") => &RUBY,
        () => &UNKNOWN,
    }
}

/// Whether a file is known to hold nothing that an application runs.
pub(super) fn is_unread(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    PROSE.contains(&extension) || ASSETS.contains(&extension)
}

const PROSE: &[&str] = &[
    "md", "markdown", "mdown", "mkd", "rst", "txt", "adoc", "asciidoc", "org", "tex", "log", "csv", "tsv", "po", "pot",
];

const ASSETS: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "ico", "icns", "webp", "avif", "bmp", "tif", "tiff", "svg", "pdf", "woff", "woff2",
    "ttf", "otf", "eot", "mp3", "mp4", "m4a", "webm", "mov", "avi", "wav", "ogg", "flac", "zip", "gz", "tgz", "bz2",
    "xz", "zst", "7z", "tar", "jar", "war", "class", "o", "a", "so", "dylib", "dll", "exe", "wasm", "pyc", "pyo", "db",
    "sqlite", "sqlite3", "dump", "parquet", "keystore", "jks", "p12", "map",
];
