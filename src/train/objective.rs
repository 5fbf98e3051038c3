//! What is minimised: the joint objective (METHOD §6) or that of a baseline, and which terms have a gradient.

use crate::model::activations::Rows;
use crate::ops::loss::HeadWeights;
use crate::train::batch::{BatchPlan, Passes, PlanOptions, TokenPair, Totals};
use crate::train::method::Method;
use crate::train::results::RowResults;

/// Weights and options of the objective.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Objective {
    /// Which terms there are.
    pub method: Method,
    /// Wanted difference between the mean scores of secure and vulnerable functions.
    pub margin: f64,
    /// Weight of the margin loss, of SafeCoder's unlikelihood, or of SVEN's contrast.
    pub security_weight: f64,
    /// Weight of the KL divergence to the base model; 0 leaves out the base pass.
    pub kl_weight: f64,
    /// The KL divergence counts up to this; beyond, it has no gradient.
    pub kl_max: f64,
    /// Tokens with this id are no targets and do not count for the KL term.
    pub ignore_token: Option<u32>,
    /// Let the vulnerable pass reuse the secure pass's prefix.
    pub share_prefix: bool,
    /// Rows of each prefix; 0 for a method without.
    pub prefix: usize,
    /// Longest function in tokens.
    pub max_seq_len: usize,
    /// Seed of the dropout masks.
    pub seed: u64,
}

impl Default for Objective {
    /// The published weights.
    fn default() -> Self {
        Objective {
            method: Method::default(),
            margin: 0.5,
            security_weight: 0.5,
            kl_weight: 1.0,
            kl_max: 1.0,
            ignore_token: None,
            share_prefix: true,
            prefix: 0,
            max_seq_len: 1024,
            seed: 42,
        }
    }
}

/// The loss and its terms over one step or one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean next-token cross-entropy, nats: of the secure functions, of what the fixes brought to them
    /// (SafeCoder, CoSec), or of what the fixes changed in both functions, each under its own prefix (SVEN).
    pub generation: f64,
    /// `max(0, margin − (mean score secure − mean score vulnerable))`, SafeCoder's unlikelihood or SVEN's
    /// contrastive loss.
    pub security: f64,
    /// KL divergence to the base model, nats, up to `kl_max` where the method [limits](Method::limits_kl) it.
    pub kl: f64,
    /// The KL divergence before the limit.
    pub kl_before_clamp: f64,
    /// What is minimised.
    pub total: f64,
    /// Mean score of the secure functions' tokens.
    pub mean_score_secure: f64,
    /// Mean score of the vulnerable functions' tokens.
    pub mean_score_vulnerable: f64,
}

/// Sums over rows, from which the losses are made at the end of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    nll: f64,
    swept: f64,
    kl: f64,
    score_secure: f64,
    score_vulnerable: f64,
}

impl Sums {
    /// Figures of a sum.
    pub(super) const LEN: usize = 5;

    /// All of them, for [`Self::from_figures`].
    pub(super) fn figures(&self) -> [f64; Self::LEN] {
        let Sums { nll, swept, kl, score_secure, score_vulnerable } = *self;
        [nll, swept, kl, score_secure, score_vulnerable]
    }

    pub(super) fn from_figures([nll, swept, kl, score_secure, score_vulnerable]: [f64; Self::LEN]) -> Self {
        Sums { nll, swept, kl, score_secure, score_vulnerable }
    }

    /// Those of a micro-batch.
    pub(super) fn of(plan: &BatchPlan, results: &RowResults) -> Self {
        let sum = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>();
        // Rows without a weight may have no loss either.
        let weighted = |weights: &[f32], losses: &[f32]| -> f64 {
            let rows = weights.iter().zip(losses).take(plan.saved_rows).filter(|(w, _)| **w != 0.0);
            rows.map(|(&w, &loss)| f64::from(w) * f64::from(loss)).sum()
        };
        let mut sums = Sums {
            nll: weighted(&plan.w_ce, &results.nll),
            kl: weighted(&plan.w_kl, &results.kl),
            swept: plan.swept.iter().map(|swept| swept.loss(&results.nll)).sum::<f64>(),
            ..Sums::default()
        };
        if !results.scores.is_empty() {
            sums.score_secure = sum(&results.scores[..plan.secure_rows]);
            let vulnerable = plan.pairs.iter().flat_map(|pair| plan.vulnerable_rows(pair));
            sums.score_vulnerable = vulnerable.map(|row| f64::from(results.scores[row])).sum::<f64>();
        }
        sums
    }
}

/// Micro-batches are added up in their order, whoever has computed them.
impl std::iter::Sum for Sums {
    fn sum<I: Iterator<Item = Sums>>(all: I) -> Sums {
        all.fold(Sums::default(), |a, b| Sums {
            nll: a.nll + b.nll,
            swept: a.swept + b.swept,
            kl: a.kl + b.kl,
            score_secure: a.score_secure + b.score_secure,
            score_vulnerable: a.score_vulnerable + b.score_vulnerable,
        })
    }
}

