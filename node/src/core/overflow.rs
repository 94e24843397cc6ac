//! Sessions that leave a table otherwise than by an end: they have expired unused, or were evicted.
//!
//! Where the table says so ([`Overflow`]) the driver is given each of them before it is dropped, and writes it down or
//! hands it to the application. What has ended is never among them, nor a marker, nor a near copy.
//!
//! - **One home does it**: the first of the slot that is in contact and known to have all of it. It does so once a
//!   session has been over for as long as all homes keep it anyway, and only while it is in touch with a majority of the
//!   homes: it would know by then if the session had ended, or been used elsewhere.
//! - **The others wait**: all homes drop the session at the same time, some seconds later ([`DROPPED_AFTER_MS`]), so that
//!   one that takes over when the first has died finds it. What that one had written is written again then.
//! - **Nothing waits for the driver.** It is given one batch at a time and says what became of it; a bounded number of
//!   sessions waits meanwhile ([`QUEUE_BYTES_MAX`]), and those beyond stay in the table. If room is needed they go
//!   unwritten, and are counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::{Entry, Key, Slot, Value, Version};

use super::Core;
use super::PING_AFTER;
use super::evict::is_eviction;
use super::io::{Now, Output};
use super::merging::name_among_clients;
use super::store::{EXPIRED_KEPT_MS, Overdue};

/// What becomes of sessions that leave a table otherwise than by an end.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Overflow {
    /// They are dropped.
    #[default]
    Drop,
    /// They are written to a file, a line of JSON each.
    Archive,
    /// The application that embeds the node takes them.
    Give(OverflowTaker),
}

/// What takes the sessions that leave a table, in an application that embeds the node.
///
/// It is called on a thread of its own, with one session after the other. If it says `false`, or panics, it is given that
/// session again a second later, and those after it wait. A session may be given more than once, by several nodes, too:
/// [`Overflowed::key`], [`Overflowed::birth`] and [`Overflowed::version`] tell.
#[derive(Clone)]
pub struct OverflowTaker(Arc<TakeFn>);

/// See [`OverflowTaker`].
type TakeFn = dyn Fn(&Overflowed) -> bool + Send + Sync;

/// A session that left its table.
#[derive(Clone, PartialEq, Eq)]
pub struct Overflowed {
    /// The table, as clients call it.
    pub table: String,
    /// Its key: as good as a password.
    pub key: Key,
    /// Its value, without fields that expired before it did.
    pub value: Value,
    /// Whose session it was; empty = nobody's.
    pub owner: Vec<u8>,
    /// How many nodes were to hold it; 0 = as many as the table says.
    pub replicas: u8,
    /// The version that created it.
    pub birth: Version,
    /// Its last write.
    pub version: Version,
    /// How long it lived unused, in milliseconds; 0 = for ever.
    pub idle_ms: u64,
    /// When it was last used, in hybrid milliseconds.
    pub touched_ms: u64,
    /// When it expired, or would have, in hybrid milliseconds; 0 = never.
    pub deadline_ms: u64,
    /// Why it left.
    pub why: WhyLeft,
}

/// Why a session left its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyLeft {
    /// Its deadline had passed.
    Expired,
    /// There was need of room.
    Evicted,
}

impl WhyLeft {
    /// It in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
        }
    }
}

/// What leaves one table.
#[derive(Debug, Default)]
pub(super) struct Overflowing {
    queue: VecDeque<Overflowed>,
    /// What the driver has been given.
    under_way: Option<Arc<[Overflowed]>>,
    is_with_driver: bool,
    /// Of both of them.
    bytes: usize,
    waiting: BTreeSet<Left>,
    /// Those that left lately, so that a copy that comes back from another home is no news, and when each is forgotten;
    /// of each in `forgotten` the last time counts.
    known: BTreeMap<Left, u64>,
    forgotten: VecDeque<(u64, Left)>,
    /// Until when the driver is not tried again.
    rests_until: Duration,
}

/// What tells a session that left from any other: its key's word, its birth and its last write.
type Left = (u64, Version, Version);

/// How long ago a session expired that is written, by a home that is not the first, and that is dropped.
const WRITTEN_AFTER_MS: u64 = EXPIRED_KEPT_MS;
const TAKEN_OVER_AFTER_MS: u64 = WRITTEN_AFTER_MS + 5_000;
pub(super) const DROPPED_AFTER_MS: u64 = WRITTEN_AFTER_MS + 15_000;
/// How long ago one expired that goes early, for want of room: it may be in use elsewhere before.
const EARLY_AFTER_MS: u64 = 3_000;
/// How long it is known that a session left.
const KNOWN_MS: u64 = 2 * DROPPED_AFTER_MS;
const KNOWN_MAX: usize = 1 << 17;
/// How many bytes of sessions wait to be written, of each table of each core; one session does in any case.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// What a session takes beside its key and value, about.
const SESSION_BYTES: usize = 256;
/// After how long the driver is tried again.
const REST: Duration = Duration::from_secs(1);
/// A session past the last day of its birth, of which nobody keeps an end any more, is written if this node had run for so
/// long by then: it would know of its end.
const RUN_MS_MIN: u64 = 600_000;

