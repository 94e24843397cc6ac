//! All that can happen to a few writes of one slot that nodes hold and give away, over [`Holding`]
//! as nodes run it.
//!
//! Any node may at any time believe that it is a home, and at any time that it is not. Messages are
//! never taken away: each may arrive at any later time, any number of times, or never. Nodes lose
//! their memory, and restart with it; others hear of that at any later time.

use crate::search::{LONG, Model, fails, fingerprint, holds, holds_as_far_as};
use annulus_proto::NodeId;
use annulus_slots::{Attempt, Holding, Phase, Receipt};

/// A node drops what it has when, and only when, `k` others gave it receipts that count, and a
/// write that was on `k` nodes stays on as many, less those that lost their memory.
struct Slot {
    nodes: u8,
    k: usize,
    writes: u8,
    drains: u8,
    losses: u8,
    restarts: u8,
    mutant: Option<Mutant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mutant {
    LetGoByTable,
    ReceiptsWhileDraining,
    ReceiptsSurviveAnAbort,
    ReceiptsSurviveAChange,
    AttemptsRepeatAfterARestart,
    ForgetfulNodeGivesReceipts,
    StaleReceiptsCount,
}

#[derive(Clone, Hash)]
struct State {
    nodes: Vec<Node>,
    offers: Vec<Offer>,
    receipts: Vec<(u8, Receipt)>,
    /// Of each write that has to survive: how many of its holders lost their memory since.
    settled: Vec<Option<u8>>,
    drains: u8,
    losses: u8,
    restarts: u8,
    fault: bool,
}

#[derive(Clone, Hash)]
struct Node {
    holding: Holding,
    data: u8,
    incarnation: u8,
    /// The first incarnation that still has what it gave receipts for.
    intact_since: u8,
    /// Which incarnation of each node it has heard of.
    known: Vec<u8>,
    /// For a mutant: what was held when a drain was aborted.
    aborted: Option<Holding>,
    /// For a mutant: offers that it remembers to have taken in.
    taken: Vec<Attempt>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Offer {
    from: u8,
    attempt: Attempt,
    data: u8,
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "shown")]
enum Step {
    Write { write: u8, at: u8 },
    MergeWhileDraining { write: u8, at: u8 },
    TakeUp(u8),
    Drain(u8),
    OfferArrives { index: u8, at: u8 },
    ReceiptArrives { index: u8 },
    Lose(u8),
    Restart(u8),
    Hear { at: u8, of: u8 },
    DropUnasked(u8),
}

impl Slot {
    fn has_copies(&self, state: &State, write: u8) -> usize {
        state.nodes.iter().filter(|node| node.data & 1 << write != 0).count()
    }

    fn settle(&self, state: &mut State) {
        for write in 0..self.writes {
            if self.has_copies(state, write) >= self.k {
                state.settled[usize::from(write)].get_or_insert(0);
            }
        }
    }

    fn offer(&self, state: &mut State, at: u8) {
        let node = &state.nodes[usize::from(at)];
        let Some(attempt) = node.holding.attempt() else { return };
        let offer = Offer { from: at, attempt, data: node.data };
        insert(&mut state.offers, offer);
    }

    fn drop_copy(&self, state: &mut State, at: u8, receipts: &[Receipt]) {
        let lost_unheard = |receipt: &&Receipt| {
            let giver = &state.nodes[index(receipt.from)];
            receipt.incarnation < u64::from(giver.intact_since)
                && state.nodes[usize::from(at)].known[index(receipt.from)] < giver.intact_since
        };
        let excused = receipts.iter().filter(lost_unheard).count();
        let data = std::mem::take(&mut state.nodes[usize::from(at)].data);
        for write in (0..self.writes).filter(|write| data & 1 << write != 0) {
            // What a node dropped is as good as written to k.
            state.settled[usize::from(write)].get_or_insert(excused as u8);
        }
        // Receipts of givers that are known to have lost what they had must not have counted.
        let known_lost = |receipt: &Receipt| {
            let giver = &state.nodes[index(receipt.from)];
            receipt.incarnation < u64::from(giver.intact_since)
                && state.nodes[usize::from(at)].known[index(receipt.from)] >= giver.intact_since
        };
        state.fault |= receipts.len() < self.k || receipts.iter().any(known_lost);
    }
}

impl Model for Slot {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let node = Node {
            holding: Holding::reopened(true),
            data: 0,
            incarnation: 1,
            intact_since: 1,
            known: vec![1; self.nodes.into()],
            aborted: None,
            taken: Vec::new(),
        };
        State {
            nodes: vec![node; self.nodes.into()],
            offers: Vec::new(),
            receipts: Vec::new(),
            settled: vec![None; self.writes.into()],
            drains: self.drains,
            losses: self.losses,
            restarts: self.restarts,
            fault: false,
        }
    }

    fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        for (at, node) in (0..).zip(&state.nodes) {
            for write in 0..self.writes {
                let is_new = node.data & 1 << write == 0;
                let settled = state.settled[usize::from(write)].is_some();
                if is_new && !settled && node.holding.may_store() {
                    steps.push(Step::Write { write, at });
                }
                if is_new && state.drains > 0 && node.holding.phase() == Phase::Drain {
                    steps.push(Step::MergeWhileDraining { write, at });
                }
            }
            match node.holding.phase() {
                Phase::Hold if state.drains > 0 => steps.push(Step::Drain(at)),
                Phase::Hold => {}
                Phase::Drain | Phase::None => steps.push(Step::TakeUp(at)),
            }
            if self.mutant == Some(Mutant::LetGoByTable) && node.holding.phase() != Phase::None {
                steps.push(Step::DropUnasked(at));
            }
            if state.losses > 0 && node.data != 0 {
                steps.push(Step::Lose(at));
            }
            if state.restarts > 0 {
                steps.push(Step::Restart(at));
            }
            for (of, other) in (0..).zip(&state.nodes) {
                if node.known[usize::from(of)] < other.incarnation {
                    steps.push(Step::Hear { at, of });
                }
            }
            for (index, offer) in (0..).zip(&state.offers) {
                let takes = node.holding.phase() == Phase::Hold
                    || self.mutant == Some(Mutant::ReceiptsWhileDraining)
                        && node.holding.phase() == Phase::Drain;
                if takes && offer.from != at {
                    steps.push(Step::OfferArrives { index, at });
                }
            }
        }
        for (index, (to, receipt)) in (0..).zip(&state.receipts) {
            let holding = &state.nodes[usize::from(*to)].holding;
            if holding.attempt() == Some(receipt.attempt) {
                steps.push(Step::ReceiptArrives { index });
            }
        }
        steps
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Write { write, at } => {
                state.nodes[usize::from(at)].data |= 1 << write;
                self.settle(state);
            }
            Step::MergeWhileDraining { write, at } => {
                let node = &mut state.nodes[usize::from(at)];
                node.data |= 1 << write;
                if self.mutant != Some(Mutant::ReceiptsSurviveAChange) {
                    node.holding.renew(node.incarnation.into());
                    state.drains -= 1;
                }
                self.settle(state);
                self.offer(state, at);
            }
            Step::TakeUp(at) => {
                let node = &mut state.nodes[usize::from(at)];
                if self.mutant == Some(Mutant::ReceiptsSurviveAnAbort) {
                    node.aborted = Some(node.holding.clone());
                }
                node.holding.take_up();
            }
            Step::Drain(at) => {
                state.drains -= 1;
                let node = &mut state.nodes[usize::from(at)];
                match node.aborted.take() {
                    Some(aborted) if aborted.phase() == Phase::Drain => node.holding = aborted,
                    _ => drop(node.holding.begin_drain(node.incarnation.into())),
                }
                self.offer(state, at);
            }
            Step::OfferArrives { index, at } => {
                let offer = state.offers[usize::from(index)];
                let node = &mut state.nodes[usize::from(at)];
                let remembers = node.taken.contains(&offer.attempt);
                if self.mutant == Some(Mutant::ForgetfulNodeGivesReceipts) && !remembers {
                    node.taken.push(offer.attempt);
                }
                if !remembers {
                    node.data |= offer.data;
                }
                let (me, incarnation) = (id(at), node.incarnation.into());
                let receipt = if self.mutant == Some(Mutant::ReceiptsWhileDraining) {
                    Some(Receipt { from: me, incarnation, attempt: offer.attempt })
                } else {
                    node.holding.on_offer(offer.attempt, me, incarnation, true)
                };
                if let Some(receipt) = receipt
                    && !state.receipts.contains(&(offer.from, receipt))
                {
                    state.receipts.push((offer.from, receipt));
                    state
                        .receipts
                        .sort_by_key(|(to, it)| (*to, it.from, it.incarnation, it.attempt));
                }
                self.settle(state);
            }
            Step::ReceiptArrives { index: number } => {
                let (to, receipt) = state.receipts[usize::from(number)];
                let node = &mut state.nodes[usize::from(to)];
                let known = node.known.clone();
                let mut counted = node.holding.receipts().to_vec();
                let is_current = |from: NodeId, incarnation: u64| {
                    self.mutant == Some(Mutant::StaleReceiptsCount)
                        || incarnation >= known[index(from)].into()
                };
                if node.holding.on_receipt(receipt, self.k, is_current) {
                    counted.retain(|known| known.from != receipt.from);
                    counted.push(receipt);
                    counted.retain(|known| is_current(known.from, known.incarnation));
                    self.drop_copy(state, to, &counted);
                }
            }
            Step::Lose(at) => {
                state.losses -= 1;
                let node = &mut state.nodes[usize::from(at)];
                let data = std::mem::take(&mut node.data);
                node.incarnation += 1;
                node.intact_since = node.incarnation;
                node.known[usize::from(at)] = node.incarnation;
                node.holding = Holding::reopened(false);
                for write in (0..self.writes).filter(|write| data & 1 << write != 0) {
                    if let Some(losses) = &mut state.settled[usize::from(write)] {
                        *losses += 1;
                    }
                }
            }
            Step::Restart(at) => {
                state.restarts -= 1;
                let node = &mut state.nodes[usize::from(at)];
                if self.mutant != Some(Mutant::AttemptsRepeatAfterARestart) {
                    node.incarnation += 1;
                }
                node.known[usize::from(at)] = node.incarnation;
                let has_copy = node.holding.phase() != Phase::None;
                node.holding = Holding::reopened(has_copy);
            }
            Step::Hear { at, of } => {
                let incarnation = state.nodes[usize::from(of)].incarnation;
                state.nodes[usize::from(at)].known[usize::from(of)] = incarnation;
            }
            Step::DropUnasked(at) => {
                let node = &mut state.nodes[usize::from(at)];
                node.holding.lose();
                node.data = 0;
            }
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        if state.fault {
            return Some("a copy was dropped without receipts that count".to_owned());
        }
        (0..self.writes).find_map(|write| {
            let losses = state.settled[usize::from(write)]?;
            let copies = self.has_copies(state, write);
            let too_few = copies + usize::from(losses) < self.k;
            too_few.then(|| format!("write {write} has {copies} copies and lost {losses}"))
        })
    }

    /// Names of nodes mean nothing: states that differ by them alone are one, as far as this finds
    /// them.
    fn fingerprint(&self, state: &State) -> u128 {
        let of_node = |at: u8| {
            let node = &state.nodes[usize::from(at)];
            let offers =
                state.offers.iter().filter(|it| it.from == at).map(|it| (it.attempt, it.data));
            let known_by = state.nodes.iter().map(|it| u32::from(it.known[usize::from(at)]));
            let given = state.receipts.iter().filter(|(_, it)| it.from == id(at)).count();
            let got = state.receipts.iter().filter(|(to, _)| *to == at).count();
            let own = (&node.aborted, &node.taken, node.incarnation, node.intact_since, node.data);
            let attempt = node.holding.attempt();
            let shape = (node.holding.phase(), attempt, node.holding.receipts().len());
            let known: u32 = node.known.iter().map(|it| u32::from(*it)).sum();
            let rest = (known, known_by.sum::<u32>(), given, got);
            fingerprint(&(own, shape, offers.collect::<Vec<_>>(), rest))
        };
        let mut order: Vec<u8> = (0..self.nodes).collect();
        order.sort_by_cached_key(|at| of_node(*at));
        let mut names = [0u8; 8];
        for (name, at) in (0..).zip(&order) {
            names[usize::from(*at)] = name;
        }
        let renamed =
            |receipt: &Receipt| (names[index(receipt.from)], receipt.incarnation, receipt.attempt);
        let nodes: Vec<_> = order
            .iter()
            .map(|at| {
                let node = &state.nodes[usize::from(*at)];
                let known: Vec<u8> = order.iter().map(|of| node.known[usize::from(*of)]).collect();
                let mut receipts: Vec<_> = node.holding.receipts().iter().map(renamed).collect();
                receipts.sort_unstable();
                // The count of attempts made so far is not in sight, but offers are.
                let holding = (node.holding.phase(), node.holding.attempt(), receipts);
                let own = (&node.aborted, &node.taken, node.incarnation, node.intact_since);
                (own, node.data, known, holding)
            })
            .collect();
        let mut offers: Vec<_> = state
            .offers
            .iter()
            .map(|it| (names[usize::from(it.from)], it.attempt, it.data))
            .collect();
        offers.sort_unstable();
        let mut receipts: Vec<_> =
            state.receipts.iter().map(|(to, it)| (names[usize::from(*to)], renamed(it))).collect();
        receipts.sort_unstable();
        let rest = (&state.settled, state.drains, state.losses, state.restarts, state.fault);
        fingerprint(&(nodes, offers, receipts, rest))
    }
}

