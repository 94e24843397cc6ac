//! Comparisons of nodes: what they find, what they cost, and what they make of nonsense.

use annulus_proto::codec::encode_frame;
use annulus_proto::message::{
    Compared, ComparedDifference, Evened, SketchRequest, Sketches, SlotList,
};
use annulus_sketch::Sketch;

use super::*;
use crate::core::sync::Extent;

/// An instant at which nothing is in flight any more.
const LONG_AGO_MS: u64 = START_WALL_MS - 3_600_000;

/// A session as some node wrote it long ago.
fn old(number: u64, value: &str) -> Entry {
    let version =
        Version::new(annulus_proto::Hlc::from_ms(LONG_AGO_MS + number), NodeId::from_bits(9));
    Entry::start(version, bytes(value), (0, 0), Attributes::default(), LONG_AGO_MS)
}

fn rewritten(entry: &Entry, value: &str) -> Entry {
    let mut entry = entry.clone();
    let hlc = annulus_proto::Hlc::from_ms(LONG_AGO_MS + 1_000_000);
    entry.write_value(Version::new(hlc, NodeId::from_bits(9)), bytes(value));
    entry
}

impl World {
    /// Puts a copy into the store of one node alone.
    fn put(&mut self, node: usize, name: &str, entry: &Entry) {
        let now = self.present(node);
        let key = Key::new(name).unwrap();
        self.core(node, name).merge(now, 0, &key, entry, Admission::Reserve).unwrap();
    }

    /// Has one node compare with all others, and waits until that is done.
    fn compare(&mut self, node: usize) {
        let now = self.present(node);
        for core in &mut self.nodes[node].whole.as_mut().unwrap().cores {
            core.sync_soon(now);
        }
        self.run_for(TICK);
        self.run_until("it has compared", Duration::from_secs(30), |world| {
            let cores = &world.nodes[node].whole.as_ref().unwrap().cores;
            cores.iter().all(|core| core.tables[0].sync.is_empty())
        });
    }

    /// The same, with what was said meanwhile about what is held.
    fn compare_overheard(&mut self, node: usize) -> Vec<Message> {
        self.overheard = Some(Vec::new());
        self.compare(node);
        let overheard = self.overheard.take().unwrap().into_iter();
        let is_about_sync = |message: &Message| {
            matches!(
                message,
                Message::Compare(_)
                    | Message::Compared(_)
                    | Message::SketchRequest(_)
                    | Message::Sketches(_)
                    | Message::SlotListRequest(_)
                    | Message::SlotList(_)
                    | Message::Even(_)
                    | Message::Evened(_)
            )
        };
        overheard.map(|(_, _, message)| message).filter(is_about_sync).collect()
    }

    #[track_caller]
    fn assert_alike(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let first = self.copy(0, &name);
            assert!(first.is_some(), "{name}");
            for node in 1..self.nodes.len() {
                assert_eq!(self.copy(node, &name), first, "{name} on {node}");
            }
        }
    }
}

fn names(messages: &[Message]) -> Vec<&'static str> {
    messages.iter().map(Message::name).collect()
}

fn payload(message: &Message) -> usize {
    let mut frame = Vec::new();
    encode_frame(Header { id: 0, view: 0, hlc: annulus_proto::Hlc::ZERO }, message, &mut frame)
        .unwrap();
    frame.len() - codec::HEADER_BYTES - codec::CHECK_BYTES
}

/// Two nodes of one core each, in sync, that hold the same sessions.
fn two_alike(count: u64) -> World {
    let mut world = World::of_single_cores(2, 3, TablePolicy::default());
    for number in 0..count {
        for node in 0..2 {
            world.put(node, &format!("key {number}"), &old(number, "one"));
        }
    }
    world.settle();
    world
}

#[test]
fn nodes_that_hold_the_same_exchange_one_small_message() {
    let mut world = two_alike(1_000);
    let said = world.compare_overheard(0);
    let [Message::Compare(asked), answer] = &said[..] else { panic!("{:?}", names(&said)) };
    let difference = ComparedDifference::None;
    assert_eq!(*answer, Compared { cores: 1, difference }.into());
    assert!(asked.cut_ms > 0, "they were in sync");
    assert_eq!(asked.slots.slots().count(), 16_384);
    assert!(payload(&said[0]) + payload(answer) <= 60, "{} bytes", payload(&said[0]));
}

