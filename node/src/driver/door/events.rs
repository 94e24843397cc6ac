//! Keyspace events: who listens is told what became of keys, as Redis tells it with `notify-keyspace-events`.
//!
//! All homes of a session say that it is gone, and each says it again where it does not know that it was heard. So the same
//! comes several times, and is told once ([`KNOWN_MAX`]).

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use annulus_proto::message::{GoneSession, HowGone, Published};
use twox_hash::XxHash3_64;

use super::super::tally::Tally;
use super::channels::Channels;
use crate::core::TablePolicy;

/// Tells this node's clients what became of keys.
pub(in super::super) struct Events {
    /// By the place of the table: its number in SELECT; `None` of rings further out.
    numbers: Vec<Option<usize>>,
    channels: Arc<Channels>,
    tally: Arc<Tally>,
    /// Drawn anew by each run, so that nobody makes keys whose events are taken for one.
    seeds: [u64; 2],
    known: Mutex<Known>,
}

/// What was told last.
#[derive(Default)]
struct Known {
    events: BTreeSet<Event>,
    in_order: VecDeque<Event>,
}

/// What stands for an event: of two that differ another one, but for one in 2^128.
type Event = [u64; 2];

/// Of how many events it is known that they were told.
const KNOWN_MAX: usize = 1 << 17;

impl Events {
    /// Of a node with these tables, the rings further out among them.
    pub(in super::super) fn new<'a>(
        tables: impl Iterator<Item = &'a TablePolicy>,
        channels: Arc<Channels>,
        tally: Arc<Tally>,
        seed: u64,
    ) -> Self {
        let mut next = 0;
        let number = |policy: &TablePolicy| {
            let number = (policy.ring == 0).then_some(next);
            next += usize::from(policy.ring == 0);
            number
        };
        let seeds = [seed, seed.rotate_left(32).wrapping_add(1)];
        Self {
            numbers: tables.map(number).collect(),
            channels,
            tally,
            seeds,
            known: Mutex::default(),
        }
    }

    /// Tells who listens of sessions of a table that are gone, but for what was told before.
    pub(in super::super) fn tell(&self, table: usize, sessions: &[GoneSession]) {
        let Some(number) = self.numbers.get(table).copied().flatten() else { return };
        for session in sessions {
            let event = self.event(number, session);
            let is_new = self.known.lock().unwrap_or_else(PoisonError::into_inner).add(event);
            if !is_new {
                self.tally.add("redis_events_repeated");
                continue;
            }
            self.tally.add("redis_events");
            let channel = format!("__keyevent@{number}__:{}", word(session.how)).into_bytes();
            let message = session.key.as_bytes().to_vec();
            self.channels.tell(&Published { channel, message, is_sharded: false });
        }
    }

    fn event(&self, number: usize, session: &GoneSession) -> Event {
        let GoneSession { key, birth, version, how } = session;
        let numbers = [
            number as u64,
            *how as u64,
            birth.hlc.bits(),
            birth.node.bits(),
            version.hlc.bits(),
            version.node.bits(),
        ];
        let mut bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.extend(key.as_bytes());
        self.seeds.map(|seed| XxHash3_64::oneshot_with_seed(seed, &bytes))
    }
}

impl Known {
    /// Whether it was not known. It is now, in place of the oldest if there are too many.
    fn add(&mut self, event: Event) -> bool {
        if !self.events.insert(event) {
            return false;
        }
        self.in_order.push_back(event);
        if self.in_order.len() > KNOWN_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.events.remove(&oldest);
        }
        true
    }
}

/// What is told, as Redis writes it in `notify-keyspace-events`: of the generic ones DEL, the expired and the evicted, as
/// events of keys.
pub(super) const TOLD: &str = "gxeE";

/// Whether all is told that somebody asks for.
pub(super) fn are_told(asked: &[u8]) -> bool {
    // Without one of K and E Redis tells nothing.
    asked.contains(&b'E') && asked.iter().all(|flag| TOLD.as_bytes().contains(flag))
}

