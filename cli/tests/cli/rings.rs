//! Rings that nodes of their own serve.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use serde_json::Value;

use super::{Node, Place, eventually};

/// Sessions cool within seconds, to a file on disk of the nodes that serve ring 1.
const TABLES: &str = r#"
[[table]]
name = "sessions"
half_life = "1s"

[[table.ring]]
name = "cold"
after = "2s"
replicas = 2
storage = "disk"
"#;

struct Rings {
    place: Place,
    config: String,
    seed: String,
}

impl Rings {
    /// Three nodes that serve the innermost ring alone, and then two that serve the other one alone.
    fn start() -> (Self, Vec<Node>, Vec<Node>) {
        Self::start_in(Place::new(), TABLES)
    }

    fn start_in(place: Place, tables: &str) -> (Self, Vec<Node>, Vec<Node>) {
        let config = place.write("rings.toml", tables);
        let mut rings = Self { place, config, seed: String::new() };
        let first = rings.node("inner1", "0");
        rings.seed = first.addr.clone();
        let inner = vec![first, rings.node("inner2", "0"), rings.node("inner3", "0")];
        let outer = vec![rings.node("outer1", "1"), rings.node("outer2", "1")];
        rings.settled(5);
        (rings, inner, outer)
    }

    fn node(&self, name: &str, rings: &str) -> Node {
        let seeds: Vec<&str> =
            Some(self.seed.as_str()).filter(|it| !it.is_empty()).into_iter().collect();
        self.place.node(name, &seeds, &["--config", &self.config, "--rings", rings])
    }

    /// Waits until so many nodes agree, and miss nothing on any ring.
    fn settled(&self, count: usize) {
        eventually("nodes that agree", || {
            let ran = self.place.run(&["status", "--all", "--json", "--node", &self.seed]);
            let document: Value = serde_json::from_str(&ran.stdout).ok()?;
            let is_synced = |node: &Value| {
                let tables = node["tables"].as_array().expect("a list");
                tables.len() == 2 && tables.iter().all(|table| table["slots_unsynced"] == 0)
            };
            let agreed = document["nodes"].as_array()?.iter().filter(|node| {
                node["agreeing_members"] == count
                    && node["active_members"] == count
                    && is_synced(node)
            });
            (agreed.count() == count).then_some(())
        });
    }

    /// How many entries a node holds of a table.
    fn entries(&self, node: &Node, table: &str) -> u64 {
        let status = self.place.run(&["status", "--json", "--node", &node.addr]).json();
        let tables = status["tables"].as_array().expect("a list");
        let one = tables.iter().find(|it| it["name"] == table);
        one.expect("the table")["entries"].as_u64().expect("a number")
    }

    fn until_they_are_on_disk(&self, at: &Node, keys: &[String]) {
        eventually("all to have gone outward", || {
            let moved = |key: &String| {
                let ran = self.place.run(&["explain", key, "--json", "--node", &at.addr]);
                let homes = ran.json()["homes"].as_array().expect("a list").clone();
                homes.iter().all(|home| home["state"] == "moved" && home["ring"] == 1)
            };
            keys.iter().all(moved).then_some(())
        });
    }
}

