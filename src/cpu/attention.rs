//! Attention, as written in `ops/attention.rs`: tiles of queries against all the keys they see, as matrix
//! products.

use std::ops::Range;

use super::blas::{MatMut, MatRef, gemm_serial};
use super::parallel::SharedRows;
use super::{Cpu, math, team};
use crate::ops::attention::{
    Attention, CachedKv, Heads, Qkv, QkvMut, Segment, check_backward, check_forward,
};
use crate::ops::contract::refused_filled;
use crate::ops::matrix::Matrix;
use crate::ops::{Mut, Ref};

/// Rows per tile, the queries of all heads that read the same keys: the scores of a 1024-token sequence then
/// stay in the L2 cache.
const TILE_ROWS: usize = 112;
/// Queries per task of the backward: the heads of the longest sequence alone would not keep all threads busy.
const PART: usize = 256;
/// Queries per task of decoding.
const QUERIES: usize = 16;

impl Heads {
    /// Columns of the queries, outputs and their gradients that belong to a key/value head.
    fn group_columns(self, kv_head: usize) -> Range<usize> {
        let width = self.group() * self.dim;
        kv_head * width..(kv_head + 1) * width
    }
}

/// Rows of heads, `stride` elements apart.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    fn of(matrix: Matrix<'a, Cpu, f32>) -> Self {
        Rows { data: matrix.data.as_slice(), stride: matrix.stride }
    }

    /// One head's rows `row .. row + n`.
    fn head(self, heads: Heads, head: usize, row: usize, n: usize) -> MatRef<'a> {
        let from = (row * self.stride + head * heads.dim).min(self.data.len());
        MatRef::strided(&self.data[from..], n, heads.dim, self.stride)
    }
}

/// What attention reads.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
}

impl<'a> Inputs<'a> {
    fn of(qkv: Qkv<'a, Cpu>) -> Self {
        Inputs { q: Rows::of(qkv.q), k: Rows::of(qkv.k), v: Rows::of(qkv.v) }
    }
}

/// Queries `first .. first + count` of a segment, those of all heads that read one key/value head. Row `r` of
/// their matrices is query `r / group`, head `r % group`.
#[derive(Clone, Copy)]
struct Tile {
    segment: Segment,
    kv_head: usize,
    first: usize,
    count: usize,
    heads: Heads,
}

impl Tile {
    /// First row of the batch.
    fn row(self) -> usize {
        self.segment.start as usize + self.first
    }

    fn rows(self) -> usize {
        self.count * self.heads.group()
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

    /// Keys that row `r` of the tile sees.
    fn visible(self, r: usize) -> usize {
        self.prefix() + self.first + r / self.heads.group() + 1
    }

    /// Query head of row `r`.
    fn head(self, r: usize) -> usize {
        self.kv_head * self.heads.group() + r % self.heads.group()
    }

    /// Row `r`'s row of the batch.
    fn batch_row(self, r: usize) -> usize {
        self.row() + r / self.heads.group()
    }

    /// Copies the tile's part of rows of query heads.
    fn gather(self, to: &mut [f32], from: Rows<'_>) {
        let columns = self.heads.group_columns(self.kv_head);
        for (i, to) in to.chunks_exact_mut(columns.len()).enumerate() {
            to.copy_from_slice(&from.data[(self.row() + i) * from.stride..][columns.clone()]);
        }
    }

    /// The inverse of [`Self::gather`].
    ///
    /// # Safety
    /// No other task may use this part of `to`.
    unsafe fn scatter(self, to: &SharedRows<'_>, from: &[f32]) {
        let columns = self.heads.group_columns(self.kv_head);
        for (i, from) in from.chunks_exact(columns.len()).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.piece(self.row() + i, columns.start, columns.len()) }.copy_from_slice(from);
        }
    }
}

/// The tiles of some queries of a segment.
fn tiles(
    segment: Segment,
    kv_head: usize,
    queries: Range<usize>,
    heads: Heads,
) -> impl Iterator<Item = Tile> {
    let most = (TILE_ROWS / heads.group()).max(1);
    let end = queries.end;
    let tile = move |first| Tile { segment, kv_head, first, count: most.min(end - first), heads };
    queries.step_by(most).map(tile)
}

