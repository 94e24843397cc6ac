//! The real network: tokio's sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{
    TcpListener, TcpStream, UdpSocket, UnixListener, UnixSocket, UnixStream, lookup_host,
};

use crate::{Listener, LocalEnd, Net, Peer, Udp};

/// The network of this host, on tokio. Must be used inside a tokio runtime with I/O enabled.
///
/// TCP streams have Nagle's algorithm off: our messages are small and somebody waits for each.
/// A socket bound to an IPv6 wildcard also speaks IPv4, and IPv4 peers then appear with their IPv4
/// address, so that a peer has one address whichever way it came in.
#[derive(Clone, Copy, Debug)]
pub struct TokioNet {
    /// Permission bits of the socket files of [`Net::listen_local`].
    local_mode: u32,
}

impl TokioNet {
    /// A network whose local sockets only this user may open (mode 0600).
    #[must_use]
    pub const fn new() -> Self {
        Self { local_mode: 0o600 }
    }

    /// The same with other permission bits for local sockets, such as 0o660 to let the group in.
    /// Whoever may write the file may connect.
    #[must_use]
    pub const fn with_local_mode(self, local_mode: u32) -> Self {
        Self { local_mode: local_mode & 0o777 }
    }
}

impl Default for TokioNet {
    fn default() -> Self {
        Self::new()
    }
}

impl Net for TokioNet {
    type Udp = TokioUdp;
    type Stream = TokioStream;
    type Listener = TokioListener;

    async fn bind_udp(&self, addr: SocketAddr) -> io::Result<TokioUdp> {
        let socket = UdpSocket::bind(addr)
            .await
            .map_err(|e| named(&e, format_args!("cannot bind udp {addr}")))?;
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        Ok(TokioUdp { socket, is_ipv6 })
    }

    async fn listen(&self, addr: SocketAddr) -> io::Result<TokioListener> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|e| named(&e, format_args!("cannot listen on tcp {addr}")))?;
        Ok(TokioListener(Source::Tcp(listener)))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TokioStream> {
        let stream = TcpStream::connect(addr)
            .await
            .map_err(|e| named(&e, format_args!("cannot connect to tcp {addr}")))?;
        stream.set_nodelay(true)?;
        Ok(TokioStream(Stream::Tcp(stream)))
    }

    /// As the trait says, and: what exists at `path` is removed only if it is a socket that refuses
    /// connections. Two processes that start on one path at the same instant could both find it
    /// stale, so the caller holds a lock that excludes the other if that can happen.
    async fn listen_local(&self, path: &Path) -> io::Result<TokioListener> {
        remove_stale(path).await?;
        let listener = bind_local(path, self.local_mode)
            .map_err(|e| named(&e, format_args!("cannot listen on {}", path.display())))?;
        Ok(TokioListener(Source::Unix(listener)))
    }

    async fn connect_local(&self, path: &Path) -> io::Result<TokioStream> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|e| named(&e, format_args!("cannot connect to {}", path.display())))?;
        Ok(TokioStream(Stream::Unix(stream)))
    }

    fn connect_end(&self, path: &Path, timeout: Duration) -> io::Result<LocalEnd> {
        LocalEnd::connect(path, timeout)
            .map_err(|e| named(&e, format_args!("cannot connect to {}", path.display())))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let mut addrs: Vec<SocketAddr> = lookup_host(name)
            .await
            .map_err(|e| named(&e, format_args!("cannot resolve {name:?} as host:port")))?
            .collect();
        addrs.sort_unstable();
        addrs.dedup();
        if addrs.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{name:?} resolves to no address"),
            ));
        }
        Ok(addrs)
    }
}

/// A UDP socket.
#[derive(Debug)]
pub struct TokioUdp {
    socket: UdpSocket,
    is_ipv6: bool,
}

impl Udp for TokioUdp {
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, from) = self.socket.recv_from(buf).await?;
        Ok((len, canonical(from)))
    }

    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let to = match to.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => (ip.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        };
        self.socket.send_to(bytes, to).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A listening TCP or Unix socket.
