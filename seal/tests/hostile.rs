//! Whatever arrives, nothing panics, and nothing is opened that no holder of a key sealed.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

#[path = "../fuzz_bodies.rs"]
mod fuzz_bodies;

/// Inputs of all sizes up to a datagram and more, some of them nearly empty, so that few bytes change.
fn inputs(count: usize, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(move |number| {
        let length = match number % 3 {
            0 => rng.random_range(0..4),
            1 => rng.random_range(0..120),
            _ => rng.random_range(0..4_000),
        };
        let mut input = vec![0; length];
        if number % 2 == 0 {
            rng.fill_bytes(&mut input);
        } else if length > 0 {
            let at = rng.random_range(0..length);
            input[at] = 1 << rng.random_range(0..8);
        }
        input
    })
}

#[test]
fn no_datagram_is_opened_that_nobody_sealed() {
    inputs(20_000, 1).for_each(|input| fuzz_bodies::datagram(&input));
}

#[test]
fn no_stream_is_believed_that_nobody_sealed() {
    inputs(1_000, 2).for_each(|input| fuzz_bodies::stream(&input));
}
