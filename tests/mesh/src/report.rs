//! Which runs there are, running them, and what they come to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::figures::{Figures, Measure, Unit};
use crate::ours::Ours;
use crate::plain::Plain;
use crate::scenarios::{Job, SCENARIOS, Scenario};
use crate::subject::Subject;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Under a minute: small clusters, one seed each.
    Quick,
    /// Some minutes: all sizes.
    Some,
    /// Hours: many seeds, a day of simulated time.
    Long,
}

/// A scenario in a cluster of one size at one loss, on some seeds.
#[derive(Clone, Copy)]
pub struct Cell {
    /// The scenario.
    pub scenario: Scenario,
    /// How many nodes.
    pub nodes: usize,
    /// Probability that a packet is lost.
    pub loss: f64,
    /// The first seed.
    pub seed: u64,
    /// How many seeds.
    pub seeds: u64,
    /// How long it lasts, where what happens does not decide that.
    pub length: Duration,
    /// Whether foca as it comes is left out: what it sends there would take hours to simulate.
    pub is_too_much_for_plain: bool,
}

/// What of an effort is wanted; all of it by default.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// These scenarios and no others; none: all.
    pub scenarios: Vec<String>,
    /// Instead of the effort's own sizes, if there are any.
    pub nodes: Vec<usize>,
    /// Instead of the effort's own losses, if there are any.
    pub losses: Vec<f64>,
    /// The first seed.
    pub seed: u64,
    /// Instead of the effort's own number of seeds.
    pub seeds: Option<u64>,
    /// Instead of the effort's own time, for what lasts as long as it is told.
    pub length: Option<Duration>,
}

/// Whom to run it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// [`Ours`].
    Ours,
    /// [`Plain`].
    Plain,
}

/// One run that is over.
pub struct Done {
    /// Which cell it belongs to.
    pub cell: usize,
    /// On whom.
    pub who: Who,
    /// On which seed.
    pub seed: u64,
    /// What it has measured.
    pub figures: Figures,
}

/// What is said while it runs.
pub enum Said<'a> {
    /// A run is so far, from 0 to 1.
    Progress(&'a Cell, Who, u64, f64),
    /// A run is over; so many are, of so many.
    Over(&'a Cell, &'a Done, usize, usize),
}

impl Who {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ours, Self::Plain];

    /// In tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => Ours::NAME,
            Self::Plain => Plain::NAME,
        }
    }
}

impl Effort {
    /// The cells of this effort.
    pub fn cells(self, asked: &Asked) -> Vec<Cell> {
        let wanted = |scenario: &&Scenario| {
            asked.scenarios.is_empty() || asked.scenarios.iter().any(|name| name == scenario.name)
        };
        let mut cells = Vec::new();
        for scenario in SCENARIOS.iter().filter(wanted) {
            let name = scenario.name;
            let (sizes, losses) = (self.sizes(name), self.losses(name));
            let sizes = if asked.nodes.is_empty() { sizes } else { &asked.nodes };
            let losses = if asked.losses.is_empty() { losses } else { &asked.losses };
            for (nodes, loss) in sizes.iter().flat_map(|n| losses.iter().map(|l| (*n, *l))) {
                cells.push(Cell {
                    scenario: *scenario,
                    nodes,
                    loss,
                    seed: asked.seed,
                    seeds: asked.seeds.unwrap_or(self.seeds(name, nodes)),
                    length: asked.length.unwrap_or(self.length(name, nodes, loss)),
                    // A thousand nodes at such a loss cost it ten seconds for one.
                    is_too_much_for_plain: nodes >= 1_000 && loss > 0.1 && name != "peace",
                });
            }
        }
        cells
    }

