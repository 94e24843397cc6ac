//! What the tasks of a client process do next, and what they learn: the same under turmoil and in the plain
//! world, whoever carries the requests.

use std::collections::BTreeMap;

use annulus_client::{Value, Version};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::history::{Action, Outcome, content};

/// A task that starts, reads, changes and ends sessions.
#[derive(Clone, Debug, Default)]
pub struct Habit {
    /// The births this task has seen last.
    births: BTreeMap<usize, Version>,
}

/// A task that does conditional operations on a few keys.
#[derive(Clone, Debug, Default)]
pub struct HotHabit {
    /// By key: birth, if it knows it, and last write of the session it has seen.
    seen: BTreeMap<usize, (Option<Version>, Version)>,
}

/// An operation that was drawn, but for the number that its value is to carry.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The key, by its number.
    pub key: usize,
    choice: u32,
    length: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Ordinary { birth: Option<Version>, field: usize, also: usize, deletes: bool },
    Hot { seen: Option<(Option<Version>, Version)> },
}

/// The choice that is a read.
const READ: u32 = 20;

const FIELDS: [&[u8]; 4] = [b"user", b"cart", b"csrf", b"seen"];

impl Habit {
    /// The next operation, on one of so many keys. `is_written` says whether a key is still written.
    pub fn draw(
        &self,
        rng: &mut StdRng,
        keys: usize,
        is_written: impl FnOnce(usize) -> bool,
    ) -> Drawn {
        let key = rng.random_range(0..keys);
        let known = self.birth(key);
        let birth = known.filter(|_| rng.random_range(0..10) < 8);
        let is_written = is_written(key);
        let choice = rng.random_range(0..100);
        let choice = if is_written { choice } else { READ };
        let length = match rng.random_range(0..10) {
            0 => rng.random_range(600..4_000),
            _ => rng.random_range(8..200),
        };
        let field = rng.random_range(0..FIELDS.len());
        let also = rng.random_range(0..FIELDS.len());
        let deletes = rng.random_range(0..6) == 0;
        Drawn { key, choice, length, kind: Kind::Ordinary { birth, field, also, deletes } }
    }

    /// The birth it has seen last under a key.
    #[must_use]
    pub fn birth(&self, key: usize) -> Option<Version> {
        self.births.get(&key).copied()
    }

    /// Takes in what it was told of a key.
    pub fn learn(&mut self, key: usize, outcome: &Outcome) {
        match outcome {
            Outcome::Acknowledged { birth, .. } => {
                self.births.insert(key, *birth);
            }
            Outcome::Read { session, .. } => {
                self.births.insert(key, session.birth);
            }
            Outcome::Ended | Outcome::Absent => {
                self.births.remove(&key);
            }
            _ => {}
        }
    }
}

impl HotHabit {
    /// The next operation, on one of `hot_keys` keys that come after `keys` others.
    pub fn draw(&self, rng: &mut StdRng, keys: usize, hot_keys: usize) -> Drawn {
        let key = keys + rng.random_range(0..hot_keys);
        let seen = self.seen.get(&key).copied();
        let length = rng.random_range(8..200);
        let choice = rng.random_range(0..100);
        Drawn { key, choice, length, kind: Kind::Hot { seen } }
    }

    /// Takes in what it was told of a key.
    pub fn learn(&mut self, key: usize, outcome: &Outcome) {
        match outcome {
            Outcome::Acknowledged { birth, version } => {
                self.seen.insert(key, (Some(*birth), *version));
            }
            Outcome::Read { session, .. } => {
                self.seen.insert(key, (Some(session.birth), session.version));
            }
            Outcome::Conflict { version } => {
                self.seen.insert(key, (None, *version));
            }
            Outcome::Ended | Outcome::Absent => {
                self.seen.remove(&key);
            }
            _ => {}
        }
    }
}

impl Drawn {
    /// The operation, under this number.
    #[must_use]
    pub fn action(&self, id: usize) -> Action {
        let (choice, length) = (self.choice, self.length);
        match self.kind {
            Kind::Ordinary { birth, field, also, deletes } => {
                let is_bytes = self.key.is_multiple_of(3);
                let value = match is_bytes {
                    true => Value::Bytes(content(id, length)),
                    false => {
                        let field = |name: &&[u8]| (name.to_vec(), content(id, length));
                        Value::Map(FIELDS[..3].iter().map(field).collect())
                    }
                };
                match choice {
                    0..15 => Action::Start(value),
                    15..55 => Action::Get,
                    55..60 => Action::Touch { birth },
                    60..70 => Action::End { birth },
                    70..76 => Action::Replace { birth, value },
                    _ if is_bytes => Action::Replace { birth, value },
                    _ => {
                        let mut set =
                            BTreeMap::from([(FIELDS[field].to_vec(), content(id, length))]);
                        let mut delete = Vec::new();
                        if also != field && deletes {
                            delete.push(FIELDS[also].to_vec());
                        } else if also != field {
                            set.insert(FIELDS[also].to_vec(), content(id, 12));
                        }
                        Action::SetFields { birth, set, delete }
                    }
                }
            }
            Kind::Hot { seen } => {
                let value = Value::Bytes(content(id, length));
                match (choice, seen) {
                    (0..60, Some((_, version))) => Action::CompareAndSet { version, value },
                    (60..66, Some((_, version))) => Action::EndIf { version },
                    (66..70, Some((Some(birth), _))) => Action::End { birth: Some(birth) },
                    (70..80, _) => Action::Get,
                    _ => Action::StartIfAbsent(value),
                }
            }
        }
    }
}
