//! Room in a table that has a ring further out.
//!
//! A full ring moves its coolest sessions outward before their time, as it moves those that have cooled
//! ([`super::cooling`]), and whoever writes what there is no room for waits until there is.
//!
//! - **Primaries begin early**, at [`FIRST_PART`] below what new sessions may take. Where their tables are larger, or
//!   they are too slow, any home moves what it holds once it is fuller than [`LAST_PART`] below that, or another home of
//!   the session has told it that it has no room: two homes that move one session do no harm, as two that both take
//!   themselves for the primary do not. A home that had to refuse copies vouches for nothing that it could move.
//! - **New sessions stop there** (and so do those that are brought in): what is left is for what other homes have taken
//!   already.
//! - **Whoever finds no room waits**, as long as his patience lasts, and is told *table full* then, or at once if the ring further out has taken nothing for [`FAILING`]. A session that is only read is read where it is.
//! - **It ends by itself**: nothing moves outward below the mark, and what is used comes in as there is room.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::message::Failure;
use annulus_proto::{Entry, HalfLife, Key, NodeId, Slot};

use super::bringing::Bringing;
use super::cooling::{MOVES_STEP, Outward};
use super::coordinator::{Pending, Stage};
use super::io::Now;
use super::{Core, Table};

/// How a table is relieved.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// How many moves have done it since this was last looked at, and how many have not.
    taken: usize,
    failed: usize,
    /// Until when no other one begins.
    rests_until: Duration,
    /// Since when the ring further out has taken nothing that it was to take.
    failing_since: Option<Duration>,
    /// Who had no room for copies from here, and how many, since this was last looked at.
    refused_by: BTreeMap<NodeId, usize>,
}

/// One in so many of what new sessions may take is kept free by primaries, and by all homes.
const FIRST_PART: usize = 16;
const LAST_PART: usize = 32;
/// One in so many of those that were looked at may go, the coolest.
const COOLEST_PART: usize = 4;
/// How many are looked at with each tick.
const SAMPLE_MIN: usize = 64;
const SAMPLE_MAX: usize = 4_096;
/// How long a ring that has taken nothing is left alone, and after how long nobody waits for it any more.
const REST: Duration = Duration::from_secs(1);
const FAILING: Duration = Duration::from_secs(2);
/// How long those who wait for room pause, those beyond as much longer as keeps their number per second.
const PAUSE: Duration = Duration::from_millis(40);
const TRIES_PER_SECOND: u32 = 20_000;
/// Nobody waits longer than until this is left of his patience: the answer takes its time, too.
pub(super) const LEFT_FOR_ANSWER: Duration = Duration::from_millis(200);

impl Relief {
    /// Notes that a move is over, and whether the ring further out has taken the session.
    pub(super) fn count(&mut self, is_held: bool) {
        self.taken += usize::from(is_held);
        self.failed += usize::from(!is_held);
    }

    /// Goes by how the last moves ended.
    fn judge(&mut self, now: Now) {
        let (taken, failed) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.failed));
        if taken > 0 {
            self.failing_since = None;
        } else if failed > 0 {
            self.fail(now);
        }
    }

    fn fail(&mut self, now: Now) {
        self.failing_since.get_or_insert(now.monotonic);
        self.rests_until = now.monotonic + REST;
    }

    fn fails(&self, now: Now) -> bool {
        self.failing_since.is_some_and(|since| since + FAILING <= now.monotonic)
    }
}

