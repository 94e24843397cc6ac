//! Rubbish on every port, a hundred thousand packets each.

use annulus_proto::codec::HEADER_BYTES;
use annulus_proto::limits::DATAGRAM_BYTES_MAX;
use annulus_proto::message::{Gossip, Message, Ping, RoutesRequest, StatusRequest};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::child::Child;
use crate::harness::{assert_all_there, counter, store};
use crate::wire::{CLIENT, Raw, RawUdp, datagram, frame, get, hello, resealed};

const PACKETS: u64 = 100_000;
const SESSIONS: usize = 200;
/// What the node may take beside its segment and what it took before: queues, buffers, caches.
const GROWTH_KIB_MAX: u64 = 48 << 10;

fn random(rng: &mut StdRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Cuts, damages, stretches or reinvents a well-formed packet. `payload_at` is where its payload
/// begins.
fn damaged(rng: &mut StdRng, good: &[u8], payload_at: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    match rng.random_range(0..6) {
        0 => bytes.truncate(rng.random_range(0..good.len())),
        1 => {
            for _ in 0..rng.random_range(1..8) {
                let bit = rng.random_range(0..good.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        2 => {
            let more = rng.random_range(1..200);
            bytes.extend(random(rng, more));
        }
        3 => {
            let length = rng.random_range(0..DATAGRAM_BYTES_MAX + 200);
            bytes = random(rng, length);
        }
        // Whole and checked, but the payload is none, or the kind is another.
        4 => {
            let length = rng.random_range(0..300);
            bytes.truncate(payload_at);
            bytes.extend(random(rng, length + 4));
            bytes = resealed(bytes);
        }
        _ => {
            bytes[7] = rng.random();
            bytes = resealed(bytes);
        }
    }
    bytes
}

fn messages() -> [Message; 6] {
    [
        Ping {}.into(),
        get("kept 1"),
        get("no such"),
        StatusRequest {}.into(),
        RoutesRequest {}.into(),
        Gossip { packet: vec![1, 2, 3, 4, 5, 6, 7, 8, 9] }.into(),
    ]
}

#[tokio::test]
async fn a_flood_of_bad_datagrams_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, SESSIONS).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut udp = RawUdp::to(node.addr, &node.cluster).await;
    let good: Vec<Vec<u8>> =
        messages().iter().map(|message| datagram(&node.cluster, 1, message)).collect();
    let before_kib = node.private_kib();
    for packet in 0..PACKETS {
        let good = &good[rng.random_range(0..good.len())];
        let payload_at = HEADER_BYTES + 1 + node.cluster.len();
        udp.send(&damaged(&mut rng, good, payload_at)).await;
        // So few that the socket's buffer holds them: each is to be read.
        if packet % 48 == 47 {
            udp.fence().await;
        }
    }
    udp.fence().await;
    let status = client.any_node().status().await.unwrap();
    let count = |name| counter(&status, name);
    let dropped = count("datagrams_malformed")
        + count("datagrams_of_other_versions")
        + count("datagrams_of_other_clusters");
    let understood = count("mesh_packets_in") + count("requests_out_of_place");
    assert!(dropped > PACKETS * 3 / 4, "{dropped}");
    assert!(count("mesh_packets_malformed") > 0);
    assert!(understood < PACKETS / 10, "{understood}");
    assert_all_there(&client, SESSIONS).await;
    let after_kib = node.private_kib();
    assert!(after_kib < before_kib + GROWTH_KIB_MAX, "{before_kib} KiB, then {after_kib}");
    assert_eq!(status.active_members, 1);
    node.assert_no_panics();
}

/// One connection after the other, most of them past their hello, until enough frames were sent.
async fn bad_streams<S, C>(seed: u64, cluster: &str, connect: C)
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: AsyncFn() -> Raw<S>,
{
    let mut rng = StdRng::seed_from_u64(seed);
    let good: Vec<Vec<u8>> = messages().iter().map(|message| frame(1, message)).collect();
    let mut sent = 0;
    while sent < PACKETS {
        let mut stream = connect().await;
        let mut bytes = Vec::new();
        if rng.random_bool(0.8) {
            bytes = frame(1, &hello(cluster, CLIENT));
        }
        // Good ones before the bad one, and what nobody reads any more after it.
        for _ in 0..rng.random_range(0..60) {
            bytes.extend_from_slice(&frame(2, &Ping {}.into()));
            sent += 1;
        }
        for _ in 0..rng.random_range(1..60) {
            let good = &good[rng.random_range(0..good.len())];
            bytes.extend(damaged(&mut rng, good, HEADER_BYTES));
            sent += 1;
        }
        stream.send(&bytes).await;
        // Now and then, to see that the node ends it.
        if rng.random_bool(0.1) {
            use tokio::io::AsyncWriteExt;
            let _ = stream.stream.shutdown().await;
            while stream.next().await.is_some() {}
        }
    }
}

#[tokio::test]
async fn a_flood_of_bad_frames_ends_streams_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, SESSIONS).await;
    let before_kib = node.private_kib();
    bad_streams(2, &node.cluster, async || Raw::tcp(node.addr).await).await;
    let path = node.socket();
    bad_streams(3, &node.cluster, async || Raw::local(&path).await).await;
    assert_all_there(&client, SESSIONS).await;
    assert_all_there(&node.client().await, SESSIONS).await;
    let status = client.any_node().status().await.unwrap();
    assert!(counter(&status, "frames_malformed") > PACKETS / 100, "{:?}", status.counters);
    assert!(counter(&status, "streams_without_hello") + counter(&status, "streams_refused") > 100);
    let after_kib = node.private_kib();
    assert!(after_kib < before_kib + GROWTH_KIB_MAX, "{before_kib} KiB, then {after_kib}");
    node.assert_no_panics();
}
