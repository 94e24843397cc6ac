//! Numbers that need not be whole.

use std::cmp::Ordering;
use std::fmt;

/// A number of up to 21 digits before the point and 17 behind it, as INCRBYFLOAT writes them. What is added here is exact, where
/// Redis adds numbers of 80 bits: 12345 and 0.1 is 12345.1 here and 12345.09999999999999964 there. It may become a value:
/// `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// Of these there are 10^17 in one.
    units: i128,
}

/// The digits behind the point.
const DECIMALS: u32 = 17;
const ONE: u128 = 10u128.pow(DECIMALS);
/// Of more digits, those behind make no difference.
const DIGITS_MAX: u32 = 38;
/// What is smaller than ten to this power, Redis takes for no number.
const POWER_MIN: i32 = -4950;
/// Redis reads no longer ones either.
const BYTES_MAX: usize = 5 * 1024;

impl Decimal {
    /// Reads one: digits with a point among them or not, an exponent or none. Digits behind the 17th decimal are rounded, half of
    /// them to the even neighbour. `None`: it is none, or too large.
    pub fn read(text: &[u8]) -> Option<Self> {
        if text.len() >= BYTES_MAX {
            return None;
        }
        let (is_negative, text) = unsigned(text);
        let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            None => (text, 0),
            Some(at) => (&text[..at], exponent(&text[at + 1..])?),
        };
        let mut number = Digits::default();
        for byte in digits {
            number.push(*byte)?;
        }
        let units = i128::try_from(number.units(exponent)?).ok()?;
        Some(Self { units: if is_negative { -units } else { units } })
    }

    /// The sum; `None`: it is too large.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self { units: self.units.checked_add(other.units)? })
    }
}

impl fmt::Display for Decimal {
    /// Without an exponent, and without zeros at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.units.unsigned_abs();
        let sign = if self.units < 0 { "-" } else { "" };
        let decimals = format!("{:017}", units % ONE);
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        write!(f, "{sign}{}{point}{decimals}", units / ONE)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decimal").finish_non_exhaustive()
    }
}

/// Whether this is the name of an infinity.
pub(crate) fn is_infinite(text: &[u8]) -> bool {
    let (_, name) = unsigned(text);
    name.eq_ignore_ascii_case(b"inf") || name.eq_ignore_ascii_case(b"infinity")
}

fn unsigned(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        text => (false, text),
    }
}

/// The number behind the `e`; beyond some it makes no difference how large it is.
fn exponent(text: &[u8]) -> Option<i32> {
    let (is_negative, digits) = unsigned(text);
    if digits.is_empty() {
        return None;
    }
    let exponent = digits.iter().try_fold(0i32, |exponent, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        Some(exponent.saturating_mul(10).saturating_add(digit).min(2 * BYTES_MAX as i32))
    })?;
    Some(if is_negative { -exponent } else { exponent })
}

/// The digits of a number, as far as they are read.
#[derive(Default)]
struct Digits {
    /// The first ones from the first that is not 0 on.
    number: u128,
    count: u32,
    /// By which power of ten to multiply it.
    power: i32,
    /// Whether there are others behind them that are not 0.
    has_more: bool,
    has_point: bool,
    has_digit: bool,
}

impl Digits {
    /// The next character; `None`: it is none that can be there.
    fn push(&mut self, byte: u8) -> Option<()> {
        match byte {
            b'.' if !self.has_point => self.has_point = true,
            b'0'..=b'9' => {
                self.has_digit = true;
                if self.count < DIGITS_MAX {
                    self.number = 10 * self.number + u128::from(byte - b'0');
                    self.count += u32::from(self.number != 0);
                    self.power -= i32::from(self.has_point);
                } else {
                    self.has_more |= byte != b'0';
                    self.power += i32::from(!self.has_point);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// How many units of 10^-17 that is, times a power of ten.
    fn units(&self, exponent: i32) -> Option<u128> {
        if !self.has_digit {
            return None;
        }
        if self.number == 0 {
            return Some(0);
        }
        let power = self.power + exponent;
        if self.count as i32 - 1 + power < POWER_MIN {
            return None;
        }
        let power = power + DECIMALS as i32;
        let Ok(power) = u32::try_from(power) else {
            let Some(divisor) = 10u128.checked_pow(power.unsigned_abs()) else { return Some(0) };
            let (units, rest) = (self.number / divisor, self.number % divisor);
            let is_above = match rest.cmp(&(divisor / 2)) {
                Ordering::Greater => true,
                Ordering::Equal => self.has_more || !units.is_multiple_of(2),
                Ordering::Less => false,
            };
            return Some(units + u128::from(is_above));
        };
        self.number.checked_mul(10u128.checked_pow(power)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        Decimal::read(text.as_bytes()).map(|number| number.to_string())
    }

    #[test]
    fn what_is_read_is_written_without_what_says_nothing() {
        for (text, written) in [
            ("1", "1"),
            ("+.5", "0.5"),
            ("-5.", "-5"),
            ("1e3", "1000"),
            ("-12.50", "-12.5"),
            ("1.5E-3", "0.0015"),
            ("0.00000000000000001", "0.00000000000000001"),
            ("999999999999999999999", "999999999999999999999"),
            ("-0.00", "0"),
            ("0e99999999999", "0"),
            ("00000000000000000000000000000000000000000000001", "1"),
            ("1e-4950", "0"),
            ("1000000000000000000000000000000000000000000e-41", "10"),
        ] {
            assert_eq!(read(text).as_deref(), Some(written), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        for text in [
            "",
            "nan",
            "inf",
            " 1",
            "1 ",
            "a",
            "1e",
            "1e+",
            ".",
            "-",
            "+",
            "--1",
            "1.2.3",
            "1e5.5",
            "0x10",
            "e5",
            "1e22",
            "2000000000000000000000",
            "1e99999999999",
            "1e-4951",
            "0.5E-9999",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert!(Decimal::read(&[b'1'; BYTES_MAX]).is_none());
    }

    #[test]
    fn what_lies_behind_the_last_decimal_is_rounded() {
        for (text, written) in [
            ("0.000000000000000014", "0.00000000000000001"),
            ("0.000000000000000015", "0.00000000000000002"),
            ("0.000000000000000025", "0.00000000000000002"),
            ("0.0000000000000000251", "0.00000000000000003"),
            ("0.000000000000000005", "0"),
            ("0.000000000000000005000000000000000000000000000000000000001", "0.00000000000000001"),
        ] {
            assert_eq!(read(text).as_deref(), Some(written), "{text}");
        }
    }

    #[test]
    fn sums_are_exact_and_have_an_end() {
        let number = |text: &str| Decimal::read(text.as_bytes()).unwrap();
        let sum = |one, other| number(one).checked_add(number(other)).map(|sum| sum.to_string());
        assert_eq!(sum("0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(sum("12345", "0.1").as_deref(), Some("12345.1"));
        assert_eq!(sum("-1.5", "1.5").as_deref(), Some("0"));
        assert_eq!(sum("1e21", "1e21"), None);
    }

    #[test]
    fn infinities_have_names() {
        for text in ["inf", "-INF", "+Infinity"] {
            assert!(is_infinite(text.as_bytes()), "{text}");
        }
        for text in ["", "-", "in", "infinite", "1"] {
            assert!(!is_infinite(text.as_bytes()), "{text}");
        }
    }
}
