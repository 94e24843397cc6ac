//! When a session that lies further out comes in, once it was found there ([`super::bringing`]).
//!
//! - **Reads count.** A session comes in upon the n-th read of it ([`Promotion::after`]) that this home answers, if none
//!   comes more than a half-life after the one before. Until then it is read where it is.
//! - **Changes are made on the innermost ring**: what is no read and no end brings its session in at once.
//! - **So many bytes in a second** come in through this node ([`Promotion::rate`]). Beyond that sessions are read where
//!   they are, and changes wait before anybody is asked. One that is larger than what is left comes in, and others pay
//!   for it.

use std::time::Duration;

use annulus_proto::message::Failure;
use annulus_proto::{Entry, Key};

use super::Core;
use super::cooling::size;
use super::coordinator::{Pending, Stage};
use super::io::Now;
use super::pace::Bucket;
use super::relief::{LEFT_FOR_ANSWER, PAUSE, TRIES_PER_SECOND};
use super::settings::Promotion;

/// What came into a table lately, and what was used without.
#[derive(Debug)]
pub(super) struct Inward {
    rate: u64,
    bucket: Bucket,
    /// What was read further out lately, each at the place of its key, where a later one takes it.
    lately: Vec<ReadOutside>,
}

/// Reads of a session where it lies.
#[derive(Clone, Copy, Debug, Default)]
struct ReadOutside {
    /// The session's key ([`Key::word`]).
    word: u64,
    reads: u8,
    last_ms: u64,
}

/// How many sessions are counted, in 24 bytes each. Of more than that some begin anew now and then.
const COUNTED: usize = 16_384;

impl Inward {
    /// Of a table with this policy in one of so many cores.
    pub(super) fn new(now: Duration, policy: Promotion, cores: usize) -> Self {
        let rate = policy.rate.get().div_ceil(cores as u64);
        Self { rate, bucket: Bucket::new(now, rate), lately: Vec::new() }
    }

    /// How often a session was read with these reads, if the last ones are not too long ago.
    fn count(&mut self, key: &Key, reads: usize, half_life_ms: u64, now_ms: u64) -> &mut u8 {
        self.lately.resize(COUNTED, ReadOutside::default());
        let word = key.word();
        let counted = &mut self.lately[word as usize % COUNTED];
        if counted.word != word || now_ms.saturating_sub(counted.last_ms) > half_life_ms {
            *counted = ReadOutside { word, ..ReadOutside::default() };
        }
        counted.last_ms = now_ms;
        counted.reads = counted.reads.saturating_add(u8::try_from(reads).unwrap_or(u8::MAX));
        &mut counted.reads
    }
}

impl Core {
    /// Has a request that needs its session inside wait if too much came in already. Returns the request if it need not.
    pub(super) fn wait_to_promote(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Pending,
    ) -> Option<Pending> {
        let inward = &mut self.tables[pending.table].inward;
        if !pending.needs_it_inside() || inward.bucket.may_go(now.monotonic, inward.rate) {
            return Some(pending);
        }
        let wait = inward.bucket.wait(inward.rate).max(PAUSE);
        let left = pending.deadline.saturating_sub(now.monotonic);
        if left <= LEFT_FOR_ANSWER {
            let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let failure = match pending.is_sent {
                true => Failure::TimedOut,
                false => Failure::SlowDown { retry_after_ms },
            };
            self.finish(now, id, pending, Err(failure));
            return None;
        }
        if !std::mem::replace(&mut pending.is_slowed, true) {
            self.counters.add("writes_slowed");
        }
        let others = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        let wait = wait.max(Duration::from_secs(1) * others / TRIES_PER_SECOND);
        self.pauses.insert((now.monotonic + wait.min(left - LEFT_FOR_ANSWER), id));
        pending.stage = Stage::Pausing;
        self.pending.insert(id, pending);
        None
    }

    /// Whether a session that was found further out is to come in for those who wait for it, and how many bytes it takes
    /// from the budget then. What nobody asked for, or has been here meanwhile, comes in anyway.
    pub(super) fn comes_in(
        &mut self,
        now: Now,
        table: usize,
        (key, found): (&Key, &Entry),
        waiting: &[u64],
    ) -> Option<usize> {
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(key, now_ms);
        let is_asker_inside = |id: &u64| self.pending.get(id).is_some_and(Pending::needs_it_inside);
        let is_needed = found.is_ended()
            || waiting.is_empty()
            || stored.is_some_and(|stored| !stored.is_marker())
            || waiting.iter().any(is_asker_inside);
        let policy = self.tables[table].store.policy();
        let (after, half_life_ms) = (policy.promotion.after.get(), policy.half_life.as_millis());
        let half_life_ms = u64::try_from(half_life_ms).unwrap_or(u64::MAX);
        let inward = &mut self.tables[table].inward;
        let has_room = inward.bucket.may_go(now.monotonic, inward.rate);
        if after > 1 {
            let reads = inward.count(key, waiting.len(), half_life_ms, now_ms);
            if !is_needed && *reads < after {
                return None;
            }
            if is_needed || has_room {
                *reads = 0;
            }
        }
        if !is_needed && !has_room {
            self.counters.add("promotions_put_off");
            return None;
        }
        let bytes = size(found);
        inward.bucket.take(bytes);
        Some(bytes)
    }

    /// What was to come in did not.
    pub(super) fn did_not_come_in(&mut self, table: usize, bytes: usize) {
        self.tables[table].inward.bucket.put_back(bytes);
    }
}
