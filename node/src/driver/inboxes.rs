//! Where what arrives is left for the hub and for each core.

use tokio::sync::mpsc;

use crate::core::route::{Party, is_bulk, party_of_call, party_of_request};
use crate::core::{HubInput, Input, Outcome, Request};

/// Something for the task of a core.
pub(super) enum CoreEvent {
    Inputs(Vec<Input>),
    /// A thread that serves lanes left something to do.
    Nudge,
}

/// The sending ends of all inboxes of a node.
///
/// Those for requests are bounded: whoever has more of them waits, or is told to come back. Those for
/// what must not wait behind requests are not: it is little, or answers what the node itself asked.
#[derive(Clone)]
pub(super) struct Inboxes {
    hub: mpsc::Sender<Vec<HubInput>>,
    hub_urgent: mpsc::UnboundedSender<HubInput>,
    gossip: mpsc::Sender<HubInput>,
    cores: Vec<mpsc::Sender<CoreEvent>>,
    cores_urgent: Vec<mpsc::UnboundedSender<Input>>,
    cores_bulk: Vec<(mpsc::Sender<Input>, mpsc::UnboundedSender<Input>)>,
}

/// The receiving ends of one party.
pub(super) struct Receiver<T, U> {
    pub(super) requests: mpsc::Receiver<T>,
    pub(super) urgent: mpsc::UnboundedReceiver<U>,
}

/// The receiving ends of a core.
pub(super) struct CoreReceiver {
    pub(super) first: Receiver<CoreEvent, Input>,
    /// What waits behind all of that: what others ask of which there is much, and what they answered to such.
    pub(super) bulk: Receiver<Input, Input>,
}

/// The receiving ends.
pub(super) struct Receivers {
    pub(super) hub: Receiver<Vec<HubInput>, HubInput>,
    pub(super) gossip: mpsc::Receiver<HubInput>,
    pub(super) cores: Vec<CoreReceiver>,
}

/// The node is stopping: nobody takes anything any more.
#[derive(Debug)]
pub(super) struct Stopping;

/// Why a request was not left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotLeft {
    Stopping,
    /// Too many wait.
    Full,
}

/// Batches that may wait in all inboxes.
const EVENTS_MAX: usize = 1_024;
/// Requests that may wait behind the others, in all inboxes, and in one of them in any case. They are large.
const BULK_MAX: usize = 128;
const BULK_MIN: usize = 16;
/// Membership packets that may wait.
const GOSSIP_MAX: usize = 1_024;
/// Batches that may wait in one of them in any case.
const EVENTS_MIN: usize = 64;

impl Inboxes {
    /// Inboxes for a hub and so many cores.
    pub(super) fn new(cores: usize) -> (Self, Receivers) {
        let room = (EVENTS_MAX / cores).max(EVENTS_MIN);
        let (hub, requests) = mpsc::channel(room);
        let (hub_urgent, urgent) = mpsc::unbounded_channel();
        let of_hub = Receiver { requests, urgent };
        let (gossip, of_gossip) = mpsc::channel(GOSSIP_MAX);
        let (cores_left, cores_urgent, cores_bulk) = (Vec::new(), Vec::new(), Vec::new());
        let mut inboxes =
            Self { hub, hub_urgent, gossip, cores: cores_left, cores_urgent, cores_bulk };
        let bulk_room = (BULK_MAX / cores).max(BULK_MIN);
        let mut of_cores = Vec::new();
        for _ in 0..cores {
            let (core, requests) = mpsc::channel(room);
            let (core_urgent, urgent) = mpsc::unbounded_channel();
            inboxes.cores.push(core);
            inboxes.cores_urgent.push(core_urgent);
            let first = Receiver { requests, urgent };
            let (bulk, requests) = mpsc::channel(bulk_room);
            let (bulk_answers, urgent) = mpsc::unbounded_channel();
            inboxes.cores_bulk.push((bulk, bulk_answers));
            of_cores.push(CoreReceiver { first, bulk: Receiver { requests, urgent } });
        }
        (inboxes, Receivers { hub: of_hub, gossip: of_gossip, cores: of_cores })
    }

