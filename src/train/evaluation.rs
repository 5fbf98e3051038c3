//! Validation: the losses, and what they mean for pairs.

use serde::{Deserialize, Serialize};

use crate::dist::World;
use crate::error::{Error, Result};
use crate::ops::Backend;
use crate::train::batch::{BatchPlan, PairRows, TokenPair, Totals};
use crate::train::division;
use crate::train::objective::Sums;
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
#[derive(Clone, Copy)]
struct PairFigures {
    /// Mean negative log-likelihood per token: secure, vulnerable.
    nll: [f64; 2],
    /// Mean score: secure, vulnerable; not a number without a guard.
    score: [f64; 2],
}

/// What an evaluation keeps of a micro-batch.
struct BatchFigures {
    sums: Sums,
    pairs: Vec<PairFigures>,
    /// `[taps]` sums of the guard's attention over all rows.
    attention: Vec<f64>,
    /// Rows with attention.
    rows: f64,
}

impl PairFigures {
    const LEN: usize = 4;
}

impl BatchFigures {
    /// How many numbers they are.
    fn len(pairs: usize, taps: usize) -> usize {
        Sums::LEN + PairFigures::LEN * pairs + taps + 1
    }

    fn of(plan: &BatchPlan, results: &RowResults, taps: usize) -> Self {
        let rows = results.attention.chunks_exact(taps.max(1));
        let sum = |tap: usize| rows.clone().map(|weights| f64::from(weights[tap])).sum();
        BatchFigures {
            sums: Sums::of(plan, results),
            pairs: plan.pairs.iter().map(|pair| pair_figures(plan, results, pair)).collect(),
            attention: (0..taps).map(sum).collect(),
            rows: rows.len() as f64,
        }
    }

    /// All of them, for [`Self::from_numbers`].
    fn to_numbers(&self) -> Vec<f64> {
        let pairs =
            self.pairs.iter().flat_map(|PairFigures { nll, score }| [nll[0], nll[1], score[0], score[1]]);
        let numbers = self.sums.figures().into_iter().chain(pairs);
        numbers.chain(self.attention.iter().copied()).chain([self.rows]).collect()
    }

    /// Those of a micro-batch of so many pairs; `None` if they are not as many as they should be.
    fn from_numbers(numbers: &[f64], pairs: usize) -> Option<Self> {
        let (sums, rest) = numbers.split_first_chunk()?;
        let (of_pairs, rest) = rest.split_at_checked(PairFigures::LEN * pairs)?;
        let (rows, attention) = rest.split_last()?;
        let (of_pairs, _) = of_pairs.as_chunks::<{ PairFigures::LEN }>();
        let pair = |&[secure, vulnerable, score_secure, score_vulnerable]: &[f64; PairFigures::LEN]| {
            PairFigures { nll: [secure, vulnerable], score: [score_secure, score_vulnerable] }
        };
        Some(BatchFigures {
            sums: Sums::from_figures(*sums),
            pairs: of_pairs.iter().map(pair).collect(),
            attention: attention.to_vec(),
            rows: *rows,
        })
    }
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

/// Evaluates `pairs` in micro-batches as `packing` cuts them, each on one rank of `world`. What is found is
/// the same on all of them, and for any number of them. `stop` is asked before every micro-batch.
///
/// # Errors
/// Kind `Interrupted` if it, or that of any rank, says so; kind `Cluster` if another rank fails.
pub fn evaluate<B: Backend>(
    stepper: &mut Stepper<'_, B>,
    pairs: &[TokenPair],
    packing: Packing,
    world: &mut World,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Evaluation> {
    let micro_batches = packing.cut(pairs, &stepper.objective, true);
    let batches = batch_figures(stepper, &micro_batches, world, stop)?;
    let ignore = stepper.objective.ignore_token;
    let totals: Totals = pairs.iter().map(|pair| pair.totals(ignore)).sum();
    let losses = stepper.objective.losses(batches.iter().map(|batch| batch.sums).sum(), totals);
    let figures: Vec<PairFigures> = batches.iter().flat_map(|batch| batch.pairs.iter().copied()).collect();
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
        layer_attention: layer_attention(&batches),
    })
}

/// The figures of all micro-batches, of which this rank computes its own.
fn batch_figures<B: Backend>(
    stepper: &mut Stepper<'_, B>,
    micro_batches: &[Vec<&TokenPair>],
    world: &mut World,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Vec<BatchFigures>> {
    let (owners, taps) = (division::owners(micro_batches, world), stepper.attached.taps());
    // A rank that ends alone would leave the others waiting: all hear of it at the end.
    let mut stops = vec![0.0; world.ranks()];
    let mut numbers = Vec::new();
    for (i, pairs) in micro_batches.iter().enumerate() {
        let (start, own) = (numbers.len(), owners[i] == world.rank());
        numbers.resize(start + BatchFigures::len(pairs.len(), taps), 0.0);
        if own && stop() {
            stops[world.rank()] = 1.0;
        }
        if own && stops[world.rank()] == 0.0 {
            world.go_on(&format!("validation {}", i + 1));
            let (plan, results) = stepper.evaluate(pairs)?;
            numbers[start..].copy_from_slice(&BatchFigures::of(&plan, &results, taps).to_numbers());
        }
    }
    let found = numbers.len();
    numbers.extend(stops);
    division::gather(world, "validation", &mut numbers)?;
    if numbers[found..].iter().any(|stops| *stops != 0.0) {
        return Err(Error::interrupted());
    }
    let mut rest = &numbers[..found];
    let of_batch = |pairs: &Vec<&TokenPair>| {
        let (own, others) = rest.split_at_checked(BatchFigures::len(pairs.len(), taps))?;
        rest = others;
        BatchFigures::from_numbers(own, pairs.len())
    };
    let figures: Option<Vec<BatchFigures>> = micro_batches.iter().map(of_batch).collect();
    figures.ok_or_else(|| Error::internal("an evaluation with too few figures"))
}

/// The mean over all rows; empty where nothing attends.
fn layer_attention(batches: &[BatchFigures]) -> Vec<f64> {
    let rows: f64 = batches.iter().map(|batch| batch.rows).sum();
    let taps = batches.first().map_or(0, |batch| batch.attention.len());
    let mean_of = |tap: usize| batches.iter().map(|batch| batch.attention[tap]).sum::<f64>() / rows;
    (0..taps).filter(|_| rows > 0.0).map(mean_of).collect()
}
