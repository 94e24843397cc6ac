//! Sessions that move outward, ring by ring, as they are used less.
//!
//! The rings of a table's sessions are tables of their own, one after the other ([`Core::outer`]), each with its homes,
//! its epochs, its comparisons and its hand-over. A session lies on the one that the last move brought it to: a note in
//! the entry says so ([`Entry::ring`]). What is elsewhere says nothing of it: a home that lacks a session knows that it
//! is absent only once the rings further out were asked ([`super::bringing`]).
//!
//! - **The primary decides.** Once a session has been cool for long it asks the other homes how hot they saw it: each
//!   counts the uses that it hears of, and the hottest counts. If all find it cool it sends the homes further out a copy
//!   that says that it lies there. Once all have answered, and enough hold it ([`Core::needed_to_move`]), it keeps a
//!   [marker](Entry::marker) in place of its own and tells the other homes of it. A session that is used meanwhile stays.
//! - **Nobody drops what is not in there.** The note has the digest of what was moved. A home whose copy with the note
//!   has another one has something that was not: it keeps that as a *stray*, and brings it to the ring where the
//!   session is itself, in the same way. The same holds for a home further out that holds more than what was brought in.
//! - **A marker is no more than a hint.** It goes when there is need of room, and a late copy of which nothing is here
//!   is doubted ([`Core::doubt_if_late`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::message::{Heat, HeatRequest, Message, Replicated};
use annulus_proto::{Entry, Key, NodeId, Version};
use annulus_shm::Admission;

use super::bundles::Errand;
use super::io::Now;
use super::replica::reject_table;
use super::settings::{Flaw, majority};
use super::{Core, Table};

/// What moves from one table to another.
#[derive(Debug, Default)]
pub(super) struct Cooling {
    /// Where the walk over the sessions stands.
    cursor: u64,
    /// Those whose other homes are asked how hot they saw them.
    asked: BTreeMap<Key, Asked>,
    /// What is under way.
    moves: BTreeMap<Key, Move>,
    bytes: usize,
    /// Until when nothing begins, since too few homes took what was sent, and whether others are to be tried then.
    pub(super) rests_until: Duration,
    goes_on: bool,
}

#[derive(Debug)]
struct Asked {
    /// Who has not answered.
    waiting: BTreeSet<NodeId>,
    why: Outward,
}

/// Why a session is to go one ring outward.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outward {
    /// It has been cool for long.
    Cool,
    /// There is need of room, and it is no hotter than this.
    Displaced {
        /// See [`Store::level`](super::store::Store::level).
        limit: i16,
    },
}

/// Why something moves.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// This node decided that.
    Decided(Outward),
    /// Another did, and it is brought after.
    Stray,
}

#[derive(Debug)]
struct Move {
    /// What is sent.
    copy: Entry,
    /// The table that it goes to.
    to: usize,
    why: Why,
    held: usize,
    needed: usize,
    waiting: BTreeSet<NodeId>,
}

/// How many sessions are looked at with each tick: ten thousand a second, and of a ring that nothing goes outward from,
/// which may be on disk, some six hundred.
const LOOKED_STEP: usize = 1_024;
const LOOKED_STEP_STRAYS: usize = 64;
/// How many moves may begin with each tick, 2,560 a second, and be under way.
pub(super) const MOVES_STEP: usize = 256;
const MOVES_MAX: usize = 512;
/// How many bytes of sessions may be under way.
const MOVES_BYTES_MAX: usize = 4 << 20;
/// How long a ring that took too little is left alone.
const REST: Duration = Duration::from_secs(5);
/// After how long of little use strays are looked for where nothing goes outward.
const STRAYS_AFTER: Duration = Duration::from_secs(60);

impl Core {
    /// The table of the next ring outward of a table's sessions.
    pub(super) fn outer(&self, table: usize) -> Option<usize> {
        let ring = self.tables[table].store.policy().ring;
        let next = self.tables.get(table + 1)?;
        (next.store.policy().ring == ring + 1).then_some(table + 1)
    }

