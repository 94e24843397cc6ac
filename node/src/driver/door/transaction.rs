//! Transactions: MULTI, EXEC and WATCH.
//!
//! The cores change one session at a time. So the commands of a transaction are done to drafts first, and what has
//! become of each key is then written in one step: by compare-and-set, if there was a session, or as a start where there was
//! none. If somebody else has changed it meanwhile all commands are done again to what is there by then. Hence what
//! a transaction does to one key nobody sees in part; what it does to several keys is written one key after the
//! other. A watched key is compared first, and again by the write, if it is one that is written.

use std::collections::BTreeMap;
use std::hash::Hasher;

use annulus_net::Clock;
use annulus_proto::entry::{FieldDeadlines, Fields, Value};
use annulus_proto::message::{
    Acknowledged, Change, Failure, Lifetimes, Operation, Session, SessionReply, field_hash,
};
use annulus_proto::{Attributes, Hlc, Key, NodeId, Version};
use annulus_resp::table::{self, Id};
use annulus_resp::{Arguments, Command, Span, Writer, texts};
use twox_hash::XxHash3_64;

use super::LIMITS;
use super::connection::Connection;
use super::keyspace::{Found, TRIES_MAX, named, unexpected};
use super::listening::is_about_channels;
use super::store::{Outcome, Trouble, contended};

/// The commands after a MULTI.
#[derive(Default)]
pub(super) struct Queue {
    /// All their arguments.
    bytes: Vec<u8>,
    /// Where those of each are.
    requests: Vec<Vec<Span>>,
    /// How many arguments there are.
    arguments: u32,
    /// Whether one was refused: none is done then.
    is_refused: bool,
}

/// The watched keys, by their tables' numbers: what was there, `None` = no session.
pub(super) type Watched = BTreeMap<(usize, Key), Option<Mark>>;

/// What stands for a session that somebody has seen: its version, and a hash of its fields, since a version does not say which
/// there are.
type Mark = (Version, u64);

/// The bytes that a transaction's answers and its drafts may have.
const BYTES_MAX: usize = 16 << 20;

/// How many keys a connection may watch.
const WATCHED_MAX: usize = 1_024;

/// The commands about channels of a transaction, which are done once all is written: where their answers stand, and their
/// places in the queue.
type Later = Vec<(usize, usize)>;

/// What the commands of a transaction have done so far.
#[derive(Default)]
pub(super) struct Staged {
    keys: BTreeMap<(usize, Key), Draft>,
    /// The bytes of the values that were drafted, or more.
    bytes: usize,
}

/// A key, as the commands of a transaction see it.
#[derive(Clone)]
struct Draft {
    /// What was there.
    before: There,
    /// What is there now.
    now: There,
    is_touched: bool,
    /// What became of it, if that is written.
    written: Option<There>,
}

#[derive(Clone, PartialEq)]
enum There {
    Session(Box<Session>),
    Absent,
    Ended,
}

/// How far a transaction has come.
enum Done {
    All,
    /// Somebody else has changed one of the keys: the commands are to be done again.
    Again,
    WatchedHasChanged,
}

/// What the door knows of a table.
#[derive(Clone, Copy)]
struct Bounds {
    value_bytes_max: usize,
    lifetime_max_ms: u64,
}

impl<C: Clock> Connection<C> {
    /// Whether this is the end of a transaction.
    pub(super) fn is_exec(&self, arguments: Arguments<'_>) -> bool {
        self.queue.is_some() && table::find(arguments).is_ok_and(|spec| spec.id == Id::Exec)
    }

    /// MULTI.
    pub(super) fn begin_queue<'a>(&mut self) -> Outcome<'a, ()> {
        if self.queue.is_some() {
            return Err(Trouble::text("ERR", texts::NESTED_MULTI));
        }
        self.queue = Some(Box::default());
        Ok(())
    }

    /// DISCARD.
    pub(super) fn discard<'a>(&mut self) -> Outcome<'a, ()> {
        self.watched.clear();
        let queue = self.queue.take();
        queue.map(|_| ()).ok_or_else(|| Trouble::text("ERR", texts::DISCARD_WITHOUT_MULTI))
    }

