//! What those who run a cluster ask of a node: orders, whether it may be stopped, what happened.

use std::collections::{BTreeMap, VecDeque};

use annulus_gossip::View;
use annulus_proto::codec::Header;
use annulus_proto::message::{
    Event, Events, EventsRequest, Happened, Message, NodeStatus, Order, Ordered, PeerState, Role,
    Safety, StatusRequest, TableStatus,
};
use annulus_proto::{Member, NodeId, Status};

use super::Hub;
use crate::core::calls::HubPurpose;
use crate::core::io::{Asker, Caller, GivenWeight, HubOutput, Input, Now, SlotCounts};

/// What happened lately, in order.
#[derive(Debug, Default)]
pub(super) struct Log {
    events: VecDeque<Event>,
    last: u64,
}

/// What is known of the cores' slots: by core, for each table.
#[derive(Debug, Default)]
pub(super) struct SlotsOfCores {
    by_core: BTreeMap<usize, Vec<SlotCounts>>,
}

/// Whether this node may be stopped, as far as the others have answered.
#[derive(Debug)]
pub(super) struct SafetyCheck {
    askers: Vec<(Asker, u64)>,
    waiting: usize,
    /// What speaks against it, by whom it concerns: first this node, then the others.
    reasons: BTreeMap<Option<NodeId>, Vec<String>>,
}

/// Events that are remembered.
const EVENTS_MAX: usize = 4_096;
/// Those who may wait for one check.
const SAFETY_ASKERS_MAX: usize = 256;

impl Log {
    fn add(&mut self, at_ms: u64, what: Happened) {
        self.last += 1;
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.last, at_ms, what });
    }

    fn after(&self, number: u64) -> (Vec<Event>, u64) {
        // Numbers from an earlier run of the node are beyond what this one has counted.
        let number = if number > self.last { 0 } else { number };
        let first = self.events.front().map_or(self.last + 1, |event| event.number);
        let forgotten = first.saturating_sub(number + 1);
        let later = self.events.iter().filter(|event| event.number > number);
        (later.take(Events::PAGE_MAX).cloned().collect(), forgotten)
    }
}

impl SlotsOfCores {
    fn total(&self, table: usize) -> SlotCounts {
        let counts = self.by_core.values().filter_map(|tables| tables.get(table));
        counts.fold(SlotCounts::default(), |sum, part| SlotCounts {
            home: sum.home + part.home,
            unsynced: sum.unsynced + part.unsynced,
            leaving: sum.leaving + part.leaving,
            given_up: sum.given_up + part.given_up,
            decided: sum.decided + part.decided,
        })
    }
}

impl Hub {
    /// Remembers that something happened.
    pub(super) fn note(&mut self, now: Now, what: Happened) {
        self.log.add(now.wall_ms, what);
    }

    /// Remembers how the members changed.
    pub(super) fn note_members(&mut self, now: Now, before: &View) {
        let is_news = |member: &&Member| {
            let known = before.get(member.id);
            known.is_none_or(|known| {
                (known.incarnation, known.status) != (member.incarnation, member.status)
            })
        };
        let view = self.mesh.view();
        let changed: Vec<Member> = view.iter().filter(is_news).cloned().collect();
        let (digest, active) = (view.digest(), view.active().count() as u32);
        for Member { id: node, name, incarnation, status, .. } in changed {
            self.note(now, Happened::Member { node, name, incarnation, status });
        }
        if digest != before.digest() {
            self.note(now, Happened::View { digest, active });
        }
    }

