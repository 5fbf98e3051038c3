//! Greedy decoding with and without guidance, by a full forward pass per token: slow, and independent of any
//! cache.

use deepguard::attached::Attached;
use deepguard::ops::Backend;

use crate::golden_cases::Tolerances;
use crate::golden_cases::case::{Case, Result};
use crate::golden_cases::checks::Checks;
use crate::golden_cases::probe::Probe;
use crate::golden_cases::setup::Setup;
use crate::golden_cases::statistics::Counted;

/// The bias on the logits of every step, and the boost at the second and third generated token.
struct Guidance {
    bias: Vec<f32>,
    boost: Vec<f32>,
}

/// Logits of every step.
struct Generated {
    raw: Vec<Vec<f32>>,
    adjusted: Vec<Vec<f32>>,
}

/// Checks the prompt's scores, the adjustment, the logits along the guided path and all tokens.
pub fn check<B: Backend>(
    case: &Case,
    setup: &Setup<B>,
    tolerances: Tolerances,
    checks: &mut Checks,
) -> Result<()> {
    checks.variant = "guided decoding".into();
    let (Some(prompt), attached) = (prompt(case)?, setup.attached()?) else { return Ok(()) };
    let scores = Probe::of_sequence(&setup.model, &attached, &prompt)?.scores();
    if let Some(stored) = case.tensor("guided/prompt_scores") {
        for (t, (&found, &expected)) in scores.iter().zip(&stored.values).enumerate() {
            checks.close("prompt scores", || t.to_string(), found.into(), expected, tolerances.scores);
        }
    }
    let mean = scores.iter().map(|&s| f64::from(s)).sum::<f64>() / scores.len() as f64;
    if let Some(expected) = case.number(&["guided", "avg_security"]) {
        checks.close("prompt mean", String::new, mean, expected, tolerances.losses);
    }
    let stats = Counted::new(case, setup.model.config.vocab_size, 1, false)?.stats.normalized();
    let guidance = Guidance {
        bias: stats.iter().map(|&s| (f64::from(s) / mean) as f32).collect(),
        boost: stats.iter().map(|s| s.max(0.0)).collect(),
    };
    if let Some(stored) = case.tensor("guided/vocab_adjustment") {
        for (token, (&found, &expected)) in guidance.bias.iter().zip(&stored.values).enumerate() {
            checks.close("adjustment", || token.to_string(), found.into(), expected, tolerances.logits);
        }
    }
    for (name, guidance) in [("guided", Some(&guidance)), ("unguided", None)] {
        let Some(expected) = case.tensor(&format!("{name}/tokens")) else { continue };
        let found = follow(setup, &attached, &prompt, &expected.ids(), guidance)?;
        for (step, (row, &token)) in found.adjusted.iter().zip(&expected.ids()).enumerate() {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let place = || format!("{name}: logit of token {token} at step {step}");
            checks.close("tokens", place, row[token as usize].into(), best.into(), tolerances.choice);
        }
        for (kind, rows) in [("raw", &found.raw), ("adjusted", &found.adjusted)] {
            logits(case, &format!("{name}/{kind}_logits"), rows, tolerances, checks);
        }
    }
    Ok(())
}

fn prompt(case: &Case) -> Result<Option<Vec<u32>>> {
    if let Some(stored) = case.tensor("guided/prompt_ids") {
        return Ok(Some(stored.ids()));
    }
    let number = |key| case.number(&["guided", key]).map(|n| n as usize);
    let (Some(row), Some(len)) = (number("prompt_row"), number("prompt_len")) else { return Ok(None) };
    Ok(Some(case.padded_rows("secure")?[row][..len].to_vec()))
}

fn logits(case: &Case, name: &str, rows: &[Vec<f32>], tolerances: Tolerances, checks: &mut Checks) {
    let Some(stored) = case.tensor(name) else { return };
    for (step, expected) in stored.values.chunks(stored.shape[1]).enumerate() {
        for (token, (&found, &expected)) in rows[step].iter().zip(expected).enumerate() {
            let place = || format!("{name} step {step} token {token}");
            checks.close("guided logits", place, found.into(), expected, tolerances.logits);
        }
    }
}

/// Takes the published choices, and notes the logits that they were chosen from.
fn follow<B: Backend>(
    setup: &Setup<B>,
    attached: &Attached<B>,
    prompt: &[u32],
    choices: &[u32],
    guidance: Option<&Guidance>,
) -> Result<Generated> {
    let mut ids = prompt.to_vec();
    let mut generated = Generated { raw: Vec::new(), adjusted: Vec::new() };
    for (step, &choice) in choices.iter().enumerate() {
        let probe = Probe::of_sequence(&setup.model, attached, &ids)?;
        let raw = probe.logits(ids.len() - 1)?;
        let mut adjusted = raw.clone();
        for (token, logit) in adjusted.iter_mut().enumerate() {
            let Some(guidance) = guidance else { break };
            let boost = if matches!(step, 1 | 2) { guidance.boost[token] } else { 0.0 };
            *logit += guidance.bias[token] + boost;
        }
        ids.push(choice);
        generated.raw.push(raw);
        generated.adjusted.push(adjusted);
    }
    Ok(generated)
}
