//! A SQLite file as the source of a transfer.
//!
//! [`preflight()`] profiles the file without changing it, decides what each column becomes, and says every value that
//! would not fit; [`image`] takes a private copy of the file, and [`load()`] makes the tables and fills them from it. One
//! value's way there and back stands in [`Kind`] alone.

mod apply;
mod back;
mod beside;
mod bring;
mod calendar;
mod catalog;
mod choice;
mod decimal;
mod declaration;
mod default;
mod diff;
mod error;
mod existing;
mod expression;
mod fill;
mod hand;
pub mod image;
mod jobs;
mod jsonb;
pub(super) mod keyed;
mod kind;
mod lex;
mod live;
mod load;
mod map;
mod noted;
mod notes;
mod open;
mod piece;
mod preflight;
mod profile;
mod prove;
mod rows;
pub(super) mod seal;
pub(super) mod shape;
mod ship;
mod structure;
pub(super) mod sync;
pub mod translate;
mod writeback;

pub use apply::fence_id;
pub use back::{accept_change, complete, make_way_back, way_back, written};
pub use bring::{SqliteEnds, abandon, bring, follow, is_file, loaded, look, remove_image, shipped};
pub use calendar::{Fraction, Spelling, Zone};
pub use catalog::{Catalog, Collation, Column, ForeignKey, Index, Origin, Table, Term, TermOf, Trigger, VirtualTable};
pub use choice::{Choice, Choices};
pub use error::{BadValue, SqliteError};
pub use existing::check_existing;
pub use hand::{FileFence, drop_file_fence, file_fence, file_of};
pub use jsonb::common as common_jsonb;
pub use kind::{Clock, Digits, Kind, Misfit, Truth, Width, class_of, described, excerpt};
pub use live::compare_live;
pub use load::{How, Loaded, LoadedTable, Plan, discard, load};
pub use map::{ColumnMap, Mapping, TableMap};
pub use open::{open_live, open_write};
pub use piece::{Piece, cut, work};
pub use preflight::{Preflight, preflight, preflight_with_image};
pub use profile::{ColumnStats, Profile, TableStats};
pub use prove::{Misfits, Proof, Proofs};
pub use seal::openers;
pub use shape::Shape;
pub use structure::{Object, ObjectKind, Structure, structure};
pub use sync::{Access, Feed, Synced};
pub use writeback::WriteBack;