    /// A core counted its slots.
    pub(super) fn on_slots(&mut self, now: Now, core: usize, counts: Vec<SlotCounts>) {
        let before: Vec<SlotCounts> =
            (0..self.tables.len()).map(|table| self.slots.total(table)).collect();
        self.slots.by_core.insert(core, counts);
        for (index, before) in before.into_iter().enumerate() {
            let after = self.slots.total(index);
            let table = || self.tables[index].clone();
            let mut events = Vec::new();
            if after.home > before.home {
                let slots = after.home - before.home;
                events.push(Happened::SlotsTakenUp { table: table(), slots });
            }
            if after.leaving > before.leaving {
                let slots = after.leaving - before.leaving;
                events.push(Happened::SlotsLeaving { table: table(), slots });
            }
            if after.given_up > before.given_up {
                let slots = (after.given_up - before.given_up) as u32;
                events.push(Happened::SlotsGivenUp { table: table(), slots });
            }
            if after.decided > before.decided {
                let slots = (after.decided - before.decided) as u32;
                events.push(Happened::EpochsDecided { table: table(), slots });
            }
            if after.unsynced == 0 && (before.unsynced > 0 || after.home > before.home) {
                events.push(Happened::Synced { table: table(), slots: after.home });
            }
            for event in events {
                self.note(now, event);
            }
        }
    }

    pub(super) fn tell_events(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        request: &EventsRequest,
    ) {
        let (events, forgotten) = self.log.after(request.after);
        let Member { id: node, .. } = *self.mesh.me();
        let incarnation = self.first_incarnation;
        self.reply(now, asker, header.id, Events { node, incarnation, events, forgotten });
    }

    // Orders.

    pub(super) fn on_order(
        &mut self,
        now: Now,
        asker: Asker,
        caller: Caller,
        header: Header,
        order: Order,
    ) {
        let answer = match self.carry_out(now, caller, order) {
            Ok(()) => Ordered::Done,
            Err(why) => Ordered::Refused(why),
        };
        self.reply(now, asker, header.id, answer);
    }

    fn carry_out(&mut self, now: Now, caller: Caller, order: Order) -> Result<(), String> {
        match caller {
            Caller::Client(role) if role.includes(Role::Operator) => {}
            Caller::Client(role) => {
                return Err(format!(
                    "the role {role} may not do this; use a key or a socket of the role operator"
                ));
            }
            Caller::Node(_) => return Err("nodes give each other no such orders".to_owned()),
        }
        let status = self.mesh.me().status;
        let what = match order {
            Order::SyncNow => {
                self.outputs.push_back(HubOutput::Cores(Input::SyncNow));
                "compare all slots now".to_owned()
            }
            Order::Drain => {
                if !matches!(status, Status::Up | Status::Draining) {
                    return Err("this node has not joined yet; wait until it is up".to_owned());
                }
                let me = self.mesh.me().id;
                let view = self.mesh.view();
                if !view.active().any(|member| member.id != me && serves(member)) {
                    return Err("no other node would take its slots; start one first".to_owned());
                }
                self.mesh.set_status(now.monotonic, Status::Draining);
                "drain".to_owned()
            }
            Order::StopDraining => {
                if status == Status::Draining {
                    self.mesh.set_status(now.monotonic, Status::Up);
                }
                "drain no more".to_owned()
            }
            Order::Remove { node, accept_loss } => {
                if node == self.mesh.me().id {
                    return Err("this is the node itself; drain it, then stop it".to_owned());
                }
                let is_there = |member: &&Member| member.status != Status::Left;
                let members = self.mesh.view().iter().chain(self.mesh.unmet());
                let others: Vec<&Member> =
                    members.filter(is_there).filter(|member| member.id != node).collect();
                let active = others.iter().filter(|member| member.status.is_active()).count();
                let known = others.len();
                if 2 * active <= known && !accept_loss {
                    return Err(format!(
                        "{active} of {known} others are there, so this may be the smaller side of a \
                         split: take --accept-loss if you know that the rest is dead; what only they \
                         hold, and decide if they live, is lost"
                    ));
                }
                self.mesh.remove(now.monotonic, node).map_err(|error| error.to_string())?;
                if self.mesh.peers().next().is_none() {
                    // There is nobody else to wait for.
                    self.end_misfortune();
                }
                if accept_loss {
                    self.outputs.push_back(HubOutput::Cores(Input::GiveUp(node)));
                }
                format!("remove {node}")
            }
            Order::Weigh(weight) => {
                let weight = weight.unwrap_or(self.configured_weight);
                let me = self.mesh.me().id;
                let serves = |member: &Member| member.id != me && serves(member);
                if weight == 0 && !self.mesh.view().active().any(serves) {
                    return Err("no other node would take its slots; start one first".to_owned());
                }
                let configured = self.configured_weight;
                self.given_weight =
                    (weight != configured).then_some(GivenWeight { configured, given: weight });
                self.mesh.set_weight(now.monotonic, weight);
                self.persist_if_wanted();
                format!("take a weight of {weight}")
            }
            _ => return Err("this node does not know that order; upgrade it".to_owned()),
        };
        self.counters.add("orders_carried_out");
        self.note(now, Happened::Ordered { order: what });
        Ok(())
    }

