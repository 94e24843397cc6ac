//! What one node knows of the cluster.

use std::collections::BTreeMap;

use annulus_proto::codec::encode_value;
use annulus_proto::limits::MEMBERS_MAX;
use annulus_proto::{Member, NodeId, Status};
use twox_hash::XxHash3_64;

/// The members and the facts about them: a set that merges by union, where of two records about
/// one member the later one stays.
///
/// Merging is commutative, associative and idempotent, so nodes that heard the same records hold
/// equal views whatever the order (as long as nothing had to be refused for want of room).
#[derive(Clone, Debug, Default)]
pub struct View {
    members: BTreeMap<NodeId, Member>,
    /// The wrapping sum of all members' hashes: no order, so one change costs one subtraction and
    /// one addition.
    hash_sum: u64,
    refused: u64,
}

impl View {
    /// A view that knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what a record says; whether that changed anything.
    ///
    /// A record that is not well formed, or about yet another member of a full view
    /// ([`MEMBERS_MAX`]), is counted in [`View::refused`] and changes nothing.
    pub fn merge(&mut self, member: Member) -> bool {
        if !is_acceptable(&member) {
            self.refused += 1;
            return false;
        }
        match self.members.get(&member.id) {
            Some(known) if !beats(&member, known) => false,
            None if self.members.len() >= MEMBERS_MAX => {
                self.refused += 1;
                false
            }
            _ => {
                self.replace(member);
                true
            }
        }
    }

    /// The record about a member.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// All records, the dead included, in ascending order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The members that take part, in ascending order of ids.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.status.is_active())
    }

    /// How many members are known, the dead included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many records were refused: not well formed, or one member too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// A hash over id, incarnation, status, zone, weight and rings of all members: what placement
    /// and fencing depend on, and neither load nor revision. 0 for an empty view only. Costs
    /// nothing to read.
    pub fn digest(&self) -> u64 {
        if self.members.is_empty() { 0 } else { self.hash_sum.max(1) }
    }

    /// Puts a record in whatever is known: for what a node knows of itself, and for taking back a
    /// presumption of its own that nobody else has heard of.
    pub(crate) fn replace(&mut self, member: Member) {
        let added = hash(&member);
        let removed = self.members.insert(member.id, member).map_or(0, |old| hash(&old));
        self.hash_sum = self.hash_sum.wrapping_add(added).wrapping_sub(removed);
    }
}

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

impl Eq for View {}

impl FromIterator<Member> for View {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut view = Self::new();
        for member in members {
            view.merge(member);
        }
        view
    }
}

/// The highest incarnation that is believed. Real ones are milliseconds since 1970 or a little
/// more, below 2^42 for a century; above this one there would be no room left to refute a death.
pub const INCARNATION_MAX: u64 = 1 << 62;

/// How far ahead of the time an incarnation may be to be believed, in milliseconds: a century, so
/// that no host's clock is so wrong by mistake.
///
/// The bound moves on with the time, and that is the point: whatever somebody makes up, a moment
/// later the node whose name was used can outbid it. A bound that stands still locks out whoever is
/// said to be there.
pub(crate) const INCARNATION_AHEAD: u64 = 3_155_760_000_000;
/// The time is later than this for sure, whatever a host's clock says: November 2026.
pub(crate) const INCARNATION_SURE: u64 = 1_793_500_000_000;

/// Whether a record may enter a view.
pub(crate) fn is_acceptable(member: &Member) -> bool {
    member.is_well_formed() && member.incarnation <= INCARNATION_MAX
}

/// Whether `newer` replaces `older`: a strict total order over different records of one member.
/// Equal ranks, which two nodes with one id can produce, are decided by the encoded bytes.
pub(crate) fn beats(newer: &Member, older: &Member) -> bool {
    newer.supersedes(older)
        || (!older.supersedes(newer) && newer != older && encode_value(newer) > encode_value(older))
}

fn hash(member: &Member) -> u64 {
    let Member { id, incarnation, status, zone, weight, rings, .. } = member;
    let mut bytes = Vec::with_capacity(24 + zone.len());
    bytes.extend_from_slice(&id.bits().to_le_bytes());
    bytes.extend_from_slice(&incarnation.to_le_bytes());
    bytes.push(status_code(*status));
    bytes.extend_from_slice(&weight.to_le_bytes());
    bytes.push(*rings);
    bytes.extend_from_slice(zone.as_bytes());
    XxHash3_64::oneshot_with_seed(HASH_SEED, &bytes)
}

fn status_code(status: Status) -> u8 {
    status as u8
}

const HASH_SEED: u64 = 0x616e_6e75_6c75_7376;

#[cfg(test)]
mod tests;