    /// The table of the innermost ring of a table's sessions.
    pub(super) fn innermost(&self, table: usize) -> usize {
        table - usize::from(self.tables[table].store.policy().ring)
    }

    /// Whether an entry of this table is all there, and lies where its session is.
    pub(super) fn is_here(&self, table: usize, entry: &Entry) -> bool {
        let ring = self.tables[table].store.policy().ring;
        entry.is_ended() || entry.ring() == ring && !entry.is_marker()
    }

    /// Goes on looking for what is to move.
    pub(super) fn cool(&mut self, now: Now) {
        if !self.is_up() || self.stopping {
            return;
        }
        for table in 0..self.tables.len() {
            let is_alone = self.outer(table).is_none() && self.innermost(table) == table;
            if !is_alone {
                self.make_room_inside(now, table);
                self.cool_table(now, table);
            }
        }
    }

    fn cool_table(&mut self, now: Now, table: usize) {
        let now_ms = self.time.now_ms(now);
        let Table { store, cooling, .. } = &self.tables[table];
        if cooling.rests_until > now.monotonic {
            return;
        }
        let (after, step) = match store.policy().cools_after {
            Some(after) => (after, LOOKED_STEP),
            None => (STRAYS_AFTER, LOOKED_STEP_STRAYS),
        };
        let mut cool = Vec::new();
        let next = store.cool_ones((cooling.cursor, step), now_ms, after, &mut |key| {
            cool.push(key);
        });
        let mut begun = 0;
        for key in cool {
            let cooling = &self.tables[table].cooling;
            if begun == MOVES_STEP || cooling.is_busy() {
                // The same ones are looked at again, unless they could not go.
                if std::mem::take(&mut self.tables[table].cooling.goes_on) {
                    break;
                }
                return;
            }
            if !cooling.is_under_way(&key) {
                begun += usize::from(self.consider_move(now, table, key, Outward::Cool));
            }
        }
        self.tables[table].cooling.cursor = next;
    }

    /// Begins to move a session outward for a reason that it may have, if it is this node's to do. Returns whether it
    /// does.
    pub(super) fn consider_move(&mut self, now: Now, table: usize, key: Key, why: Outward) -> bool {
        let (slot, now_ms) = (key.slot(), self.time.now_ms(now));
        if self.tables[table].store.watched().is_extra(slot, &key) {
            return false;
        }
        let Some(entry) = self.tables[table].store.get(&key, now_ms) else { return false };
        if entry.is_ended() || entry.is_marker() || entry.is_expired(now_ms) {
            return false;
        }
        if !self.is_here(table, &entry) {
            let to = self.innermost(table) + usize::from(entry.ring());
            // A ring that there is no more holds nothing: what is here is the session.
            let is_there = to < self.tables.len() && self.innermost(to) == self.innermost(table);
            return is_there && self.begin_move(now, table, &key, (entry, to, Why::Stray));
        }
        if !self.is_to_go(now, table, (&key, &entry), why) {
            return false;
        }
        let me = self.id();
        let others = self.homes(table, slot).into_iter();
        let waiting: BTreeSet<NodeId> = others.filter(|home| *home != me).collect();
        for home in &waiting {
            self.gather_heat(table, *home, key.clone());
        }
        self.tables[table].cooling.asked.insert(key.clone(), Asked { waiting, why });
        self.judge_heat(now, table, &key);
        true
    }

    /// Whether a session is to go outward, as far as this node knows, and by this node's word.
    fn is_to_go(
        &mut self,
        now: Now,
        table: usize,
        (key, entry): (&Key, &Entry),
        why: Outward,
    ) -> bool {
        let (slot, now_ms) = (key.slot(), self.time.now_ms(now));
        let store = &mut self.tables[table].store;
        let limit = match why {
            Outward::Cool => store.level_to_cool(),
            Outward::Displaced { limit } => Some(limit),
        };
        let Some(limit) = limit else { return false };
        store.level(key, now_ms).is_some_and(|level| level <= limit)
            && match why {
                Outward::Cool => self.is_primary(table, slot),
                Outward::Displaced { .. } => self.ring_homes(table, slot).contains(&self.id()),
            }
            && !entry.is_placed()
            && self.vouches(now, table, slot)
            && self
                .outer(table)
                .is_some_and(|to| self.ring_homes(to, slot).len() >= self.needed_to_move(to))
    }

