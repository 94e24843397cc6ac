//! The sessions of one owner that this node holds.
//!
//! Nobody keeps a list for all: whose a session is stands in it and goes where it goes, and each node knows whose are those that
//! it holds ([`Store::owned_after`](super::store::Store::owned_after)). Whoever asks all nodes misses none, as long as
//! fewer of them are silent than hold what was acknowledged.

use annulus_proto::limits::OWNER_BYTES_MAX;
use annulus_proto::message::{Message, Owned, OwnedPlace, OwnedRequest, OwnedSession};

use super::Core;
use super::io::{Caller, Now};
use super::replica::{reject, reject_table};
use super::report::listed_as;

/// Sessions on one page.
const PAGE: usize = 512;

impl Core {
    /// A page of the live sessions of an owner that this core holds, on one ring.
    pub(super) fn list_owned(
        &mut self,
        now: Now,
        caller: Caller,
        request: &OwnedRequest,
    ) -> Message {
        if let Caller::Client(role) = caller
            && !super::may(role, false)
        {
            return reject(&format!("the role {role} may not see whose sessions there are"));
        }
        let Some(innermost) = self.table_of_clients(&request.table) else {
            return reject_table(&request.table);
        };
        let OwnedRequest { owner, place, .. } = request;
        if owner.is_empty() || owner.len() > OWNER_BYTES_MAX {
            return reject("an owner has 1 to 255 bytes");
        }
        let mut table = innermost;
        for _ in 0..place.ring {
            let Some(outer) = self.outer(table) else { return reject("there is no such ring") };
            table = outer;
        }
        if !self.tables[table].store.knows_owners() {
            return reject("this node has not read all that it holds yet; try again in a moment");
        }
        let now_ms = self.time.now_ms(now);
        let store = &mut self.tables[table].store;
        let (listed, last) = store.owned_after(owner, place.after, PAGE, now_ms);
        let mut sessions = Vec::with_capacity(listed.len());
        for (key, entry) in listed {
            // It may have ended on a ring further in, and not here yet.
            let known = match table == innermost {
                true => Some(entry),
                false => self.known_of(table, &key, now_ms),
            };
            let Some(entry) = known.filter(|entry| !entry.is_expired(now_ms)) else { continue };
            let listed = listed_as(key, &entry);
            sessions.extend(listed.map(|listed| OwnedSession { listed, ring: entry.ring() }));
        }
        let next = match last {
            Some(word) => Some(OwnedPlace { after: Some(word), ..*place }),
            None => match self.outer(table) {
                Some(_) => Some(OwnedPlace { ring: place.ring + 1, after: None, ..*place }),
                None => {
                    let after = self.number + 1;
                    let core = after as u16;
                    (after < self.cores).then_some(OwnedPlace { core, ring: 0, after: None })
                }
            },
        };
        let policy = self.tables[table].store.policy();
        let write_homes = policy.write.count(policy.replicas.get().into()) as u8;
        Owned { sessions, next, write_homes }.into()
    }
}
