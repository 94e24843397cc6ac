//! What is printed: a table for people, an object per line for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::sample::{Rounds, Summary};

/// The figures of one suite, in the order they are shown.
pub(crate) struct Report {
    suite: &'static str,
    json: bool,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// A figure.
struct Row {
    name: String,
    unit: Unit,
    summary: Summary,
    against: Option<Against>,
    goal: Option<Goal>,
}

/// What is asked of a figure, or of its ratio where it stands beside another: limits from above, and from below where
/// more is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    /// What it may not be beyond.
    pub(crate) must: f64,
    /// What it should not be beyond.
    pub(crate) stretch: Option<f64>,
}

/// The figure beside it.
struct Against {
    name: String,
    value: f64,
}

/// What a figure counts, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Ns,
    Us,
    Ms,
    PerSecond,
    EntriesPerGib,
    BytesPerEntry,
    Bytes,
    /// Of one thing to another.
    Times,
    Count,
    /// Of what could be: more is better.
    Percent,
    /// By how many percentage points it is more than another.
    Points,
}

/// A row as programs read it. `against` is the name of another row or of a peer, `ratio` this value
/// over that one's. `low` is the lowest round. `limit`, `stretch` and `holds` are null where nothing
/// is asked; a limit is one of the ratio if there is one.
#[derive(Serialize)]
struct JsonRow<'a> {
    suite: &'a str,
    name: &'a str,
    value: f64,
    low: f64,
    unit: &'a str,
    against: Option<&'a str>,
    ratio: Option<f64>,
    limit: Option<f64>,
    stretch: Option<f64>,
    holds: Option<bool>,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Us => "µs",
            Self::Ms => "ms",
            Self::PerSecond => "1/s",
            Self::EntriesPerGib => "entries/GiB",
            Self::BytesPerEntry => "B/entry",
            Self::Bytes => "B",
            Self::Times => "×",
            Self::Count => "",
            Self::Percent => "%",
            Self::Points => "points",
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::EntriesPerGib | Self::Percent | Self::Points)
    }

    /// Whether a figure is not beyond this limit.
    fn is_within(self, figure: f64, limit: f64) -> bool {
        if self.more_is_better() { figure >= limit } else { figure <= limit }
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.against.as_ref().map(|against| self.summary.median / against.value)
    }

    /// Its name and that of the figure beside it.
    fn title(&self) -> String {
        let Self { name, against, .. } = self;
        against.as_ref().map_or_else(|| name.clone(), |peer| format!("{name} × {}", peer.name))
    }

    /// What a goal is a limit of.
    fn judged(&self) -> f64 {
        self.ratio().unwrap_or(self.summary.median)
    }

    fn holds(&self) -> Option<bool> {
        self.goal.map(|goal| self.unit.is_within(self.judged(), goal.must))
    }

    fn loses(&self) -> bool {
        // Who may do worse than the figure beside it is not in a race with it.
        let races = self.goal.is_none_or(|goal| self.unit.is_within(goal.must, 1.0));
        // Nor is anybody with the limit of the machine.
        let races = races && !self.against.as_ref().is_some_and(|it| it.name.contains("floor"));
        races && self.ratio().is_some_and(|ratio| (ratio < 1.0) == self.unit.more_is_better())
    }
}

impl Report {
    pub(crate) fn new(suite: &'static str, json: bool) -> Self {
        Self { suite, json, rows: Vec::new(), notes: Vec::new() }
    }

    /// Says at once what the figures depend on.
    pub(crate) fn heading(&self, name: &str, text: &str) {
        let line = format!("{name:<10} {text}");
        if self.json { eprintln!("{line}") } else { println!("{line}") }
    }

    /// Says on standard error what is being measured now.
    pub(crate) fn progress(&self, what: &str) {
        eprintln!("…          {what}");
    }

    /// A remark that belongs under the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a figure; none if it was never measured.
    pub(crate) fn row(&mut self, name: &str, unit: Unit, rounds: &Rounds) {
        if let Some(summary) = rounds.summary() {
            let name = name.to_owned();
            self.rows.push(Row { name, unit, summary, against: None, goal: None });
        }
    }

    /// Adds a figure and sets it beside a row that was added before. Stands alone if that is not
    /// there, as when a peer is not installed.
    pub(crate) fn row_against(&mut self, name: &str, unit: Unit, rounds: &Rounds, against: &str) {
        self.add(name, unit, rounds, Some(against), None);
    }

    /// Adds a figure of which something is asked. Beside a row that is not there nothing is asked.
    pub(crate) fn goal(
        &mut self,
        name: &str,
        unit: Unit,
        rounds: &Rounds,
        against: Option<&str>,
        goal: Goal,
    ) {
        self.add(name, unit, rounds, against, Some(goal));
    }

    fn add(
        &mut self,
        name: &str,
        unit: Unit,
        rounds: &Rounds,
        beside: Option<&str>,
        goal: Option<Goal>,
    ) {
        let peer = self.rows.iter().find(|row| Some(&*row.name) == beside && row.unit == unit);
        let against = peer.map(|row| Against { name: row.name.clone(), value: row.summary.median });
        if let Some(summary) = rounds.summary() {
            let name = name.to_owned();
            let goal = goal.filter(|_| beside.is_none() || against.is_some());
            self.rows.push(Row { name, unit, summary, against, goal });
        }
    }

