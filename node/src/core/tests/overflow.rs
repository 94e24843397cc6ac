//! Sessions that leave their tables, and who writes them down.

use super::*;

/// As long as it takes until what has expired was written and dropped everywhere.
const GONE: Duration = Duration::from_secs(90);

fn archiving() -> TablePolicy {
    TablePolicy { overflow: Overflow::Archive, ..TablePolicy::default() }
}

fn world(count: usize, seed: u64) -> World {
    let mut world = World::sparse_with_policy(count, seed, archiving());
    world.settle();
    world.run_for(Duration::from_secs(3));
    world
}

pub(super) fn keys(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| sparse(&format!("{name} {number}"))).collect()
}

impl World {
    /// Lets time pass in which tables are scanned.
    pub(super) fn scan_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.run_for(Duration::from_millis(500));
            self.scan_all();
        }
    }

    pub(super) fn scan_all(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.present(node);
            if let Some(whole) = &mut self.nodes[node].whole {
                whole.scan(now, 2_048, 0);
            }
            self.drain(node);
        }
    }

    /// How often each session was written, by its key.
    fn written(&self) -> BTreeMap<String, usize> {
        let mut written = BTreeMap::new();
        for session in self.nodes.iter().flat_map(|node| &node.archive) {
            let key = String::from_utf8(session.key.as_bytes().to_vec()).unwrap();
            *written.entry(key).or_default() += 1;
        }
        written
    }

    /// Sessions that live a second when they are not used.
    fn begin(&mut self, keys: &[String]) {
        for (number, key) in keys.iter().enumerate() {
            let node = number % self.nodes.len();
            self.acknowledged(node, key, start_idle(bytes(&format!("of {key}")), 1_000));
        }
    }

    /// Nodes, and sessions that have just begun.
    fn with_passing(nodes: usize, seed: u64, name: &str, sessions: usize) -> (Self, Vec<String>) {
        let (mut world, keys) = (world(nodes, seed), keys(name, sessions));
        world.begin(&keys);
        (world, keys)
    }

    #[track_caller]
    fn are_gone(&mut self, keys: &[String]) {
        for key in keys {
            for node in 0..self.nodes.len() {
                assert!(self.copy(node, key).is_none(), "{key:?} is at {node}");
            }
        }
    }
}

fn once(keys: &[String]) -> BTreeMap<String, usize> {
    keys.iter().map(|key| (key.clone(), 1)).collect()
}

#[test]
fn each_session_that_expires_is_written_once_by_its_primary_and_none_that_ended() {
    for seed in 0..3 {
        let mut world = world(3, seed);
        let [left, ended, used] = ["left", "ended", "used"].map(|name| keys(name, 30));
        world.begin(&left);
        world.begin(&ended);
        for key in &ended {
            world.acknowledged(1, key, Operation::End { birth: None });
        }
        for key in &used {
            world.acknowledged(2, key, start(bytes("used")));
        }
        world.scan_for(Duration::from_secs(50));
        assert_eq!(world.written(), BTreeMap::new(), "clients are told that they have expired");
        world.scan_for(GONE - Duration::from_secs(50));
        assert_eq!(world.written(), once(&left), "seed {seed}");
        world.are_gone(&left);
        for node in 0..3 {
            let me = NodeId::from_bits(world.nodes[node].state.id);
            for session in std::mem::take(&mut world.nodes[node].archive) {
                let key = str::from_utf8(session.key.as_bytes()).unwrap().to_owned();
                assert_eq!(world.core(node, &key).homes(0, session.key.slot())[0], me);
                assert_eq!(session.value, bytes(&format!("of {key}")));
                assert_eq!((session.why, session.idle_ms), (WhyLeft::Expired, 1_000));
                assert_eq!(session.deadline_ms, session.touched_ms + 1_000);
                assert_eq!(session.table, "sessions");
            }
        }
        // Nothing comes back by comparisons.
        world.scan_for(2 * GONE);
        assert_eq!(world.written(), BTreeMap::new(), "seed {seed}");
        assert_eq!(world.total("overflow_lost"), 0);
        assert_eq!(world.total("sessions_archived"), 30);
    }
}

#[test]
fn what_a_primary_that_died_had_not_written_the_next_home_writes() {
    for seed in 0..3 {
        let (mut world, left) = World::with_passing(4, seed, "left", 40);
        world.scan_for(Duration::from_secs(59));
        assert_eq!(world.written(), BTreeMap::new());
        world.kill(0);
        world.scan_for(GONE);
        let written = world.written();
        assert!(written.keys().eq(once(&left).keys()), "seed {seed}: {written:?}");
        assert_eq!(world.total("overflow_lost"), 0);
        world.are_gone(&left);
    }
}

