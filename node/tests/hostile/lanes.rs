//! Clients that share memory with the node, and abuse it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annulus_client::{
    Change, Client, Error, Lane, LaneCaller, LaneError, LaneTable, NotHandedOver, Rejected, Role,
    StartOptions, Value,
};
use annulus_net::LocalEnd;
use annulus_node::driver::LaneSettings;
use annulus_node::{NodeSettings, TableSettings};
use annulus_proto::message::{LaneRequest, Message};
use annulus_proto::submission::{Action, Submission};
use annulus_proto::{Slot, codec};
use annulus_shm::lane::{ClientLane, LaneDescriptors};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rustix::process::Signal;

use crate::child::Child;
use crate::harness::{
    CORES, LONG, Node, assert_all_there, bytes, client, counted, counter, read, settings, store,
    table, until, within,
};
use crate::wire::{CLIENT, Raw, frame, get, hello};

fn caller(cluster: &str) -> LaneCaller {
    LaneCaller {
        cluster: cluster.to_owned(),
        client: rand::random(),
        role: Role::Development,
        software: "hostile".to_owned(),
        timeout: LONG,
    }
}

/// The table of a new lane to a node in another process.
fn sessions(node: &Child) -> LaneTable {
    let lane = Lane::open(node.socket(), caller(&node.cluster)).unwrap();
    lane.table("sessions").unwrap()
}

/// A lane without manners: what the node handed over for the core of the key "kept 1", and the stream
/// that it lasts as long as.
struct RawLane {
    end: LocalEnd,
    memory: OwnedFd,
    bell: OwnedFd,
}

impl RawLane {
    fn open(socket: &Path, cluster: &str) -> Self {
        let end = LocalEnd::connect(socket, LONG).unwrap();
        let mut passed = Vec::new();
        end.send(&frame(1, &hello(cluster, CLIENT)), &[]).unwrap();
        assert!(matches!(receive(&end, &mut passed), Message::Welcome(_)));
        end.send(&frame(2, &LaneRequest {}.into()), &[]).unwrap();
        assert!(matches!(receive(&end, &mut passed), Message::LaneGranted(_)));
        assert_eq!(passed.len(), 2 * usize::from(CORES.get()));
        let mut track = passed.drain(2 * core_of("kept 1")..);
        let (memory, bell) = (track.next().unwrap(), track.next().unwrap());
        drop(track);
        Self { end, memory, bell }
    }

    /// As well-behaved clients hold it.
    fn attach(self) -> (LocalEnd, ClientLane) {
        let Self { end, memory, bell } = self;
        (end, ClientLane::attach(LaneDescriptors { memory, bell }).unwrap())
    }

    fn write(&self, word: usize, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let file = File::from(self.memory.try_clone().unwrap());
        file.write_all_at(&bytes, word as u64 * 8).unwrap();
    }

