//! The micro-kernel: a tile of C in registers.

use super::{MAX_MR, MAX_NR, Simd};
use crate::cpu::blas::Scale;

/// A tile of C of at most `MR × NR`, and the panels it is the product of.
pub(in crate::cpu::blas) struct MicroTile {
    pub(in crate::cpu::blas) a: *const f32,
    pub(in crate::cpu::blas) b: *const f32,
    pub(in crate::cpu::blas) depth: usize,
    pub(in crate::cpu::blas) c: *mut f32,
    pub(in crate::cpu::blas) row_stride: usize,
    pub(in crate::cpu::blas) rows: usize,
    pub(in crate::cpu::blas) cols: usize,
    pub(in crate::cpu::blas) scale: Scale,
}

/// `MR × (REGISTERS · LANES)` sums in registers.
///
/// # Safety
/// `S` is available; the panels hold `depth` columns of `MR` and `NR` elements; `rows × cols` elements of C
/// at `c` are the caller's to write.
#[inline(always)]
pub(super) unsafe fn micro_tile<S: Simd, const MR: usize, const REGISTERS: usize>(tile: &MicroTile) {
    let nr = REGISTERS * S::LANES;
    let full = tile.rows == MR && tile.cols == nr;
    // SAFETY: the caller's promises cover every access; an incomplete tile goes through `store_part`.
    unsafe {
        if full {
            for i in 0..MR {
                S::prefetch(tile.c.add(i * tile.row_stride));
                S::prefetch(tile.c.add(i * tile.row_stride + nr - 1));
            }
        }
        let sums = accumulate::<S, MR, REGISTERS>(tile.a, tile.b, tile.depth);
        if full {
            store::<S, MR, REGISTERS>(tile.c, tile.row_stride, &sums, tile.scale);
        } else {
            store_part::<S, MR, REGISTERS>(tile, &sums);
        }
    }
}

/// The product of two panels.
#[inline(always)]
unsafe fn accumulate<S: Simd, const MR: usize, const REGISTERS: usize>(
    mut a: *const f32,
    mut b: *const f32,
    depth: usize,
) -> [[S::V; REGISTERS]; MR] {
    // SAFETY: `depth` columns of both panels exist.
    unsafe {
        let mut sums = [[S::splat(0.0); REGISTERS]; MR];
        for _ in 0..depth {
            let mut columns = [S::splat(0.0); REGISTERS];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = S::load(b.add(j * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let x = S::splat(*a.add(i));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = S::fma(x, column, *sum);
                }
            }
            a = a.add(MR);
            b = b.add(REGISTERS * S::LANES);
        }
        sums
    }
}

/// `c = alpha · sums + beta · c` for a whole tile.
#[inline(always)]
unsafe fn store<S: Simd, const MR: usize, const REGISTERS: usize>(
    c: *mut f32,
    row_stride: usize,
    sums: &[[S::V; REGISTERS]; MR],
    scale: Scale,
) {
    // SAFETY: the caller owns the whole tile at `c`.
    unsafe {
        let (alpha, beta) = (S::splat(scale.alpha), S::splat(scale.beta));
        for (i, row) in sums.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                let p = c.add(i * row_stride + j * S::LANES);
                let kept = if scale.beta == 0.0 { S::splat(0.0) } else { S::load(p) };
                S::store(p, S::fma(beta, kept, S::fma(alpha, sum, S::splat(0.0))));
            }
        }
    }
}

/// The same for the part of a tile that exists: in a whole tile beside C, copied in and out.
#[inline(always)]
unsafe fn store_part<S: Simd, const MR: usize, const REGISTERS: usize>(
    tile: &MicroTile,
    sums: &[[S::V; REGISTERS]; MR],
) {
    let nr = REGISTERS * S::LANES;
    let mut whole = [0.0; MAX_MR * MAX_NR];
    // SAFETY: the caller owns `rows × cols` elements at `c`; `whole` holds `MR × nr`.
    unsafe {
        if tile.scale.beta != 0.0 {
            for i in 0..tile.rows {
                let row = tile.c.add(i * tile.row_stride);
                whole.as_mut_ptr().add(i * nr).copy_from_nonoverlapping(row, tile.cols);
            }
        }
        store::<S, MR, REGISTERS>(whole.as_mut_ptr(), nr, sums, tile.scale);
        for i in 0..tile.rows {
            let row = tile.c.add(i * tile.row_stride);
            row.copy_from_nonoverlapping(whole.as_ptr().add(i * nr), tile.cols);
        }
    }
}
