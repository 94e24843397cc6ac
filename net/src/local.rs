//! What local sockets can do beyond carrying bytes: pass descriptors, and tell who is there.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// One end of a connection over a local socket. It closes when all of its descriptors have.
#[derive(Debug)]
pub struct LocalEnd {
    socket: OwnedFd,
}

/// The most descriptors that one message carries here; Linux lets 253 through.
pub const DESCRIPTORS_MAX: usize = 128;

impl LocalEnd {
    /// Connects to the local socket at `path`, at once or not at all. From then on each call blocks,
    /// at most for `timeout`.
    ///
    /// # Errors
    /// As [`Net::connect_local`](crate::Net::connect_local).
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        // Whoever has more callers than it accepts is not waited for.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        for direction in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&socket, direction, Some(timeout))?;
        }
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(Self { socket })
    }

    /// Another descriptor of an open connection.
    pub(crate) fn of(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self { socket: stream.as_fd().try_clone_to_owned()? })
    }

    /// The user of the process that connected, or that listens, as the kernel tells.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn peer_user(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.socket)?.uid.as_raw())
    }

    /// Sends bytes, and descriptors (at most [`DESCRIPTORS_MAX`]) with them, all or nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the other side has left too much unread; whatever the
    /// system reports otherwise. The connection is of no use then.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        if !descriptors.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(fits, "there is room for as many as were let through");
        }
        let parts = [IoSlice::new(bytes)];
        let sent = rustix::net::sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        if sent < bytes.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// Receives some bytes into `bytes`, and the descriptors that came with them: how many bytes, 0
    /// at the end of the stream. Descriptors beyond [`DESCRIPTORS_MAX`] are closed unseen.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing came in time; whatever the system reports.
    pub fn receive(&self, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        Ok(received.bytes)
    }

    /// Whether the other side still holds the connection open. Bytes that wait stay there.
    pub fn is_open(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.socket, &mut [0; 1], flags) {
            Ok((_, size)) => size > 0,
            Err(error) => error == rustix::io::Errno::WOULDBLOCK,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pair() -> (tempfile::TempDir, LocalEnd, LocalEnd) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let ours = LocalEnd::connect(&dir.path().join("socket"), LONG).unwrap();
        let theirs = LocalEnd::of(listener.accept().unwrap().0).unwrap();
        (dir, ours, theirs)
    }

    #[test]
    fn descriptors_pass_with_the_bytes() {
        let (dir, ours, theirs) = pair();
        std::fs::write(dir.path().join("file"), "passed").unwrap();
        let file = std::fs::File::open(dir.path().join("file")).unwrap();
        theirs.send(b"two of them", &[file.as_fd(), file.as_fd()]).unwrap();
        let (mut bytes, mut descriptors) = ([0; 64], Vec::new());
        assert_eq!(ours.receive(&mut bytes, &mut descriptors).unwrap(), 11);
        assert_eq!(&bytes[..11], b"two of them");
        assert_eq!(descriptors.len(), 2);
        let mut passed = std::fs::File::from(descriptors.remove(1));
        assert_eq!(io::read_to_string(&mut passed).unwrap(), "passed");
        assert!(theirs.send(b"", &[file.as_fd(); DESCRIPTORS_MAX + 1]).is_err());
    }

    #[test]
    fn the_other_side_is_known_and_missed() {
        let (_dir, ours, theirs) = pair();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(ours.peer_user().unwrap(), me);
        assert_eq!(theirs.peer_user().unwrap(), me);
        theirs.send(b"a byte or two", &[]).unwrap();
        assert!(ours.is_open());
        assert_eq!(ours.receive(&mut [0; 64], &mut Vec::new()).unwrap(), 13);
        assert!(ours.is_open());
        drop(theirs);
        assert!(!ours.is_open());
    }
}