impl Overflow {
    /// Whether sessions are kept from being dropped until somebody has them.
    pub(crate) fn is_kept(&self) -> bool {
        *self != Self::Drop
    }
}

impl OverflowTaker {
    /// Takes sessions with this function.
    ///
    /// ```
    /// # use annulus_node::{Overflow, OverflowTaker};
    /// let (sessions, left) = std::sync::mpsc::sync_channel(1_000);
    /// let take = OverflowTaker::new(move |session| sessions.try_send(session.clone()).is_ok());
    /// let overflow = Overflow::Give(take);
    /// # drop((overflow, left));
    /// ```
    pub fn new(take: impl Fn(&Overflowed) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Gives it a session. Returns whether it was taken.
    pub(crate) fn take(&self, session: &Overflowed) -> bool {
        (self.0)(session)
    }
}

impl fmt::Debug for OverflowTaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverflowTaker")
    }
}

/// What is one function is the same.
impl PartialEq for OverflowTaker {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Without the key, whose session it was and what it held: these are secrets.
impl fmt::Debug for Overflowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, birth, version, why, .. } = self;
        write!(f, "Overflowed({why:?}, of {table:?}, born {birth}, version {version})")
    }
}

impl Overflowed {
    fn of(table: String, key: Key, entry: &Entry, deadline_ms: u64, why: WhyLeft) -> Option<Self> {
        let body = entry.body.as_ref()?;
        let at_ms = if deadline_ms == 0 { body.touched } else { deadline_ms };
        Some(Self {
            table,
            key,
            value: body.value(at_ms),
            owner: body.attributes.owner.clone(),
            replicas: body.attributes.replicas,
            birth: entry.birth,
            version: entry.version,
            idle_ms: body.lease.idle,
            touched_ms: body.touched,
            deadline_ms,
            why,
        })
    }

    fn left(&self) -> Left {
        (self.key.word(), self.birth, self.version)
    }

    fn size(&self) -> usize {
        SESSION_BYTES + self.key.as_bytes().len() + self.owner.len() + self.value.size()
    }
}

impl Overflowing {
    fn has_room_for(&self, size: usize) -> bool {
        self.bytes == 0 || self.bytes + size <= QUEUE_BYTES_MAX
    }

    fn push(&mut self, session: Overflowed, now_ms: u64) {
        let left = session.left();
        self.bytes += session.size();
        self.waiting.insert(left);
        self.know(left, now_ms);
        self.queue.push_back(session);
    }

    /// Whether nobody was or is to be given it.
    fn is_news(&self, left: &Left) -> bool {
        !self.known.contains_key(left) && !self.waiting.contains(left)
    }

