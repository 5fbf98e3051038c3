//! Losses, row losses, gradients and optimiser steps, in every way a step can be cut up and recomputed.

use deepguard::model::activations::Recompute;
use deepguard::model::params::Param;
use deepguard::ops::Backend;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::{BatchPlan, TokenPair};
use deepguard::train::step::{Losses, Objective, Stepper, Update};
use serde_json::Value;

use crate::golden_cases::case::{Case, Result};
use crate::golden_cases::checks::Checks;
use crate::golden_cases::setup::Setup;
use crate::golden_cases::statistics;
use crate::golden_cases::{Precision, Tolerances};

/// Its exact gradient is 0; the stored one is rounding noise, which Adam blows up to full steps.
const KEY_BIAS: &str = "security_analyzer.layer_aggregator.key.bias";

/// One way to compute the same step.
#[derive(Clone, Copy, Debug)]
struct Variant {
    share_prefix: bool,
    micro_batches_of_one: bool,
    recompute: Recompute,
    base_cache: bool,
}

fn variants(case: &Case, precision: Precision) -> Vec<Variant> {
    let variant = |share_prefix, micro_batches_of_one, recompute, base_cache| Variant {
        share_prefix,
        micro_batches_of_one,
        recompute,
        base_cache,
    };
    if case.is_real_model() {
        return vec![
            variant(true, false, Recompute::GateUp, false),
            variant(false, true, Recompute::Block, true),
        ];
    }
    if precision == Precision::Bf16 {
        // Every other cut: emulated devices are slow.
        return vec![if case.is_padded() {
            variant(true, false, Recompute::Nothing, false)
        } else {
            variant(false, true, Recompute::Block, true)
        }];
    }
    let mut all = Vec::new();
    for share in [true, false] {
        for of_one in [true, false] {
            for recompute in [Recompute::Nothing, Recompute::GateUp, Recompute::Block] {
                all.push(variant(share, of_one, recompute, false));
            }
            all.push(variant(share, of_one, Recompute::Nothing, true));
        }
    }
    all
}

/// Checks losses, gradients and steps of every variant. `kl_shifts` is what [`super::forward::check`]
/// returned.
pub fn check<B: Backend>(
    case: &Case,
    setup: &Setup<B>,
    tolerances: Tolerances,
    kl_shifts: &[Vec<f64>],
    checks: &mut Checks,
) -> Result<()> {
    let pairs = case.pairs()?;
    for variant in variants(case, tolerances.precision) {
        checks.variant = format!("{variant:?}");
        let micro_batches: Vec<Vec<&TokenPair>> = if variant.micro_batches_of_one {
            pairs.iter().map(|pair| vec![pair]).collect()
        } else {
            vec![pairs.iter().collect()]
        };
        let run = Run { case, setup, tolerances, kl_shifts, pairs: &pairs, variant, micro_batches };
        run.check_gradients(checks)?;
        run.check_steps(checks)?;
    }
    Ok(())
}

struct Run<'a, B: Backend> {
    case: &'a Case,
    setup: &'a Setup<B>,
    tolerances: Tolerances,
    kl_shifts: &'a [Vec<f64>],
    pairs: &'a [TokenPair],
    variant: Variant,
    micro_batches: Vec<Vec<&'a TokenPair>>,
}

