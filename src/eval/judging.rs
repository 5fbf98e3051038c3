//! Judging a file of samples, whoever made it: `samples.jsonl` → `verdicts.jsonl`. Lines are only added, each
//! distinct program is judged once, and what was judged is never judged again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use super::judge::Judge;
use super::lines::{Lines, parse, read};
use super::samples::{SampleLine, VerdictLine, numbered};
use super::suite::{Scenario, Suite};
use super::verdict::Verdict;
use super::work::{Done, in_order};
use crate::error::{Error, ErrorKind, Result, at_most, list};

/// Longest completion in bytes.
const MAX_COMPLETION: usize = 1 << 20;

/// Complaints about a file that are shown.
const MAX_COMPLAINTS: usize = 10;

/// A judge, on several threads, that can be asked to stop.
pub struct Judging<'a> {
    /// Who judges.
    pub judge: &'a Judge<'a>,
    /// Programs that run at a time.
    pub workers: usize,
    /// Whether to stop, asked before every program.
    pub should_stop: &'a (dyn Fn() -> bool + Sync),
    /// Gets every program that was judged, with its time in the sandbox.
    pub on_run: &'a (dyn Fn(&Scenario, &str, Duration) + Sync),
}

impl Judging<'_> {
    /// [`Judge::judge`], and says so.
    pub(super) fn run(&self, slot: u32, scenario: &Scenario, program: &str) -> Result<Verdict> {
        let (verdict, wall) = self.judge.judge(slot, scenario, program)?;
        (self.on_run)(scenario, program, wall);
        Ok(verdict)
    }
}

/// What judging a file of samples came to.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// A line for every sample that has a verdict, in the order of the samples.
    pub lines: Vec<VerdictLine>,
    /// Samples without one, and why: they are judged the next time.
    pub unjudged: Vec<(SampleLine, String)>,
}

impl Judged {
    /// Samples of which not everything is known.
    pub fn unknown(&self) -> usize {
        self.lines.iter().filter(|line| !line.verdict.is_known()).count() + self.unjudged.len()
    }
}

/// Reads a file of samples. Samples without a number get theirs in the order of the file.
///
/// # Errors
/// Kind `Data`, with the lines: no JSON, an id that is not in the suite, a sample that is there twice, a
/// completion of more than 1 MiB, or no samples at all.
pub fn read_samples(path: &Path, suite: &Suite) -> Result<Vec<SampleLine>> {
    let samples = numbered(parse(path, &read(path)?)?);
    if samples.is_empty() {
        return Err(Error::data(format!(
            "{}: expected samples, a line of JSON each with `id` and `completion`; the file is empty",
            path.display()
        )));
    }
    let mut complaints = Vec::new();
    let mut seen = HashSet::new();
    for (i, SampleLine { id, sample, completion, .. }) in samples.iter().enumerate() {
        let mut complain = |why: String| complaints.push(format!("line {}: {why}", i + 1));
        if suite.scenario(id).is_none() {
            complain(format!("the suite has no scenario {id:?}"));
        } else if !seen.insert((id, sample)) {
            complain(format!("sample {sample} of {id} is there twice"));
        } else if completion.len() > MAX_COMPLETION {
            complain(format!("a completion of {} bytes; expected up to {MAX_COMPLETION}", completion.len()));
        }
    }
    if complaints.is_empty() {
        return Ok(samples);
    }
    let complaints = at_most(MAX_COMPLAINTS, complaints);
    Err(Error::data(format!("{}: {}", path.display(), list("lines that cannot be judged", complaints))))
}

/// A program that is to be judged.
struct Program<'a> {
    scenario: &'a Scenario,
    text: String,
    /// BLAKE3 of the text.
    hash: String,
    key: String,
}