    fn size(&self) -> usize {
        rustix::fs::fstat(&self.memory).unwrap().st_size as usize / 8
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// The core that serves a key.
fn core_of(key: &str) -> usize {
    usize::from(Slot::of(key.as_bytes()).index()) % usize::from(CORES.get())
}

fn receive(end: &LocalEnd, passed: &mut Vec<OwnedFd>) -> Message {
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        if let Some(length) = codec::frame_length(&buffer[..filled]).unwrap()
            && filled >= length
        {
            return codec::decode_frame(&buffer[..length]).unwrap().1;
        }
        let size = end.receive(&mut buffer[filled..], passed).unwrap();
        assert!(size > 0, "the node closed the stream");
        filled += size;
    }
}

/// Where the client's position in the ring lies, and the ring; `docs/lanes.md`.
const TAIL: usize = 512;
const RING: usize = 9_728;

fn touch(key: &str, call: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let action = Action::Touch { birth: None };
    let (table, sequence, patience_ms) = (0, 1, 60_000);
    Submission { table, key: key.as_bytes(), sequence, call, patience_ms, action }
        .encode(&mut bytes)
        .unwrap();
    bytes
}

#[tokio::test]
async fn sessions_live_through_a_lane() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    let sessions = sessions(&node);
    let started = sessions.start("k", bytes("one"), StartOptions::default()).unwrap();
    let birth = Some(started.birth);
    let updated = sessions.update_bytes("k", birth, b"two").unwrap();
    assert!(updated.version > started.version && updated.birth == started.birth);
    assert_eq!(read(&client, "k").await.session.value, bytes("two"));
    sessions.update_soon("k", birth, b"three").unwrap();
    sessions.touch_soon("k", birth).unwrap();
    // In order: once this is answered, the one before it is done.
    let touched = sessions.touch("k", birth).unwrap();
    assert!(touched.version > updated.version);
    assert_eq!(read(&client, "k").await.session.value, bytes("three"));
    // Too long for the lane, so the stream takes it.
    let long = vec![7; 50_000];
    sessions.update_bytes("k", birth, &long).unwrap();
    assert_eq!(sessions.update_soon("k", birth, &long), Err(NotHandedOver::TooLong));
    assert_eq!(read(&client, "k").await.session.value, bytes(&long));
    // Whatever is not a plain value is encoded as in messages.
    let map = Value::Map([(b"a".to_vec(), b"1".to_vec())].into());
    sessions.update("k", birth, Change::Value(map)).unwrap();
    let fields = Change::Fields { set: [(b"b".to_vec(), b"2".to_vec())].into(), delete: vec![] };
    sessions.update("k", birth, fields).unwrap();
    let Value::Map(fields) = read(&client, "k").await.session.value else { panic!("a map") };
    assert_eq!(fields.len(), 2);
    // Refusals come with their reasons, which no lane carries.
    let owner = vec![1; 256];
    let options = StartOptions { owner, ..StartOptions::default() };
    let refused = sessions.start("other", bytes("x"), options).unwrap_err();
    assert!(refused.to_string().contains("the owner has 256 bytes"), "{refused}");
    assert_eq!(sessions.touch("absent", None), Err(Error::Absent));
    assert!(matches!(sessions.touch("", None), Err(Error::Key(_))));
    assert!(matches!(sessions.touch_soon("", None), Err(NotHandedOver::Key(_))));
    sessions.end("k", birth).unwrap();
    assert_eq!(sessions.touch("k", birth), Err(Error::Ended));
    drop(sessions);
    counted(&client, "lanes_closed", 1).await;
    node.assert_no_panics();
}

#[tokio::test]
async fn a_client_opens_its_lane_by_itself_and_does_without() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let builder = Client::builder().cluster(&node.cluster).local_socket(node.socket());
    let client = builder.timeout(LONG).connect().await.unwrap();
    until("the lane is open", async || client.lane()).await;
    client.start("k", bytes("one"), StartOptions::default()).await.unwrap();
    client.sessions().update_soon("k", None, b"two").unwrap();
    client.sessions().touch_soon("k", None).unwrap();
    until("the update is done", async || {
        (client.get("k").await.unwrap().session.value == bytes("two")).then_some(())
    })
    .await;
    assert_eq!(client.counters().submitted, 2);
    // Without a lane it goes over the socket.
    let without = Client::builder().cluster(&node.cluster).local_socket(node.socket());
    let without = without.without_lane().timeout(LONG).connect().await.unwrap();
    without.sessions().update_soon("k", None, b"three").unwrap();
    until("the update is done", async || {
        (client.get("k").await.unwrap().session.value == bytes("three")).then_some(())
    })
    .await;
    assert!(without.lane().is_none());
    assert_eq!(without.counters().submitted, 0);
    node.kill().await;
    until("the lane is gone", async || client.lane().is_none().then_some(())).await;
}