    // Whether this node may be stopped.

    /// Asks this node's cores and every other member how they are.
    pub(super) fn ask_whether_safe(&mut self, now: Now, asker: Asker, header: Header) {
        if let Some(check) = &mut self.safety {
            if check.askers.len() >= SAFETY_ASKERS_MAX {
                return self.refuse_as_busy(now, asker, header.id);
            }
            check.askers.push((asker, header.id));
            return;
        }
        let mut reasons = BTreeMap::new();
        let survey: BTreeMap<NodeId, PeerState> = self.mesh.survey().into_iter().collect();
        let me = self.mesh.me().id;
        let others: Vec<Member> =
            self.mesh.view().active().filter(|member| member.id != me).cloned().collect();
        for (node, state) in &survey {
            let name = || self.name_of(*node);
            let why = match state {
                PeerState::Suspected => format!("{} did not answer lately", name()),
                PeerState::Missing => format!("{} does not answer and may be dead", name()),
                PeerState::Down => format!(
                    "{} is down, and counts where a majority decides; `annulus remove` it if it does \
                     not come back",
                    name()
                ),
                PeerState::Presumed => format!("nobody answers this node, nor does {}", name()),
                _ => continue,
            };
            reasons.insert(Some(*node), vec![why]);
        }
        for unmet in self.mesh.unmet() {
            let why = format!(
                "nothing was heard of {} ({}) since this node started: until then nobody begins to decide \
                 about what none of those here knows; `annulus remove` it if it does not come back",
                unmet.name, unmet.id
            );
            reasons.insert(Some(unmet.id), vec![why]);
        }
        if !others.iter().any(serves) {
            let why = "no other node serves sessions: until it is back, nothing does";
            reasons.insert(None, vec![why.to_owned()]);
        }
        let waiting = others.len() + 1;
        self.safety = Some(SafetyCheck { askers: vec![(asker, header.id)], waiting, reasons });
        self.ask_how_cores_are(now, Asker::Hub { ticket: 0 }, header);
        for member in others {
            self.call_for(now, member.addr, HubPurpose::Safety(member.id), StatusRequest {});
        }
    }

    /// How this node's cores are.
    pub(super) fn on_own_status(&mut self, now: Now, status: &NodeStatus) {
        self.on_safety_answer(now, None, Some(status));
    }

    /// How another member is; `None`: it did not answer.
    pub(super) fn on_members_status(
        &mut self,
        now: Now,
        node: NodeId,
        answer: Option<(NodeId, Message)>,
    ) {
        match answer {
            Some((from, Message::NodeStatus(status))) if from == node => {
                self.on_safety_answer(now, Some(node), Some(&status));
            }
            _ => self.on_safety_answer(now, Some(node), None),
        }
    }

