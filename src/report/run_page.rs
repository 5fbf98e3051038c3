//! The page of a run.

use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::chart::{Chart, Series};
use super::html::{Page, facts, visible};
use super::run::{Extremes, Run, TokenStat, number};
use crate::guard::GuardConfig;
use crate::train::TrainConfig;
use crate::train::config::default_max_seq_len;

/// The page of a run as it is now.
pub fn page(run: &Run) -> String {
    let body = [
        heading(run),
        format!("<h2>Curves</h2>\n<div class=\"charts\">\n{}</div>\n", charts(run)),
        validations(run),
        token_statistics(run),
        format!("<div class=\"tables\">\n{}{}</div>\n", configuration(run), environment(run)),
    ];
    let title = format!("{} – training run", run.dir.display());
    Page { title: &title, style: include_str!("run.css"), body: &body.concat(), data: None, script: "" }
        .to_html()
}

fn heading(run: &Run) -> String {
    let state = |field: &str| run.state.as_ref().map(|state| number(state, field)).filter(|n| n.is_finite());
    let mut rows = vec![("Status", format!("<span class=\"status\">{}</span>", status(run)))];
    if let Some(updated) = run.updated.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        rows.push(("Last step or validation", utc(updated.as_secs())));
    }
    if let Some(model) = run.config.get("model").and_then(Value::as_str) {
        rows.push(("Model", format!("<code>{}</code>", visible(model))));
    }
    if let Some((line, total)) = best(run) {
        rows.push(("Best validation loss", format!("{total:.4} at step {}", number(line, "step"))));
    }
    if let Some(last) = run.steps.last() {
        rows.push(("Epochs", format!("{:.2}", number(last, "epoch"))));
        let seconds: f64 =
            run.steps.iter().map(|step| number(step, "seconds")).filter(|s| s.is_finite()).sum();
        rows.push(("Time in steps", duration(seconds)));
    }
    let skipped = run.steps.iter().filter(|step| step["skipped"] == true).count();
    if skipped > 0 {
        rows.push(("Steps left out", format!("{skipped}, as a gradient was not finite")));
    }
    if let Some(step) = run.checkpoint {
        rows.push(("Newest checkpoint", format!("step {step}")));
    }
    if let Some(without) = state("epochs_without_improvement").filter(|&epochs| epochs > 0.0) {
        rows.push(("Epochs without a better loss", without.to_string()));
    }
    let problems: String =
        run.problems.iter().map(|problem| format!("<li>{}</li>\n", visible(problem))).collect();
    let problems = match problems.is_empty() {
        true => String::new(),
        false => format!(
            "<div class=\"problems\"><p>Not everything could be read:</p><ul>\n{problems}</ul></div>\n"
        ),
    };
    format!("<h1>Training run {}</h1>\n{}{problems}", visible(&run.dir.display().to_string()), facts(&rows))
}

fn status(run: &Run) -> String {
    let stopped_early = run.state.as_ref().is_some_and(|state| state["stopped_early"] == true);
    let Some(last) = run.steps.last() else {
        return "no step done yet".to_owned();
    };
    let (step, total) = (number(last, "step"), number(last, "total_steps"));
    if step >= total {
        format!("finished: {step} steps")
    } else if stopped_early && run.checkpoint.is_some_and(|checkpoint| checkpoint as f64 >= step) {
        format!("stopped early at step {step} of {total}")
    } else {
        format!("going on, or cut off: step {step} of {total}")
    }
}

