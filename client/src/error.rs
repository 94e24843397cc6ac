//! What can go wrong, and what it means for a write that was under way.

use std::fmt;
use std::time::Duration;

use annulus_proto::message::{Failure, Rejected};
use annulus_proto::{KeyError, NodeId, Version};

/// Why an operation failed. Keys and values never appear in it.
///
/// [`Error::TimedOut`], [`Error::Unavailable`] and [`Error::Protocol`] leave open whether a write
/// happened. [`Error::Absent`], [`Error::Ended`] and [`Error::Expired`] say how things stand now: an
/// `end` that was repeated because its first answer got lost may find its own work done. After every
/// other error the write did not happen.
///
/// Of a conditional operation ([`Table::compare_and_set`](crate::Table::compare_and_set) and its like)
/// only [`Error::TimedOut`] and [`Error::Protocol`] leave open whether it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such session, and its homes know of none.
    #[error("no such session")]
    Absent,
    /// The session was ended, or replaced by another one under its key.
    #[error("the session was ended")]
    Ended,
    /// The session was not used for too long, or reached its lifetime.
    #[error("the session expired")]
    Expired,
    /// Too few homes answered. A write may have reached those that did, and may yet come to count.
    #[error("unavailable: {answered} of {homes} homes answered, {needed} are needed")]
    Unavailable {
        /// How many homes answered.
        answered: u8,
        /// How many would have to.
        needed: u8,
        /// How many homes the slot has.
        homes: u8,
    },
    /// The value is above the table's `max_value`, or above what any table takes.
    #[error("too large: the value has {size} bytes, at most {limit} are taken")]
    TooLarge {
        /// The value's size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The table has no room on a home.
    #[error("the table is full on {node}; raise its `memory` or shorten its lifetimes")]
    TableFull {
        /// The home.
        node: NodeId,
    },
    /// The request itself is at fault: asking again will not help.
    #[error("refused: {0}")]
    Refused(String),
    /// The condition of a conditional operation does not hold: nothing was done.
    #[error("not done: the session's last write is {version}")]
    Conflict {
        /// The last write of the session that lives under the key.
        version: Version,
    },
    /// The session, or its table, is used too much: nothing was done. Ask again then, and not before.
    #[error("slow down: ask again in {retry_after:?}")]
    SlowDown {
        /// How long to wait.
        retry_after: Duration,
    },
    /// No answer in time. A write may or may not have happened, or may happen yet: read to find out,
    /// or repeat it (writes of values and fields, touches and ends may be repeated).
    #[error("timed out; a write may or may not have been done")]
    TimedOut,
    /// No node could be reached; nothing was sent.
    #[error("no node could be reached{}", Tries(.tried))]
    NoNode {
        /// What was tried and how it failed.
        tried: Vec<Tried>,
    },
    /// The connection was lost before the answer to a read came, and no other node answered.
    #[error("lost the connection to {at} before the answer came")]
    Disconnected {
        /// The node.
        at: String,
    },
    /// A node does not serve this client at all.
    #[error("{at} refuses this client: {reason}")]
    Rejected {
        /// The node.
        at: String,
        /// Why.
        reason: Rejected,
    },
    /// A node answered with what is no answer.
    #[error("{at} does not speak the protocol: {why}")]
    Protocol {
        /// The node.
        at: String,
        /// What was wrong.
        why: String,
    },
    /// The key is empty or too long.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The table's shared memory is not attached: its node is on another host, was not reached yet,
    /// or attaching is switched off.
    #[error("the table is not attached from shared memory; is there a node on this host?")]
    NotAttached,
}

/// Why no node was found at the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is neither a local socket nor a seed to try.
    #[error("nothing to connect to: give a seed (host:port) or the path of a local socket")]
    NothingToTry,
    /// A node answered and does not serve this client.
    #[error("{at}: {reason}")]
    Rejected {
        /// The node.
        at: String,
        /// Why, in its own words.
        reason: Rejected,
    },
    /// Nobody answered as a node does.
    #[error("no node could be reached{}", Tries(.tried))]
    NoNode {
        /// What was tried and how it failed.
        tried: Vec<Tried>,
    },
}

/// An address that was tried, and how that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The path of a local socket, a name that was given as a seed, or an address.
    pub at: String,
    /// What went wrong.
    pub why: String,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Absent => Self::Absent,
            Failure::Ended => Self::Ended,
            Failure::Expired => Self::Expired,
            Failure::Unavailable { answered, needed, homes } => {
                Self::Unavailable { answered, needed, homes }
            }
            Failure::TooLarge { size, limit } => Self::TooLarge { size, limit },
            Failure::TableFull { node } => Self::TableFull { node },
            Failure::Refused(why) => Self::Refused(why),
            Failure::TimedOut => Self::TimedOut,
            Failure::Conflict { version } => Self::Conflict { version },
            Failure::SlowDown { retry_after_ms } => {
                Self::SlowDown { retry_after: Duration::from_millis(retry_after_ms) }
            }
            other => Self::Refused(other.to_string()),
        }
    }
}

struct Tries<'a>(&'a [Tried]);

impl fmt::Display for Tries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Tried { at, why }) in self.0.iter().enumerate() {
            let before = if index == 0 { ": " } else { "; " };
            write!(f, "{before}{at}: {why}")?;
        }
        Ok(())
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NothingToTry => Self::NoNode { tried: Vec::new() },
            ConnectError::Rejected { at, reason } => Self::Rejected { at, reason },
            ConnectError::NoNode { tried } => Self::NoNode { tried },
        }
    }
}
