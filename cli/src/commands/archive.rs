//! `annulus archive`: sessions that left their tables, in files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use annulus_client::{Error, Key, StartOptions, SuspectName, Table, Value, Version};
use annulus_node::Overflowed;
use annulus_node::archive::{LineError, Lines};
use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::{ArchiveListArgs, Global, RestoreArgs};
use crate::cluster::Cluster;
use crate::exit::{ABSENT, Failed, REFUSED};
use crate::output::{self, Rows};

/// How many sessions are begun at a time.
const CONCURRENCY: usize = 16;
/// How many sessions are listed below one line of headings, and held in memory for that.
const PAGE: usize = 1_000;
/// How many lines that are none are told of one by one, of all files together.
const TOLD_MAX: usize = 20;

/// Lists what files hold. Asks no node, and shows no key and no value.
pub(crate) fn list(global: &Global, args: &ArchiveListArgs) -> anyhow::Result<()> {
    let headings = ["NAME", "TABLE", "WHY", "OWNER", ">SIZE", ">LAST USE", ">BORN"];
    let (mut rows, mut count) = (Rows::new(&headings), 0);
    let mut unreadable = Unreadable::default();
    let now_ms = output::now_ms();
    for path in &args.files {
        for session in unreadable.passed_by(path)? {
            let (_, session) = session?;
            if global.json {
                output::json(&document(&session))?;
                continue;
            }
            rows.push([
                name_of(&session),
                output::show_bytes(session.table.as_bytes()),
                session.why.name().to_owned(),
                match session.owner.is_empty() {
                    true => "-".to_owned(),
                    false => output::show_bytes(&session.owner),
                },
                output::bytes(session.value.size() as u64),
                output::since(session.touched_ms, now_ms),
                output::since(session.birth.hlc.ms(), now_ms),
            ]);
            count += 1;
            if count == PAGE {
                rows.print()?;
                (rows, count) = (Rows::new(&headings), 0);
            }
        }
    }
    if !global.json && count > 0 {
        rows.print()?;
    }
    unreadable.sum_up();
    Ok(())
}

/// Begins sessions again that files hold.
pub(crate) async fn restore(cluster: &Cluster, args: &RestoreArgs) -> anyhow::Result<()> {
    let meant = args.key.as_deref().map(OsStr::as_bytes);
    if let Some(key) = meant {
        Key::new(key).map_err(Error::from)?;
    }
    let mut unreadable = Unreadable::default();
    let table = cluster.table.name();
    let (latest, of_others) = latest(&args.files, (table, meant), &mut unreadable)?;
    unreadable.sum_up();
    if latest.is_empty() && meant.is_some() {
        let why = format!("no session of table {table:?} with this key is in there");
        return Err(Failed { code: ABSENT, why }.into());
    }
    let mut done = Done::default();
    let mut starts = JoinSet::new();
    let files: BTreeSet<usize> = latest.values().map(|latest| latest.place.file).collect();
    for file in files {
        let path = &args.files[file];
        for line in lines(path)? {
            let (line, session) = line.with_context(|| reading(path))?;
            let Ok(session) = session else { continue };
            // The file may be another one by now.
            let found = Latest::of(&session, Place { file, line });
            if session.table != table || latest.get(&session.key) != Some(&found) {
                continue;
            }
            while starts.len() >= CONCURRENCY {
                done.note(starts.join_next().await)?;
            }
            let of = cluster.table.clone();
            starts.spawn(async move { begin_again(&of, session).await });
        }
    }
    while !starts.is_empty() {
        done.note(starts.join_next().await)?;
    }
    done.tell(cluster, of_others, unreadable.count)
}

/// Of each session of a table, or of the one that is meant, the latest that files hold, and where it stands; and how many
/// of other tables they hold.
fn latest(
    files: &[PathBuf],
    (table, meant): (&str, Option<&[u8]>),
    unreadable: &mut Unreadable,
) -> anyhow::Result<(BTreeMap<Key, Latest>, u64)> {
    let mut latest = BTreeMap::new();
    let mut of_others = 0;
    for (file, path) in files.iter().enumerate() {
        for session in unreadable.passed_by(path)? {
            let (line, session) = session?;
            if session.table != table {
                of_others += 1;
                continue;
            }
            if meant.is_some_and(|key| key != session.key.as_bytes()) {
                continue;
            }
            let found = Latest::of(&session, Place { file, line });
            let known = latest.entry(session.key).or_insert(found);
            if (found.birth, found.version) > (known.birth, known.version) {
                *known = found;
            }
        }
    }
    Ok((latest, of_others))
}

