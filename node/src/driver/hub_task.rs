//! The task that owns the hub.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_gossip::Channel;
use annulus_net::{Clock, Net};
use annulus_proto::NodeId;
use annulus_proto::message::Message;
use crossbeam_channel::Receiver as Reports;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::background::Report;
use super::door::UnknownCommands;
use super::error::RunError;
use super::host::Host;
use super::inboxes::{Inboxes, Receiver};
use super::keys::Keys;
use super::lanes::Lanes;
use super::post::Post;
use super::shared::Shared;
use super::tally::Tally;
use super::{present, store_state};
use crate::core::{Hub, HubInput, HubOutput, Input, NoAnswer, NodeState, Outcome, Standing};

/// What the hub's task works with.
pub(super) struct HubTask<N: Net, C: Clock, H: Host> {
    pub(super) id: NodeId,
    pub(super) hub: Hub,
    pub(super) clock: C,
    pub(super) host: Arc<H>,
    /// `None` where everything travels in clear.
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) post: Arc<Post<N>>,
    pub(super) inboxes: Inboxes,
    pub(super) inbox: Receiver<Vec<HubInput>, HubInput>,
    pub(super) gossip: mpsc::Receiver<HubInput>,
    pub(super) cores: Vec<Arc<Shared>>,
    /// Shows how the node stands to those who are no core.
    pub(super) standing: watch::Sender<Arc<Standing>>,
    /// Members that were found dead and whose slots have not moved yet, for the same.
    pub(super) missing: watch::Sender<Arc<BTreeSet<NodeId>>>,
    pub(super) tally: Arc<Tally>,
    /// What clients of Redis asked for in vain, of which the hub knows nothing.
    pub(super) unknown_commands: Arc<UnknownCommands>,
    pub(super) watch: Option<Reports<Report>>,
    pub(super) lanes: Option<Arc<Lanes>>,
    pub(super) next_drain: Duration,
}

impl<N: Net, C: Clock, H: Host> HubTask<N, C, H> {
    /// Runs until everything under way at the stop is done, or `stop_timeout` later.
    ///
    /// # Errors
    /// [`RunError`]: what made the node give up its place.
    pub(super) async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        stop_timeout: Duration,
        leave: bool,
    ) -> Result<(), RunError> {
        let mut stop = std::pin::pin!(stop);
        let mut give_up: Option<Instant> = None;
        loop {
            if self.carry_out().await? {
                return Ok(());
            }
            if give_up.is_some_and(|at| at <= Instant::now()) {
                tracing::warn!("stopped before everything was answered; raise stop_timeout");
                return Ok(());
            }
            let wait = self.hub.poll_timeout().saturating_sub(self.clock.monotonic());
            if wait.is_zero() {
                self.on_time();
                continue;
            }
            tokio::select! {
                biased;
                () = &mut stop, if give_up.is_none() => {
                    tracing::info!("stopping");
                    give_up = Some(Instant::now() + stop_timeout);
                    self.take_in(HubInput::Stop { leave });
                }
                urgent = self.inbox.urgent.recv() => {
                    if let Some(input) = urgent {
                        self.take_in(input);
                    }
                }
                gossip = self.gossip.recv() => {
                    if let Some(gossip) = gossip {
                        self.take_in(gossip);
                    }
                    // However much there is of it, requests have their turn.
                    let requests = self.inbox.requests.try_recv().unwrap_or_default();
                    if self.take_in_all(requests).await? {
                        return Ok(());
                    }
                }
                requests = self.inbox.requests.recv() => {
                    if self.take_in_all(requests.unwrap_or_default()).await? {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes in one after the other. True when the node has stopped.
    async fn take_in_all(&mut self, inputs: Vec<HubInput>) -> Result<bool, RunError> {
        for input in inputs {
            self.take_in(input);
            if self.carry_out().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_in(&mut self, input: HubInput) {
        for (name, count) in self.tally.take().iter() {
            self.hub.count_many(name, count);
        }
        self.hub.handle(present(&self.clock), input);
    }

    fn on_time(&mut self) {
        while let Some(report) = self.watch.as_ref().and_then(|reports| reports.try_recv().ok()) {
            match report {
                Report::Load(mut load, host) => {
                    load.sessions = self.cores.iter().map(|core| core.look().core.entries()).sum();
                    self.take_in(HubInput::Load(load));
                    self.take_in(HubInput::HostLoad(host));
                }
                Report::HugePages { table, bytes } => {
                    self.take_in(HubInput::HugePages { table, bytes });
                }
            }
        }
        let now = present(&self.clock);
        if let Some(lanes) = &self.lanes {
            lanes.keep_time(now.monotonic, &mut self.next_drain);
        }
        self.hub.handle_timeout(now);
    }

    /// Does everything the hub asks for. True when the node has stopped.
    async fn carry_out(&mut self) -> Result<bool, RunError> {
        let mut stopped = false;
        while let Some(output) = self.hub.poll_output() {
            match output {
                HubOutput::Gossip { channel, to, header, packet } => match channel {
                    Channel::Datagram => {
                        self.post.gossip(to, header, packet).await;
                    }
                    Channel::Stream => self.post.stream_gossip(to, header, packet),
                },
                HubOutput::Reply(mut reply) => {
                    if let Message::NodeStatus(status) = &mut reply.message {
                        status.unknown_commands = self.unknown_commands.list();
                    }
                    self.post.reply(reply).await;
                }
                HubOutput::Call(ask) => {
                    let call = ask.header.id;
                    if !self.post.call(ask) {
                        let outcome = Outcome { call, result: Err(NoAnswer { sent: false }) };
                        self.take_in(HubInput::Outcome(outcome));
                    }
                }
                HubOutput::Core { core, input } => self.order(core, input),
                HubOutput::Cores(input) => {
                    if let Input::Standing(standing) = &input {
                        self.standing.send_replace(standing.clone());
                    }
                    for core in 0..self.cores.len() {
                        self.order(core, input.clone());
                    }
                }
                HubOutput::Persist { generation, state } => self.persist(generation, state),
                HubOutput::IdInUse { addr, give_way } => self.on_id_in_use(addr, give_way)?,
                HubOutput::Stopped => stopped = true,
            }
        }
        self.missing.send_if_modified(|known| {
            let is_news = !self.hub.missing().eq(known.iter().copied());
            if is_news {
                *known = Arc::new(self.hub.missing().collect());
            }
            is_news
        });
        Ok(stopped)
    }

    fn order(&self, core: usize, input: Input) {
        // A core's task ends with this one, or has panicked, which takes the node down.
        let _ = self.inboxes.tell_core(core, input);
    }

    fn on_id_in_use(&self, addr: SocketAddr, give_way: bool) -> Result<(), RunError> {
        let id = self.id;
        if give_way {
            return Err(RunError::IdInUse { id, addr });
        }
        tracing::error!(%id, %addr, "another node uses this node's id; stop it and remove its data_dir");
        Ok(())
    }

    fn persist(&self, generation: u64, state: NodeState) {
        let (host, inboxes, keys) = (self.host.clone(), self.inboxes.clone(), self.keys.clone());
        tokio::spawn(async move {
            // Until it is on disk the node stamps nothing; keep trying.
            while let Err(error) = store_state(&*host, &state).await {
                tracing::error!(%error, "the node's state cannot be written; check data_dir");
                if inboxes.is_closed() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            if let Some(keys) = keys {
                keys.raise(state.incarnation);
            }
            let _ = inboxes.tell_hub(HubInput::Persisted { generation });
        });
    }
}
