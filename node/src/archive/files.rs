//! The files of one table's archive.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::write_line;
use crate::core::Overflowed;

/// Numbered files, `TABLE.00000001.jsonl` and so on, of which the last one is written to.
///
/// They are their user's alone, as their directory is, and have `bytes_max` together, and a line more at most: before
/// they get more the oldest goes, but for what is tried again. Somebody else may take any of them away at any time.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    table: String,
    bytes_max: u64,
    last: Option<Last>,
    /// Those before it, by their numbers, with their sizes.
    older: VecDeque<(u64, u64)>,
    /// How many went for new ones since this was last asked.
    removed: u64,
    /// Whether what was to be written last was not, and nothing more goes for it.
    has_failed: bool,
}

/// The file that is written to.
#[derive(Debug)]
struct Last {
    file: File,
    number: u64,
    len: u64,
}

/// Of so many files one is written to, and the others are whole. The oldest goes as a whole.
const FILES: u64 = 8;
/// How much is handed to the system at a time.
const WRITE_BYTES: usize = 256 << 10;
/// Of how many digits their numbers are. No node lives to write as many as that is.
const DIGITS: RangeInclusive<usize> = 8..=18;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

impl Files {
    /// The files of a table in this directory. `table` is a part of their names as it is.
    pub(crate) fn new(directory: PathBuf, table: String, bytes_max: u64) -> Self {
        let (last, older) = (None, VecDeque::new());
        Self { directory, table, bytes_max, last, older, removed: 0, has_failed: false }
    }

    /// Appends sessions; they are on disk then.
    ///
    /// # Errors
    /// Whatever kept one of them from being written. What was written of them is taken back, if it can be: some may
    /// stay, or a part of one, whose line is ended before anything else is written. To write all of them again does no
    /// harm.
    pub(crate) fn append(&mut self, sessions: &[Overflowed]) -> io::Result<()> {
        let appended = self.open_and_append(sessions);
        self.has_failed = appended.is_err();
        if self.has_failed {
            self.last = None;
        }
        appended
    }

    /// How many files were removed for newer ones since this was last asked.
    pub(crate) fn take_removed(&mut self) -> u64 {
        std::mem::take(&mut self.removed)
    }

    fn open_and_append(&mut self, sessions: &[Overflowed]) -> io::Result<()> {
        if self.last.as_ref().is_none_or(|last| !self.is_there(last)) {
            self.open()?;
        }
        let Last { number, len, .. } = *self.last();
        self.append_all(sessions).inspect_err(|_| self.take_back(number, len))
    }

    /// Takes back what was written since this file, of this length, was the last one.
    fn take_back(&mut self, number: u64, len: u64) {
        let made = number + 1..=self.last().number;
        for made in made {
            let _ = fs::remove_file(self.path(made));
        }
        let file = OpenOptions::new().write(true).open(self.path(number));
        let _ = file.and_then(|file| file.set_len(len));
    }

    fn append_all(&mut self, sessions: &[Overflowed]) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut room = self.make_room()?;
        for session in sessions {
            let before = lines.len();
            write_line(session, &mut lines);
            if lines.len() as u64 > room && before > 0 {
                let line = lines.split_off(before);
                self.write(&lines)?;
                lines = line;
                room = self.make_room()?;
            }
            if lines.len() >= WRITE_BYTES {
                self.write(&lines)?;
                lines.clear();
                room = self.make_room()?;
            }
        }
        self.write(&lines)?;
        self.last().file.sync_data()
    }

    fn last(&mut self) -> &mut Last {
        self.last.as_mut().expect("it was opened before")
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let last = self.last();
        last.file.write_all(lines)?;
        last.len += lines.len() as u64;
        Ok(())
    }

    /// Goes on with a new file if the last one is full, and says how much there is room for in the last one.
    fn make_room(&mut self) -> io::Result<u64> {
        let part = self.bytes_max / FILES;
        let Last { number, len, .. } = *self.last();
        if len > 0 && len >= part {
            self.last().file.sync_data()?;
            self.last = Some(self.create(number + 1)?);
            self.older.push_back((number, len));
        }
        let len = self.last().len;
        let mut older: u64 = self.older.iter().map(|(_, len)| len).sum();
        while let Some((number, len)) = self.older.front().copied()
            && older > self.bytes_max.saturating_sub(part)
            && !self.has_failed
        {
            match fs::remove_file(self.path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.older.pop_front();
            self.removed += 1;
            older -= len;
        }
        Ok(part.saturating_sub(len))
    }

    /// Looks for the files that there are, and opens the last one, or makes the first.
    fn open(&mut self) -> io::Result<()> {
        self.last = None;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| self.number_of(name));
            if let Some(number) = number {
                // One that was just taken away has no size.
                found.push((number, entry.metadata().map_or(0, |it| it.len())));
            }
        }
        found.sort_unstable();
        self.older = found.into();
        self.last = Some(match self.older.pop_back() {
            Some((number, _)) => self.reopen(number)?,
            None => self.create(1)?,
        });
        Ok(())
    }

    fn create(&self, number: u64) -> io::Result<Last> {
        let mut options = OpenOptions::new();
        let options = options.append(true).create_new(true).mode(FILE_MODE);
        let file = options.open(self.path(number))?;
        // Its name is on disk, too.
        File::open(&self.directory)?.sync_all()?;
        Ok(Last { file, number, len: 0 })
    }

    /// Opens a file to go on with it. A line that was not ended is ended.
    fn reopen(&self, number: u64) -> io::Result<Last> {
        let mut file = OpenOptions::new().read(true).append(true).open(self.path(number))?;
        let mut len = file.metadata()?.len();
        if len > 0 {
            let mut end = [0];
            file.seek(SeekFrom::Start(len - 1))?;
            file.read_exact(&mut end)?;
            if end != *b"\n" {
                file.write_all(b"\n")?;
                len += 1;
            }
        }
        Ok(Last { file, number, len })
    }

    /// Whether the last file is still where it was made.
    fn is_there(&self, last: &Last) -> bool {
        let identity = |it: fs::Metadata| (it.dev(), it.ino());
        let there = fs::metadata(self.path(last.number)).map(identity);
        there.is_ok_and(|there| last.file.metadata().map(identity).is_ok_and(|it| it == there))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{}.{number:08}.jsonl", self.table))
    }

    fn number_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.table)?.strip_prefix('.')?.strip_suffix(".jsonl")?;
        let is_number =
            DIGITS.contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    }
}

#[cfg(test)]
mod tests;
