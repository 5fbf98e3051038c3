//! Numbers computed by the published PyTorch code ("golden" cases), and what it takes to compare with them.

pub mod case;
pub mod checks;
pub mod files;
pub mod forward;
pub mod guided;
pub mod probe;
pub mod setup;
pub mod statistics;
pub mod sven;
pub mod training;

use case::{Case, Result};
use checks::Checks;
use deepguard::ops::Backend;
use setup::Setup;

/// The type of a backend's activations and frozen weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    Bf16,
}

/// How far our numbers may lie from the stored ones: absolute, unless said otherwise.
#[derive(Clone, Copy)]
pub struct Tolerances {
    /// The precision of the backend that they are for.
    pub precision: Precision,
    pub losses: f64,
    pub scores: f64,
    /// Logits and what is made of them: log-sum-exps, row losses, KL divergences.
    pub logits: f64,
    pub hidden: f64,
    /// Norms of hidden states, relative.
    pub hidden_norm: f64,
    /// The norm of all gradients, relative.
    pub grad_norm: f64,
    /// Each gradient, where it is compared as a whole; relative to its norm.
    pub grad: f64,
    /// The change of parameters over some steps, relative to its norm.
    pub steps: f64,
    /// How far the logit of the published choice may lie below the best one.
    pub choice: f64,
}

impl Tolerances {
    fn of(case: &Case, precision: Precision) -> Self {
        let exact = |losses, scores, logits, grad_norm| Tolerances {
            precision,
            losses,
            scores,
            logits,
            hidden: logits,
            hidden_norm: 1e-3,
            grad_norm,
            grad: 0.0,
            steps: 0.0,
            choice: 0.0,
        };
        match precision {
            Precision::F32 if case.is_real_model() => exact(5e-4, 5e-4, 2e-3, 1e-2),
            Precision::F32 => exact(2e-5, 1e-5, 2e-4, 1e-4),
            Precision::Bf16 => Self::of_rounded(case),
        }
    }

    /// Each of some hundred roundings to 8 bits on the way through the layers adds an error of about 1/600 of
    /// a value's size, 1/50 together, where they are independent. Of a hundred thousand such errors the
    /// largest is some 5 times as large. The rest follows:
    /// - scores: the derivative of the sigmoid is at most 1/4, and its argument about 1;
    /// - losses: means over some sixty tokens, whose logits of size 1.6 are off by 0.03;
    /// - gradients: those of the analyzer are differences between secure and vulnerable functions, with what
    ///   the two have in common cancelled and its rounding left, and ReLUs near 0 may fall on either side.
    ///   They are a hundredth of the largest gradient;
    /// - steps: Adam's first has the length of the learning rate for every element, however small its
    ///   gradient. If one in thirty has another sign, the way is off by 2 / √30.
    fn of_rounded(case: &Case) -> Self {
        let size = |name| {
            let values = case.tensor(name).map_or(&[][..], |t| &t.values);
            (values.iter().map(|x| x * x).sum::<f64>() / values.len().max(1) as f64).sqrt()
        };
        let largest = 5.0 / 50.0;
        Tolerances {
            precision: Precision::Bf16,
            losses: 5e-3,
            scores: largest / 4.0,
            logits: largest * size("logits/lora"),
            hidden: largest * size("hidden/secure"),
            hidden_norm: 1.0 / 50.0,
            grad_norm: 0.05,
            grad: 0.3,
            steps: 0.36,
            choice: largest * size("logits/lora"),
        }
    }
}

/// Makes every comparison that a case allows.
pub fn run<B: Backend>(backend: B, precision: Precision, case: &Case, checks: &mut Checks) -> Result<()> {
    statistics::check(case, checks)?;
    if case.tensor("inputs/input_ids_secure").is_none() || case.json.get("losses").is_none() {
        return Ok(());
    }
    let (setup, tolerances) = (Setup::new(backend, case)?, Tolerances::of(case, precision));
    let kl_shifts = forward::check(case, &setup, tolerances, checks)?;
    training::check(case, &setup, tolerances, &kl_shifts, checks)?;
    guided::check(case, &setup, tolerances, checks)
}
