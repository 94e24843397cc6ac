use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use annulus_proto::message::Role;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::key::{Key, KeyKind};
use crate::keyring::Keyring;

const CLUSTER: &str = "shop";
const WORKER: KeyKind = KeyKind::Client(Role::Worker);
const NOW: u64 = 1_000;

fn key(kind: KeyKind, number: u8) -> Key {
    Key::new(kind, &[number; 32])
}

fn ring() -> Arc<Keyring> {
    let mut ring = Keyring::new(key(KeyKind::Node, 1)).unwrap();
    ring.install(key(WORKER, 2)).unwrap();
    Arc::new(ring)
}

fn epoch(ms: u64) -> Epoch {
    Epoch::new(ms, [ms as u8; 6])
}

fn addr(port: u16) -> SocketAddr {
    (std::net::Ipv6Addr::LOCALHOST, port).into()
}

fn sender(number: u64) -> Arc<NodeSender> {
    Arc::new(NodeSender::new(&ring(), CLUSTER, number, epoch(1)))
}

fn receiver(number: u64) -> NodeReceiver {
    NodeReceiver::new(ring(), sender(number), &[9; 32])
}

fn client(number: u64) -> ClientDatagrams {
    ClientDatagrams::new(Arc::new(key(WORKER, 2)), CLUSTER, number, epoch(1))
}

fn gossip(from: &NodeSender, inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    from.seal_gossip(inside, &mut out).unwrap();
    out
}

fn question(from: &ClientDatagrams, cookie: Option<Cookie>, inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    from.seal(cookie, inside, &mut out).unwrap();
    out
}

/// Asks for a cookie, and gets it.
fn cookie(node: &mut NodeReceiver, now: u64, client: &ClientDatagrams, from: SocketAddr) -> Cookie {
    let asked = question(client, None, b"?");
    let Ok(FromOutside::Challenge(challenge)) = node.open(now, from, &asked) else { panic!() };
    assert!(challenge.len() <= asked.len(), "{} > {}", challenge.len(), asked.len());
    let Ok(FromNode::Cookie(cookie)) = client.open(&challenge) else { panic!() };
    cookie
}

fn is_question(taken: Result<FromOutside, Refused>, expected: &[u8]) -> Recipient {
    let Ok(FromOutside::Question { recipient, role, inside }) = taken else { panic!("{taken:?}") };
    assert_eq!((role, &inside[..]), (Role::Worker, expected));
    recipient
}

#[test]
fn nodes_understand_each_other() {
    let (one, mut two) = (sender(1), receiver(2));
    for inside in [&b""[..], b"packet", &[7; INSIDE_BYTES_MAX]] {
        let datagram = gossip(&one, inside);
        assert!(datagram.len() <= SEALED_BYTES_MAX);
        assert_eq!(datagram.len(), HEADER_BYTES + inside.len() + TAG_BYTES);
        let taken = two.open(NOW, addr(1), &datagram);
        assert_eq!(taken, Ok(FromOutside::Gossip { node: 1, inside: inside.to_vec() }));
    }
}

#[test]
fn a_client_proves_its_address_and_is_answered() {
    let node = sender(5);
    let mut taking = NodeReceiver::new(ring(), node.clone(), &[9; 32]);
    let asking = client(77);
    let cookie = cookie(&mut taking, NOW, &asking, addr(1));
    assert_eq!(taking.senders(), 0, "nothing is remembered before the proof");
    let largest = [3; QUESTION_INSIDE_BYTES_MAX];
    let datagram = question(&asking, Some(cookie), &largest);
    assert_eq!(datagram.len(), SEALED_BYTES_MAX);
    let recipient = is_question(taking.open(NOW + 1, addr(1), &datagram), &largest);
    let mut answer = Vec::new();
    node.seal_answer(&recipient, &[4; INSIDE_BYTES_MAX], &mut answer).unwrap();
    assert!(answer.len() <= SEALED_BYTES_MAX);
    let inside = vec![4; INSIDE_BYTES_MAX];
    assert_eq!(asking.open(&answer), Ok(FromNode::Answer { node: 5, inside }));
    assert_eq!(asking.open(&answer), Err(Refused::Replayed));
    // An answer to another client, another life of it, or under another key, is nobody else's.
    let others =
        [client(78), { ClientDatagrams::new(Arc::new(key(WORKER, 2)), CLUSTER, 77, epoch(2)) }];
    for other in others {
        assert_eq!(other.open(&answer), Err(Refused::BadTag));
    }
}

