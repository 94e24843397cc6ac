//! Clusters that come up, and clusters that lose a node.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use annulus_client::{Change, StartOptions, Table, Value, Via};
use anyhow::{Context, ensure};
use tokio::sync::watch;

use super::{Bench, key, tables, value};
use crate::process::Cluster;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// The sessions written while a node goes: all in slots that it is the primary of.
const SESSIONS: usize = 64;
/// How long the client writes before the node goes.
const BEFORE: Duration = Duration::from_secs(1);
/// The pause before a failed write is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    for count in [3, 5] {
        report.progress(&format!("{count} nodes that start at once"));
        let mut times = Rounds::default();
        for _ in 0..bench.rounds() {
            let began = Instant::now();
            let cluster = bench.start_cluster(count, &tables())?;
            bench.run(cluster.agreed())?;
            times.push(ms(began.elapsed()));
        }
        report.row(&format!("{count} nodes from start to agreement"), Unit::Ms, &times);
    }
    for (loss, name) in [(Loss::Killed, "kill -9"), (Loss::Frozen, "SIGSTOP")] {
        report.progress(&format!("a primary lost: {name}"));
        let mut found = Found::default();
        for _ in 0..bench.rounds().div_ceil(2) {
            let mut cluster = bench.start_cluster(3, &tables())?;
            bench.run(lose_a_primary(&mut cluster, loss, bench.quick, &mut found))?;
        }
        let mut row = |what: &str, rounds| report.row(&format!("{what} {name}"), Unit::Ms, rounds);
        row("longest gap in the second before", &found.gap_before);
        row("longest gap after", &found.gap);
        row("first write through another node after", &found.other);
        row("first write of a routing client after", &found.first);
        row("first touch of a routing client after", &found.touch);
    }
    Ok(())
}

/// How a node goes.
#[derive(Clone, Copy)]
enum Loss {
    /// Its connections break, which everybody hears at once.
    Killed,
    /// It just stops answering, as a host does that is cut off.
    Frozen,
}

#[derive(Default)]
struct Found {
    other: Rounds,
    first: Rounds,
    touch: Rounds,
    gap: Rounds,
    gap_before: Rounds,
}

async fn lose_a_primary(
    cluster: &mut Cluster,
    loss: Loss,
    quick: bool,
    found: &mut Found,
) -> anyhow::Result<()> {
    cluster.agreed().await?;
    let survivors = [cluster.nodes[0].addr, cluster.nodes[2].addr];
    // One for each, so that what one of them finds out is no help to the other.
    let table = routing_client(cluster, survivors).await?;
    let touched = routing_client(cluster, survivors).await?;
    let victim = cluster.nodes[1].addr;
    let affected = sessions_of(&table, victim).await?;

    // Long enough for the slots to move in the end, unless it is only a look.
    let after = Duration::from_secs(if quick { 3 } else { 10 });
    let began = Instant::now();
    let until = began + BEFORE + after;
    let writing = tokio::spawn(repeat_until(table.clone(), affected.clone(), until, What::Update));
    let touching = tokio::spawn(repeat_until(touched, affected.clone(), until, What::Touch));
    let (gone, mut is_gone) = watch::channel(None);
    let through_other = tokio::spawn(async move {
        let gone = is_gone.wait_for(Option::is_some).await.map(|gone| *gone);
        write_once(table.at(survivors[0]), affected[0]).await;
        gone.ok().flatten().map(|gone: Instant| gone.elapsed())
    });
    tokio::time::sleep(BEFORE).await;
    let killed = Instant::now();
    match loss {
        Loss::Killed => cluster.nodes[1].kill()?,
        Loss::Frozen => cluster.nodes[1].freeze()?,
    }
    gone.send_replace(Some(killed));
    let other = through_other.await?.context("the writer outlives the kill")?;
    let writes = writing.await?;
    let (before, later): (Vec<Write>, Vec<Write>) =
        writes.into_iter().partition(|write| write.done <= killed);
    found.other.push(ms(other));
    found.first.push(ms(first_after(killed, &later)?));
    found.touch.push(ms(first_after(killed, &touching.await?)?));
    found.gap_before.push(ms(longest_gap(began, &before, killed)));
    found.gap.push(ms(longest_gap(killed, &later, until)));
    Ok(())
}

async fn routing_client(cluster: &Cluster, seeds: [SocketAddr; 2]) -> anyhow::Result<Table> {
    let client = cluster.client().via(Via::Tcp).without_shared_memory();
    let client = client.seeds(seeds.map(|addr| addr.to_string())).connect().await?;
    client.routes().await?;
    Ok(client.table("quorum"))
}

/// When the first write succeeded that was begun after the node went: one that was under way may have been done before.
fn first_after(gone: Instant, writes: &[Write]) -> anyhow::Result<Duration> {
    let first = writes.iter().find(|write| write.begun >= gone).context("no write succeeded")?;
    Ok(first.done - gone)
}

/// Starts sessions in slots that the node at `primary` is the primary of.
async fn sessions_of(table: &Table, primary: SocketAddr) -> anyhow::Result<Vec<u64>> {
    let mut found = Vec::new();
    for number in 0.. {
        if found.len() == SESSIONS {
            break;
        }
        let location = table.locate(key(number)).await?;
        if location.homes.first().is_some_and(|home| home.addr == primary) {
            let bytes = Value::Bytes(value(number).to_vec());
            table.start(key(number), bytes, StartOptions::default()).await?;
            found.push(number);
        }
        ensure!(number < 100_000, "the node is the primary of next to nothing");
    }
    Ok(found)
}

/// What is done to sessions, one after the other.
#[derive(Clone, Copy)]
enum What {
    Update,
    Touch,
}

/// A write that succeeded.
struct Write {
    begun: Instant,
    done: Instant,
}

/// Does that to one session after the other; what fails is not in the result.
async fn repeat_until(table: Table, sessions: Vec<u64>, until: Instant, what: What) -> Vec<Write> {
    let mut writes = Vec::new();
    for number in sessions.into_iter().cycle() {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        let is_done = match what {
            What::Update => write(&table, number).await,
            What::Touch => table.touch(key(number), None).await.is_ok(),
        };
        if is_done {
            writes.push(Write { begun, done: Instant::now() });
        } else {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
    writes
}

/// Writes a session until that succeeds.
async fn write_once(table: Table, number: u64) {
    while !write(&table, number).await {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn write(table: &Table, number: u64) -> bool {
    let change = Change::Value(Value::Bytes(value(number).to_vec()));
    table.update(key(number), None, change).await.is_ok()
}

/// The longest time without a success.
fn longest_gap(from: Instant, writes: &[Write], until: Instant) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    for done in writes.iter().map(|write| write.done).chain([until]) {
        longest = longest.max(done.saturating_duration_since(last));
        last = done.max(last);
    }
    longest
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
