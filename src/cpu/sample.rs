//! Guidance and sampling, as written in `ops/sample.rs`.

use super::{Cpu, math, parallel};
use crate::ops::philox::{philox, unit};
use crate::ops::sample::{
    Adjustment, SAMPLING_SITE, Sample, Sampling, check_adjust, check_guide, check_sample, check_verify, mark,
};
use crate::ops::{Mut, Ref};

/// The token with the largest logit, the first of equals; `u32::MAX` if any logit is NaN.
fn argmax(logits: &[f32]) -> u32 {
    let max = math::max(logits);
    let sound = !logits.iter().any(|x| x.is_nan());
    let at = logits.iter().position(|&x| x == max).filter(|_| sound);
    at.map_or(u32::MAX, |at| at as u32)
}

/// The `k` tokens with the largest logits, in descending order (ties by token).
fn top_k(logits: &[f32], k: usize) -> Vec<u32> {
    let descending = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
    let bound = kth_block_max(logits, k);
    let mut order: Vec<u32> = Vec::new();
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        if bound.is_none_or(|bound| math::max(values) >= bound) {
            let tokens = (block * BLOCK) as u32..;
            order.extend(tokens.zip(values).filter(|&(_, &x)| bound.is_none_or(|b| x >= b)).map(|(t, _)| t));
        }
    }
    if k < order.len() {
        order.select_nth_unstable_by(k, descending);
        order.truncate(k);
    }
    order.sort_unstable_by(descending);
    order
}

/// Logits whose maximum is taken together.
const BLOCK: usize = 64;

/// The `k`-th largest of the blocks' maxima: at least `k` logits are not below it. `None` where there are
/// fewer blocks.
fn kth_block_max(logits: &[f32], k: usize) -> Option<f32> {
    let mut maxima: Vec<f32> = logits.chunks(BLOCK).map(math::max).collect();
    let at = k.checked_sub(1).filter(|&at| at < maxima.len())?;
    let (_, kth, _) = maxima.select_nth_unstable_by(at, |a, b| b.total_cmp(a));
    Some(*kth)
}

/// Candidates that are looked at first where top-k keeps all tokens: sorting a vocabulary for a draw that
/// ends among the likeliest takes longer than the model's pass.
const LIKELIEST: usize = 256;

/// Draws one token, which has the probability that is returned; `random` is uniform in [0, 1).
pub(super) fn draw(logits: &[f32], s: Sampling, random: f32) -> (u32, f32) {
    let best = argmax(logits);
    if s.temperature == 0.0 || best == u32::MAX {
        return (best, 1.0);
    }
    let largest = f64::from(logits[best as usize]);
    let weight = |x: f32| ((f64::from(x) - largest) / f64::from(s.temperature)).exp();
    if s.top_k != 0 {
        let candidates = Candidates::new(logits, s.top_k, weight);
        let total = candidates.total();
        return candidates.draw(total, s, random);
    }
    let total = logits.iter().map(|&x| weight(x)).sum();
    let few = Candidates::new(logits, LIKELIEST, weight);
    let needed = if s.top_p < 1.0 { f64::from(s.top_p) } else { f64::from(random) };
    // A margin for the rounding of sums of other orders.
    if few.total() > (needed + 1e-9) * total {
        return few.draw(total, s, random);
    }
    Candidates::new(logits, logits.len(), weight).draw(total, s, random)
}

/// The likeliest tokens, in descending order, and their weights.
struct Candidates {
    tokens: Vec<u32>,
    weights: Vec<f64>,
}

impl Candidates {
    fn new(logits: &[f32], k: usize, weight: impl Fn(f32) -> f64) -> Self {
        let tokens = top_k(logits, k);
        let weights = tokens.iter().map(|&token| weight(logits[token as usize])).collect();
        Candidates { tokens, weights }
    }

    fn total(&self) -> f64 {
        self.weights.iter().sum()
    }