#[test]
fn every_changed_bit_is_refused() {
    let (one, mut two) = (sender(1), receiver(2));
    let asking = client(77);
    let cookie = cookie(&mut two, NOW, &asking, addr(1));
    let packet = gossip(&one, b"packet");
    let asked = question(&asking, Some(cookie), b"question");
    for datagram in [&packet, &asked] {
        for bit in 0..8 * datagram.len() {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let taken = two.open(NOW, addr(1), &changed);
            assert!(taken.is_err(), "bit {bit}: {taken:?}");
        }
        for length in 0..datagram.len() {
            assert!(two.open(NOW, addr(1), &datagram[..length]).is_err(), "{length} bytes");
        }
        let longer = [&datagram[..], &[0]].concat();
        assert!(two.open(NOW, addr(1), &longer).is_err());
        assert_eq!(two.senders(), 0, "nothing is remembered of what is refused");
    }
    assert!(two.open(NOW, addr(1), &packet).is_ok());
    is_question(two.open(NOW, addr(1), &asked), b"question");
    let recipient = Recipient { key: key(WORKER, 2).id(), client: 77, epoch: epoch(1) };
    let mut answer = Vec::new();
    one.seal_answer(&recipient, b"answer", &mut answer).unwrap();
    for bit in 0..8 * answer.len() {
        let mut changed = answer.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(asking.open(&changed).is_err(), "bit {bit}");
    }
    assert!(asking.open(&answer).is_ok());
}

#[test]
fn a_packet_is_taken_once_in_any_order() {
    let (one, mut two) = (sender(1), receiver(2));
    let packets: Vec<_> = (0..1_500u16).map(|n| gossip(&one, &n.to_le_bytes())).collect();
    let mut order: Vec<usize> = (0..packets.len()).collect();
    let mut rng = StdRng::seed_from_u64(1);
    for last in (1..order.len()).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    for index in order {
        assert!(two.open(NOW, addr(1), &packets[index]).is_ok(), "{index}");
        assert_eq!(two.open(NOW, addr(1), &packets[index]), Err(Refused::Replayed));
    }
    // Beyond the window nobody can tell, whether it was seen or not.
    let late = gossip(&one, b"late");
    for _ in 0..2_000 {
        two.open(NOW, addr(1), &gossip(&one, b"more")).unwrap();
    }
    assert_eq!(two.open(NOW, addr(1), &late), Err(Refused::TooOld));
    assert_eq!(two.open(NOW, addr(1), &packets[0]), Err(Refused::TooOld));
}

#[test]
fn a_later_life_of_a_node_replaces_the_earlier_one() {
    let mut two = receiver(2);
    let at = |ms| NodeSender::new(&ring(), CLUSTER, 1, epoch(ms));
    let (old, new) = (at(10), at(11));
    let (first, recorded) = (gossip(&old, b"1"), gossip(&old, b"2"));
    assert!(two.open(NOW, addr(1), &first).is_ok());
    // Whoever only claims a later epoch changes nothing.
    let mut forged = gossip(&new, b"3");
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(two.open(NOW, addr(1), &forged), Err(Refused::BadTag));
    assert!(two.open(NOW, addr(1), &recorded).is_ok());
    assert!(two.open(NOW, addr(1), &gossip(&new, b"4")).is_ok());
    for old in [first, recorded, gossip(&old, b"5")] {
        assert_eq!(two.open(NOW, addr(1), &old), Err(Refused::TooOld));
    }
    assert_eq!(two.senders(), 1);
}

