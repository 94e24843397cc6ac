//! New values for existing keys, in the process that writes.

use super::data::Requests;
use super::peers::Peers;
use super::{Bench, Segment};
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

const LMDB: &str = "put: LMDB, transaction per put, no sync";
const OURS: &str = "put: annulus, in the node";

pub(super) fn measure(
    bench: &Bench<'_>,
    segment: &mut Segment,
    peers: &Peers,
    requests: &Requests,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.progress("writes");
    let count = requests.keys.len() / 4;
    let (mut lmdb, mut ours) = (Rounds::default(), Rounds::default());
    // A round that is not measured.
    segment.writer.put(count)?;
    peers.put(requests, count, &mut Rounds::default())?;
    for _ in 0..bench.rounds() {
        ours.push(segment.writer.put(count)?);
        peers.put(requests, count, &mut lmdb)?;
    }
    report.row(LMDB, Unit::Ns, &lmdb);
    report.goal(OURS, Unit::Ns, &ours, None, Goal { must: 500.0, stretch: None });
    report.goal(OURS, Unit::Ns, &ours, Some(LMDB), Goal { must: 0.27, stretch: None });
    Ok(())
}
