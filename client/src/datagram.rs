//! Small requests as datagrams, sent again until an answer comes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annulus_net::{Net, Udp};
use annulus_proto::codec::{self, Header};
use annulus_proto::limits::DATAGRAM_BYTES_MAX;
use annulus_proto::message::Message;
use annulus_seal::datagram::{Cookie, FromNode, QUESTION_INSIDE_BYTES_MAX, SEALED_BYTES_MAX};
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{Answer, CallError, End};
use crate::counters::Tally;
use crate::seal::Seal;

/// The datagram sockets of one client, each bound when it is needed first.
pub(crate) struct Datagrams<N: Net> {
    net: N,
    cluster: String,
    /// `None` where datagrams go in clear.
    seal: Option<Arc<Seal>>,
    tally: Arc<Tally>,
    v4: OnceCell<Socket<N::Udp>>,
    v6: OnceCell<Socket<N::Udp>>,
}

struct Socket<U> {
    udp: Arc<U>,
    waiting: Arc<Waiting>,
    /// Tells of cookies.
    cookies: Arc<Notify>,
    receiver: AbortHandle,
}

type Waiting = Mutex<BTreeMap<u64, (SocketAddr, oneshot::Sender<Answer>)>>;

impl<N: Net> Datagrams<N> {
    pub(crate) fn new(net: N, cluster: String, seal: Option<Arc<Seal>>, tally: Arc<Tally>) -> Self {
        Self { net, cluster, seal, tally, v4: OnceCell::new(), v6: OnceCell::new() }
    }

    /// The datagram of a request; `None` if it does not fit one.
    pub(crate) fn encode(&self, header: Header, message: &Message) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        let encoded = match &self.seal {
            None => codec::encode_datagram(header, &self.cluster, message, &mut packet),
            // Sealed when it is sent: the same datagram is taken once.
            Some(_) => {
                codec::encode_inside(header, message, QUESTION_INSIDE_BYTES_MAX, &mut packet)
            }
        };
        encoded.ok().map(|()| packet)
    }

    /// Sends what [`Datagrams::encode`] made with `id` to a node, again and again with growing
    /// pauses, until an answer comes from that address or `deadline` passes.
    pub(crate) async fn call(
        &self,
        to: SocketAddr,
        id: u64,
        packet: &[u8],
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let not_sent = |error: io::Error| CallError::NotSent(End::Closed(error.to_string()));
        let socket = self.socket(to).await.map_err(not_sent)?;
        let (sender, mut answer) = oneshot::channel();
        lock(&socket.waiting).insert(id, (to, sender));
        let _forget = Forget { waiting: &socket.waiting, id };
        let mut pause = RESEND_AFTER;
        let mut sent = false;
        let mut may_hurry = true;
        loop {
            let cookie = self.seal.as_ref().and_then(|seal| seal.cookie(to));
            let datagram = self.seal(cookie, packet).map_err(not_sent)?;
            match socket.udp.send_to(&datagram, to).await {
                Ok(_) => sent = true,
                Err(error) if !sent => return Err(not_sent(error)),
                Err(_) => {}
            }
            let until = deadline.min(Instant::now() + pause);
            let came = match may_hurry {
                true => tokio::select! {
                    biased;
                    came = timeout_at(until, &mut answer) => Some(came),
                    () = self.cookie_comes(socket, to, cookie) => None,
                },
                false => Some(timeout_at(until, &mut answer).await),
            };
            let Some(came) = came else {
                // At once, but once in each pause: a node that wants another cookie each time would
                // be asked without end.
                may_hurry = false;
                continue;
            };
            may_hurry = true;
            match came {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) => return Err(CallError::Lost(End::Silent)),
                Err(_) if Instant::now() >= deadline => return Err(CallError::Lost(End::Silent)),
                Err(_) => {
                    self.tally.retries.add_one();
                    pause = (pause * 2).min(RESEND_AFTER_MAX);
                }
            }
        }
    }

    fn seal<'a>(&self, cookie: Option<Cookie>, packet: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
        let Some(seal) = &self.seal else { return Ok(packet.into()) };
        let mut sealed = Vec::new();
        seal.datagrams.seal(cookie, packet, &mut sealed).map_err(io::Error::other)?;
        Ok(sealed.into())
    }

    /// Waits for another cookie from this address than the one that was sent.
    async fn cookie_comes(&self, socket: &Socket<N::Udp>, to: SocketAddr, sent: Option<Cookie>) {
        let Some(seal) = &self.seal else { return std::future::pending().await };
        loop {
            let comes = socket.cookies.notified();
            if seal.cookie(to) != sent {
                return;
            }
            comes.await;
        }
    }

    async fn socket(&self, to: SocketAddr) -> io::Result<&Socket<N::Udp>> {
        let (cell, any) = match to {
            SocketAddr::V4(_) => (&self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        cell.get_or_try_init(|| async {
            let udp = Arc::new(self.net.bind_udp(any).await?);
            let waiting = Arc::new(Waiting::default());
            let cookies = Arc::new(Notify::new());
            let receiving = Receiving {
                udp: udp.clone(),
                waiting: waiting.clone(),
                cookies: cookies.clone(),
                cluster: self.cluster.clone(),
                seal: self.seal.clone(),
                tally: self.tally.clone(),
            };
            let receiver = tokio::spawn(receiving.run()).abort_handle();
            Ok(Socket { udp, waiting, cookies, receiver })
        })
        .await
    }
}

/// The first repetition comes after this long, the next ones after twice as long each.
const RESEND_AFTER: Duration = Duration::from_millis(60);
const RESEND_AFTER_MAX: Duration = Duration::from_millis(480);

/// A socket that fails to receive is asked again after this long.
const RECEIVE_PAUSE: Duration = Duration::from_millis(10);

impl<U> Drop for Socket<U> {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
    }
}

