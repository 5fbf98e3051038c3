//! What the answers about some groups of pairs say about all: intervals of shares, and tests of layers.
//!
//! Both functions of a pair have most of their text in common, and pairs of one group have functions in
//! common, so that their answers are not independent. Groups are.

use rayon::prelude::*;
use serde::Serialize;

use crate::ops::philox::philox;

/// The confidence of every interval.
pub(super) const CONFIDENCE: f64 = 0.95;

/// What a p value has to be below.
pub(super) const SIGNIFICANCE: f64 = 0.05;

/// Quantile of the normal distribution that [`CONFIDENCE`] takes.
const NORMAL: f64 = 1.959_963_984_540_054;

/// Ways of turning groups around that are tried, at most.
const FLIPS: usize = 4096;

/// How much wider chance is spread, at most, than the flips of independent answers: √(1 + 2/π).
///
/// Each of two pairs of different folds is among the training pairs of the other's probe. By chance their
/// differences point the same way or they do not, and both probes are helped or misled by it. Say a probe is
/// linear in the labels, and `a` holds how much pair `j` moves the margin of pair `i`, with rows of length 1.
/// Where nothing is known, two margins then have the correlation `aᵢⱼ aⱼᵢ`, and by the law of the arcsine,
/// two answers have about 2/π of it. Summed up over all pairs, that is at most 2/π for each, by Cauchy and
/// Schwarz, with equality where `a` is symmetric.
const SHARED_TRAINING: f64 = 1.279_304;

/// Philox counter word of the flips, apart from other uses of a seed.
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

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Which group each pair is in.
pub(super) struct Groups<'a> {
    group_of: &'a [usize],
    sizes: Vec<f64>,
}

impl<'a> Groups<'a> {
    /// Groups of pairs, `count` of them.
    pub fn new(group_of: &'a [usize], count: usize) -> Self {
        let mut sizes = vec![0.0; count];
        group_of.iter().for_each(|&group| sizes[group] += 1.0);
        Groups { group_of, sizes }
    }

    /// The sum of `values`, one for each pair, in every group.
    pub fn sums(&self, values: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0.0; self.sizes.len()];
        self.group_of.iter().zip(values).for_each(|(&group, value)| sums[group] += value);
        sums
    }

    /// The mean of `values`, each from 0 to 1, with the interval of Wilson for as many independent pairs as
    /// these are worth.
    pub fn share(&self, values: &[f64]) -> Share {
        let value = mean(values);
        let (count, squared) = (self.effective_pairs(values), NORMAL * NORMAL);
        let centre = (value + squared / (2.0 * count)) / (1.0 + squared / count);
        let half = NORMAL / (1.0 + squared / count)
            * (value * (1.0 - value) / count + squared / (4.0 * count * count)).sqrt();
        Share { value, low: (centre - half).clamp(0.0, value), high: (centre + half).clamp(value, 1.0) }
    }

    /// Pairs over the design effect, which is estimated from how much more the groups differ than independent
    /// pairs would. No fewer than if all pairs of a group always agreed, and no more than there are. Few
    /// groups say little about the design effect, for which the degrees of freedom make up.
    fn effective_pairs(&self, values: &[f64]) -> f64 {
        let (value, pairs, groups) = (mean(values), values.len() as f64, self.sizes.len() as f64);
        let fewest = pairs * pairs / self.sizes.iter().map(|size| size * size).sum::<f64>();
        let deviations = self.sums(values.iter().map(|v| v - value));
        let variance =
            groups / (groups - 1.0) * deviations.iter().map(|d| d * d).sum::<f64>() / (pairs * pairs);
        let spread = value * (1.0 - value);
        // Nothing is known of the design effect where all answers are the same.
        let estimate = if spread > 0.0 { (spread / variance).clamp(fewest, pairs) } else { fewest };
        let ratio = student(pairs - 1.0) / student(groups - 1.0);
        estimate * ratio * ratio
    }
}

