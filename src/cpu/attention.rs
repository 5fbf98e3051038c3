//! Attention, as written in `ops/attention.rs`: tiles of queries against all the keys they see, as matrix products.

use std::ops::Range;

use super::gemm::{MatMut, MatRef, gemm_serial};
use super::parallel::SharedRows;
use super::{Cpu, math, team};
use crate::ops::attention::{Attention, CachedKv, Heads, Segment};
use crate::ops::{Mut, Ref};

/// Queries per tile: the score tile of a 1024-token sequence then stays in the second-level cache.
const TILE: usize = 64;
/// Queries per task of decoding.
const QUERIES: usize = 16;

/// The columns of one head inside packed `[q | k | v]` rows.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl Heads {
    /// First column of a head; `head` counts query heads for queries, key/value heads otherwise.
    fn column(self, part: Part, head: usize) -> usize {
        let start = match part {
            Part::Query => 0,
            Part::Key => self.q_width(),
            Part::Value => self.q_width() + self.kv_width(),
        };
        start + head * self.dim
    }

    /// The key/value head that a query head reads.
    fn kv_of(self, query_head: usize) -> usize {
        query_head / (self.query / self.key_value)
    }
}

/// One head's rows `row .. row + n` of packed rows.
fn head_rows(qkv: &[f32], heads: Heads, part: Part, head: usize, row: usize, n: usize) -> MatRef<'_> {
    let width = heads.qkv_width();
    let from = (row * width + heads.column(part, head)).min(qkv.len());
    MatRef::strided(&qkv[from..], n, heads.dim, width)
}

/// Queries `first .. first + count` of a segment.
#[derive(Clone, Copy)]
struct Tile {
    segment: Segment,
    head: usize,
    first: usize,
    count: usize,
}

impl Tile {
    fn row(self) -> usize {
        self.segment.start as usize + self.first
    }

    fn prefix(self) -> usize {
        self.segment.prefix_len as usize
    }

    /// Keys of the segment itself that the last query of the tile sees.
    fn own_keys(self) -> usize {
        self.first + self.count
    }

    fn keys(self) -> usize {
        self.prefix() + self.own_keys()
    }

    /// Keys that query `i` of the tile sees.
    fn visible(self, i: usize) -> usize {
        self.prefix() + self.first + i + 1
    }
}

fn tiles(segment: Segment, head: usize) -> impl Iterator<Item = Tile> {
    let len = segment.len as usize;
    (0..len).step_by(TILE).map(move |first| Tile { segment, head, first, count: TILE.min(len - first) })
}

/// `scores = q kᵀ`, `[count, keys]`, unscaled and unmasked.
fn scores(out: &mut [f32], qkv: &[f32], tile: Tile, heads: Heads) {
    let q = head_rows(qkv, heads, Part::Query, tile.head, tile.row(), tile.count);
    key_pieces(tile, |column, row, n| {
        let k = head_rows(qkv, heads, Part::Key, heads.kv_of(tile.head), row, n);
        gemm_serial(MatMut::strided(&mut out[column..], tile.count, n, tile.keys()), q, k.t(), 1.0, 0.0);
    });
}

/// Calls `f(first column, first row, keys)` for the shared prefix and for the segment's own keys.
fn key_pieces(tile: Tile, mut f: impl FnMut(usize, usize, usize)) {
    if tile.prefix() > 0 {
        f(0, tile.segment.prefix_start as usize, tile.prefix());
    }
    f(tile.prefix(), tile.segment.start as usize, tile.own_keys());
}

/// Softmax of every row over what its query sees, 0 elsewhere; returns each row's log-sum-exp through `lse`.
fn causal_softmax(scores: &mut [f32], tile: Tile, scale: f32, mut lse: impl FnMut(usize, f32)) {
    for (i, row) in scores.chunks_exact_mut(tile.keys()).enumerate() {
        let (seen, hidden) = row.split_at_mut(tile.visible(i));
        hidden.fill(0.0);
        lse(i, softmax(seen, scale));
    }
}

/// Softmax of `scale` times the row, in place; returns its log-sum-exp.
fn softmax(row: &mut [f32], scale: f32) -> f32 {
    let max = scale * math::max(row);
    let sum = math::exp_in_place(row, scale, max);
    math::scale(row, 1.0 / sum);
    max + sum.ln()
}

