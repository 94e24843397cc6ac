//! What becomes of packets on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// The network between hosts, and its faults. Change it at any time; what is under way stays under
/// way, but is looked at again where it arrives.
#[derive(Clone, Debug)]
pub struct Net {
    /// How long a packet takes one way, drawn evenly: packets overtake each other.
    pub latency: Range<Duration>,
    /// Probability that a packet is lost, each way and each time.
    pub loss: f64,
    /// Probability that a datagram that is not lost arrives once more, up to 20 latencies later.
    pub duplicates: f64,
    /// Probability that a datagram takes up to 20 latencies longer than it should.
    pub late: f64,
    /// Hosts in different groups cannot reach each other; who is in none is in one with the others.
    pub group: BTreeMap<usize, u32>,
    /// Hosts that reach nobody and are reached by nobody.
    pub cut: BTreeSet<usize>,
    /// Hosts that hear, and whose packets get lost.
    pub mute: BTreeSet<usize>,
    /// Hosts that are heard, and hear nobody.
    pub deaf: BTreeSet<usize>,
    /// Hosts that no datagram gets to or from, while streams work: a firewall, a wrong MTU.
    pub streams_only: BTreeSet<usize>,
    /// From whom to whom nothing gets through, while it does the other way.
    pub one_way: BTreeSet<(usize, usize)>,
    /// How much later than others these hosts get what is sent to them, TCP's segments too: as on a
    /// host that is starved.
    pub inbound: BTreeMap<usize, Duration>,
}

impl Default for Net {
    /// A LAN: 0.5 to 2 ms one way, and no fault.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(500)..Duration::from_micros(2_000),
            loss: 0.0,
            duplicates: 0.0,
            late: 0.0,
            group: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            streams_only: BTreeSet::new(),
            one_way: BTreeSet::new(),
            inbound: BTreeMap::new(),
        }
    }
}

impl Net {
    /// Whether anything can get from one host to another now.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        !(self.cut.contains(&from)
            || self.cut.contains(&to)
            || self.mute.contains(&from)
            || self.deaf.contains(&to)
            || self.one_way.contains(&(from, to))
            || self.group.get(&from) != self.group.get(&to))
    }

    /// Ends all partitions; loss and slowness stay.
    pub fn heal(&mut self) {
        self.group.clear();
        self.cut.clear();
        self.mute.clear();
        self.deaf.clear();
        self.streams_only.clear();
        self.one_way.clear();
    }

    /// How long a packet that is sent now takes to arrive; `None` if it does not.
    pub(crate) fn carry(&self, rng: &mut StdRng, from: usize, to: usize) -> Option<Duration> {
        let travel = self.travel(rng, to);
        let is_lost = self.loss > 0.0 && rng.random_bool(self.loss);
        (!is_lost && self.reaches(from, to)).then_some(travel)
    }

    /// How long a packet takes to a host, if it arrives.
    pub(crate) fn travel(&self, rng: &mut StdRng, to: usize) -> Duration {
        self.draw(rng) + self.inbound.get(&to).copied().unwrap_or_default()
    }

    /// How much later than it should a datagram arrives.
    pub(crate) fn lateness(&self, rng: &mut StdRng) -> Duration {
        if self.late > 0.0 && rng.random_bool(self.late) {
            self.draw(rng) * rng.random_range(0..20)
        } else {
            Duration::ZERO
        }
    }

    /// How much later a datagram arrives once more, if it does.
    pub(crate) fn duplicate(&self, rng: &mut StdRng) -> Option<Duration> {
        (self.duplicates > 0.0 && rng.random_bool(self.duplicates))
            .then(|| self.draw(rng) * rng.random_range(1..20))
    }

    fn draw(&self, rng: &mut StdRng) -> Duration {
        let Range { start, end } = self.latency.clone();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.random_range(nanos(start)..nanos(end).max(nanos(start) + 1)))
    }
}
