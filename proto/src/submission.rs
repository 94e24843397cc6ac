//! What a client submits through its lane, and what the node answers there.
//!
//! A fixed layout, because these pass in tens of nanoseconds; the fields of what is asked for rarely
//! are encoded as in messages. Little-endian:
//!
//! ```text
//!  0  u8   version              16  u32  call; 0 = no answer is wanted
//!  1  u8   kind                 20  u32  patience, in milliseconds
//!  2  u8   flags: 1 = a birth   24  u64  the birth's instant, or 0
//!  3  u8   size of the key      32  u64  the birth's node, or 0
//!  4  u16  table                40  u32  size of the value
//!  6  u16  0                    44  u32  0
//!  8  u64  sequence             48  the key, then the value, and nothing after it
//! ```

use crate::codec::{decode_value, encode_value};
use crate::key::{Key, KeyError};
use crate::limits::KEY_BYTES_MAX;
use crate::message::{Acknowledged, Change, Failure, Operation, SessionReply};
use crate::{Hlc, NodeId, Value, Version};

/// The version of the layout of submissions and answers that this build writes and reads.
pub const SUBMISSION_VERSION: u8 = 1;

/// The size of what stands before a submission's key, in bytes.
pub const SUBMISSION_HEADER_BYTES: usize = 48;

/// The words of an answer.
pub const ANSWER_WORDS: usize = 6;

/// What a client asks for through its lane, as it lies in the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Submission<'a> {
    /// The table, by its place in the node's list.
    pub table: u16,
    /// The session's key, 1 to 255 bytes.
    pub key: &'a [u8],
    /// The count of the client's requests: with the client's number, what tells a repetition.
    pub sequence: u64,
    /// The number of the call that waits for the answer; 0 = none is wanted.
    pub call: u32,
    /// How long the caller waits, in milliseconds.
    pub patience_ms: u32,
    /// What to do.
    pub action: Action<'a>,
}

/// What to do with a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Note a use of it.
    Touch {
        /// The birth of the session that is meant; `None` = whichever lives under the key.
        birth: Option<Version>,
    },
    /// Replace its value by a string of bytes.
    Update {
        /// The birth of the session that is meant; `None` = whichever lives under the key.
        birth: Option<Version>,
        /// The new value.
        value: &'a [u8],
    },
    /// End it for good.
    End {
        /// The birth of the session that is meant; `None` = whichever lives under the key.
        birth: Option<Version>,
    },
    /// Anything else but a read: an [`Operation`], encoded.
    Other(&'a [u8]),
}

/// Bytes that are no submission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmissionError {
    /// There are fewer or more bytes than it says.
    #[error("{have} bytes where {need} should be")]
    Size {
        /// The bytes that are there.
        have: usize,
        /// The bytes that should be.
        need: usize,
    },
    /// It is of another version.
    #[error("version {0}, this build reads {SUBMISSION_VERSION}")]
    Version(u8),
    /// It is of no kind that we know.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// What has to be zero is not, or a value where none belongs.
    #[error("malformed header")]
    Header,
    /// Its key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its operation is none, or a read, which no lane answers.
    #[error("its operation: {0}")]
    Operation(String),
}

const TOUCH: u8 = 1;
const UPDATE: u8 = 2;
const END: u8 = 3;
const OTHER: u8 = 4;
const HAS_BIRTH: u8 = 1;

