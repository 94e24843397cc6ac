//! One table of this host, without a pointer: finding it, staying attached, looking keys up.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annulus_proto::Slot;
use annulus_proto::record::{self, FieldView, Fields, View};
use annulus_shm::{AttachError, Lookup, Shards};
use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};

use crate::abi::{Kind, Session, Status};

/// `annulus_reader`: a table of this host's node.
pub struct Table {
    origin: Origin,
    attached: ArcSwap<Attached>,
}

/// Where a table's segment is to be found.
pub(crate) enum Origin {
    /// In this file.
    Path(PathBuf),
    /// Wherever the host's node has made it.
    Named { directory: PathBuf, cluster: String, table: String },
}

struct Attached {
    shards: Shards,
    path: PathBuf,
    file: FileId,
}

/// Device and inode.
type FileId = (u64, u64);

/// Why a table is not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// A call failed.
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// There is no such segment.
    #[error("no node has made table {table:?} of cluster {cluster:?} in {directory}")]
    NoTable { directory: PathBuf, cluster: String, table: String },
    /// There are several.
    #[error("several nodes made this table, say which: {} or {}", .0.display(), .1.display())]
    Ambiguous(PathBuf, PathBuf),
    /// It cannot be attached to.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl OpenError {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Ambiguous(..) => Status::Ambiguous,
            Self::Attach(AttachError::Segment { .. }) => Status::Segment,
            Self::Io { .. } | Self::NoTable { .. } | Self::Attach(_) => Status::Open,
        }
    }
}

impl Table {
    pub(crate) fn open(origin: Origin) -> Result<Self, OpenError> {
        let attached = ArcSwap::from_pointee(Attached::find(&origin)?);
        Ok(Self { origin, attached })
    }

    /// Attaches anew. Lookups under way finish on the old segment; after an error it stays.
    pub(crate) fn reopen(&self) -> Result<(), OpenError> {
        self.attached.store(Arc::new(Attached::find(&self.origin)?));
        Ok(())
    }

    /// Whether the node gave the segment up, or another file has taken its place. One system call.
    pub(crate) fn is_detached(&self) -> bool {
        let attached = self.attached.load();
        attached.shards.detached() || file_id(&attached.path).ok() != Some(attached.file)
    }

    /// Looks a key up. The record is copied to the front of `buffer`, if it fits.
    pub(crate) fn get(&self, key: &[u8], buffer: &mut [u8]) -> Session {
        let attached = self.attached.load();
        let reader = attached.shards.shard(attached.shards.of(key));
        // Beside the clock offset, which every lookup reads: no further trip to memory.
        if reader.detached() {
            return Session::none(Status::NotAttached);
        }
        let now_ms = monotonic_coarse_ms();
        let lookup = reader.get_into(key, now_ms, buffer);
        session(lookup, buffer, now_ms.wrapping_add(reader.clock_offset()))
    }

    /// Looks several keys up. Records are copied to `buffer` one behind another from `*used` on, as
    /// far as they fit; `found` is handed each key's place. `record` is for reuse by the next call.
    pub(crate) fn get_many(
        &self,
        keys: &[&[u8]],
        record: &mut Vec<u8>,
        buffer: &mut [u8],
        used: &mut usize,
        found: &mut dyn FnMut(usize, Session),
    ) {
        let attached = self.attached.load();
        let shards = &attached.shards;
        if shards.detached() {
            (0..keys.len()).for_each(|place| found(place, Session::none(Status::NotAttached)));
            return;
        }
        let now_ms = monotonic_coarse_ms();
        shards.get_many(keys, now_ms, record, &mut |place, lookup, record| {
            let room = &mut buffer[*used..];
            if let Some(room) = room.get_mut(..record.len()) {
                room.copy_from_slice(record);
            }
            let shard = match lookup {
                Lookup::Hit(hit) => hit.used.shard(),
                _ => 0, // No time is wanted.
            };
            let clock_offset = shards.shard(shard).clock_offset();
            let session = session(lookup, room, now_ms.wrapping_add(clock_offset));
            if session.status != Status::TooSmall.code() {
                *used += session.needed;
            }
            found(place, session);
        });
    }
}