fn forward_tile(cpu: &Cpu, o: &SharedRows<'_>, lse: &SharedRows<'_>, qkv: &[f32], tile: Tile, heads: Heads) {
    let mut p = cpu.scratch.take(tile.count * tile.keys());
    scores(&mut p, qkv, tile, heads);
    causal_softmax(&mut p, tile, heads.softmax_scale(), |i, value| {
        // SAFETY: (row, head) belongs to this tile alone.
        unsafe { lse.piece(tile.row() + i, tile.head, 1)[0] = value };
    });
    let mut out = cpu.scratch.take(tile.count * heads.dim);
    key_pieces(tile, |column, row, n| {
        let p = MatRef::strided(&p[column..], tile.count, n, tile.keys());
        let v = head_rows(qkv, heads, Part::Value, heads.kv_of(tile.head), row, n);
        let beta = if column == tile.prefix() && tile.prefix() > 0 { 1.0 } else { 0.0 };
        gemm_serial(MatMut::new(&mut out, tile.count, heads.dim), p, v, 1.0, beta);
    });
    for (i, row) in out.chunks_exact(heads.dim).enumerate() {
        // SAFETY: these columns of these rows belong to this tile alone.
        unsafe { o.piece(tile.row() + i, tile.head * heads.dim, heads.dim) }.copy_from_slice(row);
    }
}

/// What the backward of one tile reads.
struct Saved<'a> {
    qkv: &'a [f32],
    o: &'a [f32],
    dout: &'a [f32],
    lse: &'a [f32],
}

/// Adds one tile's part to dk and dv `[len, dim]` of its key/value head and writes its dq.
///
/// With p the softmax: dv = pᵀ do; ds = p ∘ (do vᵀ − rowsum(do ∘ o)) · scale; dq = ds k; dk = dsᵀ q.
fn backward_tile(
    cpu: &Cpu,
    dqkv: &SharedRows<'_>,
    dk: &mut [f32],
    dv: &mut [f32],
    s: &Saved<'_>,
    tile: Tile,
    heads: Heads,
) {
    let (keys, count, dim) = (tile.keys(), tile.count, heads.dim);
    let (kv_head, scale, width) = (heads.kv_of(tile.head), heads.softmax_scale(), heads.q_width());
    let at = |i: usize| (tile.row() + i) * width + tile.head * dim;
    let q = head_rows(s.qkv, heads, Part::Query, tile.head, tile.row(), count);
    let k = head_rows(s.qkv, heads, Part::Key, kv_head, tile.segment.start as usize, keys);
    let v = head_rows(s.qkv, heads, Part::Value, kv_head, tile.segment.start as usize, keys);
    let dout = MatRef::strided(&s.dout[at(0)..], count, dim, width);

    let mut p = cpu.scratch.take(count * keys);
    scores(&mut p, s.qkv, tile, heads);
    for (i, row) in p.chunks_exact_mut(keys).enumerate() {
        let (seen, hidden) = row.split_at_mut(tile.visible(i));
        math::exp_in_place(seen, scale, s.lse[(tile.row() + i) * heads.query + tile.head]);
        hidden.fill(0.0);
    }
    gemm_serial(
        MatMut::new(&mut dv[..keys * dim], keys, dim),
        MatRef::new(&*p, count, keys).t(),
        dout,
        1.0,
        1.0,
    );

    let mut ds = cpu.scratch.take(count * keys);
    gemm_serial(MatMut::new(&mut ds, count, keys), dout, v.t(), 1.0, 0.0);
    for (i, (ds, p)) in ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).enumerate() {
        let delta = math::dot(&s.dout[at(i)..][..dim], &s.o[at(i)..][..dim]);
        math::softmax_backward(ds, p, delta, scale);
    }
    let ds = MatRef::new(&*ds, count, keys);
    gemm_serial(MatMut::new(&mut dk[..keys * dim], keys, dim), ds.t(), q, 1.0, 1.0);
    let mut dq = cpu.scratch.take(count * dim);
    gemm_serial(MatMut::new(&mut dq, count, dim), ds, k, 1.0, 0.0);
    for (i, row) in dq.chunks_exact(dim).enumerate() {
        // SAFETY: the query columns of these rows belong to this tile alone.
        unsafe { dqkv.piece(tile.row() + i, tile.head * dim, dim) }.copy_from_slice(row);
    }
}

