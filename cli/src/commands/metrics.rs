//! `annulus metrics`.

use std::fmt::Write;

use annulus_client::{Members, NodeStatus, Peer, Peers, TableStatus};
use serde_json::json;

use super::members::status;
use super::rtt::state;
use crate::cluster::Cluster;
use crate::output;

/// Prints the connected node's counters and gauges in Prometheus' text format.
pub(crate) async fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let node = cluster.client.status().await?;
    let peers = cluster.client.peers().await?;
    let members = cluster.client.members().await?;
    let metrics = metrics(&node, &peers, &members);
    if cluster.json {
        return output::json(&metrics.iter().map(Metric::json).collect::<Vec<_>>());
    }
    output::write(metrics.iter().map(Metric::text).collect::<String>().as_bytes())
}

/// One figure, once or for each of several things.
struct Metric {
    name: String,
    kind: Kind,
    help: &'static str,
    samples: Vec<(Labels, f64)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

impl Metric {
    fn gauge(name: &str, help: &'static str, samples: Vec<(Labels, f64)>) -> Self {
        Self { name: format!("annulus_{name}"), kind: Kind::Gauge, help, samples }
    }

    fn text(&self) -> String {
        let Self { name, kind, help, samples } = self;
        if samples.is_empty() {
            return String::new();
        }
        let mut text = String::new();
        if !help.is_empty() {
            let _ = writeln!(text, "# HELP {name} {help}");
        }
        let _ = writeln!(text, "# TYPE {name} {}", kind.name());
        for (labels, value) in samples {
            let labels =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
            let labels = labels.collect::<Vec<_>>().join(",");
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(text, "{name}{labels} {value}");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let samples = self.samples.iter().map(|(labels, value)| {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
            json!({ "labels": labels.collect::<serde_json::Map<_, _>>(), "value": value })
        });
        let samples = samples.collect::<Vec<_>>();
        json!({ "name": self.name, "type": self.kind.name(), "samples": samples })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

fn metrics(node: &NodeStatus, peers: &Peers, members: &Members) -> Vec<Metric> {
    let mut all = of_node(node);
    all.extend(of_tables(&node.tables));
    all.extend(of_peers(peers, members));
    all.extend(node.counters.iter().map(|(name, count)| {
        let is_gauge = GAUGES.contains(&name.as_str());
        let (kind, end) = if is_gauge { (Kind::Gauge, "") } else { (Kind::Counter, "_total") };
        let (name, samples) = (format!("annulus_{name}{end}"), vec![(Vec::new(), *count as f64)]);
        Metric { name, kind, help: "", samples }
    }));
    all
}

/// Among the counters of a status those that go down again.
const GAUGES: &[&str] = &[
    "calls_open",
    "clock_off_by_ms",
    "copies_below_k",
    "cores",
    "mesh_local_health",
    "mesh_peers_alive",
    "mesh_peers_down",
    "mesh_peers_missing",
    "mesh_peers_presumed",
    "mesh_peers_suspected",
    "mesh_peers_unmet",
    "near_copies",
    "requests_waiting",
    "slot_set_slots_failed",
    "slot_set_slots_home",
    "slot_set_slots_leaving",
    "slot_set_slots_short",
    "slot_set_slots_unready",
    "tables_refused_memory",
];

fn of_node(node: &NodeStatus) -> Vec<Metric> {
    let me = &node.member;
    let info = vec![
        ("cluster", node.cluster.clone()),
        ("node", me.id.to_string()),
        ("name", me.name.clone()),
        ("zone", me.zone.clone()),
        ("status", status(me.status).to_owned()),
        ("software", node.software.clone()),
    ];
    let one = |value: f64| vec![(Vec::new(), value)];
    vec![
        Metric::gauge("node_info", "This node, as it is now.", vec![(info, 1.0)]),
        Metric::gauge(
            "uptime_seconds",
            "How long it has been running.",
            one(node.uptime_ms as f64 / 1e3),
        ),
        Metric::gauge(
            "members_active",
            "Members that it sees take part, itself included.",
            one(node.active_members.into()),
        ),
        Metric::gauge(
            "members_agreeing",
            "Members among these that were last heard of with its view, itself included.",
            one(node.agreeing_members.into()),
        ),
    ]
}

/// A table's: its name, what it is, and how to find it.
type Figure = (&'static str, &'static str, fn(&TableStatus) -> u64);

fn of_tables(tables: &[TableStatus]) -> Vec<Metric> {
    let figures: [Figure; 10] = [
        ("table_entries", "Entries held, ended ones too.", |table| table.entries),
        (
            "table_capacity",
            "The entries it has memory for, if all are as large as those there.",
            |table| table.capacity,
        ),
        ("table_bytes", "Bytes of keys and values.", |table| table.bytes),
        (
            "table_segment_bytes",
            "The size of its segment; 0 before memory was reserved for it.",
            |table| table.segment_bytes,
        ),
        ("table_huge_bytes", "How much of that lies in huge pages.", |table| table.huge_bytes),
        ("table_reserve_used", "Entries in the reserve of a full table.", |t| t.reserve_used),
        ("table_slots_home", "Slots that it is a home of.", |table| table.slots_home.into()),
        ("table_slots_unsynced", "Of these, not in sync yet.", |table| table.slots_unsynced.into()),
        ("table_slots_undecided", "Slots without a known majority.", |t| t.slots_undecided.into()),
        ("table_hints", "Writes kept for homes out of reach.", |table| table.hints),
    ];
    let figures = figures.into_iter().map(|(name, help, figure)| {
        let samples = tables.iter().map(|table| {
            let labels = vec![("table", table.name.clone())];
            (labels, figure(table) as f64)
        });
        Metric::gauge(name, help, samples.collect())
    });
    figures.collect()
}

fn of_peers(peers: &Peers, members: &Members) -> Vec<Metric> {
    let labels = |peer: &Peer| {
        // In ascending order of ids.
        let found = members.members.binary_search_by_key(&peer.node, |member| member.id);
        let name = found.map(|at| members.members[at].name.clone()).unwrap_or_default();
        vec![("peer", peer.node.to_string()), ("name", name)]
    };
    let each = |figure: &dyn Fn(&Peer) -> Option<f64>| {
        let samples = peers.peers.iter().filter_map(|peer| Some((labels(peer), figure(peer)?)));
        samples.collect::<Vec<_>>()
    };
    let with_state = |peer: &Peer| {
        let mut labels = labels(peer);
        labels.push(("state", state(peer.state).to_owned()));
        (labels, 1.0)
    };
    let seconds = |us: u32| f64::from(us) / 1e6;
    vec![
        Metric::gauge(
            "peer_state",
            "What this node takes another one for.",
            peers.peers.iter().map(with_state).collect(),
        ),
        Metric::gauge(
            "peer_agrees",
            "Whether another node was last heard of with this one's view.",
            each(&|peer| (peer.view != 0).then_some(f64::from(u8::from(peer.view == peers.view)))),
        ),
        Metric::gauge(
            "peer_round_trip_seconds",
            "The round trip to another node, smoothed.",
            each(&|peer| Some(seconds(peer.rtt?.smoothed_us))),
        ),
        Metric::gauge(
            "peer_round_trip_variation_seconds",
            "How much that round trip varies.",
            each(&|peer| Some(seconds(peer.rtt?.variation_us))),
        ),
    ]
}

/// A label's value as the text format has it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_says_what_it_is_and_each_sample_for_what_it_holds() {
        let sample =
            |name: &str, value| (vec![("peer", name.to_owned()), ("zone", String::new())], value);
        let samples = vec![sample("a", 1.0), sample("b\"\\\n", 0.001_5)];
        let metric = Metric::gauge("x", "What.", samples);
        let expected = "# HELP annulus_x What.\n# TYPE annulus_x gauge\n\
                        annulus_x{peer=\"a\",zone=\"\"} 1\n\
                        annulus_x{peer=\"b\\\"\\\\\\n\",zone=\"\"} 0.0015\n";
        assert_eq!(metric.text(), expected);
    }

    #[test]
    fn what_has_no_sample_is_not_spoken_of() {
        assert_eq!(Metric::gauge("x", "What.", Vec::new()).text(), "");
    }

    #[test]
    fn large_counts_are_written_in_digits() {
        let metric = Metric::gauge("x", "", vec![(Vec::new(), 1e15)]);
        assert_eq!(metric.text(), "# TYPE annulus_x gauge\nannulus_x 1000000000000000\n");
    }
}
