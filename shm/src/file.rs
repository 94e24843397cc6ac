//! Segments as files: made whole or not at all, locked for life, set aside when they are not ours to read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::header::{self, OpenError};
use crate::layout::{Geometry, PAGE, Shape, TableOptions};
use crate::region::{
    FileRegion, HUGE_PAGE, Region, ReserveError, allocate, allocated_bytes, free_bytes,
};
use crate::shards::{
    Shards, carry_shards, create_shards, look_for_entries, open_shards, retire_shards,
    withdraw_shards,
};
use crate::words::Mapped;
use crate::writer::{CreateError, Recovery, Writer};

/// A table opened by [`open_or_create`].
pub struct Opened {
    /// The writers of its shards, in their order. They may go to different threads; the file is locked until all of
    /// them are dropped, and the region too.
    pub writers: Vec<Writer>,
    /// The whole segment's memory.
    pub region: Arc<dyn Region>,
    /// What was found in all shards, if the segment existed.
    pub recovery: Option<Recovery>,
    /// What a segment of another size, shape or number of shards held, which is now in a new one.
    pub carried: Option<Carried>,
    /// Where a segment that could not be used was moved to, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

/// What became of the entries of a segment that was replaced by one of another size, shape or number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// How the old segment was laid out.
    pub from: Shape,
    /// Entries that are in the new one.
    pub entries: usize,
    /// Records that were dropped because they did not match their checksum.
    pub damaged: usize,
}

/// Why a segment's file cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system has no room for the segment. Nothing was left behind.
    #[error("no room for {path}: it needs {needed} bytes, {free} are free; make segment_bytes smaller or the file \
             system larger{}", set_aside_note(.set_aside.as_deref()))]
    NoSpace {
        /// The segment's file.
        path: PathBuf,
        /// What was to be reserved: its size, or less if a part of it is there.
        needed: u64,
        /// Bytes free in its file system.
        free: u64,
        /// A segment set aside just now, which still takes its space.
        set_aside: Option<PathBuf>,
    },
    /// The file system has no room for a segment of the new size beside the old one, whose entries are to be carried
    /// over. The old one is as it was.
    #[error(
        "no room to carry {path} over: beside it the new segment needs {needed} bytes, {free} are free; make the \
             file system larger, keep the size and shards it has, or remove the file to begin with an empty table"
    )]
    NoSpaceToCarry {
        /// The segment's file.
        path: PathBuf,
        /// Size of the new segment.
        needed: u64,
        /// Bytes free in its file system.
        free: u64,
    },
    /// Some entries of the old segment have no room in one of the new size, or are too long for it. The old one is as
    /// it was.
    #[error(
        "{path} holds {entries} entries, of which {left_out} have no room in {needed} bytes; make segment_bytes or \
             max_value larger, or take fewer shards, or remove the file to begin with an empty table"
    )]
    DoesNotFit {
        /// The segment's file.
        path: PathBuf,
        /// Entries it holds.
        entries: usize,
        /// Those that found no room.
        left_out: usize,
        /// Size of the new segment.
        needed: u64,
    },
    /// Another process writes the segment.
    #[error("{path} is in use by another writer: {owner}")]
    Locked {
        /// The segment's file.
        path: PathBuf,
        /// What the other one says about itself.
        owner: String,
    },
    /// The options describe no table.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// Why a reader cannot attach to a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The file cannot be opened or mapped.
    #[error("cannot open {path}: {source}")]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no segment that this version can read.
    #[error("cannot read {path}: {source}")]
    Segment {
        /// The segment's file.
        path: PathBuf,
        /// What is wrong with it.
        source: OpenError,
    },
}

/// Opens the segment at `path` for writing, or makes one.
///
/// The file is locked until the writers are dropped. If the options ask for another size or shape than the segment has,
/// a new one takes its place, with all of its entries but near copies, or the old one is left as it is; both need memory
/// for that moment. A segment of another version, a damaged or a retired one, and a file that is none, are renamed to
/// `path.aside.N` (never read further, never deleted; remove them when you have looked), and a new one is made. All
/// memory is reserved here: a full file system is an error now and not a signal later. New files have mode 0640 less
/// the umask.
///
/// # Errors
///
/// Another process writes the segment, there is no room, or a call failed.
pub fn open_or_create(path: impl AsRef<Path>, options: &TableOptions) -> Result<Opened, FileError> {
    open(path.as_ref(), options, Reserve::All)
}

