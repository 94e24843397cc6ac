//! Clients of clusters of Redis at real nodes: what they are told agrees with what operators are, and nothing depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::redis::{NIL, OK, Tcp, bulk, doors};
use super::{Node, Place, eventually};

/// A slot, and who is told to have it, by address, the first one first.
type Told = BTreeMap<u16, Vec<String>>;

/// Four nodes: of each session one is no home; in a table beside it all are.
fn cluster(place: &Place) -> Vec<Node> {
    let config = place.write(
        "cluster.toml",
        "[redis]\nlisten = [\"127.0.0.1:0\"]\ncluster = \"on\"\n\n\
         [[table]]\nname = \"sessions\"\n\n[[table]]\nname = \"others\"\nreplicas = 4\n",
    );
    let more = ["--config", &config, "--down-after", "1s"];
    let nodes = doors(place, "n1", &["n2", "n3", "n4"], &more);
    for node in &nodes {
        eventually("a node that tells of all", || {
            let nodes = Tcp::of(node).say("CLUSTER NODES");
            (nodes.matches(" connected ").count() == 4).then_some(())
        });
    }
    nodes
}

fn door(node: &Node) -> String {
    node.redis.clone().expect("it listens")
}

/// What CLUSTER SLOTS tells.
fn told(client: &mut Tcp) -> Told {
    let answer = client.say("CLUSTER SLOTS");
    let mut lines = answer.split("\r\n");
    let mut next = || lines.next().expect("a line").to_owned();
    let mut number = |kind: char| next().strip_prefix(kind).expect("its kind").parse::<u16>();
    let mut told = Told::new();
    for _ in 0..number('*').expect("a count") {
        let homes = number('*').expect("a count") - 2;
        let (first, last) = (number(':').expect("a slot"), number(':').expect("a slot"));
        let mut addrs = Vec::new();
        for _ in 0..homes {
            assert_eq!(number('*'), Ok(4));
            assert_eq!(number('$'), Ok(9));
            // The IP, which is no number.
            assert!(number('1').is_err());
            let port = number(':').expect("a port");
            assert_eq!(number('$'), Ok(40));
            let _ = number('0');
            assert_eq!(number('*'), Ok(0));
            addrs.push(format!("127.0.0.1:{port}"));
        }
        (first..=last).for_each(|slot| drop(told.insert(slot, addrs.clone())));
    }
    told
}

