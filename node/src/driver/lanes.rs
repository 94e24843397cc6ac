//! Lanes: what clients submit through shared memory, served by a plain thread for each core.
//!
//! A lane has a track for each core. The core's thread looks into its track of each lane in turn, hands
//! what it finds to the core and puts the answers back, without the core's task in between. When nothing
//! has come for a while it says so on each track and sleeps until a client rings. A lane lasts as long as
//! the stream over which it was given: what was submitted before the stream broke is still done.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use annulus_net::{Clock, LocalEnd};
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{LaneGranted, Message, RequestId, Role, SessionRequest};
use annulus_proto::submission::{Answer, Submission, SubmissionError};
use annulus_proto::{Hlc, Slot, limits::NAME_BYTES_MAX};
use annulus_shm::lane::{
    Alarm, Answers, LaneFault, LaneOptions, NodeLane, Sleeper, Submissions, UseDrain, current_cpu,
    full_fence,
};

use tokio::sync::mpsc;

use super::inboxes::Inboxes;
use super::settings::LaneSettings;
use super::shared::{Shared, Sleepers, State};
use crate::core::route::core_of;
use crate::core::{Asker, Caller, Input, MemoryUse, Now, Request};

/// Where streams get lanes, and give them back.
pub(super) struct Lanes {
    settings: LaneSettings,
    tables: Vec<String>,
    taken: AtomicU32,
    next: AtomicU64,
    stopping: AtomicBool,
    /// One for each core's thread.
    desks: Vec<Desk>,
}

/// Where a thread finds what it has to take note of.
struct Desk {
    changes: Mutex<Vec<Change>>,
    /// Whether there are changes: the thread looks here each time around.
    changed: AtomicBool,
    alarm: Alarm,
}

/// What the thread has not taken note of yet.
enum Change {
    Open(Box<(Track, Answers)>),
    Close(u64),
}

/// The part of a lane that a core's thread serves: its track.
struct Track {
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
/// Batches of the smallest submissions in one ring.
const RING_BATCHES: usize = 8_192 / (48 / 8 + 2) / BATCH;
/// How long what the wall clock said is used again: stamps count milliseconds.
const WALL_KEPT: Duration = Duration::from_millis(1);
/// How often use counts are taken.
const DRAIN_PERIOD: Duration = Duration::from_secs(1);

impl Lanes {
    /// Starts a thread for each core. They end with [`Lanes::stop`]; one that panics says so.
    ///
    /// # Errors
    /// There is no thread or no descriptor to be had; none was left behind.
    pub(super) fn start<C: Clock>(
        settings: LaneSettings,
        tables: Vec<String>,
        cores: &[Arc<Shared>],
        clock: &C,
        inboxes: &Inboxes,
        panicked: &mpsc::UnboundedSender<()>,
    ) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        debug_assert!(tables.iter().all(|table| table.len() <= NAME_BYTES_MAX));
        let sleepers: Vec<Sleeper> =
            cores.iter().map(|_| Sleeper::new()).collect::<Result<_, _>>()?;
        let desk = |sleeper: &Sleeper| Desk {
            changes: Mutex::default(),
            changed: AtomicBool::new(false),
            alarm: sleeper.alarm(),
        };
        let lanes = Arc::new(Self {
            settings,
            tables,
            taken: AtomicU32::new(0),
            next: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            desks: sleepers.iter().map(desk).collect(),
        });
        let mut handles = Vec::new();
        for (number, sleeper) in sleepers.into_iter().enumerate() {
            let mut thread = Thread {
                number,
                lanes: lanes.clone(),
                core: cores[number].clone(),
                cores: cores.to_vec(),
                time: Time { clock: clock.clone(), wall: None },
                looked: None,
                inboxes: inboxes.clone(),
                sleeper,
                open: Vec::new(),
                sleepers: Vec::new(),
                bytes: Vec::new(),
                next_drain: Duration::ZERO,
                served: Duration::ZERO,
                cpu: 0,
            };
            let witness = Witness(panicked.clone());
            let run = move || {
                let _witness = witness;
                thread.run();
            };
            match thread::Builder::new().name(format!("annulus-rings-{number}")).spawn(run) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    lanes.stop();
                    handles.into_iter().for_each(|handle| drop(handle.join()));
                    return Err(error);
                }
            }
        }
        Ok((lanes, handles))
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
        // Uses are counted on the first track, for each part of a table.
        let tables = u16::try_from(self.tables.len() * self.desks.len()).unwrap_or(u16::MAX);
        let create = || NodeLane::create(LaneOptions { number, tables });
        let tracks: Result<Vec<_>, _> = self.desks.iter().map(|_| create()).collect();
        let tracks = tracks.map_err(|error| format!("it cannot be made: {error}"))?;
        let granted = LaneGranted { lane: number, tables: self.tables.clone() };
        let header = Header { id, view: 0, hlc: Hlc::ZERO };
        let mut frame = Vec::new();
        codec::encode_frame(header, &granted.into(), &mut frame).map_err(|e| e.to_string())?;
        let descriptors = tracks
            .iter()
            .flat_map(|(_, descriptors)| [descriptors.memory.as_fd(), descriptors.bell.as_fd()]);
        to.send(&frame, &descriptors.collect::<Vec<_>>())
            .map_err(|error| format!("it cannot be handed over: {error}"))?;
        tracing::debug!(lane = number, %role, "a lane was given");
        for (desk, (made, _)) in self.desks.iter().zip(tracks) {
            let NodeLane { submissions, answers, uses } = made;
            let track = Track { number, client, role, submissions, uses, is_faulty: false };
            desk.change(Change::Open(Box::new((track, answers))));
        }
        Ok(lane)
    }

    /// Wakes the threads if it is time to take the use counts of lanes. To be called now and then: they
    /// sleep without a timer.
    pub(super) fn keep_time(&self, now: Duration, next: &mut Duration) {
        if *next <= now && self.taken.load(Ordering::Relaxed) > 0 {
            *next = now + DRAIN_PERIOD;
            self.sound_alarms();
        }
    }

    /// Ends the threads, which closes all lanes.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.sound_alarms();
    }

    fn sound_alarms(&self) {
        self.desks.iter().for_each(|desk| desk.alarm.sound());
    }
}