/// Symptom: while one slot after the other changed hands, all slots were compared again and again.
#[test]
fn what_waits_for_a_comparison_is_compared_alone() {
    let mut world = two_alike(100);
    let asked_of = |world: &mut World| {
        world.overheard = Some(Vec::new());
        world.run_for(2 * TICK);
        let mut overheard = world.overheard.take().unwrap().into_iter();
        overheard.find_map(|(_, _, message)| match message {
            Message::Compare(asked) => Some(asked.slots.slots().collect::<Vec<_>>()),
            _ => None,
        })
    };
    let other = NodeId::from_bits(world.nodes[1].state.id);
    let due = |world: &mut World| {
        let now = world.now;
        world.core(0, "key 1").tables[0].compare_waiting(other, now);
    };
    due(&mut world);
    assert_eq!(asked_of(&mut world), None, "nothing waits");
    let slot = Key::new("key 1").unwrap().slot();
    world.core(0, "key 1").tables[0].slots[usize::from(slot.index())].sources.insert(other);
    due(&mut world);
    assert_eq!(asked_of(&mut world), Some(vec![slot]));
    assert_eq!(world.core(0, "key 1").slots_unsynced(0), 0);
}

#[test]
fn a_comparison_for_lost_hints_that_a_new_member_cuts_off_is_of_everything_then() {
    for (is_for_lost_hints, is_due) in [(true, true), (false, false)] {
        let mut world = two_alike(100);
        let other = NodeId::from_bits(world.nodes[1].state.id);
        let now = world.present(0);
        let core = world.core(0, "key 1");
        let far = now.monotonic + Duration::from_secs(60);
        core.tables[0].sync_due.insert(other, far);
        if is_for_lost_hints {
            core.tables[0].hints.mark(other, Key::new("key 1").unwrap().slot());
            core.sync_marked(now, 0, other);
            assert!(core.tables[0].sync.contains_key(&other), "it is under way");
        }
        core.take_up_slots(now);
        assert_eq!(core.tables[0].sync_due[&other] < far, is_due);
    }
}

/// Symptom: a node that fetched what others hold was asked by each of them about all slots, three times a second, to
/// answer that it was not ready.
#[test]
fn whoever_is_not_ready_to_compare_is_asked_about_one_slot_until_it_is() {
    let mut world = two_alike(100);
    let other = NodeId::from_bits(world.nodes[1].state.id);
    let at = world.now + Duration::from_millis(500);
    world.core(0, "key 1").tables[0].not_ready.insert(other, at);
    world.overheard = Some(Vec::new());
    let now = world.now;
    world.core(0, "key 1").tables[0].sync_due.insert(other, now);
    world.run_for(Duration::from_secs(1));
    let asked = world.overheard.take().unwrap().into_iter().filter_map(|(_, _, message)| {
        let Message::Compare(asked) = message else { return None };
        Some(asked.slots.slots().count())
    });
    assert_eq!(asked.collect::<Vec<_>>(), [1, 16_384]);
}

#[test]
fn a_lonely_node_that_is_asked_after_all_makes_its_sketches_before_it_answers() {
    let mut world = World::of_single_cores(1, 3, TablePolicy::default());
    world.settle();
    world.put(0, "key 1", &old(1, "one"));
    let slot = Key::new("key 1").unwrap().slot();
    let request = SketchRequest {
        table: "sessions".to_owned(),
        cut_ms: 0,
        slots: annulus_proto::SlotSet::new(&[slot], 1),
        sizes: vec![1],
        symbols: 1,
    };
    let core = world.core(0, "key 1");
    assert!(!core.tables[0].store.is_comparable(), "there was nobody to compare with");
    let refused = core.sketches(NodeId::from_bits(9), &request);
    assert!(matches!(refused, Message::Rejected(_)), "{refused:?}");
    world.run_for(TICK);
    let Message::Sketches(made) = world.core(0, "key 1").sketches(NodeId::from_bits(9), &request)
    else {
        panic!()
    };
    let mut expected = Sketch::new(1);
    let key = Key::new("key 1").unwrap();
    expected.change(key.word(), 0, old(1, "one").digest(key.as_bytes()));
    let mut bytes = Vec::new();
    expected.write(&mut bytes);
    assert_eq!(made.sketches, bytes);
}

