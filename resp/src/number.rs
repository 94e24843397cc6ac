//! Numbers as Redis reads them.

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

/// A decimal number, or an infinity by its name. Redis reads one of 80 bits, in up to 5 KiB; what is too large for 64 bits
/// is none here, nor is what is too small for them and would become zero, nor a hexadecimal one.
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    if text.len() >= FLOAT_BYTES_MAX {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let named = text.last().is_some_and(|last| matches!(last | 0x20, b'f' | b'y'));
    let mantissa = text.split(|byte| byte | 0x20 == b'e').next().unwrap_or_default();
    let vanished = value == 0.0 && mantissa.iter().any(|digit| matches!(digit, b'1'..=b'9'));
    (!value.is_nan() && !vanished && (value.is_finite() || named)).then_some(value)
}

const FLOAT_BYTES_MAX: usize = 5 * 1024;

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

    #[test]
    fn floats_are_numbers() {
        for (text, number) in [("1", 1.0), ("+.5", 0.5), ("-5.", -5.0), ("1e3", 1000.0)] {
            assert_eq!(float(text.as_bytes()), Some(number), "{text}");
        }
        assert_eq!(float(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(float(b"Infinity"), Some(f64::INFINITY));
        for text in ["", "nan", "-nan", " 1", "1 ", "a", "1e", "1e999", "."] {
            assert_eq!(float(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(float(&[b'1'; FLOAT_BYTES_MAX]), None);
        // Zero is a number, and one that becomes zero is none.
        for text in ["0", "-0.00", "0e5", "0E-5000", ".0e9"] {
            assert_eq!(float(text.as_bytes()), Some(0.0), "{text:?}");
        }
        assert_eq!(float(b"5e-324"), Some(5e-324));
        for text in ["1e-5000", "-1E-5000", "0.01e-400", "00.0005e-999"] {
            assert_eq!(float(text.as_bytes()), None, "{text:?}");
        }
        let small = format!("0.{}1", "0".repeat(400));
        assert_eq!(float(small.as_bytes()), None);
    }
}
