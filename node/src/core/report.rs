//! What a core tells about itself and its sessions: how it is, listings, explanations.

use std::collections::BTreeSet;

use annulus_proto::limits::PAGE_ENTRIES_MAX;
use annulus_proto::message::{
    Copy, CopyState, ExplainRequest, Explanation, Fetch, Hottest, HottestRequest, List,
    ListRequest, Listed, Message, Rejected, Served, TableStatus,
};
use annulus_proto::{Entry, Key, NodeId};
use annulus_shm::TableStats;

use super::Core;
use super::calls::Purpose;
use super::handover::Whose;
use super::hints::Hints;
use super::io::{Asker, CoreReport, Now};
use super::merging::name_among_clients;
use super::replica::reject_table;
use super::route::{CURSOR_PLACE_MASK, cursor_of_core};
use super::slot_set::SetCounts;

/// An explanation that waits for homes.
pub(super) struct Explain {
    asker: Asker,
    id: u64,
    explanation: Explanation,
    waiting: usize,
    table: usize,
    request: ExplainRequest,
    /// Who was asked.
    asked: BTreeSet<NodeId>,
}

/// Explanations that may wait at a time.
const EXPLAINS_MAX: usize = 256;
/// Room for entries in one page of a listing, in bytes of keys and what stands beside them.
const PAGE_BYTES_MAX: usize = 256 << 10;
const LISTED_OVERHEAD_BYTES: usize = 64;

impl Core {
    pub(super) fn explain(&mut self, now: Now, asker: Asker, id: u64, mut request: ExplainRequest) {
        let Some(table) = self.table_of_clients(&request.table) else {
            let why = format!("there is no table {:?} here", request.table);
            return self.reply(now, asker, id, Rejected::Malformed { why });
        };
        request.table.clone_from(&self.tables[table].store.policy().name);
        if self.explains.len() >= EXPLAINS_MAX {
            let why = "too many explanations wait for their homes; try again later".to_owned();
            return self.reply(now, asker, id, Rejected::Malformed { why });
        }
        let now_ms = self.time.now_ms(now);
        let me = self.id();
        let slot = request.key.slot();
        let homes = self.homes(table, slot);
        let served_from = match (homes.contains(&me), self.vouches(now, table, slot)) {
            (false, _) => Served::Homes,
            (true, false) => Served::HomesWhileSyncing,
            (true, true) => Served::Memory,
        };
        let own = self.tables[table].store.get(&request.key, now_ms);
        let synced = self.slot_state(table, slot).is_synced();
        let copy = |node: &NodeId| {
            let member = self.standing.view.get(*node)?;
            let state = match (*node == me, request.ask_homes) {
                (_, false) => CopyState::NotAsked,
                (true, _) => copy_state(own.as_ref(), synced, now_ms),
                (false, _) => CopyState::Silent,
            };
            Some(Copy { node: *node, name: member.name.clone(), addr: member.addr, state })
        };
        let copies = homes.iter().filter_map(copy).collect();
        let view = self.standing.view.digest();
        let (extra, pin) = (Vec::new(), None);
        let mut explanation =
            Explanation { slot, view, node: me, served_from, homes: copies, extra, pin };
        if let Some(entry) = &own {
            // Whoever holds it knows who else is to; so do the homes that are asked.
            self.explain_extras(table, &mut explanation, entry, now_ms);
        }
        self.pending_next += 1;
        let number = self.pending_next;
        let (mut waiting, mut asked) = (0, BTreeSet::from([me]));
        if request.ask_homes {
            for home in homes {
                waiting += self.ask_to_explain(now, number, home, &request, &mut asked);
            }
            for copy in &explanation.extra {
                waiting += self.ask_to_explain(now, number, copy.node, &request, &mut asked);
            }
        }
        if !request.ask_homes {
            let named = explanation.extra.iter_mut();
            named.for_each(|copy| copy.state = CopyState::NotAsked);
        }
        if waiting == 0 {
            return self.reply(now, asker, id, explanation);
        }
        self.explains
            .insert(number, Explain { asker, id, explanation, waiting, table, request, asked });
    }

    /// Asks a node what it holds, unless it was asked. Returns how many answers that brings.
    fn ask_to_explain(
        &mut self,
        now: Now,
        number: u64,
        node: NodeId,
        request: &ExplainRequest,
        asked: &mut BTreeSet<NodeId>,
    ) -> usize {
        if !asked.insert(node) {
            return 0;
        }
        let (table, key) = (request.table.clone(), request.key.clone());
        let call =
            self.call(now, node, Purpose::Explain(number), Fetch { table, key, under: None });
        usize::from(call.is_some())
    }

