//! Nodes that stop and come back one after the other, while clients go on: nothing that was acknowledged is lost,
//! nothing that was ended comes back, and every read is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use annulus_client::{Change, Client, Error, StartOptions, Table, Value};

use super::{Node, Place, Ran, eventually};

const NODES: usize = 5;
/// How many clients go on at the same time.
const CLIENTS: usize = 6;
/// How many sessions each of them writes and reads in turn.
const SESSIONS: usize = 8;

struct Rolling {
    place: Place,
    config: String,
    /// Of its own: while a node is away, its port may be that of another test's node.
    cluster: String,
    nodes: Vec<Node>,
}

/// What a client knows of one session.
#[derive(Default)]
struct Known {
    /// The number that was acknowledged last.
    acknowledged: u64,
    /// The greatest that was sent.
    sent: u64,
    /// Whether an end of it was acknowledged, or may have been done.
    ended: Ended,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Ended {
    #[default]
    No,
    Perhaps,
    Yes,
}

/// What was done in all.
#[derive(Debug, Default)]
struct Done {
    acknowledged: u64,
    refused: u64,
    /// Of what was refused first.
    why: Option<String>,
    reads: u64,
    ends: u64,
}

impl Rolling {
    /// Nodes with so many homes for each session, that agree and are in sync.
    fn start(replicas: u8) -> Self {
        let place = Place::new();
        let table =
            format!("[[table]]\nname = \"sessions\"\nreplicas = {replicas}\nmemory = \"16MiB\"\n");
        let config = place.write("annulus.toml", table);
        let cluster = format!("rolling-{replicas}");
        let mut rolling = Self { place, config, cluster, nodes: Vec::new() };
        for index in 0..NODES {
            let node = rolling.node(index, "127.0.0.1:0");
            rolling.nodes.push(node);
        }
        rolling.settle();
        rolling
    }

    fn node(&self, index: usize, listen: &str) -> Node {
        let seeds: Vec<&str> = self.nodes.iter().map(|node| node.addr.as_str()).collect();
        let more = ["--config", &self.config, "--cluster", &self.cluster];
        self.place.node_at(&format!("n{index}"), listen, &seeds, &more)
    }

    /// What a command says that is told so at a node.
    fn run(&self, args: &[&str], node: &str) -> Ran {
        self.place.run(&[args, &["--node", node, "--cluster", &self.cluster]].concat())
    }

    fn settle(&self) {
        eventually("all nodes agree and are in sync", || {
            let ran = self.run(&["status", "--all", "--json"], &self.nodes[0].addr);
            let document: serde_json::Value = serde_json::from_str(&ran.stdout).ok()?;
            let agreed = document["nodes"].as_array()?.iter().filter(|node| {
                node["agreeing_members"] == NODES
                    && node["member"]["status"] == "up"
                    && node["tables"][0]["slots_unsynced"] == 0
            });
            (agreed.count() == NODES).then_some(())
        });
    }

    /// Stops each node in turn once it is safe to, and starts it again.
    fn roll(&mut self, stop: impl Fn(&mut Node)) {
        for index in 0..NODES {
            let node = &self.nodes[index];
            self.run(&["safe-to-stop", "--wait", "60s"], &node.addr).ok();
            let addr = node.addr.clone();
            stop(&mut self.nodes[index]);
            self.nodes[index] = self.node(index, &addr);
        }
        // Whoever asks the last one asks all others, too.
        let last = &self.nodes[NODES - 1].addr;
        self.run(&["safe-to-stop", "--wait", "60s"], last).ok();
    }

    /// Clients that write, read and end sessions until they are told to stop.
    fn clients(&self, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<(BTreeMap<String, Known>, Done)>> {
        let seeds: Vec<String> = self.nodes.iter().map(|node| node.addr.clone()).collect();
        let (stop, cluster) = (stop.clone(), self.cluster.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for number in 0..CLIENTS {
                    let client = Client::builder().seeds(seeds.clone()).cluster(&cluster);
                    let client =
                        client.without_shared_memory().connect().await.expect("a node answers");
                    let table = client.table("sessions");
                    tasks.spawn(go_on(table, number, stop.clone()));
                }
                tasks.join_all().await
            })
        })
    }

    /// Every session, on every node.
    fn check(&self, known: &BTreeMap<String, Known>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let seeds = self.nodes.iter().map(|node| node.addr.clone());
            let client = Client::builder().seeds(seeds).cluster(&self.cluster);
            let client = client.without_shared_memory().connect().await.expect("a node answers");
            for node in &self.nodes {
                let table = client.table("sessions").at(node.addr.parse().expect("an address"));
                for (key, known) in known {
                    known.check(table.get(key).await, key);
                }
            }
        });
    }
}

