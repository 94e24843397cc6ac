//! Getting one request answered: whom to ask, in which order, how often, and what to make of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_net::{Clock, Net};
use annulus_proto::codec::{self, EncodeError};
use annulus_proto::message::{
    Failure, Message, Operation, Peer, Peers, PeersRequest, Rejected, RouteNode, RoutesRequest,
    SessionReply,
};
use annulus_proto::{NodeId, RouteTable, Slot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use crate::builder::Via;
use crate::client::Inner;
use crate::connection::{Answer, CallError, End, Link};
use crate::contact::{self, Contacted};
use crate::error::{Error, Tried};

/// Who may answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    /// The node that the session is pinned to, as far as that is known, then the host's node, if its
    /// memory is attached, then the slot's homes (for a read the nearest first), then others.
    Slot { slot: Slot, host: Option<NodeId>, pin: Option<NodeId> },
    /// The node in touch with, then others.
    Any,
    /// The node at this address.
    Only(SocketAddr),
}

impl<N: Net, C: Clock> Inner<N, C> {
    /// Asks until somebody answers or the operation's time is over. The answer is that of the node
    /// whose id comes with it.
    ///
    /// # Errors
    /// [`Error`], as its variants say.
    pub(crate) async fn ask(
        &self,
        whom: Whom,
        message: Message,
    ) -> Result<(Message, NodeId), Error> {
        self.ask_until(whom, message, Instant::now() + self.settings.timeout).await
    }

