//! What the core is told once, at its start.

use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::time::Duration;

use annulus_proto::limits::REPLICAS_MAX;

use super::merging::ValueMerge;
use super::overflow::Overflow;
use super::slot_set::SlotSetPolicy;

/// How the core behaves, but for its tables.
#[derive(Clone, Debug, PartialEq)]
pub struct CoreSettings {
    /// The furthest this node's clock may be from the median of its peers' before it stamps no more
    /// writes, and leaves that to the other homes. Raising it lets a wrong clock win more
    /// last-writer decisions. Default 500 ms, some fifty times what NTP keeps on a LAN.
    pub max_clock_drift: Duration,
    /// How long to look for other members through the seeds before serving alone. Default 3 s.
    pub join_timeout: Duration,
    /// How often to compare all slots with the other homes even though nothing seems to have
    /// happened. Lower heals silent differences sooner and costs a message of some 100 bytes for
    /// each other home, of some 200 in clusters of many. Default 30 s.
    pub sync_interval: Duration,
    /// The most bytes of writes that each table keeps for homes that cannot be reached. Beyond it
    /// the home is compared with as a whole instead. Default 16 MiB.
    pub hints_bytes_max: NonZeroU64,
    /// How long a hint is kept; after that its slot is compared with the home instead. A home out of reach
    /// leaves the view within a minute, and hints for it go then: what stays longer is for one that answers
    /// others and not this node, or refuses. The comparison of each [`CoreSettings::sync_interval`] finds
    /// the same. Default 10 min.
    pub hints_max_age: Duration,
    /// How many bytes of entries this node sends per second to one home for the sake of hints, in all
    /// tables together. Lower leaves a home that comes back more room for requests, and has it lack what
    /// it missed for longer; it is not all that it gets, since others have hints for it too. At most
    /// what is sent in [`CoreSettings::home_timeout`] is under way. Default 4 MiB.
    pub hints_rate: NonZeroU64,
    /// How many bytes this node exchanges per second by comparisons, with all others together: what it
    /// pushes to those who take slots over from it, what it fetches of slots that it takes over, and the
    /// sketches that tell what that is. Ballots about slots begin at this rate beside it, each for 4 KiB,
    /// 256 a second at least. Lower leaves requests more room while slots move, and has them move for
    /// longer. Default 256 MiB.
    pub handover_rate: NonZeroU64,
    /// How long a home may take to answer before the request goes on without it. Default 1 s; a
    /// request's own patience bounds it too.
    pub home_timeout: Duration,
    /// The most requests waiting for homes at any time; more are refused. Default 65,536.
    pub pending_max: usize,
    /// How many answers to writes are remembered so that a repeated request is answered and not
    /// done again. Default 65,536, about 8 MiB.
    pub replies_max: usize,
    /// Whether nodes tell each other which sessions have ended, expired or were evicted ([`Output::Gone`](super::Output::Gone)).
    /// It costs some 40 bytes and the key from each home to each member. For who listens to it as a client of Redis, on
    /// whichever node; so all nodes do it, or none. Default no.
    pub tells_gone: bool,
    /// For tests that show what a rule is for: the one that this node breaks.
    #[doc(hidden)]
    pub flaw: Option<Flaw>,
}

/// A rule that a node breaks on purpose.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// It drops a slot as soon as its view says that it is no home of it.
    LetsGoByTable,
    /// It asks for receipts without having compared, while the slot's epoch still counts on it, and
    /// gives them for what it is not in sync with.
    EarlyReceipts,
    /// It stores writes, and counts them, of slots that it is no home of.
    StoresAsNoHome,
    /// Its majorities are of the homes that it takes for alive.
    CountsTheLiving,
    /// It keeps on disk neither what it promised nor what it accepted.
    ForgetsPromises,
    /// It answers in the name of an epoch though it lost what it had.
    LostHomesAnswer,
    /// It gives receipts for what it gives away itself.
    ReceiptsWhileDraining,
    /// It does not compare the birth that a change carries with that of the session that it finds.
    IgnoresBirths,
    /// It counts a home for which it keeps a hint as one that holds the write.
    CountsHints,
    /// It drops tombstones after some seconds.
    DropsTombstones,
    /// It sends out the tombstone of an end on a condition before a majority holds that the session is to end.
    EndsAtOnce,
    /// It compares copies of joined values by their versions alone.
    ComparesVersions,
    /// It takes the later of two values where they are to be joined.
    KeepsTheLater,
    /// It drops what is to go to another ring before anybody there has answered.
    DropsUnheld,
    /// It says *absent* without asking the rings further out.
    AsksNoRings,
}

