//! What a client has done so far, as numbers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a client has done so far. Each number only grows, and is exact at some moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tally { $(pub(crate) $name: Counter,)+ }

        impl Tally {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Reads answered out of shared memory, ended sessions included.
    local_hits,
    /// Reads that found nothing in shared memory, or an expired entry, and asked.
    local_misses,
    /// Reads that found a slot nobody vouches for, or a copy older than this client's own write,
    /// and asked.
    local_stale,
    /// Reads that met a record in shared memory that changed under each try, or made no sense,
    /// and asked.
    local_unreadable,
    /// Touches and updates handed to the host's node through shared memory by [`Table`](crate::Table)s.
    submitted,
    /// Requests that were sent to a node, repetitions not counted.
    remote_requests,
    /// Requests that were sent again: to another node, over a new stream, or as another datagram.
    retries,
    /// Streams that were opened to nodes.
    streams_opened,
    /// Streams that ended, or were given up because nothing came back.
    streams_lost,
    /// Datagrams and frames that arrived and were no answer to anything.
    unmatched,
    /// Times the homes of all slots were fetched.
    routes_fetched,
    /// Times a segment was attached.
    attached,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
