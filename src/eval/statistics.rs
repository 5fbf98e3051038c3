//! How far rates can be trusted: intervals and comparisons that treat scenarios as the independent units.
//!
//! Samples of one scenario resemble each other, so that an interval from pooled samples would be far too
//! narrow: all intervals here come from a bootstrap over scenarios, or over weakness families.

use serde::{Deserialize, Serialize};

use super::metrics::{Counts, Metric};
use crate::ops::philox::philox;

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// Bootstrap replicates, and sign flips of a comparison.
pub const REPLICATES: usize = 10_000;

/// Quantile of the standard normal distribution for [`CONFIDENCE`].
const NORMAL: f64 = 1.959_963_984_540_054;

/// Philox counter words that keep the two uses of a seed apart.
const BOOTSTRAP_SITE: u32 = 0x4556_4231;
const FLIP_SITE: u32 = 0x4556_4632;

/// A rate, or a difference of rates, with its interval.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Estimate {
    /// From all scenarios.
    pub value: f64,
    /// Lower and upper end; `None` where a single unit says nothing about the spread between units.
    pub interval: Option<[f64; 2]>,
}

/// A method against another one on the same scenarios.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Comparison {
    /// Second rate less the first.
    pub difference: Estimate,
    /// Two-sided p value, of [`Comparison::test`].
    pub p: f64,
    /// What the p value comes from.
    pub test: Test,
}

/// A test for two methods being interchangeable.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The two are swapped within resampled units.
    SignFlip,
    /// Exact test of McNemar, for one sample of each scenario.
    Mcnemar,
}

/// The units that are resampled: each unit lists the scenarios in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units(Vec<Vec<usize>>);

impl Units {
    /// Every one of `count` scenarios by itself.
    pub fn scenarios(count: usize) -> Self {
        Units((0..count).map(|i| vec![i]).collect())
    }

    /// All scenarios with the same name together, such as those of a weakness family.
    pub fn families<S: AsRef<str>>(names: &[S]) -> Self {
        let mut groups = std::collections::BTreeMap::<&str, Vec<usize>>::new();
        names.iter().enumerate().for_each(|(i, name)| groups.entry(name.as_ref()).or_default().push(i));
        Units(groups.into_values().collect())
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.0.len()
    }

    /// What each unit adds to numerator and denominator of a rate; `None` where the rate is not defined.
    fn terms(&self, metric: Metric, counts: &[Counts]) -> Option<Vec<Ratio>> {
        let of_unit = |unit: &Vec<usize>| {
            unit.iter().try_fold(Ratio::default(), |sum, &i| {
                let (above, below) = metric.terms(&counts[i])?;
                Some(Ratio { above: sum.above + above, below: sum.below + below })
            })
        };
        self.0.iter().map(of_unit).collect()
    }

    /// Units of bootstrap replicate `replicate`: as many as there are, drawn with replacement.
    fn draw(&self, seed: u64, replicate: usize) -> impl Iterator<Item = usize> {
        let count = self.len() as u64;
        let mut words = [0; 4];
        (0..self.len()).map(move |i| {
            if i % 4 == 0 {
                words = philox(seed, [(i / 4) as u32, replicate as u32, BOOTSTRAP_SITE, 0]);
            }
            ((u64::from(words[i % 4]) * count) >> 32) as usize
        })
    }
}

/// Numerator and denominator of a rate.
#[derive(Clone, Copy, Default)]
struct Ratio {
    above: f64,
    below: f64,
}

impl Ratio {
    /// The rate of some units.
    fn of(terms: &[Ratio], units: impl IntoIterator<Item = usize>) -> Option<f64> {
        let mut sum = Ratio::default();
        for unit in units {
            sum.above += terms[unit].above;
            sum.below += terms[unit].below;
        }
        sum.value()
    }

    fn value(self) -> Option<f64> {
        (self.below > 0.0).then(|| self.above / self.below)
    }
}

/// A rate with its bootstrap interval; `None` where the rate is not defined.
pub fn estimate(metric: Metric, counts: &[Counts], units: &Units, seed: u64) -> Option<Estimate> {
    estimate_from(REPLICATES, metric, counts, units, seed)
}

fn estimate_from(
    draws: usize,
    metric: Metric,
    counts: &[Counts],
    units: &Units,
    seed: u64,
) -> Option<Estimate> {
    let value = metric.value(counts)?;
    let terms = units.terms(metric, counts)?;
    let drawn = replicates(draws, |replicate| Ratio::of(&terms, units.draw(seed, replicate)));
    let interval = interval(&drawn, units.len()).map(|found| match agree(&terms) {
        // The bootstrap sees no spread, but other units might still differ.
        true => wilson_interval(value, units.len() as f64),
        false => found,
    });
    Some(Estimate { value, interval })
}

