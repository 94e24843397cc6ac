//! The node's hybrid clock, and how far it can be trusted.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::{Hlc, HybridClock, NodeId, Version};

use super::io::Now;

/// Stamps writes, and compares this host's clock with the other nodes'.
///
/// No stamp is given out at or after the *ceiling*, an instant that is on disk, so that a restarted
/// node whose wall clock was set back continues after everything it ever stamped.
#[derive(Debug)]
pub(super) struct NodeTime {
    node: NodeId,
    clock: HybridClock,
    drift_max_ms: u64,
    ceiling_ms: u64,
    /// The ceiling must get beyond this: a stored version that a write here has to beat.
    wanted_ms: u64,
    peers: BTreeMap<NodeId, (i64, Duration)>,
    /// Room to find their median in: one is looked for with each message.
    offsets: Vec<i64>,
    /// Milliseconds to add to the wall clock, once the others agree that it is wrong.
    correction_ms: i64,
    /// Both clocks when they were last looked at.
    noticed: Option<Now>,
}

/// Why this node cannot stamp a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoStamp {
    /// Its clock is not that of the others.
    #[error(
        "this node's clock is {0} ms off its peers' median; correct it (NTP), then it stamps again"
    )]
    Drift(i64),
    /// What is stored has the last version there is.
    #[error("the stored version is the last one possible; end the session's key and use another")]
    Exhausted,
    /// The ceiling is not on disk yet.
    #[error("this node's clock state is not on disk yet; check its data_dir")]
    NotPersisted,
}

/// How far ahead of the present the ceiling is put.
pub const CEILING_LEAD_MS: u64 = 2_000;
/// How far ahead a stored version may be for this clock to go on after it: farther than any clock is
/// off that people have not noticed.
const FOLLOWED_MS_MAX: u64 = 24 * 3_600_000;
/// How long what a peer said of its clock is believed.
const PEER_CLOCK_KEPT: Duration = Duration::from_secs(30);

impl NodeTime {
    /// A clock that goes on after `floor_ms`, the ceiling of the run before; `ceiling_ms` is on disk.
    ///
    /// It is the clock of one core of so many: no two of them stamp the same version.
    pub(super) fn new(
        (core, cores): (usize, usize),
        node: NodeId,
        floor_ms: u64,
        ceiling_ms: u64,
        drift_max: Duration,
    ) -> Self {
        Self {
            node,
            clock: HybridClock::of_part(Hlc::from_ms(floor_ms), core, cores),
            drift_max_ms: u64::try_from(drift_max.as_millis()).unwrap_or(u64::MAX),
            ceiling_ms,
            wanted_ms: 0,
            peers: BTreeMap::new(),
            offsets: Vec::new(),
            correction_ms: 0,
            noticed: None,
        }
    }

    /// Compares the two clocks, to be called first with whatever happens: when the wall clock has
    /// jumped, what is known of the others' clocks still holds, and tells at once that it has.
    pub(super) fn notice(&mut self, now: Now) {
        let Some(before) = self.noticed.replace(now) else { return };
        // Threads that take turns may come with a present that is older.
        let ms = |now: Now| now.monotonic.as_millis() as i64;
        let passed = ms(now) - ms(before);
        let jumped = now.wall_ms as i64 - before.wall_ms as i64 - passed;
        if jumped.unsigned_abs() > self.drift_max_ms {
            for (offset, _) in self.peers.values_mut() {
                *offset -= jumped;
            }
            self.correct();
        }
    }

    /// The present in milliseconds, by which everything expires: the hybrid clock, but never more
    /// than the bound ahead of the wall clock. Stamps may be (one from the future must be beaten by
    /// the next, here and after a restart), and that alone must not let sessions expire.
    pub(super) fn now_ms(&self, now: Now) -> u64 {
        self.hybrid_ms(now).min(self.wall_ms(now).saturating_add(self.drift_max_ms))
    }

