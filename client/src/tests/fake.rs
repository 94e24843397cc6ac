//! A node that says what a test makes it say.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use annulus_net::{Listener, Net, SystemClock, TokioNet, Udp};
use annulus_proto::codec::{self, HEADER_BYTES, Header};
use annulus_proto::message::{
    Acknowledged, Hello, Message, Operation, Peer, Peers, Pong, Rejected, RouteNode, Routes,
    Segment, Session, SessionReply, SessionRequest, Welcome,
};
use annulus_proto::{Attributes, Hlc, NodeId, SLOT_COUNT, Value, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{Builder, Client};

pub(super) const CLUSTER: &str = "annulus";

/// What a fake node does besides handing requests to its test.
#[derive(Clone, Default)]
pub(super) struct Script {
    pub(super) reject: Option<Rejected>,
    pub(super) instead_of_welcome: Option<Vec<u8>>,
    pub(super) segments: Vec<Segment>,
    /// How far it says that others are.
    pub(super) peers: Vec<Peer>,
}

pub(super) struct FakeNode {
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
    /// Requests that came, but for pings, peers and routes, which it answers itself.
    pub(super) arrived: mpsc::UnboundedReceiver<Arrived>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    id: NodeId,
    script: Script,
    streams: AtomicUsize,
    routes: Mutex<Option<Routes>>,
    arrived: mpsc::UnboundedSender<Arrived>,
}

/// A request, and how to answer it.
pub(super) struct Arrived {
    pub(super) header: Header,
    pub(super) message: Message,
    /// Whether it came as a datagram, and from where.
    pub(super) from: Option<SocketAddr>,
    /// The number of the stream that it came over, from 1.
    pub(super) stream: usize,
    answers: mpsc::UnboundedSender<Vec<u8>>,
}

impl Arrived {
    pub(super) fn session(&self) -> &SessionRequest {
        match &self.message {
            Message::SessionRequest(request) => request,
            other => panic!("a request about a session, not {}", other.name()),
        }
    }

    pub(super) fn answer(&self, message: impl Into<Message>) {
        self.answer_from_view(0, message);
    }

    pub(super) fn answer_from_view(&self, view: u64, message: impl Into<Message>) {
        let header = Header { id: self.header.id, view, hlc: Hlc::ZERO };
        let mut bytes = Vec::new();
        let message = message.into();
        if self.from.is_some() {
            codec::encode_datagram(header, CLUSTER, &message, &mut bytes).unwrap();
        } else {
            codec::encode_frame(header, &message, &mut bytes).unwrap();
        }
        self.answer_bytes(bytes);
    }

    /// The client may be gone by now.
    pub(super) fn answer_bytes(&self, bytes: Vec<u8>) {
        let _ = self.answers.send(bytes);
    }

    /// Closes the stream that it came over.
    pub(super) fn hang_up(&self) {
        self.answer_bytes(Vec::new());
    }

    /// Waits until that stream is closed.
    pub(super) async fn closed(&self) {
        self.answers.closed().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.answers.is_closed()
    }

    pub(super) fn acknowledge(&self, version: Version) {
        let birth = birth();
        let acknowledged = Acknowledged { birth, version, held_by: 1, homes: 1 };
        self.answer(SessionReply::Acknowledged(acknowledged));
    }
}

impl FakeNode {
    pub(super) async fn start(id: u64) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), id, Script::default()).await
    }

    pub(super) async fn with(id: u64, script: Script) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), id, script).await
    }

    pub(super) async fn start_at(addr: SocketAddr, id: u64, script: Script) -> Self {
        let net = TokioNet::new();
        let (mut listener, udp) = loop {
            let listener = net.listen(addr).await.unwrap();
            // Another test may have the datagram port of that number.
            if let Ok(udp) = net.bind_udp(listener.local_addr().unwrap()).await {
                break (listener, udp);
            }
        };
        let addr = listener.local_addr().unwrap();
        let (sender, arrived) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            id: NodeId::from_bits(id),
            script,
            streams: AtomicUsize::new(0),
            routes: Mutex::new(None),
            arrived: sender,
        });
        let mut tasks = JoinSet::new();
        let streams = shared.clone();
        tasks.spawn(async move { accept(&mut listener, streams).await });
        tasks.spawn(datagrams(Arc::new(udp), shared.clone()));
        Self { id: shared.id, addr, arrived, shared, tasks }
    }

    pub(super) async fn also_at(&mut self, path: &Path) {
        let mut listener = TokioNet::new().listen_local(path).await.unwrap();
        let shared = self.shared.clone();
        self.tasks.spawn(async move { accept(&mut listener, shared).await });
    }

    /// Stops, with all its streams, and returns when that is done.
    pub(super) async fn stop(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.addr
    }

    /// How many streams shook hands so far.
    pub(super) fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    pub(super) fn set_routes(&self, routes: Routes) {
        *self.shared.routes.lock().unwrap() = Some(routes);
    }

    pub(super) async fn next(&mut self) -> Arrived {
        self.arrived.recv().await.expect("the node runs")
    }

    pub(super) fn seed(&self) -> String {
        self.addr.to_string()
    }

    pub(super) fn route(&self) -> RouteNode {
        RouteNode { id: self.id, name: self.id.to_string(), addr: self.addr }
    }
}