/// `after` less `before`, both judged on the same scenarios in the same order; `None` where a rate is not
/// defined. Both methods get the same resamples.
///
/// # Panics
/// If the two have different numbers of scenarios.
pub fn difference(
    metric: Metric,
    before: &[Counts],
    after: &[Counts],
    units: &Units,
    seed: u64,
) -> Option<Estimate> {
    assert_eq!(before.len(), after.len(), "scenarios of the two methods");
    let rates = [metric.value(before)?, metric.value(after)?];
    let terms = [units.terms(metric, before)?, units.terms(metric, after)?];
    let drawn = replicates(REPLICATES, |replicate| {
        let rate = |terms: &[Ratio]| Ratio::of(terms, units.draw(seed, replicate));
        Some(rate(&terms[1])? - rate(&terms[0])?)
    });
    let interval = interval(&drawn, units.len()).map(|found| match terms.iter().all(|terms| agree(terms)) {
        true => newcombe_interval(rates, units.len() as f64),
        false => found,
    });
    Some(Estimate { value: rates[1] - rates[0], interval })
}

/// As [`difference`], with a p value for the methods being the same.
///
/// # Panics
/// As [`difference`].
pub fn compare(
    metric: Metric,
    before: &[Counts],
    after: &[Counts],
    units: &Units,
    seed: u64,
) -> Option<Comparison> {
    let difference = difference(metric, before, after, units, seed)?;
    let (p, test) = match mcnemar(metric, before, after) {
        Some(p) => (p, Test::Mcnemar),
        None => {
            let terms = [units.terms(metric, before)?, units.terms(metric, after)?];
            (sign_flip(&terms, seed), Test::SignFlip)
        }
    };
    Some(Comparison { difference, p, test })
}

/// Whether all units that count have the same rate.
fn agree(terms: &[Ratio]) -> bool {
    let mut rates = terms.iter().filter_map(|unit| unit.value());
    let first = rates.next();
    rates.all(|rate| Some(rate) == first)
}

/// The statistic of every replicate in which it is defined, in ascending order.
fn replicates(draws: usize, statistic: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = (0..draws).filter_map(statistic).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The expanded percentile interval (Hesterberg 2015): the bootstrap's spread is that of n units where n − 1
/// are free, for which percentiles further out make up.
fn interval(sorted: &[f64], units: usize) -> Option<[f64; 2]> {
    if units < 2 || sorted.is_empty() {
        return None;
    }
    let free = (units - 1) as f64;
    let tail = normal_tail((units as f64 / free).sqrt() * student(free));
    Some([quantile(sorted, tail), quantile(sorted, 1.0 - tail)])
}

/// Quantile of sorted values, interpolated between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (below, share) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + share * (sorted[above] - sorted[below])
}

/// Two-sided p value for the two methods being interchangeable in every unit: what swapping them in some
/// units makes of the difference. All ways of swapping are tried if they are at most [`REPLICATES`], else
/// that many drawn ones.
fn sign_flip(terms: &[Vec<Ratio>; 2], seed: u64) -> f64 {
    let count = terms[0].len();
    let all = u32::try_from(count).ok().and_then(|count| 1usize.checked_shl(count));
    let all = all.filter(|&all| all <= REPLICATES);
    let difference = |swapped: &mut dyn Iterator<Item = bool>| {
        let mut sums = [Ratio::default(); 2];
        for (unit, swapped) in swapped.enumerate() {
            let first = usize::from(swapped);
            for (sum, from) in sums.iter_mut().zip([first, 1 - first]) {
                sum.above += terms[from][unit].above;
                sum.below += terms[from][unit].below;
            }
        }
        Some((sums[1].value()? - sums[0].value()?).abs())
    };
    let found = difference(&mut drawn_flips(seed, 0, count)).unwrap_or(0.0);
    let ways = all.unwrap_or(REPLICATES);
    let as_far = (0..ways).filter(|&way| {
        let difference = match all {
            Some(_) => difference(&mut (0..count).map(|unit| way >> unit & 1 == 1)),
            None => difference(&mut drawn_flips(seed, way, count)),
        };
        // The margin is for rounding; a rate that swapping leaves undefined speaks against a difference.
        difference.is_none_or(|difference| difference >= found - 1e-12)
    });
    as_far.count() as f64 / ways as f64
}

