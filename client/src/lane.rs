//! A lane: handing touches and updates to the host's node through shared memory.
//!
//! Needs no tokio: what waits here blocks its thread. The stream over which the lane was given serves
//! whatever a lane does not take: values that are too long, a full ring, refusals with their reasons.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_net::{LocalEnd, Net as _, TokioNet};
use annulus_proto::codec::{self, Header};
use annulus_proto::message::{
    Acknowledged, Caller, Change, Hello, LaneRequest, Message, Operation, RequestId, Role,
    SessionReply, SessionRequest, Welcome,
};
use annulus_proto::submission::{Action, Answer, Submission};
use annulus_proto::{Hlc, Key, Slot, Value, Version};
use annulus_shm::lane::{
    CallError, Calls, ClientLane, LaneDescriptors, SubmitError, Submitted, Submitter, TableUses,
    UseCounts,
};

use crate::error::Error;
use crate::table::StartOptions;

/// A lane to the host's node, from any thread, without tokio. Cheap to clone; the node closes it when
/// the last clone is gone.
///
/// Made by [`Client::lane`](crate::Client::lane), or by [`Lane::open`], which stands alone.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
}

/// One table through a lane. Cheap to clone.
///
/// What is handed over *soon* comes back with nothing: the node does it within microseconds as a
/// rule, and a read right after may not show it yet. What is for one session it does in the order in
/// which it was handed over; what is for sessions of different cores of the node, in any.
#[derive(Clone)]
pub struct LaneTable {
    lane: Lane,
    name: Arc<str>,
    number: u16,
}

/// Who opens a lane.
#[derive(Clone, Debug)]
pub struct LaneCaller {
    /// The cluster that is meant.
    pub cluster: String,
    /// What tells this client apart: drawn at random.
    pub client: u64,
    /// What it may do.
    pub role: Role,
    /// Its name and version, which nodes show to people.
    pub software: String,
    /// How long an operation may take, and each step of opening.
    pub timeout: Duration,
}