    /// The same, until `deadline`.
    pub(crate) async fn ask_until(
        &self,
        whom: Whom,
        message: Message,
        deadline: Instant,
    ) -> Result<(Message, NodeId), Error> {
        let mut message = message;
        let mut course = Course::new(&message);
        let mut pause = ROUND_PAUSE;
        self.tally.remote_requests.add_one();
        loop {
            let targets = self.targets(whom, !course.is_write);
            if targets.is_empty() {
                if self.wait_for_contact(deadline).await {
                    continue;
                }
                break;
            }
            for (index, target) in targets.iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(course.error(self));
                }
                // The last one gets all the time there is, the others half of what is left, or as long as answers
                // take, where to ask another one, too, is harmless. Any other write that is late may come after
                // those that follow it.
                let last = index + 1 == targets.len();
                let half = (left / 2).max(PATIENCE_MIN).min(left);
                let pace = match course.haste {
                    Haste::Read => Some(&self.pace),
                    Haste::HarmlessWrite => Some(&self.write_pace),
                    Haste::None => None,
                };
                let patience = match pace {
                    _ if last => left,
                    None => half,
                    Some(pace) => pace.patience().min(half),
                };
                set_patience(&mut message, patience);
                if course.tries > 0 {
                    self.tally.retries.add_one();
                }
                course.tries += 1;
                let asked = Instant::now();
                let outcome = self.attempt(target, &message, asked + patience).await;
                if let Some(pace) = pace {
                    pace.note(asked.elapsed());
                }
                if let Some(answer) = course.judge(self, target, outcome)? {
                    return Ok(answer);
                }
            }
            let only = matches!(whom, Whom::Only(_)) && !course.lost;
            if course.unavailable.is_some() || course.rejected.is_some() || only {
                break;
            }
            if Instant::now() + pause >= deadline {
                break;
            }
            sleep(pause).await;
            pause *= 2;
        }
        Err(course.error(self))
    }

    /// Fetches the homes of all slots and keeps them.
    pub(crate) async fn fetch_routes(&self, whom: Whom) -> Result<Arc<RouteTable>, Error> {
        let (answer, node) = self.ask(whom, Message::RoutesRequest(RoutesRequest {})).await?;
        let protocol = |why: String| Error::Protocol { at: node.to_string(), why };
        let Message::Routes(routes) = answer else {
            return Err(protocol(format!("{} instead of Routes", answer.name())));
        };
        let routes = RouteTable::new(routes).map_err(|why| protocol(why.to_owned()))?;
        let routes = Arc::new(routes);
        self.tally.routes_fetched.add_one();
        if !matches!(whom, Whom::Only(_)) {
            self.routes.store(Some(routes.clone()));
            self.routes_told.send_replace(Some(routes.clone()));
        }
        Ok(routes)
    }

    /// Learns from the host's node, if it is the one in touch, how far the others are.
    async fn learn_proximity(&self) {
        let host = self.found().filter(|contact| contact.addr.is_none());
        let peers = match host {
            Some(contact) => self.peers_of(&contact.link).await,
            None => None,
        };
        let proximity = peers.map(|Peers { node, peers, .. }| {
            let step = |peer: &Peer| Some((peer.node, peer.rtt?.step()));
            peers.iter().filter_map(step).chain([(node, 0)]).collect()
        });
        self.proximity.store(Arc::new(proximity.unwrap_or_default()));
    }

    async fn peers_of(&self, link: &Link) -> Option<Peers> {
        let id = self.next_frame_id();
        let mut frame = Vec::new();
        codec::encode_frame(self.header(id), &PeersRequest {}.into(), &mut frame).ok()?;
        let deadline = Instant::now() + self.settings.timeout;
        match link.call(id, frame, deadline).await {
            Ok((_, Message::Peers(peers))) => Some(peers),
            Ok((_, other)) => {
                debug!(answer = other.name(), "the host's node does not tell how far others are");
                None
            }
            Err(_) => None,
        }
    }

    /// Whom to ask, in order, each node once.
    fn targets(&self, whom: Whom, is_read: bool) -> Vec<Target> {
        let contact = self.found();
        let routes = self.routes.load();
        let routes = routes.as_ref();
        let mut order = Order { contact, targets: Vec::new() };
        let mut is_pinned = false;
        if let Whom::Only(addr) = whom {
            let id = routes.and_then(|routes| routes.at(addr)).map(|node| node.id);
            order.add(addr, id);
            return order.targets;
        }
        if self.settings.via != Via::Local
            && let Some(routes) = routes
        {
            if let Whom::Slot { slot, host, pin } = whom {
                let node = |id: Option<NodeId>| id.and_then(|id| routes.node(id));
                let (pin, host) = (node(pin), node(host));
                is_pinned = pin.is_some();
                let mut homes: Vec<&RouteNode> = routes.homes(slot).collect();
                if is_read {
                    // Equally far ones stay in the order of the ring, which spreads the load.
                    let proximity = self.proximity.load();
                    homes.sort_by_key(|home| proximity.get(&home.id).copied().unwrap_or(u8::MAX));
                }
                for node in pin.into_iter().chain(host).chain(homes) {
                    order.add_node(node);
                }
            }
            order.add_contact();
            let start = match whom {
                Whom::Slot { slot, .. } => usize::from(slot.index()),
                _ => 0,
            };
            let count = routes.nodes().len();
            let others = (0..count.min(OTHERS)).map(|n| &routes.nodes()[(start + n) % count]);
            others.for_each(|node| order.add_node(node));
        }
        order.add_contact();
        // The attached node is the contact, as a rule, even when it is no home of anything.
        if let Whom::Slot { host: Some(host), .. } = whom
            && !is_pinned
        {
            order.prefer(host);
        }
        let (mut targets, avoided): (Vec<_>, Vec<_>) =
            order.targets.into_iter().partition(|target| !self.pool.avoid(target.addr()));
        targets.extend(avoided);
        targets
    }

    /// Waits until a node is found. `false` when the time is over.
    async fn wait_for_contact(&self, deadline: Instant) -> bool {
        let mut search = self.search.subscribe();
        let found = search
            .wait_for(|search| search.found.as_ref().is_some_and(|found| !found.link.is_closed()));
        matches!(timeout_at(deadline, found).await, Ok(Ok(_)))
    }

    async fn attempt(
        &self,
        target: &Target,
        message: &Message,
        deadline: Instant,
    ) -> Result<(Answer, NodeId), Missed> {
        if self.settings.via == Via::Udp
            && matches!(message, Message::SessionRequest(_))
            && let (Some(addr), Some(id)) = (target.addr(), target.id())
        {
            let answer = self.attempt_datagram(addr, message, deadline).await;
            if let Some(answer) = answer.map_err(Missed::Call)? {
                return Ok((answer, id));
            }
        }
        let link = match target {
            Target::Contact(contact) => contact.link.clone(),
            Target::Node { addr, .. } => {
                let open = contact::open_tcp(self, *addr);
                let opened = self.pool.link(*addr, deadline, open).await;
                opened.map_err(|end| Missed::Call(CallError::NotSent(end)))?
            }
        };
        let id = self.next_frame_id();
        let mut frame = Vec::new();
        codec::encode_frame(self.header(id), message, &mut frame).map_err(Missed::TooLarge)?;
        let answer = link.call(id, frame, deadline).await.map_err(Missed::Call)?;
        Ok((answer, link.peer.node))
    }

    /// `None` if this has to go over a stream.
    async fn attempt_datagram(
        &self,
        to: SocketAddr,
        message: &Message,
        deadline: Instant,
    ) -> Result<Option<Answer>, CallError> {
        let id = self.next_frame_id();
        let Some(datagram) = self.datagrams.encode(self.header(id), message) else {
            return Ok(None);
        };
        let answer = self.datagrams.call(to, id, &datagram, deadline).await?;
        let elsewhere = matches!(answer.1, Message::Rejected(Rejected::AskOverStream));
        Ok((!elsewhere).then_some(answer))
    }
}

