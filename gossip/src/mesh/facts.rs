//! Facts about members, as foca's custom broadcasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use annulus_proto::codec::decode_value;
use annulus_proto::limits::{MEMBER_BYTES_MAX, MEMBERS_MAX};
use annulus_proto::{Member, NodeId};

use super::learn::Spread;
use super::peer::Peer;
use super::wire::Bound;
use crate::view::{beats, is_acceptable};

/// What the mesh and the handler inside foca share. One thread uses both, so the lock is free
/// whenever it is taken; it is there because foca keeps its handler to itself.
#[derive(Clone)]
pub(super) struct Facts(Arc<Mutex<State>>);

struct State {
    me: NodeId,
    bound: Bound,
    /// The latest record heard about each member, whatever became of it in the view.
    latest: BTreeMap<NodeId, Member>,
    inbox: Vec<(Member, Spread)>,
    rejected: u64,
}

impl Facts {
    pub(super) fn new(me: NodeId, bound: Bound) -> Self {
        let (latest, inbox) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { me, bound, latest, inbox, rejected: 0 })))
    }

    /// Takes note that a record is known, so that its echoes are not relayed.
    pub(super) fn note(&self, member: &Member) {
        self.state().note(member);
    }

    /// The records that arrived in packets since the last call, in order of arrival, with what remains
    /// to be done to pass them on.
    pub(super) fn take_inbox(&self) -> Vec<(Member, Spread)> {
        std::mem::take(&mut self.state().inbox)
    }

    /// How many facts were not well formed.
    pub(super) fn rejected(&self) -> u64 {
        self.state().rejected
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    fn is_full_for(&self, id: NodeId) -> bool {
        self.latest.len() >= MEMBERS_MAX && !self.latest.contains_key(&id)
    }

    fn note(&mut self, member: &Member) -> bool {
        let new = self.latest.get(&member.id).is_none_or(|known| beats(member, known));
        if new {
            self.latest.insert(member.id, member.clone());
        }
        new
    }
}

/// Whether two records about one member say the same but for its load.
fn differ_in_load(one: &Member, other: &Member) -> bool {
    *one == Member { load: one.load, revision: one.revision, ..other.clone() }
}

/// Identifies a fact among those that wait to be sent.
pub(super) struct FactKey(Member);

impl foca::Invalidates for FactKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0.id == other.0.id && (self.0 == other.0 || beats(&self.0, &other.0))
    }
}

/// Never returned: what is not well formed is counted and skipped, so that it cannot keep the rest
/// of a packet from being read.
#[derive(Debug, thiserror::Error)]
#[error("impossible")]
pub(super) struct Never;

impl foca::BroadcastHandler<Peer> for Facts {
    type Key = FactKey;
    type Error = Never;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&Peer>,
    ) -> Result<Option<FactKey>, Never> {
        let mut state = self.state();
        let member = (data.len() <= MEMBER_BYTES_MAX).then(|| decode_value::<Member>(data));
        let is_believable =
            |member: &Member| is_acceptable(member) && state.bound.allows(member.incarnation);
        let Some(Ok(member)) = member.filter(|m| m.as_ref().is_ok_and(is_believable)) else {
            state.rejected += 1;
            return Ok(None);
        };
        if sender.is_none() {
            // Our own add_broadcast.
            return Ok(Some(FactKey(member)));
        }
        if member.id == state.me {
            // Rumours about ourselves end here; the answer to them spreads instead.
            state.inbox.push((member, Spread::Relayed));
            return Ok(None);
        }
        if state.is_full_for(member.id) {
            state.rejected += 1;
            return Ok(None);
        }
        let is_load =
            state.latest.get(&member.id).is_some_and(|known| differ_in_load(&member, known));
        if !state.note(&member) {
            return Ok(None);
        }
        if is_load {
            state.inbox.push((member, Spread::Little));
            return Ok(None);
        }
        state.inbox.push((member.clone(), Spread::Relayed));
        Ok(Some(FactKey(member)))
    }
}
