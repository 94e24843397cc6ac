//! Reading out of the host's shared memory: no system call, no lock, no task.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::{Clock, SystemClock};
use annulus_proto::message::{Listed, Session};
use annulus_proto::{Fields, Key, NodeId, Slot, Value, Version, record};
use annulus_shm::lane::{TableUses, is_sampled};
use annulus_shm::{AttachError, Hit, Lookup, Shards, Standing};
use arc_swap::ArcSwapOption;

use crate::pins::Pins;
use crate::recent::{Progress, RecentWrites};

/// Reads one table out of shared memory, from any thread, without tokio.
///
/// Made by [`Client::local_reader`](crate::Client::local_reader), which keeps it attached when the
/// node restarts with another segment, or by [`LocalReader::attach`], which stands alone. Cheap to
/// clone. A hit in eight is noted in the lane, if the client has one; a loop over it touches no cache
/// line that others write.
pub struct LocalReader<C: Clock = SystemClock> {
    table: Arc<LocalTable>,
    clock: C,
}

/// What shared memory says about a key. Only [`LocalGet::Ask`] is no answer.
#[derive(Debug)]
pub enum LocalGet<'a> {
    /// The session.
    Live(LocalSession<'a>),
    /// The session was ended.
    Ended,
    /// The session is used too much: ask again then, and not before.
    SlowDown {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Shared memory cannot tell: ask a node ([`Table::get`](crate::Table::get) does both).
    Ask(AskReason),
}

/// Why a node has to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskReason {
    /// Not in this host's table. It may live on its homes, or on a ring further out.
    Miss,
    /// This host's copy has expired. A touch may have reached another home.
    Expired,
    /// The node does not, or no longer, vouch for the key's slot.
    Stale,
    /// The copy is older than a write this client did through another node.
    BehindOwnWrite,
    /// The record changed each time it was read.
    Contended,
    /// The record makes no sense, or is of a format this build does not know.
    Damaged,
    /// No segment is attached.
    NotAttached,
}

/// A session as it lies in the caller's buffer.
#[derive(Debug)]
pub struct LocalSession<'a> {
    /// The version that created it.
    pub birth: Version,
    /// Its last write.
    pub version: Version,
    /// When it expires, in hybrid milliseconds; 0 = never.
    pub deadline: u64,
    /// When it was last used, in hybrid milliseconds.
    pub touched: u64,
    /// Its value.
    pub value: LocalValue<'a>,
}

/// A value out of shared memory.
#[derive(Debug, PartialEq, Eq)]
pub enum LocalValue<'a> {
    /// A string of bytes, in place in the buffer.
    Bytes(&'a [u8]),
    /// Named fields, without the deleted and the expired ones. Allocated.
    Map(Fields),
    /// Members, as the names of fields. Allocated.
    Set(Fields),
    /// Members and their scores, as fields. Allocated.
    SortedSet(Fields),
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPage {
    /// Live sessions that the node vouches for.
    pub entries: Vec<Listed>,
    /// The cursor of the next page; 0 = this was the last.
    pub next: u64,
}

impl LocalReader {
    /// Attaches to the segment at `path`, if it is the one with number `instance`.
    ///
    /// # Errors
    /// `Err` of [`AttachError`] when the file cannot be opened or is no segment; `Ok(None)` when it
    /// is another one.
    pub fn attach(path: impl AsRef<Path>, instance: u64) -> Result<Option<Self>, AttachError> {
        let shards = attach_file(path.as_ref())?;
        if shards.instance() != instance {
            return Ok(None);
        }
        let table = LocalTable::default();
        table.attach(shards, None);
        Ok(Some(Self::new(Arc::new(table), SystemClock)))
    }
}

impl<C: Clock> LocalReader<C> {
    pub(crate) fn new(table: Arc<LocalTable>, clock: C) -> Self {
        Self { table, clock }
    }

    /// Looks a key up. `buffer` is overwritten; once it has grown to the largest record it is not
    /// allocated again. Costs one trip to memory when it hits and the value is a string of bytes.
    pub fn get<'a>(&self, key: impl AsRef<[u8]>, buffer: &'a mut Vec<u8>) -> LocalGet<'a> {
        let now_ms = self.clock.monotonic_coarse_ms();
        self.table.get(key.as_ref(), now_ms, buffer, LocalSession::read).into()
    }

    /// Looks several keys up, and hands `found` each key's place in `keys` and what shared memory says
    /// about it, in the order of `keys`. Up to 16 lookups wait for memory together, so that each costs
    /// about half of a [`get`](Self::get).
    pub fn get_many(
        &self,
        keys: &[&[u8]],
        buffer: &mut Vec<u8>,
        mut found: impl FnMut(usize, LocalGet<'_>),
    ) {
        let now_ms = self.clock.monotonic_coarse_ms();
        self.table.get_many(keys, now_ms, buffer, &mut |at, looked| found(at, looked.into()));
    }

    /// Lists sessions in no particular order: about `limit` of them from `cursor` on (0 = from the
    /// beginning). `None` if nothing is attached. A session that moves meanwhile may come twice or
    /// not at all.
    pub fn scan(&self, cursor: u64, limit: usize) -> Option<LocalPage> {
        self.table.scan(cursor, limit, self.clock.monotonic_coarse_ms())
    }

    /// The counters that the node publishes in the segment. `None` if nothing is attached.
    pub fn stats(&self) -> Option<annulus_shm::SegmentStats> {
        self.table.attached.load().as_ref().map(|attached| attached.shards.stats())
    }
}

