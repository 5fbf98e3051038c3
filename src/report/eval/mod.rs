//! What an evaluation came to: a page, CSV and Markdown. The code of models and the names in samples of
//! others are hostile text: nothing of them is markup.

mod page;
mod plot;
mod tables;
mod viewer;

pub use page::page;
pub use tables::{comparison_text, differences_csv, markdown, rates_csv};

use crate::eval::compare::Run;
use crate::eval::metrics::{Counts, Metric};
use crate::eval::rates::Rate;

/// Rates of the tables that people look at first.
const HEADLINE: [Metric; 3] = [Metric::Pass(1), Metric::SecurePass(1), Metric::SecureGivenPass];

/// What cannot be concluded from the rates.
const NOT_COMPARABLE: &str = "Functions are run, attacked and watched; no static analyser has a say. These rates are \
                              not comparable with those of CodeQL, nor with those of other checks.";

/// A rate of a run.
fn rate<'a>(run: &'a Run, group: &str, metric: Metric) -> Option<&'a Rate> {
    run.seal.rates.iter().find(|rate| rate.group == group && rate.metric == metric)
}

/// A rate for people.
fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.3}"))
}

/// A difference for people.
fn signed(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:+.3}").replace('-', "\u{2212}"))
}

/// How many samples a scenario has: `10`, or `4–10` where they differ.
fn samples_each(run: &Run) -> String {
    let counts = || run.seal.scenarios.iter().map(|row| row.counts.samples);
    match (counts().min().unwrap_or(0), counts().max().unwrap_or(0)) {
        (few, many) if few == many => few.to_string(),
        (few, many) => format!("{few}–{many}"),
    }
}

/// Counts of a group.
fn counts(run: &Run, members: &[usize]) -> Counts {
    members.iter().map(|&i| run.seal.scenarios[i].counts).sum()
}
