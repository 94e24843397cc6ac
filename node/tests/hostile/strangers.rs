//! Callers that this node is not for, or not now.

use std::time::Duration;

use annulus_client::{Client, ConnectError, Via};
use annulus_node::NodeSettings;
use annulus_proto::NodeId;
use annulus_proto::codec::PROTOCOL_VERSION;
use annulus_proto::message::{
    Caller, Message, Ping, Pong, Rejected, SessionReply, StatusRequest, Welcome,
};

use crate::harness::{Node, assert_all_there, counted, counter, settings, store, until};
use crate::wire::{CLIENT, Raw, RawUdp, a_node, datagram, frame, get, hello, resealed};

#[tokio::test]
async fn callers_of_another_cluster_are_told_so_and_its_datagrams_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    let asked = "elsewhere".to_owned();
    let wrong = Rejected::WrongCluster { asked: asked.clone() };
    for caller in [CLIENT, a_node(5)] {
        let mut tcp = Raw::tcp(node.addr()).await;
        tcp.send(&frame(1, &hello(&asked, caller))).await;
        assert_eq!(tcp.rejection().await, wrong);
        let mut local = Raw::local(node.socket()).await;
        local.send(&frame(1, &hello(&asked, caller))).await;
        assert_eq!(local.rejection().await, wrong);
    }
    counted(&watcher, "streams_of_other_clusters", 4).await;
    let refused = Client::builder().cluster(&asked).seed(node.addr().to_string()).connect().await;
    let Err(ConnectError::Rejected { reason, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, wrong);

    let mut udp = RawUdp::to(node.addr(), &node.cluster).await;
    udp.send(&datagram(&asked, 1, &Ping {}.into())).await;
    udp.send(&datagram(&asked, 2, &get("k"))).await;
    assert_eq!(udp.fence().await, []);
    counted(&watcher, "datagrams_of_other_clusters", 2).await;
    node.stop().await;
}

#[tokio::test]
async fn callers_of_another_protocol_version_are_told_so_and_its_datagrams_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    let theirs = PROTOCOL_VERSION + 1;
    let wrong = Rejected::WrongVersion { ours: PROTOCOL_VERSION, theirs };
    let other = |mut bytes: Vec<u8>| {
        bytes[6] = theirs;
        resealed(bytes)
    };
    let mut tcp = Raw::tcp(node.addr()).await;
    tcp.send(&other(frame(1, &hello(&node.cluster, CLIENT)))).await;
    assert_eq!(tcp.rejection().await, wrong);
    let mut local = Raw::local(node.socket()).await;
    local.send(&other(frame(1, &hello(&node.cluster, CLIENT)))).await;
    assert_eq!(local.rejection().await, wrong);
    // After a proper hello as well.
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await;
    tcp.send(&other(frame(2, &Ping {}.into()))).await;
    assert_eq!(tcp.rejection().await, wrong);
    counted(&watcher, "frames_malformed", 3).await;

    let mut udp = RawUdp::to(node.addr(), &node.cluster).await;
    udp.send(&other(datagram(&node.cluster, 1, &Ping {}.into()))).await;
    assert_eq!(udp.fence().await, []);
    counted(&watcher, "datagrams_of_other_versions", 1).await;
    node.stop().await;
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    let firsts: [Message; 3] = [Ping {}.into(), get("k"), StatusRequest {}.into()];
    for first in &firsts {
        let mut tcp = Raw::tcp(node.addr()).await;
        tcp.send(&frame(1, first)).await;
        let rejected = tcp.rejection().await;
        let Rejected::Malformed { why } = rejected else { panic!("{rejected}") };
        assert!(why.contains("came where Hello should"), "{why}");
    }
    counted(&watcher, "streams_refused", 3).await;
    // Whoever leaves before a word is counted too.
    drop(Raw::tcp(node.addr()).await);
    drop(Raw::local(node.socket()).await);
    counted(&watcher, "streams_without_hello", 2).await;
    // A second hello is out of place, and does no harm.
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await;
    let again = tcp.ask(2, &hello(&node.cluster, CLIENT)).await;
    assert!(matches!(again, Some(Message::Rejected(Rejected::Malformed { .. }))), "{again:?}");
    assert!(matches!(tcp.ask(3, &Ping {}.into()).await, Some(Message::Pong(_))));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_bears_this_nodes_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    let id = node.ready.node;
    let mut tcp = Raw::tcp(node.addr()).await;
    tcp.send(&frame(1, &hello(&node.cluster, Caller::Node { id, incarnation: u64::MAX }))).await;
    let rejected = tcp.rejection().await;
    assert!(matches!(rejected, Rejected::NodeIdInUse { id: theirs, .. } if theirs == id));
    counted(&watcher, "ids_in_use", 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed_are_refused_until_others_close() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 6;
    let node = Node::start(NodeSettings { connections_max: limit, ..settings(dir.path()) }).await;
    let watcher = node.client().await;
    store(&watcher, 10).await;
    let mut held = Vec::new();
    for _ in 1..limit {
        held.push(Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await);
    }
    let too_many = Rejected::TooManyConnections { limit };
    // Often: the answer must not get lost in the closing, whoever is quicker.
    for _ in 0..50 {
        let mut tcp = Raw::tcp(node.addr()).await;
        tcp.send(&frame(1, &hello(&node.cluster, CLIENT))).await;
        assert_eq!(tcp.rejection().await, too_many);
        for via in [Via::Tcp, Via::Local] {
            let builder = Client::builder().cluster(&node.cluster).via(via);
            let builder = builder.seed(node.addr().to_string()).local_socket(node.socket());
            match builder.connect().await {
                Err(ConnectError::Rejected { reason, .. }) => assert_eq!(reason, too_many),
                other => panic!("{via:?}: {other:?}"),
            }
        }
    }
    counted(&watcher, "streams_refused", 150).await;
    // Those inside are served, and so are datagrams.
    assert_all_there(&watcher, 10).await;
    assert!(matches!(held[0].ask(9, &Ping {}.into()).await, Some(Message::Pong(_))));
    RawUdp::to(node.addr(), &node.cluster).await.fence().await;
    // Whoever leaves makes room.
    held.truncate(2);
    until("a slot is free", async || {
        let mut tcp = Raw::tcp(node.addr()).await;
        let answer = tcp.greet(&node.cluster, CLIENT).await;
        matches!(answer, Some(Message::Welcome(Welcome { .. }))).then_some(())
    })
    .await;
    node.stop().await;
}

