//! LoRA beside its linear layer: the down projection, and the backward. Adapters that read the same input
//! share launches.

use half::bf16;

use crate::cuda::gemm::grouped::{self, GroupedGemm, splits};
use crate::cuda::gemm::{Gemm, Layout, Target, alignment};
use crate::cuda::launch::{Launch, Shape};
use crate::cuda::split::SplitWorkspace;
use crate::cuda::tile::*;
use crate::cuda::{Cuda, params};
use crate::ops::linear::{LoraBackward, LoraDown};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Dropout, Mut, Ref};

/// The term of an adapter in the gradient of the input: `factor · mask ∘ (t A)`.
struct InputTerm<'a> {
    /// `[rows, rank]`, `scale · dy B`
    t: Matrix<'a, Cuda, bf16>,
    /// `[rank, width]`
    a: Matrix<'a, Cuda, bf16>,
    dropout: Option<Dropout<'a, Cuda>>,
}

impl InputTerm<'_> {
    fn in_vectors(&self) -> bool {
        self.t.in_vectors() && self.a.in_vectors()
    }

    fn pass<'l>(&self, to: &mut params::LoraInputTerm, launch: Launch<'l>) -> Launch<'l> {
        let alignment = alignment(self.in_vectors());
        (to.rank, to.vector) = (self.a.rows as i32, self.in_vectors().into());
        let launch = launch.reads(&mut to.t, "t", self.t.data, self.t.extent(), alignment);
        let launch = launch.reads(&mut to.a, "lora_A", self.a.data, self.a.extent(), alignment);
        to.mask.pass(self.dropout, self.t.rows, launch)
    }
}

/// How many adapters share a block of `lora_down`, which then reads x once for them, where each would have
/// `blocks` alone. Fewer blocks are longer ones: with few rows (a decoding step), or with a last wave that is
/// mostly empty, the time is that of the multiprocessor with the most work, and adapters are better apart.
fn adapters_per_block(
    adapters: usize,
    most: usize,
    blocks: usize,
    multiprocessors: usize,
    drops: bool,
) -> usize {
    // Cost of a block, in loads of 16 lines: two for x, one for each lora_A, and a mask of x costs as much as
    // x.
    let of_block = |count| 2 + count * if drops { 3 } else { 1 };
    let longest =
        |count: usize| (adapters.div_ceil(count) * blocks).div_ceil(multiprocessors) * of_block(count);
    (1..=most.min(adapters)).rev().min_by_key(|&count| longest(count)).unwrap_or(1)
}

impl Cuda {
    /// `xa = scale · dropout(x) Aᵀ` of each adapter.
    pub(super) fn lora_down_projections(
        &self,
        adapters: Vec<LoraDown<'_, Self>>,
        x: Ref<'_, Self, bf16>,
        rank: usize,
        scale: f32,
    ) {
        let Some(first) = adapters.first().filter(|_| self.takes_adapters(adapters.len())) else { return };
        let (rows, width) = (first.xa.len() / rank.max(1), first.a.len() / rank.max(1));
        let x = Matrix::new(x, rows, width);
        let in_vectors = |adapter: &LoraDown<'_, Self>| Matrix::new(adapter.a, rank, width).in_vectors();
        let vector = x.in_vectors() && adapters.iter().all(in_vectors);
        // Columns of xa that a block computes for an adapter, and the adapters that it has registers for.
        let (kernel, columns, most) = match rank {
            ..=16 if vector => ("lora_down_2", 16, SKINNY_DOWN_ADAPTERS),
            ..=16 => ("lora_down_2", 16, 1),
            _ => ("lora_down_4", 32, 1),
        };
        let (rows_of_blocks, pieces) = (rows.div_ceil(SKINNY_DOWN_LINES), rank.div_ceil(columns));
        let drops = adapters.iter().any(|adapter| adapter.dropout.is_some());
        let multiprocessors = self.info().multiprocessors as usize;
        let adapters_per_block =
            adapters_per_block(adapters.len(), most, rows_of_blocks * pieces, multiprocessors, drops);
        let mut launch = self.launch(kernel).read("x", x.data, rows * width, alignment(vector));
        let mut by_value = params::LoraDowns {
            count: adapters.len() as i32,
            adapters_per_block: adapters_per_block as i32,
            ..Default::default()
        };
        for (to, adapter) in by_value.of.iter_mut().zip(&adapters) {
            launch = launch.writes(&mut to.xa, "xa", &adapter.xa, rows * rank, 1);
            launch = launch.reads(&mut to.a, "lora_A", adapter.a, rank * width, alignment(vector));
            launch = to.mask.pass(adapter.dropout, rows, launch);
        }
        let shape = params::LoraDownShape {
            rows: rows as i32,
            width: width as i32,
            rank: rank as i32,
            vector: vector.into(),
        };
        launch.value(by_value).value(shape).value(scale).run(Shape {
            grid: (adapters.len().div_ceil(adapters_per_block), rows_of_blocks, pieces),
            block: SKINNY_THREADS,
            shared: 0,
        });
    }

