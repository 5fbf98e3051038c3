//! Fragments of A and B as dense tiles, and the product of tiles.
//!
//! A register of a fragment is eight rows of four lanes: of A eight matrix rows, of B eight matrix columns,
//! each with as many consecutive `k` as four words hold. A has its registers in the order (k block, row
//! block), B by k block.

use crate::tensor::accumulator::{Tile, column};
use crate::tensor::element::{Element, Number, Word};
use cuda_emulator_alu::row::Row;

/// Consecutive `k` in a register.
#[inline(always)]
const fn block<E: Element>() -> usize {
    4 * E::PER_WORD
}

/// A as `M` rows of `K`.
#[inline(always)]
pub(super) fn unpack_a<E: Element, const M: usize, const K: usize>(rows: &[Row]) -> [[E::Number; K]; M] {
    let mut a = [[E::Number::default(); K]; M];
    for (m, row) in a.iter_mut().enumerate() {
        for (kb, row) in row.chunks_exact_mut(block::<E>()).enumerate() {
            let words: [E::Word; 4] =
                std::array::from_fn(|t| E::Word::read(rows, kb * (M / 8) + m / 8, 4 * (m % 8) + t));
            for (i, x) in row.iter_mut().enumerate() {
                *x = E::get(words[i / E::PER_WORD], i % E::PER_WORD);
            }
        }
    }
    a
}

/// B as `K` rows of eight columns, in the order of [`column`].
#[inline(always)]
pub(super) fn unpack_b<E: Element, const K: usize>(rows: &[Row]) -> [[E::Number; 8]; K] {
    let mut b = [[E::Number::default(); 8]; K];
    for (word, group) in b.chunks_exact_mut(E::PER_WORD).enumerate() {
        let (kb, t) = (word / 4, word % 4);
        let words: [E::Word; 8] = std::array::from_fn(|slot| E::Word::read(rows, kb, 4 * column(slot) + t));
        for (i, row) in group.iter_mut().enumerate() {
            for (x, &word) in row.iter_mut().zip(&words) {
                *x = E::get(word, i);
            }
        }
    }
    b
}

/// Adds the product of eight rows of A and of B to the tile, one `k` after the other.
#[inline(always)]
pub(super) fn multiply_add<T: Number, const K: usize>(tile: &mut Tile<T>, a: &[[T; K]; 8], b: &[[T; 8]; K]) {
    for k in 0..K {
        for (sums, a) in tile.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(&b[k]) {
                *sum = a[k].multiply_add(b, *sum);
            }
        }
    }
}