    /// What another home is told that asks how hot sessions are.
    pub(super) fn heat_seen(&mut self, now: Now, request: &HeatRequest) -> Message {
        let Some(table) = self.table_named(&request.table) else {
            return reject_table(&request.table);
        };
        let now_ms = self.time.now_ms(now);
        let keys = request.keys.iter().take(HeatRequest::KEYS_MAX);
        let own: Vec<&Key> = keys.take_while(|key| self.owns(key.slot())).collect();
        let store = &mut self.tables[table].store;
        let level = |key: &Key| store.level(key, now_ms).unwrap_or(i16::MIN);
        Heat { cores: self.cores as u16, levels: own.into_iter().map(level).collect() }.into()
    }

    /// A home has said how hot it saw some sessions, or has not.
    pub(super) fn on_heats(
        &mut self,
        now: Now,
        table: usize,
        node: NodeId,
        keys: Vec<Key>,
        answer: Option<Message>,
    ) {
        let now_ms = self.time.now_ms(now);
        let mut levels = Vec::new();
        if let Some(Message::Heat(heat)) = answer {
            self.note_cores(node, heat.cores);
            levels = heat.levels;
        }
        let is_answered = !levels.is_empty();
        let mut levels = levels.into_iter();
        for key in keys {
            let level = levels.next();
            let Table { store, cooling, .. } = &mut self.tables[table];
            if let Some(level) = level {
                store.raise_level(&key, level, now_ms);
            }
            let Some(asked) = cooling.asked.get_mut(&key) else { continue };
            // Who does not answer does not keep it here; who has answered in part is asked again.
            if level.is_none() && is_answered {
                self.gather_heat(table, node, key);
                continue;
            }
            asked.waiting.remove(&node);
            self.judge_heat(now, table, &key);
        }
    }

    /// Once all homes found it cool it goes.
    fn judge_heat(&mut self, now: Now, table: usize, key: &Key) {
        let asked = self.tables[table].cooling.asked.get(key);
        let Some(&Asked { why, .. }) = asked.filter(|asked| asked.waiting.is_empty()) else {
            return;
        };
        self.tables[table].cooling.asked.remove(key);
        let (slot, now_ms) = (key.slot(), self.time.now_ms(now));
        let Some(entry) = self.tables[table].store.get(key, now_ms) else { return };
        let is_here = self.is_here(table, &entry) && !entry.is_ended();
        let Some(to) = self.outer(table) else { return };
        if !is_here || !self.is_to_go(now, table, (key, &entry), why) {
            return;
        }
        let after = entry.version.max(entry.moved_at());
        let Ok(version) = self.stamp(now, table, slot, after) else { return };
        let copy = self.moved(table, key, entry, version, to);
        self.begin_move(now, table, key, (copy, to, Why::Decided(why)));
    }

    /// How many homes of a table have to hold what is dropped elsewhere then: as many as have to hold a write when no
    /// member is on its way in or out, and a majority at least. While several leave, a slot has fewer homes than that; and
    /// a ring that few serve is not to hold alone what more held before.
    fn needed_to_move(&self, to: usize) -> usize {
        let policy = self.tables[to].store.policy();
        let members = self.placement(to).members.max(self.standing.innermost().members);
        let homes = members.min(policy.replicas.get().into());
        policy.write.count(homes).max(majority(homes)).max(1)
    }

    /// How many more members would have to serve the ring of a table before sessions go there; 0 of the innermost.
    pub(super) fn members_lacking(&self, table: usize) -> usize {
        match self.innermost(table) == table {
            true => 0,
            false => self.needed_to_move(table).saturating_sub(self.placement(table).members),
        }
    }

