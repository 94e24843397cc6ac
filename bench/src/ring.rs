//! The suite `ring`: how evenly slots lie on nodes, and what a change of the nodes moves.
//!
//! Clusters of equal nodes with random ids, R = 3, several of them; no network, no node. Placement
//! in groups beside what it took the place of and what a user would pick instead.

use std::hint::black_box;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

use self::subject::{Homes, Placement, SLOTS, Subject};
use crate::Options;
use crate::entries::shuffled;
use crate::machine::{self, Machine};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

mod subject;

/// How many nodes clusters have, and in how many random clusters each figure is taken.
const CLUSTERS: [(usize, u64); 7] =
    [(3, 20), (5, 20), (12, 20), (50, 20), (100, 20), (300, 7), (1_000, 7)];

/// Homes of a slot.
const HOMES: usize = 3;

/// Measures everything.
///
/// # Errors
/// If the measuring thread cannot be pinned.
pub(crate) fn run(machine: &Machine, options: Options, report: &mut Report) -> anyhow::Result<()> {
    if let Some(core) = machine.cores.first() {
        machine::pin(*core)?;
    }
    report.heading(
        "peers",
        "rendezvous hashing of each slot (what Annulus had before), a ring with 256 virtual nodes each, \
         jump hashing of nodes numbered as they came",
    );
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    for (nodes, clusters) in CLUSTERS {
        report.progress(&format!("{nodes} nodes"));
        let clusters = if options.quick { clusters.div_ceil(5) } else { clusters };
        for subject in Subject::ALL {
            spread(subject, nodes, clusters, report);
        }
    }
    report.progress("times");
    let rounds = if options.quick { 3 } else { 9 };
    for (nodes, _) in CLUSTERS {
        for subject in Subject::ALL {
            build(subject, nodes, rounds, report);
        }
    }
    find(rounds, report);
    report.note(
        "a cluster is a round: a figure is the median of the clusters, with the lowest and the highest \
         beside it; peaks are those of the worst cluster",
    );
    report.note(
        "moves are copies that come to a node that had none, over what a join of an equal node has to \
         move to it (R / (n + 1) of all slots), or over what the leaving node, any of them, held",
    );
    report.note(
        "jump hashing asks that somebody numbers the nodes; a node that leaves gives its number to the last",
    );
    report
        .note("maps are bytes of an answer to CLUSTER SLOTS, with the primary of each range alone");
    Ok(())
}

/// Balance, moves and size of the map.
fn spread(subject: Subject, nodes: usize, clusters: u64, report: &mut Report) {
    let [mut joins, mut leaves, mut roles] = [const { Rounds::new() }; 3];
    let (mut replicas_peak, mut primaries_peak, mut bytes) = (0.0_f64, 0.0_f64, 0_usize);
    for cluster in 0..clusters {
        let mut ids = random_ids(cluster, nodes + 1);
        let joined = subject.place(&ids, HOMES);
        ids.pop();
        let before = subject.place(&ids, HOMES);
        let leaver = (cluster as usize * 7) % nodes;
        let left = ids[leaver];
        ids.swap_remove(leaver);
        let after = subject.place(&ids, HOMES);

        replicas_peak = replicas_peak.max(peak(&before, nodes, HOMES));
        primaries_peak = primaries_peak.max(peak(&before, nodes, 1));
        let least = |copies: usize| (copies * SLOTS) as f64 / (nodes + 1) as f64;
        joins.push(moved(&before, &joined) as f64 / least(HOMES.min(nodes + 1)));
        roles.push(other_primaries(&before, &joined) as f64 / least(1));
        if nodes > HOMES {
            leaves.push(moved(&before, &after) as f64 / held(&before, left) as f64);
        }
        bytes = bytes.max(answer_to_cluster_slots(&before, 1).len());
    }
    let name = |what: &str| format!("{nodes} nodes, {what}: {}", subject.name());
    let goal = |must: Option<f64>| {
        let must = must.filter(|_| subject == Subject::Annulus);
        must.map(|must| Goal { must, stretch: None })
    };
    let one = |value: f64| {
        let mut rounds = Rounds::default();
        rounds.push(value);
        rounds
    };
    let up_to_100 = |must: f64| (nodes <= 100).then_some(must);
    let moves_must = match nodes {
        ..=12 => Some(1.1),
        13..=50 => Some(1.3),
        51..=100 => Some(1.6),
        _ => None,
    };
    let primaries_must = if nodes <= 50 { Some(1.2) } else { up_to_100(1.3) };
    let rows = [
        ("replicas, peak to average", Unit::Times, one(replicas_peak), up_to_100(1.11)),
        ("primaries, peak to average", Unit::Times, one(primaries_peak), primaries_must),
        ("a join moves", Unit::Times, joins, moves_must),
        ("a leave moves", Unit::Times, leaves, moves_must),
        ("a join moves primaries", Unit::Times, roles, None),
        ("map of primaries", Unit::Bytes, one(bytes as f64), Some(100.0 * 1_024.0)),
    ];
    for (what, unit, rounds, must) in rows {
        match goal(must) {
            Some(goal) => report.goal(&name(what), unit, &rounds, None, goal),
            None => report.row(&name(what), unit, &rounds),
        }
    }
    if subject == Subject::Annulus {
        let ids = random_ids(0, nodes);
        let all = answer_to_cluster_slots(&subject.place(&ids, HOMES), HOMES).len() as f64;
        report.row(&name("map of all homes"), Unit::Bytes, &one(all));
    }
}