    /// The present as it was when it was last looked at, as [`NodeTime::now_ms`]; 0 before that.
    pub(super) fn latest_ms(&self) -> u64 {
        self.noticed.map_or(0, |now| self.now_ms(now))
    }

    /// Where the next stamp would be.
    fn hybrid_ms(&self, now: Now) -> u64 {
        self.clock.now(self.wall_ms(now)).ms()
    }

    /// What this node says of its clock in the headers it sends: its wall clock, uncorrected.
    pub(super) fn announced(now: Now) -> Hlc {
        Hlc::from_ms(now.wall_ms)
    }

    /// What readers add to their monotonic clock to get hybrid milliseconds.
    pub(super) fn offset_ms(&self, now: Now) -> u64 {
        let monotonic_ms = u64::try_from(now.monotonic.as_millis()).unwrap_or(u64::MAX);
        self.now_ms(now).wrapping_sub(monotonic_ms)
    }

    /// A version for a write that replaces one stamped at `stored`.
    ///
    /// # Errors
    /// [`NoStamp`]; forward the write then, or refuse it.
    pub(super) fn stamp(&mut self, now: Now, stored: Hlc) -> Result<Version, NoStamp> {
        self.can_stamp(now)?;
        let wall_ms = self.wall_ms(now);
        // A version from the far future is beaten, but does not take this clock along: one forged
        // or mangled record, and every later write would be from then, with no instant left in the end.
        let far = stored.ms() > wall_ms.saturating_add(FOLLOWED_MS_MAX);
        if far {
            let hlc = self.clock.own(stored.next());
            let possible = hlc > stored;
            return possible.then(|| Version::new(hlc, self.node)).ok_or(NoStamp::Exhausted);
        }
        let next = self.clock.next_after(wall_ms, stored);
        if next.ms() >= self.ceiling_ms {
            // One more try finds a ceiling that is high enough.
            self.wanted_ms = self.wanted_ms.max(next.ms());
            return Err(NoStamp::NotPersisted);
        }
        Ok(Version::new(self.clock.tick_after(wall_ms, stored), self.node))
    }

    /// Whether an instant is below what is on disk: after a restart, this node knows that it may have
    /// promised or stamped it.
    pub(super) fn is_below_ceiling(&self, instant: Hlc) -> bool {
        instant.ms() < self.ceiling_ms
    }

    /// Asks for a ceiling above an instant, unless that is far in the future.
    pub(super) fn want(&mut self, now: Now, instant: Hlc) {
        if self.may_follow(now, instant) {
            self.wanted_ms = self.wanted_ms.max(instant.ms());
        }
    }

    /// Whether an instant that others named is one that this clock goes on after.
    pub(super) fn may_follow(&self, now: Now, instant: Hlc) -> bool {
        instant.ms() <= self.wall_ms(now).saturating_add(FOLLOWED_MS_MAX)
    }

    /// Whether [`NodeTime::stamp`] would give a version.
    ///
    /// # Errors
    /// [`NoStamp`], as [`NodeTime::stamp`].
    pub(super) fn can_stamp(&self, now: Now) -> Result<(), NoStamp> {
        if let Some(drift) = self.drift_ms() {
            return Err(NoStamp::Drift(drift));
        }
        if self.hybrid_ms(now) >= self.ceiling_ms {
            return Err(NoStamp::NotPersisted);
        }
        Ok(())
    }

    /// The ceiling to put on disk, if the one there comes near.
    pub(super) fn wanted_ceiling(&self, now: Now) -> Option<u64> {
        let present = self.hybrid_ms(now).max(self.wanted_ms);
        (present + CEILING_LEAD_MS / 2 >= self.ceiling_ms).then_some(present + CEILING_LEAD_MS)
    }

    /// Notes that this ceiling is on disk.
    pub(super) fn ceiling_persisted(&mut self, ceiling_ms: u64) {
        self.ceiling_ms = self.ceiling_ms.max(ceiling_ms);
    }

