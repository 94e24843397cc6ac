//! The seams to the outside: sockets and clocks, with a faulty network for tests.
//!
//! Client and node reach the network through [`Net`] and time through [`Clock`], and through
//! nothing else. Each seam has two implementations: the real one here ([`TokioNet`],
//! [`SystemClock`]), and a simulated one in `tests/sim`. [`FaultyNet`] goes around either network
//! and adds, from a seed, the faults that it lacks.
//!
//! This crate knows nothing of sessions, frames or peers: it moves bytes between addresses. The
//! traits are a seam and not a feature, because simulated sockets panic outside a simulation while
//! Cargo unifies features across a workspace.

mod clock;
mod faulty;
mod local;
mod tokio_net;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use clock::{Clock, SystemClock};
pub use faulty::{
    BlockedConnects, Faults, FaultyListener, FaultyNet, FaultyStream, FaultyUdp, Rate,
    RateOutOfRange, Rates, Side, Tally,
};
pub use local::{DESCRIPTORS_MAX, LocalEnd};
pub use tokio_net::{TokioListener, TokioNet, TokioStream, TokioUdp};

/// A network: datagrams, streams between hosts, streams between processes of one host, and names.
///
/// Cheap to clone; clones are the same network. No method has a deadline of its own: whoever waits
/// for the network sets one, and drops the future when it passes. Every future here may be dropped
/// at any await point without harm to the socket it came from.
pub trait Net: Clone + Send + Sync + 'static {
    /// A datagram socket.
    type Udp: Udp;
    /// A byte stream, whether it comes from TCP or from a local (Unix) socket.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A source of incoming streams, whether TCP or local.
    type Listener: Listener<Stream = Self::Stream>;

    /// Binds a datagram socket; port 0 picks a free port ([`Udp::local_addr`] tells which).
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if another socket has the port,
    /// [`io::ErrorKind::AddrNotAvailable`] if the host does not have the address.
    fn bind_udp(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Udp>> + Send;

    /// Listens for TCP connections; port 0 picks a free port ([`Listener::local_addr`] tells which).
    ///
    /// # Errors
    /// As [`Net::bind_udp`].
    fn listen(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Opens a TCP connection. It may take as long as the peer's silence lasts: set a deadline.
    ///
    /// # Errors
    /// Whatever the system reports, [`io::ErrorKind::ConnectionRefused`] above all.
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Listens on a local socket at `path` for processes of this host. The file goes when the
    /// listener is dropped; one that a killed process left behind is replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if somebody listens there already. Nothing was changed then.
    fn listen_local(&self, path: &Path) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Connects to the local socket at `path`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] if nobody listens,
    /// [`io::ErrorKind::PermissionDenied`] if the file's mode keeps this user out.
    fn connect_local(&self, path: &Path) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Connects to the local socket at `path` for what no byte stream can do, without a task: at once,
    /// or not at all. Calls on what it returns block, each at most for `timeout`.
    ///
    /// # Errors
    /// As [`Net::connect_local`]; [`io::ErrorKind::Unsupported`] on a network without real local
    /// sockets.
    fn connect_end(&self, path: &Path, timeout: Duration) -> io::Result<LocalEnd> {
        let _ = (path, timeout);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Resolves `"host:port"`, a name or an address, to its addresses: at least one, sorted, each
    /// once, so that the same answer from DNS in another order is the same answer.
    ///
    /// # Errors
    /// If the name is unknown or no port is given. Names may resolve later: keep trying.
    fn resolve(&self, name: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// A datagram socket. Shared by reference: several tasks may send while one receives.
pub trait Udp: Send + Sync + 'static {
    /// Receives one datagram into `buf`: its length and its sender. What exceeds `buf` is cut off
    /// silently, so make it as large as the largest message that is allowed plus one byte.
    ///
    /// # Errors
    /// Rare; the socket stays usable. Count it and go on.
    fn recv_from(
        &self,
        buf: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;

    /// Sends `bytes` as one datagram to `to`. Success says nothing about arrival.
    ///
    /// # Errors
    /// If it could not even leave (too large, no route). Nothing was sent then.
    fn send_to(
        &self,
        bytes: &[u8],
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<usize>> + Send;

    /// The address that the socket is bound to, with its real port.
    ///
    /// # Errors
    /// If the system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A source of incoming streams. Dropping it stops listening.
pub trait Listener: Send + 'static {
    /// The streams that it yields.
    type Stream;

    /// Waits for the next connection.
    ///
    /// # Errors
    /// If the process or the host is out of descriptors or memory, for example. The listener stays
    /// usable, but may fail again at once: pause before the next call.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;

    /// Our end of a stream that came in over a real local socket; `None` for all others.
    ///
    /// # Errors
    /// If there is no descriptor left for it.
    fn local_end(stream: &Self::Stream) -> io::Result<Option<LocalEnd>> {
        let _ = stream;
        Ok(None)
    }

    /// The TCP address that it listens on, with its real port.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for a local socket, which has a path instead.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Who is at the other end of an accepted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// A process of this host that could open the socket file.
    Local,
}

#[cfg(test)]
mod tests;