/// Refreshes the homes of all slots whenever an answer shows that they changed, one at a time and
/// with pauses that grow while nothing new comes; and with them, or now and then, how far they are.
/// Runs until it is aborted.
pub(crate) async fn refresh_routes<N: Net, C: Clock>(inner: Arc<Inner<N, C>>) {
    let mut pause = REFRESH_PAUSE;
    loop {
        if timeout(PROXIMITY_PERIOD, inner.routes_stale.notified()).await.is_err() {
            inner.learn_proximity().await;
            continue;
        }
        let before = inner.routes.load().as_ref().map(|routes| routes.view());
        let fetched = inner.fetch_routes(Whom::Any).await;
        if let Err(error) = &fetched {
            debug!(%error, "cannot fetch routes");
        }
        inner.learn_proximity().await;
        let news = fetched.is_ok_and(|routes| Some(routes.view()) != before);
        pause = if news { REFRESH_PAUSE } else { (pause * 2).min(REFRESH_PAUSE_MAX) };
        sleep(pause).await;
    }
}

const REFRESH_PAUSE: Duration = Duration::from_millis(50);
const REFRESH_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often the host's node is asked how far the others are, which changes slowly.
const PROXIMITY_PERIOD: Duration = Duration::from_secs(30);

/// Between two rounds over all candidates; doubles each time.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// The least time that one candidate gets.
const PATIENCE_MIN: Duration = Duration::from_millis(20);

/// How many nodes are asked that are neither homes nor in touch.
const OTHERS: usize = 2;

/// How long nodes take to answer, or are waited for: a mean, of which the latest counts for an eighth.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    mean_us: AtomicU64,
}

impl Pace {
    /// How long a node may be silent until another one is asked. Where that was too short it is nearly twice as
    /// long the next time.
    fn patience(&self) -> Duration {
        Duration::from_micros(8 * self.mean_us.load(Ordering::Relaxed)).max(PATIENCE_AT_LEAST)
    }

    /// Which of two that do this at the same time is heard does not matter.
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(1 << 32);
        let mean = self.mean_us.load(Ordering::Relaxed);
        self.mean_us.store(mean - mean / 8 + took / 8, Ordering::Relaxed);
    }
}