#[derive(Debug)]
pub struct TokioListener(Source);

#[derive(Debug)]
enum Source {
    Tcp(TcpListener),
    Unix(LocalListener),
}

impl Listener for TokioListener {
    type Stream = TokioStream;

    async fn accept(&mut self) -> io::Result<(TokioStream, Peer)> {
        match &self.0 {
            Source::Tcp(listener) => loop {
                let (stream, from) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    // The peer gave up while it queued: no trouble of ours.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(e) => return Err(e),
                };
                if stream.set_nodelay(true).is_ok() {
                    return Ok((TokioStream(Stream::Tcp(stream)), Peer::Tcp(canonical(from))));
                }
            },
            Source::Unix(local) => {
                let (stream, _) = local.listener.accept().await?;
                Ok((TokioStream(Stream::Unix(stream)), Peer::Local))
            }
        }
    }

    fn local_end(stream: &TokioStream) -> io::Result<Option<LocalEnd>> {
        match &stream.0 {
            Stream::Tcp(_) => Ok(None),
            Stream::Unix(stream) => LocalEnd::of(stream).map(Some),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Source::Tcp(listener) => listener.local_addr(),
            Source::Unix(local) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{} is a local socket and has no TCP address", local.path.display()),
            )),
        }
    }
}

/// A TCP or Unix stream.
#[derive(Debug)]
pub struct TokioStream(Stream);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Hands a poll on to whichever stream is inside.
macro_rules! on_inner {
    ($self:ident, $method:ident($($arg:expr),*)) => {
        match &mut $self.get_mut().0 {
            Stream::Tcp(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($arg),*),
        }
    };
}

impl AsyncRead for TokioStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_inner!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for TokioStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_inner!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_inner!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, poll_shutdown(cx))
    }
}

/// A listening Unix socket that owns its file.
#[derive(Debug)]
struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that we made.
    identity: (u64, u64),
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // Somebody may have replaced the file. Ours can't have been given the same inode number
        // again, since `listener`, which drops after this body, still holds the inode.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // At worst the file stays, and the next to listen here finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn bind_local(path: &Path, mode: u32) -> io::Result<LocalListener> {
    let socket = UnixSocket::new_stream()?;
    // On Linux the file takes the mode of the unbound socket, less the umask, so nobody gets in
    // between bind and chmod. The chmod then adds what the umask took.
    fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(path)?;
    let identity = identity(&fs::symlink_metadata(path)?);
    let listen = || {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        socket.listen(LOCAL_BACKLOG)
    };
    match listen() {
        Ok(listener) => Ok(LocalListener { listener, path: path.to_owned(), identity }),
        Err(e) => {
            let _ = fs::remove_file(path);
            Err(e)
        }
    }
}

/// Removes the socket file of a process that is gone; leaves everything else alone, with an error.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(named(&e, format_args!("cannot look at {}", path.display()))),
    };
    // A connect to an ordinary file is refused as well, so ask for the type first.
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{} exists and is not a socket; remove it or choose another path",
                path.display()
            ),
        ));
    }
    match UnixStream::connect(path).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(named(&e, format_args!("cannot remove the stale socket {}", path.display())))
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // `WouldBlock`: its queue is full, so somebody does listen.
        Ok(_) => Err(in_use(path)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(in_use(path)),
        Err(e) => Err(named(&e, format_args!("cannot tell whether {} is in use", path.display()))),
    }
}

fn in_use(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::AddrInUse,
        format!(
            "another process is listening on {}; stop it or choose another path",
            path.display()
        ),
    )
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// IPv4 in IPv6 as IPv4; everything else as it is.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// The same kind of error, saying what was tried.
fn named(error: &io::Error, what: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Local connections that may wait to be accepted, as for TCP in tokio.
const LOCAL_BACKLOG: u32 = 1024;