    /// A command was refused: if it belongs to a transaction, nothing of that is done.
    pub(super) fn refuse_queue(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.is_refused = true;
        }
    }

    /// Keeps a command for EXEC.
    pub(super) fn enqueue<'a>(&mut self, arguments: Arguments<'_>) -> Outcome<'a, ()> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        if !queue.push(arguments) {
            queue.is_refused = true;
            let text = format!(
                "a transaction has {} bytes and {} arguments at most",
                LIMITS.request_bytes_max, LIMITS.arguments_max
            );
            return Err(Trouble::Error("ERR", text.into()));
        }
        Ok(())
    }

    /// WATCH.
    pub(super) async fn watch<'a>(&mut self, keys: Arguments<'a>) -> Outcome<'a, ()> {
        if self.queue.is_some() {
            return Err(Trouble::text("ERR", texts::WATCH_IN_MULTI));
        }
        for key in keys.iter() {
            let place = (self.table, named(key)?);
            // What is watched already is compared with what was there first.
            if self.watched.contains_key(&place) {
                continue;
            }
            if self.watched.len() == WATCHED_MAX {
                let text = format!("a connection watches {WATCHED_MAX} keys at most");
                return Err(Trouble::Error("ERR", text.into()));
            }
            let mark = match self.look(&place.1).await? {
                Found::Alive(session) => Some(mark_of(&session)),
                Found::Absent | Found::Ended => None,
            };
            self.watched.insert(place, mark);
        }
        Ok(())
    }

    /// EXEC after a MULTI: does the commands that were queued, and appends their answers.
    pub(super) async fn exec<'a>(&mut self, answers: &mut Vec<u8>) -> Outcome<'a, ()> {
        let (queue, watched) = (self.queue.take(), std::mem::take(&mut self.watched));
        let Some(queue) = queue.filter(|queue| !queue.is_refused) else {
            return Err(Trouble::text("EXECABORT", texts::EXEC_ABORT));
        };
        let (begin, table, told) = (answers.len(), self.table, self.told.clone());
        let (mut written, mut later) = (Staged::default(), Later::new());
        for _ in 0..TRIES_MAX {
            answers.truncate(begin);
            self.staged = Some(Box::new(std::mem::take(&mut written)));
            later.clear();
            let done = self.try_exec(&queue, &watched, answers, &mut later).await;
            let staged = self.staged.take().unwrap_or_default();
            let some = staged.has_written();
            match done {
                Ok(Done::All) => {
                    self.finish_exec(&queue, &later, answers).await;
                    return Ok(());
                }
                Ok(Done::Again) => written = staged.into_written(),
                Ok(Done::WatchedHasChanged) if !some => {
                    self.told = told;
                    answers.truncate(begin);
                    Writer::new(answers, self.protocol()).null_array();
                    return Ok(());
                }
                Ok(Done::WatchedHasChanged) => return Err(contended().after(true)),
                Err(trouble) => {
                    self.told = told;
                    // What was to be written may be, though the answer is lost.
                    for ((table, key), draft) in &staged.keys {
                        if !draft.before.says_as(&draft.now) {
                            self.told.forget(*table, key.as_bytes());
                        }
                    }
                    return Err(trouble.after(some));
                }
            }
            // What the commands of this try were told the client is not told.
            self.told = told.clone();
            self.select(table);
        }
        Err(contended().after(!written.keys.is_empty()))
    }

    async fn try_exec<'a>(
        &mut self,
        queue: &Queue,
        watched: &Watched,
        answers: &mut Vec<u8>,
        later: &mut Later,
    ) -> Outcome<'a, Done> {
        let first = answers.len();
        for ((table, key), mark) in watched {
            if let Some(failure) = self.stage(*table, key).await? {
                return Err(failure.into());
            }
            let place = (*table, key.clone());
            let draft = self.staged.as_ref().and_then(|staged| staged.keys.get(&place));
            if draft.is_some_and(|draft| draft.before.mark() != *mark) {
                return Ok(Done::WatchedHasChanged);
            }
        }
        Writer::new(answers, self.protocol()).array(queue.requests.len());
        for (index, spans) in queue.requests.iter().enumerate() {
            let begin = answers.len();
            let arguments = Arguments::new(&queue.bytes, spans);
            if table::find(arguments).is_ok_and(|spec| is_about_channels(spec.id)) {
                later.push((begin, index));
                continue;
            }
            match self.answer(arguments, answers).await {
                Ok(()) => {}
                Err(Trouble::Stopping) => return Err(Trouble::Stopping),
                Err(trouble) => {
                    answers.truncate(begin);
                    trouble.write(&mut Writer::new(answers, self.protocol()));
                }
            }
            // Commands on drafts wait for nobody: others have their turn between them.
            tokio::task::consume_budget().await;
            let drafted = self.staged.as_ref().map_or(0, |staged| staged.bytes);
            if answers.len() - first + drafted > BYTES_MAX {
                let text = format!(
                    "the values and answers of a transaction have {BYTES_MAX} bytes at most"
                );
                return Err(Trouble::Error("ERR", text.into()));
            }
        }
        self.write_staged(watched).await
    }

    /// Does what is done once all is written, and puts its answers where they belong.
    async fn finish_exec(&mut self, queue: &Queue, later: &Later, answers: &mut Vec<u8>) {
        let Some(&(first, _)) = later.first() else { return };
        let others = answers.split_off(first);
        let mut from = first;
        for &(at, index) in later {
            answers.extend_from_slice(&others[from - first..at - first]);
            from = at;
            let begin = answers.len();
            let arguments = Arguments::new(&queue.bytes, &queue.requests[index]);
            let mut out = Writer::new(answers, self.protocol());
            if let Err(trouble) = self.finish(arguments, begin, &mut out) {
                answers.truncate(begin);
                trouble.write(&mut Writer::new(answers, self.protocol()));
            }
            // Of many commands, others have their turn between two.
            tokio::task::consume_budget().await;
        }
        answers.extend_from_slice(&others[from - first..]);
    }

    fn finish<'a>(
        &mut self,
        arguments: Arguments<'a>,
        answered: usize,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let command = table::find(arguments).and_then(|spec| Command::parse(spec, arguments))?;
        // What is published is heard all the same.
        let is_told = !matches!(command, Command::Publish { .. } | Command::Ping { .. });
        if is_told && answered > BYTES_MAX {
            let text = format!("the answers of a transaction have {BYTES_MAX} bytes at most");
            return Err(Trouble::Error("ERR", text.into()));
        }
        self.listen(command, out)
    }

    /// As the cores would, with a draft of it.
    pub(super) async fn ask_staged<'a>(
        &mut self,
        key: &Key,
        operation: Operation,
    ) -> Outcome<'a, SessionReply> {
        let table = self.table;
        if let Some(failure) = self.stage(table, key).await? {
            return Ok(SessionReply::Failed(failure));
        }
        let now_ms = self.door.clock.wall_ms();
        let bounds = self.bounds(table);
        let staged = self.staged.get_or_insert_default();
        staged.bytes += size(&operation);
        let draft = staged.keys.get_mut(&(table, key.clone())).ok_or_else(unexpected)?;
        Ok(draft.ask(operation, bounds, now_ms))
    }

    fn bounds(&self, table: usize) -> Bounds {
        let table = &self.door.tables[table];
        let (value_bytes_max, lifetime_max_ms) = (table.value_bytes_max, table.lifetime_max_ms);
        Bounds { value_bytes_max, lifetime_max_ms }
    }

    /// Takes a look at what is there, unless it was looked at before. Returns why that is not possible.
    async fn stage<'a>(&mut self, table: usize, key: &Key) -> Outcome<'a, Option<Failure>> {
        let place = (table, key.clone());
        if self.staged.as_ref().is_some_and(|staged| staged.keys.contains_key(&place)) {
            return Ok(None);
        }
        let name = &self.door.tables[table].name;
        let there = match self.store.ask(name, key, Operation::Get).await? {
            SessionReply::Session(session) => There::Session(Box::new(session)),
            SessionReply::Failed(Failure::Absent | Failure::Expired) => There::Absent,
            SessionReply::Failed(Failure::Ended) => There::Ended,
            SessionReply::Failed(failure) => return Ok(Some(failure)),
            _ => return Err(unexpected()),
        };
        let draft = Draft { before: there.clone(), now: there, is_touched: false, written: None };
        let staged = self.staged.get_or_insert_default();
        staged.bytes += 2 * draft.now.size();
        staged.keys.insert(place, draft);
        Ok(None)
    }

    /// Writes what has become of the keys.
    async fn write_staged<'a>(&mut self, watched: &Watched) -> Outcome<'a, Done> {
        let keys = self.staged.iter().flat_map(|staged| &staged.keys);
        let mut places: Vec<_> = keys
            .map(|(place, draft)| {
                let ends = !matches!(draft.now, There::Session(_));
                (!watched.contains_key(place), ends, place.clone())
            })
            .collect();
        // First what is watched: if that has changed nothing is done. What ends may go on under another key, and ends once
        // it is there.
        places.sort();
        for (_, _, place) in places {
            let now_ms = self.door.clock.wall_ms();
            let draft = self.staged.as_ref().and_then(|staged| staged.keys.get(&place));
            if draft.is_some_and(Draft::differs_from_written) {
                return Err(contended());
            }
            let Some(write) = draft.and_then(|draft| draft.write(now_ms)) else { continue };
            let is_touch = matches!(write, Operation::Touch { .. });
            let is_whole = matches!(
                write,
                Operation::StartIfAbsent { .. }
                    | Operation::UpdateIf { change: Change::Value(_) | Change::Whole(_, _), .. }
            );
            let name = &self.door.tables[place.0].name;
            match self.store.ask(name, &place.1, write).await? {
                SessionReply::Acknowledged(done) if is_whole => {
                    let now = self.staged.as_ref().and_then(|staged| staged.keys.get(&place));
                    let now = now.and_then(|draft| draft.now.deadlines_after(done.birth));
                    if let Some(deadlines) = now {
                        self.set_deadlines(place.0, &place.1, deadlines).await?;
                    }
                }
                SessionReply::Acknowledged(_) => {}
                SessionReply::Failed(
                    Failure::Conflict { .. } | Failure::Absent | Failure::Ended | Failure::Expired,
                ) if !is_touch => return Ok(Done::Again),
                // What cannot be touched any more is gone, after what was done here.
                SessionReply::Failed(_) if is_touch => {}
                SessionReply::Failed(failure) => return Err(failure.into()),
                _ => return Err(unexpected()),
            }
            let draft = self.staged.as_mut().and_then(|staged| staged.keys.get_mut(&place));
            if let Some(draft) = draft {
                draft.written = Some(draft.now.clone());
            }
        }
        Ok(Done::All)
    }
}