    /// An entry that lies on the ring of another table from this version on.
    pub(super) fn moved(
        &self,
        table: usize,
        key: &Key,
        mut entry: Entry,
        version: Version,
        to: usize,
    ) -> Entry {
        let ring = self.tables[to].store.policy().ring;
        let store = &self.tables[table].store;
        entry.move_to(ring, version, |entry| store.digest(key, entry));
        entry
    }

    fn begin_move(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        (copy, to, why): (Entry, usize, Why),
    ) -> bool {
        let homes = self.homes(to, key.slot());
        let needed = self.needed_to_move(to);
        if homes.len() < needed {
            return false;
        }
        let (held, waiting) = (0, BTreeSet::new());
        let mut moving = Move { copy, to, why, held, needed, waiting };
        let me = self.id();
        for home in homes {
            if home == me {
                let copy = moving.copy.clone();
                if let Ok(taken) = self.merge(now, to, key, &copy, Admission::Ordinary) {
                    self.count_held(now, (table, key), &mut moving, &taken);
                }
                continue;
            }
            let copy = (key.clone(), moving.copy.clone());
            self.gather_copy(to, home, copy, Errand::Move { from: table });
            moving.waiting.insert(home);
        }
        self.counters.add("moves_begun");
        let cooling = &mut self.tables[table].cooling;
        cooling.bytes += size(&moving.copy);
        cooling.moves.insert(key.clone(), moving);
        self.judge_move(now, table, key);
        true
    }

    pub(super) fn on_move_answer(
        &mut self,
        now: Now,
        (table, key): (usize, &Key),
        node: NodeId,
        answer: Option<Replicated>,
    ) {
        let Some(mut moving) = self.tables[table].cooling.moves.remove(key) else { return };
        moving.waiting.remove(&node);
        match answer {
            Some(Replicated::Stored) => moving.held += 1,
            Some(Replicated::Differs(theirs)) => {
                self.count_held(now, (table, key), &mut moving, &theirs);
            }
            _ => {
                self.counters.add("moves_refused");
                self.hint(moving.to, node, key);
            }
        }
        self.tables[table].cooling.moves.insert(key.clone(), moving);
        self.judge_move(now, table, key);
    }

    /// A home further out has this now. It holds what was sent, or knows better.
    fn count_held(
        &mut self,
        now: Now,
        (table, key): (usize, &Key),
        moving: &mut Move,
        theirs: &Entry,
    ) {
        let is_held = theirs.birth == moving.copy.birth && self.is_held(moving.to, theirs);
        match is_held {
            true => moving.held += 1,
            false => self.learn_of(now, table, key, &moving.copy, theirs),
        }
    }

    /// Whether an entry has the session, on the ring of a table.
    fn is_held(&self, table: usize, entry: &Entry) -> bool {
        !entry.is_ended() && self.is_here(table, entry)
    }

    /// The ring further out knows better: the session has ended, is another one, or was brought back here after this
    /// node took it for the last time.
    fn learn_of(&mut self, now: Now, table: usize, key: &Key, copy: &Entry, theirs: &Entry) {
        let is_later = theirs.moved_at() > copy.moved_at();
        let came_back = is_later && theirs.ring() == self.tables[table].store.policy().ring;
        if theirs.is_ended() || theirs.birth > copy.birth {
            let _ = self.merge(now, table, key, theirs, Admission::Reserve);
        } else if came_back {
            let _ = self.merge(now, table, key, &theirs.marker(), Admission::Reserve);
        }
    }

