//! Which of the sessions that are here were begun in place of others that are to end.

use std::collections::BTreeMap;

use annulus_proto::{Entry, Key, Replaced};

#[derive(Debug, Default)]
pub(super) struct Replacing {
    /// By the words that stand for their keys: the key, what it replaced, and when it began, in hybrid milliseconds.
    sessions: BTreeMap<u64, (Key, Replaced, u64)>,
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
                let session = (key.clone(), replaced, entry.birth.hlc.ms());
                self.sessions.insert(key.word(), session);
            }
            Some(_) => {}
            None if self.sessions.is_empty() || entry.is_ended() => {}
            None => self.forget(key),
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        if self.sessions.get(&key.word()).is_some_and(|(known, ..)| known == key) {
            self.sessions.remove(&key.word());
        }
    }

    pub(super) fn of(&self, word: u64) -> Option<(&Key, Replaced)> {
        self.sessions.get(&word).map(|(key, replaced, _)| (key, *replaced))
    }

    /// The next ones that began by then, at most so many, so that each has its turn, and when they began.
    pub(super) fn take_turns(&mut self, by_ms: u64, count: usize) -> Vec<(Key, Replaced, u64)> {
        let is_due = |(_, (.., began_ms)): &(&u64, &(Key, Replaced, u64))| *began_ms <= by_ms;
        let due: Vec<_> = self.sessions.range(self.turn..).filter(is_due).take(count).collect();
        let last = due.last().filter(|_| due.len() == count);
        let next = last.map_or(0, |(word, _)| word.saturating_add(1));
        let due = due.into_iter().map(|(_, session)| session.clone()).collect();
        self.turn = next;
        due
    }
}
