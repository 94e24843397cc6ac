//! Joining the cluster, and exchanging views with others.

use std::net::SocketAddr;
use std::time::Duration;

use annulus_gossip::view_of;
use annulus_proto::codec::Header;
use annulus_proto::limits::MEMBERS_MAX;
use annulus_proto::message::{Exchange, Message};
use annulus_proto::{Member, NodeId, Status};

use super::Hub;
use crate::core::calls::{HubCall, HubPurpose};
use crate::core::io::{Answered, Asker, Now, Outcome};

/// How often views are exchanged with one address at most.
const EXCHANGE_PERIOD: Duration = Duration::from_millis(500);
/// How many exchanges a node that joins has under way at most: one answer is enough, and those of a
/// thousand peers are some hundred megabytes.
const JOINING_EXCHANGES_MAX: usize = 32;

impl Hub {
    /// Whose packet this is goes by its seal, or else by its address.
    pub(super) fn on_gossip(
        &mut self,
        now: Now,
        (node, from): (Option<NodeId>, SocketAddr),
        packet: &[u8],
    ) {
        if let Some(node) = node.or_else(|| self.member_at(from)) {
            self.note_view(now, node, view_of(packet).unwrap_or(0));
        }
        self.mesh.handle_datagram(now.monotonic, from, packet);
    }

    /// Whose address this is. Looks through all members only if it has changed hands.
    fn member_at(&mut self, addr: SocketAddr) -> Option<NodeId> {
        let is_there =
            |id: &NodeId| self.mesh.view().get(*id).is_some_and(|member| member.addr == addr);
        if let Some(id) = self.by_addr.get(&addr).filter(|id| is_there(id)) {
            return Some(*id);
        }
        let id = self.mesh.view().iter().find(|member| member.addr == addr)?.id;
        if self.by_addr.len() >= MEMBERS_MAX {
            self.by_addr.clear();
        }
        self.by_addr.insert(addr, id);
        Some(id)
    }

    pub(super) fn on_seeds(&mut self, now: Now, seeds: Vec<SocketAddr>) {
        let me = self.mesh.me().addr;
        self.seeds = seeds.into_iter().filter(|seed| *seed != me).collect();
        for seed in self.seeds.clone() {
            self.mesh.announce(now.monotonic, seed);
        }
        self.exchange_while_joining(now);
    }

    /// Tries again to reach the cluster; after a while serves alone, so that a cluster can begin
    /// with one node and a cut-off one is of use. Seeds stay announced to for ever.
    pub(super) fn retry_join(&mut self, now: Now) {
        let is_done = self.mesh.me().status != Status::Joining || self.mesh.held_back().is_some();
        if is_done || self.stopping.is_some() {
            return;
        }
        if now.monotonic >= self.started + self.settings.join_timeout {
            return self.found(now);
        }
        self.exchange_while_joining(now);
    }

