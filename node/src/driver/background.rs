//! The plain thread beside the node: it reads the host's load and collects the segments' pages into huge
//! ones, and reports over a channel. It decides nothing.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use annulus_proto::Load;
use annulus_proto::message::HostLoad;
use annulus_shm::{Huge, Region};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};

use super::load::Meter;

/// What the thread found.
#[derive(Debug)]
pub enum Report {
    /// The host's load, and how busy it is.
    Load(Load, HostLoad),
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
const COLLAPSE_TRIES: u32 = 20;
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
    let mut meter = Meter::default();
    meter.read();
    for (table, segment) in segments.iter().enumerate() {
        let bytes = collapse(segment);
        if !send(reports, Report::HugePages { table, bytes }) {
            return;
        }
    }
    loop {
        let (load, host) = meter.read();
        if !send(reports, Report::Load(load, host)) {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Collects a segment's pages into huge ones, step by step, and returns how many bytes were.
fn collapse(segment: &Weak<dyn Region>) -> u64 {
    let (mut at, mut tries) = (0, 0);
    loop {
        let Some(region) = segment.upgrade() else { return 0 };
        if at >= region.len() {
            return region.huge_bytes();
        }
        match region.collapse(at, COLLAPSE_STEP) {
            Ok(Huge::Collapsed) => (at, tries) = (at + COLLAPSE_STEP, 0),
            Ok(Huge::Unsuited) => return region.huge_bytes(),
            Err(error) => {
                tries += 1;
                match after_refusal(&error, tries) {
                    Refused::Again => {}
                    Refused::Skip => (at, tries) = (at + COLLAPSE_STEP, 0),
                    Refused::End => {
                        let why = "no huge pages for shared memory; lookups take longer";
                        tracing::info!(%error, "{why}");
                        return region.huge_bytes();
                    }
                }
            }
        }
        drop(region);
        thread::sleep(COLLAPSE_PAUSE);
    }
}

/// What follows when the kernel refused a step.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Again,
    /// These pages stay small; the others need not.
    Skip,
    End,
}

/// EAGAIN is of these pages and of this moment: the kernel had one in hand. All else is of all of them.
fn after_refusal(error: &io::Error, tries: u32) -> Refused {
    match error.kind() {
        io::ErrorKind::WouldBlock if tries < COLLAPSE_TRIES => Refused::Again,
        io::ErrorKind::WouldBlock => Refused::Skip,
        _ => Refused::End,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_the_kernels_hands_are_tried_again_and_then_left_small() {
        let busy = io::Error::from_raw_os_error(rustix::io::Errno::AGAIN.raw_os_error());
        assert_eq!(after_refusal(&busy, 1), Refused::Again);
        assert_eq!(after_refusal(&busy, COLLAPSE_TRIES), Refused::Skip);
        let unknown = io::Error::from(io::ErrorKind::InvalidInput);
        assert_eq!(after_refusal(&unknown, 1), Refused::End);
    }
}
