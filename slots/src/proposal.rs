//! The deciding of an epoch's successor, at the home that proposes.

use std::sync::Arc;

use annulus_proto::NodeId;

use crate::epoch::{Ballot, Config, EpochId, Promise, Refused, Seat, Successor};

/// A ballot of a home for the successor of its epoch. It lives in memory: whoever restarts begins
/// another one.
///
/// Ask each home to promise ([`Seat::on_prepare`]), this one included, and hand its promise to
/// [`Proposal::on_promise`]. Once [`Proposal::to_accept`] says what, ask each home to accept that
/// ([`Seat::on_accept`]), and tell [`Proposal::on_accepted`]. In any order, any number of times,
/// whoever answers: a majority of the epoch's homes decides, and [`Proposal::chosen`] is final. A
/// proposal that gets no further is given up; one with a greater ballot finishes what this one may
/// have begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    config: Arc<Config>,
    ballot: Ballot,
    /// What this home wants; then what has to be accepted, since a home may have accepted it
    /// before.
    successor: Successor,
    /// The ballot that `successor` comes from, of those that promised.
    of: Option<Ballot>,
    promised: Vec<NodeId>,
    accepted: Vec<NodeId>,
}

impl Proposal {
    /// A ballot of the node whose seat this is. Its own promise is in it: the seat is to be
    /// recorded before anything leaves.
    ///
    /// # Errors
    /// The node is not a home of the epoch that it knows.
    pub fn begin(seat: &mut Seat, successor: Successor) -> Result<Self, Refused> {
        let config = seat.config().ok_or(Refused::OtherEpoch)?.clone();
        let ballot = seat.next_ballot();
        let promise = seat.on_prepare(config.id, ballot)?;
        let (promised, accepted) = (Vec::new(), Vec::new());
        let mut proposal = Self { config, ballot, successor, of: None, promised, accepted };
        proposal.on_promise(ballot.node, &promise);
        Ok(proposal)
    }

    /// The epoch whose successor is decided.
    pub fn under(&self) -> EpochId {
        self.config.id
    }

    /// That epoch's homes, which are to be asked.
    pub fn homes(&self) -> &[NodeId] {
        &self.config.homes
    }

    /// The ballot.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whether this home has promised, or accepted once there is something to accept.
    pub fn has_answer_of(&self, home: NodeId) -> bool {
        let answers = if self.is_promised() { &self.accepted } else { &self.promised };
        answers.contains(&home)
    }

    /// Takes in a home's promise. What comes after the majority, or is of another ballot, changes
    /// nothing.
    pub fn on_promise(&mut self, from: NodeId, promise: &Promise) {
        let is_mine = promise.under == self.config.id && promise.ballot == self.ballot;
        if !is_mine || self.is_promised() || !is_new(&self.config, &self.promised, from) {
            return;
        }
        insert(&mut self.promised, from);
        if let Some((ballot, successor)) = &promise.accepted
            && self.of.is_none_or(|of| of < *ballot)
        {
            self.of = Some(*ballot);
            self.successor = successor.clone();
        }
    }

    /// What the homes are to accept, once a majority has promised.
    pub fn to_accept(&self) -> Option<&Successor> {
        self.is_promised().then_some(&self.successor)
    }

    /// A home accepted, in this ballot.
    pub fn on_accepted(&mut self, from: NodeId, under: EpochId, ballot: Ballot) {
        let is_mine = under == self.config.id && ballot == self.ballot;
        if is_mine && self.is_promised() && is_new(&self.config, &self.accepted, from) {
            insert(&mut self.accepted, from);
        }
    }

    /// The epoch's successor, once a majority has accepted it. Tell everybody.
    pub fn chosen(&self) -> Option<&Successor> {
        (self.accepted.len() >= self.config.majority()).then_some(&self.successor)
    }

    fn is_promised(&self) -> bool {
        self.promised.len() >= self.config.majority()
    }
}

fn is_new(config: &Config, answers: &[NodeId], from: NodeId) -> bool {
    config.homes.contains(&from) && !answers.contains(&from)
}

fn insert(answers: &mut Vec<NodeId>, node: NodeId) {
    answers.push(node);
    answers.sort_unstable();
}

#[cfg(test)]
mod tests;
