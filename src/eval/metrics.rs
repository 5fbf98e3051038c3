//! Rates of passing and of secure samples.
//!
//! Every sample counts in the denominators of pass@k and secure-pass@k, also one that does not parse and one
//! without a verdict. How far a rate can be trusted is for [`super::statistics`] to say.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the samples of one scenario were judged. Every sample counts in `samples`, whatever became of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All samples.
    pub samples: usize,
    /// Samples that parse (Python) or compile (C).
    pub parsed: usize,
    /// Samples that pass every functional check.
    pub functional: usize,
    /// Samples that pass every functional and every security check.
    pub secure: usize,
    /// Samples without a verdict; never part of `secure`.
    pub unknown: usize,
    /// Samples whose verdicts differ from each other; all of them are unknown.
    pub flaky: usize,
    /// Different completions that parse.
    pub distinct_parsed: usize,
    /// Different completions that are secure.
    pub distinct_secure: usize,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(all: I) -> Counts {
        all.fold(Counts::default(), |sum, counts| Counts {
            samples: sum.samples + counts.samples,
            parsed: sum.parsed + counts.parsed,
            functional: sum.functional + counts.functional,
            secure: sum.secure + counts.secure,
            unknown: sum.unknown + counts.unknown,
            flaky: sum.flaky + counts.flaky,
            distinct_parsed: sum.distinct_parsed + counts.distinct_parsed,
            distinct_secure: sum.distinct_secure + counts.distinct_secure,
        })
    }
}

/// Chance that at least one of `k` samples, drawn without replacement from `n` of which `c` are correct, is
/// correct:
/// `1 − C(n−c, k) / C(n, k)` (Chen et al. 2021). `None` if there are fewer than `k` samples, or `k` is 0.
///
/// # Panics
/// If `c` exceeds `n`.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> Option<f64> {
    assert!(c <= n, "{c} correct samples of {n}");
    if k == 0 || n < k {
        return None;
    }
    // The product of (n−c−i)/(n−i) is exact where binomial coefficients would overflow, and 0 once n−c < k.
    let none = (0..k).map(|i| n.saturating_sub(c + i) as f64 / (n - i) as f64).product::<f64>();
    Some(1.0 - none)
}

/// A rate of a method; in JSON, its name in tables.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Metric {
    /// pass@k: functional samples.
    Pass(usize),
    /// secure-pass@k: functional and secure samples.
    SecurePass(usize),
    /// secure@1_pass: secure samples among the functional ones, pooled over scenarios.
    SecureGivenPass,
    /// SVEN's security rate: secure samples among those that parse, pooled over scenarios. As a sample is
    /// secure only if it also works, it is no greater than the published rate would be.
    SecureGivenParsed,
    /// The same of the different completions of each scenario, as SVEN counts them.
    SecureGivenParsedDistinct,
}

const PASS: &str = "pass@";
const SECURE_PASS: &str = "secure-pass@";
const POOLED: [(&str, Metric); 3] = [
    ("secure@1_pass", Metric::SecureGivenPass),
    ("sven-sr", Metric::SecureGivenParsed),
    ("sven-sr-distinct", Metric::SecureGivenParsedDistinct),
];

/// The name in tables and files.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Pass(k) => f.pad(&format!("{PASS}{k}")),
            Metric::SecurePass(k) => f.pad(&format!("{SECURE_PASS}{k}")),
            pooled => f.pad(POOLED.iter().find(|(_, metric)| metric == pooled).map_or("", |(name, _)| name)),
        }
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl Metric {
    /// The rate over scenarios. `None` where it is not defined: fewer than k samples in a scenario, or no
    /// functional (parsed) sample at all.
    pub fn value<'a>(self, scenarios: impl IntoIterator<Item = &'a Counts>) -> Option<f64> {
        let (mut above, mut below) = (0.0, 0.0);
        for counts in scenarios {
            let (numerator, denominator) = self.terms(counts)?;
            above += numerator;
            below += denominator;
        }
        (below > 0.0).then(|| above / below)
    }

    /// What a scenario adds to numerator and denominator of the rate.
    pub(super) fn terms(self, counts: &Counts) -> Option<(f64, f64)> {
        let pooled = |secure: usize, of: usize| Some((secure as f64, of as f64));
        match self {
            Metric::Pass(k) => Some((pass_at_k(counts.samples, counts.functional, k)?, 1.0)),
            Metric::SecurePass(k) => Some((pass_at_k(counts.samples, counts.secure, k)?, 1.0)),
            Metric::SecureGivenPass => pooled(counts.secure, counts.functional),
            Metric::SecureGivenParsed => pooled(counts.secure, counts.parsed),
            Metric::SecureGivenParsedDistinct => pooled(counts.distinct_secure, counts.distinct_parsed),
        }
    }
}