impl<C: Clock> Connection<C> {
    /// Has fields of what was just written as a whole expire on their own: a whole value has no such deadlines.
    async fn set_deadlines<'a>(
        &mut self,
        table: usize,
        key: &Key,
        deadlines: Operation,
    ) -> Outcome<'a, ()> {
        let name = &self.door.tables[table].name;
        match self.store.ask(name, key, deadlines).await? {
            SessionReply::Acknowledged(_) => Ok(()),
            // What is there by now somebody else has set, and has said when it expires.
            SessionReply::Failed(
                Failure::Conflict { .. } | Failure::Absent | Failure::Ended | Failure::Expired,
            ) => Ok(()),
            SessionReply::Failed(failure) => Err(Trouble::from(failure).after(true)),
            _ => Err(unexpected()),
        }
    }
}

impl Queue {
    /// Keeps a command, if there is room.
    fn push(&mut self, arguments: Arguments<'_>) -> bool {
        let bytes: usize = arguments.iter().map(|argument| argument.len()).sum();
        let count = u32::try_from(arguments.len()).unwrap_or(u32::MAX);
        let has_room = self.bytes.len() + bytes <= LIMITS.request_bytes_max as usize
            && self.arguments.saturating_add(count) <= LIMITS.arguments_max;
        if has_room {
            self.arguments += count;
            let spans = arguments.iter().map(|argument| {
                let from = self.bytes.len() as u32;
                self.bytes.extend_from_slice(&argument);
                Span { from, to: self.bytes.len() as u32 }
            });
            let spans = spans.collect();
            self.requests.push(spans);
        }
        has_room
    }
}

