//! Products of a few rows with a weight whose rows run along the summed dimension: decoding, and the narrow
//! side of LoRA.
//!
//! The weight is read once, in storage order, straight into registers; the few rows stay in cache. Each
//! element of the result is a dot product of eight partial sums, so its bits do not depend on how rows and
//! columns are grouped.

use super::operand::{Lines, Out};
use super::simd::{self, Element, Kernel, Narrow, Simd};
use super::{Scale, for_each_task};
use std::cell::Cell;
use std::ops::Range;

/// Most rows for which streaming the weight beats packing it.
const MAX_ROWS: usize = 32;
/// Fewer bytes of weight than this are read by the calling thread alone.
const MIN_PARALLEL: usize = 256 << 10;
/// Columns per block: with four rows, their 4×3 sums, three weights and a row fill sixteen registers. More
/// would suit a single row in cache but read memory no faster.
const COLS: usize = 3;
/// Bytes of weight that a task works on at a time, half of a first-level cache.
const CHUNK_BYTES: usize = 16 << 10;
/// How far ahead of their use weights are asked for, in bytes. Three short rows read side by side defeat the
/// hardware's own prefetching.
const PREFETCH: usize = 4 << 10;
/// Tasks per thread, for balance when a core is slow or taken.
const TASKS_PER_THREAD: usize = 4;

/// Whether `few` is short enough, and `weight` laid out, for this algorithm.
pub(super) fn suits<P: Element, Q: Element>(few: &Lines<P>, weight: &Lines<Q>) -> bool {
    few.count <= MAX_ROWS && weight.depth_stride == 1
}

/// `out = alpha · few · weightᵀ + beta · out` over lines.
pub(super) fn product<P: Element, Q: Element>(out: Out, few: Lines<P>, weight: Lines<Q>, scale: Scale) {
    let depth = few.depth;
    let mut rows = FEW.take();
    rows.clear();
    for line in 0..few.count {
        rows.extend((0..depth).map(|d| few.get(line, d).to_f32()));
    }
    let parallel = scale.parallel && weight.count * depth * size_of::<Q>() >= MIN_PARALLEL;
    let tasks = if parallel { rayon::current_num_threads() * TASKS_PER_THREAD } else { 1 };
    let share = weight.count.div_ceil(tasks).next_multiple_of(COLS);
    for_each_task(weight.count.div_ceil(share), parallel, |index| {
        let start = index * share;
        let cols = start..weight.count.min(start + share);
        simd::run_narrow(Dots { out, rows: &rows, depth, weight: &weight, cols, scale });
    });
    FEW.set(rows);
}

thread_local! {
    /// The few rows as f32, kept between calls. A call takes it, so one that rayon nests inside finds it
    /// empty.
    static FEW: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// All rows of `out` for a range of its columns.
struct Dots<'a, Q> {
    out: Out<'a>,
    rows: &'a [f32],
    depth: usize,
    weight: &'a Lines<'a, Q>,
    cols: Range<usize>,
    scale: Scale,
}

impl<Q: Element> Kernel<()> for Dots<'_, Q> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Columns whose weights stay in the first-level cache while every group of rows meets them.
        let chunk = (CHUNK_BYTES / (self.depth * size_of::<Q>())).max(1).next_multiple_of(COLS);
        for start in self.cols.clone().step_by(chunk) {
            let cols = start..self.cols.end.min(start + chunk);
            let mut row = 0;
            // SAFETY: a set's narrow companion is available with it, and the rows exist.
            unsafe {
                while row + 4 <= self.out.rows {
                    self.rows::<S::Narrow, 4>(row, cols.clone());
                    row += 4;
                }
                match self.out.rows - row {
                    3 => self.rows::<S::Narrow, 3>(row, cols),
                    2 => self.rows::<S::Narrow, 2>(row, cols),
                    1 => self.rows::<S::Narrow, 1>(row, cols),
                    _ => {}
                }
            }
        }
    }
}

impl<Q: Element> Dots<'_, Q> {
    /// `ROWS` rows for a range of columns, `COLS` at a time.
    #[inline(always)]
    unsafe fn rows<S: Narrow, const ROWS: usize>(&self, row: usize, cols: Range<usize>) {
        let mut col = cols.start;
        // SAFETY: the blocks lie inside `out` and this task's columns.
        unsafe {
            while col + COLS <= cols.end {
                self.block::<S, ROWS, COLS>(row, col);
                col += COLS;
            }
            while col < cols.end {
                self.block::<S, ROWS, 1>(row, col);
                col += 1;
            }
        }
    }

    /// `ROWS × COLUMNS` dot products.
    #[inline(always)]
    unsafe fn block<S: Narrow, const ROWS: usize, const COLUMNS: usize>(&self, row: usize, col: usize) {
        let whole = self.depth / 8 * 8;
        // SAFETY: rows and columns exist and have `depth` contiguous elements; the block of `out` is this
        // task's own.
        unsafe {
            let weight: [*const Q; COLUMNS] = std::array::from_fn(|j| self.weight.at(col + j, 0));
            let rows: [*const f32; ROWS] =
                std::array::from_fn(|i| self.rows.as_ptr().add((row + i) * self.depth));
            let mut sums = [[S::splat(0.0); COLUMNS]; ROWS];
            for d in (0..whole).step_by(8) {
                let mut w = [S::splat(0.0); COLUMNS];
                for line in (0..8 * COLUMNS * size_of::<Q>()).step_by(64) {
                    let ahead =
                        weight[0].cast::<u8>().wrapping_add(PREFETCH + d * COLUMNS * size_of::<Q>() + line);
                    S::prefetch(ahead.cast());
                }
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
                for (j, &sum) in sums.iter().enumerate() {
                    let mut dot = S::sum(sum);
                    for d in whole..self.depth {
                        dot += *rows[i].add(d) * (*weight[j].add(d)).to_f32();
                    }
                    self.write(row + i, col + j, dot);
                }
            }
        }
    }

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
