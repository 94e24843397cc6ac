//! When entries expire: lists of records by the time of their deadline, so that finding the expired costs their number.
//!
//! A timing wheel (Varghese and Lauck, 1987, scheme 6) that is lazy: a deadline that moves out leaves its record where
//! it is, and the record is filed anew when its list's time is over. A touch thus costs nothing here.
//!
//! What is over and stays for a while waits in lists of its own, by when it is to be looked at again: whoever needs room finds
//! it there before that.

use crate::writer::EXPIRY_LATENESS_MS;

/// The lists. Where a record is in them is in its [`Filed`], which the caller keeps.
pub(super) struct Wheel {
    /// As many as were needed so far, of [`LISTS`] after [`WAITING`].
    lists: Vec<Vec<u32>>,
    /// The number of the earliest list that may hold something: a time in units of [`WIDTH_MS`].
    at: u64,
    /// The same of what waits.
    waits_at: u64,
    /// Whether [`due`](Self::due) was told the time.
    knows_time: bool,
}

/// Where a record is filed.
#[derive(Clone, Copy)]
pub(super) struct Filed {
    pub(super) list: u16,
    pub(super) at: u32,
}

/// What keeps each record's [`Filed`].
pub(super) trait Links {
    fn filed(&self, record: u32) -> Filed;
    fn set_filed(&mut self, record: u32, filed: Filed);
}

/// The span of one list.
const WIDTH_MS: u64 = EXPIRY_LATENESS_MS;
/// Lists: deadlines further out than 70 minutes wait in the last one and are filed anew when its time is over.
const LISTS: u64 = 1 << 12;
/// How far back a time may be without meaning that the clock was set back, in lists: some ask for what expired a while
/// ago, and others for what expires now.
const CALLERS_APART: u64 = 1 << 7;
/// Lists of what waits, which come first: what would wait longer than two minutes does not.
const WAITING: u64 = 1 << 7;
const NOT_FILED: u16 = u16::MAX;

const _: () = assert!(WAITING + LISTS < NOT_FILED as u64);

impl Filed {
    pub(super) const NOT: Self = Self { list: NOT_FILED, at: 0 };
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { lists: Vec::new(), at: 0, waits_at: 0, knows_time: false }
    }

    /// Files many records at once into an empty wheel, which begins with the earliest of their deadlines.
    pub(super) fn file_all(&mut self, links: &mut impl Links, deadlines: &[(u32, u64)]) {
        let earliest = deadlines.iter().map(|(_, deadline)| deadline / WIDTH_MS).min();
        self.at = earliest.unwrap_or(0);
        for &(record, deadline) in deadlines {
            self.push(links, record, self.list_of(deadline));
        }
    }

    /// Files a record under a deadline (0 = never), whether it was filed before or not.
    pub(super) fn file(&mut self, links: &mut impl Links, record: u32, deadline: u64) {
        if deadline == 0 {
            return self.unfile(links, record);
        }
        if !self.knows_time {
            // `file_all` found no earlier deadline, but this may still lie ahead.
            self.at = self.at.min(deadline / WIDTH_MS);
        }
        let (old, list) = (links.filed(record).list, self.list_of(deadline));
        // Lazily: a list whose time comes earlier will do.
        let is_filed = old != NOT_FILED && u64::from(old) >= WAITING;
        if !is_filed || self.distance(list) < self.distance(old) {
            self.unfile(links, record);
            self.push(links, record, list);
        }
    }

    /// Files a record under a deadline in place of its predecessor, which is filed no longer.
    pub(super) fn replace(&mut self, links: &mut impl Links, old: u32, new: u32, deadline: u64) {
        let filed = links.filed(old);
        links.set_filed(new, filed);
        if filed.list != NOT_FILED {
            self.lists[usize::from(filed.list)][filed.at as usize] = new;
            links.set_filed(old, Filed::NOT);
        }
        self.file(links, new, deadline);
    }

    /// The word that says that a record is filed there; `None` if it is filed nowhere.
    pub(super) fn place(&self, filed: Filed) -> Option<&u32> {
        self.lists.get(usize::from(filed.list))?.get(filed.at as usize)
    }

    pub(super) fn unfile(&mut self, links: &mut impl Links, record: u32) {
        let Filed { list, at } = links.filed(record);
        if list == NOT_FILED {
            return;
        }
        let records = &mut self.lists[usize::from(list)];
        records.swap_remove(at as usize);
        if let Some(&moved) = records.get(at as usize) {
            links.set_filed(moved, Filed { list, at });
        }
        links.set_filed(record, Filed::NOT);
    }

    /// A record of a list whose time is over by `now_ms`. The caller removes it, or files it
    /// [`later`](Self::file_later), and asks again.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<u32> {
        let now = now_ms / WIDTH_MS;
        self.knows_time = true;
        let lists = &mut self.lists;
        due_of(lists, (0, WAITING), &mut self.waits_at, now)
            .or_else(|| due_of(lists, (WAITING, LISTS), &mut self.at, now))
    }

    /// A record that waits, whether or not its time has come, of those that are to be looked at next.
    pub(super) fn waiting(&self) -> Option<u32> {
        let mut lists = (self.waits_at..self.waits_at + WAITING).map(|time| time % WAITING);
        lists.find_map(|list| self.lists.get(list as usize)?.last().copied())
    }

    /// Has a record that was due wait until then.
    pub(super) fn wait(&mut self, links: &mut impl Links, record: u32, until_ms: u64) {
        self.unfile(links, record);
        let time = (until_ms / WIDTH_MS).clamp(self.waits_at, self.waits_at + WAITING - 1);
        self.push(links, record, (time % WAITING) as u16);
    }

    /// Files a record that was due anew: under its deadline, or if that is over too, to be looked at once more soon.
    pub(super) fn file_later(
        &mut self,
        links: &mut impl Links,
        record: u32,
        deadline: u64,
        now_ms: u64,
    ) {
        self.unfile(links, record);
        if deadline != 0 {
            // Never into a list that is due already, or `due` would not end.
            let time = if deadline > now_ms { deadline } else { now_ms.saturating_add(WIDTH_MS) };
            self.push(links, record, self.list_of(time));
        }
    }

    fn list_of(&self, deadline: u64) -> u16 {
        let number = (deadline / WIDTH_MS).clamp(self.at, self.at + LISTS - 1);
        (WAITING + number % LISTS) as u16
    }

    /// How far a list is from the earliest one.
    fn distance(&self, list: u16) -> u64 {
        (u64::from(list) - WAITING + LISTS - self.at % LISTS) % LISTS
    }

    fn push(&mut self, links: &mut impl Links, record: u32, list: u16) {
        if usize::from(list) >= self.lists.len() {
            self.lists.resize_with(usize::from(list) + 1, Vec::new);
        }
        let records = &mut self.lists[usize::from(list)];
        links.set_filed(record, Filed { list, at: records.len() as u32 });
        records.push(record);
    }
}

