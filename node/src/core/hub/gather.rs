//! Requests that are split among the cores, and their answers put together.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_proto::NodeId;
use annulus_proto::codec::Header;
use annulus_proto::message::{
    Compare, Compared, ComparedDifference, Epochs, EpochsAnswer, Message, NodeStatus, PeerState,
    Rejected, SketchRequest, Sketches, TableStatus,
};
use annulus_sketch::{Sketch, Symbol};

use super::Hub;
use crate::core::io::{Asker, Caller, CoreReport, HubOutput, Input, Now, Reply, Request};
use crate::core::replica::reject;
use crate::core::store::SYMBOLS;

/// What the cores have not answered all of yet.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    tickets: u64,
    comparisons: BTreeMap<u64, Comparison>,
    epochs: BTreeMap<u64, EpochsSoFar>,
    /// At most one at a time: whoever asks meanwhile gets the same answer.
    status: Option<StatusSoFar>,
}

#[derive(Debug)]
struct Comparison {
    asker: Asker,
    caller: Caller,
    header: Header,
    /// What the cores are asked for.
    request: SketchRequest,
    /// What the sum of it is compared with, if that is the question.
    symbol: Option<Symbol>,
    waiting: usize,
    /// What the cores have that answered, added up.
    sum: Vec<Sketch>,
    /// The view that all cores saw which have answered; 0 if they saw different ones.
    view: Option<u64>,
    rejected: Option<Message>,
}

/// What the cores said of the epochs of their slots.
#[derive(Debug)]
struct EpochsSoFar {
    asker: Asker,
    id: u64,
    waiting: usize,
    answer: EpochsAnswer,
    rejected: Option<Message>,
}

#[derive(Debug)]
struct StatusSoFar {
    ticket: u64,
    askers: Vec<(Asker, u64)>,
    waiting: usize,
    report: CoreReport,
}

/// Comparisons that may wait for the cores: these answer at once, so a handful is much.
const COMPARISONS_MAX: usize = 256;
/// Messages about epochs that may wait for the cores, and these for the disk: four of each other node.
const EPOCHS_MAX: usize = 8_192;
/// Those who may wait for one status.
const STATUS_ASKERS_MAX: usize = 4_096;

impl Hub {
    /// Compares the first symbol of what all cores have with another node's.
    pub(super) fn compare(
        &mut self,
        now: Now,
        asker: Asker,
        caller: Caller,
        header: Header,
        request: Compare,
    ) {
        let symbol = Symbol::from_bytes(&request.symbol);
        let Ok(size) = u16::try_from(request.slots.slots().count()) else { return };
        let Compare { table, cut_ms, slots, .. } = request;
        let request = SketchRequest { table, cut_ms, slots, sizes: vec![size], symbols: 1 };
        self.gather(now, (asker, caller, header), request, Some(symbol));
    }

    /// Asks all cores for their parts of some sketches.
    pub(super) fn split(
        &mut self,
        now: Now,
        asker: Asker,
        caller: Caller,
        header: Header,
        request: SketchRequest,
    ) {
        self.gather(now, (asker, caller, header), request, None);
    }

    fn gather(
        &mut self,
        now: Now,
        (asker, caller, header): (Asker, Caller, Header),
        request: SketchRequest,
        symbol: Option<Symbol>,
    ) {
        if self.gathers.comparisons.len() >= COMPARISONS_MAX {
            return self.refuse_as_busy(now, asker, header.id);
        }
        let comparison = Comparison {
            asker,
            caller,
            header,
            request,
            symbol,
            waiting: self.cores,
            sum: Vec::new(),
            view: None,
            rejected: None,
        };
        self.ask_for_sketches(comparison);
    }

    fn ask_for_sketches(&mut self, comparison: Comparison) {
        let ticket = self.gathers.next_ticket();
        let Comparison { caller, header, .. } = comparison;
        let (asker, message) = (Asker::Hub { ticket }, comparison.request.clone().into());
        let input = Input::Request(Request { asker, caller, header, message });
        self.outputs.push_back(HubOutput::Cores(input));
        self.gathers.comparisons.insert(ticket, comparison);
    }

