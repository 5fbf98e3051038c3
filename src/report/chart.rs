//! Line charts as SVG that takes its colours from the page's style.

use std::fmt::Write;

use super::html::escape;

/// Size of a chart in units of its own.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
/// Room for the tick labels.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 46.0;
/// Ticks wanted on an axis; round steps may make them a few more or less.
const TICKS: f64 = 5.0;
/// Steps by which a value may be off a tick that it is at.
const ROUNDING: f64 = 1e-9;
/// A line of more points is thinned to the extremes of this many stretches.
const STRETCHES: usize = 500;
/// Up to so many points have a mark each.
const MARKED_POINTS: usize = 60;
/// Colours and dashes that the style sheet has.
const STYLES: usize = 8;

/// Points joined by lines. A point that is not finite is a gap.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (x, y) with x increasing.
    pub points: Vec<(f64, f64)>,
    /// (x, low, high) of an interval around the line, with x increasing; empty for none.
    pub band: Vec<(f64, f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// What the chart shows.
    pub title: String,
    /// What y counts.
    pub unit: String,
    /// What x counts.
    pub x_label: String,
    /// The chart's lines.
    pub series: Vec<Series>,
    /// The range of y; what the points need if not given.
    pub y_range: Option<(f64, f64)>,
}

impl Chart {
    /// A `<figure>` with title, legend and drawing.
    pub fn to_html(&self) -> String {
        let drawn: Vec<&Series> =
            self.series.iter().filter(|series| series.finite().next().is_some()).collect();
        let title = escape(&self.title);
        if drawn.is_empty() {
            return format!(
                "<figure class=\"chart\"><figcaption>{title}</figcaption><p class=\"faint\">No data yet.</p></figure>\n"
            );
        }
        format!(
            "<figure class=\"chart\"><figcaption>{title}</figcaption>\n{}{}</figure>\n",
            self.legend(),
            self.svg(&drawn)
        )
    }

    /// Also of a single line: it says what is counted.
    fn legend(&self) -> String {
        let mut items = String::new();
        for (i, series) in self.series.iter().enumerate().filter(|(_, s)| s.finite().next().is_some()) {
            // A string takes whatever is written to it.
            let _ = write!(
                items,
                "<li><svg class=\"swatch\" viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"line s{}\" \
                 d=\"M0 4H28\"/></svg>{}</li>",
                i % STYLES,
                escape(&series.name)
            );
        }
        format!("<ul class=\"chart-legend\">{items}</ul>\n")
    }

    fn svg(&self, drawn: &[&Series]) -> String {
        let points = || drawn.iter().flat_map(|series| series.finite());
        let x = Axis::of_steps(points().map(|point| point.0));
        let bands = drawn.iter().flat_map(|series| &series.band).flat_map(|(_, low, high)| [*low, *high]);
        let y = Axis::of(points().map(|point| point.1).chain(bands), self.y_range);
        let plot = Plot { x, y };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.summary(drawn))
        );
        plot.grid(&mut svg);
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 4.0,
            escape(&self.x_label)
        );
        for (i, series) in self.series.iter().enumerate() {
            plot.band(&mut svg, i % STYLES, series);
        }
        for (i, series) in self.series.iter().enumerate() {
            plot.line(&mut svg, i % STYLES, series, &self.x_label);
        }
        svg + "</svg>\n"
    }

    /// The chart in words.
    fn summary(&self, drawn: &[&Series]) -> String {
        let of_series = |series: &&Series| {
            let mut finite = series.finite();
            let first = finite.next().unwrap_or_default();
            let last = finite.last().unwrap_or(first);
            let (from, to) = (number(first.1), number(last.1));
            format!(
                "{}: {from} at {} {}, {to} at {}",
                series.name,
                self.x_label,
                number(first.0),
                number(last.0)
            )
        };
        let lines: Vec<String> = drawn.iter().map(of_series).collect();
        let unit = if self.unit.is_empty() { String::new() } else { format!(" in {}", self.unit) };
        format!("{}{unit}. {}", self.title, lines.join("; "))
    }
}

