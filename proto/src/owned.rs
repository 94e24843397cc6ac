//! The sessions of one owner, as each node lists those that it holds.

use bincode::{Decode, Encode};

#[cfg(doc)]
use crate::key::Key;
use crate::message::Listed;

/// Asks a node for the live sessions that it holds of one owner, on all rings. For all roles but the monitor's, which
/// is not to see keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OwnedRequest {
    /// The table.
    pub table: String,
    /// Whose sessions: at most [`OWNER_BYTES_MAX`](crate::limits::OWNER_BYTES_MAX) bytes, and not none.
    pub owner: Vec<u8>,
    /// Where to go on; the default = at the beginning.
    pub place: OwnedPlace,
}

/// A place in a node's list of somebody's sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct OwnedPlace {
    /// The core.
    pub core: u16,
    /// The ring; 0 = the innermost.
    pub ring: u8,
    /// What stands for the key ([`Key::word`]) of the last one of the page before; `None` = the ring begins.
    pub after: Option<u64>,
}

/// The answer to an [`OwnedRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Owned {
    /// The sessions, in the order of their words.
    pub sessions: Vec<OwnedSession>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<OwnedPlace>,
    /// How many homes hold what was acknowledged on this page's ring. Fewer nodes than that may be silent, if no session
    /// is to be missed.
    pub write_homes: u8,
}

/// A session of an owner, as one node holds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OwnedSession {
    /// The session; of size 0 if its value is on another ring.
    pub listed: Listed,
    /// The ring that it is on, as far as this copy knows.
    pub ring: u8,
}