impl Desk {
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
        self.lanes.desks.iter().for_each(|desk| desk.change(Change::Close(self.number)));
    }
}

/// Tells that its thread panicked: its core is of no use any more, and the node is to end.
struct Witness(mpsc::UnboundedSender<()>);

impl Drop for Witness {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(());
        }
    }
}

struct Thread<C> {
    number: usize,
    lanes: Arc<Lanes>,
    core: Arc<Shared>,
    /// All of them, for what was used of each.
    cores: Vec<Arc<Shared>>,
    time: Time<C>,
    /// The present at the last look into all lanes, if nothing was found and the next look follows at once.
    looked: Option<Now>,
    inboxes: Inboxes,
    sleeper: Sleeper,
    open: Vec<Track>,
    sleepers: Sleepers,
    /// The submission in hand.
    bytes: Vec<u8>,
    next_drain: Duration,
    /// When it last served a lane.
    served: Duration,
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
        while !self.lanes.stopping.load(Ordering::Relaxed) {
            self.take_note_of_changes();
            let found = self.serve_all();
            if found == Found::WorkHere {
                // Its client runs once we sleep.
                busy_until = Duration::ZERO;
                continue;
            }
            let now = if found == Found::Work {
                self.served
            } else {
                // Takes as long as a pause between two looks would, and what is found next need not wait for it.
                let now = self.time.present();
                self.looked = Some(now);
                now.monotonic
            };
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
        let desk = &self.lanes.desks[self.number];
        if !desk.changed.load(Ordering::Relaxed) {
            return;
        }
        desk.changed.swap(false, Ordering::Acquire);
        self.looked = None;
        let changes = std::mem::take(&mut *desk.lock());
        for change in changes {
            match change {
                Change::Open(given) => self.open(given.0, given.1),
                Change::Close(number) => {
                    if let Some(at) = self.open.iter().position(|lane| lane.number == number) {
                        let mut lane = self.open.swap_remove(at);
                        // What was submitted before the client went is done all the same, at most one
                        // ring of it, of which nothing comes back. Somebody may go on submitting.
                        let mut batches = RING_BATCHES;
                        while batches > 0 && self.serve(&mut lane) {
                            batches -= 1;
                        }
                        self.close(lane);
                    }
                }
            }
        }
    }