#[test]
fn sessions_cool_to_nodes_that_serve_nothing_else_and_come_back_whoever_dies() {
    let (rings, mut inner, mut outer) = Rings::start();
    let keys: Vec<String> = (0..20).map(|number| format!("secret-{number:02}")).collect();
    let place = &rings.place;
    for (number, key) in keys.iter().enumerate() {
        place.run(&["start", key, key, "--node", &inner[number % 3].addr]).ok();
    }
    rings.until_they_are_on_disk(&inner[0], &keys);
    for node in &outer {
        assert_eq!(rings.entries(node, "sessions@cold"), 20);
        assert_eq!(rings.entries(node, "sessions"), 0);
    }
    // A process of a host that serves no innermost ring is a client as others are.
    let get = |key: &str, node: &Node| place.run(&["get", key, "--socket", &node.socket]);
    assert_eq!(get(&keys[0], &outer[1]).ok(), keys[0]);
    eventually("it to be where its homes are", || {
        let explained = place.run(&["explain", &keys[0], "--json", "--node", &inner[0].addr]);
        let homes = explained.json()["homes"].as_array()?.clone();
        homes.iter().all(|home| home["state"] == "alive").then_some(())
    });

    rings.until_they_are_on_disk(&inner[0], &keys);
    // Killed, as `Node` does when it goes. What is on disk survives that.
    drop(inner.remove(1));
    drop(outer.remove(0));
    for (number, key) in keys.iter().enumerate() {
        let node = [&inner[0], &inner[1], &outer[0]][number % 3];
        let read = eventually("a session", || {
            let read = get(key, node);
            (read.code == 0).then(|| read.ok())
        });
        assert_eq!(read, *key);
    }
    place.run(&["end", &keys[1], "--node", &inner[0].addr]).ok();
    outer.insert(0, rings.node("outer1", "1"));
    rings.settled(4);
    get(&keys[1], &outer[0]).fails(3);
    assert_eq!(get(&keys[2], &outer[0]).ok(), keys[2]);
}

#[test]
fn where_no_node_serves_the_ring_sessions_stay_and_the_status_says_so() {
    let place = Place::new();
    let config = place.write("rings.toml", TABLES);
    let mut rings = Rings { place, config, seed: String::new() };
    let inner = rings.node("inner1", "0");
    rings.seed = inner.addr.clone();
    let status = || rings.place.run(&["status", "--node", &inner.addr]).ok();
    let lacks = "sessions@cold: lacks 1 members that serve it: sessions stay further in";
    let said = status();
    assert!(said.contains(lacks), "{said}");
    rings.place.run(&["start", "secret", "v", "--node", &inner.addr]).ok();
    let seed = [rings.seed.as_str()];
    let more = ["--config", &rings.config, "--rings", "1", "--on-stop", "leave"];
    let outer = rings.place.node("outer1", &seed, &more);
    rings.settled(2);
    let said = status();
    assert!(!said.contains("lacks"), "{said}");
    rings.until_they_are_on_disk(&inner, &["secret".to_owned()]);
    assert_eq!(rings.entries(&outer, "sessions@cold"), 1);
    outer.terminate();
    eventually("it to be said again", || status().contains(lacks).then_some(()));
}

/// Of nothing that cools meanwhile.
const FACING: &str = r#"
[[table]]
name = "sessions"
memory = "16MiB"

[[table.ring]]
name = "cold"
after = "1h"
replicas = 2
"#;
const FACING_BYTES: u64 = 16 << 20;
const NO_MEMORY: &str = "sessions: no memory reserved: no process of this host has read";

impl Rings {
    /// What a node's segment of the innermost ring takes.
    fn taken(&self, node: &str) -> u64 {
        let files = fs::read_dir(self.place.path(&format!("{node}/shm"))).expect("a directory");
        let mut paths = files.map(|file| file.expect("readable").path());
        let is_inner = |path: &std::path::PathBuf| path.to_string_lossy().ends_with("-sessions");
        let path = paths.find(is_inner).expect("a segment");
        fs::metadata(path).expect("it is there").blocks() * 512
    }

    fn says_that_it_has_none(&self, node: &Node) -> bool {
        self.place.run(&["status", "--node", &node.addr]).ok().contains(NO_MEMORY)
    }

    /// Reads on a node's host until that comes out of its shared memory.
    fn read_until_near(&self, node: &Node, key: &str) {
        eventually("a near copy", || {
            let read = self.place.run(&["get", key, "--json", "--socket", &node.socket]).json();
            assert_eq!(read["value"], "v");
            (read["read_from"] == "shared_memory").then_some(())
        });
    }
}

