//! Every bound that both sides of a connection rely on, in one place.

/// Longest session key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// Longest value a table may be configured for, in bytes (`max_value` defaults to 64 KiB).
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Longest name of a map's field, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 1 << 10;

/// Longest name of a cluster, a table, a zone or a node, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest name of what joins a table's values, in bytes.
pub const MERGE_NAME_BYTES_MAX: usize = 31;

/// Longest owner of a session, in bytes.
pub const OWNER_BYTES_MAX: usize = 255;

/// Longest name of a channel, or pattern of such, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 512;

/// Longest message to a channel, in bytes.
pub const PUBLISHED_BYTES_MAX: usize = 1 << 20;

/// Most notes a session may have.
pub const NOTES_MAX: usize = 5;

/// Longest note, in bytes: four node ids, or what stands for a session.
pub const NOTE_BYTES_MAX: usize = 24;

/// Largest datagram we send or accept, in bytes: what an Ethernet frame carries after IPv6 and UDP
/// headers, less room for the seal that a later version puts around it.
pub const DATAGRAM_BYTES_MAX: usize = 1_400;

/// Most members a view may have.
pub const MEMBERS_MAX: usize = 4_096;

/// Most homes a slot may have (`replicas`).
pub const REPLICAS_MAX: usize = 7;

/// Most entries in one page of a listing.
pub const PAGE_ENTRIES_MAX: usize = 1_024;

/// Longest text in a refusal, in bytes; longer ones are cut by the sender.
pub const REASON_BYTES_MAX: usize = 512;

/// Largest encoded facts of one member, in bytes: several must fit a datagram.
pub const MEMBER_BYTES_MAX: usize = 512;
