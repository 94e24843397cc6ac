use std::time::Duration;

use annulus_proto::codec::Header;
use annulus_proto::message::Exchange;
use annulus_proto::{Hlc, Load, Status};

use super::*;
use crate::core::{Asker, Caller, Hub, HubInput, HubStart, Now, Request};

fn id(number: u64) -> NodeId {
    NodeId::from_bits(number)
}

fn member(number: u64, door: Option<SocketAddr>) -> Member {
    Member {
        id: id(number),
        incarnation: 100 + number,
        revision: 0,
        status: Status::Up,
        addr: ([10, 0, (number >> 8) as u8, number as u8], 7_946).into(),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 100,
        rings: 1,
        door,
        load: Load::default(),
    }
}

/// As long as an address can be.
fn longest(number: u64) -> SocketAddr {
    ([0xfd12, 0x3456, 0x789a, 0x1111, 0x2222, 0x3333, 0x4444, 0xf000 | number as u16], 65_000)
        .into()
}

fn short(number: u64) -> SocketAddr {
    ([10, 0, (number >> 8) as u8, number as u8], 6_379).into()
}

/// What node 1 knows of so many, which tell clients to come there.
fn standing(count: u64, door: impl Fn(u64) -> Option<SocketAddr>) -> Arc<Standing> {
    let now = Now { monotonic: Duration::from_secs(1), wall_ms: 1 };
    let start = HubStart::of(Member { status: Status::Joining, ..member(1, door(1)) });
    let mut hub = Hub::new(start, now);
    let members = (2..=count).map(|number| member(number, door(number))).collect();
    let (asker, caller) = (Asker::Stream(0), Caller::Node(id(2)));
    let header = Header { id: 1, view: 0, hlc: Hlc::ZERO };
    let message = Exchange { members, reply: false }.into();
    hub.handle(now, HubInput::Request(Request { asker, caller, header, message }));
    assert_eq!(hub.standing().ring().nodes().len() as u64, count);
    hub.standing()
}

fn map(standing: &Arc<Standing>, missing: &[u64]) -> Map {
    let missing = missing.iter().map(|number| id(*number)).collect();
    Map::new(1, longest(1), standing.clone(), Arc::new(missing))
}

fn text(map: &Map, question: Question, protocol: Protocol) -> String {
    String::from_utf8(map.answer(question, 3, protocol).to_vec()).expect("it is text")
}

/// The ranges that CLUSTER SLOTS tells of, each with its nodes by number, and what else is said of a node.
fn told(map: &Map, replicas: usize) -> Vec<(u16, u16, Vec<u64>)> {
    let answer = map.answer(Question::Slots, replicas, Protocol::Resp2);
    assert!(answer.len() <= SLOTS_BYTES_MAX, "{} bytes", answer.len());
    let text = String::from_utf8(answer.to_vec()).expect("it is text");
    let mut lines = text.split("\r\n");
    let mut next = || lines.next().expect("a line");
    let number = |line: &str, kind: char| -> usize {
        line.strip_prefix(kind).unwrap_or_else(|| panic!("{line}")).parse().expect("a number")
    };
    let mut ranges = Vec::new();
    for _ in 0..number(next(), '*') {
        let homes = number(next(), '*') - 2;
        let (first, last) = (number(next(), ':') as u16, number(next(), ':') as u16);
        let mut nodes = Vec::new();
        for _ in 0..homes {
            assert_eq!(next(), "*4");
            let length = number(next(), '$');
            let ip = next();
            assert_eq!(ip.len(), length);
            let port = number(next(), ':') as u16;
            assert_eq!(next(), "$40");
            let node = u64::from_str_radix(next(), 16).expect("hexadecimal digits");
            assert_eq!(map.doors[&id(node)], SocketAddr::new(ip.parse().expect("an IP"), port));
            assert_eq!(next(), "*0");
            nodes.push(node);
        }
        ranges.push((first, last, nodes));
    }
    assert_eq!(next(), "", "nothing follows");
    ranges
}