/// Routes by which the first of `nodes` is every slot's primary, and the others are its secondaries.
pub(super) fn routes(view: u64, nodes: &[&FakeNode]) -> Routes {
    let homes = (0..SLOT_COUNT).flat_map(|_| 0..nodes.len() as u16).collect();
    Routes {
        view,
        nodes: nodes.iter().map(|node| node.route()).collect(),
        homes_per_slot: nodes.len() as u8,
        homes,
    }
}

pub(super) fn builder(seeds: impl IntoIterator<Item = String>) -> Builder<TokioNet, SystemClock> {
    Builder::new(TokioNet::new(), SystemClock, 77).seeds(seeds).without_shared_memory()
}

pub(super) async fn client(node: &FakeNode) -> Client {
    builder([node.seed()]).connect().await.unwrap()
}

/// A client that knows its routes.
pub(super) async fn routed(builder: Builder<TokioNet, SystemClock>) -> Client {
    let client = builder.connect().await.unwrap();
    client.locate("any").await.unwrap();
    client
}

pub(super) fn version(ms: u64) -> Version {
    Version::new(Hlc::from_ms(ms), NodeId::from_bits(9))
}

pub(super) fn birth() -> Version {
    version(1)
}

pub(super) fn session(value: &[u8]) -> SessionReply {
    SessionReply::Session(Session {
        birth: birth(),
        version: version(2),
        deadline: 0,
        touched: 0,
        idle: 0,
        expire_at: 0,
        attributes: Attributes::default(),
        pin: None,
        field_deadlines: Default::default(),
        value: Value::Bytes(value.to_vec()),
    })
}

/// Answers a read with the key it asks for.
pub(super) fn echo(arrived: &Arrived) {
    let request = arrived.session();
    assert_eq!(request.operation, Operation::Get);
    arrived.answer(session(request.key.as_bytes()));
}

async fn accept<L>(listener: &mut L, shared: Arc<Shared>)
where
    L: Listener,
    L::Stream: AsyncReadExt + AsyncWriteExt + Unpin + Send + 'static,
{
    let mut streams = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        streams.spawn(serve(stream, shared.clone()));
    }
}

async fn serve<S>(mut stream: S, shared: Arc<Shared>)
where
    S: AsyncReadExt + AsyncWriteExt + Unpin + Send + 'static,
{
    let Some((header, Message::Hello(hello))) = read_frame(&mut stream).await else { return };
    let number = shared.streams.fetch_add(1, Ordering::Relaxed) + 1;
    let mut first = Vec::new();
    let reply = Header { id: header.id, view: 0, hlc: Hlc::ZERO };
    codec::encode_frame(reply, &shared.greet(&hello), &mut first).unwrap();
    if let Some(bytes) = &shared.script.instead_of_welcome {
        first.clone_from(bytes);
    }
    if stream.write_all(&first).await.is_err() || shared.script.reject.is_some() {
        return;
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (answers, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let read = async {
        while let Some((header, message)) = read_frame(&mut reader).await {
            let answers = answers.clone();
            let arrived = Arrived { header, message, from: None, stream: number, answers };
            shared.take(arrived);
        }
    };
    let write = async {
        while let Some(bytes) = queue.recv().await {
            // An empty answer closes the stream.
            if bytes.is_empty() || writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = read => (), () = write => () }
}

async fn read_frame<R: AsyncReadExt + Unpin>(stream: &mut R) -> Option<(Header, Message)> {
    let mut frame = vec![0; HEADER_BYTES];
    stream.read_exact(&mut frame).await.ok()?;
    let length = codec::frame_length(&frame).unwrap().unwrap();
    frame.resize(length, 0);
    stream.read_exact(&mut frame[HEADER_BYTES..]).await.ok()?;
    Some(codec::decode_frame(&frame).unwrap())
}

async fn datagrams<U: Udp>(udp: Arc<U>, shared: Arc<Shared>) {
    let mut buffer = [0; 2048];
    let mut senders = JoinSet::new();
    loop {
        let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
        let (header, message) = codec::decode_datagram(&buffer[..length], CLUSTER).unwrap();
        let (answers, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let socket = udp.clone();
        senders.spawn(async move {
            while let Some(bytes) = queue.recv().await {
                socket.send_to(&bytes, from).await.unwrap();
            }
        });
        shared.take(Arrived { header, message, from: Some(from), stream: 0, answers });
    }
}

impl Shared {
    fn greet(&self, hello: &Hello) -> Message {
        match &self.script.reject {
            Some(reason) => reason.clone().into(),
            None => Welcome {
                node: self.id,
                incarnation: 1,
                name: format!("node-{}", self.id.bits()),
                host: "here".to_owned(),
                segments: self.script.segments.clone(),
                local_socket: String::new(),
                software: hello.software.clone(),
            }
            .into(),
        }
    }

    fn take(&self, arrived: Arrived) {
        match &arrived.message {
            Message::Ping(_) => {
                let view = self.routes.lock().unwrap().as_ref().map_or(0, |routes| routes.view);
                arrived.answer_from_view(view, Pong { node: self.id });
            }
            Message::PeersRequest(_) => {
                let peers = self.script.peers.clone();
                arrived.answer(Peers { node: self.id, view: 0, local_health: 0, peers });
            }
            Message::RoutesRequest(_) => {
                let routes = self.routes.lock().unwrap().clone();
                let none =
                    Routes { view: 0, nodes: Vec::new(), homes_per_slot: 0, homes: Vec::new() };
                let routes = routes.unwrap_or(none);
                arrived.answer_from_view(routes.view, routes);
            }
            // The test may have ended already.
            _ => drop(self.arrived.send(arrived)),
        }
    }
}
