//! The plain thread beside the node: it reads the host's load and collects the segments' pages into huge
//! ones, and reports over a channel. It decides nothing.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use annulus_proto::Load;
use annulus_shm::{Huge, Region};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};

use super::load::measure_load;

/// What the thread found.
#[derive(Debug)]
pub enum Report {
    /// The host's load.
    Load(Load),
    /// How much of a table's segment lies in huge pages.
    HugePages {
        /// The table, by its place in the settings.
        table: usize,
        /// Bytes.
        bytes: u64,
    },
}

/// The pause between two readings of the load.
const PAUSE: Duration = Duration::from_secs(1);
/// How much is collected into huge pages between two pauses of [`COLLAPSE_PAUSE`]: one takes some
/// 7 ms, and this much of a core is left to the node.
const COLLAPSE_STEP: usize = 2 << 20;
const COLLAPSE_PAUSE: Duration = Duration::from_millis(5);
/// Reports that may wait for the core.
const REPORTS_MAX: usize = 64;

/// Starts the thread. It ends when the receiver is dropped.
pub(super) fn start(segments: Vec<Arc<dyn Region>>) -> Receiver<Report> {
    let (reports, receiver) = crossbeam_channel::bounded(REPORTS_MAX);
    // The segments are the node's: it stops without waiting for a pause of this thread to end.
    let segments: Vec<_> = segments.iter().map(Arc::downgrade).collect();
    let watch = move || watch(&segments, &reports);
    if let Err(error) = thread::Builder::new().name("annulus-watch".to_owned()).spawn(watch) {
        tracing::error!(%error, "no thread for the host's load and huge pages: both are left out");
    }
    receiver
}

fn watch(segments: &[Weak<dyn Region>], reports: &Sender<Report>) {
    let mut processor = (0, 0);
    measure_load(&mut processor);
    for (table, segment) in segments.iter().enumerate() {
        let bytes = collapse(segment);
        if !send(reports, Report::HugePages { table, bytes }) {
            return;
        }
    }
    while send(reports, Report::Load(measure_load(&mut processor))) {
        thread::sleep(PAUSE);
    }
}

/// Collects a segment's pages into huge ones, step by step, and returns how many bytes were. Ends at
/// the first step that the kernel refuses.
fn collapse(segment: &Weak<dyn Region>) -> u64 {
    let mut at = 0;
    loop {
        let Some(region) = segment.upgrade() else { return 0 };
        if at >= region.len() {
            return region.huge_bytes();
        }
        match region.collapse(at, COLLAPSE_STEP) {
            Ok(Huge::Collapsed) => at += COLLAPSE_STEP,
            Ok(Huge::Unsuited) => return region.huge_bytes(),
            Err(error) => {
                tracing::info!(%error, "no huge pages for shared memory; lookups take longer");
                return region.huge_bytes();
            }
        }
        drop(region);
        thread::sleep(COLLAPSE_PAUSE);
    }
}

/// Hands over a report; `false` when nobody listens any more.
fn send(reports: &Sender<Report>, mut report: Report) -> bool {
    loop {
        match reports.send_timeout(report, PAUSE) {
            Ok(()) => return true,
            Err(SendTimeoutError::Timeout(back)) => report = back,
            Err(SendTimeoutError::Disconnected(_)) => return false,
        }
    }
}
