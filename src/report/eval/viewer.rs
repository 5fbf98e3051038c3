//! The samples of an evaluation, for the page's script.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::eval::compare::Run;
use crate::eval::run::Judged;
use crate::eval::verdict::{Functional, Secure, Verdict};
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

/// Scenarios with the samples of all runs. Equal samples of a run are shown once, with all their numbers.
pub fn data(runs: &[Run]) -> Value {
    let judged: Vec<_> = runs.iter().map(Run::judged).collect();
    let scenarios = runs.first().map(|run| &run.seal.scenarios[..]).unwrap_or_default();
    let scenario = |row: &crate::eval::rates::Row| {
        let samples: Vec<Value> = judged
            .iter()
            .enumerate()
            .flat_map(|(run, joined)| {
                let samples = joined.scenarios.get(row.id.as_str()).map(|samples| &samples[..]);
                samples_of(run, samples.unwrap_or_default())
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
fn samples_of(run: usize, samples: &[Judged<'_>]) -> Vec<Value> {
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
            "run": run, "numbers": numbers, "completion": shown(&sample.completion), "outcome": outcome(verdict),
            "functional": verdict.functional, "secure": verdict.secure, "parsed": verdict.parsed,
            "reason": shown(&verdict.reason),
        })
    };
    distinct.into_iter().map(sample).collect()
}

/// A text with signs for what cannot be seen, cut where it is endless.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => printable(text),
        Some((end, _)) => format!("{}\n[{} more bytes]", printable(&text[..end]), text.len() - end),
    }
}
