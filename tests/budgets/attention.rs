//! Attention at the lengths of the training data: products beyond the diagonal, global memory, bank
//! conflicts.

use cuda_emulator::counters::Counters;
use deepguard::cuda::Cuda;
use deepguard::cuda::tile::*;
use deepguard::ops::attention::{Attention, CachedKv, Heads, Qkv, QkvMut, Segment};
use deepguard::ops::{Arena, Buffer, Device, Element};

use super::counting::{self, count, narrow, uncounted, within};
use crate::emulator::{again_on_an_a100, cuda};

/// Lengths of secure functions, and of what of the vulnerable ones comes before the first difference and
/// after it. Their means are those of SVEN in tokens of Qwen: 432, 226 and 196.
const PAIRS: [(u32, u32, u32); 6] =
    [(97, 40, 52), (180, 110, 66), (305, 150, 150), (432, 230, 196), (610, 330, 275), (968, 496, 437)];

/// Most that may be issued or moved, as parts of what is needed.
const PRODUCTS: f64 = 1.25;
/// The same of products of warpgroups, which take 64 rows and 64 keys at once.
const WHOLE_TILES: f64 = 1.27;
const GLOBAL: f64 = 1.02;
/// Most that the forward pass may move, keys and values being read again by each block of rows, as parts of
/// what reading and writing everything once takes. These reads hit the second-level cache: a sequence's keys
/// of one head are small.
const AGAIN: f64 = 3.6;
/// Most that decoding may move, as parts of what blocks need and of what they need but for reading queries
/// again.
const DECODING: f64 = 1.25;
const DECODING_ONCE: f64 = 1.3;

/// One key/value head of Qwen2.5-7B and of SmolLM2-135M, and heads without groups.
const HEADS: [Heads; 3] = [
    Heads { query: 7, key_value: 1, dim: 128 },
    Heads { query: 3, key_value: 1, dim: 64 },
    Heads { query: 1, key_value: 1, dim: 64 },
];

/// Secure functions, then the vulnerable ones after their prefix of those.
fn batch() -> (Vec<Segment>, Vec<Segment>, usize) {
    let mut row = 0;
    let mut next = |len, prefix_start, prefix_len| {
        row += len;
        Segment { start: row - len, len, prefix_start, prefix_len }
    };
    let secure: Vec<Segment> = PAIRS.iter().map(|&(secure, ..)| next(secure, 0, 0)).collect();
    let suffix = |(s, &(_, prefix, own)): (&Segment, &(u32, u32, u32))| next(own, s.start, prefix);
    let vulnerable = secure.iter().zip(&PAIRS).map(suffix).collect();
    (secure, vulnerable, row as usize)
}

fn buffer<T: Element>(cuda: &Cuda, len: usize) -> Buffer<Cuda, T> {
    Arena::build(cuda, |arena| arena.buffer("test", &[len])).expect("memory").0
}

/// Multiply-adds of one product over all (query, key) pairs of all heads, as operations.
fn operations(segments: &[Segment], heads: Heads) -> usize {
    let pairs = |s: &Segment| {
        let (len, prefix) = (s.len as usize, s.prefix_len as usize);
        len * prefix + len * (len + 1) / 2
    };
    2 * heads.dim * heads.query * segments.iter().map(pairs).sum::<usize>()
}

/// Packed rows of a segment.
fn rows(segment: &Segment, heads: Heads) -> usize {
    segment.len as usize * heads.query / heads.key_value
}

/// Keys that blocks of `at_once` packed rows see, added up over the blocks of a key/value head.
fn keys_of_blocks(segments: &[Segment], heads: Heads, at_once: usize) -> usize {
    let group = heads.query / heads.key_value;
    let of_block = |s: &Segment, first: usize| {
        let last = (first + at_once).min(rows(s, heads)) - 1;
        s.prefix_len as usize + last / group + 1
    };
    let of_segment =
        |s: &Segment| (0..rows(s, heads)).step_by(at_once).map(|row| of_block(s, row)).sum::<usize>();
    segments.iter().map(of_segment).sum()
}

