//! Everything the node decides, without I/O.
//!
//! A node has one [`Hub`], for what there is once, and one [`Core`] for each thread that is to serve
//! sessions. Each core owns the slots that [`route::core_of`] gives it, and of each table the shard that
//! holds them; no two cores share anything. They are handed what happened and the present, and say
//! what to do: no socket, no file, no clock, no entropy, no await. The same hub and cores run in
//! production, in the simulations under turmoil and in plain event loops. Requests that wait for other
//! nodes are plain state.

mod alone;
mod ballot;
mod bringing;
mod bundles;
mod burning;
mod calls;
mod cooling;
mod coordinator;
mod copies;
mod counters;
mod custody;
mod epochs;
mod evict;
mod freshness;
mod gone;
mod handover;
mod hints;
mod hub;
mod io;
mod keeping;
mod kept;
mod memory;
mod merging;
mod near;
mod overflow;
mod overlap;
mod owned;
mod owner_limit;
mod pace;
mod placing;
mod promotion;
mod relief;
mod replacing;
mod replica;
mod replies;
mod report;
pub mod route;
mod settings;
mod slot_set;
mod standing;
mod store;
mod suspects;
mod sync;
mod time;
mod walk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::codec::Header;
use annulus_proto::message::{Failure, Message, Ping, Replicated, RequestId, Role};
use annulus_proto::submission::Answer;
use annulus_proto::{Entry, Key, NodeId, SLOT_COUNT, Slot, Status, Version};
use annulus_shm::{Admission, Writer};
use rand::SeedableRng;
use rand::rngs::StdRng;

use ballot::Lines;
use bringing::Bringing;
use bundles::{Bundles, Errand};
use burning::{Burning, ClientId, Uses};
use calls::{Call, Calls, Purpose};
use cooling::Cooling;
use coordinator::Pending;
use copies::Copies;
use custody::Custody;
use epochs::{Effects, Epochs, GivenUp};
use freshness::Freshness;
use gone::Telling;
use hints::Hints;
use hub::out_of_place;
use keeping::{Pace, Saving};
use memory::Memory;
use merging::name_among_clients;
use near::Near;
use overflow::Overflowing;
use overlap::Walk;
use owner_limit::OwnerCounts;
use pace::Bucket;
use placing::Placing;
use promotion::Inward;
use relief::Relief;
use replies::Replies;
use report::Explain;
use slot_set::AppSet;
use standing::Placement;
use store::Store;
use sync::SyncSession;
use time::NodeTime;

pub use counters::Counters;
pub use hub::{Hub, HubStart};
pub use io::{
    Answered, Ask, Asker, Caller, CoreReport, GivenWeight, HubInput, HubOutput, Input, KnownMember,
    LaneAnswer, MemoryUse, NoAnswer, NodeState, Notice, Now, Outcome, Output, Reply, Request,
    SlotCounts,
};
pub use kept::{
    RECORD_REST_BYTES_MAX, RECORD_VALUE_BYTES_MAX, Record, RecordChange, RecordName, Space,
};
pub use merging::{ValueMerge, ValueMergeError};
pub use overflow::{Overflow, OverflowTaker, Overflowed, WhyLeft};
#[doc(hidden)]
pub use settings::Flaw;
pub use settings::{
    CoreSettings, OnFull, OverLimit, OwnerLimit, Partition, Promotion, ReadFrom, SuspectPolicy,
    TablePolicy, WriteHomes, homes_max, majority,
};
pub use slot_set::{SlotCall, SlotMember, SlotSaid, SlotSetPolicy};
pub use standing::Standing;
pub use store::record_bytes_max;
pub use time::CEILING_LEAD_MS;

/// The part of a node that decides about the sessions of its slots.
///
/// # Call order
/// After each [`Core::handle`], [`Core::handle_timeout`] or [`Core::scan`], take everything out with
/// [`Core::poll_output`] and [`Core::poll_lane_answer`] until they are empty, then ask
/// [`Core::poll_timeout`] when to come back.
pub struct Core {
    number: usize,
    cores: usize,
    settings: CoreSettings,
    standing: Arc<Standing>,
    time: NodeTime,
    tables: Vec<Table>,
    /// The slot sets of applications: the first core's alone.
    sets: Vec<AppSet>,
    calls: Calls<Call>,
    pending: BTreeMap<u64, Box<Pending>>,
    pending_next: u64,
    pending_bytes: usize,
    /// The writes among them that are not answered yet, by the id that a repetition carries.
    unanswered: BTreeMap<RequestId, u64>,
    pending_deadlines: BTreeSet<(Duration, u64)>,
    /// The requests that wait for nobody, but for a moment to pass.
    pauses: BTreeSet<(Duration, u64)>,
    /// How many of these are held since their sessions are suspects.
    held: usize,
    /// How many of them are since there is no room for what they write.
    short_of_room: usize,
    /// Those of these that there is too little room for in a table of this node, as they came.
    room_line: BTreeSet<(usize, u64)>,
    lines: Lines,
    /// The sessions that are brought in from other rings, by table and key.
    bringing: BTreeMap<(usize, Key), Bringing>,
    /// Late copies whose sessions may have gone to another ring since, by table and key.
    doubts: BTreeSet<(usize, Key)>,
    /// Those of which nobody could tell, for when all others were looked for.
    doubted_again: BTreeSet<(usize, Key)>,
    /// What an earlier run may have promised is below this.
    floor_at_start: Version,
    /// The lineage of epochs that this run of the node founds.
    lineage: Version,
    /// The owners whose sessions are counted.
    owner_counts: OwnerCounts,
    /// What waits until seats are on disk.
    effects: Effects,
    given_up: GivenUp,
    explains: BTreeMap<u64, Explain>,
    replies: Replies,
    heard: BTreeMap<NodeId, Heard>,
    /// How many cores other nodes have, as they said last: a message to one of them has to be of its slots.
    cores_elsewhere: BTreeMap<NodeId, u16>,
    /// What goes to them once what is being handled is done.
    bundles: Bundles,
    /// How far other nodes are, in steps; those that are missing were not measured.
    proximity: Arc<BTreeMap<NodeId, u8>>,
    /// Members that took part when slots were last taken up.
    companions: BTreeSet<NodeId>,
    /// Those among them to compare everything with, since this node was out of touch with them.
    estranged: BTreeSet<NodeId>,
    /// How many slots there are, as the hub was last told.
    slots_told: Vec<SlotCounts>,
    /// Whether readers may go on with what an earlier run vouched for: nobody was met yet.
    inherits: bool,
    /// How fast hints go to each home that gets some.
    paces: BTreeMap<NodeId, Pace>,
    /// How fast comparisons exchange what they do, with all others together, and how fast ballots begin.
    handover: Bucket,
    ballots: Bucket,
    /// The table whose ballots are first, and until when there are too few for all that should begin.
    first_to_propose: usize,
    ballots_short_until: Duration,
    /// Counts how often comparisons that waited for their share of the rate were gone on with.
    paced_turn: usize,
    saving: Saving,
    /// Those who join the values of a table otherwise than this node, as far as they were told of.
    other_merges: BTreeSet<(NodeId, String)>,
    stopping: bool,
    stopped: bool,
    /// When comparisons may exchange more that have exchanged what they may.
    next_exchange: Option<Duration>,
    /// When to go on with what is to be done about epochs; `None` = with the next tick.
    next_epochs: Option<Duration>,
    /// When to begin another comparison that is due; `None` = with the next tick.
    next_sync: Option<Duration>,
    next_tick: Duration,
    freshness: Freshness,
    next_freshness: Duration,
    /// When to read on in what an earlier run left; `None` once all of it was read.
    next_read: Option<Duration>,
    /// When to look for sessions that are to end since others were begun in their place.
    next_replaced: Duration,
    /// When to tell what sessions are gone; `None` = with the next tick.
    next_gone: Option<Duration>,
    /// When this run began, in hybrid milliseconds.
    began_ms: u64,
    rng: StdRng,
    counters: Counters,
    outputs: VecDeque<Output>,
    lane_answers: VecDeque<LaneAnswer>,
}