/// It counts as a member for an hour.
#[test]
fn what_a_primary_that_does_not_answer_had_not_written_the_next_home_writes() {
    let down_after = Duration::from_secs(3_600);
    let isolated_after = 3 * down_after;
    let mesh = MeshConfig { down_after, isolated_after, ..MeshConfig::default() };
    let mut world = World { mesh, ..World::sparse_with_policy(0, 8, archiving()) };
    for id in 1..=3 {
        world.add(id);
    }
    world.settle();
    world.run_for(Duration::from_secs(3));
    let left = keys("left", 40);
    world.begin(&left);
    world.scan_for(Duration::from_secs(55));
    world.kill(0);
    world.scan_for(GONE);
    assert_eq!(world.written(), once(&left));
    assert!(world.view(1).get(NodeId::from_bits(1)).unwrap().status.is_active());
}

/// The others do not know at first what it holds.
#[test]
fn a_primary_that_has_just_restarted_is_waited_for() {
    for seed in 0..3 {
        let (mut world, left) = World::with_passing(3, seed, "left", 40);
        world.scan_for(Duration::from_millis(60_500));
        world.kill(0);
        world.run_for(Duration::from_millis(500));
        world.start(0);
        world.scan_for(GONE);
        assert_eq!(world.written(), once(&left), "seed {seed}");
    }
}

/// What it had written is not known to the others.
#[test]
fn what_is_written_again_since_a_primary_died_can_be_told() {
    let (mut world, left) = World::with_passing(3, 1, "left", 40);
    while world.written().len() < left.len() {
        world.scan_for(Duration::from_millis(500));
    }
    let dies = (0..3).find(|node| !world.nodes[*node].archive.is_empty()).unwrap();
    let by_it = world.nodes[dies].archive.clone();
    world.kill(dies);
    world.scan_for(GONE);
    let others = (0..3).filter(|node| *node != dies);
    let again: Vec<_> = others.flat_map(|node| world.nodes[node].archive.clone()).collect();
    for session in &by_it {
        assert!(again.contains(session), "the same key, birth and version");
    }
    assert!(world.written().into_values().all(|times| times <= 2));
}

#[test]
fn a_node_that_restarts_writes_what_expired_meanwhile() {
    let (mut world, left) = World::with_passing(1, 2, "left", 20);
    world.kill(0);
    world.now += GONE;
    world.start(0);
    world.scan_for(Duration::from_secs(20));
    assert_eq!(world.written(), once(&left));
    world.are_gone(&left);
}

#[test]
fn what_cannot_be_written_stays_and_is_written_later() {
    let (mut world, left) = World::with_passing(3, 3, "left", 30);
    world.nodes.iter_mut().for_each(|node| node.has_disk = false);
    // Far longer than it is known what left.
    world.scan_for(Duration::from_secs(600));
    assert_eq!(world.written(), BTreeMap::new());
    assert!(world.total("archive_failures") >= 3);
    let held = |world: &mut World, key: &String| (0..3).any(|it| world.copy(it, key).is_some());
    assert!(left.iter().all(|key| held(&mut world, key)), "they stay");
    // Requests are served all the same.
    world.acknowledged(0, &left[0], start(bytes("another")));
    world.nodes.iter_mut().for_each(|node| node.has_disk = true);
    world.scan_for(Duration::from_secs(30));
    assert_eq!(world.written(), once(&left));
    world.are_gone(&left[1..]);
    assert_eq!(world.value(1, &left[0]), bytes("another"));
    assert_eq!(world.total("overflow_lost"), 0);
}

/// They have dropped it, and would only drop it again.
#[test]
fn what_one_home_keeps_the_others_do_not_get_back() {
    for seed in 0..2 {
        let (mut world, left) = World::with_passing(3, seed, "left", 60);
        world.nodes[0].has_disk = false;
        world.scan_for(GONE);
        let received = world.total("copies_received");
        world.scan_for(Duration::from_secs(600));
        assert_eq!(world.total("copies_received"), received, "seed {seed}");
        let kept = left.iter().filter(|key| world.copy(0, key).is_some()).count();
        assert!(kept > 5, "seed {seed}: {kept}");
        world.nodes[0].has_disk = true;
        world.scan_for(Duration::from_secs(30));
        assert_eq!(world.written(), once(&left), "seed {seed}");
        world.are_gone(&left);
    }
}

/// Nobody who is out of touch can tell whether they have ended.
#[test]
fn what_cannot_be_judged_stays_while_a_ring_is_not_quite_full() {
    let policy = TablePolicy { max_value: 1_000, ..archiving() };
    let mut world = World::with_a_small_ring(3, 5, policy);
    world.run_for(Duration::from_secs(3));
    let mut begun = Vec::new();
    while world.core(0, &sparse("key")).tables[0].store.beyond(16) == 0 {
        let key = sparse(&format!("left {}", begun.len()));
        world.acknowledged(0, &key, start_idle(bytes("left"), 10_000));
        begun.push(key);
    }
    world.isolate(0);
    world.scan_for(Duration::from_secs(40));
    assert_eq!(world.total("overflow_lost"), 0);
    world.cut.clear();
    world.scan_for(GONE);
    // Others may have taken over meanwhile.
    assert!(world.written().keys().eq(once(&begun).keys()));
    assert_eq!(world.total("overflow_lost"), 0);
}

