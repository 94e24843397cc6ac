//! What leaves a node: answers to streams and datagrams, calls to other nodes, membership packets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annulus_net::{Net, Udp};
use annulus_proto::Hlc;
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{Gossip, Message, Published, Rejected, StreamGossip};
use annulus_seal::datagram::{INSIDE_BYTES_MAX, Recipient};
use tokio::sync::mpsc;

use super::inboxes::Inboxes;
use super::link::{Identity, Link, Traffic};
use super::stream::{Outbox, Room};
use super::tally::Tally;
use crate::core::{Ask, Asker, Reply, Standing, route};

/// The sending side of a node, which its hub and its cores share.
pub(super) struct Post<N: Net> {
    net: N,
    udp: Arc<N::Udp>,
    identity: Identity,
    inboxes: Inboxes,
    streams: Arc<Streams>,
    links: Mutex<BTreeMap<(SocketAddr, Traffic), Link>>,
    tally: Arc<Tally>,
    /// The bytes of messages to channels that are on their way.
    published: Arc<AtomicUsize>,
}

/// The most of these.
const PUBLISHED_BYTES_MAX: usize = 64 << 20;

impl<N: Net> Post<N> {
    pub(super) fn new(
        net: N,
        udp: Arc<N::Udp>,
        identity: Identity,
        inboxes: Inboxes,
        streams: Arc<Streams>,
        tally: Arc<Tally>,
    ) -> Self {
        let (links, published) = (Mutex::default(), Arc::default());
        Self { net, udp, identity, inboxes, streams, links, tally, published }
    }

    /// Sends an answer to whoever asked over the network.
    pub(super) async fn reply(&self, reply: Reply) {
        let Reply { to, header, message } = reply;
        match to {
            Asker::Stream(stream) | Asker::Local(stream) => {
                if self.streams.send(stream, header, message) == Some(false) {
                    self.tally.add("streams_too_slow");
                }
            }
            Asker::Datagram(to) => self.datagram(to, header, &message).await,
            Asker::Sealed(addr, recipient) => {
                self.sealed(addr, &recipient, header, &message).await;
            }
            Asker::Lane { .. } | Asker::Hub { .. } => {
                unreachable!("answers for lanes and for the hub are taken out apart")
            }
        }
    }

    /// Sends a membership packet: sealed as it is, since the seal says all that a frame would.
    pub(super) async fn gossip(&self, to: SocketAddr, header: Header, packet: Vec<u8>) {
        let Some(keys) = &self.identity.keys else {
            return self.datagram(to, header, &Gossip { packet }.into()).await;
        };
        let (sender, mut datagram) = (keys.held().sender, Vec::new());
        let sealed = sender.seal_gossip(&packet, &mut datagram);
        if sealed.is_err() || self.udp.send_to(&datagram, to).await.is_err() {
            self.tally.add("datagrams_not_sent");
        }
    }

    /// Sends a datagram in clear. One that is too large is replaced by advice to ask over a stream.
    async fn datagram(&self, to: SocketAddr, header: Header, message: &Message) {
        let cluster = &self.identity.cluster;
        let mut frame = Vec::new();
        if codec::encode_datagram(header, cluster, message, &mut frame).is_err() {
            self.tally.add("datagrams_too_large");
            let instead: Message = Rejected::AskOverStream.into();
            if codec::encode_datagram(header, cluster, &instead, &mut frame).is_err() {
                return;
            }
        }
        if self.udp.send_to(&frame, to).await.is_err() {
            self.tally.add("datagrams_not_sent");
        }
    }

    /// Sends a membership packet over a stream, if there is room for it now.
    pub(super) fn stream_gossip(&self, to: SocketAddr, header: Header, packet: Vec<u8>) {
        let frame = codec::frame(header, &StreamGossip { packet }.into());
        let to = (to, Traffic::Requests);
        if !frame.is_ok_and(|frame| self.with_link(to, |link| link.post(frame))) {
            self.tally.add("stream_gossip_not_sent");
        }
    }

