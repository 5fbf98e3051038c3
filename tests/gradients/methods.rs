//! Losses of the baselines against a slow reference, and their gradients against central differences.

use deepguard::cpu::Cpu;
use deepguard::decode::final_logits;
use deepguard::model::Transformer;
use deepguard::train::Method;
use deepguard::train::batch::TokenPair;
use deepguard::train::changes::Changes;
use deepguard::train::step::Stepper;

use super::support::{Setting, micro_batches_of_one, model, one_micro_batch, pairs, stepper};
use super::{distance, gradients, norm};

fn setting(method: Method) -> Setting {
    let default = Setting::default();
    Setting {
        dropout: 0.0,
        objective: default.objective.with(|o| {
            o.method = method;
            o.security_weight = 1.0;
            o.kl_weight = 0.0;
        }),
        ..default
    }
}

fn changed_pairs() -> Vec<TokenPair> {
    let mark =
        |pair: TokenPair| TokenPair { changes: Changes::of_tokens(&pair.secure, &pair.vulnerable), ..pair };
    pairs().into_iter().map(mark).collect()
}

/// Negative log-likelihood of each token but the first.
fn likelihoods(stepper: &Stepper<'_, Cpu>, tokens: &[u32]) -> Vec<f64> {
    let model: &Transformer<Cpu> = stepper.model();
    let logits = final_logits(model, Some(&stepper.attached), tokens).unwrap();
    let rows = logits.chunks_exact(model.config.vocab_size);
    let nll = |(row, &target): (&[f32], &u32)| {
        let max = row.iter().fold(f32::MIN, |m, &x| m.max(x));
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        f64::from(max) + sum.ln() - f64::from(row[target as usize])
    };
    rows.zip(&tokens[1..]).map(nll).collect()
}

/// SafeCoder's two losses, a function at a time, as its trainer has them.
fn safecoder(stepper: &Stepper<'_, Cpu>, pairs: &[TokenPair]) -> [f64; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for pair in pairs {
        let halves = [(&pair.secure, &pair.changes.secure), (&pair.vulnerable, &pair.changes.vulnerable)];
        for (which, (tokens, changed)) in halves.into_iter().enumerate() {
            let changed = &changed[1..];
            if !changed.contains(&true) || !changed.contains(&false) {
                continue;
            }
            let loss = |nll: f64| if which == 0 { nll } else { -(1.0 - (-nll).exp()).max(1e-5).ln() };
            let all = likelihoods(stepper, tokens).into_iter().zip(changed);
            let losses: Vec<f64> = all.filter(|(_, changed)| **changed).map(|(nll, _)| loss(nll)).collect();
            found[which].push(losses.iter().sum::<f64>() / losses.len() as f64);
        }
    }
    let functions = (found[0].len() + found[1].len()) as f64;
    found.map(|losses| losses.iter().sum::<f64>() / functions)
}

#[test]
fn safecoder_s_losses_are_those_of_a_slow_reference() {
    let (model, pairs) = (model("llama-tiny"), changed_pairs());
    let mut stepper = stepper(&model, &pairs, setting(Method::SafeCoder));
    let losses = stepper.gradients(&one_micro_batch(&pairs), None).unwrap();
    let [generation, unlikelihood] = safecoder(&stepper, &pairs);
    assert!((losses.generation - generation).abs() < 1e-5, "{} {generation}", losses.generation);
    assert!((losses.security - unlikelihood).abs() < 1e-5, "{} {unlikelihood}", losses.security);
    assert!((losses.total - generation - unlikelihood).abs() < 1e-5 && unlikelihood > 1e-4);
    let whole = gradients(&stepper);
    let cut = stepper.gradients(&micro_batches_of_one(&pairs), None).unwrap();
    assert!((cut.total - losses.total).abs() < 1e-6);
    assert!(distance(&gradients(&stepper), &whole) < 1e-5);
}

/// Every adapter along its own gradient; of the guard, which has no part in it, none has one.
#[test]
fn safecoder_s_gradients_match_central_differences() {
    let (model, pairs) = (model("qwen2-tiny"), changed_pairs());
    let mut stepper = stepper(&model, &pairs, setting(Method::SafeCoder));
    let mut loss =
        |stepper: &mut Stepper<'_, Cpu>| stepper.gradients(&one_micro_batch(&pairs), None).unwrap().total;
    loss(&mut stepper);
    let gradient = gradients(&stepper);
    for param in stepper.attached.params.layout().params().to_vec() {
        let own = &gradient[param.range.clone()];
        let slope = norm(own);
        if !param.name.contains("lora") {
            assert_eq!(slope, 0.0, "{}", param.name);
            continue;
        }
        let original = stepper.attached.params.download(&param).unwrap();
        let h = (1e-2 / slope).min(1e-2);
        let mut at = |scale: f64| {
            let step = |(p, g): (&f32, &f32)| p + (scale * h * f64::from(*g) / slope) as f32;
            let moved: Vec<f32> = original.iter().zip(own).map(step).collect();
            stepper.attached.params.upload(&param, &moved);
            loss(&mut stepper)
        };
        // The error in h² is removed by a second difference at 2h.
        let found = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / 6.0;
        let predicted = 2.0 * h * slope;
        assert!(
            (found - predicted).abs() < 2e-3 * predicted + 1e-6,
            "{}: {found:e} {predicted:e}",
            param.name
        );
        stepper.attached.params.upload(&param, &original);
    }
}

/// A target that is all but certain is where the published code stops counting: no gradient, and no infinity.
#[test]
fn a_certain_vulnerable_token_has_a_bounded_loss() {
    let (model, mut pairs) = (model("llama-tiny"), changed_pairs());
    pairs.truncate(1);
    let mut stepper = stepper(&model, &pairs, setting(Method::SafeCoder));
    for param in stepper.attached.params.layout().params().to_vec() {
        let values = stepper.attached.params.download(&param).unwrap();
        let larger: Vec<f32> = values.iter().map(|v| v * 40.0).collect();
        stepper.attached.params.upload(&param, &larger);
    }
    let losses = stepper.gradients(&one_micro_batch(&pairs), None).unwrap();
    assert!(losses.total.is_finite() && losses.security <= -(1e-5f64).ln(), "{losses:?}");
    assert!(gradients(&stepper).iter().all(|g| g.is_finite()));
}
