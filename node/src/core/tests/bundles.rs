//! What goes to other nodes together.

use annulus_proto::message::{Copies, CopiesTaken, HeatRequest};

use super::rings::LIFE;
use super::*;
use crate::core::bundles::{Errand, answers_of, bundled};
use crate::core::sync::BATCH_BYTES;

const COUNT: usize = 60;

impl World {
    /// Nodes with sessions that have just begun, all of which go outward.
    fn with_many_sessions(count: usize, seed: u64) -> (Self, Vec<String>) {
        let mut world = Self::with_rings(count, seed, &[5]);
        let keys: Vec<String> = (0..COUNT).map(|it| sparse(&format!("of-{it}"))).collect();
        for key in &keys {
            world.acknowledged(0, key, start(bytes(key)));
        }
        (world, keys)
    }

    #[track_caller]
    fn until_all_are_outside(&mut self, keys: &[String]) {
        self.run_until_seen("all are on the ring further out", 20 * LIFE, |world| {
            let mut held = keys.iter().map(|key| (world.holders(0, key), world.holders(1, key)));
            held.all(|held| held == (0, 3))
        });
    }
}

/// Says what became of copies that a node sends itself, as another one.
fn taken(core: &mut Core, now: Now, entries: Vec<(Key, Entry)>) -> CopiesTaken {
    let copies = Copies { table: "sessions".to_owned(), entries };
    match core.take_copies(now, NodeId::from_bits(77), &copies) {
        Message::CopiesTaken(taken) => taken,
        other => panic!("not taken: {other:?}"),
    }
}

#[test]
fn what_goes_outward_at_once_goes_together() {
    for seed in 0..3 {
        let (mut world, keys) = World::with_many_sessions(3, seed);
        world.overheard = Some(Vec::new());
        world.until_all_are_outside(&keys);
        let (mut questions, mut asked, mut messages, mut sent) = (0, 0, 0, 0);
        for (_, _, message) in world.overheard.take().unwrap() {
            match message {
                Message::HeatRequest(HeatRequest { keys, .. }) => {
                    (questions, asked) = (questions + 1, asked + keys.len());
                }
                Message::Copies(Copies { entries, .. }) => {
                    (messages, sent) = (messages + 1, sent + entries.len());
                }
                Message::Replicate(_) => (messages, sent) = (messages + 1, sent + 1),
                _ => {}
            }
        }
        // Two other homes of each session are asked, sent it, and told of it.
        assert_eq!((asked, sent), (2 * COUNT, 4 * COUNT), "seed {seed}");
        assert!(questions < COUNT && messages < 2 * COUNT, "{questions}, {messages}, seed {seed}");
        assert_eq!(world.total("moves_failed"), 0, "seed {seed}");
    }
}

/// A node that has restarted with another number of cores says so with the first answer.
#[test]
fn what_another_core_has_goes_again() {
    let mut again = 0;
    for seed in 0..4 {
        let (mut world, keys) = World::with_many_sessions(4, seed);
        for node in 0..4 {
            for other in (0..4).map(|it| NodeId::from_bits(it + 1)) {
                for core in &mut world.nodes[node].whole.as_mut().unwrap().cores {
                    core.note_cores(other, 0);
                }
            }
        }
        world.overheard = Some(Vec::new());
        world.until_all_are_outside(&keys);
        assert_eq!(world.total("moves_failed"), 0, "seed {seed}");
        let overheard = world.overheard.take().unwrap().into_iter();
        let asked = overheard.map(|(_, _, message)| match message {
            Message::HeatRequest(HeatRequest { keys, .. }) => keys.len(),
            _ => 0,
        });
        again += asked.sum::<usize>() - 2 * COUNT;
    }
    assert!(again > 0, "some were another core's");
}

#[test]
fn a_home_tells_of_as_much_as_there_is_room_for_and_is_sent_the_others_again() {
    let mut world = World::of_single_cores(3, 1, TablePolicy::default());
    world.settle();
    let large = Value::Bytes(vec![7; 20 << 10]);
    let keys: Vec<String> = (0..10).map(|it| format!("large-{it}")).collect();
    let old: Vec<(Key, Entry)> = keys
        .iter()
        .map(|key| {
            world.acknowledged(0, key, start(bytes("old")));
            let old = world.copy(0, key).unwrap();
            world.acknowledged(0, key, write(None, large.clone()));
            (Key::new(key.as_str()).unwrap(), old)
        })
        .collect();
    world.run_for(Duration::from_secs(1));
    let now = world.present(1);
    let answer = taken(world.core(1, &keys[0]), now, old.clone());
    assert_eq!((answer.done, answer.differing.len(), answer.refused.len()), (4, 4, 0));
    let held = world.copy(1, &keys[3]).unwrap();
    assert_eq!(answer.differing[3], (3, held));

    let to = NodeId::from_bits(2);
    let (now, before) = (world.present(0), world.counter(1, "copies_received"));
    let core = world.core(0, &keys[0]);
    core.note_cores(to, 1);
    for copy in old {
        core.gather_copy(0, to, copy, Errand::Repair { hint: false });
    }
    core.send_bundles(now);
    world.drain(0);
    world.run_for(Duration::from_secs(1));
    // What goes again is what is here by then.
    assert_eq!(world.counter(1, "copies_received") - before, 10);
    assert_eq!(world.counter(0, "hints_kept"), 0);
}

