//! Near copies: what readers of shared memory see on hosts that are no homes of it.

use std::num::NonZeroU8;

use annulus_proto::message::{Beat, BeatPlace, BeatRequest};

use super::rings::LIFE;
use super::*;
use crate::core::settings::ReadFrom;
use crate::core::store::gist_of;

const KEY: &str = "near";
/// Two beats: how long a near copy is believed after its homes were asked.
const TRUST: Duration = Duration::from_millis(400);

impl World {
    /// A settled cluster whose clients are on the hosts of their nodes.
    pub(super) fn of_hosts(count: usize, seed: u64) -> Self {
        let mut world = Self::sparse(count, seed);
        world.asker = Asker::Local(0);
        world.settle();
        world
    }

    /// What a process on a node's host finds under a key in its shared memory.
    pub(super) fn seen(&mut self, node: usize, key: &str) -> Option<Entry> {
        let at_ms = self.now.as_millis() as u64;
        self.nodes[node].whole.as_ref()?;
        let name = Key::new(key).unwrap();
        self.core(node, key).tables[0].store.as_readers_see(&name, at_ms)
    }

    pub(super) fn sees(&mut self, node: usize, key: &str, value: &str) -> bool {
        let now_ms = self.now.as_millis() as u64;
        let seen = self.seen(node, key).and_then(|entry| entry.body);
        seen.is_some_and(|body| body.value(now_ms) == bytes(value))
    }

    /// Reads a session on a host until it is found in its memory.
    #[track_caller]
    pub(super) fn read_until_near(&mut self, node: usize, key: &str) {
        let end = self.now + Duration::from_secs(5);
        while self.seen(node, key).is_none() {
            assert!(self.now < end, "no near copy");
            self.value(node, key);
            self.run_for(Duration::from_millis(50));
        }
    }

    /// A cluster with a session, and a host that has a near copy of it.
    fn with_a_near_copy(count: usize, seed: u64) -> (Self, String, usize) {
        let mut world = Self::of_hosts(count, seed);
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        let outsider = world.outsider(&key);
        world.read_until_near(outsider, &key);
        (world, key, outsider)
    }
}

#[test]
fn what_is_read_on_a_host_is_found_in_its_memory_from_then_on() {
    for seed in 0..3 {
        let (mut world, key, outsider) = World::with_a_near_copy(5, seed);
        for _ in 0..100 {
            world.run_for(Duration::from_millis(100));
            assert!(world.sees(outsider, &key, "one"), "seed {seed}: nobody changed it");
        }
        let slot = Key::new(&key).unwrap().slot();
        assert_eq!(world.copy(outsider, &key), None, "it is there for readers alone");
        assert_eq!(world.core(outsider, &key).tables[0].store.slot_len(slot), 0);
        assert_eq!(world.counter(outsider, "near_copies_made"), 1);
    }
}

#[test]
fn who_reads_through_streams_from_elsewhere_has_nothing_kept() {
    let mut world = World::of_hosts(5, 4);
    world.asker = Asker::Stream(0);
    let key = sparse(KEY);
    world.acknowledged(0, &key, start(bytes("one")));
    let outsider = world.outsider(&key);
    for _ in 0..20 {
        assert_eq!(world.value(outsider, &key), bytes("one"));
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!((world.seen(outsider, &key), world.counter(outsider, "beats_heard")), (None, 0));
}

#[test]
fn a_change_is_seen_within_two_beats_wherever_it_was_made() {
    let (mut world, key, outsider) = World::with_a_near_copy(5, 5);
    for round in 0..20 {
        let value = format!("{round}");
        world.acknowledged(round % 5, &key, write(None, bytes(&value)));
        let done = world.now;
        while world.now < done + TRUST {
            world.step();
        }
        let seen = world.seen(outsider, &key);
        assert!(seen.is_none() || world.sees(outsider, &key, &value), "round {round}");
        world.read_until_near(outsider, &key);
        assert!(world.sees(outsider, &key, &value), "round {round}");
    }
    assert!(world.counter(outsider, "near_copies_invalidated") > 10);
}

#[test]
fn a_host_sees_at_once_what_was_written_through_its_own_node() {
    let (mut world, key, outsider) = World::with_a_near_copy(5, 6);
    let mut renewed = 0;
    for round in 0..10 {
        world.read_until_near(outsider, &key);
        let value = format!("{round}");
        world.acknowledged(outsider, &key, write(None, bytes(&value)));
        let seen = world.seen(outsider, &key);
        assert!(seen.is_none() || world.sees(outsider, &key, &value), "round {round}");
        // Nobody reads it meanwhile.
        world.run_for(Duration::from_millis(100));
        renewed += u32::from(world.sees(outsider, &key, &value));
    }
    // A home that had not heard of it yet may have told of the one before.
    assert!(renewed > 6, "fetched anew {renewed} times");
    world.acknowledged(outsider, &key, end());
    assert_eq!(world.seen(outsider, &key), None);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.fails(outsider, &key, Operation::Get), Failure::Ended);
}

