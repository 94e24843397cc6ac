//! What this machine allows: a thread that answers as soon as it can, and does nothing else.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::ensure;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;
use rustix::thread::futex;

use crate::machine;
use crate::sample::Latencies;

/// A thread that copies one word to another, looking for it all the time or asleep until a bell rings.
pub(super) struct Echo {
    words: Arc<Words>,
    bell: Arc<OwnedFd>,
    thread: JoinHandle<anyhow::Result<()>>,
    asked: u32,
    sleeps: bool,
}

#[derive(Default)]
struct Words {
    asked: Line,
    answered: Line,
}

/// A word alone in its cache line, and in the next, which processors fetch along.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU32);

/// How long a sleeper trusts that it is woken.
const LOOK_AGAIN: futex::Timespec = futex::Timespec { tv_sec: 1, tv_nsec: 0 };
/// Ends the thread.
const LAST: u32 = u32::MAX;

impl Echo {
    /// Starts it on a core.
    pub(super) fn start(core: usize, sleeps: bool) -> anyhow::Result<Self> {
        let words = Arc::new(Words::default());
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK)?);
        let thread = std::thread::spawn({
            let (words, bell) = (words.clone(), bell.clone());
            move || {
                machine::pin(core)?;
                if sleeps { answer_asleep(&words, &bell) } else { answer_awake(&words) }
            }
        });
        Ok(Self { words, bell, thread, asked: 0, sleeps })
    }

    /// Asks so many times; returns the median in microseconds.
    pub(super) fn ask(&mut self, count: usize) -> anyhow::Result<f64> {
        let mut latencies = Latencies::default();
        for _ in 0..count {
            let began = Instant::now();
            self.asked += 1;
            self.words.asked.0.store(self.asked, Ordering::Release);
            if self.sleeps {
                write(&self.bell, &1_u64.to_ne_bytes())?;
            }
            loop {
                let answered = self.words.answered.0.load(Ordering::Acquire);
                if answered == self.asked {
                    break;
                }
                ensure!(!self.thread.is_finished(), "the thread that answers has ended");
                if self.sleeps {
                    let (word, limit) = (&self.words.answered.0, Some(&LOOK_AGAIN));
                    // Whatever it returns, the word tells.
                    let _ = futex::wait(word, futex::Flags::PRIVATE, answered, limit);
                } else {
                    std::hint::spin_loop();
                }
            }
            latencies.push(began.elapsed());
        }
        let [median] = latencies.percentiles_us([0.5]);
        Ok(median)
    }

    /// Ends it.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.words.asked.0.store(LAST, Ordering::Release);
        write(&self.bell, &1_u64.to_ne_bytes())?;
        self.thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    }
}

fn answer_awake(words: &Words) -> anyhow::Result<()> {
    let mut answered = 0;
    while answered != LAST {
        let asked = words.asked.0.load(Ordering::Acquire);
        if asked == answered {
            std::hint::spin_loop();
            continue;
        }
        answered = asked;
        words.answered.0.store(answered, Ordering::Release);
    }
    Ok(())
}

/// As a node sleeps while none of its clients wants anything: in epoll, for an event counter.
fn answer_asleep(words: &Words, bell: &OwnedFd) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, bell, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
    let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 1];
    loop {
        let asked = words.asked.0.load(Ordering::Acquire);
        if asked == words.answered.0.load(Ordering::Relaxed) {
            let rang = epoll::wait(&epoll, &mut events[..], None)?;
            ensure!(rang == 1, "a wake-up without a bell");
            continue;
        }
        if asked == LAST {
            return Ok(());
        }
        words.answered.0.store(asked, Ordering::Release);
        futex::wake(&words.answered.0, futex::Flags::PRIVATE, 1)?;
    }
}
