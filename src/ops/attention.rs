//! Causal attention over packed sequences, with prefix sharing, and over a key/value cache.

use super::contract::{expect_exactly, expect_len, refused};
use super::matrix::{Matrix, MatrixMut};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Head counts and widths of grouped-query attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of query heads.
    pub query: usize,
    /// Number of key/value heads; divides `query`.
    pub key_value: usize,
    /// Elements per head.
    pub dim: usize,
}

impl Heads {
    /// Width of the query part, and of the attention output.
    pub fn q_width(self) -> usize {
        self.query * self.dim
    }

    /// Width of the key part, and of the value part.
    pub fn kv_width(self) -> usize {
        self.key_value * self.dim
    }

    /// Width of a packed `[q | k | v]` row.
    pub fn qkv_width(self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// `1/√head_dim`.
    pub fn softmax_scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Query heads per key/value head.
    pub(crate) fn group(self) -> usize {
        self.query / self.key_value
    }

    /// Refuses heads that are none, or that do not divide into groups.
    pub(crate) fn check(self, op: &str) -> Result<()> {
        let Heads { query, key_value, dim } = self;
        let width = key_value.checked_mul(2).and_then(|n| n.checked_add(query)?.checked_mul(dim));
        let sound = query > 0 && key_value > 0 && dim > 0 && query.is_multiple_of(key_value);
        if sound && width.is_some_and(|width| width <= i32::MAX as usize) {
            return Ok(());
        }
        Err(refused(op, format!("heads: expected query heads in groups for key/value heads, found {self:?}")))
    }
}

/// Queries, keys and values of packed rows, each with a stride of its own.
pub struct Qkv<'a, D: Device> {
    /// `[rows, q_width]`.
    pub q: Matrix<'a, D, D::Act>,
    /// `[rows, kv_width]`.
    pub k: Matrix<'a, D, D::Act>,
    /// `[rows, kv_width]`.
    pub v: Matrix<'a, D, D::Act>,
}

impl<D: Device> Clone for Qkv<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Qkv<'_, D> {}

/// Rows of `width` that `len` elements make.
fn rows_of(len: usize, width: usize) -> usize {
    len.checked_div(width).unwrap_or(0)
}

impl<'a, D: Device> Qkv<'a, D> {
    /// Those of packed rows `[q | k | v]`, `[rows, qkv_width]`.
    pub fn packed(qkv: Ref<'a, D, D::Act>, heads: Heads) -> Self {
        let (q, kv) = (heads.q_width(), heads.kv_width());
        let rows = rows_of(qkv.len(), heads.qkv_width());
        let all = Matrix::new(qkv.slice(0..rows * heads.qkv_width()), rows, heads.qkv_width());
        Qkv { q: all.columns(0, q), k: all.columns(q, kv), v: all.columns(q + kv, kv) }
    }

    /// Refuses matrices of other widths, or with fewer rows than queries, or keys, are asked for.
    fn check(&self, op: &str, heads: Heads, queries: usize, keys: usize) -> Result<()> {
        self.q.expect(op, "q", queries, heads.q_width())?;
        self.k.expect(op, "k", keys, heads.kv_width())?;
        self.v.expect(op, "v", keys, heads.kv_width())
    }
}

/// Gradients of [`Qkv`], written.
pub struct QkvMut<'a, D: Device> {
    pub(crate) q: MatrixMut<'a, D, D::Act>,
    pub(crate) k: MatrixMut<'a, D, D::Act>,
    pub(crate) v: MatrixMut<'a, D, D::Act>,
}

impl<'a, D: Device> QkvMut<'a, D> {
    /// Three matrices: `[rows, q_width]`, `[rows, kv_width]` and `[rows, kv_width]`.
    pub fn new(
        q: MatrixMut<'a, D, D::Act>,
        k: MatrixMut<'a, D, D::Act>,
        v: MatrixMut<'a, D, D::Act>,
    ) -> Self {
        QkvMut { q, k, v }
    }

    /// Those of packed rows `[q | k | v]`, `[rows, qkv_width]`.
    pub fn packed(qkv: Mut<'a, D, D::Act>, heads: Heads) -> Self {
        let Qkv { q, k, v } = Qkv::packed(qkv.view(), heads);
        let columns = |m: Matrix<'_, D, D::Act>| {
            // SAFETY: these elements were borrowed exclusively, and are to be written again. The three
            // matrices are disjoint columns of the same rows; their fields are private, and backends write
            // nothing but the columns.
            let data = unsafe { Mut::from_raw(m.data.address(), m.data.len()) };
            MatrixMut { data, rows: m.rows, cols: m.cols, stride: m.stride }
        };
        QkvMut { q: columns(q), k: columns(k), v: columns(v) }
    }

    fn check(&self, op: &str, heads: Heads, rows: usize) -> Result<()> {
        self.q.expect(op, "dq", rows, heads.q_width())?;
        self.k.expect(op, "dk", rows, heads.kv_width())?;
        self.v.expect(op, "dv", rows, heads.kv_width())
    }
}

/// One sequence of a packed batch: its own rows, and the rows of another sequence that precede them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub start: u32,
    /// Number of rows.
    pub len: u32,
    /// First row of the shared prefix.
    pub prefix_start: u32,
    /// Rows of the shared prefix; 0 for a sequence of its own. Every query sees all of them.
    pub prefix_len: u32,
}

impl Segment {
    /// Row after the last.
    fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// Row after the last of the prefix.
    fn prefix_end(self) -> usize {
        self.prefix_start as usize + self.prefix_len as usize
    }
}

/// Rows up to the end of the last segment, and up to that of the last prefix too.
pub(crate) fn reach(segments: &[Segment]) -> (usize, usize) {
    let own = segments.iter().map(|s| s.end()).max().unwrap_or(0);
    (own, segments.iter().map(|s| s.prefix_end()).max().unwrap_or(0).max(own))
}

