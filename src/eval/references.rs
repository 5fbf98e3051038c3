//! Which scenarios can be judged on this machine: those whose references get the verdicts that they should.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::judging::{Judging, stopped};
use super::lines::Lines;
use super::suite::{Reference, Scenario};
use super::verdict::{Functional, Secure, Verdict};
use super::work::{Done, in_order};
use crate::error::{Error, ErrorKind, Result};

/// A line of `references.jsonl`: a program whose verdict is known, and what it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferenceLine {
    /// Id of the scenario.
    pub id: String,
    /// Name of the reference in its scenario.
    pub reference: String,
    /// BLAKE3 of program, checks, harness and environment.
    pub key: String,
    /// Whether its function works.
    pub functional: bool,
    /// Whether it is secure; `None` where the function does not work.
    pub secure: Option<bool>,
    /// The verdict that it got.
    pub verdict: Verdict,
}

impl ReferenceLine {
    /// Whether the verdict is the right one.
    pub fn is_right(&self) -> bool {
        let secure = match self.secure {
            Some(true) => Secure::Yes,
            Some(false) => Secure::No,
            None => Secure::Unknown,
        };
        let works = self.verdict.functional == Functional::Pass;
        self.verdict.is_known() && works == self.functional && self.verdict.secure == secure
    }

    /// What is wrong with the verdict.
    fn complaint(&self) -> String {
        let Verdict { functional, secure, reason, .. } = &self.verdict;
        let expected = match (self.functional, self.secure) {
            (false, _) => "a function that does not work",
            (true, Some(false)) => "functional and insecure",
            (true, _) => "functional and secure",
        };
        format!("{}: expected {expected}, found {functional:?}/{secure:?}: {reason}", self.reference)
    }
}

/// Which references of a scenario are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One that is secure and one that is not: enough to know whether the scenario can be judged.
    Pair,
    /// All.
    All,
}

/// Scenarios that cannot be judged here, with the reason.
pub type Excluded = BTreeMap<String, String>;

/// Judges references and says which scenarios are excluded because theirs don't get their verdicts. Lines are
/// kept in `file`; those of an earlier run that were right are not judged again.
///
/// # Errors
/// Those of [`Judge::judge`](super::judge::Judge::judge) and [`Lines`]; kind `Preempted` where it was asked
/// to stop, or `Interrupted` without a file.
pub fn check(
    judging: &Judging<'_>,
    scenarios: &[&Scenario],
    scope: Scope,
    file: Option<&Path>,
    on_line: &mut dyn FnMut(&ReferenceLine),
) -> Result<(Vec<ReferenceLine>, Excluded)> {
    let (mut file, known) = match file.map(Lines::open::<ReferenceLine>).transpose()? {
        Some((file, known)) => (Some(file), known),
        None => (None, Vec::new()),
    };
    let known: HashMap<String, ReferenceLine> =
        known.into_iter().filter(ReferenceLine::is_right).map(|line| (line.key.clone(), line)).collect();
    let mut jobs = Vec::new();
    for scenario in scenarios {
        for reference in of_scope(scenario, scope) {
            jobs.push((*scenario, reference, judging.judge.key(scenario, &reference.program)?));
        }
    }
    let mut lines = Vec::new();
    // The verdict is that of the program; which one it should be is what the suite says now.
    let kept = |reference: &Reference, key: &String| {
        let old = known.get(key)?;
        let line = line_of(&old.id, reference, key, old.verdict.clone());
        // Two references may be the same program, of which one line is kept.
        let is_new = ReferenceLine { reference: old.reference.clone(), ..line.clone() } != *old;
        line.is_right().then_some((is_new, line))
    };
    let work = |slot: u32, (scenario, reference, key): &(&Scenario, &Reference, String)| {
        if let Some((is_new, line)) = kept(reference, key) {
            return (is_new, Ok(line));
        }
        let verdict = judging.run(slot, scenario, &reference.program);
        (true, verdict.map(|verdict| line_of(&scenario.meta.id, reference, key, verdict)))
    };
    let done = in_order(&jobs, judging.workers, judging.should_stop, &work, &mut |_, (is_new, line)| {
        let line = line?;
        if let Some(file) = file.as_mut().filter(|_| is_new) {
            file.add(&line)?;
        }
        on_line(&line);
        lines.push(line);
        Ok(())
    })?;
    if done == Done::Stopped {
        let stopped = stopped(lines.len(), jobs.len(), "references");
        return Err(if file.is_some() {
            stopped
        } else {
            Error::new(ErrorKind::Interrupted, stopped.to_string())
        });
    }
    let excluded = excluded(scenarios, &lines);
    Ok((lines, excluded))
}

fn of_scope(scenario: &Scenario, scope: Scope) -> Vec<&Reference> {
    let all = scenario.references.iter();
    if scope == Scope::All {
        return all.collect();
    }
    let first = |secure: bool| all.clone().find(move |reference| reference.secure == Some(secure));
    [first(true), first(false)].into_iter().flatten().collect()
}

fn line_of(id: &str, reference: &Reference, key: &str, verdict: Verdict) -> ReferenceLine {
    ReferenceLine {
        id: id.to_owned(),
        reference: reference.name.clone(),
        key: key.to_owned(),
        functional: reference.functional,
        secure: reference.secure,
        verdict,
    }
}

/// The first complaint of each scenario, and that of scenarios without a pair of references.
fn excluded(scenarios: &[&Scenario], lines: &[ReferenceLine]) -> Excluded {
    let mut excluded = Excluded::new();
    for line in lines.iter().filter(|line| !line.is_right()) {
        excluded.entry(line.id.clone()).or_insert_with(|| line.complaint());
    }
    for scenario in scenarios {
        let has = |secure: bool| scenario.references.iter().any(|r| r.secure == Some(secure));
        if !(has(true) && has(false)) {
            let why = "it has no secure and no insecure reference, so nobody knows what its checks are worth";
            excluded.entry(scenario.meta.id.clone()).or_insert_with(|| why.to_owned());
        }
    }
    excluded
}