    /// Leaves requests with whom they are for, and waits for room. Those for the same core stay in order, but for
    /// those of which there is much.
    pub(super) async fn request(&self, requests: Vec<Request>) -> Result<(), Stopping> {
        let (mut hub, mut cores) = (Vec::new(), vec![Vec::new(); self.cores.len()]);
        let mut bulk = Vec::new();
        for request in requests {
            match party_of_request(&request.message, self.cores.len()) {
                Party::Core(core) if is_bulk(&request.message) => bulk.push((core, request)),
                Party::Core(core) => cores[core].push(Input::Request(request)),
                Party::Hub => hub.push(HubInput::Request(request)),
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
        for (core, request) in bulk {
            let sent = self.cores_bulk[core].0.send(Input::Request(request)).await;
            sent.map_err(|_| Stopping)?;
        }
        Ok(())
    }

    /// Leaves a request with whom it is for if there is room now.
    pub(super) fn try_request(&self, request: Request) -> Result<(), NotLeft> {
        match party_of_request(&request.message, self.cores.len()) {
            Party::Core(core) => {
                let event = CoreEvent::Inputs(vec![Input::Request(request)]);
                self.cores[core].try_send(event).map_err(NotLeft::from)
            }
            Party::Hub => {
                self.hub.try_send(vec![HubInput::Request(request)]).map_err(NotLeft::from)
            }
        }
    }

    /// Leaves a membership packet with the hub, beside requests, if there is room now.
    pub(super) fn try_gossip(&self, gossip: HubInput) -> Result<(), NotLeft> {
        self.gossip.try_send(gossip).map_err(NotLeft::from)
    }

    /// Leaves what became of calls with whose calls they are.
    pub(super) fn report(&self, outcomes: Vec<Outcome>) -> Result<(), Stopping> {
        for outcome in outcomes {
            match party_of_call(outcome.call, self.cores.len()) {
                Party::Core(core) => self.tell_core(core, Input::Outcome(outcome))?,
                Party::Hub => self.tell_hub(HubInput::Outcome(outcome))?,
            }
        }
        Ok(())
    }

    /// Leaves what became of calls with whose calls they are, to wait behind requests.
    pub(super) fn report_bulk(&self, outcomes: Vec<Outcome>) -> Result<(), Stopping> {
        for outcome in outcomes {
            match party_of_call(outcome.call, self.cores.len()) {
                Party::Core(core) => {
                    let sent = self.cores_bulk[core].1.send(Input::Outcome(outcome));
                    sent.map_err(|_| Stopping)?;
                }
                Party::Hub => self.tell_hub(HubInput::Outcome(outcome))?,
            }
        }
        Ok(())
    }

    /// Leaves something with a core that goes before requests.
    pub(super) fn tell_core(&self, core: usize, input: Input) -> Result<(), Stopping> {
        self.cores_urgent[core].send(input).map_err(|_| Stopping)
    }

    /// Leaves something with the hub that goes before requests.
    pub(super) fn tell_hub(&self, input: HubInput) -> Result<(), Stopping> {
        self.hub_urgent.send(input).map_err(|_| Stopping)
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
}

impl<T> From<mpsc::error::TrySendError<T>> for NotLeft {
    fn from(error: mpsc::error::TrySendError<T>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(_) => Self::Full,
            mpsc::error::TrySendError::Closed(_) => Self::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use annulus_proto::Hlc;
    use annulus_proto::NodeId;
    use annulus_proto::codec::Header;
    use annulus_proto::message::{Even, ListRequest, Ping, Role};

    use super::*;
    use crate::core::{Asker, Caller, NoAnswer};

    fn from_datagram(message: annulus_proto::message::Message) -> Request {
        let asker = Asker::Datagram(SocketAddr::from(([127, 0, 0, 1], 1)));
        let header = Header { id: 1, view: 0, hlc: Hlc::ZERO };
        Request { asker, caller: Caller::Client(Role::Development), header, message }
    }

    /// Symptom: a node was deaf while one of its cores was busy. Cause: who received datagrams waited for
    /// that core. Fix: nobody waits who has something for others, too.
    #[test]
    fn a_core_that_takes_nothing_keeps_nothing_from_the_others() {
        let (inboxes, mut receivers) = Inboxes::new(2);
        let list = ListRequest { table: "sessions".to_owned(), cursor: 0, limit: 1 };
        let mut left = 0;
        while inboxes.try_request(from_datagram(list.clone().into())).is_ok() {
            left += 1;
            assert!(left <= EVENTS_MAX, "there is a bound");
        }
        let refused = inboxes.try_request(from_datagram(list.into()));
        assert_eq!(refused, Err(NotLeft::Full));
        let from = SocketAddr::from(([127, 0, 0, 1], 2));
        let gossip = HubInput::Gossip { node: None, from, packet: Vec::new() };
        assert_eq!(inboxes.try_gossip(gossip.clone()), Ok(()));
        assert_eq!(receivers.gossip.try_recv(), Ok(gossip));
        assert_eq!(inboxes.try_request(from_datagram(Ping {}.into())), Ok(()));
        // What its own calls came to reaches even that core.
        let outcomes = (3..6).map(|call| Outcome { call, result: Err(NoAnswer { sent: true }) });
        inboxes.report(outcomes.collect()).unwrap();
        for core in &mut receivers.cores {
            assert!(matches!(core.first.urgent.try_recv(), Ok(Input::Outcome(_))));
        }
        assert!(matches!(receivers.hub.urgent.try_recv(), Ok(HubInput::Outcome(_))));
        drop(receivers);
        assert_eq!(inboxes.try_request(from_datagram(Ping {}.into())), Err(NotLeft::Stopping));
    }

    #[test]
    fn what_there_is_much_of_waits_apart_and_keeps_no_request_from_a_core() {
        let (inboxes, mut receivers) = Inboxes::new(1);
        let of_node = |message| {
            let mut request = from_datagram(message);
            (request.asker, request.caller) =
                (Asker::Stream(1), Caller::Node(NodeId::from_bits(7)));
            request
        };
        let even = Even { table: "sessions".to_owned(), wanted: Vec::new(), entries: Vec::new() };
        let list = ListRequest { table: "sessions".to_owned(), cursor: 0, limit: 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let batch = vec![of_node(even.clone().into()), of_node(list.into())];
            inboxes.request(batch).await.unwrap();
            let core = &mut receivers.cores[0];
            assert!(
                matches!(core.first.requests.try_recv(), Ok(CoreEvent::Inputs(it)) if it.len() == 1)
            );
            assert!(core.first.requests.try_recv().is_err());
            assert!(matches!(core.bulk.requests.try_recv(), Ok(Input::Request(_))));
            // There is a bound on it, and whoever has more waits.
            let mut left = 0;
            loop {
                let mut leaving =
                    std::pin::pin!(inboxes.request(vec![of_node(even.clone().into())]));
                let is_left = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(leaving.as_mut().poll(context).is_ready())
                });
                if !is_left.await {
                    break;
                }
                left += 1;
                assert!(left <= BULK_MAX, "there is a bound");
            }
        });
        let core = &mut receivers.cores[0];
        inboxes
            .report_bulk(vec![Outcome { call: 2, result: Err(NoAnswer { sent: true }) }])
            .unwrap();
        assert!(core.first.urgent.try_recv().is_err());
        assert!(matches!(core.bulk.urgent.try_recv(), Ok(Input::Outcome(_))));
    }
}