/// What a core starts from.
pub struct CoreStart {
    /// Which core it is: the first is 0.
    pub number: usize,
    /// How many there are.
    pub cores: usize,
    /// Its behaviour.
    pub settings: CoreSettings,
    /// How the node stands, from its hub.
    pub standing: Arc<Standing>,
    /// The ceiling of the clock that is on disk. In hybrid milliseconds.
    pub clock_ceiling_ms: u64,
    /// The ceiling of the run before: nothing was stamped at or after it. In hybrid milliseconds.
    pub clock_floor_ms: u64,
    /// The tables, each with the shard of its segment that this core owns.
    pub tables: Vec<(TablePolicy, Writer)>,
    /// The slot sets of the application that embeds this node. The first core looks after them.
    pub slot_sets: Vec<SlotSetPolicy>,
    /// What was kept on disk of its slots, by this node's earlier runs.
    pub kept: Vec<Record>,
    /// The seed of everything random.
    pub seed: u64,
}

/// One table.
struct Table {
    store: Store,
    hints: Hints,
    /// What is done for sessions that more than their homes are to hold.
    placing: Placing,
    /// What moves to other rings.
    cooling: Cooling,
    /// What other rings hold of it, too.
    walk: Walk,
    /// Who tells what changed of the near copies.
    near: Near,
    /// What is done for it to have some.
    memory: Memory,
    /// What of that is for want of room.
    relief: Relief,
    /// What comes back into it.
    inward: Inward,
    /// What leaves it.
    overflowing: Overflowing,
    /// What is gone of it, and who was told.
    telling: Telling,
    /// Which sessions are used much.
    burning: Burning,
    /// What becomes of the copies of slots.
    custody: Custody,
    /// Who else was seen to hold what.
    copies: Copies,
    /// Who decides about the slots.
    epochs: Epochs,
    /// By slot: whether this node holds everything a home should.
    slots: Vec<SlotState>,
    sync: BTreeMap<NodeId, SyncSession>,
    /// When to compare all slots with each other node, and when those that something waits for.
    sync_due: BTreeMap<NodeId, Duration>,
    waiting_due: BTreeMap<NodeId, Duration>,
    /// Who refused to compare, and when to ask it whether it still does.
    not_ready: BTreeMap<NodeId, Duration>,
    sync_sessions: u64,
    /// Those who were put off before this node had begun to fetch what they have.
    put_off: BTreeSet<NodeId>,
}

/// What this node is to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotState {
    home: bool,
    /// Whether it is a home of the slot's epoch: it keeps what it has then, though others may be the homes by
    /// placement.
    decides: bool,
    /// The greatest ballot that was promised: no fresh write below it counts here.
    floor: Version,
    /// The greatest that was promised to another node than that one was, or may have been: at most the floor.
    floor_of_others: Version,
    /// Members to compare with before this node may say *absent*; empty once it is in sync.
    sources: BTreeSet<NodeId>,
}

/// What was last heard of a node.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When it was asked what it last answered.
    at: Duration,
    view: u64,
    /// When it was seen to have it.
    seen: Duration,
    /// When it was last asked what it did not answer.
    failed: Duration,
    /// When it was last asked for a sign of life, and by this core.
    pinged: Duration,
    /// When it was asked what the other cores were last told to be answered.
    shared: Duration,
    /// When the hub was last told that it sees other members.
    told: Duration,
}

/// How often the core looks after what waits: overdue calls, hints, comparisons.
const TICK: Duration = Duration::from_millis(100);
/// How often the freshness words are extended.
const FRESHNESS_PERIOD: Duration = Duration::from_millis(500);
/// After how long of silence a home is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_millis(800);
/// How often a node's answers to one core are told to the others, at most.
const SHARE_AFTER: Duration = Duration::from_millis(400);
/// How long a node that did not answer is asked after others.
const DOUBT: Duration = Duration::from_secs(10);
/// How often the hub is told of a node that it sees other members.
const OTHER_VIEW_PERIOD: Duration = Duration::from_millis(100);
/// How many times as long as others the questions of comparisons wait for their answers: they yield to requests.
const SYNC_PATIENCE: u32 = 3;
/// How many records that an earlier run left are read at a time: a quarter of a millisecond, after which requests
/// that came in are served.
const READ_STEP: usize = 512;
/// An answer stands among so many of the last outputs if it came of what was handed in last.
const OUTPUTS_OF_REQUEST: usize = 16;

