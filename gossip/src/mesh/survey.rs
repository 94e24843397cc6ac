//! How a node finds the others, for people and for choosing among them.

use annulus_proto::message::PeerState;

use super::*;

impl Mesh {
    /// The other members, the dead included, in ascending order of ids: what this node takes each for.
    /// Costs a look at all of foca's members.
    pub fn survey(&self) -> Vec<(NodeId, PeerState)> {
        let members = self.foca.iter_membership_state();
        let suspects = members.filter(|member| member.state() == State::Suspect);
        let suspects: BTreeSet<NodeId> = suspects.map(|member| member.id().id).collect();
        let state = |member: &Member| match member.status {
            Status::Left => PeerState::Left,
            _ if self.presumed.contains_key(&member.id) => PeerState::Presumed,
            Status::Down => PeerState::Down,
            _ if self.missing.contains_key(&member.id) => PeerState::Missing,
            _ if suspects.contains(&member.id) => PeerState::Suspected,
            _ => PeerState::Alive,
        };
        self.others().map(|member| (member.id, state(member))).collect()
    }
}
