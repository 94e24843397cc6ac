//! How far apart nodes are.

use bincode::{Decode, Encode};
use serde::Serialize;

/// How long a packet takes from one node to another and back, estimated from the answers to pings and
/// smoothed as in RFC 6298, section 2. It never decides where a session lives, only which of its homes
/// is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Rtt {
    /// The smoothed round trip, in microseconds.
    pub smoothed_us: u32,
    /// Its smoothed mean deviation, in microseconds.
    pub variation_us: u32,
    /// How many round trips it was estimated from; it stays at the greatest number there is.
    pub samples: u32,
}

impl Rtt {
    /// A step of a scale on which each is twice as far as the one before; 0 is up to a quarter of a
    /// millisecond, as within a building. Nodes of one step count as equally far: what sets them apart
    /// changes from one minute to the next.
    pub fn step(&self) -> u8 {
        step(self.smoothed_us)
    }
}

/// The step of a round trip in microseconds: see [`Rtt::step`]. One that is not known (0) counts as the
/// longest.
pub fn step(rtt_us: u32) -> u8 {
    match rtt_us {
        0 => STEP_UNKNOWN,
        us => (us.saturating_sub(1) / NEAR_US).checked_ilog2().map_or(0, |log| log as u8 + 1),
    }
}

/// The step of what is not known.
const STEP_UNKNOWN: u8 = u8::MAX;

/// The longest round trip of step 0, in microseconds.
const NEAR_US: u32 = 250;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_twice_as_far_as_the_one_before() {
        let steps = [1, 250, 251, 500, 501, 1_000, 1_001, 2_000, 32_000, 32_001].map(step);
        assert_eq!(steps, [0, 0, 1, 1, 2, 2, 3, 3, 7, 8]);
        assert!(step(u32::MAX) < step(0), "what is not known is the farthest");
    }
}