/// A record of a list whose time is over: of so many lists, from the first on, the earliest of which is `at`.
fn due_of(
    lists: &mut [Vec<u32>],
    (first, count): (u64, u64),
    at: &mut u64,
    now: u64,
) -> Option<u32> {
    if now >= *at + count {
        // A long time has passed, or this is the first time at all: every list is due.
        *at = now - count;
    } else if now + CALLERS_APART < *at {
        // The clock was set back. What is filed until it is here again would all wait for that.
        *at = now.saturating_sub(count);
    }
    // The clock was set back, or `file_all` found no earlier deadline. A list that stands for two times now is
    // looked through at the earlier one, and what is in it for the later one is filed anew.
    *at = (*at).min(now);
    while *at < now {
        if let Some(records) = lists.get_mut((first + *at % count) as usize) {
            if let Some(&record) = records.last() {
                return Some(record);
            }
            // The next to be filed there may be few.
            *records = Vec::new();
        }
        *at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Links for Vec<Filed> {
        fn filed(&self, record: u32) -> Filed {
            self[record as usize]
        }
        fn set_filed(&mut self, record: u32, filed: Filed) {
            self[record as usize] = filed;
        }
    }

    const NONE_DUE: [u32; 0] = [];

    fn all_due(wheel: &mut Wheel, links: &mut Vec<Filed>, now_ms: u64) -> Vec<u32> {
        let mut found = Vec::new();
        while let Some(record) = wheel.due(now_ms) {
            wheel.unfile(links, record);
            found.push(record);
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn each_record_is_due_within_a_width_after_its_deadline_and_never_before() {
        let now = 1_700_000_000_000;
        let (mut wheel, mut links) = (Wheel::new(), vec![Filed::NOT; 4]);
        assert_eq!(wheel.due(now), None);
        for (record, after) in [(0, 10), (1, 5_000), (2, 60_000), (3, 0)] {
            let deadline = if after == 0 { 0 } else { now + after };
            wheel.file(&mut links, record, deadline);
        }
        assert_eq!(all_due(&mut wheel, &mut links, now + 9), NONE_DUE);
        assert_eq!(all_due(&mut wheel, &mut links, now + 10 + WIDTH_MS), [0]);
        assert_eq!(all_due(&mut wheel, &mut links, now + 4_999), NONE_DUE);
        assert_eq!(all_due(&mut wheel, &mut links, now + 5_000 + WIDTH_MS), [1]);
        assert_eq!(all_due(&mut wheel, &mut links, now + 60_000 + WIDTH_MS), [2]);
        assert_eq!(all_due(&mut wheel, &mut links, now + 1_000_000_000), NONE_DUE);
    }

    #[test]
    fn records_filed_at_once_are_due_like_others_whatever_the_clock_says_then() {
        let now = 1_700_000_000_000;
        for behind in [0, 10 * 3_600_000] {
            let (mut wheel, mut links) = (Wheel::new(), vec![Filed::NOT; 4]);
            let deadlines = [(0, now + 5_000), (1, now + 10_000_000), (2, now + 40_000_000)];
            wheel.file_all(&mut links, &deadlines);
            let mut at = now - behind;
            wheel.due(at);
            wheel.file(&mut links, 3, at + 2_000);
            let mut seen = Vec::new();
            while at < now + 41_000_000 {
                at += 500;
                while let Some(record) = wheel.due(at) {
                    let deadline = match record {
                        3 => now - behind + 2_000,
                        record => deadlines[record as usize].1,
                    };
                    if deadline > at {
                        wheel.file_later(&mut links, record, deadline, at);
                        continue;
                    }
                    assert!(at < deadline + WIDTH_MS + 500, "{record} late");
                    wheel.unfile(&mut links, record);
                    seen.push(record);
                }
            }
            assert_eq!(seen, [3, 0, 1, 2]);
        }
    }

    #[test]
    fn random_filing_agrees_with_a_map_of_deadlines() {
        let mut random = 1u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut wheel, mut links) = (Wheel::new(), vec![Filed::NOT; 50]);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = 1_000_000;
        for _ in 0..20_000 {
            let record = draw(50) as u32;
            match draw(5) {
                4 => {
                    let (old, new) = (record, (record + 1) % 50);
                    wheel.unfile(&mut links, new);
                    let deadline = now + draw(2 * LISTS * WIDTH_MS);
                    wheel.replace(&mut links, old, new, deadline);
                    model.remove(&old);
                    model.insert(new, deadline);
                }
                0 => {
                    wheel.unfile(&mut links, record);
                    model.remove(&record);
                }
                1 | 2 => {
                    // Up to twice the horizon.
                    let deadline = now + draw(2 * LISTS * WIDTH_MS);
                    wheel.file(&mut links, record, deadline);
                    model.insert(record, deadline);
                }
                _ => {
                    now += draw(LISTS * WIDTH_MS / 8);
                    while let Some(record) = wheel.due(now) {
                        let deadline = model[&record];
                        if deadline <= now {
                            wheel.unfile(&mut links, record);
                            model.remove(&record);
                        } else {
                            wheel.file_later(&mut links, record, deadline, now);
                        }
                    }
                    let late = model.values().filter(|&&deadline| deadline + WIDTH_MS <= now);
                    assert_eq!(late.count(), 0);
                }
            }
        }
    }

    #[test]
    fn what_waits_is_due_when_that_was_said_and_is_found_before_by_who_asks_for_it() {
        let now = 1_700_000_000_000;
        let (mut wheel, mut links) = (Wheel::new(), vec![Filed::NOT; 4]);
        assert_eq!((wheel.due(now), wheel.waiting()), (None, None));
        for (record, until) in [(0, now + 60_000), (1, now + 5_000), (2, now), (3, now + 9_000)] {
            wheel.file(&mut links, record, now);
            wheel.wait(&mut links, record, until);
        }
        // What is used again is filed under its deadline.
        wheel.file(&mut links, 3, now + 600_000);
        assert_eq!((wheel.due(now), wheel.waiting()), (None, Some(2)));
        assert_eq!(all_due(&mut wheel, &mut links, now + WIDTH_MS), [2]);
        assert_eq!((wheel.due(now + 4_999), wheel.waiting()), (None, Some(1)));
        assert_eq!(all_due(&mut wheel, &mut links, now + 5_000 + WIDTH_MS), [1]);
        // A record that moves waits on, and one that never expires does not.
        links.push(Filed::NOT);
        wheel.replace(&mut links, 0, 4, now);
        wheel.wait(&mut links, 4, now + 60_000);
        assert_eq!((wheel.due(now + 59_999), wheel.waiting()), (None, Some(4)));
        wheel.file(&mut links, 4, 0);
        assert_eq!(wheel.waiting(), None);
        assert_eq!(all_due(&mut wheel, &mut links, now + 600_000 + WIDTH_MS), [3]);
    }

    #[test]
    fn clock_that_was_set_back_keeps_nothing_from_being_due() {
        let now = 1_700_000_000_000;
        let day = 86_400_000;
        let (mut wheel, mut links) = (Wheel::new(), vec![Filed::NOT; 2]);
        wheel.file(&mut links, 0, now + 5_000);
        assert_eq!(wheel.due(now + day), Some(0));
        wheel.file_later(&mut links, 0, now + day + 5_000, now + day);
        assert_eq!(wheel.due(now + day), None);
        // The clock was a day ahead.
        wheel.file(&mut links, 1, now + 10_000);
        let mut found = Vec::new();
        for time in (now..now + 20_000).step_by(1_000) {
            while let Some(record) = wheel.due(time) {
                let deadline = if record == 1 { now + 10_000 } else { now + day + 5_000 };
                if deadline <= time {
                    wheel.unfile(&mut links, record);
                    found.push((record, time));
                } else {
                    wheel.file_later(&mut links, record, deadline, time);
                }
            }
        }
        assert_eq!(found, [(1, now + 11_000)]);
    }
}
