//! What keeps a node from starting, or makes it give up: each with the setting to change.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use annulus_client::StartOptions;
use annulus_net::{SystemClock, TokioNet};
use annulus_node::{NodeSettings, RunError};

use crate::harness::{
    Node, assert_all_there, bytes, counted, counter, settings, settle, store, table, until,
};
use crate::names::{Names, SILENT};

async fn refusal(settings: NodeSettings) -> RunError {
    match Node::try_start(settings, TokioNet::new(), SystemClock).await {
        Ok(node) => panic!("it started at {}", node.addr()),
        Err(error) => error,
    }
}

fn files(dir: &Path) -> BTreeSet<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(dir).unwrap().map(name).collect()
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for listen in [tcp.local_addr().unwrap(), udp.local_addr().unwrap()] {
        let error = refusal(NodeSettings { listen, ..settings(dir.path()) }).await;
        assert!(matches!(error, RunError::Listen { addr, .. } if addr == listen), "{error}");
        let text = error.to_string();
        assert!(text.contains("`listen`") && text.contains(&listen.to_string()), "{text}");
    }
    // Another node's port is no other case, and an address of another host neither.
    let node = Node::start(settings(&dir.path().join("first"))).await;
    let listen = node.addr();
    assert!(matches!(
        refusal(NodeSettings { listen, ..settings(dir.path()) }).await,
        RunError::Listen { .. }
    ));
    let listen = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = refusal(NodeSettings { listen, ..settings(dir.path()) }).await;
    assert!(matches!(error, RunError::Listen { .. }), "{error}");
    node.stop().await;
    // Nothing is left of the failures: the very same directory serves.
    Node::start(settings(dir.path())).await.stop().await;
}

#[tokio::test]
async fn a_socket_path_in_use_is_an_error_and_a_stale_one_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(&dir.path().join("first"))).await;
    let taken = node.socket().to_owned();
    let second = || settings(&dir.path().join("second"));
    let error = refusal(NodeSettings { socket: Some(taken.clone()), ..second() }).await;
    assert!(matches!(&error, RunError::Socket { path, .. } if *path == taken), "{error}");
    assert!(error.to_string().contains("`socket`"), "{error}");
    assert_all_there(&node.client().await, 0).await;
    node.stop().await;

    // A file that is no socket is somebody's, and stays.
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let error = refusal(NodeSettings { socket: Some(file.clone()), ..second() }).await;
    assert!(matches!(error, RunError::Socket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let long = dir.path().join("x".repeat(200));
    let error = refusal(NodeSettings { socket: Some(long), ..second() }).await;
    assert!(matches!(error, RunError::Socket { .. }), "{error}");

    // One that a killed node left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&taken).unwrap());
    assert!(taken.exists());
    Node::start(NodeSettings { socket: Some(taken), ..second() }).await.stop().await;
}

#[tokio::test]
async fn two_nodes_cannot_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    let state = fs::read(dir.path().join("data/node.toml")).unwrap();
    let other = NodeSettings { socket: None, ..settings(dir.path()) };
    let error = refusal(other.clone()).await;
    let text = error.to_string();
    assert!(matches!(error, RunError::DataDir { .. }), "{text}");
    assert!(text.contains("data_dir") && text.contains("another node is running"), "{text}");
    // As `annulus node` runs it.
    let error = annulus_node::run(other, |_| panic!("it started")).await.unwrap_err();
    assert_eq!(error.to_string(), text);
    assert_eq!(fs::read(dir.path().join("data/node.toml")).unwrap(), state);
    node.stop().await;
}

#[tokio::test]
async fn a_data_directory_that_is_none_is_an_error_that_names_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for data_dir in [file.clone(), file.join("below")] {
        let error = refusal(NodeSettings { data_dir, ..settings(dir.path()) }).await;
        assert!(matches!(error, RunError::DataDir { .. }), "{error}");
        assert!(error.to_string().contains("data_dir"), "{error}");
    }
    let error = refusal(NodeSettings { shm_dir: file, ..settings(dir.path()) }).await;
    assert!(matches!(error, RunError::Table { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_state_file_is_an_error_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path())).await;
    store(&node.client().await, 20).await;
    node.stop().await;
    let path = dir.path().join("data/node.toml");
    let good = fs::read_to_string(&path).unwrap();
    let with = |key: &str, value: &str| {
        let line = |line: &str| match line.starts_with(key) {
            true => format!("{key} = {value}\n"),
            false => format!("{line}\n"),
        };
        good.lines().map(line).collect::<String>()
    };
    let damaged: [Vec<u8>; 12] = [
        Vec::new(),
        good.as_bytes()[..good.len() / 2].to_vec(),
        good.replace("id = ", "ID = ").into(),
        format!("surprise = 1\n{good}").into(),
        vec![0; 200],
        b"\xff\xfe\x00".to_vec(),
        with("id", "-1").into(),
        with("id", "281474976710656").into(),
        with("incarnation", "9223372036854775807").into(),
        with("clock_ceiling_ms", "9223372036854775807").into(),
        with("members", "[{ id = 1 }]").into(),
        // As an earlier build kept them.
        format!("peers = [\"nobody\"]\n{good}").into(),
    ];
    for damaged in damaged {
        fs::write(&path, &damaged).unwrap();
        let before = files(&dir.path().join("shm"));
        let error = refusal(settings(dir.path())).await;
        let text = error.to_string();
        assert!(matches!(error, RunError::StateDamaged(_)), "{text}: {damaged:?}");
        assert!(text.contains("node.toml in data_dir"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "overwritten");
        assert_eq!(files(&dir.path().join("shm")), before);
    }
    // Restored, it goes on where it was.
    fs::write(&path, good).unwrap();
    let node = Node::start(settings(dir.path())).await;
    assert_all_there(&node.client().await, 20).await;
    node.stop().await;
}

#[tokio::test]
async fn a_full_file_system_is_an_error_at_the_start_that_says_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let fs = rustix::fs::statvfs(dir.path()).unwrap();
    let free = fs.f_bavail * fs.f_frsize;
    let memory = free + (1 << 30);
    let error =
        refusal(NodeSettings { tables: vec![table(memory, 64 << 10)], ..settings(dir.path()) })
            .await;
    let text = error.to_string();
    let RunError::NoRoom { needed, .. } = error else { panic!("{text}") };
    // Its shards are whole huge pages.
    assert!(needed <= memory && needed + (4 << 20) > memory);
    assert!(text.contains("`memory`") && text.contains("`shm_dir`"), "{text}");
    assert!(text.contains(&needed.to_string()) && text.contains("free"), "{text}");
    assert_eq!(files(&dir.path().join("shm")), BTreeSet::new(), "left behind");
    Node::start(settings(dir.path())).await.stop().await;
}

