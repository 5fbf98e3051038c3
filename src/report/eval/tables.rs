//! Tables of an evaluation as CSV and Markdown.

use super::{HEADLINE, NOT_COMPARABLE, counts, number, rate, samples_each, signed};
use crate::eval::compare::{Difference, Run};
use crate::eval::metrics::Metric;
use crate::eval::rates::{Group, groups};
use crate::eval::suite::ALL;
use crate::report::html::printable;
use crate::report::p_text;

/// A row of CSV.
fn csv_row(cells: &[String]) -> String {
    let cell = |text: &String| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.clone(),
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
}

/// An empty cell for what is not defined.
fn csv_number(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn ends(interval: Option<[f64; 2]>) -> [String; 2] {
    [interval.map(|[low, _]| low), interval.map(|[_, high]| high)].map(csv_number)
}

/// All rates of all runs, a row each.
pub fn rates_csv(runs: &[Run]) -> String {
    const HEAD: [&str; 14] = [
        "run",
        "group",
        "metric",
        "value",
        "low",
        "high",
        "families_low",
        "families_high",
        "scenarios",
        "samples",
        "unknown",
        "flaky",
        "oracle",
        "seal",
    ];
    let mut text = csv_row(&HEAD.map(str::to_owned));
    for run in runs {
        let groups = groups(&run.seal.scenarios);
        for rate in &run.seal.rates {
            let members =
                groups.iter().find(|group| group.name == rate.group).map(|group| &group.members[..]);
            let counts = counts(run, members.unwrap_or_default());
            let ([low, high], [families_low, families_high]) = (ends(rate.interval), ends(rate.families));
            text += &csv_row(&[
                run.label.clone(),
                rate.group.clone(),
                rate.metric.to_string(),
                csv_number(rate.value),
                low,
                high,
                families_low,
                families_high,
                rate.scenarios.to_string(),
                counts.samples.to_string(),
                counts.unknown.to_string(),
                counts.flaky.to_string(),
                rate.oracle.clone(),
                run.seal.seal.clone(),
            ]);
        }
    }
    text
}

/// All differences between runs, a row each.
pub fn differences_csv(differences: &[Difference]) -> String {
    const HEAD: [&str; 14] = [
        "baseline",
        "run",
        "group",
        "metric",
        "baseline_value",
        "value",
        "difference",
        "low",
        "high",
        "families_low",
        "families_high",
        "p",
        "scenarios",
        "oracle",
    ];
    let mut text = csv_row(&HEAD.map(str::to_owned));
    for found in differences {
        let ([low, high], [families_low, families_high]) = (ends(found.interval), ends(found.families));
        text += &csv_row(&[
            found.baseline.clone(),
            found.run.clone(),
            found.group.clone(),
            found.metric.to_string(),
            csv_number(found.baseline_value),
            csv_number(found.value),
            csv_number(found.difference),
            low,
            high,
            families_low,
            families_high,
            csv_number(found.p),
            found.scenarios.to_string(),
            found.oracle.clone(),
        ]);
    }
    text
}

/// The tables for a README: rates, and differences from the first run.
pub fn markdown(runs: &[Run], differences: &[Difference]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let mut text = String::new();
    for group in groups(&first.seal.scenarios).iter().filter(|group| !group.is_family) {
        text += &rates_table(runs, group);
        text += &differences_table(differences, &group.name);
    }
    let excluded = first.seal.excluded.len();
    let left_out =
        if excluded > 0 { format!(" {excluded} scenarios are excluded by name.") } else { String::new() };
    text + &format!(
        "Intervals of {:.0} % from {} resamples of scenarios, in parentheses of families. Oracle: {}.{left_out} \
         {NOT_COMPARABLE}\n",
        100.0 * first.seal.statistics.confidence,
        first.seal.statistics.replicates,
        cell(&first.seal.oracle.to_string())
    )
}

/// Text for a cell.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for character in printable(text).replace('\n', " ").chars() {
        match character {
            '&' => cell += "&amp;",
            '<' => cell += "&lt;",
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '!' | '~' => cell.extend(['\\', character]),
            plain => cell.push(plain),
        }
    }
    cell
}

