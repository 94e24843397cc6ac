//! Time: the wall and the monotonic clock apart, so that skew, drift and jumps can be simulated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Where time comes from. Cheap to clone; clones are the same clock.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump, in both directions; two hosts disagree. For
    /// stamps and for people, never for measuring how long something took.
    fn wall_ms(&self) -> u64;

    /// Time since an origin that all processes of a host share until it reboots. Never goes back
    /// and does not jump with the wall clock.
    fn monotonic(&self) -> Duration;

    /// The same clock as [`Clock::monotonic`] in milliseconds, but behind it by up to a kernel tick
    /// (1–10 ms), and cheaper: about 5 ns and no system call. For the read path.
    fn monotonic_coarse_ms(&self) -> u64;
}

/// The clocks of this host: `CLOCK_REALTIME`, `CLOCK_MONOTONIC` and `CLOCK_MONOTONIC_COARSE`.
///
/// The monotonic clock is read directly and not as a `std::time::Instant`, whose origin is hidden:
/// values are compared between processes through shared memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        #[allow(
            clippy::disallowed_methods,
            reason = "the one place that reads the wall clock; everything else asks a Clock"
        )]
        let now = SystemTime::now();
        // A clock before 1970 counts as 1970.
        now.duration_since(UNIX_EPOCH).map_or(0, saturating_ms)
    }

    fn monotonic(&self) -> Duration {
        read(ClockId::Monotonic)
    }

    fn monotonic_coarse_ms(&self) -> u64 {
        saturating_ms(read(ClockId::MonotonicCoarse))
    }
}

fn read(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    // Linux never reports a negative monotonic time, and keeps nanoseconds below a second.
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn saturating_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_never_goes_back() {
        let clock = SystemClock;
        let mut last = clock.monotonic();
        for _ in 0..10_000 {
            let now = clock.monotonic();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn coarse_is_the_monotonic_clock_and_never_ahead_of_it() {
        let clock = SystemClock;
        for _ in 0..1_000 {
            let before_ms = clock.monotonic_coarse_ms();
            let exact_ms = saturating_ms(clock.monotonic());
            assert!(before_ms <= exact_ms, "{before_ms} is ahead of {exact_ms}");
        }
        // The same origin: a coarse reading taken later has caught up with an exact one. Ticks
        // come by themselves, so this waits for the condition and not for a time.
        let exact_ms = saturating_ms(clock.monotonic());
        while clock.monotonic_coarse_ms() < exact_ms {
            std::thread::yield_now();
        }
    }

    #[test]
    fn wall_clock_is_in_milliseconds_since_1970() {
        let year_2020_ms = 1_577_836_800_000;
        let year_2200_ms = 7_258_118_400_000;
        assert!((year_2020_ms..year_2200_ms).contains(&SystemClock.wall_ms()));
    }
}