#[tokio::test]
async fn a_table_too_small_for_its_values_is_an_error_at_the_start_with_the_size_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    for (memory, max_value) in [(256 << 10, 1 << 20), (4_096, 1_000), (0, 1_000)] {
        let tables = vec![table(memory, max_value)];
        let error = refusal(NodeSettings { tables, ..settings(dir.path()) }).await;
        let text = error.to_string();
        assert!(text.contains("`memory`") && text.contains("`max_value`"), "{text}");
        // The size that it names is one that works.
        let needed = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).max();
        let tables = vec![table(needed.unwrap(), max_value)];
        let part = dir.path().join(memory.to_string());
        let node = Node::start(NodeSettings { tables, ..settings(&part) }).await;
        let value = bytes(vec![7; max_value as usize]);
        let client = node.client().await;
        client.start("k", value.clone(), StartOptions::default()).await.unwrap();
        assert_eq!(client.get("k").await.unwrap().session.value, value);
        node.stop().await;
    }
    assert_eq!(files(&dir.path().join("shm")), BTreeSet::new(), "left behind");
}

/// Symptom: a node never joined although one of its seeds was there. Cause: seeds were looked up one
/// after the other without a deadline, and the server of the first one's name did not answer. Fix:
/// all at once, a second each.
#[tokio::test]
async fn seeds_that_do_not_resolve_are_counted_and_tried_again_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start(settings(&dir.path().join("first"))).await;
    let net = Names::default();
    let mut second = settings(&dir.path().join("second"));
    second.core.join_timeout = Duration::from_millis(300);
    let seeds = [SILENT, "known-later:7946", "never:7946"];
    second.seeds = seeds.map(str::to_owned).into();
    let second = Node::start_on(second, net.clone(), SystemClock).await;
    let client = second.client().await;
    // It says so, and serves alone after a while.
    counted(&client, "seeds_not_resolved", 3).await;
    counted(&client, "joined_alone", 1).await;
    store(&client, 20).await;
    let status = client.any_node().status().await.unwrap();
    assert_eq!((status.active_members, counter(&status, "views_exchanged")), (1, 0));
    // It has not given up.
    net.know("known-later:7946", vec![first.addr()]);
    settle(&[&client, &first.client().await], 2).await;
    assert_all_there(&first.client().await, 20).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn of_two_nodes_with_a_copied_data_directory_one_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start(settings(&dir.path().join("0"))).await;
    let with_seed = |name: &str| NodeSettings {
        seeds: vec![first.addr().to_string()],
        ..settings(&dir.path().join(name))
    };
    let second = Node::start(with_seed("1")).await;
    let third = Node::start(with_seed("2")).await;
    let (a, b, c) = (first.client().await, second.client().await, third.client().await);
    settle(&[&a, &b, &c], 3).await;
    store(&a, 50).await;

    // Its state copied, its segments not: as on another host.
    let copied = with_seed("copy");
    fs::create_dir_all(&copied.data_dir).unwrap();
    fs::copy(dir.path().join("1/data/node.toml"), copied.data_dir.join("node.toml")).unwrap();
    let copy = Node::start(copied).await;
    let id = second.ready.node;
    assert_eq!(copy.ready.node, id);
    until("one of the two gives up", async || {
        (copy.has_ended() || second.has_ended()).then_some(())
    })
    .await;
    let (loser, survivor) = if copy.has_ended() { (copy, second) } else { (second, copy) };
    let error = loser.error().await;
    let text = error.to_string();
    assert!(matches!(error, RunError::IdInUse { id: theirs, .. } if theirs == id), "{text}");
    assert!(text.contains("data_dir was copied") && text.contains("node.toml"), "{text}");

    // The three that are left go on as if nothing had been.
    let b = survivor.client().await;
    settle(&[&a, &b, &c], 3).await;
    for client in [&a, &b, &c] {
        assert_all_there(client, 50).await;
        client.start("after", bytes("x"), StartOptions::default()).await.unwrap();
    }
    assert!(!first.has_ended() && !third.has_ended() && !survivor.has_ended());

    // With its segments too, on the same host, a copy does not even start.
    let copied = NodeSettings { shm_dir: dir.path().join("0/shm"), ..with_seed("again") };
    fs::create_dir_all(&copied.data_dir).unwrap();
    fs::copy(dir.path().join("0/data/node.toml"), copied.data_dir.join("node.toml")).unwrap();
    let error = refusal(copied).await;
    let text = error.to_string();
    assert!(matches!(error, RunError::Table { .. }), "{text}");
    assert!(text.contains("in use") && text.contains(&format!("node {}", first.ready.node)));
    for node in [first, survivor, third] {
        node.stop().await;
    }
}