#[test]
fn a_node_whose_epoch_was_passed_begins_a_later_one() {
    let mut two = receiver(2);
    let at = |ms| NodeSender::new(&ring(), CLUSTER, 1, epoch(ms));
    let node = Arc::new(at(10));
    assert!(two.open(NOW, addr(1), &gossip(&at(20), b"somebody with its id")).is_ok());
    let before = gossip(&node, b"1");
    assert_eq!(two.open(NOW, addr(1), &before), Err(Refused::TooOld));
    let later = Arc::new(node.with_epoch(&ring(), epoch(21)));
    let after = gossip(&later, b"1");
    assert!(two.open(NOW, addr(1), &after).is_ok());
    assert_ne!(before[HEADER_BYTES..], after[HEADER_BYTES..], "another epoch, other keys");
    // It knows itself in both.
    let mut taking = NodeReceiver::new(ring(), node, &[9; 32]);
    taking.set_keys(NOW, ring(), later);
    for own in [before, after] {
        assert_eq!(taking.open(NOW, addr(1), &own), Err(Refused::Reflected));
    }
}

#[test]
fn other_clusters_and_other_keys_are_refused() {
    let mut two = receiver(2);
    let elsewhere = NodeSender::new(&ring(), "shoe", 1, epoch(1));
    assert_eq!(two.open(NOW, addr(1), &gossip(&elsewhere, b"x")), Err(Refused::BadTag));
    let other = Keyring::new(key(KeyKind::Node, 3)).unwrap();
    let stranger = NodeSender::new(&other, CLUSTER, 1, epoch(1));
    let unknown = Refused::UnknownKey(key(KeyKind::Node, 3).id());
    assert_eq!(two.open(NOW, addr(1), &gossip(&stranger, b"x")), Err(unknown));
    // It names a key that it does not have.
    let mut liar = gossip(&stranger, b"x");
    liar[5..9].copy_from_slice(&key(KeyKind::Node, 1).id().to_bytes());
    assert_eq!(two.open(NOW, addr(1), &liar), Err(Refused::BadTag));
    let plain = b"\x10\x00\x00\x00AN\x01\x04 whatever follows, for long enough to be a datagram";
    assert_eq!(two.open(NOW, addr(1), plain), Err(Refused::Foreign));
    assert_eq!(two.senders(), 0);
}

#[test]
fn a_removed_key_opens_nothing_more_and_an_installed_one_does() {
    let mut two = receiver(2);
    let old = sender(1);
    assert!(two.open(NOW, addr(1), &gossip(&old, b"1")).is_ok());
    let mut keys = (*ring()).clone();
    keys.install(key(KeyKind::Node, 3)).unwrap();
    keys.use_key(key(KeyKind::Node, 3).id()).unwrap();
    let new = old.with_keys(&keys);
    assert!(two.open(NOW, addr(1), &gossip(&new, b"2")).is_err());
    let both = Arc::new(keys.clone());
    two.set_keys(NOW, both.clone(), Arc::new(sender(2).with_keys(&both)));
    assert!(two.open(NOW, addr(1), &gossip(&new, b"3")).is_ok());
    assert!(two.open(NOW, addr(1), &gossip(&old, b"4")).is_ok());
    assert_eq!(two.senders(), 2);
    keys.remove(key(KeyKind::Node, 1).id()).unwrap();
    keys.remove(key(WORKER, 2).id()).unwrap();
    let only = Arc::new(keys);
    two.set_keys(NOW, only.clone(), Arc::new(sender(2).with_keys(&only)));
    assert!(two.open(NOW, addr(1), &gossip(&new, b"5")).is_ok());
    let removed = Refused::UnknownKey(key(KeyKind::Node, 1).id());
    assert_eq!(two.open(NOW, addr(1), &gossip(&old, b"6")), Err(removed));
    let removed = Refused::UnknownKey(key(WORKER, 2).id());
    assert_eq!(two.open(NOW, addr(1), &question(&client(7), None, b"7")), Err(removed));
    assert_eq!(two.senders(), 1, "what is removed is forgotten");
    // Nobody is answered under it either.
    let recipient = Recipient { key: key(WORKER, 2).id(), client: 7, epoch: epoch(1) };
    let mut out = Vec::new();
    old.with_keys(&only).seal_answer(&recipient, b"8", &mut out).unwrap();
    assert!(out.is_empty());
}