    /// Notes what a peer's header says of its clock. Returns whether it was within the bound.
    pub(super) fn observe(&mut self, now: Now, peer: NodeId, announced: Hlc) -> bool {
        if announced == Hlc::ZERO {
            return true;
        }
        let offset = announced.ms() as i64 - now.wall_ms as i64;
        self.peers.insert(peer, (offset, now.monotonic));
        self.judge(now);
        let wall_ms = self.wall_ms(now);
        self.clock.observe(announced, wall_ms, self.drift_max_ms).is_ok()
    }

    /// How far this node's wall clock is behind the peers' median, if that is beyond the bound.
    pub(super) fn drift_ms(&self) -> Option<i64> {
        (self.correction_ms != 0).then_some(-self.correction_ms)
    }

    fn wall_ms(&self, now: Now) -> u64 {
        now.wall_ms.saturating_add_signed(self.correction_ms)
    }

    fn judge(&mut self, now: Now) {
        self.peers.retain(|_, (_, heard)| *heard + PEER_CLOCK_KEPT > now.monotonic);
        self.correct();
    }

    /// Compares this clock with the lower median of all clocks, its own among them. Of two halves
    /// that disagree the one ahead gives way: a write from the future beats all later ones.
    fn correct(&mut self) {
        let offsets = &mut self.offsets;
        offsets.clear();
        offsets.extend(self.peers.values().map(|(offset, _)| *offset));
        offsets.push(0);
        let middle = (offsets.len() - 1) / 2;
        let (_, median, _) = offsets.select_nth_unstable(middle);
        let median = *median;
        let wrong = median.unsigned_abs() > self.drift_max_ms;
        self.correction_ms = if wrong { median } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: [NodeId; 3] = [NodeId::from_bits(2), NodeId::from_bits(3), NodeId::from_bits(4)];

    fn time() -> NodeTime {
        NodeTime::new((0, 1), NodeId::from_bits(1), 0, u64::MAX, Duration::from_millis(500))
    }

    fn at(wall_ms: u64) -> Now {
        Now { monotonic: Duration::from_secs(5), wall_ms }
    }

    #[test]
    fn a_node_an_hour_ahead_of_its_peers_stamps_nothing_and_uses_their_time() {
        let mut time = time();
        for peer in PEERS {
            time.observe(at(3_700_000), peer, Hlc::from_ms(100_000));
        }
        assert_eq!(time.stamp(at(3_700_000), Hlc::ZERO), Err(NoStamp::Drift(3_600_000)));
        assert_eq!(time.now_ms(at(3_700_000)), 100_000);
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_seen_before_any_peer_is_heard_again() {
        let mut time = time();
        let later = |wall_ms| Now { monotonic: Duration::from_secs(6), wall_ms };
        time.notice(at(100_000));
        for peer in PEERS {
            time.observe(at(100_000), peer, Hlc::from_ms(100_000));
        }
        time.notice(later(3_701_000));
        assert_eq!(time.now_ms(later(3_701_000)), 101_000);
        assert_eq!(time.can_stamp(later(3_701_000)), Err(NoStamp::Drift(3_600_000)));
        time.notice(later(101_000));
        assert_eq!(time.now_ms(later(101_000)), 101_000);
        assert_eq!(time.can_stamp(later(101_000)), Ok(()));
    }

    #[test]
    fn a_present_that_is_older_is_no_jump_of_the_wall_clock() {
        let mut time = time();
        let at = |ms: u64| Now { monotonic: Duration::from_millis(ms), wall_ms: 100_000 + ms };
        for ms in [1_000, 1_600, 1_000, 1_601] {
            time.notice(at(ms));
            for peer in PEERS {
                time.observe(at(ms), peer, Hlc::from_ms(100_000 + ms));
            }
            assert_eq!(time.drift_ms(), None, "at {ms}");
        }
        // As of the peers' clocks that were heard at the first of these times, too.
        let mut time = self::time();
        time.notice(at(1_000));
        for peer in PEERS {
            time.observe(at(1_000), peer, Hlc::from_ms(101_000));
        }
        [1_600, 1_000, 1_601].into_iter().for_each(|ms| time.notice(at(ms)));
        assert_eq!(time.drift_ms(), None);
    }

    #[test]
    fn a_stamp_from_the_future_is_beaten_but_lets_nothing_expire() {
        let mut time = time();
        let future = Hlc::from_ms(3_700_000);
        assert!(time.stamp(at(100_000), future).unwrap().hlc > future);
        assert_eq!(time.now_ms(at(100_000)), 100_500);
        assert!(time.stamp(at(100_001), Hlc::ZERO).unwrap().hlc > future);
    }

    #[test]
    fn one_peer_an_hour_ahead_is_outvoted_and_not_followed() {
        let mut time = time();
        time.observe(at(100_000), PEERS[0], Hlc::from_ms(100_010));
        time.observe(at(100_000), PEERS[1], Hlc::from_ms(99_990));
        assert!(!time.observe(at(100_000), PEERS[2], Hlc::from_ms(3_700_000)));
        assert_eq!(time.stamp(at(100_000), Hlc::ZERO).unwrap().hlc.ms(), 100_010);
        assert_eq!(time.now_ms(at(100_000)), 100_010);
    }

    #[test]
    fn of_two_nodes_only_the_one_ahead_gives_way() {
        let (mut ahead, mut behind) = (time(), time());
        ahead.observe(at(3_700_000), PEERS[0], Hlc::from_ms(100_000));
        behind.observe(at(100_000), PEERS[0], Hlc::from_ms(3_700_000));
        assert!(ahead.can_stamp(at(3_700_000)).is_err());
        assert!(behind.can_stamp(at(100_000)).is_ok());
    }

    #[test]
    fn a_clock_that_was_corrected_stamps_again() {
        let mut time = time();
        for peer in PEERS {
            time.observe(at(3_700_000), peer, Hlc::from_ms(100_000));
        }
        for peer in PEERS {
            time.observe(at(100_005), peer, Hlc::from_ms(100_005));
        }
        assert!(time.stamp(at(100_005), Hlc::ZERO).is_ok());
    }

    #[test]
    fn a_stored_version_from_the_far_future_is_beaten_and_not_followed() {
        let mut time = time();
        let far = Hlc::from_ms(Hlc::MS_MAX / 2);
        assert_eq!(time.stamp(at(100_000), far).unwrap().hlc, far.next());
        assert_eq!(time.now_ms(at(100_000)), 100_000);
        assert_eq!(time.stamp(at(100_000), Hlc::from_bits(u64::MAX)), Err(NoStamp::Exhausted));
        // What a clock some hours ahead stamped is followed: causes come before effects.
        let near = Hlc::from_ms(20_000_000);
        assert!(time.stamp(at(100_000), near).unwrap().hlc > near);
        assert!(time.stamp(at(100_001), Hlc::ZERO).unwrap().hlc > near);
    }

    #[test]
    fn nothing_is_stamped_before_the_ceiling_is_on_disk() {
        let mut time =
            NodeTime::new((0, 1), NodeId::from_bits(1), 0, 50_000, Duration::from_millis(500));
        assert_eq!(time.stamp(at(60_000), Hlc::ZERO), Err(NoStamp::NotPersisted));
        let ceiling = time.wanted_ceiling(at(60_000)).unwrap();
        time.ceiling_persisted(ceiling);
        assert!(time.stamp(at(60_000), Hlc::ZERO).is_ok());
    }

    #[test]
    fn stamps_grow_over_a_restart_with_the_clock_set_back() {
        let mut before = time();
        let last = before.stamp(at(1_000_000), Hlc::ZERO).unwrap();
        let ceiling = last.hlc.ms() + CEILING_LEAD_MS;
        let drift_max = Duration::from_millis(500);
        let mut after = NodeTime::new((0, 1), NodeId::from_bits(1), ceiling, u64::MAX, drift_max);
        assert!(after.stamp(at(10), Hlc::ZERO).unwrap() > last);
    }
}
