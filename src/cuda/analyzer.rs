//! Element-wise parts of the analyzer, as written in `ops/analyzer.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::params::DropoutKey;
use super::rows::alignment;
use super::tile::{
    ANALYZER_BACKWARD_ROWS, ANALYZER_BACKWARD_THREADS, ANALYZER_ROWS, ANALYZER_SUMS, ANALYZER_THREADS,
};
use crate::error::Error;
use crate::ops::analyzer::{Analyzer, LayerNormBackward, check_gradients};
use crate::ops::{Dropout, Mut, Ref};

/// Bytes of shared memory that a vector of `width` takes.
fn vector(width: usize) -> usize {
    (width + 32) * size_of::<f32>()
}

/// Blocks that take `each` rows, with `vectors` vectors in shared memory.
fn forward(rows: usize, each: usize, width: usize, vectors: usize) -> Shape {
    let line = Shape::line(rows.div_ceil(each), ANALYZER_THREADS);
    Shape { shared: vectors * vector(width), ..line }
}

/// Blocks that take `ANALYZER_BACKWARD_ROWS` rows each, with `vectors` vectors in shared memory and as many
/// for each warp, of which there are fewer where the vectors are long.
fn backward(rows: usize, width: usize, vectors: usize) -> Shape {
    let warps = (ANALYZER_SUMS / (vectors * vector(width))).clamp(1, ANALYZER_BACKWARD_THREADS / 32);
    let line = Shape::line(rows.div_ceil(ANALYZER_BACKWARD_ROWS), 32 * warps);
    Shape { shared: (1 + warps) * vectors * vector(width), ..line }
}

impl Cuda {
    /// Whether a block can have the shape's shared memory; the failure is kept where it cannot.
    fn holds(&self, width: usize, shape: Shape) -> bool {
        // 1 KiB is left for static shared memory.
        let fits = shape.shared + 1024 <= self.info().shared_memory;
        if !fits {
            self.fail(Error::usage(format!("{width} columns of the analyzer are too many for CUDA")));
        }
        fits
    }

    /// `to += Σ partial` over blocks, each of which has a partial sum of every element of both.
    fn add_partials(&self, to: [Mut<'_, Cuda, f32>; 2], partial: Ref<'_, Cuda, f32>) {
        let [first, second] = to;
        let n = first.len() + second.len();
        let blocks = partial.len().checked_div(n).unwrap_or(0);
        self.launch("add_partials")
            .write("first", &first, first.len(), 4)
            .write("second", &second, second.len(), 4)
            .read("partial", partial, partial.len(), 4)
            .int("blocks", blocks)
            .int("length", first.len())
            .int("length", second.len())
            .run(Shape::line(n.div_ceil(32), 32));
    }
}

impl Analyzer for Cuda {
    fn layer_norm_relu(
        &self,
        h: Mut<'_, Self, bf16>,
        z: Mut<'_, Self, bf16>,
        stats: Mut<'_, Self, f32>,
        bias: Ref<'_, Self, bf16>,
        gamma: Ref<'_, Self, f32>,
        beta: Ref<'_, Self, f32>,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        let width = bias.len();
        let (rows, alignment) = (z.len() / width.max(1), alignment(width));
        let shape = forward(rows, ANALYZER_ROWS, width, 3);
        if !self.holds(width, shape) {
            return;
        }
        self.launch("layer_norm_relu")
            .write("h", &h, rows * width, alignment)
            .write("z", &z, rows * width, alignment)
            .write("stats", &stats, 2 * rows, 8)
            .read("bias", bias, width, alignment)
            .read("gamma", gamma, width, alignment)
            .read("beta", beta, width, alignment)
            .read_optional("row_keys", dropout.map(|d| d.row_keys), rows, 4)
            .value(DropoutKey::new(dropout.map(|d| d.key)))
            .int("rows", rows)
            .int("width", width)
            .run(shape);
    }

