//! One slot on a few nodes: [`Seat`], [`Proposal`] and [`Holding`] as nodes run them, the writes,
//! and all that may happen to them.
//!
//! A question and its answer are one step, and each may happen at any later time or never: a
//! proposal that was given up is still carried out, a write whose coordinator has lost everything
//! is still stored elsewhere and counted. So what is lost, late or repeated is covered, but for
//! answers that are lost, which change nothing but what the asking node knows.

use std::sync::Arc;

use annulus_proto::{Hlc, NodeId, Version};
use annulus_slots::{
    Ask, Config, Ending, EpochId, Holding, Phase, Proposal, Record, Seat, Standing, Successor,
    Testimony,
};

use crate::search::{Model, fingerprint};

/// What may happen, and how often.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) nodes: u8,
    /// The first epoch's homes; the lineage is founded by the first of them.
    pub(crate) homes: &'static [u8],
    /// Which homes the successors may have.
    pub(crate) targets: &'static [&'static [u8]],
    /// A second cluster, founded by this node alone.
    pub(crate) stranger: Option<u8>,
    pub(crate) proposals: u8,
    /// Whether a successor is proposed, promised and accepted in one step by whoever can: what
    /// homes promise and accept changes nothing for writes.
    pub(crate) at_once: bool,
    /// Plain writes; an `end` is one that has to be found.
    pub(crate) writes: u8,
    /// Conditional operations, all on the same version.
    pub(crate) conditionals: u8,
    pub(crate) losses: u8,
    pub(crate) restarts: u8,
    /// Nodes that an operator gives up. They are silent from then on, until they return.
    pub(crate) forced: &'static [u8],
    /// Answers to a comparison that may be on their way at a time, besides those that come at once.
    pub(crate) late: usize,
    /// Receipts that a leaving node needs to drop its copy; 0 if nobody drops anything.
    pub(crate) k: usize,
    pub(crate) mutant: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    FollowingDoesNotSeal,
    FreshHomesAnswer,
    ForgetfulHomesAnswer,
    LostHomesBecomeReadyAgain,
    FreshHomesAccept,
    MajorityOverTheLiving,
    SuccessorByTheLiving,
    PromisesAreNotRecorded,
    FloorsStayBehind,
    MergedWithoutEnding,
    DropUnasked,
    DroppedCopiesCountAsAsked,
}

#[derive(Clone, Hash)]
pub(crate) struct World {
    nodes: Vec<Node>,
    /// Everything that may be learned.
    configs: Vec<Arc<Config>>,
    /// What was decided about each epoch.
    chosen: Vec<(EpochId, Successor)>,
    ended: Vec<Ending>,
    proposals: Vec<Proposal>,
    proposed: u8,
    writes: Vec<Write>,
    late: Vec<Late>,
    dead: u8,
    losses: u8,
    restarts: u8,
    fault: Option<&'static str>,
}

#[derive(Clone, Hash)]
struct Node {
    seat: Seat,
    holding: Holding,
    /// The writes that it has, as bits.
    data: u8,
    /// The greatest ballot of a conditional operation that it promised. A node's clock keeps it so
    /// high across restarts.
    floor: u8,
}

#[derive(Clone, Hash)]
struct Write {
    under: EpochId,
    majority: u8,
    /// Of a conditional operation.
    ballot: Option<u8>,
    promised: u8,
    seen: u8,
    /// Whether copies are sent.
    sends: bool,
    stored: u8,
    acknowledged: bool,
    /// How many nodes lost a copy.
    lost: u8,
    /// It began after a later epoch had acknowledged something.
    late: bool,
    /// Nobody has to find it: what had it was given up, or went on beside an operator's word.
    excused: bool,
}

/// What a node sent to one that compares.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Late {
    to: u8,
    from: u8,
    ask: Ask,
    testimony: Testimony,
    data: u8,
    floor: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Propose { by: u8, target: Target },
    Prepare { proposal: u8, home: u8 },
    Accept { proposal: u8, home: u8 },
    Learn { node: u8, config: u8 },
    Compare { node: u8, with: u8 },
    Answer { node: u8, with: u8 },
    AnswerArrives(u8),
    Write { by: u8 },
    Condition { by: u8, ballot: u8 },
    Promise { write: u8, home: u8 },
    Store { write: u8, home: u8 },
    Lose(u8),
    Restart(u8),
    Force { by: u8 },
    Return(u8),
    HandOver { from: u8, to: u8 },
    DropUnasked(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Homes(u8),
    EndInto(u8),
}

