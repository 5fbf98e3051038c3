//! The page of one evaluation, or of several side by side.

use serde_json::Value;

use super::plot::{dots, interval, legend};
use super::viewer::{outcome, viewer};
use super::{HEADLINE, NOT_COMPARABLE, counts, number, rate, samples_each, signed};
use crate::error::at_most;
use crate::eval::compare::{Difference, Run};
use crate::eval::metrics::Metric;
use crate::eval::rates::{Group, Row, groups};
use crate::eval::run::Judged;
use crate::eval::statistics::wilson;
use crate::report::html::{Page, facts, visible};
use crate::report::p_text;
use crate::report::printable;

/// Samples without a verdict that are listed for each run; the viewer has them all.
const MAX_LISTED: usize = 100;

/// The page of `runs`, all of the same scenarios, and of their `differences` from the first.
pub fn page(runs: &[Run], differences: &[Difference]) -> String {
    let rows = runs.first().map(|run| &run.seal.scenarios[..]).unwrap_or_default();
    let groups = groups(rows);
    let (viewer, data) = viewer(runs);
    let body = [
        heading(runs),
        methods(runs, &groups),
        paired(differences, &groups),
        dot_plot(runs, rows, &groups),
        families(runs, &groups),
        unknown(runs),
        viewer,
        seals(runs),
    ];
    let title = match runs {
        [only] => format!("{} – evaluation", printable(&only.label)),
        _ => format!("Evaluation of {} methods", runs.len()),
    };
    Page {
        title: &title,
        style: concat!(include_str!("../run.css"), include_str!("../heat.css"), include_str!("eval.css")),
        body: &body.concat(),
        data: Some(&data),
        script: include_str!("eval.js"),
    }
    .to_html()
}

fn heading(runs: &[Run]) -> String {
    let title = match runs {
        [only] => format!("Evaluation of {}", visible(&only.label)),
        _ => format!("Evaluation of {} methods", runs.len()),
    };
    format!("<h1>{title}</h1>\n<p class=\"banner\" role=\"note\">{NOT_COMPARABLE}</p>\n")
}

fn methods(runs: &[Run], groups: &[Group]) -> String {
    let settings = runs.first().map(|run| run.seal.statistics).unwrap_or_default();
    let tables: String =
        groups.iter().filter(|group| !group.is_family).map(|group| methods_table(runs, group)).collect();
    format!(
        "<h2>Methods</h2>\n<p class=\"faint\">pass@1: the chance that a sample works. secure-pass@1: that it works and \
         withstands every attack. secure@1_pass: how many of the working ones do. A sample that does not parse counts as \
         one that does not work; one without a verdict is never secure. Intervals of {:.0} % come from {} resamples of \
         scenarios; the second ones, from resamples of families.</p>\n{tables}",
        100.0 * settings.confidence,
        settings.replicates
    )
}

fn methods_table(runs: &[Run], group: &Group) -> String {
    let head: String =
        HEADLINE.iter().map(|metric| format!("<th scope=\"col\" class=\"left\">{metric}</th>")).collect();
    let row = |(i, run): (usize, &Run)| {
        let counts = counts(run, &group.members);
        let cells: String = HEADLINE.map(|metric| rate_cell(run, i, group, metric)).concat();
        format!(
            "<tr><th scope=\"row\" class=\"left\">{}</th>{cells}<td>{}</td><td>{}</td><td>{}</td></tr>\n",
            visible(&run.label),
            samples_each(run),
            counts.unknown,
            counts.flaky
        )
    };
    scrolled(
        &format!("Rates, {} scenarios", group.name),
        &format!(
            "<table class=\"data methods\"><caption>{} scenarios, {}</caption><thead><tr><th scope=\"col\" class=\"left\">\
             method</th>{head}<th scope=\"col\">samples each</th><th scope=\"col\">unknown</th><th scope=\"col\">flaky</th>\
             </tr></thead>\n<tbody>\n{}</tbody></table>",
            group.members.len(),
            visible(&group.name),
            runs.iter().enumerate().map(row).collect::<String>()
        ),
    )
}

fn rate_cell(run: &Run, index: usize, group: &Group, metric: Metric) -> String {
    let rate = rate(run, &group.name, metric);
    let Some((rate, value)) = rate.and_then(|rate| Some((rate, rate.value?))) else {
        return "<td class=\"left\">–</td>".to_owned();
    };
    let range = |ends: Option<[f64; 2]>, of: &str| match ends {
        Some([low, high]) => format!("<span class=\"range\">{of}{low:.3} to {high:.3}</span>"),
        None => String::new(),
    };
    format!(
        "<td class=\"left rate\"><b>{value:.3}</b>{}{}{}</td>",
        interval(value, rate.interval, index),
        range(rate.interval, ""),
        range(rate.families, "families ")
    )
}