impl Staged {
    /// What is written already, as it was before: the commands do the same to it once more.
    fn into_written(mut self) -> Self {
        self.keys.retain(|_, draft| draft.written.is_some());
        self.bytes = self.keys.values().map(|draft| 3 * draft.before.size()).sum();
        for draft in self.keys.values_mut() {
            draft.now = draft.before.clone();
        }
        self
    }

    fn has_written(&self) -> bool {
        self.keys.values().any(|draft| draft.written.is_some())
    }
}

impl There {
    fn version(&self) -> Option<Version> {
        match self {
            Self::Session(session) => Some(session.version),
            Self::Absent | Self::Ended => None,
        }
    }

    fn mark(&self) -> Option<Mark> {
        match self {
            Self::Session(session) => Some(mark_of(session)),
            Self::Absent | Self::Ended => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Session(session) => session.value.size(),
            Self::Absent | Self::Ended => 0,
        }
    }

    /// Whether both are over, or have one value.
    fn says_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Session(one), Self::Session(other)) => {
                (&one.value, &one.field_deadlines) == (&other.value, &other.field_deadlines)
            }
            (one, other) => one.version().is_none() && other.version().is_none(),
        }
    }

    /// What gives the fields of a session of this birth their deadlines, which was written as a whole; `None`: none has one.
    fn deadlines_after(&self, birth: Version) -> Option<Operation> {
        match self {
            Self::Session(session) => deadlines_of(session, birth),
            Self::Absent | Self::Ended => None,
        }
    }

    fn expire(&mut self, now_ms: u64) {
        if matches!(self, Self::Session(it) if it.deadline != 0 && it.deadline <= now_ms) {
            *self = Self::Absent;
        }
    }
}

impl Draft {
    /// Does what a core would do.
    fn ask(&mut self, operation: Operation, bounds: Bounds, now_ms: u64) -> SessionReply {
        self.now.expire(now_ms);
        match self.done(operation, bounds, now_ms) {
            Ok(reply) => reply,
            Err(failure) => SessionReply::Failed(failure),
        }
    }