impl Bounds {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn may_answer(&self, node: &Node, under: EpochId) -> bool {
        if self.is(Mutant::FreshHomesAnswer) {
            return node.seat.may_store(under).is_ok();
        }
        node.seat.may_answer(under).is_ok()
    }

    fn may_store(&self, world: &World, node: &Node, under: EpochId) -> bool {
        let was_home = || {
            let config = world.configs.iter().find(|config| config.id == under);
            config.is_some_and(|config| config.homes.contains(&id_of(&node.seat)))
        };
        node.seat.may_store(under).is_ok() || self.is(Mutant::FollowingDoesNotSeal) && was_home()
    }

    /// A proposal of a node that counts nobody but itself.
    fn alone(&self, seat: &Seat) -> Seat {
        let record = seat.record();
        let config = record
            .config
            .as_deref()
            .map(|config| Arc::new(Config { homes: vec![id_of(seat)], ..config.clone() }));
        Seat::reopened(id_of(seat), Record { config, ..record }, true)
    }

    fn propose(&self, world: &mut World, by: u8, target: Target) {
        let node = &mut world.nodes[usize::from(by)];
        let Some(config) = node.seat.config().cloned() else { return };
        let successor = match target {
            Target::Homes(target) => {
                let homes = self.targets[usize::from(target)].iter().map(|at| id(*at)).collect();
                let mut ended = world.ended.clone();
                if self.is(Mutant::MergedWithoutEnding) {
                    let strange =
                        world.configs.iter().filter(|it| it.id.lineage > config.id.lineage);
                    ended =
                        strange.map(|it| Ending { config: it.clone(), into: config.id }).collect();
                }
                Successor::Next(Arc::new(config.next(homes, &ended)))
            }
            Target::EndInto(other) => {
                Successor::Ended { into: world.configs[usize::from(other)].id }
            }
        };
        let counts_the_living =
            [Mutant::MajorityOverTheLiving, Mutant::SuccessorByTheLiving].map(|it| self.is(it));
        let proposal = if counts_the_living.contains(&true) {
            Proposal::begin(&mut self.alone(&node.seat), successor)
        } else {
            Proposal::begin(&mut node.seat, successor)
        };
        world.proposals.push(proposal.expect("a home proposes"));
        world.proposed += 1;
        if self.at_once {
            for home in 0..self.nodes {
                self.prepare(world, 0, home);
            }
            for home in 0..self.nodes {
                self.accept(world, 0, home);
            }
            world.proposals.clear();
        }
    }

    fn prepare(&self, world: &mut World, number: usize, home: u8) {
        let proposal = &mut world.proposals[number];
        if world.dead >> home & 1 != 0 || proposal.to_accept().is_some() {
            return;
        }
        let seat = &mut world.nodes[usize::from(home)].seat;
        if let Ok(promise) = seat.on_prepare(proposal.under(), proposal.ballot()) {
            proposal.on_promise(id(home), &promise);
        }
    }

    fn accept(&self, world: &mut World, number: usize, home: u8) {
        let proposal = &mut world.proposals[number];
        let Some(successor) = proposal.to_accept().cloned() else { return };
        if world.dead >> home & 1 != 0 || proposal.chosen().is_some() {
            return;
        }
        let seat = &mut world.nodes[usize::from(home)].seat;
        let (under, ballot) = (proposal.under(), proposal.ballot());
        let mut accepted = seat.on_accept(under, ballot, &successor).is_ok();
        if !accepted && self.is(Mutant::FreshHomesAccept) {
            let standing = seat.standing();
            let ready = Record { standing: Standing::Ready, ..seat.record() };
            let mut other = Seat::reopened(id(home), ready, true);
            accepted = other.on_accept(under, ballot, &successor).is_ok();
            *seat = Seat::reopened(id(home), Record { standing, ..other.record() }, true);
        }
        if accepted {
            proposal.on_accepted(id(home), under, ballot);
            self.decide(world, number);
        }
    }