impl<C: Clock> Clone for LocalReader<C> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), clock: self.clock.clone() }
    }
}

impl<C: Clock> fmt::Debug for LocalReader<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalReader").field("attached", &self.table.is_attached()).finish()
    }
}

/// Opens a segment's file. Keys are under their slots there.
pub(crate) fn attach_file(path: &Path) -> Result<Shards, AttachError> {
    Shards::attach_file(path, |key| Slot::of(key).index())
}

/// What a client knows of one table on its host.
#[derive(Default)]
pub(crate) struct LocalTable {
    attached: ArcSwapOption<Attached>,
    /// Where one hit in some is noted, so that the node knows what this host's processes use.
    uses: ArcSwapOption<TableUses>,
    pub(crate) recent: RecentWrites,
    pub(crate) pins: Pins,
}

struct Attached {
    shards: Shards,
    /// The node that writes the segment.
    node: Option<NodeId>,
}

impl LocalTable {
    /// Replaces the segment. Readers under way finish on the old one.
    pub(crate) fn attach(&self, shards: Shards, node: Option<NodeId>) {
        self.attached.store(Some(Arc::new(Attached { shards, node })));
    }

    /// Where to count what is used from now on; `None` = nowhere.
    pub(crate) fn count_uses(&self, uses: Option<TableUses>) {
        self.uses.store(uses.map(Arc::new));
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached.load().is_some()
    }

    /// The node that writes the attached segment.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.attached.load().as_ref().and_then(|attached| attached.node)
    }

    /// Whether this segment is attached already, and still in use by its writer.
    pub(crate) fn is_attached_to(&self, instance: u64, node: NodeId) -> bool {
        self.attached.load().as_ref().is_some_and(|attached| {
            let shards = &attached.shards;
            shards.instance() == instance && !shards.detached() && attached.node == Some(node)
        })
    }

    /// Looks a key up and hands a live session's record to `read`.
    pub(crate) fn get<'a, T>(
        &self,
        key: &[u8],
        now_monotonic_ms: u64,
        buffer: &'a mut Vec<u8>,
        read: impl FnOnce(Found<'a>) -> Option<T>,
    ) -> Looked<T> {
        let attached = self.attached.load();
        let Some(attached) = attached.as_ref() else {
            return Looked::Ask(AskReason::NotAttached);
        };
        let lookup = attached.shards.get(key, now_monotonic_ms, buffer);
        self.judge(attached, lookup, key, now_monotonic_ms, buffer, |found| {
            found.unless_slowed(read)
        })
    }

    /// Looks several keys up; see [`LocalReader::get_many`].
    pub(crate) fn get_many(
        &self,
        keys: &[&[u8]],
        now_monotonic_ms: u64,
        buffer: &mut Vec<u8>,
        found: &mut dyn FnMut(usize, Looked<LocalSession<'_>>),
    ) {
        let attached = self.attached.load();
        let Some(attached) = attached.as_ref() else {
            return (0..keys.len()).for_each(|at| found(at, Looked::Ask(AskReason::NotAttached)));
        };
        attached.shards.get_many(keys, now_monotonic_ms, buffer, &mut |at, lookup, value| {
            let looked = self.judge(attached, lookup, keys[at], now_monotonic_ms, value, |found| {
                found.unless_slowed(LocalSession::read)
            });
            found(at, looked);
        });
    }

    /// What a lookup means, whose value is in `record`.
    #[inline]
    fn judge<'a, T>(
        &self,
        attached: &Attached,
        lookup: Lookup,
        key: &[u8],
        now_monotonic_ms: u64,
        record: &'a [u8],
        read: impl FnOnce(Found<'a>) -> Looked<T>,
    ) -> Looked<T> {
        let Hit { deadline, mark, used, .. } = match lookup {
            Lookup::Hit(hit) => hit,
            Lookup::Expired => return Looked::Ask(AskReason::Expired),
            Lookup::Stale => return Looked::Ask(AskReason::Stale),
            Lookup::Miss => return Looked::Ask(AskReason::Miss),
            Lookup::Contended => return Looked::Ask(AskReason::Contended),
            Lookup::Damaged => return Looked::Ask(AskReason::Damaged),
        };
        let Ok(view) = record::View::parse(record) else {
            return Looked::Ask(AskReason::Damaged);
        };
        if is_sampled()
            && let Some(uses) = self.uses.load().as_ref()
        {
            uses.note(used);
        }
        let progress = Progress { birth: view.birth, ended: view.ended, version: view.version };
        if !self.recent.allow(key, progress, now_monotonic_ms) {
            return Looked::Ask(AskReason::BehindOwnWrite);
        }
        let clock_offset = attached.shards.shard(used.shard()).clock_offset();
        let now_ms = now_monotonic_ms.wrapping_add(clock_offset);
        let slowed_until = match view.standing(now_ms) {
            record::Standing::Live => None,
            record::Standing::Slowed { until } => Some(until),
            record::Standing::Ended => return Looked::Ended,
            record::Standing::Elsewhere => return Looked::Ask(AskReason::Miss),
        };
        read(Found { view, deadline, mark, now_ms, slowed_until })
    }

    pub(crate) fn scan(&self, cursor: u64, limit: usize, now_ms: u64) -> Option<LocalPage> {
        let attached = self.attached.load();
        let attached = attached.as_ref()?;
        let mut keys = Vec::new();
        let mut next = cursor;
        while keys.len() < limit {
            let budget = limit - keys.len();
            next = attached.shards.scan(next, budget, now_ms, &mut |item, standing| {
                if standing == Standing::Live {
                    keys.extend(Key::new(item.key));
                }
            });
            if next == 0 {
                break;
            }
        }
        let mut buffer = Vec::new();
        let mut entries = Vec::new();
        for key in keys {
            let name = key.clone();
            let lookup = attached.shards.get(key.as_bytes(), now_ms, &mut buffer);
            // A suspect is a live session, too: only its value is kept away.
            let read = |found: Found<'_>| Looked::of(found.listed(name));
            let listed = self.judge(attached, lookup, key.as_bytes(), now_ms, &buffer, read);
            if let Looked::Live(listed) = listed {
                entries.push(listed);
            }
        }
        Some(LocalPage { entries, next })
    }
}

