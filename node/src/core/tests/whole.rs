//! A hub and its cores in one piece. As in production, what they tell each other arrives in order, and
//! after something else may have happened.

use std::collections::VecDeque;

use super::*;

/// A key like this one whose slot has a core in sparse worlds.
pub(super) fn sparse(name: &str) -> String {
    let is_there = |key: &String| {
        let slot = Key::new(key.as_str()).unwrap().slot();
        Simulated::Sparse.has_core(slot)
    };
    (0..).map(|number| format!("{name}/{number}")).find(is_there).unwrap()
}

pub(super) struct Whole {
    pub(super) hub: Hub,
    pub(super) cores: Vec<Core>,
    slots: Simulated,
    /// To each core, with when it arrives.
    orders: Vec<VecDeque<(Duration, Input)>>,
    /// To the hub, with the core that it comes from.
    notices: VecDeque<(Duration, (usize, Notice))>,
    rng: StdRng,
    outputs: VecDeque<Sent>,
    /// Whether it has said that it has stopped.
    pub(super) has_stopped: bool,
    /// What it has said of nodes that join values otherwise.
    pub(super) other_merges: Vec<Notice>,
}

/// How long it takes at most until one part of a node hears what another one says, in microseconds.
const DELAY_US_MAX: u64 = 2_000;

/// What reaches a node.
pub(super) enum Arrived {
    Hub(HubInput),
    Request(Request),
    Outcome(Outcome),
    /// What a core wanted on disk is there, or not.
    Kept {
        core: usize,
        ticket: u64,
        is_on_disk: bool,
    },
    /// What left a table was written down, or not.
    Overflowed {
        core: usize,
        table: usize,
        is_taken: bool,
    },
    /// Memory was reserved for a table, or not.
    Reserved {
        table: usize,
        is_there: bool,
    },
    /// What the application says.
    Said(SlotSaid),
    /// Something of applications, which is none of a node's business.
    Application(Move),
}

