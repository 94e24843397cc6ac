//! Who may hold, acknowledge and drop a slot of a table: the rules for one slot at one node, as
//! state machines.
//!
//! [`Holding`] says when a node may let go of what it has: with receipts, whatever anybody's view
//! says. [`Seat`] says in whose name a node may acknowledge and answer: each slot has a sequence of
//! epochs, each with its homes, and a majority is one of an epoch's homes. A [`Proposal`] decides
//! an epoch's one successor. The two know nothing of each other; `docs/decisions/0009` says what a
//! node owes to both.
//!
//! Nothing here does I/O, reads a clock, draws entropy or depends on the order of a hash map. Every
//! rule was searched exhaustively at small bounds, in this very code (`tests/`).

pub mod epoch;
pub mod holding;
pub mod proposal;

pub use epoch::{
    Ask, Ballot, Behind, Config, Ending, EpochId, Meeting, Promise, Record, Refused, SOURCES_MAX,
    Seat, Source, Standing, Successor, Testimony, successor_homes,
};
pub use holding::{Attempt, Holding, Phase, Receipt};
pub use proposal::Proposal;
