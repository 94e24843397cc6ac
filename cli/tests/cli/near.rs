//! Sessions read on a host that is no home of them.

use serde_json::Value;

use super::{Node, Place, eventually, nodes_of};

/// The nodes that are no homes of a key.
fn outsiders<'a>(place: &Place, nodes: &'a [Node], key: &str) -> Vec<&'a Node> {
    let located = place.run(&["locate", key, "--json", "--node", &nodes[0].addr]).json();
    let homes = located["homes"].as_array().expect("a list").clone();
    let is_home = |node: &Node| homes.iter().any(|home: &Value| home["addr"] == node.addr.as_str());
    nodes.iter().filter(|node| !is_home(node)).collect()
}

#[test]
fn what_is_read_on_a_host_comes_out_of_its_memory_until_it_changes_or_a_home_dies() {
    let place = Place::new();
    let mut nodes = nodes_of(&place, 5);
    let key = "secret-near";
    place.run(&["start", key, "one", "--node", &nodes[0].addr]).ok();
    let outsiders = outsiders(&place, &nodes, key);
    assert_eq!(outsiders.len(), 2);
    let read = |node: &Node| {
        let read = place.run(&["get", key, "--json", "--socket", &node.socket]);
        (read.code == 0).then(|| read.json())
    };
    let near = |node: &Node, value: &str| {
        eventually("a near copy", || {
            let read = read(node)?;
            (read["read_from"] == "shared_memory" && read["value"] == value).then_some(())
        });
    };
    for node in &outsiders {
        near(node, "one");
    }
    // Written elsewhere it is seen soon, and through the host's own node at once.
    place.run(&["set", key, "two", "--socket", &outsiders[0].socket]).ok();
    assert_eq!(read(outsiders[0]).expect("a session")["value"], "two");
    near(outsiders[1], "two");

    let sockets: Vec<String> = outsiders.iter().map(|node| node.socket.clone()).collect();
    let is_home = |node: &Node| !sockets.contains(&node.socket);
    let home = nodes.iter().position(is_home).expect("three are");
    drop(nodes.remove(home));
    let survivors: Vec<&Node> =
        nodes.iter().filter(|node| sockets.contains(&node.socket)).collect();
    for node in &survivors {
        near(node, "two");
    }
    place.run(&["end", key, "--node", &survivors[0].addr]).ok();
    for node in &survivors {
        eventually("the end", || {
            let read = place.run(&["get", key, "--socket", &node.socket]);
            (read.code == 3).then_some(())
        });
    }
}