impl Attached {
    fn find(origin: &Origin) -> Result<Self, OpenError> {
        let path = match origin {
            Origin::Path(path) => path.clone(),
            Origin::Named { directory, cluster, table } => find_segment(directory, cluster, table)?,
        };
        // Looked at first: if another file takes its place meanwhile, the next `is_detached` says so.
        let file = file_id(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let shards = Shards::attach_file(&path, |key| Slot::of(key).index())?;
        Ok(Self { shards, path, file })
    }
}

/// Keys that wait for memory together.
pub(crate) const BATCH: usize = 16;

/// The next field after `at` bytes of a map that was not deleted and has not expired, and where
/// the one after it begins. `Err` when the bytes are no map's.
pub(crate) fn next_field(
    map: &[u8],
    at: usize,
    now_ms: u64,
) -> Result<Option<(FieldView<'_>, usize)>, record::Malformed> {
    // Behind the end there is nothing either.
    let mut fields = Fields::resume(map.get(at..).unwrap_or_default());
    while let Some(field) = fields.next_field()? {
        let alive = field.expire_at == 0 || field.expire_at > now_ms;
        if alive && field.value.is_some() {
            return Ok(Some((field, map.len() - fields.rest().len())));
        }
    }
    Ok(None)
}

/// What a lookup gave, whose record is at the front of the buffer if it fits.
fn session(lookup: Lookup, buffer: &[u8], now_ms: u64) -> Session {
    let hit = match lookup {
        Lookup::Hit(hit) => hit,
        Lookup::Expired => return Session::none(Status::Expired),
        Lookup::Stale => return Session::none(Status::Stale),
        Lookup::Miss => return Session::none(Status::Miss),
        Lookup::Contended => return Session::none(Status::Contended),
        Lookup::Damaged => return Session::none(Status::Damaged),
    };
    let Some(record) = buffer.get(..hit.value_size) else {
        return Session { needed: hit.value_size, ..Session::none(Status::TooSmall) };
    };
    let Ok(view) = View::parse(record) else { return Session::none(Status::Damaged) };
    if view.is_marker() {
        return Session::none(Status::Miss); // It went to another ring.
    }
    let session = Session {
        birth: view.birth.into(),
        version: view.version.into(),
        deadline_ms: hit.deadline,
        touched_ms: record::touched(hit.mark),
        read_at_ms: now_ms,
        needed: hit.value_size,
        ..Session::none(Status::Ended)
    };
    if view.ended {
        return session;
    }
    if let Some(until) = view.slowed_until(now_ms) {
        return Session { status: Status::SlowDown.code(), deadline_ms: until, ..session };
    }
    let (kind, value) = match view.bytes() {
        Some(bytes) => (Kind::Bytes, bytes),
        None => match view.map() {
            Ok(Some(fields)) if is_well_formed(fields) => (Kind::Map, fields.rest()),
            _ => return Session::none(Status::Damaged),
        },
    };
    Session {
        status: Status::Live.code(),
        kind: kind as u32,
        value: value.as_ptr(),
        value_size: value.len(),
        ..session
    }
}

/// Walked once when it is read, so that a walk by the caller finds no error.
fn is_well_formed(mut fields: Fields<'_>) -> bool {
    let mut last: Option<&[u8]> = None;
    loop {
        match fields.next_field() {
            Ok(None) => return true,
            Ok(Some(field)) if last.is_none_or(|last| last < field.name) => last = Some(field.name),
            _ => return false,
        }
    }
}

/// The one segment of this table in the directory: `annulus-CLUSTER-NODE-TABLE`, as nodes name it.
fn find_segment(directory: &Path, cluster: &str, table: &str) -> Result<PathBuf, OpenError> {
    let fail = |source| OpenError::Io { path: directory.to_owned(), source };
    let (prefix, suffix) =
        (format!("annulus-{}-", file_part(cluster)), format!("-{}", file_part(table)));
    let mut found: Option<PathBuf> = None;
    for entry in fs::read_dir(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let node = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(&suffix));
        if node.is_none_or(|node| annulus_proto::NodeId::parse(node).is_none()) {
            continue;
        }
        if let Some(other) = found.replace(entry.path()) {
            return Err(OpenError::Ambiguous(other, entry.path()));
        }
    }
    found.ok_or_else(|| OpenError::NoTable {
        directory: directory.to_owned(),
        cluster: cluster.to_owned(),
        table: table.to_owned(),
    })
}

/// A name as it stands in a segment's file name.
fn file_part(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(safe).collect()
}

fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|facts| (facts.dev(), facts.ino()))
}

/// The clock that freshness is measured by: no system call, behind by up to a kernel tick.
fn monotonic_coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    // Linux never reports a negative monotonic time.
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}
