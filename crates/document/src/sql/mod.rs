//! SQL as text: tokens, statements, variables and quoting, without a server.
//!
//! The one promise: a file is cut where `psql` would cut it. The rules are those of the scanner that `psql` and the
//! server share (`src/fe_utils/psqlscan.l`, `src/backend/parser/scan.l`, PostgreSQL 14 to 18) with
//! `standard_conforming_strings` on. What the grammar makes of a statement is the server's business; here only as
//! much is read as decides how a statement must be sent.

pub mod classify;
pub mod decode;
pub mod lex;
pub mod meta;
pub mod quote;
pub mod split;
pub mod variables;

pub use classify::{Class, Control, EnumValue, Name, Outside, added_enum_value, classify, enum_values_used};
pub use decode::{NotSql, decode};
pub use lex::{Lexer, Token, TokenKind, Unclosed, VariableForm, lex};
pub use meta::{MetaCommand, advice, meta_commands};
pub use split::{Problem, ProblemKind, Split, Statement, split, statements};
pub use variables::{SubstituteError, Variable, substitute, variables};
