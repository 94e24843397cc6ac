//! Sketches against the sets that they are of, and against bytes that are of none.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::{Step, next_step};

/// Keys with their states.
type Set = BTreeMap<u64, u64>;

fn sketch(symbols: usize, set: &Set) -> Sketch {
    let mut sketch = Sketch::new(symbols);
    set.iter().for_each(|(key, state)| sketch.change(*key, 0, *state));
    sketch
}

fn minus(ours: &Sketch, theirs: &Sketch) -> Sketch {
    let mut difference = ours.clone();
    difference.subtract(theirs);
    difference
}

fn on_the_wire(sketch: &Sketch) -> Sketch {
    let mut bytes = Vec::new();
    sketch.write(&mut bytes);
    assert_eq!(bytes.len(), Sketch::bytes(sketch.symbols().len()));
    Sketch::read(&bytes).unwrap()
}

fn differing(ours: &Set, theirs: &Set) -> Vec<u64> {
    let mut keys: Vec<u64> = ours.keys().chain(theirs.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| ours.get(key) != theirs.get(key));
    keys
}

fn sets(sizes: std::ops::Range<usize>) -> impl Strategy<Value = Set> {
    let keys = prop_oneof![0..30_u64, 0..(1_u64 << 61) - 1];
    btree_map(keys, prop_oneof![1..4_u64, Just(u64::MAX), 1..u64::MAX], sizes)
}

/// Words that look random and are the same in each run (the finaliser of SplitMix64).
fn word(n: u64) -> u64 {
    let mut bits = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn key(n: u64) -> u64 {
    word(n) >> 3
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_that_decodes_is_that_of_the_sets(
        common in sets(0..200),
        ours in sets(0..30),
        theirs in sets(0..30),
        symbols in 1..=SYMBOLS_MAX,
    ) {
        let mut both = [common.clone(), common];
        both[0].extend(ours);
        both[1].extend(theirs);
        let expected = differing(&both[0], &both[1]);
        let [ours, theirs] = &both;
        let difference = minus(&sketch(symbols, ours), &on_the_wire(&sketch(symbols, theirs)));
        prop_assert_eq!(difference.first().is_zero(), expected.is_empty());
        match difference.decode() {
            Some(found) => prop_assert_eq!(&found, &expected),
            None => prop_assert!(expected.len() > 1, "one key shows in the first symbol"),
        }
    }

    #[test]
    fn sketches_of_disjoint_sets_add_up_to_that_of_their_union(
        all in sets(0..100),
        parts in 1..5_u64,
        symbols in 1..=SYMBOLS_MAX,
    ) {
        let mut sum = Sketch::new(symbols);
        for part in 0..parts {
            let of_part = all.iter().filter(|(key, _)| *key % parts == part);
            sum.merge(&sketch(symbols, &of_part.map(|(key, state)| (*key, *state)).collect()));
        }
        prop_assert_eq!(&sum, &sketch(symbols, &all));
        // A sketch of fewer symbols is the beginning of one of more.
        let mut shorter = Sketch::new(symbols.div_ceil(2));
        shorter.merge(&sum);
        prop_assert_eq!(shorter.symbols(), &sum.symbols()[..symbols.div_ceil(2)]);
    }

    #[test]
    fn what_changes_and_goes_leaves_nothing_behind(
        stays in sets(0..50),
        changes in vec((0..30_u64, 0..4_u64), 0..100),
        symbols in 1..=SYMBOLS_MAX,
    ) {
        let (mut kept, mut set) = (sketch(symbols, &stays), stays.clone());
        let others = sketch(symbols, &BTreeMap::from([(1_000, 7)]));
        let mut whole = kept.clone();
        whole.merge(&others);
        for (key, state) in changes {
            kept.change_with(&mut whole, key, set.get(&key).copied().unwrap_or(0), state);
            if state == 0 { set.remove(&key) } else { set.insert(key, state) };
        }
        prop_assert_eq!(&kept, &sketch(symbols, &set));
        prop_assert_eq!(minus(&whole, &others), sketch(symbols, &set));
        let keys: Vec<u64> = set.keys().chain(stays.keys()).copied().collect();
        for key in keys {
            let [is, was] = [&set, &stays].map(|set| set.get(&key).copied().unwrap_or(0));
            kept.change(key, is, was);
            set.insert(key, was);
        }
        prop_assert_eq!(kept, sketch(symbols, &stays));
    }

    #[test]
    fn bytes_from_anywhere_are_read_and_decoded_in_bounded_time(
        bytes in vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..Sketch::bytes(SYMBOLS_MAX) + 30),
        ours in sets(0..5),
    ) {
        if let Some(theirs) = Sketch::read(&bytes) {
            prop_assert_eq!(bytes.len(), Sketch::bytes(theirs.symbols().len()));
            let difference = minus(&sketch(SYMBOLS_MAX, &ours), &theirs);
            let count = difference.decode().map_or(0, |keys| keys.len());
            prop_assert!(count <= theirs.symbols().len());
            if let Step::Split(parts) = next_step(&difference, 100) {
                prop_assert!((2..=100).contains(&parts));
            }
        }
    }
}

