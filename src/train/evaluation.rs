//! Validation: the losses, and what they mean for pairs.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::Backend;
use crate::train::batch::{BatchPlan, PairRows, TokenPair, Totals};
use crate::train::packing::Packing;
use crate::train::step::{RowResults, Stepper};

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// What is minimised.
    pub total: f64,
    /// Cross-entropy, nats per token: of the secure functions, or of what the fixes changed, as
    /// [`Losses::generation`](crate::train::step::Losses) has it.
    pub generation: f64,
    /// Margin loss, SafeCoder's unlikelihood or SVEN's contrastive loss; `None`, as other figures below,
    /// where the method has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<f64>,
    /// KL divergence to the base model, at most its limit, nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Share of pairs whose secure function is likelier than the vulnerable one, per token.
    pub preference_accuracy: f64,
    /// Mean over pairs of (log-likelihood per token of the secure function − of the vulnerable one), nats.
    pub preference_margin: f64,
    /// Mean analyzer score of secure functions' tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_score_secure: Option<f64>,
    /// Mean analyzer score of vulnerable functions' tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_score_vulnerable: Option<f64>,
    /// Share of pairs whose secure function has the higher mean score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_accuracy: Option<f64>,
    /// Pairs evaluated.
    pub pairs: usize,
    /// Mean attention of the guard to each of its layers, over all tokens; empty if it does not attend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_attention: Vec<f64>,
}

/// One pair's figures.
struct PairFigures {
    /// Mean negative log-likelihood per token: secure, vulnerable.
    nll: [f64; 2],
    /// Mean score: secure, vulnerable; not a number without a guard.
    score: [f64; 2],
}

fn mean(values: impl Iterator<Item = f32>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + f64::from(v), n + 1));
    sum / n.max(1) as f64
}

fn pair_figures(plan: &BatchPlan, results: &RowResults, pair: &PairRows) -> PairFigures {
    let rows = |row: &usize| plan.targets[*row] >= 0;
    let secure = || pair.secure.clone();
    // The last shared row predicts the secure function's next token; the suffix repeats it for the vulnerable
    // one.
    let vulnerable = || plan.vulnerable_rows(pair);
    let score = |row: usize| results.scores.get(row).copied().unwrap_or(f32::NAN);
    PairFigures {
        nll: [
            mean(secure().filter(rows).map(|r| results.nll[r])),
            mean(vulnerable().filter(rows).map(|r| results.nll[r])),
        ],
        score: [mean(secure().map(score)), mean(vulnerable().map(score))],
    }
}

/// Evaluates `pairs` in micro-batches as `packing` cuts them, until `stop`, asked before every batch, says
/// so.
///
/// # Errors
/// Kind `Interrupted` if it did.
pub fn evaluate<B: Backend>(
    stepper: &mut Stepper<'_, B>,
    pairs: &[TokenPair],
    packing: Packing,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Evaluation> {
    let mut batches = Vec::new();
    for batch in packing.cut(pairs, &stepper.objective, true) {
        if stop() {
            return Err(Error::interrupted());
        }
        batches.push(stepper.evaluate(&batch)?);
    }
    let ignore = stepper.objective.ignore_token;
    let totals: Totals = pairs.iter().map(|pair| pair.totals(ignore)).sum();
    let losses = stepper.losses_of(&batches, totals);
    let of_batch = |(plan, results): &(BatchPlan, RowResults)| -> Vec<PairFigures> {
        plan.pairs.iter().map(|pair| pair_figures(plan, results, pair)).collect()
    };
    let figures: Vec<PairFigures> = batches.iter().flat_map(of_batch).collect();
    let share = |holds: &dyn Fn(&PairFigures) -> bool| {
        figures.iter().filter(|f| holds(f)).count() as f64 / figures.len().max(1) as f64
    };
    let method = stepper.objective.method;
    let guarded = |figure: f64| method.has_guard().then_some(figure);
    Ok(Evaluation {
        total: losses.total,
        generation: losses.generation,
        security: method.has_security().then_some(losses.security),
        kl: method.has_kl().then_some(losses.kl),
        preference_accuracy: share(&|f| f.nll[0] < f.nll[1]),
        preference_margin: figures.iter().map(|f| f.nll[1] - f.nll[0]).sum::<f64>()
            / figures.len().max(1) as f64,
        mean_score_secure: guarded(losses.mean_score_secure),
        mean_score_vulnerable: guarded(losses.mean_score_vulnerable),
        separation_accuracy: guarded(share(&|f| f.score[0] > f.score[1])),
        pairs: pairs.len(),
        layer_attention: layer_attention(&batches, stepper.attached.taps()),
    })
}

/// The mean over all rows.
fn layer_attention(batches: &[(BatchPlan, RowResults)], taps: usize) -> Vec<f64> {
    let rows = || batches.iter().flat_map(|(_, results)| results.attention.chunks_exact(taps.max(1)));
    let mean_of = |tap: usize| mean(rows().map(|weights| weights[tap]));
    let attends = rows().next().is_some();
    (0..taps).filter(|_| attends).map(mean_of).collect()
}
