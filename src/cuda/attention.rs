//! Attention, as written in `ops/attention.rs`: bf16 in tensor cores, softmax and sums in f32, results
//! rounded once. Weights and their gradients are rounded to bf16 for the products.
//!
//! Refused are heads whose dimension is no multiple of 8 or above 128. Kernels exist for some dimensions;
//! others take the next larger one, the rest of which is zero.

mod sm90;

use half::bf16;

use super::Cuda;
use super::launch::{Launch, Shape, VECTOR};
use super::params::{self, HeadShape, KvCache, QkvGradient, Sequence, Sequences};
use super::tile::{
    ATTENTION_DECODE_BLOCKS, ATTENTION_DECODE_ROWS, ATTENTION_DECODE_TILES, ATTENTION_KEYS, ATTENTION_LONG,
    ATTENTION_NARROW, ATTENTION_QUERY_ROWS, ATTENTION_ROWS, ATTENTION_SEQUENCES, ATTENTION_SHORT,
    ATTENTION_THREADS,
};
use crate::error::{Error, Result};
use crate::ops::attention::{
    Attention, CachedKv, Heads, Qkv, QkvMut, Segment, check_backward, check_forward, reach,
};
use crate::ops::contract::refused;
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Mut, Ref};

/// Bytes of an element of a tile in shared memory.
const BYTES: usize = size_of::<bf16>();
/// Tiles of keys or values in shared memory: stages of the pipeline.
const RING: usize = 3;

impl HeadShape {
    fn new(heads: Heads) -> Self {
        let group = heads.group();
        HeadShape {
            query: heads.query as i32,
            key_value: heads.key_value as i32,
            dim: heads.dim as i32,
            group: group as i32,
            group_reciprocal: (1u64 << 32).div_ceil(group as u64) as u32,
            scale: heads.softmax_scale(),
        }
    }
}

/// Adds what is read to a launch.
fn pass<'l>(qkv: &Qkv<'_, Cuda>, mut launch: Launch<'l>) -> Launch<'l> {
    let Qkv { q, k, v } = qkv;
    let mut to = params::Qkv::default();
    for (to, name, from) in [(&mut to.q, "q", q), (&mut to.k, "k", k), (&mut to.v, "v", v)] {
        launch = launch.reads(to, name, from.data, from.extent(), VECTOR);
    }
    (to.q_stride, to.k_stride, to.v_stride) = (q.stride as i32, k.stride as i32, v.stride as i32);
    launch.value(to)
}

/// Adds the gradients of keys and values to a launch.
fn pass_gradient<'l>(
    k: &MatrixMut<'_, Cuda, bf16>,
    v: &MatrixMut<'_, Cuda, bf16>,
    launch: Launch<'l>,
) -> Launch<'l> {
    let mut to = QkvGradient::default();
    let launch = launch.writes(&mut to.k, "dk", &k.data, k.extent(), VECTOR);
    let launch = launch.writes(&mut to.v, "dv", &v.data, v.extent(), VECTOR);
    (to.k_stride, to.v_stride) = (k.stride as i32, v.stride as i32);
    launch.value(to)
}

/// Refuses rows that do not start on multiples of 16 bytes, and more than a kernel's integers count.
fn check_strides(op: &str, heads: Heads, matrices: &[(&str, [usize; 2])]) -> Result<()> {
    let most = i32::MAX as usize;
    for &(name, [rows, stride]) in matrices {
        if rows.saturating_mul(heads.query) > most || stride > most {
            return Err(refused(op, format!("{name}: {rows} rows with a stride of {stride} are too many")));
        }
        if rows > 1 && !stride.is_multiple_of(VECTOR / BYTES) {
            let expected = "expected rows that start on multiples of 16 bytes";
            return Err(refused(op, format!("{name}: {expected}, found a stride of {stride} elements")));
        }
    }
    Ok(())
}