#[tokio::test]
async fn three_nodes_answer_through_a_lane_what_two_of_them_hold() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Node::start(settings(dirs[0].path())).await;
    let seeds = vec![first.addr().to_string()];
    let second = Node::start(NodeSettings { seeds, ..settings(dirs[1].path()) }).await;
    let clients = [first.client().await, second.client().await];
    crate::harness::settle(&[&clients[0], &clients[1]], 2).await;
    let (socket, cluster) = (first.socket().to_owned(), first.cluster.clone());
    // Blocks, and so apart from the nodes' threads.
    let acknowledged = tokio::task::spawn_blocking(move || {
        let lane = Lane::open(socket, caller(&cluster)).unwrap();
        let sessions = lane.table("sessions").unwrap();
        let started = sessions.start("k", bytes("one"), StartOptions::default()).unwrap();
        sessions.update_bytes("k", Some(started.birth), b"two").unwrap()
    });
    let acknowledged = within(LONG, "the calls are answered", acknowledged).await.unwrap();
    assert_eq!((acknowledged.held_by, acknowledged.homes), (2, 2));
    for client in &clients {
        assert_eq!(read(client, "k").await.session.value, bytes("two"));
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn garbage_in_any_word_closes_that_lane_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 50).await;
    let honest = sessions(&node);
    honest.start("honest", bytes("0"), StartOptions::default()).unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    for round in 0..60u64 {
        let lane = RawLane::open(&node.socket(), &node.cluster);
        match round % 6 {
            // All of it.
            0 => lane.write(0, &(0..lane.size()).map(|_| rng.random()).collect::<Vec<u64>>()),
            // A position beyond the ring, or before it.
            1 => lane.write(TAIL, &[[8_193, u64::MAX, 1 << 63][rng.random_range(0..3)]]),
            // Records that are empty, too long, or longer than what was submitted.
            2 => {
                let size = [0, 32_769, 65_536, u64::MAX, 1 << 32, 57][rng.random_range(0..6)];
                lane.write(RING, &[size]);
                lane.write(TAIL, &[8]);
            }
            // Records of random bytes, and submissions with random bytes in them.
            3 => {
                lane.write(RING, &[48, rng.random(), rng.random(), rng.random()]);
                lane.write(TAIL, &[7]);
            }
            4 => {
                let mut bytes = touch("kept 1", 1);
                let at = rng.random_range(0..48);
                bytes[at] ^= 0x80;
                bytes.truncate(bytes.len() - rng.random_range(0..2));
                let size = bytes.len() as u64;
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
                let words: Vec<u64> = std::iter::once(size).chain(words).collect();
                lane.write(RING, &words);
                lane.write(TAIL, &[words.len() as u64]);
            }
            // Whatever the node itself writes there.
            _ => lane.write(TAIL + 1, &(0..8_000).map(|_| rng.random()).collect::<Vec<u64>>()),
        }
        lane.ring();
        honest.update_bytes("honest", None, round.to_string().as_bytes()).unwrap();
        drop(lane);
    }
    counted(&client, "lanes_closed", 60).await;
    let status = client.any_node().status().await.unwrap();
    let faulty = counter(&status, "lanes_faulty");
    assert!((30..=60).contains(&faulty), "{faulty}");
    assert_eq!(read(&client, "honest").await.session.value, bytes("59"));
    assert_all_there(&client, 50).await;
    node.assert_no_panics();
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 50).await;
    let before_kib = node.private_kib();
    let (_end, mut lane) = RawLane::open(&node.socket(), &node.cluster).attach();
    let mut submitted = 0u32;
    // Sessions that are there and that are not, calls that overtake each other.
    let keys: Vec<String> = (0..60).map(|number| format!("kept {number}")).collect();
    let keys: Vec<&String> = keys.iter().filter(|key| core_of(key) == core_of("kept 1")).collect();
    while submitted < 200_000 {
        let key = keys[submitted as usize % keys.len()];
        submitted += u32::from(lane.submitter.submit(&touch(key, submitted)).is_ok());
    }
    let all = u64::from(submitted);
    counted(&client, "submissions", all).await;
    assert_all_there(&client, 50).await;
    let after_kib = node.private_kib();
    assert!(after_kib < before_kib + (48 << 10), "{before_kib} KiB, then {after_kib}");
    node.assert_no_panics();
}

#[tokio::test]
async fn what_is_for_another_core_is_not_done_and_closes_the_lane() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 20).await;
    let honest = sessions(&node);
    let (_end, mut lane) = RawLane::open(&node.socket(), &node.cluster).attach();
    let mut keys = (0..20).map(|number| format!("kept {number}"));
    let other = keys.find(|key| core_of(key) != core_of("kept 1")).unwrap();
    lane.submitter.submit(&touch("kept 1", 0)).unwrap();
    lane.submitter.submit(&touch(&other, 0)).unwrap();
    counted(&client, "lanes_faulty", 1).await;
    honest.touch(&other, None).unwrap();
    let status = client.any_node().status().await.unwrap();
    assert_eq!(counter(&status, "requests_touch"), 2);
    node.assert_no_panics();
}