    /// Adds the nodes that are to hold an entry besides its homes, by what a copy of it says.
    fn explain_extras(
        &mut self,
        table: usize,
        explanation: &mut Explanation,
        entry: &Entry,
        now_ms: u64,
    ) {
        explanation.pin = entry.pin().or(explanation.pin);
        for node in self.extra_homes(table, explanation.slot, entry).0 {
            let Some(member) = self.standing.view.get(node) else { continue };
            if explanation.extra.iter().any(|copy| copy.node == node) {
                continue;
            }
            let own = Some(entry).filter(|_| node == self.id());
            let state = own.map_or(CopyState::Silent, |own| copy_state(Some(own), false, now_ms));
            let (name, addr) = (member.name.clone(), member.addr);
            explanation.extra.push(Copy { node, name, addr, state });
        }
    }

    pub(super) fn on_explain_answer(
        &mut self,
        now: Now,
        number: u64,
        node: NodeId,
        answer: Option<Message>,
    ) {
        let now_ms = self.time.now_ms(now);
        let Some(mut explain) = self.explains.remove(&number) else { return };
        explain.waiting -= 1;
        if let Some(Message::Fetched(fetched)) = answer {
            let Explanation { homes, extra, .. } = &mut explain.explanation;
            if let Some(copy) = homes.iter_mut().chain(extra).find(|copy| copy.node == node) {
                copy.state = copy_state(fetched.entry.as_ref(), fetched.synced, now_ms);
            }
            if let Some(entry) = &fetched.entry {
                self.explain_extras(explain.table, &mut explain.explanation, entry, now_ms);
                let Explain { explanation, request, asked, waiting, .. } = &mut explain;
                for copy in &explanation.extra {
                    *waiting += self.ask_to_explain(now, number, copy.node, request, asked);
                }
            }
        }
        if explain.waiting == 0 {
            self.reply(now, explain.asker, explain.id, explain.explanation);
        } else {
            self.explains.insert(number, explain);
        }
    }

    pub(super) fn list(&mut self, now: Now, request: &ListRequest) -> Message {
        let Some(table) = self.table_of_clients(&request.table) else {
            let why = format!("there is no table {:?} here", request.table);
            return Rejected::Malformed { why }.into();
        };
        let now_ms = self.time.now_ms(now);
        let limit = usize::from(request.limit).clamp(1, PAGE_ENTRIES_MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        // A cursor is a core, a place in its index, and how many entries of that place were listed
        // before: the index is looked through in whole lines.
        let cursor = request.cursor & CURSOR_PLACE_MASK;
        let (mut place, mut listed) = (cursor >> 8, cursor & 0xff);
        let is_listed =
            |entry: &Entry| !entry.is_ended() && !entry.is_expired(now_ms) && !entry.is_marker();
        loop {
            let mut found = Vec::new();
            let mut visit = |key: Key, entry: Entry| found.push((key, entry));
            let next = self.tables[table].store.list(place, 1, now_ms, &mut visit);
            for (key, entry) in found.into_iter().skip(listed as usize) {
                if entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                    let next = cursor_of_core(self.number) | (place << 8) | listed;
                    return List { entries, next }.into();
                }
                listed += 1;
                if is_listed(&entry) {
                    bytes += key.as_bytes().len() + LISTED_OVERHEAD_BYTES;
                    entries.extend(listed_as(key, &entry));
                }
            }
            (place, listed) = (next, 0);
            if place == 0 {
                let after = self.number + 1;
                let next = if after < self.cores { cursor_of_core(after) } else { 0 };
                return List { entries, next }.into();
            }
        }
    }

    /// The hottest of the sessions that this core has noticed.
    pub(super) fn list_hottest(&mut self, now: Now, request: &HottestRequest) -> Message {
        let Some(table) = self.table_of_clients(&request.table) else {
            return reject_table(&request.table);
        };
        let now_ms = self.time.now_ms(now);
        let count = usize::from(request.count).min(Hottest::SESSIONS_MAX);
        let sessions = self.tables[table].store.hottest(count, now_ms);
        let after = self.number + 1;
        Hottest { sessions, next: (after < self.cores).then_some(after as u16) }.into()
    }

