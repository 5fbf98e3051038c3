//! The seal of a run: hashes of all that its rates come from, versions of all that its verdicts depend on,
//! and the rates. Whoever has the folder can make the seal again and compare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::differences::{self, Difference};
use super::environment::Environment;
use super::lines::read;
use super::metrics::Counts;
use super::rates::{Oracle, Rate, Row, Settings, rates};
use super::references::Excluded;
use super::run::{Joined, Judged, REFERENCES, RunLines, SAMPLING, count};
use super::samples::SampleLine;
use super::suite::{Layout, Scenario, Suite, harness_hash};
use crate::error::{Context, Error, ErrorKind, Result, at_most, list};
use crate::files::{json_text, write_json};
use crate::manifest::{self, MANIFEST, Others};
use crate::model::Weights;

/// File of a run's folder with its seal.
pub const SEAL: &str = "eval.json";

/// Version of the seal's form.
const FORMAT: u32 = 2;

/// Problems that are named.
const MAX_NAMED: usize = 50;

/// What a run was made of and what came out, `eval.json` of its folder.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Version of this form.
    pub format: u32,
    /// What made the samples.
    pub method: String,
    /// Who says what is functional and secure.
    pub oracle: Oracle,
    /// How the suite is laid out.
    pub layout: Layout,
    /// How the samples were made: model, adapter, preset, seed and so on; `None` for those of another
    /// program.
    pub generation: Option<Value>,
    /// What the verdicts were found with.
    pub environment: Environment,
    /// BLAKE3 of all that the rates come from.
    pub hashes: Hashes,
    /// How intervals are made.
    pub statistics: Settings,
    /// Sums over all scenarios.
    pub totals: Counts,
    /// Rates with their intervals.
    pub rates: Vec<Rate>,
    /// Scenarios whose references did not get their verdicts, with the reason. They are part of no rate.
    pub excluded: Excluded,
    /// Scenarios of the suite that were not asked for.
    pub left_out: Vec<String>,
    /// Scenarios in the order of their ids.
    pub scenarios: Vec<Row>,
    /// BLAKE3 of this file with an empty text here.
    pub seal: String,
}

/// BLAKE3 of files and of parts of a suite.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// Ids and prompts of all scenarios, also of the excluded ones.
    pub prompts: String,
    /// Ids and checks of all scenarios, also of the excluded ones.
    pub checks: String,
    /// Files of the harness.
    pub harness: String,
    /// `samples.jsonl`.
    pub samples: String,
    /// `verdicts.jsonl`.
    pub verdicts: String,
    /// `references.jsonl`, by which scenarios are excluded; `None` where there is none.
    pub references: Option<String>,
}

/// What a seal says beside what stands in the folder.
#[derive(Clone, Debug)]
pub struct Judgement<'a> {
    /// The suite whose checks judged the samples.
    pub suite: &'a Suite,
    /// What the verdicts were found with.
    pub environment: &'a Environment,
    /// BLAKE3 of the files of the harness.
    pub harness: &'a str,
    /// Scenarios that cannot be judged here.
    pub excluded: &'a Excluded,
}

/// Seals a run's folder that has samples and verdicts: writes `eval.json`. Scenarios are those of
/// `sampling.json`, if there is one, and those of the samples; one without any sample counts as many unknown
/// samples as were asked for, or as the others have. `method` is the name in tables; if `None`, that of
/// `sampling.json` or of the folder.
///
/// # Errors
/// Kind `Data`: a file is missing or cut off, or samples, verdicts and suite do not fit together. Kind
/// `Verdict`: there is no scenario whose samples can be counted. Kind `Device`: `eval.json` cannot be
/// written.
pub fn seal(folder: &Path, judgement: &Judgement<'_>, method: Option<&str>) -> Result<Seal> {
    let lines = RunLines::read(folder)?;
    let generation = sampling(folder)?;
    let (mut rows, left_out) = judgement.rows(folder, &asked(&lines.samples, generation.as_ref()))?;
    fill(&mut rows, &judgement.join(folder, &lines)?.scenarios, generation.as_ref());
    let hashes = Hashes::new(folder, &lines, judgement, &rows)?;
    let oracle = oracle(judgement.suite.layout, &hashes);
    let method = method.map(str::to_owned).or_else(|| named(generation.as_ref()));
    let statistics = Settings::default();
    let mut seal = Seal {
        format: FORMAT,
        method: method.unwrap_or_else(|| folder_name(folder)),
        layout: judgement.suite.layout,
        generation,
        environment: judgement.environment.clone(),
        statistics,
        totals: totals(&rows),
        rates: rates(&rows, &oracle, statistics.seed),
        oracle,
        hashes,
        excluded: judgement.excluded.clone(),
        left_out,
        scenarios: rows,
        seal: String::new(),
    };
    seal.seal = seal.own_hash()?;
    write_json(&folder.join(SEAL), &seal)?;
    Ok(seal)
}