impl Known {
    /// A read that began after all of this was known.
    fn check(&self, read: Result<annulus_client::Read, Error>, key: &str) {
        match read {
            Ok(read) => {
                let Value::Bytes(bytes) = &read.session.value else { panic!("{key}: a map") };
                let number: u64 = std::str::from_utf8(bytes).expect("text").parse().expect("one");
                let expected = self.acknowledged..=self.sent;
                assert!(expected.contains(&number), "{key}: {number}, not in {expected:?}");
                assert!(self.ended != Ended::Yes, "{key} was ended, and is back");
            }
            Err(Error::Ended | Error::Absent) if self.ended != Ended::No => {}
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

/// One client's sessions, in turn.
async fn go_on(
    table: Table,
    number: usize,
    stop: Arc<AtomicBool>,
) -> (BTreeMap<String, Known>, Done) {
    let mut done = Done::default();
    let mut known = BTreeMap::new();
    let bytes = |number: u64| Value::Bytes(number.to_string().into_bytes());
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{number}-{}-{}", round % SESSIONS, round / (SESSIONS * 20));
        if !known.contains_key(&key) {
            // It begins before anything else is asked of it.
            let started = table.start(&key, bytes(0), StartOptions::default()).await;
            match started {
                Ok(_) => _ = known.insert(key.clone(), Known::default()),
                Err(error) => {
                    done.note_refusal(&key, &error);
                    continue;
                }
            }
        }
        let of_key = known.get_mut(&key).expect("it was begun");
        of_key.check(table.get(&key).await, &key);
        done.reads += 1;
        if of_key.ended != Ended::No {
            continue;
        }
        if round / SESSIONS % 20 == 15 {
            match table.end(&key, None).await {
                Ok(_) => {
                    of_key.ended = Ended::Yes;
                    done.ends += 1;
                }
                Err(error) => {
                    done.note_refusal(&key, &error);
                    of_key.ended = Ended::Perhaps;
                }
            }
            continue;
        }
        of_key.sent += 1;
        let change = Change::Value(bytes(of_key.sent));
        match table.update(&key, None, change).await {
            Ok(_) => {
                of_key.acknowledged = of_key.sent;
                done.acknowledged += 1;
            }
            Err(error) => {
                done.note_refusal(&key, &error);
            }
        }
    }
    (known, done)
}

impl Done {
    /// A write may be refused while too few homes are there, and may be in doubt: nothing else.
    fn note_refusal(&mut self, key: &str, error: &Error) {
        let may =
            matches!(error, Error::Unavailable { .. } | Error::TimedOut | Error::NoNode { .. });
        assert!(may, "{key}: {error}");
        self.refused += 1;
        self.why.get_or_insert_with(|| format!("{key}: {error}"));
    }
}

fn roll(replicas: u8, stop_node: impl Fn(&mut Node)) -> Done {
    let mut rolling = Rolling::start(replicas);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = rolling.clients(&stop);
    rolling.roll(stop_node);
    stop.store(true, Ordering::Relaxed);
    let mut all = Done::default();
    for (known, done) in clients.join().expect("no promise was broken") {
        rolling.check(&known);
        all.acknowledged += done.acknowledged;
        all.refused += done.refused;
        all.why = all.why.or(done.why);
        all.reads += done.reads;
        all.ends += done.ends;
    }
    assert!(all.acknowledged > 100 && all.reads > 100 && all.ends > 0, "{all:?}");
    all
}

#[test]
fn five_nodes_restart_in_turn_with_two_homes_each_and_nothing_is_lost_or_revived() {
    roll(2, |node| {
        node.terminate();
        let (status, stderr) = node.finish();
        assert!(status.success(), "{status}: {stderr}");
    });
}

#[test]
fn five_nodes_are_killed_in_turn_with_three_homes_each_and_every_write_is_done() {
    let done = roll(3, |node| {
        node.child.kill().expect("it runs");
        node.child.wait().expect("it ends");
    });
    assert_eq!(done.refused, 0, "{done:?}");
}
