//! Models of what others do: bytes and round trips counted as their papers and code describe it.

use std::collections::BTreeSet;

use super::Cost;

const HASH_BYTES: usize = 8;
/// A key and its version's hash, as hash trees keep them.
const LEAF_BYTES: usize = 64;
const WIDTH_BITS: u32 = 10;
/// Words of keys have 61 bits.
const WORD_BITS: u32 = 61;

/// A hash tree of 1,024 branches of 1,024 segments (Riak's active anti-entropy): both send the root, the
/// hashes of all branches, those of the segments of branches that differ, and what is in segments that differ.
pub(super) fn merkle(words: &[u64], differing: &[u64]) -> Cost {
    let branch = |word: &u64| word >> (WORD_BITS - WIDTH_BITS);
    let segment = |word: &u64| word >> (WORD_BITS - 2 * WIDTH_BITS);
    let branches: BTreeSet<u64> = differing.iter().map(branch).collect();
    let segments: BTreeSet<u64> = differing.iter().map(segment).collect();
    let in_segments: usize = segments
        .iter()
        .map(|number| {
            let first = words.partition_point(|word| segment(word) < *number);
            words[first..].iter().take_while(|word| segment(word) == *number).count()
        })
        .sum();
    let hashes = 1 + (1 << WIDTH_BITS) * (1 + branches.len());
    Cost { bytes: hashes * HASH_BYTES + in_segments * LEAF_BYTES, round_trips: 4 }
}

const FINGERPRINT_BYTES: usize = 16;
/// Enough to tell a bound from its neighbours.
const BOUND_BYTES: usize = 5;
const ELEMENT_BYTES: usize = 16;
const PARTS: usize = 16;

/// Range-based reconciliation (Meyer, arXiv 2212.13567): a range whose fingerprints differ is split in 16 of equal
/// size, and one with no more elements than that is sent. The two sides take turns, so that a round trip goes two
/// steps down.
pub(super) fn ranges(words: &[u64], differing: &[u64]) -> Cost {
    let mut places: Vec<usize> =
        differing.iter().map(|word| words.partition_point(|other| other < word)).collect();
    places.sort_unstable();
    let all = 0..words.len();
    let mut level = vec![all];
    let (mut bytes, mut steps) = (FINGERPRINT_BYTES, 1);
    while !level.is_empty() {
        let mut next = Vec::new();
        for range in level {
            if range.len() <= PARTS {
                // One side's, and the other's answer of what differs from them.
                bytes += range.len() * ELEMENT_BYTES;
                continue;
            }
            for part in 0..PARTS {
                let place = |part: usize| range.start + range.len() * part / PARTS;
                let part = place(part)..place(part + 1);
                bytes += FINGERPRINT_BYTES + BOUND_BYTES;
                let first = places.partition_point(|place| *place < part.start);
                if places.get(first).is_some_and(|place| *place < part.end) {
                    next.push(part);
                }
            }
        }
        steps += 1;
        level = next;
    }
    Cost { bytes, round_trips: steps / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_count_what_their_trees_have() {
        let words: Vec<u64> = (0..1 << 16).map(|n| n << (WORD_BITS - 16)).collect();
        // A branch of 1,024 segments, in one of which there is one word.
        let one = merkle(&words, &words[7..8]);
        assert_eq!(one.bytes, (1 + 1_024 + 1_024) * HASH_BYTES + LEAF_BYTES);
        // Three levels of 16 parts, then 16 elements.
        let one = ranges(&words, &words[7..8]);
        assert_eq!(one.bytes, 16 + 3 * 16 * (FINGERPRINT_BYTES + BOUND_BYTES) + 16 * ELEMENT_BYTES);
        assert!(ranges(&words, &words[..100]).bytes > one.bytes);
    }
}
