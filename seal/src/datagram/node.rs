//! Datagrams as a node sends and takes them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use annulus_proto::limits::MEMBERS_MAX;
use annulus_proto::message::Role;

use super::cookie::Issuer;
use super::sealer::{Counter, Exhausted, Origin, Sealer};
use super::senders::Senders;
use super::{Epoch, Parsed, Recipient, Refused, Shape, Side};
use crate::key::{KeyId, KeyKind};
use crate::keyring::Keyring;

/// The sending side of a node in one of its lives, under the keys of one ring. Any number of tasks
/// may send at the same time.
pub struct NodeSender {
    counters: Arc<Counters>,
    cluster: Arc<str>,
    origin: Origin,
    in_use: Sealer,
    for_clients: Vec<(KeyId, Sealer)>,
}

/// Apart, so that many answers between two packets of gossip don't push the later one out of its
/// receiver's window.
#[derive(Debug, Default)]
struct Counters {
    gossip: Counter,
    to_clients: Counter,
}

impl NodeSender {
    /// The sender of the node with this id. Each life of a node has an epoch of its own, greater
    /// than those before, or others take it for a recording of itself.
    pub fn new(keyring: &Keyring, cluster: &str, node: u64, epoch: Epoch) -> Self {
        let origin = Origin { side: Side::Node, number: node, epoch };
        Self::build(keyring, cluster.into(), origin, Arc::default())
    }

    /// The same sender with other keys. Both may be used: they share their counters.
    #[must_use]
    pub fn with_keys(&self, keyring: &Keyring) -> Self {
        Self::build(keyring, self.cluster.clone(), self.origin, self.counters.clone())
    }

    /// The same node in a later epoch, with counters of its own: where others remember a later one than
    /// it began with, they take nothing else from it.
    #[must_use]
    pub fn with_epoch(&self, keyring: &Keyring, epoch: Epoch) -> Self {
        let origin = Origin { epoch, ..self.origin };
        Self::build(keyring, self.cluster.clone(), origin, Arc::default())
    }

    fn build(
        keyring: &Keyring,
        cluster: Arc<str>,
        origin: Origin,
        counters: Arc<Counters>,
    ) -> Self {
        let clients = keyring.keys().filter(|key| key.kind() != KeyKind::Node);
        let for_clients =
            clients.map(|key| (key.id(), Sealer::new(key, &cluster, origin))).collect();
        let in_use = Sealer::new(keyring.in_use(), &cluster, origin);
        Self { counters, cluster, origin, in_use, for_clients }
    }

    /// Appends a datagram for another node, with a frame of at most
    /// [`INSIDE_BYTES_MAX`](super::INSIDE_BYTES_MAX) bytes inside.
    ///
    /// # Errors
    /// [`Exhausted`], after longer than any node runs.
    pub fn seal_gossip(&self, inside: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.in_use.seal(self.counters.gossip.next()?, Shape::Gossip, None, None, inside, out);
        Ok(())
    }

    /// Appends an answer for a client, as [`NodeSender::seal_gossip`]. Nothing is appended for one
    /// whose key was removed meanwhile.
    ///
    /// # Errors
    /// As there.
    pub fn seal_answer(
        &self,
        to: &Recipient,
        inside: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        self.to_client(to, Shape::Answer, inside, out)
    }

    fn to_client(
        &self,
        to: &Recipient,
        shape: Shape,
        inside: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        if let Some((_, sealer)) = self.for_clients.iter().find(|(key, _)| *key == to.key) {
            let recipient = Some((to.client, to.epoch));
            let counter = self.counters.to_clients.next()?;
            sealer.seal(counter, shape, None, recipient, inside, out);
        }
        Ok(())
    }
}

/// The receiving side of a node.
///
/// Nothing is remembered of whoever has not proven to have a key, and of clients nothing before
/// they have proven their address. The window of each sender takes some 400 bytes: 2 MiB of clients
/// and 4 MiB of nodes at most.
pub struct NodeReceiver {
    keyring: Arc<Keyring>,
    sender: Arc<NodeSender>,
    /// Epochs that this node was in before, the latest last.
    former: VecDeque<Epoch>,
    nodes: Senders,
    clients: Senders,
    issuer: Issuer,
}

/// A datagram that was taken, or what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub enum FromOutside {
    /// A frame from another node.
    Gossip {
        /// The node's id.
        node: u64,
        /// The frame.
        inside: Vec<u8>,
    },
    /// A frame from a client.
    Question {
        /// Whom to answer.
        recipient: Recipient,
        /// What it may do.
        role: Role,
        /// The frame.
        inside: Vec<u8>,
    },
    /// Send this back to where the datagram came from: the client has to prove its address first.
    Challenge(Vec<u8>),
}

