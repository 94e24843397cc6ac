//! Freshness: until when this host's readers may trust what is in their memory, slot by slot.

use annulus_proto::{NodeId, Slot};

use super::io::{Notice, Now, SlotCounts};
use super::settings::ReadFrom;
use super::standing::as_ms;
use super::{Core, Table, route};

/// A pass over all slots that extends what readers may trust. It is made in parts, between which requests are served.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// How far it is, while one is under way.
    pass: Option<Pass>,
    /// Whether another one is to follow.
    again: bool,
}

#[derive(Debug, Default)]
struct Pass {
    /// The table, and how many of this core's slots were done in it.
    table: usize,
    done: usize,
    undecided: u32,
    counts: Vec<SlotCounts>,
}

impl Freshness {
    /// Whether a pass is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.pass.is_some()
    }
}

impl Core {
    /// Begins to extend what this host's readers may trust: a slot in sync, `stale_max` from when a majority of
    /// its homes was last heard of. Counts the slots as well, for the hub.
    fn begin_freshness(&mut self) {
        self.freshness = Freshness { pass: Some(Pass::default()), again: false };
    }

    /// The same after the pass that is under way, if one is.
    pub(super) fn begin_freshness_again(&mut self) {
        match self.freshness.is_under_way() {
            true => self.freshness.again = true,
            false => self.begin_freshness(),
        }
    }

    /// A whole pass at once.
    pub(super) fn extend_freshness(&mut self, now: Now) {
        self.begin_freshness();
        while self.freshness.is_under_way() {
            self.extend_freshness_on(now);
        }
    }

    /// Goes on with the pass that is under way, if one is.
    pub(super) fn extend_freshness_on(&mut self, now: Now) {
        let Some(mut pass) = self.freshness.pass.take() else { return };
        if pass.table < self.tables.len() {
            self.extend_some(now, &mut pass);
            self.freshness.pass = Some(pass);
            return;
        }
        if pass.counts != self.slots_told {
            self.slots_told.clone_from(&pass.counts);
            self.notify(Notice::Slots(pass.counts));
        }
        if self.freshness.again {
            self.begin_freshness();
        }
    }

    fn extend_some(&mut self, now: Now, pass: &mut Pass) {
        let table = pass.table;
        if pass.done == 0 {
            pass.counts.push(SlotCounts::default());
            pass.undecided = 0;
            if !self.inherits {
                // The wall clock may be another one than before: readers take the earlier run's word for
                // times as well.
                let offset = self.time.offset_ms(now);
                self.tables[table].store.set_clock_offset(offset);
            }
        }
        let stale_max = self.tables[table].store.policy().stale_max;
        let reads_near = self.tables[table].store.policy().read == ReadFrom::Near;
        let vouches = self.is_up() && !self.standing.alone_by_misfortune;
        let (mut heard_of, mut in_contact) = (OfHomes::default(), OfHomes::default());
        let (mut count, mut undecided) = (SlotCounts::default(), 0);
        let step = self.slots_step();
        for slot in self.slots_after(pass.done).take(step) {
            let state = self.slot_state(table, slot);
            let synced = vouches && state.is_synced() && reads_near;
            let homes = if synced { self.vouching_homes(table, slot) } else { None };
            let heard = homes
                .and_then(|homes| *heard_of.get(homes, |homes| self.majority_heard(now, homes)));
            let mut is_decided = || {
                self.deciding(table, slot).is_some_and(|config| {
                    *in_contact.get(&config.homes, |_| self.is_majority_in_contact(now, config))
                })
            };
            count.home += u32::from(state.home);
            count.unsynced += u32::from(state.home && !state.is_synced());
            count.leaving += u32::from(self.stays_as_decider(table, slot));
            undecided += u32::from(state.is_kept() && !is_decided());
            let near_until = self.near_until(table, slot);
            let store = &mut self.tables[table].store;
            match heard {
                Some(at) => store.set_freshness(slot, as_ms(at + stale_max)),
                None if self.inherits => {} // It ends by itself.
                None => store.set_freshness(slot, near_until),
            }
        }
        let so_far = &mut pass.counts[table];
        so_far.home += count.home;
        so_far.unsynced += count.unsynced;
        so_far.leaving += count.leaving;
        pass.undecided += undecided;
        pass.done += step;
        if self.slots_after(pass.done).next().is_some() {
            return;
        }
        so_far.leaving += self.slots_to_tell(table) as u32;
        let Table { custody, epochs, .. } = &mut self.tables[table];
        epochs.undecided = pass.undecided;
        so_far.leaving += custody.leaving().len() as u32;
        so_far.given_up = custody.given_up();
        so_far.decided = epochs.decided;
        (pass.table, pass.done) = (table + 1, 0);
    }

    /// What an earlier run vouched for may be trusted as long as it said, and no longer than any run may say
    /// (docs/segment.md, Freshness over a restart).
    pub(super) fn inherit_freshness(&mut self, now: Now) {
        let (number, cores) = (self.number, self.cores);
        for table in &mut self.tables {
            let reads_near = table.store.policy().read == ReadFrom::Near;
            let latest = as_ms(now.monotonic + table.store.policy().stale_max);
            // Of all slots: none but this core's has any business in its shard.
            for slot in Slot::all() {
                let is_ours = route::core_of(slot, cores) == number;
                let until =
                    if is_ours && reads_near { table.store.freshness(slot).min(latest) } else { 0 };
                table.store.set_freshness(slot, until);
            }
        }
    }
}

/// What follows from homes alone, for slot after slot: neighbours mostly have the same.
#[derive(Debug)]
struct OfHomes<T> {
    homes: Vec<NodeId>,
    it: Option<T>,
}

impl<T> Default for OfHomes<T> {
    fn default() -> Self {
        Self { homes: Vec::new(), it: None }
    }
}

impl<T> OfHomes<T> {
    /// What follows from these homes: what did last time, if they were the same.
    fn get(&mut self, homes: &[NodeId], make: impl FnOnce(&[NodeId]) -> T) -> &T {
        if self.homes != homes {
            self.homes.clear();
            self.homes.extend_from_slice(homes);
            self.it = None;
        }
        self.it.get_or_insert_with(|| make(homes))
    }
}