    fn judge_move(&mut self, now: Now, table: usize, key: &Key) {
        let Some(moving) = self.tables[table].cooling.moves.get(key) else { return };
        if !moving.waiting.is_empty() && !self.has(Flaw::DropsUnheld) {
            return; // The more hold it the better, and nobody waits for this.
        }
        let is_held = moving.held >= moving.needed || self.has(Flaw::DropsUnheld);
        let cooling = &mut self.tables[table].cooling;
        let Some(moving) = cooling.moves.remove(key) else { return };
        cooling.bytes -= size(&moving.copy);
        if let Why::Decided(Outward::Displaced { .. }) = moving.why {
            self.tables[table].relief.count(is_held);
        }
        let cooling = &mut self.tables[table].cooling;
        if !is_held {
            // A ring that is full is so for the next one, too.
            (cooling.rests_until, cooling.goes_on) = (now.monotonic + REST, true);
            return self.counters.add("moves_failed");
        }
        let now_ms = self.time.now_ms(now);
        match (self.tables[table].store.give_up(key, &moving.copy, now_ms), moving.why) {
            (Some(marker), Why::Decided(why)) => {
                self.counters.add(match why {
                    Outward::Cool => "sessions_cooled",
                    Outward::Displaced { .. } => "sessions_displaced",
                });
                self.tell_others(now, table, key, &marker);
            }
            (Some(_), Why::Stray) => self.counters.add("strays_moved"),
            // It was used meanwhile, or has ended: the copies further out are to go.
            (None, why) => {
                self.counters.add("moves_overtaken");
                if let Why::Decided(_) = why
                    && self.innermost(table) == table
                {
                    self.settle_overlap(now, table, key);
                }
            }
        }
    }

    /// Sends all homes of a table's slot what they are to know of a session, and takes it in here if this is one.
    pub(super) fn tell_others(&mut self, now: Now, table: usize, key: &Key, entry: &Entry) {
        let me = self.id();
        for home in self.homes(table, key.slot()) {
            match home == me {
                true => drop(self.merge(now, table, key, entry, Admission::Reserve)),
                false => {
                    let copy = (key.clone(), entry.clone());
                    self.gather_copy(table, home, copy, Errand::Repair { hint: false });
                }
            }
        }
    }

    /// Whether the rings further out may hold something of a session: it was there, or is not known here.
    pub(super) fn may_be_further_out(&mut self, now: Now, table: usize, key: &Key) -> bool {
        if self.outer(table).is_none() {
            return false;
        }
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(key, now_ms);
        stored.is_none_or(|entry| entry.moved_at() > Version::ZERO)
    }

    /// Whether a table's slot has homes enough for the rings further out to give up what they hold of a session. While
    /// members join, drain or are dead it may have a single one, and what that holds alone may be lost with it.
    pub(super) fn has_homes_enough(&self, table: usize, key: &Key) -> bool {
        self.homes(table, key.slot()).len() >= self.needed_to_move(table)
    }

    /// Tells whoever may hold a session further out what became of it: it has ended, another began, or it came in.
    pub(super) fn tell_further_out(&mut self, now: Now, table: usize, key: &Key, entry: &Entry) {
        let mut inner = table;
        while let Some(outer) = self.outer(inner) {
            self.tell_others(now, outer, key, entry);
            inner = outer;
        }
    }

    /// What a home of a table's slot is to know of a session, as far as it is known here: what is here, and whether it
    /// has ended.
    pub(super) fn known_of(&mut self, table: usize, key: &Key, now_ms: u64) -> Option<Entry> {
        let own = self.tables[table].store.get(key, now_ms);
        let innermost = self.innermost(table);
        if innermost == table {
            return own;
        }
        let inside = self.tables[innermost].store.get(key, now_ms);
        let went = inside.filter(Entry::is_ended);
        match (own, went) {
            (Some(mut own), Some(went)) => {
                self.tables[table].store.join(&mut own, &went);
                Some(own)
            }
            (own, went) => own.or(went),
        }
    }
}

impl Cooling {
    /// How many sessions are about to go.
    pub(super) fn under_way(&self) -> usize {
        self.asked.len() + self.moves.len()
    }

    pub(super) fn is_under_way(&self, key: &Key) -> bool {
        self.asked.contains_key(key) || self.moves.contains_key(key)
    }

    /// What is sent of a session that moves.
    pub(super) fn copy_under_way(&self, key: &Key) -> Option<Entry> {
        self.moves.get(key).map(|moving| moving.copy.clone())
    }

    /// Whether nothing more may begin.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way() >= MOVES_MAX || self.bytes >= MOVES_BYTES_MAX
    }
}

pub(super) fn size(entry: &Entry) -> usize {
    entry.body.as_ref().map_or(0, annulus_proto::Body::size)
}
