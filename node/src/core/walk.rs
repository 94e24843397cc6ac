//! The keys of live sessions that a core holds, in the order that all nodes have in common ([`Key::place`]).
//!
//! Nobody keeps a list for all. Whoever asks all nodes for what is between two places misses none, as long as fewer of them are
//! silent than hold what was acknowledged; the hub does so ([`super::hub`]). A place means the same to everybody, whoever
//! holds what: the next page may be asked of another node, after any change of the members.

use std::collections::BTreeSet;

use annulus_proto::limits::PAGE_ENTRIES_MAX;
use annulus_proto::message::{Message, WalkRequest, Walked, WalkedKey};
use annulus_proto::{Key, Slot};

use super::Core;
use super::io::{Caller, Now};
use super::replica::{reject, reject_table};
use super::route::slots_of;
use super::settings::majority;

/// Entries that are looked at for one page: about so many, and of a slot that has more, so many at a time.
const LOOKED_MAX: usize = 4_096;

impl Core {
    /// A page of the keys of live sessions of this core's slots, on all rings.
    pub(super) fn walk(&mut self, now: Now, caller: Caller, request: &WalkRequest) -> Message {
        if let Caller::Client(role) = caller
            && !super::may(role, false)
        {
            return reject(&format!("the role {role} may not see whose sessions there are"));
        }
        let Some(innermost) = self.table_of_clients(&request.table) else {
            return reject_table(&request.table);
        };
        let mut rings = vec![innermost];
        while let Some(outer) = rings.last().and_then(|table| self.outer(*table)) {
            rings.push(outer);
        }
        let now_ms = self.time.now_ms(now);
        let limit = usize::from(request.limit).clamp(1, PAGE_ENTRIES_MAX);
        let (mut keys, mut looked) = (Vec::new(), 0);
        let first = Slot::of_place(request.from);
        let mut next = None;
        let slots = slots_of(self.number, self.cores);
        for slot in slots.filter(|slot| first.is_some_and(|first| *slot >= first)) {
            if keys.len() >= limit || looked >= LOOKED_MAX {
                next = Some(slot.first_place());
                break;
            }
            let (mut found, mut end) = (BTreeSet::new(), None);
            for &table in &rings {
                let store = &self.tables[table].store;
                let (part, ends) = store.keys_from_place(slot, request.from, LOOKED_MAX);
                end = [end, ends].into_iter().flatten().min();
                found.extend(part);
            }
            looked += found.len();
            let mut last = None;
            for (place, key) in found {
                if end.is_some_and(|end| place >= end) {
                    break;
                }
                // What is at one place is not torn apart: a page begins at one.
                if keys.len() >= limit && last != Some(place) {
                    end = Some(place);
                    break;
                }
                last = Some(place);
                keys.extend(self.walked(&rings, key, now_ms));
            }
            if end.is_some() {
                next = end;
                break;
            }
        }
        let write_homes = rings.iter().map(|table| {
            let policy = self.tables[*table].store.policy();
            policy.write.count(policy.replicas.get().into()) as u8
        });
        let write_homes = write_homes.min().unwrap_or(1);
        Walked { keys, next, silent: 0, write_homes }.into()
    }

    /// A key, if a live session is under it here.
    fn walked(&mut self, rings: &[usize], key: Key, now_ms: u64) -> Option<WalkedKey> {
        // It may have ended on a ring further in, and not here yet.
        if self.tables[rings[0]].store.is_tombstone(&key, now_ms) {
            return None;
        }
        let found = rings.iter().find_map(|&table| {
            let kind = self.tables[table].store.live_kind(&key, now_ms)?;
            Some((table, kind))
        });
        let (table, kind) = found?;
        let replicas = self.tables[table].store.policy().replicas.get();
        let lacking = majority(replicas.into()).saturating_sub(1) as u8;
        Some(WalkedKey { key, kind, lacking })
    }
}
