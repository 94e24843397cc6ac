//! Lanes: the ring and the answers under loom, with mutants; hostile words; real memory files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicU64, Ordering, fence};

use super::caught;
use crate::lane::ring::{Consumer, LaneFault, NotPushed, Producer, RingPlace};
use crate::lane::{
    CALLS_MAX, CallError, ClientLane, LaneError, LaneOptions, NodeLane, SUBMISSION_BYTES_MAX,
    SharedWords, Sleeper, Submitted, current_cpu, full_fence, layout, slots,
};
use crate::reader::Used;
use crate::region::HeapRegion;
use crate::words::{Mapped, Words};

// The models.

/// What is taken away.
#[derive(Clone, Copy, PartialEq)]
enum Mutant {
    None,
    NoAcquire,
    NoRelease,
    NoFullFence,
}

/// The few words that a model needs.
#[derive(Clone)]
struct LoomWords {
    words: Arc<BTreeMap<usize, AtomicU64>>,
    mutant: Mutant,
}

impl LoomWords {
    fn new(at: impl IntoIterator<Item = usize>, mutant: Mutant) -> Self {
        Self { words: Arc::new(at.into_iter().map(|at| (at, AtomicU64::new(0))).collect()), mutant }
    }
}

impl Words for LoomWords {
    fn count(&self) -> usize {
        self.words.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    fn load(&self, at: usize) -> u64 {
        self.words[&at].load(Ordering::Relaxed)
    }

    fn store(&self, at: usize, value: u64) {
        self.words[&at].store(value, Ordering::Relaxed);
    }

    fn acquire(&self) {
        if self.mutant != Mutant::NoAcquire {
            fence(Ordering::Acquire);
        }
    }

    fn release(&self) {
        if self.mutant != Mutant::NoRelease {
            fence(Ordering::Release);
        }
    }
}

impl SharedWords for LoomWords {
    fn full(&self) {
        if self.mutant == Mutant::NoFullFence {
            // What remains of it on machines that reorder a store and a later load.
            fence(Ordering::AcqRel);
        } else {
            fence(Ordering::SeqCst);
        }
    }
}

/// Room for two records of one word each.
const SMALL_RING: RingPlace = RingPlace { at: 4_000, words: 4 };

fn ring_words(mutant: Mutant) -> LoomWords {
    let control = [layout::TAIL, layout::HEAD, layout::ASLEEP, layout::CLIENT_CPU, layout::CLOSED];
    let ring = SMALL_RING.at..SMALL_RING.at + SMALL_RING.words;
    LoomWords::new(control.into_iter().chain(ring), mutant)
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // LOOM_MAX_PREEMPTIONS=5 is the long run.
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Three records through a ring that holds two, so that the third takes the place of the first.
fn submissions(mutant: Mutant) {
    check(move || {
        let words = ring_words(mutant);
        let mut producer = Producer::new(words.clone(), SMALL_RING);
        let mut consumer = Consumer::new(words, SMALL_RING);
        let submitting = loom::thread::spawn(move || {
            let mut submitted = 0;
            for number in 1..=3u64 {
                match producer.push(&number.to_ne_bytes()) {
                    Ok(_) => submitted += 1,
                    Err(NotPushed::Full) => break,
                    Err(other) => panic!("refused: {other:?}"),
                }
            }
            submitted
        });
        let mut taken = 0u64;
        let mut record = Vec::new();
        for _ in 0..2 {
            match consumer.pop(&mut record) {
                Ok(true) => {
                    taken += 1;
                    assert_eq!(record, taken.to_ne_bytes(), "another record");
                }
                Ok(false) => {}
                Err(fault) => panic!("another record: {fault}"),
            }
        }
        let submitted = submitting.join().expect("the producer is content");
        while consumer.pop(&mut record) == Ok(true) {
            taken += 1;
            assert_eq!(record, taken.to_ne_bytes(), "another record");
        }
        assert_eq!(taken, submitted, "lost");
    });
}

/// A record that is submitted while the node falls asleep is seen by it, or its producer sees that.
fn falling_asleep(mutant: Mutant) {
    check(move || {
        let words = ring_words(mutant);
        let mut producer = Producer::new(words.clone(), SMALL_RING);
        let consumer = Consumer::new(words.clone(), SMALL_RING);
        let submitting = loom::thread::spawn(move || producer.push(b"a record").expect("room"));
        consumer.say_asleep(Some(0));
        words.full();
        let seen = consumer.is_waiting();
        let asleep = submitting.join().expect("the producer is content");
        assert!(seen || asleep != 0, "nobody noticed");
    });
}

fn slot_words(mutant: Mutant) -> LoomWords {
    let slot = layout::slot_at(1);
    LoomWords::new(slot..slot + layout::SLOT_WORDS, mutant)
}

/// Two calls in one place: neither takes what was meant for the other, nor half of an answer.
fn answers(mutant: Mutant) {
    check(move || {
        let words = slot_words(mutant);
        let (older, newer) = (1, 1 + CALLS_MAX as u32);
        let client = words.clone();
        let calling = loom::thread::spawn(move || {
            for call in [older, newer] {
                if let Some(answer) = slots::take(&client, call) {
                    assert_eq!(answer, [u64::from(call); 6], "another answer");
                }
            }
        });
        let mut node = slots::AnswerSlots::new(words);
        for call in [older, newer] {
            node.open(call);
            assert!(node.answer(call, [call.into(); 6]).is_some());
        }
        calling.join().expect("the client is content");
    });
}

/// An answer that comes while the client falls asleep is seen by it, or the node sees that.
fn falling_asleep_over_an_answer(mutant: Mutant) {
    check(move || {
        let words = slot_words(mutant);
        let client = words.clone();
        let calling = loom::thread::spawn(move || {
            let seen = slots::say_sleeping(&client, 1);
            // The kernel sleeps only while the word is as it was seen.
            seen == 1 || slots::take(&client, 1).is_some()
        });
        let mut node = slots::AnswerSlots::new(words);
        node.open(1);
        let sleeps = node.answer(1, [7; 6]).expect("the call is open");
        let seen = calling.join().expect("the client is content");
        assert!(seen || sleeps, "nobody noticed");
    });
}

#[test]
fn submissions_arrive_whole_and_in_order() {
    submissions(Mutant::None);
}

#[test]
fn mutant_of_the_ring_without_acquire_fences_is_caught() {
    caught("another record", || submissions(Mutant::NoAcquire));
}

#[test]
fn mutant_of_the_ring_without_release_fences_is_caught() {
    caught("another record", || submissions(Mutant::NoRelease));
}

#[test]
fn a_submission_never_waits_for_a_node_that_sleeps() {
    falling_asleep(Mutant::None);
}

#[test]
fn mutant_of_the_bell_without_a_full_fence_is_caught() {
    caught("nobody noticed", || falling_asleep(Mutant::NoFullFence));
}

#[test]
fn an_answer_is_whole_and_nobody_elses() {
    answers(Mutant::None);
}

#[test]
fn mutant_of_the_answers_without_acquire_fences_is_caught() {
    caught("another answer", || answers(Mutant::NoAcquire));
}

#[test]
fn mutant_of_the_answers_without_release_fences_is_caught() {
    caught("another answer", || answers(Mutant::NoRelease));
}

#[test]
fn a_client_never_sleeps_over_its_answer() {
    falling_asleep_over_an_answer(Mutant::None);
}

#[test]
fn mutant_of_sleeping_without_a_full_fence_is_caught() {
    caught("nobody noticed", || falling_asleep_over_an_answer(Mutant::NoFullFence));
}

// Hostile words, on heap memory.

fn heap() -> (Mapped, RingPlace) {
    let region = HeapRegion::new(8 * (layout::RING_START + 64));
    (Mapped::new(region.handle()), RingPlace { at: layout::RING_START, words: 64 })
}

/// Words of a process that is gone after so many stores.
#[derive(Clone)]
struct StopAfter {
    words: Mapped,
    left: std::rc::Rc<std::cell::Cell<usize>>,
}

impl StopAfter {
    fn new(words: Mapped, stores: usize) -> Self {
        Self { words, left: std::rc::Rc::new(std::cell::Cell::new(stores)) }
    }
}

impl Words for StopAfter {
    fn count(&self) -> usize {
        self.words.count()
    }

    fn load(&self, at: usize) -> u64 {
        self.words.load(at)
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            self.words.store(at, value);
        }
    }

    fn acquire(&self) {
        self.words.acquire();
    }

    fn release(&self) {
        self.words.release();
    }
}

impl SharedWords for StopAfter {
    fn full(&self) {
        self.words.full();
    }
}

#[test]
fn a_client_that_stops_after_any_store_has_submitted_whole_records() {
    // 5 stores each: the size, three words, the position.
    let records = [[1u8; 24], [2; 24], [3; 24]];
    for stores in 0..=15 {
        let (words, place) = heap();
        let mut producer = Producer::new(StopAfter::new(words.clone(), stores), place);
        for record in &records {
            producer.push(record).unwrap();
        }
        let mut consumer = Consumer::new(words, place);
        let (mut taken, mut count) = (Vec::new(), 0);
        while consumer.pop(&mut taken).unwrap() {
            assert_eq!(taken, records[count]);
            count += 1;
        }
        assert_eq!(count, stores / 5);
    }
}

#[test]
fn a_node_that_stops_after_any_store_has_answered_whole_or_not_at_all() {
    // Void, the answer, the number.
    for stores in 0..=8 {
        let region = HeapRegion::new(8 * layout::COUNTS_START);
        let words = Mapped::new(region.handle());
        let (older, newer) = (3, 3 + CALLS_MAX as u32);
        let mut node = slots::AnswerSlots::new(words.clone());
        node.open(older);
        node.answer(older, [1; 6]);
        let mut node = slots::AnswerSlots::new(StopAfter::new(words.clone(), stores));
        node.open(newer);
        node.answer(newer, [2; 6]);
        let answers = [older, newer].map(|call| slots::take(&words, call));
        match stores {
            0 => assert_eq!(answers, [Some([1; 6]), None]),
            8 => assert_eq!(answers, [None, Some([2; 6])]),
            _ => assert_eq!(answers, [None, None]),
        }
    }
}

#[test]
fn records_of_all_sizes_pass_around_the_end_of_the_ring() {
    let (words, place) = heap();
    let mut producer = Producer::new(words.clone(), place);
    let mut consumer = Consumer::new(words, place);
    let mut taken = Vec::new();
    for size in (1..=504).chain((1..=504).rev()) {
        let record: Vec<u8> = (0..size).map(|at| (at * 31 + size) as u8).collect();
        assert_eq!(producer.push(&record), Ok(0));
        assert_eq!(consumer.pop(&mut taken), Ok(true));
        assert_eq!(taken, record);
        assert_eq!(consumer.pop(&mut taken), Ok(false));
    }
}

#[test]
fn a_full_ring_takes_nothing_and_loses_nothing() {
    let (words, place) = heap();
    let mut producer = Producer::new(words.clone(), place);
    let mut consumer = Consumer::new(words, place);
    let mut submitted = 0u64;
    while producer.push(&submitted.to_ne_bytes()).is_ok() {
        submitted += 1;
    }
    assert_eq!(submitted, 32);
    assert_eq!(producer.push(&[0; 505]), Err(NotPushed::TooLong));
    assert_eq!(producer.push(&[]), Err(NotPushed::TooLong));
    let mut taken = Vec::new();
    for number in 0..submitted {
        assert_eq!(consumer.pop(&mut taken), Ok(true));
        assert_eq!(taken, number.to_ne_bytes());
    }
    assert_eq!(producer.push(b"again"), Ok(0));
}

#[test]
fn nonsense_in_the_ring_is_a_fault_and_never_a_copy() {
    for position in [65, 1 << 40, u64::MAX, u64::MAX - 1] {
        let (words, place) = heap();
        words.store(layout::TAIL, position);
        let fault = Consumer::new(words, place).pop(&mut Vec::new()).unwrap_err();
        assert_eq!(fault, LaneFault::Position { ahead: position, words: 64 });
    }
    for size in [0, 17, 505, 1 << 20, u64::from(u32::MAX), u64::MAX] {
        let (words, place) = heap();
        words.store(layout::TAIL, 3);
        words.store(place.at, size);
        let mut taken = Vec::new();
        let fault = Consumer::new(words, place).pop(&mut taken).unwrap_err();
        assert_eq!(fault, LaneFault::Size { size, left: 3 });
        assert_eq!(taken.capacity(), 0, "nothing was allocated");
    }
    let (words, place) = heap();
    words.store(layout::HEAD, 1 << 40);
    let mut producer = Producer::new(words, place);
    while producer.push(b"a record").is_ok() {}
    assert_eq!(producer.push(b"a record"), Err(NotPushed::Nonsense));
}

#[test]
fn random_words_in_the_ring_end_in_a_fault_or_a_copy() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(5);
    for _ in 0..2_000 {
        let (words, place) = heap();
        words.store(layout::TAIL, rng.random_range(0..=80));
        for at in 0..place.words {
            let word: u64 = rng.random();
            words.store(place.at + at, if rng.random() { word } else { word & 0x3f });
        }
        let mut consumer = Consumer::new(words, place);
        let mut taken = Vec::new();
        let mut count = 0;
        while consumer.pop(&mut taken) == Ok(true) {
            count += 1;
        }
        assert!(count <= 32 && taken.len() <= 512);
    }
}

