//! Segments as files: made whole or not at all, locked for life, set aside when they are not ours to read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::header::{self, OpenError};
use crate::layout::{Geometry, PAGE, Shape, TableOptions, word};
use crate::reader::Reader;
use crate::region::{FileRegion, Region};
use crate::words::{Mapped, Words};
use crate::writer::{CreateError, Recovery, Writer};

/// A table opened by [`open_or_create`].
pub struct Opened {
    /// Its writer, which holds the file's lock.
    pub writer: Writer,
    /// What was found, if the segment existed.
    pub recovery: Option<Recovery>,
    /// What a segment of another size or shape held, which is now in a new one.
    pub carried: Option<Carried>,
    /// Where a segment that could not be used was moved to, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

/// What became of the entries of a segment that was replaced by one of another size or shape.
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
        /// Its size.
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
             file system larger, keep the size it has, or remove the file to begin with an empty table"
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
             max_value larger, or remove the file to begin with an empty table"
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
/// The file is locked until the writer is dropped. If the options ask for another size or shape than the segment has,
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
    let path = path.as_ref();
    let geometry = Geometry::plan(options).map_err(CreateError::from)?;
    let mut set_aside = None;
    loop {
        let fail = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
        let (file, made) = open_file(path).map_err(fail("open"))?;
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
        if !made && size >= PAGE {
            let words = Mapped::new(map(&file).map_err(fail("map"))?);
            if !is_unfinished(&words) {
                match Writer::open(words.region().clone(), options) {
                    Ok((writer, recovery)) => {
                        let recovery = Some(recovery);
                        return Ok(Opened { writer, recovery, carried: None, set_aside });
                    }
                    Err(OpenError::OtherLayout { .. }) => {
                        let (writer, recovery, carried) = carry_over(path, &words, options)?;
                        let (recovery, carried) = (Some(recovery), Some(carried));
                        return Ok(Opened { writer, recovery, carried, set_aside });
                    }
                    Err(why) => {
                        if header::is_ours(&words) {
                            header::retire(&words);
                        }
                        set_aside = Some((rename_aside(path)?, why.to_string()));
                    }
                }
                continue;
            }
        } else if !made && size > 0 {
            set_aside = Some((
                rename_aside(path)?,
                OpenError::Truncated { found: size, expected: PAGE }.to_string(),
            ));
            continue;
        }
        // A new file, or one whose creation was not finished: nobody can have attached to it.
        return match create(path, &file, &geometry, options) {
            Ok(writer) => Ok(Opened { writer, recovery: None, carried: None, set_aside }),
            Err(FileError::NoSpace { path, needed, free, .. }) => {
                let set_aside = set_aside.map(|(aside, _)| aside);
                Err(FileError::NoSpace { path, needed, free, set_aside })
            }
            Err(error) => Err(error),
        };
    }
}

/// Makes a segment in a locked file, which is removed if that fails.
fn create(
    path: &Path,
    file: &File,
    geometry: &Geometry,
    options: &TableOptions,
) -> Result<Writer, FileError> {
    let fail = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
    let needed = geometry.shape.segment_bytes;
    if let Err(source) = file.set_len(0).and_then(|()| reserve(file, needed)) {
        let free = free_bytes(file);
        drop(fs::remove_file(path));
        return Err(match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::FBIG) => {
                FileError::NoSpace { path: path.to_owned(), needed, free, set_aside: None }
            }
            _ => fail("reserve")(source),
        });
    }
    Ok(Writer::create(map(file).map_err(fail("map"))?, options)?)
}

/// Replaces a locked segment of another size or shape by a new one with its entries.
///
/// The new one is filled under another name and takes the old one's by one rename, so that a crash leaves one of them
/// whole. Only then are the old one's readers told to leave.
fn carry_over(
    path: &Path,
    old: &Mapped,
    options: &TableOptions,
) -> Result<(Writer, Recovery, Carried), FileError> {
    let fail = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
    let fresh = fresh_path(path);
    let geometry = Geometry::plan(options).map_err(CreateError::from)?;
    let (file, _) = open_file(&fresh).map_err(fail("copy"))?;
    lock(&file).map_err(fail("lock a copy of"))?;
    let mut writer = match create(&fresh, &file, &geometry, options) {
        Err(FileError::NoSpace { needed, free, .. }) => {
            return Err(FileError::NoSpaceToCarry { path: path.to_owned(), needed, free });
        }
        made => made?,
    };
    let (from, recovery, damaged, left_out) = match writer.take_over(old) {
        Ok(taken) => taken,
        Err(why) => {
            drop(fs::remove_file(&fresh));
            return Err(fail("carry over")(io::Error::other(why)));
        }
    };
    let entries = writer.stats().entries;
    if left_out > 0 {
        drop(fs::remove_file(&fresh));
        let (path, needed) = (path.to_owned(), geometry.shape.segment_bytes);
        return Err(FileError::DoesNotFit { path, entries: entries + left_out, left_out, needed });
    }
    fs::rename(&fresh, path).map_err(fail("replace"))?;
    header::retire(old);
    let carried = Carried { from, entries, damaged };
    Ok((writer, recovery, carried))
}

/// Where the segment is filled that takes another's place. The sign is one that table names do not have, so that this
/// is no other table's segment.
fn fresh_path(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("~new");
    fresh.into()
}

/// See [`Reader::attach_file`].
pub(crate) fn attach(path: &Path) -> Result<Reader, AttachError> {
    let io = |source| AttachError::Io { path: path.to_owned(), source };
    let segment = |source| AttachError::Segment { path: path.to_owned(), source };
    let file = open_for_reading(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size < PAGE {
        return Err(segment(OpenError::Truncated { found: size, expected: PAGE }));
    }
    let region = FileRegion::map_read_only(file).map_err(io)?;
    Reader::attach(Arc::new(region)).map_err(segment)
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

fn open_file(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o640);
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((options.open(path)?, false))
        }
        Err(error) => Err(error),
    }
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

fn map(file: &File) -> io::Result<Arc<dyn Region>> {
    Ok(Arc::new(FileRegion::map_writable(file.try_clone()?)?))
}

/// Whether this is what a killed `open_or_create` leaves: no magic, and nothing at all behind the first page.
fn is_unfinished(words: &Mapped) -> bool {
    words.load(word!(magic)) == 0
        && (PAGE as usize / 8..words.count()).all(|at| words.load(at) == 0)
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

/// Gives the file its size and its memory.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    if free_bytes(file) < size {
        return Err(Errno::NOSPC.into()); // Without filling what is left.
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP) => {
            let zeros = vec![0; 1 << 16];
            let mut left = size;
            while left > 0 {
                let now = left.min(zeros.len() as u64);
                (&*file).write_all(&zeros[..now as usize])?;
                left -= now;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

fn free_bytes(file: &File) -> u64 {
    rustix::fs::fstatvfs(file).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
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
