//! Rotary position embedding in the half-split layout of Hugging Face models.

use super::attention::Heads;
use super::contract::{expect_exactly, expect_len, refused};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Rows of a key/value cache that a pass fills.
pub struct CacheRows<'a, D: Device> {
    /// `[.., kv_width]` keys.
    pub k: Mut<'a, D, D::Act>,
    /// `[.., kv_width]` values.
    pub v: Mut<'a, D, D::Act>,
    /// `[1]` filled ones of the `step` rows that each row of the pass has in the cache, of which the pass
    /// fills the last; `None` where it fills the first.
    pub filled: Option<Ref<'a, D, u32>>,
    /// Rows of both from one row of the pass to the next.
    pub step: usize,
}

impl<D: Device> CacheRows<'_, D> {
    /// Refuses rows that the cache does not have.
    pub(crate) fn check(&self, rows: usize, heads: Heads) -> Result<()> {
        const OP: &str = "rope_into_cache";
        if let Some(filled) = self.filled {
            expect_exactly(OP, "filled", filled.len(), Some(1))?;
        }
        let elements = self.elements(rows, heads);
        let elements = elements
            .ok_or_else(|| refused(OP, format!("to: {rows} rows, {} apart, are in no cache", self.step)))?;
        expect_len(OP, "k", self.k.len(), elements)?;
        expect_len(OP, "v", self.v.len(), elements)
    }

    /// Elements of keys, and of values, among which those of `rows` rows of a pass lie; `None` where no
    /// memory has as many.
    pub(crate) fn elements(&self, rows: usize, heads: Heads) -> Option<usize> {
        let Some(last) = rows.checked_sub(1) else { return Some(0) };
        let of_last = if self.filled.is_some() { self.step } else { 1 };
        last.checked_mul(self.step)?.checked_add(of_last)?.checked_mul(heads.kv_width())
    }
}

/// Refuses heads whose halves cannot be rotated, and buffers of other than `rows` rows.
pub(crate) fn check(op: &str, [qkv, rows, inv_freq]: [usize; 3], heads: Heads) -> Result<()> {
    heads.check(op)?;
    if !heads.dim.is_multiple_of(2) {
        return Err(refused(op, format!("heads: expected an even number of elements, found {heads:?}")));
    }
    for (name, found, expected) in
        [("qkv", qkv, rows.saturating_mul(heads.qkv_width())), ("inv_freq", inv_freq, heads.dim / 2)]
    {
        if found != expected {
            let what = format!("{name}: expected {expected} elements for {rows} positions, found {found}");
            return Err(refused(op, what));
        }
    }
    Ok(())
}

/// Rotation of the query and key parts of packed `[q | k | v]` rows; the value part is left alone.
pub trait Rope: Device {
    /// Rotates in place: `(a, b) → (a·cos − b·sin, b·cos + a·sin)` for the halves a, b of every query and key
    /// head. qkv `[rows, heads.qkv_width()]`, positions `[rows]`, inv_freq `[head_dim / 2]` radians per
    /// position.
    fn rope(
        &self,
        qkv: Mut<'_, Self, Self::Act>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    );

    /// As [`Rope::rope`], and fills a cache: the keys, rotated, and the values of row `i` also become row `i
    /// · to.step + first` there, where `first` is `to.filled − 1`, or else 0. A row of the cache stands one
    /// position after the one before it, so row `i` is rotated for position `positions[i] + first`: decoding
    /// need not write new positions. With no filled row, or more than `to.step`, the pass is refused where
    /// that is read.
    fn rope_into_cache(
        &self,
        qkv: Mut<'_, Self, Self::Act>,
        to: CacheRows<'_, Self>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    );

    /// The inverse rotation of a gradient, in place; shapes as in [`Rope::rope`].
    fn rope_backward(
        &self,
        dqkv: Mut<'_, Self, Self::Act>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    );
}
