//! Runs against each other: the same scenarios, judged by the same checks, in pairs.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use super::differences::differences;
use super::metrics::Metric;
use super::rates::{KS, Row, fewest_samples, groups};
use super::run::{Joined, RunLines};
use super::seal::Seal;
use super::statistics::{Test, compare as compare_rates, difference};
use super::suite::ALL;
use crate::error::{Error, ErrorKind, Result, at_most, list};

/// Differences between runs that are named.
const MAX_NAMED: usize = 10;

/// A sealed run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is called in tables: its method, with the folder where several have the same.
    pub label: String,
    /// Its seal.
    pub seal: Seal,
    /// Samples and verdicts.
    pub lines: RunLines,
}

impl Run {
    /// Reads a run, whose lines have to be those that were sealed.
    ///
    /// # Errors
    /// Kind `Data`: a file is missing or cut off. Kind `Verdict`: the seal is broken.
    pub fn open(folder: &Path) -> Result<Self> {
        let seal = Seal::read(folder)?;
        let lines = RunLines::read(folder)?;
        let hashes = (&lines.samples_hash, &lines.verdicts_hash);
        if hashes != (&seal.hashes.samples, &seal.hashes.verdicts) || !seal.is_intact()? {
            let advice = "`dg-run eval verify` names the differences";
            let text = format!("{}: the run is not as it was sealed; {advice}", folder.display());
            return Err(Error::new(ErrorKind::Verdict, text));
        }
        Ok(Run { folder: folder.to_owned(), label: seal.method.clone(), seal, lines })
    }

    /// Several runs, with labels that tell them apart.
    ///
    /// # Errors
    /// Those of [`Run::open`].
    pub fn open_all<P: AsRef<Path>>(folders: &[P]) -> Result<Vec<Self>> {
        let mut runs = folders.iter().map(|folder| Run::open(folder.as_ref())).collect::<Result<Vec<_>>>()?;
        let methods: Vec<String> = runs.iter().map(|run| run.seal.method.clone()).collect();
        for run in &mut runs {
            if methods.iter().filter(|method| **method == run.seal.method).count() > 1 {
                run.label = format!("{} ({})", run.seal.method, run.folder.display());
            }
        }
        Ok(runs)
    }

    /// Samples with their verdicts.
    pub fn judged(&self) -> Joined<'_> {
        self.lines.join(&|_, _| None)
    }

    /// The scenario with this id.
    pub fn row(&self, id: &str) -> Option<&Row> {
        let found = self.seal.scenarios.binary_search_by(|row| row.id.as_str().cmp(id));
        found.ok().map(|at| &self.seal.scenarios[at])
    }
}

/// A run's rate less that of the first run, over a group of scenarios.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Label of the first run.
    pub baseline: String,
    /// Label of the other one.
    pub run: String,
    /// `all`, `trained`, `unseen`, or a family's name.
    pub group: String,
    /// Which rate it is.
    pub metric: Metric,
    /// Scenarios in the group.
    pub scenarios: usize,
    /// Rate of the first run; `None` where it is not defined.
    pub baseline_value: Option<f64>,
    /// Rate of the other one.
    pub value: Option<f64>,
    /// The difference; `None` where a rate is not defined.
    pub difference: Option<f64>,
    /// Its interval from resampled scenarios, the same for both runs.
    pub interval: Option<[f64; 2]>,
    /// Its interval from resampled families, where there are several.
    pub families: Option<[f64; 2]>,
    /// Two-sided p value over scenarios.
    pub p: Option<f64>,
    /// What the p value comes from.
    pub test: Option<Test>,
    /// Name and version of what judged.
    pub oracle: String,
}

/// Compares every run with the first.
///
/// # Errors
/// Kind `Data`: they were not judged on the same scenarios, by the same checks.
pub fn compare(runs: &[Run]) -> Result<Vec<Difference>> {
    let [baseline, others @ ..] = runs else { return Ok(Vec::new()) };
    let mut differences = Vec::new();
    for run in others {
        require_comparable(baseline, run)?;
        differences.extend(differences_of(baseline, run));
    }
    Ok(differences)
}

fn differences_of(baseline: &Run, run: &Run) -> Vec<Difference> {
    let (before, after) = (&baseline.seal.scenarios, &run.seal.scenarios);
    let samples = fewest_samples(before).min(fewest_samples(after));
    let seed = run.seal.statistics.seed;
    let mut differences = Vec::new();
    for group in groups(before) {
        let counts = [group.counts(before), group.counts(after)];
        let (scenarios, families) = (group.scenario_units(), group.family_units(before));
        for metric in group.metrics(samples) {
            let by_scenario = compare_rates(metric, &counts[0], &counts[1], &scenarios, seed);
            let by_family = families.as_ref();
            let by_family =
                by_family.and_then(|units| difference(metric, &counts[0], &counts[1], units, seed));
            differences.push(Difference {
                baseline: baseline.label.clone(),
                run: run.label.clone(),
                group: group.name.clone(),
                metric,
                scenarios: group.members.len(),
                baseline_value: metric.value(&counts[0]),
                value: metric.value(&counts[1]),
                difference: by_scenario.map(|found| found.difference.value),
                interval: by_scenario.and_then(|found| found.difference.interval),
                families: by_family.and_then(|found| found.interval),
                p: by_scenario.map(|found| found.p),
                test: by_scenario.map(|found| found.test),
                oracle: run.seal.oracle.to_string(),
            });
        }
    }
    differences
}