/// The backward of one key/value head of one segment: all query heads that read it, in a fixed order.
fn backward_head(
    cpu: &Cpu,
    dqkv: &SharedRows<'_>,
    s: &Saved<'_>,
    segment: Segment,
    kv_head: usize,
    heads: Heads,
) {
    let len = segment.len as usize;
    let mut dk = cpu.scratch.take(len * heads.dim);
    let mut dv = cpu.scratch.take(len * heads.dim);
    dk.fill(0.0);
    dv.fill(0.0);
    let group = heads.query / heads.key_value;
    for head in kv_head * group..(kv_head + 1) * group {
        for tile in tiles(segment, head) {
            backward_tile(cpu, dqkv, &mut dk, &mut dv, s, tile, heads);
        }
    }
    for (part, grad) in [(Part::Key, &dk), (Part::Value, &dv)] {
        for (i, row) in grad.chunks_exact(heads.dim).enumerate() {
            let row_index = segment.start as usize + i;
            // SAFETY: this head's key and value columns of these rows belong to this task alone.
            unsafe { dqkv.piece(row_index, heads.column(part, kv_head), heads.dim) }.copy_from_slice(row);
        }
    }
}

/// What decoding attention reads.
struct Decoding<'a> {
    qkv: &'a [f32],
    /// Keys and values `[prompt, kv_width]` that all samples share.
    prompt: (&'a [f32], &'a [f32]),
    /// Keys and values `[samples, capacity, kv_width]` of their own.
    own: (&'a [f32], &'a [f32]),
    capacity: usize,
    filled: usize,
    heads: Heads,
}

impl Decoding<'_> {
    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.heads.query / self.heads.key_value
    }

    fn prompt_len(&self) -> usize {
        self.prompt.0.len() / self.heads.kv_width()
    }

    /// Columns of a key/value head in `n` cached rows from `row` on.
    fn cached<'x>(&self, rows: &'x [f32], kv_head: usize, row: usize, n: usize) -> MatRef<'x> {
        let width = self.heads.kv_width();
        let from = (row * width + kv_head * self.heads.dim).min(rows.len());
        MatRef::strided(&rows[from..], n, self.heads.dim, width)
    }

    /// The new queries that read one key/value head, of some samples: `out` `[samples · group, dim]`. All of them meet
    /// the prompt's keys and values together.
    fn attend(&self, out: &mut [f32], scores: &mut [f32], samples: Range<usize>, kv_head: usize) {
        let (group, dim, prompt) = (self.group(), self.heads.dim, self.prompt_len());
        let (rows, keys) = (samples.len() * group, prompt + self.filled);
        for (q, sample) in out.chunks_exact_mut(group * dim).zip(samples.clone()) {
            q.copy_from_slice(
                &self.qkv[sample * self.heads.qkv_width() + kv_head * group * dim..][..group * dim],
            );
        }
        let k = self.cached(self.prompt.0, kv_head, 0, prompt);
        gemm_serial(
            MatMut::strided(scores, rows, prompt, keys),
            MatRef::new(&*out, rows, dim),
            k.t(),
            1.0,
            0.0,
        );
        for (i, sample) in samples.clone().enumerate() {
            let q = MatRef::new(&out[i * group * dim..], group, dim);
            let k = self.cached(self.own.0, kv_head, sample * self.capacity, self.filled);
            let scores = &mut scores[i * group * keys + prompt..];
            gemm_serial(MatMut::strided(scores, group, self.filled, keys), q, k.t(), 1.0, 0.0);
        }
        for row in scores.chunks_exact_mut(keys) {
            softmax(row, self.heads.softmax_scale());
        }
        let p = MatRef::strided(&*scores, rows, prompt, keys);
        gemm_serial(MatMut::new(out, rows, dim), p, self.cached(self.prompt.1, kv_head, 0, prompt), 1.0, 0.0);
        for (i, sample) in samples.enumerate() {
            let p = MatRef::strided(&scores[i * group * keys + prompt..], group, self.filled, keys);
            let v = self.cached(self.own.1, kv_head, sample * self.capacity, self.filled);
            gemm_serial(MatMut::new(&mut out[i * group * dim..], group, dim), p, v, 1.0, 1.0);
        }
    }
}

