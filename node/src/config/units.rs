//! Durations and sizes as people write them, in the configuration and on the command line.

use std::time::Duration;

/// Reads a duration: a whole number and one of `ms`, `s`, `m` (or `min`), `h`, `d`.
///
/// # Errors
/// A sentence that says what is wrong and what to write instead. A bare number is refused, 0
/// included: nobody can tell seconds from milliseconds by looking at it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    if unit.is_empty() && !number.is_empty() {
        return Err(format!(
            "a duration needs a unit: write \"{number}ms\" or \"{number}s\"; {DURATIONS}"
        ));
    }
    let scale_ms = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let (Some(scale_ms), Ok(number)) = (scale_ms, number.parse::<u64>()) else {
        return Err(format!("not a duration; {DURATIONS}"));
    };
    let ms = number.checked_mul(scale_ms).ok_or("longer than this program can count")?;
    Ok(Duration::from_millis(ms))
}

/// Writes a duration so that [`parse_duration`] reads it back: in the largest unit that divides it.
/// What is below a millisecond is dropped.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match DURATION_UNITS.iter().find(|(_, scale)| ms > 0 && ms.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", ms / scale),
        None => "0s".to_owned(),
    }
}

/// Reads a size in bytes: a whole number, alone or with one of `B`, `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// A sentence that says what is wrong and what to write instead. `KB`, `MB` and `k` are refused:
/// half of their users mean 1000 and the other half 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let scale = if unit.is_empty() { Some(1) } else { scale };
    let (Some(scale), Ok(number)) = (scale, number.parse::<u64>()) else {
        return Err(format!("not a size; {SIZES}"));
    };
    number.checked_mul(scale).ok_or_else(|| "larger than this program can count".to_owned())
}

/// Writes a size so that [`parse_size`] reads it back: in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale)) {
        Some((unit, scale)) if *scale > 1 => format!("{}{unit}", bytes / scale),
        _ => bytes.to_string(),
    }
}

const DURATIONS: &str = "durations look like \"500ms\", \"10s\", \"5m\", \"2h\", \"7d\"";
const SIZES: &str = "sizes look like 4096 (bytes), \"64KiB\", \"8MiB\", \"1GiB\"";

/// Largest first, so that the first that divides is the shortest to write.
const DURATION_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_what_they_show() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("0s", 0),
            ("90s", 90_000),
            ("1001ms", 1_001),
        ] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(parse_duration(" 3 min "), Ok(Duration::from_secs(180)));
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_both_ways_to_write_it() {
        let error = parse_duration("30").unwrap_err();
        assert!(error.contains("\"30ms\" or \"30s\""), "{error}");
        assert!(parse_duration("0").is_err());
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "10 sec", "1.5s", "-1s", "1h30m", "5S", "99999999999999999999s"] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains("\"2h\""), "{text}: {error}");
        }
        assert!(parse_duration("18446744073709551615d").is_err());
    }

    #[test]
    fn sizes_read_back_what_they_show() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("64KiB", 65_536),
            ("8MiB", 8 << 20),
            ("1GiB", 1 << 30),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(parse_size("12 B"), Ok(12));
    }

    #[test]
    fn sizes_that_could_mean_two_things_are_refused() {
        for text in ["64KB", "8M", "1g", "64kib", "", "MiB", "1.5MiB", "-1", "0x10"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains("\"64KiB\""), "{text}: {error}");
        }
        assert!(parse_size("99999999999TiB").is_err());
    }
}