fn redis_cli(node: &Node, args: &[&str]) -> String {
    let addr = door(node);
    let (host, port) = addr.split_once(':').expect("a port");
    let mut command = Command::new("redis-cli");
    command.args(["-c", "-h", host, "-p", port]).args(args);
    let output = command.stdin(Stdio::null()).output().expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Asks wherever it is sent, and returns the answer and who gave it.
fn follow(nodes: &[&Node], mut at: usize, request: &[&str]) -> (String, usize) {
    for _ in 0..3 {
        let answer = Tcp::of(nodes[at]).ask(request);
        let Some(moved) = answer.strip_prefix("-MOVED ") else { return (answer, at) };
        let to = moved.trim_end().split_once(' ').expect("a slot and an address").1;
        at = nodes.iter().position(|node| door(node) == to).expect("one of these");
    }
    panic!("sent on and on: {request:?}");
}

#[test]
fn what_clients_of_clusters_are_told_agrees_with_what_operators_are() {
    let place = Place::new();
    let nodes = cluster(&place);
    let mut client = Tcp::of(&nodes[0]);
    let told_by_all: Vec<Told> = nodes.iter().map(|node| told(&mut Tcp::of(node))).collect();
    assert!(told_by_all.iter().all(|told| told.len() == 16_384));
    for told in &told_by_all {
        assert!(told.iter().all(|(slot, homes)| homes[0] == told_by_all[0][slot][0]));
    }
    // Key by key.
    let doors: BTreeMap<&str, String> =
        nodes.iter().map(|node| (node.addr.as_str(), door(node))).collect();
    for number in 0..30 {
        let key = format!("k{number}");
        let located = place.run(&["locate", &key, "--json", "--node", &nodes[1].addr]).json();
        let slot = located["slot"].as_u64().expect("a slot");
        assert_eq!(client.say(&format!("CLUSTER KEYSLOT {key}")), format!(":{slot}\r\n"));
        let homes: Vec<&String> = located["homes"]
            .as_array()
            .expect("its homes")
            .iter()
            .map(|home| &doors[home["addr"].as_str().expect("an address")])
            .collect();
        let told = &told_by_all[0][&(slot as u16)];
        assert_eq!(&told[0], homes[0], "{key}");
        assert!(told.iter().all(|addr| homes.contains(&addr)), "{key}");
    }
    // In sum, by CLUSTER NODES and CLUSTER SHARDS too.
    let ring = place.run(&["ring", "--json", "--node", &nodes[0].addr]).json();
    let shares: BTreeMap<String, u64> = ring["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| {
            let primary = node["primary"].as_u64().expect("a share");
            (doors[node["addr"].as_str().expect("an address")].clone(), primary)
        })
        .collect();
    let mut by_slots = BTreeMap::new();
    told_by_all[0].values().for_each(|homes| *by_slots.entry(homes[0].clone()).or_default() += 1);
    assert_eq!(by_slots, shares);
    let lines = client.say("CLUSTER NODES");
    let mut by_nodes = BTreeMap::new();
    for line in lines.lines().filter(|line| line.contains(" connected ")) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0].len(), 40);
        let addr = words[1].split_once('@').expect("a bus").0.to_owned();
        let id = &words[0][28..];
        let node = nodes.iter().find(|node| door(node) == addr).expect("one of these");
        assert_eq!(node.id, id);
        assert_eq!(words[2] == "myself,master", id == nodes[0].id);
        let size = |range: &&str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            last.parse::<u64>().expect("a slot") - first.parse::<u64>().expect("a slot") + 1
        };
        by_nodes.insert(addr, words[8..].iter().map(size).sum::<u64>());
    }
    assert_eq!(by_nodes, shares);
    let shards = client.say("CLUSTER SHARDS");
    let sum: i64 = shards
        .split("$5\r\nslots\r\n")
        .skip(1)
        .flat_map(|shard| {
            let slots = shard.split("$5\r\nnodes").next().expect("its slots");
            slots.lines().skip(1).map(|line| line[1..].parse::<i64>().expect("a slot"))
        })
        .enumerate()
        .map(|(index, slot)| if index % 2 == 0 { -slot } else { slot + 1 })
        .sum();
    assert_eq!((shards.matches("master").count(), sum), (4, 16_384));
    // As one of a cluster.
    let own = format!("{:0>40}", nodes[0].id);
    assert_eq!(client.say("CLUSTER MYID"), bulk(&own));
    assert!(client.say("CLUSTER INFO").contains("cluster_state:ok\r\n"));
    assert!(client.say("INFO cluster").contains("cluster_enabled:1"));
    assert!(client.say("HELLO 2").contains("mode\r\n$7\r\ncluster\r\n"));
    for (asked, answered) in [
        ("ASKING", OK),
        ("READONLY", OK),
        ("READWRITE", OK),
        ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot\r\n"),
        ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range\r\n"),
        ("CLUSTER FOO", "-ERR unknown subcommand 'FOO'. Try CLUSTER HELP.\r\n"),
        ("MGET a b", "-CROSSSLOT Keys in request don't hash to the same slot\r\n"),
        ("MSET {a}1 x {a}2 y DEL z", "-CROSSSLOT Keys in request don't hash to the same slot\r\n"),
    ] {
        assert_eq!(client.say(asked), answered, "{asked}");
    }
}

/// Waits until all nodes answer with a value. A home may learn of a write a moment after it was acknowledged, and if it writes
/// before that, in the same millisecond, the earlier one may be taken for the later.
fn read_everywhere(nodes: &[&Node], key: &str, value: &str) {
    for node in nodes {
        let mut client = Tcp::of(node);
        eventually("what was written", || (client.ask(&["GET", key]) == bulk(value)).then_some(()));
    }
}

