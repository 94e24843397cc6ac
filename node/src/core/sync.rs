//! Anti-entropy: two nodes compare what they hold and even it out.
//!
//! For each table and each other member this node sends the digests of the slots that both should
//! hold, in one message; for those that differ it lists the other's slot, fetches what it lacks and
//! pushes what the other lacks. It runs at intervals, when the view changes, and when hints were
//! lost. A node that has just become a home of a slot compares it with every active member before
//! it says *absent*, since any of them may have held it before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use annulus_proto::message::{
    Compared, Digests, Fetch, Fetched, Fresh, Message, Replicate, Replicated, SlotDigest, SlotList,
    SlotListRequest,
};
use annulus_proto::{Key, NodeId, Slot};
use annulus_shm::Admission;
use rand::RngExt;

use super::Core;
use super::calls::{Purpose, SyncStep};
use super::io::Now;

/// A comparison under way with one member.
#[derive(Debug, Default)]
pub(super) struct SyncSession {
    number: u64,
    /// What to ask next; lists last, so that fetched entries do not pile up.
    urgent: VecDeque<SyncStep>,
    lists: VecDeque<SyncStep>,
    open: usize,
    /// Steps left for each slot that differs.
    left: BTreeMap<u16, usize>,
    /// The slots that the other was asked about.
    asked: BTreeSet<u16>,
    /// Whether the other sees the members as this node does. If not, it may still coordinate writes
    /// without this node as a home, and being equal to it does not last.
    agrees: bool,
}

/// How many questions of one comparison may be open at a time.
const WINDOW: usize = 32;
/// How long to wait before a comparison with a member that sees other members.
const RETRY_DISAGREEING: Duration = Duration::from_millis(300);
/// How long to wait after a comparison that was cut off.
const RETRY: Duration = Duration::from_secs(1);

impl Core {
    pub(super) fn start_syncs(&mut self, now: Now) {
        if !self.is_up() {
            return;
        }
        for table in 0..self.tables.len() {
            let due: Vec<NodeId> = self.tables[table]
                .sync_due
                .iter()
                .filter(|(_, at)| **at <= now.monotonic)
                .map(|(node, _)| *node)
                .collect();
            for node in due {
                if self.tables[table].sync.contains_key(&node) {
                    continue;
                }
                let again =
                    self.settings.sync_interval.mul_f64(0.75 + self.rng.random::<f64>() / 2.0);
                self.tables[table].sync_due.insert(node, now.monotonic + again);
                self.start_sync(now, table, node);
            }
        }
    }

    fn start_sync(&mut self, now: Now, table: usize, node: NodeId) {
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        let of_interest = |slot: &Slot| {
            let homes = self.standing.ring.homes(*slot);
            let theirs = homes[..homes.len().min(replicas)].contains(&node);
            let state = self.slot_state(table, *slot);
            let held = self.tables[table].store.slot_digest(*slot).0 > 0;
            (theirs && (state.home || held)) || state.sources.contains(&node)
        };
        let store = &self.tables[table].store;
        let digest = |slot: Slot| {
            let (count, digest) = store.slot_digest(slot);
            SlotDigest { slot, count, digest }
        };
        let slots: Vec<SlotDigest> = self.slots().filter(of_interest).map(digest).collect();
        if slots.is_empty() {
            return;
        }
        let asked = slots.iter().map(|digest| digest.slot.index()).collect();
        let message = Digests { table: store.policy().name.clone(), slots };
        self.tables[table].sync_sessions += 1;
        let number = self.tables[table].sync_sessions;
        let purpose = Purpose::Sync { table, session: number, step: SyncStep::Digests };
        if self.call(now, node, purpose, message).is_some() {
            self.counters.add("syncs_started");
            let session = SyncSession { number, open: 1, asked, ..SyncSession::default() };
            self.tables[table].sync.insert(node, session);
        }
    }

    pub(super) fn on_sync_answer(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        session: u64,
        step: SyncStep,
        answer: Option<(Message, bool)>,
    ) {
        let current = self.tables[table].sync.get_mut(&node).filter(|it| it.number == session);
        let Some(session) = current else { return };
        session.open -= 1;
        let (answer, agrees) = answer.unzip();
        match (step, answer) {
            (SyncStep::Digests, Some(Message::Compared(compared))) => {
                session.agrees = agrees == Some(true);
                if !session.agrees {
                    self.tables[table].sync_due.insert(node, now.monotonic + RETRY_DISAGREEING);
                }
                self.on_compared(table, node, &compared);
            }
            (SyncStep::List { slot, after }, Some(Message::SlotList(list))) => {
                self.on_slot_list(now, table, node, slot, after, list);
            }
            (SyncStep::Fetch(key), Some(Message::Fetched(fetched))) => {
                self.on_sync_fetched(now, table, node, key, fetched);
            }
            (SyncStep::Push(key), Some(Message::Replicated(answer))) => {
                self.counters.add("sync_entries_pushed");
                let even = match answer {
                    Replicated::Differs(theirs) => {
                        self.merge(now, table, &key, &theirs, Admission::Reserve).is_ok()
                    }
                    _ => true,
                };
                // A slot of which something could not be stored here is not in sync.
                if even {
                    self.on_sync_step_done(table, node, key.slot().index());
                }
            }
            _ => {
                self.counters.add("syncs_cut_off");
                self.tables[table].sync.remove(&node);
                self.tables[table].sync_due.insert(node, now.monotonic + RETRY);
                return;
            }
        }
        self.go_on_with_sync(now, table, node);
    }

