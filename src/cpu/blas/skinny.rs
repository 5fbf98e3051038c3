//! Skinny GEMM (batched GEMV): products of a few rows with a weight whose rows run along the summed
//! dimension, in decoding and on the narrow side of LoRA.
//!
//! The weight is read once, in storage order, straight into registers; the few rows stay in cache. Each
//! element of the result is a dot product of as many partial sums as a register has lanes, so its bits do not
//! depend on how rows and columns are grouped.

use super::operand::{Lines, Out};
use super::simd::{self, Element, Kernel, RowGroup, Simd};
use super::{Scale, for_each_task};
use std::cell::Cell;
use std::ops::Range;

/// Most rows for which streaming the weight beats packing it.
pub(in crate::cpu) const MAX_ROWS: usize = 32;
/// Fewer bytes of weight than this are read by the calling thread alone.
const MIN_PARALLEL: usize = 64 << 10;
/// Bytes of weight that all groups of rows meet before the next, a quarter of a L1 cache.
const CHUNK_BYTES: usize = 16 << 10;
/// Bytes of the few rows that stay in a L1 cache beside the weights; of more, groups are smaller.
const CACHED_ROWS: usize = 32 << 10;
/// Prefetch distance of weights, in bytes. A few short rows read side by side defeat the hardware's own
/// prefetching.
const PREFETCH: usize = 4 << 10;
/// Columns of a task are a multiple of this, and thereby of those of a block in every instruction set.
const SHARE: usize = 12;
/// Tasks per thread, for balance when a core is slow or taken.
const TASKS_PER_THREAD: usize = 4;

/// Whether `few` is short enough, and `weight` laid out, for this algorithm.
pub(super) fn suits<P: Element, Q: Element>(few: &Lines<P>, weight: &Lines<Q>) -> bool {
    few.count <= MAX_ROWS && weight.depth_stride == 1
}

/// `out = alpha · few · weightᵀ + beta · out` over lines.
pub(super) fn product<P: Element, Q: Element>(out: Out, few: Lines<P>, weight: Lines<Q>, scale: Scale) {
    let depth = few.depth;
    let mut space = FEW.take();
    let rows = Rows::new(&mut space, &few);
    let parallel = scale.parallel && weight.count * depth * size_of::<Q>() >= MIN_PARALLEL;
    let tasks = if parallel { rayon::current_num_threads() * TASKS_PER_THREAD } else { 1 };
    let share = weight.count.div_ceil(tasks).next_multiple_of(SHARE);
    for_each_task(weight.count.div_ceil(share), parallel, |index| {
        let start = index * share;
        let cols = start..weight.count.min(start + share);
        simd::run_wide(Dots { out, rows, depth, weight: &weight, cols, scale });
    });
    FEW.set(space);
}

/// The few rows as f32, each from the start of a cache line on: a vector across two lines costs two reads.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

/// f32 in a cache line.
const LINE: usize = 16;

impl<'a> Rows<'a> {
    fn new<P: Element>(space: &'a mut Vec<f32>, few: &Lines<P>) -> Self {
        let stride = few.depth.next_multiple_of(LINE);
        let len = few.count * stride;
        if space.len() < len + LINE {
            space.resize(len + LINE, 0.0);
        }
        let start = space.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let data = &mut space[start..start + len];
        for (line, row) in data.chunks_exact_mut(stride).enumerate() {
            row.iter_mut().zip(0..few.depth).for_each(|(x, d)| *x = few.get(line, d).to_f32());
        }
        Rows { data, stride }
    }

    fn row(&self, row: usize) -> *const f32 {
        self.data[row * self.stride..][..self.stride].as_ptr()
    }
}

thread_local! {
    /// The few rows as f32, kept between calls. A call takes it, so one that rayon nests inside finds it
    /// empty.
    static FEW: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// All rows of `out` for a range of its columns.
struct Dots<'a, Q> {
    out: Out<'a>,
    rows: Rows<'a>,
    depth: usize,
    weight: &'a Lines<'a, Q>,
    cols: Range<usize>,
    scale: Scale,
}

/// A group of the few rows: one pass over the weights serves all its rows.
struct Group<'a, Q> {
    dots: &'a Dots<'a, Q>,
    /// First row.
    first: usize,
    /// Number of rows.
    len: usize,
    /// Index of the group, and number of groups.
    turn: usize,
    groups: usize,
    /// Prefetch distance of weights, in bytes.
    ahead: usize,
}

impl<Q: Element> Kernel<()> for Dots<'_, Q> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows = self.out.rows;
        let row_bytes = self.depth * size_of::<f32>();
        let most =
            if rows.min(S::DOT_ROWS) * row_bytes > CACHED_ROWS { S::DOT_ROWS / 2 } else { S::DOT_ROWS };
        let groups = rows.div_ceil(most);
        // Columns whose weights stay in the L1 cache while every group of rows meets them.
        let column_bytes = self.depth * size_of::<Q>();
        let (chunk, ahead) = if groups == 1 {
            (self.cols.len().max(1), PREFETCH)
        } else {
            let chunk = (CHUNK_BYTES / column_bytes).max(1).next_multiple_of(4);
            (chunk, chunk * column_bytes)
        };
        for start in self.cols.clone().step_by(chunk) {
            let cols = start..self.cols.end.min(start + chunk);
            for turn in 0..groups {
                // Groups of equal size, or one row apart.
                let (first, end) = (turn * rows / groups, (turn + 1) * rows / groups);
                let group = Group { dots: &self, first, len: end - first, turn, groups, ahead };
                // SAFETY: the caller's promise is the callee's; these rows and columns exist.
                unsafe { S::dots(&group, cols.clone()) }
            }
        }
    }
}

