//! Puts samples into a run's folder, scenario by scenario, in the order of the suite.

use std::collections::BTreeMap;
use std::path::Path;

use super::Progress;
use super::plan::Prompt;
use crate::error::Result;
use crate::eval::lines::{Lines, parse, read};
use crate::eval::samples::{Finish, SampleLine};

/// What is in the file and what comes.
pub(super) struct Merge<'a> {
    lines: Lines,
    /// All that can be sampled.
    of: usize,
    /// Places among them of what is in the file, in its order, and of what is to come.
    there: Vec<usize>,
    missing: Vec<usize>,
    /// Samples that wait for those before them.
    finished: BTreeMap<usize, Vec<SampleLine>>,
    /// How many of the missing ones have had their turn.
    turn: usize,
    /// New samples that are complete functions, or that their model ended; and tokens of new samples.
    pub(super) ended: usize,
    pub(super) tokens: usize,
    on_progress: &'a mut (dyn FnMut(Progress) + Send),
}

impl<'a> Merge<'a> {
    /// Of `of` scenarios, some of which are in the file.
    pub(super) fn new(
        lines: Lines,
        of: usize,
        there: Vec<usize>,
        on_progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> Self {
        let missing = (0..of).filter(|place| !there.contains(place)).collect();
        (on_progress)(Progress { scenarios: there.len(), of });
        let (finished, turn) = (BTreeMap::new(), 0);
        Merge { lines, of, there, missing, finished, turn, ended: 0, tokens: 0, on_progress }
    }

    /// Scenarios that are in the file.
    pub(super) fn scenarios(&self) -> usize {
        self.there.len()
    }

    /// Places of the scenarios that are to come.
    pub(super) fn missing(&self) -> &[usize] {
        &self.missing
    }

    /// The samples of one of the missing prompts; nothing, if nobody has made them.
    pub(super) fn add(&mut self, prompt: usize, lines: Vec<SampleLine>) -> Result<()> {
        self.finished.insert(prompt, lines);
        while let Some(lines) = self.finished.remove(&self.turn) {
            let place = self.missing[self.turn];
            self.turn += 1;
            if lines.is_empty() {
                continue;
            }
            self.lines.add_all(&lines)?;
            self.there.push(place);
            self.tokens += lines.iter().filter_map(|line| line.tokens).map(|n| n as usize).sum::<usize>();
            self.ended += lines.iter().filter(|line| line.finish != Some(Finish::Length)).count();
            (self.on_progress)(Progress { scenarios: self.there.len(), of: self.of });
        }
        Ok(())
    }

    /// Puts the scenarios in the order of the suite, if an earlier run had to leave some out.
    pub(super) fn put_in_order(&mut self, path: &Path, prompts: &[Prompt]) -> Result<()> {
        if self.there.is_sorted() {
            return Ok(());
        }
        let mut lines: Vec<SampleLine> = parse(path, &read(path)?)?;
        lines.sort_by_key(|line| prompts.iter().position(|prompt| prompt.id == line.id));
        self.lines.replace(&lines)
    }
}