/// How long a ring takes to compute anew, as a node does for each change.
fn build(subject: Subject, nodes: usize, rounds: usize, report: &mut Report) {
    let Some(placement) = subject.prepare(&random_ids(1, nodes)) else { return };
    let mut equal = Rounds::new();
    for _ in 0..rounds {
        equal.push(ms(|| drop(black_box(placement.build(HOMES)))));
    }
    let name = format!("{nodes} nodes, computed anew: {}", subject.name());
    if subject != Subject::Annulus {
        return report.row(&name, Unit::Ms, &equal);
    }
    let goal = Goal { must: 5.0, stretch: None };
    report.goal(&name, Unit::Ms, &equal, None, goal);
    let mixed = Placement::mixed(&random_ids(1, nodes));
    let mut times = Rounds::new();
    for _ in 0..rounds {
        times.push(ms(|| drop(black_box(mixed.build(HOMES)))));
    }
    let name = format!("{nodes} nodes, 4 weights in 4 zones, computed anew: {}", subject.name());
    report.goal(&name, Unit::Ms, &times, None, goal);
}

/// How long it takes to find a slot's homes among 1,000 nodes.
fn find(rounds: usize, report: &mut Report) {
    let ids = random_ids(1, 1_000);
    let slots = shuffled(SLOTS as u64).into_iter().map(|slot| slot as u16).collect::<Vec<_>>();
    for subject in [Subject::VirtualNodes, Subject::Jump, Subject::Annulus] {
        let built = subject.prepare(&ids).map(|placement| placement.build(HOMES));
        let mut times = Rounds::new();
        for _ in 0..rounds {
            let took = ms(|| {
                for slot in &slots {
                    black_box(match &built {
                        Some(built) => built.find(*slot, HOMES),
                        None => subject::jump(*slot, ids.len(), HOMES).iter().sum::<usize>() as u64,
                    });
                }
            });
            times.push(took * 1e6 / SLOTS as f64);
        }
        let name = format!("1,000 nodes, homes of a slot: {}", subject.name());
        if subject == Subject::Annulus {
            let goal = Goal { must: 20.0, stretch: None };
            report.goal(&name, Unit::Ns, &times, None, goal);
        } else {
            report.row(&name, Unit::Ns, &times);
        }
    }
}

/// Of this thread's processor time: others want the machine too.
fn ms(work: impl FnOnce()) -> f64 {
    let now = || clock_gettime(ClockId::ThreadCPUTime);
    let began = now();
    work();
    let ended = now();
    (ended.tv_sec - began.tv_sec) as f64 * 1e3 + (ended.tv_nsec - began.tv_nsec) as f64 / 1e6
}

