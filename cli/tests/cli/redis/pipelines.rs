//! Many requests at a time, through nodes that have to ask others.

use std::io::{Read, Write};

use super::super::{Node, Place, eventually};
use super::channels::counter;
use super::{Client, Draw, OK, RealRedis, Tcp, bulk, doors, request};

/// The lines of a node's configuration, with a table that is read there.
fn config(place: &Place, read: &str) -> String {
    let redis = "[redis]\nlisten = [\"127.0.0.1:0\"]\non_late_save = \"recreate\"\n";
    let tables = ["sessions", "others"].map(|name| {
        format!("[[table]]\nname = {name:?}\nidle = \"never\"\nlifetime_max = \"never\"\nread = {read:?}\n")
    });
    place.write("doors.toml", format!("{redis}\n{}", tables.concat()))
}

fn three_nodes(place: &Place) -> Vec<Node> {
    let config = config(place, "home");
    doors(place, "n1", &["n2", "n3"], &["--config", &config])
}

/// All answers to a batch; the last one is known when it comes.
fn answers_to<S: Read + Write>(client: &mut Client<S>, batch: &[Vec<String>]) -> Vec<String> {
    let words = |it: &Vec<String>| request(&it.iter().map(String::as_str).collect::<Vec<_>>());
    // In whatever state the batch leaves the connection, these are answered, and the first one may be.
    let reset = ["DISCARD", "CLIENT REPLY ON", "SELECT 0", "ECHO end"]
        .map(|it| request(&it.split(' ').collect::<Vec<_>>()));
    let end = reset.concat();
    client.send(&batch.iter().flat_map(words).chain(end).collect::<Vec<_>>());
    let mut answers = Vec::new();
    while answers.last() != Some(&bulk("end")) {
        answers.push(client.answer());
    }
    answers
}

impl Draw {
    /// A request, most of all a SET that goes ahead of the answers to others.
    fn of_pipeline(&mut self, number: usize) -> Vec<String> {
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let words = match self.below(24) {
            0 => "CLIENT REPLY SKIP".to_owned(),
            1 => "SET a".to_owned(),
            2 => format!("SET {} 1 EX 0", self.one_of(&keys)),
            3 => format!("SET {} 1 EXAT 1", self.one_of(&keys)),
            4 | 8..=11 => format!("GET {}", self.one_of(&keys)),
            5 => format!("MSET {0} 1 {1} 2 {0} 3", self.one_of(&keys), self.one_of(&keys)),
            6 => return self.request(number),
            7 => format!("SETEX {} 100000 {number}", self.one_of(&keys)),
            12 => self.one_of(&["MULTI", "EXEC", "SELECT 1", "SELECT 0"]),
            _ => format!("SET {} {number}", self.one_of(&keys)),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

fn are_answered_as_by_a_real_redis(place: &Place, nodes: &[Node]) {
    let real = RealRedis::start(place);
    let mut theirs = eventually("a real Redis", || Client::at(&real.socket));
    let mut ours: Vec<Tcp> = nodes.iter().map(Tcp::of).collect();
    let is_time = |words: &[String]| words[0].contains("TTL") || words[0].contains("TIME");
    for seed in [11, 12, 13] {
        let mut draw = Draw(seed);
        for round in 0..150 {
            let count = 1 + draw.below(40);
            let mut batch: Vec<_> = (0..count).map(|it| draw.of_pipeline(round + it)).collect();
            batch.retain(|words| !is_time(words));
            // What becomes of answers within a transaction that are not wanted is another matter.
            if batch.iter().any(|words| words[0] == "MULTI") {
                batch.retain(|words| words[0] != "CLIENT");
            }
            // One after the other, by each of them: what one has answered all others know of.
            let said = answers_to(&mut ours[round % nodes.len()], &batch);
            let right = answers_to(&mut theirs, &batch);
            assert_eq!(said, right, "seed {seed}, round {round}: {batch:?}");
        }
        for table in ["1", "0"] {
            let select = ["SELECT", table];
            let ended = ["DEL", "a", "b", "c", "d", "e", "f", "g", "h"];
            assert_eq!(ours[0].ask(&select), theirs.ask(&select));
            assert_eq!(ours[0].ask(&ended), theirs.ask(&ended));
        }
    }
}

#[test]
fn random_pipelines_through_three_nodes_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let nodes = three_nodes(&place);
    are_answered_as_by_a_real_redis(&place, &nodes);
    let ahead = nodes.iter().map(|node| counter(&place, node, "redis_writes_ahead"));
    assert!(ahead.sum::<u64>() > 0);
}

#[test]
fn random_pipelines_at_a_node_alone_are_answered_as_by_a_real_redis() {
    let place = Place::new();
    let config = config(&place, "near");
    let node = place.node("n1", &[], &["--config", &config]);
    are_answered_as_by_a_real_redis(&place, std::slice::from_ref(&node));
    assert!(counter(&place, &node, "redis_writes_alone") > 0);
    assert!(counter(&place, &node, "redis_reads_near") > 0);
}

#[test]
fn many_keys_that_are_set_at_a_time_are_all_there() {
    let place = Place::new();
    let nodes = three_nodes(&place);
    let keys: Vec<String> = (0..100).map(|number| format!("sess:{number}")).collect();
    // The last one of several for a key stays.
    let mut words = vec!["MSET", &keys[0], "before", &keys[0], "anew"];
    for key in &keys[1..] {
        words.extend([key, key.as_str()]);
    }
    assert_eq!(Tcp::of(&nodes[0]).ask(&words), OK);
    let mut other = Tcp::of(&nodes[1]);
    assert_eq!(other.ask(&["GET", &keys[0]]), bulk("anew"));
    for key in &keys[1..] {
        assert_eq!(other.ask(&["GET", key]), bulk(key));
    }
}

/// Nothing comes after these SETs that would have to wait for them, or nothing that is a request.
#[test]
fn a_pipeline_that_ends_with_sets_is_answered_to_its_end() {
    let place = Place::new();
    let nodes = three_nodes(&place);
    let mut client = Tcp::of(&nodes[0]);
    let sets: Vec<String> = (0..20).map(|number| format!("SET k{number} {number}")).collect();
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    assert_eq!(client.say_all(&sets), [OK; 20]);
    let words = |set: &&str| request(&set.split(' ').collect::<Vec<_>>());
    let mut batch: Vec<u8> = sets[..5].iter().flat_map(words).collect();
    batch.extend(b"*1\r\n?\r\n");
    client.send(&batch);
    let answers: Vec<String> = (0..6).map(|_| client.answer()).collect();
    assert_eq!(answers[..5], [OK; 5]);
    assert_eq!(answers[5], "-ERR Protocol error: expected '$', got '?'\r\n");
    client.hears_no_more();
}