    fn done(
        &mut self,
        operation: Operation,
        bounds: Bounds,
        now_ms: u64,
    ) -> Result<SessionReply, Failure> {
        let begin = |value, lifetimes, attributes| {
            let session = begun(value, lifetimes, attributes, bounds, now_ms)?;
            Ok(There::Session(Box::new(session)))
        };
        match (&mut self.now, operation) {
            (There::Session(session), Operation::Get) => {
                return Ok(SessionReply::Session((**session).clone()));
            }
            (There::Session(session), Operation::Touch { .. }) => {
                touch(session, now_ms);
                self.is_touched = true;
            }
            (There::Session(session), Operation::Put { value, lifetimes, keeps_lifetimes, .. }) => {
                write(session, value, (!keeps_lifetimes).then_some(lifetimes), bounds, now_ms)?;
            }
            (
                There::Session(session),
                Operation::Update { change, .. } | Operation::UpdateIf { change, .. },
            ) => change_by(session, change, bounds, now_ms)?,
            (
                now @ There::Session(_),
                Operation::UpdateFieldsIf { set, delete, deadlines, ends_empty, .. },
            ) => {
                let There::Session(session) = now else { return Err(Failure::Absent) };
                change_by(session, Change::Fields { set, delete }, bounds, now_ms)?;
                for (name, deadline) in deadlines {
                    match deadline {
                        0 => drop(session.field_deadlines.remove(&name)),
                        _ => drop(session.field_deadlines.insert(name, deadline)),
                    }
                }
                if ends_empty && session.value.fields().is_some_and(Fields::is_empty) {
                    *now = There::Ended;
                }
            }
            // That the session there goes on, nobody can see who has its key alone.
            (There::Session(session), Operation::Start { value, lifetimes, .. }) => {
                write(session, value, Some(lifetimes), bounds, now_ms)?;
            }
            (There::Session(session), Operation::StartIfAbsent { .. }) => {
                return Err(Failure::Conflict { version: session.version });
            }
            (now, Operation::End { .. } | Operation::EndIf { .. }) => *now = There::Ended,
            (There::Ended, Operation::Put { after_end: false, .. }) => return Err(Failure::Ended),
            (now, Operation::Put { value, lifetimes, .. }) => {
                *now = begin(value, lifetimes, Attributes::default())?;
            }
            (
                now,
                Operation::Start { value, lifetimes, attributes }
                | Operation::StartIfAbsent { value, lifetimes, attributes },
            ) => *now = begin(value, lifetimes, attributes)?,
            (There::Ended, _) => return Err(Failure::Ended),
            (There::Absent, _) => return Err(Failure::Absent),
            (There::Session(_), _) => {
                return Err(Failure::Refused("a transaction cannot do that".to_owned()));
            }
        }
        let version = self.now.version().unwrap_or(Version::ZERO);
        let (birth, held_by, homes) = (version, 0, 0);
        Ok(SessionReply::Acknowledged(Acknowledged { birth, version, held_by, homes }))
    }

    /// Whether the commands, done again, make of it something else than is written: they depend on other keys.
    fn differs_from_written(&self) -> bool {
        self.written.as_ref().is_some_and(|written| !written.says_as(&self.now))
    }

    /// What has to be written; `None` = nothing.
    fn write(&self, now_ms: u64) -> Option<Operation> {
        if self.written.is_some() {
            return None;
        }
        match (&self.before, &self.now) {
            (There::Session(before), There::Session(now)) => {
                let version = before.version;
                let lifetimes = lifetimes_from(now, now_ms);
                let keeps = (now.idle, now.expire_at) == (before.idle, before.expire_at);
                let is_same = self.before.says_as(&self.now);
                if let Some(lifetimes) = lifetimes
                    && !is_same
                    && before.value.kind() == now.value.kind()
                    && let (Some(seen), Some(left)) = (before.value.fields(), now.value.fields())
                {
                    let lifetimes = (!keeps).then_some(lifetimes);
                    let left = (left, &now.field_deadlines);
                    return Some(fields_write(before, seen, left, lifetimes, false));
                }
                let change = match (is_same, keeps, lifetimes) {
                    (_, _, None) => return Some(Operation::EndIf { version }),
                    (true, true, _) => {
                        let touch = Operation::Touch { birth: Some(before.birth) };
                        return self.is_touched.then_some(touch);
                    }
                    (true, false, Some(lifetimes)) => Change::Lifetimes(lifetimes),
                    (false, true, _) => Change::Value(now.value.clone()),
                    (false, false, Some(lifetimes)) => Change::Whole(now.value.clone(), lifetimes),
                };
                Some(Operation::UpdateIf { version, change })
            }
            (There::Session(before), _) => Some(end_of(before)),
            (_, There::Session(now)) => {
                let (value, attributes) = (now.value.clone(), now.attributes.clone());
                let lifetimes = lifetimes_from(now, now_ms)?;
                Some(Operation::StartIfAbsent { value, lifetimes, attributes })
            }
            _ => None,
        }
    }
}

/// The bytes of the value that an operation has.
fn size(operation: &Operation) -> usize {
    match operation {
        Operation::Put { value, .. }
        | Operation::Start { value, .. }
        | Operation::StartIfAbsent { value, .. }
        | Operation::Update { change: Change::Value(value) | Change::Whole(value, _), .. }
        | Operation::UpdateIf { change: Change::Value(value) | Change::Whole(value, _), .. } => {
            value.size()
        }
        Operation::Update { change: Change::Fields { set, .. }, .. }
        | Operation::UpdateIf { change: Change::Fields { set, .. }, .. }
        | Operation::UpdateFieldsIf { set, .. } => {
            set.iter().map(|(name, value)| name.len() + value.len()).sum()
        }
        _ => 0,
    }
}

