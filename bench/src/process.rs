//! The processes that are measured: nodes and Redis, each with its own directory, on a core of its
//! choice, and gone when the benchmark is.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use annulus_client::{Builder, Client, NodeStatus};
use annulus_node::config::{Config, Sources};
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::machine;

/// Where the processes keep their files: gone when this is dropped, when the benchmark is
/// interrupted, and when it takes longer than it may.
///
/// The processes themselves die with the thread that started them, whatever ends it.
pub(crate) struct Site {
    data: TempDir,
    shm: TempDir,
    clusters: AtomicU32,
    /// What all nodes started from now on are told beside what is said of each.
    pub(crate) limits: Limits,
}

/// Settings of a node's configuration, in its words. What is `None` has its default.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handover_rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hints_max: Option<String>,
    /// Whether clients of Redis find a door, at an address of its own.
    #[serde(skip)]
    pub(crate) doors: bool,
}

/// How long a benchmark may take in all.
const TIME_MAX: Duration = Duration::from_secs(40 * 60);
/// How long a cluster may take to agree, and a server to start.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);
/// How often an answer is looked for that has not come yet.
pub(crate) const POLL: Duration = Duration::from_millis(2);
/// Where segments are made when it is there.
const SHM: &str = "/dev/shm";

impl Site {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let named = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix("annulus-bench.");
            builder
        };
        let data = named().tempdir()?;
        let shm = named().tempdir_in(SHM).or_else(|_| named().tempdir())?;
        let paths = [data.path().to_owned(), shm.path().to_owned()];
        std::thread::Builder::new().name("guard".to_owned()).spawn(move || guard(&paths))?;
        Ok(Self { data, shm, clusters: AtomicU32::new(0), limits: Limits::default() })
    }

    /// A file in memory that is not there yet.
    pub(crate) fn segment(&self, name: &str) -> PathBuf {
        self.shm.path().join(name)
    }

    /// Where a server listens that is reached by a path.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.data.path().join(format!("{name}.sock"))
    }

    /// Where a process says what it complains of.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.data.path().join(format!("{name}.log"))
    }
}

/// Ends the benchmark on a signal, or when its time is over, and leaves nothing behind.
fn guard(paths: &[PathBuf]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs some file descriptors and nothing else");
    let why = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).expect("the kernel knows SIGINT");
        let mut terminate = signal(SignalKind::terminate()).expect("the kernel knows SIGTERM");
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
            () = tokio::time::sleep(TIME_MAX) => "given up: it took longer than forty minutes",
        }
    });
    eprintln!("{why}");
    for path in paths {
        // What cannot be removed stays; there is nobody left to do anything about it.
        let _ = fs::remove_dir_all(path);
    }
    std::process::exit(130);
}

/// A table, as the configuration of a cluster names it.
#[derive(Clone, Serialize)]
pub(crate) struct TableConfig {
    pub(crate) name: &'static str,
    pub(crate) write: &'static str,
    pub(crate) memory: String,
    /// Where it is read; `None` = as nodes do unless they are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read: Option<&'static str>,
    /// How many bytes a record has; `None` = as nodes have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record_size: Option<u32>,
    /// How long its sessions take to lose half of their heat; `None` = as nodes have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) half_life: Option<&'static str>,
    /// Its rings further out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ring: Vec<RingConfig>,
}

/// A ring further out, in the words of a configuration.
#[derive(Clone, Serialize)]
pub(crate) struct RingConfig {
    pub(crate) name: &'static str,
    pub(crate) after: &'static str,
    pub(crate) memory: String,
}

impl TableConfig {
    /// A table of which nothing else is said.
    pub(crate) fn new(name: &'static str, write: &'static str, memory: String) -> Self {
        Self {
            name,
            write,
            memory,
            read: None,
            record_size: None,
            half_life: None,
            ring: Vec::new(),
        }
    }
}

/// Nodes that know of each other.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    name: String,
    shm: TempDir,
    data: TempDir,
    limits: Limits,
}

/// A node's process. Killed when dropped.
pub(crate) struct Node {
    process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) socket: PathBuf,
    /// Where clients of Redis find it, if they do.
    pub(crate) door: Option<SocketAddr>,
    /// Its own directory, with its configuration.
    home: PathBuf,
    processors: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct ReadyLine {
    addr: SocketAddr,
}

impl Cluster {
    /// Starts all nodes at once on one processor, as [`Cluster::start_with`], with one core each.
    pub(crate) fn start(
        site: &Site,
        processor: usize,
        count: usize,
        tables: &[TableConfig],
    ) -> anyhow::Result<Self> {
        Self::start_with(site, &[processor], 1, count, tables)
    }

