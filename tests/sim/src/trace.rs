//! What happened in a simulation, line by line, in order: a hash always, the text on request.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::prelude::*;
use twox_hash::XxHash3_64;

/// One simulation per process, so one trace.
static TRACE: Mutex<Option<Trace>> = Mutex::new(None);
static NOW_US: AtomicU64 = AtomicU64::new(0);

struct Trace {
    hash: XxHash3_64,
    lines: u64,
    file: Option<BufWriter<File>>,
}

/// Begins the trace of this process, with its text in a file if there is one, and sends all log
/// lines of node, client and simulation into it.
///
/// # Errors
/// If the file cannot be made.
pub fn begin(file: Option<&Path>) -> io::Result<()> {
    let file = file.map(File::create).transpose()?.map(BufWriter::new);
    *lock() = Some(Trace { hash: XxHash3_64::with_seed(0), lines: 0, file });
    let levels = Targets::new()
        .with_target("annulus_node", Level::DEBUG)
        .with_target("annulus_client", Level::DEBUG)
        .with_target("annulus_gossip", Level::DEBUG)
        .with_target("turmoil", Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_timer(SimulatedTime)
        .with_writer(IntoTrace)
        .with_filter(levels);
    // A second simulation in one process would lack its log lines; there is none.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    Ok(())
}

/// The simulated time since the start, to a tick.
pub fn now() -> Duration {
    Duration::from_micros(NOW_US.load(Ordering::Relaxed))
}

/// Sets the simulated time; only the cluster does that, before each tick.
pub(crate) fn set_now(now: Duration) {
    NOW_US.store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Adds a line, which gets the time in front.
pub(crate) fn line(what: fmt::Arguments<'_>) {
    let mut text = String::with_capacity(128);
    let _ = SimulatedTime.format_time(&mut Writer::new(&mut text));
    let _ = writeln!(text, " {what}");
    add(text.as_bytes());
}

/// The hash of all lines so far, and their number.
pub fn hash() -> (u64, u64) {
    lock().as_ref().map_or((0, 0), |trace| (trace.hash.finish(), trace.lines))
}

/// Completes the file, if there is one.
///
/// # Errors
/// If it cannot be written.
pub fn flush() -> io::Result<()> {
    lock().as_mut().and_then(|trace| trace.file.as_mut()).map_or(Ok(()), Write::flush)
}

fn add(line: &[u8]) {
    let mut guard = lock();
    let Some(trace) = guard.as_mut() else { return };
    trace.hash.write(line);
    trace.lines += 1;
    if let Some(file) = &mut trace.file {
        // The hash is what counts; a full disk shows at the flush.
        let _ = file.write_all(line);
    }
}

fn lock() -> MutexGuard<'static, Option<Trace>> {
    TRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = now();
        write!(w, "{:>4}.{:03}", now.as_secs(), now.subsec_millis())
    }
}

struct IntoTrace;

impl<'a> MakeWriter<'a> for IntoTrace {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for IntoTrace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
