//! Numbers computed by the published PyTorch code ("golden" cases), and what it takes to compare with them.

pub mod case;
pub mod checks;
pub mod forward;
pub mod guided;
pub mod probe;
pub mod setup;
pub mod statistics;
pub mod training;

use case::{Case, Result};
use checks::Checks;
use setup::Setup;

/// How far our f32 numbers may lie from the stored ones: absolute, unless said otherwise.
#[derive(Clone, Copy)]
pub struct Tolerances {
    pub losses: f64,
    pub scores: f64,
    /// Logits and what is made of them: log-sum-exps, row losses, KL divergences.
    pub logits: f64,
    pub hidden: f64,
    /// Relative.
    pub grad_norm: f64,
}

impl Tolerances {
    fn of(case: &Case) -> Self {
        if case.is_real_model() {
            Tolerances { losses: 5e-4, scores: 5e-4, logits: 2e-3, hidden: 2e-3, grad_norm: 1e-2 }
        } else {
            Tolerances { losses: 2e-5, scores: 1e-5, logits: 2e-4, hidden: 2e-4, grad_norm: 1e-4 }
        }
    }
}

/// Makes every comparison that a case allows.
pub fn run(case: &Case, checks: &mut Checks) -> Result<()> {
    statistics::check(case, checks)?;
    if case.tensor("inputs/input_ids_secure").is_none() || case.json.get("losses").is_none() {
        return Ok(());
    }
    let (setup, tolerances) = (Setup::new(case)?, Tolerances::of(case));
    let kl_shifts = forward::check(case, &setup, tolerances, checks)?;
    training::check(case, &setup, tolerances, &kl_shifts, checks)?;
    guided::check(case, &setup, tolerances, checks)
}
