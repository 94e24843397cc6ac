//! Clients of Redis read out of their node's shared memory, where its processes may.

use super::redis::{NIL, OK, Tcp, bulk, doors};
use super::{Node, Place, eventually};

/// A node that listens for clients of Redis, with these tables.
fn door(place: &Place, tables: &str) -> Node {
    let listen = "[redis]\nlisten = [\"127.0.0.1:0\"]\n";
    let config = place.write("near.toml", format!("{listen}{tables}"));
    place.node("n1", &[], &["--config", &config])
}

fn counter(place: &Place, node: &Node, name: &str) -> u64 {
    let metrics = place.run(&["metrics", "--socket", &node.socket]).ok();
    let line = metrics.lines().find(|line| line.contains(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

fn reads_near(place: &Place, node: &Node) -> u64 {
    counter(place, node, "redis_reads_near")
}

#[test]
fn reads_are_out_of_shared_memory_where_the_table_lets_its_readers() {
    let place = Place::new();
    let table = |name: &str, line: &str| format!("[[table]]\nname = \"{name}\"\n{line}\n");
    let tables = [
        table("near", ""),
        table("home", "read = \"home\""),
        table("refusing", "partition = \"refuse\""),
        table("metered", "burn = 1000000\nsession_rate = 100000"),
        table("bounded", "burn = 1000000\ntable_rate = 100000"),
        table("watched", "burn = 1000000"),
    ];
    let node = door(&place, &tables.concat());
    let mut client = Tcp::of(&node);
    let asked = [
        ("GET k", bulk("value")),
        ("MGET k", format!("*1\r\n{}", bulk("value"))),
        ("STRLEN k", ":5\r\n".to_owned()),
        ("GETRANGE k 1 2", bulk("al")),
        ("EXISTS k", ":1\r\n".to_owned()),
        ("TYPE k", "+string\r\n".to_owned()),
        ("OBJECT ENCODING k", bulk("embstr")),
        ("TTL k", ":1000\r\n".to_owned()),
    ];
    for (number, is_near) in [true, false, false, false, false, true].into_iter().enumerate() {
        assert_eq!(client.say(&format!("SELECT {number}")), OK);
        assert_eq!(client.say("SET k value EX 1000"), OK);
        let mut ask_all = || {
            for (question, answer) in &asked {
                let said = client.say(question);
                let is_later = *question == "TTL k" && said.starts_with(":99");
                assert!(said == *answer || is_later, "{question} of table {number}: {said}");
            }
        };
        let before = reads_near(&place, &node);
        match is_near {
            // One or the other may be a core's while the node is busy.
            true => eventually("reads of all kinds", || {
                let before = reads_near(&place, &node);
                ask_all();
                (reads_near(&place, &node) == before + asked.len() as u64).then_some(())
            }),
            false => ask_all(),
        }
        let read = reads_near(&place, &node);
        assert!(is_near || read == before, "table {number}: {read} reads, {before} before");
        // What is done to drafts is read with what it depends on.
        for (question, answer) in [("MULTI", OK), ("GET k", "+QUEUED\r\n")] {
            assert_eq!(client.say(question), answer);
        }
        assert_eq!(client.say("EXEC"), format!("*1\r\n{}", bulk("value")));
        // What is not there is a core's to say.
        assert_eq!(client.say("GET nothing"), NIL);
        assert_eq!(reads_near(&place, &node), read);
    }
}

/// Also in a table that is not in the place of its number, since another one has a ring.
#[test]
fn what_concerns_this_node_alone_is_written_over_in_one_step() {
    let place = Place::new();
    let ring = "[[table.ring]]\nname = \"cold\"\nafter = \"1h\"\n";
    let tables = format!("[[table]]\nname = \"one\"\n{ring}[[table]]\nname = \"two\"\n");
    let node = door(&place, &tables);
    let mut client = Tcp::of(&node);
    let written = || counter(&place, &node, "redis_writes_alone");
    for table in ["0", "1"] {
        assert_eq!(client.ask(&["SELECT", table]), OK);
        let before = written();
        for begins in ["SET k v", "MSET a 1 b 2", "SET other v NX", "SET other v GET"] {
            client.say(begins);
        }
        assert_eq!(
            written(),
            before,
            "none of them is over what lives, or may be done in one step"
        );
        eventually("a write in one step", || {
            assert_eq!(client.say("SET k w EX 1000"), OK);
            assert_eq!(client.say("GET k"), bulk("w"));
            assert!(
                ["1000", "999"].map(|left| format!(":{left}\r\n")).contains(&client.say("TTL k"))
            );
            (written() > before).then_some(())
        });
        let before = written();
        eventually("several in one step", || {
            assert_eq!(client.say("MSET a 3 b 4"), OK);
            (written() >= before + 2).then_some(())
        });
        assert_eq!(client.say("MGET a b"), format!("*2\r\n{}{}", bulk("3"), bulk("4")));
    }
}

/// What is computed from what was read is written if the homes say the same then: so it is they who are asked.
#[test]
fn whoever_watches_a_key_reads_what_the_homes_say() {
    let place = Place::new();
    let node = door(&place, "");
    let mut client = Tcp::of(&node);
    client.say("SET k value");
    eventually("a read out of memory", || {
        client.say("GET k");
        (reads_near(&place, &node) > 0).then_some(())
    });
    assert_eq!(client.say("WATCH k"), OK);
    let before = reads_near(&place, &node);
    (0..20).for_each(|_| assert_eq!(client.say("GET k"), bulk("value")));
    assert_eq!(reads_near(&place, &node), before);
    client.say("UNWATCH");
    eventually("a read out of memory", || {
        client.say("GET k");
        (reads_near(&place, &node) > before).then_some(())
    });
}

#[test]
fn what_was_ended_or_has_expired_is_not_read() {
    let place = Place::new();
    let node = door(&place, "");
    let (mut client, mut other) = (Tcp::of(&node), Tcp::of(&node));
    for round in 0..50 {
        let value = format!("v{round}");
        assert_eq!(client.say(&format!("SET k {value} NX")), OK);
        assert_eq!(other.say("GET k"), bulk(&value));
        assert_eq!(client.say("DEL k"), ":1\r\n");
        assert_eq!([client.say("GET k"), other.say("GET k")], [NIL, NIL]);
    }
    assert_eq!(client.say("SET k short PX 200 NX"), OK);
    eventually("the end of it", || (other.say("GET k") == NIL).then_some(()));
    assert!(reads_near(&place, &node) > 0);
    // Who was told so may begin anew, and a late save is one as before.
    assert_eq!(other.say("SET k new"), OK);
    assert_eq!(client.say("DEL k"), ":1\r\n");
    assert!(other.say("SET k late").starts_with("-ERR late save: "));
}

#[test]
fn what_is_written_through_a_node_is_read_through_it_at_once_and_through_others_soon() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3", "n4", "n5"], &["--redis-listen", "127.0.0.1:0"]);
    let mut clients: Vec<(Tcp, Tcp)> =
        nodes.iter().map(|node| (Tcp::of(node), Tcp::of(node))).collect();
    // Through each node in turn, of whatever slots: it is a home of three in five. Each writes its own: of writes through
    // different nodes in one millisecond the one with the later stamp stays.
    for round in 0..40 {
        for (number, (writer, reader)) in clients.iter_mut().enumerate() {
            let key = format!("k{}", 8 * number + round % 8);
            let value = format!("{round}-{number}");
            assert_eq!(writer.say(&format!("SET {key} {value}")), OK);
            assert_eq!(writer.say(&format!("GET {key}")), bulk(&value), "node {number}");
            assert_eq!(reader.say(&format!("GET {key}")), bulk(&value), "node {number}");
        }
    }
    // Hosts that are no homes keep copies of what their clients of Redis read.
    for (number, node) in nodes.iter().enumerate() {
        let reader = &mut clients[number].1;
        eventually("all of it in memory", || {
            let before = reads_near(&place, node);
            (0..40).for_each(|key| drop(reader.say(&format!("GET k{key}"))));
            (reads_near(&place, node) >= before + 40).then_some(())
        });
    }
    assert_eq!(clients[0].0.say("SET k0 last"), OK);
    for (_, reader) in &mut clients {
        eventually("the write", || (reader.say("GET k0") == bulk("last")).then_some(()));
    }
    assert_eq!(clients[1].0.say("DEL k0"), ":1\r\n");
    for (_, reader) in &mut clients {
        eventually("the end", || (reader.say("GET k0") == NIL).then_some(()));
    }
}

#[test]
fn what_is_read_too_much_out_of_shared_memory_is_slowed_down() {
    let place = Place::new();
    let table = "[[table]]\nname = \"sessions\"\nburn = 1000\nburn_half_life = \"1m\"\n\
                 burn_client_max = 2000\n";
    let node = door(&place, table);
    let mut client = Tcp::of(&node);
    assert_eq!(client.say("SET hot value"), OK);
    assert_eq!(client.say("SET cool value"), OK);
    let slowed = eventually("a suspect", || {
        (0..200).map(|_| client.say("GET hot")).find(|said| *said != bulk("value"))
    });
    assert!(slowed.starts_with("-TRYAGAIN slow down, retry after "), "{slowed}");
    assert!(client.say("STRLEN hot").starts_with("-TRYAGAIN slow down"));
    assert_eq!(client.say("GET cool"), bulk("value"));
    eventually("the count", || (reads_near(&place, &node) >= 200).then_some(()));
    assert_eq!(client.say("DEL cool"), ":1\r\n");
}

#[test]
fn a_batch_is_answered_in_its_order_whatever_waits_for_other_nodes() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3"], &["--redis-listen", "127.0.0.1:0"]);
    let (mut client, mut other) = (Tcp::of(&nodes[0]), Tcp::of(&nodes[1]));
    assert_eq!(client.say("SET over mine"), OK);
    assert_eq!(other.say("DEL over"), ":1\r\n");
    let late = client.say("SET over late");
    assert!(late.starts_with("-ERR late save: "), "{late}");
    assert_eq!(client.say("HSET hash field value"), ":1\r\n");
    let wrong = client.say("GET hash");
    assert!(wrong.starts_with("-WRONGTYPE "), "{wrong}");
    for round in 0..20 {
        let (value, last) = (format!("a{round}"), format!("z{round}"));
        let mut asked: Vec<(String, String)> = Vec::new();
        let mut ask = |request: String, answer: &str| asked.push((request, answer.to_owned()));
        for number in 0..40 {
            ask(format!("SET k{number} {value}"), OK);
        }
        ask("SET over late".to_owned(), &late);
        ask(format!("SET k3 {last}"), OK);
        ask("SET k4 x EX 0".to_owned(), "-ERR invalid expire time in 'set' command\r\n");
        ask("GET k3".to_owned(), &bulk(&last));
        ask(format!("SET k3 {value}"), OK);
        ask(format!("SET k3 {last}"), OK);
        ask("SET k5 x GET".to_owned(), &bulk(&value));
        ask("GET k3".to_owned(), &bulk(&last));
        // Those that are answered together, and those that are not.
        for number in 0..40 {
            let value = match number {
                3 => &last,
                5 => "x",
                _ => &value,
            };
            ask(format!("GET k{number}"), &bulk(value));
            match number % 11 {
                4 => ask("GET nothing".to_owned(), NIL),
                7 => ask("GET hash".to_owned(), &wrong),
                _ => {}
            }
        }
        let batch: Vec<&str> = asked.iter().map(|(request, _)| request.as_str()).collect();
        for (said, (request, answer)) in client.say_all(&batch).iter().zip(&asked) {
            assert_eq!(said, answer, "{request}");
        }
    }
}
