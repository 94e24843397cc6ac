//! See `requests` in resp/fuzz_bodies.rs.
#![no_main]

#[allow(dead_code, reason = "the tests look at more of what it tells")]
#[path = "../../resp/fuzz_bodies.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_bodies::requests(input));
