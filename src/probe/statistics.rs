//! Intervals by the bootstrap over pairs. Both functions of a pair have most of their text in common, so that their answers
//! are not independent; pairs are what is drawn again. All layers share the draws, which makes their differences as exact
//! as the data allow.

use rayon::prelude::*;
use serde::Serialize;

use crate::ops::philox::philox;

/// Of every interval.
pub(super) const CONFIDENCE: f64 = 0.95;

/// Resamples.
const RESAMPLES: usize = 2000;

/// Philox counter word of the draws, apart from other uses of a seed.
const SITE: u32 = 0x5052_4f42;

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Over all pairs.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Draws of pairs with replacement: how often each pair was drawn.
pub(super) struct Resamples {
    counts: Vec<Vec<u16>>,
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Resamples {
    pub fn new(pairs: usize, seed: u64) -> Self {
        let draw = |resample: usize| {
            let mut counts = vec![0u16; pairs];
            for i in 0..pairs {
                let random = u64::from(philox(seed, [i as u32, resample as u32, SITE, 0])[0]);
                let drawn = &mut counts[((random * pairs as u64) >> 32) as usize];
                *drawn = drawn.saturating_add(1);
            }
            counts
        };
        Resamples { counts: (0..RESAMPLES).into_par_iter().map(draw).collect() }
    }

    /// The mean of `values`, one for each pair, in every resample.
    fn means(&self, values: &[f64]) -> Vec<f64> {
        let of = |counts: &Vec<u16>| {
            counts.iter().zip(values).map(|(&count, value)| f64::from(count) * value).sum::<f64>()
                / values.len().max(1) as f64
        };
        self.counts.iter().map(of).collect()
    }

    /// The mean of `values` with its percentile interval.
    pub fn share(&self, values: &[f64]) -> Share {
        let means = sorted(self.means(values));
        let tail = (1.0 - CONFIDENCE) / 2.0;
        Share { value: mean(values), low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) }
    }

    /// Whether the mean of `a` is above that of `b` in all but the unluckiest resamples.
    pub fn is_greater(&self, a: &[f64], b: &[f64]) -> bool {
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        self.share(&differences).low > 0.0
    }

    /// By how much the luckiest of `layers` is above its own mean, at most, with [`CONFIDENCE`].
    pub fn luck_of_the_best(&self, layers: &[Vec<f64>]) -> f64 {
        let mut luck = vec![f64::NEG_INFINITY; RESAMPLES];
        for values in layers {
            let (own, means) = (mean(values), self.means(values));
            luck.iter_mut().zip(means).for_each(|(luck, mean)| *luck = luck.max(mean - own));
        }
        quantile(&sorted(luck), CONFIDENCE)
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal interval of a mean of independent draws.
    #[test]
    fn an_interval_is_as_wide_as_it_has_to_be() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 4 != 0))).collect();
        let share = Resamples::new(400, 3).share(&values);
        let half = 1.96 * (0.75f64 * 0.25 / 400.0).sqrt();
        assert_eq!(share.value, 0.75);
        assert!(
            (share.low - (0.75 - half)).abs() < 0.01 && (share.high - (0.75 + half)).abs() < 0.01,
            "{share:?}"
        );
    }

    #[test]
    fn differences_are_those_of_the_same_pairs() {
        let resamples = Resamples::new(100, 1);
        let a: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 2 == 0))).collect();
        // Worse in ten pairs and nowhere better: certain, although the intervals overlap.
        let b: Vec<f64> = a.iter().enumerate().map(|(i, &a)| if i % 10 == 0 { 0.0 } else { a }).collect();
        assert!(resamples.share(&a).low < resamples.share(&b).high);
        assert!(
            resamples.is_greater(&a, &b) && !resamples.is_greater(&b, &a) && !resamples.is_greater(&a, &a)
        );
    }

    #[test]
    fn the_best_of_many_is_luckier_than_one() {
        let resamples = Resamples::new(50, 1);
        let layer = |l: u32| (0..50).map(|i| f64::from(philox(9, [i, l, 0, 0])[0] & 1)).collect::<Vec<_>>();
        let many: Vec<_> = (0..30).map(layer).collect();
        let (one, best) = (resamples.luck_of_the_best(&many[..1]), resamples.luck_of_the_best(&many));
        assert!(one > 0.05 && best > 1.3 * one, "{one} and {best}");
    }
}
