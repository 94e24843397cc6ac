//! Finding the host's node and keeping in touch with it.
//!
//! One task per client: it tries the local socket, then the seeds, then the nodes learned from them,
//! attaches the segments that the node tells of, and begins again when the stream ends, for ever.

use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::{Clock, Net};
use annulus_proto::NodeId;
use annulus_proto::codec;
use annulus_proto::message::{Caller, Hello, Message, Ping, Rejected, Segment};
use annulus_seal::stream::Wire;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::builder::Via;
use crate::client::Inner;
use crate::connection::{End, Link};
use crate::error::{ConnectError, Tried};
use crate::lane::{Lane, LaneCaller};

/// The node that a client is in touch with: its host's, if there is one and it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contact {
    /// Its id.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its name.
    pub name: String,
    /// How it is reached: the path of its local socket, or its address.
    pub at: String,
    /// Its address, unless it is reached over the local socket.
    pub addr: Option<SocketAddr>,
    /// What tells its host from others.
    pub host: String,
    /// The segments it told of, attached or not.
    pub segments: Vec<Segment>,
    /// Its software.
    pub software: String,
}

/// How the search stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    pub(crate) found: Option<Contacted>,
    /// Why the last round found nothing; `None` before the first has ended.
    pub(crate) failed: Option<ConnectError>,
}

/// The stream to the node that was found.
#[derive(Clone, Debug)]
pub(crate) struct Contacted {
    pub(crate) link: Arc<Link>,
    /// `None` over the local socket.
    pub(crate) addr: Option<SocketAddr>,
}

impl Contacted {
    pub(crate) fn describe(&self) -> Contact {
        let peer = &self.link.peer;
        Contact {
            node: peer.node,
            incarnation: peer.incarnation,
            name: peer.name.clone(),
            at: self.link.at.clone(),
            addr: self.addr,
            host: peer.host.clone(),
            segments: peer.segments.clone(),
            software: peer.software.clone(),
        }
    }
}

/// Runs until it is aborted, when the last handle of the client goes.
pub(crate) async fn keep<N: Net, C: Clock>(inner: Arc<Inner<N, C>>) {
    let mut failures = 0;
    let mut was_in_touch = false;
    loop {
        match find(&inner).await {
            Ok(contacted) => {
                failures = 0;
                was_in_touch = true;
                stay(&inner, contacted).await;
            }
            Err(error) => {
                // The first time, `connect` returns it.
                if failures == 0 && was_in_touch {
                    warn!(%error, "no node found; trying on");
                }
                inner.search.send_modify(|search| search.failed = Some(error));
                failures += 1;
            }
        }
        sleep(back_off(failures, inner.settings.number)).await;
    }
}