#[test]
fn a_host_that_is_cut_off_believes_its_copies_for_two_beats() {
    let (mut world, key, outsider) = World::with_a_near_copy(5, 7);
    world.isolate(outsider);
    let cut = world.now;
    while world.now < cut + TRUST {
        world.step();
    }
    assert_eq!(world.seen(outsider, &key), None);
    let home = world.homes_of(&key)[0];
    world.acknowledged(home, &key, write(None, bytes("two")));
    world.run_for(Duration::from_secs(2));
    world.cut.clear();
    while !world.sees(outsider, &key, "two") {
        assert!(!world.sees(outsider, &key, "one"), "it was told of no change meanwhile");
        let id = world.request(outsider, &key, Operation::Get);
        world.run_for(Duration::from_millis(100));
        world.replies.remove(&id);
    }
}

#[test]
fn what_changes_while_it_is_read_is_not_kept() {
    for (gist_is_it, kept) in [(false, 0), (true, 1)] {
        let (mut world, key, outsider) = World::with_a_near_copy(5, 12);
        let word = Key::new(key.as_str()).unwrap().word();
        let gist = gist_of(&world.seen(outsider, &key).unwrap());
        world.core(outsider, &key).note_changed(0, word, 0);
        assert_eq!(world.seen(outsider, &key), None);
        let made = world.counter(outsider, "near_copies_made");
        let id = world.request(outsider, &key, Operation::Get);
        world.run_until("a read", Duration::from_secs(1), |world| {
            world.core(outsider, &key).tables[0].near.is_reading(word)
        });
        // Said by a home that has answered already what it was.
        let told = if gist_is_it { gist } else { 1 };
        world.core(outsider, &key).note_changed(0, word, told);
        assert!(matches!(world.wait(id), SessionReply::Session(_)));
        assert_eq!(world.counter(outsider, "near_copies_made") - made, kept);
        assert_eq!(world.counter(outsider, "near_copies_overtaken"), 1 - kept);
        assert_eq!(world.seen(outsider, &key).is_some(), kept == 1);
    }
}

/// What the homes of a session answer that told of it before, as if nothing had changed, but for what `change` makes of
/// each: the answer, the slots that were asked about, and the view.
fn answer(
    world: &mut World,
    (outsider, key): (usize, &str),
    change: impl Fn(&mut Beat, &mut Vec<Slot>, &mut u64),
) {
    let slot = Key::new(key).unwrap().slot();
    let (now, digest) = (world.present(outsider), world.view(outsider).digest());
    let homes = world.core(outsider, key).homes(0, slot);
    for home in homes {
        let known = world.core(outsider, key).tables[0].near.place_of(home, slot);
        let Some((cores, place)) = known else { continue };
        let unsure = annulus_proto::SlotSet::new(&[], 1);
        let mut beat = Beat { cores, place, is_whole: true, changed: Vec::new(), unsure };
        let (mut slots, mut view) = (vec![slot], digest);
        change(&mut beat, &mut slots, &mut view);
        let (from, question) =
            ((0, home, slot.index() % cores), (now.monotonic, Some(place), slots));
        world.core(outsider, key).on_beat(now, from, question, beat.into(), view);
    }
}

/// Something changed, and another slot of the same core was asked about.
fn pass_over(beat: &mut Beat, slots: &mut [Slot]) {
    beat.place.number += 1;
    // Of one to three cores, in each seventeenth slot.
    let (index, step) = (slots[0].index(), 17 * 6);
    let other = if index < step { index + step } else { index - step };
    slots[0] = Slot::new(other).unwrap();
}

