//! The task that owns a core, and takes turns with it with the threads that serve lanes.

use std::sync::Arc;
use std::time::Duration;

use super::archive;
use super::disk::Batch;
use super::door::Events;
use super::inboxes::{CoreEvent, CoreReceiver, Inboxes};
use super::post::Post;
use super::present;
use super::reserving::Reservations;
use super::shared::{Shared, Sleepers};
use crate::core::{HubInput, Input, NoAnswer, Notice, Outcome, Output, SlotCall};
use annulus_net::{Clock, Net};
use crossbeam_channel::Sender;
use tokio::sync::mpsc;

/// What a core's task works with.
pub(super) struct CoreTask<N: Net, C: Clock> {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: C,
    pub(super) post: Arc<Post<N>>,
    pub(super) inbox: CoreReceiver,
    pub(super) inboxes: Inboxes,
    /// To the task that puts things on disk.
    pub(super) disk: mpsc::UnboundedSender<Batch>,
    /// To the thread that writes down what leaves the tables; `None` where nothing is to be written.
    pub(super) archive: Option<Sender<archive::Batch>>,
    /// Who listens to what became of sessions.
    pub(super) events: Arc<Events>,
    /// Where memory for tables is asked for.
    pub(super) reservations: Arc<Reservations>,
    /// To what calls the application, for each of its slot sets.
    pub(super) slot_sets: Vec<mpsc::UnboundedSender<SlotCall>>,
    /// Clients to wake; kept for its memory.
    pub(super) sleepers: Sleepers,
    pub(super) next_scan: Duration,
}

/// Batches that are handled before what is due is looked at again.
const BATCHES_MAX: usize = 32;
/// How many expired entries a step of the scan drops at most, and how many records it checks: some
/// milliseconds together if all have expired, and else a fifth of one.
const EXPIRED_STEP: usize = 2_048;
const VERIFIED_STEP: usize = 256;
/// How often a step is done.
const SCAN_PERIOD: Duration = Duration::from_millis(50);

impl<N: Net, C: Clock> CoreTask<N, C> {
    /// Runs until the node stops.
    pub(super) async fn run(mut self) {
        loop {
            self.carry_out().await;
            let now = self.clock.monotonic();
            let due = self.shared.lock().core.poll_timeout().min(self.next_scan);
            let wait = due.saturating_sub(now);
            if wait.is_zero() {
                self.on_time();
                // There may be more of it to do at once for a while, and neither requests nor sockets wait for that.
                self.take_in_waiting().await;
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                urgent = self.inbox.first.urgent.recv() => match urgent {
                    Some(input) => self.take_in(input).await,
                    None => return,
                },
                event = self.inbox.first.requests.recv() => {
                    let Some(event) = event else { return };
                    self.take_in_all(event).await;
                    // However many requests there are.
                    self.take_in_bulk().await;
                }
                answer = self.inbox.bulk.urgent.recv() => {
                    let Some(answer) = answer else { return };
                    self.take_in(answer).await;
                }
                request = self.inbox.bulk.requests.recv() => {
                    let Some(request) = request else { return };
                    self.take_in(request).await;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes in what is here already.
    async fn take_in_waiting(&mut self) {
        while let Ok(input) = self.inbox.first.urgent.try_recv() {
            self.take_in(input).await;
        }
        if let Ok(event) = self.inbox.first.requests.try_recv() {
            self.take_in_all(event).await;
        }
        self.take_in_bulk().await;
    }

    /// Takes in one of each of what waits behind requests, if there is any.
    async fn take_in_bulk(&mut self) {
        if let Ok(answer) = self.inbox.bulk.urgent.try_recv() {
            self.take_in(answer).await;
        }
        if let Ok(request) = self.inbox.bulk.requests.try_recv() {
            self.take_in(request).await;
        }
    }

    async fn take_in_all(&mut self, first: CoreEvent) {
        let mut event = Some(first);
        let mut left = BATCHES_MAX;
        while let Some(next) = event {
            match next {
                // One after the other: a few bytes of requests can ask for megabytes of answers, and
                // only what is in a stream's queue counts against its bound.
                CoreEvent::Inputs(inputs) => {
                    for input in inputs {
                        self.take_in(input).await;
                    }
                }
                CoreEvent::Nudge => {}
            }
            left -= 1;
            event = if left > 0 { self.inbox.first.requests.try_recv().ok() } else { None };
        }
    }

    async fn take_in(&mut self, input: Input) {
        let now = present(&self.clock);
        self.shared.lock().core.handle(now, input);
        self.carry_out().await;
    }

    fn on_time(&mut self) {
        let now = present(&self.clock);
        let mut state = self.shared.lock();
        if self.next_scan <= now.monotonic {
            self.next_scan = now.monotonic + SCAN_PERIOD;
            state.core.scan(now, EXPIRED_STEP, VERIFIED_STEP);
        }
        state.core.handle_timeout(now);
    }

    /// Does everything the core asks for.
    async fn carry_out(&mut self) {
        self.shared.lock().answer_lanes(&mut self.sleepers);
        for (waker, call) in self.sleepers.drain(..) {
            waker.wake(call);
        }
        loop {
            let output = self.shared.lock().core.poll_output();
            match output {
                None => return,
                Some(Output::Reply(reply)) => self.post.reply(reply).await,
                Some(Output::Call(ask)) => {
                    let call = ask.header.id;
                    if !self.post.call(ask) {
                        let now = present(&self.clock);
                        let outcome = Outcome { call, result: Err(NoAnswer { sent: false }) };
                        self.shared.lock().core.handle(now, Input::Outcome(outcome));
                    }
                }
                Some(Output::Persist { ticket, changes }) => {
                    // As below. It is little: cores wait for the one batch before they ask for the next.
                    let _ = self.disk.send(Batch { core: self.number, ticket, changes });
                }
                Some(Output::Overflow { table, sessions }) => {
                    let batch = archive::Batch { core: self.number, table, sessions };
                    let is_left = |to: &Sender<_>| to.try_send(batch).is_ok();
                    if !self.archive.as_ref().is_some_and(is_left) {
                        let now = present(&self.clock);
                        let input = Input::Overflowed { table, is_taken: false };
                        self.shared.lock().core.handle(now, input);
                    }
                }
                Some(Output::Gone { table, sessions }) => self.events.tell(table, &sessions),
                Some(Output::Reserve { table }) => self.reservations.begin(table),
                Some(Output::SlotSet { set, call }) => {
                    if let Some(slot_set) = self.slot_sets.get(set) {
                        let _ = slot_set.send(call);
                    }
                }
                Some(Output::Notice(notice)) => {
                    if let Notice::OtherMerge { node, table, ours, theirs } = &notice {
                        let name = |merge: &Option<String>| match merge {
                            None => "last writer wins".to_owned(),
                            Some(name) => name.clone(),
                        };
                        tracing::error!(
                            %node, table, ours = name(ours), theirs = name(theirs),
                            "a node merges this table otherwise, and nothing of it is exchanged \
                             with that node; run the same application on every node"
                        );
                    }
                    // An error means that the node is stopping.
                    let _ = self.inboxes.tell_hub(HubInput::Notice { core: self.number, notice });
                }
            }
        }
    }
}