fn strides<'n>(qkv: &Qkv<'_, Cuda>) -> [(&'n str, [usize; 2]); 3] {
    let Qkv { q, k, v } = qkv;
    [("q", [q.rows, q.stride]), ("k", [k.rows, k.stride]), ("v", [v.rows, v.stride])]
}

impl Sequences {
    /// Up to [`ATTENTION_SEQUENCES`] segments, longest first, and the number of their tiles.
    fn new(segments: &[Segment], tiles_of: impl Fn(usize) -> usize) -> (Self, usize) {
        let mut all = Self::default();
        let mut sorted = [Segment { start: 0, len: 0, prefix_start: 0, prefix_len: 0 }; ATTENTION_SEQUENCES];
        let sorted = &mut sorted[..segments.len()];
        sorted.copy_from_slice(segments);
        sorted.sort_unstable_by_key(|s| (std::cmp::Reverse(s.len + s.prefix_len), s.start));
        let mut tiles = 0;
        for (to, from) in all.of.iter_mut().zip(&*sorted) {
            *to = Sequence {
                start: from.start as i32,
                len: from.len as i32,
                prefix_start: from.prefix_start as i32,
                prefix_len: from.prefix_len as i32,
                first_tile: tiles as i32,
            };
            tiles += tiles_of(from.len as usize);
        }
        all.count = segments.len() as i32;
        (all, tiles)
    }
}

/// The most that a decoding launch has, whatever the number of filled keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct MostSplits {
    /// Blocks for each key/value head.
    blocks: usize,
    /// Splits of the keys of a query.
    count: usize,
}

impl KvCache {
    fn new(samples: usize, prompt: usize, capacity: usize, heads: Heads) -> Self {
        let row_tiles = |rows: usize| rows.div_ceil(ATTENTION_DECODE_ROWS) as i32;
        KvCache {
            samples: samples as i32,
            prompt_len: prompt as i32,
            capacity: capacity as i32,
            prompt_tiles: row_tiles(samples * heads.group()),
            own_tiles: row_tiles(heads.group()),
        }
    }

    /// Blocks for each key/value head, and splits of the keys of a query, with `prompt` and `own` tiles of
    /// keys. Splits are as long as possible, as long as there are [`ATTENTION_DECODE_BLOCKS`] blocks:
    /// `splits_of` of the kernel does the same.
    fn splits(&self, prompt: usize, own: usize, heads: Heads) -> MostSplits {
        let of = |tiles: usize| {
            let (prompt, own) = (prompt.div_ceil(tiles), own.div_ceil(tiles));
            let of_samples = self.samples as usize * own * self.own_tiles as usize;
            MostSplits { blocks: prompt * self.prompt_tiles as usize + of_samples, count: prompt + own }
        };
        let mut tiles = ATTENTION_DECODE_TILES;
        while tiles > 1 && of(tiles).blocks * heads.key_value < ATTENTION_DECODE_BLOCKS {
            tiles /= 2;
        }
        of(tiles)
    }

    /// The most of both for any number of filled keys.
    fn most_splits(&self, heads: Heads) -> MostSplits {
        let (prompt, capacity) = (self.prompt_len as usize, self.capacity as usize);
        // One sample has prompt and own keys in one list.
        let (prompt, before) = if self.samples == 1 { (0, prompt) } else { (prompt, 0) };
        let tiles = |keys: usize| keys.div_ceil(ATTENTION_LONG);
        (tiles(before + 1)..=tiles(before + capacity)).fold(MostSplits::default(), |most, own| {
            let MostSplits { blocks, count } = self.splits(tiles(prompt), own, heads);
            MostSplits { blocks: most.blocks.max(blocks), count: most.count.max(count) }
        })
    }
}

/// The kernels of one instance: the padded head dimension, and their names.
struct Kernels {
    dim: usize,
    forward: &'static str,
    backward_q: &'static str,
    backward_kv: &'static str,
    decode: &'static str,
}

