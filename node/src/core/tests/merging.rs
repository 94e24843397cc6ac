//! Tables whose values are joined by the application: sets of numbers here, in which nothing that was
//! acknowledged may be missing in the end.

use super::*;

/// A set of numbers, as the application writes it: each in four bytes, in ascending order.
fn set(numbers: &[u32]) -> Value {
    let numbers: BTreeSet<u32> = numbers.iter().copied().collect();
    Value::Bytes(numbers.into_iter().flat_map(u32::to_be_bytes).collect())
}

/// The numbers in such a set; of other bytes as many as there are.
fn numbers(bytes: &[u8]) -> BTreeSet<u32> {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_be_bytes(*chunk)).collect()
}

fn union(one: &[u8], other: &[u8]) -> Vec<u8> {
    numbers(one).union(&numbers(other)).flat_map(|number| number.to_be_bytes()).collect()
}

fn merged_by(
    name: &str,
    merge: impl Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> TablePolicy {
    let merge = Some(ValueMerge::new(name, merge).unwrap());
    TablePolicy { merge, ..TablePolicy::default() }
}

fn sets() -> TablePolicy {
    merged_by("sets-1", union)
}

/// What becomes of a set when some are added; `number` is the only one that need be said.
fn add(number: u32) -> Operation {
    write(None, set(&[number]))
}

impl World {
    /// The numbers that a node holds; none of what ended or is not there.
    fn held(&mut self, node: usize, key: &str) -> BTreeSet<u32> {
        let body = self.copy(node, key).and_then(|entry| entry.body);
        body.map_or_else(BTreeSet::new, |body| numbers(&body.base.bytes))
    }

    /// Puts a copy into the store of one node alone.
    fn place(&mut self, node: usize, name: &str, entry: &Entry) {
        let now = self.present(node);
        let key = Key::new(name).unwrap();
        self.core(node, name).merge(now, 0, &key, entry, Admission::Reserve).unwrap();
    }
}

#[test]
fn values_written_at_the_same_time_are_all_there() {
    let mut world = World::with_policy(3, 5, sets());
    world.settle();
    world.acknowledged(0, "key", start(set(&[1])));
    let written: Vec<u64> =
        (0..3).map(|node| world.request(node, "key", add(10 + node as u32))).collect();
    for id in written {
        assert!(matches!(world.wait(id), SessionReply::Acknowledged(_)));
    }
    world.acknowledged(1, "key", add(20));
    world.run_for(Duration::from_millis(50));
    for node in 0..3 {
        assert_eq!(world.value(node, "key"), set(&[1, 10, 11, 12, 20]), "at {node}");
    }
    // Another session under the key has nothing of the first, and an end is an end.
    world.acknowledged(2, "key", start(set(&[2])));
    world.acknowledged(0, "key", add(3));
    // The third home has it a little later than the client its answer.
    world.run_for(Duration::from_millis(5));
    assert_eq!(world.value(1, "key"), set(&[2, 3]));
    world.acknowledged(1, "key", Operation::End { birth: None });
    assert_eq!(world.fails(2, "key", add(4)), Failure::Ended);
}

#[test]
fn a_write_on_a_condition_is_joined_too_and_its_condition_is_the_version() {
    let mut world = World::with_policy(3, 6, sets());
    world.settle();
    let begun = world.acknowledged(0, "key", start(set(&[1])));
    let change = |numbers: &[u32]| Change::Value(set(numbers));
    let first = Operation::UpdateIf { version: begun.version, change: change(&[2]) };
    let done = world.acknowledged(1, "key", first.clone());
    assert_eq!(world.fails(2, "key", first), Failure::Conflict { version: done.version });
    assert_eq!(world.value(0, "key"), set(&[1, 2]));
    let second = Operation::UpdateIf { version: done.version, change: change(&[3]) };
    world.acknowledged(2, "key", second);
    // The third home has it a little later than the client its answer.
    world.run_for(Duration::from_millis(5));
    assert_eq!(world.value(1, "key"), set(&[1, 2, 3]));
}

/// The node that asked is a home, and has a later write; the one that was decided on elsewhere is lost on its way
/// there, now and then.
#[test]
fn whoever_had_a_conditional_write_done_reads_it_though_it_holds_a_later_one() {
    let (mut done, key) = (0, sparse("key"));
    for seed in 0..120 {
        let mut world = World::sparse_with_policy(3, 100 + seed, sets());
        world.settle();
        let version = world.acknowledged(0, &key, start(set(&[1]))).version;
        world.run_for(Duration::from_millis(20));
        let homes = world.core(0, &key).homes(0, Key::new(key.as_str()).unwrap().slot());
        let last = homes[2];
        let node = (0..3).find(|node| last.bits() == world.nodes[*node].state.id).unwrap();
        world.loss = 0.25;
        let change = Change::Value(set(&[2]));
        let decided = world.request(node, &key, Operation::UpdateIf { version, change });
        world.run_for(Duration::from_millis(4));
        world.request(node, &key, add(3));
        let asked = world.now;
        let reply = world.wait(decided);
        // Later than that it gave up to fetch what was lost.
        let is_prompt = world.now < asked + CoreSettings::default().home_timeout / 2;
        if let (SessionReply::Acknowledged(_), true) = (reply, is_prompt) {
            let held = world.held(node, &key);
            assert!(held.contains(&2), "seed {seed}: {held:?}");
            done += u32::from(held.contains(&3));
        }
    }
    assert!(done > 3, "{done}");
}

#[test]
fn what_comes_through_a_lane_is_joined() {
    let mut world = World::with_policy(1, 7, sets());
    world.settle();
    world.acknowledged(0, "key", start(set(&[1])));
    let (answer, _) = world.ask_through_a_lane("key", add(2));
    assert!(matches!(answer, Answer::Acknowledged(_)), "{answer:?}");
    assert_eq!(world.value(0, "key"), set(&[1, 2]));
    let (touched, is_done_at_once) =
        world.ask_through_a_lane("key", Operation::Touch { birth: None });
    assert!(matches!(touched, Answer::Acknowledged(_)) && is_done_at_once, "{touched:?}");
}

/// Three nodes that break a rule, or none, and hold a set.
fn three(seed: u64, flaw: Option<Flaw>) -> World {
    let mut world = World::with_policy(3, seed, sets());
    world.flaw = flaw;
    (0..3).for_each(|node| world.kill(node));
    (0..3).for_each(|node| world.start(node));
    world.settle();
    world.acknowledged(0, "key", start(set(&[0])));
    // Nothing of it is in flight any more.
    world.run_for(Duration::from_secs(5));
    world
}

fn set_bytes(numbers: &[u32]) -> Vec<u8> {
    match set(numbers) {
        Value::Bytes(bytes) => bytes,
        other => unreachable!("a set is bytes, and no {:?}", other.kind()),
    }
}

#[test]
fn a_copy_that_has_the_version_and_not_the_value_is_found() {
    let mut world = three(8, None);
    let mut more = world.copy(0, "key").unwrap();
    more.body.as_mut().unwrap().base.bytes = set_bytes(&[0, 1]);
    assert_eq!(world.copy(0, "key").map(|entry| entry.version), Some(more.version));
    world.place(1, "key", &more);
    world.run_for(Duration::from_secs(40));
    for node in 0..3 {
        assert_eq!(world.copy(node, "key").as_ref(), Some(&more), "at {node}");
    }
}

/// A home that does not hear the others writes later than they do. They have both then, and it has their version
/// and not their value; it is killed before a hint of its own would have shown that.
#[test]
fn a_home_that_missed_a_write_and_made_a_later_one_is_found_unless_versions_alone_are_compared() {
    for (flaw, wanted) in [(None, 3), (Some(Flaw::ComparesVersions), 2)] {
        let mut world = three(8, flaw);
        world.cut.extend([(0, 2), (1, 2)]);
        world.acknowledged(0, "key", add(1));
        let unheard = world.request(2, "key", add(2));
        world.run_for(Duration::from_millis(20));
        assert_eq!(world.held(0, "key").len(), 3, "it arrived");
        // The others' hints for it are lost, too.
        for node in [2, 0, 1] {
            world.kill(node);
            world.nodes[node].kept.clear();
        }
        world.cut.clear();
        (0..3).for_each(|node| world.start(node));
        world.run_for(Duration::from_secs(60));
        world.settle();
        assert!(!world.replies.contains_key(&unheard));
        let versions: BTreeSet<_> =
            (0..3).map(|node| world.copy(node, "key").unwrap().version).collect();
        assert_eq!(versions.len(), 1);
        assert_eq!((world.held(0, "key").len(), world.held(1, "key").len()), (3, 3));
        assert_eq!(world.held(2, "key").len(), wanted, "{flaw:?}");
    }
}

#[test]
fn a_copy_besides_the_homes_that_missed_a_write_is_found() {
    let mut world = World::with_policy(5, 9, sets());
    world.settle();
    let attributes = Attributes { replicas: 5, owner: Vec::new() };
    let lifetimes = Lifetimes::default();
    let operation = Operation::Start { value: set(&[1]), lifetimes, attributes };
    world.acknowledged(0, "key", operation);
    world.run_for(Duration::from_secs(5));
    let extra = world.outsider("key");
    assert_eq!(world.held(extra, "key"), [1].into());
    let mut more = world.copy(extra, "key").unwrap();
    more.body.as_mut().unwrap().base.bytes = set_bytes(&[1, 2]);
    let homes = world.core(0, "key").homes(0, Key::new("key").unwrap().slot());
    for node in 0..5 {
        if homes.contains(&NodeId::from_bits(world.nodes[node].state.id)) {
            world.place(node, "key", &more);
        }
    }
    world.run_until("the extra copy has it", Duration::from_secs(120), |world| {
        world.held(extra, "key").len() == 2
    });
}

/// A cluster of four under loss, partitions and restarts, in which three in four operations add a number of
/// their own to one of some sets: what is missing, or differs, after healing.
fn history(seed: u64, flaw: Option<Flaw>) -> Vec<String> {
    let mut world = World::sparse_with_policy(4, seed, sets());
    world.flaw = flaw;
    (0..4).for_each(|node| world.kill(node));
    (0..4).for_each(|node| world.start(node));
    world.settle();
    let keys: Vec<String> = (0..4).map(|number| sparse(&format!("key {number}"))).collect();
    let mut acknowledged: BTreeMap<(String, Version), BTreeSet<u32>> = BTreeMap::new();
    let mut asked: Vec<(u64, String, Option<u32>)> = Vec::new();
    for key in &keys {
        let birth = world.acknowledged(0, key, start(set(&[0]))).birth;
        acknowledged.insert((key.clone(), birth), [0].into());
    }
    for round in 1..=160u32 {
        match world.rng.random_range(0..20) {
            0 => {
                let node = world.rng.random_range(0..4);
                world.isolate(node);
            }
            1 => {
                let pair = (world.rng.random_range(0..4), world.rng.random_range(0..4));
                world.cut.insert(pair);
            }
            2 | 3 => world.cut.clear(),
            4 => {
                let node = world.rng.random_range(0..4);
                world.kill(node);
                world.start(node);
            }
            _ => {}
        }
        world.loss = if round % 40 < 20 { 0.15 } else { 0.0 };
        let key = keys[world.rng.random_range(0..keys.len())].clone();
        let node = world.rng.random_range(0..4);
        let version = world.copy(node, &key).map_or(Version::ZERO, |entry| entry.version);
        let value = set(&[round]);
        let (operation, number) = match world.rng.random_range(0..40) {
            0 => (Operation::End { birth: None }, None),
            1 => (start(value), Some(round)),
            2..6 => (Operation::UpdateIf { version, change: Change::Value(value) }, Some(round)),
            6..9 => (Operation::Touch { birth: None }, None),
            _ => (add(round), Some(round)),
        };
        let id = world.request(node, &key, operation);
        asked.push((id, key, number));
        let pause = world.rng.random_range(0..120);
        world.run_for(Duration::from_millis(pause));
    }
    world.run_for(Duration::from_secs(3));
    world.loss = 0.0;
    world.cut.clear();
    world.run_for(Duration::from_secs(75));
    world.settle();
    for (id, key, number) in asked {
        let reply = world.replies.remove(&id);
        if let (Some(Message::SessionReply(SessionReply::Acknowledged(done))), Some(number)) =
            (reply, number)
        {
            acknowledged.entry((key, done.birth)).or_default().insert(number);
        }
    }
    let mut found = Vec::new();
    for key in &keys {
        let slot = Key::new(key.as_str()).unwrap().slot();
        let homes = world.core(0, key).homes(0, slot);
        let is_home = |world: &World, node: usize| {
            homes.contains(&NodeId::from_bits(world.nodes[node].state.id))
        };
        let at: Vec<usize> = (0..4).filter(|node| is_home(&world, *node)).collect();
        let copies: Vec<_> = at.iter().map(|node| world.copy(*node, key)).collect();
        if copies.windows(2).any(|pair| pair[0] != pair[1]) {
            found.push(format!("copies of {key} differ: {copies:?}"));
        }
        for copy in copies.into_iter().flatten().filter(|copy| !copy.is_ended()) {
            let wanted = acknowledged.get(&(key.clone(), copy.birth)).cloned().unwrap_or_default();
            let held = numbers(&copy.body.unwrap().base.bytes);
            if !wanted.is_subset(&held) {
                found.push(format!("{key} lacks {:?}", wanted.difference(&held)));
            }
        }
    }
    found
}

#[test]
fn nothing_acknowledged_is_missing_after_loss_partitions_and_restarts() {
    for seed in 0..6 {
        let found = history(2_000 + seed, None);
        assert!(found.is_empty(), "seed {seed}: {found:?}");
    }
}

#[test]
fn nodes_that_let_the_later_value_win_are_found_out() {
    let is_found = |seed| !history(seed, Some(Flaw::KeepsTheLater)).is_empty();
    assert!((2_000..2_006).any(is_found), "with none of the seeds that the sound ones pass");
}

#[test]
fn a_node_that_joins_values_otherwise_takes_none_and_says_so() {
    for other in [TablePolicy::default(), merged_by("sets-2", union)] {
        let mut world = World::with_policy(2, 10, sets());
        let name = other.merge.as_ref().map(|merge| merge.name().to_owned());
        world.policy = other;
        let stranger = world.add(3);
        world.run_for(Duration::from_secs(20));
        world.acknowledged(0, "key", start(set(&[1])));
        world.acknowledged(1, "key", add(2));
        world.run_for(Duration::from_secs(40));
        for node in 0..2 {
            assert_eq!(world.value(node, "key"), set(&[1, 2]));
            assert!(world.counter(node, "requests_of_other_merges") > 0);
        }
        assert_eq!(world.copy(stranger, "key"), None);
        assert!(world.counter(stranger, "requests_of_other_merges") > 0);
        // Its own clients are told why, and not that there is nothing.
        let refused = world.fails(stranger, "key", start(set(&[3])));
        let Failure::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("this node has no table \"sessions\""), "{why}");
        assert!(name.as_ref().is_none_or(|name| why.contains(name)), "{why}");
        let read = world.fails(stranger, "key", Operation::Get);
        assert!(matches!(read, Failure::Unavailable { .. }), "{read:?}");
        let (ours, theirs) = (Some("sets-1".to_owned()), name);
        let told = Notice::OtherMerge {
            node: NodeId::from_bits(3),
            table: "sessions".to_owned(),
            ours,
            theirs,
        };
        let said = &world.nodes[0].whole.as_ref().unwrap().other_merges;
        assert!(said.contains(&told), "{said:?}");
    }
}

