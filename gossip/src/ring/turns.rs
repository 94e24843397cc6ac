//! The order in which one node asks for groups.

use annulus_proto::NodeId;
use twox_hash::XxHash3_64;

use super::GROUPS;

/// A node's turns: turn by turn it asks for another group, in an order of its own.
///
/// The order is a permutation of all groups, so a node asks for exactly as many groups in its first
/// `t` turns as every other node does. Independent hashes would give one node many good scores and
/// another one few; here only what nodes ask for *together* is left to chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    node: NodeId,
    rounds: [Round; ROUNDS],
    /// A fraction of 2^32 that is the node's own.
    pub(super) dither: u32,
}

/// `x -> scramble(x * factor + offset)` on ten bits: each step can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    factor: u16,
    offset: u16,
}

impl Turns {
    pub(super) fn of(node: NodeId) -> Self {
        let keys = hash(node, GROUPS);
        let rounds = std::array::from_fn(|round| {
            let bits = (keys >> (2 * GROUP_BITS * round as u32)) as u16;
            let more = (keys >> (2 * GROUP_BITS * round as u32 + GROUP_BITS)) as u16;
            Round { factor: (bits & MASK) | 1, offset: more & MASK }
        });
        Self { node, rounds, dither: (hash(node, GROUPS + 1) >> 32) as u32 }
    }

    /// What the node asks for in this turn.
    pub(super) fn group(&self, turn: u16) -> u16 {
        self.rounds.iter().fold(turn, |x, round| {
            scramble(x.wrapping_mul(round.factor).wrapping_add(round.offset) & MASK)
        })
    }

    /// The turn in which it asks for this group.
    pub(super) fn turn(&self, group: u16) -> u16 {
        self.rounds.iter().rev().fold(group, |x, round| {
            scramble(x).wrapping_sub(round.offset).wrapping_mul(inverse(round.factor)) & MASK
        })
    }

    /// When a turn comes, for one that is delayed so much: `-log2(1 - (turn + f) / GROUPS)`, `f`
    /// being a hash as a fraction, times the delay.
    pub(super) fn arrival(&self, turn: u16, delay: u128) -> u128 {
        let fraction = hash(self.node, turn) >> GROUP_BITS;
        let left = (u64::from(GROUPS - 1 - turn) << (64 - GROUP_BITS)) | fraction;
        u128::from(negative_log2_quickly(left)) * delay
    }
}

/// Undoes itself.
fn scramble(x: u16) -> u16 {
    x ^ (x >> (GROUP_BITS / 2))
}

/// The `y` with `x * y = 1` modulo 2^10, of an odd `x` (Newton's iteration: `x` itself is right in
/// three bits, and each step doubles them).
fn inverse(x: u16) -> u16 {
    let step = |y: u16| y.wrapping_mul(2u16.wrapping_sub(x.wrapping_mul(y)));
    step(step(x))
}

#[cfg(not(test))]
use xxh3 as hash;

#[cfg(test)]
fn hash(node: NodeId, turn: u16) -> u64 {
    // Ties are too rare to meet: the tests force them by keeping a few bits only.
    xxh3(node, turn) & super::tests::HASH_MASK.get()
}

fn xxh3(node: NodeId, turn: u16) -> u64 {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&node.bits().to_le_bytes());
    bytes[8..].copy_from_slice(&turn.to_le_bytes());
    XxHash3_64::oneshot_with_seed(HASH_SEED, &bytes)
}

/// `-log2((x | 1) / 2^64)` in units of 2^-40, rounded up. Exact in its bits, and never grows with
/// `x`: the fraction's bits come one by one from squaring (Knuth, TAOCP 1.2.2, exercise 25), each
/// step rounding down.
pub(super) const fn negative_log2(x: u64) -> u64 {
    let x = x | 1;
    let zeros = x.leading_zeros();
    // In [1, 2), with 63 bits after the point.
    let mut x = x << zeros;
    let mut log = 63 - zeros as u64;
    let mut bits = 0;
    while bits < LOG_FRACTION_BITS {
        let square = (x as u128 * x as u128) >> 63;
        let carry = (square >> 64) as u64;
        x = (square >> carry) as u64;
        log = (log << 1) | carry;
        bits += 1;
    }
    (64 << LOG_FRACTION_BITS) - log
}

/// The same between two of its values: exact at each turn's ends, a straight line from one to the
/// other. Never grows with `x` either.
pub(super) fn negative_log2_quickly(x: u64) -> u64 {
    let cell = (x >> (64 - GROUP_BITS)) as usize;
    let along = x << GROUP_BITS >> GROUP_BITS;
    let (from, to) = (LOGS[cell], LOGS[cell + 1]);
    from - ((u128::from(from - to) * u128::from(along)) >> (64 - GROUP_BITS)) as u64
}

/// [`negative_log2`] at the ends of the cells that a turn is one of.
static LOGS: [u64; GROUPS as usize + 1] = {
    let mut logs = [0; GROUPS as usize + 1];
    let mut cell = 0;
    while cell < GROUPS as usize {
        logs[cell] = negative_log2((cell as u64) << (64 - GROUP_BITS));
        cell += 1;
    }
    logs
};

const GROUP_BITS: u32 = GROUPS.ilog2();
const MASK: u16 = GROUPS - 1;
const ROUNDS: usize = 3;

pub(super) const LOG_FRACTION_BITS: u32 = 40;

const HASH_SEED: u64 = 0x616e_6e75_6c75_7372;

const _: () = {
    assert!(GROUPS.is_power_of_two());
    // All keys of a permutation come out of one hash, `scramble` undoes itself, and two steps of
    // `inverse` are enough.
    assert!(2 * GROUP_BITS * ROUNDS as u32 <= 64);
    assert!(GROUP_BITS.is_multiple_of(2) && GROUP_BITS <= 12);
};