#[test]
fn an_entry_that_one_node_lacks_or_has_in_another_state_is_found_without_a_sketch() {
    for changes in 0..2 {
        for node in 0..2 {
            let mut world = two_alike(1_000);
            let name = if changes == 0 { "new" } else { "key 7" };
            let entry = if changes == 0 { old(0, "new") } else { rewritten(&old(7, "one"), "two") };
            world.put(node, name, &entry);
            let said = world.compare_overheard(0);
            let expected = ["Compare", "Compared", "Even", "Evened", "Even", "Evened"];
            // What the other lacks is pushed afterwards.
            let count = if node == 0 { 6 } else { 4 };
            assert_eq!(names(&said), expected[..count], "{name} on {node}");
            let Message::Compared(Compared { difference, .. }) = &said[1] else { panic!() };
            let key = Key::new(name).unwrap().word().to_le_bytes();
            assert_eq!(*difference, ComparedDifference::One { key });
            world.assert_alike([name.to_owned()]);
        }
    }
}

#[test]
fn thousands_of_differences_cost_what_they_are_and_not_what_is_held() {
    let count = 3_000;
    for (cores_max, differing) in [(1, 10), (1, 100), (1, 1_500), (3, 1_500)] {
        let policy = TablePolicy::default();
        let mut world = World::with_record_size(2, 4, policy, 256, cores_max);
        for number in 0..count {
            for node in 0..2 {
                world.put(node, &format!("key {number}"), &old(number, "one"));
            }
        }
        world.settle();
        for number in 0..differing {
            let (node, name) = ((number / 3 % 2) as usize, format!("key {number}"));
            match number % 3 {
                0 => world.put(node, &name, &rewritten(&old(number, "one"), "two")),
                1 => world.put(node, &format!("new {number}"), &old(number, "new")),
                _ => {
                    let version = old(number, "one").version;
                    world.put(
                        node,
                        &name,
                        &Entry::ended(
                            version,
                            Version {
                                hlc: annulus_proto::Hlc::from_ms(LONG_AGO_MS + 5_000_000),
                                ..version
                            },
                        ),
                    );
                }
            }
        }
        let said = world.compare_overheard(0);
        let is_digest =
            |message: &&Message| !matches!(message, Message::Evened(_) | Message::Even(_));
        let digests: usize = said.iter().filter(is_digest).map(payload).sum();
        let wanted: usize = said
            .iter()
            .map(|message| match message {
                Message::Even(even) => even.wanted.len() * 8,
                _ => 0,
            })
            .sum();
        let each = (digests + wanted) as f64 / differing as f64;
        assert!(
            each < if differing == 10 { 170.0 } else { 120.0 },
            "{differing} differences of nodes of up to {cores_max} cores: {each} bytes each"
        );
        assert!(!names(&said).contains(&"SlotList"));
        world.assert_alike((0..count).map(|number| format!("key {number}")));
        let new = (0..differing).filter(|number| number % 3 == 1);
        world.assert_alike(new.map(|number| format!("new {number}")));
        // And now they are alike.
        let said = world.compare_overheard(1);
        let is_none = |message: &Message| match message {
            Message::Compared(compared) => compared.difference == ComparedDifference::None,
            message => matches!(message, Message::Compare(_)),
        };
        assert!(said.iter().all(is_none), "{:?}", names(&said));
    }
}

#[test]
fn a_slot_that_differs_in_everything_is_listed() {
    let mut world = two_alike(0);
    let name = |number: u64| format!("{{tag}} {number}");
    for number in 0..2_500 {
        world.put(0, &name(number), &old(number, "one"));
        if number % 2 == 0 {
            world.put(1, &name(number), &rewritten(&old(number, "one"), "two"));
        }
    }
    let said = world.compare_overheard(1);
    assert!(names(&said).contains(&"SlotList"));
    world.assert_alike((0..2_500).map(name));
}