/// As [`open_or_create`], for a table that may never be used: as long as it holds nothing, memory is reserved for its
/// headers and its index alone, and the rest by [`Region::reserve`], before which writers refuse to put anything
/// ([`PutError::Unreserved`](crate::PutError::Unreserved)). Readers may attach meanwhile, and find nothing.
///
/// In a file system that is not in memory all is reserved here, as it is of a segment that was reserved before.
///
/// # Errors
///
/// As for [`open_or_create`].
pub fn open_or_create_unreserved(
    path: impl AsRef<Path>,
    options: &TableOptions,
) -> Result<Opened, FileError> {
    open(path.as_ref(), options, Reserve::Index)
}

/// How much of a segment is to have memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserve {
    All,
    /// What readers look at of an empty table.
    Index,
}

fn open(path: &Path, options: &TableOptions, reserve: Reserve) -> Result<Opened, FileError> {
    Geometry::plan(options).map_err(CreateError::from)?; // Before anything is touched.
    let mut set_aside = None;
    loop {
        let fail = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
        let file = open_file(path).map_err(fail("open"))?;
        if !lock(&file).map_err(fail("lock"))? {
            return Err(FileError::Locked { path: path.to_owned(), owner: owner_of(path) });
        }
        if !same_file(&file, path).map_err(fail("examine"))? {
            continue; // Somebody set it aside between our opening and our locking.
        }
        // What a crash left there was never in use: whoever fills it holds the lock of `path`.
        match fs::remove_file(fresh_path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail("remove an unfinished copy of")(error));
            }
            _ => {}
        }
        let size = file.metadata().map_err(fail("examine"))?.len();
        if size == 0 {
            // Ours just now, or left by a killed process that was about to put a segment here.
            let made = replace(path, None, options, reserve);
            if made.is_err() {
                drop(fs::remove_file(path));
            }
            return match made {
                Ok(Fresh { writers, region, .. }) => {
                    Ok(Opened { writers, region, recovery: None, carried: None, set_aside })
                }
                Err(FileError::NoSpace { path, needed, free, .. }) => {
                    let set_aside = set_aside.map(|(aside, _)| aside);
                    Err(FileError::NoSpace { path, needed, free, set_aside })
                }
                Err(error) => Err(error),
            };
        }
        let mapped = map(&file).map_err(fail("map"))?;
        let region: Arc<dyn Region> = mapped.clone();
        if size >= PAGE && !is_whole(&file).map_err(fail("examine"))? {
            see_to_the_rest(&mapped, path, options, reserve)?;
        }
        let opened = match size {
            // Not even whole words, perhaps.
            0..PAGE => Err(OpenError::Truncated { found: size, expected: PAGE }),
            _ => open_shards(&region, options),
        };
        let why = match opened {
            Ok((writers, recovery)) => {
                let recovery = Some(recovery);
                return Ok(Opened { writers, region, recovery, carried: None, set_aside });
            }
            Err(OpenError::OtherLayout { .. }) => {
                let fresh = replace(path, Some(&region), options, reserve)?;
                let Fresh { writers, region, carried } = fresh;
                let (recovery, carried) = carried.unzip();
                return Ok(Opened { writers, region, recovery, carried, set_aside });
            }
            Err(why) => why,
        };
        retire_shards(&region);
        set_aside = Some((rename_aside(path)?, why.to_string()));
    }
}

/// Reserves what an existing segment has no memory for, or notes that it has none.
///
/// Nobody looks beyond the index of a table that holds nothing. Where there are entries all the same, somebody else has
/// cut holes into the file: these get memory before anything is read.
fn see_to_the_rest(
    region: &Arc<FileRegion>,
    path: &Path,
    options: &TableOptions,
    reserve: Reserve,
) -> Result<(), FileError> {
    let as_region: Arc<dyn Region> = region.clone();
    let Some((geometry, is_empty)) = look_for_entries(&as_region) else { return Ok(()) };
    if is_empty {
        let parts = parts_of(&geometry).into_iter();
        region.lacks(parts.map(|part| part.entries).collect());
    }
    // A table of another shape is read, and not written.
    let is_left = reserve == Reserve::Index || Geometry::plan(options) != Ok(geometry);
    let reserved = match is_empty {
        true if is_left => Ok(()),
        true => region.reserve(),
        false => region.fill(slice::from_ref(&(0..geometry.shape.segment_bytes))),
    };
    reserved.map_err(|error| match error {
        ReserveError::NoSpace { needed, free } => {
            FileError::NoSpace { path: path.to_owned(), needed, free, set_aside: None }
        }
        ReserveError::Io(source) => {
            FileError::Io { action: "reserve the rest of", path: path.to_owned(), source }
        }
    })
}

