//! Clocks that are wrong on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use annulus_net::Clock;

use crate::trace;

/// The wall clock when a simulation starts: some day in November 2023.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// How long a host had been up when a simulation starts, or comes back after a reboot.
const UPTIME: Duration = Duration::from_secs(1);

/// The clocks of one host, shared by its node and its clients. Clones are the same clocks.
///
/// They follow the simulated time, which advances in ticks of a millisecond, with an error that the
/// nemesis sets: an offset of the wall clock, and a rate that both clocks have.
#[derive(Clone, Debug)]
pub struct SimClock {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    offset_ms: AtomicI64,
    drift_ppm: i64,
    booted_us: AtomicU64,
}

impl SimClock {
    /// Clocks that are `offset_ms` ahead and gain `drift_ppm` microseconds each second.
    #[must_use]
    pub fn new(offset_ms: i64, drift_ppm: i64) -> Self {
        let (offset_ms, booted_us) = (AtomicI64::new(offset_ms), AtomicU64::new(0));
        Self { state: Arc::new(State { offset_ms, drift_ppm, booted_us }) }
    }

    /// Sets the wall clock by this much.
    pub fn jump(&self, ms: i64) {
        self.state.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Begins the monotonic clock anew.
    pub fn reboot(&self) {
        self.state.booted_us.store(micros(trace::now()), Ordering::Relaxed);
    }

    fn stretch(&self, us: u64) -> u64 {
        let gained = i128::from(us) * i128::from(self.state.drift_ppm) / 1_000_000;
        us.saturating_add_signed(i64::try_from(gained).unwrap_or(0))
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        let elapsed_ms = self.stretch(micros(trace::now())) / 1_000;
        let offset_ms = self.state.offset_ms.load(Ordering::Relaxed);
        (EPOCH_MS + elapsed_ms).saturating_add_signed(offset_ms)
    }

    fn monotonic(&self) -> Duration {
        let up = micros(trace::now()) - self.state.booted_us.load(Ordering::Relaxed);
        UPTIME + Duration::from_micros(self.stretch(up))
    }

    fn monotonic_coarse_ms(&self) -> u64 {
        micros(self.monotonic()) / 1_000
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