impl<'a, B: Backend> Run<'a, B> {
    fn stepper(&self) -> Result<Stepper<'a, B>> {
        let longest = self.pairs.iter().map(|p| p.secure.len().max(p.vulnerable.len())).max();
        let objective = Objective::default().with(|o| {
            o.ignore_token = self.case.pad_token();
            o.share_prefix = self.variant.share_prefix;
            o.max_seq_len = longest.unwrap_or(0);
        });
        let cache = self.variant.base_cache.then(|| BaseCache::new(1 << 16));
        // Evaluation is of all pairs at once.
        let capacity = BatchPlan::capacity(self.pairs.iter(), self.pairs.len());
        let (model, attached) = (&self.setup.model, self.setup.attached()?);
        Ok(Stepper::new(model, attached, objective, cache, capacity, &[self.variant.recompute])?)
    }

    fn check_gradients(&self, checks: &mut Checks) -> Result<()> {
        let mut stepper = self.stepper()?;
        // With a cache, the second round reads what the first has stored.
        for _ in 0..if self.variant.base_cache { 2 } else { 1 } {
            let losses = stepper.gradients(&self.micro_batches, None)?;
            self.losses(&losses, checks);
            let fresh = self.case.number(&["lora_B_scale"]) == Some(0.0);
            if fresh && !self.variant.base_cache {
                let kl = losses.kl_before_clamp;
                checks.holds("fresh KL", kl == 0.0, || format!("KL of a fresh adapter is {kl:e}"));
            }
            self.gradients(&stepper, checks);
            self.grad_norms(&stepper, checks)?;
        }
        self.rows(&mut stepper, checks)
    }

    /// `name`, or what stands for it where the case has padding.
    fn masked(&self, name: &str) -> String {
        if self.case.is_padded() { format!("{name}_masked") } else { name.to_owned() }
    }

    fn losses(&self, found: &Losses, checks: &mut Checks) {
        for group in ["losses", "losses_f64"] {
            let Some(stored) = self.case.json.get(group) else { continue };
            let shift = self.kl_shift();
            let counted_shift = if stored["kl"].as_f64().is_some_and(|kl| kl < 1.0) { shift } else { 0.0 };
            let mut check = |name: &str, found: f64, shift: f64| {
                if let Some(expected) = stored.get(name).and_then(Value::as_f64) {
                    let place = || format!("{group}.{name}");
                    checks.close("losses", place, found, expected - shift, self.tolerances.losses);
                }
            };
            check("generation", found.generation, 0.0);
            check("kl_before_clamp", found.kl_before_clamp, shift);
            check("kl", found.kl, counted_shift);
            check(&self.masked("security"), found.security, 0.0);
            check(&self.masked("total"), found.total, counted_shift);
            check(&self.masked("mean_score_secure"), found.mean_score_secure, 0.0);
            check(&self.masked("mean_score_vulnerable"), found.mean_score_vulnerable, 0.0);
        }
    }

    /// How much larger the published KL mean is than ours by definition.
    fn kl_shift(&self) -> f64 {
        let counts = |id: &u32| Some(*id) != self.case.pad_token();
        let of_pair = |(pair, shifts): (&TokenPair, &Vec<f64>)| {
            let counted = pair.secure.iter().zip(shifts).filter(|(id, _)| counts(id));
            counted.fold((0.0, 0), |(sum, n), (_, shift)| (sum + shift, n + 1))
        };
        let sums = self.pairs.iter().zip(self.kl_shifts).map(of_pair);
        let (sum, n) = sums.fold((0.0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        if n == 0 { 0.0 } else { sum / f64::from(n) }
    }

    /// Row losses and scores of an evaluation.
    fn rows(&self, stepper: &mut Stepper<'a, B>, checks: &mut Checks) -> Result<()> {
        let (plan, rows) = stepper.evaluate(&self.pairs.iter().collect::<Vec<_>>())?;
        let (case, tolerances) = (self.case, self.tolerances);
        for (i, (pair, place)) in self.pairs.iter().zip(&plan.pairs).enumerate() {
            let at = |t: usize| move || format!("pair {i} position {t}");
            for (t, row) in place.secure.clone().enumerate() {
                if let Some(nll) = case.tensor("nll").filter(|_| t + 1 < pair.secure.len()) {
                    checks.close("nll", at(t), rows.nll[row].into(), nll.at(&[i, t]), tolerances.logits);
                }
                if let Some(kl) = case.tensor("kl_div").filter(|_| Some(pair.secure[t]) != case.pad_token()) {
                    let expected = kl.at(&[i, t]) - self.kl_shifts[i][t];
                    checks.close("kl_div", at(t), rows.kl[row].into(), expected, tolerances.logits);
                }
            }
            let vulnerable: Vec<usize> = plan.vulnerable_rows(place).collect();
            for (side, own) in [("secure", place.secure.clone().collect()), ("vulnerable", vulnerable)] {
                let Some(stored) = case.tensor(&format!("scores/{side}")) else { continue };
                for (t, row) in own.into_iter().enumerate() {
                    let (found, expected) = (rows.scores[row], stored.at(&[i, t]));
                    checks.close("scores", at(t), found.into(), expected, tolerances.scores);
                }
            }
        }
        Ok(())
    }

    /// A number about one parameter.
    fn about(&self, param: &Param, key: &str) -> Option<f64> {
        self.case.number(&["tensors", &param.name, key])
    }

    /// Gradients as a whole, which is what 8 bits leave of them.
    fn rounded_gradients(&self, stepper: &Stepper<'_, B>, checks: &mut Checks) {
        let kind = self.masked("grad");
        let params = stepper.attached.params.layout().params().iter().filter(|p| p.name != KEY_BIAS);
        let stored = params.filter_map(|p| Some((p, self.case.tensor(&format!("{kind}/{}", p.name))?)));
        let stored: Vec<_> = stored.collect();
        let largest = stored.iter().map(|(_, g)| norm(g.values.iter().copied())).fold(0.0, f64::max);
        let (mut off, mut all) = (0.0, 0.0);
        for (param, expected) in stored {
            let stride = self.about(param, &format!("{kind}_stride")).unwrap_or(1.0) as usize;
            let found = gradient(stepper, param);
            let difference =
                found.iter().step_by(stride).zip(&expected.values).map(|(&f, e)| f64::from(f) - e);
            // What cancels to almost nothing has no more digits than what it is the rest of.
            let size = norm(expected.values.iter().copied()).max(1e-3 * largest);
            let distance = norm(difference);
            off += distance.powi(2);
            all += norm(expected.values.iter().copied()).powi(2);
            checks.close("grad", || param.name.clone(), distance / size, 0.0, self.tolerances.grad);
        }
        let off = (off / all).sqrt();
        checks.close("all gradients", String::new, off, 0.0, self.tolerances.grad_norm);
    }

    fn gradients(&self, stepper: &Stepper<'_, B>, checks: &mut Checks) {
        if self.tolerances.precision == Precision::Bf16 {
            return self.rounded_gradients(stepper, checks);
        }
        let kind = self.masked("grad");
        for param in stepper.attached.params.layout().params() {
            let Some(stored) = self.case.tensor(&format!("{kind}/{}", param.name)) else { continue };
            let found = gradient(stepper, param);
            if param.name == KEY_BIAS {
                let largest = found.iter().fold(0.0f32, |m, g| m.max(g.abs()));
                checks.close("key.bias grad", String::new, largest.into(), 0.0, 1e-7);
                continue;
            }
            let largest = stored.values.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            let recorded = self.about(param, "grad_max_abs").filter(|_| !self.case.is_padded());
            let tolerance = 1e-4 * recorded.unwrap_or(largest) + 1e-7;
            let stride = self.about(param, &format!("{kind}_stride")).unwrap_or(1.0) as usize;
            let sampled = found.iter().step_by(stride).zip(&stored.values);
            let count = found.len().div_ceil(stride);
            checks.holds("grad", count == stored.values.len(), || format!("{}: length {count}", param.name));
            for (i, (&g, &expected)) in sampled.enumerate() {
                let place = || format!("{} sample {i}", param.name);
                checks.close("grad", place, g.into(), expected, tolerance);
            }
            if let Some(norm) = self.about(param, &format!("{kind}_l2")) {
                let floor = 1e-7 * (found.len() as f64).sqrt();
                checks.close("grad l2", || param.name.clone(), l2(&found), norm, 1e-4 * norm + floor);
            }
        }
    }

    /// Norms per parameter, which a case on a real model has instead of gradients. They are those of the
    /// published loss: of a case with padding, which that loss scores, only adapters that hardly feel the
    /// scores are comparable.
    fn grad_norms(&self, stepper: &Stepper<'_, B>, checks: &mut Checks) -> Result<()> {
        let norms = self.case.json.get("grad_norms").and_then(Value::as_object);
        let Some(norms) = norms else { return Ok(()) };
        let mut unscored = self.stepper()?;
        unscored.objective.security_weight = 0.0;
        unscored.gradients(&self.micro_batches, None)?;
        let (mut total, mut left_out) = (0.0, 0);
        for param in stepper.attached.params.layout().params() {
            let found = gradient(stepper, param);
            let norm = l2(&found);
            total += norm * norm;
            let expected = norms.get(&param.name).and_then(Value::as_f64).filter(|&norm| norm >= 1e-6);
            let Some(expected) = expected else { continue };
            let difference: Vec<f32> =
                found.iter().zip(gradient(&unscored, param)).map(|(a, b)| a - b).collect();
            let of_scores = l2(&difference);
            if self.case.is_padded() && of_scores > 0.2 * self.tolerances.grad_norm * norm {
                left_out += 1;
                continue;
            }
            let tolerance = self.tolerances.grad_norm * expected;
            checks.close("grad norms", || param.name.clone(), norm, expected, tolerance);
        }
        if left_out > 0 {
            checks.remark(&format!(
                "{left_out} grad_norms not compared: they are of the loss that scores padding"
            ));
        }
        let expected = self.case.number(&["grad_norm_total"]).filter(|_| !self.case.is_padded());
        if let Some(expected) = expected {
            let tolerance = self.tolerances.grad_norm * expected;
            checks.close("grad norms", || "total".into(), total.sqrt(), expected, tolerance);
        }
        Ok(())
    }

    /// Optimiser steps on the same batch, beside the recorded ones.
    fn check_steps(&self, checks: &mut Checks) -> Result<()> {
        let recorded = |name: &str| self.case.json.get(self.masked(name)).and_then(Value::as_array);
        let Some(losses) = recorded("step_losses") else { return Ok(()) };
        let norms = recorded("step_grad_norms").map_or(&[][..], Vec::as_slice);
        let adamw = |key: &str, default: f64| self.case.number(&["adamw", key]).unwrap_or(default);
        let update = Update {
            lr: adamw("lr", 1e-3),
            weight_decay: adamw("weight_decay", 0.01),
            max_grad_norm: adamw("max_grad_norm", 1.0),
        };
        let mut stepper = self.stepper()?;
        for (k, expected) in losses.iter().enumerate() {
            let report = stepper.step(&self.micro_batches, k as u32, update)?;
            self.step_losses(k, &report.losses, expected, checks);
            if let Some(expected) = norms.get(k).and_then(Value::as_f64) {
                let tolerance = self.tolerances.grad_norm * expected;
                checks.close("grad norm", || format!("step {k}"), report.grad_norm, expected, tolerance);
            }
            let stats = stepper.attached.stats.as_ref().ok_or("no token statistics")?;
            statistics::compare_trained(self.case, stats, k + 1, checks)?;
            self.stepped_params(&stepper, k + 1, checks);
        }
        Ok(())
    }

    fn step_losses(&self, k: usize, found: &Losses, expected: &Value, checks: &mut Checks) {
        let found = [
            ("generation", found.generation),
            ("security", found.security),
            ("kl", found.kl),
            ("total", found.total),
        ];
        for (name, found) in found {
            if let Some(expected) = expected.get(name).and_then(Value::as_f64) {
                let tolerance = 10.0 * self.tolerances.losses;
                checks.close("step losses", || format!("{name} at step {k}"), found, expected, tolerance);
            }
        }
    }

    /// How far `k` steps went, beside how far they should have gone.
    fn rounded_params(&self, stepper: &Stepper<'_, B>, k: usize, checks: &mut Checks) {
        let (mut off, mut way) = (Vec::new(), Vec::new());
        for param in stepper.attached.params.layout().params().iter().filter(|p| p.name != KEY_BIAS) {
            let Some(stored) = self.case.tensor(&format!("step{k}/{}", param.name)) else { continue };
            let stride = self.about(param, "step_stride").unwrap_or(1.0) as usize;
            let found = stepper.attached.params.download(param).unwrap();
            let initial = self.setup.initial(param);
            let (found, initial) = (found.iter().step_by(stride), initial.iter().step_by(stride));
            for ((&found, &initial), expected) in found.zip(initial).zip(&stored.values) {
                off.push(f64::from(found) - expected);
                way.push(expected - f64::from(initial));
            }
        }
        if !off.is_empty() {
            let off = norm(off.into_iter()) / norm(way.into_iter());
            checks.close(&format!("step{k}"), String::new, off, 0.0, self.tolerances.steps);
        }
    }

    /// Parameter values after `k` steps. A ReLU input within rounding of 0 (at 5e-7, say) may fall on either
    /// side: the gradients of one hidden unit then differ, and Adam makes steps of that. So 99.9 % of all
    /// elements are asked to be within their tolerance, and 99 % of each tensor's.
    fn stepped_params(&self, stepper: &Stepper<'_, B>, k: usize, checks: &mut Checks) {
        if self.case.is_padded() {
            return;
        }
        if self.tolerances.precision == Precision::Bf16 {
            return self.rounded_params(stepper, k, checks);
        }
        let mut all = Vec::new();
        for param in stepper.attached.params.layout().params().iter().filter(|p| p.name != KEY_BIAS) {
            let Some(stored) = self.case.tensor(&format!("step{k}/{}", param.name)) else { continue };
            let noise = self.about(param, &format!("step{k}_f32_vs_f64_max_abs")).unwrap_or(0.0);
            let stride = self.about(param, "step_stride").unwrap_or(1.0) as usize;
            let found = stepper.attached.params.download(param).unwrap();
            let sampled = found.iter().step_by(stride).zip(&stored.values);
            let tolerance = 5e-5 + 20.0 * noise;
            let ratios = sampled.map(|(&p, &expected)| (f64::from(p) - expected).abs() / tolerance);
            let mut ratios: Vec<f64> = ratios.collect();
            let worst = largest_but(&mut ratios, 100);
            checks.note(&format!("step{k} (each tensor)"), worst, || {
                format!("{}: the 99th percentile of error / tolerance is {worst}", param.name)
            });
            all.extend(ratios);
        }
        if !all.is_empty() {
            let worst = largest_but(&mut all, 1000);
            checks.note(&format!("step{k}"), worst, || format!("99.9th percentile {worst}"));
        }
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn gradient<B: Backend>(stepper: &Stepper<'_, B>, param: &Param) -> Vec<f32> {
    stepper.model().backend.to_host(stepper.grads().get(param))
}

/// The largest element when one of every `n` is left out.
fn largest_but(ratios: &mut [f64], n: usize) -> f64 {
    ratios.sort_by(f64::total_cmp);
    let kept = ratios.len() - ratios.len() / n;
    ratios[..kept].last().copied().unwrap_or(0.0)
}

fn l2(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}
