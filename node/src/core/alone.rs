//! Changes that concern this node alone: it is the only home of the slot.
//!
//! What comes in through a lane is to be answered within a microsecond, and nobody else has to be
//! asked: there is nothing to wait for and no answer to remember, since all that is done here may be
//! repeated. Whatever is not the plain case is left to the coordinator.

use annulus_proto::message::{
    Acknowledged, Change, Failure, Operation, SessionReply, SessionRequest,
};
use annulus_proto::{Entry, Slot, Value};
use annulus_shm::Admission;

use super::Core;
use super::io::Now;

impl Core {
    /// Touches, rewrites or ends a session that is here and alive. `None`: take the long way, with the
    /// request as it was.
    pub(super) fn change_alone(
        &mut self,
        now: Now,
        request: &mut SessionRequest,
    ) -> Option<Result<SessionReply, Failure>> {
        let (counter, birth) = match &request.operation {
            Operation::Touch { birth } => ("requests_touch", birth),
            Operation::Update { birth, change: Change::Value(Value::Bytes(_)) } => {
                ("requests_update", birth)
            }
            Operation::End { birth } => ("requests_end", birth),
            _ => return None,
        };
        let table = self.table_named(&request.table)?;
        let key = &request.key;
        let slot = key.slot();
        if self.stopping || !self.is_alone_with(table, slot) {
            return None;
        }
        self.time.can_stamp(now).ok()?;
        let now_ms = self.time.now_ms(now);
        let store = &mut self.tables[table].store;
        let mut entry = store.get(key, now_ms)?;
        let is_meant = birth.is_none_or(|birth| birth == entry.birth);
        if entry.is_ended() || entry.is_expired(now_ms) || !is_meant {
            return None;
        }
        let digest = entry.digest(key.as_bytes());
        let mut is_touch = false;
        match &mut request.operation {
            Operation::Update { change: Change::Value(value), .. } => {
                let (size, limit) = (value.size() as u64, store.policy().max_value.into());
                if size > limit {
                    return Some(Err(Failure::TooLarge { size, limit }));
                }
                let version = self.time.stamp(now, entry.version.hlc).ok()?;
                // The request gets it back if there is no room.
                let value = std::mem::replace(value, Value::Bytes(Vec::new()));
                entry.write_value(version, value);
                entry.touch(now_ms);
            }
            Operation::End { .. } => {
                let version = self.time.stamp(now, entry.version.hlc).ok()?;
                entry = Entry::ended(entry.birth, version);
            }
            _ => {
                entry.touch(now_ms);
                is_touch = true;
            }
        }
        let admission = if entry.is_ended() { Admission::Reserve } else { Admission::Ordinary };
        let rewrite = (!is_touch).then_some(admission);
        if store.replace(key, slot, digest, &entry, now_ms, rewrite).is_err() {
            // On the long way room is made, if others may go for it.
            if let (Operation::Update { change: Change::Value(value), .. }, Some(body)) =
                (&mut request.operation, entry.body)
            {
                *value = Value::Bytes(body.base.bytes);
            }
            return None;
        }
        self.counters.add(counter);
        let (birth, version) = (entry.birth, entry.version);
        let acknowledged = Acknowledged { birth, version, held_by: 1, homes: 1 };
        Some(Ok(SessionReply::Acknowledged(acknowledged)))
    }

    /// Whether this node is the slot's only home, knows all of it, and has nobody to be in touch with
    /// for that.
    fn is_alone_with(&self, table: usize, slot: Slot) -> bool {
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        let homes = self.standing.ring.homes(slot);
        homes[..homes.len().min(replicas)] == [self.id()]
            && *self.quorum_homes(table, slot) == [self.id()]
            && self.slot_state(table, slot).is_synced()
            && !self.standing.alone_by_misfortune
    }
}
