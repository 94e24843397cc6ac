//! `annulus start`, `get`, `set`, `touch` and `end`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use annulus_client::{
    Acknowledged, AskReason, Change, Error, Lifetimes, LocalGet, LocalValue, Rotated, Session,
    Source, StartOptions, Value,
};
use anyhow::Context;
use serde_json::json;

use super::migrate;
use crate::args::{
    EndArgs, GetArgs, KeyArgs, LifetimeArgs, RotateArgs, SetArgs, StartArgs, ValueArgs,
};
use crate::cluster::Cluster;
use crate::exit::{ABSENT, Failed, REFUSED, UNREACHABLE};
use crate::output;

/// The largest value that any table takes, in bytes.
pub(super) const VALUE_MAX: u64 = 1 << 20;

/// Begins a session.
pub(crate) async fn start(cluster: &Cluster, args: &StartArgs) -> anyhow::Result<()> {
    let fields = fields(&args.value)?;
    let value =
        if fields.is_empty() { Value::Bytes(whole(&args.value)?) } else { Value::Map(fields) };
    let LifetimeArgs { idle, lifetime } = args.lifetimes;
    let owner = args.owner.as_deref().map(|owner| owner.as_bytes().to_vec()).unwrap_or_default();
    let replicas = args.replicas.unwrap_or(0);
    let options = StartOptions { idle, lifetime, owner, replicas };
    let (table, key) = (&cluster.table, key(&args.key));
    // Whom it does not find it does not begin for.
    let pin = migrate::destination(cluster, args.pin.as_deref(), args.affinity).await?;
    let done = match args.if_absent {
        true => table.start_if_absent(key, value, options).await?,
        false => table.start(key, value, options).await?,
    };
    if let Some(node) = pin {
        table
            .migrate(key, Some(done.birth), node)
            .await
            .context("it was started, and not pinned")?;
    }
    acknowledged(cluster, "started: held by", done)
}

/// Prints a session.
pub(crate) async fn get(cluster: &Cluster, args: &GetArgs) -> anyhow::Result<()> {
    let key = key(&args.key);
    let (session, source) = if args.local {
        (get_local(cluster, key)?, Source::SharedMemory)
    } else {
        let read = cluster.table.get(key).await?;
        (read.session, read.source)
    };
    let one =
        args.field.as_deref().map(|name| field(&session.value, name.as_bytes())).transpose()?;
    if cluster.json {
        let mut document = match one {
            Some(bytes) => json!({ "value": output::json_bytes(bytes) }),
            None => output::json_value(&session.value),
        };
        let facts = json!({
            "birth": session.birth,
            "version": session.version,
            "touched_ms": session.touched,
            "deadline_ms": session.deadline,
            "owner": output::json_bytes(&session.attributes.owner),
            "read_from": source,
        });
        merge(&mut document, facts);
        if !args.local {
            // Shared memory is not looked at for these.
            let placed = json!({ "replicas": session.attributes.replicas, "pin": session.pin });
            merge(&mut document, placed);
        }
        return output::json(&document);
    }
    let whole = match &session.value {
        Value::Bytes(bytes) => Some(bytes.as_slice()),
        Value::Map(_) | Value::Set(_) | Value::SortedSet(_) => None,
    };
    match (one.or(whole), &session.value) {
        (Some(bytes), _) => {
            output::write(bytes)?;
            // For the prompt's sake; a pipe gets the value and nothing else.
            let ends = bytes.last().is_none_or(|byte| *byte == b'\n');
            if io::stdout().is_terminal() && !ends { output::write(b"\n") } else { Ok(()) }
        }
        (None, Value::Bytes(_)) => Ok(()),
        (None, Value::Set(members)) => {
            let lines = members.keys().map(|member| format!("{}\n", output::show_bytes(member)));
            output::write(lines.collect::<String>().as_bytes())
        }
        (None, Value::Map(fields) | Value::SortedSet(fields)) => {
            let lines = fields.iter().map(|(name, value)| {
                format!("{}={}\n", output::show_bytes(name), output::show_bytes(value))
            });
            output::write(lines.collect::<String>().as_bytes())
        }
    }
}