fn mark_of(session: &Session) -> Mark {
    let mut hash = XxHash3_64::new();
    if let Some(fields) = session.value.fields() {
        for part in fields.iter().flat_map(|(name, value)| [name, value]) {
            hash.write_usize(part.len());
            hash.write(part);
        }
        session.field_deadlines.values().for_each(|deadline| hash.write_u64(*deadline));
    }
    (session.version, hash.finish())
}

/// The end of a session, if it is as it was seen.
pub(super) fn end_of(seen: &Session) -> Operation {
    match seen.value.fields() {
        Some(fields) => {
            let none = (&Fields::new(), &FieldDeadlines::new());
            fields_write(seen, fields, none, None, true)
        }
        None => Operation::EndIf { version: seen.version },
    }
}

/// Gives fields the deadlines that they have in a session, in one of this birth that was begun with its value; `None`: none has
/// one.
pub(super) fn deadlines_of(session: &Session, birth: Version) -> Option<Operation> {
    let fields = session.value.fields()?;
    let own = session.field_deadlines.iter().filter(|(name, _)| fields.contains_key(*name));
    let deadlines: FieldDeadlines = own.map(|(name, at)| (name.clone(), *at)).collect();
    if deadlines.is_empty() {
        return None;
    }
    let expected = deadlines.keys().map(|name| {
        let value = fields.get(name).map(|value| field_hash(value, 0));
        (name.clone(), value)
    });
    Some(Operation::UpdateFieldsIf {
        birth,
        expected: expected.collect(),
        is_all: false,
        set: Fields::new(),
        delete: Vec::new(),
        deadlines,
        lifetimes: None,
        ends_empty: false,
    })
}

/// What makes these fields of those that were seen, if there are no others.
fn fields_write(
    before: &Session,
    seen: &Fields,
    (now, deadlines): (&Fields, &FieldDeadlines),
    lifetimes: Option<Lifetimes>,
    ends_empty: bool,
) -> Operation {
    let before_of = |name| before.field_deadlines.get(name).copied().unwrap_or(0);
    let hashes =
        seen.iter().map(|(name, value)| (name.clone(), Some(field_hash(value, before_of(name)))));
    let set = now.iter().filter(|(name, value)| seen.get(*name) != Some(value));
    // Of what is set, too: what is not named has none then.
    let of_now = |name: &Vec<u8>| (name.clone(), deadlines.get(name).copied().unwrap_or(0));
    let deadlines = now.keys().filter(|name| {
        let (before, now_ms) = (before_of(name), deadlines.get(*name).copied().unwrap_or(0));
        before != now_ms || now_ms != 0 && seen.get(*name) != now.get(*name)
    });
    Operation::UpdateFieldsIf {
        birth: before.birth,
        expected: hashes.collect(),
        is_all: true,
        set: set.map(|(name, value)| (name.clone(), value.clone())).collect(),
        delete: seen.keys().filter(|name| !now.contains_key(*name)).cloned().collect(),
        deadlines: deadlines.map(of_now).collect(),
        lifetimes,
        ends_empty,
    }
}

/// A session that begins now. Its version is none of a core's.
fn begun(
    value: Value,
    lifetimes: Lifetimes,
    attributes: Attributes,
    bounds: Bounds,
    now_ms: u64,
) -> Result<Session, Failure> {
    let birth = Version::new(Hlc::from_ms(now_ms), NodeId::from_bits(0));
    let mut session = Session {
        birth,
        version: birth,
        deadline: 0,
        touched: now_ms,
        idle: 0,
        expire_at: 0,
        attributes,
        pin: None,
        field_deadlines: Default::default(),
        value: Value::Bytes(Vec::new()),
    };
    write(&mut session, value, Some(lifetimes), bounds, now_ms)?;
    Ok(session)
}

fn change_by(
    session: &mut Session,
    change: Change,
    bounds: Bounds,
    now_ms: u64,
) -> Result<(), Failure> {
    match change {
        Change::Value(value) => write(session, value, None, bounds, now_ms),
        Change::Whole(value, lifetimes) => write(session, value, Some(lifetimes), bounds, now_ms),
        Change::Fields { set, delete } => {
            let mut fields = session.value.fields().cloned().unwrap_or_default();
            let mut deadlines = session.field_deadlines.clone();
            for (name, value) in set {
                deadlines.remove(&name);
                fields.insert(name, value);
            }
            for name in delete {
                deadlines.remove(&name);
                fields.remove(&name);
            }
            let value = Value::of_fields(session.value.kind(), fields);
            write(session, value, None, bounds, now_ms)?;
            session.field_deadlines = deadlines;
            Ok(())
        }
        Change::Lifetimes(lifetimes) => {
            set_lifetimes(session, lifetimes, bounds, now_ms);
            touch(session, now_ms);
            Ok(())
        }
        _ => Err(Failure::Refused("a transaction cannot do that".to_owned())),
    }
}