    fn decide(&self, world: &mut World, proposal: usize) {
        let proposal = &world.proposals[proposal];
        let Some(successor) = proposal.chosen().cloned() else { return };
        let under = proposal.under();
        note_chosen(world, under, &successor);
        match successor {
            Successor::Next(config) => {
                for source in config.sources.iter().skip(1) {
                    note_chosen(world, source.id, &Successor::Ended { into: under });
                }
                if !world.configs.contains(&config) {
                    world.configs.push(config);
                }
            }
            Successor::Ended { into } => {
                let config = world.configs.iter().find(|config| config.id == under).cloned();
                let ending = Ending { config: config.expect("it was learned"), into };
                if !world.ended.contains(&ending) {
                    world.ended.push(ending);
                }
            }
        }
    }

    /// A copy reaches a home, or the coordinator itself.
    fn store(&self, world: &mut World, write: u8, home: u8) {
        let node = &mut world.nodes[usize::from(home)];
        let it = &mut world.writes[usize::from(write)];
        node.data |= 1 << write;
        if let Some(ballot) = it.ballot {
            node.floor = node.floor.max(ballot);
        }
        it.stored |= 1 << home;
        let majority = if self.is(Mutant::MajorityOverTheLiving) { 1 } else { it.majority };
        if it.stored.count_ones() < majority.into() || it.acknowledged {
            return;
        }
        it.acknowledged = true;
        let under = it.under;
        let forced_over = world.configs.iter().any(|config| {
            let given_up = |source: &annulus_slots::Source| source.written_off.is_some();
            config.sources.iter().any(|it| it.id == under && given_up(it))
        });
        world.writes[usize::from(write)].excused |= forced_over;
        if world.writes[usize::from(write)].late && !forced_over {
            world.fault = Some("what began after a later epoch had acknowledged was acknowledged");
        }
    }

    fn answer(&self, world: &World, node: u8, with: u8) -> Option<Late> {
        let other = &world.nodes[usize::from(with)];
        let ask = world.nodes[usize::from(node)].seat.ask()?;
        let mut testimony = other.seat.testify(ask.under).ok()?;
        if self.is(Mutant::DroppedCopiesCountAsAsked)
            && let Some((_, standing)) = &mut testimony.before
            && *standing == Standing::HandedOver
        {
            *standing = Standing::Lost;
        }
        let (data, floor) = (other.data, other.floor);
        Some(Late { to: node, from: with, ask, testimony, data, floor })
    }

    fn take_in(&self, world: &mut World, answer: &Late) {
        let asking = &mut world.nodes[usize::from(answer.to)];
        asking.data |= answer.data;
        if !self.is(Mutant::FloorsStayBehind) {
            asking.floor = asking.floor.max(answer.floor);
        }
        asking.seat.on_compared(answer.ask, id(answer.from), answer.testimony);
        if self.is(Mutant::LostHomesBecomeReadyAgain) && asking.seat.standing() == Standing::Lost {
            self.get_back(world, answer.to, answer.ask.under);
        }
    }

    /// A mutant's home that lost its memory compares with as many others as have one in common with
    /// every majority, and with all that answer.
    fn get_back(&self, world: &mut World, at: u8, under: EpochId) {
        let answers = |node: &&Node| node.seat.may_answer(under).is_ok();
        let ready: Vec<Node> = world.nodes.iter().filter(answers).cloned().collect();
        let node = &mut world.nodes[usize::from(at)];
        let homes = node.seat.config().map_or(0, |config| config.homes.len());
        if ready.len() < homes - homes / 2 {
            return;
        }
        for other in ready {
            node.data |= other.data;
            node.floor = node.floor.max(other.floor);
        }
        let record = Record { standing: Standing::Ready, ..node.seat.record() };
        node.seat = Seat::reopened(id(at), record, true);
    }