    fn on_compared(&mut self, table: usize, node: NodeId, compared: &Compared) {
        let table = &mut self.tables[table];
        let Some(session) = table.sync.get_mut(&node) else { return };
        let differing: BTreeSet<u16> = compared.differing.iter().map(|slot| slot.index()).collect();
        let equal: Vec<u16> = session.asked.difference(&differing).copied().collect();
        // A home that is itself behind is as good a source as any: what it lacks the others have.
        for slot in equal.into_iter().filter(|_| session.agrees) {
            table.slots[usize::from(slot)].sources.remove(&node);
        }
        for slot in differing {
            if session.asked.contains(&slot) {
                session.left.insert(slot, 1);
                session.lists.push_back(SyncStep::List { slot, after: None });
            }
        }
        self.counters.add_many("sync_slots_differing", compared.differing.len() as u64);
    }

    fn on_slot_list(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        slot_index: u16,
        after: Option<Key>,
        list: SlotList,
    ) {
        let Some(slot) = Slot::new(slot_index) else { return };
        let now_ms = self.time.now_ms(now);
        let theirs_is_home = self.homes(table, slot).contains(&node);
        let mut ours = self.tables[table].store.slot_list(slot, now_ms);
        // Compare within the page: after the last key of the page before, up to this one's last.
        let last = list.items.last().map(|(key, _)| key.clone());
        ours.retain(|(key, _)| {
            after.as_ref().is_none_or(|after| key > after)
                && (!list.more || last.as_ref().is_some_and(|last| key <= last))
        });
        let ours: BTreeMap<Key, u64> = ours.into_iter().collect();
        let mut steps = Vec::new();
        for (key, digest) in &list.items {
            if key.slot() == slot && ours.get(key) != Some(digest) {
                steps.push(SyncStep::Fetch(key.clone()));
            }
        }
        if theirs_is_home {
            let theirs: BTreeSet<&Key> = list.items.iter().map(|(key, _)| key).collect();
            let lacking = ours.keys().filter(|key| !theirs.contains(key));
            steps.extend(lacking.cloned().map(SyncStep::Push));
        }
        let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
        *session.left.entry(slot_index).or_default() += steps.len();
        session.urgent.extend(steps);
        match last {
            Some(last) if list.more && after.as_ref() < Some(&last) => {
                let step = SyncStep::List { slot: slot_index, after: Some(last) };
                session.lists.push_front(step);
            }
            _ => self.on_sync_step_done(table, node, slot_index),
        }
    }

    fn on_sync_fetched(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        key: Key,
        fetched: Fetched,
    ) {
        let now_ms = self.time.now_ms(now);
        let slot = key.slot();
        self.counters.add("sync_entries_fetched");
        let merged = match &fetched.entry {
            Some(theirs) => self.merge(now, table, &key, theirs, Admission::Reserve).map(Some),
            None => Ok(self.tables[table].store.get(&key, now_ms)),
        };
        let Ok(merged) = merged else {
            // No room for it: this slot is not in sync, and will be tried again.
            self.counters.add("sync_entries_refused");
            return;
        };
        let theirs_is_home = self.homes(table, slot).contains(&node);
        let push = theirs_is_home && merged.is_some() && merged != fetched.entry;
        if push && let Some(session) = self.tables[table].sync.get_mut(&node) {
            session.urgent.push_back(SyncStep::Push(key));
            return;
        }
        self.on_sync_step_done(table, node, slot.index());
    }

    fn on_sync_step_done(&mut self, table: usize, node: NodeId, slot: u16) {
        let table = &mut self.tables[table];
        let Some(session) = table.sync.get_mut(&node) else { return };
        let Some(left) = session.left.get_mut(&slot) else { return };
        *left -= 1;
        if *left == 0 {
            session.left.remove(&slot);
            if session.agrees {
                table.slots[usize::from(slot)].sources.remove(&node);
            }
        }
    }

    fn go_on_with_sync(&mut self, now: Now, table: usize, node: NodeId) {
        let name = self.tables[table].store.policy().name.clone();
        loop {
            let Some(session) = self.tables[table].sync.get_mut(&node) else { return };
            if session.open >= WINDOW {
                return;
            }
            let Some(step) = session.urgent.pop_front().or_else(|| session.lists.pop_front())
            else {
                if session.open == 0 {
                    self.tables[table].sync.remove(&node);
                    self.counters.add("syncs_finished");
                    if self.slots_unsynced(table) == 0 {
                        self.extend_freshness(now);
                    }
                }
                return;
            };
            session.open += 1;
            let number = session.number;
            let message = match &step {
                SyncStep::List { slot, after } => Slot::new(*slot).map(|slot| {
                    SlotListRequest { table: name.clone(), slot, after: after.clone() }.into()
                }),
                SyncStep::Fetch(key) => {
                    Some(Fetch { table: name.clone(), key: key.clone() }.into())
                }
                SyncStep::Push(key) => {
                    let now_ms = self.time.now_ms(now);
                    let entry = self.tables[table].store.get(key, now_ms);
                    let (table, key) = (name.clone(), key.clone());
                    entry.map(|entry| Replicate { table, key, entry, fresh: Fresh::No }.into())
                }
                SyncStep::Digests => None,
            };
            let sent: Option<u64> = match message {
                Some(message) => {
                    let message: Message = message;
                    let purpose = Purpose::Sync { table, session: number, step: step.clone() };
                    self.call(now, node, purpose, message)
                }
                None => None,
            };
            if sent.is_none() {
                // Its time was over meanwhile, or the node has no address any more.
                if let Some(session) = self.tables[table].sync.get_mut(&node) {
                    session.open -= 1;
                }
                if let SyncStep::Push(key) = step {
                    self.on_sync_step_done(table, node, key.slot().index());
                }
            }
        }
    }

    pub(super) fn slots_unsynced(&self, table: usize) -> usize {
        self.tables[table].slots.iter().filter(|state| state.home && !state.is_synced()).count()
    }
}
