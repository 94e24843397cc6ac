//! The client's end: submitting, and waiting for answers.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::lane::layout::{CALLS_MAX, CLOSED, slot_at};
use crate::lane::ring::{NotPushed, Producer};
use crate::lane::slots::{self, ANSWER_WORDS};
use crate::lane::{bell, current_cpu, memory};
use crate::words::{Mapped, Words as _};

/// Submits, for one thread at a time.
pub struct Submitter {
    ring: Producer<Mapped>,
    bell: OwnedFd,
    /// The places of open calls, as bits.
    open: u64,
    /// How often each place was used.
    rounds: [u32; CALLS_MAX],
    /// Where the last call was opened.
    cpu: u32,
}

/// How a submission went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The node's thread is awake and will come by.
    Awake,
    /// It slept and was woken.
    Woken {
        /// Whether it sleeps on the processor on which the last call was opened.
        here: bool,
    },
}

/// Why nothing was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The ring has no room before the node has taken some.
    #[error("the lane is full")]
    Full,
    /// No ring takes it.
    #[error("the submission is too long for a lane")]
    TooLong,
    /// As many calls are open as there may be.
    #[error("too many calls are open")]
    TooManyCalls,
    /// The node gave the lane up, or does not keep to the protocol.
    #[error("the lane is closed")]
    Closed,
}

/// Why a call has no answer. The node may have done what it asked for, or may do it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// None came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The node gave the lane up, or is gone.
    #[error("the lane was closed")]
    Closed,
}

impl Submitter {
    pub(super) fn new(ring: Producer<Mapped>, bell: OwnedFd) -> Self {
        Self { ring, bell, open: 0, rounds: [0; CALLS_MAX], cpu: u32::MAX }
    }

    /// Submits these bytes, and forgets about them. Costs a copy, a fence, and a system call if the
    /// node sleeps.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was submitted.
    #[inline]
    pub fn submit(&mut self, bytes: &[u8]) -> Result<Submitted, SubmitError> {
        if self.ring.is_closed() {
            return Err(SubmitError::Closed);
        }
        match self.ring.push(bytes) {
            Ok(0) => Ok(Submitted::Awake),
            Ok(asleep) => {
                bell::ring(&self.bell);
                Ok(Submitted::Woken { here: asleep - 1 == u64::from(self.cpu) })
            }
            Err(NotPushed::Full) => Err(SubmitError::Full),
            Err(NotPushed::TooLong) => Err(SubmitError::TooLong),
            Err(NotPushed::Nonsense) => Err(SubmitError::Closed),
        }
    }

    /// Takes a number for a call, never 0. Submit it, wait with [`Calls::wait`], then give the number
    /// back with [`Submitter::close_call`].
    ///
    /// # Errors
    /// [`SubmitError::TooManyCalls`] while [`CALLS_MAX`] are open.
    pub fn open_call(&mut self) -> Result<u32, SubmitError> {
        let place = self.open.trailing_ones() as usize;
        if place >= CALLS_MAX {
            return Err(SubmitError::TooManyCalls);
        }
        self.open |= 1 << place;
        let round = &mut self.rounds[place];
        *round = (*round + 1) % ROUNDS;
        let cpu = current_cpu();
        if cpu != self.cpu {
            // Rarely: the node looks at that cache line all the time, and would take it away before the next store.
            self.cpu = cpu;
            self.ring.say_cpu(cpu);
        }
        Ok(((*round + 1) as usize * CALLS_MAX + place) as u32)
    }

    /// Gives a call's number back, answered or not.
    pub fn close_call(&mut self, call: u32) {
        self.open &= !(1 << (call as usize % CALLS_MAX));
    }
}

/// After so many uses a place's numbers come again.
const ROUNDS: u32 = u32::MAX / CALLS_MAX as u32 - 1;

/// Waits for answers. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    words: Mapped,
}

/// How long to look for an answer before sleeping: longer than a node that is awake takes.
const SPIN: Duration = Duration::from_micros(5);
/// How often to let others run before sleeping: once is enough where only the node wants to.
const YIELDS: u32 = 3;
/// Looks between two looks at the clock.
const SPINS: u32 = 32;
/// The longest sleep before the other side is looked after.
const SLEEP: Duration = Duration::from_millis(100);

impl Calls {
    pub(super) fn new(words: Mapped) -> Self {
        Self { words }
    }

    /// Waits for a call's answer, at most for `patience`: looks for it for some microseconds, or
    /// gives way to a node that was woken on this very processor, then sleeps. `is_there` tells now and then
    /// whether the node is still there.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn wait(
        &self,
        call: u32,
        submitted: Submitted,
        patience: Duration,
        mut is_there: impl FnMut() -> bool,
    ) -> Result<[u64; ANSWER_WORDS], CallError> {
        let start = Instant::now();
        let answer = if submitted == (Submitted::Woken { here: true }) {
            self.give_way(call)
        } else {
            self.spin(call, start)
        };
        if let Some(answer) = answer {
            return Ok(answer);
        }
        loop {
            let seen = slots::say_sleeping(&self.words, call);
            if let Some(answer) = slots::take(&self.words, call) {
                slots::say_awake(&self.words, call);
                return Ok(answer);
            }
            if self.words.load(CLOSED) != 0 {
                return Err(CallError::Closed);
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(CallError::TimedOut);
            }
            memory::sleep(&self.words, slot_at(call), seen, left.min(SLEEP));
            if let Some(answer) = slots::take(&self.words, call) {
                slots::say_awake(&self.words, call);
                return Ok(answer);
            }
            if !is_there() {
                return Err(CallError::Closed);
            }
        }
    }

    /// Lets the node run, which was woken on this processor: cheaper than to sleep and be woken.
    fn give_way(&self, call: u32) -> Option<[u64; ANSWER_WORDS]> {
        for _ in 0..YIELDS {
            if let Some(answer) = slots::take(&self.words, call) {
                return Some(answer);
            }
            std::thread::yield_now();
        }
        None
    }

    fn spin(&self, call: u32, start: Instant) -> Option<[u64; ANSWER_WORDS]> {
        loop {
            for _ in 0..SPINS {
                if let Some(answer) = slots::take(&self.words, call) {
                    return Some(answer);
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= SPIN {
                return None;
            }
        }
    }
}