    pub(super) fn on_safety_answer(
        &mut self,
        now: Now,
        node: Option<NodeId>,
        status: Option<&NodeStatus>,
    ) {
        let ours = self.mesh.view().digest();
        let name = node.map_or("this node".to_owned(), |node| self.name_of(node));
        let why = match status {
            Some(status) => doubts(&name, status, ours),
            None => vec![format!("{name} cannot be asked")],
        };
        let Some(check) = &mut self.safety else { return };
        if !why.is_empty() {
            check.reasons.entry(node).or_default().extend(why);
        }
        check.waiting -= 1;
        if check.waiting > 0 {
            return;
        }
        let check = self.safety.take().expect("it was there just now");
        let mut reasons: Vec<String> = check.reasons.into_values().flatten().collect();
        if reasons.len() > Safety::REASONS_MAX {
            let more = reasons.len() - (Safety::REASONS_MAX - 1);
            reasons.truncate(Safety::REASONS_MAX - 1);
            reasons.push(format!("and {more} more reasons"));
        }
        for (asker, id) in check.askers {
            self.reply(now, asker, id, Safety { reasons: reasons.clone() });
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        match self.mesh.view().get(node) {
            Some(member) if !member.name.is_empty() => member.name.clone(),
            _ => node.to_string(),
        }
    }
}

/// Whether a member takes slots.
fn serves(member: &Member) -> bool {
    member.status == Status::Up && member.weight > 0
}

/// What a node's state says against stopping the one whose view has this digest.
fn doubts(name: &str, status: &NodeStatus, view: u64) -> Vec<String> {
    let mut why = Vec::new();
    match status.member.status {
        Status::Up => {}
        Status::Joining => why.push(format!("{name} is joining")),
        Status::Draining => {
            let has_slots = |table: &TableStatus| table.slots_home + table.slots_leaving > 0;
            let leaving = counted(status, "slot_set_slots_leaving");
            if status.tables.iter().any(has_slots) || leaving > 0 {
                why.push(format!("{name} is draining"));
            }
        }
        _ => why.push(format!("{name} does not take part")),
    }
    if status.view != view {
        why.push(format!("{name} sees other members"));
    }
    let unmet = counted(status, "mesh_peers_unmet");
    if unmet > 0 {
        why.push(format!("{name} has not met {unmet} members again that it knew; ask it which"));
    }
    let slots = counted(status, "slot_set_slots_unready");
    if slots > 0 {
        why.push(format!("{name} has not taken up {slots} slots of its application"));
    }
    for table in &status.tables {
        let of = &table.name;
        if table.slots_unsynced > 0 {
            let slots = table.slots_unsynced;
            why.push(format!("{name} has not synced {slots} slots of table {of}"));
        }
        if table.slots_undecided > 0 {
            let slots = table.slots_undecided;
            why.push(format!("{name} knows no majority for {slots} slots of table {of}"));
        }
        if table.hints > 0 {
            let hints = table.hints;
            why.push(format!("{name} keeps {hints} writes of table {of} for homes that lack them"));
        }
    }
    why
}

/// One of a node's counters.
fn counted(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(n: u32) -> Happened {
        Happened::SlotsTakenUp { table: "t".to_owned(), slots: n }
    }

    #[test]
    fn a_log_forgets_its_oldest_events_and_says_how_many() {
        let mut log = Log::default();
        assert_eq!(log.after(0), (Vec::new(), 0));
        for n in 0..EVENTS_MAX as u32 + 5 {
            log.add(n.into(), happened(n));
        }
        let (events, forgotten) = log.after(0);
        assert_eq!((events.len(), forgotten), (Events::PAGE_MAX, 5));
        assert_eq!((events[0].number, &events[0].what), (6, &happened(5)));
        let (events, forgotten) = log.after(log.last - 1);
        assert_eq!((events.len(), forgotten), (1, 0));
        assert_eq!(events[0].number, log.last);
    }

    #[test]
    fn a_number_of_an_earlier_run_begins_anew() {
        let mut log = Log::default();
        log.add(1, happened(1));
        assert_eq!(log.after(900).0.len(), 1);
    }
}
