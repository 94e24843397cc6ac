//! What the nemesis does, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_net::Rates;

use crate::host::Disk;

/// Faults in the order of their times, which count from the beginning of the workload.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// When what happens.
    pub steps: Vec<(Duration, Fault)>,
    /// When everything is healed.
    pub end: Duration,
}

/// One thing the nemesis does. Nodes are told by their number.
///
/// A node's *site* is the node, the clients on its host, and the remote clients beside it: a block
/// cuts them off together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Sites in different groups don't hear each other any more. Replaces all blocks.
    Partition(Vec<Vec<usize>>),
    /// Nothing gets from one site to another; the other direction stays open.
    BlockOneWay {
        /// From here.
        from: usize,
        /// To there.
        to: usize,
    },
    /// Lifts all blocks and rates.
    Heal,
    /// What happens to datagrams from now on.
    Rates(Rates),
    /// `kill -9`: the process is gone, its sockets are closed, shared memory and disk stay.
    Kill(usize),
    /// The same, but after it has done so many things more: between any two of them, as far as the driver can
    /// tell them apart. Under turmoil it is a [`Fault::Kill`].
    Crash {
        /// The node.
        node: usize,
        /// How many outputs of hub and cores are carried out before.
        after: u32,
    },
    /// The node starts, whether it ran or not.
    Restart(usize),
    /// SIGTERM.
    Stop(usize),
    /// The host loses power: it falls silent, and its memory is gone. Its disk stays.
    PowerOff(usize),
    /// The host boots: node and clients start.
    PowerOn(usize),
    /// A node joins that did not run before.
    Join(usize),
    /// A node is told to drain: to take no more slots and give away those it has. Whoever tells it
    /// does so until it has heard.
    Drain(usize),
    /// It is told to take slots again, likewise.
    StopDraining(usize),
    /// As soon as a node that drains has given everything away, it leaves the cluster, and stops for good.
    Leave(usize),
    /// Each message to and from a node takes this long.
    Slow(usize, Duration),
    /// Messages to and from a node are held back, as when it is stopped in a debugger.
    Hold(usize),
    /// A node is as fast as the others again; what was held back arrives.
    Release(usize),
    /// A node's process stands still (SIGSTOP): nothing that arrives or becomes due is seen to. Under turmoil it
    /// is a [`Fault::Hold`].
    Pause(usize),
    /// It goes on where it was.
    Resume(usize),
    /// A host's disk is like this from now on, for what cores keep.
    Disk(usize, Disk),
    /// A host's wall clock is set by this many milliseconds.
    ClockJump(usize, i64),
}

impl Plan {
    /// By how many milliseconds touches may count for less than they said, where sessions may be idle so long.
    /// Copies are even whose times of last use are in the same sixteenth of it, so whoever has let go of a slot
    /// may take the rest along.
    #[must_use]
    pub fn touches_short_ms(&self, idle: Duration) -> u64 {
        let gives_slots = |fault: &Fault| matches!(fault, Fault::Join(_) | Fault::Drain(_));
        let moves = self.steps.iter().any(|(_, fault)| gives_slots(fault));
        if moves { u64::try_from(idle.as_millis() / 16).unwrap_or(u64::MAX) } else { 0 }
    }

    /// A plan of these steps that ends `rest` after the last of them.
    #[must_use]
    pub fn new(mut steps: Vec<(Duration, Fault)>, rest: Duration) -> Self {
        steps.sort_by_key(|(at, _)| *at);
        let end = steps.last().map_or(Duration::ZERO, |(at, _)| *at) + rest;
        Self { steps, end }
    }

    /// Whether nodes are told to do anything.
    #[must_use]
    pub fn gives_orders(&self) -> bool {
        self.steps.iter().any(|(_, fault)| matches!(fault, Fault::Drain(_)))
    }

    /// Whether this node stops for good.
    #[must_use]
    pub fn leaves(&self, node: usize) -> bool {
        self.steps.iter().any(|(_, fault)| *fault == Fault::Leave(node))
    }
}

/// A time during which the same nodes could talk to each other, for checks of what hosts *in
/// contact* see.
///
/// Conservative: an epoch counts only from `settled` on, which leaves the cluster more than the time
/// it takes to notice what happened (see [`Contacts`]).
#[derive(Clone, Debug)]
pub struct Epoch {
    /// From when on the sites of a group are in contact.
    pub settled: Duration,
    /// Until when.
    pub until: Duration,
    /// Sites in contact with each other. Those in no group are in contact with nobody.
    pub groups: Vec<BTreeSet<usize>>,
    /// Whether no node is missing that was there before.
    pub whole: bool,
    /// The longest that a round trip takes.
    pub round_trip: Duration,
}

/// Who could talk to whom when, derived from the faults as they are applied.
#[derive(Clone, Debug)]
pub struct Contacts {
    epochs: Vec<Epoch>,
    round_trip: Duration,
    settling: Settling,
    sites: usize,
    up: BTreeSet<usize>,
    /// Those that were told to drain, and may have forgotten it in a restart.
    draining: BTreeSet<usize>,
    /// Those that do not come back.
    gone: BTreeSet<usize>,
    down_since: BTreeMap<usize, Duration>,
    partition: Option<(Duration, Vec<Vec<usize>>)>,
    one_way: bool,
    lossy: bool,
    slow: BTreeSet<usize>,
    paused: BTreeSet<usize>,
}

