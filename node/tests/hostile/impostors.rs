//! Well-formed messages from those who should not send them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use annulus_client::{Change, StartOptions};
use annulus_net::Clock;
use annulus_proto::codec::{self, Header};
use annulus_proto::message::*;
use annulus_proto::{
    Attributes, Entry, Hlc, Key, Load, Member, NodeId, Slot, SlotSet, Status, Value, Version,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{
    LONG, Node, assert_all_there, bytes, counted, counter, settings, store, until, within,
};
use crate::wire::{CLIENT, Raw, RawUdp, a_node, frame, header, hello};

const SESSIONS: usize = 100;

fn key(rng: &mut StdRng) -> Key {
    Key::new(format!("attack {}", rng.random_range(0..500))).unwrap()
}

fn version(rng: &mut StdRng) -> Version {
    let ms = match rng.random_range(0..4) {
        0 => rng.random_range(0..1_000),
        1 => Hlc::MS_MAX,
        2 => rng.random_range(0..=Hlc::MS_MAX),
        _ => annulus_net::SystemClock.wall_ms(),
    };
    let counter = rng.random::<u16>();
    Version::new(Hlc::from_bits(ms << 16 | u64::from(counter)), NodeId::from_bits(rng.random()))
}

fn value(rng: &mut StdRng) -> Value {
    let length = rng.random_range(0..3_000);
    if rng.random() {
        return Value::Bytes(vec![rng.random(); length]);
    }
    let field = |_| (vec![rng.random(); 3], vec![rng.random(); length / 4]);
    Value::Map((0..4).map(field).collect())
}

fn entry(rng: &mut StdRng) -> Entry {
    let (one, other) = (version(rng), version(rng));
    let (birth, later) = (one.min(other), one.max(other));
    let lease = (rng.random_range(0..Hlc::MS_MAX), rng.random_range(0..Hlc::MS_MAX));
    let touched = rng.random_range(0..Hlc::MS_MAX);
    let mut entry = Entry::start(birth, value(rng), lease, Attributes::default(), touched);
    match rng.random_range(0..3) {
        0 => entry = Entry::ended(birth, later),
        1 => entry.write_field(later, b"field".to_vec(), None),
        _ => {}
    }
    entry
}

fn epoch(rng: &mut StdRng) -> EpochName {
    EpochName { lineage: version(rng), number: rng.random() }
}

fn epoch_step(rng: &mut StdRng) -> EpochStep {
    let homes = (0..rng.random_range(0..9)).map(|_| NodeId::from_bits(rng.random())).collect();
    let (sources, absorbed) = (Vec::new(), vec![epoch(rng); rng.random_range(0..3)]);
    let config = Box::new(EpochConfig { name: epoch(rng), homes, sources, absorbed });
    let ballot = EpochBallot { round: rng.random(), node: NodeId::from_bits(rng.random()) };
    match rng.random_range(0..6) {
        0 => EpochStep::Meet(Some(epoch(rng))),
        1 => EpochStep::Learn(config),
        2 => EpochStep::Testify(epoch(rng)),
        3 => EpochStep::Prepare { under: epoch(rng), ballot },
        4 => {
            let successor = EpochSuccessor::Next(config);
            EpochStep::Accept { under: epoch(rng), ballot, successor }
        }
        _ => EpochStep::Absorb { ended: config, into: epoch(rng) },
    }
}

fn table(rng: &mut StdRng) -> String {
    if rng.random_bool(0.9) { "sessions".to_owned() } else { "no such".to_owned() }
}

/// Members where nobody listens.
fn member(rng: &mut StdRng, me: NodeId) -> Member {
    let statuses = [Status::Joining, Status::Up, Status::Draining, Status::Down, Status::Left];
    let id = if rng.random_bool(0.1) { me } else { NodeId::from_bits(rng.random()) };
    Member {
        id,
        incarnation: rng.random_range(0..1 << 40),
        revision: rng.random(),
        status: statuses[rng.random_range(0..statuses.len())],
        addr: SocketAddr::from(([127, 77, rng.random(), rng.random()], rng.random())),
        name: "nobody".to_owned(),
        zone: String::new(),
        weight: rng.random_range(0..200),
        rings: rng.random(),
        door: None,
        load: Load::default(),
    }
}

/// Any message, well formed.
fn message(rng: &mut StdRng, me: NodeId) -> Message {
    let (table, key) = (table(rng), key(rng));
    let slot = Slot::new(rng.random_range(0..16_384)).unwrap();
    let failure = Failure::Refused("no".to_owned());
    match rng.random_range(0..36) {
        0 => hello("elsewhere", CLIENT),
        1 => Rejected::AskOverStream.into(),
        32 => Prepare { table, key, ballot: version(rng), under: epoch(rng) }.into(),
        33 => {
            let entry = Some(entry(rng));
            let (counts, other_epoch) = rng.random();
            let (floor, others) = (version(rng), version(rng));
            Promised { floor, counts, other_epoch, others, entry }.into()
        }
        34 => Epochs { table, steps: vec![(slot_set(rng), epoch_step(rng))] }.into(),
        35 => EpochsAnswer { answers: vec![(slot_set(rng), EpochAnswer::Agrees)] }.into(),
        2 => Ping {}.into(),
        3 => Pong { node: NodeId::from_bits(rng.random()) }.into(),
        4..=6 => {
            let birth = rng.random::<bool>().then(|| version(rng));
            let lifetimes = Lifetimes { idle_ms: Some(rng.random()), lifetime_ms: None };
            let operation = match rng.random_range(0..9) {
                0 => {
                    let (value, attributes) = (value(rng), Attributes::default());
                    Operation::Start { value, lifetimes, attributes }
                }
                1 => Operation::Get,
                2 => Operation::Update { birth, change: Change::Value(value(rng)) },
                3 => Operation::Update { birth, change: Change::Lifetimes(lifetimes) },
                4 => Operation::Touch { birth },
                5 => {
                    let change = Change::Value(value(rng));
                    Operation::UpdateIf { version: version(rng), change }
                }
                6 => {
                    let (value, attributes) = (value(rng), Attributes::default());
                    Operation::StartIfAbsent { value, lifetimes, attributes }
                }
                7 => Operation::EndIf { version: version(rng) },
                _ => Operation::End { birth },
            };
            // As CLIENT; sometimes in another one's name.
            let client = if rng.random_bool(0.9) { 1 } else { rng.random() };
            let request = RequestId { client, sequence: rng.random() };
            let (hops, patience_ms) = (rng.random(), rng.random());
            SessionRequest { table, key, request, hops, patience_ms, operation }.into()
        }
        7 => SessionReply::Failed(failure).into(),
        8 => ExplainRequest { table, key, ask_homes: rng.random() }.into(),
        9 => ListRequest { table, cursor: rng.random(), limit: rng.random() }.into(),
        10 => List { entries: Vec::new(), next: rng.random() }.into(),
        11 => RoutesRequest {}.into(),
        12 => StatusRequest {}.into(),
        13 => MembersRequest {}.into(),
        14 | 15 => {
            let fresh = match rng.random_range(0..3) {
                0 => Fresh::No,
                1 => Fresh::Yes,
                _ => Fresh::By(version(rng)),
            };
            let under = rng.random::<bool>().then(|| epoch(rng));
            Replicate { table, key, entry: entry(rng), fresh, under }.into()
        }
        16 if rng.random() => {
            let copy = Replicate { table, key, entry: entry(rng), fresh: Fresh::Yes, under: None };
            Rewrite { copy, same_as: version(rng) }.into()
        }
        16 => {
            let (birth, version, touched) = (version(rng), version(rng), rng.random());
            let under = rng.random::<bool>().then(|| epoch(rng));
            TouchCopy { table, key, birth, version, touched, under }.into()
        }
        17 => Replicated::Differs(entry(rng)).into(),
        18 => Replicated::Failed(failure).into(),
        19 => {
            let under = rng.random::<bool>().then(|| epoch(rng));
            Fetch { table, key, under }.into()
        }
        20 => {
            let (synced, other_epoch) = rng.random();
            Fetched { entry: Some(entry(rng)), synced, other_epoch }.into()
        }
        21 => {
            let (cut_ms, slots) = (rng.random(), slot_set(rng));
            Compare { table, cut_ms, slots, symbol: rng.random() }.into()
        }
        22 => Compared { cores: rng.random(), difference: ComparedDifference::None }.into(),
        23 => SlotListRequest { table, slot, after: rng.random::<bool>().then_some(key) }.into(),
        24 => SlotList { items: vec![(key, rng.random())], more: rng.random() }.into(),
        25 => {
            // Few: each is probed, suspected and mourned before the next.
            let count = usize::from(rng.random_bool(0.1));
            let members = (0..count).map(|_| member(rng, me)).collect();
            Exchange { members, reply: rng.random() }.into()
        }
        26 => StreamGossip { packet: packet(rng) }.into(),
        27 => {
            let (cut_ms, slots, symbols) = (rng.random(), slot_set(rng), rng.random_range(0..70));
            let mut sizes: Vec<u16> = (0..rng.random_range(0..5)).map(|_| rng.random()).collect();
            if rng.random() {
                sizes = vec![slots.slots().count() as u16];
            }
            SketchRequest { table, cut_ms, slots, sizes, symbols }.into()
        }
        28 => Sketches { sketches: packet(rng) }.into(),
        29 => {
            let wanted = (0..rng.random_range(0..5)).map(|_| rng.random()).collect();
            Even { table, wanted, entries: vec![(key, entry(rng))] }.into()
        }
        30 => Evened { entries: vec![(key, entry(rng))], done: rng.random() }.into(),
        _ => Gossip { packet: packet(rng) }.into(),
    }
}

fn slot_set(rng: &mut StdRng) -> SlotSet {
    let runs = (0..rng.random_range(0..50)).map(|_| (rng.random(), rng.random())).collect();
    SlotSet { stride: rng.random_range(0..5), offset: rng.random_range(0..9), runs }
}

fn packet(rng: &mut StdRng) -> Vec<u8> {
    (0..rng.random_range(0..200)).map(|_| rng.random()).collect()
}

#[tokio::test]
async fn a_client_may_not_speak_as_nodes_do() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let client = node.client().await;
    store(&client, SESSIONS).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut refused = BTreeMap::new();
    for caller in [CLIENT, Caller::Client { client: 3, role: Role::Monitor }] {
        let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, caller).await;
        for id in 2..3_000 {
            let message = message(&mut rng, node.ready.node);
            let name = message.name();
            let answer = tcp.ask(id, &message).await.expect("the stream goes on");
            if let Message::Rejected(Rejected::Malformed { why }) = answer
                && why.contains("not a request that you may make")
            {
                *refused.entry(name).or_insert(0) += 1;
            } else {
                let asks = name.ends_with("Request") || name == "Ping";
                assert!(asks, "{name} was answered");
            }
        }
    }
    for name in [
        "Replicate",
        "Rewrite",
        "TouchCopy",
        "Fetch",
        "Compare",
        "SketchRequest",
        "Even",
        "Prepare",
        "SlotListRequest",
        "Exchange",
        "StreamGossip",
    ] {
        assert!(refused.contains_key(name), "{name}: {refused:?}");
    }
    let total = refused.values().sum();
    counted(&client, "requests_out_of_place", total).await;
    let status = client.any_node().status().await.unwrap();
    assert_eq!((status.active_members, counter(&status, "copies_received")), (1, 0));
    assert_all_there(&client, SESSIONS).await;
    node.stop().await;
}

