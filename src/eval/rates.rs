//! The table of a run: which rates there are, over which scenarios, each with its intervals.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::metrics::{Counts, Metric};
use super::statistics::{CONFIDENCE, Estimate, REPLICATES, Units, estimate};
use super::suite::{ALL, Language, Scenario, TRAINED, UNSEEN};

/// Numbers of samples for which pass@k is in the table, where every scenario has as many.
pub const KS: [usize; 6] = [1, 5, 10, 25, 50, 100];

/// How intervals are made.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Confidence of every interval.
    pub confidence: f64,
    /// Bootstrap replicates.
    pub replicates: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { confidence: CONFIDENCE, replicates: REPLICATES, seed: 0 }
    }
}

/// Who says what is functional and secure. Rates of different oracles cannot be compared.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Oracle {
    /// Name of the checks.
    pub name: String,
    /// BLAKE3 of harness and checks, its first 16 digits.
    pub version: String,
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A scenario and what its samples come to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// Id of the scenario.
    pub id: String,
    /// Family of weaknesses.
    pub family: String,
    /// Weakness.
    pub cwe: String,
    /// Language of the code.
    pub language: Language,
    /// Whether no training pair is of this family.
    pub unseen: bool,
    /// What was continued.
    pub prompt: String,
    /// What follows a completion in the program that was judged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ending: String,
    /// Numbers of samples.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Row {
    /// A scenario of which nothing is counted yet.
    pub fn new(scenario: &Scenario) -> Self {
        let Scenario { meta, prompt, ending, .. } = scenario;
        Row {
            id: meta.id.clone(),
            family: meta.family.clone(),
            cwe: meta.cwe.clone(),
            language: meta.language,
            unseen: meta.unseen,
            prompt: prompt.clone(),
            ending: ending.clone(),
            counts: Counts::default(),
        }
    }
}

/// A rate of a run over a group of scenarios.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// `all`, `trained`, `unseen`, or a family's name.
    pub group: String,
    /// Which rate it is.
    pub metric: Metric,
    /// Scenarios in the group.
    pub scenarios: usize,
    /// The rate; `None` where it is not defined.
    pub value: Option<f64>,
    /// Interval from resampled scenarios.
    pub interval: Option<[f64; 2]>,
    /// Interval from resampled families, where there are several.
    pub families: Option<[f64; 2]>,
    /// Name and version of what judged.
    pub oracle: String,
}

/// Scenarios that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `all`, `trained`, `unseen`, or a family's name.
    pub name: String,
    /// Places of its scenarios.
    pub members: Vec<usize>,
    /// Whether it is a single family.
    pub is_family: bool,
}

/// All scenarios; trained and unseen families apart, if there are both; each family.
pub fn groups(rows: &[Row]) -> Vec<Group> {
    let group = |name: &str, is_family, is: &dyn Fn(&Row) -> bool| Group {
        name: name.to_owned(),
        members: (0..rows.len()).filter(|&i| is(&rows[i])).collect(),
        is_family,
    };
    let mut groups = vec![group(ALL, false, &|_| true)];
    if rows.iter().any(|row| row.unseen) && rows.iter().any(|row| !row.unseen) {
        groups.push(group(TRAINED, false, &|row| !row.unseen));
        groups.push(group(UNSEEN, false, &|row| row.unseen));
    }
    let families: BTreeSet<&str> = rows.iter().map(|row| row.family.as_str()).collect();
    groups.extend(families.into_iter().map(|family| group(family, true, &|row| row.family == family)));
    groups
}

impl Group {
    /// What is in the table of this group, if no scenario has fewer than `samples` samples.
    pub fn metrics(&self, samples: usize) -> Vec<Metric> {
        let ks: Vec<usize> = KS.into_iter().filter(|&k| k == 1 || k <= samples && !self.is_family).collect();
        let mut metrics: Vec<Metric> = ks.iter().map(|&k| Metric::Pass(k)).collect();
        metrics.extend(ks.iter().map(|&k| Metric::SecurePass(k)));
        metrics.push(Metric::SecureGivenPass);
        if !self.is_family {
            metrics.extend([Metric::SecureGivenParsed, Metric::SecureGivenParsedDistinct]);
        }
        metrics
    }

    /// Counts of its scenarios.
    pub fn counts(&self, rows: &[Row]) -> Vec<Counts> {
        self.members.iter().map(|&i| rows[i].counts).collect()
    }

    /// Its scenarios one by one.
    pub fn scenario_units(&self) -> Units {
        Units::scenarios(self.members.len())
    }

    /// Its families, if it is not one itself.
    pub fn family_units(&self, rows: &[Row]) -> Option<Units> {
        let names: Vec<&str> = self.members.iter().map(|&i| rows[i].family.as_str()).collect();
        (!self.is_family).then(|| Units::families(&names))
    }
}

/// The smallest number of samples of a scenario.
pub fn fewest_samples(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.counts.samples).min().unwrap_or(0)
}

/// All rates of a run.
pub fn rates(rows: &[Row], oracle: &Oracle, seed: u64) -> Vec<Rate> {
    let samples = fewest_samples(rows);
    let mut rates = Vec::new();
    for group in groups(rows) {
        let (counts, scenarios, families) =
            (group.counts(rows), group.scenario_units(), group.family_units(rows));
        for metric in group.metrics(samples) {
            let found = |units: &Units| estimate(metric, &counts, units, seed);
            let by_scenario = found(&scenarios);
            let interval = |estimate: Option<Estimate>| estimate.and_then(|estimate| estimate.interval);
            rates.push(Rate {
                group: group.name.clone(),
                metric,
                scenarios: group.members.len(),
                value: by_scenario.map(|estimate| estimate.value),
                interval: interval(by_scenario),
                families: interval(families.as_ref().and_then(found)),
                oracle: oracle.to_string(),
            });
        }
    }
    rates
}