impl Series {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// An axis from `low` to `high` with round ticks.
#[derive(Clone, Debug)]
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, given: Option<(f64, f64)>) -> Self {
        let (low, high) = given.unwrap_or_else(|| range(values));
        let (low, high) = if high > low { (low, high) } else { around(low) };
        let step = round_step((high - low) / TICKS);
        // Ticks are whole multiples, so that none is off by sums of rounding.
        let (first, last) = ((low / step + ROUNDING).floor(), (high / step - ROUNDING).ceil());
        let (first, last) =
            if given.is_some() { ((low / step).ceil(), (high / step).floor()) } else { (first, last) };
        let count = (last - first).clamp(0.0, 4.0 * TICKS) as usize;
        let ticks: Vec<f64> = (0..=count).map(|i| (first + i as f64) * step).collect();
        let (low, high) = if given.is_some() { (low, high) } else { (first * step, last * step) };
        Axis { low, high, ticks }
    }

    /// An axis for whole numbers, which begins and ends with them.
    fn of_steps(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        let high = high.max(low + 1.0);
        let step = round_step((high - low) / TICKS).max(1.0);
        let (first, last) = ((low / step).ceil(), (high / step).floor());
        let ticks = (0..=(last - first).max(0.0) as usize).map(|i| (first + i as f64) * step).collect();
        Axis { low, high, ticks }
    }

    /// 0 at `low`, 1 at `high`.
    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick's label, with as many digits as tell it from its neighbours.
    fn label(&self, tick: f64) -> String {
        let step = match self.ticks[..] {
            [first, second, ..] => second - first,
            _ => tick.abs(),
        };
        let largest = self.low.abs().max(self.high.abs());
        if largest != 0.0 && !(1e-3..1e6).contains(&largest) {
            let digits = (largest.log10().floor() - step.log10().floor()).clamp(0.0, 6.0) as usize;
            return if tick == 0.0 { "0".to_owned() } else { format!("{tick:.digits$e}") };
        }
        let digits = (-step.log10().floor()).clamp(0.0, 8.0) as usize;
        format!("{tick:.digits$}").replace('-', "\u{2212}")
    }
}

/// The lowest and the highest.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// A range around a single value.
fn around(value: f64) -> (f64, f64) {
    let half = if value == 0.0 { 1.0 } else { value.abs() * 0.05 };
    (value - half, value + half)
}

/// The next of 1, 2, 5, 10, … times a power of ten; 0 stays.
fn round_step(step: f64) -> f64 {
    if step == 0.0 {
        return step;
    }
    let power = 10f64.powf(step.log10().floor());
    let round = [1.0, 2.0, 5.0].into_iter().find(|round| round * power >= step * (1.0 - 1e-9));
    round.unwrap_or(10.0) * power
}

/// A number for people.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 1e6 => format!("{value:.3e}"),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 1e-3 => {
            format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.2e}"),
    }
}

struct Plot {
    x: Axis,
    y: Axis,
}

impl Plot {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT);
        let down = HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM);
        (across, down)
    }

    fn grid(&self, svg: &mut String) {
        for &tick in &self.y.ticks {
            let (_, y) = self.at((self.x.low, tick));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/><text class=\"tick\" x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 5.0,
                self.y.label(tick)
            );
        }
        for &tick in &self.x.ticks {
            let (x, _) = self.at((tick, self.y.low));
            let base = HEIGHT - BOTTOM;
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {base}v5\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{}</text>",
                base + 20.0,
                self.x.label(tick)
            );
        }
    }

    fn band(&self, svg: &mut String, style: usize, series: &Series) {
        if series.band.is_empty() {
            return;
        }
        let lower = series.band.iter().map(|&(x, low, _)| (x, low));
        let upper = series.band.iter().rev().map(|&(x, _, high)| (x, high));
        let corner = |point| {
            let (x, y) = self.at(point);
            format!("{x:.1},{y:.1} ")
        };
        let corners: String = lower.chain(upper).map(corner).collect();
        let _ = writeln!(svg, "<polygon class=\"band s{style}\" points=\"{}\"/>", corners.trim_end());
    }

    fn line(&self, svg: &mut String, style: usize, series: &Series, x_label: &str) {
        let mut path = String::new();
        let mut command = 'M';
        for point in thinned(&series.points) {
            if !(point.0.is_finite() && point.1.is_finite()) {
                command = 'M';
                continue;
            }
            let (x, y) = self.at(point);
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            command = 'L';
        }
        let _ = writeln!(svg, "<path class=\"line s{style}\" d=\"{path}\"/>");
        if series.points.len() > MARKED_POINTS {
            return;
        }
        for point in series.finite() {
            let (x, y) = self.at(point);
            let _ = writeln!(
                svg,
                "<circle class=\"mark s{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"><title>{}: {} at {} {}</title></circle>",
                escape(&series.name),
                number(point.1),
                escape(x_label),
                number(point.0)
            );
        }
    }
}