/// Student's quantile that [`CONFIDENCE`] takes, by the expansion of Abramowitz & Stegun (26.7.5).
fn student(degrees: f64) -> f64 {
    let x = NORMAL;
    let odd = |coefficients: &[f64]| {
        coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x * x + coefficient) * x
    };
    let terms = [
        odd(&[1.0, 1.0]) / 4.0,
        odd(&[3.0, 16.0, 5.0]) / 96.0,
        odd(&[-15.0, 17.0, 19.0, 3.0]) / 384.0,
        odd(&[-945.0, -1920.0, 1482.0, 776.0, 79.0]) / 92160.0,
    ];
    x + terms.iter().rev().fold(0.0, |sum, term| (sum + term) / degrees)
}

/// Tests of several layers at once, by turning around what was found in some of the groups.
///
/// Where there is nothing to find, the opposite would have been as likely in any group. What was found is
/// compared with the highest of all layers in every way of turning, because the best of many is high by luck
/// (the single step of Westfall & Young, 1993).
pub(super) struct SignFlips<'a> {
    /// `[layers][groups]`
    layers: &'a [Vec<f64>],
    /// `[ways][layers]` sums over groups; nothing is turned in the first way.
    sums: Vec<Vec<f64>>,
}

impl<'a> SignFlips<'a> {
    /// Tests of `layers` `[layers][groups]`, each value as far above 0 as an opposite one would be below. All
    /// ways there are, or as many as [`FLIPS`] that are drawn.
    pub fn new(layers: &'a [Vec<f64>], seed: u64) -> Self {
        let groups = layers.first().map_or(0, Vec::len);
        let all = u32::try_from(groups).ok().and_then(|groups| 1usize.checked_shl(groups));
        let all = all.filter(|&all| all <= FLIPS);
        let sums = |way: usize| -> Vec<f64> {
            let signs = if all.is_some() { signs_of(way, groups) } else { drawn_signs(way, groups, seed) };
            layers.iter().map(|layer| inner(layer, &signs)).collect()
        };
        SignFlips { layers, sums: (0..all.unwrap_or(FLIPS)).into_par_iter().map(sums).collect() }
    }

    /// For each layer, how likely any of them would be as far above 0 if none were above 0 but by luck.
    ///
    /// Probes that learn from the opposite and are asked for the opposite find the same, so that no fewer
    /// than two ways are as good as what was found.
    pub fn p_values(&self) -> Vec<f64> {
        let highest = |sums: &Vec<f64>| sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let highest: Vec<f64> = self.sums.iter().map(highest).collect();
        let (step, ways) = (self.step(), highest.len() as f64);
        let p_value = |&found: &f64| {
            let least = (found - 0.5 * step) / SHARED_TRAINING;
            let as_high = highest.iter().map(|sum| ((sum - least) / step + 0.5).clamp(0.0, 1.0));
            (as_high.sum::<f64>() / ways).max(2.0 / ways).min(1.0)
        };
        self.sums[0].iter().map(p_value).collect()
    }

    /// What turning the smallest group changes. Sums are this far apart, and each stands for all values that
    /// are nearer to it than to others (a continuity correction); without that, what widens them would leave
    /// gaps.
    fn step(&self) -> f64 {
        let sizes = self.layers.iter().flatten().map(|sum| sum.abs()).filter(|&size| size > 0.0);
        2.0 * sizes.reduce(f64::min).unwrap_or(0.5)
    }

    /// For each layer, whether none of the others is higher for certain.
    pub fn below_none(&self) -> Vec<bool> {
        (0..self.layers.len()).into_par_iter().map(|layer| self.is_below_none(layer)).collect()
    }

    /// The leads of other layers are measured by how much they differ from group to group, which turning
    /// leaves alone.
    fn is_below_none(&self, layer: usize) -> bool {
        let size = |other: &Vec<f64>| {
            let lead: Vec<f64> = other.iter().zip(&self.layers[layer]).map(|(a, b)| a - b).collect();
            inner(&lead, &lead).sqrt().max(f64::MIN_POSITIVE)
        };
        let sizes: Vec<f64> = self.layers.iter().map(size).collect();
        let highest = |sums: &Vec<f64>| {
            let leads = sums.iter().zip(&sizes).map(|(sum, size)| (sum - sums[layer]) / size);
            leads.fold(f64::NEG_INFINITY, f64::max)
        };
        let highest: Vec<f64> = self.sums.iter().map(highest).collect();
        share_of_at_least(highest[0], &highest) >= SIGNIFICANCE
    }
}

