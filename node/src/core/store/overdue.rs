//! Sessions that are over and that somebody is to have before they are dropped, in tables that say so.

use annulus_proto::{Entry, Key, Version, record};
use annulus_shm::ExpiredItem;

use super::Store;

/// A session that is over, and here still.
#[derive(Debug)]
pub(in crate::core) struct Overdue {
    pub(in crate::core) key: Key,
    pub(in crate::core) birth: Version,
    pub(in crate::core) version: Version,
    /// When its time was over.
    pub(in crate::core) deadline: u64,
}

/// What was found of that.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    overdue: Vec<Overdue>,
    /// What was dropped to make room, each with when its time was over.
    dropped: Vec<(Key, Entry, u64)>,
}

/// How many go at a time to make room.
pub(super) const DROPPED_STEP: usize = 16;

impl Leaving {
    /// Notes something whose time is over. Returns whether it is a session, and is kept.
    pub(super) fn keep(&mut self, item: ExpiredItem<'_>) -> bool {
        let Some((key, view)) = session(item) else { return false };
        let (birth, version) = (view.birth, view.version);
        self.overdue.push(Overdue { key, birth, version, deadline: item.deadline });
        true
    }

    /// Notes something whose time is over and that goes to make room. Returns whether it is a session.
    pub(super) fn let_go(&mut self, item: ExpiredItem<'_>) -> bool {
        if let Some((key, view)) = session(item)
            && let Ok(entry) = view.entry(item.mark)
        {
            self.dropped.push((key, entry, item.deadline));
            return true;
        }
        false
    }
}

impl Store {
    /// The sessions that are over and were found since this was last asked.
    pub(in crate::core) fn take_overdue(&mut self) -> Vec<Overdue> {
        std::mem::take(&mut self.leaving.overdue)
    }

    /// The sessions that were over, and dropped to make room, since this was last asked.
    pub(in crate::core) fn take_dropped(&mut self) -> Vec<(Key, Entry, u64)> {
        std::mem::take(&mut self.leaving.dropped)
    }

    /// The copy under a key, also past its last day.
    pub(in crate::core) fn whatever_is(&mut self, key: &Key) -> Option<Entry> {
        let found = self.writer.get(key.as_bytes(), &mut self.buffer)?;
        record::View::parse(&self.buffer).ok()?.entry(found.mark).ok()
    }

    /// The last day of this birth, in hybrid milliseconds; 0 = there is none.
    pub(in crate::core) fn last_day(&self, birth: Version) -> u64 {
        self.births.die_by(birth)
    }
}

/// A record, if it is of a session that is all here.
fn session(item: ExpiredItem<'_>) -> Option<(Key, record::View<'_>)> {
    let view = record::View::parse(item.value).ok()?;
    if view.ended || view.is_marker() {
        return None;
    }
    Some((Key::new(item.key).ok()?, view))
}
