//! Nodes that hold a session besides the homes of its slot.
//!
//! A session may be pinned to a node, and may ask for more copies than its table's `replicas`: the entry itself
//! says so ([`Entry::pin`], `replicas` of its attributes), so whoever has the entry knows. Those nodes are its
//! *extra homes*. The homes stay what they are: who acknowledges, decides, compares and hands over goes by
//! them alone. An extra home has every write sent to it as well, and nothing of its slot but that entry.
//!
//! - **It is believed for two beats.** What is here answers a request only if a majority of the homes has told
//!   what it holds, and was asked within [`TRUST`]; else they are asked first. So an extra home shows
//!   nothing that ended longer ago than that, whatever was lost on the way to it.
//! - **It coordinates plain reads, updates and touches**, in tables that go on without a majority. The write
//!   counts by the homes that hold it. Starts, ends and all that is decided it leaves to the homes.
//! - **It is looked after one entry at a time.** The primary asks each extra home in turns for the digest of what
//!   it holds, and an extra home the primary; whatever differs is exchanged.
//! - **It lets go with the word of all.** A copy that is not meant to be here any more is sent to every node that
//!   is to hold the session, and dropped once all of them have all of it.
//!
//! A pin to a node that is not there is as good as none, and stays: the session is served by its homes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::limits::REPLICAS_MAX;
use annulus_proto::message::{
    CheckCopy, Failure, Fresh, Message, Pinned, PinnedRequest, Rejected, Replicate, Replicated,
    Role,
};
use annulus_proto::{Entry, Key, NodeId, Slot};
use annulus_shm::Admission;
use annulus_slots::Phase;

use super::calls::Purpose;
use super::coordinator::Pending;
use super::io::{Caller, Now};
use super::replica::reject_table;
use super::settings::Partition;
use super::{Core, Table};

/// What is under way for the sake of extra homes, in one table.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// Where the round stands; `None` = none is under way.
    place: Option<(Slot, Key)>,
    /// When the next round begins.
    next_round: Duration,
    /// Whether it begins soon after this one.
    again: bool,
    /// Questions that are not answered yet.
    open: usize,
    /// Copies that are to go, by key: whose word is missing.
    letting_go: BTreeMap<Key, LettingGo>,
}

#[derive(Debug)]
struct LettingGo {
    /// The digest of what was sent.
    digest: u64,
    waiting: BTreeSet<NodeId>,
}

/// Those besides the homes to send a change to.
pub(super) struct Extras {
    /// First those that the entry asks for by number; without this node.
    pub(super) nodes: Vec<NodeId>,
    /// How many these are.
    pub(super) counted: usize,
    /// Whether this node is one of them, too.
    pub(super) is_counted: bool,
}

/// How long the answer of the homes counts: two beats.
const TRUST: Duration = Duration::from_millis(400);
/// How many questions may be open at a time.
const OPEN_MAX: usize = 64;
/// How many entries are looked at with each tick: some six hundred a second.
const STEP: usize = 64;
/// How many bytes of entries are sent for this with each tick, about.
const STEP_BYTES: usize = 1 << 20;
/// How long after a change of the members a round begins.
const SOON: Duration = Duration::from_millis(500);
/// The most sessions on a page of those that are pinned, and about how many bytes of them.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 128 << 10;
/// How many are looked at for one page, some milliseconds at most.
const PAGE_LOOKED: usize = 4_096;

impl Core {
    /// The nodes that are to hold an entry besides the homes of its slot, as this node sees the members:
    /// first those that it asks for by number, and how many these are.
    pub(super) fn extra_homes(
        &self,
        table: usize,
        slot: Slot,
        entry: &Entry,
    ) -> (Vec<NodeId>, usize) {
        let Some(body) = entry.body.as_ref().filter(|_| entry.is_placed()) else {
            return (Vec::new(), 0);
        };
        let homes = self.homes(table, slot);
        let wanted = usize::from(body.attributes.replicas).min(REPLICAS_MAX);
        let mut extras = Vec::new();
        if wanted > usize::from(self.tables[table].store.policy().replicas.get()) {
            let others = self.placement(table).ring.candidates(slot).into_iter();
            let others = others.filter(|node| !homes.contains(node));
            extras.extend(others.take(wanted.saturating_sub(homes.len())));
        }
        let counted = extras.len();
        let is_new = |pin: &NodeId| !homes.contains(pin) && !extras.contains(pin);
        let pin = body.pin().filter(is_new).filter(|pin| self.is_active(*pin));
        extras.extend(pin);
        (extras, counted)
    }