    fn open(&mut self, lane: Track, answers: Answers) {
        let mut state = self.core.lock_behind_the_task();
        if self.number == 0 {
            state.core.count("lanes_opened");
        }
        if let Err(error) = self.sleeper.add(&lane.submissions) {
            tracing::warn!(%error, "a lane cannot be watched, and is closed");
            lane.submissions.close();
            return;
        }
        state.answers.insert(lane.number, answers);
        drop(state);
        self.open.push(lane);
    }

    fn close(&mut self, lane: Track) {
        self.sleeper.remove(&lane.submissions);
        lane.submissions.close();
        let mut state = self.core.lock_behind_the_task();
        if self.number == 0 {
            state.core.count("lanes_closed");
        }
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
    fn serve(&mut self, lane: &mut Track) -> bool {
        if lane.is_faulty {
            return false;
        }
        let mut state = self.core.lock_behind_the_task();
        let now = self.looked.take().unwrap_or_else(|| self.time.present());
        self.served = now.monotonic;
        let mut is_task_wanted = false;
        let mut count = 0;
        let mut fault = None;
        while count < BATCH {
            let (lanes, sleepers) = (&self.lanes, &mut self.sleepers);
            match lane.serve_one(now, self.number, lanes, &mut state, &mut self.bytes, sleepers) {
                Ok(None) => break,
                Ok(Some(is_wanted)) => is_task_wanted |= is_wanted,
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
        drop(state);
        for (waker, call) in self.sleepers.drain(..) {
            waker.wake(call);
        }
        if is_task_wanted {
            self.inboxes.nudge(self.number);
        }
        if let Some(fault) = fault {
            tracing::warn!(lane = lane.number, %fault, "a client broke its lane, which is closed");
            lane.is_faulty = true;
            lane.submissions.close();
            // The whole of it: this part closes with the others, once the stream is gone or just now.
            let others = self.lanes.desks.iter().enumerate().filter(|(at, _)| *at != self.number);
            others.for_each(|(_, desk)| desk.change(Change::Close(lane.number)));
        }
        count > 0
    }

    /// Takes what clients counted, which they do on their first tracks.
    fn drain_uses(&mut self) {
        if self.number > 0 {
            return;
        }
        let cores = self.cores.len();
        let mut used: Vec<Vec<MemoryUse>> = vec![Vec::new(); cores];
        for lane in &mut self.open {
            let lane_number = lane.number;
            lane.uses.drain(|part, what, count| {
                let (part, by) = (usize::from(part), Asker::Lane { lane: lane_number, call: 0 });
                let table = part / cores;
                used[part % cores].push(MemoryUse { by, table, used: what, count });
            });
        }
        let now = self.time.present();
        for (core, used) in self.cores.iter().zip(&used).filter(|(_, used)| !used.is_empty()) {
            core.lock_behind_the_task().core.note_uses(now, used);
        }
    }

    fn sleep(&mut self) {
        for lane in &self.open {
            lane.submissions.say_asleep(Some(self.cpu));
        }
        // Pairs with the client's fence after it has submitted: it sees that we sleep, or we see
        // what it submitted.
        full_fence();
        let waits = |lane: &Track| !lane.is_faulty && lane.submissions.is_waiting();
        if !self.open.iter().any(waits) {
            self.sleeper.sleep();
        }
        for lane in &self.open {
            lane.submissions.say_asleep(None);
        }
        self.looked = None;
    }
}

/// The present, for a thread that asks for it all the time.
struct Time<C> {
    clock: C,
    /// When the wall clock was last read.
    wall: Option<Now>,
}

impl<C: Clock> Time<C> {
    /// The present, by a wall clock that may be up to [`WALL_KEPT`] behind. Costs one clock and not two.
    fn present(&mut self) -> Now {
        let monotonic = self.clock.monotonic();
        match self.wall {
            Some(read) if monotonic < read.monotonic + WALL_KEPT => {
                Now { monotonic, wall_ms: read.wall_ms }
            }
            _ => {
                let now = Now { monotonic, wall_ms: self.clock.wall_ms() };
                self.wall = Some(now);
                now
            }
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
    #[error("the key is another core's")]
    Core,
}

impl Track {
    /// Takes one submission off the track, whole, before anything in it is looked at, and has the core do what
    /// it asks for. Says whether that left the core's task something to do; `None`: there was none.
    fn serve_one(
        &mut self,
        now: Now,
        core: usize,
        lanes: &Lanes,
        state: &mut State,
        bytes: &mut Vec<u8>,
        sleepers: &mut Sleepers,
    ) -> Result<Option<bool>, Fault> {
        if !self.submissions.take(bytes)? {
            return Ok(None);
        }
        let submission = Submission::decode(bytes)?;
        let Submission { table, call, .. } = submission;
        let name = lanes.tables.get(usize::from(table)).ok_or(Fault::Table(table))?;
        let slot = Slot::of(submission.key);
        if core_of(slot, lanes.desks.len()) != core {
            return Err(Fault::Core);
        }
        let done = state.core.submit(now, (self.number, self.role), slot, &submission);
        if call != 0
            && let Some(answers) = state.answers.get_mut(&self.number)
        {
            answers.open(call);
            if let Some(acknowledged) = done {
                let answer = Answer::Acknowledged(acknowledged).encode();
                if answers.answer(call, answer) == Some(true) {
                    sleepers.push((answers.waker(), call));
                }
            }
        }
        if done.is_some() {
            return Ok(Some(false));
        }
        let due = state.core.poll_timeout();
        state.core.handle(now, Input::Request(self.request(name.clone(), &submission)?));
        state.answer_lanes(sleepers);
        Ok(Some(state.core.has_output() || state.core.poll_timeout() < due))
    }

    /// A submission as a request like any other.
    fn request(
        &self,
        table: String,
        submission: &Submission<'_>,
    ) -> Result<Request, SubmissionError> {
        let (key, operation) = submission.operation()?;
        let request = SessionRequest {
            table,
            key,
            request: RequestId { client: self.client, sequence: submission.sequence },
            hops: 0,
            patience_ms: submission.patience_ms,
            operation,
        };
        Ok(Request {
            asker: Asker::Lane { lane: self.number, call: submission.call },
            caller: Caller::Client(self.role),
            header: Header { id: 0, view: 0, hlc: Hlc::ZERO },
            message: Message::SessionRequest(request),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<(Duration, u64)> = const { Cell::new((Duration::ZERO, 0)) };
        static WALL_READS: Cell<u32> = const { Cell::new(0) };
    }

    #[derive(Clone)]
    struct HandClock;

    impl Clock for HandClock {
        fn wall_ms(&self) -> u64 {
            WALL_READS.set(WALL_READS.get() + 1);
            NOW.get().1
        }

        fn monotonic(&self) -> Duration {
            NOW.get().0
        }

        fn monotonic_coarse_ms(&self) -> u64 {
            u64::try_from(NOW.get().0.as_millis()).expect("few")
        }
    }

    #[test]
    fn wall_clock_is_read_once_a_millisecond_and_its_jumps_are_seen_after_one() {
        let mut time = Time { clock: HandClock, wall: None };
        let mut seen = Vec::new();
        for (micros, wall_ms) in [
            (5_000, 70),
            (5_400, 70),
            (5_999, 3_600_071),
            (6_000, 3_600_071),
            (6_001, 12),
            (7_000, 12),
        ] {
            NOW.set((Duration::from_micros(micros), wall_ms));
            let now = time.present();
            assert_eq!(now.monotonic, Duration::from_micros(micros));
            seen.push(now.wall_ms);
        }
        assert_eq!(seen, [70, 70, 70, 3_600_071, 3_600_071, 12]);
        assert_eq!(WALL_READS.get(), 3);
    }
}
