//! Client processes without tokio: what the client library does with a request, as plain state.
//!
//! Whom they ask is simpler than the library's choice, and no better: the host's own node if there is one, then
//! any others. How long each may take, what is asked again and under which number, and what a client concludes
//! from what it was told, is as there (`client/src/request.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_client::{Attributes, Change, Error, Lifetimes, Source};
use annulus_net::Clock as _;
use annulus_proto::codec::Header;
use annulus_proto::message::{
    Failure, Message, Operation, RequestId, Segment, Session, SessionReply, SessionRequest,
};
use annulus_proto::{Key, NodeId, Value, Version, record};
use annulus_shm::{Lookup, Shards};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::net::End;
use super::world::{Event, TABLE, World};
use crate::habits::{Drawn, Habit, HotHabit};
use crate::history::{Action, Outcome};
use crate::host::segment_path;
use crate::scenario::{Parameters, derive};

/// A client process.
pub(super) struct Client {
    name: String,
    /// The number of the node that it is cut off together with.
    pub(super) site: usize,
    /// Whether it runs on that node's host.
    pub(super) is_local: bool,
    /// Grows with each start.
    pub(super) run: u32,
    seed: u64,
    is_running: bool,
    tasks: Vec<Task>,
    requests: u64,
    frames: u64,
    /// The segment of its host, once it was opened.
    memory: Option<Shards>,
    /// By key: how far its own writes had come that other nodes than its host's acknowledged.
    written: BTreeMap<usize, Progress>,
}

/// Birth, end, version: how entries are ordered.
type Progress = (Version, bool, Version);

struct Task {
    rng: StdRng,
    habit: AnyHabit,
    /// Which of its wake-ups counts.
    turn: u32,
    asking: Option<Asking>,
}

enum AnyHabit {
    Ordinary(Habit),
    Hot(HotHabit),
}

/// A request under way.
struct Asking {
    id: usize,
    key: usize,
    request: SessionRequest,
    deadline: Duration,
    targets: Vec<usize>,
    /// The next of them.
    next: usize,
    /// The number of the frame that is not answered, and when it was sent.
    open: Option<(u64, Duration)>,
    pause: Duration,
    // What has become of it so far.
    is_lost: bool,
    is_silent: bool,
    unavailable: Option<Error>,
}

/// The least time that one node gets.
const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// Between two rounds over all nodes; doubles each time.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// How many nodes are asked beside its own.
const OTHERS: usize = 4;

impl Client {
    /// All clients of a simulation.
    pub(super) fn all(parameters: &Parameters) -> Vec<Self> {
        let count = parameters.clients_local + parameters.clients_remote;
        let client = |number: usize| {
            let name = format!("c{}", number + 1);
            Self {
                site: number % parameters.first,
                is_local: number < parameters.clients_local,
                run: 0,
                seed: derive(parameters.seed, &name),
                name,
                is_running: false,
                tasks: Vec::new(),
                requests: 0,
                frames: 0,
                memory: None,
                written: BTreeMap::new(),
            }
        };
        (0..count).map(client).collect()
    }

    fn number(&self) -> u64 {
        self.seed.wrapping_add(self.run.into())
    }
}

impl World {
    pub(super) fn begin_clients(&mut self) {
        (0..self.clients.len()).for_each(|client| self.begin_client(client));
    }

