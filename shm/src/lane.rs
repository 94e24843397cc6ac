//! A lane: the memory that the node shares with one client, which both of them write.
//!
//! It holds a ring of *submissions* (bytes from the client to the node, in order), a place for the
//! answer to each *call*, and the *use counts* that the client's readers leave. The node makes it as
//! a sealed memory file and hands the descriptor over; one client has one lane, so whatever a client
//! does in there, it does to itself. The bytes and the protocol are in `docs/lanes.md`.
//!
//! The node's ends are [`Submissions`], [`Answers`] and [`UseDrain`]; the client's are [`Submitter`],
//! [`Calls`] and [`UseCounts`]. Neither side believes a number that it reads here: positions and
//! sizes are compared with what it knows for itself, and bytes are copied out before they are looked
//! at. What a submission means, and what an answer's words mean, is for the callers to agree on.

mod bell;
mod calls;
mod counts;
pub(crate) mod layout;
mod memory;
pub(crate) mod ring;
pub(crate) mod slots;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::region::Region;
use crate::words::{Mapped, Words};
use layout::Places;
use memory::MemoryFile;

pub use bell::{Alarm, Sleeper};
pub use calls::{CallError, Calls, SubmitError, Submitted, Submitter};
pub use counts::{SAMPLE, TableUses, UseCounts, UseDrain, is_sampled};
pub use layout::{CALLS_MAX, LANE_LAYOUT_VERSION, SUBMISSION_BYTES_MAX};
pub use ring::LaneFault;
pub use slots::ANSWER_WORDS;

/// What a lane is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOptions {
    /// The lane's number, for messages.
    pub number: u64,
    /// The tables whose uses are counted, times the shards of each; they share the room for counts equally. 1 to 4096.
    pub tables: u16,
}

/// A new lane, as the node holds it.
pub struct NodeLane {
    /// What the client submits.
    pub submissions: Submissions,
    /// Where calls are answered.
    pub answers: Answers,
    /// What the client's readers used.
    pub uses: UseDrain,
}

/// What the client is handed: the memory, and the bell that wakes the node.
#[derive(Debug)]
pub struct LaneDescriptors {
    /// The lane's memory.
    pub memory: OwnedFd,
    /// The bell.
    pub bell: OwnedFd,
}

/// A lane as the client holds it.
pub struct ClientLane {
    /// The lane's number.
    pub number: u64,
    /// What submits: for one thread at a time.
    pub submitter: Submitter,
    /// Where the answers to calls are waited for, by any number of threads.
    pub calls: Calls,
    /// What counts uses, for any number of threads.
    pub uses: UseCounts,
}