    /// Sends a sealed datagram to a client.
    async fn sealed(
        &self,
        to: SocketAddr,
        recipient: &Recipient,
        header: Header,
        message: &Message,
    ) {
        // Whoever asked under a key was answered by a node that has keys.
        let Some(keys) = &self.identity.keys else { return };
        let mut inside = Vec::new();
        if codec::encode_inside(header, message, INSIDE_BYTES_MAX, &mut inside).is_err() {
            self.tally.add("datagrams_too_large");
            let instead: Message = Rejected::AskOverStream.into();
            if codec::encode_inside(header, &instead, INSIDE_BYTES_MAX, &mut inside).is_err() {
                return;
            }
        }
        let (sender, mut datagram) = (keys.held().sender, Vec::new());
        let sealed = sender.seal_answer(recipient, &inside, &mut datagram);
        // Nothing is sealed for clients whose key was removed meanwhile.
        let is_sealed = sealed.is_ok() && !datagram.is_empty();
        if !is_sealed || self.udp.send_to(&datagram, to).await.is_err() {
            self.tally.add("datagrams_not_sent");
        }
    }

    /// Sends a question to another node; the outcome comes to the inbox of whoever asks. `false`: it was
    /// not sent, and nothing comes.
    pub(super) fn call(&self, ask: Ask) -> bool {
        let Ask { to, header, message } = ask;
        let frame = match codec::frame(header, &message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "a question is larger than its kind may be");
                return false;
            }
        };
        let traffic = if route::is_bulk(&message) { Traffic::Bulk } else { Traffic::Requests };
        self.with_link((to, traffic), |link| link.send(header.id, frame))
    }

    /// Sends a message to all other members, for those who listen there. What there is no room for is dropped.
    pub(super) fn publish(&self, standing: &Standing, message: Published) {
        let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
        let Ok(frame) = codec::frame(header, &message.into()) else {
            return self.tally.add("redis_messages_dropped");
        };
        let others = standing.members().map(|member| (member.id, member.addr));
        for (_, addr) in others.filter(|(id, _)| *id != standing.me() && standing.is_active(*id)) {
            let room = Room::take(&self.published, frame.len(), PUBLISHED_BYTES_MAX);
            let publish = |room| {
                self.with_link((addr, Traffic::Published), |link| link.publish(&frame, room))
            };
            if !room.is_some_and(publish) {
                self.tally.add("redis_messages_dropped");
            }
        }
    }

    fn with_link(&self, to: (SocketAddr, Traffic), send: impl FnOnce(&Link) -> bool) -> bool {
        let link = || {
            let (net, identity) = (self.net.clone(), self.identity.clone());
            Link::new(net, to, identity, self.inboxes.clone())
        };
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // A link over which nothing goes ends after a while, perhaps just now.
        if links.get(&to).is_none_or(Link::is_over) {
            links.retain(|_, link| !link.is_over());
        }
        send(links.entry(to).or_insert_with(link))
    }
}

/// The streams that are open, by their numbers.
#[derive(Default)]
pub(super) struct Streams(Mutex<BTreeMap<u64, Sink>>);

/// Where what is sent to a stream is left.
#[derive(Clone)]
pub(super) enum Sink {
    /// As frames, for the other side.
    Frames(Outbox),
    /// As it is, with the number of what was asked, for who asked in the name of the other side.
    Messages(mpsc::Sender<(u64, Box<Message>)>),
}

impl Streams {
    /// From now on this stream is sent to.
    pub(super) fn open(&self, stream: u64, sink: Sink) {
        self.lock().insert(stream, sink);
    }

    /// Nothing more is sent to this stream; what is queued still goes out.
    pub(super) fn close(&self, stream: u64) {
        self.lock().remove(&stream);
    }

    /// Leaves a message for a stream, `None` if it is not open. `false`: it does not take its answers, and
    /// is closed.
    pub(super) fn send(&self, stream: u64, header: Header, message: Message) -> Option<bool> {
        let sink = self.lock().get(&stream).cloned()?;
        let is_taken = match sink {
            Sink::Frames(outbox) => outbox.push(frame(header, &message)?),
            Sink::Messages(messages) => messages.try_send((header.id, Box::new(message))).is_ok(),
        };
        if !is_taken {
            self.close(stream);
        }
        Some(is_taken)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Sink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frame(header: Header, message: &Message) -> Option<Vec<u8>> {
    let frame = codec::frame(header, message).or_else(|error| {
        tracing::error!(%error, "an answer is larger than its kind may be");
        let why = error.to_string();
        codec::frame(header, &Rejected::Malformed { why }.into())
    });
    frame.ok()
}
