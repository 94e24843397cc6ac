//! A hub and its cores as one process, as the driver runs them: what they tell each other arrives in order,
//! and after something else may have happened.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use annulus_gossip::Channel;
use annulus_node::core::route::{Party, Simulated};
use annulus_node::core::{
    Ask, Core, CoreStart, Hub, HubInput, HubOutput, HubStart, Input, NodeState, Notice, Now,
    Outcome, Output, Record, RecordChange, RecordName, Reply, Request, SlotCall, SlotSaid,
    SlotSetPolicy, TablePolicy,
};
use annulus_proto::codec::Header;
use annulus_shm::Writer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A node that runs. Dropping it is a `kill -9`.
pub(super) struct Process {
    hub: Hub,
    cores: Vec<Core>,
    /// To each core, with when it arrives.
    orders: Vec<VecDeque<(Duration, Input)>>,
    /// To the hub, with the core that it comes from.
    notices: VecDeque<(Duration, (usize, Notice))>,
    next_scan: Duration,
    rng: StdRng,
}

/// What leaves a node.
pub(super) enum Sent {
    Gossip {
        channel: Channel,
        to: SocketAddr,
        header: Header,
        packet: Vec<u8>,
    },
    Reply(Reply),
    Call(Ask),
    Persist {
        generation: u64,
        state: NodeState,
    },
    Keep {
        core: usize,
        ticket: u64,
        changes: Vec<RecordChange>,
    },
    /// What the application that embeds it is to do.
    Slots(SlotCall),
    /// Another node bears its id, and it has to stop.
    GiveWay,
    Stopped,
}

/// How long it takes at most until one part of a node hears what another one says, in microseconds.
const DELAY_US_MAX: u64 = 2_000;
/// How often the cores scan, and what they do then at most.
const SCAN_PERIOD: Duration = Duration::from_millis(400);
const EXPIRED_STEP: usize = 64;
const VERIFIED_STEP: usize = 64;

/// Which slots a node has.
pub(super) const SLOTS: Simulated = Simulated::Sparse;

