//! What happened in a simulation, line by line, in order: a hash always, the text on request.
//!
//! Each thread has a trace and a time of its own, and a simulation has one thread.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::prelude::*;
use twox_hash::XxHash3_64;

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

struct Trace {
    hash: XxHash3_64,
    lines: u64,
    file: Option<BufWriter<File>>,
}

/// Begins the trace of this thread, with its text in a file if there is one.
///
/// # Errors
/// If the file cannot be made.
pub fn begin(file: Option<&Path>) -> io::Result<()> {
    let file = file.map(File::create).transpose()?.map(BufWriter::new);
    let trace = Trace { hash: XxHash3_64::with_seed(0), lines: 0, file };
    TRACE.with_borrow_mut(|current| *current = Some(trace));
    NOW.set(Duration::ZERO);
    Ok(())
}

/// Sends all log lines of node, client and simulation into the trace, each into that of its thread. To be
/// called once.
pub fn take_logs() {
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
    // It fails where it was done before.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// The simulated time since the start.
pub fn now() -> Duration {
    NOW.get()
}

/// Sets the simulated time; only the cluster does that, before each tick, or the plain world, before each event.
pub(crate) fn set_now(now: Duration) {
    NOW.set(now);
}

/// Adds a line, which gets the time in front.
pub(crate) fn line(what: fmt::Arguments<'_>) {
    let mut text = String::with_capacity(128);
    let _ = SimulatedTime.format_time(&mut Writer::new(&mut text));
    let _ = writeln!(text, " {what}");
    add(text.as_bytes());
}

/// Adds a line to the text alone, if there is any: it has no part in the hash.
pub(crate) fn note(what: impl FnOnce() -> String) {
    let has_file = TRACE.with_borrow(|it| it.as_ref().is_some_and(|it| it.file.is_some()));
    if !has_file {
        return;
    }
    let mut text = String::with_capacity(128);
    let _ = SimulatedTime.format_time(&mut Writer::new(&mut text));
    let _ = writeln!(text, " {}", what());
    TRACE.with_borrow_mut(|trace| {
        if let Some(file) = trace.as_mut().and_then(|trace| trace.file.as_mut()) {
            let _ = file.write_all(text.as_bytes());
        }
    });
}

/// Adds bytes that are no text to the hash alone.
pub(crate) fn bytes(bytes: &[u8]) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.hash.write(bytes);
        }
    });
}

/// The hash of all lines so far, and their number.
pub fn hash() -> (u64, u64) {
    let hash = |trace: &Trace| (trace.hash.finish(), trace.lines);
    TRACE.with_borrow(|trace| trace.as_ref().map_or((0, 0), hash))
}

/// Completes the file, if there is one.
///
/// # Errors
/// If it cannot be written.
pub fn flush() -> io::Result<()> {
    TRACE.with_borrow_mut(|trace| {
        trace.as_mut().and_then(|trace| trace.file.as_mut()).map_or(Ok(()), Write::flush)
    })
}

fn add(line: &[u8]) {
    TRACE.with_borrow_mut(|trace| {
        let Some(trace) = trace else { return };
        trace.hash.write(line);
        trace.lines += 1;
        if let Some(file) = &mut trace.file {
            // The hash is what counts; a full disk shows at the flush.
            let _ = file.write_all(line);
        }
    });
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
