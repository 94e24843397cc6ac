//! `annulus status`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use annulus_client::{Error, Member, NodeStatus, Peer, Peers, TableStatus};
use serde_json::json;
use tokio::task::JoinSet;

use super::members::{member_json, status};
use super::rtt::{all_answered, span_us, state};
use crate::args::StatusArgs;
use crate::cluster::Cluster;
use crate::output::{self, Rows};

/// Prints how the connected node is, or all of them.
pub(crate) async fn run(cluster: &Cluster, args: &StatusArgs) -> anyhow::Result<()> {
    if args.all {
        return all(cluster, args).await;
    }
    let status = cluster.client.status().await?;
    let peers = cluster.client.peers().await?;
    if cluster.json {
        let mut json = status_json(&status);
        json["local_health"] = json!(peers.local_health);
        json["peers"] = json!(peers.peers);
        return output::json(&json);
    }
    print_one(&status, &peers)?;
    if args.counters { print_counters(&status) } else { Ok(()) }
}

fn print_one(node: &NodeStatus, peers: &Peers) -> anyhow::Result<()> {
    let NodeStatus { member, active_members, agreeing_members, .. } = node;
    let up = output::span(Duration::from_millis(node.uptime_ms));
    output::line(format!(
        "node      {} ({}), {} for {up}, incarnation {}",
        member.name,
        member.id,
        status(member.status),
        member.incarnation,
    ))?;
    output::line(format!("address   {}", member.addr))?;
    output::line(format!(
        "cluster   {}: {agreeing_members} of {active_members} active members agree",
        node.cluster
    ))?;
    output::line(format!("view      {}", output::digest(node.view)))?;
    output::line(format!("peers     {}", peers_line(&peers.peers)))?;
    let health = match peers.local_health {
        0 => "good".to_owned(),
        by => format!("{by} of 8: slow or badly connected, and slower to doubt others for it"),
    };
    output::line(format!("health    {health}"))?;
    output::line(format!("software  {}", node.software))?;
    output::line("")?;
    let mut rows = Rows::new(&[
        "TABLE",
        ">ENTRIES",
        ">FULL",
        ">BYTES",
        ">MEMORY",
        ">HUGE",
        ">SLOTS",
        ">UNSYNCED",
        ">HINTS",
        ">W/R",
    ]);
    for table in &node.tables {
        rows.push([
            table.name.clone(),
            table.entries.to_string(),
            output::percent(table.entries, table.capacity),
            output::bytes(table.bytes),
            output::bytes(table.segment_bytes),
            output::percent(table.huge_bytes, table.segment_bytes),
            table.slots_home.to_string(),
            table.slots_unsynced.to_string(),
            table.hints.to_string(),
            format!("{}/{}", table.write_homes, table.replicas),
        ]);
    }
    rows.print()?;
    let count = |name: &str| node.counters.iter().find(|(it, _)| it == name).map_or(0, |it| it.1);
    if count("disk_failing") > 0 {
        output::line(format!(
            "disk: {} hints are in memory alone; see the node's log, and data_dir",
            count("hints_unsaved")
        ))?;
    }
    for table in node.tables.iter().filter(|table| table.reserve_used > 0) {
        output::line(format!(
            "{}: full. {} entries stand in the reserve, which is for ends and changes",
            table.name, table.reserve_used
        ))?;
    }
    let why = match count("tables_refused_memory") {
        0 => "no process of this host has read what could be kept here",
        _ => {
            "no process of this host has read what could be kept here, or shm_dir had no room for it (see the node's log)"
        }
    };
    for table in node.tables.iter().filter(|table| table.segment_bytes == 0) {
        output::line(format!("{}: no memory reserved: {why}", table.name))?;
    }
    for table in node.tables.iter().filter(|table| table.members_lacking > 0) {
        output::line(format!(
            "{}: lacks {} members that serve it: sessions stay further in",
            table.name, table.members_lacking
        ))?;
    }
    for table in node.tables.iter().filter(|table| table.slots_undecided > 0) {
        output::line(format!(
            "{}: no majority for {} slots: logouts and conditional operations wait",
            table.name, table.slots_undecided
        ))?;
    }
    for table in node.tables.iter().filter(|table| table.slots_leaving > 0) {
        let short = match table.slots_short {
            0 => String::new(),
            short => format!(", {short} of them kept for want of other homes"),
        };
        let (name, leaving) = (&table.name, table.slots_leaving);
        output::line(format!("{name}: gives {leaving} slots away{short}"))?;
    }
    if let Some(unknown) = unknown_commands(node) {
        output::line(format!("clients of Redis asked in vain for: {unknown}"))?;
    }
    Ok(())
}

/// The commands that clients of Redis asked a node for in vain, those first that were asked for most; `None` if there are none.
fn unknown_commands(node: &NodeStatus) -> Option<String> {
    let mut commands: Vec<_> = node.unknown_commands.iter().collect();
    commands.sort_by_key(|(name, count)| (Reverse(*count), name));
    // Clients have said these.
    let shown = commands
        .iter()
        .map(|(name, count)| format!("{} {count}", output::show_bytes(name.as_bytes())));
    (!commands.is_empty()).then(|| shown.collect::<Vec<_>>().join(", "))
}

