//! What the figures were taken on.

use std::fmt;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::param::clock_ticks_per_second;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The machine, as a reader of the figures needs to know it.
pub(crate) struct Machine {
    cpu: String,
    /// The cores this process may run on.
    pub(crate) cores: Vec<usize>,
    kernel: String,
    memory_mib: u64,
    virtual_machine: bool,
    huge_pages: String,
}

impl Machine {
    /// Reads what the system tells; what it does not tell is "unknown".
    pub(crate) fn read() -> Self {
        let cpuinfo = file("/proc/cpuinfo");
        let meminfo = file("/proc/meminfo");
        let kib = field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: own_cores(),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kib.unwrap_or(0_u64) / 1024,
            virtual_machine: flags.split(' ').any(|flag| flag == "hypervisor"),
            huge_pages: chosen(&file("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.virtual_machine { " (virtual machine)" } else { "" };
        write!(
            f,
            "{}, {} cores{kind}, {} MiB, Linux {}, huge pages for shared memory: {}",
            self.cpu,
            self.cores.len(),
            self.memory_mib,
            self.kernel,
            self.huge_pages
        )
    }
}

/// How this binary, and with it the nodes, was built.
pub(crate) fn build() -> String {
    let profile =
        if cfg!(debug_assertions) { "debug: these figures mean nothing" } else { "release" };
    let version = env!("CARGO_PKG_VERSION");
    let describe = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"];
    let commit = Command::new("git").args(describe).output().ok();
    let commit = commit.filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("annulus {version} ({}), {profile}", commit.as_deref().unwrap_or("no commit known"))
}

/// The load averages: what else was going on.
pub(crate) fn load() -> String {
    file("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The memory of a process that is neither a file's nor shared; `None` if the system does not say.
pub(crate) fn private_bytes(process: u32) -> Option<u64> {
    let status = file(&format!("/proc/{process}/status"));
    let kib: u64 = field(&status, "RssAnon")?.split(' ').next()?.parse().ok()?;
    Some(kib << 10)
}

/// The processor time that a process has taken so far, all of its threads together.
///
/// # Errors
/// If the system does not say, for instance because the process is gone.
pub(crate) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = file(&format!("/proc/{process}/stat"));
    // The second field is the program's name, in brackets, and may be anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (times.next(), times.next()) else {
        bail!("how much processor time {process} took is unknown");
    };
    Ok(Duration::from_secs_f64((user + system) as f64 / clock_ticks_per_second() as f64))
}

/// Keeps the calling thread, and the threads and processes it starts from now on, on one core.
///
/// # Errors
/// If the core is not there, or not ours.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    pin_to(&[core])
}

/// As [`pin`], on any of these cores.
///
/// # Errors
/// As there.
pub(crate) fn pin_to(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on {cores:?}"))
}

fn own_cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(cores) => (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect(),
        Err(_) => vec![0],
    }
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The word in brackets.
fn chosen(text: &str) -> String {
    let word = text.split(['[', ']']).nth(1);
    word.unwrap_or("unknown").to_owned()
}
