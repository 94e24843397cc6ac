//! How a mesh behaves.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

#[cfg(doc)]
use super::Mesh;
use super::wire;

/// How a [`Mesh`] behaves. All nodes of a cluster should have the same.
///
/// The defaults fit a LAN. Simulated at 0.5–2 ms one way, 10 to 1000 nodes (`tests/mesh`): a crash is
/// known to all within 3–4.3 s at up to 5 % loss and in all views `down_after` later, no healthy node
/// is declared down at up to 30 % loss, and a node sends 1.2–1.5 KB/s at up to 5 % loss with all
/// headers, 0.1 KB/s more where loads change all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// How often one other member is probed, in turn. 250 ms. Must be above twice `probe_rtt`.
    /// Halving it doubles the traffic at rest and saves about a tenth of a second at detection.
    pub probe_period: Duration,
    /// A high quantile of the round trip: 80 ms. After twice as long without an answer other members
    /// are asked to probe, and a stream is tried.
    pub probe_rtt: Duration,
    /// How often an unanswered ping is repeated: when its answer is overdue by what
    /// round trips to that member took (half a `probe_rtt` as long as none is known), in growing pauses,
    /// up to half a `probe_rtt`. 12: at 30 % loss 1 probe in 10,000 fails instead of 1 in 5, and each
    /// one that fails sets off a wave of news. Costs nothing without loss.
    pub ping_repeats: u8,
    /// How long a suspected member has to refute, times log10 of the cluster's size, at least once.
    /// 1 s. Raising it delays the detection by as much.
    pub suspect_for: Duration,
    /// How often a suspected member is asked directly, and told of the suspicion, at the end of
    /// `suspect_for`, before it is declared down. 8; each delays the detection by `probe_rtt`.
    /// 0 trusts the suspicion.
    pub verify_pings: u8,
    /// How many other members are asked meanwhile whether they reach the suspect: if one does, it is
    /// not declared down. 3. 0 asks nobody.
    pub verify_peers: u8,
    /// The highest local health: while its own probes fail for no fault of those probed, a node
    /// stretches its probes and suspicions up to so many times their length, and once. 8. 0 never
    /// stretches them.
    pub health_max: u8,
    /// How often news are passed on while there are any. 100 ms, to 3 members each time.
    pub gossip_period: Duration,
    /// How often each piece of news is sent on, at least. 15: with fewer, rumours (and refutations)
    /// died out in small clusters at 30 % loss. Costs bytes per change only.
    pub transmissions_max: NonZeroU8,
    /// How often, at most, seeds and known peers that are not active are announced to, for ever.
    /// 5 s, reached from 150 ms by doubling (500 ms while all others are presumed down): one of them at a
    /// time, and three times as often where there are several. Bounds how long a healed partition goes
    /// unnoticed: a third of it, even if all announcements but one node's get lost.
    pub announce_period: Duration,
    /// Largest packet, in bytes. 1300, which fits `proto`'s datagram with the longest cluster name.
    /// At least 600.
    pub packet_bytes_max: usize,
    /// How long after foca declared a member down the view follows. 5 s: what comes back within
    /// (a restart, a refuted mistake) moves nothing. 0 follows at once.
    pub down_after: Duration,
    /// How long a node that was declared dead twice within `flap_window` stays `Joining` before it is
    /// `Up` again, so that whoever comes and goes does not move slots each time: doubled with each
    /// further death, up to `flap_hold_max`. It waits for as long only as nearly all others are up.
    /// 10 s. 0 never waits.
    pub flap_hold: Duration,
    /// The longest it stays `Joining` for that. 5 min.
    pub flap_hold_max: Duration,
    /// For how long a death counts. 10 min.
    pub flap_window: Duration,
    /// How long after the last answer from anybody a node presumes all others down. 15 s, three
    /// times `down_after`; must be above it. Until then "nobody answers me" says more about the node
    /// than about the others, after it each side of a partition must go on alone. In a cluster of
    /// two, or when all others die at once, this is how long their death goes unnoticed.
    pub isolated_after: Duration,
    /// How often a full exchange is asked for with a random member, whatever the digests say. 30 s;
    /// above 16 members as many times longer as there are more of them, as it costs more.
    pub exchange_period: Duration,
    /// The least time between two exchanges asked for, whatever the reason. 1 s.
    pub exchange_interval_min: Duration,
    /// How often a changed load is spread, at most. 5 s, and at least 4 s per member: load is the only
    /// news in a quiet cluster, and must not dominate in a large one: 0.1 KB/s per node, measured at 50.
    pub load_period: Duration,
    /// For tests that show what a guard is for: the one that is missing.
    #[doc(hidden)]
    pub without: Option<Guard>,
}

/// A guard that has no setting of its own to switch it off.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guard {
    /// Suspicions that were refuted are dropped.
    StaleSuspicions,
    /// An unanswered probe goes over a stream too.
    Fallback,
    /// Only answers in time let a node judge others.
    TimelyAnswers,
    /// Deaths that come together reach the view together.
    Together,
    /// A leave goes over streams too.
    LeaveStreams,
    /// Incarnations far ahead of the time are not believed.
    IncarnationBound,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(250),
            probe_rtt: Duration::from_millis(80),
            ping_repeats: 12,
            suspect_for: Duration::from_secs(1),
            verify_pings: 8,
            verify_peers: 3,
            health_max: 8,
            gossip_period: Duration::from_millis(100),
            transmissions_max: NonZeroU8::new(15).expect("15 is not 0"),
            announce_period: Duration::from_secs(5),
            packet_bytes_max: 1_300,
            down_after: Duration::from_secs(5),
            flap_hold: Duration::from_secs(10),
            flap_hold_max: Duration::from_secs(300),
            flap_window: Duration::from_secs(600),
            isolated_after: Duration::from_secs(15),
            exchange_period: Duration::from_secs(30),
            exchange_interval_min: Duration::from_secs(1),
            load_period: Duration::from_secs(5),
            without: None,
        }
    }
}

/// What foca is to do in a cluster of this size.
pub(super) fn swim_config(config: &MeshConfig, members: usize) -> foca::Config {
    // log10 in thousandths, from below; a little too short between powers of two.
    let log10_permille = 301 * members.max(1).ilog2();
    let suspect_for = config.suspect_for * log10_permille.max(1_000) / 1_000;
    let of = |count| NonZeroUsize::new(count).expect("not 0");
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_rtt,
        num_indirect_probes: of(INDIRECT_PROBES),
        max_transmissions: config.transmissions_max,
        suspect_to_down_after: suspect_for,
        remove_down_after: None,
        max_packet_size: of(config.packet_bytes_max - wire::FRAME_BYTES),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: config.gossip_period,
            num_members: of(INDIRECT_PROBES),
        }),
    }
}

/// How many members are asked to probe another one, and how many are told news at a time.
pub(super) const INDIRECT_PROBES: usize = 3;
/// How often news that may be missed are sent on: a load.
pub(super) const TRANSMISSIONS_FEW: NonZeroU8 = NonZeroU8::new(4).expect("4 is not 0");