#[test]
fn what_cannot_be_joined_is_refused_and_of_two_copies_the_later_stays() {
    let merge = |one: &[u8], other: &[u8]| match (one, other) {
        (b"panic", _) | (_, b"panic") => panic!("on purpose"),
        (b"glue", _) | (_, b"glue") => [one, other].concat(),
        _ => one.max(other).to_vec(),
    };
    let mut world = World::with_policy(3, 11, merged_by("odd", merge));
    world.settle();
    for odd in ["panic", "glue"] {
        world.acknowledged(0, odd, start(bytes("fine")));
        let Failure::Refused(why) = world.fails(1, odd, write(None, bytes(odd))) else {
            panic!("refused")
        };
        assert!(why.contains("cannot join"), "{why}");
        assert_eq!(world.value(2, odd), bytes("fine"));
        let version = world.acknowledged(0, odd, write(None, bytes("finer"))).version;
        let on_condition = Operation::UpdateIf { version, change: Change::Value(bytes(odd)) };
        let refused = world.fails(1, odd, on_condition);
        assert!(matches!(refused, Failure::Refused(_)), "{refused:?}");
        // Two copies that meet cannot be refused.
        let mut later = world.copy(0, odd).unwrap();
        let stamp = Version {
            hlc: annulus_proto::Hlc::from_ms(later.version.hlc.ms() + 1),
            ..later.version
        };
        later.write_value(stamp, bytes(odd));
        world.place(1, odd, &later);
        assert_eq!(world.copy(1, odd), Some(later.clone()));
        world.run_for(Duration::from_secs(45));
        for node in 0..3 {
            assert_eq!(world.copy(node, odd), Some(later.clone()), "{odd} at {node}");
        }
    }
    let counted = |name| (0..3).map(|node| world.counter(node, name)).sum::<u64>();
    assert!(counted("merges_panicked") > 0 && counted("merges_unlawful") > 0);
}

