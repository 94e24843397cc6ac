//! Datagrams as a client sends and takes them.

use std::sync::{Arc, Mutex, PoisonError};

use annulus_proto::limits::MEMBERS_MAX;

use super::cookie::Cookie;
use super::sealer::{Counter, Exhausted, Origin, Sealer};
use super::senders::Senders;
use super::{Epoch, Parsed, Refused, Shape, Side};
use crate::key::Key;

/// What a client seals and opens datagrams with. Any number of tasks may use it at the same time.
pub struct ClientDatagrams {
    key: Arc<Key>,
    cluster: String,
    number: u64,
    epoch: Epoch,
    sealer: Sealer,
    counter: Counter,
    nodes: Mutex<Senders>,
}

/// What came from a node.
#[derive(Debug, PartialEq, Eq)]
pub enum FromNode {
    /// A frame that answers a question.
    Answer {
        /// The node's id.
        node: u64,
        /// The frame.
        inside: Vec<u8>,
    },
    /// Ask again, with this cookie, and with it everything else that goes to that address.
    Cookie(Cookie),
}

impl ClientDatagrams {
    /// For the client with this number, which no other has, in this epoch.
    pub fn new(key: Arc<Key>, cluster: &str, number: u64, epoch: Epoch) -> Self {
        let sealer = Sealer::new(&key, cluster, Origin { side: Side::Client, number, epoch });
        let nodes = Mutex::new(Senders::new(Side::Node, MEMBERS_MAX));
        let (cluster, counter) = (cluster.to_owned(), Counter::default());
        Self { key, cluster, number, epoch, sealer, counter, nodes }
    }

    /// Appends a question with a frame of at most
    /// [`QUESTION_INSIDE_BYTES_MAX`](super::QUESTION_INSIDE_BYTES_MAX) bytes inside, and the last
    /// cookie that came from where it goes to. Seal each repetition anew: the same datagram is
    /// taken once.
    ///
    /// # Errors
    /// [`Exhausted`], after longer than any client runs.
    pub fn seal(
        &self,
        cookie: Option<Cookie>,
        inside: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        let none = Cookie::from_bytes(&[0; Cookie::BYTES]);
        let cookie = Some(cookie.unwrap_or(none));
        self.sealer.seal(self.counter.next()?, Shape::Question, cookie, None, inside, out);
        Ok(())
    }

    /// Takes a datagram in. Whoever asked compares where it came from with where the question went.
    ///
    /// # Errors
    /// [`Refused`]: to be counted.
    pub fn open(&self, datagram: &[u8]) -> Result<FromNode, Refused> {
        let parsed = Parsed::of(datagram)?;
        let header = parsed.header;
        if header.key != self.key.id() {
            return Err(Refused::UnknownKey(header.key));
        }
        let recipient = Some((self.number, self.epoch));
        if !matches!(header.shape, Shape::Answer | Shape::Challenge) {
            return Err(Refused::OutOfPlace);
        }
        // Nothing panics while it holds the lock.
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verified = nodes.verify(&self.key, &self.cluster, &parsed, recipient)?;
        // Nothing a node says has a cookie: when it was forgotten does not matter.
        nodes.remember(0, &mut verified);
        match header.shape {
            Shape::Challenge => {
                let bytes = verified.inside[..].try_into().map_err(|_| Refused::OutOfPlace)?;
                Ok(FromNode::Cookie(Cookie::from_bytes(bytes)))
            }
            _ => Ok(FromNode::Answer { node: header.sender, inside: verified.inside }),
        }
    }
}
