//! What a node gets done by itself: of one core and of more, with nobody beside it.
//!
//! The node is stopped (SIGSTOP) while clients fill their lanes, and goes on while they sleep: clients
//! that ran at the same time would take the processors that more cores are to use.

use std::thread;
use std::time::{Duration, Instant};

use annulus_client::{
    LaneTable, LocalGet, LocalReader, LocalValue, NotHandedOver, StartOptions, Value,
};
use anyhow::Context;

use super::open_lane;
use crate::entries::{key, shuffled, value};
use crate::machine::{self, Machine};
use crate::process::{Cluster, Site, TableConfig};
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// A node, and its clients' lanes.
struct Subject {
    cores: u16,
    cluster: Cluster,
    lanes: Vec<LaneTable>,
    reader: LocalReader,
    order: Vec<u64>,
    rates: Rounds,
}

/// Lanes that are filled: some ten thousand updates for each core.
const LANES: usize = 64;

/// Measures nodes of one core and of as many as there are processors, on all of these.
pub(super) fn run(
    site: &Site,
    machine: &Machine,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    machine::pin_to(&machine.cores)?;
    let most = u16::try_from(machine.cores.len())?;
    let mut subjects = Vec::new();
    for cores in [1, most.max(2)] {
        subjects.push(Subject::open(site, machine, cores)?);
    }
    for round in 0..rounds {
        for subject in &mut subjects {
            subject.measure(round as u64)?;
        }
    }
    let name = |cores| format!("updates done by a node alone, cores = {cores}");
    let [one, more] = &subjects[..] else { unreachable!("two were opened") };
    report.row(&name(one.cores), Unit::PerSecond, &one.rates);
    report.row_against(&name(more.cores), Unit::PerSecond, &more.rates, &name(one.cores));
    report.note(format!(
        "a node alone: {LANES} lanes were filled while it was stopped, and nothing else ran until all of it was done"
    ));
    Ok(())
}

impl Subject {
    fn open(site: &Site, machine: &Machine, cores: u16) -> anyhow::Result<Self> {
        let table = TableConfig::new("sessions", "one", "64MiB".to_owned());
        let cluster = Cluster::start_with(site, &machine.cores, cores, 1, &[table])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(cluster.agreed())?;
        let lanes = (0..LANES).map(|_| open_lane(&cluster));
        let lanes = lanes.collect::<anyhow::Result<Vec<_>>>()?;
        let segment = lanes[0].node().segments.first().context("the node has a segment")?;
        let reader = LocalReader::attach(&segment.path, segment.instance)?;
        let reader = reader.context("the segment is the node's")?;
        let tables = lanes.iter().map(|lane| lane.table("sessions"));
        let lanes: Vec<_> = tables.collect::<Option<_>>().context("the node has no such table")?;
        for number in 0..SESSIONS_HERE {
            let bytes = Value::Bytes(value(number).to_vec());
            lanes[0].start(key(number), bytes, StartOptions::default())?;
        }
        let order = shuffled(SESSIONS_HERE);
        Ok(Self { cores, cluster, lanes, reader, order, rates: Rounds::default() })
    }

    fn measure(&mut self, round: u64) -> anyhow::Result<()> {
        // Each session once, so that its value tells when it was done.
        let mut numbers = self.order.iter().copied();
        let written = |number| value(number + (round + 1) * SESSIONS_HERE);
        let (mut updates, mut last) = (0, Vec::new());
        self.cluster.nodes[0].freeze()?;
        for lane in &self.lanes {
            let (mut refused, begun) = (0, last.len());
            // One core's part is full before the others' are.
            while refused < REFUSED_MAX {
                let number = numbers.next().context("more sessions than lanes have room for")?;
                match lane.update_soon(key(number), None, &written(number)) {
                    Ok(()) => {
                        updates += 1;
                        last.push(number);
                    }
                    Err(NotHandedOver::Full) => refused += 1,
                    Err(other) => return Err(other.into()),
                }
            }
            // Of each core the last, as good as certainly.
            last.drain(begun..last.len().saturating_sub(LAST).max(begun));
        }
        let mut value = Vec::new();
        let began = Instant::now();
        self.cluster.nodes[0].thaw()?;
        while let Some(number) = last.last() {
            match self.reader.get(key(*number), &mut value) {
                LocalGet::Live(session) if is(&session.value, &written(*number)) => {
                    last.pop();
                }
                _ => thread::sleep(LOOK_AGAIN),
            }
        }
        self.rates.push(f64::from(updates) / began.elapsed().as_secs_f64());
        Ok(())
    }
}

fn is(value: &LocalValue<'_>, bytes: &[u8]) -> bool {
    matches!(value, LocalValue::Bytes(stored) if *stored == bytes)
}

/// Sessions that are updated: more than all lanes have room for.
const SESSIONS_HERE: u64 = 60_000;
/// After so many refusals in a row, as good as certainly, a lane has no room for any core.
const REFUSED_MAX: u32 = 32;
/// Updates of each lane that are looked for.
const LAST: usize = 16;
/// How long the measuring thread sleeps between two looks.
const LOOK_AGAIN: Duration = Duration::from_micros(200);
