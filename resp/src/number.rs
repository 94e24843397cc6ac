//! Numbers as Redis reads them.

use crate::decimal::is_infinite;

/// A decimal integer, as Redis' `string2ll` takes it: no sign but a minus before other than zero, no blanks, no
/// leading zeros, nothing beyond 64 bits.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 19 digits fit into 64 bits without a sign.
    if !matches!(digits, [b'1'..=b'9', ..]) || digits.len() > 19 {
        return None;
    }
    let mut magnitude = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The cursor of SCAN, as Redis has it from C's `strtoul`: a plus or minus may stand before it, a minus counts down from
/// 2^64, and of nothing it makes zero.
pub(crate) fn cursor(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut cursor = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        cursor = cursor.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(if negative { cursor.wrapping_neg() } else { cursor })
}

/// The score of a member: a number, or an infinity by its name. `None`: it is none, or so large or small that 64 bits
/// do not tell it from an infinity or 0. (Redis takes hexadecimal numbers, too.)
pub fn score(text: &[u8]) -> Option<f64> {
    let number = number(text)?;
    let is_lost = match number {
        0.0 => mantissa(text).iter().any(|byte| matches!(byte, b'1'..=b'9')),
        number => number.is_infinite() && !is_infinite(text),
    };
    (!is_lost).then_some(number)
}

/// The bound of a range of scores: as a score, but of any size; nothing is 0.
pub(crate) fn bound(text: &[u8]) -> Option<f64> {
    if text.is_empty() { Some(0.0) } else { number(text) }
}

fn number(text: &[u8]) -> Option<f64> {
    let number: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

fn mantissa(text: &[u8]) -> &[u8] {
    text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_spelling() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN, 1234567890123456789] {
            assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }
        for text in [
            "",
            "-",
            "-0",
            "00",
            "01",
            "-01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "a",
            "0x1",
            "1.0",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "1\0",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn scores_are_numbers_or_infinities() {
        for (text, expected) in [
            ("0", Some(0.0)),
            ("-0.0", Some(0.0)),
            ("1.5", Some(1.5)),
            ("+1e3", Some(1_000.0)),
            (".5", Some(0.5)),
            ("-InF", Some(f64::NEG_INFINITY)),
            ("+infinity", Some(f64::INFINITY)),
            ("5e-324", Some(5e-324)),
            ("1e-400", None),
            ("1e400", None),
            ("nan", None),
            ("", None),
            (" 1", None),
            ("1x", None),
            ("(1", None),
        ] {
            assert_eq!(score(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!([bound(b""), bound(b"1e400")], [Some(0.0), Some(f64::INFINITY)]);
        assert_eq!(bound(b"nan"), None);
    }

    #[test]
    fn cursors_are_what_strtoul_makes_of_them() {
        for (text, cursor_) in [
            ("", Some(0)),
            ("0", Some(0)),
            ("007", Some(7)),
            ("+5", Some(5)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-", None),
            ("+-1", None),
            (" 1", None),
            ("1 ", None),
            ("0x1", None),
        ] {
            assert_eq!(cursor(text.as_bytes()), cursor_, "{text:?}");
        }
    }
}
