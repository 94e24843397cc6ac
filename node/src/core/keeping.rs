//! Hints on their way: to homes, no faster than they may go, and to disk, beside the requests' way.

use std::time::Duration;

use annulus_proto::{Key, NodeId};

use super::Core;
use super::io::{Now, Output};
use super::kept::{Record, Space};
use super::pace::Bucket;

/// How fast hints go to one home, those of all tables together.
#[derive(Debug)]
pub(super) struct Pace {
    bucket: Bucket,
    /// The table that is next.
    table: usize,
}

/// What is on its way to disk.
#[derive(Debug, Default)]
pub(super) struct Saving {
    tickets: u64,
    under_way: Option<u64>,
    /// Whether the last batch did not get there.
    pub(super) is_failing: bool,
    again_at: Duration,
}

/// How many hints per home and table may be under way.
const HINTS_UNDER_WAY_MAX: usize = 64;
/// While more requests wait for homes than this, hints go on with each tick alone.
const FOREGROUND_BUSY: usize = 256;
/// What a hint's delivery takes beside key and value, in bytes: as a guess.
const DELIVERY_OVERHEAD_BYTES: usize = 128;
/// How many hints of each table are looked at for their age with each tick.
const AGES_STEP: usize = 1_024;
/// How long after a failure the disk is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(1);

impl Core {
    /// Takes back what an earlier run kept.
    pub(super) fn restore(&mut self, now: Now, kept: &[Record]) {
        let now_ms = self.time.now_ms(now);
        for record in kept {
            let Some(table) = self.tables.get_mut(record.name.table) else { continue };
            match record.name.space {
                Space::Hints if table.hints.restore(record, now_ms) => {
                    self.counters.add("hints_restored");
                }
                Space::Hints => self.counters.add("hints_not_restored"),
                Space::Epochs => {}
            }
        }
    }

    pub(super) fn hint(&mut self, table: usize, home: NodeId, key: &Key) {
        let Some(member) = self.standing.view.get(home) else { return };
        if !member.status.is_active() {
            // What a dead node misses it gets by comparison when it comes back.
            return self.forget_hints(table, home);
        }
        let now_ms = self.time.latest_ms();
        if self.tables[table].hints.add(home, key, now_ms) {
            self.counters.add("hints_kept");
        } else {
            self.counters.add("hints_overflowed");
        }
    }

    pub(super) fn forget_hints(&mut self, table: usize, home: NodeId) {
        let forgotten = self.tables[table].hints.forget(home);
        self.counters.add_many("hints_forgotten", forgotten);
    }

    /// Sends what may be sent now, and begins the comparisons that stand in for lost hints.
    pub(super) fn deliver_hints(&mut self, now: Now) {
        let mut homes: Vec<NodeId> =
            self.tables.iter().flat_map(|table| table.hints.homes()).collect();
        homes.sort_unstable();
        homes.dedup();
        self.paces.retain(|home, _| homes.binary_search(home).is_ok());
        for home in homes {
            if self.is_in_contact(now, home) {
                self.deliver_hints_to(now, home);
            } else {
                self.ping_if_nobody_does(now, home);
            }
        }
        let now_ms = self.time.now_ms(now);
        for table in 0..self.tables.len() {
            let old = self.tables[table].hints.drop_old(now_ms, AGES_STEP);
            self.counters.add_many("hints_too_old", old);
            let marked: Vec<NodeId> = self.tables[table].hints.marked().collect();
            for home in marked {
                if self.standing.view.get(home).is_none() {
                    // Whoever is met for the first time is compared with as a whole.
                    self.tables[table].hints.take_marks(home);
                } else if self.is_in_contact(now, home) {
                    self.sync_marked(now, table, home);
                }
            }
        }
    }

    /// A home has taken one: it may have the next, unless requests need the way.
    pub(super) fn go_on_with_hints(&mut self, now: Now, home: NodeId) {
        if self.pending.len() < FOREGROUND_BUSY {
            self.deliver_hints_to(now, home);
        }
    }

    fn deliver_hints_to(&mut self, now: Now, home: NodeId) {
        let rate = self.settings.hints_rate.get() / self.cores as u64;
        let fresh = Pace { bucket: Bucket::new(now.monotonic, rate), table: 0 };
        let mut pace = self.paces.remove(&home).unwrap_or(fresh);
        let now_ms = self.time.now_ms(now);
        let mut without = 0;
        while pace.bucket.may_go(now.monotonic, rate) && without < self.tables.len() {
            let table = pace.table;
            pace.table = (table + 1) % self.tables.len();
            let Some(key) = self.tables[table].hints.next(home, HINTS_UNDER_WAY_MAX) else {
                without += 1;
                continue;
            };
            without = 0;
            let Some(entry) = self.known_of(table, &key, now_ms) else {
                self.tables[table].hints.delivered(home, &key);
                continue;
            };
            let size = entry.body.as_ref().map_or(0, annulus_proto::Body::size);
            let size = size + key.as_bytes().len() + DELIVERY_OVERHEAD_BYTES;
            pace.bucket.take(size);
            self.offer(now, table, home, key, entry, true);
        }
        self.paces.insert(home, pace);
    }

    /// Sends to disk what is not there yet.
    pub(super) fn save(&mut self, now: Now) {
        if self.saving.under_way.is_some() || self.saving.again_at > now.monotonic {
            return;
        }
        let tables = self.tables.iter_mut().enumerate();
        let unsaved = tables.flat_map(|(place, table)| table.hints.unsaved(place));
        let changes: Vec<_> = unsaved.collect();
        if changes.is_empty() {
            return;
        }
        let ticket = self.saving.next_ticket();
        self.saving.under_way = Some(ticket);
        self.outputs.push_back(Output::Persist { ticket, changes });
    }

    /// A batch is on disk, or it is not known to be.
    pub(super) fn on_persisted(&mut self, now: Now, ticket: u64, is_on_disk: bool) {
        if self.on_seats_persisted(now, ticket, is_on_disk) {
            return;
        }
        if self.saving.under_way.take_if(|open| *open == ticket).is_none() {
            return;
        }
        self.saving.is_failing = !is_on_disk;
        if !is_on_disk {
            self.counters.add("disk_failures");
            self.saving.again_at = now.monotonic + SAVE_RETRY;
        }
        for table in &mut self.tables {
            if is_on_disk {
                self.counters.add_many("hints_saved", table.hints.saved());
            } else {
                table.hints.not_saved();
            }
        }
    }

    /// Whether all that is to be kept is on disk, as far as the disk takes it.
    pub(super) fn is_saved(&self) -> bool {
        self.saving.is_failing || self.tables.iter().all(|table| table.hints.is_saved())
    }
}

impl Saving {
    /// The number of the next batch.
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}
