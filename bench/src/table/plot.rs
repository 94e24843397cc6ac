//! Latency against table size, drawn as an SVG file.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::data::{Key, Requests, Sizes};
use super::hits::lowest_dependent;
use super::mapping::Pages;
use super::peers::papaya_alone;
use super::subject::{Floor, Ours, Unlocked};
use super::{Bench, Segment};
use crate::entries::{VALUE_BYTES, key, value};
use crate::report::Report;

/// One line of the plot.
struct Series {
    name: &'static str,
    colour: &'static str,
    /// Entries, and nanoseconds per get.
    points: Vec<(u64, f64)>,
}

const SIZES: [u64; 9] =
    [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
/// Gets per round and subject, drawn at random out of the whole table.
const GETS: u64 = 500_000;
const ROUNDS: usize = 3;

/// Measures tables of all sizes, one subject at a time, and draws what was found.
pub(super) fn draw(bench: &Bench<'_>, path: &Path, report: &Report) -> anyhow::Result<()> {
    let new = |name, colour| Series { name, colour, points: Vec::new() };
    let mut floor = new("floor: a copy of 256 bytes, 2 MiB pages", "#888888");
    let mut large = new("annulus, 2 MiB pages", "#d62728");
    let mut small = new("annulus, 4 KiB pages", "#ff9896");
    let mut map = new("HashMap, no lock", "#2ca02c");
    let mut papaya = new("papaya, pin per get", "#1f77b4");
    for entries in SIZES {
        report.progress(&format!("the plot: {entries} entries"));
        let requests = Requests::drawn(entries, GETS);
        {
            let segment = Segment::fill(bench, entries, Sizes::Fixed, Pages::Large)?;
            let subject = Floor::new(&segment.mapping, &requests);
            floor.points.push((entries, lowest_dependent(&requests, ROUNDS, subject)?));
            let subject = Ours::new(&segment.reader);
            large.points.push((entries, lowest_dependent(&requests, ROUNDS, subject)?));
        }
        {
            let segment = Segment::fill(bench, entries, Sizes::Fixed, Pages::Small)?;
            let subject = Ours::new(&segment.reader);
            small.points.push((entries, lowest_dependent(&requests, ROUNDS, subject)?));
        }
        {
            let entries_of = |number| (key(number), value(number));
            let filled: HashMap<Key, _> = (0..entries).map(entries_of).collect();
            let subject = Unlocked { map: &filled, value: [0; VALUE_BYTES] };
            map.points.push((entries, lowest_dependent(&requests, ROUNDS, subject)?));
        }
        if let Some(ns) = papaya_alone(entries, &requests, ROUNDS)? {
            papaya.points.push((entries, ns));
        }
    }
    fs::write(path, svg(&[papaya, map, small, large, floor]))?;
    Ok(())
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// The drawing, with the figures in it as text for those who cannot see it.
fn svg(series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let most = points().map(|(_, ns)| *ns).fold(0.0, f64::max).max(1.0);
    let step = [10.0, 20.0, 50.0, 100.0, 200.0].into_iter().find(|step| most / step <= 10.0);
    let step = step.unwrap_or(500.0);
    let top = (most / step).ceil() * step;
    let x = |entries: u64| {
        let (from, to) = ((SIZES[0] as f64).log10(), (SIZES[SIZES.len() - 1] as f64).log10());
        LEFT + ((entries as f64).log10() - from) / (to - from) * (WIDTH - LEFT - RIGHT)
    };
    let y = |ns: f64| HEIGHT - BOTTOM - ns / top * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">Time per get, each key known from the value \
         before: ns against entries</text>\n"
    );
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for tick in 0..=(top / step) as u32 {
        let ns = f64::from(tick) * step;
        let (at, right) = (y(ns), WIDTH - RIGHT);
        line(format!("<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#dddddd\"/>"));
        let (left, low) = (LEFT - 8.0, at + 4.0);
        line(format!("<text x=\"{left}\" y=\"{low:.1}\" text-anchor=\"end\">{ns}</text>"));
    }
    for power in 3..=7 {
        let (at, low, label) = (x(10_u64.pow(power)), HEIGHT - BOTTOM, HEIGHT - BOTTOM + 20.0);
        line(format!("<path d=\"M{at:.1} {TOP}V{low}\" stroke=\"#dddddd\"/>"));
        line(format!(
            "<text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"middle\">10<tspan dy=\"-5\" \
             font-size=\"9\">{power}</tspan></text>"
        ));
    }
    for (index, Series { name, colour, points }) in series.iter().enumerate() {
        if points.is_empty() {
            continue;
        }
        let mut path = String::new();
        let mut title = String::new();
        for (at, (entries, ns)) in points.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            let (x, y) = (x(*entries), y(*ns));
            write!(path, "{command}{x:.1} {y:.1}").expect("a string takes everything");
            write!(title, " {entries}: {ns:.0}").expect("a string takes everything");
        }
        line(format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\">\
             <title>{name}{title}</title></path>"
        ));
        let (at, text) = (TOP + 14.0 + 18.0 * index as f64, LEFT + 44.0);
        let (from, low) = (LEFT + 12.0, at - 4.0);
        line(format!("<path d=\"M{from} {low}h24\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
        line(format!("<text x=\"{text}\" y=\"{at}\">{name}</text>"));
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_within_the_drawing() {
        let points = vec![(1_000, 20.0), (10_000_000, 640.0)];
        let drawn = svg(&[Series { name: "a", colour: "red", points }]);
        assert!(drawn.contains("M60.0 ") && drawn.contains("L740.0 "), "{drawn}");
        assert!(drawn.contains("1000: 20 10000000: 640"), "{drawn}");
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    }
}
