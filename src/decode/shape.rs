//! How many rows a batch has, and how many samples begin together.

use crate::ops::Backend;

/// Rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Most rows of a decoding pass.
    pub(super) rows: usize,
    /// Most samples that begin together.
    pub(super) cohort: usize,
    /// Most cohorts.
    pub(super) cohorts: usize,
    /// Whether a pass has the rows of open samples only. Otherwise passes always have all rows, and cohorts
    /// all of theirs, so that the bits of a sample do not depend on what else there is.
    pub(super) compact: bool,
}

/// Most samples that begin together in a batch of many prompts.
const COHORT: usize = 8;

/// Rows of such a batch where they are always the same.
const FIXED_ROWS: usize = 64;

/// Most rows of a pass over samples of many prompts.
pub fn rows_of_pass<B: Backend>(backend: &B) -> usize {
    match backend.independent_rows() {
        rows if rows >= COHORT => rows,
        _ => FIXED_ROWS,
    }
}

/// Samples of one prompt that make a pass long enough. With more, a processor gets hardly any more done in
/// the same time (benchmarks/2026-12-01-samples.md); what a GPU does has not been measured.
pub fn samples_of_pass<B: Backend>(_: &B) -> usize {
    if B::IN_SYSTEM_MEMORY { 128 } else { 256 }
}

impl Shape {
    /// For samples of one prompt.
    pub(super) fn of_one<B: Backend>(backend: &B, samples: usize) -> Self {
        let compact = samples <= backend.independent_rows();
        Shape { rows: samples, cohort: samples, cohorts: 1, compact }
    }

    /// For so many prompts, with so many samples each; both are 1 at least.
    pub(super) fn of_many<B: Backend>(backend: &B, prompts: usize, samples: usize) -> Self {
        match backend.independent_rows() {
            rows if rows >= COHORT => Self::compact(rows, prompts, samples),
            _ => Shape { rows: FIXED_ROWS, cohort: COHORT, cohorts: FIXED_ROWS / COHORT, compact: false },
        }
    }

    fn compact(most_rows: usize, prompts: usize, samples: usize) -> Self {
        let rows = most_rows.min(prompts.saturating_mul(samples));
        let cohort = COHORT.min(samples);
        let all = prompts.saturating_mul(samples.div_ceil(cohort));
        // Cohorts of which samples have ended leave rows to others. One of a single sample leaves none.
        let open = if cohort == 1 { rows } else { 2 * most_rows / cohort };
        Shape { rows, cohort, cohorts: open.min(all), compact: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::ops::Device;

    /// Memory for as many samples as fill a pass, and for no more than there are, or twice as many.
    #[test]
    fn a_batch_is_as_large_as_its_samples_need() {
        let most_rows = Cpu::new().independent_rows();
        for (prompts, samples) in [(1, 1), (3, 1), (500, 1), (1, 3), (7, 3), (500, 5), (2, 11), (500, 20)] {
            let Shape { rows, cohort, cohorts, compact } = Shape::of_many(&Cpu::new(), prompts, samples);
            let shown = format!("{prompts} prompts, {samples} samples: {rows} {cohort} {cohorts}");
            assert!(compact && rows == most_rows.min(prompts * samples), "{shown}");
            assert!(cohort <= samples && cohorts * cohort >= rows, "{shown}");
            assert!(cohorts <= prompts * samples.div_ceil(cohort), "{shown}");
            assert!(cohorts * cohort <= 2 * most_rows, "{shown}");
        }
        let single = Shape::of_many(&Cpu::new(), 500, 1);
        assert_eq!((single.cohort, single.cohorts), (1, most_rows), "samples that end leave their memory");
    }
}
