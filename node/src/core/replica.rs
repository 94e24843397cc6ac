//! What a home does when another node coordinates.

use annulus_proto::message::{
    EpochName, Failure, Fetch, Fetched, Fresh, Message, Rejected, Replicate, Replicated, Rewrite,
    SlotList, SlotListRequest, TouchCopy,
};

use annulus_proto::{Entry, Key, Kind, NodeId, Slot};
use annulus_shm::Admission;

use annulus_slots::Refused;

use super::Core;
use super::epochs::wire::id_of;
use super::io::Now;
use super::merging::{merge_of, name_among_clients};
use super::settings::Flaw;

/// How many entries one page of a slot's list has.
const SLOT_PAGE: usize = 1_000;

impl Core {
    pub(super) fn replicate(&mut self, now: Now, from: NodeId, request: &Replicate) -> Replicated {
        let Some(table) = self.table_named(&request.table) else {
            return Replicated::Failed(no_table(&request.table));
        };
        let copy = (&request.key, &request.entry);
        self.take_copy(now, from, table, copy, request.fresh, request.under)
    }

    /// Takes in a write of a value that is here already: see [`Rewrite`].
    pub(super) fn rewrite(&mut self, now: Now, from: NodeId, request: Rewrite) -> Replicated {
        let Rewrite { mut copy, same_as } = request;
        let Some(table) = self.table_named(&copy.table) else {
            return Replicated::Failed(no_table(&copy.table));
        };
        let now_ms = self.time.now_ms(now);
        let store = &mut self.tables[table].store;
        // Where values are joined, what has one version need not be one value.
        let is_joined = store.policy().merge.is_some();
        let stored = store.get(&copy.key, now_ms).filter(|stored| stored.birth == copy.entry.birth);
        let base = stored.and_then(|stored| stored.body).map(|body| body.base);
        let base = base.filter(|base| base.version == same_as && base.kind == Kind::Bytes);
        let (Some(base), Some(body), false) = (base, &mut copy.entry.body, is_joined) else {
            self.counters.add("rewrites_of_other_values");
            return Replicated::Missing;
        };
        body.base.bytes = base.bytes;
        if let Err(why) = copy.entry.check() {
            return Replicated::Failed(Failure::Refused(why.to_owned()));
        }
        self.counters.add("rewrites_received");
        self.replicate(now, from, &copy)
    }

    /// Takes in what another node sends of a table's entry, and says what became of it.
    pub(super) fn take_copy(
        &mut self,
        now: Now,
        from: NodeId,
        table: usize,
        (key, copy): (&Key, &Entry),
        fresh: Fresh,
        under: Option<EpochName>,
    ) -> Replicated {
        debug_assert!(self.owns(key.slot()));
        self.counters.add("copies_received");
        let slot = key.slot();
        let ballot = match fresh {
            Fresh::No => None,
            Fresh::Yes => Some(copy.version),
            Fresh::By(ballot) => Some(ballot),
        };
        let floor = self.slot_state(table, slot).floor;
        // A home of the epoch or not, whoever knows it counts for what it is.
        let is_other_epoch = |core: &Self| {
            let under = under.map(id_of);
            let counts = under.map(|under| core.may_store(table, slot, under));
            counts == Some(Err(Refused::OtherEpoch))
        };
        let is_late = ballot.is_some_and(|ballot| ballot < floor);
        // What an earlier run promised is not known: it does no harm here, but it must not count.
        let stored = floor <= self.floor_at_start;
        if is_late && !stored {
            self.counters.add("copies_below_a_promise");
            return Replicated::Promised { floor, stored };
        }
        if fresh == Fresh::No {
            self.doubt_if_late(now, table, key, copy);
        }
        match self.merge(now, table, key, copy, Admission::Reserve) {
            // An end is taken in, and does not count here.
            _ if !self.is_home(table, slot)
                && !self.tables[table].store.watched().is_extra(slot, key)
                && !self.has(Flaw::StoresAsNoHome) =>
            {
                Replicated::NoHome
            }
            Ok(_) if is_other_epoch(self) => {
                self.counters.add("copies_of_another_epoch");
                Replicated::OtherEpoch
            }
            Ok(_) if is_late => {
                self.counters.add("copies_below_a_promise");
                Replicated::Promised { floor, stored }
            }
            Ok(entry) if entry != *copy => Replicated::Differs(entry),
            Ok(_) => Replicated::Stored,
            Err(failure) => {
                self.counters.add("copies_refused");
                self.stop_vouching(table, slot, from);
                Replicated::Failed(failure)
            }
        }
    }