    fn sizes(self, name: &str) -> &'static [usize] {
        match (name, self) {
            ("slow1" | "slow8" | "paused" | "oneway", _) => &[100],
            ("together" | "most", Self::Quick) => &[100],
            ("together" | "most", _) => &[100, 1_000],
            ("chaos", _) => &[3, 5, 8, 12],
            ("restart", _) | (_, Self::Quick) => &[10, 100],
            _ => &[10, 100, 1_000],
        }
    }

    fn losses(self, name: &str) -> &'static [f64] {
        match (name, self) {
            ("chaos", _) => &[0.0],
            ("crash" | "join" | "leave" | "peace", _) => &[0.0, 0.05, 0.3],
            ("slow1" | "slow8" | "paused", Self::Long) => &[0.0, 0.05, 0.3],
            _ => &[0.0, 0.05],
        }
    }

    fn seeds(self, name: &str, nodes: usize) -> u64 {
        let lengthy = matches!(name, "peace" | "slow1" | "slow8" | "paused" | "oneway");
        match self {
            _ if lengthy => 1,
            Self::Quick => 1,
            Self::Some if name == "chaos" => 10,
            Self::Some if nodes <= 10 => 5,
            Self::Some if nodes <= 100 => 2,
            Self::Some => 1,
            Self::Long if name == "chaos" => 1_000,
            Self::Long if nodes <= 10 => 100,
            Self::Long if nodes <= 100 => 20,
            Self::Long => 3,
        }
    }

    /// Simulated time, for what lasts as long as it is told.
    fn length(self, name: &str, nodes: usize, loss: f64) -> Duration {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        match self {
            _ if name == "chaos" => minutes(5),
            Self::Quick => minutes(1),
            Self::Some if nodes <= 100 => minutes(5),
            Self::Some if loss <= 0.05 => minutes(1),
            Self::Some => Duration::from_secs(10),
            Self::Long if name == "peace" && nodes == 100 && loss == 0.05 => minutes(24 * 60),
            Self::Long if nodes <= 100 || loss == 0.05 => minutes(60),
            Self::Long => minutes(5),
        }
    }
}

impl Cell {
    /// Runs it on one seed.
    pub fn run(&self, who: Who, seed: u64, meter: bool, progress: &mut dyn FnMut(f64)) -> Figures {
        let Self { nodes, loss, length, scenario, .. } = *self;
        let mut job = Job { nodes, loss, seed, length, meter, progress };
        match who {
            Who::Ours => (scenario.ours)(&mut job),
            Who::Plain => (scenario.plain)(&mut job),
        }
    }

    /// The command that runs it again on this seed.
    pub fn replay(&self, who: Who, seed: u64) -> String {
        format!(
            "annulus-simulate --scenario {} --nodes {} --loss {} --minutes {} --seed {seed} --seeds 1 \
             --only {}",
            self.scenario.name,
            self.nodes,
            self.loss,
            self.length.as_secs_f64() / 60.0,
            who.name()
        )
    }
}

/// Runs all cells on so many threads, each run on one, and hands what they say to `say`.
pub fn run(
    cells: &[Cell],
    whom: &[Who],
    jobs: usize,
    meter: bool,
    mut say: impl FnMut(Said<'_>),
) -> Vec<Done> {
    let mut runs = VecDeque::new();
    for (index, cell) in cells.iter().enumerate() {
        let bearable = |who: &&Who| **who == Who::Ours || !cell.is_too_much_for_plain;
        for seed in cell.seed..cell.seed.saturating_add(cell.seeds) {
            runs.extend(whom.iter().filter(bearable).map(|who| (index, *who, seed)));
        }
    }
    let total = runs.len();
    let runs = Mutex::new(runs);
    let next = || runs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut all = Vec::new();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((cell, who, seed)) = next() {
                    // Nobody listens any more once the other side has panicked.
                    let mut progress = |far| drop(sender.send((cell, who, seed, Err(far))));
                    let figures = cells[cell].run(who, seed, meter, &mut progress);
                    drop(sender.send((cell, who, seed, Ok(figures))));
                }
            });
        }
        drop(sender);
        while let Ok((cell, who, seed, news)) = receiver.recv() {
            match news {
                Err(far) => say(Said::Progress(&cells[cell], who, seed, far)),
                Ok(figures) => {
                    let done = Done { cell, who, seed, figures };
                    say(Said::Over(&cells[cell], &done, all.len() + 1, total));
                    all.push(done);
                }
            }
        }
    });
    all.sort_by_key(|done| (done.cell, done.who, done.seed));
    all
}

