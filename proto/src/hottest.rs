//! Which sessions are used most.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::version::Version;

/// Asks a core of a node for the hottest of the sessions that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HottestRequest {
    /// The table.
    pub table: String,
    /// The core; 0 = begin with the first.
    pub core: u16,
    /// The most sessions to tell of, [`Hottest::SESSIONS_MAX`] at most.
    pub count: u16,
}

/// The answer to a [`HottestRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hottest {
    /// The sessions, the hottest first: those that the core has noticed. One that is used a few times may be missing.
    pub sessions: Vec<HotSession>,
    /// The core to ask next; `None` = this was the last.
    pub next: Option<u16>,
}

impl Hottest {
    /// The most sessions in one answer.
    pub const SESSIONS_MAX: usize = 64;
}

/// A session that is used much.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct HotSession {
    /// What stands for its key, which is a secret: [`Key::word`](crate::Key::word).
    pub word: u64,
    /// The version that created it.
    pub birth: Version,
    /// How hot it is as this node saw it, in uses: 1 of one that was used once, just then. Each home counts what it
    /// hears of, so that those of several nodes are not to be added up.
    pub heat: u32,
    /// When it was last written or touched, in hybrid milliseconds. Reads don't count.
    pub touched: u64,
}
