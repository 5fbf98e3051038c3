//! Losses of the baselines against a slow reference, and their gradients against central differences.

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::decode::{GenerateOptions, final_logits, generate};
use deepguard::model::Transformer;
use deepguard::model::prefix::PrefixConfig;
use deepguard::train::Method;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::Stepper;

use super::support::{
    PREFIX, Random, Setting, changed_pairs, micro_batches_of_one, model, one_micro_batch, stepper,
    sven_objective, sven_stepper,
};
use super::{distance, dot, gradients, norm};

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

/// A token that is the target of a changed row of the first pair and of one that is not.
fn ignored(pairs: &mut [TokenPair]) -> u32 {
    let changes = pairs[0].changes.clone().unwrap();
    for (tokens, changed) in
        [(&mut pairs[0].secure, changes.secure), (&mut pairs[0].vulnerable, changes.vulnerable)]
    {
        for kind in [true, false] {
            let place = (1..tokens.len()).rev().find(|&i| changed[i] == kind).unwrap();
            tokens[place] = IGNORED;
        }
    }
    IGNORED
}

/// No other token of the pairs.
const IGNORED: u32 = 511;

/// Targets, from 0, that the fix changed, and those that it did not; `None` for a function that lacks one of
/// them.
fn targets(tokens: &[u32], changed: &[bool], ignored: Option<u32>) -> Option<[Vec<usize>; 2]> {
    let of_kind = |kind: bool| -> Vec<usize> {
        (1..tokens.len())
            .filter(|&i| changed[i] == kind && Some(tokens[i]) != ignored)
            .map(|i| i - 1)
            .collect()
    };
    Some([of_kind(true), of_kind(false)]).filter(|kinds| kinds.iter().all(|targets| !targets.is_empty()))
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
fn safecoder(stepper: &Stepper<'_, Cpu>, pairs: &[TokenPair], ignored: Option<u32>) -> [f64; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for pair in pairs {
        let changes = pair.changes.as_ref().unwrap();
        let halves = [(&pair.secure, &changes.secure), (&pair.vulnerable, &changes.vulnerable)];
        for (which, (tokens, changed)) in halves.into_iter().enumerate() {
            let Some([changed, _]) = targets(tokens, changed, ignored) else { continue };
            let loss = |nll: f64| if which == 0 { nll } else { -(1.0 - (-nll).exp()).max(1e-5).ln() };
            let all = likelihoods(stepper, tokens);
            found[which].push(mean(changed.into_iter().map(|i| loss(all[i]))));
        }
    }
    let functions = (found[0].len() + found[1].len()) as f64;
    found.map(|losses| losses.iter().sum::<f64>() / functions)
}

#[test]
fn safecoder_s_losses_are_those_of_a_slow_reference() {
    let model = model("llama-tiny");
    for ignoring in [false, true] {
        let (mut pairs, mut setting) = (changed_pairs(), setting(Method::SafeCoder));
        setting.objective.ignore_token = ignoring.then(|| ignored(&mut pairs));
        let mut stepper = stepper(&model, &pairs, setting);
        let losses = stepper.gradients(&one_micro_batch(&pairs), None).unwrap();
        let [generation, unlikelihood] = safecoder(&stepper, &pairs, setting.objective.ignore_token);
        assert!((losses.generation - generation).abs() < 1e-5, "{} {generation}", losses.generation);
        assert!((losses.security - unlikelihood).abs() < 1e-5, "{} {unlikelihood}", losses.security);
        assert!((losses.total - generation - unlikelihood).abs() < 1e-5 && unlikelihood > 1e-4);
        let whole = gradients(&stepper);
        let cut = stepper.gradients(&micro_batches_of_one(&pairs), None).unwrap();
        assert!((cut.total - losses.total).abs() < 1e-6);
        assert!(distance(&gradients(&stepper), &whole) < 1e-5);
    }
}

