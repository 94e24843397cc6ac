//! Frames by hand, right and wrong ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use annulus_proto::codec::{self, CHECK_BYTES, Header};
use annulus_proto::message::{Caller, Hello, Message, Ping, Rejected, Role, SessionRequest};
use annulus_proto::message::{Operation, RequestId};
use annulus_proto::{Hlc, Key, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixStream};

use crate::harness::{CORES, LONG, within};

pub(crate) fn header(id: u64) -> Header {
    Header { id, view: 0, hlc: Hlc::ZERO }
}

pub(crate) fn frame(id: u64, message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_frame(header(id), message, &mut bytes).unwrap();
    bytes
}

pub(crate) fn datagram(cluster: &str, id: u64, message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_datagram(header(id), cluster, message, &mut bytes).unwrap();
    bytes
}

pub(crate) fn hello(cluster: &str, caller: Caller) -> Message {
    Hello { cluster: cluster.to_owned(), caller, software: "hostile".to_owned() }.into()
}

pub(crate) const CLIENT: Caller = Caller::Client { client: 1, role: Role::Development };

pub(crate) fn a_node(id: u64) -> Caller {
    Caller::Node { id: NodeId::from_bits(id), incarnation: 1 }
}

pub(crate) fn get(key: &str) -> Message {
    SessionRequest {
        table: "sessions".to_owned(),
        key: Key::new(key).unwrap(),
        request: RequestId { client: 1, sequence: 1 },
        hops: 0,
        patience_ms: 10_000,
        operation: Operation::Get,
    }
    .into()
}

/// A frame or datagram whose payload was changed, with length and check as they should be.
pub(crate) fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - CHECK_BYTES);
    let length = (bytes.len() + CHECK_BYTES - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let check = codec::check_of(&bytes);
    bytes.extend_from_slice(&check);
    bytes
}

/// A request to read the session under any bytes, possible key or not. `plain` is the same for the
/// key `k`.
pub(crate) fn with_key(plain: &[u8], key: &[u8]) -> Vec<u8> {
    let mark = b"\x08sessions\x01k";
    let at = plain.windows(mark.len()).position(|window| window == mark).unwrap();
    let mut bytes = plain[..at + mark.len() - 2].to_vec();
    match key.len() {
        length @ 0..=250 => bytes.push(length as u8),
        length => {
            bytes.push(251);
            bytes.extend_from_slice(&(length as u16).to_le_bytes());
        }
    }
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&plain[at + mark.len()..]);
    resealed(bytes)
}

/// A stream to a node, without manners.
pub(crate) struct Raw<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl Raw<TcpStream> {
    pub(crate) async fn tcp(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap())
    }
}

impl Raw<UnixStream> {
    pub(crate) async fn local(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Says hello and returns the answer; `None` if the stream was closed without one.
    pub(crate) async fn greet(&mut self, cluster: &str, caller: Caller) -> Option<Message> {
        self.send(&frame(1, &hello(cluster, caller))).await;
        self.next().await.map(|(_, message)| message)
    }

    /// Says hello and is welcome.
    pub(crate) async fn enter(mut self, cluster: &str, caller: Caller) -> Self {
        let answer = self.greet(cluster, caller).await;
        assert!(matches!(answer, Some(Message::Welcome(_))), "{answer:?}");
        self
    }

    /// Sends bytes; what the other side does not want to read any more is lost.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = within(LONG, "bytes are taken", self.stream.write_all(bytes)).await;
    }

    /// The next frame; `None` when the stream was closed.
    pub(crate) async fn next(&mut self) -> Option<(Header, Message)> {
        loop {
            if let Some(length) = codec::frame_length(&self.buffer).unwrap()
                && self.buffer.len() >= length
            {
                let rest = self.buffer.split_off(length);
                let frame = std::mem::replace(&mut self.buffer, rest);
                return Some(codec::decode_frame(&frame).unwrap());
            }
            let read = self.stream.read_buf(&mut self.buffer);
            match within(LONG, "an answer or the end", read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Asks and returns the answer.
    pub(crate) async fn ask(&mut self, id: u64, message: &Message) -> Option<Message> {
        self.send(&frame(id, message)).await;
        loop {
            match self.next().await {
                Some((header, answer)) if header.id == id => return Some(answer),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// The node says why it does not go on, and closes the stream.
    pub(crate) async fn rejection(&mut self) -> Rejected {
        let answer = self.next().await;
        let Some((_, Message::Rejected(rejected))) = answer else {
            panic!("{answer:?} instead of a rejection");
        };
        let after = self.next().await;
        assert!(after.is_none(), "{after:?} after a rejection");
        rejected
    }
}

/// A datagram socket.
pub(crate) struct RawUdp {
    pub(crate) socket: UdpSocket,
    cluster: String,
    fences: u64,
}

impl RawUdp {
    pub(crate) async fn to(addr: SocketAddr, cluster: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(addr).await.unwrap();
        Self { socket, cluster: cluster.to_owned(), fences: FENCES }
    }

    pub(crate) async fn send(&self, bytes: &[u8]) {
        // Loopback takes all of it; what is refused here has not attacked anybody.
        let _ = self.socket.send(bytes).await;
    }

    /// Waits until the node has dealt with everything that was sent, and returns what it answered: each
    /// core and the hub answer what was sent last, and each takes what is for it in order.
    pub(crate) async fn fence(&mut self) -> Vec<Message> {
        let mut unanswered = BTreeMap::new();
        let asked = key_of_each_core().into_iter().map(|key| get(&key));
        for message in asked.chain([Ping {}.into()]) {
            self.fences += 1;
            let fence = datagram(&self.cluster, self.fences, &message);
            unanswered.insert(self.fences, fence);
        }
        let mut answers = Vec::new();
        let mut buffer = [0; 2_048];
        for _ in 0..600 {
            for fence in unanswered.values() {
                self.send(fence).await;
            }
            let pause = Duration::from_millis(100);
            while let Ok(received) =
                tokio::time::timeout(pause, self.socket.recv(&mut buffer)).await
            {
                let Ok(length) = received else { continue };
                let (header, message) =
                    codec::decode_datagram(&buffer[..length], &self.cluster).unwrap();
                if header.id <= FENCES {
                    answers.push(message);
                }
                if unanswered.remove(&header.id).is_some() && unanswered.is_empty() {
                    return answers;
                }
            }
        }
        panic!("the node answers no datagram any more");
    }
}

/// Requests with higher numbers are fences.
const FENCES: u64 = 1 << 40;

/// A key in a slot of each core, of which there are [`CORES`] or one.
fn key_of_each_core() -> Vec<String> {
    let cores = usize::from(CORES.get());
    let is_of = |core: usize, key: &String| {
        usize::from(Key::new(key.as_str()).unwrap().slot().index()) % cores == core
    };
    let key = |core| (0..).map(|n| format!("fence {n}")).find(|key| is_of(core, key)).unwrap();
    (0..cores).map(key).collect()
}
