//! Room in a full table whose policy is to drop the coolest sessions rather than to refuse new ones, and which none move
//! outward from ([`super::relief`]).
//!
//! A session is evicted by the primary of its slot, and by a write: a version later than the last that
//! says it expired long ago, with nothing left of its value. Every home drops it on that word as it drops
//! whatever has expired, so that none of them gives it back to another at the next comparison. A home
//! that did not hear of it may: then the session lives on. It was evicted, not ended.

use annulus_proto::message::Failure;
use annulus_proto::{Entry, Key, Value};
use annulus_shm::{Admission, EXPIRY_LATENESS_MS};

use super::Core;
use super::io::Now;
use super::overflow::DROPPED_AFTER_MS;
use super::settings::OnFull;
use super::store::EXPIRED_KEPT_MS;

/// Sessions that are looked at for the coolest ones. One in R of them has this node as its primary.
const SAMPLE: usize = 64;
/// How many go at a time, so that not every write has to look for room.
const BATCH: usize = 8;
/// One in so many of those that were looked at may go, the coolest: in a table for a few large sessions a whole
/// batch would be most of them. If this node is the primary of none of these, one other goes.
const COOLEST_PART: usize = 4;
/// A write that needs the records of more sessions has none evicted. Twice as many go for one at most: not all that go are
/// where they are of use, and others may stand in the reserve.
const EVICTED_MAX: usize = 1_024;
/// How long ago an evicted session says it expired: longer than expired ones are kept.
const EXPIRED_AGO_MS: u64 = EXPIRED_KEPT_MS + EXPIRY_LATENESS_MS;
/// The same where what expired is kept until somebody has it.
const OVERFLOWED_AGO_MS: u64 = DROPPED_AFTER_MS + EXPIRY_LATENESS_MS;

/// Whether an entry says no more than that its session was evicted: its deadline had passed for long when it was set,
/// which no client can ask for.
pub(super) fn is_eviction(entry: &Entry) -> bool {
    let lease = entry.body.as_ref().map(|body| body.lease);
    lease.is_some_and(|lease| {
        let set_ms = lease.version.hlc.ms();
        lease.expire_at != 0 && lease.expire_at.saturating_add(EXPIRED_AGO_MS) <= set_ms
    })
}

impl Core {
    /// Merges a copy into a table, as [`Store::merge`](super::store::Store::merge), and evicts others for it
    /// if the table is full and its policy says so.
    pub(super) fn merge(
        &mut self,
        now: Now,
        table: usize,
        key: &Key,
        offered: &Entry,
        admission: Admission,
    ) -> Result<Entry, Failure> {
        let now_ms = self.time.now_ms(now);
        if self.takes_as_extra(table, key, key.slot(), offered) {
            return self.merge_as_extra(now, table, key, offered);
        }
        let is_renewed = self.may_merge(table, key.slot(), offered)?;
        let mut left = None;
        loop {
            let store = &mut self.tables[table].store;
            let before = is_renewed.then(|| store.get(key, now_ms)).flatten();
            let merged = store.merge(key, offered, now_ms, admission);
            self.take_dropped(now, table);
            if is_renewed {
                if merged.as_ref().is_ok_and(|merged| before.as_ref() != Some(merged)) {
                    self.renew_leaving(now, table, key.slot());
                }
                return merged;
            }
            let is_full = matches!(merged, Err(Failure::TableFull { .. }));
            let on_full = self.tables[table].store.policy().on_full;
            if !is_full || on_full == OnFull::Refuse || self.makes_room(now, table) {
                return merged;
            }
            let store = &mut self.tables[table].store;
            let left = left.get_or_insert_with(|| {
                let (needed, for_others) = store.sessions_in_place_of(key, offered);
                let for_others = if admission == Admission::Reserve { 0 } else { for_others };
                match needed > EVICTED_MAX {
                    // None goes in vain.
                    true => 0,
                    false => (2 * needed + for_others + BATCH).min(2 * EVICTED_MAX),
                }
            });
            if *left == 0 {
                return merged;
            }
            match self.evict(now, table, key) {
                0 => return merged,
                evicted => *left = left.saturating_sub(evicted),
            }
        }
    }

    /// Evicts the coolest of some sessions that this node is the primary of, but not `except`. Returns
    /// how many went.
    fn evict(&mut self, now: Now, table: usize, except: &Key) -> usize {
        let now_ms = self.time.now_ms(now);
        let me = self.id();
        let mut sample = self.tables[table].store.sample(SAMPLE, now_ms);
        sample.sort_by_key(|(_, warmth)| *warmth);
        let coolest = sample.len() / COOLEST_PART;
        let mut evicted = 0;
        for (rank, (key, _)) in sample.into_iter().enumerate() {
            if evicted == BATCH || evicted > 0 && rank >= coolest {
                break;
            }
            let primary = self.ring_homes(table, key.slot()).first();
            if key == *except || primary.is_none_or(|home| *home != me) {
                continue;
            }
            let Some(mut entry) = self.tables[table].store.get(&key, now_ms) else { continue };
            if entry.is_ended() || entry.is_marker() {
                continue; // Tombstones are never evicted, and markers go by themselves.
            }
            let Ok(version) = self.time.stamp(now, entry.version.hlc) else { break };
            self.overflow_evicted(now, table, &key, &entry);
            let before = self.settings.tells_gone.then(|| entry.clone());
            entry.write_value(version, Value::Bytes(Vec::new()));
            let ago_ms = match self.tables[table].store.policy().overflow.is_kept() {
                true => OVERFLOWED_AGO_MS,
                false => EXPIRED_AGO_MS,
            };
            entry.write_lease(version, 0, now_ms.saturating_sub(ago_ms).max(1));
            if let Some(before) = before {
                self.tables[table].store.see_change(&key, &before, &entry, now_ms);
            }
            // Not stored here before it is dropped: there may be no record left even for that.
            let homes = self.homes(table, key.slot());
            let (extras, _) = self.extra_homes(table, key.slot(), &entry);
            for home in homes.into_iter().chain(extras).filter(|home| *home != me) {
                self.offer(now, table, home, key.clone(), entry.clone(), false);
            }
            self.tables[table].store.drop_entry(&key, now_ms);
            self.tell_further_out(now, table, &key, &entry);
            self.counters.add("entries_evicted");
            evicted += 1;
        }
        evicted
    }
}
