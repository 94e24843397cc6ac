//! Round trips to other members.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::NodeId;

/// The round trip to a member, measured on this node's own pings and smoothed as in RFC 6298. It
/// tells near members from far ones, and says nothing to placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rtt {
    /// The smoothed round trip.
    pub smoothed: Duration,
    /// Its smoothed mean deviation.
    pub variation: Duration,
    /// When it was last measured, in the mesh's time.
    pub measured_at: Duration,
    /// How often it was measured.
    pub samples: u32,
}

impl Rtt {
    fn first(sample: Duration, now: Duration) -> Self {
        Self { smoothed: sample, variation: sample / 2, measured_at: now, samples: 1 }
    }

    fn measure(&mut self, sample: Duration, now: Duration) {
        // The older estimate counts, as the RFC has it.
        self.variation = self.variation * 3 / 4 + self.smoothed.abs_diff(sample) / 4;
        self.smoothed = self.smoothed * 7 / 8 + sample / 8;
        self.measured_at = now;
        self.samples = self.samples.saturating_add(1);
    }

    /// After how long an answer is overdue.
    pub(super) fn timeout(&self) -> Duration {
        self.smoothed + self.variation * 4
    }
}

/// What was measured, of members that take part only.
#[derive(Default)]
pub(super) struct Rtts(BTreeMap<NodeId, Rtt>);

impl Rtts {
    pub(super) fn measure(&mut self, id: NodeId, sample: Duration, now: Duration) {
        self.0
            .entry(id)
            .and_modify(|rtt| rtt.measure(sample, now))
            .or_insert_with(|| Rtt::first(sample, now));
    }

    pub(super) fn get(&self, id: NodeId) -> Option<Rtt> {
        self.0.get(&id).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, Rtt)> {
        self.0.iter().map(|(id, rtt)| (*id, *rtt))
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_estimate_follows_rfc_6298() {
        let (mut rtts, id) = (Rtts::default(), NodeId::from_bits(1));
        assert_eq!(rtts.get(id), None);
        rtts.measure(id, ms(80), ms(1));
        let rtt = rtts.get(id).unwrap();
        assert_eq!((rtt.smoothed, rtt.variation, rtt.timeout()), (ms(80), ms(40), ms(240)));
        rtts.measure(id, ms(160), ms(2));
        let rtt = rtts.get(id).unwrap();
        assert_eq!((rtt.smoothed, rtt.variation), (ms(90), ms(50)));
        assert_eq!((rtt.measured_at, rtt.samples), (ms(2), 2));
        rtts.forget(id);
        assert_eq!(rtts.iter().count(), 0);
    }
}