/// Why memory that was handed over is no lane. Nothing was written to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// It cannot be examined or mapped.
    #[error("cannot map the lane: {0}")]
    Io(#[from] io::Error),
    /// It might shrink under our feet, which would kill us.
    #[error("the lane's memory is not sealed")]
    NotSealed,
    /// It is none, or of another version.
    #[error("not a lane of this version: {0}")]
    Header(&'static str),
}

impl NodeLane {
    /// Makes a lane, all of its memory reserved (some 140 KiB), and what to hand over for it.
    ///
    /// # Errors
    /// When the system has no descriptors or memory left.
    pub fn create(options: LaneOptions) -> io::Result<(Self, LaneDescriptors)> {
        let places = Places::new();
        let (file, region) = MemoryFile::create(places.bytes())?;
        let bell = Arc::new(bell::create()?);
        let descriptors = LaneDescriptors { memory: file, bell: bell.try_clone()? };
        let words = Mapped::new(Arc::new(region) as Arc<dyn Region>);
        layout::write_header(&words, options.number, options.tables);
        let lane = Self {
            submissions: Submissions {
                ring: ring::Consumer::new(words.clone(), places.ring()),
                bell,
            },
            answers: Answers { slots: slots::AnswerSlots::new(words.clone()) },
            uses: UseDrain::new(words, options.tables),
        };
        Ok((lane, descriptors))
    }
}

impl ClientLane {
    /// Maps what the node handed over.
    ///
    /// # Errors
    /// [`LaneError`]; the node and this library are then of different versions, as a rule.
    pub fn attach(descriptors: LaneDescriptors) -> Result<Self, LaneError> {
        let places = Places::new();
        let LaneDescriptors { memory, bell } = descriptors;
        let region = MemoryFile::open(memory, places.bytes())?;
        let words = Mapped::new(Arc::new(region) as Arc<dyn Region>);
        let (number, tables) = layout::read_header(&words).map_err(LaneError::Header)?;
        Ok(Self {
            number,
            submitter: Submitter::new(ring::Producer::new(words.clone(), places.ring()), bell),
            calls: Calls::new(words.clone()),
            uses: UseCounts::new(words, tables),
        })
    }
}

/// The node's end of the ring.
pub struct Submissions {
    ring: ring::Consumer<Mapped>,
    bell: Arc<OwnedFd>,
}

impl Submissions {
    /// Copies the next submission out, in place of what `out` held. `false`: there is none.
    ///
    /// # Errors
    /// [`LaneFault`], when the client broke the protocol: nothing more can be taken from this lane.
    pub fn take(&mut self, out: &mut Vec<u8>) -> Result<bool, LaneFault> {
        self.ring.pop(out)
    }

    /// Whether something seems to wait. Costs one load.
    pub fn is_waiting(&self) -> bool {
        self.ring.is_waiting()
    }

    /// Says whether the node's thread sleeps (and on which processor), so that the client rings its
    /// bell. After saying so look at all lanes once more behind a [`full_fence`].
    pub fn say_asleep(&self, cpu: Option<u32>) {
        self.ring.say_asleep(cpu);
    }

    /// Gives the lane up: the client stops using it when it next looks.
    pub fn close(&self) {
        self.ring.close();
    }

    /// Whether the client that called last did so on this processor, as far as it says.
    pub fn is_client_on(&self, cpu: u32) -> bool {
        self.ring.client_cpu() == Some(cpu)
    }
}

/// Where the node answers calls. One thread at a time answers.
pub struct Answers {
    slots: slots::AnswerSlots<Mapped>,
}

impl Answers {
    /// Notes that a call came in, so that an older one with the same place is not answered any more.
    /// `false` for a number that no client gives.
    pub fn open(&mut self, call: u32) -> bool {
        self.slots.open(call)
    }

    /// Answers a call. `None` if it is not open; whether its client sleeps, and so has to be woken
    /// with [`Waker::wake`].
    pub fn answer(&mut self, call: u32, answer: [u64; ANSWER_WORDS]) -> Option<bool> {
        self.slots.answer(call, answer)
    }

    /// What wakes a client after its calls were answered, without holding on to [`Answers`].
    pub fn waker(&self) -> Waker {
        Waker { words: self.slots.words().clone() }
    }
}

/// Wakes the threads of one client.
#[derive(Clone)]
pub struct Waker {
    words: Mapped,
}

impl Waker {
    /// Wakes who waits for this call: a system call.
    pub fn wake(&self, call: u32) {
        memory::wake(&self.words, layout::slot_at(call));
    }

    /// Wakes all who wait for anything, to find the lane closed.
    pub fn wake_all(&self) {
        for call in 0..CALLS_MAX as u32 {
            memory::wake(&self.words, layout::slot_at(call));
        }
    }
}

/// Orders all that this thread stored before it before all that it loads after it. For
/// [`Submissions::say_asleep`].
pub fn full_fence() {
    fence(Ordering::SeqCst);
}

/// The processor that this thread runs on at the moment.
pub fn current_cpu() -> u32 {
    rustix::thread::sched_getcpu() as u32
}

/// Words that two processes write in turns, each looking at what the other wrote.
pub(crate) trait SharedWords: Words + Clone {
    /// A fence that also orders stores before it before loads after it.
    fn full(&self);
    /// A relaxed store, with a release fence before it and a full fence after it.
    fn announce(&self, at: usize, value: u64) {
        self.release();
        self.store(at, value);
        self.full();
    }
    /// A relaxed load that [`announce`](Self::announce) is to be ordered before.
    fn load_after(&self, at: usize) -> u64 {
        self.load(at)
    }
}

impl SharedWords for Mapped {
    #[inline]
    fn full(&self) {
        full_fence();
    }

    // A sequentially consistent swap and load do what the fences do, beside a side that has fences (C++20,
    // [atomics.order]), and are a good deal cheaper on x86.
    #[inline]
    fn announce(&self, at: usize, value: u64) {
        self.word(at).swap(value, Ordering::SeqCst);
    }

    #[inline]
    fn load_after(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::SeqCst)
    }
}
