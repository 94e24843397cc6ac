//! The baskets in real processes: each of them takes what is put in at the same time, one is killed meanwhile, and
//! everything that was acknowledged is there.

#[path = "shared/addr.rs"]
mod addr;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use annulus_client::{Change, Client, StartOptions, Table, Value};

use addr::free_addr;

/// Longer than anything takes, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(180);
const PROCESSES: usize = 3;
const ITEMS: usize = 30;

struct Process(Child);

impl Process {
    fn start(dir: &Path, node: SocketAddr, nodes: &[SocketAddr]) -> Self {
        let seeds: Vec<String> =
            nodes.iter().filter(|other| **other != node).map(SocketAddr::to_string).collect();
        let child = Command::new(env!("CARGO_BIN_EXE_annulus-baskets"))
            .args(["--listen", &node.to_string(), "--cluster", &cluster()])
            .args(["--seeds", &seeds.join(","), "--data-dir"])
            .arg(dir.join(node.port().to_string()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cluster() -> String {
    format!("baskets-{}", std::process::id())
}

/// Puts items in, one after the other, until each is acknowledged.
async fn put_in(table: Table, items: Vec<String>) {
    let began = Instant::now();
    for item in items {
        let change = Change::Value(Value::Bytes(item.clone().into_bytes()));
        while let Err(error) = table.update("ada", None, change.clone()).await {
            assert!(began.elapsed() < LIMIT, "{item}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What is in the basket as this node sees it.
async fn items(table: &Table) -> Vec<String> {
    let Ok(read) = table.fetch("ada").await else { return Vec::new() };
    let Value::Bytes(basket) = read.session.value else { panic!("a basket is bytes") };
    String::from_utf8(basket).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_put_in_at_the_same_time_is_in_the_basket() {
    let dir = tempfile::tempdir().unwrap();
    let nodes: Vec<SocketAddr> = (0..PROCESSES).map(|_| free_addr()).collect();
    let mut processes: Vec<Process> =
        nodes.iter().map(|node| Process::start(dir.path(), *node, &nodes)).collect();
    let began = Instant::now();
    let client = loop {
        let seeds = nodes.iter().map(SocketAddr::to_string);
        match Client::builder().cluster(cluster()).seeds(seeds).connect().await {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < LIMIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let table = client.table("sessions");
    // All three are to be its homes before it is begun.
    let is_held = async |table: &Table| {
        let empty = Value::Bytes(Vec::new());
        let started = table.start("ada", empty, StartOptions::default()).await;
        started.is_ok_and(|started| usize::from(started.homes) == PROCESSES)
    };
    while !is_held(&table).await {
        assert!(began.elapsed() < LIMIT, "the cluster does not form");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let name = |node: usize, item: usize| format!("item {item:02} of {node}");
    let putting: Vec<_> = (0..PROCESSES)
        .map(|node| {
            let items = (0..ITEMS).map(|item| name(node, item)).collect();
            tokio::spawn(put_in(table.at(nodes[node]), items))
        })
        .collect();
    // In the midst of it.
    while items(&table).await.len() < ITEMS {
        assert!(began.elapsed() < LIMIT, "nothing is put in");
    }
    drop(processes.pop());
    processes.push(Process::start(dir.path(), nodes[2], &nodes));
    for putting in putting {
        putting.await.unwrap();
    }
    let mut wanted: Vec<String> =
        (0..PROCESSES).flat_map(|node| (0..ITEMS).map(move |item| name(node, item))).collect();
    wanted.sort();
    for node in nodes {
        let table = table.at(node);
        while items(&table).await != wanted {
            assert!(began.elapsed() < LIMIT, "{node} has {:?}", items(&table).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