    fn layer_norm_relu_backward(&self, args: LayerNormBackward<'_, Self>) {
        let (rows, width) = (args.row_weight.len(), args.gamma.len());
        let (shape, alignment) = (backward(rows, width, 2), alignment(width));
        let blocks = shape.grid.0;
        if self.keep(args.check()).is_none() || rows == 0 || !self.holds(width, shape) {
            return;
        }
        let mut scratch = self.scratch();
        let Some(partial) = scratch.take::<f32>(self, blocks * 2 * width) else { return };
        self.launch("layer_norm_relu_backward")
            .write("dz", &args.dz, rows * width, alignment)
            .write("partial", &partial, blocks * 2 * width, VECTOR)
            .read("dh", args.dh, rows * width, alignment)
            .read("z", args.z, rows * width, alignment)
            .read("stats", args.stats, 2 * rows, 8)
            .read("gamma", args.gamma, width, alignment)
            .read("beta", args.beta, width, alignment)
            .read("row_weight", args.row_weight, rows, 4)
            .read_optional("row_keys", args.dropout.map(|d| d.row_keys), rows, 4)
            .value(DropoutKey::new(args.dropout.map(|d| d.key)))
            .int("rows", rows)
            .int("width", width)
            .run(shape);
        self.add_partials([args.dgamma_acc, args.dbeta_acc], partial.view());
    }

    fn bias_relu(&self, h: Mut<'_, Self, bf16>, bias: Ref<'_, Self, f32>) {
        let width = bias.len();
        let rows = h.len() / width.max(1);
        let shape = forward(rows, ANALYZER_ROWS, width, 1);
        if !self.holds(width, shape) {
            return;
        }
        self.launch("bias_relu")
            .write("h", &h, rows * width, alignment(width))
            .read("bias", bias, width, alignment(width))
            .int("rows", rows)
            .int("width", width)
            .run(shape);
    }

    fn score(
        &self,
        scores: Mut<'_, Self, f32>,
        h: Ref<'_, Self, bf16>,
        w: Ref<'_, Self, f32>,
        b: Ref<'_, Self, f32>,
    ) {
        let (rows, width) = (scores.len(), w.len());
        let shape = forward(rows, ANALYZER_BACKWARD_ROWS, width, 1);
        if !self.holds(width, shape) {
            return;
        }
        self.launch("score")
            .write("scores", &scores, rows, 4)
            .read("h", h, rows * width, alignment(width))
            .read("w", w, width, alignment(width))
            .read("b", b, 1, 4)
            .int("rows", rows)
            .int("width", width)
            .run(shape);
    }

    fn score_backward(
        &self,
        dz: Mut<'_, Self, bf16>,
        dw_acc: Mut<'_, Self, f32>,
        db_acc: Mut<'_, Self, f32>,
        scores: Ref<'_, Self, f32>,
        h: Ref<'_, Self, bf16>,
        w: Ref<'_, Self, f32>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        let (rows, width) = (scores.len(), w.len());
        let (shape, alignment) = (backward(rows, width, 1), alignment(width));
        let blocks = shape.grid.0;
        let gradients = [("dw", dw_acc.len()), ("db", db_acc.len())];
        let checked = check_gradients("score_backward", gradients, [width, 1]);
        if self.keep(checked).is_none() || rows == 0 || !self.holds(width, shape) {
            return;
        }
        let mut scratch = self.scratch();
        let Some(partial) = scratch.take::<f32>(self, blocks * (width + 1)) else { return };
        self.launch("score_backward")
            .write("dz", &dz, rows * width, alignment)
            .write("partial", &partial, blocks * (width + 1), VECTOR)
            .read("scores", scores, rows, 4)
            .read("h", h, rows * width, alignment)
            .read("w", w, width, alignment)
            .read("row_weight", row_weight, rows, 4)
            .int("rows", rows)
            .int("width", width)
            .run(shape);
        self.add_partials([dw_acc, db_acc], partial.view());
    }
}