impl Process {
    /// A node that starts on what is on its host: each core gets its shard of the table, and what was kept of
    /// its slots.
    pub(super) fn start(
        start: HubStart,
        (clock_floor_ms, slot_sets): (u64, &[SlotSetPolicy]),
        tables: Vec<(TablePolicy, Vec<Writer>)>,
        kept: &BTreeMap<RecordName, Vec<u8>>,
        now: Now,
    ) -> Self {
        let (settings, seed, cores) = (start.settings.clone(), start.seed, start.cores);
        let clock_ceiling_ms = start.state.clock_ceiling_ms;
        let hub = Hub::new(start, now);
        let records_of = |core: usize| -> Vec<Record> {
            let ours = kept.iter().filter(|(name, _)| SLOTS.core_of(name.slot, cores) == core);
            ours.map(|(name, value)| Record { name: name.clone(), value: value.clone() }).collect()
        };
        let mut shards: Vec<Vec<(TablePolicy, Writer)>> = (0..cores).map(|_| Vec::new()).collect();
        for (policy, writers) in tables {
            let of_cores = shards.iter_mut().zip(writers);
            of_cores.for_each(|(tables, writer)| tables.push((policy.clone(), writer)));
        }
        let core = |(number, tables): (usize, Vec<(TablePolicy, Writer)>)| {
            let (told, of) = SLOTS.told(number, cores);
            let start = CoreStart {
                number: told,
                cores: of,
                settings: settings.clone(),
                standing: hub.standing(),
                clock_ceiling_ms,
                clock_floor_ms,
                tables,
                slot_sets: slot_sets.to_vec(),
                kept: records_of(number),
                seed: seed.wrapping_add(number as u64),
            };
            Core::new(start, now)
        };
        let cores: Vec<Core> = shards.into_iter().enumerate().map(core).collect();
        let orders = cores.iter().map(|_| VecDeque::new()).collect();
        let (notices, next_scan) = (VecDeque::new(), now.monotonic + SCAN_PERIOD);
        Self { hub, cores, orders, notices, next_scan, rng: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn tell_hub(&mut self, now: Now, input: HubInput) {
        self.hub.handle(now, input);
    }

    /// What a core wanted on disk is there, or it is not known to be.
    pub(super) fn tell_kept(&mut self, now: Now, (core, ticket): (usize, u64), is_on_disk: bool) {
        let told = match is_on_disk {
            true => Input::Persisted { ticket },
            false => Input::NotPersisted { ticket },
        };
        self.cores[core].handle(now, told);
    }

    /// The application says something of its slots.
    pub(super) fn say(&mut self, now: Now, said: SlotSaid) {
        self.cores[0].handle(now, Input::SlotSet { set: 0, said });
    }

    pub(super) fn request(&mut self, now: Now, request: Request) {
        match SLOTS.party_of_request(&request.message, self.cores.len()) {
            Party::Core(core) => self.cores[core].handle(now, Input::Request(request)),
            Party::Hub => self.hub.handle(now, HubInput::Request(request)),
        }
    }

    pub(super) fn outcome(&mut self, now: Now, mut outcome: Outcome) {
        let (party, call) = Simulated::party_of_call(outcome.call, self.cores.len());
        outcome.call = call;
        match party {
            Party::Core(core) => self.cores[core].handle(now, Input::Outcome(outcome)),
            Party::Hub => self.hub.handle(now, HubInput::Outcome(outcome)),
        }
    }

    /// A call of one of the parts, as it is numbered outside.
    fn call(&self, party: Party, mut ask: Ask) -> Sent {
        ask.header.id = Simulated::number_outside(party, ask.header.id, self.cores.len());
        Sent::Call(ask)
    }

    /// Does one thing that has become due, so that everything it brings on can be carried out before the next;
    /// `false` if there is none.
    pub(super) fn do_what_is_due(&mut self, now: Now) -> bool {
        let is_due = |at: Duration| at <= now.monotonic;
        for (core, orders) in self.cores.iter_mut().zip(&mut self.orders) {
            if let Some((_, input)) = orders.pop_front_if(|(at, _)| is_due(*at)) {
                core.handle(now, input);
                return true;
            }
        }
        if let Some((_, (core, notice))) = self.notices.pop_front_if(|(at, _)| is_due(*at)) {
            self.hub.handle(now, HubInput::Notice { core, notice });
            return true;
        }
        if is_due(self.hub.poll_timeout()) {
            self.hub.handle_timeout(now);
            return true;
        }
        if let Some(core) = self.cores.iter_mut().find(|core| is_due(core.poll_timeout())) {
            core.handle_timeout(now);
            return true;
        }
        if is_due(self.next_scan) {
            self.next_scan = now.monotonic + SCAN_PERIOD;
            self.cores.iter_mut().for_each(|core| core.scan(now, EXPIRED_STEP, VERIFIED_STEP));
            return true;
        }
        false
    }

    /// How many slots it has given up.
    pub(super) fn slots_given_up(&self) -> u64 {
        self.cores.iter().map(|core| core.counters().count("slots_given_up")).sum()
    }

    /// When there is something to do by itself.
    pub(super) fn poll_timeout(&self) -> Duration {
        let cores = self.cores.iter().map(Core::poll_timeout);
        let orders = self.orders.iter().filter_map(|orders| Some(orders.front()?.0));
        let notices = self.notices.front().map(|(at, _)| *at);
        let own = [self.hub.poll_timeout(), self.next_scan];
        cores.chain(orders).chain(notices).chain(own).min().expect("there is a hub")
    }

    /// The next thing that leaves the node. What its parts tell each other is put on its way meanwhile.
    pub(super) fn poll_output(&mut self, now: Now) -> Option<Sent> {
        while let Some(output) = self.hub.poll_output() {
            match output {
                HubOutput::Gossip { channel, to, header, packet } => {
                    return Some(Sent::Gossip { channel, to, header, packet });
                }
                HubOutput::Reply(reply) => return Some(Sent::Reply(reply)),
                HubOutput::Call(ask) => return Some(self.call(Party::Hub, ask)),
                HubOutput::Core { core, input } => self.order(now, core, input),
                HubOutput::Cores(input) => {
                    for core in 0..self.cores.len() {
                        self.order(now, core, input.clone());
                    }
                }
                HubOutput::Persist { generation, state } => {
                    return Some(Sent::Persist { generation, state });
                }
                HubOutput::IdInUse { give_way: true, .. } => return Some(Sent::GiveWay),
                HubOutput::IdInUse { .. } => {}
                HubOutput::Stopped => return Some(Sent::Stopped),
            }
        }
        for number in 0..self.cores.len() {
            while let Some(output) = self.cores[number].poll_output() {
                match output {
                    Output::Reply(reply) => return Some(Sent::Reply(reply)),
                    Output::Call(ask) => return Some(self.call(Party::Core(number), ask)),
                    Output::SlotSet { call, .. } => return Some(Sent::Slots(call)),
                    // What leaves the tables of storms is dropped.
                    Output::Overflow { .. } | Output::Gone { .. } => {}
                    Output::Reserve { table } => unreachable!("table {table} has all its memory"),
                    Output::Persist { ticket, changes } => {
                        return Some(Sent::Keep { core: number, ticket, changes });
                    }
                    Output::Notice(notice) => {
                        let last = self.notices.back().map(|(at, _)| *at);
                        let at = self.arrival(now, last);
                        self.notices.push_back((at, (number, notice)));
                    }
                }
            }
        }
        None
    }

    fn order(&mut self, now: Now, core: usize, input: Input) {
        let last = self.orders[core].back().map(|(at, _)| *at);
        let at = self.arrival(now, last);
        self.orders[core].push_back((at, input));
    }

    /// When something arrives that is said now: not before what was said `last`.
    fn arrival(&mut self, now: Now, last: Option<Duration>) -> Duration {
        let delay = Duration::from_micros(self.rng.random_range(0..DELAY_US_MAX));
        last.unwrap_or_default().max(now.monotonic + delay)
    }
}
