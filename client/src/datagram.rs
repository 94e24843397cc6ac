//! Small requests as datagrams, sent again until an answer comes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annulus_net::{Net, Udp};
use annulus_proto::codec;
use annulus_proto::limits::DATAGRAM_BYTES_MAX;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{Answer, CallError, End};
use crate::counters::Tally;

/// The datagram sockets of one client, each bound when it is needed first.
pub(crate) struct Datagrams<N: Net> {
    net: N,
    cluster: String,
    tally: Arc<Tally>,
    v4: OnceCell<Socket<N::Udp>>,
    v6: OnceCell<Socket<N::Udp>>,
}

struct Socket<U> {
    udp: Arc<U>,
    waiting: Arc<Waiting>,
    receiver: AbortHandle,
}

type Waiting = Mutex<BTreeMap<u64, (SocketAddr, oneshot::Sender<Answer>)>>;

impl<N: Net> Datagrams<N> {
    pub(crate) fn new(net: N, cluster: String, tally: Arc<Tally>) -> Self {
        Self { net, cluster, tally, v4: OnceCell::new(), v6: OnceCell::new() }
    }

    /// Sends a datagram that carries `id` to a node, again and again with growing pauses, until an
    /// answer comes from that address or `deadline` passes.
    pub(crate) async fn call(
        &self,
        to: SocketAddr,
        id: u64,
        datagram: &[u8],
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let not_sent = |error: std::io::Error| CallError::NotSent(End::Closed(error.to_string()));
        let socket = self.socket(to).await.map_err(not_sent)?;
        let (sender, mut answer) = oneshot::channel();
        lock(&socket.waiting).insert(id, (to, sender));
        let _forget = Forget { waiting: &socket.waiting, id };
        let mut pause = RESEND_AFTER;
        let mut sent = false;
        loop {
            match socket.udp.send_to(datagram, to).await {
                Ok(_) => sent = true,
                Err(error) if !sent => return Err(not_sent(error)),
                Err(_) => {}
            }
            let until = deadline.min(Instant::now() + pause);
            match timeout_at(until, &mut answer).await {
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

    async fn socket(&self, to: SocketAddr) -> std::io::Result<&Socket<N::Udp>> {
        let (cell, any) = match to {
            SocketAddr::V4(_) => (&self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        cell.get_or_try_init(|| async {
            let udp = Arc::new(self.net.bind_udp(any).await?);
            let waiting = Arc::new(Waiting::default());
            let (cluster, tally) = (self.cluster.clone(), self.tally.clone());
            let receive = receive(udp.clone(), waiting.clone(), cluster, tally);
            let receiver = tokio::spawn(receive).abort_handle();
            Ok(Socket { udp, waiting, receiver })
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

async fn receive<U: Udp>(udp: Arc<U>, waiting: Arc<Waiting>, cluster: String, tally: Arc<Tally>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
            sleep(RECEIVE_PAUSE).await;
            continue;
        };
        let matched = codec::decode_datagram(&buffer[..length], &cluster).ok().and_then(|answer| {
            let mut waiting = lock(&waiting);
            // Only who was asked may answer.
            waiting.get(&answer.0.id).filter(|(to, _)| *to == from)?;
            let (_, sender) = waiting.remove(&answer.0.id)?;
            sender.send(answer).ok()
        });
        if matched.is_none() {
            tally.unmatched.add_one();
        }
    }
}