#[test]
fn a_host_that_is_home_of_nothing_has_memory_for_near_copies_once_its_processes_read() {
    let place = Place::in_memory();
    let (rings, inner, mut outer) = Rings::start_in(place, FACING);
    let place = &rings.place;
    place.run(&["start", "secret", "v", "--node", &inner[0].addr]).ok();
    assert!(rings.taken("inner1") >= FACING_BYTES);
    for (node, name) in outer.iter().zip(["outer1", "outer2"]) {
        // Who asks from elsewhere has no shared memory here.
        assert_eq!(place.run(&["get", "secret", "--node", &node.addr]).ok(), "v");
        assert!(rings.taken(name) < FACING_BYTES / 8, "{} bytes", rings.taken(name));
        assert!(rings.says_that_it_has_none(node));
    }
    rings.read_until_near(&outer[0], "secret");
    assert!(rings.taken("outer1") >= FACING_BYTES && !rings.says_that_it_has_none(&outer[0]));
    assert!(rings.taken("outer2") < FACING_BYTES / 8 && rings.says_that_it_has_none(&outer[1]));

    // What it had it has after a restart; killed, as `Node` does when it goes.
    outer.clear();
    outer.extend([rings.node("outer1", "1"), rings.node("outer2", "1")]);
    rings.settled(5);
    assert!(rings.taken("outer1") >= FACING_BYTES && !rings.says_that_it_has_none(&outer[0]));
    assert!(rings.taken("outer2") < FACING_BYTES / 8 && rings.says_that_it_has_none(&outer[1]));
    for node in &outer {
        rings.read_until_near(node, "secret");
    }
    assert!(rings.taken("outer2") >= FACING_BYTES);
}

#[test]
fn a_node_that_comes_to_serve_the_innermost_ring_has_its_memory_from_the_start() {
    let place = Place::in_memory();
    let config = place.write("rings.toml", FACING);
    let rings = Rings { place, config, seed: String::new() };
    let node = rings.node("one", "1");
    assert!(rings.taken("one") < FACING_BYTES / 8 && rings.says_that_it_has_none(&node));
    drop(node);
    let node = rings.node("one", "0,1");
    assert!(rings.taken("one") >= FACING_BYTES && !rings.says_that_it_has_none(&node));
    eventually("it to be a home", || {
        let ran = rings.place.run(&["start", "secret", "v", "--node", &node.addr]);
        (ran.code == 0).then_some(())
    });
}

#[test]
fn where_there_is_no_room_for_near_copies_reads_go_to_the_homes_and_the_node_says_so() {
    let place = Place::in_memory();
    let (mut rings, inner, _outer) = Rings::start_in(place, FACING);
    rings.place.run(&["start", "secret", "v", "--node", &inner[0].addr]).ok();
    let df = Command::new("df").args(["--output=avail", "-B1", "/dev/shm"]).output();
    let df = String::from_utf8(df.expect("it runs").stdout).expect("text");
    let free: u64 = df.lines().last().expect("a line").trim().parse().expect("a number");
    // Of large records, which take the node little memory of its own.
    let large = format!("memory = {}\nrecord_size = 65536\nmax_value = 1024", 2 * free);
    let tables = FACING.replace("memory = \"16MiB\"", &large);
    rings.config = rings.place.write("large.toml", tables);
    let mut node = rings.node("outer3", "1");
    let said = eventually("no room", || {
        let read = rings.place.run(&["get", "secret", "--json", "--socket", &node.socket]).json();
        assert_eq!(read["value"], "v");
        assert_ne!(read["read_from"], "shared_memory");
        let said = rings.place.run(&["status", "--node", &node.addr]).ok();
        said.contains("or shm_dir had no room for it").then_some(said)
    });
    assert!(said.contains(NO_MEMORY), "{said}");
    let counters = rings.place.run(&["status", "--json", "--node", &node.addr]).json();
    assert_eq!(counters["counters"]["memory_refused"], 1, "and not with each read");
    node.terminate();
    let (status, log) = node.finish();
    assert!(status.success(), "{status}\n{log}");
    let told = log.lines().find(|line| line.contains("no memory for copies")).expect("a line");
    for part in ["sessions", "outer3/shm/annulus-", "bytes more", "`memory`", "`shm_dir`"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
