//! Breadth-first search through all states of a model: the first violation is a shortest one.

#![allow(
    clippy::disallowed_types,
    reason = "only asked whether it has a state, never gone through"
)]

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// What is searched: states, the steps from each, and what must never be.
pub(crate) trait Model {
    type State: Clone;
    type Step: Copy + Debug;

    fn start(&self) -> Self::State;
    /// All steps that may happen in a state.
    fn steps(&self, state: &Self::State) -> Vec<Self::Step>;
    fn apply(&self, state: &mut Self::State, step: Self::Step);
    /// What is wrong with a state.
    fn broken(&self, state: &Self::State) -> Option<String>;
    /// Equal only for states from which the same can happen.
    fn fingerprint(&self, state: &Self::State) -> u128;
}

pub(crate) struct Report<Step> {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    /// Whether all states were seen.
    pub(crate) complete: bool,
    pub(crate) violation: Option<(String, Vec<Step>)>,
}

/// How many states a search of larger bounds goes through: a few minutes and 3 GB.
pub(crate) const LONG: usize = 3_000_000;

/// Searches until a violation, the end, or more states than that.
pub(crate) fn search<M: Model>(model: &M, states_max: usize) -> Report<M::Step> {
    let mut seen = HashSet::with_hasher(AsIs);
    // Of each state that was found, the one it was found from and by which step.
    let mut origins: Vec<(u32, Option<M::Step>)> = vec![(0, None)];
    let start = model.start();
    seen.insert(model.fingerprint(&start));
    let mut level = vec![(start, 0u32)];
    let mut depth = 0;
    loop {
        let mut next = Vec::new();
        for (state, index) in &level {
            for step in model.steps(state) {
                let mut after = state.clone();
                model.apply(&mut after, step);
                if !seen.insert(model.fingerprint(&after)) {
                    continue;
                }
                origins.push((*index, Some(step)));
                let number = u32::try_from(origins.len() - 1).expect("fewer states than memory");
                let states = origins.len();
                if let Some(why) = model.broken(&after) {
                    let violation = Some((why, path(&origins, number)));
                    return Report { states, depth: depth + 1, complete: false, violation };
                }
                if states >= states_max {
                    return Report { states, depth: depth + 1, complete: false, violation: None };
                }
                next.push((after, number));
            }
        }
        if next.is_empty() {
            return Report { states: origins.len(), depth, complete: true, violation: None };
        }
        depth += 1;
        level = next;
    }
}

/// Searches everything, and nothing may be wrong.
#[track_caller]
pub(crate) fn holds<M: Model>(what: &str, model: &M, states_max: usize) {
    let complete = holds_as_far_as(what, model, states_max);
    assert!(complete, "{what}: more than {states_max} states");
}

/// Searches so many states, whose number is printed; whether these were all.
#[track_caller]
pub(crate) fn holds_as_far_as<M: Model>(what: &str, model: &M, states_max: usize) -> bool {
    let report = search(model, states_max);
    let Report { states, depth, complete, .. } = report;
    if let Some((why, steps)) = report.violation {
        panic!("{what}: {why}\nafter {} steps: {steps:#?}", steps.len());
    }
    println!("{what}: {states} states, {depth} steps deep, complete: {complete}");
    complete
}

/// Searches until something is wrong, which has to be.
#[track_caller]
pub(crate) fn fails<M: Model>(what: &str, model: &M, states_max: usize) {
    let report = search(model, states_max);
    let Some((why, steps)) = report.violation else {
        panic!("{what}: not caught in {} states, {} steps deep", report.states, report.depth);
    };
    println!("{what}: caught in {} steps, {} states: {why}", steps.len(), report.states);
    for step in steps {
        println!("    {step:?}");
    }
}

fn path<Step: Copy>(origins: &[(u32, Option<Step>)], mut at: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    while let (from, Some(step)) = origins[at as usize] {
        steps.push(step);
        at = from;
    }
    steps.reverse();
    steps
}

/// 128 bits of whatever can be hashed, the same in each run.
pub(crate) fn fingerprint(value: &impl Hash) -> u128 {
    let mut mix = Mix(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);
    value.hash(&mut mix);
    u128::from(mix.0) << 64 | u128::from(mix.1)
}

struct Mix(u64, u64);

impl Mix {
    fn add(&mut self, word: u64) {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        self.0 = fold(self.0 ^ word, 0xa076_1d64_78bd_642f) ^ self.1.rotate_left(32);
        self.1 = fold(self.1 ^ word.rotate_left(29), 0xe703_7ed1_a0b4_28db).wrapping_add(self.0);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.add(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.add(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.add(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A fingerprint is as good a hash as any.
#[derive(Default)]
struct AsIs;

#[derive(Default)]
struct Low(u64);

impl std::hash::BuildHasher for AsIs {
    type Hasher = Low;

    fn build_hasher(&self) -> Low {
        Low(0)
    }
}

impl Hasher for Low {
    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints only");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