    pub(super) fn report(&self) -> CoreReport {
        let counted = self.counters.iter().map(|(name, count)| (name.to_owned(), count));
        let mut counters: Vec<(String, u64)> = counted.collect();
        counters.push(("calls_open".to_owned(), self.calls.len() as u64));
        counters.push(("requests_waiting".to_owned(), self.pending.len() as u64));
        let hints = || self.tables.iter().map(|table| &table.hints);
        let unsaved: usize = hints().map(Hints::unsaved_count).sum();
        counters.push(("hints_unsaved".to_owned(), unsaved as u64));
        let marked = hints().map(Hints::slots_marked).sum();
        counters.push(("hints_slots_marked".to_owned(), marked));
        counters.push(("disk_failing".to_owned(), u64::from(self.saving.is_failing)));
        let unread = self.tables.iter().map(|table| table.store.unread_slots()).sum();
        counters.push(("slots_unread".to_owned(), unread));
        let watched = || self.tables.iter().map(|table| table.store.watched());
        let placed = watched().map(|watched| watched.len() - watched.extras()).sum::<usize>();
        counters.push(("sessions_placed".to_owned(), placed as u64));
        let extras = watched().map(|watched| watched.extras()).sum::<usize>();
        counters.push(("sessions_besides_homes".to_owned(), extras as u64));
        let near = self.tables.iter().map(|table| table.store.near_copies()).sum();
        counters.push(("near_copies".to_owned(), near));
        if self.tables.iter().any(|table| !table.store.is_reserved()) {
            let refused = self.tables.iter().filter(|table| table.memory.is_refused).count();
            counters.push(("tables_refused_memory".to_owned(), refused as u64));
        }
        let below: usize = self.tables.iter().map(|table| table.copies.below()).sum();
        counters.push(("copies_below_k".to_owned(), below as u64));
        if !self.sets.is_empty() {
            let sum = |count: fn(&SetCounts) -> usize| {
                self.sets.iter().map(|set| count(&set.counts()) as u64).sum::<u64>()
            };
            let counts = [
                ("slot_set_slots_home", sum(|counts| counts.home)),
                ("slot_set_slots_unready", sum(|counts| counts.unready)),
                ("slot_set_slots_leaving", sum(|counts| counts.leaving)),
                ("slot_set_slots_failed", sum(|counts| counts.failed)),
            ];
            let sets = (0..self.sets.len()).map(Whose::Set);
            let short: usize = sets.map(|set| self.slots_short_of_homes(set)).sum();
            counters.push(("slot_set_slots_short".to_owned(), short as u64));
            counters.extend(counts.map(|(name, count)| (name.to_owned(), count)));
        }
        CoreReport {
            tables: (0..self.tables.len()).map(|table| self.table_status(table)).collect(),
            counters,
            heard: self.heard.iter().map(|(id, heard)| (*id, heard.seen, heard.view)).collect(),
            drift_ms: self.time.drift_ms().map(i64::unsigned_abs),
        }
    }

    fn table_status(&self, index: usize) -> TableStatus {
        let table = &self.tables[index];
        let (stats, policy) = (table.store.stats(), table.store.policy());
        TableStatus {
            name: name_among_clients(&policy.name).to_owned(),
            entries: (stats.entries - stats.near_entries) as u64,
            capacity: capacity(&stats),
            bytes: stats.bytes_live,
            segment_bytes: if table.store.is_reserved() { stats.segment_bytes } else { 0 },
            huge_bytes: 0, // The hub knows.
            reserve_used: stats.reserve_used as u64,
            slots_home: table.slots.iter().filter(|state| state.home).count() as u32,
            slots_unsynced: self.slots_unsynced(index) as u32,
            slots_leaving: self.slots_leaving(index) as u32,
            slots_short: self.slots_short(index) as u32,
            slots_undecided: table.epochs.undecided,
            hints: table.hints.len() as u64,
            replicas: policy.replicas.get(),
            write_homes: policy.write.count(policy.replicas.get().into()) as u8,
            members_lacking: self.members_lacking(index) as u8,
        }
    }
}

/// How many entries all records are for, if each takes as many as those that are here do.
fn capacity(stats: &TableStats) -> u64 {
    let records = stats.capacity_records as u64;
    match stats.entries + stats.blocks {
        0 => records,
        taken => records * stats.entries as u64 / taken as u64,
    }
}

/// A session in a list; `None` of a tombstone.
pub(super) fn listed_as(key: Key, entry: &Entry) -> Option<Listed> {
    let body = entry.body.as_ref()?;
    Some(Listed {
        key,
        birth: entry.birth,
        version: entry.version,
        touched: body.touched,
        deadline: entry.deadline(),
        size: body.size() as u64,
    })
}

fn copy_state(entry: Option<&Entry>, synced: bool, now_ms: u64) -> CopyState {
    let Some(entry) = entry else { return CopyState::Absent { synced } };
    if entry.is_marker() {
        return CopyState::Moved { ring: entry.ring() };
    }
    CopyState::Held {
        birth: entry.birth,
        version: entry.version,
        ended: entry.is_ended(),
        expired: entry.is_expired(now_ms),
        touched: entry.body.as_ref().map_or(0, |body| body.touched),
        deadline: entry.deadline(),
        size: entry.body.as_ref().map_or(0, |body| body.size() as u64),
    }
}
