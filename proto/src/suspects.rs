//! What nodes and monitors tell each other of sessions that are used too much.

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::key::Key;
use crate::version::{Hlc, Version};

/// What was decided about a session that was used too much: the last [verdict](crate::Entry::verdict) counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept away from its users until then, in hybrid milliseconds.
    Suspect {
        /// Until when.
        until: u64,
    },
    /// A monitor released it: it is no suspect before then, in hybrid milliseconds, however much it is used.
    Released {
        /// Until when.
        until: u64,
    },
}

impl Verdict {
    /// Until when the session is kept away from its users at `now_ms`, in hybrid milliseconds; `None` = it is not.
    pub fn slowed_until(self, now_ms: u64) -> Option<u64> {
        match self {
            Self::Suspect { until } if until > now_ms => Some(until),
            _ => None,
        }
    }

    /// A note's bytes for it: one byte, 1 of a suspect and 2 of a released one, and until when in 6, little-endian.
    pub(crate) fn to_bytes(self) -> [u8; 7] {
        let (kind, until) = match self {
            Self::Suspect { until } => (1, until),
            Self::Released { until } => (2, until),
        };
        let [a, b, c, d, e, f, ..] = until.min(Hlc::MS_MAX).to_le_bytes();
        [kind, a, b, c, d, e, f]
    }

    /// The verdict of a note; `None` if it is none that this build knows.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let [kind, a, b, c, d, e, f] = bytes.try_into().ok()?;
        let until = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        match kind {
            1 => Some(Self::Suspect { until }),
            2 => Some(Self::Released { until }),
            _ => None,
        }
    }
}

/// Node to a session's home: so much is it used by my clients.
///
/// Each node counts what its own clients ask for, so that the counts of all nodes may be added up. They are no
/// increments: one that arrives twice, or not at all, does no harm that the next one does not mend.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Burning {
    /// The table.
    pub table: String,
    /// The session's key.
    pub key: Key,
    /// How hot it is, in uses.
    pub heat: u32,
}

/// The answer to [`Burning`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Burned {
    /// How much longer it is a suspect, in milliseconds; 0 = it is none.
    pub left_ms: u64,
}

/// Asks a node for the suspects among the sessions that it is a home of. For monitors.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SuspectsRequest {
    /// The table.
    pub table: String,
    /// Where to go on: the core, and the word of the last suspect of the page before; 0 and `None` = at the
    /// beginning.
    pub core: u16,
    /// See above.
    pub after: Option<u64>,
}

/// The answer to a [`SuspectsRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Suspects {
    /// The suspects, in the order of their words.
    pub suspects: Vec<Suspect>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<(u16, Option<u64>)>,
}

/// A session that is kept away from its users.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Suspect {
    /// What stands for its key, which is a secret: [`Key::word`].
    pub word: u64,
    /// The version that created it.
    pub birth: Version,
    /// The stamp of the verdict.
    pub judged: Version,
    /// Until when it is kept away, in hybrid milliseconds.
    pub until: u64,
    /// How much longer that is, in milliseconds, by the clock of the node that answers.
    pub left_ms: u64,
    /// How hot it is by what the nodes reported to this one, in uses; 0 = not reported here.
    pub heat: u32,
    /// Whose session it is; empty = nobody's.
    pub owner: Vec<u8>,
}

/// A monitor's word on a suspect, to one of its homes. Answered by [`SessionReply`](crate::message::SessionReply).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Judge {
    /// The table.
    pub table: String,
    /// What stands for the key: [`Key::word`].
    pub word: u64,
    /// The session that is meant.
    pub birth: Version,
    /// How long the caller waits for the answer, in milliseconds.
    pub patience_ms: u32,
    /// The word.
    pub sentence: Sentence,
}

/// What becomes of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[repr(u8)]
#[non_exhaustive]
pub enum Sentence {
    /// It is released, and left alone for so long, in milliseconds.
    Release {
        /// How long.
        for_ms: u64,
    } = 0,
    /// It is ended for good.
    End = 1,
}