fn id(at: u8) -> NodeId {
    NodeId::from_bits(u64::from(at) + 1)
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.bits() - 1).expect("a few nodes")
}

fn insert<T: Ord>(set: &mut Vec<T>, item: T) {
    if let Err(place) = set.binary_search(&item) {
        set.insert(place, item);
    }
}

const SMALL: Slot =
    Slot { nodes: 4, k: 2, writes: 1, drains: 3, losses: 0, restarts: 0, mutant: None };

#[test]
fn a_write_stays_on_k_nodes_however_views_differ() {
    holds("4 nodes, k 2, 1 write, 3 drains", &SMALL, 3_000_000);
    let slot = Slot { k: 3, ..SMALL };
    holds("4 nodes, k 3, 1 write, 3 drains", &slot, 3_000_000);
    let slot = Slot { nodes: 5, k: 3, drains: 2, ..SMALL };
    holds("5 nodes, k 3, 1 write, 2 drains", &slot, 3_000_000);
    let slot = Slot { writes: 2, drains: 2, ..SMALL };
    holds("4 nodes, k 2, 2 writes, 2 drains", &slot, 3_000_000);
}

#[test]
fn a_write_stays_on_k_nodes_less_those_that_lost_their_memory() {
    let slot = Slot { drains: 2, losses: 1, ..SMALL };
    holds("4 nodes, k 2, 2 drains, 1 loss", &slot, 3_000_000);
    let slot = Slot { drains: 2, restarts: 1, ..SMALL };
    holds("4 nodes, k 2, 2 drains, 1 restart", &slot, 3_000_000);
}

