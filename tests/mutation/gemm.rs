//! The product with `cp.async`, `ldmatrix` and `mma.sync`.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;
use half::bf16;

use super::arrival;
use super::edit::{instead, operand, remove, swap};
use super::harness::{Arg, Case, Expected, Mutant, Setup, bytes, mutant};
use super::inputs::{bf16s, f32s, integers, ptx};

/// Bytes of a stage: the tiles of both operands, and weights along k.
const STAGE: usize = 2 * GEMM_LARGE_TILE * GEMM_TILE_K * 2 + GEMM_TILE_K * 4;

/// A product of integers, so small that all sums are exact in bf16.
pub struct Product {
    pub x: Vec<i32>,
    pub w: Vec<i32>,
    pub bias: Vec<i32>,
    pub y: Vec<i32>,
}

impl Product {
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        let (x, w, bias) = (integers(m * k, 1, 1), integers(n * k, 2, 1), integers(n, 3, 9));
        let dot = |x: &[i32], w: &[i32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<i32>();
        let row = |x| w.chunks(k).zip(&bias).map(move |(w, bias)| dot(x, w) + bias);
        let y = x.chunks(k).flat_map(row).collect();
        Product { x, w, bias, y }
    }

    /// Without a bias, each column of x times a weight.
    pub fn weighted(m: usize, n: usize, k: usize, weights: &[i32]) -> Self {
        let (x, w, bias) = (integers(m * k, 1, 1), integers(n * k, 2, 1), vec![0; n]);
        let dot = |x: &[i32], w: &[i32]| (0..k).map(|i| x[i] * weights[i] * w[i]).sum::<i32>();
        let y = x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect();
        Product { x, w, bias, y }
    }
}

/// Rows `[rows, columns]` with a gap behind each, up to a multiple of 16 bytes, that must not count.
fn with_gaps(values: &[i32], columns: usize) -> Vec<bf16> {
    let gap = columns.next_multiple_of(8) - columns;
    let row = |row: &[i32]| [bf16s(row), vec![bf16::from_f32(64.0); gap]].concat();
    values.chunks(columns).flat_map(row).collect()
}

pub fn transposed(values: &[i32], columns: usize) -> Vec<i32> {
    (0..columns).flat_map(|j| values.iter().skip(j).step_by(columns).copied()).collect()
}

/// `GemmParams` of `kernels/gemm_epilogue.h`: operands with rows of `a` and `b` elements, an overwritten y.
fn sizes([m, n, k]: [usize; 3], [a, b]: [usize; 2]) -> Vec<u8> {
    let stride = |columns: usize| columns.next_multiple_of(8) as i32;
    let vector = i32::from(n.is_multiple_of(8));
    let integers = [m as i32, n as i32, k as i32, stride(a), stride(b), n as i32, 0, 1, 1, vector];
    [bytes(&integers), bytes(&[1.0f32, 0.0]), bytes(&[0i32])].concat()
}

fn start(m: usize, n: usize) -> Setup {
    let tiles = m.div_ceil(GEMM_LARGE_TILE) * n.div_ceil(GEMM_LARGE_TILE);
    Setup::new([tiles as u32, 1], GEMM_LARGE_THREADS).shared(GEMM_STAGES * STAGE)
}

/// `a bᵀ + bias`. More tiles along k than stages, a rest along m, n and k; `n` decides how y is written.
fn nt(m: usize, n: usize, k: usize) -> Setup {
    nt_split_k(m, n, k, 1)
}

/// The same with split-K.
fn nt_split_k(m: usize, n: usize, k: usize, splits: usize) -> Setup {
    let product = Product::new(m, n, k);
    let mut setup = start(m, n);
    setup.grid[2] = splits as u32;
    setup
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .input("a", &with_gaps(&product.x, k))
        .input("b", &with_gaps(&product.w, k))
        .value(0u64)
        .input("bias", &f32s(&product.bias))
        .arg(Arg::Value(sizes([m, n, k], [k, k])))
        .split_workspace(splits * GEMM_LARGE_TILE * GEMM_LARGE_TILE * 4)
        .arg(Arg::Value(vec![0; 40 * GEMM_LORA_TERMS + 8]))
}

