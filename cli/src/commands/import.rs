//! `annulus import`: the keys of a Redis, as sessions.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use annulus_client::{Error, Fields, Key, StartOptions, Table, Value};
use anyhow::Context;
use redis::{
    Connection, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisResult,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

use super::session::VALUE_MAX;
use crate::args::ImportArgs;
use crate::cluster::Cluster;
use crate::exit::{Failed, REFUSED, UNREACHABLE};
use crate::output;

/// How many sessions are begun at a time.
const CONCURRENCY: usize = 16;
/// How many keys are asked for at a time, and how long for.
const PAGE: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often a start is tried again that has to wait.
const TRIES: u32 = 5;

/// Begins a session for each key, unless one lives under it or has ended.
pub(crate) async fn import(cluster: &Cluster, args: &ImportArgs) -> anyhow::Result<()> {
    let info = args.from.as_str().into_connection_info().map_err(|error| {
        Failed::usage(format!("--from is no address of a Redis ({error}): redis://HOST:PORT/DB"))
    })?;
    let from = name_of(&info);
    let (connection, run) = open(info, &from).await?;
    let new = State {
        from: from.clone(),
        run,
        pattern: args.pattern.clone(),
        table: cluster.table.name().to_owned(),
        cursor: 0,
        counts: Counts::default(),
    };
    let mut state = match &args.state {
        Some(path) => new.or_load(path)?,
        None => new,
    };
    let mut source = Some(connection);
    let mut told = Instant::now();
    loop {
        let Some(mut connection) = source.take() else { break };
        let (cursor, pattern) = (state.cursor, args.pattern.clone());
        let (connection, page) = tokio::task::spawn_blocking(move || {
            let page = page(&mut connection, cursor, pattern.as_deref());
            (connection, page)
        })
        .await?;
        let (next, found) = page.map_err(|error| lost(&from, &error, &state))?;
        begin_all(&cluster.table, found, &mut state.counts).await.with_context(|| {
            let again =
                if args.state.is_some() { "it goes on from there" } else { "start it again" };
            format!("stopped at {} keys; {again}", state.counts.seen)
        })?;
        state.cursor = next;
        if next == 0 {
            break;
        }
        if let Some(path) = &args.state {
            state.save(path)?;
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            output::message(format!("{} keys so far", state.counts.seen));
        }
        source = Some(connection);
    }
    if let Some(path) = &args.state {
        remove(path)?;
    }
    state.counts.tell(cluster)
}

/// Where an import is, so that another one goes on from there.
#[derive(Serialize, Deserialize)]
struct State {
    /// Which Redis, without its password.
    from: String,
    /// Its run: cursors of another one mean nothing.
    run: String,
    /// Which keys.
    pattern: Option<String>,
    /// Into which table.
    table: String,
    /// Of its SCAN.
    cursor: u64,
    counts: Counts,
}

/// What became of the keys.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Counts {
    seen: u64,
    imported: u64,
    /// A session lives under the key.
    live: u64,
    /// One was ended there since.
    ended: u64,
    /// Gone by the time they were read.
    gone: u64,
    /// What no session can be: lists, streams.
    other_types: u64,
    /// The key or the value is too long, or refused for another reason.
    refused: u64,
}

/// A key, and what the Redis says of it.
struct Found {
    key: Vec<u8>,
    lives: Lives,
    value: Holds,
}

#[derive(Clone, Copy)]
enum Lives {
    ForEver,
    Until(Instant),
}

enum Holds {
    Value(Value),
    Nothing,
    OtherType,
    TooMuch,
}

enum Begun {
    Imported,
    Lives,
    HasEnded,
    HasExpired,
    Refused,
}

impl State {
    /// That of the file, if there is one. A Redis that was restarted since is gone through from the beginning.
    fn or_load(self, path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let wrong = |why: String| {
            let path = path.display();
            Failed::usage(format!("--state {path}: {why}; remove it to begin at the first key"))
        };
        let state: Self = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("it is none of an import ({error})")))?;
        if state.from != self.from {
            return Err(wrong(format!("it is of an import from {}", state.from)));
        }
        if (&state.pattern, &state.table) != (&self.pattern, &self.table) {
            return Err(wrong(
                "it is of an import of other keys, or into another table".to_owned(),
            ));
        }
        if state.run != self.run {
            output::message("the Redis was restarted since: all its keys are looked at again");
            return Ok(self);
        }
        Ok(state)
    }

    /// A file that is there is whole, whenever this process ends.
    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let new = path.with_added_extension("new");
        let save = || {
            fs::write(&new, serde_json::to_vec(self)?)?;
            fs::rename(&new, path)
        };
        save().with_context(|| format!("writing {}", path.display()))
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// An address and a database, and no password.
fn name_of(info: &ConnectionInfo) -> String {
    let at = match info.addr() {
        ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
        other => other.to_string(),
    };
    format!("{at}/{}", info.redis_settings().db())
}