    /// The drawn token with its probability; `total` is the weight of all tokens that top-k keeps, of which
    /// these are as many as the draw needs.
    fn draw(&self, total: f64, s: Sampling, random: f32) -> (u32, f32) {
        let Candidates { tokens, weights } = self;
        // A token is kept while those before it have less than top_p: the one that crosses the limit is in.
        let mut before = 0.0;
        let kept = weights.iter().take_while(|&&w| {
            let keep = before < f64::from(s.top_p) * total;
            before += w;
            keep
        });
        let kept = kept.count().max(1);
        let mass = if s.top_p < 1.0 { weights[..kept].iter().sum::<f64>() } else { total };
        let mut left = f64::from(random) * mass;
        let drawn = weights[..kept].iter().position(|&w| {
            let here = left < w;
            left -= w;
            here
        });
        let drawn = drawn.unwrap_or(kept - 1);
        (tokens[drawn], (weights[drawn] / mass) as f32)
    }
}

/// The probability of a token at temperature 1; 0 beyond the vocabulary.
fn probability(logits: &[f32], token: u32) -> f64 {
    let largest = f64::from(math::max(logits));
    let weight = |&x: &f32| (f64::from(x) - largest).exp();
    let of_token = logits.get(token as usize).map_or(0.0, weight);
    of_token / logits.iter().map(weight).sum::<f64>()
}

