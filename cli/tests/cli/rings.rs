//! Rings that nodes of their own serve.

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
        let place = Place::new();
        let config = place.write("rings.toml", TABLES);
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