fn write(
    session: &mut Session,
    value: Value,
    lifetimes: Option<Lifetimes>,
    bounds: Bounds,
    now_ms: u64,
) -> Result<(), Failure> {
    let (size, limit) = (value.size() as u64, bounds.value_bytes_max as u64);
    if size > limit {
        return Err(Failure::TooLarge { size, limit });
    }
    (session.value, session.field_deadlines) = (value, FieldDeadlines::new());
    if let Some(lifetimes) = lifetimes {
        set_lifetimes(session, lifetimes, bounds, now_ms);
    }
    touch(session, now_ms);
    Ok(())
}

fn set_lifetimes(session: &mut Session, lifetimes: Lifetimes, bounds: Bounds, now_ms: u64) {
    if let Some(idle) = lifetimes.idle_ms {
        session.idle = idle;
    }
    if let Some(lifetime) = lifetimes.lifetime_ms {
        let birth_ms = session.birth.hlc.ms();
        let wanted = (lifetime != 0).then(|| now_ms.saturating_add(lifetime));
        let most = bounds.lifetime_max_ms;
        let cap = (most != 0).then(|| birth_ms.saturating_add(most));
        session.expire_at = [wanted, cap].into_iter().flatten().min().unwrap_or(0);
    }
}

fn touch(session: &mut Session, now_ms: u64) {
    session.touched = session.touched.max(now_ms);
    let idle = (session.idle != 0).then(|| session.touched.saturating_add(session.idle));
    let end = (session.expire_at != 0).then_some(session.expire_at);
    session.deadline = [idle, end].into_iter().flatten().min().unwrap_or(0);
}

