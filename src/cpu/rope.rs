//! Rotary embedding, as written in `ops/rope.rs`.

use multiversion::multiversion;

use super::{Cpu, parallel};
use crate::ops::attention::Heads;
use crate::ops::contract::refused_filled;
use crate::ops::rope::{CacheRows, Rope, check};
use crate::ops::{Mut, Ref};

/// Cosines, then sines, of the angles of every row: `[rows, 2, head_dim / 2]`.
fn fill_angles(table: &mut [f32], position: impl Fn(usize) -> u32 + Sync, inv_freq: &[f32]) {
    parallel::rows(table, 2 * inv_freq.len(), |i, row| {
        let (cos, sin) = row.split_at_mut(inv_freq.len());
        let position = position(i) as f32;
        for ((cos, sin), &f) in cos.iter_mut().zip(sin).zip(inv_freq) {
            (*sin, *cos) = (position * f).sin_cos();
        }
    });
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2+fma"))]
fn rotate_head(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        let sin = direction * sin;
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

impl Cpu {
    /// Rotates every query and key head of every row by `direction` times its angles.
    fn rotate(
        &self,
        qkv: &mut [f32],
        position: impl Fn(usize) -> u32 + Sync,
        inv_freq: &[f32],
        heads: Heads,
        direction: f32,
    ) {
        let mut table = self.scratch.take(qkv.len() / heads.qkv_width() * heads.dim);
        fill_angles(&mut table, position, inv_freq);
        let rotated = heads.q_width() + heads.kv_width();
        parallel::rows(qkv, heads.qkv_width(), |i, row| {
            let (cos, sin) = table[i * heads.dim..][..heads.dim].split_at(heads.dim / 2);
            for head in row[..rotated].chunks_exact_mut(heads.dim) {
                rotate_head(head, cos, sin, direction);
            }
        });
    }
}

impl Rope for Cpu {
    fn rope(
        &self,
        qkv: Mut<'_, Self, f32>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        if !self.accepts(check("rope", [qkv.len(), positions.len(), inv_freq.len()], heads)) {
            return;
        }
        let positions = positions.as_slice();
        self.rotate(qkv.into_slice(), |i| positions[i], inv_freq.as_slice(), heads, 1.0);
    }

    fn rope_into_cache(
        &self,
        qkv: Mut<'_, Self, f32>,
        to: CacheRows<'_, Self>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        let lengths = [qkv.len(), positions.len(), inv_freq.len()];
        let checked =
            check("rope_into_cache", lengths, heads).and_then(|()| to.check(positions.len(), heads));
        if !self.accepts(checked) {
            return;
        }
        let filled = to.filled.map_or(1, |filled| filled.as_slice()[0]);
        if to.filled.is_some() && !positions.is_empty() && !(1..=to.step).contains(&(filled as usize)) {
            self.accepts(Err(refused_filled("rope_into_cache", to.step as u32, filled)));
            return;
        }
        let (qkv, positions, first) = (qkv.into_slice(), positions.as_slice(), filled - 1);
        self.rotate(qkv, |i| positions[i].wrapping_add(first), inv_freq.as_slice(), heads, 1.0);
        let (k, v, width) = (to.k.into_slice(), to.v.into_slice(), heads.kv_width());
        for (i, row) in qkv.chunks_exact(heads.qkv_width()).enumerate() {
            let (row_k, row_v) = row[heads.q_width()..].split_at(width);
            let at = (i * to.step + first as usize) * width;
            k[at..at + width].copy_from_slice(row_k);
            v[at..at + width].copy_from_slice(row_v);
        }
    }

    fn rope_backward(
        &self,
        dqkv: Mut<'_, Self, f32>,
        positions: Ref<'_, Self, u32>,
        inv_freq: Ref<'_, Self, f32>,
        heads: Heads,
    ) {
        if !self.accepts(check("rope_backward", [dqkv.len(), positions.len(), inv_freq.len()], heads)) {
            return;
        }
        let positions = positions.as_slice();
        self.rotate(dqkv.into_slice(), |i| positions[i], inv_freq.as_slice(), heads, -1.0);
    }
}