#[test]
fn a_key_that_comes_back_brings_no_question_of_before() {
    let mut node = receiver(5);
    let asking = client(77);
    let cookie_of_before = cookie(&mut node, NOW, &asking, addr(1));
    let recorded = question(&asking, Some(cookie_of_before), b"once");
    is_question(node.open(NOW, addr(1), &recorded), b"once");
    let mut without = (*ring()).clone();
    without.remove(key(WORKER, 2).id()).unwrap();
    for (now, keys) in [(NOW + 1, Arc::new(without)), (NOW + 2, ring())] {
        node.set_keys(now, keys.clone(), Arc::new(sender(5).with_keys(&keys)));
    }
    let challenged = |taken: Result<FromOutside, Refused>| {
        assert!(matches!(taken, Ok(FromOutside::Challenge(_))), "{taken:?}");
    };
    challenged(node.open(NOW + 3, addr(1), &recorded));
    let fresh = cookie(&mut node, NOW + 3, &asking, addr(1));
    let more = question(&asking, Some(fresh), b"more");
    is_question(node.open(NOW + 3, addr(1), &more), b"more");
    challenged(node.open(NOW + 4, addr(1), &recorded));
}

#[test]
fn nobody_speaks_out_of_place() {
    let mut two = receiver(2);
    let origin = |side| sealer::Origin { side, number: 1, epoch: epoch(1) };
    let (of_nodes, of_workers) = (key(KeyKind::Node, 1), key(WORKER, 2));
    let none = Some(Cookie::from_bytes(&[0; Cookie::BYTES]));
    for (key, side, shape, cookie) in [
        // A client that would be a node, and a node that would be a client.
        (&of_workers, Side::Client, Shape::Gossip, None),
        (&of_workers, Side::Node, Shape::Gossip, None),
        (&of_nodes, Side::Node, Shape::Question, none),
        (&of_nodes, Side::Client, Shape::Question, none),
        // What nodes say to clients.
        (&of_workers, Side::Node, Shape::Answer, None),
        (&of_workers, Side::Node, Shape::Challenge, None),
    ] {
        let mut out = Vec::new();
        let sealer = sealer::Sealer::new(key, CLUSTER, origin(side));
        sealer.seal(0, shape, cookie, None, b"frame", &mut out);
        let taken = two.open(NOW, addr(1), &out);
        assert_eq!(taken, Err(Refused::OutOfPlace), "{key:?} {shape:?}");
    }
    // Of another side than its number was drawn for: the keys differ.
    let mut out = Vec::new();
    let sealer = sealer::Sealer::new(&of_nodes, CLUSTER, origin(Side::Client));
    sealer.seal(0, Shape::Gossip, None, None, b"frame", &mut out);
    assert_eq!(two.open(NOW, addr(1), &out), Err(Refused::BadTag));
    // A client takes neither questions nor gossip, nor what came under other keys.
    let asking = client(7);
    assert_eq!(asking.open(&question(&asking, None, b"x")), Err(Refused::OutOfPlace));
    let unknown = Refused::UnknownKey(of_nodes.id());
    assert_eq!(asking.open(&gossip(&sender(1), b"x")), Err(unknown));
}

#[test]
fn a_node_does_not_listen_to_itself() {
    let mut taking = receiver(1);
    assert_eq!(taking.open(NOW, addr(1), &gossip(&sender(1), b"x")), Err(Refused::Reflected));
    // Another node that bears its id, from a copied disk, is heard, so that it is noticed.
    let copy = NodeSender::new(&ring(), CLUSTER, 1, epoch(2));
    assert!(taking.open(NOW, addr(1), &gossip(&copy, b"x")).is_ok());
}