/// Which pieces of the loss have a gradient; known for certain only when a step's last micro-batch is
/// through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Regime {
    pub(super) hinge_active: bool,
    pub(super) kl_active: bool,
}

impl Objective {
    /// What the cross-entropy is a mean over: targets of the secure functions, or functions, each of which is
    /// a mean over its changed targets.
    fn counted(&self, totals: Totals) -> usize {
        self.functions(totals).unwrap_or(totals.targets)
    }

    /// What the KL divergence is a mean over: rows of the secure functions, or functions.
    fn compared(&self, totals: Totals) -> usize {
        self.functions(totals).unwrap_or(totals.kl_rows)
    }

    /// The functions that a method counts which looks at what a fix changed.
    fn functions(&self, totals: Totals) -> Option<usize> {
        match self.method {
            Method::SafeCoder | Method::Sven => Some(totals.functions),
            Method::CoSec => Some(totals.fixed_functions),
            Method::DeepGuard | Method::Ce => None,
        }
    }

    /// Factors of the losses of all rows.
    pub(super) fn head_weights(&self, totals: Totals, kl_active: bool) -> HeadWeights {
        let mean = |weight: f64, n: usize| (weight / n.max(1) as f64) as f32;
        let kl = if kl_active { mean(self.kl_weight, self.compared(totals)) } else { 0.0 };
        HeadWeights { cross_entropy: mean(1.0, self.counted(totals)), kl }
    }

    pub(super) fn losses(&self, sums: Sums, totals: Totals) -> Losses {
        let mean = |sum: f64, n: usize| if n == 0 { 0.0 } else { sum / n as f64 };
        let generation = mean(sums.nll, self.counted(totals));
        let mean_score_secure = mean(sums.score_secure, totals.secure_tokens);
        let mean_score_vulnerable = mean(sums.score_vulnerable, totals.vulnerable_tokens);
        let difference = self.margin - (mean_score_secure - mean_score_vulnerable);
        // Not `max`, which would turn a NaN into 0.
        let margin_loss = if difference < 0.0 { 0.0 } else { difference };
        let security =
            if self.method.reads_changes() { mean(sums.swept, totals.functions) } else { margin_loss };
        let kl_before_clamp = mean(sums.kl, self.compared(totals));
        let kl = if self.is_beyond_limit(kl_before_clamp) { self.kl_max } else { kl_before_clamp };
        let counted_kl = if kl < 0.0 { 0.0 } else { kl };
        let total = generation + self.security_weight * security + self.kl_weight * counted_kl;
        Losses { generation, security, kl, kl_before_clamp, total, mean_score_secure, mean_score_vulnerable }
    }

    pub(super) fn regime(&self, losses: &Losses) -> Regime {
        Regime {
            hinge_active: self.method.has_guard() && losses.security > 0.0 && self.security_weight > 0.0,
            kl_active: !self.is_beyond_limit(losses.kl_before_clamp),
        }
    }

    fn is_beyond_limit(&self, kl: f64) -> bool {
        self.method.limits_kl() && kl > self.kl_max
    }

    /// The regime that a first step is expected to have.
    pub(super) fn first_regime(&self) -> Regime {
        Regime { hinge_active: self.method.has_guard() && self.security_weight > 0.0, kl_active: true }
    }

    /// As [`BatchPlan::capacity`], of the passes that this objective has.
    pub fn capacity<'a>(
        &self,
        pairs: impl Iterator<Item = &'a TokenPair>,
        batch_size: usize,
    ) -> (Rows, usize) {
        let base = if self.kl_weight == 0.0 { 0 } else { 1 };
        let (both, prefix) = (self.method.reads_vulnerable(), self.prefix);
        if self.method.has_prefixes() {
            let rows = |s, v| [2 * (s + v) + 4 * prefix, 2 * (s + v) + 4 * prefix, 3 * (s + v) + 4 * prefix];
            return BatchPlan::capacity_of(pairs, batch_size, rows);
        }
        // A function without a rival in training has one in validation.
        let rows = |s, v| [if both { s + v } else { s }, s + v, s + v + base * s];
        BatchPlan::capacity_of(pairs, batch_size, rows)
    }

    pub(super) fn plan_options(&self, evaluation: bool) -> PlanOptions {
        let passes = match self.method {
            Method::SafeCoder => Passes::Changed,
            Method::Sven => Passes::Controls { prefix: self.prefix },
            Method::CoSec => Passes::Fixed,
            Method::Ce if !evaluation => Passes::Secure,
            Method::Ce | Method::DeepGuard => Passes::Compared,
        };
        PlanOptions {
            passes,
            share_prefix: self.share_prefix,
            predict_suffix: evaluation,
            ignore_token: self.ignore_token,
            max_seq_len: self.max_seq_len,
        }
    }
}
