//! A node with a keyring, and those who have no key, a wrong one, or recordings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annulus_client::{
    Client, ClusterKey, KeyChange, KeyKind, KeyOrdered, KeyText, StartOptions, Via,
};
use annulus_node::NodeSettings;
use annulus_proto::codec;
use annulus_proto::message::{
    Caller, Gossip, Message, Operation, Ping, Rejected, RequestId, Role, StatusRequest,
};
use annulus_seal::Keyring;
use annulus_seal::datagram::{
    ClientDatagrams, Cookie, Epoch, FromNode, NodeSender, QUESTION_INSIDE_BYTES_MAX,
};
use annulus_seal::stream::{CallError, SealedStream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::harness::{
    LONG, Node, assert_all_there, assert_no_panics, bytes, counted, counter, settings, store,
    until, within,
};
use crate::wire::{CLIENT, Raw, a_node, datagram, get, header};

pub(crate) fn node_key(number: u8) -> ClusterKey {
    ClusterKey::new(KeyKind::Node, &[number; 32])
}

fn client_key(role: Role) -> ClusterKey {
    ClusterKey::new(KeyKind::Client(role), &[role as u8; 32])
}

pub(crate) fn ring() -> Keyring {
    let mut ring = Keyring::new(node_key(1)).unwrap();
    ring.install(client_key(Role::Authority)).unwrap();
    ring.install(client_key(Role::Worker)).unwrap();
    ring
}

/// A node for tests that takes nothing but what is sealed with the keys above.
pub(crate) fn sealed(dir: &Path) -> NodeSettings {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("keyring");
    if !path.exists() {
        std::fs::write(&path, ring().reveal().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    NodeSettings { keyring: Some(path), ..settings(dir) }
}

/// Over the local socket, where no key is needed.
pub(crate) async fn local(node: &Node) -> Client {
    let builder = Client::builder().cluster(&node.cluster).local_socket(node.socket());
    builder.via(Via::Local).without_shared_memory().connect().await.unwrap()
}

async fn remote(node: &Node, role: Role, via: Via) -> Client {
    let builder = Client::builder().cluster(&node.cluster).seed(node.addr().to_string()).via(via);
    builder.key(client_key(role)).without_shared_memory().connect().await.unwrap()
}

pub(crate) type Stream = SealedStream<TcpStream>;

pub(crate) async fn call(
    node: &Node,
    key: &ClusterKey,
    cluster: &str,
) -> Result<Stream, CallError> {
    let stream = TcpStream::connect(node.addr()).await.unwrap();
    let ephemeral = rand::random();
    let called = SealedStream::call(stream, key, cluster, &ephemeral);
    within(LONG, "an answer or the end", called).await
}

/// A client's datagrams, with none of its manners.
struct RawClient {
    socket: UdpSocket,
    seal: ClientDatagrams,
    cookie: Option<Cookie>,
}

impl RawClient {
    async fn new(node: &Node, role: Role, number: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(node.addr()).await.unwrap();
        let epoch = Epoch::new(number, [0; 6]);
        let key = Arc::new(client_key(role));
        let seal = ClientDatagrams::new(key, &node.cluster, number, epoch);
        Self { socket, seal, cookie: None }
    }

    fn question(&self, message: &Message) -> Vec<u8> {
        let (mut inside, mut out) = (Vec::new(), Vec::new());
        codec::encode_inside(header(7), message, QUESTION_INSIDE_BYTES_MAX, &mut inside).unwrap();
        self.seal.seal(self.cookie, &inside, &mut out).unwrap();
        out
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 2_000];
        let length = within(LONG, "a datagram", self.socket.recv(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The answer to a question; cookies on the way are kept.
    async fn ask(&mut self, message: &Message) -> Message {
        loop {
            self.socket.send(&self.question(message)).await.unwrap();
            match self.seal.open(&self.receive().await).unwrap() {
                FromNode::Cookie(cookie) => self.cookie = Some(cookie),
                FromNode::Answer { inside, .. } => return codec::decode_inside(&inside).unwrap().1,
            }
        }
    }
}

#[tokio::test]
async fn a_sealed_node_serves_those_with_a_key_over_streams_and_datagrams() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    store(&remote(&node, Role::Authority, Via::Tcp).await, 20).await;
    for via in [Via::Tcp, Via::Udp] {
        assert_all_there(&remote(&node, Role::Worker, via).await, 20).await;
    }
    let watcher = local(&node).await;
    assert_all_there(&watcher, 20).await;
    let status = watcher.any_node().status().await.unwrap();
    // One challenge for the client over UDP, and nothing that was taken for an attack.
    assert_eq!(counter(&status, "clients_challenged"), 1);
    assert!(status.counters.iter().all(|(name, _)| !name.starts_with("sealed_")), "{status:?}");
    node.stop().await;
}

#[tokio::test]
async fn what_comes_in_clear_is_counted_and_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    for caller in [CLIENT, a_node(5)] {
        let mut tcp = Raw::tcp(node.addr()).await;
        assert_eq!(tcp.greet(&node.cluster, caller).await, None);
    }
    counted(&watcher, "streams_not_sealed", 2).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(node.addr()).await.unwrap();
    for message in [Ping {}.into(), get("k"), Gossip { packet: vec![1; 40] }.into()] {
        socket.send(&datagram(&node.cluster, 1, &message)).await.unwrap();
    }
    counted(&watcher, "sealed_foreign", 3).await;
    // All are counted, so an answer would have come before.
    assert!(socket.try_recv(&mut [0; 100]).is_err());
    node.stop().await;
}

#[tokio::test]
async fn other_keys_and_other_clusters_are_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    let called = call(&node, &node_key(9), &node.cluster).await;
    assert!(matches!(called, Err(CallError::Closed(_))), "{called:?}");
    counted(&watcher, "streams_with_unknown_key", 1).await;
    let called = call(&node, &node_key(1), "elsewhere").await;
    assert!(matches!(called, Err(CallError::Closed(_))), "{called:?}");
    counted(&watcher, "streams_not_authentic", 1).await;
    // A packet of a member of another cluster, and one under another key.
    let epoch = Epoch::new(1, [0; 6]);
    let other = Keyring::new(node_key(9)).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (ring, cluster) in [(&ring(), "elsewhere"), (&other, &node.cluster)] {
        let mut out = Vec::new();
        NodeSender::new(ring, cluster, 5, epoch).seal_gossip(&[0; 50], &mut out).unwrap();
        socket.send_to(&out, node.addr()).await.unwrap();
    }
    counted(&watcher, "sealed_with_bad_tag", 1).await;
    counted(&watcher, "sealed_with_unknown_key", 1).await;
    node.stop().await;
}

#[tokio::test]
async fn a_key_of_clients_makes_no_node_and_no_other_role() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    let (worker, cluster) = (client_key(Role::Worker), &node.cluster);
    let asks = |role| Caller::Client { client: 1, role };
    let not_with = |asked: &str, key: &str| {
        Some(Message::Rejected(Rejected::NotWithThisKey { asked: asked.into(), key: key.into() }))
    };
    let welcome = "Welcome";
    for (key, caller, expected) in [
        (&worker, a_node(5), not_with("node", "worker")),
        (&worker, asks(Role::Authority), not_with("authority", "worker")),
        (&worker, asks(Role::Operator), not_with("operator", "worker")),
        (&worker, asks(Role::Worker), None),
        (&worker, asks(Role::Development), None),
        (&node_key(1), asks(Role::Development), not_with("development", "node")),
        (&node_key(1), asks(Role::Worker), not_with("worker", "node")),
        (&node_key(1), a_node(5), None),
    ] {
        let mut raw = Raw::over(call(&node, key, cluster).await.unwrap());
        let answer = raw.greet(cluster, caller).await.unwrap();
        match expected {
            Some(expected) => assert_eq!(answer, expected, "{caller:?}"),
            None => assert_eq!(answer.name(), welcome, "{caller:?}"),
        }
    }
    counted(&watcher, "roles_not_granted", 5).await;
    // Whoever asks for everything gets what its key is for.
    let client = remote(&node, Role::Worker, Via::Tcp).await;
    let refused = client.start("k", bytes("v"), StartOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("worker"), "{refused}");
    let mut raw = RawClient::new(&node, Role::Worker, 3).await;
    let started = raw.ask(&start("k")).await;
    assert!(format!("{started:?}").contains("Refused"), "{started:?}");
    // A membership packet from a client is not taken for one.
    raw.socket.send(&raw.question(&Gossip { packet: vec![1; 40] }.into())).await.unwrap();
    counted(&watcher, "sealed_out_of_place", 1).await;
    let status = watcher.any_node().status().await.unwrap();
    assert_eq!(counter(&status, "mesh_packets_in"), 0);
    node.stop().await;
}

#[tokio::test]
async fn nobody_is_answered_in_anothers_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    watcher.start("k", bytes("v"), StartOptions::default()).await.unwrap();
    // A worker takes the id under which an authority will end a session.
    let request = |operation| {
        let Message::SessionRequest(mut request) = get("k") else { unreachable!() };
        (request.request, request.operation) = (RequestId { client: 3, sequence: 9 }, operation);
        Message::from(request)
    };
    let touch = request(Operation::Touch { birth: None });
    let mut worker = RawClient::new(&node, Role::Worker, 4).await;
    let refused = worker.ask(&touch).await;
    let Message::Rejected(Rejected::Malformed { why }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("as of client 3 came from client 4"), "{why}");
    let key = client_key(Role::Worker);
    let mut stream = Raw::over(call(&node, &key, &node.cluster).await.unwrap());
    stream.greet(&node.cluster, Caller::Client { client: 4, role: Role::Worker }).await.unwrap();
    let refused = stream.ask(2, &touch).await;
    assert!(matches!(refused, Some(Message::Rejected(Rejected::Malformed { .. }))), "{refused:?}");
    counted(&watcher, "requests_in_anothers_name", 2).await;
    let mut authority = RawClient::new(&node, Role::Authority, 3).await;
    authority.ask(&request(Operation::End { birth: None })).await;
    assert!(watcher.get("k").await.is_err(), "it was ended");
    node.stop().await;
}