#[test]
fn a_cookie_is_good_for_its_client_address_node_and_time() {
    let mut node = receiver(5);
    let asking = client(77);
    let good = cookie(&mut node, NOW, &asking, addr(1));
    let challenged = |node: &mut NodeReceiver, now, from, asking: &ClientDatagrams, cookie| {
        let taken = node.open(now, from, &question(asking, Some(cookie), b"?"));
        matches!(taken, Ok(FromOutside::Challenge(_)))
    };
    assert!(challenged(&mut node, NOW, addr(2), &asking, good), "another address");
    assert!(challenged(&mut node, NOW, addr(1), &client(78), good), "another client");
    let elsewhere = ([10, 0, 0, 1], 1).into();
    assert!(challenged(&mut node, NOW, elsewhere, &asking, good), "another host");
    let later = ClientDatagrams::new(Arc::new(key(WORKER, 2)), CLUSTER, 77, epoch(2));
    assert!(challenged(&mut node, NOW, addr(1), &later, good), "another life");
    assert!(challenged(&mut node, NOW + COOKIE_LIFETIME_MS + 1, addr(1), &asking, good), "old");
    assert!(challenged(&mut node, NOW - 1, addr(1), &asking, good), "before its time");
    let bits = 8 * Cookie::BYTES;
    for bit in 0..bits {
        let mut bytes = good.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let changed = Cookie::from_bytes(&bytes);
        assert!(challenged(&mut node, NOW + (1 << 47), addr(1), &asking, changed), "bit {bit}");
    }
    // After a restart no cookie of before is good: what was recorded is not carried out again.
    let recorded = question(&asking, Some(good), b"recorded");
    let mut restarted = NodeReceiver::new(ring(), sender(5), &[10; 32]);
    let taken = restarted.open(NOW, addr(1), &recorded);
    assert!(matches!(taken, Ok(FromOutside::Challenge(_))), "{taken:?}");
    // Nor at another node.
    let mut other = NodeReceiver::new(ring(), sender(6), &[11; 32]);
    let taken = other.open(NOW, addr(1), &recorded);
    assert!(matches!(taken, Ok(FromOutside::Challenge(_))), "{taken:?}");
    is_question(node.open(NOW + COOKIE_LIFETIME_MS, addr(1), &recorded), b"recorded");
    assert_eq!(node.open(NOW, addr(1), &recorded), Err(Refused::Replayed));
    assert_eq!(node.senders(), 1);
}

#[test]
fn what_a_forgotten_client_asked_is_not_carried_out_again() {
    let mut node = NodeReceiver::bounded(ring(), sender(5), &[9; 32], 4, 3);
    let clients: Vec<_> = (0..10).map(client).collect();
    let (mut recorded, mut cookies) = (Vec::new(), Vec::new());
    for (port, asking) in (1..).zip(&clients) {
        let now = NOW + u64::from(port);
        let cookie = cookie(&mut node, now, asking, addr(port));
        cookies.push(cookie);
        let datagram = question(asking, Some(cookie), b"once");
        is_question(node.open(now, addr(port), &datagram), b"once");
        recorded.push((addr(port), datagram));
        assert!(node.senders() <= 3);
    }
    let mut refused = 0;
    for (from, datagram) in &recorded {
        match node.open(NOW + 20, *from, datagram) {
            Err(Refused::Replayed) => refused += 1,
            Ok(FromOutside::Challenge(_)) => {}
            other => panic!("carried out twice: {other:?}"),
        }
    }
    assert_eq!(refused, 3, "those who are remembered");
    // Those who are remembered need no new cookie, though others were forgotten since theirs.
    let more = question(&clients[8], Some(cookies[8]), b"more");
    is_question(node.open(NOW + 20, addr(9), &more), b"more");
    // A forgotten one is served again, with a new cookie.
    let cookie = cookie(&mut node, NOW + 30, &clients[0], addr(1));
    let again = question(&clients[0], Some(cookie), b"again");
    is_question(node.open(NOW + 30, addr(1), &again), b"again");
    // Though it is known again, what it asked before it was forgotten is as old as it was.
    let (from, before) = &recorded[0];
    let taken = node.open(NOW + 31, *from, before);
    assert!(matches!(taken, Ok(FromOutside::Challenge(_))), "{taken:?}");
}

#[test]
fn memory_is_bounded_and_strangers_take_none() {
    let mut node = NodeReceiver::bounded(ring(), sender(5), &[9; 32], 4, 3);
    let mut rng = StdRng::seed_from_u64(2);
    for number in 10..2_000u64 {
        // A known key's id, any sender, any epoch, and a tag that is not right.
        let mut forged = gossip(&sender(number), &[0; 40]);
        rng.fill(&mut forged[HEADER_BYTES..]);
        assert_eq!(node.open(NOW, addr(1), &forged), Err(Refused::BadTag));
        let asking = client(number);
        let asked = question(&asking, None, b"flood");
        assert!(matches!(node.open(NOW, addr(1), &asked), Ok(FromOutside::Challenge(_))));
    }
    assert_eq!(node.senders(), 0);
    for number in 10..100 {
        node.open(NOW, addr(1), &gossip(&sender(number), b"x")).unwrap();
    }
    assert_eq!(node.senders(), 4);
    // Whoever is heard again and again is not the one who is forgotten.
    let regular = sender(7);
    let heard = gossip(&regular, b"x");
    node.open(NOW, addr(1), &heard).unwrap();
    for number in 100..200 {
        node.open(NOW, addr(1), &gossip(&regular, b"x")).unwrap();
        node.open(NOW, addr(1), &gossip(&sender(number), b"x")).unwrap();
    }
    assert_eq!(node.open(NOW, addr(1), &heard), Err(Refused::Replayed));
}

