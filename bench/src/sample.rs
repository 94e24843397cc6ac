//! Figures out of repeated measurements.

use std::time::Duration;

/// One figure, measured once per round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

/// The median of the rounds, and the lowest and highest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
}

impl Rounds {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn from(values: impl IntoIterator<Item = f64>) -> Self {
        Self(values.into_iter().collect())
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// `None` if there was no round.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Summary { median, low, high, rounds: sorted.len() })
    }
}

/// How long each request of one round took.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// In microseconds, the value that this part of the requests did not exceed.
    pub(crate) fn percentiles_us<const N: usize>(mut self, parts: [f64; N]) -> [f64; N] {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        parts.map(|part| {
            let index = (last as f64 * part).round() as usize;
            self.0.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between_the_middle_two() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.summary(), None);
        for value in [4.0, 1.0, 3.0, 2.0] {
            rounds.push(value);
        }
        let expected = Summary { median: 2.5, low: 1.0, high: 4.0, rounds: 4 };
        assert_eq!(rounds.summary(), Some(expected));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut latencies = Latencies::default();
        for us in (0..=100).rev() {
            latencies.push(Duration::from_micros(us));
        }
        assert_eq!(latencies.percentiles_us([0.5, 0.99, 1.0]), [50.0, 99.0, 100.0]);
    }
}
