//! When a session that lies further out comes in, once it was found there ([`super::bringing`]).
//!
//! - **Reads count.** A session comes in upon the n-th read of it ([`Promotion::after`]) that this home answers, if none
//!   comes more than a half-life after the one before. Until then it is read where it is.
//! - **Changes are made on the innermost ring**: what is no read and no end brings its session in whatever it was before.
//! - **So many bytes in a second** come in through this node ([`Promotion::rate`]). Beyond that sessions are read where
//!   they are, and changes stand in a line, of which each knows what it is to bring in: whoever would stand there for
//!   longer than he may wait is told to slow down at once. What is larger than what is left comes in, and others pay
//!   for it.

use std::collections::VecDeque;
use std::time::Duration;

use annulus_proto::message::{Failure, Operation};
use annulus_proto::{Entry, Key};

use super::Core;
use super::cooling::size;
use super::coordinator::{Pending, Stage};
use super::io::Now;
use super::pace::Bucket;
use super::relief::LEFT_FOR_ANSWER;
use super::settings::Promotion;

/// What came into a table lately, what was used without, and what is to come.
#[derive(Debug)]
pub(super) struct Inward {
    rate: u64,
    bucket: Bucket,
    /// What was read further out lately, each at the place of its key, where a later one takes it.
    lately: Vec<ReadOutside>,
    /// The requests that wait for their turn, and how many bytes each brings in.
    line: VecDeque<(u64, usize)>,
    line_bytes: usize,
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
        let (bucket, lately) = (Bucket::new(now, rate), Vec::new());
        Self { rate, bucket, lately, line: VecDeque::new(), line_bytes: 0 }
    }

    /// How often a session was read with these reads, if the last ones are not too long ago.
    fn count(&mut self, key: &Key, reads: usize, half_life_ms: u64, now_ms: u64) -> u8 {
        self.lately.resize(COUNTED, ReadOutside::default());
        let word = key.word();
        let counted = &mut self.lately[word as usize % COUNTED];
        if counted.word != word || now_ms.saturating_sub(counted.last_ms) > half_life_ms {
            *counted = ReadOutside { word, ..ReadOutside::default() };
        }
        counted.last_ms = now_ms;
        counted.reads = counted.reads.saturating_add(u8::try_from(reads).unwrap_or(u8::MAX));
        counted.reads
    }
}

impl Core {
    /// Whether a session that was found further out is to come in for those who wait for it: then it takes so many bytes
    /// of the rate. What nobody asked for, or has been here meanwhile, comes in anyway.
    pub(super) fn comes_in(
        &mut self,
        now: Now,
        table: usize,
        (key, found): (&Key, &Entry),
        waiting: &[u64],
    ) -> Option<usize> {
        let now_ms = self.time.now_ms(now);
        let is_late = self.may_be_behind(now, table, (key, found));
        let (mut reads, mut is_changed, mut granted) = (0, false, 0);
        for id in waiting {
            let Some(pending) = self.pending.get_mut(id) else { continue };
            reads += usize::from(pending.request.operation == Operation::Get);
            is_changed |= pending.needs_it_inside();
            granted += std::mem::take(&mut pending.granted);
        }
        let policy = self.tables[table].store.policy();
        let (after, half_life_ms) = (policy.promotion.after.get(), policy.half_life.as_millis());
        let half_life_ms = u64::try_from(half_life_ms).unwrap_or(u64::MAX);
        let inward = &mut self.tables[table].inward;
        inward.bucket.put_back(granted);
        let is_wanted =
            after == 1 || is_changed || inward.count(key, reads, half_life_ms, now_ms) >= after;
        let has_room = granted > 0
            || inward.line.is_empty() && inward.bucket.may_go(now.monotonic, inward.rate);
        let is_needed = is_late || waiting.is_empty();
        if !(is_needed || is_wanted && has_room) {
            if is_wanted {
                self.counters.add_many("promotions_put_off", reads as u64);
            }
            return None;
        }
        let bytes = size(found);
        inward.bucket.take(bytes);
        Some(bytes)
    }

    /// Whether more may be known inside of a session than what the rings further out hold of it: they say so themselves, or
    /// something of it is here.
    pub(super) fn may_be_behind(
        &mut self,
        now: Now,
        table: usize,
        (key, found): (&Key, &Entry),
    ) -> bool {
        let now_ms = self.time.now_ms(now);
        let stored = self.tables[table].store.get(key, now_ms);
        found.is_ended()
            || self.is_here(table, found)
            || stored.is_some_and(|stored| !stored.is_marker())
    }

    /// What was to come in did not.
    pub(super) fn did_not_come_in(&mut self, table: usize, bytes: usize) {
        self.tables[table].inward.bucket.put_back(bytes);
    }

    /// Has a change of a session of so many bytes stand in line until these may come in.
    pub(super) fn wait_to_come_in(
        &mut self,
        now: Now,
        id: u64,
        mut pending: Box<Pending>,
        bytes: usize,
    ) {
        let inward = &mut self.tables[pending.table].inward;
        let ahead = Duration::from_secs_f64(inward.line_bytes as f64 / inward.rate.max(1) as f64);
        let ahead = ahead + inward.bucket.wait(inward.rate);
        let mut left = pending.deadline.saturating_sub(now.monotonic);
        if pending.request.hops > 0 {
            // Who passed it on waits no longer.
            left = left.min(self.settings.home_timeout);
        }
        if ahead > left - LEFT_FOR_ANSWER.min(left / 4) {
            let failure = told_to_wait(&pending, ahead);
            return self.finish(now, id, pending, Err(failure));
        }
        inward.line.push_back((id, bytes));
        inward.line_bytes += bytes;
        if !std::mem::replace(&mut pending.is_slowed, true) {
            self.counters.add("writes_slowed");
        }
        pending.stage = Stage::InLineToComeIn;
        self.pending.insert(id, pending);
    }

    /// Goes on with those whose turn it is.
    pub(super) fn end_waits_to_come_in(&mut self, now: Now) {
        for table in 0..self.tables.len() {
            loop {
                let inward = &mut self.tables[table].inward;
                let Some(&(id, bytes)) = inward.line.front() else { break };
                let is_waiting = self
                    .pending
                    .get(&id)
                    .is_some_and(|pending| matches!(pending.stage, Stage::InLineToComeIn));
                if is_waiting && !inward.bucket.may_go(now.monotonic, inward.rate) {
                    break;
                }
                inward.line.pop_front();
                inward.line_bytes -= bytes;
                // Its patience may be over.
                if is_waiting && let Some(mut pending) = self.pending.remove(&id) {
                    inward.bucket.take(bytes);
                    pending.granted = bytes;
                    self.route(now, id, pending);
                }
            }
        }
    }
}

/// What whoever stands in line for too long is told.
pub(super) fn told_to_wait(pending: &Pending, wait: Duration) -> Failure {
    match pending.is_sent {
        true => Failure::TimedOut,
        false => {
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Failure::SlowDown { retry_after_ms: wait.max(1) }
        }
    }
}
