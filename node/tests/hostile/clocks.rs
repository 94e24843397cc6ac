//! A clock that is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_client::{Change, StartOptions};
use annulus_net::{Clock, SystemClock, TokioNet};
use annulus_node::NodeSettings;

use crate::harness::{
    Node, assert_all_there, bytes, counter, read, settings, settle, store, until,
};

/// This host's clocks, the wall clock ahead.
#[derive(Clone, Default)]
struct Ahead(Arc<AtomicU64>);

impl Clock for Ahead {
    fn wall_ms(&self) -> u64 {
        SystemClock.wall_ms() + self.0.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
    fn monotonic_coarse_ms(&self) -> u64 {
        SystemClock.monotonic_coarse_ms()
    }
}

const HOUR_MS: u64 = 3_600_000;

#[tokio::test]
async fn a_node_an_hour_ahead_stamps_nothing_says_so_and_lets_nothing_expire() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start(settings(&dir.path().join("0"))).await;
    let with_seed = |number: usize| NodeSettings {
        seeds: vec![first.addr().to_string()],
        ..settings(&dir.path().join(number.to_string()))
    };
    let second = Node::start(with_seed(1)).await;
    let ahead = Ahead::default();
    ahead.0.store(HOUR_MS, Ordering::Relaxed);
    let third = Node::start_on(with_seed(2), TokioNet::new(), ahead.clone()).await;
    let (a, b, c) = (first.client().await, second.client().await, third.client().await);
    settle(&[&a, &b, &c], 3).await;
    until("the node knows that its clock is wrong", async || {
        let off = counter(&c.any_node().status().await.unwrap(), "clock_off_by_ms");
        (off > HOUR_MS - 1_000 && off < HOUR_MS + 1_000).then_some(())
    })
    .await;
    for client in [&a, &b] {
        let status = client.any_node().status().await.unwrap();
        assert_eq!(counter(&status, "clock_off_by_ms"), 0);
    }
    let latest = SystemClock.wall_ms() + HOUR_MS / 2;
    let brief = || StartOptions { idle: Some(Duration::from_secs(600)), ..Default::default() };
    for number in 0..60 {
        let key = format!("key {number}");
        // Through the wrong node too: it has somebody else stamp.
        let table = match number % 3 {
            0 => a.sessions().clone(),
            1 => b.sessions().clone(),
            _ => c.sessions().at(third.addr()),
        };
        let started = table.start(&key, bytes("one"), brief()).await.unwrap();
        let updated =
            table.update(&key, Some(started.birth), Change::Value(bytes("two"))).await.unwrap();
        table.touch(&key, Some(started.birth)).await.unwrap();
        for version in [started.birth, updated.version] {
            assert_ne!(version.node, third.ready.node, "{key}");
            assert!(version.hlc.ms() < latest, "{key}: {version}");
        }
    }
    for client in [&a, &b, &c] {
        for number in 0..60 {
            let read = read(client, &format!("key {number}")).await;
            assert_eq!(read.session.value, bytes("two"));
            assert!(read.session.touched < latest, "touched in the future");
            assert!(read.session.deadline < latest, "a deadline an hour late");
        }
    }
    // Set right, it stamps again.
    ahead.0.store(0, Ordering::Relaxed);
    until("its clock counts again", async || {
        let status = c.any_node().status().await.unwrap();
        (counter(&status, "clock_off_by_ms") == 0).then_some(())
    })
    .await;
    until("it stamps", async || {
        for number in 0..60 {
            let key = format!("again {number}");
            let table = c.sessions().at(third.addr());
            let started = table.start(&key, bytes("x"), brief()).await.ok()?;
            assert!(started.version.hlc.ms() < latest);
            if started.version.node == third.ready.node {
                return Some(());
            }
        }
        None
    })
    .await;
    for node in [first, second, third] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_wall_clock_that_jumps_under_a_lone_node_loses_nothing_it_stamped() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = Ahead::default();
    ahead.0.store(HOUR_MS, Ordering::Relaxed);
    let node = Node::start_on(settings(dir.path()), TokioNet::new(), ahead.clone()).await;
    let client = node.client().await;
    store(&client, 20).await;
    let before = client.start("k", bytes("one"), StartOptions::default()).await.unwrap();
    // An hour back, as NTP sets it; and it stays so over a restart.
    ahead.0.store(0, Ordering::Relaxed);
    let after = client.update("k", None, Change::Value(bytes("two"))).await.unwrap();
    assert!(after.version > before.version);
    node.stop().await;
    let node = Node::start_on(settings(dir.path()), TokioNet::new(), ahead).await;
    let client = node.client().await;
    let again = client.start("k", bytes("three"), StartOptions::default()).await.unwrap();
    assert!(again.version > after.version);
    assert_all_there(&client, 20).await;
    node.stop().await;
}
