//! The plain thread that writes down what leaves the tables, or gives it to the application. No core waits for it: each
//! gives it one batch of each table at a time, and is told what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use super::host::file_part;
use super::inboxes::Inboxes;
use super::settings::TableSettings;
use super::tally::Tally;
use crate::archive::Files;
use crate::core::{Input, Overflow, OverflowTaker, Overflowed};

/// What a core gives it.
pub(super) struct Batch {
    pub(super) core: usize,
    pub(super) table: usize,
    pub(super) sessions: Arc<[Overflowed]>,
}

/// The thread's part of it.
struct Archivist {
    /// By the place of each table.
    names: Vec<String>,
    goals: Vec<Goal>,
    files: BTreeMap<String, Files>,
    /// Of the batches that were given in part, by core and table: how many sessions were.
    given: BTreeMap<(usize, usize), usize>,
    /// The tables that the last batch of was not taken.
    failing: BTreeSet<usize>,
    inboxes: Inboxes,
    tally: Arc<Tally>,
}

/// Where what leaves a table goes.
enum Goal {
    Nowhere,
    /// To the files of this name.
    Files(String),
    Taker(OverflowTaker),
}

/// Starts the thread, if there is something for it to do. It ends when the sender is dropped.
///
/// # Errors
/// Whatever kept it from being started.
pub(super) fn start(
    tables: &[TableSettings],
    directory: Option<PathBuf>,
    cores: usize,
    inboxes: &Inboxes,
    tally: &Arc<Tally>,
) -> io::Result<Option<Sender<Batch>>> {
    let mut files = BTreeMap::new();
    let mut goals: Vec<Goal> = Vec::new();
    let mut innermost = None;
    for table in tables {
        if table.policy.ring == 0 {
            innermost = Some(table);
        }
        let of = innermost.unwrap_or(table);
        goals.push(match (&of.policy.overflow, &directory) {
            (Overflow::Archive, Some(directory)) => {
                let name = file_part(&of.policy.name);
                let directory = directory.clone();
                let made = || Files::new(directory, name.clone(), of.archive_max);
                files.entry(name.clone()).or_insert_with(made);
                Goal::Files(name)
            }
            (Overflow::Give(taker), _) => Goal::Taker(taker.clone()),
            _ => Goal::Nowhere,
        });
    }
    if goals.iter().all(|goal| matches!(goal, Goal::Nowhere)) {
        return Ok(None);
    }
    // Each core has one batch of each table under way.
    let (batches, inbox) = crossbeam_channel::bounded(cores * tables.len());
    let archivist = Archivist {
        names: tables.iter().map(|table| table.policy.name.clone()).collect(),
        goals,
        files,
        given: BTreeMap::new(),
        failing: BTreeSet::new(),
        inboxes: inboxes.clone(),
        tally: tally.clone(),
    };
    let run = move || archivist.run(&inbox);
    thread::Builder::new().name("annulus-archive".to_owned()).spawn(run)?;
    Ok(Some(batches))
}

impl Archivist {
    fn run(mut self, inbox: &Receiver<Batch>) {
        for Batch { core, table, sessions } in inbox {
            let taken = self.take((core, table), &sessions);
            self.tell(table, &taken);
            let is_taken = taken.is_ok();
            if self.inboxes.tell_core(core, Input::Overflowed { table, is_taken }).is_err() {
                return;
            }
        }
    }

    fn take(&mut self, from: (usize, usize), sessions: &[Overflowed]) -> io::Result<()> {
        match &self.goals[from.1] {
            Goal::Nowhere => Err(io::Error::other("there is no place for it")),
            Goal::Files(name) => {
                let files = self.files.get_mut(name).expect("each goal has its files");
                let appended = files.append(sessions);
                let removed = files.take_removed();
                for _ in 0..removed {
                    self.tally.add("archive_files_removed");
                }
                if removed > 0 {
                    tracing::warn!(
                        table = name,
                        removed,
                        "the archive is full, and its oldest files went; raise archive_max, or take \
                         files away before"
                    );
                }
                appended
            }
            Goal::Taker(taker) => {
                let given = self.given.remove(&from).unwrap_or(0);
                for (number, session) in sessions.iter().enumerate().skip(given) {
                    // Nothing of the node is seen by it.
                    let taken = catch_unwind(AssertUnwindSafe(|| taker.take(session)));
                    let why = match taken {
                        Ok(true) => continue,
                        Ok(false) => "the application does not take it",
                        Err(_) => "the application panicked",
                    };
                    self.given.insert(from, number);
                    return Err(io::Error::other(why));
                }
                Ok(())
            }
        }
    }

    /// Says when it begins to fail, and when it works again.
    fn tell(&mut self, table: usize, taken: &io::Result<()>) {
        let name = &self.names[table];
        match taken {
            Err(error) => {
                if self.failing.insert(table) {
                    let check = match self.goals[table] {
                        Goal::Files(_) => " Check data_dir/archive",
                        Goal::Nowhere | Goal::Taker(_) => "",
                    };
                    tracing::error!(
                        %error,
                        table = name,
                        "what leaves a table cannot be written; it stays there while there is room.{check}"
                    );
                }
            }
            Ok(()) => {
                if self.failing.remove(&table) {
                    tracing::info!(table = name, "what leaves a table is written again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