impl<'a> Submission<'a> {
    /// The action for an operation, with room for what does not lie in it. `None` for a read.
    pub fn action(operation: &'a Operation, room: &'a mut Vec<u8>) -> Option<Action<'a>> {
        Some(match operation {
            Operation::Get => return None,
            Operation::Touch { birth } => Action::Touch { birth: *birth },
            Operation::End { birth } => Action::End { birth: *birth },
            Operation::Update { birth, change: Change::Value(Value::Bytes(value)) } => {
                Action::Update { birth: *birth, value }
            }
            other => {
                *room = encode_value(other);
                Action::Other(room)
            }
        })
    }

    /// Writes it in place of what `out` held.
    ///
    /// # Errors
    /// [`SubmissionError::Key`] for an impossible key; `out` is then empty.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), SubmissionError> {
        out.clear();
        let key_size = match self.key.len() {
            0 => return Err(KeyError::Empty.into()),
            size @ 1..=KEY_BYTES_MAX => size as u8,
            size => return Err(KeyError::TooLong(size).into()),
        };
        let (kind, birth, value) = match self.action {
            Action::Touch { birth } => (TOUCH, birth, &[][..]),
            Action::Update { birth, value } => (UPDATE, birth, value),
            Action::End { birth } => (END, birth, &[][..]),
            Action::Other(operation) => (OTHER, None, operation),
        };
        let has_birth = if birth.is_some() { HAS_BIRTH } else { 0 };
        let birth = birth.unwrap_or(Version::ZERO);
        let mut header = [0; SUBMISSION_HEADER_BYTES];
        header[..4].copy_from_slice(&[SUBMISSION_VERSION, kind, has_birth, key_size]);
        header[4..6].copy_from_slice(&self.table.to_le_bytes());
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..20].copy_from_slice(&self.call.to_le_bytes());
        header[20..24].copy_from_slice(&self.patience_ms.to_le_bytes());
        header[24..32].copy_from_slice(&birth.hlc.bits().to_le_bytes());
        header[32..40].copy_from_slice(&birth.node.bits().to_le_bytes());
        // A value of 4 GiB fits no lane.
        let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
        header[40..44].copy_from_slice(&size.to_le_bytes());
        out.reserve(header.len() + self.key.len() + value.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.key);
        out.extend_from_slice(value);
        Ok(())
    }

    /// Reads one, which must be these bytes to the end. Allocates nothing.
    ///
    /// # Errors
    /// [`SubmissionError`]: its client does not keep to the protocol.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SubmissionError> {
        let have = bytes.len();
        let Some((header, rest)) = bytes.split_first_chunk::<SUBMISSION_HEADER_BYTES>() else {
            return Err(SubmissionError::Size { have, need: SUBMISSION_HEADER_BYTES });
        };
        let [version, kind, flags, key_size, ..] = *header;
        if version != SUBMISSION_VERSION {
            return Err(SubmissionError::Version(version));
        }
        let value_size = u32_at(header, 40) as usize;
        let need = SUBMISSION_HEADER_BYTES + usize::from(key_size) + value_size;
        if have != need {
            return Err(SubmissionError::Size { have, need });
        }
        if key_size == 0 {
            return Err(KeyError::Empty.into());
        }
        let (key, value) = rest.split_at(key_size.into());
        let (hlc, node) = (u64_at(header, 24), u64_at(header, 32));
        let given = Version::new(Hlc::from_bits(hlc), NodeId::from_bits(node));
        let birth = (flags == HAS_BIRTH).then_some(given);
        let in_order = flags <= HAS_BIRTH
            && node >> NodeId::BITS == 0
            && (flags == HAS_BIRTH || given == Version::ZERO)
            && header[6..8] == [0; 2]
            && header[44..] == [0; 4];
        let action = match kind {
            TOUCH if value.is_empty() => Action::Touch { birth },
            UPDATE => Action::Update { birth, value },
            END if value.is_empty() => Action::End { birth },
            OTHER if birth.is_none() => Action::Other(value),
            TOUCH | END | OTHER => return Err(SubmissionError::Header),
            kind => return Err(SubmissionError::Kind(kind)),
        };
        if !in_order {
            return Err(SubmissionError::Header);
        }
        let table = u16::from_le_bytes([header[4], header[5]]);
        let (call, patience_ms) = (u32_at(header, 16), u32_at(header, 20));
        Ok(Self { table, key, sequence: u64_at(header, 8), call, patience_ms, action })
    }

    /// The key, and the operation as messages have it.
    ///
    /// # Errors
    /// [`SubmissionError::Operation`], if what is encoded is none.
    pub fn operation(&self) -> Result<(Key, Operation), SubmissionError> {
        let operation = match self.action {
            Action::Touch { birth } => Operation::Touch { birth },
            Action::Update { birth, value } => {
                let change = Change::Value(Value::Bytes(value.to_vec()));
                Operation::Update { birth, change }
            }
            Action::End { birth } => Operation::End { birth },
            Action::Other(bytes) => {
                let decoded = decode_value(bytes).map_err(SubmissionError::Operation)?;
                if decoded == Operation::Get {
                    return Err(SubmissionError::Operation("a read".to_owned()));
                }
                decoded
            }
        };
        Ok((Key::new(self.key)?, operation))
    }
}

