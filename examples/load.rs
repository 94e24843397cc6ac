//! Stores, reads and ends many sessions with payloads like those of real applications, and checks
//! every byte that comes back. `cluster.sh` runs it against three nodes.
//!
//! Keys and payloads follow from a seed and a number alone, so that another process can check what
//! this one stored.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annulus_client::{
    Change, Client, Error, LocalGet, LocalReader, LocalValue, StartOptions, Value,
};
use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tokio::task::JoinSet;
use twox_hash::XxHash3_64;

/// Store, read and end sessions, and check every byte
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start sessions
    Store(Load),
    /// Write each session anew; `read --revision 1` expects that
    Update(Load),
    /// Read sessions through a node, and compare them with what was stored
    Read(Load),
    /// Read sessions out of shared memory alone, and compare them
    ReadLocal(Load),
    /// End sessions
    End(Load),
    /// Check that sessions are ended, and refuse late writes
    Ended(Load),
}

#[derive(Args, Clone)]
struct Load {
    /// A node, host:port; may be repeated
    #[arg(long)]
    node: Vec<String>,
    /// The Unix socket of this host's node
    #[arg(long)]
    socket: Option<PathBuf>,
    /// The cluster's name
    #[arg(long, default_value = "annulus")]
    cluster: String,
    /// The number of the first session
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many sessions
    #[arg(long, default_value_t = 1_000)]
    count: u64,
    /// How often the sessions were written anew
    #[arg(long, default_value_t = 0)]
    revision: u64,
    /// Requests under way at a time
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Store(load) => run("stored", load, store).await,
        Command::Update(load) => run("updated", load, update).await,
        Command::Read(load) => run("read and compared", load, read).await,
        Command::ReadLocal(load) => read_local(load).await,
        Command::End(load) => run("ended", load, end).await,
        Command::Ended(load) => run("found ended", load, ended).await,
    }
}

async fn store(client: Arc<Client>, load: Arc<Load>, number: u64) -> anyhow::Result<()> {
    let value = Value::Bytes(payload(number, load.revision));
    client.start(key(number), value, StartOptions::default()).await?;
    Ok(())
}

async fn update(client: Arc<Client>, load: Arc<Load>, number: u64) -> anyhow::Result<()> {
    let value = Value::Bytes(payload(number, load.revision + 1));
    client.update(key(number), None, Change::Value(value)).await?;
    Ok(())
}

async fn read(client: Arc<Client>, load: Arc<Load>, number: u64) -> anyhow::Result<()> {
    // Through the node that was named, not out of shared memory.
    let read = client.sessions().fetch(key(number)).await?;
    if read.session.value != Value::Bytes(payload(number, load.revision)) {
        bail!("session {number} is not what was stored");
    }
    Ok(())
}

async fn end(client: Arc<Client>, _: Arc<Load>, number: u64) -> anyhow::Result<()> {
    client.end(key(number), None).await?;
    Ok(())
}

async fn ended(client: Arc<Client>, _: Arc<Load>, number: u64) -> anyhow::Result<()> {
    match client.get(key(number)).await {
        Err(Error::Ended) => {}
        Ok(_) => bail!("session {number} is alive again"),
        Err(error) => bail!("session {number}: {error}, not ended"),
    }
    let late = Change::Value(Value::Bytes(b"a late save".to_vec()));
    match client.update(key(number), None, late).await {
        Err(Error::Ended) => Ok(()),
        other => bail!("a late write to session {number}: {other:?}, not refused as ended"),
    }
}

/// Runs one operation on each session, some of them at a time, and prints a line about it.
async fn run<F, R>(done: &str, load: Load, operation: F) -> anyhow::Result<()>
where
    F: Fn(Arc<Client>, Arc<Load>, u64) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let client = Arc::new(connect(&load).await?);
    let load = Arc::new(load);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let mut times = Vec::new();
    for number in load.from..load.from + load.count {
        while tasks.len() >= load.concurrency {
            times.push(tasks.join_next().await.context("a task is there")???);
        }
        let operation = operation(client.clone(), load.clone(), number);
        tasks.spawn(async move {
            let began = Instant::now();
            let context = || format!("session {number}");
            operation.await.with_context(context).map(|()| began.elapsed())
        });
    }
    while let Some(time) = tasks.join_next().await {
        times.push(time??);
    }
    report(done, times, began.elapsed());
    Ok(())
}

/// Reads without a request to anybody, by the façade that needs no runtime.
async fn read_local(load: Load) -> anyhow::Result<()> {
    let client = connect(&load).await?;
    let reader = client.local_reader("sessions").context("no shared memory on this host")?;
    let began = Instant::now();
    let mut buffer = Vec::new();
    let mut times = Vec::new();
    for number in load.from..load.from + load.count {
        let (key, expected) = (key(number), payload(number, load.revision));
        let read = Instant::now();
        let live = get_local(&reader, &key, &mut buffer, &expected);
        times.push(read.elapsed());
        live.with_context(|| format!("session {number}"))?;
    }
    report("read from shared memory and compared", times, began.elapsed());
    Ok(())
}

fn get_local(
    reader: &LocalReader,
    key: &str,
    buffer: &mut Vec<u8>,
    expected: &[u8],
) -> anyhow::Result<()> {
    match reader.get(key, buffer) {
        LocalGet::Live(session) if session.value == LocalValue::Bytes(expected) => Ok(()),
        LocalGet::Live(_) => bail!("is not what was stored"),
        LocalGet::Ended => bail!("is ended"),
        LocalGet::SlowDown { .. } => bail!("is used too much"),
        LocalGet::Ask(reason) => bail!("cannot be read from shared memory: {reason:?}"),
    }
}

async fn connect(load: &Load) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .cluster(&load.cluster)
        .seeds(load.node.clone())
        .timeout(Duration::from_secs(5));
    if let Some(socket) = &load.socket {
        builder = builder.local_socket(socket);
    }
    Ok(builder.software("annulus-load").connect().await?)
}

fn report(done: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{} sessions {done} in {:.2} s (each: median {:.1?}, p99 {:.1?})",
        times.len(),
        took.as_secs_f64(),
        at(0.5),
        at(0.99),
    );
}

fn key(number: u64) -> String {
    let half = |seed| XxHash3_64::oneshot_with_seed(seed, &number.to_le_bytes());
    format!("sess:{:016x}{:016x}", half(1), half(2))
}

/// A session as an application might keep it: JSON of 200 bytes to 4 KiB.
fn payload(number: u64, revision: u64) -> Vec<u8> {
    let random = |of: u64| XxHash3_64::oneshot_with_seed(of, &number.to_le_bytes());
    let items = random(3) % 24;
    let cart: Vec<_> = (0..items)
        .map(|item| {
            let id = random(100 + item);
            json!({
                "sku": format!("A-{:08}", id % 100_000_000),
                "title": format!("Article number {} in a plain description", id % 10_000),
                "quantity": id % 5 + 1,
                "price": format!("{}.{:02}", id % 900, id % 100),
                "added": "2026-11-21T09:17:00Z",
            })
        })
        .collect();
    let session = json!({
        "cookie": {"path": "/", "httpOnly": true, "sameSite": "lax", "originalMaxAge": 7_200_000},
        "passport": {"user": random(4) % 1_000_000},
        "csrf": format!("{:016x}{:016x}", random(5), random(6)),
        "views": revision,
        "locale": "en-GB",
        "cart": cart,
    });
    session.to_string().into_bytes()
}
