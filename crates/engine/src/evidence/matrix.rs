//! A table of rows by columns that a step recorded, drawn in the report so that people read it at a glance: the fact
//! [`FACT`] of a step's evidence.
//!
//! The engine knows nothing of what it shows. Every cell has one character for each of the matrix's marks, and opens to
//! what was tried. Texts are kept once and named by number: a hundred roles by a hundred schemas are tens of thousands of
//! lines that repeat a few hundred texts.

use serde::{Deserialize, Serialize};

/// The fact that holds a matrix.
pub const FACT: &str = "matrix";

/// The version of the format. A reader shows a newer one as it shows any other fact.
pub const VERSION: u32 = 1;

/// The matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    pub version: u32,
    /// What a row is: `role`.
    pub row_word: String,
    pub rows: Vec<Row>,
    pub columns: Vec<String>,
    /// What each character of a cell stands for: its letter, and a word.
    pub marks: Vec<(char, String)>,
    /// By row, then by column.
    pub cells: Vec<Vec<Cell>>,
    /// What [`Line`]s name by number.
    pub texts: Vec<String>,
}

/// A row's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub note: String,
}

/// How a cell or a line came out; a cell is as its worst line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Nothing was tried.
    Empty,
    /// Nothing can be done there, as it should be.
    Closed,
    /// Something can be done there, as it should be.
    Open,
    /// It is not known.
    Unsure,
    /// What should be possible is not.
    Broken,
    /// What should not be possible is.
    Leaked,
}

impl Tone {
    /// As people read it, and the page's style names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Closed => "denied",
            Self::Open => "works",
            Self::Unsure => "inconclusive",
            Self::Broken => "broken",
            Self::Leaked => "leaked",
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// One character for each mark.
    pub text: String,
    pub tone: Tone,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

/// What was tried: tone, the object, the statement, the answer, a remark (each a number of a text), and microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line(pub Tone, pub usize, pub usize, pub usize, pub usize, pub u64);

impl Matrix {
    /// The matrix of a fact, if it is one that this version knows and that fits together.
    pub fn read(value: &serde_json::Value) -> Option<Self> {
        let matrix = Self::deserialize(value).ok()?;
        let fits = matrix.version == VERSION
            && matrix.cells.len() == matrix.rows.len()
            && matrix.cells.iter().all(|row| row.len() == matrix.columns.len());
        fits.then_some(matrix)
    }

    /// A line's text; empty where the number is of none.
    pub(super) fn text(&self, number: usize) -> &str {
        self.texts.get(number).map_or("", String::as_str)
    }

    /// How many cells have a tone.
    pub(super) fn count(&self, tone: Tone) -> usize {
        self.cells.iter().flatten().filter(|cell| cell.tone == tone).count()
    }
}