impl Core {
    /// A core of a node that has just started.
    pub fn new(start: CoreStart, now: Now) -> Self {
        let CoreStart { number, cores, mut settings, standing, tables, kept, seed, .. } = start;
        let CoreStart { clock_floor_ms, clock_ceiling_ms, slot_sets, .. } = start;
        let id = standing.me;
        // Bounds are the node's, and each core gets its part.
        let hints_max = settings.hints_bytes_max.get() / cores as u64;
        let hints_max_age = settings.hints_max_age;
        settings.pending_max = settings.pending_max.div_ceil(cores);
        settings.replies_max = settings.replies_max.div_ceil(cores);
        let floor_at_start =
            Version { hlc: annulus_proto::Hlc::from_ms(clock_floor_ms), ..Version::ZERO };
        let incarnation = standing.view.get(id).map_or(0, |member| member.incarnation);
        let lineage = Version::new(annulus_proto::Hlc::from_ms(incarnation), id);
        let slot = SlotState {
            home: false,
            decides: false,
            floor: floor_at_start,
            floor_of_others: floor_at_start,
            sources: BTreeSet::new(),
        };
        let table = |(policy, writer): (TablePolicy, Writer)| Table {
            burning: Burning::new(policy.suspects.as_ref(), cores),
            inward: Inward::new(now.monotonic, policy.promotion, cores),
            store: Store::new(policy.among_nodes(), id, writer, settings.flaw),
            hints: Hints::new(hints_max, hints_max_age),
            placing: Placing::default(),
            cooling: Cooling::default(),
            walk: Walk::default(),
            near: Near::default(),
            memory: Memory::default(),
            relief: Relief::default(),
            overflowing: Overflowing::default(),
            telling: Telling::default(),
            custody: Custody::new(SLOT_COUNT.into()),
            copies: Copies::default(),
            epochs: Epochs::new(id),
            slots: vec![slot.clone(); usize::from(SLOT_COUNT)],
            sync: BTreeMap::new(),
            sync_due: BTreeMap::new(),
            waiting_due: BTreeMap::new(),
            not_ready: BTreeMap::new(),
            sync_sessions: 0,
            put_off: BTreeSet::new(),
        };
        let (mut merge, mut next_ring) = (None, 0);
        let mut overflow = Overflow::Drop;
        let with_merge = |(mut policy, writer): (TablePolicy, Writer)| {
            assert!(
                policy.ring == 0 || policy.ring == next_ring && policy.ring < 8,
                "the table of a ring further out stands right after the one of the ring inside of it, and the last \
                 ring is 7"
            );
            next_ring = policy.ring.saturating_add(1);
            // Values are joined alike on all rings, and what leaves any of them goes to the same place.
            match policy.ring {
                0 => {
                    merge.clone_from(&policy.merge);
                    overflow.clone_from(&policy.overflow);
                }
                _ => {
                    policy.merge.clone_from(&merge);
                    policy.overflow.clone_from(&overflow);
                }
            }
            (policy, writer)
        };
        let tables = tables.into_iter().map(with_merge).map(table).collect();
        let sets = slot_sets.into_iter().filter(|_| number == 0).map(AppSet::new).collect();
        let handover_rate = settings.handover_rate.get() / cores as u64;
        let handover = Bucket::even(now.monotonic, handover_rate);
        let ballots = Bucket::even(now.monotonic, handover_rate);
        let drift_max = settings.max_clock_drift;
        let mut core = Self {
            number,
            cores,
            time: NodeTime::new((number, cores), id, clock_floor_ms, clock_ceiling_ms, drift_max),
            replies: Replies::new(settings.replies_max),
            tables,
            sets,
            settings,
            standing,
            calls: Calls::new(number, route::parties(cores)),
            pending: BTreeMap::new(),
            pending_next: 0,
            pending_bytes: 0,
            unanswered: BTreeMap::new(),
            pending_deadlines: BTreeSet::new(),
            pauses: BTreeSet::new(),
            held: 0,
            short_of_room: 0,
            room_line: BTreeSet::new(),
            lines: Lines::default(),
            bringing: BTreeMap::new(),
            doubts: BTreeSet::new(),
            doubted_again: BTreeSet::new(),
            floor_at_start,
            lineage,
            owner_counts: OwnerCounts::default(),
            effects: Effects::default(),
            given_up: GivenUp::default(),
            explains: BTreeMap::new(),
            heard: BTreeMap::new(),
            cores_elsewhere: BTreeMap::new(),
            bundles: Bundles::default(),
            proximity: Arc::default(),
            companions: BTreeSet::new(),
            estranged: BTreeSet::new(),
            slots_told: Vec::new(),
            inherits: true,
            paces: BTreeMap::new(),
            handover,
            ballots,
            paced_turn: 0,
            first_to_propose: 0,
            ballots_short_until: Duration::ZERO,
            saving: Saving::default(),
            other_merges: BTreeSet::new(),
            stopping: false,
            stopped: false,
            next_exchange: None,
            next_epochs: None,
            next_sync: None,
            next_tick: now.monotonic,
            freshness: Freshness::default(),
            next_freshness: now.monotonic,
            next_read: Some(now.monotonic),
            next_replaced: now.monotonic,
            next_gone: None,
            began_ms: 0,
            rng: StdRng::seed_from_u64(seed),
            counters: Counters::default(),
            outputs: VecDeque::new(),
            lane_answers: VecDeque::new(),
        };
        core.time.notice(now);
        core.began_ms = core.time.now_ms(now);
        core.begin_to_note_gone();
        core.inherit_freshness(now);
        core.restore(now, &kept);
        core.restore_seats(&kept);
        core.take_up_slots(now);
        core.handle_timeout(now);
        core
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.time.notice(now);
        match input {
            Input::Request(request) => self.on_request(now, request),
            Input::Outcome(Outcome { call, result }) => match result {
                Ok(answered) => self.on_answer(now, call, answered),
                Err(NoAnswer { sent }) => self.on_call_failed(now, call, sent),
            },
            Input::Standing(standing) => self.on_standing(now, standing),
            Input::Heard { node, header, asked } => {
                self.hear(now, node, header, asked);
                if let Some(heard) = self.heard.get_mut(&node) {
                    heard.shared = heard.shared.max(asked);
                }
            }
            Input::Gone(node) => self.forget(node),
            Input::Proximity(proximity) => self.proximity = proximity,
            Input::Ceiling(ms) => self.time.ceiling_persisted(ms),
            Input::Persisted { ticket } => self.on_persisted(now, ticket, true),
            Input::NotPersisted { ticket } => self.on_persisted(now, ticket, false),
            Input::Overflowed { table, is_taken } => self.on_overflowed(now, table, is_taken),
            Input::Reserved { table, is_there } => self.on_reserved(now, table, is_there),
            Input::Report { ticket } => {
                let report = self.report();
                self.notify(Notice::Report { ticket, report });
            }
            Input::SyncNow => self.sync_soon(now),
            Input::SlotSet { set, said } => self.on_slot_said(now, set, said),
            Input::Between(between) => self.on_between(now, between),
            Input::GiveUp(node) => self.give_up_member(now, node),
            Input::Stop => self.stopping = true,
        }
        self.take_turns(now);
        self.give_room(now);
        self.flush_epochs(now);
        self.send_bundles(now);
        self.tell_gone_soon(now);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.time.notice(now);
        while let Some(call) = self.calls.next_overdue(now.monotonic) {
            self.counters.add("calls_timed_out");
            self.on_call_failed(now, call, true);
        }
        while let Some(&(deadline, id)) = self.pending_deadlines.first() {
            if deadline > now.monotonic {
                break;
            }
            self.pending_deadlines.remove(&(deadline, id));
            self.on_out_of_patience(now, id);
        }
        if self.next_read.is_some_and(|at| at <= now.monotonic) {
            self.read_on(now);
        }
        self.give_room(now);
        self.end_pauses(now);
        self.take_turns(now);
        if self.next_exchange.is_some_and(|at| at <= now.monotonic) {
            self.next_exchange = None;
            self.go_on_with_paced_syncs(now);
        }
        if self.next_tick <= now.monotonic {
            self.next_tick = now.monotonic + TICK;
            self.tick(now);
        } else {
            if self.next_epochs.is_some_and(|at| at <= now.monotonic) {
                self.drive_epochs(now);
            }
            if self.next_sync.is_some_and(|at| at <= now.monotonic) {
                self.start_syncs(now);
            }
        }
        if self.next_gone.is_some_and(|at| at <= now.monotonic) {
            self.see_to_gone(now);
        }
        self.extend_freshness_on(now);
        self.carry_out_some(now);
        self.flush_epochs(now);
        self.send_bundles(now);
        self.tell_gone_soon(now);
    }

