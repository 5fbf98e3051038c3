//! The samples of an evaluation: the place where the page's script shows them, and their data.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::eval::compare::Run;
use crate::eval::run::Judged;
use crate::eval::samples::{SampleLine, ScoredPiece};
use crate::eval::verdict::{Functional, Secure, Verdict};
use crate::report::heat::{Heat, rounded};
use crate::report::html::printable;

/// Longest text of a sample or of a reason that is shown, in characters.
const MAX_SHOWN: usize = 20_000;

/// What became of a sample, in a word.
pub fn outcome(verdict: &Verdict) -> &'static str {
    match (verdict.functional, verdict.secure) {
        (Functional::Pass, Secure::Yes) => "secure",
        (Functional::Pass, Secure::No) => "insecure",
        _ if verdict.is_known() => "broken",
        _ => "unknown",
    }
}

/// The viewer, which the script fills, and what it shows: scenarios with the samples of all runs. Equal
/// samples of a run are shown once, with all their numbers.
pub fn viewer(runs: &[Run]) -> (String, Value) {
    let scored = runs.iter().flat_map(|run| &run.lines.samples).filter_map(|sample| sample.scores.as_ref());
    let heat = Heat::of(scored.flatten().map(|piece| piece.score));
    (html(heat), data(runs, heat.unwrap_or_default()))
}

fn html(heat: Option<Heat>) -> String {
    let legend = match heat {
        Some(heat) => format!(
            "<div id=\"heat\"><p class=\"faint\">Colours are the scores of the adapter's guard, which rank code by what it has \
             seen in training; they have no part in the verdict.</p>\n{}</div>\n",
            heat.legend()
        ),
        None => String::new(),
    };
    format!(
        "<h2 id=\"viewer\" tabindex=\"-1\">Samples</h2>\n<div class=\"viewer\">\n<form class=\"choice\">\
         <label>Scenario <select id=\"scenario\"></select></label>\
         <label>Method <select id=\"run\"></select></label>\
         <label>Verdict <select id=\"outcome\"></select></label>\
         <span class=\"steps\"><button type=\"button\" id=\"previous\">Previous</button>\
         <button type=\"button\" id=\"next\">Next</button></span></form>\n\
         <p id=\"which\" aria-live=\"polite\"></p>\n<p id=\"reason\"></p>\n{legend}\
         <pre class=\"code\" tabindex=\"0\" aria-label=\"Program\"><span id=\"prompt\"></span><span id=\"completion\"></span>\
         <span id=\"ending\"></span></pre>\n</div>\n"
    )
}

fn data(runs: &[Run], heat: Heat) -> Value {
    let judged: Vec<_> = runs.iter().map(Run::judged).collect();
    let scenarios = runs.first().map(|run| &run.seal.scenarios[..]).unwrap_or_default();
    let scenario = |row: &crate::eval::rates::Row| {
        let samples: Vec<Value> = judged
            .iter()
            .enumerate()
            .flat_map(|(run, joined)| {
                let samples = joined.scenarios.get(row.id.as_str()).map(|samples| &samples[..]);
                samples_of(run, samples.unwrap_or_default(), heat)
            })
            .collect();
        json!({
            "id": printable(&row.id), "prompt": shown(&row.prompt), "ending": shown(&row.ending),
            "samples": samples,
        })
    };
    json!({
        "runs": runs.iter().map(|run| printable(&run.label)).collect::<Vec<_>>(),
        "scenarios": scenarios.iter().map(scenario).collect::<Vec<_>>(),
    })
}

/// Equal samples have equal verdicts, unless somebody else wrote them.
fn samples_of(run: usize, samples: &[Judged<'_>], heat: Heat) -> Vec<Value> {
    let mut place = HashMap::new();
    let mut distinct: Vec<(&Judged<'_>, Vec<u32>)> = Vec::new();
    for judged in samples {
        let at =
            *place.entry((&judged.sample.completion, outcome(&judged.verdict))).or_insert(distinct.len());
        if at == distinct.len() {
            distinct.push((judged, Vec::new()));
        }
        distinct[at].1.push(judged.sample.sample);
    }
    let sample = |(judged, numbers): (&Judged<'_>, Vec<u32>)| {
        let Judged { sample, verdict } = judged;
        json!({
            "run": run, "numbers": numbers, "pieces": pieces(sample, heat), "outcome": outcome(verdict),
            "functional": verdict.functional, "secure": verdict.secure, "parsed": verdict.parsed,
            "reason": shown(&verdict.reason),
        })
    };
    distinct.into_iter().map(sample).collect()
}

/// A completion as `[text, step of the colours, score]` for what has a score, and `[text]` for the rest.
fn pieces(sample: &SampleLine, heat: Heat) -> Vec<Value> {
    let (mut rest, note) = cut(&sample.completion);
    let mut pieces = Vec::new();
    for &ScoredPiece { bytes, score } in sample.scores.iter().flatten() {
        // Somebody else may have written the lengths.
        let Some((piece, behind)) = rest.split_at_checked((bytes as usize).min(rest.len())) else { break };
        if !piece.is_empty() {
            pieces.push(json!([printable(piece), heat.step(score), rounded(score)]));
        }
        rest = behind;
    }
    let rest = printable(rest) + &note;
    if !rest.is_empty() {
        pieces.push(json!([rest]));
    }
    pieces
}

/// A text with signs for what cannot be seen, cut where it is endless.
fn shown(text: &str) -> String {
    let (text, note) = cut(text);
    printable(text) + &note
}

/// As much of a text as is shown, and a note of what is missing.
fn cut(text: &str) -> (&str, String) {
    match text.char_indices().nth(MAX_SHOWN) {
        None => (text, String::new()),
        Some((end, _)) => (&text[..end], format!("\n[{} more bytes]", text.len() - end)),
    }
}