impl Sample for Cpu {
    fn adjust(
        &self,
        logits: Mut<'_, Self, f32>,
        marks: Mut<'_, Self, u8>,
        last: Ref<'_, Self, u32>,
        adjustment: Adjustment,
    ) {
        if !self.accepts(check_adjust(last.len(), logits.len(), marks.len())) || last.is_empty() {
            return;
        }
        let (last, logits) = (last.as_slice(), logits.into_slice());
        let width = logits.len() / last.len();
        let (penalty, suppressed) = (adjustment.repetition_penalty, adjustment.suppressed());
        parallel::rows2(logits, width, marks.into_slice(), width, |i, logits, marks| {
            if let Some(mark) = marks.get_mut(last[i] as usize) {
                *mark |= mark::SEEN;
            }
            for (logit, &mark) in logits.iter_mut().zip(&*marks).filter(|(_, mark)| **mark != 0) {
                if mark & mark::SEEN != 0 {
                    *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
                }
                if mark & suppressed != 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        });
    }

    fn guide(
        &self,
        logits: Mut<'_, Self, f32>,
        stats: Ref<'_, Self, f32>,
        strength: Ref<'_, Self, f32>,
        boost: f32,
    ) {
        if !self.accepts(check_guide(logits.len(), stats.len(), strength.len())) || logits.is_empty() {
            return;
        }
        let (stats, strength) = (stats.as_slice(), strength.as_slice());
        parallel::rows(logits.into_slice(), stats.len(), |i, row| {
            for (logit, &s) in row.iter_mut().zip(stats) {
                *logit += s * strength[i] + boost * s.max(0.0);
            }
        });
    }

    fn sample(
        &self,
        tokens: Mut<'_, Self, u32>,
        probabilities: Option<Mut<'_, Self, f32>>,
        positions: Mut<'_, Self, u32>,
        logits: Ref<'_, Self, f32>,
        numbers: Ref<'_, Self, u32>,
        sampling: Sampling,
    ) {
        let wanted = probabilities.as_ref().map(Mut::len);
        let checked = check_sample(tokens.len(), wanted, positions.len(), logits.len(), numbers.len());
        if !self.accepts(checked) {
            return;
        }
        let (tokens, positions) = (tokens.into_slice(), positions.into_slice());
        let vocab_size = logits.len() / tokens.len().max(1);
        let (logits, numbers) = (logits.as_slice(), numbers.as_slice());
        let mut drawn = vec![(0, 0.0); tokens.len()];
        parallel::items(&mut drawn, |i, drawn| {
            let words = philox(sampling.seed, [numbers[i], positions[i], SAMPLING_SITE, 0]);
            *drawn = draw(&logits[i * vocab_size..][..vocab_size], sampling, unit(words[0]));
        });
        tokens.iter_mut().zip(&drawn).for_each(|(token, drawn)| *token = drawn.0);
        positions.iter_mut().for_each(|position| *position += 1);
        if let Some(probabilities) = probabilities {
            probabilities.into_slice().iter_mut().zip(&drawn).for_each(|(p, drawn)| *p = drawn.1);
        }
    }

    fn verify(
        &self,
        tokens: Mut<'_, Self, u32>,
        drafts: Ref<'_, Self, u32>,
        probabilities: Ref<'_, Self, f32>,
        logits: Ref<'_, Self, f32>,
        threshold: f32,
    ) {
        let rows = tokens.len();
        if !self.accepts(check_verify(rows, drafts.len(), probabilities.len(), logits.len())) {
            return;
        }
        let vocab_size = logits.len() / rows.max(1);
        let (drafts, probabilities, logits) =
            (drafts.as_slice(), probabilities.as_slice(), logits.as_slice());
        parallel::items(tokens.into_slice(), |i, token| {
            let p = probability(&logits[i * vocab_size..][..vocab_size], drafts[i]);
            let ratio = (p / f64::from(probabilities[i])).min(1.0);
            if *token == u32::MAX || drafts[i] == u32::MAX {
                *token = u32::MAX;
            } else if p > 0.0 && ratio > f64::from(threshold) {
                *token = drafts[i];
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 2.5];

    fn frequencies(s: Sampling, draws: u32) -> Vec<f64> {
        let mut counts = vec![0u32; LOGITS.len()];
        for i in 0..draws {
            let u = unit(philox(s.seed, [i, 0, SAMPLING_SITE, 0])[0]);
            counts[draw(&LOGITS, s, u).0 as usize] += 1;
        }
        counts.into_iter().map(|n| f64::from(n) / f64::from(draws)).collect()
    }

    fn softmax_over(kept: &[usize], temperature: f64) -> Vec<f64> {
        let weight = |i: &usize| (f64::from(LOGITS[*i]) / temperature).exp();
        let total: f64 = kept.iter().map(weight).sum();
        (0..LOGITS.len()).map(|i| if kept.contains(&i) { weight(&i) / total } else { 0.0 }).collect()
    }

    #[test]
    fn sampled_frequencies_are_the_probabilities() {
        let base = Sampling { temperature: 0.7, top_p: 1.0, top_k: 0, seed: 9 };
        // At temperature 0.7 the probabilities are .537, .263, .129, .031 and .002 of tokens 1, 4, 2, 0 and
        // 3.
        let cases = [
            (base, vec![0, 1, 2, 3, 4]),
            (Sampling { top_k: 3, ..base }, vec![1, 4, 2]),
            (Sampling { top_p: 0.7, ..base }, vec![1, 4]),
            (Sampling { top_p: 0.5, ..base }, vec![1]),
            (Sampling { top_k: 2, top_p: 0.99, ..base }, vec![1, 4]),
        ];
        let draws = 40_000;
        for (sampling, kept) in cases {
            let expected = softmax_over(&kept, 0.7);
            for (found, p) in frequencies(sampling, draws).iter().zip(&expected) {
                let deviation = (p * (1.0 - p) / f64::from(draws)).sqrt();
                assert!((found - p).abs() <= 5.0 * deviation, "{sampling:?}: {found} instead of {p}");
            }
        }
    }

    #[test]
    fn the_largest_are_those_of_a_sort() {
        // Few different values, so that blocks and the bound itself hold equal logits.
        let logits: Vec<f32> =
            (0..1000u32).map(|i| (philox(3, [i, 0, 0, 0])[0] % 97) as f32 * 0.5 - 20.0).collect();
        let mut sorted: Vec<u32> = (0..1000).collect();
        sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        for k in [1, 2, 15, 16, 17, 50, 999, 1000, 2000] {
            assert_eq!(top_k(&logits, k), sorted[..k.min(1000)], "{k}");
        }
    }

    #[test]
    fn greedy_takes_the_first_largest_and_notices_nan() {
        let greedy = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
        assert_eq!(draw(&[0.0, 2.0, 2.0], greedy, 0.9), (1, 1.0));
        assert_eq!(draw(&[0.0, f32::NAN, 2.0], greedy, 0.9).0, u32::MAX);
        assert_eq!(draw(&[f32::NEG_INFINITY, 1.0], Sampling { temperature: 1.0, ..greedy }, 0.0), (1, 1.0));
    }
}