    /// Reads some more of what an earlier run left.
    fn read_on(&mut self, now: Now) {
        for table in &mut self.tables {
            table.store.read_on(READ_STEP);
        }
        let is_read = self.tables.iter().all(|table| table.store.is_read());
        self.next_read = (!is_read).then_some(now.monotonic);
    }

    /// Drops entries whose time is over, up to `expired` of each table, and checks about `verified`
    /// records of each against their checksums, so that damaged ones are fetched from other homes.
    pub fn scan(&mut self, now: Now, expired: usize, verified: usize) {
        self.time.notice(now);
        if self.standing.status == Status::Joining {
            return;
        }
        let now_ms = self.time.now_ms(now);
        for index in 0..self.tables.len() {
            let store = &mut self.tables[index].store;
            let scanned = store.scan(now_ms, expired, verified);
            if !store.is_read() {
                self.next_read.get_or_insert(now.monotonic);
            }
            self.counters.add_many("entries_dropped_expired", scanned.dropped);
            self.counters.add_many("records_dropped_damaged", scanned.damaged);
            self.judge_expired(now, index);
            let dropped = self.see_to_overdue(now, index, false);
            self.counters.add_many("entries_dropped_expired", dropped);
            if scanned.damaged > 0 {
                self.lose_all(index);
            }
            if self.settings.flaw == Some(Flaw::DropsTombstones) {
                self.tables[index].store.drop_tombstones(now_ms);
            }
        }
        self.send_bundles(now);
        self.tell_gone_soon(now);
    }

    /// Something to do, in order; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Core::poll_output`] would return something.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Whether [`Core::poll_lane_answer`] would return something.
    pub fn has_lane_answer(&self) -> bool {
        !self.lane_answers.is_empty()
    }

    /// Takes the answer to a request that was just handed in out of what [`Core::poll_output`] would return; `None` if
    /// it is to come.
    pub fn take_reply(&mut self, to: Asker, id: u64) -> Option<Message> {
        let is_it = |output: &Output| matches!(output, Output::Reply(it) if it.to == to && it.header.id == id);
        let back = self.outputs.iter().rev().take(OUTPUTS_OF_REQUEST).position(is_it)?;
        match self.outputs.remove(self.outputs.len() - 1 - back)? {
            Output::Reply(reply) => Some(reply.message),
            _ => None,
        }
    }

    /// An answer for a client's lane; `None` when there is no more.
    pub fn poll_lane_answer(&mut self) -> Option<LaneAnswer> {
        self.lane_answers.pop_front()
    }

