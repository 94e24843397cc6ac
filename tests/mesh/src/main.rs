//! Simulates membership, and puts ours, foca as it comes and the targets side by side.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annulus_mesh_sim::report::{self, Asked, Effort, Said, Who};
use annulus_mesh_sim::scenarios::{SCENARIOS, Scenario};
use clap::Parser;

#[derive(Parser)]
#[command(
    name = "annulus-simulate",
    about = "Simulates membership: ours beside foca's preset for a LAN",
    after_help = "Without --quick and --long it takes some minutes. It fails when ours misses a target."
)]
struct Arguments {
    /// Under a minute: small clusters, one seed each
    #[arg(long, conflicts_with = "long")]
    quick: bool,
    /// Hours: many seeds, a day of simulated time
    #[arg(long)]
    long: bool,
    /// Only this scenario; may be repeated ("help" names them)
    #[arg(long)]
    scenario: Vec<String>,
    /// Clusters of so many nodes, and no others
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=4096))]
    nodes: Vec<u16>,
    /// Only at this probability that a packet is lost
    #[arg(long, value_parser = loss)]
    loss: Vec<f64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: Option<u64>,
    /// How many minutes of simulated time, where what happens does not decide that
    #[arg(long, value_parser = minutes)]
    minutes: Option<Duration>,
    /// Only one of the two: "ours" or "foca"
    #[arg(long, value_parser = who)]
    only: Option<Who>,
    /// How many runs at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// A JSON object per figure instead of the table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(name) = arguments.scenario.iter().find(|name| Scenario::named(name).is_none()) {
        eprintln!("there is no scenario {name:?}; there are");
        for scenario in SCENARIOS {
            eprintln!("  {:9} {}", scenario.name, scenario.about);
        }
        return ExitCode::FAILURE;
    }
    let cells = cells(&arguments);
    let whom = arguments.only.map_or(Who::ALL.to_vec(), |who| vec![who]);
    #[allow(clippy::disallowed_methods, reason = "how long it takes is real time")]
    let began = Instant::now();
    let jobs = usize::from(arguments.jobs);
    // When each run was first heard of, and how far it was; and when it was last told of.
    let (mut begun, mut told) = (BTreeMap::new(), BTreeMap::new());
    let runs = report::run(&cells, &whom, jobs, true, |said| match said {
        // Long runs only: the others are over soon.
        Said::Progress(cell, who, seed, far) if cell.length > Duration::from_secs(600) => {
            let now = began.elapsed();
            let run = (cell.scenario.name, cell.nodes, who, seed);
            let (first, from) = *begun.entry(run).or_insert((now, far));
            let left = (now - first).mul_f64((1.0 - far) / (far - from).max(1e-9));
            let told = told.entry(run).or_insert(now);
            if now >= *told + PROGRESS {
                *told = now;
                let (name, nodes, _, _) = run;
                let who = who.name();
                eprintln!("  {name} {nodes} nodes, {who}: {:.1} %, {left:.0?} left", far * 100.0);
            }
        }
        Said::Progress(..) => {}
        Said::Over(cell, done, over, total) => {
            let (name, loss, elapsed) = (cell.scenario.name, cell.loss, began.elapsed());
            eprintln!(
                "{over}/{total} {name} {} nodes, loss {loss}, {}, seed {}, trace {:016x}: {elapsed:.1?} \
                 since the start",
                cell.nodes,
                done.who.name(),
                done.seed,
                done.figures.trace
            );
        }
    });
    let rows = report::rows(&cells, &runs);
    if arguments.json {
        rows.iter().for_each(|row| println!("{}", row.json(&cells)));
    } else {
        print!("{}", report::table(&cells, &rows));
    }
    let missed = rows.iter().filter(|row| row.holds() == Some(false)).count();
    let held = rows.iter().filter(|row| row.holds() == Some(true)).count();
    eprintln!("{held} targets hold, {missed} are missed, in {:.0?}", began.elapsed());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How often to say how far a run is.
const PROGRESS: Duration = Duration::from_secs(10);

fn cells(arguments: &Arguments) -> Vec<report::Cell> {
    let effort = match (arguments.quick, arguments.long) {
        (true, _) => Effort::Quick,
        (_, true) => Effort::Long,
        _ => Effort::Some,
    };
    effort.cells(&Asked {
        scenarios: arguments.scenario.clone(),
        nodes: arguments.nodes.iter().map(|nodes| usize::from(*nodes)).collect(),
        losses: arguments.loss.clone(),
        seed: arguments.seed,
        seeds: arguments.seeds,
        length: arguments.minutes,
    })
}

fn loss(text: &str) -> Result<f64, String> {
    let loss = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..1.0).contains(&loss) { Ok(loss) } else { Err("from 0 to below 1".to_owned()) }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().map_err(|error| error.to_string())?;
    if !(0.0..=100_000.0).contains(&minutes) {
        return Err("from 0 to 100000".to_owned());
    }
    Ok(Duration::from_secs_f64(60.0 * minutes))
}

fn who(text: &str) -> Result<Who, String> {
    let found = Who::ALL.into_iter().find(|who| who.name() == text);
    found.ok_or_else(|| "\"ours\" or \"foca\"".to_owned())
}