    /// Asks all cores how they are.
    pub(super) fn ask_how_cores_are(&mut self, now: Now, asker: Asker, header: Header) {
        if let Some(status) = &mut self.gathers.status {
            if status.askers.len() < STATUS_ASKERS_MAX {
                return status.askers.push((asker, header.id));
            }
            return self.refuse_as_busy(now, asker, header.id);
        }
        let (ticket, report) = (self.gathers.next_ticket(), CoreReport::default());
        let (askers, waiting) = (vec![(asker, header.id)], self.cores);
        self.gathers.status = Some(StatusSoFar { ticket, askers, waiting, report });
        self.outputs.push_back(HubOutput::Cores(Input::Report { ticket }));
    }

    pub(super) fn refuse_as_busy(&mut self, now: Now, asker: Asker, id: u64) {
        self.counters.add("requests_refused_busy");
        if let Asker::Hub { .. } = asker {
            return self.on_safety_answer(now, None, None);
        }
        let why = "too many requests wait for this node's cores; try again later".to_owned();
        self.reply(now, asker, id, Rejected::Malformed { why });
    }

    /// Tells all cores what another node says of epochs; each takes what is of its slots.
    pub(super) fn tell_of_epochs(
        &mut self,
        now: Now,
        asker: Asker,
        caller: Caller,
        header: Header,
        message: Epochs,
    ) {
        if self.gathers.epochs.len() >= EPOCHS_MAX {
            return self.refuse_as_busy(now, asker, header.id);
        }
        let ticket = self.gathers.next_ticket();
        let (answer, rejected) = (EpochsAnswer { answers: Vec::new() }, None);
        let (id, waiting) = (header.id, self.cores);
        let so_far = EpochsSoFar { asker, id, waiting, answer, rejected };
        self.gathers.epochs.insert(ticket, so_far);
        let (asker, message) = (Asker::Hub { ticket }, message.into());
        let input = Input::Request(Request { asker, caller, header, message });
        self.outputs.push_back(HubOutput::Cores(input));
    }

    fn on_part_of_epochs(&mut self, mut so_far: EpochsSoFar, ticket: u64, part: (Header, Message)) {
        let (header, message) = part;
        so_far.waiting -= 1;
        match message {
            Message::EpochsAnswer(part) => so_far.answer.answers.extend(part.answers),
            other => so_far.rejected = Some(other),
        }
        if so_far.waiting > 0 {
            self.gathers.epochs.insert(ticket, so_far);
            return;
        }
        let EpochsSoFar { asker, id, answer, rejected, .. } = so_far;
        let (header, message) = (Header { id, ..header }, rejected.unwrap_or(answer.into()));
        self.outputs.push_back(HubOutput::Reply(Reply { to: asker, header, message }));
    }

    /// A core has given its part of some sketches, or of what is known of epochs.
    pub(super) fn on_part(&mut self, ticket: u64, header: Header, message: Message) {
        if let Some(so_far) = self.gathers.epochs.remove(&ticket) {
            return self.on_part_of_epochs(so_far, ticket, (header, message));
        }
        let Some(mut comparison) = self.gathers.comparisons.remove(&ticket) else { return };
        comparison.waiting -= 1;
        match message {
            Message::Sketches(part) => comparison.add(&part.sketches),
            other => comparison.rejected = Some(other),
        }
        let common = *comparison.view.get_or_insert(header.view);
        if common != header.view {
            comparison.view = Some(0);
        }
        if comparison.waiting > 0 {
            self.gathers.comparisons.insert(ticket, comparison);
            return;
        }
        let answer = match (&comparison.rejected, comparison.symbol) {
            (Some(rejected), _) => Some(rejected.clone()),
            (None, None) => Some(comparison.sketches()),
            (None, Some(symbol)) => comparison
                .difference(&symbol)
                .map(|difference| Compared { cores: self.cores as u16, difference }.into()),
        };
        let Some(message) = answer else {
            // The first symbols differ: only all of them say in what.
            comparison.request.symbols = SYMBOLS as u8;
            (comparison.waiting, comparison.sum) = (self.cores, Vec::new());
            return self.ask_for_sketches(comparison);
        };
        // Whoever compares relies on what the cores saw, not on what the hub has seen meanwhile.
        let header =
            Header { id: comparison.header.id, view: comparison.view.unwrap_or(0), ..header };
        self.outputs.push_back(HubOutput::Reply(Reply { to: comparison.asker, header, message }));
    }