/// The most nodes whose counters are remembered: each may be there under two keys, and twice as
/// many as a view holds.
const NODES_MAX: usize = 2 * MEMBERS_MAX;
/// The most epochs of its own that a node knows again: it begins another one when it was held for dead.
const FORMER_MAX: usize = 16;
/// The most clients. More of them at a time cost each other a round trip now and then.
const CLIENTS_MAX: usize = 4_096;

impl NodeReceiver {
    /// The receiver that belongs to this sender. `boot_secret` is drawn anew at each start.
    pub fn new(keyring: Arc<Keyring>, sender: Arc<NodeSender>, boot_secret: &[u8; 32]) -> Self {
        Self::bounded(keyring, sender, boot_secret, NODES_MAX, CLIENTS_MAX)
    }

    pub(super) fn bounded(
        keyring: Arc<Keyring>,
        sender: Arc<NodeSender>,
        boot_secret: &[u8; 32],
        nodes_max: usize,
        clients_max: usize,
    ) -> Self {
        Self {
            keyring,
            sender,
            former: VecDeque::new(),
            nodes: Senders::new(Side::Node, nodes_max),
            clients: Senders::new(Side::Client, clients_max),
            issuer: Issuer::new(boot_secret),
        }
    }

    /// Takes other keys: what comes under removed ones is refused from now on, and so are, if one of
    /// them comes back, the questions that clients asked before. `now_ms` as in
    /// [`NodeReceiver::open`].
    pub fn set_keys(&mut self, now_ms: u64, keyring: Arc<Keyring>, sender: Arc<NodeSender>) {
        let is_kept = |id| keyring.get(id).is_some();
        self.nodes.keep(now_ms, is_kept);
        self.clients.keep(now_ms, is_kept);
        if sender.origin.epoch != self.sender.origin.epoch {
            self.former.push_back(self.sender.origin.epoch);
            if self.former.len() > FORMER_MAX {
                self.former.pop_front();
            }
        }
        (self.keyring, self.sender) = (keyring, sender);
    }

    /// Takes a datagram in. `now_ms` is this node's monotonic clock, in milliseconds.
    ///
    /// # Errors
    /// [`Refused`]: to be counted, and not to be answered.
    pub fn open(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<FromOutside, Refused> {
        let parsed = Parsed::of(datagram)?;
        let header = parsed.header;
        let key = self.keyring.get(header.key).ok_or(Refused::UnknownKey(header.key))?;
        match (header.shape, key.kind()) {
            (Shape::Gossip, KeyKind::Node) => {
                let Origin { number, epoch, .. } = self.sender.origin;
                let is_mine = epoch == header.epoch || self.former.contains(&header.epoch);
                if header.sender == number && is_mine {
                    return Err(Refused::Reflected);
                }
                let cluster = &self.sender.cluster;
                let mut verified = self.nodes.verify(key, cluster, &parsed, None)?;
                self.nodes.remember(now_ms, &mut verified);
                Ok(FromOutside::Gossip { node: header.sender, inside: verified.inside })
            }
            (Shape::Question, KeyKind::Client(role)) => {
                let cluster = &self.sender.cluster;
                let mut verified = self.clients.verify(key, cluster, &parsed, None)?;
                let (client, epoch) = (header.sender, header.epoch);
                let recipient = Recipient { key: header.key, client, epoch };
                let cookie = parsed.cookie.as_ref().ok_or(Refused::Foreign)?;
                let issued = self.issuer.check(now_ms, cookie, from, client, epoch);
                // What a forgotten client asked before must not be carried out again, also when it is
                // known again.
                let is_good = issued.is_some_and(|issued| verified.is_after_the_forgotten(issued));
                if !is_good {
                    return Ok(FromOutside::Challenge(self.challenge(now_ms, from, &recipient)));
                }
                self.clients.remember(now_ms, &mut verified);
                Ok(FromOutside::Question { recipient, role, inside: verified.inside })
            }
            _ => Err(Refused::OutOfPlace),
        }
    }

    /// How many senders are remembered, for tests and metrics.
    pub fn senders(&self) -> usize {
        self.nodes.len() + self.clients.len()
    }

    fn challenge(&self, now_ms: u64, to: SocketAddr, recipient: &Recipient) -> Vec<u8> {
        let Recipient { client, epoch, .. } = *recipient;
        let cookie = self.issuer.issue(now_ms, to, client, epoch).to_bytes();
        let mut out = Vec::new();
        // Without counters nothing is sent, as if it had been lost.
        let _ = self.sender.to_client(recipient, Shape::Challenge, &cookie, &mut out);
        out
    }
}