/// Anybody can say that he is a node as long as there are no keys. What he can do then is what a
/// node can do: store what he likes under keys of his own, and invent members. He cannot bring the
/// node down or make it lose what it has.
#[tokio::test]
async fn whoever_says_he_is_a_node_brings_nothing_down_and_destroys_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    // The members that he invents are to be found dead soon.
    settings.mesh.suspect_for = Duration::from_millis(200);
    settings.mesh.down_after = Duration::from_millis(200);
    settings.mesh.isolated_after = Duration::from_secs(1);
    settings.core.home_timeout = Duration::from_millis(200);
    let node = Node::start(settings.clone()).await;
    let client = node.client().await;
    store(&client, SESSIONS).await;
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..20 {
        let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, a_node(rng.random())).await;
        let mut frames = Vec::new();
        for id in 0..200 {
            let hlc = version(&mut rng).hlc;
            let header = Header { id, view: rng.random(), hlc };
            let message = message(&mut rng, node.ready.node);
            codec::encode_frame(header, &message, &mut frames).unwrap();
        }
        // So that what came before has been read.
        frames.extend(frame(1_000_000, &Ping {}.into()));
        tcp.send(&frames).await;
        loop {
            let (header, _) = tcp.next().await.expect("the stream goes on");
            if header.id == 1_000_000 {
                break;
            }
        }
        // The same in datagrams, where nobody is believed to be a node.
        let udp = RawUdp::to(node.addr(), &node.cluster).await;
        for _ in 0..100 {
            let message = message(&mut rng, node.ready.node);
            let mut bytes = Vec::new();
            if codec::encode_datagram(header(3), &node.cluster, &message, &mut bytes).is_ok() {
                udp.send(&bytes).await;
            }
        }
    }
    // It said "unavailable" while it believed in homes that are not there, and no longer.
    assert_all_there(&client, SESSIONS).await;
    until("writes are acknowledged again", async || {
        for number in 0..SESSIONS {
            let key = format!("again {number}");
            client.start(key, bytes("x"), StartOptions::default()).await.ok()?;
        }
        Some(())
    })
    .await;
    let status = client.any_node().status().await.unwrap();
    assert_eq!(counter(&status, "clock_off_by_ms"), 0);
    node.stop().await;
    // Nor is what he made it write down an obstacle to a restart.
    let node = Node::start(settings).await;
    assert_all_there(&node.client().await, SESSIONS).await;
    node.stop().await;
}

