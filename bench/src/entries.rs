//! What is stored and asked for: keys, values and orders that follow from numbers, the same each time.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const VALUE_BYTES: usize = 256;

/// Key and value follow from a number; the value begins with it.
pub(crate) fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"session:________________________";
    let text = format!("{:016x}{:08x}", mixed(number), number as u32);
    key[KEY_BYTES - text.len()..].copy_from_slice(text.as_bytes());
    key
}

pub(crate) fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    fill_value(number, &mut value);
    value
}

/// Fills a value of any size.
pub(crate) fn fill_value(number: u64, value: &mut [u8]) {
    for (index, word) in value.chunks_mut(8).enumerate() {
        let bits = if index == 0 { number } else { mixed(number + index as u64) };
        word.copy_from_slice(&bits.to_le_bytes()[..word.len()]);
    }
}

/// Whether these bytes are the value of this number; looks at its ends.
pub(crate) fn is_value(bytes: &[u8], number: u64) -> bool {
    bytes.len() == VALUE_BYTES && bytes[..8] == number.to_le_bytes()
}

/// Spreads neighbouring numbers over all bits (the finaliser of SplitMix64).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The numbers below `count` in an order that is the same each time.
pub(crate) fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count).collect();
    numbers.shuffle(&mut StdRng::seed_from_u64(count));
    numbers
}

/// As many requests as there are numbers below `count`, the n-th most popular of them asked for in
/// proportion to n to the power of -0.99.
pub(crate) fn zipf(count: u64) -> Vec<u64> {
    let by_rank = shuffled(count);
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(!count);
    let draw = |_| {
        let point = rng.random_range(0.0..sum);
        let rank = cumulated.partition_point(|upto| *upto <= point);
        by_rank[rank.min(by_rank.len() - 1)]
    };
    (0..count).map(draw).collect()
}

/// `requests` for the first `hot` of the numbers below `count` in their shuffled order.
pub(crate) fn hot(count: u64, hot: usize, requests: u64) -> Vec<u64> {
    let numbers = shuffled(count);
    let numbers = &numbers[..hot.min(numbers.len())];
    let mut rng = StdRng::seed_from_u64(requests);
    (0..requests).map(|_| numbers[rng.random_range(0..numbers.len())]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_value_of_any_size_begins_with_its_number() {
        let mut bytes = [0; 13];
        fill_value(7, &mut bytes);
        assert_eq!(bytes[..8], 7_u64.to_le_bytes());
        assert_eq!(bytes[..], value(7)[..13]);
    }

    #[test]
    fn the_most_popular_keys_of_zipf_take_their_share() {
        let mut asked: HashMap<u64, u64> = HashMap::new();
        for number in zipf(10_000) {
            assert!(number < 10_000);
            *asked.entry(number).or_default() += 1;
        }
        // 1 / sum of n^-0.99 for 10,000 ranks is 0.098.
        let most = asked.values().max().copied().unwrap_or(0);
        assert!((800..1_200).contains(&most), "{most}");
    }
}