/// The same for a terminal.
pub fn comparison_text(runs: &[Run], differences: &[Difference]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let width = runs.iter().map(|run| run.label.chars().count()).max().unwrap_or(0).clamp(12, 40);
    let mut text = String::new();
    for group in groups(&first.seal.scenarios).iter().filter(|group| !group.is_family) {
        text += &format!("{} scenarios, {}\n  {:width$}", group.members.len(), group.name, "");
        HEADLINE.iter().for_each(|metric| text += &format!("  {metric:<31}"));
        text = text.trim_end().to_owned() + "\n";
        for run in runs {
            text += &format!("  {:width$}", printable(&run.label));
            for metric in HEADLINE {
                text += &format!("  {:<31}", text_cell(run, &group.name, metric, differences));
            }
            text = text.trim_end().to_owned() + "\n";
        }
    }
    let unknown = |run: &&Run| run.seal.totals.unknown > 0;
    for run in runs.iter().filter(unknown) {
        let counts = run.seal.totals;
        text += &format!(
            "{}: {} samples unknown, {} of them flaky\n",
            printable(&run.label),
            counts.unknown,
            counts.flaky
        );
    }
    text
}

/// The rate, and its difference from the first run with interval.
fn text_cell(run: &Run, group: &str, metric: Metric, differences: &[Difference]) -> String {
    let value = number(rate(run, group, metric).and_then(|rate| rate.value));
    let is_this =
        |found: &&Difference| found.run == run.label && found.group == group && found.metric == metric;
    let Some(found) = differences.iter().find(is_this) else { return value };
    let interval =
        found.interval.map(|[low, high]| format!(" [{}, {}]", signed(Some(low)), signed(Some(high))));
    format!("{value} {}{}", signed(found.difference), interval.unwrap_or_default())
}

fn rates_table(runs: &[Run], group: &Group) -> String {
    let title = if group.name == ALL { "scenarios".to_owned() } else { format!("scenarios, {}", group.name) };
    let mut text = format!("| {} {title} | samples each | unknown | flaky |", group.members.len());
    HEADLINE.iter().for_each(|metric| text += &format!(" {metric} |"));
    text += &format!("\n|---|{}\n", "---:|".repeat(3 + HEADLINE.len()));
    for run in runs {
        let counts = counts(run, &group.members);
        text += &format!(
            "| {} | {} | {} | {} |",
            cell(&run.label),
            samples_each(run),
            counts.unknown,
            counts.flaky
        );
        for metric in HEADLINE {
            let rate = rate(run, &group.name, metric);
            let value = number(rate.and_then(|rate| rate.value));
            let intervals = rate.map(|rate| range(rate.interval, rate.families, number)).unwrap_or_default();
            text += &format!(" **{value}**{intervals} |");
        }
        text.push('\n');
    }
    text + "\n"
}

fn range(interval: Option<[f64; 2]>, families: Option<[f64; 2]>, shown: fn(Option<f64>) -> String) -> String {
    let ends = |[low, high]: [f64; 2]| format!("{} to {}", shown(Some(low)), shown(Some(high)));
    let interval = interval.map(|interval| format!(" {}", ends(interval))).unwrap_or_default();
    interval + &families.map(|families| format!(" ({})", ends(families))).unwrap_or_default()
}

fn differences_table(differences: &[Difference], group: &str) -> String {
    let of_group = differences.iter().filter(|found| found.group == group);
    let rows: Vec<&Difference> = of_group.filter(|found| HEADLINE.contains(&found.metric)).collect();
    let Some(first) = rows.first() else { return String::new() };
    let mut text =
        format!("| less {}, {group} | rate | difference | p |\n|---|---|---:|---:|\n", cell(&first.baseline));
    for found in rows {
        text += &format!(
            "| {} | {} | **{}**{} | {} |\n",
            cell(&found.run),
            found.metric,
            signed(found.difference),
            range(found.interval, found.families, signed),
            found.p.map_or("–".to_owned(), p_text)
        );
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_end_where_they_should() {
        let row = csv_row(&["a,b".into(), "say \"x\"".into(), "two\nlines".into(), "plain".into()]);
        assert_eq!(row, "\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",plain\n");
        assert_eq!(cell("a|b\n<i>`x`\x1b"), "a\\|b &lt;i>\\`x\\`\u{241b}");
        assert_eq!((csv_number(None), csv_number(Some(0.25))), (String::new(), "0.25".to_owned()));
    }
}