/// `scores = q kᵀ`, `[rows, keys]`, unscaled and unmasked.
fn scores(out: &mut [f32], q: &[f32], k: Rows<'_>, tile: Tile) {
    let q = MatRef::new(q, tile.rows(), tile.heads.dim);
    key_pieces(tile, |column, row, n| {
        let k = k.head(tile.heads, tile.kv_head, row, n);
        gemm_serial(MatMut::strided(&mut out[column..], tile.rows(), n, tile.keys()), q, k.t(), 1.0, 0.0);
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
fn causal_softmax(scores: &mut [f32], tile: Tile, mut lse: impl FnMut(usize, f32)) {
    for (r, row) in scores.chunks_exact_mut(tile.keys()).enumerate() {
        let (seen, hidden) = row.split_at_mut(tile.visible(r));
        hidden.fill(0.0);
        lse(r, softmax(seen, tile.heads.softmax_scale()));
    }
}

/// Softmax of `scale` times the row, in place; returns its log-sum-exp.
fn softmax(row: &mut [f32], scale: f32) -> f32 {
    let max = scale * math::max(row);
    let sum = math::exp_in_place(row, scale, max);
    math::scale(row, 1.0 / sum);
    max + sum.ln()
}

fn forward_tile(cpu: &Cpu, o: &SharedRows<'_>, lse: &SharedRows<'_>, inputs: Inputs<'_>, tile: Tile) {
    let (rows, dim) = (tile.rows(), tile.heads.dim);
    // The queries, and later the output.
    let mut out = cpu.scratch.take(rows * dim);
    tile.gather(&mut out, inputs.q);
    let mut p = cpu.scratch.take(rows * tile.keys());
    scores(&mut p, &out, inputs.k, tile);
    causal_softmax(&mut p, tile, |r, value| {
        // SAFETY: (row, head) belongs to this tile alone.
        unsafe { lse.piece(tile.batch_row(r), tile.head(r), 1)[0] = value };
    });
    key_pieces(tile, |column, row, n| {
        let p = MatRef::strided(&p[column..], rows, n, tile.keys());
        let v = inputs.v.head(tile.heads, tile.kv_head, row, n);
        let beta = if column == tile.prefix() && tile.prefix() > 0 { 1.0 } else { 0.0 };
        gemm_serial(MatMut::new(&mut out, rows, dim), p, v, 1.0, beta);
    });
    // SAFETY: these columns of these rows belong to this tile alone.
    unsafe { tile.scatter(o, &out) };
}

/// Inputs of the backward of one tile.
struct Saved<'a> {
    inputs: Inputs<'a>,
    o: &'a [f32],
    dout: Rows<'a>,
    lse: &'a [f32],
}

/// Adds one tile's part to dk and dv `[keys, dim]` of its key/value head and writes its dq.
///
/// With p the softmax: dv = pᵀ do; ds = p ∘ (do vᵀ − rowsum(do ∘ o)) · scale; dq = ds k; dk = dsᵀ q.
fn backward_tile(cpu: &Cpu, dq: &SharedRows<'_>, dk: &mut [f32], dv: &mut [f32], s: &Saved<'_>, tile: Tile) {
    let (keys, rows, heads) = (tile.keys(), tile.rows(), tile.heads);
    let (dim, scale, start) = (heads.dim, heads.softmax_scale(), tile.segment.start as usize);
    let k = s.inputs.k.head(heads, tile.kv_head, start, keys);
    let v = s.inputs.v.head(heads, tile.kv_head, start, keys);
    let (mut q, mut dout) = (cpu.scratch.take(rows * dim), cpu.scratch.take(rows * dim));
    tile.gather(&mut q, s.inputs.q);
    tile.gather(&mut dout, s.dout);

    let mut p = cpu.scratch.take(rows * keys);
    scores(&mut p, &q, s.inputs.k, tile);
    for (r, row) in p.chunks_exact_mut(keys).enumerate() {
        let (seen, hidden) = row.split_at_mut(tile.visible(r));
        math::exp_in_place(seen, scale, s.lse[tile.batch_row(r) * heads.query + tile.head(r)]);
        hidden.fill(0.0);
    }
    let dout_matrix = MatRef::new(&*dout, rows, dim);
    let p_matrix = MatRef::new(&*p, rows, keys);
    gemm_serial(MatMut::new(&mut dv[..keys * dim], keys, dim), p_matrix.t(), dout_matrix, 1.0, 1.0);

    let mut ds = cpu.scratch.take(rows * keys);
    gemm_serial(MatMut::new(&mut ds, rows, keys), dout_matrix, v.t(), 1.0, 0.0);
    for (r, (ds, p)) in ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).enumerate() {
        let o = &s.o[tile.batch_row(r) * heads.q_width() + tile.head(r) * dim..][..dim];
        math::softmax_backward(ds, p, math::dot(&dout[r * dim..][..dim], o), scale);
    }
    let ds = MatRef::new(&*ds, rows, keys);
    gemm_serial(MatMut::new(&mut dk[..keys * dim], keys, dim), ds.t(), MatRef::new(&*q, rows, dim), 1.0, 1.0);
    // The queries have served: their place takes their gradient.
    gemm_serial(MatMut::new(&mut q, rows, dim), ds, k, 1.0, 0.0);
    // SAFETY: these heads of these rows belong to this tile alone.
    unsafe { tile.scatter(dq, &q) };
}

/// Some queries of a segment in the backward of one key/value head, and where their part of its gradient
/// lies.
struct BackwardPart {
    segment: Segment,
    kv_head: usize,
    queries: Range<usize>,
    /// First row of dk, after which dv follows, `[queries.end, dim]` each.
    row: usize,
}

/// All parts, in the order of segments, heads and queries, and the number of rows they take.
fn backward_parts(segments: &[Segment], heads: Heads) -> (Vec<BackwardPart>, usize) {
    let (mut parts, mut row) = (Vec::new(), 0);
    for &segment in segments {
        let len = segment.len as usize;
        for kv_head in 0..heads.key_value {
            for first in (0..len).step_by(PART) {
                let queries = first..len.min(first + PART);
                let end = queries.end;
                parts.push(BackwardPart { segment, kv_head, queries, row });
                row += 2 * end;
            }
        }
    }
    (parts, row)
}

impl BackwardPart {
    /// Writes the queries' gradient and this part of that of the keys and values.
    fn run(&self, cpu: &Cpu, dq: &SharedRows<'_>, partial: &SharedRows<'_>, s: &Saved<'_>, heads: Heads) {
        let len = self.queries.end * heads.dim;
        // SAFETY: these rows belong to this part alone.
        let (dk, dv) = unsafe { partial.piece(self.row, 0, 2 * len) }.split_at_mut(len);
        dk.fill(0.0);
        dv.fill(0.0);
        for tile in tiles(self.segment, self.kv_head, self.queries.clone(), heads) {
            backward_tile(cpu, dq, dk, dv, s, tile);
        }
    }
}

/// Adds up the parts of one key/value head of one segment, in their order.
fn sum_parts(to: [&SharedRows<'_>; 2], partial: &[f32], parts: &[BackwardPart], heads: Heads) {
    let Some(BackwardPart { segment, kv_head, .. }) = parts.first() else { return };
    for row in 0..segment.len as usize {
        for (offset, to) in to.into_iter().enumerate() {
            let at = segment.start as usize + row;
            // SAFETY: this head's columns of these rows belong to this task alone.
            let sum = unsafe { to.piece(at, kv_head * heads.dim, heads.dim) };
            sum.fill(0.0);
            for part in parts.iter().filter(|part| row < part.queries.end) {
                let from = part.row + offset * part.queries.end + row;
                math::axpy(sum, 1.0, &partial[from * heads.dim..][..heads.dim]);
            }
        }
    }
}

/// Inputs of decoding.
struct Decoding<'a> {
    q: Rows<'a>,
    /// Keys and values `[prompt, kv_width]` that all samples share.
    prompt: (&'a [f32], &'a [f32]),
    /// Keys and values `[samples, capacity, kv_width]` of their own.
    own: (&'a [f32], &'a [f32]),
    capacity: usize,
    filled: usize,
    heads: Heads,
}

impl Decoding<'_> {
    fn prompt_len(&self) -> usize {
        self.prompt.0.len() / self.heads.kv_width()
    }

    /// Columns of a key/value head in `n` cached rows from `row` on.
    fn cached<'x>(&self, rows: &'x [f32], kv_head: usize, row: usize, n: usize) -> MatRef<'x> {
        let width = self.heads.kv_width();
        let from = (row * width + kv_head * self.heads.dim).min(rows.len());
        MatRef::strided(&rows[from..], n, self.heads.dim, width)
    }

    /// The new queries that read one key/value head, of some samples: `out` `[samples · group, dim]`. One
    /// product with the prompt's keys, and one with its values, serves all of them.
    fn attend(&self, out: &mut [f32], scores: &mut [f32], samples: Range<usize>, kv_head: usize) {
        let (group, dim, prompt) = (self.heads.group(), self.heads.dim, self.prompt_len());
        let (rows, keys) = (samples.len() * group, prompt + self.filled);
        for (q, sample) in out.chunks_exact_mut(group * dim).zip(samples.clone()) {
            q.copy_from_slice(&self.q.data[sample * self.q.stride..][self.heads.group_columns(kv_head)]);
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
        qkv: Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    ) {
        if !self.accepts(check_forward([o.len(), lse.len()], &qkv, segments, heads)) {
            return;
        }
        let inputs = Inputs::of(qkv);
        let o = SharedRows::new(o.into_slice(), heads.q_width());
        let lse = SharedRows::new(lse.into_slice(), heads.query);
        let all_heads = |&segment: &Segment| {
            let all = 0..segment.len as usize;
            (0..heads.key_value).flat_map(move |head| tiles(segment, head, all.clone(), heads))
        };
        let mut all: Vec<Tile> = segments.iter().flat_map(all_heads).collect();
        // Longest first, for balance at the end.
        all.sort_by_key(|tile| std::cmp::Reverse(tile.count * tile.keys()));
        team::run(all.len(), |i| forward_tile(self, &o, &lse, inputs, all[i]));
    }

    fn attention_backward(
        &self,
        dqkv: QkvMut<'_, Self>,
        dout: Ref<'_, Self, f32>,
        o: Ref<'_, Self, f32>,
        lse: Ref<'_, Self, f32>,
        qkv: Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    ) {
        let lengths = [dout.len(), o.len(), lse.len()];
        if !self.accepts(check_backward(&dqkv, lengths, &qkv, segments, heads)) {
            return;
        }
        let QkvMut { q, k, v } = dqkv;
        let [dq, dk, dv] = [q, k, v].map(SharedRows::of);
        let dout = Rows { data: dout.as_slice(), stride: heads.q_width() };
        let saved = Saved { inputs: Inputs::of(qkv), o: o.as_slice(), dout, lse: lse.as_slice() };
        let (parts, rows) = backward_parts(segments, heads);
        let mut partial = self.scratch.take(rows * heads.dim);
        let mut order: Vec<&BackwardPart> = parts.iter().collect();
        order.sort_by_key(|part| std::cmp::Reverse(part.queries.len() * part.queries.end));
        {
            let partial = SharedRows::new(&mut partial, heads.dim);
            team::run(order.len(), |i| order[i].run(self, &dq, &partial, &saved, heads));
        }
        let of_one_head =
            |a: &BackwardPart, b: &BackwardPart| (a.segment.start, a.kv_head) == (b.segment.start, b.kv_head);
        let by_head: Vec<&[BackwardPart]> = parts.chunk_by(of_one_head).collect();
        team::run(by_head.len(), |i| sum_parts([&dk, &dv], &partial, by_head[i], heads));
    }

    fn attention_decode(
        &self,
        o: Mut<'_, Self, f32>,
        q: Matrix<'_, Self, f32>,
        cache: &CachedKv<'_, Self>,
        heads: Heads,
    ) {
        if !self.accepts(cache.check(o.len(), &q, heads)) {
            return;
        }
        let (samples, filled) = (q.rows, cache.filled.as_slice()[0]);
        if samples == 0 {
            return;
        }
        let capacity = cache.capacity(samples, heads);
        if !(1..=capacity).contains(&(filled as usize)) {
            self.accepts(Err(refused_filled("attention_decode", capacity as u32, filled)));
            return;
        }
        let decoding = Decoding {
            q: Rows::of(q),
            prompt: (cache.prompt_k.as_slice(), cache.prompt_v.as_slice()),
            own: (cache.sample_k.as_slice(), cache.sample_v.as_slice()),
            capacity,
            filled: filled as usize,
            heads,
        };
        let width = heads.group() * heads.dim;
        let share = (QUERIES / heads.group()).max(1);
        let keys = decoding.prompt_len() + decoding.filled;
        let o = SharedRows::new(o.into_slice(), heads.q_width());
        team::run(samples.div_ceil(share) * heads.key_value, |task| {
            let (first, kv_head) = (task / heads.key_value * share, task % heads.key_value);
            let samples = first..samples.min(first + share);
            let mut out = self.scratch.take(samples.len() * width);
            let mut scores = self.scratch.take(samples.len() * heads.group() * keys);
            decoding.attend(&mut out, &mut scores, samples.clone(), kv_head);
            for (sample, out) in samples.zip(out.chunks_exact(width)) {
                // SAFETY: these heads of this sample belong to this task alone.
                unsafe { o.piece(sample, kv_head * width, width) }.copy_from_slice(out);
            }
        });
    }
}
