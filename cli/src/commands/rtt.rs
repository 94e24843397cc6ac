//! `annulus rtt`.

use std::collections::BTreeMap;

use annulus_client::{Error, Member, NodeId, PeerState, Peers};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::RttArgs;
use crate::cluster::Cluster;
use crate::exit::{Failed, UNAVAILABLE};
use crate::output::{self, Rows};

/// Prints how far the other members are from the connected node, or each from each.
pub(crate) async fn run(cluster: &Cluster, args: &RttArgs) -> anyhow::Result<()> {
    let members = cluster.client.members().await?.members;
    if args.all {
        return all(cluster, &members).await;
    }
    let peers = cluster.client.peers().await?;
    if cluster.json {
        return output::json(&json!(peers));
    }
    let mut rows =
        Rows::new(&["NAME", "ADDRESS", "STATE", "VIEW", ">RTT", ">VARIATION", ">SAMPLES"]);
    for peer in &peers.peers {
        let member = members.iter().find(|member| member.id == peer.node);
        let blank = || "-".to_owned();
        let rtt =
            |part: fn(&annulus_client::Rtt) -> String| peer.rtt.as_ref().map_or_else(blank, part);
        rows.push([
            member.map_or_else(|| peer.node.to_string(), |member| member.name.clone()),
            member.map_or_else(blank, |member| member.addr.to_string()),
            state(peer.state).to_owned(),
            agreement(peer.view, peers.view).to_owned(),
            rtt(|rtt| span_us(rtt.smoothed_us)),
            rtt(|rtt| span_us(rtt.variation_us)),
            rtt(|rtt| rtt.samples.to_string()),
        ]);
    }
    rows.print()
}

/// Asks every active member.
async fn all(cluster: &Cluster, members: &[Member]) -> anyhow::Result<()> {
    let active: Vec<&Member> = members.iter().filter(|m| m.status.is_active()).collect();
    let mut asked = JoinSet::new();
    for member in &active {
        let (id, node) = (member.id, cluster.client.node(member.addr));
        asked.spawn(async move { (id, node.peers().await) });
    }
    let mut answers: BTreeMap<NodeId, Result<Peers, Error>> = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (id, answer) = answer?;
        answers.insert(id, answer);
    }
    if cluster.json {
        let answered: Vec<&Peers> = answers.values().filter_map(|it| it.as_ref().ok()).collect();
        output::json(&json!({ "nodes": answered }))?;
    } else if active.len() <= MATRIX_MAX {
        print_matrix(&active, &answers)?;
    } else {
        print_ranges(&active, &answers)?;
    }
    all_answered(answers.values().map(|answer| answer.as_ref().err()))
}

/// The most members that are shown each against each.
const MATRIX_MAX: usize = 12;

/// Whether all members that were asked have answered, each without an error.
///
/// # Errors
/// How many did not, and why the first of them did not.
pub(crate) fn all_answered<'a>(
    errors: impl ExactSizeIterator<Item = Option<&'a Error>>,
) -> anyhow::Result<()> {
    let asked = errors.len();
    let silent: Vec<&Error> = errors.flatten().collect();
    let Some(first) = silent.first() else { return Ok(()) };
    let why = format!("{} of {asked} active members did not answer: {first}", silent.len());
    Err(Failed { code: UNAVAILABLE, why }.into())
}

fn print_matrix(
    members: &[&Member],
    answers: &BTreeMap<NodeId, Result<Peers, Error>>,
) -> anyhow::Result<()> {
    let headings: Vec<String> = members.iter().map(|member| format!(">{}", member.name)).collect();
    let headings = ["FROM"].into_iter().chain(headings.iter().map(String::as_str));
    let mut rows = Rows::new(&headings.collect::<Vec<_>>());
    for from in members {
        let distances = distances(answers, from.id);
        let cells = members.iter().map(|to| match distances.get(&to.id) {
            Some(us) => span_us(*us),
            None => "-".to_owned(),
        });
        rows.push([from.name.clone()].into_iter().chain(cells));
    }
    rows.print()
}

/// Of each member the nearest, the median and the farthest of the others.
fn print_ranges(
    members: &[&Member],
    answers: &BTreeMap<NodeId, Result<Peers, Error>>,
) -> anyhow::Result<()> {
    let mut rows = Rows::new(&["FROM", "ADDRESS", ">MEASURED", ">NEAREST", ">MEDIAN", ">FARTHEST"]);
    for from in members {
        let mut distances: Vec<u32> = distances(answers, from.id).into_values().collect();
        distances.sort_unstable();
        let at = |place: usize| distances.get(place).map_or("-".to_owned(), |us| span_us(*us));
        let count = distances.len();
        let [nearest, median, farthest] = [0, count / 2, count.saturating_sub(1)].map(at);
        let (name, addr) = (from.name.clone(), from.addr.to_string());
        rows.push([name, addr, count.to_string(), nearest, median, farthest]);
    }
    rows.print()
}

/// The round trips that a node measured, in microseconds.
fn distances(
    answers: &BTreeMap<NodeId, Result<Peers, Error>>,
    from: NodeId,
) -> BTreeMap<NodeId, u32> {
    let peers = answers.get(&from).and_then(|answer| answer.as_ref().ok());
    let measured = peers.iter().flat_map(|peers| &peers.peers);
    measured.filter_map(|peer| Some((peer.node, peer.rtt?.smoothed_us))).collect()
}

/// A state for people.
pub(crate) fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Alive => "alive",
        PeerState::Suspected => "suspected",
        PeerState::Missing => "missing",
        PeerState::Presumed => "presumed down",
        PeerState::Down => "down",
        PeerState::Left => "left",
    }
}

fn agreement(theirs: u64, ours: u64) -> &'static str {
    match theirs {
        0 => "unheard",
        view if view == ours => "same",
        _ => "differs",
    }
}

/// A short time for people.
pub(crate) fn span_us(us: u32) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{:.1} ms", f64::from(us) / 1e3),
        _ => format!("{:.0} ms", f64::from(us) / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_about_three_digits() {
        let shown = [0, 999, 1_000, 12_345, 99_949, 100_000, 2_000_000].map(span_us);
        let expected = ["0 µs", "999 µs", "1.0 ms", "12.3 ms", "99.9 ms", "100 ms", "2000 ms"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn views_are_the_same_differ_or_were_never_heard() {
        assert_eq!([0, 7, 8].map(|theirs| agreement(theirs, 7)), ["unheard", "same", "differs"]);
    }
}
