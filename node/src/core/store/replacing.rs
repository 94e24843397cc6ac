//! Which of the sessions that are here were begun in place of others that are to end.

use std::collections::BTreeMap;

use annulus_proto::{Entry, Key, Replaced};

#[derive(Debug, Default)]
pub(super) struct Replacing {
    /// By the words that stand for their keys.
    sessions: BTreeMap<u64, (Key, Replaced)>,
    /// The word with which the next turn begins.
    turn: u64,
}

/// More than so many at a time are looked after once the node has read its table again.
const REPLACING_MAX: usize = 65_536;

impl Replacing {
    /// Notes what an entry says. One that has ended says nothing: what it replaced is to end all the same.
    pub(super) fn note(&mut self, key: &Key, entry: &Entry) {
        match entry.replaces() {
            Some(replaced) if self.sessions.len() < REPLACING_MAX => {
                self.sessions.insert(key.word(), (key.clone(), replaced));
            }
            Some(_) => {}
            None if self.sessions.is_empty() || entry.is_ended() => {}
            None => self.forget(key),
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        if self.sessions.get(&key.word()).is_some_and(|(known, _)| known == key) {
            self.sessions.remove(&key.word());
        }
    }

    pub(super) fn of(&self, word: u64) -> Option<(&Key, Replaced)> {
        self.sessions.get(&word).map(|(key, replaced)| (key, *replaced))
    }

    /// The next ones, at most so many, so that each has its turn.
    pub(super) fn take_turns(&mut self, count: usize) -> Vec<(Key, Replaced)> {
        let turns: Vec<_> = self.sessions.range(self.turn..).take(count).collect();
        let last = turns.last().filter(|_| turns.len() == count);
        let next = last.map_or(0, |(word, _)| word.saturating_add(1));
        let turns =
            turns.into_iter().map(|(_, (key, replaced))| (key.clone(), *replaced)).collect();
        self.turn = next;
        turns
    }
}