    /// Starts nodes of so many cores at once on these processors, each with all of them as seeds, and
    /// returns when each serves; they may not have found each other yet.
    pub(crate) fn start_with(
        site: &Site,
        processors: &[usize],
        cores: u16,
        count: usize,
        tables: &[TableConfig],
    ) -> anyhow::Result<Self> {
        let number = site.clusters.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{}-{number}", std::process::id());
        let data = tempfile::Builder::new().prefix("c").tempdir_in(site.data.path())?;
        let shm = tempfile::Builder::new().prefix("c").tempdir_in(site.shm.path())?;
        let addrs = free_addrs(count)?;
        let doors = free_addrs(if site.limits.doors { count } else { 0 })?;
        let mut nodes = Vec::new();
        for (index, addr) in addrs.iter().enumerate() {
            let door = doors.get(index).copied();
            let home = data.path().join(format!("n{}", index + 1));
            fs::create_dir(&home)?;
            let socket = home.join("node.sock");
            let config = home.join(CONFIG);
            let places = (home.as_path(), shm.path(), door);
            let what = (tables, &site.limits);
            let text = node_config(&name, (index, cores), *addr, &addrs, places, what)?;
            fs::write(&config, text)?;
            let process = start_node(processors, &home)?;
            let processors = processors.to_vec();
            nodes.push(Node { process, addr: *addr, socket, door, home, processors });
        }
        for node in &mut nodes {
            node.wait_until_ready()?;
        }
        Ok(Self { nodes, name, data, shm, limits: site.limits.clone() })
    }

    /// Starts one more node, with all others as seeds, and returns when it serves.
    pub(crate) fn add(&mut self, tables: &[TableConfig]) -> anyhow::Result<()> {
        let index = self.nodes.len();
        let first = self.nodes.first().context("a cluster has a node")?;
        let processors = first.processors.clone();
        let seeds: Vec<SocketAddr> = self.nodes.iter().map(|node| node.addr).collect();
        let addr = free_addrs(1)?[0];
        let home = self.data.path().join(format!("n{}", index + 1));
        fs::create_dir(&home)?;
        let door = free_addrs(usize::from(self.limits.doors))?.pop();
        let places = (home.as_path(), self.shm.path(), door);
        let what = (tables, &self.limits);
        let text = node_config(&self.name, (index, 1), addr, &seeds, places, what)?;
        fs::write(home.join(CONFIG), text)?;
        let process = start_node(&processors, &home)?;
        let socket = home.join("node.sock");
        let mut node = Node { process, addr, socket, door, home, processors };
        node.wait_until_ready()?;
        self.nodes.push(node);
        Ok(())
    }

    /// Starts a node again that was killed, and returns at once.
    pub(crate) fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[index];
        node.process.child.wait()?;
        node.process = start_node(&node.processors, &node.home)?;
        Ok(())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The files in memory that hold the innermost ring of a table, one of each node.
    pub(crate) fn segments(&self, table: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for file in fs::read_dir(self.shm.path())? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(&format!("-{table}")) {
                paths.push(path);
            }
        }
        ensure!(paths.len() == self.nodes.len(), "{} segments of {table}", paths.len());
        Ok(paths)
    }

    /// A client of this cluster, without seeds yet.
    pub(crate) fn client(&self) -> Builder {
        Client::builder().cluster(&self.name).software("annulus-bench")
    }

    /// Waits until every node sees all of them, agrees with all of them and is in sync.
    pub(crate) async fn agreed(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        for node in &self.nodes {
            let client = self.client().seed(node.addr.to_string()).without_shared_memory();
            let client = client.connect().await.context("a node does not answer")?;
            loop {
                let status = client.node(node.addr).status().await?;
                if all_agree(&status, self.nodes.len()) {
                    break;
                }
                if Instant::now() > deadline {
                    let NodeStatus { active_members, agreeing_members, .. } = status;
                    bail!("no agreement: {active_members} active, {agreeing_members} agreeing");
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// Starts the node whose configuration lies in this directory.
fn start_node(processors: &[usize], home: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("node");
    for processor in processors {
        command.args(["--core", &processor.to_string()]);
    }
    command.arg("--config").arg(home.join(CONFIG));
    Process::start(command.stdout(Stdio::piped()), home.join("log"))
}

fn all_agree(status: &NodeStatus, count: usize) -> bool {
    let synced = status.tables.iter().all(|table| table.slots_unsynced == 0);
    let members = [status.active_members, status.agreeing_members];
    synced && members.iter().all(|seen| *seen as usize == count)
}

const CONFIG: &str = "annulus.toml";

impl Node {
    /// `kill -9`, and a new process in its place, which may not serve yet. Returns when it was started.
    pub(crate) fn kill_and_start(&mut self) -> anyhow::Result<Instant> {
        self.process.kill()?;
        let began = Instant::now();
        self.process = start_node(&self.processors, &self.home)?;
        Ok(began)
    }

    /// The memory that it has taken beside its segments.
    pub(crate) fn private_bytes(&self) -> Option<u64> {
        machine::private_bytes(self.process.id())
    }

    /// The processor time that it has taken so far.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        machine::processor_time(self.process.id())
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.process.child.stdout.take().context("a node is awaited once")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Result<ReadyLine, _> = serde_json::from_str(&line);
        match ready {
            Ok(ready) if ready.addr == self.addr => Ok(()),
            _ => bail!("a node did not start: {}", self.process.last_words()),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.process.child.kill()
    }

    /// Lets it do nothing from now on: its connections stay open and nobody answers.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process.child), Signal::STOP)?)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.process.child), Signal::CONT)?)
    }
}

/// A configuration file as a user would write it: what is not named here has its default.
fn node_config(
    cluster: &str,
    (index, cores): (usize, u16),
    addr: SocketAddr,
    seeds: &[SocketAddr],
    (home, shm, door): (&Path, &Path, Option<SocketAddr>),
    (tables, limits): (&[TableConfig], &Limits),
) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct File<'a> {
        cluster: &'a str,
        name: String,
        cores: u16,
        data_dir: PathBuf,
        shm_dir: &'a Path,
        socket: PathBuf,
        listen: SocketAddr,
        seeds: &'a [SocketAddr],
        #[serde(flatten)]
        limits: &'a Limits,
        redis: Redis,
        table: &'a [TableConfig],
    }
    #[derive(Serialize)]
    struct Redis {
        listen: Vec<SocketAddr>,
    }
    // A node alone has nobody to wait for.
    let seeds = if seeds.len() > 1 { seeds } else { &[] };
    let file = File {
        cluster,
        name: format!("n{}", index + 1),
        cores,
        data_dir: home.join("data"),
        shm_dir: shm,
        socket: home.join("node.sock"),
        listen: addr,
        seeds,
        limits,
        redis: Redis { listen: door.into_iter().collect() },
        table: tables,
    };
    Ok(toml::to_string(&file)?)
}

/// Loopback addresses whose ports are free, TCP and UDP, at this moment.
fn free_addrs(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let mut held = Vec::new();
    while held.len() < count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        if let Ok(udp) = UdpSocket::bind(addr) {
            held.push((addr, listener, udp));
        }
    }
    Ok(held.into_iter().map(|(addr, ..)| addr).collect())
}

