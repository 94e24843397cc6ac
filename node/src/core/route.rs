//! Which part of a node something is for: the hub, or the core that owns a slot.

use annulus_proto::message::{HeatRequest, HeldRequest, Message, OverlapRequest};
use annulus_proto::{SLOT_COUNT, Slot};

/// A part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The core with this number.
    Core(usize),
    /// The hub.
    Hub,
}

/// The core that owns a slot, out of so many.
///
/// Neighbouring slots belong to different cores: a node is home of runs of neighbouring ones as soon
/// as placement goes by groups, and each core is to have its share of every run. A table's segment
/// has its shards by the same rule (`annulus_shm`).
pub fn core_of(slot: Slot, cores: usize) -> usize {
    usize::from(slot.index()) % cores
}

/// The slots that the core owns that has this one, out of so many cores, from there on in ascending order.
pub(super) fn slots_of(first: usize, cores: usize) -> impl Iterator<Item = Slot> {
    (first..usize::from(SLOT_COUNT)).step_by(cores).filter_map(|index| Slot::new(index as u16))
}

/// Which slots a simulation has cores for. Most of what it does is the same for each slot, so some are enough.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simulated {
    /// All.
    All,
    /// Each seventeenth: a core is told that it is one of seventeen times as many. Odd, so that two or three of
    /// them have their shares of these slots, and a table's shards are where its readers look for them.
    Sparse,
}

impl Simulated {
    /// Of how many slots one has a core.
    fn one_in(self) -> usize {
        match self {
            Self::All => 1,
            Self::Sparse => 17,
        }
    }

    /// Whether a slot has a core.
    pub fn has_core(self, slot: Slot) -> bool {
        usize::from(slot.index()).is_multiple_of(self.one_in())
    }

    /// Which of so many cores has a slot.
    pub fn core_of(self, slot: Slot, cores: usize) -> usize {
        core_of(slot, self.one_in() * cores) / self.one_in()
    }

    /// What one of so many cores is told: its number, and how many there are.
    pub fn told(self, core: usize, cores: usize) -> (usize, usize) {
        (self.one_in() * core, self.one_in() * cores)
    }

    /// Whom of so many cores and the hub a request is for.
    pub fn party_of_request(self, message: &Message, cores: usize) -> Party {
        match party_of_request(message, self.one_in() * cores) {
            Party::Core(core) => Party::Core(core / self.one_in()),
            Party::Hub => Party::Hub,
        }
    }

    /// A number for a call of one of the parts that no other part's call has.
    pub fn number_outside(party: Party, call: u64, cores: usize) -> u64 {
        let number = match party {
            Party::Core(core) => core,
            Party::Hub => cores,
        };
        call * parties(cores) as u64 + number as u64
    }

    /// Whose call has that number, and the number that it has there.
    pub fn party_of_call(call: u64, cores: usize) -> (Party, u64) {
        (party_of_call(call, cores), call / parties(cores) as u64)
    }
}

