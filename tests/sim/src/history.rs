//! Everything the clients did and what they were told, for the checker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_client::{Error, Source};
use annulus_proto::message::Session;
use annulus_proto::{Value, Version};

use crate::trace;

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Op {
    /// Its number in the history; what a write writes carries it.
    pub id: usize,
    /// The client.
    pub client: String,
    /// Where the client is: cut off together with the node of this number.
    pub site: usize,
    /// The key, by its number.
    pub key: usize,
    /// What was asked for.
    pub action: Action,
    /// When.
    pub invoked: Duration,
    /// When the answer came; `None` if it never did.
    pub returned: Option<Duration>,
    /// The answer.
    pub outcome: Outcome,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a session with this value.
    Start(Value),
    /// Read it.
    Get,
    /// Write the whole value.
    Replace {
        /// The session that is meant, if the client said.
        birth: Option<Version>,
        /// The new value.
        value: Value,
    },
    /// Write some fields.
    SetFields {
        /// The session that is meant, if the client said.
        birth: Option<Version>,
        /// Fields set.
        set: BTreeMap<Vec<u8>, Vec<u8>>,
        /// Fields deleted.
        delete: Vec<Vec<u8>>,
    },
    /// Note a use.
    Touch {
        /// The session that is meant, if the client said.
        birth: Option<Version>,
    },
    /// End it.
    End {
        /// The session that is meant, if the client said.
        birth: Option<Version>,
    },
    /// Begin a session with this value if none lives there.
    StartIfAbsent(Value),
    /// Write the whole value if the last write is this one.
    CompareAndSet {
        /// The last write that the client has seen.
        version: Version,
        /// The new value.
        value: Value,
    },
    /// End it if the last write is this one.
    EndIf {
        /// The last write that the client has seen.
        version: Version,
    },
}

impl Action {
    /// The last write that a condition is about.
    #[must_use]
    pub fn expected(&self) -> Option<Version> {
        match self {
            Self::CompareAndSet { version, .. } | Self::EndIf { version } => Some(*version),
            _ => None,
        }
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, or that nobody knows: it may have happened, or may yet.
    Unknown,
    /// The write counts.
    Acknowledged {
        /// The session's birth.
        birth: Version,
        /// The write's version.
        version: Version,
    },
    /// The session.
    Read {
        /// As it was read.
        session: Session,
        /// Where.
        source: Source,
    },
    /// There is no such session.
    Absent,
    /// It was ended.
    Ended,
    /// It expired.
    Expired,
    /// The condition does not hold: the last write is this one.
    Conflict {
        /// That write.
        version: Version,
    },
    /// Too few homes answered, or no node; a write may have happened in part.
    Unavailable(String),
    /// It was not done.
    Refused(String),
}

impl Outcome {
    /// What an error means.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Absent => Self::Absent,
            Error::Ended => Self::Ended,
            Error::Expired => Self::Expired,
            Error::TimedOut => Self::Unknown,
            Error::Conflict { version } => Self::Conflict { version: *version },
            Error::Unavailable { .. }
            | Error::NoNode { .. }
            | Error::Disconnected { .. }
            | Error::Rejected { .. } => Self::Unavailable(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl Op {
    /// Whether its write may be seen: not if it is known that it was not done.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self.outcome {
            Outcome::Refused(_) | Outcome::Conflict { .. } => false,
            Outcome::Acknowledged { .. } | Outcome::Unknown => true,
            _ => !self.is_conditional(),
        }
    }

    /// Whether it was to be done on a condition.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        matches!(self.action, Action::StartIfAbsent(_)) || self.action.expected().is_some()
    }

    /// The birth and version of an acknowledged write.
    #[must_use]
    pub fn acknowledged(&self) -> Option<(Version, Version)> {
        match self.outcome {
            Outcome::Acknowledged { birth, version } => Some((birth, version)),
            _ => None,
        }
    }

    /// The session that a change was meant for, if the client said.
    #[must_use]
    pub fn meant(&self) -> Option<Version> {
        match &self.action {
            Action::Start(_)
            | Action::Get
            | Action::StartIfAbsent(_)
            | Action::CompareAndSet { .. }
            | Action::EndIf { .. } => None,
            Action::Replace { birth, .. }
            | Action::SetFields { birth, .. }
            | Action::Touch { birth }
            | Action::End { birth } => *birth,
        }
    }

    /// Whether it is an end.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.action, Action::End { .. } | Action::EndIf { .. })
    }
}

/// The operations of all clients, in the order in which they began. Clones are the same history.
#[derive(Clone, Debug, Default)]
pub struct History {
    ops: Arc<Mutex<Vec<Op>>>,
}

impl History {
    /// Notes that an operation begins; `action` is handed its number.
    pub fn invoke(
        &self,
        client: &str,
        site: usize,
        key: usize,
        action: impl FnOnce(usize) -> Action,
    ) -> (usize, Action) {
        let mut ops = self.lock();
        let id = ops.len();
        let action = action(id);
        trace::line(format_args!("{client} #{id} k{key} {}", brief(&action)));
        ops.push(Op {
            id,
            client: client.to_owned(),
            site,
            key,
            action: action.clone(),
            invoked: trace::now(),
            returned: None,
            outcome: Outcome::Unknown,
        });
        (id, action)
    }

    /// Notes an answer.
    pub fn complete(&self, id: usize, outcome: Outcome) {
        let mut ops = self.lock();
        let op = &mut ops[id];
        trace::line(format_args!("{} #{id} k{} = {}", op.client, op.key, brief_outcome(&outcome)));
        op.returned = Some(trace::now());
        op.outcome = outcome;
    }

    /// A copy of all operations.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Op>> {
        // Nothing panics half-way through a change of the list.
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value that operation `id` writes: told by its first bytes, and as long as `length` says.
#[must_use]
pub fn content(id: usize, length: usize) -> Vec<u8> {
    let mut bytes = format!("w{id};").into_bytes();
    let pad = (id % 251) as u8;
    bytes.resize(bytes.len().max(length), pad);
    bytes
}

fn brief(action: &Action) -> String {
    let birth = |birth: &Option<Version>| birth.map_or("any".to_owned(), |birth| birth.to_string());
    match action {
        Action::Start(value) => format!("start {}", value.size()),
        Action::Get => "get".to_owned(),
        Action::Replace { birth: b, value } => format!("replace {} {}", birth(b), value.size()),
        Action::SetFields { birth: b, set, delete } => {
            format!("set {} +{} -{}", birth(b), set.len(), delete.len())
        }
        Action::Touch { birth: b } => format!("touch {}", birth(b)),
        Action::End { birth: b } => format!("end {}", birth(b)),
        Action::StartIfAbsent(value) => format!("start if absent {}", value.size()),
        Action::CompareAndSet { version, value } => {
            format!("replace if {version} {}", value.size())
        }
        Action::EndIf { version } => format!("end if {version}"),
    }
}

fn brief_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Acknowledged { birth, version } => format!("acknowledged {birth} {version}"),
        Outcome::Read { session, source } => {
            format!("read {} {} {source:?}", session.birth, session.version)
        }
        other => format!("{other:?}"),
    }
}