/// Pauses grow from 50 ms to 2 s; a quarter of each depends on the client, so that those that lost
/// the same node don't all come back at once.
fn back_off(failures: u32, number: u64) -> Duration {
    let pause = BACK_OFF.saturating_mul(1 << failures.min(10)).min(BACK_OFF_MAX);
    let mixed = number.wrapping_add(failures.into()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    pause - pause.mul_f64(mixed as f64 / 1024.0)
}

const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// While it uses another node, a client looks this often whether its host's local socket is back.
const LOOK_HOME: Duration = Duration::from_secs(1);
const LOOK_HOME_MAX: Duration = Duration::from_secs(60);

/// A stream that was quiet for this long is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(5);

/// Uses a node until its stream ends.
async fn stay<N: Net, C: Clock>(inner: &Arc<Inner<N, C>>, contacted: Contacted) {
    let mut contacted = contacted;
    loop {
        settle(inner, &contacted);
        let away = contacted.addr.is_some();
        let lane = contacted.addr.is_none() && inner.lane.load().is_none();
        let better = tokio::select! {
            biased;
            () = contacted.link.closed() => None,
            better = look_home(inner), if away => Some(better),
            () = open_lane(inner), if lane => None,
            () = prove_alive(inner, &contacted.link) => None,
        };
        match better {
            Some(better) => contacted = better,
            None => break,
        }
    }
    inner.use_lane(None);
    info!(at = contacted.link.at, "lost the node; looking for one");
    inner.search.send_modify(|search| {
        search.found = None;
        search.failed = None;
    });
}

fn settle<N: Net, C: Clock>(inner: &Arc<Inner<N, C>>, contacted: &Contacted) {
    let peer = &contacted.link.peer;
    debug!(node = %peer.node, at = contacted.link.at, "in touch");
    for segment in &peer.segments {
        inner.attach(segment, peer.node);
    }
    inner.pool.trust(contacted.addr);
    inner.search.send_modify(|search| {
        search.found = Some(contacted.clone());
        search.failed = None;
    });
    inner.routes_stale.notify_one();
}

/// Waits until the host's node can be reached at the local socket.
async fn look_home<N: Net, C: Clock>(inner: &Arc<Inner<N, C>>) -> Contacted {
    let Some(path) = inner.local_socket() else { return pending().await };
    let mut pause = LOOK_HOME;
    loop {
        sleep(pause).await;
        match open_local(inner, path).await {
            Ok(link) => return Contacted { link, addr: None },
            // Somebody else's node; it need not tell us every second.
            Err(End::Rejected(_)) => pause = (pause * 2).min(LOOK_HOME_MAX),
            Err(_) => pause = LOOK_HOME,
        }
    }
}

/// Opens a lane to the host's node, and waits for its end. A node that gives none is not asked again
/// while it is there.
async fn open_lane<N: Net, C: Clock>(inner: &Arc<Inner<N, C>>) {
    let settings = &inner.settings;
    let Some(path) = inner.local_socket().filter(|_| settings.lane) else { return pending().await };
    // Fails at once where there are no real sockets, and waits for nobody else.
    let end = match settings.net.connect_end(path, inner.connect_timeout()) {
        Ok(end) => end,
        Err(error) => {
            debug!(%error, "no lane");
            return pending().await;
        }
    };
    let caller = LaneCaller {
        cluster: settings.cluster.clone(),
        client: settings.number,
        role: settings.role,
        software: settings.software.clone(),
        timeout: settings.timeout,
    };
    let requests = inner.requests.clone();
    let opened = tokio::task::spawn_blocking(move || Lane::over(end, caller, requests)).await;
    match opened {
        Ok(Ok(lane)) => inner.use_lane(Some(lane)),
        Ok(Err(error)) => debug!(%error, "no lane"),
        Err(_) => {}
    }
    pending().await
}

/// Asks for a sign of life whenever the stream was quiet. Returns when none comes: the call has
/// given the stream up then.
async fn prove_alive<N: Net, C: Clock>(inner: &Arc<Inner<N, C>>, link: &Link) {
    loop {
        let quiet = link.heard().elapsed();
        if quiet < QUIET {
            sleep(QUIET - quiet).await;
            continue;
        }
        let id = inner.next_frame_id();
        let mut frame = Vec::new();
        let ping = Message::Ping(Ping {});
        if codec::encode_frame(inner.header(id), &ping, &mut frame).is_err() {
            return;
        }
        if link.call(id, frame, Instant::now() + inner.settings.timeout).await.is_err() {
            return;
        }
    }
}

/// Tries everything once, in order: the local socket, the seeds, the nodes known by now.
async fn find<N: Net, C: Clock>(inner: &Arc<Inner<N, C>>) -> Result<Contacted, ConnectError> {
    let settings = &inner.settings;
    let mut round = Round::default();
    if let Some(path) = inner.local_socket() {
        match open_local(inner, path).await {
            Ok(link) => return Ok(Contacted { link, addr: None }),
            Err(end) => round.note(path.display().to_string(), end),
        }
    }
    if settings.via != Via::Local {
        for seed in &settings.seeds {
            let resolved = timeout(inner.connect_timeout(), settings.net.resolve(seed)).await;
            let addrs = match resolved.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            {
                Ok(addrs) => addrs,
                Err(error) => {
                    round.note(seed.clone(), End::Closed(error.to_string()));
                    continue;
                }
            };
            for addr in addrs {
                match open_addr(inner, addr).await {
                    Ok(link) => return Ok(Contacted { link, addr: Some(addr) }),
                    Err(end) => round.note(named(seed, addr), end),
                }
            }
        }
        let known = inner.routes.load_full();
        for node in known.iter().flat_map(|routes| routes.nodes()) {
            match open_addr(inner, node.addr).await {
                Ok(link) => return Ok(Contacted { link, addr: Some(node.addr) }),
                Err(end) => round.note(node.addr.to_string(), end),
            }
        }
    }
    Err(round.error())
}

#[derive(Default)]
struct Round {
    tried: Vec<Tried>,
    rejected: Option<(String, Rejected)>,
}

impl Round {
    fn note(&mut self, at: String, end: End) {
        debug!(at, why = end.why(), "cannot be reached");
        if let End::Rejected(reason) = &end
            && self.rejected.is_none()
        {
            self.rejected = Some((at.clone(), reason.clone()));
        }
        if self.tried.len() < TRIED_MAX && self.tried.iter().all(|tried| tried.at != at) {
            self.tried.push(Tried { at, why: end.why() });
        }
    }

    fn error(self) -> ConnectError {
        match (self.rejected, self.tried) {
            (Some((at, reason)), _) => ConnectError::Rejected { at, reason },
            (None, tried) if tried.is_empty() => ConnectError::NothingToTry,
            (None, tried) => ConnectError::NoNode { tried },
        }
    }
}

/// The most failed addresses that an error lists.
const TRIED_MAX: usize = 16;

fn named(seed: &str, addr: SocketAddr) -> String {
    let addr = addr.to_string();
    if seed == addr { addr } else { format!("{seed} ({addr})") }
}

async fn open_local<N: Net, C: Clock>(
    inner: &Arc<Inner<N, C>>,
    path: &Path,
) -> Result<Arc<Link>, End> {
    let at = path.display().to_string();
    let open = async {
        let stream = inner.settings.net.connect_local(path).await.map_err(closed)?;
        greet(inner, at, stream).await
    };
    timeout(inner.connect_timeout(), open).await.unwrap_or(Err(End::Silent))
}

async fn open_addr<N: Net, C: Clock>(
    inner: &Arc<Inner<N, C>>,
    addr: SocketAddr,
) -> Result<Arc<Link>, End> {
    let open = open_tcp(inner, addr);
    timeout(inner.connect_timeout(), open).await.unwrap_or(Err(End::Silent))
}

/// Opens a stream to a node and shakes hands; the caller sets the deadline.
pub(crate) async fn open_tcp<N: Net, C: Clock>(
    inner: &Inner<N, C>,
    addr: SocketAddr,
) -> Result<Arc<Link>, End> {
    let stream = inner.settings.net.connect(addr).await.map_err(closed)?;
    let at = addr.to_string();
    if let Some(seal) = &inner.seal {
        return greet(inner, at, seal.call(stream).await?).await;
    }
    // A node with a keyring says nothing to strangers.
    greet(inner, at, Wire::Clear(stream)).await.map_err(|end| match end {
        End::Closed(why) => {
            End::Closed(format!("{why}; it may have a keyring: give this client a key"))
        }
        end => end,
    })
}

fn closed(error: std::io::Error) -> End {
    End::Closed(error.to_string())
}

async fn greet<N: Net, C: Clock, S>(
    inner: &Inner<N, C>,
    at: String,
    stream: S,
) -> Result<Arc<Link>, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &inner.settings;
    let hello = Hello {
        cluster: settings.cluster.clone(),
        caller: Caller::Client { client: settings.number, role: settings.role },
        software: settings.software.clone(),
    };
    let header = inner.header(inner.next_frame_id());
    Link::open(stream, at, header, hello, inner.tally.clone()).await
}
