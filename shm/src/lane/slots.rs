//! The answers to calls: a cache line each, found by the call's number modulo their count.
//!
//! ```text
//! word 0     the number of the call whose answer this is; the client sleeps on its lower half
//! words 1–6  the answer
//! word 7     the number of the call whose client sleeps; written by the client
//! ```
//! The number tells an answer from a late one to an older call in the same place.

use crate::lane::SharedWords;
use crate::lane::layout::{CALLS_MAX, slot_at};

/// The words of an answer.
pub const ANSWER_WORDS: usize = 6;

const NUMBER: usize = 0;
const ANSWER: usize = 1;
const SLEEPS: usize = 7;

/// The node's side.
pub(crate) struct AnswerSlots<W> {
    words: W,
    /// By place: the newest call that came in and was not answered; 0 is none.
    open: [u32; CALLS_MAX],
}

impl<W: SharedWords> AnswerSlots<W> {
    pub(crate) fn new(words: W) -> Self {
        Self { words, open: [0; CALLS_MAX] }
    }

    pub(crate) fn words(&self) -> &W {
        &self.words
    }

    pub(crate) fn open(&mut self, call: u32) -> bool {
        self.open[call as usize % CALLS_MAX] = call;
        call != 0
    }

    pub(crate) fn answer(&mut self, call: u32, answer: [u64; ANSWER_WORDS]) -> Option<bool> {
        let open = &mut self.open[call as usize % CALLS_MAX];
        if call == 0 || *open != call {
            return None;
        }
        *open = 0;
        let slot = slot_at(call);
        self.words.store(slot + NUMBER, 0);
        // Pairs with the second acquire fence in `take`: who copied a word of this answer sees that
        // the number changed.
        self.words.release();
        for (at, word) in answer.into_iter().enumerate() {
            self.words.store(slot + ANSWER + at, word);
        }
        // The release in it pairs with the first acquire fence in `take`: who sees the number sees the
        // answer. The full fence pairs with the one in `say_sleeping`: either we see that the client
        // sleeps, or it sees the number before it does.
        self.words.announce(slot + NUMBER, call.into());
        Some(self.words.load_after(slot + SLEEPS) == u64::from(call))
    }
}

/// Looks for the answer to a call. The client's side.
#[inline]
pub(crate) fn take<W: SharedWords>(words: &W, call: u32) -> Option<[u64; ANSWER_WORDS]> {
    let slot = slot_at(call);
    if words.load(slot + NUMBER) != u64::from(call) {
        return None;
    }
    // Pairs with the second release fence in `answer`.
    words.acquire();
    let answer = std::array::from_fn(|at| words.load(slot + ANSWER + at));
    // Pairs with the first release fence in `answer`.
    words.acquire();
    (words.load(slot + NUMBER) == u64::from(call)).then_some(answer)
}

/// Says that the client sleeps until this call is answered. Look once more with [`take`], then sleep
/// while word 0 of the slot is what is returned here.
pub(crate) fn say_sleeping<W: SharedWords>(words: &W, call: u32) -> u32 {
    let slot = slot_at(call);
    words.store(slot + SLEEPS, call.into());
    // Pairs with the full fence in `answer`.
    words.full();
    words.load(slot + NUMBER) as u32
}

/// Says that the client does not sleep any more.
pub(crate) fn say_awake<W: SharedWords>(words: &W, call: u32) {
    words.store(slot_at(call) + SLEEPS, 0);
}