    fn know(&mut self, left: Left, now_ms: u64) {
        let until_ms = now_ms.saturating_add(KNOWN_MS);
        if self.known.insert(left, until_ms) != Some(until_ms) {
            self.forgotten.push_back((until_ms, left));
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        while let Some((at_ms, left)) = self.forgotten.front()
            && (*at_ms <= now_ms || self.forgotten.len() > KNOWN_MAX)
        {
            if self.known.get(left) == Some(at_ms) {
                self.known.remove(left);
            }
            self.forgotten.pop_front();
        }
    }

    /// What the driver is to be given now, if anything is.
    fn next(&mut self, now: Now) -> Option<Arc<[Overflowed]>> {
        if self.is_with_driver || self.rests_until > now.monotonic {
            return None;
        }
        if self.under_way.is_none() && !self.queue.is_empty() {
            self.under_way = Some(self.queue.drain(..).collect());
        }
        self.is_with_driver = self.under_way.is_some();
        self.under_way.clone()
    }

    /// How many sessions wait to be written.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is left to be written that can be.
    fn is_done(&self) -> bool {
        self.bytes == 0 || self.rests_until > Duration::ZERO
    }
}

impl Core {
    /// Does what is to be done with sessions of a table that are over and were found, and with those that were dropped to
    /// make room since this was last done. `is_pressed`: what was found goes early, if somebody has it, and in any case
    /// where nearly no room is left. Returns how many went.
    pub(super) fn see_to_overdue(&mut self, now: Now, table: usize, is_pressed: bool) -> u64 {
        if !self.tables[table].store.policy().overflow.is_kept() {
            return 0;
        }
        self.take_dropped(now, table);
        let now_ms = self.time.now_ms(now);
        self.tables[table].overflowing.forget_old(now_ms);
        let (mut dropped, mut is_full) = (0, false);
        for Overdue { key, birth, version, deadline } in self.tables[table].store.take_overdue() {
            let left = (key.word(), birth, version);
            let age_ms = now_ms.saturating_sub(deadline);
            let is_last = is_pressed && self.is_nearly_full(table);
            let goes_early = is_last || is_pressed && age_ms >= EARLY_AFTER_MS;
            let rank = self.rank_of_writer(now, table, key.slot());
            let due_ms = if rank == Some(0) { WRITTEN_AFTER_MS } else { TAKEN_OVER_AFTER_MS };
            let is_due = rank.is_some() && (goes_early || age_ms >= due_ms);
            if is_due && self.tables[table].overflowing.is_news(&left) {
                let knows = self.knows_ends(now, table, key.slot());
                if (is_full || !knows) && !is_last {
                    continue; // It would be read for nothing.
                }
                if let Some(entry) = self.tables[table].store.whatever_is(&key)
                    && self.overflow(now, table, &key, &entry, deadline).is_err()
                {
                    is_full |= knows;
                    if !is_last {
                        continue;
                    }
                    self.counters.add("overflow_lost");
                }
            }
            let is_waiting = self.tables[table].overflowing.waiting.contains(&left);
            if goes_early || age_ms >= DROPPED_AFTER_MS && !is_waiting {
                // As if it were dropped when the other homes drop it, so that comparisons find nothing missing.
                let when_ms = deadline.saturating_add(DROPPED_AFTER_MS);
                self.tables[table].store.see_overdue_go(&key, deadline, now_ms);
                self.tables[table].store.drop_entry_as_of(&key, when_ms, now_ms);
                dropped += 1;
            }
        }
        dropped
    }

    /// What was dropped to make room for what was written.
    pub(super) fn take_dropped(&mut self, now: Now, table: usize) {
        for (key, entry, deadline) in self.tables[table].store.take_dropped() {
            let left = (key.word(), entry.birth, entry.version);
            let is_mine = self.rank_of_writer(now, table, key.slot()).is_some();
            if is_mine && self.tables[table].overflowing.is_news(&left) {
                let lost = self.overflow(now, table, &key, &entry, deadline).is_err();
                self.counters.add_many("overflow_lost", lost.into());
            }
        }
    }

    /// A session was evicted here, as it was before.
    pub(super) fn overflow_evicted(&mut self, now: Now, table: usize, key: &Key, entry: &Entry) {
        let left = (key.word(), entry.birth, entry.version);
        if self.tables[table].store.policy().overflow.is_kept()
            && self.tables[table].overflowing.is_news(&left)
        {
            let session = self.overflowed(table, key, entry, entry.deadline(), WhyLeft::Evicted);
            let lost = session.is_some_and(|session| self.queue(now, table, session).is_err());
            self.counters.add_many("overflow_lost", lost.into());
        }
    }

    /// The copy under a key that is given to other homes of its slot where copies are compared: none that they have dropped
    /// by now, and that is kept here until somebody has it. Of a slot that leaves this node all is given.
    pub(super) fn comparable(&mut self, now_ms: u64, table: usize, key: &Key) -> Option<Entry> {
        let entry = self.tables[table].store.get(key, now_ms)?;
        let deadline = entry.deadline();
        let is_dropped = deadline != 0 && deadline.saturating_add(DROPPED_AFTER_MS) <= now_ms;
        let is_kept = is_dropped
            && self.tables[table].store.policy().overflow.is_kept()
            && self.slot_state(table, key.slot()).home
            && !is_eviction(&entry);
        (!is_kept).then_some(entry)
    }

    /// Puts a session that has expired in line, if it has to be.
    ///
    /// # Errors
    /// [`NotNow`]: there is no room, or this node cannot tell whether it has ended.
    fn overflow(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        entry: &Entry,
        deadline: u64,
    ) -> Result<(), NotNow> {
        match self.overflowed(table, key, entry, deadline, WhyLeft::Expired) {
            Some(session) if !self.is_known_inside(now, table, key, entry.birth) => {
                self.queue(now, table, session)
            }
            _ => Ok(()),
        }
    }