/// How long a node may be silent at least until another one is asked where that is harmless.
const PATIENCE_AT_LEAST: Duration = Duration::from_millis(50);

enum Target {
    Contact(Contacted),
    Node { addr: SocketAddr, id: Option<NodeId> },
}

impl Target {
    fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Contact(contact) => contact.addr,
            Self::Node { addr, .. } => Some(*addr),
        }
    }

    fn id(&self) -> Option<NodeId> {
        match self {
            Self::Contact(contact) => Some(contact.link.peer.node),
            Self::Node { id, .. } => *id,
        }
    }

    fn at(&self) -> String {
        match self {
            Self::Contact(contact) => contact.link.at.clone(),
            Self::Node { addr, .. } => addr.to_string(),
        }
    }
}

struct Order {
    contact: Option<Contacted>,
    targets: Vec<Target>,
}

impl Order {
    fn add_node(&mut self, node: &RouteNode) {
        self.add(node.addr, Some(node.id));
    }

    fn add(&mut self, addr: SocketAddr, id: Option<NodeId>) {
        let is_contact = self.contact.as_ref().is_some_and(|contact| {
            contact.addr == Some(addr) || id == Some(contact.link.peer.node)
        });
        if is_contact {
            self.add_contact();
        } else if self.targets.iter().all(|target| target.addr() != Some(addr)) {
            self.targets.push(Target::Node { addr, id });
        }
    }

    fn add_contact(&mut self) {
        let there = self.targets.iter().any(|target| matches!(target, Target::Contact(_)));
        if let Some(contact) = self.contact.clone().filter(|_| !there) {
            self.targets.push(Target::Contact(contact));
        }
    }

    fn prefer(&mut self, id: NodeId) {
        if let Some(index) = self.targets.iter().position(|target| target.id() == Some(id)) {
            self.targets[..=index].rotate_right(1);
        }
    }
}

enum Missed {
    Call(CallError),
    TooLarge(EncodeError),
}

/// How soon another node may be asked.
#[derive(Clone, Copy)]
enum Haste {
    Read,
    /// Done twice, later, and at two nodes it is what it was.
    HarmlessWrite,
    /// In its own time: done once more it would undo what was done since.
    None,
}

impl Haste {
    fn of(operation: Option<&Operation>) -> Self {
        match operation {
            None | Some(Operation::Get) => Self::Read,
            // The last use only grows, and a session that has ended stays so. Without the birth it could be
            // another session that ends.
            Some(Operation::Touch { .. } | Operation::End { birth: Some(_) }) => {
                Self::HarmlessWrite
            }
            Some(_) => Self::None,
        }
    }
}

/// What has become of a request so far.
struct Course {
    is_write: bool,
    haste: Haste,
    /// Whether a repetition could meet its own work, and take it for somebody else's.
    is_conditional: bool,
    tries: u32,
    /// It may have arrived somewhere, and no answer came.
    lost: bool,
    silent: bool,
    unavailable: Option<Error>,
    homeless: Option<Error>,
    rejected: Option<Error>,
    garbage: Option<Error>,
    last_lost: Option<String>,
    tried: Vec<Tried>,
}

impl Course {
    fn new(message: &Message) -> Self {
        let operation = match message {
            Message::SessionRequest(request) => Some(&request.operation),
            _ => None,
        };
        let is_judge = matches!(message, Message::Judge(_));
        Self {
            is_write: is_judge || operation.is_some_and(|operation| *operation != Operation::Get),
            haste: if is_judge { Haste::None } else { Haste::of(operation) },
            is_conditional: operation.is_some_and(Operation::is_conditional),
            tries: 0,
            lost: false,
            silent: false,
            unavailable: None,
            homeless: None,
            rejected: None,
            garbage: None,
            last_lost: None,
            tried: Vec::new(),
        }
    }

