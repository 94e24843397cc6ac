//! The archive: sessions that left their tables, in files of JSON lines that can be read back.
//!
//! One session is one line, an object with everything it takes to begin it again ([`write_line`]). The files of a table
//! are numbered, and the oldest goes when they have become too large together. Whoever reads one believes
//! nothing of it ([`Lines`]): a line may be cut off, since its node died, or be anything else.
//!
//! The lines are secrets: they hold keys and values. No error says what stands in one.

mod files;
mod line;
mod lines;

pub(crate) use files::Files;
pub use line::{LINE_BYTES_MAX, LineError, read_line, write_line};
pub use lines::Lines;
