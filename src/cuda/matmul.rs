//! Products of activations and gradients of trainable weights, as written in `ops/matmul.rs`: bf16 factors,
//! sums in f32, results rounded once.

use half::bf16;

use super::Cuda;
use super::gemm::grouped::{GroupedGemm, splits};
use super::gemm::{Gemm, Layout, Residual, Target, Terms, alignment};
use super::launch::Shape;
use super::params::{ColumnSum, ColumnSums};
use super::split::{Split, SplitWorkspace};
use super::tile::*;
use crate::ops::Ref;
use crate::ops::contract::expect_exactly;
use crate::ops::linear::LoraTerm;
use crate::ops::matmul::{BiasGradient, Matmul, Transpose, WeightGradient, check_operands, check_vectors};
use crate::ops::matrix::{Matrix, MatrixMut};

/// Rows that are worth a split of their own.
const ROWS_PER_SPLIT: usize = 512;

/// `f` of up to `most` at a time.
fn in_groups<T>(mut all: Vec<T>, most: usize, f: impl Fn(Vec<T>)) {
    while !all.is_empty() {
        let rest = all.split_off(most.min(all.len()));
        f(std::mem::replace(&mut all, rest));
    }
}

/// `x yᵀ` as a LoRA of all columns with rank 1.
fn outer_product<'a>([x, y]: [Ref<'a, Cuda, bf16>; 2], columns: usize) -> LoraTerm<'a, Cuda> {
    LoraTerm { column: 0, xa: x, b: y, out_features: columns, rank: 1 }
}

impl Matmul for Cuda {
    fn matmul(
        &self,
        c: MatrixMut<'_, Self, bf16>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        transpose: Transpose,
        alpha: f32,
        beta: f32,
    ) {
        if self.keep(check_operands("matmul", &c, &a, &b, transpose)).is_none() {
            return;
        }
        let layout = match transpose {
            Transpose::None => Layout::NN,
            Transpose::Second => Layout::NT,
            Transpose::First => Layout::TN,
        };
        let residual = if beta == 0.0 { Residual::Nothing } else { Residual::Target(beta) };
        let gemm = Gemm::new(layout, a, b, Target::Rounded(c));
        Gemm { alpha, residual, ..gemm }.run(self);
    }