#[test]
fn whoever_is_sent_elsewhere_gets_on_there_and_whoever_is_not_here() {
    let place = Place::new();
    let nodes = cluster(&place);
    let nodes: Vec<&Node> = nodes.iter().collect();
    let told = told(&mut Tcp::of(nodes[0]));
    let mut senders = BTreeSet::new();
    for number in 0..40 {
        let key = format!("k{number}");
        let slot = Tcp::of(nodes[0]).say(&format!("CLUSTER KEYSLOT {key}"));
        let slot: u16 = slot[1..].trim_end().parse().expect("a slot");
        for at in 0..nodes.len() {
            let value = format!("{number} by {at}");
            // Through a home it is done at once; by the one that is none it is sent to the first home.
            let (answer, by) = follow(&nodes, at, &["SET", &key, &value]);
            assert_eq!(answer, OK);
            if by != at {
                assert_eq!(door(nodes[by]), told[&slot][0], "{key}");
                senders.insert(at);
            }
            // Whoever insists is answered by any node.
            let mut insists = Tcp::of(nodes[at]);
            let first = insists.ask(&["GET", &key]);
            assert_eq!(first.starts_with(&format!("-MOVED {slot} ")), by != at, "{first}");
            read_everywhere(&nodes, &key, &value);
            let again = format!("{value} again");
            assert_eq!(insists.ask(&["SET", &key, &again]), OK);
            read_everywhere(&nodes, &key, &again);
        }
    }
    assert_eq!(senders.len(), nodes.len(), "each node is no home of something");
    // In a table whose homes are all nodes, nobody is sent away.
    let mut other = Tcp::of(nodes[0]);
    assert_eq!(other.say("SELECT 1"), OK);
    for number in 0..40 {
        assert_eq!(other.say(&format!("GET k{number}")), NIL);
    }
    // Redis' own client goes where it is sent.
    for (at, node) in nodes.iter().enumerate() {
        for number in 0..5 {
            let key = format!("k{number}");
            assert_eq!(redis_cli(node, &["SET", &key, &at.to_string()]), "OK");
            let other = nodes[(at + 1) % nodes.len()];
            eventually("what was written", || {
                (redis_cli(other, &["GET", &key]) == at.to_string()).then_some(())
            });
        }
    }
}

#[test]
fn keys_whose_first_home_is_killed_are_served_by_the_others_and_told_of_there() {
    let place = Place::new();
    let mut nodes = cluster(&place);
    place.run(&["safe-to-stop", "--wait", "60s", "--node", &nodes[3].addr]).ok();
    let before = told(&mut Tcp::of(&nodes[0]));
    let lost = door(&nodes[3]);
    let keys: Vec<(String, u16)> = (0..60)
        .map(|number| {
            let key = format!("k{number}");
            let slot = Tcp::of(&nodes[0]).say(&format!("CLUSTER KEYSLOT {key}"));
            (key, slot[1..].trim_end().parse().expect("a slot"))
        })
        .filter(|(_, slot)| before[slot][0] == lost)
        .collect();
    assert!(keys.len() > 5, "{} of 60", keys.len());
    for (key, _) in &keys {
        assert_eq!(redis_cli(&nodes[0], &["SET", key, "kept"]), "OK");
    }
    let killed = nodes.pop().expect("the fourth");
    drop(killed);
    // It is told of no more.
    for node in &nodes {
        eventually("nobody is told to ask a dead node", || {
            let now = told(&mut Tcp::of(node));
            let is_whole = now.len() == 16_384;
            (is_whole && now.values().all(|homes| !homes.contains(&lost))).then_some(())
        });
        let lines = Tcp::of(node).say("CLUSTER NODES");
        assert_eq!(lines.matches(" connected ").count(), 3, "{lines}");
        assert!(!lines.contains(&lost), "{lines}");
    }
    // And what it had is there, by who is told to have it now.
    for (key, _) in &keys {
        for node in &nodes {
            eventually("what a dead node had", || {
                (redis_cli(node, &["GET", key]) == "kept").then_some(())
            });
        }
        eventually("a write in its place", || {
            (redis_cli(&nodes[0], &["SET", key, "new"]) == "OK").then_some(())
        });
        eventually("what was written", || {
            (redis_cli(&nodes[1], &["GET", key]) == "new").then_some(())
        });
    }
}

#[test]
fn without_cluster_mode_a_node_is_a_redis_of_its_own() {
    let place = Place::new();
    let node = place.node("n1", &[], &["--redis-listen", "127.0.0.1:0"]);
    let mut client = Tcp::of(&node);
    for asked in [
        "CLUSTER SLOTS",
        "CLUSTER INFO",
        "CLUSTER KEYSLOT a",
        "CLUSTER COUNTKEYSINSLOT x",
        "ASKING",
    ] {
        let answer = client.say(asked);
        assert_eq!(answer, "-ERR This instance has cluster support disabled\r\n", "{asked}");
    }
    assert_eq!(client.say("MSET a 1 b 2"), OK);
    assert_eq!(client.say("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    assert!(client.say("INFO").contains("cluster_enabled:0"));
    let members = place.run(&["members", "--json", "--node", &node.addr]).ok();
    let members: Value = serde_json::from_str(&members).expect("a document");
    assert!(!members.to_string().contains(&door(&node)), "it tells nobody: {members}");
}
