//! Rotary position embedding in the half-split layout of Hugging Face models.

use super::attention::Heads;
use super::contract::{expect_len, refused};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Rows of a key/value cache that a pass fills.
pub struct CacheRows<'a, D: Device> {
    /// `[.., kv_width]` keys.
    pub k: Mut<'a, D, D::Act>,
    /// `[.., kv_width]` values.
    pub v: Mut<'a, D, D::Act>,
    /// Row of both that the first row of the pass goes to.
    pub first: usize,
    /// Rows of both from one row of the pass to the next.
    pub step: usize,
}

impl<D: Device> CacheRows<'_, D> {
    /// Refuses rows that the cache does not have.
    pub(crate) fn check(&self, rows: usize, heads: Heads) -> Result<()> {
        const OP: &str = "rope_into_cache";
        let Some(last) = rows.checked_sub(1) else { return Ok(()) };
        let end = last.checked_mul(self.step).and_then(|row| row.checked_add(self.first)?.checked_add(1));
        let elements = end.and_then(|end| end.checked_mul(heads.kv_width()));
        let elements = elements.ok_or_else(|| {
            refused(OP, format!("to: {rows} rows from {}, {} apart, are in no cache", self.first, self.step))
        })?;
        expect_len(OP, "k", self.k.len(), elements)?;
        expect_len(OP, "v", self.v.len(), elements)
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
    /// · to.step + to.first` there. A row of the cache stands one position after the one before it, so row
    /// `i` is rotated for position `positions[i] + to.first`: decoding need not write new positions.
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