    /// This node lacks what another has: until both are even it does not answer for the slot.
    pub(super) fn stop_vouching(&mut self, table: usize, slot: Slot, other: NodeId) {
        let is_companion = self.companions.contains(&other);
        let table = &mut self.tables[table];
        let state = &mut table.slots[usize::from(slot.index())];
        if state.home && is_companion {
            state.sources.insert(other);
            table.store.set_freshness(slot, 0);
            // A comparison that is under way with it began before it had this.
            if let Some(session) = table.sync.get_mut(&other) {
                session.note_refused(slot);
            }
        }
    }

    pub(super) fn touch_copy(&mut self, now: Now, request: &TouchCopy) -> Replicated {
        let now_ms = self.time.now_ms(now);
        let Some(table) = self.table_named(&request.table) else {
            return Replicated::Failed(no_table(&request.table));
        };
        self.counters.add("touches_received");
        let slot = request.key.slot();
        let is_extra = self.tables[table].store.watched().is_extra(slot, &request.key);
        if !self.is_home(table, slot) && !is_extra {
            // Whether it is meant to hold the session the whole entry says.
            return Replicated::Missing;
        }
        let store = &mut self.tables[table].store;
        let Some(mut entry) = store.get(&request.key, now_ms) else { return Replicated::Missing };
        if entry.birth < request.birth || entry.is_marker() {
            return Replicated::Missing;
        }
        if entry.birth > request.birth || entry.is_ended() {
            return Replicated::Differs(entry);
        }
        entry.touch(request.touched);
        let merged = store.merge(&request.key, &entry, now_ms, Admission::Reserve);
        if let Some(under) = request.under
            && self.may_store(table, request.key.slot(), id_of(under)) == Err(Refused::OtherEpoch)
        {
            self.counters.add("copies_of_another_epoch");
            return Replicated::OtherEpoch;
        }
        match merged {
            Err(failure) => Replicated::Failed(failure),
            Ok(_) if entry.version == request.version => Replicated::Stored,
            Ok(_) if entry.version < request.version => Replicated::Missing,
            Ok(_) => Replicated::Differs(entry),
        }
    }

    pub(super) fn fetch(&mut self, now: Now, request: &Fetch) -> Message {
        let now_ms = self.time.now_ms(now);
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let slot = request.key.slot();
        let entry = self.tables[table].store.get(&request.key, now_ms);
        let Some(under) = request.under else {
            let synced = self.slot_state(table, slot).is_synced();
            return Fetched { entry, synced, other_epoch: false }.into();
        };
        let counts = self.may_answer(table, slot, id_of(under));
        let other_epoch = counts == Err(Refused::OtherEpoch);
        Fetched { entry, synced: counts.is_ok(), other_epoch }.into()
    }

    pub(super) fn slot_list(&mut self, now: Now, request: &SlotListRequest) -> Message {
        let now_ms = self.time.now_ms(now);
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let mut items = self.tables[table].store.slot_list(request.slot, now_ms);
        if let Some(after) = &request.after {
            items.drain(..items.partition_point(|(key, _)| key <= after));
        }
        let more = items.len() > SLOT_PAGE;
        items.truncate(SLOT_PAGE);
        SlotList { items, more }.into()
    }
}

fn no_table(name: &str) -> Failure {
    Failure::Refused(match merge_of(name) {
        None => format!("this node has no table {name:?}; configure it alike on every node"),
        Some(merge) => format!(
            "this node has no table {:?} whose values are joined by {merge:?}; every node needs an \
             application that joins them so",
            name_among_clients(name)
        ),
    })
}

pub(super) fn reject_table(name: &str) -> Message {
    reject(&match merge_of(name) {
        None => format!("there is no table {name:?} here"),
        Some(merge) => {
            let name = name_among_clients(name);
            format!("there is no table {name:?} here whose values are joined by {merge:?}")
        }
    })
}

pub(super) fn reject(why: &str) -> Message {
    Rejected::Malformed { why: why.to_owned() }.into()
}