    /// Whether this node is to hold an entry besides its homes.
    fn is_meant(&self, table: usize, slot: Slot, entry: &Entry) -> bool {
        entry.is_placed() && self.extra_homes(table, slot, entry).0.contains(&self.id())
    }

    /// Whether this node takes a copy in besides its homes, rather than as one of them.
    pub(super) fn takes_as_extra(
        &self,
        table: usize,
        key: &Key,
        slot: Slot,
        offered: &Entry,
    ) -> bool {
        let watched = self.tables[table].store.watched();
        (watched.extras() > 0 || offered.is_placed())
            && !self.is_home(table, slot)
            && self.tables[table].custody.holding(slot.index()).phase() != Phase::Drain
            && (watched.is_extra(slot, key) || self.is_meant(table, slot, offered))
    }

    /// Whether this node holds what a request is about besides its homes.
    pub(super) fn holds_extra(&self, pending: &Pending) -> bool {
        let watched = self.tables[pending.table].store.watched();
        watched.extras() > 0 && watched.is_extra(pending.slot, &pending.request.key)
    }

    /// Whether this node does what is asked for though it is no home: it holds the session besides them.
    pub(super) fn coordinates_as_extra(&mut self, now: Now, pending: &Pending) -> bool {
        let (table, slot, key) = (pending.table, pending.slot, &pending.request.key);
        if !self.holds_extra(pending)
            || self.tables[table].store.policy().partition == Partition::Refuse
            || !pending.request.operation.suits_extra_home()
        {
            return false;
        }
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(key, now_ms);
        stored.is_some_and(|entry| self.is_meant(table, slot, &entry))
    }

    /// Whether what is here besides the homes answers by itself: these were asked lately.
    pub(super) fn trusts_extra(&self, now: Now, table: usize, slot: Slot, key: &Key) -> bool {
        let store = &self.tables[table].store;
        let asked = store.watched().confirmed(slot, key);
        asked.is_some_and(|asked| asked + TRUST.min(store.policy().stale_max) > now.monotonic)
    }

    /// A majority of the homes, asked at this time, has told what it holds, and this node has it now.
    pub(super) fn confirm_extra(&mut self, table: usize, slot: Slot, key: &Key, asked: Duration) {
        let watched = self.tables[table].store.watched();
        if watched.extras() > 0 && watched.is_extra(slot, key) {
            self.tables[table].store.watched_mut().confirm(slot, key, asked);
        }
    }

    /// Those besides the homes to send a change of an entry to. What is stored before it counts, too: who
    /// holds that is told.
    pub(super) fn extra_homes_of_change(
        &mut self,
        now: Now,
        pending: &Pending,
        entry: &Entry,
    ) -> Extras {
        let (table, slot, key) = (pending.table, pending.slot, &pending.request.key);
        let me = self.id();
        let (mut nodes, mut counted) = self.extra_homes(table, slot, entry);
        let is_counted = nodes[..counted].contains(&me);
        counted -= usize::from(is_counted);
        if self.tables[table].store.watched().contains(slot, key) {
            let now_ms = self.time.now_ms(now);
            let before = self.tables[table].store.get(key, now_ms);
            let before = before.map(|before| self.extra_homes(table, slot, &before).0);
            nodes.extend(before.into_iter().flatten());
        }
        let mut seen = BTreeSet::from([me]);
        nodes.retain(|node| seen.insert(*node));
        Extras { nodes, counted, is_counted }
    }

    /// Why a session cannot be pinned to a node, if it cannot.
    pub(super) fn cannot_pin(&self, node: NodeId) -> Option<Failure> {
        let why = || format!("no member {node} takes part, to which a session could be pinned");
        (!self.is_active(node)).then(|| Failure::Refused(why()))
    }

    /// Another node has done something with a session that is here besides its homes: what was answered
    /// by those who were asked before counts no more.
    pub(super) fn distrust_extra(&mut self, now: Now, table: usize, slot: Slot, key: &Key) {
        if self.tables[table].store.watched().extras() > 0 {
            self.tables[table].store.watched_mut().distrust(slot, key, now.monotonic);
        }
    }