/// The validation with the lowest loss after training has begun.
fn best(run: &Run) -> Option<(&Value, f64)> {
    let trained = run.validations.iter().filter(|line| number(line, "step") > 0.0);
    let losses = trained.map(|line| (line, number(line, "total"))).filter(|(_, total)| total.is_finite());
    losses.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn series(name: &str, lines: &[Value], y: impl Fn(&Value) -> f64) -> Series {
    Series {
        name: name.to_owned(),
        points: lines.iter().map(|line| (number(line, "step"), y(line))).collect(),
        ..Series::default()
    }
}

fn charts(run: &Run) -> String {
    let both = |field: &'static str| {
        let of = move |line: &Value| number(line, field);
        vec![series("training", &run.steps, of), series("validation", &run.validations, of)]
    };
    let trained =
        |name: &str, field: &'static str| vec![series(name, &run.steps, move |line| number(line, field))];
    let share =
        |field: &'static str, name: &str| series(name, &run.validations, move |line| number(line, field));
    let chart = |title: &str, unit: &str, series: Vec<Series>| Chart {
        title: title.into(),
        unit: unit.into(),
        x_label: "step".into(),
        series,
        y_range: None,
    };
    let scores = [("secure", "mean_score_secure"), ("vulnerable", "mean_score_vulnerable")];
    let scores = scores.iter().flat_map(|&(name, field)| {
        let of = move |line: &Value| number(line, field);
        [
            series(&format!("{name}, training"), &run.steps, of),
            series(&format!("{name}, validation"), &run.validations, of),
        ]
    });
    let pairs = vec![
        share("preference_accuracy", "secure function likelier"),
        share("separation_accuracy", "secure function scored higher"),
    ];
    [
        chart("Loss", "", both("total")),
        chart("Language model: cross-entropy", "nats per token", both("generation")),
        chart("Security loss", "", both("security")),
        chart("KL divergence to the base model", "nats per token", both("kl")),
        chart("Mean scores of the analyzer", "", scores.collect()),
        Chart { y_range: Some((0.0, 1.0)), ..chart("Share of validation pairs", "", pairs) },
        chart("Aggregator: mean attention by layer, validation", "", attention(run)),
        chart("Learning rate", "", trained("learning rate", "learning_rate")),
        chart("Norm of the gradients", "", trained("before clipping", "grad_norm")),
        chart("Throughput", "tokens per second", trained("tokens per second", "tokens_per_second")),
    ]
    .iter()
    .map(Chart::to_html)
    .collect()
}

/// A line per layer that the guard looks at.
fn attention(run: &Run) -> Vec<Series> {
    let weights = |line: &Value| line["layer_attention"].as_array().map_or(0, Vec::len);
    let taps = run.validations.iter().map(weights).max().unwrap_or(0);
    let layers = run.environments.last().map(|environment| environment.guard_layers.as_slice());
    let name = |tap: usize| match layers.and_then(|layers| layers.get(tap)) {
        Some(layer) => format!("layer {layer}"),
        None => format!("layer {} of {taps}", tap + 1),
    };
    let weight = |tap: usize| move |line: &Value| line["layer_attention"][tap].as_f64().unwrap_or(f64::NAN);
    (0..taps).map(|tap| series(&name(tap), &run.validations, weight(tap))).collect()
}

/// A column of the table of validations: heading, field, digits.
const COLUMNS: [(&str, &str, usize); 9] = [
    ("loss", "total", 4),
    ("language model", "generation", 4),
    ("security", "security", 4),
    ("KL", "kl", 4),
    ("secure likelier", "preference_accuracy", 3),
    ("by, nats", "preference_margin", 4),
    ("scored higher", "separation_accuracy", 3),
    ("secure score", "mean_score_secure", 4),
    ("vulnerable score", "mean_score_vulnerable", 4),
];

fn validations(run: &Run) -> String {
    if run.validations.is_empty() {
        return "<h2>Validation</h2>\n<p>No validation has been made.</p>\n".to_owned();
    }
    let best_step = best(run).map(|(line, _)| number(line, "step"));
    let cell = |line: &Value, (_, field, digits): &(&str, &str, usize)| {
        let value = number(line, field);
        if value.is_finite() { format!("<td>{value:.digits$}</td>") } else { "<td>–</td>".to_owned() }
    };
    let row = |line: &Value| {
        let step = number(line, "step");
        let class = if Some(step) == best_step { " class=\"best\"" } else { "" };
        let cells: String = COLUMNS.iter().map(|column| cell(line, column)).collect();
        format!("<tr{class}><th scope=\"row\">{step}</th>{cells}</tr>\n")
    };
    let heads: String = COLUMNS.iter().map(|(head, ..)| format!("<th scope=\"col\">{head}</th>")).collect();
    let pairs = run.validations.iter().map(|line| number(line, "pairs")).find(|pairs| pairs.is_finite());
    let pairs = pairs.map(|pairs| format!(" of {pairs} pairs")).unwrap_or_default();
    format!(
        "<h2>Validation{pairs}</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Validations\">\
         <table class=\"data\"><thead><tr><th scope=\"col\">step</th>{heads}</tr></thead>\n<tbody>\n{}</tbody></table>\
         </div>\n",
        run.validations.iter().map(row).collect::<String>()
    )
}

