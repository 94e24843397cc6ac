//! Leaving for good.

use rand::seq::SliceRandom;

use super::learn::Spread;
use super::*;

impl Mesh {
    /// Leaves for good: tells everybody, several times (see [`FAREWELL`]), some over streams too, and
    /// falls silent.
    pub fn leave(&mut self, now: Duration) {
        self.enter(now);
        if self.has_left {
            return;
        }
        self.me.status = Status::Left;
        self.revise();
        // It fails only when our own identity could not be encoded.
        let _ = self.foca.leave_cluster(&mut self.effects);
        self.settle();
        self.has_left = true;
        self.timers.retain(|_| false);
        self.probe = None;
        self.missing.clear();
        self.held.clear();
        self.on_farewell(FAREWELLS);
        self.say_over_streams();
    }

    /// Says goodbye to everybody, for what it is worth.
    pub(super) fn on_farewell(&mut self, left: u8) {
        let active = self.others().filter(|m| m.status.is_active());
        let active = active.map(|m| self.addr_of(m)).collect::<Vec<_>>();
        let packet = wire::facts(self.view.digest(), &[&self.me]);
        for to in active {
            self.transmit(to, packet.clone());
        }
        if left > 1 {
            let at = self.now + FAREWELL / u32::from(FAREWELLS);
            self.timers.set(at, Due::Farewell(left - 1));
        }
    }

    /// Tells a few over streams: whoever hears it passes it on, and so all hear it even if no datagram
    /// of this node arrives.
    fn say_over_streams(&mut self) {
        if self.lacks(Guard::LeaveStreams) {
            return;
        }
        let active = self.others().filter(|m| m.status.is_active());
        let mut active = active.map(|m| self.addr_of(m)).collect::<Vec<_>>();
        let wanted = (active.len().max(1).ilog2() as usize + STREAMS_MIN).min(active.len());
        let (chosen, _) = active.partial_shuffle(&mut self.rng, wanted);
        let packet = wire::facts(self.view.digest(), &[&self.me]);
        for to in chosen {
            self.transmit_over(Channel::Stream, *to, packet.clone());
        }
    }
}

impl Mesh {
    /// Counts a dead member, or one that was not met ([`Mesh::unmet`]), out for good, as if it had left, and
    /// tells the others. Should it come back after all, it joins anew.
    ///
    /// # Errors
    /// [`NotRemoved`]; nothing has changed.
    pub fn remove(&mut self, now: Duration, id: NodeId) -> Result<(), NotRemoved> {
        self.enter(now);
        if let Some(member) = self.unmet.remove(&id) {
            self.take_up(Member { status: Status::Left, ..member }, Spread::News);
            self.settle();
            return Ok(());
        }
        let member = self.view.get(id).cloned().ok_or(NotRemoved::Unknown(id))?;
        match member.status {
            Status::Left => return Ok(()),
            _ if self.presumed.contains_key(&id) => return Err(NotRemoved::CutOff),
            Status::Down => {}
            _ => return Err(NotRemoved::NotDown(id)),
        }
        self.take_up(Member { status: Status::Left, ..member }, Spread::News);
        self.settle();
        Ok(())
    }
}

/// Why a member was not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRemoved {
    /// Nobody has this id.
    #[error(
        "no member has the id {0}; `annulus members` lists them, and `safe-to-stop` those that were not met"
    )]
    Unknown(NodeId),
    /// It takes part, or was not missing for long enough.
    #[error(
        "{0} is not down: stop it and wait until `annulus members` says so, or let it leave by itself"
    )]
    NotDown(NodeId),
    /// This node reaches nobody, and knows of nobody for sure that he is down.
    #[error("nobody answers this node, so it cannot tell who is down; ask another node")]
    CutOff,
}

/// How long a mesh is to be driven after [`Mesh::leave`]: it says goodbye to everybody three times.
pub const FAREWELL: Duration = Duration::from_millis(300);

const FAREWELLS: u8 = 3;
/// How many are told over streams at least; with the logarithm of the cluster's size that is nearly
/// sure to be one that lives.
const STREAMS_MIN: usize = 3;