/// Reads a name as it is in tables; hyphens and underscores are the same.
impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |name: &str| name.replace('_', "-");
        let name = plain(text);
        if let Some((_, metric)) = POOLED.iter().find(|(pooled, _)| plain(pooled) == name) {
            return Ok(*metric);
        }
        let k = |prefix: &str| name.strip_prefix(prefix)?.parse().ok().filter(|&k| k > 0);
        let at_k = k(PASS).map(Metric::Pass).or_else(|| k(SECURE_PASS).map(Metric::SecurePass));
        at_k.ok_or_else(|| {
            let pooled = POOLED.map(|(name, _)| name).join(", ");
            format!("expected {PASS}K, {SECURE_PASS}K, {pooled}, found {text:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(samples: usize, functional: usize, secure: usize) -> Counts {
        Counts { samples, parsed: samples, functional, secure, ..Counts::default() }
    }

    /// pass@k by counting all ways to draw k of n samples.
    fn slow_pass_at_k(n: usize, c: usize, k: usize) -> f64 {
        let subsets = (0u32..1 << n).filter(|set| set.count_ones() as usize == k);
        let (mut hits, mut all) = (0, 0);
        for set in subsets {
            all += 1;
            hits += u32::from(set & ((1 << c) - 1) != 0);
        }
        f64::from(hits) / f64::from(all)
    }

    #[test]
    fn pass_at_k_is_that_of_all_draws() {
        for n in 1..=10 {
            for c in 0..=n {
                for k in 1..=n {
                    let (found, expected) = (pass_at_k(n, c, k).unwrap(), slow_pass_at_k(n, c, k));
                    assert!((found - expected).abs() < 1e-12, "{n} {c} {k}: {found} {expected}");
                }
            }
        }
        assert_eq!((pass_at_k(3, 3, 4), pass_at_k(3, 1, 0), pass_at_k(0, 0, 1)), (None, None, None));
        assert_eq!(pass_at_k(100_000, 1, 1), Some(1.0 - 99_999.0 / 100_000.0));
    }

    #[test]
    fn rates_are_undefined_rather_than_perfect() {
        let scenarios = [counts(4, 0, 0), counts(4, 0, 0)];
        assert_eq!(Metric::SecureGivenPass.value(&scenarios), None);
        assert_eq!(Metric::SecureGivenParsed.value(&scenarios), Some(0.0));
        assert_eq!(Metric::SecurePass(5).value(&scenarios), None);
        assert_eq!(Metric::Pass(1).value(&[counts(4, 2, 1), counts(4, 4, 3)]), Some(0.75));
        assert_eq!(Metric::SecurePass(1).value(&[counts(4, 2, 1), counts(4, 4, 3)]), Some(0.5));
        assert_eq!(Metric::SecureGivenPass.value(&[counts(4, 2, 1), counts(4, 4, 3)]), Some(4.0 / 6.0));
        assert_eq!(Metric::Pass(1).value(&[]), None);
    }

    /// A sample as the definitions of the rates see it.
    #[derive(Clone, Copy)]
    struct Slow {
        scenario: usize,
        text: usize,
        parsed: bool,
        functional: bool,
        secure: bool,
    }

    /// Samples of five scenarios, of every kind there can be.
    fn samples() -> Vec<Slow> {
        let sample = |i: usize| {
            let text = i * i % 11;
            let parsed = !text.is_multiple_of(4);
            let functional = parsed && !text.is_multiple_of(3);
            Slow { scenario: i % 5, text, parsed, functional, secure: functional && text % 2 == 1 }
        };
        (0..60).map(sample).collect()
    }

    fn counted(samples: &[Slow]) -> Vec<Counts> {
        let of_scenario = |scenario| {
            let all: Vec<&Slow> = samples.iter().filter(|sample| sample.scenario == scenario).collect();
            let count = |is: fn(&Slow) -> bool| all.iter().filter(|sample| is(sample)).count();
            let distinct = |is: fn(&Slow) -> bool| {
                let texts: std::collections::BTreeSet<usize> =
                    all.iter().filter(|sample| is(sample)).map(|sample| sample.text).collect();
                texts.len()
            };
            Counts {
                samples: all.len(),
                parsed: count(|s| s.parsed),
                functional: count(|s| s.functional),
                secure: count(|s| s.secure),
                distinct_parsed: distinct(|s| s.parsed),
                distinct_secure: distinct(|s| s.secure),
                ..Counts::default()
            }
        };
        (0..5).map(of_scenario).collect()
    }

    /// The mean over scenarios of the share of k-element sets with a good sample.
    fn slow_at_k(samples: &[Slow], k: usize, good: fn(&Slow) -> bool) -> f64 {
        let of_scenario = |scenario: usize| {
            let all: Vec<&Slow> = samples.iter().filter(|sample| sample.scenario == scenario).collect();
            let sets = || (0u32..1 << all.len()).filter(|set| set.count_ones() as usize == k);
            let hit = |set: &u32| (0..all.len()).any(|i| set >> i & 1 == 1 && good(all[i]));
            sets().filter(hit).count() as f64 / sets().count() as f64
        };
        (0..5).map(of_scenario).sum::<f64>() / 5.0
    }

    #[test]
    fn every_rate_is_that_of_its_definition() {
        let samples = samples();
        let counts = counted(&samples);
        let share = |of: &[Slow], good: fn(&Slow) -> bool, among: fn(&Slow) -> bool| {
            let among: Vec<&Slow> = of.iter().filter(|sample| among(sample)).collect();
            among.iter().filter(|sample| good(sample)).count() as f64 / among.len() as f64
        };
        let mut once = samples.clone();
        once.sort_by_key(|sample| (sample.scenario, sample.text));
        once.dedup_by_key(|sample| (sample.scenario, sample.text));
        let mut expected = vec![
            (Metric::SecureGivenPass, share(&samples, |s| s.secure, |s| s.functional)),
            (Metric::SecureGivenParsed, share(&samples, |s| s.secure, |s| s.parsed)),
            (Metric::SecureGivenParsedDistinct, share(&once, |s| s.secure, |s| s.parsed)),
        ];
        for k in [1, 2, 5, 12] {
            expected.push((Metric::Pass(k), slow_at_k(&samples, k, |s| s.functional)));
            expected.push((Metric::SecurePass(k), slow_at_k(&samples, k, |s| s.secure)));
        }
        for (metric, expected) in expected {
            let found = metric.value(&counts).unwrap();
            assert!((found - expected).abs() < 1e-12, "{metric}: {found} {expected}");
            assert!(found > 0.0, "{metric}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let pooled = POOLED.map(|(_, metric)| metric);
        for metric in [&pooled[..], &[Metric::Pass(1), Metric::SecurePass(10)]].concat() {
            assert_eq!(metric.to_string().parse(), Ok(metric));
            assert_eq!(metric.to_string().replace('-', "_").parse(), Ok(metric));
        }
        for wrong in ["", "pass", "pass@", "pass@0", "pass@-1", "secure@2_pass", "PASS@1"] {
            let message = wrong.parse::<Metric>().unwrap_err();
            assert!(message.contains("expected pass@K, secure-pass@K, secure@1_pass"), "{message}");
        }
    }
}
