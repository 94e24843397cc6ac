//! How much sessions are used, by whom, and when that is too much.
//!
//! A session's own heat ([`super::cooling`]) is what each of its homes saw, so that those numbers cannot be added up, and
//! a client may claim as many uses of shared memory as it likes. Here each node counts what its own clients ask for,
//! each use once and of each client no more than [`SuspectPolicy::client_max`], and reports the hot ones to a home of
//! theirs. It adds up what the nodes report, and judges ([`super::suspects`]).
//!
//! - **Who is followed.** A use of a session that is not followed begins to follow it with a chance: *sample and hold*
//!   (Estan, Varghese: *New Directions in Traffic Measurement and Accounting*, SIGCOMM 2002). While few are in use the
//!   chance is 1, and it falls no lower than one in a thirty-second of `burn`, so that what makes a suspect is missed by
//!   little. Those that cool are forgotten.
//! - **What is reported.** What is at least an eighth of a node's even share of `burn`: where uses are spread over all
//!   nodes none of the shares is missed, and else at most an eighth of `burn` is. Reports are no increments.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_proto::heat::{Dither, HalfLife};
use annulus_proto::message::{Burned, Burning as Report, Message};
use annulus_proto::{Key, NodeId, Verdict};
use annulus_shm::Admission;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::calls::Purpose;
use super::io::{Asker, Now};
use super::replica::reject_table;
use super::settings::SuspectPolicy;
use super::{Core, Table};

/// What is known of the sessions of one table that are used much.
pub(super) struct Burning {
    clock: CoreClock,
    dither: Dither,
    /// Those that this node's own clients use.
    followed: BTreeMap<Key, Followed>,
    /// One in so many powers of two of the uses of others begins to follow them.
    rarity: u32,
    /// Those that have something to report.
    news: BTreeSet<Key>,
    /// The last one that was.
    told_last: Option<Key>,
    /// What nodes reported of sessions that this one is a home of.
    reported: BTreeMap<Key, BTreeMap<NodeId, u64>>,
    /// Of all requests about this table.
    quota: Option<Limiter>,
    next_beat: Duration,
    next_sweep: Duration,
}

/// A session that this node's clients use.
struct Followed {
    /// How hot it is: see [`HalfLife`]. By the monotonic clock, which does not jump.
    mark: u64,
    /// How hot it is by the word of each of its hottest clients.
    clients: Vec<(ClientId, u64)>,
    quota: Option<Limiter>,
    slowed: Slowed,
}

/// What a home said of a session, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Slowed {
    /// Until when it is a suspect.
    until: Duration,
    /// Until when that is believed here: it may be released, or have ended.
    believed_until: Duration,
}