    fn queue(&mut self, now: Now, table: usize, session: Overflowed) -> Result<(), NotNow> {
        let now_ms = self.time.now_ms(now);
        let slot = session.key.slot();
        if self.is_forgotten(now_ms, table, session.birth) {
            self.tables[table].overflowing.know(session.left(), now_ms);
            self.counters.add("overflow_lost");
            return Ok(());
        }
        let knows = self.knows_ends(now, table, slot);
        let overflowing = &mut self.tables[table].overflowing;
        if !knows || !overflowing.has_room_for(session.size()) {
            return Err(NotNow);
        }
        overflowing.push(session, now_ms);
        Ok(())
    }

    /// What the driver is given of a session; `None` if it has ended, is about to, was evicted before, or lies on another
    /// ring.
    pub(super) fn overflowed(
        &self,
        table: usize,
        key: &Key,
        entry: &Entry,
        deadline: u64,
        why: WhyLeft,
    ) -> Option<Overflowed> {
        let is_over = entry.is_ended() || entry.is_ending() || is_eviction(entry);
        if is_over || !self.is_here(table, entry) {
            return None;
        }
        let innermost = self.tables[self.innermost(table)].store.policy();
        let name = name_among_clients(&innermost.name).to_owned();
        Overflowed::of(name, key.clone(), entry, deadline, why)
    }

    /// Whether the innermost ring knows better than one further out, as far as this node can tell: the session was brought
    /// in, or has ended, and this copy was left.
    pub(super) fn is_known_inside(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        birth: Version,
    ) -> bool {
        let innermost = self.innermost(table);
        if innermost == table {
            return false;
        }
        let now_ms = self.time.now_ms(now);
        let inside = self.tables[innermost].store.get(key, now_ms);
        inside.is_some_and(|inside| {
            let lives = !inside.is_marker() && !inside.is_expired(now_ms);
            inside.birth >= birth && (inside.is_ended() || lives)
        })
    }

    /// Whether this node would know if a session of a slot had ended.
    pub(super) fn knows_ends(&self, now: Now, table: usize, slot: Slot) -> bool {
        let homes = self.vouching_homes(table, slot);
        let heard = homes.and_then(|homes| self.majority_heard(now, homes));
        let is_in_touch = heard.is_some_and(|at| at + 4 * PING_AFTER > now.monotonic);
        is_in_touch && self.vouches(now, table, slot)
    }

    /// Whether nobody knows any more if a session of this birth has ended, and this node may not have heard of it.
    fn is_forgotten(&self, now_ms: u64, table: usize, birth: Version) -> bool {
        let last_day = self.tables[table].store.last_day(birth);
        let was_here = last_day >= self.began_ms.saturating_add(RUN_MS_MIN);
        last_day != 0 && last_day <= now_ms && !was_here
    }

    /// The place of this node among the homes of a slot, if it is for it to write what leaves: of those before it none is
    /// in contact and known to have all of the slot.
    fn rank_of_writer(&self, now: Now, table: usize, slot: Slot) -> Option<usize> {
        let homes = self.ring_homes(table, slot);
        let rank = homes.iter().position(|home| *home == self.id())?;
        let copies = &self.tables[table].copies;
        let may_write =
            |home: &&_| self.is_in_contact(now, **home) && copies.holds(**home, slot.index());
        homes[..rank].iter().find(may_write).is_none().then_some(rank)
    }

    /// Gives the driver what has left the tables.
    pub(super) fn hand_over_overflow(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            if let Some(sessions) = self.tables[table].overflowing.next(now) {
                self.outputs.push_back(Output::Overflow { table, sessions });
            }
        }
    }

    /// The driver has done with what it was given: somebody has it, or nobody.
    pub(super) fn on_overflowed(&mut self, now: Now, table: usize, is_taken: bool) {
        let now_ms = self.time.now_ms(now);
        let Some(of) = self.tables.get_mut(table) else { return };
        let overflowing = &mut of.overflowing;
        overflowing.is_with_driver = false;
        if !is_taken {
            overflowing.rests_until = now.monotonic + REST;
            return self.counters.add("archive_failures");
        }
        overflowing.rests_until = Duration::ZERO;
        let Some(sessions) = overflowing.under_way.take() else { return };
        for session in &*sessions {
            overflowing.bytes -= session.size();
            overflowing.waiting.remove(&session.left());
            overflowing.know(session.left(), now_ms);
        }
        self.counters.add_many("sessions_archived", sessions.len() as u64);
        self.hand_over_overflow(now);
    }

    /// Whether nothing is left to be written that can be.
    pub(super) fn is_overflow_written(&self) -> bool {
        self.tables.iter().all(|table| table.overflowing.is_done())
    }
}

/// A session that has to wait.
struct NotNow;