/// Every fifth tensor along its own gradient; of the guard, which has no part in it, none has one.
fn gradients_match_central_differences(model: &Transformer<Cpu>, setting: Setting) {
    let pairs = changed_pairs();
    let mut stepper = stepper(model, &pairs, setting);
    let loss =
        |stepper: &mut Stepper<'_, Cpu>| stepper.gradients(&one_micro_batch(&pairs), None).unwrap().total;
    loss(&mut stepper);
    let gradient = gradients(&stepper);
    for param in stepper.attached.params.layout().params().iter().step_by(5).cloned().collect::<Vec<_>>() {
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

#[test]
fn safecoder_s_gradients_match_central_differences() {
    gradients_match_central_differences(&model("qwen2-tiny"), setting(Method::SafeCoder));
}

/// Settings of CoSec, with more of the divergence than is published.
fn cosec_setting() -> Setting {
    let setting = setting(Method::CoSec);
    Setting { objective: setting.objective.with(|o| o.kl_weight = 1.5), ..setting }
}

#[test]
fn cosec_s_gradients_match_central_differences() {
    gradients_match_central_differences(&model("qwen2-tiny"), cosec_setting());
}

/// CoSec's two losses of the secure functions, one at a time, as its trainer has them.
fn cosec(stepper: &Stepper<'_, Cpu>, pairs: &[TokenPair], ignored: Option<u32>) -> [f64; 2] {
    let mut found = Vec::new();
    for pair in pairs {
        let (tokens, changed) = (&pair.secure, &pair.changes.as_ref().unwrap().secure);
        let Some([changed, kept]) = targets(tokens, changed, ignored) else { continue };
        let own = log_probabilities(stepper, Some(&stepper.attached), tokens);
        let base = log_probabilities(stepper, None, tokens);
        let divergence = |i: usize| base[i].iter().zip(&own[i]).map(|(b, o)| b.exp() * (b - o)).sum();
        found.push([
            mean(changed.iter().map(|&i| -own[i][tokens[i + 1] as usize])),
            mean(kept.iter().map(|&i| divergence(i))),
        ]);
    }
    [0, 1].map(|term| mean(found.iter().map(|losses| losses[term])))
}

#[test]
fn cosec_s_losses_are_those_of_a_slow_reference() {
    for (name, ignoring) in [("llama-tiny", false), ("qwen2-tiny", true)] {
        let (model, mut pairs, mut setting) = (model(name), changed_pairs(), cosec_setting());
        setting.objective.ignore_token = ignoring.then(|| ignored(&mut pairs));
        let mut stepper = stepper(&model, &pairs, setting);
        let [cross_entropy, kl] = cosec(&stepper, &pairs, setting.objective.ignore_token);
        let losses = stepper.gradients(&one_micro_batch(&pairs), None).unwrap();
        let total = cross_entropy + 1.5 * kl;
        for (found, expected) in [(losses.generation, cross_entropy), (losses.kl, kl), (losses.total, total)]
        {
            assert!((found - expected).abs() < 1e-5 * (1.0 + expected), "{name}: {found} {expected}");
        }
        assert!(kl > 1e-3 && losses.security == 0.0, "{losses:?}");
        let whole = gradients(&stepper);
        let cut = stepper.gradients(&micro_batches_of_one(&pairs), None).unwrap();
        assert!((cut.total - losses.total).abs() < 1e-5);
        assert!(distance(&gradients(&stepper), &whole) < 1e-5);
        // An evaluation reads the vulnerable functions, too; the losses stay what they are.
        let all: Vec<&TokenPair> = pairs.iter().collect();
        let evaluated = stepper.evaluate(&all).unwrap();
        let totals = pairs.iter().map(|pair| pair.totals(setting.objective.ignore_token)).sum();
        assert!((stepper.losses_of(&[evaluated], totals).total - losses.total).abs() < 1e-5);
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

/// One of the two prefixes by itself.
fn control(stepper: &Stepper<'_, Cpu>, control: usize) -> Attached<Cpu> {
    let model = stepper.model();
    let config = PrefixConfig { len: PREFIX, dropout: 0.0 };
    let mut alone = Attached::with_prefixes(&model.backend, &model.config, config, 1).unwrap();
    let from = stepper.attached.params.layout().params()[control].clone();
    let to = alone.params.layout().params()[0].clone();
    alone.params.upload(&to, &stepper.attached.params.download(&from).unwrap());
    alone
}

/// log-softmax of each row of logits but the last.
fn log_probabilities(
    stepper: &Stepper<'_, Cpu>,
    attached: Option<&Attached<Cpu>>,
    tokens: &[u32],
) -> Vec<Vec<f64>> {
    let logits = final_logits(stepper.model(), attached, tokens).unwrap();
    let row = |row: &[f32]| {
        let max = row.iter().fold(f32::MIN, |m, &x| m.max(x));
        let lse = f64::from(max) + row.iter().map(|&x| f64::from(x - max).exp()).sum::<f64>().ln();
        row.iter().map(|&x| f64::from(x) - lse).collect()
    };
    logits.chunks_exact(stepper.model().config.vocab_size).take(tokens.len() - 1).map(row).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// SVEN's three losses, a function at a time and in probabilities, as its trainer has them.
fn sven(stepper: &Stepper<'_, Cpu>, pairs: &[TokenPair], ignored: Option<u32>) -> [f64; 3] {
    let controls = [control(stepper, 0), control(stepper, 1)];
    let mut found = Vec::new();
    for pair in pairs {
        let changes = pair.changes.as_ref().unwrap();
        let halves = [(&pair.secure, &changes.secure), (&pair.vulnerable, &changes.vulnerable)];
        for (label, (tokens, changed)) in halves.into_iter().enumerate() {
            let Some([changed, kept]) = targets(tokens, changed, ignored) else { continue };
            let own = log_probabilities(stepper, Some(&controls[label]), tokens);
            let other = log_probabilities(stepper, Some(&controls[1 - label]), tokens);
            let base = log_probabilities(stepper, None, tokens);
            let target = |rows: &[Vec<f64>], i: usize| rows[i][tokens[i + 1] as usize];
            let cross_entropy = mean(changed.iter().map(|&i| -target(&own, i)));
            let contrast = mean(changed.iter().map(|&i| {
                let (p, q) = (target(&own, i).exp(), target(&other, i).exp());
                -(p / (p + q)).ln()
            }));
            let kl = |rows: &[Vec<f64>]| {
                let row = |i: usize| base[i].iter().zip(&rows[i]).map(|(b, r)| b.exp() * (b - r)).sum();
                mean(kept.iter().map(|&i| row(i)))
            };
            found.push([cross_entropy, contrast, kl(&own) + kl(&other)]);
        }
    }
    [0, 1, 2].map(|term| mean(found.iter().map(|losses| losses[term])))
}

#[test]
fn sven_s_losses_are_those_of_a_slow_reference() {
    for (name, ignoring) in [("llama-tiny", false), ("qwen2-tiny", true)] {
        let (model, mut pairs) = (model(name), changed_pairs());
        let objective = sven_objective().with(|o| o.ignore_token = ignoring.then(|| ignored(&mut pairs)));
        let mut stepper = sven_stepper(&model, &pairs, objective, 0.0);
        let [cross_entropy, contrast, kl] = sven(&stepper, &pairs, objective.ignore_token);
        let losses = stepper.gradients(&one_micro_batch(&pairs), None).unwrap();
        let total = cross_entropy + 4.0 * contrast + 1.6 * kl;
        for (found, expected) in [
            (losses.generation, cross_entropy),
            (losses.security, contrast),
            (losses.kl, kl),
            (losses.total, total),
        ] {
            assert!((found - expected).abs() < 1e-5 * (1.0 + expected), "{name}: {found} {expected}");
        }
        assert!(kl > 1e-2 && contrast > 0.1, "{kl} {contrast}");
        // The base model's states are from the cache now, and the step is cut.
        let whole = gradients(&stepper);
        let cut = stepper.gradients(&micro_batches_of_one(&pairs), None).unwrap();
        assert!((cut.total - losses.total).abs() < 1e-5);
        assert!(distance(&gradients(&stepper), &whole) < 1e-5);
    }
}

/// Each prefix along its own gradient and along random parts of it, with dropout.
#[test]
fn sven_s_gradients_match_central_differences() {
    let (model, pairs) = (model("llama-tiny"), changed_pairs());
    let mut stepper = sven_stepper(&model, &pairs, sven_objective(), 0.1);
    let loss =
        |stepper: &mut Stepper<'_, Cpu>| stepper.gradients(&one_micro_batch(&pairs), Some(3)).unwrap().total;
    loss(&mut stepper);
    let gradient = gradients(&stepper);
    let mut random = Random::new(5);
    for param in stepper.attached.params.layout().params().to_vec() {
        let own = gradient[param.range.clone()].to_vec();
        for part in [false, true] {
            let scale = |random: &mut Random| if part { random.signed() } else { 1.0 };
            let direction: Vec<f32> = own.iter().map(|g| g * scale(&mut random)).collect();
            let length = norm(&direction);
            let slope = dot(&direction, &own) / length;
            let original = stepper.attached.params.download(&param).unwrap();
            let h = (1e-2 / slope.abs()).min(2e-2);
            let mut at = |scale: f64| {
                let step = |(p, d): (&f32, &f32)| p + (scale * h * f64::from(*d) / length) as f32;
                let moved: Vec<f32> = original.iter().zip(&direction).map(step).collect();
                stepper.attached.params.upload(&param, &moved);
                loss(&mut stepper)
            };
            let found = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / 6.0;
            let predicted = 2.0 * h * slope;
            let allowed = 2e-3 * predicted.abs() + 2e-6;
            assert!((found - predicted).abs() < allowed, "{}: {found:e} {predicted:e}", param.name);
            stepper.attached.params.upload(&param, &original);
        }
    }
}

#[test]
fn dropout_of_prefixes_depends_on_the_step_only() {
    let (model, pairs) = (model("llama-tiny"), changed_pairs());
    let mut stepper = sven_stepper(&model, &pairs, sven_objective(), 0.1);
    let mut at = |step, micro_batches: Vec<Vec<&TokenPair>>| {
        stepper.gradients(&micro_batches, Some(step)).unwrap();
        gradients(&stepper)
    };
    let whole = at(3, one_micro_batch(&pairs));
    assert!(distance(&at(3, micro_batches_of_one(&pairs)), &whole) < 1e-5);
    assert!(distance(&at(4, one_micro_batch(&pairs)), &whole) > 0.01);
}

/// What is generated token by token behind a prefix is what whole passes behind it give.
#[test]
fn decoding_behind_a_prefix_is_reading_behind_it() {
    let (model, pairs) = (model("llama-tiny"), changed_pairs());
    let stepper = sven_stepper(&model, &pairs, sven_objective(), 0.0);
    let prompt = [5, 6, 7, 8];
    let mut texts = Vec::new();
    for which in [0, 1] {
        let attached = control(&stepper, which);
        let options = GenerateOptions::default().with(|o| {
            o.max_new_tokens = 6;
            o.sampling.temperature = 0.0;
        });
        let found = generate(&model, Some(&attached), &prompt, &options, &mut |_, _| true).unwrap();
        let mut tokens = prompt.to_vec();
        for _ in 0..6 {
            let logits = final_logits(&model, Some(&attached), &tokens).unwrap();
            let last = logits.chunks_exact(model.config.vocab_size).last().unwrap();
            let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
            tokens.push(best as u32);
        }
        assert_eq!(found.samples[0], tokens[prompt.len()..]);
        texts.push(tokens);
    }
    assert_ne!(texts[0], texts[1], "the controls lead elsewhere");
}