/// How long a cluster takes to get used to what happened, at most.
#[derive(Clone, Copy, Debug)]
pub struct Settling {
    /// Streams that a block killed are replaced, members are found again, and slots are compared.
    pub after_change: Duration,
    /// A death is noticed by then, and the slots have moved (gossip's `suspect_for`, its pings and
    /// `down_after`, then a comparison).
    pub after_death: Duration,
    /// A cut-off side goes on alone by then (`isolated_after`).
    pub after_partition: Duration,
}

impl Default for Settling {
    /// With gossip's own timings.
    fn default() -> Self {
        Self {
            after_change: Duration::from_secs(15),
            after_death: Duration::from_secs(25),
            after_partition: Duration::from_secs(40),
        }
    }
}

/// More loss than this, in thousandths, and nobody counts as in contact.
const LOSS_BORNE: u16 = 50;

impl Contacts {
    /// Of a cluster in which these sites run from the start.
    #[must_use]
    pub fn new(sites: usize, up: BTreeSet<usize>, round_trip: Duration) -> Self {
        Self {
            epochs: Vec::new(),
            round_trip,
            settling: Settling::default(),
            sites,
            up,
            draining: BTreeSet::new(),
            gone: BTreeSet::new(),
            down_since: BTreeMap::new(),
            partition: None,
            one_way: false,
            lossy: false,
            slow: BTreeSet::new(),
            paused: BTreeSet::new(),
        }
    }

    /// The same for nodes that settle in other times.
    #[must_use]
    pub fn settling(self, settling: Settling) -> Self {
        Self { settling, ..self }
    }

    /// The sites whose nodes run.
    #[must_use]
    pub fn up(&self) -> &BTreeSet<usize> {
        &self.up
    }

    /// Those of them that may drain, since they were told to last.
    #[must_use]
    pub fn draining(&self) -> &BTreeSet<usize> {
        &self.draining
    }

    /// The sites whose nodes stopped for good.
    #[must_use]
    pub fn gone(&self) -> &BTreeSet<usize> {
        &self.gone
    }

    /// Notes a fault that was just applied, and begins a new epoch.
    pub fn apply(&mut self, now: Duration, fault: &Fault) {
        match fault {
            Fault::Partition(groups) => self.partition = Some((now, groups.clone())),
            Fault::BlockOneWay { .. } => self.one_way = true,
            Fault::Heal => (self.partition, self.one_way, self.lossy) = (None, false, false),
            Fault::Rates(rates) => self.lossy = rates.loss.in_per_mille() > LOSS_BORNE,
            Fault::Kill(node)
            | Fault::Crash { node, .. }
            | Fault::Stop(node)
            | Fault::PowerOff(node) => {
                self.up.remove(node);
                self.down_since.insert(*node, now);
            }
            Fault::Restart(node) | Fault::PowerOn(node) | Fault::Join(node) => {
                self.up.insert(*node);
                self.down_since.remove(node);
            }
            Fault::Slow(node, _) | Fault::Hold(node) => {
                self.slow.insert(*node);
            }
            Fault::Release(node) => {
                self.slow.remove(node);
            }
            Fault::Pause(node) => {
                self.paused.insert(*node);
            }
            Fault::Resume(node) => {
                self.paused.remove(node);
            }
            Fault::Drain(node) => {
                // Nobody is to notice: whoever is in contact stays so.
                self.draining.insert(*node);
                return;
            }
            Fault::StopDraining(node) => {
                self.draining.remove(node);
            }
            Fault::Leave(node) => {
                self.up.remove(node);
                self.draining.remove(node);
                self.gone.insert(*node);
            }
            Fault::ClockJump(..) | Fault::Disk(..) => {}
        }
        self.begin(now, self.settling.after_change);
    }

    /// Begins an epoch that counts after `settle`, and after what is still under way.
    pub fn begin(&mut self, now: Duration, settle: Duration) {
        if let Some(last) = self.epochs.last_mut() {
            last.until = now;
        }
        let deaths = self.down_since.values().map(|since| *since + self.settling.after_death);
        let partition =
            self.partition.iter().map(|(since, _)| *since + self.settling.after_partition);
        let settled = deaths.chain(partition).fold(now + settle, Duration::max);
        let is_slow = !self.slow.is_empty() || !self.paused.is_empty();
        let groups = match &self.partition {
            _ if self.one_way || self.lossy || is_slow => Vec::new(),
            None => vec![(0..self.sites).collect()],
            Some((_, groups)) => {
                groups.iter().map(|group| group.iter().copied().collect()).collect()
            }
        };
        let of_those_up = |group: BTreeSet<usize>| group.intersection(&self.up).copied().collect();
        let groups = groups.into_iter().map(of_those_up).collect();
        let (until, round_trip) = (Duration::MAX, self.round_trip);
        let whole = self.partition.is_none() && self.down_since.is_empty();
        self.epochs.push(Epoch { settled, until, groups, whole, round_trip });
    }

    /// All epochs, in order.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }
}