#[test]
fn a_late_answer_is_for_nobody() {
    let region = HeapRegion::new(8 * layout::COUNTS_START);
    let words = Mapped::new(region.handle());
    let mut node = slots::AnswerSlots::new(words.clone());
    let (older, newer) = (3, 3 + CALLS_MAX as u32);
    assert!(node.open(older) && node.open(newer));
    assert_eq!(node.answer(newer, [2; 6]), Some(false));
    assert_eq!(node.answer(older, [1; 6]), None, "its place was taken");
    assert_eq!(node.answer(newer, [1; 6]), None, "it was answered");
    assert_eq!(slots::take(&words, older), None);
    assert_eq!(slots::take(&words, newer), Some([2; 6]));
    assert!(!node.open(0));
    assert_eq!(node.answer(0, [1; 6]), None);
}

// Real memory files.

fn lane() -> (NodeLane, ClientLane) {
    let (node, descriptors) = NodeLane::create(LaneOptions { number: 9, tables: 3 }).unwrap();
    (node, ClientLane::attach(descriptors).unwrap())
}

#[test]
fn a_lane_carries_submissions_and_answers() {
    let (mut node, mut client) = lane();
    assert_eq!(client.number, 9);
    assert_eq!(client.submitter.submit(b"a touch"), Ok(Submitted::Awake));
    let mut taken = Vec::new();
    assert_eq!(node.submissions.take(&mut taken), Ok(true));
    assert_eq!(taken, b"a touch");
    let call = client.submitter.open_call().unwrap();
    assert!(node.answers.open(call));
    assert_eq!(node.answers.answer(call, [1, 2, 3, 4, 5, 6]), Some(false));
    let answer = client.calls.wait(call, Submitted::Awake, Duration::from_secs(60), || true);
    assert_eq!(answer, Ok([1, 2, 3, 4, 5, 6]));
    client.submitter.close_call(call);
    assert_ne!(client.submitter.open_call(), Ok(call), "the same place, another number");
}