/// `a b`.
fn nn(m: usize, n: usize, k: usize) -> Setup {
    let product = Product::weighted(m, n, k, &vec![1; k]);
    start(m, n)
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .input("a", &with_gaps(&product.x, k))
        .input("b", &with_gaps(&transposed(&product.w, k), n))
        .value(0u64)
        .arg(Arg::Value(sizes([m, n, k], [k, n])))
        .split_workspace(0)
}

/// `aᵀ b`, with weights of the rows.
fn tn(m: usize, n: usize, k: usize) -> Setup {
    let weights = integers(k, 4, 2);
    let product = Product::weighted(m, n, k, &weights);
    start(m, n)
        .output("y", Expected::Exactly(bytes(&bf16s(&product.y))))
        .input("a", &with_gaps(&transposed(&product.x, k), m))
        .input("b", &with_gaps(&transposed(&product.w, k), n))
        .value(0u64)
        .input("row_weight", &f32s(&weights))
        .arg(Arg::Value(sizes([m, n, k], [m, n])))
        .split_workspace(0)
}

pub fn cases() -> Vec<Case> {
    let case = |kernel, file, setups, mutants| Case {
        kernel,
        ptx: ptx(file, "80"),
        profile: Profile::A100,
        setups,
        mutants,
    };
    vec![
        case(
            "gemm_nt_large",
            "gemm_nt",
            vec![nt(100, 72, 236), nt(40, 51, 40), nt_split_k(100, 72, 236, 3)],
            mutants(),
        ),
        case("gemm_nn_large", "gemm_nn", vec![nn(100, 72, 236), nn(140, 51, 40)], mutants_of_nn()),
        case("gemm_tn_large", "gemm_tn", vec![tn(100, 72, 236), tn(40, 151, 40)], mutants_of_tn()),
    ]
}

fn mutants() -> Vec<Mutant> {
    [synchronisation(), arrival::mutants(&[3]), split_k(), masks(), indices()].into_iter().flatten().collect()
}

fn synchronisation() -> Vec<Mutant> {
    vec![
        mutant(
            "wait_group 2 waits for one group less",
            [operand("cp.async.wait_group", &[0], 0, "3")],
            "The newest of four groups is the tile that is multiplied next.",
        ),
        mutant(
            "wait_group in the loop removed",
            [remove("cp.async.wait_group", &[0])],
            "Nothing orders the copies before the reads of ldmatrix.",
        ),
        mutant(
            "commit_group removed",
            [remove("cp.async.commit_group", &[0])],
            "Copies of no group are not waited for by wait_group.",
        ),
        mutant(
            "barrier in the loop removed",
            [remove("bar.sync", &[0])],
            "wait_group only covers the copies of the thread itself.",
        ),
        mutant(
            "barrier before the epilogue reuses the stages removed",
            [remove("bar.sync", &[1])],
            "Other warps still read the last tiles.",
        ),
        mutant(
            "barrier before the epilogue store removed",
            [remove("bar.sync", &[2])],
            "A row of y was stored to shared memory by four warps.",
        ),
        mutant(
            "barrier in the loop after the fetch",
            [
                remove("bar.sync", &[0]),
                instead("cp.async.commit_group", &[0], "cp.async.commit_group; bar.sync 0;"),
            ],
            "The fetch overwrites the stage that other warps still multiply.",
        ),
    ]
}

