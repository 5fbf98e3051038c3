//! LoRA alone: its first factor, and its backward.

use half::bf16;

use super::Cuda;
use super::dropout::KernelDropout;
use super::launch::Shape;
use super::product::{Layout, Plan, Residual, Target, TileProduct, alignment};
use super::tile::{SKINNY_DOWN_LINES, SKINNY_THREADS};
use crate::ops::gemm::{LoraBackward, Matrix, MatrixMut};
use crate::ops::{Dropout, Mut, Ref};

/// What dropout multiplies kept elements with.
fn factor(dropout: Option<Dropout<'_, Cuda>>) -> f32 {
    dropout.map_or(1.0, |dropout| dropout.key.scale())
}

impl Cuda {
    /// `xa = scale · dropout(x) Aᵀ`.
    pub(super) fn first_factor(
        &self,
        xa: Mut<'_, Self, bf16>,
        x: Ref<'_, Self, bf16>,
        a: Ref<'_, Self, bf16>,
        rank: usize,
        scale: f32,
        dropout: Option<Dropout<'_, Self>>,
    ) {
        let (rows, width) = (xa.len() / rank.max(1), a.len() / rank.max(1));
        let (x, a) = (Matrix::new(x, rows, width), Matrix::new(a, rank, width));
        let vector = x.in_vectors() && a.in_vectors();
        // Columns of xa that a block computes.
        let (kernel, columns) = if rank <= 16 { ("lora_down_2", 16) } else { ("lora_down_4", 32) };
        self.launch(kernel)
            .write("xa", &xa, rows * rank, 1)
            .read("x", x.data, rows * width, alignment(vector))
            .read("lora_A", a.data, rank * width, alignment(vector))
            .read_optional("row_keys", dropout.map(|dropout| dropout.row_keys), rows, 4)
            .value(KernelDropout::new(dropout.map(|dropout| dropout.key)))
            .value(rows as i32)
            .value(width as i32)
            .value(rank as i32)
            .value(scale * factor(dropout))
            .value(i32::from(vector))
            .run(Shape {
                grid: (rows.div_ceil(SKINNY_DOWN_LINES), rank.div_ceil(columns), 1),
                block: SKINNY_THREADS,
                shared: 0,
            });
    }

    /// `dB += dyᵀ xa`, `dA += tᵀ dropout(x)` and `dx += mask ∘ (t A)`, where `t = scale · dy B`.
    pub(super) fn factor_gradients(&self, args: LoraBackward<'_, Self>) {
        let (rows, out) = (args.dy.rows, args.dy.cols);
        let rank = args.b.len() / out.max(1);
        let width = args.a.len() / rank.max(1);
        let (a, b) = (Matrix::new(args.a, rank, width), Matrix::new(args.b, out, rank));
        let (x, xa) = (Matrix::new(args.x, rows, width), Matrix::new(args.xa, rows, rank));
        let db = Target::Added(MatrixMut::new(args.db_acc, out, rank));
        TileProduct::new(Layout::TN, args.dy, xa, db).run(self);

        let kept = factor(args.dropout);
        let t_len = rows * rank;
        let t_words = (t_len * size_of::<bf16>()).div_ceil(size_of::<f32>()).next_multiple_of(64);
        let mut scratch = self.scratch();
        let da = MatrixMut::new(args.da_acc, rank, width);
        let parts = [(rows, rank, out), (rank, width, rows), (rows, width, rank)];
        let parts = parts.map(|(m, n, k)| Plan::most_partials(self, m, n, k)).into_iter().max().unwrap_or(0);
        let Some(memory) = scratch.take::<f32>(self, t_words + parts) else { return };
        let (t_memory, mut partials) = memory.split_at(t_words);
        let mut t = t_memory.cast::<bf16>().slice(0..t_len);
        let target = Target::Rounded(MatrixMut::new(t.reborrow(), rows, rank));
        let product = TileProduct { alpha: args.scale, ..TileProduct::new(Layout::NN, args.dy, b, target) };
        let plan = product.plan(self);
        product.run_with(self, plan, partials.reborrow());

        let t = Matrix::new(t.view(), rows, rank);
        let product = TileProduct::new(Layout::TN, t, x, Target::Added(da));
        let product = TileProduct { alpha: kept, dropout: args.dropout, ..product };
        let plan = product.plan(self);
        product.run_with(self, plan, partials.reborrow());

        if let Some(dx) = args.dx_acc {
            let target = Target::Rounded(MatrixMut::new(dx, rows, width));
            let product = TileProduct::new(Layout::NN, t, a, target);
            let (dropout, residual) = (args.dropout, Residual::Target(1.0));
            let product = TileProduct { alpha: kept, dropout, residual, ..product };
            let plan = product.plan(self);
            product.run_with(self, plan, partials);
        }
    }
}
