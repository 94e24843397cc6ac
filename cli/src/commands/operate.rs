//! `annulus safe-to-stop`, `drain`, `remove`, `sync` and `events`: running a cluster.

use std::time::{Duration, Instant};

use annulus_client::{NodeId, NodeStatus, Order, Safety, Status};
use serde_json::json;

use crate::args::{DrainArgs, EventsArgs, RemoveArgs, SafeToStopArgs};
use crate::cluster::Cluster;
use crate::exit::{Failed, NOT_YET};
use crate::output;

/// How often a node is asked again.
const POLL: Duration = Duration::from_millis(250);

/// Says whether the connected node may be stopped now, by its exit code too.
pub(crate) async fn safe_to_stop(cluster: &Cluster, args: &SafeToStopArgs) -> anyhow::Result<()> {
    let until = Instant::now() + args.wait.unwrap_or_default();
    let safety = loop {
        let safety = cluster.client.any_node().safety().await?;
        if safety.reasons.is_empty() || Instant::now() >= until {
            break safety;
        }
        tokio::time::sleep(POLL).await;
    };
    let Safety { reasons } = safety;
    let safe = reasons.is_empty();
    if cluster.json {
        output::json(&json!({ "safe": safe, "reasons": reasons }))?;
    } else if safe {
        output::line("safe to stop")?;
    } else {
        reasons.iter().try_for_each(output::line)?;
    }
    if safe {
        return Ok(());
    }
    let why = format!("not safe to stop yet: {}", count(reasons.len(), "reason"));
    Err(Failed { code: NOT_YET, why }.into())
}

/// Has the connected node give its slots away, and waits until it has.
pub(crate) async fn drain(cluster: &Cluster, args: &DrainArgs) -> anyhow::Result<()> {
    let node = cluster.client.any_node();
    if args.cancel {
        node.order(Order::StopDraining).await?;
        return output::line("takes slots again");
    }
    node.order(Order::Drain).await?;
    if args.no_wait {
        return output::line("draining");
    }
    let began = Instant::now();
    let mut first: Option<(u64, u64)> = None;
    let mut told = Instant::now();
    loop {
        let status = node.status().await?;
        if status.member.status != Status::Draining {
            let why = "it is not draining any more: somebody has cancelled it, or it restarted";
            return Err(Failed { code: NOT_YET, why: why.to_owned() }.into());
        }
        let left = slots_left(&status);
        let (of, before) = *first.get_or_insert((left, bytes_given(&status)));
        let short: u64 = status.tables.iter().map(|table| u64::from(table.slots_short)).sum();
        let short = short + counter(&status, "slot_set_slots_short");
        if left == 0 {
            break;
        }
        if left == short && args.accept_fewer {
            return output::line(format!(
                "drained as far as there are nodes: {short} slots have fewer copies than they should"
            ));
        }
        if left == short {
            let why = format!(
                "{short} slots are kept: all their other homes have them, and these are fewer than \
                 the tables' `replicas`; add a node, or take --accept-fewer"
            );
            return Err(Failed { code: NOT_YET, why }.into());
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let bytes = bytes_given(&status).saturating_sub(before);
            output::message(progress(left, of, bytes, began.elapsed()));
        }
        tokio::time::sleep(POLL).await;
    }
    output::line("drained: its process may be stopped for good")
}

/// Slots that a node has not given away.
fn slots_left(status: &NodeStatus) -> u64 {
    let left = |table: &annulus_client::TableStatus| {
        u64::from(table.slots_home) + u64::from(table.slots_leaving)
    };
    let of_sets =
        counter(status, "slot_set_slots_home") + counter(status, "slot_set_slots_leaving");
    status.tables.iter().map(left).sum::<u64>() + of_sets
}

/// What it has pushed to others so far, in bytes.
fn bytes_given(status: &NodeStatus) -> u64 {
    counter(status, "sync_bytes_pushed")
}

fn counter(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

fn progress(left: u64, of: u64, bytes: u64, elapsed: Duration) -> String {
    let done = of.saturating_sub(left);
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = done as f64 / seconds;
    let pace = bytes as f64 / seconds / f64::from(1 << 20);
    let rest = if done == 0 {
        "unknown".to_owned()
    } else {
        output::span(Duration::from_secs_f64(left as f64 / rate))
    };
    format!(
        "{done} of {of} slots given away, {rate:.0} a second, {pace:.1} MiB/s, time left {rest}"
    )
}

/// Has all nodes count a dead member out.
pub(crate) async fn remove(cluster: &Cluster, args: &RemoveArgs) -> anyhow::Result<()> {
    let (node, who) = match NodeId::parse(&args.member) {
        // One that the connected node has not met since it started is not among the members.
        Some(id) => (id, id.to_string()),
        None => {
            let member = cluster.member(&args.member).await?;
            (member.id, format!("{} ({})", member.name, member.id))
        }
    };
    cluster.client.any_node().order(Order::Remove { node, accept_loss: args.accept_loss }).await?;
    output::line(format!("{who} is counted out"))
}

/// Has the connected node compare its slots with the other homes at once.
pub(crate) async fn sync_now(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.client.any_node().order(Order::SyncNow).await?;
    output::line("compares all slots with their other homes")
}

/// Prints what happened on the connected node, a JSON object a line.
pub(crate) async fn events(cluster: &Cluster, args: &EventsArgs) -> anyhow::Result<()> {
    let node = cluster.client.any_node();
    let mut after = args.after;
    let mut incarnation = None;
    loop {
        let page = node.events(after).await?;
        // It restarted, and counts anew.
        if incarnation.replace(page.incarnation).is_some_and(|before| before != page.incarnation) {
            after = 0;
            continue;
        }
        if page.forgotten > 0 {
            output::message(format!("{} earlier events are forgotten", page.forgotten));
        }
        for event in &page.events {
            let mut line = serde_json::to_value(event)?;
            line["seen_by"] = json!(page.node);
            output::line(line.to_string())?;
        }
        match page.events.last() {
            Some(last) => after = last.number,
            None if args.follow => tokio::time::sleep(POLL).await,
            None => return Ok(()),
        }
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_rate_and_rest() {
        let after = Duration::from_secs(10);
        let text = progress(75, 100, 25 << 20, after);
        assert_eq!(text, "25 of 100 slots given away, 2 a second, 2.5 MiB/s, time left 30s");
        assert!(progress(100, 100, 0, after).ends_with("time left unknown"));
    }
}
