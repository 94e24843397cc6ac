//! Lanes: what clients submit through shared memory, served by a plain thread.
//!
//! The thread looks into each lane in turn, hands what it finds to the core and puts the answers
//! back, without the driver's task in between. When nothing has come for a while it says so in each
//! lane and sleeps until a client rings. A lane lasts as long as the stream over which it was given:
//! what was submitted before the stream broke is still done.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use annulus_net::{Clock, LocalEnd};
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{LaneGranted, Message, RequestId, Role, SessionRequest};
use annulus_proto::submission::{Submission, SubmissionError};
use annulus_proto::{Hlc, limits::NAME_BYTES_MAX};
use annulus_shm::lane::{
    Alarm, Answers, LaneFault, LaneOptions, NodeLane, Sleeper, Submissions, UseDrain, current_cpu,
    full_fence,
};
use tokio::sync::mpsc;

use super::settings::LaneSettings;
use super::shared::{Shared, Sleepers};
use super::{Event, present};
use crate::core::{Asker, Caller, Input};

/// Where streams get lanes, and give them back.
pub(super) struct Lanes {
    settings: LaneSettings,
    tables: Vec<String>,
    /// The shards of each table.
    shards: u16,
    taken: AtomicU32,
    next: AtomicU64,
    changes: Mutex<Vec<Change>>,
    /// Whether there are changes: the thread looks here each time around.
    changed: AtomicBool,
    stopping: AtomicBool,
    alarm: Alarm,
}

/// What the thread has not taken note of yet.
enum Change {
    Open(Box<(Open, Answers)>),
    Close(u64),
}

/// A lane that is served.
struct Open {
    number: u64,
    client: u64,
    role: Role,
    submissions: Submissions,
    uses: UseDrain,
    /// Whether its client broke the protocol: nothing more is taken from it.
    is_faulty: bool,
}

/// A lane that was given to a stream, which closes when this is dropped.
pub(super) struct Lane {
    lanes: Arc<Lanes>,
    number: u64,
}

/// Submissions that are taken from one lane before the others have their turn.
const BATCH: usize = 32;
/// Looks into all lanes between two looks at the clock.
const LOOKS: u32 = 16;
/// How often use counts are taken.
const DRAIN_PERIOD: Duration = Duration::from_secs(1);

impl Lanes {
    /// Starts the thread, if there may be lanes at all. It ends with [`Lanes::stop`].
    pub(super) fn start<C: Clock>(
        settings: LaneSettings,
        (tables, shards): (Vec<String>, u16),
        shared: Arc<Shared>,
        clock: C,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        debug_assert!(tables.iter().all(|table| table.len() <= NAME_BYTES_MAX));
        let sleeper = Sleeper::new()?;
        let lanes = Arc::new(Self {
            settings,
            tables,
            shards,
            taken: AtomicU32::new(0),
            next: AtomicU64::new(1),
            changes: Mutex::default(),
            changed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            alarm: sleeper.alarm(),
        });
        let mut thread = Thread {
            lanes: lanes.clone(),
            shared,
            clock,
            events,
            sleeper,
            open: Vec::new(),
            sleepers: Vec::new(),
            bytes: Vec::new(),
            next_drain: Duration::ZERO,
            cpu: 0,
        };
        let run = move || thread.run();
        let handle = thread::Builder::new().name("annulus-rings".to_owned()).spawn(run)?;
        Ok((lanes, handle))
    }