fn get_local(cluster: &Cluster, key: &[u8]) -> anyhow::Result<Session> {
    annulus_client::Key::new(key).map_err(Error::from)?;
    let reader = cluster.client.local_reader(cluster.table.name()).ok_or(Error::NotAttached)?;
    let mut record = Vec::new();
    let session = match reader.get(key, &mut record) {
        LocalGet::Live(session) => session,
        LocalGet::Ended => return Err(Error::Ended.into()),
        LocalGet::SlowDown { retry_after } => return Err(Error::SlowDown { retry_after }.into()),
        LocalGet::Ask(AskReason::NotAttached) => return Err(Error::NotAttached.into()),
        LocalGet::Ask(reason) => {
            let why = local_reason(reason);
            let why = format!("shared memory cannot tell: {why}; without --local a node is asked");
            return Err(Failed { code: UNREACHABLE, why }.into());
        }
    };
    Ok(Session {
        birth: session.birth,
        version: session.version,
        deadline: session.deadline,
        touched: session.touched,
        idle: 0,
        expire_at: 0,
        attributes: annulus_client::Attributes::default(),
        pin: None,
        field_deadlines: Default::default(),
        value: match session.value {
            LocalValue::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            LocalValue::Map(fields) => Value::Map(fields),
            LocalValue::Set(fields) => Value::Set(fields),
            LocalValue::SortedSet(fields) => Value::SortedSet(fields),
        },
    })
}

/// Why shared memory cannot tell, for people.
pub(crate) fn local_reason(reason: AskReason) -> &'static str {
    match reason {
        AskReason::Miss => "it holds nothing under this key",
        AskReason::Expired => "its copy has expired, and a later use may be known elsewhere",
        AskReason::Stale => "the node does not vouch for the key's slot now",
        AskReason::BehindOwnWrite => "its copy is older than a write of this command",
        AskReason::Contended => "the record changed at each try",
        AskReason::Damaged => "the record makes no sense",
        _ => "it is not attached",
    }
}

fn field<'a>(value: &'a Value, name: &[u8]) -> anyhow::Result<&'a [u8]> {
    let absent = |why: &str| Failed { code: ABSENT, why: why.to_owned() };
    match value.fields() {
        Some(fields) => {
            Ok(fields.get(name).ok_or_else(|| absent("the session has no such field"))?)
        }
        None => Err(absent("the session's value is no map").into()),
    }
}

/// Changes a session.
pub(crate) async fn set(cluster: &Cluster, args: &SetArgs) -> anyhow::Result<()> {
    let set = fields(&args.value)?;
    let delete: Vec<Vec<u8>> = args.delete.iter().map(|name| name.as_bytes().to_vec()).collect();
    let LifetimeArgs { idle, lifetime } = args.lifetimes;
    let change = if !set.is_empty() || !delete.is_empty() {
        if let Some(both) = delete.iter().find(|name| set.contains_key(*name)) {
            let both = output::show_bytes(both);
            return Err(Failed::usage(format!("field {both} is both set and deleted")));
        }
        Change::Fields { set, delete }
    } else if idle.is_some() || lifetime.is_some() {
        let lifetimes = Lifetimes { idle_ms: idle.map(ms), lifetime_ms: lifetime.map(ms) };
        Change::Lifetimes(lifetimes)
    } else {
        Change::Value(Value::Bytes(whole(&args.value)?))
    };
    let (table, key) = (&cluster.table, key(&args.key));
    let done = match args.condition.if_version {
        Some(version) => table.update_if(key, version, change).await?,
        None => table.update(key, None, change).await?,
    };
    acknowledged(cluster, "set: held by", done)
}

/// Notes a use of a session.
pub(crate) async fn touch(cluster: &Cluster, args: &KeyArgs) -> anyhow::Result<()> {
    let done = cluster.table.touch(key(args), None).await?;
    acknowledged(cluster, "touched: noted by", done)
}

