//! Changes that concern this node alone: it is the only home of the slot.
//!
//! What comes in through a lane is to be answered within a microsecond, and nobody else has to be
//! asked: there is nothing to wait for and no answer to remember, since all that is done here may be
//! repeated. Whatever is not the plain case is left to the coordinator.

use annulus_proto::message::{
    Acknowledged, Change, Failure, Operation, SessionReply, SessionRequest,
};
use annulus_proto::{Entry, Slot, Value};

use super::Core;
use super::io::Now;

impl Core {
    /// Touches, rewrites or ends a session that is here and alive. `None`: take the long way.
    pub(super) fn change_alone(
        &mut self,
        now: Now,
        request: &SessionRequest,
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
        let slot = request.key.slot();
        if self.stopping.is_some() || !self.is_only_home(table, slot) {
            return None;
        }
        if !self.vouches(now, table, slot) || self.time.can_stamp(now).is_err() {
            return None;
        }
        let now_ms = self.time.now_ms(now);
        let before = self.tables[table].store.get(&request.key, now_ms)?;
        let is_meant = birth.is_none_or(|birth| birth == before.birth);
        if before.is_ended() || before.is_expired(now_ms) || !is_meant {
            return None;
        }
        let limit = u64::from(self.tables[table].store.policy().max_value);
        let after = match &request.operation {
            Operation::Update { change: Change::Value(value), .. } => {
                let size = value.size() as u64;
                if size > limit {
                    return Some(Err(Failure::TooLarge { size, limit }));
                }
                let version = self.time.stamp(now, before.version.hlc).ok()?;
                let mut after = before.clone();
                after.write_value(version, value.clone());
                after.touch(now_ms);
                after
            }
            Operation::End { .. } => {
                let version = self.time.stamp(now, before.version.hlc).ok()?;
                Entry::ended(before.birth, version)
            }
            _ => {
                let mut after = before.clone();
                after.touch(now_ms);
                after
            }
        };
        self.counters.add(counter);
        let merged = self.tables[table].store.replace(&request.key, &before, &after, now_ms);
        Some(merged.map(|()| {
            let (birth, version) = (after.birth, after.version);
            SessionReply::Acknowledged(Acknowledged { birth, version, held_by: 1, homes: 1 })
        }))
    }

    fn is_only_home(&self, table: usize, slot: Slot) -> bool {
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        let homes = self.ring.homes(slot);
        homes[..homes.len().min(replicas)] == [self.id()]
    }
}