/// Tells clients apart: a connection, a lane, or where datagrams come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientId {
    Stream(u64),
    Lane(u64),
    Address(std::net::IpAddr),
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Uses {
    /// Requests.
    Requests(u32),
    /// Reads out of shared memory, as a client says, which counts one in some of them.
    Reads(u32),
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, CoreClock, NoOpMiddleware<Nanos>>;

/// The present, as the core was last told it.
#[derive(Clone, Debug, Default)]
struct CoreClock(Arc<AtomicU64>);

/// How often hot sessions are reported to their homes, and those that are hot still anew.
pub(super) const BEAT: Duration = Duration::from_millis(200);
/// How often those that have cooled are forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// The most sessions that are followed, and of which reports are kept, in all cores of a table.
const FOLLOWED_MAX: usize = 32_768;
const REPORTED_MAX: usize = 8_192;
/// The most reports of each table with each beat. The others wait for the next one.
const REPORTS_MAX: usize = 128;
/// The clients of a session that are told apart: the hottest ones.
const CLIENTS_MAX: usize = 16;
/// A node reports what is at least this part of its even share.
const SHARE_PARTS: u64 = 8;
/// How much hotter than `burn` a session is made that is used faster than it may be: by half of a half-life, which
/// is two beats at least.
const LEVELS_AHEAD: i16 = 8;
/// How many times fewer than `burn` the uses are that may be missed before a session is followed.
const MISSED_PART: u32 = 32;

impl Burning {
    pub(super) fn new(policy: Option<&SuspectPolicy>, cores: usize) -> Self {
        let clock = CoreClock::default();
        let of_core = |rate: NonZeroU32| rate.get().div_ceil(cores as u32);
        let rate = policy.and_then(|policy| policy.table_rate).map(of_core);
        let quota = rate.and_then(NonZeroU32::new).map(|rate| limiter(rate, &clock));
        Self {
            clock,
            dither: Dither::default(),
            followed: BTreeMap::new(),
            rarity: 0,
            news: BTreeSet::new(),
            told_last: None,
            reported: BTreeMap::new(),
            quota,
            next_beat: Duration::ZERO,
            next_sweep: Duration::ZERO,
        }
    }

    /// Whether there is a bound on what may be asked of the whole table.
    pub(super) fn has_quota(&self) -> bool {
        self.quota.is_some()
    }

    /// Takes a request's share of what may be asked of the whole table, or says how long until there is one.
    pub(super) fn take(&mut self, now: Now) -> Result<(), Duration> {
        self.clock.set(now);
        let Some(quota) = &self.quota else { return Ok(()) };
        quota.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// How much longer a session is a suspect, as its home said lately; `None` = it did not.
    pub(super) fn slowed_for(&self, now: Now, key: &Key) -> Option<Duration> {
        let Slowed { until, believed_until } = self.followed.get(key)?.slowed;
        let left = until.checked_sub(now.monotonic).filter(|left| !left.is_zero());
        left.filter(|_| believed_until > now.monotonic)
    }

    /// Counts uses of a session by a client: reports are due of what is as hot as `share`, and at most `max` are
    /// followed. Returns whether they could be counted.
    pub(super) fn count(
        &mut self,
        now: Now,
        (policy, share, max): (&SuspectPolicy, u64, usize),
        key: &Key,
        (client, uses): (ClientId, Uses),
    ) -> bool {
        self.clock.set(now);
        let (uses, are_requests) = match uses {
            Uses::Requests(count) => (count, true),
            Uses::Reads(count) => (count, false),
        };
        let (half_life, now_ms) = (HalfLife::new(policy.half_life), ms(now));
        let mut draw = || self.dither.draw();
        if !self.followed.contains_key(key) {
            let is_drawn = u64::from(draw()) << self.rarity < u64::from(uses) << 32;
            if !is_drawn {
                return true;
            }
            if self.followed.len() >= max {
                return false;
            }
            let quota = policy.session_rate.map(|rate| limiter(rate, &self.clock));
            // As many as were missed before, in the mean.
            let missed = (1 << self.rarity) - 1;
            let mark = half_life.used(0, missed, now_ms, draw());
            let (clients, slowed) = (Vec::new(), Slowed::default());
            self.followed.insert(key.clone(), Followed { mark, clients, quota, slowed });
        }
        let Some(followed) = self.followed.get_mut(key) else { return false };
        let clients = &mut followed.clients;
        let heat = |mark: u64| HalfLife::heat(half_life.level(mark, now_ms));
        let at = clients.iter().position(|(it, _)| *it == client).unwrap_or_else(|| {
            if clients.len() < CLIENTS_MAX {
                clients.push((client, 0));
                return clients.len() - 1;
            }
            let coolest =
                (0..clients.len()).min_by_key(|at| half_life.level(clients[*at].1, now_ms));
            let coolest = coolest.unwrap_or(0);
            clients[coolest] = (client, 0);
            coolest
        });
        let room = u64::from(policy.client_max).saturating_sub(heat(clients[at].1));
        let counted = u32::try_from(room.min(uses.into())).unwrap_or(uses);
        let Some(some) = NonZeroU32::new(counted) else { return true };
        clients[at].1 = half_life.used(clients[at].1, counted, now_ms, draw());
        followed.mark = half_life.used(followed.mark, counted, now_ms, draw());
        let is_within = |quota: &Limiter| matches!(quota.check_n(some), Ok(Ok(())));
        if are_requests && !followed.quota.as_ref().is_none_or(is_within) {
            // It is as hot still when that is reported.
            let burning = HalfLife::level_of(policy.burn.get().into()) + LEVELS_AHEAD;
            followed.mark = half_life.raised(followed.mark, burning, now_ms);
        }
        if heat(followed.mark) >= share {
            self.news.insert(key.clone());
        }
        true
    }

    /// What is reported with this beat: those after the ones of the last, so that each gets its turn.
    pub(super) fn next_news(&mut self) -> Vec<Key> {
        let after = self.told_last.take();
        let is_after = |key: &&Key| after.as_ref().is_none_or(|after| *key > after);
        let news = &self.news;
        let in_turn = news.iter().filter(is_after).chain(news.iter().filter(|key| !is_after(key)));
        let next: Vec<Key> = in_turn.take(REPORTS_MAX).cloned().collect();
        self.told_last = next.last().cloned();
        next
    }

    /// Forgets those that have cooled, and follows others the sooner the fewer there are.
    pub(super) fn sweep(&mut self, now: Now, policy: &SuspectPolicy, max: usize) {
        let (half_life, now_ms) = (HalfLife::new(policy.half_life), ms(now));
        let heat = |mark: u64| HalfLife::heat(half_life.level(mark, now_ms));
        // One that was followed by chance goes once it has lost half of what it began with.
        let least = (1 << self.rarity) / 2 + 1;
        self.followed
            .retain(|_, it| heat(it.mark) >= least || it.slowed.believed_until > now.monotonic);
        // Levels go round: one that is long cold would look hot in the end.
        let clients = self.followed.values_mut().map(|it| &mut it.clients);
        clients.for_each(|clients| clients.retain(|(_, mark)| heat(*mark) > 0));
        self.news.retain(|key| self.followed.contains_key(key));
        self.reported.retain(|_, nodes| {
            nodes.retain(|_, mark| heat(*mark) > 0);
            !nodes.is_empty()
        });
        let rarest = (policy.burn.get() / MISSED_PART).max(1).ilog2();
        if self.followed.len() > max / 2 {
            self.rarity = (self.rarity + 1).min(rarest);
        } else if self.followed.len() < max / 8 {
            self.rarity = self.rarity.saturating_sub(1);
        }
    }
}

#[cfg(test)]
impl Burning {
    pub(super) fn followed_len(&self) -> usize {
        self.followed.len()
    }

    pub(super) fn is_news(&self, key: &Key) -> bool {
        self.news.contains(key)
    }
}

impl CoreClock {
    fn set(&self, now: Now) {
        let nanos = u64::try_from(now.monotonic.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl Clock for CoreClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// A rate a second, and as much at once.
fn limiter(rate: NonZeroU32, clock: &CoreClock) -> Limiter {
    RateLimiter::direct_with_clock(Quota::per_second(rate), clock.clone())
}

/// The monotonic clock, in milliseconds.
fn ms(now: Now) -> u64 {
    u64::try_from(now.monotonic.as_millis()).unwrap_or(u64::MAX)
}

impl ClientId {
    /// Who asks; `None` of the node's own hub.
    pub(super) fn of(asker: Asker) -> Option<Self> {
        Some(match asker {
            Asker::Stream(number) | Asker::Local(number) => Self::Stream(number),
            Asker::Lane { lane, .. } => Self::Lane(lane),
            Asker::Datagram(addr) | Asker::Sealed(addr, _) => Self::Address(addr.ip()),
            Asker::Hub { .. } => return None,
        })
    }
}

impl Core {
    /// Counts uses of a session by one of this node's clients, where the table says when that is too much.
    pub(super) fn count_uses(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        (client, uses): (ClientId, Uses),
    ) {
        let max = FOLLOWED_MAX.div_ceil(self.cores);
        let members = self.standing.innermost().members.max(1) as u64;
        let Self { tables, counters, .. } = self;
        let table = &mut tables[table];
        let Some(policy) = &table.store.policy().suspects else { return };
        let share = (u64::from(policy.burn.get()) / (SHARE_PARTS * members)).max(1);
        if !table.burning.count(now, (policy, share, max), key, (client, uses)) {
            counters.add("uses_not_followed");
        }
    }

    /// Reports hot sessions to their homes, and forgets those that have cooled.
    pub(super) fn report_burning(&mut self, now: Now) {
        let now_ms = self.time.now_ms(now);
        let max = FOLLOWED_MAX.div_ceil(self.cores);
        for table in 0..self.tables.len() {
            let Table { store, burning, .. } = &mut self.tables[table];
            let is_sweep_due = burning.next_sweep <= now.monotonic;
            if is_sweep_due {
                burning.next_sweep = now.monotonic + SWEEP;
                store.forget_old_suspects(now_ms);
            }
            let Some(policy) = store.policy().suspects else { continue };
            if is_sweep_due {
                burning.sweep(now, &policy, max);
            }
            if burning.next_beat > now.monotonic {
                continue;
            }
            burning.next_beat = now.monotonic + BEAT;
            let news = burning.next_news();
            for key in news {
                self.report_use(now, table, &policy, key);
            }
        }
    }

    fn report_use(&mut self, now: Now, table: usize, policy: &SuspectPolicy, key: Key) {
        let half_life = HalfLife::new(policy.half_life);
        let burning = &mut self.tables[table].burning;
        burning.news.remove(&key);
        let Some(followed) = burning.followed.get(&key) else { return };
        let heat = HalfLife::heat(half_life.level(followed.mark, ms(now)));
        let heat = u32::try_from(heat).unwrap_or(u32::MAX);
        let homes = self.homes(table, key.slot());
        let me = self.id();
        let is_there = |home: &NodeId| *home == me || !self.is_doubtful(now, *home);
        let Some(home) = homes.iter().copied().find(is_there).or(homes.first().copied()) else {
            return;
        };
        if home == me {
            let left = self.take_report(now, (table, policy), &key, (me, heat));
            return self.note_slowed(now, table, &key, left);
        }
        let name = self.tables[table].store.policy().name.clone();
        let purpose = Purpose::Burning { table, key: key.clone() };
        let report = Report { table: name, key: key.clone(), heat };
        if self.call(now, home, purpose, report).is_none() {
            self.tables[table].burning.news.insert(key);
        }
    }

    /// What another node reports.
    pub(super) fn on_burning(&mut self, now: Now, node: NodeId, report: &Report) -> Message {
        let Some(table) = self.table_named(&report.table) else {
            return reject_table(&report.table);
        };
        let policy = self.tables[table].store.policy().suspects;
        let is_member = self.standing.view.get(node).is_some();
        let left = match policy.filter(|_| is_member) {
            Some(policy) => {
                self.take_report(now, (table, &policy), &report.key, (node, report.heat))
            }
            None => Duration::ZERO,
        };
        Burned { left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }.into()
    }

    pub(super) fn on_burned(
        &mut self,
        now: Now,
        (table, key): (usize, Key),
        answer: Option<Message>,
    ) {
        match answer {
            Some(Message::Burned(Burned { left_ms })) => {
                self.note_slowed(now, table, &key, Duration::from_millis(left_ms));
            }
            // Once more with the next beat.
            _ => {
                let burning = &mut self.tables[table].burning;
                if burning.followed.contains_key(&key) {
                    burning.news.insert(key);
                }
            }
        }
    }

    fn note_slowed(&mut self, now: Now, table: usize, key: &Key, left: Duration) {
        if let Some(followed) = self.tables[table].burning.followed.get_mut(key) {
            let until = now.monotonic.saturating_add(left);
            followed.slowed = Slowed { until, believed_until: now.monotonic + 2 * BEAT };
        }
    }

    /// Adds up what nodes report of a session, and judges it if that is too much. Returns how much longer it is a
    /// suspect.
    fn take_report(
        &mut self,
        now: Now,
        (table, policy): (usize, &SuspectPolicy),
        key: &Key,
        (node, heat): (NodeId, u32),
    ) -> Duration {
        let now_ms = self.time.now_ms(now);
        let Some(mut entry) = self.tables[table].store.get(key, now_ms) else {
            return Duration::ZERO;
        };
        if entry.is_ended() || entry.is_marker() || entry.is_expired(now_ms) {
            return Duration::ZERO;
        }
        let half_life = HalfLife::new(policy.half_life);
        let reported_max = REPORTED_MAX.div_ceil(self.cores);
        let burning = &mut self.tables[table].burning;
        if burning.reported.len() >= reported_max && !burning.reported.contains_key(key) {
            self.counters.add("reports_forgotten");
            return Duration::ZERO;
        }
        let mark = half_life.used(0, heat, ms(now), burning.dither.draw());
        burning.reported.entry(key.clone()).or_default().insert(node, mark);
        let heat = self.heat_reported(now, table, key);
        let until = match entry.verdict() {
            Some((_, Verdict::Suspect { until })) if until > now_ms => until,
            Some((_, Verdict::Released { until })) if until > now_ms => return Duration::ZERO,
            _ => now_ms,
        };
        let left = Duration::from_millis(until - now_ms);
        if heat < policy.burn.get().into() || left > policy.half_life / 2 {
            return left;
        }
        // Until it has lost all that is above half of what makes a suspect.
        let above = HalfLife::level_of(heat) - HalfLife::level_of(policy.burn.get().into());
        let left = policy.half_life.saturating_mul(u32::from(above.unsigned_abs()) + 16) / 16;
        let until = now_ms.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let after = entry.version.max(entry.noted_at());
        let Ok(version) = self.stamp(now, table, key.slot(), after) else { return Duration::ZERO };
        entry.judge(version, Verdict::Suspect { until });
        match self.merge(now, table, key, &entry, Admission::Reserve) {
            Ok(entry) => {
                self.counters.add("sessions_suspected");
                self.tell_other_homes(now, table, key, &entry);
                left
            }
            Err(_) => {
                self.counters.add("suspects_not_stored");
                Duration::ZERO
            }
        }
    }

    /// How hot a session is by what the nodes reported here, in uses.
    pub(super) fn heat_reported(&self, now: Now, table: usize, key: &Key) -> u64 {
        let table = &self.tables[table];
        let Some(policy) = &table.store.policy().suspects else { return 0 };
        let half_life = HalfLife::new(policy.half_life);
        let heat = |mark: &u64| HalfLife::heat(half_life.level(*mark, ms(now)));
        table.burning.reported.get(key).map_or(0, |nodes| nodes.values().map(heat).sum())
    }
}