fn start(key: &str) -> Message {
    let Message::SessionRequest(mut request) = get(key) else { unreachable!() };
    request.operation = Operation::Start {
        value: bytes("v"),
        lifetimes: Default::default(),
        attributes: Default::default(),
    };
    // Never remembered by the node: if it came twice, it would be done twice.
    request.request = RequestId { client: 3, sequence: 0 };
    request.into()
}

#[tokio::test]
async fn a_recorded_question_is_carried_out_once_whatever_becomes_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    let mut raw = RawClient::new(&node, Role::Authority, 3).await;
    raw.ask(&Ping {}.into()).await;
    let recorded = raw.question(&start("once"));
    raw.socket.send(&recorded).await.unwrap();
    raw.receive().await;
    let first = watcher.get("once").await.unwrap().session.birth;
    for _ in 0..3 {
        raw.socket.send(&recorded).await.unwrap();
    }
    counted(&watcher, "sealed_replayed", 3).await;
    // In another order than they were sealed in.
    let questions: Vec<_> = (0..50).map(|_| raw.question(&Ping {}.into())).collect();
    for question in questions.iter().rev() {
        raw.socket.send(question).await.unwrap();
        assert!(matches!(raw.seal.open(&raw.receive().await), Ok(FromNode::Answer { .. })));
    }
    assert_eq!(watcher.get("once").await.unwrap().session.birth, first);
    drop(watcher);
    let listen = node.addr();
    node.stop().await;

    let node = Node::start(NodeSettings { listen, ..sealed(dir.path()) }).await;
    let watcher = local(&node).await;
    raw.socket.send(&recorded).await.unwrap();
    let answer = raw.seal.open(&raw.receive().await);
    assert!(matches!(answer, Ok(FromNode::Cookie(_))), "{answer:?}");
    assert_eq!(watcher.get("once").await.unwrap().session.birth, first);
    node.stop().await;
}