#[test]
fn what_a_home_covers_no_longer_goes_at_once() {
    type Change = fn(&mut Beat, &mut Vec<Slot>, &mut u64);
    let changes: [(&str, bool, Change); 7] = [
        ("nothing is new", true, |_, _, _| {}),
        ("something else changed", true, |beat, _, _| beat.place.number += 1),
        ("another slot was asked about", false, |beat, slots, _| pass_over(beat, slots)),
        ("changes are missing", false, |beat, _, _| beat.is_whole = false),
        ("the home has restarted", false, |beat, _, _| beat.place.run += 1),
        ("it has another number of cores", false, |beat, _, _| beat.cores += 1),
        ("it does not vouch for the slot", false, |beat, slots, _| {
            beat.unsure = annulus_proto::SlotSet::new(slots, 1);
        }),
    ];
    for (what, stays, change) in changes {
        let (mut world, key, outsider) = World::with_a_near_copy(5, 13);
        answer(&mut world, (outsider, &key), change);
        assert_eq!(world.seen(outsider, &key).is_some(), stays, "{what}");
    }
}

#[test]
fn what_is_passed_over_while_it_is_read_is_not_kept() {
    let (mut world, key, outsider) = World::with_a_near_copy(5, 13);
    let word = Key::new(key.as_str()).unwrap().word();
    world.core(outsider, &key).note_changed(0, word, 0);
    let id = world.request(outsider, &key, Operation::Get);
    world.run_until("a read", Duration::from_secs(1), |world| {
        world.core(outsider, &key).tables[0].near.is_reading(word)
    });
    answer(&mut world, (outsider, &key), |beat, slots, _| pass_over(beat, slots));
    assert!(matches!(world.wait(id), SessionReply::Session(_)));
    assert_eq!(world.counter(outsider, "near_copies_overtaken"), 1);
    assert_eq!(world.seen(outsider, &key), None);
}

#[test]
fn who_sees_other_members_vouches_for_nothing() {
    for (difference, vouches) in [(0, true), (1, false)] {
        let (mut world, key, outsider) = World::with_a_near_copy(5, 14);
        let slot = Key::new(key.as_str()).unwrap().slot();
        world.isolate(outsider);
        world.run_for(Duration::from_millis(150));
        let before = world.core(outsider, &key).tables[0].store.freshness(slot);
        answer(&mut world, (outsider, &key), |_, _, view| *view ^= difference);
        let after = world.core(outsider, &key).tables[0].store.freshness(slot);
        assert_eq!(after > before, vouches);
    }
}

#[test]
fn gists_tell_apart_what_versions_do_not() {
    let version = |ms| Version::new(annulus_proto::Hlc::from_ms(ms), NodeId::from_bits(1));
    let attributes = Attributes::default();
    let mut late = Entry::start(version(1), map(&[("a", "1")]), (9, 0), attributes, 1);
    late.write_field(version(5), b"b".to_vec(), Some(b"2".to_vec()));
    let mut both = late.clone();
    both.write_field(version(3), b"c".to_vec(), Some(b"3".to_vec()));
    assert_eq!(both.version, late.version, "one field came before the other, and arrived later");
    assert_ne!(gist_of(&both), gist_of(&late));
    let mut used = both.clone();
    used.touch(70_000);
    assert_eq!(gist_of(&used), gist_of(&both));
}