/// How many are in which state, and how far the median one is.
fn peers_line(peers: &[Peer]) -> String {
    let mut counts: BTreeMap<u8, (&str, usize)> = BTreeMap::new();
    for peer in peers {
        counts.entry(peer.state as u8).or_insert((state(peer.state), 0)).1 += 1;
    }
    let counts = counts.values().map(|(state, count)| format!("{count} {state}"));
    let mut parts: Vec<String> = counts.collect();
    if parts.is_empty() {
        parts.push("none".to_owned());
    }
    let mut measured: Vec<u32> =
        peers.iter().filter_map(|peer| Some(peer.rtt?.smoothed_us)).collect();
    measured.sort_unstable();
    if let Some(median) = measured.get(measured.len() / 2) {
        parts.push(format!("median round trip {}", span_us(*median)));
    }
    parts.join(", ")
}

fn print_counters(node: &NodeStatus) -> anyhow::Result<()> {
    let mut rows = Rows::new(&["COUNTER", ">COUNT"]);
    for (name, count) in &node.counters {
        rows.push([name.clone(), count.to_string()]);
    }
    output::line("")?;
    rows.print()
}

async fn all(cluster: &Cluster, args: &StatusArgs) -> anyhow::Result<()> {
    let mut asked = JoinSet::new();
    for member in cluster.active_members().await? {
        let node = cluster.client.node(member.addr);
        asked.spawn(async move {
            let answer = node.status().await;
            (member, answer)
        });
    }
    // In the order of ids, whoever answers first.
    let mut answers = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (member, answer) = answer?;
        answers.insert(member.id, (member, answer));
    }
    let answers: Vec<(Member, Result<NodeStatus, Error>)> = answers.into_values().collect();
    if cluster.json {
        let nodes = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let silent = answers.iter().filter_map(|(member, answer)| {
            let why = answer.as_ref().err()?.to_string();
            Some(json!({ "id": member.id, "name": member.name, "addr": member.addr, "why": why }))
        });
        output::json(&json!({
            "nodes": nodes.map(status_json).collect::<Vec<_>>(),
            "silent": silent.collect::<Vec<_>>(),
        }))?;
    } else {
        print_all(&answers, args)?;
    }
    all_answered(answers.iter().map(|(_, answer)| answer.as_ref().err()))
}

fn print_all(
    answers: &[(Member, Result<NodeStatus, Error>)],
    args: &StatusArgs,
) -> anyhow::Result<()> {
    let mut rows = Rows::new(&[
        "NAME",
        "ADDRESS",
        "STATUS",
        "VIEW",
        ">AGREE",
        ">ENTRIES",
        ">UNSYNCED",
        ">HINTS",
        ">UP",
    ]);
    for (member, answer) in answers {
        let (name, addr) = (member.name.clone(), member.addr.to_string());
        let Ok(node) = answer else {
            let blank = || "-".to_owned();
            let silent = "silent".to_owned();
            rows.push([name, addr, silent, blank(), blank(), blank(), blank(), blank(), blank()]);
            continue;
        };
        let sum = |part: fn(&TableStatus) -> u64| node.tables.iter().map(part).sum::<u64>();
        rows.push([
            name,
            addr,
            status(node.member.status).to_owned(),
            // Enough to see who differs.
            output::digest(node.view)[..8].to_owned(),
            format!("{}/{}", node.agreeing_members, node.active_members),
            sum(|table| table.entries).to_string(),
            sum(|table| table.slots_unsynced.into()).to_string(),
            sum(|table| table.hints).to_string(),
            output::span(Duration::from_millis(node.uptime_ms)),
        ]);
    }
    rows.print()?;
    for (member, answer) in answers {
        if let Some(unknown) = answer.as_ref().ok().and_then(unknown_commands) {
            output::line(format!(
                "{}: clients of Redis asked in vain for: {unknown}",
                member.name
            ))?;
        }
    }
    if args.counters {
        for (member, answer) in answers {
            if let Ok(node) = answer {
                output::line(format!("\n{} ({})", member.name, member.id))?;
                print_counters(node)?;
            }
        }
    }
    Ok(())
}

fn status_json(node: &NodeStatus) -> serde_json::Value {
    let counters = node.counters.iter().map(|(name, count)| (name.clone(), json!(count)));
    let unknown = node.unknown_commands.iter().map(|(name, count)| (name.clone(), json!(count)));
    json!({
        "cluster": node.cluster,
        "member": member_json(&node.member),
        "software": node.software,
        "uptime_ms": node.uptime_ms,
        "view": output::digest(node.view),
        "active_members": node.active_members,
        "agreeing_members": node.agreeing_members,
        "tables": node.tables,
        "counters": counters.collect::<serde_json::Map<_, _>>(),
        "unknown_commands": unknown.collect::<serde_json::Map<_, _>>(),
    })
}
