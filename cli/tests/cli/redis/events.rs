//! Keyspace events: what becomes of a key is heard at each node, once.

use std::collections::BTreeSet;

use super::channels::{Subscriber, changed, counter, told};
use super::*;

const FLAGS: [&str; 4] = ["--redis-listen", "127.0.0.1:0", "--redis-keyspace-events", "on"];
const ALL: &str = "__keyevent@*__:*";

fn listening(node: &Node) -> Subscriber {
    let mut subscriber = Subscriber::of(node);
    let answer = subscriber.ask(&format!("PSUBSCRIBE {ALL}"));
    assert_eq!(answer, changed('*', "psubscribe", ALL, 1));
    subscriber
}

fn event(what: &str, key: &str) -> String {
    told('*', &["pmessage", ALL, &format!("__keyevent@0__:{what}"), key])
}

/// Waits until each node was told of so many events by all three homes of each.
fn all_homes_told(place: &Place, nodes: &[Node], events: u64) {
    eventually("all homes have told all nodes", || {
        let is_told = |node: &Node| {
            let told = counter(place, node, "redis_events");
            assert!(told <= events, "{told} events");
            told == events && counter(place, node, "redis_events_repeated") >= 2 * events
        };
        nodes.iter().all(is_told).then_some(())
    });
}

/// As Spring Session begins.
#[test]
fn who_asks_for_events_is_told_whether_there_are_any() {
    let place = Place::new();
    let nodes = [door(&place, ""), place.node("n2", &[], &FLAGS)];
    let [mut off, mut on] = nodes.each_ref().map(Tcp::of);
    let get = "CONFIG GET notify-keyspace-events";
    let is = |flags: &str| format!("*2\r\n{}{}", bulk("notify-keyspace-events"), bulk(flags));
    assert_eq!((off.say(get), on.say(get)), (is(""), is("gxeE")));
    let failed = |why: &str| {
        format!(
            "-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - {why}\r\n"
        )
    };
    let set = "CONFIG SET notify-keyspace-events Egx";
    assert_eq!(on.say(set), OK);
    let how = "set keyspace_events = \"on\" under [redis] on each node, for gxeE";
    assert_eq!(off.say(set), failed(how));
    assert_eq!(off.ask(&["CONFIG", "SET", "notify-keyspace-events", ""]), OK);
    let others = "keyspace_events = \"on\" under [redis] on each node tells gxeE, and no others";
    for flags in ["KEA", "gx", "Kx", ""] {
        assert_eq!(on.ask(&["CONFIG", "SET", "notify-keyspace-events", flags]), failed(others));
    }
    assert_eq!(on.say("CONFIG SET save x Y x").chars().next(), Some('-'));
    assert_eq!(on.say("CONFIG SET maxmemory 0 appendonly no"), OK, "they are so");
    assert!(on.say("CONFIG SET maxmemory 1").starts_with("-ERR CONFIG SET failed (possibly"));
    let unknown = "-ERR Unknown option or number of arguments for CONFIG SET - 'x'\r\n";
    assert_eq!(on.say("CONFIG SET x y"), unknown);
    assert_eq!(
        on.say("CONFIG SET x"),
        "-ERR wrong number of arguments for 'config|set' command\r\n"
    );
    // Nothing is told where it is off.
    let subscriber = listening(&nodes[0]);
    off.say("SET k v");
    off.say("DEL k");
    off.say("PUBLISH __keyevent@0__:end over");
    assert_eq!(subscriber.next(), event("end", "over"));
}

#[test]
fn what_becomes_of_a_key_is_heard_at_each_node_once() {
    let place = Place::new();
    let nodes = doors(&place, "n1", &["n2", "n3"], &FLAGS);
    let subscribers: Vec<Subscriber> = nodes.iter().map(listening).collect();
    let mut clients: Vec<Tcp> = nodes.iter().map(Tcp::of).collect();
    assert_eq!(clients[0].say("SET kept 1"), OK);
    assert_eq!(clients[0].say("SET ended 1"), OK);
    assert_eq!(clients[1].say("SET passing 1 PX 700"), OK);
    // What is written over lives on.
    assert_eq!(clients[1].say("SET kept 2"), OK);
    // Another node may not know of a key yet.
    eventually("it is deleted", || (clients[2].say("DEL ended") == ":1\r\n").then_some(()));
    all_homes_told(&place, &nodes, 2);
    let both = BTreeSet::from([event("del", "ended"), event("expired", "passing")]);
    for subscriber in &subscribers {
        let heard = [subscriber.next(), subscriber.next()];
        assert_eq!(BTreeSet::from(heard), both);
    }
    // The same key again: another session.
    assert_eq!(clients[2].say("SET ended 2"), OK);
    assert_eq!(clients[2].say("DEL ended"), ":1\r\n");
    assert_eq!(clients[0].say("HSET h f 1"), ":1\r\n");
    eventually("its last field goes", || (clients[0].say("HDEL h f") == ":1\r\n").then_some(()));
    all_homes_told(&place, &nodes, 4);
    let both = BTreeSet::from([event("del", "ended"), event("del", "h")]);
    for (subscriber, client) in subscribers.iter().zip(&mut clients) {
        let heard = [subscriber.next(), subscriber.next()];
        assert_eq!(BTreeSet::from(heard), both);
        // And nothing else.
        client.say("PUBLISH __keyevent@0__:end over");
    }
    for subscriber in &subscribers {
        assert_eq!(subscriber.next(), event("end", "over"));
    }
    let noted: u64 = nodes.iter().map(|it| counter(&place, it, "sessions_gone_noted")).sum();
    assert_eq!(noted, 3 * 4, "each home, each event");
}

#[test]
fn a_home_that_is_killed_before_a_deadline_keeps_no_event_from_the_others() {
    let place = Place::new();
    let mut nodes = doors(&place, "n1", &["n2", "n3"], &FLAGS);
    let subscribers: Vec<Subscriber> = nodes[1..].iter().map(listening).collect();
    let mut client = Tcp::of(&nodes[1]);
    let keys: Vec<String> = (0..30).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        assert_eq!(client.say(&format!("SET {key} v PX 3000")), OK);
    }
    eventually("the first deadline is near", || {
        let left = client.say(&format!("PTTL {}", keys[0]));
        let left: i64 = left.trim()[1..].parse().expect("a number");
        (left < 400).then_some(())
    });
    nodes[0].child.kill().expect("it is killed");
    let expected: BTreeSet<String> = keys.iter().map(|key| event("expired", key)).collect();
    for subscriber in &subscribers {
        let heard: Vec<String> = keys.iter().map(|_| subscriber.next()).collect();
        assert_eq!(heard.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    // Both that are left have told both, and nobody heard anything twice.
    eventually("both homes have told", || {
        let is_told =
            |node: &Node| counter(&place, node, "redis_events_repeated") >= keys.len() as u64;
        nodes[1..].iter().all(is_told).then_some(())
    });
    client.say("PUBLISH __keyevent@0__:end over");
    for subscriber in &subscribers {
        assert_eq!(subscriber.next(), event("end", "over"));
    }
}
