//! Callers that take memory and give nothing.

use annulus_client::StartOptions;
use annulus_proto::message::Message;

use crate::child::Child;
use crate::harness::{assert_all_there, bytes, counted, store};
use crate::wire::{CLIENT, Raw, frame, get, hello};

#[tokio::test]
async fn a_reader_that_takes_no_answers_is_cut_off_and_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 50).await;
    client.start("large", bytes([7; 60_000]), StartOptions::default()).await.unwrap();
    let before_kib = node.resident_kib();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Raw::tcp(node.addr).await.enter(&node.cluster, CLIENT).await;
        // Answers of 240 MB all together, to requests of 400 kB.
        let request = frame(5, &get("large"));
        stream.send(&request.repeat(4_000)).await;
        streams.push(stream);
    }
    let mut highest_kib = 0;
    for _ in 0..20 {
        assert_all_there(&client, 50).await;
        highest_kib = highest_kib.max(node.resident_kib());
    }
    counted(&client, "streams_too_slow", 3).await;
    highest_kib = highest_kib.max(node.resident_kib());
    // 16 MiB of answers may wait for each, and as much again while it is handed over.
    assert!(highest_kib < before_kib + 3 * (32 << 10), "{before_kib} KiB, then {highest_kib}");
    // They get what had been written, and then the end.
    for mut stream in streams {
        let mut answers = 0;
        while let Some((_, message)) = stream.next().await {
            assert!(matches!(message, Message::SessionReply(_)));
            answers += 1;
        }
        assert!(answers < 4_000, "{answers}");
    }
    assert_all_there(&client, 50).await;
    node.assert_no_panics();
}

#[tokio::test]
async fn room_is_made_for_what_has_arrived_and_not_for_what_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    store(&client, 20).await;
    let before_kib = node.resident_kib();
    // A mebibyte is announced and hardly begun, by many.
    let mut announced = frame(5, &get("k"));
    let length = 1u32 << 20;
    announced[..4].copy_from_slice(&length.to_le_bytes());
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut stream = Raw::tcp(node.addr).await.enter(&node.cluster, CLIENT).await;
        stream.send(&announced).await;
        streams.push(stream);
    }
    assert_all_there(&client, 20).await;
    let after_kib = node.resident_kib();
    assert!(after_kib < before_kib + (32 << 10), "{before_kib} KiB, then {after_kib}");
    drop(streams);
    node.assert_no_panics();
}

#[tokio::test]
async fn a_stranger_is_granted_the_room_of_a_hello_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let node = Child::start(dir.path()).await;
    let client = node.client().await;
    let mut announced = frame(5, &get("k"));
    announced[..4].copy_from_slice(&(1u32 << 20).to_le_bytes());
    let mut stream = Raw::tcp(node.addr).await;
    stream.send(&announced).await;
    let rejected = stream.rejection().await;
    assert!(rejected.to_string().contains("has at most"), "{rejected}");
    counted(&client, "frames_malformed", 1).await;
    // A hello itself is bounded as well.
    let mut stream = Raw::tcp(node.addr).await;
    let mut long = frame(1, &hello(&node.cluster, CLIENT));
    long[..4].copy_from_slice(&(8u32 << 10).to_le_bytes());
    stream.send(&long).await;
    stream.rejection().await;
    counted(&client, "frames_malformed", 2).await;
    node.assert_no_panics();
}