impl Default for CoreSettings {
    fn default() -> Self {
        Self {
            max_clock_drift: Duration::from_millis(500),
            join_timeout: Duration::from_secs(3),
            sync_interval: Duration::from_secs(30),
            hints_bytes_max: NonZeroU64::new(16 << 20).expect("16 MiB is not zero"),
            hints_max_age: Duration::from_secs(600),
            hints_rate: NonZeroU64::new(4 << 20).expect("4 MiB is not zero"),
            handover_rate: NonZeroU64::new(256 << 20).expect("256 MiB is not zero"),
            home_timeout: Duration::from_secs(1),
            pending_max: 65_536,
            replies_max: 65_536,
            tells_gone: false,
            flaw: None,
        }
    }
}

/// The policy of one table. It must be the same on every node.
#[derive(Clone, Debug, PartialEq)]
pub struct TablePolicy {
    /// The table's name: 1 to 63 bytes.
    pub name: String,
    /// How many homes a slot has (R), 1 to 7. Default 3.
    pub replicas: NonZeroU8,
    /// How many of them hold a write before it is acknowledged (W). Default a majority.
    pub write: WriteHomes,
    /// How long a session lives unused; zero = for ever. Default 2 h.
    pub idle: Duration,
    /// How long a session lives at most, however much it is used; zero = no cap. It is also how long
    /// after its birth a tombstone is kept. Default 7 days.
    pub lifetime_max: Duration,
    /// The largest value, in bytes, at most 1 MiB. Default 64 KiB.
    pub max_value: u32,
    /// What becomes of a new session when the table is full. Default: it is refused.
    pub on_full: OnFull,
    /// How long a session that is not used takes to lose half of its heat, by which a full table chooses those that
    /// it evicts. Default 10 minutes.
    pub half_life: Duration,
    /// How long this host's readers may trust shared memory after the node last knew itself in touch
    /// with a majority of a slot's homes. Default 10 s.
    pub stale_max: Duration,
    /// What plain reads and writes do while a slot's homes cannot reach each other. Default: they go on.
    pub partition: Partition,
    /// Where sessions are read. Default: out of this host's shared memory, wherever they may be there.
    pub read: ReadFrom,
    /// How an application that embeds the node joins values that were written at the same time. Default
    /// none: the last writer wins.
    pub merge: Option<ValueMerge>,
    /// On which ring its sessions are: those of ring 0, the innermost, are the ones that clients know. A table of ring
    /// n + 1 holds what cools outward from the one of ring n right before it. Default 0.
    pub ring: u8,
    /// After how long a session goes one ring outward that was used once; one that was used more stays for a half-life
    /// longer each time its heat is twice as high. Default `None`: never.
    pub cools_after: Option<Duration>,
    /// When a session comes back from a ring further out.
    pub promotion: Promotion,
    /// When a session is used too much, and what becomes of it then. Default `None`: never.
    pub suspects: Option<SuspectPolicy>,
    /// How many sessions an owner may have. Default `None`: as many as there are.
    pub owner_limit: Option<OwnerLimit>,
    /// What becomes of sessions that have expired or were evicted, on whatever ring they lay. All rings of a table have
    /// that of ring 0, and all nodes have the same. Default: they are dropped.
    pub overflow: Overflow,
}

/// How many sessions an owner may have, and what becomes of one more. Whoever coordinates a start asks all cores of all
/// nodes for the owner's sessions, on all rings; a session of nobody costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerLimit {
    /// How many, at most [`OwnerLimit::SESSIONS_MAX`].
    pub sessions_max: NonZeroU32,
    /// What becomes of one more.
    pub over: OverLimit,
}

/// What becomes of a session that begins though its owner has as many as he may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// It begins, and those that were used longest ago end right after it was acknowledged.
    EndOldest,
    /// It is refused.
    Refuse,
}

impl OwnerLimit {
    /// The greatest limit.
    pub const SESSIONS_MAX: u32 = 1_000;

    /// How many.
    pub(super) fn most(self) -> usize {
        self.sessions_max.get().min(Self::SESSIONS_MAX) as usize
    }
}

/// When a session is used too much, and what its users are told then. In ring 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuspectPolicy {
    /// How hot a session is that becomes a suspect: in uses, through all nodes together, of which each counts half as
    /// much after each [`SuspectPolicy::half_life`]. For long that is `burn / (1.44 × half_life)` uses a second. It is
    /// a suspect until it would have cooled to half of that, and stays one while it is asked for as much.
    pub burn: NonZeroU32,
    /// How long one that is not used takes to lose half of that heat; from 1 s to 1 h. Default 10 s.
    pub half_life: Duration,
    /// How much of that heat one client may account for at each node: with less than `burn` no client alone makes
    /// a session a suspect through one node. A client is a connection, a lane, or an address that datagrams come from.
    pub client_max: u32,
    /// How often a session may be asked for in a second through one node, by whomever and as often at once, before it is
    /// as hot as [`SuspectPolicy::burn`]; reads out of shared memory are not among them. Default `None`: as often as
    /// `burn` says.
    pub session_rate: Option<NonZeroU32>,
    /// How many requests about all of the table are taken in a second by each node, as many at once, each core its part;
    /// those beyond are told to slow down. Ends always pass. Default `None`: no bound.
    pub table_rate: Option<NonZeroU32>,
    /// How long a read or touch of a suspect is held at the node that the client asked, in case the session is released,
    /// before it is told to slow down.
    /// Default zero: it is told at once.
    pub hold: Duration,
    /// How many requests are held at any time; others are told at once. Default 1,024.
    pub held_max: usize,
}