macro_rules! kernels {
    ($dim:literal) => {
        Kernels {
            dim: $dim,
            forward: concat!("attention_", $dim),
            backward_q: concat!("attention_backward_q_", $dim),
            backward_kv: concat!("attention_backward_kv_", $dim),
            decode: concat!("attention_decode_", $dim),
        }
    };
}

const KERNELS: [Kernels; 5] = [kernels!(16), kernels!(64), kernels!(80), kernels!(96), kernels!(128)];

impl Kernels {
    /// Keys, or packed rows, of a tile that loops visit.
    fn visited(&self) -> usize {
        if self.dim <= ATTENTION_NARROW { ATTENTION_LONG } else { ATTENTION_SHORT }
    }

    /// Bytes of shared memory for so many rows of a head.
    fn shared(&self, rows: usize) -> usize {
        rows * self.dim * BYTES
    }
}

/// The kernels for a head.
fn kernels_for(heads: Heads) -> Result<&'static Kernels> {
    let found = KERNELS.iter().find(|kernels| heads.dim <= kernels.dim);
    found.filter(|_| heads.dim.is_multiple_of(VECTOR / BYTES)).ok_or_else(|| {
        Error::model(format!(
            "heads of {} elements: expected a multiple of 8 up to 128 on CUDA; use `device` cpu",
            heads.dim
        ))
    })
}

impl Attention for Cuda {
    fn check_heads(&self, heads: Heads) -> Result<()> {
        kernels_for(heads).map(|_| ())
    }

    fn attention(
        &self,
        o: Mut<'_, Self, bf16>,
        lse: Mut<'_, Self, f32>,
        qkv: Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    ) {
        let checked = check_forward([o.len(), lse.len()], &qkv, segments, heads)
            .and_then(|()| check_strides("attention", heads, &strides(&qkv)))
            .and_then(|()| kernels_for(heads));
        let Some(kernels) = self.keep(checked) else { return };
        if let Some(kernel) = sm90::kernel_for(self, heads) {
            return self.attention_sm90(kernel, (&o, &lse), &qkv, segments, heads);
        }
        let shared = kernels.shared(ATTENTION_ROWS + RING * kernels.visited());
        for segments in segments.chunks(ATTENTION_SEQUENCES) {
            let (sequences, tiles) =
                Sequences::new(segments, |len| (len * heads.group()).div_ceil(ATTENTION_ROWS));
            let (own, _) = reach(segments);
            let launch = self.launch(kernels.forward).write("o", &o, own * heads.q_width(), VECTOR).write(
                "lse",
                &lse,
                own * heads.query,
                4,
            );
            pass(&qkv, launch).value(sequences).value(HeadShape::new(heads)).run(Shape {
                grid: (tiles, heads.key_value, 1),
                block: ATTENTION_THREADS,
                shared,
            });
        }
    }