#[test]
fn what_is_refused_is_told_by_its_place() {
    let mut world = World::sparse(4, 1);
    world.settle();
    let here = sparse("here");
    world.acknowledged(0, &here, start(bytes("one")));
    let outsider = world.outsider(&here);
    let home = (outsider + 1) % 4;
    let now = world.present(home);
    let entry = world.copy(home, &here).unwrap();
    let key = Key::new(here.as_str()).unwrap();
    let here_slot = key.slot();
    let stored = (key, entry.clone());
    let answer = taken(world.core(home, &here), now, vec![stored.clone(), stored.clone()]);
    assert_eq!((answer.done, answer.differing, answer.refused), (2, vec![], vec![]));
    let answer = taken(world.core(outsider, &here), now, vec![stored.clone(), stored.clone()]);
    assert_eq!((answer.done, answer.refused), (2, vec![(0, None), (1, None)]));
    // From another core's on nothing is looked at.
    let cores = world.core(home, &here).cores;
    let is_others = |key: &Key| {
        usize::from(key.slot().index()) % cores != usize::from(here_slot.index()) % cores
    };
    let others = (0..).map(|it| Key::new(format!("elsewhere-{it}")).unwrap()).find(is_others);
    let entries = [stored.clone(), (others.unwrap(), entry), stored];
    assert_eq!(taken(world.core(home, &here), now, entries.to_vec()).done, 1);
}

#[test]
fn who_cannot_be_reached_gets_hints() {
    let (mut world, keys) = World::with_many_sessions(3, 5);
    world.run_for(5 * LIFE - Duration::from_millis(500));
    world.kill(2);
    world.run_until_seen("those of the others are outside", 40 * LIFE, |world| {
        keys.iter().all(|key| world.holders(0, key) == 0 && world.holders(1, key) == 2)
    });
    assert!(world.total("hints_kept") > 0);
    world.start(2);
    world.until_all_are_outside(&keys);
    for key in &keys {
        assert_eq!(world.value(2, key), bytes(key));
    }
}

#[test]
fn bundles_are_of_one_core_and_bounded() {
    let slot = |index: usize| Slot::new(index as u16).unwrap();
    let items: Vec<(Slot, usize)> = (0..300).map(|it| (slot(it), 1_000)).collect();
    let measure = |item: &(Slot, usize)| *item;
    let each = bundled(items.clone(), None, 64, measure);
    assert!(each.len() == 300 && each.iter().all(|bundle| bundle.len() == 1), "cores unknown");
    let bundles = bundled(items.clone(), Some(3), 64, measure);
    for bundle in &bundles {
        let cores: BTreeSet<u16> = bundle.iter().map(|(slot, _)| slot.index() % 3).collect();
        assert_eq!(cores.len(), 1);
    }
    let mut sizes: Vec<usize> = bundles.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [36, 36, 36, 64, 64, 64]);
    let mut sent: Vec<(Slot, usize)> = bundles.concat();
    sent.sort_unstable();
    assert_eq!(sent, items);
    // By bytes, and what is large by itself.
    let large = [(slot(0), 10), (slot(1), BATCH_BYTES), (slot(2), BATCH_BYTES - 10), (slot(3), 10)];
    let sizes = bundled(large.to_vec(), Some(1), 64, measure);
    let sizes: Vec<Vec<u16>> =
        sizes.iter().map(|it| it.iter().map(|(slot, _)| slot.index()).collect()).collect();
    assert_eq!(sizes, [vec![1], vec![0, 2], vec![3]]);
}

#[test]
fn an_answer_says_what_became_of_each_copy_whatever_is_in_it() {
    let held = Entry::ended(Version::ZERO, Version::ZERO);
    let full = Failure::TableFull { node: NodeId::from_bits(1) };
    let taken = CopiesTaken {
        cores: 0,
        done: 4,
        differing: vec![(1, held.clone()), (9, held.clone())],
        refused: vec![(2, Some(full.clone())), (3, None), (u16::MAX, None)],
    };
    let expected = [
        Replicated::Stored,
        Replicated::Differs(held),
        Replicated::Failed(full),
        Replicated::NoHome,
    ];
    assert_eq!(answers_of(taken.clone(), 5), expected);
    assert_eq!(answers_of(CopiesTaken { done: 9, ..taken.clone() }, 4), expected);
    assert_eq!(answers_of(CopiesTaken { done: 0, ..taken }, 4), []);
}

/// What a home further out is told of a session need not be stored by who tells it.
#[test]
fn what_is_not_stored_here_goes_again_too() {
    let mut world = World::of_single_cores(2, 1, TablePolicy::default());
    world.settle();
    let keys: Vec<Key> = (0..4).map(|it| Key::new(format!("gone-{it}")).unwrap()).collect();
    let (now, to) = (world.present(0), NodeId::from_bits(2));
    let version = Version::new(annulus_proto::Hlc::from_ms(now.wall_ms), to);
    let core = world.core(0, "any");
    core.note_cores(to, 1);
    let mut sent = None;
    for key in &keys {
        let copy = (key.clone(), Entry::ended(version, version));
        core.gather_copy(0, to, copy, Errand::Repair { hint: false });
    }
    core.send_bundles(now);
    while let Some(output) = core.poll_output() {
        if let Output::Call(Ask { header, message: Message::Copies(copies), .. }) = output {
            assert_eq!(copies.entries.len(), 4);
            sent = Some(header);
        }
    }
    let header = sent.expect("they are sent");
    let message = CopiesTaken { cores: 1, done: 1, differing: Vec::new(), refused: Vec::new() };
    let answered = Answered { node: to, header, message: message.into() };
    let outcome = Outcome { call: header.id, result: Ok(answered) };
    core.handle(now, Input::Outcome(outcome));
    let mut again = Vec::new();
    while let Some(output) = core.poll_output() {
        if let Output::Call(Ask { message: Message::Copies(copies), .. }) = output {
            again.extend(copies.entries.into_iter().map(|(key, _)| key));
        }
    }
    assert_eq!(again, keys[1..]);
}
