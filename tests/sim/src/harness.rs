//! Simulations in child processes: one each, a few at a time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::scenario::{Mutant, Scenario};
use crate::{cluster, plain, trace};

/// The hidden first argument with which a program of this package runs one simulation.
pub const SIMULATE: &str = "--simulate";

/// Simulations that run at the same time.
pub const PARALLEL: usize = 2;

/// How long one may take, in real time. A simulation that hangs must not hang the suite.
const REAL_TIME_MAX: Duration = Duration::from_secs(300);

/// One simulation to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What is wrong on purpose, by its name.
    pub mutant: Option<String>,
    /// Where the trace's text goes.
    pub trace: Option<PathBuf>,
}

/// What a child said.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was run.
    pub job: Job,
    /// Whether no rule was broken.
    pub passed: bool,
    /// All that it printed: parameters, verdict, replay line.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

impl Job {
    /// A simulation without anything wrong.
    #[must_use]
    pub fn new(scenario: &str, seed: u64) -> Self {
        Self { scenario: scenario.to_owned(), seed, mutant: None, trace: None }
    }

    /// The line that runs it again.
    #[must_use]
    pub fn replay(&self) -> String {
        let mut line =
            format!("cargo run -p annulus-sim -- replay {} {}", self.scenario, self.seed);
        if let Some(mutant) = &self.mutant {
            let _ = write!(line, " --mutant {mutant}");
        }
        line
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![SIMULATE.to_owned(), self.scenario.clone(), self.seed.to_string()];
        arguments.push(self.mutant.clone().unwrap_or_default());
        arguments.extend(self.trace.as_ref().map(|path| path.display().to_string()));
        arguments
    }
}

impl Done {
    /// The line of the text that begins with this word.
    #[must_use]
    pub fn line(&self, word: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
    }
}

/// Runs one simulation in this process, if the arguments (without the program's name) ask for it.
#[must_use]
pub fn simulate_if_asked(arguments: &[String]) -> Option<ExitCode> {
    let [first, scenario, seed, mutant, rest @ ..] = arguments else { return None };
    if first != SIMULATE {
        return None;
    }
    let Ok(seed) = seed.parse() else { return Some(ExitCode::FAILURE) };
    let mutant = Some(mutant.clone()).filter(|mutant| !mutant.is_empty());
    let trace = rest.first().map(PathBuf::from);
    let job = Job { scenario: scenario.clone(), seed, mutant, trace };
    Some(simulate(&job))
}