impl Judgement<'_> {
    /// The scenarios that were asked for and can be judged, and the ids of those that were not asked for.
    fn rows(&self, folder: &Path, asked: &[&str]) -> Result<(Vec<Row>, Vec<String>)> {
        let complain = |kind, text: String| Err(Error::new(kind, format!("{}: {text}", folder.display())));
        if let Some(stranger) = asked.iter().find(|id| self.suite.scenario(id).is_none()) {
            let suite = self.suite.dir.display();
            return complain(ErrorKind::Data, format!("the suite {suite} has no scenario {stranger:?}"));
        }
        let is_asked = |scenario: &&Scenario| asked.binary_search(&scenario.meta.id.as_str()).is_ok();
        let (asked, left_out): (Vec<&Scenario>, Vec<&Scenario>) =
            self.suite.scenarios.iter().partition(is_asked);
        let judged = asked.into_iter().filter(|scenario| !self.excluded.contains_key(&scenario.meta.id));
        let rows: Vec<Row> = judged.map(Row::new).collect();
        if rows.is_empty() {
            return complain(ErrorKind::Verdict, "no scenario can be judged on this machine".to_owned());
        }
        Ok((rows, left_out.into_iter().map(|scenario| scenario.meta.id.clone()).collect()))
    }

    /// Samples with their verdicts, which have to fit together.
    fn join<'l>(&self, folder: &Path, lines: &'l RunLines) -> Result<Joined<'l>> {
        let program = |id: &str, completion: &str| Some(self.suite.scenario(id)?.program(completion));
        let joined = lines.join(&program);
        if joined.problems.is_empty() {
            return Ok(joined);
        }
        let problems = list("samples and verdicts do not fit together", at_most(MAX_NAMED, joined.problems));
        Err(Error::data(format!("{}: {problems}", folder.display())))
    }
}

impl Seal {
    /// Reads `eval.json` of a run's folder.
    ///
    /// # Errors
    /// Kind `Data`: there is none, or it is of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SEAL);
        let complain = || format!("cannot read {}; `dg-run eval judge` seals a run", path.display());
        let text = std::fs::read(&path).kind(ErrorKind::Data, complain)?;
        let value: Value = serde_json::from_slice(&text)
            .kind(ErrorKind::Data, || format!("{}: expected the seal of a run", path.display()))?;
        if value["format"] != FORMAT {
            return Err(Error::data(format!(
                "{}: expected a seal of format {FORMAT}, found {}; seal the run again",
                path.display(),
                value["format"]
            )));
        }
        serde_json::from_value(value)
            .kind(ErrorKind::Data, || format!("{}: expected the seal of a run", path.display()))
    }

    /// The same seal from the folder's lines as they are now, and what does not fit together in them.
    pub fn again(&self, lines: &RunLines) -> Result<(Seal, Vec<String>)> {
        let mut again = self.clone();
        let programs: BTreeMap<&str, &Row> =
            self.scenarios.iter().map(|row| (row.id.as_str(), row)).collect();
        let Joined { scenarios, mut problems } = lines.join(&|id, completion| {
            programs.get(id).map(|row| format!("{}{completion}{}", row.prompt, row.ending))
        });
        let strangers =
            scenarios.keys().filter(|id| !programs.contains_key(*id) && !self.excluded.contains_key(**id));
        problems.extend(strangers.map(|id| format!("samples of {id}, which the seal does not know")));
        fill(&mut again.scenarios, &scenarios, self.generation.as_ref());
        again.totals = totals(&again.scenarios);
        again.rates = rates(&again.scenarios, &self.oracle, self.statistics.seed);
        again.hashes.samples = lines.samples_hash.clone();
        again.hashes.verdicts = lines.verdicts_hash.clone();
        again.seal = self.own_hash()?;
        Ok((again, problems))
    }

    /// Whether the file is as it was written.
    ///
    /// # Errors
    /// None that can be met.
    pub fn is_intact(&self) -> Result<bool> {
        Ok(self.own_hash()? == self.seal)
    }

    /// Says so if the samples were made with another model or adapter than the one of this hash.
    fn generation_differs(&self, of: &str, found: &str) -> Option<String> {
        let sealed = self.generation.as_ref().and_then(|generation| generation.get(of)?.as_str());
        (sealed != Some(found))
            .then(|| format!("{of}: BLAKE3 {} was sealed, found {found}", sealed.unwrap_or("of none")))
    }

    /// BLAKE3 of everything else.
    fn own_hash(&self) -> Result<String> {
        let without = Seal { seal: String::new(), ..self.clone() };
        Ok(blake3::hash(json_text(&without)?.as_bytes()).to_hex().to_string())
    }
}

