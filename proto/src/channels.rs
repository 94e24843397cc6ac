//! Messages for whoever listens to a channel.

use bincode::{Decode, Encode};

/// A message for the subscribers of a channel, as the node where it was published tells all others once. Nobody asks for what
/// was lost.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Published {
    /// The channel: at most [`CHANNEL_BYTES_MAX`](crate::limits::CHANNEL_BYTES_MAX).
    pub channel: Vec<u8>,
    /// At most [`PUBLISHED_BYTES_MAX`](crate::limits::PUBLISHED_BYTES_MAX).
    pub message: Vec<u8>,
    /// Whether it is a sharded channel: these are a name space of their own.
    pub is_sharded: bool,
}