/// Each slot is told of once, in order, with homes of it, the first one first.
fn agrees(map: &Map, ranges: &[(u16, u16, Vec<u64>)], replicas: usize) {
    let mut next = 0;
    for (first, last, nodes) in ranges {
        assert_eq!(*first, next);
        next = last + 1;
        for slot in (*first..=*last).filter_map(Slot::new) {
            let homes = map.homes(slot, replicas).iter();
            let homes: Vec<u64> =
                homes.filter(|home| map.doors.contains_key(home)).map(|home| home.bits()).collect();
            match homes.first() {
                Some(home) => assert_eq!(nodes[0], *home, "slot {}", slot.index()),
                None => assert_eq!(nodes, &[1]),
            }
            assert!(homes.is_empty() || nodes.iter().all(|node| homes.contains(node)));
        }
    }
    assert_eq!(next, SLOT_COUNT);
}

#[test]
fn slots_are_told_with_their_homes_as_far_as_there_is_room() {
    for (count, door) in
        [(1, short as fn(u64) -> SocketAddr), (3, short), (5, longest), (12, longest)]
    {
        let standing = standing(count, |number| Some(door(number)));
        let map = map(&standing, &[]);
        for replicas in [1, 2, 3] {
            agrees(&map, &told(&map, replicas), replicas);
        }
    }
    // With three nodes there is room for a second home of each slot.
    let standing = standing(3, |number| Some(short(number)));
    let ranges = told(&map(&standing, &[]), 3);
    assert!(ranges.iter().all(|(_, _, nodes)| nodes.len() >= 2), "{ranges:?}");
}

#[test]
fn the_slots_of_many_nodes_are_told_with_their_first_homes_and_stay_small() {
    for count in [13, 200] {
        let standing = standing(count, |number| Some(longest(number)));
        let map = map(&standing, &[]);
        let ranges = told(&map, 3);
        agrees(&map, &ranges, 3);
        assert!(ranges.iter().all(|(_, _, nodes)| nodes.len() == 1));
        // Not because there is no room at all.
        assert!(ranges.len() > 500, "{}", ranges.len());
    }
}

#[test]
fn who_is_missing_or_has_no_door_is_not_told_of() {
    let standing = standing(5, |number| (number != 4).then(|| short(number)));
    let map = map(&standing, &[2]);
    for replicas in [1, 3] {
        let ranges = told(&map, replicas);
        agrees(&map, &ranges, replicas);
        let nodes: BTreeSet<u64> = ranges.iter().flat_map(|(.., nodes)| nodes.clone()).collect();
        assert_eq!(nodes, [1, 3, 5].into());
        let lines = map.nodes(replicas);
        assert_eq!(lines.lines().count(), 3, "{lines}");
        for slot in Slot::all() {
            let elsewhere = map.elsewhere(slot, replicas);
            let homes = map.homes(slot, replicas);
            let others: Vec<_> = homes.iter().filter_map(|home| map.doors.get(home)).collect();
            // A home sends nobody away, and nobody is sent to who is not there.
            match homes.contains(&id(1)) {
                true => assert_eq!(elsewhere, None),
                false => assert_eq!(elsewhere.as_ref(), others.first().copied()),
            }
        }
    }
    assert!(map.info(3).contains("cluster_state:ok\r\n"));
    assert!(!map.info(3).contains("cluster_slots_pfail:0\r\n"));
}

/// As a redis-server 7.0.15 with `cluster-enabled yes` says it that has all slots, but for names, addresses and epochs.
#[test]
fn a_node_alone_says_what_a_real_one_says() {
    let standing = standing(1, |_| None);
    let map = Map::new(1, short(1), standing.clone(), Arc::default());
    let name = "0000000000000000000000000000000000000001";
    let node = format!("$8\r\n10.0.0.1\r\n:6379\r\n$40\r\n{name}\r\n");
    let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n{node}");
    let shard = |two: &str, seven: &str| {
        format!(
            "*1\r\n{two}\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n{seven}\r\n$2\r\nid\r\n\
             $40\r\n{name}\r\n$4\r\nport\r\n:6379\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$8\r\nendpoint\r\n$8\r\n\
             10.0.0.1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n$6\r\n\
             online\r\n"
        )
    };
    let nodes = format!("{name} 10.0.0.1:6379@7946 myself,master - 0 0 101 connected 0-16383\n");
    let info = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
        cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n\
        cluster_current_epoch:101\r\ncluster_my_epoch:101\r\ncluster_stats_messages_sent:0\r\n\
        cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n";
    let (two, three) = (Protocol::Resp2, Protocol::Resp3);
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let verbatim = |text: &str| format!("={}\r\ntxt:{text}\r\n", 4 + text.len());
    for (question, protocol, said) in [
        (Question::Slots, two, format!("{slots}*0\r\n")),
        (Question::Slots, three, format!("{slots}%0\r\n")),
        (Question::Shards, two, shard("*4", "*14")),
        (Question::Shards, three, shard("%2", "%7")),
        (Question::Nodes, two, bulk(&nodes)),
        (Question::Nodes, three, verbatim(&nodes)),
        (Question::Info, two, bulk(info)),
        (Question::Info, three, verbatim(info)),
    ] {
        assert_eq!(text(&map, question, protocol), said, "{question:?}");
    }
}