impl Core {
    /// Begins to move the coolest sessions of a table outward, if it is nearly full.
    pub(super) fn make_room_inside(&mut self, now: Now, table: usize) {
        let refused_by = std::mem::take(&mut self.tables[table].relief.refused_by);
        let is_full =
            self.outer(table).is_some() && self.tables[table].store.beyond(FIRST_PART) > 0;
        if !is_full && refused_by.is_empty() {
            self.tables[table].relief = Relief::default();
            return;
        }
        let now_ms = self.time.now_ms(now);
        let dropped = self.tables[table].store.drop_expired(now_ms);
        self.counters.add_many("entries_dropped_expired", dropped);
        let dropped = self.see_to_overdue(now, table, true);
        self.counters.add_many("entries_dropped_expired", dropped);
        // Near copies go first: what they take counts as taken.
        let near = self.tables[table].store.beyond(FIRST_PART).min(MOVES_STEP);
        let dropped = self.tables[table].store.drop_some_near(near);
        self.counters.add_many("near_copies_dropped", dropped);
        let over = self.tables[table].store.beyond(FIRST_PART);
        let relief = &mut self.tables[table].relief;
        relief.judge(now);
        if relief.rests_until > now.monotonic {
            return;
        }
        // The other homes do their part.
        let members = self.placement(table).members.max(1);
        let homes = members.min(self.tables[table].store.policy().replicas.get().into());
        let under_way = self.tables[table].cooling.under_way();
        let others = refused_by.values().max().copied().unwrap_or(0);
        let wanted = over.div_ceil(homes) + self.short_of_room + others;
        let wanted = wanted.min(MOVES_STEP).saturating_sub(under_way);
        if wanted == 0 {
            return;
        }
        let count = (wanted * homes * COOLEST_PART).clamp(SAMPLE_MIN, SAMPLE_MAX);
        let mut sample = self.tables[table].store.sample(count, now_ms);
        sample.sort_by_key(|(_, warmth)| *warmth);
        sample.retain(|(key, _)| {
            !self.tables[table].cooling.is_under_way(key)
                && self.may_displace(table, key.slot(), &refused_by)
                && self.tables[table].store.is_alive(key, now_ms)
        });
        // Another home may have seen one as hot as the hottest are here: it stays.
        let hottest = sample.len() - sample.len().div_ceil(COOLEST_PART);
        let level = |(_, warmth): &(Key, u64)| HalfLife::level_of_warmth(*warmth);
        let limit = sample.get(hottest).map_or(i16::MAX, level);
        sample.truncate(sample.len() - hottest);
        let mut begun = 0;
        for (key, _) in sample {
            if begun == wanted || self.tables[table].cooling.is_busy() {
                break;
            }
            let why = Outward::Displaced { limit };
            begun += usize::from(self.consider_move(now, table, key, why));
        }
        if begun == 0 && under_way == 0 && self.is_nearly_full(table) {
            self.tables[table].relief.fail(now);
        }
    }

    /// Whether this node is the primary of a slot.
    pub(super) fn is_primary(&self, table: usize, slot: Slot) -> bool {
        self.ring_homes(table, slot).first() == Some(&self.id())
    }

    /// Whether this node may begin to move sessions of a slot outward for want of room.
    fn may_displace(&self, table: usize, slot: Slot, refused_by: &BTreeMap<NodeId, usize>) -> bool {
        let homes = self.ring_homes(table, slot);
        let is_short = || homes.iter().any(|home| refused_by.contains_key(home));
        self.is_primary(table, slot)
            || homes.contains(&self.id()) && (self.is_nearly_full(table) || is_short())
    }

    /// Whether so little room is left that any home moves what it holds.
    pub(super) fn is_nearly_full(&self, table: usize) -> bool {
        self.tables[table].store.beyond(LAST_PART) > 0
    }

    /// A home had no room for a copy from here.
    pub(super) fn note_refused(&mut self, table: usize, node: NodeId, failure: &Failure) {
        if matches!(failure, Failure::TableFull { .. }) && self.outer(table).is_some() {
            *self.tables[table].relief.refused_by.entry(node).or_default() += 1;
        }
    }

    /// Whether room in a table comes of what moves outward.
    pub(super) fn makes_room(&self, now: Now, table: usize) -> bool {
        self.outer(table).is_some() && !self.tables[table].relief.fails(now)
    }

