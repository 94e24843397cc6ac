//! Sessions that others are begun in place of, by clients that live to end them or not.

use annulus_proto::Replaced;

use super::*;

/// By then a session has ended that was to end.
const SEEN_TO: Duration = Duration::from_secs(13);

fn instead(old: (&str, Version)) -> Operation {
    Operation::StartInstead {
        replaced: Replaced { word: Key::new(old.0).unwrap().word(), birth: old.1 },
        value: bytes("one"),
        idle: 60_000,
        expire_at: 0,
        attributes: Attributes { replicas: 0, owner: b"ada".to_vec() },
    }
}

impl World {
    /// A session, and another one that was begun in its place. Nobody has ended the first.
    fn with_two(&mut self, old: &str, new: &str) {
        self.settle();
        let Acknowledged { birth, .. } = self.acknowledged(0, old, start(bytes("one")));
        self.acknowledged(1 % self.nodes.len(), new, instead((old, birth)));
    }

    #[track_caller]
    fn lives(&mut self, key: &str) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].whole.is_some() {
                assert_eq!(self.value(node, key), bytes("one"));
            }
        }
    }

    #[track_caller]
    fn has_ended(&mut self, key: &str) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].whole.is_some() {
                assert_eq!(self.fails(node, key, Operation::Get), Failure::Ended);
            }
        }
    }

    /// On how many nodes a session says that another one is to end.
    fn notes(&mut self, key: &str) -> usize {
        let nodes = (0..self.nodes.len()).filter(|node| self.nodes[*node].whole.is_some());
        let nodes: Vec<usize> = nodes.collect();
        let copies = nodes.into_iter().filter_map(|node| self.copy(node, key));
        copies.filter(|copy| copy.replaces().is_some()).count()
    }
}

#[test]
fn what_a_client_did_not_live_to_end_is_ended_by_the_nodes() {
    for seed in 0..4 {
        let mut world = World::sparse(5, seed);
        let (old, new) = (sparse("old"), sparse("new"));
        world.with_two(&old, &new);
        world.run_for(Duration::from_secs(5));
        world.lives(&old);
        assert_eq!(world.notes(&new), 3, "its client may be about to end it");
        world.run_for(SEEN_TO);
        world.has_ended(&old);
        world.lives(&new);
        assert_eq!(world.notes(&new), 0);
        let home = world.homes_of(&new)[0];
        let copy = world.copy(home, &new).unwrap();
        assert_eq!(copy.body.unwrap().attributes.owner, b"ada");
    }
}

#[test]
fn what_a_client_has_ended_is_looked_for_once() {
    let mut world = World::sparse(3, 5);
    let (old, new) = (sparse("old"), sparse("new"));
    world.with_two(&old, &new);
    world.acknowledged(0, &old, end());
    world.run_for(SEEN_TO);
    assert_eq!(world.notes(&new), 0);
    world.has_ended(&old);
    world.lives(&new);
    let seen_to = |world: &World| (0..3).map(|node| world.counter(node, "replaced_seen_to")).sum();
    let before: u64 = seen_to(&world);
    world.run_for(SEEN_TO);
    assert_eq!(seen_to(&world), before);
}

#[test]
fn another_home_sees_to_it_if_the_first_has_died() {
    let mut world = World::sparse(5, 6);
    let (old, new) = (sparse("old"), sparse("new"));
    world.with_two(&old, &new);
    let first = world.homes_of(&new)[0];
    world.kill(first);
    world.run_for(3 * SEEN_TO);
    world.has_ended(&old);
    world.lives(&new);
    assert_eq!(world.notes(&new), 0);
}

#[test]
fn it_outlives_a_restart_of_all_nodes() {
    let mut world = World::sparse(3, 7);
    let (old, new) = (sparse("old"), sparse("new"));
    world.with_two(&old, &new);
    world.run_for(Duration::from_secs(1));
    (0..3).for_each(|node| world.kill(node));
    world.queue.clear();
    (0..3).for_each(|node| world.start(node));
    world.settle();
    assert_eq!(world.notes(&new), 3);
    world.run_for(2 * SEEN_TO);
    world.has_ended(&old);
    world.lives(&new);
    assert_eq!(world.notes(&new), 0);
}

