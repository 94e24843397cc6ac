//! `annulus ring`, `locate` and `explain`: what lies where.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use annulus_client::{
    CopyState, Explanation, HomeCopy, Key, NodeId, RouteNode, RouteTable, Routes, Served, Slot,
    Source, Version,
};
use serde_json::json;

use super::session;
use crate::args::{KeyArgs, RouteArgs};
use crate::cluster::Cluster;
use crate::output::{self, Rows};

/// Prints how the slots lie on the nodes.
pub(crate) async fn ring(cluster: &Cluster) -> anyhow::Result<()> {
    let routes = cluster.client.routes().await?;
    let shares = Shares::of(&routes);
    if cluster.json {
        let nodes = routes.nodes.iter().zip(&shares.nodes).map(|(node, share)| {
            json!({
                "id": node.id,
                "name": node.name,
                "addr": node.addr,
                "primary": share.primary,
                "slots": share.slots,
            })
        });
        return output::json(&json!({
            "view": output::digest(routes.view),
            "slots": shares.slots,
            "homes_per_slot": routes.homes_per_slot,
            "nodes": nodes.collect::<Vec<_>>(),
            "peak_to_average_slots": shares.peak_to_average(|share| share.slots),
            "peak_to_average_primary": shares.peak_to_average(|share| share.primary),
        }));
    }
    let mut rows = Rows::new(&["NAME", "ID", "ADDRESS", ">PRIMARY", ">SLOTS", ">SHARE"]);
    let total = shares.slots * u64::from(routes.homes_per_slot);
    for (node, share) in routes.nodes.iter().zip(&shares.nodes) {
        rows.push([
            node.name.clone(),
            node.id.to_string(),
            node.addr.to_string(),
            share.primary.to_string(),
            share.slots.to_string(),
            output::percent(share.slots, total),
        ]);
    }
    rows.print()?;
    output::line(format!(
        "\n{} slots with {} homes each; peak to average: slots {:.2}, primary {:.2}\nview {}",
        shares.slots,
        routes.homes_per_slot,
        shares.peak_to_average(|share| share.slots),
        shares.peak_to_average(|share| share.primary),
        output::digest(routes.view),
    ))
}

/// What each node has of the ring.
struct Shares {
    slots: u64,
    nodes: Vec<Share>,
}

#[derive(Clone, Copy, Default)]
struct Share {
    /// Slots whose first home it is.
    primary: u64,
    /// Slots that it is a home of.
    slots: u64,
}

impl Shares {
    fn of(routes: &Routes) -> Self {
        let mut nodes = vec![Share::default(); routes.nodes.len()];
        let homes = usize::from(routes.homes_per_slot).max(1);
        let mut slots = 0;
        for slot in routes.homes.chunks(homes) {
            slots += 1;
            for (rank, home) in slot.iter().enumerate() {
                let share = &mut nodes[usize::from(*home)];
                share.slots += 1;
                share.primary += u64::from(rank == 0);
            }
        }
        Self { slots, nodes }
    }

    fn peak_to_average(&self, part: fn(&Share) -> u64) -> f64 {
        let peak = self.nodes.iter().map(part).max().unwrap_or(0) as f64;
        let sum = self.nodes.iter().map(part).sum::<u64>() as f64;
        if sum == 0.0 { 0.0 } else { peak * self.nodes.len() as f64 / sum }
    }
}

/// Prints a key's slot and homes.
pub(crate) async fn locate(cluster: &Cluster, args: &KeyArgs) -> anyhow::Result<()> {
    let key = session::key(args);
    let location = cluster.table.locate(key).await?;
    let tag = cluster.tag_of(&Key::new(key)?);
    if cluster.json {
        return output::json(&json!({
            "tag": tag,
            "slot": location.slot,
            "view": output::digest(location.view),
            "homes": location.homes,
            "in_shared_memory": location.in_shared_memory,
        }));
    }
    output::line(format!("tag     {tag}"))?;
    output::line(format!("slot    {}", location.slot))?;
    output::line(format!("view    {}", output::digest(location.view)))?;
    let here = if location.in_shared_memory { "answers" } else { "does not answer" };
    output::line(format!("memory  this host's shared memory {here}"))?;
    let mut rows = Rows::new(&["HOME", "NAME", "ID", "ADDRESS"]);
    for (rank, home) in location.homes.iter().enumerate() {
        rows.push([rank_name(rank), home.name.clone(), home.id.to_string(), home.addr.to_string()]);
    }
    output::line("")?;
    rows.print()
}

/// What is asked for of the routing table.
enum Asked {
    Slot(Slot),
    Node(NodeId),
}

