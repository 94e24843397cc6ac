//! `annulus rebalance`: how slots would lie, and weights.

use std::collections::BTreeMap;

use annulus_client::{Member, NodeId, NodeStatus, Order, PlanRequest, RouteTable, Slot};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::RebalanceArgs;
use crate::cluster::Cluster;
use crate::exit::Failed;
use crate::output::{self, Rows};

/// Shows what would move, or gives members weights.
pub(crate) async fn run(cluster: &Cluster, args: &RebalanceArgs) -> anyhow::Result<()> {
    let mut weights = Vec::new();
    for text in &args.weights {
        let (name, weight) = pair("--weight", text)?;
        let weight = match weight {
            "default" => None,
            number => Some(number.parse::<u16>().map_err(|_| {
                let why = "a weight is a whole number from 0 to 65535, or default";
                Failed::usage(format!("--weight {text}: {why}"))
            })?),
        };
        weights.push((cluster.member(name).await?, weight));
    }
    if args.dry_run {
        return dry_run(cluster, args, weights).await;
    }
    for (member, weight) in weights {
        cluster.client.node(member.addr).order(Order::Weigh(weight)).await?;
        output::line(match weight {
            Some(weight) => format!("{} has a weight of {weight} from now on", member.name),
            None => format!("{} has its configured weight again", member.name),
        })?;
    }
    Ok(())
}

fn pair<'a>(flag: &str, text: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    text.split_once('=').ok_or_else(|| Failed::usage(format!("{flag} {text}: write NODE=VALUE")))
}

async fn dry_run(
    cluster: &Cluster,
    args: &RebalanceArgs,
    weights: Vec<(Member, Option<u16>)>,
) -> anyhow::Result<()> {
    let mut supposed = PlanRequest::default();
    for (member, weight) in weights {
        let Some(weight) = weight else {
            let why = "give the weight itself: which one is configured only the node knows";
            return Err(Failed::usage(format!("--weight {}=default: {why}", member.name)));
        };
        supposed.weights.push((member.id, weight));
    }
    for name in &args.without {
        supposed.without.push(cluster.member(name).await?.id);
    }
    for text in &args.zones {
        let (name, zone) = pair("--zone", text)?;
        supposed.zones.push((cluster.member(name).await?.id, zone.to_owned()));
    }
    let node = cluster.client.any_node();
    let before = RouteTable::new(node.routes().await?);
    let before = before.map_err(|why| anyhow::anyhow!("a node's answer: {why}"))?;
    let after = node.plan(supposed).await?;
    let members = cluster.active_members().await?;
    let tables = Tables::of(&statuses(cluster, &members).await);
    let moves = moves(&before, &after, &tables);
    print(cluster, &members, &moves, &tables)
}