/// The lifetimes that bring about a session's deadlines, if they are written now; `None` if they are past.
fn lifetimes_from(session: &Session, now_ms: u64) -> Option<Lifetimes> {
    let left = match session.expire_at {
        0 => 0,
        end => end.checked_sub(now_ms).filter(|left| *left > 0)?,
    };
    Some(Lifetimes { idle_ms: Some(session.idle), lifetime_ms: Some(left) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;
    const BOUNDS: Bounds = Bounds { value_bytes_max: 10, lifetime_max_ms: 1_000 };
    const WIDE: Bounds = Bounds { value_bytes_max: 1_000, lifetime_max_ms: 1_000 };

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    fn lives(lifetime_ms: u64) -> Lifetimes {
        Lifetimes { idle_ms: Some(0), lifetime_ms: Some(lifetime_ms) }
    }

    fn put(text: &str, lifetime_ms: u64, after_end: bool) -> Operation {
        let (value, lifetimes, keeps_lifetimes) = (bytes(text), lives(lifetime_ms), false);
        Operation::Put { value, lifetimes, keeps_lifetimes, after_end }
    }

    fn draft(there: There) -> Draft {
        Draft { before: there.clone(), now: there, is_touched: false, written: None }
    }

    /// Of a map a version does not say which fields there are.
    #[test]
    fn what_was_seen_of_a_map_is_its_fields_too() {
        let session = |fields: &[(&str, &str)]| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let fields = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
            begun(Value::Map(fields), lives(100), Attributes::default(), WIDE, NOW).unwrap()
        };
        let seen = session(&[("a", "1")]);
        assert_eq!(mark_of(&seen), mark_of(&session(&[("a", "1")])));
        for other in
            [&[("a", "2")][..], &[("b", "1")], &[("a", "1"), ("b", "")], &[("a1", "")], &[]]
        {
            let other = session(other);
            assert_eq!(other.version, seen.version);
            assert_ne!(mark_of(&other), mark_of(&seen), "{other:?}");
        }
        let Operation::UpdateFieldsIf { expected, is_all: true, delete, ends_empty: true, .. } =
            end_of(&seen)
        else {
            panic!("an end of these fields alone");
        };
        assert_eq!(expected.into_keys().collect::<Vec<_>>(), delete);
    }

    fn of_session() -> Draft {
        let attributes = Attributes::default();
        let begun = begun(bytes("old"), lives(500), attributes, BOUNDS, NOW);
        let mut session = begun.expect("it begins");
        session.version = Version::new(Hlc::from_ms(NOW + 1), NodeId::from_bits(1));
        draft(There::Session(Box::new(session)))
    }

    fn fails(draft: &mut Draft, operation: Operation) -> Failure {
        match draft.ask(operation, BOUNDS, NOW) {
            SessionReply::Failed(failure) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    #[track_caller]
    fn does(draft: &mut Draft, operation: Operation) {
        let reply = draft.ask(operation, BOUNDS, NOW);
        assert!(matches!(reply, SessionReply::Acknowledged(_)), "{reply:?}");
    }

    #[test]
    fn nothing_is_written_of_what_was_read_alone() {
        for mut draft in [of_session(), draft(There::Absent), draft(There::Ended)] {
            draft.ask(Operation::Get, BOUNDS, NOW);
            assert_eq!(draft.write(NOW), None);
        }
        let mut touched = of_session();
        does(&mut touched, Operation::Touch { birth: None });
        assert!(matches!(touched.write(NOW), Some(Operation::Touch { birth: Some(_) })));
    }

    #[test]
    fn what_becomes_of_a_session_is_one_write_on_what_was_seen() {
        let mut draft = of_session();
        let version = draft.before.version().expect("it lives");
        does(&mut draft, put("one", 100, false));
        does(&mut draft, put("two", 200, false));
        let change = Change::Whole(bytes("two"), lives(200));
        assert_eq!(draft.write(NOW), Some(Operation::UpdateIf { version, change }));
        assert_eq!(
            draft.write(NOW + 200),
            Some(Operation::EndIf { version }),
            "it is over by then"
        );

        let mut draft = of_session();
        let change = Change::Lifetimes(lives(0));
        does(&mut draft, Operation::Update { birth: None, change });
        let change = Change::Lifetimes(lives(1_000));
        assert_eq!(
            draft.write(NOW),
            Some(Operation::UpdateIf { version, change }),
            "as its table says"
        );

        let mut draft = of_session();
        let change = Change::Value(bytes("new"));
        does(&mut draft, Operation::UpdateIf { version, change: change.clone() });
        assert_eq!(draft.write(NOW), Some(Operation::UpdateIf { version, change }));

        let mut draft = of_session();
        does(&mut draft, Operation::End { birth: None });
        assert_eq!(draft.write(NOW), Some(Operation::EndIf { version }));
        assert_eq!(fails(&mut draft, Operation::Get), Failure::Ended);
        assert_eq!(fails(&mut draft, put("late", 0, false)), Failure::Ended);
        does(&mut draft, put("again", 100, true));
        let change = Change::Whole(bytes("again"), lives(100));
        assert_eq!(draft.write(NOW), Some(Operation::UpdateIf { version, change }));
    }

    #[test]
    fn what_begins_is_begun_where_nothing_is() {
        for there in [There::Absent, There::Ended] {
            let mut draft = draft(there);
            does(&mut draft, put("one", 100, true));
            let conflict = Operation::StartIfAbsent {
                value: bytes("two"),
                lifetimes: lives(0),
                attributes: Attributes::default(),
            };
            assert!(matches!(fails(&mut draft, conflict), Failure::Conflict { .. }));
            let Some(Operation::StartIfAbsent { value, lifetimes, .. }) = draft.write(NOW) else {
                panic!("it begins nothing");
            };
            assert_eq!((value, lifetimes), (bytes("one"), lives(100)));
            does(&mut draft, Operation::End { birth: None });
            assert_eq!(draft.write(NOW), None);
        }
    }

    #[test]
    fn what_is_written_is_done_again_as_it_was_and_written_once() {
        let mut staged = Staged::default();
        let place = (0, Key::new("key").expect("a key"));
        let mut written = of_session();
        does(&mut written, put("one", 100, false));
        written.written = Some(written.now.clone());
        staged.keys.insert(place.clone(), written);
        staged.keys.insert((1, place.1.clone()), of_session());
        let mut again = staged.into_written();
        assert_eq!(again.keys.len(), 1);
        let draft = again.keys.get_mut(&place).expect("it is kept");
        let SessionReply::Session(session) = draft.ask(Operation::Get, BOUNDS, NOW) else {
            panic!("it is gone");
        };
        assert_eq!(session.value, bytes("old"));
        does(draft, put("one", 100, false));
        assert!(!draft.differs_from_written());
        assert_eq!(draft.write(NOW), None);
        does(draft, put("two", 100, false));
        assert!(draft.differs_from_written(), "others depend on another key");
        does(draft, Operation::End { birth: None });
        assert!(draft.differs_from_written());
    }

    #[test]
    fn what_is_too_large_or_over_is_refused() {
        let mut draft = of_session();
        let failure = fails(&mut draft, put("01234567890", 0, false));
        assert_eq!(failure, Failure::TooLarge { size: 11, limit: 10 });
        let reply = draft.ask(Operation::Get, BOUNDS, NOW + 500);
        assert_eq!(reply, SessionReply::Failed(Failure::Absent));
        assert!(matches!(draft.write(NOW + 500), Some(Operation::EndIf { .. })));
    }

    #[test]
    fn no_more_is_queued_than_a_request_may_have() {
        let mut queue = Queue::default();
        let bytes = vec![b'x'; LIMITS.request_bytes_max as usize / 2];
        let spans = [Span { from: 0, to: bytes.len() as u32 }];
        let request = Arguments::new(&bytes, &spans);
        assert!(queue.push(request) && queue.push(request));
        assert!(!queue.push(request));
        assert_eq!(queue.requests.len(), 2);
    }
}