#[test]
fn what_is_written_and_what_expires_meanwhile_does_not_cost_a_round() {
    let mut world = World::of_single_cores(2, 5, TablePolicy::default());
    world.settle();
    for number in 0..400 {
        world.acknowledged(
            0,
            &format!("key {number}"),
            start_idle(bytes("x"), 1_000 + 20 * number),
        );
    }
    for round in 0..700 {
        world.run_for(Duration::from_millis(100));
        // Not at the same time on both.
        let node = round % 2;
        let now = world.present(node);
        world.nodes[node].whole.as_mut().unwrap().scan(now, 1_000, 0);
        world.request(round % 2, &format!("new {round}"), start(bytes("one")));
        world.request(round % 2, &format!("new {}", round / 2), write(None, bytes("two")));
        if round % 7 == 0 {
            world.compare(round % 2);
        }
    }
    let total = |world: &World, name| world.counter(0, name) + world.counter(1, name);
    assert!(total(&world, "syncs_finished") > 100);
    assert!(total(&world, "entries_dropped_expired") > 600);
    for name in ["sync_parts_compared", "sync_entries_fetched", "sync_entries_pushed"] {
        assert_eq!(total(&world, name), 0, "{name}");
    }
}

#[test]
fn what_was_missed_in_flight_is_found_a_moment_later() {
    let mut world = two_alike(100);
    let mut entry = old(1, "one");
    let now_ms = world.present(0).wall_ms;
    entry.write_value(
        Version::new(annulus_proto::Hlc::from_ms(now_ms), NodeId::from_bits(1)),
        bytes("two"),
    );
    world.put(0, "key 1", &entry);
    world.compare(0);
    assert_ne!(world.copy(1, "key 1"), world.copy(0, "key 1"));
    world.run_for(Duration::from_secs(3));
    world.compare(0);
    world.assert_alike(["key 1".to_owned()]);
}

/// A slot out of sync is in sync after a comparison that left nothing out, and after no other.
#[test]
fn a_slot_is_in_sync_only_after_everything_was_compared() {
    let mut world = two_alike(100);
    let slot = Key::new("key 1").unwrap().slot();
    let now_ms = world.present(1).wall_ms;
    let mut entry = old(1, "one");
    entry.write_value(
        Version::new(annulus_proto::Hlc::from_ms(now_ms), NodeId::from_bits(1)),
        bytes("two"),
    );
    world.put(1, "key 1", &entry);
    let core = world.core(0, "key 1");
    core.stop_vouching(0, slot, OTHER);
    assert_eq!(core.slots_unsynced(0), 1);
    let said = world.compare_overheard(0);
    let Message::Compare(asked) = &said[0] else { panic!("{:?}", names(&said)) };
    assert_eq!(asked.cut_ms, 0);
    assert_eq!(world.core(0, "key 1").slots_unsynced(0), 0);
    world.assert_alike(["key 1".to_owned()]);
    // One that was begun while all slots were in sync left out what is missing.
    world.run_for(Duration::from_secs(3));
    let now = world.present(0);
    let core = world.core(0, "key 1");
    core.start_sync(now, 0, OTHER, Extent::All);
    core.stop_vouching(0, slot, OTHER);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.core(0, "key 1").slots_unsynced(0), 1);
}

const OTHER: NodeId = NodeId::from_bits(2);

/// Answers to a comparison, many of them of the right kind and all of them nonsense.
fn nonsense(rng: &mut StdRng, asked: &Message) -> Message {
    let bytes = |rng: &mut StdRng, count| {
        (0..count).map(|_| if rng.random() { rng.random() } else { 0 }).collect()
    };
    let entry = |rng: &mut StdRng| {
        let name = format!("key {}", rng.random_range(0..300));
        (Key::new(name).unwrap(), old(rng.random_range(0..300), "nonsense"))
    };
    let difference = match rng.random_range(0..5) {
        0 => ComparedDifference::None,
        1 | 2 => {
            let word = u64::from(rng.random::<u16>() / 3) << 47 | rng.random::<u64>() >> 18;
            ComparedDifference::One { key: word.to_le_bytes() }
        }
        3 => ComparedDifference::More { sketch: bytes(rng, Sketch::bytes(16)) },
        _ => ComparedDifference::More { sketch: bytes(rng, 50) },
    };
    match (asked, rng.random_range(0..12)) {
        (_, 0) => Compared { cores: rng.random(), difference }.into(),
        (Message::Compare(_), _) => Compared { cores: rng.random_range(0..4), difference }.into(),
        (Message::SketchRequest(SketchRequest { sizes, symbols, .. }), 1..11) => {
            let size = sizes.len() * Sketch::bytes((*symbols).into());
            Sketches { sketches: bytes(rng, size) }.into()
        }
        (Message::SlotListRequest(request), 1..11) => {
            let mut items: Vec<_> =
                (0..rng.random_range(0..5)).map(|_| (entry(rng).0, rng.random())).collect();
            items.extend(request.after.clone().map(|key| (key, 3)));
            SlotList { items, more: rng.random() }.into()
        }
        (Message::Even(_), 1..11) => {
            let entries = (0..rng.random_range(0..5)).map(|_| entry(rng)).collect();
            Evened { entries, done: rng.random_range(0..300) }.into()
        }
        _ => Message::from(Sketches { sketches: bytes(rng, 7) }),
    }
}