#[test]
#[ignore = "minutes, and gigabytes"]
fn a_write_stays_on_k_nodes_at_larger_bounds() {
    let all = [
        ("4 nodes, k 2, 1 write, 4 drains", Slot { drains: 4, ..SMALL }),
        ("4 nodes, k 2, 1 write, 3 drains, 1 loss", Slot { losses: 1, ..SMALL }),
        (
            "4 nodes, k 2, 1 write, 2 drains, 1 loss, 1 restart",
            Slot { drains: 2, losses: 1, restarts: 1, ..SMALL },
        ),
        ("4 nodes, k 2, 2 writes, 3 drains", Slot { writes: 2, ..SMALL }),
        ("5 nodes, k 2, 1 write, 3 drains", Slot { nodes: 5, ..SMALL }),
        ("5 nodes, k 3, 1 write, 3 drains", Slot { nodes: 5, k: 3, ..SMALL }),
        (
            "5 nodes, k 3, 1 write, 2 drains, 1 loss",
            Slot { nodes: 5, k: 3, drains: 2, losses: 1, ..SMALL },
        ),
    ];
    for (what, slot) in all {
        holds_as_far_as(what, &slot, LONG);
    }
}

fn mutant(mutant: Mutant) -> Slot {
    Slot { mutant: Some(mutant), ..SMALL }
}

#[test]
fn letting_go_because_a_table_said_so_is_caught() {
    fails("let go by table", &mutant(Mutant::LetGoByTable), 1_000_000);
}

#[test]
fn receipts_of_draining_nodes_are_caught() {
    fails("receipts while draining", &mutant(Mutant::ReceiptsWhileDraining), 3_000_000);
}

#[test]
fn receipts_that_survive_an_abort_are_caught() {
    fails("receipts survive an abort", &mutant(Mutant::ReceiptsSurviveAnAbort), 3_000_000);
}

#[test]
fn receipts_that_survive_a_change_are_caught() {
    fails("receipts survive a change", &mutant(Mutant::ReceiptsSurviveAChange), 3_000_000);
}

#[test]
fn attempts_that_repeat_after_a_restart_are_caught() {
    let slot = Slot { restarts: 1, ..mutant(Mutant::AttemptsRepeatAfterARestart) };
    fails("attempts repeat after a restart", &slot, 5_000_000);
}

#[test]
fn receipts_of_a_node_that_forgot_are_caught() {
    let slot = Slot { losses: 1, ..mutant(Mutant::ForgetfulNodeGivesReceipts) };
    fails("a forgetful node gives receipts", &slot, 5_000_000);
}

#[test]
fn receipts_from_before_a_known_loss_are_caught() {
    let slot = Slot { losses: 1, ..mutant(Mutant::StaleReceiptsCount) };
    fails("receipts from before a known loss count", &slot, 5_000_000);
}
