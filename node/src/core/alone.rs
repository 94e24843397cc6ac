//! Changes that concern this node alone: it is the only home of the slot.
//!
//! What comes in through a lane is to be answered within a microsecond, and what clients of Redis write in little more.
//! Nobody else has to be asked: there is nothing to wait for and no answer to remember, since all that is done here may be
//! repeated. Whatever is not the plain case is left to the coordinator.

use annulus_proto::message::{Acknowledged, Lifetimes, Role};
use annulus_proto::submission::{Action, Submission};
use annulus_proto::{Hlc, Key, Slot};

use super::burning::{ClientId, Uses};
use super::io::{Asker, Now};
use super::{Core, may};

/// A session of a table, which is counted as in the settings, and its slot.
pub(crate) type Place<'a> = (usize, &'a [u8], Slot);

impl Core {
    /// Touches, rewrites or ends a session that is here and alive, as a submission through a lane asks for
    /// whose table is counted as in the settings, and whose key is in this slot of the core's. `None`:
    /// nothing was done; hand it over as [`Input::Request`](super::Input::Request).
    pub fn submit(
        &mut self,
        now: Now,
        (lane, role): (u64, Role),
        slot: Slot,
        submission: &Submission<'_>,
    ) -> Option<Acknowledged> {
        let Submission { table, key, action, .. } = submission;
        let counter = match action {
            Action::Touch { .. } => "requests_touch",
            Action::Update { .. } => "requests_update",
            Action::End { .. } => "requests_end",
            Action::Other(_) => return None,
        };
        let place = (usize::from(*table), *key, slot);
        let done = self.change_alone(now, (ClientId::Lane(lane), role), place, action, None)?;
        self.counters.add(counter);
        Some(done)
    }

    /// Has these bytes take the place of the value of a session that is here and alive, whichever it is, and gives it these
    /// lifetimes, if any. Who may not begin a session may not do so either, since a
    /// [`Put`](annulus_proto::message::Operation::Put) begins one where there is none. `None`: nothing was done; hand it
    /// over as one.
    pub(crate) fn put_alone(
        &mut self,
        now: Now,
        (asker, role): (Asker, Role),
        place: Place<'_>,
        value: &[u8],
        lifetimes: Option<&Lifetimes>,
    ) -> Option<Acknowledged> {
        let client = ClientId::of(asker).filter(|_| may(role, true))?;
        let action = Action::Update { birth: None, value };
        let done = self.change_alone(now, (client, role), place, &action, lifetimes)?;
        self.counters.add("requests_put");
        Some(done)
    }

    fn change_alone(
        &mut self,
        now: Now,
        (client, role): (ClientId, Role),
        (table, key, slot): Place<'_>,
        action: &Action<'_>,
        lifetimes: Option<&Lifetimes>,
    ) -> Option<Acknowledged> {
        debug_assert!(self.owns(slot));
        self.time.notice(now);
        let is_known = |table: &super::Table| table.store.policy().ring == 0;
        if !self.tables.get(table).is_some_and(is_known)
            || self.stopping
            || !may(role, matches!(action, Action::End { .. }))
            || !self.is_alone_with(table, slot)
            || self.tables[table].burning.has_quota()
        {
            return None;
        }
        self.time.can_stamp(now).ok()?;
        let now_ms = self.time.now_ms(now);
        let floor = self.slot_state(table, slot).floor.hlc;
        let Self { time, tables, .. } = self;
        let stamp = |stored: Hlc| time.stamp(now, stored.max(floor)).ok();
        let store = &mut tables[table].store;
        let (birth, version) = store.change(key, slot, action, lifetimes, now_ms, stamp)?;
        if self.tables[table].store.policy().suspects.is_some()
            && let Ok(key) = Key::new(key)
        {
            self.count_uses(now, table, &key, (client, Uses::Requests(1)));
        }
        Some(Acknowledged { birth, version, held_by: 1, homes: 1 })
    }

    /// Whether this node is the slot's only home, knows all of it, and has nobody to be in touch with
    /// for that.
    fn is_alone_with(&self, table: usize, slot: Slot) -> bool {
        *self.ring_homes(table, slot) == [self.id()]
            && *self.quorum_homes(table, slot) == [self.id()]
            && self.deciding(table, slot).is_some_and(|config| config.homes == [self.id()])
            && self.slot_state(table, slot).is_synced()
            && !self.standing.alone_by_misfortune
    }
}
