//! Which keys are asked for, one after the other: as others recorded it, or drawn by a rule.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Accesses, one after the other.
pub(super) struct Trace {
    pub(super) name: &'static str,
    /// Numbered in the order of their first access, so that what is known of a key is found by its number.
    pub(super) keys: Vec<u32>,
    /// How many different ones there are.
    pub(super) unique: usize,
}

/// A trace that somebody recorded.
pub(super) struct Recorded {
    /// As it is called when unpacked.
    file: &'static str,
    name: &'static str,
    format: Format,
}

/// How a file says which keys were asked for.
#[derive(Clone, Copy)]
enum Format {
    /// A number in this column of each line. A line with nothing or with an asterisk begins another phase.
    Text { column: usize },
    /// Big-endian integers of so many bytes.
    Integers { bytes: usize },
}

/// The most that is read of a file: three times the largest.
const BYTES_MAX: u64 = 64 << 20;

/// Those of Caffeine's simulator that are in these formats, but for two that are larger: of file systems, databases and
/// programs (LIRS), web sites and what they ask their databases for (cache2k), a virtual machine's disk (CloudPhysics),
/// recommendations (Scarab), a ledger (Corda), and requests that AdaptSize was measured by.
pub(super) const RECORDED: [Recorded; 21] = [
    lines("2_pools.trace", "2_pools"),
    lines("backf.trace", "backf"),
    lines("cpp.trace", "cpp"),
    lines("cs.trace", "cs"),
    lines("gli.trace", "gli"),
    lines("loop.trace", "loop"),
    lines("multi1.trace", "multi1"),
    lines("multi2.trace", "multi2"),
    lines("multi3.trace", "multi3"),
    lines("ps.trace", "ps"),
    lines("scan.trace", "scan"),
    lines("sprite.trace", "sprite"),
    lines("zigzag.trace", "zigzag"),
    integers("web07.trace", "web07", 4),
    integers("web12.trace", "web12", 4),
    integers("orm-busy.trace", "orm-busy", 4),
    integers("orm-night.trace", "orm-night", 4),
    integers("w106.trace", "w106", 4),
    integers("scarab-recs.trace", "scarab-recs", 8),
    integers("trace_vaultservice", "corda", 8),
    Recorded { file: "request.trace", name: "adapt-size", format: Format::Text { column: 1 } },
];

const fn lines(file: &'static str, name: &'static str) -> Recorded {
    Recorded { file, name, format: Format::Text { column: 0 } }
}

const fn integers(file: &'static str, name: &'static str, bytes: usize) -> Recorded {
    Recorded { file, name, format: Format::Integers { bytes } }
}

impl Recorded {
    /// Reads it from the directory that it was unpacked into.
    ///
    /// # Errors
    /// With the file's path, if it is not there, is too large or empty, or is not of its format.
    pub(super) fn read(&self, directory: &Path) -> anyhow::Result<Trace> {
        let path = directory.join(self.file);
        let read = || -> anyhow::Result<Trace> {
            let mut bytes = Vec::new();
            File::open(&path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 <= BYTES_MAX, "more than {BYTES_MAX} bytes");
            let keys = self.format.keys(&bytes)?;
            ensure!(!keys.is_empty(), "no access in it");
            Ok(Trace::of(self.name, keys))
        };
        read().with_context(|| format!("the trace {}", path.display()))
    }
}

impl Format {
    fn keys(self, bytes: &[u8]) -> anyhow::Result<Vec<u64>> {
        match self {
            Self::Text { column } => {
                let text = str::from_utf8(bytes).context("not a text")?;
                let lines = text.lines().enumerate();
                let accesses = lines.filter(|(_, line)| !matches!(line.trim(), "" | "*"));
                let key = |(index, line): (usize, &str)| {
                    let word = line.split_whitespace().nth(column);
                    word.and_then(|word| word.parse().ok())
                        .with_context(|| format!("no key in line {}", index + 1))
                };
                accesses.map(key).collect()
            }
            Self::Integers { bytes: size } => {
                let count = bytes.len();
                ensure!(count.is_multiple_of(size), "{count} bytes are no multiple of {size}");
                let key = |key: &[u8]| key.iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
                Ok(bytes.chunks_exact(size).map(key).collect())
            }
        }
    }
}

/// Keys that a synthetic trace draws from, and how many accesses it has.
const DRAWN_FROM: u32 = 100_000;
const DRAWN: u64 = 1_000_000;
/// So many accesses in a row are of one kind, and the last part of five is a scan.
const PART: u64 = 20_000;
/// After so many accesses other keys become popular, and the so many most popular ones are not asked for any more.
const SHIFT_EVERY: u64 = 50_000;
const SHIFT_BY: u64 = 5_000;

impl Trace {
    /// The n-th key is asked for in proportion to n to the power of -0.9.
    pub(super) fn zipf() -> Self {
        Self::drawn("Zipf 0.9", |rank, _| rank)
    }

    /// The same, but for a fifth of the accesses, in parts, each of which is of a key that is asked for only once.
    pub(super) fn zipf_with_scans() -> Self {
        Self::drawn("Zipf 0.9, scans", |rank, at| match at / PART % 5 {
            4 => u64::from(DRAWN_FROM) + at,
            _ => rank,
        })
    }