/// Judges samples and adds their verdicts to `file`. `on_line` gets every line, old ones too.
///
/// # Errors
/// Kind `Data`: a verdict in the file is of another program, other checks or another environment. Kind
/// `Verdict`: the file cannot be written. Kind `Preempted`: it was asked to stop. What was judged is kept.
pub fn judge(
    judging: &Judging<'_>,
    samples: &[SampleLine],
    file: &Path,
    on_line: &mut dyn FnMut(&VerdictLine),
) -> Result<Judged> {
    let programs = programs(judging.judge, samples)?;
    let (mut lines, known) = Lines::open::<VerdictLine>(file)?;
    let known = Known::new(file, known, samples, &programs)?;
    let work = |slot: u32, program: &&Program<'_>| match known.by_key.get(&program.key) {
        Some(verdict) => Ok(verdict.clone()),
        None => judging.run(slot, program.scenario, &program.text),
    };
    let jobs = in_order_of_samples(samples, &programs);
    let mut judged = Judged::default();
    let mut verdicts: HashMap<&str, std::result::Result<Verdict, String>> = HashMap::new();
    let mut turn = 0;
    let done = in_order(&jobs, judging.workers, judging.should_stop, &work, &mut |i, verdict| {
        let verdict = match verdict {
            Err(error) if error.kind() == ErrorKind::Device => Err(error.to_string()),
            other => Ok(other?),
        };
        verdicts.insert(&jobs[i].key, verdict);
        // Every sample up to the next program that is not yet judged has its verdict now.
        while let Some(sample) = samples.get(turn) {
            let program = &programs[&(sample.id.as_str(), sample.completion.as_str())];
            let Some(verdict) = verdicts.get(program.key.as_str()) else { break };
            turn += 1;
            match verdict {
                Err(why) => judged.unjudged.push((sample.clone(), why.clone())),
                Ok(verdict) => {
                    let line = line_of(sample, program, verdict);
                    if !known.has(sample) {
                        lines.add(&line)?;
                    }
                    on_line(&line);
                    judged.lines.push(line);
                }
            }
        }
        Ok(())
    })?;
    match done {
        Done::All => Ok(judged),
        Done::Stopped => Err(stopped(judged.lines.len(), samples.len(), "samples")),
    }
}

fn programs<'a>(
    judge: &Judge<'a>,
    samples: &'a [SampleLine],
) -> Result<HashMap<(&'a str, &'a str), Program<'a>>> {
    let mut programs = HashMap::new();
    for sample in samples {
        let place = (sample.id.as_str(), sample.completion.as_str());
        if programs.contains_key(&place) {
            continue;
        }
        let scenario = judge.suite().scenario(&sample.id);
        let scenario =
            scenario.ok_or_else(|| Error::data(format!("the suite has no scenario {}", sample.id)))?;
        let text = scenario.program(&sample.completion);
        let key = judge.key(scenario, &text)?;
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        programs.insert(place, Program { scenario, text, hash, key });
    }
    Ok(programs)
}

/// Each distinct program once.
fn in_order_of_samples<'a, 'p>(
    samples: &'a [SampleLine],
    programs: &'p HashMap<(&'a str, &'a str), Program<'a>>,
) -> Vec<&'p Program<'a>> {
    let mut seen = HashSet::new();
    samples
        .iter()
        .map(|sample| &programs[&(sample.id.as_str(), sample.completion.as_str())])
        .filter(|program| seen.insert(program.key.as_str()))
        .collect()
}

fn line_of(sample: &SampleLine, program: &Program<'_>, verdict: &Verdict) -> VerdictLine {
    VerdictLine {
        id: sample.id.clone(),
        sample: sample.sample,
        program: program.hash.clone(),
        key: program.key.clone(),
        verdict: verdict.clone(),
    }
}

/// Verdicts of an earlier run.
struct Known {
    by_key: HashMap<String, Verdict>,
    samples: HashSet<(String, u32)>,
}

impl Known {
    /// Refuses lines that are not of these samples, judged as they would be now.
    fn new(
        file: &Path,
        lines: Vec<VerdictLine>,
        samples: &[SampleLine],
        programs: &HashMap<(&str, &str), Program<'_>>,
    ) -> Result<Self> {
        let expected: BTreeMap<(&str, u32), &Program<'_>> = samples
            .iter()
            .map(|s| ((s.id.as_str(), s.sample), &programs[&(s.id.as_str(), s.completion.as_str())]))
            .collect();
        let mut known = Known { by_key: HashMap::new(), samples: HashSet::new() };
        for (i, line) in lines.into_iter().enumerate() {
            let complain = |why: &str| {
                let VerdictLine { id, sample, .. } = &line;
                Err(Error::data(format!(
                    "{}: line {}: the verdict on sample {sample} of {id} {why}; choose another --output-dir",
                    file.display(),
                    i + 1
                )))
            };
            let Some(program) = expected.get(&(line.id.as_str(), line.sample)) else {
                return complain("is of no sample of this file");
            };
            if line.program != program.hash {
                return complain("is of another program");
            }
            if line.key != program.key {
                return complain("was found by other checks or in another environment");
            }
            if !known.samples.insert((line.id.clone(), line.sample)) {
                return complain("is there twice");
            }
            known.by_key.insert(line.key, line.verdict);
        }
        Ok(known)
    }

    fn has(&self, sample: &SampleLine) -> bool {
        self.samples.contains(&(sample.id.clone(), sample.sample))
    }
}

/// The end of a run that was asked to stop.
pub(super) fn stopped(done: usize, all: usize, what: &str) -> Error {
    Error::new(ErrorKind::Preempted, format!("stopped after {done} of {all} {what}"))
}
