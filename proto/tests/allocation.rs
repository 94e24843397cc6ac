//! Decoding allocates in proportion to what has arrived, never to what a length in it promises.
//!
//! One test alone in its process: the counts are the whole process's.

use std::alloc::System;

use annulus_proto::codec::{self, HEADER_BYTES, Header};
use annulus_proto::message::{Message, Ping};
use annulus_proto::{Hlc, record};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Lengths that nobody could keep, as bincode writes them, and some that are merely too long.
const LENGTHS: [&[u8]; 9] = [
    &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10],
    &[0xfd, 0, 0, 0, 0, 0x01, 0, 0, 0],
    &[0xfc, 0xff, 0xff, 0xff, 0xff],
    &[0xfc, 0, 0, 0, 0x10],
    &[0xfc, 0, 0, 0x80, 0],
    &[0xfb, 0xff, 0xff],
    &[0xfb, 0, 0x10],
];

#[test]
fn forged_lengths_do_not_allocate() {
    let mut lengths = 0u64;
    for &kind in Message::KINDS {
        for filler in [0, 1, 2, 3] {
            // Wherever a length may stand, and whatever follows it.
            for before in 0..48 {
                for length in LENGTHS {
                    for after in [0, 16, 4_000] {
                        let mut payload = vec![filler; before];
                        payload.extend_from_slice(length);
                        payload.resize(payload.len() + after, filler);
                        if payload.len() <= Message::limit(kind).expect("it is a kind of ours") {
                            check(kind, &payload);
                            lengths += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(lengths > 100_000);

    // A whole payload of lengths, at every rung of the limit's ladder up to the kind's own.
    for &kind in Message::KINDS {
        let limit = Message::limit(kind).expect("it is a kind of ours");
        for size in [100, 128, 129, 1_024, 8_192, 65_536, 524_288, limit] {
            for length in LENGTHS {
                for skip in 0..3 {
                    let mut payload = vec![0; skip];
                    payload.extend(length.iter().cycle().take(size.min(limit) - skip));
                    check(kind, &payload);
                }
            }
        }
    }

    // A record with forged counts and lengths in every place.
    for flags in 0..=u8::MAX {
        for at in 2..120 {
            for filler in [0, 1, 2] {
                let mut bytes = vec![filler; 120];
                bytes[..2].copy_from_slice(&[1, flags]);
                bytes[at..].fill(0xff);
                let allocated = allocated_by(|| {
                    let _ = record::View::parse(&bytes).and_then(|view| view.entry(0));
                });
                assert!(allocated <= 8 * bytes.len(), "{allocated} for flags {flags} at {at}");
            }
        }
    }
}

/// Decodes the payload in a frame that is otherwise in order.
fn check(kind: u8, payload: &[u8]) {
    let mut frame = Vec::new();
    let header = Header { id: 1, view: 2, hlc: Hlc::ZERO };
    codec::encode_frame(header, &Ping {}.into(), &mut frame).expect("a ping fits");
    frame.truncate(HEADER_BYTES);
    frame[7] = kind;
    frame.extend_from_slice(payload);
    let length = frame.len() - 4 + codec::CHECK_BYTES;
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame.extend_from_slice(&codec::check_of(&frame));
    let allocated = allocated_by(|| drop(codec::decode_frame(&frame)));
    // Everything ever allocated on the way, freed or not.
    let bound = 64 * payload.len().max(128);
    assert!(allocated <= bound, "{allocated} bytes for kind {kind} and {} bytes", payload.len());
}

fn allocated_by(run: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    run();
    region.change().bytes_allocated
}