impl Attention for Cpu {
    fn attention(
        &self,
        o: Mut<'_, Self, f32>,
        lse: Mut<'_, Self, f32>,
        qkv: Ref<'_, Self, f32>,
        segments: &[Segment],
        heads: Heads,
    ) {
        let o = SharedRows::new(o.into_slice(), heads.q_width());
        let lse = SharedRows::new(lse.into_slice(), heads.query);
        let all_heads = |&segment: &Segment| (0..heads.query).flat_map(move |head| tiles(segment, head));
        let mut all: Vec<Tile> = segments.iter().flat_map(all_heads).collect();
        // The longest first, so that no thread is left with a long one at the end.
        all.sort_by_key(|tile| std::cmp::Reverse(tile.count * tile.keys()));
        team::run(all.len(), |i| forward_tile(self, &o, &lse, qkv.as_slice(), all[i], heads));
    }

    fn attention_backward(
        &self,
        dqkv: Mut<'_, Self, f32>,
        dout: Ref<'_, Self, f32>,
        o: Ref<'_, Self, f32>,
        lse: Ref<'_, Self, f32>,
        qkv: Ref<'_, Self, f32>,
        segments: &[Segment],
        heads: Heads,
    ) {
        assert!(
            segments.iter().all(|s| s.prefix_len == 0),
            "attention_backward: a segment has a shared prefix"
        );
        let dqkv = SharedRows::new(dqkv.into_slice(), heads.qkv_width());
        let saved =
            Saved { qkv: qkv.as_slice(), o: o.as_slice(), dout: dout.as_slice(), lse: lse.as_slice() };
        let all_heads = |&segment: &Segment| (0..heads.key_value).map(move |head| (segment, head));
        let mut all: Vec<(Segment, usize)> = segments.iter().flat_map(all_heads).collect();
        all.sort_by_key(|(segment, _)| std::cmp::Reverse(segment.len));
        team::run(all.len(), |i| backward_head(self, &dqkv, &saved, all[i].0, all[i].1, heads));
    }

    fn attention_decode(
        &self,
        o: Mut<'_, Self, f32>,
        qkv: Ref<'_, Self, f32>,
        cache: &CachedKv<'_, Self>,
        heads: Heads,
    ) {
        let qkv = qkv.as_slice();
        let samples = qkv.len() / heads.qkv_width();
        let decoding = Decoding {
            qkv,
            prompt: (cache.prompt_k.as_slice(), cache.prompt_v.as_slice()),
            own: (cache.sample_k.as_slice(), cache.sample_v.as_slice()),
            capacity: cache.sample_k.len() / heads.kv_width() / samples.max(1),
            filled: cache.filled,
            heads,
        };
        let width = decoding.group() * heads.dim;
        let share = (QUERIES / decoding.group()).max(1);
        let keys = decoding.prompt_len() + decoding.filled;
        let o = SharedRows::new(o.into_slice(), heads.q_width());
        team::run(samples.div_ceil(share) * heads.key_value, |task| {
            let (first, kv_head) = (task / heads.key_value * share, task % heads.key_value);
            let samples = first..samples.min(first + share);
            let mut out = self.scratch.take(samples.len() * width);
            let mut scores = self.scratch.take(samples.len() * decoding.group() * keys);
            decoding.attend(&mut out, &mut scores, samples.clone(), kv_head);
            for (sample, out) in samples.zip(out.chunks_exact(width)) {
                // SAFETY: these heads of this sample belong to this task alone.
                unsafe { o.piece(sample, kv_head * width, width) }.copy_from_slice(out);
            }
        });
    }

    fn copy_columns(
        &self,
        to: Mut<'_, Self, f32>,
        from: Ref<'_, Self, f32>,
        to_width: usize,
        to_row: usize,
        to_row_step: usize,
        from_width: usize,
        from_column: usize,
    ) {
        let to = to.into_slice();
        for (i, row) in from.as_slice().chunks_exact(from_width).enumerate() {
            let at = (i * to_row_step + to_row) * to_width;
            to[at..at + to_width].copy_from_slice(&row[from_column..from_column + to_width]);
        }
    }
}