    fn lose(&self, world: &mut World, at: u8) {
        world.losses -= 1;
        let node = &mut world.nodes[usize::from(at)];
        let data = std::mem::take(&mut node.data);
        if !self.is(Mutant::ForgetfulHomesAnswer) {
            // As a restart without memory does, but what is under way goes on.
            node.seat.lose();
        }
        node.holding = Holding::reopened(node.seat.is_home() && self.k > 0);
        for (bit, write) in world.writes.iter_mut().enumerate() {
            write.lost += data >> bit & 1;
        }
    }

    fn force(&self, world: &mut World, by: u8) {
        let dead: Vec<NodeId> = self.forced.iter().map(|at| id(*at)).collect();
        world.dead = self.forced.iter().fold(0, |dead, at| dead | 1 << at);
        let config = world.nodes[usize::from(by)].seat.config().cloned().expect("a home");
        let lineage = Version::new(Hlc::from_ms(9), id(by));
        let forced = config.forced(lineage, &dead).expect("the one that says so is left");
        let left = |home: &&NodeId| !dead.contains(home);
        let survivors = forced.sources.iter().flat_map(|it| &it.homes).filter(left);
        let held = survivors.fold(0, |held, home| held | world.nodes[index(*home)].data);
        for (bit, write) in world.writes.iter_mut().enumerate() {
            write.excused |= held >> bit & 1 == 0;
        }
        let forced = Arc::new(forced);
        let _ = world.nodes[usize::from(by)].seat.learn(&forced);
        world.configs.push(forced);
    }

    /// A leaving node offers what it has, and gets a receipt.
    fn hand_over(&self, world: &mut World, from: u8, to: u8) {
        let leaving = &mut world.nodes[usize::from(from)];
        let Some(attempt) = leaving.holding.begin_drain(1) else { return };
        let (data, floor) = (leaving.data, leaving.floor);
        let home = &mut world.nodes[usize::from(to)];
        home.data |= data;
        home.floor = home.floor.max(floor);
        let ready = home.seat.is_ready();
        let Some(receipt) = home.holding.on_offer(attempt, id(to), 1, ready) else { return };
        let leaving = &mut world.nodes[usize::from(from)];
        if leaving.holding.on_receipt(receipt, self.k, |_, _| true) {
            leaving.seat.hand_over();
            leaving.data = 0;
        }
    }

    /// Too few that answer have a write that was acknowledged in the same epoch or before.
    fn unseen(&self, world: &World) -> Option<String> {
        for config in &world.configs {
            for (bit, write) in world.writes.iter().enumerate() {
                if !write.acknowledged || write.excused || write.lost >= write.majority {
                    continue;
                }
                let lacks = |home: &&NodeId| {
                    let node = &world.nodes[index(**home)];
                    node.data >> bit & 1 == 0 && self.may_answer(node, config.id)
                };
                let lacking = config.homes.iter().filter(lacks).count();
                if lacking >= self.quorum(config)
                    && descends(&world.configs, config.id, write.under)
                {
                    return Some(format!("write {bit} is not seen in {}", config.id.number));
                }
            }
        }
        None
    }

    /// Dropping leaves as many copies as receipts were asked for, or as acknowledged the write.
    fn too_few(&self, world: &World) -> Option<String> {
        for (bit, write) in world.writes.iter().enumerate() {
            let has = |node: &&Node| node.data >> bit & 1 != 0;
            let copies = world.nodes.iter().filter(has).count();
            let due = self.k.min(write.majority.into());
            if write.acknowledged && copies + usize::from(write.lost) < due {
                return Some(format!("write {bit} has {copies} copies and lost {}", write.lost));
            }
        }
        None
    }

    fn quorum(&self, config: &Config) -> usize {
        if self.is(Mutant::MajorityOverTheLiving) { 1 } else { config.majority() }
    }

    /// Conditional operations on one version: one at most takes effect.
    fn doubled(&self, world: &World) -> Option<String> {
        for (bit, write) in world.writes.iter().enumerate() {
            let Some(ballot) = write.ballot else { continue };
            if !write.acknowledged || write.excused || write.lost >= write.majority {
                continue;
            }
            for (other_bit, other) in world.writes.iter().enumerate() {
                let Some(theirs) = other.ballot.filter(|_| other_bit != bit) else { continue };
                let related = descends(&world.configs, other.under, write.under)
                    || descends(&world.configs, write.under, other.under);
                let supersedes = theirs > ballot && other.stored != 0;
                if related && (other.acknowledged || supersedes) && other.lost < other.majority {
                    return Some(format!("both {bit} and {other_bit} took effect"));
                }
            }
        }
        None
    }
}