#[test]
fn what_goes_unwritten_since_there_is_need_of_room_is_counted() {
    let mut world = World::of_single_cores(1, 4, archiving());
    world.settle();
    world.nodes[0].has_disk = false;
    let value = "x".repeat(16_000);
    let mut begun = 0;
    // There is room for some 120 in the table, and for twice as many in memory.
    for _ in 0..8 {
        for _ in 0..100 {
            let begin = start_idle(bytes(&value), 1_000);
            world.acknowledged(0, &format!("key {begun}"), begin);
            begun += 1;
        }
        world.scan_for(Duration::from_secs(3));
    }
    world.nodes[0].has_disk = true;
    world.scan_for(GONE);
    let (written, lost) = (world.written(), world.total("overflow_lost"));
    assert!(written.values().all(|times| *times == 1));
    assert_eq!(written.len() as u64 + lost, begun, "{lost} lost");
    assert!(lost > 200 && written.len() > 300, "{lost} lost");
    assert_eq!(world.core(0, "key 0").tables[0].overflowing.waiting(), 0);
}

#[test]
fn a_session_that_is_evicted_is_written_as_it_was() {
    let policy = TablePolicy { on_full: OnFull::Evict, ..archiving() };
    let mut world = World::of_single_cores(3, 5, policy);
    world.settle();
    world.run_for(Duration::from_secs(3));
    let value = bytes(&"x".repeat(29_000));
    for number in 0..300 {
        world.acknowledged(number % 3, &format!("key {number}"), start(value.clone()));
        world.run_for(Duration::from_millis(20));
    }
    world.scan_for(Duration::from_secs(5));
    let evicted = world.total("entries_evicted");
    assert!(evicted > 150, "{evicted}");
    assert_eq!(world.total("sessions_archived") + world.total("overflow_lost"), evicted);
    assert_eq!(world.total("overflow_lost"), 0);
    for session in world.nodes.iter().flat_map(|node| &node.archive) {
        assert_eq!((session.why, &session.value), (WhyLeft::Evicted, &value));
    }
    // What was evicted does not come back, and expires once more.
    let written = world.written();
    world.scan_for(GONE);
    assert_eq!(world.written(), written);
}

#[test]
fn what_was_written_since_it_expired_is_not_written_once_more_when_it_is_evicted() {
    let (mut world, left) = World::with_passing(1, 11, "left", 1);
    while world.written().is_empty() {
        world.scan_for(Duration::from_millis(500));
    }
    let entry = world.copy(0, &left[0]).expect("it is here for some seconds more");
    let now = world.present(0);
    let core = world.core(0, &left[0]);
    core.overflow_evicted(now, 0, &Key::new(&*left[0]).unwrap(), &entry);
    assert_eq!(core.tables[0].overflowing.waiting(), 0);
}

/// A home that was cut off holds a session that others have ended.
#[test]
fn who_is_out_of_touch_writes_nothing_that_may_have_ended() {
    for seed in 0..3 {
        let (mut world, ended) = World::with_passing(3, seed, "ended", 20);
        world.isolate(0);
        for key in &ended {
            // The one that is cut off may have been the only one to have it.
            let id = world.request(1, key, Operation::End { birth: None });
            world.run_until("an answer", Duration::from_secs(5), |w| w.replies.contains_key(&id));
        }
        world.scan_for(GONE);
        assert_eq!(world.nodes[0].archive, []);
        let here = (0..20).filter(|it| world.copy(0, &ended[*it]).is_some()).count();
        assert!(here > 5, "it has {here} of them still");
        world.cut.clear();
        world.scan_for(GONE);
        assert_eq!(world.written(), BTreeMap::new(), "seed {seed}");
    }
}

/// Of what is past its last day nobody keeps an end.
#[test]
fn what_ended_while_a_node_was_away_it_does_not_write_after_its_last_day() {
    for (away, lost) in [(0, 0), (700, 20)] {
        let lifetime_max = Duration::from_secs(1_200);
        let policy = TablePolicy { lifetime_max, idle: Duration::ZERO, ..archiving() };
        let mut world = World::sparse_with_policy(1, 7, policy);
        world.settle();
        let left = keys("left", 20);
        for key in &left {
            world.acknowledged(0, key, start(bytes("one")));
        }
        world.kill(0);
        world.now += Duration::from_secs(away);
        world.start(0);
        world.scan_for(lifetime_max - Duration::from_secs(away) + Duration::from_secs(30));
        assert_eq!(world.written(), BTreeMap::new());
        world.scan_for(GONE);
        assert_eq!(world.written().len() as u64, 20 - lost);
        assert_eq!(world.total("overflow_lost"), lost);
        world.scan_all();
        let now = world.present(0);
        let core = world.core(0, &left[0]);
        let raw = core.tables[0].store.whatever_is(&Key::new(&*left[0]).unwrap());
        assert!(raw.is_none(), "{now:?}");
    }
}

