//! Sketches against the sets that they are of, and against bytes that are of none.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::{Step, next_step};

type Set = BTreeSet<Element>;

fn sketch(symbols: usize, elements: &Set) -> Sketch {
    let mut sketch = Sketch::new(symbols);
    elements.iter().for_each(|element| sketch.insert(*element));
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

fn difference_of(ours: &Set, theirs: &Set) -> Difference {
    Difference {
        ours: ours.difference(theirs).copied().collect(),
        theirs: theirs.difference(ours).copied().collect(),
    }
}

/// Few keys and values, so that the same key has several.
fn elements() -> impl Strategy<Value = Element> {
    prop_oneof![
        (0..20u64, 0..5u64).prop_map(|(key, value)| Element { key, value }),
        any::<(u64, u64)>().prop_map(|(key, value)| Element { key, value }),
    ]
}

fn sets(sizes: std::ops::Range<usize>) -> impl Strategy<Value = Set> {
    btree_set(elements(), sizes)
}

/// Elements that look random and are the same in each run.
fn numbered(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Element> {
    // The finaliser of SplitMix64.
    let word = |n: u64| {
        let mut bits = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    numbers.map(move |n| Element { key: word(2 * n), value: word(2 * n + 1) })
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
        let ours: Set = common.union(&ours).copied().collect();
        let theirs: Set = common.union(&theirs).copied().collect();
        let expected = difference_of(&ours, &theirs);
        let count = expected.ours.len() + expected.theirs.len();
        let difference = minus(&sketch(symbols, &ours), &on_the_wire(&sketch(symbols, &theirs)));
        match difference.decode() {
            Some(found) => prop_assert_eq!(found, expected),
            None => prop_assert!(count > 1, "one element shows in the first symbol"),
        }
        prop_assert_eq!(difference.first().is_zero(), count == 0);
        // With all symbols little is left undecoded.
        let both = [&ours, &theirs].map(|set| sketch(SYMBOLS_MAX, set));
        let decodes = minus(&both[0], &both[1]).decode().is_some();
        prop_assert!(decodes || count > 16, "{count} in {SYMBOLS_MAX} symbols");
    }

    #[test]
    fn sketches_of_disjoint_sets_add_up_to_that_of_their_union(
        all in sets(0..100),
        parts in 1..5u64,
        symbols in 1..=SYMBOLS_MAX,
    ) {
        let mut sum = Sketch::new(symbols);
        for part in 0..parts {
            let part = all.iter().filter(|it| it.key % parts == part).copied().collect();
            sum.merge(&sketch(symbols, &part));
        }
        prop_assert_eq!(&sum, &sketch(symbols, &all));
        // A sketch of fewer symbols is the beginning of one of more.
        let mut shorter = Sketch::new(symbols.div_ceil(2));
        shorter.merge(&sum);
        prop_assert_eq!(shorter.symbols(), &sum.symbols()[..symbols.div_ceil(2)]);
    }

    #[test]
    fn what_goes_out_leaves_nothing_behind(
        stays in sets(0..50),
        goes in vec(elements(), 0..50),
        symbols in 1..=SYMBOLS_MAX,
    ) {
        let mut sketch_of_all = sketch(symbols, &stays);
        let goes: Set = goes.into_iter().filter(|it| !stays.contains(it)).collect();
        goes.iter().for_each(|element| sketch_of_all.insert(*element));
        goes.iter().rev().for_each(|element| sketch_of_all.remove(*element));
        prop_assert_eq!(sketch_of_all, sketch(symbols, &stays));
    }

    #[test]
    fn bytes_from_anywhere_are_read_and_decoded_in_bounded_time(
        bytes in vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..Sketch::bytes(SYMBOLS_MAX) + 30),
        ours in sets(0..5),
    ) {
        if let Some(theirs) = Sketch::read(&bytes) {
            prop_assert_eq!(bytes.len(), Sketch::bytes(theirs.symbols().len()));
            let difference = minus(&sketch(SYMBOLS_MAX, &ours), &theirs);
            let count = difference.decode().map_or(0, |it| it.ours.len() + it.theirs.len());
            prop_assert!(count <= theirs.symbols().len() + 1);
            if let Step::Split(parts) = next_step(&difference, 100) {
                prop_assert!((2..=100).contains(&parts));
            }
        }
    }
}

/// An element that is in one of its symbols only: taking it out there puts it into the others, and so on.
#[test]
fn a_sketch_that_leads_in_circles_is_given_up() {
    for element in numbered(0..100) {
        let placed = element.placed(SYMBOLS_MAX);
        for index in 0..SYMBOLS_MAX {
            let mut circle = Sketch::new(SYMBOLS_MAX);
            circle.symbols[index].change(&placed, 1);
            let decoded = circle.decode();
            assert!(decoded.is_none() || placed.places == 1 << index, "{index}: {decoded:?}");
        }
    }
}

#[test]
fn bytes_of_no_sketch_are_refused() {
    for size in [0, 1, 4, 5, 24, 26, Sketch::bytes(SYMBOLS_MAX) - 1, Sketch::bytes(SYMBOLS_MAX + 1)]
    {
        assert_eq!(Sketch::read(&vec![0; size]), None, "{size}");
    }
    assert_eq!(Sketch::read(&[0; Sketch::bytes(1)]), Some(Sketch::new(1)));
}

/// Nodes of one cluster have to agree on these for ever.
#[test]
fn symbols_are_what_they_were() {
    let elements = [
        Element { key: 0x0123_4567_89ab_cdef, value: 0xfedc_ba98_7654_3210 },
        Element { key: 1, value: 2 },
        Element { key: 0xffff, value: u64::MAX },
    ];
    let mut bytes = Vec::new();
    sketch(6, &elements.into()).write(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    let [one, ..] = elements;
    assert_eq!(Element::from_bytes(one.to_bytes()), one);
    assert_eq!(one.to_bytes()[..9], [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 0x10]);
}

const GOLDEN: &str = concat!(
    "03000000",
    "1132ab8967452301edcdab89674523013c6d7ea803",
    "1132ab8967452301edcdab89674523013c6d7ea803",
    "1132ab8967452301edcdab89674523013c6d7ea803",
    "000000000000000000000000000000000000000000",
    "efcdab89674523011032547698badcfe4420c9b401",
    "000000000000000000000000000000000000000000",
);

#[test]
fn an_element_is_in_a_symbol_as_often_as_the_paper_says() {
    let count = 20_000;
    let mut often = [0_u32; SYMBOLS_MAX];
    for element in numbered(0..count) {
        let places = element.placed(SYMBOLS_MAX).places;
        for (index, often) in often.iter_mut().enumerate() {
            *often += (places >> index & 1) as u32;
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
fn an_estimate_is_near_however_the_sides_share_the_difference() {
    for count in [30, 100, 1_000, 10_000_u64] {
        for ours_percent in [0, 30, 50, 100] {
            let mut worst: f64 = 1.0;
            let mut sum = 0.0;
            for run in 0..20 {
                let mut difference = Sketch::new(16);
                let first = run * 100_000;
                for (n, element) in (0..).zip(numbered(first..first + count)) {
                    if n % 100 < ours_percent {
                        difference.insert(element);
                    } else {
                        difference.remove(element);
                    }
                }
                let estimate = on_the_wire(&difference).estimate() as f64 / count as f64;
                worst = worst.max(estimate).max(1.0 / estimate);
                sum += estimate;
            }
            assert!(worst < 4.0, "{count}, {ours_percent} %: {worst} times off");
            assert!(
                (0.7..1.5).contains(&(sum / 20.0)),
                "{count}, {ours_percent} %: {}",
                sum / 20.0
            );
        }
    }
    // Beyond that it is no more than a great deal.
    for count in [20_000, 60_000, 200_000] {
        let mut difference = Sketch::new(16);
        for element in numbered(0..count) {
            if element.key % 2 == 0 {
                difference.insert(element)
            } else {
                difference.remove(element)
            }
        }
        assert!(difference.estimate() > 4_000, "{count}: {}", difference.estimate());
    }
    let mut large = Sketch::new(16);
    numbered(0..300_000).for_each(|element| large.insert(element));
    assert_eq!(large.estimate(), 300_000);
}

#[test]
fn what_is_too_much_is_split_and_what_is_hopeless_is_listed() {
    let of = |count| {
        let mut sketch = Sketch::new(16);
        numbered(0..count).for_each(|element| sketch.insert(element));
        sketch
    };
    assert!(matches!(next_step(&of(3), 1_000), Step::Found(found) if found.ours.len() == 3));
    assert!(matches!(next_step(&of(200), 1_000), Step::Split(parts) if (15..60).contains(&parts)));
    assert_eq!(next_step(&of(200), 1), Step::List);
    assert_eq!(next_step(&of(10_000), 1_000), Step::List);
}