/// Packed rows that blocks of keys are seen by, added up over the blocks of a key/value head.
fn rows_of_blocks(segments: &[Segment], heads: Heads) -> usize {
    let group = heads.query / heads.key_value;
    let of_segment = |s: &Segment| {
        let blocks = (0..s.len as usize).step_by(ATTENTION_KEYS);
        blocks.map(|key| (s.len as usize - key) * group).sum::<usize>()
    };
    segments.iter().map(of_segment).sum()
}

/// Bytes of global memory, bulk copies included.
fn global_bytes(counters: &Counters) -> usize {
    counting::global_bytes(counters) + counters.bulk_load_bytes as usize
}

fn check(what: &str, counters: &Counters, products: usize, most: f64, bytes: usize) {
    within(&format!("{what}: products"), counters.tensor_flops as usize, products, most);
    within(&format!("{what}: global memory"), global_bytes(counters), bytes, GLOBAL);
    let (taken, ideal) = (counters.shared_wavefronts, counters.shared_wavefronts_ideal);
    assert_eq!(taken, ideal, "{what}: wavefronts of shared memory");
    assert_eq!((counters.local_bytes, counters.global_atomics), (0, 0), "{what}");
}

/// Operations of both products in whole tiles of `attention_sm90.cu`: a consumer's rows, of which its queries
/// with all heads of a group take most, and keys of the prefix and of the sequence's own.
fn whole_tiles(segments: &[Segment], heads: Heads) -> usize {
    let queries = ATTENTION_SM90_ROWS * heads.key_value / heads.query;
    let keys = |keys: usize| keys.next_multiple_of(ATTENTION_SM90_KEYS);
    let of_segment = |s: &Segment| {
        let (len, prefix) = (s.len as usize, s.prefix_len as usize);
        (0..len).step_by(queries).map(|query| keys(prefix) + keys((query + queries).min(len))).sum::<usize>()
    };
    4 * heads.dim * ATTENTION_SM90_ROWS * heads.key_value * segments.iter().map(of_segment).sum::<usize>()
}

#[test]
fn forward() {
    if uncounted() {
        return;
    }
    let (secure, vulnerable, n) = batch();
    let segments = [secure, vulnerable].concat();
    let hopper = cuda().info().capability == 90;
    for heads in HEADS {
        let group = heads.query / heads.key_value;
        let (kernel, at_once) = match hopper {
            true => {
                let queries = ATTENTION_SM90_CONSUMERS * (ATTENTION_SM90_ROWS / group);
                (format!("attention_{}_sm90", heads.dim), queries * group)
            }
            false => (format!("attention_{}", heads.dim), ATTENTION_ROWS),
        };
        let [counters] = count([&kernel], |cuda| {
            let (mut o, mut lse) = (buffer(cuda, n * heads.q_width()), buffer(cuda, n * heads.query));
            let qkv = buffer(cuda, n * heads.qkv_width());
            cuda.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), heads), &segments, heads);
        });
        let rows: usize = segments.iter().map(|s| rows(s, heads)).sum();
        let keys = keys_of_blocks(&segments, heads, at_once);
        // Queries and outputs, log-sum-exps; a key and a value for each tile of rows that sees it.
        let bytes = 2 * heads.dim * (2 * rows + 2 * keys) + 4 * rows;
        let once = 2 * n * (heads.qkv_width() + heads.q_width()) + 4 * n * heads.query;
        within("forward: global memory beside once", global_bytes(&counters), once, AGAIN);
        let products = if hopper { WHOLE_TILES } else { PRODUCTS };
        let what = format!("forward {heads:?}");
        check(&what, &counters, 2 * operations(&segments, heads), products, bytes);
        if hopper {
            assert_eq!(counters.tensor_flops as usize, whole_tiles(&segments, heads), "{what}: whole tiles");
        }
        narrow("forward: log-sum-exps", &counters, rows);
    }
}

#[test]
fn forward_on_an_a100() {
    again_on_an_a100("budgets::attention::forward");
}

