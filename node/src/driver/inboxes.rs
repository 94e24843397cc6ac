//! Where what arrives is left for the hub and for each core.

use tokio::sync::mpsc;

use crate::core::route::{Party, party_of_call, party_of_request};
use crate::core::{HubInput, Input, Outcome, Request};

/// Something for the task of a core.
pub(super) enum CoreEvent {
    Inputs(Vec<Input>),
    /// A thread that serves lanes left something to do.
    Nudge,
}

/// The sending ends of all inboxes of a node. Each is bounded: whoever has more to say waits.
#[derive(Clone)]
pub(super) struct Inboxes {
    hub: mpsc::Sender<Vec<HubInput>>,
    cores: Vec<mpsc::Sender<CoreEvent>>,
}

/// The receiving ends.
pub(super) struct Receivers {
    pub(super) hub: mpsc::Receiver<Vec<HubInput>>,
    pub(super) cores: Vec<mpsc::Receiver<CoreEvent>>,
}

/// The node is stopping: nobody takes anything any more.
#[derive(Debug)]
pub(super) struct Stopping;

/// Batches that may wait in an inbox.
const EVENTS_MAX: usize = 1_024;

impl Inboxes {
    /// Inboxes for a hub and so many cores.
    pub(super) fn new(cores: usize) -> (Self, Receivers) {
        let (hub, hub_receiver) = mpsc::channel(EVENTS_MAX);
        let (cores, core_receivers) = (0..cores).map(|_| mpsc::channel(EVENTS_MAX)).unzip();
        (Self { hub, cores }, Receivers { hub: hub_receiver, cores: core_receivers })
    }

    /// Leaves requests with whom they are for. Those for the same core stay in order.
    pub(super) async fn request(&self, requests: Vec<Request>) -> Result<(), Stopping> {
        let party = |request: &Request| party_of_request(&request.message, self.cores.len());
        self.sort(requests, party, Input::Request, HubInput::Request).await
    }

    /// Leaves what became of calls with whose calls they are.
    pub(super) async fn report(&self, outcomes: Vec<Outcome>) -> Result<(), Stopping> {
        let party = |outcome: &Outcome| party_of_call(outcome.call, self.cores.len());
        self.sort(outcomes, party, Input::Outcome, HubInput::Outcome).await
    }

    /// Leaves something with the hub.
    pub(super) async fn tell_hub(&self, input: HubInput) -> Result<(), Stopping> {
        self.hub.send(vec![input]).await.map_err(|_| Stopping)
    }

    /// Has a core's task look after its core.
    pub(super) fn nudge(&self, core: usize) {
        // A full inbox means that the task is about to look anyway.
        let _ = self.cores[core].try_send(CoreEvent::Nudge);
    }

    /// Whether nobody takes anything any more.
    pub(super) fn is_closed(&self) -> bool {
        self.hub.is_closed()
    }

    async fn sort<T>(
        &self,
        items: Vec<T>,
        party: impl Fn(&T) -> Party,
        for_core: impl Fn(T) -> Input,
        for_hub: impl Fn(T) -> HubInput,
    ) -> Result<(), Stopping> {
        let (mut hub, mut cores) = (Vec::new(), vec![Vec::new(); self.cores.len()]);
        for item in items {
            match party(&item) {
                Party::Core(core) => cores[core].push(for_core(item)),
                Party::Hub => hub.push(for_hub(item)),
            }
        }
        if !hub.is_empty() {
            self.hub.send(hub).await.map_err(|_| Stopping)?;
        }
        for (core, inputs) in self.cores.iter().zip(cores) {
            if !inputs.is_empty() {
                core.send(CoreEvent::Inputs(inputs)).await.map_err(|_| Stopping)?;
            }
        }
        Ok(())
    }
}