fn word(how: HowGone) -> &'static str {
    match how {
        HowGone::Ended => "del",
        HowGone::Expired => "expired",
        HowGone::Evicted => "evicted",
    }
}

#[cfg(test)]
mod tests {
    use annulus_proto::{Hlc, Key, NodeId, Version};
    use annulus_resp::{ChannelKind, Protocol};

    use super::super::channels::{Name, Subscriptions};
    use super::super::connection::Client;
    use super::*;

    fn session(key: &str, birth_ms: u64, how: HowGone) -> GoneSession {
        let birth = Version::new(Hlc::from_ms(birth_ms), NodeId::from_bits(1));
        GoneSession { key: Key::new(key).expect("a key"), birth, version: birth, how }
    }

    fn events() -> (Events, Subscriptions) {
        let tally = Arc::new(Tally::default());
        let channels = Arc::new(Channels::new(tally.clone()));
        let mut subscriptions =
            Subscriptions::new(channels.clone(), Client::alone(1), Protocol::Resp2);
        let all: Name = Name::from(&b"__keyevent@*__:*"[..]);
        let added = subscriptions.add(ChannelKind::Pattern, &[all], |_, _| {});
        assert!(added.is_ok());
        let further = TablePolicy { ring: 1, ..TablePolicy::default() };
        let tables = [TablePolicy::default(), further, TablePolicy::default()];
        (Events::new(tables.iter(), channels, tally, 7), subscriptions)
    }

    fn heard(subscriptions: &Subscriptions) -> Vec<(String, String)> {
        let mut bytes = Vec::new();
        subscriptions.take(&mut bytes, usize::MAX);
        let text = String::from_utf8(bytes).expect("text");
        let messages = text.split("*4\r\n").skip(1);
        let told = |message: &str| {
            let words: Vec<&str> = message.split("\r\n").collect();
            (words[5].to_owned(), words[7].to_owned())
        };
        messages.map(told).collect()
    }

    #[test]
    fn what_several_homes_tell_is_told_once() {
        let (events, subscriptions) = events();
        let ended = session("k", 5, HowGone::Ended);
        (0..3).for_each(|_| events.tell(0, &[ended.clone(), ended.clone()]));
        let told = |channel: &str, key: &str| (channel.to_owned(), key.to_owned());
        assert_eq!(heard(&subscriptions), [told("__keyevent@0__:del", "k")]);
        // Another one in each respect.
        events.tell(2, &[ended]);
        events.tell(0, &[session("k", 5, HowGone::Expired), session("k", 6, HowGone::Ended)]);
        events.tell(0, &[session("l", 5, HowGone::Ended), session("k", 5, HowGone::Evicted)]);
        let expected = [
            told("__keyevent@1__:del", "k"),
            told("__keyevent@0__:expired", "k"),
            told("__keyevent@0__:del", "k"),
            told("__keyevent@0__:del", "l"),
            told("__keyevent@0__:evicted", "k"),
        ];
        assert_eq!(heard(&subscriptions), expected);
        // Of what is no table of clients nothing is told.
        events.tell(1, &[session("m", 5, HowGone::Ended)]);
        events.tell(9, &[session("m", 5, HowGone::Ended)]);
        assert_eq!(heard(&subscriptions), []);
        let counts = events.tally.take();
        assert_eq!((counts.count("redis_events"), counts.count("redis_events_repeated")), (6, 5));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut known = Known::default();
        assert!((0..=KNOWN_MAX as u64).all(|event| known.add([event, 0])));
        assert_eq!((known.events.len(), known.in_order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert!(!known.add([1, 0]) && known.add([0, 0]));
    }

    #[test]
    fn who_asks_for_no_more_than_is_told_is_told_so() {
        for asked in ["Egx", "gxeE", "Ex", "E"] {
            assert!(are_told(asked.as_bytes()), "{asked}");
        }
        for asked in ["", "gx", "KEx", "AE", "EA", "E$", "Egx "] {
            assert!(!are_told(asked.as_bytes()), "{asked}");
        }
    }
}