/// What a seal can be verified against, beside the lines of its folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The suite, whose prompts, checks and harness are then compared.
    pub suite: Option<&'a Suite>,
    /// The model's directory, whose weights are then compared.
    pub model: Option<&'a Path>,
    /// The adapter's folder, whose files are then compared.
    pub adapter: Option<&'a Path>,
    /// The directory of the expert's base model, if it has its own, whose weights are then compared.
    pub expert_model: Option<&'a Path>,
    /// The folder of the expert's adapter, whose files are then compared.
    pub expert_adapter: Option<&'a Path>,
}

/// Makes the seal of a folder again and names every difference, from its origin as well as far as that is
/// given.
///
/// # Errors
/// Kind `Data`: a file is missing or cut off. Kind `Model`: model or adapter cannot be read.
pub fn verify(folder: &Path, origin: Origin<'_>) -> Result<Vec<String>> {
    let sealed = Seal::read(folder)?;
    let (mut again, mut problems) = sealed.again(&RunLines::read(folder)?)?;
    again.hashes.references = references_hash(folder)?;
    if sampling(folder)? != sealed.generation {
        problems.push(format!("{SAMPLING} is not what was sealed"));
    }
    for (of, dir) in [("model", origin.model), ("expert_model", origin.expert_model)] {
        let Some(dir) = dir else { continue };
        let found = Weights::open(dir)?.hash().to_hex().to_string();
        problems.extend(sealed.generation_differs(of, &found));
    }
    for (of, folder) in [("adapter", origin.adapter), ("expert_adapter", origin.expert_adapter)] {
        let Some(folder) = folder else { continue };
        if folder.join(MANIFEST).exists()
            && let Err(error) = manifest::verify(folder, Others::Ignored)
        {
            problems.push(format!("{of}: {error}"));
        }
        problems.extend(sealed.generation_differs(of, &manifest::fingerprint(folder)?));
    }
    if let Some(suite) = origin.suite {
        let scenarios = sealed_scenarios(suite, &sealed, &mut problems);
        again.hashes.prompts = prompts_hash(&scenarios);
        again.hashes.checks = checks_hash(&scenarios)?;
        again.hashes.harness = harness_hash(&suite.harness()?)?;
    }
    let named = |found: Difference| format!("{}: sealed {}, found {}", found.place, found.one, found.other);
    problems.extend(differences::differences(&sealed, &again)?.into_iter().map(named));
    // A single verdict changes many rates: what they come from is named first.
    problems.sort_by_key(|problem| problem.starts_with("rates"));
    Ok(problems)
}

/// Scenarios of the suite that a seal is about.
fn sealed_scenarios<'a>(suite: &'a Suite, seal: &Seal, differences: &mut Vec<String>) -> Vec<&'a Scenario> {
    let mut ids: Vec<&String> =
        seal.scenarios.iter().map(|row| &row.id).chain(seal.excluded.keys()).collect();
    ids.sort();
    let mut found = Vec::new();
    for id in ids {
        match suite.scenario(id) {
            Some(scenario) => found.push(scenario),
            None => differences.push(format!("the suite has no scenario {id}")),
        }
    }
    found
}