/// Which units are swapped in a drawn way; in way 0, none.
fn drawn_flips(seed: u64, way: usize, count: usize) -> impl Iterator<Item = bool> {
    let mut words = [0; 4];
    (0..count).map(move |unit| {
        if unit % 128 == 0 {
            words = philox(seed, [(unit / 128) as u32, way as u32, FLIP_SITE, 0]);
        }
        way > 0 && words[unit / 32 % 4] >> (unit % 32) & 1 == 1
    })
}

/// The exact test of McNemar for pass@1 and secure-pass@1 of one sample a scenario: of the scenarios in which
/// the methods differ, half should favour either. `None` for any other rate or number of samples.
fn mcnemar(metric: Metric, before: &[Counts], after: &[Counts]) -> Option<f64> {
    let good: fn(&Counts) -> bool = match metric {
        Metric::Pass(1) => |counts| counts.functional == 1,
        Metric::SecurePass(1) => |counts| counts.secure == 1,
        _ => return None,
    };
    if before.iter().chain(after).any(|counts| counts.samples != 1) {
        return None;
    }
    let pairs = before.iter().zip(after).map(|(before, after)| (good(before), good(after)));
    let (won, lost) = pairs.fold((0, 0), |(won, lost), pair| match pair {
        (false, true) => (won + 1, lost),
        (true, false) => (won, lost + 1),
        _ => (won, lost),
    });
    Some(two_sided_binomial(won + lost, usize::min(won, lost)))
}

