//! Small drawings of rates: an interval in a table's cell, and the dots of a scenario.

use std::fmt::Write;

use super::number;
use crate::eval::statistics::Estimate;
use crate::report::html::{escape, printable, visible};

/// Width of a drawing of rates from 0 to 1, in units of its own, and the room for half a dot at either end.
const WIDTH: f64 = 220.0;
const EDGE: f64 = 5.0;
/// Height that the dots of a run have for themselves.
const LANE: f64 = 7.0;
/// Colours that the style sheet has.
const STYLES: usize = 8;

fn x(rate: f64) -> f64 {
    EDGE + (WIDTH - 2.0 * EDGE) * rate.clamp(0.0, 1.0)
}

fn frame(height: f64, label: &str, content: &str) -> String {
    let grid: String = [0.0, 0.5, 1.0].iter().map(|&at| format!("M{:.1} 0V{height}", x(at))).collect();
    format!(
        "<svg class=\"rates\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{}</title>\
         <path class=\"grid\" d=\"{grid}\"/>{content}</svg>",
        escape(&printable(label))
    )
}

/// A rate with its interval; the text beside it has the numbers.
pub fn interval(value: f64, interval: Option<[f64; 2]>, run: usize) -> String {
    let mut content = String::new();
    if let Some([low, high]) = interval {
        // A string takes whatever is written to it.
        let _ = write!(content, "<path class=\"line\" d=\"M{:.1} 7H{:.1}\"/>", x(low), x(high));
    }
    let _ = write!(content, "<circle class=\"mark\" cx=\"{:.1}\" cy=\"7\" r=\"4\"/>", x(value));
    let group = format!("<g class=\"r{}\">{content}</g>", run % STYLES);
    frame(14.0, &number(Some(value)), &group)
}

/// The rates of the runs for a scenario, each in its own lane, and how far the other ones are from the first.
/// The words have the interval of each rate.
pub fn dots(labels: &[&str], rates: &[Option<Estimate>]) -> String {
    let mut content = String::new();
    for (run, rate) in rates.iter().enumerate() {
        let Some(rate) = rate else { continue };
        let (x, y) = (x(rate.value), LANE * (run as f64 + 0.5));
        let line = rates[0].filter(|_| run > 0).map(|first| line_from(first.value, x, y));
        // A string takes whatever is written to it.
        let _ = write!(
            content,
            "<g class=\"r{}\">{}<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y}\" r=\"3.2\"/></g>",
            run % STYLES,
            line.unwrap_or_default()
        );
    }
    let words = labels.iter().zip(rates).map(|(label, rate)| format!("{label} {}", in_words(*rate)));
    frame(LANE * rates.len() as f64, &words.collect::<Vec<_>>().join(", "), &content)
}

fn line_from(first: f64, to: f64, y: f64) -> String {
    format!("<path class=\"line\" d=\"M{:.1} {y}H{to:.1}\"/>", x(first))
}

fn in_words(rate: Option<Estimate>) -> String {
    let range = rate.and_then(|rate| rate.interval).map(|[low, high]| format!(" ({low:.2} to {high:.2})"));
    number(rate.map(|rate| rate.value)) + &range.unwrap_or_default()
}

/// The runs with their colours, in the order of the lanes.
pub fn legend(labels: &[&str]) -> String {
    let item = |(run, label): (usize, &&str)| {
        format!(
            "<li><svg class=\"swatch\" viewBox=\"0 0 28 8\" aria-hidden=\"true\"><g class=\"r{}\"><circle class=\"mark\" \
             cx=\"14\" cy=\"4\" r=\"4\"/></g></svg>{}</li>",
            run % STYLES,
            visible(label)
        )
    };
    format!("<ul class=\"chart-legend\">{}</ul>\n", labels.iter().enumerate().map(item).collect::<String>())
}