#[tokio::test]
async fn a_client_that_rings_without_end_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 20).await;
    let honest = sessions(&node);
    honest.start("honest", bytes("0"), StartOptions::default()).unwrap();
    let lane = RawLane::open(&node.socket(), &node.cluster);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                lane.ring();
                // And takes the rings back, as far as the node has not noticed.
                let _ = rustix::io::read(&lane.bell, &mut [0; 8]);
            }
        });
        for round in 0..500 {
            honest.update_bytes("honest", None, format!("{round}").as_bytes()).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(read(&client, "honest").await.session.value, bytes("499"));
    assert_all_there(&client, 20).await;
    node.assert_no_panics();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_through_one_lane_leaves_the_others_and_the_socket_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 20).await;
    let honest = sessions(&node);
    honest.start("honest", bytes("0"), StartOptions::default()).unwrap();
    let (_end, mut lane) = RawLane::open(&node.socket(), &node.cluster).attach();
    let is_over = AtomicBool::new(false);
    let flooded = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let mut submitted = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                submitted += u64::from(lane.submitter.submit(&touch("kept 1", 0)).is_ok());
            }
            submitted
        });
        for round in 0..200 {
            honest.update_bytes("honest", None, format!("{round}").as_bytes()).unwrap();
        }
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(assert_all_there(&client, 20));
        });
        is_over.store(true, Ordering::Relaxed);
        flooding.join().unwrap()
    });
    // All of it was done, and counted.
    counted(&client, "submissions", flooded).await;
    assert_eq!(read(&client, "honest").await.session.value, bytes("199"));
    node.assert_no_panics();
}

#[tokio::test]
async fn clients_killed_while_they_submit_leave_whole_sessions_and_no_lanes() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    let mut rng = StdRng::seed_from_u64(12);
    client.start("rewritten", bytes([0; 400]), StartOptions::default()).await.unwrap();
    for round in 1..=20 {
        let status = client.any_node().status().await.unwrap();
        let before = counter(&status, "submissions");
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lanes::a_child_process_submits", "--nocapture"])
            .env(SOCKET, node.socket())
            .env(CLUSTER, &node.cluster)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        counted(&client, "submissions", before + 1 + rng.next_u64() % 5_000).await;
        process.kill().unwrap();
        process.wait().unwrap();
        counted(&client, "lanes_closed", round).await;
        let Value::Bytes(value) = read(&client, "rewritten").await.session.value else {
            panic!("a string of bytes");
        };
        assert!(value.len() == 400 && value.iter().all(|byte| *byte == value[0]), "torn");
    }
    let status = client.any_node().status().await.unwrap();
    assert_eq!(counter(&status, "lanes_opened"), 20);
    assert_eq!(counter(&status, "lanes_faulty"), 0);
    node.assert_no_panics();
}

const SOCKET: &str = "ANNULUS_HOSTILE_LANE_SOCKET";
const CLUSTER: &str = "ANNULUS_HOSTILE_LANE_CLUSTER";

