//! Ends of all kinds, and what is there afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annulus_client::{Client, Error, LocalGet, LocalValue, Read, Source, StartOptions, Value};
use rustix::process::Signal;

use crate::child::Child;
use crate::harness::{assert_all_there, bytes, counted, store, until, value_of};
use crate::wire::{CLIENT, Raw};

#[tokio::test]
async fn a_node_told_to_stop_exits_with_0_and_everything_acknowledged_is_there_after() {
    let dir = tempfile::tempdir().unwrap();
    for (round, signal) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
        let mut node = Child::start(dir.path()).await;
        let client = node.client().await;
        assert_all_there(&client, 100 * round).await;
        store(&client, 100).await;
        // Nobody who is connected, silent or half way through a frame, delays the end.
        let mut half = Raw::tcp(node.addr).await.enter(&node.cluster, CLIENT).await;
        half.send(&[40, 0, 0, 0, b'A', b'N']).await;
        let silent = Raw::tcp(node.addr).await;
        node.signal(signal);
        let status = node.wait().await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", node.log());
        assert!(!node.socket().exists(), "the socket file goes with its node");
        node.assert_no_panics();
        drop((half, silent));
        let node = Child::start(dir.path()).await;
        assert_all_there(&node.client().await, 100).await;
        node.kill().await;
    }
}

#[tokio::test]
async fn writes_acknowledged_before_a_stop_in_their_midst_are_there_after() {
    killed_while_written(async |node: &mut Child| {
        node.signal(Signal::TERM);
        assert_eq!(node.wait().await.code(), Some(0), "{}", node.log());
    })
    .await;
}

#[tokio::test]
async fn writes_acknowledged_before_a_kill_in_their_midst_are_there_after() {
    killed_while_written(async |node: &mut Child| {
        node.signal(Signal::KILL);
        node.wait().await;
    })
    .await;
}

/// What may be stored under a key: what was acknowledged last, and what got no answer since.
type Possible = Vec<usize>;

async fn killed_while_written(end: impl AsyncFn(&mut Child)) {
    let dir = tempfile::tempdir().unwrap();
    let mut possible: Vec<Vec<Possible>> = vec![vec![Vec::new(); 20]; 4];
    for round in 1..4 {
        let mut node = Child::start(dir.path()).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for (writer, keys) in possible.into_iter().enumerate() {
            let client = node.client().await;
            writers.push(tokio::spawn(write(client, writer, keys, round * 1_000, over.clone())));
        }
        // Readers in other processes keep what they have mapped; here one that attaches now.
        let reader = Client::builder().cluster(&node.cluster).local_socket(node.socket());
        let reader = reader.connect().await.unwrap().local_reader("sessions").unwrap();
        counted(&node.client().await, "requests_start", 300).await;
        end(&mut node).await;
        over.store(true, Ordering::Relaxed);
        possible = Vec::new();
        for task in writers {
            possible.push(task.await.unwrap());
        }
        node.assert_no_panics();
        let check = |writer: usize, index: usize, value: &[u8]| {
            let numbers = &possible[writer][index];
            let is = |number: &usize| value_of(*number) == bytes(value);
            assert!(numbers.iter().any(is), "writer {writer}, key {index}: none of {numbers:?}");
        };

        // The dead node's memory is read on, and says nothing but what was written.
        let mut buffer = Vec::new();
        let mut hits = 0;
        for (writer, index) in all() {
            match reader.get(key(writer, index), &mut buffer) {
                LocalGet::Live(session) => {
                    let LocalValue::Bytes(value) = session.value else { panic!("a map") };
                    check(writer, index, value);
                    hits += 1;
                }
                LocalGet::Ended => panic!("nobody ended it"),
                LocalGet::SlowDown { .. } => panic!("nobody suspects anything"),
                LocalGet::Ask(_) => {}
            }
        }
        assert!(hits >= 70, "{hits} of 80 hits");

        let node = Child::start(dir.path()).await;
        let client = node.client().await;
        for (writer, index) in all() {
            let read = client.get(key(writer, index)).await.unwrap();
            let Value::Bytes(value) = &read.session.value else { panic!("a map") };
            check(writer, index, value);
        }
        node.kill().await;
    }
}

fn key(writer: usize, index: usize) -> String {
    format!("writer {writer}, key {index}")
}

fn all() -> impl Iterator<Item = (usize, usize)> {
    (0..4).flat_map(|writer| (0..20).map(move |index| (writer, index)))
}

/// Writes one key after the other until a write is not acknowledged.
async fn write(
    client: Client,
    writer: usize,
    mut possible: Vec<Possible>,
    mut number: usize,
    over: Arc<AtomicBool>,
) -> Vec<Possible> {
    while !over.load(Ordering::Relaxed) {
        let index = number % possible.len();
        let write = client.start(key(writer, index), value_of(number), StartOptions::default());
        match tokio::time::timeout(Duration::from_secs(1), write).await {
            Ok(Ok(_)) => possible[index] = vec![number],
            _ => {
                possible[index].push(number);
                break;
            }
        }
        number += 1;
    }
    possible
}

#[tokio::test]
async fn a_client_with_shared_memory_reads_on_over_a_kill_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = Client::builder().cluster(&node.cluster).local_socket(node.socket());
    let client = client.connect().await.unwrap();
    store(&client, 50).await;
    let from_memory = async |client: &Client| -> Result<Read, Error> { client.get("kept 7").await };
    until("reads come from shared memory", async || {
        (from_memory(&client).await.unwrap().source == Source::SharedMemory).then_some(())
    })
    .await;
    node.kill().await;
    // Nobody is there, and still it reads, as long as the node vouched for.
    for number in 0..50 {
        let read = client.get(format!("kept {number}")).await.unwrap();
        assert_eq!((read.session.value, read.source), (value_of(number), Source::SharedMemory));
    }
    let node = Child::start(dir.path()).await;
    for number in 0..50 {
        let read = until("the restarted node is found", async || {
            client.get(format!("kept {number}")).await.ok()
        })
        .await;
        assert_eq!(read.session.value, value_of(number));
    }
    client.end("kept 3", None).await.unwrap();
    assert_eq!(client.get("kept 3").await, Err(Error::Ended));
    until("shared memory is read again", async || {
        (from_memory(&client).await.unwrap().source == Source::SharedMemory).then_some(())
    })
    .await;
    node.assert_no_panics();
    node.kill().await;
}