/// A connection, and which run of the Redis it is to.
async fn open(info: ConnectionInfo, from: &str) -> anyhow::Result<(Connection, String)> {
    let opened = tokio::task::spawn_blocking(move || {
        let mut connection = redis::Client::open(info)?.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
        Ok::<_, redis::RedisError>((connection, run.to_owned()))
    });
    opened.await?.map_err(|error| {
        let why = format!("cannot connect to the Redis at {from}: {error}");
        Failed { code: UNREACHABLE, why }.into()
    })
}

fn lost(from: &str, error: &redis::RedisError, state: &State) -> anyhow::Error {
    let why = format!("the Redis at {from} failed after {} keys: {error}", state.counts.seen);
    Failed { code: UNREACHABLE, why }.into()
}

/// Some keys with what they hold, and where the next ones begin.
fn page(
    redis: &mut Connection,
    cursor: u64,
    pattern: Option<&str>,
) -> RedisResult<(u64, Vec<Found>)> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("COUNT").arg(PAGE);
    if let Some(pattern) = pattern {
        scan.arg("MATCH").arg(pattern);
    }
    let (next, keys): (u64, Vec<Vec<u8>>) = scan.query(redis)?;
    let mut types = redis::pipe();
    for key in &keys {
        types.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = if keys.is_empty() { Vec::new() } else { types.query(redis)? };
    let mut found = Vec::with_capacity(keys.len());
    for (key, holds) in keys.into_iter().zip(types) {
        let read = match &*holds {
            "string" | "hash" | "set" | "zset" if Key::new(&key).is_err() => Ok(Holds::TooMuch),
            "string" => bytes(redis, &key),
            "hash" => fields(redis, &key, "HSCAN", Value::Map),
            "zset" => fields(redis, &key, "ZSCAN", Value::SortedSet),
            "set" => members(redis, &key),
            "none" => Ok(Holds::Nothing),
            _ => Ok(Holds::OtherType),
        };
        let value = match read {
            // It is another one by now, which its client has begun meanwhile.
            Err(error) if error.code() == Some("WRONGTYPE") => Holds::Nothing,
            read => read?,
        };
        // After the value: whatever that is, it lives no longer.
        let left: i64 = redis::cmd("PTTL").arg(&key).query(redis)?;
        let (value, lives) = match left {
            -2 => (Holds::Nothing, Lives::ForEver),
            -1 => (value, Lives::ForEver),
            left => {
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                (value, Lives::Until(Instant::now() + left))
            }
        };
        found.push(Found { key, lives, value });
    }
    Ok((next, found))
}

/// A string, if a session can hold it: what is longer is not read.
fn bytes(redis: &mut Connection, key: &[u8]) -> RedisResult<Holds> {
    let size: u64 = redis::cmd("STRLEN").arg(key).query(redis)?;
    if size > VALUE_MAX {
        return Ok(Holds::TooMuch);
    }
    let value: Option<Vec<u8>> = redis::cmd("GET").arg(key).query(redis)?;
    Ok(value.map_or(Holds::Nothing, |value| Holds::Value(Value::Bytes(value))))
}

/// The name of a field and its value, or a member and its score.
type Pair = (Vec<u8>, Vec<u8>);

/// A hash or a sorted set, likewise.
fn fields(
    redis: &mut Connection,
    key: &[u8],
    scan: &str,
    value: fn(Fields) -> Value,
) -> RedisResult<Holds> {
    walk(redis, key, scan, value, |page: Vec<Pair>| page)
}

/// A set, likewise.
fn members(redis: &mut Connection, key: &[u8]) -> RedisResult<Holds> {
    walk(redis, key, "SSCAN", Value::Set, |page: Vec<Vec<u8>>| {
        page.into_iter().map(|member| (member, Vec::new())).collect()
    })
}