#[test]
fn shards_and_nodes_tell_the_same_slots() {
    let standing = standing(5, |number| Some(short(number)));
    let map = map(&standing, &[3]);
    let primaries = map.primaries(3);
    let mut owners = vec![0; usize::from(SLOT_COUNT)];
    for (node, ranges) in &primaries {
        for (first, last) in ranges {
            (*first..=*last).for_each(|slot| owners[usize::from(slot)] = node.bits());
        }
    }
    for (first, last, nodes) in told(&map, 3) {
        assert!((first..=last).all(|slot| owners[usize::from(slot)] == nodes[0]));
    }
    let nodes = map.nodes(3);
    for (node, ranges) in primaries {
        let line = nodes.lines().find(|line| line.starts_with(&name_of(node))).expect("a line");
        let shown = |(first, last): &(u16, u16)| match first == last {
            true => format!(" {first}"),
            false => format!(" {first}-{last}"),
        };
        let shown: String = ranges.iter().map(shown).collect();
        assert!(line.ends_with(&format!(" connected{shown}")), "{line}");
    }
}

#[test]
fn answers_are_made_once_for_a_view() {
    let (one, other) = (standing(3, |number| Some(short(number))), standing(2, |_| None));
    let (send, receive) = watch::channel(one);
    let (send_missing, receive_missing) = watch::channel(Arc::default());
    let cluster = Cluster::new(short(1), receive, receive_missing);
    let ask = |replicas, protocol| cluster.map().answer(Question::Slots, replicas, protocol);
    let first = ask(3, Protocol::Resp2);
    assert!(Arc::ptr_eq(&first, &ask(3, Protocol::Resp2)), "it is the same one");
    for (replicas, protocol) in [(1, Protocol::Resp2), (3, Protocol::Resp3)] {
        assert_ne!(first, ask(replicas, protocol), "each has its own");
    }
    send_missing.send_replace(Arc::new([id(2)].into()));
    let second = ask(3, Protocol::Resp2);
    assert_ne!(first, second);
    send.send_replace(other);
    let third = ask(3, Protocol::Resp2);
    assert_ne!(second, third);
    assert!(Arc::ptr_eq(&third, &ask(3, Protocol::Resp2)));
}

#[test]
fn a_connection_is_sent_elsewhere_once_for_a_slot_and_map() {
    let mut sent = Sent::default();
    let slots = [0, 1, 63, 64, 16_383].map(|index| Slot::new(index).expect("there is such a slot"));
    for map in [1, 2] {
        assert!(slots.iter().all(|slot| sent.note(map, *slot)));
        assert!(!slots.iter().any(|slot| sent.note(map, *slot)));
    }
}

#[test]
fn a_door_on_loopback_is_told_to_this_host_alone() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let on = RedisSettings { cluster: true, ..RedisSettings::default() };
    let named = RedisSettings { announce: Some(at("10.9.9.9:1")), ..on.clone() };
    let (host, here) = (at("10.0.0.7:7946"), at("127.0.0.1:7946"));
    let (all, loopback) = ([at("0.0.0.0:6379")], [at("127.0.0.1:6379"), at("10.0.0.7:6379")]);
    let both = |text: &str| (Some(at(text)), Some(at(text)));
    for (settings, listens, advertised, expected) in [
        (&on, &all[..], host, both("10.0.0.7:6379")),
        (&on, &loopback[..1], here, both("127.0.0.1:6379")),
        (&on, &loopback[..], host, (Some(at("127.0.0.1:6379")), None)),
        (&named, &all[..], host, both("10.9.9.9:1")),
        (&named, &[], host, (None, None)),
        (&RedisSettings::default(), &all[..], host, (None, None)),
    ] {
        assert_eq!(announced(settings, listens, advertised), expected);
    }
}
