//! How many sessions an owner may have.

use super::{Node, Place, Ran, eventually, in_sync};

/// Three nodes with a table of which an owner may have two sessions.
fn limited(place: &Place, over: &str) -> Vec<Node> {
    let limit = format!("owner_sessions_max = 2\nowner_sessions_over = \"{over}\"\n");
    let config = place.write("limited.toml", format!("[[table]]\nname = \"sessions\"\n{limit}"));
    let mut nodes = vec![place.node("n1", &[], &["--config", &config])];
    let seed = nodes[0].addr.clone();
    for name in ["n2", "n3"] {
        nodes.push(place.node(name, &[&seed], &["--config", &config]));
    }
    in_sync(place, &seed, nodes.len());
    nodes
}

fn run_at(place: &Place, node: &Node, args: &[&str]) -> Ran {
    place.run(&[args, &["--node", node.addr.as_str()]].concat())
}

/// The keys of an owner's sessions, as a node lists them.
fn keys_of(place: &Place, node: &Node, owner: &str) -> Vec<String> {
    let listed = run_at(place, node, &["sessions", "--owner", owner, "--keys", "--json"]).json();
    let sessions = listed["sessions"].as_array().expect("a list");
    let key = |it: &serde_json::Value| it["key"].as_str().expect("a key").to_owned();
    let mut keys: Vec<String> = sessions.iter().map(key).collect();
    keys.sort();
    keys
}

#[test]
fn of_an_owner_with_too_many_sessions_those_used_longest_ago_end() {
    let place = Place::new();
    let nodes = limited(&place, "end-oldest");
    let run = |node: usize, args: &[&str]| run_at(&place, &nodes[node], args);
    for (node, key) in [(0, "secret-1"), (1, "secret-2")] {
        run(node, &["start", key, "v", "--owner", "ada"]).ok();
    }
    run(0, &["start", "secret-bob", "v", "--owner", "bob"]).ok();
    run(0, &["touch", "secret-1"]).ok();
    run(2, &["start", "secret-3", "v", "--owner", "ada"]).ok();
    eventually("one too many ends", || {
        (keys_of(&place, &nodes[0], "ada") == ["secret-1", "secret-3"]).then_some(())
    });
    assert_eq!(run(1, &["get", "secret-2"]).code, 3);
    // Another key for a session is not one more.
    run(1, &["rotate", "secret-1", "secret-4"]).ok();
    run(0, &["get", "secret-3"]).ok();
    eventually("the old one ends", || {
        (keys_of(&place, &nodes[2], "ada") == ["secret-3", "secret-4"]).then_some(())
    });
    assert_eq!(keys_of(&place, &nodes[2], "bob"), ["secret-bob"]);
}

#[test]
fn a_session_too_many_of_an_owner_is_refused_until_one_ends() {
    let place = Place::new();
    let nodes = limited(&place, "refuse");
    let run = |node: usize, args: &[&str]| run_at(&place, &nodes[node], args);
    for (node, key) in [(0, "secret-1"), (1, "secret-2")] {
        run(node, &["start", key, "v", "--owner", "ada"]).ok();
    }
    for node in 0..3 {
        let refused = run(node, &["start", "secret-3", "v", "--owner", "ada"]);
        assert_eq!(refused.code, 5, "{}", refused.stderr);
        assert!(refused.stderr.contains("allows, which is 2"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    }
    run(0, &["start", "secret-bob", "v", "--owner", "bob"]).ok();
    run(1, &["rotate", "secret-1", "secret-4"]).ok();
    run(2, &["end", "secret-2"]).ok();
    eventually("there is room for one", || {
        (run(0, &["start", "secret-3", "v", "--owner", "ada"]).code == 0).then_some(())
    });
    eventually("the old ones have ended", || {
        (keys_of(&place, &nodes[1], "ada") == ["secret-3", "secret-4"]).then_some(())
    });
}