/// No test, but what children do; without its variables it does nothing.
#[test]
fn a_child_process_submits() {
    let (Ok(socket), Ok(cluster)) = (std::env::var(SOCKET), std::env::var(CLUSTER)) else { return };
    let lane = Lane::open(PathBuf::from(socket), caller(&cluster)).unwrap();
    let sessions = lane.table("sessions").unwrap();
    let mut number = 0u8;
    // Until it is killed, or nobody is there any more.
    loop {
        number = number.wrapping_add(1);
        match sessions.update_soon("rewritten", None, &[number; 400]) {
            Err(NotHandedOver::Closed) => return,
            Err(_) if !lane.is_open() => return,
            _ if number == 0 => drop(sessions.touch("rewritten", None)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn there_are_no_more_lanes_than_there_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let lanes = LaneSettings { max: 2, ..LaneSettings::default() };
    let node = Node::start(NodeSettings { lanes, ..settings(dir.path()) }).await;
    let (socket, cluster) = (node.socket().to_owned(), node.cluster.clone());
    let open = move || {
        let (socket, cluster) = (socket.clone(), cluster.clone());
        tokio::task::spawn_blocking(move || Lane::open(socket, caller(&cluster)))
    };
    let first = open().await.unwrap().unwrap();
    let _second = open().await.unwrap().unwrap();
    let Err(LaneError::Rejected(Rejected::NoLane { why })) = open().await.unwrap() else {
        panic!("a third lane");
    };
    assert!(why.contains("lanes_max"), "{why}");
    drop(first);
    until("a place is free", async || open().await.unwrap().ok()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_lane_is_given_over_the_local_socket_and_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let request = LaneRequest {}.into();
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await;
    let answer = tcp.ask(2, &request).await;
    assert!(matches!(answer, Some(Message::Rejected(Rejected::NoLane { .. }))), "{answer:?}");
    let mut late = Raw::local(node.socket()).await.enter(&node.cluster, CLIENT).await;
    assert!(matches!(late.ask(2, &get("k")).await, Some(Message::SessionReply(_))));
    let answer = late.ask(3, &request).await;
    assert!(matches!(answer, Some(Message::Rejected(Rejected::NoLane { .. }))), "{answer:?}");
    // Both serve on.
    assert!(matches!(late.ask(4, &get("k")).await, Some(Message::SessionReply(_))));
    assert!(matches!(tcp.ask(5, &get("k")).await, Some(Message::SessionReply(_))));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_ends_lets_its_lanes_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Child::start(dir.path()).await;
    let stopped = sessions(&node);
    stopped.start("k", bytes("one"), StartOptions::default()).unwrap();
    node.signal(Signal::TERM);
    assert!(node.wait().await.success(), "{}", node.log());
    until("the lane is closed", async || {
        (stopped.touch_soon("k", None) == Err(NotHandedOver::Closed)).then_some(())
    })
    .await;
    node.assert_no_panics();
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let killed = sessions(&node);
    killed.start("k", bytes("one"), StartOptions::default()).unwrap();
    node.signal(Signal::STOP);
    let calling = std::thread::spawn(move || killed.touch("k", None));
    node.signal(Signal::KILL);
    node.kill().await;
    // Long before its patience is over.
    let outcome = tokio::task::spawn_blocking(move || calling.join().unwrap());
    let outcome = within(Duration::from_secs(30), "the call returns", outcome).await.unwrap();
    assert_eq!(outcome, Err(Error::TimedOut));
}

#[tokio::test]
async fn what_readers_use_is_noted_by_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    let reading = Client::builder().cluster(&node.cluster).local_socket(node.socket());
    let reading = reading.timeout(LONG).connect().await.unwrap();
    reading.start("k", bytes("one"), StartOptions::default()).await.unwrap();
    let reader = reading.local_reader("sessions").unwrap();
    let mut buffer = Vec::new();
    until("uses are noted", async || {
        for _ in 0..1_000 {
            let _ = reader.get("k", &mut buffer);
        }
        let status = client.any_node().status().await.unwrap();
        (counter(&status, "uses_noted") > 0).then_some(())
    })
    .await;
    node.assert_no_panics();
}

#[tokio::test]
async fn without_lanes_everything_goes_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let lanes = LaneSettings { max: 0, ..LaneSettings::default() };
    let tables: Vec<TableSettings> = vec![table(2 << 20, 64 << 10)];
    let node = Node::start(NodeSettings { lanes, tables, ..settings(dir.path()) }).await;
    let client = client(node.addr(), &node.cluster).await;
    client.start("k", bytes("one"), StartOptions::default()).await.unwrap();
    let (socket, cluster) = (node.socket().to_owned(), node.cluster.clone());
    let refused =
        tokio::task::spawn_blocking(move || Lane::open(socket, caller(&cluster))).await.unwrap();
    assert!(matches!(refused, Err(LaneError::Rejected(Rejected::NoLane { .. }))));
    client.sessions().update_soon("k", None, b"two").unwrap();
    until("the update is done", async || {
        (client.get("k").await.unwrap().session.value == bytes("two")).then_some(())
    })
    .await;
    node.stop().await;
}
