//! Split-KV decoding: the last block to arrive combines the partial results of all splits.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;

use super::arrival;
use super::edit::{instead, remove};
use super::harness::{Case, Expected, Setup, bytes, mutant};
use super::inputs::{HeadShape, bf16s, integers, ptx};

const DIM: usize = 16;
/// Query heads of a key/value head: so many that two warps have some.
const GROUP: usize = 20;

/// `KvCache` of `kernels/attention_decode.cu`: keys of one sample in two splits, those of the prompt first.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct KvCache {
    samples: i32,
    prompt_len: i32,
    capacity: i32,
    prompt_tiles: i32,
    own_tiles: i32,
}

pub fn cases() -> Vec<Case> {
    vec![attention_decode()]
}

/// Queries are zero, so that all keys count alike, and all values of a head are the same: what comes out is
/// known. All blocks run at the same time, as they do on a GPU: one can be at its end before a warp of
/// another has written. There are many heads, as that happens to few.
fn setup(kv_heads: usize) -> Setup {
    let (heads, prompt, filled) = (kv_heads * GROUP, 70, 40);
    let (width, all) = (kv_heads * DIM, prompt + filled);
    let value = integers(width, 31, 9);
    let values = |rows: usize| bf16s(&value.repeat(rows));
    let (prompt_k, sample_k) = (integers(prompt * width, 32, 9), integers(filled * width, 33, 9));
    let out = || (0..heads * DIM).map(|i| f64::from(value[i / DIM / GROUP * DIM + i % DIM]));
    let lse = |keys: usize| vec![(keys as f64).ln(); heads];
    let cache = KvCache {
        samples: 1,
        prompt_len: prompt as i32,
        capacity: filled as i32,
        prompt_tiles: 1,
        own_tiles: 1,
    };
    let shape = HeadShape::new(heads, kv_heads, DIM, 0.25);
    let mut setup = Setup::new([2, kv_heads as u32], ATTENTION_THREADS)
        .shared((ATTENTION_DECODE_ROWS + 3 * ATTENTION_LONG) * DIM * 2)
        .output("o", Expected::Bf16(out().collect(), 1.0 / 128.0))
        .output("partial_o", Expected::F32(out().chain(out()).collect(), 1e-3))
        .output("partial_lse", Expected::F32([lse(ATTENTION_LONG), lse(all - ATTENTION_LONG)].concat(), 1e-3))
        .update("arrived", bytes(&vec![0u32; kv_heads]), Expected::Exactly(bytes(&vec![0u32; kv_heads])))
        .input("q", &bf16s(&vec![0; heads * DIM]))
        .value((heads * DIM) as i32)
        .input("prompt_k", &bf16s(&prompt_k))
        .input("prompt_v", &values(prompt))
        .input("sample_k", &bf16s(&sample_k))
        .input("sample_v", &values(filled))
        .input("filled", &[filled as u32])
        .value(0u64)
        .value(cache)
        .value(shape);
    setup.cooperative = true;
    setup
}

fn attention_decode() -> Case {
    let own = vec![
        mutant(
            "only a warp waits before the arrival",
            [instead("bar.sync", &[4], "bar.warp.sync -1;")],
            "Other warps may not have written what the last block combines.",
        ),
        mutant(
            "no barrier before the verdict of the arrival is read",
            [remove("bar.sync", &[5])],
            "Warps read whether they are before it is known.",
        ),
    ];
    Case {
        kernel: "attention_decode_16",
        ptx: ptx("attention_decode", "80"),
        profile: Profile::A100,
        setups: vec![setup(1), setup(24)],
        mutants: [own, arrival::mutants(&[4])].into_iter().flatten().collect(),
    }
}
