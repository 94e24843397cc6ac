use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use annulus_proto::{Load, Member};

use super::*;

thread_local! {
    pub(super) static HASH_MASK: Cell<u64> = const { Cell::new(u64::MAX) };
}

fn member(index: u64) -> Member {
    Member {
        // Ids are random; these are as good.
        id: NodeId::from_bits(XxHash3_64::oneshot_with_seed(1, &index.to_le_bytes())),
        incarnation: 1,
        revision: 0,
        status: Status::Up,
        addr: SocketAddr::from(([127, 0, 0, 1], 7_000)),
        name: String::new(),
        zone: String::new(),
        weight: 100,
        rings: 1,
        load: Load::default(),
    }
}

fn ring(members: impl IntoIterator<Item = Member>, homes: u8) -> Ring {
    Ring::build(&members.into_iter().collect(), 0, homes)
}

/// How many slots each node is among the first `homes` homes of.
fn shares(ring: &Ring, homes: usize) -> BTreeMap<NodeId, usize> {
    let mut shares = ring.nodes().iter().map(|&node| (node, 0)).collect::<BTreeMap<_, _>>();
    for slot in Slot::all() {
        for node in &ring.homes(slot)[..homes] {
            *shares.get_mut(node).unwrap() += 1;
        }
    }
    shares
}

fn peak_to_average(ring: &Ring, homes: usize) -> f64 {
    let shares = shares(ring, homes);
    let peak = *shares.values().max().unwrap() as f64;
    peak * shares.len() as f64 / (homes as f64 * f64::from(SLOT_COUNT))
}

/// How many homes of slots `after` has that `before` had not.
fn moved(before: &Ring, after: &Ring) -> usize {
    Slot::all()
        .map(|slot| {
            after.homes(slot).iter().filter(|node| !before.homes(slot).contains(node)).count()
        })
        .sum()
}

#[test]
fn homes_are_the_same_on_every_platform() {
    let members = (0..5).map(|i| Member {
        weight: 50 + 25 * i as u16,
        zone: ["a", "b", "c"][i as usize % 3].into(),
        ..member(i)
    });
    let ring = ring(members, 3);
    let bytes = ring.home_indexes().iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>();
    assert_eq!(
        XxHash3_64::oneshot(&bytes),
        1_004_668_581_446_453_410,
        "placement changed: nodes would disagree"
    );
}

#[test]
fn homes_are_the_same_for_every_order_of_learning() {
    let mut members = (0..9).map(member).collect::<Vec<_>>();
    for (index, member) in members.iter_mut().enumerate() {
        member.zone = ["", "a", "b"][index % 3].into();
        member.weight = [100, 100, 300][index / 3];
    }
    let before = ring(members.clone(), 3);
    for rotation in 1..members.len() {
        members.rotate_left(rotation);
        members.swap(0, 4);
        assert_eq!(ring(members.clone(), 3), before);
    }
}

#[test]
fn ties_go_to_the_lower_id() {
    for mask in [0, 0b11] {
        HASH_MASK.set(mask);
        let members = (0..6).map(|i| Member { weight: [100, 300][i as usize % 2], ..member(i) });
        let members = members.collect::<Vec<_>>();
        let forward = ring(members.clone(), 3);
        let backward = ring(members.iter().rev().cloned(), 3);
        assert_eq!(forward, backward);
        for slot in Slot::all() {
            let homes = forward.homes(slot);
            assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3);
        }
        if mask == 0 {
            let mut heavy = members.iter().filter(|m| m.weight == 300).collect::<Vec<_>>();
            heavy.sort_by_key(|m| m.id);
            let heavy = heavy.iter().map(|m| m.id).collect::<Vec<_>>();
            assert_eq!(forward.homes(Slot::new(0).unwrap()), heavy);
        }
    }
    HASH_MASK.set(u64::MAX);
}

#[test]
fn equal_nodes_hold_equal_shares() {
    let twelve = ring((0..12).map(member), 3);
    let (replicas, primaries) = (peak_to_average(&twelve, 3), peak_to_average(&twelve, 1));
    println!("12 nodes: replicas {replicas:.3}, primaries {primaries:.3}");
    assert!(replicas <= 1.06, "{replicas}");
    assert!(primaries <= 1.10, "{primaries}");
}

#[test]
fn weights_are_honoured_within_five_percent() {
    // Of primaries exactly; of replicas as far as distinct homes allow, which small weights among
    // many nodes do.
    let weights = |i: u64| [50, 100, 200][i as usize % 3];
    let weighted = ring((0..12).map(|i| Member { weight: weights(i), ..member(i) }), 1);
    let total = (0..12).map(|i| f64::from(weights(i))).sum::<f64>();
    for class in 0..3u64 {
        let nodes = (0..12).filter(|i| i % 3 == class).map(|i| member(i).id).collect::<Vec<_>>();
        let held = shares(&weighted, 1);
        let held = nodes.iter().map(|node| held[node]).sum::<usize>() as f64;
        let due = 4.0 * f64::from(weights(class)) / total * f64::from(SLOT_COUNT);
        println!("weight {}: {:.3} of its share", weights(class), held / due);
        assert!((held / due - 1.0).abs() <= 0.05, "{held} of {due}");
    }
}