/// Points, of which there are too many to see, as the lowest and the highest of each stretch.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 4 * STRETCHES {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for stretch in points.chunks(points.len().div_ceil(STRETCHES)) {
        let by_y = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        // A gap stays one.
        if let Some(gap) = stretch.iter().find(|(x, y)| !(x.is_finite() && y.is_finite())) {
            kept.push(*gap);
        }
        let finite = || stretch.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let mut ends: Vec<(f64, f64)> =
            finite().min_by(by_y).into_iter().chain(finite().max_by(by_y)).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(low: f64, high: f64) -> Axis {
        Axis::of([low, high].into_iter(), None)
    }

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|&tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        assert_eq!(labels(&axis(0.0, 10.0)), ["0", "2", "4", "6", "8", "10"]);
        let fine = ["1.80", "1.85", "1.90", "1.95"];
        assert_eq!(labels(&axis(1.831, 1.947)), fine);
        assert_eq!(labels(&axis(-0.03, 0.02)), ["−0.03", "−0.02", "−0.01", "0.00", "0.01", "0.02"]);
        assert_eq!(labels(&axis(0.0, 2e-5)), ["0", "5.0e-6", "1.0e-5", "1.5e-5", "2.0e-5"]);
        for (low, high) in [(0.0, 1.0), (3.3, 3.3), (0.0, 0.0), (-7.0, 1e9), (1e-9, 2e-9), (5.0, 5.0 + 1e-12)]
        {
            let axis = axis(low, high);
            assert!(axis.low <= low && high <= axis.high, "{axis:?}");
            assert!((2..=12).contains(&axis.ticks.len()), "{axis:?}");
            assert!(axis.share(low) >= 0.0 && axis.share(high) <= 1.0);
            let labels = labels(&axis);
            let mut distinct = labels.clone();
            distinct.dedup();
            assert!(distinct.len() == labels.len() || high - low < 1e-8, "{labels:?}");
        }
    }

    fn chart(points: Vec<(f64, f64)>) -> String {
        let series = vec![Series { name: "a <b>".into(), points, ..Series::default() }];
        Chart { title: "t & u".into(), x_label: "step".into(), series, ..Chart::default() }.to_html()
    }

    #[test]
    fn steps_are_whole() {
        let labels = |low, high| labels(&Axis::of_steps([low, high].into_iter()));
        assert_eq!(labels(0.0, 0.0), ["0", "1"]);
        assert_eq!(labels(1.0, 3.0), ["1", "2", "3"]);
        assert_eq!(labels(0.0, 36.0), ["0", "10", "20", "30"]);
    }

    #[test]
    fn gaps_are_left_out() {
        let html = chart(vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 2.0)]);
        let path = html.split("<path class=\"line s0\" d=\"").nth(2).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert_eq!(html.matches("<circle").count(), 3);
        assert!(html.contains("t &amp; u") && html.contains("a &lt;b&gt;") && !html.contains("<b>"));
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn bands_are_inside_the_axes() {
        let series = Series {
            name: "a".into(),
            points: vec![(1.0, 0.5), (2.0, 0.6)],
            band: vec![(1.0, 0.1, 0.9), (2.0, 0.2, 1.7)],
        };
        let html = Chart { series: vec![series], ..Chart::default() }.to_html();
        let corners = html.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(corners.split(' ').count(), 4);
        for corner in corners.split(' ') {
            let (x, y) = corner.split_once(',').unwrap();
            let (x, y) = (x.parse::<f64>().unwrap(), y.parse::<f64>().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{corner}");
        }
    }

    #[test]
    fn empty_charts_say_so() {
        assert!(chart(vec![]).contains("No data yet"));
        assert!(chart(vec![(0.0, f64::NAN)]).contains("No data yet"));
        assert!(chart(vec![(5.0, 2.0)]).contains("<circle"));
    }

    #[test]
    fn long_lines_keep_their_extremes() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[54_321].1 = 99.0;
        let kept = thinned(&points);
        assert!(kept.len() <= 3 * STRETCHES && kept.contains(&(54_321.0, 99.0)));
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(chart(points).len() < 60_000);
    }
}
