//! The plain threads beside the node: they scan shared memory for entries whose time is over, and
//! read the host's load, and report over a channel. They only read; the core decides and drops.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use annulus_net::{Clock, SystemClock};
use annulus_proto::{Key, Load};
use annulus_shm::{Reader, Region};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};

use super::load::measure_load;

/// What a thread found.
#[derive(Debug)]
pub enum Report {
    /// Entries of a table that seem to have expired.
    Expired {
        /// The table, by its place in the settings.
        table: usize,
        /// Their keys.
        keys: Vec<Key>,
    },
    /// The host's load.
    Load(Load),
}

/// Entries looked at in one step of a scan: at 10 ns each some 40 µs.
const STEP: usize = 4_096;
/// The pause between two steps, so that 10⁶ entries take some five seconds and 1 % of a core.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// The pause between two passes, and between two readings of the load.
const PASS_PAUSE: Duration = Duration::from_secs(1);
/// Reports that may wait for the core; a scan that finds more waits.
const REPORTS_MAX: usize = 64;

/// Starts the thread. It ends when the receiver is dropped.
pub(super) fn start(segments: Vec<Arc<dyn Region>>) -> Receiver<Report> {
    let (reports, receiver) = crossbeam_channel::bounded(REPORTS_MAX);
    // The segments are the node's: it stops without waiting for a pause of this thread to end.
    let segments: Vec<_> = segments.iter().map(Arc::downgrade).collect();
    let watch = move || watch(&segments, &reports);
    if let Err(error) = thread::Builder::new().name("annulus-scan".to_owned()).spawn(watch) {
        tracing::error!(%error, "no thread for scanning; expired entries go only when a table fills");
    }
    receiver
}

fn watch(segments: &[Weak<dyn Region>], reports: &Sender<Report>) {
    let mut processor = (0, 0);
    measure_load(&mut processor);
    loop {
        if !send(reports, Report::Load(measure_load(&mut processor))) {
            return;
        }
        for (table, segment) in segments.iter().enumerate() {
            let mut cursor = 0;
            loop {
                let mut keys = Vec::new();
                let now_ms = SystemClock.monotonic_coarse_ms();
                let Some(region) = segment.upgrade() else { return };
                let Ok(reader) = Reader::attach(region) else { break };
                // Also in slots that the node does not vouch for: what it keeps without being a home.
                let hybrid_ms = now_ms.wrapping_add(reader.clock_offset());
                cursor = reader.scan(cursor, STEP, now_ms, &mut |item, _| {
                    if item.deadline != 0 && item.deadline <= hybrid_ms {
                        keys.extend(Key::new(item.key));
                    }
                });
                drop(reader);
                if !keys.is_empty() && !send(reports, Report::Expired { table, keys }) {
                    return;
                }
                thread::sleep(STEP_PAUSE);
                if cursor == 0 {
                    break;
                }
            }
        }
        thread::sleep(PASS_PAUSE);
    }
}

/// Hands over a report; `false` when nobody listens any more.
fn send(reports: &Sender<Report>, mut report: Report) -> bool {
    loop {
        match reports.send_timeout(report, PASS_PAUSE) {
            Ok(()) => return true,
            Err(SendTimeoutError::Timeout(back)) => report = back,
            Err(SendTimeoutError::Disconnected(_)) => return false,
        }
    }
}
