//! A hub and its cores in one piece: what the driver is in production, without anything in between.

use std::collections::VecDeque;

use super::*;

pub(super) struct Whole {
    pub(super) hub: Hub,
    pub(super) cores: Vec<Core>,
    outputs: VecDeque<Sent>,
}

/// What reaches a node.
pub(super) enum Arrived {
    Hub(HubInput),
    Request(Request),
    Outcome(Outcome),
}

/// What leaves a node.
pub(super) enum Sent {
    Gossip { to: SocketAddr, header: Header, packet: Vec<u8> },
    Reply(Reply),
    Call(Ask),
    Persist { generation: u64, state: NodeState },
}

impl Whole {
    pub(super) fn new(
        start: HubStart,
        clock_floor_ms: u64,
        tables: Vec<Vec<(TablePolicy, Writer)>>,
        now: Now,
    ) -> Self {
        let (settings, seed, cores) = (start.settings.clone(), start.seed, start.cores);
        let clock_ceiling_ms = start.state.clock_ceiling_ms;
        let hub = Hub::new(start, now);
        let core = |(number, tables): (usize, Vec<(TablePolicy, Writer)>)| {
            let start = CoreStart {
                number,
                cores,
                settings: settings.clone(),
                standing: hub.standing(),
                clock_ceiling_ms,
                clock_floor_ms,
                tables,
                seed: seed.wrapping_add(number as u64),
            };
            Core::new(start, now)
        };
        let cores = tables.into_iter().enumerate().map(core).collect();
        let mut whole = Self { hub, cores, outputs: VecDeque::new() };
        whole.pass_on(now);
        whole
    }

    pub(super) fn take_in(&mut self, now: Now, arrived: Arrived) {
        let cores = self.cores.len();
        match arrived {
            Arrived::Hub(input) => self.hub.handle(now, input),
            Arrived::Request(request) => match route::party_of_request(&request.message, cores) {
                Party::Core(core) => self.cores[core].handle(now, Input::Request(request)),
                Party::Hub => self.hub.handle(now, HubInput::Request(request)),
            },
            Arrived::Outcome(outcome) => {
                let (Outcome::Answer { call, .. } | Outcome::Failed { call, .. }) = outcome;
                match route::party_of_call(call, cores) {
                    Party::Core(core) => self.cores[core].handle(now, Input::Outcome(outcome)),
                    Party::Hub => self.hub.handle(now, HubInput::Outcome(outcome)),
                }
            }
        }
        self.pass_on(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
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
        cores.fold(self.hub.poll_timeout(), Duration::min)
    }

    pub(super) fn poll_output(&mut self) -> Option<Sent> {
        self.outputs.pop_front()
    }

    pub(super) fn scan(&mut self, now: Now, expired: usize, verified: usize) {
        self.cores.iter_mut().for_each(|core| core.scan(now, expired, verified));
        self.pass_on(now);
    }

    pub(super) fn core_of(&mut self, slot: Slot) -> &mut Core {
        let cores = self.cores.len();
        &mut self.cores[core_of(slot, cores)]
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

    /// Lets hub and cores tell each other what they have to, until they are quiet.
    fn pass_on(&mut self, now: Now) {
        loop {
            let mut is_quiet = true;
            while let Some(output) = self.hub.poll_output() {
                is_quiet = false;
                match output {
                    HubOutput::Gossip { to, header, packet } => {
                        self.outputs.push_back(Sent::Gossip { to, header, packet });
                    }
                    HubOutput::Reply(reply) => self.outputs.push_back(Sent::Reply(reply)),
                    HubOutput::Call(ask) => self.outputs.push_back(Sent::Call(ask)),
                    HubOutput::Core { core, input } => self.cores[core].handle(now, input),
                    HubOutput::Cores(input) => {
                        for core in &mut self.cores {
                            core.handle(now, input.clone());
                        }
                    }
                    HubOutput::Persist { generation, state } => {
                        self.outputs.push_back(Sent::Persist { generation, state });
                    }
                    HubOutput::IdInUse { .. } | HubOutput::Stopped => {}
                }
            }
            for number in 0..self.cores.len() {
                while let Some(output) = self.cores[number].poll_output() {
                    is_quiet = false;
                    match output {
                        Output::Reply(reply) => self.outputs.push_back(Sent::Reply(reply)),
                        Output::Call(ask) => self.outputs.push_back(Sent::Call(ask)),
                        Output::Notice(notice) => {
                            self.hub.handle(now, HubInput::Notice { core: number, notice });
                        }
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }
}
