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
}

struct Sender {
    sealer: Sealer,
    window: Window,
    was_heard: bool,
}

/// A datagram whose tag is good, and which was not seen before.
pub(super) struct Verified {
    pub(super) inside: Vec<u8>,
    id: (KeyId, u64),
    counter: u64,
    /// The sender, unless this epoch of it is known.
    fresh: Option<Sealer>,
}

impl Verified {
    /// Whether this epoch of its sender was heard before, and not forgotten.
    pub(super) fn is_known(&self) -> bool {
        self.fresh.is_none()
    }
}

impl Senders {
    pub(super) fn new(side: Side, most: usize) -> Self {
        Self { side, most, known: BTreeMap::new(), order: VecDeque::new() }
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
            return Ok(Verified { inside, id, counter: header.counter, fresh: None });
        }
        let origin = Origin { side: self.side, number: header.sender, epoch: header.epoch };
        let sealer = Sealer::new(key, cluster, origin);
        let inside = sealer.open(parsed, recipient)?;
        Ok(Verified { inside, id, counter: header.counter, fresh: Some(sealer) })
    }

    /// Remembers it, so that it is taken once. True if another sender had to be forgotten for it.
    pub(super) fn remember(&mut self, verified: &mut Verified) -> bool {
        let mut has_forgotten = false;
        if let Some(sealer) = verified.fresh.take() {
            if !self.known.contains_key(&verified.id) {
                has_forgotten = self.make_room();
                self.order.push_back(verified.id);
            }
            let sender = Sender { sealer, window: Window::new(), was_heard: false };
            self.known.insert(verified.id, sender);
        }
        if let Some(sender) = self.known.get_mut(&verified.id) {
            sender.window.note(verified.counter);
            sender.was_heard = true;
        }
        has_forgotten
    }

    /// Forgets who used keys that are no more.
    pub(super) fn keep(&mut self, is_kept: impl Fn(KeyId) -> bool) {
        self.known.retain(|(key, _), _| is_kept(*key));
        self.order.retain(|(key, _)| is_kept(*key));
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