#[test]
fn a_sleeping_node_is_woken_and_wakes_its_client() {
    let (mut node, mut client) = lane();
    let sleeper = Sleeper::new().unwrap();
    sleeper.add(&node.submissions).unwrap();
    let serving = std::thread::spawn(move || {
        let mut taken = Vec::new();
        for _ in 0..1_000 {
            while node.submissions.take(&mut taken) != Ok(true) {
                node.submissions.say_asleep(Some(current_cpu()));
                full_fence();
                if !node.submissions.is_waiting() {
                    sleeper.sleep();
                }
                node.submissions.say_asleep(None);
            }
            let call = u32::from_ne_bytes(taken[..4].try_into().unwrap());
            node.answers.open(call);
            if node.answers.answer(call, [call.into(); 6]).unwrap() {
                node.answers.waker().wake(call);
            }
        }
    });
    for _ in 0..1_000 {
        let call = client.submitter.open_call().unwrap();
        let submitted = client.submitter.submit(&call.to_ne_bytes()).unwrap();
        let answer = client.calls.wait(call, submitted, Duration::from_secs(60), || true);
        assert_eq!(answer, Ok([call.into(); 6]));
        client.submitter.close_call(call);
    }
    serving.join().unwrap();
}

#[test]
fn an_alarm_wakes_a_sleeper_even_before_it_sleeps() {
    let sleeper = Sleeper::new().unwrap();
    sleeper.alarm().sound();
    sleeper.sleep();
}