    /// A core has said how it is.
    pub(super) fn on_report(&mut self, now: Now, ticket: u64, report: CoreReport) {
        let Some(mut status) = self.gathers.status.take_if(|it| it.ticket == ticket) else {
            return;
        };
        status.waiting -= 1;
        add(&mut status.report, report);
        if status.waiting > 0 {
            self.gathers.status = Some(status);
            return;
        }
        let answer = self.status(now, status.report);
        for (asker, id) in status.askers {
            match asker {
                Asker::Hub { .. } => self.on_own_status(now, &answer),
                _ => self.reply(now, asker, id, answer.clone()),
            }
        }
    }

    fn status(&self, now: Now, cores: CoreReport) -> NodeStatus {
        let CoreReport { mut tables, counters: counted, heard, drift_ms } = cores;
        let view = self.mesh.view().digest();
        let me = self.mesh.me();
        let others = self.mesh.view().active().filter(|member| member.id != me.id);
        let others: Vec<NodeId> = others.map(|member| member.id).collect();
        let mut latest: BTreeMap<NodeId, (Duration, u64)> = BTreeMap::new();
        let seen = self.views.iter().map(|(node, (at, view))| (*node, *at, *view));
        for (node, at, view) in heard.into_iter().chain(seen) {
            let known = latest.entry(node).or_insert((at, view));
            *known = (*known).max((at, view));
        }
        let agrees = |id: &&NodeId| latest.get(id).is_some_and(|(_, theirs)| *theirs == view);
        let agreeing = others.iter().filter(agrees).count();
        for (table, bytes) in tables.iter_mut().zip(&self.huge_bytes) {
            table.huge_bytes = *bytes;
        }
        let mut counters: BTreeMap<String, u64> = BTreeMap::new();
        let ours = self.counters.iter().map(|(name, count)| (name.to_owned(), count));
        for (name, count) in counted.into_iter().chain(ours) {
            *counters.entry(name).or_default() += count;
        }
        counters.extend(self.mesh_counters());
        counters.insert("cores".to_owned(), self.cores as u64);
        *counters.entry("calls_open".to_owned()).or_default() += self.calls.len() as u64;
        if let Some(drift) = drift_ms {
            counters.insert("clock_off_by_ms".to_owned(), drift);
        }
        NodeStatus {
            cluster: self.cluster.clone(),
            member: me.clone(),
            software: crate::SOFTWARE.to_owned(),
            uptime_ms: u64::try_from((now.monotonic - self.started).as_millis()).unwrap_or(0),
            view,
            active_members: others.len() as u32 + 1,
            agreeing_members: agreeing as u32 + 1,
            tables,
            counters: counters.into_iter().collect(),
            // The driver says so.
            unknown_commands: Vec::new(),
        }
    }

