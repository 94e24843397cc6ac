//! Which keys a client knows to have no session, so that a SET of it is no late save.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use twox_hash::XxHash3_64;

/// The keys, as hashes, of which a connection was told that there is no session, or whose session it ended itself: at most
/// [`KEYS_MAX`], the oldest ones forgotten first. To forget one errs on the safe side: a SET is then refused that could have
/// been done, and another look at the key settles it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Drawn for each connection: nobody can choose keys that are taken for each other.
    seed: u64,
    /// `None` = nothing; most connections know nothing most of the time.
    known: Option<Box<Known>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    order: VecDeque<u64>,
    keys: BTreeSet<u64>,
    /// Tables all of whose sessions it ended, by their numbers, each with the keys under which it has met one since: at most
    /// [`KEYS_MAX`], beyond which it knows nothing of the rest any more.
    emptied: BTreeMap<usize, BTreeSet<u64>>,
}

/// 32 KiB or so, once they are there.
const KEYS_MAX: usize = 1_024;

impl Told {
    /// Of no key.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, known: None }
    }

    /// The client knows that there is none.
    pub(super) fn note(&mut self, table: usize, key: &[u8]) {
        let hash = self.hash(table, key);
        let known = self.known.get_or_insert_default();
        if let Some(met) = known.emptied.get_mut(&table) {
            met.remove(&hash);
        }
        if !known.keys.insert(hash) {
            return;
        }
        known.order.push_back(hash);
        if known.order.len() > KEYS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.keys.remove(&oldest);
        }
    }

    /// The client knows that there is none in a table.
    pub(super) fn note_all(&mut self, table: usize) {
        self.known.get_or_insert_default().emptied.insert(table, BTreeSet::new());
    }

    /// There is one again, as far as the client knows.
    pub(super) fn forget(&mut self, table: usize, key: &[u8]) {
        if self.known.is_none() {
            return;
        }
        let hash = self.hash(table, key);
        let Some(known) = &mut self.known else { return };
        if known.keys.remove(&hash) {
            known.order.retain(|other| *other != hash);
        }
        if let Some(met) = known.emptied.get_mut(&table) {
            met.insert(hash);
            if met.len() > KEYS_MAX {
                known.emptied.remove(&table);
            }
        }
        if known.keys.is_empty() && known.emptied.is_empty() {
            self.known = None;
        }
    }

    /// Somebody else has the connection now.
    pub(super) fn clear(&mut self) {
        self.known = None;
    }

    /// Whether the client knows that there is none.
    pub(super) fn knows(&self, table: usize, key: &[u8]) -> bool {
        let Some(known) = &self.known else { return false };
        let hash = self.hash(table, key);
        let is_of_all = || known.emptied.get(&table).is_some_and(|met| !met.contains(&hash));
        known.keys.contains(&hash) || is_of_all()
    }

    fn hash(&self, table: usize, key: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed.wrapping_add(table as u64), key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_until_it_is_forgotten_in_its_table_alone() {
        let mut told = Told::new(7);
        told.note(0, b"a");
        told.note(0, b"a");
        assert!(told.knows(0, b"a") && !told.knows(1, b"a") && !told.knows(0, b"b"));
        told.forget(1, b"a");
        assert!(told.knows(0, b"a"));
        told.forget(0, b"a");
        assert!(!told.knows(0, b"a"));
    }

    #[test]
    fn so_many_are_known_and_the_oldest_ones_go() {
        let mut told = Told::new(7);
        let key = |number: usize| number.to_string().into_bytes();
        for number in 0..=KEYS_MAX {
            told.note(0, &key(number));
        }
        assert!(!told.knows(0, &key(0)));
        assert!((1..=KEYS_MAX).all(|number| told.knows(0, &key(number))));
        // What was forgotten takes no place.
        for number in 2..=KEYS_MAX {
            told.forget(0, &key(number));
            told.note(0, &key(number));
        }
        assert!(told.knows(0, &key(1)));
        let known = told.known.as_ref().expect("it knows of some");
        assert_eq!((known.order.len(), known.keys.len()), (KEYS_MAX, KEYS_MAX));
    }

    #[test]
    fn of_an_emptied_table_all_is_known_but_what_was_met_since() {
        let mut told = Told::new(7);
        told.note_all(1);
        assert!(told.knows(1, b"a") && told.knows(1, b"b") && !told.knows(0, b"a"));
        told.forget(1, b"a");
        assert!(!told.knows(1, b"a") && told.knows(1, b"b"));
        told.note(1, b"a");
        assert!(told.knows(1, b"a"));
        for number in 0..=KEYS_MAX {
            assert!(told.knows(1, b"never met"));
            told.forget(1, &number.to_le_bytes());
        }
        // It would have to remember too much of it.
        assert!(!told.knows(1, b"never met") && told.knows(1, b"a"));
        told.note_all(1);
        told.clear();
        assert!(!told.knows(1, b"a"));
    }
}