    /// Whether what a request writes is to wait though there is some room: that is for what other homes have taken, and for
    /// those that have waited longer.
    pub(super) fn is_to_wait_for_room(
        &mut self,
        now: Now,
        (id, pending): (u64, &Pending),
        key: &Key,
        entry: &Entry,
    ) -> bool {
        let table = pending.table;
        if entry.is_ended() || entry.is_ending() || !self.makes_room(now, table) {
            return false;
        }
        // What is brought in is so for those who wait for it.
        let bringing = pending.brings.and_then(|_| self.bringing.get(&(table, key.clone())));
        let id = bringing.and_then(Bringing::longest_waiting).unwrap_or(id);
        let now_ms = self.time.now_ms(now);
        let is_to_wait = !self.has_room_for(table, id)
            && self.tables[table].store.get(key, now_ms).is_none_or(|it| it.is_marker());
        if !is_to_wait {
            self.room_line.remove(&(table, id));
        }
        is_to_wait
    }

    /// Whether there is room in a table for a new session of a request, beside those for which it waits longer.
    fn has_room_for(&self, table: usize, id: u64) -> bool {
        let room = self.tables[table].store.room_within(LAST_PART);
        self.room_line.range((table, 0)..(table, id)).take(room).count() < room
    }

    /// Has those who have waited longest for room go on at once, as many as there is some for. They keep their places until
    /// they have it: what a change is of may have to be looked for first.
    pub(super) fn give_room(&mut self, now: Now) {
        if self.room_line.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for (table, Table { store, .. }) in self.tables.iter().enumerate() {
            let mut room = store.room_within(LAST_PART);
            for place @ (_, id) in self.room_line.range((table, 0)..=(table, u64::MAX)) {
                let Some(pending) = self.pending.get_mut(id) else {
                    gone.push(*place);
                    continue;
                };
                if room == 0 {
                    break;
                }
                room -= 1;
                if let Stage::ShortOfRoom { again } = &mut pending.stage
                    && *again > now.monotonic
                {
                    self.pauses.remove(&(*again, *id));
                    *again = now.monotonic;
                    self.pauses.insert((*again, *id));
                }
            }
        }
        gone.iter().for_each(|place| _ = self.room_line.remove(place));
    }

    /// Has a write that found no room wait for it, if there may be some before its patience is over; else it has failed.
    pub(super) fn wait_for_room(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        failure: Failure,
    ) {
        let is_full = matches!(failure, Failure::TableFull { .. });
        let left = pending.deadline.saturating_sub(now.monotonic);
        let may_wait = is_full
            && pending.brings.is_none()
            && !pending.is_verdict
            && self.makes_room(now, pending.table);
        if !may_wait || left <= LEFT_FOR_ANSWER {
            // What other homes have of it may count yet.
            let is_unknown = is_full && pending.is_sent && pending.brings.is_none();
            let failure = if is_unknown { Failure::TimedOut } else { failure };
            return self.finish(now, id, pending, Err(failure));
        }
        if !std::mem::replace(&mut pending.is_slowed, true) {
            self.counters.add("writes_slowed");
        }
        self.short_of_room += 1;
        // Who lacks room elsewhere is not helped by some here, and holds nobody up.
        match self.has_room_for(pending.table, id) {
            true => self.room_line.remove(&(pending.table, id)),
            false => self.room_line.insert((pending.table, id)),
        };
        let others = u32::try_from(self.short_of_room).unwrap_or(u32::MAX);
        let wait = PAUSE.max(Duration::from_secs(1) * others / TRIES_PER_SECOND);
        let wait = wait.min(left - LEFT_FOR_ANSWER);
        let again = now.monotonic + wait;
        self.pauses.insert((again, id));
        pending.stage = Stage::ShortOfRoom { again };
        pending.is_nowhere_else = false; // It may be by then.
        self.pending.insert(id, pending);
    }
}