    /// `dB += dyᵀ xa`, `dA += tᵀ dropout(x)` of each adapter and `dx += Σ mask ∘ (t A)`, where `t = scale ·
    /// dy B`: dB and t in one launch, dA and dx in another.
    pub(super) fn lora_gradients(
        &self,
        dx_acc: Option<Mut<'_, Self, bf16>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, bf16>,
        scale: f32,
    ) {
        let rows = adapters.first().map_or(0, |adapter| adapter.dy.rows);
        if rows == 0 || !self.takes_adapters(adapters.len()) {
            return;
        }
        let width = x.len() / rows;
        let x = Matrix::new(x, rows, width);
        let rank = |adapter: &LoraBackward<'_, Self>| adapter.a.len() / width.max(1);
        let of_b = splits(self, adapters.iter().map(|adapter| [adapter.dy.cols, rank(adapter), rows]));
        let of_a = splits(self, adapters.iter().map(|adapter| [rank(adapter), width, rows]));
        let of_t: Vec<_> = adapters.iter().map(|adapter| (rows * rank(adapter)).div_ceil(2)).collect();
        let (mut scratch, mut counters) = (self.scratch(), self.counters());
        let workspaces =
            SplitWorkspace::take(self, &[of_b, of_a].concat(), &of_t, &mut scratch, &mut counters);
        let Some((mut of_b, ts)) = workspaces else { return };
        let of_a = of_b.split_off(adapters.len());
        let ts = ts.into_iter().zip(&adapters);
        let mut ts: Vec<_> = ts.map(|(t, a)| t.cast::<bf16>().slice(0..rows * rank(a))).collect();

        let (mut of_outputs, mut of_ts, mut inner) = (Vec::new(), Vec::new(), Vec::new());
        for (((adapter, t), of_b), of_a) in adapters.into_iter().zip(&mut ts).zip(of_b).zip(of_a) {
            let (rank, out, dy) = (rank(&adapter), adapter.dy.cols, adapter.dy);
            let db = Target::Added(MatrixMut::new(adapter.db_acc, out, rank));
            let gemm = Gemm::new(Layout::TN, dy, Matrix::new(adapter.xa, rows, rank), db);
            of_outputs.push(GroupedGemm { gemm, dropout: None, workspace: Some(of_b) });
            let (b, t) = (Matrix::new(adapter.b, out, rank), MatrixMut::new(t.reborrow(), rows, rank));
            let gemm = Gemm::new(Layout::NN, dy, b, Target::Rounded(t));
            let gemm = Gemm { alpha: scale, ..gemm };
            of_ts.push(GroupedGemm { gemm, dropout: None, workspace: None });
            let (a, da) = (Matrix::new(adapter.a, rank, width), MatrixMut::new(adapter.da_acc, rank, width));
            inner.push((a, da, adapter.dropout, of_a));
        }
        self.grouped_gemm(&of_outputs.iter().chain(&of_ts).collect::<Vec<_>>());

        let (mut of_inputs, mut terms) = (Vec::new(), Vec::new());
        for ((a, da, dropout, of_a), t) in inner.into_iter().zip(&ts) {
            let t = Matrix::new(t.view(), rows, a.rows);
            let alpha = dropout.map_or(1.0, |dropout| dropout.key.scale());
            let gemm = Gemm { alpha, ..Gemm::new(Layout::TN, t, x, Target::Added(da)) };
            of_inputs.push(GroupedGemm { gemm, dropout, workspace: Some(of_a) });
            terms.push(InputTerm { t, a, dropout });
        }
        let members: Vec<_> = of_inputs.iter().collect();
        match dx_acc {
            Some(dx) => self.input_gradient(MatrixMut::new(dx, rows, width), &members, &terms),
            None => self.grouped_gemm(&members),
        }
    }

    /// `dx += Σ mask ∘ (t A)`, and in the same launch a group of products `aᵀ b`.
    fn input_gradient(
        &self,
        dx: MatrixMut<'_, Self, bf16>,
        members: &[&GroupedGemm<'_>],
        terms: &[InputTerm<'_>],
    ) {
        if !members.iter().all(|member| member.gemm.fits(self)) {
            return;
        }
        let vector = grouped::in_vectors(members) && terms.iter().all(InputTerm::in_vectors);
        let kernel = if vector { "lora_inputs" } else { "lora_inputs_any" };
        let (blocks, mut launch) = grouped::pass(members, self.launch(kernel));
        let mut by_value = params::LoraInputTerms::default();
        for (to, term) in by_value.term.iter_mut().zip(terms) {
            launch = term.pass(to, launch);
        }
        launch = launch.writes(&mut by_value.dx, "dx", &dx.data, dx.extent(), alignment(dx.in_vectors()));
        by_value.count = terms.len() as i32;
        (by_value.rows, by_value.width) = (dx.rows as i32, dx.cols as i32);
        by_value.vector = dx.in_vectors().into();
        launch.value(by_value).run(grouped::shape(blocks + grouped::tiles(dx.rows, dx.cols)));
    }
}