    /// Takes a copy in besides the homes.
    pub(super) fn merge_as_extra(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        offered: &Entry,
    ) -> Result<Entry, Failure> {
        let now_ms = self.time.now_ms(now);
        self.counters.add("copies_besides_homes");
        let merged = self.tables[table].store.merge_extra(key, offered, now_ms)?;
        if !self.is_meant(table, key.slot(), &merged) {
            // It is let go of soon.
            self.place_anew(now);
        }
        Ok(merged)
    }

    /// Whatever was placed by the members that there were is looked at soon.
    pub(super) fn place_anew(&mut self, now: Now) {
        for Table { placing, .. } in &mut self.tables {
            placing.again |= placing.place.is_some();
            placing.next_round = placing.next_round.min(now.monotonic + SOON);
        }
    }

    /// Goes on with the round over all that is looked after.
    pub(super) fn look_after_placed(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            let state = &self.tables[table];
            let is_time =
                state.placing.place.is_some() || state.placing.next_round <= now.monotonic;
            if !is_time || state.store.watched().len() == 0 || !self.is_up() {
                continue;
            }
            let mut bytes = 0;
            for _ in 0..STEP {
                let state = &mut self.tables[table];
                if state.placing.open >= OPEN_MAX || bytes >= STEP_BYTES {
                    break;
                }
                let next = state.store.watched().after(state.placing.place.as_ref());
                state.placing.place.clone_from(&next);
                let Some((slot, key)) = next else {
                    let again = std::mem::take(&mut state.placing.again);
                    let wait = if again { SOON } else { self.settings.sync_interval };
                    state.placing.next_round = now.monotonic + wait;
                    break;
                };
                bytes += self.look_after(now, table, slot, &key);
            }
        }
    }

    /// Looks after one entry. Returns how many bytes of it are sent.
    fn look_after(&mut self, now: Now, table: usize, slot: Slot, key: &Key) -> usize {
        let now_ms = self.time.now_ms(now);
        let Some(entry) = self.tables[table].store.get(key, now_ms) else {
            self.tables[table].store.forget_watched(slot, key);
            return 0;
        };
        let me = self.id();
        let is_extra = self.tables[table].store.watched().is_extra(slot, key);
        let (extras, _) = self.extra_homes(table, slot, &entry);
        let homes = self.homes(table, slot);
        if !is_extra {
            if homes.first() == Some(&me) {
                extras.into_iter().for_each(|node| self.check_at(now, table, node, key, &entry));
            }
            return 0;
        }
        if extras.contains(&me) {
            let primary = homes.first().copied();
            primary.into_iter().for_each(|node| self.check_at(now, table, node, key, &entry));
            return 0;
        }
        let holders: Vec<NodeId> =
            homes.iter().chain(&extras).copied().filter(|node| *node != me).collect();
        let is_under_way = self.tables[table].placing.letting_go.contains_key(key);
        if holders.is_empty() || is_under_way {
            return 0;
        }
        let digest = self.tables[table].store.digest(key, &entry);
        let waiting = holders.iter().copied().collect();
        let letting_go = LettingGo { digest, waiting };
        self.tables[table].placing.letting_go.insert(key.clone(), letting_go);
        let size = entry.body.as_ref().map_or(0, annulus_proto::Body::size);
        for holder in &holders {
            let name = self.tables[table].store.policy().name.clone();
            let (key, entry) = (key.clone(), entry.clone());
            let message =
                Replicate { table: name, key: key.clone(), entry, fresh: Fresh::No, under: None };
            let purpose = Purpose::LetGo { table, key: key.clone() };
            match self.call(now, *holder, purpose, message) {
                Some(_) => self.tables[table].placing.open += 1,
                None => drop(self.tables[table].placing.letting_go.remove(&key)),
            }
        }
        size * holders.len()
    }

    fn check_at(&mut self, now: Now, table: usize, node: NodeId, key: &Key, entry: &Entry) {
        let name = self.tables[table].store.policy().name.clone();
        let digest = self.tables[table].store.digest(key, entry);
        let message = CheckCopy { table: name, key: key.clone(), digest };
        let purpose = Purpose::Check { table, key: key.clone() };
        if self.call(now, node, purpose, message).is_some() {
            self.counters.add("copies_checked");
            self.tables[table].placing.open += 1;
        }
    }

    /// What this node holds of an entry that another one holds, too.
    pub(super) fn check_copy(&mut self, now: Now, request: &CheckCopy) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(&request.key, now_ms);
        let answer = match stored {
            None => Replicated::Missing,
            Some(entry)
                if self.tables[table].store.digest(&request.key, &entry) == request.digest =>
            {
                Replicated::Stored
            }
            Some(entry) => Replicated::Differs(entry),
        };
        answer.into()
    }

    /// Another node has said what it holds of an entry, or will not.
    pub(super) fn on_check_answer(
        &mut self,
        now: Now,
        (table, key): (usize, &Key),
        node: NodeId,
        answer: Option<Message>,
    ) {
        self.tables[table].placing.open -= 1;
        match answer {
            Some(Message::Replicated(Replicated::Missing)) => {
                self.counters.add("copies_missed");
                self.repair(now, table, node, key.clone(), false);
            }
            Some(Message::Replicated(Replicated::Differs(theirs))) => {
                self.counters.add("copies_differed");
                let merged = self.merge(now, table, key, &theirs, Admission::Reserve);
                if merged.is_ok_and(|merged| merged != theirs) {
                    self.repair(now, table, node, key.clone(), false);
                }
            }
            _ => {}
        }
    }

    /// A node that is to hold an entry has it, or will not say so.
    pub(super) fn on_let_go_answer(
        &mut self,
        now: Now,
        (table, key): (usize, &Key),
        node: NodeId,
        answer: Option<Message>,
    ) {
        let now_ms = self.time.now_ms(now);
        self.tables[table].placing.open -= 1;
        let has_it = match answer {
            Some(Message::Replicated(Replicated::Stored)) => true,
            Some(Message::Replicated(Replicated::Differs(theirs))) => {
                // It may say that this node is to hold it after all.
                let _ = self.merge(now, table, key, &theirs, Admission::Reserve);
                true
            }
            _ => false,
        };
        let placing = &mut self.tables[table].placing;
        let Some(letting_go) = placing.letting_go.get_mut(key) else { return };
        if !has_it {
            placing.letting_go.remove(key);
            return;
        }
        letting_go.waiting.remove(&node);
        if !letting_go.waiting.is_empty() {
            return;
        }
        let digest = letting_go.digest;
        placing.letting_go.remove(key);
        let store = &mut self.tables[table].store;
        let is_same = store.get(key, now_ms).is_some_and(|it| store.digest(key, &it) == digest);
        if is_same && store.watched().is_extra(key.slot(), key) {
            store.drop_entry(key, now_ms);
            self.counters.add("copies_let_go");
        }
    }

    /// A page of the sessions that are pinned to a node, of the slots whose primary is this one.
    pub(super) fn list_pinned(
        &mut self,
        now: Now,
        caller: Caller,
        request: &PinnedRequest,
    ) -> Message {
        let may = match caller {
            Caller::Client(role) => role.includes(Role::Operator),
            Caller::Node(_) => false,
        };
        if !may {
            let why = "to list what is pinned takes the role operator".to_owned();
            return Rejected::Malformed { why }.into();
        }
        let Some(table) = self.table_of_clients(&request.table) else {
            return reject_table(&request.table);
        };
        let now_ms = self.time.now_ms(now);
        let me = self.id();
        let mut place = request.after.as_ref().map(|key| (key.slot(), key.clone()));
        let (mut sessions, mut bytes, mut looked) = (Vec::new(), 0, 0);
        while let Some((slot, key)) = self.tables[table].store.watched().after(place.as_ref()) {
            looked += 1;
            if sessions.len() == PAGE || bytes >= PAGE_BYTES || looked > PAGE_LOOKED {
                let next = place.map(|(_, key)| key);
                return Pinned { sessions, next: Some((self.number as u16, next)) }.into();
            }
            let is_primary = self.homes(table, slot).first() == Some(&me);
            let entry = self.tables[table].store.get(&key, now_ms);
            if let Some(entry) = entry.filter(|_| is_primary)
                && entry.pin() == Some(request.to)
                && !entry.is_expired(now_ms)
            {
                bytes += key.as_bytes().len() + PINNED_OVERHEAD_BYTES;
                let size = entry.body.as_ref().map_or(0, annulus_proto::Body::size) as u64;
                sessions.push((key.clone(), entry.birth, size));
            }
            place = Some((slot, key));
        }
        let after = self.number + 1;
        let next = (after < self.cores).then_some((after as u16, None));
        Pinned { sessions, next }.into()
    }
}

const PINNED_OVERHEAD_BYTES: usize = 48;
