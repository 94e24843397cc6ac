use super::*;

const OLD: u32 = 1;
const NEW: u32 = 2;

fn node(number: u64, status: Status, keys: KeyOrdered) -> NodeKeys {
    NodeKeys { node: NodeId::from_bits(number), name: format!("n{number}"), status, keys }
}

fn holds(ids: &[u32], in_use: u32) -> KeyOrdered {
    let keys = ids.iter().map(|id| HeldKey { id: *id, role: None }).collect();
    KeyOrdered::Done { keys, in_use }
}

fn silent() -> KeyOrdered {
    KeyOrdered::Silent("no answer in time".to_owned())
}

#[test]
fn a_key_is_used_once_every_member_has_it() {
    let up = |number, keys| node(number, Status::Up, keys);
    let all = [up(1, holds(&[OLD, NEW], OLD)), up(2, holds(&[OLD, NEW], OLD))];
    assert_eq!(why_not(&KeyChange::Use(NEW), &all, false), None);
    let lacking = [up(1, holds(&[OLD, NEW], OLD)), up(2, holds(&[OLD], OLD))];
    let why = why_not(&KeyChange::Use(NEW), &lacking, false).unwrap();
    assert!(why.starts_with("n2 would not understand") && why.contains("00000002"), "{why}");
    assert_eq!(why_not(&KeyChange::Use(NEW), &lacking, true), None);
    let unknown = [up(1, holds(&[OLD, NEW], OLD)), up(2, silent())];
    let why = why_not(&KeyChange::Use(NEW), &unknown, false).unwrap();
    assert!(why.contains("(n2)") && why.contains("--force"), "{why}");
    assert_eq!(why_not(&KeyChange::Use(NEW), &unknown, true), None);
    // Whoever is held for dead comes back, and is named.
    let dead = [up(1, holds(&[OLD, NEW], OLD)), node(2, Status::Down, silent())];
    for change in [KeyChange::Use(NEW), KeyChange::Remove(NEW)] {
        let why = why_not(&change, &dead, false).unwrap();
        assert!(why.contains("(n2)") && why.contains("annulus keys install"), "{why}");
        assert_eq!(why_not(&change, &dead, true), None);
    }
    // It is installed nevertheless: that cuts nobody off.
    let install = KeyChange::Install(annulus_proto::message::KeyText("k".to_owned()));
    assert_eq!(why_not(&install, &unknown, false), None);
}

#[test]
fn a_key_is_removed_when_it_is_in_use_nowhere() {
    let up = |number, keys| node(number, Status::Up, keys);
    let both = [OLD, NEW];
    let moved = [up(1, holds(&both, NEW)), up(2, holds(&both, NEW))];
    assert_eq!(why_not(&KeyChange::Remove(OLD), &moved, false), None);
    for force in [false, true] {
        let late = [up(1, holds(&both, NEW)), up(2, holds(&both, OLD))];
        let why = why_not(&KeyChange::Remove(OLD), &late, force).unwrap();
        assert!(why.contains("00000001 is in use at n2"), "{why}");
        let why = why_not(&KeyChange::Remove(7), &moved, force).unwrap();
        assert_eq!(why, "no node has a key 00000007");
    }
    let unknown = [up(1, holds(&both, NEW)), up(2, silent())];
    assert!(why_not(&KeyChange::Remove(OLD), &unknown, false).unwrap().contains("(n2)"));
    assert_eq!(why_not(&KeyChange::Remove(OLD), &unknown, true), None);
    // A change that got half-way is finished by the same word.
    let half = [up(1, holds(&[NEW], NEW)), up(2, holds(&both, NEW))];
    assert_eq!(why_not(&KeyChange::Remove(OLD), &half, false), None);
}

#[test]
fn what_the_asked_node_itself_refuses_is_refused() {
    let refused = KeyOrdered::Refused("it has no keyring".to_owned());
    for change in [KeyChange::List, KeyChange::Use(NEW), KeyChange::Remove(OLD)] {
        let nodes = [node(1, Status::Up, refused.clone())];
        assert_eq!(why_not(&change, &nodes, true).as_deref(), Some("it has no keyring"));
    }
}

#[test]
fn reasons_are_cut_between_characters() {
    let long = "é".repeat(REASON_BYTES_MAX);
    let short = cut(format!("x{long}"));
    assert!(short.len() <= REASON_BYTES_MAX / 2 && short.ends_with('é'));
    assert_eq!(cut("short".to_owned()), "short");
}

/// The keys of node 1 that runs in this incarnation.
fn keys(ring: &Keyring, incarnation: u64) -> Keys {
    let sender = NodeSender::new(ring, "shop", 1, Epoch::new(incarnation, [1; 6]));
    let held = Held { ring: Arc::new(ring.clone()), sender: Arc::new(sender) };
    Keys {
        cluster: "shop".to_owned(),
        held: watch::Sender::new(held),
        incarnation: AtomicU64::new(incarnation),
        rng: Mutex::new(StdRng::seed_from_u64(1)),
    }
}

#[test]
fn a_raised_incarnation_begins_an_epoch_in_which_others_take_packets_again() {
    let ring = Keyring::new(Key::new(KeyKind::Node, &[1; 32])).unwrap();
    let keys = keys(&ring, 100);
    let other = NodeSender::new(&ring, "shop", 2, Epoch::new(1, [2; 6]));
    let mut other = NodeReceiver::new(Arc::new(ring.clone()), Arc::new(other), &[3; 32]);
    let from = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let mut is_taken_from = |sender: &NodeSender| {
        let mut packet = Vec::new();
        sender.seal_gossip(b"packet", &mut packet).unwrap();
        other.open(1, from, &packet).is_ok()
    };
    let first = keys.held().sender;
    assert!(is_taken_from(&first));
    // What is no later incarnation begins no epoch: its counters go on.
    for incarnation in [100, 99] {
        keys.raise(incarnation);
        assert!(Arc::ptr_eq(&keys.held().sender, &first));
    }
    // The disk was set back: there was a life in between, and others remember it.
    assert!(is_taken_from(&NodeSender::new(&ring, "shop", 1, Epoch::new(150, [4; 6]))));
    assert!(!is_taken_from(&keys.held().sender));
    keys.raise(200);
    assert!(is_taken_from(&keys.held().sender));
    let raised = keys.held().sender;
    keys.raise(150);
    assert!(Arc::ptr_eq(&keys.held().sender, &raised));
}