/// Why something was not handed over: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotHandedOver {
    /// The node has not caught up with this client.
    #[error("the lane is full")]
    Full,
    /// It is longer than a lane takes, 32 KiB with the key.
    #[error("too long for a lane")]
    TooLong,
    /// The key is empty or too long.
    #[error(transparent)]
    Key(#[from] annulus_proto::KeyError),
    /// There is no lane any more.
    #[error("the lane is closed")]
    Closed,
}

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// The node cannot be reached, or broke off.
    #[error("no lane: {0}")]
    Io(#[from] std::io::Error),
    /// The node gives none, by its own words.
    #[error("no lane: {0}")]
    Rejected(annulus_proto::message::Rejected),
    /// The node said what this library does not understand.
    #[error("no lane: the node does not speak the protocol: {0}")]
    Protocol(String),
    /// What the node handed over is no lane of this version.
    #[error(transparent)]
    Memory(#[from] annulus_shm::lane::LaneError),
}

struct Shared {
    /// One for each of the node's cores, by the slots that it owns.
    tracks: Vec<Track>,
    uses: UseCounts,
    tables: Vec<Arc<str>>,
    /// The stream that the lane lives as long as, and that takes what it does not.
    end: LocalEnd,
    stream: Mutex<Stream>,
    node: Welcome,
    client: u64,
    requests: Arc<AtomicU64>,
    timeout: Duration,
    patience_ms: u32,
}

/// What one core of the node serves.
struct Track {
    submitting: Mutex<Submitting>,
    calls: Calls,
}

struct Submitting {
    submitter: Submitter,
    bytes: Vec<u8>,
}

/// What has come over the stream and was not used yet.
#[derive(Default)]
struct Stream {
    buffer: Vec<u8>,
    next_id: u64,
    is_broken: bool,
}

impl Lane {
    /// Opens a lane at the local socket of the host's node. Blocks.
    ///
    /// # Errors
    /// [`LaneError`]; the node can still be reached over the socket, as a rule.
    pub fn open(socket: impl AsRef<Path>, caller: LaneCaller) -> Result<Self, LaneError> {
        let end = TokioNet::new().connect_end(socket.as_ref(), caller.timeout)?;
        Self::over(end, caller, Arc::new(AtomicU64::new(1)))
    }

    /// Shakes hands over a connection that is open, and asks for the lane. Blocks.
    pub(crate) fn over(
        end: LocalEnd,
        caller: LaneCaller,
        requests: Arc<AtomicU64>,
    ) -> Result<Self, LaneError> {
        let mut stream = Stream::default();
        let mut passed = Vec::new();
        let LaneCaller { cluster, client, role, software, timeout } = caller;
        let hello = Hello { cluster, caller: Caller::Client { client, role }, software };
        stream.send(&end, &hello.into())?;
        let node = match stream.receive(&end, &mut passed)? {
            (_, Message::Welcome(node)) => node,
            (_, other) => return Err(unexpected(other)),
        };
        stream.send(&end, &LaneRequest {}.into())?;
        let granted = match stream.receive(&end, &mut passed)? {
            (_, Message::LaneGranted(granted)) => granted,
            (_, other) => return Err(unexpected(other)),
        };
        let (count, mut passed) = (passed.len(), passed.into_iter());
        let (mut tracks, mut counts) = (Vec::new(), None);
        while let (Some(memory), Some(bell)) = (passed.next(), passed.next()) {
            let lane = ClientLane::attach(LaneDescriptors { memory, bell })?;
            let ClientLane { submitter, calls, uses, .. } = lane;
            counts.get_or_insert(uses);
            let submitting = Mutex::new(Submitting { submitter, bytes: Vec::new() });
            tracks.push(Track { submitting, calls });
        }
        let Some(uses) = counts.filter(|_| count.is_multiple_of(2)) else {
            return Err(LaneError::Protocol(format!("{count} descriptors")));
        };
        let shared = Shared {
            tracks,
            uses,
            tables: granted.tables.iter().map(|name| name.as_str().into()).collect(),
            end,
            stream: Mutex::new(stream),
            node,
            client,
            requests,
            timeout,
            patience_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A table by its name; `None` if the node does not have it.
    pub fn table(&self, name: &str) -> Option<LaneTable> {
        let number = self.shared.tables.iter().position(|table| &**table == name)?;
        let name = self.shared.tables[number].clone();
        Some(LaneTable { lane: self.clone(), name, number: number as u16 })
    }

    /// What the node said of itself.
    pub fn node(&self) -> &Welcome {
        &self.shared.node
    }

    /// Whether the node still holds its end. Costs a system call.
    pub fn is_open(&self) -> bool {
        self.shared.end.is_open()
    }
}

impl LaneTable {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where readers of the table count what they use.
    pub fn uses(&self) -> Option<TableUses> {
        let Shared { uses, tables, .. } = &*self.lane.shared;
        uses.table(self.number, uses.shards(u16::try_from(tables.len()).ok()?)?)
    }

    /// Notes a use of a session, soon; never creates. Costs some 50 ns, and a system call while the
    /// node sleeps.
    ///
    /// # Errors
    /// [`NotHandedOver`]; nothing was done.
    pub fn touch_soon(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
    ) -> Result<(), NotHandedOver> {
        self.hand_over(key.as_ref(), Action::Touch { birth })
    }

    /// Replaces a session's value by a string of bytes, soon; never creates. What becomes of it is
    /// not told: an update that must not get lost is for [`LaneTable::update`]. Costs as
    /// [`LaneTable::touch_soon`], and a copy.
    ///
    /// # Errors
    /// [`NotHandedOver`]; nothing was done.
    pub fn update_soon(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
        value: &[u8],
    ) -> Result<(), NotHandedOver> {
        self.hand_over(key.as_ref(), Action::Update { birth, value })
    }

    /// As [`Table::start`](crate::Table::start), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn start(
        &self,
        key: impl AsRef<[u8]>,
        value: Value,
        options: StartOptions,
    ) -> Result<Acknowledged, Error> {
        let lifetimes = options.lifetimes();
        let attributes = options.attributes();
        self.ask(key.as_ref(), Operation::Start { value, lifetimes, attributes })
    }

    /// As [`Table::update`](crate::Table::update), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
        change: Change,
    ) -> Result<Acknowledged, Error> {
        self.ask(key.as_ref(), Operation::Update { birth, change })
    }

    /// Replaces a session's value by a string of bytes, and blocks until that counts.
    ///
    /// # Errors
    /// As [`Table::update`](crate::Table::update).
    pub fn update_bytes(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
        value: &[u8],
    ) -> Result<Acknowledged, Error> {
        match self.call(key.as_ref(), Action::Update { birth, value })? {
            Some(acknowledged) => Ok(acknowledged),
            None => {
                let change = Change::Value(Value::Bytes(value.to_vec()));
                self.ask_over_stream(key.as_ref(), Operation::Update { birth, change })
            }
        }
    }

    /// As [`Table::touch`](crate::Table::touch), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn touch(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.ask(key.as_ref(), Operation::Touch { birth })
    }

    /// As [`Table::end`](crate::Table::end), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn end(
        &self,
        key: impl AsRef<[u8]>,
        birth: Option<Version>,
    ) -> Result<Acknowledged, Error> {
        self.ask(key.as_ref(), Operation::End { birth })
    }

    /// As [`Table::compare_and_set`](crate::Table::compare_and_set), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        version: Version,
        value: Value,
    ) -> Result<Acknowledged, Error> {
        let change = Change::Value(value);
        self.ask(key.as_ref(), Operation::UpdateIf { version, change })
    }

    /// As [`Table::start_if_absent`](crate::Table::start_if_absent), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn start_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: Value,
        options: StartOptions,
    ) -> Result<Acknowledged, Error> {
        let lifetimes = options.lifetimes();
        let attributes = options.attributes();
        self.ask(key.as_ref(), Operation::StartIfAbsent { value, lifetimes, attributes })
    }

    /// As [`Table::end_if`](crate::Table::end_if), but blocks.
    ///
    /// # Errors
    /// As there.
    pub fn end_if(&self, key: impl AsRef<[u8]>, version: Version) -> Result<Acknowledged, Error> {
        self.ask(key.as_ref(), Operation::EndIf { version })
    }

    #[inline]
    fn hand_over(&self, key: &[u8], action: Action<'_>) -> Result<(), NotHandedOver> {
        let mut submitting = self.lane.shared.track(key).lock();
        self.submit(&mut submitting, key, 0, action).map(|_| ())
    }

    fn ask(&self, key: &[u8], operation: Operation) -> Result<Acknowledged, Error> {
        let mut room = Vec::new();
        if let Some(action) = Submission::action(&operation, &mut room)
            && let Some(acknowledged) = self.call(key, action)?
        {
            return Ok(acknowledged);
        }
        self.ask_over_stream(key, operation)
    }

    /// Calls through the lane; `None` if the stream has to be tried, and nothing was done yet.
    fn call(&self, key: &[u8], action: Action<'_>) -> Result<Option<Acknowledged>, Error> {
        let shared = &*self.lane.shared;
        let track = shared.track(key);
        let mut submitting = track.lock();
        let Ok(call) = submitting.submitter.open_call() else { return Ok(None) };
        let submitted = match self.submit(&mut submitting, key, call, action) {
            Ok(submitted) => submitted,
            Err(failed) => {
                submitting.submitter.close_call(call);
                return match failed {
                    NotHandedOver::Key(error) => Err(error.into()),
                    _ => Ok(None),
                };
            }
        };
        drop(submitting);
        let is_there = || shared.end.is_open();
        let answer = track.calls.wait(call, submitted, shared.timeout, is_there);
        track.lock().submitter.close_call(call);
        let answer = match answer {
            Ok(words) => Answer::decode(words),
            Err(CallError::Closed | CallError::TimedOut | _) => return Err(Error::TimedOut),
        };
        match answer {
            Some(Answer::Acknowledged(acknowledged)) => Ok(Some(acknowledged)),
            Some(Answer::Failed(failure)) => Err(failure.into()),
            Some(Answer::AskElsewhere) => Ok(None),
            None => Err(Error::Protocol {
                at: "the lane".to_owned(),
                why: "an answer of another version".to_owned(),
            }),
        }
    }

    #[inline]
    fn submit(
        &self,
        submitting: &mut Submitting,
        key: &[u8],
        call: u32,
        action: Action<'_>,
    ) -> Result<Submitted, NotHandedOver> {
        let shared = &*self.lane.shared;
        // What nobody waits for is not repeated either, and needs no number to be told apart by.
        let sequence = match call {
            0 => 0,
            _ => shared.requests.fetch_add(1, Ordering::Relaxed),
        };
        let submission = Submission {
            table: self.number,
            key,
            sequence,
            call,
            patience_ms: shared.patience_ms,
            action,
        };
        let Submitting { submitter, bytes } = submitting;
        submission.encode(bytes).map_err(|_| match Key::new(key) {
            Err(error) => NotHandedOver::Key(error),
            Ok(_) => NotHandedOver::TooLong,
        })?;
        let submitted = submitter.submit(bytes);
        if bytes.capacity() > KEPT_BYTES_MAX {
            *bytes = Vec::new();
        }
        submitted.map_err(|error| match error {
            SubmitError::Full | SubmitError::TooManyCalls => NotHandedOver::Full,
            SubmitError::TooLong => NotHandedOver::TooLong,
            _ => NotHandedOver::Closed,
        })
    }

    fn ask_over_stream(&self, key: &[u8], operation: Operation) -> Result<Acknowledged, Error> {
        let shared = &*self.lane.shared;
        let sequence = shared.requests.fetch_add(1, Ordering::Relaxed);
        let request = SessionRequest {
            table: self.name.to_string(),
            key: Key::new(key)?,
            request: RequestId { client: shared.client, sequence },
            hops: 0,
            patience_ms: shared.patience_ms,
            operation,
        };
        let at = || shared.node.local_socket.clone();
        let mut stream = shared.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.is_broken {
            return Err(Error::NoNode { tried: Vec::new() });
        }
        let answer = stream.ask(&shared.end, &request.into());
        // What is late would be taken for the answer to what is asked next.
        stream.is_broken = answer.is_err();
        match answer {
            Ok(Message::SessionReply(SessionReply::Acknowledged(acknowledged))) => Ok(acknowledged),
            Ok(Message::SessionReply(SessionReply::Failed(failure))) => Err(failure.into()),
            Ok(Message::Rejected(reason)) => Err(Error::Rejected { at: at(), reason }),
            Ok(other) => {
                let why = format!("{} instead of an acknowledgement", other.name());
                Err(Error::Protocol { at: at(), why })
            }
            Err(LaneError::Protocol(why)) => Err(Error::Protocol { at: at(), why }),
            Err(_) => Err(Error::TimedOut),
        }
    }
}