/// Prints the homes of a slot or the slots of a node, each time that they change if that is wanted.
pub(crate) async fn route(cluster: &Cluster, args: &RouteArgs) -> anyhow::Result<()> {
    let asked = match (&args.key, args.slot, &args.of) {
        (Some(key), ..) => Asked::Slot(Key::new(key.as_bytes())?.slot()),
        (None, Some(slot), _) => Asked::Slot(slot),
        (None, None, of) => {
            let name = of.as_deref().unwrap_or_default();
            Asked::Node(cluster.member(name).await?.id)
        }
    };
    if !args.watch {
        let routes = RouteTable::new(cluster.client.routes().await?);
        let routes = routes.map_err(|why| anyhow::anyhow!("a node's answer: {why}"))?;
        return print_route(cluster, &routes, &asked);
    }
    let mut watch = cluster.client.watch_routes();
    loop {
        let routes = watch.changed().await;
        print_route(cluster, &routes, &asked)?;
    }
}

fn print_route(cluster: &Cluster, routes: &RouteTable, asked: &Asked) -> anyhow::Result<()> {
    let view = output::digest(routes.view());
    match asked {
        Asked::Slot(slot) => {
            let homes: Vec<&RouteNode> = routes.homes(*slot).collect();
            if cluster.json {
                return output::json(&json!({ "view": view, "slot": slot, "homes": homes }));
            }
            output::line(format!("view {view}, slot {slot}"))?;
            let mut rows = Rows::new(&["HOME", "NAME", "ID", "ADDRESS"]);
            for (rank, home) in homes.into_iter().enumerate() {
                let (id, addr) = (home.id.to_string(), home.addr.to_string());
                rows.push([rank_name(rank), home.name.clone(), id, addr]);
            }
            rows.print()
        }
        Asked::Node(node) => {
            let slots: Vec<(Slot, usize)> = routes.slots_of(*node).collect();
            let primary = runs(slots.iter().filter(|(_, rank)| *rank == 0).map(|(slot, _)| *slot));
            let secondary = runs(slots.iter().filter(|(_, rank)| *rank > 0).map(|(slot, _)| *slot));
            if cluster.json {
                return output::json(&json!({
                    "view": view,
                    "node": node,
                    "slots": slots.len(),
                    "primary": primary,
                    "secondary": secondary,
                }));
            }
            output::line(format!("view {view}, node {node}, {} slots", slots.len()))?;
            output::line(format!("primary    {}", show_runs(&primary)))?;
            output::line(format!("secondary  {}", show_runs(&secondary)))
        }
    }
}

/// Slots in ascending order as runs of neighbours, first and last of each.
fn runs(slots: impl Iterator<Item = Slot>) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for index in slots.map(Slot::index) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    runs
}

fn show_runs(runs: &[(u16, u16)]) -> String {
    if runs.is_empty() {
        return "none".to_owned();
    }
    let show = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(show).collect::<Vec<_>>().join(" ")
}

fn rank_name(rank: usize) -> String {
    if rank == 0 { "primary".to_owned() } else { format!("{}", rank + 1) }
}

/// Prints where a session lives, what each home holds, and from where it is read.
pub(crate) async fn explain(cluster: &Cluster, args: &KeyArgs) -> anyhow::Result<()> {
    let key = session::key(args);
    let explanation = cluster.table.explain(key, true).await?;
    let moved_to = explanation.homes.iter().find_map(|copy| match copy.state {
        CopyState::Moved { ring } => Some(ring),
        _ => None,
    });
    // To read it would bring it back.
    let read = match moved_to {
        Some(ring) => Err(format!("it went to ring {ring}; whoever asks for it brings it back")),
        None => {
            let read = cluster.table.get(key).await;
            read.map(|read| read.source).map_err(|error| error.to_string())
        }
    };
    let tag = cluster.tag_of(&Key::new(key)?);
    if cluster.json {
        let read = match read {
            Ok(source) => json!({ "from": source }),
            Err(why) => json!({ "error": why }),
        };
        return output::json(&json!({
            "tag": tag,
            "slot": explanation.slot,
            "view": output::digest(explanation.view),
            "node": explanation.node,
            "served_from": explanation.served_from,
            "read": read,
            "homes": explanation.homes.iter().map(copy_json).collect::<Vec<_>>(),
            "extra": explanation.extra.iter().map(copy_json).collect::<Vec<_>>(),
            "pin": explanation.pin,
        }));
    }
    print_explanation(&explanation, &tag, &read)
}