    /// Makes a lane and hands it to the client at the other end of a stream, as the answer to the
    /// request with this id. Nothing else may be on its way over that stream. What comes through the
    /// lane may do what the stream may: `role`.
    ///
    /// # Errors
    /// Why there is none, for the client to read.
    pub(super) fn give(
        self: &Arc<Self>,
        to: &LocalEnd,
        id: u64,
        client: u64,
        role: Role,
    ) -> Result<Lane, String> {
        let limit = self.settings.max;
        if self.taken.fetch_add(1, Ordering::Relaxed) >= limit {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(format!("this node has given out {limit} lanes; raise `lanes_max`"));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // From here on dropping it gives the place back.
        let lane = Lane { lanes: self.clone(), number };
        // Shards are numbered through; a table's own number comes back by division.
        let tables = u16::try_from(self.tables.len()).unwrap_or(u16::MAX);
        let tables = tables.saturating_mul(self.shards);
        let (made, descriptors) = NodeLane::create(LaneOptions { number, tables })
            .map_err(|error| format!("it cannot be made: {error}"))?;
        let granted = LaneGranted { lane: number, tables: self.tables.clone() };
        let header = Header { id, view: 0, hlc: Hlc::ZERO };
        let mut frame = Vec::new();
        codec::encode_frame(header, &granted.into(), &mut frame).map_err(|e| e.to_string())?;
        to.send(&frame, &[descriptors.memory.as_fd(), descriptors.bell.as_fd()])
            .map_err(|error| format!("it cannot be handed over: {error}"))?;
        tracing::debug!(lane = number, %role, "a lane was given");
        let NodeLane { submissions, answers, uses } = made;
        let is_faulty = false;
        let open = Open { number, client, role, submissions, uses, is_faulty };
        self.change(Change::Open(Box::new((open, answers))));
        Ok(lane)
    }

    /// Wakes the thread if it is time to take the use counts of lanes. To be called now and then: the
    /// thread sleeps without a timer.
    pub(super) fn keep_time(&self, now: Duration, next: &mut Duration) {
        if *next <= now && self.taken.load(Ordering::Relaxed) > 0 {
            *next = now + DRAIN_PERIOD;
            self.alarm.sound();
        }
    }

    /// Ends the thread, which closes all lanes.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.alarm.sound();
    }

    fn change(&self, change: Change) {
        self.lock().push(change);
        self.changed.store(true, Ordering::Release);
        self.alarm.sound();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.taken.fetch_sub(1, Ordering::Relaxed);
        self.lanes.change(Change::Close(self.number));
    }
}

struct Thread<C> {
    lanes: Arc<Lanes>,
    shared: Arc<Shared>,
    clock: C,
    events: mpsc::Sender<Event>,
    sleeper: Sleeper,
    open: Vec<Open>,
    sleepers: Sleepers,
    bytes: Vec<u8>,
    next_drain: Duration,
    /// The processor that it last worked on.
    cpu: u32,
}

/// What a look into all lanes came to.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Nothing,
    /// Work for clients that run elsewhere.
    Work,
    /// Work for clients on this very processor, who cannot go on while we look.
    WorkHere,
}

impl<C: Clock> Thread<C> {
    fn run(&mut self) {
        let mut busy_until = Duration::ZERO;
        let mut looks = 0;
        while !self.lanes.stopping.load(Ordering::Relaxed) {
            self.take_note_of_changes();
            let found = self.serve_all();
            looks = if found == Found::Nothing { looks + 1 } else { 0 };
            // While it is busy looking, the clock is looked at now and then.
            if found == Found::Nothing && !busy_until.is_zero() && looks % LOOKS != 0 {
                std::hint::spin_loop();
                continue;
            }
            if found == Found::WorkHere {
                // Its client runs once we sleep.
                busy_until = Duration::ZERO;
                continue;
            }
            let now = self.clock.monotonic();
            if now >= self.next_drain {
                self.next_drain = now + DRAIN_PERIOD;
                self.drain_uses();
            }
            match found {
                Found::Work => busy_until = now + self.lanes.settings.poll,
                Found::Nothing if now >= busy_until => {
                    busy_until = Duration::ZERO;
                    self.sleep();
                }
                _ => {}
            }
        }
        self.take_note_of_changes();
        while let Some(lane) = self.open.pop() {
            self.close(lane);
        }
    }

    fn take_note_of_changes(&mut self) {
        if !self.lanes.changed.load(Ordering::Relaxed) {
            return;
        }
        self.lanes.changed.swap(false, Ordering::Acquire);
        let changes = std::mem::take(&mut *self.lanes.lock());
        for change in changes {
            match change {
                Change::Open(given) => self.open(given.0, given.1),
                Change::Close(number) => {
                    if let Some(at) = self.open.iter().position(|lane| lane.number == number) {
                        let mut lane = self.open.swap_remove(at);
                        // What was submitted before the client went is done all the same: at most
                        // one ring, of which nothing comes back.
                        while self.serve(&mut lane) {}
                        self.close(lane);
                    }
                }
            }
        }
    }

    fn open(&mut self, lane: Open, answers: Answers) {
        let mut state = self.shared.lock_behind_the_driver();
        state.core.count("lanes_opened");
        if let Err(error) = self.sleeper.add(&lane.submissions) {
            tracing::warn!(%error, "a lane cannot be watched, and is closed");
            lane.submissions.close();
            return;
        }
        state.answers.insert(lane.number, answers);
        drop(state);
        self.open.push(lane);
    }