    /// The clients on a host that has power again.
    pub(super) fn begin_clients_of(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].is_local && self.clients[client].site == node {
                self.begin_client(client);
            }
        }
    }

    /// The clients on a host that loses power; what they began stays open.
    pub(super) fn end_clients_of(&mut self, node: usize) {
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            if client.is_local && client.site == node {
                client.is_running = false;
                client.run += 1;
                self.drop_streams(End::Client(number), false);
            }
        }
    }

    fn begin_client(&mut self, number: usize) {
        let parameters = &self.storm.parameters;
        let client = &mut self.clients[number];
        if client.is_running {
            return;
        }
        let seed = client.seed ^ (u64::from(client.run) << 32);
        let task = |nth: usize| Task {
            rng: StdRng::seed_from_u64(seed ^ ((nth as u64 + 1) << 48)),
            habit: match nth < parameters.tasks {
                true => AnyHabit::Ordinary(Habit::default()),
                false => AnyHabit::Hot(HotHabit::default()),
            },
            turn: 0,
            asking: None,
        };
        client.tasks = (0..=parameters.tasks).map(task).collect();
        (client.is_running, client.memory) = (true, None);
        client.written.clear();
        (0..client.tasks.len()).for_each(|task| self.think(number, task));
    }

    /// Whether all clients have an answer, but those whose host lost power.
    pub(super) fn clients_are_done(&self) -> bool {
        let running = self.clients.iter().filter(|client| client.is_running);
        running.flat_map(|client| &client.tasks).all(|task| task.asking.is_none())
    }

    // A task's turns.

    fn think(&mut self, client: usize, task: usize) {
        let think_ms = u64::try_from(self.storm.parameters.think.as_millis()).unwrap_or(u64::MAX);
        let rng = &mut self.clients[client].tasks[task].rng;
        let pause = Duration::from_millis(rng.random_range(0..=think_ms));
        self.wake(client, task, self.now + pause);
    }

    /// Comes back to a task then, and at no time said before.
    fn wake(&mut self, client: usize, task: usize, at: Duration) {
        let run = self.clients[client].run;
        let turn = &mut self.clients[client].tasks[task].turn;
        *turn += 1;
        let turn = *turn;
        self.at(at, Event::Task { client, run, task, turn });
    }

    pub(super) fn on_turn(&mut self, client: usize, run: u32, task: usize, turn: u32) {
        let process = &mut self.clients[client];
        if process.run != run || !process.is_running || process.tasks[task].turn != turn {
            return;
        }
        let Some(asking) = &mut process.tasks[task].asking else {
            if self.now < self.stop_at {
                self.begin_request(client, task);
            }
            return;
        };
        match asking.open.take() {
            None => {
                asking.next = 0;
                self.try_next(client, task);
            }
            Some((_, sent)) => {
                // It may have arrived.
                (asking.is_lost, asking.is_silent) = (true, true);
                let to = asking.targets[asking.next - 1];
                self.give_up_unless_heard(End::Client(client), to, sent);
                self.go_on(client, task);
            }
        }
    }

    fn begin_request(&mut self, client: usize, task: usize) {
        let (keys, hot) = (self.storm.parameters.keys, self.storm.parameters.hot_keys);
        let written_for = &self.storm.written_for;
        let (began, now) = (self.began, self.now);
        let process = &mut self.clients[client];
        let Task { rng, habit, .. } = &mut process.tasks[task];
        let drawn: Drawn = match habit {
            AnyHabit::Ordinary(habit) => {
                habit.draw(rng, keys, |key| now < began + written_for[key])
            }
            AnyHabit::Hot(habit) => habit.draw(rng, keys, hot),
        };
        let key = drawn.key;
        let (name, site) = (process.name.clone(), process.site);
        let (id, action) = self.history.invoke(&name, site, key, |id| drawn.action(id));
        if action == Action::Get
            && let Some(outcome) = self.look_into_memory(client, key)
        {
            return self.finish(client, task, id, key, outcome);
        }
        let process = &mut self.clients[client];
        process.requests += 1;
        let request = SessionRequest {
            table: TABLE.to_owned(),
            key: Key::new(&self.keys[key]).expect("keys here are short"),
            request: RequestId { client: process.number(), sequence: process.requests },
            hops: 0,
            patience_ms: 0,
            operation: operation(action),
        };
        let asking = Asking {
            id,
            key,
            request,
            deadline: self.now + self.storm.timeout,
            targets: self.targets(client, task),
            next: 0,
            open: None,
            pause: ROUND_PAUSE,
            is_lost: false,
            is_silent: false,
            unavailable: None,
        };
        self.clients[client].tasks[task].asking = Some(asking);
        self.try_next(client, task);
    }

    /// Whom to ask, in order: a client with a node on its host that one first, another its nearest or any.
    fn targets(&mut self, client: usize, task: usize) -> Vec<usize> {
        let nodes = self.hosts.len();
        let process = &mut self.clients[client];
        let rng = &mut process.tasks[task].rng;
        let mut others: Vec<usize> = (0..nodes).collect();
        others.shuffle(rng);
        let begins_at_site = process.is_local || rng.random();
        if begins_at_site {
            let site = process.site;
            others.retain(|node| *node != site);
            others.insert(0, site);
        }
        others.truncate(1 + OTHERS);
        others
    }

    /// Asks the next node, or begins another round after a pause, or gives up.
    fn try_next(&mut self, client: usize, task: usize) {
        let now = self.now;
        let process = &mut self.clients[client];
        let Some(asking) = &mut process.tasks[task].asking else { return };
        let left = asking.deadline.saturating_sub(now);
        let Some(to) = asking.targets.get(asking.next).copied() else {
            if asking.unavailable.is_some() || now + asking.pause >= asking.deadline {
                return self.give_up(client, task);
            }
            let at = now + asking.pause;
            asking.pause *= 2;
            return self.wake(client, task, at);
        };
        if left.is_zero() {
            return self.give_up(client, task);
        }
        asking.next += 1;
        let is_last = asking.next == asking.targets.len();
        let patience = if is_last { left } else { (left / 2).max(PATIENCE_MIN).min(left) };
        // A little less than it waits, so that the answer still arrives.
        let told = (patience - patience / 16).as_millis();
        asking.request.patience_ms = u32::try_from(told).unwrap_or(u32::MAX);
        process.frames += 1;
        let frame = process.frames;
        asking.open = Some((frame, now));
        let message: Message = asking.request.clone().into();
        self.wake(client, task, now + patience);
        self.ask(End::Client(client), to, frame, &message);
    }

    /// Another try, unless it could meet its own work.
    fn go_on(&mut self, client: usize, task: usize) {
        let Some(asking) = &self.clients[client].tasks[task].asking else { return };
        if asking.request.operation.is_conditional() && asking.is_lost {
            return self.end_request(client, task, Outcome::Unknown);
        }
        self.try_next(client, task);
    }

    fn give_up(&mut self, client: usize, task: usize) {
        let Some(asking) = &self.clients[client].tasks[task].asking else { return };
        let is_write = asking.request.operation != Operation::Get;
        let outcome = match &asking.unavailable {
            _ if is_write && asking.is_lost => Outcome::Unknown,
            Some(error) => Outcome::of(error),
            None if asking.is_silent => Outcome::Unknown,
            None => Outcome::Unavailable("no node could be reached".to_owned()),
        };
        self.end_request(client, task, outcome);
    }

    fn end_request(&mut self, client: usize, task: usize, outcome: Outcome) {
        let Some(asking) = self.clients[client].tasks[task].asking.take() else { return };
        self.finish(client, task, asking.id, asking.key, outcome);
    }

    fn finish(&mut self, client: usize, task: usize, id: usize, key: usize, outcome: Outcome) {
        match &mut self.clients[client].tasks[task].habit {
            AnyHabit::Ordinary(habit) => habit.learn(key, &outcome),
            AnyHabit::Hot(habit) => habit.learn(key, &outcome),
        }
        self.history.complete(id, outcome);
        self.think(client, task);
    }

    // Answers.

    fn task_of(&self, client: usize, frame: u64) -> Option<usize> {
        let waits = |task: &Task| {
            let open = task.asking.as_ref().and_then(|asking| asking.open);
            open.is_some_and(|(open, _)| open == frame)
        };
        self.clients[client].tasks.iter().position(waits)
    }

    pub(super) fn on_client_answer(
        &mut self,
        client: usize,
        node: NodeId,
        header: Header,
        message: Message,
    ) {
        let Some(task) = self.task_of(client, header.id) else { return };
        let Some(asking) = &mut self.clients[client].tasks[task].asking else { return };
        asking.open = None;
        let is_write = asking.request.operation != Operation::Get;
        let (key, is_end) = (asking.key, asking.request.operation.is_end());
        let reply = match message {
            Message::SessionReply(reply) => reply,
            other => {
                let what = format!("{} answers a request for a session", other.name());
                return self.violate("answers", what);
            }
        };
        let outcome = match reply {
            SessionReply::Session(session) => Outcome::Read { session, source: Source::Node(node) },
            SessionReply::Acknowledged(done) => {
                self.remember(client, node, key, (done.birth, is_end, done.version));
                Outcome::Acknowledged { birth: done.birth, version: done.version }
            }
            SessionReply::Failed(Failure::TimedOut) => {
                (asking.is_lost, asking.is_silent) = (true, true);
                return self.go_on(client, task);
            }
            SessionReply::Failed(failure @ Failure::Unavailable { .. }) => {
                asking.unavailable = Some(failure.into());
                return self.try_next(client, task);
            }
            // An earlier try may have been done all the same.
            SessionReply::Failed(Failure::TableFull { .. } | Failure::Refused(_))
                if is_write && asking.is_lost =>
            {
                Outcome::Unknown
            }
            SessionReply::Failed(failure) => Outcome::of(&failure.into()),
            other => {
                let what = format!("{other:?} is no answer that a client knows");
                return self.violate("answers", what);
            }
        };
        self.end_request(client, task, outcome);
    }

    pub(super) fn on_client_failure(&mut self, client: usize, frame: u64, sent: bool) {
        let Some(task) = self.task_of(client, frame) else { return };
        let Some(asking) = &mut self.clients[client].tasks[task].asking else { return };
        asking.open = None;
        asking.is_lost |= sent;
        self.go_on(client, task);
    }

    // Shared memory.

    /// What another node than the host's own acknowledged its reader must not be shown less of.
    fn remember(&mut self, client: usize, node: NodeId, key: usize, progress: Progress) {
        let process = &mut self.clients[client];
        if process.is_local && self.hosts[process.site].id != node {
            let known = process.written.entry(key).or_insert(progress);
            *known = progress.max(*known);
        }
    }

    /// A host's segment of a table, if there is one.
    pub(super) fn memory_of(&self, node: usize, table: &str) -> Option<Shards> {
        let machine = &self.hosts[node].machine;
        let path = segment_path(&machine.name, table);
        machine.attach(&Segment { table: table.to_owned(), path, instance: 0 }).ok()
    }

    /// What the memory of its host says of a key, as far as it is an answer.
    fn look_into_memory(&mut self, client: usize, key: usize) -> Option<Outcome> {
        let process = &self.clients[client];
        if !process.is_local {
            return None;
        }
        if process.memory.as_ref().is_none_or(Shards::detached) {
            let memory = self.memory_of(process.site, TABLE);
            self.clients[client].memory = memory;
        }
        let process = &mut self.clients[client];
        let host = &self.hosts[process.site];
        let memory = process.memory.as_ref()?;
        let now_ms = host.machine.clock.monotonic_coarse_ms();
        let mut buffer = Vec::new();
        let Lookup::Hit(hit) = memory.get(self.keys[key].as_bytes(), now_ms, &mut buffer) else {
            return None;
        };
        let view = record::View::parse(&buffer).ok()?;
        let progress = (view.birth, view.ended, view.version);
        if process.written.get(&key).is_some_and(|written| progress < *written) {
            return None;
        }
        process.written.remove(&key);
        let source = Source::SharedMemory;
        if view.ended {
            return Some(Outcome::Ended);
        }
        if view.is_marker() {
            return None;
        }
        let entry = view.entry(hit.mark).ok()?;
        let body = entry.body?;
        let now_ms = now_ms.wrapping_add(memory.shard(hit.used.shard()).clock_offset());
        let pin = body.pin();
        let value: Value = body.value(now_ms);
        let field_deadlines = body.field_deadlines();
        let session = Session {
            birth: entry.birth,
            version: entry.version,
            deadline: hit.deadline,
            touched: body.touched,
            idle: body.lease.idle,
            expire_at: body.lease.expire_at,
            attributes: body.attributes,
            pin,
            value,
            field_deadlines,
        };
        Some(Outcome::Read { session, source })
    }
}

/// The operation that the library makes of it.
fn operation(action: Action) -> Operation {
    let (lifetimes, attributes) = (Lifetimes::default(), Attributes::default());
    match action {
        Action::Start(value) => Operation::Start { value, lifetimes, attributes },
        Action::Get => Operation::Get,
        Action::Replace { birth, value } => {
            Operation::Update { birth, change: Change::Value(value) }
        }
        Action::SetFields { birth, set, delete } => {
            Operation::Update { birth, change: Change::Fields { set, delete } }
        }
        Action::Touch { birth } => Operation::Touch { birth },
        Action::End { birth } => Operation::End { birth },
        Action::StartIfAbsent(value) => Operation::StartIfAbsent { value, lifetimes, attributes },
        Action::CompareAndSet { version, value } => {
            Operation::UpdateIf { version, change: Change::Value(value) }
        }
        Action::EndIf { version } => Operation::EndIf { version },
    }
}