impl SuspectPolicy {
    /// The policy with this threshold, and the defaults for the rest: no client gets further than half of it through one node.
    pub fn new(burn: NonZeroU32) -> Self {
        Self {
            burn,
            half_life: Duration::from_secs(10),
            client_max: burn.get().div_ceil(2),
            session_rate: None,
            table_rate: None,
            hold: Duration::ZERO,
            held_max: 1_024,
        }
    }
}

impl Default for TablePolicy {
    fn default() -> Self {
        Self {
            name: "sessions".to_owned(),
            replicas: NonZeroU8::new(3).expect("three is not zero"),
            write: WriteHomes::Quorum,
            idle: Duration::from_secs(2 * 3600),
            lifetime_max: Duration::from_secs(7 * 24 * 3600),
            max_value: 64 << 10,
            on_full: OnFull::Refuse,
            half_life: Duration::from_secs(600),
            stale_max: Duration::from_secs(10),
            partition: Partition::Serve,
            read: ReadFrom::Near,
            merge: None,
            ring: 0,
            cools_after: None,
            promotion: Promotion::default(),
            suspects: None,
            owner_limit: None,
            overflow: Overflow::Drop,
        }
    }
}

/// When a session that went outward comes back to the innermost ring. Until then it is read where it lies; whatever
/// changes it is done on the innermost ring, and brings it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Upon which read of it through one home, if none comes more than a half-life after the one before. Default 1.
    pub after: NonZeroU8,
    /// How many bytes of sessions may come in through one node in a second, each core its part. Beyond it sessions are
    /// read where they lie, and changes of them wait. Default 64 MiB.
    pub rate: NonZeroU64,
}

impl Default for Promotion {
    fn default() -> Self {
        Self { after: NonZeroU8::MIN, rate: NonZeroU64::new(64 << 20).expect("64 MiB is not zero") }
    }
}

/// The most homes that a slot has, ring by ring, in tables with these policies and in these slot sets.
pub fn homes_max<'p>(
    tables: impl IntoIterator<Item = &'p TablePolicy>,
    slot_sets: &[SlotSetPolicy],
) -> Vec<u8> {
    let of_sets = slot_sets.iter().map(|set| set.replicas.get()).max();
    let mut homes_max = vec![of_sets.unwrap_or(1)];
    for table in tables {
        let ring = usize::from(table.ring);
        homes_max.resize(homes_max.len().max(ring + 1), 1);
        homes_max[ring] = homes_max[ring].max(table.replicas.get());
    }
    homes_max
}

/// Where sessions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// Out of the host's shared memory: at homes what they hold, and elsewhere near copies, which are two beats (400 ms)
    /// behind an acknowledged write at most. In tables with [`Partition::Refuse`] there are no near copies.
    Near,
    /// From as many homes as it takes to know of every acknowledged write, each time; never out of shared memory.
    Home,
}

/// What plain reads and writes do while a slot's homes cannot reach each other. Conditional operations
/// and ends need a majority of the homes in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Each side goes on, and at healing all is merged: of two writes of one value the later one stays.
    Serve,
    /// Only the side with a majority of the homes goes on, the dead among them counted; the others
    /// answer *unavailable*. Nothing that was acknowledged is undone at healing.
    Refuse,
}

/// What a full table does, once nothing in it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Refuse new sessions, and say so. Nothing that lives is lost.
    Refuse,
    /// Evict the coolest sessions, those that were used least lately, on all of their homes.
    Evict,
}

/// How many homes hold a write before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteHomes {
    /// One: fastest; a write can be lost with the host that took it.
    One,
    /// A majority.
    Quorum,
    /// All: a single home that does not answer makes writes unavailable.
    All,
}

impl WriteHomes {
    /// The number for a slot with this many homes.
    pub fn count(self, homes: usize) -> usize {
        match self {
            Self::One => homes.min(1),
            Self::Quorum => majority(homes),
            Self::All => homes,
        }
    }
}

/// The smallest number of homes that is more than half of them; 0 of 0.
pub fn majority(homes: usize) -> usize {
    if homes == 0 { 0 } else { homes / 2 + 1 }
}

const _: () = assert!(REPLICAS_MAX >= 3, "the default policy asks for three homes");