#[test]
fn backward() {
    if uncounted() {
        return;
    }
    let (segments, _, _) = batch();
    let n = segments.iter().map(|s| s.len as usize).sum::<usize>();
    for heads in HEADS {
        let names = ["q", "kv"].map(|part| format!("attention_backward_{part}_{}", heads.dim));
        let counters = count(names.each_ref().map(String::as_str), |cuda| {
            let (mut dqkv, qkv) = (buffer(cuda, n * heads.qkv_width()), buffer(cuda, n * heads.qkv_width()));
            let (dout, o) = (buffer(cuda, n * heads.q_width()), buffer(cuda, n * heads.q_width()));
            let lse = buffer(cuda, n * heads.query);
            let (d, o, lse) = (QkvMut::packed(dqkv.view_mut(), heads), o.view(), lse.view());
            cuda.attention_backward(d, dout.view(), o, lse, Qkv::packed(qkv.view(), heads), &segments, heads);
        });
        let rows: usize = segments.iter().map(|s| rows(s, heads)).sum();
        let (one, row) = (operations(&segments, heads), 2 * heads.dim);
        // Queries, do, o and dq; log-sum-exps and do · o; a key and a value for each block that sees it.
        let keys = keys_of_blocks(&segments, heads, ATTENTION_QUERY_ROWS);
        check(
            &format!("dq {heads:?}"),
            &counters[0],
            3 * one,
            PRODUCTS,
            row * (4 * rows + 2 * keys) + 8 * rows,
        );
        narrow("dq: a log-sum-exp for four lanes, do · o", &counters[0], 5 * rows);
        // Keys, values and their gradients; a query, do and two numbers for each block that it sees.
        let seen = rows_of_blocks(&segments, heads);
        check(
            &format!("dk, dv {heads:?}"),
            &counters[1],
            4 * one,
            PRODUCTS,
            row * (4 * n + 2 * seen) + 8 * seen,
        );
        narrow("dk, dv: two numbers of a query", &counters[1], 2 * seen);
    }
}

#[test]
fn decode() {
    if uncounted() {
        return;
    }
    let heads = Heads { query: 28, key_value: 4, dim: 128 };
    let (prompt, filled, capacity) = (200usize, 150usize, 160);
    // Beside the cache there are partial results of splits, of which one sample has more than memory alone
    // would want, so that more multiprocessors have work. Each split reads the queries again.
    for (samples, splits) in [(1, (prompt + filled).div_ceil(ATTENTION_LONG)), (20, 2), (100, 2)] {
        let [counters] = count(["attention_decode_128"], |cuda| {
            let mut o = buffer(cuda, samples * heads.q_width());
            let qkv = buffer(cuda, samples * heads.qkv_width());
            let [prompt_k, prompt_v] = [(); 2].map(|()| buffer(cuda, prompt * heads.kv_width()));
            let [sample_k, sample_v] = [(); 2].map(|()| buffer(cuda, samples * capacity * heads.kv_width()));
            let mut of_samples = buffer(cuda, 1);
            cuda.upload(of_samples.view_mut(), &[filled as u32]);
            let cache = CachedKv {
                prompt_k: prompt_k.view(),
                prompt_v: prompt_v.view(),
                sample_k: sample_k.view(),
                sample_v: sample_v.view(),
                filled: of_samples.view(),
            };
            cuda.attention_decode(o.view_mut(), Qkv::packed(qkv.view(), heads).q, &cache, heads);
        });
        let tiles = (samples * heads.query / heads.key_value).div_ceil(ATTENTION_DECODE_ROWS);
        // Either all splits are of one list, or one is the prompt and one a sample's own.
        let blocks = if samples == 1 { splits } else { tiles + samples };
        assert_eq!(counters.blocks as usize, blocks * heads.key_value, "blocks for {samples} samples");
        let cached = 2 * 2 * heads.kv_width() * (prompt * tiles + filled * samples);
        let of_queries = 2 * samples * heads.q_width();
        let found = global_bytes(&counters);
        let what = format!("decoding {samples} samples: global memory");
        within(&what, found, cached + (splits + 1) * of_queries, DECODING);
        within(&format!("{what}, queries once"), found, cached + 2 * of_queries, DECODING_ONCE);
        let (taken, ideal) = (counters.shared_wavefronts, counters.shared_wavefronts_ideal);
        // For each split: pairs of sums and a logarithm written, the latter read; rounded quads; counters
        // reset.
        let of_rows = splits * (heads.dim / 2 + 2) + heads.dim / 4;
        // How many keys there are is broadcast to the threads of each block.
        let of_blocks = counters.blocks as usize * ATTENTION_THREADS;
        narrow(&what, &counters, samples * (heads.query * of_rows + heads.key_value) + of_blocks);
        assert_eq!(taken, ideal, "wavefronts of shared memory");
    }
}
