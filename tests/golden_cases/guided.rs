//! Greedy decoding with and without guidance, by a full forward pass per token: slow, and independent of any cache.

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;

use crate::golden_cases::Tolerances;
use crate::golden_cases::case::{Case, Result};
use crate::golden_cases::checks::Checks;
use crate::golden_cases::probe::Probe;
use crate::golden_cases::setup::Setup;
use crate::golden_cases::statistics::Counted;

/// What is added to the logits of every step, and at the second and third generated token.
struct Guidance {
    bias: Vec<f32>,
    boost: Vec<f32>,
}

struct Generated {
    tokens: Vec<u32>,
    raw: Vec<Vec<f32>>,
    adjusted: Vec<Vec<f32>>,
}

/// Checks the prompt's scores, the adjustment, the logits along the guided path and all tokens.
pub fn check(case: &Case, setup: &Setup, tolerances: Tolerances, checks: &mut Checks) -> Result<()> {
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
        let found = generate(setup, &attached, &prompt, expected.values.len(), guidance)?;
        let same = found.tokens == expected.ids();
        checks.holds("tokens", same, || format!("{name}: {:?}, expected {:?}", found.tokens, expected.ids()));
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

fn generate(
    setup: &Setup,
    attached: &Attached<Cpu>,
    prompt: &[u32],
    count: usize,
    guidance: Option<&Guidance>,
) -> Result<Generated> {
    let mut ids = prompt.to_vec();
    let mut generated = Generated { tokens: Vec::new(), raw: Vec::new(), adjusted: Vec::new() };
    for step in 0..count {
        let probe = Probe::of_sequence(&setup.model, attached, &ids)?;
        let raw = probe.logits(ids.len() - 1)?;
        let mut adjusted = raw.clone();
        for (token, logit) in adjusted.iter_mut().enumerate() {
            let Some(guidance) = guidance else { break };
            let boost = if matches!(step, 1 | 2) { guidance.boost[token] } else { 0.0 };
            *logit += guidance.bias[token] + boost;
        }
        let best = (0..adjusted.len()).max_by(|&a, &b| adjusted[a].total_cmp(&adjusted[b]));
        ids.push(best.ok_or("an empty vocabulary")? as u32);
        generated.tokens.push(ids[ids.len() - 1]);
        generated.raw.push(raw);
        generated.adjusted.push(adjusted);
    }
    Ok(generated)
}