/// How the members are that answer.
async fn statuses(cluster: &Cluster, members: &[Member]) -> Vec<NodeStatus> {
    let mut asked = JoinSet::new();
    for member in members {
        let node = cluster.client.node(member.addr);
        asked.spawn(async move { node.status().await.ok() });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// What a slot of each table holds, as far as the members say: homes, and bytes of one copy on average.
struct Tables(BTreeMap<String, (usize, f64)>);

impl Tables {
    fn of(statuses: &[NodeStatus]) -> Self {
        let mut sums: BTreeMap<String, (usize, u64, u64)> = BTreeMap::new();
        for table in statuses.iter().flat_map(|status| &status.tables) {
            let sum = sums.entry(table.name.clone()).or_default();
            sum.0 = table.replicas.into();
            sum.1 += table.bytes;
            sum.2 += u64::from(table.slots_home);
        }
        let average = |(replicas, bytes, slots): (usize, u64, u64)| {
            (replicas, bytes as f64 / slots.max(1) as f64)
        };
        Self(sums.into_iter().map(|(name, sum)| (name, average(sum))).collect())
    }
}

/// What becomes of one node's slots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Moves {
    before: u32,
    after: u32,
    primary_before: u32,
    primary_after: u32,
    /// Slots that it takes, and gives away.
    taken: u32,
    given: u32,
    /// Bytes that it holds, by the averages, and is sent.
    bytes_before: f64,
    bytes_after: f64,
    bytes_taken: f64,
}

fn moves(before: &RouteTable, after: &RouteTable, tables: &Tables) -> BTreeMap<NodeId, Moves> {
    let mut moves: BTreeMap<NodeId, Moves> = BTreeMap::new();
    for slot in Slot::all() {
        let old: Vec<NodeId> = before.homes(slot).map(|node| node.id).collect();
        let new: Vec<NodeId> = after.homes(slot).map(|node| node.id).collect();
        for (rank, node) in old.iter().enumerate() {
            let of = moves.entry(*node).or_default();
            of.before += 1;
            of.primary_before += u32::from(rank == 0);
            of.given += u32::from(!new.contains(node));
        }
        for (rank, node) in new.iter().enumerate() {
            let of = moves.entry(*node).or_default();
            of.after += 1;
            of.primary_after += u32::from(rank == 0);
            of.taken += u32::from(!old.contains(node));
        }
        for (replicas, bytes) in tables.0.values() {
            let old = &old[..old.len().min(*replicas)];
            let new = &new[..new.len().min(*replicas)];
            old.iter().for_each(|node| moves.entry(*node).or_default().bytes_before += bytes);
            for node in new {
                let of = moves.entry(*node).or_default();
                of.bytes_after += bytes;
                if !old.contains(node) {
                    of.bytes_taken += bytes;
                }
            }
        }
    }
    moves
}

fn print(
    cluster: &Cluster,
    members: &[Member],
    moves: &BTreeMap<NodeId, Moves>,
    tables: &Tables,
) -> anyhow::Result<()> {
    let name = |node: &NodeId| {
        let member = members.iter().find(|member| member.id == *node);
        member.map_or_else(|| node.to_string(), |member| member.name.clone())
    };
    let taken: u32 = moves.values().map(|of| of.taken).sum();
    let bytes: f64 = moves.values().map(|of| of.bytes_taken).sum();
    if cluster.json {
        let nodes = moves.iter().map(|(node, of)| {
            json!({
                "id": node,
                "name": name(node),
                "slots_before": of.before,
                "slots_after": of.after,
                "primary_before": of.primary_before,
                "primary_after": of.primary_after,
                "slots_taken": of.taken,
                "slots_given": of.given,
                "bytes_before": of.bytes_before as u64,
                "bytes_after": of.bytes_after as u64,
                "bytes_taken": of.bytes_taken as u64,
            })
        });
        let nodes: Vec<_> = nodes.collect();
        let tables: Vec<&String> = tables.0.keys().collect();
        return output::json(&json!({
            "nodes": nodes,
            "tables": tables,
            "slots_moved": taken,
            "bytes_moved": bytes as u64,
        }));
    }
    let mut rows = Rows::new(&["NAME", ">SLOTS", ">AFTER", ">TAKES", ">GIVES", ">BYTES", ">AFTER"]);
    for (node, of) in moves {
        rows.push([
            name(node),
            of.before.to_string(),
            of.after.to_string(),
            of.taken.to_string(),
            of.given.to_string(),
            output::bytes(of.bytes_before as u64),
            output::bytes(of.bytes_after as u64),
        ]);
    }
    rows.print()?;
    let moved = output::bytes(bytes as u64);
    output::line(format!(
        "\n{taken} copies of slots would move, some {moved} by what slots hold on average"
    ))
}

#[cfg(test)]
mod tests {
    use annulus_client::{RouteNode, Routes};

    use super::*;

    fn table(nodes: u16, home: impl Fn(u16) -> [u16; 2]) -> RouteTable {
        let node = |n: u16| RouteNode {
            id: NodeId::from_bits(n.into()),
            name: n.to_string(),
            addr: ([127, 0, 0, 1], 7000 + n).into(),
        };
        let homes = Slot::all().flat_map(|slot| home(slot.index())).collect();
        let nodes = (0..nodes).map(node).collect();
        RouteTable::new(Routes { view: 1, nodes, homes_per_slot: 2, homes }).expect("routes")
    }

    #[test]
    fn what_moves_is_what_was_not_there_before() {
        let before = table(2, |_| [0, 1]);
        // The first thousand slots get another second home, and the next thousand another order.
        let after = table(3, |slot| match slot {
            0..1_000 => [0, 2],
            1_000..2_000 => [1, 0],
            _ => [0, 1],
        });
        let one = ("one".to_owned(), (1, 10.0));
        let tables = Tables(BTreeMap::from([one, ("two".to_owned(), (2, 1.0))]));
        let moves = moves(&before, &after, &tables);
        let of = |node: u64| moves[&NodeId::from_bits(node)];
        assert_eq!((of(0).before, of(0).after, of(0).taken, of(0).given), (16_384, 16_384, 0, 0));
        assert_eq!((of(0).primary_before, of(0).primary_after), (16_384, 15_384));
        assert_eq!((of(1).after, of(1).taken, of(1).given), (15_384, 0, 1_000));
        assert_eq!((of(2).before, of(2).after, of(2).taken), (0, 1_000, 1_000));
        assert_eq!(of(2).bytes_taken, 1_000.0, "of the table with two homes");
        assert_eq!(of(1).bytes_taken, 10_000.0, "of the table with one home");
    }
}