/// Runs one simulation in this process, and prints parameters, verdict and replay line.
#[must_use]
pub fn simulate(job: &Job) -> ExitCode {
    let Some(subject) = Subject::named(&job.scenario) else {
        eprintln!("there is no scenario {:?}; `annulus-sim list` names them", job.scenario);
        return ExitCode::FAILURE;
    };
    let mutant = match job.mutant.as_deref().map(Mutant::named) {
        Some(None) => {
            eprintln!("there is no such mutant");
            return ExitCode::FAILURE;
        }
        mutant => mutant.flatten(),
    };
    println!("simulation {} {}", job.scenario, job.seed);
    println!("parameters {}", subject.parameters(job.seed));
    // Storms are many, and only one that is looked at has anybody to read its log.
    if matches!(subject, Subject::Scenario(_)) || job.trace.is_some() {
        trace::take_logs();
    }
    if let Err(error) = trace::begin(job.trace.as_deref()) {
        eprintln!("the trace cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| subject.run(job.seed, mutant)));
    if let Err(error) = trace::flush() {
        eprintln!("the trace cannot be written: {error}");
    }
    let Ok(outcome) = outcome else {
        println!("violation panic: at {:?} of simulated time, see above", trace::now());
        println!("replay {}", job.replay());
        return ExitCode::FAILURE;
    };
    println!("tally {:?}", outcome.tally);
    println!(
        "simulated {:?}, converged {:?} after healing",
        outcome.simulated, outcome.converged_after
    );
    println!("trace {:016x} {}", outcome.trace.0, outcome.trace.1);
    let mut printed: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in &outcome.violations {
        let count = printed.entry(violation.rule).or_default();
        *count += 1;
        if *count <= VIOLATIONS_MAX {
            println!("violation {violation}");
        }
    }
    if outcome.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("violations {printed:?}");
    println!("replay {}", job.replay());
    ExitCode::FAILURE
}

/// What there is to simulate.
enum Subject {
    /// Under turmoil.
    Scenario(&'static Scenario),
    /// In the plain world.
    Storm(&'static plain::Kind),
}

impl Subject {
    fn named(name: &str) -> Option<Self> {
        let storm = plain::Kind::named(name).map(Self::Storm);
        storm.or_else(|| Scenario::named(name).map(Self::Scenario))
    }

    fn parameters(&self, seed: u64) -> String {
        match self {
            Self::Scenario(scenario) => format!("{:?}", scenario.draw(seed)),
            Self::Storm(kind) => format!("{:?}", kind.draw(seed)),
        }
    }

    fn run(&self, seed: u64, mutant: Option<Mutant>) -> cluster::Outcome {
        match self {
            Self::Scenario(scenario) => cluster::run(scenario, seed, mutant),
            Self::Storm(kind) => plain::run(kind, seed, mutant),
        }
    }
}

/// Violations of one rule that are printed; the trace has them all.
const VIOLATIONS_MAX: usize = 4;

/// Runs jobs in child processes, [`PARALLEL`] at a time, and hands over each that is done. Ends early
/// when `each` says so, once those that run are done.
///
/// # Errors
/// If no child can be started.
pub fn run_all(
    jobs: impl IntoIterator<Item = Job>,
    mut each: impl FnMut(Done) -> bool,
) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let mut jobs = jobs.into_iter();
    let mut running: VecDeque<Running> = VecDeque::new();
    let mut go_on = true;
    loop {
        while go_on && running.len() < PARALLEL {
            let Some(job) = jobs.next() else { break };
            running.push_back(Running::start(&program, job)?);
        }
        if running.is_empty() {
            return Ok(());
        }
        let mut index = 0;
        let mut any = false;
        while index < running.len() {
            if running[index].is_done()? {
                let done = running.remove(index).expect("the index is within").finish()?;
                go_on &= each(done);
                any = true;
            } else {
                index += 1;
            }
        }
        if !any {
            std::thread::sleep(POLL);
        }
    }
}

const POLL: Duration = Duration::from_millis(20);

struct Running {
    job: Job,
    child: Child,
    output: File,
    #[allow(clippy::disallowed_types, reason = "how long a child takes is real time")]
    started: Instant,
    killed: bool,
}

impl Running {
    fn start(program: &Path, job: Job) -> io::Result<Self> {
        // A file and not a pipe: nobody has to read while the child runs.
        let output = unnamed_file()?;
        let child = Command::new(program)
            .args(job.arguments())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()?;
        #[allow(clippy::disallowed_methods, reason = "how long a child takes is real time")]
        let started = Instant::now();
        Ok(Self { job, child, output, started, killed: false })
    }

    fn is_done(&mut self) -> io::Result<bool> {
        if self.started.elapsed() > REAL_TIME_MAX && !self.killed {
            self.killed = true;
            self.child.kill()?;
        }
        Ok(self.child.try_wait()?.is_some())
    }

    fn finish(mut self) -> io::Result<Done> {
        let took = self.started.elapsed();
        let passed = self.child.wait()?.success();
        self.output.rewind()?;
        let mut bytes = Vec::new();
        self.output.read_to_end(&mut bytes)?;
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if self.killed {
            let _ = writeln!(text, "violation hung: no end after {REAL_TIME_MAX:?} of real time");
        }
        if !passed && !text.contains("\nreplay ") {
            let _ = writeln!(text, "replay {}", self.job.replay());
        }
        Ok(Done { job: self.job, passed, text, took })
    }
}

fn unnamed_file() -> io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("annulus-sim-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = File::options().create_new(true).read(true).append(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