/// Whom a request is for.
///
/// What names a key or a slot is for its core, and a page of a listing for the core where the cursor
/// stands. The rest concerns the node as a whole, or has to be split among the cores: it is for the
/// hub.
pub fn party_of_request(message: &Message, cores: usize) -> Party {
    let slot = match message {
        Message::SessionRequest(request) => request.key.slot(),
        Message::Replicate(request) => request.key.slot(),
        Message::Rewrite(request) => request.copy.key.slot(),
        Message::TouchCopy(request) => request.key.slot(),
        Message::Fetch(request) => request.key.slot(),
        Message::CheckCopy(request) => request.key.slot(),
        Message::HeatRequest(HeatRequest { keys, .. })
        | Message::OverlapRequest(OverlapRequest { keys, .. }) => match keys.first() {
            Some(key) => key.slot(),
            None => return Party::Core(0),
        },
        Message::Copies(request) => match request.entries.first() {
            Some((key, _)) => key.slot(),
            None => return Party::Core(0),
        },
        Message::Burning(report) => report.key.slot(),
        // Any core could.
        Message::Gone(gone) => match gone.sessions.first() {
            Some(session) => session.key.slot(),
            None => return Party::Core(0),
        },
        Message::BeatRequest(request) => match request.slots.slots().next() {
            Some(slot) => slot,
            None => return Party::Core(0),
        },
        Message::Prepare(request) => request.key.slot(),
        Message::ExplainRequest(request) => request.key.slot(),
        Message::SlotListRequest(request) => request.slot,
        Message::Offer(offer) => offer.slot,
        Message::HeldRequest(HeldRequest { revision: 0, slots, .. }) => {
            match slots.slots().next() {
                Some(slot) => slot,
                None => return Party::Core(0),
            }
        }
        // The first core looks after slot sets.
        Message::SetHello(_) | Message::HeldRequest(_) | Message::SetOffer(_) => {
            return Party::Core(0);
        }
        // What is of no slot any core refuses.
        Message::Even(request) => match request.slot() {
            Some(slot) => slot,
            None => return Party::Core(0),
        },
        Message::ListRequest(request) => {
            return Party::Core(core_of_cursor(request.cursor).min(cores - 1));
        }
        Message::SuspectsRequest(request) => {
            return Party::Core(usize::from(request.core).min(cores - 1));
        }
        Message::OwnedRequest(request) => {
            return Party::Core(usize::from(request.place.core).min(cores - 1));
        }
        Message::HottestRequest(request) => {
            return Party::Core(usize::from(request.core).min(cores - 1));
        }
        // What is of no slot any core refuses.
        Message::Judge(judge) => match Slot::of_word(judge.word) {
            Some(slot) => slot,
            None => return Party::Core(0),
        },
        Message::PinnedRequest(request) => {
            return Party::Core(usize::from(request.core).min(cores - 1));
        }
        _ => return Party::Hub,
    };
    Party::Core(core_of(slot, cores))
}

/// Whether this is one of many that bring two nodes' tables in line, or is or may be about as large as those are. It waits behind
/// requests wherever both wait: a user waits for each of those, and for none of these.
pub fn is_bulk(message: &Message) -> bool {
    matches!(
        message,
        Message::Even(_)
            | Message::SketchRequest(_)
            | Message::SlotListRequest(_)
            | Message::OverlapRequest(_)
            | Message::Gone(_)
    )
}

/// Whose call this is.
pub fn party_of_call(call: u64, cores: usize) -> Party {
    match (call % parties(cores) as u64) as usize {
        core if core < cores => Party::Core(core),
        _ => Party::Hub,
    }
}

/// Into how many parts the numbers of calls are divided: the cores, then the hub.
pub(super) fn parties(cores: usize) -> usize {
    cores + 1
}

/// The cursor at which the part of a listing begins that a core has.
pub(super) fn cursor_of_core(core: usize) -> u64 {
    (core as u64) << CURSOR_CORE_SHIFT
}

/// The core that a listing's cursor stands in; any number, as it comes from outside.
pub(super) fn core_of_cursor(cursor: u64) -> usize {
    (cursor >> CURSOR_CORE_SHIFT) as usize
}

const CURSOR_CORE_SHIFT: u32 = 56;
/// The part of a cursor that is a place within the core's part.
pub(super) const CURSOR_PLACE_MASK: u64 = (1 << CURSOR_CORE_SHIFT) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_back_to_whom_they_came_from() {
        use super::super::calls::{Calls, HubCall, HubPurpose};
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 1));
        let (asked, deadline) = Default::default();
        let purpose = HubPurpose::Exchange;
        let call = HubCall { addr, asked, deadline, purpose };
        for cores in 1..=5 {
            for party in 0..parties(cores) {
                let mut calls = Calls::new(party, parties(cores));
                for _ in 0..3 {
                    let number = calls.open(call.clone());
                    assert_ne!(number, 0);
                    let expected = if party == cores { Party::Hub } else { Party::Core(party) };
                    assert_eq!(party_of_call(number, cores), expected);
                }
            }
        }
    }
}
