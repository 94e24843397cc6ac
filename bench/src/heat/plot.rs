//! Hit rates of all policies, a line for each trace and size, drawn as an SVG file.

use std::fmt::Write as _;

use super::Measured;
use super::policy::{HALF_LIFE, Subject};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 30.0;
/// From one line to the next.
const LINE: f64 = 16.0;
/// Of dots, which may lie upon each other.
const DOTS: &str = "stroke-width=\"1.5\" fill-opacity=\"0.7\"";

/// The drawing, with the figures in it as text for those who cannot see it.
pub(super) fn svg(all: &[Measured]) -> String {
    let low = TOP + LINE * all.len() as f64;
    let height = low + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">Accesses that hit, in percent, for each trace and size of the \
         cache</text>\n"
    );
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for percent in (0..=100).step_by(10) {
        let (at, label) = (x(percent.into()), low + 18.0);
        line(format!("<path d=\"M{at:.1} {TOP}V{low}\" stroke=\"#dddddd\"/>"));
        line(format!("<text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"middle\">{percent}</text>"));
    }
    let mut legend = LEFT;
    for subject in all.first().iter().flat_map(|first| first.rates.iter().map(|(it, _)| *it)) {
        let Some(dot) = Dot::of(subject) else { continue };
        let (name, text) = (subject.name(), legend + 10.0);
        line(format!("<g {DOTS}>{}</g>", dot.at(legend, 44.0)));
        line(format!("<text x=\"{text}\" y=\"48\">{name}</text>"));
        legend += 28.0 + 6.6 * name.len() as f64;
    }
    for (index, Measured { name, rates }) in all.iter().enumerate() {
        let y = TOP + LINE * (index as f64 + 0.5);
        let (left, base, right) = (LEFT - 8.0, y + 4.0, x(100.0));
        let mut title = name.clone();
        let mut dots = String::new();
        for (subject, rate) in rates {
            let Some(dot) = Dot::of(*subject) else { continue };
            write!(title, "; {} {rate:.1}", subject.name()).expect("a string takes everything");
            dots.push_str(&dot.at(x(*rate), y));
        }
        line(format!("<path d=\"M{LEFT} {y}H{right}\" stroke=\"#eeeeee\"/>"));
        line(format!("<text x=\"{left}\" y=\"{base}\" text-anchor=\"end\">{name}</text>"));
        line(format!("<g {DOTS}><title>{title}</title>{dots}</g>"));
    }
    out.push_str("</svg>\n");
    out
}

/// How a policy is shown.
struct Dot {
    colour: &'static str,
    radius: f64,
    is_filled: bool,
}

impl Dot {
    /// None for half-lives of which nothing is asked.
    fn of(subject: Subject) -> Option<Self> {
        let small = |colour| Some(Self { colour, radius: 3.0, is_filled: true });
        match subject {
            Subject::Lru => small("#222222"),
            Subject::Lfu => small("#bbbbbb"),
            Subject::Sieve => small("#2ca02c"),
            Subject::S3Fifo => small("#1f77b4"),
            Subject::WTinyLfu => small("#ff7f0e"),
            #[cfg(feature = "peers")]
            Subject::Moka => small("#9467bd"),
            Subject::Heat { half_life: HALF_LIFE, has_outer } => {
                Some(Self { colour: "#d62728", radius: 5.0, is_filled: has_outer })
            }
            Subject::Heat { .. } => None,
        }
    }

    fn at(&self, x: f64, y: f64) -> String {
        let Self { colour, radius, is_filled } = self;
        let fill = if *is_filled { colour } else { "none" };
        format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{colour}\"/>"
        )
    }
}

fn x(percent: f64) -> f64 {
    LEFT + percent / 100.0 * (WIDTH - LEFT - RIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_of_which_something_is_asked_has_a_dot_on_its_line() {
        let heat = |half_life, has_outer| Subject::Heat { half_life, has_outer };
        let rates = vec![
            (Subject::Lru, 0.0),
            (heat(HALF_LIFE, true), 100.0),
            (heat(HALF_LIFE, false), 50.0),
            (heat(1, false), 25.0),
        ];
        let measured = |name: &str| Measured { name: name.to_owned(), rates: rates.clone() };
        let drawn = svg(&[measured("a"), measured("b")]);
        for at in
            ["cx=\"170.0\" cy=\"78.0\"", "cx=\"840.0\" cy=\"94.0\"", "cx=\"505.0\" cy=\"78.0\""]
        {
            assert!(drawn.contains(at), "{at}: {drawn}");
        }
        assert!(!drawn.contains("cx=\"337.5\""), "{drawn}");
        assert!(
            drawn.contains("<title>b; LRU 0.0; heat, outer rings 100.0; heat 50.0</title>"),
            "{drawn}"
        );
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_measured_is_an_empty_drawing() {
        assert!(!svg(&[]).contains("<circle"));
    }
}
