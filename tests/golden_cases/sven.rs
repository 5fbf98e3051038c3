//! SVEN as the published trainer computes it: `tests/golden/sven` has its numbers, and the script that makes
//! them.

use deepguard::attached::Attached;
use deepguard::model::Transformer;
use deepguard::model::activations::Recompute;
use deepguard::model::params::Param;
use deepguard::model::prefix::{CONTROLS, PrefixConfig};
use deepguard::ops::Backend;
use deepguard::train::Method;
use deepguard::train::batch::TokenPair;
use deepguard::train::changes::Changes;
use deepguard::train::step::{Losses, Objective, Stepper, Update};

use crate::golden_cases::Precision;
use crate::golden_cases::case::{Case, Result};
use crate::golden_cases::checks::Checks;

/// How far our numbers may lie from the published ones.
struct Limits {
    /// Of a loss that is at least 1, relative; of a smaller one, absolute.
    losses: f64,
    /// Of every element of a gradient, relative to the largest; of a rounded one, of the whole, relative to
    /// its norm.
    gradients: f64,
    /// Of parameters after all steps, absolute; of rounded ones, of the way, relative to its length.
    steps: f64,
}

impl Limits {
    /// In f32, a parameter's tolerance is 1/500 of a step's learning rate. With 8 bits, the log-likelihood of
    /// a token is off by some 0.03 (see [`Tolerances`](crate::golden_cases::Tolerances)), and a contrast may
    /// be that of a single token under two controls, with a slope of about 1/2; three times that are allowed.
    fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Limits { losses: 1e-5, gradients: 1e-5, steps: 2e-5 },
            Precision::Bf16 => Limits { losses: 0.06, gradients: 0.1, steps: 0.36 },
        }
    }
}

/// A case, and the model and pairs that it is of.
struct Sven<'a, B: Backend> {
    case: &'a Case,
    model: &'a Transformer<B>,
    pairs: Vec<TokenPair>,
    precision: Precision,
    limits: Limits,
}

/// Makes every comparison that a case allows.
pub fn run<B: Backend>(backend: B, precision: Precision, case: &Case, checks: &mut Checks) -> Result<()> {
    let name = case.text("model").ok_or("the case names no model")?;
    let model = Transformer::load(backend, &case.folder.join("models").join(name))?;
    let pairs = (0..3).map(|i| pair(case, i)).collect::<Result<Vec<_>>>()?;
    let sven = Sven { case, model: &model, pairs, precision, limits: Limits::of(precision) };
    for i in 0..sven.pairs.len() {
        sven.functions(i, checks)?;
    }
    sven.steps(checks)
}

fn pair(case: &Case, i: usize) -> Result<TokenPair> {
    let tokens =
        |side| Ok::<_, Box<dyn std::error::Error>>(case.required(&format!("tokens/{i}/{side}"))?.ids());
    let changed = |side| -> Result<Vec<bool>> {
        Ok(case.required(&format!("changed/{i}/{side}"))?.values.iter().map(|&mark| mark == 1.0).collect())
    };
    let changes = Changes { secure: changed(CONTROLS[0])?, vulnerable: changed(CONTROLS[1])? };
    Ok(TokenPair { changes: Some(changes), ..TokenPair::new(i, tokens(CONTROLS[0])?, tokens(CONTROLS[1])?) })
}

/// The pair without what the fix changed of the other function, which then has no losses.
fn only(pair: &TokenPair, function: usize) -> TokenPair {
    let mut changes = pair.changes.clone().expect("a pair with changes");
    let other = if function == 0 { &mut changes.vulnerable } else { &mut changes.secure };
    other.fill(false);
    TokenPair { changes: Some(changes), ..pair.clone() }
}

impl<'a, B: Backend> Sven<'a, B> {
    fn number(&self, path: &[&str]) -> Result<f64> {
        self.case.number(path).ok_or_else(|| format!("there is no {}", path.join(".")).into())
    }

