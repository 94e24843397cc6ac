//! Addresses as they are outside of a laboratory: IPv6, translated ones, names for many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use annulus_net::SystemClock;
use annulus_node::NodeSettings;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::harness::{Node, assert_all_there, settings, settle, store};
use crate::names::Names;

#[tokio::test]
async fn nodes_that_speak_ipv6_find_each_other_and_serve() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, seeds: Vec<String>| NodeSettings {
        listen: (Ipv6Addr::LOCALHOST, 0).into(),
        seeds,
        ..settings(&dir.path().join(name))
    };
    let first = Node::start(at("1", Vec::new())).await;
    assert!(first.addr().is_ipv6());
    let seed = first.addr().to_string();
    let second = Node::start(at("2", vec![seed.clone()])).await;
    let third = Node::start(at("3", vec![seed])).await;
    let (a, b, c) = (first.client().await, second.client().await, third.client().await);
    settle(&[&a, &b, &c], 3).await;
    store(&a, 50).await;
    assert_all_there(&c, 50).await;
    for node in [first, second, third] {
        node.stop().await;
    }
}

/// Hands on all that comes to an address of its own, streams and datagrams, as a router does that
/// forwards a port: those at the other end see the forwarder's addresses.
struct Forwarder {
    addr: SocketAddr,
    tasks: JoinSet<()>,
}

impl Forwarder {
    async fn start(to: SocketAddr) -> Self {
        let mut tasks = JoinSet::new();
        let (streams, datagrams) = loop {
            let streams = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            // Another test may have the datagram port of that number.
            if let Ok(datagrams) = UdpSocket::bind(streams.local_addr().unwrap()).await {
                break (streams, datagrams);
            }
        };
        let addr = streams.local_addr().unwrap();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut outside, _) = streams.accept().await.unwrap();
                open.spawn(async move {
                    if let Ok(mut inside) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut outside, &mut inside).await;
                    }
                });
            }
        });
        tasks.spawn(async move {
            let mut buffer = [0; 2_048];
            loop {
                let (size, _) = datagrams.recv_from(&mut buffer).await.unwrap();
                let _ = datagrams.send_to(&buffer[..size], to).await;
            }
        });
        Self { addr, tasks }
    }
}

/// The node behind the router is reached at one address, and what it sends comes from another; nobody
/// may take the one for the other.
#[tokio::test]
async fn a_node_behind_a_forwarded_port_is_reached_where_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start(settings(&dir.path().join("1"))).await;
    let seeds = vec![first.addr().to_string()];
    let second =
        Node::start(NodeSettings { seeds: seeds.clone(), ..settings(&dir.path().join("2")) });
    let second = second.await;
    // A port that is free: the forwarder has to know it before the node listens.
    let listen = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let inside = listen.local_addr().unwrap();
    drop(listen);
    let mut forwarder = Forwarder::start(inside).await;
    let behind = NodeSettings {
        listen: inside,
        advertise: Some(forwarder.addr),
        seeds,
        ..settings(&dir.path().join("3"))
    };
    let behind = Node::start(behind).await;
    let (a, b) = (first.client().await, second.client().await);
    let c = crate::harness::client(forwarder.addr, &behind.cluster).await;
    settle(&[&a, &b, &c], 3).await;
    store(&a, 50).await;
    assert_all_there(&c, 50).await;
    for client in [&a, &b, &c] {
        let members = client.members().await.unwrap().members;
        let member = members.iter().find(|member| member.id == behind.ready.node).unwrap();
        assert_eq!(member.addr, forwarder.addr);
    }
    for node in [behind, first, second] {
        node.stop().await;
    }
    forwarder.tasks.shutdown().await;
}

/// As a name has them that stands for all hosts of a service, old ones too.
#[tokio::test]
async fn a_seed_that_resolves_to_thousands_of_addresses_is_joined_at_the_one_that_lives() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start(settings(&dir.path().join("first"))).await;
    let nobody = |n: u16| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 99, high, low)), 1)
    };
    let mut addrs: Vec<SocketAddr> = (0..3_000).map(nobody).collect();
    addrs.insert(1_500, first.addr());
    let name = "all-hosts:7946";
    let net = Names::default();
    net.know(name, addrs);
    let second = NodeSettings { seeds: vec![name.into()], ..settings(&dir.path().join("second")) };
    let second = Node::start_on(second, net, SystemClock).await;
    let (a, b) = (first.client().await, second.client().await);
    settle(&[&a, &b], 2).await;
    store(&b, 20).await;
    assert_all_there(&a, 20).await;
    first.stop().await;
    second.stop().await;
}