    /// `Some` is the answer, `None` asks for another try.
    fn judge<N: Net, C: Clock>(
        &mut self,
        inner: &Inner<N, C>,
        target: &Target,
        outcome: Result<(Answer, NodeId), Missed>,
    ) -> Result<Option<(Message, NodeId)>, Error> {
        let at = target.at();
        let ((header, message), node) = match outcome {
            Ok(answer) => answer,
            Err(Missed::TooLarge(EncodeError { size, limit, .. })) => {
                return Err(Error::TooLarge { size: size as u64, limit: limit as u64 });
            }
            Err(Missed::Call(error)) => {
                inner.pool.suspect(target.addr());
                self.note(at, &error);
                return self.go_on();
            }
        };
        inner.pool.trust(target.addr());
        if !matches!(message, Message::Routes(_)) {
            inner.saw_view(header.view);
        }
        match message {
            Message::Rejected(reason) => {
                self.rejected = Some(Error::Rejected { at, reason });
                Ok(None)
            }
            Message::SessionReply(SessionReply::Failed(failure)) => self.weigh(failure),
            answer => Ok(Some((answer, node))),
        }
    }

    /// A node's own word that it could not do it.
    fn weigh(&mut self, failure: Failure) -> Result<Option<(Message, NodeId)>, Error> {
        match failure {
            Failure::TimedOut => {
                self.lost = true;
                self.silent = true;
                self.go_on()
            }
            // It is not in the cluster yet, or no more. Others are, or it will be.
            Failure::Unavailable { homes: 0, .. } => {
                self.homeless = Some(failure.into());
                Ok(None)
            }
            Failure::Unavailable { .. } => {
                self.unavailable = Some(failure.into());
                Ok(None)
            }
            // An earlier try may have been done all the same.
            Failure::TableFull { .. } | Failure::Refused(_) | Failure::SlowDown { .. }
                if self.is_write && self.lost =>
            {
                Err(Error::TimedOut)
            }
            failure => Err(failure.into()),
        }
    }

    /// Whether another try makes sense.
    fn go_on(&self) -> Result<Option<(Message, NodeId)>, Error> {
        if self.is_conditional && self.lost { Err(Error::TimedOut) } else { Ok(None) }
    }

    fn note(&mut self, at: String, error: &CallError) {
        let end = error.end();
        self.silent |= *end == End::Silent;
        if let CallError::Lost(_) = error {
            self.lost = true;
            self.last_lost = Some(at.clone());
        }
        match end {
            End::Rejected(reason) => {
                let reason = reason.clone();
                self.rejected = Some(Error::Rejected { at: at.clone(), reason });
            }
            End::Garbage(why) => {
                self.garbage = Some(Error::Protocol { at: at.clone(), why: why.clone() });
            }
            End::Closed(_) | End::Silent => {}
        }
        self.tried.retain(|tried| tried.at != at);
        self.tried.push(Tried { at, why: end.why() });
    }

    fn error<N: Net, C: Clock>(self, inner: &Inner<N, C>) -> Error {
        if self.is_write && self.lost {
            return Error::TimedOut;
        }
        let answered = self.unavailable.or(self.homeless).or(self.rejected).or(self.garbage);
        if let Some(error) = answered {
            return error;
        }
        if self.silent {
            return Error::TimedOut;
        }
        if let Some(at) = self.last_lost {
            return Error::Disconnected { at };
        }
        if self.tried.is_empty()
            && let Some(failed) = &inner.search.borrow().failed
        {
            return failed.clone().into();
        }
        Error::NoNode { tried: self.tried }
    }
}

/// Tells the node how long we wait, a little less than we do, so that its answer still arrives.
fn set_patience(message: &mut Message, patience: Duration) {
    let patience_ms = match message {
        Message::SessionRequest(request) => &mut request.patience_ms,
        Message::Judge(judge) => &mut judge.patience_ms,
        _ => return,
    };
    let ms = (patience - patience / 16).as_millis();
    *patience_ms = u32::try_from(ms).unwrap_or(u32::MAX);
}