/// What readers look at of a shard that holds nothing, and the rest, in bytes of the segment.
struct Parts {
    index: Range<u64>,
    entries: Range<u64>,
}

fn parts_of(geometry: &Geometry) -> Vec<Parts> {
    let page = rustix::param::page_size() as u64;
    let part = |shard| {
        let from = u64::from(shard) * geometry.shard_bytes();
        let to = from + geometry.shard_bytes();
        let entries = (from + geometry.records as u64 * 8).next_multiple_of(page).min(to);
        Parts { index: from..entries, entries: entries..to }
    };
    (0..geometry.shape.shards).map(part).collect()
}

/// A segment that was made just now.
struct Fresh {
    writers: Vec<Writer>,
    region: Arc<dyn Region>,
    /// What the one before it held.
    carried: Option<(Recovery, Carried)>,
}

/// Puts a new segment into a locked file's place, with the entries of the `old` one that is there if there is one.
///
/// The new one is filled under another name and takes its own by one rename, so that a crash leaves what was there, or
/// all of the new one. Only then are the old one's readers told to leave.
fn replace(
    path: &Path,
    old: Option<&Arc<dyn Region>>,
    options: &TableOptions,
    reserve: Reserve,
) -> Result<Fresh, FileError> {
    let fail = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
    let fresh = fresh_path(path);
    let fill = || {
        let geometry = Geometry::plan(options).map_err(CreateError::from)?;
        let needed = geometry.shape.segment_bytes;
        let file = open_file(&fresh).map_err(fail("make a new file for"))?;
        if !lock(&file).map_err(fail("lock a new file for"))? {
            let owner = "what is to take its place is".to_owned();
            return Err(FileError::Locked { path: path.to_owned(), owner });
        }
        // Where there may be something to carry over there has to be room for it.
        let holds_nothing = old.is_none_or(|old| !old.is_reserved());
        let parts = match reserve == Reserve::Index && holds_nothing && is_in_memory(&file) {
            true => parts_of(&geometry),
            false => Vec::new(),
        };
        if let Err(source) = file.set_len(0).and_then(|()| give_memory(&file, needed, &parts)) {
            let (path, free) = (path.to_owned(), free_bytes(&file));
            return Err(match (Errno::from_io_error(&source), old) {
                (Some(Errno::NOSPC | Errno::FBIG), Some(_)) => {
                    FileError::NoSpaceToCarry { path, needed, free }
                }
                (Some(Errno::NOSPC | Errno::FBIG), None) => {
                    FileError::NoSpace { path, needed, free, set_aside: None }
                }
                _ => fail("reserve")(source),
            });
        }
        let mapped = map(&file).map_err(fail("map"))?;
        mapped.lacks(parts.into_iter().map(|part| part.entries).collect());
        let region: Arc<dyn Region> = mapped;
        let mut writers = create_shards(&region, options)?;
        let carried = match old {
            Some(old) => Some(carry_over(path, old, &mut writers, needed)?),
            None => None,
        };
        // From now on the old one is asked in vain: nothing is served from both.
        old.into_iter().for_each(withdraw_shards);
        fs::rename(&fresh, path).map_err(fail("replace"))?;
        Ok(Fresh { writers, region, carried })
    };
    let filled = fill();
    match (&filled, old) {
        (Ok(_), Some(old)) => retire_shards(old),
        (Ok(_), None) => {}
        (Err(_), _) => drop(fs::remove_file(&fresh)),
    }
    filled
}