/// Symptom: one datagram that looked as if it came from another node kept the two answering each
/// other for ever. Cause: what is no request was answered with a rejection, and a rejection is no
/// request either. Fix: out-of-place datagrams are counted and not answered.
#[tokio::test]
async fn a_datagram_that_is_no_request_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    let mut udp = RawUdp::to(node.addr(), &node.cluster).await;
    let replies: [Message; 4] = [
        Rejected::AskOverStream.into(),
        Rejected::Malformed { why: "no".to_owned() }.into(),
        Pong { node: NodeId::from_bits(3) }.into(),
        SessionReply::Failed(annulus_proto::message::Failure::Absent).into(),
    ];
    for reply in &replies {
        udp.send(&datagram(&node.cluster, 77, reply)).await;
    }
    assert_eq!(udp.fence().await, []);
    counted(&watcher, "requests_out_of_place", replies.len() as u64).await;
    // Over a stream the caller is told: nobody can be made to answer somebody else.
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await;
    let answer = tcp.ask(5, &replies[2]).await;
    assert!(matches!(answer, Some(Message::Rejected(Rejected::Malformed { .. }))), "{answer:?}");
    node.stop().await;
}

#[tokio::test]
async fn streams_that_say_nothing_are_closed_and_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    store(&watcher, 20).await;
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut tcp = Raw::tcp(node.addr()).await;
        // Some begin a frame and leave it at that.
        let begun = frame(1, &hello(&node.cluster, CLIENT));
        tcp.send(&begun[..number % begun.len()]).await;
        silent.push(tcp);
    }
    assert_all_there(&node.client().await, 20).await;
    // The node loses patience with all of them: after 5 s, which this test does wait for.
    for mut stream in silent {
        assert!(stream.next().await.is_none());
    }
    counted(&watcher, "streams_without_hello", 500).await;
    let status = watcher.any_node().status().await.unwrap();
    assert_eq!(counter(&status, "frames_malformed"), 0);
    tokio::time::timeout(Duration::from_secs(20), assert_all_there(&watcher, 20)).await.unwrap();
    node.stop().await;
}
