//! Keys and values at their bounds and beyond.

use annulus_client::{Change, Client, Error, KeyError, StartOptions, Value, Via};
use annulus_proto::message::{Message, Rejected, SessionReply};

use crate::harness::{Node, bytes, counted, settings, table};
use crate::wire::{CLIENT, Raw, RawUdp, datagram, frame, get, with_key};

async fn clients(node: &Node) -> Vec<(Via, Client)> {
    let mut clients = Vec::new();
    for via in [Via::Tcp, Via::Local, Via::Udp] {
        let builder = Client::builder().cluster(&node.cluster).seed(node.addr().to_string());
        let builder = builder.local_socket(node.socket()).without_shared_memory().via(via);
        clients.push((via, builder.connect().await.unwrap()));
    }
    clients
}

#[tokio::test]
async fn keys_of_any_bytes_work_and_impossible_ones_are_refused_before_they_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    keys.extend([vec![0; 255], vec![255; 255], b"{}".to_vec(), b"}{\0".to_vec(), vec![0, 0]]);
    for (via, client) in clients(&node).await {
        for key in &keys {
            let started = client.start(key, bytes(key), StartOptions::default()).await;
            started.unwrap_or_else(|error| panic!("{via:?}, {key:?}: {error}"));
        }
        for key in &keys {
            assert_eq!(client.get(key).await.unwrap().session.value, bytes(key), "{via:?}");
        }
        assert_eq!(client.get("").await, Err(Error::Key(KeyError::Empty)));
        let started = client.start([7; 256], bytes("x"), StartOptions::default()).await;
        assert_eq!(started, Err(Error::Key(KeyError::TooLong(256))));
        assert_eq!(client.end([7; 256], None).await, Err(Error::Key(KeyError::TooLong(256))));
    }
    node.stop().await;
}

#[tokio::test]
async fn impossible_keys_in_frames_are_malformed_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let watcher = node.client().await;
    let plain = frame(5, &get("k"));
    let long = [b'x'; 256];
    for (round, key) in [&b""[..], &long].into_iter().enumerate() {
        let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await;
        tcp.send(&with_key(&plain, key)).await;
        let rejected = tcp.rejection().await;
        let Rejected::Malformed { why } = &rejected else { panic!("{rejected}") };
        assert!(why.contains("a key has 1 to 255"), "{why}");
        let mut local = Raw::local(node.socket()).await.enter(&node.cluster, CLIENT).await;
        local.send(&with_key(&plain, key)).await;
        assert_eq!(local.rejection().await, rejected);
        counted(&watcher, "frames_malformed", 2 * (round as u64 + 1)).await;

        let mut udp = RawUdp::to(node.addr(), &node.cluster).await;
        udp.send(&with_key(&datagram(&node.cluster, 5, &get("k")), key)).await;
        assert_eq!(udp.fence().await, [], "no answer to what is no message");
        counted(&watcher, "datagrams_malformed", round as u64 + 1).await;
    }
    // The very same with the longest key that there is.
    let mut tcp = Raw::tcp(node.addr()).await.enter(&node.cluster, CLIENT).await;
    tcp.send(&with_key(&plain, &long[..255])).await;
    let answer = tcp.next().await;
    assert!(matches!(answer, Some((_, Message::SessionReply(SessionReply::Failed(_))))));
    node.stop().await;
}

#[tokio::test]
async fn a_value_at_max_value_is_stored_and_one_byte_more_is_too_large_on_every_way() {
    let dir = tempfile::tempdir().unwrap();
    for limit in [1_000u32, 64 << 10, 1 << 20] {
        let part = dir.path().join(limit.to_string());
        let node = Node::start(annulus_node::NodeSettings {
            tables: vec![table(10 << 20, limit)],
            ..settings(&part)
        })
        .await;
        let (size, limit) = (limit as usize, u64::from(limit));
        let too_large = Err(Error::TooLarge { size: limit + 1, limit });
        for (via, client) in clients(&node).await {
            let key = format!("{via:?}");
            let value = bytes(vec![7; size]);
            client.start(&key, value.clone(), StartOptions::default()).await.unwrap();
            assert_eq!(client.get(&key).await.unwrap().session.value, value, "{key}, {limit}");
            let more = bytes(vec![8; size + 1]);
            let started = client.start("more", more.clone(), StartOptions::default()).await;
            assert_eq!(started, too_large, "{key}");
            assert_eq!(client.update(&key, None, Change::Value(more)).await, too_large, "{key}");
            assert_eq!(client.get("more").await, Err(Error::Absent));
            assert_eq!(client.get(&key).await.unwrap().session.value, value, "{key}");

            // A map counts its names and 40 bytes for each field.
            let fields = |size: usize| [(b"f".to_vec(), vec![9; size - 41])].into();
            let map = Value::Map(fields(size));
            client.start(&key, map.clone(), StartOptions::default()).await.unwrap();
            let more = Change::Fields { set: fields(size + 1), delete: Vec::new() };
            assert_eq!(client.update(&key, None, more).await, too_large, "{key}");
            assert_eq!(client.get(&key).await.unwrap().session.value, map, "{key}");
            client.end(&key, None).await.unwrap();
        }
        counted(&node.client().await, "failures_too_large", 9).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_says_so_instead() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let client = node.client().await;
    client.start("large", bytes([7; 1_400]), StartOptions::default()).await.unwrap();
    client.start("small", bytes([7; 1_000]), StartOptions::default()).await.unwrap();
    let mut udp = RawUdp::to(node.addr(), &node.cluster).await;
    udp.send(&datagram(&node.cluster, 5, &get("large"))).await;
    assert_eq!(udp.fence().await, [Message::Rejected(Rejected::AskOverStream)]);
    udp.send(&datagram(&node.cluster, 6, &get("small"))).await;
    let answers = udp.fence().await;
    assert!(matches!(answers[..], [Message::SessionReply(SessionReply::Session(_))]));
    counted(&client, "datagrams_too_large", 1).await;
    node.stop().await;
}