#[tokio::test]
async fn who_has_proven_nothing_is_sent_less_than_came() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    let raw = RawClient::new(&node, Role::Worker, 3).await;
    let shortest = {
        let mut out = Vec::new();
        raw.seal.seal(None, &[], &mut out).unwrap();
        out
    };
    let status = raw.question(&StatusRequest {}.into());
    for question in [shortest, status] {
        raw.socket.send(&question).await.unwrap();
        let challenge = raw.receive().await;
        assert!(challenge.len() <= question.len(), "{} > {}", challenge.len(), question.len());
        assert!(matches!(raw.seal.open(&challenge), Ok(FromNode::Cookie(_))));
    }
    counted(&watcher, "clients_challenged", 2).await;
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_what_nobody_sealed_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    let client = remote(&node, Role::Authority, Via::Udp).await;
    store(&client, 10).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let template = RawClient::new(&node, Role::Worker, 3).await.question(&get("k"));
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        // A known key, and any sender, epoch, counter, cookie and content.
        let mut forged = template.clone();
        rng.fill(&mut forged[9..]);
        socket.send_to(&forged, node.addr()).await.unwrap();
    }
    counted(&watcher, "sealed_with_bad_tag", 1_000).await;
    assert!(socket.try_recv(&mut [0; 100]).is_err(), "a stranger was answered");
    assert_all_there(&client, 10).await;
    // Streams that say nothing, and such that say nonsense.
    let mut held = Vec::new();
    for number in 0..200u32 {
        let mut tcp = TcpStream::connect(node.addr()).await.unwrap();
        let mut first = b"ANS\x01".to_vec();
        first.extend_from_slice(&client_key(Role::Worker).id().to_bytes());
        first.extend((0..number % 80).map(|_| rng.random::<u8>()));
        tcp.write_all(&first).await.unwrap();
        held.push(tcp);
    }
    assert_all_there(&remote(&node, Role::Worker, Via::Tcp).await, 10).await;
    node.stop().await;
    assert_no_panics();
}

