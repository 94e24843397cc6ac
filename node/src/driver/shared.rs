//! A core behind its lock: its task, the thread that serves its part of all lanes, and the connections of clients of Redis
//! take turns with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use annulus_proto::message::Message;
use annulus_shm::lane::{Answers, Waker};

use crate::core::{Core, Input, Now, Request};

/// A core, and the lanes that it answers.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whether the core's task waits for the lock: a thread that takes it again and again would
    /// keep it out.
    task_waits: AtomicBool,
}

/// What the lock guards. It is held for one event at a time, never across an await.
pub(super) struct State {
    pub(super) core: Core,
    /// By the number of their lane.
    pub(super) answers: BTreeMap<u64, Answers>,
}

/// Clients that sleep and have their answer: each to be woken, best without the lock.
pub(super) type Sleepers = Vec<(Waker, u32)>;

/// How often the thread that serves lanes gives way before it takes the lock after all.
const YIELDS_MAX: usize = 1_000;

impl Shared {
    pub(super) fn new(core: Core) -> Self {
        let state = State { core, answers: BTreeMap::new() };
        Self { state: Mutex::new(state), task_waits: AtomicBool::new(false) }
    }

    /// The lock, for the core's task.
    ///
    /// # Panics
    /// If whoever had it did: the core is of no use any more, and the node ends with its task.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.task_waits.store(true, Ordering::Relaxed);
        let state = self.state.lock().expect("nobody panicked who asked the core");
        self.task_waits.store(false, Ordering::Relaxed);
        state
    }

    /// Hands a request to the core. Returns the answer, if it is there at once, and whether that left the core's task
    /// something to do.
    ///
    /// # Errors
    /// The request, if others have the core now, or its task waits for it: many who ask would keep that out, and
    /// whoever waits for the lock holds up what else its thread has to do.
    #[expect(clippy::result_large_err, reason = "it is no error, and is not passed on")]
    pub(super) fn ask(
        &self,
        now: Now,
        request: Request,
    ) -> Result<(Option<Message>, bool), Request> {
        let Some(mut state) = self.lock_if_free() else { return Err(request) };
        let (asker, id) = (request.asker, request.header.id);
        let core = &mut state.core;
        let due = core.poll_timeout();
        core.handle(now, Input::Request(request));
        let answer = core.take_reply(asker, id);
        let leaves_work = core.has_output() || core.has_lane_answer() || core.poll_timeout() < due;
        Ok((answer, leaves_work))
    }

    /// Has the core do something that leaves nothing to do, unless others have it now, or its task waits for it.
    pub(super) fn do_at_once<T>(&self, act: impl FnOnce(&mut Core) -> Option<T>) -> Option<T> {
        act(&mut self.lock_if_free()?.core)
    }

    fn lock_if_free(&self) -> Option<MutexGuard<'_, State>> {
        if self.task_waits.load(Ordering::Relaxed) {
            return None;
        }
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The lock, for the hub's task, now and then.
    pub(super) fn look(&self) -> MutexGuard<'_, State> {
        self.take()
    }

    /// The lock, for the thread that serves lanes, after the core's task.
    pub(super) fn lock_behind_the_task(&self) -> MutexGuard<'_, State> {
        for _ in 0..YIELDS_MAX {
            if !self.task_waits.load(Ordering::Relaxed) {
                break;
            }
            std::thread::yield_now();
        }
        self.take()
    }

    fn take(&self) -> MutexGuard<'_, State> {
        // A panic of the core takes its thread down; what the other then finds is for its assertions.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts answers where their callers look for them, and notes who has to be woken.
    pub(super) fn answer_lanes(&mut self, sleepers: &mut Sleepers) {
        while let Some(answer) = self.core.poll_lane_answer() {
            // The lane may be gone by now.
            let Some(answers) = self.answers.get_mut(&answer.lane) else { continue };
            match answers.answer(answer.call, answer.answer.encode()) {
                Some(true) => sleepers.push((answers.waker(), answer.call)),
                Some(false) => {}
                None => self.core.count("lane_answers_late"),
            }
        }
    }
}