#[test]
fn a_node_alone_ends_what_other_cores_of_its_have() {
    let mut world = World::new(1, 8);
    world.settle();
    let names: Vec<String> = (0..12).map(|number| format!("old {number}")).collect();
    for old in &names {
        world.with_two(old, &old.replace("old", "new"));
    }
    world.run_for(SEEN_TO);
    for old in &names {
        world.has_ended(old);
        world.lives(&old.replace("old", "new"));
        assert_eq!(world.notes(&old.replace("old", "new")), 0);
    }
}

#[test]
fn who_logs_out_of_the_new_session_is_logged_out_of_the_old_one() {
    let mut world = World::sparse(3, 9);
    let (old, new) = (sparse("old"), sparse("new"));
    world.with_two(&old, &new);
    world.acknowledged(2, &new, end());
    world.run_for(SEEN_TO);
    world.has_ended(&old);
    world.has_ended(&new);
}

#[test]
fn another_session_under_the_old_key_is_left_alone() {
    let mut world = World::sparse(3, 10);
    let (old, new) = (sparse("old"), sparse("new"));
    world.with_two(&old, &new);
    world.acknowledged(0, &old, end());
    world.acknowledged(1, &old, start(bytes("one")));
    world.run_for(SEEN_TO);
    world.lives(&old);
    world.lives(&new);
    assert_eq!(world.notes(&new), 0);
}

#[test]
fn what_cannot_be_reached_is_tried_again_until_it_has_ended() {
    let mut world = World::sparse(6, 11);
    world.settle();
    // Of another home none is the same: one side can be cut off from the other.
    let new = sparse("new");
    let at_new: BTreeSet<usize> = world.homes_of(&new).into_iter().collect();
    let is_apart = |world: &mut World, key: &String| {
        world.homes_of(key).iter().all(|home| !at_new.contains(home))
    };
    let mut names = (0..).map(|number| sparse(&format!("old {number}")));
    let old = names.find(|key| is_apart(&mut world, key)).unwrap();
    world.with_two(&old, &new);
    let away = world.homes_of(&old);
    away.iter().for_each(|node| world.kill(*node));
    world.run_for(SEEN_TO);
    assert_eq!(world.notes(&new), 3);
    away.iter().for_each(|node| world.start(*node));
    world.settle();
    world.run_until_seen("it is seen to", 6 * SEEN_TO, |world| world.notes(&new) == 0);
    world.has_ended(&old);
    world.lives(&new);
}

/// Symptom: a session that had gone further out, and whose marker had to make room, was said to be gone by a home that
/// holds nothing of it.
#[test]
fn what_may_lie_further_out_is_not_said_to_be_gone() {
    let mut world = World::with_rings(4, 13, &[1]);
    let (old, new) = (sparse("old"), sparse("new"));
    world.with_two(&old, &new);
    world.until_it_is_on(1, &old);
    for node in 0..4 {
        (0..2).for_each(|ring| world.drop_copy(ring, node, &old));
    }
    world.run_for(SEEN_TO);
    assert!((0..4).any(|node| world.counter(node, "replaced_seen_to") > 0));
    assert!((0..4).all(|node| world.counter(node, "replaced_ended") == 0));
}

/// What a client says of another session is not believed so far that it moves a node's clock.
#[test]
fn a_birth_in_the_far_future_moves_no_clock() {
    let mut world = World::sparse(3, 14);
    world.settle();
    let far = Version::new(annulus_proto::Hlc::from_bits(u64::MAX), NodeId::from_bits(1));
    let (old, new) = (sparse("old"), sparse("new"));
    let Acknowledged { birth, .. } = world.acknowledged(0, &new, instead((&old, far)));
    let now_ms = world.present(0).wall_ms;
    assert!(birth.hlc.ms().abs_diff(now_ms) < 1_000, "{birth:?}");
}

#[test]
fn what_is_no_session_cannot_be_replaced() {
    let mut world = World::of_single_cores(1, 12, TablePolicy::default());
    world.settle();
    let Operation::StartInstead { replaced, value, idle, expire_at, attributes } =
        instead(("old", Version::ZERO))
    else {
        unreachable!()
    };
    let replaced = Replaced { word: u64::MAX, ..replaced };
    let operation = Operation::StartInstead { replaced, value, idle, expire_at, attributes };
    assert!(matches!(world.fails(0, "new", operation), Failure::Refused(_)));
}