#[test]
fn a_value_that_would_grow_beyond_its_bound_is_refused_and_two_sides_of_a_partition_fit_together() {
    let policy = TablePolicy { max_value: 400, ..sets() };
    let mut world = World::with_policy(3, 12, policy);
    world.settle();
    let first: Vec<u32> = (0..90).collect();
    world.acknowledged(0, "key", start(set(&first)));
    let more: Vec<u32> = (90..190).collect();
    let refused = world.fails(1, "key", write(None, set(&more)));
    assert_eq!(refused, Failure::TooLarge { size: 760, limit: 400 });
    // Beyond twice the bound the call-back's answer is not even looked at.
    assert_eq!(world.value(2, "key"), set(&first));
    world.run_for(Duration::from_millis(50));
    let mut other = world.copy(0, "key").unwrap();
    other.body.as_mut().unwrap().base.bytes = set_bytes(&more);
    world.place(0, "key", &other);
    world.run_for(Duration::from_secs(45));
    for node in 0..3 {
        assert_eq!(world.held(node, "key").len(), 190, "at {node}");
    }
    let again: Vec<u32> = (200..290).collect();
    other.body.as_mut().unwrap().base.bytes = set_bytes(&again);
    world.place(1, "key", &other);
    world.run_for(Duration::from_secs(45));
    let copies: Vec<_> = (0..3).map(|node| world.copy(node, "key")).collect();
    assert!(copies.windows(2).all(|pair| pair[0] == pair[1]), "they converge");
    assert!((0..3).map(|node| world.counter(node, "merges_too_large")).sum::<u64>() > 0);
}

#[test]
fn a_table_of_joined_values_takes_no_maps() {
    let mut world = World::with_policy(3, 13, sets());
    world.settle();
    let refused = world.fails(0, "key", start(map(&[("a", "1")])));
    assert!(matches!(refused, Failure::Refused(_)), "{refused:?}");
    world.acknowledged(0, "key", start(set(&[1])));
    for operation in [write(None, map(&[("a", "1")])), set_field("a", "1")] {
        let refused = world.fails(1, "key", operation);
        assert!(matches!(refused, Failure::Refused(_)), "{refused:?}");
    }
    let now = world.present(0);
    let mut entry = world.copy(0, "key").unwrap();
    entry.write_value(
        Version { hlc: annulus_proto::Hlc::from_ms(now.wall_ms + 1), ..entry.version },
        map(&[("a", "1")]),
    );
    let key = Key::new("key").unwrap();
    let merged = world.core(0, "key").merge(now, 0, &key, &entry, Admission::Reserve);
    assert!(matches!(merged, Err(Failure::Refused(_))), "{merged:?}");
}