/// A Redis server that keeps nothing on disk. Killed when dropped.
pub(crate) struct RedisServer {
    process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) version: String,
}

impl RedisServer {
    /// Starts one on this core; `None` if none is installed.
    pub(crate) fn start(site: &Site, core: usize) -> anyhow::Result<Option<Self>> {
        let Ok(version) = Command::new("redis-server").arg("--version").output() else {
            return Ok(None);
        };
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version.split_whitespace().find_map(|word| word.strip_prefix("v="));
        let version = version.unwrap_or("of an unknown version").to_owned();
        Self::launch(site, core, "redis", version, &[]).map(Some)
    }

    /// Starts another one on this core, which holds a copy of what is in this one.
    pub(crate) fn start_replica(&self, site: &Site, core: usize) -> anyhow::Result<Self> {
        let of = ["--replicaof", "127.0.0.1", &self.addr.port().to_string()];
        Self::launch(site, core, "replica", self.version.clone(), &of)
    }

    fn launch(
        site: &Site,
        core: usize,
        name: &str,
        version: String,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let home = site.data.path().join(name);
        fs::create_dir(&home)?;
        let addr = free_addrs(1)?[0];
        let socket = home.join("redis.sock");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exec", "--core", &core.to_string(), "--", "redis-server"]);
        command.args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.args(args).arg("--dir").arg(&home).stdout(Stdio::null());
        let mut process = Process::start(&mut command, home.join("log"))?;
        let deadline = Instant::now() + START_MAX;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("redis-server did not start: {}", process.last_words());
            }
            std::thread::sleep(POLL);
        }
        Ok(Self { process, addr, socket, version })
    }

    /// The memory that it has taken.
    pub(crate) fn private_bytes(&self) -> Option<u64> {
        machine::private_bytes(self.process.id())
    }

    /// The processor time that it has taken so far.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        machine::processor_time(self.process.id())
    }
}

/// A child process, killed and reaped when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let stderr = File::create(&log)?;
        let child = command.stdin(Stdio::null()).stderr(stderr).spawn()?;
        Ok(Self { child, log })
    }

    /// A process that is asked through its standard input.
    pub(crate) fn start_with_input(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let stderr = File::create(&log)?;
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: command.stderr(stderr).spawn()?, log })
    }

    /// Its standard input and output, once.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a node in this process, as `annulus node` does, on one core, until it is told to stop or its
/// parent is gone.
pub(crate) fn be_node(cores: &[usize], config: PathBuf) -> anyhow::Result<()> {
    settle(cores)?;
    let config = Config::load(Sources { file: Some(config), ..Sources::default() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(config.log()).with_writer(io::stderr);
    lines.with_ansi(io::stderr().is_terminal()).init();
    let ran = annulus_node::run_blocking(config.settings(), |ready| {
        let line = serde_json::to_string(&ReadyLine { addr: ready.addr });
        let line = line.expect("an address is valid JSON");
        // Who started the node may have stopped listening; the node serves on.
        let _ = writeln!(io::stdout(), "{line}");
    });
    ran.context("the node stopped")
}

/// Turns this process into another program, on one core, that ends when its parent is gone.
pub(crate) fn become_program(core: usize, command: &[String]) -> anyhow::Result<()> {
    settle(&[core])?;
    let (program, args) = command.split_first().context("no program was named")?;
    Err(Command::new(program).args(args).exec().into())
}

pub(crate) fn settle(cores: &[usize]) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    machine::pin_to(cores)
}
