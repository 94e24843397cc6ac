//! Somebody outside, whom no fault concerns, who asks the nodes how they are and gives orders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_client::{NodeStatus, Order, Routes, Source};
use annulus_proto::Key;
use annulus_proto::message::{
    Message, Operation, Ordered, RequestId, RoutesRequest, SessionReply, SessionRequest,
    StatusRequest,
};

use super::net::End;
use super::world::{Event, TABLE, World};
use crate::history::Outcome;
use crate::snapshot::Snapshot;

/// What the operator knows, and waits for.
#[derive(Default)]
pub(super) struct Operator {
    frames: u64,
    /// What was asked, by frame.
    open: BTreeMap<u64, Asked>,
    round: Option<Round>,
    pub(super) seen: Option<Snapshot>,
    /// Those to tell whether to drain, until they have heard.
    orders: BTreeMap<usize, bool>,
    /// Those that are to leave once they have given everything away.
    leaving: BTreeSet<usize>,
    /// Whether everybody is asked again and again.
    pub(super) watches: bool,
    reads: Vec<(usize, usize, Outcome)>,
    reads_open: usize,
}

/// One time of asking everybody.
struct Round {
    began: Duration,
    nodes: BTreeMap<usize, (Option<NodeStatus>, Option<Routes>)>,
}

enum Asked {
    Status(usize),
    Routes(usize),
    Order(usize, bool),
    Read(usize, usize),
}

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long an answer of everybody is waited for.
const ROUND_MAX: Duration = Duration::from_secs(2);
/// How long an end's read may take.
const READ_PATIENCE_MS: u32 = 2_000;

impl Operator {
    pub(super) fn leave_when_drained(&mut self, node: usize) {
        self.leaving.insert(node);
    }

    /// Whoever drains and is not done stays as it is.
    pub(super) fn let_all_stay(&mut self) {
        self.leaving.clear();
    }

    /// What was read of each key through each node, once all of it is there.
    pub(super) fn take_reads(&mut self) -> Option<Vec<(usize, usize, Outcome)>> {
        (self.reads_open == 0).then(|| std::mem::take(&mut self.reads))
    }
}

impl World {
    /// Has a node drain, or take slots again: it is told until it has heard.
    pub(super) fn order(&mut self, node: usize, drains: bool) {
        self.operator.orders.insert(node, drains);
        if !drains {
            self.operator.leaving.remove(&node);
        }
        self.give_order(node, drains);
    }

    fn give_order(&mut self, node: usize, drains: bool) {
        let order = if drains { Order::Drain } else { Order::StopDraining };
        self.operate_on(node, Asked::Order(node, drains), &order.into());
    }

    /// What the operator does now and then.
    pub(super) fn operate(&mut self) {
        self.after(LOOK, Event::Operate);
        let is_over = |round: &Round| round.began + ROUND_MAX <= self.now;
        if self.operator.round.as_ref().is_some_and(is_over) {
            self.end_round();
        }
        for (node, drains) in self.operator.orders.clone() {
            self.give_order(node, drains);
        }
        let watches = self.operator.watches || !self.operator.leaving.is_empty();
        if watches && self.operator.round.is_none() {
            let up: Vec<usize> = self.contacts.up().iter().copied().collect();
            let nodes = up.iter().map(|node| (*node, (None, None))).collect();
            self.operator.round = Some(Round { began: self.now, nodes });
            for node in up {
                self.operate_on(node, Asked::Status(node), &StatusRequest {}.into());
                self.operate_on(node, Asked::Routes(node), &RoutesRequest {}.into());
            }
        }
        let mut drained: Vec<usize> = self.operator.drained();
        drained.retain(|node| self.hosts[*node].application.is_empty());
        for node in drained {
            self.operator.leaving.remove(&node);
            if self.contacts.up().contains(&node) {
                self.let_leave(node);
            }
        }
    }