/// Not all do, since keys may be in the same symbols, two of them as well as more: what does not decode is split or listed.
#[test]
fn almost_all_differences_that_are_a_quarter_of_the_symbols_decode() {
    let rounds = 20_000;
    let decodes = |round: u64| {
        let keys = (0..=round % 16).map(|n| (key(round * 16 + n), 1));
        sketch(SYMBOLS_MAX, &keys.collect()).decode().is_some()
    };
    let decoded = (0..rounds).filter(|round| decodes(*round)).count();
    assert!(decoded as u64 >= rounds - rounds / 1_000, "{decoded} of {rounds}");
    // Found at random.
    let alone = |key: u64| sketch(SYMBOLS_MAX, &[(key, 1)].into());
    let both = minus(&alone(187_914_471_950_270_484), &alone(4));
    assert_eq!(both.decode(), None);
    assert!(!matches!(next_step(&both, 100), Step::Found(_)), "it goes on");
}

/// A key that is in one of its symbols only: taking it out there puts it into the others, and so on.
#[test]
fn a_sketch_that_leads_in_circles_is_given_up() {
    for n in 0..100 {
        let whole = sketch(SYMBOLS_MAX, &[(key(n), word(n))].into());
        for index in 0..SYMBOLS_MAX {
            let mut circle = Sketch::new(SYMBOLS_MAX);
            circle.symbols[index] = whole.symbols[0];
            let is_whole = circle == whole;
            assert!(circle.decode().is_none() || is_whole, "{index}");
        }
    }
}

#[test]
fn bytes_of_no_sketch_are_refused() {
    for size in [0, 1, 25, 27, Sketch::bytes(SYMBOLS_MAX) - 1, Sketch::bytes(SYMBOLS_MAX + 1)] {
        assert_eq!(Sketch::read(&vec![0; size]), None, "{size}");
    }
    assert_eq!(Sketch::read(&[0; Sketch::bytes(1)]), Some(Sketch::new(1)));
}

/// Nodes of one cluster have to agree on these for ever.
#[test]
fn symbols_are_what_they_were() {
    let set = [(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), (1, 2), (0xffff, u64::MAX)];
    let mut bytes = Vec::new();
    sketch(5, &set.into()).write(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = concat!(
    "2032547698badc1efc46275195a8460b0bcb5b192224ff080000",
    "1732547698badc1e0147205195a8460bd036ddf34690ad02ffff",
    "1e32547698badc1efa46275195a8460bacd8a44fb77186090000",
    "0700000000000000f9ff060000000000dca1c75b70e1d8060100",
    "020000000000000002000000000000005ef2b6c96ab2781f0000",
);

#[test]
fn a_key_is_in_a_symbol_as_often_as_the_paper_says() {
    let count = 20_000;
    let mut often = [0_u32; SYMBOLS_MAX];
    for n in 0..count {
        let alone = sketch(SYMBOLS_MAX, &[(key(n), 1)].into());
        for (symbol, often) in alone.symbols().iter().zip(&mut often) {
            *often += u32::from(!symbol.is_zero());
        }
    }
    for (index, often) in often.into_iter().enumerate() {
        let (often, chance) = (f64::from(often), 1.0 / (1.0 + index as f64 / 2.0));
        let expected = count as f64 * chance;
        let deviation = (expected * (1.0 - chance)).sqrt();
        assert!((often - expected).abs() <= 5.0 * deviation, "{index}: {often} for {expected}");
    }
}

#[test]
fn a_guess_is_near_whatever_the_differences_are() {
    for count in [30, 100, 1_000, 10_000, 100_000_u64] {
        for changed_percent in [0, 50, 100] {
            let (mut worst, mut sum) = (1.0_f64, 0.0);
            for run in 0..20 {
                let mut difference = Sketch::new(16);
                for n in run * 1_000_000..run * 1_000_000 + count {
                    let before = if n % 100 < changed_percent { word(n + 7) } else { 0 };
                    difference.change(key(n), before, word(n));
                }
                let guess = on_the_wire(&difference).estimate() as f64 / count as f64;
                worst = worst.max(guess).max(1.0 / guess);
                sum += guess;
            }
            let mean = sum / 20.0;
            assert!(worst < 8.0, "{count}, {changed_percent} % changed: {worst} times off");
            assert!((0.6..1.6).contains(&mean), "{count}, {changed_percent} %: {mean}");
        }
    }
}

#[test]
fn what_is_too_much_is_split_and_what_is_hopeless_is_listed() {
    let of = |count| {
        let mut sketch = Sketch::new(16);
        (0..count).for_each(|n| sketch.change(key(n), 0, word(n)));
        sketch
    };
    assert!(matches!(next_step(&of(3), 1_000), Step::Found(found) if found.len() == 3));
    assert!(matches!(next_step(&of(200), 1_000), Step::Split(parts) if (5..120).contains(&parts)));
    assert_eq!(next_step(&of(200), 1), Step::List);
    assert_eq!(next_step(&of(100_000), 1_000), Step::List);
}