/// Begins a session again, unless one lives under its key or has ended.
async fn begin_again(table: &Table, session: Overflowed) -> Result<Begun, Error> {
    let key = session.key.as_bytes();
    match table.fetch(key).await {
        // It may be used too much, and lives then.
        Ok(_) | Err(Error::SlowDown { .. }) => return Ok(Begun::Lives),
        Err(Error::Ended) => return Ok(Begun::HasEnded),
        Err(Error::Absent | Error::Expired) => {}
        Err(error) => return Err(error),
    }
    let Overflowed { value, owner, replicas, .. } = session;
    let options = StartOptions { owner, replicas, ..StartOptions::default() };
    match table.start_if_absent(key, value, options).await {
        Ok(_) => Ok(Begun::Restored),
        Err(Error::Conflict { .. }) => Ok(Begun::Lives),
        Err(error) => Err(error),
    }
}

/// What became of a session.
enum Begun {
    Restored,
    Lives,
    HasEnded,
}

/// How far it is.
#[derive(Default)]
struct Done {
    restored: u64,
    live: u64,
    ended: u64,
    failed: u64,
    last: Option<Error>,
}

impl Done {
    fn note(
        &mut self,
        begun: Option<Result<Result<Begun, Error>, tokio::task::JoinError>>,
    ) -> anyhow::Result<()> {
        match begun.transpose()? {
            None => {}
            Some(Ok(Begun::Restored)) => self.restored += 1,
            Some(Ok(Begun::Lives)) => self.live += 1,
            Some(Ok(Begun::HasEnded)) => self.ended += 1,
            Some(Err(error)) => {
                self.failed += 1;
                self.last = Some(error);
            }
        }
        Ok(())
    }

    fn tell(self, cluster: &Cluster, of_others: u64, unreadable: u64) -> anyhow::Result<()> {
        let Self { restored, live, ended, failed, last } = self;
        if cluster.json {
            output::json(&json!({
                "restored": restored,
                "skipped_live": live,
                "skipped_ended": ended,
                "of_other_tables": of_others,
                "failed": failed,
                "unreadable_lines": unreadable,
            }))?;
        } else {
            output::line(format!(
                "restored {restored}; skipped {live} that live, {ended} that have ended, {of_others} of \
                 other tables; {failed} failed; {unreadable} lines could not be read"
            ))?;
        }
        match last {
            None => Ok(()),
            Some(error) => {
                let why = format!("{failed} could not be begun again, the last one since: {error}");
                Err(anyhow::Error::from(error).context(why))
            }
        }
    }
}

/// The latest of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Latest {
    birth: Version,
    version: Version,
    place: Place,
}

impl Latest {
    fn of(session: &Overflowed, place: Place) -> Self {
        Self { birth: session.birth, version: session.version, place }
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: usize,
    line: u64,
}

/// Lines that are no sessions.
#[derive(Default)]
struct Unreadable {
    count: u64,
}

impl Unreadable {
    /// The sessions of a file, each with the number of its line. Tells of the lines between them.
    fn passed_by<'s>(
        &'s mut self,
        path: &'s Path,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(u64, Overflowed)>> + 's> {
        let session = |line: io::Result<(u64, Result<Overflowed, LineError>)>| match line {
            Ok((number, Ok(session))) => Some(Ok((number, session))),
            Ok((number, Err(error))) => {
                self.tell(path, number, error);
                None
            }
            Err(error) => Some(Err(error).with_context(|| reading(path))),
        };
        Ok(lines(path)?.filter_map(session))
    }

    fn tell(&mut self, path: &Path, number: u64, error: LineError) {
        self.count += 1;
        if self.count <= TOLD_MAX as u64 {
            let path = output::show_bytes(path.as_os_str().as_bytes());
            output::message(format!("{path}:{number}: {error}"));
        }
    }

    fn sum_up(&self) {
        if let Some(more) = self.count.checked_sub(TOLD_MAX as u64).filter(|more| *more > 0) {
            output::message(format!("and {more} more lines that could not be read"));
        }
    }
}

/// The lines of a file, which may be read more than once.
fn lines(path: &Path) -> anyhow::Result<Lines<BufReader<File>>> {
    let file = File::open(path).with_context(|| reading(path))?;
    if !file.metadata().with_context(|| reading(path))?.is_file() {
        return Err(
            Failed { code: REFUSED, why: format!("{}: it is no file", reading(path)) }.into()
        );
    }
    Ok(Lines::new(BufReader::new(file)))
}

fn reading(path: &Path) -> String {
    format!("reading {}", output::show_bytes(path.as_os_str().as_bytes()))
}

fn document(session: &Overflowed) -> serde_json::Value {
    json!({
        "name": name_of(session),
        "table": session.table,
        "why": session.why.name(),
        "owner": output::json_bytes(&session.owner),
        "birth": session.birth,
        "version": session.version,
        "touched_ms": session.touched_ms,
        "deadline_ms": session.deadline_ms,
        "size": session.value.size(),
        "is_map": matches!(session.value, Value::Map(_)),
    })
}

/// What stands for its key, as elsewhere where that must not appear.
fn name_of(session: &Overflowed) -> String {
    SuspectName::of_word(session.key.word()).to_string()
}