    fn mesh_counters(&self) -> impl Iterator<Item = (String, u64)> {
        let mesh = self.mesh.counters();
        let counts = [
            ("mesh_packets_in", mesh.packets_in),
            ("mesh_packets_out", mesh.packets_out),
            ("mesh_bytes_in", mesh.bytes_in),
            ("mesh_bytes_out", mesh.bytes_out),
            ("mesh_packets_malformed", mesh.packets_malformed),
            ("mesh_packets_misaddressed", mesh.packets_misaddressed),
            ("mesh_packets_stale", mesh.packets_stale),
            ("mesh_members_refused", mesh.members_refused),
            ("mesh_incarnations_refused", mesh.incarnations_refused),
            ("mesh_probes_failed", mesh.probes_failed),
            ("mesh_suspicions_refuted", mesh.suspicions_refuted),
            ("mesh_suspicions_verified_away", mesh.suspicions_verified_away),
            ("mesh_vouches_heard", mesh.vouches_heard),
            ("mesh_deaths_held_back", mesh.deaths_held_back),
            ("mesh_deaths_concluded", mesh.deaths_concluded),
            ("mesh_deaths_cancelled", mesh.deaths_cancelled),
            ("mesh_renewals", mesh.renewals),
            ("mesh_returns_held_back", mesh.returns_held_back),
            ("mesh_isolations", mesh.isolations),
            ("mesh_pauses", mesh.pauses),
        ];
        let survey = self.mesh.survey();
        let found = |wanted| survey.iter().filter(|(_, state)| *state == wanted).count() as u64;
        let present = [
            ("mesh_local_health", u64::from(self.mesh.health())),
            ("mesh_peers_alive", found(PeerState::Alive)),
            ("mesh_peers_suspected", found(PeerState::Suspected)),
            ("mesh_peers_missing", found(PeerState::Missing)),
            ("mesh_peers_presumed", found(PeerState::Presumed)),
            ("mesh_peers_down", found(PeerState::Down)),
            ("mesh_peers_unmet", self.mesh.unmet().count() as u64),
        ];
        counts.into_iter().chain(present).map(|(name, count)| (name.to_owned(), count))
    }
}

impl Comparison {
    /// Adds a core's part to what the others have.
    fn add(&mut self, part: &[u8]) {
        let size = Sketch::bytes(self.request.symbols.into());
        let sketches = part.chunks(size).map_while(Sketch::read);
        if self.sum.is_empty() {
            self.sum = sketches.collect();
        } else {
            self.sum.iter_mut().zip(sketches).for_each(|(sum, part)| sum.merge(&part));
        }
        if self.sum.len() != self.request.sizes.len() {
            self.rejected = Some(reject("no sketches"));
        }
    }

    fn sketches(&self) -> Message {
        let mut sketches = Vec::new();
        self.sum.iter().for_each(|sketch| sketch.write(&mut sketches));
        Sketches { sketches }.into()
    }

    /// In what this node differs from one whose first symbol this is; `None` if more symbols are needed to tell.
    fn difference(&self, theirs: &Symbol) -> Option<ComparedDifference> {
        let sketch = self.sum.first()?;
        let mut first = sketch.first();
        first.subtract(theirs);
        if first.is_zero() {
            return Some(ComparedDifference::None);
        }
        if let Some(key) = first.only() {
            return Some(ComparedDifference::One { key: key.to_le_bytes() });
        }
        if sketch.symbols().len() < SYMBOLS {
            return None;
        }
        let mut bytes = Vec::new();
        sketch.write(&mut bytes);
        Some(ComparedDifference::More { sketch: bytes })
    }
}

/// Adds a core's part to what the others said.
fn add(whole: &mut CoreReport, part: CoreReport) {
    if whole.tables.is_empty() {
        whole.tables = part.tables;
    } else {
        for (whole, part) in whole.tables.iter_mut().zip(&part.tables) {
            add_table(whole, part);
        }
    }
    whole.counters.extend(part.counters);
    whole.heard.extend(part.heard);
    whole.drift_ms = whole.drift_ms.max(part.drift_ms);
}

fn add_table(whole: &mut TableStatus, part: &TableStatus) {
    whole.entries += part.entries;
    whole.capacity += part.capacity;
    whole.bytes += part.bytes;
    whole.segment_bytes += part.segment_bytes;
    whole.reserve_used += part.reserve_used;
    whole.slots_home += part.slots_home;
    whole.slots_unsynced += part.slots_unsynced;
    whole.slots_leaving += part.slots_leaving;
    whole.slots_short += part.slots_short;
    whole.slots_undecided += part.slots_undecided;
    whole.hints += part.hints;
    whole.members_lacking = whole.members_lacking.max(part.members_lacking);
}

impl Gathers {
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }
}