/// A wide table, which scrolls by itself and by the keyboard.
fn scrolled(label: &str, table: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">{table}</div>\n",
        visible_label(label)
    )
}

/// A label, in which no markup can stand.
fn visible_label(label: &str) -> String {
    crate::report::html::escape(&printable(label))
}

fn paired(differences: &[Difference], groups: &[Group]) -> String {
    let Some(first) = differences.first() else { return String::new() };
    let overall = |name: &str| groups.iter().any(|group| group.name == name && !group.is_family);
    let shown = differences.iter().filter(|found| overall(&found.group));
    let range = |ends: Option<[f64; 2]>| match ends {
        Some([low, high]) => format!("{} to {}", signed(Some(low)), signed(Some(high))),
        None => "–".to_owned(),
    };
    let row = |found: &Difference| {
        format!(
            "<tr><th scope=\"row\" class=\"left\">{}</th><td class=\"left\">{}</td><td class=\"left\">{}</td><td><b>{}</b></td>\
             <td>{}</td><td>{}</td><td>{}</td></tr>\n",
            visible(&found.run),
            visible(&found.group),
            found.metric,
            signed(found.difference),
            range(found.interval),
            range(found.families),
            found.p.map_or("–".to_owned(), |p| visible(&p_text(p)))
        )
    };
    let heads = ["rate", "difference", "scenarios resampled", "families resampled", "p"];
    let heads: String = heads
        .iter()
        .map(|head| {
            format!("<th scope=\"col\"{}>{head}</th>", if *head == "rate" { " class=\"left\"" } else { "" })
        })
        .collect();
    format!(
        "<h2>Differences from {}</h2>\n<p class=\"faint\">Both methods get the same resamples. p: how often swapping the \
         two in some scenarios by chance gives a difference as great.</p>\n{}",
        visible(&first.baseline),
        scrolled(
            "Differences",
            &format!(
                "<table class=\"data\"><thead><tr><th scope=\"col\" class=\"left\">method</th><th scope=\"col\" \
                 class=\"left\">scenarios</th>{heads}</tr></thead>\n<tbody>\n{}</tbody></table>",
                shown.map(row).collect::<String>()
            )
        )
    )
}

fn dot_plot(runs: &[Run], rows: &[Row], groups: &[Group]) -> String {
    let labels: Vec<&str> = runs.iter().map(|run| run.label.as_str()).collect();
    let scenario = |i: usize| {
        let id = &rows[i].id;
        let counts = runs.iter().map(|run| run.row(id).map(|row| row.counts).unwrap_or_default());
        let rates: Vec<_> = counts.map(|counts| wilson(counts.secure, counts.samples)).collect();
        let name = id.rsplit('/').next().unwrap_or(id);
        format!(
            "<li><button type=\"button\" class=\"pick\" data-scenario=\"{i}\" title=\"{}\">{}</button>{}</li>\n",
            visible_label(id),
            visible(name),
            dots(&labels, &rates)
        )
    };
    let family = |group: &Group| {
        let items: String = group.members.iter().map(|&i| scenario(i)).collect();
        let unseen = if group.members.iter().any(|&i| rows[i].unseen) { ", unseen" } else { "" };
        format!(
            "<section class=\"family\"><h3>{}{unseen}</h3><ul class=\"dots\">\n{items}</ul></section>\n",
            visible(&group.name)
        )
    };
    format!(
        "<h2>secure-pass@1 of every scenario</h2>\n<p class=\"faint\">From 0, left, to 1, right; lines lead from the first \
         method to each other one. A scenario's name shows its samples.</p>\n{}<div class=\"families\">\n{}</div>\n",
        legend(&labels),
        groups.iter().filter(|group| group.is_family).map(family).collect::<String>()
    )
}

fn families(runs: &[Run], groups: &[Group]) -> String {
    let above: String = runs
        .iter()
        .map(|run| format!("<th scope=\"colgroup\" colspan=\"3\">{}</th>", visible(&run.label)))
        .collect();
    let below: String =
        runs.iter().flat_map(|_| HEADLINE).map(|metric| format!("<th scope=\"col\">{metric}</th>")).collect();
    let row = |group: &Group| {
        let cells: String = runs
            .iter()
            .flat_map(|run| HEADLINE.map(|metric| rate(run, &group.name, metric).and_then(|rate| rate.value)))
            .map(|value| format!("<td>{}</td>", number(value)))
            .collect();
        format!(
            "<tr><th scope=\"row\" class=\"left\">{}</th><td>{}</td>{cells}</tr>\n",
            visible(&group.name),
            group.members.len()
        )
    };
    let rows: String = groups.iter().filter(|group| group.is_family).map(row).collect();
    format!(
        "<h2>Families</h2>\n{}",
        scrolled(
            "Families",
            &format!(
                "<table class=\"data\"><thead><tr><td></td><td></td>{above}</tr><tr><th scope=\"col\" class=\"left\">family</th>\
                 <th scope=\"col\">scenarios</th>{below}</tr></thead>\n<tbody>\n{rows}</tbody></table>"
            )
        )
    )
}