/// Beside each reader a history of what was acknowledged, whatever is lost and whoever dies.
#[test]
fn no_reader_is_further_behind_than_two_beats() {
    let mut near = 0;
    for seed in 100..112 {
        let mut world = World::of_hosts(5, seed);
        let keys: Vec<String> = (0..4).map(|number| sparse(&format!("k{number}"))).collect();
        for key in &keys {
            world.acknowledged(0, key, start(bytes("0")));
        }
        world.loss = 0.15;
        let mut rng = StdRng::seed_from_u64(seed);
        // By key: when what was acknowledged, and what is open.
        let mut done: BTreeMap<String, Vec<(Duration, Version, bool)>> = BTreeMap::new();
        let mut open: Vec<(u64, String, bool)> = Vec::new();
        let (mut dead, mut back_at) = (None, Duration::ZERO);
        for round in 0..400 {
            let key = keys[rng.random_range(0..keys.len())].clone();
            let node = rng.random_range(0..5);
            if Some(node) != dead {
                match rng.random_range(0..20) {
                    0 => open.push((world.request(node, &key, end()), key, true)),
                    1 => open.push((world.request(node, &key, start(bytes("new"))), key, false)),
                    2..=4 => {
                        let operation = write(None, bytes(&format!("{round}")));
                        open.push((world.request(node, &key, operation), key, false));
                    }
                    _ => drop(world.request(node, &key, Operation::Get)),
                }
            }
            if dead.is_none() && rng.random_bool(0.01) {
                world.kill(node);
                (dead, back_at) = (Some(node), world.now + Duration::from_secs(2));
            }
            if let Some(node) = dead.filter(|_| world.now >= back_at) {
                world.start(node);
                dead = None;
            }
            let until = world.now + Duration::from_millis(rng.random_range(1..60));
            while world.now < until {
                world.step();
                let now = world.now;
                open.retain(|(id, key, _)| match world.replies.remove(id) {
                    Some(Message::SessionReply(SessionReply::Acknowledged(it))) => {
                        done.entry(key.clone()).or_default().push((
                            now,
                            it.birth.max(it.version),
                            it.birth == it.version,
                        ));
                        false
                    }
                    Some(_) => false,
                    None => true,
                });
                for key in &keys {
                    for node in 0..5 {
                        if Some(node) == dead
                            || world.core(node, key).is_home(0, Key::new(key).unwrap().slot())
                        {
                            continue;
                        }
                        let Some(seen) = world.seen(node, key) else { continue };
                        near += 1;
                        let late = |(at, version, _): &&(Duration, Version, bool)| {
                            *at + TRUST < now && *version > seen.version
                        };
                        let missed = done.get(key).and_then(|done| done.iter().find(late));
                        assert_eq!(missed, None, "seed {seed}: {key} at {node}, now {now:?}");
                    }
                }
            }
        }
    }
    assert!(near > 10_000, "{near} near copies were seen");
}

#[test]
fn copies_that_a_node_is_a_home_of_now_are_none() {
    let (mut world, key, outsider) = World::with_a_near_copy(4, 8);
    let homes = world.homes_of(&key);
    world.kill(homes[0]);
    world.run_until_seen("another home", Duration::from_secs(300), |world| {
        world.homes_of(&sparse(KEY)).contains(&outsider)
    });
    assert_eq!(world.counter(outsider, "near_copies_dropped"), 1);
    world.settle();
    world.acknowledged(homes[1], &key, write(None, bytes("two")));
    world.run_for(Duration::from_secs(2));
    for home in world.homes_of(&key) {
        assert!(world.copy(home, &key).is_some(), "a copy that counts");
        assert!(world.sees(home, &key, "two"));
    }
}

#[test]
fn a_table_that_reads_at_home_shows_every_acknowledged_write() {
    for (read, expected) in [(ReadFrom::Near, "one"), (ReadFrom::Home, "two")] {
        let policy = TablePolicy { read, ..TablePolicy::default() };
        let mut world = World::sparse_with_policy(3, 9, policy);
        world.asker = Asker::Local(0);
        world.settle();
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        world.run_for(Duration::from_secs(1));
        let homes = world.homes_of(&key);
        // One home hears nothing of the next write, and is asked right after it.
        world.cut.insert((homes[0], homes[2]));
        world.acknowledged(homes[0], &key, write(None, bytes("two")));
        world.cut.clear();
        assert_eq!(world.value(homes[2], &key), bytes(expected), "{read:?}");
        assert_eq!(world.seen(homes[0], &key).is_some(), read == ReadFrom::Near);
    }
}

#[test]
fn a_quarter_of_a_table_is_near_at_most_and_what_is_at_home_there_stays() {
    let policy = TablePolicy { replicas: NonZeroU8::new(1).unwrap(), ..TablePolicy::default() };
    let mut world = World::with_record_size(2, 10, policy, 512, 1);
    world.asker = Asker::Local(0);
    world.settle();
    let keys: Vec<String> = (0..1_200).map(|number| format!("k{number}")).collect();
    let mut at_home = Vec::new();
    for key in &keys {
        if let SessionReply::Acknowledged(_) = world.ask(0, key, start(bytes("one"))) {
            at_home.push(key.clone());
        }
    }
    for _ in 0..2 {
        for key in &at_home {
            assert_eq!(world.value(0, key), bytes("one"));
        }
    }
    let stats = world.core(0, &keys[0]).tables[0].store.stats();
    assert!(stats.near_entries > 50, "{stats:?}");
    assert!(stats.near_entries <= stats.capacity_records / 4, "{stats:?}");
    for key in &at_home {
        let home = world.homes_of(key)[0];
        assert!(world.copy(home, key).is_some(), "it was acknowledged");
    }
}

