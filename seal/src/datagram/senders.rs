//! What is remembered of senders: a bounded number, and only of those whose tags were good.

use std::collections::{BTreeMap, VecDeque};

use super::sealer::{Origin, Sealer};
use super::window::{Seen, Window};
use super::{Epoch, Parsed, Refused, Side};
use crate::key::{Key, KeyId};

/// The senders of one side that were heard, each in its latest epoch.
pub(super) struct Senders {
    side: Side,
    most: usize,
    known: BTreeMap<(KeyId, u64), Sender>,
    /// All of them, in the order in which it is asked who was not heard lately.
    order: VecDeque<(KeyId, u64)>,
    /// When one was forgotten last, in milliseconds of the receiver's clock. Whoever is not known may
    /// be one of those.
    forgotten_ms: Option<u64>,
}

struct Sender {
    sealer: Sealer,
    window: Window,
    was_heard: bool,
    /// Up to when others were forgotten as this one was entered; it may have been one of them.
    not_before_ms: Option<u64>,
}

/// A datagram whose tag is good, and which was not seen before.
pub(super) struct Verified {
    pub(super) inside: Vec<u8>,
    id: (KeyId, u64),
    counter: u64,
    /// The sender, unless this epoch of it is known.
    fresh: Option<Sealer>,
    /// What was asked up to this time may have been forgotten.
    not_before_ms: Option<u64>,
}

impl Verified {
    /// Whether what its sender got at that time was never forgotten since: the window tells all
    /// that was taken from it.
    pub(super) fn is_after_the_forgotten(&self, issued_ms: u64) -> bool {
        self.not_before_ms.is_none_or(|forgotten| issued_ms > forgotten)
    }
}

impl Senders {
    pub(super) fn new(side: Side, most: usize) -> Self {
        let (known, order) = (BTreeMap::new(), VecDeque::new());
        Self { side, most, known, order, forgotten_ms: None }
    }

    /// Checks a datagram; nothing is remembered yet.
    pub(super) fn verify(
        &self,
        key: &Key,
        cluster: &str,
        parsed: &Parsed<'_>,
        recipient: Option<(u64, Epoch)>,
    ) -> Result<Verified, Refused> {
        let header = parsed.header;
        let id = (header.key, header.sender);
        let known = self.known.get(&id).filter(|known| known.sealer.epoch() >= header.epoch);
        if let Some(known) = known {
            if known.sealer.epoch() > header.epoch {
                return Err(Refused::TooOld);
            }
            match known.window.look(header.counter) {
                Seen::Never => {}
                Seen::Before => return Err(Refused::Replayed),
                Seen::TooOld => return Err(Refused::TooOld),
            }
            let inside = known.sealer.open(parsed, recipient)?;
            let (counter, not_before_ms) = (header.counter, known.not_before_ms);
            return Ok(Verified { inside, id, counter, fresh: None, not_before_ms });
        }
        let origin = Origin { side: self.side, number: header.sender, epoch: header.epoch };
        let sealer = Sealer::new(key, cluster, origin);
        let inside = sealer.open(parsed, recipient)?;
        let (counter, not_before_ms) = (header.counter, self.forgotten_ms);
        Ok(Verified { inside, id, counter, fresh: Some(sealer), not_before_ms })
    }

    /// Remembers it, so that it is taken once. Another sender may have to be forgotten for it.
    pub(super) fn remember(&mut self, now_ms: u64, verified: &mut Verified) {
        if let Some(sealer) = verified.fresh.take() {
            let not_before_ms = verified.not_before_ms;
            if !self.known.contains_key(&verified.id) {
                if self.make_room() {
                    self.forgotten_ms = Some(now_ms);
                }
                self.order.push_back(verified.id);
            }
            let window = Window::new();
            let sender = Sender { sealer, window, was_heard: false, not_before_ms };
            self.known.insert(verified.id, sender);
        }
        if let Some(sender) = self.known.get_mut(&verified.id) {
            sender.window.note(verified.counter);
            sender.was_heard = true;
        }
    }

    /// Forgets who used keys that are no more.
    pub(super) fn keep(&mut self, now_ms: u64, is_kept: impl Fn(KeyId) -> bool) {
        let before = self.known.len();
        self.known.retain(|(key, _), _| is_kept(*key));
        self.order.retain(|(key, _)| is_kept(*key));
        if self.known.len() < before {
            // The key may come back.
            self.forgotten_ms = Some(now_ms);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets one that was not heard since it was looked at last, if there is no room for another.
    fn make_room(&mut self) -> bool {
        if self.known.len() < self.most {
            return false;
        }
        while let Some(id) = self.order.pop_front() {
            let was_heard = |sender: &mut Sender| std::mem::take(&mut sender.was_heard);
            if !self.known.get_mut(&id).is_some_and(was_heard) {
                self.known.remove(&id);
                return true;
            }
            self.order.push_back(id);
        }
        false
    }
}