    /// Prints all rows.
    ///
    /// # Errors
    /// If standard output is gone.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            for row in &self.rows {
                let row = JsonRow {
                    suite: self.suite,
                    name: &row.name,
                    value: row.summary.median,
                    low: row.summary.low,
                    unit: row.unit.name(),
                    against: row.against.as_ref().map(|against| against.name.as_str()),
                    ratio: row.ratio(),
                    limit: row.goal.map(|goal| goal.must),
                    stretch: row.goal.and_then(|goal| goal.stretch),
                    holds: row.holds(),
                };
                writeln!(out, "{}", serde_json::to_string(&row)?)?;
            }
            for note in &self.notes {
                eprintln!("note       {note}");
            }
            return Ok(());
        }
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        writeln!(out)?;
        let [value, spread] = ["median", "lowest to highest"];
        writeln!(out, "{:<width$} {value:>10} {:<11} {spread:>23}  against", self.suite, "unit")?;
        for row in &self.rows {
            let Summary { median, low, high, rounds } = row.summary;
            let spread = match rounds {
                1 => "one round".to_owned(),
                _ => format!("{} to {}", figure(low), figure(high)),
            };
            let (name, median, unit) = (&row.name, figure(median), row.unit.name());
            write!(out, "{name:<width$} {median:>10} {unit:<11} {spread:>23}")?;
            if let (Some(ratio), Some(against)) = (row.ratio(), &row.against) {
                let lost = if row.loses() { ", lost" } else { "" };
                write!(out, "  {} × {}{lost}", figure(ratio), against.name)?;
            }
            if let Some(Goal { must, stretch }) = row.goal {
                let holds = |limit| row.unit.is_within(row.judged(), limit);
                let verdict = |limit| if holds(limit) { "holds" } else { "missed" };
                let sign = if row.unit.more_is_better() { '≥' } else { '≤' };
                write!(out, "; must be {sign} {}: {}", figure(must), verdict(must))?;
                if let Some(stretch) = stretch {
                    write!(out, ", should be {sign} {}: {}", figure(stretch), verdict(stretch))?;
                }
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        let asked = self.rows.iter().filter_map(|row| Some((row, row.holds()?)));
        let (held, missed): (Vec<_>, Vec<_>) = asked.partition(|(_, holds)| *holds);
        if !held.is_empty() || !missed.is_empty() {
            writeln!(out, "asked      {} hold, {} missed", held.len(), missed.len())?;
        }
        for (row, _) in missed {
            writeln!(out, "missed     {}", row.title())?;
        }
        for row in self.rows.iter().filter(|row| row.loses()) {
            writeln!(out, "lost       {}", row.title())?;
        }
        for note in &self.notes {
            writeln!(out, "note       {note}")?;
        }
        Ok(())
    }
}

/// Three digits that mean something, and thousands set apart.
fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1_000.0 {
        let digits = format!("{value:.0}");
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        grouped
    } else if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(value: f64) -> Rounds {
        let mut rounds = Rounds::default();
        rounds.push(value);
        rounds
    }

    #[test]
    fn figures_have_three_digits_that_mean_something() {
        let shown = [0.123, 9.876, 98.76, 987.6, 9_876.0, 1_234_567.0].map(figure);
        assert_eq!(shown, ["0.12", "9.88", "98.8", "988", "9,876", "1,234,567"]);
    }

    #[test]
    fn a_goal_is_a_limit_of_the_ratio_where_there_is_one() {
        let mut report = Report::new("test", false);
        let goal = Goal { must: 0.7, stretch: None };
        report.row("peer", Unit::Ns, &rounds(100.0));
        report.goal("within", Unit::Ns, &rounds(70.0), Some("peer"), goal);
        report.goal("beyond", Unit::Ns, &rounds(71.0), Some("peer"), goal);
        report.goal("alone", Unit::Ns, &rounds(0.6), None, goal);
        report.goal("without its peer", Unit::Ns, &rounds(0.6), Some("nobody"), goal);
        let holds: Vec<_> = report.rows.iter().map(Row::holds).collect();
        assert_eq!(holds, [None, Some(true), Some(false), Some(true), None]);
    }

    #[test]
    fn a_goal_is_the_least_where_more_is_better() {
        let mut report = Report::new("test", false);
        let goal = |must| Goal { must, stretch: None };
        report.row("peer", Unit::Percent, &rounds(50.0));
        for rate in [39.0, 41.0] {
            report.goal("beside it", Unit::Percent, &rounds(rate), Some("peer"), goal(0.8));
        }
        for difference in [-2.1, -2.0, 5.0] {
            report.goal("behind it", Unit::Points, &rounds(difference), None, goal(-2.0));
        }
        let holds: Vec<_> = report.rows.iter().filter_map(Row::holds).collect();
        assert_eq!(holds, [false, true, false, true, true]);
        // Who may have less is not in a race.
        assert!(!report.rows.iter().any(Row::loses));
        report.goal("in a race", Unit::Percent, &rounds(49.0), Some("peer"), goal(1.0));
        assert!(report.rows.last().is_some_and(Row::loses));
    }

    #[test]
    fn a_row_is_lost_by_its_unit() {
        let mut report = Report::new("test", false);
        report.row("peer", Unit::Us, &rounds(10.0));
        report.row("peer", Unit::PerSecond, &rounds(10.0));
        report.row_against("slower", Unit::Us, &rounds(12.0), "peer");
        report.row_against("more", Unit::PerSecond, &rounds(12.0), "peer");
        report.row_against("alone", Unit::Us, &rounds(12.0), "nobody");
        report.row("the floor", Unit::Us, &rounds(10.0));
        report.row_against("above", Unit::Us, &rounds(12.0), "the floor");
        let lost: Vec<bool> = report.rows.iter().map(Row::loses).collect();
        assert_eq!(lost, [false, false, true, false, false, false, false]);
        assert_eq!(report.rows[2].ratio(), Some(1.2));
        assert_eq!(report.rows[4].ratio(), None);
    }
}