/// Nodes with a ring further out, to which sessions go after ten seconds.
fn with_a_ring(count: u64, seed: u64) -> World {
    let policy = |ring: u8, after: Option<u64>| TablePolicy {
        name: if ring == 0 { "sessions".to_owned() } else { format!("sessions@{ring}") },
        half_life: Duration::from_secs(2),
        ring,
        cools_after: after.map(Duration::from_secs),
        // Of the rings further out it is said by the innermost.
        overflow: if ring == 0 { Overflow::Archive } else { Overflow::Drop },
        ..TablePolicy::default()
    };
    let none = World::with_policy(0, seed, policy(0, Some(10)));
    let mut world = World { slots: Simulated::Sparse, outer: vec![policy(1, None)], ..none };
    for id in 1..=count {
        world.add(id);
    }
    world.settle();
    world.run_for(Duration::from_secs(3));
    world
}

#[test]
fn a_session_that_expires_on_a_ring_further_out_is_written_once() {
    let mut world = with_a_ring(4, 6);
    let cold = keys("cold", 10);
    for key in &cold {
        world.acknowledged(0, key, start_idle(bytes("cold"), 60_000));
    }
    for key in &cold {
        world.until_it_is_on(1, key);
    }
    world.scan_for(Duration::from_secs(50) + GONE);
    assert_eq!(world.written(), once(&cold));
    let tables = world.nodes.iter().flat_map(|node| &node.archive).map(|it| &it.table);
    assert!(tables.into_iter().all(|table| table == "sessions"));
    world.scan_for(GONE);
    assert_eq!(world.written(), once(&cold));
}

/// It was brought in, and those further out did not hear of it.
#[test]
fn a_copy_that_was_left_on_a_ring_further_out_is_not_written_while_its_session_lives() {
    let mut world = with_a_ring(3, 9);
    let key = sparse("cold");
    world.acknowledged(0, &key, start_idle(bytes("cold"), 60_000));
    world.until_it_is_on(1, &key);
    let of_ring = |world: &mut World, node: usize| {
        let now = world.present(node);
        let core = world.core(node, &key);
        let now_ms = core.time.now_ms(now);
        (core.tables[1].store.get(&Key::new(&*key).unwrap(), now_ms), now_ms)
    };
    let left = of_ring(&mut world, 0).0.unwrap();
    world.acknowledged(0, &key, Operation::Touch { birth: None });
    world.until_it_is_on(0, &key);
    for node in 0..3 {
        let (_, now_ms) = of_ring(&mut world, node);
        let store = &mut world.core(node, &key).tables[1].store;
        store.drop_entry(&Key::new(&*key).unwrap(), now_ms);
        store.merge(&Key::new(&*key).unwrap(), &left, now_ms, Admission::Ordinary).unwrap();
    }
    for _ in 0..40 {
        world.scan_for(Duration::from_secs(4));
        world.acknowledged(0, &key, Operation::Touch { birth: None });
    }
    assert!(of_ring(&mut world, 0).0.is_none(), "it has expired");
    assert_eq!(world.written(), BTreeMap::new());
    assert_eq!(world.value(1, &key), bytes("cold"));
}

#[test]
fn what_lies_on_another_ring_or_is_about_to_end_is_none_that_leaves() {
    let mut world = with_a_ring(1, 10);
    let key = sparse("key");
    world.acknowledged(0, &key, start(bytes("one")));
    let entry = world.copy(0, &key).unwrap();
    let core = world.core(0, &key);
    let key = Key::new(&*key).unwrap();
    let leaves = |core: &Core, table: usize, entry: &Entry| {
        core.overflowed(table, &key, entry, 5, WhyLeft::Expired).is_some()
    };
    assert!(leaves(core, 0, &entry));
    let later = Version::new(annulus_proto::Hlc::from_ms(START_WALL_MS * 2), entry.version.node);
    let moved = core.moved(0, &key, entry.clone(), later, 1);
    assert!(!leaves(core, 0, &moved) && leaves(core, 1, &moved));
    assert!(!leaves(core, 1, &moved.marker()) && !leaves(core, 0, &entry.marker()));
    let mut ending = entry.clone();
    ending.propose_end(later);
    assert!(!leaves(core, 0, &ending));
    assert!(!leaves(core, 0, &Entry::ended(entry.birth, later)));
}
