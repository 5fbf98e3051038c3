//! Attention, as written in `ops/attention.rs`: tiles of queries against all the keys they see, as matrix products.

use super::gemm::{MatMut, MatRef, gemm_serial};
use super::parallel::SharedRows;
use super::{Cpu, math, parallel, team};
use crate::ops::attention::{Attention, CachedKv, Heads, Segment};
use crate::ops::{Mut, Ref};

/// Queries per tile: the score tile of a 1024-token sequence then stays in the second-level cache.
const TILE: usize = 64;

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
        let max = scale * math::max(seen);
        let sum = math::exp_in_place(seen, scale, max);
        math::scale(seen, 1.0 / sum);
        hidden.fill(0.0);
        lse(i, max + sum.ln());
    }
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

/// One sample's new query of one head against its cache.
fn decode_head(
    o: &mut [f32],
    q: &[f32],
    pieces: [(&[f32], &[f32]); 2],
    width: usize,
    scale: f32,
    p: &mut [f32],
) {
    let dim = q.len();
    let keys = pieces.iter().flat_map(|(k, _)| k.chunks(width));
    for (p, k) in p.iter_mut().zip(keys) {
        *p = math::dot(q, &k[..dim]);
    }
    let max = scale * math::max(p);
    let sum = math::exp_in_place(p, scale, max);
    o.fill(0.0);
    let values = pieces.iter().flat_map(|(_, v)| v.chunks(width));
    for (&p, v) in p.iter().zip(values) {
        math::axpy(o, p / sum, &v[..dim]);
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
        let (qkv, width) = (qkv.as_slice(), heads.kv_width());
        let samples = qkv.len() / heads.qkv_width();
        let prompt = (cache.prompt_k.as_slice(), cache.prompt_v.as_slice());
        let stride = cache.sample_k.len() / samples.max(1);
        let (sample_k, sample_v) = (cache.sample_k.as_slice(), cache.sample_v.as_slice());
        let keys = prompt.0.len() / width + cache.filled;
        let mut p = self.scratch.take(samples * heads.query * keys);
        parallel::rows2(o.into_slice(), heads.dim, &mut p, keys, |at, o, p| {
            let (sample, head) = (at / heads.query, at % heads.query);
            let column = heads.kv_of(head) * heads.dim;
            let own = sample * stride..sample * stride + cache.filled * width;
            let (k, v) = (&sample_k[own.clone()], &sample_v[own]);
            let head_of = |x: &'_ [f32]| column.min(x.len());
            let pieces = [
                (&prompt.0[head_of(prompt.0)..], &prompt.1[head_of(prompt.1)..]),
                (&k[head_of(k)..], &v[head_of(v)..]),
            ];
            let q = &qkv[sample * heads.qkv_width() + head * heads.dim..][..heads.dim];
            decode_head(o, q, pieces, width, heads.softmax_scale(), p);
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