fn print_explanation(
    explanation: &Explanation,
    tag: &str,
    read: &Result<Source, String>,
) -> anyhow::Result<()> {
    let now_ms = output::now_ms();
    output::line(format!("tag     {tag}"))?;
    output::line(format!("slot    {}", explanation.slot))?;
    let view = output::digest(explanation.view);
    output::line(format!("view    {view}, that of node {}", explanation.node))?;
    output::line(match explanation.served_from {
        Served::Memory => "node    serves it from its own memory",
        Served::HomesWhileSyncing => "node    is a home not in sync yet: asks the others too",
        Served::Homes => "node    is no home of it: asks the homes",
    })?;
    output::line(match read {
        Ok(Source::SharedMemory) => "read    in this host's shared memory".to_owned(),
        Ok(Source::Node(node)) => format!("read    from node {node}"),
        Err(error) => format!("read    {error}"),
    })?;
    if let Some(pin) = explanation.pin {
        let is_there = explanation.homes.iter().chain(&explanation.extra);
        let is_there = is_there.map(|copy| copy.node).any(|node| node == pin);
        let away = if is_there { "" } else { ", which does not take part" };
        output::line(format!("pin     node {pin}{away}"))?;
    }
    let births: BTreeSet<Version> = explanation.homes.iter().filter_map(birth).collect();
    for birth in &births {
        let age = output::since(birth.hlc.ms(), now_ms);
        output::line(format!("birth   {birth}, {age}"))?;
    }
    if births.len() > 1 {
        output::line("        the homes hold different sessions; the newest wins")?;
    }
    let mut rows =
        Rows::new(&["HOME", "NAME", "ADDRESS", "STATE", "VERSION", ">SIZE", ">EXPIRES IN"]);
    let homes = explanation.homes.iter().enumerate().map(|(rank, copy)| (rank_name(rank), copy));
    let extra = explanation.extra.iter().map(|copy| {
        let is_pin = Some(copy.node) == explanation.pin;
        (if is_pin { "pinned" } else { "extra" }.to_owned(), copy)
    });
    for (home, copy) in homes.chain(extra) {
        let (state, version, size, expires) = match copy.state {
            CopyState::NotAsked => ("not asked", None, None, None),
            CopyState::Silent => ("silent", None, None, None),
            CopyState::Absent { synced: true } => ("absent", None, None, None),
            CopyState::Absent { synced: false } => ("unsynced", None, None, None),
            CopyState::Moved { ring } => {
                (RINGS[usize::from(ring).min(RINGS.len() - 1)], None, None, None)
            }
            CopyState::Held { version, ended: true, .. } => ("ended", Some(version), None, None),
            CopyState::Held { version, expired, deadline, size, .. } => {
                let state = if expired { "expired" } else { "alive" };
                (state, Some(version), Some(size), Some(deadline))
            }
        };
        let dash = || "-".to_owned();
        rows.push([
            home,
            copy.name.clone(),
            copy.addr.to_string(),
            state.to_owned(),
            version.map_or_else(dash, |version| version.hlc.to_string()),
            size.map_or_else(dash, output::bytes),
            expires.map_or_else(dash, |at_ms| output::until(at_ms, now_ms)),
        ]);
    }
    output::line("")?;
    rows.print()
}

/// Where a session went, by the number of the ring.
const RINGS: [&str; 8] =
    ["moved", "ring 1", "ring 2", "ring 3", "ring 4", "ring 5", "ring 6", "ring 7"];

fn birth(copy: &HomeCopy) -> Option<Version> {
    match copy.state {
        CopyState::Held { birth, .. } => Some(birth),
        _ => None,
    }
}

fn copy_json(copy: &HomeCopy) -> serde_json::Value {
    let mut document = match copy.state {
        CopyState::NotAsked => json!({ "state": "not_asked" }),
        CopyState::Silent => json!({ "state": "silent" }),
        CopyState::Absent { synced } => json!({ "state": "absent", "synced": synced }),
        CopyState::Moved { ring } => json!({ "state": "moved", "ring": ring }),
        CopyState::Held { birth, version, ended, expired, touched, deadline, size } => json!({
            "state": if ended { "ended" } else if expired { "expired" } else { "alive" },
            "birth": birth,
            "version": version,
            "touched_ms": touched,
            "deadline_ms": deadline,
            "size": size,
        }),
    };
    document["node"] = json!(copy.node);
    document["name"] = json!(copy.name);
    document["addr"] = json!(copy.addr);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_slots_are_shown_as_runs() {
        let slots = [0, 1, 2, 7, 9, 10].into_iter().filter_map(Slot::new);
        let found = runs(slots);
        assert_eq!(found, [(0, 2), (7, 7), (9, 10)]);
        assert_eq!(show_runs(&found), "0-2 7 9-10");
        assert_eq!(show_runs(&runs([].into_iter())), "none");
    }

    #[test]
    fn shares_count_primaries_and_homes() {
        let node = |id: u16| RouteNode {
            id: NodeId::from_bits(id.into()),
            name: format!("n{id}"),
            addr: ([127, 0, 0, 1], 7000 + id).into(),
        };
        let routes = Routes {
            view: 1,
            nodes: vec![node(1), node(2), node(3)],
            homes_per_slot: 2,
            homes: vec![0, 1, 0, 2, 1, 0],
        };
        let shares = Shares::of(&routes);
        assert_eq!(shares.slots, 3);
        let counts: Vec<_> =
            shares.nodes.iter().map(|share| (share.primary, share.slots)).collect();
        assert_eq!(counts, [(2, 3), (1, 2), (0, 1)]);
        assert!((shares.peak_to_average(|share| share.slots) - 1.5).abs() < 1e-9);
        let empty = Routes { nodes: Vec::new(), homes_per_slot: 0, homes: Vec::new(), ..routes };
        assert_eq!(Shares::of(&empty).peak_to_average(|share| share.slots), 0.0);
    }
}
