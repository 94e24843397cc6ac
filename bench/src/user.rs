//! One who uses sessions while something else goes on.

use std::time::{Duration, Instant};

use annulus_client::{Change, Table, Value};
use anyhow::Context;
use tokio::sync::watch;

use crate::entries::{fill_value, key, shuffled};
use crate::sample::Latencies;

/// What goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is measured yet.
    Settling,
    Before,
    During,
    Over,
}

/// Between two of its requests: it is a user and no load.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads, writes in turn sessions of so many, with values of so many bytes; the times of both, before and meanwhile.
pub(crate) async fn use_sessions(
    table: Table,
    (entries, value_bytes): (u64, usize),
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<[(Latencies, Latencies); 2]> {
    let mut found = <[(Latencies, Latencies); 2]>::default();
    let mut unused = <(Latencies, Latencies)>::default();
    for number in shuffled(entries).into_iter().cycle() {
        let now = *phase.borrow();
        let (reads, writes) = match now {
            Phase::Settling => &mut unused,
            Phase::Before => &mut found[0],
            Phase::During => &mut found[1],
            Phase::Over => break,
        };
        let began = Instant::now();
        table.get(key(number)).await.context("a read failed")?;
        reads.push(began.elapsed());
        let began = Instant::now();
        let change = Change::Value(value(number, value_bytes));
        table.update(key(number), None, change).await.context("a write failed")?;
        writes.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(found)
}

/// The value of a number, of so many bytes.
pub(crate) fn value(number: u64, bytes: usize) -> Value {
    let mut value = vec![0; bytes];
    fill_value(number, &mut value);
    Value::Bytes(value)
}