/// A buffer that grew beyond this for one submission is given back.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Bytes received at a time.
const READ_BYTES: usize = 16 << 10;

impl Shared {
    /// The track of a key, well formed or not.
    fn track(&self, key: &[u8]) -> &Track {
        match &self.tracks[..] {
            [track] => track,
            tracks => &tracks[usize::from(Slot::of(key).index()) % tracks.len()],
        }
    }
}

impl Track {
    fn lock(&self) -> MutexGuard<'_, Submitting> {
        // Whatever a panic interrupted, the ring's position moves by whole records.
        self.submitting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn ask(&mut self, end: &LocalEnd, message: &Message) -> Result<Message, LaneError> {
        let id = self.send(end, message)?;
        loop {
            let (header, answer) = self.receive(end, &mut Vec::new())?;
            if header.id == id {
                return Ok(answer);
            }
        }
    }

    fn send(&mut self, end: &LocalEnd, message: &Message) -> Result<u64, LaneError> {
        self.next_id += 1;
        let header = Header { id: self.next_id, view: 0, hlc: Hlc::ZERO };
        let mut frame = Vec::new();
        codec::encode_frame(header, message, &mut frame)
            .map_err(|error| LaneError::Protocol(error.to_string()))?;
        end.send(&frame, &[])?;
        Ok(self.next_id)
    }

    fn receive(
        &mut self,
        end: &LocalEnd,
        passed: &mut Vec<OwnedFd>,
    ) -> Result<(Header, Message), LaneError> {
        let protocol = |error: codec::DecodeError| LaneError::Protocol(error.to_string());
        loop {
            if let Some(length) = codec::frame_length(&self.buffer).map_err(protocol)?
                && self.buffer.len() >= length
            {
                let frame = codec::decode_frame(&self.buffer[..length]).map_err(protocol)?;
                self.buffer.drain(..length);
                return Ok(frame);
            }
            // Room grows with what has arrived, not with what a header promises.
            let mut bytes = [0; READ_BYTES];
            let size = end.receive(&mut bytes, passed)?;
            if size == 0 {
                return Err(LaneError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.buffer.extend_from_slice(&bytes[..size]);
        }
    }
}

fn unexpected(message: Message) -> LaneError {
    match message {
        Message::Rejected(reason) => LaneError::Rejected(reason),
        other => LaneError::Protocol(format!("{} came out of turn", other.name())),
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("node", &self.shared.node.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for LaneTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneTable").field("name", &self.name).finish_non_exhaustive()
    }
}