#[tokio::test]
async fn a_membership_packet_over_a_stream_is_answered_and_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let client = node.client().await;
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, a_node(5)).await;
    tcp.send(&frame(7, &StreamGossip { packet: vec![0xee; 40] }.into())).await;
    let (header, answer) = tcp.next().await.expect("the stream goes on");
    assert_eq!((header.id, answer), (0, Pong { node: node.ready.node }.into()));
    counted(&client, "mesh_packets_malformed", 1).await;
    node.stop().await;
}

#[tokio::test]
async fn a_member_that_answers_no_datagram_is_asked_over_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    // A member of which the node knows by an exchange, and that says nothing in datagrams.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (id, rings) = (NodeId::from_bits(5), 1);
    let (name, zone, load) = ("silent".to_owned(), String::new(), Load::default());
    let (incarnation, revision, status, weight) = (1, 0, Status::Up, 100);
    let door = None;
    let silent =
        Member { id, incarnation, revision, status, addr, name, zone, weight, rings, door, load };
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, a_node(5)).await;
    let exchange = Exchange { members: vec![silent], reply: true };
    assert!(matches!(tcp.ask(2, &exchange.into()).await, Some(Message::Exchange(_))));
    // The node opens streams to it, and sends a packet of the mesh's over one of them.
    let pinged = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = Raw::over(stream);
            let hello = stream.next().await;
            let Some((_, Message::Hello(Hello { caller, .. }))) = hello else { continue };
            assert!(matches!(caller, Caller::Node { id, .. } if id == node.ready.node));
            let welcome = Welcome {
                node: id,
                incarnation,
                name: "silent".to_owned(),
                host: String::new(),
                segments: Vec::new(),
                local_socket: String::new(),
                software: String::new(),
            };
            stream.send(&frame(0, &welcome.into())).await;
            // What it asks besides is not answered, so that it gives the stream up in the end.
            while let Some((_, message)) = stream.next().await {
                if let Message::StreamGossip(StreamGossip { packet }) = message {
                    return packet;
                }
            }
        }
    };
    let packet = within(LONG, "a packet over a stream", pinged).await;
    assert!(!packet.is_empty() && packet.len() <= settings(dir.path()).mesh.packet_bytes_max);
    node.stop().await;
}

