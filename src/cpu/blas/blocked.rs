//! Products with many rows: packed panels and a register-tiled micro-kernel.
//!
//! A is packed once, shared by all threads, one block of rows and depths at a time. A task owns a rectangle
//! of C: for each block of depths it packs `NR` columns of B into a panel that stays in the L1 cache
//! and runs them against its rows of A, which stay in the second level. So each element of a weight is
//! widened once per `TASK_ROWS` rows.

use super::operand::{Lines, Out};
use super::pack::pack;
use super::simd::{self, Element, Kernel, MAX_NR, MicroTile, Simd};
use super::{Scale, for_each_task};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most depths summed in registers: a panel of B (16 columns) then takes 20 of 32 KiB.
const MAX_DEPTHS: usize = 320;
/// Most rows of A per task: with `MAX_DEPTHS`, 640 KiB of a 1 MiB L2 cache.
const TASK_ROWS: usize = 512;
/// Most f32 of A packed at a time (8 MiB), so that they stay in the last-level cache.
const PACKED: usize = 2 << 20;
/// Most rows of A packed at a time.
const PACKED_ROWS: usize = 4096;
/// Tasks per thread, for balance when a core is slow or taken.
const TASKS_PER_THREAD: usize = 8;
/// Fewer multiply-adds than this run on the calling thread: about 10 µs, twice what waking a thread costs.
const MIN_PARALLEL: usize = 1 << 19;

/// `out = alpha · a · bᵀ + beta · out` over lines.
pub(super) fn product<A: Element, B: Element>(out: Out, a: Lines<A>, b: Lines<B>, scale: Scale) {
    let depth = a.depth;
    let parallel = scale.parallel && out.rows * out.cols * depth >= MIN_PARALLEL;
    let block_depth = even_share(depth, MAX_DEPTHS, 8);
    let packed_rows = even_share(out.rows, PACKED_ROWS, 1);
    let blocks_per_pass = (PACKED / (packed_rows * block_depth)).max(1);
    let mut packed = PACKED_A.take();
    for row in (0..out.rows).step_by(packed_rows) {
        let rows = row..out.rows.min(row + packed_rows);
        for start in (0..depth).step_by(block_depth * blocks_per_pass) {
            let depths = start..depth.min(start + block_depth * blocks_per_pass);
            let a = PackedA::new(&mut packed, &a, rows.clone(), depths, block_depth, parallel);
            let scale = if start == 0 { scale } else { Scale { beta: 1.0, ..scale } };
            multiply(out, &a, &b, scale, parallel);
        }
    }
    PACKED_A.set(packed);
}

thread_local! {
    /// Packing space of A, kept between calls. A call takes it, so one that rayon nests inside finds it
    /// empty.
    static PACKED_A: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Divides `total` into the fewest shares of at most `most`, as even as multiples of `unit` allow.
fn even_share(total: usize, most: usize, unit: usize) -> usize {
    total.div_ceil(total.div_ceil(most)).next_multiple_of(unit)
}

/// Rows of A over a range of depths: for each block of depths, panels of `MR` rows.
struct PackedA<'a> {
    data: &'a [f32],
    rows: Range<usize>,
    depths: Range<usize>,
    block_depth: usize,
    panels: usize,
    mr: usize,
}

impl<'a> PackedA<'a> {
    fn new<E: Element>(
        space: &'a mut Vec<f32>,
        a: &Lines<E>,
        rows: Range<usize>,
        depths: Range<usize>,
        block_depth: usize,
        parallel: bool,
    ) -> Self {
        let (mr, _) = simd::wide_tile();
        let panels = rows.len().div_ceil(mr);
        let panel_len = mr * block_depth;
        let len = panels * panel_len * depths.len().div_ceil(block_depth);
        if space.len() < len {
            space.resize(len, 0.0);
        }
        let target = PanelsMut(space.as_mut_ptr());
        for_each_task(len / panel_len, parallel, |index| {
            let start = depths.start + index / panels * block_depth;
            let depths = start..depths.end.min(start + block_depth);
            let first = rows.start + index % panels * mr;
            // SAFETY: panel `index` is inside `space`, written by this task alone.
            let panel = unsafe { target.get().add(index * panel_len) };
            simd::run_wide(PackPanel { panel, lines: a, first, end: rows.end, depths });
        });
        Self { data: &space[..len], rows, depths, block_depth, panels, mr }
    }

    /// Panel `panel` of block `block`.
    #[inline(always)]
    fn panel(&self, block: usize, panel: usize) -> *const f32 {
        let len = self.mr * self.block_depth;
        self.data[(block * self.panels + panel) * len..][..len].as_ptr()
    }
}

/// Address of panels that tasks fill, each its own.
struct PanelsMut(*mut f32);

// SAFETY: stands for an exclusive borrow of f32; each task dereferences its own panel only.
unsafe impl Send for PanelsMut {}
// SAFETY: as above; sharing it shares only an address.
unsafe impl Sync for PanelsMut {}

impl PanelsMut {
    fn get(&self) -> *mut f32 {
        self.0
    }
}

struct PackPanel<'a, E> {
    panel: *mut f32,
    lines: &'a Lines<'a, E>,
    first: usize,
    end: usize,
    depths: Range<usize>,
}

