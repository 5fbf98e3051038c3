//! The page of a layer probe.

use std::path::Path;

use super::chart::{Chart, Series};
use super::html::{Page, facts, visible};
use crate::probe::{LayerProbe, ProbeReport, Share, Signal};

/// The page of `report`; `model` and `adapter` say what was probed.
pub fn page(report: &ProbeReport, model: &str, adapter: Option<&Path>) -> String {
    let body = [heading(report, model, adapter), chart(report), table(report)].concat();
    let title = format!("{model} – layer probe");
    Page { title: &title, style: include_str!("run.css"), body: &body, data: None, script: "" }.to_html()
}

/// A p value for people.
pub fn p_text(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

fn heading(report: &ProbeReport, model: &str, adapter: Option<&Path>) -> String {
    let mut rows = vec![("Model", format!("<code>{}</code>", visible(model)))];
    if let Some(adapter) = adapter {
        rows.push(("Adapter", format!("<code>{}</code>", visible(&adapter.display().to_string()))));
    }
    rows.push(("Pairs", format!("{} in {} groups that share no function", report.pairs, report.groups)));
    rows.push(("Folds", format!("{}, dealt with seed {}", report.folds, report.seed)));
    rows.push(("Chance", format!("{}: each pair has one function of either kind", report.chance)));
    rows.push((
        "Best p value",
        format!("{}; a signal has to be below {}", visible(&p_text(report.p_value())), report.significance),
    ));
    match &report.signal {
        Some(Signal { best_layer, band: [first, last], guard_layers }) => {
            rows.push(("Best layer", format!("{best_layer} of {}", report.layers.len())));
            rows.push((
                "Band",
                format!("layers {first} to {last}, none of which is worse than the best for certain"),
            ));
            rows.push((
                "Suggested",
                format!("<code>--guard-layers {guard_layers}</code>, which reaches into the band"),
            ));
        }
        None => rows
            .push(("Signal", "none for certain: no layer is above chance by more than luck explains".into())),
    }
    format!(
        "<h1>Layer probe</h1>\n{}<p class=\"faint\">For each layer, a linear classifier learns from the mean states of \
         functions whether they are secure, and is asked about pairs of which it has seen nothing. Bands and \
         brackets are intervals of {:.0} % by Wilson, for as many independent pairs as the groups are worth. The p \
         value is how likely any layer would order as many pairs correctly if none knew anything: the best of many \
         layers is good by luck as well.</p>\n",
        facts(&rows),
        100.0 * report.confidence
    )
}

fn chart(report: &ProbeReport) -> String {
    let series = |name: &str, of: fn(&LayerProbe) -> Share| Series {
        name: name.into(),
        points: report.layers.iter().map(|probe| (probe.layer as f64, of(probe).value)).collect(),
        band: report.layers.iter().map(|probe| (probe.layer as f64, of(probe).low, of(probe).high)).collect(),
    };
    let ends = [1.0, report.layers.len() as f64];
    let chance = Series {
        name: "chance".into(),
        points: ends.map(|layer| (layer, report.chance)).to_vec(),
        ..Series::default()
    };
    let chart = Chart {
        title: "Held-out accuracy by layer".into(),
        unit: "share".into(),
        x_label: "layer".into(),
        series: vec![
            series("functions classified correctly", |probe| probe.accuracy),
            series("pairs with the secure function above", |probe| probe.pair_accuracy),
            chance,
        ],
        y_range: None,
    };
    format!("<div class=\"wide\">\n{}</div>\n", chart.to_html())
}

fn table(report: &ProbeReport) -> String {
    let share = |share: Share| format!("<td>{:.3} ({:.3} to {:.3})</td>", share.value, share.low, share.high);
    let best = report.signal.as_ref().map(|signal| signal.best_layer);
    let row = |probe: &LayerProbe| {
        let class = if Some(probe.layer) == best { " class=\"best\"" } else { "" };
        format!(
            "<tr{class}><th scope=\"row\">{}</th>{}{}<td>{}</td></tr>\n",
            probe.layer,
            share(probe.accuracy),
            share(probe.pair_accuracy),
            visible(&p_text(probe.p_value))
        )
    };
    format!(
        "<h2>Layers</h2>\n<div class=\"scroll\"><table class=\"data\"><thead><tr><th scope=\"col\">layer</th>\
         <th scope=\"col\">functions classified correctly</th><th scope=\"col\">secure above vulnerable</th>\
         <th scope=\"col\">p</th></tr></thead>\n<tbody>\n{}</tbody></table></div>\n",
        report.layers.iter().map(row).collect::<String>()
    )
}