    fn affine(
        &self,
        c: MatrixMut<'_, Self, bf16>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        bias: Option<Ref<'_, Self, f32>>,
        outer: Option<[Ref<'_, Self, bf16>; 2]>,
    ) {
        let checked = check_operands("affine", &c, &a, &b, Transpose::Second)
            .and_then(|()| check_vectors::<Self>("affine", [c.rows, c.cols], bias, outer));
        if self.keep(checked).is_none() {
            return;
        }
        let term = outer.map(|outer| outer_product(outer, b.rows));
        let Some(terms) = Terms::new(self, term.as_slice()) else { return };
        let gemm = Gemm::new(Layout::NT, a, b, Target::Rounded(c));
        Gemm { bias, terms: Some(&terms), ..gemm }.run(self);
    }

    fn affine_gradient(
        &self,
        dw_acc: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        outer: [Ref<'_, Self, bf16>; 2],
    ) {
        let checked = check_operands("affine_gradient", &dw_acc, &a, &b, Transpose::Second)
            .and_then(|()| check_vectors("affine_gradient", [dw_acc.rows, dw_acc.cols], None, Some(outer)));
        if self.keep(checked).is_none() {
            return;
        }
        let term = [outer_product(outer, b.rows)];
        let Some(terms) = Terms::new(self, &term) else { return };
        let gemm = Gemm::new(Layout::NT, a, b, Target::Added(dw_acc));
        Gemm { terms: Some(&terms), ..gemm }.run(self);
    }

    fn weighted_product(
        &self,
        c: MatrixMut<'_, Self, bf16>,
        a: Matrix<'_, Self, bf16>,
        b: Matrix<'_, Self, bf16>,
        row_weight: Ref<'_, Self, f32>,
    ) {
        let checked = check_operands("weighted_product", &c, &a, &b, Transpose::First)
            .and_then(|()| expect_exactly("weighted_product", "row_weight", row_weight.len(), Some(a.rows)));
        if self.keep(checked).is_none() {
            return;
        }
        let gemm = Gemm::new(Layout::TN, a, b, Target::Rounded(c));
        Gemm { row_weight: Some(row_weight), ..gemm }.run(self);
    }

    fn weight_gradients(&self, gradients: Vec<WeightGradient<'_, Self>>) {
        if self.keep(gradients.iter().try_for_each(WeightGradient::check)).is_none() {
            return;
        }
        let gemm = |gradient| {
            let WeightGradient { dw_acc, dy, x, row_weight } = gradient;
            Gemm { row_weight, ..Gemm::new(Layout::TN, dy, x, Target::Added(dw_acc)) }
        };
        let gemms = gradients.into_iter().map(gemm).collect();
        in_groups(gemms, GROUPED_GEMMS, |gemms| match <[_; 1]>::try_from(gemms) {
            // Alone, a product may have large tiles.
            Ok([gemm]) => gemm.run(self),
            Err(gemms) => self.group_with_split_k(gemms),
        });
    }

    fn bias_gradients(&self, mut gradients: Vec<BiasGradient<'_, Self>>) {
        if self.keep(gradients.iter().try_for_each(BiasGradient::check)).is_none() {
            return;
        }
        gradients.retain(|gradient| gradient.db_acc.len() * gradient.row_weight.len() > 0);
        in_groups(gradients, COLUMN_SUMS, |gradients| self.column_sums(gradients));
    }
}

impl Cuda {
    fn group_with_split_k(&self, gemms: Vec<Gemm<'_>>) {
        let splits = splits(self, gemms.iter().map(|gemm| gemm.size().into()));
        let (mut scratch, mut counters) = (self.scratch(), self.counters());
        let workspaces = SplitWorkspace::take(self, &splits, &[], &mut scratch, &mut counters);
        let Some((workspaces, _)) = workspaces else { return };
        let members = gemms.into_iter().zip(workspaces);
        let members =
            members.map(|(gemm, workspace)| GroupedGemm { gemm, dropout: None, workspace: Some(workspace) });
        let members: Vec<_> = members.collect();
        self.grouped_gemm(&members.iter().collect::<Vec<_>>());
    }

    /// `db += Σ row_weight · dy` of up to [`COLUMN_SUMS`] gradients, none of them empty.
    fn column_sums(&self, gradients: Vec<BiasGradient<'_, Self>>) {
        let column_blocks =
            |gradient: &BiasGradient<'_, Self>| gradient.db_acc.len().div_ceil(COLUMN_SUM_WIDTH);
        let at_once =
            8 * self.info().multiprocessors as usize / gradients.iter().map(column_blocks).sum::<usize>();
        let split = |gradient: &BiasGradient<'_, Self>| Split {
            tiles: column_blocks(gradient),
            count: at_once.clamp(1, gradient.row_weight.len().div_ceil(ROWS_PER_SPLIT)),
            len: COLUMN_SUM_WIDTH,
        };
        let splits: Vec<_> = gradients.iter().map(split).collect();
        let (mut scratch, mut counters) = (self.scratch(), self.counters());
        let workspaces = SplitWorkspace::take(self, &splits, &[], &mut scratch, &mut counters);
        let Some((workspaces, _)) = workspaces else { return };

        let (mut several, mut blocks) = (ColumnSums::default(), 0);
        let mut launch = self.launch("column_sums");
        for ((to, gradient), workspace) in several.of.iter_mut().zip(&gradients).zip(&workspaces) {
            let (n, rows, dy) = (gradient.db_acc.len(), gradient.row_weight.len(), gradient.dy);
            launch = workspace.pass(&mut to.workspace, launch);
            launch = launch.writes(&mut to.y, "db", &gradient.db_acc, n, 4);
            launch = launch.reads(&mut to.x, "dy", dy.data, dy.extent(), alignment(dy.in_vectors()));
            launch = launch.reads(&mut to.row_weight, "row_weight", gradient.row_weight, rows, 4);
            *to = ColumnSum {
                rows: rows as i32,
                n: n as i32,
                x_stride: dy.stride as i32,
                vector: dy.in_vectors().into(),
                splits: workspace.split.count as i32,
                column_blocks: workspace.split.tiles as i32,
                first_block: blocks as i32,
                ..*to
            };
            several.count += 1;
            blocks += workspace.split.blocks();
        }
        launch.value(several).run(Shape::line(blocks, COLUMN_SUM_THREADS));
    }
}