    fn exchange_while_joining(&mut self, now: Now) {
        if self.mesh.me().status != Status::Joining {
            return;
        }
        // Each begins elsewhere, so that nodes that restart together do not all ask the same ones.
        let state = &self.persisted.state;
        let members = state.members.iter().map(|member| member.addr);
        let peers: Vec<SocketAddr> = members.chain(state.peers.iter().copied()).collect();
        let start = self.mesh.me().id.bits() as usize % peers.len().max(1);
        let peers = peers[start..].iter().chain(&peers[..start]);
        let known: Vec<SocketAddr> = self.seeds.iter().chain(peers).copied().collect();
        if known.is_empty() {
            return;
        }
        let all = || known.iter().copied().collect();
        let unanswered = self.unanswered_seeds.get_or_insert_with(all).clone();
        let (first, then): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|addr| unanswered.contains(addr));
        for addr in first.into_iter().chain(then) {
            if self.calls.len() >= JOINING_EXCHANGES_MAX {
                break;
            }
            self.exchange_with(now, addr);
        }
    }

    /// A seed has answered, or will not. Once none is left and nobody is up, there is no cluster to
    /// join, and this node begins one; others that begin at the same time do the same, and meet.
    fn on_seed_tried(&mut self, now: Now, addr: SocketAddr) {
        let Some(unanswered) = &mut self.unanswered_seeds else { return };
        unanswered.remove(&addr);
        if unanswered.is_empty() && !self.alone_by_misfortune {
            self.found(now);
        } else {
            self.exchange_while_joining(now);
        }
    }

    fn found(&mut self, now: Now) {
        if self.mesh.me().status == Status::Joining && self.stopping.is_none() {
            self.counters.add("joined_alone");
            self.become_up(now);
        }
    }

    pub(super) fn become_up(&mut self, now: Now) {
        if self.mesh.me().status == Status::Joining {
            // It follows later if this node came and went too often.
            self.mesh.set_status(now.monotonic, Status::Up);
            self.is_standing_old = true;
        }
    }

    pub(super) fn exchange_with(&mut self, now: Now, addr: SocketAddr) {
        if addr == self.mesh.me().addr {
            return;
        }
        let recently = |at: &Duration| *at + EXCHANGE_PERIOD > now.monotonic;
        if self.exchanged.get(&addr).is_some_and(recently) {
            return;
        }
        self.exchanged.retain(|_, at| recently(at));
        self.exchanged.insert(addr, now.monotonic);
        let message = Exchange { members: self.mesh.snapshot(), reply: true };
        self.call_for(now, addr, HubPurpose::Exchange, message);
    }

    pub(super) fn on_exchange(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        exchange: Exchange,
    ) {
        self.mesh.merge(now.monotonic, exchange.members);
        // The cores learn of the members first: alone they vouch for nothing of theirs.
        self.drain_mesh(now);
        self.end_misfortune();
        if exchange.reply {
            let answer = Exchange { members: self.mesh.snapshot(), reply: false };
            self.reply(now, asker, header.id, answer);
        }
    }

    pub(super) fn on_outcome(&mut self, now: Now, outcome: Outcome) {
        let call = self.calls.close(outcome.call);
        if let Some(HubCall { purpose: HubPurpose::Safety(node), .. }) = call {
            let answer = outcome.result.ok().map(|answered| (answered.node, answered.message));
            return self.on_members_status(now, node, answer);
        }
        if let Some(HubCall { purpose: HubPurpose::Load { ranking, node }, .. }) = call {
            let answer = outcome.result.ok().map(|answered| (answered.node, answered.message));
            return self.on_load(now, ranking, node, answer);
        }
        if let Some(HubCall { purpose: HubPurpose::Walk { ticket, node }, .. }) = call {
            let answer = outcome.result.ok().map(|answered| (answered.node, answered.message));
            return self.on_walked(now, ticket, node, answer);
        }
        match (call, outcome.result) {
            (Some(call), Ok(answered)) => match call.purpose {
                HubPurpose::Ping(node) => self.on_ping_answer(now, node, call.asked, &answered),
                _ => self.on_exchange_answer(now, &call, answered),
            },
            (Some(call), Err(_)) => {
                self.counters.add("calls_failed");
                if call.purpose == HubPurpose::Exchange {
                    self.on_seed_tried(now, call.addr);
                }
            }
            (None, Ok(_)) => self.counters.add("answers_too_late"),
            (None, Err(_)) => {}
        }
    }

    fn on_exchange_answer(&mut self, now: Now, call: &HubCall, answered: Answered) {
        let (from, asked) = (call.addr, call.asked);
        let Answered { node, header, message } = answered;
        let Message::Exchange(exchange) = message else {
            return self.counters.add("answers_out_of_place");
        };
        self.counters.add("views_exchanged");
        self.mesh.merge(now.monotonic, exchange.members);
        // The cores learn of the members first and then hear of this one, before the node serves: so
        // that they begin with a clock that somebody has confirmed.
        self.drain_mesh(now);
        self.tell_of_answer(node, header, asked);
        self.end_misfortune();
        let me = self.mesh.me().id;
        let serves = |status| matches!(status, Status::Up | Status::Draining);
        let cluster = |member: &Member| member.id != me && serves(member.status);
        if self.stopping.is_none() && self.mesh.view().iter().any(cluster) {
            self.become_up(now);
        }
        self.on_seed_tried(now, from);
    }
}