impl Model for Bounds {
    type State = World;
    type Step = Step;

    fn start(&self) -> World {
        let lineage = Version::new(Hlc::from_ms(1), id(self.homes[0]));
        let homes = self.homes.iter().map(|at| id(*at)).collect();
        let founded = Arc::new(Config { homes, ..Config::founding(lineage) });
        let mut configs = vec![founded.clone()];
        let node = |at: u8| {
            let mut seat = Seat::new(id(at));
            let mut holding = Holding::new();
            if self.homes.contains(&at) {
                let record = Record {
                    config: Some(founded.clone()),
                    standing: Standing::Ready,
                    ..seat.record()
                };
                seat = Seat::reopened(id(at), record, true);
                holding = Holding::reopened(self.k > 0);
            }
            Node { seat, holding, data: 0, floor: 0 }
        };
        let mut nodes: Vec<Node> = (0..self.nodes).map(node).collect();
        if let Some(stranger) = self.stranger {
            let config = Config::founding(Version::new(Hlc::from_ms(2), id(stranger)));
            configs.push(Arc::new(config));
            nodes[usize::from(stranger)].seat = Seat::founded(configs[1].clone());
            nodes[usize::from(stranger)].holding = Holding::reopened(self.k > 0);
        }
        World {
            nodes,
            configs,
            chosen: Vec::new(),
            ended: Vec::new(),
            proposals: Vec::new(),
            proposed: 0,
            writes: Vec::new(),
            late: Vec::new(),
            dead: 0,
            losses: self.losses,
            restarts: self.restarts,
            fault: None,
        }
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_up = |at: usize| world.dead >> at & 1 == 0;
        let up = || (0..).zip(&world.nodes).filter(|(at, _)| is_up(usize::from(*at)));
        for (at, node) in up() {
            let config = node.seat.config();
            if node.seat.is_home() && world.proposed < self.proposals {
                self.proposing(world, at, &mut steps);
            }
            for (number, config) in (0..).zip(&world.configs) {
                if node.seat.meet(config) == annulus_slots::Meeting::WeAreBehind {
                    // A node that was never a home learns what makes it one, and what its copy is
                    // for.
                    let named = config.homes.contains(&id(at));
                    if named || node.seat.config().is_some() {
                        steps.push(Step::Learn { node: at, config: number });
                    }
                }
            }
            let mut wanted = node.seat.wanted();
            if self.writes + self.conditionals == 0 {
                // There is nothing to get.
                wanted.clear();
            }
            if self.is(Mutant::LostHomesBecomeReadyAgain)
                && node.seat.standing() == Standing::Lost
                && let Some(config) = config
            {
                wanted.extend(config.homes.iter().filter(|home| **home != id(at)));
            }
            for with in wanted.into_iter().map(index).filter(|with| is_up(*with)) {
                let with = with as u8;
                if self.answer(world, at, with).is_some() {
                    steps.push(Step::Compare { node: at, with });
                    if world.late.len() < self.late {
                        steps.push(Step::Answer { node: at, with });
                    }
                }
            }
            if let Some(under) = config.map(|config| config.id)
                && self.may_answer(node, under)
            {
                let count = |conditional| {
                    let counted = |it: &&Write| it.ballot.is_some() == conditional;
                    world.writes.iter().filter(counted).count()
                };
                if count(false) < self.writes.into() {
                    steps.push(Step::Write { by: at });
                }
                if count(true) < self.conditionals.into() {
                    let taken =
                        |ballot: &u8| world.writes.iter().all(|it| it.ballot != Some(*ballot));
                    let ballots = (1..=self.conditionals).filter(taken);
                    let high = ballots.filter(|ballot| *ballot > node.floor);
                    steps.extend(high.map(|ballot| Step::Condition { by: at, ballot }));
                }
            }
            if world.losses > 0 && (node.data != 0 || node.seat.is_home()) {
                steps.push(Step::Lose(at));
            }
            if world.restarts > 0 && node.seat != self.restarted(node) {
                steps.push(Step::Restart(at));
            }
            if !self.forced.is_empty()
                && !self.forced.contains(&at)
                && node.seat.is_home()
                && world.configs.iter().all(|config| config.id.lineage.hlc != Hlc::from_ms(9))
            {
                steps.push(Step::Force { by: at });
            }
            if self.k > 0 && !node.seat.is_home() && node.holding.phase() != Phase::None {
                for (to, home) in up() {
                    if home.seat.is_ready() && home.holding.may_store() {
                        steps.push(Step::HandOver { from: at, to });
                    }
                }
                if self.is(Mutant::DropUnasked) {
                    steps.push(Step::DropUnasked(at));
                }
            }
        }
        for (number, proposal) in (0..).zip(&world.proposals) {
            if proposal.chosen().is_some() {
                continue;
            }
            let open = proposal.homes().iter().filter(|home| !proposal.has_answer_of(**home));
            for home in open.map(|home| index(*home)).filter(|home| is_up(*home)) {
                let home = home as u8;
                steps.push(match proposal.to_accept() {
                    None => Step::Prepare { proposal: number, home },
                    Some(_) => Step::Accept { proposal: number, home },
                });
            }
        }
        for (number, write) in (0..).zip(&world.writes) {
            if write.acknowledged && !self.is(Mutant::MajorityOverTheLiving) {
                continue;
            }
            for (home, node) in up() {
                if write.sends {
                    let new = write.stored >> home & 1 == 0;
                    if new
                        && self.may_store(world, node, write.under)
                        && self.floor_allows(node, write)
                    {
                        steps.push(Step::Store { write: number, home });
                    }
                } else if write.promised >> home & 1 == 0
                    && self.may_answer(node, write.under)
                    && write.ballot.is_some_and(|ballot| ballot > node.floor)
                {
                    steps.push(Step::Promise { write: number, home });
                }
            }
        }
        for (index, answer) in (0..).zip(&world.late) {
            if is_up(answer.to.into()) {
                steps.push(Step::AnswerArrives(index));
            }
        }
        for at in (0..self.nodes).filter(|at| !is_up(usize::from(*at))) {
            steps.push(Step::Return(at));
        }
        steps
    }

