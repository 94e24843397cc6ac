//! turmoil's network behind the seam that node and client use.

use std::hash::Hasher;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use annulus_net::{Listener, Net, Peer, Udp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};
use twox_hash::XxHash3_64;

use crate::trace;

/// The simulated network as one host sees it. Whatever is sent and received goes into the trace.
///
/// Unix sockets become TCP on a port derived from their path, which is `/sim/HOST/…`. A process that
/// "runs on" a host is a simulated host of its own, so that it survives a crash of the node; its
/// local connections go over the simulated network all the same, without the faults of others.
#[derive(Clone, Debug)]
pub struct TurmoilNet {
    host: Arc<str>,
}

impl TurmoilNet {
    /// The network of the simulated host with this name.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { host: host.into() }
    }
}

impl Net for TurmoilNet {
    type Udp = SimUdp;
    type Stream = SimStream;
    type Listener = SimListener;

    async fn bind_udp(&self, addr: SocketAddr) -> io::Result<SimUdp> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await?;
        Ok(SimUdp { socket, host: self.host.clone() })
    }

    async fn listen(&self, addr: SocketAddr) -> io::Result<SimListener> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await?;
        Ok(SimListener { listener, host: self.host.clone(), is_local: false })
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<SimStream> {
        let stream = TcpStream::connect(addr).await?;
        Ok(SimStream { stream, host: self.host.clone() })
    }

    async fn listen_local(&self, path: &Path) -> io::Result<SimListener> {
        let addr = (Ipv4Addr::UNSPECIFIED, local_port(path));
        let listener = TcpListener::bind(addr).await?;
        Ok(SimListener { listener, host: self.host.clone(), is_local: true })
    }

    async fn connect_local(&self, path: &Path) -> io::Result<SimStream> {
        let host = host_of(path).ok_or(io::ErrorKind::NotFound)?;
        self.connect((turmoil::lookup(host), local_port(path)).into()).await
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(addr) = name.parse() {
            return Ok(vec![addr]);
        }
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} has no port"));
        let (host, port) = name.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        Ok(vec![(turmoil::lookup(host), port).into()])
    }
}

fn local_port(path: &Path) -> u16 {
    let hash = XxHash3_64::oneshot(path.as_os_str().as_encoded_bytes());
    20_000 + (hash % 10_000) as u16
}

fn host_of(path: &Path) -> Option<&str> {
    path.strip_prefix("/sim").ok()?.iter().next()?.to_str()
}

/// A simulated datagram socket.
#[derive(Debug)]
pub struct SimUdp {
    socket: UdpSocket,
    host: Arc<str>,
}

impl Udp for SimUdp {
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, from) = self.socket.recv_from(buf).await?;
        note(&self.host, "udp <-", Some(from), &buf[..len]);
        Ok((len, from))
    }

    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        note(&self.host, "udp ->", Some(to), bytes);
        self.socket.send_to(bytes, to).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A simulated source of streams.
pub struct SimListener {
    listener: TcpListener,
    host: Arc<str>,
    is_local: bool,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, Peer)> {
        let (stream, from) = self.listener.accept().await?;
        let peer = if self.is_local { Peer::Local } else { Peer::Tcp(from) };
        Ok((SimStream { stream, host: self.host.clone() }, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.is_local {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => self.listener.local_addr(),
        }
    }
}

/// A simulated stream.
#[derive(Debug)]
pub struct SimStream {
    stream: TcpStream,
    host: Arc<str>,
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_ready() {
            let peer = this.stream.peer_addr().ok();
            note(&this.host, "tcp <-", peer, &buf.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = &polled {
            note(&this.host, "tcp ->", this.stream.peer_addr().ok(), &bytes[..*len]);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn note(host: &str, what: &str, peer: Option<SocketAddr>, bytes: &[u8]) {
    let mut hash = XxHash3_64::with_seed(0);
    hash.write(bytes);
    let (len, hash) = (bytes.len(), hash.finish());
    match peer {
        Some(peer) => trace::line(format_args!("{host} {what} {peer} {len} {hash:016x}")),
        None => trace::line(format_args!("{host} {what} ? {len} {hash:016x}")),
    }
}
