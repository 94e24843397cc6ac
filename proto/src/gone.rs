//! Sessions that are no more, as their homes tell all members.

use bincode::{Decode, Encode};

use crate::key::Key;
use crate::version::Version;

/// Node to node: these sessions are no more. Each of their homes says so to each member, again and again until it is
/// noted, for whoever listens there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Gone {
    /// The table, as nodes call that of the innermost ring.
    pub table: String,
    /// The sessions, at most [`Gone::SESSIONS_MAX`].
    pub sessions: Vec<GoneSession>,
}

/// A session that is no more.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct GoneSession {
    /// Its key: as good as a password, as long as it was there.
    pub key: Key,
    /// The version that created it.
    pub birth: Version,
    /// The write by which it was evicted, or the last one before it expired; of one that was ended its birth: whichever
    /// of several ends a home heard of, it ends once.
    pub version: Version,
    /// What became of it.
    pub how: HowGone,
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[repr(u8)]
pub enum HowGone {
    /// Somebody ended it.
    Ended = 0,
    /// Its time was over.
    Expired = 1,
    /// There was need of room.
    Evicted = 2,
}

/// The answer to a [`Gone`]: whoever listens is told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GoneNoted {}

impl Gone {
    /// The most sessions of one message. What is beyond is not looked at.
    pub const SESSIONS_MAX: usize = 1_024;
}

/// Without the key, which is a secret.
impl std::fmt::Debug for GoneSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key: _, birth, version, how } = self;
        write!(f, "GoneSession({how:?}, born {birth}, version {version})")
    }
}
