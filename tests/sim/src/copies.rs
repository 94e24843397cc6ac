//! Whether anything is on fewer nodes than it was on before.
//!
//! The rule **copies**: what is on some nodes, up to as many as a slot has homes, stays on as many at
//! every moment, less those that lost their memory since, whoever joins, drains, leaves, or is killed:
//! hand-over drops a copy only once as many other nodes have it (`annulus_slots::Holding`). A node that
//! was killed, or has left, still has in its memory what it had, and counts.

use std::time::Duration;

use annulus_proto::{Entry, Key, Version};

use crate::check::Violation;
use crate::host::Holding;

/// What is known of each key's copies.
#[derive(Debug)]
pub struct Copies {
    keys: Vec<Key>,
    /// By key: what the most recent copies at least are, the greatest first, one for each home.
    floors: Vec<Vec<Level>>,
    last: Vec<Holding>,
    tally: CopiesTally,
    found: Vec<Violation>,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiesTally {
    /// How often everybody's memory was looked at.
    pub samples: usize,
    /// How often a node was seen without what it had held just before.
    pub let_go: usize,
}

/// How much of a key's history an entry includes; it grows with every merge.
///
/// Of fields that were written by two coordinators at once it sees the later one alone.
type Level = (Version, bool, Version);

const NOTHING: Level = (Version::ZERO, false, Version::ZERO);

impl Copies {
    /// Of these keys, whose slots have so many homes.
    #[must_use]
    pub fn new(keys: &[String], replicas: usize) -> Self {
        let keys: Vec<Key> = keys.iter().filter_map(|key| Key::new(key).ok()).collect();
        let floors = vec![vec![NOTHING; replicas]; keys.len()];
        let (tally, found, last) = (CopiesTally::default(), Vec::new(), Vec::new());
        Self { keys, floors, last, tally, found }
    }

    /// Looks at what all nodes hold now.
    pub fn observe(&mut self, now: Duration, holdings: Vec<Holding>) {
        self.tally.samples += 1;
        for (key, floor) in self.keys.iter().zip(&mut self.floors) {
            let mut levels: Vec<Level> = holdings.iter().map(|held| level(held.get(key))).collect();
            levels.sort_unstable_by(|one, other| other.cmp(one));
            levels.resize(floor.len(), NOTHING);
            if let Some(nth) = floor.iter().zip(&levels).position(|(floor, level)| level < floor) {
                let what = &floor[nth];
                let holders = levels.iter().filter(|level| *level >= what).count();
                self.found.push(Violation {
                    rule: "copies",
                    what: format!(
                        "{:?} of {} is on {holders} nodes at {now:?}, and was on {}",
                        what.2,
                        String::from_utf8_lossy(key.as_bytes()),
                        nth + 1
                    ),
                });
            }
            *floor = levels;
            let lets_go = |(before, held): &(&Holding, &Holding)| {
                before.contains_key(key) && !held.contains_key(key)
            };
            self.tally.let_go += self.last.iter().zip(&holdings).filter(lets_go).count();
        }
        self.last = holdings;
    }

    /// A node, the `place`-th, is about to lose its memory: [`Copies::observe`] was told just before what it
    /// holds.
    pub fn lose(&mut self, place: usize) {
        let Some(lost) = self.last.get_mut(place).map(std::mem::take) else { return };
        for (key, floor) in self.keys.iter().zip(&mut self.floors) {
            let lost = level(lost.get(key));
            if let Some(nth) = floor.iter().position(|level| *level <= lost) {
                floor.remove(nth);
                floor.push(NOTHING);
            }
        }
    }

    /// What was found, and how much was looked at.
    #[must_use]
    pub fn verdict(self) -> (Vec<Violation>, CopiesTally) {
        (self.found, self.tally)
    }
}

fn level(entry: Option<&Entry>) -> Level {
    entry.map_or(NOTHING, |entry| (entry.birth, entry.is_ended(), entry.version))
}

#[cfg(test)]
mod tests {
    use annulus_proto::entry::{Attributes, Value};
    use annulus_proto::{Hlc, NodeId};

    use super::*;

    fn version(ms: u64) -> Version {
        Version::new(Hlc::from_ms(ms), NodeId::from_bits(1))
    }

    /// What nodes hold that have these versions of one session.
    fn holdings(versions: &[u64]) -> Vec<Holding> {
        let entry = |ms: u64| {
            let value = Value::Bytes(b"v".to_vec());
            let mut entry =
                Entry::start(version(1), value.clone(), (0, 0), Attributes::default(), 1);
            entry.write_value(version(ms), value);
            entry
        };
        let of_node = |ms: &u64| match ms {
            0 => Holding::new(),
            ms => Holding::from([(Key::new("k").unwrap(), entry(*ms))]),
        };
        versions.iter().map(of_node).collect()
    }

    fn copies() -> Copies {
        Copies::new(&["k".to_owned()], 3)
    }

    fn found(copies: Copies) -> Vec<String> {
        copies.verdict().0.into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn copies_may_move_once_they_are_elsewhere() {
        let mut copies = copies();
        for held in [[5, 5, 5, 0], [5, 5, 5, 5], [0, 5, 5, 5], [0, 5, 6, 5], [0, 7, 6, 6]] {
            copies.observe(Duration::ZERO, holdings(&held));
        }
        assert_eq!(copies.tally, CopiesTally { samples: 5, let_go: 1 });
        assert!(found(copies).is_empty());
    }

    #[test]
    fn one_copy_less_is_found_even_if_there_never_were_enough() {
        for (before, after) in [([5, 5, 5, 0], [5, 5, 0, 0]), ([5, 5, 0, 0], [5, 0, 0, 0])] {
            let mut copies = copies();
            copies.observe(Duration::ZERO, holdings(&before));
            copies.observe(Duration::ZERO, holdings(&after));
            assert_eq!(found(copies).len(), 1);
        }
    }

    #[test]
    fn a_write_that_fewer_nodes_have_than_had_it_is_found_though_they_hold_the_session() {
        let mut copies = copies();
        copies.observe(Duration::ZERO, holdings(&[6, 6, 5, 5]));
        copies.observe(Duration::ZERO, holdings(&[0, 6, 5, 5]));
        assert_eq!(found(copies).len(), 1);
    }

    #[test]
    fn what_was_lost_with_a_memory_is_not_missed_and_all_else_is() {
        let mut copies = copies();
        copies.observe(Duration::ZERO, holdings(&[6, 6, 5, 0]));
        copies.lose(2);
        copies.observe(Duration::ZERO, holdings(&[6, 6, 0, 0]));
        copies.lose(1);
        copies.observe(Duration::ZERO, holdings(&[6, 0, 0, 0]));
        copies.observe(Duration::ZERO, holdings(&[0, 0, 0, 0]));
        assert_eq!(found(copies).len(), 1);
    }
}
