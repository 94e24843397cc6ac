//! What crosses the boundary: numbers and structs that never change their meaning within one
//! [`ABI`]. Their documentation is the header's; this repeats the first line.

use std::ffi::CStr;
use std::ptr::null;

use annulus_proto::Version;

/// The number of this interface, which `annulus_abi` returns. Another one is another interface.
pub const ABI: u32 = 1;

/// What a call says. Zero and above are answers, below zero are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// The session is live; also: done.
    Live = 0,
    /// The session was ended.
    Ended = 1,
    /// Not in this host's table: ask a node.
    Miss = 2,
    /// This host's copy has expired: ask a node.
    Expired = 3,
    /// The node does not vouch for the key's slot: ask a node.
    Stale = 4,
    /// The record changed each time it was read: ask a node.
    Contended = 5,
    /// The record makes no sense: ask a node.
    Damaged = 6,
    /// The segment was given up by its node: reopen, ask a node.
    NotAttached = 7,
    /// Found, but larger than the buffer.
    TooSmall = 8,
    /// The session is used too much: ask again later.
    SlowDown = 9,
    /// An argument is impossible.
    Argument = -1,
    /// A file or directory cannot be opened.
    Open = -2,
    /// The file is no segment that this library can read.
    Segment = -3,
    /// Several nodes of this host have such a table.
    Ambiguous = -4,
    /// A bug in this library.
    Internal = -5,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Live,
        Self::Ended,
        Self::Miss,
        Self::Expired,
        Self::Stale,
        Self::Contended,
        Self::Damaged,
        Self::NotAttached,
        Self::TooSmall,
        Self::SlowDown,
        Self::Argument,
        Self::Open,
        Self::Segment,
        Self::Ambiguous,
        Self::Internal,
    ];

    /// As C has it.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// A sentence about it.
    pub const fn text(self) -> &'static CStr {
        match self {
            Self::Live => c"live",
            Self::Ended => c"ended",
            Self::Miss => c"not in this host's table: ask a node",
            Self::Expired => c"this host's copy has expired: ask a node",
            Self::Stale => c"the node does not vouch for the key's slot: ask a node",
            Self::Contended => c"the record changed each time it was read: ask a node",
            Self::Damaged => c"the record makes no sense: ask a node",
            Self::NotAttached => c"the segment was given up by its node: reopen it, ask a node",
            Self::TooSmall => c"the buffer is too small",
            Self::SlowDown => c"used too much: ask again later",
            Self::Argument => c"an argument is impossible",
            Self::Open => c"a file or directory cannot be opened",
            Self::Segment => c"not a segment that this library can read",
            Self::Ambiguous => c"several nodes of this host have such a table",
            Self::Internal => c"a bug in this library",
        }
    }
}

/// What kind of value a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// There is no value.
    None = 0,
    /// A string of bytes.
    Bytes = 1,
    /// Named fields. Of a set, its members; of a sorted one, with scores in decimal, as text.
    Map = 2,
}

/// `annulus_version`: a version, in order by `hlc`, then by `node`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VersionParts {
    /// Hybrid time: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    pub hlc: u64,
    /// The node that stamped it.
    pub node: u64,
}

impl From<Version> for VersionParts {
    fn from(version: Version) -> Self {
        Self { hlc: version.hlc.bits(), node: version.node.bits() }
    }
}

/// `annulus_key`: a key, for `annulus_get_many`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KeyBytes {
    /// Its first byte.
    pub bytes: *const u8,
    /// How many there are, 1 to 255.
    pub size: usize,
}

/// `annulus_session`: what was found under a key.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Session {
    /// What the call returned for this key.
    pub status: i32,
    /// The [`Kind`] of value.
    pub kind: u32,
    /// The write that created the session.
    pub birth: VersionParts,
    /// The last write.
    pub version: VersionParts,
    /// When it expires, in hybrid milliseconds; 0 = never. Of [`Status::SlowDown`]: when to ask again.
    pub deadline_ms: u64,
    /// When it was last used, in hybrid milliseconds.
    pub touched_ms: u64,
    /// When it was read, by the same clock.
    pub read_at_ms: u64,
    /// The value, in the caller's buffer.
    pub value: *const u8,
    /// Its size in bytes.
    pub value_size: usize,
    /// What it takes of a buffer, in bytes: the value and its head.
    pub needed: usize,
}

impl Session {
    /// No session, and why.
    pub const fn none(status: Status) -> Self {
        Self {
            status: status.code(),
            kind: Kind::None as u32,
            birth: VersionParts { hlc: 0, node: 0 },
            version: VersionParts { hlc: 0, node: 0 },
            deadline_ms: 0,
            touched_ms: 0,
            read_at_ms: 0,
            value: null(),
            value_size: 0,
            needed: 0,
        }
    }
}

/// `annulus_field`: a field of a map, in the caller's buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Field {
    /// Its name.
    pub name: *const u8,
    /// The name's size in bytes.
    pub name_size: usize,
    /// Its value.
    pub value: *const u8,
    /// The value's size in bytes.
    pub value_size: usize,
    /// The write that set it.
    pub version: VersionParts,
    /// When it expires on its own, in hybrid milliseconds; 0 = with its session.
    pub expire_at_ms: u64,
}