#[test]
fn zones_of_homes_are_distinct_while_there_are_any() {
    let zone = |i: u64| ["a", "a", "a", "a", "b", "b", "c"][i as usize % 7].to_string();
    let members = (0..7).map(|i| Member { zone: zone(i), ..member(i) }).collect::<Vec<_>>();
    let zones = members.iter().map(|m| (m.id, m.zone.clone())).collect::<BTreeMap<_, _>>();
    let ring = ring(members, 5);
    for slot in Slot::all() {
        let homes = ring.homes(slot);
        let first = homes[..3].iter().map(|node| &zones[node]).collect::<BTreeSet<_>>();
        assert_eq!(first.len(), 3);
        assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 5);
    }
}

#[test]
fn nodes_without_a_zone_fail_with_nobody() {
    let with = ring((0..6).map(|i| Member { zone: format!("z{i}"), ..member(i) }), 3);
    let without = ring((0..6).map(member), 3);
    assert_eq!(with.home_indexes(), without.home_indexes());
}

#[test]
fn fewer_homes_are_a_prefix_of_more_and_candidates_name_everybody() {
    let zone = |i: u64| ["a", "a", "b", ""][i as usize % 4].to_string();
    let members =
        || (0..8).map(|i| Member { zone: zone(i), weight: 60 + 10 * i as u16, ..member(i) });
    let rings = (0..=7).map(|homes| ring(members(), homes)).collect::<Vec<_>>();
    for slot in Slot::all() {
        for pair in rings.windows(2) {
            let (fewer, more) = (pair[0].homes(slot), pair[1].homes(slot));
            assert_eq!(fewer, &more[..fewer.len()]);
        }
    }
    for slot in Slot::all().step_by(97) {
        let candidates = rings[3].candidates(slot);
        assert_eq!(candidates.iter().collect::<BTreeSet<_>>().len(), 8);
        assert_eq!(&candidates[..3], rings[3].homes(slot));
    }
}

#[test]
fn a_join_and_a_leave_move_little_more_than_they_must() {
    for zones in [1u64, 3] {
        let zoned = |i: u64| {
            let zone = if zones == 1 { String::new() } else { format!("z{}", i % zones) };
            Member { zone, ..member(i) }
        };
        let before = ring((0..12).map(zoned), 3);
        let after = ring((0..13).map(zoned), 3);
        let joined = shares(&after, 3)[&member(12).id];
        let left = shares(&after, 3)[&member(12).id];
        let (join, leave) = (moved(&before, &after), moved(&after, &before));
        println!(
            "{zones} zone(s): a join moves {join}, must {joined}; a leave {leave}, must {left}"
        );
        assert!(join as f64 <= 1.1 * joined as f64, "{join} of {joined}");
        assert!(leave as f64 <= 1.1 * left as f64, "{leave} of {left}");
    }
}

#[test]
fn only_members_that_are_up_with_a_weight_and_the_tier_own_slots() {
    let outer = Member { rings: 0b10, ..member(5) };
    let members = [
        member(0),
        Member { status: Status::Joining, ..member(1) },
        Member { status: Status::Draining, ..member(2) },
        Member { status: Status::Down, ..member(3) },
        Member { weight: 0, ..member(4) },
        outer.clone(),
    ];
    assert_eq!(ring(members.clone(), 3).nodes(), [member(0).id]);
    assert_eq!(ring(members.clone(), 3).homes_per_slot(), 1);
    assert_eq!(Ring::build(&members.into_iter().collect(), 1, 3).nodes(), [outer.id]);
    let empty = ring([], 3);
    let slot = Slot::new(16_383).unwrap();
    assert!(empty.homes(slot).is_empty() && empty.candidates(slot).is_empty());
    assert!(!empty.is_home(member(0).id, slot));
}

#[test]
fn logarithms_are_right_and_fall_as_the_hash_grows() {
    let unit = (1u64 << LOG_FRACTION_BITS) as f64;
    let mut hash = 1u64;
    let mut hashes = vec![0, 1, u64::MAX, 1 << 63, (1 << 63) - 1];
    for _ in 0..10_000 {
        hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        hashes.push(hash);
        hashes.push(hash >> (hash % 60));
    }
    for &hash in &hashes {
        let exact = 64.0 - ((hash | 1) as f64).log2();
        let ours = negative_log2(hash) as f64 / unit;
        assert!((ours - exact).abs() < 1e-8, "{hash}: {ours} and {exact}");
    }
    hashes.sort_unstable();
    assert!(hashes.windows(2).all(|w| negative_log2(w[0]) >= negative_log2(w[1])));
}
