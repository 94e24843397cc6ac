//! Side-by-side benchmarks against what a user would pick instead.
//!
//! `annulus-bench SUITE` starts real processes, each with its own directory, runs the suite's subjects
//! and their peers in turn, several rounds of them, and prints a row for each figure: the median of the
//! rounds and how far they lay apart. Rows that we lose are printed as they are.
//!
//! The binary is also what it starts: `node` runs a node through `annulus_node::run`, so that what is
//! measured is built as the benchmark is, `table-writer` writes a segment, and `exec` runs another
//! program on a core of its own.

mod entries;
mod handover;
mod heat;
mod lanes;
mod machine;
mod memcached;
mod mesh;
mod near;
mod process;
mod redis;
mod report;
mod resp;
mod restart;
mod ring;
mod rings;
mod sample;
mod sync;
mod table;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use handover::HandoverArgs;
use heat::HeatArgs;
use machine::Machine;
use process::Site;
use report::Report;
use rings::RingsArgs;
use sync::SyncArgs;
use table::{TableArgs, WriterArgs};

/// Measure Annulus beside what a user would pick instead
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What to measure, and how.
#[derive(Args)]
struct Run {
    /// What to measure
    #[arg(required = true)]
    suite: Option<Suite>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    handover: HandoverArgs,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    heat: HeatArgs,
    #[command(flatten)]
    rings: RingsArgs,
}

/// How to measure.
#[derive(Args, Clone, Copy)]
struct Options {
    /// Fewer rounds of fewer requests: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Print a JSON object per row instead of a table; everything else goes to standard error
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    /// Reads, writes, memory, agreement and fail-over of small clusters
    Mesh,
    /// The table in shared memory, beside maps, a database and servers
    Table,
    /// Writes through shared memory
    Lanes,
    /// How evenly slots lie on nodes, and what a change moves
    Ring,
    /// How soon a killed node serves again, and what keeping on disk costs
    Restart,
    /// What it costs to find out in what two nodes differ
    Sync,
    /// How fast a node that joins gets its slots, and what is felt of it
    Handover,
    /// How often a table hits that evicts by heat, beside other policies
    Heat,
    /// What is read out of shared memory on hosts that are no homes of it, and how far that is behind
    Near,
    /// What it costs that sessions go outward and come in, and that a user's are ended wherever they are
    Rings,
    /// The door for clients of Redis, beside Redis
    Resp,
}

/// What this binary is when it starts itself.
#[derive(Subcommand)]
enum Inner {
    /// Be a node
    #[command(hide = true)]
    Node {
        #[arg(long, required = true)]
        core: Vec<usize>,
        #[arg(long)]
        config: PathBuf,
    },
    /// Write a segment
    #[command(hide = true)]
    TableWriter(WriterArgs),
    /// Become another program
    #[command(hide = true)]
    Exec {
        #[arg(long)]
        core: usize,
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.inner, cli.run.suite) {
        (Some(Inner::Node { core, config }), _) => process::be_node(&core, config),
        (Some(Inner::Exec { core, command }), _) => process::become_program(core, &command),
        (Some(Inner::TableWriter(args)), _) => table::be_writer(&args),
        (None, Some(suite)) => run(suite, &cli.run),
        (None, None) => unreachable!("clap asks for a suite"),
    };
    if let Err(error) = done {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(suite: Suite, args: &Run) -> anyhow::Result<()> {
    let Run { options, table, handover, sync, heat, rings, .. } = args;
    let options = *options;
    let machine = Machine::read();
    let mut site = Site::open().context("no place for the nodes' files")?;
    let mut report = Report::new(suite.name(), options.json);
    report.heading("machine", &machine.to_string());
    report.heading("build", &machine::build());
    match suite {
        Suite::Mesh => mesh::run(&site, &machine, options, &mut report)?,
        Suite::Table => table::run(&site, &machine, options, table, &mut report)?,
        Suite::Lanes => lanes::run(&site, &machine, options, &mut report)?,
        Suite::Ring => ring::run(&machine, options, &mut report)?,
        Suite::Restart => restart::run(&site, &machine, options, &mut report)?,
        Suite::Sync => sync::run(&mut site, &machine, (options, sync), &mut report)?,
        Suite::Handover => handover::run(&mut site, &machine, (options, handover), &mut report)?,
        Suite::Heat => heat::run(options, heat, &mut report)?,
        Suite::Near => near::run(&site, &machine, options, &mut report)?,
        Suite::Rings => rings::run(&site, &machine, (options, rings), &mut report)?,
        Suite::Resp => resp::run(&mut site, &machine, options, &mut report)?,
    }
    report.heading("load", &format!("{} (1, 5, 15 minutes, at the end)", machine::load()));
    report.print()
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Table => "table",
            Self::Lanes => "lanes",
            Self::Ring => "ring",
            Self::Restart => "restart",
            Self::Sync => "sync",
            Self::Handover => "handover",
            Self::Heat => "heat",
            Self::Near => "near",
            Self::Rings => "rings",
            Self::Resp => "resp",
        }
    }
}