impl<E: Element> Kernel<()> for PackPanel<'_, E> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // A panel may run past `end` into the next rows: they are packed but never stored.
        debug_assert!(self.first < self.end);
        // SAFETY: the constructor gives a panel of `MR · block_depth` elements and depths inside the lines.
        unsafe { pack::<S::Narrow, E>(self.panel, S::MR, self.lines, self.first, self.depths) }
    }
}

/// Divides the rows of C that `a` covers into tasks and runs them.
fn multiply<E: Element>(out: Out, a: &PackedA, b: &Lines<E>, scale: Scale, parallel: bool) {
    let (mr, nr) = simd::wide_tile();
    let task_rows = even_share(a.rows.len(), TASK_ROWS, mr);
    let row_tasks = a.rows.len().div_ceil(task_rows);
    let wanted = if parallel { rayon::current_num_threads() * TASKS_PER_THREAD } else { 1 };
    let task_cols = out.cols.div_ceil(wanted.div_ceil(row_tasks)).next_multiple_of(nr);
    let col_tasks = out.cols.div_ceil(task_cols);
    // Neighbouring tasks share their rows of A.
    for_each_task(row_tasks * col_tasks, parallel, |index| {
        let panel = index / col_tasks * task_rows / mr;
        let col = index % col_tasks * task_cols;
        simd::run_wide(Task {
            out,
            a,
            b,
            scale,
            panels: panel..a.panels.min(panel + task_rows / mr),
            cols: col..out.cols.min(col + task_cols),
        });
    });
}

/// One rectangle of C.
struct Task<'a, E> {
    out: Out<'a>,
    a: &'a PackedA<'a>,
    b: &'a Lines<'a, E>,
    scale: Scale,
    panels: Range<usize>,
    cols: Range<usize>,
}

/// A packed panel of B, aligned to cache lines.
#[repr(align(64))]
struct PanelB([MaybeUninit<f32>; MAX_DEPTHS * MAX_NR]);

impl<E: Element> Kernel<()> for Task<'_, E> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut panel_b = PanelB([MaybeUninit::uninit(); MAX_DEPTHS * MAX_NR]);
        let panel_b = panel_b.0.as_mut_ptr().cast::<f32>();
        let blocks = self.a.depths.clone().step_by(self.a.block_depth);
        for (block, start) in blocks.enumerate() {
            let depths = start..self.a.depths.end.min(start + self.a.block_depth);
            let scale = if block == 0 { self.scale } else { Scale { beta: 1.0, ..self.scale } };
            for col in self.cols.clone().step_by(S::NR) {
                // SAFETY: `NR · depths.len()` is at most what the panel holds, and the depths are inside B,
                // which is as deep as A; the rectangle of each micro-tile is inside this task's own.
                unsafe {
                    pack::<S::Narrow, E>(panel_b, S::NR, self.b, col, depths.clone());
                    self.column::<S>(panel_b, block, depths.clone(), col, scale);
                }
            }
        }
    }
}

impl<E: Element> Task<'_, E> {
    /// Runs one packed panel of B against every panel of A.
    ///
    /// # Safety
    /// `S` is available and `panel_b` holds `NR · depths.len()` elements.
    #[inline(always)]
    unsafe fn column<S: Simd>(
        &self,
        panel_b: *const f32,
        block: usize,
        depths: Range<usize>,
        col: usize,
        scale: Scale,
    ) {
        for panel in self.panels.clone() {
            // SAFETY: prefetching needs nothing but the instruction set.
            unsafe { self.prefetch::<S>(panel, depths.clone(), col + S::NR) };
            let row = self.a.rows.start + panel * S::MR;
            let tile = MicroTile {
                a: self.a.panel(block, panel),
                b: panel_b,
                depth: depths.len(),
                c: self.out.at(row, col),
                row_stride: self.out.row_stride,
                rows: S::MR.min(self.a.rows.end - row),
                cols: S::NR.min(self.cols.end - col),
                scale,
            };
            // SAFETY: both panels hold as many columns as there are depths; the tile's rows and columns are
            // inside `out` and this task's own, and `out` is not transposed here, so that its columns are
            // contiguous.
            unsafe { S::micro_tile(&tile) };
        }
    }
}

impl<E: Element> Task<'_, E> {
    /// Asks for a share of the next panel of B, which starts at line `col`, so that all of it has come when
    /// the last panel of A is done.
    ///
    /// # Safety
    /// `S` is available.
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, panel: usize, depths: Range<usize>, col: usize) {
        if col >= self.cols.end {
            return;
        }
        let along = self.b.depth_stride == 1;
        let (runs, run_len) = if along { (S::NR, depths.len()) } else { (depths.len(), S::NR) };
        let (done, panels) = (panel - self.panels.start, self.panels.len());
        for run in runs * done / panels..runs * (done + 1) / panels {
            let run =
                if along { self.b.at(col + run, depths.start) } else { self.b.at(col, depths.start + run) };
            for line in (0..run_len * size_of::<E>()).step_by(64) {
                // SAFETY: a hint, which cannot fault even past the end.
                unsafe { S::prefetch(run.cast::<u8>().wrapping_add(line).cast()) };
            }
        }
    }
}
