//! Keys from keys: BLAKE2s with a key is a pseudorandom function as it is (RFC 7693, section 2.9).

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, Mac};
use zeroize::Zeroizing;

/// The size of every secret here, in bytes.
pub(crate) const SECRET_BYTES: usize = 32;

/// A secret, wiped when it is dropped.
pub(crate) type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// What this secret is for this purpose and these parts; other parts, or the same bytes parted
/// otherwise, give an unrelated one.
pub(crate) fn derive(secret: &Secret, purpose: &str, parts: &[&[u8]]) -> Secret {
    let mut derived = Secret::default();
    mac(secret, purpose, parts).finalize_into(derived.as_mut().into());
    derived
}

/// The same as a code that may be compared in constant time.
pub(crate) fn mac(secret: &Secret, purpose: &str, parts: &[&[u8]]) -> Blake2sMac256 {
    let mut mac =
        Blake2sMac256::new_from_slice(secret.as_ref()).expect("BLAKE2s takes keys of 32 bytes");
    for part in [purpose.as_bytes()].iter().chain(parts) {
        let length = u32::try_from(part.len()).expect("names and numbers are short");
        mac.update(&length.to_le_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_depends_on_every_byte_and_on_where_parts_end() {
        let secret = Secret::new([7; SECRET_BYTES]);
        let mut seen = std::collections::BTreeSet::new();
        let inputs: [(&str, &[&[u8]]); 6] = [
            ("a", &[b"bc"]),
            ("ab", &[b"c"]),
            ("a", &[b"b", b"c"]),
            ("a", &[b"bc", b""]),
            ("a", &[]),
            ("a", &[b"bd"]),
        ];
        for (purpose, parts) in inputs {
            assert!(seen.insert(*derive(&secret, purpose, parts)), "{purpose:?} {parts:?}");
            let other = Secret::new([8; SECRET_BYTES]);
            assert!(seen.insert(*derive(&other, purpose, parts)), "{purpose:?} {parts:?}");
        }
        assert_eq!(derive(&secret, "a", &[b"bc"]), derive(&secret, "a", &[b"bc"]));
    }
}