/// Copies the entries of a segment of another size or shape into a new one of `needed` bytes, if all have room.
fn carry_over(
    path: &Path,
    old: &Arc<dyn Region>,
    writers: &mut [Writer],
    needed: u64,
) -> Result<(Recovery, Carried), FileError> {
    let path = || path.to_owned();
    let carried = carry_shards(old, writers).map_err(|why| {
        let source = io::Error::other(why); // Somebody writes there, just now.
        FileError::Io { action: "carry over", path: path(), source }
    });
    match carried? {
        (recovery, carried, 0) => Ok((recovery, carried)),
        (_, carried, left_out) => {
            let entries = carried.entries + left_out;
            Err(FileError::DoesNotFit { path: path(), entries, left_out, needed })
        }
    }
}

/// Where a segment is filled before it takes its place. The sign is one that table names do not have, so that this
/// is no other table's segment.
fn fresh_path(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("~new");
    fresh.into()
}

/// See [`Shards::attach_file`].
pub(crate) fn attach(path: &Path, partition_of: fn(&[u8]) -> u16) -> Result<Shards, AttachError> {
    let io = |source| AttachError::Io { path: path.to_owned(), source };
    let segment = |source| AttachError::Segment { path: path.to_owned(), source };
    let file = open_for_reading(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size < PAGE {
        return Err(segment(OpenError::Truncated { found: size, expected: PAGE }));
    }
    let region = FileRegion::map_read_only(file).map_err(io)?;
    Shards::attach(Arc::new(region), partition_of).map_err(segment)
}

/// The path may come from another process: a pipe must not block, nor a link lead elsewhere.
fn open_for_reading(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)
}

/// Whether we got the lock, which belongs to the open file and goes with it.
fn lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn map(file: &File) -> io::Result<Arc<FileRegion>> {
    Ok(Arc::new(FileRegion::map_writable(file.try_clone()?)?))
}

fn rename_aside(path: &Path) -> Result<PathBuf, FileError> {
    let mut number = 1;
    loop {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".aside.{number}"));
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            path,
            rustix::fs::CWD,
            &aside,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => return Ok(aside.into()),
            Err(Errno::EXIST) => number += 1,
            Err(error) => {
                return Err(FileError::Io {
                    action: "set aside",
                    path: path.to_owned(),
                    source: error.into(),
                });
            }
        }
    }
}

/// Gives an empty file its size, and memory: all of it, or for the index in each of these parts.
fn give_memory(file: &File, size: u64, parts: &[Parts]) -> io::Result<()> {
    let of_indexes = parts.iter().map(|part| part.index.end - part.index.start);
    let needed = if parts.is_empty() { size } else { of_indexes.sum() };
    if free_bytes(file) < needed {
        return Err(Errno::NOSPC.into()); // Without filling what is left.
    }
    if !parts.is_empty() {
        file.set_len(size)?;
        return parts.iter().try_for_each(|part| allocate(file, &part.index));
    }
    if is_in_memory(file) && size >= HUGE_PAGE as u64 {
        file.set_len(size)?;
        let region = FileRegion::map_writable(file.try_clone()?)?;
        return region.reserve_parts(slice::from_ref(&(0..size)));
    }
    match allocate(file, &(0..size)) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
            let zeros = vec![0; 1 << 16];
            let mut left = size;
            while left > 0 {
                let now = left.min(zeros.len() as u64);
                (&*file).write_all(&zeros[..now as usize])?;
                left -= now;
            }
            Ok(())
        }
        other => other,
    }
}

fn is_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type == libc::TMPFS_MAGIC)
}

/// Whether all of a segment has memory, or space on a disk, as it has everywhere but in a file system in memory. There
/// what a file takes tells exactly.
fn is_whole(file: &File) -> io::Result<bool> {
    Ok(!is_in_memory(file) || allocated_bytes(file)? >= file.metadata()?.len())
}

/// What the writer of a locked segment says about itself.
fn owner_of(path: &Path) -> String {
    let note = open_for_reading(path).and_then(FileRegion::map_read_only).ok().and_then(|region| {
        let words = Mapped::new(Arc::new(region));
        header::is_ours(&words).then(|| header::owner_note(&words))
    });
    note.filter(|note| !note.is_empty()).unwrap_or_else(|| "it left no note".to_owned())
}

fn set_aside_note(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| {
        format!("; {} was set aside and still takes its space", path.display())
    })
}