/// The answer to a call, as far as it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write is held by as many homes as the table asks for.
    Acknowledged(Acknowledged),
    /// It could not be done, or it is not known whether it was.
    Failed(Failure),
    /// It was not done; over the socket the node says why.
    AskElsewhere,
}

// Numbers of answers: those of `Failure`, and two beyond them.
const ACKNOWLEDGED: u64 = 0x80;
const ASK_ELSEWHERE: u64 = 0x81;

impl Answer {
    /// The answer for a reply.
    pub fn of(reply: &SessionReply) -> Self {
        match reply {
            SessionReply::Acknowledged(acknowledged) => Self::Acknowledged(*acknowledged),
            SessionReply::Failed(Failure::Refused(_)) | SessionReply::Session(_) => {
                Self::AskElsewhere
            }
            SessionReply::Failed(failure) => Self::Failed(failure.clone()),
        }
    }

    /// As the words of a lane's answer: the number and three bytes, then what belongs to it.
    pub fn encode(&self) -> [u64; ANSWER_WORDS] {
        let plain = |number: u64| [number, 0, 0, 0, 0, 0];
        match self {
            Self::Acknowledged(Acknowledged { birth, version, held_by, homes }) => [
                ACKNOWLEDGED | u64::from(*held_by) << 8 | u64::from(*homes) << 16,
                birth.hlc.bits(),
                birth.node.bits(),
                version.hlc.bits(),
                version.node.bits(),
                0,
            ],
            Self::Failed(Failure::Absent) => plain(0),
            Self::Failed(Failure::Ended) => plain(1),
            Self::Failed(Failure::Expired) => plain(2),
            Self::Failed(Failure::Unavailable { answered, needed, homes }) => {
                let [answered, needed, homes] = [answered, needed, homes].map(|&n| u64::from(n));
                plain(3 | answered << 8 | needed << 16 | homes << 24)
            }
            Self::Failed(Failure::TooLarge { size, limit }) => [4, *size, *limit, 0, 0, 0],
            Self::Failed(Failure::TableFull { node }) => [5, node.bits(), 0, 0, 0, 0],
            Self::Failed(Failure::Refused(_)) | Self::AskElsewhere => plain(ASK_ELSEWHERE),
            Self::Failed(Failure::TimedOut) => plain(7),
            Self::Failed(Failure::Conflict { version }) => {
                [8, version.hlc.bits(), version.node.bits(), 0, 0, 0]
            }
            Self::Failed(Failure::SlowDown { retry_after_ms }) => [9, *retry_after_ms, 0, 0, 0, 0],
        }
    }

    /// Reads the words of an answer; `None` if they are none of this version.
    pub fn decode(words: [u64; ANSWER_WORDS]) -> Option<Self> {
        let [first, rest @ ..] = words;
        let [number, a, b, c, ..] = first.to_le_bytes();
        let version =
            |at: usize| Version::new(Hlc::from_bits(rest[at]), NodeId::from_bits(rest[at + 1]));
        let answer = match u64::from(number) {
            0 => Self::Failed(Failure::Absent),
            1 => Self::Failed(Failure::Ended),
            2 => Self::Failed(Failure::Expired),
            3 => Self::Failed(Failure::Unavailable { answered: a, needed: b, homes: c }),
            4 => Self::Failed(Failure::TooLarge { size: rest[0], limit: rest[1] }),
            5 => Self::Failed(Failure::TableFull { node: NodeId::from_bits(rest[0]) }),
            7 => Self::Failed(Failure::TimedOut),
            8 => Self::Failed(Failure::Conflict { version: version(0) }),
            9 => Self::Failed(Failure::SlowDown { retry_after_ms: rest[0] }),
            ACKNOWLEDGED => {
                let (birth, version) = (version(0), version(2));
                Self::Acknowledged(Acknowledged { birth, version, held_by: a, homes: b })
            }
            ASK_ELSEWHERE => Self::AskElsewhere,
            _ => return None,
        };
        (answer.encode() == words).then_some(answer)
    }
}

fn u32_at(header: &[u8; SUBMISSION_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes are four bytes"))
}

fn u64_at(header: &[u8; SUBMISSION_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}

#[cfg(test)]
mod tests;