/// Gives a session another key.
pub(crate) async fn rotate(cluster: &Cluster, args: &RotateArgs) -> anyhow::Result<()> {
    let rotated = cluster.table.rotate(key(&args.key), None, args.new.as_bytes()).await?;
    let Rotated { begun, has_ended } = rotated;
    if cluster.json {
        return output::json(&json!({
            "birth": begun.birth,
            "version": begun.version,
            "held_by": begun.held_by,
            "homes": begun.homes,
            "old_has_ended": has_ended,
        }));
    }
    acknowledged(cluster, "under the new key: held by", begun)?;
    if !has_ended {
        output::message(
            "the old one could not be ended yet: the nodes do that in some ten seconds",
        );
    }
    Ok(())
}

/// Ends a session, or those of an owner.
pub(crate) async fn end(cluster: &Cluster, args: &EndArgs) -> anyhow::Result<()> {
    let table = &cluster.table;
    if let Some(owner) = &args.owner {
        let except = args.except.as_ref().map(|key| key.as_bytes());
        let ended = match args.keep {
            Some(keep) => table.limit_sessions_of(owner.as_bytes(), keep, None).await?,
            None => table.end_sessions_of(owner.as_bytes(), except).await?,
        };
        return told_how_many(cluster, ended);
    }
    let key = args.key.as_ref().map_or(&[][..], |key| key.as_bytes());
    let done = match args.condition.if_version {
        Some(version) => table.end_if(key, version).await?,
        None => table.end(key, None).await?,
    };
    acknowledged(cluster, "ended for good: known to", done)
}

fn told_how_many(cluster: &Cluster, ended: usize) -> anyhow::Result<()> {
    if cluster.json {
        return output::json(&json!({ "ended": ended }));
    }
    let sessions = if ended == 1 { "session" } else { "sessions" };
    output::message(format!("ended for good: {ended} {sessions}"));
    Ok(())
}

fn acknowledged(cluster: &Cluster, what: &str, done: Acknowledged) -> anyhow::Result<()> {
    if cluster.json {
        return output::json(&done);
    }
    output::message(format!("{what} {} of {} homes", done.held_by, done.homes));
    Ok(())
}

/// The key's bytes; the client checks them.
pub(crate) fn key(args: &KeyArgs) -> &[u8] {
    args.key.as_bytes()
}

fn whole(args: &ValueArgs) -> anyhow::Result<Vec<u8>> {
    match (&args.value, &args.file) {
        (Some(value), _) if value == "-" => read(io::stdin().lock(), "standard input"),
        (Some(value), _) => Ok(value.as_bytes().to_vec()),
        (None, Some(path)) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("reading {name}"))?;
            read(file, &name)
        }
        (None, None) => Ok(Vec::new()),
    }
}

fn read(from: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(VALUE_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("reading {name}"))?;
    if bytes.len() as u64 > VALUE_MAX {
        let why = format!("too large: {name} has more than 1 MiB, and no table takes that");
        return Err(Failed { code: REFUSED, why }.into());
    }
    Ok(bytes)
}

fn fields(args: &ValueArgs) -> anyhow::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut fields = BTreeMap::new();
    for field in &args.fields {
        let (name, value) = split(field)?;
        if fields.insert(name.to_vec(), value.to_vec()).is_some() {
            let name = output::show_bytes(name);
            return Err(Failed::usage(format!("field {name} is given twice")));
        }
    }
    Ok(fields)
}

fn split(field: &OsStr) -> anyhow::Result<(&[u8], &[u8])> {
    let bytes = field.as_bytes();
    let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
        let shown = output::show_bytes(bytes);
        return Err(Failed::usage(format!("--field {shown}: write NAME=VALUE")));
    };
    Ok((&bytes[..at], &bytes[at + 1..]))
}

/// In milliseconds, rounded up.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn merge(document: &mut serde_json::Value, more: serde_json::Value) {
    if let (Some(into), serde_json::Value::Object(more)) = (document.as_object_mut(), more) {
        into.extend(more);
    }
}