fn walk<T: FromRedisValue>(
    redis: &mut Connection,
    key: &[u8],
    scan: &str,
    value: fn(Fields) -> Value,
    pairs: fn(T) -> Vec<Pair>,
) -> RedisResult<Holds> {
    let (mut fields, mut size, mut cursor) = (Fields::new(), 0, 0);
    loop {
        let (next, page): (u64, T) =
            redis::cmd(scan).arg(key).arg(cursor).arg("COUNT").arg(PAGE).query(redis)?;
        let page = pairs(page);
        size += page.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if size as u64 > VALUE_MAX {
            return Ok(Holds::TooMuch);
        }
        fields.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    Ok(if fields.is_empty() { Holds::Nothing } else { Holds::Value(value(fields)) })
}

/// Begins sessions. Of those that no session can be, one counts.
///
/// # Errors
/// If the cluster does not take them: all are to be tried again.
async fn begin_all(table: &Table, found: Vec<Found>, counts: &mut Counts) -> anyhow::Result<()> {
    // Counts of a page that fails are those of its next try.
    let mut of_page = Counts::default();
    let mut starts = JoinSet::new();
    for Found { key, lives, value } in found {
        of_page.seen += 1;
        let value = match value {
            Holds::Value(value) => value,
            Holds::Nothing => {
                of_page.gone += 1;
                continue;
            }
            Holds::OtherType => {
                of_page.other_types += 1;
                continue;
            }
            Holds::TooMuch => {
                of_page.refused += 1;
                continue;
            }
        };
        while starts.len() >= CONCURRENCY {
            of_page.note(starts.join_next().await)?;
        }
        let table = table.clone();
        starts.spawn(async move { begin(&table, &key, value, lives).await });
    }
    while !starts.is_empty() {
        of_page.note(starts.join_next().await)?;
    }
    counts.add(of_page);
    Ok(())
}

/// As the node does what a client of Redis writes: no deadline but that of the key.
async fn begin(table: &Table, key: &[u8], value: Value, lives: Lives) -> Result<Begun, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let lifetime = match lives {
            Lives::ForEver => Duration::ZERO,
            Lives::Until(end) => match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(Begun::HasExpired),
                left => left.max(Duration::from_millis(1)),
            },
        };
        let idle = Some(Duration::ZERO);
        let options = StartOptions { idle, lifetime: Some(lifetime), ..StartOptions::default() };
        // Who was logged out here since is not let in again.
        let begun = match table.fetch(key).await {
            Ok(_) => return Ok(Begun::Lives),
            Err(Error::Ended) => return Ok(Begun::HasEnded),
            Err(Error::Absent | Error::Expired) => {
                table.start_if_absent(key, value.clone(), options).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => return Ok(Begun::Imported),
            Err(Error::Conflict { .. }) => return Ok(Begun::Lives),
            Err(Error::TooLarge { .. } | Error::Refused(_)) => return Ok(Begun::Refused),
            Err(Error::SlowDown { retry_after }) if tries < TRIES => {
                tokio::time::sleep(retry_after).await;
            }
            Err(Error::Unavailable { .. } | Error::TimedOut) if tries < TRIES => {
                tokio::time::sleep(TELL_EVERY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Counts {
    fn note(
        &mut self,
        begun: Option<Result<Result<Begun, Error>, tokio::task::JoinError>>,
    ) -> anyhow::Result<()> {
        let Some(begun) = begun.transpose()? else { return Ok(()) };
        match begun? {
            Begun::Imported => self.imported += 1,
            Begun::Lives => self.live += 1,
            Begun::HasEnded => self.ended += 1,
            Begun::HasExpired => self.gone += 1,
            Begun::Refused => self.refused += 1,
        }
        Ok(())
    }

    fn add(&mut self, other: Self) {
        self.seen += other.seen;
        self.imported += other.imported;
        self.live += other.live;
        self.ended += other.ended;
        self.gone += other.gone;
        self.other_types += other.other_types;
        self.refused += other.refused;
    }

    fn tell(self, cluster: &Cluster) -> anyhow::Result<()> {
        let Self { seen, imported, live, ended, gone, other_types, refused } = self;
        if cluster.json {
            output::json(&json!({
                "seen": seen,
                "imported": imported,
                "skipped_live": live,
                "skipped_ended": ended,
                "gone": gone,
                "other_types": other_types,
                "refused": refused,
            }))?;
        } else {
            output::line(format!(
                "imported {imported} of {seen} keys; skipped {live} that live here and {ended} that have ended; \
                 {gone} were gone by then; {other_types} hold neither strings nor hashes; {refused} are too \
                 long, or were refused"
            ))?;
        }
        if other_types + refused == 0 {
            return Ok(());
        }
        let why = format!("{} keys were not imported", other_types + refused);
        Err(Failed { code: REFUSED, why }.into())
    }
}