fn unknown(runs: &[Run]) -> String {
    let of_run = |run: &Run| {
        let items = unknown_items(run);
        let summary = format!(
            "{}: {} samples without a verdict, {} of them flaky; {} scenarios excluded",
            visible(&run.label),
            run.seal.totals.unknown,
            run.seal.totals.flaky,
            run.seal.excluded.len()
        );
        match items.is_empty() {
            true => format!("<p>{summary}.</p>\n"),
            false => format!(
                "<details><summary>{summary}</summary><ul class=\"unknown\">\n{items}</ul></details>\n"
            ),
        }
    };
    format!("<h2>Unknown and flaky</h2>\n{}", runs.iter().map(of_run).collect::<String>())
}

/// Excluded scenarios, those without samples, and samples without a verdict.
fn unknown_items(run: &Run) -> String {
    let item = |name: &str, reason: &str| format!("<code>{}</code>: {}", visible(name), visible(reason));
    let excluded = run.seal.excluded.iter().map(|(id, reason)| item(id, &format!("excluded: {reason}")));
    let joined = run.judged();
    let empty = run.seal.scenarios.iter().filter(|row| !joined.scenarios.contains_key(row.id.as_str()));
    let empty = empty.map(|row| item(&row.id, "no samples"));
    let samples = joined.scenarios.values().flatten().filter(|judged| outcome(&judged.verdict) == "unknown");
    let of_excluded = |judged: &&Judged<'_>| run.seal.excluded.contains_key(&judged.sample.id);
    let samples = samples.filter(|judged| !of_excluded(judged)).map(|judged| {
        let sample = judged.sample;
        item(&format!("{}, sample {}", sample.id, sample.sample), &judged.verdict.reason)
    });
    let items = excluded.chain(empty).chain(at_most(MAX_LISTED, samples));
    items.map(|item| format!("<li>{item}</li>\n")).collect()
}

fn seals(runs: &[Run]) -> String {
    format!("<h2>Seal</h2>\n<div class=\"tables\">\n{}</div>\n", runs.iter().map(seal).collect::<String>())
}

fn seal(run: &Run) -> String {
    let seal = &run.seal;
    let code = |text: &str| format!("<code>{}</code>", visible(text));
    let hashes = &seal.hashes;
    let mut rows = vec![
        ("Seal of eval.json".to_owned(), code(&seal.seal)),
        ("Oracle".to_owned(), code(&seal.oracle.to_string())),
        ("BLAKE3 of prompts".to_owned(), code(&hashes.prompts)),
        ("BLAKE3 of checks".to_owned(), code(&hashes.checks)),
        ("BLAKE3 of the harness".to_owned(), code(&hashes.harness)),
        ("BLAKE3 of samples.jsonl".to_owned(), code(&hashes.samples)),
        ("BLAKE3 of verdicts.jsonl".to_owned(), code(&hashes.verdicts)),
    ];
    rows.extend(generation(seal.generation.as_ref()));
    let environment = &seal.environment;
    rows.push(("dg-run".to_owned(), visible(&environment.deepguard)));
    rows.push(("Sandbox".to_owned(), visible(&environment.sandbox)));
    rows.push(("Python".to_owned(), visible(&environment.python)));
    rows.extend(environment.tools.iter().map(|(name, version)| (name.clone(), visible(version))));
    let packages = environment.packages.iter().map(|(name, version)| format!("{name} {version}"));
    rows.push(("Packages".to_owned(), visible(&packages.collect::<Vec<_>>().join(", "))));
    if !seal.left_out.is_empty() {
        rows.push(("Not asked for".to_owned(), format!("{} scenarios of the suite", seal.left_out.len())));
    }
    let rows: Vec<(&str, String)> = rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    format!("<div><h3>{}</h3>\n{}</div>\n", visible(&run.label), facts(&rows))
}

/// Fields of the samples' origin that are lists of scenarios.
const LISTS: [&str; 3] = ["scenarios", "prompts", "unsampled"];

/// How the samples were made.
fn generation(generation: Option<&Value>) -> Vec<(String, String)> {
    let Some(Value::Object(fields)) = generation else {
        return vec![("Samples".to_owned(), "of another program".to_owned())];
    };
    let shown = |value: &Value| match value {
        Value::String(text) => visible(text),
        other => visible(&other.to_string()),
    };
    fields
        .iter()
        .filter(|(name, _)| !LISTS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), shown(value)))
        .collect()
}
