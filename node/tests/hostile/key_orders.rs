//! Changes of keys, and members that are not what they seem.

use std::net::SocketAddr;

use annulus_client::{KeyChange, KeyOrdered, KeyText, NodeKeys};
use annulus_proto::message::{
    Exchange, KeyOrder, KeysReport, KeysRequest, Message, Rejected, Welcome,
};
use annulus_proto::{Load, Member, NodeId, Status};
use annulus_seal::stream::SealedStream;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use crate::harness::{LONG, Node, until, within};
use crate::sealed::{Stream, call, local, node_key, ring, sealed};
use crate::wire::{CLIENT, Raw, a_node, frame};

const OTHER: u64 = 77;

/// A member as another node would tell of it.
fn member(addr: SocketAddr) -> Member {
    Member {
        id: NodeId::from_bits(OTHER),
        incarnation: 1,
        revision: 0,
        status: Status::Up,
        addr,
        name: "other".to_owned(),
        zone: String::new(),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    }
}

/// A stream to a node, under its key, of one that says it is the other node.
async fn as_a_node(node: &Node) -> Raw<Stream> {
    let stream = Raw::over(call(node, &node_key(1), &node.cluster).await.unwrap());
    stream.enter(&node.cluster, a_node(OTHER)).await
}

/// Tells a node of a member, and learns of the members that it knows.
async fn tell(stream: &mut Raw<Stream>, member: Member) -> Vec<Member> {
    let exchange = Exchange { members: vec![member], reply: true };
    match stream.ask(2, &exchange.into()).await {
        Some(Message::Exchange(exchange)) => exchange.members,
        other => panic!("{other:?}"),
    }
}

/// What a node finds at the other one, once it knows of it.
async fn keys_of_other(node: &Node, change: KeyChange) -> KeyOrdered {
    let watcher = local(node).await;
    until("the other is asked", async || {
        let report = watcher.any_node().keys(change.clone(), true).await.unwrap();
        let is_it = |keys: &NodeKeys| keys.node == NodeId::from_bits(OTHER);
        report.nodes.into_iter().find(is_it).map(|node| node.keys)
    })
    .await
}

/// Listens as a node with this id would, for streams under the key of nodes. What is asked over these
/// comes out; orders are answered.
async fn listen_as(id: NodeId, cluster: String) -> (SocketAddr, mpsc::UnboundedReceiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_as(id, cluster.clone(), stream, sender.clone()));
        }
    });
    (addr, asked)
}

async fn answer_as(
    id: NodeId,
    cluster: String,
    stream: TcpStream,
    asked: mpsc::UnboundedSender<Message>,
) {
    let answered = SealedStream::answer(stream, &ring(), &cluster, &rand::random()).await;
    let Ok((stream, _)) = answered else { return };
    let mut stream = Raw::over(stream);
    let Some((header, Message::Hello(_))) = stream.next().await else { return };
    let welcome = Welcome {
        node: id,
        incarnation: 1,
        name: "other".to_owned(),
        software: "hostile".to_owned(),
        host: String::new(),
        segments: Vec::new(),
        local_socket: String::new(),
    };
    stream.send(&frame(header.id, &welcome.into())).await;
    while let Some((header, message)) = stream.next().await {
        if matches!(message, Message::KeyOrder(_)) {
            let done = KeyOrdered::Done { keys: Vec::new(), in_use: 5 };
            stream.send(&frame(header.id, &done.into())).await;
        }
        let _ = asked.send(message);
    }
}

/// The secret of a key travels in such an order.
#[tokio::test]
async fn a_key_order_goes_to_the_node_it_is_for_and_to_nobody_who_has_its_address() {
    let text = || KeyText(node_key(9).reveal().to_string());
    for is_it in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(sealed(dir.path())).await;
        let id = NodeId::from_bits(if is_it { OTHER } else { OTHER + 1 });
        let (addr, mut asked) = listen_as(id, node.cluster.clone()).await;
        tell(&mut as_a_node(&node).await, member(addr)).await;
        let keys = keys_of_other(&node, KeyChange::Install(text())).await;
        let mut ordered = false;
        while let Ok(message) = asked.try_recv() {
            ordered |= matches!(message, Message::KeyOrder(_));
        }
        match keys {
            KeyOrdered::Done { in_use: 5, .. } if is_it => assert!(ordered),
            KeyOrdered::Silent(why) if !is_it => {
                assert!(why.contains("has its address"), "{why}");
                assert!(!ordered, "the key was told");
            }
            other => panic!("{other:?}"),
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn few_changes_of_keys_wait_and_what_other_nodes_order_is_done_meanwhile() {
    const ASKED: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    // Nobody answers there, so that the first request takes as long as it may.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut other = as_a_node(&node).await;
    tell(&mut other, member(listener.local_addr().unwrap())).await;
    let mut operator = Raw::local(node.socket()).await.enter(&node.cluster, CLIENT).await;
    let request = Message::from(KeysRequest { change: KeyChange::List, force: false });
    let frames: Vec<u8> = (1..=ASKED).flat_map(|number| frame(10 + number, &request)).collect();
    operator.send(&frames).await;
    let is_refusal = |message: &Message| match message {
        Message::KeysReport(KeysReport { refused, .. }) => refused.contains("too many"),
        Message::Rejected(Rejected::Malformed { why }) => why.contains("too many"),
        other => panic!("{other:?}"),
    };
    let (mut refused, mut done) = (0, 0);
    while refused < ASKED / 2 {
        let (_, message) = operator.next().await.expect("the stream goes on");
        let count = if is_refusal(&message) { &mut refused } else { &mut done };
        *count += 1;
    }
    let ordered = other.ask(3, &KeyOrder { change: KeyChange::List }.into()).await;
    assert!(matches!(ordered, Some(Message::KeyOrdered(KeyOrdered::Done { .. }))), "{ordered:?}");
    // Those that wait end soon after the one that they wait for.
    drop(listener);
    while refused + done < ASKED {
        let (_, message) = operator.next().await.expect("the stream goes on");
        let count = if is_refusal(&message) { &mut refused } else { &mut done };
        *count += 1;
    }
    assert!(done > 0, "some had their turn");
    node.stop().await;
}

/// Others remember the epoch of its packets: in an earlier one they would take nothing from it.
#[tokio::test]
async fn a_node_that_was_held_for_dead_seals_in_the_epoch_of_its_next_life() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(sealed(dir.path())).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut stream = as_a_node(&node).await;
    let members = tell(&mut stream, member(socket.local_addr().unwrap())).await;
    let mut me = members.into_iter().find(|member| member.id == node.ready.node).unwrap();
    // Where its epoch begins in a sealed packet: docs/wire.md.
    let epoch_of = async || {
        let mut buffer = [0; 2_000];
        within(LONG, "a packet", socket.recv(&mut buffer)).await.unwrap();
        let [a, b, c, d, e, f] = *buffer[17..].first_chunk().unwrap();
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    };
    assert_eq!(epoch_of().await, me.incarnation);
    let died = me.incarnation;
    me.status = Status::Down;
    tell(&mut stream, me).await;
    let later = async || Some(epoch_of().await).filter(|epoch| *epoch > died);
    let raised = until("it seals in a later epoch", later).await;
    let members = tell(&mut stream, member(socket.local_addr().unwrap())).await;
    let lives = members.into_iter().find(|member| member.id == node.ready.node).unwrap();
    assert_eq!((lives.incarnation, lives.status.is_active()), (raised, true));
    node.stop().await;
}