#[test]
fn nonsense_for_an_answer_brings_nothing_down_and_goes_on_for_ever_with_nothing() {
    let mut world = two_alike(300);
    world.run_until("nothing is compared", Duration::from_secs(60), |world| {
        world.core(0, "key 1").tables[0].sync.is_empty()
    });
    let mut rng = StdRng::seed_from_u64(6);
    let view = world.view(0).digest();
    let (mut asked, mut now) = (0, world.present(0));
    for round in 0..600 {
        now = after(now, Duration::from_secs(if round % 2 == 0 { 1 } else { 40 }));
        let core = world.core(0, "key 1");
        let slot = Slot::new(round % 16_384).unwrap();
        if round % 3 == 0 {
            core.stop_vouching(0, slot, OTHER);
        }
        if !core.tables[0].sync.contains_key(&OTHER) {
            core.start_sync(now, 0, OTHER, Extent::All);
        }
        let (mut steps, mut turns) = (0, 0);
        while turns < 16 {
            let Some(output) = core.poll_output() else {
                // What follows from slots that are the same is seen to in parts.
                turns += 1;
                core.go_on_with_paced_syncs(now);
                continue;
            };
            let Output::Call(ask) = output else { continue };
            let message = nonsense(&mut rng, &ask.message);
            let header = Header { view, ..ask.header };
            let answered = Answered { node: OTHER, header, message };
            core.handle(now, Input::Outcome(Outcome { call: ask.header.id, result: Ok(answered) }));
            steps += 1;
            assert!(steps < 60_000, "round {round}: it goes on and on");
        }
        asked += steps;
        assert!(core.tables[0].sync.is_empty(), "round {round}: it waits for nothing");
    }
    assert!(asked > 1_000, "{asked}");
    let core = world.core(0, "key 1");
    assert!(core.counters.count("syncs_cut_off") > 100);
}

#[test]
fn a_slot_that_something_was_refused_of_is_not_even_by_what_was_compared_before() {
    let mut world = two_alike(300);
    world.run_until("nothing is compared", Duration::from_secs(60), |world| {
        world.core(0, "key 1").tables[0].sync.is_empty()
    });
    let (view, now) = (world.view(0).digest(), world.present(0));
    let core = world.core(0, "key 1");
    let slots: Vec<Slot> = core.slots().collect();
    let [first, last] = [slots[0], slots[slots.len() - 1]];
    core.stop_vouching(0, first, OTHER);
    core.start_sync(now, 0, OTHER, Extent::All);
    let mut is_refused = false;
    for _ in 0..100 {
        while let Some(output) = core.poll_output() {
            let Output::Call(ask) = output else { continue };
            let Message::Compare(_) = ask.message else { continue };
            let difference = ComparedDifference::None;
            let message = Compared { cores: 1, difference }.into();
            let header = Header { view, ..ask.header };
            let answered = Answered { node: OTHER, header, message };
            core.handle(now, Input::Outcome(Outcome { call: ask.header.id, result: Ok(answered) }));
            // Before all that follows from the answer was seen to.
            assert!(core.tables[0].sync.contains_key(&OTHER));
            core.stop_vouching(0, last, OTHER);
            is_refused = true;
        }
        core.go_on_with_paced_syncs(now);
    }
    assert!(is_refused && core.tables[0].sync.is_empty());
    assert!(core.slot_state(0, first).is_synced());
    assert!(!core.slot_state(0, last).is_synced());
}

fn after(now: Now, passed: Duration) -> Now {
    let wall_ms = now.wall_ms + passed.as_millis() as u64;
    Now { monotonic: now.monotonic + passed, wall_ms }
}