fn token_statistics(run: &Run) -> String {
    let content = match &run.extremes {
        Ok(extremes) => extremes_tables(extremes),
        Err(reason) => format!("<p>They cannot be shown: {}.</p>\n", visible(reason)),
    };
    format!("<h2>Token statistics</h2>\n{content}")
}

fn extremes_tables(extremes: &Extremes) -> String {
    let note = match &extremes.without_text {
        Some(reason) => format!("<p>Texts of tokens are missing: {}.</p>\n", visible(reason)),
        None => String::new(),
    };
    format!(
        "<p class=\"faint\">How often a token stood in secure rather than in vulnerable code, from −1 to 1; {} tokens \
         have a statistic that is not 0.</p>\n{note}<div class=\"tables\">\n{}{}</div>\n",
        extremes.counted,
        tokens_table("Most secure", &extremes.secure),
        tokens_table("Most vulnerable", &extremes.vulnerable)
    )
}

fn tokens_table(caption: &str, tokens: &[TokenStat]) -> String {
    if tokens.is_empty() {
        return format!("<p>{caption}: none.</p>\n");
    }
    let row = |token: &TokenStat| {
        // Spaces are most of what tells tokens apart.
        let spaced = |text: &String| text.replace(' ', "␣").replace('\n', "↵").replace('\t', "⇥");
        let text = token.text.as_ref().map(spaced).map(|text| format!("<code>{}</code>", visible(&text)));
        let TokenStat { id, value, .. } = token;
        format!(
            "<tr><td class=\"left\">{}</td><td>{id}</td><td>{value:+.2}</td></tr>\n",
            text.unwrap_or_default()
        )
    };
    format!(
        "<table class=\"data\"><caption>{caption}</caption><thead><tr><th scope=\"col\" class=\"left\">token</th>\
         <th scope=\"col\">id</th><th scope=\"col\">statistic</th></tr></thead>\n<tbody>\n{}</tbody></table>\n",
        tokens.iter().map(row).collect::<String>()
    )
}

fn configuration(run: &Run) -> String {
    if run.config.is_empty() {
        return String::new();
    }
    // As they would stand in the file: f32 values have fewer digits there.
    let defaults = TrainConfig {
        max_seq_len: Some(default_max_seq_len(usize::MAX)),
        guard_layers: Some(GuardConfig::default().layers),
        ..TrainConfig::default()
    };
    let defaults = serde_json::to_string(&defaults).unwrap_or_default();
    let defaults: Value = serde_json::from_str(&defaults).unwrap_or_default();
    let row = |(key, value): (&String, &Value)| {
        let class = if defaults.get(key) == Some(value) { "" } else { " class=\"best\"" };
        let shown = match value {
            Value::Null => "–".to_owned(),
            Value::String(text) => visible(text),
            other => visible(&other.to_string()),
        };
        format!(
            "<tr{class}><th scope=\"row\" class=\"left\">{}</th><td class=\"left\">{shown}</td></tr>\n",
            visible(key)
        )
    };
    format!(
        "<div><h2>Configuration</h2>\n<p class=\"faint\">Bold: not the default.</p>\n<table class=\"data\"><thead \
         class=\"hidden\"><tr><th scope=\"col\">option</th><th scope=\"col\">value</th></tr></thead>\n\
         <tbody>\n{}</tbody></table></div>\n",
        run.config.iter().map(row).collect::<String>()
    )
}

fn environment(run: &Run) -> String {
    let each = run.environments.iter().map(|start| {
        let began =
            if start.step == 0 { "started".into() } else { format!("continued after step {}", start.step) };
        facts(&[
            ("Run", format!("{began}, {}", utc(start.started))),
            ("Device", visible(&start.device)),
            ("Computes in", visible(&start.dtype)),
            ("Threads", start.threads.to_string()),
            ("System", visible(&start.platform)),
            ("dg-run", visible(&start.version)),
        ])
    });
    let all: String = each.collect();
    if all.is_empty() { all } else { format!("<div><h2>Environment</h2>\n{all}</div>\n") }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Seconds since 1970 as date and time.
fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the odd day of leap years is the last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let of_era_years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_years + of_era_years / 4 - of_era_years / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + of_era_years + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), date);
        }
        assert_eq!((duration(7.25).as_str(), duration(3_725.0).as_str()), ("7.2 s", "1 h 2 min"));
    }
}