#[test]
fn a_home_tells_what_it_vouches_for_and_no_more() {
    let mut world = World::of_single_cores(3, 11, TablePolicy::default());
    world.settle();
    let key = Key::new(KEY).unwrap();
    let home = world.homes_of(KEY)[0];
    let now = world.present(home);
    let ask = |world: &mut World, table: &str, after, slots: &[Slot]| {
        let slots = annulus_proto::SlotSet::new(slots, 1);
        let request = BeatRequest { table: table.to_owned(), after, slots, uses: Vec::new() };
        world.core(home, KEY).tell_beat(now, &request)
    };
    assert!(matches!(ask(&mut world, "nothing", None, &[key.slot()]), Message::Rejected(_)));
    let beat = |message| match message {
        Message::Beat(beat) => beat,
        other => panic!("no beat: {other:?}"),
    };
    let first: Beat = beat(ask(&mut world, "sessions", None, &[key.slot()]));
    assert!(!first.is_whole && first.changed.is_empty(), "{first:?}");
    assert_eq!(first.unsure.slots().count(), 0);
    world.acknowledged(home, KEY, start(bytes("one")));
    world.acknowledged(home, KEY, Operation::Touch { birth: None });
    world.acknowledged(home, "another", start(bytes("one")));
    let held = world.copy(home, KEY).unwrap();
    let second = beat(ask(&mut world, "sessions", Some(first.place), &[key.slot()]));
    assert_eq!(
        (second.is_whole, &second.changed),
        (true, &vec![(key.word(), gist_of(&held))]),
        "a touch is none"
    );
    for after in [
        BeatPlace { number: u64::MAX, ..first.place },
        BeatPlace { run: first.place.run + 1, number: 0 },
    ] {
        let answer = beat(ask(&mut world, "sessions", Some(after), &[key.slot()]));
        assert!(!answer.is_whole && answer.changed.is_empty(), "{after:?}: {answer:?}");
    }
    world.isolate(home);
    world.core(home, KEY).tables[0].slots[usize::from(key.slot().index())]
        .sources
        .insert(NodeId::from_bits(77));
    let unsure = beat(ask(&mut world, "sessions", Some(second.place), &[key.slot()])).unsure;
    assert!(unsure.slots().eq([key.slot()]));
}

/// With rings: what is only read goes outward in its time, unless its homes hear of it.
#[test]
fn what_is_read_out_of_near_copies_keeps_its_session_inside() {
    for is_told in [true, false] {
        let mut world = World::with_rings(5, 3, &[5]);
        world.asker = Asker::Local(0);
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        let outsider = world.outsider(&key);
        world.read_until_near(outsider, &key);
        for _ in 0..30 {
            world.run_for(LIFE / 2);
            if is_told {
                let now = world.present(outsider);
                let core = world.core(outsider, &key);
                let used = core.tables[0].store.place_of(&Key::new(key.as_str()).unwrap());
                core.note_uses(
                    now,
                    &[MemoryUse { by: Asker::Lane { lane: 0, call: 0 }, table: 0, used, count: 1 }],
                );
            }
        }
        let inside = world.holders(0, &key) > 0;
        assert_eq!(inside, is_told);
        assert_eq!(world.sees(outsider, &key, "one"), is_told);
        // By those that cover it, of which there are two or three.
        let told = (world.total("near_uses_noted"), world.total("near_uses_heard"));
        assert!(if is_told {
            told.0 == 30 && told.1 >= 56 && told.1 <= 90
        } else {
            told == (0, 0)
        });
    }
}

/// Of more than go with one question each has its turn, and what piles up is bounded.
#[test]
fn of_many_near_copies_that_are_read_all_are_told_of_in_turn() {
    let mut near = Near::default();
    (0..10_000).for_each(|word| near.note_uses(word, 2));
    let mut told = BTreeMap::new();
    for _ in 0..16 {
        // Those that were told of are read again at once.
        let batch = near.uses_to_tell();
        assert_eq!(batch.len(), BeatRequest::USES_MAX);
        batch.iter().for_each(|(word, _)| near.note_uses(*word, 1));
        told.extend(batch);
    }
    assert_eq!(told.len(), 4_096);
    assert!(told.values().all(|count| *count == 2));
}
