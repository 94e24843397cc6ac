//! Sessions that two rings hold at once, found and put right: the comparison between rings.
//!
//! A session lies on one ring, and whatever moves it tells the others ([`super::cooling`], [`super::bringing`]). Where that
//! is lost for good, with the hint that was kept of it, or is overtaken by a use, a ring further out goes on holding
//! what is inside, or has ended there. Nobody reads it as long as there is an entry inside; but once that one expires
//! earlier, nothing would tell that it is old.
//!
//! Sketches ([`super::sync`]) tell cheaply in what two sets differ. Two rings differ in all that they hold, and should: what
//! both hold cannot be told with messages that are much shorter than the smaller set, whatever the method (set
//! disjointness; B. Kalyanasundaram, G. Schnitger, *The probabilistic communication complexity of set intersection*, 1992).
//! So the smaller set is sent, and the larger one, which may be on disk, is only looked up in: the primary of a slot of the
//! innermost ring walks over what it has, not more often than once in an interval of comparisons and so many sessions at
//! a time, and asks the primaries further out which of them they hold. Those are looked for as what is doubted is
//! ([`Core::doubt`]): all that the rings hold of a session is brought in, what is later wins, and then they give theirs up.
//!
//! What two rings further out hold, and the innermost does not, is found by nobody until it comes in, or moves on.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::message::{Message, Overlap, OverlapRequest};
use annulus_proto::{Key, NodeId};

use super::Core;
use super::calls::Purpose;
use super::io::Now;
use super::replica::reject_table;
use super::store::IN_FLIGHT_MS;

/// Where the walk over what an innermost ring holds stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    cursor: u64,
    /// When the next one begins.
    due: Duration,
    /// Questions that are not answered.
    open: usize,
}

/// How many sessions are looked at with each tick: ten thousand a second, in some hundred questions.
const STEP: usize = 1_024;

impl Core {
    /// Goes on asking the rings further out what they hold of what lies on the innermost ones.
    pub(super) fn compare_rings(&mut self, now: Now) {
        if !self.is_up() || self.stopping {
            return;
        }
        for table in 0..self.tables.len() {
            let walk = &mut self.tables[table].walk;
            let is_due = walk.cursor > 0 || walk.due <= now.monotonic;
            if is_due && walk.open == 0 && self.outer_rings(table).next().is_some() {
                self.ask_further_out(now, table);
            }
        }
    }

    /// The tables of the rings further out, of an innermost one.
    fn outer_rings(&self, table: usize) -> impl Iterator<Item = usize> + use<'_> {
        let innermost = (self.innermost(table) == table).then_some(table);
        std::iter::successors(innermost, |inner| self.outer(*inner)).skip(1)
    }

    fn ask_further_out(&mut self, now: Now, table: usize) {
        let interval = self.settings.sync_interval;
        let walk = &mut self.tables[table].walk;
        if walk.cursor == 0 {
            walk.due = now.monotonic + interval;
        }
        let mut keys = Vec::new();
        let place = (walk.cursor, STEP);
        let next = self.tables[table].store.keys_from(place, &mut |key| keys.push(key));
        keys.retain(|key| self.is_primary(table, key.slot()) && self.may_be_compared(table, key));
        let mut asked: BTreeMap<(usize, NodeId, u16), Vec<Key>> = BTreeMap::new();
        for outer in self.outer_rings(table) {
            for key in &keys {
                let Some(home) = self.ring_homes(outer, key.slot()).first().copied() else {
                    continue;
                };
                // Until it has said how many it has: as likely as any. What it does not know of then is for the next walk.
                let cores = self.cores_of(home).unwrap_or(self.cores as u16);
                let core = key.slot().index() % cores;
                asked.entry((outer, home, core)).or_default().push(key.clone());
            }
        }
        for ((outer, home, _), keys) in asked {
            for keys in keys.chunks(OverlapRequest::KEYS_MAX) {
                self.counters.add_many("ring_entries_compared", keys.len() as u64);
                if home == self.id() {
                    let held: Vec<Key> = self.held_here(now, outer, keys).cloned().collect();
                    held.iter().for_each(|key| self.settle_overlap(now, table, key));
                    continue;
                }
                let name = self.tables[outer].store.policy().name.clone();
                let question = OverlapRequest { table: name, keys: keys.to_vec() };
                if self.call(now, home, Purpose::Overlap { table }, question).is_some() {
                    self.tables[table].walk.open += 1;
                }
            }
        }
        self.tables[table].walk.cursor = next;
    }

    /// What another home is told that asks which sessions two rings hold.
    pub(super) fn tell_overlap(&mut self, now: Now, request: &OverlapRequest) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let keys = &request.keys[..request.keys.len().min(OverlapRequest::KEYS_MAX)];
        let held = self.held_here(now, table, keys).cloned().collect();
        Overlap { cores: self.cores as u16, held }.into()
    }

    /// Those of some keys whose sessions lie here, as far as this node knows. Of other cores' keys it knows nothing, and
    /// what lies on another ring it brings there itself.
    fn held_here<'k>(
        &mut self,
        now: Now,
        table: usize,
        keys: &'k [Key],
    ) -> impl Iterator<Item = &'k Key> + use<'_, 'k> {
        let now_ms = self.time.now_ms(now);
        keys.iter().filter(move |key| {
            if !self.owns(key.slot()) {
                return false;
            }
            let entry = self.tables[table].store.get(key, now_ms);
            entry.is_some_and(|entry| !entry.is_ended() && self.is_here(table, &entry))
        })
    }

    /// A node further out has said what it holds, or nothing.
    pub(super) fn on_overlap(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        answer: Option<Message>,
    ) {
        let walk = &mut self.tables[table].walk;
        walk.open -= 1;
        let Some(Message::Overlap(Overlap { cores, held })) = answer else { return };
        self.note_cores(node, cores);
        for key in held {
            if self.owns(key.slot()) {
                self.settle_overlap(now, table, &key);
            }
        }
    }

    /// A ring further out holds what lies on the innermost one, or has ended there.
    pub(super) fn settle_overlap(&mut self, now: Now, table: usize, key: &Key) {
        let now_ms = self.time.now_ms(now);
        let Some(entry) = self.tables[table].store.get(key, now_ms) else { return };
        // It may not have heard of the last move yet.
        let is_on_its_way = entry.moved_at().hlc.ms() + IN_FLIGHT_MS > now_ms;
        if is_on_its_way || !self.is_here(table, &entry) || !self.may_be_compared(table, key) {
            return;
        }
        // The ring further out would go on holding it.
        if !entry.is_ended() && !self.has_homes_enough(table, key) {
            return;
        }
        self.counters.add("ring_overlaps_found");
        self.doubt(table, key);
    }

    /// Whether what is here of a session is no less than what its other homes have, and stays.
    fn may_be_compared(&self, table: usize, key: &Key) -> bool {
        self.slot_state(table, key.slot()).is_synced()
            && !self.tables[table].cooling.is_under_way(key)
            && (self.bringing.is_empty() || !self.bringing.contains_key(&(table, key.clone())))
    }
}