impl<Q: Element> RowGroup for Group<'_, Q> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    unsafe fn dots<S: Simd, const ROWS: usize, const COLS: usize>(&self, cols: Range<usize>) {
        debug_assert!(self.len == ROWS && self.first + ROWS <= self.dots.out.rows);
        let mut col = cols.start;
        // SAFETY: the blocks lie inside `out` and this task's columns.
        unsafe {
            while col + COLS <= cols.end {
                self.block::<S, ROWS, COLS>(col);
                col += COLS;
            }
            while col < cols.end {
                self.block::<S, ROWS, 1>(col);
                col += 1;
            }
        }
    }
}

impl<Q: Element> Group<'_, Q> {
    /// `ROWS × COLUMNS` dot products.
    #[inline(always)]
    unsafe fn block<S: Simd, const ROWS: usize, const COLUMNS: usize>(&self, col: usize) {
        const { assert!(COLUMNS <= 4) };
        let Dots { rows, depth, weight, .. } = *self.dots;
        let whole = depth / S::LANES * S::LANES;
        let step_bytes = S::LANES * COLUMNS * size_of::<Q>();
        // SAFETY: rows and columns exist and have `depth` contiguous elements; the block of `out` is this
        // task's own.
        unsafe {
            let weight: [*const Q; COLUMNS] = std::array::from_fn(|j| weight.at(col + j, 0));
            let rows: [*const f32; ROWS] = std::array::from_fn(|i| rows.row(self.first + i));
            let mut sums = [[S::splat(0.0); COLUMNS]; ROWS];
            let mut ahead = weight[0].cast::<u8>().wrapping_add(self.ahead);
            let mut turn = self.turn;
            for d in (0..whole).step_by(S::LANES) {
                // The groups share the prefetches, so that memory is never idle.
                if turn == 0 {
                    for line in (0..step_bytes).step_by(64) {
                        S::prefetch(ahead.wrapping_add(line).cast());
                    }
                    turn = self.groups;
                }
                turn -= 1;
                ahead = ahead.wrapping_add(step_bytes);
                let mut w = [S::splat(0.0); COLUMNS];
                for (w, p) in w.iter_mut().zip(weight) {
                    *w = Q::load::<S>(p.add(d));
                }
                for (sums, p) in sums.iter_mut().zip(rows) {
                    let x = S::load(p.add(d));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = S::fma(x, w, *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let mut four = [S::splat(0.0); 4];
                four[..COLUMNS].copy_from_slice(sums);
                let dots = S::sums(four);
                for (j, mut dot) in dots.into_iter().take(COLUMNS).enumerate() {
                    for d in whole..depth {
                        dot += *rows[i].add(d) * (*weight[j].add(d)).to_f32();
                    }
                    self.dots.write(self.first + i, col + j, dot);
                }
            }
        }
    }
}

impl<Q: Element> Dots<'_, Q> {
    /// # Safety
    /// The element is this task's own.
    #[inline(always)]
    unsafe fn write(&self, row: usize, col: usize, dot: f32) {
        let Scale { alpha, beta, .. } = self.scale;
        let p = self.out.at(row, col);
        // SAFETY: inside `out`, and the caller's own.
        unsafe { *p = if beta == 0.0 { alpha * dot } else { alpha * dot + beta * *p } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::blas::{MatMut, MatRef};
    use half::bf16;

    /// Multiples of 1/8 in [-1, 1], whose products and sums are exact: every order of adding gives the same.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 31) % 17) as f32 / 8.0 - 1.0).collect()
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        let cols = 7;
        for (rows, depth) in (1..=13).flat_map(|rows| [(rows, 5), (rows, 70)]).chain([(32, 2001)]) {
            let few = values(rows * depth, 1);
            let weight: Vec<bf16> = values(cols * depth, 2).into_iter().map(bf16::from_f32).collect();
            let lines = MatRef::new(&weight[..], cols, depth).lines_of_rows(&weight);
            let mut space = Vec::new();
            let packed = Rows::new(&mut space, &MatRef::new(&few[..], rows, depth).lines_of_rows(&few));
            let run = |set: fn(Dots<'_, bf16>)| {
                let mut c = vec![f32::NAN; rows * cols];
                let scale = Scale { alpha: 1.0, beta: 0.0, parallel: false };
                let mut out = MatMut::new(&mut c, rows, cols);
                set(Dots { out: out.out(), rows: packed, depth, weight: &lines, cols: 0..cols, scale });
                c
            };
            let exact = |i: usize| -> f32 {
                let (row, col) = (i / cols * depth, i % cols * depth);
                (0..depth).map(|d| few[row + d] * weight[col + d].to_f32()).sum()
            };
            let expected: Vec<f32> = (0..rows * cols).map(exact).collect();
            assert_eq!(run(|dots| simd::run_wide(dots)), expected, "wide, {rows} rows of {depth}");
            assert_eq!(run(|dots| simd::run_narrow(dots)), expected, "narrow, {rows} rows of {depth}");
            // SAFETY: `Portable` needs no feature.
            let portable = run(|dots| unsafe { dots.run::<simd::Portable>() });
            assert_eq!(portable, expected, "portable, {rows} rows of {depth}");
        }
    }
}
