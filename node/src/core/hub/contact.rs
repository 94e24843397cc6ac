//! Keeping in touch with others: who answered what it was asked, and who is asked for a sign of life.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::codec::Header;
use annulus_proto::message::{Message, Ping};
use annulus_proto::{NodeId, Status};

use super::{Hub, HubPurpose};
use crate::core::io::{Answered, HubOutput, Input, Now};
use crate::core::{PING_AFTER, SHARE_AFTER};

/// When each node last answered this one, whichever part of it.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    nodes: BTreeMap<NodeId, Contact>,
    /// Whose turn it last was of those that are no partners, and when.
    turn: (Option<NodeId>, Duration),
}

#[derive(Clone, Copy, Debug, Default)]
struct Contact {
    /// When it was asked what it last answered, as far as all cores know.
    heard: Duration,
    pinged: Duration,
}

impl Contacts {
    /// Forgets the others.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(NodeId) -> bool) {
        self.nodes.retain(|node, _| is_kept(*node));
    }
}

impl Hub {
    /// Asks those for a sign of life that should have given one: whoever is a home of a slot together
    /// with this node, and of the others one after the other, so that their clocks and views get known.
    pub(super) fn ping_the_silent(&mut self, now: Now) {
        if self.mesh.me().status == Status::Joining {
            return;
        }
        let standing = self.standing.clone();
        for node in &standing.partners {
            self.ping_if_silent(now, *node);
        }
        let (last, at) = self.contacts.turn;
        if at + PING_AFTER <= now.monotonic {
            let is_other =
                |node: &&NodeId| **node != standing.me && !standing.partners.contains(node);
            let mut others = standing.innermost().ring.nodes().iter().filter(is_other);
            // They are in ascending order.
            let next = others.clone().find(|node| Some(**node) > last).or_else(|| others.next());
            if let Some(node) = next {
                self.contacts.turn = (Some(*node), now.monotonic);
                self.ping_if_silent(now, *node);
            }
        }
    }

    fn ping_if_silent(&mut self, now: Now, node: NodeId) {
        let Some(addr) = self.mesh.view().get(node).map(|member| member.addr) else { return };
        let contact = self.contacts.nodes.entry(node).or_default();
        if contact.heard.max(contact.pinged) + PING_AFTER <= now.monotonic {
            contact.pinged = now.monotonic;
            self.call_for(now, addr, HubPurpose::Ping(node), Ping {});
        }
    }

    pub(super) fn on_ping_answer(
        &mut self,
        now: Now,
        node: NodeId,
        asked: Duration,
        answered: &Answered,
    ) {
        if answered.node != node {
            // Its address has gone to another node: this answers for nobody else.
            return self.counters.add("answers_of_others");
        }
        let Message::Pong(_) = answered.message else {
            return self.counters.add("answers_out_of_place");
        };
        self.note_view(now, node, answered.header.view);
        self.tell_of_answer(node, answered.header, asked);
    }

    /// A core was answered. The others need not be told each time.
    pub(super) fn on_heard(&mut self, node: NodeId, header: Header, asked: Duration) {
        let known = self.contacts.nodes.get(&node).map(|contact| contact.heard);
        if known.is_none_or(|heard| heard + SHARE_AFTER <= asked) {
            self.tell_of_answer(node, header, asked);
        }
    }

    /// Tells the cores that a node has answered what it was asked then.
    pub(super) fn tell_of_answer(&mut self, node: NodeId, header: Header, asked: Duration) {
        // By who answered, and not by whose address it is said to be.
        if node != self.mesh.me().id && self.mesh.view().get(node).is_some() {
            let contact = self.contacts.nodes.entry(node).or_default();
            contact.heard = contact.heard.max(asked);
            self.outputs.push_back(HubOutput::Cores(Input::Heard { node, header, asked }));
        }
    }
}