    fn stepper(&self) -> Result<Stepper<'a, B>> {
        let prefix = self.number(&["prefix"])? as usize;
        let config = PrefixConfig { len: prefix, dropout: self.number(&["dropout"])? as f32 };
        let mut attached = Attached::with_prefixes(&self.model.backend, &self.model.config, config, 2)?;
        for (param, name) in attached.params.layout().params().to_vec().iter().zip(CONTROLS) {
            attached.params.upload(param, &self.case.required(&format!("prefix/{name}"))?.f32());
        }
        let number = |name| self.number(&[name]);
        let mut objective = Objective::default();
        objective.method = Method::Sven;
        objective.prefix = prefix;
        (objective.security_weight, objective.kl_weight) = (number("security_weight")?, number("kl_weight")?);
        (objective.max_seq_len, objective.seed) = (number("max_seq_len")? as usize, number("seed")? as u64);
        let capacity = objective.capacity(self.pairs.iter(), 1);
        Ok(Stepper::new(self.model, attached, objective, None, capacity, &[Recompute::Nothing])?)
    }

    /// Losses and gradients of both functions of a pair, one by one and together.
    fn functions(&self, i: usize, checks: &mut Checks) -> Result<()> {
        let mut stepper = self.stepper()?;
        let mut sums = CONTROLS.map(|_| Vec::new());
        for (function, name) in CONTROLS.iter().enumerate() {
            let place = format!("pair {i} {name}");
            let pair = only(&self.pairs[i], function);
            // The masks of dropout are those of the first step.
            let losses = stepper.gradients(&[vec![&pair]], Some(0))?;
            self.losses(2 * i + function, &losses, &place, checks)?;
            for ((control, sum), param) in CONTROLS.iter().zip(&mut sums).zip(params(&stepper)) {
                let stored = &self.case.required(&format!("gradient/{i}/{name}/{control}"))?.values;
                self.gradient(&stepper, &param, stored, &format!("{place} by {control}"), checks);
                sum.resize(stored.len(), 0.0);
                sum.iter_mut().zip(stored).for_each(|(sum, g)| *sum += g / 2.0);
            }
            self.divergences(&mut stepper, &pair, 2 * i + function, &place, checks)?;
        }
        stepper.gradients(&[vec![&self.pairs[i]]], Some(0))?;
        for ((control, sum), param) in CONTROLS.iter().zip(&sums).zip(params(&stepper)) {
            self.gradient(&stepper, &param, sum, &format!("pair {i} by {control}"), checks);
        }
        Ok(())
    }

    fn losses(&self, function: usize, found: &Losses, place: &str, checks: &mut Checks) -> Result<()> {
        let kl = self.term(function, "kl_own")? + self.term(function, "kl_other")?;
        for (name, found, expected) in [
            ("cross-entropy", found.generation, self.term(function, "cross_entropy")?),
            ("contrast", found.security, self.term(function, "contrast")?),
            ("KL", found.kl, kl),
            ("total", found.total, self.term(function, "total")?),
        ] {
            self.loss(&format!("{name} of {place}"), found, expected, checks);
        }
        Ok(())
    }

    /// The KL divergence under each control by itself, which only an evaluation shows, and that has no
    /// dropout.
    fn divergences(
        &self,
        stepper: &mut Stepper<'a, B>,
        pair: &TokenPair,
        function: usize,
        place: &str,
        checks: &mut Checks,
    ) -> Result<()> {
        if self.number(&["dropout"])? != 0.0 {
            return Ok(());
        }
        let (plan, rows) = stepper.evaluate(&[pair])?;
        let mut found = CONTROLS.map(|_| 0.0);
        for (row, (&kl, &weight)) in
            rows.kl.iter().zip(&plan.w_kl).enumerate().filter(|(_, (_, w))| **w != 0.0)
        {
            let behind = plan.prefixes.partition_point(|prefix| prefix.row <= row) - 1;
            found[plan.prefixes[behind].control] += f64::from(kl) * f64::from(weight);
        }
        let own = function % 2;
        for (name, found) in [("kl_own", found[own]), ("kl_other", found[1 - own])] {
            self.loss(&format!("{name} of {place}"), found, self.term(function, name)?, checks);
        }
        Ok(())
    }

    /// A loss of a function that the published code has.
    fn term(&self, function: usize, name: &str) -> Result<f64> {
        let losses = self.case.json["losses"].get(function).ok_or("a function without losses")?;
        losses[name].as_f64().ok_or_else(|| format!("a function without {name}").into())
    }

    fn loss(&self, place: &str, found: f64, expected: f64, checks: &mut Checks) {
        let size = if self.precision == Precision::F32 { 1.0 } else { expected.abs().max(1.0) };
        checks.close("losses", || place.to_owned(), found, expected, self.limits.losses * size);
    }

    fn gradient(
        &self,
        stepper: &Stepper<'a, B>,
        param: &Param,
        expected: &[f64],
        place: &str,
        checks: &mut Checks,
    ) {
        let found = self.model.backend.to_host(stepper.grads().get(param));
        checks.holds("gradients", found.len() == expected.len(), || {
            format!("{place}: {} elements", found.len())
        });
        if self.precision == Precision::Bf16 {
            let off = distance(&found, expected) / norm(expected);
            checks.close("gradients", || place.to_owned(), off, 0.0, self.limits.gradients);
            return;
        }
        let tolerance = self.limits.gradients * expected.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        for (k, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let place = || format!("{place}, element {k}");
            checks.close("gradients", place, found.into(), expected, tolerance);
        }
    }

    /// A step for each pair. That the published loop clips once more, between the functions of a step, makes
    /// no difference in one case at least.
    fn steps(&self, checks: &mut Checks) -> Result<()> {
        let mut stepper = self.stepper()?;
        for (k, pair) in self.pairs.iter().enumerate() {
            let of_step = |name: &str| self.case.json[name].get(k).and_then(serde_json::Value::as_f64);
            let update = Update {
                lr: of_step("learning_rates").ok_or("a step without a learning rate")?,
                weight_decay: self.number(&["weight_decay"])?,
                max_grad_norm: self.number(&["max_grad_norm"])?,
            };
            let report = stepper.step(&[vec![pair]], k as u32, update)?;
            let expected = of_step("grad_norms").ok_or("a step without a norm")?;
            let tolerance = self.limits.gradients * expected;
            checks.close("norms", || format!("step {k}"), report.grad_norm, expected, tolerance);
        }
        for (param, name) in params(&stepper).iter().zip(CONTROLS) {
            let expected = &self.case.required(&format!("stepped/{name}"))?.values;
            let found = stepper.attached.params.download(param)?;
            if self.precision == Precision::Bf16 {
                let initial = self.case.required(&format!("prefix/{name}"))?.f32();
                let off = distance(&found, expected) / distance(&initial, expected);
                checks.close("steps", || name.to_owned(), off, 0.0, self.limits.steps);
                continue;
            }
            for (k, (&found, &expected)) in found.iter().zip(expected).enumerate() {
                let place = || format!("{name}, element {k}");
                checks.close("steps", place, found.into(), expected, self.limits.steps);
            }
        }
        Ok(())
    }
}

fn params<B: Backend>(stepper: &Stepper<'_, B>) -> Vec<Param> {
    stepper.attached.params.layout().params().to_vec()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(found: &[f32], expected: &[f64]) -> f64 {
    norm(
        &found.iter().zip(expected).map(|(&found, expected)| f64::from(found) - expected).collect::<Vec<_>>(),
    )
}