#[test]
fn a_closed_lane_lets_its_client_go() {
    let (node, mut client) = lane();
    let call = client.submitter.open_call().unwrap();
    node.submissions.close();
    node.answers.waker().wake_all();
    let patience = Duration::from_secs(60);
    let answer = client.calls.wait(call, Submitted::Awake, patience, || true);
    assert_eq!(answer, Err(CallError::Closed));
    assert!(client.submitter.submit(b"more").is_err());
    let (_node, client) = lane();
    let answer = client.calls.wait(64, Submitted::Awake, patience, || false);
    assert_eq!(answer, Err(CallError::Closed), "the node is gone");
    let answer = client.calls.wait(64, Submitted::Awake, Duration::ZERO, || true);
    assert_eq!(answer, Err(CallError::TimedOut));
}

#[test]
fn the_memory_can_be_neither_shrunk_nor_grown() {
    let (_, descriptors) = NodeLane::create(LaneOptions { number: 1, tables: 1 }).unwrap();
    let size = rustix::fs::fstat(&descriptors.memory).unwrap().st_size as u64;
    for other in [0, 4_096, size - 1, size + 1] {
        assert!(rustix::fs::ftruncate(&descriptors.memory, other).is_err());
    }
    let seals = rustix::fs::SealFlags::WRITE;
    assert!(rustix::fs::fcntl_add_seals(&descriptors.memory, seals).is_err());
}