/// Mutants of the split-K reduction, beside those of its arrival.
fn split_k() -> Vec<Mutant> {
    vec![
        mutant(
            "barrier before the reduced sums are loaded removed",
            [remove("bar.sync", &[4])],
            "Threads write sums that others have reduced.",
        ),
        mutant(
            "a split too many is added",
            [swap("setp.lt.s32", &[33], ".lt.", ".le.")],
            "Behind the last split of the last tile is nothing.",
        ),
    ]
}

fn masks() -> Vec<Mutant> {
    vec![
        mutant("row m of a is read", [swap("setp.lt.s32", &[4, 5], ".lt.", ".le.")], "a has m rows."),
        mutant("row n of b is read", [swap("setp.lt.s32", &[6, 7], ".lt.", ".le.")], "b has n rows."),
        mutant(
            "columns beyond k are read",
            [instead("min.s32", &[2], "mov.b32 $0, 8;")],
            "k is no multiple of 8: what lies behind a row is added.",
        ),
        mutant(
            "all columns beyond n are written",
            [instead("min.s32", &[8], "mov.b32 $0, 8;")],
            "The bias has n elements, and a row of y too.",
        ),
        mutant("rows beyond m are written", [instead("min.s32", &[7], "mov.b32 $0, 128;")], "y has m rows."),
        mutant(
            "one tile too many",
            [swap("setp.lt.s32", &[30], ".lt.", ".le.")],
            "The stage behind the last holds an older tile, which is added again.",
        ),
    ]
}

fn indices() -> Vec<Mutant> {
    vec![
        mutant(
            "swizzle of the copies left out",
            [instead("xor.b32", &[0], "mov.b32 $0, $2;")],
            "ldmatrix still permutes the chunks of a row.",
        ),
        mutant(
            "swizzle of ldmatrix changed",
            [swap("xor.b32", &[3], "xor", "or")],
            "The copies still permute the chunks with xor.",
        ),
        mutant(
            "ldmatrix off by a row",
            [swap("ldmatrix", &[4], "]", "+64]")],
            "A row of a tile is 64 bytes; b differs from row to row.",
        ),
        mutant(
            "ldmatrix transposes",
            [swap("ldmatrix", &[0], ".x4.", ".x4.trans.")],
            "a lies row by row, as mma wants it.",
        ),
        mutant(
            "stages one too few",
            [instead("and.b32", &[0], "rem.u32 $0, $1, 3;")],
            "A tile overwrites one that is still read, and another is never multiplied.",
        ),
        mutant(
            "swizzle of the sums left out",
            [instead("xor.b32", &[12, 13], "mov.b32 $0, $2;")],
            "They were stored swizzled.",
        ),
        mutant(
            "swizzle of a split's columns left out",
            [instead("xor.b32", &[9], "mov.b32 $0, $2;")],
            "Sums of the last columns are not reduced.",
        ),
    ]
}

fn mutants_of_nn() -> Vec<Mutant> {
    vec![
        mutant(
            "ldmatrix of b does not transpose",
            [swap("ldmatrix", &[4], ".x4.trans.", ".x4.")],
            "b lies along n, mma wants it along k.",
        ),
        mutant(
            "ldmatrix of b off by a row",
            [swap("ldmatrix", &[10], "]", "+256]")],
            "A row of a tile is 256 bytes; b differs from row to row.",
        ),
        mutant(
            "rows of b beyond k are read",
            [swap("setp.lt.s32", &[4, 5], ".lt.", ".le.")],
            "b has k rows.",
        ),
    ]
}

fn mutants_of_tn() -> Vec<Mutant> {
    vec![
        mutant(
            "ldmatrix of a does not transpose",
            [swap("ldmatrix", &[1], ".x4.trans.", ".x4.")],
            "a lies along m, mma wants it along k.",
        ),
        mutant(
            "a row's weight is left out",
            [instead("mul.f32", &[1], "mov.f32 $0, $1;")],
            "Weights differ from 1.",
        ),
        mutant(
            "copy of the weights removed",
            [remove("cp.async.ca", &[0])],
            "They are read from shared memory.",
        ),
    ]
}
