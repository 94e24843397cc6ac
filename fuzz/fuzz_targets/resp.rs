//! See `requests` in resp/fuzz_bodies.rs.
#![no_main]

#[path = "../../resp/fuzz_bodies.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_bodies::requests(input));