    /// Reads every key through every node that runs.
    pub(super) fn read_all(&mut self) {
        let up: Vec<usize> = self.contacts.up().iter().copied().collect();
        for node in up {
            for key in 0..self.keys.len() {
                let message = SessionRequest {
                    table: TABLE.to_owned(),
                    key: Key::new(&self.keys[key]).expect("keys here are short"),
                    request: RequestId { client: 1, sequence: 0 },
                    hops: 0,
                    patience_ms: READ_PATIENCE_MS,
                    operation: Operation::Get,
                };
                self.operator.reads_open += 1;
                self.operate_on(node, Asked::Read(node, key), &message.into());
            }
        }
    }

    fn operate_on(&mut self, node: usize, asked: Asked, message: &Message) {
        self.operator.frames += 1;
        let frame = self.operator.frames;
        self.operator.open.insert(frame, asked);
        self.ask(End::Operator, node, frame, message);
    }

    pub(super) fn on_operator_answer(&mut self, frame: u64, message: Message) {
        let Some(asked) = self.operator.open.remove(&frame) else { return };
        match (asked, message) {
            (Asked::Status(node), Message::NodeStatus(status)) => {
                self.in_round(node, |answer| answer.0 = Some(status));
            }
            (Asked::Routes(node), Message::Routes(routes)) => {
                self.in_round(node, |answer| answer.1 = Some(routes));
            }
            (Asked::Order(node, drains), Message::Ordered(Ordered::Done))
                if self.operator.orders.get(&node) == Some(&drains) =>
            {
                self.operator.orders.remove(&node);
            }
            (Asked::Read(node, key), Message::SessionReply(reply)) => {
                let outcome = match reply {
                    SessionReply::Session(session) => {
                        Outcome::Read { session, source: Source::Node(self.hosts[node].id) }
                    }
                    SessionReply::Failed(failure) => Outcome::of(&failure.into()),
                    other => Outcome::Refused(format!("{other:?}")),
                };
                self.note_read(node, key, outcome);
            }
            // Refused: asked again, or missed.
            (Asked::Read(node, key), other) => {
                self.note_read(node, key, Outcome::Refused(other.name().to_owned()));
            }
            _ => {}
        }
    }

    pub(super) fn on_operator_failure(&mut self, frame: u64) {
        if let Some(Asked::Read(node, key)) = self.operator.open.remove(&frame) {
            self.note_read(node, key, Outcome::Unknown);
        }
    }

    fn note_read(&mut self, node: usize, key: usize, outcome: Outcome) {
        self.operator.reads_open -= 1;
        self.operator.reads.push((node, key, outcome));
    }

    fn in_round(
        &mut self,
        node: usize,
        put: impl FnOnce(&mut (Option<NodeStatus>, Option<Routes>)),
    ) {
        let Some(round) = &mut self.operator.round else { return };
        let Some(answer) = round.nodes.get_mut(&node) else { return };
        put(answer);
        let is_whole = |answer: &(Option<_>, Option<_>)| answer.0.is_some() && answer.1.is_some();
        if round.nodes.values().all(is_whole) {
            self.end_round();
        }
    }

    fn end_round(&mut self) {
        let Some(Round { began, nodes }) = self.operator.round.take() else { return };
        let whole =
            |(node, (status, routes)): (usize, (Option<_>, Option<_>))| (node, status.zip(routes));
        let nodes = nodes.into_iter().map(whole).collect();
        self.operator.seen = Some(Snapshot { began, nodes });
    }
}

impl Operator {
    /// Those that are to leave, and have heard and given everything away: one that went with what it keeps since
    /// others drain as well could leave too few to decide.
    fn drained(&self) -> Vec<usize> {
        let Some(seen) = &self.seen else { return Vec::new() };
        let may_go = |node: &&usize| !self.orders.contains_key(node) && seen.keeps_nothing(**node);
        self.leaving.iter().filter(may_go).copied().collect()
    }
}
