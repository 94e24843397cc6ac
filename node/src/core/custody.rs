//! What a node does with its copies of the slots of one table or slot set: which it holds, which it gives
//! away, to whom it offers them and who said that he has them.
//!
//! The rules for one slot are [`Holding`]'s; this keeps one for each and says what is next. It knows
//! nothing of what is in a slot, nor who may have it: that is asked of its [`Keeper`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use annulus_proto::NodeId;
use annulus_proto::message::Message;
use annulus_slots::{Attempt, Holding, Phase, Receipt};

use super::standing::Standing;

/// Whose slots change hands: a table, or a slot set of an application.
///
/// Slots go by their places: of a table they are the ring's, of a slot set its own.
pub(super) trait Keeper {
    /// What this node does with its copies.
    fn custody(&self) -> &Custody;
    /// The same, to change it.
    fn custody_mut(&mut self) -> &mut Custody;
    /// The homes of a slot, the primary first.
    fn homes(&self, standing: &Standing, slot: u16) -> Vec<NodeId>;
    /// Whether this node is to keep its copy of a slot, whatever receipts there are.
    fn keeps(&self, slot: u16) -> bool;
    /// From how many homes there have to be receipts: k.
    fn receipts_min(&self) -> usize;
    /// How a slot is offered.
    fn offer(&self, slot: u16, attempt: Attempt) -> Message;
    /// The leaving slots of which nothing is left, so that nobody has to take anything.
    fn empty_slots(&self) -> Vec<u16>;
    /// Whether homes may be offered slots unasked, and look themselves whether they have everything. Else
    /// it has to be known before ([`Custody::note_even`]).
    fn homes_look(&self) -> bool;
}

/// Copies of slots, by their places.
#[derive(Debug)]
pub(super) struct Custody {
    holdings: Vec<Holding>,
    /// The slots that are given away.
    leaving: BTreeSet<u16>,
    /// Which homes hold all that was here in which attempt, with the incarnation they had.
    even: BTreeMap<(u16, NodeId), (Attempt, u64)>,
    /// Which of them to offer next.
    queue: VecDeque<(u16, NodeId)>,
    /// Offers that are not answered yet.
    offered: BTreeSet<(u16, NodeId)>,
    /// When the next part of them is offered again, as far as they gave no receipt, and from which slot on.
    again: Duration,
    again_from: usize,
    given_up: u64,
}

/// How many offers may wait for their answers.
const OFFERS_MAX: usize = 64;
/// After how long homes that were not ready are asked again: in so many parts, one after the other.
const OFFER_AGAIN: Duration = Duration::from_millis(300);
const OFFER_PARTS: u32 = 3;