    /// The same, but what is popular changes.
    pub(super) fn shifting() -> Self {
        Self::drawn("Zipf 0.9, shifting", |rank, at| rank + at / SHIFT_EVERY * SHIFT_BY)
    }

    /// The key of each access follows from a rank that is drawn for it and from its number.
    fn drawn(name: &'static str, key: impl Fn(u64, u64) -> u64) -> Self {
        let mut sum = 0.0;
        let cumulated: Vec<f64> = (1..=DRAWN_FROM)
            .map(|rank| {
                sum += f64::from(rank).powf(-0.9);
                sum
            })
            .collect();
        let mut rng = StdRng::seed_from_u64(1);
        let draw = |at| {
            let point = rng.random_range(0.0..sum);
            let rank = cumulated.partition_point(|upto| *upto <= point);
            key(rank.min(cumulated.len() - 1) as u64, at)
        };
        Self::of(name, (0..DRAWN).map(draw))
    }

    fn of(name: &'static str, keys: impl IntoIterator<Item = u64>) -> Self {
        let mut numbers: HashMap<u64, u32> = HashMap::new();
        let number = |key| {
            let next = numbers.len() as u32;
            *numbers.entry(key).or_insert(next)
        };
        let keys = keys.into_iter().map(number).collect();
        Self { name, keys, unique: numbers.len() }
    }

    /// Its first accesses alone.
    pub(super) fn begin(mut self, accesses: usize) -> Self {
        self.keys.truncate(accesses);
        // They are numbered as they come.
        self.unique = self.keys.iter().max().map_or(0, |last| *last as usize + 1);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TEXT: Format = Format::Text { column: 0 };

    #[test]
    fn keys_are_numbered_in_the_order_of_their_first_access() {
        let trace = Trace::of("test", [900, 7, 900, u64::MAX, 7]);
        assert_eq!((trace.keys, trace.unique), (vec![0, 1, 0, 2, 1], 3));
        let begun = Trace::of("test", [900, 7, 900, u64::MAX, 7]).begin(3);
        assert_eq!((begun.keys, begun.unique), (vec![0, 1, 0], 2));
    }

    #[test]
    fn texts_have_a_key_in_each_line_and_marks_between_phases() {
        assert_eq!(TEXT.keys(b"  5\r\n*\n7\n\n5").unwrap(), [5, 7, 5]);
        let second = Format::Text { column: 1 };
        assert_eq!(second.keys(b"1 10 900\n2 11 800\n").unwrap(), [10, 11]);
    }

    #[test]
    fn a_line_without_a_key_is_named() {
        for (bytes, line) in
            [(&b"5\n*\nfive\n"[..], 3), (b"5\n-6\n", 2), (b"7 8\n99999999999999999999", 2)]
        {
            let error = TEXT.keys(bytes).unwrap_err();
            assert_eq!(error.to_string(), format!("no key in line {line}"));
        }
        assert!(Format::Text { column: 1 }.keys(b"1 2\n3\n").is_err());
        assert!(TEXT.keys(b"5\n\xff\xff\n").is_err());
    }

    #[test]
    fn integers_are_big_endian_and_whole() {
        let four = Format::Integers { bytes: 4 };
        assert_eq!(four.keys(&[0, 0, 1, 2, 255, 255, 255, 255]).unwrap(), [258, 0xffff_ffff]);
        assert!(four.keys(&[0, 0, 1, 2, 255]).is_err());
        let eight = Format::Integers { bytes: 8 };
        assert_eq!(eight.keys(&[255; 8]).unwrap(), [u64::MAX]);
    }

    #[test]
    fn a_file_that_is_missing_empty_broken_or_too_large_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let recorded = lines("a.trace", "a");
        let path = directory.path().join("a.trace");
        let is_named = || {
            let error = recorded.read(directory.path()).map(|_| ()).unwrap_err();
            format!("{error:#}").contains(path.to_str().unwrap())
        };
        assert!(is_named());
        for content in ["", "*\n", "1\n2\nthree\n"] {
            fs::write(&path, content).unwrap();
            assert!(is_named(), "{content:?}");
        }
        File::create(&path).unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert!(is_named());
        fs::write(&path, "1\n2\n1\n").unwrap();
        assert_eq!(recorded.read(directory.path()).unwrap().keys, [0, 1, 0]);
    }

    #[test]
    fn popularity_falls_by_rank_and_shifts() {
        let count = |trace: &Trace, key| trace.keys.iter().filter(|asked| **asked == key).count();
        let most = |trace: &Trace| (0..100).map(|key| count(trace, key)).max();
        let zipf = Trace::zipf();
        // 1 / sum of n^-0.9 for 100,000 ranks is 0.0443.
        assert!(most(&zipf).is_some_and(|most| (43_000..46_000).contains(&most)));
        // The same key in one part of twenty.
        assert!(most(&Trace::shifting()).is_some_and(|most| (1_900..6_000).contains(&most)));
        let scans = Trace::zipf_with_scans();
        assert_eq!(scans.keys.len() as u64, DRAWN);
        assert!(scans.unique as u64 > DRAWN / 5 + 60_000);
    }
}
