//! Matrix products `C = alpha · op(A) · op(B) + beta · C` in f32 on plain slices.
//!
//! Operands keep the element type they are stored in (f32, bf16, f16) and are widened to f32 on their way
//! into registers or packed panels; a whole weight is never copied. Two algorithms, chosen by shape alone:
//! `blocked` packs panels for a register-tiled micro-kernel, `skinny`, a batched GEMV, streams a weight once
//! for a few rows.
//!
//! The bits of the result depend on shapes, operands and instruction set, never on the number of threads:
//! threads divide rows and columns of C, and every element adds its products in one fixed order.

mod blocked;
mod operand;
mod pack;
mod simd;
mod skinny;

#[cfg(test)]
mod tests;

pub use operand::{Elems, MatMut, MatRef};
/// Most rows of a product with a weight that are computed one by one, each by itself.
pub(super) use skinny::MAX_ROWS as SKINNY_ROWS;

use super::team;
use operand::{Lines, Out, with_elems};

/// `c = alpha · a · b + beta · c`, with `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]`; transpose an operand
/// with [`MatRef::t`].
///
/// When `beta` is 0, `c` is written without being read, so it may hold anything. Runs on the current rayon
/// pool.
///
/// # Panics
/// When the three shapes disagree.
pub fn gemm(c: MatMut, a: MatRef, b: MatRef, alpha: f32, beta: f32) {
    update(c, a, b, Scale { alpha, beta, parallel: true });
}

/// [`gemm`] on the calling thread alone, for products inside tasks that are parallel already: waking other
/// threads would cost more than these products take.
///
/// # Panics
/// When the three shapes disagree.
pub fn gemm_serial(c: MatMut, a: MatRef, b: MatRef, alpha: f32, beta: f32) {
    update(c, a, b, Scale { alpha, beta, parallel: false });
}

fn update(c: MatMut, a: MatRef, b: MatRef, scale: Scale) {
    assert_eq!(a.rows(), c.rows(), "gemm: A has {} rows, C has {}", a.rows(), c.rows());
    assert_eq!(b.cols(), c.cols(), "gemm: B has {} columns, C has {}", b.cols(), c.cols());
    assert_eq!(a.cols(), b.rows(), "gemm: A has {} columns, B has {} rows", a.cols(), b.rows());
    let mut c = c;
    if c.rows() == 0 || c.cols() == 0 || a.cols() == 0 || scale.alpha == 0.0 {
        return c.scale(scale.beta);
    }
    with_elems!(a.data(), a_data => with_elems!(b.data(), b_data => {
        product(c.out(), a.lines_of_rows(a_data), b.lines_of_columns(b_data), scale)
    }))
}

/// The two factors of an update, and whether it may use several threads.
#[derive(Clone, Copy)]
struct Scale {
    alpha: f32,
    beta: f32,
    parallel: bool,
}

/// Picks the algorithm. Both operands are seen as lines along the summed dimension.
fn product<A: simd::Element, B: simd::Element>(out: Out, a: Lines<A>, b: Lines<B>, scale: Scale) {
    if skinny::suits(&a, &b) {
        skinny::product(out, a, b, scale);
    } else if skinny::suits(&b, &a) {
        skinny::product(out.t(), b, a, scale);
    } else {
        blocked::product(out, a, b, scale);
    }
}

/// Runs `task(0..count)`, on all threads when `parallel`.
fn for_each_task(count: usize, parallel: bool, task: impl Fn(usize) + Sync) {
    if parallel {
        team::run(count, task);
    } else {
        (0..count).for_each(task);
    }
}
