//! Waiting for what other processes do.

use std::time::{Duration, Instant};

/// Longer than anything takes, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(180);

/// Looks again and again until there is what is waited for.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(began.elapsed() < LIMIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