#[tokio::test]
async fn who_holds_all_places_on_the_network_keeps_nobody_of_this_host_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeSettings { connections_max: 4, ..sealed(dir.path()) };
    let node = Node::start(node).await;
    let watcher = local(&node).await;
    for round in 1..=3 {
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(TcpStream::connect(node.addr()).await.unwrap());
        }
        // More than there are places for, so that all of them are taken.
        counted(&watcher, "streams_refused", round).await;
        Raw::local(node.socket()).await.enter(&node.cluster, CLIENT).await;
    }
    // Who says nothing gives its place back, and whoever has a key is let in.
    counted(&watcher, "streams_without_hello", 1).await;
    assert!(remote(&node, Role::Worker, Via::Tcp).await.any_node().status().await.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn after_its_removal_a_key_opens_nothing_and_its_streams_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    let worker = client_key(Role::Worker);
    let mut stream = Raw::over(call(&node, &worker, &node.cluster).await.unwrap());
    assert!(stream.greet(&node.cluster, CLIENT).await.is_some());
    let mut raw = RawClient::new(&node, Role::Worker, 3).await;
    raw.ask(&Ping {}.into()).await;
    // One that has shaken hands, and not said hello yet.
    let mut late = Raw::over(call(&node, &worker, &node.cluster).await.unwrap());
    // Another client's stream is not concerned.
    let other = remote(&node, Role::Authority, Via::Tcp).await;
    store(&other, 3).await;
    let change = |change| {
        let watcher = watcher.clone();
        async move { watcher.any_node().keys(change, false).await.unwrap() }
    };
    let report = change(KeyChange::Remove(worker.id().bits())).await;
    assert_eq!(report.refused, "");
    let [only] = &report.nodes[..] else { panic!("{report:?}") };
    let KeyOrdered::Done { keys, in_use } = &only.keys else { panic!("{report:?}") };
    assert_eq!((keys.len(), *in_use), (2, node_key(1).id().bits()));
    assert_eq!(stream.next().await, None, "it was closed");
    assert_eq!(late.greet(&node.cluster, CLIENT).await, None, "it was welcome");
    counted(&watcher, "streams_of_removed_keys", 2).await;
    let called = call(&node, &worker, &node.cluster).await;
    assert!(matches!(called, Err(CallError::Closed(_))), "{called:?}");
    raw.socket.send(&raw.question(&Ping {}.into())).await.unwrap();
    counted(&watcher, "sealed_with_unknown_key", 1).await;
    assert_all_there(&other, 3).await;
    // Installed again it is as good as before, and a key that is none changes nothing.
    let text = KeyText(worker.reveal().to_string());
    assert_eq!(change(KeyChange::Install(text)).await.refused, "");
    call(&node, &worker, &node.cluster).await.unwrap();
    let nonsense = change(KeyChange::Install(KeyText("nonsense".into()))).await;
    assert!(nonsense.refused.contains("not a key"), "{nonsense:?}");
    let in_use = change(KeyChange::Remove(node_key(1).id().bits())).await;
    assert!(in_use.refused.contains("is in use at test"), "{in_use:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_sealed_stream_that_is_changed_on_its_way_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let mut raw = Raw::over(call(&node, &client_key(Role::Worker), &node.cluster).await.unwrap());
    assert!(raw.greet(&node.cluster, CLIENT).await.is_some());
    assert!(matches!(raw.ask(2, &Ping {}.into()).await, Some(Message::Pong(_))));
    // Past the seal: what follows is no record of ours.
    let mut tcp = raw.stream.into_inner();
    tcp.write_all(&[40, 0]).await.unwrap();
    tcp.write_all(&[7; 40]).await.unwrap();
    let mut rest = Vec::new();
    let _ = within(LONG, "the end", tcp.read_to_end(&mut rest)).await;
    node.stop().await;
    assert_no_panics();
}

#[tokio::test]
async fn a_keyring_that_cannot_be_written_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let watcher = local(&node).await;
    // A directory stands where the new file would be made.
    std::fs::create_dir_all(dir.path().join("keyring.new/in the way")).unwrap();
    let text = KeyText(node_key(2).reveal().to_string());
    let report = watcher.any_node().keys(KeyChange::Install(text), false).await.unwrap();
    assert!(report.refused.contains("cannot be written"), "{report:?}");
    let called = call(&node, &node_key(2), &node.cluster).await;
    assert!(matches!(called, Err(CallError::Closed(_))), "{called:?}");
    node.stop().await;
}

#[tokio::test]
async fn two_nodes_with_one_key_meet_and_one_with_another_stays_alone() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let first = Node::start(sealed(dirs[0].path())).await;
    let seeds = vec![first.addr().to_string()];
    let second = NodeSettings { seeds: seeds.clone(), ..sealed(dirs[1].path()) };
    let second = Node::start(second).await;
    let ring = Keyring::new(node_key(9)).unwrap();
    let settings = sealed(dirs[2].path());
    std::fs::write(settings.keyring.as_ref().unwrap(), ring.reveal().as_bytes()).unwrap();
    let mut settings = NodeSettings { seeds, ..settings };
    settings.core.join_timeout = Duration::ZERO;
    let third = Node::start(settings).await;
    let (one, two, three) = (local(&first).await, local(&second).await, local(&third).await);
    crate::harness::settle(&[&one, &two], 2).await;
    counted(&one, "sealed_with_unknown_key", 1).await;
    until("the third serves alone", async || {
        let status = three.any_node().status().await.ok()?;
        (status.active_members == 1).then_some(())
    })
    .await;
    assert_eq!(one.any_node().members().await.unwrap().members.len(), 2);
    drop((one, two, three));
    third.stop().await;
    second.stop().await;
    first.stop().await;
}
