//! Packing: `width` lines of an operand, widened to f32 and interleaved so that a micro-kernel reads them in
//! order.

use super::operand::Lines;
use super::simd::{Element, Narrow};
use std::ops::Range;

/// Writes `panel[p · width + i]` = element `depths.start + p` of line `first + i`. Lines past the end hold
/// copies of the last, so that the micro-kernel needs no special case: each line only meets its own sums.
///
/// # Safety
/// `S` is available; `panel` is valid for `width · depths.len()` writes; `depths` is inside the lines.
#[inline(always)]
pub(super) unsafe fn pack<S: Narrow, E: Element>(
    panel: *mut f32,
    width: usize,
    lines: &Lines<E>,
    first: usize,
    depths: Range<usize>,
) {
    debug_assert!(depths.end <= lines.depth);
    let live = width.min(lines.count - first);
    // SAFETY: passed on; `live` lines from `first` exist.
    unsafe {
        if lines.depth_stride == 1 {
            pack_across::<S, E>(panel, width, lines, first, live, depths);
        } else {
            pack_along::<S, E>(panel, width, lines, first, live, depths);
        }
    }
}

/// Lines contiguous along the depth: transpose blocks of eight lines by eight depths.
#[inline(always)]
unsafe fn pack_across<S: Narrow, E: Element>(
    panel: *mut f32,
    width: usize,
    lines: &Lines<E>,
    first: usize,
    live: usize,
    depths: Range<usize>,
) {
    let whole = depths.len() / 8 * 8;
    for group in (0..width).step_by(8) {
        let group_width = (width - group).min(8);
        let lines: [*const E; 8] =
            std::array::from_fn(|i| lines.at(first + (group + i).min(live - 1), depths.start));
        for p in (0..whole).step_by(8) {
            // SAFETY: eight depths from `p` of these lines exist, and lanes `group..group + group_width` of
            // columns `p..p + 8` are inside the panel.
            unsafe {
                // A loop, not `map`: closures do not take on the target features that intrinsics need.
                let mut block = [S::splat(0.0); 8];
                for (row, line) in block.iter_mut().zip(lines) {
                    *row = E::load::<S>(line.add(p));
                }
                let block = S::transpose(block);
                let corner = panel.add(p * width + group);
                for (i, column) in block.into_iter().enumerate() {
                    if group_width == 8 {
                        S::store(corner.add(i * width), column);
                    } else {
                        S::store_first(corner.add(i * width), column, group_width);
                    }
                }
            }
        }
    }
    for p in whole..depths.len() {
        // SAFETY: column `p` is inside the panel.
        unsafe { pack_column(panel.add(p * width), width, lines, first, live, depths.start + p) };
    }
}

/// Lines contiguous across: copy each depth's elements.
#[inline(always)]
unsafe fn pack_along<S: Narrow, E: Element>(
    panel: *mut f32,
    width: usize,
    lines: &Lines<E>,
    first: usize,
    live: usize,
    depths: Range<usize>,
) {
    let vectors = if live == width { width / 8 * 8 } else { 0 };
    for p in 0..depths.len() {
        // SAFETY: column `p` is inside the panel, and `live` contiguous lines exist at this depth.
        unsafe {
            let column = panel.add(p * width);
            let source = lines.at(first, depths.start + p);
            for i in (0..vectors).step_by(8) {
                S::store(column.add(i), E::load::<S>(source.add(i)));
            }
            for i in vectors..live {
                *column.add(i) = (*source.add(i)).to_f32();
            }
            for i in live..width {
                *column.add(i) = (*source.add(live - 1)).to_f32();
            }
        }
    }
}

/// One depth of the panel, element by element.
#[inline(always)]
unsafe fn pack_column<E: Element>(
    column: *mut f32,
    width: usize,
    lines: &Lines<E>,
    first: usize,
    live: usize,
    depth: usize,
) {
    for i in 0..width {
        // SAFETY: the caller vouches for `width` elements.
        unsafe { *column.add(i) = lines.get(first + i.min(live - 1), depth).to_f32() };
    }
}