/// Way `way` of all that there are: 1 or −1 for each group.
fn signs_of(way: usize, groups: usize) -> Vec<f64> {
    (0..groups).map(|group| sign(way >> group & 1 == 1)).collect()
}

fn drawn_signs(way: usize, groups: usize, seed: u64) -> Vec<f64> {
    let words = (0..groups.div_ceil(128)).flat_map(|block| philox(seed, [block as u32, way as u32, SITE, 0]));
    let bits = words.flat_map(|word| (0..32).map(move |bit| word >> bit & 1 == 1));
    bits.take(groups).map(|turned| sign(turned && way > 0)).collect()
}

fn sign(turned: bool) -> f64 {
    if turned { -1.0 } else { 1.0 }
}

/// The margin is for rounding.
fn share_of_at_least(found: f64, values: &[f64]) -> f64 {
    values.iter().filter(|&&value| value >= found - 1e-9).count() as f64 / values.len() as f64
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::unit;

    fn uniform(seed: u64, i: usize, j: usize) -> f64 {
        f64::from(unit(philox(seed, [i as u32, j as u32, 9, 0])[0]))
    }

    /// Right with `probability`, for each of `pairs`.
    fn answers(probability: f64, pairs: usize, seed: u64, layer: usize) -> Vec<f64> {
        (0..pairs).map(|pair| f64::from(u8::from(uniform(seed, pair, layer) < probability))).collect()
    }

    fn share(values: &[f64], group_of: &[usize]) -> Share {
        Groups::new(group_of, group_of.iter().max().unwrap() + 1).share(values)
    }

    fn alone(pairs: usize) -> Vec<usize> {
        (0..pairs).collect()
    }

    /// The intervals of Wilson for 81 of 263 and for 15 of 148 (Newcombe 1998, table I).
    #[test]
    fn the_interval_of_independent_pairs_is_that_of_wilson() {
        for (right, pairs, low, high) in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)] {
            let values: Vec<f64> = (0..pairs).map(|i| f64::from(u8::from(i < right))).collect();
            let share = share(&values, &alone(pairs));
            assert!((share.low - low).abs() < 1e-4 && (share.high - high).abs() < 1e-4, "{share:?}");
        }
    }

    #[test]
    fn few_pairs_say_little_even_if_all_agree() {
        let all = share(&[1.0; 4], &alone(4));
        assert!(all.low < 0.55 && all.high == 1.0, "{all:?}");
        let none = share(&[0.0; 4], &alone(4));
        assert!(none.low == 0.0 && none.high > 0.45, "{none:?}");
        let half = share(&[0.5; 4], &alone(4));
        assert!(half.low < 0.2 && half.high > 0.8, "{half:?}");
        // Three copies of four pairs are not twelve.
        let copies = share(&[1.0; 12], &(0..12).map(|pair| pair / 3).collect::<Vec<_>>());
        assert!(copies.low < all.low, "{copies:?}");
    }

    /// Groups of three pairs that agree always, half of the time, and as often as any pairs.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let runs = 400;
        for (groups, probability, agree) in
            [(8, 0.5, 1.0), (20, 0.5, 1.0), (20, 0.8, 1.0), (20, 0.7, 0.5), (20, 0.7, 0.0), (60, 0.9, 1.0)]
        {
            let holds = |seed: u64| {
                let outcome = |pair: usize| {
                    let alike = uniform(seed, pair, 0) < agree;
                    uniform(seed, if alike { pair / 3 } else { pair }, if alike { 1 } else { 2 })
                };
                let values: Vec<f64> =
                    (0..3 * groups).map(|pair| f64::from(u8::from(outcome(pair) < probability))).collect();
                let share = share(&values, &(0..3 * groups).map(|pair| pair / 3).collect::<Vec<_>>());
                (share.low..=share.high).contains(&probability)
            };
            let held = (0..runs).filter(|&seed| holds(seed)).count() as f64 / runs as f64;
            assert!((0.92..=0.999).contains(&held), "{held} at {groups}, {probability}, {agree}");
        }
    }

    #[test]
    fn student_is_that_of_tables() {
        for (degrees, expected) in [(2.0, 4.303), (3.0, 3.182), (5.0, 2.571), (10.0, 2.228), (100.0, 1.984)] {
            assert!((student(degrees) / expected - 1.0).abs() < 0.02, "{degrees}: {}", student(degrees));
        }
    }

    fn deviations(probabilities: &[f64], pairs: usize, seed: u64) -> Vec<Vec<f64>> {
        let of =
            |(layer, &p): (usize, &f64)| answers(p, pairs, seed, layer).iter().map(|a| a - 0.5).collect();
        probabilities.iter().enumerate().map(of).collect()
    }

    /// Ten of twelve are 4 above chance. Of the ways, those with up to two turned count, and those with
    /// three, which are 3 above chance, as far as 2.5 to 3.5 is above (4 − 0.5) / 1.2793 = 2.736.
    #[test]
    fn all_ways_are_tried_where_there_are_few() {
        let p_values = |layer: Vec<f64>| SignFlips::new(&[layer], 1).p_values();
        let found = p_values((0..12).map(|pair| if pair < 2 { -0.5 } else { 0.5 }).collect());
        let expected = (1.0 + 12.0 + 66.0 + (3.5 - 2.736) * 220.0) / 4096.0;
        assert!((found[0] - expected).abs() < 1e-4, "{found:?} and {expected}");
        assert_eq!(p_values(vec![0.5; 40]), [2.0 / 4096.0]);
        // All right, but there are only 16 ways to have learnt what is asked.
        assert!(p_values(vec![0.5; 5])[0] >= 2.0 / 32.0);
        assert!(p_values(vec![0.0; 9])[0] > 0.5 && p_values(vec![-0.5; 9])[0] > 0.99);
    }

    #[test]
    fn the_best_of_many_layers_of_luck_is_not_above_chance() {
        let (mut together, mut alone) = (0, 0);
        for seed in 0..100 {
            let layers = deviations(&[0.5; 10], 60, seed);
            let smallest =
                |layers: &[Vec<f64>]| SignFlips::new(layers, seed).p_values().into_iter().fold(1.0, f64::min);
            together += usize::from(smallest(&layers) < SIGNIFICANCE);
            let found = |layer: &Vec<f64>| smallest(std::slice::from_ref(layer)) < SIGNIFICANCE;
            alone += usize::from(layers.iter().any(found));
        }
        assert!(together <= 5 && alone >= 10, "{together} and {alone}");
    }

    #[test]
    fn layers_that_are_worse_are_told_from_those_that_may_not_be() {
        for seed in 0..10 {
            let layers = deviations(&[0.5, 0.85, 0.6], 200, seed);
            assert_eq!(SignFlips::new(&layers, seed).below_none(), [false, true, false], "seed {seed}");
        }
        // Among equal layers, the luckiest is not taken for better.
        let excluded = |seed| {
            let layers = deviations(&[0.7; 10], 100, seed);
            SignFlips::new(&layers, seed).below_none().into_iter().filter(|&kept| !kept).count()
        };
        let excluded: usize = (0..20).map(excluded).sum();
        assert!(excluded <= 20, "{excluded} of 200");
    }

    /// Three copies of a pair that tells two layers apart are one pair.
    #[test]
    fn layers_are_told_apart_by_groups() {
        let groups = Groups::new(&[0, 0, 0, 1, 1, 1, 2, 3], 4);
        let better = groups.sums([0.5; 8]);
        let worse = groups.sums([-0.5, -0.5, -0.5, -0.5, -0.5, -0.5, 0.5, 0.5]);
        assert_eq!(better, [1.5, 1.5, 0.5, 0.5]);
        assert_eq!(SignFlips::new(&[better, worse], 0).below_none(), [true, true]);
    }
}
