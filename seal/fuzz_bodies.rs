//! What happens to one input of a fuzzer: nothing may panic, nothing that no holder of a key sealed may
//! be opened, and nothing of it may be remembered. The libFuzzer targets in `fuzz/` and the seeded tests share
//! these bodies.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use annulus_proto::message::Role;
use annulus_seal::datagram::{
    ClientDatagrams, Epoch, FromOutside, INSIDE_BYTES_MAX, MAGIC, NodeReceiver, NodeSender,
    SEAL_VERSION,
};
use annulus_seal::stream::SealedStream;
use annulus_seal::{Key, KeyKind, Keyring};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

const CLUSTER: &str = "fuzz";
const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// The input as a datagram, as what follows the magic of one, as what is sealed in one, and as changes of that.
pub(crate) fn datagram(input: &[u8]) {
    let (ring, worker) = (Arc::new(ring()), Arc::new(worker()));
    let epoch = Epoch::new(7, [7; 6]);
    let sender = Arc::new(NodeSender::new(&ring, CLUSTER, 5, epoch));
    let mut node = NodeReceiver::new(ring.clone(), sender, &[9; 32]);
    let client = ClientDatagrams::new(worker.clone(), CLUSTER, 6, epoch);
    let mut refuse = |datagram: &[u8]| {
        assert!(node.open(1, FROM, datagram).is_err(), "nobody sealed it");
        assert!(client.open(datagram).is_err(), "nobody sealed it");
        assert_eq!(node.senders(), 0);
    };
    refuse(input);
    for key in [node_key().id(), worker.id()] {
        for shape in 0..4 {
            let mut datagram = [&MAGIC[..], &[SEAL_VERSION, shape]].concat();
            datagram.extend_from_slice(&key.bits().to_le_bytes());
            datagram.extend_from_slice(input);
            refuse(&datagram);
        }
    }
    // And once from a real sender, changed by a part of the input.
    let (inside, changes) = input.split_at(input.len() / 2);
    let inside = &inside[..inside.len().min(INSIDE_BYTES_MAX)];
    let other = NodeSender::new(&ring, CLUSTER, 8, epoch);
    let mut sealed = Vec::new();
    other.seal_gossip(inside, &mut sealed).expect("it has counters left");
    let changed: Vec<u8> = xored(&sealed, changes);
    if changed != sealed {
        refuse(&changed);
    }
    let opened = node.open(1, FROM, &sealed);
    assert_eq!(opened, Ok(FromOutside::Gossip { node: 8, inside: inside.to_vec() }));
    assert!(node.open(1, FROM, &sealed).is_err(), "it was taken before");
}

/// The input as either side of a handshake, as records after a real one, and as changes of real records.
pub(crate) fn stream(input: &[u8]) {
    let (key, ring) = (node_key(), ring());
    let answer =
        |tape: &mut Tape| at_once(SealedStream::answer(tape, &ring, CLUSTER, &[2; 32])).is_ok();
    assert!(!answer(&mut Tape::of(&[input])));
    assert!(!answer(&mut Tape::of(&[&MAGIC, &[SEAL_VERSION], input])));
    let id = key.id().bits().to_le_bytes();
    assert!(!answer(&mut Tape::of(&[&MAGIC, &[SEAL_VERSION], &id, input])));
    for start in [&[][..], &MAGIC, &[&MAGIC[..], &[SEAL_VERSION]].concat()] {
        let mut tape = Tape::of(&[start, input]);
        assert!(at_once(SealedStream::call(&mut tape, &key, CLUSTER, &[1; 32])).is_err());
    }

    // What either side says in a real handshake does not depend on when it hears the other.
    let mut caller = Tape::of(&[]);
    let _ = at_once(SealedStream::call(&mut caller, &key, CLUSTER, &[1; 32]));
    let mut answerer = Tape::of(&[&caller.written]);
    assert!(answer(&mut answerer));
    assert_eq!(read(&ring, &[&caller.written, input]), (Vec::new(), false), "nobody sealed it");

    let (said, changes) = input.split_at(input.len() / 2);
    let mut tape = Tape::of(&[&answerer.written]);
    let mut stream = at_once(SealedStream::call(&mut tape, &key, CLUSTER, &[1; 32])).expect("real");
    at_once(stream.write_all(said)).expect("a tape takes all");
    at_once(stream.shutdown()).expect("a tape takes all");
    let records = tape.written.split_off(caller.written.len());
    assert_eq!(read(&ring, &[&caller.written, &records]), (said.to_vec(), true));
    let changed = xored(&records, changes);
    if changed != records {
        let (heard, is_whole) = read(&ring, &[&caller.written, &changed]);
        assert!(said.starts_with(&heard) && !is_whole, "it was changed on its way");
    }
}

/// What the answering side reads of this, and whether it came to a good end.
fn read(ring: &Keyring, parts: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut tape = Tape::of(parts);
    let answered = at_once(SealedStream::answer(&mut tape, ring, CLUSTER, &[2; 32]));
    let (mut stream, _) = answered.expect("a real handshake");
    let mut heard = Vec::new();
    let is_whole = at_once(stream.read_to_end(&mut heard)).is_ok();
    (heard, is_whole)
}

fn node_key() -> Key {
    Key::new(KeyKind::Node, &[1; 32])
}

fn worker() -> Key {
    Key::new(KeyKind::Client(Role::Worker), &[2; 32])
}

fn ring() -> Keyring {
    let mut ring = Keyring::new(node_key()).expect("a key of nodes");
    ring.install(worker()).expect("there is room");
    ring
}

/// The bytes with these ones mixed in, as far as they reach.
fn xored(bytes: &[u8], with: &[u8]) -> Vec<u8> {
    let with = with.iter().copied().chain(std::iter::repeat(0));
    bytes.iter().zip(with).map(|(byte, other)| byte ^ other).collect()
}

/// The result of what waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a tape makes nobody wait"),
    }
}

/// A stream that says what stands on it, and takes down what it is told.
struct Tape {
    unread: Vec<u8>,
    written: Vec<u8>,
}

impl Tape {
    fn of(parts: &[&[u8]]) -> Self {
        Self { unread: parts.concat(), written: Vec::new() }
    }
}

impl AsyncRead for Tape {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.unread.len().min(buf.remaining());
        let rest = self.unread.split_off(count);
        buf.put_slice(&std::mem::replace(&mut self.unread, rest));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tape {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
