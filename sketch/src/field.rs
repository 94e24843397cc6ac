//! Integers modulo 2^61 - 1, a prime.

pub(crate) const P: u64 = (1 << 61) - 1;

/// The remainder of any number.
pub(crate) fn reduced(number: u64) -> u64 {
    let folded = (number & P) + (number >> 61);
    if folded >= P { folded - P } else { folded }
}

pub(crate) fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= P { sum - P } else { sum }
}

pub(crate) fn subtract(a: u64, b: u64) -> u64 {
    if a >= b { a - b } else { a + P - b }
}

pub(crate) fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let (low, high) = (product as u64 & P, (product >> 61) as u64);
    add(low, high)
}

/// What gives 1 with a number that is not 0 (Fermat's little theorem).
pub(crate) fn inverse(number: u64) -> u64 {
    let (mut power, mut left, mut result) = (number, P - 2, 1);
    while left > 0 {
        if left & 1 == 1 {
            result = multiply(result, power);
        }
        power = multiply(power, power);
        left >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_are_a_field(a in any::<u64>(), b in any::<u64>()) {
            let (x, y) = (reduced(a), reduced(b));
            prop_assert!(x < P && y < P);
            prop_assert_eq!(u128::from(x), u128::from(a) % u128::from(P));
            prop_assert_eq!(u128::from(add(x, y)), (u128::from(x) + u128::from(y)) % u128::from(P));
            prop_assert_eq!(add(subtract(x, y), y), x);
            let product = u128::from(x) * u128::from(y) % u128::from(P);
            prop_assert_eq!(u128::from(multiply(x, y)), product);
            if x != 0 {
                prop_assert_eq!(multiply(x, inverse(x)), 1);
            }
        }
    }

    #[test]
    fn the_ends_are_reduced() {
        for (number, remainder) in [(0, 0), (P - 1, P - 1), (P, 0), (u64::MAX, 7), (2 * P, 0)] {
            assert_eq!(reduced(number), remainder);
        }
    }
}