    /// When to call [`Core::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Duration {
        let others = [
            self.calls.next_deadline(),
            self.pending_deadlines.first().map(|(deadline, _)| *deadline),
            self.pauses.first().map(|(at, _)| *at),
            self.next_read,
            self.next_exchange,
            self.next_epochs,
            self.next_sync,
            self.next_gone,
            self.effects.next_save(),
            self.effects.are_ready().then_some(Duration::ZERO),
            self.freshness.is_under_way().then_some(Duration::ZERO),
        ];
        others.into_iter().flatten().fold(self.next_tick, Duration::min)
    }

    /// How many entries this core holds, in all tables.
    pub fn entries(&self) -> u64 {
        let of = |stats: annulus_shm::TableStats| (stats.entries - stats.near_entries) as u64;
        self.tables.iter().map(|table| of(table.store.stats())).sum()
    }

    /// Counts of what happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes in what this host's readers used out of shared memory, as they say.
    pub fn note_uses(&mut self, now: Now, uses: &[MemoryUse]) {
        let now_ms = self.time.now_ms(now);
        let mut counted = 0;
        for MemoryUse { by, table: number, used, count } in uses {
            let Some(table) = self.tables.get_mut(*number) else { continue };
            let key = table.store.note_uses(*used, *count, now_ms);
            if let Some(key) = &key
                && table.store.near_copies() > 0
                && table.store.has_near(Slot::of(key))
            {
                self.counters.add_many("near_uses_noted", u64::from(*count));
                table.near.note_uses(Slot::of(key).word(key), *count);
            }
            if table.store.policy().suspects.is_some()
                && let Some(key) = key.and_then(|key| Key::new(key).ok())
                && let Some(client) = ClientId::of(*by)
            {
                self.count_uses(now, *number, &key, (client, Uses::Reads(*count)));
            }
            counted += u64::from(*count);
        }
        self.counters.add_many("uses_noted", counted);
    }

    /// Counts something that the driver noticed.
    pub fn count(&mut self, name: &'static str) {
        self.counters.add(name);
    }

    /// Counts `count` things that the driver noticed.
    pub fn count_many(&mut self, name: &'static str, count: u64) {
        self.counters.add_many(name, count);
    }

    fn tick(&mut self, now: Now) {
        if let Some(ceiling) = self.time.wanted_ceiling(now) {
            self.notify(Notice::CeilingWanted(ceiling));
        }
        self.drive_epochs(now);
        for table in &mut self.tables {
            let unjoined = table.store.take_unjoined();
            self.counters.add_many("merges_panicked", unjoined.panicked);
            self.counters.add_many("merges_too_large", unjoined.too_large);
            self.counters.add_many("merges_unlawful", unjoined.unlawful);
        }
        self.ask_for_beats(now);
        self.ask_for_memory(now);
        self.deliver_hints(now);
        self.save(now);
        self.start_syncs(now);
        self.go_on_with_paced_syncs(now);
        self.look_after_sets(now);
        self.offer_leaving(now);
        self.look_after_placed(now);
        self.settle_doubts(now);
        self.cool(now);
        self.compare_rings(now);
        self.end_waits_to_come_in(now);
        self.report_burning(now);
        self.see_to_replaced(now);
        self.give_counts_up(now);
        self.hand_over_overflow(now);
        self.see_to_gone(now);
        self.count_copies(now);
        if self.next_freshness <= now.monotonic {
            self.next_freshness = now.monotonic + FRESHNESS_PERIOD;
            self.begin_freshness_again();
        }
        self.send_bundles(now);
        let is_saved = self.is_saved() && self.is_overflow_written();
        if self.stopping && self.pending.is_empty() && is_saved && !self.stopped {
            self.stopped = true;
            self.notify(Notice::Stopped);
        }
    }

    fn on_request(&mut self, now: Now, request: Request) {
        let Request { asker, caller, header, message } = request;
        if let Caller::Node(node) = caller {
            self.note_view(now, node, header);
            self.note_merge(node, &message);
            match message {
                Message::Replicate(request) => {
                    let reply = self.replicate(now, node, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Rewrite(request) => {
                    let reply = self.rewrite(now, node, request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Copies(request) => {
                    let reply = self.take_copies(now, node, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::TouchCopy(request) => {
                    let reply = self.touch_copy(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Fetch(request) => {
                    let reply = self.fetch(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::CheckCopy(request) => {
                    let reply = self.check_copy(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::HeatRequest(request) => {
                    let reply = self.heat_seen(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::OverlapRequest(request) => {
                    let reply = self.tell_overlap(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::BeatRequest(request) => {
                    let reply = self.tell_beat(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Gone(gone) => {
                    let reply = self.on_gone(node, gone);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Burning(report) => {
                    let reply = self.on_burning(now, node, &report);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Prepare(request) => {
                    let reply = self.prepare(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::SketchRequest(request) => {
                    let reply = self.sketches(node, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Even(request) => {
                    let reply = self.even(now, node, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::Epochs(message) => {
                    return self.on_epochs(now, asker, header.id, node, &message);
                }
                Message::Offer(offer) => {
                    let answer = self.take_offer(node, &offer);
                    return self.reply(now, asker, header.id, answer);
                }
                Message::SlotListRequest(request) => {
                    let reply = self.slot_list(now, &request);
                    return self.reply(now, asker, header.id, reply);
                }
                Message::SetHello(hello) => {
                    let answer = self.take_hello(now, node, &hello);
                    return self.reply(now, asker, header.id, answer);
                }
                Message::HeldRequest(request) => {
                    let answer = match request.revision {
                        0 => self.tell_copies(&request),
                        _ => self.tell_held(node, &request),
                    };
                    return self.reply(now, asker, header.id, answer);
                }
                Message::SetOffer(offer) => {
                    let answer = self.take_set_offer(node, &offer);
                    return self.reply(now, asker, header.id, answer);
                }
                _ => {}
            }
        }
        match message {
            Message::SessionRequest(request) => match refusal(caller, &request) {
                None => self.begin(now, (asker, caller), header.id, request),
                Some(failure) => self.reply_session(now, asker, header.id, Err(failure)),
            },
            Message::ExplainRequest(request) => self.explain(now, asker, header.id, request),
            Message::ListRequest(request) => {
                let list = self.list(now, &request);
                self.reply(now, asker, header.id, list);
            }
            Message::PinnedRequest(request) => {
                let pinned = self.list_pinned(now, caller, &request);
                self.reply(now, asker, header.id, pinned);
            }
            Message::SuspectsRequest(request) => {
                let suspects = self.list_suspects(now, caller, &request);
                self.reply(now, asker, header.id, suspects);
            }
            Message::HottestRequest(request) => {
                let hottest = self.list_hottest(now, &request);
                self.reply(now, asker, header.id, hottest);
            }
            Message::OwnedRequest(request) => {
                let owned = self.list_owned(now, caller, &request);
                self.reply(now, asker, header.id, owned);
            }
            Message::WalkRequest(request) => {
                let walked = self.walk(now, caller, &request);
                self.reply(now, asker, header.id, walked);
            }
            Message::Judge(judge) if matches!(caller, Caller::Node(_)) => {
                self.end_for_node(now, asker, header.id, &judge);
            }
            Message::Judge(judge) => self.judge(now, (asker, caller), header.id, &judge),
            other => {
                self.counters.add("requests_out_of_place");
                if let Some(rejected) = out_of_place(asker, &other) {
                    self.reply(now, asker, header.id, rejected);
                }
            }
        }
    }

    fn on_answer(&mut self, now: Now, number: u64, answered: Answered) {
        let Answered { node, header, message } = answered;
        if self.calls.get(number).is_some_and(|call| call.node != node) {
            // Its address has gone to another node: this answers for nobody else.
            self.counters.add("answers_of_others");
            return self.on_call_failed(now, number, false);
        }
        let Some(call) = self.calls.close(number) else {
            return self.counters.add("answers_too_late");
        };
        let mut heard = header;
        if let Purpose::Sync { .. } = call.purpose {
            // It may have waited behind requests, and tells how late the other's clock was.
            heard.hlc = annulus_proto::Hlc::ZERO;
        }
        self.hear(now, node, heard, call.asked);
        self.share(node, heard, call.asked);
        match call.purpose {
            Purpose::Pending(id) => self.on_pending_answer(now, id, number, call.node, message),
            Purpose::Explain(id) => self.on_explain_answer(now, id, call.node, Some(message)),
            Purpose::Copies { table, sent } => {
                self.on_copies_taken(now, table, call.node, sent, Some(message));
            }
            Purpose::Sync { table, session, step } => {
                let agrees = header.view == self.standing.view.digest();
                self.on_sync_answer(now, table, call.node, session, step, Some((message, agrees)));
            }
            Purpose::Offer { whose, slot, attempt } => {
                let answer = match message {
                    Message::OfferAnswer(answer) => Some(answer),
                    _ => None,
                };
                self.on_offer_answer(now, (whose, slot, attempt), call.node, answer);
            }
            Purpose::SetHello { set, told } => {
                self.on_set_noted(now, (set, told), call.node, Some(message));
            }
            Purpose::Held { set, slots } => {
                let agrees = header.view == self.standing.view.digest();
                self.on_held(now, (set, slots), call.node, Some((message, agrees)));
            }
            Purpose::CountCopies { table, slots } => {
                self.on_copies(now, (table, slots), call.node, Some(message));
            }
            Purpose::Check { table, key } => {
                self.on_check_answer(now, (table, &key), call.node, Some(message));
            }
            Purpose::LetGo { table, key } => {
                self.on_let_go_answer(now, (table, &key), call.node, Some(message));
            }
            Purpose::Heat { table, keys } => {
                self.on_heats(now, table, call.node, keys, Some(message));
            }
            Purpose::Overlap { table } => self.on_overlap(now, table, call.node, Some(message)),
            Purpose::Burning { table, key } => self.on_burned(now, (table, key), Some(message)),
            Purpose::Gone { table, next } => {
                self.on_gone_noted(now, (table, next), call.node, Some(message));
            }
            Purpose::Beat { table, core, after, slots } => {
                let (from, question) = ((table, call.node, core), (call.asked, after, slots));
                self.on_beat(now, from, question, message, header.view);
            }
            Purpose::EndReplaced(to_end) => self.on_end_of_replaced(to_end, Some(message)),
            Purpose::CountOwned { number, place } => {
                self.on_owned(now, (number, place), call.node, Some(message));
            }
            Purpose::Epochs { table, slots, learns } => {
                self.on_epochs_answer(now, (table, slots, &learns), call.node, Some(message));
            }
            Purpose::Ping => {}
        }
    }

    fn on_call_failed(&mut self, now: Now, number: u64, sent: bool) {
        let Some(call) = self.calls.close(number) else { return };
        self.counters.add("calls_failed");
        if self.companions.contains(&call.node) {
            let heard = self.heard.entry(call.node).or_insert(Heard::NEVER);
            heard.failed = heard.failed.max(call.asked);
        }
        match call.purpose {
            Purpose::Pending(id) => self.on_pending_failure(now, id, number, call.node, sent),
            Purpose::Explain(id) => self.on_explain_answer(now, id, call.node, None),
            Purpose::Copies { table, sent } => {
                self.on_copies_taken(now, table, call.node, sent, None);
            }
            Purpose::Sync { table, session, step } => {
                self.on_sync_answer(now, table, call.node, session, step, None);
            }
            Purpose::Offer { whose, slot, attempt } => {
                self.on_offer_answer(now, (whose, slot, attempt), call.node, None);
            }
            Purpose::SetHello { set, told } => {
                self.on_set_noted(now, (set, told), call.node, None);
            }
            Purpose::Held { set, slots } => self.on_held(now, (set, slots), call.node, None),
            Purpose::CountCopies { table, slots } => {
                self.on_copies(now, (table, slots), call.node, None);
            }
            Purpose::Check { table, key } => {
                self.on_check_answer(now, (table, &key), call.node, None);
            }
            Purpose::LetGo { table, key } => {
                self.on_let_go_answer(now, (table, &key), call.node, None);
            }
            Purpose::Heat { table, keys } => self.on_heats(now, table, call.node, keys, None),
            Purpose::Overlap { table } => self.on_overlap(now, table, call.node, None),
            Purpose::Burning { table, key } => self.on_burned(now, (table, key), None),
            Purpose::Gone { table, next } => {
                self.on_gone_noted(now, (table, next), call.node, None);
            }
            // The next one says what this one would have.
            Purpose::Beat { .. } => {}
            Purpose::EndReplaced(to_end) => self.on_end_of_replaced(to_end, None),
            Purpose::CountOwned { number, place } => {
                self.on_owned(now, (number, place), call.node, None);
            }
            Purpose::Epochs { table, slots, learns } => {
                self.on_epochs_answer(now, (table, slots, &learns), call.node, None);
            }
            Purpose::Ping => {}
        }
    }

    fn on_repair_answer(
        &mut self,
        now: Now,
        (table, key): (usize, &Key),
        hint: bool,
        node: NodeId,
        answer: Option<Replicated>,
    ) {
        match answer {
            Some(Replicated::Stored) if hint => {
                self.counters.add("hints_delivered");
                self.tables[table].hints.delivered(node, key);
                self.go_on_with_hints(now, node);
            }
            Some(Replicated::Differs(theirs)) => {
                let _ = self.merge(now, table, key, &theirs, Admission::Reserve);
                self.tables[table].hints.delivered(node, key);
                self.go_on_with_hints(now, node);
            }
            // Nothing is owed to who is no home.
            Some(Replicated::NoHome) => {
                self.tables[table].hints.delivered(node, key);
            }
            Some(Replicated::Stored) => {}
            // Not delivered: it stays, or becomes, a hint.
            other => {
                if let Some(Replicated::Failed(failure)) = &other {
                    self.note_refused(table, node, failure);
                }
                self.tables[table].hints.failed(node, key);
                self.hint(table, node, key);
            }
        }
    }

    /// Asks a node for a sign of life that the hub does not ask: there may be hints for former partners.
    fn ping_if_nobody_does(&mut self, now: Now, node: NodeId) {
        if self.standing.partners.contains(&node) {
            return;
        }
        let heard = self.heard.entry(node).or_insert(Heard::NEVER);
        if heard.pinged + PING_AFTER <= now.monotonic {
            heard.pinged = now.monotonic;
            self.call(now, node, Purpose::Ping, Ping {});
        }
    }

    /// Sends a home this node's copy.
    fn repair(&mut self, now: Now, table: usize, home: NodeId, key: Key, hint: bool) {
        let now_ms = self.time.now_ms(now);
        let Some(entry) = self.known_of(table, &key, now_ms) else {
            return self.tables[table].hints.delivered(home, &key);
        };
        self.offer(now, table, home, key, entry, hint);
    }

    /// Sends a home an entry, which need not be stored here. If it does not arrive it becomes a hint of what is.
    fn offer(&mut self, now: Now, table: usize, home: NodeId, key: Key, entry: Entry, hint: bool) {
        self.send_copies(now, table, home, vec![(key, entry, Errand::Repair { hint })]);
    }

    /// How many cores a node has, as it said last; 1 at least.
    fn cores_of(&self, node: NodeId) -> Option<u16> {
        self.cores_elsewhere.get(&node).copied()
    }

    fn note_cores(&mut self, node: NodeId, cores: u16) {
        if self.standing.view.get(node).is_some() {
            self.cores_elsewhere.insert(node, cores.max(1));
        }
    }

    /// Asks a node; `None` if no address of it is known.
    fn call(
        &mut self,
        now: Now,
        node: NodeId,
        purpose: Purpose,
        message: impl Into<Message>,
    ) -> Option<u64> {
        let to = self.standing.view.get(node)?.addr;
        let patience = match purpose {
            Purpose::Sync { .. } => SYNC_PATIENCE,
            _ => 1,
        };
        let deadline = now.monotonic + self.settings.home_timeout * patience;
        let call = self.calls.open(Call { node, asked: now.monotonic, deadline, purpose });
        let header = self.header(now, call);
        self.outputs.push_back(Output::Call(Ask { to, header, message: message.into() }));
        Some(call)
    }

    fn reply(&mut self, now: Now, to: Asker, id: u64, message: impl Into<Message>) {
        let message = message.into();
        match to {
            Asker::Lane { lane, call } => self.answer_lane(lane, call, &message),
            Asker::Hub { ticket } => {
                let header = self.header(now, id);
                self.notify(Notice::Part { ticket, header, message });
            }
            Asker::Stream(_) | Asker::Local(_) | Asker::Datagram(_) | Asker::Sealed(..) => {
                let header = self.header(now, id);
                self.outputs.push_back(Output::Reply(Reply { to, header, message }));
            }
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    fn answer_lane(&mut self, lane: u64, call: u32, message: &Message) {
        let answer = match message {
            Message::SessionReply(reply) => Answer::of(reply),
            _ => Answer::AskElsewhere,
        };
        if call != 0 {
            self.lane_answers.push_back(LaneAnswer { lane, call, answer });
        }
    }

    /// What stands in the header of a frame that leaves now.
    fn header(&self, now: Now, id: u64) -> Header {
        Header { id, view: self.standing.view.digest(), hlc: NodeTime::announced(now) }
    }

    fn id(&self) -> NodeId {
        self.standing.me
    }

    /// Whether a slot is this core's: in its shard, readers look for no other.
    fn owns(&self, slot: Slot) -> bool {
        route::core_of(slot, self.cores) == self.number
    }

    /// The slots that this core owns, in ascending order.
    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        self.slots_after(0)
    }

    /// Its slots without so many of the first.
    fn slots_after(&self, done: usize) -> impl Iterator<Item = Slot> + use<> {
        route::slots_of(self.number + done * self.cores, self.cores)
    }

    /// How many slots are looked at in one go, in a quarter of a millisecond at most, where all are to
    /// be: a sixteenth of those that this core has.
    fn slots_step(&self) -> usize {
        usize::from(SLOT_COUNT).div_ceil(16 * self.cores)
    }

    /// The table that nodes call so among themselves.
    fn table_named(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| table.store.policy().name == name)
    }

    /// The table that clients call so.
    fn table_of_clients(&self, name: &str) -> Option<usize> {
        let is_it = |table: &Table| {
            let policy = table.store.policy();
            policy.ring == 0 && name_among_clients(&policy.name) == name
        };
        self.tables.iter().position(is_it)
    }

    /// The table that a request is about.
    fn table_asked_for(&self, caller: Caller, name: &str) -> Option<usize> {
        match caller {
            Caller::Client(_) => self.table_of_clients(name),
            Caller::Node(_) => self.table_named(name),
        }
    }

    fn homes(&self, table: usize, slot: Slot) -> Vec<NodeId> {
        self.ring_homes(table, slot).to_vec()
    }

    /// The same, to look at.
    fn ring_homes(&self, table: usize, slot: Slot) -> &[NodeId] {
        let homes = self.placement(table).ring.homes(slot);
        let replicas = usize::from(self.tables[table].store.policy().replicas.get());
        &homes[..homes.len().min(replicas)]
    }

    /// The ring that a table's sessions are on.
    fn placement(&self, table: usize) -> &Placement {
        self.standing.placement(self.tables[table].store.policy().ring)
    }

    /// Whether this node counts as a home of a slot. One that has met nobody yet does: the others may count
    /// it in still.
    fn is_home(&self, table: usize, slot: Slot) -> bool {
        let state = self.slot_state(table, slot);
        let knows_nobody = self.standing.status == Status::Joining && self.companions.is_empty();
        state.home || state.decides || knows_nobody
    }

    fn slot_state(&self, table: usize, slot: Slot) -> &SlotState {
        &self.tables[table].slots[usize::from(slot.index())]
    }
}

impl SlotState {
    fn is_synced(&self) -> bool {
        self.home && self.sources.is_empty()
    }

    /// Whether this node is a home of the slot, by placement or in its epoch.
    fn is_kept(&self) -> bool {
        self.home || self.decides
    }
}

/// What a client's role does not allow.
fn refusal(caller: Caller, request: &annulus_proto::message::SessionRequest) -> Option<Failure> {
    let Caller::Client(role) = caller else { return None };
    let begins_or_ends = request.operation.may_begin() || request.operation.may_end();
    // Who runs the cluster says where sessions are, and no more of them.
    let places = request.operation.is_placement() && role.includes(Role::Operator);
    (!may(role, begins_or_ends) && !places)
        .then(|| Failure::Refused(format!("the role {role} may not do this")))
}

impl Caller {
    /// Whether it may begin and end sessions.
    pub fn may_end(self) -> bool {
        match self {
            Self::Client(role) => may(role, true),
            _ => true,
        }
    }

    /// Whether it may read sessions.
    pub fn may_read(self) -> bool {
        match self {
            Self::Client(role) => may(role, false),
            _ => true,
        }
    }
}

/// Whether a client of this role may begin and end sessions, or do all else with them.
fn may(role: Role, begin_or_end: bool) -> bool {
    role.includes(Role::Authority) || !begin_or_end && role.includes(Role::Worker)
}

impl Heard {
    const NEVER: Self = Self {
        at: Duration::ZERO,
        view: 0,
        seen: Duration::ZERO,
        failed: Duration::ZERO,
        pinged: Duration::ZERO,
        shared: Duration::ZERO,
        told: Duration::ZERO,
    };
}

impl Core {
    /// Notes which view a node has. Returns whether it is a member.
    fn note_view(&mut self, now: Now, node: NodeId, header: Header) -> bool {
        // Whoever merely says that it is a node costs no memory.
        if node == self.id() || self.standing.view.get(node).is_none() {
            return false;
        }
        let differs = header.view != 0 && header.view != self.standing.view.digest();
        let heard = self.heard.entry(node).or_insert(Heard::NEVER);
        (heard.view, heard.seen) = (header.view, now.monotonic);
        if differs && heard.told + OTHER_VIEW_PERIOD <= now.monotonic {
            heard.told = now.monotonic;
            self.notify(Notice::OtherView(node));
        }
        true
    }

    /// Notes a sign of life: a node has answered what it was asked then. Nothing else tells how late it is
    /// and what its clock shows: what others hold back arrives as if it had just been sent.
    fn hear(&mut self, now: Now, node: NodeId, header: Header, asked: Duration) {
        if !self.note_view(now, node, header) {
            return;
        }
        if !self.time.observe(now, node, header.hlc) {
            self.counters.add("clocks_out_of_bounds");
        }
        let stale = self.stale_max();
        let is_companion = self.companions.contains(&node);
        let heard = self.heard.entry(node).or_insert(Heard::NEVER);
        // One that is held for dead counts once it is a member again: slots are compared with it from
        // then on, and this core learns of that later than of a packet.
        // Of those that share no slot with this one nothing is expected, and nothing missed.
        let is_late = heard.at > Duration::ZERO && heard.at + stale <= now.monotonic;
        let missed = is_companion && is_late && self.standing.partners.contains(&node);
        if is_companion {
            heard.at = heard.at.max(asked);
        }
        if missed {
            // Hints for this node may be forgotten over there, and it was told of no end meanwhile.
            self.estranged.insert(node);
            self.take_up_slots(now);
        }
    }

    /// Tells the other cores of a sign of life, through the hub, which then asks for none.
    fn share(&mut self, node: NodeId, header: Header, asked: Duration) {
        if !self.standing.partners.contains(&node) {
            return;
        }
        let heard = self.heard.entry(node).or_insert(Heard::NEVER);
        if heard.shared + SHARE_AFTER <= asked {
            heard.shared = asked;
            self.notify(Notice::Heard { node, header, asked });
        }
    }

    /// Whether a node had better be asked after others: it should have been heard of and was not, or it did
    /// not answer lately.
    fn is_doubtful(&self, now: Now, node: NodeId) -> bool {
        if self.standing.partners.contains(&node) {
            return !self.is_in_contact(now, node);
        }
        let failed =
            |heard: &Heard| heard.failed > heard.at && heard.failed + DOUBT > now.monotonic;
        self.heard.get(&node).is_some_and(failed)
    }

    /// Whether a node was heard of lately, so that it is worth a call.
    fn is_in_contact(&self, now: Now, node: NodeId) -> bool {
        let lately = |heard: &Heard| heard.at + 4 * PING_AFTER > now.monotonic;
        self.heard.get(&node).is_some_and(lately)
    }

    /// The shortest of the tables' `stale_max`.
    fn stale_max(&self) -> Duration {
        let bounds = self.tables.iter().map(|table| table.store.policy().stale_max);
        bounds.min().unwrap_or(Duration::MAX)
    }

    fn is_up(&self) -> bool {
        self.standing.status == Status::Up
    }
}

#[cfg(test)]
mod tests;