    fn apply(&self, world: &mut World, step: Step) {
        match step {
            Step::Propose { by, target } => self.propose(world, by, target),
            Step::Prepare { proposal, home } => self.prepare(world, proposal.into(), home),
            Step::Accept { proposal, home } => self.accept(world, proposal.into(), home),
            Step::Learn { node, config } => {
                let config = world.configs[usize::from(config)].clone();
                let node = &mut world.nodes[usize::from(node)];
                node.seat.learn(&config).expect("it is newer");
                if node.seat.is_home() && self.k > 0 {
                    node.holding.take_up();
                }
            }
            Step::Compare { node, with } => {
                let answer = self.answer(world, node, with).expect("it answers");
                self.take_in(world, &answer);
            }
            Step::Answer { node, with } => {
                let answer = self.answer(world, node, with).expect("it answers");
                world.late.push(answer);
            }
            Step::AnswerArrives(index) => {
                let answer = world.late.remove(index.into());
                self.take_in(world, &answer);
            }
            Step::Write { by } | Step::Condition { by, .. } => {
                let node = &mut world.nodes[usize::from(by)];
                let config = node.seat.config().expect("a home").clone();
                let ballot =
                    if let Step::Condition { ballot, .. } = step { Some(ballot) } else { None };
                if let Some(ballot) = ballot {
                    node.floor = ballot;
                }
                let later = |other: &Write| {
                    let is_other = other.acknowledged && other.under != config.id;
                    is_other && descends(&world.configs, other.under, config.id)
                };
                let late = world.writes.iter().any(later);
                world.writes.push(Write {
                    under: config.id,
                    late,
                    majority: config.majority() as u8,
                    ballot,
                    promised: 1 << by,
                    seen: node.data,
                    sends: ballot.is_none(),
                    stored: 0,
                    acknowledged: false,
                    lost: 0,
                    excused: false,
                });
                let write = world.writes.len() as u8 - 1;
                if ballot.is_none() {
                    self.store(world, write, by);
                } else {
                    self.judge(world, write);
                }
            }
            Step::Promise { write, home } => {
                let node = &mut world.nodes[usize::from(home)];
                let it = &mut world.writes[usize::from(write)];
                node.floor = it.ballot.expect("a conditional operation");
                it.promised |= 1 << home;
                it.seen |= node.data;
                self.judge(world, write);
            }
            Step::Store { write, home } => self.store(world, write, home),
            Step::Lose(at) => self.lose(world, at),
            Step::Restart(at) => {
                world.restarts -= 1;
                // Nobody waits for answers to questions of an earlier run.
                world.late.retain(|answer| answer.to != at);
                let node = &mut world.nodes[usize::from(at)];
                node.seat = self.restarted(node);
                node.holding = Holding::reopened(node.holding.phase() != Phase::None);
            }
            Step::Force { by } => self.force(world, by),
            Step::Return(at) => world.dead &= !(1 << at),
            Step::HandOver { from, to } => self.hand_over(world, from, to),
            Step::DropUnasked(at) => {
                let node = &mut world.nodes[usize::from(at)];
                node.holding.lose();
                node.data = 0;
            }
        }
    }

