//! Hand-over by receipts: when a node may drop what it holds of a slot.

use annulus_proto::NodeId;

/// What one node does with its copy of one slot: holds it, gives it away, or has none.
///
/// A write that was ever on `k` nodes, or on one that completed a drop, is at every moment on at
/// least `k` of them less those that lost their memory since, whatever anybody's view says and
/// however messages are lost, delayed and repeated. Why: of the drops that were completed take the
/// one that began last. Its `k` givers held on after that, so none of them has dropped since.
///
/// What the node owes to it:
/// - It *offers* to any node it likes, in any order, as often as it likes ([`Holding::attempt`]),
///   and sends along what it has. The other answers only once it holds all of that
///   ([`Holding::on_offer`]).
/// - Whatever it merges while draining, tombstones among it, it reports ([`Holding::renew`]):
///   receipts speak of what was offered, not of what came later.
/// - While draining it refuses writes, and says *absent* of nothing.
/// - A node that lost its copy starts over with [`Holding::reopened`], under a new incarnation.
///
/// Costs 24 bytes, and a box while draining.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holding {
    state: State,
    /// Of this run.
    attempts: u64,
}

/// The states of a [`Holding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Holds nothing, or nothing that others may count on.
    None,
    /// Holds its copy, and takes writes.
    Hold,
    /// Holds its copy, and gives it away.
    Drain,
}

/// Which attempt to give a slot away. No two attempts of one node for one slot are equal: the
/// incarnation is on disk before a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The leaving node's.
    pub incarnation: u64,
    /// Of the attempts of that run for this slot, from 1.
    pub counter: u64,
}

/// A node's statement that it holds everything that was offered in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Who holds it.
    pub from: NodeId,
    /// That node's incarnation when it gave the receipt.
    pub incarnation: u64,
    /// The attempt.
    pub attempt: Attempt,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    None,
    Hold,
    Drain(Box<Drain>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Drain {
    attempt: Attempt,
    receipts: Vec<Receipt>,
}

impl Holding {
    /// Of a node that has no copy.
    pub fn new() -> Self {
        Self::default()
    }

    /// After a restart: with or without a copy. A copy that survived is held again; if it is to be
    /// given away, that is a new attempt.
    pub fn reopened(has_copy: bool) -> Self {
        Self { state: if has_copy { State::Hold } else { State::None }, attempts: 0 }
    }

    /// What it does.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::None => Phase::None,
            State::Hold => Phase::Hold,
            State::Drain(_) => Phase::Drain,
        }
    }

    /// Whether writes may be stored, and counted as held. While draining they must not be.
    pub fn may_store(&self) -> bool {
        self.phase() == Phase::Hold
    }

    /// The node is to hold the slot: it is a home, or was sent something. An attempt to give it
    /// away is over, and its receipts are void.
    pub fn take_up(&mut self) {
        self.state = State::Hold;
    }

    /// The node is no home of the slot any more, and begins to give its copy away; nothing happens
    /// if it has none, or does so already. `incarnation` is its own.
    pub fn begin_drain(&mut self, incarnation: u64) -> Option<Attempt> {
        match self.state {
            State::None => None,
            State::Hold => Some(self.next_attempt(incarnation)),
            State::Drain(_) => self.attempt(),
        }
    }

    /// What was held changed. While draining that begins a new attempt, and what was receipted
    /// counts no more; else it does not matter.
    pub fn renew(&mut self, incarnation: u64) -> Option<Attempt> {
        matches!(self.state, State::Drain(_)).then(|| self.next_attempt(incarnation))
    }

    /// The attempt under way, to be offered.
    pub fn attempt(&self) -> Option<Attempt> {
        match &self.state {
            State::Drain(drain) => Some(drain.attempt),
            _ => None,
        }
    }

    /// The receipts of the attempt under way, whether they still count or not.
    pub fn receipts(&self) -> &[Receipt] {
        match &self.state {
            State::Drain(drain) => &drain.receipts,
            _ => &[],
        }
    }

    /// The answer to another node's offer, once everything that came with it is stored here. None
    /// while this node gives its own copy away or has none, nor unless it is `ready`
    /// ([`crate::Seat::is_ready`]).
    pub fn on_offer(
        &self,
        attempt: Attempt,
        me: NodeId,
        incarnation: u64,
        ready: bool,
    ) -> Option<Receipt> {
        let holds = self.phase() == Phase::Hold;
        (holds && ready).then_some(Receipt { from: me, incarnation, attempt })
    }

    /// Takes in a receipt, and says whether the copy may be dropped now. If so it counts as
    /// dropped: [`Holding::phase`] is `None`.
    ///
    /// `is_current` says whether a node is, as far as this one knows, still in the run of that
    /// incarnation and a home: receipts of others are forgotten, for they may have lost what they
    /// had. `receipts_min` is `k`, at least 1.
    pub fn on_receipt(
        &mut self,
        receipt: Receipt,
        receipts_min: usize,
        is_current: impl Fn(NodeId, u64) -> bool,
    ) -> bool {
        let State::Drain(drain) = &mut self.state else { return false };
        if receipt.attempt != drain.attempt {
            return false;
        }
        let of_this_giver = |known: &&mut Receipt| known.from == receipt.from;
        match drain.receipts.iter_mut().find(of_this_giver) {
            Some(known) => known.incarnation = known.incarnation.max(receipt.incarnation),
            None => drain.receipts.push(receipt),
        }
        drain.receipts.retain(|known| is_current(known.from, known.incarnation));
        drain.receipts.sort_unstable_by_key(|known| known.from);
        let enough = drain.receipts.len() >= receipts_min.max(1);
        if enough {
            self.state = State::None;
        }
        enough
    }

    /// The copy was lost, or thrown away unasked.
    pub fn lose(&mut self) {
        self.state = State::None;
    }

    fn next_attempt(&mut self, incarnation: u64) -> Attempt {
        self.attempts += 1;
        let attempt = Attempt { incarnation, counter: self.attempts };
        self.state = State::Drain(Box::new(Drain { attempt, receipts: Vec::new() }));
        attempt
    }
}

const _: () = assert!(size_of::<Holding>() <= 24);

#[cfg(test)]
mod tests;
