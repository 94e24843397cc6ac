//! The file of what cores keep, by redb: records by name, changed in batches that are there whole or not.
//!
//! A file that cannot be read is set aside, and a new one is made: the node starts whatever is in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};

use super::{Kept, KeptChange, KeptRecord, SECRET_MODE};

/// A file of records, open or not.
pub(super) struct RecordFile {
    path: PathBuf,
    open: Option<Database>,
}

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// What redb may hold of the file in memory: more than is in use at a time. It would take a gigabyte.
const CACHE_BYTES: usize = 8 << 20;
/// How many files may have been set aside.
const ASIDE_MAX: u32 = 1_000;

/// Why a file is not open.
enum Trouble {
    /// It is none of ours, or not as we left it.
    Damaged(String),
    /// The system did not let us.
    Io(io::Error),
}

impl RecordFile {
    /// A file that is not open yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Opens the file, or makes it, and reads all of it.
    pub(super) fn open(&mut self) -> Kept {
        let mut set_aside = None;
        loop {
            let opened = guarded(|| {
                let database = open(&self.path)?;
                let records = read(&database)?;
                Ok((database, records))
            });
            match opened {
                Ok((database, records)) => {
                    self.open = Some(database);
                    return Kept { records, set_aside, failed: None };
                }
                Err(Trouble::Damaged(why)) if set_aside.is_none() => match aside(&self.path) {
                    Ok(path) => set_aside = Some((path, why)),
                    Err(error) => {
                        return Kept { failed: Some(error), ..Kept::default() };
                    }
                },
                Err(trouble) => {
                    let failed = Some(trouble.into());
                    return Kept { set_aside, failed, ..Kept::default() };
                }
            }
        }
    }

    /// Makes changes in their order, all of them or none; they are on disk when this returns.
    ///
    /// # Errors
    /// Whatever the system reports. Then it is not known whether they are on disk; the next call opens the
    /// file anew.
    pub(super) fn write(&mut self, changes: &[KeptChange]) -> io::Result<()> {
        let database = self.open.take();
        let written = guarded(|| {
            let database = match database {
                Some(database) => database,
                None => open(&self.path)?,
            };
            write(&database, changes)?;
            Ok(database)
        });
        self.open = Some(written.map_err(io::Error::from)?);
        Ok(())
    }
}

impl Drop for RecordFile {
    fn drop(&mut self) {
        let open = self.open.take();
        let _ = guarded(|| {
            drop(open);
            Ok(())
        });
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(SECRET_MODE);
    let file = options.open(path)?;
    let mut builder = Builder::new();
    let builder = builder.set_cache_size(CACHE_BYTES);
    let database = builder.create_with_backend(FileBackend::new(file)?)?;
    if let Err(TableError::TableDoesNotExist(_)) = database.begin_read()?.open_table(RECORDS) {
        let changing = database.begin_write()?;
        changing.open_table(RECORDS)?;
        changing.commit()?;
        // Its name has to outlive a loss of power, too.
        File::open(super::directory_of(path))?.sync_all()?;
    }
    Ok(database)
}

fn read(database: &Database) -> Result<Vec<KeptRecord>, redb::Error> {
    let mut records = Vec::new();
    for record in database.begin_read()?.open_table(RECORDS)?.iter()? {
        let (name, value) = record?;
        records.push((name.value().to_vec(), value.value().to_vec()));
    }
    Ok(records)
}

fn write(database: &Database, changes: &[KeptChange]) -> Result<(), redb::Error> {
    let changing = database.begin_write()?;
    {
        let mut records = changing.open_table(RECORDS)?;
        for (name, value) in changes {
            match value {
                Some(value) => drop(records.insert(name.as_slice(), value.as_slice())?),
                None => drop(records.remove(name.as_slice())?),
            }
        }
    }
    changing.commit()?;
    Ok(())
}

/// Does something with the file. That a damaged one makes redb panic has happened to others: it is damaged
/// then, and this node goes on.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(Trouble::from),
        Err(_) => Err(Trouble::Damaged("reading it leads nowhere".to_owned())),
    }
}

/// Gives the file another name.
fn aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=ASIDE_MAX {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".aside.{number}"));
        let aside = PathBuf::from(aside);
        if !aside.try_exists()? {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other(format!("{ASIDE_MAX} files were set aside; remove them")))
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            redb::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
                Self::Io(error)
            }
            redb::Error::DatabaseAlreadyOpen => Self::Io(io::ErrorKind::WouldBlock.into()),
            redb::Error::Io(_)
            | redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => Self::Damaged(error.to_string()),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Damaged(why) => Self::new(io::ErrorKind::InvalidData, why),
            Trouble::Io(error) => error,
        }
    }
}

#[cfg(test)]
mod tests;