#[test]
fn no_two_datagrams_of_a_sender_share_key_and_nonce() {
    let one = sender(1);
    let other = one.with_keys(&ring());
    let mut seen = BTreeSet::new();
    let recipient = Recipient { key: key(WORKER, 2).id(), client: 7, epoch: epoch(1) };
    for number in 0..100 {
        let from = if number % 2 == 0 { &*one } else { &other };
        let mut answer = Vec::new();
        from.seal_answer(&recipient, b"x", &mut answer).unwrap();
        for datagram in [gossip(from, b"x"), answer] {
            // Key, sender, epoch and counter.
            assert!(seen.insert(datagram[5..HEADER_BYTES].to_vec()));
        }
    }
}

#[test]
fn one_secret_in_keys_of_two_kinds_is_two_secrets() {
    let kinds = [KeyKind::Node, WORKER, KeyKind::Client(Role::Monitor)];
    let mut seen = BTreeSet::new();
    for kind in kinds {
        let origin = sealer::Origin { side: Side::Node, number: 1, epoch: epoch(1) };
        let mut out = Vec::new();
        let sealer = sealer::Sealer::new(&key(kind, 7), CLUSTER, origin);
        sealer.seal(0, Shape::Gossip, None, None, &[0; 64], &mut out);
        // What zeros are sealed to is the key stream itself.
        assert!(seen.insert(out[HEADER_BYTES..HEADER_BYTES + 64].to_vec()), "{kind:?}");
    }
}

#[test]
fn whatever_comes_is_no_panic() {
    let mut node = receiver(5);
    let asking = client(7);
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.random_range(0..1_600)];
        rng.fill(&mut bytes[..]);
        if rng.random() && bytes.len() > 9 {
            bytes[..3].copy_from_slice(&MAGIC);
            bytes[3] = SEAL_VERSION;
            bytes[4] = rng.random_range(0..5);
            let of = if rng.random() { key(WORKER, 2) } else { key(KeyKind::Node, 1) };
            bytes[5..9].copy_from_slice(&of.id().to_bytes());
        }
        assert!(node.open(NOW, addr(1), &bytes).is_err());
        assert!(asking.open(&bytes).is_err());
    }
}

/// The blocks of the document that are marked as sealed, without their notes.
fn examples() -> Vec<Vec<u8>> {
    let document = include_str!("../../../docs/wire.md");
    let after = |part: &'static str| part.split("```").next().unwrap();
    let blocks = document.split("```sealed\n").skip(1).map(after);
    let bytes = |block: &str| {
        let lines = block.lines().flat_map(|line| line.split('|').next());
        let pairs = lines.flat_map(str::split_whitespace);
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    blocks.map(bytes).collect()
}

#[test]
fn the_documents_examples_are_what_is_sent() {
    let secret: [u8; 32] = std::array::from_fn(|at| at as u8);
    let key = Key::new(KeyKind::Node, &secret);
    let document = include_str!("../../../docs/wire.md");
    assert!(document.contains(key.reveal().as_str()), "{}", *key.reveal());
    let ring = Keyring::new(key).unwrap();
    let epoch = Epoch::new(1_790_000_000_000, [1, 2, 3, 4, 5, 6]);
    let node = NodeSender::new(&ring, CLUSTER, 0xa1, epoch);
    let datagram = gossip(&node, &[1, 2, 3]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    let written = examples();
    let [first, _, _] = &written[..] else { panic!("{} examples", written.len()) };
    assert_eq!(hex(first), hex(&datagram));
    let limits = [SEALED_BYTES_MAX, QUESTION_INSIDE_BYTES_MAX, INSIDE_BYTES_MAX];
    for limit in limits {
        assert!(document.contains(&format!("at most {limit} bytes")), "{limit}");
    }
}
