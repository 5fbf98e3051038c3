//! Guidance and sampling, as written in `ops/sample.rs`. The token stays on the device.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::params::SampleArguments;
use super::rows::{alignment, reads};
use super::tile::{GUIDE_ROWS, GUIDE_THREADS, SAMPLE_CANDIDATES, SAMPLE_THREADS, SAMPLE_VECTORS};
use crate::ops::sample::{
    Adjustment, SAMPLING_SITE, Sample, Sampling, check_adjust, check_guide, check_sample, check_verify, mark,
};
use crate::ops::{Mut, Ref};

/// Shared memory for candidates and for sums.
const CANDIDATES: usize = SAMPLE_CANDIDATES * 16 + 1024;

impl Sample for Cuda {
    fn adjust(
        &self,
        logits: Mut<'_, Self, bf16>,
        marks: Mut<'_, Self, u8>,
        last: Ref<'_, Self, u32>,
        adjustment: Adjustment,
    ) {
        let rows = last.len();
        if self.keep(check_adjust(rows, logits.len(), marks.len())).is_none() {
            return;
        }
        let width = logits.len() / rows.max(1);
        let columns = reads(width).div_ceil(GUIDE_THREADS);
        self.launch("adjust")
            .write("logits", &logits, rows * width, 2)
            .write("marks", &marks, rows * width, alignment(width))
            .read("last", last, rows, 4)
            .value(adjustment.repetition_penalty)
            .value(u32::from(mark::SEEN))
            .value(u32::from(adjustment.suppressed()))
            .int("width", width)
            .run(Shape { grid: (columns, rows, 1), block: GUIDE_THREADS, shared: 0 });
    }

    fn guide(
        &self,
        logits: Mut<'_, Self, bf16>,
        stats: Ref<'_, Self, f32>,
        strength: Ref<'_, Self, f32>,
        boost: f32,
    ) {
        let (rows, width) = (strength.len(), stats.len());
        if self.keep(check_guide(logits.len(), width, rows)).is_none() {
            return;
        }
        let columns = reads(width).div_ceil(GUIDE_THREADS);
        self.launch("guide")
            .write("logits", &logits, rows * width, alignment(width))
            .read("stats", stats, width, alignment(width))
            .read("strength", strength, rows, 4)
            .value(boost)
            .int("rows", rows)
            .int("width", width)
            .run(Shape { grid: (columns, rows.div_ceil(GUIDE_ROWS), 1), block: GUIDE_THREADS, shared: 0 });
    }

    fn sample(
        &self,
        tokens: Mut<'_, Self, u32>,
        probabilities: Option<Mut<'_, Self, f32>>,
        positions: Mut<'_, Self, u32>,
        logits: Ref<'_, Self, bf16>,
        numbers: Ref<'_, Self, u32>,
        sampling: Sampling,
    ) {
        let rows = tokens.len();
        let wanted = probabilities.as_ref().map(Mut::len);
        let checked = check_sample(rows, wanted, positions.len(), logits.len(), numbers.len());
        if self.keep(checked).is_none() {
            return;
        }
        let width = logits.len() / rows.max(1);
        // A row may begin and end within a vector. Vectors that fit neither registers nor shared memory are
        // read again.
        let vectors = width.div_ceil(VECTOR / size_of::<bf16>()) + 1;
        let room = (self.info().shared_memory - CANDIDATES) / VECTOR;
        let kept = room.min(vectors.saturating_sub(SAMPLE_VECTORS * SAMPLE_THREADS));
        let arguments = SampleArguments {
            seed: sampling.seed,
            site: SAMPLING_SITE,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: i32::try_from(sampling.top_k).unwrap_or(i32::MAX),
            kept: kept as i32,
            width: width as i32,
        };
        self.launch("sample")
            .write("tokens", &tokens, rows, 4)
            .write_optional("probabilities", probabilities.as_ref(), rows, 4)
            .write("positions", &positions, rows, 4)
            .read("logits", logits, rows * width, VECTOR)
            .read("numbers", numbers, rows, 4)
            .value(arguments)
            .run(Shape { shared: kept * VECTOR, ..Shape::line(rows, SAMPLE_THREADS) });
    }

    fn verify(
        &self,
        tokens: Mut<'_, Self, u32>,
        drafts: Ref<'_, Self, u32>,
        probabilities: Ref<'_, Self, f32>,
        logits: Ref<'_, Self, bf16>,
        threshold: f32,
    ) {
        let rows = tokens.len();
        if self.keep(check_verify(rows, drafts.len(), probabilities.len(), logits.len())).is_none() {
            return;
        }
        let width = logits.len() / rows.max(1);
        self.launch("verify")
            .write("tokens", &tokens, rows, 4)
            .read("drafts", drafts, rows, 4)
            .read("probabilities", probabilities, rows, 4)
            .read("logits", logits, rows * width, VECTOR)
            .value(threshold)
            .int("width", width)
            .run(Shape::line(rows, SAMPLE_THREADS));
    }
}