/// One line of the table: the same figure of all subjects, over all seeds.
pub struct Row {
    /// Which cell it belongs to.
    pub cell: usize,
    /// What was measured.
    pub measure: Measure,
    /// The figures.
    pub figures: BTreeMap<Who, f64>,
    /// The seed on which ours was worst.
    pub worst: u64,
}

impl Row {
    /// Whether ours is within its target; `None` without a target, or without ours.
    pub fn holds(&self) -> Option<bool> {
        self.figures.get(&Who::Ours).and_then(|figure| self.measure.holds(*figure))
    }

    /// The line as JSON.
    pub fn json(&self, cells: &[Cell]) -> serde_json::Value {
        let cell = &cells[self.cell];
        let figure = |who| self.figures.get(&who).map(|figure| finite(*figure));
        json!({
            "scenario": cell.scenario.name,
            "nodes": cell.nodes,
            "loss": cell.loss,
            "seeds": cell.seeds,
            "what": self.measure.what,
            "unit": self.measure.unit.name(),
            "ours": figure(Who::Ours),
            "foca": figure(Who::Plain),
            "target": self.measure.target,
            "holds": self.holds(),
        })
    }
}

/// Puts the runs of each cell together.
pub fn rows(cells: &[Cell], runs: &[Done]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (cell, told) in cells.iter().enumerate() {
        let mut measures: Vec<Measure> = Vec::new();
        let mut values: BTreeMap<(&str, Who), Vec<f64>> = BTreeMap::new();
        let mut worst: BTreeMap<&str, (f64, u64)> = BTreeMap::new();
        for run in runs.iter().filter(|run| run.cell == cell) {
            for (measure, found) in &run.figures.rows {
                if !measures.iter().any(|known| known.what == measure.what) {
                    measures.push(*measure);
                }
                values.entry((measure.what, run.who)).or_default().extend(found);
                if run.who == Who::Ours {
                    let here = (measure.fold.of(found), run.seed);
                    let known = worst.entry(measure.what).or_insert(here);
                    if here.0 > known.0 {
                        *known = here;
                    }
                }
            }
        }
        for measure in measures {
            let figure = |who| Some((who, measure.fold.of(values.get(&(measure.what, who))?)));
            let figures = Who::ALL.into_iter().filter_map(figure).collect();
            let worst = worst.get(measure.what).map_or(told.seed, |(_, seed)| *seed);
            rows.push(Row { cell, measure, figures, worst });
        }
    }
    rows
}

/// The rows as a table in Markdown, with the replay of what was missed below it.
pub fn table(cells: &[Cell], rows: &[Row]) -> String {
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("a string takes everything");
    line("| scenario | nodes | loss | what | ours | foca LAN | target | |".to_owned());
    line("|---|---|---|---|---|---|---|---|".to_owned());
    for row in rows {
        let cell = &cells[row.cell];
        let unit = row.measure.unit;
        let shown =
            |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| unit.show(figure));
        let verdict = match row.holds() {
            Some(true) => "holds",
            Some(false) => "**missed**",
            None => "",
        };
        line(format!(
            "| {} | {} | {} % | {} | {} | {} | {} | {verdict} |",
            cell.scenario.name,
            cell.nodes,
            cell.loss * 100.0,
            row.measure.what,
            shown(row.figures.get(&Who::Ours).copied()),
            shown(row.figures.get(&Who::Plain).copied()),
            shown(row.measure.target),
        ));
    }
    for row in rows.iter().filter(|row| row.holds() == Some(false)) {
        let replay = cells[row.cell].replay(Who::Ours, row.worst);
        line(format!("missed {}: {replay}", row.measure.what));
    }
    text
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Bytes => "B",
            Self::Micros => "µs",
            Self::Count => "",
        }
    }

    fn show(self, figure: f64) -> String {
        match self {
            _ if figure.is_infinite() => "never".to_owned(),
            Self::Seconds => format!("{figure:.2} s"),
            Self::Bytes => format!("{figure:.0} B"),
            Self::Micros => format!("{figure:.1} µs"),
            Self::Count => format!("{figure:.0}"),
        }
    }
}

/// JSON knows no infinity.
fn finite(figure: f64) -> serde_json::Value {
    if figure.is_finite() { json!(figure) } else { json!("never") }
}