fn lock(
    waiting: &Waiting,
) -> std::sync::MutexGuard<'_, BTreeMap<u64, (SocketAddr, oneshot::Sender<Answer>)>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the task that receives works with.
struct Receiving<U> {
    udp: Arc<U>,
    waiting: Arc<Waiting>,
    cookies: Arc<Notify>,
    cluster: String,
    seal: Option<Arc<Seal>>,
    tally: Arc<Tally>,
}

impl<U: Udp> Receiving<U> {
    async fn run(self) {
        // One byte more, so that what is too long is not taken for something shorter.
        let mut buffer = [0; SEALED_BYTES_MAX + 1];
        loop {
            let Ok((length, from)) = self.udp.recv_from(&mut buffer).await else {
                sleep(RECEIVE_PAUSE).await;
                continue;
            };
            if self.take(from, &buffer[..length]).is_none() {
                self.tally.unmatched.add_one();
            }
        }
    }

    fn take(&self, from: SocketAddr, datagram: &[u8]) -> Option<()> {
        let answer = match &self.seal {
            None => codec::decode_datagram(datagram, &self.cluster).ok()?,
            Some(seal) => match seal.datagrams.open(datagram).ok()? {
                FromNode::Answer { inside, .. } => codec::decode_inside(&inside).ok()?,
                FromNode::Cookie(cookie) => {
                    // Only who was asked gives one that is of use.
                    lock(&self.waiting).values().find(|(to, _)| *to == from)?;
                    seal.keep(from, cookie);
                    self.cookies.notify_waiters();
                    return Some(());
                }
            },
        };
        let mut waiting = lock(&self.waiting);
        // Only who was asked may answer.
        waiting.get(&answer.0.id).filter(|(to, _)| *to == from)?;
        let (_, sender) = waiting.remove(&answer.0.id)?;
        sender.send(answer).ok()
    }
}

const _: () = assert!(SEALED_BYTES_MAX >= DATAGRAM_BYTES_MAX);
