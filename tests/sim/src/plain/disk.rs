//! What a simulated disk holds, and what is on its way there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use annulus_node::core::{NodeState, RecordChange, RecordName};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::host::{DISK_MS_MAX, Disk as Like, SLOW_FACTOR};

/// A host's disk. A crash leaves on it what was written first of what was on its way: any prefix.
#[derive(Debug)]
pub(super) struct Disk {
    /// The node's state.
    pub(super) state: Option<NodeState>,
    /// What its cores keep.
    pub(super) kept: BTreeMap<RecordName, Vec<u8>>,
    pub(super) like: Like,
    states: VecDeque<NodeState>,
    batches: VecDeque<Batch>,
    /// When the last batch will be there.
    busy_until: Duration,
}

#[derive(Debug)]
struct Batch {
    changes: Vec<RecordChange>,
    is_written: bool,
    is_told: bool,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            state: None,
            kept: BTreeMap::new(),
            like: Like::Good,
            states: VecDeque::new(),
            batches: VecDeque::new(),
            busy_until: Duration::ZERO,
        }
    }

    /// Begins to write the node's state, and says when it will be there.
    pub(super) fn store(&mut self, rng: &mut StdRng, now: Duration, state: NodeState) -> Duration {
        self.states.push_back(state);
        now + Duration::from_millis(rng.random_range(0..=DISK_MS_MAX))
    }

    /// The state that was begun with first is there.
    pub(super) fn stored(&mut self) {
        if let Some(state) = self.states.pop_front() {
            self.state = Some(state);
        }
    }

    /// Begins to write a batch, behind those before it, and says when that will be over.
    pub(super) fn keep(
        &mut self,
        rng: &mut StdRng,
        now: Duration,
        changes: Vec<RecordChange>,
    ) -> Duration {
        let factor = if self.like == Like::Slow { SLOW_FACTOR } else { 1 };
        let wait = Duration::from_millis(factor * rng.random_range(0..=DISK_MS_MAX));
        // A bad disk takes nothing, or says so of what it took.
        let is_bad = self.like == Like::Bad;
        let is_written = !is_bad || rng.random();
        self.batches.push_back(Batch { changes, is_written, is_told: !is_bad });
        self.busy_until = self.busy_until.max(now) + wait;
        self.busy_until
    }

    /// The batch that was begun with first is over; whether its core is told that it is on disk.
    pub(super) fn kept(&mut self) -> bool {
        let Some(batch) = self.batches.pop_front() else { return false };
        let is_told = batch.is_told;
        self.write(batch);
        is_told
    }

    /// Whoever writes is killed.
    pub(super) fn crash(&mut self, rng: &mut StdRng) {
        let states = rng.random_range(0..=self.states.len());
        if let Some(state) = self.states.drain(..states).next_back() {
            self.state = Some(state);
        }
        let batches = rng.random_range(0..=self.batches.len());
        for batch in self.batches.drain(..batches).collect::<Vec<_>>() {
            self.write(batch);
        }
        self.states.clear();
        self.batches.clear();
        self.busy_until = Duration::ZERO;
    }

    fn write(&mut self, batch: Batch) {
        for RecordChange { name, value } in batch.changes.into_iter().filter(|_| batch.is_written) {
            match value {
                Some(value) => self.kept.insert(name, value),
                None => self.kept.remove(&name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus_node::core::Space;
    use annulus_proto::Slot;
    use rand::SeedableRng;

    use super::*;

    fn change(number: u8) -> Vec<RecordChange> {
        let slot = Slot::new(7).unwrap();
        let name = RecordName { space: Space::Hints, table: 0, slot, rest: Vec::new() };
        vec![RecordChange { name, value: Some(vec![number]) }]
    }

    #[test]
    fn a_crash_leaves_what_was_written_first() {
        let mut left = [0; 4];
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut disk = Disk::new();
            for number in 1..=3 {
                disk.keep(&mut rng, Duration::ZERO, change(number));
            }
            disk.crash(&mut rng);
            let value = disk.kept.values().next().map_or(0, |value| value[0]);
            left[usize::from(value)] += 1;
            assert!(!disk.kept(), "what was on its way is gone");
        }
        assert!(left.iter().all(|times| *times > 20), "{left:?}");
    }

    #[test]
    fn a_bad_disk_never_says_that_anything_is_there() {
        let mut written = 0;
        for seed in 0..100 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut disk = Disk::new();
            disk.like = Like::Bad;
            disk.keep(&mut rng, Duration::ZERO, change(1));
            assert!(!disk.kept());
            written += disk.kept.len();
        }
        assert!((20..80).contains(&written), "{written} of 100");
    }
}
