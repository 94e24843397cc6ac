//! All sessions of an owner: listed, and ended at once.
//!
//! Three nodes, each a home of all sessions. Nobody keeps a list: the client asks all members for what they hold of an
//! owner's, and ends each. Owners with a few sessions are ended one after the other, in turn with as many sessions
//! whose keys are known. Then one with very many, while another client, of a thread of its own, reads and writes.

use std::time::{Duration, Instant};

use annulus_client::{StartOptions, Table};
use anyhow::{Context, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Bench, ROOM_BYTES, remote_client, start_all};
use crate::entries::{VALUE_BYTES, key};
use crate::process::{Cluster, TableConfig};
use crate::report::{Goal, Report, Unit};
use crate::sample::{Latencies, Rounds};
use crate::user::{Phase, use_sessions};

const TABLE: &str = "sessions";
/// Sessions of an owner with a few.
const FEW: u64 = 8;
/// Sessions of the user who is measured while much is ended; how long that user is not yet, and how long before.
const USED: u64 = 1_000;
const SETTLE: Duration = Duration::from_secs(1);
const BEFORE: Duration = Duration::from_secs(4);
/// The first numbers of the sessions that are ended by their owner, by their keys, and of one owner.
const OWNED: u64 = 1 << 32;
const KNOWN: u64 = 2 << 32;
const MANY: u64 = 3 << 32;
const CROWD: &[u8] = b"crowd";

pub(super) fn measure(bench: &Bench<'_>, many: u64, report: &mut Report) -> anyhow::Result<()> {
    report.progress("owners of a few sessions");
    let (rounds, owners) = if bench.quick { (2, 50) } else { (5, 200) };
    let sessions = 2 * rounds * owners * FEW + USED + many;
    let memory = format!("{}KiB", (sessions + sessions / 8) * ROOM_BYTES / 1024);
    let cluster = bench.start(3, &[TableConfig::new(TABLE, "quorum", memory)])?;
    bench.runtime.block_on(async {
        let client = remote_client(&cluster).await?;
        let table = client.table(TABLE);
        end_few(&table, (rounds, owners), report).await?;
        report.progress(&format!("an owner of {many} sessions"));
        start_all(&table, 0..USED, &of(&[])).await?;
        start_all(&table, MANY..MANY + many, &of(CROWD)).await?;
        end_many(&cluster, &table, many, report).await
    })
}

/// Ends owners of a few sessions each, one after the other.
async fn end_few(
    table: &Table,
    (rounds, owners): (u64, u64),
    report: &mut Report,
) -> anyhow::Result<()> {
    let [mut by_owner, mut by_key] = <[[Rounds; 3]; 2]>::default();
    for round in 0..rounds {
        let numbers = |first: u64, owner: u64| {
            let first = first + (round * owners + owner) * FEW;
            first..first + FEW
        };
        for owner in 0..owners {
            start_all(table, numbers(OWNED, owner), &of(&name(round, owner))).await?;
            start_all(table, numbers(KNOWN, owner), &of(&[])).await?;
        }
        let (mut owned, mut known) = (Latencies::default(), Latencies::default());
        for owner in 0..owners {
            let began = Instant::now();
            let ended = table.end_sessions_of(name(round, owner), None).await?;
            owned.push(began.elapsed());
            ensure!(ended as u64 == FEW, "{ended} of {FEW} sessions ended");
            let began = Instant::now();
            let mut ends = JoinSet::new();
            for number in numbers(KNOWN, owner) {
                let table = table.clone();
                ends.spawn(async move { table.end(key(number), None).await });
            }
            while let Some(done) = ends.join_next().await {
                done??;
            }
            known.push(began.elapsed());
        }
        for (rounds, latencies) in [(&mut by_owner, owned), (&mut by_key, known)] {
            let percentiles = latencies.percentiles_us([0.5, 0.99, 1.0]);
            rounds.iter_mut().zip(percentiles).for_each(|(rounds, us)| rounds.push(us / 1e3));
        }
    }
    for (at, part) in ["p50", "p99", "the slowest"].into_iter().enumerate() {
        let known = format!("{FEW} sessions ended by their keys, {part}");
        report.row(&known, Unit::Ms, &by_key[at]);
        let owned = format!("{FEW} sessions ended by their owner, {part}");
        report.row_against(&owned, Unit::Ms, &by_owner[at], &known);
    }
    let goal = Goal { must: 100.0, stretch: None };
    let title = format!("{FEW} sessions ended by their owner, p99");
    report.goal(&title, Unit::Ms, &by_owner[1], None, goal);
    Ok(())
}

/// A session of an owner, or of nobody.
fn of(owner: &[u8]) -> StartOptions {
    StartOptions { owner: owner.to_vec(), ..StartOptions::default() }
}

fn name(round: u64, owner: u64) -> Vec<u8> {
    format!("user-{round}-{owner}").into_bytes()
}

/// Lists and ends an owner's sessions, very many, while somebody else uses others.
async fn end_many(
    cluster: &Cluster,
    table: &Table,
    many: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (phase, seen) = watch::channel(Phase::Settling);
    let name = cluster.name().to_owned();
    let seeds: Vec<String> = cluster.nodes.iter().map(|node| node.addr.to_string()).collect();
    let user = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = annulus_client::Client::builder().cluster(name).seeds(seeds);
            let client = client.software("annulus-bench").without_shared_memory();
            let client = client.connect().await.context("no node answers")?;
            use_sessions(client.table(TABLE), (USED, VALUE_BYTES), seen).await
        })
    });
    tokio::time::sleep(SETTLE).await;
    phase.send_replace(Phase::Before);
    tokio::time::sleep(BEFORE).await;
    phase.send_replace(Phase::During);
    let began = Instant::now();
    let listed = table.sessions_of(CROWD).await.context("an owner's sessions are not listed")?;
    let listing = began.elapsed();
    ensure!(listed.is_complete, "{} members are silent", listed.silent.len());
    ensure!(listed.sessions.len() as u64 == many, "{} listed", listed.sessions.len());
    let began = Instant::now();
    let ended = table.end_sessions_of(CROWD, None).await.context("they are not ended")?;
    let ending = began.elapsed();
    ensure!(ended as u64 == many, "{ended} of {many} ended");
    phase.send_replace(Phase::Over);
    let user = user.join().expect("a user does not panic");
    let [(read_before, write_before), (read_during, write_during)] = user?;
    let left = table.sessions_of(CROWD).await?.sessions.len();
    ensure!(left == 0, "{left} sessions are left");
    let what = |what: &str| format!("an owner of {many} sessions: {what}");
    let ms = |took: Duration| Rounds::from([took.as_secs_f64() * 1e3]);
    report.row(&what("listed"), Unit::Ms, &ms(listing));
    report.row(&what("all ended, by the owner"), Unit::Ms, &ms(ending));
    for (name, before, during) in
        [("read", read_before, read_during), ("write", write_before, write_during)]
    {
        let p99 = |took: Latencies| Rounds::from([took.percentiles_us([0.99])[0]]);
        let title = format!("another client's {name} before, p99");
        report.row(&title, Unit::Us, &p99(before));
        let name = format!("another client's {name} meanwhile, p99");
        report.row_against(&name, Unit::Us, &p99(during), &title);
    }
    Ok(())
}