/// Ids as nodes draw them: 48 random bits. The first of a cluster are the same whatever its size.
fn random_ids(cluster: u64, count: usize) -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(cluster);
    (0..count).map(|_| rng.random_range(1..1 << 48)).collect()
}

/// The most that a node holds of the first `homes` homes, over the average.
fn peak(placed: &[Homes], nodes: usize, homes: usize) -> f64 {
    let mut ids = placed.iter().flat_map(|all| &all[..homes.min(all.len())]).collect::<Vec<_>>();
    ids.sort_unstable();
    let most = ids.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
    most as f64 * nodes as f64 / ids.len() as f64
}

fn held(placed: &[Homes], id: u64) -> usize {
    placed.iter().filter(|homes| homes.contains(&id)).count()
}

/// Copies that nodes have after and had not before.
fn moved(before: &[Homes], after: &[Homes]) -> usize {
    let come = |(before, after): (&Homes, &Homes)| {
        after.iter().filter(|home| !before.contains(home)).count()
    };
    before.iter().zip(after).map(come).sum()
}

fn other_primaries(before: &[Homes], after: &[Homes]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before[0] != after[0]).count()
}

/// What a cluster client reads in RESP2: a range and its nodes, each an address, a port, an id of
/// 40 digits and an empty list.
fn answer_to_cluster_slots(placed: &[Homes], homes: usize) -> String {
    use std::fmt::Write;

    let of = |slot: usize| &placed[slot][..homes.min(placed[slot].len())];
    let ranges = (0..placed.len()).collect::<Vec<_>>();
    let ranges = ranges.chunk_by(|a, b| of(*a) == of(*b)).collect::<Vec<_>>();
    let mut answer = format!("*{}\r\n", ranges.len());
    for range in ranges {
        let (first, last) = (range[0], range[range.len() - 1]);
        write!(answer, "*{}\r\n:{first}\r\n:{last}\r\n", 2 + of(first).len()).expect("a string");
        for id in of(first) {
            let ip = format!("10.{}.{}.{}", id % 4, id / 4 % 250, id / 1_000 % 250);
            let node =
                format!("*4\r\n${}\r\n{ip}\r\n:7946\r\n$40\r\n{id:040x}\r\n*0\r\n", ip.len());
            answer.push_str(&node);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_and_moves_are_counted_over_all_slots() {
        let before = vec![vec![1, 2], vec![1, 3], vec![2, 1], vec![3, 2]];
        let after = vec![vec![1, 2], vec![4, 3], vec![2, 4], vec![2, 3]];
        assert!((peak(&before, 3, 2) - 3.0 * 3.0 / 8.0).abs() < 1e-9);
        assert!((peak(&before, 3, 1) - 2.0 * 3.0 / 4.0).abs() < 1e-9);
        assert_eq!((moved(&before, &after), other_primaries(&before, &after)), (2, 2));
        assert_eq!(held(&before, 1), 3);
    }

    #[test]
    fn maps_merge_neighbours_that_are_alike() {
        let placed = vec![vec![1, 2], vec![1, 3], vec![2, 1]];
        assert!(answer_to_cluster_slots(&placed, 1).starts_with("*2\r\n*3\r\n:0\r\n:1\r\n*4\r\n"));
        assert!(answer_to_cluster_slots(&placed, 2).starts_with("*3\r\n*4\r\n:0\r\n:0\r\n*4\r\n"));
    }

    #[test]
    fn every_subject_gives_each_slot_distinct_homes() {
        for subject in Subject::ALL {
            for nodes in [1, 2, 3, 7] {
                let ids = random_ids(5, nodes);
                let placed = subject.place(&ids, HOMES);
                assert_eq!(placed.len(), SLOTS);
                for mut homes in placed {
                    assert!(
                        homes.len() == HOMES.min(nodes) && homes.iter().all(|h| ids.contains(h))
                    );
                    homes.sort_unstable();
                    assert!(homes.windows(2).all(|pair| pair[0] != pair[1]), "{}", subject.name());
                }
            }
        }
    }
}