impl Hashes {
    fn new(folder: &Path, lines: &RunLines, judgement: &Judgement<'_>, rows: &[Row]) -> Result<Self> {
        let rows: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let sealed = |id: &str| rows.contains(id) || judgement.excluded.contains_key(id);
        let scenarios = judgement.suite.scenarios.iter();
        let scenarios: Vec<&Scenario> = scenarios.filter(|scenario| sealed(&scenario.meta.id)).collect();
        Ok(Hashes {
            prompts: prompts_hash(&scenarios),
            checks: checks_hash(&scenarios)?,
            harness: judgement.harness.to_owned(),
            references: references_hash(folder)?,
            samples: lines.samples_hash.clone(),
            verdicts: lines.verdicts_hash.clone(),
        })
    }
}

/// What judged, by the suite's layout and the hashes of its checks.
fn oracle(layout: Layout, hashes: &Hashes) -> Oracle {
    let of_layout = || Some(serde_json::to_value(layout).ok()?.as_str()?.to_owned());
    let name = if layout == Layout::Own { "deepguard".to_owned() } else { of_layout().unwrap_or_default() };
    let both = blake3::hash(format!("{}{}", hashes.harness, hashes.checks).as_bytes());
    Oracle { name, version: both.to_hex()[..16].to_owned() }
}

fn prompts_hash(scenarios: &[&Scenario]) -> String {
    let parts = scenarios.iter().flat_map(|s| [&s.meta.id, &s.prompt, &s.ending]);
    hash_of(parts.map(String::as_str))
}

fn checks_hash(scenarios: &[&Scenario]) -> Result<String> {
    let mut hashes = Vec::new();
    for scenario in scenarios {
        hashes.extend([scenario.meta.id.clone(), scenario.checks_hash()?]);
    }
    Ok(hash_of(hashes.iter().map(String::as_str)))
}

/// BLAKE3 of texts, none of which can be taken for a part of its neighbour.
fn hash_of<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// BLAKE3 of `references.jsonl` of a folder, if there is one.
fn references_hash(folder: &Path) -> Result<Option<String>> {
    let path = folder.join(REFERENCES);
    path.exists().then(|| Ok(blake3::hash(&read(&path)?).to_hex().to_string())).transpose()
}

/// What `sampling.json` of a folder says, if there is one.
///
/// # Errors
/// Kind `Data`: it is no JSON.
pub fn sampling(folder: &Path) -> Result<Option<Value>> {
    let path = folder.join(SAMPLING);
    let complain = || format!("{}: expected JSON", path.display());
    let parsed = |text: Vec<u8>| serde_json::from_slice(&text).kind(ErrorKind::Data, complain);
    path.exists().then(|| read(&path).and_then(parsed)).transpose()
}

/// Ids of the scenarios that were asked for: those that `sampling.json` lists and those of the samples.
pub fn asked<'a>(samples: &'a [SampleLine], generation: Option<&'a Value>) -> Vec<&'a str> {
    let listed = generation.and_then(|generation| generation["scenarios"].as_array());
    let mut ids: Vec<&str> = listed.into_iter().flatten().filter_map(Value::as_str).collect();
    ids.extend(samples.iter().map(|sample| sample.id.as_str()));
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn named(generation: Option<&Value>) -> Option<String> {
    generation?["method"].as_str().map(str::to_owned)
}

fn folder_name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Puts the counts into the rows. A scenario without samples has as many unknown ones as were asked for, or
/// as the others have.
fn fill(rows: &mut [Row], scenarios: &BTreeMap<&str, Vec<Judged<'_>>>, generation: Option<&Value>) {
    let counts: BTreeMap<&str, Counts> =
        scenarios.iter().map(|(id, samples)| (*id, count(samples))).collect();
    let most = counts.values().map(|counts| counts.samples).max().unwrap_or(0);
    let asked = generation.and_then(|generation| generation["num_samples"].as_u64());
    let samples = asked.map_or(most, |asked| asked as usize);
    for row in rows {
        let missing = Counts { samples, unknown: samples, ..Counts::default() };
        row.counts = counts.get(row.id.as_str()).copied().unwrap_or(missing);
    }
}

fn totals(rows: &[Row]) -> Counts {
    rows.iter().map(|row| row.counts).sum()
}