impl Custody {
    /// Of so many slots, none of which is held.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            holdings: vec![Holding::new(); slots],
            leaving: BTreeSet::new(),
            even: BTreeMap::new(),
            queue: VecDeque::new(),
            offered: BTreeSet::new(),
            again: Duration::ZERO,
            again_from: 0,
            given_up: 0,
        }
    }

    /// What becomes of the copy of a slot.
    pub(super) fn holding(&self, slot: u16) -> &Holding {
        &self.holdings[usize::from(slot)]
    }

    /// The slots that are given away, in ascending order.
    pub(super) fn leaving(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        self.leaving.iter().copied()
    }

    /// How many were given up so far.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Holds a slot from now on. An attempt to give it away is over.
    pub(super) fn hold(&mut self, slot: u16) {
        let holding = &mut self.holdings[usize::from(slot)];
        if holding.phase() != Phase::Hold {
            holding.take_up();
            self.forget(slot);
        }
    }

    /// Begins to give away what is here of a slot, if that is not under way. There is something, whatever it
    /// was: from an earlier run, or of others' word.
    pub(super) fn leave(&mut self, slot: u16, incarnation: u64) {
        let holding = &mut self.holdings[usize::from(slot)];
        if holding.phase() == Phase::None {
            holding.take_up();
        }
        if holding.phase() == Phase::Hold {
            holding.begin_drain(incarnation);
            self.leaving.insert(slot);
        }
    }

    /// Nothing is here of a slot, or nothing any more.
    pub(super) fn lose(&mut self, slot: u16) {
        self.holdings[usize::from(slot)].lose();
        self.forget(slot);
    }

    /// What is here of a leaving slot has changed: what was receipted counts no more.
    pub(super) fn renew(&mut self, slot: u16, incarnation: u64) {
        self.holdings[usize::from(slot)].renew(incarnation);
    }

    /// A home of that incarnation holds everything that was here of a slot when this attempt began.
    pub(super) fn note_even(
        &mut self,
        slot: u16,
        home: NodeId,
        attempt: Attempt,
        incarnation: u64,
    ) {
        if self.holding(slot).attempt() == Some(attempt) {
            self.even.insert((slot, home), (attempt, incarnation));
            self.queue.push_back((slot, home));
        }
    }

    /// Whether a home in that run of it is known to hold all that was here of a slot when its attempt began.
    pub(super) fn is_even(&self, slot: u16, home: NodeId, incarnation: u64) -> bool {
        let attempt = self.holding(slot).attempt();
        attempt.is_some_and(|it| self.even.get(&(slot, home)) == Some(&(it, incarnation)))
    }

    /// The same of homes who look themselves, or of whom it is not known and taken for granted.
    pub(super) fn count_as_even(&mut self, slot: u16, homes: &[(NodeId, u64)]) {
        let Some(attempt) = self.holding(slot).attempt() else { return };
        for (home, incarnation) in homes {
            self.even.insert((slot, *home), (attempt, *incarnation));
        }
    }

    /// Whether it is time to offer a part again of what nobody gave a receipt for.
    pub(super) fn is_time(&self, now: Duration) -> bool {
        self.queue.is_empty() && self.again <= now && !self.leaving.is_empty()
    }

    /// Offers a part again of what there is no receipt for.
    pub(super) fn offer_again(&mut self, now: Duration) {
        self.again = now + OFFER_AGAIN / OFFER_PARTS;
        let from = self.again_from;
        let to = from + self.holdings.len().div_ceil(OFFER_PARTS as usize);
        self.again_from = if to < self.holdings.len() { to } else { 0 };
        let (first, none) = (from as u16, NodeId::from_bits(0));
        let of_part = self.even.range((first, none)..);
        let of_part = of_part.take_while(|((slot, _), _)| usize::from(*slot) < to);
        let lacks_receipt = |&((slot, home), (_, incarnation)): &(&(u16, NodeId), &(_, u64))| {
            let mut receipts = self.holdings[usize::from(*slot)].receipts().iter();
            !receipts.any(|it| it.from == *home && it.incarnation == *incarnation)
        };
        self.queue.extend(of_part.filter(lacks_receipt).map(|(key, _)| *key));
    }

    /// What to offer next, to whom and in which attempt, if its [`Keeper`] still counts that one as a home;
    /// `None` if there is nothing, or enough is under way.
    pub(super) fn next_offer(&mut self) -> Option<(u16, NodeId, Attempt)> {
        while self.offered.len() < OFFERS_MAX {
            let key = self.queue.pop_front()?;
            let Some((attempt, _)) = self.even.get(&key).copied() else { continue };
            if self.offered.contains(&key) {
                continue;
            }
            if self.holding(key.0).attempt() == Some(attempt) {
                return Some((key.0, key.1, attempt));
            }
            self.even.remove(&key);
        }
        None
    }

    /// An offer is on its way.
    pub(super) fn offer_left(&mut self, slot: u16, home: NodeId) {
        self.offered.insert((slot, home));
    }

    /// An offer was answered, or will not be.
    pub(super) fn offer_answered(&mut self, slot: u16, home: NodeId) {
        self.offered.remove(&(slot, home));
    }

    /// Whether a receipt is from the run of a home in which it was known to hold everything. If not, it has
    /// to be known anew.
    pub(super) fn is_from_even(&mut self, slot: u16, receipt: &Receipt) -> bool {
        let key = (slot, receipt.from);
        let is_even = self.even.get(&key) == Some(&(receipt.attempt, receipt.incarnation));
        if !is_even {
            self.even.remove(&key);
        }
        is_even
    }

    /// Takes in a receipt, of which `receipts_min` have to be there that count. Returns whether the copy may
    /// go now; if so it counts as gone.
    pub(super) fn on_receipt(
        &mut self,
        slot: u16,
        receipt: Receipt,
        receipts_min: usize,
        is_current: impl Fn(NodeId, u64) -> bool,
    ) -> bool {
        let holding = &mut self.holdings[usize::from(slot)];
        let enough = holding.on_receipt(receipt, receipts_min, is_current);
        if enough {
            self.forget(slot);
            self.given_up += 1;
        }
        enough
    }

    /// A copy that might go did not: it is held as before, and nothing was given up.
    pub(super) fn keep_after_all(&mut self, slot: u16) {
        self.not_given_up();
        self.hold(slot);
    }

    /// A copy that might go did not, and is held again already.
    pub(super) fn not_given_up(&mut self) {
        self.given_up -= 1;
    }

    fn forget(&mut self, slot: u16) {
        self.leaving.remove(&slot);
        let of_slot = (slot, NodeId::from_bits(0))..=(slot, NodeId::from_bits(u64::MAX));
        let keys: Vec<_> = self.even.range(of_slot).map(|(key, _)| *key).collect();
        for key in keys {
            self.even.remove(&key);
        }
    }
}
