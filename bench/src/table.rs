//! The suite `table`: a table in shared memory beside what a user would pick instead.
//!
//! A process of its own writes each segment; this one attaches to the file and reads, on another core.
//! Requests are made before they are measured, the same for every subject, and every subject copies the
//! value into memory of its own. Our lookups read the clock, as a real reader's do. Rounds of all
//! subjects take turns.

mod beside;
mod data;
mod hits;
mod mapping;
mod opening;
#[cfg_attr(not(feature = "peers"), path = "table/no_peers.rs")]
mod peers;
mod plot;
mod servers;
mod subject;
mod writer;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;

use annulus_shm::{Reader, Region};
use anyhow::Context;
use clap::Args;

use self::data::{Requests, Sizes};
use self::mapping::{Mapping, Pages};
use self::peers::Peers;
use self::writer::{Filled, WriterProcess};
use crate::Options;
use crate::machine::{self, Machine};
use crate::process::Site;
use crate::report::{Goal, Report, Unit};
use crate::sample::Rounds;

pub(crate) use self::writer::{WriterArgs, be_writer};

/// What only this suite is told.
#[derive(Args)]
pub(crate) struct TableArgs {
    /// Entries of the table [suite table; default: 1000000, with --quick 100000]
    #[arg(long)]
    entries: Option<u64>,
    /// Draw latency against table size into this SVG file; tables up to 10⁷ entries take 5 GiB and
    /// some minutes [suite table]
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What the suite's parts share.
struct Bench<'a> {
    site: &'a Site,
    entries: u64,
    /// The core of writing processes and servers.
    servers: usize,
    /// The core of the measuring thread.
    apart: usize,
    quick: bool,
}

/// A table that is full, its writing process, and a reader of it in this one.
struct Segment {
    path: PathBuf,
    writer: WriterProcess,
    filled: Filled,
    mapping: Arc<Mapping>,
    reader: Reader,
}

/// Measures everything.
///
/// # Errors
/// What kept a process from starting, or an answer that was not what had been stored.
pub(crate) fn run(
    site: &Site,
    machine: &Machine,
    options: Options,
    args: &TableArgs,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (first, last) = (machine.cores.first(), machine.cores.last());
    let (apart, servers) = first.copied().zip(last.copied()).context("a process has a core")?;
    let entries = args.entries.unwrap_or(if options.quick { 100_000 } else { 1_000_000 });
    let bench = Bench { site, entries, servers, apart, quick: options.quick };
    machine::pin(apart)?;
    report.heading(
        "placement",
        &format!("writers and servers on core {servers}; the measuring thread on core {apart}"),
    );
    report.heading("entries", &format!("{entries}, 32-byte keys, 256-byte values"));
    report.heading("peers", peers::NAMES);
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the start)", machine::load()));
    measure_fixed(&bench, report)?;
    let [large, small] = Segment::pair(&bench, Sizes::Mixed)?;
    hits::measure_mixed(&bench, [&large, &small], report)?;
    drop((large, small));
    if let Some(path) = &args.plot {
        plot::draw(&bench, path, report)?;
    }
    report.note(
        "ours reads the coarse clock in each get, as a reader must; the peers expire nothing",
    );
    report.note(
        "maps hold keys and values inline, of a size the compiler knows, which favours them; with \
         values of different sizes each is in a box of its own",
    );
    report.note("the floor knows where to copy from: no hash, no index, no key, nothing to check");
    Ok(())
}

fn measure_fixed(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    report.progress("filling");
    let mut segments = Segment::pair(bench, Sizes::Fixed)?;
    let requests = Requests::uniform(bench.entries);
    measure_with_peers(bench, &mut segments, &requests, report)?;
    let [mut large, _] = segments;
    beside::measure(bench, &mut large, &requests, report)?;
    opening::measure(bench, large, &requests, report)
}

/// The parts that hold the peers' maps, which are of some size.
fn measure_with_peers(
    bench: &Bench<'_>,
    [large, small]: &mut [Segment; 2],
    requests: &Requests,
    report: &mut Report,
) -> anyhow::Result<()> {
    let peers = Peers::fill(bench)?;
    let lone = hits::measure(bench, [large, small], &peers, report)?;
    servers::measure(bench, requests, &lone, report)?;
    report_memory(bench, &large.filled, report);
    writes::measure(bench, large, &peers, requests, report)
}

fn report_memory(bench: &Bench<'_>, filled: &Filled, report: &mut Report) {
    let mut rounds = Rounds::default();
    let Filled { load, segment_bytes, private_bytes } = *filled;
    let entries = bench.entries as f64;
    rounds.push((segment_bytes + private_bytes) as f64 / entries);
    let name = format!("memory at {:.1} % load: annulus", load * 100.0);
    let goal = Goal { must: 385.0, stretch: Some(350.0) };
    report.goal(&name, Unit::BytesPerEntry, &rounds, None, goal);
    for server in servers::NAMES {
        let server = servers::memory_name(server);
        report.row_against(&name, Unit::BytesPerEntry, &rounds, &server);
    }
    report.note(format!(
        "memory is the whole segment, {:.1} B/entry, and what the writer has allocated, {:.1}; Redis's \
         is used_memory less that of an empty one, memcached's what it has touched",
        segment_bytes as f64 / entries,
        private_bytes as f64 / entries
    ));
}

impl Bench<'_> {
    /// How often each figure is measured.
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 9 }
    }
}

impl Segment {
    /// Two of the same entries, one to be read on large pages, one on small ones: what has been made
    /// large is so for all that map it.
    fn pair(bench: &Bench<'_>, sizes: Sizes) -> anyhow::Result<[Self; 2]> {
        let large = Self::fill(bench, bench.entries, sizes, Pages::Large)?;
        Ok([large, Self::fill(bench, bench.entries, sizes, Pages::Small)?])
    }

    fn fill(bench: &Bench<'_>, entries: u64, sizes: Sizes, pages: Pages) -> anyhow::Result<Self> {
        let path = bench.site.segment(&format!("{sizes:?}-{pages:?}-{entries}"));
        let mut writer = WriterProcess::start(bench.site, bench.servers, &path, entries, sizes)?;
        let filled = writer.fill()?;
        let mapping = Arc::new(Mapping::of(&path, pages, writer.opened.clock_domain)?);
        let region: Arc<dyn Region> = mapping.clone();
        let reader = Reader::attach(region)?;
        Ok(Self { path, writer, filled, mapping, reader })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Its memory is wanted for the next one; at the end the directory goes anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}
