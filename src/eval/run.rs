//! The folder of a run read back: samples with their verdicts, and what the samples of a scenario come to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::lines::{parse, read};
use super::metrics::Counts;
use super::samples::{SampleLine, VerdictLine, numbered};
use super::verdict::{Functional, Secure, Verdict};
use crate::error::{Error, Result};

/// File of a run's folder with its samples, a [`SampleLine`] each.
pub const SAMPLES: &str = "samples.jsonl";

/// File of a run's folder that says how its samples were made.
pub const SAMPLING: &str = "sampling.json";

/// File of a run's folder with the verdicts on references of its scenarios.
pub const REFERENCES: &str = "references.jsonl";

/// File of a run's folder with its verdicts, a [`VerdictLine`] each.
pub const VERDICTS: &str = "verdicts.jsonl";

/// The two files of lines.
#[derive(Clone, Debug)]
pub struct RunLines {
    /// Samples in the order of the file.
    pub samples: Vec<SampleLine>,
    /// Verdicts in the order of the file.
    pub verdicts: Vec<VerdictLine>,
    /// BLAKE3 of the file of samples.
    pub samples_hash: String,
    /// BLAKE3 of the file of verdicts.
    pub verdicts_hash: String,
}

/// A sample with what became of it.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    /// The sample.
    pub sample: &'a SampleLine,
    /// Its verdict; unknown where there is none.
    pub verdict: Verdict,
}

/// Samples with their verdicts by scenario, and what does not fit together.
#[derive(Clone, Debug, Default)]
pub struct Joined<'a> {
    /// Samples of every scenario in the order of the file.
    pub scenarios: BTreeMap<&'a str, Vec<Judged<'a>>>,
    /// Samples that are there twice, verdicts without a sample, or of another program.
    pub problems: Vec<String>,
}

impl RunLines {
    /// Reads both files.
    ///
    /// # Errors
    /// Kind `Data`, with file and line: a file is missing, is cut off, or has something else in it.
    pub fn read(folder: &Path) -> Result<Self> {
        let [samples, verdicts] = [SAMPLES, VERDICTS].map(|name| folder.join(name));
        let advice = |advice: &'static str| move |error: Error| error.advice(advice);
        let samples_text = read(&samples).map_err(advice("sample the scenarios first"))?;
        let verdicts_text = read(&verdicts).map_err(advice("judge the samples first"))?;
        if verdicts_text.last().is_some_and(|last| *last != b'\n') {
            return Err(Error::data(format!(
                "{}: the last line is cut off; judge the samples again, which adds what is missing",
                verdicts.display()
            )));
        }
        let hash = |text: &[u8]| blake3::hash(text).to_hex().to_string();
        Ok(RunLines {
            samples: numbered(parse(&samples, &samples_text)?),
            verdicts: parse(&verdicts, &verdicts_text)?,
            samples_hash: hash(&samples_text),
            verdicts_hash: hash(&verdicts_text),
        })
    }

    /// Puts samples and verdicts together. `program` makes the program of a scenario's completion, and says
    /// nothing of scenarios that it does not know.
    pub fn join<'a>(&'a self, program: &dyn Fn(&str, &str) -> Option<String>) -> Joined<'a> {
        let mut joined = Joined::default();
        let mut verdicts = self.verdicts_by_sample();
        let mut seen = HashSet::new();
        for sample in &self.samples {
            let SampleLine { id, sample: number, completion, .. } = sample;
            if !seen.insert((id.as_str(), *number)) {
                joined.problems.push(format!("{SAMPLES}: sample {number} of {id} is there twice"));
                continue;
            }
            let lines = verdicts.remove(&(id.as_str(), *number)).unwrap_or_default();
            let hash = program(id, completion).map(|program| blake3::hash(program.as_bytes()).to_hex());
            let other = lines.iter().any(|line| hash.is_some_and(|hash| line.program != hash.as_str()));
            if other {
                joined.problems.push(format!(
                    "{VERDICTS}: the verdict on sample {number} of {id} is of another program"
                ));
            }
            let verdict = verdict_of(&lines);
            joined.scenarios.entry(id).or_default().push(Judged { sample, verdict });
        }
        let mut left: Vec<&(&str, u32)> = verdicts.keys().collect();
        left.sort();
        for (id, number) in left {
            joined.problems.push(format!("{VERDICTS}: there is no sample {number} of {id}"));
        }
        joined
    }

    fn verdicts_by_sample(&self) -> HashMap<(&str, u32), Vec<&VerdictLine>> {
        let mut by_sample: HashMap<(&str, u32), Vec<&VerdictLine>> = HashMap::new();
        for line in &self.verdicts {
            by_sample.entry((line.id.as_str(), line.sample)).or_default().push(line);
        }
        by_sample
    }
}

/// Only verdicts that agree say anything.
fn verdict_of(lines: &[&VerdictLine]) -> Verdict {
    let Some(first) = lines.first() else { return Verdict::unknown("it was not judged") };
    let outcome = |line: &VerdictLine| (line.verdict.functional, line.verdict.secure);
    match lines.iter().find(|line| outcome(line) != outcome(first)) {
        None => first.verdict.clone(),
        Some(other) => Verdict::flaky(&first.verdict, &other.verdict),
    }
}

/// What the samples of a scenario come to.
pub fn count(samples: &[Judged<'_>]) -> Counts {
    let count = |is: fn(&Verdict) -> bool| samples.iter().filter(|judged| is(&judged.verdict)).count();
    let distinct = |is: fn(&Verdict) -> bool| {
        let texts =
            samples.iter().filter(|judged| is(&judged.verdict)).map(|judged| &judged.sample.completion);
        texts.collect::<BTreeSet<_>>().len()
    };
    Counts {
        samples: samples.len(),
        parsed: count(is_parsed),
        functional: count(is_functional),
        secure: count(is_secure),
        unknown: count(|verdict| !verdict.is_known()),
        flaky: count(|verdict| verdict.flaky),
        distinct_parsed: distinct(is_parsed),
        distinct_secure: distinct(is_secure),
    }
}

fn is_parsed(verdict: &Verdict) -> bool {
    verdict.parsed == Some(true)
}

fn is_functional(verdict: &Verdict) -> bool {
    verdict.functional == Functional::Pass
}

/// Both have to be known: a line that somebody else wrote may say that a broken function is secure.
fn is_secure(verdict: &Verdict) -> bool {
    is_functional(verdict) && verdict.secure == Secure::Yes
}