/// Symptom: twenty callers that said they were nodes, with clocks an hour ahead, kept a node from
/// stamping. Cause: whoever said so was counted among the peers whose median counts, and remembered
/// for ever. Fix: only members are heard.
#[tokio::test]
async fn clocks_of_those_who_are_no_members_count_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let client = node.client().await;
    let hlc = Hlc::from_ms(annulus_net::SystemClock.wall_ms() - 3_600_000);
    for id in 1..20 {
        let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, a_node(id)).await;
        let mut ping = Vec::new();
        let header = Header { id: 2, view: 7, hlc };
        codec::encode_frame(header, &Ping {}.into(), &mut ping).unwrap();
        tcp.send(&ping).await;
        assert!(matches!(tcp.next().await, Some((_, Message::Pong(_)))));
    }
    client.start("k", bytes("x"), StartOptions::default()).await.unwrap();
    let status = client.any_node().status().await.unwrap();
    assert_eq!(counter(&status, "clock_off_by_ms"), 0);
    node.stop().await;
}

/// Symptom: after one write over a record from the far future a node wrote every session from then,
/// the last instant there is at worst, where no write beats another. Cause: its clock went on after
/// the stored version, however far ahead. Fix: beyond a day it does not follow.
#[tokio::test]
async fn a_record_from_the_far_future_does_not_take_the_clock_along() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let client = node.client().await;
    let options = || StartOptions { idle: Some(Duration::from_secs(60)), ..Default::default() };
    client.start("bystander", bytes("x"), options()).await.unwrap();
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, a_node(5)).await;
    for (id, (name, hlc)) in
        [("far", Hlc::from_ms(Hlc::MS_MAX / 2)), ("last", Hlc::from_bits(u64::MAX))]
            .into_iter()
            .enumerate()
    {
        let birth = Version::new(Hlc::from_ms(1_000_000), NodeId::from_bits(5));
        let birth = Version { hlc: if name == "far" { hlc } else { birth.hlc }, ..birth };
        let mut entry =
            Entry::start(birth, bytes("old"), (0, 0), Attributes::default(), Hlc::MS_MAX);
        entry.write_value(Version { hlc, ..birth }, bytes("forged"));
        let key = Key::new(name).unwrap();
        let (table, fresh) = ("sessions".to_owned(), Fresh::Yes);
        let message = Replicate { table, key, entry, fresh, under: None }.into();
        tcp.ask(id as u64 + 2, &message).await.unwrap();
    }
    let updated = client.update("far", None, Change::Value(bytes("new"))).await.unwrap();
    assert!(updated.version.hlc.ms() >= Hlc::MS_MAX / 2);
    assert_eq!(client.get("far").await.unwrap().session.value, bytes("new"));
    // What was born long ago and carries the last version is past its day, and gone.
    client.start("last", bytes("new"), options()).await.unwrap();
    assert_eq!(client.get("last").await.unwrap().session.value, bytes("new"));
    client.end("far", None).await.unwrap();
    // Nobody else has been taken along.
    let soon = annulus_net::SystemClock.wall_ms() + 3_600_000;
    assert_eq!(client.get("bystander").await.unwrap().session.value, bytes("x"));
    let started = client.start("other", bytes("y"), options()).await.unwrap();
    assert!(started.version.hlc.ms() < soon, "{}", started.version);
    assert_eq!(client.get("other").await.unwrap().session.value, bytes("y"));
    node.stop().await;
}