/// Refuses segments that share rows: each row's results are written once.
fn check_disjoint(op: &str, segments: &[Segment]) -> Result<()> {
    let mut sorted: Vec<&Segment> = segments.iter().filter(|segment| segment.len > 0).collect();
    sorted.sort_unstable_by_key(|segment| segment.start);
    match sorted.windows(2).find(|pair| pair[0].end() > pair[1].start as usize) {
        Some(pair) => Err(refused(op, format!("segments: {:?} and {:?} share rows", pair[0], pair[1]))),
        None => Ok(()),
    }
}

/// Refuses what [`Attention::attention`] cannot do without leaving its arguments.
pub(crate) fn check_forward<D: Device>(
    [o, lse]: [usize; 2],
    qkv: &Qkv<'_, D>,
    segments: &[Segment],
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention";
    heads.check(OP)?;
    check_disjoint(OP, segments)?;
    let (own, all) = reach(segments);
    qkv.check(OP, heads, own, all)?;
    expect_len(OP, "o", o, own * heads.q_width())?;
    expect_len(OP, "lse", lse, own * heads.query)
}

/// Refuses what [`Attention::attention_backward`] cannot do without leaving its arguments.
pub(crate) fn check_backward<D: Device>(
    dqkv: &QkvMut<'_, D>,
    [dout, o, lse]: [usize; 3],
    qkv: &Qkv<'_, D>,
    segments: &[Segment],
    heads: Heads,
) -> Result<()> {
    const OP: &str = "attention_backward";
    heads.check(OP)?;
    check_disjoint(OP, segments)?;
    if let Some(segment) = segments.iter().find(|s| s.prefix_len > 0) {
        return Err(refused(OP, format!("segments: expected no shared prefix, found {segment:?}")));
    }
    let (rows, _) = reach(segments);
    dqkv.check(OP, heads, rows)?;
    qkv.check(OP, heads, rows, rows)?;
    expect_len(OP, "dout", dout, rows * heads.q_width())?;
    expect_len(OP, "o", o, rows * heads.q_width())?;
    expect_len(OP, "lse", lse, rows * heads.query)
}

/// The cached keys and values of one layer: one prompt shared by all samples, and what each sample added.
pub struct CachedKv<'a, D: Device> {
    /// `[prompt_len, kv_width]`.
    pub prompt_k: Ref<'a, D, D::Act>,
    /// `[prompt_len, kv_width]`.
    pub prompt_v: Ref<'a, D, D::Act>,
    /// `[samples, capacity, kv_width]`.
    pub sample_k: Ref<'a, D, D::Act>,
    /// `[samples, capacity, kv_width]`.
    pub sample_v: Ref<'a, D, D::Act>,
    /// `[1]` positions of `sample_k` and `sample_v` that are filled, the current token included.
    pub filled: Ref<'a, D, u32>,
}

impl<D: Device> CachedKv<'_, D> {
    /// Rows of the prompt.
    pub fn prompt_len(&self, heads: Heads) -> usize {
        self.prompt_k.len() / heads.kv_width()
    }

    /// Rows that each of `samples` samples has room for.
    pub(crate) fn capacity(&self, samples: usize, heads: Heads) -> usize {
        self.sample_k.len() / heads.kv_width() / samples.max(1)
    }

    /// Refuses what [`Attention::attention_decode`] cannot do without leaving its arguments.
    pub(crate) fn check(&self, o: usize, q: &Matrix<'_, D, D::Act>, heads: Heads) -> Result<()> {
        const OP: &str = "attention_decode";
        heads.check(OP)?;
        q.expect(OP, "q", q.rows, heads.q_width())?;
        expect_len(OP, "o", o, q.rows * heads.q_width())?;
        expect_len(OP, "prompt_v", self.prompt_v.len(), self.prompt_k.len())?;
        expect_len(OP, "sample_v", self.sample_v.len(), self.sample_k.len())?;
        if self.capacity(q.rows, heads) == 0 && q.rows > 0 {
            return Err(refused(OP, "sample_k: expected a row of each sample, found none".into()));
        }
        expect_exactly(OP, "filled", self.filled.len(), Some(1))
    }
}

/// `o = softmax(q kᵀ/√d) v`, a query seeing its prefix and the keys up to itself.
pub trait Attention: Device {
    /// Whether heads of this shape can be computed; kind `Model` if not.
    fn check_heads(&self, _heads: Heads) -> Result<()> {
        Ok(())
    }

    /// o `[rows, q_width]`, lse `[rows, query heads]` (log-sum-exp of the scaled scores, saved), qkv after
    /// RoPE. Rows of no segment are left alone; no row is in two.
    fn attention(
        &self,
        o: Mut<'_, Self, Self::Act>,
        lse: Mut<'_, Self, f32>,
        qkv: Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    );

    /// dqkv from do `[rows, q_width]` and what the forward saved. The segments must have no prefix: gradients
    /// never flow through a shared one (METHOD §6).
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        dqkv: QkvMut<'_, Self>,
        dout: Ref<'_, Self, Self::Act>,
        o: Ref<'_, Self, Self::Act>,
        lse: Ref<'_, Self, f32>,
        qkv: Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    );

    /// One new token per sample against the cache: o and q `[samples, q_width]`, q after RoPE. The new keys
    /// and values are already in the cache. Samples with no filled row, or more than there are, are refused
    /// where that is read.
    fn attention_decode(
        &self,
        o: Mut<'_, Self, Self::Act>,
        q: Matrix<'_, Self, Self::Act>,
        cache: &CachedKv<'_, Self>,
        heads: Heads,
    );
}
