//! How kernels walk rows of bf16: in 16-byte vectors where the width is a multiple of 8, else element by
//! element.

use half::bf16;

use super::launch::VECTOR;
use super::tile::ROW_THREADS;

/// Elements of a 16-byte access.
const LANES: usize = VECTOR / size_of::<bf16>();

/// Accesses of a row of `width`.
pub(super) fn reads(width: usize) -> usize {
    if width.is_multiple_of(LANES) { width / LANES } else { width }
}

/// Threads of a row: one for each access, in whole warps.
pub(super) fn threads(width: usize) -> usize {
    reads(width).next_multiple_of(32).clamp(32, ROW_THREADS)
}

/// Alignment of buffers of such rows, and of the f32 vectors beside them.
pub(super) fn alignment(width: usize) -> usize {
    if width.is_multiple_of(LANES) { VECTOR } else { 1 }
}