    fn close(&mut self, lane: Open) {
        self.sleeper.remove(&lane.submissions);
        lane.submissions.close();
        let mut state = self.shared.lock_behind_the_driver();
        state.core.count("lanes_closed");
        if let Some(answers) = state.answers.remove(&lane.number) {
            drop(state);
            answers.waker().wake_all();
        }
    }

    fn serve_all(&mut self) -> Found {
        let mut found = Found::Nothing;
        let mut open = std::mem::take(&mut self.open);
        for lane in open.iter_mut().filter(|lane| lane.submissions.is_waiting()) {
            if !self.serve(lane) {
                continue;
            }
            self.cpu = current_cpu();
            let is_here = lane.submissions.is_client_on(self.cpu);
            found = match found {
                Found::Nothing | Found::WorkHere if is_here => Found::WorkHere,
                _ => Found::Work,
            };
        }
        self.open = open;
        found
    }

    /// Takes a batch from a lane; `false` if there was nothing.
    fn serve(&mut self, lane: &mut Open) -> bool {
        if lane.is_faulty {
            return false;
        }
        let now = present(&self.clock);
        let mut state = self.shared.lock_behind_the_driver();
        let due = state.core.poll_timeout();
        let mut count = 0;
        let mut fault = None;
        while count < BATCH {
            match take(lane, &mut self.bytes, &self.lanes.tables) {
                Ok(None) => break,
                Ok(Some((call, request))) => {
                    if call != 0
                        && let Some(answers) = state.answers.get_mut(&lane.number)
                    {
                        answers.open(call);
                    }
                    let asker = Asker::Lane { lane: lane.number, call };
                    let caller = Caller::Client(lane.role);
                    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
                    let message = Message::SessionRequest(request);
                    state.core.handle(now, Input::Request { asker, caller, header, message });
                    state.answer_lanes(&mut self.sleepers);
                }
                Err(broken) => {
                    fault = Some(broken);
                    break;
                }
            }
            count += 1;
        }
        state.core.count_many("submissions", count as u64);
        if fault.is_some() {
            state.core.count("lanes_faulty");
        }
        let is_driver_wanted = state.core.has_output() || state.core.poll_timeout() < due;
        drop(state);
        for (waker, call) in self.sleepers.drain(..) {
            waker.wake(call);
        }
        if is_driver_wanted {
            // A full queue means that the driver's task is about to look anyway.
            let _ = self.events.try_send(Event::Nudge);
        }
        if let Some(fault) = fault {
            tracing::warn!(lane = lane.number, %fault, "a client broke its lane, which is closed");
            lane.is_faulty = true;
            lane.submissions.close();
        }
        count > 0
    }

    fn drain_uses(&mut self) {
        let mut used = Vec::new();
        for lane in &mut self.open {
            lane.uses.drain(|number, what, count| {
                let (table, shard) = (number / self.lanes.shards, number % self.lanes.shards);
                used.push((table.into(), what.in_shard(shard), count));
            });
        }
        if !used.is_empty() {
            let now = present(&self.clock);
            self.shared.lock_behind_the_driver().core.note_uses(now, &used);
        }
    }

    fn sleep(&mut self) {
        for lane in &self.open {
            lane.submissions.say_asleep(Some(self.cpu));
        }
        // Pairs with the client's fence after it has submitted: it sees that we sleep, or we see
        // what it submitted.
        full_fence();
        let waits = |lane: &Open| !lane.is_faulty && lane.submissions.is_waiting();
        if !self.open.iter().any(waits) {
            self.sleeper.sleep();
        }
        for lane in &self.open {
            lane.submissions.say_asleep(None);
        }
    }
}

/// How a client broke its lane.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Lane(#[from] LaneFault),
    #[error("malformed submission: {0}")]
    Submission(#[from] SubmissionError),
    #[error("there is no table number {0}")]
    Table(u16),
}

/// Takes one submission out of a lane, whole, before anything in it is looked at.
fn take(
    lane: &mut Open,
    bytes: &mut Vec<u8>,
    tables: &[String],
) -> Result<Option<(u32, SessionRequest)>, Fault> {
    if !lane.submissions.take(bytes)? {
        return Ok(None);
    }
    let submission = Submission::decode(bytes)?;
    let table = tables.get(usize::from(submission.table)).ok_or(Fault::Table(submission.table))?;
    let (key, operation) = submission.operation()?;
    let request = SessionRequest {
        table: table.clone(),
        key,
        request: RequestId { client: lane.client, sequence: submission.sequence },
        hops: 0,
        patience_ms: submission.patience_ms,
        operation,
    };
    Ok(Some((submission.call, request)))
}