/// What leaves a node.
pub(super) enum Sent {
    Gossip {
        channel: Channel,
        to: SocketAddr,
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
    /// To the application, of the only slot set there is.
    Slots(SlotCall),
    /// To the archive.
    Overflow {
        core: usize,
        table: usize,
        sessions: Arc<[Overflowed]>,
    },
    /// To who listens.
    Gone {
        table: usize,
        sessions: Vec<GoneSession>,
    },
    /// For memory.
    Reserve {
        table: usize,
    },
}

impl Whole {
    pub(super) fn new(
        start: HubStart,
        slots: Simulated,
        clock_floor_ms: u64,
        tables: Vec<Vec<(TablePolicy, Writer)>>,
        slot_sets: &[SlotSetPolicy],
        kept: &BTreeMap<RecordName, Vec<u8>>,
        now: Now,
    ) -> Self {
        let (settings, seed, cores) = (start.settings.clone(), start.seed, start.cores);
        let clock_ceiling_ms = start.state.clock_ceiling_ms;
        let hub = Hub::new(start, now);
        let records_of = |number: usize| -> Vec<Record> {
            let ours = kept.iter().filter(|(name, _)| slots.core_of(name.slot, cores) == number);
            ours.map(|(name, value)| Record { name: name.clone(), value: value.clone() }).collect()
        };
        let core = |(number, tables): (usize, Vec<(TablePolicy, Writer)>)| {
            let (told, of) = slots.told(number, cores);
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
        let cores: Vec<Core> = tables.into_iter().enumerate().map(core).collect();
        let orders = cores.iter().map(|_| VecDeque::new()).collect();
        let rng = StdRng::seed_from_u64(seed);
        let notices = VecDeque::new();
        let (outputs, has_stopped) = (VecDeque::new(), false);
        let other_merges = Vec::new();
        let mut whole =
            Self { hub, cores, slots, orders, notices, rng, outputs, has_stopped, other_merges };
        whole.pass_on(now);
        whole
    }

    pub(super) fn take_in(&mut self, now: Now, arrived: Arrived) {
        match arrived {
            Arrived::Hub(input) => self.hub.handle(now, input),
            Arrived::Request(request) => {
                match self.slots.party_of_request(&request.message, self.cores.len()) {
                    Party::Core(core) => {
                        self.cores[core].handle(now, Input::Request(request));
                    }
                    Party::Hub => self.hub.handle(now, HubInput::Request(request)),
                }
            }
            Arrived::Outcome(mut outcome) => {
                let (party, call) = Simulated::party_of_call(outcome.call, self.cores.len());
                outcome.call = call;
                match party {
                    Party::Core(core) => self.cores[core].handle(now, Input::Outcome(outcome)),
                    Party::Hub => self.hub.handle(now, HubInput::Outcome(outcome)),
                }
            }
            Arrived::Application(_) => {}
            Arrived::Said(said) => self.cores[0].handle(now, Input::SlotSet { set: 0, said }),
            Arrived::Overflowed { core, table, is_taken } => {
                self.cores[core].handle(now, Input::Overflowed { table, is_taken });
            }
            Arrived::Reserved { table, is_there } => {
                for core in &mut self.cores {
                    core.handle(now, Input::Reserved { table, is_there });
                }
            }
            Arrived::Kept { core, ticket, is_on_disk } => self.cores[core].handle(
                now,
                match is_on_disk {
                    true => Input::Persisted { ticket },
                    false => Input::NotPersisted { ticket },
                },
            ),
        }
        self.pass_on(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        let is_due = |at: Duration| at <= now.monotonic;
        for (core, orders) in self.cores.iter_mut().zip(&mut self.orders) {
            while let Some((_, input)) = orders.pop_front_if(|(at, _)| is_due(*at)) {
                core.handle(now, input);
            }
        }
        while let Some((_, (core, notice))) = self.notices.pop_front_if(|(at, _)| is_due(*at)) {
            self.hub.handle(now, HubInput::Notice { core, notice });
        }
        if self.hub.poll_timeout() <= now.monotonic {
            self.hub.handle_timeout(now);
        }
        for core in &mut self.cores {
            if core.poll_timeout() <= now.monotonic {
                core.handle_timeout(now);
            }
        }
        self.pass_on(now);
    }

    pub(super) fn poll_timeout(&self) -> Duration {
        let cores = self.cores.iter().map(Core::poll_timeout);
        let orders = self.orders.iter().filter_map(|orders| Some(orders.front()?.0));
        let notices = self.notices.front().map(|(at, _)| *at);
        cores.chain(orders).chain(notices).fold(self.hub.poll_timeout(), Duration::min)
    }

    pub(super) fn poll_output(&mut self) -> Option<Sent> {
        self.outputs.pop_front()
    }

    pub(super) fn scan(&mut self, now: Now, expired: usize, verified: usize) {
        self.cores.iter_mut().for_each(|core| core.scan(now, expired, verified));
        self.pass_on(now);
    }

    pub(super) fn core_of(&mut self, slot: Slot) -> &mut Core {
        let number = self.slots.core_of(slot, self.cores.len());
        assert!(self.slots.has_core(slot), "slot {} has no core in a sparse world", slot.index());
        &mut self.cores[number]
    }

    pub(super) fn is_up(&self) -> bool {
        self.cores.iter().all(Core::is_up)
    }

    pub(super) fn slots_unsynced(&self) -> usize {
        self.cores.iter().map(|core| core.slots_unsynced(0)).sum()
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        let cores: u64 = self.cores.iter().map(|core| core.counters.count(name)).sum();
        cores + self.hub.count(name)
    }

    /// Sorts what hub and cores have to say.
    fn pass_on(&mut self, now: Now) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                HubOutput::Gossip { channel, to, packet, .. } => {
                    self.outputs.push_back(Sent::Gossip { channel, to, packet });
                }
                HubOutput::Reply(reply) => self.outputs.push_back(Sent::Reply(reply)),
                HubOutput::Call(ask) => self.call(Party::Hub, ask),
                HubOutput::Core { core, input } => self.order(now, core, input),
                HubOutput::Cores(input) => {
                    for core in 0..self.cores.len() {
                        self.order(now, core, input.clone());
                    }
                }
                HubOutput::Persist { generation, state } => {
                    self.outputs.push_back(Sent::Persist { generation, state });
                }
                HubOutput::IdInUse { .. } => {}
                HubOutput::Stopped => self.has_stopped = true,
            }
        }
        for number in 0..self.cores.len() {
            while let Some(output) = self.cores[number].poll_output() {
                match output {
                    Output::Reply(reply) => self.outputs.push_back(Sent::Reply(reply)),
                    Output::Call(ask) => self.call(Party::Core(number), ask),
                    Output::Persist { ticket, changes } => {
                        self.outputs.push_back(Sent::Keep { core: number, ticket, changes });
                    }
                    Output::SlotSet { call, .. } => self.outputs.push_back(Sent::Slots(call)),
                    Output::Overflow { table, sessions } => {
                        self.outputs.push_back(Sent::Overflow { core: number, table, sessions });
                    }
                    Output::Gone { table, sessions } => {
                        self.outputs.push_back(Sent::Gone { table, sessions });
                    }
                    Output::Reserve { table } => self.outputs.push_back(Sent::Reserve { table }),
                    Output::Notice(notice) => {
                        if matches!(notice, Notice::OtherMerge { .. }) {
                            self.other_merges.push(notice.clone());
                        }
                        let last = self.notices.back().map(|(at, _)| *at);
                        let at = self.arrival(now, last);
                        self.notices.push_back((at, (number, notice)));
                    }
                }
            }
        }
    }

    /// A call of one of the parts, with a number that no other part's has.
    fn call(&mut self, party: Party, mut ask: Ask) {
        ask.header.id = Simulated::number_outside(party, ask.header.id, self.cores.len());
        self.outputs.push_back(Sent::Call(ask));
    }

    /// How many hints all cores have.
    pub(super) fn hints(&self) -> usize {
        self.cores.iter().map(|core| core.tables[0].hints.len()).sum()
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