/// Refuses runs whose rates are not of the same things.
fn require_comparable(first: &Run, other: &Run) -> Result<()> {
    let mut reasons = Vec::new();
    let (one, two) = (&first.seal, &other.seal);
    let mut same = |what: &str, one: String, two: String| {
        if one != two {
            reasons.push(format!("{what}: {one} and {two}"));
        }
    };
    same("oracle", one.oracle.to_string(), two.oracle.to_string());
    same("BLAKE3 of the harness", one.hashes.harness.clone(), two.hashes.harness.clone());
    same("BLAKE3 of the checks", one.hashes.checks.clone(), two.hashes.checks.clone());
    same("BLAKE3 of the prompts", one.hashes.prompts.clone(), two.hashes.prompts.clone());
    same("seed of the resamples", one.statistics.seed.to_string(), two.statistics.seed.to_string());
    let only_in = |seal: &Seal, run: &Run| -> Vec<String> {
        let missing = seal.scenarios.iter().filter(|row| run.row(&row.id).is_none());
        missing.map(|row| format!("no scenario {} in {}", row.id, run.folder.display())).collect()
    };
    reasons.extend(at_most(MAX_NAMED, [only_in(one, other), only_in(two, first)].concat()));
    if reasons.is_empty() {
        return Ok(());
    }
    let title = "they were not judged on the same scenarios by the same checks";
    let reasons = list("the runs differ in more than their method", reasons);
    Err(Error::data(format!(
        "{} and {} cannot be compared, as {title}: {reasons}",
        first.folder.display(),
        other.folder.display()
    )))
}

/// What two runs were judged with that differs, such as the version of a compiler.
///
/// # Errors
/// None that can be met.
pub fn environment_differences(first: &Run, other: &Run) -> Result<Vec<String>> {
    let found = differences(&first.seal.environment, &other.seal.environment)?;
    Ok(found.iter().map(|found| format!("{}: {} and {}", found.place, found.one, found.other)).collect())
}

/// What a comparison has to show: `METRIC:+D`, at least D more than the first run over all scenarios, or
/// `METRIC:-D`, no more than D less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirement {
    /// The rate.
    pub metric: Metric,
    /// The least difference.
    pub least: f64,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let complain = || {
            format!("expected a rate and a signed difference, such as secure-pass@1:+0.05, found {text:?}")
        };
        let (metric, least) = text.split_once(':').ok_or_else(complain)?;
        let metric: Metric = metric.parse()?;
        if let Metric::Pass(k) | Metric::SecurePass(k) = metric
            && !KS.contains(&k)
        {
            return Err(format!("expected one of the numbers of samples in the table, {KS:?}, found @{k}"));
        }
        let signed = least.starts_with(['+', '-']);
        let least: f64 = least.parse().map_err(|_| complain())?;
        if !signed || !(-1.0..=1.0).contains(&least) {
            return Err(complain());
        }
        Ok(Requirement { metric, least })
    }
}

impl Requirement {
    /// Why differences do not fulfil it; nothing if they do.
    pub fn failures(&self, differences: &[Difference]) -> Vec<String> {
        let name = self.metric;
        let of_rate = differences.iter().filter(|found| found.group == ALL && found.metric == name);
        let short =
            of_rate.clone().filter(|found| found.difference.is_none_or(|found| found < self.least - 1e-12));
        let failure = |found: &Difference| {
            let shown =
                found.difference.map_or("no difference, as it is not defined".into(), |d| format!("{d:+.4}"));
            format!("{name} of {}: expected {:+} to {}, found {shown}", found.run, self.least, found.baseline)
        };
        if of_rate.clone().next().is_none() {
            return vec![format!("{name}: no scenario has as many samples, or there is nothing to compare")];
        }
        short.map(failure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_signed_differences() {
        let metric = Metric::SecurePass(1);
        for (text, least) in
            [("secure_pass@1:+0.05", 0.05), ("secure-pass@1:-0.02", -0.02), ("secure-pass@1:+0", 0.0)]
        {
            assert_eq!(text.parse(), Ok(Requirement { metric, least }));
        }
        for wrong in [
            "",
            "secure_pass@1",
            "secure_pass@1:0.05",
            "secure_pass@1:+x",
            "secure_pass@1:+5",
            "x:+0.1",
            "secure_pass@1:+NaN",
        ] {
            assert!(wrong.parse::<Requirement>().unwrap_err().contains("expected"), "{wrong}");
        }
    }
}
