//! What a node keeps on disk beside its identity, and what becomes of it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use annulus_client::{Client, NodeStatus, StartOptions};
use rustix::process::Signal;

use crate::child::Child;
use crate::harness::{Node, assert_all_there, counter, settings, settle, store, until, value_of};

/// How this node is, and not another one that the client knows, too.
async fn status(client: &Client, addr: SocketAddr) -> NodeStatus {
    client.node(addr).status().await.unwrap()
}

async fn counted_at(client: &Client, addr: SocketAddr, name: &str, least: u64) {
    until(&format!("{name} reaches {least}"), async || {
        (counter(&status(client, addr).await, name) >= least).then_some(())
    })
    .await;
}

#[tokio::test]
async fn hints_outlive_a_kill_between_write_and_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let a = Child::start(&path("a")).await;
    let b = Child::start_beside(&path("b"), &[&a]).await;
    let c = Child::start_beside(&path("c"), &[&a, &b]).await;
    let (of_a, of_c) = (a.client().await, c.client().await);
    settle(&[&of_a, &b.client().await, &of_c], 3).await;

    // It takes no more writes, and nobody holds it for dead.
    c.signal(Signal::STOP);
    let through_a = of_a.sessions().at(a.addr);
    for number in 0..60 {
        let key = format!("kept {number}");
        through_a.start(key, value_of(number), StartOptions::default()).await.unwrap();
    }
    counted_at(&of_a, a.addr, "hints_saved", 60).await;
    a.kill().await;
    let a = Child::start_beside(&path("a"), &[&b]).await;
    let of_a = a.client().await;
    let restarted = status(&of_a, a.addr).await;
    assert_eq!(counter(&restarted, "hints_restored"), 60);
    assert_eq!(restarted.tables[0].hints, 60);

    c.signal(Signal::CONT);
    until("the hints are gone, from disk too", async || {
        let now = status(&of_a, a.addr).await;
        (now.tables[0].hints == 0 && counter(&now, "hints_unsaved") == 0).then_some(())
    })
    .await;
    until("it has what it missed", async || {
        (status(&of_c, c.addr).await.tables[0].entries == 60).then_some(())
    })
    .await;
    assert_all_there(&of_c, 60).await;
    a.kill().await;
    let a = Child::start_beside(&path("a"), &[&b, &c]).await;
    assert_eq!(counter(&status(&a.client().await, a.addr).await, "hints_restored"), 0);
    for node in [a, b, c] {
        node.assert_no_panics();
        node.kill().await;
    }
}

#[tokio::test]
async fn a_damaged_file_of_what_is_kept_is_set_aside_and_the_node_serves() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let kept = settings.data_dir.join("kept.redb");
    let node = Node::start(settings.clone()).await;
    store(&node.client().await, 10).await;
    node.stop().await;
    assert!(fs::metadata(&kept).unwrap().len() > 0);
    fs::write(&kept, "something else").unwrap();
    let node = Node::start(settings.clone()).await;
    let client = node.client().await;
    assert_all_there(&client, 10).await;
    let status = status(&client, node.addr()).await;
    assert_eq!(counter(&status, "kept_set_aside"), 1);
    assert_eq!(counter(&status, "disk_failing"), 0);
    node.stop().await;
    let aside = settings.data_dir.join("kept.redb.aside.1");
    assert_eq!(fs::read_to_string(aside).unwrap(), "something else");
}

#[tokio::test]
async fn a_node_that_cannot_keep_anything_serves_and_stops_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = settings(&dir.path().join("a"));
    first.mesh.down_after = Duration::from_secs(3_600);
    first.mesh.isolated_after = 3 * first.mesh.down_after;
    // Its place is taken, by something that no file can replace.
    fs::create_dir_all(first.data_dir.join("kept.redb/in the way")).unwrap();
    let mut second = settings(&dir.path().join("b"));
    second.mesh = first.mesh.clone();
    let a = Node::start(first).await;
    second.seeds = vec![a.addr().to_string()];
    let b = Node::start(second).await;
    let of_a = a.client().await;
    settle(&[&of_a, &b.client().await], 2).await;
    assert_eq!(counter(&status(&of_a, a.addr()).await, "kept_not_opened"), 1);
    // With one home gone every write that the other one takes leaves a hint: at R = 3 two are all.
    b.stop().await;
    let _ = of_a.sessions().at(a.addr()).start("key", value_of(1), StartOptions::default()).await;
    counted_at(&of_a, a.addr(), "disk_failures", 1).await;
    let now = status(&of_a, a.addr()).await;
    assert_eq!((now.tables[0].hints, counter(&now, "hints_saved")), (1, 0));
    assert_eq!(counter(&now, "disk_failing"), 1);
    a.stop().await;
}
