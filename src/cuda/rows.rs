//! How kernels walk rows of bf16: in 16-byte vectors where the width allows it, else element by element.

use half::bf16;

use super::launch::VECTOR;
use super::tile::ROW_THREADS;

/// Elements of a 16-byte access.
const LANES: usize = VECTOR / size_of::<bf16>();

/// Accesses that a row of `width` takes.
pub(super) fn reads(width: usize) -> usize {
    if width.is_multiple_of(LANES) { width / LANES } else { width }
}

/// Threads for a row: as many as it takes accesses, in whole warps.
pub(super) fn threads(width: usize) -> usize {
    reads(width).next_multiple_of(32).clamp(32, ROW_THREADS)
}

/// What buffers of such rows have to be aligned to, those of f32 beside them too.
pub(super) fn alignment(width: usize) -> usize {
    if width.is_multiple_of(LANES) { VECTOR } else { 1 }
}