#[test]
fn what_is_no_lane_is_not_attached() {
    let (_, mut descriptors) = NodeLane::create(LaneOptions { number: 1, tables: 1 }).unwrap();
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
    descriptors.memory = rustix::fs::memfd_create("other", flags).unwrap();
    assert!(matches!(ClientLane::attach(descriptors), Err(LaneError::NotSealed)));
    let (_, mut descriptors) = NodeLane::create(LaneOptions { number: 1, tables: 1 }).unwrap();
    let size = rustix::fs::fstat(&descriptors.memory).unwrap().st_size as u64;
    descriptors.memory = rustix::fs::memfd_create("other", flags).unwrap();
    rustix::fs::ftruncate(&descriptors.memory, size).unwrap();
    rustix::fs::fcntl_add_seals(&descriptors.memory, rustix::fs::SealFlags::SHRINK).unwrap();
    assert!(matches!(ClientLane::attach(descriptors), Err(LaneError::Header(_))));
}

#[test]
fn uses_are_counted_per_table_and_capped() {
    let (mut node, client) = lane();
    let used = Used::new(7, 0xbeef);
    let counts = client.uses.table(2, 1).unwrap();
    assert!(client.uses.table(3, 1).is_none());
    for _ in 0..8_000 {
        counts.count(used);
    }
    let mut found = Vec::new();
    node.uses.drain(|table, used, count| found.push((table, used, count)));
    let [(2, taken, count)] = found[..] else { panic!("{found:?}") };
    assert_eq!(taken, used);
    assert!((4_000..=8_184).contains(&count), "{count}");
    node.uses.drain(|_, _, _| panic!("it was taken"));
    for record in 0..1_000_000 {
        counts.count(Used::new(record, 1));
    }
    let mut sum = 0;
    node.uses.drain(|_, _, count| sum += count);
    assert!(sum <= 1 << 20, "{sum}");
}

#[test]
fn uses_are_counted_per_shard_of_a_table() {
    let (mut node, descriptors) =
        NodeLane::create(LaneOptions { number: 1, tables: 3 * 4 }).unwrap();
    let client = ClientLane::attach(descriptors).unwrap();
    assert_eq!(client.uses.shards(3), Some(4));
    assert!(client.uses.shards(5).is_none() && client.uses.shards(0).is_none());
    assert!(client.uses.table(3, 4).is_none() && client.uses.table(2, 0).is_none());
    let counts = client.uses.table(2, 4).unwrap();
    for shard in 0..6 {
        counts.note(Used::new(7, 0xbeef).in_shard(shard)); // The last two are nowhere.
    }
    let mut found = Vec::new();
    node.uses.drain(|number, used, _| found.push((number, used)));
    let used = Used::new(7, 0xbeef);
    assert_eq!(found, [(8, used), (9, used), (10, used), (11, used)]);

    // As many as there can be.
    let options = LaneOptions { number: 1, tables: 64 * 64 };
    let (mut node, descriptors) = NodeLane::create(options).unwrap();
    let client = ClientLane::attach(descriptors).unwrap();
    client.uses.table(63, 64).unwrap().note(used.in_shard(63));
    node.uses.drain(|number, found, _| assert_eq!((number, found), (64 * 64 - 1, used)));
}

#[test]
fn counts_that_a_client_made_up_are_capped() {
    let (node, descriptors) = NodeLane::create(LaneOptions { number: 1, tables: 1 }).unwrap();
    let client = ClientLane::attach(descriptors).unwrap();
    let NodeLane { mut uses, .. } = node;
    client.uses.fill(u64::MAX);
    let mut sum = 0u64;
    uses.drain(|table, _, count| {
        assert_eq!(table, 0);
        sum += u64::from(count);
    });
    assert_eq!(sum, 1 << 20);
}

const _: () = assert!(SUBMISSION_BYTES_MAX == 32 << 10);
