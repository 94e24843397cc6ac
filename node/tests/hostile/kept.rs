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
    // A node whose disk is slow for a moment has another home stamp, which then keeps the hint.
    let mut written = 0;
    let kept = until("it has some hints, and all of them on disk", async || {
        let now = status(&of_a, a.addr).await;
        let hints = now.tables[0].hints;
        if hints < 40 {
            let (key, value) = (format!("kept {written}"), value_of(written));
            through_a.start(key, value, StartOptions::default()).await.unwrap();
            written += 1;
        }
        let is_open = |name| counter(&now, name) > 0;
        (hints >= 40 && !is_open("requests_waiting") && !is_open("hints_unsaved")).then_some(hints)
    })
    .await;
    a.kill().await;
    let a = Child::start_beside(&path("a"), &[&b]).await;
    let of_a = a.client().await;
    let restarted = status(&of_a, a.addr).await;
    assert_eq!(counter(&restarted, "hints_restored"), kept);
    assert_eq!(restarted.tables[0].hints, kept);

    c.signal(Signal::CONT);
    until("the hints are gone, from disk too", async || {
        let now = status(&of_a, a.addr).await;
        (now.tables[0].hints == 0 && counter(&now, "hints_unsaved") == 0).then_some(())
    })
    .await;
    until("it has what it missed", async || {
        (status(&of_c, c.addr).await.tables[0].entries == written as u64).then_some(())
    })
    .await;
    assert_all_there(&of_c, written).await;
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
    assert!(counter(&now, "disk_failing") > 0);
    a.stop().await;
}