    fn broken(&self, world: &World) -> Option<String> {
        let fault = world.fault.map(str::to_owned);
        fault
            .or_else(|| self.unseen(world))
            .or_else(|| self.doubled(world))
            .or_else(|| self.too_few(world))
    }

    fn fingerprint(&self, world: &World) -> u128 {
        fingerprint(world)
    }
}

impl Bounds {
    fn proposing(&self, world: &World, at: u8, steps: &mut Vec<Step>) {
        let seat = &world.nodes[usize::from(at)].seat;
        let Some(config) = seat.config() else { return };
        for target in 0..self.targets.len() as u8 {
            steps.push(Step::Propose { by: at, target: Target::Homes(target) });
        }
        for (number, other) in (0..).zip(&world.configs) {
            if seat.meet(other) == annulus_slots::Meeting::WeYield && config.id != other.id {
                steps.push(Step::Propose { by: at, target: Target::EndInto(number) });
            }
        }
    }

    fn floor_allows(&self, node: &Node, write: &Write) -> bool {
        write.ballot.is_none_or(|ballot| node.floor <= ballot)
    }

    /// Once a majority promised: whether the condition is true decides.
    fn judge(&self, world: &mut World, write: u8) {
        let conditional = |bit: usize| world.writes[bit].ballot.is_some();
        let others = (0..world.writes.len()).filter(|bit| conditional(*bit));
        let taken = others.fold(0u8, |taken, bit| taken | 1 << bit);
        let it = &mut world.writes[usize::from(write)];
        let majority = if self.is(Mutant::MajorityOverTheLiving) { 1 } else { it.majority };
        it.sends = it.promised.count_ones() >= majority.into() && it.seen & taken == 0;
    }

    fn restarted(&self, node: &Node) -> Seat {
        let mut record = node.seat.record();
        if self.is(Mutant::PromisesAreNotRecorded) {
            record.promised = None;
        }
        Seat::reopened(id_of(&node.seat), record, true)
    }
}

/// Whether an epoch is another one, or comes after it.
fn descends(configs: &[Arc<Config>], later: EpochId, earlier: EpochId) -> bool {
    later == earlier
        || configs
            .iter()
            .filter(|config| config.id == later)
            .flat_map(|config| &config.sources)
            .any(|source| descends(configs, source.id, earlier))
}

fn note_chosen(world: &mut World, under: EpochId, successor: &Successor) {
    match world.chosen.iter().find(|(of, _)| *of == under) {
        None => world.chosen.push((under, successor.clone())),
        Some((_, Successor::Ended { .. })) if matches!(successor, Successor::Ended { .. }) => {}
        Some((_, known)) if known == successor => {}
        Some(_) => world.fault = Some("an epoch has two successors"),
    }
}

fn id_of(seat: &Seat) -> NodeId {
    seat.next_ballot().node
}

fn id(at: u8) -> NodeId {
    NodeId::from_bits(u64::from(at) + 1)
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.bits() - 1).expect("a few nodes")
}
