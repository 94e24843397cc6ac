//! What was measured, and what it should be.

use crate::subject::Subject;
use crate::world::{Tally, World};

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// What it is.
    pub what: &'static str,
    /// How one figure is made of many.
    pub fold: Fold,
    /// What it is counted in.
    pub unit: Unit,
    /// What [`Ours`](crate::Ours) has promised, if anything: at most this.
    pub target: Option<f64>,
}

/// How one figure is made of many, those of several seeds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The middle one.
    Median,
    /// Only one in a hundred is greater.
    P99,
    /// The greatest one.
    Max,
    /// How far the greatest is above [`Fold::P99`].
    MaxBeyondP99,
    /// All together.
    Sum,
    /// Their mean.
    Mean,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds of simulated time.
    Seconds,
    /// Bytes.
    Bytes,
    /// Microseconds of real processor time.
    Micros,
    /// Things.
    Count,
}

/// What one run has measured.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Each with its values; what never came is infinite.
    pub rows: Vec<(Measure, Vec<f64>)>,
    /// The run's [`World::trace`]: the same whenever it is run again.
    pub trace: u64,
}

impl Measure {
    /// A measure without a target.
    pub fn new(what: &'static str, fold: Fold, unit: Unit) -> Self {
        Self { what, fold, unit, target: None }
    }

    /// The same, with one.
    pub fn at_most(self, target: Option<f64>) -> Self {
        Self { target, ..self }
    }

    /// Whether this figure is within the target, if there is one.
    pub fn holds(&self, figure: f64) -> Option<bool> {
        self.target.map(|target| figure <= target)
    }
}

impl Fold {
    /// One figure of many; 0 of none.
    pub fn of(self, values: &[f64]) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(max) = sorted.last().copied() else { return 0.0 };
        // The least value that at least this share of all do not exceed.
        let quantile = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1]
        };
        match self {
            Self::Median => quantile(0.5),
            Self::P99 => quantile(0.99),
            Self::Max => max,
            Self::MaxBeyondP99 if max.is_infinite() => max,
            Self::MaxBeyondP99 => max - quantile(0.99),
            Self::Sum => sorted.iter().sum(),
            Self::Mean => sorted.iter().sum::<f64>() / sorted.len() as f64,
        }
    }
}

impl Figures {
    /// Nothing measured yet, at the end of a run.
    pub fn of<S: Subject>(world: &World<S>) -> Self {
        Self { rows: Vec::new(), trace: world.trace }
    }

    /// Adds what was measured.
    pub fn add(&mut self, measure: Measure, values: Vec<f64>) {
        self.rows.push((measure, values));
    }

    /// The figure of this name, folded.
    pub fn get(&self, what: &str) -> Option<f64> {
        let (measure, values) = self.rows.iter().find(|(measure, _)| measure.what == what)?;
        Some(measure.fold.of(values))
    }

    /// Figures that miss their targets, in words.
    pub fn missed(&self) -> Vec<String> {
        let folded = self.rows.iter().map(|(measure, values)| (measure, measure.fold.of(values)));
        let missed = folded.filter(|(measure, figure)| measure.holds(*figure) == Some(false));
        missed
            .map(|(measure, figure)| {
                let target = measure.target.unwrap_or_default();
                format!("{}: {figure} instead of at most {target}", measure.what)
            })
            .collect()
    }

    /// What must be nothing in every scenario: mistakes about nodes with which nothing was wrong.
    pub(crate) fn healthy(&mut self, tally: &Tally) {
        let none = |what| Measure::new(what, Fold::Sum, Unit::Count).at_most(Some(0.0));
        self.add(none("healthy nodes declared down"), vec![tally.false_downs as f64]);
        self.add(none("healthy nodes made to renew"), vec![tally.renewals as f64]);
    }

    /// What became of those with which something was wrong while others were as they should be: what
    /// they said of the healthy must not be wrong; that they begin anew is a cost, and no mistake.
    pub(crate) fn unwell(&mut self, tally: &Tally) {
        let downs = Measure::new("declared down by the others", Fold::Sum, Unit::Count);
        self.add(downs.at_most(Some(0.0)), vec![tally.false_downs_by_unwell as f64]);
        let renewals = Measure::new("renewals of the others", Fold::Sum, Unit::Count);
        self.add(renewals, vec![tally.renewals_unwell as f64]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values = (1..=200).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(Fold::Median.of(&values), 100.0);
        assert_eq!(Fold::P99.of(&values), 198.0);
        assert_eq!(Fold::Max.of(&values), 200.0);
        assert_eq!(Fold::MaxBeyondP99.of(&values), 2.0);
        assert_eq!(Fold::P99.of(&[7.0]), 7.0);
        assert_eq!(Fold::Sum.of(&[]), 0.0);
    }

    #[test]
    fn what_never_came_misses_every_target() {
        for fold in [Fold::Median, Fold::P99, Fold::Max, Fold::MaxBeyondP99, Fold::Mean] {
            let measure = Measure::new("it", fold, Unit::Seconds).at_most(Some(1e9));
            assert_eq!(measure.holds(fold.of(&[f64::INFINITY; 3])), Some(false), "{fold:?}");
        }
        let late = [1.0, 1.0, f64::INFINITY];
        assert_eq!(Fold::MaxBeyondP99.of(&late), f64::INFINITY);
    }

    #[test]
    fn a_measure_without_a_target_is_neither_held_nor_missed() {
        let measure = Measure::new("it", Fold::Max, Unit::Count);
        assert_eq!(measure.holds(5.0), None);
        assert_eq!(measure.at_most(Some(5.0)).holds(5.0), Some(true));
    }
}