/// What a look into shared memory gave, before it is given its public shape.
pub(crate) enum Looked<T> {
    Live(T),
    Ended,
    SlowDown(Duration),
    Ask(AskReason),
}

impl<T> Looked<T> {
    /// What a live session's record gave; `None` if it is malformed.
    fn of(read: Option<T>) -> Self {
        read.map_or(Self::Ask(AskReason::Damaged), Self::Live)
    }
}

/// A live session's record.
pub(crate) struct Found<'a> {
    view: record::View<'a>,
    deadline: u64,
    mark: u64,
    now_ms: u64,
    slowed_until: Option<u64>,
}

impl Found<'_> {
    /// Reads it, unless the session is kept away from its users. Costs one branch where nothing was noted of it.
    #[inline]
    fn unless_slowed<T>(self, read: impl FnOnce(Self) -> Option<T>) -> Looked<T> {
        match self.slowed_until {
            None => Looked::of(read(self)),
            Some(until) => {
                let left_ms = until.saturating_sub(self.now_ms);
                Looked::SlowDown(Duration::from_millis(left_ms))
            }
        }
    }

    /// The whole session, as a node would have sent it; `None` if the record is malformed.
    pub(crate) fn session(self) -> Option<Session> {
        self.view.session(self.mark, self.deadline, self.now_ms)
    }

    fn listed(self, key: Key) -> Option<Listed> {
        let size = match self.view.bytes() {
            Some(bytes) => bytes.len(),
            None => self.view.entry(self.mark).ok()?.body?.size(),
        };
        Some(Listed {
            key,
            birth: self.view.birth,
            version: self.view.version,
            touched: record::touched(self.mark),
            deadline: self.deadline,
            size: size as u64,
        })
    }
}

impl<'a> LocalSession<'a> {
    fn read(found: Found<'a>) -> Option<Self> {
        let value = match found.view.bytes() {
            Some(bytes) => LocalValue::Bytes(bytes),
            None => match found.view.entry(found.mark).ok()?.body?.value(found.now_ms) {
                Value::Map(fields) => LocalValue::Map(fields),
                Value::Set(fields) => LocalValue::Set(fields),
                Value::SortedSet(fields) => LocalValue::SortedSet(fields),
                Value::Bytes(_) => return None,
            },
        };
        Some(Self {
            birth: found.view.birth,
            version: found.view.version,
            deadline: found.deadline,
            touched: record::touched(found.mark),
            value,
        })
    }
}

impl<'a> From<Looked<LocalSession<'a>>> for LocalGet<'a> {
    fn from(looked: Looked<LocalSession<'a>>) -> Self {
        match looked {
            Looked::Live(session) => Self::Live(session),
            Looked::Ended => Self::Ended,
            Looked::SlowDown(retry_after) => Self::SlowDown { retry_after },
            Looked::Ask(reason) => Self::Ask(reason),
        }
    }
}