/// P(X ≤ fewer or X ≥ n − fewer) for n throws of a fair coin.
fn two_sided_binomial(n: usize, fewer: usize) -> f64 {
    // C(n, i) / 2ⁿ as sums of logarithms, which do not overflow.
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log.exp();
    for i in 0..fewer {
        log += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
        tail += log.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Interval of Wilson for `correct` of `samples` samples of a single scenario; `None` if there are none.
pub fn wilson(correct: usize, samples: usize) -> Option<Estimate> {
    if samples == 0 {
        return None;
    }
    let value = correct as f64 / samples as f64;
    Some(Estimate { value, interval: Some(wilson_interval(value, samples as f64)) })
}

fn wilson_interval(value: f64, n: f64) -> [f64; 2] {
    let squared = NORMAL * NORMAL;
    let centre = (value + squared / (2.0 * n)) / (1.0 + squared / n);
    let half = NORMAL / (1.0 + squared / n) * (value * (1.0 - value) / n + squared / (4.0 * n * n)).sqrt();
    [(centre - half).clamp(0.0, value), (centre + half).clamp(value, 1.0)]
}

/// Interval of Newcombe for the second of two rates of `n` observations each less the first, from their
/// intervals of Wilson.
fn newcombe_interval(rates: [f64; 2], n: f64) -> [f64; 2] {
    let [[low_0, high_0], [low_1, high_1]] = rates.map(|rate| wilson_interval(rate, n));
    let [first, second] = rates;
    let (below, above) = ((second - low_1).hypot(high_0 - first), (high_1 - second).hypot(first - low_0));
    [second - first - below, second - first + above]
}

/// Student's quantile for [`CONFIDENCE`], by the expansion of Abramowitz & Stegun (26.7.5).
fn student(degrees: f64) -> f64 {
    let x = NORMAL;
    let g1 = (x.powi(3) + x) / 4.0;
    let g2 = (5.0 * x.powi(5) + 16.0 * x.powi(3) + 3.0 * x) / 96.0;
    let g3 = (3.0 * x.powi(7) + 19.0 * x.powi(5) + 17.0 * x.powi(3) - 15.0 * x) / 384.0;
    let g4 = (79.0 * x.powi(9) + 776.0 * x.powi(7) + 1482.0 * x.powi(5) - 1920.0 * x.powi(3) - 945.0 * x)
        / 92160.0;
    x + g1 / degrees + g2 / degrees.powi(2) + g3 / degrees.powi(3) + g4 / degrees.powi(4)
}

/// P(Z > x) of the standard normal distribution for x ≥ 0, by Abramowitz & Stegun (26.2.17); error below
/// 7.5e-8.
fn normal_tail(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let coefficients = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let polynomial = coefficients.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(samples: usize, functional: usize, secure: usize) -> Counts {
        Counts { samples, parsed: samples, functional, secure, ..Counts::default() }
    }

    fn width(estimate: Estimate) -> f64 {
        let [low, high] = estimate.interval.unwrap();
        high - low
    }

    #[test]
    fn an_interval_is_repeatable_and_knows_its_units() {
        let scenarios: Vec<Counts> =
            (0..24).map(|i| counts(20, 20, if i % 3 == 0 { 20 - i % 7 } else { i % 4 })).collect();
        let names: Vec<String> = (0..24).map(|i| format!("{}", i / 6)).collect();
        let single = Units::scenarios(24);
        let found = estimate(Metric::SecurePass(1), &scenarios, &single, 7).unwrap();
        assert_eq!(Some(found), estimate(Metric::SecurePass(1), &scenarios, &single, 7));
        assert_ne!(Some(found), estimate(Metric::SecurePass(1), &scenarios, &single, 8));
        let secure = scenarios.iter().map(|c| c.secure).sum();
        let pooled = wilson(secure, 480).unwrap();
        assert!(width(found) > 3.0 * width(pooled), "{found:?} {pooled:?}");
        // A single family says nothing about others.
        let family = Units::families(&vec!["one"; 24]);
        assert_eq!(estimate(Metric::SecurePass(1), &scenarios, &family, 7).unwrap().interval, None);
        assert_eq!(Units::families(&names).len(), 4);
    }

    #[test]
    fn agreement_of_all_scenarios_is_no_certainty() {
        for (secure, [low, high]) in [(0, [0.0, 0.138]), (20, [0.862, 1.0])] {
            let found =
                estimate(Metric::SecurePass(1), &vec![counts(20, 20, secure); 24], &Units::scenarios(24), 1);
            let interval = found.unwrap().interval.unwrap();
            assert!((interval[0] - low).abs() < 1e-3 && (interval[1] - high).abs() < 1e-3, "{interval:?}");
        }
        // Nor is that of both methods; example of Newcombe (1998) with 0 of 10 and 0 of 10.
        let none = vec![counts(20, 20, 0); 10];
        let found = compare(Metric::SecurePass(1), &none, &none, &Units::scenarios(10), 1).unwrap();
        let [low, high] = found.difference.interval.unwrap();
        assert!((low + 0.2775).abs() < 1e-3 && (high - 0.2775).abs() < 1e-3, "{found:?}");
    }

    /// The bootstrap written out: every replicate is a list of scenarios, every rate that of the list.
    #[test]
    fn intervals_are_those_of_the_resamples_written_out() {
        let before: Vec<Counts> = (0..17).map(|i| counts(10, i % 9 + 1, i % 4)).collect();
        let after: Vec<Counts> = (0..17).map(|i| counts(10, i % 7 + 2, i * 3 % 5)).collect();
        let names: Vec<String> = (0..17).map(|i| (i % 6).to_string()).collect();
        let metrics = [Metric::Pass(3), Metric::SecurePass(1), Metric::SecureGivenPass];
        for units in [Units::scenarios(17), Units::families(&names)] {
            for metric in metrics {
                let rate = |of: &[Counts], replicate: usize| {
                    let units = units.draw(5, replicate).map(|unit| &units.0[unit]);
                    let drawn: Vec<Counts> = units.flatten().map(|&i| of[i]).collect();
                    metric.value(&drawn)
                };
                let quantiles = |mut values: Vec<f64>| {
                    values.sort_by(f64::total_cmp);
                    let n = units.len() as f64;
                    let tail = normal_tail((n / (n - 1.0)).sqrt() * student(n - 1.0));
                    [quantile(&values, tail), quantile(&values, 1.0 - tail)]
                };
                let rates = quantiles((0..REPLICATES).filter_map(|i| rate(&before, i)).collect());
                let differences = (0..REPLICATES).filter_map(|i| Some(rate(&after, i)? - rate(&before, i)?));
                let differences = quantiles(differences.collect());
                let found = [
                    estimate(metric, &before, &units, 5).unwrap().interval.unwrap(),
                    compare(metric, &before, &after, &units, 5).unwrap().difference.interval.unwrap(),
                ];
                for (found, expected) in found.as_flattened().iter().zip([rates, differences].as_flattened())
                {
                    assert!((found - expected).abs() < 1e-12, "{metric:?}: {found} {expected}");
                }
            }
        }
    }

    /// Scenarios whose rates are uniform draws, so that the mean of all is one half.
    fn simulated(seed: u64, trial: usize, scenarios: usize) -> Vec<Counts> {
        let unit = |i: usize, site: u32| {
            f64::from(philox(seed, [i as u32, trial as u32, site, 1])[0]) / 2f64.powi(32)
        };
        let scenario = |i: usize| {
            let rate = unit(i, 0);
            let secure = (0..10).filter(|&sample| unit(i * 10 + sample, 1) < rate).count();
            counts(10, 10, secure)
        };
        (0..scenarios).map(scenario).collect()
    }

    #[test]
    fn intervals_cover_as_often_as_they_claim() {
        const TRIALS: usize = 400;
        for scenarios in [24, 144] {
            let units = Units::scenarios(scenarios);
            let covers = |trial: &usize| {
                let found = simulated(3, *trial, scenarios);
                let estimate = estimate_from(1000, Metric::SecurePass(1), &found, &units, 5).unwrap();
                let [low, high] = estimate.interval.unwrap();
                (low..=high).contains(&0.5)
            };
            let share = (0..TRIALS).filter(covers).count() as f64 / TRIALS as f64;
            assert!((0.93..=0.97).contains(&share), "{scenarios} scenarios: {share}");
        }
    }

    #[test]
    fn a_comparison_uses_pairs() {
        // Scenarios differ far more from each other than the methods do, in each of them by the same.
        let before: Vec<Counts> = (0..40).map(|i| counts(20, 20, i % 19)).collect();
        let after: Vec<Counts> = (0..40).map(|i| counts(20, 20, i % 19 + 1)).collect();
        let units = Units::scenarios(40);
        let metric = Metric::SecurePass(1);
        let found = compare(metric, &before, &after, &units, 1).unwrap();
        assert!((found.difference.value - 0.05).abs() < 1e-12);
        let [low, high] = found.difference.interval.unwrap();
        assert!(low > 0.04 && high < 0.06, "{found:?}");
        assert!(found.p <= 2.0 / REPLICATES as f64, "{found:?}");
        let same = compare(metric, &before, &before, &units, 1).unwrap();
        assert_eq!((same.difference.value, same.p), (0.0, 1.0));
    }

    /// The sign-flip test with all 2ⁿ ways, written out.
    #[test]
    fn p_values_are_those_of_all_swaps() {
        let before = [counts(10, 10, 1), counts(10, 10, 5), counts(10, 10, 3), counts(10, 10, 2)];
        let after = [counts(10, 10, 4), counts(10, 10, 4), counts(10, 10, 9), counts(10, 10, 7)];
        let differences: Vec<f64> =
            before.iter().zip(&after).map(|(b, a)| (a.secure as f64 - b.secure as f64) / 10.0).collect();
        let of = |way: usize| -> f64 {
            let signed = differences.iter().enumerate().map(|(i, d)| if way >> i & 1 == 1 { -d } else { *d });
            (signed.sum::<f64>() / 4.0).abs()
        };
        let expected = (0..16).filter(|&way| of(way) >= of(0) - 1e-12).count() as f64 / 16.0;
        let found = compare(Metric::SecurePass(1), &before, &after, &Units::scenarios(4), 1).unwrap();
        assert_eq!(found.p, expected);
    }

    /// McNemar's test is what swapping all pairs of single samples gives.
    #[test]
    fn single_samples_get_the_exact_test() {
        let single = |secure: &[usize]| secure.iter().map(|&secure| counts(1, 1, secure)).collect::<Vec<_>>();
        let before = single(&[0, 0, 0, 0, 0, 1, 1, 0, 1, 0]);
        let after = single(&[1, 1, 1, 1, 0, 1, 0, 1, 1, 1]);
        let (units, metric) = (Units::scenarios(10), Metric::SecurePass(1));
        let found = compare(metric, &before, &after, &units, 1).unwrap();
        let terms = [units.terms(metric, &before).unwrap(), units.terms(metric, &after).unwrap()];
        assert_eq!(found.test, Test::Mcnemar);
        assert!((found.p - sign_flip(&terms, 1)).abs() < 1e-12, "{found:?}");
        // 6 won, 1 lost: 2 · (C(7,0) + C(7,1)) / 2⁷.
        assert!((found.p - 0.125).abs() < 1e-12);
        assert!((two_sided_binomial(2000, 1000) - 1.0).abs() < 1e-9 && two_sided_binomial(0, 0) == 1.0);
        assert_eq!(
            compare(Metric::SecureGivenPass, &before, &after, &units, 1).unwrap().test,
            Test::SignFlip
        );
    }

    #[test]
    fn distributions_are_those_of_the_tables() {
        for (x, tail) in [(0.0, 0.5), (1.0, 0.158_655_254), (1.959_964, 0.025), (3.0, 0.001_349_898)] {
            assert!((normal_tail(x) - tail).abs() < 1e-7, "{x}");
        }
        for (degrees, quantile) in [(5.0, 2.570_58), (23.0, 2.068_66), (143.0, 1.976_69)] {
            assert!((student(degrees) - quantile).abs() < 2e-3, "{degrees}: {}", student(degrees));
        }
    }
}
