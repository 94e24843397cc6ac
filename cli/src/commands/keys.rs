//! `annulus keys`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use annulus_client::{
    ClusterKey, HeldKey, KeyChange, KeyId, KeyKind, KeyOrdered, KeyText, KeysReport,
};
use anyhow::Context;
use serde_json::json;

use super::members::status;
use crate::args::{GenerateArgs, InstallArgs, KeyIdArgs, KeysCommand};
use crate::cluster::Cluster;
use crate::exit::{Failed, REFUSED, UNAVAILABLE};
use crate::output::{self, Rows};

/// How long the node may take: it waits for members that do not answer, twice.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Something for the host's node to do at all nodes.
pub(crate) struct Asked {
    change: KeyChange,
    force: bool,
}

impl Asked {
    /// What a command asks the node for; `None` if it is done without one.
    pub(crate) fn of(command: KeysCommand) -> anyhow::Result<Option<Self>> {
        let by_id = |args: KeyIdArgs, change: fn(u32) -> KeyChange| Self {
            change: change(args.id.bits()),
            force: args.force,
        };
        Ok(Some(match command {
            KeysCommand::Generate(args) => return generate(&args).map(|()| None),
            KeysCommand::Install(args) => {
                let key = read(&args)?;
                let text = KeyText(key.reveal().to_string());
                Self { change: KeyChange::Install(text), force: false }
            }
            KeysCommand::Use(args) => by_id(args, KeyChange::Use),
            KeysCommand::Remove(args) => by_id(args, KeyChange::Remove),
            KeysCommand::List => Self { change: KeyChange::List, force: false },
        }))
    }
}

/// Has the node do it, and prints what became of it at each.
pub(crate) async fn run(cluster: &Cluster, asked: Asked) -> anyhow::Result<()> {
    let Asked { change, force } = asked;
    let report = cluster.client.any_node().keys(change, force).await?;
    if !report.refused.is_empty() {
        return Err(Failed { code: REFUSED, why: report.refused }.into());
    }
    if cluster.json {
        output::json(&report_json(&report))?;
    } else {
        print(&report)?;
    }
    if let Some(why) = differing(&report) {
        output::message(format!("annulus: {why}"));
    }
    let is_done = |keys: &KeyOrdered| matches!(keys, KeyOrdered::Done { .. });
    let count = report.nodes.iter().filter(|node| !is_done(&node.keys)).count();
    if count == 0 {
        return Ok(());
    }
    let why = format!(
        "{count} of {} nodes did not do it, or do not answer; repeat it when they are back",
        report.nodes.len()
    );
    Err(Failed { code: UNAVAILABLE, why }.into())
}

/// Reads the one key in a file that none but its user may read.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<ClusterKey> {
    let reading = || format!("cannot use key file {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let mode = file.metadata().with_context(reading)?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!("others may use it, too (mode {:o}); chmod 600 it", mode & 0o777);
        return Err(Failed::usage(why)).with_context(reading);
    }
    read_key(&mut file).with_context(reading)
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let key = ClusterKey::new(args.role.unwrap_or(KeyKind::Node), &rand::random());
    let text = key.reveal();
    let Some(path) = &args.out else { return output::line(text.as_str()) };
    let writing = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()));
    let file = file.with_context(writing)?;
    writeln!(file, "{}", text.as_str()).with_context(writing)?;
    file.sync_all().with_context(writing)?;
    output::message(format!("key {} ({}) is in {}", key.id(), key.kind(), path.display()));
    Ok(())
}

fn read(args: &InstallArgs) -> anyhow::Result<ClusterKey> {
    match args.key.as_str() {
        "-" => read_key(&mut io::stdin().lock()).context("cannot read a key from standard input"),
        key if key.starts_with("annulus-key-") => Err(Failed::usage(
            "this is a key and no file, and everybody on this host could see it: put it into a file \
             of your own, or pipe it to `annulus keys install -`; if it was one in earnest, take another",
        )),
        path => read_file(Path::new(path)),
    }
}

/// The only line that is neither empty nor begins with `#`.
fn read_key(from: &mut dyn Read) -> anyhow::Result<ClusterKey> {
    let mut text = String::new();
    from.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    let says = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut lines = text.lines().map(str::trim).filter(says);
    match (lines.next(), lines.next()) {
        (None, _) => Err(Failed::usage("there is no key in it")),
        (Some(line), None) => line.parse().map_err(|error| Failed::usage(format!("{error}"))),
        (Some(_), Some(_)) => Err(Failed::usage("there is more than one line in it; keep one key")),
    }
}

const KEY_FILE_BYTES_MAX: u64 = 16 << 10;

fn print(report: &KeysReport) -> anyhow::Result<()> {
    let mut rows = Rows::new(&["NAME", "ID", "STATUS", "IN USE", "ACCEPTS"]);
    for node in &report.nodes {
        let (in_use, accepts) = match &node.keys {
            KeyOrdered::Done { keys, in_use } => {
                (id(*in_use), keys.iter().map(show).collect::<Vec<_>>().join(", "))
            }
            KeyOrdered::Refused(why) => ("-".to_owned(), format!("(refused: {why})")),
            KeyOrdered::Silent(why) => ("-".to_owned(), format!("(unknown: {why})")),
            _ => ("-".to_owned(), "(unknown: a newer node)".to_owned()),
        };
        let (name, status) = (node.name.clone(), status(node.status).to_owned());
        rows.push([name, node.node.to_string(), status, in_use, accepts]);
    }
    rows.print()
}

/// Says so when nodes have different keys.
fn differing(report: &KeysReport) -> Option<String> {
    let held = report.nodes.iter().filter_map(|node| match &node.keys {
        KeyOrdered::Done { keys, in_use } => {
            let mut keys: Vec<u32> = keys.iter().map(|key| key.id).collect();
            keys.sort_unstable();
            Some((&node.name, keys, *in_use))
        }
        _ => None,
    });
    let held: Vec<_> = held.collect();
    let (first, keys, in_use) = held.first()?;
    let others = held.iter().filter(|(_, other, _)| other != keys).map(|(name, ..)| name.as_str());
    let others: Vec<&str> = others.collect();
    if !others.is_empty() {
        let others = others.join(", ");
        return Some(format!(
            "{others} and {first} accept different keys; install what is missing"
        ));
    }
    let others = held.iter().filter(|(.., other)| other != in_use).map(|(name, ..)| name.as_str());
    let others: Vec<&str> = others.collect();
    (!others.is_empty()).then(|| {
        format!("{} and {first} use different keys; `annulus keys use` one", others.join(", "))
    })
}

fn show(key: &HeldKey) -> String {
    format!("{} {}", id(key.id), kind(key))
}

fn id(bits: u32) -> String {
    KeyId::from_bits(bits).to_string()
}

fn kind(key: &HeldKey) -> &'static str {
    key.role.map_or("node", |role| role.name())
}

fn report_json(report: &KeysReport) -> serde_json::Value {
    let nodes = report.nodes.iter().map(|node| {
        let mut shown = json!({ "id": node.node, "name": node.name, "status": node.status });
        match &node.keys {
            KeyOrdered::Done { keys, in_use } => {
                let keys = keys.iter().map(|key| json!({ "id": id(key.id), "kind": kind(key) }));
                shown["keys"] = keys.collect();
                shown["in_use"] = json!(id(*in_use));
            }
            KeyOrdered::Refused(why) => shown["refused"] = json!(why),
            KeyOrdered::Silent(why) => shown["silent"] = json!(why),
            _ => {}
        }
        shown
    });
    json!({ "nodes": nodes.collect::<Vec<_>>() })
}
