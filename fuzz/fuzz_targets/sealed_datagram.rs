//! See `datagram` in seal/fuzz_bodies.rs.
#![no_main]

#[allow(dead_code, reason = "each target uses one body of the file")]
#[path = "../../seal/fuzz_bodies.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_bodies::datagram(input));