    fn attention_backward(
        &self,
        dqkv: QkvMut<'_, Self>,
        dout: Ref<'_, Self, bf16>,
        o: Ref<'_, Self, bf16>,
        lse: Ref<'_, Self, f32>,
        qkv: Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    ) {
        let QkvMut { q: dq, k: dk, v: dv } = &dqkv;
        let of_gradient =
            [("dq", [dq.rows, dq.stride]), ("dk", [dk.rows, dk.stride]), ("dv", [dv.rows, dv.stride])];
        let lengths = [dout.len(), o.len(), lse.len()];
        let checked = check_backward(&dqkv, lengths, &qkv, segments, heads)
            .and_then(|()| check_strides("attention_backward", heads, &strides(&qkv)))
            .and_then(|()| check_strides("attention_backward", heads, &of_gradient))
            .and_then(|()| kernels_for(heads));
        let Some(kernels) = self.keep(checked) else { return };
        let (rows, _) = reach(segments);
        let (width, numbers) = (rows * heads.q_width(), rows * heads.query);
        let mut scratch = self.scratch();
        let Some(products) = scratch.take::<f32>(self, numbers) else { return };
        let visited = kernels.visited();
        for segments in segments.chunks(ATTENTION_SEQUENCES) {
            let (sequences, tiles) =
                Sequences::new(segments, |len| (len * heads.group()).div_ceil(ATTENTION_QUERY_ROWS));
            let shared = 2 * kernels.shared(ATTENTION_QUERY_ROWS + 2 * visited);
            let launch = self
                .launch(kernels.backward_q)
                .write("dq", &dq.data, dq.extent(), VECTOR)
                .value(dq.stride as i32)
                .write("products", &products, numbers, 4)
                .read("dout", dout, width, VECTOR)
                .read("o", o, width, VECTOR)
                .read("lse", lse, numbers, 4);
            pass(&qkv, launch).value(sequences).value(HeadShape::new(heads)).run(Shape {
                grid: (tiles, heads.key_value, 1),
                block: ATTENTION_THREADS,
                shared,
            });
            let (sequences, tiles) = Sequences::new(segments, |len| len.div_ceil(ATTENTION_KEYS));
            let numbers_of_tiles = 2 * 2 * visited * size_of::<f32>();
            let shared = 2 * kernels.shared(ATTENTION_KEYS + 2 * visited) + numbers_of_tiles;
            let launch = pass_gradient(dk, dv, self.launch(kernels.backward_kv))
                .read("products", products.view(), numbers, 4)
                .read("dout", dout, width, VECTOR)
                .read("lse", lse, numbers, 4);
            pass(&qkv, launch).value(sequences).value(HeadShape::new(heads)).run(Shape {
                grid: (tiles, heads.key_value, 1),
                block: ATTENTION_THREADS,
                shared,
            });
        }
    }

    fn attention_decode(
        &self,
        o: Mut<'_, Self, bf16>,
        q: Matrix<'_, Self, bf16>,
        cache: &CachedKv<'_, Self>,
        heads: Heads,
    ) {
        let checked = cache
            .check(o.len(), &q, heads)
            .and_then(|()| check_strides("attention_decode", heads, &[("q", [q.rows, q.stride])]))
            .and_then(|()| kernels_for(heads));
        let Some(kernels) = self.keep(checked) else { return };
        let samples = q.rows;
        let (prompt, all) = (cache.prompt_k.len(), cache.sample_k.len());
        let capacity = cache.capacity(samples, heads);
        let shape = KvCache::new(samples, cache.prompt_len(heads), capacity, heads);
        // A recorded launch serves any number of filled keys.
        let MostSplits { blocks, count } = shape.most_splits(heads);
        let width = samples * heads.q_width();
        let tiles = kernels.shared(ATTENTION_DECODE_ROWS + RING * ATTENTION_LONG);
        // The tiles' memory is reused for the log-sum-exp of each split and head of a group.
        let shared = tiles.max(count * heads.group() * size_of::<f32>());
        let mut scratch = self.scratch();
        let Some(partial) = scratch.take::<f32>(self, count * (width + samples * heads.query)) else {
            return;
        };
        let (partial_o, partial_lse) = partial.split_at(count * width);
        let mut counters = self.counters();
        let groups = samples * heads.key_value;
        let Some(arrivals) = counters.take(self, groups) else { return };
        self.launch(kernels.decode)
            .write("o", &o, width, VECTOR)
            .write("partial_o", &partial_o, count * width, VECTOR)
            .write("partial_lse", &partial_lse, count * samples * heads.query, 4)
            .write("arrivals", &arrivals, groups, 4)
            .read("q", q.data, q.extent(), VECTOR)
            .value(q.stride as i32)
            .read("prompt_k", cache.prompt_k, prompt, VECTOR)
            .read("prompt_v", cache.prompt_v, prompt, VECTOR)
            .read("sample_k", cache.sample_k, all, VECTOR)
            .read("sample_v", cache.sample_v, all, VECTOR)
            .read("filled", cache.filled, 1, 4)
            .refusal()
            .value(shape)
            .value(HeadShape::new(heads))
            .run(Shape { grid: (blocks, heads.key_value, 1), block: ATTENTION_THREADS, shared });
    }
}
